//! Every type on its way: copied, inserted, updated, left alone by an update, set to NULL, deleted as a key; in binary and as
//! text; into Milvus Lite, a real Milvus 2.3 and the scripted one over both transports. What was read back is compared with
//! PostgreSQL's own text (`walvec verify`, which shares no code with the way there).

use walvec::config::Transport;

use crate::support::daemon::Daemon;
use crate::support::postgres::major;
use crate::support::scene::{PATIENCE, Scene};
use crate::support::scripted::{Options, Scripted, Version};
use crate::support::{milvus, postgres, unique};

/// A type, and values of it in SQL.
type Line = (&'static str, &'static [&'static str]);

const OWN_TYPES: &str = "create type mood as enum ('sad', 'ok', 'a \"b\"');
    create domain label as varchar(9) check (length(value) > 1); create domain deep as label;
    create type pair as (a int, b text); create type floatrange as range (subtype = float8)";

const LINES: &[Line] = &[
    ("bool", &["true", "false"]),
    ("int2", &["-32768", "32767"]),
    ("int4", &["-2147483648", "7"]),
    ("int8", &["9007199254740993", "-1"]),
    ("float4", &["'3.4028235e38'", "'-0'"]),
    ("float8", &["0.1", "1e300"]),
    ("numeric", &["1.10", "'NaN'", "1e1000", "-0.000"]),
    ("text", &["''", "'é \" \\ '''"]),
    ("varchar(20)", &["'a|b'", "' '"]),
    ("char(5)", &["'ab'", "''"]),
    ("\"char\"", &["'a'", "''"]),
    ("name", &["'pg_class'"]),
    ("json", &["'{\"b\": 1.0, \"a\": [null]}'", "' [1, 2]'"]),
    ("jsonb", &["'{\"b\": 1.0, \"a\": [null]}'", "'[1e300]'"]),
    ("jsonpath", &["'$.a[*] ? (@ > 1)'"]),
    ("bytea", &["''", "'\\x00ff'"]),
    ("uuid", &["'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'"]),
    ("date", &["'infinity'", "'4714-11-24 BC'"]),
    ("time", &["'24:00'", "'01:02:03.5'"]),
    ("timetz", &["'24:00:00-15:59:59'", "'01:02:03.5+05:30'"]),
    ("timestamp", &["'-infinity'", "'0044-03-15 12:00 BC'"]),
    ("timestamptz", &["'infinity'", "'2024-02-29 12:00:00.5+05:30'"]),
    ("interval", &["'-1 years -2 mons +3 days -04:05:06.7'", "'0'"]),
    ("inet", &["'10.0.0.1/8'", "'::ffff:1.2.3.4'"]),
    ("cidr", &["'10.0.0.0/8'", "'::/0'"]),
    ("macaddr", &["'08:00:2b:01:02:03'"]),
    ("macaddr8", &["'08:00:2b:01:02:03:04:05'"]),
    ("money", &["-1234.56", "0"]),
    ("bit(8)", &["B'10100000'", "B'00000001'"]),
    ("varbit", &["B''", "B'101'"]),
    ("oid", &["4294967295", "0"]),
    ("xid8", &["'18446744073709551615'"]),
    ("pg_lsn", &["'16/B374D848'", "'0/0'"]),
    ("tsvector", &["'''it''''s'':1A,2 b'", "''"]),
    ("point", &["'(1,-2.5)'"]),
    ("line", &["'{1,-1,0}'"]),
    ("lseg", &["'[(0,0),(1,1)]'"]),
    ("box", &["'(1,1),(0,0)'"]),
    ("path", &["'[(0,0),(1,1)]'", "'((0,0),(1,1))'"]),
    ("polygon", &["'((0,0),(1,1),(1,0))'"]),
    ("circle", &["'<(0,0),1>'"]),
    ("mood", &["'a \"b\"'", "'ok'"]),
    ("deep", &["'abc'"]),
    ("pair", &["row(1, 'a \"b\"')", "row(null, '')", "row(null, null)"]),
    ("int4range", &["'empty'", "'[1,5)'", "'(,)'"]),
    ("floatrange", &["'[-0,NaN]'"]),
    ("tstzrange", &["'[2000-01-01,)'"]),
    ("datemultirange", &["'{[2000-01-01,2000-01-02),[2001-01-01,)}'"]),
    ("bool[]", &["'{t,f}'", "'{}'"]),
    ("int4[]", &["'{1,-2}'", "'[0:1]={7,8}'"]),
    ("float8[]", &["'{0.1,-0}'"]),
    ("text[]", &["'{\"\",\"a,b\",\"NULL\"}'"]),
    ("numeric[]", &["'{1.10,NaN}'"]),
    ("timestamptz[]", &["'{infinity,2000-01-01}'"]),
    ("mood[]", &["'{ok,\"a \\\"b\\\"\"}'"]),
    ("deep[]", &["'{abc}'"]),
    ("box[]", &["'{(1,1),(0,0);(2,2),(1,1)}'"]),
    ("jsonb[]", &["array['{\"a\": 1}', 'null', '1.0']::jsonb[]"]),
    ("vector(2)[]", &["'{\"[1,2]\",NULL}'"]),
    ("aclitem", &["'postgres=r/postgres'"]),
];

const CONTRIB: &[Line] = &[
    ("citext", &["'Ab'", "''"]),
    ("hstore", &["'\"a\"=>\"1\", \"b\"=>NULL'", "''"]),
    ("hstore[]", &["array['\"a\"=>\"1\"', null]::hstore[]"]),
    ("ltree", &["'Top.Science'"]),
];

/// Vectors: no NULL where the server has no nullable ones.
const VECTORS: &[Line] = &[
    ("vector(3)", &["'[1,2.5,-3e-05]'", "'[0,-0,1]'"]),
    ("vector", &["'[1,2]'", "'[3,4]'"]),
    ("halfvec(2)", &["'[0.5,-65504]'", "'[6e-08,0.1]'"]),
    ("sparsevec(9)", &["'{1:0.5,3:2}/9'", "'{9:1}/9'"]),
];

/// A table for each line, with its values and NULL, followed under these settings.
async fn tables(scene: &mut Scene, lines: &[Line], settings: &str, nulls: bool) -> Vec<String> {
    let mut names = Vec::new();
    for (type_name, values) in lines {
        let is_vector = VECTORS.iter().any(|(vector, _)| vector == type_name);
        let embedding = if is_vector { "" } else { ", embedding vector(2) not null default '[1,2]'" };
        let table = scene.table(&format!("id int primary key, v {type_name}, n int default 0{embedding}")).await;
        scene.set_lines(&table, settings);
        let last = if nulls { vec!["null"] } else { vec![] };
        for (i, value) in values.iter().chain(&last).enumerate() {
            scene.sql(&format!("insert into {table} (id, v) values ({i}, {value})")).await;
        }
        names.push(table);
    }
    names
}

/// What happens to each table: rows of all values again, each value changed to each other, the rest of the row changed, NULL,
/// and gone.
async fn changed(scene: &Scene, tables: &[String], nulls: bool) {
    for table in tables {
        let to_null = if nulls { format!("update {table} set v = null where id = 100;") } else { String::new() };
        scene
            .sql(&format!(
                "insert into {table} (id, v) select id + 100, v from {table};
                 update {table} t set v = (select o.v from {table} o where o.id = (t.id + 1) % 100) where id between 200 and 300;
                 update {table} set n = n + 1; {to_null}
                 update {table} t set v = (select o.v from {table} o where o.id = 0) where id = 101;
                 delete from {table} where id = 0"
            ))
            .await;
    }
}

async fn with_types(scene: &Scene, contrib: bool) {
    scene.sql(OWN_TYPES).await;
    if contrib {
        scene.sql("create extension citext; create extension hstore; create extension ltree").await;
    }
}

/// A table whose type has a send function and no line: everything comes as text then.
async fn force_text(scene: &mut Scene) {
    let table = scene.table("id int primary key, q tsquery, embedding vector(2) not null").await;
    scene.sql(&format!("insert into {table} values (1, '''a'' & !b:A*', '[1,2]'), (2, null, '[1,2]')")).await;
}

async fn run(mut scene: Scene, contrib: bool, vectors: bool, as_text: bool, nullable: bool) {
    with_types(&scene, contrib).await;
    if as_text {
        force_text(&mut scene).await;
    }
    let mut names = tables(&mut scene, LINES, "", nullable).await;
    if contrib {
        names.extend(tables(&mut scene, CONTRIB, "", nullable).await);
    }
    let vector_names = if vectors { tables(&mut scene, VECTORS, "", false).await } else { Vec::new() };
    let mut daemon = scene.started().await;
    scene.converged(&mut daemon).await;
    changed(&scene, &names, nullable).await;
    changed(&scene, &vector_names, false).await;
    scene.converged(&mut daemon).await;
    assert_eq!(daemon.log().contains("asked for text"), as_text, "{}", daemon.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn every_type_goes_to_milvus_lite_in_binary_and_as_text() {
    for (major, as_text) in [(18, false), (18, true), (16, false), (16, true)] {
        run(Scene::shared(major).await, major == 18, true, as_text, true).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_type_goes_over_both_transports() {
    for (transport, as_text) in [(Transport::Grpc, false), (Transport::Rest, true)] {
        let milvus = Scripted::start(Options { version: Version::V2_6, ..Options::default() }).await;
        run(Scene::scripted(major(), &milvus, transport).await, true, true, as_text, true).await;
        assert_eq!(milvus.violations(), Vec::<String>::new());
    }
}

/// Every other target of every type.
const CHOICES: &[(&str, &str, &[&str])] = &[
    ("bool", "VARCHAR", &["true"]),
    ("int2", "INT8", &["-128"]),
    ("int2", "INT64", &["-32768"]),
    ("int4", "INT16", &["7"]),
    ("int8", "INT32", &["-2147483648"]),
    ("int8", "VARCHAR", &["9223372036854775807"]),
    ("float4", "DOUBLE", &["0.1"]),
    ("float4", "VARCHAR", &["'1e-45'", "'NaN'"]),
    ("float8", "VARCHAR", &["0.1", "'-Infinity'"]),
    ("numeric", "DOUBLE", &["1.10", "123456789012345678.9"]),
    ("numeric", "INT64", &["7.00", "-9223372036854775808"]),
    ("date", "INT64", &["'1969-12-31'", "'0044-03-15 BC'"]),
    ("time", "INT64", &["'24:00'", "'01:02:03.5'"]),
    ("timestamp", "INT64", &["'1969-12-31 23:59:59.999999'"]),
    ("timestamptz", "INT64", &["'2024-02-29 12:00:00.5+05:30'"]),
    ("json", "VARCHAR", &["' {\"a\": 1}'", "'null'"]),
    ("jsonb", "VARCHAR", &["'{\"a\": 1}'", "'\"s\"'"]),
    ("oid", "VARCHAR", &["4294967295"]),
    ("int4[]", "JSON", &["'{{1,NULL},{2,3}}'", "'{}'"]),
    ("int4[]", "VARCHAR", &["'[0:0][1:2]={{1,NULL}}'"]),
    ("text[]", "JSON", &["'{\"a \\\"b\\\"\",NULL}'"]),
    ("vector(2)", "VARCHAR", &["'[1,2.5]'"]),
    ("halfvec(2)", "FLOAT_VECTOR", &["'[0.5,-65504]'"]),
    ("halfvec(2)", "VARCHAR", &["'[0.1,2]'"]),
    ("sparsevec(9)", "VARCHAR", &["'{1:0.5,3:-2}/9'"]),
];

/// What only newer servers have.
const NEWER_CHOICES: &[(&str, &str, &[&str])] = &[
    ("timestamptz", "TIMESTAMPTZ", &["'2024-02-29 12:00:00.5+05:30'", "'0001-01-01 00:00+00'"]),
    ("bit(16)", "BINARY_VECTOR", &["B'1010000000000001'"]),
];

async fn choices(scene: &mut Scene, choices: &[(&str, &'static str, &'static [&'static str])]) -> Vec<(String, bool)> {
    let mut names = Vec::new();
    for &(type_name, target, values) in choices {
        let is_vector = target.ends_with("VECTOR");
        let lines = format!("[table.fields.v]\ntype = \"{target}\"");
        let table = scene
            .table(&format!("id int primary key, v {type_name}, n int default 0, e vector(2) not null default '[1,2]'"))
            .await;
        scene.set_lines(&table, &lines);
        for (i, value) in values.iter().enumerate() {
            scene.sql(&format!("insert into {table} (id, v) values ({i}, {value})")).await;
        }
        names.push((table, is_vector));
    }
    names
}

#[tokio::test(flavor = "multi_thread")]
async fn chosen_targets_and_encodings_are_followed_in_binary_and_as_text() {
    for (as_text, newer) in [(false, None), (true, None), (false, Some(Transport::Grpc)), (true, Some(Transport::Rest))]
    {
        let milvus = Scripted::start(Options { version: Version::V2_6, ..Options::default() }).await;
        let mut scene = match newer {
            Some(transport) => Scene::scripted(major(), &milvus, transport).await,
            None => Scene::shared(major()).await,
        };
        if as_text {
            force_text(&mut scene).await;
        }
        let mut names = choices(&mut scene, CHOICES).await;
        if newer.is_some() {
            names.extend(choices(&mut scene, NEWER_CHOICES).await);
        }
        let encoded = scene.table("id int primary key, b bytea, h bytea, c char(6), e vector(2) not null").await;
        scene.set_lines(
            &encoded,
            "[table.fields.b]\nencoding = \"base64\"\n[table.fields.h]\nencoding = \"hex\"\n[table.fields.c]\nencoding = \"trimmed\"",
        );
        scene
            .sql(&format!(
                "insert into {encoded} values (1, '\\x00ff10', '\\x00ff10', 'ab', '[1,2]'), (2, '', '', '', '[1,2]')"
            ))
            .await;
        let mut daemon = scene.started().await;
        scene.converged(&mut daemon).await;
        for (table, is_vector) in &names {
            changed(&scene, std::slice::from_ref(table), !is_vector).await;
        }
        scene.sql(&format!("update {encoded} set id = id + 10; update {encoded} set c = 'x y' where id = 11")).await;
        scene.converged(&mut daemon).await;
        assert_eq!(milvus.violations(), Vec::<String>::new());
    }
}

/// Bits as a vector, on a server of flesh and blood: with an index that it must build, and a search.
#[tokio::test(flavor = "multi_thread")]
async fn bits_are_a_binary_vector_in_a_real_milvus() {
    let database = postgres::Database::create(major()).await;
    let (url, client) = (database.url(), database.client);
    let mut scene = Scene::new(client, url, milvus::milvus23().await.url()).await;
    let table = scene.table("id int primary key, v bit(16) not null, n int not null default 0").await;
    scene.set_lines(&table, "[table.fields.v]\ntype = \"BINARY_VECTOR\"");
    scene.sql(&format!("create index on {table} using hnsw (v bit_jaccard_ops)")).await;
    scene.sql(&format!("insert into {table} select i, (i * 257)::bit(16) from generate_series(1, 200) i")).await;
    let mut daemon = scene.started().await;
    scene.converged(&mut daemon).await;
    scene
        .sql(&format!(
            "update {table} set v = ~v where id % 3 = 0; update {table} set n = 1; delete from {table} where id > 150"
        ))
        .await;
    scene.converged(&mut daemon).await;
    let target = walvec::pipeline::connect_target(&scene.settings().target).expect("a client");
    let indexes = target.describe_indexes(&scene.collection(&table)).await.expect("indexes");
    assert_eq!((&*indexes[0].index_type, &*indexes[0].metric_type), ("BIN_IVF_FLAT", "JACCARD"));
}

#[tokio::test(flavor = "multi_thread")]
async fn vectors_are_null_where_the_server_can_and_follow_the_policy_where_it_cannot() {
    for transport in [Transport::Grpc, Transport::Rest] {
        let milvus = Scripted::start(Options { version: Version::V2_6, ..Options::default() }).await;
        let mut scene = Scene::scripted(major(), &milvus, transport).await;
        if transport == Transport::Rest {
            // REST tells no version: what came with a patch is not counted on.
            let table = scene.table("id int primary key, v vector(2), h halfvec(2)").await;
            scene.sql(&format!("insert into {table} values (1, '[1,2]', null)")).await;
            scene.set_lines(&table, "on_misfit = \"skip_row\"");
            let mut daemon = scene.started().await;
            scene.converged(&mut daemon).await;
            assert_eq!(scene.count(&table).await, 0);
            continue;
        }
        let columns = "id int primary key, v vector(2), h halfvec(2), s sparsevec(5), b bit(8), n int default 0";
        let table = scene.table(columns).await;
        scene.set_lines(&table, "[table.fields.b]\ntype = \"BINARY_VECTOR\"");
        let rows =
            "(1, '[1,2]', null, null, null), (2, null, '[3,4]', '{1:1}/5', B'10000001'), (3, null, null, null, null)";
        scene.sql(&format!("insert into {table} (id, v, h, s, b) values {rows}")).await;
        let mut daemon = scene.started().await;
        scene.converged(&mut daemon).await;
        scene
            .sql(&format!(
                "update {table} set n = 1; update {table} set v = '[5,6]', s = '{{2:3}}/5' where id = 3;
                 update {table} set v = null, b = B'11111111' where id = 1; insert into {table} (id) values (4)"
            ))
            .await;
        scene.converged(&mut daemon).await;
    }
}

async fn altered(daemon: &Daemon) -> Vec<String> {
    let (_, text) = daemon.get("/metrics").await.expect("an answer");
    let ours = |line: &&str| {
        line.starts_with("walvec_values_altered_total{") || line.starts_with("walvec_rows_skipped_total{")
    };
    text.lines().filter(ours).map(str::to_owned).collect()
}

/// What does not fit, by each policy: in the copy and in the stream, over a row that fitted before, and back again.
#[tokio::test(flavor = "multi_thread")]
async fn policies_hold_for_copy_and_stream() {
    for as_text in [false, true] {
        let mut scene = Scene::shared(major()).await;
        if as_text {
            force_text(&mut scene).await;
        }
        let columns = "id int primary key, t text, a text[], j jsonb, d date, i int8, x numeric, v vector, s sparsevec(5), \
                       n int default 0, e vector(2) not null default '[1,2]'";
        let fields = "[table.fields.t]\nmax_length = 4\n[table.fields.a]\nmax_capacity = 2\nmax_length = 4\n[table.fields.d]\n\
                      type = \"INT64\"\n[table.fields.i]\ntype = \"INT16\"\n[table.fields.x]\ntype = \"INT64\"\n[table.fields.v]\n\
                      dimension = 2\non_misfit = \"skip_row\"\n[table.fields.s]\non_misfit = \"skip_row\"\n";
        let misfits = [
            ("t", "'éééé'"),
            ("a", "'{a,b,c}'"),
            ("a", "'{éééé}'"),
            ("a", "'{NULL}'"),
            ("a", "'{{a}}'"),
            ("j", "'1'"),
            ("j", "'null'"),
            ("j", "to_jsonb(array[repeat('x', 70000)])"),
            ("d", "'infinity'"),
            ("i", "32768"),
            ("x", "1.5"),
            ("x", "1e30"),
            ("v", "'[1,2,3]'"),
            ("v", "null"),
            ("s", "'{1:-1}/5'"),
        ];
        let mut tables = Vec::new();
        for policy in ["null", "skip_row"] {
            let table = scene.table(columns).await;
            scene.set_lines(&table, &format!("on_misfit = \"{policy}\"\n{fields}"));
            let fit = "'ab', '{a}', '{}', '2000-01-01', 1, 2, '[1,2]', '{1:1}/5'";
            scene.sql(&format!("insert into {table} select i, {fit} from generate_series(1, 60) i")).await;
            for (i, (column, value)) in misfits.iter().enumerate() {
                scene.sql(&format!("update {table} set {column} = {value} where id = {}", i + 1)).await;
            }
            tables.push((table, policy));
        }
        let cut = scene
            .table("id int primary key, t text, a text[], n int default 0, e vector(2) not null default '[1,2]'")
            .await;
        scene.set_lines(&cut, "on_misfit = \"truncate\"\n[table.fields.t]\nmax_length = 4\n[table.fields.a]\nmax_capacity = 2\nmax_length = 4");
        scene
            .sql(&format!(
                "insert into {cut} values (1, 'éééé', '{{a,b,c}}'), (2, 'abcd', '{{éééé,b}}'), (3, 'abcde', '{{a}}')"
            ))
            .await;
        let mut daemon = scene.started().await;
        scene.converged(&mut daemon).await;
        for (table, policy) in &tables {
            let skipped = if *policy == "null" { 3 } else { misfits.len() as u64 };
            assert_eq!(scene.count(table).await, 60 - skipped, "{policy}");
            for (i, (column, value)) in misfits.iter().enumerate() {
                scene.sql(&format!("update {table} set {column} = {value} where id = {}", i + 21)).await;
            }
            // Mended, each by what another row has.
            scene.sql(&format!("update {table} t set (t, a, j, d, i, x, v, s) = (select t, a, j, d, i, x, v, s from {table} where id = 60) where id < 20; update {table} set n = 1")).await;
        }
        scene.sql(&format!("update {cut} set t = 'x' || t, n = 1; insert into {cut} values (4, 'ééx', '{{x}}')")).await;
        scene.converged(&mut daemon).await;
        for (table, policy) in &tables {
            let skipped = if *policy == "null" { 3 } else { misfits.len() as u64 };
            assert_eq!(scene.count(table).await, 60 - skipped, "{policy}");
        }
        let counted = altered(&daemon).await.join("\n");
        for field in ["t", "a", "j", "d", "i", "x"] {
            assert!(counted.contains(&format!("field=\"{field}\",policy=\"null\"")), "{field}:\n{counted}");
        }
        assert!(counted.contains("policy=\"truncate\"") && counted.contains("walvec_rows_skipped_total"), "{counted}");
    }
}

/// The default loses nothing in silence: the table stops, with the field and the reason, and goes on when it is mended.
#[tokio::test(flavor = "multi_thread")]
async fn without_a_policy_a_value_that_does_not_fit_stops_its_table_alone() {
    for (column, setting, good, bad, reason) in [
        ("t text", "max_length = 4", "'ab'", "'abcde'", "5 bytes, and the field takes 4"),
        ("t int8", "type = \"INT8\"", "1", "128", "the value is beyond the range of INT8"),
        ("t timestamptz", "type = \"INT64\"", "'2000-01-01'", "'infinity'", "infinity has no place in this field"),
        ("t int4[]", "", "'{1}'", "'{NULL}'", "the array holds a NULL; an ARRAY field holds none"),
        ("t jsonb", "", "'{}'", "'1'", "a JSON scalar or null at the top"),
        ("t sparsevec(3)", "", "'{1:1}/3'", "'{1:-1}/3'", "the sparse vector has a negative value"),
    ] {
        let mut scene = Scene::shared(major()).await;
        let table = scene.table(&format!("id int primary key, {column}, e vector(2) not null default '[1,2]'")).await;
        let other = scene.table("id int primary key, e vector(2) not null default '[1,2]'").await;
        scene.set_lines(&table, &format!("[table.fields.t]\n{setting}"));
        scene.sql(&format!("insert into {table} (id, t) values (1, {good})")).await;
        let mut daemon = scene.started().await;
        scene.sql(&format!("insert into {table} (id, t) values (2, {bad}); insert into {other} values (1)")).await;
        let stopped = |status: &serde_json::Value| status.to_string().contains(reason);
        daemon.status("the table stops with the reason", PATIENCE, stopped).await;
        let log = daemon.log();
        assert!(log.contains(reason) && log.contains(&table), "{log}");
        crate::support::wait::until("the other table goes on", PATIENCE, async || {
            (scene.count(&other).await == 1).then_some(())
        })
        .await;
        scene.sql(&format!("update {table} set t = {good} where id = 2")).await;
        daemon.kill();
        daemon.restart();
        daemon.ready(PATIENCE).await;
        scene.converged(&mut daemon).await;
    }
}

/// Index choices reach the server.
#[tokio::test(flavor = "multi_thread")]
async fn indexes_follow_pgvector_and_the_settings() {
    let mut scene = Scene::shared(major()).await;
    let columns = "id int primary key, t text, n int, a vector(3) not null, b vector(3) not null, h halfvec(3) not null, s sparsevec(9) not null";
    let table = scene.table(columns).await;
    scene
        .sql(&format!(
            "create index on {table} using hnsw ((a::halfvec(3)) halfvec_l2_ops) with (m = 8, ef_construction = 40);
             create index on {table} using ivfflat (h halfvec_ip_ops) with (lists = 3); create index on {table} (t); create index on {table} (n)"
        ))
        .await;
    scene.set_lines(
        &table,
        "scalar_indexes = true\n[table.fields.b]\nmetric = \"L2\"\nindex = \"FLAT\"\n[table.fields.n]\nindex = \"none\"",
    );
    scene.sql(&format!("insert into {table} values (1, 'a', 1, '[1,2,3]', '[1,2,3]', '[1,2,3]', '{{1:1}}/9')")).await;
    let mut daemon = scene.started().await;
    scene.converged(&mut daemon).await;
    let target = walvec::pipeline::connect_target(&scene.settings().target).expect("a client");
    let found = target.describe_indexes(&scene.collection(&table)).await.expect("indexes");
    let of = |field: &str| {
        let index = found.iter().find(|index| index.field == field)?;
        Some(format!("{} {}", index.index_type, index.metric_type).trim().to_owned())
    };
    assert_eq!(of("a").as_deref(), Some("HNSW L2"));
    assert_eq!(of("b").as_deref(), Some("FLAT L2"));
    assert_eq!(of("h").as_deref(), Some("IVF_FLAT IP"));
    assert_eq!(of("s").as_deref(), Some("SPARSE_INVERTED_INDEX IP"));
    assert!(of("t").is_some_and(|index| index.starts_with("INVERTED")), "{found:?}");
    assert_eq!(of("n"), None);
}

/// What somebody waits for who wants to cut over.
#[tokio::test(flavor = "multi_thread")]
async fn the_status_tells_how_far_the_indexes_are() {
    for transport in [Transport::Grpc, Transport::Rest] {
        let milvus = Scripted::start(Options { version: Version::V2_6, ..Options::default() }).await;
        let mut scene = Scene::scripted(major(), &milvus, transport).await;
        let table = scene.table("id int primary key, e vector(2) not null").await;
        scene.sql(&format!("insert into {table} select i, '[1,2]' from generate_series(1, 10) i")).await;
        let mut daemon = scene.started().await;
        milvus.builds_indexes(Some(3));
        let building = |status: &serde_json::Value| {
            let index = &status["tables"][0]["indexes"][0];
            index["state"] == "in_progress" && index["indexed_rows"] == 3 && index["total_rows"] == 10
        };
        daemon.status("an index is built", PATIENCE, building).await;
        assert!(
            daemon
                .get("/metrics")
                .await
                .expect("an answer")
                .1
                .contains("walvec_index_pending_rows{field=\"e\",table=\"public.")
        );
        milvus.builds_indexes(None);
        daemon
            .status("it is finished", PATIENCE, |status| status["tables"][0]["indexes"][0]["state"] == "finished")
            .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_without_a_vector_goes_with_a_placeholder() {
    let mut scene = Scene::shared(major()).await;
    let table = scene.table("id int primary key, t text").await;
    let said = scene.refused().await;
    assert!(said.contains("it has no vector column") && said.contains("placeholder_vector = true"), "{said}");
    scene.set_lines(&table, "placeholder_vector = true");
    scene.sql(&format!("insert into {table} values (1, 'a'), (2, null)")).await;
    let mut daemon = scene.started().await;
    scene
        .sql(&format!(
            "update {table} set t = 'b'; delete from {table} where id = 1; insert into {table} values (3, 'c')"
        ))
        .await;
    scene.converged(&mut daemon).await;
    assert_eq!(scene.count(&table).await, 2);
}

/// A column that declares no dimension takes it from a row, or says that it cannot.
#[tokio::test(flavor = "multi_thread")]
async fn a_dimension_is_measured_or_asked_for() {
    let mut scene = Scene::shared(major()).await;
    let schema = unique("vectors");
    scene
        .sql(&format!(
            "create schema {schema}; create domain {schema}.embedding as vector; create domain half as halfvec"
        ))
        .await;
    let table = scene
        .table(&format!("id int primary key, a {schema}.embedding not null, b half not null, s sparsevec not null"))
        .await;
    let said = scene.refused().await;
    assert!(said.contains("the vector has no declared dimension, and no row to take it from"), "{said}");
    assert!(said.contains("[table.fields.a] dimension"), "{said}");
    scene.sql(&format!("insert into {table} values (1, '[1,2,3]', '[4,5]', '{{1:1}}/9')")).await;
    let mut daemon = scene.started().await;
    scene.sql(&format!("insert into {table} values (2, '[4,5,6]', '[1,2]', '{{2:1}}/7')")).await;
    scene.converged(&mut daemon).await;
    scene.sql(&format!("insert into {table} values (3, '[4,5]', '[1,2]', '{{2:1}}/7')")).await;
    let reason = "the vector has 2 dimensions, the field 3";
    daemon.status("the table stops", PATIENCE, |status| status.to_string().contains(reason)).await;
}
