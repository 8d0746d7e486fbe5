//! Changes as they come, one difficulty a test. Everything ends with the whole table compared with the whole collection.

use crate::support::postgres::major;
use crate::support::scene::{PATIENCE, embedding};

/// Carries the statements out one after the other, each in its own transaction, and compares.
async fn after(dim: usize, statements: &[&str]) {
    let mut scene = super::target::scene(major()).await;
    let table = scene.documents(dim).await;
    scene.insert(&table, 1, 20, dim).await;
    let mut daemon = scene.started().await;
    for statement in statements {
        let vector = |seed: &str| embedding(seed, dim);
        let statement =
            statement.replace("{t}", &table).replace("{v1}", &vector("1001")).replace("{v2}", &vector("1002"));
        scene.sql(&statement).await;
    }
    scene.converged(&mut daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_that_leaves_a_toasted_embedding_alone_keeps_it() {
    after(768, &["update {t} set n = n + 1", "update {t} set title = null where id < 5"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_insert_and_a_scalar_update_in_one_transaction() {
    after(768, &["begin; insert into {t} values (100, 'a', 1, {v1}); update {t} set n = 2 where id = 100; commit"])
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_embedding_and_a_scalar_update_in_one_transaction() {
    after(768, &["begin; update {t} set embedding = {v1} where id = 3; update {t} set n = 2 where id = 3; commit"])
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_change_takes_the_toasted_embedding_along() {
    after(768, &["update {t} set id = 1000 where id = 4", "update {t} set id = 1001, n = 5 where id = 5"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_swapped_in_one_transaction() {
    after(768, &["begin; update {t} set id = 100 where id = 1; update {t} set id = 1 where id = 2; update {t} set id = 2 where id = 100; commit"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delete_and_an_insert_of_the_same_key() {
    after(
        8,
        &[
            "begin; delete from {t} where id = 7; insert into {t} values (7, 'again', 0, {v1}); commit",
            "begin; insert into {t} values (200, 'short', 0, {v1}); delete from {t} where id = 200; commit",
            "delete from {t} where id = 8",
            "insert into {t} values (8, 'later', 0, {v2})",
        ],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hot_key_that_changes_many_times() {
    after(
        768,
        &[
            "do $$ begin for i in 1..500 loop update {t} set n = i where id = 9; end loop; end $$",
            "update {t} set embedding = {v1} where id = 9",
            "update {t} set n = -1 where id = 9",
        ],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_truncate_in_the_middle_of_a_transaction() {
    after(8, &[
        "begin; insert into {t} values (300, 'gone', 0, {v1}); truncate {t}; insert into {t} values (301, 'stays', 0, {v2}); commit",
        "insert into {t} values (302, 'later', 0, {v2})",
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upsert_a_savepoint_and_an_aborted_transaction() {
    after(
        8,
        &[
            "insert into {t} values (1, 'conflict', 0, {v1}) on conflict (id) do update set title = excluded.title",
            "insert into {t} values (1, 'nothing', 0, {v1}) on conflict do nothing",
            "begin; savepoint a; delete from {t}; rollback to a; update {t} set n = 77 where id = 2; commit",
            "begin; delete from {t}; rollback",
        ],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn replica_identity_full_brings_the_embedding_itself() {
    after(
        768,
        &[
            "alter table {t} replica identity full",
            "update {t} set n = 5",
            "update {t} set id = 400 where id = 4",
            "delete from {t} where id = 5",
        ],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn composite_text_and_uuid_keys() {
    let mut scene = super::target::scene(major()).await;
    let composite =
        scene.table("tenant text, id int, body text, embedding vector(768) not null, primary key (tenant, id)").await;
    let text = scene.table("id text primary key, n int, embedding vector(768) not null").await;
    let uuid =
        scene.table("id uuid primary key default gen_random_uuid(), n int, embedding vector(768) not null").await;
    let vector = embedding("i", 768);
    scene
        .sql(&format!(
            "insert into {composite} select 'a|b\\' || (i % 3), i, 'x', {vector} from generate_series(1, 50) i"
        ))
        .await;
    scene
        .sql(&format!("insert into {text} select 'kéy \"' || i || E'\\n', i, {vector} from generate_series(1, 50) i"))
        .await;
    scene.sql(&format!("insert into {uuid} (n, embedding) select i, {vector} from generate_series(1, 50) i")).await;
    let mut daemon = scene.started().await;
    scene.converged(&mut daemon).await;
    scene.sql(&format!("update {composite} set body = 'y' where id % 2 = 0; update {composite} set tenant = 'c' where id = 7; delete from {composite} where id = 9")).await;
    scene
        .sql(&format!(
            "update {text} set n = -n; update {text} set id = id || '!' where n = -7; delete from {text} where n = -9"
        ))
        .await;
    scene.sql(&format!("update {uuid} set n = -n; update {uuid} set id = gen_random_uuid() where n = -7; delete from {uuid} where n = -9")).await;
    scene.converged(&mut daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn several_tables_in_one_transaction_and_a_partitioned_one() {
    let mut scene = super::target::scene(major()).await;
    let plain = scene.documents(8).await;
    let parted = scene
        .table("id bigint primary key, title text, n int, embedding vector(8) not null) partition by range (id")
        .await;
    scene
        .sql(&format!(
            "create table {parted}_low (embedding vector(8) not null, n int, id bigint not null, title text);
             alter table {parted} attach partition {parted}_low for values from (0) to (100);
             create table {parted}_high partition of {parted} for values from (100) to (10000)"
        ))
        .await;
    scene.insert(&parted, 1, 150, 8).await;
    let mut daemon = scene.started().await;
    scene.converged(&mut daemon).await;
    let (a, b) = (crate::support::scene::insert(&plain, 1, 10, 8), crate::support::scene::insert(&parted, 500, 510, 8));
    scene.sql(&format!("begin; {a}; {b}; update {parted} set id = id + 1000 where id < 20; delete from {parted} where id between 100 and 110; commit")).await;
    scene.converged(&mut daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_type_of_the_mapping_table() {
    let mut scene = super::target::scene(major()).await;
    let table = scene
        .table(
            "id int primary key, b bool, s smallint, i int, l bigint, r real, d double precision, nu numeric(20,5), t text, v varchar(50), \
             da date, ti time, ts timestamp, tz timestamptz, u uuid, j json, jb jsonb, ia int[], ta text[], embedding vector(3) not null",
        )
        .await;
    let row = |id: i32| {
        format!(
            "insert into {table} values ({id}, true, -7, 42, 9007199254740993, 1.5e-7, 2.5, 12345.678, 'téxt \"q\"', 'v', '2024-02-29', \
             '23:59:59.123', '2024-02-29 12:00:00.5', '2024-02-29 12:00:00+02', 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', \
             '{{\"a\": [1, 2.5, null], \"é\": \"x\"}}', '{{\"b\": {{\"c\": true}}}}', '{{1,2,-3}}', '{{a,\"b c\",\"\"}}', '[1,2.5,-0.125]')"
        )
    };
    scene.sql(&row(1)).await;
    scene.sql(&format!("insert into {table} (id, embedding) values (2, '[0,1,2]')")).await;
    let mut daemon = scene.started().await;
    scene.converged(&mut daemon).await;
    scene.sql(&row(3)).await;
    scene.sql(&format!("insert into {table} (id, embedding) values (4, '[3,1,2]'); update {table} set b = false, t = '', nu = 'NaN' where id = 1")).await;
    scene.converged(&mut daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_does_not_fit_stops_its_table_and_no_other() {
    let mut scene = super::target::scene(major()).await;
    let bad = scene.documents(4).await;
    let good = scene.documents(4).await;
    let mut daemon = scene.started().await;
    scene.sql(&format!("insert into {bad} values (1, repeat('x', 70000), 1, '[1,2,3,4]')")).await;
    let stopped = daemon
        .status("the table is stopped", PATIENCE, |s| {
            s["tables"].as_array().is_some_and(|t| t.iter().any(|t| t["phase"] == "stopped"))
        })
        .await;
    let reason = stopped["tables"]
        .as_array()
        .expect("tables")
        .iter()
        .find_map(|t| t["stopped_reason"].as_str())
        .expect("a reason")
        .to_owned();
    assert!(reason.contains("key 1") && reason.contains("title"), "{reason}");
    // The other one goes on.
    scene.insert(&good, 1, 20, 4).await;
    let collection = scene.collection(&good);
    let target = walvec::pipeline::connect_target(&scene.settings().target).expect("a client");
    crate::support::wait::until("the other table goes on", PATIENCE, async || {
        target.count(&collection).await.ok().filter(|count| *count == 20)
    })
    .await;
    // Nothing is lost: once the row fits, a restart brings everything.
    scene
        .sql(&format!(
            "update {bad} set title = 'fits' where id = 1; insert into {bad} values (2, 'more', 1, '[1,2,3,4]')"
        ))
        .await;
    daemon.terminate(PATIENCE).await;
    daemon.restart();
    daemon.ready(PATIENCE).await;
    scene.converged(&mut daemon).await;
}
