//! The contract of a target: what `milvus::Milvus` promises, held by each transport against each server.
//!
//! `contract` is the whole of it for a server that is well; what differs between servers stands in `ServerTraits`, so that
//! a difference is a decision and not a surprise. Faults, TLS and tokens have tests of their own behind it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use walvec::milvus::{
    Class, CollectionSchema, ColumnData, Condition, DataType, FieldColumn, FieldSchema, GrpcClient, IndexSpec, Key,
    Keys, Milvus, MilvusError, MilvusOptions, Query, Selection, Token,
};
use walvec::servers::{Milvus23, Milvus23Options, MilvusLite, MilvusLiteOptions, TlsPem};

use crate::support::proxy::{Direction, Proxy};
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
    /// Descriptions and the `max_length` of elements of an ARRAY are kept.
    keeps_all_of_a_schema: bool,
}

const LITE: ServerTraits = ServerTraits {
    version: "milvus_lite-3.2.2",
    nullable: true,
    json_arrays: true,
    loses_largest_key: false,
    has_request_limit: false,
    shards: false,
    new_is_unloaded: false,
    keeps_all_of_a_schema: false,
};

const MILVUS_2_3: ServerTraits = ServerTraits {
    version: "v2.3.5",
    nullable: false,
    json_arrays: false,
    loses_largest_key: true,
    has_request_limit: true,
    shards: true,
    new_is_unloaded: true,
    keeps_all_of_a_schema: true,
};

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

async fn contract(client: &dyn Milvus, server: ServerTraits) {
    let info = client.server_info().await.expect("a server");
    assert!(info.version.starts_with(server.version), "{info:?}");
    assert_eq!(info.has_nullable(), server.nullable);

    an_unknown_collection_is_an_answer_or_an_error(client).await;
    a_collection_is_what_was_asked_for(client, server).await;
    entities_of_every_type_are_kept_replaced_and_deleted(client, server).await;
    integer_keys_page_in_order(client, server).await;
    text_keys_page_in_order(client).await;
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
    let mut expected = schema.clone();
    if !server.keeps_all_of_a_schema {
        expected.description.clear();
        for field in &mut expected.fields {
            field.description.clear();
            field.max_length = field.max_length.filter(|_| field.data_type != DataType::Array);
        }
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

/// 20,000 random keys and the extremes; a third written twice, some deleted; every page size gives all of them in order.
async fn integer_keys_page_in_order(client: &dyn Milvus, server: ServerTraits) {
    let mut random = Random(7);
    let mut keys: BTreeSet<i64> = (0..20_000).map(|_| random.next() as i64).collect();
    keys.extend(-500..500);
    keys.extend([i64::MIN, i64::MIN + 1, i64::MAX - 1]);
    if !server.loses_largest_key {
        keys.insert(i64::MAX);
    }
    let mut shuffled: Vec<i64> = keys.iter().copied().collect();
    random.shuffle(&mut shuffled);

    let schema = keyed(&unique("ints"), FieldSchema { is_primary: true, ..field("id", DataType::Int64) }, server);
    let name = &schema.name;
    ready(client, &schema).await;
    let third = &shuffled[..shuffled.len() / 3];
    for part in shuffled.chunks(5000).chain(third.chunks(5000)) {
        let vectors = ColumnData::FloatVector { dim: 2, packed: floats(&[1.0, 2.0]).repeat(part.len()) };
        let batch = vec![column("id", ColumnData::Int64(part.to_vec())), column("v", vectors)];
        client.upsert(name, batch, part.len()).await.expect("written");
    }
    let mut gone: Vec<i64> = shuffled[..500].to_vec();
    gone.push(i64::MIN);
    client.delete(name, "id", &Keys::Int64(gone.clone())).await.expect("deleted");
    keys.retain(|key| !gone.contains(key));
    // -2^63 is found, deleted and written again like any other.
    let smallest = || {
        vec![
            column("id", ColumnData::Int64(vec![i64::MIN])),
            column("v", ColumnData::FloatVector { dim: 2, packed: floats(&[1.0, 2.0]) }),
        ]
    };
    let fields = [Arc::from("id")];
    let find = async |keys: Vec<i64>| {
        let keys = Keys::Int64(keys);
        client
            .query(Query { collection: name, selection: Selection::Keys(&keys), output_fields: &fields })
            .await
            .expect("found")
    };
    assert_eq!(row_count(&find(vec![i64::MIN]).await), 0);
    client.upsert(name, smallest(), 1).await.expect("written");
    keys.insert(i64::MIN);
    let other = *keys.iter().nth(100).expect("many keys");
    assert_eq!(row_count(&find(vec![i64::MIN, other]).await), 2);

    assert_eq!(client.count(name).await.expect("counted"), keys.len() as u64);
    let expected: Vec<Key> = keys.iter().copied().map(Key::Int64).collect();
    for limit in [777, 16_384] {
        assert_pages(client, name, limit, &expected).await;
    }
    let last = Key::Int64(i64::MAX);
    let beyond = Query {
        collection: name,
        selection: Selection::After { after: Some(&last), limit: 5 },
        output_fields: &fields,
    };
    assert_eq!(row_count(&client.query(beyond).await.expect("an empty page")), 0);
    client.drop_collection(name).await.expect("dropped");
}

async fn text_keys_page_in_order(client: &dyn Milvus) {
    const PIECES: [&str; 22] = [
        "\"",
        "\\",
        "\n",
        "\t",
        "\r",
        "'",
        "%",
        "_",
        "{id}",
        "\u{1}",
        "\u{7f}",
        "a",
        "B",
        "0",
        " ",
        "é",
        "日",
        "\u{2028}",
        "\u{e000}",
        "\u{ffff}",
        "🦀",
        "\" or id != \"",
    ];
    let mut random = Random(11);
    let mut keys: BTreeSet<String> = BTreeSet::from([String::new(), "\\".repeat(40), "\"".repeat(40), "x".repeat(200)]);
    while keys.len() < 20_000 {
        let length = random.next() % 9;
        keys.insert((0..length).map(|_| PIECES[(random.next() % 22) as usize]).collect());
    }
    let mut shuffled: Vec<&String> = keys.iter().collect();
    random.shuffle(&mut shuffled);
    let key_field = FieldSchema { is_primary: true, max_length: Some(200), ..field("id", DataType::VarChar) };
    let schema = keyed(&unique("texts"), key_field, LITE);
    let name = &schema.name;
    ready(client, &schema).await;
    for part in shuffled.chunks(5000) {
        let ids = part.iter().map(|key| Bytes::copy_from_slice(key.as_bytes())).collect();
        let vectors = ColumnData::FloatVector { dim: 2, packed: floats(&[1.0, 2.0]).repeat(part.len()) };
        let batch = vec![column("id", ColumnData::VarChar(ids)), column("v", vectors)];
        client.upsert(name, batch, part.len()).await.expect("written");
    }
    // Each of these is deleted alone: a literal that the server reads otherwise would spare it or take another.
    let some: Vec<Arc<str>> = shuffled.iter().take(300).map(|key| Arc::from(key.as_str())).collect();
    let fields = [Arc::from("id")];
    let of = Keys::VarChar(some.clone());
    let query = || Query { collection: name, selection: Selection::Keys(&of), output_fields: &fields };
    assert_eq!(row_count(&client.query(query()).await.expect("found")), some.len());
    client.delete(name, "id", &of).await.expect("deleted");
    assert_eq!(row_count(&client.query(query()).await.expect("found")), 0);

    let gone: BTreeSet<&str> = some.iter().map(|key| &**key).collect();
    let expected: Vec<Key> =
        keys.iter().filter(|key| !gone.contains(key.as_str())).map(|key| Key::VarChar(key.as_str().into())).collect();
    assert_eq!(client.count(name).await.expect("counted"), expected.len() as u64);
    for limit in [999, 16_384] {
        assert_pages(client, name, limit, &expected).await;
    }
    client.drop_collection(name).await.expect("dropped");
}

/// Reads the whole collection page by page and compares.
async fn assert_pages(client: &dyn Milvus, name: &str, limit: usize, expected: &[Key]) {
    let fields = [Arc::from("id")];
    let mut found: Vec<Key> = Vec::new();
    loop {
        let selection = Selection::After { after: found.last(), limit };
        let page = client.query(Query { collection: name, selection, output_fields: &fields }).await.expect("a page");
        let keys: Vec<Key> = match &page[0].data {
            ColumnData::Int64(keys) => keys.iter().copied().map(Key::Int64).collect(),
            ColumnData::VarChar(keys) => {
                keys.iter().map(|key| Key::VarChar(std::str::from_utf8(key).expect("text").into())).collect()
            }
            other => panic!("no keys: {:?}", other.data_type()),
        };
        assert!(keys.len() <= limit, "{} keys on a page of {limit}", keys.len());
        let end = keys.len() < limit;
        found.extend(keys);
        if end {
            break;
        }
    }
    let missing = expected.iter().filter(|key| found.binary_search(key).is_err()).count();
    assert!(found == expected, "pages of {limit}: {} keys for {}, {missing} are missing", found.len(), expected.len());
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

/// A frozen server, a killed one, a port where nobody listens any more: what a caller may conclude from each.
#[tokio::test]
async fn faults_say_whether_the_request_may_still_land() {
    let mut server = MilvusLite::start(MilvusLiteOptions::default()).await.expect("starts");
    let proxy = Proxy::start(server.port()).await;
    let url = format!("http://127.0.0.1:{}", proxy.port());
    let client = GrpcClient::connect_lazy(&MilvusOptions { request_deadline: Duration::from_secs(2), ..options(&url) })
        .expect("a client");
    let schema = keyed("docs", FieldSchema { is_primary: true, ..field("id", DataType::Int64) }, LITE);
    ready(&client, &schema).await;
    let batch = |id: i64| {
        vec![
            column("id", ColumnData::Int64(vec![id])),
            column("v", ColumnData::FloatVector { dim: 2, packed: floats(&[1.0, 2.0]) }),
        ]
    };
    client.upsert("docs", batch(1), 1).await.expect("written");

    // The answer is lost after the work was done.
    proxy.cut_after(Direction::ToClient, 0);
    let error = client.upsert("docs", batch(2), 1).await.expect_err("no answer");
    assert_eq!((error.condition(), error.class()), (Condition::ConnectionLost, Class::Retry), "{error}");
    assert!(error.outcome_unknown() && !error.never_sent());
    proxy.heal();
    // The channel connects anew by itself; whether the row of the lost answer is there is just what nobody knows.
    client.upsert("docs", batch(2), 1).await.expect("the same request again");
    assert_eq!(client.count("docs").await.expect("counted"), 2);

    // A frozen server: the deadline ends the wait, not before its time and not much later.
    server.pause().await.expect("frozen");
    let begin = Instant::now();
    let error = client.upsert("docs", batch(3), 1).await.expect_err("no answer");
    assert_eq!((error.condition(), error.class()), (Condition::TimedOut, Class::Retry), "{error}");
    assert!(error.outcome_unknown() && !error.never_sent());
    assert!((Duration::from_millis(1900)..Duration::from_secs(6)).contains(&begin.elapsed()), "{:?}", begin.elapsed());

    // Killed with a request on its way.
    let sent = proxy.counts().to_server;
    let (error, ()) = tokio::join!(client.upsert("docs", batch(4), 1), async {
        until("the request is on its way", Duration::from_secs(2), async || {
            (proxy.counts().to_server > sent + 50).then_some(())
        })
        .await;
        server.kill().await.expect("killed");
        proxy.cut(); // as the kernel of a killed server does
    });
    let error = error.expect_err("no answer");
    assert_eq!(error.condition(), Condition::ConnectionLost, "{error}");
    assert!(error.outcome_unknown());

    // Nobody listens: nothing was sent, nothing to wait for.
    drop(proxy);
    let error = until("the broken connection is noticed", Duration::from_secs(5), async || {
        client.upsert("docs", batch(5), 1).await.err().filter(|error| error.never_sent())
    })
    .await;
    assert_eq!((error.condition(), error.class()), (Condition::ConnectFailed, Class::Retry));
    assert!(!error.outcome_unknown());

    // What was acknowledged is there after the kill; the collection has to be loaded again.
    server.restart().await.expect("starts again");
    let client = connect(&server.url());
    let keys = Keys::Int64(vec![1, 2]);
    let fields = [Arc::from("id")];
    let query = || Query { collection: "docs", selection: Selection::Keys(&keys), output_fields: &fields };
    assert_unloaded(client.query(query()).await.expect_err("not loaded"));
    client.load_collection("docs", Duration::from_secs(30)).await.expect("loaded");
    assert_eq!(row_count(&client.query(query()).await.expect("read")), 2);
}

/// TLS with a private authority, and a token: the right one, a wrong one and none.
#[tokio::test]
async fn tls_and_a_token_are_asked_for_and_given() {
    let directory = tempfile::tempdir().expect("a directory");
    let authority_key = rcgen::KeyPair::generate().expect("a key");
    let mut authority_params = rcgen::CertificateParams::new(Vec::new()).expect("parameters");
    authority_params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let authority_cert = authority_params.self_signed(&authority_key).expect("an authority");
    let authority = rcgen::Issuer::new(authority_params, authority_key);
    let server_key = rcgen::KeyPair::generate().expect("a key");
    let server_cert = rcgen::CertificateParams::new(vec!["milvus.test".to_owned()])
        .and_then(|params| params.signed_by(&server_key, &authority))
        .expect("a certificate");
    let ca = directory.path().join("ca.pem");
    fs::write(&ca, authority_cert.pem()).expect("written");

    let tls = TlsPem { certificate: server_cert.pem(), key: server_key.serialize_pem(), client_ca: None };
    let server = Milvus23::start(Milvus23Options { authorization: true, tls: Some(tls), ..Milvus23Options::default() })
        .await
        .expect("starts");
    let with = |token: Option<&str>, ca: Option<&std::path::Path>, name: &str| {
        GrpcClient::connect_lazy(&MilvusOptions {
            token: token.map(Token::new),
            ca: ca.map(Into::into),
            server_name: Some(name.to_owned()),
            ..options(&server.url())
        })
        .expect("a client")
    };
    let right = with(Some("root:Milvus"), Some(&ca), "milvus.test");
    assert!(right.server_info().await.expect("let in").version.starts_with("v2.3.5"));
    assert_eq!(right.describe_collection("absent").await.expect("an answer"), None);

    for token in [Some("root:guess"), None] {
        let client = with(token, Some(&ca), "milvus.test");
        let error = client.describe_collection("absent").await.expect_err("turned away");
        assert_eq!((error.condition(), error.class()), (Condition::Unauthenticated, Class::Fatal), "{error}");
        assert!(error.hint().is_some() && !format!("{error} {error:?}").contains("guess"));
        assert!(client.server_info().await.is_err(), "the first call finds it out");
    }
    // Another name, or the public roots: the handshake fails and nothing is sent.
    for client in [with(None, Some(&ca), "other.test"), with(None, None, "milvus.test")] {
        let error = client.server_info().await.expect_err("not trusted");
        assert!(error.never_sent() && error.hint().is_some(), "{error}");
    }
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

/// A nullable column without NULLs comes back with marks that say nothing, and Milvus Lite writes JSON documents anew: the
/// marks are taken away and the documents written as serde does, which changes none of their values.
fn comparable(mut columns: Vec<FieldColumn>) -> Vec<FieldColumn> {
    for column in &mut columns {
        column.valid.take_if(|valid| valid.iter().all(|&mark| mark == 1));
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
        ColumnData::FloatVector { dim, packed } => ColumnData::FloatVector { dim: *dim, packed: wide(packed, dim * 4) },
    };
    FieldColumn { name: column.name.clone(), valid: is_null.then(|| vec![0]), data }
}

/// splitmix64: the same keys in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, (self.next() % (i as u64 + 1)) as usize);
        }
    }
}
