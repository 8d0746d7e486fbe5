//! Rows to columns: what PostgreSQL sent, as the columns of one upsert.
//!
//! In: complete rows with their keys. Out: a column for every field of the collection, and the rows that the
//! collection cannot hold, each with its reason and by the policy of its field: refused, left out, or altered.
//!
//! Holds: every column has a value for each accepted row, in the order given; a row that is refused or skipped is in none of
//! them, and nothing is altered but by a policy, which is counted. The guards
//! are ours because servers disagree about what they refuse: one counts a VARCHAR in characters, one accepts NaN, one
//! takes an array over its capacity, and none says which row it was. Text and JSON are slices of the received bytes,
//! vectors are swapped straight into their column, printed text and keys share one buffer a batch.
//!
//! Not here: which rows and when (`engine`), making the key (`plan::key`), what the server refuses all the same.

mod field;
mod json;
mod scalar;

use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use crate::change::Row;
use crate::config::settings::OnMisfit;
use crate::milvus::{ColumnData, DataType, FieldColumn, FieldSchema, Keys};
use crate::mutation::{Key, Refusal};
use crate::plan::TablePlan;
use crate::postgres::decode::DecodeError;

use field::{FieldEncoder, Long, Misfit};

/// Encodes rows of one table. Made once, shared by all who encode.
#[derive(Clone, Debug)]
pub struct Encoder {
    fields: Vec<FieldEncoder>,
    int_keys: bool,
}

/// The columns of one upsert.
#[derive(Clone, Debug, PartialEq)]
pub struct Encoded {
    /// Every field of the collection, in its order.
    pub columns: Vec<FieldColumn>,
    /// How many rows each column holds; 0: there is nothing to send.
    pub rows: usize,
    /// Rows that stop the table or become dead letters, by their index in what was given.
    pub refused: Vec<(usize, Refusal)>,
    /// Rows that a policy leaves out: their entities are to be deleted.
    pub skipped: Vec<(usize, Refusal)>,
    /// Values that a policy replaced or cut: the field, the policy, how many.
    pub altered: Vec<(Arc<str>, OnMisfit, u64)>,
}

/// What becomes of a row.
enum Verdict {
    Refused(Refusal),
    Skipped(Refusal),
}

impl Encoder {
    pub fn new(table: &TablePlan) -> Encoder {
        let primary = table.key.field();
        let field = |(i, schema): (usize, &FieldSchema)| {
            // The primary field is filled from the key, whether it is a column or made from several.
            if i == primary {
                return FieldEncoder::key(schema);
            }
            if table.placeholder == Some(i) {
                return FieldEncoder::placeholder(schema);
            }
            let at = table.columns.iter().position(|column| column.field == i);
            let at = at.expect("every field but the primary one and the placeholder has a column");
            FieldEncoder::column(schema, at, &table.columns[at])
        };
        let dynamic = FieldEncoder::dynamic(&table.columns);
        Encoder {
            fields: table.collection.fields.iter().enumerate().map(field).chain(dynamic).collect(),
            int_keys: table.collection.fields.get(primary).is_some_and(|field| field.data_type == DataType::Int64),
        }
    }

    pub fn encode(&self, rows: &[(Key, Row)]) -> Encoded {
        let mut columns: Vec<Column> = self.fields.iter().map(|field| field.empty(rows.len())).collect();
        let mut arena = Arena::default();
        let mut altered = vec![0; self.fields.len()];
        let mut accepted = 0;
        let (mut refused, mut skipped) = (Vec::new(), Vec::new());
        for (i, (key, row)) in rows.iter().enumerate() {
            let before = altered.clone();
            let result =
                self.fields.iter().zip(&mut columns).zip(&mut altered).try_for_each(|((field, column), altered)| {
                    match field.append(key, row, Long::Misfit, column, &mut arena) {
                        Ok(()) => Ok(()),
                        Err(misfit) => {
                            column.truncate(accepted);
                            *altered += 1;
                            settle(field, misfit, key, row, column, &mut arena)
                        }
                    }
                });
            match result {
                Ok(()) => accepted += 1,
                Err(verdict) => {
                    columns.iter_mut().for_each(|column| column.truncate(accepted));
                    altered = before;
                    match verdict {
                        Verdict::Refused(refusal) => refused.push((i, refusal)),
                        Verdict::Skipped(refusal) => skipped.push((i, refusal)),
                    }
                }
            }
        }
        let named = self.fields.iter().zip(columns).map(|(field, column)| FieldColumn {
            name: Arc::clone(&field.name),
            valid: column.valid,
            data: column.data,
        });
        let altered = self.fields.iter().zip(altered).filter(|&(_, count)| count > 0);
        Encoded {
            columns: named.collect(),
            rows: accepted,
            refused,
            skipped,
            altered: altered.map(|(field, count)| (Arc::clone(&field.name), field.on_misfit, count)).collect(),
        }
    }

    /// Keys as a delete or query takes them.
    pub fn keys(&self, keys: &[Key]) -> Keys {
        let int = |key: &Key| if let Key::Int(key) = key { *key } else { panic!("a table has keys of one kind") };
        let text =
            |key: &Key| if let Key::Text(key) = key { Arc::clone(key) } else { panic!("a table has keys of one kind") };
        if self.int_keys {
            Keys::Int64(keys.iter().map(int).collect())
        } else {
            Keys::VarChar(keys.iter().map(text).collect())
        }
    }

    /// About how many bytes the row is in a request.
    pub fn row_bytes(&self, key: &Key, row: &Row) -> usize {
        self.fields.iter().map(|field| field.bytes(key, row)).sum()
    }
}

/// What the field's policy does about a misfit, in a column from which what was appended is gone again.
fn settle(
    field: &FieldEncoder,
    misfit: Misfit,
    key: &Key,
    row: &Row,
    column: &mut Column,
    arena: &mut Arena,
) -> Result<(), Verdict> {
    let refusal = |misfit: &Misfit| Refusal {
        field: Some(field.name.to_string()),
        reason: misfit.to_string(),
        dead_letter: field.on_misfit == OnMisfit::DeadLetter && misfit.is_of_field(),
    };
    if !misfit.is_of_field() {
        return Err(Verdict::Refused(refusal(&misfit)));
    }
    match field.on_misfit {
        OnMisfit::Error | OnMisfit::DeadLetter => Err(Verdict::Refused(refusal(&misfit))),
        OnMisfit::SkipRow => Err(Verdict::Skipped(refusal(&misfit))),
        OnMisfit::Null if column.append_null() => Ok(()),
        OnMisfit::Null => Err(Verdict::Refused(refusal(&misfit))),
        OnMisfit::Truncate => {
            field.append(key, row, Long::Cut, column, arena).map_err(|misfit| Verdict::Refused(refusal(&misfit)))
        }
    }
}

/// One buffer for the many small texts of a batch, cut into slices that share it.
#[derive(Default)]
struct Arena {
    buffer: BytesMut,
    scratch: Vec<u8>,
}

impl Arena {
    /// Bytes that the buffer grows by.
    const CHUNK: usize = 16 * 1024;

    fn keep(&mut self, text: &[u8]) -> Bytes {
        if self.buffer.capacity() < text.len() {
            self.buffer = BytesMut::with_capacity(text.len().max(Self::CHUNK));
        }
        self.buffer.extend_from_slice(text);
        self.buffer.split().freeze()
    }

    fn print(&mut self, print: impl FnOnce(&mut Vec<u8>) -> Result<(), DecodeError>) -> Result<Bytes, DecodeError> {
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.clear();
        let printed = print(&mut scratch).map(|()| self.keep(&scratch));
        self.scratch = scratch;
        printed
    }
}

/// A column being filled.
struct Column {
    data: ColumnData,
    valid: Option<Vec<u8>>,
}

impl Column {
    /// False, and nothing done, where no NULL may be.
    fn append_null(&mut self) -> bool {
        match &mut self.valid {
            Some(valid) => {
                valid.push(0);
                true
            }
            None => false,
        }
    }

    /// Back to the first `rows` rows.
    fn truncate(&mut self, rows: usize) {
        let values = match &mut self.valid {
            Some(valid) => {
                valid.truncate(rows);
                valid.iter().filter(|&&valid| valid == 1).count()
            }
            None => rows,
        };
        self.data.truncate(values);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::Value;
    use crate::config::settings::{Encoding, FieldSettings, TableSettings};
    use crate::plan::build;
    use crate::plan::tests::{column, server, settings, table, vector};

    fn plan(columns: Vec<crate::postgres::catalog::Column>) -> TablePlan {
        let plan = build(&[(table(columns), settings())], &server()).expect("a plan");
        plan.tables.into_iter().next().expect("one table")
    }

    fn binary(bytes: impl Into<Vec<u8>>) -> Value {
        Value::Binary(bytes.into().into())
    }

    fn text(text: &str) -> Value {
        Value::Text(Bytes::copy_from_slice(text.as_bytes()))
    }

    fn floats(floats: &[f32]) -> Value {
        let mut value = (floats.len() as i16).to_be_bytes().to_vec();
        value.extend([0, 0]);
        value.extend(floats.iter().flat_map(|f| f.to_be_bytes()));
        binary(value)
    }

    fn int4s(elements: &[i32]) -> Value {
        let mut value = [1, 0, 23, elements.len() as i32, 1].map(i32::to_be_bytes).concat();
        value.extend(elements.iter().flat_map(|e| [4, *e].map(i32::to_be_bytes).concat()));
        binary(value)
    }

    fn encode(plan: &TablePlan, rows: Vec<Vec<Value>>) -> Encoded {
        let keyed = |row: Vec<Value>| {
            let row = Row(row.into());
            (plan.key.key(plan, &row).expect("a key"), row)
        };
        let rows: Vec<(Key, Row)> = rows.into_iter().map(keyed).collect();
        let encoded = Encoder::new(plan).encode(&rows);
        for column in &encoded.columns {
            let valid = column.valid.as_ref().map_or(encoded.rows, |valid| valid.iter().filter(|&&v| v == 1).count());
            assert_eq!(column.data.len(), valid, "{}", column.name);
            assert_eq!(column.valid.as_ref().map_or(encoded.rows, Vec::len), encoded.rows, "{}", column.name);
        }
        encoded
    }

    /// A column of each kind, and the same rows in both forms.
    fn everything() -> (TablePlan, Vec<Value>, Vec<Value>) {
        let plan = plan(vec![
            column("id", "int8"),
            column("embedding", "vector(2)"),
            column("flag", "bool"),
            column("small", "int2"),
            column("medium", "int4"),
            column("real", "float4"),
            column("double", "float8"),
            column("title", "text"),
            column("price", "numeric"),
            column("day", "date"),
            column("doc", "jsonb"),
            column("raw", "json"),
            column("tags", "int4[]"),
        ]);
        let numeric = [2i16, 0, 0, 2, 12, 3400].map(i16::to_be_bytes).concat();
        let in_binary = vec![
            binary(7i64.to_be_bytes()),
            floats(&[1.5, -2.0]),
            binary([1]),
            binary((-3i16).to_be_bytes()),
            binary(4i32.to_be_bytes()),
            binary(0.5f32.to_be_bytes()),
            binary(0.25f64.to_be_bytes()),
            binary("héllo"),
            binary(numeric),
            binary(0i32.to_be_bytes()),
            binary("\x01{\"a\": 1}"),
            binary(" [1, 2]"),
            int4s(&[5, 6]),
        ];
        let in_text = [
            "7",
            "[1.5,-2]",
            "t",
            "-3",
            "4",
            "0.5",
            "0.25",
            "héllo",
            "12.34",
            "2000-01-01",
            "{\"a\": 1}",
            " [1, 2]",
            "{5,6}",
        ];
        (plan, in_binary, in_text.map(text).to_vec())
    }

    #[test]
    fn binary_and_text_rows_make_the_same_columns() {
        let (plan, in_binary, in_text) = everything();
        let encoded = encode(&plan, vec![in_binary.clone(), in_text]);
        assert_eq!((encoded.rows, &encoded.refused), (2, &vec![]));
        let f32s = |floats: &[f32]| floats.iter().flat_map(|f| f.to_le_bytes()).collect::<Vec<u8>>();
        let f64s = |floats: &[f64]| floats.iter().flat_map(|f| f.to_le_bytes()).collect::<Vec<u8>>();
        let ints = || ColumnData::Int32(vec![5, 6]);
        let twice = |text: &'static str| vec![Bytes::from(text); 2];
        let expected = [
            ColumnData::Int64(vec![7, 7]),
            ColumnData::FloatVector { dim: 2, packed: f32s(&[1.5, -2.0, 1.5, -2.0]) },
            ColumnData::Bool(vec![1, 1]),
            ColumnData::Int16(vec![-3, -3]),
            ColumnData::Int32(vec![4, 4]),
            ColumnData::Float(f32s(&[0.5, 0.5])),
            ColumnData::Double(f64s(&[0.25, 0.25])),
            ColumnData::VarChar(twice("héllo")),
            ColumnData::VarChar(twice("12.34")),
            ColumnData::VarChar(twice("2000-01-01")),
            ColumnData::Json(twice("{\"a\": 1}")),
            ColumnData::Json(twice(" [1, 2]")),
            ColumnData::Array { element: DataType::Int32, rows: vec![ints(), ints()] },
        ];
        let data: Vec<ColumnData> = encoded.columns.into_iter().map(|column| column.data).collect();
        assert_eq!(data, expected);
    }

    #[test]
    fn nulls_are_marked_and_have_no_value() {
        let (plan, row, _) = everything();
        let mut nulls = row.clone();
        nulls[2..].fill(Value::Null);
        let encoded = encode(&plan, vec![row.clone(), nulls, row]);
        assert_eq!(encoded.rows, 3);
        for column in &encoded.columns[..2] {
            assert_eq!(column.valid, None);
        }
        for column in &encoded.columns[2..] {
            assert_eq!(column.valid, Some(vec![1, 0, 1]), "{}", column.name);
        }
    }

    /// Each misfit refuses its row alone and leaves no trace in any column.
    #[test]
    fn a_row_that_does_not_fit_is_left_out_of_every_column() {
        let (plan, row, _) = everything();
        let at = |name: &str| plan.columns.iter().position(|column| column.name == name).expect("a column");
        let too_many = vec![0; 4_097];
        let long = "x".repeat(65_536);
        let misfits = [
            ("embedding", Value::Null, "NULL, and the field is not nullable"),
            ("embedding", floats(&[1.0]), "the vector has 1 dimensions, the field 2"),
            ("embedding", floats(&[1.0, f32::NAN]), "the vector holds NaN or infinity"),
            ("embedding", text("[1,2"), "the bytes are not a value of type vector"),
            ("embedding", Value::UnchangedToast, "the value was not sent: it is stored out of line and unchanged"),
            ("small", text("32768"), "the value is beyond the range of INT16"),
            ("medium", binary([0, 0]), "the value ends before its type does"),
            ("title", text(&long), "65536 bytes, and the field takes 65535"),
            ("title", binary([0xFF]), "the text is not UTF-8"),
            ("title", binary([b'a', 0]), "the text holds a NUL byte"),
            ("doc", binary("\x01null"), "a JSON scalar or null at the top: Milvus keeps objects and arrays"),
            ("raw", text("\"s\""), "a JSON scalar or null at the top: Milvus keeps objects and arrays"),
            ("tags", int4s(&too_many), "4097 elements, and the field takes 4096"),
            ("tags", text("{1,NULL}"), "the array holds a NULL; an ARRAY field holds none"),
            ("tags", text("{{1},{2}}"), "the array has 2 dimensions; an ARRAY field holds one"),
        ];
        let alone = encode(&plan, vec![row.clone(), row.clone()]);
        for (name, value, reason) in misfits {
            let mut bad = row.clone();
            bad[at(name)] = value;
            let encoded = encode(&plan, vec![row.clone(), bad, row.clone()]);
            assert_eq!(encoded.columns, alone.columns, "{name}: {reason}");
            assert_eq!(
                encoded.refused,
                [(1, Refusal { field: Some(name.into()), reason: reason.into(), dead_letter: false })]
            );
        }
    }

    /// What the policies do, and that what they leave is whole.
    #[test]
    fn policies_alter_skip_and_count() {
        let policy = |on_misfit, limits: FieldSettings| {
            let fields = vec![("title".to_owned(), FieldSettings { on_misfit: Some(on_misfit), ..limits })];
            let settings = TableSettings { fields, ..settings() };
            let columns = vec![column("id", "int8"), column("title", "text"), column("n", "int4"), vector("v", 2)];
            build(&[(table(columns), settings)], &server()).expect("a plan").tables.remove(0)
        };
        let short = || FieldSettings { max_length: Some(4), ..Default::default() };
        let row = |id: &str, title: &str| vec![text(id), text(title), text("7"), text("[1,2]")];
        let rows = || vec![row("1", "ab"), row("2", "ééé"), row("3", "cd")];
        let titles = |encoded: &Encoded| match &encoded.columns[1].data {
            ColumnData::VarChar(titles) => titles.iter().map(|t| String::from_utf8_lossy(t).into_owned()).collect(),
            _ => Vec::new(),
        };

        let encoded = encode(&policy(OnMisfit::Truncate, short()), rows());
        assert_eq!(titles(&encoded), ["ab", "éé", "cd"]);
        assert_eq!(encoded.altered, [("title".into(), OnMisfit::Truncate, 1)]);
        let encoded = encode(&policy(OnMisfit::Null, short()), rows());
        assert_eq!(titles(&encoded), ["ab", "cd"]);
        assert_eq!(encoded.columns[1].valid, Some(vec![1, 0, 1]));
        assert_eq!(encoded.altered, [("title".into(), OnMisfit::Null, 1)]);
        let encoded = encode(&policy(OnMisfit::SkipRow, short()), rows());
        assert_eq!((encoded.rows, encoded.altered.len(), encoded.refused.len()), (2, 0, 0));
        let reason = "6 bytes, and the field takes 4".to_owned();
        assert_eq!(encoded.skipped, [(1, Refusal { field: Some("title".into()), reason, dead_letter: false })]);
        let encoded = encode(&policy(OnMisfit::Error, short()), rows());
        assert_eq!((encoded.rows, encoded.refused.len()), (2, 1));

        // A value that we read wrongly is no policy's affair, nor is one that was not sent.
        for broken in [binary([0, 0]), Value::UnchangedToast] {
            let mut rows = rows();
            rows[1] = vec![text("2"), text("x"), broken, text("[1,2]")];
            let settings = TableSettings { on_misfit: OnMisfit::SkipRow, ..settings() };
            let columns = vec![column("id", "int8"), column("title", "text"), column("n", "int4"), vector("v", 2)];
            let plan = build(&[(table(columns), settings)], &server()).expect("a plan").tables.remove(0);
            let encoded = encode(&plan, rows);
            assert_eq!((encoded.refused.len(), encoded.skipped.len()), (1, 0));
        }
        // What was altered before another field refused the row is not counted.
        let mut rows = rows();
        rows[1][2] = binary([0, 0]);
        let encoded = encode(&policy(OnMisfit::Truncate, short()), rows);
        assert_eq!((encoded.refused.len(), encoded.altered.len()), (1, 0));
    }

    #[test]
    fn arrays_are_cut_at_an_element_and_their_texts_at_a_character() {
        let limits = FieldSettings {
            max_length: Some(3),
            max_capacity: Some(2),
            on_misfit: Some(OnMisfit::Truncate),
            ..Default::default()
        };
        let settings = TableSettings { fields: vec![("a".to_owned(), limits)], ..settings() };
        let columns = vec![column("id", "int8"), column("a", "text[]"), vector("v", 2)];
        let plan = build(&[(table(columns), settings)], &server()).expect("a plan").tables.remove(0);
        let row = |array: &str| vec![text("1"), text(array), text("[1,2]")];
        let encoded = encode(&plan, vec![row("{éé,b,c}"), row("{x}"), row("{NULL}")]);
        let ColumnData::Array { rows, .. } = &encoded.columns[1].data else { panic!("an array") };
        assert_eq!(rows[0], ColumnData::VarChar(vec!["é".into(), "b".into()]));
        assert_eq!((encoded.rows, encoded.altered[0].2), (2, 1));
        // A NULL element cannot be cut off.
        assert_eq!(encoded.refused[0].1.reason, "the array holds a NULL; an ARRAY field holds none");
    }

    /// Chosen targets take both forms alike.
    #[test]
    fn chosen_targets_take_both_forms_alike() {
        let day = 86_400_000_000i64;
        let sparse = [&[9i32, 1, 0, 2].map(i32::to_be_bytes).concat()[..], &0.5f32.to_be_bytes()].concat();
        let half = [&1i16.to_be_bytes()[..], &[0, 0], &0x3800u16.to_be_bytes()].concat();
        let bits = [&8i32.to_be_bytes()[..], &[0xA0]].concat();
        for (type_name, target, encoding, in_binary, in_text, expected) in [
            (
                "timestamptz",
                "INT64",
                None,
                day.to_be_bytes().to_vec(),
                "2000-01-02 00:00:00+00",
                ColumnData::Int64(vec![946_771_200_000_000; 2]),
            ),
            (
                "timestamptz",
                "TIMESTAMPTZ",
                None,
                day.to_be_bytes().to_vec(),
                "2000-01-02 00:00:00+00",
                ColumnData::Timestamptz(vec!["2000-01-02T00:00:00Z".into(); 2]),
            ),
            ("date", "INT64", None, 1i32.to_be_bytes().to_vec(), "2000-01-02", ColumnData::Int64(vec![10_958; 2])),
            ("int4", "INT8", None, (-5i32).to_be_bytes().to_vec(), "-5", ColumnData::Int8(vec![-5; 2])),
            ("int4", "VARCHAR", None, (-5i32).to_be_bytes().to_vec(), "-5", ColumnData::VarChar(vec!["-5".into(); 2])),
            (
                "float4",
                "DOUBLE",
                None,
                0.1f32.to_be_bytes().to_vec(),
                "0.1",
                ColumnData::Double([f64::from(0.1f32).to_le_bytes(); 2].concat()),
            ),
            (
                "numeric",
                "DOUBLE",
                None,
                [1i16, 0, 0, 1, 7].map(i16::to_be_bytes).concat(),
                "7.0",
                ColumnData::Double([7f64.to_le_bytes(); 2].concat()),
            ),
            (
                "numeric",
                "INT64",
                None,
                [1i16, 0, 0, 1, 7].map(i16::to_be_bytes).concat(),
                "7.0",
                ColumnData::Int64(vec![7; 2]),
            ),
            (
                "bytea",
                "VARCHAR",
                Some(Encoding::Base64),
                vec![0, 255],
                "\\x00ff",
                ColumnData::VarChar(vec!["AP8=".into(); 2]),
            ),
            (
                "bytea",
                "VARCHAR",
                Some(Encoding::Hex),
                vec![0, 255],
                "\\x00ff",
                ColumnData::VarChar(vec!["00ff".into(); 2]),
            ),
            (
                "bpchar",
                "VARCHAR",
                Some(Encoding::Trimmed),
                b"ab  ".to_vec(),
                "ab  ",
                ColumnData::VarChar(vec!["ab".into(); 2]),
            ),
            ("jsonb", "VARCHAR", None, b"\x01null".to_vec(), "null", ColumnData::VarChar(vec!["null".into(); 2])),
            ("halfvec(1)", "VARCHAR", None, half, "[0.5]", ColumnData::VarChar(vec!["[0.5]".into(); 2])),
            (
                "bit(8)",
                "BINARY_VECTOR",
                None,
                bits,
                "10100000",
                ColumnData::BinaryVector { dim: 8, packed: vec![0xA0; 2] },
            ),
            (
                "sparsevec(9)",
                "SPARSE_FLOAT_VECTOR",
                None,
                sparse,
                "{3:0.5}/9",
                ColumnData::SparseFloatVector(vec![[2u32.to_le_bytes(), 0.5f32.to_le_bytes()].concat().into(); 2]),
            ),
        ] {
            let chosen = FieldSettings { data_type: Some(target.into()), encoding, ..Default::default() };
            let settings = TableSettings { fields: vec![("x".to_owned(), chosen)], ..settings() };
            let columns = vec![column("id", "int8"), column("x", type_name), vector("v", 2)];
            let newest = crate::milvus::ServerInfo { version: "v2.6.20".into() };
            let plan = build(&[(table(columns), settings)], &newest).expect("a plan").tables.remove(0);
            let row = |value: Value| vec![text("1"), value, text("[1,2]")];
            let encoded = encode(&plan, vec![row(binary(in_binary)), row(text(in_text))]);
            assert_eq!(encoded.refused, [], "{type_name} as {target}");
            assert_eq!(encoded.columns[1].data, expected, "{type_name} as {target}");
        }
    }

    #[test]
    fn a_composite_key_is_its_own_field_and_leaves_its_columns() {
        let mut table = table(vec![column("a", "text"), column("b", "int4"), vector("v", 2)]);
        table.primary_key.as_mut().expect("a key").columns = vec!["b".into(), "a".into()];
        let plan = build(&[(table, settings())], &server()).expect("a plan").tables.remove(0);
        let encoded = encode(&plan, vec![vec![text("x|y"), text("3"), text("[1,2]")]]);
        let names: Vec<&str> = encoded.columns.iter().map(|column| &*column.name).collect();
        assert_eq!(names, ["pk", "a", "b", "v"]);
        assert_eq!(encoded.columns[0].data, ColumnData::VarChar(vec!["3|x\\|y".into()]));
        assert_eq!(encoded.columns[2].data, ColumnData::Int32(vec![3]));
        let keys = Encoder::new(&plan).keys(&[Key::Text("k".into())]);
        assert_eq!(keys, Keys::VarChar(vec!["k".into()]));
    }

    #[test]
    fn the_estimate_is_near_the_truth() {
        let (plan, row, _) = everything();
        let bytes = Encoder::new(&plan).row_bytes(&Key::Int(7), &Row(row.into()));
        assert!((80..200).contains(&bytes), "{bytes}");
    }

    #[test]
    fn texts_share_a_buffer_and_do_not_meet() {
        let mut arena = Arena::default();
        let texts: Vec<String> = (0..5_000).map(|i| format!("{i:_<width$}", width = i % 40)).collect();
        let kept: Vec<Bytes> = texts.iter().map(|text| arena.keep(text.as_bytes())).collect();
        assert!(texts.iter().zip(kept).all(|(text, kept)| text.as_bytes() == kept));
    }
}
