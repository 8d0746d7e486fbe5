//! The wire, byte for byte. The golden bytes were written by the protocol buffers of pymilvus 3.0.2.

use std::collections::BTreeMap;

use bytes::Bytes;
use prost::Message;

use super::*;
use crate::milvus::{ColumnData, ConsistencyLevel, DataType, Token};

fn unhex(text: &str) -> Bytes {
    let digit = |byte: u8| char::from(byte).to_digit(16).expect("a hexadecimal digit") as u8;
    text.as_bytes().chunks(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect()
}

fn floats(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn column(name: &str, valid: Option<&[u8]>, data: ColumnData) -> FieldColumn {
    FieldColumn { name: name.into(), valid: valid.map(<[u8]>::to_vec), data }
}

fn text(values: &[&'static str]) -> ColumnData {
    ColumnData::VarChar(values.iter().map(|value| Bytes::from_static(value.as_bytes())).collect())
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

fn schema() -> CollectionSchema {
    CollectionSchema {
        name: "c".into(),
        description: "t".into(),
        fields: vec![
            FieldSchema { is_primary: true, max_length: Some(64), ..field("id", DataType::VarChar) },
            FieldSchema {
                element_type: Some(DataType::Int64),
                nullable: true,
                max_capacity: Some(8),
                description: "x".into(),
                ..field("a", DataType::Array)
            },
            FieldSchema { dim: Some(2), ..field("v", DataType::FloatVector) },
        ],
        enable_dynamic_field: false,
        num_shards: Some(2),
        consistency_level: None,
        num_partitions: None,
        properties: BTreeMap::new(),
    }
}

#[test]
fn an_upsert_of_every_type_is_byte_for_byte_what_the_protocol_says() {
    let json = ColumnData::Json(vec![Bytes::from_static(br#"{"a":1}"#), Bytes::from_static(b"{}")]);
    let doubles = [0.1f64, 3.0].iter().flat_map(|value| value.to_le_bytes()).collect();
    let arrays = ColumnData::Array { element: DataType::VarChar, rows: vec![text(&["x", ""]), text(&[])] };
    let columns = [
        (false, column("b", None, ColumnData::Bool(vec![1, 0]))),
        (false, column("i", None, ColumnData::Int16(vec![-1, 300]))),
        (false, column("l", None, ColumnData::Int64(vec![i64::MIN, i64::MAX]))),
        (false, column("f", None, ColumnData::Float(floats(&[1.5, -2.0])))),
        (false, column("d", None, ColumnData::Double(doubles))),
        (true, column("s", Some(&[0, 1]), text(&["é\""]))),
        (true, column("n", Some(&[0, 0]), ColumnData::Int64(vec![]))),
        (false, column("j", None, json)),
        (false, column("a", None, arrays)),
        (false, column("v", None, ColumnData::FloatVector { dim: 2, packed: floats(&[1.0, 2.0, 3.0, 4.0]) })),
    ];
    let message = wire::UpsertRequest {
        db_name: "d".into(),
        collection_name: "c".into(),
        fields_data: columns.into_iter().map(|(nullable, column)| encode::field_data(nullable, column)).collect(),
        num_rows: 2,
    };
    let golden = "1201641a01632a0d08011201621a060a040a0201002a1708031201691a10120e0a0cffffffffffffffffff01ac022a1e080512016c1a171a150a1380808080808080808001ffffffffffffffff7f2a13080a1201661a0c220a0a080000c03f000000c02a1b080b1201641a142a120a109a9999999999b93f00000000000008402a1208151201731a0732050a03c3a9223a0200012a0d080512016e1a021a003a0200002a16081712016a1a0f4a0d0a077b2261223a317d0a027b7d2a1808161201611a11420f0a0732050a01780a000a02320010152a1d08651201762216080212120a100000803f0000004000004040000080403802";
    assert_eq!(Bytes::from(message.encode_to_vec()), unhex(golden));
}

#[test]
fn validity_goes_with_nullable_fields_and_with_no_other() {
    let whole = || column("s", Some(&[1, 1]), text(&["a", "b"]));
    assert_eq!(&encode::field_data(true, whole()).valid_data[..], [1, 1]);
    assert!(encode::field_data(false, whole()).valid_data.is_empty());
    let unmarked = column("s", None, text(&["a", "b"]));
    assert_eq!(&encode::field_data(true, unmarked).valid_data[..], [1, 1]);
}

#[test]
fn the_other_requests_are_byte_for_byte_what_the_protocol_says() {
    let about = || wire::CollectionRequest { db_name: "d".into(), collection_name: "c".into() };
    let index = IndexSpec {
        field: "v".into(),
        index_type: "HNSW".into(),
        metric_type: "L2".into(),
        params: BTreeMap::from([("M".into(), "16".into()), ("efConstruction".into(), "200".into())]),
    };
    let cases = [
        (
            encode::create_collection("d", &schema()).encode_to_vec(),
            "1201641a016322540a0163120174221a120269641801281532100a0a6d61785f6c656e67746812023634221f120161220178281632110a0c6d61785f636170616369747912013850057801220f120176286532080a0364696d12013228023002",
        ),
        (
            encode::create_index("d", "c", &index).encode_to_vec(),
            "1201641a01632201762a120a0a696e6465785f747970651204484e53572a110a0b6d65747269635f7479706512024c322a2b0a06706172616d7312217b224d223a223136222c226566436f6e737472756374696f6e223a22323030227d",
        ),
        (
            wire::QueryRequest {
                db_name: "d".into(),
                collection_name: "c".into(),
                expr: "id > 1".into(),
                output_fields: vec!["id".into(), "t".into()],
                query_params: vec![encode::key_value("limit", "5")],
                consistency_level: CONSISTENCY_STRONG,
            }
            .encode_to_vec(),
            "1201641a016322066964203e20312a0269642a01744a0a0a056c696d6974120135",
        ),
        (
            wire::DeleteRequest { db_name: "d".into(), collection_name: "c".into(), expr: "id in [1]".into() }
                .encode_to_vec(),
            "1201641a01632a09696420696e205b315d",
        ),
        (
            wire::GetLoadStateRequest { db_name: "d".into(), collection_name: "c".into() }.encode_to_vec(),
            "120163220164",
        ),
        // LoadCollection, DropCollection, DescribeCollection, DescribeIndex.
        (about().encode_to_vec(), "1201641a0163"),
        (
            wire::ConnectRequest {
                client_info: Some(wire::ClientInfo { sdk_type: "walvec".into(), sdk_version: "1".into() }),
            }
            .encode_to_vec(),
            "120b0a0677616c766563120131",
        ),
    ];
    for (bytes, golden) in cases {
        assert_eq!(Bytes::from(bytes), unhex(golden));
    }
}

#[test]
fn a_description_becomes_the_schema_it_was_made_from() {
    let golden = "0a0012650a0163120174221a120269641801281532100a0a6d61785f6c656e677468120236342223120161220178281632110a0c6d61785f636170616369747912013850055a0218057801220f120176286532080a0364696d120132220b1205246d657461281760014002620163";
    let response = wire::DescribeCollectionResponse::decode(unhex(golden)).expect("golden");
    let mut expected = schema();
    expected.enable_dynamic_field = true; // the answer has a hidden `$meta`
    expected.fields[1].default_value = Some("5".into());
    expected.consistency_level = Some(ConsistencyLevel::Strong); // number 0, which the wire leaves out
    assert_eq!(decode::collection_schema("c", response).expect("a schema"), expected);
}

#[test]
fn a_type_that_we_do_not_know_is_named_with_its_number() {
    let strange = wire::FieldSchema { name: "where".into(), data_type: 24, ..Default::default() };
    let schema = wire::CollectionSchema { fields: vec![strange], ..Default::default() };
    let response = wire::DescribeCollectionResponse { schema: Some(schema), ..Default::default() };
    let error = decode::collection_schema("c", response).expect_err("GEOMETRY");
    assert_eq!(error.condition(), Condition::Unsupported);
    assert!(error.to_string().contains("field \"where\"") && error.to_string().contains("24"), "{error}");
}

#[test]
fn indexes_are_read_from_flat_and_from_json_parameters() {
    let golden = "0a0012730a01761a120a0a696e6465785f747970651204484e53571a110a0b6d65747269635f7479706512024c321a2c0a06706172616d7312227b224d223a2031362c20226566436f6e737472756374696f6e223a2022323030227d1a140a0c6d6d61702e656e61626c65641204747275652201762803";
    let response = wire::DescribeIndexResponse::decode(unhex(golden)).expect("golden");
    let params = [("M", "16"), ("efConstruction", "200"), ("mmap.enabled", "true")];
    let expected = IndexSpec {
        field: "v".into(),
        index_type: "HNSW".into(),
        metric_type: "L2".into(),
        params: params.iter().map(|&(key, value)| (key.into(), value.into())).collect(),
    };
    assert_eq!(decode::indexes(response), [expected]);
}

#[test]
fn an_answer_is_read_by_name_and_loses_its_fillers() {
    let golden = "0a00121708151201741a0932070a000a01620a0028653a0300010012110805120269641a071a050a0301020328641219086512017622120801120e0a0c0000803f0000004000004040121d08161201611a11420f0a051a030a01070a000a021a0010053a030100011a016322026964220174280932026964";
    let response = wire::QueryResults::decode(unhex(golden)).expect("golden");
    let schema = CollectionSchema {
        fields: vec![
            FieldSchema { is_primary: true, ..field("id", DataType::Int64) },
            FieldSchema { nullable: true, ..field("t", DataType::VarChar) },
            FieldSchema { nullable: true, element_type: Some(DataType::Int64), ..field("a", DataType::Array) },
            FieldSchema { dim: Some(1), ..field("v", DataType::FloatVector) },
        ],
        ..schema()
    };
    let names: Vec<Arc<str>> = ["id", "t", "a", "v"].map(Arc::from).into();
    let arrays = ColumnData::Array {
        element: DataType::Int64,
        rows: vec![ColumnData::Int64(vec![7]), ColumnData::Int64(vec![])],
    };
    let expected = [
        column("id", None, ColumnData::Int64(vec![1, 2, 3])),
        column("t", Some(&[0, 1, 0]), text(&["b"])),
        column("a", Some(&[1, 0, 1]), arrays),
        column("v", None, ColumnData::FloatVector { dim: 1, packed: floats(&[1.0, 2.0, 3.0]) }),
    ];
    assert_eq!(decode::columns(&schema, &names, response.fields_data.clone()).expect("columns"), expected);

    // Values of another type, or of another number, are an error and no panic.
    for (name, other) in
        [("t", DataType::Int64), ("id", DataType::VarChar), ("v", DataType::Int64), ("a", DataType::VarChar)]
    {
        let mut wrong = schema.clone();
        for field in wrong.fields.iter_mut().filter(|field| field.name == name) {
            field.data_type = other;
        }
        let read = decode::columns(&wrong, &names, response.fields_data.clone());
        assert_eq!(read.map_err(|error| error.condition()), Err(Condition::InvalidAnswer), "{name}");
    }
    let missing = decode::columns(&schema, &names, response.fields_data[..2].to_vec());
    assert_eq!(missing.map_err(|error| error.condition()), Err(Condition::InvalidAnswer));

    let nothing = decode::columns(&schema, &names, Vec::new()).expect("columns");
    assert!(nothing.iter().all(|column| column.rows() == 0), "{nothing:?}");
    assert_eq!(nothing[3].data, ColumnData::FloatVector { dim: 1, packed: vec![] });
}

#[test]
fn what_is_encoded_is_decoded_again() {
    let schema = CollectionSchema {
        fields: vec![
            FieldSchema { nullable: true, ..field("b", DataType::Bool) },
            field("i8", DataType::Int8),
            field("i32", DataType::Int32),
            FieldSchema { nullable: true, ..field("f", DataType::Float) },
            field("d", DataType::Double),
            FieldSchema { nullable: true, ..field("j", DataType::Json) },
            FieldSchema { element_type: Some(DataType::Bool), ..field("a", DataType::Array) },
            FieldSchema { dim: Some(2), ..field("v", DataType::FloatVector) },
        ],
        ..schema()
    };
    let flags = ColumnData::Array {
        element: DataType::Bool,
        rows: vec![ColumnData::Bool(vec![1, 0]), ColumnData::Bool(vec![]), ColumnData::Bool(vec![0])],
    };
    let columns = vec![
        column("b", Some(&[1, 0, 1]), ColumnData::Bool(vec![1, 0])),
        column("i8", None, ColumnData::Int8(vec![-128, 0, 127])),
        column("i32", None, ColumnData::Int32(vec![i32::MIN, 0, i32::MAX])),
        column("f", Some(&[0, 0, 0]), ColumnData::Float(vec![])),
        column(
            "d",
            None,
            ColumnData::Double(
                [f64::NAN, -0.0, f64::MIN_POSITIVE].iter().flat_map(|value| value.to_le_bytes()).collect(),
            ),
        ),
        column("j", Some(&[0, 1, 1]), ColumnData::Json(vec![Bytes::from_static(b"null"), Bytes::from_static(b"[]")])),
        column("a", None, flags),
        column("v", None, ColumnData::FloatVector { dim: 2, packed: floats(&[0.0, -0.0, 1e-45, f32::MAX, 1.0, 2.0]) }),
    ];
    let names: Vec<Arc<str>> = columns.iter().map(|column| Arc::clone(&column.name)).collect();
    let sent: Vec<wire::FieldData> = columns
        .iter()
        .zip(&schema.fields)
        .map(|(column, field)| encode::field_data(field.nullable, column.clone()))
        .map(|data| wire::FieldData::decode(Bytes::from(data.encode_to_vec())).expect("our own bytes"))
        .collect();
    assert_eq!(decode::columns(&schema, &names, sent).expect("columns"), columns);
}

#[test]
fn the_status_of_a_mutation_is_found_among_fields_that_we_do_not_read() {
    let golden = "0a250805120362616418cc082a017832160a0e69735f696e7075745f6572726f7212047472756512060a040a0201021a02000140034805";
    let response = wire::StatusResponse::decode(unhex(golden)).expect("golden");
    let status = response.status.expect("a status");
    assert_eq!((status.error_code, status.code, status.reason.as_str()), (5, 1100, "bad"));
    assert_eq!(status.extra_info.get("is_input_error").map(String::as_str), Some("true"));
}

fn options(url: &str) -> MilvusOptions {
    MilvusOptions {
        url: url.into(),
        token: Some(Token::new("root:secret")),
        database: String::new(),
        ca: None,
        client_cert: None,
        client_key: None,
        server_name: None,
        connect_timeout: Duration::from_secs(5),
        request_deadline: Duration::from_millis(200),
    }
}

#[tokio::test]
async fn settings_that_cannot_be_used_are_refused_at_once() {
    let wrong = [
        options("localhost:19530"),
        options("ftp://localhost:1"),
        options(""),
        MilvusOptions { database: "a\nb".into(), ..options("http://localhost:1") },
        MilvusOptions { ca: Some("/nowhere/ca.pem".into()), ..options("https://localhost:1") },
        MilvusOptions { client_cert: Some("/nowhere/cert.pem".into()), ..options("https://localhost:1") },
    ];
    for options in wrong {
        let error = GrpcClient::connect_lazy(&options).err().expect("refused");
        assert_eq!(error.condition(), Condition::Configuration);
        assert!(error.never_sent() && error.hint().is_some());
        assert!(!format!("{error} {error:?}").contains("secret"));
    }
}

#[tokio::test]
async fn a_refused_connection_was_never_sent() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    drop(listener);
    let client = GrpcClient::connect_lazy(&options(&format!("http://127.0.0.1:{port}"))).expect("a client");
    let error = client.delete("c", "id", &Keys::Int64(vec![1])).await.expect_err("refused");
    assert_eq!(error.condition(), Condition::ConnectFailed);
    assert!(error.never_sent() && !error.outcome_unknown());

    let client = GrpcClient::connect_lazy(&options("http://no.such.host.invalid:1")).expect("a client");
    assert!(client.server_info().await.expect_err("no such host").never_sent());
}

#[tokio::test]
async fn a_server_that_keeps_silent_or_hangs_up_leaves_the_outcome_unknown() {
    for hang_up in [false, true] {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        // Reads all and says nothing; or hangs up when it has read the client's preface, SETTINGS and request.
        let server = tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.expect("a connection");
                let mut read = 0;
                let mut buffer = [0; 4096];
                while let Ok(n @ 1..) = tokio::io::AsyncReadExt::read(&mut stream, &mut buffer).await {
                    read += n;
                    if hang_up && read > 150 {
                        break;
                    }
                }
            }
        });
        let client = GrpcClient::connect_lazy(&options(&format!("http://127.0.0.1:{port}"))).expect("a client");
        let error = client.delete("c", "id", &Keys::Int64(vec![1])).await.expect_err("no answer");
        let expected = if hang_up { Condition::ConnectionLost } else { Condition::TimedOut };
        assert_eq!(error.condition(), expected, "{error}");
        assert!(error.outcome_unknown() && !error.never_sent());
        server.abort();
    }
}
