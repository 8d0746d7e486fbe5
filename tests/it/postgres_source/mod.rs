//! The source's side against real servers, 16 and 18: nothing here knows of Milvus.

mod catalog;
mod connections;
mod copy;
mod fetch;
mod slot;
mod stream;

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use walvec::change::{Change, Event, Lsn, OldRow, Row, TableId, Value};
use walvec::config::settings::{Secret, SourceSettings, SslMode};
use walvec::postgres::catalog::{Generated, RelationKind, ReplicaIdentity, Table, TypeKind, read_facts, read_tables};
use walvec::postgres::copy::{ChunkReader, Range, plan_ranges};
use walvec::postgres::fetch::{FetchShape, Fetcher};
use walvec::postgres::gate::{GateRefusal, Saved, Verdict, decide};
use walvec::postgres::probe::Probe;
use walvec::postgres::publication::{Wanted, ensure_publication, read_publication};
use walvec::postgres::relation::{TrackedColumn, TrackedLeaf, TrackedTable};
use walvec::postgres::stream::{Session, Stream};
use walvec::postgres::{Connection, Disposition, PostgresError, SelectColumn, StreamFormat, connect};
use walvec::servers::{Postgres, PostgresOptions, Stop, TlsPem};

use super::support::postgres::{Database, SLOTS, major, majors, options, options_of, settings};
use super::support::proxy::Proxy;
use super::support::unique;
use super::support::wait::until;

const PATIENCE: Duration = Duration::from_secs(20);

fn source(database: &Database) -> SourceSettings {
    database.settings()
}

async fn sql(settings: &SourceSettings) -> Connection {
    connect(settings, "test").await.expect("connected")
}

async fn tables(settings: &SourceSettings, names: &[&str]) -> Vec<Table> {
    let patterns: Vec<String> = names.iter().map(|name| format!("public.{name}")).collect();
    let found = read_tables(&sql(settings).await, &patterns).await.expect("catalog read");
    found.into_iter().map(|(_, table)| table).collect()
}

/// All columns of a table, in attribute order, keyed by its primary key.
fn tracked(id: u32, table: &Table) -> TrackedTable {
    let key = table.primary_key.as_ref().map(|key| key.columns.clone()).unwrap_or_default();
    let place = |name: &String| table.columns.iter().position(|column| column.name == *name).expect("a key column");
    let column = |column: &walvec::postgres::catalog::Column| TrackedColumn {
        name: column.name.clone(),
        type_oid: column.type_oid,
        typmod: column.typmod,
        reread: false,
    };
    let leaf = |leaf: &walvec::postgres::catalog::Leaf| TrackedLeaf {
        oid: leaf.oid,
        full: leaf.replica_identity == ReplicaIdentity::Full,
    };
    TrackedTable {
        id: TableId(id),
        oid: table.oid,
        schema: table.schema.clone(),
        name: table.name.clone(),
        columns: table.columns.iter().map(column).collect(),
        others: Vec::new(),
        skip: walvec::change::Skip::default(),
        key: key.iter().map(place).collect(),
        leaves: table.leaves.iter().map(leaf).collect(),
    }
}

/// Publication, slot, stream: as the first start does it.
async fn first_stream(settings: &SourceSettings, tables: &[Table]) -> (Stream, Lsn) {
    let connection = sql(settings).await;
    ensure_publication(&connection, settings, &whole(tables)).await.expect("published");
    let mut session = Session::open(settings, Lsn::ZERO, StreamFormat::Binary).await.expect("session");
    let identity = session.identify().await.expect("identified");
    let slot = session.slot().await.expect("slot read");
    assert_eq!(decide(None, &identity, slot.as_ref()), Verdict::CreateSlot);
    let consistent_point = session.create_slot().await.expect("slot created");
    (session.start(all_tracked(tables), Lsn::ZERO).await.expect("started"), consistent_point)
}

fn whole(tables: &[Table]) -> Vec<Wanted> {
    tables.iter().map(Wanted::whole).collect()
}

fn all_tracked(tables: &[Table]) -> Vec<TrackedTable> {
    tables.iter().enumerate().map(|(i, table)| tracked(u32::try_from(i).expect("few"), table)).collect()
}

async fn streams_from(settings: &SourceSettings, tables: &[Table], start_lsn: Lsn) -> Stream {
    // A slot is released some milliseconds after its holder's connection is closed.
    until("the slot is free", PATIENCE, async || {
        let session = Session::open(settings, start_lsn, StreamFormat::Binary).await.expect("session");
        match session.start(all_tracked(tables), Lsn::ZERO).await {
            Ok(stream) => Some(stream),
            Err(error) => {
                assert_eq!((error.sqlstate(), error.disposition()), (Some("55006"), Disposition::Transient), "{error}");
                None
            }
        }
    })
    .await
}

/// Reads until `enough`, keepalives left out.
async fn events(stream: &mut Stream, enough: impl Fn(&[Event]) -> bool) -> Vec<Event> {
    let mut events = Vec::new();
    let reading = async {
        while !enough(&events) {
            let mut batch = Vec::new();
            stream.next_batch(&mut batch, 1 << 20).await.expect("stream");
            events.extend(batch.into_iter().filter(|event| !matches!(event, Event::KeepAlive { .. })));
        }
    };
    tokio::time::timeout(PATIENCE, reading).await.expect("the events come");
    events
}

async fn commits(stream: &mut Stream, count: usize) -> Vec<Event> {
    events(stream, |events| events.iter().filter(|event| matches!(event, Event::Commit { .. })).count() >= count).await
}

/// By the simple protocol: nothing is sent afterwards, as the end of a prepared statement is.
async fn own_pid(client: &tokio_postgres::Client) -> i32 {
    let answer = client.simple_query("select pg_backend_pid()").await.expect("answered");
    let row = answer.iter().find_map(|message| match message {
        tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0),
        _ => None,
    });
    row.and_then(|pid| pid.parse().ok()).expect("a pid")
}

/// Compares changes; a difference is shown without the bytes of long values.
#[track_caller]
fn assert_changes(found: &[Event], expected: &[(TableId, Change)]) {
    let found = changes(found);
    let show = |changes: &[(TableId, Change)]| -> Vec<String> {
        let value = |value: &Value| match value {
            Value::Binary(bytes) if bytes.len() > 16 => format!("{} bytes", bytes.len()),
            Value::Binary(bytes) if bytes.len() == 8 => {
                format!("{}", i64::from_be_bytes(bytes[..].try_into().expect("8")))
            }
            other => format!("{other:?}"),
        };
        let row = |row: &Row| row.0.iter().map(value).collect::<Vec<_>>().join(", ");
        let old = |old: &OldRow| match old {
            OldRow::Key(key) => format!("key ({})", row(key)),
            OldRow::Full(full) => format!("full ({})", row(full)),
        };
        changes
            .iter()
            .map(|(table, change)| match change {
                Change::Insert { new } => format!("{table:?} insert ({})", row(new)),
                Change::Update { old: before, new } => {
                    format!("{table:?} update {} to ({})", before.as_ref().map(old).unwrap_or_default(), row(new))
                }
                Change::Delete { old: before } => format!("{table:?} delete {}", old(before)),
            })
            .collect()
    };
    assert!(found == expected, "found {:#?}\nexpected {:#?}", show(&found), show(expected));
}

fn changes(events: &[Event]) -> Vec<(TableId, Change)> {
    let change = |event: &Event| match event {
        Event::Change { table, change, .. } => Some((*table, change.clone())),
        _ => None,
    };
    events.iter().filter_map(change).collect()
}

fn int(value: i64) -> Value {
    Value::Binary(Bytes::copy_from_slice(&value.to_be_bytes()))
}

fn text(value: &str) -> Value {
    Value::Binary(Bytes::copy_from_slice(value.as_bytes()))
}

fn vector(values: &[f32]) -> Value {
    let mut bytes = u16::try_from(values.len()).expect("short").to_be_bytes().to_vec();
    bytes.extend([0, 0]);
    values.iter().for_each(|value| bytes.extend(value.to_be_bytes()));
    Value::Binary(bytes.into())
}

fn row<const N: usize>(values: [Value; N]) -> Row {
    Row(values.into())
}

/// A vector that is stored out of line, as pgvector's storage is `external`.
const LONG: &str = "(select array_agg(i)::vector from generate_series(1, 600) i)";

fn long() -> Value {
    vector(&(1..=600u16).map(f32::from).collect::<Vec<_>>())
}
