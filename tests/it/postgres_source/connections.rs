//! Sessions: TLS, sockets, and how they end.

use super::*;

#[tokio::test]
async fn a_silent_line_is_given_up_and_a_cut_one_is_transient() {
    let database = Database::create(18).await;
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

#[tokio::test]
async fn a_terminated_session_says_why() {
    for major in MAJORS {
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
    let mut server = Postgres::start(PostgresOptions::default()).await.expect("PostgreSQL starts");
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

#[tokio::test]
async fn sslmode_means_the_same_to_both_kinds_of_connection() {
    let authority = |name: &str| {
        let mut params = rcgen::CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        let key = rcgen::KeyPair::generate().expect("a key");
        let pem = params.self_signed(&key).expect("signed").pem();
        (rcgen::Issuer::new(params, key), pem)
    };
    let signed = |names: &[&str], issuer: &rcgen::Issuer<'_, rcgen::KeyPair>| {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let params = rcgen::CertificateParams::new(names).expect("names");
        let key = rcgen::KeyPair::generate().expect("a key");
        (params.signed_by(&key, issuer).expect("signed").pem(), key.serialize_pem())
    };
    let (ours, our_root) = authority("ours");
    let (_, other_root) = authority("another");
    // The address is in the certificate; the name `localhost` is not.
    let (certificate, key) = signed(&["db.example", "127.0.0.1"], &ours);
    let (client_certificate, client_key) = signed(&["client.example"], &ours);
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
        ..PostgresOptions::default()
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
    let server = Postgres::start(PostgresOptions::default()).await.expect("PostgreSQL starts");
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
