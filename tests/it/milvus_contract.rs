//! The contract of a target: what `milvus::Milvus` promises, held by each transport against each server.
//!
//! `contract` is the whole of it for a server that is well; what differs between servers stands in `ServerTraits`, so that
//! a difference is a decision and not a surprise. Faults, TLS and tokens have tests of their own.

mod faults;
mod pages;
mod tls;
mod vectors;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use walvec::config::Transport;
use walvec::milvus::{
    Class, CollectionSchema, ColumnData, Condition, DataType, FieldColumn, FieldSchema, GrpcClient, IndexSpec, Key,
    Keys, Milvus, MilvusError, MilvusOptions, Query, RestClient, Selection, Token,
};
use walvec::servers::{Milvus23, Milvus23Options, MilvusLite, MilvusLiteOptions, TlsPem};

use crate::support::proxy::{Direction, Proxy};
use crate::support::scripted::faults::{Fault, When};
use crate::support::scripted::{self, Operation, Scripted, Version};
use crate::support::wait::until;
use crate::support::{milvus, unique};

/// Where servers differ in what they hold or refuse.
#[derive(Clone, Copy)]
struct ServerTraits {
    version: &'static str,
    /// Fields may be nullable.
    nullable: bool,
    /// JSON documents may be arrays at the top.
    json_arrays: bool,
    /// 2^63 - 1 as a key is stored and never found again.
    loses_largest_key: bool,
    /// Some request of 70 MB is refused (or it would be slow to try).
    has_request_limit: bool,
    /// `num_shards` is kept.
    shards: bool,
    /// A new collection has to be loaded before it is read; Milvus Lite asks for it only after a restart.
    new_is_unloaded: bool,
    /// Descriptions of collections are kept, and those of fields.
    descriptions: (bool, bool),
    /// The `max_length` of elements of an ARRAY is kept.
    element_lengths: bool,
    aliases: bool,
    /// Fields can be added, collections truncated.
    add_field: bool,
    truncate: bool,
}

const LITE: ServerTraits = ServerTraits {
    version: "milvus_lite-3.2.2",
    nullable: true,
    json_arrays: true,
    loses_largest_key: false,
    has_request_limit: false,
    shards: false,
    new_is_unloaded: false,
    descriptions: (false, false),
    element_lengths: false,
    aliases: true,
    add_field: false,
    truncate: true,
};

const MILVUS_2_3: ServerTraits = ServerTraits {
    version: "v2.3.5",
    nullable: false,
    json_arrays: false,
    loses_largest_key: true,
    has_request_limit: true,
    shards: true,
    new_is_unloaded: true,
    descriptions: (true, true),
    element_lengths: true,
    aliases: true,
    add_field: false,
    truncate: false,
};

/// The scripted server, and what REST has no place for.
fn scripted(version: Version, rest: bool) -> ServerTraits {
    ServerTraits {
        version: match (rest, version) {
            (false, version) => version.name(),
            (true, Version::V2_3 | Version::V2_4) => "v2.4",
            (true, Version::V2_5) => "v2.5.0",
            (true, Version::V2_6) => "v2.6.11",
            (true, Version::Zilliz) => "v2.6.0",
        },
        nullable: version >= Version::V2_5,
        json_arrays: version >= Version::V2_5,
        loses_largest_key: false,
        has_request_limit: !rest,
        shards: true,
        new_is_unloaded: true,
        descriptions: (true, !rest),
        element_lengths: true,
        aliases: true,
        add_field: version.has_add_field(),
        truncate: version.has_truncate(),
    }
}

#[tokio::test]
async fn grpc_keeps_the_contract_with_milvus_lite() {
    let client = connect(&milvus::lite().await.url());
    contract(&client, LITE).await;
}

#[tokio::test]
async fn grpc_keeps_the_contract_with_milvus_2_3() {
    let client = connect(&milvus::milvus23().await.url());
    contract(&client, MILVUS_2_3).await;
}

#[tokio::test]
async fn grpc_keeps_the_contract_with_every_version_of_the_scripted_milvus() {
    for version in [Version::V2_3, Version::V2_5, Version::V2_6, Version::Zilliz] {
        let server = Scripted::start(scripted::Options { version, ..Default::default() }).await;
        contract(&connect(&server.url()), scripted(version, false)).await;
    }
}

#[tokio::test]
async fn rest_keeps_the_contract_with_every_version_of_the_scripted_milvus() {
    for version in [Version::V2_4, Version::V2_5, Version::V2_6, Version::Zilliz] {
        let server = Scripted::start(scripted::Options { version, ..Default::default() }).await;
        contract(&rest(&server.url()), scripted(version, true)).await;
        assert_eq!(server.violations(), Vec::<String>::new(), "bodies that the specification does not know");
    }
}

/// Milvus 2.3 has REST of the first version only, and 404 for all else.
#[tokio::test]
async fn a_server_without_rest_v2_is_told_apart() {
    let scripted = Scripted::start(scripted::Options { version: Version::V2_3, ..Default::default() }).await;
    for url in [scripted.url(), milvus::milvus23().await.url()] {
        let error = rest(&url).server_info().await.expect_err("no REST v2");
        assert_eq!((error.condition(), error.class()), (Condition::Unsupported, Class::Fatal), "{error}");
    }
}

async fn contract(client: &dyn Milvus, server: ServerTraits) {
    let info = client.server_info().await.expect("a server");
    assert!(info.version.starts_with(server.version), "{info:?}");
    assert_eq!(info.has_nullable(), server.nullable);

    an_unknown_collection_is_an_answer_or_an_error(client).await;
    a_collection_is_what_was_asked_for(client, server).await;
    entities_of_every_type_are_kept_replaced_and_deleted(client, server).await;
    vectors::every_kind_is_kept(client).await;
    pages::integer_keys_page_in_order(client, server).await;
    pages::text_keys_page_in_order(client).await;
    collections_change_while_they_are_used(client, server).await;
    bad_batches_are_told_apart(client, server).await;
}

async fn an_unknown_collection_is_an_answer_or_an_error(client: &dyn Milvus) {
    let name = unique("absent");
    assert_eq!(client.describe_collection(&name).await.expect("an answer"), None);
    let keys = Keys::Int64(vec![1]);
    let fields = [Arc::from("id")];
    let query = Query { collection: &name, selection: Selection::Keys(&keys), output_fields: &fields };
    for error in [
        client.upsert(&name, vec![column("id", ColumnData::Int64(vec![1]))], 1).await.expect_err("upsert"),
        client.delete(&name, "id", &keys).await.expect_err("delete"),
        client.query(query).await.expect_err("query"),
        client.count(&name).await.expect_err("count"),
        client.load_collection(&name, Duration::from_secs(1)).await.expect_err("load"),
    ] {
        assert_eq!((error.condition(), error.class()), (Condition::NoCollection, Class::Fatal), "{error}");
        assert!(!error.outcome_unknown() && error.hint().is_some());
    }
    client.drop_collection(&name).await.expect("dropping it again is no error");
}

async fn a_collection_is_what_was_asked_for(client: &dyn Milvus, server: ServerTraits) {
    let mut schema = all_types(&unique("described"), server);
    schema.num_shards = server.shards.then_some(2);
    schema.enable_dynamic_field = true;
    client.create_collection(&schema).await.expect("created");
    let mut found = client.describe_collection(&schema.name).await.expect("described").expect("it is there");
    if !server.shards {
        found.num_shards = None;
    }
    // What was not asked for is the server's own.
    let mut expected = CollectionSchema {
        consistency_level: found.consistency_level,
        num_partitions: found.num_partitions,
        properties: found.properties.clone(),
        ..schema.clone()
    };
    if !server.descriptions.0 {
        expected.description.clear();
    }
    for field in &mut expected.fields {
        if !server.descriptions.1 {
            field.description.clear();
        }
        field.max_length = field.max_length.filter(|_| server.element_lengths || field.data_type != DataType::Array);
    }
    assert_eq!(found, expected);

    let again = client.create_collection(&schema).await.expect_err("it is there");
    assert_eq!(again.condition(), Condition::AlreadyExists);

    assert_eq!(client.describe_indexes(&schema.name).await.expect("none yet"), []);
    let index = IndexSpec {
        field: "v".into(),
        index_type: "HNSW".into(),
        metric_type: "IP".into(),
        params: BTreeMap::from([("M".into(), "8".into()), ("efConstruction".into(), "32".into())]),
    };
    client.create_index(&schema.name, &index).await.expect("indexed");
    client.create_index(&schema.name, &index).await.expect("indexed already");
    let indexes = client.describe_indexes(&schema.name).await.expect("described");
    assert_eq!(indexes.len(), 1);
    assert_eq!(indexes[0], index);

    if server.new_is_unloaded {
        assert_unloaded(client.count(&schema.name).await.expect_err("not loaded"));
    }
    client.load_collection(&schema.name, Duration::from_secs(30)).await.expect("loaded");
    client.load_collection(&schema.name, Duration::from_secs(30)).await.expect("loaded already");
    assert_eq!(client.count(&schema.name).await.expect("counted"), 0);

    client.drop_collection(&schema.name).await.expect("dropped");
    assert_eq!(client.describe_collection(&schema.name).await.expect("an answer"), None);
}

fn assert_unloaded(error: MilvusError) {
    assert_eq!((error.condition(), error.class()), (Condition::NotLoaded, Class::Retry), "{error}");
    assert!(error.needs_load() && !error.outcome_unknown());
}

async fn entities_of_every_type_are_kept_replaced_and_deleted(client: &dyn Milvus, server: ServerTraits) {
    let schema = all_types(&unique("types"), server);
    let name = &schema.name;
    ready(client, &schema).await;
    let fields: Vec<Arc<str>> = schema.fields.iter().map(|field| Arc::from(field.name.as_str())).collect();

    // Four entities: extremes, ordinary ones, and NULLs where there may be some.
    let nulls = |valid: [u8; 4]| server.nullable.then(|| valid.to_vec());
    let ordinary = |full: ColumnData, without_two: ColumnData| if server.nullable { without_two } else { full };
    let first_json = if server.json_arrays { "[1,null,\"é\"]" } else { "{\"a\":[1,null,\"é\"]}" };
    let longest: &'static str = Box::leak("é".repeat(32).into_boxed_str());
    let strings = |rows: &[&[&'static str]]| ColumnData::Array {
        element: DataType::VarChar,
        rows: rows.iter().map(|row| text(row)).collect(),
    };
    let columns = vec![
        column("id", ColumnData::Int64(vec![-5, 0, 7, 1 << 60])),
        column("b", ColumnData::Bool(vec![1, 0, 0, 1])),
        column("i8", ColumnData::Int8(vec![-128, 127, 0, 1])),
        column("i16", ColumnData::Int16(vec![-32768, 32767, 0, 1])),
        column("i32", ColumnData::Int32(vec![i32::MIN, i32::MAX, 0, 1])),
        FieldColumn {
            valid: nulls([1, 0, 0, 1]),
            ..column(
                "i64",
                ordinary(
                    ColumnData::Int64(vec![i64::MIN, 0, 0, i64::MAX]),
                    ColumnData::Int64(vec![i64::MIN, i64::MAX]),
                ),
            )
        },
        column("f", ColumnData::Float(floats(&[f32::MIN_POSITIVE, -0.0, f32::MAX, 1.5]))),
        FieldColumn {
            valid: nulls([0, 1, 1, 0]),
            ..column(
                "d",
                ordinary(
                    ColumnData::Double(doubles(&[0.0, 0.1, -1e300, 0.0])),
                    ColumnData::Double(doubles(&[0.1, -1e300])),
                ),
            )
        },
        FieldColumn {
            valid: nulls([1, 0, 1, 0]),
            ..column("t", ordinary(text(&["", "x", longest, "y"]), text(&["", longest])))
        },
        column(
            "j",
            ColumnData::Json(
                [first_json, "{}", "{\"n\":9007199254740993}", "{\"k\":\"\\u0000\"}"]
                    .map(|json| Bytes::from_static(json.as_bytes()))
                    .into(),
            ),
        ),
        FieldColumn {
            valid: nulls([0, 0, 0, 0]),
            ..column("nothing", ordinary(text(&["a", "b", "c", "d"]), text(&[])))
        },
        column(
            "ints",
            ColumnData::Array {
                element: DataType::Int64,
                rows: vec![
                    ColumnData::Int64(vec![i64::MIN, i64::MAX]),
                    ColumnData::Int64(vec![]),
                    ColumnData::Int64(vec![0]),
                    ColumnData::Int64(vec![1, 2, 3]),
                ],
            },
        ),
        column("texts", strings(&[&["a", "", "é\"\\"], &[], &["x"], &["\n"]])),
        column(
            "v",
            ColumnData::FloatVector { dim: 2, packed: floats(&[1.0, 2.0, -0.0, 1e-45, f32::MAX, 3.0, 4.0, 5.0]) },
        ),
    ];
    client.upsert(name, columns.clone(), 4).await.expect("written");
    assert_eq!(client.count(name).await.expect("counted"), 4);
    let keys = Keys::Int64(vec![-5, 0, 7, 1 << 60, 99]);
    let ask = async |keys: &Keys| {
        let query = Query { collection: name, selection: Selection::Keys(keys), output_fields: &fields };
        client.query(query).await.expect("read")
    };
    let all =
        Query { collection: name, selection: Selection::After { after: None, limit: 10 }, output_fields: &fields };
    assert_eq!(comparable(client.query(all).await.expect("a page")), columns);
    assert_eq!(row_count(&ask(&keys).await), 4, "the absent key is not in the answer");
    assert_eq!(row_count(&ask(&Keys::Int64(vec![99])).await), 0);

    // One entity anew: every field is replaced, NULLs too, and the others stay.
    let replacement: Vec<FieldColumn> = columns.iter().map(|column| entity(column, 1, -5)).collect();
    client.upsert(name, replacement.clone(), 1).await.expect("replaced");
    assert_eq!(comparable(ask(&Keys::Int64(vec![-5])).await), replacement);
    assert_eq!(client.count(name).await.expect("counted"), 4);

    // Delete by key; one of them is absent.
    client.delete(name, "id", &Keys::Int64(vec![-5, 99])).await.expect("deleted");
    client.delete(name, "id", &Keys::Int64(vec![-5])).await.expect("deleted already");
    assert_eq!(client.count(name).await.expect("counted"), 3);
    assert_eq!(row_count(&ask(&Keys::Int64(vec![-5])).await), 0);
    client.upsert(name, replacement.clone(), 1).await.expect("written after its delete");
    assert_eq!(comparable(ask(&Keys::Int64(vec![-5])).await), replacement);
    client.drop_collection(name).await.expect("dropped");
}

/// Aliases, an added field, a truncate: where the server has them they do what they say, and elsewhere they say so.
async fn collections_change_while_they_are_used(client: &dyn Milvus, server: ServerTraits) {
    let one = keyed(&unique("one"), FieldSchema { is_primary: true, ..field("id", DataType::Int64) }, server);
    let two = CollectionSchema { name: unique("two"), ..one.clone() };
    let alias = unique("alias");
    let fields = [Arc::from("id")];
    let keys = async |collection: &str| {
        let all = Query { collection, selection: Selection::After { after: None, limit: 10 }, output_fields: &fields };
        client.query(all).await.expect("read").remove(0).data
    };
    let batch = |id: i64| {
        vec![
            column("id", ColumnData::Int64(vec![id])),
            column("v", ColumnData::FloatVector { dim: 2, packed: floats(&[1.0, 2.0]) }),
        ]
    };
    for schema in [&one, &two] {
        ready(client, schema).await;
    }
    if server.aliases {
        assert_eq!(client.describe_alias(&alias).await.expect("an answer"), None);
        client.create_alias(&alias, &one.name).await.expect("created");
        client.upsert(&alias, batch(1), 1).await.expect("written through the alias");
        assert_eq!(keys(&one.name).await, ColumnData::Int64(vec![1]));
        client.alter_alias(&alias, &two.name).await.expect("altered");
        assert_eq!(client.describe_alias(&alias).await.expect("an answer"), Some(two.name.clone()));
        client.upsert(&alias, batch(2), 1).await.expect("written through the alias");
        assert_eq!(keys(&two.name).await, ColumnData::Int64(vec![2]));
        assert_eq!(keys(&alias).await, ColumnData::Int64(vec![2]));
        client.drop_alias(&alias).await.expect("dropped");
        client.drop_alias(&alias).await.expect("dropped already");
        assert_eq!(client.describe_alias(&alias).await.expect("an answer"), None);
    }
    let added = FieldSchema { nullable: true, ..field("n", DataType::Int64) };
    let result = client.add_field(&one.name, &added).await;
    if server.add_field {
        result.expect("added");
        let schema = client.describe_collection(&one.name).await.expect("described").expect("there");
        assert_eq!(schema.fields.last(), Some(&added));
        let mut batch = batch(3);
        batch.push(FieldColumn { valid: Some(vec![1]), ..column("n", ColumnData::Int64(vec![7])) });
        client.upsert(&one.name, batch, 1).await.expect("with the new field");
    } else {
        assert_eq!(result.expect_err("cannot").condition(), Condition::Unsupported);
        client.upsert(&one.name, batch(3), 1).await.expect("as before");
    }
    let result = client.truncate_collection(&one.name).await;
    if server.truncate {
        result.expect("emptied");
        assert_eq!(client.count(&one.name).await.expect("counted"), 0);
    } else {
        assert_eq!(result.expect_err("cannot").condition(), Condition::Unsupported);
    }
    for schema in [&one, &two] {
        client.drop_collection(&schema.name).await.expect("dropped");
    }
}

async fn bad_batches_are_told_apart(client: &dyn Milvus, server: ServerTraits) {
    let mut schema = keyed(&unique("bad"), FieldSchema { is_primary: true, ..field("id", DataType::Int64) }, server);
    schema.fields.push(FieldSchema { max_length: Some(65_535), ..field("t", DataType::VarChar) });
    schema.fields.push(FieldSchema { max_length: Some(4), ..field("short", DataType::VarChar) });
    let name = &schema.name;
    ready(client, &schema).await;
    let batch = |rows: usize, t: &str, short: &'static str| {
        vec![
            column("id", ColumnData::Int64((0..rows as i64).collect())),
            column("v", ColumnData::FloatVector { dim: 2, packed: floats(&[1.0, 2.0]).repeat(rows) }),
            column("t", ColumnData::VarChar(vec![Bytes::copy_from_slice(t.as_bytes()); rows])),
            column("short", ColumnData::VarChar(vec![Bytes::from_static(short.as_bytes()); rows])),
        ]
    };

    let error = client.upsert(name, batch(2, "secret", "secret"), 2).await.expect_err("over max_length");
    assert_eq!((error.condition(), error.class()), (Condition::InvalidData, Class::Poison), "{error}");
    assert!(!error.outcome_unknown() && !error.reason().is_empty());
    assert!(!format!("{error} {error:?}").contains("secret"));
    assert_eq!(client.count(name).await.expect("counted"), 0, "a refused request writes nothing");

    // Our own slips are not sent at all.
    let mut wrong_dim = batch(1, "", "");
    wrong_dim[1].data = ColumnData::FloatVector { dim: 3, packed: floats(&[1.0, 2.0, 3.0]) };
    let mut unknown = batch(1, "", "");
    unknown[2].name = "nobody".into();
    let mut not_a_number = batch(1, "", "");
    not_a_number[1].data = ColumnData::FloatVector { dim: 2, packed: floats(&[f32::NAN, 1.0]) };
    let mut uneven = batch(2, "", "");
    uneven[0].data = ColumnData::Int64(vec![1]);
    for (columns, rows) in [(wrong_dim, 1), (unknown, 1), (not_a_number, 1), (uneven, 2), (vec![], 0)] {
        let error = client.upsert(name, columns, rows).await.expect_err("refused");
        assert_eq!((error.condition(), error.class()), (Condition::InvalidRequest, Class::Poison), "{error}");
        assert!(error.never_sent());
    }
    let error = client.delete(name, "id", &Keys::Int64(vec![])).await.expect_err("refused");
    assert!(error.never_sent());

    if server.has_request_limit {
        let error = client.upsert(name, batch(1100, &"x".repeat(65_535), ""), 1100).await.expect_err("72 MB");
        assert_eq!((error.condition(), error.class()), (Condition::RequestTooLarge, Class::Split), "{error}");
        assert!(!error.outcome_unknown());
    }
    client.upsert(name, batch(3, "ok", "ok"), 3).await.expect("and a good batch goes through");
    assert_eq!(client.count(name).await.expect("counted"), 3);
    client.drop_collection(name).await.expect("dropped");
}

fn options(url: &str) -> MilvusOptions {
    MilvusOptions {
        url: url.to_owned(),
        token: None,
        database: String::new(),
        ca: None,
        client_cert: None,
        client_key: None,
        server_name: None,
        connect_timeout: Duration::from_secs(5),
        request_deadline: Duration::from_secs(30),
    }
}

fn connect(url: &str) -> GrpcClient {
    GrpcClient::connect_lazy(&options(url)).expect("a client")
}

fn rest(url: &str) -> RestClient {
    RestClient::new(&options(url)).expect("a client")
}

/// Over either transport.
fn clients(options: &MilvusOptions, transports: &[Transport]) -> Vec<Box<dyn Milvus>> {
    let client = |transport: &Transport| -> Box<dyn Milvus> {
        match transport {
            Transport::Grpc => Box::new(GrpcClient::connect_lazy(options).expect("a client")),
            Transport::Rest => Box::new(RestClient::new(options).expect("a client")),
        }
    };
    transports.iter().map(client).collect()
}

const BOTH: &[Transport] = &[Transport::Grpc, Transport::Rest];

/// Created, indexed and loaded.
async fn ready(client: &dyn Milvus, schema: &CollectionSchema) {
    let index =
        IndexSpec { field: "v".into(), index_type: "FLAT".into(), metric_type: "L2".into(), params: BTreeMap::new() };
    client.server_info().await.expect("a server");
    client.create_collection(schema).await.expect("created");
    client.create_index(&schema.name, &index).await.expect("indexed");
    client.load_collection(&schema.name, Duration::from_secs(60)).await.expect("loaded");
}

fn field(name: &str, data_type: DataType) -> FieldSchema {
    FieldSchema {
        name: name.into(),
        data_type,
        is_primary: false,
        auto_id: false,
        nullable: false,
        element_type: None,
        max_length: None,
        max_capacity: None,
        dim: None,
        description: String::new(),
        default_value: None,
        is_partition_key: false,
        mmap: None,
    }
}

/// A key and a small vector.
fn keyed(name: &str, primary: FieldSchema, server: ServerTraits) -> CollectionSchema {
    CollectionSchema {
        name: name.into(),
        description: String::new(),
        fields: vec![primary, FieldSchema { dim: Some(2), ..field("v", DataType::FloatVector) }],
        enable_dynamic_field: false,
        // Two logs to merge, where the server has them.
        num_shards: server.shards.then_some(2),
        consistency_level: None,
        num_partitions: None,
        properties: BTreeMap::new(),
    }
}

fn all_types(name: &str, server: ServerTraits) -> CollectionSchema {
    let nullable = server.nullable;
    let array = |name, element| FieldSchema {
        element_type: Some(element),
        max_capacity: Some(8),
        ..field(name, DataType::Array)
    };
    CollectionSchema {
        name: name.into(),
        description: "every type of field".into(),
        fields: vec![
            FieldSchema { is_primary: true, description: "the key".into(), ..field("id", DataType::Int64) },
            field("b", DataType::Bool),
            field("i8", DataType::Int8),
            field("i16", DataType::Int16),
            field("i32", DataType::Int32),
            FieldSchema { nullable, ..field("i64", DataType::Int64) },
            field("f", DataType::Float),
            FieldSchema { nullable, ..field("d", DataType::Double) },
            FieldSchema { nullable, max_length: Some(64), ..field("t", DataType::VarChar) },
            field("j", DataType::Json),
            FieldSchema { nullable, max_length: Some(16), ..field("nothing", DataType::VarChar) },
            array("ints", DataType::Int64),
            FieldSchema { max_length: Some(32), ..array("texts", DataType::VarChar) },
            FieldSchema { dim: Some(2), ..field("v", DataType::FloatVector) },
        ],
        enable_dynamic_field: false,
        num_shards: None,
        consistency_level: None,
        num_partitions: None,
        properties: BTreeMap::new(),
    }
}

fn column(name: &str, data: ColumnData) -> FieldColumn {
    FieldColumn { name: name.into(), valid: None, data }
}

fn text(values: &[&'static str]) -> ColumnData {
    ColumnData::VarChar(values.iter().map(|value| Bytes::from_static(value.as_bytes())).collect())
}

fn floats(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn doubles(values: &[f64]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn row_count(columns: &[FieldColumn]) -> usize {
    columns.first().map_or(0, FieldColumn::rows)
}

/// A nullable column without NULLs comes back with marks that say nothing, and Milvus Lite writes JSON documents and moments
/// anew: the marks are taken away, the documents written as serde does and the moments without zeros at their end, which changes
/// none of their values.
fn comparable(mut columns: Vec<FieldColumn>) -> Vec<FieldColumn> {
    for column in &mut columns {
        column.valid.take_if(|valid| valid.iter().all(|&mark| mark == 1));
        if let ColumnData::Timestamptz(moments) = &mut column.data {
            for moment in moments {
                let text = String::from_utf8_lossy(moment).into_owned();
                let digits = text.trim_end_matches('Z');
                let digits =
                    if digits.contains('.') { digits.trim_end_matches('0').trim_end_matches('.') } else { digits };
                *moment = Bytes::from(format!("{digits}Z"));
            }
        }
        if let ColumnData::Json(documents) = &mut column.data {
            for document in documents {
                let value: serde_json::Value = serde_json::from_slice(document).expect("JSON");
                *document = Bytes::from(value.to_string());
            }
        }
    }
    columns
}

/// The values of entity `at` as a column of one; the key becomes `id`.
fn entity(column: &FieldColumn, at: usize, id: i64) -> FieldColumn {
    if &*column.name == "id" {
        return FieldColumn { data: ColumnData::Int64(vec![id]), ..column.clone() };
    }
    let is_null = column.valid.as_ref().is_some_and(|valid| valid[at] == 0);
    let before = column.valid.as_ref().map_or(at, |valid| valid[..at].iter().filter(|&&mark| mark == 1).count());
    let range = if is_null { before..before } else { before..before + 1 };
    let wide = |bytes: &[u8], width: usize| bytes[range.start * width..range.end * width].to_vec();
    let data = match &column.data {
        ColumnData::Bool(values) => ColumnData::Bool(wide(values, 1)),
        ColumnData::Int8(values) => ColumnData::Int8(values[range].to_vec()),
        ColumnData::Int16(values) => ColumnData::Int16(values[range].to_vec()),
        ColumnData::Int32(values) => ColumnData::Int32(values[range].to_vec()),
        ColumnData::Int64(values) => ColumnData::Int64(values[range].to_vec()),
        ColumnData::Float(bytes) => ColumnData::Float(wide(bytes, 4)),
        ColumnData::Double(bytes) => ColumnData::Double(wide(bytes, 8)),
        ColumnData::VarChar(values) => ColumnData::VarChar(values[range].to_vec()),
        ColumnData::Json(values) => ColumnData::Json(values[range].to_vec()),
        ColumnData::Array { element, rows } => ColumnData::Array { element: *element, rows: rows[range].to_vec() },
        ColumnData::Timestamptz(values) => ColumnData::Timestamptz(values[range].to_vec()),
        ColumnData::SparseFloatVector(values) => ColumnData::SparseFloatVector(values[range].to_vec()),
        ColumnData::FloatVector { dim, packed } => ColumnData::FloatVector { dim: *dim, packed: wide(packed, dim * 4) },
        ColumnData::Float16Vector { dim, packed } => {
            ColumnData::Float16Vector { dim: *dim, packed: wide(packed, dim * 2) }
        }
        ColumnData::BinaryVector { dim, packed } => {
            ColumnData::BinaryVector { dim: *dim, packed: wide(packed, dim / 8) }
        }
    };
    FieldColumn { name: column.name.clone(), valid: is_null.then(|| vec![0]), data }
}
