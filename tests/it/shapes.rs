//! Tables of every shape: partitions, inheritance, generated columns, names, and very many of everything.

use std::fmt::Write as _;
use std::time::Instant;

use walvec::config::Transport;

use crate::support::daemon::Daemon;
use crate::support::postgres::{major, majors};
use crate::support::scene::{PATIENCE, Scene, embedding};
use crate::support::scripted::{Options, Scripted};
use crate::support::unique;
use crate::support::wait::until;

const DOCUMENTS: &str = "id bigint primary key, title text, n int, embedding vector(8) not null";

async fn expect_count(scene: &Scene, daemon: &mut Daemon, table: &str, expected: u64) {
    until("the collection has as many entities as expected", PATIENCE, async || {
        assert!(daemon.running(), "the daemon ended:\n{}", daemon.log());
        (scene.count(table).await == expected).then_some(())
    })
    .await;
}

/// Two levels, leaves with another order of columns and dropped columns, rows that move between them.
#[tokio::test(flavor = "multi_thread")]
async fn partitions_of_partitions_with_columns_in_another_order() {
    for major in majors() {
        let mut scene = Scene::shared(major).await;
        let root = scene.table(&format!("{DOCUMENTS}) partition by range (id")).await;
        scene
            .sql(&format!(
                "create table {root}_a partition of {root} for values from (0) to (100) partition by range (id);
                 create table {root}_a1 (gone int, embedding vector(8) not null, n int, id bigint not null, title text);
                 alter table {root}_a1 drop column gone;
                 alter table {root}_a attach partition {root}_a1 for values from (0) to (50);
                 create table {root}_a2 partition of {root}_a for values from (50) to (100);
                 create table {root}_z partition of {root} default"
            ))
            .await;
        scene.insert(&root, 1, 150, 8).await;
        let mut daemon = scene.started().await;
        scene.converged(&mut daemon).await;
        scene
            .sql(&format!(
                "begin; delete from {root} where id = 50; update {root} set id = 50 where id = 1; update {root} set id = 1 where id = 60; update {root} set id = id + 200, n = 0 where id = 2; commit;
                 update {root}_a1 set title = 'direct' where id between 3 and 9; delete from {root}_a2 where id > 90;
                 insert into {root}_z select 1000, 'direct', 1, embedding from {root} limit 1"
            ))
            .await;
        scene.converged(&mut daemon).await;
        scene.sql(&format!("truncate {root}")).await;
        scene.insert(&root, 1, 3, 8).await;
        scene.converged(&mut daemon).await;
    }
}

/// Neither tells the stream anything: a new partition is read like a table, and a removed one must not go unnoticed.
#[tokio::test(flavor = "multi_thread")]
async fn attached_partitions_are_copied_and_removed_ones_stop_the_table_or_stay() {
    let mut scene = Scene::shared(major()).await;
    let root = scene.table(&format!("{DOCUMENTS}) partition by range (id")).await;
    scene.sql(&format!("create table {root}_0 partition of {root} for values from (0) to (100)")).await;
    scene.insert(&root, 1, 20, 8).await;
    let mut daemon = scene.started().await;
    expect_count(&scene, &mut daemon, &root, 20).await;

    // Made new, and filled through the stream at once.
    scene.sql(&format!("create table {root}_1 partition of {root} for values from (100) to (200)")).await;
    scene.insert(&root, 100, 119, 8).await;
    // Attached with rows in it, while running and while stopped.
    let attach = async |scene: &Scene, part: &str, from: i64| {
        scene.sql(&format!("create table {part} (like {root} including all)")).await;
        scene.insert(part, from, from + 19, 8).await;
        scene
            .sql(&format!("alter table {root} attach partition {part} for values from ({from}) to ({})", from + 100))
            .await;
    };
    attach(&scene, &format!("{root}_2"), 200).await;
    scene
        .sql(&format!(
            "update {root} set title = 'changed' where id in (5, 105, 205); delete from {root} where id = 206"
        ))
        .await;
    expect_count(&scene, &mut daemon, &root, 59).await;
    daemon.ready(PATIENCE).await;
    scene.converged(&mut daemon).await;
    daemon.terminate(PATIENCE).await;
    attach(&scene, &format!("{root}_3"), 300).await;
    daemon.restart();
    daemon.ready(PATIENCE).await;
    scene.converged(&mut daemon).await;
    assert_eq!(scene.count(&root).await, 79);

    scene.sql(&format!("alter table {root} detach partition {root}_3; drop table {root}_2")).await;
    let status =
        daemon.status("the table is stopped", PATIENCE, |status| status["tables"][0]["phase"] == "stopped").await;
    let reason = status["tables"][0]["stopped_reason"].as_str().expect("a reason").to_owned();
    assert!(
        reason.contains("2 of its partitions were detached or dropped") && reason.contains("partition_removed"),
        "{reason}"
    );
    daemon.terminate(PATIENCE).await;
    scene.set_lines(&root, "partition_removed = \"keep\"");
    let mut daemon = scene.started().await;
    scene.sql(&format!("update {root} set n = 77 where id = 105; delete from {root} where id = 106")).await;
    scene.caught_up(&mut daemon).await;
    assert_eq!(scene.count(&root).await, 78, "the rows of the removed partitions stay");
    assert!(daemon.log().contains("their rows stay in the collection"), "{}", daemon.log());
}

/// One partition alone is a table like any other, whether the publication is through the root or by leaf.
#[tokio::test(flavor = "multi_thread")]
async fn single_partitions_are_followed_by_their_own_names() {
    for by_leaf in [false, true] {
        let mut scene = Scene::shared(major()).await;
        let root = unique("docs");
        scene
            .sql(&format!(
                "create table {root} ({DOCUMENTS}) partition by range (id);
                 create table {root}_0 partition of {root} for values from (0) to (100);
                 create table {root}_1 partition of {root} for values from (100) to (200)"
            ))
            .await;
        let (one, other) = (format!("{root}_0"), format!("{root}_1"));
        scene.follow(&one, "");
        if by_leaf {
            scene.follow(&other, "");
            scene.sql(&format!("create publication {} for table {root}", scene.slot)).await;
        }
        scene.insert(&root, 1, 150, 8).await;
        let mut daemon = scene.started().await;
        scene.converged(&mut daemon).await;
        assert_eq!(scene.count(&one).await, 99);
        scene
            .sql(&format!("update {root} set id = id + 99 where id = 99; update {root} set n = -1; delete from {root} where id = 7"))
            .await;
        scene.converged(&mut daemon).await;
        assert_eq!(scene.count(&one).await, 97);
        if by_leaf {
            assert_eq!(scene.count(&other).await, 52);
        } else {
            daemon.terminate(PATIENCE).await;
            scene.follow(&root, "");
            let said = scene.refused().await;
            assert!(
                said.contains(&format!("it is a partition of public.{root}, which is in the configuration too")),
                "{said}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn inheritance_is_refused_or_the_own_rows_alone_are_taken() {
    let mut scene = Scene::shared(major()).await;
    let parent = scene.documents(768).await;
    let child = unique("child");
    scene.sql(&format!("create table {child} (more int, primary key (id)) inherits ({parent})")).await;
    scene.insert(&parent, 1, 10, 768).await;
    scene.insert(&child, 5, 14, 768).await; // the same keys twice, as inheritance allows
    let said = scene.refused().await;
    assert!(said.contains(&format!("public.{child} inherit from it")) && said.contains("set `only = true`"), "{said}");

    scene.set_lines(&parent, "only = true");
    scene.follow(&child, "");
    let mut daemon = scene.started().await;
    scene.converged(&mut daemon).await;
    scene
        .sql(&format!(
            "update only {parent} set n = -1; update {child} set n = -2, more = 1; delete from {parent} where id = 6"
        ))
        .await;
    scene.converged(&mut daemon).await;
    assert_eq!((scene.count(&parent).await, scene.count(&child).await), (9, 9));
    // Of a TRUNCATE that goes down to the children the parent is a part.
    scene.sql(&format!("truncate {parent}")).await;
    scene.converged(&mut daemon).await;
    assert_eq!((scene.count(&parent).await, scene.count(&child).await), (0, 0));
}

/// Generated columns: 18 sends stored ones when asked; else they are left out, or read again after every change.
#[tokio::test(flavor = "multi_thread")]
async fn generated_columns_are_sent_left_out_or_read_again() {
    let change = |table: &str| {
        format!(
            "update {table} set n = n + 1 where id < 10; update {table} set id = id + 100 where id in (3, 4);
             begin; update {table} set n = 50 where id = 12; update {table} set n = 51 where id = 12; update {table} set id = 112 where id = 12; commit;
             insert into {table} (id, n, embedding) select 200, 7, embedding from {table} where id = 1; delete from {table} where id = 15"
        )
    };
    for (major, kind, lines, expected) in [
        (18, "stored", "", vec!["id", "n", "double", "embedding"]),
        (18, "virtual", "", vec!["id", "n", "embedding"]),
        (18, "virtual", "generated = \"reread\"", vec!["id", "n", "double", "embedding"]),
        (16, "stored", "", vec!["id", "n", "embedding"]),
        (16, "stored", "generated = \"reread\"", vec!["id", "n", "double", "embedding"]),
    ] {
        let mut scene = Scene::shared(major).await;
        let table = scene
            .table(&format!(
                "id bigint primary key, n int, double int generated always as (n * 2) {kind}, embedding vector(768) not null"
            ))
            .await;
        scene.set_lines(&table, lines);
        let vector = embedding("i", 768);
        scene
            .sql(&format!("insert into {table} (id, n, embedding) select i, i, {vector} from generate_series(1, 20) i"))
            .await;
        let mut daemon = scene.started().await;
        scene.sql(&change(&table)).await;
        scene.converged(&mut daemon).await;
        // From 18 on PostgreSQL refuses to update a table that is FULL and has a generated column that is not published.
        if (major, kind) != (18, "virtual") {
            scene.sql(&format!("alter table {table} replica identity full; update {table} set n = n + 1")).await;
            scene.converged(&mut daemon).await;
        }
        let target = walvec::pipeline::connect_target(&scene.settings().target).expect("a client");
        let collection =
            target.describe_collection(&scene.collection(&table)).await.expect("described").expect("there");
        let fields: Vec<&str> = collection.fields.iter().map(|field| field.name.as_str()).collect();
        assert_eq!(fields, expected, "{major} {kind} {lines}");
    }
    // Virtual columns came with 18.
    let mut scene = Scene::shared(18).await;
    let table = scene
        .table("id bigint primary key, n int, double int generated always as (n * 2) virtual, embedding vector(8) not null")
        .await;
    scene.sql(&format!("alter table {table} replica identity full")).await;
    let said = scene.refused().await;
    assert!(said.contains("has REPLICA IDENTITY FULL and a generated column \"double\" that is not sent"), "{said}");
    assert!(said.contains(&format!("ALTER TABLE \"public\".\"{table}\" REPLICA IDENTITY DEFAULT")), "{said}");
    scene
        .sql(&format!(
            "insert into {table} (id, n, embedding) values (1, 1, '[1,2,3,4,5,6,7,8]'); update {table} set n = 2"
        ))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn identity_and_serial_columns_and_names_of_every_kind() {
    let mut scene = Scene::shared(16).await;
    let schema = unique("Schéma \"x\"");
    let quoted = schema.replace('"', "\"\"");
    scene
        .sql(&format!(
            "create schema \"{quoted}\";
             create table \"{quoted}\".\"Tä.ble 1\" (\"Id\" int generated always as identity primary key, \"select\" serial, \"a b\" text,
               \"größe\" real, \"Timestamp\" timestamptz default now(), \"Em\"\"bed\" vector(768) not null)"
        ))
        .await;
    scene.follow(&format!("{schema}.Tä.ble 1"), "");
    let table = format!("\"{quoted}\".\"Tä.ble 1\"");
    let vector = embedding("i", 768);
    scene.sql(&format!("insert into {table} (\"a b\", \"größe\", \"Em\"\"bed\") select 'x' || i, i, {vector} from generate_series(1, 30) i")).await;
    let mut daemon = scene.started().await;
    scene
        .sql(&format!(
            "update {table} set \"größe\" = 2.5 where \"Id\" < 9; delete from {table} where \"Id\" = 10;
             update {table} set \"a b\" = null, \"Em\"\"bed\" = (select \"Em\"\"bed\" from {table} where \"Id\" = 11) where \"Id\" = 12"
        ))
        .await;
    scene.converged(&mut daemon).await;
}

/// Each with its own sentence, all of them at once.
#[tokio::test(flavor = "multi_thread")]
async fn what_logical_replication_does_not_send_is_refused_with_a_reason() {
    let mut scene = Scene::shared(major()).await;
    let base = unique("docs");
    scene
        .sql(&format!(
            "create table {base} ({DOCUMENTS}); create view {base}_view as select * from {base};
             create materialized view {base}_mat as select * from {base};
             create unlogged table {base}_unlogged ({DOCUMENTS});
             create extension file_fdw; create server {base}_server foreign data wrapper file_fdw;
             create foreign table {base}_foreign (id bigint, embedding vector(8)) server {base}_server options (filename '/dev/null');
             create table {base}_parted ({DOCUMENTS}) partition by range (id);
             create unlogged table {base}_part partition of {base}_parted for values from (0) to (10)"
        ))
        .await;
    let mut wide = format!("create table {base}_wide (id bigint primary key, embedding vector(8)");
    (0..1590).for_each(|i| write!(wide, ", c{i} int").expect("a string takes text"));
    scene.sql(&format!("{wide})")).await;
    for suffix in ["view", "mat", "unlogged", "foreign", "parted", "wide"] {
        scene.follow(&format!("{base}_{suffix}"), "");
    }
    let said = scene.refused().await;
    for sentence in [
        format!(
            "table public.{base}_view: it is a view: logical replication has no changes of it; name the table behind it"
        ),
        format!("table public.{base}_mat: it is a materialized view"),
        format!(
            "table public.{base}_unlogged: it is unlogged or temporary: its changes are not in the write-ahead log; ALTER TABLE"
        ),
        format!("table public.{base}_foreign: it is a foreign table"),
        format!("its partition public.{base}_part is unlogged"),
        format!("table public.{base}_wide: 1592 fields; a collection has at most 64; name the columns that are needed"),
    ] {
        assert!(said.contains(&sentence), "{sentence}:\n{said}");
    }
    // The way out of the widest.
    let mut scene = Scene::new(scene.client, scene.source_url, scene.target_url).await;
    let table = format!("{base}_wide");
    scene.follow(&table, "columns = { include = [\"id\", \"c7\", \"c1589\", \"embedding\"] }");
    scene
        .sql(&format!(
            "insert into {table} (id, c7, embedding) select i, i, '[1,2,3,4,5,6,7,8]' from generate_series(1, 9) i"
        ))
        .await;
    let mut daemon = scene.started().await;
    scene.sql(&format!("update {table} set c1589 = 4 where id = 3")).await;
    scene.converged(&mut daemon).await;
}

/// A policy that applies to the role would make the copy a subset: an error, and never a smaller collection.
#[tokio::test(flavor = "multi_thread")]
async fn row_security_is_an_error_and_never_a_subset() {
    let mut scene = Scene::shared(major()).await;
    let table = scene.documents(8).await;
    let role = unique("follower");
    scene
        .sql(&format!(
            "create role {role} login replication password 'secret'; grant select on {table} to {role};
             create publication {} for table {table};
             alter table {table} enable row level security; create policy few on {table} using (id < 5)",
            scene.slot
        ))
        .await;
    scene.insert(&table, 1, 20, 8).await;
    let (scheme, rest) = scene.source_url.split_once("://").expect("a URL");
    let (_, host) = rest.split_once('@').expect("a user");
    scene.source_url = format!("{scheme}://{role}:secret@{host}");
    let said = scene.refused().await;
    assert!(said.contains("row security hides rows from our role") && said.contains("BYPASSRLS"), "{said}");
    scene.sql(&format!("alter role {role} bypassrls")).await;
    let mut daemon = scene.started().await;
    scene.converged(&mut daemon).await;
    assert_eq!(scene.count(&table).await, 20);
    // Switched on behind our back where it applies, it stops the copy of a partition or a retry; the stream is not filtered.
    scene.sql(&format!("update {table} set n = -1")).await;
    scene.converged(&mut daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sixty_columns_ten_arrays_and_three_vectors() {
    let mut scene = Scene::shared(major()).await;
    let mut columns =
        String::from("id bigint primary key, v1 vector(8) not null, v2 vector(768) not null, v3 vector(3) not null");
    for i in 0..46 {
        let kind = ["int", "text", "real", "boolean", "timestamptz", "numeric", "smallint", "uuid"][i % 8];
        write!(columns, ", c{i} {kind}").expect("a string takes text");
    }
    for i in 0..10 {
        write!(columns, ", a{i} {}[]", ["int", "text", "real", "bigint", "boolean"][i % 5])
            .expect("a string takes text");
    }
    let table = scene.table(&columns).await;
    let (v1, v2, v3) = (embedding("i", 8), embedding("i", 768), embedding("i", 3));
    scene
        .sql(&format!(
            "insert into {table} (id, v1, v2, v3, c0, c1, c2, c3, c4, c5, c45, a0, a1, a2, a3, a4, a9)
             select i, {v1}, {v2}, {v3}, i, 'text ' || i, i / 3.0, i % 2 = 0, '2024-01-01'::timestamptz + i * interval '1 hour', i / 7.0,
               i / 3.0, array[i, -i], array['a', 'b ' || i], array[i / 3.0], array[i, i * 1000000007::bigint], array[true, false], '{{}}'
             from generate_series(1, 200) i"
        ))
        .await;
    let mut daemon = scene.started().await;
    scene
        .sql(&format!(
            "update {table} set c1 = 'new', a1 = a1 || 'c'::text where id % 3 = 0; update {table} set v3 = {} where id = 5; delete from {table} where id = 6",
            embedding("99", 3)
        ))
        .await;
    scene.converged(&mut daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_partitions() {
    let mut scene = Scene::shared(major()).await;
    let root = scene.table(&format!("{DOCUMENTS}) partition by range (id")).await;
    scene
        .sql(&format!(
            "do $$ begin for i in 0..199 loop execute format('create table {root}_%s partition of {root} for values from (%s) to (%s)', i, i * 10, i * 10 + 10); end loop; end $$"
        ))
        .await;
    scene.insert(&root, 0, 1999, 8).await;
    let began = Instant::now();
    let mut daemon = scene.started().await;
    println!("200 partitions follow after {:?}", began.elapsed());
    scene.sql(&format!("update {root} set n = -1 where id % 7 = 0; update {root} set id = (id + 1000) % 2000 + 0 where false; delete from {root} where id % 11 = 0")).await;
    scene.converged(&mut daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn five_hundred_tables_at_once() {
    let milvus = Scripted::start(Options::default()).await;
    let mut scene = Scene::scripted(major(), &milvus, Transport::Grpc).await;
    let base = unique("many");
    scene
        .sql(&format!(
            "do $$ begin for i in 1..500 loop
               execute format('create table {base}_%s (id int primary key, n int, embedding vector(3) not null)', i);
               execute format('insert into {base}_%s select j, j, ''[1,2,3]'' from generate_series(1, 3) j', i);
             end loop; end $$"
        ))
        .await;
    for i in 1..=500 {
        scene.follow(&format!("{base}_{i}"), "");
    }
    let began = Instant::now();
    let mut daemon = scene.started().await;
    println!("500 tables follow after {:?}", began.elapsed());
    scene
        .sql(&format!(
            "do $$ begin for i in 1..500 loop
               execute format('update {base}_%s set n = -n where id = 1', i); execute format('delete from {base}_%s where id = 2', i);
             end loop; end $$"
        ))
        .await;
    scene.converged(&mut daemon).await;
    println!("500 tables were changed and compared after {:?}", began.elapsed());
    assert_eq!(milvus.violations(), Vec::<String>::new());
}
