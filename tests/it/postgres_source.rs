//! The source's side against real servers, 16 and 18: nothing here knows of Milvus.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use walvec::change::{Change, Event, Lsn, OldRow, Row, TableId, Value};
use walvec::config::settings::{Secret, SourceSettings, SslMode};
use walvec::postgres::catalog::{RelationKind, ReplicaIdentity, Table, TypeKind, read_facts, read_tables};
use walvec::postgres::copy::{ChunkReader, Range, plan_ranges};
use walvec::postgres::fetch::{FetchShape, Fetcher};
use walvec::postgres::gate::{GateRefusal, Saved, Verdict, decide};
use walvec::postgres::probe::Probe;
use walvec::postgres::publication::{ensure_publication, read_publication};
use walvec::postgres::relation::{TrackedColumn, TrackedLeaf, TrackedTable};
use walvec::postgres::stream::{Session, Stream};
use walvec::postgres::{Connection, Disposition, PostgresError, connect};
use walvec::servers::{Postgres, PostgresOptions, Stop, TlsPem};

use super::support::postgres::Database;
use super::support::proxy::Proxy;
use super::support::unique;
use super::support::wait::until;

const MAJORS: [u16; 2] = [18, 16];
const PATIENCE: Duration = Duration::from_secs(20);

fn settings(server: &Postgres, database: &str) -> SourceSettings {
    SourceSettings {
        host: server.host().to_owned(),
        port: server.port(),
        user: server.user().to_owned(),
        password: Some(Secret::new(server.password())),
        database: database.to_owned(),
        sslmode: SslMode::Prefer,
        sslrootcert: None,
        sslcert: None,
        sslkey: None,
        application_name: unique("walvec"),
        connect_timeout: Duration::from_secs(10),
        slot: unique("slot"),
        publication: unique("Pub"),
        create: true,
        failover: false,
        slot_lock_timeout: Duration::from_secs(30),
        wal_sender_timeout: Duration::from_secs(20),
    }
}

fn source(database: &Database) -> SourceSettings {
    settings(database.server, &database.name)
}

async fn sql(settings: &SourceSettings) -> Connection {
    connect(settings, "test").await.expect("connected")
}

async fn tables(settings: &SourceSettings, names: &[&str]) -> Vec<Table> {
    let patterns: Vec<String> = names.iter().map(|name| format!("public.{name}")).collect();
    let found = read_tables(&sql(settings).await, &patterns).await.expect("catalog read");
    found.into_iter().map(|(_, table)| table).collect()
}

/// All columns of a table, in attribute order, keyed by its primary key.
fn tracked(id: u32, table: &Table) -> TrackedTable {
    let key = table.primary_key.as_ref().map(|key| key.columns.clone()).unwrap_or_default();
    let place = |name: &String| table.columns.iter().position(|column| column.name == *name).expect("a key column");
    let column = |column: &walvec::postgres::catalog::Column| TrackedColumn {
        name: column.name.clone(),
        type_oid: column.type_oid,
        typmod: column.typmod,
    };
    let leaf = |leaf: &walvec::postgres::catalog::Leaf| TrackedLeaf {
        oid: leaf.oid,
        full: leaf.replica_identity == ReplicaIdentity::Full,
    };
    TrackedTable {
        id: TableId(id),
        oid: table.oid,
        schema: table.schema.clone(),
        name: table.name.clone(),
        columns: table.columns.iter().map(column).collect(),
        key: key.iter().map(place).collect(),
        leaves: table.leaves.iter().map(leaf).collect(),
    }
}

/// Publication, slot, stream: as the first start does it.
async fn first_stream(settings: &SourceSettings, tables: &[Table]) -> (Stream, Lsn) {
    let connection = sql(settings).await;
    ensure_publication(&connection, settings, tables).await.expect("published");
    let mut session = Session::open(settings, Lsn::ZERO).await.expect("session");
    let identity = session.identify().await.expect("identified");
    let slot = session.slot().await.expect("slot read");
    assert_eq!(decide(None, &identity, slot.as_ref()), Verdict::CreateSlot);
    let consistent_point = session.create_slot().await.expect("slot created");
    (session.start(all_tracked(tables)).await.expect("started"), consistent_point)
}

fn all_tracked(tables: &[Table]) -> Vec<TrackedTable> {
    tables.iter().enumerate().map(|(i, table)| tracked(u32::try_from(i).expect("few"), table)).collect()
}

async fn streams_from(settings: &SourceSettings, tables: &[Table], start_lsn: Lsn) -> Stream {
    // A slot is released some milliseconds after its holder's connection is closed.
    until("the slot is free", PATIENCE, async || {
        let session = Session::open(settings, start_lsn).await.expect("session");
        match session.start(all_tracked(tables)).await {
            Ok(stream) => Some(stream),
            Err(error) => {
                assert_eq!((error.sqlstate(), error.disposition()), (Some("55006"), Disposition::Transient), "{error}");
                None
            }
        }
    })
    .await
}

/// Reads until `enough`, keepalives left out.
async fn events(stream: &mut Stream, enough: impl Fn(&[Event]) -> bool) -> Vec<Event> {
    let mut events = Vec::new();
    let reading = async {
        while !enough(&events) {
            let mut batch = Vec::new();
            stream.next_batch(&mut batch, 1 << 20).await.expect("stream");
            events.extend(batch.into_iter().filter(|event| !matches!(event, Event::KeepAlive { .. })));
        }
    };
    tokio::time::timeout(PATIENCE, reading).await.expect("the events come");
    events
}

async fn commits(stream: &mut Stream, count: usize) -> Vec<Event> {
    events(stream, |events| events.iter().filter(|event| matches!(event, Event::Commit { .. })).count() >= count).await
}

/// By the simple protocol: nothing is sent afterwards, as the end of a prepared statement is.
async fn own_pid(client: &tokio_postgres::Client) -> i32 {
    let answer = client.simple_query("select pg_backend_pid()").await.expect("answered");
    let row = answer.iter().find_map(|message| match message {
        tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0),
        _ => None,
    });
    row.and_then(|pid| pid.parse().ok()).expect("a pid")
}

/// Compares changes; a difference is shown without the bytes of long values.
#[track_caller]
fn assert_changes(found: &[Event], expected: &[(TableId, Change)]) {
    let found = changes(found);
    let show = |changes: &[(TableId, Change)]| -> Vec<String> {
        let value = |value: &Value| match value {
            Value::Binary(bytes) if bytes.len() > 16 => format!("{} bytes", bytes.len()),
            Value::Binary(bytes) if bytes.len() == 8 => {
                format!("{}", i64::from_be_bytes(bytes[..].try_into().expect("8")))
            }
            other => format!("{other:?}"),
        };
        let row = |row: &Row| row.0.iter().map(value).collect::<Vec<_>>().join(", ");
        let old = |old: &OldRow| match old {
            OldRow::Key(key) => format!("key ({})", row(key)),
            OldRow::Full(full) => format!("full ({})", row(full)),
        };
        changes
            .iter()
            .map(|(table, change)| match change {
                Change::Insert { new } => format!("{table:?} insert ({})", row(new)),
                Change::Update { old: before, new } => {
                    format!("{table:?} update {} to ({})", before.as_ref().map(old).unwrap_or_default(), row(new))
                }
                Change::Delete { old: before } => format!("{table:?} delete {}", old(before)),
            })
            .collect()
    };
    assert!(found == expected, "found {:#?}\nexpected {:#?}", show(&found), show(expected));
}

fn changes(events: &[Event]) -> Vec<(TableId, Change)> {
    let change = |event: &Event| match event {
        Event::Change { table, change } => Some((*table, change.clone())),
        _ => None,
    };
    events.iter().filter_map(change).collect()
}

fn int(value: i64) -> Value {
    Value::Binary(Bytes::copy_from_slice(&value.to_be_bytes()))
}

fn text(value: &str) -> Value {
    Value::Binary(Bytes::copy_from_slice(value.as_bytes()))
}

fn vector(values: &[f32]) -> Value {
    let mut bytes = u16::try_from(values.len()).expect("short").to_be_bytes().to_vec();
    bytes.extend([0, 0]);
    values.iter().for_each(|value| bytes.extend(value.to_be_bytes()));
    Value::Binary(bytes.into())
}

fn row<const N: usize>(values: [Value; N]) -> Row {
    Row(values.into())
}

/// A vector that is stored out of line, as pgvector's storage is `external`.
const LONG: &str = "(select array_agg(i)::vector from generate_series(1, 600) i)";

fn long() -> Value {
    vector(&(1..=600u16).map(f32::from).collect::<Vec<_>>())
}

#[tokio::test]
async fn the_catalog_tells_tables_types_keys_indexes_and_partitions() {
    for major in MAJORS {
        let database = Database::create(major).await;
        let settings = source(&database);
        database
            .client
            .batch_execute(
                "create domain embedding as vector(4);
                 create type mood as enum ('sad', 'ok');
                 create table \"Docs\" (title varchar(20) not null, id int8, e vector(3), d embedding, tags text[],
                   m mood, n numeric(10,2), g int generated always as (1 + 1) stored, gone int, primary key (id, title));
                 alter table \"Docs\" drop column gone;
                 create index by_e on \"Docs\" using hnsw (e vector_l2_ops) with (m = 8, ef_construction = 40);
                 insert into \"Docs\" (title, id) select 't', i from generate_series(1, 500) i;
                 analyze \"Docs\";
                 create table parts (id int8 primary key, e vector(2)) partition by range (id);
                 create table parts_1 partition of parts for values from (0) to (10);
                 create table parts_2 partition of parts for values from (10) to (20);
                 alter table parts_2 replica identity full;
                 create table later (id int8 primary key deferrable, b int8 unique not null);
                 alter table later replica identity using index later_b_key;
                 create view a_view as select 1;
                 create unlogged table fleeting (id int8);",
            )
            .await
            .expect("created");
        let connection = sql(&settings).await;
        let patterns = ["public.a_view", "public.*", "public.parts_1", "nowhere.*"].map(str::to_owned);
        let found = read_tables(&connection, &patterns).await.expect("catalog read");
        let names: Vec<(usize, &str)> = found.iter().map(|(pattern, table)| (*pattern, table.name.as_str())).collect();
        assert_eq!(
            names,
            [(1, "Docs"), (0, "a_view"), (1, "fleeting"), (1, "later"), (1, "parts"), (2, "parts_1")],
            "partitions come with their root, or by their own name"
        );
        let table = |name: &str| &found.iter().find(|(_, table)| table.name == name).expect("found").1;

        let docs = table("Docs");
        assert_eq!((docs.kind, docs.can_select, docs.unlogged_or_temporary), (RelationKind::Table, true, false));
        assert_eq!(docs.estimated_rows, Some(500));
        assert!(docs.bytes >= 8192 * 2);
        let key = docs.primary_key.as_ref().expect("a key");
        assert_eq!((key.columns.as_slice(), key.deferrable), (&["id".to_owned(), "title".to_owned()][..], false));
        let column = |name: &str| docs.columns.iter().find(|column| column.name == name).expect("a column");
        assert_eq!(docs.columns.len(), 8, "the dropped column is absent");
        assert_eq!(column("title").type_name, "character varying(20)");
        assert_eq!((column("e").data_type.extension.as_deref(), column("e").typmod), (Some("vector"), 3));
        assert!(column("g").generated && !column("e").generated);
        assert!(column("title").not_null && !column("e").not_null);
        let domain = &column("d").data_type;
        let TypeKind::Domain(base) = &domain.kind else { panic!("a domain: {domain:?}") };
        assert_eq!((base.name.as_str(), base.typmod, base.extension.as_deref()), ("vector", 4, Some("vector")));
        let TypeKind::Array(element) = &column("tags").data_type.kind else { panic!("an array") };
        assert_eq!(element.name, "text");
        assert_eq!(column("m").data_type.kind, TypeKind::Enum);
        let index = docs.indexes.iter().find(|index| index.name == "by_e").expect("an index");
        assert_eq!((index.method.as_str(), index.column.as_deref()), ("hnsw", Some("e")));
        assert_eq!(index.operator_class, "vector_l2_ops");
        assert_eq!(index.options, [("m".into(), "8".into()), ("ef_construction".into(), "40".into())]);

        let parts = table("parts");
        assert_eq!(parts.kind, RelationKind::PartitionedTable);
        let leaves: Vec<_> = parts.leaves.iter().map(|leaf| (leaf.name.as_str(), &leaf.replica_identity)).collect();
        assert_eq!(leaves, [("parts_1", &ReplicaIdentity::Default), ("parts_2", &ReplicaIdentity::Full)]);
        assert_eq!(table("parts_1").leaves[0].oid, table("parts_1").oid);

        assert!(table("later").primary_key.as_ref().is_some_and(|key| key.deferrable));
        assert_eq!(table("later").replica_identity, ReplicaIdentity::Index(vec!["b".to_owned()]));
        assert_eq!(table("a_view").kind, RelationKind::Other('v'));
        assert!(table("fleeting").unlogged_or_temporary);
    }
}

#[tokio::test]
async fn facts_tell_what_the_role_may_and_what_the_server_is_set_to() {
    for major in MAJORS {
        let database = Database::create(major).await;
        let mut settings = source(&database);
        let role = unique("reader");
        database
            .client
            .batch_execute(&format!(
                "create role {role} login password 'secret'; alter role {role} set timezone = 'Asia/Kathmandu';
                 alter role {role} set statement_timeout = '1ms'; alter role {role} set extra_float_digits = 0;
                 create table docs (id int8 primary key); create table closed (id int8 primary key);
                 grant select on docs to {role}; alter table docs enable row level security"
            ))
            .await
            .expect("created");
        let facts = read_facts(&sql(&settings).await).await.expect("facts");
        assert_eq!(facts.version_num / 10_000, u32::from(major));
        assert!(facts.superuser && facts.replication && !facts.in_recovery);
        assert_eq!((facts.wal_level.as_str(), facts.database.as_str()), ("logical", database.name.as_str()));
        assert_eq!((facts.max_slot_wal_keep_size_mb, facts.max_replication_slots), (None, 200));
        assert_eq!(facts.timeline, Some(1));
        let identity = Session::open(&settings, Lsn::ZERO).await.expect("session").identify().await.expect("identity");
        assert_eq!(facts.system_identifier, Some(identity.system_identifier));
        assert_eq!((identity.timeline, identity.database), (1, database.name.clone()));

        settings.user = role;
        settings.password = Some(Secret::new("secret"));
        let connection = sql(&settings).await;
        let facts = read_facts(&connection).await.expect("facts");
        assert!(!facts.superuser && !facts.replication);
        let zone: String = connection.query_one("show timezone", &[]).await.expect("row").get(0);
        assert_eq!(zone, "UTC", "our pins outrank the role's settings");
        let found = tables(&settings, &["docs", "closed"]).await;
        let rights = |i: usize| (found[i].name.as_str(), found[i].can_select, found[i].row_security_applies);
        assert_eq!([rights(0), rights(1)], [("closed", false, false), ("docs", true, true)]);
        let refused = match Session::open(&settings, Lsn::ZERO).await {
            Ok(_) => panic!("a role without REPLICATION got a replication session"),
            Err(error) => error,
        };
        assert_eq!(refused.disposition(), Disposition::Definite, "{refused:?}");
    }
}

#[tokio::test]
async fn the_publication_is_made_extended_or_refused_with_the_statement_that_mends_it() {
    for major in MAJORS {
        let database = Database::create(major).await;
        let mut settings = source(&database);
        database
            .client
            .batch_execute(
                "create table a (id int8 primary key, x int); create table b (id int8 primary key) partition by hash (id);
                 create table b_0 partition of b for values with (modulus 1, remainder 0)",
            )
            .await
            .expect("created");
        let connection = sql(&settings).await;
        let both = tables(&settings, &["a", "b"]).await;

        settings.create = false;
        match ensure_publication(&connection, &settings, &both).await {
            Err(PostgresError::Publication { mend, .. }) => {
                assert!(mend[0].starts_with("CREATE PUBLICATION"), "{mend:?}")
            }
            other => panic!("made without permission: {other:?}"),
        }
        settings.create = true;
        let made = ensure_publication(&connection, &settings, &both[..1]).await.expect("made");
        assert!(made.via_root && made.owned && made.insert && made.update && made.delete && made.truncate);
        let names = |publication: &walvec::postgres::publication::Publication| -> Vec<String> {
            publication.tables.iter().map(|table| table.name.clone()).collect()
        };
        assert_eq!(names(&made), ["a"]);
        let extended = ensure_publication(&connection, &settings, &both).await.expect("extended");
        assert_eq!(names(&extended), ["a", "b"], "a partitioned table is published as its root");

        settings.publication = unique("filtered");
        let create = format!(
            "create publication {} for table a (id, x) where (id > 1), b with (publish = 'insert,update')",
            settings.publication
        );
        database.client.batch_execute(&create).await.expect("created");
        let Err(PostgresError::Publication { problems, mend, .. }) =
            ensure_publication(&connection, &settings, &both).await
        else {
            panic!("a publication that loses changes was accepted")
        };
        for sentence in ["DELETE and TRUNCATE", "partitions of public.b", "row filter on public.a", "column list on"] {
            assert!(problems.iter().any(|problem| problem.contains(sentence)), "{sentence}: {problems:?}");
        }
        for statement in mend {
            database.client.batch_execute(&statement).await.expect(&statement);
        }
        ensure_publication(&connection, &settings, &both).await.expect("the statements mend it");
        assert_eq!(read_publication(&connection, "absent").await.expect("read"), None);
    }
}

#[tokio::test]
async fn a_slot_that_cannot_be_made_names_the_blocker_and_leaves_nothing() {
    for major in MAJORS {
        let database = Database::create(major).await;
        let mut settings = source(&database);
        // Names that need their quotes, and a wait that another test's transactions cannot end.
        settings.slot = format!("1_{}", settings.slot);
        settings.slot_lock_timeout = Duration::from_millis(300);
        let writer = database.session().await;
        writer
            .batch_execute("set application_name = 'the culprit'; begin; create table t (id int)")
            .await
            .expect("open");
        let pid: i32 = writer.query_one("select pg_backend_pid()", &[]).await.expect("row").get(0);
        let mut session = Session::open(&settings, Lsn::ZERO).await.expect("session");
        match session.create_slot().await {
            Err(error @ PostgresError::SlotBlocked { .. }) => {
                let text = error.to_string();
                assert!(text.contains(&format!("pid {pid}, the culprit")), "{text}");
                assert_eq!(error.disposition(), Disposition::Transient);
            }
            other => panic!("created beside a writer: {other:?}"),
        }
        assert_eq!(session.slot().await.expect("read"), None, "a half-made slot was left");
        writer.batch_execute("rollback").await.expect("ended");
        let consistent_point = until("the slot is made on the same session", PATIENCE, async || {
            match session.create_slot().await {
                Ok(lsn) => Some(lsn),
                Err(PostgresError::SlotBlocked { .. }) => None, // another test writes
                Err(error) => panic!("{error:?}"),
            }
        })
        .await;
        let slot = session.slot().await.expect("read").expect("made");
        assert_eq!((slot.name.as_str(), slot.plugin.as_deref()), (settings.slot.as_str(), Some("pgoutput")));
        assert_eq!(slot.confirmed_flush_lsn, Some(consistent_point));
        assert_eq!((slot.active_pid, slot.temporary, slot.two_phase), (None, false, false));
        match session.create_slot().await {
            Err(error) => assert_eq!(error.sqlstate(), Some("42710"), "{error:?}"),
            Ok(_) => panic!("made twice"),
        }
    }
}

#[tokio::test]
async fn every_kind_of_change_comes_out_as_postgres_made_it() {
    for major in MAJORS {
        let database = Database::create(major).await;
        let settings = source(&database);
        let client = &database.client;
        client
            .batch_execute(
                "create table docs (id int8 primary key, title text, e vector(600));
                 create table whole (id int8 primary key, e vector(600)); alter table whole replica identity full;
                 create table other (id int8 primary key)",
            )
            .await
            .expect("created");
        let both = tables(&settings, &["docs", "whole"]).await;
        let (mut stream, consistent_point) = first_stream(&settings, &both).await;
        let (docs, whole) = (TableId(0), TableId(1));
        let unchanged = || Value::UnchangedToast;

        client.batch_execute(&format!("insert into docs values (1, 'a', {LONG})")).await.expect("written");
        let seen = commits(&mut stream, 1).await;
        let [Event::Begin { final_lsn, xid, commit_micros }, Event::Change { .. }, Event::Commit { end_lsn }] =
            &seen[..]
        else {
            panic!("not one transaction of one change: {seen:?}")
        };
        assert!(consistent_point <= *final_lsn && final_lsn < end_lsn && *xid > 0);
        let now: i64 =
            client.query_one("select (extract(epoch from now()) * 1000000)::int8", &[]).await.expect("row").get(0);
        assert!((now - commit_micros).abs() < 60_000_000, "the commit time is of today: {commit_micros}");
        assert_changes(&seen, &[(docs, Change::Insert { new: row([int(1), text("a"), long()]) })]);

        client
            .batch_execute(&format!(
                "begin;
                 update docs set title = null where id = 1;
                 update docs set id = 2 where id = 1;
                 update docs set e = {LONG}, title = 'c' where id = 2;
                 delete from docs where id = 2;
                 commit;
                 begin;
                 insert into whole values (7, {LONG});
                 update whole set id = 8 where id = 7;
                 delete from whole where id = 8;
                 commit"
            ))
            .await
            .expect("written");
        let key = |id| OldRow::Key(row([int(id), Value::Null, Value::Null]));
        assert_changes(
            &commits(&mut stream, 2).await,
            &[
                (docs, Change::Update { old: None, new: row([int(1), Value::Null, unchanged()]) }),
                (docs, Change::Update { old: Some(key(1)), new: row([int(2), Value::Null, unchanged()]) }),
                (docs, Change::Update { old: None, new: row([int(2), text("c"), long()]) }),
                (docs, Change::Delete { old: key(2) }),
                (whole, Change::Insert { new: row([int(7), long()]) }),
                (whole, Change::Update { old: Some(OldRow::Full(row([int(7), long()]))), new: row([int(8), long()]) }),
                (whole, Change::Delete { old: OldRow::Full(row([int(8), long()])) }),
            ],
        );

        // A savepoint that is rolled back never appears, a foreign message is ignored, ours is not, TRUNCATE
        // names every table, and another table's changes are nobody's.
        client
            .batch_execute(
                "begin; savepoint s; insert into docs values (3); rollback to s;
                 select pg_logical_emit_message(true, 'somebody', E'\\\\x00ff'::bytea);
                 select pg_logical_emit_message(true, 'walvec', 'fence 1');
                 insert into docs values (4); truncate docs, whole; insert into docs values (5); insert into other values (1);
                 commit",
            )
            .await
            .expect("written");
        let seen = commits(&mut stream, 1).await;
        let [
            Event::Begin { .. },
            Event::Message { content, .. },
            Event::Change { .. },
            Event::Truncate { tables: emptied },
            Event::Change { change: after, .. },
            Event::Commit { .. },
        ] = &seen[..]
        else {
            panic!("unexpected: {seen:?}")
        };
        assert_eq!(content.as_ref(), b"fence 1");
        assert_eq!(emptied.iter().collect::<BTreeSet<_>>(), BTreeSet::from([&docs, &whole]));
        assert_eq!(*after, Change::Insert { new: row([int(5), Value::Null, Value::Null]) });

        // A transaction that was replayed here from elsewhere.
        let origin = unique("origin");
        client
            .batch_execute(&format!(
                "select pg_replication_origin_create('{origin}'); select pg_replication_origin_session_setup('{origin}');
                 begin; select pg_replication_origin_xact_setup('0/42', now()); insert into docs values (6); commit;
                 select pg_replication_origin_session_reset(); select pg_replication_origin_drop('{origin}')"
            ))
            .await
            .expect("written");
        let seen = events(&mut stream, |events| !changes(events).is_empty()).await;
        assert_changes(&seen, &[(docs, Change::Insert { new: row([int(6), Value::Null, Value::Null]) })]);
    }
}

#[tokio::test]
async fn a_changed_table_is_told_once_and_an_added_column_is_no_concern() {
    for major in MAJORS {
        let database = Database::create(major).await;
        let settings = source(&database);
        let client = &database.client;
        client
            .batch_execute(
                "create table a (id int8 primary key, x text); create table b (id int8 primary key, e vector(3))",
            )
            .await
            .expect("created");
        let both = tables(&settings, &["a", "b"]).await;
        let (mut stream, _) = first_stream(&settings, &both).await;
        client
            .batch_execute(
                "alter table a add column y int default 5; insert into a values (1, 'x', 2);
                 alter table b alter e type vector(4); insert into b values (1, '[1,2,3,4]');
                 insert into b values (2, '[1,2,3,4]'); alter table b drop column e;
                 insert into a values (2, 'z', 3)",
            )
            .await
            .expect("written");
        let seen = events(&mut stream, |events| changes(events).len() >= 2).await;
        let a = |id, x: &str| (TableId(0), Change::Insert { new: row([int(id), text(x)]) });
        assert_changes(&seen, &[a(1, "x"), a(2, "z")]);
        let reasons: Vec<&String> = seen
            .iter()
            .filter_map(|event| match event {
                Event::Unfit { table, reason } => {
                    assert_eq!(*table, TableId(1));
                    Some(reason)
                }
                _ => None,
            })
            .collect();
        assert_eq!(reasons.len(), 1, "{reasons:?}");
        assert!(reasons[0].contains("\"e\"") && reasons[0].contains("4 instead of 3"), "{}", reasons[0]);
    }
}

#[tokio::test]
async fn partitions_come_as_their_root_and_a_leaf_that_is_not_full_gives_keys_only() {
    for major in MAJORS {
        let database = Database::create(major).await;
        let settings = source(&database);
        let client = &database.client;
        client
            .batch_execute(
                "create table parts (id int8, place int8, e vector(600), primary key (id, place)) partition by list (place);
                 create table parts_1 partition of parts for values in (1);
                 create table parts_2 (e vector(600), place int8 not null, extra int, id int8 not null);
                 alter table parts_2 drop column extra;
                 alter table parts attach partition parts_2 for values in (2);
                 alter table parts replica identity full",
            )
            .await
            .expect("created");
        let parts = tables(&settings, &["parts"]).await;
        let (mut stream, _) = first_stream(&settings, &parts).await;
        client
            .batch_execute(&format!(
                "insert into parts values (1, 1, {LONG}), (2, 2, {LONG});
                 update parts set place = 2 where id = 1;
                 delete from parts where id = 2;
                 alter table parts_1 replica identity full; alter table parts_2 replica identity full;
                 insert into parts values (3, 1, null); delete from parts where id in (1, 3);
                 truncate parts"
            ))
            .await
            .expect("written");
        let seen =
            events(&mut stream, |events| events.iter().any(|event| matches!(event, Event::Truncate { .. }))).await;
        let id = TableId(0);
        let at = |key, place| row([int(key), int(place), Value::Null]);
        assert_changes(
            &seen,
            &[
                (id, Change::Insert { new: row([int(1), int(1), long()]) }),
                (id, Change::Insert { new: row([int(2), int(2), long()]) }),
                // Row movement is a delete in one leaf and a whole insert in the other.
                (id, Change::Delete { old: OldRow::Key(at(1, 1)) }),
                (id, Change::Insert { new: row([int(1), int(2), long()]) }),
                (id, Change::Delete { old: OldRow::Key(at(2, 2)) }),
                (id, Change::Insert { new: at(3, 1) }),
                // parts_2 is FULL too by now, but the stream says so only with its next change.
                (id, Change::Delete { old: OldRow::Key(at(3, 1)) }),
                (id, Change::Delete { old: OldRow::Full(row([int(1), int(2), long()])) }),
            ],
        );
    }
}

#[tokio::test]
async fn a_publication_by_leaf_maps_each_leaf_by_name() {
    for major in MAJORS {
        let database = Database::create(major).await;
        let settings = source(&database);
        let client = &database.client;
        client
            .batch_execute(&format!(
                "create table parts (id int8 primary key, title text) partition by range (id);
                 create table low (title text, id int8 not null); alter table parts attach partition low for values from (0) to (10);
                 create table high partition of parts for values from (10) to (20);
                 create publication \"{}\" for table parts",
                settings.publication
            ))
            .await
            .expect("created");
        let parts = tables(&settings, &["parts"]).await;
        let mut session = Session::open(&settings, Lsn::ZERO).await.expect("session");
        session.create_slot().await.expect("slot");
        let mut stream = session.start(all_tracked(&parts)).await.expect("started");
        client
            .batch_execute("insert into parts values (1, 'low'), (11, 'high'); truncate parts; truncate low")
            .await
            .expect("written");
        let seen = events(&mut stream, |events| events.iter().any(|event| matches!(event, Event::Unfit { .. }))).await;
        let insert = |id, title: &str| (TableId(0), Change::Insert { new: row([int(id), text(title)]) });
        assert_changes(&seen, &[insert(1, "low"), insert(11, "high")]);
        assert!(seen.contains(&Event::Truncate { tables: vec![TableId(0)] }), "{seen:?}");
    }
}

#[tokio::test]
async fn a_stream_resumes_at_its_checkpoint_and_nowhere_else() {
    for major in MAJORS {
        let database = Database::create(major).await;
        let settings = source(&database);
        let client = &database.client;
        client.batch_execute("create table docs (id int8 primary key)").await.expect("created");
        let docs = tables(&settings, &["docs"]).await;
        let (mut stream, consistent_point) = first_stream(&settings, &docs).await;
        let mut ends = Vec::new();
        for id in 1..=4 {
            client.execute("insert into docs values ($1)", &[&i64::from(id)]).await.expect("written");
            let seen = commits(&mut stream, 1).await;
            let Some(Event::Commit { end_lsn }) = seen.last() else { panic!("no commit: {seen:?}") };
            ends.push(*end_lsn);
        }
        // Confirmed is 1, the checkpoint is 2: 3 and 4 come again, and nothing else.
        stream.confirm(ends[0]);
        stream.shutdown(PATIENCE).await.expect("the last position was told");
        let probe = Probe::connect(&settings).await.expect("probe");
        let slot = probe.slot(&settings.slot).await.expect("read").expect("there");
        assert_eq!(slot.confirmed_flush_lsn, Some(ends[0]), "shutdown waits until the position was told");
        assert!(ends[0] > consistent_point);

        let mut stream = streams_from(&settings, &docs, ends[1]).await;
        let inserted: Vec<Value> = changes(&commits(&mut stream, 2).await)
            .into_iter()
            .map(|(_, change)| match change {
                Change::Insert { new } => new.0[0].clone(),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(inserted, [int(3), int(4)]);

        // Somebody else holds the slot: the gate waits, and START_REPLICATION is refused as transient.
        let mut second = Session::open(&settings, ends[1]).await.expect("session");
        let (identity, slot) = (second.identify().await.expect("identity"), second.slot().await.expect("slot"));
        let saved = Saved {
            system_identifier: identity.system_identifier,
            timeline: identity.timeline,
            checkpoint: ends[1],
            sent_limit: ends[1],
        };
        match decide(Some(&saved), &identity, slot.as_ref()) {
            Verdict::Wait(reason) => assert!(reason.contains(&settings.application_name), "{reason}"),
            other => panic!("{other:?}"),
        }
        match second.start(Vec::new()).await {
            Err(error) => assert_eq!(error.sqlstate(), Some("55006"), "{error:?}"),
            Ok(_) => panic!("two streams on one slot"),
        }
        stream.abort();
        let slot = until("the slot is released", PATIENCE, async || {
            probe.slot(&settings.slot).await.expect("read").filter(|slot| slot.active_pid.is_none())
        })
        .await;
        assert_eq!(decide(Some(&saved), &identity, Some(&slot)), Verdict::StartAt(ends[1]));
        let behind = Saved { checkpoint: consistent_point, ..saved };
        assert!(matches!(decide(Some(&behind), &identity, Some(&slot)), Verdict::Refuse(_)), "the slot is ahead");
    }
}

#[tokio::test]
async fn idle_neighbours_move_the_position_by_keepalives() {
    let database = Database::create(18).await;
    let mut settings = source(&database);
    settings.wal_sender_timeout = Duration::from_secs(2);
    database
        .client
        .batch_execute("create table docs (id int8 primary key); create table busy (id int8)")
        .await
        .expect("");
    let docs = tables(&settings, &["docs"]).await;
    let (mut stream, _) = first_stream(&settings, &docs).await;
    database.client.batch_execute("insert into busy select generate_series(1, 1000)").await.expect("written");
    let probe = Probe::connect(&settings).await.expect("probe");
    let target = probe.insert_lsn().await.expect("position");
    let reading = async {
        loop {
            let mut batch = Vec::new();
            stream.next_batch(&mut batch, 1 << 20).await.expect("stream");
            let [Event::KeepAlive { wal_end, server_micros }] = batch[..] else { panic!("{batch:?}") };
            assert!(server_micros > 1_500_000_000_000_000, "microseconds since 1970: {server_micros}");
            stream.confirm(wal_end);
            if wal_end >= target {
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, reading).await.expect("keepalives pass the neighbour's writes");
    until("the slot follows", PATIENCE, async || {
        let slot = probe.slot(&settings.slot).await.expect("read").expect("there");
        slot.confirmed_flush_lsn.filter(|&confirmed| confirmed >= target)
    })
    .await;
    assert!(stream.stats().confirmed_lsn >= target);
}

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
        Session::open(&settings, Lsn::ZERO).await.err().expect("stalled"),
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
async fn chunks_cover_a_table_exactly_once_while_it_is_written_to() {
    for major in MAJORS {
        let database = Database::create(major).await;
        let settings = source(&database);
        let client = &database.client;
        client
            .batch_execute(&format!(
                "create table docs (id int8 primary key, gone int, title text, e vector(600));
                 insert into docs select i, 1, 'title ' || i, case when i % 3 = 0 then {LONG} end from generate_series(1, 3000) i;
                 alter table docs drop column gone; delete from docs where id % 10 = 0"
            ))
            .await
            .expect("written");
        let docs = tables(&settings, &["docs"]).await;
        let leaf = docs[0].leaves[0].oid;
        let connection = sql(&settings).await;
        let planned = plan_ranges(&connection, leaf, 1 << 20).await.expect("planned");
        assert!(planned.ranges.len() > 3, "{:?}", planned.ranges);
        let columns = ["title".to_owned(), "id".to_owned(), "e".to_owned()];
        let mut reader = ChunkReader::connect(&settings).await.expect("reader");
        let probe = Probe::connect(&settings).await.expect("probe");

        for bytes_max in [usize::MAX, 64 << 10] {
            let mut seen: Vec<i64> = Vec::new();
            let mut todo = planned.ranges.clone();
            let mut split = 0;
            todo.reverse();
            while let Some(range) = todo.pop() {
                let view = reader.begin(leaf).await.expect("begun");
                assert_eq!(view.filenode, planned.filenode);
                assert!(view.insert_lsn <= probe.insert_lsn().await.expect("position"));
                let chunk = reader.read_rows(&columns, range, bytes_max).await.expect("read");
                reader.finish().await.expect("ended");
                assert_eq!(chunk.bytes, chunk.rows.iter().map(Row::size).sum::<usize>());
                for row in &chunk.rows {
                    let Value::Binary(id) = &row.0[1] else { panic!("{row:?}") };
                    let id = i64::from_be_bytes(id[..].try_into().expect("eight bytes"));
                    assert_eq!(row.0[0], text(&format!("title {id}")));
                    assert_eq!(row.0[2], if id % 3 == 0 { long() } else { Value::Null });
                    seen.push(id);
                }
                if let Some(rest) = chunk.rest {
                    assert!(rest.from_block > range.from_block && rest.to_block == range.to_block, "{rest:?}");
                    split += 1;
                    todo.push(rest);
                }
            }
            assert_eq!(split > 0, bytes_max < usize::MAX);
            seen.sort_unstable();
            let expected: Vec<i64> = (1..=3000).filter(|id| id % 10 != 0).collect();
            assert_eq!(seen, expected, "every row once");
        }

        // The last range is open above: rows that came after the plan are in it.
        client.batch_execute("insert into docs select i, 'late' from generate_series(10001, 12000) i").await.expect("");
        reader.begin(leaf).await.expect("begun");
        let last = *planned.ranges.last().expect("a range");
        let late = reader.read_rows(&columns, last, usize::MAX).await.expect("read");
        assert!(late.rows.iter().filter(|row| row.0[0] == text("late")).count() > 1000);

        // The snapshot stays the same within a chunk and is another after `resnapshot`.
        client.batch_execute("insert into docs values (20000, 'later')").await.expect("written");
        let count = |chunk: &walvec::postgres::copy::ChunkRows| chunk.rows.len();
        let again = reader.read_rows(&columns, last, usize::MAX).await.expect("read");
        assert_eq!(count(&again), count(&late));
        reader.resnapshot().await.expect("again");
        let again = reader.read_rows(&columns, last, usize::MAX).await.expect("read");
        assert_eq!(count(&again), count(&late) + 1);
    }
}

#[tokio::test]
async fn a_rewrite_is_seen_by_the_file_node_and_never_as_an_empty_table() {
    for major in MAJORS {
        let database = Database::create(major).await;
        let settings = source(&database);
        let client = &database.client;
        client
            .batch_execute("create table docs (id int8 primary key); insert into docs select generate_series(1, 100)")
            .await
            .expect("written");
        let leaf = tables(&settings, &["docs"]).await[0].oid;
        let planned = plan_ranges(&sql(&settings).await, leaf, 1 << 20).await.expect("planned");
        let mut reader = ChunkReader::connect(&settings).await.expect("reader");
        let all = Range { from_block: 0, to_block: None };
        let columns = ["id".to_owned()];

        let view = reader.begin(leaf).await.expect("begun");
        assert_eq!(view.filenode, planned.filenode);
        // The rewrite waits for our chunk, which still reads everything.
        let mut rewriter = tokio::spawn({
            let session = database.session().await;
            async move { session.batch_execute("vacuum full docs").await }
        });
        let waiting = "select count(*) from pg_locks where relation = 'docs'::regclass and not granted";
        until("the rewrite waits", PATIENCE, async || {
            let count: i64 = client.query_one(waiting, &[]).await.expect("row").get(0);
            (count > 0).then_some(())
        })
        .await;
        assert_eq!(reader.read_rows(&columns, all, usize::MAX).await.expect("read").rows.len(), 100);
        assert!(!rewriter.is_finished());
        reader.finish().await.expect("ended");
        tokio::time::timeout(PATIENCE, &mut rewriter).await.expect("in time").expect("joined").expect("rewritten");

        let view = reader.begin(leaf).await.expect("begun");
        assert_ne!(view.filenode, planned.filenode, "a rewrite gives another file node");
        assert_eq!(reader.read_rows(&columns, all, usize::MAX).await.expect("read").rows.len(), 100);
        reader.finish().await.expect("ended");

        // Its name may change, it may not.
        client.batch_execute("alter table docs rename to papers").await.expect("renamed");
        reader.begin(leaf).await.expect("found by its oid");
        match reader.read_rows(&["absent".to_owned()], all, usize::MAX).await {
            Err(error) => assert_eq!(error.sqlstate(), Some("42703"), "{error:?}"),
            Ok(_) => panic!("a column that is not there was read"),
        }
        let view = reader.begin(leaf).await.expect("usable after an error");
        assert_ne!(view.filenode, planned.filenode);
        reader.finish().await.expect("ended");
        client.batch_execute("drop table papers; create table papers (id int8)").await.expect("made anew");
        let error = reader.begin(leaf).await.expect_err("another table");
        assert!(matches!(error, PostgresError::RelationChanged { oid } if oid == leaf), "{error:?}");
    }
}

#[tokio::test]
async fn rows_are_fetched_by_keys_of_every_kind() {
    for major in MAJORS {
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
            columns: columns.iter().map(|&column| column.to_owned()).collect(),
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
    let options = PostgresOptions { settings: settings_of_server.to_vec(), ..PostgresOptions::default() };
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
    ensure_publication(&connection, &settings, &docs).await.expect("published");
    let mut session = Session::open(&settings, Lsn::ZERO).await.expect("session");
    session.create_slot().await.expect("slot");
    let mut stream = session.start(all_tracked(&docs)).await.expect("started");

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
        columns: vec!["e".to_owned()],
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

#[tokio::test]
async fn our_message_comes_back_and_positions_only_grow() {
    let database = Database::create(18).await;
    let settings = source(&database);
    database.client.batch_execute("create table docs (id int8 primary key)").await.expect("created");
    let docs = tables(&settings, &["docs"]).await;
    let (mut stream, consistent_point) = first_stream(&settings, &docs).await;
    let probe = Probe::connect(&settings).await.expect("probe");
    let first = probe.current_xid().await.expect("xid");
    let at = probe.emit("it's a fence \\").await.expect("written");
    let seen = events(&mut stream, |events| events.iter().any(|event| matches!(event, Event::Message { .. }))).await;
    let message = seen.iter().find(|event| matches!(event, Event::Message { .. }));
    let Some(Event::Message { lsn, content }) = message else { panic!("{seen:?}") };
    assert_eq!(content.as_ref(), b"it's a fence \\");
    assert!(*lsn <= at && *lsn >= consistent_point, "{lsn} {at}");
    let flushed = probe.flush_lsn().await.expect("position");
    assert!(flushed >= at && probe.insert_lsn().await.expect("position") >= flushed);
    assert!(probe.current_xid().await.expect("xid") > first);
    probe.close().await.expect("closed");
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
        let session = Session::open(&settings, Lsn::ZERO).await;
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
    let refused = Session::open(&renamed, Lsn::ZERO).await.err().expect("refused for the name");
    assert!(refused.hint().is_some_and(|hint| hint.contains("certificate")), "{refused:?}");

    let mut settings = settings(&server, "postgres");
    settings.user = "certified".to_owned();
    settings.password = Some(Secret::new("secret"));
    (settings.sslmode, settings.sslrootcert) = (SslMode::VerifyFull, root);
    assert!(connect(&settings, "sql").await.is_err(), "no client certificate");
    assert!(Session::open(&settings, Lsn::ZERO).await.is_err(), "no client certificate");
    (settings.sslcert, settings.sslkey) = client_files;
    connect(&settings, "sql").await.expect("with a client certificate");
    Session::open(&settings, Lsn::ZERO).await.map(drop).expect("with a client certificate");
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
    let identity = Session::open(&settings, Lsn::ZERO).await.expect("session").identify().await.expect("identity");
    assert_eq!(identity.database, "postgres");
}

#[tokio::test]
async fn a_slot_whose_wal_was_removed_is_refused_and_the_error_of_the_stream_says_so_too() {
    for major in MAJORS {
        let sizes = [("max_slot_wal_keep_size", "1MB"), ("max_wal_size", "32MB"), ("min_wal_size", "32MB")];
        let sizes = sizes.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        let options = PostgresOptions { major, settings: sizes, ..PostgresOptions::default() };
        let server = Postgres::start(options).await.expect("PostgreSQL starts");
        let settings = settings(&server, "postgres");
        let client = server.connect("postgres").await.expect("connected");
        client.batch_execute("create table docs (id int8 primary key)").await.expect("created");
        let docs = tables(&settings, &["docs"]).await;
        let (stream, consistent_point) = first_stream(&settings, &docs).await;
        stream.abort();
        let probe = Probe::connect(&settings).await.expect("probe");
        let lost = until("the slot is lost", PATIENCE, async || {
            client
                .batch_execute(
                    "insert into docs select coalesce(max(id), 0) + 1 from docs; select pg_switch_wal(); checkpoint",
                )
                .await
                .expect("written");
            let slot = probe.slot(&settings.slot).await.expect("read").expect("there");
            slot.wal_status.filter(|&status| status == walvec::postgres::slot::WalStatus::Lost).map(|_| slot)
        })
        .await;
        let mut session = Session::open(&settings, consistent_point).await.expect("session");
        let identity = session.identify().await.expect("identity");
        let saved = Saved {
            system_identifier: identity.system_identifier,
            timeline: identity.timeline,
            checkpoint: consistent_point,
            sent_limit: consistent_point,
        };
        assert_eq!(session.slot().await.expect("read").as_ref(), Some(&lost));
        match decide(Some(&saved), &identity, Some(&lost)) {
            Verdict::Refuse(refusal @ GateRefusal::SlotLost { .. }) => {
                assert!(refusal.way_out().contains(&settings.slot), "{}", refusal.way_out());
            }
            other => panic!("{other:?}"),
        }
        match session.start(all_tracked(&docs)).await {
            Err(error) => assert_eq!((error.sqlstate(), error.disposition()), (Some("55000"), Disposition::Definite)),
            Ok(_) => panic!("a lost slot streams"),
        }
    }
}

#[tokio::test]
async fn a_new_timeline_is_followed_only_from_before_its_switch() {
    let mut server = Postgres::start(PostgresOptions::default()).await.expect("PostgreSQL starts");
    let settings = settings(&server, "postgres");
    let client = server.connect("postgres").await.expect("connected");
    client.batch_execute("create table docs (id int8 primary key)").await.expect("created");
    let docs = tables(&settings, &["docs"]).await;
    let (mut stream, _) = first_stream(&settings, &docs).await;
    client.batch_execute("insert into docs values (1)").await.expect("written");
    let seen = commits(&mut stream, 1).await;
    let Some(&Event::Commit { end_lsn: checkpoint }) = seen.last() else { panic!("{seen:?}") };
    stream.shutdown(PATIENCE).await.expect("ended");
    let before = Session::open(&settings, checkpoint).await.expect("session").identify().await.expect("identity");
    assert_eq!((before.timeline, before.history.len()), (1, 0));

    // As a restored backup does: recovery to the end of the WAL, then a timeline of its own.
    server.stop(Stop::Fast).await.expect("stopped");
    std::fs::write(server.directory().join("data/recovery.signal"), "").expect("written");
    configure(&server, "restore_command = 'false'");
    server.restart().await.expect("recovered");
    until("recovery is over", PATIENCE, async || {
        let client = server.connect("postgres").await.ok()?;
        let recovering: bool = client.query_one("select pg_is_in_recovery()", &[]).await.ok()?.get(0);
        (!recovering).then_some(())
    })
    .await;

    let mut session = Session::open(&settings, checkpoint).await.expect("session");
    let (identity, slot) = (session.identify().await.expect("identity"), session.slot().await.expect("slot"));
    assert_eq!(identity.system_identifier, before.system_identifier);
    let [switch] = identity.history[..] else { panic!("{identity:?}") };
    assert_eq!((identity.timeline, switch.timeline), (2, 1));
    assert!(switch.switch_lsn >= checkpoint);
    let saved = Saved { system_identifier: before.system_identifier, timeline: 1, checkpoint, sent_limit: checkpoint };
    assert_eq!(decide(Some(&saved), &identity, slot.as_ref()), Verdict::StartAt(checkpoint));
    let sent = Saved { sent_limit: Lsn(switch.switch_lsn.0 + 1), ..saved };
    let diverged = GateRefusal::Diverged { timeline: 1, switch_lsn: switch.switch_lsn, limit: sent.sent_limit };
    assert_eq!(decide(Some(&sent), &identity, slot.as_ref()), Verdict::Refuse(diverged));

    server.connect("postgres").await.expect("connected").batch_execute("insert into docs values (2)").await.expect("");
    let mut stream = session.start(all_tracked(&docs)).await.expect("started");
    let insert = (TableId(0), Change::Insert { new: row([int(2)]) });
    assert_changes(&commits(&mut stream, 1).await, &[insert]);
}

/// Adds a line to postgresql.conf.
fn configure(server: &Postgres, line: &str) {
    use std::io::Write;
    let path = server.directory().join("data/postgresql.conf");
    let mut file = std::fs::OpenOptions::new().append(true).open(path).expect("opened");
    writeln!(file, "{line}").expect("written");
}
