//! Bytes, bits, labels and PostgreSQL's own numbers: bytea, bit, varbit, uuid, "char", hstore, int2vector, oidvector, pg_lsn,
//! pg_snapshot, tid, xid8.

use std::borrow::Cow;

use super::{DecodeError, Reader, exactly, print};

const HEX: &[u8; 16] = b"0123456789abcdef";

fn print_hex(byte: u8, out: &mut Vec<u8>) {
    for nibble in [byte >> 4, byte & 15] {
        out.extend(HEX.get(usize::from(nibble)));
    }
}

/// bytea with bytea_output hex.
pub fn print_bytea(value: &[u8], out: &mut Vec<u8>) -> Result<(), DecodeError> {
    out.extend_from_slice(b"\\x");
    value.iter().for_each(|&byte| print_hex(byte, out));
    Ok(())
}

/// The bytes of a bytea from its text.
pub fn bytes_text(text: &[u8]) -> Result<Vec<u8>, DecodeError> {
    const MALFORMED: DecodeError = DecodeError::Malformed("bytea");
    let (pairs, rest) = text.strip_prefix(b"\\x").ok_or(MALFORMED)?.as_chunks::<2>();
    if !rest.is_empty() {
        return Err(MALFORMED);
    }
    let digit = |byte: u8| char::from(byte).to_digit(16).ok_or(MALFORMED);
    pairs.iter().map(|&[high, low]| Ok((digit(high)? << 4 | digit(low)?) as u8)).collect()
}

/// bit and varbit: their number, and the bits from the highest of the first byte on. The rest of the last byte is zero.
pub fn bits(value: &[u8]) -> Result<(usize, &[u8]), DecodeError> {
    let mut reader = Reader(value);
    let count = usize::try_from(reader.i32()?).map_err(|_| DecodeError::Malformed("bit"))?;
    let bytes = reader.take(count.div_ceil(8))?;
    reader.end()?;
    Ok((count, bytes))
}

/// The same from `0110`.
pub fn bits_text(text: &[u8]) -> Result<(usize, Vec<u8>), DecodeError> {
    let bit = |byte: &u8| match byte {
        b'0' => Ok(0),
        b'1' => Ok(1u8),
        _ => Err(DecodeError::Malformed("bit")),
    };
    let byte = |bits: &[u8]| {
        let set = |(i, byte)| Ok(bit(byte)? << (7 - i));
        bits.iter().enumerate().map(set).sum::<Result<u8, DecodeError>>()
    };
    Ok((text.len(), text.chunks(8).map(byte).collect::<Result<_, _>>()?))
}

pub fn print_bits(value: &[u8], out: &mut Vec<u8>) -> Result<(), DecodeError> {
    let (count, bytes) = bits(value)?;
    let digits = bytes.iter().flat_map(|byte| (0..8).rev().map(move |i| b'0' + (byte >> i & 1)));
    out.extend(digits.take(count));
    Ok(())
}

pub fn print_uuid(value: &[u8], out: &mut Vec<u8>) -> Result<(), DecodeError> {
    for (i, byte) in exactly::<16>(value)?.into_iter().enumerate() {
        if matches!(i, 4 | 6 | 8 | 10) {
            out.push(b'-');
        }
        print_hex(byte, out);
    }
    Ok(())
}

/// "char": one byte; a NUL prints as nothing, a byte beyond ASCII as an escape (PostgreSQL 16 and newer).
pub fn print_char(value: &[u8], out: &mut Vec<u8>) -> Result<(), DecodeError> {
    match exactly(value)? {
        [0] => {}
        [byte] if byte.is_ascii() => out.push(byte),
        [byte] => print!(out, "\\{byte:03o}"),
    }
    Ok(())
}

/// A pair of an hstore: a name, and its value unless that is NULL.
pub type Pair<'a> = (Cow<'a, [u8]>, Option<Cow<'a, [u8]>>);

pub fn hstore(value: &[u8]) -> Result<Vec<Pair<'_>>, DecodeError> {
    const MALFORMED: DecodeError = DecodeError::Malformed("hstore");
    let mut reader = Reader(value);
    let count = usize::try_from(reader.i32()?).map_err(|_| MALFORMED)?;
    let mut pairs = Vec::new();
    for _ in 0..count {
        let length = usize::try_from(reader.i32()?).map_err(|_| MALFORMED)?;
        let name = reader.take(length)?.into();
        let value = match reader.i32()? {
            -1 => None,
            length => Some(reader.take(usize::try_from(length).map_err(|_| MALFORMED)?)?.into()),
        };
        pairs.push((name, value));
    }
    reader.end()?;
    Ok(pairs)
}

/// The same from `"a"=>"1", "b"=>NULL`.
pub fn hstore_text(text: &[u8]) -> Result<Vec<Pair<'_>>, DecodeError> {
    const MALFORMED: DecodeError = DecodeError::Malformed("hstore");
    fn quoted(text: &[u8]) -> Result<(Cow<'_, [u8]>, &[u8]), DecodeError> {
        let mut rest = text.strip_prefix(b"\"").ok_or(MALFORMED)?;
        let mut value = Vec::new();
        loop {
            match rest {
                [b'"', after @ ..] => return Ok((value.into(), after)),
                [b'\\', byte, after @ ..] | [byte, after @ ..] => {
                    value.push(*byte);
                    rest = after;
                }
                [] => return Err(DecodeError::Truncated),
            }
        }
    }
    let mut pairs = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let (name, after) = quoted(rest)?;
        let after = after.strip_prefix(b"=>").ok_or(MALFORMED)?;
        let (value, after) = match after.strip_prefix(b"NULL") {
            Some(after) => (None, after),
            None => quoted(after).map(|(value, after)| (Some(value), after))?,
        };
        pairs.push((name, value));
        rest = match after {
            [] => break,
            _ => after.strip_prefix(b", ").filter(|more| !more.is_empty()).ok_or(MALFORMED)?,
        };
    }
    Ok(pairs)
}

pub fn print_hstore(value: &[u8], out: &mut Vec<u8>) -> Result<(), DecodeError> {
    let quote = |text: &[u8], out: &mut Vec<u8>| {
        out.push(b'"');
        for &byte in text {
            if matches!(byte, b'"' | b'\\') {
                out.push(b'\\');
            }
            out.push(byte);
        }
        out.push(b'"');
    };
    for (i, (name, value)) in hstore(value)?.into_iter().enumerate() {
        if i > 0 {
            out.extend_from_slice(b", ");
        }
        quote(&name, out);
        out.extend_from_slice(b"=>");
        match value {
            Some(value) => quote(&value, out),
            None => out.extend_from_slice(b"NULL"),
        }
    }
    Ok(())
}

/// An array by its form, but printed with spaces and without braces.
fn print_list(value: &[u8], element: super::Print, out: &mut Vec<u8>) -> Result<(), DecodeError> {
    for (i, bytes) in crate::postgres::array::Binary::new(value)?.enumerate() {
        if i > 0 {
            out.push(b' ');
        }
        element(bytes?, out)?;
    }
    Ok(())
}

pub fn print_int2vector(value: &[u8], out: &mut Vec<u8>) -> Result<(), DecodeError> {
    print_list(value, |bytes, out| super::int2(bytes).map(|number| print!(out, "{number}")), out)
}

pub fn print_oidvector(value: &[u8], out: &mut Vec<u8>) -> Result<(), DecodeError> {
    print_list(value, |bytes, out| super::uint4(bytes).map(|number| print!(out, "{number}")), out)
}

/// pg_lsn: both halves in hexadecimal.
pub fn print_lsn(value: &[u8], out: &mut Vec<u8>) -> Result<(), DecodeError> {
    let lsn = exactly(value).map(u64::from_be_bytes)?;
    print!(out, "{:X}/{:X}", lsn >> 32, lsn & 0xFFFF_FFFF);
    Ok(())
}

pub fn print_xid8(value: &[u8], out: &mut Vec<u8>) -> Result<(), DecodeError> {
    print!(out, "{}", exactly(value).map(u64::from_be_bytes)?);
    Ok(())
}

/// tid: block and line.
pub fn print_tid(value: &[u8], out: &mut Vec<u8>) -> Result<(), DecodeError> {
    let mut reader = Reader(value);
    let (block, line) = (reader.u32()?, reader.u16()?);
    reader.end()?;
    print!(out, "({block},{line})");
    Ok(())
}

/// pg_snapshot: `xmin:xmax:` and the transactions in progress.
pub fn print_snapshot(value: &[u8], out: &mut Vec<u8>) -> Result<(), DecodeError> {
    let mut reader = Reader(value);
    let count = reader.i32()?;
    let (xmin, xmax) = (reader.i64()?, reader.i64()?);
    print!(out, "{xmin}:{xmax}:");
    for i in 0..count {
        let xid = reader.i64()?;
        print!(out, "{}{xid}", if i == 0 { "" } else { "," });
    }
    reader.end()
}

#[cfg(test)]
mod tests {
    use super::super::tests::{cuts_are_errors, text};
    use super::*;

    #[test]
    fn uuid_prints_lower_case() {
        let value: Vec<u8> = (0xF0..=0xFF).collect();
        assert_eq!(text(|out| print_uuid(&value, out)), "f0f1f2f3-f4f5-f6f7-f8f9-fafbfcfdfeff");
    }

    #[test]
    fn bytes_and_bits_have_two_forms() {
        assert_eq!(text(|out| print_bytea(&[0, 255, 16], out)), "\\x00ff10");
        assert_eq!(bytes_text(b"\\x00FF10"), Ok(vec![0, 255, 16]));
        for bad in [&b"00"[..], b"\\x0", b"\\x0g", b"\\"] {
            assert!(bytes_text(bad).is_err());
        }
        let value = [&9i32.to_be_bytes()[..], &[0b1010_0001, 0b1000_0000]].concat();
        assert_eq!(text(|out| print_bits(&value, out)), "101000011");
        assert_eq!(bits_text(b"101000011"), Ok((9, vec![0b1010_0001, 0b1000_0000])));
        assert_eq!(bits(&value), Ok((9, &[0b1010_0001, 0b1000_0000][..])));
        assert!(bits_text(b"012").is_err());
        cuts_are_errors(print_bits, &value);
    }

    #[test]
    fn hstore_has_two_forms() {
        let mut value = 2i32.to_be_bytes().to_vec();
        for part in [Some("a\"b"), Some("1\\"), Some("c"), None] {
            value.extend(part.map_or(-1, |part| part.len() as i32).to_be_bytes());
            value.extend(part.unwrap_or_default().as_bytes());
        }
        let printed = text(|out| print_hstore(&value, out));
        assert_eq!(printed, r#""a\"b"=>"1\\", "c"=>NULL"#);
        assert_eq!(hstore_text(printed.as_bytes()), hstore(&value));
        assert_eq!(hstore_text(b""), Ok(vec![]));
        cuts_are_errors(print_hstore, &value);
        for bad in ["\"a\"", "\"a\"=>", "\"a\"=>1", "\"a\"=>\"1\",", "\"a\"=>\"1\", "] {
            assert!(hstore_text(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn system_numbers_print_as_postgres_does() {
        assert_eq!(text(|out| print_lsn(&0x16_B374_D848u64.to_be_bytes(), out)), "16/B374D848");
        assert_eq!(text(|out| print_xid8(&u64::MAX.to_be_bytes(), out)), "18446744073709551615");
        assert_eq!(text(|out| print_tid(&[255, 255, 255, 255, 0, 1], out)), "(4294967295,1)");
        let snapshot = [&2i32.to_be_bytes()[..], &[10i64, 20, 10, 14].map(i64::to_be_bytes).concat()].concat();
        assert_eq!(text(|out| print_snapshot(&snapshot, out)), "10:20:10,14");
        cuts_are_errors(print_snapshot, &snapshot);
        for (byte, expected) in [(0, ""), (b'a', "a"), (0xE9, "\\351")] {
            assert_eq!(text(|out| print_char(&[byte], out)), expected);
        }
        let element = |number: i16| [&2i32.to_be_bytes()[..], &number.to_be_bytes()].concat();
        let head = [1i32, 0, 21, 2, 0].map(i32::to_be_bytes).concat();
        let list = [head, element(1), element(-3)].concat();
        assert_eq!(text(|out| print_int2vector(&list, out)), "1 -3");
        cuts_are_errors(print_int2vector, &list);
    }
}
