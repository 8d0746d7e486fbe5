//! The discarding server of the benches, so that what they measure is what they say.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use walvec::milvus::{
    CollectionSchema, ColumnData, ConsistencyLevel, DataType, FieldColumn, FieldSchema, GrpcClient, IndexSpec, Keys,
    Milvus, MilvusOptions, Query, Selection,
};

#[path = "../../benches/discard.rs"]
mod discard;
use discard::{Counts, Discard};

#[tokio::test]
async fn the_discarding_server_acknowledges_counts_and_keeps_nothing() {
    let server = Discard::start().await.expect("listens");
    let client = connect(&server.url());
    let schema = schema(768);
    assert!(client.server_info().await.expect("there").version.contains("discard"));
    assert_eq!(client.describe_collection("docs").await.expect("an answer"), None);
    client.create_collection(&schema).await.expect("created");
    assert_eq!(client.describe_collection("docs").await.expect("an answer").as_ref(), Some(&schema));
    let index = IndexSpec {
        field: "v".into(),
        index_type: "AUTOINDEX".into(),
        metric_type: "COSINE".into(),
        params: BTreeMap::new(),
    };
    client.create_index("docs", &index).await.expect("said yes");
    client.load_collection("docs", Duration::from_secs(5)).await.expect("loaded");

    client.upsert("docs", batch(1000, 768), 1000).await.expect("acknowledged");
    client.upsert("docs", batch(10, 768), 10).await.expect("acknowledged");
    let keys = Keys::Int64(vec![1, 2, 3]);
    client.delete("docs", "id", &keys).await.expect("acknowledged");
    let Counts { upserts, rows, deletes, bytes } = server.counts();
    assert_eq!((upserts, rows, deletes), (2, 1010, 1));
    let payload = 1010 * (768 * 4 + 300);
    assert!((payload..payload * 101 / 100).contains(&bytes), "{bytes} bytes");

    assert_eq!(client.count("docs").await.expect("counted"), 0);
    let fields = [Arc::from("id")];
    let query = Query { collection: "docs", selection: Selection::Keys(&keys), output_fields: &fields };
    assert_eq!(client.query(query).await.expect("an answer")[0].rows(), 0);
    client.drop_collection("docs").await.expect("dropped");
    assert_eq!(client.describe_collection("docs").await.expect("an answer"), None);
}

fn connect(url: &str) -> GrpcClient {
    let options = MilvusOptions {
        url: url.to_owned(),
        token: None,
        database: String::new(),
        ca: None,
        client_cert: None,
        client_key: None,
        server_name: None,
        connect_timeout: Duration::from_secs(5),
        request_deadline: Duration::from_secs(10),
    };
    GrpcClient::connect_lazy(&options).expect("a client")
}

fn schema(dim: u32) -> CollectionSchema {
    let field = |name: &str, data_type| FieldSchema {
        name: name.into(),
        data_type,
        is_primary: name == "id",
        auto_id: false,
        nullable: false,
        element_type: None,
        max_length: (data_type == DataType::VarChar).then_some(1000),
        max_capacity: None,
        dim: (data_type == DataType::FloatVector).then_some(dim),
        description: String::new(),
        default_value: None,
        is_partition_key: false,
        mmap: None,
    };
    CollectionSchema {
        name: "docs".into(),
        description: String::new(),
        fields: vec![field("id", DataType::Int64), field("body", DataType::VarChar), field("v", DataType::FloatVector)],
        enable_dynamic_field: false,
        num_shards: None,
        consistency_level: Some(ConsistencyLevel::Bounded),
        num_partitions: None,
        properties: BTreeMap::new(),
    }
}

fn batch(rows: usize, dim: usize) -> Vec<FieldColumn> {
    let column = |name: &str, data| FieldColumn { name: name.into(), valid: None, data };
    let body = Bytes::from("x".repeat(300));
    vec![
        column("id", ColumnData::Int64((0..rows as i64).collect())),
        column("body", ColumnData::VarChar(vec![body; rows])),
        column("v", ColumnData::FloatVector { dim, packed: 0.5f32.to_le_bytes().repeat(rows * dim) }),
    ]
}
