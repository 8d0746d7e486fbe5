//! Keys: every type, chosen columns, and changes of which only the form differs.

use crate::support::postgres::{major, majors};
use crate::support::scene::{Scene, embedding};

/// For each type two values of it, and a third that rows are re-keyed to.
const TYPES: &[(&str, [&str; 3])] = &[
    ("smallint", ["-32768", "32767", "0"]),
    ("integer", ["-2147483648", "7", "8"]),
    ("bigint", ["9007199254740993", "-9007199254740993", "1"]),
    ("text", ["'é \" \\ | '' '", "'Ab'", "'aB'"]),
    ("varchar(40)", ["' '", "'%_'", "'\u{1F600}'"]),
    ("char(8)", ["'ab'", "'a b'", "'b'"]),
    (
        "uuid",
        [
            "'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'",
            "'00000000-0000-0000-0000-000000000000'",
            "'ffffffff-ffff-ffff-ffff-ffffffffffff'",
        ],
    ),
    ("numeric", ["1.0", "-123456789012345678901234567890.5", "'NaN'"]),
    ("numeric(20,4)", ["1.5", "0", "-2"]),
    ("date", ["'2024-02-29'", "'4713-01-01 BC'", "'infinity'"]),
    ("time", ["'23:59:59.999999'", "'24:00'", "'00:00'"]),
    ("timestamp", ["'2024-02-29 12:00:00.5'", "'-infinity'", "'1999-12-31 23:59:59.999999'"]),
    ("timestamptz", ["'2024-02-29 12:00+05:30'", "'0044-03-15 12:00 BC'", "'infinity'"]),
    ("slug", ["'a'", "'b'", "'c'"]),
    ("mood", ["'sad'", "'a \"|\\'", "'ok'"]),
    ("citext", ["'Ab'", "'ß'", "'aC'"]),
    ("bytea", ["''", "'\\x00ff'", "'\\x7c'"]),
    ("\"char\"", ["'a'", "'|'", "'b'"]),
    ("name", ["'pg_class'", "'a'", "'b'"]),
    ("timetz", ["'24:00:00-15:59:59'", "'01:02:03.5+05:30'", "'00:00+00'"]),
    ("interval", ["'1 mon -1 day'", "'-00:00:00.000001'", "'0'"]),
    ("inet", ["'10.0.0.1/8'", "'::ffff:1.2.3.4'", "'10.0.0.1'"]),
    ("cidr", ["'10.0.0.0/8'", "'::/0'", "'10.0.0.0/9'"]),
    ("macaddr", ["'08:00:2b:01:02:03'", "'ff:ff:ff:ff:ff:ff'", "'00:00:00:00:00:00'"]),
    ("bit(9)", ["B'101010101'", "B'000000000'", "B'000000001'"]),
    ("varbit", ["B'1'", "B'10'", "B'100'"]),
    ("oid", ["4294967295", "0", "1"]),
    ("pg_lsn", ["'16/B374D848'", "'0/0'", "'0/1'"]),
    ("money", ["'-1.50'", "'0'", "'1234.56'"]),
    ("int4range", ["'[1,5)'", "'empty'", "'(,)'"]),
    ("pair", ["row(1, 'a|b')", "row(2, 'a \"')", "row(3, '\\')"]),
    ("amount", ["1", "2", "3"]),
];

/// One table for each type, and one more whose key is that type and a boolean.
#[tokio::test(flavor = "multi_thread")]
async fn every_type_of_key_is_followed_alone_and_as_a_part() {
    let mut scene = Scene::shared(major()).await;
    scene
        .sql(
            "create domain slug as text check (value <> ''); create domain amount as bigint check (value > 0);
             create type mood as enum ('sad', 'ok', 'a \"|\\'); create type pair as (a int, b text); create extension citext",
        )
        .await;
    let vector = embedding("3", 768);
    let mut tables = Vec::new();
    for (name, [first, second, third]) in TYPES {
        let single = scene.table(&format!("k {name} primary key, n int, embedding vector(768) not null")).await;
        let double =
            scene.table(&format!("b bool, k {name}, n int, embedding vector(768) not null, primary key (k, b)")).await;
        scene
            .sql(&format!(
                "insert into {single} values ({first}, 1, {vector}), ({second}, 2, {vector});
                 insert into {double} values (true, {first}, 1, {vector}), (false, {first}, 2, {vector}), (true, {second}, 3, {vector})"
            ))
            .await;
        tables.push((single, double, second, third));
    }
    let mut daemon = scene.started().await;
    scene.converged(&mut daemon).await;
    for (single, double, second, third) in &tables {
        scene
            .sql(&format!(
                "update {single} set n = n + 10; update {single} set k = {third} where n = 12;
                 insert into {single} values ({second}, 5, {vector}); delete from {single} where n = 11;
                 update {double} set n = n + 10; update {double} set k = {third} where n = 13;
                 update {double} set b = not b where n = 11 and false; delete from {double} where n = 12"
            ))
            .await;
    }
    scene.converged(&mut daemon).await;
}

/// For PostgreSQL the key stays equal; in Milvus the entity is another one, so the old one must go.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_changes_in_form_only_is_one_entity_all_the_same() {
    let mut scene = Scene::shared(major()).await;
    let number = scene.table("k numeric primary key, n int, embedding vector(768) not null").await;
    let pair = scene.table("t text, k numeric, n int, embedding vector(768) not null, primary key (t, k)").await;
    let vector = embedding("i", 768);
    scene.sql(&format!("insert into {number} select i * 1.0, i, {vector} from generate_series(1, 10) i")).await;
    scene.sql(&format!("insert into {pair} select 'a', i * 1.0, i, {vector} from generate_series(1, 10) i")).await;
    let mut daemon = scene.started().await;
    for table in [&number, &pair] {
        scene.sql(&format!("update {table} set k = 1.00 where n = 1")).await;
        scene
            .sql(&format!(
                "begin; update {table} set k = 2.000 where n = 2; update {table} set n = 20 where k = 2; commit"
            ))
            .await;
        scene
            .sql(&format!(
                "begin; update {table} set k = 3.000 where n = 3; update {table} set k = 3.0 where n = 3; commit"
            ))
            .await;
        scene
            .sql(&format!("begin; update {table} set k = 4.000 where n = 4; delete from {table} where k = 4; commit"))
            .await;
        scene.sql(&format!("begin; delete from {table} where k = 5; insert into {table} (k, n, embedding {t}) values (5.000, 5, {vector} {a}); commit",
            t = if *table == pair { ", t" } else { "" }, a = if *table == pair { ", 'a'" } else { "" }, vector = embedding("77", 768))).await;
        scene.converged(&mut daemon).await;
        assert_eq!(scene.count(table).await, 9, "{table}");
    }
}

/// Longer than what stays in the row: an UPDATE then sends the key only as the old one.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_out_of_line_is_followed() {
    let mut scene = Scene::shared(major()).await;
    let table = scene.table("k text primary key, n int, body text, embedding vector(768) not null").await;
    let key = "(select string_agg(md5((i * 100 + j)::text), '') from generate_series(1, 75) j)";
    let vector = embedding("i", 768);
    scene.sql(&format!("alter table {table} alter k set storage external")).await;
    scene
        .sql(&format!("insert into {table} select {key}, i, repeat('b', 1900), {vector} from generate_series(1, 10) i"))
        .await;
    let mut daemon = scene.started().await;
    scene
        .sql(&format!(
            "update {table} set n = n + 100; update {table} set k = k || '!' where n = 103; delete from {table} where n = 104;
             begin; update {table} set body = 'x' where n = 105; update {table} set k = 'short' where n = 105; commit"
        ))
        .await;
    scene.converged(&mut daemon).await;
    assert_eq!(scene.count(&table).await, 9);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_without_a_primary_key_is_followed_by_chosen_columns() {
    for major in majors() {
        let mut scene = Scene::shared(major).await;
        let columns = "tenant int not null, slug text not null, n int, embedding vector(768) not null";
        let vector = embedding("i", 768);
        // By the index as replica identity, by FULL, one column alone, and a partitioned table.
        let by_index = scene.table(columns).await;
        let by_full = scene.table(columns).await;
        let single = scene.table(columns).await;
        let parted = scene.table(&format!("{columns}) partition by list (tenant")).await;
        for table in [&by_index, &by_full, &parted] {
            scene.set_lines(table, "key = [\"tenant\", \"slug\"]");
        }
        scene.set_lines(&single, "key = [\"slug\"]");
        scene
            .sql(&format!(
                "create unique index {by_index}_key on {by_index} (tenant, slug);
                 alter table {by_index} replica identity using index {by_index}_key;
                 create unique index on {by_full} (slug, tenant) include (n); alter table {by_full} replica identity full;
                 create unique index {single}_key on {single} (slug); alter table {single} replica identity using index {single}_key;
                 create table {parted}_1 partition of {parted} for values in (0, 1);
                 create table {parted}_2 partition of {parted} for values in (2, 3);
                 create unique index {parted}_key on {parted} (tenant, slug);
                 alter table {parted} replica identity using index {parted}_key;
                 alter table {parted}_1 replica identity using index {parted}_1_tenant_slug_idx;
                 alter table {parted}_2 replica identity using index {parted}_2_tenant_slug_idx"
            ))
            .await;
        for table in [&by_index, &by_full, &single, &parted] {
            scene
                .sql(&format!("insert into {table} select i % 3, 's' || i, i, {vector} from generate_series(1, 30) i"))
                .await;
        }
        let mut daemon = scene.started().await;
        scene.converged(&mut daemon).await;
        for table in [&by_index, &by_full, &single, &parted] {
            scene
                .sql(&format!(
                    "update {table} set n = -n; update {table} set slug = 't' || n where n < -25;
                     update {table} set tenant = 3 where tenant = 0; delete from {table} where n = -4;
                     insert into {table} values (1, 'new', 0, (select embedding from {table} limit 1))"
                ))
                .await;
        }
        scene.converged(&mut daemon).await;
        assert_eq!(scene.count(&parted).await, 30);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_does_not_tell_rows_apart_is_refused_with_what_mends_it() {
    let mut scene = Scene::shared(major()).await;
    let table = scene.table("tenant int not null, slug text, n int, embedding vector(4) not null").await;
    let said = scene.refused().await;
    assert!(said.contains("it has no primary key: an UPDATE or DELETE could not be followed"), "{said}");
    scene.set_lines(&table, "key = [\"tenant\", \"slug\"]");
    // Each refusal's own statement leads to the next one, and in the end it starts.
    for (sentence, mend) in [
        ("`key` names it, and it may be NULL", format!("ALTER TABLE public.{table} ALTER COLUMN slug SET NOT NULL")),
        (
            "no unique index is on exactly (tenant, slug)",
            format!("CREATE UNIQUE INDEX CONCURRENTLY ON public.{table} (tenant, slug)"),
        ),
        (
            "has no replica identity",
            format!("ALTER TABLE public.{table} REPLICA IDENTITY USING INDEX {table}_tenant_slug_idx"),
        ),
    ] {
        let said = scene.refused().await;
        assert!(said.contains(sentence) && said.contains(&mend), "{sentence}, {mend}:\n{said}");
        scene.sql(&mend).await;
    }
    let mut daemon = scene.started().await;
    scene.sql(&format!("insert into {table} values (1, 'a', 1, '[1,2,3,4]'); update {table} set slug = 'b'")).await;
    scene.converged(&mut daemon).await;
    // Another order of the columns makes other keys of the same rows.
    daemon.terminate(crate::support::scene::PATIENCE).await;
    scene.set_lines(&table, "key = [\"slug\", \"tenant\"]");
    let said = scene.refused().await;
    assert!(said.contains("have their keys from (tenant, slug), the configuration now says (slug, tenant)"), "{said}");
}
