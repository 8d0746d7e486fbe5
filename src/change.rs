//! What happened in PostgreSQL: positions, values, rows and changes, as the stream and the copy deliver them.
//!
//! The bottom of the tree beside `mutation`: no IO, no imports of ours. A row keeps the bytes that PostgreSQL sent
//! (slices of the receive buffer); nobody decodes a value before the request to Milvus is built.

use std::fmt;
use std::str::FromStr;

use bytes::Bytes;

/// A position in the write-ahead log, printed as PostgreSQL prints `pg_lsn` (`16/B374D848`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(pub u64);

impl Lsn {
    pub const ZERO: Lsn = Lsn(0);
    pub const MAX: Lsn = Lsn(u64::MAX);

    /// Bytes from `earlier` to here; 0 when `earlier` is not earlier.
    pub fn bytes_since(self, earlier: Lsn) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

/// The text was not of the form `X/Y` with two hexadecimal halves of at most 32 bits.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("not a log sequence number: expected two hexadecimal numbers as in 16/B374D848")]
pub struct ParseLsnError;

impl FromStr for Lsn {
    type Err = ParseLsnError;

    fn from_str(text: &str) -> Result<Lsn, ParseLsnError> {
        let (high, low) = text.split_once('/').ok_or(ParseLsnError)?;
        let half = |s: &str| {
            (1..=8).contains(&s.len()).then(|| u32::from_str_radix(s, 16).ok()).flatten().ok_or(ParseLsnError)
        };
        Ok(Lsn(u64::from(half(high)?) << 32 | u64::from(half(low)?)))
    }
}

/// PostgreSQL's object identifier.
pub type Oid = u32;

/// A full transaction id: 32 bits of `xid` under 32 bits of epoch, so that it never wraps in a process's life.
pub type FullXid = u64;

/// A table of the configuration, by its place in the plan. Not an oid: a partitioned table is one `TableId`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TableId(pub u32);

/// One column's value as PostgreSQL sent it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    Null,
    /// Stored out of line and not touched by the UPDATE: the stream does not carry it (`u` in pgoutput).
    UnchangedToast,
    /// What the type's output function prints.
    Text(Bytes),
    /// What the type's send function writes.
    Binary(Bytes),
}

impl Value {
    /// Bytes of payload, for the memory budget.
    pub fn size(&self) -> usize {
        match self {
            Value::Null | Value::UnchangedToast => 0,
            Value::Text(bytes) | Value::Binary(bytes) => bytes.len(),
        }
    }
}

/// A row in the plan's column order (`TablePlan::columns`), not in PostgreSQL's attribute order. At most 64 columns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row(pub Box<[Value]>);

impl Row {
    /// A bit for every column whose value the stream left out; bit i is column i.
    pub fn missing(&self) -> u64 {
        self.0.iter().enumerate().fold(0, |mask, (i, v)| if *v == Value::UnchangedToast { mask | 1 << i } else { mask })
    }

    /// Bytes that the row holds in memory: payload and one `Value` a column.
    pub fn size(&self) -> usize {
        self.0.iter().map(Value::size).sum::<usize>() + self.0.len() * size_of::<Value>()
    }
}

/// The old row that an UPDATE or DELETE may carry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OldRow {
    /// `K`: the columns of the replica identity; every other column is `Value::Null` and means "not sent".
    Key(Row),
    /// `O`: complete and detoasted, because the relation that was changed is REPLICA IDENTITY FULL.
    Full(Row),
}

/// One row change of a mapped table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    Insert { new: Row },
    Update { old: Option<OldRow>, new: Row },
    Delete { old: OldRow },
}

/// What the stream delivers, in commit order; the changes of a transaction stand between its Begin and its Commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// `final_lsn` is where the commit record starts. `commit_micros`: microseconds since 1970-01-01 UTC.
    Begin {
        final_lsn: Lsn,
        xid: u32,
        commit_micros: i64,
    },
    /// `lsn`: of its WAL record, plus its place among the changes of that record (a COPY writes many rows into one, each of
    /// them longer than a byte). No other change has it, and it is the same each time the change is sent.
    Change {
        table: TableId,
        lsn: Lsn,
        change: Change,
    },
    Truncate {
        tables: Vec<TableId>,
    },
    /// A table's shape no longer fits the plan: the sentence says what differs. No change of it can be decoded.
    Unfit {
        table: TableId,
        reason: String,
    },
    /// Columns that the table did not have when it was planned, before the first change that has them.
    NewColumns {
        table: TableId,
        columns: Vec<String>,
    },
    /// `end_lsn` is the first byte after the commit record: the only place inside the stream to start again from.
    Commit {
        end_lsn: Lsn,
    },
    /// `server_micros`: the server's clock, microseconds since 1970-01-01 UTC.
    KeepAlive {
        wal_end: Lsn,
        server_micros: i64,
    },
    /// A logical message with our prefix (`pg_logical_emit_message`), the fence of `verify`.
    Message {
        lsn: Lsn,
        content: Bytes,
    },
}

/// Who was running when an SQL snapshot was taken: `pg_current_snapshot()`, in full transaction ids.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Lowest id still running: everything below is over.
    pub xmin: FullXid,
    /// First id not yet assigned: nothing at or above is visible.
    pub xmax: FullXid,
    /// Running ids between the two.
    pub running: Vec<FullXid>,
}

impl Snapshot {
    /// Are the effects of this (committed) transaction visible?
    pub fn sees(&self, xid: FullXid) -> bool {
        xid < self.xmin || (xid < self.xmax && !self.running.contains(&xid))
    }

    /// The full id of a 32-bit id that was assigned within 2^31 transactions of this snapshot.
    pub fn widen(&self, xid: u32) -> FullXid {
        let distance = xid.wrapping_sub(self.xmax as u32) as i32;
        self.xmax.wrapping_add_signed(i64::from(distance))
    }
}

/// Transactions whose effects a copy shows already, so that the stream must not bring them again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Skip {
    /// Those whose commit record does not start behind it. Without a snapshot: all of them.
    pub until: Lsn,
    /// Of them those that it sees.
    pub snapshot: Option<Snapshot>,
}

impl Skip {
    /// Is this transaction in the copy? `final_lsn` is where its commit record starts.
    pub fn covers(&self, final_lsn: Lsn, xid: u32) -> bool {
        let seen = |snapshot: &Snapshot| snapshot.sees(snapshot.widen(xid));
        final_lsn <= self.until && self.snapshot.as_ref().is_none_or(seen)
    }
}

/// The text was not `xmin:xmax:xip,xip…`.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("not a pg_snapshot: expected xmin:xmax:xip_list")]
pub struct ParseSnapshotError;

impl FromStr for Snapshot {
    type Err = ParseSnapshotError;

    fn from_str(text: &str) -> Result<Snapshot, ParseSnapshotError> {
        let mut parts = text.splitn(3, ':');
        let mut number = || parts.next().and_then(|s| s.parse().ok()).ok_or(ParseSnapshotError);
        let (xmin, xmax) = (number()?, number()?);
        let list = parts.next().ok_or(ParseSnapshotError)?;
        let running = list
            .split(',')
            .filter(|s| !s.is_empty())
            .map(|s| s.parse().map_err(|_| ParseSnapshotError))
            .collect::<Result<_, _>>()?;
        Ok(Snapshot { xmin, xmax, running })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lsn_prints_and_parses_as_postgres_does() {
        for (text, value) in [("0/0", 0), ("16/B374D848", 0x16_B374_D848), ("FFFFFFFF/FFFFFFFF", u64::MAX)] {
            assert_eq!(text.parse(), Ok(Lsn(value)));
            assert_eq!(Lsn(value).to_string(), text);
        }
        for text in ["", "/", "1", "1/", "/1", "1/2/3", "G/0", "100000000/0", "-1/0", " 1/0"] {
            assert_eq!(text.parse::<Lsn>(), Err(ParseLsnError), "{text:?}");
        }
    }

    #[test]
    fn snapshot_sees_what_postgres_sees() {
        let snapshot: Snapshot = "10:20:12,15".parse().expect("valid");
        let seen: Vec<u64> = (8..22).filter(|&x| snapshot.sees(x)).collect();
        assert_eq!(seen, [8, 9, 10, 11, 13, 14, 16, 17, 18, 19]);
        assert_eq!("7:7:".parse(), Ok(Snapshot { xmin: 7, xmax: 7, running: vec![] }));
        for text in ["", "7", "7:7", "a:7:", "7:7:x", "7:7:1,x"] {
            assert_eq!(text.parse::<Snapshot>(), Err(ParseSnapshotError), "{text:?}");
        }
    }

    #[test]
    fn a_short_xid_is_widened_to_the_nearest_epoch() {
        let at = |xmax| Snapshot { xmin: xmax, xmax, running: vec![] };
        assert_eq!(at(1 << 32).widen(u32::MAX), (1 << 32) - 1);
        assert_eq!(at((1 << 32) - 1).widen(5), (1 << 32) + 5);
        assert_eq!(at((7 << 32) + 100).widen(90), (7 << 32) + 90);
    }
}
