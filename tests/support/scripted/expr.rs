//! The part of Milvus's filter language that a replicator and its tests use.
//!
//! `field in [..]`, `field in {name}`, comparisons with a literal or a `{name}`, `and`, `or`, parentheses; the empty filter is all.
//! Literals are integers and texts in single or double quotes with C escapes; `-9223372036854775808` is read as Milvus does,
//! as an operator on a number that does not fit, and refused.

use std::collections::HashMap;

use super::store::Key;

#[derive(Clone, Debug, PartialEq)]
pub enum Expr {
    All,
    In(String, Vec<Key>),
    Compare(String, Op, Key),
    And(Box<Expr>, Box<Expr>),
    Or(Box<Expr>, Box<Expr>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    Equal,
    NotEqual,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
}

/// Values of a template.
pub type Params = HashMap<String, Vec<Key>>;

impl Expr {
    /// What the text means, or Milvus's complaint about it.
    pub fn parse(text: &str, params: &Params) -> Result<Expr, String> {
        if text.trim().is_empty() {
            return Ok(Expr::All);
        }
        let mut parser = Parser { rest: text, params };
        let expr = parser.or()?;
        parser.skip();
        if parser.rest.is_empty() { Ok(expr) } else { Err(format!("cannot parse expression: {text}")) }
    }

    /// Only keys of `primary`, which Milvus deletes without reading first.
    pub fn is_simple(&self, primary: &str) -> bool {
        matches!(self, Expr::In(field, _) | Expr::Compare(field, Op::Equal, _) if field == primary)
    }

    pub fn matches(&self, value: &dyn Fn(&str) -> Option<Key>) -> bool {
        match self {
            Expr::All => true,
            Expr::In(field, keys) => value(field).is_some_and(|found| keys.contains(&found)),
            Expr::Compare(field, op, key) => value(field).is_some_and(|found| match op {
                Op::Equal => found == *key,
                Op::NotEqual => found != *key,
                Op::Less => found < *key,
                Op::LessEqual => found <= *key,
                Op::Greater => found > *key,
                Op::GreaterEqual => found >= *key,
            }),
            Expr::And(a, b) => a.matches(value) && b.matches(value),
            Expr::Or(a, b) => a.matches(value) || b.matches(value),
        }
    }
}

struct Parser<'a> {
    rest: &'a str,
    params: &'a Params,
}

impl Parser<'_> {
    fn skip(&mut self) {
        self.rest = self.rest.trim_start();
    }

    fn take(&mut self, token: &str) -> bool {
        self.skip();
        match self.rest.strip_prefix(token) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn word(&mut self, word: &str) -> bool {
        self.skip();
        let Some(rest) = self.rest.strip_prefix(word) else { return false };
        if rest.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_') {
            return false;
        }
        self.rest = rest;
        true
    }

    fn complaint<T>(&self) -> Result<T, String> {
        Err(format!("cannot parse expression near: {}", self.rest.chars().take(20).collect::<String>()))
    }

    fn or(&mut self) -> Result<Expr, String> {
        let mut left = self.and()?;
        while self.word("or") || self.take("||") {
            left = Expr::Or(Box::new(left), Box::new(self.and()?));
        }
        Ok(left)
    }

    fn and(&mut self) -> Result<Expr, String> {
        let mut left = self.term()?;
        while self.word("and") || self.take("&&") {
            left = Expr::And(Box::new(left), Box::new(self.term()?));
        }
        Ok(left)
    }

    fn term(&mut self) -> Result<Expr, String> {
        if self.take("(") {
            let inner = self.or()?;
            return if self.take(")") { Ok(inner) } else { self.complaint() };
        }
        let field = self.name()?;
        if self.word("in") {
            return Ok(Expr::In(field, self.list()?));
        }
        let operators = [
            ("==", Op::Equal),
            ("!=", Op::NotEqual),
            ("<=", Op::LessEqual),
            (">=", Op::GreaterEqual),
            ("<", Op::Less),
            (">", Op::Greater),
        ];
        let Some(op) = operators.into_iter().find_map(|(token, op)| self.take(token).then_some(op)) else {
            return self.complaint();
        };
        self.skip();
        if self.rest.starts_with('{') {
            let mut values = self.template()?;
            return match (values.pop(), values.is_empty()) {
                (Some(value), true) => Ok(Expr::Compare(field, op, value)),
                _ => self.complaint(),
            };
        }
        Ok(Expr::Compare(field, op, self.literal()?))
    }

    fn name(&mut self) -> Result<String, String> {
        self.skip();
        let end =
            self.rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '$')).unwrap_or(self.rest.len());
        if end == 0 || self.rest.starts_with(|c: char| c.is_ascii_digit()) {
            return self.complaint();
        }
        let (name, rest) = self.rest.split_at(end);
        self.rest = rest;
        Ok(name.to_owned())
    }

    fn template(&mut self) -> Result<Vec<Key>, String> {
        if !self.take("{") {
            return self.complaint();
        }
        let name = self.name()?;
        if !self.take("}") {
            return self.complaint();
        }
        self.params
            .get(&name)
            .cloned()
            .ok_or_else(|| format!("the value of expression template variable name {{{name}}} is not found"))
    }

    fn list(&mut self) -> Result<Vec<Key>, String> {
        self.skip();
        if self.rest.starts_with('{') {
            return self.template();
        }
        if !self.take("[") {
            return self.complaint();
        }
        let mut keys = Vec::new();
        if self.take("]") {
            return Ok(keys);
        }
        loop {
            keys.push(self.literal()?);
            if self.take("]") {
                return Ok(keys);
            }
            if !self.take(",") {
                return self.complaint();
            }
        }
    }

    fn literal(&mut self) -> Result<Key, String> {
        self.skip();
        if let Some(quote) = self.rest.chars().next().filter(|c| matches!(c, '"' | '\'')) {
            return self.text(quote);
        }
        let digits = self.rest.strip_prefix('-').unwrap_or(self.rest);
        let negative = digits.len() < self.rest.len();
        let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
        let Ok(number) = digits[..end].parse::<i64>() else { return self.complaint() };
        self.rest = &digits[end..];
        Ok(Key::Int(if negative { -number } else { number }))
    }

    fn text(&mut self, quote: char) -> Result<Key, String> {
        let mut text = String::new();
        let mut chars = self.rest.char_indices().skip(1);
        while let Some((at, char)) = chars.next() {
            match char {
                '\\' => text.push(match chars.next().map(|(_, c)| c) {
                    Some('n') => '\n',
                    Some('r') => '\r',
                    Some('t') => '\t',
                    Some(c @ ('"' | '\'' | '\\')) => c,
                    _ => return self.complaint(),
                }),
                // A raw line break ends Milvus's token.
                '\n' | '\r' => return self.complaint(),
                c if c == quote => {
                    self.rest = &self.rest[at + c.len_utf8()..];
                    return Ok(Key::Text(text));
                }
                c => text.push(c),
            }
        }
        self.complaint()
    }
}

#[test]
fn filters_mean_what_they_mean_to_milvus() {
    let parse = |text: &str| Expr::parse(text, &Params::from([("k".into(), vec![Key::Text("a".into())])]));
    let int = |values: &[i64]| values.iter().copied().map(Key::Int).collect::<Vec<_>>();
    assert_eq!(parse(" "), Ok(Expr::All));
    assert_eq!(parse("id in [1,-2, 9223372036854775807]"), Ok(Expr::In("id".into(), int(&[1, -2, i64::MAX]))));
    assert_eq!(parse("id in []"), Ok(Expr::In("id".into(), vec![])));
    assert_eq!(parse("id in {k}"), Ok(Expr::In("id".into(), vec![Key::Text("a".into())])));
    assert_eq!(parse(r#"id > "a\"\\\n'""#), Ok(Expr::Compare("id".into(), Op::Greater, Key::Text("a\"\\\n'".into()))));
    let both = parse("id in [5] or id < -9223372036854775807").expect("an expression");
    let is = |key: i64| both.matches(&|name| (name == "id").then_some(Key::Int(key)));
    assert!(is(5) && is(i64::MIN) && !is(6) && !both.is_simple("id"));
    assert!(parse("id in [5]").expect("simple").is_simple("id"));
    for wrong in
        ["id in [-9223372036854775808]", "id", "id in [1", "id in {other}", "id = 1", "id > \"a\nb\"", "1 > id"]
    {
        assert!(parse(wrong).is_err(), "{wrong}");
    }
}
