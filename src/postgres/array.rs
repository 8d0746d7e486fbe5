//! One-dimensional arrays: their elements, from the binary and from the text form.
//!
//! In: the bytes of one array. Out: its elements' bytes in order, as the element type's send or output function wrote
//! them. A lower bound other than 1 is accepted and forgotten; NULL elements and further dimensions are errors, because
//! an ARRAY field has neither.
//!
//! Holds: an element is a slice of the value; only a text element with escapes is copied.
//! See: PostgreSQL's `array_send` and `array_out` (src/backend/utils/adt/arrayfuncs.c).

use std::borrow::Cow;

use super::decode::{DecodeError, Reader, print};

const MALFORMED: DecodeError = DecodeError::Malformed("array");

/// Elements of a binary array.
pub struct Binary<'a> {
    reader: Reader<'a>,
    left: usize,
    lower_bound: i32,
}

impl<'a> Binary<'a> {
    pub fn new(value: &'a [u8]) -> Result<Binary<'a>, DecodeError> {
        let mut reader = Reader(value);
        let dimensions = reader.i32()?;
        reader.i32()?; // "has NULLs": the elements say so themselves
        reader.i32()?; // element type: the catalog's, or a domain over it
        let (left, lower_bound) = match dimensions {
            0 => (0, 1),
            1 => (usize::try_from(reader.i32()?).map_err(|_| MALFORMED)?, reader.i32()?),
            _ => return Err(DecodeError::Dimensions(dimensions)),
        };
        // Every element has at least its length: a count beyond that is no reason to reserve memory.
        if left > reader.0.len() / 4 {
            return Err(DecodeError::Truncated);
        }
        if left == 0 {
            reader.end()?;
        }
        Ok(Binary { reader, left, lower_bound })
    }

    fn element(&mut self) -> Result<&'a [u8], DecodeError> {
        let element = match self.reader.i32()? {
            -1 => return Err(DecodeError::NullElement),
            length => self.reader.take(usize::try_from(length).map_err(|_| MALFORMED)?)?,
        };
        if self.left == 0 {
            self.reader.end()?;
        }
        Ok(element)
    }
}

impl<'a> Iterator for Binary<'a> {
    type Item = Result<&'a [u8], DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let element = self.element();
        if element.is_err() {
            self.left = 0;
        }
        Some(element)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

/// Elements of a text array: `{1,2}`, `[0:1]={a,"b c"}`.
pub struct Text<'a> {
    /// From the next element on, its closing brace included; `None` after it.
    rest: Option<&'a [u8]>,
}

impl<'a> Text<'a> {
    pub fn new(value: &'a [u8]) -> Result<Text<'a>, DecodeError> {
        let body = match value {
            [b'[', ..] => {
                let equals = value.iter().position(|&b| b == b'=').ok_or(MALFORMED)?;
                let (bounds, body) = value.split_at(equals);
                let dimensions = bounds.iter().filter(|&&b| b == b'[').count();
                if dimensions != 1 {
                    return Err(DecodeError::Dimensions(dimensions as i32));
                }
                body.get(1..).ok_or(MALFORMED)?
            }
            _ => value,
        };
        match body {
            b"{}" => Ok(Text { rest: None }),
            [b'{', rest @ ..] => Ok(Text { rest: Some(rest) }),
            _ => Err(MALFORMED),
        }
    }

    fn element(&mut self, rest: &'a [u8]) -> Result<Cow<'a, [u8]>, DecodeError> {
        let (element, rest) = match rest {
            [b'{', ..] => {
                // array_out prints as many braces as there are dimensions.
                let inner = rest.iter().take_while(|&&b| b == b'{').count();
                return Err(DecodeError::Dimensions(1 + inner as i32));
            }
            [b'"', rest @ ..] => quoted(rest)?,
            _ => {
                let end = rest.iter().position(|b| matches!(b, b',' | b'}')).ok_or(DecodeError::Truncated)?;
                let (element, rest) = rest.split_at(end);
                if element.eq_ignore_ascii_case(b"NULL") {
                    return Err(DecodeError::NullElement);
                }
                (Cow::Borrowed(element), rest)
            }
        };
        self.rest = match rest {
            [b',', rest @ ..] => Some(rest),
            b"}" => None,
            [] => return Err(DecodeError::Truncated),
            _ => return Err(MALFORMED),
        };
        Ok(element)
    }
}

/// A quoted element after its opening quote, and what follows the closing one. A backslash stands before any byte.
fn quoted(rest: &[u8]) -> Result<(Cow<'_, [u8]>, &[u8]), DecodeError> {
    let mut owned: Option<Vec<u8>> = None;
    let mut at = 0;
    loop {
        match *rest.get(at).ok_or(DecodeError::Truncated)? {
            b'"' => {
                let (element, tail) = rest.split_at(at);
                return Ok((owned.map_or(Cow::Borrowed(element), Cow::Owned), tail.get(1..).unwrap_or_default()));
            }
            b'\\' => {
                let escaped = *rest.get(at + 1).ok_or(DecodeError::Truncated)?;
                owned.get_or_insert_with(|| rest.get(..at).unwrap_or_default().to_vec()).push(escaped);
                at += 2;
            }
            byte => {
                if let Some(owned) = &mut owned {
                    owned.push(byte);
                }
                at += 1;
            }
        }
    }
}

impl<'a> Iterator for Text<'a> {
    type Item = Result<Cow<'a, [u8]>, DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = self.rest.take()?;
        Some(self.element(rest))
    }
}

/// Print a binary array as `array_out` does; `print_element` prints one element.
pub fn print_array(
    value: &[u8],
    mut print_element: impl FnMut(&[u8], &mut Vec<u8>) -> Result<(), DecodeError>,
    out: &mut Vec<u8>,
) -> Result<(), DecodeError> {
    let elements = Binary::new(value)?;
    if elements.left > 0 && elements.lower_bound != 1 {
        let upper = i64::from(elements.lower_bound) + elements.left as i64 - 1;
        print!(out, "[{}:{upper}]=", elements.lower_bound);
    }
    out.push(b'{');
    let mut text = Vec::new();
    for (i, element) in elements.enumerate() {
        if i > 0 {
            out.push(b',');
        }
        text.clear();
        print_element(element?, &mut text)?;
        if needs_quotes(&text) {
            out.push(b'"');
            for &byte in &text {
                if matches!(byte, b'"' | b'\\') {
                    out.push(b'\\');
                }
                out.push(byte);
            }
            out.push(b'"');
        } else {
            out.extend_from_slice(&text);
        }
    }
    out.push(b'}');
    Ok(())
}

/// `array_isspace` counts the vertical tab, `is_ascii_whitespace` does not.
fn needs_quotes(text: &[u8]) -> bool {
    text.is_empty()
        || text.eq_ignore_ascii_case(b"NULL")
        || text.iter().any(|b| matches!(b, b'"' | b'\\' | b'{' | b'}' | b',' | b'\x0B') || b.is_ascii_whitespace())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn binary(dimensions: &[(i32, i32)], elements: &[Option<&[u8]>]) -> Vec<u8> {
        let mut value = (dimensions.len() as i32).to_be_bytes().to_vec();
        value.extend(0i32.to_be_bytes());
        value.extend(25u32.to_be_bytes());
        for (length, lower_bound) in dimensions {
            value.extend(length.to_be_bytes());
            value.extend(lower_bound.to_be_bytes());
        }
        for element in elements {
            value.extend(element.map_or(-1, |e| e.len() as i32).to_be_bytes());
            value.extend(element.unwrap_or_default());
        }
        value
    }

    fn from_binary(value: &[u8]) -> Result<Vec<Vec<u8>>, DecodeError> {
        Binary::new(value)?.map(|e| e.map(<[u8]>::to_vec)).collect()
    }

    fn from_text(value: &[u8]) -> Result<Vec<Vec<u8>>, DecodeError> {
        Text::new(value)?.map(|e| e.map(Cow::into_owned)).collect()
    }

    #[test]
    fn text_arrays_as_postgres_prints_them() {
        for (text, expected) in [
            ("{}", &[][..]),
            ("{1}", &["1"]),
            ("{1,2,3}", &["1", "2", "3"]),
            ("[0:1]={a,b}", &["a", "b"]),
            ("[-3:-3]={x}", &["x"]),
            (r#"{"a b","c\"d","e\\f","","NULL","{}"}"#, &["a b", "c\"d", "e\\f", "", "NULL", "{}"]),
        ] {
            let expected: Vec<Vec<u8>> = expected.iter().map(|e| e.as_bytes().to_vec()).collect();
            assert_eq!(from_text(text.as_bytes()), Ok(expected), "{text}");
        }
        assert_eq!(from_text(b"{1,NULL}"), Err(DecodeError::NullElement));
        assert_eq!(from_text(b"{{1,2},{3,4}}"), Err(DecodeError::Dimensions(2)));
        assert_eq!(from_text(b"[0:0][1:2]={{1,2}}"), Err(DecodeError::Dimensions(2)));
        for bad in ["", "{", "{1", "{1,", "{\"a", "{\"a\\", "{\"a\"", "[0:1]", "[0:1]="] {
            assert!(from_text(bad.as_bytes()).is_err(), "{bad}");
        }
        assert_eq!(from_text(b"{\"a\"b}"), Err(MALFORMED));
    }

    #[test]
    fn what_an_array_field_cannot_hold_is_an_error() {
        assert_eq!(from_binary(&binary(&[(1, 1)], &[None])), Err(DecodeError::NullElement));
        assert_eq!(from_binary(&binary(&[(1, 1), (1, 1)], &[Some(b"a")])), Err(DecodeError::Dimensions(2)));
        assert_eq!(from_binary(&binary(&[], &[])), Ok(vec![]));
        assert_eq!(from_binary(&binary(&[(i32::MAX, 1)], &[])), Err(DecodeError::Truncated));
        assert_eq!(from_binary(&binary(&[(-1, 1)], &[])), Err(MALFORMED));
        assert_eq!(from_binary(&binary(&[(1, 1)], &[Some(b"a"), Some(b"b")])), Err(DecodeError::Trailing));
    }

    proptest! {
        #[test]
        fn both_forms_give_the_same_elements(
            elements in proptest::collection::vec("[a-zA-Z0-9 {}\\\\\",\u{b}é]{0,5}|NULL|null", 0..6),
            lower_bound in -3i32..4,
        ) {
            let bytes: Vec<Vec<u8>> = elements.iter().map(|e| e.as_bytes().to_vec()).collect();
            let parts: Vec<Option<&[u8]>> = bytes.iter().map(|e| Some(e.as_slice())).collect();
            let dimensions = [(elements.len() as i32, lower_bound)];
            let value = binary(if elements.is_empty() { &[] } else { &dimensions }, &parts);
            prop_assert_eq!(from_binary(&value), Ok(bytes.clone()));
            let mut text = Vec::new();
            print_array(&value, |e, out| { out.extend_from_slice(e); Ok(()) }, &mut text).expect("prints");
            prop_assert_eq!(from_text(&text), Ok(bytes));
            for cut in 0..value.len() {
                prop_assert!(from_binary(&value[..cut]).is_err());
            }
        }

        #[test]
        fn any_bytes_are_an_array_or_an_error(value in proptest::collection::vec(any::<u8>(), 0..60)) {
            drop((from_binary(&value), from_text(&value)));
        }
    }
}
