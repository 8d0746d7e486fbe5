//! What a Milvus holds, and the rules by which it takes and gives it, whatever the wire.
//!
//! Collections with their fields, indexes and load state, aliases, and entities by key. An upsert replaces the entity with every
//! field of its own; a key belongs to one of two shards, so that half of a request can be applied. What a value may be is
//! judged as the servers' own validation does (`internal/proxy/validate_util.go`, by version); what a front turns it
//! into before that (REST's silent conversions) is the front's.

use std::collections::{BTreeMap, HashMap};
use std::hash::{Hash, Hasher};

use walvec::milvus::DataType;

use super::Version;
use super::expr::Expr;

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Key {
    Int(i64),
    Text(String),
}

impl Key {
    /// Which of two shards it lives in.
    pub fn shard(&self) -> u64 {
        let mut hasher = std::collections::hash_map::DefaultHasher::new();
        self.hash(&mut hasher);
        hasher.finish() % 2
    }
}

#[derive(Clone, Debug, PartialEq)]
pub enum Datum {
    Null,
    Bool(bool),
    /// INT8 to INT64.
    Int(i64),
    Float(f32),
    Double(f64),
    Text(String),
    /// The document's text.
    Json(String),
    Array(Vec<Datum>),
    Vector(Vec<f32>),
    /// A FLOAT16_VECTOR or BINARY_VECTOR.
    Packed(Vec<u8>),
    /// By index, as it came.
    Sparse(Vec<(u32, f32)>),
}

#[derive(Clone, Debug, PartialEq)]
pub struct Field {
    pub name: String,
    pub description: String,
    pub data_type: DataType,
    pub element_type: Option<DataType>,
    pub is_primary: bool,
    pub auto_id: bool,
    pub nullable: bool,
    pub max_length: Option<usize>,
    pub max_capacity: Option<usize>,
    pub dim: Option<usize>,
    /// Takes the place of a value that is left out, and of NULL.
    pub default: Option<String>,
    pub partition_key: bool,
    pub mmap: Option<String>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Index {
    pub field: String,
    pub name: String,
    pub index_type: String,
    pub metric_type: String,
    pub params: BTreeMap<String, String>,
    /// Rows that are in it; `None`: all, and it is finished.
    pub built: Option<u64>,
}

#[derive(Clone, Debug, Default)]
pub struct Collection {
    pub description: String,
    pub fields: Vec<Field>,
    pub dynamic: bool,
    pub shards: u32,
    pub partitions: u32,
    /// Number of the consistency level.
    pub consistency: i32,
    pub properties: BTreeMap<String, String>,
    pub indexes: Vec<Index>,
    pub loaded: bool,
    /// Values in the order of `fields`, and behind them the object of a dynamic field.
    pub entities: BTreeMap<Key, Vec<Datum>>,
}

impl Collection {
    pub fn primary(&self) -> usize {
        self.fields.iter().position(|field| field.is_primary).expect("checked when it was made")
    }
}

/// A refusal with Milvus's number and words.
#[derive(Clone, Debug, PartialEq)]
pub struct Refusal {
    pub code: i32,
    pub reason: String,
}

pub fn refuse<T>(code: i32, reason: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal { code, reason: reason.into() })
}

/// Entities of one upsert: the names of the fields, and a row of values for each entity.
#[derive(Clone, Debug)]
pub struct Batch {
    pub fields: Vec<String>,
    pub rows: Vec<Vec<Datum>>,
}

/// A write that was accepted, to be applied at once, in part, or later.
#[derive(Clone, Debug)]
pub enum Mutation {
    Upsert { collection: String, entities: Vec<(Key, Vec<Datum>)> },
    Delete { collection: String, keys: Vec<Key> },
}

#[derive(Debug)]
pub struct Store {
    pub version: Version,
    pub collections: HashMap<String, Collection>,
    pub aliases: BTreeMap<String, String>,
}

impl Store {
    pub fn new(version: Version) -> Store {
        Store { version, collections: HashMap::new(), aliases: BTreeMap::new() }
    }

    /// The real name behind a name or an alias.
    pub fn resolve(&self, name: &str) -> Result<String, Refusal> {
        let real = self.aliases.get(name).map_or(name, String::as_str);
        if self.collections.contains_key(real) {
            Ok(real.to_owned())
        } else {
            refuse(100, format!("collection not found[database=default][collection={name}]"))
        }
    }

    pub fn collection(&self, name: &str) -> Result<&Collection, Refusal> {
        Ok(&self.collections[&self.resolve(name)?])
    }

    pub fn collection_mut(&mut self, name: &str) -> Result<&mut Collection, Refusal> {
        let real = self.resolve(name)?;
        Ok(self.collections.get_mut(&real).expect("just resolved"))
    }

    pub fn create(&mut self, name: &str, mut collection: Collection) -> Result<(), Refusal> {
        valid_name(name)?;
        if self.aliases.contains_key(name) {
            return refuse(1601, format!("collection name conflicts with an existing alias[alias={name}]"));
        }
        if self.version < Version::V2_5 {
            // The flag is unknown there and dropped without a word.
            collection.fields.iter_mut().for_each(|field| field.nullable = false);
        }
        let primaries = collection.fields.iter().filter(|field| field.is_primary).count();
        if primaries != 1 {
            return refuse(1100, format!("there are {primaries} primary keys"));
        }
        let vectors = collection.fields.iter().filter(|field| is_vector(field.data_type)).count();
        let most = if self.version < Version::V2_6 { 4 } else { 10 };
        if vectors == 0 || vectors > most {
            return refuse(1100, format!("{vectors} vector fields, there may be 1 to {most}"));
        }
        if collection.fields.len() > 64 {
            return refuse(1100, "maximum field's number should be limited to 64");
        }
        for field in &collection.fields {
            valid_field(field)?;
            self.knows(field)?;
            if collection.fields.iter().filter(|other| other.name == field.name).count() > 1 {
                return refuse(1100, format!("duplicated field name {}", field.name));
            }
        }
        if let Some(existing) = self.collections.get(name) {
            // An identical one is a yes, with its data.
            return if existing.fields == collection.fields {
                Ok(())
            } else {
                refuse(1100, format!("create duplicate collection with different parameters, collection: {name}"))
            };
        }
        let partition_keys: Vec<&Field> = collection.fields.iter().filter(|field| field.partition_key).collect();
        if partition_keys.len() > 1 {
            return refuse(1100, "there are more than one partition key");
        }
        for key in partition_keys {
            if key.nullable || key.is_primary || !matches!(key.data_type, DataType::Int64 | DataType::VarChar) {
                return refuse(1100, format!("{} cannot be the partition key", key.name));
            }
            collection.partitions = if collection.partitions == 0 { 16 } else { collection.partitions };
        }
        collection.partitions = collection.partitions.max(1);
        collection.shards = collection.shards.max(1);
        self.collections.insert(name.to_owned(), collection);
        Ok(())
    }

    pub fn drop_collection(&mut self, name: &str) -> Result<(), Refusal> {
        if self.aliases.values().any(|real| real == name) {
            return refuse(1100, format!("collection {name} has associated aliases, drop them first"));
        }
        // An absent one is no error.
        self.collections.remove(name);
        Ok(())
    }

    /// Types and flags that came with a version.
    fn knows(&self, field: &Field) -> Result<(), Refusal> {
        let since = match field.data_type {
            DataType::Float16Vector | DataType::BFloat16Vector | DataType::SparseFloatVector => Version::V2_4,
            DataType::Timestamptz => Version::V2_6,
            _ => Version::V2_3,
        };
        if self.version < since {
            return refuse(1100, format!("data type {} of field {} not supported", field.data_type, field.name));
        }
        if field.nullable && is_vector(field.data_type) && self.version != Version::V2_6 {
            return refuse(1100, format!("vector type not support null, field name = {}", field.name));
        }
        Ok(())
    }

    pub fn add_field(&mut self, name: &str, field: Field) -> Result<(), Refusal> {
        valid_field(&field)?;
        self.knows(&field)?;
        let collection = self.collection_mut(name)?;
        if !field.nullable {
            return refuse(1100, format!("added field must be nullable, field name = {}", field.name));
        }
        if collection.fields.iter().any(|other| other.name == field.name) {
            return refuse(1100, format!("duplicate field name: {}", field.name));
        }
        let at = collection.fields.len();
        collection.fields.push(field);
        collection.entities.values_mut().for_each(|values| values.insert(at, Datum::Null));
        Ok(())
    }

    pub fn create_alias(&mut self, alias: &str, collection: &str) -> Result<(), Refusal> {
        valid_name(alias)?;
        let real = self.resolve(collection)?;
        if self.collections.contains_key(alias) {
            return refuse(1601, format!("alias and collection name conflict[alias={alias}]"));
        }
        match self.aliases.get(alias) {
            Some(existing) if *existing != real => refuse(1602, format!("{alias} is alias to another collection")),
            _ => {
                self.aliases.insert(alias.to_owned(), real);
                Ok(())
            }
        }
    }

    pub fn alter_alias(&mut self, alias: &str, collection: &str) -> Result<(), Refusal> {
        let real = self.resolve(collection)?;
        match self.aliases.get_mut(alias) {
            Some(existing) => {
                *existing = real;
                Ok(())
            }
            None => refuse(1600, format!("alias not found[database=default][alias={alias}]")),
        }
    }

    pub fn alias(&self, alias: &str) -> Result<&str, Refusal> {
        match self.aliases.get(alias) {
            Some(real) => Ok(real),
            None => refuse(1600, format!("alias not found[database=default][alias={alias}]")),
        }
    }

    pub fn create_index(&mut self, name: &str, mut index: Index) -> Result<(), Refusal> {
        let collection = self.collection_mut(name)?;
        let Some(field) = collection.fields.iter().find(|field| field.name == index.field) else {
            return refuse(1100, format!("cannot create index on non-exist field: {}", index.field));
        };
        if is_vector(field.data_type) && index.metric_type.is_empty() {
            index.metric_type = metrics(field.data_type)[0].into();
        }
        if is_vector(field.data_type) && !metrics(field.data_type).contains(&&*index.metric_type) {
            return refuse(
                1100,
                format!("metric type {} not found or not supported for {}", index.metric_type, field.data_type),
            );
        }
        match collection.indexes.iter().find(|existing| existing.field == index.field) {
            Some(existing)
                if (&existing.index_type, &existing.metric_type) != (&index.index_type, &index.metric_type) =>
            {
                refuse(65535, "at most one distinct index is allowed per field")
            }
            Some(_) => Ok(()),
            None => {
                collection.indexes.push(index);
                Ok(())
            }
        }
    }

    pub fn load(&mut self, name: &str) -> Result<(), Refusal> {
        let collection = self.collection_mut(name)?;
        let indexed = |field: &Field| collection.indexes.iter().any(|index| index.field == field.name);
        if let Some(bare) = collection.fields.iter().find(|field| is_vector(field.data_type) && !indexed(field)) {
            return refuse(
                700,
                format!("there is no vector index on field: [{}], please create index firstly", bare.name),
            );
        }
        collection.loaded = true;
        Ok(())
    }

    /// Judge an upsert as a whole: either all of it may be applied or nothing is.
    pub fn upsert(&self, name: &str, batch: Batch) -> Result<Mutation, Refusal> {
        let real = self.resolve(name)?;
        let collection = &self.collections[&real];
        for field in &batch.fields {
            if !(collection.fields.iter().any(|known| known.name == *field) || collection.dynamic && field == META) {
                return refuse(1804, format!("has pass more field without dynamic schema, please check it: {field}"));
            }
        }
        let primary = collection.primary();
        let mut entities: Vec<(Key, Vec<Datum>)> = Vec::with_capacity(batch.rows.len());
        let mut seen = std::collections::HashSet::new();
        let places: Vec<Option<usize>> =
            collection.fields.iter().map(|field| batch.fields.iter().position(|name| *name == field.name)).collect();
        let meta = batch.fields.iter().position(|name| *name == META);
        for (number, row) in batch.rows.into_iter().enumerate() {
            let mut values = Vec::with_capacity(collection.fields.len() + 1);
            for (field, place) in collection.fields.iter().zip(&places) {
                let value = match (place.map_or(Datum::Null, |at| row[at].clone()), &field.default) {
                    (Datum::Null, Some(default)) => of_default(field.data_type, default),
                    (value, _) => value,
                };
                self.judge(field, &value, number)?;
                values.push(value);
            }
            if collection.dynamic {
                let object = meta.map_or(Datum::Json("{}".into()), |at| row[at].clone());
                match &object {
                    Datum::Json(text) if text.starts_with('{') && text.len() <= 65_536 => values.push(object),
                    _ => return refuse(1100, "the dynamic field is no object of at most 65536 bytes"),
                }
            }
            let key = match &values[primary] {
                Datum::Int(key) => Key::Int(*key),
                Datum::Text(key) => Key::Text(key.clone()),
                _ => return refuse(1100, "the primary key is missing"),
            };
            if !seen.insert(key.clone()) {
                if self.version >= Version::V2_6 {
                    return refuse(1100, "duplicate primary keys are not allowed in the same batch");
                }
                entities.retain(|(other, _)| *other != key);
            }
            entities.push((key, values));
        }
        Ok(Mutation::Upsert { collection: real, entities })
    }

    fn judge(&self, field: &Field, value: &Datum, row: usize) -> Result<(), Refusal> {
        let name = &field.name;
        match value {
            Datum::Null if field.nullable => Ok(()),
            Datum::Null => refuse(1100, format!("the value of field {name} is null, and it is not nullable")),
            Datum::Text(text) if field.data_type == DataType::Timestamptz => {
                // Four digits of the year, a T or a space between date and time, an offset: what RFC 3339 asks for.
                let offset = text.ends_with('Z') || text.get(19..).is_some_and(|rest| rest.contains(['+', '-']));
                let date = text.get(..10).is_some_and(|date| date.split('-').map(str::len).eq([4, 2, 2]));
                if offset && date && text.get(10..11).is_some_and(|between| matches!(between, "T" | " ")) {
                    Ok(())
                } else {
                    refuse(1100, format!("got invalid timestamptz string of field {name}"))
                }
            }
            Datum::Text(text) => match field.max_length {
                Some(max) if text.len() > max => refuse(
                    1100,
                    format!(
                        "length of varchar field {name} exceeds max length, row number: {row}, length: {}, max length: {max}",
                        text.len()
                    ),
                ),
                _ => Ok(()),
            },
            Datum::Json(text) if text.len() > 65_536 => {
                refuse(1100, format!("the length ({}) of json field ({name}) exceeds max length (65536)", text.len()))
            }
            Datum::Json(text) => {
                let parsed: Result<serde_json::Value, _> = serde_json::from_str(text);
                match parsed {
                    Ok(serde_json::Value::Object(_)) => Ok(()),
                    Ok(_) if self.version >= Version::V2_5 => Ok(()),
                    _ => refuse(1100, format!("JSON field {name} holds no document")),
                }
            }
            Datum::Array(elements) => {
                // The capacity is not looked at before 3.0: an upsert may bring more elements (seen in 2.3.5).
                let element = Field { nullable: false, max_capacity: None, ..field.clone() };
                elements.iter().try_for_each(|value| self.judge(&element, value, row))
            }
            Datum::Vector(floats) => {
                if Some(floats.len()) != field.dim {
                    return refuse(
                        1100,
                        format!("the dim ({}) of field data({name}) is not equal to schema dim", floats.len()),
                    );
                }
                // 65535 up to 2.6, 1100 from 3.0 on.
                if floats.iter().any(|float| !float.is_finite()) {
                    return refuse(65535, format!("value of field {name} is NaN or infinite"));
                }
                Ok(())
            }
            Datum::Packed(bytes) => {
                let dim = field.dim.unwrap_or(0);
                let wanted = if field.data_type == DataType::BinaryVector { dim / 8 } else { dim * 2 };
                if bytes.len() != wanted {
                    return refuse(1100, format!("the dim of field data({name}) is not equal to schema dim"));
                }
                let halves = bytes.as_chunks::<2>().0.iter().map(|&half| u16::from_le_bytes(half));
                let odd =
                    field.data_type == DataType::Float16Vector && halves.into_iter().any(|h| h & 0x7C00 == 0x7C00);
                if odd { refuse(65535, format!("value of field {name} is NaN or infinite")) } else { Ok(()) }
            }
            Datum::Sparse(elements) => {
                if elements.windows(2).any(|pair| pair[0].0 >= pair[1].0) {
                    return refuse(1100, format!("unsorted or same indices in sparse float vector {name}"));
                }
                match elements.iter().find(|(_, value)| !value.is_finite() || *value < 0.0) {
                    Some(_) => refuse(1100, format!("negative value or NaN in sparse float vector {name}")),
                    None => Ok(()),
                }
            }
            Datum::Int(number) => {
                let fits = match field.element_type.unwrap_or(field.data_type) {
                    DataType::Int8 => i8::try_from(*number).is_ok(),
                    DataType::Int16 => i16::try_from(*number).is_ok(),
                    DataType::Int32 => i32::try_from(*number).is_ok(),
                    _ => true,
                };
                if fits { Ok(()) } else { refuse(1100, format!("the value of field {name} is out of range")) }
            }
            Datum::Float(_) | Datum::Double(_) | Datum::Bool(_) => Ok(()),
        }
    }

    /// Which keys a delete takes away. Other filters than of keys need a loaded collection.
    pub fn delete(&self, name: &str, expr: &Expr) -> Result<Mutation, Refusal> {
        let real = self.resolve(name)?;
        let collection = &self.collections[&real];
        let primary = &collection.fields[collection.primary()].name;
        let keys = match expr {
            Expr::All => return refuse(1100, "expr cannot be empty"),
            Expr::In(field, keys) if field == primary => keys.clone(),
            Expr::Compare(field, super::expr::Op::Equal, key) if field == primary => vec![key.clone()],
            expr => {
                if !collection.loaded {
                    return refuse(101, format!("collection not loaded[collection={name}]"));
                }
                self.select(collection, expr).map(|(key, _)| key.clone()).collect()
            }
        };
        Ok(Mutation::Delete { collection: real, keys })
    }

    fn select<'a>(
        &self,
        collection: &'a Collection,
        expr: &'a Expr,
    ) -> impl Iterator<Item = (&'a Key, &'a Vec<Datum>)> {
        collection.entities.iter().filter(move |(_, values)| {
            expr.matches(&|name| {
                let at = collection.fields.iter().position(|field| field.name == name)?;
                match &values[at] {
                    Datum::Int(number) => Some(Key::Int(*number)),
                    Datum::Text(text) => Some(Key::Text(text.clone())),
                    _ => None,
                }
            })
        })
    }

    /// Entities in the order of their keys.
    pub fn query(&self, name: &str, expr: &Expr, limit: Option<usize>) -> Result<Vec<Vec<Datum>>, Refusal> {
        let collection = self.collection(name)?;
        if !collection.loaded {
            return refuse(101, format!("collection not loaded[collection={name}]"));
        }
        if limit.is_some_and(|limit| limit > 16_384) {
            return refuse(1100, "(offset+limit) should be in range [1, 16384]");
        }
        let found = self.select(collection, expr).map(|(_, values)| values.clone());
        Ok(found.take(limit.unwrap_or(usize::MAX)).collect())
    }

    /// Carry a write out, for all keys or for those of one shard.
    pub fn apply(&mut self, mutation: &Mutation, shard: Option<u64>) {
        let takes = |key: &Key| shard.is_none_or(|shard| key.shard() == shard);
        match mutation {
            Mutation::Upsert { collection, entities } => {
                let Some(collection) = self.collections.get_mut(collection) else { return };
                for (key, values) in entities.iter().filter(|(key, _)| takes(key)) {
                    collection.entities.insert(key.clone(), values.clone());
                }
            }
            Mutation::Delete { collection, keys } => {
                let Some(collection) = self.collections.get_mut(collection) else { return };
                for key in keys.iter().filter(|key| takes(key)) {
                    collection.entities.remove(key);
                }
            }
        }
    }
}

/// Milvus's name of the dynamic field.
pub const META: &str = "$meta";

fn of_default(data_type: DataType, text: &str) -> Datum {
    match data_type {
        DataType::Bool => Datum::Bool(text == "true"),
        DataType::Float => Datum::Float(text.parse().expect("a default of the field's type")),
        DataType::Double => Datum::Double(text.parse().expect("a default of the field's type")),
        DataType::VarChar => Datum::Text(text.to_owned()),
        _ => Datum::Int(text.parse().expect("a default of the field's type")),
    }
}

pub fn is_vector(data_type: DataType) -> bool {
    data_type as i32 >= 100
}

/// Metrics of a vector index; the first is the default.
fn metrics(data_type: DataType) -> &'static [&'static str] {
    match data_type {
        DataType::BinaryVector => &["HAMMING", "JACCARD", "SUBSTRUCTURE", "SUPERSTRUCTURE"],
        DataType::SparseFloatVector => &["IP", "BM25"],
        _ => &["COSINE", "L2", "IP"],
    }
}

fn valid_name(name: &str) -> Result<(), Refusal> {
    let first = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    let all = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if first && all && name.len() <= 255 { Ok(()) } else { refuse(1100, format!("Invalid collection name: {name}")) }
}

fn valid_field(field: &Field) -> Result<(), Refusal> {
    let name = &field.name;
    valid_name(name)?;
    let text = field.data_type == DataType::VarChar || field.element_type == Some(DataType::VarChar);
    if text && !field.max_length.is_some_and(|max| (1..=65_535).contains(&max)) {
        return refuse(1100, format!("the maximum length of {name} must be in (0, 65535]"));
    }
    if field.data_type == DataType::Array && !field.max_capacity.is_some_and(|max| (1..=4_096).contains(&max)) {
        return refuse(1100, format!("the maximum capacity of {name} must be in (0, 4096]"));
    }
    if field.data_type == DataType::FloatVector && !field.dim.is_some_and(|dim| (2..=32_768).contains(&dim)) {
        return refuse(1100, format!("invalid dimension of field {name}: it should be in range 2 ~ 32768"));
    }
    if field.data_type == DataType::BinaryVector && !field.dim.is_some_and(|dim| dim > 0 && dim.is_multiple_of(8)) {
        return refuse(1100, format!("invalid dimension of field {name}: it should be a multiple of 8"));
    }
    if field.is_primary && (field.nullable || !matches!(field.data_type, DataType::Int64 | DataType::VarChar)) {
        return refuse(1100, format!("primary field {name} must be INT64 or VARCHAR and not nullable"));
    }
    Ok(())
}
