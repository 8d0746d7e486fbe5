//! One value of PostgreSQL against one value of Milvus.
//!
//! In: what the type's output function prints, and the value as the client of Milvus decoded it. Out: equal or not.
//! What equal means, by the field:
//!
//! - integers and bool: the same number. Other numbers: the same bits as `float4` or `float8`, so 0 is not -0; every NaN is
//!   the same NaN, because PostgreSQL prints no more of it. Dates and times as numbers: the same moment.
//! - vectors: the same number of elements, each with the same bits.
//! - json and jsonb, and what becomes JSON: the same value (`super::json`).
//! - arrays: as many elements, equal one by one.
//! - everything else is text in both: the same bytes, in the encoding of the field.
//! - NULL equals NULL only: not the empty string, not zero.
//! - what does not fit its field is what the field's policy makes of it (`super::fit`).
//!
//! Holds: nothing here is used by the write path, nor the other way round, but for the list of types (`SourceType`).

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use half::f16;

use crate::config::settings::{Encoding, OnMisfit};
use crate::milvus::{ColumnData, FieldColumn, FieldSchema};
use crate::plan::{ColumnPlan, SourceType};

use super::{array, fit, json, moment};

/// What a field is to hold, by the plan.
#[derive(Clone, Copy, Debug)]
pub struct Expected<'a> {
    pub column: &'a ColumnPlan,
    /// `None`: the column is a member of the dynamic field.
    pub field: Option<&'a FieldSchema>,
}

impl Expected<'_> {
    /// The row is to be left out because of this value (`None`: NULL).
    pub fn skips(&self, text: Option<&str>) -> bool {
        self.column.on_misfit.leaves_out() && !fit::fits(self, text)
    }
}

/// One field of several entities, addressable by entity although NULLs have no place in the data.
#[derive(Debug)]
pub struct Field {
    data: ColumnData,
    /// Where the value of an entity is; `None` when every entity has one. `u32::MAX`: NULL.
    places: Option<Vec<u32>>,
}

const NULL: u32 = u32::MAX;

impl Field {
    pub fn new(column: FieldColumn) -> Field {
        let places = column.valid.map(|valid| {
            let mut next = 0;
            valid
                .iter()
                .map(|&valid| {
                    if valid == 0 {
                        return NULL;
                    }
                    next += 1;
                    next - 1
                })
                .collect()
        });
        Field { data: column.data, places }
    }

    /// Entities it has a value or NULL of.
    pub fn len(&self) -> usize {
        self.places.as_ref().map_or(self.data.len(), Vec::len)
    }

    /// Is the entity's value what is to become of this text? `None` is NULL.
    pub fn equals(&self, entity: usize, expected: Expected<'_>, text: Option<&str>) -> bool {
        let place = match &self.places {
            None => Some(entity),
            Some(places) => places.get(entity).filter(|&&place| place != NULL).map(|&place| place as usize),
        };
        let column = expected.column;
        let Some(field) = expected.field else {
            return match (&self.data, place) {
                (ColumnData::Json(objects), Some(place)) => objects
                    .get(place)
                    .is_some_and(|object| json::equal_member(&column.source, &column.name, text, object)),
                _ => false,
            };
        };
        if let (None, Some(default), Some(place)) = (text, &field.default_value, place) {
            return equal_default(default, &self.data, place);
        }
        let same = |text: Option<&str>| match (text, place) {
            (None, None) => true,
            (Some(text), Some(place)) => equal(&column.source, column.encoding, text, &self.data, place),
            _ => false,
        };
        match column.on_misfit {
            OnMisfit::Null if !fit::fits(&expected, text) => same(None),
            OnMisfit::Truncate if !fit::fits(&expected, text) => match fit::cut(&expected, text) {
                Some(cut) => match place {
                    Some(place) => fit::equals_cut(&cut, &self.data, place),
                    None => false,
                },
                None => same(text),
            },
            _ => same(text),
        }
    }
}

/// A default in the spelling of its field's type.
fn equal_default(default: &str, data: &ColumnData, i: usize) -> bool {
    match data {
        ColumnData::Bool(values) => values.get(i).is_some_and(|&value| (value != 0) == (default == "true")),
        data => equal(&SourceType::named("text"), None, default, data, i),
    }
}

/// Is value `i` of `data` what PostgreSQL printed as `text`?
pub(super) fn equal(source: &SourceType, encoding: Option<Encoding>, text: &str, data: &ColumnData, i: usize) -> bool {
    match data {
        ColumnData::Bool(values) => values.get(i).is_some_and(|&value| text == if value == 0 { "f" } else { "t" }),
        ColumnData::Int8(values) | ColumnData::Int16(values) | ColumnData::Int32(values) => {
            values.get(i).is_some_and(|&value| text.parse() == Ok(value))
        }
        ColumnData::Int64(values) => values.get(i).is_some_and(|&value| number(source, text) == Some(value)),
        ColumnData::Float(packed) => nth(packed, i).is_some_and(|bytes| equal_f32(text, bytes)),
        ColumnData::Double(packed) => {
            nth(packed, i).is_some_and(|bytes| match *source == SourceType::named("float4") {
                true => text.parse().is_ok_and(|float: f32| same_f64(f64::from(float), f64::from_le_bytes(bytes))),
                false => equal_f64(text, bytes),
            })
        }
        ColumnData::VarChar(values) => {
            values.get(i).is_some_and(|value| encoded(encoding, text).is_some_and(|text| *value == text.as_bytes()))
        }
        ColumnData::Json(values) => values.get(i).is_some_and(|document| match source {
            SourceType::Array { element, delimiter } => array::tree(text, char::from(*delimiter))
                .is_some_and(|tree| json::equal_array(element, &tree, document)),
            _ if source.entry().extension == Some("hstore") => json::equal_hstore(text, document),
            _ => json::equal(text.as_bytes(), document),
        }),
        ColumnData::Timestamptz(values) => values.get(i).is_some_and(|value| {
            let found = std::str::from_utf8(value).ok().and_then(moment::moment);
            found.is_some() && found == moment::moment(text)
        }),
        ColumnData::Array { rows, .. } => {
            let SourceType::Array { element, delimiter } = source else { return false };
            let Some(texts) = array::elements(text, char::from(*delimiter)) else { return false };
            rows.get(i).is_some_and(|values| {
                values.len() == texts.len()
                    && texts.iter().enumerate().all(|(j, text)| match text {
                        Some(text) => equal(element, None, text, values, j),
                        None => false, // an ARRAY of Milvus has no NULL elements
                    })
            })
        }
        ColumnData::FloatVector { dim, packed } => {
            let size = dim * 4;
            packed.get(i * size..(i + 1) * size).is_some_and(|bytes| {
                equal_vector(text, bytes.as_chunks::<4>().0.iter().map(|&bytes| f32::from_le_bytes(bytes)))
            })
        }
        ColumnData::Float16Vector { dim, packed } => {
            let size = dim * 2;
            packed.get(i * size..(i + 1) * size).is_some_and(|bytes| {
                equal_vector(text, bytes.as_chunks::<2>().0.iter().map(|&half| f16::from_le_bytes(half).to_f32()))
            })
        }
        ColumnData::BinaryVector { dim, packed } => {
            let size = dim / 8;
            packed.get(i * size..(i + 1) * size).is_some_and(|bytes| {
                let bits = bytes.iter().flat_map(|byte| (0..8).map(move |i| byte << i & 0x80 != 0));
                text.len() == *dim && text.chars().eq(bits.map(|bit| if bit { '1' } else { '0' }))
            })
        }
        ColumnData::SparseFloatVector(rows) => {
            rows.get(i).is_some_and(|row| equal_sparse(text, row).unwrap_or_default())
        }
    }
}

/// What INT64 is to hold of a text.
pub(super) fn number(source: &SourceType, text: &str) -> Option<i64> {
    match source.entry().names.first().copied().unwrap_or_default() {
        "date" => moment::days(text),
        "time" => moment::time(text),
        "timestamp" | "timestamptz" => moment::moment(text),
        "numeric" => {
            let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
            whole.parse().ok().filter(|_| fraction.bytes().all(|digit| digit == b'0'))
        }
        _ => text.parse().ok(),
    }
}

/// The text in the encoding of its field.
pub(super) fn encoded(encoding: Option<Encoding>, text: &str) -> Option<Cow<'_, str>> {
    match encoding {
        None => Some(Cow::Borrowed(text)),
        Some(Encoding::Trimmed) => Some(Cow::Borrowed(text.trim_end_matches(' '))),
        Some(Encoding::Hex) => text.strip_prefix("\\x").map(Cow::Borrowed),
        Some(Encoding::Base64) => {
            let digits = text.strip_prefix("\\x")?;
            let byte = |at: usize| u8::from_str_radix(digits.get(at..at + 2)?, 16).ok();
            let bytes: Vec<u8> = (0..digits.len()).step_by(2).map(byte).collect::<Option<_>>()?;
            Some(Cow::Owned(BASE64.encode(bytes)))
        }
    }
}

/// Value `i` of values of `N` bytes each.
fn nth<const N: usize>(packed: &[u8], i: usize) -> Option<[u8; N]> {
    packed.get(i * N..(i + 1) * N)?.try_into().ok()
}

fn equal_f32(text: &str, little_endian: [u8; 4]) -> bool {
    let value = f32::from_le_bytes(little_endian);
    text.parse().is_ok_and(|expected: f32| expected.to_bits() == value.to_bits() || expected.is_nan() && value.is_nan())
}

fn equal_f64(text: &str, little_endian: [u8; 8]) -> bool {
    text.parse().is_ok_and(|expected: f64| same_f64(expected, f64::from_le_bytes(little_endian)))
}

fn same_f64(expected: f64, value: f64) -> bool {
    expected.to_bits() == value.to_bits() || expected.is_nan() && value.is_nan()
}

/// `text` as pgvector prints a vector: `[1,2.5,-3e-05]`.
fn equal_vector(text: &str, mut values: impl Iterator<Item = f32>) -> bool {
    let Some(elements) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) else {
        return false;
    };
    let same = elements.split(',').all(|text| values.next().is_some_and(|value| equal_f32(text, value.to_le_bytes())));
    same && values.next().is_none()
}

/// `{1:0.5,3:2}/5` against pairs of `u32` and `f32` that count from 0.
fn equal_sparse(text: &str, row: &[u8]) -> Option<bool> {
    let (list, _) = text.strip_prefix('{')?.split_once("}/")?;
    let (found, rest) = row.as_chunks::<8>();
    let mut found = found.iter();
    for item in list.split(',').filter(|item| !item.is_empty()) {
        let (index, float) = item.split_once(':')?;
        let [a, b, c, d, e, f, g, h] = *found.next()?;
        let same_index = index.parse::<u32>().ok()?.checked_sub(1)? == u32::from_le_bytes([a, b, c, d]);
        if !same_index || !equal_f32(float, [e, f, g, h]) {
            return Some(false);
        }
    }
    Some(found.next().is_none() && rest.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::milvus::DataType;
    use bytes::Bytes;
    use proptest::prelude::*;
    use std::sync::Arc;

    fn field(data: ColumnData) -> Field {
        Field::new(FieldColumn { name: Arc::from("f"), valid: None, data })
    }

    fn floats(values: &[f32]) -> Vec<u8> {
        values.iter().flat_map(|value| value.to_le_bytes()).collect()
    }

    fn texts(values: &[&'static str]) -> Vec<Bytes> {
        values.iter().map(|value| Bytes::from_static(value.as_bytes())).collect()
    }

    fn column(source: SourceType, encoding: Option<Encoding>) -> ColumnPlan {
        ColumnPlan {
            name: "f".into(),
            type_oid: 0,
            typmod: -1,
            type_name: String::new(),
            source,
            encoding,
            on_misfit: OnMisfit::Error,
            reread: false,
            field: 0,
            reason: String::new(),
        }
    }

    fn schema(data_type: DataType) -> FieldSchema {
        FieldSchema {
            name: "f".into(),
            data_type,
            is_primary: false,
            auto_id: false,
            nullable: true,
            element_type: None,
            max_length: Some(4),
            max_capacity: Some(2),
            dim: Some(2),
            description: String::new(),
            default_value: None,
            is_partition_key: false,
            mmap: None,
        }
    }

    impl Field {
        /// Under the policy `error`.
        fn is(&self, i: usize, source: &SourceType, text: Option<&str>) -> bool {
            let (column, field) = (column(source.clone(), None), schema(self.data.data_type()));
            self.equals(i, Expected { column: &column, field: Some(&field) }, text)
        }
    }

    /// One column of values, the texts that equal each of them, and the texts that equal none.
    fn check(source: SourceType, data: ColumnData, equal: &[&str], different: &[&str]) {
        let field = field(data);
        assert_eq!(field.len(), equal.len());
        for (i, text) in equal.iter().enumerate() {
            assert!(field.is(i, &source, Some(text)), "{source:?} value {i} is {text}");
            assert!(!field.is(i, &source, None), "{source:?} value {i} is not NULL");
            for text in different {
                assert!(!field.is(i, &source, Some(text)), "{source:?} value {i} is not {text}");
            }
        }
    }

    #[test]
    fn numbers_documents_and_vectors_of_other_types_have_theirs() {
        let n = SourceType::named;
        check(n("int4"), ColumnData::Int8(vec![-128]), &["-128"], &["127", "200"]);
        check(n("date"), ColumnData::Int64(vec![0, -1]), &["1970-01-01", "1969-12-31"], &["infinity", "1970-01-03"]);
        check(
            n("timestamptz"),
            ColumnData::Int64(vec![1]),
            &["1970-01-01 00:00:00.000001+00"],
            &["1970-01-01 00:00:00+00"],
        );
        check(n("numeric"), ColumnData::Int64(vec![7]), &["7.00"], &["7.01", "NaN"]);
        check(n("float4"), ColumnData::Double(f64::from(0.1f32).to_le_bytes().into()), &["0.1"], &["0.10000001"]);
        check(
            n("timestamptz"),
            ColumnData::Timestamptz(texts(&["2000-01-01T00:00:00.5Z"])),
            &["2000-01-01 00:00:00.5+00"],
            &["2000-01-01 00:00:00+00", "infinity"],
        );
        let halves: Vec<u8> = [0.5f32, -2.0].iter().flat_map(|&v| f16::from_f32(v).to_le_bytes()).collect();
        check(
            SourceType::HalfVec { dim: 2 },
            ColumnData::Float16Vector { dim: 2, packed: halves },
            &["[0.5,-2]"],
            &["[0.5,2]", "[0.5]"],
        );
        check(
            SourceType::Bit { length: 8 },
            ColumnData::BinaryVector { dim: 8, packed: vec![0b1010_0000] },
            &["10100000"],
            &["10100001", "1010000"],
        );
        let sparse = [[2u32.to_le_bytes(), 0.5f32.to_le_bytes()].concat(), vec![]].map(Bytes::from).to_vec();
        check(
            SourceType::SparseVec,
            ColumnData::SparseFloatVector(sparse),
            &["{3:0.5}/9", "{}/9"],
            &["{2:0.5}/9", "{3:0.25}/9", "{3:0.5,4:1}/9"],
        );
        let ints = SourceType::Array { element: Box::new(n("int4")), delimiter: b',' };
        check(ints, ColumnData::Json(texts(&["[[1,null],[2,3]]"])), &["{{1,NULL},{2,3}}"], &["{1,NULL,2,3}", "{}"]);
        let Some(hstore) = hstore() else { panic!("hstore has a line") };
        check(
            hstore,
            ColumnData::Json(texts(&[r#"{"a":"1","b":null}"#])),
            &[r#""a"=>"1", "b"=>NULL"#],
            &[r#""a"=>"1""#],
        );
        let encoded = field(ColumnData::VarChar(texts(&["AP8=", "00ff", "ab"])));
        for (i, (source, encoding, text)) in [
            (n("bytea"), Encoding::Base64, "\\x00ff"),
            (n("bytea"), Encoding::Hex, "\\x00ff"),
            (n("bpchar"), Encoding::Trimmed, "ab  "),
        ]
        .into_iter()
        .enumerate()
        {
            let (column, field) = (column(source, Some(encoding)), schema(DataType::VarChar));
            let expected = Expected { column: &column, field: Some(&field) };
            assert!(encoded.equals(i, expected, Some(text)) && !encoded.equals(i, expected, Some("\\x01")), "{text}");
        }
    }

    fn hstore() -> Option<SourceType> {
        let pg = crate::postgres::catalog::PgType {
            oid: 0,
            name: "hstore".into(),
            schema: "public".into(),
            extension: Some("hstore".into()),
            typmod: -1,
            sends: true,
            delimiter: b',',
            kind: crate::postgres::catalog::TypeKind::Base,
        };
        Some(crate::plan::types::resolve(&pg)).filter(|source| matches!(source, SourceType::Base(_)))
    }

    #[test]
    fn policies_are_expected_of_what_does_not_fit() {
        let with = |on_misfit| ColumnPlan { on_misfit, ..column(SourceType::named("text"), None) };
        let found = Field::new(FieldColumn {
            name: Arc::from("f"),
            valid: Some(vec![1, 0, 1]),
            data: ColumnData::VarChar(texts(&["ééx", "éé"])),
        });
        let schema = schema(DataType::VarChar); // of four bytes
        let is = |i, on_misfit, text: &str| {
            let column = with(on_misfit);
            found.equals(i, Expected { column: &column, field: Some(&schema) }, Some(text))
        };
        assert!(is(2, OnMisfit::Error, "éé"));
        assert!(
            is(2, OnMisfit::Truncate, "ééé") && is(2, OnMisfit::Truncate, "éé") && !is(2, OnMisfit::Truncate, "éxé")
        );
        assert!(is(1, OnMisfit::Null, "ééé") && !is(1, OnMisfit::Null, "éé") && !is(0, OnMisfit::Null, "ééx"));
        let skip = with(OnMisfit::SkipRow);
        let expected = Expected { column: &skip, field: Some(&schema) };
        assert!(expected.skips(Some("ééé")) && !expected.skips(Some("éé")) && !expected.skips(None));
    }

    #[test]
    fn every_type_has_its_own_equality() {
        let n = SourceType::named;
        check(n("bool"), ColumnData::Bool(vec![1, 0]), &["t", "f"], &["true", "false", "", "1"]);
        check(n("int2"), ColumnData::Int16(vec![-32768, 0]), &["-32768", "0"], &["1", "", "32767"]);
        check(n("int4"), ColumnData::Int32(vec![i32::MIN, 7]), &["-2147483648", "7"], &["8", "7.0", "2147483648"]);
        check(
            n("int8"),
            ColumnData::Int64(vec![i64::MIN, i64::MAX]),
            &["-9223372036854775808", "9223372036854775807"],
            &["0"],
        );
        let (zero, minus) = (0f32.to_le_bytes(), (-0f32).to_le_bytes());
        check(n("float4"), ColumnData::Float(zero.to_vec()), &["0"], &["-0", "NaN", "1e-45"]);
        check(n("float4"), ColumnData::Float(minus.to_vec()), &["-0"], &["0"]);
        check(
            n("float4"),
            ColumnData::Float(floats(&[0.1, f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, 1e6])),
            &["0.1", "NaN", "Infinity", "-Infinity", "3.4028235e+38", "1e+06"],
            &["0.10000001", "0"],
        );
        let doubles: Vec<u8> = [0.1f64, f64::NAN, -0.0, 1e15].iter().flat_map(|v| v.to_le_bytes()).collect();
        check(n("float8"), ColumnData::Double(doubles), &["0.1", "NaN", "-0", "1e+15"], &["0.10000000000000002", "0"]);
        check(n("numeric"), ColumnData::VarChar(texts(&["1.10", "NaN"])), &["1.10", "NaN"], &["1.1", "nan", ""]);
        check(n("text"), ColumnData::VarChar(texts(&["", "ab   ", "é"])), &["", "ab   ", "é"], &["ab", "e", " "]);
        check(n("date"), ColumnData::VarChar(texts(&["infinity"])), &["infinity"], &["2000-01-01"]);
        check(
            n("json"),
            ColumnData::Json(texts(&[r#"{"a":1.1}"#])),
            &[r#"{"a": 1.10}"#],
            &[r#"{"a":1.2}"#, "null", ""],
        );
        check(
            SourceType::Vector { dim: 2 },
            ColumnData::FloatVector { dim: 2, packed: floats(&[1.0, -0.5, 0.0, 3e-5]) },
            &["[1,-0.5]", "[0,3e-05]"],
            &["[1,-0.5000001]", "[1]", "[1,-0.5,0]", "[]", "1,-0.5", "[-0,3e-05]"],
        );
    }

    #[test]
    fn a_text_field_holds_the_text_of_every_type() {
        let field = field(ColumnData::VarChar(texts(&["1"])));
        // A boolean as VARCHAR is its text.
        for source in ["bool", "int8", "float4"].map(SourceType::named) {
            assert!(field.is(0, &source, Some("1")) && !field.is(0, &source, Some("t")), "{source:?}");
        }
    }

    #[test]
    fn arrays_are_compared_element_by_element() {
        let source = SourceType::Array { element: Box::new(SourceType::named("text")), delimiter: b',' };
        let rows = vec![ColumnData::VarChar(texts(&["a", "", "NULL"])), ColumnData::VarChar(vec![])];
        let field = field(ColumnData::Array { element: DataType::VarChar, rows });
        assert!(field.is(0, &source, Some(r#"{a,"","NULL"}"#)));
        assert!(field.is(0, &source, Some(r#"[5:7]={a,"","NULL"}"#)));
        assert!(field.is(1, &source, Some("{}")));
        for text in
            [r#"{a,"",NULL}"#, r#"{a,""}"#, r#"{"",a,"NULL"}"#, "{}", r#"{a,"","NULL",b}"#, r#"{{a,"","NULL"}}"#]
        {
            assert!(!field.is(0, &source, Some(text)), "{text}");
        }
        assert!(!field.is(1, &source, None), "an empty array is not NULL");
    }

    #[test]
    fn null_is_only_null() {
        let field = Field::new(FieldColumn {
            name: Arc::from("f"),
            valid: Some(vec![1, 0, 1, 0]),
            data: ColumnData::VarChar(texts(&["", "x"])),
        });
        let matches =
            |text| (0..field.len()).map(|i| field.is(i, &SourceType::named("text"), text)).collect::<Vec<_>>();
        assert_eq!(matches(None), [false, true, false, true]);
        assert_eq!(matches(Some("")), [true, false, false, false]);
        assert_eq!(matches(Some("x")), [false, false, true, false]);
    }

    #[test]
    fn too_few_values_are_a_difference_not_a_panic() {
        let short = Field::new(FieldColumn {
            name: Arc::from("f"),
            valid: Some(vec![1, 1]),
            data: ColumnData::Float(vec![0, 0, 0, 0, 0]),
        });
        assert!(short.is(0, &SourceType::named("float4"), Some("0")));
        assert!(!short.is(1, &SourceType::named("float4"), Some("0")));
        assert!(!short.is(2, &SourceType::named("float4"), Some("0")));
    }

    proptest! {
        /// Rust prints the shortest digits that read back as the same float, as PostgreSQL does.
        #[test]
        fn one_flipped_bit_in_a_vector_is_found(
            bits in prop::collection::vec(any::<u32>(), 1..40), place in any::<prop::sample::Index>(), bit in 0u32..32,
        ) {
            let values: Vec<f32> = bits.iter().map(|&bits| f32::from_bits(bits)).map(|v| if v.is_finite() { v } else { 1.5 }).collect();
            let text = format!("[{}]", values.iter().map(|value| format!("{value:e}")).collect::<Vec<_>>().join(","));
            let packed = floats(&values);
            let read = |packed: &[u8]| {
                let floats: Vec<f32> = packed.as_chunks::<4>().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect();
                floats.into_iter()
            };
            prop_assert!(equal_vector(&text, read(&packed)));
            let mut flipped = packed.clone();
            let at = place.index(values.len());
            flipped[at * 4 + bit as usize / 8] ^= 1 << (bit % 8);
            prop_assert!(!equal_vector(&text, read(&flipped)));
            prop_assert!(!equal_vector(&text, read(&packed[..packed.len() - 4])));
        }

        #[test]
        fn doubles_are_compared_by_their_bits(bits in any::<u64>(), bit in 0u32..64) {
            let value = f64::from_bits(bits);
            prop_assume!(value.is_finite());
            let text = format!("{value:e}");
            prop_assert!(equal_f64(&text, bits.to_le_bytes()));
            prop_assert!(!equal_f64(&text, (bits ^ 1 << bit).to_le_bytes()));
        }
    }
}
