use proptest::prelude::*;

use super::{KeyPlan, number_of_change, number_of_copied};
use crate::change::{Lsn, Row, Value};
use crate::config::settings::{OnMisfit, TableSettings};
use crate::milvus::DataType;
use crate::mutation::Key;
use crate::plan::TablePlan;
use crate::plan::tests::{assert_refused, column, plan_of, settings, table, vector, with_identity};
use crate::postgres::catalog::{PrimaryKey, ReplicaIdentity, Table, UniqueIndex};

fn unique(name: &str, columns: &[&str]) -> UniqueIndex {
    let columns = columns.iter().map(|column| (*column).to_owned()).collect();
    UniqueIndex { name: name.into(), columns, deferrable: false, partial: false }
}

/// docs (tenant, slug, embedding) without a primary key, with a unique index over the first two and as replica identity.
fn keyless() -> Table {
    let mut table = table(vec![column("tenant", "int4"), column("slug", "text"), vector("embedding", 3)]);
    table.primary_key = None;
    table.columns[0].not_null = true;
    table.columns[1].not_null = true;
    table.unique_indexes = vec![unique("docs_key", &["tenant", "slug"])];
    with_identity(table, ReplicaIdentity::Index(vec!["slug".into(), "tenant".into()]))
}

fn keyed(columns: &[&str]) -> TableSettings {
    TableSettings { key: Some(columns.iter().map(|column| (*column).to_owned()).collect()), ..settings() }
}

#[test]
fn rows_without_a_key_are_numbered_when_asked() {
    let numbered = || TableSettings { auto_id: true, ..settings() };
    let plan = plan_of(with_identity(keyless(), ReplicaIdentity::Full), numbered());
    assert_eq!((&plan.key, plan.key_names()), (&KeyPlan::Auto { field: 0 }, vec!["(auto_id)".to_owned()]));
    let primary = &plan.collection.fields[0];
    assert_eq!((primary.name.as_str(), primary.data_type, primary.is_primary), ("pk", DataType::Int64, true));
    assert!(!primary.auto_id && primary.max_length.is_none());
    assert_eq!(plan.columns.iter().map(|column| column.field).collect::<Vec<_>>(), [1, 2, 3]);
    assert!(plan.remarks[0].ends_with("which names no entity, the table stops"), "{:?}", plan.remarks);
    // A primary key becomes a field like others, and its name may be ours.
    let mut taken = table(vec![column("pk", "int4"), vector("embedding", 2)]);
    taken.primary_key =
        Some(PrimaryKey { index_name: "docs_pkey".into(), columns: vec!["pk".into()], deferrable: false });
    let plan = plan_of(taken, numbered());
    assert_eq!(plan.collection.fields.iter().map(|field| &*field.name).collect::<Vec<_>>(), ["pk_", "pk", "embedding"]);
    assert_eq!(plan.collection.fields[1].data_type, DataType::Int32);
    assert_refused(
        with_identity(keyless(), ReplicaIdentity::Nothing),
        numbered(),
        "table public.docs: its replica identity names no row, or the publication's column list leaves it out: once it is published, \
         PostgreSQL refuses every UPDATE and DELETE of it; ALTER TABLE public.docs REPLICA IDENTITY FULL",
    );
    let letters = TableSettings { on_misfit: OnMisfit::DeadLetter, ..numbered() };
    assert_refused(
        with_identity(keyless(), ReplicaIdentity::Full),
        letters,
        "table public.docs: `on_misfit = \"dead_letter\"`, and with `auto_id = true` no row can be read again by its key; choose \
         another policy, or give the table a key",
    );
}

#[test]
fn numbers_of_the_copy_and_of_changes_never_meet() {
    let copied =
        [(0, 1), (0, u16::MAX), (1, 0), (u32::MAX, u16::MAX)].map(|(block, offset)| number_of_copied(block, offset));
    assert_eq!(copied, [-2, -65_536, -65_537, -281_474_976_710_656].map(Key::Int));
    assert_eq!(number_of_change(Lsn(0x16_B374_D848)), Key::Int(0x16_B374_D848));
}

#[test]
fn chosen_columns_are_a_key_when_an_index_and_the_identity_prove_them() {
    let plan = plan_of(keyless(), keyed(&["slug", "tenant"]));
    assert_eq!(plan.key, KeyPlan::Composite { columns: vec![1, 0], field: 0 });
    let full = plan_of(with_identity(keyless(), ReplicaIdentity::Full), keyed(&["tenant", "slug"]));
    assert_eq!(full.key.columns(), [0, 1]);
    // The primary key under another order, and beside a primary key another one.
    let mut both = keyless();
    both.primary_key =
        Some(PrimaryKey { index_name: "docs_pkey".into(), columns: vec!["tenant".into()], deferrable: true });
    both.unique_indexes.push(unique("docs_pkey", &["tenant"]));
    assert_eq!(plan_of(both, keyed(&["tenant", "slug"])).key.columns(), [0, 1]);
}

#[test]
fn a_key_that_is_not_proved_is_refused_with_what_proves_it() {
    let with = |change: &dyn Fn(&mut Table)| {
        let mut table = keyless();
        change(&mut table);
        table
    };
    let primary = || PrimaryKey { index_name: "docs_pkey".into(), columns: vec!["tenant".into()], deferrable: false };
    let two = keyed(&["tenant", "slug"]);
    for (table, settings, expected) in [
        (
            keyless(),
            settings(),
            "table public.docs: it has no primary key: an UPDATE or DELETE could not be followed; \
             set `key = [\"tenant\", \"slug\"]`, and ALTER TABLE public.docs REPLICA IDENTITY USING INDEX docs_key",
        ),
        (
            keyless(),
            TableSettings { auto_id: true, ..two.clone() },
            "table public.docs: `auto_id = true` numbers the entities, and `key` says what else their keys are made from; \
             take one of the two out",
        ),
        (
            with(&|table| table.columns[1].not_null = false),
            two.clone(),
            "table public.docs, column \"slug\": `key` names it, and it may be NULL; \
             ALTER TABLE public.docs ALTER COLUMN slug SET NOT NULL",
        ),
        (
            with(&|table| table.unique_indexes[0].partial = true),
            two.clone(),
            "table public.docs: the unique index docs_key on (tenant, slug) is partial: it says nothing of other rows; \
             CREATE UNIQUE INDEX CONCURRENTLY ON public.docs (tenant, slug)",
        ),
        (
            with(&|table| table.unique_indexes[0].deferrable = true),
            two.clone(),
            "table public.docs: the unique index docs_key is deferrable: two rows may share a key within a transaction; \
             CREATE UNIQUE INDEX CONCURRENTLY ON public.docs (tenant, slug)",
        ),
        (
            with(&|table| table.unique_indexes[0].columns.push("embedding".into())),
            two.clone(),
            "table public.docs: no unique index is on exactly (tenant, slug), which `key` names; \
             CREATE UNIQUE INDEX CONCURRENTLY ON public.docs (tenant, slug)",
        ),
        (
            keyless(),
            keyed(&["tenant", "name"]),
            "table public.docs, column \"name\": `key` names a column that the table does not have; \
             its columns are tenant, slug, embedding",
        ),
        (
            with_identity(keyless(), ReplicaIdentity::Default),
            two.clone(),
            "table public.docs: public.docs has no replica identity: UPDATE and DELETE name no row; \
             ALTER TABLE public.docs REPLICA IDENTITY USING INDEX docs_key",
        ),
        (
            with_identity(with(&|table| table.primary_key = Some(primary())), ReplicaIdentity::Default),
            two.clone(),
            "table public.docs: the replica identity of public.docs is its primary key (tenant), and `key` is (tenant, \
             slug); ALTER TABLE public.docs REPLICA IDENTITY USING INDEX docs_key",
        ),
        (
            with_identity(keyless(), ReplicaIdentity::Index(vec!["slug".into()])),
            two.clone(),
            "table public.docs: the replica identity of public.docs is an index on (slug), which is not the key of the \
             settings; ALTER TABLE public.docs REPLICA IDENTITY USING INDEX docs_key",
        ),
        (
            with_identity(keyless(), ReplicaIdentity::Nothing),
            two,
            "table public.docs: public.docs has REPLICA IDENTITY NOTHING: UPDATE and DELETE name no row; \
             ALTER TABLE public.docs REPLICA IDENTITY USING INDEX docs_key",
        ),
    ] {
        assert_refused(table, settings, expected);
    }
}

fn composite() -> TablePlan {
    let mut table = table(vec![column("a", "text"), column("b", "text"), vector("embedding", 2)]);
    table.primary_key.as_mut().expect("a key").columns = vec!["a".into(), "b".into()];
    plan_of(table, settings())
}

fn text(text: &str) -> Value {
    Value::Text(text.as_bytes().to_vec().into())
}

fn key_of(plan: &TablePlan, values: Vec<Value>) -> Result<Key, String> {
    plan.key.key(plan, &Row(values.into())).map_err(|refusal| refusal.to_string())
}

#[test]
fn keys_are_the_same_in_binary_and_in_text() {
    for (type_name, binary, printed, expected) in [
        ("int2", (-7i16).to_be_bytes().to_vec(), "-7", Key::Int(-7)),
        ("int4", 70_000i32.to_be_bytes().to_vec(), "70000", Key::Int(70_000)),
        ("int8", i64::MIN.to_be_bytes().to_vec(), "-9223372036854775808", Key::Int(i64::MIN)),
        ("text", "ä".into(), "ä", Key::Text("ä".into())),
        ("bpchar", b"ab  ".to_vec(), "ab  ", Key::Text("ab  ".into())),
        (
            "uuid",
            vec![0; 16],
            "00000000-0000-0000-0000-000000000000",
            Key::Text("00000000-0000-0000-0000-000000000000".into()),
        ),
        ("date", 0i32.to_be_bytes().to_vec(), "2000-01-01", Key::Text("2000-01-01".into())),
        ("timestamp", 0i64.to_be_bytes().to_vec(), "2000-01-01 00:00:00", Key::Text("2000-01-01 00:00:00".into())),
        ("numeric", [1i16, 0, 0, 2, 1].map(i16::to_be_bytes).concat(), "1.00", Key::Text("1.00".into())),
    ] {
        let plan = plan_of(table(vec![column("id", type_name), vector("embedding", 2)]), settings());
        let row = Row([Value::Binary(binary.into()), Value::Null].into());
        assert_eq!(plan.key.key(&plan, &row), Ok(expected.clone()), "{type_name}");
        assert_eq!(key_of(&plan, vec![text(printed), Value::Null]), Ok(expected.clone()), "{type_name}");
        assert_eq!(plan.key.key_texts(&plan, &row), Ok(vec![printed.to_owned()]));
        assert_eq!(plan.key.texts_of(&expected), Some(vec![printed.to_owned()]));
    }
}

#[test]
fn what_is_no_key_is_refused() {
    let single = plan_of(table(vec![column("id", "text"), vector("embedding", 2)]), settings());
    for (value, expected) in [
        (text(""), "field \"id\": an empty text is no key"),
        (Value::Null, "field \"id\": a key column is NULL"),
        (Value::UnchangedToast, "field \"id\": a key column was not sent"),
        (text("a\0"), "field \"id\": the text holds a NUL byte"),
        (Value::Binary(vec![0xFF].into()), "field \"id\": the text is not UTF-8"),
    ] {
        assert_eq!(key_of(&single, vec![value, Value::Null]), Err(expected.into()));
    }
    assert_eq!(key_of(&composite(), vec![text(""), text(""), Value::Null]), Ok(Key::Text("|".into())));
    for no_key in ["a", "a|b|c", "a|b\\", "a|\\b"] {
        assert_eq!(composite().key.texts_of(&Key::Text(no_key.into())), None, "{no_key}");
    }
}

proptest! {
    /// The parts can be read back, so no two lists of parts share a key.
    #[test]
    fn composite_keys_are_injective(a in r"[|\\a-cé]{0,6}", b in r"[|\\a-cé]{0,6}") {
        let plan = composite();
        let row = Row([text(&a), text(&b), Value::Null].into());
        let key = plan.key.key(&plan, &row).expect("a key");
        prop_assert_eq!(plan.key.texts_of(&key), Some(vec![a.clone(), b.clone()]));
        prop_assert_eq!(plan.key.key_texts(&plan, &row), Ok(vec![a, b]));
    }
}
