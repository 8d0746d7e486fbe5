//! The options of Zilliz's own migration, each by its name, and continuously: copy and stream alike. And what goes beyond them.

use std::collections::BTreeMap;

use walvec::config::Transport;
use walvec::milvus::{ConsistencyLevel, DataType, Keys, Milvus, Query, Selection};

use crate::support::postgres::major;
use crate::support::scene::Scene;
use crate::support::scripted::{Options, Scripted, Version};

/// Every target that has an option is asked: Milvus Lite, and the scripted Milvus over both transports.
async fn scenes() -> Vec<(Scene, Option<Scripted>)> {
    let mut scenes = vec![(Scene::shared(major()).await, None)];
    for transport in [Transport::Grpc, Transport::Rest] {
        let milvus = Scripted::start(Options { version: Version::V2_6, ..Options::default() }).await;
        scenes.push((Scene::scripted(major(), &milvus, transport).await, Some(milvus)));
    }
    scenes
}

fn target(scene: &Scene) -> std::sync::Arc<dyn Milvus> {
    walvec::pipeline::connect_target(&scene.settings().target).expect("a client")
}

#[tokio::test(flavor = "multi_thread")]
async fn rename_and_nullable() {
    for (mut scene, milvus) in scenes().await {
        let table = scene.table("id int primary key, \"Title (de)\" text, n int, e vector(2) not null").await;
        scene
            .set_lines(&table, "[table.fields.\"Title (de)\"]\nrename = \"title\"\n[table.fields.n]\nnullable = false");
        scene.sql(&format!("insert into {table} values (1, null, 1, '[1,2]')")).await;
        let mut daemon = scene.started().await;
        scene
            .sql(&format!(
                "insert into {table} values (2, 'b', 2, '[1,2]'); update {table} set \"Title (de)\" = 'a' where id = 1"
            ))
            .await;
        scene.converged(&mut daemon).await;
        let schema =
            target(&scene).describe_collection(&scene.collection(&table)).await.expect("described").expect("there");
        let flags: Vec<_> = schema.fields.iter().map(|field| (&*field.name, field.nullable)).collect();
        assert_eq!(flags[..3], [("id", false), ("title", true), ("n", false)]);
        assert_eq!(milvus.map_or(vec![], |milvus| milvus.violations()), Vec::<String>::new());
    }
}

/// NULL becomes the default: in the copy, in the stream, and when a value is set to NULL again.
#[tokio::test(flavor = "multi_thread")]
async fn default_value() {
    for (mut scene, milvus) in scenes().await {
        let columns = "id int primary key, t text, n int, b bool, f float4, d float8, x numeric, e vector(2) not null";
        let table = scene.table(columns).await;
        let fields = [("t", "\"untitled\""), ("n", "7"), ("b", "true"), ("f", "0.1"), ("d", "-2.5"), ("x", "\"1.10\"")];
        let lines: Vec<String> =
            fields.iter().map(|(name, value)| format!("[table.fields.{name}]\ndefault = {value}")).collect();
        scene.set_lines(&table, &lines.join("\n"));
        scene.sql(&format!("insert into {table} (id, e) values (1, '[1,2]')")).await;
        let mut daemon = scene.started().await;
        scene.converged(&mut daemon).await;
        scene
            .sql(&format!(
                "insert into {table} values (2, 'a', 1, false, 1, 1, 1, '[1,2]'), (3, null, null, null, null, null, null, '[1,2]');
                 update {table} set t = 'c' where id = 1; update {table} set t = null, n = null, b = null where id = 2"
            ))
            .await;
        scene.converged(&mut daemon).await;
        let name = scene.collection(&table);
        let target = target(&scene);
        let keys = Keys::Int64(vec![3]);
        let fields = ["id", "t", "n"].map(std::sync::Arc::from);
        let query = Query { collection: &name, selection: Selection::Keys(&keys), output_fields: &fields };
        let found = target.query(query).await.expect("read");
        assert_eq!(found[1].data, walvec::milvus::ColumnData::VarChar(vec!["untitled".into()]));
        assert_eq!(found[2].data, walvec::milvus::ColumnData::Int32(vec![7]));
        let schema = target.describe_collection(&name).await.expect("described").expect("there");
        if scene.target.is_empty() {
            assert_eq!(schema.fields[1].default_value.as_deref(), Some("untitled"));
        }
        // And a daemon that starts again finds its own collection fitting.
        daemon.kill();
        daemon.restart();
        daemon.ready(crate::support::scene::PATIENCE).await;
        assert_eq!(milvus.map_or(vec![], |milvus| milvus.violations()), Vec::<String>::new());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn partition_key() {
    for (mut scene, milvus) in scenes().await {
        let by_text = scene.table("tenant text, id int, n int, e vector(2) not null, primary key (tenant, id)").await;
        scene.set_lines(&by_text, "partition_key = \"tenant\"\nnum_partitions = 8");
        let by_number = scene.table("id int primary key, tenant int not null, n int, e vector(2) not null").await;
        scene.set_lines(&by_number, "partition_key = \"tenant\"");
        scene
            .sql(&format!("insert into {by_text} select 't' || i % 9, i, i, '[1,2]' from generate_series(1, 60) i"))
            .await;
        scene.sql(&format!("insert into {by_number} select i, i % 9, i, '[1,2]' from generate_series(1, 60) i")).await;
        let mut daemon = scene.started().await;
        scene.converged(&mut daemon).await;
        // A change of the partition key moves the entity: one is left.
        scene
            .sql(&format!(
                "update {by_text} set tenant = 't99' where id < 10; update {by_text} set n = 0 where id > 50;
                 update {by_number} set tenant = 99 where id < 10; delete from {by_number} where id > 50"
            ))
            .await;
        scene.converged(&mut daemon).await;
        assert_eq!((scene.count(&by_text).await, scene.count(&by_number).await), (60, 50));
        let target = target(&scene);
        for (table, data_type) in [(&by_text, DataType::VarChar), (&by_number, DataType::Int64)] {
            let schema = target.describe_collection(&scene.collection(table)).await.expect("described").expect("there");
            let key = schema.fields.iter().find(|field| field.is_partition_key).expect("a partition key");
            assert_eq!((&*key.name, key.data_type, key.nullable), ("tenant", data_type, false));
            if milvus.is_some() {
                assert_eq!(schema.num_partitions, Some(if data_type == DataType::VarChar { 8 } else { 16 }));
            }
        }
        assert_eq!(milvus.map_or(vec![], |milvus| milvus.violations()), Vec::<String>::new());
    }
}

/// Columns of every kind as members of the dynamic field.
#[tokio::test(flavor = "multi_thread")]
async fn dynamic_field() {
    for (mut scene, milvus) in scenes().await {
        scene.sql("create extension hstore").await;
        let columns = "id int primary key, a int8, b bool, c text, d numeric, f float8, j jsonb, h hstore, l text[], ts timestamptz, \
                       u text, e vector(300) not null";
        let table = scene.table(columns).await;
        let names = ["a", "b", "c", "d", "f", "j", "h", "l", "ts", "u"].map(|name| format!("{name:?}")).join(", ");
        scene.set_lines(&table, &format!("dynamic = [{names}]"));
        let vector = crate::support::scene::embedding("i", 300);
        scene
            .sql(&format!(
                "insert into {table} select i, i, i % 2 = 0, 'é \"' || i, 1.5, 0.1, '{{\"k\": [1, null]}}', 'a=>1, b=>null', \
                 array['x', null, 'y\"'], '2024-01-01 00:00:00.5+00', repeat('x', 3000), {vector} from generate_series(1, 20) i;
                 insert into {table} (id, e) select i, {vector} from generate_series(21, 25) i"
            ))
            .await;
        let mut daemon = scene.started().await;
        scene.converged(&mut daemon).await;
        // Out of line and unchanged, set, emptied, deleted.
        scene
            .sql(&format!(
                "update {table} set a = a + 1 where id < 15; update {table} set c = null, l = '{{}}' where id = 3;
                 update {table} set j = '\"s\"', d = 'NaN' where id = 4; delete from {table} where id = 5;
                 update {table} set b = true where id = 22"
            ))
            .await;
        scene.converged(&mut daemon).await;
        let schema =
            target(&scene).describe_collection(&scene.collection(&table)).await.expect("described").expect("there");
        assert!(schema.enable_dynamic_field);
        assert_eq!(schema.fields.len(), 2);
        if let Some(milvus) = milvus {
            assert_eq!(milvus.violations(), Vec::<String>::new());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn shards_consistency_level_properties_and_mmap() {
    for (mut scene, milvus) in scenes().await.into_iter().skip(1) {
        let table = scene.table("id int primary key, t text, e vector(2) not null").await;
        scene.set_lines(
            &table,
            "num_shards = 2\nconsistency_level = \"Session\"\nproperties = { \"mmap.enabled\" = true }\n[table.fields.t]\nmmap = true",
        );
        scene.sql(&format!("insert into {table} values (1, 'a', '[1,2]')")).await;
        let mut daemon = scene.started().await;
        scene.converged(&mut daemon).await;
        let schema =
            target(&scene).describe_collection(&scene.collection(&table)).await.expect("described").expect("there");
        assert_eq!((schema.num_shards, schema.consistency_level), (Some(2), Some(ConsistencyLevel::Session)));
        assert_eq!(schema.properties, BTreeMap::from([("mmap.enabled".to_owned(), "true".to_owned())]));
        assert_eq!(schema.fields[1].mmap, Some(true));
        assert_eq!(milvus.map_or(vec![], |milvus| milvus.violations()), Vec::<String>::new());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_is_refused_with_the_way_out() {
    let mut scene = Scene::shared(major()).await;
    let table = scene.table("id int primary key, t text, j jsonb, n int, e vector(2) not null").await;
    for (lines, sentence) in [
        ("partition_key = \"id\"", "`partition_key` names the primary key"),
        ("partition_key = \"j\"", "a partition key is INT64 or VARCHAR, and jsonb is neither; name another column"),
        ("partition_key = \"x\"", "`partition_key` names a column that is not taken; its columns are id, t, j, n, e"),
        ("partition_key = \"t\"\n[table.fields.t]\nnullable = true", "`nullable = true` of a key or partition key"),
        ("partition_key = \"t\"\ndynamic = [\"t\"]", "`dynamic` names it, and the partition key needs its field"),
        ("dynamic = [\"id\"]", "`dynamic` names it, and a column of the key needs its field"),
        ("dynamic = [\"e\"]", "`dynamic` names it, and Milvus searches vectors in fields only"),
        (
            "dynamic = [\"t\"]\n[table.fields.t]\nmax_length = 3",
            "`dynamic` names it, so it has no field to set anything for",
        ),
        ("dynamic = [\"t\"]\n[table.fields.n]\nrename = \"t\"", "it would have the name of a field"),
        ("[table.fields.n]\ndefault = \"seven\"", "`default = \"seven\"`, which is no INT32 of this field"),
        ("[table.fields.n]\ndefault = 3000000000", "`default = \"3000000000\"`, which is no INT32 of this field"),
        (
            "[table.fields.t]\nmax_length = 2\ndefault = \"abc\"",
            "`default = \"abc\"`, which is no VARCHAR of this field",
        ),
        ("[table.fields.j]\ndefault = \"{}\"", "`default`, and Milvus has none for JSON"),
        ("[table.fields.id]\ndefault = 1", "`default` of a key or partition key, which is never NULL"),
    ] {
        scene.set_lines(&table, lines);
        let said = scene.refused().await;
        assert!(said.contains(sentence), "{lines}: {said}");
    }
}
