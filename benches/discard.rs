//! A Milvus that acknowledges everything and keeps nothing: what walvec alone can do, without the server's cost.
//!
//! In: the RPCs and the REST routes of walvec's clients, on a free port of 127.0.0.1. Out: success at once, and counts of what came.
//!
//! It remembers the schemas of collections that are created, so that they can be described; it is loaded at once and always empty
//! (a query finds nothing, a count is 0). Of an upsert it decodes no more than the number of entities (over REST it counts the
//! members `id`), so in a process of its own or
//! on a thread of its own it takes little from what is being measured.
//!
//! Not here: any check of what it gets. Nothing about correctness can be concluded from it.

use std::collections::HashMap;
use std::future::ready;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use prost::Message;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tonic::Status;
use walvec::milvus::grpc::wire;

#[path = "../tests/support/unary.rs"]
mod unary;

/// What has come so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub upserts: u64,
    /// Entities of all upserts.
    pub rows: u64,
    pub deletes: u64,
    /// Of the messages of upserts and deletes, without framing.
    pub bytes: u64,
}

/// A running server; it ends with this value.
pub struct Discard {
    address: SocketAddr,
    shared: Arc<Shared>,
    serve: JoinHandle<()>,
}

#[derive(Default)]
struct Shared {
    upserts: AtomicU64,
    rows: watch::Sender<u64>,
    deletes: AtomicU64,
    bytes: AtomicU64,
    schemas: Mutex<HashMap<String, wire::DescribeCollectionResponse>>,
    /// By collection, the fields of a create over REST.
    rest_schemas: Mutex<HashMap<String, Value>>,
    arrivals: Mutex<Option<Vec<(i64, Instant)>>>,
}

impl Discard {
    /// Listens and serves on the current tokio runtime.
    pub async fn start() -> std::io::Result<Discard> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared::default());
        let router = Router::new().fallback(answer).with_state(Arc::clone(&shared));
        let serve = tokio::spawn(async move {
            // It ends with an error only when the listener breaks; the clients then see it themselves.
            drop(axum::serve(listener, router).await);
        });
        Ok(Discard { address, shared, serve })
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn counts(&self) -> Counts {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let Shared { upserts, rows, deletes, bytes, .. } = &*self.shared;
        Counts { upserts: read(upserts), rows: *rows.borrow(), deletes: read(deletes), bytes: read(bytes) }
    }

    /// Wait until the entities of all upserts are so many.
    #[allow(dead_code)] // the benchmark's, not the tests'
    pub async fn until_rows(&self, rows: u64) {
        let mut upserted = self.shared.rows.subscribe();
        upserted.wait_for(|upserted| *upserted >= rows).await.expect("the sender lives as long as we do");
    }

    /// From now on note which key of the integer field `id` comes when; that needs the whole message decoded.
    #[allow(dead_code)]
    pub fn note_arrivals(&self) {
        *lock(&self.shared.arrivals) = Some(Vec::new());
    }

    /// What was noted; nothing is noted any longer.
    #[allow(dead_code)]
    pub fn take_arrivals(&self) -> Vec<(i64, Instant)> {
        lock(&self.shared.arrivals).take().unwrap_or_default()
    }
}

impl Shared {
    fn upserted(&self, rows: u32, bytes: u64) {
        self.upserts.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.rows.send_modify(|upserted| *upserted += u64::from(rows));
    }

    fn arrived(&self, message: &wire::UpsertRequest) {
        let now = Instant::now();
        let keys = message.fields_data.iter().find(|field| field.field_name == "id");
        let keys = keys.and_then(|field| field.scalars.as_ref()?.long_data.as_ref());
        if let (Some(arrivals), Some(keys)) = (lock(&self.arrivals).as_mut(), keys) {
            arrivals.extend(keys.data.iter().map(|&key| (key, now)));
        }
    }
}

impl Drop for Discard {
    fn drop(&mut self) {
        self.serve.abort();
    }
}

/// The one field of an `UpsertRequest` that is looked at; the rest is skipped without a copy.
#[derive(Clone, PartialEq, Message)]
struct UpsertSize {
    #[prost(uint32, tag = "7")]
    num_rows: u32,
}

#[derive(Clone, PartialEq, Message)]
struct Anything {}

async fn answer(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let ok = || Some(wire::Status::default());
    let acknowledged = move || Ok(wire::StatusResponse { status: ok() });
    let add = |count: &AtomicU64, more: u64| {
        count.fetch_add(more, Ordering::Relaxed);
    };
    let path = request.uri().path().to_owned();
    if let Some(route) = path.strip_prefix("/v2/vectordb/") {
        return rest(&shared, route, request).await;
    }
    match path.rsplit('/').next().unwrap_or_default() {
        "Upsert" if lock(&shared.arrivals).is_some() => {
            unary(request, move |message: wire::UpsertRequest, bytes| {
                shared.arrived(&message);
                shared.upserted(message.num_rows, bytes);
                acknowledged()
            })
            .await
        }
        "Upsert" => {
            unary(request, move |message: UpsertSize, bytes| {
                shared.upserted(message.num_rows, bytes);
                acknowledged()
            })
            .await
        }
        "Delete" => {
            unary(request, move |_: Anything, bytes| {
                add(&shared.deletes, 1);
                add(&shared.bytes, bytes);
                acknowledged()
            })
            .await
        }
        "Connect" => unary(request, move |_: Anything, _| acknowledged()).await,
        "GetVersion" => {
            let version = "v2.6.0-discard".to_owned();
            unary(request, move |_: Anything, _| {
                Ok(wire::GetVersionResponse { status: ok(), version: version.clone() })
            })
            .await
        }
        "CreateCollection" => {
            unary(request, move |message: wire::CreateCollectionRequest, _| {
                let schema = wire::CollectionSchema::decode(message.schema)
                    .map_err(|error| Status::invalid_argument(error.to_string()))?;
                let description = wire::DescribeCollectionResponse {
                    status: ok(),
                    schema: Some(schema),
                    shards_num: message.shards_num,
                    consistency_level: message.consistency_level,
                    ..Default::default()
                };
                lock(&shared.schemas).insert(message.collection_name, description);
                Ok(wire::Status::default())
            })
            .await
        }
        "DescribeCollection" => {
            unary(request, move |message: wire::CollectionRequest, _| {
                let found = lock(&shared.schemas).get(&message.collection_name).cloned();
                Ok(found.unwrap_or_else(|| wire::DescribeCollectionResponse {
                    status: Some(wire::Status {
                        code: 100,
                        reason: "collection not found".into(),
                        ..Default::default()
                    }),
                    ..Default::default()
                }))
            })
            .await
        }
        "DropCollection" => {
            unary(request, move |message: wire::CollectionRequest, _| {
                lock(&shared.schemas).remove(&message.collection_name);
                Ok(wire::Status::default())
            })
            .await
        }
        "CreateIndex" | "LoadCollection" => unary(request, |_: Anything, _| Ok(wire::Status::default())).await,
        "DescribeIndex" => {
            let none = move || wire::DescribeIndexResponse { status: ok(), index_descriptions: Vec::new() };
            unary(request, move |_: Anything, _| Ok(none())).await
        }
        "GetLoadState" => {
            const LOADED: i32 = 3;
            unary(request, move |_: Anything, _| Ok(wire::GetLoadStateResponse { status: ok(), state: LOADED })).await
        }
        "Query" => {
            unary(request, move |message: wire::QueryRequest, _| {
                let mut results = wire::QueryResults { status: ok(), fields_data: Vec::new() };
                if message.output_fields == ["count(*)"] {
                    let zero =
                        wire::ScalarField { long_data: Some(wire::LongArray { data: vec![0] }), ..Default::default() };
                    results.fields_data.push(wire::FieldData { scalars: Some(zero), ..Default::default() });
                }
                Ok(results)
            })
            .await
        }
        _ => unary(request, |_: Anything, _| Err::<wire::Status, _>(Status::unimplemented("discarded"))).await,
    }
}

/// REST v2: the same, with schemas as they were given.
async fn rest(shared: &Shared, route: &str, request: Request) -> Response {
    let body = axum::body::to_bytes(request.into_body(), usize::MAX).await.unwrap_or_default();
    let asked = || serde_json::from_slice::<Value>(&body).unwrap_or_default();
    let name = |asked: &Value| asked["collectionName"].as_str().unwrap_or_default().to_owned();
    let data = match route {
        "entities/upsert" => {
            let rows = memchr::memmem::find_iter(&body, b"{\"id\":").count();
            shared.upserted(rows as u32, body.len() as u64);
            json!({"upsertCount": rows})
        }
        "entities/delete" => {
            shared.deletes.fetch_add(1, Ordering::Relaxed);
            shared.bytes.fetch_add(body.len() as u64, Ordering::Relaxed);
            json!({})
        }
        "collections/create" => {
            let asked = asked();
            lock(&shared.rest_schemas).insert(name(&asked), asked["schema"]["fields"].clone());
            json!({})
        }
        "collections/describe" => match lock(&shared.rest_schemas).get(&name(&asked())) {
            Some(fields) => json!({"collectionName": name(&asked()), "shardsNum": 1, "fields": described(fields)}),
            None => return json_response(&json!({"code": 100, "message": "collection not found"})),
        },
        "collections/drop" => {
            lock(&shared.rest_schemas).remove(&name(&asked()));
            json!({})
        }
        "collections/get_load_state" => json!({"loadState": "LoadStateLoaded"}),
        "entities/query" if asked()["outputFields"] == json!(["count(*)"]) => json!([{"count(*)": 0}]),
        "entities/query" | "indexes/list" | "collections/list" => json!([]),
        _ if &body[..] == b"{}" => {
            return json_response(&json!({"code": 1802, "message": "missing required parameters"}));
        }
        _ => json!({}),
    };
    json_response(&json!({"code": 0, "data": data}))
}

fn json_response(body: &Value) -> Response {
    Response::new(Body::from(body.to_string()))
}

/// Fields as a describe gives them, of fields as a create takes them.
fn described(fields: &Value) -> Value {
    let field = |field: &Value| {
        let params = field["elementTypeParams"].as_object().into_iter().flatten();
        json!({
            "name": field["fieldName"], "type": field["dataType"], "elementType": field["elementDataType"].as_str().unwrap_or(""),
            "primaryKey": field["isPrimary"].as_bool().unwrap_or(false), "nullable": field["nullable"].as_bool().unwrap_or(false),
            "params": params.map(|(key, value)| json!({"key": key, "value": value.to_string()})).collect::<Vec<_>>(),
        })
    };
    Value::Array(fields.as_array().into_iter().flatten().map(field).collect())
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Everything is answered at once.
async fn unary<Asked, Answered>(
    request: Request,
    mut handle: impl FnMut(Asked, u64) -> Result<Answered, Status> + Send + 'static,
) -> Response
where
    Asked: Message + Default + 'static,
    Answered: Message + Default + 'static,
{
    unary::unary(request, move |message, bytes| ready(handle(message, bytes))).await
}
