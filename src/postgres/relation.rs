//! Relations of one replication session: which table a change belongs to, and where each of its columns goes.
//!
//! In: `TrackedTable`s once, then the messages of pgoutput in order. Out: `Event`s with rows in the plan's order.
//! Pure.
//!
//! ```text
//!  Relation (columns as PostgreSQL has them) ──► by name ──► projection (columns as a `Row` has them)
//! ```
//!
//! Holds: values go by column name, never by place, so a column that is added, dropped or moved cannot put a value into
//! another field. A relation that no longer fits makes its table `Unfit`, for the rest of the session: nothing of it is
//! decoded any more. One that is older than the plan is no misfit: what it lacks, or has as another type, is read from the
//! table, as what is out of line is. Older is what committed before the catalog was read (`planned_at` was taken before it):
//! every ALTER that such a transaction saw, the plan saw as well. Columns that nobody knew are told with the first change. The key columns of every row are known. `OldRow::Full` is only said when the relation whose row
//! changed is REPLICA IDENTITY FULL: through a partitioned root the tag of an old tuple follows the root, its contents
//! follow the leaf (tried on 15 to 18), so there it takes root and every leaf.
//!
//! Not here: the cache outlives no session; Relation messages are sent again after a reconnect.

use std::collections::{HashMap, HashSet};

use super::pgoutput::{Message, OldTuple, Relation, RelationColumn, Tuple};
use crate::change::{Change, Event, Lsn, Oid, OldRow, Row, Skip, TableId, Value};

/// What the stream must know of a table of the plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrackedTable {
    pub id: TableId,
    pub oid: Oid,
    pub schema: String,
    pub name: String,
    /// In the order of a `Row`.
    pub columns: Vec<TrackedColumn>,
    /// Columns that the table had when it was planned and that are not followed: no news when they come.
    pub others: Vec<String>,
    /// Changes of these transactions are in the copy already, whatever their shape (`TableState::skip`).
    pub skip: Skip,
    /// Indexes into `columns` of the key's columns. None: its rows are numbered, and the replica identity is nothing to us.
    pub key: Vec<usize>,
    /// Leaf partitions; empty, or itself, for an ordinary table.
    pub leaves: Vec<TrackedLeaf>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrackedColumn {
    pub name: String,
    pub type_oid: Oid,
    pub typmod: i32,
    /// Never in the stream: its value is to be read from the table, for every row.
    pub reread: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrackedLeaf {
    pub oid: Oid,
    /// REPLICA IDENTITY FULL.
    pub full: bool,
}

/// The stream sent something that pgoutput never sends.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolViolation {
    #[error("a change of relation {0}, which was never described")]
    UnknownRelation(Oid),
    #[error("a tuple of {found} values for relation {oid} with {expected} columns")]
    ColumnCount { oid: Oid, expected: usize, found: usize },
}

pub struct Relations {
    tables: Vec<TrackedTable>,
    /// Root, ordinary table or leaf → index into `tables`.
    by_oid: HashMap<Oid, usize>,
    /// Leaves whose identity is not FULL as far as we know, by table.
    not_full: Vec<HashSet<Oid>>,
    /// A relation that we do not track and that is not FULL was described: it may be a new partition.
    stranger_not_full: bool,
    known: HashMap<Oid, Known>,
    unfit: HashSet<TableId>,
    /// Position of the source when the catalog was read.
    planned_at: Lsn,
    /// Where the commit of the open transaction is.
    final_lsn: Lsn,
    xid: u32,
    /// The WAL record of the last change, and how many changes of it came before.
    record: (Lsn, u64),
    /// Columns that came since, of relations whose first change is still to come.
    news: HashMap<Oid, Vec<String>>,
}

enum Known {
    Ignored,
    Tracked { table: usize, fit: Result<Projection, String> },
}

struct Projection {
    /// For each column of the `Row`, its place in the tuple; `None` for one that is not in it and must be read.
    places: Box<[Option<usize>]>,
    /// Number of values of a tuple.
    width: usize,
    /// The relation itself is FULL.
    full: bool,
}

impl Relations {
    /// `planned_at`: a position of the source from before its catalog was read.
    pub fn new(tables: Vec<TrackedTable>, planned_at: Lsn) -> Relations {
        let mut by_oid = HashMap::new();
        let mut not_full = Vec::new();
        for (index, table) in tables.iter().enumerate() {
            by_oid.insert(table.oid, index);
            by_oid.extend(table.leaves.iter().map(|leaf| (leaf.oid, index)));
            not_full.push(
                table.leaves.iter().filter(|leaf| leaf.oid != table.oid && !leaf.full).map(|leaf| leaf.oid).collect(),
            );
        }
        Relations {
            tables,
            by_oid,
            not_full,
            stranger_not_full: false,
            known: HashMap::new(),
            unfit: HashSet::new(),
            planned_at,
            final_lsn: Lsn(u64::MAX), // before the first transaction nothing is older
            xid: 0,
            record: (Lsn::ZERO, 0),
            news: HashMap::new(),
        }
    }

    /// A transaction begins whose commit is there.
    pub fn begin(&mut self, final_lsn: Lsn, xid: u32) {
        (self.final_lsn, self.xid) = (final_lsn, xid);
    }

    /// From here on changes of these transactions are in the copy already.
    pub fn skip(&mut self, table: TableId, skip: Skip) {
        for tracked in self.tables.iter_mut().filter(|tracked| tracked.id == table) {
            tracked.skip = skip.clone();
        }
    }

    /// Columns that came with this relation, told once.
    pub fn take_news(&mut self, relation: Oid) -> Option<(TableId, Vec<String>)> {
        let columns = self.news.remove(&relation)?;
        let table = self.tables.get(*self.by_oid.get(&relation)?)?;
        (!self.unfit.contains(&table.id)).then_some((table.id, columns))
    }

    /// The event of one message, which comes from the WAL record at `lsn`; `None` for what is of no concern: other tables, types, origins, foreign messages.
    ///
    /// Transaction boundaries and logical messages are not made into events here.
    pub fn event(&mut self, lsn: Lsn, message: Message) -> Result<Option<Event>, ProtocolViolation> {
        if message.changed_relation().is_some() {
            self.record = match self.record {
                (record, before) if record == lsn => (record, before + 1),
                _ => (lsn, 0),
            };
        }
        match message {
            Message::Relation(relation) => {
                self.relation(&relation);
                Ok(None)
            }
            Message::Insert { relation, mut new } => {
                self.change(relation, &mut [&mut new], |table, projection, tuples| {
                    let [new] = tuples else { return Err("an insert without a row".to_owned()) };
                    let new = projection.row(new);
                    known_key(table, &new)?;
                    Ok(Change::Insert { new })
                })
            }
            Message::Update { relation, old: None, mut new } => {
                self.change(relation, &mut [&mut new], |table, projection, tuples| {
                    let [new] = tuples else { return Err("an update without a row".to_owned()) };
                    let new = projection.row(new);
                    known_key(table, &new)?;
                    Ok(Change::Update { old: None, new })
                })
            }
            Message::Update { relation, old: Some(old), mut new } => {
                let (mut old, tagged_full) = untag(old);
                let full = tagged_full && self.is_full(relation);
                self.change(relation, &mut [&mut old, &mut new], |table, projection, tuples| {
                    let [old, new] = tuples else { return Err("an update without a row".to_owned()) };
                    let (old, mut new) = (projection.row(old), projection.row(new));
                    known_key(table, &old)?;
                    for (i, (old, new)) in old.0.iter().zip(new.0.iter_mut()).enumerate() {
                        // A key column may be out of line as well: the old key then has it, changed or not.
                        if *new == Value::UnchangedToast && (full || table.key.contains(&i)) {
                            *new = old.clone();
                        }
                    }
                    known_key(table, &new)?;
                    Ok(Change::Update { old: Some(old_row(table, old, full)), new })
                })
            }
            Message::Delete { relation, old } => {
                let (mut old, tagged_full) = untag(old);
                let full = tagged_full && self.is_full(relation);
                self.change(relation, &mut [&mut old], |table, projection, tuples| {
                    let [old] = tuples else { return Err("a delete without a row".to_owned()) };
                    let old = projection.row(old);
                    known_key(table, &old)?;
                    Ok(Change::Delete { old: old_row(table, old, full) })
                })
            }
            Message::Truncate { relations } => Ok(self.truncate(&relations)),
            Message::Begin { .. }
            | Message::Commit { .. }
            | Message::Origin
            | Message::Type
            | Message::Logical { .. } => Ok(None),
        }
    }

    /// What does not fit is told with the first change: a relation may be described on behalf of a transaction that
    /// lies before our checkpoint, with a shape older than the plan.
    fn relation(&mut self, relation: &Relation) {
        let full = relation.replica_identity == b'f';
        let Some((&index, table)) = self.by_oid.get(&relation.oid).and_then(|i| Some((i, self.tables.get(*i)?))) else {
            self.stranger_not_full |= !full;
            self.known.insert(relation.oid, Known::Ignored);
            return;
        };
        if relation.oid != table.oid
            && let Some(not_full) = self.not_full.get_mut(index)
        {
            if full {
                not_full.remove(&relation.oid);
            } else {
                not_full.insert(relation.oid);
            }
        }
        let is_older = self.final_lsn <= self.planned_at;
        let fit = project(table, relation, is_older);
        let is_new = |name: &&str| {
            !table.columns.iter().any(|column| column.name == **name)
                && !table.others.iter().any(|other| other == *name)
        };
        let new: Vec<String> =
            relation.columns.iter().map(|column| column.name.as_str()).filter(is_new).map(str::to_owned).collect();
        if !is_older && fit.is_ok() && !new.is_empty() {
            self.news.insert(relation.oid, new);
        } else {
            self.news.remove(&relation.oid);
        }
        self.known.insert(relation.oid, Known::Tracked { table: index, fit });
    }

    fn unfit_once(&mut self, table: TableId, reason: String) -> Option<Event> {
        self.unfit.insert(table).then_some(Event::Unfit { table, reason })
    }

    /// May an old tuple that is tagged FULL be believed? `stranger_not_full` is about partitions made since the plan.
    fn is_full(&self, oid: Oid) -> bool {
        let Some(Known::Tracked { table: index, fit: Ok(projection) }) = self.known.get(&oid) else { return false };
        let Some(table) = self.tables.get(*index) else { return false };
        let is_partitioned_root = oid == table.oid && table.leaves.iter().any(|leaf| leaf.oid != oid);
        let leaves_are_full = self.not_full.get(*index).is_some_and(HashSet::is_empty) && !self.stranger_not_full;
        projection.full && (!is_partitioned_root || leaves_are_full)
    }

    fn change(
        &mut self,
        oid: Oid,
        tuples: &mut [&mut Tuple],
        build: impl FnOnce(&TrackedTable, &Projection, &mut [&mut Tuple]) -> Result<Change, String>,
    ) -> Result<Option<Event>, ProtocolViolation> {
        let known = self.known.get(&oid).ok_or(ProtocolViolation::UnknownRelation(oid))?;
        let Known::Tracked { table: index, fit } = known else { return Ok(None) };
        let Some(table) = self.tables.get(*index) else { return Ok(None) };
        let id = table.id;
        if self.unfit.contains(&id) || table.skip.covers(self.final_lsn, self.xid) {
            return Ok(None);
        }
        let change = match fit {
            Ok(projection) => {
                if let Some(tuple) = tuples.iter().find(|tuple| tuple.len() != projection.width) {
                    let (expected, found) = (projection.width, tuple.len());
                    return Err(ProtocolViolation::ColumnCount { oid, expected, found });
                }
                build(table, projection, tuples)
            }
            Err(reason) => Err(reason.clone()),
        };
        Ok(match change {
            Ok(change) => {
                let (record, before) = self.record;
                Some(Event::Change { table: id, lsn: Lsn(record.0 + before), change })
            }
            Err(reason) => self.unfit_once(id, reason),
        })
    }

    /// Through the root PostgreSQL names the root, or nothing when a partition alone is truncated. Without it, the
    /// leaves are named, and only all of them together are the table.
    fn truncate(&mut self, oids: &[Oid]) -> Option<Event> {
        let mut tables = Vec::new();
        for oid in oids {
            let Some(table) = self.by_oid.get(oid).and_then(|&index| self.tables.get(index)) else { continue };
            let whole = oids.contains(&table.oid)
                || (!table.leaves.is_empty() && table.leaves.iter().all(|leaf| oids.contains(&leaf.oid)));
            if self.unfit.contains(&table.id) || table.skip.covers(self.final_lsn, self.xid) {
                continue;
            }
            if !whole {
                let reason = format!("a partition of {}.{} was truncated alone", table.schema, table.name);
                let id = table.id;
                return self.unfit_once(id, reason);
            }
            if !tables.contains(&table.id) {
                tables.push(table.id);
            }
        }
        if tables.is_empty() { None } else { Some(Event::Truncate { tables }) }
    }
}

fn untag(old: OldTuple) -> (Tuple, bool) {
    match old {
        OldTuple::Key(tuple) => (tuple, false),
        OldTuple::Full(tuple) => (tuple, true),
    }
}

impl Projection {
    /// Takes the values out of the tuple: each column has one place.
    fn row(&self, tuple: &mut Tuple) -> Row {
        let take = |place: &Option<usize>| match place {
            Some(place) => tuple.get_mut(*place).map_or(Value::Null, |value| std::mem::replace(value, Value::Null)),
            None => Value::UnchangedToast,
        };
        Row(self.places.iter().map(take).collect())
    }
}

fn old_row(table: &TrackedTable, mut old: Row, full: bool) -> OldRow {
    if full {
        return OldRow::Full(old);
    }
    for (i, value) in old.0.iter_mut().enumerate() {
        if !table.key.contains(&i) {
            *value = Value::Null;
        }
    }
    OldRow::Key(old)
}

/// A NULL in an old key means that the column was not sent; in a new row it cannot be, as a primary key has none.
fn known_key(table: &TrackedTable, row: &Row) -> Result<(), String> {
    for &i in &table.key {
        let name = table.columns.get(i).map_or("?", |column| column.name.as_str());
        match row.0.get(i) {
            Some(Value::Text(_) | Value::Binary(_)) => {}
            Some(Value::UnchangedToast) => {
                return Err(format!("key column {name:?} is stored out of line and was not sent"));
            }
            Some(Value::Null) | None => return Err(format!("key column {name:?} was not sent or is NULL")),
        }
    }
    Ok(())
}

/// Finds every column of the plan in the relation, or says in one sentence what differs.
fn project(table: &TrackedTable, relation: &Relation, is_older: bool) -> Result<Projection, String> {
    let what = format!("{}.{}", relation.schema, relation.name);
    if relation.replica_identity == b'n' && !table.key.is_empty() {
        return Err(format!("{what} has REPLICA IDENTITY NOTHING now: its UPDATEs and DELETEs would be lost"));
    }
    let mut places = Vec::with_capacity(table.columns.len());
    for (i, column) in table.columns.iter().enumerate() {
        if column.reread {
            places.push(None);
            continue;
        }
        let found = relation.columns.iter().enumerate().find(|(_, candidate)| candidate.name == column.name);
        let is_key = table.key.contains(&i);
        let same = |found: &RelationColumn| (found.type_oid, found.typmod) == (column.type_oid, column.typmod);
        if is_older && !is_key && !found.is_some_and(|(_, found)| same(found)) {
            places.push(None);
            continue;
        }
        let Some((place, found)) = found else {
            return Err(format!(
                "column {:?} of {what} was dropped, renamed or left out of the publication",
                column.name
            ));
        };
        if found.type_oid != column.type_oid {
            return Err(format!("column {:?} of {what} has another type now", column.name));
        }
        if found.typmod != column.typmod {
            return Err(format!(
                "column {:?} of {what} has another length, precision or dimension now (type modifier {} instead of {})",
                column.name, found.typmod, column.typmod
            ));
        }
        if is_key && !found.in_identity {
            return Err(format!("the replica identity of {what} no longer covers the key column {:?}", column.name));
        }
        places.push(Some(place));
    }
    // Keys are unique by the identity: with another one, two rows may share what we take for the key.
    let beyond = relation.columns.iter().filter(|found| {
        found.in_identity && !table.key.iter().any(|&i| table.columns.get(i).is_some_and(|key| key.name == found.name))
    });
    let beyond: Vec<&str> = beyond.map(|found| found.name.as_str()).collect();
    if !is_older && relation.replica_identity != b'f' && !table.key.is_empty() && !beyond.is_empty() {
        return Err(format!(
            "the primary key or replica identity of {what} has columns more now: {}",
            beyond.join(", ")
        ));
    }
    Ok(Projection { places: places.into(), width: relation.columns.len(), full: relation.replica_identity == b'f' })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT: Oid = 100;
    const LEAVES: [Oid; 2] = [101, 102];
    const DOCS: TableId = TableId(0);
    const AT: Lsn = Lsn(1);

    fn text(text: &'static str) -> Value {
        Value::Text(text.into())
    }

    fn column(name: &str, in_identity: bool, type_oid: Oid, typmod: i32) -> RelationColumn {
        RelationColumn { in_identity, name: name.to_owned(), type_oid, typmod }
    }

    /// docs (id int8 key, title text, embedding vector(3)), and in PostgreSQL a column that the plan leaves out.
    fn docs(leaves: &[(Oid, bool)]) -> TrackedTable {
        let column =
            |name: &str, type_oid, typmod| TrackedColumn { name: name.to_owned(), type_oid, typmod, reread: false };
        TrackedTable {
            id: DOCS,
            oid: ROOT,
            schema: "public".to_owned(),
            name: "docs".to_owned(),
            columns: vec![column("embedding", 9000, 3), column("id", 20, -1), column("title", 25, -1)],
            others: vec!["note".to_owned()],
            skip: Skip::default(),
            key: vec![1],
            leaves: leaves.iter().map(|&(oid, full)| TrackedLeaf { oid, full }).collect(),
        }
    }

    fn relation(oid: Oid, identity: u8, columns: &[RelationColumn]) -> Message {
        Message::Relation(Relation {
            oid,
            schema: "public".to_owned(),
            name: "docs".to_owned(),
            replica_identity: identity,
            columns: columns.to_vec(),
        })
    }

    fn usual(oid: Oid, identity: u8) -> Message {
        let full = identity == b'f';
        let columns = [
            column("id", true, 20, -1),
            column("note", full, 25, -1),
            column("title", full, 25, -1),
            column("embedding", full, 9000, 3),
        ];
        relation(oid, identity, &columns)
    }

    fn tuple<const N: usize>(values: [Value; N]) -> Tuple {
        Tuple::from_iter(values)
    }

    fn row<const N: usize>(values: [Value; N]) -> Row {
        Row(values.into())
    }

    fn changed(relations: &mut Relations, message: Message) -> Change {
        match relations.event(AT, message) {
            Ok(Some(Event::Change { table: DOCS, change, .. })) => change,
            other => panic!("no change but {other:?}"),
        }
    }

    /// A COPY writes many rows into one record: each change has a number of its own, the same when it is sent again, and changes of
    /// tables that are nothing to us count as well. What the copy has is skipped by who was seen, not by place alone.
    #[test]
    fn each_change_of_a_record_has_its_own_lsn_and_what_the_copy_sees_is_skipped() {
        let mut relations = Relations::new(vec![docs(&[])], Lsn::ZERO);
        for message in [usual(ROOT, b'd'), usual(7, b'd')] {
            assert_eq!(relations.event(Lsn(90), message), Ok(None));
        }
        let lsns = |relations: &mut Relations, xid: u32| -> Vec<u64> {
            relations.begin(Lsn(500), xid);
            let insert =
                |relation| Message::Insert { relation, new: tuple([text("1"), text(""), text(""), text("[1,2,3]")]) };
            [(100, ROOT), (100, 7), (100, ROOT), (300, ROOT), (300, ROOT)]
                .into_iter()
                .filter_map(|(lsn, relation)| match relations.event(Lsn(lsn), insert(relation)) {
                    Ok(Some(Event::Change { lsn, .. })) => Some(lsn.0),
                    Ok(None) => None,
                    other => panic!("{other:?}"),
                })
                .collect()
        };
        assert_eq!(lsns(&mut relations, 12), [100, 102, 300, 301]);
        assert_eq!(lsns(&mut relations, 12), [100, 102, 300, 301], "the same again");
        let snapshot = Some("10:20:12".parse().expect("a snapshot"));
        relations.skip(DOCS, Skip { until: Lsn(500), snapshot });
        assert_eq!(lsns(&mut relations, 11), [0; 0], "seen");
        assert_eq!(lsns(&mut relations, 12).len(), 4, "committed before, and not seen");
        assert_eq!(lsns(&mut relations, 20).len(), 4);
    }

    #[test]
    fn values_go_by_name_into_the_plans_order() {
        let mut relations = Relations::new(vec![docs(&[])], Lsn::ZERO);
        assert_eq!(relations.event(AT, usual(ROOT, b'd')), Ok(None));
        let new = tuple([text("1"), text("note"), text("t"), text("[1,2,3]")]);
        assert_eq!(
            changed(&mut relations, Message::Insert { relation: ROOT, new }),
            Change::Insert { new: row([text("[1,2,3]"), text("1"), text("t")]) }
        );
        // The same relation with other places and one column more, as after DROP and ADD COLUMN.
        let columns = [
            column("embedding", false, 9000, 3),
            column("title", false, 25, -1),
            column("added", false, 16, -1),
            column("id", true, 20, -1),
        ];
        assert_eq!(relations.event(AT, relation(ROOT, b'd', &columns)), Ok(None));
        let new = tuple([text("[1,2,3]"), Value::Null, text("t"), text("1")]);
        assert_eq!(
            changed(&mut relations, Message::Insert { relation: ROOT, new }),
            Change::Insert { new: row([text("[1,2,3]"), text("1"), Value::Null]) }
        );
    }

    #[test]
    fn what_does_not_fit_is_told_once_and_nothing_is_decoded_afterwards() {
        let id = column("id", true, 20, -1);
        let title = column("title", false, 25, -1);
        let embedding = column("embedding", false, 9000, 3);
        let cases = [
            (b'd', vec![id.clone(), title.clone()], "\"embedding\" of public.docs was dropped"),
            (b'd', vec![id.clone(), title.clone(), column("embedding", false, 9001, 3)], "another type"),
            (b'd', vec![id.clone(), title.clone(), column("embedding", false, 9000, 4)], "modifier 4 instead of 3"),
            (b'i', vec![column("id", false, 20, -1), title.clone(), embedding.clone()], "no longer covers the key"),
            (b'n', vec![id, title, embedding], "REPLICA IDENTITY NOTHING"),
        ];
        for (identity, columns, sentence) in cases {
            let mut relations = Relations::new(vec![docs(&[])], Lsn::ZERO);
            let width = columns.len();
            let insert = || {
                let new = Tuple::from_iter(std::iter::repeat_n(text("1"), width));
                Message::Insert { relation: ROOT, new }
            };
            assert_eq!(relations.event(AT, relation(ROOT, identity, &columns)), Ok(None));
            match relations.event(AT, insert()) {
                Ok(Some(Event::Unfit { table: DOCS, reason })) => assert!(reason.contains(sentence), "{reason}"),
                other => panic!("{sentence}: {other:?}"),
            }
            assert_eq!(relations.event(AT, insert()), Ok(None), "told twice");
            assert_eq!(relations.event(AT, usual(ROOT, b'd')), Ok(None));
            assert_eq!(relations.event(AT, Message::Truncate { relations: vec![ROOT] }), Ok(None));
        }
    }

    #[test]
    fn an_older_shape_is_read_from_the_table_and_a_newer_one_is_news() {
        let at = Lsn(100);
        let insert = |width: usize| Message::Insert {
            relation: ROOT,
            new: Tuple::from_iter((0..width).map(|i| text(["1", "t", "x"][i]))),
        };
        let old = [column("id", true, 20, -1), column("title", false, 23, -1), column("gone", false, 25, -1)];
        let mut relations = Relations::new(vec![docs(&[])], at);
        // Committed before the catalog was read: without an embedding, and with a title of another type.
        relations.begin(at, 7);
        assert_eq!(relations.event(AT, relation(ROOT, b'd', &old)), Ok(None));
        let expected = Change::Insert { new: row([Value::UnchangedToast, text("1"), Value::UnchangedToast]) };
        assert_eq!(changed(&mut relations, insert(3)), expected);
        assert_eq!(relations.take_news(ROOT), None);
        // The same behind it: the table is another one now.
        let mut relations = Relations::new(vec![docs(&[])], at);
        relations.begin(Lsn(101), 7);
        assert_eq!(relations.event(AT, relation(ROOT, b'd', &old)), Ok(None));
        assert!(matches!(relations.event(AT, insert(3)), Ok(Some(Event::Unfit { .. }))));
        // A column more: told once. `note` was there when the table was planned.
        let grown = [
            column("id", true, 20, -1),
            column("note", false, 25, -1),
            column("title", false, 25, -1),
            column("embedding", false, 9000, 3),
            column("more", false, 16, -1),
        ];
        let mut relations = Relations::new(vec![docs(&[])], at);
        relations.begin(Lsn(101), 7);
        assert_eq!(relations.event(AT, relation(ROOT, b'd', &grown)), Ok(None));
        assert_eq!(relations.take_news(ROOT), Some((DOCS, vec!["more".to_owned()])));
        assert_eq!(relations.take_news(ROOT), None);
        // A key of more columns.
        let mut keyed = grown.to_vec();
        keyed[1].in_identity = true;
        assert_eq!(relations.event(AT, relation(ROOT, b'd', &keyed)), Ok(None));
        let new = Tuple::from_iter(std::iter::repeat_n(text("1"), 5));
        match relations.event(AT, Message::Insert { relation: ROOT, new }) {
            Ok(Some(Event::Unfit { reason, .. })) => {
                assert!(reason.ends_with("has columns more now: note"), "{reason}")
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn old_tuples_are_believed_as_far_as_the_physical_relation_goes() {
        let old = || tuple([text("1"), text("note"), text("before"), text("[1,2,3]")]);
        let new = || tuple([text("1"), text("note"), text("after"), Value::UnchangedToast]);
        let update = |relation| Message::Update { relation, old: Some(OldTuple::Full(old())), new: new() };
        let complete = Change::Update {
            old: Some(OldRow::Full(row([text("[1,2,3]"), text("1"), text("before")]))),
            new: row([text("[1,2,3]"), text("1"), text("after")]),
        };
        let key_only = Change::Update {
            old: Some(OldRow::Key(row([Value::Null, text("1"), Value::Null]))),
            new: row([Value::UnchangedToast, text("1"), text("after")]),
        };
        let [a, b] = LEAVES;
        // leaves at the plan, relations described, is the old tuple complete?
        type Case<'a> = (&'a [(Oid, bool)], &'a [(Oid, u8)], bool);
        let cases: [Case<'_>; 7] = [
            (&[], &[(ROOT, b'f')], true),
            (&[(ROOT, true)], &[(ROOT, b'f')], true),
            (&[(a, true), (b, true)], &[(ROOT, b'f')], true),
            (&[(a, true), (b, false)], &[(ROOT, b'f')], false),
            (&[(a, true), (b, false)], &[(ROOT, b'f'), (b, b'f')], true),
            (&[(a, true), (b, true)], &[(ROOT, b'f'), (b, b'd')], false),
            (&[(a, true), (b, true)], &[(ROOT, b'f'), (103, b'd')], false),
        ];
        for (leaves, described, is_complete) in cases {
            let mut relations = Relations::new(vec![docs(leaves)], Lsn::ZERO);
            for &(oid, identity) in described {
                assert_eq!(relations.event(AT, usual(oid, identity)), Ok(None));
            }
            let expected = if is_complete { &complete } else { &key_only };
            assert_eq!(&changed(&mut relations, update(ROOT)), expected, "{leaves:?} {described:?}");
        }
        // Published by leaf, the leaf's own identity is what counts.
        let mut relations = Relations::new(vec![docs(&[(a, true), (b, false)])], Lsn::ZERO);
        assert_eq!(relations.event(AT, usual(a, b'f')), Ok(None));
        assert_eq!(changed(&mut relations, update(a)), complete);
    }

    #[test]
    fn an_old_key_fills_in_a_key_that_is_out_of_line_and_nothing_else() {
        let mut relations = Relations::new(vec![docs(&[])], Lsn::ZERO);
        assert_eq!(relations.event(AT, usual(ROOT, b'd')), Ok(None));
        let old = OldTuple::Key(tuple([text("k"), Value::Null, Value::Null, Value::Null]));
        let new = tuple([Value::UnchangedToast, Value::Null, text("t"), Value::UnchangedToast]);
        assert_eq!(
            changed(&mut relations, Message::Update { relation: ROOT, old: Some(old), new: new.clone() }),
            Change::Update {
                old: Some(OldRow::Key(row([Value::Null, text("k"), Value::Null]))),
                new: row([Value::UnchangedToast, text("k"), text("t")]),
            }
        );
        match relations.event(AT, Message::Update { relation: ROOT, old: None, new }) {
            Ok(Some(Event::Unfit { reason, .. })) => assert!(reason.contains("out of line"), "{reason}"),
            other => panic!("a row without a key: {other:?}"),
        }
    }

    #[test]
    fn a_truncate_empties_the_table_only_when_all_of_it_was_truncated() {
        let [a, b] = LEAVES;
        let truncate = |oids: &[Oid]| {
            let mut relations = Relations::new(vec![docs(&[(a, false), (b, false)])], Lsn::ZERO);
            relations.event(AT, Message::Truncate { relations: oids.to_vec() })
        };
        let whole = Ok(Some(Event::Truncate { tables: vec![DOCS] }));
        assert_eq!(truncate(&[ROOT]), whole);
        assert_eq!(truncate(&[a, b]), whole);
        assert_eq!(truncate(&[ROOT, a, b, 7]), whole);
        assert_eq!(truncate(&[7]), Ok(None));
        assert!(matches!(truncate(&[a]), Ok(Some(Event::Unfit { table: DOCS, .. }))));
    }

    #[test]
    fn changes_of_other_tables_are_ignored_and_of_undescribed_ones_refused() {
        let mut relations = Relations::new(vec![docs(&[])], Lsn::ZERO);
        assert_eq!(relations.event(AT, usual(7, b'd')), Ok(None));
        let insert = |relation, width| Message::Insert {
            relation,
            new: Tuple::from_iter(std::iter::repeat_n(text("1"), width)),
        };
        assert_eq!(relations.event(AT, insert(7, 9)), Ok(None));
        assert_eq!(relations.event(AT, insert(ROOT, 4)), Err(ProtocolViolation::UnknownRelation(ROOT)));
        assert_eq!(relations.event(AT, usual(ROOT, b'd')), Ok(None));
        let wrong = ProtocolViolation::ColumnCount { oid: ROOT, expected: 4, found: 3 };
        assert_eq!(relations.event(AT, insert(ROOT, 3)), Err(wrong));
    }
}
