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
use walvec::plan::types::{Read, resolve};
use walvec::postgres::catalog::read_tables;
use walvec::postgres::{array, pgvector};

use crate::support::postgres::{Database, major, majors};
use crate::support::scene::Scene;

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
    let settings = "set datestyle = iso; set timezone = utc; set extra_float_digits = 3; \
                    set intervalstyle = postgres; set bytea_output = hex; set lc_monetary = 'C'";
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
    let database = session(major()).await;
    let (client, mut random) = (&database.client, Random::new());

    let mut float4s: Vec<f32> = vec![0.0, -0.0, f32::NAN, f32::INFINITY, f32::NEG_INFINITY];
    // All powers of two and their neighbours: there the interval that reads back is lopsided.
    float4s.extend((0..=254u32).flat_map(|e| [e << 23, (e << 23) + 1, (e << 23).wrapping_sub(1)]).map(f32::from_bits));
    // Whole numbers from 2^24 on lie apart, and the midpoints between them are short decimals.
    float4s.extend((0..20_000).map(|_| random.within(1 << 23, 1 << 33) as f32));
    float4s.extend((0..100_000).map(|_| f32::from_bits(random.next() as u32)));
    table(client, "float4").await;
    client.execute("insert into t (v) select unnest($1::float4[])", &[&float4s]).await.expect("inserted");
    assert_eq!(assert_same_text(client, &SourceType::named("float4")).await, float4s.len());

    let mut float8s: Vec<f64> = vec![0.0, -0.0, f64::NAN, f64::INFINITY, f64::NEG_INFINITY];
    float8s
        .extend((0..=2_046u64).flat_map(|e| [e << 52, (e << 52) + 1, (e << 52).wrapping_sub(1)]).map(f64::from_bits));
    float8s.extend((0..20_000).map(|_| random.within(1 << 52, 1 << 62) as f64));
    float8s.extend((0..5_000).map(|_| random.within(-1_000_000, 1_000_000) as f64 / 1000.0));
    float8s.extend((0..100_000).map(|_| f64::from_bits(random.next())));
    table(client, "float8").await;
    client.execute("insert into t (v) select unnest($1::float8[])", &[&float8s]).await.expect("inserted");
    assert_eq!(assert_same_text(client, &SourceType::named("float8")).await, float8s.len());
}

#[tokio::test]
async fn numbers_print_as_the_server_prints_them() {
    let database = session(major()).await;
    let (client, mut random) = (&database.client, Random::new());
    for (source, type_name, low, high) in [
        (SourceType::named("int2"), "int2", i64::from(i16::MIN), i64::from(i16::MAX)),
        (SourceType::named("int4"), "int4", i64::from(i32::MIN), i64::from(i32::MAX)),
        (SourceType::named("int8"), "int8", i64::MIN, i64::MAX),
    ] {
        let corners = [low.to_string(), high.to_string()];
        let corners = [&*corners[0], &*corners[1], "0", "-1"];
        insert(client, type_name, &texts(&corners, 1_000, || random.within(low, high).to_string())).await;
        assert_same_text(client, &source).await;
    }
    insert(client, "bool", &texts(&["t", "f"], 0, String::new)).await;
    assert_same_text(client, &SourceType::named("bool")).await;

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
    assert_same_text(client, &SourceType::named("numeric")).await;
    insert(client, "numeric(12,3)", &texts(&["0", "-0.0005", "123456789.1239"], 0, String::new)).await;
    assert_same_text(client, &SourceType::named("numeric")).await;
}

#[tokio::test]
async fn dates_and_times_print_as_the_server_prints_them() {
    for major in majors() {
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
        assert!(assert_same_text(client, &SourceType::named("date")).await > 70_000);

        let time_corners = ["00:00:00", "24:00:00", "23:59:59.999999", "10:11:12.5", "00:00:00.000001", "01:00:00.10"];
        insert(client, "time", &texts(&time_corners, 0, String::new)).await;
        let times: Vec<i64> = (0..20_000).map(|_| random.within(0, 86_399_999_999)).collect();
        let statement =
            "insert into t (v) select time '00:00' + n * interval '1 microsecond' from unnest($1::int8[]) n";
        client.execute(statement, &[&times]).await.expect("times");
        assert_same_text(client, &SourceType::named("time")).await;

        let mut moments: Vec<i64> =
            (0..50_000).map(|_| random.within(-211_813_488_000_000_000, 9_223_371_331_199_999_999)).collect();
        moments.extend((0..20_000).map(|_| random.within(-70_000_000_000_000_000, 1_000_000_000_000_000)));
        moments.extend((0..5_000).map(|_| random.within(-100_000, 100_000) * 1_000_000 - 63_082_281_600_000_000));
        for (source, type_name) in
            [(SourceType::named("timestamp"), "timestamp"), (SourceType::named("timestamptz"), "timestamptz")]
        {
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
    let database = session(major()).await;
    let (client, mut random) = (&database.client, Random::new());
    let strings = ["", " ", "ab", "a\tb\\c\nd", "é€😀", "\u{1}", "NULL", "\\N"];
    for type_name in ["text", "varchar(20)", "char(5)", "bpchar"] {
        let fitting: Vec<&str> =
            strings.into_iter().filter(|s| type_name != "char(5)" || s.chars().count() <= 5).collect();
        insert(client, type_name, &texts(&fitting, 0, String::new)).await;
        assert_same_text(client, &SourceType::named("text")).await;
    }
    let uuids = texts(&[], 1_000, || format!("{:016x}{:016x}", random.next(), random.next()));
    insert(client, "uuid", &uuids).await;
    assert_same_text(client, &SourceType::named("uuid")).await;
    let documents = ["{}", "[]", " { \"b\" : 1, \"a\": [1.10, null], \"a\": 2 }", "1", "null", "\"\\u00e9\"", "1e400"];
    insert(client, "json", &texts(&documents, 0, String::new)).await;
    assert_same_text(client, &SourceType::named("json")).await;
    insert(client, "jsonb", &texts(&documents, 0, String::new)).await;
    assert_same_text(client, &SourceType::named("jsonb")).await;
    client
        .batch_execute("drop domain if exists short cascade; create domain short as varchar(3)")
        .await
        .expect("a domain");
    insert(client, "short", &texts(&["abc", ""], 0, String::new)).await;
    assert_same_text(client, &SourceType::named("text")).await;
}

#[tokio::test]
async fn vectors_are_the_same_floats_in_both_forms() {
    for major in majors() {
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
    let database = session(major()).await;
    let (client, mut random) = (&database.client, Random::new());
    const ALPHABET: [&str; 16] =
        ["a", "B", " ", "\"", "\\", "{", "}", ",", "\t", "\n", "\u{b}", "é", "NULL", "null", "'", "="];
    for (element, type_name, corners) in [
        (SourceType::named("text"), "text", &["{}", "[0:1]={a,b}", "[-2:-2]={x}", "{\"\"}", "{\"NULL\"}"][..]),
        (SourceType::named("int4"), "int4", &["{}", "{1,-2}", "[5:6]={7,8}"]),
        (SourceType::named("bool"), "bool", &["{t,f}"]),
        (SourceType::named("float4"), "float4", &["{1.5,NaN,-Infinity,1e-10}"]),
        (SourceType::named("float8"), "float8", &["{0.1,1e300}"]),
        (SourceType::named("numeric"), "numeric", &["{1.10,-0.001}"]),
        (SourceType::named("uuid"), "uuid", &["{00000000-0000-0000-0000-000000000001}"]),
        (SourceType::named("timestamptz"), "timestamptz", &["{2024-01-02 03:04:05.6+00,infinity,0044-03-15 BC}"]),
        (SourceType::named("date"), "date", &["{2024-01-02,0044-03-15 BC}"]),
        (SourceType::named("time"), "time", &["{01:02:03,24:00:00}"]),
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
        let source = SourceType::Array { element: Box::new(element.clone()), delimiter: b',' };
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
            let from_text: Vec<Vec<u8>> = array::Text::new(&text, b',')
                .expect("an array")
                .map(|element| element.expect("an element").into_owned())
                .collect();
            assert_eq!(from_binary, from_text, "{type_name}");
        }
    }
}

/// Types of the test's own.
const OWN_TYPES: &str = "
    create type mood as enum ('sad', 'ok', 'a \"b\\c, d', '');
    create domain short as varchar(5); create domain shorter as short check (length(value) < 4);
    create type pair as (a int, b text, c float8); create type outer_pair as (p pair, m mood[], r int4range);
    create type textrange as range (subtype = text); create type pairrange as range (subtype = pair)";

/// A type, its corners, and an SQL expression of more values (`r` is a new random number from 0 to 1 each).
type Line = (&'static str, &'static [&'static str], &'static str);

const TEXT: &str = "substr('a\"\\ {},()[]é''=:\t;NULL', (r * 18)::int, (r * 5)::int)";

const LINES: &[Line] = &[
    ("\"char\"", &["a", ""], "chr((r * 126)::int + 1)::\"char\""),
    ("name", &["pg_class", ""], "md5(r::text)::name"),
    ("bytea", &["", "\\x00ff"], "decode(md5(r::text), 'hex')"),
    (
        "jsonpath",
        &["$.a[*] ? (@ > 1)", "strict $"],
        "('$.\"' || md5(r::text) || '\"[' || (r * 99)::int || ']')::jsonpath",
    ),
    (
        "timetz",
        &["00:00:00+00", "24:00:00-15:59:59", "12:00:00.5+05:30", "01:02:03.000001-00:30"],
        "(time '00:00' + r * interval '24 hours') at time zone make_interval(mins => (r * 1800)::int - 900)",
    ),
    (
        "interval",
        &[
            "0",
            "1 year",
            "-1 year",
            "1 mon -1 day",
            "-1 mon +1 day",
            "-00:00:00.000001",
            "178000000 years",
            "-178000000 years",
            "1 day -04:05:06.7",
            "-13 mons 2 days 03:00",
            "-2562047788:00:54.775807",
            "1 year 1 mon 1 day 1 hour",
        ],
        "make_interval(months => ((r - 0.5) * 40)::int, days => ((random() - 0.5) * 9)::int, secs => ((random() - 0.5) * 1e5))",
    ),
    (
        "inet",
        &[
            "10.0.0.1",
            "10.0.0.1/8",
            "0.0.0.0/0",
            "::",
            "::1",
            "::ffff:1.2.3.4",
            "::1.2.3.4",
            "::1:2",
            "1::",
            "1:0:0:2::3",
            "fe80::1/64",
            "2001:db8::/32",
            "::ffff:0:0",
            "::ffff:0:1.2.3.4",
        ],
        "case when r < 0.5 then ('::'::inet + (random() * 1e9)::int8) | ('8000::'::inet + (r * 9)::int8) \
          else set_masklen('0.0.0.0'::inet + (random() * 4e9)::int8, (r * 32)::int) end",
    ),
    (
        "cidr",
        &["10.0.0.0/8", "192.168.1.1/32", "::/0", "2001:db8::/32", "::1/128"],
        "network(set_masklen('0.0.0.0'::inet + (random() * 4e9)::int8, (r * 32)::int))",
    ),
    ("macaddr", &["08:00:2b:01:02:03", "ff:ff:ff:ff:ff:ff"], "substr(md5(r::text), 1, 12)::macaddr"),
    ("macaddr8", &["08:00:2b:01:02:03:04:05"], "substr(md5(r::text), 1, 16)::macaddr8"),
    (
        "money",
        &["0", "-0.01", "1234.56", "-92233720368547758.08", "92233720368547758.07"],
        "((r - 0.5) * 1e9)::numeric::money",
    ),
    ("bit(13)", &["1010101010101", "0000000000000"], "(r * 8191)::int::bit(13)"),
    ("bit(16)", &["1000000000000001"], "(r * 65535)::int::bit(16)"),
    (
        "varbit",
        &["", "1", "10101010", "101010101"],
        "substring((r * 2e9)::int::bit(32)::varbit for (random() * 32)::int)",
    ),
    ("oid", &["0", "4294967295"], "(r * 4e9)::int8::oid"),
    ("xid", &["0", "4294967295"], "(r * 4e9)::int8::text::xid"),
    ("cid", &["0", "4294967295"], "(r * 4e9)::int8::text::cid"),
    ("xid8", &["0", "18446744073709551615"], "(r * 1e18)::int8::text::xid8"),
    ("pg_lsn", &["0/0", "FFFFFFFF/FFFFFFFF", "16/B374D848"], "'0/0'::pg_lsn + (r * 1e15)::numeric::int8"),
    ("tid", &["(0,0)", "(4294967295,65535)"], "format('(%s,%s)', (r * 4e9)::int8, (random() * 65535)::int)::tid"),
    ("pg_snapshot", &["10:20:10,14,15", "1:1:"], "pg_current_snapshot()"),
    (
        "tsvector",
        &["", "'it''s':1A,2B,3C,4 'b\\\\':16383 plain"],
        "setweight(to_tsvector('simple', md5(r::text) || ' ' || md5(random()::text)), 'B')",
    ),
    ("point", &["(0,-0)", "(NaN,Infinity)", "(1e300,1e-300)"], "point(r, random() * 1e9)"),
    ("line", &["{1,-1,0}", "{0,1,-2.5}"], "line(point(r, 0), point(random() + 2, 1))"),
    ("lseg", &["[(0,0),(1,1)]"], "lseg(point(r, 0), point(random(), 1))"),
    ("box", &["(1,1),(0,0)"], "box(point(r, 0), point(random(), 1))"),
    (
        "path",
        &["[(0,0),(1,1)]", "((0,0),(1,1),(2,0))"],
        "path(polygon((random() * 9)::int + 2, circle(point(r, 0), 1)))",
    ),
    ("polygon", &["((0,0),(1,1),(2,0))"], "polygon((random() * 9)::int + 2, circle(point(r, 0), 1))"),
    ("circle", &["<(0,0),1>", "<(1,2),0>"], "circle(point(r, 0), random())"),
    ("int2vector", &["", "1", "-32768 32767 0"], "format('%s %s', (r * 99)::int, (random() * 99)::int)::int2vector"),
    ("oidvector", &["", "4294967295 0"], "format('%s %s', (r * 99)::int, (random() * 99)::int)::oidvector"),
    ("mood", &["sad", "a \"b\\c, d", ""], "(enum_range(null::mood))[1 + (r * 3)::int]"),
    ("shorter", &["abc", ""], "substr(md5(r::text), 1, 3)::shorter"),
    (
        "pair",
        &["(1,a,2.5)", "(,,)", "(1,\"\",)", "(-1,\"a \"\"b\"\"\\\\,()\",NaN)"],
        "row((r * 99)::int, TEXT, random())::pair",
    ),
    (
        "outer_pair",
        &["(\"(1,a,)\",\"{sad,\"\"\"\"}\",\"[1,5)\")", "(,,)", "(\"(,,)\",{},empty)"],
        "row(row((r * 99)::int, TEXT, random())::pair, array['ok', null]::mood[], int4range(1, (r * 9)::int + 2))::outer_pair",
    ),
    (
        "int4range",
        &["empty", "(,)", "[1,5)", "[,3]", "(3,)"],
        "int4range((r * 9)::int, (r * 9 + random() * 9)::int, '[]')",
    ),
    ("int8range", &["empty", "[-9223372036854775808,9223372036854775807)"], "int8range((r * 9)::int8, null)"),
    (
        "numrange",
        &["[1.10,2.50]", "(NaN,)", "(-Infinity,Infinity)"],
        "numrange(r::numeric, (r + random())::numeric, '(]')",
    ),
    (
        "tsrange",
        &["[2000-01-01,infinity)", "[0044-03-15 BC,2000-01-01 00:00:00.5]"],
        "tsrange('2000-01-01', timestamp '2000-01-01' + r * interval '1 day')",
    ),
    ("tstzrange", &["[2000-01-01,)"], "tstzrange('2000-01-01', timestamptz '2000-01-01' + r * interval '1 day')"),
    ("daterange", &["[2000-01-01,2000-01-02)", "empty"], "daterange('2000-01-01', date '2000-01-01' + (r * 99)::int)"),
    (
        "textrange",
        &["[\"\",a)", "[\" \",\"a,b\"]", "(,\"\\\"\\\\()[]\")"],
        "textrange(least(TEXT, 'a'), greatest(TEXT, 'a'), '[]')",
    ),
    ("pairrange", &["[\"(1,a,)\",\"(2,b,1)\")"], "pairrange(row(1, TEXT, r)::pair, row(2, TEXT, r)::pair)"),
    (
        "int4multirange",
        &["{}", "{[1,5),[7,9)}", "{(,)}"],
        "int4multirange(int4range(1, 2), int4range(5, 6 + (r * 9)::int))",
    ),
    (
        "datemultirange",
        &["{[2000-01-01,2000-01-02),[2001-01-01,)}"],
        "datemultirange(daterange('2000-01-01', date '2000-01-02' + (r * 99)::int))",
    ),
    (
        "int4[]",
        &["{}", "{NULL}", "{1,NULL,3}", "[0:1]={1,2}", "{{1,2},{3,NULL}}", "[-1:0][5:5]={{1},{2}}", "{{{{{{1}}}}}}"],
        "array[(r * 99)::int, null, (random() * 9)::int]",
    ),
    (
        "text[]",
        &["{\"\",\"NULL\",NULL,\"a b\"}", "{{\"{\",\"}\"},{\"\\\"\",\"\\\\\"}}"],
        "array[[TEXT, TEXT], [null, TEXT]]",
    ),
    ("box[]", &["{(1,1),(0,0);(2,2),(1,1)}", "{NULL}"], "array[box(point(r, 0), point(1, 1)), null]"),
    ("pair[]", &["{\"(1,a,)\",NULL}"], "array[row(1, TEXT, r)::pair, null]"),
    ("interval[]", &["{\"1 day\",\"-1 mons +01:00:00\"}"], "array[r * interval '1 day']"),
    ("int4range[]", &["{empty,\"[1,5)\"}"], "array[int4range(1, 2 + (r * 9)::int)]"),
    ("bytea[]", &["{\"\\\\x00\"}"], "array[decode(md5(r::text), 'hex')]"),
    ("vector", &["[1]", "[1,2.5,-3e-05]"], "array[r, random() * 1e9]::vector"),
    ("halfvec", &["[1]", "[0.5,-65504,6e-08]", "[0.1,0.333]"], "array[r, random() * 1e4]::halfvec"),
    (
        "sparsevec",
        &["{}/3", "{1:0.5,3:-2}/5", "{1000000000:1}/1000000000"],
        "format('{%s:%s}/9', 1 + (r * 8)::int, 0.1 + random())::sparsevec",
    ),
    ("halfvec[]", &["{\"[1,2]\",NULL}"], "array[array[r, 1]::halfvec]"),
];

/// Contrib comes with the package of 18 only.
const CONTRIB: &[Line] = &[
    ("citext", &["", "Ab é"], "md5(r::text)::citext"),
    ("hstore", &["", "\"a\"=>\"1\", \"b\"=>NULL", "\"\"=>\"\"", "\"q\\\"\\\\\"=>\"é,=>\""], "hstore(TEXT, TEXT)"),
    ("ltree", &["Top.Science", "a"], "('a' || (r * 9)::int || '.b')::ltree"),
    ("hstore[]", &["{\"\\\"a\\\"=>NULL\",NULL}"], "array[hstore(TEXT, null)]"),
];

/// Is the end of the binary form known from within? Else a value cut off is another value.
fn ends_by_itself(source: &SourceType) -> bool {
    let bare = ["bytea"].map(SourceType::named);
    !matches!(source.entry().read, Read::Verbatim | Read::Json | Read::Versioned) && !bare.contains(source)
}

#[tokio::test]
async fn every_type_prints_as_the_server_prints_it() {
    let mut random = Random::new();
    for (major, contrib) in [(18, CONTRIB), (16, &[][..])] {
        let database = session(major).await;
        let client = &database.client;
        client.batch_execute(OWN_TYPES).await.expect("types");
        if !contrib.is_empty() {
            let extensions = "create extension citext; create extension hstore; create extension ltree";
            client.batch_execute(extensions).await.expect("extensions");
        }
        let connection = walvec::postgres::connect(&database.settings(), "test").await.expect("connected");
        client.execute("select setseed($1)", &[&(random.within(0, 1_000_000) as f64 / 1e6)]).await.expect("a seed");
        for (type_name, corners, more) in LINES.iter().chain(contrib) {
            insert(client, type_name, &texts(corners, 0, String::new)).await;
            let more = more.replace("TEXT", TEXT);
            let statement = format!(
                "insert into t (v) select {more} from (select random() as r from generate_series(1, 300)) as s"
            );
            client.batch_execute(&statement).await.unwrap_or_else(|error| panic!("{statement}: {error:?}"));
            let found = read_tables(&connection, &["public.t".to_owned()]).await.expect("the catalog is read");
            let column = found[0].1.columns.iter().find(|column| column.name == "v").expect("the column");
            let source = resolve(&column.data_type);
            assert!(!source.is_opaque(), "{type_name} has a line");
            assert!(assert_same_text(client, &source).await >= 300);
            if !ends_by_itself(&source) {
                continue;
            }
            for (binary, _) in both_forms(client).await.into_iter().take(20) {
                for cut in 0..binary.len() {
                    let text = source.text(&Value::Binary(binary.slice(..cut)));
                    assert!(text.is_err(), "{type_name} {binary:02x?} cut at {cut} is {text:?}");
                }
            }
        }
    }
}

/// Types are known by name and extension, wherever their extension is and whatever our search_path says.
#[tokio::test(flavor = "multi_thread")]
async fn extensions_in_another_schema_are_the_same_types() {
    let mut scene = Scene::shared(major()).await;
    scene
        .sql(
            "create schema \"Ext s\"; alter extension vector set schema \"Ext s\"; create extension citext schema \"Ext s\";
             create extension hstore schema \"Ext s\"; set search_path = public, \"Ext s\"",
        )
        .await;
    let table = scene
        .table("id citext primary key, h hstore, n int, embedding vector(700) not null, halves halfvec(4), few sparsevec(9)")
        .await;
    scene.sql(&format!("create index on {table} using hnsw (embedding vector_l2_ops)")).await;
    let embedding = crate::support::scene::embedding("i", 700);
    let rows = |from: i64, to: i64| {
        format!(
            "insert into {table} select 'Ab' || i, hstore('a', i::text), i, {embedding}, '[1,2,3,4]', '{{1:1,9:2}}/9' from generate_series({from}, {to}) i"
        )
    };
    scene.sql(&rows(1, 20)).await;
    let mut daemon = scene.started().await;
    scene
        .sql(&format!("{}; update {table} set n = -n where n > 3; update {table} set id = 'aB1' where id = 'Ab1'; delete from {table} where id = 'ab2'", rows(21, 25)))
        .await;
    scene.converged(&mut daemon).await;
}
