//! REST v2: HTTP 200 for nearly every refusal, 404 without JSON for unknown routes, and the conversions that the server makes
//! without a word (`internal/distributed/proxy/httpserver`): too wide integers wrap, `null` in a VARCHAR becomes "", a null
//! element 0, a JSON text loses its quotes, arrays come back in the shape of the wire protocol.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::Request;
use axum::http::HeaderMap;
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use walvec::milvus::DataType;

use super::expr::{Expr, Params};
use super::spec::{self, check};
use super::store::{self, Batch, Collection, Datum, Field, Index, Key, Refusal, refuse};
use super::{Failure, Operation, Shared, Version, counted, lock};

pub async fn answer(shared: Arc<Shared>, path: &str, request: Request) -> Response {
    let route = path.strip_prefix("/v2/vectordb/").unwrap_or_default().to_owned();
    if !has_route(shared.version, &route) || request.method() != "POST" {
        return plain(404, "404 page not found");
    }
    let (parts, body) = request.into_parts();
    let Ok(body) = axum::body::to_bytes(body, usize::MAX).await else { return plain(400, "") };
    let given = parts.headers.get("authorization").and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !shared.lets_in(given, |token| format!("Bearer {token}")) {
        return body_of(401, &json!({"code": 1800, "message": "user hasn't authenticated"}));
    }
    if body.is_empty() || serde_json::from_slice::<&RawValue>(&body).is_err() {
        return body_of(200, &json!({"code": 1801, "message": "can only accept json format request"}));
    }
    if let Err(violation) = check(&route, &body) {
        // An empty body is how clients ask whether a route is there.
        if &body[..] != b"{}" {
            lock(&shared.violations).push(violation.clone());
        }
        return body_of(
            200,
            &json!({"code": 1802, "message": format!("missing required parameters, error: {violation}")}),
        );
    }
    match handle(&shared, &route, &parts.headers, &body).await {
        Ok(data) => body_of(200, &json!({"code": 0, "data": data})),
        Err(Failure::Refused(refusal)) => refused(&refusal),
        Err(Failure::Hang) => std::future::pending().await,
        Err(Failure::Reset) => {
            let broken = futures_util::stream::once(async { Err::<bytes::Bytes, _>(std::io::Error::other("reset")) });
            Response::new(Body::from_stream(broken))
        }
        Err(Failure::Gateway { status, retry_after }) => {
            let mut response = plain(status, &format!("<html><head><title>{status}</title></head></html>"));
            if let Some(seconds) = retry_after {
                response.headers_mut().insert("retry-after", seconds.into());
            }
            response
        }
    }
}

fn has_route(version: Version, route: &str) -> bool {
    if version == Version::V2_3 {
        return false;
    }
    match route {
        "collections/truncate" => version.has_truncate(),
        "collections/fields/add" => version.has_add_field(),
        "collections/alter_properties" | "collections/flush" => version >= Version::V2_5,
        "collections/list"
        | "collections/has"
        | "collections/describe"
        | "collections/create"
        | "collections/drop"
        | "collections/load"
        | "collections/get_load_state"
        | "indexes/list"
        | "indexes/describe"
        | "indexes/create"
        | "aliases/create"
        | "aliases/alter"
        | "aliases/describe"
        | "aliases/drop"
        | "aliases/list"
        | "entities/insert"
        | "entities/upsert"
        | "entities/delete"
        | "entities/query"
        | "entities/get" => true,
        _ => false,
    }
}

fn plain(status: u16, text: &str) -> Response {
    Response::builder().status(status).body(Body::from(text.to_owned())).expect("a response")
}

fn body_of(status: u16, body: &Value) -> Response {
    let response = Response::builder().status(status).header("content-type", "application/json");
    response.body(Body::from(body.to_string())).expect("a response")
}

fn refused(refusal: &Refusal) -> Response {
    // One number for all limiters here.
    let code = if refusal.code == 8 { 1807 } else { refusal.code };
    let status = if code == 10001 { 408 } else { 200 };
    body_of(status, &json!({"code": code, "message": refusal.reason}))
}

/// The body was checked: it is what the route takes.
fn asked<'a, T: Deserialize<'a>>(body: &'a [u8]) -> T {
    serde_json::from_slice(body).expect("checked")
}

async fn handle(shared: &Shared, route: &str, headers: &HeaderMap, body: &[u8]) -> Result<Value, Failure> {
    let operation = match route {
        "collections/describe" | "collections/has" => Operation::Describe,
        "collections/create" => Operation::Create,
        "collections/drop" => Operation::Drop,
        "collections/truncate" => Operation::Truncate,
        "collections/fields/add" => Operation::AddField,
        "collections/load" | "collections/get_load_state" => Operation::Load,
        "entities/upsert" | "entities/insert" => return upsert(shared, body).await,
        "entities/delete" => return delete(shared, body).await,
        "entities/query" | "entities/get" => Operation::Query,
        route if route.starts_with("indexes/") => Operation::Index,
        route if route.starts_with("aliases/") => Operation::Alias,
        _ => Operation::Other,
    };
    shared.admit(operation).await?;
    let mut store = lock(&shared.store);
    Ok(match route {
        "collections/list" => {
            let mut names: Vec<&String> = store.collections.keys().collect();
            names.sort();
            json!(names)
        }
        "collections/has" => {
            let asked: spec::Collection = asked(body);
            json!({"has": store.resolve(&asked.collection_name).is_ok()})
        }
        "collections/describe" => {
            let asked: spec::Collection = asked(body);
            let name = store.resolve(&asked.collection_name)?;
            described(&name, store.collection(&name)?)
        }
        "collections/create" => create(&mut store, asked(body))?,
        "collections/drop" => {
            let asked: spec::Collection = asked(body);
            store.drop_collection(&asked.collection_name)?;
            json!({})
        }
        "collections/truncate" => {
            let asked: spec::Collection = asked(body);
            store.collection_mut(&asked.collection_name)?.entities.clear();
            json!({})
        }
        "collections/fields/add" => {
            let asked: spec::AddField = asked(body);
            let field = field(asked.schema)?;
            store.add_field(&asked.collection_name, field)?;
            json!({})
        }
        "collections/load" => {
            let asked: spec::Collection = asked(body);
            store.load(&asked.collection_name)?;
            json!({})
        }
        "collections/get_load_state" => {
            let asked: spec::Collection = asked(body);
            match store.collection(&asked.collection_name)?.loaded {
                true => json!({"loadState": "LoadStateLoaded", "loadProgress": 100, "message": ""}),
                false => json!({"loadState": "LoadStateNotLoad", "message": ""}),
            }
        }
        "indexes/list" => {
            let asked: spec::Collection = asked(body);
            let collection = store.collection(&asked.collection_name)?;
            json!(collection.indexes.iter().map(|index| &index.name).collect::<Vec<_>>())
        }
        "indexes/describe" => {
            let asked: spec::Index = asked(body);
            let collection = store.collection(&asked.collection_name)?;
            let Some(index) = collection.indexes.iter().find(|index| index.name == asked.index_name) else {
                return Err(
                    Refusal { code: 700, reason: format!("index not found[indexName={}]", asked.index_name) }.into()
                );
            };
            json!([{
                "indexName": index.name, "fieldName": index.field, "indexType": index.index_type, "metricType": index.metric_type,
                "totalRows": collection.entities.len(), "pendingRows": 0,
                "indexedRows": index.built.unwrap_or(collection.entities.len() as u64),
                "indexState": if index.built.is_some() { "InProgress" } else { "Finished" }, "failReason": "", "indexParams": index.params,
            }])
        }
        "indexes/create" => {
            let asked: spec::CreateIndex = asked(body);
            create_indexes(&mut store, &asked.collection_name, asked.index_params)?;
            json!({})
        }
        "aliases/create" => {
            let asked: spec::PointAlias = asked(body);
            store.create_alias(&asked.alias_name, &asked.collection_name)?;
            json!({})
        }
        "aliases/alter" => {
            let asked: spec::PointAlias = asked(body);
            store.alter_alias(&asked.alias_name, &asked.collection_name)?;
            json!({})
        }
        "aliases/describe" => {
            let asked: spec::Alias = asked(body);
            json!({"dbName": "default", "collectionName": store.alias(&asked.alias_name)?, "aliasName": asked.alias_name})
        }
        "aliases/drop" => {
            let asked: spec::Alias = asked(body);
            store.aliases.remove(&asked.alias_name);
            json!({})
        }
        "aliases/list" => json!(store.aliases.keys().collect::<Vec<_>>()),
        "entities/query" => {
            let asked: spec::Query = asked(body);
            let numbers = int64_as_numbers(headers);
            let filter = filter(&asked.filter, &asked.expr_params)?;
            let limit = match asked.limit {
                0 if asked.output_fields == ["count(*)"] => None,
                // The default that surprises everybody.
                0 => Some(100),
                limit => Some(limit as usize),
            };
            found(&store, &asked.collection_name, &filter, limit, &asked.output_fields, numbers)?
        }
        "entities/get" => {
            let asked: spec::Get = asked(body);
            let ids = match asked.id {
                Value::Array(ids) => ids,
                id => vec![id],
            };
            let collection = store.collection(&asked.collection_name)?;
            let primary = collection.fields[collection.primary()].name.clone();
            let filter = Expr::In(primary, ids.iter().filter_map(key).collect());
            found(&store, &asked.collection_name, &filter, None, &asked.output_fields, int64_as_numbers(headers))?
        }
        _ => json!({}),
    })
}

/// Absent, the server's own setting counts, which is "numbers" as shipped.
fn int64_as_numbers(headers: &HeaderMap) -> bool {
    headers.get("accept-type-allow-int64").is_none_or(|value| value.as_bytes() == b"true")
}

fn key(value: &Value) -> Option<Key> {
    match value {
        Value::String(text) => Some(Key::Text(text.clone())),
        // Numbers of a template go over f64.
        number => number.as_f64().map(|number| Key::Int(number as i64)),
    }
}

fn filter(text: &str, params: &Map<String, Value>) -> Result<Expr, Failure> {
    let mut known = Params::new();
    for (name, value) in params {
        let keys = match value {
            Value::Array(values) => values.iter().filter_map(key).collect(),
            value => key(value).into_iter().collect::<Vec<_>>(),
        };
        if keys.is_empty() {
            // The handler panics on it.
            return Err(Failure::Gateway { status: 500, retry_after: None });
        }
        known.insert(name.clone(), keys);
    }
    Expr::parse(text, &known).map_err(|reason| Refusal { code: 1100, reason }.into())
}

fn create(store: &mut store::Store, asked: spec::Create) -> Result<Value, Refusal> {
    let name = asked.collection_name.clone();
    let (schema, mut indexes) = match asked.schema {
        Some(schema) => (schema, asked.index_params),
        None => short_form(&asked)?,
    };
    let collection = Collection {
        description: asked.description,
        fields: schema.fields.into_iter().map(field).collect::<Result<_, _>>()?,
        dynamic: schema.enable_dynamic_field,
        shards: asked.params.shards_num.unwrap_or(1),
        partitions: asked.params.partitions_num.unwrap_or_default(),
        consistency: asked.params.consistency_level.as_deref().map_or(2, level),
        properties: properties(&asked.params),
        ..Collection::default()
    };
    store.create(&name, collection)?;
    if !indexes.is_empty() {
        create_indexes(store, &name, std::mem::take(&mut indexes))?;
        store.load(&name)?;
    }
    Ok(json!({}))
}

const LEVELS: [&str; 4] = ["Strong", "Session", "Bounded", "Eventually"];

fn level(name: &str) -> i32 {
    LEVELS.iter().position(|level| *level == name).map_or(2, |at| at as i32)
}

fn properties(asked: &spec::Params) -> BTreeMap<String, String> {
    let isolation = asked.partition_key_isolation.map(|isolated| ("partitionkey.isolation", isolated.to_string()));
    let mmap = asked.mmap_enabled.as_ref().map(|mmap| ("mmap.enabled", mmap.to_string()));
    isolation.into_iter().chain(mmap).map(|(key, value)| (key.to_owned(), value)).collect()
}

/// A key, a vector, and everything else dynamic.
fn short_form(asked: &spec::Create) -> Result<(spec::Schema, Vec<spec::IndexParam>), Refusal> {
    let Some(dim) = asked.dimension else { return refuse(1802, "dimension is required for quickly create collection") };
    let key = asked.primary_field_name.clone().unwrap_or_else(|| "id".into());
    let vector = asked.vector_field_name.clone().unwrap_or_else(|| "vector".into());
    let schema = json!({"enableDynamicField": true, "fields": [
        {"fieldName": key, "dataType": asked.id_type.as_deref().unwrap_or("Int64"), "isPrimary": true, "elementTypeParams": {"max_length": 65535}},
        {"fieldName": vector, "dataType": "FloatVector", "elementTypeParams": {"dim": dim}},
    ]});
    let index = json!([{"fieldName": vector, "indexName": vector, "indexType": "AUTOINDEX", "metricType": asked.metric_type.as_deref().unwrap_or("COSINE")}]);
    let read = |_| Refusal { code: 1803, reason: "cannot marshal the schema".into() };
    Ok((serde_json::from_value(schema).map_err(read)?, serde_json::from_value(index).map_err(read)?))
}

fn create_indexes(store: &mut store::Store, collection: &str, indexes: Vec<spec::IndexParam>) -> Result<(), Refusal> {
    for index in indexes {
        let params = index.params.into_iter().map(|(key, value)| {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            (key, text)
        });
        let index_type = if index.index_type.is_empty() { "AUTOINDEX".into() } else { index.index_type };
        let name = if index.index_name.is_empty() { index.field_name.clone() } else { index.index_name };
        let (metric_type, params) = (index.metric_type, params.collect());
        let built = None;
        store.create_index(
            collection,
            Index { field: index.field_name, name, index_type, metric_type, params, built },
        )?;
    }
    Ok(())
}

fn field(asked: spec::Field) -> Result<Field, Refusal> {
    let name = asked.field_name;
    let known = |spelling: &str| match TYPES.iter().find(|(known, _)| *known == spelling) {
        Some((_, found)) => Ok(*found),
        None => refuse(1100, format!("data type {spelling} of field {name} is invalid(case sensitive)")),
    };
    let number = |value: Option<Value>| match value? {
        Value::String(text) => text.parse().ok(),
        number => number.as_u64().map(|number| number as usize),
    };
    Ok(Field {
        data_type: known(&asked.data_type)?,
        element_type: asked.element_data_type.as_deref().map(known).transpose()?,
        is_primary: asked.is_primary,
        auto_id: false,
        nullable: asked.nullable,
        max_length: number(asked.element_type_params.max_length),
        max_capacity: number(asked.element_type_params.max_capacity),
        dim: number(asked.element_type_params.dim),
        default: asked.default_value.map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned)),
        partition_key: asked.is_partition_key,
        mmap: asked.element_type_params.mmap_enabled.map(|value| value.to_string()),
        description: String::new(),
        name,
    })
}

const TYPES: [(&str, DataType); 16] = [
    ("Timestamptz", DataType::Timestamptz),
    ("Bool", DataType::Bool),
    ("Int8", DataType::Int8),
    ("Int16", DataType::Int16),
    ("Int32", DataType::Int32),
    ("Int64", DataType::Int64),
    ("Float", DataType::Float),
    ("Double", DataType::Double),
    ("VarChar", DataType::VarChar),
    ("Array", DataType::Array),
    ("JSON", DataType::Json),
    ("BinaryVector", DataType::BinaryVector),
    ("FloatVector", DataType::FloatVector),
    ("Float16Vector", DataType::Float16Vector),
    ("BFloat16Vector", DataType::BFloat16Vector),
    ("SparseFloatVector", DataType::SparseFloatVector),
];

fn spelled(data_type: DataType) -> &'static str {
    TYPES.iter().find(|(_, known)| *known == data_type).map_or("Unknown", |(name, _)| name)
}

fn described(name: &str, collection: &Collection) -> Value {
    let fields: Vec<Value> = collection
        .fields
        .iter()
        .enumerate()
        .map(|(i, field)| {
            let params = [("dim", field.dim), ("max_length", field.max_length), ("max_capacity", field.max_capacity)];
            let params = params
                .into_iter()
                .filter_map(|(key, value)| Some(json!({"key": key, "value": value?.to_string()})));
            let mmap = field.mmap.as_ref().map(|mmap| json!({"key": "mmap.enabled", "value": mmap}));
            let params: Vec<Value> = params.chain(mmap).collect();
            let mut described = json!({
                "id": 100 + i, "name": field.name, "type": spelled(field.data_type), "primaryKey": field.is_primary,
                "partitionKey": field.partition_key, "clusteringKey": false, "autoId": field.auto_id, "nullable": field.nullable,
                "description": field.description, "params": params,
            });
            if let Some(element) = field.element_type {
                described["elementType"] = json!(spelled(element));
            }
            described
        })
        .collect();
    json!({
        "collectionName": name, "collectionID": 1, "description": collection.description, "autoId": false, "fields": fields,
        "functions": [], "aliases": [], "indexes": [], "shardsNum": collection.shards, "partitionsNum": collection.partitions,
        "load": if collection.loaded { "LoadStateLoaded" } else { "LoadStateNotLoad" },
        "consistencyLevel": LEVELS[collection.consistency as usize], "enableDynamicField": collection.dynamic,
        "properties": collection.properties.iter().map(|(key, value)| json!({"key": key, "value": value})).collect::<Vec<_>>(),
    })
}

async fn upsert(shared: &Shared, body: &[u8]) -> Result<Value, Failure> {
    let asked: spec::Data = asked(body);
    let (mutation, bytes) = {
        let store = lock(&shared.store);
        let batch = store.collection(&asked.collection_name).and_then(|collection| batch(collection, &asked.data));
        let bytes = batch.as_ref().map_or(0, |batch| batch.rows.iter().map(|row| counted(row)).sum());
        (batch.and_then(|batch| store.upsert(&asked.collection_name, batch)), bytes)
    };
    let count = shared.write(Operation::Upsert, mutation, bytes).await?;
    Ok(json!({"upsertCount": count, "insertCount": count, "upsertIds": []}))
}

async fn delete(shared: &Shared, body: &[u8]) -> Result<Value, Failure> {
    let asked: spec::Delete = asked(body);
    let filter = filter(&asked.filter, &asked.expr_params)?;
    let mutation = lock(&shared.store).delete(&asked.collection_name, &filter);
    let bytes = match &mutation {
        Ok(store::Mutation::Delete { keys, .. }) => {
            keys.iter().map(|key| if let Key::Text(text) = key { text.len() } else { 8 }).sum()
        }
        _ => 0,
    };
    let count = shared.write(Operation::Delete, mutation, bytes).await?;
    Ok(json!({"deleteCount": count}))
}

/// Rows of JSON as values, with what the server changes on the way.
fn batch(collection: &Collection, data: &[BTreeMap<String, &RawValue>]) -> Result<Batch, Refusal> {
    let mut fields: Vec<String> = collection.fields.iter().map(|field| field.name.clone()).collect();
    let mut rows = Vec::with_capacity(data.len());
    for row in data {
        if let Some(unknown) = row.keys().find(|name| !fields.contains(name)).filter(|_| !collection.dynamic) {
            return refuse(
                1804,
                format!(
                    "fail to deal the insert data, error: has pass more field without dynamic schema, please check it: {unknown}"
                ),
            );
        }
        let value = |field: &Field| match row.get(&field.name).map_or("null", |value| value.get()) {
            "null" if field.nullable => Ok(Datum::Null),
            "null" if field.data_type == DataType::VarChar => Ok(Datum::Text(String::new())),
            text => match datum(field.data_type, field, text) {
                Some(value) => Ok(value),
                None => refuse(
                    1804,
                    format!("fail to deal the insert data, error: cannot parse the value of field {}", field.name),
                ),
            },
        };
        let mut values = collection.fields.iter().map(value).collect::<Result<Vec<_>, _>>()?;
        if collection.dynamic {
            let members = row.iter().filter(|(name, _)| !collection.fields.iter().any(|field| field.name == **name));
            let members: Vec<String> =
                members.map(|(name, value)| format!("{}:{}", json!(name), value.get())).collect();
            values.push(Datum::Json(format!("{{{}}}", members.join(","))));
        }
        rows.push(values);
    }
    if collection.dynamic {
        fields.push(store::META.into());
    }
    Ok(Batch { fields, rows })
}

fn datum(data_type: DataType, field: &Field, text: &str) -> Option<Datum> {
    let string = || serde_json::from_str::<String>(text).ok();
    let bare = || if text.starts_with('"') { string() } else { Some(text.to_owned()) };
    Some(match data_type {
        DataType::Bool => Datum::Bool(bare()?.parse().ok()?),
        // They wrap without a word.
        DataType::Int8 => Datum::Int((bare()?.parse::<i64>().ok()? as i8).into()),
        DataType::Int16 => Datum::Int((bare()?.parse::<i64>().ok()? as i16).into()),
        DataType::Int32 => Datum::Int((bare()?.parse::<i64>().ok()? as i32).into()),
        DataType::Int64 => Datum::Int(bare()?.parse().ok()?),
        DataType::Float => Datum::Float(bare()?.parse::<f32>().ok().filter(|float| float.is_finite())?),
        DataType::Double => Datum::Double(bare()?.parse::<f64>().ok().filter(|float| float.is_finite())?),
        DataType::VarChar => Datum::Text(bare()?),
        DataType::Timestamptz => Datum::Text(string()?),
        DataType::Float16Vector | DataType::BinaryVector => Datum::Packed(BASE64.decode(string()?).ok()?),
        DataType::SparseFloatVector => {
            let object: BTreeMap<String, f32> = serde_json::from_str(text).ok()?;
            let element = |(index, value): (String, f32)| Some((index.parse::<u32>().ok()?, value));
            let mut elements: Vec<(u32, f32)> = object.into_iter().map(element).collect::<Option<_>>()?;
            elements.sort_by_key(|(index, _)| *index);
            Datum::Sparse(elements)
        }
        // A JSON text loses its quotes; anything else stays as it was written.
        DataType::Json => Datum::Json(bare()?),
        DataType::Array => {
            let elements: Vec<&RawValue> = serde_json::from_str(text).ok()?;
            let element = field.element_type?;
            let zero = match element {
                DataType::VarChar => "\"\"",
                DataType::Bool => "false",
                _ => "0",
            };
            let read =
                |value: &&RawValue| datum(element, field, if value.get() == "null" { zero } else { value.get() });
            Datum::Array(elements.iter().map(read).collect::<Option<_>>()?)
        }
        DataType::FloatVector => {
            let floats: Vec<&RawValue> = serde_json::from_str(text).ok()?;
            let floats: Vec<f32> = floats.iter().map(|float| float.get().parse().ok()).collect::<Option<_>>()?;
            if Some(floats.len()) != field.dim {
                return None;
            }
            Datum::Vector(floats)
        }
        _ => return None,
    })
}

fn found(
    store: &store::Store,
    collection: &str,
    filter: &Expr,
    limit: Option<usize>,
    fields: &[String],
    numbers: bool,
) -> Result<Value, Refusal> {
    let rows = store.query(collection, filter, limit)?;
    if fields == ["count(*)"] {
        let count = if numbers { json!(rows.len()) } else { json!(rows.len().to_string()) };
        return Ok(json!([{"count(*)": count}]));
    }
    let collection = store.collection(collection)?;
    let mut wanted = Vec::new();
    for (i, field) in collection.fields.iter().enumerate() {
        if fields.is_empty() || fields.iter().any(|name| *name == field.name || name == "*") || field.is_primary {
            wanted.push((i, field));
        }
    }
    if let Some(unknown) = fields.iter().find(|name| {
        *name != "*"
            && !(collection.dynamic && *name == store::META)
            && !collection.fields.iter().any(|field| field.name == **name)
    }) {
        return refuse(1100, format!("field {unknown} not exist"));
    }
    let row = |values: &Vec<Datum>| {
        let members = wanted.iter().map(|&(i, field)| (field.name.clone(), shown(field, &values[i], numbers)));
        let mut members: Map<String, Value> = members.collect();
        if fields.iter().any(|name| name == store::META || name == "*")
            && let Some(Datum::Json(object)) = values.get(collection.fields.len())
            && let Ok(Value::Object(object)) = serde_json::from_str(object)
        {
            members.extend(object);
        }
        Value::Object(members)
    };
    Ok(Value::Array(rows.iter().map(row).collect()))
}

fn shown(field: &Field, value: &Datum, numbers: bool) -> Value {
    // serde_json prints an f32 over f64: take its own shortest form.
    let float = |float: f32| float.to_string().parse::<serde_json::Number>().map_or(Value::Null, Value::Number);
    match value {
        Datum::Null => Value::Null,
        Datum::Bool(value) => json!(value),
        Datum::Int(number) if field.data_type == DataType::Int64 && !numbers => json!(number.to_string()),
        Datum::Int(number) => json!(number),
        Datum::Float(value) => float(*value),
        Datum::Double(value) => json!(value),
        Datum::Text(text) | Datum::Json(text) => json!(text),
        Datum::Vector(floats) => Value::Array(floats.iter().copied().map(float).collect()),
        Datum::Packed(bytes) => json!(BASE64.encode(bytes)),
        Datum::Sparse(elements) => {
            Value::Object(elements.iter().map(|(index, value)| (index.to_string(), float(*value))).collect())
        }
        Datum::Array(elements) => {
            let member = match field.element_type {
                Some(DataType::Int64) => "LongData",
                Some(DataType::VarChar) => "StringData",
                Some(DataType::Bool) => "BoolData",
                Some(DataType::Float) => "FloatData",
                Some(DataType::Double) => "DoubleData",
                _ => "IntData",
            };
            let scalar = Field { data_type: field.element_type.unwrap_or(field.data_type), ..field.clone() };
            let data: Vec<Value> = elements.iter().map(|element| shown(&scalar, element, true)).collect();
            let inner = if data.is_empty() { json!({}) } else { json!({"data": data}) };
            json!({"Data": {member: inner}})
        }
    }
}
