//! A scripted Milvus: REST v2 and gRPC over one store on one port, in any version, with faults and quotas on demand.
//!
//! It is for what no installable server does: REST v2, newer versions than 2.3.5, and faults that a server cannot be told to
//! produce. That it behaves like a Milvus is not our word alone: it keeps the same contract as the real ones
//! (`milvus_contract`), its REST takes only bodies that the published specification knows (`spec`), and the vendor's own
//! clients drive it (`vendor_clients`).
//!
//! store   what it holds, and the rules          expr    the filter language
//! rest    REST v2, with its silent conversions  grpc    the RPCs
//! spec    the bodies that REST v2 knows         faults  rules: when, and what goes wrong

pub mod expr;
pub mod faults;
mod grpc;
mod rest;
pub mod spec;
pub mod store;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{Request, State};
use axum::response::Response;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use walvec::servers::TlsPem;

use faults::{Fault, Faults, When};
use store::{Datum, Key, Mutation, Refusal, Store};

/// What the servers of a line do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// gRPC only: it has REST v1, and answers 404 to v2.
    V2_3,
    V2_4,
    V2_5,
    V2_6,
    /// Zilliz Cloud's gateway before a 2.6: its own 404, and no truncate.
    Zilliz,
}

impl Version {
    pub fn name(self) -> &'static str {
        match self {
            Version::V2_3 => "v2.3.22",
            Version::V2_4 => "v2.4.23",
            Version::V2_5 => "v2.5.24",
            Version::V2_6 => "v2.6.20",
            Version::Zilliz => "v2.6.17",
        }
    }

    pub fn has_truncate(self) -> bool {
        self == Version::V2_6
    }

    pub fn has_add_field(self) -> bool {
        self >= Version::V2_6
    }
}

/// Kinds of requests, the same for both fronts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    Describe,
    Create,
    Drop,
    Truncate,
    AddField,
    Index,
    Load,
    Alias,
    Upsert,
    Delete,
    Query,
    Other,
}

/// How a request ends badly.
#[derive(Clone, Debug, PartialEq)]
pub enum Failure {
    Refused(Refusal),
    /// No answer, ever.
    Hang,
    /// The connection (over HTTP/2 the stream) breaks.
    Reset,
    /// Something between us and the client answers.
    Gateway {
        status: u16,
        retry_after: Option<u64>,
    },
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Failure {
        Failure::Refused(refusal)
    }
}

pub struct Options {
    pub version: Version,
    /// Ask for this token: an API key or `user:password`.
    pub token: Option<String>,
    /// Serve TLS; with `client_ca`, clients must show a certificate.
    pub tls: Option<TlsPem>,
}

impl Default for Options {
    fn default() -> Options {
        Options { version: Version::V2_6, token: None, tls: None }
    }
}

/// A running server; it ends with this value.
pub struct Scripted {
    address: SocketAddr,
    tls: bool,
    shared: Arc<Shared>,
    serve: JoinHandle<()>,
}

pub(crate) struct Shared {
    version: Version,
    /// Any of them is taken; with none, nothing is asked for.
    tokens: Mutex<Vec<String>>,
    store: Mutex<Store>,
    faults: Mutex<Faults>,
    quota: Mutex<Quota>,
    /// Writes that an answer gave up, to be applied when the test says so.
    late: Mutex<Vec<(Instant, Mutation)>>,
    calls: Mutex<HashMap<Operation, u64>>,
    /// Bodies over REST that the specification does not know.
    violations: Mutex<Vec<String>>,
}

impl Shared {
    /// Is no token asked for, or is what the request shows made of one by `form`?
    pub(crate) fn lets_in(&self, shown: &str, form: impl Fn(&str) -> String) -> bool {
        let tokens = self.tokens.lock().expect("not poisoned");
        tokens.is_empty() || tokens.iter().any(|token| form(token) == shown)
    }
}

impl Scripted {
    /// Take these tokens from now on, and no others.
    pub fn tokens(&self, tokens: &[&str]) {
        *self.shared.tokens.lock().expect("not poisoned") = tokens.iter().map(|&token| token.to_owned()).collect();
    }

    pub async fn start(options: Options) -> Scripted {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let shared = Arc::new(Shared {
            version: options.version,
            tokens: Mutex::new(options.token.into_iter().collect()),
            store: Mutex::new(Store::new(options.version)),
            faults: Mutex::default(),
            quota: Mutex::default(),
            late: Mutex::default(),
            calls: Mutex::default(),
            violations: Mutex::default(),
        });
        let router = Router::new().fallback(answer).with_state(Arc::clone(&shared));
        let tls = options.tls.is_some();
        let serve = match options.tls {
            None => tokio::spawn(async move { drop(axum::serve(listener, router).await) }),
            Some(pem) => {
                let listener = TlsListener { listener, acceptor: acceptor(&pem) };
                tokio::spawn(async move { drop(axum::serve(listener, router).await) })
            }
        };
        Scripted { address, tls, shared, serve }
    }

    pub fn url(&self) -> String {
        match self.tls {
            false => format!("http://{}", self.address),
            true => format!("https://localhost:{}", self.address.port()),
        }
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// From now on, when this happens that goes wrong. The first rule that matches counts.
    pub fn fail(&self, operation: Operation, when: When, fault: Fault) {
        lock(&self.shared.faults).add(operation, when, fault);
    }

    /// No faults any more.
    pub fn heal(&self) {
        *lock(&self.shared.faults) = Faults::default();
    }

    /// Apply the writes that were answered with a timeout, in the order in which they came. Those that came longer than `within`
    /// ago are let go, as a server does whose deadline is over.
    pub fn release_late(&self, within: Duration) {
        let late = std::mem::take(&mut *lock(&self.shared.late));
        let mut store = lock(&self.shared.store);
        for (_, mutation) in late.iter().filter(|(came, _)| came.elapsed() < within) {
            store.apply(mutation, None);
        }
    }

    /// Bytes of entities per second that upserts may bring, and of keys that deletes may.
    pub fn limit(&self, upsert: Option<f64>, delete: Option<f64>) {
        *lock(&self.shared.quota) =
            Quota { upsert: upsert.map(Bucket::full), delete: delete.map(Bucket::full), ..Quota::default() };
    }

    /// Writes that were let through and that were refused since `limit`, and the bytes of the former.
    pub fn usage(&self) -> Usage {
        lock(&self.shared.quota).usage
    }

    /// Requests of the kind that have come.
    pub fn calls(&self, operation: Operation) -> u64 {
        lock(&self.shared.calls).get(&operation).copied().unwrap_or(0)
    }

    /// Say of every index that so many rows are in it, or that it is finished.
    pub fn builds_indexes(&self, built: Option<u64>) {
        let mut store = lock(&self.shared.store);
        let indexes = store.collections.values_mut().flat_map(|collection| &mut collection.indexes);
        indexes.for_each(|index| index.built = built);
    }

    /// Bodies that REST's specification does not know, with what is wrong with each.
    pub fn violations(&self) -> Vec<String> {
        lock(&self.shared.violations).clone()
    }

    /// Look at or change what it holds.
    pub fn with_store<T>(&self, look: impl FnOnce(&mut Store) -> T) -> T {
        look(&mut lock(&self.shared.store))
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.serve.abort();
    }
}

impl Shared {
    /// A request that changes nothing or is no write: count it, and let a rule have its way first.
    async fn admit(&self, operation: Operation) -> Result<(), Failure> {
        match self.fault(operation, &[]) {
            None => Ok(()),
            Some(Fault::Slow(pause)) => {
                tokio::time::sleep(pause).await;
                Ok(())
            }
            Some(fault) => Err(fault.failure()),
        }
    }

    fn fault(&self, operation: Operation, keys: &[Key]) -> Option<Fault> {
        *lock(&self.calls).entry(operation).or_default() += 1;
        lock(&self.faults).strike(operation, keys)
    }

    /// A write that was judged: count it, charge it, and apply as much of it as the rules leave.
    async fn write(
        &self,
        operation: Operation,
        mutation: Result<Mutation, Refusal>,
        bytes: usize,
    ) -> Result<usize, Failure> {
        let keys: Vec<Key> = match &mutation {
            Ok(Mutation::Upsert { entities, .. }) => entities.iter().map(|(key, _)| key.clone()).collect(),
            Ok(Mutation::Delete { keys, .. }) => keys.clone(),
            Err(_) => Vec::new(),
        };
        let fault = self.fault(operation, &keys);
        if let Some(Fault::Refuse(..) | Fault::Gateway { .. } | Fault::ResetBefore) = fault {
            return Err(fault.expect("just matched").failure());
        }
        lock(&self.quota).charge(operation, bytes)?;
        let mutation = mutation?;
        match fault {
            Some(Fault::Late) => {
                lock(&self.late).push((Instant::now(), mutation));
                return Err(Fault::Late.failure());
            }
            Some(Fault::Slow(pause)) => tokio::time::sleep(pause).await,
            _ => {}
        }
        let shard = matches!(fault, Some(Fault::Half(..))).then_some(0);
        lock(&self.store).apply(&mutation, shard);
        match fault {
            None | Some(Fault::Slow(_)) => Ok(keys.len()),
            Some(fault) => Err(fault.failure()),
        }
    }
}

/// What went through a quota.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    pub granted: u64,
    pub refused: u64,
    pub upsert_bytes: u64,
    pub delete_bytes: u64,
}

#[derive(Default)]
struct Quota {
    upsert: Option<Bucket>,
    delete: Option<Bucket>,
    usage: Usage,
}

/// Milvus's own limiter (`pkg/util/ratelimitutil`): it holds one second's worth, lets a request through while anything is in it, and
/// may go into debt by that request.
struct Bucket {
    rate: f64,
    tokens: f64,
    at: Instant,
}

impl Bucket {
    fn full(rate: f64) -> Bucket {
        Bucket { rate, tokens: rate, at: Instant::now() }
    }

    fn take(&mut self, bytes: usize) -> bool {
        let now = Instant::now();
        self.tokens = (self.tokens + self.rate * (now - self.at).as_secs_f64()).min(self.rate);
        self.at = now;
        let granted = self.tokens > 0.0;
        if granted {
            self.tokens -= bytes as f64;
        }
        granted
    }
}

impl Quota {
    fn charge(&mut self, operation: Operation, bytes: usize) -> Result<(), Refusal> {
        let (bucket, used) = match operation {
            Operation::Delete => (&mut self.delete, &mut self.usage.delete_bytes),
            _ => (&mut self.upsert, &mut self.usage.upsert_bytes),
        };
        if let Some(bucket) = bucket
            && !bucket.take(bytes)
        {
            self.usage.refused += 1;
            return store::refuse(
                8,
                format!(
                    "request is rejected by grpc RateLimiter middleware, please retry later: rate limit exceeded[rate={}]",
                    bucket.rate
                ),
            );
        }
        self.usage.granted += 1;
        *used += bytes as u64;
        Ok(())
    }
}

/// Bytes of values as the limiter counts them: the columns of the message, whatever came over the wire.
fn counted(values: &[Datum]) -> usize {
    values
        .iter()
        .map(|value| match value {
            Datum::Null | Datum::Bool(_) => 1,
            Datum::Int(_) | Datum::Double(_) => 8,
            Datum::Float(_) => 4,
            Datum::Text(text) | Datum::Json(text) => text.len(),
            Datum::Array(elements) => counted(elements),
            Datum::Vector(floats) => floats.len() * 4,
            Datum::Packed(bytes) => bytes.len(),
            Datum::Sparse(elements) => elements.len() * 8,
        })
        .sum()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn answer(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    match request.uri().path().to_owned() {
        path if path.starts_with("/milvus.proto.milvus.MilvusService/") => grpc::answer(shared, request).await,
        path => rest::answer(shared, &path, request).await,
    }
}

fn acceptor(pem: &TlsPem) -> TlsAcceptor {
    let chain = |pem: &str| -> Vec<CertificateDer<'static>> {
        CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<_, _>>().expect("certificates")
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .expect("ring has them");
    let builder = match &pem.client_ca {
        None => builder.with_no_client_auth(),
        Some(ca) => {
            let mut roots = rustls::RootCertStore::empty();
            chain(ca).into_iter().for_each(|root| roots.add(root).expect("a root"));
            let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            builder.with_client_cert_verifier(verifier.build().expect("a verifier"))
        }
    };
    let key = PrivateKeyDer::from_pem_slice(pem.key.as_bytes()).expect("a key");
    let mut config = builder.with_single_cert(chain(&pem.certificate), key).expect("certificate and key fit");
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    TlsAcceptor::from(Arc::new(config))
}

struct TlsListener {
    listener: TcpListener,
    acceptor: TlsAcceptor,
}

impl axum::serve::Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            // A client that fails the handshake is its own affair.
            let Ok((stream, address)) = self.listener.accept().await else { continue };
            if let Ok(stream) = self.acceptor.accept(stream).await {
                return (stream, address);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}
