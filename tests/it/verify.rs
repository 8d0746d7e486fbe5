//! `verify` against real servers: what it finds, and what it must not take for a difference.
//!
//! Mostly without a daemon: the collection is filled once, by the write path's own reader and encoder, and then either side
//! is damaged. Where it matters what a daemon says, a little HTTP server says it. The last test has a real one.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_postgres::Client;
use walvec::change::Row;
use walvec::config::{self, Environment, Settings, Transport};
use walvec::milvus::{GrpcClient, Keys, Milvus, MilvusOptions};
use walvec::mutation::Key;
use walvec::pipeline::encode::Encoder;
use walvec::plan::{self, Plan, TablePlan};
use walvec::postgres::SelectColumn;
use walvec::postgres::catalog::read_tables;
use walvec::postgres::copy::{ChunkReader, plan_ranges};
use walvec::verify::{Difference, DifferenceKind, Report, TableReport, Verdict, VerifyError, VerifyOptions, verify};

use crate::support::postgres::{Database, major};
use crate::support::scene::{self, PATIENCE};
use crate::support::scripted::faults::{Fault, When};
use crate::support::scripted::{self, Operation, Scripted};
use crate::support::wait::until;
use crate::support::{milvus, unique};

/// More than a page of either pass.
const ROWS: i64 = 6_000;

const COLUMNS: &str =
    "title text, note text, small smallint, n int, big bigint, f real, d double precision, price numeric,
    ok bool, code char(5), tag uuid, day date, at_time time, at timestamp, at_zone timestamptz, tags text[], nums int[],
    meta jsonb, raw json, embedding vector(3)";

/// Values for COLUMNS from a number `i`, NULLs among them.
const VALUES: &str = r#"
    'title ' || i, CASE i % 3 WHEN 0 THEN '' WHEN 1 THEN NULL ELSE E'a\tb\\"é😀' END, (i % 7 - 3)::smallint, i::int, i * 1000003,
    (i / 7.0)::real, i / 7.0::float8, (i / 8.0)::numeric(20, 6), i % 2 = 0, 'c' || i % 10, md5(i::text)::uuid,
    date '2000-01-01' + i::int, time '00:00' + i * interval '1.5 second', timestamp '1999-12-31' + i * interval '1.25 hour',
    timestamptz '0044-03-15 BC' + i * interval '1 day',
    CASE WHEN i % 5 = 0 THEN NULL ELSE ARRAY['x' || i, '', 'NULL', 'a,"b"\c'] END, ARRAY[i::int, -1],
    jsonb_build_object('n', i / 4.0, 'list', jsonb_build_array(i, 'a', null, true)), format('{"b" : 1.50, "a":"\u00e9%s"}', i)::json,
    ARRAY[i / 3.0, 0, -i]::vector"#;

struct Scene {
    database: Database,
    milvus: GrpcClient,
    settings: Settings,
    plan: Plan,
}

impl Scene {
    /// A table `docs` with this key, its rows by the expressions of the key over `i`, and a collection equal to it.
    async fn new(url: String, key_columns: &str, key: &str, key_values: &str) -> Scene {
        let database = Database::create(major()).await;
        let sql = format!(
            "CREATE TABLE docs ({key_columns}, {COLUMNS}, PRIMARY KEY ({key}));
             INSERT INTO docs SELECT {key_values}, {VALUES} FROM generate_series(1::bigint, {ROWS}) i"
        );
        database.client.batch_execute(&sql).await.expect("the table is filled");
        Scene::of(url, database).await
    }

    /// The table `docs` of this database, and a collection equal to it.
    async fn of(url: String, database: Database) -> Scene {
        let milvus = GrpcClient::connect_lazy(&MilvusOptions {
            url: url.clone(),
            token: None,
            database: String::new(),
            ca: None,
            client_cert: None,
            client_key: None,
            server_name: None,
            connect_timeout: Duration::from_secs(10),
            request_deadline: Duration::from_secs(60),
        });
        let milvus = milvus.expect("a client");
        let text = format!(
            "[source]\nurl = \"{}\"\n[target]\nurl = \"{url}\"\n[admin]\nlisten = \"off\"\n[[table]]\nname = \"public.docs\"\ncollection = \"{}\"\n",
            database.url(),
            unique("verify")
        );
        let settings = config::parse(&text, "walvec.toml", &Environment::of([])).expect("a configuration").settings;
        let server = milvus.server_info().await.expect("Milvus answers");
        let connection = walvec::postgres::connect(&settings.source, "test").await.expect("connected");
        let tables = read_tables(&connection, &["public.docs".to_owned()]).await.expect("the catalog is read");
        let tables = tables.into_iter().map(|(i, table)| (table, settings.tables[i].clone())).collect::<Vec<_>>();
        let plan = plan::build(&tables, &server).expect("a plan");
        let table = &plan.tables[0];
        milvus.create_collection(&table.collection).await.expect("the collection is created");
        for index in &table.indexes {
            milvus.create_index(&table.collection.name, &index.spec).await.expect("the index is created");
        }
        milvus.load_collection(&table.collection.name, Duration::from_secs(60)).await.expect("it is loaded");
        let scene = Scene { database, milvus, settings, plan };
        scene.bring("true").await;
        scene
    }

    fn table(&self) -> &TablePlan {
        &self.plan.tables[0]
    }

    async fn sql(&self, sql: &str) {
        self.database.client.batch_execute(sql).await.expect("the statement runs");
    }

    /// A statement that must change so many rows.
    async fn change(&self, rows: u64, sql: &str) {
        assert_eq!(self.database.client.execute(sql, &[]).await.expect("the statement runs"), rows, "{sql}");
    }

    async fn delete_entities(&self, keys: Keys) {
        let table = self.table();
        let primary = &table.collection.fields[table.key.field()].name;
        self.milvus.delete(&table.collection.name, primary, &keys).await.expect("deleted");
    }

    /// Write the rows that this condition selects to the collection, as they are now.
    async fn bring(&self, condition: &str) {
        let rows = self.read(condition).await;
        let keyed: Vec<_> = rows.into_iter().map(|row| (self.key(&row), row)).collect();
        self.write(&keyed).await;
    }

    fn key(&self, row: &Row) -> Key {
        self.table().key.key(self.table(), row).expect("a key")
    }

    async fn write(&self, rows: &[(Key, Row)]) {
        let encoder = Encoder::new(self.table());
        for rows in rows.chunks(1000) {
            let encoded = encoder.encode(rows);
            assert_eq!(encoded.refused, []);
            let collection = &self.table().collection.name;
            self.milvus.upsert(collection, encoded.columns, encoded.rows).await.expect("written");
        }
    }

    /// The rows that this condition selects, as the copy reads them.
    async fn read(&self, condition: &str) -> Vec<Row> {
        self.sql(&format!("CREATE TABLE chosen AS SELECT * FROM docs WHERE {condition}")).await;
        let connection = walvec::postgres::connect(&self.settings.source, "test").await.expect("connected");
        let some = read_tables(&connection, &["public.chosen".to_owned()]).await.expect("the catalog is read");
        let leaf = some[0].1.leaves[0].oid;
        let names: Vec<SelectColumn> = self.table().columns.iter().map(|column| (&*column.name).into()).collect();
        let mut reader = ChunkReader::connect(&self.settings.source).await.expect("connected");
        let mut rows = Vec::new();
        for range in plan_ranges(&connection, leaf, 1 << 30).await.expect("ranges").ranges {
            reader.begin(leaf).await.expect("a snapshot");
            let chunk = reader.read_rows(&names, None, range, usize::MAX).await.expect("rows");
            assert!(chunk.rest.is_none());
            rows.extend(chunk.rows);
            reader.finish().await.expect("the snapshot ends");
        }
        self.sql("DROP TABLE chosen").await;
        rows
    }

    async fn verify(&self) -> TableReport {
        let report = self.report(VerifyOptions::default()).await.expect("the comparison is made");
        report.tables.into_iter().next().expect("one table")
    }

    async fn report(&self, options: VerifyOptions) -> Result<Report, VerifyError> {
        verify(&self.settings, options, |_| {}).await
    }
}

fn found(report: &TableReport) -> Vec<(&str, DifferenceKind, Vec<&str>)> {
    let mut found: Vec<_> = report
        .differences
        .iter()
        .map(|Difference { key, kind, fields }| {
            (key.as_str(), *kind, fields.iter().map(String::as_str).collect::<Vec<_>>())
        })
        .collect();
    found.sort_by_key(|(key, ..)| *key);
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_difference_is_found_and_nothing_else() {
    use DifferenceKind::{Different, Extra, Missing};
    let scene = Scene::new(milvus::lite().await.url(), "id bigint", "id", "i - 100").await;
    let report = scene.verify().await;
    assert_eq!((report.rows_compared, report.entities_compared), (ROWS as u64, ROWS as u64));
    assert_eq!(found(&report), []);
    assert_eq!(report.verdict(), Verdict::Equal);

    scene.delete_entities(Keys::Int64(vec![-99, 4000])).await;
    scene.change(2, "DELETE FROM docs WHERE id IN (5, 5899)").await;
    // One unit in the last place of one element, and the sign of a zero.
    scene
        .change(1, "UPDATE docs SET embedding = '[36.000004,0,-108]' WHERE id = 8 AND embedding = '[36,0,-108]'")
        .await;
    scene.change(1, "UPDATE docs SET embedding = '[36.333332,-0,-109]' WHERE id = 9").await;
    scene.change(1, "UPDATE docs SET meta = jsonb_set(meta, '{n}', '27.500000000001') WHERE id = 10").await;
    // The same value, written differently, is no difference.
    scene.change(1, r#"UPDATE docs SET raw = '{"a":"é111","b":1.5e0}' WHERE id = 11"#).await;
    scene.change(1, "UPDATE docs SET note = NULL WHERE id = 20 AND note = ''").await;
    scene.change(1, "UPDATE docs SET note = '' WHERE id = 21 AND note IS NULL").await;
    scene.change(1, "UPDATE docs SET tags = '{}', nums = NULL WHERE id = 34 AND tags IS NOT NULL").await;
    scene.change(1, "UPDATE docs SET tags = NULL WHERE id = 31 AND tags IS NOT NULL").await;
    scene.change(1, "UPDATE docs SET price = price::numeric(30, 7), code = 'd', ok = NOT ok WHERE id = 32").await;
    scene
        .change(1, "UPDATE docs SET f = '-0', d = 'NaN', at_zone = at_zone + interval '1 microsecond' WHERE id = 33")
        .await;

    let report = scene.verify().await;
    let expected = [
        ("-99", Missing, vec![]),
        ("10", Different, vec!["meta"]),
        ("20", Different, vec!["note"]),
        ("21", Different, vec!["note"]),
        ("31", Different, vec!["tags"]),
        ("32", Different, vec!["price", "ok", "code"]),
        ("33", Different, vec!["f", "d", "at_zone"]),
        ("34", Different, vec!["tags", "nums"]),
        ("4000", Missing, vec![]),
        ("5", Extra, vec![]),
        ("5899", Extra, vec![]),
        ("8", Different, vec!["embedding"]),
        ("9", Different, vec!["embedding"]),
    ];
    assert_eq!(found(&report), expected);
    assert_eq!((report.missing, report.extra, report.different, report.undecided), (2, 2, 9, 0));
    assert_eq!(report.verdict(), Verdict::Different);

    // All are counted, some are listed.
    let options = VerifyOptions { list_max: 3, ..VerifyOptions::default() };
    let report = scene.report(options).await.expect("the comparison is made");
    assert_eq!((report.tables[0].differences.len(), report.tables[0].different), (3, 9));
    assert!(!report.daemon);
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_text_keys_are_found_on_both_sides() {
    use DifferenceKind::{Extra, Missing};
    let key = r#"(ARRAY['a','B','é','''','\','"','~ ','Z_','😀','-'])[1 + i % 10] || i || E'\t\n'"#;
    let scene = Scene::new(milvus::lite().await.url(), "name text", "name", key).await;
    let report = scene.verify().await;
    assert_eq!((report.rows_compared, report.entities_compared), (ROWS as u64, ROWS as u64));
    assert_eq!(report.verdict(), Verdict::Equal, "{report:?}");

    scene.delete_entities(Keys::VarChar(vec!["é5992\t\n".into()])).await;
    scene.change(1, r"DELETE FROM docs WHERE name = E'''3003\t\n'").await;
    scene.change(1, r"UPDATE docs SET name = upper(name) WHERE name = E'a10\t\n'").await;
    let mut expected = [
        (r#""A10\t\n""#, Missing, vec![]),
        (r#""a10\t\n""#, Extra, vec![]),
        (r#""'3003\t\n""#, Extra, vec![]),
        (r#""é5992\t\n""#, Missing, vec![]),
    ];
    expected.sort_by_key(|(key, ..)| *key);
    assert_eq!(found(&scene.verify().await), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_two_sides_need_no_common_order() {
    use DifferenceKind::{Extra, Missing};
    // Numbers here, their texts there: -1 < 2 < 10 < NaN against "-1" < "10" < "2" < "NaN".
    let key = "CASE i WHEN 77 THEN 'NaN' ELSE (i * 7919 % 6007 - 3000) / 4.0 END";
    let scene = Scene::new(milvus::lite().await.url(), "number numeric", "number", key).await;
    let report = scene.verify().await;
    assert_eq!((report.rows_compared, report.entities_compared), (ROWS as u64, ROWS as u64));
    assert_eq!(report.verdict(), Verdict::Equal, "{report:?}");

    // The same number, another text: another key there.
    scene.change(1, "UPDATE docs SET number = trim_scale(number) WHERE number = 500").await;
    scene.change(1, "DELETE FROM docs WHERE number = 'NaN'").await;
    let entity = scene.read("number = 501").await.remove(0);
    let Key::Text(key) = scene.key(&entity) else { panic!("a text key") };
    scene.delete_entities(Keys::VarChar(vec![key.clone()])).await;
    let report = scene.verify().await;
    let missing = format!("{key:?}");
    let was = scene.database.client.query_one("SELECT format('%s', 2000 / 4.0)", &[]).await.expect("a number");
    let was = format!("{:?}", was.get::<_, String>(0));
    let mut expected =
        vec![(r#""500""#, Missing, vec![]), (was.as_str(), Extra, vec![]), (missing.as_str(), Missing, vec![])];
    expected.push((r#""NaN""#, Extra, vec![]));
    expected.sort_by_key(|(key, ..)| *key);
    assert_eq!(found(&report), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_of_several_columns_on_milvus() {
    use DifferenceKind::{Different, Extra, Missing};
    // This server has no nullable fields: rows without NULL.
    let database = Database::create(major()).await;
    let sql = format!(
            "CREATE TABLE docs (tenant text, part numeric(10, 2), day date, title text NOT NULL, embedding vector(2) NOT NULL,
                 PRIMARY KEY (tenant, part, day));
             INSERT INTO docs SELECT 't|' || i % 3 || '\\', i / 4.0, date '2020-01-01' + i::int, 'title ' || i, ARRAY[i::int, 1]::vector
                 FROM generate_series(1::bigint, {ROWS}) i"
    );
    database.client.batch_execute(&sql).await.expect("the table is filled");
    let scene = Scene::of(milvus::milvus23().await.url(), database).await;
    let report = scene.verify().await;
    assert_eq!((report.rows_compared, report.entities_compared), (ROWS as u64, ROWS as u64));
    assert_eq!(report.verdict(), Verdict::Equal, "{report:?}");

    scene.change(1, "UPDATE docs SET day = day + 1 WHERE part = 1.00").await; // i = 4
    scene.change(1, "UPDATE docs SET title = 'x' WHERE part = 1.25").await; // i = 5
    // Keys that are no key of the table: not three parts, no number, no date, a number in another spelling.
    let foreign = ["a|b", r"t\|1\\|abc|2020-01-08", r"t\|1\\|1.75|yesterday!", r"t\|1\\|1.750|2020-01-08"];
    let row = scene.read("part = 1.50").await.remove(0);
    scene.write(&foreign.map(|key| (Key::Text(key.into()), row.clone()))).await;
    let report = scene.verify().await;
    let mut expected = vec![
        (r"t\|1\\|1.00|2020-01-05", Extra, vec![]),
        (r"t\|1\\|1.00|2020-01-06", Missing, vec![]),
        (r"t\|2\\|1.25|2020-01-06", Different, vec!["title"]),
    ];
    expected.extend(foreign.map(|key| (key, Extra, vec![])));
    let mut expected: Vec<_> =
        expected.into_iter().map(|(key, kind, fields)| (format!("{key:?}"), kind, fields)).collect();
    expected.sort_by(|left, right| left.0.cmp(&right.0));
    let found = found(&report);
    assert_eq!(found.iter().map(|(k, kind, f)| (k.to_string(), *kind, f.clone())).collect::<Vec<_>>(), expected);
}

/// What a daemon would say at `/status`: `(phase of public.docs, progress)`.
struct FakeDaemon {
    address: SocketAddr,
    says: watch::Sender<(&'static str, String)>,
    /// Times that it was asked.
    asked: watch::Receiver<u64>,
}

impl FakeDaemon {
    async fn start(phase: &'static str) -> FakeDaemon {
        FakeDaemon::beside(phase, None).await
    }

    /// One that runs a statement whenever it is asked, before it answers.
    async fn beside(phase: &'static str, statement: Option<(Client, &'static str)>) -> FakeDaemon {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (says, said) = watch::channel((phase, "0/0".to_owned()));
        let (count, asked) = watch::channel(0);
        let shared = Arc::new((count, said, statement));
        let status = async move || {
            let (count, said, statement) = &*shared;
            if let Some((client, statement)) = statement {
                client.batch_execute(statement).await.expect("the statement runs");
            }
            count.send_modify(|asked| *asked += 1);
            let (phase, progress) = said.borrow().clone();
            let status = serde_json::json!({
                "source": { "slot": "walvec", "progress_lsn": progress },
                "tables": [{ "name": "public.docs", "phase": phase, "stopped_reason": "a row was refused" }],
            });
            status.to_string()
        };
        let router = Router::new().route("/status", get(status));
        tokio::spawn(async move { axum::serve(listener, router).await });
        FakeDaemon { address, says, asked }
    }

    /// Wait until it was asked so many times more.
    async fn asked_again(&self, times: u64) {
        let mut asked = self.asked.clone();
        let until = *asked.borrow_and_update() + times;
        asked.wait_for(|asked| *asked >= until).await.expect("the server runs");
    }
}

async fn small_scene() -> Scene {
    let database = Database::create(major()).await;
    let sql = "CREATE TABLE docs (id int PRIMARY KEY, title text, embedding vector(2) NOT NULL);
               INSERT INTO docs SELECT i, 'title ' || i, ARRAY[i, 1]::vector FROM generate_series(1, 50) i";
    database.client.batch_execute(sql).await.expect("the table is filled");
    Scene::of(milvus::lite().await.url(), database).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_on_its_way_is_no_difference() {
    let mut scene = small_scene().await;
    let daemon = FakeDaemon::start("copying").await;
    scene.settings.admin.listen = Some(daemon.address);
    // A new row, a change and a deletion that the target does not have yet; and one row that it will never get.
    scene.change(1, "INSERT INTO docs VALUES (51, 'new', '[51,1]')").await;
    scene.change(1, "UPDATE docs SET title = 'changed' WHERE id = 7").await;
    scene.change(1, "DELETE FROM docs WHERE id = 8").await;
    scene.delete_entities(Keys::Int64(vec![9])).await;

    let catch_up = async {
        // It is asked for the phase, and goes on waiting while the table is not followed.
        daemon.asked_again(3).await;
        daemon.says.send_replace(("following", "0/0".to_owned()));
        // Then for the progress; until that is past the fence, nothing may be decided.
        daemon.asked_again(5).await;
        scene.bring("id IN (7, 51)").await;
        scene.delete_entities(Keys::Int64(vec![8])).await;
        daemon.says.send_replace(("following", "FFFFFFFF/FFFFFFFF".to_owned()));
    };
    let (report, ()) = tokio::join!(scene.report(VerifyOptions::default()), catch_up);
    let report = report.expect("the comparison is made");
    assert!(report.daemon);
    assert_eq!(found(&report.tables[0]), [("9", DifferenceKind::Missing, vec![])]);
    // All four were suspected; the extra entity by the second pass, unless it had gone by then.
    assert!(matches!(report.tables[0].rechecked, 3 | 4), "{report:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_does_not_get_on_decides_nothing() {
    let mut scene = small_scene().await;
    let daemon = FakeDaemon::start("following").await;
    scene.settings.admin.listen = Some(daemon.address);
    scene.change(1, "UPDATE docs SET title = 'changed' WHERE id = 7").await;
    let options = VerifyOptions { timeout: Duration::from_millis(300), ..VerifyOptions::default() };
    let report = scene.report(options.clone()).await.expect("the comparison is made");
    assert_eq!(found(&report.tables[0]), [("7", DifferenceKind::Undecided, vec![])]);
    assert!(report.tables[0].fence_not_passed);
    assert_eq!(report.verdict(), Verdict::Undecided);

    // A table that the daemon gave up is compared as it is.
    daemon.says.send_replace(("stopped", "0/0".to_owned()));
    let report = scene.report(options.clone()).await.expect("the comparison is made");
    assert_eq!(report.tables[0].stopped.as_deref(), Some("a row was refused"));
    assert_eq!(found(&report.tables[0]), [("7", DifferenceKind::Different, vec!["title"])]);

    daemon.says.send_replace(("copying", "0/0".to_owned()));
    let error = scene.report(options).await.expect_err("the copy is not finished");
    assert!(matches!(&error, VerifyError::NotFollowing { phase, .. } if phase == "copying"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_keeps_changing_is_undecided_and_a_missing_collection_an_error() {
    let mut scene = small_scene().await;
    // The row changes whenever the progress is asked for: after its version was read, before it is read itself.
    let change = "UPDATE docs SET title = title || '.' WHERE id = 7";
    let daemon = FakeDaemon::beside("following", Some((scene.database.session().await, change))).await;
    daemon.says.send_replace(("following", "FFFFFFFF/FFFFFFFF".to_owned()));
    scene.settings.admin.listen = Some(daemon.address);
    scene.delete_entities(Keys::Int64(vec![5])).await;
    let options = VerifyOptions { rounds: 3, ..VerifyOptions::default() };
    let report = scene.report(options).await.expect("the comparison is made");
    let expected = [("5", DifferenceKind::Missing, vec![]), ("7", DifferenceKind::Undecided, vec![])];
    assert_eq!(found(&report.tables[0]), expected);

    let name = &scene.table().collection.name;
    scene.milvus.drop_collection(name).await.expect("dropped");
    let error = scene.report(VerifyOptions::default()).await.expect_err("there is nothing to compare");
    assert!(matches!(&error, VerifyError::NoCollection { collection, .. } if collection == name), "{error}");
    let unknown = VerifyOptions { tables: vec!["public.nope".to_owned()], ..VerifyOptions::default() };
    let error = scene.report(unknown).await.expect_err("no such table");
    assert!(matches!(&error, VerifyError::NoSuchTable(name) if name == "public.nope"), "{error}");
}

/// Whatever is asked of the target may have to be asked for a while: the description, the entities and their keys, the count.
#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_does_not_answer_for_a_while_is_waited_for() {
    let milvus = Scripted::start(scripted::Options::default()).await;
    let mut scene = scene::Scene::scripted(major(), &milvus, Transport::Rest).await;
    let table = scene.documents(8).await;
    scene.insert(&table, 1, 50, 8).await;
    let numbered = scene.table("n int, embedding vector(8)").await;
    scene.sql(&format!("alter table {numbered} replica identity full")).await;
    scene.set_lines(&numbered, "auto_id = true");
    scene
        .sql(&format!("insert into {numbered} select i, {} from generate_series(1, 50) i", scene::embedding("i", 8)))
        .await;
    let mut daemon = scene.started().await;
    scene.caught_up(&mut daemon).await;
    daemon.terminate(PATIENCE).await;
    let settings = scene.settings();
    let unavailable = Fault::Gateway { status: 503, retry_after: Some(0) };
    for name in [&table, &numbered] {
        let options = VerifyOptions { tables: vec![name.clone()], ..VerifyOptions::default() };
        // More often than the six times that a read was once tried.
        milvus.fail(Operation::Describe, When::Next(8), unavailable.clone());
        milvus.fail(Operation::Query, When::Next(8), unavailable.clone());
        let report = verify(&settings, options.clone(), |_| {}).await.expect("in the end it answers");
        assert_eq!(report.verdict(), Verdict::Equal, "{report:#?}");
        milvus.heal();
        milvus.fail(Operation::Query, When::Always, unavailable.clone());
        let options = VerifyOptions { timeout: Duration::from_millis(300), ..options };
        let error = verify(&settings, options, |_| {}).await.expect_err("it does not answer");
        assert!(matches!(&error, VerifyError::Target { .. }), "{error}");
        milvus.heal();
    }
    scene.drop_slot().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_beside_a_running_daemon_and_a_writer() {
    let mut scene = scene::Scene::shared(major()).await;
    let table = scene.documents(600).await;
    scene.insert(&table, 1, 2000, 600).await;
    scene.insert(&table, 2600, 2600, 600).await;
    scene.request_deadline = "30s"; // Milvus Lite answers one after the other, and others ask too
    let daemon = scene.start();
    let config = daemon.config().to_owned();
    // It waits for the end of the copy by itself.
    let command = async |arguments: &[&str]| {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_walvec"));
        command.arg("verify").arg("--config").arg(&config).args(arguments).kill_on_drop(true);
        let output = tokio::time::timeout(PATIENCE, command.output()).await.expect("in time").expect("it runs");
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        (output.status.code(), format!("{out}{err}"))
    };
    let (stop, stopped) = watch::channel(false);
    let write = async {
        let mut round = 0;
        let mut fences: VecDeque<String> = VecDeque::new();
        while !*stopped.borrow() {
            // No faster than Milvus takes it, or the daemon would fall behind for ever.
            if fences.len() > 20
                && let Some(fence) = fences.pop_front()
            {
                until("the daemon gets on", PATIENCE, async || scene.is_past(&fence).await.then_some(())).await;
            }
            let at = round * 37 % 2000;
            scene
                .sql(&format!(
                    "update {table} set n = n + 1 where id between {at} and {at} + 9;
                     delete from {table} where id = {at} + 20; {more};
                     update {table} set id = id + 1000000 where id = {at} + 30 and not exists (select from {table} where id = {at} + 1000030)",
                    more = scene::insert(&table, 3000 + round, 3000 + round, 600),
                ))
                .await;
            fences.push_back(scene.fence().await);
            round += 1;
        }
    };
    let check = async {
        let equal = command(&[]).await;
        // Somebody meddles with the collection; no writer touches this row, so nothing heals it.
        let options = MilvusOptions {
            url: scene.target_url.clone(),
            token: None,
            database: String::new(),
            ca: None,
            client_cert: None,
            client_key: None,
            server_name: None,
            connect_timeout: Duration::from_secs(10),
            request_deadline: Duration::from_secs(60),
        };
        let milvus = GrpcClient::connect_lazy(&options).expect("a client");
        milvus.delete(&scene.collection(&table), "id", &Keys::Int64(vec![2600])).await.expect("deleted");
        let different = command(&["--json", "--table", &format!("public.{table}")]).await;
        stop.send_replace(true);
        (equal, different)
    };
    let ((equal, different), ()) = tokio::join!(check, write);
    assert_eq!(equal.0, Some(0), "{}", equal.1);
    assert!(equal.1.trim_end().ends_with(": equal"), "{}", equal.1);
    assert_eq!(different.0, Some(1), "{}", different.1);
    let report: serde_json::Value = serde_json::from_str(&different.1).expect("JSON and nothing else");
    assert_eq!(report["daemon"], true);
    assert_eq!(report["tables"][0]["differences"], serde_json::json!([{ "key": "2600", "kind": "missing" }]));
}
