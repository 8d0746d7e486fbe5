//! The one table of types: what a PostgreSQL type becomes in Milvus, and how its values are read.
//!
//! In: a type of the catalog. Out: its `SourceType`, and through `TypeEntry` everything that depends on it: target types,
//! decoder, longest text, use as a key, limits, and the reason shown by `walvec plan`. `docs/types.md` is made from it. A
//! new type is a line in `table`, and if need be a decoder in `postgres::decode`.
//!
//! Holds: the text of a value is the same whether it came as binary or as text (`tests/it/types.rs` asks a server). No type
//! is unknown: what has no line here is printed by PostgreSQL itself.
//!
//! Not here: lengths and dimensions that the user sets (`build`), columns (`pipeline::encode`).

#[cfg(test)]
mod docs;
mod table;

use bytes::Bytes;

use crate::change::Value;
use crate::milvus::DataType;
use crate::postgres::catalog::{PgType, TypeKind};
use crate::postgres::decode::{self, DecodeError};
use crate::postgres::{array, pgvector};

/// How a column's bytes are read: the PostgreSQL type, with domains resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceType {
    /// A line of the table, and nothing else to know.
    Base(&'static TypeEntry),
    /// pgvector's `vector`; 0 stands for "not declared" until the settings have been asked.
    Vector {
        dim: u32,
    },
    /// The same of `halfvec`.
    HalfVec {
        dim: u32,
    },
    /// `sparsevec`; its dimension is a bound only, Milvus declares none.
    SparseVec,
    /// `bit(n)`.
    Bit {
        length: u32,
    },
    Enum,
    Array {
        element: Box<SourceType>,
        /// What stands between two elements in its text.
        delimiter: u8,
    },
    /// A composite type: its attributes.
    Record(Vec<SourceType>),
    /// The type of its bounds.
    Range(Box<SourceType>),
    /// The type of its ranges.
    Multirange(Box<SourceType>),
    /// Not known here: PostgreSQL's own output function prints it.
    Opaque {
        /// A binary stream would carry its binary form, which nobody here can read.
        sends: bool,
    },
}

/// How the binary form is read. The text form needs no entry: it is the text, or a number printed.
#[derive(Clone, Copy)]
pub enum Read {
    Bool,
    Int(fn(&[u8]) -> Result<i64, DecodeError>),
    Float4,
    Float8,
    /// The bytes are the text.
    Verbatim,
    /// The bytes are printed as the output function would.
    Printed(decode::Print),
    /// JSON text.
    Json,
    /// A version byte (1, the only one so far), then the text.
    Versioned,
    Vector,
    HalfVec,
    SparseVec,
    Array,
    /// Printed with the types within it.
    Nested,
}

/// What a type may be in a primary key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyUse {
    /// An INT64 key.
    Int,
    /// A VARCHAR key of its text.
    Text,
    /// One part of a composite key only: Milvus has no primary key of this type.
    Part,
    /// None, for this reason.
    Never(&'static str),
}

/// A line of the table.
pub struct TypeEntry {
    /// Names in `pg_catalog` or within the extension.
    pub names: &'static [&'static str],
    pub extension: Option<&'static str>,
    pub read: Read,
    /// Field types that it can become; the first is the default.
    pub targets: &'static [DataType],
    /// Bytes of the longest text, where that is short; else a VARCHAR gets the longest that Milvus has.
    pub text_max: Option<u32>,
    pub key: KeyUse,
    /// One clause for `walvec plan`.
    pub reason: &'static str,
    /// What does not fit, or what else can be had; for the documentation.
    pub limits: &'static str,
    /// A value as PostgreSQL prints it.
    pub example: &'static str,
}

/// Lines are told apart by their names.
impl PartialEq for TypeEntry {
    fn eq(&self, other: &TypeEntry) -> bool {
        self.names == other.names && self.extension == other.extension
    }
}

impl Eq for TypeEntry {}

impl std::fmt::Debug for TypeEntry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.names.first().copied().unwrap_or_default())
    }
}

/// Bytes of the longest VARCHAR.
pub const VARCHAR_MAX: u32 = 65_535;
/// Bytes of the longest JSON: Milvus's `common.jsonMaxLength`.
pub const JSON_MAX: usize = 65_536;
/// Elements of the longest ARRAY.
pub const ARRAY_MAX: u32 = 4_096;
/// Dimensions of a FLOAT_VECTOR or FLOAT16_VECTOR.
pub const DIMENSIONS: std::ops::RangeInclusive<u32> = 2..=32_768;
/// Dimensions of a BINARY_VECTOR, which are a multiple of 8.
pub const BINARY_DIMENSIONS: std::ops::RangeInclusive<u32> = 8..=262_144;

impl SourceType {
    /// The type of this name in `pg_catalog`.
    ///
    /// # Panics
    /// When the table has no such line.
    pub fn named(name: &str) -> SourceType {
        let known = |entry: &&TypeEntry| entry.extension.is_none() && entry.names.contains(&name);
        SourceType::Base(table::TYPES.iter().find(known).expect("a line of the table of types"))
    }

    /// Its line in the table; all arrays share one, as do all ranges and so on.
    pub fn entry(&self) -> &'static TypeEntry {
        match self {
            SourceType::Base(entry) => entry,
            SourceType::Vector { .. } => &table::VECTOR,
            SourceType::HalfVec { .. } => &table::HALFVEC,
            SourceType::SparseVec => &table::SPARSEVEC,
            SourceType::Bit { .. } => &table::BIT,
            SourceType::Enum => &table::ENUM,
            SourceType::Array { .. } => &table::ARRAY,
            SourceType::Record(_) => &table::RECORD,
            SourceType::Range(_) => &table::RANGE,
            SourceType::Multirange(_) => &table::MULTIRANGE,
            SourceType::Opaque { .. } => &table::OPAQUE,
        }
    }

    /// Field types that it can become; the first is the default. An ARRAY holds scalars only.
    pub fn targets(&self) -> &'static [DataType] {
        match self {
            SourceType::Array { element, .. } if element.element_target().is_none() => {
                &[DataType::Json, DataType::VarChar]
            }
            _ => self.entry().targets,
        }
    }

    /// What it is as an element of an ARRAY field.
    pub fn element_target(&self) -> Option<DataType> {
        let default = *self.targets().first()?;
        let scalar = !default.is_vector() && !matches!(default, DataType::Json | DataType::Array);
        scalar.then_some(default)
    }

    /// PostgreSQL has to print it: its output function is in no client.
    pub fn is_opaque(&self) -> bool {
        match self {
            SourceType::Opaque { .. } => true,
            SourceType::Array { element: part, .. } | SourceType::Range(part) | SourceType::Multirange(part) => {
                part.is_opaque()
            }
            SourceType::Record(attributes) => attributes.iter().any(SourceType::is_opaque),
            _ => false,
        }
    }

    /// A binary stream would carry bytes that cannot be read here. A type without a send function is no such case:
    /// PostgreSQL sends its text by itself.
    pub fn needs_text_stream(&self) -> bool {
        !matches!(self, SourceType::Opaque { sends: false }) && self.is_opaque()
    }

    /// The value as PostgreSQL prints it; `None` for NULL. A slice of the value where its bytes are the text.
    pub fn text(&self, value: &Value) -> Result<Option<Bytes>, DecodeError> {
        match value {
            Value::Null => Ok(None),
            Value::UnchangedToast => Err(DecodeError::UnchangedToast),
            Value::Text(text) => Ok(Some(text.clone())),
            Value::Binary(bytes) => match self.entry().read {
                Read::Verbatim | Read::Json if !self.is_opaque() => Ok(Some(bytes.clone())),
                Read::Versioned => decode::versioned(bytes).map(|text| Some(bytes.slice_ref(text))),
                _ => {
                    let mut out = Vec::new();
                    self.print(bytes, &mut out)?;
                    Ok(Some(out.into()))
                }
            },
        }
    }

    /// Print a binary value as the type's output function would.
    pub fn print(&self, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), DecodeError> {
        match self {
            SourceType::Array { element, delimiter } => {
                return array::print_array(bytes, *delimiter, &mut |bytes, out| element.print(bytes, out), out);
            }
            SourceType::Record(attributes) => {
                let mut print = |i: usize, bytes: &[u8], out: &mut Vec<u8>| match attributes.get(i) {
                    Some(attribute) => attribute.print(bytes, out),
                    None => Err(DecodeError::Trailing),
                };
                return decode::print_record(bytes, attributes.len(), &mut print, out);
            }
            SourceType::Range(bounds) => {
                return decode::print_range(bytes, &mut |bytes, out| bounds.print(bytes, out), out);
            }
            SourceType::Multirange(range) => {
                return decode::print_multirange(bytes, &mut |bytes, out| range.print(bytes, out), out);
            }
            SourceType::Opaque { .. } => return Err(DecodeError::Opaque),
            _ => {}
        }
        match self.entry().read {
            Read::Bool => decode::print_bool(decode::bool(bytes)?, out),
            Read::Int(read) => decode::print_int(read(bytes)?, out),
            Read::Float4 => decode::print_float4(decode::float4(bytes)?, out),
            Read::Float8 => decode::print_float8(decode::float8(bytes)?, out),
            Read::Verbatim | Read::Json => out.extend_from_slice(bytes),
            Read::Versioned => out.extend_from_slice(decode::versioned(bytes)?),
            Read::Printed(print) => print(bytes, out)?,
            Read::Vector => pgvector::print_vector(bytes, out)?,
            Read::HalfVec => pgvector::print_halfvec(bytes, out)?,
            Read::SparseVec => pgvector::print_sparsevec(bytes, out)?,
            Read::Array | Read::Nested => unreachable!("handled by its variant above"),
        }
        Ok(())
    }
}

/// What a type of the catalog is to us.
pub fn resolve(pg: &PgType) -> SourceType {
    resolve_within(pg, -1)
}

/// `outer`: the modifier of the type around this one, in force where this has none.
fn resolve_within(pg: &PgType, outer: i32) -> SourceType {
    let typmod = if pg.typmod >= 0 { pg.typmod } else { outer };
    let declared = u32::try_from(typmod).unwrap_or_default();
    let part = |pg: &PgType, outer: i32| Box::new(resolve_within(pg, outer));
    let is_own = |name: &str| pg.extension.is_none() && pg.schema == "pg_catalog" && pg.name == name;
    let is_pgvector = |name: &str| pg.extension.as_deref() == Some("vector") && pg.name == name;
    match &pg.kind {
        TypeKind::Domain(base) => resolve_within(base, typmod),
        // These are arrays in the catalog, and print as "1 2 3", unlike every other.
        TypeKind::Array(element) if !is_own("int2vector") && !is_own("oidvector") => {
            SourceType::Array { element: part(element, typmod), delimiter: element.delimiter }
        }
        TypeKind::Enum => SourceType::Enum,
        TypeKind::Composite(attributes) => {
            SourceType::Record(attributes.iter().map(|attribute| resolve_within(attribute, -1)).collect())
        }
        TypeKind::Range(bounds) => SourceType::Range(part(bounds, -1)),
        TypeKind::Multirange(range) => SourceType::Multirange(part(range, -1)),
        TypeKind::Base | TypeKind::Array(_) => {
            if is_pgvector("vector") {
                return SourceType::Vector { dim: declared };
            } else if is_pgvector("halfvec") {
                return SourceType::HalfVec { dim: declared };
            } else if is_pgvector("sparsevec") {
                return SourceType::SparseVec;
            } else if is_own("bit") {
                return SourceType::Bit { length: declared };
            }
            let same_owner = |entry: &TypeEntry| match entry.extension {
                Some(extension) => pg.extension.as_deref() == Some(extension),
                None => pg.extension.is_none() && pg.schema == "pg_catalog",
            };
            let entry = table::TYPES.iter().find(|entry| entry.names.contains(&&*pg.name) && same_owner(entry));
            entry.map_or(SourceType::Opaque { sends: pg.sends }, SourceType::Base)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base(name: &str, extension: Option<&str>) -> PgType {
        PgType {
            oid: 0,
            name: name.into(),
            schema: if extension.is_some() { "extensions" } else { "pg_catalog" }.into(),
            extension: extension.map(Into::into),
            typmod: -1,
            sends: true,
            delimiter: b',',
            kind: TypeKind::Base,
        }
    }

    fn of(kind: TypeKind, typmod: i32) -> PgType {
        PgType { kind, typmod, schema: "public".into(), ..base("x", None) }
    }

    #[test]
    fn every_line_is_found_by_its_own_name() {
        for entry in table::TYPES {
            assert!(!entry.targets.is_empty() && !entry.example.is_empty(), "{entry:?}");
            for name in entry.names {
                let source = resolve(&base(name, entry.extension));
                assert!(std::ptr::eq(source.entry(), entry), "{name}");
            }
        }
        for (name, entry) in
            [("vector", &table::VECTOR), ("halfvec", &table::HALFVEC), ("sparsevec", &table::SPARSEVEC)]
        {
            assert!(std::ptr::eq(resolve(&base(name, Some("vector"))).entry(), entry), "{name}");
        }
    }

    #[test]
    fn domains_arrays_and_ranges_are_seen_through() {
        let vector = PgType { typmod: 3, ..base("vector", Some("vector")) };
        let domain = of(TypeKind::Domain(Box::new(vector)), -1);
        assert_eq!(resolve(&domain), SourceType::Vector { dim: 3 });
        let domain = of(TypeKind::Domain(Box::new(base("vector", Some("vector")))), 4);
        assert_eq!(resolve(&domain), SourceType::Vector { dim: 4 });
        let domain = of(TypeKind::Domain(Box::new(base("int4", None))), -1);
        let array = of(TypeKind::Array(Box::new(domain)), -1);
        let ints = SourceType::Array { element: Box::new(SourceType::named("int4")), delimiter: b',' };
        assert_eq!(resolve(&array), ints);
        let range = of(TypeKind::Range(Box::new(base("date", None))), -1);
        let dates = SourceType::Range(Box::new(SourceType::named("date")));
        assert_eq!(resolve(&range), dates);
        assert_eq!(resolve(&of(TypeKind::Multirange(Box::new(range)), -1)), SourceType::Multirange(Box::new(dates)));
        let bits = PgType { typmod: 16, ..base("bit", None) };
        assert_eq!(resolve(&bits), SourceType::Bit { length: 16 });
    }

    #[test]
    fn what_has_no_line_is_left_to_postgresql() {
        let opaque = SourceType::Opaque { sends: true };
        for foreign in [base("text", Some("other")), base("vector", None), base("bit", Some("other"))] {
            assert_eq!(resolve(&foreign), opaque, "{foreign:?}");
        }
        assert!(opaque.needs_text_stream());
        let silent = PgType { sends: false, ..base("aclitem", None) };
        assert!(!resolve(&silent).needs_text_stream());
        // An array has a send function, whatever its elements have.
        assert!(resolve(&of(TypeKind::Array(Box::new(silent)), -1)).needs_text_stream());
        let record = of(TypeKind::Composite(vec![base("int4", None), base("cube", Some("cube"))]), -1);
        assert!(resolve(&record).needs_text_stream());
        assert_eq!(opaque.print(b"x", &mut Vec::new()), Err(DecodeError::Opaque));
    }

    #[test]
    fn an_array_of_documents_or_vectors_is_json() {
        for (element, target) in [
            (base("int4", None), DataType::Array),
            (base("inet", None), DataType::Array),
            (base("jsonb", None), DataType::Json),
            (base("hstore", Some("hstore")), DataType::Json),
            (base("vector", Some("vector")), DataType::Json),
        ] {
            let array = resolve(&of(TypeKind::Array(Box::new(element)), -1));
            assert_eq!(array.targets().first(), Some(&target), "{array:?}");
        }
    }

    #[test]
    fn both_forms_have_one_text() {
        let array = [1i32, 0, 23, 2, 1, 4, 7, 4, -8].map(i32::to_be_bytes).concat();
        for (source, binary, text) in [
            (SourceType::named("bool"), vec![1], "t"),
            (SourceType::named("int4"), vec![255, 255, 255, 254], "-2"),
            (SourceType::named("text"), b"a b ".to_vec(), "a b "),
            (SourceType::named("jsonb"), b"\x01{}".to_vec(), "{}"),
            (SourceType::Array { element: Box::new(SourceType::named("int4")), delimiter: b',' }, array, "{7,-8}"),
        ] {
            let expected = Ok(Some(Bytes::from(text)));
            assert_eq!(source.text(&Value::Binary(binary.into())), expected);
            assert_eq!(source.text(&Value::Text(text.into())), expected);
        }
        let text = SourceType::named("text");
        assert_eq!(text.text(&Value::Null), Ok(None));
        assert_eq!(text.text(&Value::UnchangedToast), Err(DecodeError::UnchangedToast));
    }
}
