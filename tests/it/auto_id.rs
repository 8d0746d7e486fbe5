//! Tables whose rows have no key: numbered, copied once and followed, beside writers and kills; and what cannot be followed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use walvec::milvus::{ColumnData, DataType, Key, Query, Selection};
use walvec::verify::{self, TableReport, Verdict, VerifyOptions};

use crate::support::daemon::{Daemon, walvec};
use crate::support::postgres::major;
use crate::support::scene::{PATIENCE, Scene, embedding};

const COLUMNS: &str = "n int, title text, embedding vector(8) not null";

/// `count` rows with these numbers, each as often as `times` says.
fn rows(table: &str, from: i64, to: i64, times: i64) -> String {
    format!(
        "insert into {table} select i, 'row ' || i, {} from generate_series({from}, {to}) i, generate_series(1, {times})",
        embedding("i", 8)
    )
}

async fn keyless(scene: &mut Scene, lines: &str) -> String {
    let table = scene.table(COLUMNS).await;
    scene.sql(&format!("alter table {table} replica identity full")).await;
    scene.set_lines(&table, &format!("auto_id = true\n{lines}"));
    table
}

/// Of each `n` how many entities have it, and all keys.
async fn entities(scene: &Scene, table: &str) -> (BTreeMap<i32, usize>, Vec<i64>) {
    let target = walvec::pipeline::connect_target(&scene.settings().target).expect("a client");
    let collection = scene.collection(table);
    let fields: [Arc<str>; 2] = [Arc::from("pk"), Arc::from("n")];
    let (mut found, mut keys) = (BTreeMap::new(), Vec::new());
    loop {
        let after = keys.last().copied().map(Key::Int64);
        let selection = Selection::After { after: after.as_ref(), limit: 5000 };
        let query = Query { collection: &collection, selection, output_fields: &fields };
        let columns = target.query(query).await.expect("read");
        let (ColumnData::Int64(more), ColumnData::Int32(numbers)) = (&columns[0].data, &columns[1].data) else {
            panic!("{columns:?}")
        };
        if more.is_empty() {
            return (found, keys);
        }
        for n in numbers {
            *found.entry(*n).or_default() += 1;
        }
        keys.extend(more);
    }
}

/// Each row as many entities as there are rows like it.
async fn assert_same(scene: &Scene, table: &str) {
    let sql = format!("select n, count(*) from {table} group by n");
    let rows = scene.client.query(&sql, &[]).await.expect("counted");
    let expected: BTreeMap<i32, usize> = rows.iter().map(|row| (row.get(0), row.get::<_, i64>(1) as usize)).collect();
    let (found, _) = entities(scene, table).await;
    let wrong: Vec<_> = expected.iter().filter(|(n, count)| found.get(n) != Some(count)).take(5).collect();
    assert!(found == expected, "{} and {} kinds of rows, first {wrong:?}", expected.len(), found.len());
}

async fn report(scene: &Scene) -> TableReport {
    let report = verify::verify(&scene.settings(), VerifyOptions::default(), |_| {}).await.expect("can be read");
    report.tables.into_iter().find(|table| table.counted).expect("a numbered table")
}

async fn stopped(daemon: &mut Daemon, sentence: &str) {
    daemon.status("the table stops", PATIENCE, |status| status["tables"].to_string().contains(sentence)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_row_is_one_entity_beside_writers_and_kills() {
    for (major, kills) in [(18, 2), (16, 0)] {
        let mut scene = Scene::shared(major).await;
        scene.extra = "[pipeline]\nchunk_bytes = \"1 MiB\"\ncheckpoint_interval = \"50ms\"".to_owned();
        let table = keyless(&mut scene, "").await;
        scene.sql(&rows(&table, 1, 5_000, 2)).await;
        // Our sessions have none of it: the snapshot is idle while the target takes what was read.
        let database = scene.database();
        scene.sql(&format!("alter database {database} set idle_in_transaction_session_timeout = '20ms'")).await;
        // Transactions that are open when the snapshot is taken, of all lengths, with savepoints that are rolled back.
        let done = Arc::new(AtomicBool::new(false));
        let writers: Vec<_> = (0..3i64)
            .map(|writer| {
                let (url, done, table) = (scene.source_url.clone(), Arc::clone(&done), table.clone());
                tokio::spawn(async move {
                    let (client, connection) =
                        tokio_postgres::connect(&url, tokio_postgres::NoTls).await.expect("connected");
                    let connection = tokio::spawn(connection);
                    let mut round = 0;
                    while !done.load(Ordering::Relaxed) {
                        let from = (writer + 1) * 1_000_000 + round * 100;
                        let pause = f64::from(u32::try_from(round % 7).expect("small")) * 0.004;
                        client
                            .batch_execute(&format!(
                                "begin; {}; savepoint s; {}; rollback to s; select pg_sleep({pause}); {}; commit",
                                rows(&table, from, from + 9, 1),
                                rows(&table, from + 20, from + 24, 1),
                                rows(&table, from + 10, from + 12, 2),
                            ))
                            .await
                            .expect("written");
                        round += 1;
                    }
                    drop(client);
                    connection.await.expect("ends").expect("closed");
                })
            })
            .collect();
        let mut daemon = scene.start();
        for _ in 0..kills {
            daemon.status("it copies", PATIENCE, |status| status["tables"].to_string().contains("copying")).await;
            daemon.kill();
            daemon.restart();
        }
        daemon.ready(PATIENCE).await;
        if kills > 0 {
            scene.caught_up(&mut daemon).await;
            daemon.kill();
            daemon.restart();
        }
        daemon.ready(PATIENCE).await;
        done.store(true, Ordering::Relaxed);
        for writer in writers {
            writer.await.expect("it wrote");
        }
        // A thousand rows in one statement of COPY, which PostgreSQL writes into few records, and a rewrite.
        let sink = scene.client.copy_in::<_, bytes::Bytes>(&format!("copy {table} from stdin")).await.expect("begun");
        let lines: String = (0..1000).map(|i| format!("{}\tcopied\t[1,2,3,4,5,6,7,8]\n", -1 - i / 2)).collect();
        let mut sink = std::pin::pin!(sink);
        futures_util::SinkExt::send(&mut sink, lines.into()).await.expect("sent");
        sink.finish().await.expect("ended");
        scene.sql(&format!("vacuum full {table}")).await;
        scene.sql(&rows(&table, -2000, -1990, 3)).await;
        scene.converged(&mut daemon).await;
        assert_same(&scene, &table).await;
        let report = report(&scene).await;
        assert!(report.counted && report.verdict() == Verdict::Equal && report.rows_compared > 11_000, "{report:?}");
        let log = daemon.log();
        assert!(log.contains("copied under one snapshot, as its rows have no key"), "{log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn truncates_and_new_copies_are_followed_and_counts_are_compared() {
    let mut scene = Scene::shared(major()).await;
    let table = keyless(&mut scene, "").await;
    let other = scene.documents(8).await;
    scene.insert(&other, 1, 20, 8).await;
    scene.sql(&rows(&table, 1, 50, 1)).await;
    let mut daemon = scene.started().await;
    let (found, keys) = entities(&scene, &table).await;
    assert!(found.len() == 50 && keys.iter().all(|key| *key < 0), "{keys:?}");
    let described = walvec::pipeline::connect_target(&scene.settings().target).expect("a client");
    let described = described.describe_collection(&scene.collection(&table)).await.expect("read").expect("is there");
    assert!(described.fields[0].data_type == DataType::Int64 && !described.fields[0].auto_id, "{described:?}");
    scene
        .sql(&format!(
            "begin; {}; truncate {table}; {}; commit; {}",
            rows(&table, 51, 55, 1),
            rows(&table, 60, 63, 2),
            rows(&table, 7, 7, 1)
        ))
        .await;
    scene.converged(&mut daemon).await;
    assert_same(&scene, &table).await;
    let (_, keys) = entities(&scene, &table).await;
    assert!(keys.len() == 9 && keys.iter().all(|key| *key > 0), "{keys:?}");

    // What was sent again under the same number is no second entity.
    daemon.kill();
    daemon.restart();
    daemon.ready(PATIENCE).await;
    scene.converged(&mut daemon).await;
    assert_eq!(entities(&scene, &table).await.1, keys);

    // A new copy, in a collection made anew; the other table is left alone.
    let (code, out, err) = walvec("resync", daemon.config(), &[&table]);
    assert_eq!(code, 0, "{out}{err}");
    scene.sql(&rows(&table, 100, 103, 1)).await;
    daemon.ready(PATIENCE).await;
    scene.converged(&mut daemon).await;
    assert_same(&scene, &table).await;
    assert_eq!(daemon.log().matches("the collection is dropped, made anew and copied into again").count(), 1);

    // Told by the counts: one entity too few, and then one row too few.
    daemon.terminate(PATIENCE).await;
    let target = walvec::pipeline::connect_target(&scene.settings().target).expect("a client");
    let keys = entities(&scene, &table).await.1;
    target.delete(&scene.collection(&table), "pk", &walvec::milvus::Keys::Int64(vec![keys[0]])).await.expect("deleted");
    let missing = report(&scene).await;
    assert_eq!((missing.missing, missing.extra, missing.verdict()), (1, 0, Verdict::Different), "{missing:?}");
    scene.sql(&format!("delete from {table} where ctid in (select ctid from {table} limit 2)")).await;
    let extra = report(&scene).await;
    assert_eq!((extra.missing, extra.extra, extra.verdict()), (0, 1, Verdict::Different), "{extra:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn updates_and_deletes_stop_the_table_or_are_ignored_as_asked() {
    let mut scene = Scene::shared(major()).await;
    let stops = keyless(&mut scene, "").await;
    let ignores = keyless(&mut scene, "on_update_delete = \"ignore\"").await;
    scene.sql(&format!("{}; {}", rows(&stops, 1, 10, 1), rows(&ignores, 1, 10, 1))).await;
    let mut daemon = scene.started().await;
    let changes = |table: &str| format!("update {table} set title = 'x' where n = 1; delete from {table} where n = 2");
    scene.sql(&changes(&ignores)).await;
    scene.sql(&format!("update {stops} set title = 'x' where n = 1; {}", rows(&stops, 11, 12, 1))).await;
    scene.sql(&rows(&ignores, 11, 12, 1)).await;
    stopped(&mut daemon, "a row was updated, and with `auto_id = true` nobody knows its entity").await;
    let status = daemon
        .status("it said how to go on", PATIENCE, |status| {
            status["tables"].to_string().contains("stopped_reason\":\"a row")
        })
        .await;
    let said = status["tables"].to_string();
    assert!(said.contains(&format!("walvec resync public.{stops}")) && said.contains("on_update_delete"), "{said}");
    daemon
        .status("the other goes on", PATIENCE, |status| {
            status["tables"].as_array().is_some_and(|tables| {
                tables.iter().any(|table| table["name"] == format!("public.{ignores}") && table["phase"] == "following")
            })
        })
        .await;
    let counted = format!("walvec_changes_ignored_total{{table=\"public.{ignores}\"}}");
    assert_eq!(daemon.metric(&counted).await, 2.0);

    // A new copy has the rows as they are now.
    let (code, out, err) = walvec("resync", daemon.config(), &[&stops]);
    assert_eq!(code, 0, "{out}{err}");
    daemon.ready(PATIENCE).await;
    scene.caught_up(&mut daemon).await;
    assert_same(&scene, &stops).await;
    let (found, _) = entities(&scene, &ignores).await;
    assert_eq!(found, (1..=12).map(|n| (n, 1)).collect(), "the entity of the row that was deleted stays");
    scene.sql(&format!("delete from {stops} where n = 3")).await;
    stopped(&mut daemon, "a row was deleted, and with `auto_id = true` nobody knows its entity").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_enters_the_row_filter_without_its_embedding_stops_the_table() {
    let mut scene = Scene::shared(major()).await;
    let table = scene.table("n int, title text, embedding vector(768) not null").await;
    // The identity covers what the filter looks at, and the embedding stays out of line and unsent.
    scene.sql(&format!("alter table {table} alter n set not null; create unique index {table}_n on {table} (n); alter table {table} replica identity using index {table}_n")).await;
    scene.set_lines(&table, "auto_id = true\nwhere = \"n > 0\"");
    let fill = |from: i64, to: i64| {
        format!("insert into {table} select i, 't', {} from generate_series({from}, {to}) i", embedding("i", 768))
    };
    scene.sql(&fill(-5, 20)).await;
    let mut daemon = scene.started().await;
    scene.sql(&fill(21, 22)).await;
    scene.converged(&mut daemon).await;
    assert_eq!(scene.count(&table).await, 22);
    scene.sql(&format!("update {table} set n = 30 where n = -5")).await;
    stopped(&mut daemon, "a row came without all of its values").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_numbered_is_refused_with_what_mends_it() {
    let mut scene = Scene::shared(major()).await;
    let table = scene.table(COLUMNS).await;
    scene.set_lines(&table, "auto_id = true");
    let said = scene.refused().await;
    let mend = format!("ALTER TABLE public.{table} REPLICA IDENTITY FULL");
    assert!(said.contains("PostgreSQL refuses every UPDATE and DELETE of it") && said.contains(&mend), "{said}");
    scene.sql(&mend).await;
    for (lines, sentence) in [
        ("auto_id = true\non_misfit = \"dead_letter\"", "with `auto_id = true` no row can be read again by its key"),
        ("auto_id = true\nkey = [\"n\"]", "`auto_id = true` numbers the entities, and `key` says what else"),
        ("auto_id = true\non_update_delete = \"drop\"", "on_update_delete"),
    ] {
        scene.set_lines(&table, lines);
        let said = scene.refused().await;
        assert!(said.contains(sentence), "{lines}:\n{said}");
    }
    scene.forget(&table);
    let parted = scene.table(&format!("{COLUMNS}) partition by list (n")).await;
    scene.sql(&format!("create table {parted}_1 partition of {parted} for values in (1); alter table {parted} replica identity full; alter table {parted}_1 replica identity full")).await;
    scene.set_lines(&parted, "auto_id = true");
    let said = scene.refused().await;
    assert!(said.contains("name its partitions, each with `auto_id = true`"), "{said}");
    scene.forget(&parted);
    // Numbered once, keys are another collection.
    let keyed = scene.documents(8).await;
    scene.insert(&keyed, 1, 5, 8).await;
    scene.set_lines(&keyed, "auto_id = true");
    let mut daemon = scene.started().await;
    scene.converged(&mut daemon).await;
    daemon.terminate(PATIENCE).await;
    scene.set_lines(&keyed, "");
    let mut daemon = scene.start();
    stopped(&mut daemon, "it no longer fits collection").await;
    drop(daemon);
    scene.set_lines(&keyed, "on_schema_change = \"resync\"");
    let mut daemon = scene.started().await;
    scene.converged(&mut daemon).await;
}
