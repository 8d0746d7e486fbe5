//! The launcher against the real servers.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use walvec::servers::{
    Milvus23, Milvus23Options, MilvusLite, MilvusLiteOptions, Postgres, PostgresOptions, Stop, TlsPem,
};

use crate::support::postgres::{Database, shared};
use crate::support::proxy::{Direction, Proxy};
use crate::support::wait::until;
use crate::support::{milvus, unique};

/// Whether a plain gRPC server sends its SETTINGS within a second.
async fn grpc_answers(port: u16) -> bool {
    let ask = async {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00").await?;
        stream.read_u8().await
    };
    matches!(tokio::time::timeout(Duration::from_secs(1), ask).await, Ok(Ok(_)))
}

fn exists(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}/stat")).exists()
}

async fn check_postgres(major: u16) {
    let database = Database::create(major).await;
    let version: String = database.client.query_one("show server_version", &[]).await.expect("answers").get(0);
    assert!(version.starts_with(&format!("{major}.")), "{version}");
    let client = &database.client;
    client.batch_execute("create extension hstore; create extension citext").await.expect("contrib is there");
    let distance: f64 =
        client.query_one("select '[3,4]'::vector <-> '[0,0]'::vector", &[]).await.expect("pgvector works").get(0);
    assert_eq!(distance, 5.0);
    let slot = unique("slot");
    let made = format!("select pg_create_logical_replication_slot('{slot}', 'pgoutput')::text");
    client.query_one(&made, &[]).await.expect("logical decoding is on");
}

#[tokio::test]
async fn postgresql_18_has_pgvector_contrib_and_logical_decoding() {
    check_postgres(18).await;
}

#[tokio::test]
async fn postgresql_16_has_pgvector_contrib_and_logical_decoding() {
    check_postgres(16).await;
}

#[tokio::test]
async fn postgresql_asks_for_its_password() {
    let server = shared(18).await;
    let wrong = server.url("postgres").replace(server.password(), "wrong");
    let error = tokio_postgres::connect(&wrong, tokio_postgres::NoTls).await.err().expect("refused");
    assert_eq!(error.code().map(|code| code.code()), Some("28P01"), "{error}");
}

#[tokio::test]
async fn postgresql_comes_back_with_its_rows_after_kill_and_every_stop() {
    let mut server = Postgres::start(PostgresOptions::default()).await.expect("starts");
    let client = server.connect("postgres").await.expect("connected");
    client.batch_execute("create table t (id int); insert into t values (1)").await.expect("written");
    for round in 0..3 {
        match round {
            0 => server.kill().await.expect("killed"),
            1 => server.stop(Stop::Immediate).await.expect("stopped"),
            _ => server.stop(Stop::Fast).await.expect("stopped"),
        }
        assert!(!server.running());
        assert!(server.connect("postgres").await.is_err());
        server.restart().await.expect("starts again");
        let client = server.connect("postgres").await.expect("connected");
        let rows: i64 = client.query_one("select count(*) from t", &[]).await.expect("read").get(0);
        assert_eq!(rows, 1, "round {round}");
    }
}

#[tokio::test]
async fn postgresql_takes_settings_hba_lines_and_tls() {
    let certified = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate");
    let tls = TlsPem { certificate: certified.cert.pem(), key: certified.signing_key.serialize_pem(), client_ca: None };
    let server = Postgres::start(PostgresOptions {
        tls: Some(tls),
        settings: vec![("log_line_prefix".to_owned(), "it's %p ".to_owned())],
        hba: vec!["hostnossl all unencrypted 127.0.0.1/32 reject".to_owned()],
        ..PostgresOptions::default()
    })
    .await
    .expect("starts");
    let client = server.connect("postgres").await.expect("connected");
    let shown: String = client.query_one("show log_line_prefix", &[]).await.expect("read").get(0);
    assert_eq!(shown, "it's %p ");
    client.batch_execute("create extension vector; create role unencrypted login password 'x'").await.expect("made");
    let url = format!("postgresql://unencrypted:x@127.0.0.1:{}/postgres", server.port());
    let error = tokio_postgres::connect(&url, tokio_postgres::NoTls).await.err().expect("refused");
    assert_eq!(error.code().map(|code| code.code()), Some("28000"), "{error}");
    // SSLRequest (protocol 3.0, "SSL Session Encryption"): the server answers S when it speaks TLS.
    let mut stream = TcpStream::connect(("127.0.0.1", server.port())).await.expect("connected");
    stream.write_all(&[0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f]).await.expect("sent");
    assert_eq!(stream.read_u8().await.expect("answered"), b'S');
}

#[tokio::test]
async fn milvus_lite_can_be_killed_frozen_and_started_again() {
    let mut server = MilvusLite::start(MilvusLiteOptions::default()).await.expect("starts");
    let port = server.port();
    assert!(grpc_answers(port).await);
    server.pause().await.expect("paused");
    assert!(!grpc_answers(port).await);
    server.resume().expect("resumed");
    assert!(grpc_answers(port).await);
    server.kill().await.expect("killed");
    assert!(!server.running());
    assert!(!grpc_answers(port).await);
    server.restart().await.expect("starts again");
    assert_eq!(server.port(), port);
    assert!(grpc_answers(port).await);
    server.stop().await.expect("stops");
    let directory = server.directory().to_owned();
    assert!(directory.exists());
    drop(server);
    assert!(!directory.exists());
}

#[cfg(target_arch = "x86_64")]
#[tokio::test]
async fn milvus_23_can_be_killed_frozen_and_started_again() {
    let mut server = Milvus23::start(Milvus23Options::default()).await.expect("starts");
    let port = server.port();
    assert!(grpc_answers(port).await);
    server.pause().await.expect("paused");
    assert!(!grpc_answers(port).await);
    server.resume().expect("resumed");
    assert!(grpc_answers(port).await);
    server.kill().await.expect("killed");
    assert!(!server.running());
    server.restart().await.expect("starts again");
    assert!(grpc_answers(port).await);
    let (directory, pid) = (server.directory().to_owned(), server.pid());
    drop(server);
    assert!(!directory.exists());
    assert!(!exists(pid));
}

#[cfg(target_arch = "x86_64")]
#[tokio::test]
async fn milvus_23_serves_tls_and_can_ask_for_a_login() {
    let certified = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate");
    let tls = TlsPem { certificate: certified.cert.pem(), key: certified.signing_key.serialize_pem(), client_ca: None };
    let server = Milvus23::start(Milvus23Options { tls: Some(tls), authorization: true, ..Milvus23Options::default() })
        .await
        .expect("starts");
    assert_eq!(server.url(), format!("https://localhost:{}", server.port()));
    assert!(!grpc_answers(server.port()).await, "plain text is refused");

    let mut roots = rustls::RootCertStore::empty();
    roots.add(certified.cert.der().clone()).expect("a root");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring has them")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let stream = TcpStream::connect(("127.0.0.1", server.port())).await.expect("connected");
    let name = "localhost".try_into().expect("a name");
    let stream = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await.expect("verified");
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(b"h2".as_slice()));

    let written = std::fs::read_to_string(server.directory().join("configs/milvus.yaml")).expect("written");
    assert!(written.contains("    authorizationEnabled: true\n"));
}

#[tokio::test]
async fn shared_servers_are_the_same_for_all_tests() {
    assert_eq!(milvus::lite().await.pid(), milvus::lite().await.pid());
    assert_eq!(shared(18).await.pid(), shared(18).await.pid());
    #[cfg(target_arch = "x86_64")]
    assert!(grpc_answers(milvus::milvus23().await.port()).await);
}

/// Not a test of its own: the process that the next test kills. It starts servers, says where they are, and waits.
#[tokio::test]
#[ignore = "run by servers_end_when_their_owner_is_killed"]
async fn owner_to_be_killed() {
    let postgres = Postgres::start(PostgresOptions::default()).await.expect("starts");
    let lite = MilvusLite::start(MilvusLiteOptions::default()).await.expect("starts");
    for (pid, directory) in [(postgres.pid(), postgres.directory()), (lite.pid(), lite.directory())] {
        println!("owned {pid} {}", directory.display());
    }
    println!("owned all");
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn servers_end_when_their_owner_is_killed() {
    use std::io::{BufRead, BufReader};
    let mut owner = Command::new(std::env::current_exe().expect("this binary"))
        .args(["--exact", "servers::owner_to_be_killed", "--ignored", "--nocapture"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("this binary runs");
    let lines = BufReader::new(owner.stdout.take().expect("piped")).lines();
    let mut owned = Vec::new();
    for line in lines {
        let line = line.expect("text");
        match line.split_once("owned ").map(|(_, rest)| rest) {
            Some("all") => break,
            Some(rest) => {
                owned.push(rest.split_once(' ').map(|(p, d)| (p.to_owned(), d.to_owned())).expect("two words"))
            }
            None => {}
        }
    }
    assert_eq!(owned.len(), 2);
    for (pid, directory) in &owned {
        assert!(exists(pid.parse().expect("a number")) && Path::new(directory).exists());
    }
    owner.kill().expect("killed"); // SIGKILL: nothing of it runs any more
    owner.wait().expect("ended");
    for (pid, directory) in &owned {
        let pid = pid.parse().expect("a number");
        until("an orphan ends", Duration::from_secs(20), async || (!exists(pid)).then_some(())).await;
        until("its directory goes", Duration::from_secs(20), async || (!Path::new(directory).exists()).then_some(()))
            .await;
    }
}

/// An echo server and a proxied connection to it.
async fn echo() -> (Proxy, TcpStream) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("bound");
    let port = listener.local_addr().expect("bound").port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut read, mut write) = stream.split();
                drop(tokio::io::copy(&mut read, &mut write).await);
            });
        }
    });
    let proxy = Proxy::start(port).await;
    let stream = TcpStream::connect(("127.0.0.1", proxy.port())).await.expect("connected");
    (proxy, stream)
}

async fn echoed(stream: &mut TcpStream, text: &[u8]) -> std::io::Result<Vec<u8>> {
    stream.write_all(text).await?;
    let mut answer = vec![0; text.len()];
    stream.read_exact(&mut answer).await?;
    Ok(answer)
}

#[tokio::test]
async fn a_line_can_be_cut_stalled_slowed_and_refused() {
    let (proxy, mut stream) = echo().await;
    assert_eq!(echoed(&mut stream, b"hello").await.expect("works"), b"hello");
    assert_eq!((proxy.counts().to_server, proxy.counts().to_client), (5, 5));

    proxy.stall();
    let stalled = tokio::time::timeout(Duration::from_millis(200), echoed(&mut stream, b"stall")).await;
    assert!(stalled.is_err());
    proxy.heal();
    let mut answer = [0; 5];
    stream.read_exact(&mut answer).await.expect("goes on");
    assert_eq!(&answer, b"stall");

    proxy.latency(Duration::from_millis(50));
    let before = std::time::Instant::now();
    echoed(&mut stream, b"slow").await.expect("works");
    assert!(before.elapsed() >= Duration::from_millis(100));
    proxy.heal();

    proxy.cut();
    let error = echoed(&mut stream, b"cut").await.expect_err("reset");
    assert!(matches!(error.kind(), std::io::ErrorKind::ConnectionReset | std::io::ErrorKind::BrokenPipe), "{error}");

    let connect = async || TcpStream::connect(("127.0.0.1", proxy.port())).await;
    let mut stream = connect().await.expect("connected");
    echoed(&mut stream, b"again").await.expect("works");
    proxy.cut_after(Direction::ToClient, 3);
    stream.write_all(b"answer").await.expect("sent");
    let mut answer = Vec::new();
    let error = stream.read_to_end(&mut answer).await.expect_err("reset");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    assert!(answer.len() <= 3);

    proxy.refuse();
    let refused = async { echoed(&mut connect().await?, b"x").await }.await;
    assert!(refused.is_err());
    until("the refusal is counted", Duration::from_secs(5), async || (proxy.counts().refused == 1).then_some(())).await;
    proxy.heal();
    let mut stream = connect().await.expect("connected");
    echoed(&mut stream, b"healed").await.expect("works");
}
