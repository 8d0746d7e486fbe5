//! Catalog, facts and publication.

use super::*;

#[tokio::test]
async fn the_catalog_tells_tables_types_keys_indexes_and_partitions() {
    for major in majors() {
        let database = Database::create(major).await;
        let settings = source(&database);
        database
            .client
            .batch_execute(
                "create domain embedding as vector(4);
                 create type mood as enum ('sad', 'ok');
                 create table \"Docs\" (title varchar(20) not null, id int8, e vector(3), d embedding, tags text[],
                   m mood, n numeric(10,2), g int generated always as (1 + 1) stored, gone int, primary key (id, title));
                 alter table \"Docs\" drop column gone;
                 create index by_e on \"Docs\" using hnsw (e vector_l2_ops) with (m = 8, ef_construction = 40);
                 insert into \"Docs\" (title, id) select 't', i from generate_series(1, 500) i;
                 analyze \"Docs\";
                 create table parts (id int8 primary key, e vector(2)) partition by range (id);
                 create table parts_1 partition of parts for values from (0) to (10);
                 create table parts_2 partition of parts for values from (10) to (20);
                 alter table parts_2 replica identity full;
                 create table later (id int8 primary key deferrable, b int8 unique not null);
                 alter table later replica identity using index later_b_key;
                 create view a_view as select 1;
                 create unlogged table fleeting (id int8);",
            )
            .await
            .expect("created");
        let connection = sql(&settings).await;
        let patterns = ["public.a_view", "public.*", "public.parts_1", "nowhere.*"].map(str::to_owned);
        let found = read_tables(&connection, &patterns).await.expect("catalog read");
        let names: Vec<(usize, &str)> = found.iter().map(|(pattern, table)| (*pattern, table.name.as_str())).collect();
        assert_eq!(
            names,
            [(1, "Docs"), (0, "a_view"), (1, "fleeting"), (1, "later"), (1, "parts"), (2, "parts_1")],
            "partitions come with their root, or by their own name"
        );
        let table = |name: &str| &found.iter().find(|(_, table)| table.name == name).expect("found").1;

        let docs = table("Docs");
        assert_eq!((docs.kind, docs.can_select, docs.unlogged_or_temporary), (RelationKind::Table, true, false));
        assert_eq!(docs.estimated_rows, Some(500));
        assert!(docs.bytes >= 8192 * 2);
        let key = docs.primary_key.as_ref().expect("a key");
        assert_eq!((key.columns.as_slice(), key.deferrable), (&["id".to_owned(), "title".to_owned()][..], false));
        let column = |name: &str| docs.columns.iter().find(|column| column.name == name).expect("a column");
        assert_eq!(docs.columns.len(), 8, "the dropped column is absent");
        assert_eq!(column("title").type_name, "character varying(20)");
        assert_eq!((column("e").data_type.extension.as_deref(), column("e").typmod), (Some("vector"), 3));
        assert_eq!((column("g").generated, column("e").generated), (Generated::Stored, Generated::No));
        assert!(column("title").not_null && !column("e").not_null);
        let domain = &column("d").data_type;
        let TypeKind::Domain(base) = &domain.kind else { panic!("a domain: {domain:?}") };
        assert_eq!((base.name.as_str(), base.typmod, base.extension.as_deref()), ("vector", 4, Some("vector")));
        let TypeKind::Array(element) = &column("tags").data_type.kind else { panic!("an array") };
        assert_eq!(element.name, "text");
        assert_eq!(column("m").data_type.kind, TypeKind::Enum);
        let index = docs.indexes.iter().find(|index| index.name == "by_e").expect("an index");
        assert_eq!((index.method.as_str(), index.column.as_deref()), ("hnsw", Some("e")));
        assert_eq!(index.operator_class, "vector_l2_ops");
        assert_eq!(index.options, [("m".into(), "8".into()), ("ef_construction".into(), "40".into())]);

        let parts = table("parts");
        assert_eq!(parts.kind, RelationKind::PartitionedTable);
        let leaves: Vec<_> = parts.leaves.iter().map(|leaf| (leaf.name.as_str(), &leaf.replica_identity)).collect();
        assert_eq!(leaves, [("parts_1", &ReplicaIdentity::Default), ("parts_2", &ReplicaIdentity::Full)]);
        assert_eq!(table("parts_1").leaves[0].oid, table("parts_1").oid);

        assert!(table("later").primary_key.as_ref().is_some_and(|key| key.deferrable));
        assert_eq!(table("later").replica_identity, ReplicaIdentity::Index(vec!["b".to_owned()]));
        assert_eq!(table("a_view").kind, RelationKind::Other('v'));
        assert!(table("fleeting").unlogged_or_temporary);
    }
}

#[tokio::test]
async fn facts_tell_what_the_role_may_and_what_the_server_is_set_to() {
    for major in majors() {
        let database = Database::create(major).await;
        let mut settings = source(&database);
        let role = unique("reader");
        database
            .client
            .batch_execute(&format!(
                "create role {role} login password 'secret'; alter role {role} set timezone = 'Asia/Kathmandu';
                 alter role {role} set statement_timeout = '1ms'; alter role {role} set extra_float_digits = 0;
                 create table docs (id int8 primary key); create table closed (id int8 primary key);
                 grant select on docs to {role}; alter table docs enable row level security"
            ))
            .await
            .expect("created");
        let facts = read_facts(&sql(&settings).await).await.expect("facts");
        assert_eq!(facts.version_num / 10_000, u32::from(major));
        assert!(facts.superuser && facts.replication && !facts.in_recovery);
        assert_eq!((facts.wal_level.as_str(), facts.database.as_str()), ("logical", database.name.as_str()));
        assert_eq!((facts.max_slot_wal_keep_size_mb, facts.max_replication_slots), (None, SLOTS));
        assert_eq!(facts.timeline, Some(1));
        let identity = Session::open(&settings, Lsn::ZERO, StreamFormat::Binary)
            .await
            .expect("session")
            .identify()
            .await
            .expect("identity");
        assert_eq!(facts.system_identifier, Some(identity.system_identifier));
        assert_eq!((identity.timeline, identity.database), (1, database.name.clone()));

        settings.user = role;
        settings.password = Some(Secret::new("secret"));
        let connection = sql(&settings).await;
        let facts = read_facts(&connection).await.expect("facts");
        assert!(!facts.superuser && !facts.replication);
        let zone: String = connection.query_one("show timezone", &[]).await.expect("row").get(0);
        assert_eq!(zone, "UTC", "our pins outrank the role's settings");
        let found = tables(&settings, &["docs", "closed"]).await;
        let rights = |i: usize| (found[i].name.as_str(), found[i].can_select, found[i].row_security_applies);
        assert_eq!([rights(0), rights(1)], [("closed", false, false), ("docs", true, true)]);
        let refused = match Session::open(&settings, Lsn::ZERO, StreamFormat::Binary).await {
            Ok(_) => panic!("a role without REPLICATION got a replication session"),
            Err(error) => error,
        };
        assert_eq!(refused.disposition(), Disposition::Definite, "{refused:?}");
    }
}

#[tokio::test]
async fn the_publication_is_made_extended_or_refused_with_the_statement_that_mends_it() {
    for major in majors() {
        let database = Database::create(major).await;
        let mut settings = source(&database);
        database
            .client
            .batch_execute(
                "create table a (id int8 primary key, x int); create table b (id int8 primary key) partition by hash (id);
                 create table b_0 partition of b for values with (modulus 1, remainder 0)",
            )
            .await
            .expect("created");
        let connection = sql(&settings).await;
        let both = whole(&tables(&settings, &["a", "b"]).await);

        settings.create = false;
        match ensure_publication(&connection, &settings, &both).await {
            Err(PostgresError::Publication { mend, .. }) => {
                assert!(mend[0].starts_with("CREATE PUBLICATION"), "{mend:?}")
            }
            other => panic!("made without permission: {other:?}"),
        }
        settings.create = true;
        let made = ensure_publication(&connection, &settings, &both[..1]).await.expect("made");
        assert!(made.via_root && made.owned && made.insert && made.update && made.delete && made.truncate);
        let names = |publication: &walvec::postgres::publication::Publication| -> Vec<String> {
            publication.tables.iter().map(|table| table.name.clone()).collect()
        };
        assert_eq!(names(&made), ["a"]);
        let extended = ensure_publication(&connection, &settings, &both).await.expect("extended");
        assert_eq!(names(&extended), ["a", "b"], "a partitioned table is published as its root");

        settings.publication = unique("filtered");
        let create = format!(
            "create publication {} for table a (id, x) where (id > 1), b with (publish = 'insert,update')",
            settings.publication
        );
        database.client.batch_execute(&create).await.expect("created");
        let Err(PostgresError::Publication { problems, mend, .. }) =
            ensure_publication(&connection, &settings, &both).await
        else {
            panic!("a publication that loses changes was accepted")
        };
        for sentence in ["DELETE and TRUNCATE", "partitions of public.b"] {
            assert!(problems.iter().any(|problem| problem.contains(sentence)), "{sentence}: {problems:?}");
        }
        for statement in mend {
            database.client.batch_execute(&statement).await.expect(&statement);
        }
        let found = ensure_publication(&connection, &settings, &both).await.expect("the statements mend it");
        let a = &found.tables[0];
        assert_eq!(a.row_filter.as_deref(), Some("(id > 1)"), "filter and list stay as they are");
        assert_eq!(a.columns, Some(vec!["id".to_owned(), "x".to_owned()]));
        assert_eq!(read_publication(&connection, "absent").await.expect("read"), None);
    }
}
