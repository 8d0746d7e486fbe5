//! The table changes under a running daemon, or while it is away: no value gets into a wrong field, the table stops alone with one
//! clear sentence, or goes on as the policy says.

use walvec::config::Transport;

use crate::support::daemon::{Daemon, walvec};
use crate::support::postgres::major;
use crate::support::scene::{PATIENCE, Scene, embedding};
use crate::support::scripted::{Options, Scripted, Version};
use crate::support::unique;

/// A table with an embedding out of line, and some rows.
async fn table(scene: &mut Scene, lines: &str) -> String {
    let table = scene.table("id int primary key, t text, n int, v varchar(10), e vector(600) not null").await;
    scene.set_lines(&table, lines);
    rows(scene, &table, 1, 30).await;
    table
}

async fn rows(scene: &Scene, table: &str, from: i32, to: i32) {
    let vector = embedding("i", 600);
    let values = format!("i, 't' || i, i, 'v' || i, {vector} from generate_series({from}, {to}) i");
    scene.sql(&format!("insert into {table} (id, t, n, v, e) select {values}")).await;
}

/// Waits until the table is stopped for this reason.
async fn stopped(daemon: &mut Daemon, reason: &str) {
    let what = format!("a table stops: {reason}");
    daemon.status(&what, PATIENCE, |status| status.to_string().contains(reason)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_column_is_passed_over_by_default() {
    let mut scene = Scene::shared(major()).await;
    let table = table(&mut scene, "").await;
    let mut daemon = scene.started().await;
    scene
        .sql(&format!("alter table {table} add more int default 7; update {table} set more = 8, t = 'x' where id < 5; update {table} set n = 0 where id = 9"))
        .await;
    scene.converged(&mut daemon).await;
    assert!(daemon.log().contains("columns are new and not followed"), "{}", daemon.log());
    // And it starts again with the column there.
    daemon.kill();
    rows(&scene, &table, 31, 40).await;
    daemon.restart();
    daemon.ready(PATIENCE).await;
    scene.converged(&mut daemon).await;
}

/// The field is added, and rows of before get what the column has in them.
#[tokio::test(flavor = "multi_thread")]
async fn a_new_column_becomes_a_field_and_is_filled() {
    for transport in [Transport::Grpc, Transport::Rest] {
        let milvus = Scripted::start(Options { version: Version::V2_6, ..Options::default() }).await;
        let mut scene = Scene::scripted(major(), &milvus, transport).await;
        let table = table(&mut scene, "on_add_column = \"add\"").await;
        let mut daemon = scene.started().await;
        scene.sql(&format!("alter table {table} add more int default 7, add note text")).await;
        // In one transaction with older and newer shapes of other rows.
        scene
            .sql(&format!(
                "begin; update {table} set n = 1 where id = 1; alter table {table} add last bool default true; update {table} set more = 9, \
                 note = 'é' where id < 4; delete from {table} where id = 5; commit"
            ))
            .await;
        daemon.status("three fields more", PATIENCE, |status| status["tables"][0]["phase"] == "following").await;
        crate::support::wait::until("the fields are there", PATIENCE, async || {
            let target = walvec::pipeline::connect_target(&scene.settings().target).expect("a client");
            let schema = target.describe_collection(&scene.collection(&table)).await.expect("described")?;
            (schema.fields.len() == 8).then_some(())
        })
        .await;
        daemon.ready(PATIENCE).await;
        scene.converged(&mut daemon).await;
        // While it is away: added, filled, and changed.
        daemon.kill();
        scene.sql(&format!("update {table} set t = 'before' where id = 7; alter table {table} add away int; update {table} set away = id where id > 20")).await;
        daemon.restart();
        daemon.ready(PATIENCE).await;
        scene.converged(&mut daemon).await;
        assert_eq!(milvus.violations(), Vec::<String>::new());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_column_becomes_a_member_of_the_dynamic_field() {
    let mut scene = Scene::shared(major()).await;
    let table = table(&mut scene, "on_add_column = \"dynamic\"\ndynamic_field = true").await;
    let mut daemon = scene.started().await;
    scene.sql(&format!("alter table {table} add more jsonb; update {table} set more = '{{\"a\": 1}}' where id < 5; update {table} set n = 0 where id = 9")).await;
    crate::support::wait::until("the session began anew", PATIENCE, async || {
        daemon.log().contains("starting again at the checkpoint").then_some(())
    })
    .await;
    daemon.ready(PATIENCE).await;
    scene.caught_up(&mut daemon).await;
    let target = walvec::pipeline::connect_target(&scene.settings().target).expect("a client");
    let (name, keys) = (scene.collection(&table), walvec::milvus::Keys::Int64(vec![3]));
    let fields = ["id".into(), "$meta".into()];
    let selection = walvec::milvus::Selection::Keys(&keys);
    let query = walvec::milvus::Query { collection: &name, selection, output_fields: &fields };
    let found = target.query(query).await.expect("read");
    let walvec::milvus::ColumnData::Json(objects) = &found[1].data else { panic!("{found:?}") };
    let object: serde_json::Value = serde_json::from_slice(&objects[0]).expect("an object");
    assert_eq!(object["more"], serde_json::json!({"a": 1}));
}

/// Each change stops its table alone; what mends it is in the sentence, and it goes on where it stopped.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_does_not_fit_stops_its_table_alone() {
    for (ddl, running, away, lines) in [
        (
            "alter table {t} drop n",
            "column \"n\" of public.{t} was dropped, renamed or left out of the publication",
            "",
            "",
        ),
        (
            "alter table {t} rename n to number",
            "column \"n\" of public.{t} was dropped, renamed or left out of the publication",
            "columns number have no field in collection",
            "[table.fields.number]\nrename = \"n\"",
        ),
        (
            "alter table {t} alter n type text using 'n' || n",
            "column \"n\" of public.{t} has another type now",
            "field \"n\" is INT32, not VARCHAR(65535)",
            "columns = { exclude = [\"n\"] }",
        ),
        ("alter table {t} alter v type varchar(20)", "has another length, precision or dimension now", "", ""),
    ] {
        let mut scene = Scene::shared(major()).await;
        let table = table(&mut scene, "").await;
        let other = scene.table("id int primary key, e vector(2) not null").await;
        let mut daemon = scene.started().await;
        let with_name = |text: &str| text.replace("{t}", &table);
        scene.sql(&format!("update {table} set t = 'before' where id = 1")).await;
        scene.sql(&with_name(ddl)).await;
        scene
            .sql(&format!("update {table} set t = 'after' where id = 2; insert into {other} values (1, '[1,2]')"))
            .await;
        stopped(&mut daemon, &with_name(running).replace('"', "\\\"")).await;
        crate::support::wait::until("the other table goes on", PATIENCE, async || {
            (scene.count(&other).await == 1).then_some(())
        })
        .await;
        daemon.terminate(PATIENCE).await;
        if !away.is_empty() {
            let config = std::fs::read_to_string(daemon.config()).expect("the configuration");
            daemon.restart();
            stopped(&mut daemon, &away.replace('"', "\\\"")).await;
            scene.sql(&format!("insert into {other} values (2, '[1,2]')")).await;
            crate::support::wait::until("the other table goes on", PATIENCE, async || {
                (scene.count(&other).await == 2).then_some(())
            })
            .await;
            daemon.terminate(PATIENCE).await;
            assert!(!config.is_empty());
        }
        scene.set_lines(&table, lines);
        let mut daemon = scene.started().await;
        scene.converged(&mut daemon).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn by_policy_the_collection_is_made_anew() {
    for ddl in [
        "alter table {t} drop n",
        "alter table {t} rename n to number",
        "alter table {t} alter n type text using 'n' || n",
        "alter table {t} drop constraint {t}_pkey, add primary key (id, n)",
        "begin; create table {t}_new (like {t} including all); insert into {t}_new select * from {t}; drop table {t}; alter table {t}_new rename to {t}; commit",
    ] {
        let mut scene = Scene::shared(major()).await;
        let table = table(&mut scene, "on_schema_change = \"resync\"").await;
        scene.sql(&format!("alter table {table} alter n set not null")).await;
        let other = scene.table("id int primary key, e vector(2) not null").await;
        let mut daemon = scene.started().await;
        scene.sql(&format!("update {table} set t = 'before' where id = 1; delete from {table} where id = 3")).await;
        scene.sql(&ddl.replace("{t}", &table)).await;
        scene.sql(&format!("update {table} set t = 'after' where id = 2; delete from {table} where id = 4; insert into {other} values (1, '[1,2]')")).await;
        crate::support::wait::until("the collection is made anew", PATIENCE, async || {
            daemon.log().contains("the collection is dropped, made anew and copied into again").then_some(())
        })
        .await;
        daemon.ready(PATIENCE).await;
        scene.sql(&format!("update {table} set t = 'later' where id = 6")).await;
        scene.converged(&mut daemon).await;
        // While it is away, with changes of before on the way.
        daemon.kill();
        scene.sql(&format!("update {table} set t = 'old' where id = 7; alter table {table} alter v type int using 5; update {table} set t = 'new' where id = 8")).await;
        daemon.restart();
        daemon.ready(PATIENCE).await;
        scene.converged(&mut daemon).await;
        assert_eq!(daemon.log().matches("the collection is dropped, made anew").count(), 2, "{ddl}");
    }
}

/// Dropped, renamed away and back, while it runs and before it starts: the other table goes on, and nothing is taken for in step.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_gone_lets_the_others_go_on() {
    let mut scene = Scene::shared(major()).await;
    let dropped = scene.documents(8).await;
    let renamed = scene.documents(8).await;
    let other = scene.documents(8).await;
    for table in [&dropped, &renamed, &other] {
        scene.insert(table, 1, 20, 8).await;
    }
    let mut daemon = scene.started().await;
    scene.sql(&format!("drop table {dropped}; alter table {renamed} rename to {renamed}_away")).await;
    let left = |status: &serde_json::Value| status["tables"].as_array().is_some_and(|tables| tables.len() == 1);
    daemon.status("one is left", PATIENCE, left).await;
    daemon.ready(PATIENCE).await;
    scene.insert(&other, 21, 30, 8).await;
    scene.insert(&format!("{renamed}_away"), 21, 30, 8).await;
    scene.caught_up(&mut daemon).await;
    assert_eq!((scene.count(&other).await, scene.count(&dropped).await), (30, 20), "its collection stays");
    daemon.kill();
    scene.sql(&format!("alter table {renamed}_away rename to {renamed}")).await;
    daemon.restart();
    let sentence = format!(
        "it was dropped or renamed for a while; what happened to it since was let go, so that the slot can go on: `walvec resync public.{renamed}`"
    );
    daemon.status("it is stopped", PATIENCE, |status| status["tables"].to_string().contains(&sentence)).await;
    let (code, out, err) = crate::support::daemon::walvec("resync", daemon.config(), &[&renamed]);
    assert_eq!(code, 0, "{out}{err}");
    daemon.ready(PATIENCE).await;
    scene.forget(&dropped);
    scene.converged(&mut daemon).await;
}

/// RENAME VALUE changes no row, so the stream tells nothing of it: what was sent keeps the old label, also what was written before and
/// is decoded after. Later changes have the new one; `walvec verify` shows the rest, `walvec resync` mends it.
#[tokio::test(flavor = "multi_thread")]
async fn a_renamed_label_reaches_old_rows_by_resync() {
    let mut scene = Scene::shared(major()).await;
    let mood = unique("mood");
    scene.sql(&format!("create type {mood} as enum ('sad', 'ok')")).await;
    let table = scene.table(&format!("id int primary key, m {mood}, e vector(3) not null")).await;
    let insert = |id: i32, label: &str| format!("insert into {table} values ({id}, '{label}', '[1,2,3]')");
    scene.sql(&insert(1, "ok")).await;
    let mut daemon = scene.started().await;
    daemon.terminate(PATIENCE).await;
    scene.sql(&insert(2, "ok")).await;
    scene.sql(&format!("alter type {mood} rename value 'ok' to 'fine'")).await;
    scene.sql(&insert(3, "fine")).await;
    daemon.restart();
    daemon.ready(PATIENCE).await;
    scene.caught_up(&mut daemon).await;
    let (_, said, err) = walvec("verify", &scene.settings_file(), &[]);
    assert!(said.contains("2 different"), "{said}{err}");
    let (code, said, err) = walvec("resync", daemon.config(), &[&table]);
    assert_eq!(code, 0, "{said}{err}");
    daemon.ready(PATIENCE).await;
    scene.converged(&mut daemon).await;
}
