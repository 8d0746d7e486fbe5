//! `walvec plan` as a child: what it shows, that it stays the same, and what it finds different.

use std::process::Output;

use serde_json::Value;
use tokio::process::Command;
use walvec::config::Transport;

use crate::support::postgres::major;
use crate::support::scene::{PATIENCE, Scene};
use crate::support::scripted::{Options, Scripted, Version};

async fn plan(scene: &Scene, arguments: &[&str]) -> (i32, String) {
    scene.settings();
    let mut command = Command::new(env!("CARGO_BIN_EXE_walvec"));
    let config = scene.directory.path().join("verify.toml");
    command.arg("plan").args(arguments).arg("--config").arg(&config).kill_on_drop(true);
    let output: Output = tokio::time::timeout(PATIENCE, command.output()).await.expect("ends in time").expect("starts");
    let errors = String::from_utf8_lossy(&output.stderr);
    (output.status.code().expect("no signal"), String::from_utf8_lossy(&output.stdout).into_owned() + &errors)
}

async fn json(scene: &Scene, arguments: &[&str]) -> (i32, Value) {
    let (code, text) = plan(scene, arguments).await;
    let end = text.rfind("}\n").expect("JSON") + 1;
    (code, serde_json::from_str(&text[..end]).unwrap_or_else(|error| panic!("{error}: {text}")))
}

#[tokio::test(flavor = "multi_thread")]
async fn sizes_are_estimated_and_json_stays_the_same_without_them() {
    let mut scene = Scene::shared(major()).await;
    scene.target = "max_write_mb_per_s = 1.0".into();
    let table = scene.documents(64).await;
    let parted = scene.table("id int primary key, e vector(16) not null) partition by range (id").await;
    scene
        .sql(&format!(
            "create table {parted}_1 partition of {parted} for values from (0) to (500); create table {parted}_2 partition of \
             {parted} for values from (500) to (1000); insert into {parted} select i, array_fill(0.5, array[16])::vector from generate_series(0, 999) i"
        ))
        .await;
    let (_, never) = plan(&scene, &[]).await;
    assert!(never.contains("rows unknown: ANALYZE tells them"), "{never}");
    scene.insert(&table, 1, 2_000, 64).await;
    let before = json(&scene, &["--json", "--no-estimate"]).await;
    scene.sql("analyze").await;
    let (code, found) = json(&scene, &["--json"]).await;
    assert_eq!((code, &found["version"]), (0, &Value::from(1)));
    let name = format!("public.{table}");
    let of = |name: &str| {
        found["tables"].as_array().expect("tables").iter().find(|t| t["table"] == name).expect("the table")
    };
    let estimate = &of(&name)["estimate"];
    assert_eq!(estimate["rows"], 2_000);
    // An int8, a text of about 10 bytes, an int4, 64 floats.
    let bytes = estimate["entity_bytes"].as_u64().expect("a number");
    assert!((270..320).contains(&bytes), "{bytes}");
    assert_eq!(estimate["write_seconds_at_quota"], 1);
    assert_eq!(of(&format!("public.{parted}"))["estimate"]["rows"], 1_000);
    assert_eq!(json(&scene, &["--json", "--no-estimate"]).await, before);
    let (_, text) = plan(&scene, &[]).await;
    assert!(text.contains("about 2000 rows") && text.contains("2 tables: about 3000 rows"), "{text}");
    let (_, text) = plan(&scene, &["--summary", "--table", &name]).await;
    assert!(
        text.starts_with(&format!("{name}  → "))
            && text.lines().next().expect("a line").contains("4 fields, 1 vectors"),
        "{text}"
    );
    let (code, text) = plan(&scene, &["--table", "public.absent"]).await;
    assert!(code == 2 && text.contains("table public.absent is not in the configuration"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_is_compared_with_what_is_there() {
    let scripted = Scripted::start(Options { version: Version::V2_6, ..Options::default() }).await;
    let scenes = [
        Scene::shared(major()).await,
        Scene::scripted(major(), &scripted, Transport::Grpc).await,
        Scene::scripted(major(), &scripted, Transport::Rest).await,
    ];
    for mut scene in scenes {
        let table = scene.table("id int primary key, t text, n int, e vector(4) not null").await;
        scene
            .sql(&format!("create index on {table} using hnsw (e vector_l2_ops) with (m = 8, ef_construction = 40)"))
            .await;
        let (code, text) = plan(&scene, &["--diff"]).await;
        assert!(code == 1 && text.contains("does not exist: `walvec run` makes it"), "{text}");
        let mut daemon = scene.started().await;
        daemon.terminate(PATIENCE).await;
        let (code, text) = plan(&scene, &["--diff"]).await;
        assert!(code == 0 && text.contains(": equal\n"), "{code}: {text}");
        // What the daemon would refuse, and what it would live with.
        scene.sql(&format!("alter table {table} add column more int; alter table {table} drop column n")).await;
        scene.set_lines(&table, "[table.fields.t]\nmax_length = 100\n[table.fields.e]\nmetric = \"IP\"");
        let (code, found) = json(&scene, &["--diff", "--json"]).await;
        let table = &found["tables"][0];
        assert_eq!((code, &table["exists"], &table["equal"]), (1, &Value::from(true), &Value::from(false)));
        let sentences: Vec<(String, bool)> = table["differences"]
            .as_array()
            .expect("differences")
            .iter()
            .map(|d| (d["sentence"].as_str().expect("text").to_owned(), d["blocks"].as_bool().expect("a flag")))
            .collect();
        let expected = [
            ("field \"more\" (INT32) is missing", true),
            ("field \"t\" has max_length 65535, the plan 100", false),
            ("field \"n\" (INT32) has no column", false),
            ("field \"e\" has index HNSW L2 M=8 efConstruction=40, the plan HNSW IP M=8 efConstruction=40", false),
        ];
        assert_eq!(sentences.iter().map(|(text, blocks)| (&**text, *blocks)).collect::<Vec<_>>(), expected);
        let (_, text) = plan(&scene, &["--diff"]).await;
        assert!(text.contains("  ! field \"more\"") && text.contains("  ~ field \"e\""), "{text}");
    }
}
