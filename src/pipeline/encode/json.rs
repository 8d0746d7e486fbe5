//! Documents: json and jsonb as they are, hstore and arrays as JSON.
//!
//! Holds: no number is rounded: digits go from PostgreSQL's text into the document. What JSON has no number for (NaN,
//! infinity) becomes its text.

use bytes::Bytes;

use crate::change::{Row, Value};
use crate::plan::SourceType;
use crate::plan::types::{JSON_MAX, Read};
use crate::postgres::array::{self, Node};
use crate::postgres::decode::{self, DecodeError};

use super::field::Misfit;

/// The document of a value, as long as Milvus takes it and with an object or an array at its top. `bytes`: those of the value.
pub(super) fn document(source: &SourceType, value: &Value, bytes: &Bytes) -> Result<Bytes, Misfit> {
    let is_binary = matches!(value, Value::Binary(_));
    let document = match source {
        SourceType::Array { element, delimiter } => {
            let tree = if is_binary { array::binary_tree(bytes)? } else { array::text_tree(bytes, *delimiter)? };
            let mut out = Vec::with_capacity(bytes.len() + 16);
            nodes(element, &tree, is_binary, &mut out)?;
            out.into()
        }
        _ if is_hstore(source) => {
            let mut out = Vec::with_capacity(bytes.len() + 16);
            hstore(bytes, is_binary, &mut out)?;
            out.into()
        }
        _ => {
            let is_versioned = is_binary && matches!(source.entry().read, Read::Versioned);
            let text = if is_versioned { decode::versioned(bytes)? } else { bytes };
            // PostgreSQL has checked the rest.
            match text.iter().find(|byte| !byte.is_ascii_whitespace()) {
                Some(b'{' | b'[') => bytes.slice_ref(text),
                _ => return Err(Misfit::JsonScalar),
            }
        }
    };
    if document.len() > JSON_MAX { Err(Misfit::TooLong(document.len(), JSON_MAX)) } else { Ok(document) }
}

/// The object of these members (name, index of the value, type). One that is NULL is `null`, not absent: Milvus Lite keeps members of
/// before that an upsert does not bring.
pub(super) fn members(members: &[(String, usize, SourceType)], row: &Row) -> Result<Bytes, Misfit> {
    let mut out = vec![b'{'];
    for (name, at, source) in members {
        let value = row.0.get(*at).expect("a row has a value for each column of the plan");
        if out.len() > 1 {
            out.push(b',');
        }
        string(name, &mut out);
        out.push(b':');
        let (bytes, is_binary) = match value {
            Value::Null => {
                out.extend_from_slice(b"null");
                continue;
            }
            Value::UnchangedToast => return Err(DecodeError::UnchangedToast.into()),
            Value::Binary(bytes) => (bytes, true),
            Value::Text(text) => (text, false),
        };
        match source {
            SourceType::Array { element, delimiter } => {
                let tree = if is_binary { array::binary_tree(bytes)? } else { array::text_tree(bytes, *delimiter)? };
                nodes(element, &tree, is_binary, &mut out)?;
            }
            _ if is_hstore(source) => hstore(bytes, is_binary, &mut out)?,
            _ => scalar(source, &source.text(value)?.unwrap_or_default(), &mut out)?,
        }
    }
    out.push(b'}');
    if out.len() > JSON_MAX { Err(Misfit::TooLong(out.len(), JSON_MAX)) } else { Ok(out.into()) }
}

fn nodes(element: &SourceType, node: &Node<'_>, is_binary: bool, out: &mut Vec<u8>) -> Result<(), Misfit> {
    match node {
        Node::Null => out.extend_from_slice(b"null"),
        Node::List(list) => {
            out.push(b'[');
            for (i, node) in list.iter().enumerate() {
                if i > 0 {
                    out.push(b',');
                }
                nodes(element, node, is_binary, out)?;
            }
            out.push(b']');
        }
        Node::Value(bytes) if is_hstore(element) => hstore(bytes, is_binary, out)?,
        Node::Value(bytes) => {
            let value = Bytes::copy_from_slice(bytes);
            let value = if is_binary { Value::Binary(value) } else { Value::Text(value) };
            let text = element.text(&value)?.unwrap_or_default();
            scalar(element, &text, out)?;
        }
    }
    Ok(())
}

fn is_hstore(source: &SourceType) -> bool {
    source.entry().extension == Some("hstore")
}

/// An element by its text: what reads as JSON stands as it is, anything else is a string.
fn scalar(element: &SourceType, text: &[u8], out: &mut Vec<u8>) -> Result<(), Misfit> {
    let text = std::str::from_utf8(text).map_err(|_| Misfit::NotUtf8)?;
    let is_number = || text.bytes().any(|byte| byte.is_ascii_digit());
    let is_json = match element.entry().read {
        Read::Bool => {
            out.extend_from_slice(if text == "t" { b"true" } else { b"false" });
            return Ok(());
        }
        Read::Int(_) | Read::Json | Read::Vector | Read::HalfVec => true,
        Read::Float4 | Read::Float8 => is_number(),
        Read::Versioned => *element == SourceType::named("jsonb"),
        Read::Printed(_) => *element == SourceType::named("numeric") && is_number(),
        Read::Verbatim | Read::SparseVec | Read::Array | Read::Nested => false,
    };
    if is_json {
        out.extend_from_slice(text.as_bytes());
    } else {
        string(text, out);
    }
    Ok(())
}

fn hstore(bytes: &[u8], is_binary: bool, out: &mut Vec<u8>) -> Result<(), Misfit> {
    let pairs = if is_binary { decode::hstore(bytes)? } else { decode::hstore_text(bytes)? };
    let utf8 = |bytes| std::str::from_utf8(bytes).map_err(|_| Misfit::NotUtf8);
    out.push(b'{');
    for (i, (name, value)) in pairs.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        string(utf8(name)?, out);
        out.push(b':');
        match value {
            Some(value) => string(utf8(value)?, out),
            None => out.extend_from_slice(b"null"),
        }
    }
    out.push(b'}');
    Ok(())
}

fn string(text: &str, out: &mut Vec<u8>) {
    serde_json::to_writer(out, text).expect("a Vec takes every write, and a text is a JSON string");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrays_and_pairs_become_documents() {
        let of = |element: SourceType, text: &'static str| {
            let source = SourceType::Array { element: Box::new(element), delimiter: b',' };
            let bytes = Bytes::from_static(text.as_bytes());
            let document = document(&source, &Value::Text(bytes.clone()), &bytes).expect(text);
            serde_json::from_slice::<serde_json::Value>(&document).expect("JSON");
            String::from_utf8(document.into()).expect("UTF-8")
        };
        assert_eq!(of(SourceType::named("int4"), "[0:1]={1,NULL}"), "[1,null]");
        assert_eq!(of(SourceType::named("bool"), "{{t,f},{NULL,t}}"), "[[true,false],[null,true]]");
        assert_eq!(of(SourceType::named("numeric"), "{1.10,NaN,-Infinity}"), r#"[1.10,"NaN","-Infinity"]"#);
        assert_eq!(of(SourceType::named("float8"), "{1e-05,NaN,-0}"), r#"[1e-05,"NaN",-0]"#);
        assert_eq!(of(SourceType::named("text"), r#"{"a \"b","NULL",é}"#), r#"["a \"b","NULL","é"]"#);
        assert_eq!(of(SourceType::named("jsonb"), r#"{"{\"a\": 1}","null"}"#), r#"[{"a": 1},null]"#);
        assert_eq!(of(SourceType::Vector { dim: 2 }, r#"{"[1,2]","[3,4]"}"#), "[[1,2],[3,4]]");
        assert_eq!(of(SourceType::named("int4"), "{}"), "[]");
        let mut pairs = Vec::new();
        hstore(br#""a"=>"1\\", "b"=>NULL"#, false, &mut pairs).expect("pairs");
        assert_eq!(pairs, br#"{"a":"1\\","b":null}"#);
    }
}
