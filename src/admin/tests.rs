//! The server over real HTTP.

use super::*;

fn following() -> Status {
    let table = TableStatus { name: "public.<docs>".into(), phase: Phase::Following, ..TableStatus::default() };
    Status {
        state: State::Following,
        tables: vec![table],
        ..Status::starting("walvec", "walvec", "http://localhost:19530")
    }
}

struct Server {
    address: SocketAddr,
    status: watch::Sender<Status>,
    stop: tokio::sync::oneshot::Sender<()>,
    served: tokio::task::JoinHandle<Result<(), AdminError>>,
}

async fn start(status: Status) -> Server {
    let admin = bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.expect("binds");
    let address = admin.address();
    let (sender, receiver) = watch::channel(status);
    let (stop, stopped) = tokio::sync::oneshot::channel();
    let metrics = Arc::new(Metrics::new().expect("valid"));
    let served = tokio::spawn(admin.serve(receiver, metrics, async { drop(stopped.await) }));
    Server { address, status: sender, stop, served }
}

impl Server {
    async fn get(&self, path: &str) -> (u16, String) {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let mut stream = tokio::net::TcpStream::connect(self.address).await.expect("connects");
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("writes");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("reads");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
        (head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status code"), body.to_owned())
    }
}

#[tokio::test]
async fn every_path_answers() {
    let server = start(following()).await;
    assert_eq!(server.get("/livez").await, (200, "alive\n".into()));
    assert_eq!(server.get("/readyz").await, (200, "ready\n".into()));
    let (code, metrics) = server.get("/metrics").await;
    assert_eq!(code, 200);
    assert!(metrics.contains("\nwalvec_lag_seconds 0\n"), "{metrics}");
    let (code, json) = server.get("/status").await;
    let status: Status = serde_json::from_str(&json).expect("JSON");
    assert_eq!((code, status.tables), (200, following().tables));
    assert_eq!((status.source.lag_bytes, status.source.lag_seconds), (Some(0), Some(0.0)));
    let value: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(value["state"], "following");
    let (code, page) = server.get("/").await;
    assert_eq!(code, 200);
    assert!(page.contains("public.&lt;docs&gt;") && !page.contains("<docs>"), "{page}");
    assert_eq!(server.get("/nothing").await.0, 404);
    server.stop.send(()).expect("is serving");
    server.served.await.expect("no panic").expect("ends well");
}

#[tokio::test]
async fn ready_means_that_every_table_follows_now() {
    let server = start(Status::starting("s", "p", "u")).await;
    assert_eq!(server.get("/readyz").await, (503, "not ready: starting: no table is known yet\n".into()));
    let mut status = following();
    status.tables.push(TableStatus { name: "public.b".into(), phase: Phase::CatchingUp, ..TableStatus::default() });
    server.status.send_replace(status.clone());
    assert_eq!(server.get("/readyz").await, (503, "not ready: table public.b is catching up\n".into()));
    status.tables[1].phase = Phase::Stopped;
    server.status.send_replace(status.clone());
    assert_eq!(server.get("/readyz").await.0, 503);
    status.tables[1].phase = Phase::Following;
    server.status.send_replace(status.clone());
    assert_eq!(server.get("/readyz").await.0, 200);
    status.state = State::Connecting;
    server.status.send_replace(status);
    assert_eq!(server.get("/readyz").await, (503, "not ready: connecting\n".into()));
}

#[tokio::test]
async fn a_taken_address_is_an_error_with_its_way_out() {
    let server = start(Status::default()).await;
    let error = bind(server.address).await.expect_err("taken");
    assert!(error.to_string().contains("admin.listen gives another address"), "{error}");
}

#[test]
fn sizes_are_for_people() {
    for (bytes, shown) in [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (5 << 30, "5.0 GiB"), (3 << 40, "3.0 TiB")]
    {
        assert_eq!(page::bytes_for_people(bytes), shown);
    }
}
