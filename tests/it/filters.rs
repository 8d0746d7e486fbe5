//! Row filters and column lists: from the settings into the publication, and from the publication into the plan.

use crate::support::postgres::{major, majors};
use crate::support::scene::{PATIENCE, Scene, embedding};

/// Tenants 1 to 3, 20 rows each, embeddings out of line.
async fn tenants(scene: &mut Scene, lines: &str) -> String {
    let columns = "tenant int, id bigint, title text, n int not null, secret text, embedding vector(768) not null, primary key (tenant, id)";
    let table = scene.table(columns).await;
    scene.set_lines(&table, lines);
    let vector = embedding("(t * 100 + i)", 768);
    scene
        .sql(&format!(
            "insert into {table} select t, i, 'title ' || i, i, 'secret', {vector} \
             from generate_series(1, 3) t, generate_series(1, 20) i"
        ))
        .await;
    table
}

async fn value(scene: &Scene, sql: &str) -> Option<String> {
    scene.client.query_one(sql, &[]).await.expect("one row").get(0)
}

/// Equal to the table as the filter shows it, and as many entities as a count without our own filter says.
async fn converged(scene: &Scene, daemon: &mut crate::support::daemon::Daemon, table: &str, filter: &str) {
    scene.converged(daemon).await;
    let rows = value(scene, &format!("select count(*)::text from {table} where {filter}")).await;
    assert_eq!(rows, Some(scene.count(table).await.to_string()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_of_the_settings_goes_into_the_publication_and_holds_for_copy_and_stream() {
    for major in majors() {
        let mut scene = Scene::shared(major).await;
        let table = tenants(&mut scene, "where = \"tenant <> 2 -- not theirs\"").await;
        let mut daemon = scene.started().await;
        let published = format!("select rowfilter from pg_publication_tables where pubname = '{}'", scene.slot);
        assert_eq!(value(&scene, &published).await.as_deref(), Some("(tenant <> 2)"));
        converged(&scene, &mut daemon, &table, "tenant <> 2").await;
        assert_eq!(scene.count(&table).await, 40);
        let vector = embedding("9", 768);
        for statement in [
            // An update of a row that never passes, and one that always does.
            "update {t} set title = 'new' where id < 4",
            // Into the filter: an insert without the embedding, which is out of line. Out of it: a delete.
            "update {t} set tenant = 4 where tenant = 2 and id <= 5",
            "update {t} set tenant = 2, title = 'gone' where tenant = 1 and id <= 5",
            // In and out again in one transaction, and out and in.
            "begin; update {t} set tenant = 5 where tenant = 2 and id = 9; update {t} set tenant = 2 where tenant = 5; commit",
            "begin; update {t} set tenant = 2, id = 60 where tenant = 3 and id = 9; update {t} set tenant = 3, id = 9, n = 7 where tenant = 2 and id = 60; commit",
            "insert into {t} values (2, 100, 'no', 1, '', {v}), (6, 100, 'yes', 1, '', {v})",
            "delete from {t} where id in (10, 11)",
        ] {
            scene.sql(&statement.replace("{t}", &table).replace("{v}", &vector)).await;
        }
        converged(&scene, &mut daemon, &table, "tenant <> 2").await;
        // The same filter in other words is the same filter.
        daemon.terminate(PATIENCE).await;
        scene.set_lines(&table, "where = \"(tenant) != 2\"");
        let mut daemon = scene.started().await;
        scene.sql(&format!("update {table} set tenant = 8 where tenant = 2 and id = 12")).await;
        converged(&scene, &mut daemon, &table, "tenant <> 2").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_filter_and_the_list_of_a_publication_are_taken_as_they_are() {
    let mut scene = Scene::shared(major()).await;
    let table = tenants(&mut scene, "").await;
    scene
        .sql(&format!(
            "create publication {} for table {table} (embedding, tenant, id, title) where (tenant = 1 or tenant = 3)",
            scene.slot
        ))
        .await;
    let mut daemon = scene.started().await;
    converged(&scene, &mut daemon, &table, "tenant = 1 or tenant = 3").await;
    scene
        .sql(&format!(
            "update {table} set title = 'x', secret = 'y' where id = 1; update {table} set tenant = 3, id = 50 where tenant = 2 and id = 2"
        ))
        .await;
    converged(&scene, &mut daemon, &table, "tenant = 1 or tenant = 3").await;
    let target = walvec::pipeline::connect_target(&scene.settings().target).expect("a client");
    let collection = target.describe_collection(&scene.collection(&table)).await.expect("described").expect("there");
    let fields: Vec<&str> = collection.fields.iter().map(|field| field.name.as_str()).collect();
    assert_eq!(fields, ["pk", "tenant", "id", "title", "embedding"], "what is not published has no field");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_over_any_column_works_with_replica_identity_full() {
    let mut scene = Scene::shared(major()).await;
    let table = tenants(&mut scene, "where = \"n > 10 and title is not null\"").await;
    scene.sql(&format!("alter table {table} replica identity full")).await;
    let mut daemon = scene.started().await;
    converged(&scene, &mut daemon, &table, "n > 10 and title is not null").await;
    scene
        .sql(&format!(
            "update {table} set n = n + 5 where id between 4 and 8; update {table} set title = null where id = 15; \
             update {table} set n = 1, title = 'x' where id = 16; delete from {table} where id in (3, 17)"
        ))
        .await;
    converged(&scene, &mut daemon, &table, "n > 10 and title is not null").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn columns_that_are_left_out_do_not_leave_the_server() {
    for (lines, expected) in [
        ("columns = { exclude = [\"secret\"] }", "tenant,id,title,n,embedding"),
        ("columns = { include = [\"tenant\", \"id\", \"embedding\"] }", "tenant,id,embedding"),
    ] {
        let mut scene = Scene::shared(major()).await;
        let table = tenants(&mut scene, lines).await;
        let mut daemon = scene.started().await;
        let sql = format!(
            "select array_to_string(attnames, ',') from pg_publication_tables where pubname = '{}'",
            scene.slot
        );
        assert_eq!(value(&scene, &sql).await.as_deref(), Some(expected));
        scene.sql(&format!("update {table} set secret = 'other', n = 0; delete from {table} where id = 3")).await;
        scene.converged(&mut daemon).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_that_would_stop_the_application_is_refused_before_the_publication_is_made() {
    let mut scene = Scene::shared(16).await;
    let table = tenants(&mut scene, "where = \"n > 10\"").await;
    let said = scene.refused().await;
    assert!(said.contains("needs a column outside the replica identity of public."), "{said}");
    assert!(said.contains("column \\\"n\\\" does not exist") || said.contains("column \"n\" does not exist"), "{said}");
    assert!(said.contains("REPLICA IDENTITY FULL, or filter by columns of the key"), "{said}");
    let made = format!("select count(*)::text from pg_publication where pubname = '{}'", scene.slot);
    assert_eq!(value(&scene, &made).await.as_deref(), Some("0"));
    scene.sql(&format!("update {table} set n = 0 where id = 1")).await;

    scene.set_lines(&table, "where = \"tenent = 1\"");
    let said = scene.refused().await;
    assert!(said.contains("PostgreSQL does not understand its `where`"), "{said}");

    scene.set_lines(&table, "where = \"tenant = 1) or (true\"");
    let said = scene.refused().await;
    assert!(said.contains("PostgreSQL does not understand its `where`"), "{said}");

    scene.set_lines(&table, "where = \"tenant = 1\"");
    scene.sql(&format!("create publication {} for table {table} where (tenant = 2)", scene.slot)).await;
    let said = scene.refused().await;
    assert!(said.contains("the publication's row filter is (tenant = 2), the configuration says"), "{said}");
    assert!(said.contains("take `where` out, or ALTER PUBLICATION"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_filter_in_the_publication_is_noticed_while_running() {
    let mut scene = Scene::shared(major()).await;
    let table = tenants(&mut scene, "").await;
    scene.sql(&format!("create publication {} for table {table} where (tenant = 1)", scene.slot)).await;
    let mut daemon = scene.started().await;
    scene.sql(&format!("alter publication {} set table {table} where (tenant = 2)", scene.slot)).await;
    let status = daemon.ended(PATIENCE).await;
    let said = daemon.log();
    assert_eq!(status.code(), Some(3), "{said}");
    assert!(said.contains("was copied with the row filter (tenant = 1), now it has (tenant = 2)"), "{said}");
    // Set back, it goes on.
    scene.sql(&format!("alter publication {} set table {table} where (tenant = 1)", scene.slot)).await;
    daemon.restart();
    daemon.ready(PATIENCE).await;
    scene.sql(&format!("update {table} set title = 'on' where id < 5")).await;
    converged(&scene, &mut daemon, &table, "tenant = 1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_left_the_publication_is_not_taken_up_again_in_silence() {
    let mut scene = Scene::shared(major()).await;
    let table = tenants(&mut scene, "").await;
    let other = scene.documents(4).await;
    let mut daemon = scene.started().await;
    scene.sql(&format!("alter publication {} drop table {table}", scene.slot)).await;
    let status = daemon.ended(PATIENCE).await;
    let said = daemon.log();
    assert_eq!(status.code(), Some(3), "{said}");
    assert!(said.contains(&format!("table public.{table} is no longer in the publication")), "{said}");
    let listed =
        format!("select string_agg(tablename, ',') from pg_publication_tables where pubname = '{}'", scene.slot);
    assert_eq!(value(&scene, &listed).await, Some(other));
}
