//! Types with types within: composites, ranges, multiranges. The caller prints the parts.

use super::{DecodeError, Reader};
use crate::postgres::array::PrintElement;

/// Prints part `i` of a record.
pub type PrintPart<'a> = dyn FnMut(usize, &[u8], &mut Vec<u8>) -> Result<(), DecodeError> + 'a;

/// A part with its length before it; `None` is NULL.
fn part<'a>(reader: &mut Reader<'a>, type_name: &'static str) -> Result<Option<&'a [u8]>, DecodeError> {
    match reader.i32()? {
        -1 => Ok(None),
        length => {
            let length = usize::try_from(length).map_err(|_| DecodeError::Malformed(type_name))?;
            reader.take(length).map(Some)
        }
    }
}

/// Quotes where the text would not read back otherwise; a quote or backslash inside is doubled. `isspace` counts the
/// vertical tab, `is_ascii_whitespace` does not.
fn quote(text: &[u8], special: &[u8], out: &mut Vec<u8>) {
    let is_special = |byte: &u8| special.contains(byte) || byte.is_ascii_whitespace() || *byte == 0x0B;
    if !text.is_empty() && !text.iter().any(is_special) {
        out.extend_from_slice(text);
        return;
    }
    out.push(b'"');
    for &byte in text {
        if matches!(byte, b'"' | b'\\') {
            out.push(byte);
        }
        out.push(byte);
    }
    out.push(b'"');
}

/// A composite value as `record_out` prints it: `(1,"a b",)`. `attributes`: how many it must have.
pub fn print_record(
    value: &[u8],
    attributes: usize,
    print: &mut PrintPart<'_>,
    out: &mut Vec<u8>,
) -> Result<(), DecodeError> {
    let mut reader = Reader(value);
    if usize::try_from(reader.i32()?) != Ok(attributes) {
        return Err(DecodeError::Malformed("record"));
    }
    out.push(b'(');
    let mut text = Vec::new();
    for i in 0..attributes {
        if i > 0 {
            out.push(b',');
        }
        reader.i32()?; // the attribute's type
        if let Some(bytes) = part(&mut reader, "record")? {
            text.clear();
            print(i, bytes, &mut text)?;
            quote(&text, b"\"\\(),", out);
        }
    }
    out.push(b')');
    reader.end()
}

const EMPTY: u8 = 0x01;
const LOWER_INCLUSIVE: u8 = 0x02;
const UPPER_INCLUSIVE: u8 = 0x04;
const LOWER_INFINITE: u8 = 0x08;
const UPPER_INFINITE: u8 = 0x10;

/// A range as `range_out` prints it: `[1,5)`, `(,"a b"]`, `empty`.
pub fn print_range(value: &[u8], print: &mut PrintElement<'_>, out: &mut Vec<u8>) -> Result<(), DecodeError> {
    let mut reader = Reader(value);
    let flags = reader.u8()?;
    if flags & EMPTY != 0 {
        out.extend_from_slice(b"empty");
        return reader.end();
    }
    let mut text = Vec::new();
    let mut bound = |infinite: u8, out: &mut Vec<u8>| {
        if flags & infinite == 0 {
            let bytes = part(&mut reader, "range")?.ok_or(DecodeError::Malformed("range"))?;
            text.clear();
            print(bytes, &mut text)?;
            quote(&text, b"\"\\()[],", out);
        }
        Ok(())
    };
    out.push(if flags & LOWER_INCLUSIVE != 0 { b'[' } else { b'(' });
    bound(LOWER_INFINITE, out)?;
    out.push(b',');
    bound(UPPER_INFINITE, out)?;
    out.push(if flags & UPPER_INCLUSIVE != 0 { b']' } else { b')' });
    reader.end()
}

/// `{[1,5),[7,9)}`; `print` prints one range.
pub fn print_multirange(value: &[u8], print: &mut PrintElement<'_>, out: &mut Vec<u8>) -> Result<(), DecodeError> {
    let mut reader = Reader(value);
    let count = reader.i32()?;
    out.push(b'{');
    for i in 0..count {
        if i > 0 {
            out.push(b',');
        }
        let range = part(&mut reader, "multirange")?.ok_or(DecodeError::Malformed("multirange"))?;
        print(range, out)?;
    }
    out.push(b'}');
    reader.end()
}

#[cfg(test)]
mod tests {
    use super::super::tests::text;
    use super::*;

    fn verbatim(bytes: &[u8], out: &mut Vec<u8>) -> Result<(), DecodeError> {
        out.extend_from_slice(bytes);
        Ok(())
    }

    fn parts(head: &[u8], oid: bool, parts: &[Option<&str>]) -> Vec<u8> {
        let mut value = head.to_vec();
        for part in parts {
            if oid {
                value.extend([0, 0, 0, 25]);
            }
            value.extend(part.map_or(-1, |part| part.len() as i32).to_be_bytes());
            value.extend(part.unwrap_or_default().as_bytes());
        }
        value
    }

    #[test]
    fn records_quote_what_would_not_read_back() {
        let value = parts(&5i32.to_be_bytes(), true, &[Some("1"), None, Some(""), Some("a \"b\"\\"), Some("(x)")]);
        let print =
            |value: &[u8], out: &mut Vec<u8>| print_record(value, 5, &mut |_, bytes, out| verbatim(bytes, out), out);
        assert_eq!(text(|out| print(&value, out)), r#"(1,,"","a ""b""\\","(x)")"#);
        for cut in 0..value.len() {
            assert!(print(&value[..cut], &mut Vec::new()).is_err());
        }
        assert!(print_record(&value, 4, &mut |_, bytes, out| verbatim(bytes, out), &mut Vec::new()).is_err());
    }

    #[test]
    fn ranges_print_as_postgres_does() {
        for (flags, bounds, expected) in [
            (EMPTY, vec![], "empty"),
            (LOWER_INCLUSIVE, vec![Some("1"), Some("5")], "[1,5)"),
            (UPPER_INCLUSIVE | LOWER_INFINITE, vec![Some("a b")], "(,\"a b\"]"),
            (LOWER_INFINITE | UPPER_INFINITE, vec![], "(,)"),
            (LOWER_INCLUSIVE | UPPER_INCLUSIVE, vec![Some(""), Some("[\"")], "[\"\",\"[\"\"\"]"),
        ] {
            let value = parts(&[flags], false, &bounds);
            assert_eq!(text(|out| print_range(&value, &mut verbatim, out)), expected);
            for cut in 0..value.len() {
                assert!(print_range(&value[..cut], &mut verbatim, &mut Vec::new()).is_err(), "{expected} cut at {cut}");
            }
        }
        let value = parts(&2i32.to_be_bytes(), false, &[Some("[1,5)"), Some("[7,9)")]);
        assert_eq!(text(|out| print_multirange(&value, &mut verbatim, out)), "{[1,5),[7,9)}");
        for cut in 0..value.len() {
            assert!(print_multirange(&value[..cut], &mut verbatim, &mut Vec::new()).is_err());
        }
    }
}
