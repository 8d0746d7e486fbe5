//! Index intent: from the pgvector index of a vector column to the index in Milvus.
//!
//! The operator class says which distance the application searches by, and that is what the collection must answer with.
//! HNSW and IVF keep their build parameters; a column without a pgvector index gets AUTOINDEX.

use std::collections::BTreeMap;

use crate::config::settings::TableSettings;
use crate::milvus::{DataType, FieldSchema, IndexSpec, ServerInfo};
use crate::postgres::catalog::{Index, Table};

use super::{ColumnPlan, IndexPlan};

/// Metrics of a FLOAT_VECTOR index.
const METRICS: [&str; 3] = ["COSINE", "L2", "IP"];

/// One index for each vector column. An error is a reason and its remedy.
pub fn indexes(
    table: &Table,
    settings: &TableSettings,
    server: &ServerInfo,
    columns: &[ColumnPlan],
    fields: &[FieldSchema],
    remarks: &mut Vec<String>,
) -> Result<Vec<IndexPlan>, (String, String)> {
    let wanted = settings.metric.as_deref();
    if let Some(metric) = wanted.filter(|metric| !METRICS.contains(metric)) {
        return Err((format!("`metric = {metric:?}`"), format!("take one of {}", METRICS.join(", "))));
    }
    let mut plans = Vec::new();
    for column in columns {
        let Some(field) = fields.get(column.field).filter(|field| field.data_type == DataType::FloatVector) else {
            continue;
        };
        let mut found: Vec<&Index> = table
            .indexes
            .iter()
            .filter(|index| index.column.as_deref() == Some(&*column.name))
            .filter(|index| matches!(&*index.method, "hnsw" | "ivfflat"))
            .collect();
        // HNSW before IVF, then by name, so that the same table always gives the same plan.
        found.sort_by(|a, b| (&a.method, &a.name).cmp(&(&b.method, &b.name)));
        let usable = found.iter().position(|index| metric_of(index).is_some()).map(|at| found.remove(at));
        for other in found {
            remarks.push(format!(
                "index {:?} ({} {}) has no counterpart: a field has one index",
                other.name, other.method, other.operator_class
            ));
        }
        plans.push(plan(&field.name, usable, wanted, server));
    }
    Ok(plans)
}

fn plan(field: &str, index: Option<&Index>, wanted: Option<&str>, server: &ServerInfo) -> IndexPlan {
    let (metric, metric_reason) = match (wanted, index.and_then(|index| Some((index, metric_of(index)?)))) {
        (Some(metric), _) => (metric, "metric as configured".to_owned()),
        (None, Some((index, metric))) => (metric, format!("{metric} as its operator class {}", index.operator_class)),
        (None, None) => ("COSINE", "COSINE as the usual metric of embeddings".to_owned()),
    };
    let (index_type, params, type_reason) = match index {
        Some(index) if index.method == "hnsw" => {
            // pgvector's defaults where the index does not say. Knowhere before 2.5 bounds M by 4 and 64 and
            // efConstruction by 8 and 512.
            let (m, ef) = (option(index, "m").unwrap_or(16), option(index, "ef_construction").unwrap_or(64));
            let (m, ef) = if server.has_nullable() { (m, ef) } else { (m.clamp(4, 64), ef.clamp(8, 512)) };
            let params = BTreeMap::from([("M".into(), m.to_string()), ("efConstruction".into(), ef.to_string())]);
            ("HNSW", params, format!("as the pgvector index {:?}", index.name))
        }
        Some(index) => {
            let lists = option(index, "lists").unwrap_or(100);
            let params = BTreeMap::from([("nlist".into(), lists.to_string())]);
            ("IVF_FLAT", params, format!("as the pgvector index {:?}", index.name))
        }
        None => ("AUTOINDEX", BTreeMap::new(), "as the column has no pgvector index to follow".to_owned()),
    };
    IndexPlan {
        spec: IndexSpec { field: field.into(), index_type: index_type.into(), metric_type: metric.into(), params },
        reason: format!("{index_type} {type_reason}, {metric_reason}"),
    }
}

/// Milvus has no counterpart of `vector_l1_ops`.
fn metric_of(index: &Index) -> Option<&'static str> {
    match &*index.operator_class {
        "vector_cosine_ops" => Some("COSINE"),
        "vector_l2_ops" => Some("L2"),
        "vector_ip_ops" => Some("IP"),
        _ => None,
    }
}

fn option(index: &Index, name: &str) -> Option<u32> {
    index.options.iter().find(|(option, _)| option == name).and_then(|(_, value)| value.parse().ok())
}

/// Use AUTOINDEX for every vector, keeping the metrics: Zilliz Cloud knows no other type for them.
pub fn use_autoindex(plan: &mut super::Plan) {
    for index in plan.tables.iter_mut().flat_map(|table| &mut table.indexes) {
        if index.spec.index_type != "AUTOINDEX" {
            index.reason = format!("AUTOINDEX, the only type of Zilliz Cloud, instead of {}", index.reason);
            index.spec.index_type = "AUTOINDEX".into();
            index.spec.params.clear();
        }
    }
}
