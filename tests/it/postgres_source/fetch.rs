//! Single rows by key.

use super::*;

#[tokio::test]
async fn rows_are_fetched_by_keys_of_every_kind() {
    for major in majors() {
        let database = Database::create(major).await;
        let settings = source(&database);
        let client = &database.client;
        client
            .batch_execute(&format!(
                "create extension citext;
                 create table ints (id int8 primary key, t text, e vector(600));
                 insert into ints values (1, 'one', {LONG}), (2, null, null), (-9223372036854775808, 'least', null);
                 create table texts (id text primary key, e int8);
                 create table uuids (id uuid primary key, e int8);
                 insert into uuids values ('a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', 5);
                 create table folded (id citext primary key, e int8); insert into folded values ('Ab', 6);
                 create table numbers (id numeric(10,2) primary key, e int8); insert into numbers values (1.50, 7);
                 create table padded (id char(5) primary key, e int8); insert into padded values ('ab', 8);
                 create table \"Pa\"\"irs\" (\"A\" int4, b text, e int8, primary key (b, \"A\")) partition by list (\"A\");
                 create table pairs_1 partition of \"Pa\"\"irs\" for values in (1, 2);
                 insert into \"Pa\"\"irs\" values (1, 'x', 11), (2, 'x', 12), (1, 'y', 13)"
            ))
            .await
            .expect("written");
        let hostile = [
            "",
            "it's",
            "a\\",
            "\\'; drop table texts; --",
            "{1,2}",
            "\"q\"",
            "NULL",
            "ä\u{1F600}",
            "a\tb\nc",
            "$1",
            "%s",
        ];
        for (i, text) in hostile.iter().enumerate() {
            let i = i64::try_from(i).expect("few");
            client.execute("insert into texts values ($1, $2)", &[text, &i]).await.expect("written");
        }
        let mut fetcher = Fetcher::connect(&settings).await.expect("fetcher");
        let shape = |name: &str, key: &[(&str, &str)], columns: &[&str]| FetchShape {
            schema: "public".to_owned(),
            name: name.to_owned(),
            key: key.iter().map(|&(column, kind)| (column.to_owned(), kind.to_owned())).collect(),
            columns: columns.iter().map(|&column| column.into()).collect(),
            filter: None,
            is_partitioned: name == "Pa\"irs",
        };
        let keys = |keys: &[&[&str]]| -> Vec<Vec<String>> {
            keys.iter().map(|key| key.iter().map(|&part| part.to_owned()).collect()).collect()
        };
        let mut fetch = async |shape: &FetchShape, keys: &[Vec<String>]| {
            let mut fetched = fetcher.fetch(shape, keys).await.expect("fetched");
            fetched.rows.sort_by_key(|&(index, _)| index);
            fetched
        };

        let ints = shape("ints", &[("id", "bigint")], &["e", "t"]);
        let fetched = fetch(&ints, &keys(&[&["7"], &["2"], &["1"], &["-9223372036854775808"]])).await;
        assert_eq!(
            fetched.rows,
            [
                (1, vec![Value::Null, Value::Null]),
                (2, vec![long(), text("one")]),
                (3, vec![Value::Null, text("least")])
            ]
        );
        let probe = Probe::connect(&settings).await.expect("probe");
        let before = probe.current_xid().await.expect("xid");
        let fetched = fetch(&ints, &keys(&[&["99"]])).await;
        assert!(fetched.rows.is_empty());
        assert!(fetched.snapshot.sees(before), "also without a row there is a snapshot: {fetched:?}");
        assert!(fetched.insert_lsn <= probe.insert_lsn().await.expect("position") && fetched.insert_lsn > Lsn::ZERO);

        let texts = shape("texts", &[("id", "text")], &["e"]);
        let hostile_keys: Vec<Vec<String>> = hostile.iter().map(|text| vec![(*text).to_owned()]).collect();
        let expected: Vec<_> = (0..hostile.len()).map(|i| (i, vec![int(i64::try_from(i).expect("few"))])).collect();
        assert_eq!(fetch(&texts, &hostile_keys).await.rows, expected);

        for (table, kind, key, expected) in [
            ("uuids", "uuid", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", Some(5)),
            ("folded", "citext", "Ab", Some(6)),
            ("folded", "citext", "aB", None),
            ("numbers", "numeric(10,2)", "1.50", Some(7)),
            ("padded", "character(5)", "ab   ", Some(8)),
        ] {
            let fetched = fetch(&shape(table, &[("id", kind)], &["e"]), &keys(&[&[key]])).await;
            let expected: Vec<_> = expected.into_iter().map(|value| (0, vec![int(value)])).collect();
            assert_eq!(fetched.rows, expected, "{table} {key}");
        }
        let pairs = shape("Pa\"irs", &[("b", "text"), ("A", "integer")], &["e"]);
        let fetched = fetch(&pairs, &keys(&[&["x", "2"], &["y", "2"], &["y", "1"]])).await;
        assert_eq!(fetched.rows, [(0, vec![int(12)]), (2, vec![int(13)])]);

        let error = fetcher.fetch(&ints, &keys(&[&["no number"]])).await.expect_err("not a key");
        assert_eq!((error.sqlstate(), error.disposition()), (Some("22P02"), Disposition::Definite));
        fetcher.fetch(&ints, &keys(&[&["1"]])).await.expect("usable after an error");
    }
}

#[tokio::test]
async fn a_fetch_that_does_not_see_a_commit_says_so() {
    // A commit in the WAL that waits for a standby which does not exist: the stream has it, no snapshot sees it.
    let settings_of_server = [("synchronous_standby_names".to_owned(), "nosuch".to_owned())];
    let options = PostgresOptions { settings: settings_of_server.to_vec(), ..options() };
    let server = Postgres::start(options).await.expect("PostgreSQL starts");
    let settings = settings(&server, "postgres");
    let client = server.connect("postgres").await.expect("connected");
    let local = "set synchronous_commit = local;";
    client
        .batch_execute(&format!(
            "{local} create table docs (id int8 primary key, e int8); insert into docs values (1, 1)"
        ))
        .await
        .expect("written");
    let docs = tables(&settings, &["docs"]).await;
    let connection = sql(&settings).await;
    connection.batch_execute(local).await.expect("set");
    ensure_publication(&connection, &settings, &whole(&docs)).await.expect("published");
    let mut session = Session::open(&settings, Lsn::ZERO, StreamFormat::Binary).await.expect("session");
    session.create_slot().await.expect("slot");
    let mut stream = session.start(all_tracked(&docs), Lsn::ZERO).await.expect("started");

    let waiting = server.connect("postgres").await.expect("connected");
    let pid: i32 = waiting.query_one("select pg_backend_pid()", &[]).await.expect("row").get(0);
    let update = tokio::spawn(async move { waiting.batch_execute("update docs set e = 2").await });
    let seen = commits(&mut stream, 1).await;
    let Some(Event::Begin { xid, .. }) = seen.first() else { panic!("{seen:?}") };
    let mut fetcher = Fetcher::connect(&settings).await.expect("fetcher");
    let shape = FetchShape {
        schema: "public".to_owned(),
        name: "docs".to_owned(),
        key: vec![("id".to_owned(), "bigint".to_owned())],
        columns: vec!["e".into()],
        filter: None,
        is_partitioned: false,
    };
    let key = [vec!["1".to_owned()]];
    let fetched = fetcher.fetch(&shape, &key).await.expect("fetched");
    assert_eq!(fetched.rows, [(0, vec![int(1)])], "the old value");
    let full = fetched.snapshot.widen(*xid);
    assert!(!fetched.snapshot.sees(full), "and the snapshot tells");
    let probe = Probe::connect(&settings).await.expect("probe");
    let blockers = probe.blockers(full).await.expect("blockers");
    assert_eq!(blockers.len(), 1, "{blockers:?}");
    assert_eq!((blockers[0].pid, blockers[0].wait_event.as_deref()), (Some(pid), Some("SyncRep")));
    assert_eq!(probe.synchronous_standby_names().await.expect("read"), "nosuch");

    client.batch_execute(&format!("select pg_cancel_backend({pid})")).await.expect("cancelled");
    tokio::time::timeout(PATIENCE, update).await.expect("in time").expect("joined").expect("committed locally");
    let fetched = fetcher.fetch(&shape, &key).await.expect("fetched");
    assert_eq!(fetched.rows, [(0, vec![int(2)])]);
    assert!(fetched.snapshot.sees(full));
    assert!(probe.blockers(full).await.expect("blockers").is_empty());
}
