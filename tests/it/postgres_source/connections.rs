//! Sessions: TLS, sockets, and how they end.

use super::*;

#[tokio::test]
async fn a_silent_line_is_given_up_and_a_cut_one_is_transient() {
    let database = Database::create(major()).await;
    let mut settings = source(&database);
    settings.wal_sender_timeout = Duration::from_secs(2);
    let proxy = Proxy::start(settings.port).await;
    settings.port = proxy.port();
    database.client.batch_execute("create table docs (id int8 primary key)").await.expect("created");
    let docs = tables(&settings, &["docs"]).await;
    let (mut stream, start) = first_stream(&settings, &docs).await;

    // An idle but healthy line is heard of at least every second, so it outlives the timeout twice.
    let healthy = async {
        loop {
            stream.next_batch(&mut Vec::new(), 1 << 20).await.expect("an idle line is healthy");
        }
    };
    drop(tokio::time::timeout(settings.wal_sender_timeout * 2, healthy).await);

    proxy.stall();
    let silent = async {
        loop {
            if let Err(error) = stream.next_batch(&mut Vec::new(), 1 << 20).await {
                return error;
            }
        }
    };
    let error = tokio::time::timeout(PATIENCE, silent).await.expect("given up");
    assert!(matches!(error, PostgresError::StreamSilent { .. }), "{error:?}");
    assert_eq!(error.disposition(), Disposition::Transient);
    drop(stream);

    proxy.heal();
    let mut stream = streams_from(&settings, &docs, start).await;
    let connection = sql(&settings).await;
    proxy.cut();
    let cut = async {
        loop {
            if let Err(error) = stream.next_batch(&mut Vec::new(), 1 << 20).await {
                return error;
            }
        }
    };
    let error = tokio::time::timeout(PATIENCE, cut).await.expect("noticed");
    assert_eq!(error.disposition(), Disposition::Transient, "{error:?}");
    let error = read_facts(&connection).await.expect_err("the SQL session was cut as well");
    assert_eq!(error.disposition(), Disposition::Transient, "{error:?}");

    proxy.stall();
    settings.connect_timeout = Duration::from_millis(500);
    for error in [
        connect(&settings, "test").await.err().expect("stalled"),
        Session::open(&settings, Lsn::ZERO, StreamFormat::Binary).await.err().expect("stalled"),
    ] {
        assert!(matches!(error, PostgresError::ConnectTimeout { .. }), "{error:?}");
    }
}

/// The line acknowledges, and nobody is behind it: TCP sees nothing of that.
#[tokio::test]
async fn a_query_that_nobody_answers_is_given_up() {
    let database = Database::create(major()).await;
    database.client.batch_execute("create table docs (id int8 primary key)").await.expect("created");
    let oid: u32 = database.client.query_one("select 'docs'::regclass::oid", &[]).await.expect("read").get(0);
    let mut settings = source(&database);
    settings.wal_sender_timeout = Duration::from_millis(300);
    let proxy = Proxy::start(settings.port).await;
    settings.port = proxy.port();
    let connection = sql(&settings).await;
    // And the server looks whether we are there, so that nothing of ours waits on for a lock.
    let check = connection.query_one("show client_connection_check_interval", &[]).await.expect("shown");
    assert_eq!(check.get::<_, String>(0), "10s");
    let mut session = Session::open(&settings, Lsn::ZERO, StreamFormat::Binary).await.expect("open");
    let mut reader = walvec::postgres::copy::ChunkReader::connect(&settings).await.expect("connected");
    reader.begin(oid).await.expect("a snapshot");
    proxy.stall();
    let range = walvec::postgres::copy::Range { from_block: 0, to_block: None };
    let columns = ["id".into()];
    let (catalog, identity, rows) =
        tokio::join!(read_facts(&connection), session.identify(), reader.read_rows(&columns, None, range, usize::MAX));
    let errors = [catalog.map(drop).err(), identity.map(drop).err(), rows.map(drop).err()];
    for error in errors {
        let error = error.expect("nobody answers");
        assert!(matches!(error, PostgresError::QueryTimeout { .. }), "{error:?}");
        assert_eq!(error.disposition(), Disposition::Transient);
    }
    // What is under way on it must not meet another query.
    proxy.heal();
    assert!(read_facts(&connection).await.is_err(), "the connection is closed");
}

#[tokio::test]
async fn a_terminated_session_says_why() {
    for major in majors() {
        let database = Database::create(major).await;
        let connection = sql(&source(&database)).await;
        let pid = own_pid(&connection).await;
        database.client.execute("select pg_terminate_backend($1, 5000)", &[&pid]).await.expect("terminated");
        until("the session has heard it", PATIENCE, async || connection.is_closed().then_some(())).await;
        let error = read_facts(&connection).await.expect_err("terminated");
        assert_eq!((error.sqlstate(), error.disposition()), (Some("57P01"), Disposition::Transient), "{error:?}");
    }
}

#[tokio::test]
async fn a_server_that_shuts_down_is_let_go() {
    let mut server = Postgres::start(options()).await.expect("PostgreSQL starts");
    let settings = settings(&server, "postgres");
    let client = server.connect("postgres").await.expect("connected");
    client.batch_execute("create table docs (id int8 primary key)").await.expect("created");
    let docs = tables(&settings, &["docs"]).await;
    let (mut stream, _) = first_stream(&settings, &docs).await;
    client.execute("insert into docs values (1)", &[]).await.expect("written");
    commits(&mut stream, 1).await;
    // Nothing is confirmed, as when the target is down: the server would wait for us for ever.
    let reading = async {
        loop {
            if let Err(error) = stream.next_batch(&mut Vec::new(), 1 << 20).await {
                return error;
            }
        }
    };
    let (stopped, error) = tokio::time::timeout(PATIENCE, async { tokio::join!(server.stop(Stop::Fast), reading) })
        .await
        .expect("the shutdown ends");
    stopped.expect("stopped");
    assert!(matches!(error, PostgresError::ServerDraining), "{error:?}");

    server.restart().await.expect("up again");
    let mut stream = streams_from(&settings, &docs, Lsn::ZERO).await;
    assert_eq!(changes(&commits(&mut stream, 1).await).len(), 1, "what was not confirmed comes again");
}

/// An authority, and its root as PEM.
fn authority(name: &str) -> (rcgen::Issuer<'static, rcgen::KeyPair>, String) {
    let mut params = rcgen::CertificateParams::new(Vec::new()).expect("no names");
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    let key = rcgen::KeyPair::generate().expect("a key");
    let pem = params.self_signed(&key).expect("signed").pem();
    (rcgen::Issuer::new(params, key), pem)
}

/// Certificate and key as PEM.
fn signed(names: &[&str], issuer: &rcgen::Issuer<'_, rcgen::KeyPair>, expired: bool) -> (String, String) {
    let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
    let mut params = rcgen::CertificateParams::new(names).expect("names");
    if expired {
        (params.not_before, params.not_after) = (rcgen::date_time_ymd(2020, 1, 1), rcgen::date_time_ymd(2021, 1, 1));
    }
    let key = rcgen::KeyPair::generate().expect("a key");
    (params.signed_by(&key, issuer).expect("signed").pem(), key.serialize_pem())
}

/// An expired certificate is no certificate to who verifies; the older ways to send a password work, over TLS and without.
#[tokio::test]
async fn an_expired_certificate_is_refused_and_old_kinds_of_passwords_are_taken() {
    let (ours, root) = authority("ours");
    let (certificate, key) = signed(&["127.0.0.1"], &ours, true);
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("root.pem");
    std::fs::write(&path, root).expect("written");
    let server = Postgres::start(PostgresOptions {
        hba: [("as_md5", "md5"), ("as_password", "password"), ("as_scram", "scram-sha-256")]
            .map(|(role, method)| format!("host all {role} 127.0.0.1/32 {method}"))
            .to_vec(),
        tls: Some(TlsPem { certificate, key, client_ca: None }),
        ..options()
    })
    .await
    .expect("PostgreSQL with TLS starts");
    let admin = server.connect("postgres").await.expect("connected");
    let roles = "set password_encryption = 'md5'; create role as_md5 superuser login password 'se''cret é';
         set password_encryption = 'scram-sha-256'; create role as_password superuser login password 'se''cret é';
         create role as_scram superuser login password 'se''cret é'";
    admin.batch_execute(roles).await.expect("created");
    for user in ["as_md5", "as_password", "as_scram"] {
        for (sslmode, sslrootcert, accepted) in [
            (SslMode::Disable, None, true),
            (SslMode::Require, None, true),
            (SslMode::VerifyCa, Some(path.clone()), false),
            (SslMode::VerifyFull, Some(path.clone()), false),
        ] {
            let mut settings = settings(&server, "postgres");
            (settings.user, settings.password) = (user.to_owned(), Some(Secret::new("se'cret é")));
            (settings.sslmode, settings.sslrootcert) = (sslmode, sslrootcert);
            let what = format!("{user} {sslmode:?}");
            let sql = connect(&settings, "sql").await.map(drop);
            let stream = Session::open(&settings, Lsn::ZERO, StreamFormat::Binary).await.map(drop);
            for result in [sql, stream] {
                assert_eq!(result.is_ok(), accepted, "{what}: {result:?}");
                if let Err(error) = result {
                    assert_eq!(error.disposition(), Disposition::Definite, "{what}: {error:?}");
                }
            }
            settings.password = Some(Secret::new("another"));
            let errors = [
                connect(&settings, "sql").await.err().expect(&what),
                Session::open(&settings, Lsn::ZERO, StreamFormat::Binary).await.err().expect(&what),
            ];
            for error in errors {
                let said = format!("{error:?} {error}");
                assert!(!said.contains("another"), "{what}: {said}");
                if accepted {
                    assert_eq!(
                        (error.sqlstate(), error.disposition()),
                        (Some("28P01"), Disposition::Definite),
                        "{what}"
                    );
                }
            }
        }
    }
}

#[tokio::test]
async fn sslmode_means_the_same_to_both_kinds_of_connection() {
    let (ours, our_root) = authority("ours");
    let (_, other_root) = authority("another");
    // The address is in the certificate; the name `localhost` is not.
    let (certificate, key) = signed(&["db.example", "127.0.0.1"], &ours, false);
    let (client_certificate, client_key) = signed(&["client.example"], &ours, false);
    let directory = tempfile::tempdir().expect("a directory");
    let file = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).expect("written");
        Some(path)
    };
    let (root, other_root) = (file("root.pem", &our_root), file("other.pem", &other_root));
    let client_files = (file("client.pem", &client_certificate), file("client.key", &client_key));
    let server = Postgres::start(PostgresOptions {
        hba: vec![
            "hostssl all certified 127.0.0.1/32 scram-sha-256 clientcert=verify-ca".to_owned(),
            "hostnossl all certified 127.0.0.1/32 reject".to_owned(),
        ],
        tls: Some(TlsPem { certificate, key, client_ca: Some(our_root) }),
        ..options()
    })
    .await
    .expect("PostgreSQL with TLS starts");
    let admin = server.connect("postgres").await.expect("connected");
    admin.batch_execute("create role certified superuser login password 'secret'").await.expect("created");

    // mode, root, host → is the session encrypted, or refused?
    let cases = [
        (SslMode::Disable, &None, "127.0.0.1", Some(false)),
        (SslMode::Prefer, &None, "127.0.0.1", Some(true)),
        (SslMode::Require, &None, "localhost", Some(true)),
        (SslMode::Require, &other_root, "127.0.0.1", None),
        (SslMode::VerifyCa, &root, "127.0.0.1", Some(true)),
        (SslMode::VerifyCa, &other_root, "127.0.0.1", None),
        (SslMode::VerifyCa, &None, "127.0.0.1", None),
        (SslMode::VerifyFull, &root, "127.0.0.1", Some(true)),
        (SslMode::VerifyFull, &root, "localhost", None),
    ];
    for (sslmode, root, host, expected) in cases {
        let mut settings = settings(&server, "postgres");
        settings.sslmode = sslmode;
        settings.sslrootcert.clone_from(root);
        settings.host = host.to_owned();
        let what = format!("{sslmode:?} {root:?} {host}");
        let connection = connect(&settings, "sql").await;
        let session = Session::open(&settings, Lsn::ZERO, StreamFormat::Binary).await;
        let sessions = admin
            .query(
                "select s.ssl from pg_stat_ssl s join pg_stat_activity a using (pid) where a.application_name like $1",
                &[&format!("{}%", settings.application_name)],
            )
            .await
            .expect("read");
        let encrypted: Vec<bool> = sessions.iter().map(|row| row.get(0)).collect();
        match expected {
            Some(expected) => {
                drop((connection.expect(&what), session.map_err(|error| panic!("{what}: {error:?}"))));
                assert_eq!(encrypted, [expected, expected], "{what}");
            }
            None => {
                let errors = [connection.err().expect(&what), session.err().expect(&what)];
                for error in errors {
                    assert_eq!(error.disposition(), Disposition::Definite, "{what}: {error:?}");
                }
            }
        }
    }

    // The name is not verify-ca's business, but pgwire-replication 0.5.0 checks it all the same and says so.
    let mut renamed = settings(&server, "postgres");
    (renamed.sslmode, renamed.sslrootcert, renamed.host) = (SslMode::VerifyCa, root.clone(), "localhost".to_owned());
    connect(&renamed, "sql").await.expect("verify-ca asks for no name");
    let refused = Session::open(&renamed, Lsn::ZERO, StreamFormat::Binary).await.err().expect("refused for the name");
    assert!(refused.hint().is_some_and(|hint| hint.contains("certificate")), "{refused:?}");

    let mut settings = settings(&server, "postgres");
    settings.user = "certified".to_owned();
    settings.password = Some(Secret::new("secret"));
    (settings.sslmode, settings.sslrootcert) = (SslMode::VerifyFull, root);
    assert!(connect(&settings, "sql").await.is_err(), "no client certificate");
    assert!(Session::open(&settings, Lsn::ZERO, StreamFormat::Binary).await.is_err(), "no client certificate");
    (settings.sslcert, settings.sslkey) = client_files;
    connect(&settings, "sql").await.expect("with a client certificate");
    Session::open(&settings, Lsn::ZERO, StreamFormat::Binary).await.map(drop).expect("with a client certificate");
    settings.sslkey = None;
    assert!(matches!(connect(&settings, "sql").await, Err(PostgresError::Tls { .. })), "half a pair");
}

#[tokio::test]
async fn a_unix_socket_is_used_without_tls_and_without_a_password() {
    let server = Postgres::start(options()).await.expect("PostgreSQL starts");
    let mut settings = settings(&server, "postgres");
    settings.host = server.directory().to_str().expect("UTF-8").to_owned();
    settings.sslmode = SslMode::VerifyFull;
    settings.password = None;
    let connection = connect(&settings, "sql").await.expect("connected");
    let address: Option<std::net::IpAddr> =
        connection.query_one("select inet_client_addr()", &[]).await.expect("row").get(0);
    assert_eq!(address, None);
    let identity = Session::open(&settings, Lsn::ZERO, StreamFormat::Binary)
        .await
        .expect("session")
        .identify()
        .await
        .expect("identity");
    assert_eq!(identity.database, "postgres");
}

/// A pooler that does not take our settings, in PgBouncer's words: an error at once, not another try for ever.
#[tokio::test]
async fn a_pooler_that_refuses_our_settings_is_named() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
    let port = listener.local_addr().expect("bound").port();
    let pooler = tokio::spawn(async move {
        loop {
            let (mut client, _) = listener.accept().await.expect("a client");
            let length = client.read_u32().await.expect("a length") as usize;
            client.read_exact(&mut vec![0; length - 4]).await.expect("a startup message");
            let fields = b"SFATAL\0C08P01\0Munsupported startup parameter: options\0\0";
            client.write_u8(b'E').await.expect("written");
            client.write_u32(fields.len() as u32 + 4).await.expect("written");
            client.write_all(fields).await.expect("written");
        }
    });
    let database = Database::create(major()).await;
    let mut settings = source(&database);
    (settings.port, settings.sslmode) = (port, SslMode::Disable);
    let sql = connect(&settings, "sql").await.err().expect("refused");
    let stream = Session::open(&settings, Lsn::ZERO, StreamFormat::Binary).await.err().expect("refused");
    for error in [sql, stream] {
        assert_eq!(error.disposition(), Disposition::Definite, "{error:?}");
        assert!(error.hint().is_some_and(|hint| hint.contains("without a pooler")), "{error:?}");
    }
    pooler.abort();
}
