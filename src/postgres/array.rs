//! Arrays: their elements, from the binary and from the text form.
//!
//! In: the bytes of one array. Out: its elements' bytes in order, as the element type's send or output function wrote
//! them: flat (`Binary`, `Text`), where NULL elements and further dimensions are errors, because an ARRAY field has
//! neither; or as a tree of any shape (`binary_tree`, `text_tree`). Lower bounds are accepted and forgotten.
//!
//! Holds: an element is a slice of the value; only a text element with escapes is copied. Nothing is reserved for more
//! elements than there are bytes.
//! See: PostgreSQL's `array_send` and `array_out` (src/backend/utils/adt/arrayfuncs.c).

use std::borrow::Cow;

use super::decode::{DecodeError, Reader, print};

const MALFORMED: DecodeError = DecodeError::Malformed("array");

/// Elements of a binary array.
pub struct Binary<'a> {
    reader: Reader<'a>,
    left: usize,
}

impl<'a> Binary<'a> {
    pub fn new(value: &'a [u8]) -> Result<Binary<'a>, DecodeError> {
        let mut reader = Reader(value);
        let (dimensions, left) = head(&mut reader)?;
        if dimensions.len() > 1 {
            return Err(DecodeError::Dimensions(dimensions.len() as i32));
        }
        if left == 0 {
            reader.end()?;
        }
        Ok(Binary { reader, left })
    }

    fn element(&mut self) -> Result<&'a [u8], DecodeError> {
        let element = element(&mut self.reader)?.ok_or(DecodeError::NullElement)?;
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
    delimiter: u8,
}

impl<'a> Text<'a> {
    /// `delimiter`: what stands between two elements, `,` but for `box`.
    pub fn new(value: &'a [u8], delimiter: u8) -> Result<Text<'a>, DecodeError> {
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
            b"{}" => Ok(Text { rest: None, delimiter }),
            [b'{', rest @ ..] => Ok(Text { rest: Some(rest), delimiter }),
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
                let (element, rest) = bare(rest, self.delimiter)?;
                (Cow::Borrowed(element.ok_or(DecodeError::NullElement)?), rest)
            }
        };
        self.rest = match rest {
            [byte, rest @ ..] if *byte == self.delimiter => Some(rest),
            b"}" => None,
            [] => return Err(DecodeError::Truncated),
            _ => return Err(MALFORMED),
        };
        Ok(element)
    }
}

/// An element without quotes, `None` for NULL, and what follows it.
fn bare(rest: &[u8], delimiter: u8) -> Result<(Option<&[u8]>, &[u8]), DecodeError> {
    let end = rest.iter().position(|&b| b == delimiter || b == b'}').ok_or(DecodeError::Truncated)?;
    let (element, rest) = rest.split_at(end);
    Ok(((!element.eq_ignore_ascii_case(b"NULL")).then_some(element), rest))
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

/// An array of any shape, or one of its elements.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Node<'a> {
    Null,
    Value(Cow<'a, [u8]>),
    List(Vec<Node<'a>>),
}

/// PostgreSQL's `MAXDIM`.
const DIMENSIONS_MAX: usize = 6;

/// The head of a binary array: length and lower bound of each dimension, and how many elements follow.
fn head(reader: &mut Reader<'_>) -> Result<(Vec<(usize, i32)>, usize), DecodeError> {
    let count = usize::try_from(reader.i32()?).ok().filter(|&count| count <= DIMENSIONS_MAX).ok_or(MALFORMED)?;
    reader.i32()?; // "has NULLs": the elements say so themselves
    reader.i32()?; // element type: the catalog's, or a domain over it
    let mut dimensions = Vec::with_capacity(count);
    let mut elements = usize::from(count > 0);
    for _ in 0..count {
        // 0 only in an empty int2vector or oidvector.
        let length = usize::try_from(reader.i32()?).map_err(|_| MALFORMED)?;
        dimensions.push((length, reader.i32()?));
        elements = elements.checked_mul(length).ok_or(DecodeError::Truncated)?;
    }
    // Every element has at least its length: a count beyond that is no reason to reserve memory.
    if elements > reader.0.len() / 4 {
        return Err(DecodeError::Truncated);
    }
    Ok((dimensions, elements))
}

/// The next element; `None` is NULL.
fn element<'a>(reader: &mut Reader<'a>) -> Result<Option<&'a [u8]>, DecodeError> {
    match reader.i32()? {
        -1 => Ok(None),
        length => reader.take(usize::try_from(length).map_err(|_| MALFORMED)?).map(Some),
    }
}

/// A binary array as a tree: a list for each dimension.
pub fn binary_tree(value: &[u8]) -> Result<Node<'_>, DecodeError> {
    fn list<'a>(reader: &mut Reader<'a>, dimensions: &[(usize, i32)]) -> Result<Node<'a>, DecodeError> {
        match dimensions {
            [] => Ok(element(reader)?.map_or(Node::Null, |bytes| Node::Value(Cow::Borrowed(bytes)))),
            [(length, _), inner @ ..] => {
                (0..*length).map(|_| list(reader, inner)).collect::<Result<_, _>>().map(Node::List)
            }
        }
    }
    let mut reader = Reader(value);
    let (dimensions, _) = head(&mut reader)?;
    let tree = if dimensions.is_empty() { Node::List(Vec::new()) } else { list(&mut reader, &dimensions)? };
    reader.end()?;
    Ok(tree)
}

/// The same from `[0:0][1:2]={{1,2}}`.
pub fn text_tree(value: &[u8], delimiter: u8) -> Result<Node<'_>, DecodeError> {
    fn list<'a>(mut rest: &'a [u8], delimiter: u8, depth: usize) -> Result<(Node<'a>, &'a [u8]), DecodeError> {
        if depth > DIMENSIONS_MAX {
            return Err(MALFORMED);
        }
        let mut nodes = Vec::new();
        if let [b'}', rest @ ..] = rest {
            return Ok((Node::List(nodes), rest));
        }
        loop {
            let (node, after) = match rest {
                [b'{', inner @ ..] => list(inner, delimiter, depth + 1)?,
                [b'"', inner @ ..] => quoted(inner).map(|(element, rest)| (Node::Value(element), rest))?,
                _ => {
                    let (element, rest) = bare(rest, delimiter)?;
                    (element.map_or(Node::Null, |element| Node::Value(Cow::Borrowed(element))), rest)
                }
            };
            nodes.push(node);
            match after {
                [b'}', rest @ ..] => return Ok((Node::List(nodes), rest)),
                [byte, more @ ..] if *byte == delimiter => rest = more,
                [] => return Err(DecodeError::Truncated),
                _ => return Err(MALFORMED),
            }
        }
    }
    let body = match value {
        [b'[', ..] => {
            let equals = value.iter().position(|&b| b == b'=').ok_or(MALFORMED)?;
            value.get(equals + 1..).unwrap_or_default()
        }
        _ => value,
    };
    let [b'{', rest @ ..] = body else { return Err(MALFORMED) };
    match list(rest, delimiter, 1)? {
        (tree, []) => Ok(tree),
        _ => Err(DecodeError::Trailing),
    }
}

/// Print a binary array as `array_out` does; `print_element` prints one element.
pub fn print_array(
    value: &[u8],
    delimiter: u8,
    print_element: &mut PrintElement<'_>,
    out: &mut Vec<u8>,
) -> Result<(), DecodeError> {
    let mut reader = Reader(value);
    let (dimensions, elements) = head(&mut reader)?;
    if elements == 0 {
        out.extend_from_slice(b"{}");
        return reader.end();
    }
    if dimensions.iter().any(|&(_, lower_bound)| lower_bound != 1) {
        for &(length, lower_bound) in &dimensions {
            print!(out, "[{lower_bound}:{}]", i64::from(lower_bound) + length as i64 - 1);
        }
        out.push(b'=');
    }
    let mut text = Vec::new();
    for i in 0..elements {
        // Before element i, every dimension opens whose block begins there; after it, every one closes that ends.
        let mut block = 1;
        let borders = |i: usize, block: &mut usize| {
            let mut count = 0;
            for &(length, _) in dimensions.iter().rev() {
                *block *= length;
                count += usize::from(i.is_multiple_of(*block));
            }
            count
        };
        if i > 0 {
            out.push(delimiter);
        }
        out.extend(std::iter::repeat_n(b'{', borders(i, &mut block)));
        match element(&mut reader)? {
            None => out.extend_from_slice(b"NULL"),
            Some(bytes) => {
                text.clear();
                print_element(bytes, &mut text)?;
                quote(&text, delimiter, out);
            }
        }
        block = 1;
        out.extend(std::iter::repeat_n(b'}', borders(i + 1, &mut block)));
    }
    reader.end()
}

/// Prints one element or part of a value.
pub type PrintElement<'a> = dyn FnMut(&[u8], &mut Vec<u8>) -> Result<(), DecodeError> + 'a;

fn quote(text: &[u8], delimiter: u8, out: &mut Vec<u8>) {
    if !needs_quotes(text, delimiter) {
        out.extend_from_slice(text);
        return;
    }
    out.push(b'"');
    for &byte in text {
        if matches!(byte, b'"' | b'\\') {
            out.push(b'\\');
        }
        out.push(byte);
    }
    out.push(b'"');
}

/// `array_isspace` counts the vertical tab, `is_ascii_whitespace` does not.
fn needs_quotes(text: &[u8], delimiter: u8) -> bool {
    text.is_empty()
        || text.eq_ignore_ascii_case(b"NULL")
        || text
            .iter()
            .any(|&b| b == delimiter || matches!(b, b'"' | b'\\' | b'{' | b'}' | b'\x0B') || b.is_ascii_whitespace())
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
        Text::new(value, b',')?.map(|e| e.map(Cow::into_owned)).collect()
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

    fn verbatim(element: &[u8], out: &mut Vec<u8>) -> Result<(), DecodeError> {
        out.extend_from_slice(element);
        Ok(())
    }

    #[test]
    fn every_shape_is_a_tree_and_prints_as_postgres_does() {
        let some = |text: &'static str| Some(text.as_bytes());
        for (dimensions, elements, text) in [
            (&[][..], vec![], "{}"),
            (&[(2, 1)], vec![some("1"), None], "{1,NULL}"),
            (&[(2, 0)], vec![some("a b"), some("null")], "[0:1]={\"a b\",\"null\"}"),
            (&[(2, 1), (2, 1)], vec![some("1"), some("2"), some("3"), None], "{{1,2},{3,NULL}}"),
            (&[(1, 1), (2, -1)], vec![some("1"), some("")], "[1:1][-1:0]={{1,\"\"}}"),
            (&[(1, 1), (1, 1), (2, 1)], vec![some("{"), some("\\")], r#"{{{"{","\\"}}}"#),
        ] {
            let value = binary(dimensions, &elements);
            let mut printed = Vec::new();
            print_array(&value, b',', &mut verbatim, &mut printed).expect("prints");
            assert_eq!(String::from_utf8(printed).expect("UTF-8"), text);
            assert_eq!(binary_tree(&value), text_tree(text.as_bytes(), b','), "{text}");
            for cut in 0..value.len() {
                assert!(
                    binary_tree(&value[..cut]).is_err()
                        && print_array(&value[..cut], b',', &mut verbatim, &mut vec![]).is_err()
                );
            }
            for cut in 0..text.len() {
                assert!(text_tree(&text.as_bytes()[..cut], b',').is_err(), "{text} cut at {cut}");
            }
        }
        assert!(
            text_tree(b"{(1,1),(0,0);(2,2),(0,0)}", b';')
                .is_ok_and(|tree| matches!(tree, Node::List(n) if n.len() == 2))
        );
        assert_eq!(text_tree(b"{{{{{{{1}}}}}}}", b','), Err(MALFORMED));
        assert_eq!(binary_tree(&binary(&[(1 << 30, 1), (1 << 30, 1), (16, 1)], &[])), Err(DecodeError::Truncated));
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
            print_array(&value, b',', &mut verbatim, &mut text).expect("prints");
            prop_assert_eq!(from_text(&text), Ok(bytes));
            for cut in 0..value.len() {
                prop_assert!(from_binary(&value[..cut]).is_err());
            }
        }

        #[test]
        fn any_bytes_are_an_array_or_an_error(value in proptest::collection::vec(any::<u8>(), 0..60)) {
            drop((from_binary(&value), from_text(&value), binary_tree(&value).is_ok(), text_tree(&value, b',').is_ok()));
        }
    }
}
