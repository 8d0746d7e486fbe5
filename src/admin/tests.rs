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
    letters: Arc<Letters>,
    commands: tokio::sync::mpsc::Receiver<crate::commands::Command>,
    token: Token,
    stop: tokio::sync::oneshot::Sender<()>,
    served: tokio::task::JoinHandle<Result<(), AdminError>>,
}

async fn start(status: Status) -> Server {
    let admin = bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.expect("binds");
    let address = admin.address();
    let (sender, receiver) = watch::channel(status);
    let (stop, stopped) = tokio::sync::oneshot::channel();
    let metrics = Arc::new(Metrics::new().expect("valid"));
    let state = tempfile::tempdir().expect("temporary directory");
    let token = Token::of_state(state.path()).expect("makes a token");
    let (asking, commands) = Commands::channel();
    let letters = Arc::new(Letters::default());
    let served = tokio::spawn(
        admin.serve(receiver, metrics, Arc::clone(&letters), (asking, token.clone()), async { drop(stopped.await) }),
    );
    Server { address, status: sender, letters, commands, token, stop, served }
}

impl Server {
    async fn get(&self, path: &str) -> (u16, String) {
        self.ask(&format!("GET {path} HTTP/1.1\r\n"), "").await
    }

    async fn post(&self, path: &str, head: &str, body: &str) -> (u16, String) {
        let length = body.len();
        let head =
            format!("POST {path} HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n{head}");
        self.ask(&head, body).await
    }

    async fn ask(&self, head: &str, body: &str) -> (u16, String) {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let mut stream = tokio::net::TcpStream::connect(self.address).await.expect("connects");
        let request = format!("{head}Host: localhost\r\nConnection: close\r\n\r\n{body}");
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

#[tokio::test]
async fn wishes_need_the_token_and_are_carried_out_by_the_session() {
    use crate::commands::{Taken, Which, Wish};
    use crate::letters::{Letter, Origin};
    use crate::mutation::Key;

    let mut server = start(following()).await;
    let letter = Letter {
        field: Some("title".into()),
        reason: "too long".into(),
        lsn: "0/10".into(),
        origin: Origin::Stream,
        unix_seconds: 7,
        attempts: 1,
        payload: Vec::new(),
    };
    server.letters.keep("public.docs", Key::Text("a b".into()), letter.clone());
    server.letters.keep("public.docs", Key::Text("c".into()), letter);
    let (code, body) = server.get("/dead-letters?table=public.docs&key=a%20b").await;
    let listed: serde_json::Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!((code, listed.as_array().map(Vec::len)), (200, Some(1)));
    assert_eq!((&listed[0]["key"], &listed[0]["field"]), (&"a b".into(), &"title".into()));

    for head in ["", "Authorization: Bearer \r\n", "Authorization: Basic eDp5\r\n"] {
        let (code, body) = server.post("/dead-letters/retry", head, "{}").await;
        assert_eq!(code, 401, "{body}");
    }
    assert!(server.commands.try_recv().is_err(), "without the token nothing is asked for");
    let head = format!("Authorization: Bearer {}\r\n", server.token.expose());
    let (code, _) = server.post("/dead-letters/discard", &head, "{\"tabel\": \"x\"}").await;
    assert_eq!(code, 422, "a slip must not mean everything");

    let (sender, mut commands) = tokio::sync::mpsc::channel(1);
    drop(sender);
    std::mem::swap(&mut commands, &mut server.commands);
    let session = tokio::spawn(async move {
        let command = commands.recv().await.expect("a command");
        command.answer.send(Taken { matched: 1, taken: 1 }).expect("somebody waits");
        (command.wish, command.which)
    });
    let (code, body) = server.post("/dead-letters/retry", &head, "{\"table\": \"public.docs\"}").await;
    assert_eq!((code, body.trim_end()), (202, "{\"matched\":1,\"taken\":1}"));
    let which = Which { table: Some("public.docs".into()), key: None };
    assert_eq!(session.await.expect("no panic"), (Wish::Retry, which));
    let (code, body) = server.post("/dead-letters/retry", &head, "{}").await;
    assert_eq!(code, 503, "the session is over: {body}");
}
