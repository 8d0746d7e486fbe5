//! PostgreSQL's text form of an array, taken apart.
//!
//! In: what the output function of an array type prints (`{1,NULL,"a b"}`, `[0:1]={1,2}`). Out: its elements as
//! their own output functions print them.
//!
//! Holds: only one-dimensional arrays are taken apart; the lower bound does not count. Anything else is `None`,
//! never a panic.
//!
//! See: PostgreSQL manual, "Array Input and Output Syntax".

use std::borrow::Cow;

/// The elements in order, `None` for NULL. `None` as a whole: not a one-dimensional array.
pub fn elements(text: &str) -> Option<Vec<Option<Cow<'_, str>>>> {
    let body = match text.strip_prefix('[') {
        Some(bounds) => {
            let (bounds, body) = bounds.split_once("]=")?;
            bounds.split_once(':').filter(|_| !bounds.contains('['))?;
            body
        }
        None => text,
    };
    let mut rest = body.strip_prefix('{')?;
    let mut elements = Vec::new();
    if rest == "}" {
        return Some(elements);
    }
    loop {
        let (element, after) = match rest.strip_prefix('"') {
            Some(quoted) => quoted_element(quoted)?,
            None => bare_element(rest)?,
        };
        elements.push(element);
        match after.strip_prefix(',') {
            Some(more) => rest = more,
            None => return (after == "}").then_some(elements),
        }
    }
}

type Element<'a> = (Option<Cow<'a, str>>, &'a str);

fn bare_element(text: &str) -> Option<Element<'_>> {
    let end = text.find([',', '}', '{', '"', '\\'])?;
    let (element, rest) = text.split_at_checked(end)?;
    match element {
        "" => None,
        // The output function quotes a string that reads NULL.
        "NULL" => Some((None, rest)),
        _ => Some((Some(Cow::Borrowed(element)), rest)),
    }
}

/// `text` begins after the opening quote.
fn quoted_element(text: &str) -> Option<Element<'_>> {
    let end = text.find(['"', '\\'])?;
    let (plain, rest) = text.split_at_checked(end)?;
    if let Some(rest) = rest.strip_prefix('"') {
        return Some((Some(Cow::Borrowed(plain)), rest));
    }
    let mut element = plain.to_owned();
    let mut characters = rest.chars();
    loop {
        match characters.next()? {
            '"' => return Some((Some(Cow::Owned(element)), characters.as_str())),
            '\\' => element.push(characters.next()?),
            character => element.push(character),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn texts(text: &str) -> Option<Vec<Option<String>>> {
        Some(elements(text)?.into_iter().map(|element| element.map(Cow::into_owned)).collect())
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
            drop(elements(&text));
        }
    }
}
