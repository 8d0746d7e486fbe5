//! The client against a server of a few lines that answers as the test says: what goes over the wire, and what comes of it.
//! The contract with whole servers is in `tests/it/milvus_contract.rs`.

use std::collections::VecDeque;
use std::sync::Mutex;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use tokio::net::TcpListener;

use super::*;
use crate::milvus::ColumnData;

/// Answers in turn; afterwards code 0. What came: route, headers, body.
#[derive(Default)]
struct Server {
    answers: Mutex<VecDeque<(u16, &'static str, &'static str)>>,
    requests: Mutex<Vec<(String, HeaderMap, Value)>>,
}

async fn serve(State(server): State<Arc<Server>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, usize::MAX).await.expect("a body");
    let route = parts.uri.path().trim_start_matches("/v2/vectordb/").to_owned();
    let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
    server.requests.lock().expect("not poisoned").push((route, parts.headers, body));
    let answer = server.answers.lock().expect("not poisoned").pop_front();
    let (status, header, text) = answer.unwrap_or((200, "", r#"{"code":0,"data":{}}"#));
    let mut response = Response::builder().status(status);
    if !header.is_empty() {
        response = response.header("retry-after", header);
    }
    response.body(Body::from(text)).expect("a response")
}

const DESCRIBED: &str = r#"{"code":0,"data":{"collectionName":"c","fields":[
    {"name":"id","type":"VarChar","primaryKey":true,"params":[{"key":"max_length","value":"64"}]},
    {"name":"n","type":"Int64","nullable":true}]}}"#;

async fn start(answers: &[(u16, &'static str, &'static str)]) -> (Arc<Server>, RestClient) {
    let server = Arc::new(Server { answers: Mutex::new(answers.iter().copied().collect()), ..Server::default() });
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("bound");
    let port = listener.local_addr().expect("bound").port();
    let router = Router::new().fallback(serve).with_state(Arc::clone(&server));
    tokio::spawn(async move { axum::serve(listener, router).await });
    (server, RestClient::new(&options(port)).expect("a client"))
}

fn options(port: u16) -> MilvusOptions {
    MilvusOptions {
        url: format!("http://127.0.0.1:{port}/"),
        token: Some(crate::milvus::Token::new("root:secret")),
        database: "db".into(),
        ca: None,
        client_cert: None,
        client_key: None,
        server_name: None,
        connect_timeout: Duration::from_secs(2),
        request_deadline: Duration::from_millis(1500),
    }
}

fn batch() -> Vec<FieldColumn> {
    let keys = ColumnData::VarChar(vec!["a\"\\".into(), "b".into()]);
    vec![
        FieldColumn { name: "id".into(), valid: None, data: keys },
        FieldColumn { name: "n".into(), valid: Some(vec![0, 1]), data: ColumnData::Int64(vec![7]) },
    ]
}

impl Server {
    fn routes(&self) -> Vec<String> {
        self.requests.lock().expect("not poisoned").iter().map(|(route, ..)| route.clone()).collect()
    }

    fn body(&self, at: usize) -> Value {
        self.requests.lock().expect("not poisoned")[at].2.clone()
    }
}

#[tokio::test]
async fn every_request_brings_its_headers_and_its_database() {
    let (server, client) = start(&[(200, "", DESCRIBED)]).await;
    client.upsert("c", batch(), 2).await.expect("written");
    let keys = Keys::VarChar(vec!["a\"\\".into()]);
    client.delete("c", "id", &keys).await.expect("deleted");
    assert_eq!(server.routes(), ["collections/describe", "entities/upsert", "entities/delete"]);
    for (_, headers, body) in server.requests.lock().expect("not poisoned").iter() {
        let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        assert_eq!(header("authorization"), "Bearer root:secret");
        assert_eq!((header("db-name"), header("request-timeout")), ("db", "2"), "whole seconds, rounded up");
        assert_eq!((header("accept-type-allow-int64"), header("content-type")), ("true", "application/json"));
        assert_eq!((&body["dbName"], &body["collectionName"]), (&json!("db"), &json!("c")));
    }
    assert_eq!(server.body(1)["data"], json!([{"id": "a\"\\", "n": null}, {"id": "b", "n": 7}]));
    assert_eq!(server.body(2)["filter"], "id in {keys}");
    assert_eq!(server.body(2)["exprParams"], json!({"keys": ["a\"\\"]}));
}

#[tokio::test]
async fn the_version_is_known_by_its_routes() {
    let refused = (200, "", r#"{"code":1802,"message":"missing required parameters"}"#);
    let absent = (404, "", "404 page not found");
    let listed = (200, "", r#"{"code":0,"data":[]}"#);
    for (routes, version, nullable) in [
        (&[listed, refused][..], "v2.6.11", true),
        (&[listed, absent, refused], "v2.6.0", true),
        (&[listed, absent, absent, refused], "v2.5.0", true),
        (&[listed, absent, absent, absent], "v2.4", false),
    ] {
        let (server, client) = start(routes).await;
        let info = client.server_info().await.expect("a server");
        assert!(info.version.starts_with(version), "{info:?}");
        assert_eq!(info.has_nullable(), nullable);
        client.delete("c", "id", &Keys::VarChar(vec!["a\"".into()])).await.expect("deleted");
        let sent = server.body(routes.len());
        let quoted = json!("id in [\"a\\\"\"]");
        assert_eq!(sent["filter"] == quoted, !nullable, "{version} has templates: {sent}");
    }
    let (_, client) = start(&[(200, "", r#"{"code":1800,"message":"user hasn't authenticated"}"#)]).await;
    let error = client.server_info().await.expect_err("no user");
    assert_eq!(error.condition(), Condition::Unauthenticated);
    let (_, client) = start(&[(404, "", "<html>no such page</html>")]).await;
    let error = client.server_info().await.expect_err("no Milvus");
    assert_eq!(error.condition(), Condition::Unsupported);
    assert!(error.hint().is_some_and(|hint| hint.contains("address of a Milvus")));
}

#[tokio::test]
async fn answers_that_are_not_milvus_s_are_understood() {
    for (status, wait, text, condition, unknown) in [
        (502, "", "<html>Bad Gateway</html>", Condition::Unavailable, true),
        (504, "", "", Condition::TimedOut, true),
        (413, "", "<html>too large</html>", Condition::RequestTooLarge, false),
        (429, "9", "slow down", Condition::RateLimited, false),
        (408, "", r#"{"code":10001,"message":"timeout"}"#, Condition::TimedOut, true),
        (500, "", r#"{"code":500}"#, Condition::Unexpected, true),
        (200, "", r#"{"code":1807,"message":"rate limit exceeded[rate=1]"}"#, Condition::RateLimited, false),
        (200, "", r#"{"code":1807,"message":"quota exceeded[reason=disk quota]"}"#, Condition::QuotaExceeded, false),
        (200, "", r#"{"code":1804,"message":"fail to deal the insert data"}"#, Condition::InvalidData, false),
        (200, "", r#"{"code":65535,"message":"?"}"#, Condition::Unexpected, true),
        (200, "", "OK", Condition::InvalidAnswer, true),
        (200, "", r#"{"data":[]}"#, Condition::InvalidAnswer, true),
        (302, "", "", Condition::Configuration, false),
    ] {
        let (_, client) = start(&[(200, "", DESCRIBED), (status, wait, text)]).await;
        let error = client.upsert("c", batch(), 2).await.expect_err(text);
        assert_eq!((error.condition(), error.outcome_unknown()), (condition, unknown), "{status} {text}");
        assert!(!error.to_string().contains("html") && !format!("{error:?}").contains("secret"), "{error}");
        if status == 429 {
            assert_eq!((error.class(), error.retry_after()), (Class::Throttle, Some(Duration::from_secs(9))));
        }
    }
}

#[tokio::test]
async fn a_refused_connection_was_never_sent_and_a_broken_one_may_have_been() {
    let closed = TcpListener::bind(("127.0.0.1", 0)).await.expect("bound").local_addr().expect("bound").port();
    let client = RestClient::new(&options(closed)).expect("a client");
    let error = client.count("c").await.expect_err("nobody there");
    assert!(
        error.condition() == Condition::ConnectFailed && error.never_sent() && !error.outcome_unknown(),
        "{error:?}"
    );

    // Reads the request, and closes without a word; then one that never answers.
    for hangs in [false, true] {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("bound");
        let port = listener.local_addr().expect("bound").port();
        let held = tokio::spawn(async move {
            let (stream, _) = listener.accept().await.expect("accepted");
            stream.readable().await.expect("readable");
            if hangs { Some((stream, listener)) } else { None }
        });
        let mut options = options(port);
        (options.request_deadline, options.connect_timeout) = (Duration::from_millis(50), Duration::from_millis(50));
        let client = RestClient::new(&options).expect("a client");
        let error = client.count("c").await.expect_err("no answer");
        let expected = if hangs { Condition::TimedOut } else { Condition::ConnectionLost };
        assert!(error.condition() == expected && error.outcome_unknown() && !error.never_sent(), "{error:?}");
        drop(held.await.expect("held"));
    }
}

#[tokio::test]
async fn a_stale_schema_is_asked_for_again() {
    let altered = r#"{"code":0,"data":{"collectionName":"c","fields":[
        {"name":"id","type":"VarChar","primaryKey":true},{"name":"m","type":"Int64"}]}}"#;
    let (server, client) = start(&[(200, "", altered), (200, "", DESCRIBED)]).await;
    client.upsert("c", batch(), 2).await.expect("written");
    assert_eq!(server.routes(), ["collections/describe", "collections/describe", "entities/upsert"]);
    let (server, client) = start(&[(200, "", altered), (200, "", altered)]).await;
    let error = client.upsert("c", batch(), 2).await.expect_err("no such field");
    assert_eq!((error.condition(), error.class()), (Condition::InvalidRequest, Class::Poison));
    assert_eq!(server.routes().len(), 2, "it was not sent");
}

#[test]
fn wrong_options_are_named() {
    let wrong = |change: fn(&mut MilvusOptions)| {
        let mut options = options(1);
        change(&mut options);
        RestClient::new(&options).err().expect("wrong").to_string()
    };
    assert!(wrong(|options| options.url = "milvus.internal".into()).contains("target.url"));
    assert!(wrong(|options| options.url = "ftp://host".into()).contains("http://"));
    assert!(wrong(|options| options.token = Some(crate::milvus::Token::new("a\nb"))).contains("target.token"));
    assert!(
        wrong(|options| {
            options.url = "https://host".into();
            options.ca = Some("/nowhere/ca.pem".into());
        })
        .contains("/nowhere/ca.pem")
    );
    assert!(
        wrong(|options| {
            options.url = "https://host".into();
            options.client_cert = Some("/nowhere/c.pem".into());
        })
        .contains("belong together")
    );
    let mut secure = options(1);
    secure.url = "https://host".into();
    RestClient::new(&secure).expect("Mozilla's roots");
    assert_eq!(seconds(Duration::from_millis(1)), 1);
    assert_eq!(seconds(Duration::from_secs(10)), 10);
}
