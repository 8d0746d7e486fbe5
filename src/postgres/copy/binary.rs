//! COPY BINARY: the bytes of CopyData messages in, rows of values out. Pure.
//!
//! Holds: values are slices of the messages. PostgreSQL sends a row in one message, with the header before the first, but
//! its manual does not promise it: a row may be cut anywhere here. No input panics.
//! See: PostgreSQL manual, COPY, "Binary Format".
#![deny(clippy::indexing_slicing)]

use bytes::{Buf, Bytes, BytesMut, TryGetError};

use crate::change::Value;
use crate::postgres::{PostgresError, Result};

const SIGNATURE: &[u8] = b"PGCOPY\n\xff\r\n\0";

/// One row.
pub type Values = Vec<Value>;

pub struct CopyRows {
    columns: usize,
    buffer: Bytes,
    state: State,
}

#[derive(PartialEq, Eq)]
enum State {
    Header,
    Rows,
    Done,
}

/// Not all of a row has arrived.
struct Incomplete;

impl From<TryGetError> for Incomplete {
    fn from(_: TryGetError) -> Incomplete {
        Incomplete
    }
}

impl CopyRows {
    pub fn new(columns: usize) -> CopyRows {
        CopyRows { columns, buffer: Bytes::new(), state: State::Header }
    }

    /// Adds a message. It is copied only when the one before ended inside a row.
    pub fn push(&mut self, message: Bytes) {
        if self.buffer.is_empty() {
            self.buffer = message;
        } else {
            let mut joined = BytesMut::with_capacity(self.buffer.len() + message.len());
            joined.extend_from_slice(&self.buffer);
            joined.extend_from_slice(&message);
            self.buffer = joined.freeze();
        }
    }

    /// The next complete row, or `None` until more is pushed.
    pub fn next_row(&mut self) -> Result<Option<Values>> {
        if self.state == State::Header {
            let mut rest = self.buffer.clone();
            match header(&mut rest)? {
                Ok(()) => {
                    self.buffer = rest;
                    self.state = State::Rows;
                }
                Err(Incomplete) => return Ok(None),
            }
        }
        if self.state == State::Done {
            return if self.buffer.is_empty() { Ok(None) } else { Err(format("data after the trailer")) };
        }
        let mut rest = self.buffer.clone();
        match row(&mut rest, self.columns)? {
            Ok(Some(values)) => {
                self.buffer = rest;
                Ok(Some(values))
            }
            Ok(None) => {
                self.buffer = rest;
                self.state = State::Done;
                Ok(None)
            }
            Err(Incomplete) => Ok(None),
        }
    }

    /// The stream has ended: was everything there, up to the trailer?
    pub fn finish(&self) -> Result<()> {
        if self.state == State::Done && self.buffer.is_empty() { Ok(()) } else { Err(format("it ends early")) }
    }
}

fn format(what: &'static str) -> PostgresError {
    PostgresError::CopyFormat { what }
}

fn header(bytes: &mut Bytes) -> Result<Result<(), Incomplete>> {
    let (Some(signature), Some(_)) = (bytes.get(..SIGNATURE.len()), bytes.get(..19)) else {
        return Ok(Err(Incomplete));
    };
    if signature != SIGNATURE {
        return Err(format("no signature"));
    }
    bytes.advance(SIGNATURE.len());
    let mut fields = || -> Result<(u32, u32), Incomplete> { Ok((bytes.try_get_u32()?, bytes.try_get_u32()?)) };
    match fields() {
        // Bits 16 to 31 are critical: a reader that does not know them must stop. Extensions: none is defined.
        Ok((flags, extension)) if flags >> 16 == 0 && extension == 0 => Ok(Ok(())),
        Ok(_) => Err(format("unknown flags or header extension")),
        Err(Incomplete) => Ok(Err(Incomplete)),
    }
}

/// `None` is the trailer.
fn row(bytes: &mut Bytes, columns: usize) -> Result<Result<Option<Values>, Incomplete>> {
    let Ok(count) = bytes.try_get_i16() else { return Ok(Err(Incomplete)) };
    if count == -1 {
        return Ok(Ok(None));
    }
    if usize::try_from(count) != Ok(columns) {
        return Err(format("another number of columns"));
    }
    let mut values = Values::with_capacity(columns);
    for _ in 0..columns {
        let Ok(length) = bytes.try_get_i32() else { return Ok(Err(Incomplete)) };
        values.push(match usize::try_from(length) {
            Ok(length) if length <= bytes.len() => Value::Binary(bytes.split_to(length)),
            Ok(_) => return Ok(Err(Incomplete)),
            Err(_) if length == -1 => Value::Null,
            Err(_) => return Err(format("a negative length")),
        });
    }
    Ok(Ok(Some(values)))
}

/// Where a version of a row is in its leaf: its ctid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tid {
    pub block: u32,
    /// Of the line pointer, from 1.
    pub offset: u16,
}

/// Four bytes of block, two of line pointer.
pub(super) fn tid_of(ctid: Option<Value>) -> Result<Tid> {
    let Some(Value::Binary(mut bytes)) = ctid else { return Err(format("no ctid")) };
    match (bytes.try_get_u32(), bytes.try_get_u16()) {
        (Ok(block), Ok(offset)) if bytes.is_empty() => Ok(Tid { block, offset }),
        _ => Err(format("no ctid")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::BufMut;
    use proptest::prelude::*;

    fn encode(rows: &[Vec<Option<Vec<u8>>>]) -> Vec<u8> {
        let mut out = SIGNATURE.to_vec();
        out.put_u64(0);
        for row in rows {
            out.put_i16(row.len().try_into().expect("few columns"));
            for value in row {
                match value {
                    Some(bytes) => {
                        out.put_i32(bytes.len().try_into().expect("short values"));
                        out.put_slice(bytes);
                    }
                    None => out.put_i32(-1),
                }
            }
        }
        out.put_i16(-1);
        out
    }

    fn read(messages: impl IntoIterator<Item = Bytes>, columns: usize) -> Result<Vec<Values>> {
        let mut parser = CopyRows::new(columns);
        let mut rows = Vec::new();
        for message in messages {
            parser.push(message);
            while let Some(row) = parser.next_row()? {
                rows.push(row);
            }
        }
        parser.finish()?;
        Ok(rows)
    }

    proptest! {
        #[test]
        fn rows_read_back_however_the_stream_is_cut(
            rows in proptest::collection::vec(
                proptest::collection::vec(proptest::option::of(proptest::collection::vec(any::<u8>(), 0..30)), 3), 0..8),
            cut in 1usize..64,
        ) {
            let bytes = Bytes::from(encode(&rows));
            let pieces = (0..bytes.len()).step_by(cut).map(|at| bytes.slice(at..bytes.len().min(at + cut)));
            let read = read(pieces, 3).expect("valid");
            let expected: Vec<Values> = rows.iter().map(|row| row.iter().map(|value| match value {
                Some(value) => Value::Binary(value.clone().into()),
                None => Value::Null,
            }).collect()).collect();
            prop_assert_eq!(read, expected);
        }

        #[test]
        fn a_stream_that_ends_early_is_an_error(length in 0usize..40) {
            let bytes = Bytes::from(encode(&[vec![Some(b"0123456789".to_vec())]]));
            let cut = bytes.slice(..length.min(bytes.len() - 1));
            prop_assert!(read([cut], 1).is_err());
        }

        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100), signed in any::<bool>()) {
            let head = if signed { encode(&[]) } else { Vec::new() };
            let head = head.get(..head.len().saturating_sub(2)).unwrap_or_default().to_vec();
            drop(read([[head, bytes].concat().into()], 2));
        }
    }

    #[test]
    fn the_wrong_shape_is_an_error() {
        let one = Bytes::from(encode(&[vec![None]]));
        assert!(read([one.clone()], 2).is_err());
        let mut more = one.to_vec();
        more.push(0);
        assert!(read([more.into()], 1).is_err());
        assert!(tid_of(Some(Value::Null)).is_err());
        let tid = |bytes: &'static [u8]| tid_of(Some(Value::Binary(Bytes::from_static(bytes)))).ok();
        assert_eq!(tid(&[0, 0, 1, 2, 0, 9]), Some(Tid { block: 258, offset: 9 }));
        assert_eq!((tid(&[0, 0, 1, 2, 0]), tid(&[0, 0, 1, 2, 0, 9, 0])), (None, None));
    }
}
