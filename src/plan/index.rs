//! Index intent: from the indexes of a column to the index in Milvus.
//!
//! The operator class of a pgvector index says which distance the application searches by, and that is what the collection
//! must answer with. HNSW and IVF keep their build parameters; a column without a pgvector index gets AUTOINDEX. An index on a
//! cast (`embedding::halfvec(768)`) counts like one on the column; one on another expression answers other questions.

use std::collections::BTreeMap;

use crate::config::settings::{FieldSettings, TableSettings};
use crate::milvus::{DataType, FieldSchema, IndexSpec, ServerInfo};
use crate::postgres::catalog::{Index, Table};

use super::{ColumnPlan, IndexPlan};

/// What cannot be: the column, the reason, the remedy.
pub type IndexRefusal = (Option<String>, String, String);

/// Metrics of a vector field; the first is taken when nothing else says.
fn metrics(data_type: DataType) -> &'static [&'static str] {
    match data_type {
        DataType::BinaryVector => &["HAMMING", "JACCARD"],
        DataType::SparseFloatVector => &["IP"],
        _ => &["COSINE", "L2", "IP"],
    }
}

/// One index for each vector field, and those of scalar fields that are asked for.
pub fn indexes(
    table: &Table,
    settings: &TableSettings,
    server: &ServerInfo,
    columns: &[ColumnPlan],
    fields: &[FieldSchema],
    remarks: &mut Vec<String>,
) -> Result<Vec<IndexPlan>, Vec<IndexRefusal>> {
    let mut intent = Intent { table, settings, server, remarks, refusals: Vec::new(), metric_used: false };
    let mut plans = Vec::new();
    for (i, field) in fields.iter().enumerate() {
        let column = columns.iter().find(|column| column.field == i);
        plans.extend(match column {
            Some(column) if field.data_type.is_vector() => intent.vector(column, field),
            Some(column) => intent.scalar(column, field),
            // The placeholder: nobody searches it.
            None if field.data_type.is_vector() => Some(IndexPlan {
                spec: spec(field, "AUTOINDEX", "L2", BTreeMap::new()),
                reason: "AUTOINDEX, as a collection is loaded only with an index on each vector".into(),
            }),
            None => None,
        });
    }
    if let Some(metric) = settings.metric.as_ref().filter(|_| !intent.metric_used && intent.refusals.is_empty()) {
        let reason = format!("`metric = {metric:?}`, which none of its vectors has");
        intent.refusals.push((None, reason, "remove it, or set `metric` in [table.fields.…]".into()));
    }
    if intent.refusals.is_empty() { Ok(plans) } else { Err(intent.refusals) }
}

fn spec(field: &FieldSchema, index_type: &str, metric: &str, params: BTreeMap<String, String>) -> IndexSpec {
    IndexSpec { field: field.name.clone(), index_type: index_type.into(), metric_type: metric.into(), params }
}

struct Intent<'a> {
    table: &'a Table,
    settings: &'a TableSettings,
    server: &'a ServerInfo,
    remarks: &'a mut Vec<String>,
    refusals: Vec<IndexRefusal>,
    /// The table's metric applies to one of its vectors.
    metric_used: bool,
}

impl<'a> Intent<'a> {
    fn field_settings(&self, column: &str) -> FieldSettings {
        self.settings.fields.iter().find(|(name, _)| name == column).map(|(_, s)| s.clone()).unwrap_or_default()
    }

    fn refuse(&mut self, column: &ColumnPlan, reason: String, remedy: String) -> Option<IndexPlan> {
        self.refusals.push((Some(column.name.clone()), reason, remedy));
        None
    }

    fn vector(&mut self, column: &ColumnPlan, field: &FieldSchema) -> Option<IndexPlan> {
        let settings = self.field_settings(&column.name);
        let known = metrics(field.data_type);
        let followed = self.followed(column, field);
        let asked = settings.metric.as_deref();
        if let Some(metric) = asked.filter(|metric| !known.contains(metric)) {
            let reason = format!("`metric = {metric:?}`, which a {} does not have", field.data_type);
            return self.refuse(column, reason, format!("take one of {}", known.join(", ")));
        }
        let of_table = self.settings.metric.as_deref().filter(|metric| known.contains(metric));
        self.metric_used |= of_table.is_some();
        let found = followed.and_then(|index| Some((index, metric_of(index, field.data_type)?)));
        let (metric, metric_reason) = match (asked.or(of_table), found) {
            (Some(metric), _) => (metric.to_owned(), "metric as configured".to_owned()),
            (None, Some((index, metric))) => {
                (metric.to_owned(), format!("{metric} as its operator class {}", index.operator_class))
            }
            (None, None) => {
                let metric = known.first().copied().unwrap_or_default();
                let usual = match field.data_type {
                    DataType::BinaryVector => "of binary vectors",
                    DataType::SparseFloatVector => "of sparse vectors, the only one in Milvus",
                    _ => "of embeddings",
                };
                (metric.to_owned(), format!("{metric} as the usual metric {usual}"))
            }
        };
        let (index_type, params, type_reason) = match &settings.index {
            Some(none) if none.eq_ignore_ascii_case("none") => {
                let remedy = "take another, or `index = \"none\"` for the whole table".to_owned();
                return self.refuse(
                    column,
                    "`index = \"none\"` of a vector, without which Milvus loads no collection".into(),
                    remedy,
                );
            }
            Some(asked) => (asked.clone(), BTreeMap::new(), "as configured".to_owned()),
            None => self.index_type(followed, field.data_type),
        };
        let params = if settings.index_params.is_empty() { params } else { settings.index_params };
        let reason = format!("{index_type} {type_reason}, {metric_reason}");
        Some(IndexPlan { spec: spec(field, &index_type, &metric, params), reason })
    }

    /// The pgvector index to follow; the others are remarked.
    fn followed(&mut self, column: &ColumnPlan, field: &FieldSchema) -> Option<&'a Index> {
        let table = self.table;
        let mut found: Vec<&Index> = table
            .indexes
            .iter()
            .filter(|index| index.column.as_deref() == Some(&*column.name))
            .filter(|index| matches!(&*index.method, "hnsw" | "ivfflat"))
            .collect();
        // The column itself before an expression, HNSW before IVF, then by name: the same table always gives the same plan.
        found.sort_by_key(|index| (index.expression.is_some(), index.method.clone(), index.name.clone()));
        let usable = |index: &&Index| metric_of(index, field.data_type).is_some() && is_cast_of(index, &column.name);
        let followed = found.iter().position(usable).map(|at| found.remove(at));
        for other in found {
            let why = match followed {
                Some(_) if usable(&other) => "a field has one index",
                _ if !is_cast_of(other, &column.name) => "it is on an expression",
                _ => "Milvus has no such metric for the field",
            };
            self.remarks.push(format!(
                "index {:?} ({} {}) has no counterpart: {why}",
                other.name, other.method, other.operator_class
            ));
        }
        followed
    }

    fn index_type(&self, followed: Option<&Index>, data_type: DataType) -> (String, BTreeMap<String, String>, String) {
        let params = |pairs: &[(&str, u32)]| pairs.iter().map(|(key, n)| ((*key).to_owned(), n.to_string())).collect();
        let lists = |index: &Index| option(index, "lists").unwrap_or(100);
        let as_index = |index: &Index| format!("as the pgvector index {:?}", index.name);
        let (index_type, params, reason) = match (data_type, followed) {
            (DataType::SparseFloatVector, _) => {
                ("SPARSE_INVERTED_INDEX", BTreeMap::new(), "as the index of sparse vectors".to_owned())
            }
            // Knowhere has no HNSW of binary vectors before 2.5, and pgvector no lists in an HNSW index.
            (DataType::BinaryVector, Some(index)) => {
                ("BIN_IVF_FLAT", params(&[("nlist", lists(index))]), as_index(index))
            }
            (DataType::BinaryVector, None) => {
                ("BIN_FLAT", BTreeMap::new(), "as the column has no pgvector index to follow".to_owned())
            }
            (_, Some(index)) if index.method == "hnsw" => {
                // pgvector's defaults where the index does not say. Knowhere before 2.5 bounds M by 4 and 64 and
                // efConstruction by 8 and 512.
                let (m, ef) = (option(index, "m").unwrap_or(16), option(index, "ef_construction").unwrap_or(64));
                let (m, ef) = if self.server.has_nullable() { (m, ef) } else { (m.clamp(4, 64), ef.clamp(8, 512)) };
                ("HNSW", params(&[("M", m), ("efConstruction", ef)]), as_index(index))
            }
            (_, Some(index)) => ("IVF_FLAT", params(&[("nlist", lists(index))]), as_index(index)),
            (_, None) => ("AUTOINDEX", BTreeMap::new(), "as the column has no pgvector index to follow".to_owned()),
        };
        (index_type.to_owned(), params, reason)
    }

    fn scalar(&mut self, column: &ColumnPlan, field: &FieldSchema) -> Option<IndexPlan> {
        let settings = self.field_settings(&column.name);
        let remedy = format!("remove it from [table.fields.{}]", column.name);
        if settings.metric.is_some() {
            return self.refuse(column, format!("`metric` of a {}", field.data_type), remedy);
        }
        let btree = self.table.indexes.iter().find(|index| {
            index.method == "btree" && index.expression.is_none() && index.column.as_deref() == Some(&*column.name)
        });
        let (index_type, reason) = match (&settings.index, btree) {
            (Some(none), _) if none.eq_ignore_ascii_case("none") => return None,
            (Some(asked), _) => (asked.clone(), "as configured".to_owned()),
            // The primary field has an index of Milvus's own.
            (None, Some(index)) if self.settings.scalar_indexes && !field.is_primary => {
                let Some(found) = self.scalar_type(field.data_type) else {
                    let (index, data_type) = (&index.name, field.data_type);
                    let version = &self.server.version;
                    self.remarks
                        .push(format!("index {index:?} has no counterpart: Milvus {version} has none on {data_type}"));
                    return None;
                };
                (found.to_owned(), format!("as the btree index {:?}", index.name))
            }
            _ if !settings.index_params.is_empty() => {
                return self.refuse(column, "`index_params` without an index".into(), remedy);
            }
            _ => return None,
        };
        let reason = format!("{index_type} {reason}");
        Some(IndexPlan { spec: spec(field, &index_type, "", settings.index_params), reason })
    }

    fn scalar_type(&self, data_type: DataType) -> Option<&'static str> {
        match data_type {
            // A JSON index is on a path within the document.
            DataType::Json => None,
            DataType::Timestamptz => Some("STL_SORT"),
            _ if self.server.has_inverted_index() => Some("INVERTED"),
            DataType::VarChar => Some("Trie"),
            DataType::Bool | DataType::Array => None,
            _ => Some("STL_SORT"),
        }
    }
}

/// The metric of the operator class, if the field has it; Milvus has no counterpart of `vector_l1_ops`.
fn metric_of(index: &Index, data_type: DataType) -> Option<&'static str> {
    let (_, class) = index.operator_class.split_once('_')?;
    let metric = match class {
        "cosine_ops" => "COSINE",
        "l2_ops" => "L2",
        "ip_ops" => "IP",
        "hamming_ops" => "HAMMING",
        "jaccard_ops" => "JACCARD",
        _ => return None,
    };
    metrics(data_type).contains(&metric).then_some(metric)
}

/// Is the index on the column, or on nothing but a cast of it? `((embedding)::public.halfvec(3))` is.
fn is_cast_of(index: &Index, column: &str) -> bool {
    let Some(expression) = &index.expression else { return true };
    let bare: String = expression.chars().filter(|c| !matches!(c, '(' | ')' | '"' | ' ')).collect();
    let column: String = column.chars().filter(|c| !matches!(c, '(' | ')' | '"' | ' ')).collect();
    bare.strip_prefix(&column).and_then(|rest| rest.strip_prefix("::")).is_some_and(|cast| {
        let name = cast.rsplit('.').next().unwrap_or(cast).trim_end_matches(|c: char| c.is_ascii_digit());
        matches!(name, "halfvec" | "vector" | "sparsevec")
    })
}

fn option(index: &Index, name: &str) -> Option<u32> {
    index.options.iter().find(|(option, _)| option == name).and_then(|(_, value)| value.parse().ok())
}

/// Use AUTOINDEX for every field, keeping the metrics: Zilliz Cloud knows no other type.
pub fn use_autoindex(plan: &mut super::Plan) {
    for index in plan.tables.iter_mut().flat_map(|table| &mut table.indexes) {
        if index.spec.index_type != "AUTOINDEX" {
            index.reason = format!("AUTOINDEX, the only type of Zilliz Cloud, instead of {}", index.reason);
            index.spec.index_type = "AUTOINDEX".into();
            index.spec.params.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{assert_refused, column, docs, index, plan_of, settings, table, vector};
    use super::*;

    fn specs(table: Table, settings: TableSettings) -> Vec<String> {
        let spec = |plan: &IndexPlan| {
            let params: Vec<String> = plan.spec.params.iter().map(|(key, value)| format!("{key}={value}")).collect();
            [&*plan.spec.field, &*plan.spec.index_type, &*plan.spec.metric_type, &params.join(",")].join(" ")
        };
        plan_of(table, settings).indexes.iter().map(spec).collect()
    }

    fn on(column: &str, index: Index) -> Index {
        Index { column: Some(column.into()), ..index }
    }

    #[test]
    fn every_kind_of_vector_follows_its_own_operator_class() {
        let columns =
            vec![column("id", "int4"), column("h", "halfvec(4)"), column("s", "sparsevec(9)"), column("b", "bit(8)")];
        let bits = FieldSettings { data_type: Some("BINARY_VECTOR".into()), ..Default::default() };
        let settings = TableSettings { fields: vec![("b".to_owned(), bits)], ..settings() };
        let bare = table(columns);
        assert_eq!(
            specs(bare.clone(), settings.clone()),
            ["h AUTOINDEX COSINE ", "s SPARSE_INVERTED_INDEX IP ", "b BIN_FLAT HAMMING "]
        );
        let indexes = vec![
            on("h", index("h", "hnsw", "halfvec_ip_ops", &[("m", "8")])),
            on("s", index("s", "hnsw", "sparsevec_ip_ops", &[])),
            on("b", index("b", "ivfflat", "bit_jaccard_ops", &[("lists", "7")])),
        ];
        assert_eq!(
            specs(Table { indexes, ..bare }, settings),
            ["h HNSW IP M=8,efConstruction=64", "s SPARSE_INVERTED_INDEX IP ", "b BIN_IVF_FLAT JACCARD nlist=7"]
        );
    }

    #[test]
    fn an_index_on_a_cast_is_followed_and_one_on_another_expression_is_not() {
        let on_expression = |name: &str, class: &str, expression: &str| Index {
            expression: Some(expression.into()),
            ..on("embedding", index(name, "hnsw", class, &[]))
        };
        let cast = on_expression("a", "halfvec_l2_ops", "((embedding)::halfvec(3))");
        let plan = |indexes| plan_of(Table { indexes, ..docs() }, settings());
        assert_eq!(plan(vec![cast.clone()]).indexes[0].spec.metric_type, "L2");
        let plain = on("embedding", index("z", "ivfflat", "vector_ip_ops", &[]));
        assert_eq!(plan(vec![cast, plain]).indexes[0].spec.metric_type, "IP");
        for (class, expression) in [
            ("bit_hamming_ops", "((binary_quantize(embedding))::bit(3))"),
            ("vector_l2_ops", "(subvector(embedding, 1, 2))::vector(2)"),
        ] {
            let plan = plan(vec![on_expression("q", class, expression)]);
            assert_eq!(plan.indexes[0].spec.metric_type, "COSINE", "{expression}");
            assert!(plan.remarks[0].contains("has no counterpart: it is on an expression"), "{:?}", plan.remarks);
        }
    }

    #[test]
    fn settings_of_a_field_go_before_everything() {
        let field = FieldSettings {
            metric: Some("L2".into()),
            index: Some("IVF_SQ8".into()),
            index_params: BTreeMap::from([("nlist".into(), "16".into())]),
            ..Default::default()
        };
        let title = FieldSettings { index: Some("INVERTED".into()), ..Default::default() };
        let fields = vec![("embedding".to_owned(), field), ("title".to_owned(), title)];
        let chosen = TableSettings { fields, metric: Some("IP".into()), ..settings() };
        assert_eq!(specs(docs(), chosen), ["title INVERTED  ", "embedding IVF_SQ8 L2 nlist=16"]);
        let with = |column: &str, field| TableSettings { fields: vec![(column.to_owned(), field)], ..settings() };
        for (settings, expected) in [
            (
                with("embedding", FieldSettings { metric: Some("HAMMING".into()), ..Default::default() }),
                "column \"embedding\": `metric = \"HAMMING\"`, which a FLOAT_VECTOR does not have; take one of COSINE, L2, IP",
            ),
            (
                with("embedding", FieldSettings { index: Some("none".into()), ..Default::default() }),
                "column \"embedding\": `index = \"none\"` of a vector, without which Milvus loads no collection; take another, \
                 or `index = \"none\"` for the whole table",
            ),
            (
                with("title", FieldSettings { metric: Some("L2".into()), ..Default::default() }),
                "column \"title\": `metric` of a VARCHAR; remove it from [table.fields.title]",
            ),
            (
                with(
                    "title",
                    FieldSettings { index_params: BTreeMap::from([("a".into(), "1".into())]), ..Default::default() },
                ),
                "column \"title\": `index_params` without an index; remove it from [table.fields.title]",
            ),
        ] {
            assert_refused(docs(), settings, &format!("table public.docs, {expected}"));
        }
    }

    #[test]
    fn btree_indexes_are_followed_on_request() {
        let columns = vec![column("id", "int4"), column("t", "text"), column("j", "jsonb"), vector("v", 2)];
        let btree = |name: &str| on(name, index(&format!("{name}_idx"), "btree", "ops", &[]));
        let table = Table { indexes: vec![btree("id"), btree("t"), btree("j")], ..table(columns) };
        assert_eq!(specs(table.clone(), settings()), ["v AUTOINDEX COSINE "]);
        let scalar = TableSettings { scalar_indexes: true, ..settings() };
        assert_eq!(specs(table.clone(), scalar.clone()), ["t INVERTED  ", "v AUTOINDEX COSINE "]);
        assert_eq!(
            plan_of(table, scalar).remarks,
            ["index \"j_idx\" has no counterpart: Milvus v2.6.4 has none on JSON"]
        );
    }
}
