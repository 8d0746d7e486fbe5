//! `walvec check` as a child process against real servers: what it finds, and that it leaves nothing behind.

use std::path::PathBuf;
use std::process::Output;
use std::time::Duration;

use serde_json::Value;
use tokio::process::Command;
use walvec::milvus::{CollectionSchema, DataType, FieldSchema};

use crate::support::postgres::{Database, major};
use crate::support::scene::Scene;
use crate::support::{milvus, unique};

/// A child that asks two servers and ends; far more than it needs on a loaded machine.
const DEADLINE: Duration = Duration::from_secs(60);

struct Checked {
    code: i32,
    findings: Vec<Value>,
}

impl Checked {
    /// The only finding of this level whose subject and sentence hold these words.
    fn one(&self, level: &str, subject: &str, sentence: &str) -> &Value {
        let holds =
            |finding: &Value, key: &str, words: &str| finding[key].as_str().is_some_and(|text| text.contains(words));
        let found: Vec<&Value> = self
            .findings
            .iter()
            .filter(|finding| finding["level"] == level)
            .filter(|finding| holds(finding, "subject", subject) && holds(finding, "sentence", sentence))
            .collect();
        assert_eq!(found.len(), 1, "{level} {subject}: {sentence}\n{:#?}", self.findings);
        found[0]
    }

    fn errors(&self) -> Vec<&Value> {
        self.findings.iter().filter(|finding| finding["level"] == "error").collect()
    }
}

async fn walvec(arguments: &[&str], config: &PathBuf) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_walvec"));
    command.args(arguments).arg("--config").arg(config).env_remove("PGPASSWORD").kill_on_drop(true);
    tokio::time::timeout(DEADLINE, command.output()).await.expect("ends in time").expect("starts")
}

async fn check(scene: &Scene) -> Checked {
    scene.settings();
    let config = scene.directory.path().join("verify.toml");
    let output = walvec(&["check", "--json"], &config).await;
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    let value: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}\n{errors}"));
    let findings = value["findings"].as_array().expect("findings").clone();
    Checked { code: output.status.code().expect("no signal"), findings }
}

#[tokio::test]
async fn what_is_ready_is_told_so_and_nothing_is_left_behind() {
    let mut scene = Scene::shared(major()).await;
    let table = scene.documents(8).await;
    let checked = check(&scene).await;
    assert_eq!((checked.code, checked.errors().len()), (0, 0), "{:#?}", checked.findings);
    checked.one("info", "slot", "created at the first start");
    checked.one("info", "publication", "created at the start");
    checked.one("info", "state", "does not exist yet");
    checked.one("info", "collection", "is created for public.");
    checked.one("info", "target", "answers: Milvus milvus_lite");
    let left = "select (select count(*) from pg_replication_slots where slot_name = $1)
                     + (select count(*) from pg_publication where pubname = $1)";
    let row = scene.client.query_one(left, &[&scene.slot]).await.expect("catalogs can be read");
    assert_eq!(row.get::<_, i64>(0), 0);
    assert!(!scene.directory.path().join("state").exists());
    let target = walvec::pipeline::connect_target(&scene.settings().target).expect("a client");
    let collection = target.describe_collection(&scene.collection(&table)).await.expect("Milvus answers");
    assert_eq!(collection, None);
}

#[tokio::test]
async fn every_table_that_cannot_be_a_collection_is_named_with_its_way_out() {
    let mut scene = Scene::shared(major()).await;
    let no_key = scene.table("id bigint, embedding vector(4)").await;
    let odd_type = scene.table("id bigint primary key, place vector(1), embedding vector(4)").await;
    scene.extra.push_str("[[table]]\nname = \"public.no_such_table\"\n");
    let checked = check(&scene).await;
    assert_eq!(checked.code, 6);
    for (subject, sentence) in
        [(no_key.as_str(), "key"), (odd_type.as_str(), "1 dimensions"), ("no_such_table", "does not exist")]
    {
        let finding = checked.one("error", subject, sentence);
        assert!(finding["mend"].as_str().is_some_and(|mend| !mend.is_empty()), "{finding}");
    }
}

#[tokio::test]
async fn a_role_that_lacks_privileges_is_told_which() {
    let database = Database::create(major()).await;
    let (url, role) = (database.url(), unique("check_role"));
    let mut scene = Scene::new(database.client, url, milvus::lite().await.url()).await;
    let table = scene.documents(8).await;
    scene.sql(&format!("create role {role} login password 'secret'; grant select on {table} to {role}")).await;
    let (mut source, settings) = (String::new(), scene.settings().source);
    for (name, value) in [
        ("host", settings.host.as_str()),
        ("port", &settings.port.to_string()),
        ("dbname", &settings.database),
        ("user", &role),
        ("password", "secret"),
    ] {
        source.push_str(&format!("{name}='{value}' "));
    }
    // The test's own settings stay the superuser's; the child gets this file.
    let config = scene.directory.path().join("limited.toml");
    let whole = std::fs::read_to_string(scene.directory.path().join("verify.toml")).expect("written above");
    let rest = whole.split_once("slot = ").map(|(_, rest)| rest).expect("a slot");
    std::fs::write(&config, format!("[source]\nurl = {source:?}\nslot = {rest}")).expect("the file is written");
    let output = walvec(&["check"], &config).await;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(3), "{text}");
    assert!(text.contains("error    replication connection: "), "{text}");
    assert!(text.contains("and this role cannot create it: it lacks "), "{text}");
    assert!(text.contains(&format!("ownership of {table}")), "{text}");
    assert!(text.contains("mend: as a role that may: CREATE PUBLICATION"), "{text}");
    assert!(!text.contains("secret"), "{text}");
    scene.sql(&format!("drop owned by {role}; drop role {role}")).await;
}

#[tokio::test]
async fn a_target_that_is_down_is_temporary_and_the_source_is_checked_all_the_same() {
    let database = Database::create(major()).await;
    let (url, port) = (database.url(), walvec::servers::free_port().expect("a free port"));
    let mut scene = Scene::new(database.client, url, format!("http://127.0.0.1:{port}")).await;
    scene.documents(8).await;
    let checked = check(&scene).await;
    assert_eq!(checked.code, 75, "{:#?}", checked.findings);
    assert_eq!(checked.errors().len(), 1, "{:#?}", checked.findings);
    checked.one("error", "target", "");
    checked.one("info", "slot", "created at the first start");
    checked.one("info", "table public.", "becomes collection");
}

#[tokio::test]
async fn a_collection_that_does_not_fit_is_named_before_anything_is_written() {
    let mut scene = Scene::shared(major()).await;
    let table = scene.documents(8).await;
    let field = |name: &str, data_type, dim, is_primary| FieldSchema {
        name: name.to_owned(),
        data_type,
        is_primary,
        auto_id: false,
        nullable: false,
        element_type: None,
        max_length: None,
        max_capacity: None,
        dim,
        description: String::new(),
        default_value: None,
        is_partition_key: false,
        mmap: None,
    };
    let schema = CollectionSchema {
        name: scene.collection(&table),
        description: String::new(),
        fields: vec![
            field("id", DataType::Int64, None, true),
            field("embedding", DataType::FloatVector, Some(4), false),
        ],
        enable_dynamic_field: false,
        num_shards: None,
        consistency_level: None,
        num_partitions: None,
        properties: std::collections::BTreeMap::new(),
    };
    let target = walvec::pipeline::connect_target(&scene.settings().target).expect("a client");
    target.create_collection(&schema).await.expect("the collection is created");
    let checked = check(&scene).await;
    assert_eq!(checked.code, 4, "{:#?}", checked.findings);
    let finding = checked.one("error", &schema.name, "does not fit table");
    assert!(
        finding["sentence"].as_str().is_some_and(|text| text.contains("title") && text.contains("embedding")),
        "{finding}"
    );
    target.drop_collection(&schema.name).await.expect("the collection is dropped");
}

#[tokio::test]
async fn beside_a_running_daemon_it_asks_what_it_can() {
    let mut scene = Scene::shared(major()).await;
    let table = scene.documents(8).await;
    scene.insert(&table, 1, 10, 8).await;
    let mut daemon = scene.started().await;
    let checked = check(&scene).await;
    assert_eq!(checked.code, 0, "{:#?}", checked.findings);
    checked.one("info", "state", "is in use by process");
    checked.one("info", "publication", "publishes every table");
    checked.one("info", "collection", "exists and fits");
    daemon.terminate(DEADLINE).await;
    // The state is free now: slot and positions are compared.
    let checked = check(&scene).await;
    assert_eq!(checked.code, 0, "{:#?}", checked.findings);
    checked.one("info", "slot", "fits the state: the stream starts at");
}
