//! `walvec resync`: copied again in place, beside writers, kills and the other tables.

use walvec::verify::{self, Verdict, VerifyOptions};

use crate::support::daemon::{Daemon, walvec};
use crate::support::postgres::{major, majors};
use crate::support::scene::{PATIENCE, Scene, insert};

/// `walvec resync`: its exit code and what it said.
fn resync(daemon: &Daemon, table: &str) -> (i32, String) {
    let (code, out, err) = walvec("resync", daemon.config(), &[table]);
    (code, out + &err)
}

async fn verdict(scene: &Scene) -> Verdict {
    let report = verify::verify(&scene.settings(), VerifyOptions::default(), |_| {}).await.expect("can be read");
    report.verdict()
}

/// Deletes, inserts and changes that the stream never carries.
async fn change_unseen(scene: &Scene, table: &str, sql: &str) {
    let publication = &scene.slot;
    scene
        .sql(&format!(
            "alter publication {publication} drop table {table}; {sql}; alter publication {publication} add table {table}"
        ))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_stopped_is_brought_back_while_the_others_go_on() {
    let mut scene = Scene::shared(major()).await;
    let stopped = scene.documents(600).await;
    scene.set_lines(&stopped, "[table.fields.title]\nmax_length = 12");
    let other = scene.documents(8).await;
    scene.insert(&stopped, 1, 300, 600).await;
    scene.insert(&other, 1, 50, 8).await;
    let mut daemon = scene.started().await;
    scene.sql(&format!("update {stopped} set title = 'much longer than twelve' where id = 7")).await;
    daemon.status("it stops", PATIENCE, |s| s["tables"].to_string().contains("stopped_reason\":\"key 7")).await;
    scene
        .sql(&format!(
            "delete from {stopped} where id > 250; update {stopped} set n = -1 where id < 50; {};
             update {stopped} set id = id + 5000 where id between 100 and 110; update {stopped} set title = 'short' where id = 7",
            insert(&stopped, 400, 420, 600)
        ))
        .await;
    scene.insert(&other, 51, 60, 8).await;
    let (code, said) = resync(&daemon, &stopped);
    assert!(code == 0 && said.contains(&format!("public.{stopped} is copied again")), "{said}");
    daemon.ready(PATIENCE).await;
    scene.converged(&mut daemon).await;
    assert_eq!(scene.count(&stopped).await, 271, "nothing is left of rows that are gone");
    assert_eq!(daemon.log().matches("collection created").count(), 2, "no collection was made anew:\n{}", daemon.log());
    assert_eq!(
        daemon
            .log()
            .matches(&format!("copied again over its collection, as was asked for table=public.{other}"))
            .count(),
        0
    );
    // And it follows from there on.
    scene.sql(&format!("update {stopped} set n = n + 1; delete from {stopped} where id < 20")).await;
    scene.converged(&mut daemon).await;
}

/// What a stopped table needs of the WAL is let go: while it runs, and when it cannot even start.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_lets_go_keeps_neither_the_slot_nor_the_others() {
    let mut scene = Scene::shared(major()).await;
    let lets_go = scene.documents(600).await;
    scene.set_lines(&lets_go, "on_stop = \"release\"\n[table.fields.title]\nmax_length = 12");
    let other = scene.documents(8).await;
    scene.insert(&lets_go, 1, 100, 600).await;
    let mut daemon = scene.started().await;
    let let_go = format!("let go, so that the slot can go on: `walvec resync public.{lets_go}`");
    let told = |status: &serde_json::Value| {
        let phase = |name: &str| {
            let tables = status["tables"].as_array().into_iter().flatten();
            tables.filter(|table| table["name"] == format!("public.{name}")).map(|table| table["phase"].clone()).next()
        };
        status["tables"].to_string().contains(&let_go)
            && phase(&lets_go).is_some_and(|phase| phase == "stopped")
            && phase(&other).is_some_and(|phase| phase == "following")
    };
    scene.sql(&format!("update {lets_go} set title = 'much longer than twelve' where id = 7")).await;
    daemon.status("it is let go, and the other follows", PATIENCE, told).await;
    scene
        .sql(&format!(
            "delete from {lets_go} where id > 50; update {lets_go} set id = id + 5000 where id < 3; {}",
            insert(&other, 1, 9, 8)
        ))
        .await;
    scene.caught_up(&mut daemon).await;
    assert_eq!((scene.count(&lets_go).await, scene.count(&other).await), (100, 9), "nothing of it is carried out");
    daemon.kill();
    daemon.restart();
    daemon.status("that is remembered", PATIENCE, told).await;
    scene.insert(&other, 10, 12, 8).await;
    scene.caught_up(&mut daemon).await;
    scene.sql(&format!("update {lets_go} set title = 'short' where id = 7")).await;
    let (code, said) = resync(&daemon, &lets_go);
    assert_eq!(code, 0, "{said}");
    daemon.ready(PATIENCE).await;
    scene.converged(&mut daemon).await;
    assert_eq!(scene.count(&lets_go).await, 50);
    // And it follows from there on, until it no longer fits when walvec starts.
    scene.sql(&format!("update {lets_go} set n = n + 1 where id < 20")).await;
    scene.converged(&mut daemon).await;
    daemon.terminate(PATIENCE).await;
    scene
        .sql(&format!(
            "alter table {lets_go} alter n type text; update {lets_go} set n = 'x' where id = 20; {}",
            insert(&other, 20, 21, 8)
        ))
        .await;
    daemon.restart();
    daemon.status("it is let go again", PATIENCE, told).await;
    scene.caught_up(&mut daemon).await;
    let (code, said) = resync(&daemon, &lets_go);
    assert_eq!(code, 0, "{said}");
    daemon.ready(PATIENCE).await;
    scene.converged(&mut daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn entities_without_a_row_are_swept_beside_writers_and_kills() {
    for major in majors() {
        let mut scene = Scene::shared(major).await;
        let table = scene.documents(8).await;
        // Keys that sort and quote differently on both sides.
        let texts = scene
            .table("t text, k int, title text, embedding vector(2) not null default '[1,2]', primary key (t, k)")
            .await;
        scene.insert(&table, 1, 4000, 8).await;
        let fill = format!(
            "insert into {texts} select chr(33 + i % 200) || '|\\' || i, i, 'x' from generate_series(1, 1500) i"
        );
        scene.sql(&fill).await;
        let mut daemon = scene.started().await;
        daemon.terminate(PATIENCE).await;
        change_unseen(
            &scene,
            &table,
            &format!("delete from {table} where id % 3 = 0; update {table} set n = 7 where id < 9"),
        )
        .await;
        change_unseen(&scene, &texts, &format!("delete from {texts} where k % 2 = 0")).await;
        daemon.restart();
        daemon.ready(PATIENCE).await;
        scene.caught_up(&mut daemon).await;
        assert_eq!(verdict(&scene).await, Verdict::Different, "nobody told it");

        let (code, said) = resync(&daemon, &texts);
        assert_eq!(code, 0, "{said}");
        // Asked for again while the copy, the sweep or the new session is on its way: the last one counts.
        for _ in 0..4 {
            let (code, said) = resync(&daemon, &texts);
            assert_eq!(code, 0, "{said}");
        }
        let (code, said) = resync(&daemon, &format!("public.{table}"));
        assert_eq!(code, 0, "{said}");
        for round in 0..4 {
            scene
                .sql(&format!(
                    "delete from {table} where id % 50 = {round}; {}; update {table} set id = -id where id % 50 = {round} + 10;
                     delete from {texts} where k % 60 = {round}; insert into {texts} values ('back {round}|', {round}, 'y')",
                    insert(&table, 10_000 + round * 10, 10_009 + round * 10, 8)
                ))
                .await;
            daemon.kill();
            daemon.restart();
        }
        daemon.ready(PATIENCE).await;
        scene.converged(&mut daemon).await;
        assert!(daemon.log().contains("entities that have no row are looked for"), "{}", daemon.log());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_can_be_asked_for_while_no_daemon_runs() {
    let mut scene = Scene::shared(major()).await;
    let table = scene.documents(8).await;
    scene.insert(&table, 1, 200, 8).await;
    let mut daemon = scene.started().await;
    let (code, said) = resync(&daemon, "public.nowhere");
    assert!(code == 2 && said.contains("public.nowhere was never copied"), "{said}");
    daemon.terminate(PATIENCE).await;
    change_unseen(&scene, &table, &format!("delete from {table} where id > 100")).await;
    let (code, said) = resync(&daemon, "public.nowhere");
    assert!(code == 2 && said.contains("public.nowhere was never copied"), "{said}");
    let (code, said) = resync(&daemon, &table);
    assert_eq!(code, 0, "{said}");
    daemon.restart();
    daemon.ready(PATIENCE).await;
    scene.converged(&mut daemon).await;
    assert_eq!(scene.count(&table).await, 100);

    // A filter that lets less and other rows through.
    daemon.terminate(PATIENCE).await;
    scene.insert(&table, 300, 320, 8).await;
    scene.sql(&format!("alter publication {} set table {table} where (id > 50)", scene.slot)).await;
    let said = scene.refused().await;
    assert!(said.contains(&format!("`walvec resync public.{table}`")), "{said}");
    let (code, said) = resync(&daemon, &table);
    assert_eq!(code, 0, "{said}");
    daemon = scene.started().await;
    scene.converged(&mut daemon).await;
    assert_eq!(scene.count(&table).await, 71);
}
