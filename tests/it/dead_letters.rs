//! Rows that Milvus will not take: set aside, tried again, given up, and never lost by a kill.

use serde_json::Value;
use walvec::config::Transport;

use crate::support::daemon::{Daemon, walvec};
use crate::support::postgres::major;
use crate::support::scene::{PATIENCE, Scene};
use crate::support::scripted::faults::{Fault, When};
use crate::support::scripted::store::Key;
use crate::support::scripted::{Operation, Options, Scripted};

const DEAD_LETTER: &str = "on_misfit = \"dead_letter\"\n[table.fields.title]\nmax_length = 12\n";

/// `walvec dead-letters …`: its exit code, standard output and standard error.
fn dead_letters(daemon: &Daemon, arguments: &[&str]) -> (i32, String, String) {
    walvec("dead-letters", daemon.config(), arguments)
}

/// The listed letters by key, after everything that was committed has arrived.
async fn listed(scene: &Scene, daemon: &mut Daemon) -> Vec<Value> {
    scene.caught_up(daemon).await;
    let (_, json, said) = dead_letters(daemon, &["list", "--json"]);
    serde_json::from_str(&json).unwrap_or_else(|error| panic!("{error}: {json}{said}"))
}

fn keys(letters: &[Value]) -> Vec<&str> {
    letters.iter().map(|letter| letter["key"].as_str().expect("a key")).collect()
}

async fn set_title(scene: &Scene, table: &str, id: i64, title: &str) {
    scene.sql(&format!("update {table} set title = '{title}' where id = {id}")).await;
}

const LONG: &str = "much longer than twelve";

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_does_not_fit_is_set_aside_until_it_does() {
    let mut scene = Scene::shared(major()).await;
    scene.extra = "[pipeline]\ndead_letter_payload_bytes = \"40B\"".to_owned();
    let table = scene.documents(8).await;
    scene.set_lines(&table, DEAD_LETTER);
    let name = format!("public.{table}");
    scene.insert(&table, 1, 50, 8).await;
    set_title(&scene, &table, 7, LONG).await;
    let mut daemon = scene.started().await;
    set_title(&scene, &table, 8, LONG).await;
    scene.insert(&table, 51, 51, 8).await;
    set_title(&scene, &table, 51, LONG).await;
    // What comes behind goes on.
    scene.sql(&format!("update {table} set n = n + 1 where id > 8 and id < 51")).await;

    let letters = listed(&scene, &mut daemon).await;
    assert_eq!(keys(&letters), ["7", "8", "51"]);
    for (letter, origin) in letters.iter().zip(["copy", "stream", "stream"]) {
        assert_eq!(letter["table"], name.as_str(), "{letter}");
        assert_eq!((&letter["field"], &letter["origin"]), (&"title".into(), &origin.into()), "{letter}");
        assert!(letter["reason"].as_str().is_some_and(|reason| reason.contains("12")), "{letter}");
        assert_eq!(letter["payload"][1][1], LONG, "{letter}");
    }
    scene.assert_equal().await;
    assert_eq!(scene.count(&table).await, 48, "absent, not old");
    let status = daemon.status("it is told", PATIENCE, |s| s["tables"][0]["dead_letters"] == 3).await;
    assert_eq!(status["tables"][0]["phase"], "following", "{status}");
    let (_, metrics) = daemon.get("/metrics").await.expect("an answer");
    assert!(metrics.contains(&format!("walvec_dead_letters{{table=\"{name}\"}} 3")), "{metrics}");
    let (code, shown, _) = dead_letters(&daemon, &["show", &name, "8"]);
    assert!(code == 0 && shown.contains("title = \"much longer than twelve\""), "{shown}");

    daemon.kill();
    daemon.restart();
    daemon.ready(PATIENCE).await;
    assert_eq!(keys(&listed(&scene, &mut daemon).await), ["7", "8", "51"], "a kill forgets none");

    // Mended, deleted, and carried to another key.
    set_title(&scene, &table, 7, "short").await;
    scene.sql(&format!("delete from {table} where id = 8; update {table} set id = 52 where id = 51")).await;
    assert_eq!(keys(&listed(&scene, &mut daemon).await), ["52"]);
    scene.assert_equal().await;
    assert_eq!(scene.count(&table).await, 49, "7 is back");

    let (code, said, _) = dead_letters(&daemon, &["retry", &name, "52"]);
    assert!(code == 1 && said.starts_with("0 at the target, 1 refused again, 0 waiting\n"), "{said}");
    let letters = listed(&scene, &mut daemon).await;
    assert_eq!((letters.len(), &letters[0]["attempts"]), (1, &2.into()));

    scene.sql(&format!("truncate {table}")).await;
    assert!(listed(&scene, &mut daemon).await.is_empty(), "no row, no letter");
    let (code, _, said) = dead_letters(&daemon, &["retry"]);
    assert!(code == 1 && said.contains("there is no dead letter"), "{said}");
    let (code, said, _) = dead_letters(&daemon, &["list"]);
    assert_eq!((code, said.as_str()), (0, "0 dead letters\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_the_server_refuses_is_tried_again_on_request() {
    for transport in [Transport::Grpc, Transport::Rest] {
        let milvus = Scripted::start(Options::default()).await;
        let mut scene = Scene::scripted(major(), &milvus, transport).await;
        let table = scene.documents(600).await;
        scene.set_lines(&table, DEAD_LETTER);
        for key in [7, 20, 31] {
            milvus.fail(Operation::Upsert, When::Key(Key::Int(key)), Fault::Refuse(1100, "invalid parameter"));
        }
        scene.insert(&table, 1, 25, 600).await;
        let mut daemon = scene.started().await;
        scene.insert(&table, 26, 40, 600).await;
        let letters = listed(&scene, &mut daemon).await;
        assert_eq!(keys(&letters), ["7", "20", "31"]);
        assert!(letters.iter().all(|letter| letter["field"].is_null()), "{letters:?}");
        assert!(letters.iter().all(|letter| letter.get("payload").is_none()), "no value is kept unasked: {letters:?}");
        assert_eq!(scene.count(&table).await, 37);

        // A scalar update, whose vector the stream leaves out, is whole all the same.
        milvus.heal();
        scene.sql(&format!("update {table} set n = -1 where id = 20")).await;
        assert_eq!(keys(&listed(&scene, &mut daemon).await), ["7", "31"]);
        let (code, said, _) = dead_letters(&daemon, &["retry"]);
        assert!(code == 0 && said == "2 at the target, 0 refused again, 0 waiting\n", "{said}");
        scene.converged(&mut daemon).await;
        assert_eq!(scene.count(&table).await, 40);
        assert_eq!(daemon.metric(&format!("walvec_rows_dead_lettered_total{{table=\"public.{table}\"}}")).await, 3.0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_beside_a_letter_loses_neither_it_nor_the_row() {
    for point in ["letter:1", "letter:2", "acknowledged:2", "checkpointed:2"] {
        let mut scene = Scene::shared(16).await;
        let table = scene.documents(8).await;
        scene.set_lines(&table, DEAD_LETTER);
        scene.insert(&table, 1, 20, 8).await;
        let mut daemon = scene.started().await;
        daemon.terminate(PATIENCE).await;
        set_title(&scene, &table, 3, LONG).await;
        set_title(&scene, &table, 4, LONG).await;
        set_title(&scene, &table, 4, "short").await;
        set_title(&scene, &table, 5, LONG).await;
        daemon.restart_with(&[("WALVEC_CRASH_AT", point)]);
        daemon.ended(PATIENCE).await;
        daemon.restart();
        daemon.ready(PATIENCE).await;
        assert_eq!(keys(&listed(&scene, &mut daemon).await), ["3", "5"], "{point}");
        scene.assert_equal().await;
        assert_eq!(scene.count(&table).await, 18, "{point}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_letters_stop_the_table_and_a_field_may_stop_it_at_once() {
    let mut scene = Scene::shared(major()).await;
    scene.extra = "[pipeline]\nlanes = 1".to_owned(); // which of them is the third must not depend on chance
    let limited = scene.documents(8).await;
    scene.set_lines(&limited, &format!("dead_letters_max = 2\n{DEAD_LETTER}"));
    let strict = scene.documents(8).await;
    scene.set_lines(&strict, &format!("{DEAD_LETTER}on_misfit = \"error\"\n"));
    scene.insert(&limited, 1, 9, 8).await;
    scene.insert(&strict, 1, 9, 8).await;
    let mut daemon = scene.started().await;
    for id in 1..=3 {
        set_title(&scene, &limited, id, LONG).await;
    }
    set_title(&scene, &strict, 1, LONG).await;
    let status = daemon
        .status("both have stopped", PATIENCE, |s| {
            s["tables"].as_array().is_some_and(|all| all.iter().all(|table| table["phase"] == "stopped"))
        })
        .await;
    let reason = |table: &str| {
        let of = status["tables"].as_array().expect("tables").iter().find(|t| t["name"] == format!("public.{table}"));
        of.expect("the table")["stopped_reason"].as_str().expect("a reason").to_owned()
    };
    assert!(reason(&limited).contains(": field \"title\": "), "{}", reason(&limited));
    assert!(reason(&limited).contains("2 dead letters already, as many as `dead_letters_max`"), "{}", reason(&limited));
    assert!(!reason(&strict).contains("dead"), "{}", reason(&strict));
    // Mended: the next start reads the rows again, and nothing was lost meanwhile.
    set_title(&scene, &limited, 3, "short").await;
    set_title(&scene, &strict, 1, "short").await;
    daemon.terminate(PATIENCE).await;
    daemon.restart();
    daemon.ready(PATIENCE).await;
    scene.converged(&mut daemon).await;
    assert_eq!(keys(&listed(&scene, &mut daemon).await), ["1", "2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn letters_are_listed_and_discarded_while_no_daemon_runs() {
    let mut scene = Scene::shared(major()).await;
    // A key of two columns with everything that could confuse a command line or a URL.
    let table = scene
        .table(
            "tenant text, id int, title text, embedding vector(2) not null default '[1,2]', primary key (tenant, id)",
        )
        .await;
    scene.set_lines(&table, DEAD_LETTER);
    let name = format!("public.{table}");
    let hostile = "-a|b&key=x \\ é%20\"";
    let key = format!("{}|7", hostile.replace('\\', "\\\\").replace('|', "\\|"));
    scene
        .sql(&format!(
            "insert into {table} values ('{hostile}', 7, '{LONG}'), ('{hostile}', 8, 'x'), ('b', 1, '{LONG}')"
        ))
        .await;
    let mut daemon = scene.started().await;
    assert_eq!(keys(&listed(&scene, &mut daemon).await), [key.as_str(), "b|1"]);
    let (code, said, _) = dead_letters(&daemon, &["retry", &name, &key]);
    assert!(code == 1 && said.starts_with("0 at the target, 1 refused again"), "{said}");
    daemon.terminate(PATIENCE).await;

    let (code, said, _) = dead_letters(&daemon, &["list", &name, "b|1"]);
    assert!(code == 1 && said.ends_with("1 dead letters\n"), "{said}");
    let (code, _, said) = dead_letters(&daemon, &["retry"]);
    assert!(code == 75 && said.contains("no daemon runs") && said.contains("walvec run"), "{said}");
    let (code, _, said) = dead_letters(&daemon, &["discard"]);
    assert!(code == 2 && said.contains("--all"), "{said}");
    let (code, said, _) = dead_letters(&daemon, &["discard", &name, "b|1"]);
    assert_eq!((code, said.as_str()), (0, "1 discarded\n"));

    daemon.restart();
    daemon.ready(PATIENCE).await;
    assert_eq!(keys(&listed(&scene, &mut daemon).await), [key.as_str()]);
    let (code, said, _) = dead_letters(&daemon, &["discard", "--all"]);
    assert_eq!((code, said.as_str()), (0, "1 discarded\n"));
    assert_eq!(scene.count(&table).await, 1, "given up is absent");
    scene.sql(&format!("update {table} set title = 'short'")).await;
    scene.converged(&mut daemon).await;
    assert_eq!(scene.count(&table).await, 3, "until it changes");
    assert!(!daemon.log().contains(LONG), "no value is in the log");
}
