//! Columns of entities: the checks before a request is built, and joining pages of an answer.
//!
//! Holds: what `check` lets through has one value for each entity in each column, of the type, element type and
//! dimension that the collection declares, without a NULL where none may be and without NaN in a vector. Servers are
//! silent about some of these (Milvus Lite stores NaN, Milvus 2.3 ignores the validity of a NULL), so a slip of ours
//! would become wrong data; here it becomes an error.
//!
//! Not here: limits that depend on values which users may well have (length in bytes, capacity, integer range); those are judged row by row
//! before a batch is built, so that one row does not take its neighbours with it.

use std::collections::HashSet;

use super::{CollectionSchema, ColumnData, DataType, FieldColumn, FieldSchema};

/// What breaks the rules, in one clause; it names fields and counts, never values.
pub(crate) fn check(schema: &CollectionSchema, columns: &[FieldColumn], rows: usize) -> Result<(), String> {
    if rows == 0 {
        return Err("no entities".to_owned());
    }
    let mut seen = HashSet::with_capacity(columns.len());
    for column in columns {
        let name = &column.name;
        if !seen.insert(&**name) {
            return Err(format!("field {name:?} stands twice"));
        }
        let Some(field) = schema.field(name) else {
            return Err(format!("collection {:?} has no field {name:?}", schema.name));
        };
        check_values(&field, &column.data)?;
        let values = column.data.len();
        match &column.valid {
            None if values != rows => return Err(format!("field {name:?} has {values} values for {rows} entities")),
            None => {}
            Some(valid) => {
                let present = valid.iter().filter(|&&byte| byte == 1).count();
                if valid.len() != rows || valid.iter().any(|&byte| byte > 1) {
                    return Err(format!("field {name:?} has {} marks of validity for {rows} entities", valid.len()));
                }
                if present != values {
                    return Err(format!("field {name:?} has {values} values for {present} valid entities"));
                }
                if present != rows && !field.nullable {
                    return Err(format!("field {name:?} is not nullable and has {} NULLs", rows - present));
                }
            }
        }
    }
    match schema.fields.iter().find(|field| field.is_primary && !field.auto_id && !seen.contains(&*field.name)) {
        Some(primary) => Err(format!("the primary field {:?} is missing", primary.name)),
        None => Ok(()),
    }
}

fn check_values(field: &FieldSchema, data: &ColumnData) -> Result<(), String> {
    let name = &field.name;
    if data.data_type() != field.data_type {
        return Err(format!("field {name:?} is {}, not {}", field.data_type, data.data_type()));
    }
    match data {
        ColumnData::FloatVector { dim, packed }
        | ColumnData::Float16Vector { dim, packed }
        | ColumnData::BinaryVector { dim, packed } => {
            let declared = field.dim.unwrap_or(0) as usize;
            if *dim != declared || *dim == 0 {
                return Err(format!("field {name:?} has {declared} dimensions, not {dim}"));
            }
            if data.width() == Some(0) || !packed.len().is_multiple_of(data.width().unwrap_or(1)) {
                return Err(format!("field {name:?} has {} bytes, no multiple of {dim} dimensions", packed.len()));
            }
            let finite = match data {
                ColumnData::FloatVector { .. } => all_finite(packed),
                ColumnData::Float16Vector { .. } => all_finite_halves(packed),
                _ => true,
            };
            if !finite {
                return Err(format!("field {name:?} has NaN or an infinity in a vector"));
            }
        }
        ColumnData::SparseFloatVector(rows) => {
            if !rows.iter().all(|row| is_sparse(row)) {
                return Err(format!("field {name:?} has bytes that are no SPARSE_FLOAT_VECTOR"));
            }
        }
        ColumnData::Array { element, rows } => {
            if Some(*element) != field.element_type || rows.iter().any(|row| row.data_type() != *element) {
                return Err(format!("field {name:?} has elements of another type than declared"));
            }
            rows.iter().try_for_each(|row| check_scalars(name, row))?;
        }
        scalars => check_scalars(name, scalars)?,
    }
    Ok(())
}

fn check_scalars(name: &str, data: &ColumnData) -> Result<(), String> {
    let whole = match data {
        ColumnData::Bool(values) => values.iter().all(|&byte| byte <= 1),
        ColumnData::Float(packed) => packed.len().is_multiple_of(4),
        ColumnData::Double(packed) => packed.len().is_multiple_of(8),
        // Servers unmarshal `string`: one bad byte fails the request as a whole, with no hint at the value.
        ColumnData::VarChar(values) | ColumnData::Timestamptz(values) => {
            values.iter().all(|value| std::str::from_utf8(value).is_ok())
        }
        ColumnData::Array { .. }
        | ColumnData::FloatVector { .. }
        | ColumnData::Float16Vector { .. }
        | ColumnData::BinaryVector { .. }
        | ColumnData::SparseFloatVector(_) => false,
        ColumnData::Int8(_)
        | ColumnData::Int16(_)
        | ColumnData::Int32(_)
        | ColumnData::Int64(_)
        | ColumnData::Json(_) => true,
    };
    if whole { Ok(()) } else { Err(format!("field {name:?} has bytes that are no {}", data.data_type())) }
}

/// Is no little-endian `f32` in `packed` NaN or infinite? Both have all eight bits of the exponent set.
fn all_finite(packed: &[u8]) -> bool {
    const EXPONENT: u32 = 0x7F80_0000;
    // No early exit within a block: the compiler makes vector instructions of it.
    packed.chunks(4096).all(|block| {
        let (words, _) = block.as_chunks::<4>();
        words.iter().fold(true, |finite, &word| finite & (u32::from_le_bytes(word) & EXPONENT != EXPONENT))
    })
}

/// The same of binary16.
fn all_finite_halves(packed: &[u8]) -> bool {
    const EXPONENT: u16 = 0x7C00;
    packed.as_chunks::<2>().0.iter().all(|&half| u16::from_le_bytes(half) & EXPONENT != EXPONENT)
}

/// Elements by ascending index, none negative, NaN or infinite: what Milvus takes.
fn is_sparse(row: &[u8]) -> bool {
    let (elements, rest) = row.as_chunks::<8>();
    let mut last = None;
    rest.is_empty()
        && elements.iter().all(|&[a, b, c, d, e, f, g, h]| {
            let (index, value) = (u32::from_le_bytes([a, b, c, d]), f32::from_le_bytes([e, f, g, h]));
            let ascending = last.is_none_or(|last| last < index) && index < u32::MAX;
            last = Some(index);
            ascending && value.is_finite() && value >= 0.0
        })
}

impl ColumnData {
    /// Bytes of one value, where all have the same number.
    pub(crate) fn width(&self) -> Option<usize> {
        match self {
            ColumnData::Bool(_) => Some(1),
            ColumnData::Float(_) => Some(4),
            ColumnData::Double(_) => Some(8),
            ColumnData::FloatVector { dim, .. } => Some(dim * 4),
            ColumnData::Float16Vector { dim, .. } => Some(dim * 2),
            ColumnData::BinaryVector { dim, .. } => Some(dim / 8),
            _ => None,
        }
    }

    /// The field type that such a column belongs to.
    pub fn data_type(&self) -> DataType {
        match self {
            ColumnData::Bool(_) => DataType::Bool,
            ColumnData::Int8(_) => DataType::Int8,
            ColumnData::Int16(_) => DataType::Int16,
            ColumnData::Int32(_) => DataType::Int32,
            ColumnData::Int64(_) => DataType::Int64,
            ColumnData::Float(_) => DataType::Float,
            ColumnData::Double(_) => DataType::Double,
            ColumnData::VarChar(_) => DataType::VarChar,
            ColumnData::Json(_) => DataType::Json,
            ColumnData::Array { .. } => DataType::Array,
            ColumnData::Timestamptz(_) => DataType::Timestamptz,
            ColumnData::FloatVector { .. } => DataType::FloatVector,
            ColumnData::Float16Vector { .. } => DataType::Float16Vector,
            ColumnData::BinaryVector { .. } => DataType::BinaryVector,
            ColumnData::SparseFloatVector(_) => DataType::SparseFloatVector,
        }
    }

    /// A column of that field without values; `None` for types that no column can hold yet.
    pub(crate) fn empty(field: &FieldSchema) -> Option<ColumnData> {
        let (dim, packed) = (field.dim.unwrap_or(0) as usize, Vec::new());
        Some(match field.data_type {
            DataType::Array => ColumnData::Array { element: field.element_type?, rows: Vec::new() },
            DataType::FloatVector => ColumnData::FloatVector { dim, packed },
            DataType::Float16Vector => ColumnData::Float16Vector { dim, packed },
            DataType::BinaryVector => ColumnData::BinaryVector { dim, packed },
            DataType::SparseFloatVector => ColumnData::SparseFloatVector(Vec::new()),
            scalar => ColumnData::empty_scalar(scalar)?,
        })
    }

    pub(crate) fn empty_scalar(data_type: DataType) -> Option<ColumnData> {
        Some(match data_type {
            DataType::Bool => ColumnData::Bool(Vec::new()),
            DataType::Int8 => ColumnData::Int8(Vec::new()),
            DataType::Int16 => ColumnData::Int16(Vec::new()),
            DataType::Int32 => ColumnData::Int32(Vec::new()),
            DataType::Int64 => ColumnData::Int64(Vec::new()),
            DataType::Float => ColumnData::Float(Vec::new()),
            DataType::Double => ColumnData::Double(Vec::new()),
            DataType::VarChar => ColumnData::VarChar(Vec::new()),
            DataType::Json => ColumnData::Json(Vec::new()),
            DataType::Timestamptz => ColumnData::Timestamptz(Vec::new()),
            DataType::Array
            | DataType::BinaryVector
            | DataType::FloatVector
            | DataType::Float16Vector
            | DataType::BFloat16Vector
            | DataType::SparseFloatVector => return None,
        })
    }

    /// Put `other`'s values behind ours. False, and nothing done, if it is of another type.
    fn append(&mut self, other: ColumnData) -> bool {
        match (self, other) {
            (ColumnData::Bool(ours), ColumnData::Bool(mut more)) => ours.append(&mut more),
            (ColumnData::Int8(ours), ColumnData::Int8(mut more)) => ours.append(&mut more),
            (ColumnData::Int16(ours), ColumnData::Int16(mut more)) => ours.append(&mut more),
            (ColumnData::Int32(ours), ColumnData::Int32(mut more)) => ours.append(&mut more),
            (ColumnData::Int64(ours), ColumnData::Int64(mut more)) => ours.append(&mut more),
            (ColumnData::Float(ours), ColumnData::Float(mut more)) => ours.append(&mut more),
            (ColumnData::Double(ours), ColumnData::Double(mut more)) => ours.append(&mut more),
            (ColumnData::VarChar(ours), ColumnData::VarChar(mut more)) => ours.append(&mut more),
            (ColumnData::Json(ours), ColumnData::Json(mut more)) => ours.append(&mut more),
            (ColumnData::Array { element: a, rows: ours }, ColumnData::Array { element: b, rows: mut more })
                if *a == b =>
            {
                ours.append(&mut more)
            }
            (ColumnData::Timestamptz(ours), ColumnData::Timestamptz(mut more)) => ours.append(&mut more),
            (ColumnData::SparseFloatVector(ours), ColumnData::SparseFloatVector(mut more)) => ours.append(&mut more),
            (
                ColumnData::FloatVector { dim: a, packed: ours },
                ColumnData::FloatVector { dim: b, packed: mut more },
            )
            | (
                ColumnData::Float16Vector { dim: a, packed: ours },
                ColumnData::Float16Vector { dim: b, packed: mut more },
            )
            | (
                ColumnData::BinaryVector { dim: a, packed: ours },
                ColumnData::BinaryVector { dim: b, packed: mut more },
            ) if *a == b => ours.append(&mut more),
            _ => return false,
        }
        true
    }

    /// Keep the first `values` of them.
    pub(crate) fn truncate(&mut self, values: usize) {
        let bytes = values * self.width().unwrap_or_default();
        match self {
            ColumnData::Int8(ours) | ColumnData::Int16(ours) | ColumnData::Int32(ours) => ours.truncate(values),
            ColumnData::Int64(ours) => ours.truncate(values),
            ColumnData::VarChar(ours)
            | ColumnData::Json(ours)
            | ColumnData::Timestamptz(ours)
            | ColumnData::SparseFloatVector(ours) => ours.truncate(values),
            ColumnData::Array { rows: ours, .. } => ours.truncate(values),
            ColumnData::Bool(packed)
            | ColumnData::Float(packed)
            | ColumnData::Double(packed)
            | ColumnData::FloatVector { packed, .. }
            | ColumnData::Float16Vector { packed, .. }
            | ColumnData::BinaryVector { packed, .. } => packed.truncate(bytes),
        }
    }
}

impl FieldColumn {
    /// How many entities it covers, NULLs included.
    pub fn rows(&self) -> usize {
        self.valid.as_ref().map_or_else(|| self.data.len(), Vec::len)
    }

    /// Put the entities of `more` behind ours. False, and nothing done, if the types differ.
    pub(crate) fn append(&mut self, more: FieldColumn) -> bool {
        let (ours, theirs) = (self.rows(), more.rows());
        let mut valid = None;
        if self.valid.is_some() || more.valid.is_some() {
            let mut joined = self.valid.clone().unwrap_or_else(|| vec![1; ours]);
            joined.extend(more.valid.unwrap_or_else(|| vec![1; theirs]));
            valid = Some(joined);
        }
        let same = self.data.append(more.data);
        if same {
            self.valid = valid;
        }
        same
    }

    /// Keep the first `rows` entities.
    pub(crate) fn truncate(&mut self, rows: usize) {
        let values = match &mut self.valid {
            Some(valid) => {
                valid.truncate(rows);
                valid.iter().filter(|&&byte| byte == 1).count()
            }
            None => rows,
        };
        self.data.truncate(values);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn field(name: &str, data_type: DataType) -> FieldSchema {
        FieldSchema {
            name: name.into(),
            data_type,
            is_primary: name == "id",
            auto_id: false,
            nullable: name.starts_with('n'),
            element_type: (data_type == DataType::Array).then_some(DataType::Int64),
            max_length: None,
            max_capacity: None,
            dim: (data_type == DataType::FloatVector).then_some(2),
            description: String::new(),
            default_value: None,
            is_partition_key: false,
            mmap: None,
        }
    }

    fn schema() -> CollectionSchema {
        CollectionSchema {
            name: "c".into(),
            description: String::new(),
            fields: vec![
                field("id", DataType::Int64),
                field("nt", DataType::VarChar),
                field("t", DataType::VarChar),
                field("a", DataType::Array),
                field("v", DataType::FloatVector),
            ],
            enable_dynamic_field: false,
            num_shards: None,
            consistency_level: None,
            num_partitions: None,
            properties: std::collections::BTreeMap::new(),
        }
    }

    fn column(name: &str, valid: Option<&[u8]>, data: ColumnData) -> FieldColumn {
        FieldColumn { name: name.into(), valid: valid.map(<[u8]>::to_vec), data }
    }

    fn floats(values: &[f32]) -> Vec<u8> {
        values.iter().flat_map(|value| value.to_le_bytes()).collect()
    }

    fn text(values: &[&'static str]) -> ColumnData {
        ColumnData::VarChar(values.iter().map(|value| Bytes::from_static(value.as_bytes())).collect())
    }

    fn id() -> FieldColumn {
        column("id", None, ColumnData::Int64(vec![1, 2]))
    }

    #[test]
    fn a_whole_batch_passes() {
        let batch = [
            id(),
            column("nt", Some(&[0, 1]), text(&["x"])),
            column(
                "a",
                None,
                ColumnData::Array {
                    element: DataType::Int64,
                    rows: vec![ColumnData::Int64(vec![]), ColumnData::Int64(vec![1])],
                },
            ),
            column(
                "v",
                None,
                ColumnData::FloatVector { dim: 2, packed: floats(&[0.0, -1.0, f32::MAX, f32::MIN_POSITIVE]) },
            ),
        ];
        assert_eq!(check(&schema(), &batch, 2), Ok(()));
    }

    #[test]
    fn every_slip_is_named() {
        let vector = |dim, values: &[f32]| column("v", None, ColumnData::FloatVector { dim, packed: floats(values) });
        let cases = [
            (vec![], "the primary field \"id\" is missing"),
            (vec![id(), id()], "stands twice"),
            (vec![id(), column("x", None, text(&["a", "b"]))], "has no field \"x\""),
            (vec![id(), column("t", None, ColumnData::Int64(vec![1, 2]))], "is VARCHAR, not INT64"),
            (vec![id(), column("t", None, text(&["a"]))], "has 1 values for 2 entities"),
            (vec![id(), column("nt", Some(&[1]), text(&["a"]))], "has 1 marks"),
            (vec![id(), column("nt", Some(&[1, 2]), text(&["a"]))], "has 2 marks"),
            (vec![id(), column("nt", Some(&[1, 1]), text(&["a"]))], "has 1 values for 2 valid"),
            (vec![id(), column("t", Some(&[1, 0]), text(&["a"]))], "is not nullable and has 1 NULLs"),
            (
                vec![id(), column("t", None, ColumnData::VarChar(vec![Bytes::from_static(b"\xff"), Bytes::new()]))],
                "no VARCHAR",
            ),
            (vec![id(), vector(3, &[0.0; 6])], "has 2 dimensions, not 3"),
            (vec![id(), vector(2, &[0.0; 3])], "no multiple of 2 dimensions"),
            (vec![id(), vector(2, &[0.0, 1.0, f32::NAN, 0.0])], "NaN"),
            (vec![id(), vector(2, &[0.0, f32::NEG_INFINITY, 1.0, 0.0])], "infinity"),
            (
                vec![
                    id(),
                    column(
                        "a",
                        None,
                        ColumnData::Array { element: DataType::VarChar, rows: vec![text(&[]), text(&[])] },
                    ),
                ],
                "another type",
            ),
        ];
        for (batch, expected) in cases {
            let slip = check(&schema(), &batch, 2).expect_err(expected);
            assert!(slip.contains(expected), "{slip:?} should contain {expected:?}");
        }
        assert_eq!(check(&schema(), &[], 0), Err("no entities".to_owned()));
    }

    #[test]
    fn the_last_float_of_a_long_vector_is_looked_at_too() {
        let mut values = vec![1.0f32; 5000];
        assert!(all_finite(&floats(&values)));
        values[4999] = f32::INFINITY;
        assert!(!all_finite(&floats(&values)));
    }

    #[test]
    fn pages_join_and_are_cut_with_their_nulls() {
        let mut joined = column("nt", None, text(&["a", "b"]));
        assert!(joined.append(column("nt", Some(&[0, 1, 0]), text(&["c"]))));
        assert_eq!(joined, column("nt", Some(&[1, 1, 0, 1, 0]), text(&["a", "b", "c"])));
        joined.truncate(3);
        assert_eq!(joined, column("nt", Some(&[1, 1, 0]), text(&["a", "b"])));
        assert!(!joined.append(id()));
        assert_eq!(joined.rows(), 3);

        let mut vectors = column("v", None, ColumnData::FloatVector { dim: 2, packed: floats(&[1.0, 2.0]) });
        assert!(vectors.append(column("v", None, ColumnData::FloatVector { dim: 2, packed: floats(&[3.0, 4.0]) })));
        vectors.truncate(1);
        assert_eq!(vectors.data, ColumnData::FloatVector { dim: 2, packed: floats(&[1.0, 2.0]) });
    }
}
