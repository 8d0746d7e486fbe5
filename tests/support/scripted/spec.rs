//! The request bodies that REST v2 knows: each member with its type, and nothing else.
//!
//! Written from the published reference (milvus.io, "Milvus RESTful API" v2.6.x: Collection, Index, Alias, Vector) and, where a page is
//! silent, from the server's own request types (`internal/distributed/proxy/httpserver/request_v2.go`). The server itself
//! ignores members that it does not know, so a misspelt one would be lost without a word: here it is an error.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

/// Routes without a body of their own: `dbName` alone.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Database {
    #[serde(default)]
    pub db_name: String,
}

/// `collections/has`, `describe`, `drop`, `load`, `release`, `get_load_state`, `get_stats`, `flush`, `truncate`, `indexes/list`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Collection {
    #[serde(default)]
    pub db_name: String,
    pub collection_name: String,
    #[serde(default)]
    pub partition_names: Vec<String>,
}

/// `collections/create`. `dimension`, `idType`, `metricType`, `primaryFieldName`, `vectorFieldName` are the short form.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Create {
    #[serde(default)]
    pub db_name: String,
    pub collection_name: String,
    #[serde(default)]
    pub description: String,
    pub dimension: Option<u32>,
    pub id_type: Option<String>,
    #[serde(rename = "autoID", default)]
    pub auto_id: bool,
    pub metric_type: Option<String>,
    pub primary_field_name: Option<String>,
    pub vector_field_name: Option<String>,
    pub schema: Option<Schema>,
    #[serde(default)]
    pub index_params: Vec<IndexParam>,
    #[serde(default)]
    pub params: Params,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Schema {
    #[serde(rename = "autoID", alias = "autoId", default)]
    pub auto_id: bool,
    #[serde(default, alias = "enabledDynamicField")]
    pub enable_dynamic_field: bool,
    pub fields: Vec<Field>,
    #[serde(default)]
    pub functions: Vec<Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Field {
    pub field_name: String,
    pub data_type: String,
    pub element_data_type: Option<String>,
    #[serde(default)]
    pub is_primary: bool,
    #[serde(default)]
    pub is_partition_key: bool,
    #[serde(default)]
    pub is_clustering_key: bool,
    #[serde(default)]
    pub element_type_params: FieldParams,
    #[serde(default)]
    pub nullable: bool,
    pub default_value: Option<Value>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FieldParams {
    pub dim: Option<Value>,
    pub max_length: Option<Value>,
    pub max_capacity: Option<Value>,
    pub enable_analyzer: Option<Value>,
    pub enable_match: Option<Value>,
    pub analyzer_params: Option<Value>,
    #[serde(rename = "mmap.enabled")]
    pub mmap_enabled: Option<Value>,
}

/// Member `params` of a create.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Params {
    pub shards_num: Option<u32>,
    pub partitions_num: Option<u32>,
    pub consistency_level: Option<String>,
    pub ttl_seconds: Option<u64>,
    pub partition_key_isolation: Option<bool>,
    #[serde(rename = "mmap.enabled")]
    pub mmap_enabled: Option<Value>,
}

/// `collections/fields/add`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct AddField {
    #[serde(default)]
    pub db_name: String,
    pub collection_name: String,
    pub schema: Field,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct IndexParam {
    pub field_name: String,
    #[serde(default)]
    pub index_name: String,
    #[serde(default)]
    pub metric_type: String,
    #[serde(default)]
    pub index_type: String,
    #[serde(default)]
    pub params: BTreeMap<String, Value>,
}

/// `indexes/create`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct CreateIndex {
    #[serde(default)]
    pub db_name: String,
    pub collection_name: String,
    pub index_params: Vec<IndexParam>,
}

/// `indexes/describe`, `indexes/drop`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Index {
    #[serde(default)]
    pub db_name: String,
    pub collection_name: String,
    pub index_name: String,
}

/// `aliases/create`, `aliases/alter`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct PointAlias {
    #[serde(default)]
    pub db_name: String,
    pub alias_name: String,
    pub collection_name: String,
}

/// `aliases/describe`, `aliases/drop`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Alias {
    #[serde(default)]
    pub db_name: String,
    pub alias_name: String,
}

/// `aliases/list`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct OptionalCollection {
    #[serde(default)]
    pub db_name: String,
    #[serde(default)]
    pub collection_name: String,
}

/// `entities/insert`, `entities/upsert`. The values keep their text: their digits matter.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Data<'a> {
    #[serde(default)]
    pub db_name: String,
    pub collection_name: String,
    #[serde(default)]
    pub partition_name: String,
    #[serde(default)]
    pub partial_update: bool,
    #[serde(borrow)]
    pub data: Vec<BTreeMap<String, &'a RawValue>>,
}

/// `entities/delete`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Delete {
    #[serde(default)]
    pub db_name: String,
    pub collection_name: String,
    #[serde(default)]
    pub partition_name: String,
    pub filter: String,
    #[serde(default)]
    pub expr_params: Map<String, Value>,
}

/// `entities/query`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Query {
    #[serde(default)]
    pub db_name: String,
    pub collection_name: String,
    #[serde(default)]
    pub partition_names: Vec<String>,
    #[serde(default)]
    pub output_fields: Vec<String>,
    #[serde(default)]
    pub filter: String,
    #[serde(default)]
    pub expr_params: Map<String, Value>,
    #[serde(default)]
    pub limit: u32,
    #[serde(default)]
    pub offset: u32,
    pub consistency_level: Option<Consistency>,
}

/// `entities/get`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Get {
    #[serde(default)]
    pub db_name: String,
    pub collection_name: String,
    pub id: Value,
    #[serde(default)]
    pub output_fields: Vec<String>,
    #[serde(default)]
    pub partition_name: String,
    #[serde(default)]
    pub partition_names: Vec<String>,
    pub consistency_level: Option<Consistency>,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
pub enum Consistency {
    Strong,
    Session,
    Bounded,
    Eventually,
    Customized,
}

/// Is this a body that the route knows? The sentence names what is wrong.
pub fn check(route: &str, body: &[u8]) -> Result<(), String> {
    fn is<T: DeserializeOwned>(body: &[u8]) -> Result<(), String> {
        serde_json::from_slice::<T>(body).map(drop).map_err(|error| error.to_string())
    }
    let result = match route {
        "collections/list" | "databases/list" => is::<Database>(body),
        "collections/has"
        | "collections/describe"
        | "collections/drop"
        | "collections/load"
        | "collections/release"
        | "collections/get_load_state"
        | "collections/get_stats"
        | "collections/flush"
        | "collections/truncate"
        | "indexes/list" => is::<Collection>(body),
        "collections/create" => is::<Create>(body),
        "collections/fields/add" => is::<AddField>(body),
        "indexes/create" => is::<CreateIndex>(body),
        "indexes/describe" | "indexes/drop" => is::<Index>(body),
        "aliases/create" | "aliases/alter" => is::<PointAlias>(body),
        "aliases/describe" | "aliases/drop" => is::<Alias>(body),
        "aliases/list" => is::<OptionalCollection>(body),
        "entities/insert" | "entities/upsert" => {
            serde_json::from_slice::<Data>(body).map(drop).map_err(|error| error.to_string())
        }
        "entities/delete" => is::<Delete>(body),
        "entities/query" => is::<Query>(body),
        "entities/get" => is::<Get>(body),
        other => Err(format!("no route {other}")),
    };
    result.map_err(|error| format!("{route}: {error}"))
}

#[test]
fn misspelt_missing_and_wrong_members_are_found() {
    assert_eq!(
        check(
            "entities/query",
            br#"{"collectionName":"c","filter":"","outputFields":["id"],"limit":1,"consistencyLevel":"Strong"}"#
        ),
        Ok(())
    );
    for (route, body, wrong) in [
        ("entities/query", r#"{"collectionName":"c","output_fields":[]}"#, "unknown field `output_fields`"),
        ("entities/query", r#"{"collectionName":"c","consistencyLevel":"strong"}"#, "unknown variant `strong`"),
        ("entities/delete", r#"{"collectionName":"c"}"#, "missing field `filter`"),
        ("entities/delete", r#"{"collectionName":"c","id":[1]}"#, "unknown field `id`"),
        ("entities/upsert", r#"{"collectionName":"c","data":{"id":1}}"#, "expected a sequence"),
        (
            "collections/create",
            r#"{"collectionName":"c","schema":{"autoID":false,"fields":[{"fieldName":"a"}]}}"#,
            "missing field `dataType`",
        ),
        ("collections/create", r#"{"collectionName":"c","params":{"shardNum":1}}"#, "unknown field `shardNum`"),
        ("collections/fly", "{}", "no route"),
    ] {
        let error = check(route, body.as_bytes()).expect_err(body);
        assert!(error.contains(wrong) && error.starts_with(route) || route == "collections/fly", "{error}");
    }
}
