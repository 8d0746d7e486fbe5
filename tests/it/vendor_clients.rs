//! The vendor's own clients and the scripted Milvus: so that it is Milvus that is spoken there, and not our idea of it.
//!
//! pymilvus goes through the same life of a collection on a real server and on the scripted one, and must see the same. The
//! REST client, for which no real server can be installed, writes what walvec reads and reads what walvec wrote.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::json;
use walvec::milvus::{
    ColumnData, DataType, FieldColumn, GrpcClient, Keys, Milvus, MilvusOptions, Query, RestClient, Selection, Token,
};

use crate::support::scripted::{Options, Scripted, Version};
use crate::support::vendor::{VendorRest, pymilvus};
use crate::support::{milvus, unique};

#[tokio::test]
async fn pymilvus_sees_the_same_in_milvus_lite_and_in_the_scripted_milvus() {
    let name = unique("pymilvus");
    let mut real = pymilvus(&milvus::lite().await.url(), &name, true).await;
    let scripted = Scripted::start(Options::default()).await;
    let mut scripted = pymilvus(&scripted.url(), &name, true).await;
    // Lite has the numbers of the old enumeration for bad values, loads by itself, and takes too long arrays.
    for step in ["\"too long\"", "\"too many\"", "\"count unloaded\"", "\"nothing of it\""] {
        real.retain(|line| !line.contains(step));
        scripted.retain(|line| !line.contains(step));
    }
    assert_eq!(scripted, real);
    assert!(real.len() >= 12, "{real:?}");
}

#[cfg(target_arch = "x86_64")]
#[tokio::test]
async fn pymilvus_sees_the_same_in_milvus_2_3_and_in_the_scripted_milvus() {
    let name = unique("pymilvus");
    let real = pymilvus(&milvus::milvus23().await.url(), &name, false).await;
    let scripted = Scripted::start(Options { version: Version::V2_3, ..Options::default() }).await;
    assert_eq!(pymilvus(&scripted.url(), &name, false).await, real);
    assert!(real.len() >= 15, "{real:?}");
}

fn options(url: &str) -> MilvusOptions {
    MilvusOptions {
        url: url.to_owned(),
        token: Some(Token::new("root:Milvus")),
        database: String::new(),
        ca: None,
        client_cert: None,
        client_key: None,
        server_name: None,
        connect_timeout: Duration::from_secs(5),
        request_deadline: Duration::from_secs(30),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_vendors_rest_client_and_walvec_read_what_the_other_wrote() {
    let server = Scripted::start(Options { token: Some("root:Milvus".to_owned()), ..Options::default() }).await;
    let mut vendor = VendorRest::start(&server.url());
    let field = |name: &str, data_type: &str, params: serde_json::Value| json!({"fieldName": name, "dataType": data_type, "elementTypeParams": params});
    let mut nullable = field("t", "VarChar", json!({"max_length": 64}));
    nullable["nullable"] = json!(true);
    let mut key = field("id", "Int64", json!({}));
    key["isPrimary"] = json!(true);
    let mut array = field("a", "Array", json!({"max_capacity": 8}));
    array["elementDataType"] = json!("Int64");
    let created = vendor.call(
        "createCollection",
        json!({"collectionName": "c", "schema": {"autoID": false, "enableDynamicField": false, "fields": [
            key, field("b", "Bool", json!({})), field("i8", "Int8", json!({})), field("d", "Double", json!({})), nullable,
            field("j", "JSON", json!({})), array, field("v", "FloatVector", json!({"dim": 2})),
        ]}, "indexParams": [{"fieldName": "v", "indexName": "v", "metricType": "IP", "indexType": "AUTOINDEX"}]}),
    );
    assert_eq!(created["code"], 0, "{created}");
    let row = |id: serde_json::Value, t: serde_json::Value, j: &str| json!({"id": id, "b": true, "i8": -7, "d": 0.1, "t": t, "j": j, "a": [1, -2], "v": [0.5, -1e-45]});
    let wrote = vendor.call(
        "upsert",
        json!({"collectionName": "c", "data": [
            row(json!("9007199254740993"), json!("é\"\\\n日本🦀"), "{\"k\":[1,null]}"),
            row(json!(-5), json!(null), "[]"),
        ]}),
    );
    assert_eq!((&wrote["code"], &wrote["data"]["upsertCount"]), (&json!(0), &json!(2)), "{wrote}");

    // Everything as the vendor wrote it, over both of our transports.
    let doubles = |values: &[f64]| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
    let floats = |values: &[f32]| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
    let column = |name: &str, valid: Option<Vec<u8>>, data| FieldColumn { name: name.into(), valid, data };
    let ints = ColumnData::Int64(vec![1, -2]);
    let expected = vec![
        column("id", None, ColumnData::Int64(vec![-5, 9_007_199_254_740_993])),
        column("b", None, ColumnData::Bool(vec![1, 1])),
        column("i8", None, ColumnData::Int8(vec![-7, -7])),
        column("d", None, ColumnData::Double(doubles(&[0.1, 0.1]))),
        column("t", Some(vec![0, 1]), ColumnData::VarChar(vec!["é\"\\\n日本🦀".into()])),
        column("j", None, ColumnData::Json(vec!["[]".into(), "{\"k\":[1,null]}".into()])),
        column("a", None, ColumnData::Array { element: DataType::Int64, rows: vec![ints.clone(), ints] }),
        column("v", None, ColumnData::FloatVector { dim: 2, packed: floats(&[0.5, -1e-45, 0.5, -1e-45]) }),
    ];
    let fields: Vec<Arc<str>> = expected.iter().map(|column| Arc::clone(&column.name)).collect();
    let rest = RestClient::new(&options(&server.url())).expect("a client");
    let grpc = GrpcClient::connect_lazy(&options(&server.url())).expect("a client");
    for client in [&rest as &dyn Milvus, &grpc] {
        client.server_info().await.expect("let in");
        let page = Selection::After { after: None, limit: 10 };
        let found = client.query(Query { collection: "c", selection: page, output_fields: &fields }).await;
        assert_eq!(found.expect("read"), expected);
        let index = client.describe_indexes("c").await.expect("described").remove(0);
        assert_eq!((index.field.as_str(), index.metric_type.as_str(), index.params), ("v", "IP", BTreeMap::new()));
    }

    // Ours, read by the vendor; and our delete seen by it.
    let mut ours: Vec<FieldColumn> = expected;
    ours[0].data = ColumnData::Int64(vec![7, 8]);
    ours[5].data = ColumnData::Json(vec![Bytes::from_static(b"{\"q\":\"\\\"\"}"), Bytes::from_static(b"{}")]);
    rest.upsert("c", ours, 2).await.expect("written");
    rest.delete("c", "id", &Keys::Int64(vec![-5, 8])).await.expect("deleted");
    let read = vendor.call(
        "query",
        json!({"collectionName": "c", "filter": "id < 100", "outputFields": ["id", "t", "j", "v"], "limit": 10}),
    );
    assert_eq!(read["code"], 0, "{read}");
    // This client asks for 64-bit integers as texts.
    assert_eq!(read["data"], json!([{"id": "7", "t": null, "j": "{\"q\":\"\\\"\"}", "v": [0.5, -1e-45]}]));
    let described = vendor.call("describeCollection", json!({"collectionName": "c"}));
    assert_eq!(described["data"]["fields"][0]["primaryKey"], json!(true), "{described}");
    let absent = vendor.call("describeCollection", json!({"collectionName": "nobody"}));
    assert_eq!(absent["code"], 100, "{absent}");
    let deleted = vendor.call("delete", json!({"collectionName": "c", "filter": "id in [7]"}));
    assert_eq!(deleted["code"], 0, "{deleted}");
    assert_eq!(rest.count("c").await.expect("counted"), 1);
    let dropped = vendor.call("dropCollection", json!({"collectionName": "c"}));
    assert_eq!(dropped["code"], 0, "{dropped}");
    assert_eq!(grpc.describe_collection("c").await.expect("an answer"), None);
    assert_eq!(server.violations(), Vec::<String>::new(), "the vendor's own bodies");
}
