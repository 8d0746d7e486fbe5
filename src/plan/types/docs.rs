//! `docs/types.md`, made from the table of types, so that it cannot say anything else.

use std::fmt::Write as _;
use std::path::Path;

use super::{KeyUse, Read, TypeEntry, table};

const HEAD: &str = "\
# Types

What a column's type becomes in Milvus. `walvec plan` shows it for your tables, each field with its reason, before anything is
made. Another target is chosen with `type` in `[table.fields.COLUMN]`; the first of each line is the default.

Three rules hold for every line:

- **Text is PostgreSQL's own.** A VARCHAR holds byte for byte what PostgreSQL's output function prints (DateStyle ISO, TimeZone
  UTC, IntervalStyle postgres, bytea_output hex, lc_monetary C, floats in their shortest form), whether the row came with the copy
  or with the stream, in binary or as text. The tests ask PostgreSQL 16 and 18.
- **Nothing is altered in silence.** What a field cannot hold stops the table with a sentence that names row and field, unless the
  field has another policy.
- **Every type goes.** What has no line is printed by PostgreSQL itself and becomes a VARCHAR. Where such a type has a send
  function, the whole stream is asked for as text, and `walvec plan` says so: text costs PostgreSQL about four times the time of
  binary for vectors.

Domains are what they are based on, to any depth. `NULL` is NULL wherever the server has nullable fields (Milvus 2.5 and newer,
Milvus Lite 3); vectors are nullable from Milvus 2.6.18 on.

";

const POLICIES: &str = "
Example values are PostgreSQL's text, and that is what a VARCHAR field gets. `(enum)`, `(array)` and so on stand for every type
of that kind.

## What does not fit

`on_misfit`, of a table or of a field, says what happens to a value that its field cannot hold:

| policy | what happens | where |
|---|---|---|
| `error` | The row is refused. It is read again once as it is now; refused again, its table stops, and the others go on. The default. | everywhere |
| `null` | NULL takes the value's place. Counted in `walvec_values_altered_total`. | nullable fields |
| `truncate` | A text is cut after the last character that fits, an array after its last element. Counted in `walvec_values_altered_total`. What cannot be cut is refused. | VARCHAR, ARRAY |
| `skip_row` | The row is left out, and an entity of its key is deleted, so that no older form of it stays. Counted in `walvec_rows_skipped_total`. | all but keys |
| `dead_letter` | The same, and the row is remembered with the reason until it fits: [dead letters](dead-letters.md). As the table's policy, also for rows that the server refuses. | all but keys |

The field's own policy is refused where it cannot apply; the table's applies where it can, and `error` elsewhere. Keys always have
`error`: a key that was altered would be another row's.

What does not fit:

| field | does not fit |
|---|---|
| any that is not nullable | NULL |
| VARCHAR | more bytes than `max_length` (65,535 at most); a NUL byte; what is not UTF-8 |
| INT8, INT16, INT32, INT64 | a number beyond the range, or not whole; infinity |
| DOUBLE | a numeric beyond the range of double precision |
| JSON | more than 65,536 bytes; a scalar or null at the top |
| ARRAY | more elements than `max_capacity` (4,096 at most); a NULL element; more than one dimension; an element that does not fit |
| TIMESTAMPTZ | infinity; a year before 1 or after 9999 |
| FLOAT_VECTOR, FLOAT16_VECTOR | another number of dimensions; NaN and infinity |
| BINARY_VECTOR | another number of bits |
| SPARSE_FLOAT_VECTOR | negative values; NaN and infinity |

`walvec verify` expects what the policies make of such values.

## Vectors

- `vector(n)` is a FLOAT_VECTOR, bit for bit; `halfvec(n)` a FLOAT16_VECTOR, bit for bit, or a FLOAT_VECTOR of the same numbers where
  the server has none (Milvus before 2.4, Milvus Lite) or by `type = \"FLOAT_VECTOR\"`; `sparsevec` a SPARSE_FLOAT_VECTOR, whose
  indexes count from 0 where pgvector's text counts from 1.
- `bit(n)` is text. `type = \"BINARY_VECTOR\"` makes a vector of it, the first bit in the highest of the first byte; n must be a
  multiple of 8.
- A vector column that declares no dimension gets that of one of its rows, or `dimension`. Every other row must have the same. Set
  `dimension` where the table may be empty when walvec starts.
- NULL where the server has no nullable vectors does not fit: the policy decides.
- A table without any vector column is refused, as Milvus has no collection without one. `placeholder_vector = true` gives its
  collection a constant one.

## Indexes

Each vector field gets one index, of the metric and parameters that the column's pgvector index has (`vector_cosine_ops` → COSINE,
`vector_l2_ops` → L2, `vector_ip_ops` → IP, `bit_hamming_ops` → HAMMING, `bit_jaccard_ops` → JACCARD; `hnsw` → HNSW with M and
efConstruction, `ivfflat` → IVF_FLAT with nlist). An index on a cast, `(embedding::halfvec(768)) halfvec_cosine_ops`, counts like one
on the column. Without a pgvector index: AUTOINDEX with COSINE, BIN_FLAT with HAMMING for binary vectors. Sparse vectors have
SPARSE_INVERTED_INDEX with IP, the only metric that Milvus has for them. `metric`, `index` and `index_params` of a field go before
all of that. Zilliz Cloud makes AUTOINDEX of every type. `scalar_indexes = true` indexes the fields of columns that have a btree index
of their own.
";

/// The lines that are not found by a name in `pg_type`.
const OTHERS: [&TypeEntry; 10] = [
    &table::VECTOR,
    &table::HALFVEC,
    &table::SPARSEVEC,
    &table::BIT,
    &table::ENUM,
    &table::ARRAY,
    &table::RECORD,
    &table::RANGE,
    &table::MULTIRANGE,
    &table::OPAQUE,
];

fn names(entry: &TypeEntry) -> String {
    let names: Vec<String> = entry.names.iter().map(|name| format!("`{name}`")).collect();
    let extension = match entry.extension {
        Some("vector") => " (pgvector)".to_owned(),
        Some(extension) if !entry.names.contains(&extension) => format!(" ({extension})"),
        Some(_) => " (extension)".to_owned(),
        None => String::new(),
    };
    names.join(", ") + &extension
}

fn key(entry: &TypeEntry) -> &'static str {
    match entry.key {
        KeyUse::Int => "INT64",
        KeyUse::Text => "VARCHAR",
        KeyUse::Part => "in a composite key",
        KeyUse::Never(_) => "no",
    }
}

fn render() -> String {
    let mut out = HEAD.to_owned();
    out.push_str(
        "| type | default | other targets | example | as a key | limits and choices |\n|---|---|---|---|---|---|\n",
    );
    for entry in table::TYPES.iter().chain(OTHERS) {
        let targets: Vec<&str> = entry.targets.iter().map(|target| target.name()).collect();
        let (default, others) = targets.split_first().expect("every line has a target");
        let default = match (entry.read, entry.text_max) {
            (Read::Array, _) | (_, None) => (*default).to_owned(),
            (_, Some(max)) => format!("{default}({max})"),
        };
        let example = match entry.example {
            "" => String::new(),
            example => format!("`{}`", example.replace('|', "\\|")),
        };
        let cells = [names(entry), default, others.join(", "), example, key(entry).to_owned(), entry.limits.to_owned()];
        writeln!(out, "| {} |", cells.join(" | ")).expect("a String");
    }
    out + POLICIES
}

#[test]
fn the_page_about_types_is_made_from_the_table() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/types.md");
    let rendered = render();
    if std::env::var_os("WALVEC_WRITE_DOCS").is_some() {
        std::fs::write(&path, &rendered).expect("written");
    }
    let found = std::fs::read_to_string(&path).expect("docs/types.md");
    assert!(found == rendered, "docs/types.md differs: WALVEC_WRITE_DOCS=1 cargo test --lib the_page_about_types");
}
