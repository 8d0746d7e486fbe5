//! JSON documents compared by what they mean, not by how they are written.
//!
//! In: two documents as bytes. Out: whether they are the same value.
//!
//! Holds: the order of members and white space do not count; of a name that occurs twice the last member counts, as
//! in jsonb; strings are compared after their escapes are resolved; numbers are compared as exact decimals, so 1.10
//! is 1.1 and 1e2 is 100, but an integer that a server turned into the nearest double is another number. -0 is 0.
//! What is no JSON is equal to nothing but the same bytes.
//!
//! Deliberately not `serde_json`: its `Value` makes doubles of long numbers and so hides the very loss that is looked for.

use std::collections::BTreeMap;

use crate::plan::SourceType;

use super::array::{self, Tree};

/// Deeper documents are compared by their bytes: the parser is recursive and the stack is not endless.
const DEPTH_MAX: usize = 256;

/// Are the two documents the same value?
pub fn equal(left: &[u8], right: &[u8]) -> bool {
    if left == right {
        return true;
    }
    match (parse(left), parse(right)) {
        (Some(left), Some(right)) => left == right,
        _ => false,
    }
}

/// Is the document the JSON form of this array? Its elements are of the type that `element` says.
pub fn equal_array(element: &SourceType, array: &Tree<'_>, document: &[u8]) -> bool {
    let expected = expected(element, array);
    expected.is_some() && expected == parse(document)
}

/// Has the object this member, in the JSON form of a column; absent (or null) where the column is NULL?
pub fn equal_member(source: &SourceType, name: &str, text: Option<&str>, object: &[u8]) -> bool {
    let Some(Json::Object(mut members)) = parse(object) else { return false };
    let found = members.remove(name.as_bytes());
    match text {
        None => matches!(found, None | Some(Json::Null)),
        Some(text) => {
            let expected = match source {
                SourceType::Array { element, delimiter } => {
                    array::tree(text, char::from(*delimiter)).and_then(|tree| expected(element, &tree))
                }
                _ => expected(source, &Tree::Value(text.into())),
            };
            expected.is_some() && expected == found
        }
    }
}

/// Is the document the JSON form of these pairs?
pub fn equal_hstore(pairs: &str, document: &[u8]) -> bool {
    let expected = object(pairs);
    expected.is_some() && expected == parse(document)
}

/// Bytes of the JSON form of an array, without white space.
pub fn length_of_array(element: &SourceType, node: &Tree<'_>) -> Option<usize> {
    let text = match node {
        Tree::Null => return Some(4),
        Tree::List(nodes) => {
            let lengths = nodes.iter().map(|node| length_of_array(element, node)).sum::<Option<usize>>()?;
            return Some(lengths + nodes.len().saturating_sub(1) + 2);
        }
        Tree::Value(text) => text,
    };
    Some(match kind(element) {
        Kind::Bool => {
            if text == "t" {
                4
            } else {
                5
            }
        }
        Kind::Pairs => length_of_hstore(text)?,
        Kind::Json => text.len(),
        Kind::Number if parse(text.as_bytes()).is_some() => text.len(),
        Kind::Number | Kind::Text => quoted(text),
    })
}

/// The same of an hstore.
pub fn length_of_hstore(text: &str) -> Option<usize> {
    let pairs = array::pairs(text)?;
    let lengths = pairs.iter().map(|(name, value)| quoted(name) + 1 + value.as_ref().map_or(4, |value| quoted(value)));
    Some(lengths.sum::<usize>() + pairs.len().saturating_sub(1) + 2)
}

/// Bytes of a JSON string: two quotes, and an escape for what needs one.
fn quoted(text: &str) -> usize {
    let escaped = text.chars().map(|char| match char {
        '"' | '\\' | '\u{8}' | '\u{c}' | '\n' | '\r' | '\t' => 2,
        '\0'..='\u{1f}' => 6,
        char => char.len_utf8(),
    });
    escaped.sum::<usize>() + 2
}

fn expected(element: &SourceType, node: &Tree<'_>) -> Option<Json> {
    let text = match node {
        Tree::Null => return Some(Json::Null),
        Tree::List(nodes) => {
            return nodes.iter().map(|node| expected(element, node)).collect::<Option<_>>().map(Json::Array);
        }
        Tree::Value(text) => text,
    };
    let string = || Json::String(text.as_bytes().to_vec());
    Some(match kind(element) {
        Kind::Bool => Json::Bool(text == "t"),
        Kind::Pairs => object(text)?,
        Kind::Json => parse(text.as_bytes())?,
        // NaN and infinity are no numbers in JSON.
        Kind::Number => parse(text.as_bytes()).unwrap_or_else(string),
        Kind::Text => string(),
    })
}

enum Kind {
    Bool,
    Number,
    Json,
    Pairs,
    Text,
}

fn kind(element: &SourceType) -> Kind {
    match element {
        SourceType::Vector { .. } | SourceType::HalfVec { .. } => Kind::Json,
        SourceType::Base(entry) => match entry.names.first().copied().unwrap_or_default() {
            "bool" => Kind::Bool,
            "int2" | "int4" | "int8" | "float4" | "float8" | "numeric" | "oid" => Kind::Number,
            "json" | "jsonb" => Kind::Json,
            "hstore" => Kind::Pairs,
            _ => Kind::Text,
        },
        _ => Kind::Text,
    }
}

fn object(pairs: &str) -> Option<Json> {
    let bytes = |text: &str| text.as_bytes().to_vec();
    let member = |(name, value): (std::borrow::Cow<'_, str>, Option<std::borrow::Cow<'_, str>>)| {
        (bytes(&name), value.map_or(Json::Null, |value| Json::String(bytes(&value))))
    };
    Some(Json::Object(array::pairs(pairs)?.into_iter().map(member).collect()))
}

#[derive(Debug, PartialEq)]
enum Json {
    Null,
    Bool(bool),
    Number(Decimal),
    /// UTF-8, but a lone surrogate escape is kept as the three bytes it would have.
    String(Vec<u8>),
    Array(Vec<Json>),
    Object(BTreeMap<Vec<u8>, Json>),
}

/// ± 0.digits × 10^exponent, `digits` without zeros at either end; zero has no digits and no sign.
#[derive(Debug, PartialEq)]
struct Decimal {
    negative: bool,
    digits: Vec<u8>,
    exponent: i64,
}

fn parse(text: &[u8]) -> Option<Json> {
    let mut parser = Parser { rest: text };
    let value = parser.value(0)?;
    parser.space();
    parser.rest.is_empty().then_some(value)
}

struct Parser<'a> {
    rest: &'a [u8],
}

impl<'a> Parser<'a> {
    fn value(&mut self, depth: usize) -> Option<Json> {
        if depth > DEPTH_MAX {
            return None;
        }
        self.space();
        match self.rest.first()? {
            b'{' => self.object(depth),
            b'[' => self.array(depth),
            b'"' => self.string().map(Json::String),
            b't' => self.word(b"true", Json::Bool(true)),
            b'f' => self.word(b"false", Json::Bool(false)),
            b'n' => self.word(b"null", Json::Null),
            _ => self.number().map(Json::Number),
        }
    }

    fn object(&mut self, depth: usize) -> Option<Json> {
        let mut members = BTreeMap::new();
        self.take(b'{')?;
        if self.take(b'}').is_some() {
            return Some(Json::Object(members));
        }
        loop {
            self.space();
            let name = self.string()?;
            self.take(b':')?;
            members.insert(name, self.value(depth + 1)?);
            if self.take(b',').is_none() {
                self.take(b'}')?;
                return Some(Json::Object(members));
            }
        }
    }

    fn array(&mut self, depth: usize) -> Option<Json> {
        let mut elements = Vec::new();
        self.take(b'[')?;
        if self.take(b']').is_some() {
            return Some(Json::Array(elements));
        }
        loop {
            elements.push(self.value(depth + 1)?);
            if self.take(b',').is_none() {
                self.take(b']')?;
                return Some(Json::Array(elements));
            }
        }
    }

    fn string(&mut self) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        self.rest = self.rest.strip_prefix(b"\"")?;
        loop {
            match self.byte()? {
                b'"' => return Some(out),
                b'\\' => match self.byte()? {
                    b'b' => out.push(8),
                    b'f' => out.push(12),
                    b'n' => out.push(b'\n'),
                    b'r' => out.push(b'\r'),
                    b't' => out.push(b'\t'),
                    b'u' => {
                        let mut code = self.hex()?;
                        if (0xD800..0xDC00).contains(&code) {
                            let mut ahead = Parser { rest: self.rest };
                            if let Some(low) = ahead.low_surrogate() {
                                code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
                                self.rest = ahead.rest;
                            }
                        }
                        push_code_point(&mut out, code);
                    }
                    byte @ (b'"' | b'\\' | b'/') => out.push(byte),
                    _ => return None,
                },
                byte => out.push(byte),
            }
        }
    }

    fn low_surrogate(&mut self) -> Option<u32> {
        self.rest = self.rest.strip_prefix(b"\\u")?;
        self.hex().filter(|low| (0xDC00..0xE000).contains(low))
    }

    fn hex(&mut self) -> Option<u32> {
        let (digits, rest) = self.rest.split_at_checked(4)?;
        self.rest = rest;
        digits.iter().try_fold(0, |code, &digit| Some(code << 4 | char::from(digit).to_digit(16)?))
    }

    fn number(&mut self) -> Option<Decimal> {
        let negative = self.rest.first() == Some(&b'-');
        if negative {
            self.byte()?;
        }
        let whole = self.digits()?;
        let fraction = match self.rest.strip_prefix(b".") {
            Some(rest) => {
                self.rest = rest;
                self.digits()?
            }
            None => &[] as &[u8],
        };
        let mut exponent = 0;
        if let Some(b'e' | b'E') = self.rest.first() {
            self.byte()?;
            let below = match self.rest.first() {
                Some(b'-') => self.byte().map(|_| true)?,
                Some(b'+') => self.byte().map(|_| false)?,
                _ => false,
            };
            // Eighteen digits are more than any number that somebody stores; more would overflow.
            let size = self.digits().filter(|digits| digits.len() <= 18)?;
            exponent = size.iter().fold(0, |sum: i64, digit| sum * 10 + i64::from(digit - b'0'));
            if below {
                exponent = -exponent;
            }
        }
        let all = [whole, fraction].concat();
        let leading = all.iter().take_while(|&&digit| digit == b'0').count();
        let mut digits = all.get(leading..)?.to_vec();
        digits.truncate(digits.iter().rposition(|&digit| digit != b'0').map_or(0, |last| last + 1));
        if digits.is_empty() {
            return Some(Decimal { negative: false, digits, exponent: 0 });
        }
        Some(Decimal { negative, digits, exponent: exponent + whole.len() as i64 - leading as i64 })
    }

    /// One digit or more.
    fn digits(&mut self) -> Option<&'a [u8]> {
        let count = self.rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let (digits, rest) = self.rest.split_at_checked(count).filter(|_| count > 0)?;
        self.rest = rest;
        Some(digits)
    }

    fn word(&mut self, word: &[u8], value: Json) -> Option<Json> {
        self.rest = self.rest.strip_prefix(word)?;
        Some(value)
    }

    fn take(&mut self, byte: u8) -> Option<()> {
        self.space();
        self.rest = self.rest.strip_prefix(&[byte])?;
        Some(())
    }

    fn byte(&mut self) -> Option<u8> {
        let (&byte, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(byte)
    }

    fn space(&mut self) {
        self.rest = self.rest.trim_ascii_start();
    }
}

/// As UTF-8 would write it, surrogates too.
fn push_code_point(out: &mut Vec<u8>, code: u32) {
    match char::from_u32(code) {
        Some(character) => out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
        None => out.extend_from_slice(&[
            0xE0 | (code >> 12) as u8,
            0x80 | (code >> 6 & 0x3F) as u8,
            0x80 | (code & 0x3F) as u8,
        ]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn same(left: &str, right: &str) -> bool {
        equal(left.as_bytes(), right.as_bytes())
    }

    #[test]
    fn documents_that_mean_the_same_are_equal() {
        for (left, right) in [
            (r#"{"a": 1, "b": [1, 2]}"#, r#"{"b":[1,2],"a":1}"#),
            (r#"{"a": 1, "a": 2}"#, r#"{"a":2}"#),
            ("1.10", "1.1"),
            ("100", "1e2"),
            ("100", "1.00E+2"),
            ("0.001", "1e-3"),
            ("0.001", "0.1e-2"),
            ("-0.0", "0"),
            ("0e5", "0"),
            ("100000000000000000000", "1e20"),
            (r#""\u00e9\ud83d\ude00\n\/""#, "\"é😀\\n/\""),
            (r#""\ud800x""#, r#""\uD800x""#),
            (r#""\ud800\u0041""#, r#""\ud800A""#),
            (r#" [ ] "#, "[]"),
            (r#"{ }"#, "{}"),
            ("[null,true,false]", "[ null , true , false ]"),
        ] {
            assert!(same(left, right), "{left} {right}");
        }
    }

    #[test]
    fn documents_that_differ_are_different() {
        for (left, right) in [
            ("123456789012345678901234567890", "1.2345678901234568e+29"),
            ("9007199254740993", "9007199254740992"),
            ("1", "1.0000000000000000000000001"),
            ("1", "-1"),
            ("1", "10"),
            ("1", r#""1""#),
            ("0", "null"),
            ("0", "false"),
            ("[]", "{}"),
            ("[1,2]", "[2,1]"),
            ("[1]", "[1,1]"),
            (r#"{"a":1}"#, r#"{"a":1,"b":null}"#),
            (r#"{"a":""}"#, r#"{"a":null}"#),
            (r#""\ud800""#, r#""\ud801""#),
            // Not JSON on one side.
            ("{}", ""),
            ("{}", "{} {}"),
            ("1", "Infinity"),
            ("[1]", "[1,]"),
            ("1", "1."),
            ("1", "+1"),
            (r#""a""#, r#""\x61""#),
        ] {
            assert!(!same(left, right), "{left} {right}");
        }
    }

    #[test]
    fn depth_is_bounded() {
        let nested = |depth: usize, space: &str| format!("{}{space}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(same(&nested(200, ""), &nested(200, " ")));
        assert!(!same(&nested(1_000_000, ""), &nested(1_000_000, " ")), "too deep to look into");
        assert!(same(&nested(1_000_000, ""), &nested(1_000_000, "")), "but the same bytes are the same");
    }

    fn any_json() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<i64>().prop_map(Into::into),
            any::<f64>().prop_filter("finite", |f| f.is_finite()).prop_map(Into::into),
            any::<String>().prop_map(Into::into),
        ];
        leaf.prop_recursive(4, 32, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Into::into),
                prop::collection::btree_map(any::<String>(), inner, 0..6)
                    .prop_map(|members| serde_json::Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn writing_does_not_matter(value in any_json()) {
            let (dense, pretty) = (value.to_string(), serde_json::to_string_pretty(&value).expect("a value is JSON"));
            prop_assert!(parse(dense.as_bytes()).is_some());
            prop_assert!(same(&dense, &pretty));
        }

        #[test]
        fn other_values_are_different(left in any_json(), right in any_json()) {
            let (one, other) = (left.to_string(), right.to_string());
            // To serde_json 1.0 and 1, 0.0 and -0.0 are different values; here they are the same numbers.
            prop_assume!(left != right && !one.contains(".0") && !other.contains(".0"));
            prop_assert!(!same(&one, &other));
        }

        #[test]
        fn no_input_panics(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            drop(parse(&bytes));
        }
    }
}
