//! PostgreSQL's text form of an array or an hstore, taken apart.
//!
//! In: what the output function of an array type prints (`{1,NULL,"a b"}`, `[0:1]={1,2}`). Out: its elements as
//! their own output functions print them, flat or as a tree.
//!
//! Holds: the lower bound does not count. What is no such text is `None`, never a panic.
//!
//! See: PostgreSQL manual, "Array Input and Output Syntax".

use std::borrow::Cow;
use std::collections::BTreeMap;

/// An array of any shape, or an element of it.
#[derive(Debug, PartialEq)]
pub enum Tree<'a> {
    Null,
    Value(Cow<'a, str>),
    List(Vec<Tree<'a>>),
}

/// PostgreSQL's most dimensions.
const DEPTH_MAX: usize = 6;

/// The elements of a one-dimensional array in order, `None` for NULL. `None` as a whole: not a one-dimensional array.
pub fn elements(text: &str, delimiter: char) -> Option<Vec<Option<Cow<'_, str>>>> {
    let Tree::List(nodes) = tree(text, delimiter)? else { return None };
    let element = |node| match node {
        Tree::Null => Some(None),
        Tree::Value(text) => Some(Some(text)),
        Tree::List(_) => None,
    };
    nodes.into_iter().map(element).collect()
}

/// The whole of an array.
pub fn tree(text: &str, delimiter: char) -> Option<Tree<'_>> {
    let body = match text.strip_prefix('[') {
        Some(_) => {
            let (bounds, body) = text.split_once('=')?;
            let is_bound = |bound: &str| bound.strip_suffix(']').is_some_and(|bound| bound.contains(':'));
            bounds.split('[').skip(1).all(is_bound).then_some(body)?
        }
        None => text,
    };
    let (tree, rest) = list(body.strip_prefix('{')?, delimiter, 1)?;
    rest.is_empty().then_some(tree)
}

/// `text` begins after the opening brace; what follows the closing one is left.
fn list(text: &str, delimiter: char, depth: usize) -> Option<(Tree<'_>, &str)> {
    let mut nodes = Vec::new();
    if depth > DEPTH_MAX {
        return None;
    }
    if let Some(rest) = text.strip_prefix('}') {
        return Some((Tree::List(nodes), rest));
    }
    let mut rest = text;
    loop {
        let (node, after) = match (rest.strip_prefix('"'), rest.strip_prefix('{')) {
            (Some(quoted), _) => quoted_text(quoted).map(|(text, rest)| (Tree::Value(text), rest))?,
            (_, Some(inner)) => list(inner, delimiter, depth + 1)?,
            (None, None) => bare_element(rest, delimiter)?,
        };
        nodes.push(node);
        if let Some(rest) = after.strip_prefix('}') {
            return Some((Tree::List(nodes), rest));
        }
        rest = after.strip_prefix(delimiter)?;
    }
}

fn bare_element(text: &str, delimiter: char) -> Option<(Tree<'_>, &str)> {
    let end = text.find([delimiter, '}', '{', '"', '\\'])?;
    let (element, rest) = text.split_at_checked(end)?;
    match element {
        "" => None,
        // The output function quotes a string that reads NULL.
        "NULL" => Some((Tree::Null, rest)),
        _ => Some((Tree::Value(Cow::Borrowed(element)), rest)),
    }
}

/// `text` begins after the opening quote.
fn quoted_text(text: &str) -> Option<(Cow<'_, str>, &str)> {
    let end = text.find(['"', '\\'])?;
    let (plain, rest) = text.split_at_checked(end)?;
    if let Some(rest) = rest.strip_prefix('"') {
        return Some((Cow::Borrowed(plain), rest));
    }
    let mut element = plain.to_owned();
    let mut characters = rest.chars();
    loop {
        match characters.next()? {
            '"' => return Some((Cow::Owned(element), characters.as_str())),
            '\\' => element.push(characters.next()?),
            character => element.push(character),
        }
    }
}

/// The pairs of an hstore: `"a"=>"1", "b"=>NULL`.
pub fn pairs(text: &str) -> Option<BTreeMap<Cow<'_, str>, Option<Cow<'_, str>>>> {
    let mut pairs = BTreeMap::new();
    let mut rest = text;
    while !rest.is_empty() {
        let (name, after) = quoted_text(rest.strip_prefix('"')?)?;
        let after = after.strip_prefix("=>")?;
        let (value, after) = match after.strip_prefix("NULL") {
            Some(after) => (None, after),
            None => quoted_text(after.strip_prefix('"')?).map(|(value, after)| (Some(value), after))?,
        };
        pairs.insert(name, value);
        rest = if after.is_empty() { after } else { after.strip_prefix(", ").filter(|rest| !rest.is_empty())? };
    }
    Some(pairs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn texts(text: &str) -> Option<Vec<Option<String>>> {
        Some(elements(text, ',')?.into_iter().map(|element| element.map(Cow::into_owned)).collect())
    }

    #[test]
    fn arrays_are_taken_apart_as_postgres_writes_them() {
        let some = |s: &str| Some(s.to_owned());
        for (text, expected) in [
            ("{}", vec![]),
            ("{1}", vec![some("1")]),
            ("{1,NULL,3}", vec![some("1"), None, some("3")]),
            (r#"{"NULL","",null}"#, vec![some("NULL"), some(""), some("null")]),
            (r#"{"a b","c,d","{}","\"","\\",é}"#, ["a b", "c,d", "{}", "\"", "\\", "é"].map(some).to_vec()),
            ("[0:1]={1,2}", vec![some("1"), some("2")]),
            ("[-3:-2]={t,f}", vec![some("t"), some("f")]),
            ("{-0,NaN,-Infinity,1e-05}", ["-0", "NaN", "-Infinity", "1e-05"].map(some).to_vec()),
        ] {
            assert_eq!(texts(text), Some(expected), "{text}");
        }
    }

    #[test]
    fn everything_else_is_refused() {
        for text in [
            "",
            "1",
            "{",
            "{1",
            "{1,",
            "{1,}",
            "{,1}",
            "{{1},{2}}",
            "[1:1][1:2]={{1,2}}",
            r#"{"a}"#,
            r#"{"a\"#,
            "{1}x",
            "[1]={1}",
            "[1:2]",
        ] {
            assert_eq!(texts(text), None, "{text}");
        }
    }

    #[test]
    fn every_shape_is_a_tree() {
        let value = |text| Tree::Value(Cow::Borrowed(text));
        let nested =
            Tree::List(vec![Tree::List(vec![value("1"), Tree::Null]), Tree::List(vec![value("a b"), value("")])]);
        assert_eq!(tree(r#"[0:1][1:2]={{1,NULL},{"a b",""}}"#, ','), Some(nested));
        assert_eq!(elements("{(1,1),(0,0);(2,2),(1,1)}", ';').map(|boxes| boxes.len()), Some(2));
        let expected = BTreeMap::from([("a".into(), Some("1\"".into())), ("b".into(), None)]);
        assert_eq!(pairs(r#""a"=>"1\"", "b"=>NULL"#), Some(expected));
        assert_eq!(pairs(r#""a"=>"#), None);
    }

    /// As array_out quotes.
    fn written(elements: &[Option<String>]) -> String {
        let element = |element: &Option<String>| match element {
            None => "NULL".to_owned(),
            Some(text) => format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")),
        };
        format!("{{{}}}", elements.iter().map(element).collect::<Vec<_>>().join(","))
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(elements in prop::collection::vec(any::<Option<String>>(), 0..8)) {
            prop_assert_eq!(texts(&written(&elements)), Some(elements));
        }

        #[test]
        fn no_text_panics(text in any::<String>()) {
            drop((elements(&text, ','), tree(&text, ';'), pairs(&text)));
        }
    }
}
