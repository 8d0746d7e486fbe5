//! Names: what Milvus accepts, and SQL identifiers for the statements that we suggest.

/// Longest name of a collection or field, in bytes.
const NAME_MAX: usize = 255;

/// The rule, for a sentence.
pub const RULE: &str = "letters, digits and underscores, not a digit first, at most 255";

/// Words of Milvus's filter language, in either case.
const RESERVED: &[&str] = &[
    "like",
    "exists",
    "and",
    "or",
    "not",
    "in",
    "is",
    "null",
    "true",
    "false",
    "json_contains",
    "json_contains_all",
    "json_contains_any",
    "array_contains",
    "array_contains_all",
    "array_contains_any",
    "array_length",
    "text_match",
    "phrase_match",
    "random_sample",
];

pub fn is_valid(name: &str) -> bool {
    (1..=NAME_MAX).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        && !name.starts_with(|c: char| c.is_ascii_digit())
}

/// A word of the filter language or a field that Milvus keeps for itself; those two are spelled just so, which leaves
/// `timestamp` to the user.
pub fn is_reserved(name: &str) -> bool {
    match name {
        "RowID" | "Timestamp" => true,
        _ => RESERVED.iter().any(|word| word.eq_ignore_ascii_case(name)),
    }
}

/// The nearest valid name: `_` for every character that is not allowed and before a leading digit, cut at 255.
/// Different names may meet in one; the plan refuses that.
pub fn sanitise(name: &str) -> String {
    let mut valid: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    if valid.is_empty() || valid.starts_with(|c: char| c.is_ascii_digit()) {
        valid.insert(0, '_');
    }
    valid.truncate(NAME_MAX);
    valid
}

/// The field of a column: its name made valid, with a `_` behind one that Milvus keeps.
pub fn field(column: &str) -> String {
    let mut name = sanitise(column);
    if is_reserved(&name) {
        name.push('_');
    }
    name
}

/// PostgreSQL's reserved key words: as names they need quotes.
const SQL_RESERVED: &str = " all analyse analyze and any array as asc asymmetric authorization binary both case cast \
    check collate collation column concurrently constraint create cross current_catalog current_date current_role \
    current_schema current_time current_timestamp current_user default deferrable desc distinct do else end except \
    false fetch for foreign freeze from full grant group having ilike in initially inner intersect into is isnull join \
    lateral leading left like limit localtime localtimestamp natural not notnull null offset on only or order outer \
    overlaps placing primary references returning right select session_user similar some symmetric system_user table \
    tablesample then to trailing true union unique user using variadic verbose when where window with ";

/// As `quote_ident` writes it.
pub fn identifier(name: &str) -> String {
    let plain = name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
        && !SQL_RESERVED.contains(&format!(" {name} "));
    if plain { name.to_owned() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
}

pub fn qualified(schema: &str, name: &str) -> String {
    format!("{}.{}", identifier(schema), identifier(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_become_what_milvus_takes() {
        for (name, expected) in [
            ("title", "title"),
            ("Größe in cm", "Gr__e_in_cm"),
            ("2nd", "_2nd"),
            ("", "_"),
            ("timestamp", "timestamp"),
            ("Timestamp", "Timestamp_"),
            ("like", "like_"),
            ("IN", "IN_"),
        ] {
            assert_eq!(field(name), expected);
        }
    }

    #[test]
    fn identifiers_are_quoted_where_postgres_needs_it() {
        assert_eq!(qualified("public", "docs"), "public.docs");
        assert_eq!(qualified("Mine", "a\"b"), "\"Mine\".\"a\"\"b\"");
        assert_eq!(identifier("user"), "\"user\"");
        assert_eq!(identifier("1a"), "\"1a\"");
    }

    proptest! {
        #[test]
        fn every_name_has_a_valid_one(name in "\\PC{0,300}") {
            prop_assert!(is_valid(&sanitise(&name)));
        }
    }
}
