//! One value of PostgreSQL against one value of Milvus.
//!
//! In: what the type's output function prints, and the value as the client of Milvus decoded it. Out: equal or not.
//! What equal means, by the column's type:
//!
//! - integers and bool: the same number. Other numbers: the same bits as `float4` or `float8`, so 0 is not -0; every NaN is
//!   the same NaN, because PostgreSQL prints no more of it.
//! - vectors: the same number of elements, each with the same bits.
//! - json and jsonb: the same value (`super::json`).
//! - arrays: as many elements, equal one by one.
//! - everything else is text in both: the same bytes.
//! - NULL equals NULL only: not the empty string, not zero.
//!
//! Holds: nothing here is used by the write path, nor the other way round, but for the list of types (`SourceType`).

use crate::milvus::{ColumnData, FieldColumn};
use crate::plan::SourceType;

use super::{array, json};

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

    /// Is the entity's value what PostgreSQL printed? `None` is NULL.
    pub fn equals(&self, entity: usize, source: &SourceType, text: Option<&str>) -> bool {
        let place = match &self.places {
            None => Some(entity),
            Some(places) => places.get(entity).filter(|&&place| place != NULL).map(|&place| place as usize),
        };
        match (text, place) {
            (None, None) => true,
            (Some(text), Some(place)) => equal(source, text, &self.data, place),
            _ => false,
        }
    }
}

/// Is value `i` of `data` what PostgreSQL printed as `text`?
fn equal(source: &SourceType, text: &str, data: &ColumnData, i: usize) -> bool {
    match source {
        SourceType::Bool => match data {
            ColumnData::Bool(values) => values.get(i).is_some_and(|&value| text == if value == 0 { "f" } else { "t" }),
            _ => false,
        },
        SourceType::Int2 | SourceType::Int4 | SourceType::Int8 => {
            let value = match data {
                ColumnData::Int8(values) | ColumnData::Int16(values) | ColumnData::Int32(values) => {
                    values.get(i).copied().map(i64::from)
                }
                ColumnData::Int64(values) => values.get(i).copied(),
                _ => None,
            };
            value.is_some() && value == text.parse().ok()
        }
        SourceType::Float4 => match data {
            ColumnData::Float(packed) => nth(packed, i).is_some_and(|bytes| equal_f32(text, bytes)),
            _ => false,
        },
        SourceType::Float8 => match data {
            ColumnData::Double(packed) => nth(packed, i).is_some_and(|bytes| equal_f64(text, bytes)),
            _ => false,
        },
        SourceType::Numeric
        | SourceType::Text
        | SourceType::Uuid
        | SourceType::Date
        | SourceType::Time
        | SourceType::Timestamp
        | SourceType::TimestampTz => match data {
            ColumnData::VarChar(values) => values.get(i).is_some_and(|value| value == text.as_bytes()),
            _ => false,
        },
        SourceType::Json | SourceType::Jsonb => match data {
            ColumnData::Json(values) => values.get(i).is_some_and(|value| json::equal(text.as_bytes(), value)),
            _ => false,
        },
        SourceType::Vector { .. } => match data {
            ColumnData::FloatVector { dim, packed } => {
                let size = dim * 4;
                packed.get(i * size..(i + 1) * size).is_some_and(|bytes| equal_vector(text, bytes))
            }
            _ => false,
        },
        SourceType::Array(element) => match (data, array::elements(text)) {
            (ColumnData::Array { rows, .. }, Some(texts)) => rows.get(i).is_some_and(|values| {
                values.len() == texts.len()
                    && texts.iter().enumerate().all(|(j, text)| match text {
                        Some(text) => equal(element, text, values, j),
                        None => false, // an ARRAY of Milvus has no NULL elements
                    })
            }),
            _ => false,
        },
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
    let value = f64::from_le_bytes(little_endian);
    text.parse().is_ok_and(|expected: f64| expected.to_bits() == value.to_bits() || expected.is_nan() && value.is_nan())
}

/// `text` as pgvector prints a vector: `[1,2.5,-3e-05]`.
fn equal_vector(text: &str, little_endian: &[u8]) -> bool {
    let Some(elements) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) else {
        return false;
    };
    let (values, rest) = little_endian.as_chunks::<4>();
    let mut values = values.iter();
    let same = elements.split(',').all(|text| values.next().is_some_and(|&bytes| equal_f32(text, bytes)));
    same && values.next().is_none() && rest.is_empty()
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

    /// One column of values, the texts that equal each of them, and the texts that equal none.
    fn check(source: SourceType, data: ColumnData, equal: &[&str], different: &[&str]) {
        let field = field(data);
        assert_eq!(field.len(), equal.len());
        for (i, text) in equal.iter().enumerate() {
            assert!(field.equals(i, &source, Some(text)), "{source:?} value {i} is {text}");
            assert!(!field.equals(i, &source, None), "{source:?} value {i} is not NULL");
            for text in different {
                assert!(!field.equals(i, &source, Some(text)), "{source:?} value {i} is not {text}");
            }
        }
    }

    #[test]
    fn every_type_has_its_own_equality() {
        use SourceType as S;
        check(S::Bool, ColumnData::Bool(vec![1, 0]), &["t", "f"], &["true", "false", "", "1"]);
        check(S::Int2, ColumnData::Int16(vec![-32768, 0]), &["-32768", "0"], &["1", "", "32767"]);
        check(S::Int4, ColumnData::Int32(vec![i32::MIN, 7]), &["-2147483648", "7"], &["8", "7.0", "2147483648"]);
        check(
            S::Int8,
            ColumnData::Int64(vec![i64::MIN, i64::MAX]),
            &["-9223372036854775808", "9223372036854775807"],
            &["0"],
        );
        let (zero, minus) = (0f32.to_le_bytes(), (-0f32).to_le_bytes());
        check(S::Float4, ColumnData::Float(zero.to_vec()), &["0"], &["-0", "NaN", "1e-45"]);
        check(S::Float4, ColumnData::Float(minus.to_vec()), &["-0"], &["0"]);
        check(
            S::Float4,
            ColumnData::Float(floats(&[0.1, f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, 1e6])),
            &["0.1", "NaN", "Infinity", "-Infinity", "3.4028235e+38", "1e+06"],
            &["0.10000001", "0"],
        );
        let doubles: Vec<u8> = [0.1f64, f64::NAN, -0.0, 1e15].iter().flat_map(|v| v.to_le_bytes()).collect();
        check(S::Float8, ColumnData::Double(doubles), &["0.1", "NaN", "-0", "1e+15"], &["0.10000000000000002", "0"]);
        check(S::Numeric, ColumnData::VarChar(texts(&["1.10", "NaN"])), &["1.10", "NaN"], &["1.1", "nan", ""]);
        check(S::Text, ColumnData::VarChar(texts(&["", "ab   ", "é"])), &["", "ab   ", "é"], &["ab", "e", " "]);
        check(S::Date, ColumnData::VarChar(texts(&["infinity"])), &["infinity"], &["2000-01-01"]);
        check(S::Json, ColumnData::Json(texts(&[r#"{"a":1.1}"#])), &[r#"{"a": 1.10}"#], &[r#"{"a":1.2}"#, "null", ""]);
        check(
            S::Vector { dim: 2 },
            ColumnData::FloatVector { dim: 2, packed: floats(&[1.0, -0.5, 0.0, 3e-5]) },
            &["[1,-0.5]", "[0,3e-05]"],
            &["[1,-0.5000001]", "[1]", "[1,-0.5,0]", "[]", "1,-0.5", "[-0,3e-05]"],
        );
    }

    #[test]
    fn the_wrong_type_of_field_equals_nothing() {
        let field = field(ColumnData::VarChar(texts(&["1"])));
        for source in [SourceType::Bool, SourceType::Int8, SourceType::Float4, SourceType::Float8, SourceType::Jsonb] {
            assert!(!field.equals(0, &source, Some("1")), "{source:?}");
        }
    }

    #[test]
    fn arrays_are_compared_element_by_element() {
        let source = SourceType::Array(Box::new(SourceType::Text));
        let rows = vec![ColumnData::VarChar(texts(&["a", "", "NULL"])), ColumnData::VarChar(vec![])];
        let field = field(ColumnData::Array { element: DataType::VarChar, rows });
        assert!(field.equals(0, &source, Some(r#"{a,"","NULL"}"#)));
        assert!(field.equals(0, &source, Some(r#"[5:7]={a,"","NULL"}"#)));
        assert!(field.equals(1, &source, Some("{}")));
        for text in
            [r#"{a,"",NULL}"#, r#"{a,""}"#, r#"{"",a,"NULL"}"#, "{}", r#"{a,"","NULL",b}"#, r#"{{a,"","NULL"}}"#]
        {
            assert!(!field.equals(0, &source, Some(text)), "{text}");
        }
        assert!(!field.equals(1, &source, None), "an empty array is not NULL");
    }

    #[test]
    fn null_is_only_null() {
        let field = Field::new(FieldColumn {
            name: Arc::from("f"),
            valid: Some(vec![1, 0, 1, 0]),
            data: ColumnData::VarChar(texts(&["", "x"])),
        });
        let matches = |text| (0..field.len()).map(|i| field.equals(i, &SourceType::Text, text)).collect::<Vec<_>>();
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
        assert!(short.equals(0, &SourceType::Float4, Some("0")));
        assert!(!short.equals(1, &SourceType::Float4, Some("0")));
        assert!(!short.equals(2, &SourceType::Float4, Some("0")));
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
            prop_assert!(equal_vector(&text, &packed));
            let mut flipped = packed.clone();
            let at = place.index(values.len());
            flipped[at * 4 + bit as usize / 8] ^= 1 << (bit % 8);
            prop_assert!(!equal_vector(&text, &flipped));
            prop_assert!(!equal_vector(&text, &packed[..packed.len() - 4]));
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
