//! The RPCs of `MilvusService` that walvec and its tests use, over the messages of walvec's own client.
//!
//! Those are only the fields that walvec sets or reads; that their numbers are Milvus's is checked elsewhere, byte for byte.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use prost::Message;
use tonic::Status;
use walvec::milvus::DataType;
use walvec::milvus::grpc::wire;

use super::expr::{Expr, Params};
use super::store::{self, Batch, Collection, Datum, Field, Index, Refusal, refuse};
use super::{Failure, Operation, Shared, counted, lock};
use crate::support::unary::unary;

/// Milvus takes no larger message.
const MESSAGE_MAX: u64 = 64 << 20;

/// What becomes of the failure inside a handler: a status in the body, or one of the transport. A reset is said by a mark in the
/// status, because only the response as a whole can be broken.
fn broken(failure: Failure) -> Result<wire::Status, Status> {
    match failure {
        Failure::Refused(refusal) => Ok(status(&refusal)),
        Failure::Hang | Failure::Reset => Err(Status::data_loss(RESET)),
        Failure::Gateway { status: 413, .. } => {
            Err(Status::resource_exhausted("grpc: received message larger than max"))
        }
        Failure::Gateway { status: 429, .. } => Err(Status::resource_exhausted("too many requests")),
        Failure::Gateway { status: 502 | 503, .. } => Err(Status::unavailable("upstream connect error")),
        Failure::Gateway { status, .. } => Err(Status::unknown(format!("HTTP status {status}"))),
    }
}

const RESET: &str = "the stream is to be reset";

fn status(refusal: &Refusal) -> wire::Status {
    let legacy = match refusal.code {
        100 => 4,
        8 => 49,
        1100 => 5,
        _ => 1,
    };
    wire::Status { error_code: legacy, reason: refusal.reason.clone(), code: refusal.code, ..Default::default() }
}

fn ok() -> Option<wire::Status> {
    Some(wire::Status::default())
}

pub async fn answer(shared: Arc<Shared>, request: Request) -> Response {
    let given = request.headers().get("authorization").and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !shared.lets_in(given, |token| STANDARD.encode(token)) {
        return Status::unauthenticated("auth check failure, please check api key is correct").into_http();
    }
    let method = request.uri().path().rsplit('/').next().unwrap_or_default().to_owned();
    let response = dispatch(shared, &method, request).await;
    let lost = response
        .headers()
        .get("grpc-message")
        .is_some_and(|text| text.to_str().is_ok_and(|text| text.contains("reset")));
    if lost {
        let broken = futures_util::stream::once(async { Err::<Bytes, _>(std::io::Error::other("reset")) });
        return response.map(|_| Body::from_stream(broken));
    }
    response
}

async fn dispatch(shared: Arc<Shared>, method: &str, request: Request) -> Response {
    match method {
        "Connect" => {
            call(
                shared,
                Operation::Other,
                request,
                |_, _: wire::ConnectRequest| Ok(wire::StatusResponse { status: ok() }),
                |status| wire::StatusResponse { status: Some(status) },
            )
            .await
        }
        "GetVersion" => {
            call(
                shared,
                Operation::Other,
                request,
                |shared, _: wire::GetVersionRequest| {
                    Ok(wire::GetVersionResponse { status: ok(), version: shared.version.name().to_owned() })
                },
                |status| wire::GetVersionResponse { status: Some(status), ..Default::default() },
            )
            .await
        }
        "DescribeCollection" => {
            call(
                shared,
                Operation::Describe,
                request,
                |shared, asked: wire::CollectionRequest| {
                    let store = lock(&shared.store);
                    let real = store.resolve(&asked.collection_name)?;
                    Ok(described(&real, store.collection(&real)?))
                },
                |status| wire::DescribeCollectionResponse { status: Some(status), ..Default::default() },
            )
            .await
        }
        "CreateCollection" => {
            command(shared, Operation::Create, request, |shared, asked: wire::CreateCollectionRequest| {
                let Ok(schema) = wire::CollectionSchema::decode(asked.schema) else {
                    return refuse(105, "illegal schema");
                };
                let fields = schema.fields.into_iter().map(field).collect::<Result<Vec<_>, _>>()?;
                let collection = Collection {
                    description: schema.description,
                    fields,
                    dynamic: schema.enable_dynamic_field,
                    shards: asked.shards_num.try_into().unwrap_or_default(),
                    partitions: asked.num_partitions.try_into().unwrap_or_default(),
                    consistency: asked.consistency_level,
                    properties: asked.properties.into_iter().map(|pair| (pair.key, pair.value)).collect(),
                    ..Collection::default()
                };
                lock(&shared.store).create(&asked.collection_name, collection)
            })
            .await
        }
        "DropCollection" => {
            command(shared, Operation::Drop, request, |shared, asked: wire::CollectionRequest| {
                lock(&shared.store).drop_collection(&asked.collection_name)
            })
            .await
        }
        "TruncateCollection" if shared.version.has_truncate() => {
            call(
                shared,
                Operation::Truncate,
                request,
                |shared, asked: wire::CollectionRequest| {
                    lock(&shared.store).collection_mut(&asked.collection_name)?.entities.clear();
                    Ok(wire::StatusResponse { status: ok() })
                },
                |status| wire::StatusResponse { status: Some(status) },
            )
            .await
        }
        "AddCollectionField" if shared.version.has_add_field() => {
            command(shared, Operation::AddField, request, |shared, asked: wire::AddCollectionFieldRequest| {
                let Ok(added) = wire::FieldSchema::decode(asked.schema) else { return refuse(1100, "illegal field") };
                lock(&shared.store).add_field(&asked.collection_name, field(added)?)
            })
            .await
        }
        "CreateAlias" => {
            command(shared, Operation::Alias, request, |shared, asked: wire::PointAliasRequest| {
                lock(&shared.store).create_alias(&asked.alias, &asked.collection_name)
            })
            .await
        }
        "AlterAlias" => {
            command(shared, Operation::Alias, request, |shared, asked: wire::PointAliasRequest| {
                lock(&shared.store).alter_alias(&asked.alias, &asked.collection_name)
            })
            .await
        }
        "DropAlias" => {
            command(shared, Operation::Alias, request, |shared, asked: wire::AliasRequest| {
                lock(&shared.store).aliases.remove(&asked.alias);
                Ok(())
            })
            .await
        }
        "DescribeAlias" => {
            call(
                shared,
                Operation::Alias,
                request,
                |shared, asked: wire::AliasRequest| {
                    let collection = lock(&shared.store).alias(&asked.alias)?.to_owned();
                    Ok(wire::DescribeAliasResponse { status: ok(), collection })
                },
                |status| wire::DescribeAliasResponse { status: Some(status), ..Default::default() },
            )
            .await
        }
        "CreateIndex" => {
            command(shared, Operation::Index, request, |shared, asked: wire::CreateIndexRequest| {
                lock(&shared.store).create_index(&asked.collection_name, index(&asked))
            })
            .await
        }
        "DescribeIndex" => {
            call(
                shared,
                Operation::Index,
                request,
                |shared, asked: wire::CollectionRequest| {
                    let store = lock(&shared.store);
                    let collection = store.collection(&asked.collection_name)?;
                    let (indexes, rows) = (&collection.indexes, collection.entities.len());
                    if indexes.is_empty() {
                        return refuse(700, format!("index not found[collection={}]", asked.collection_name));
                    }
                    Ok(wire::DescribeIndexResponse {
                        status: ok(),
                        index_descriptions: indexes.iter().map(|index| index_described(index, rows)).collect(),
                    })
                },
                |status| wire::DescribeIndexResponse { status: Some(status), ..Default::default() },
            )
            .await
        }
        "LoadCollection" => {
            command(shared, Operation::Load, request, |shared, asked: wire::CollectionRequest| {
                lock(&shared.store).load(&asked.collection_name)
            })
            .await
        }
        "GetLoadState" => {
            call(
                shared,
                Operation::Load,
                request,
                |shared, asked: wire::GetLoadStateRequest| {
                    let loaded = lock(&shared.store).collection(&asked.collection_name)?.loaded;
                    Ok(wire::GetLoadStateResponse { status: ok(), state: if loaded { 3 } else { 1 } })
                },
                |status| wire::GetLoadStateResponse { status: Some(status), ..Default::default() },
            )
            .await
        }
        "Upsert" | "Insert" => {
            unary(request, move |asked: wire::UpsertRequest, size| upsert(Arc::clone(&shared), asked, size)).await
        }
        "Delete" => unary(request, move |asked: wire::DeleteRequest, _| delete(Arc::clone(&shared), asked)).await,
        "Query" => {
            call(shared, Operation::Query, request, query, |status| wire::QueryResults {
                status: Some(status),
                ..Default::default()
            })
            .await
        }
        _ => Status::unimplemented("unknown method").into_http(),
    }
}

/// A call that answers with a message which has a status among other things.
async fn call<Asked, Answered>(
    shared: Arc<Shared>,
    operation: Operation,
    request: Request,
    handle: fn(&Shared, Asked) -> Result<Answered, Refusal>,
    refused: fn(wire::Status) -> Answered,
) -> Response
where
    Asked: Message + Default + 'static,
    Answered: Message + Default + 'static,
{
    unary(request, move |asked: Asked, _| {
        let shared = Arc::clone(&shared);
        async move {
            let answer = match shared.admit(operation).await {
                Ok(()) => handle(&shared, asked).map_err(Failure::from),
                Err(failure) => Err(failure),
            };
            match answer {
                Ok(answer) => Ok(answer),
                Err(Failure::Hang) => std::future::pending().await,
                Err(failure) => broken(failure).map(refused),
            }
        }
    })
    .await
}

/// A call that answers with a bare status.
async fn command<Asked: Message + Default + 'static>(
    shared: Arc<Shared>,
    operation: Operation,
    request: Request,
    handle: fn(&Shared, Asked) -> Result<(), Refusal>,
) -> Response {
    unary(request, move |asked: Asked, _| {
        let shared = Arc::clone(&shared);
        async move {
            let answer = match shared.admit(operation).await {
                Ok(()) => handle(&shared, asked).map_err(Failure::from),
                Err(failure) => Err(failure),
            };
            match answer {
                Ok(()) => Ok(wire::Status::default()),
                Err(Failure::Hang) => std::future::pending().await,
                Err(failure) => broken(failure),
            }
        }
    })
    .await
}

/// walvec's own client looks at the status alone.
#[derive(Clone, PartialEq, Message)]
struct MutationResult {
    #[prost(message, optional, tag = "1")]
    status: Option<wire::Status>,
    #[prost(int64, tag = "6")]
    insert_cnt: i64,
    #[prost(int64, tag = "7")]
    delete_cnt: i64,
    #[prost(int64, tag = "8")]
    upsert_cnt: i64,
}

async fn acknowledged(operation: Operation, result: Result<usize, Failure>) -> Result<MutationResult, Status> {
    let status = match result {
        Ok(count) => {
            let (count, upserts) = (count as i64, operation == Operation::Upsert);
            let [upsert_cnt, delete_cnt] = if upserts { [count, 0] } else { [0, count] };
            return Ok(MutationResult { status: ok(), insert_cnt: upsert_cnt, delete_cnt, upsert_cnt });
        }
        Err(Failure::Hang) => std::future::pending().await,
        Err(failure) => broken(failure)?,
    };
    Ok(MutationResult { status: Some(status), ..Default::default() })
}

async fn upsert(shared: Arc<Shared>, asked: wire::UpsertRequest, size: u64) -> Result<MutationResult, Status> {
    if size > MESSAGE_MAX {
        return Err(Status::resource_exhausted(format!(
            "grpc: received message larger than max ({size} vs. {MESSAGE_MAX})"
        )));
    }
    let (mutation, bytes) = {
        let store = lock(&shared.store);
        let batch = store
            .collection(&asked.collection_name)
            .and_then(|collection| batch(&shared, collection, asked.fields_data, asked.num_rows as usize));
        let bytes = batch.as_ref().map_or(0, |batch| batch.rows.iter().map(|row| counted(row)).sum());
        (batch.and_then(|batch| store.upsert(&asked.collection_name, batch)), bytes)
    };
    acknowledged(Operation::Upsert, shared.write(Operation::Upsert, mutation, bytes).await).await
}

async fn delete(shared: Arc<Shared>, asked: wire::DeleteRequest) -> Result<MutationResult, Status> {
    let bytes = asked.expr.len();
    let mutation = {
        let store = lock(&shared.store);
        match Expr::parse(&asked.expr, &Params::new()) {
            Ok(expr) => store.delete(&asked.collection_name, &expr),
            Err(complaint) => store.resolve(&asked.collection_name).and(refuse(1100, complaint)),
        }
    };
    acknowledged(Operation::Delete, shared.write(Operation::Delete, mutation, bytes).await).await
}

fn query(shared: &Shared, asked: wire::QueryRequest) -> Result<wire::QueryResults, Refusal> {
    let store = lock(&shared.store);
    let collection = store.collection(&asked.collection_name)?;
    let expr = match Expr::parse(&asked.expr, &Params::new()) {
        Ok(expr) => expr,
        Err(complaint) => return refuse(1100, complaint),
    };
    let limit = asked.query_params.iter().find(|pair| pair.key == "limit").and_then(|pair| pair.value.parse().ok());
    let found = store.query(&asked.collection_name, &expr, limit)?;
    if asked.output_fields == ["count(*)"] {
        let counted = wire::ScalarField {
            long_data: Some(wire::LongArray { data: vec![found.len() as i64] }),
            ..Default::default()
        };
        let data = wire::FieldData {
            data_type: DataType::Int64 as i32,
            field_name: "count(*)".into(),
            scalars: Some(counted),
            ..Default::default()
        };
        return Ok(wire::QueryResults { status: ok(), fields_data: vec![data] });
    }
    let mut fields_data = Vec::new();
    // The key is in every answer, asked for or not.
    let primary = &collection.fields[collection.primary()].name;
    let hidden = Some(primary).filter(|name| !asked.output_fields.contains(name));
    for name in asked.output_fields.iter().chain(hidden) {
        if collection.dynamic && name == store::META {
            let objects = |row: &Vec<Datum>| match &row[collection.fields.len()] {
                Datum::Json(text) => Bytes::from(text.clone()),
                _ => Bytes::new(),
            };
            let json_data = Some(wire::BytesArray { data: found.iter().map(objects).collect() });
            fields_data.push(wire::FieldData {
                data_type: DataType::Json as i32,
                field_name: store::META.into(),
                scalars: Some(wire::ScalarField { json_data, ..Default::default() }),
                is_dynamic: true,
                ..Default::default()
            });
            continue;
        }
        let Some(at) = collection.fields.iter().position(|field| field.name == *name) else {
            return refuse(1100, format!("field {name} not exist"));
        };
        let values: Vec<Datum> = found.iter().map(|row| row[at].clone()).collect();
        fields_data.push(column(&collection.fields[at], values));
    }
    Ok(wire::QueryResults { status: ok(), fields_data })
}

fn field(message: wire::FieldSchema) -> Result<Field, Refusal> {
    let number =
        |key: &str| message.type_params.iter().find(|pair| pair.key == key).and_then(|pair| pair.value.parse().ok());
    let default = message.default_value.as_ref().map(|value| {
        let texts = [
            value.bool_data.map(|value| value.to_string()),
            value.int_data.map(|value| value.to_string()),
            value.long_data.map(|value| value.to_string()),
            value.float_data.map(|value| value.to_string()),
            value.double_data.map(|value| value.to_string()),
            value.string_data.clone(),
        ];
        texts.into_iter().flatten().next().unwrap_or_default()
    });
    let known = |number: i32| match data_type(number) {
        Some(found) => Ok(found),
        None => refuse(1100, format!("unknown data type {number}")),
    };
    Ok(Field {
        data_type: known(message.data_type)?,
        element_type: if message.element_type == 0 { None } else { Some(known(message.element_type)?) },
        is_primary: message.is_primary_key,
        auto_id: message.auto_id,
        nullable: message.nullable,
        max_length: number("max_length"),
        max_capacity: number("max_capacity"),
        dim: number("dim"),
        default,
        partition_key: message.is_partition_key,
        mmap: message.type_params.iter().find(|pair| pair.key == "mmap.enabled").map(|pair| pair.value.clone()),
        name: message.name,
        description: message.description,
    })
}

pub fn data_type(number: i32) -> Option<DataType> {
    DataType::ALL.into_iter().find(|known| *known as i32 == number)
}

fn described(name: &str, collection: &Collection) -> wire::DescribeCollectionResponse {
    let pair =
        |key: &str, value: Option<usize>| Some(wire::KeyValuePair { key: key.into(), value: value?.to_string() });
    let mut fields: Vec<wire::FieldSchema> = collection
        .fields
        .iter()
        .map(|field| wire::FieldSchema {
            name: field.name.clone(),
            is_primary_key: field.is_primary,
            description: field.description.clone(),
            data_type: field.data_type as i32,
            type_params: [
                pair("dim", field.dim),
                pair("max_length", field.max_length),
                pair("max_capacity", field.max_capacity),
                field.mmap.clone().map(|value| wire::KeyValuePair { key: "mmap.enabled".into(), value }),
            ]
            .into_iter()
            .flatten()
            .collect(),
            auto_id: field.auto_id,
            element_type: field.element_type.map_or(0, |element| element as i32),
            default_value: field.default.as_ref().map(|text| default_value(field.data_type, text)),
            is_dynamic: false,
            is_partition_key: field.partition_key,
            nullable: field.nullable,
        })
        .collect();
    if collection.dynamic {
        let meta = wire::FieldSchema {
            name: "$meta".into(),
            data_type: DataType::Json as i32,
            is_dynamic: true,
            ..Default::default()
        };
        fields.push(meta);
    }
    wire::DescribeCollectionResponse {
        status: ok(),
        schema: Some(wire::CollectionSchema {
            name: name.to_owned(),
            description: collection.description.clone(),
            auto_id: false,
            fields,
            enable_dynamic_field: collection.dynamic,
        }),
        shards_num: collection.shards as i32,
        consistency_level: collection.consistency,
        properties: collection
            .properties
            .iter()
            .map(|(key, value)| wire::KeyValuePair { key: key.clone(), value: value.clone() })
            .collect(),
        num_partitions: collection.partitions.into(),
    }
}

fn default_value(data_type: DataType, text: &str) -> wire::ValueField {
    let mut value = wire::ValueField::default();
    match data_type {
        DataType::Bool => value.bool_data = text.parse().ok(),
        DataType::Int64 => value.long_data = text.parse().ok(),
        DataType::Float => value.float_data = text.parse().ok(),
        DataType::Double => value.double_data = text.parse().ok(),
        DataType::VarChar => value.string_data = Some(text.to_owned()),
        _ => value.int_data = text.parse().ok(),
    }
    value
}

fn index(asked: &wire::CreateIndexRequest) -> Index {
    let value = |key: &str| asked.extra_params.iter().find(|pair| pair.key == key).map(|pair| pair.value.clone());
    let params: serde_json::Map<String, serde_json::Value> =
        value("params").and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
    Index {
        field: asked.field_name.clone(),
        name: asked.field_name.clone(),
        index_type: value("index_type").unwrap_or_else(|| "AUTOINDEX".into()),
        metric_type: value("metric_type").unwrap_or_default(),
        params: params
            .into_iter()
            .map(|(key, value)| (key, value.as_str().map_or_else(|| value.to_string(), str::to_owned)))
            .collect(),
        built: None,
    }
}

fn index_described(index: &Index, total: usize) -> wire::IndexDescription {
    let pair = |key: &str, value: String| wire::KeyValuePair { key: key.into(), value };
    let mut params = vec![pair("index_type", index.index_type.clone()), pair("metric_type", index.metric_type.clone())];
    params.push(pair("params", serde_json::json!(index.params).to_string()));
    wire::IndexDescription {
        params,
        field_name: index.field.clone(),
        indexed_rows: index.built.map_or(total as i64, |built| built as i64),
        total_rows: total as i64,
        state: if index.built.is_some() { 2 } else { 3 },
        index_state_fail_reason: String::new(),
    }
}

/// The columns of a request as rows.
fn batch(
    shared: &Shared,
    collection: &Collection,
    columns: Vec<wire::FieldData>,
    rows: usize,
) -> Result<Batch, Refusal> {
    let mut fields = Vec::new();
    let mut data: Vec<std::vec::IntoIter<Datum>> = Vec::new();
    for column in columns {
        let name = column.field_name.clone();
        let field = collection.fields.iter().find(|field| field.name == name);
        if field.is_some_and(|field| field.data_type as i32 != column.data_type) {
            return refuse(1100, format!("field {name} has another type in the schema"));
        }
        // Servers before 2.5 do not know the marks of validity.
        let valid = if shared.version < super::Version::V2_5 { Bytes::new() } else { column.valid_data };
        let mut values = values(column.scalars, column.vectors).into_iter();
        let column: Vec<Datum> = if valid.is_empty() {
            values.by_ref().collect()
        } else {
            valid
                .iter()
                .map(|&mark| if mark == 0 { Some(Datum::Null) } else { values.next() })
                .collect::<Option<_>>()
                .unwrap_or_default()
        };
        if column.len() != rows || values.next().is_some() {
            return refuse(
                1100,
                format!("the num_rows ({}) of field ({name}) is not equal to passed num_rows ({rows})", column.len()),
            );
        }
        fields.push(name);
        data.push(column.into_iter());
    }
    if let Some(missing) = collection.fields.iter().find(|field| !field.nullable && !fields.contains(&field.name)) {
        return refuse(1100, format!("fieldSchema({}) has no corresponding fieldData pass in", missing.name));
    }
    let rows =
        (0..rows).map(|_| data.iter_mut().map(|column| column.next().unwrap_or(Datum::Null)).collect()).collect();
    Ok(Batch { fields, rows })
}

fn values(scalars: Option<wire::ScalarField>, vectors: Option<wire::VectorField>) -> Vec<Datum> {
    fn packed<const N: usize>(array: wire::PackedArray) -> Vec<[u8; N]> {
        array.data.as_chunks::<N>().0.to_vec()
    }
    let text = |bytes: Bytes| String::from_utf8_lossy(&bytes).into_owned();
    if let Some(vector) = vectors {
        let dim = (vector.dim as usize).max(1);
        let cut = |bytes: Bytes, width: usize| bytes.chunks(width.max(1)).map(|b| Datum::Packed(b.to_vec())).collect();
        if let Some(bytes) = vector.binary_vector {
            return cut(bytes, dim / 8);
        }
        if let Some(bytes) = vector.float16_vector {
            return cut(bytes, dim * 2);
        }
        if let Some(sparse) = vector.sparse_float_vector {
            let element = |&[a, b, c, d, e, f, g, h]: &[u8; 8]| {
                (u32::from_le_bytes([a, b, c, d]), f32::from_le_bytes([e, f, g, h]))
            };
            let row = |bytes: &Bytes| Datum::Sparse(bytes.as_chunks::<8>().0.iter().map(element).collect());
            return sparse.contents.iter().map(row).collect();
        }
        let floats: Vec<f32> =
            vector.float_vector.map(packed::<4>).unwrap_or_default().into_iter().map(f32::from_le_bytes).collect();
        return floats.chunks((vector.dim as usize).max(1)).map(|floats| Datum::Vector(floats.to_vec())).collect();
    }
    let Some(field) = scalars else { return Vec::new() };
    if let Some(array) = field.bool_data {
        return array.data.iter().map(|&byte| Datum::Bool(byte != 0)).collect();
    }
    if let Some(array) = field.int_data {
        return array.data.into_iter().map(|number| Datum::Int(number.into())).collect();
    }
    if let Some(array) = field.long_data {
        return array.data.into_iter().map(Datum::Int).collect();
    }
    if let Some(array) = field.float_data {
        return packed::<4>(array).into_iter().map(|word| Datum::Float(f32::from_le_bytes(word))).collect();
    }
    if let Some(array) = field.double_data {
        return packed::<8>(array).into_iter().map(|word| Datum::Double(f64::from_le_bytes(word))).collect();
    }
    if let Some(array) = field.string_data {
        return array.data.into_iter().map(|bytes| Datum::Text(text(bytes))).collect();
    }
    if let Some(array) = field.json_data {
        return array.data.into_iter().map(|bytes| Datum::Json(text(bytes))).collect();
    }
    let rows = field.array_data.map_or_else(Vec::new, |array| array.data);
    rows.into_iter().map(|row| Datum::Array(values(Some(row), None))).collect()
}

/// Values of one field as a column of an answer: scalars at full length, with a filler under each NULL.
fn column(field: &Field, values: Vec<Datum>) -> wire::FieldData {
    let valid_data: Bytes = if field.nullable {
        values.iter().map(|value| u8::from(*value != Datum::Null)).collect()
    } else {
        Bytes::new()
    };
    let mut data = wire::FieldData {
        data_type: field.data_type as i32,
        field_name: field.name.clone(),
        valid_data,
        ..Default::default()
    };
    let vector = wire::VectorField { dim: field.dim.unwrap_or(0) as i64, ..Default::default() };
    if field.data_type == DataType::SparseFloatVector {
        let row = |value: &Datum| match value {
            Datum::Sparse(elements) => {
                Some(elements.iter().flat_map(|(i, v)| [i.to_le_bytes(), v.to_le_bytes()].concat()).collect())
            }
            _ => None,
        };
        let contents: Vec<Bytes> = values.iter().filter_map(row).collect();
        let sparse_float_vector = Some(wire::SparseFloatArray { contents, dim: 0 });
        data.vectors = Some(wire::VectorField { sparse_float_vector, ..vector });
    } else if matches!(field.data_type, DataType::Float16Vector | DataType::BinaryVector) {
        let bytes = |value: &Datum| if let Datum::Packed(bytes) = value { bytes.clone() } else { Vec::new() };
        let packed: Bytes = values.iter().flat_map(bytes).collect();
        data.vectors = Some(match field.data_type {
            DataType::BinaryVector => wire::VectorField { binary_vector: Some(packed), ..vector },
            _ => wire::VectorField { float16_vector: Some(packed), ..vector },
        });
    } else if store::is_vector(field.data_type) {
        let packed: Vec<u8> = values
            .iter()
            .flat_map(|value| if let Datum::Vector(floats) = value { floats.as_slice() } else { &[] })
            .flat_map(|float| float.to_le_bytes())
            .collect();
        let float_vector = Some(wire::PackedArray { data: packed.into() });
        data.vectors = Some(wire::VectorField { float_vector, ..vector });
    } else {
        data.scalars = Some(scalars(field.data_type, field.element_type, values));
    }
    data
}

fn scalars(data_type: DataType, element: Option<DataType>, values: Vec<Datum>) -> wire::ScalarField {
    let ints = || values.iter().map(|value| if let Datum::Int(number) = value { *number } else { 0 });
    let texts = || {
        let text = |value: &Datum| match value {
            Datum::Text(text) | Datum::Json(text) => Bytes::from(text.clone()),
            _ => Bytes::new(),
        };
        Some(wire::BytesArray { data: values.iter().map(text).collect() })
    };
    let mut field = wire::ScalarField::default();
    match data_type {
        DataType::Bool => {
            let data = values.iter().map(|value| u8::from(*value == Datum::Bool(true))).collect();
            field.bool_data = Some(wire::PackedArray { data });
        }
        DataType::Int8 | DataType::Int16 | DataType::Int32 => {
            field.int_data = Some(wire::IntArray { data: ints().map(|number| number as i32).collect() });
        }
        DataType::Int64 => field.long_data = Some(wire::LongArray { data: ints().collect() }),
        DataType::Float => {
            let data = values
                .iter()
                .flat_map(|value| if let Datum::Float(float) = value { float.to_le_bytes() } else { [0; 4] })
                .collect();
            field.float_data = Some(wire::PackedArray { data });
        }
        DataType::Double => {
            let data = values
                .iter()
                .flat_map(|value| if let Datum::Double(float) = value { float.to_le_bytes() } else { [0; 8] })
                .collect();
            field.double_data = Some(wire::PackedArray { data });
        }
        DataType::VarChar | DataType::Timestamptz => field.string_data = texts(),
        DataType::Json => field.json_data = texts(),
        DataType::Array => {
            let element = element.unwrap_or(DataType::VarChar);
            let row = |value| {
                if let Datum::Array(elements) = value {
                    scalars(element, None, elements)
                } else {
                    wire::ScalarField::default()
                }
            };
            let data = values.into_iter().map(row).collect();
            field.array_data = Some(wire::ArrayArray { data, element_type: element as i32 });
        }
        _ => {}
    }
    field
}
