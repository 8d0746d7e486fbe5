//! Whatever comes from outside is a value or an error: the messages of pgoutput, rows of COPY, every type in both forms,
//! connection strings, configuration files. Inputs of the corpus (`tests/corpus`, taken from a real PostgreSQL) are changed at
//! random and fed to the decoders; nothing may panic, and what must hold of an answer is looked at.
//!
//! ```sh
//! WALVEC_FUZZ_SECONDS=3600 cargo test --release --test it -- --nocapture fuzz     # each target for an hour
//! cargo test --test it -- --ignored write_the_corpus                              # from PostgreSQL 18, anew
//! ```
//!
//! An input that breaks a target is added to its corpus, so that it stays a test.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use bytes::Bytes;
use walvec::change::Value;
use walvec::config::{self, conninfo::Conninfo};
use walvec::plan::SourceType;
use walvec::postgres::copy::CopyRows;
use walvec::postgres::pgoutput;

use crate::support::postgres::{Database, major};
use crate::support::rng::Rng;

/// For each target in `cargo test`: a number, not a time, so that every machine tries the same.
const INPUTS: u64 = 20_000;
const COPY_COLUMNS: usize = 4;

/// The types of `value.hex`, each with values as SQL.
const TYPES: &[(&str, &[&str])] = &[
    ("bool", &["true"]),
    ("int2", &["'-32768'"]),
    ("int4", &["7"]),
    ("int8", &["9007199254740993"]),
    ("float4", &["1.5e-45", "'NaN'"]),
    ("float8", &["1e308", "'-Infinity'"]),
    ("numeric", &["'-123456789012345678901234567890.0005'", "'NaN'", "'Infinity'", "1e-20", "10000"]),
    ("text", &["'é|\\'"]),
    ("bpchar", &["'ab  '"]),
    ("bytea", &["'\\x00ff'"]),
    ("uuid", &["'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'"]),
    ("date", &["'2024-02-29'", "'4713-01-01 BC'", "'infinity'"]),
    ("time", &["'24:00'", "'12:34:56.789'"]),
    ("timetz", &["'12:34:56.789+05:30'"]),
    ("timestamp", &["'2024-02-29 12:00:00.5'", "'0044-03-15 12:00 BC'"]),
    ("timestamptz", &["'infinity'", "'1999-12-31 23:59:59.999999+00'"]),
    ("interval", &["'1 year -2 mons 3 days -04:05:06.7'"]),
    ("json", &["'{\"a\": [1, null]}'"]),
    ("jsonb", &["'{\"a\": [1, null]}'"]),
    ("jsonpath", &["'$.a[*] ? (@ > 1)'"]),
    ("inet", &["'10.0.0.1/8'", "'::ffff:1.2.3.4'"]),
    ("cidr", &["'10.0.0.0/8'"]),
    ("macaddr", &["'08:00:2b:01:02:03'"]),
    ("macaddr8", &["'08:00:2b:01:02:03:04:05'"]),
    ("money", &["'-1.50'"]),
    ("varbit", &["B'1010101'"]),
    ("oid", &["4294967295"]),
    ("pg_lsn", &["'16/B374D848'"]),
    ("point", &["'(1,2)'"]),
    ("path", &["'[(1,2),(3,4)]'"]),
    ("polygon", &["'((1,2),(3,4),(5,6))'"]),
    ("circle", &["'<(1,2),3>'"]),
    ("tsvector", &["'a:1A fat:2,3B'"]),
    ("vector", &["'[1,2.5,-3e-7]'"]),
    ("halfvec", &["'[1,2.5,-3]'"]),
    ("sparsevec", &["'{1:0.5,7:2}/9'"]),
    ("int4[]", &["'{1,NULL,3}'", "'[0:1][2:3]={{1,2},{3,4}}'"]),
    ("text[]", &["'{\"a,\\\"b\",NULL,\"\"}'"]),
    ("int4range", &["'[1,5)'", "'empty'", "'(,)'"]),
    ("tsrange", &["'(2024-01-01,infinity]'"]),
    ("int4multirange", &["'{[1,3),[5,9)}'"]),
];

fn source_type(name: &str) -> SourceType {
    let element = |name: &str| Box::new(SourceType::named(name));
    match name {
        "vector" => SourceType::Vector { dim: 3 },
        "halfvec" => SourceType::HalfVec { dim: 3 },
        "sparsevec" => SourceType::SparseVec,
        "varbit" => SourceType::named("varbit"),
        "int4range" => SourceType::Range(element("int4")),
        "tsrange" => SourceType::Range(element("timestamp")),
        "int4multirange" => SourceType::Multirange(Box::new(SourceType::Range(element("int4")))),
        array if array.ends_with("[]") => {
            SourceType::Array { element: element(array.trim_end_matches("[]")), delimiter: b',' }
        }
        name => SourceType::named(name),
    }
}

fn corpus(target: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/corpus").join(format!("{target}.hex"))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a string takes text");
        text
    })
}

/// Lines of `label hex`.
fn read(target: &str) -> Vec<(String, Vec<u8>)> {
    let path = corpus(target);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let line = |line: &str| {
        let (label, hex) = line.split_once(' ').expect("a label");
        let byte = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).expect("hexadecimal");
        (label.to_owned(), (0..hex.len()).step_by(2).map(byte).collect())
    };
    text.lines().map(line).collect()
}

fn change(bytes: &mut Vec<u8>, other: &[u8], rng: &mut Rng) {
    let interesting = [0u8, 1, 0x7F, 0x80, 0xFF, b'"', b'\\', b'{', b'%', b'\''];
    for _ in 0..=rng.below(4) {
        let at = rng.below(bytes.len() + 1);
        match rng.below(8) {
            0 if at < bytes.len() => bytes[at] ^= 1 << rng.below(8),
            1 if at < bytes.len() => bytes[at] = rng.pick(&interesting),
            2 => bytes.truncate(at),
            3 => bytes.insert(at, rng.pick(&interesting)),
            4 if at < bytes.len() => drop(bytes.remove(at)),
            // A length or a count of four bytes, turned into another.
            5 if at + 4 <= bytes.len() => {
                let number = rng.pick(&[0u32, 1, u32::MAX, i32::MAX as u32, 0x8000_0000, 0x0100_0000, 65_536]);
                bytes[at..at + 4].copy_from_slice(&number.to_be_bytes());
            }
            6 if !other.is_empty() => {
                let from = rng.below(other.len());
                let piece = other[from..(from + 1 + rng.below(16)).min(other.len())].to_vec();
                bytes.splice(at..at, piece);
            }
            _ => bytes.extend((0..rng.below(9)).map(|_| rng.next() as u8)),
        }
    }
}

/// Feed `name` with changed inputs, [`INPUTS`] or for the time that is given; its inputs as they are come first. `splices`: pieces of one are put into
/// another, which would carry a secret where anybody may see it.
fn fuzz(name: &str, splices: bool, check: impl Fn(&str, &[u8])) {
    let inputs = read(name);
    assert!(!inputs.is_empty(), "an empty corpus");
    let seconds = std::env::var("WALVEC_FUZZ_SECONDS").ok().map(|text| text.parse::<f64>().expect("seconds"));
    let lasts = seconds.map(Duration::from_secs_f64);
    let began = Instant::now();
    let seed = if seconds.is_some() { u64::from(std::process::id()) ^ began.elapsed().as_nanos() as u64 } else { 1 };
    let mut rng = Rng::new(seed);
    let run = |label: &str, bytes: &[u8]| {
        if catch_unwind(AssertUnwindSafe(|| check(label, bytes))).is_err() {
            let line = format!("{label} {}", hex(bytes));
            if seconds.is_some() {
                let text = std::fs::read_to_string(corpus(name)).expect("read") + &line + "\n";
                std::fs::write(corpus(name), text).expect("written");
            }
            panic!("{name}: {line}");
        }
    };
    for (label, bytes) in &inputs {
        run(label, bytes);
    }
    let mut done = 0u64;
    while lasts.map_or(done < INPUTS, |lasts| began.elapsed() < lasts) {
        for _ in 0..200 {
            let (label, bytes) = &inputs[rng.below(inputs.len())];
            let other = if splices { &inputs[rng.below(inputs.len())].1[..] } else { &[] };
            let mut bytes = bytes.clone();
            change(&mut bytes, other, &mut rng);
            run(label, &bytes);
            done += 1;
        }
    }
    eprintln!("{name}: {done} inputs from seed {seed}");
}

#[test]
fn messages_of_pgoutput() {
    fuzz("pgoutput", true, |_, bytes| drop(pgoutput::decode(Bytes::copy_from_slice(bytes))));
}

/// However the bytes are cut into messages, the rows are the same.
#[test]
fn rows_of_copy() {
    let rows = |pieces: &[&[u8]]| {
        let mut parser = CopyRows::new(COPY_COLUMNS);
        let mut rows = Vec::new();
        for piece in pieces {
            parser.push(Bytes::copy_from_slice(piece));
            loop {
                match parser.next_row() {
                    Ok(Some(row)) => rows.push(row),
                    Ok(None) => break,
                    Err(_) => return None,
                }
            }
        }
        parser.finish().is_ok().then_some(rows)
    };
    fuzz("copy", true, |_, bytes| {
        let (head, tail) = bytes.split_at(bytes.len() / 3);
        assert_eq!(rows(&[bytes]), rows(&[head, tail]));
    });
}

/// What is printed from a binary value has no byte that PostgreSQL's text could not have.
#[test]
fn values_of_every_type() {
    let types: BTreeMap<&str, SourceType> = TYPES.iter().map(|(name, _)| (*name, source_type(name))).collect();
    fuzz("value", true, |name, bytes| {
        let source = &types[name];
        let bytes = Bytes::copy_from_slice(bytes);
        if let Ok(Some(text)) = source.text(&Value::Binary(bytes.clone())) {
            let printed = !matches!(name, "text" | "bpchar" | "json" | "jsonb" | "jsonpath");
            let is_text = std::str::from_utf8(&text).is_ok_and(|text| !text.contains('\0'));
            // Texts inside are passed on as they are; whether they are UTF-8 is asked where they end.
            let holds_text = matches!(name, "text[]" | "tsvector");
            assert!(is_text || !printed || holds_text, "{name}: {text:?}");
        }
        drop(source.text(&Value::Text(bytes)));
    });
}

#[test]
fn connection_strings() {
    fuzz("conninfo", false, |_, bytes| {
        let text = String::from_utf8_lossy(bytes);
        if let Err(error) = Conninfo::parse(&text) {
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
    });
}

/// No message about a file shows a secret of it.
#[test]
fn configuration_files() {
    let environment = config::Environment::of([("TOKEN", "from-the-environment")]);
    fuzz("config", false, |_, bytes| {
        let text = String::from_utf8_lossy(bytes);
        if let Err(error) = config::parse(&text, "walvec.toml", &environment) {
            let said = format!("{error} {error:?}");
            assert!(!said.contains("hunter2") && !said.contains("from-the-environment"), "{said}");
        }
    });
}

#[tokio::test]
#[ignore = "writes tests/corpus"]
async fn write_the_corpus() {
    let write = |target: &str, lines: Vec<(String, Vec<u8>)>| {
        let mut lines: Vec<String> =
            lines.into_iter().map(|(label, bytes)| format!("{label} {}\n", hex(&bytes))).collect();
        lines.dedup();
        std::fs::create_dir_all(corpus(target).parent().expect("a folder")).expect("a folder");
        std::fs::write(corpus(target), lines.concat()).expect("written");
    };
    let Database { client, .. } = &Database::create(major()).await;
    let mut values = Vec::new();
    for (name, of) in TYPES {
        for value in *of {
            let copied = copied(client, &format!("select {value}::{name}")).await;
            // Signature, flags, extension, number of columns, length; and the trailer.
            values.push(((*name).to_owned(), copied[11 + 8 + 2 + 4..copied.len() - 2].to_vec()));
        }
    }
    write("value", values);
    let table = "create table t (id int8 primary key, title text, n numeric, v vector(3), big text);
         alter table t alter big set storage external; create publication p for all tables;
         create table f (like t including all); alter table f replica identity full";
    client.batch_execute(table).await.expect("made");
    let slot = crate::support::unique("corpus");
    let sql = format!("select pg_create_logical_replication_slot('{slot}', 'pgoutput')");
    client.batch_execute(&sql).await.expect("a slot");
    for table in ["t", "f"] {
        let sql = format!(
            "insert into {table} select i, 'row ' || i, i / 3.0, '[1,2,3]', repeat(md5(i::text), 90) from generate_series(1, 2) i;
             begin; update {table} set title = null where id = 1; update {table} set id = 9 where id = 2; delete from {table} where id = 1; commit;
             truncate {table}; select pg_logical_emit_message(true, 'walvec', 'fence')"
        );
        client.batch_execute(&sql).await.expect("changed");
    }
    let mut messages = Vec::new();
    for binary in ["true", "false"] {
        let sql = format!(
            "select data from pg_logical_slot_peek_binary_changes('{slot}', null, null, 'proto_version', '1', 'publication_names', 'p', 'binary', '{binary}', 'messages', 'true')"
        );
        let rows = client.query(&sql, &[]).await.expect("peeked");
        messages.extend(
            rows.iter().map(|row| row.get::<_, Vec<u8>>(0)).map(|data| (char::from(data[0]).to_string(), data)),
        );
    }
    client.batch_execute(&format!("select pg_drop_replication_slot('{slot}')")).await.expect("dropped");
    write("pgoutput", messages);
    let select = "select i, case when i > 1 then 'x' end, '[1,2,3]'::vector, '(0,1)'::tid from generate_series(1, 3) i";
    let empty = "select 1, 'x', '[1]'::vector, '(0,1)'::tid where false";
    write(
        "copy",
        vec![("rows".to_owned(), copied(client, select).await), ("none".to_owned(), copied(client, empty).await)],
    );
    let strings = [
        "postgresql://u:hunter2@db.example:5433/app?sslmode=verify-full&application_name=a%20b",
        "host=/run/postgresql dbname='a b' user=u password='hunter2\\'' port=5432",
        "jdbc:postgresql://[::1]:5432/app?user=u&password=hunter2",
        // Found: a name that is not known was repeated, with the password that stuck to it.
        "jdbc:postgresql://[::1]:5432/app?user=u&password5hunter2=",
    ];
    write("conninfo", strings.iter().map(|text| ("string".to_owned(), text.as_bytes().to_vec())).collect());
    let every = include_str!("../../config/walvec.toml")
        .lines()
        .filter(|line| !line.starts_with('#'))
        .collect::<Vec<_>>()
        .join("\n");
    let small = "[source]\nurl = \"postgresql://u:hunter2@h/d\"\n[target]\nurl = \"http://h:1\"\ntoken = { env = \"TOKEN\" }\n[[table]]\nname = \"public.*\"\n[table.fields.a]\nmax_length = 7\n";
    write("config", vec![("every".to_owned(), every.into_bytes()), ("small".to_owned(), small.as_bytes().to_vec())]);
}

async fn copied(client: &tokio_postgres::Client, select: &str) -> Vec<u8> {
    use futures_util::TryStreamExt;
    let stream = client.copy_out(&format!("copy ({select}) to stdout (format binary)")).await.expect("a copy");
    stream.try_collect::<bytes::BytesMut>().await.expect("its end").to_vec()
}
