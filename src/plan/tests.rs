//! Tables and settings for tests, and the tests of the plan as a whole.

use super::*;
use crate::config::settings::{FieldSettings, IndexSetting, OnMisfit, TableSettings};
use crate::milvus::{DataType, FieldSchema, ServerInfo};
use crate::postgres::catalog::{
    Column, Generated, Index, Leaf, PgType, PrimaryKey, Published, RelationKind, ReplicaIdentity, Table, TypeKind,
};

pub(crate) fn server() -> ServerInfo {
    ServerInfo { version: "v2.6.4".into() }
}

pub(crate) fn old_server() -> ServerInfo {
    ServerInfo { version: "2.3.5".into() }
}

pub(crate) fn settings() -> TableSettings {
    TableSettings {
        name: "public.docs".into(),
        collection: None,
        include: None,
        exclude: vec![],
        filter: None,
        key: None,
        auto_id: false,
        on_update_delete: Default::default(),
        on_stop: Default::default(),
        only: false,
        reread_generated: false,
        keep_removed_partitions: false,
        index: IndexSetting::Auto,
        metric: None,
        scalar_indexes: false,
        placeholder_vector: false,
        on_misfit: OnMisfit::Error,
        dead_letters_max: 10_000,
        on_add_column: Default::default(),
        on_schema_change: Default::default(),
        num_shards: None,
        partition_key: None,
        num_partitions: None,
        dynamic_field: false,
        dynamic: vec![],
        consistency_level: None,
        properties: std::collections::BTreeMap::new(),
        fields: vec![],
    }
}

/// `int4`, `text[]`, `vector(3)`.
pub(crate) fn column(name: &str, type_name: &str) -> Column {
    let (inner, is_array) = type_name.strip_suffix("[]").map_or((type_name, false), |inner| (inner, true));
    let (bare, typmod) = match inner.split_once('(') {
        Some((bare, n)) => (bare, n.trim_end_matches(')').parse().expect("a number")),
        None => (inner, -1),
    };
    let extension = ["vector", "halfvec", "sparsevec"].contains(&bare).then(|| "vector".to_owned());
    let schema = if extension.is_some() { "public" } else { "pg_catalog" };
    let kind = if bare == "mood" { TypeKind::Enum } else { TypeKind::Base };
    let (name_of_type, delimiter) = (bare.into(), if bare == "box" { b';' } else { b',' });
    let mut data_type =
        PgType { oid: 0, name: name_of_type, schema: schema.into(), extension, typmod, sends: true, delimiter, kind };
    if is_array {
        data_type = PgType {
            name: format!("_{bare}"),
            typmod: -1,
            kind: TypeKind::Array(Box::new(data_type.clone())),
            ..data_type
        };
    }
    Column {
        name: name.into(),
        type_oid: 0,
        typmod,
        type_name: type_name.into(),
        data_type,
        not_null: name == "id",
        generated: Generated::No,
        has_default: false,
        average_width: None,
        sampled_dimension: None,
    }
}

pub(crate) fn vector(name: &str, dim: u32) -> Column {
    column(name, &format!("vector({dim})"))
}

/// `public.docs` with its first column as primary key.
pub(crate) fn table(columns: Vec<Column>) -> Table {
    let key = columns.first().map(|column| column.name.clone()).into_iter().collect();
    Table {
        oid: 16_384,
        schema: "public".into(),
        name: "docs".into(),
        kind: RelationKind::Table,
        unlogged_or_temporary: false,
        row_security_applies: false,
        can_select: true,
        replica_identity: ReplicaIdentity::Default,
        primary_key: Some(PrimaryKey { index_name: "docs_pkey".into(), columns: key, deferrable: false }),
        unique_indexes: vec![],
        columns,
        ancestors: vec![],
        children: vec![],
        published: Published::default(),
        leaves: vec![Leaf {
            oid: 16_384,
            schema: "public".into(),
            name: "docs".into(),
            replica_identity: ReplicaIdentity::Default,
            is_foreign: false,
            unlogged: false,
            row_security_applies: false,
        }],
        indexes: vec![],
        estimated_rows: None,
        bytes: 0,
    }
}

pub(crate) fn docs() -> Table {
    table(vec![column("id", "int4"), column("title", "text"), vector("embedding", 3)])
}

pub(crate) fn index(name: &str, method: &str, operator_class: &str, options: &[(&str, &str)]) -> Index {
    Index {
        name: name.into(),
        method: method.into(),
        column: Some("embedding".into()),
        expression: None,
        partial: false,
        operator_class: operator_class.into(),
        options: options.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect(),
    }
}

pub(crate) fn plan_of(table: Table, settings: TableSettings) -> TablePlan {
    build(&[(table, settings)], &server()).expect("a plan").tables.remove(0)
}

fn refusals(table: Table, settings: TableSettings) -> Vec<String> {
    let refusals = build(&[(table, settings)], &server()).expect_err("refused");
    refusals.iter().map(ToString::to_string).collect()
}

#[track_caller]
pub(crate) fn assert_refused(table: Table, settings: TableSettings, expected: &str) {
    let refusals = refusals(table, settings);
    assert_eq!(refusals, [expected]);
}

#[test]
fn a_plain_table_becomes_a_collection() {
    let plan = plan_of(docs(), settings());
    assert_eq!(plan.key, KeyPlan::Single { column: 0, field: 0 });
    assert_eq!(plan.collection.name, "docs");
    let fields: Vec<String> = plan.collection.fields.iter().map(super::differences::describe).collect();
    assert_eq!(fields, ["INT64", "VARCHAR(65535)", "FLOAT_VECTOR(3)"]);
    let flags: Vec<(bool, bool)> = plan.collection.fields.iter().map(|f| (f.is_primary, f.nullable)).collect();
    assert_eq!(flags, [(true, false), (false, true), (false, false)]);
    assert_eq!(plan.columns[2].source, SourceType::Vector { dim: 3 });
    assert_eq!(plan.columns.iter().map(|c| c.field).collect::<Vec<_>>(), [0, 1, 2]);
    assert_eq!(plan.indexes[0].spec.index_type, "AUTOINDEX");
}

#[test]
fn an_old_server_gets_what_it_can_hold_and_the_plan_says_so() {
    let plan = build(&[(docs(), settings())], &old_server()).expect("a plan").tables.remove(0);
    assert!(plan.collection.fields.iter().all(|field| !field.nullable));
    assert!(plan.columns[1].reason.contains("this server has no nullable fields"));

    let big = table(vec![column("id", "int8"), vector("embedding", 2)]);
    let plan = build(&[(big, settings())], &old_server()).expect("a plan").tables.remove(0);
    assert!(plan.remarks[0].contains("does not keep a key of"), "{:?}", plan.remarks);

    let two = table(vec![column("id", "int4"), vector("a", 2), vector("b", 2)]);
    assert!(build(&[(two.clone(), settings())], &server()).is_ok());
    let refusals = build(&[(two, settings())], &old_server()).expect_err("refused");
    assert_eq!(refusals[0].reason, "2 vector columns; Milvus 2.3.5 has one to a collection");
}

#[test]
fn the_pgvector_index_gives_type_metric_and_parameters() {
    let spec = |indexes: Vec<Index>, settings| {
        let plan = plan_of(Table { indexes, ..docs() }, settings);
        let spec = plan.indexes[0].spec.clone();
        let params: Vec<String> = spec.params.iter().map(|(k, v)| format!("{k}={v}")).collect();
        format!("{} {} {}", spec.index_type, spec.metric_type, params.join(" "))
    };
    let hnsw = index("a", "hnsw", "vector_l2_ops", &[("m", "24")]);
    let ivf = index("b", "ivfflat", "vector_ip_ops", &[("lists", "50")]);
    let l1 = index("c", "hnsw", "vector_l1_ops", &[]);
    assert_eq!(spec(vec![ivf.clone(), hnsw.clone()], settings()), "HNSW L2 M=24 efConstruction=64");
    assert_eq!(spec(vec![ivf], settings()), "IVF_FLAT IP nlist=50");
    assert_eq!(spec(vec![l1], settings()), "AUTOINDEX COSINE ");
    let metric = TableSettings { metric: Some("IP".into()), ..settings() };
    assert_eq!(spec(vec![hnsw.clone()], metric), "HNSW IP M=24 efConstruction=64");

    let none = TableSettings { index: IndexSetting::None, ..settings() };
    assert_eq!(plan_of(Table { indexes: vec![hnsw.clone()], ..docs() }, none).indexes, []);
    let unknown = TableSettings { metric: Some("l2".into()), ..settings() };
    assert_refused(
        docs(),
        unknown,
        "table public.docs: `metric = \"l2\"`, which none of its vectors has; remove it, or set `metric` in [table.fields.…]",
    );

    let mut plan = build(&[(Table { indexes: vec![hnsw], ..docs() }, settings())], &server()).expect("a plan");
    use_autoindex(&mut plan);
    let spec = &plan.tables[0].indexes[0].spec;
    assert_eq!((&*spec.index_type, &*spec.metric_type, spec.params.len()), ("AUTOINDEX", "L2", 0));
}

#[test]
fn what_cannot_be_followed_is_refused_with_what_mends_it() {
    let key = |columns: &[&str], deferrable| {
        let columns = columns.iter().map(|c| (*c).into()).collect();
        Some(PrimaryKey { index_name: "docs_pkey".into(), columns, deferrable })
    };
    let leaf =
        |identity| vec![Leaf { oid: 1, name: "docs_1".into(), replica_identity: identity, ..docs().leaves.remove(0) }];
    let partitioned = Table { kind: RelationKind::PartitionedTable, ..docs() };
    for (table, expected) in [
        (
            Table { primary_key: None, ..docs() },
            "table public.docs: it has no primary key: an UPDATE or DELETE could not be followed; \
             ALTER TABLE public.docs ADD PRIMARY KEY (id); a table that is only ever inserted into needs none with `auto_id = true`",
        ),
        (
            Table { primary_key: key(&["id"], true), ..docs() },
            "table public.docs: its primary key is deferrable: two rows may share a key within a transaction; \
             ALTER TABLE public.docs DROP CONSTRAINT docs_pkey, ADD CONSTRAINT docs_pkey PRIMARY KEY (id)",
        ),
        (
            with_identity(docs(), ReplicaIdentity::Nothing),
            "table public.docs: public.docs has REPLICA IDENTITY NOTHING: UPDATE and DELETE name no row; \
             ALTER TABLE public.docs REPLICA IDENTITY DEFAULT",
        ),
        (
            with_identity(docs(), ReplicaIdentity::Index(vec!["title".into()])),
            "table public.docs: the replica identity of public.docs is an index on (title), which is not the primary \
             key; ALTER TABLE public.docs REPLICA IDENTITY DEFAULT",
        ),
        (
            Table { leaves: leaf(ReplicaIdentity::Nothing), ..partitioned.clone() },
            "table public.docs: public.docs_1 has REPLICA IDENTITY NOTHING: UPDATE and DELETE name no row; \
             ALTER TABLE public.docs_1 REPLICA IDENTITY DEFAULT",
        ),
        (
            Table {
                leaves: leaf(ReplicaIdentity::Default),
                replica_identity: ReplicaIdentity::Full,
                ..partitioned.clone()
            },
            "table public.docs: it has REPLICA IDENTITY FULL and its partition public.docs_1 has not; \
             ALTER TABLE public.docs_1 REPLICA IDENTITY FULL",
        ),
        (
            Table { row_security_applies: true, ..docs() },
            "table public.docs: row security hides rows from our role, and the copy would miss them; \
             ALTER ROLE <the role that walvec connects as> BYPASSRLS",
        ),
        (
            Table { can_select: false, ..docs() },
            "table public.docs: our role may not read it; \
             GRANT SELECT ON public.docs TO <the role that walvec connects as>",
        ),
        (
            Table { unlogged_or_temporary: true, ..docs() },
            "table public.docs: it is unlogged or temporary: its changes are not in the write-ahead log; \
             ALTER TABLE public.docs SET LOGGED",
        ),
        (
            Table { kind: RelationKind::Other('v'), ..docs() },
            "table public.docs: it is a view: logical replication has no changes of it; name the table behind it",
        ),
        (
            table(vec![column("id", "int4"), column("title", "text")]),
            "table public.docs: it has no vector column, and a collection needs one; \
             name a table with a vector column, or take public.docs out of the configuration; `placeholder_vector = true` in \
             its [[table]] gives the collection a constant vector",
        ),
        (
            table(vec![column("id", "int4"), column("embedding", "vector")]),
            "table public.docs, column \"embedding\": the vector has no declared dimension, and no row to take it from; ALTER TABLE public.docs \
             ALTER COLUMN embedding TYPE vector(n), or set `[table.fields.embedding] dimension`",
        ),
        (
            table(vec![column("id", "int4"), vector("embedding", 1)]),
            "table public.docs, column \"embedding\": 1 dimensions; a FLOAT_VECTOR has 2 to 32768; \
             leave it out with `columns = { exclude = [\"embedding\"] }`",
        ),
        (
            table(vec![column("id", "float8"), vector("embedding", 2)]),
            "table public.docs, column \"id\": key of type float8: floating-point numbers are no safe keys: 0 equals \
             -0, and NaN equals itself; choose another primary key",
        ),
        (
            table(vec![column("id", "bool"), vector("embedding", 2)]),
            "table public.docs, column \"id\": Milvus has no primary key of type BOOL; choose another primary key",
        ),
        (
            table(vec![column("id", "int4"), column("a b", "text"), column("a_b", "text"), vector("embedding", 2)]),
            "table public.docs, column \"a_b\": its field would be \"a_b\", as that of column \"a b\"; \
             set `rename` in [table.fields.a_b]",
        ),
    ] {
        assert_refused(table, settings(), expected);
    }
}

#[test]
fn all_refusals_come_at_once() {
    let mut broken = table(vec![column("id", "int4"), vector("one", 1), column("embedding", "vector")]);
    broken.primary_key = None;
    broken.row_security_applies = true;
    assert_eq!(refusals(broken, settings()).len(), 4);
}

#[test]
fn more_fields_than_a_collection_has_are_refused() {
    let wide = |n: usize| {
        let mut columns = vec![column("id", "int4"), vector("embedding", 2)];
        columns.extend((2..n).map(|i| column(&format!("c{i}"), "int4")));
        table(columns)
    };
    assert_eq!(plan_of(wide(64), settings()).columns.len(), 64);
    assert!(refusals(wide(65), settings())[0].contains("65 fields"));
}

#[test]
fn settings_choose_rename_and_bound() {
    let field = |settings: FieldSettings| vec![("title".to_owned(), settings)];
    let renamed = FieldSettings { rename: Some("headline".into()), max_length: Some(100), ..Default::default() };
    let plan = plan_of(docs(), TableSettings { fields: field(renamed), ..settings() });
    assert_eq!((&*plan.collection.fields[1].name, plan.collection.fields[1].max_length), ("headline", Some(100)));

    let plan = plan_of(docs(), TableSettings { exclude: vec!["title".into()], ..settings() });
    assert_eq!(plan.columns.iter().map(|c| &*c.name).collect::<Vec<_>>(), ["id", "embedding"]);
    let include = Some(vec!["embedding".into(), "id".into()]);
    let plan = plan_of(docs(), TableSettings { include, ..settings() });
    assert_eq!(plan.columns.iter().map(|c| &*c.name).collect::<Vec<_>>(), ["id", "embedding"]);

    let undeclared = table(vec![column("id", "int4"), column("embedding", "vector")]);
    let dimension = FieldSettings { dimension: Some(7), ..Default::default() };
    let fields = vec![("embedding".to_owned(), dimension.clone())];
    let plan = plan_of(undeclared, TableSettings { fields: fields.clone(), ..settings() });
    assert_eq!(plan.collection.fields[1].dim, Some(7));
    assert_eq!(plan.columns[1].source, SourceType::Vector { dim: 7 });

    let huge = FieldSettings { dimension: Some(32_769), ..Default::default() };
    let undeclared = table(vec![column("id", "int4"), column("embedding", "vector")]);
    assert_refused(
        undeclared,
        TableSettings { fields: vec![("embedding".to_owned(), huge)], ..settings() },
        "table public.docs, column \"embedding\": 32769 dimensions; a FLOAT_VECTOR has 2 to 32768; \
         leave it out with `columns = { exclude = [\"embedding\"] }`",
    );

    for (settings, expected) in [
        (
            TableSettings { fields, ..settings() },
            "table public.docs, column \"embedding\": `dimension = 7`, but the column is vector(3); \
             remove `[table.fields.embedding] dimension`",
        ),
        (
            TableSettings { fields: field(dimension), ..settings() },
            "table public.docs, column \"title\": `dimension` does not apply to type text; \
             remove it from [table.fields.title]",
        ),
        (
            TableSettings { fields: field(FieldSettings { max_length: Some(0), ..Default::default() }), ..settings() },
            "table public.docs, column \"title\": `max_length = 0`; take one from 1 to 65535",
        ),
        (
            TableSettings {
                fields: field(FieldSettings { rename: Some("a-b".into()), ..Default::default() }),
                ..settings()
            },
            "table public.docs, column \"title\": \"a-b\" is no name for a field; set `rename` to letters, digits and \
             underscores, not a digit first, at most 255, and no word of Milvus's own",
        ),
        (
            TableSettings { exclude: vec!["titel".into()], ..settings() },
            "table public.docs, column \"titel\": the settings name a column that the table does not have; \
             its columns are id, title, embedding",
        ),
        (
            TableSettings { exclude: vec!["id".into()], ..settings() },
            "table public.docs, column \"id\": a column of the primary key is left out by the settings; \
             take \"id\" into `columns.include` or out of `columns.exclude`",
        ),
    ] {
        assert_refused(docs(), settings, expected);
    }
}

#[test]
fn generated_columns_are_left_out_with_a_remark() {
    let mut table = docs();
    table.columns[1].generated = Generated::Virtual;
    let plan = plan_of(table, settings());
    assert_eq!(plan.columns.len(), 2);
    assert_eq!(
        plan.remarks,
        ["column \"title\" is generated and left out: it is not in the stream; `generated = \"reread\"` brings it"]
    );
}

pub(crate) fn with_identity(mut table: Table, identity: ReplicaIdentity) -> Table {
    table.leaves[0].replica_identity = identity.clone();
    table.replica_identity = identity;
    table
}

#[test]
fn the_publications_filter_and_list_are_part_of_the_plan() {
    let published = |row_filter: Option<&str>, columns: Option<&[&str]>| Published {
        exists: true,
        row_filter: row_filter.map(Into::into),
        columns: columns.map(|list| list.iter().map(|column| (*column).to_owned()).collect()),
        ..Published::default()
    };
    let with = |published| Table { published, ..docs() };
    let plan = plan_of(with(published(Some("(id > 1)"), Some(&["embedding", "id"]))), settings());
    assert_eq!(plan.row_filter.as_deref(), Some("(id > 1)"));
    assert_eq!(plan.columns.iter().map(|c| &*c.name).collect::<Vec<_>>(), ["id", "embedding"]);
    assert_eq!(
        plan.remarks,
        ["only rows with (id > 1)", "column \"title\" is left out: it is not in the publication's column list"]
    );
    let list = |columns: &[&str]| with(published(None, Some(columns)));
    let include = TableSettings { include: Some(vec!["id".into(), "title".into(), "embedding".into()]), ..settings() };
    let unfit = Published { unfit: vec![("it is so".into(), "do that".into())], ..Published::default() };
    for (table, settings, expected) in [
        (with(unfit), settings(), "table public.docs: it is so; do that"),
        (
            list(&["id", "embedding"]),
            include,
            "table public.docs, column \"title\": the settings include it, and the publication's column list leaves it \
             out; take it into the list by ALTER PUBLICATION … SET TABLE",
        ),
        (
            with_identity(list(&["id", "embedding"]), ReplicaIdentity::Full),
            settings(),
            "table public.docs: the publication has a column list, and public.docs has REPLICA IDENTITY FULL: PostgreSQL \
             refuses every UPDATE and DELETE of it; ALTER TABLE public.docs REPLICA IDENTITY DEFAULT",
        ),
    ] {
        assert_refused(table, settings, expected);
    }
    let without_key = refusals(list(&["title", "embedding"]), settings());
    assert!(without_key[0].contains("a column of the key is not in the publication's column list"), "{without_key:?}");
}

#[test]
fn partitions_and_inheritance_are_taken_whole_or_refused() {
    let leaf = |change: &dyn Fn(&mut Leaf)| {
        let mut leaf = Leaf { oid: 1, name: "docs_1".into(), ..docs().leaves.remove(0) };
        change(&mut leaf);
        Table { kind: RelationKind::PartitionedTable, leaves: vec![leaf], ..docs() }
    };
    let children = || Table { children: vec!["public.more".into()], ..docs() };
    let only = || TableSettings { only: true, ..settings() };
    for (table, settings, expected) in [
        (
            leaf(&|leaf| leaf.is_foreign = true),
            settings(),
            "table public.docs: its partition public.docs_1 is a foreign table: logical replication has no changes of it; \
             ALTER TABLE public.docs DETACH PARTITION public.docs_1",
        ),
        (
            leaf(&|leaf| leaf.unlogged = true),
            settings(),
            "table public.docs: its partition public.docs_1 is unlogged: its changes are not in the write-ahead log; \
             ALTER TABLE public.docs_1 SET LOGGED",
        ),
        (
            leaf(&|leaf| leaf.row_security_applies = true),
            settings(),
            "table public.docs: row security hides rows of its partition public.docs_1 from our role; \
             ALTER ROLE <the role that walvec connects as> BYPASSRLS",
        ),
        (
            leaf(&|_| {}),
            only(),
            "table public.docs: `only = true`, and a partitioned table has no rows of its own; take `only` out",
        ),
        (
            children(),
            settings(),
            "table public.docs: public.more inherit from it: a SELECT shows their rows, logical replication sends them \
             under their own names; set `only = true` to take its own rows alone, and name the others as tables of their own",
        ),
    ] {
        assert_refused(table, settings, expected);
    }
    let plan = plan_of(children(), only());
    assert_eq!(plan.remarks, ["its own rows only, not those of public.more, which inherit from it"]);
    let part = Table { oid: 1, name: "docs_1".into(), ancestors: vec![16_384], ..docs() };
    let refusals = build(&[(docs(), settings()), (part, settings())], &server()).expect_err("refused");
    assert_eq!(refusals[0].reason, "it is a partition of public.docs, which is in the configuration too");
}

#[test]
fn generated_columns_are_sent_or_read_again_when_asked() {
    let generated = |generated, published: Published| {
        let mut table = docs();
        table.columns[1].generated = generated;
        Table { published, ..table }
    };
    let sent = || Published { generated: true, ..Published::default() };
    let plan = plan_of(generated(Generated::Stored, sent()), settings());
    assert!(plan.columns.iter().all(|column| !column.reread));
    assert_eq!(plan.columns.len(), 3);
    assert_eq!(plan_of(generated(Generated::Virtual, sent()), settings()).columns.len(), 2);
    let reread = TableSettings { reread_generated: true, ..settings() };
    let plan = plan_of(generated(Generated::Virtual, sent()), reread.clone());
    assert_eq!(plan.columns.iter().map(|column| column.reread).collect::<Vec<_>>(), [false, true, false]);
    let mut key = docs();
    key.columns[0].generated = Generated::Stored;
    let refusals = refusals(key, reread);
    assert!(
        refusals[0].contains("a generated column that the stream does not carry is part of the key"),
        "{refusals:?}"
    );
}

#[test]
fn two_tables_do_not_share_a_collection() {
    let other = Table { schema: "app".into(), ..docs() };
    let plan = build(&[(docs(), settings()), (other.clone(), settings())], &server()).expect("a plan");
    assert_eq!(plan.tables[1].collection.name, "app_docs");
    let same = TableSettings { collection: Some("docs".into()), ..settings() };
    let refusals = build(&[(docs(), settings()), (other, same)], &server()).expect_err("refused");
    assert_eq!(refusals[0].reason, "collection \"docs\" is already that of public.docs");
}

#[test]
fn an_existing_collection_is_compared_field_by_field() {
    let plan = plan_of(docs(), settings());
    let with = |change: &dyn Fn(&mut Vec<FieldSchema>)| {
        let mut existing = plan.collection.clone();
        change(&mut existing.fields);
        differences(&plan, &existing)
    };
    assert_eq!(with(&|_| {}), [""; 0]);
    assert_eq!(with(&|fields| fields[1].nullable = false), ["field \"title\" is not nullable"]);
    assert_eq!(with(&|fields| fields[1].max_length = Some(9)), ["field \"title\" has max_length 9, the plan 65535"]);
    assert_eq!(
        with(&|fields| fields[2].dim = Some(4)),
        ["field \"embedding\" is FLOAT_VECTOR(4), not FLOAT_VECTOR(3)"]
    );
    assert_eq!(with(&|fields| drop(fields.remove(1))), ["field \"title\" (VARCHAR(65535)) is missing"]);
    assert_eq!(with(&|fields| fields[0].auto_id = true), ["field \"id\" is filled by the server (auto_id)"]);
    assert_eq!(with(&|fields| fields[0].is_primary = false), ["field \"id\" is not the primary key, and should be"]);
    let extra = |nullable| {
        let field = FieldSchema {
            name: "extra".into(),
            nullable,
            data_type: DataType::Bool,
            ..plan.collection.fields[0].clone()
        };
        with(&|fields| fields.push(field.clone()))
    };
    assert_eq!(extra(true), [""; 0]);
    assert_eq!(extra(false), ["field \"extra\" (BOOL) has no column, and is not nullable"]);
}
