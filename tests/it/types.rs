//! PostgreSQL is the oracle for single values: what our decoders print from the binary form is, byte for byte, what the
//! server prints itself.
//!
//! Each type's values go into a table of one column, which is copied out twice, in binary and in text: the two forms in
//! which the daemon meets a value. Values are the corners of the type and random ones; a failing run prints its seed, and
//! `WALVEC_SEED=n` replays it.

use bytes::{Bytes, BytesMut};
use futures_util::TryStreamExt;
use tokio_postgres::Client;
use walvec::change::Value;
use walvec::plan::SourceType;
use walvec::postgres::{array, pgvector};

use crate::support::postgres::Database;

/// SplitMix64: enough to scatter values.
struct Random(u64);

impl Random {
    fn new() -> Random {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
        let seed = std::env::var("WALVEC_SEED").ok().map(|seed| seed.parse().expect("WALVEC_SEED is a number"));
        let seed = seed.unwrap_or(now.as_nanos() as u64);
        println!("WALVEC_SEED={seed}");
        Random(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ mixed >> 31
    }

    /// Of a range, ends included.
    fn within(&mut self, low: i64, high: i64) -> i64 {
        let width = i128::from(high) - i128::from(low) + 1;
        (i128::from(low) + i128::from(self.next()) % width) as i64
    }
}

/// A database with a session as the daemon's.
async fn session(major: u16) -> Database {
    let database = Database::create(major).await;
    let settings = "set datestyle = iso; set timezone = utc; set extra_float_digits = 3";
    database.client.batch_execute(settings).await.expect("settings");
    database
}

async fn copy(client: &Client, format: &str) -> Bytes {
    let statement = format!("copy (select v from t order by i) to stdout (format {format})");
    let stream = client.copy_out(&statement).await.expect("a copy begins");
    stream.try_collect::<BytesMut>().await.expect("the copy ends").freeze()
}

/// Every value of table `t` in both forms.
async fn both_forms(client: &Client) -> Vec<(Bytes, Bytes)> {
    let binary = copy(client, "binary").await;
    let text = copy(client, "text").await;
    let binary = values_of_binary(binary);
    let text: Vec<Bytes> = text.split(|&byte| byte == b'\n').map(unescape).collect();
    // The text ends with a line feed.
    assert_eq!(binary.len() + 1, text.len());
    binary.into_iter().zip(text).collect()
}

/// One column, no NULLs.
fn values_of_binary(copy: Bytes) -> Vec<Bytes> {
    let number = |at: usize| i32::from_be_bytes(copy[at..at + 4].try_into().expect("four bytes"));
    assert!(copy.starts_with(b"PGCOPY\n\xFF\r\n\0"));
    let mut at = 19 + number(15) as usize;
    let mut values = Vec::new();
    while copy[at..at + 2] != (-1i16).to_be_bytes() {
        assert_eq!(copy[at..at + 2], 1i16.to_be_bytes());
        let length = usize::try_from(number(at + 2)).expect("not NULL");
        at += 6;
        values.push(copy.slice(at..at + length));
        at += length;
    }
    values
}

fn unescape(line: &[u8]) -> Bytes {
    let mut text = Vec::new();
    let mut bytes = line.iter();
    while let Some(&byte) = bytes.next() {
        text.push(match byte {
            b'\\' => match bytes.next().expect("an escaped byte") {
                b'b' => 8,
                b'f' => 12,
                b'n' => b'\n',
                b'r' => b'\r',
                b't' => b'\t',
                b'v' => 11,
                &other => other,
            },
            byte => byte,
        });
    }
    text.into()
}

/// Compare our text of every value with the server's.
async fn assert_same_text(client: &Client, source: &SourceType) -> usize {
    let values = both_forms(client).await;
    for (binary, text) in &values {
        let ours = source.text(&Value::Binary(binary.clone())).expect("decodes");
        assert_eq!(ours.as_ref(), Some(text), "{source:?} {binary:02x?}: {ours:?} is not {text:?}");
    }
    values.len()
}

async fn table(client: &Client, type_name: &str) {
    let statement =
        format!("drop table if exists t; create table t (i int generated always as identity, v {type_name})");
    client.batch_execute(&statement).await.expect("a table");
}

/// Fill `t` from texts.
async fn insert(client: &Client, type_name: &str, texts: &[String]) {
    table(client, type_name).await;
    let statement = format!(
        "insert into t (v) select v::{type_name} from unnest($1::text[]) with ordinality as u(v, n) order by n"
    );
    client.execute(&statement, &[&texts]).await.unwrap_or_else(|error| panic!("{type_name}: {error:?}"));
}

/// The corners and `count` more.
fn texts(corners: &[&str], count: usize, mut more: impl FnMut() -> String) -> Vec<String> {
    corners.iter().map(|&corner| corner.to_owned()).chain((0..count).map(|_| more())).collect()
}

#[tokio::test]
async fn floats_print_as_the_server_prints_them() {
    let database = session(18).await;
    let (client, mut random) = (&database.client, Random::new());

    let mut float4s: Vec<f32> = vec![0.0, -0.0, f32::NAN, f32::INFINITY, f32::NEG_INFINITY];
    // All powers of two and their neighbours: there the interval that reads back is lopsided.
    float4s.extend((0..=254u32).flat_map(|e| [e << 23, (e << 23) + 1, (e << 23).wrapping_sub(1)]).map(f32::from_bits));
    // Whole numbers from 2^24 on lie apart, and the midpoints between them are short decimals.
    float4s.extend((0..20_000).map(|_| random.within(1 << 23, 1 << 33) as f32));
    float4s.extend((0..100_000).map(|_| f32::from_bits(random.next() as u32)));
    table(client, "float4").await;
    client.execute("insert into t (v) select unnest($1::float4[])", &[&float4s]).await.expect("inserted");
    assert_eq!(assert_same_text(client, &SourceType::Float4).await, float4s.len());

    let mut float8s: Vec<f64> = vec![0.0, -0.0, f64::NAN, f64::INFINITY, f64::NEG_INFINITY];
    float8s
        .extend((0..=2_046u64).flat_map(|e| [e << 52, (e << 52) + 1, (e << 52).wrapping_sub(1)]).map(f64::from_bits));
    float8s.extend((0..20_000).map(|_| random.within(1 << 52, 1 << 62) as f64));
    float8s.extend((0..5_000).map(|_| random.within(-1_000_000, 1_000_000) as f64 / 1000.0));
    float8s.extend((0..100_000).map(|_| f64::from_bits(random.next())));
    table(client, "float8").await;
    client.execute("insert into t (v) select unnest($1::float8[])", &[&float8s]).await.expect("inserted");
    assert_eq!(assert_same_text(client, &SourceType::Float8).await, float8s.len());
}

#[tokio::test]
async fn numbers_print_as_the_server_prints_them() {
    let database = session(18).await;
    let (client, mut random) = (&database.client, Random::new());
    for (source, type_name, low, high) in [
        (SourceType::Int2, "int2", i64::from(i16::MIN), i64::from(i16::MAX)),
        (SourceType::Int4, "int4", i64::from(i32::MIN), i64::from(i32::MAX)),
        (SourceType::Int8, "int8", i64::MIN, i64::MAX),
    ] {
        let corners = [low.to_string(), high.to_string()];
        let corners = [&*corners[0], &*corners[1], "0", "-1"];
        insert(client, type_name, &texts(&corners, 1_000, || random.within(low, high).to_string())).await;
        assert_same_text(client, &source).await;
    }
    insert(client, "bool", &texts(&["t", "f"], 0, String::new)).await;
    assert_same_text(client, &SourceType::Bool).await;

    let corners = [
        "0",
        "-0",
        "0.0",
        "0.00000",
        "1",
        "10",
        "9999",
        "10000",
        "10000.0000",
        "99999999",
        "100000000",
        "0.0001",
        "0.00001",
        "0.00010",
        "-0.00012",
        "12345.6780",
        "NaN",
        "Infinity",
        "-Infinity",
        "1e131071",
        "1e-16383",
        "1e-1000",
        "-123e20",
    ];
    let mut digits = |count: i64| -> String { (0..count).map(|_| random.within(0, 9).to_string()).collect() };
    let mut lengths = Random(digits(9).parse().expect("nine digits"));
    let numerics = texts(&corners, 20_000, || {
        let sign = if lengths.next().is_multiple_of(2) { "-" } else { "" };
        // Runs of zeros make groups that are not stored.
        let zeros = "0".repeat(lengths.within(0, 12) as usize);
        let (whole, fraction) = (digits(lengths.within(1, 12)), digits(lengths.within(0, 12)));
        match lengths.within(0, 3) {
            0 => format!("{sign}{whole}"),
            1 => format!("{sign}{whole}.{zeros}{fraction}0"),
            2 => format!("{sign}{whole}{zeros}.{fraction}0"),
            _ => format!("{sign}0.{zeros}{fraction}{zeros}0"),
        }
    });
    insert(client, "numeric", &numerics).await;
    assert_same_text(client, &SourceType::Numeric).await;
    insert(client, "numeric(12,3)", &texts(&["0", "-0.0005", "123456789.1239"], 0, String::new)).await;
    assert_same_text(client, &SourceType::Numeric).await;
}

#[tokio::test]
async fn dates_and_times_print_as_the_server_prints_them() {
    for major in [16, 18] {
        let database = session(major).await;
        let (client, mut random) = (&database.client, Random::new());
        let corners = [
            "infinity",
            "-infinity",
            "4714-11-24 BC",
            "0001-12-31 BC",
            "0001-01-01",
            "0005-02-29 BC",
            "1900-02-28",
            "2000-02-29",
            "9999-12-31",
            "10000-01-01",
            "294276-12-31",
        ];
        let dates = texts(&corners, 0, String::new);
        let mut date_corners = dates.clone();
        date_corners.push("5874897-12-31".into());
        insert(client, "date", &date_corners).await;
        let days: Vec<i32> = (0..50_000).map(|_| random.within(-2_451_545, 2_145_031_948) as i32).collect();
        let near: Vec<i32> = (0..20_000).map(|_| random.within(-800_000, 100_000) as i32).collect();
        for days in [days, near] {
            client
                .execute("insert into t (v) select date '2000-01-01' + unnest($1::int[])", &[&days])
                .await
                .expect("dates");
        }
        assert!(assert_same_text(client, &SourceType::Date).await > 70_000);

        let time_corners = ["00:00:00", "24:00:00", "23:59:59.999999", "10:11:12.5", "00:00:00.000001", "01:00:00.10"];
        insert(client, "time", &texts(&time_corners, 0, String::new)).await;
        let times: Vec<i64> = (0..20_000).map(|_| random.within(0, 86_399_999_999)).collect();
        let statement =
            "insert into t (v) select time '00:00' + n * interval '1 microsecond' from unnest($1::int8[]) n";
        client.execute(statement, &[&times]).await.expect("times");
        assert_same_text(client, &SourceType::Time).await;

        let mut moments: Vec<i64> =
            (0..50_000).map(|_| random.within(-211_813_488_000_000_000, 9_223_371_331_199_999_999)).collect();
        moments.extend((0..20_000).map(|_| random.within(-70_000_000_000_000_000, 1_000_000_000_000_000)));
        moments.extend((0..5_000).map(|_| random.within(-100_000, 100_000) * 1_000_000 - 63_082_281_600_000_000));
        for (source, type_name) in [(SourceType::Timestamp, "timestamp"), (SourceType::TimestampTz, "timestamptz")] {
            insert(client, type_name, &dates).await;
            let statement = format!(
                "insert into t (v) select {type_name} '2000-01-01' + n / 86400000000 * interval '1 day' \
                 + n % 86400000000 * interval '1 microsecond' from unnest($1::int8[]) n"
            );
            client.execute(&statement, &[&moments]).await.expect("moments");
            assert!(assert_same_text(client, &source).await > 75_000);
        }
    }
}

#[tokio::test]
async fn texts_and_documents_are_taken_as_they_are() {
    let database = session(18).await;
    let (client, mut random) = (&database.client, Random::new());
    let strings = ["", " ", "ab", "a\tb\\c\nd", "é€😀", "\u{1}", "NULL", "\\N"];
    for type_name in ["text", "varchar(20)", "char(5)", "bpchar"] {
        let fitting: Vec<&str> =
            strings.into_iter().filter(|s| type_name != "char(5)" || s.chars().count() <= 5).collect();
        insert(client, type_name, &texts(&fitting, 0, String::new)).await;
        assert_same_text(client, &SourceType::Text).await;
    }
    let uuids = texts(&[], 1_000, || format!("{:016x}{:016x}", random.next(), random.next()));
    insert(client, "uuid", &uuids).await;
    assert_same_text(client, &SourceType::Uuid).await;
    let documents = ["{}", "[]", " { \"b\" : 1, \"a\": [1.10, null], \"a\": 2 }", "1", "null", "\"\\u00e9\"", "1e400"];
    insert(client, "json", &texts(&documents, 0, String::new)).await;
    assert_same_text(client, &SourceType::Json).await;
    insert(client, "jsonb", &texts(&documents, 0, String::new)).await;
    assert_same_text(client, &SourceType::Jsonb).await;
    client
        .batch_execute("drop domain if exists short cascade; create domain short as varchar(3)")
        .await
        .expect("a domain");
    insert(client, "short", &texts(&["abc", ""], 0, String::new)).await;
    assert_same_text(client, &SourceType::Text).await;
}

#[tokio::test]
async fn vectors_are_the_same_floats_in_both_forms() {
    for major in [16, 18] {
        let database = session(major).await;
        let (client, mut random) = (&database.client, Random::new());
        table(client, "vector").await;
        let mut rows = 0;
        for dim in [1, 2, 3, 768, 16_000] {
            for _ in 0..20 {
                let floats: Vec<f32> = std::iter::repeat_with(|| f32::from_bits(random.next() as u32))
                    .filter(|float| float.is_finite())
                    .take(dim)
                    .collect();
                client.execute("insert into t (v) select $1::float4[]::vector", &[&floats]).await.expect("inserted");
                rows += 1;
            }
        }
        let values = both_forms(client).await;
        assert_eq!(values.len(), rows);
        for (binary, text) in values {
            let dim = usize::from(u16::from_be_bytes([binary[0], binary[1]]));
            let (mut from_binary, mut from_text, mut printed) = (Vec::new(), Vec::new(), Vec::new());
            pgvector::append_binary(&binary, dim, &mut from_binary).expect("decodes");
            pgvector::append_text(&text, dim, &mut from_text).expect("parses");
            assert!(from_binary == from_text);
            pgvector::print_vector(&binary, &mut printed).expect("prints");
            assert!(printed == text);
        }
    }
}

#[tokio::test]
async fn arrays_have_the_same_elements_in_both_forms() {
    let database = session(18).await;
    let (client, mut random) = (&database.client, Random::new());
    const ALPHABET: [&str; 16] =
        ["a", "B", " ", "\"", "\\", "{", "}", ",", "\t", "\n", "\u{b}", "é", "NULL", "null", "'", "="];
    for (element, type_name, corners) in [
        (SourceType::Text, "text", &["{}", "[0:1]={a,b}", "[-2:-2]={x}", "{\"\"}", "{\"NULL\"}"][..]),
        (SourceType::Int4, "int4", &["{}", "{1,-2}", "[5:6]={7,8}"]),
        (SourceType::Bool, "bool", &["{t,f}"]),
        (SourceType::Float4, "float4", &["{1.5,NaN,-Infinity,1e-10}"]),
        (SourceType::Float8, "float8", &["{0.1,1e300}"]),
        (SourceType::Numeric, "numeric", &["{1.10,-0.001}"]),
        (SourceType::Uuid, "uuid", &["{00000000-0000-0000-0000-000000000001}"]),
        (SourceType::TimestampTz, "timestamptz", &["{2024-01-02 03:04:05.6+00,infinity,0044-03-15 BC}"]),
        (SourceType::Date, "date", &["{2024-01-02,0044-03-15 BC}"]),
        (SourceType::Time, "time", &["{01:02:03,24:00:00}"]),
    ] {
        insert(client, &format!("{type_name}[]"), &texts(corners, 0, String::new)).await;
        if type_name == "text" {
            for _ in 0..500 {
                let mut string = || -> String {
                    (0..random.within(0, 4)).map(|_| ALPHABET[random.within(0, 15) as usize]).collect()
                };
                let strings: Vec<String> = (0..3).map(|_| string()).collect();
                client.execute("insert into t (v) values ($1::text[])", &[&strings]).await.expect("inserted");
            }
        }
        let source = SourceType::Array(Box::new(element.clone()));
        assert!(assert_same_text(client, &source).await >= corners.len());
        for (binary, text) in both_forms(client).await {
            let from_binary: Vec<Vec<u8>> = array::Binary::new(&binary)
                .expect("an array")
                .map(|bytes| {
                    let mut printed = Vec::new();
                    element.print(bytes.expect("an element"), &mut printed).expect("prints");
                    printed
                })
                .collect();
            let from_text: Vec<Vec<u8>> = array::Text::new(&text)
                .expect("an array")
                .map(|element| element.expect("an element").into_owned())
                .collect();
            assert_eq!(from_binary, from_text, "{type_name}");
        }
    }
}
