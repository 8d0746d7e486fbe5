//! Value decoders: what a type's send function wrote, as a number or as the text its output function prints.
//!
//! In: the bytes of one value, binary or text. Out: a number, or text appended to the caller's buffer, or a
//! `DecodeError`. Nothing here knows columns, tables or targets; `plan::types` says which decoder a type has.
//!
//! Holds: every read is checked, so a value cut off anywhere is an error and never a panic, and bytes left over are
//! an error too. Text is byte for byte what PostgreSQL prints with DateStyle ISO, TimeZone UTC and
//! extra_float_digits at least 1, because a key read from a binary copy must equal the one read from a text stream.
//!
//! Not here: printing floats (`postgres::float`), vectors (`postgres::pgvector`), arrays (`postgres::array`).
//! See: PostgreSQL's `*send` and `*out` functions (src/backend/utils/adt); `tests/it/types.rs` asks a server.

mod datetime;
mod geometric;
mod nested;
mod network;
mod numeric;
mod system;
mod text_search;

pub use datetime::{
    date_days, date_days_text, moment_micros, moment_micros_text, print_date, print_interval, print_time,
    print_timestamp, print_timestamptz, print_timetz, time_micros, time_micros_text,
};
pub use geometric::{print_box, print_circle, print_line, print_lseg, print_path, print_point, print_polygon};
pub use nested::{print_multirange, print_range, print_record};
pub use network::{print_inet, print_macaddr, print_macaddr8};
pub use numeric::{print_money, print_numeric};
pub use system::{
    Pair, bits, bits_text, bytes_text, hstore, hstore_text, print_bits, print_bytea, print_char, print_hstore,
    print_int2vector, print_lsn, print_oidvector, print_snapshot, print_tid, print_uuid, print_xid8,
};
pub use text_search::print_tsvector;

/// A value is not what its type's send or output function writes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    #[error("the value ends before its type does")]
    Truncated,
    #[error("the value goes on after its type ends")]
    Trailing,
    /// The type's name.
    #[error("the bytes are not a value of type {0}")]
    Malformed(&'static str),
    #[error("the array has {0} dimensions; an ARRAY field holds one")]
    Dimensions(i32),
    #[error("the array holds a NULL; an ARRAY field holds none")]
    NullElement,
    #[error("the vector holds NaN or infinity")]
    NotFinite,
    #[error("the vector has {found} dimensions, the field {expected}")]
    Dimension { expected: usize, found: usize },
    #[error("the vector has {0} dimensions, no multiple of 8")]
    NotBytes(usize),
    #[error("the sparse vector has a negative value")]
    Negative,
    #[error("infinity has no place in this field")]
    Infinite,
    /// The field's type.
    #[error("the value is beyond the range of {0}")]
    OutOfRange(&'static str),
    #[error("the value was not sent: it is stored out of line and unchanged")]
    UnchangedToast,
    /// A type that only PostgreSQL can print came in its binary form; the stream should have been asked for text.
    #[error("the binary form of this type is known to PostgreSQL only")]
    Opaque,
}

/// Prints a binary value as its type's output function would.
pub type Print = fn(&[u8], &mut Vec<u8>) -> Result<(), DecodeError>;

/// Checked reads from the front of a value, all big-endian.
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn take(&mut self, n: usize) -> Result<&'a [u8], DecodeError> {
        let (head, tail) = self.0.split_at_checked(n).ok_or(DecodeError::Truncated)?;
        self.0 = tail;
        Ok(head)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (head, tail) = self.0.split_first_chunk::<N>().ok_or(DecodeError::Truncated)?;
        self.0 = tail;
        Ok(*head)
    }

    pub(crate) fn i16(&mut self) -> Result<i16, DecodeError> {
        self.array().map(i16::from_be_bytes)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, DecodeError> {
        self.array().map(u16::from_be_bytes)
    }

    pub(crate) fn i32(&mut self) -> Result<i32, DecodeError> {
        self.array().map(i32::from_be_bytes)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, DecodeError> {
        self.array().map(|[byte]| byte)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, DecodeError> {
        self.array().map(u32::from_be_bytes)
    }

    pub(crate) fn i64(&mut self) -> Result<i64, DecodeError> {
        self.array().map(i64::from_be_bytes)
    }

    pub(crate) fn f64(&mut self) -> Result<f64, DecodeError> {
        self.array().map(f64::from_be_bytes)
    }

    pub(crate) fn end(&self) -> Result<(), DecodeError> {
        if self.0.is_empty() { Ok(()) } else { Err(DecodeError::Trailing) }
    }
}

/// The whole value as an array of its only possible length.
fn exactly<const N: usize>(value: &[u8]) -> Result<[u8; N], DecodeError> {
    value.try_into().map_err(|_| if value.len() < N { DecodeError::Truncated } else { DecodeError::Trailing })
}

pub fn bool(value: &[u8]) -> Result<bool, DecodeError> {
    exactly::<1>(value).map(|[byte]| byte != 0)
}

pub fn int2(value: &[u8]) -> Result<i64, DecodeError> {
    exactly(value).map(|bytes| i64::from(i16::from_be_bytes(bytes)))
}

pub fn int4(value: &[u8]) -> Result<i64, DecodeError> {
    exactly(value).map(|bytes| i64::from(i32::from_be_bytes(bytes)))
}

pub fn int8(value: &[u8]) -> Result<i64, DecodeError> {
    exactly(value).map(i64::from_be_bytes)
}

/// oid, xid, cid.
pub fn uint4(value: &[u8]) -> Result<i64, DecodeError> {
    exactly(value).map(|bytes| i64::from(u32::from_be_bytes(bytes)))
}

pub fn float4(value: &[u8]) -> Result<f32, DecodeError> {
    exactly(value).map(f32::from_be_bytes)
}

pub fn float8(value: &[u8]) -> Result<f64, DecodeError> {
    exactly(value).map(f64::from_be_bytes)
}

pub fn bool_text(text: &[u8]) -> Result<bool, DecodeError> {
    match text {
        b"t" => Ok(true),
        b"f" => Ok(false),
        _ => Err(DecodeError::Malformed("boolean")),
    }
}

/// A number that PostgreSQL printed; `type_name` is for the error. `NaN`, `Infinity` and `-Infinity` are spelled alike
/// in Rust. Parse a float4 as `f32`: the way over `f64` can round twice.
pub fn number_text<T: std::str::FromStr>(text: &[u8], type_name: &'static str) -> Result<T, DecodeError> {
    let malformed = || DecodeError::Malformed(type_name);
    std::str::from_utf8(text).map_err(|_| malformed())?.parse().map_err(|_| malformed())
}

/// jsonb, jsonpath and ltree without the version byte before their text (1, the only one so far).
pub fn versioned(value: &[u8]) -> Result<&[u8], DecodeError> {
    match value.split_first() {
        Some((1, text)) => Ok(text),
        Some(_) => Err(DecodeError::Malformed("jsonb, jsonpath or ltree")),
        None => Err(DecodeError::Truncated),
    }
}

/// Formatting into memory: the only error would be a failing allocation, which aborts.
macro_rules! print {
    ($out:expr, $($arg:tt)*) => { std::io::Write::write_fmt($out, format_args!($($arg)*)).expect("a Vec takes every write") };
}
pub(crate) use print;

pub use super::float::{print_float4, print_float8};

pub fn print_bool(value: bool, out: &mut Vec<u8>) {
    out.push(if value { b't' } else { b'f' });
}

pub fn print_int(value: i64, out: &mut Vec<u8>) {
    print!(out, "{value}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What a printer printed.
    pub(super) fn text(print: impl FnOnce(&mut Vec<u8>) -> Result<(), DecodeError>) -> String {
        let mut out = Vec::new();
        print(&mut out).expect("a valid value");
        String::from_utf8(out).expect("PostgreSQL prints UTF-8")
    }

    /// Every strict prefix of the value is an error.
    pub(super) fn cuts_are_errors(print: Print, value: &[u8]) {
        for cut in 0..value.len() {
            assert!(print(&value[..cut], &mut Vec::new()).is_err(), "cut at {cut} of {value:?}");
        }
    }

    const PRINTERS: [Print; 33] = [
        print_numeric,
        print_money,
        print_uuid,
        print_date,
        print_time,
        print_timetz,
        print_timestamp,
        print_timestamptz,
        print_interval,
        print_inet,
        print_macaddr,
        print_bits,
        print_bytea,
        print_char,
        print_hstore,
        print_int2vector,
        print_oidvector,
        print_lsn,
        print_snapshot,
        print_tid,
        print_xid8,
        print_tsvector,
        print_point,
        print_line,
        print_lseg,
        print_box,
        print_path,
        print_polygon,
        print_circle,
        |value, out| print_range(value, &mut |bytes, out| print_date(bytes, out), out),
        |value, out| print_multirange(value, &mut |v, out| print_range(v, &mut |b, out| print_date(b, out), out), out),
        |value, out| print_record(value, 2, &mut |_, bytes, out| print_bytea(bytes, out), out),
        |value, out| crate::postgres::array::print_array(value, b',', &mut |b, out| print_bytea(b, out), out),
    ];

    proptest! {
        /// No bytes make a decoder panic, and what is printed of numbers is text.
        #[test]
        fn any_bytes_are_a_value_or_an_error(value in proptest::collection::vec(any::<u8>(), 0..60)) {
            for print in PRINTERS {
                drop(print(&value, &mut Vec::new()));
            }
            drop((bool(&value), int2(&value), int4(&value), int8(&value), uint4(&value), versioned(&value)));
            drop((bits(&value), bits_text(&value), bytes_text(&value), hstore(&value), hstore_text(&value)));
            drop((date_days_text(&value), time_micros_text(&value), moment_micros_text(&value)));
        }

        /// Small numbers reach further into the decoders than random ones.
        #[test]
        fn counts_and_lengths_are_a_value_or_an_error(words in proptest::collection::vec(prop_oneof![-2i32..9, any::<i32>()], 0..12), tail in 0usize..4) {
            let mut value: Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes()).collect();
            value.truncate(value.len().saturating_sub(tail));
            for print in PRINTERS {
                drop(print(&value, &mut Vec::new()));
            }
        }
    }
}
