//! Boolean expressions over primary keys, as every server parses them.
//!
//! Holds: an expression selects exactly the keys given, whatever characters or numbers they are made of.
//!
//! Milvus has expression templates from 2.5 on, Milvus Lite and older servers do not: keys are written as literals.
//! A text literal is double-quoted; only `\`, `"`, newline, carriage return and tab are escaped and all else stays raw,
//! because Milvus Lite refuses escapes that it does not know (`\u0001`, `\b`).
//! -2^63 cannot be written: servers read the minus as an operator on 2^63, which does not fit (Milvus 2.3.5, code 65535).

use super::{Key, Keys};

/// `field in [...]`, the form that Milvus deletes by without a query first. With -2^63 among the keys a second term stands for it.
pub fn among(field: &str, keys: &Keys) -> String {
    let mut filter = String::with_capacity(16 + field.len() + keys.len() * 24);
    match keys {
        Keys::Int64(keys) => {
            let has_min = keys.contains(&i64::MIN);
            let others = keys.iter().filter(|&&key| key != i64::MIN);
            let mut writable = others.peekable();
            if writable.peek().is_some() || !has_min {
                list(&mut filter, field, writable, |out, key| out.push_str(&key.to_string()));
            }
            if has_min {
                if !filter.is_empty() {
                    filter.push_str(" or ");
                }
                filter.push_str(&format!("{field} < {}", i64::MIN + 1));
            }
        }
        Keys::VarChar(keys) => list(&mut filter, field, keys.iter(), |out, key| quote(out, key)),
    }
    filter
}

/// `field > key`.
pub fn after(field: &str, key: &Key) -> String {
    match key {
        Key::Int64(i64::MIN) => format!("{field} >= {}", i64::MIN + 1),
        Key::Int64(key) => format!("{field} > {key}"),
        Key::VarChar(key) => {
            let mut filter = format!("{field} > ");
            quote(&mut filter, key);
            filter
        }
    }
}

fn list<T>(out: &mut String, field: &str, keys: impl Iterator<Item = T>, write: impl Fn(&mut String, T)) {
    out.push_str(field);
    out.push_str(" in [");
    for (i, key) in keys.enumerate() {
        if i > 0 {
            out.push(',');
        }
        write(out, key);
    }
    out.push(']');
}

fn quote(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c => out.push(c),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integer_keys_are_written_so_that_every_server_reads_them() {
        let among = |keys: &[i64]| among("id", &Keys::Int64(keys.to_vec()));
        assert_eq!(among(&[1, -2, i64::MAX]), "id in [1,-2,9223372036854775807]");
        assert_eq!(among(&[i64::MIN]), "id < -9223372036854775807");
        assert_eq!(among(&[5, i64::MIN]), "id in [5] or id < -9223372036854775807");
        assert_eq!(among(&[]), "id in []");
        assert_eq!(after("id", &Key::Int64(7)), "id > 7");
        assert_eq!(after("id", &Key::Int64(i64::MIN)), "id >= -9223372036854775807");
    }

    #[test]
    fn text_keys_escape_five_characters_and_nothing_else() {
        let cases = [
            ("plain", r#""plain""#),
            ("", r#""""#),
            (r#"say "hi""#, r#""say \"hi\"""#),
            (r"a\b", r#""a\\b""#),
            ("a\nb\rc\td", r#""a\nb\rc\td""#),
            ("\u{1}\u{8}\u{c}\u{7f}", "\"\u{1}\u{8}\u{c}\u{7f}\""),
            ("日本\u{2028}🦀'%{x}", "\"日本\u{2028}🦀'%{x}\""),
        ];
        for (text, literal) in cases {
            assert_eq!(after("pk", &Key::VarChar(text.into())), format!("pk > {literal}"));
            assert_eq!(among("pk", &Keys::VarChar(vec![text.into()])), format!("pk in [{literal}]"));
        }
    }
}
