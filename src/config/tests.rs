//! The configuration as a whole: the documented file, the defaults, and what every kind of mistake says.

use std::time::Duration;

use super::written::KEYS;
use super::*;

const DOCUMENTED: &str = include_str!("../../config/walvec.toml");

const MINIMAL: &str = r#"
[source]
url = "postgresql://replicator@db.internal:5432/app?sslmode=verify-full"
[target]
url = "https://in03-xxxx.serverless.gcp-us-west1.cloud.zilliz.com"
[[table]]
name = "public.docs"
"#;

fn parsed(text: &str) -> Result<Loaded, String> {
    let environment = Environment::of([("PASSWORD", "hunter2"), ("TOKEN", "sesame")]);
    parse(text, "walvec.toml", &environment).map_err(|error| error.to_string())
}

/// The minimal file with one line more (or another one in its place) in a section.
fn with(section: &str, line: &str) -> String {
    let key = line.split('=').next().unwrap_or_default().trim();
    let mut text = String::new();
    let mut here = String::new();
    for old in MINIMAL.lines() {
        if old.starts_with('[') {
            here = old.to_owned();
        }
        if here == section && old.split('=').next().map(str::trim) == Some(key) {
            continue;
        }
        text.push_str(old);
        text.push('\n');
        if old == section {
            text.push_str(line);
            text.push('\n');
        }
    }
    if !MINIMAL.contains(section) {
        text.push_str(&format!("{section}\n{line}\n"));
    }
    text
}

#[test]
fn the_documented_file_is_the_defaults() {
    let documented = parsed(DOCUMENTED).expect("config/walvec.toml is valid");
    let minimal = parsed(MINIMAL).expect("the minimal file is valid");
    assert_eq!(format!("{documented:#?}"), format!("{minimal:#?}"));
    assert!(minimal.warnings.is_empty(), "{:?}", minimal.warnings);
}

#[test]
fn the_documented_file_shows_every_key() {
    let mut section = String::new();
    let mut shown = Vec::new();
    for line in DOCUMENTED.lines() {
        let line = line.trim_start_matches("# ");
        if let Some(header) = line.strip_prefix('[') {
            let header = header.trim_matches(['[', ']']);
            section = if header.starts_with("table.fields.") { "table.fields" } else { header }.to_owned();
        }
        if let Some((key, value)) = line.split_once(" = ") {
            shown.push((section.clone(), key.to_owned()));
            if key == "columns" {
                let inner = value.trim_start_matches("{ ").split(' ').next().unwrap_or_default();
                shown.push(("table.columns".to_owned(), inner.to_owned()));
            }
        }
    }
    for (section, keys) in KEYS.iter().filter(|(section, _)| !section.is_empty()) {
        for key in keys.iter().filter(|key| **key != "fields") {
            assert!(shown.contains(&((*section).to_owned(), (*key).to_owned())), "[{section}] {key} is not shown");
        }
    }
}

/// What is commented out in the documented file must be right too: with everything switched on it parses.
#[test]
fn the_commented_keys_of_the_documented_file_are_valid() {
    let mut text = String::new();
    for line in DOCUMENTED.lines() {
        let bare = line.trim_start_matches("# ");
        let is_key =
            bare.split_once(" = ").is_some_and(|(key, _)| key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'));
        let chosen = is_key || bare.starts_with('[');
        if chosen && !bare.starts_with("columns = { include") {
            let bare = bare.replace("WALVEC_SOURCE_PASSWORD", "PASSWORD").replace("ZILLIZ_TOKEN", "TOKEN");
            text.push_str(&bare);
            text.push('\n');
        }
    }
    let settings = parsed(&text).expect("every documented key is valid").settings;
    assert_eq!(settings.source.password.as_ref().map(Secret::expose), Some("hunter2"));
    assert_eq!(settings.target.token.as_ref().map(Secret::expose), Some("sesame"));
    assert_eq!(settings.tables[0].fields.len(), 2);
}

/// serde lists its fields when it meets an unknown one; `KEYS` must be that list.
#[test]
fn the_list_of_keys_is_what_serde_knows() {
    fn fields<T: serde::de::DeserializeOwned>(text: &str) -> Vec<String> {
        let message = toml::from_str::<T>(text).err().expect("no such key").message().to_owned();
        let (_, list) = message.split_once("expected").expect("serde lists what it expects");
        list.split('`').skip(1).step_by(2).map(str::to_owned).collect()
    }
    for (section, keys) in KEYS {
        let known = match *section {
            "" => fields::<written::Config>("zzz = 1"),
            "source" => fields::<written::Source>("zzz = 1"),
            "target" => fields::<written::Target>("zzz = 1"),
            "state" => fields::<written::State>("zzz = 1"),
            "guard" => fields::<written::Guard>("zzz = 1"),
            "admin" => fields::<written::Admin>("zzz = 1"),
            "pipeline" => fields::<written::Pipeline>("zzz = 1"),
            "log" => fields::<written::Log>("zzz = 1"),
            "table" => fields::<written::Table>("zzz = 1"),
            "table.columns" => fields::<written::Columns>("zzz = 1"),
            "table.fields" => fields::<written::Field>("zzz = 1"),
            other => panic!("section {other} has no struct here"),
        };
        assert_eq!(&known, keys, "[{section}]");
    }
}

#[test]
fn every_mistake_names_its_line_its_key_and_the_way_out() {
    for (section, line, expected) in [
        ("[source]", "slott = \"x\"", "walvec.toml:3: source.slott: unknown key; did you mean \"slot\"?"),
        (
            "[source]",
            "wal_sender_timout = \"1s\"",
            "source.wal_sender_timout: unknown key; did you mean \"wal_sender_timeout\"?",
        ),
        ("[source]", "token = 1", "source.token: unknown key; it belongs in [target]"),
        ("[pipelines]", "lanes = 1", "pipelines: unknown key; did you mean \"pipeline\"?"),
        ("[table.columns]", "exlude = []", "table.columns.exlude: unknown key; did you mean \"exclude\"?"),
        ("[table.fields.title]", "renamed = \"x\"", "table.fields.renamed: unknown key; did you mean \"rename\"?"),
        ("[log]", "colour = true", "log.colour: unknown key; [log] has format, filter"),
        (
            "[source]",
            "url = \"postgresql://u:${PW}@h/d\"",
            "walvec.toml:3: source.url: holds ${…}, which is not filled in",
        ),
        ("[source]", "password = { command = [\"sh\", \"-c\", \"echo ${X}\"] }", "source.password.command: holds ${…}"),
        ("[source]", "url = 5", "walvec.toml:3: url: invalid type"),
        ("[source]", "url = \"mysql://h/d\"", "walvec.toml:3: source.url: neither \"postgresql://"),
        ("[source]", "url = \"postgresql://h/d\"", "source.url: has no user; write postgresql://USER@host/database"),
        ("[source]", "url = \"user=u\"", "source.url: has no host"),
        ("[source]", "url = \"host=h user=u sslmode=verify-ful\"", "source.sslmode: \"verify-ful\" is none of"),
        ("[source]", "url = \"host=h user=u connect_timeout=soon\"", "connect_timeout is not a number of seconds"),
        ("[source]", "sslcert = \"c.pem\"", "source.sslcert: sslcert and sslkey belong together"),
        ("[source]", "slot = \"My-Slot\"", "source.slot: \"My-Slot\" is no slot name"),
        (
            "[source]",
            "wal_sender_timeout = \"10\"",
            "walvec.toml:3: wal_sender_timeout: \"10\" is not a duration with its unit",
        ),
        ("[source]", "wal_sender_timeout = \"10ms\"", "source.wal_sender_timeout: 10ms is not from 1s to 1h"),
        ("[source]", "password = { env = \"NOPE\" }", "source.password: environment variable \"NOPE\" is not set"),
        ("[source]", "password = { env = \"A\", file = \"b\" }", "password: a secret is exactly one of"),
        ("[source]", "password = 4711", "password: a number is no secret"),
        ("[target]", "url = \"localhost:19530\"", "target.url: is not http://host:port"),
        ("[target]", "url = \"https://u:secret@h\"", "target.url: holds user:password@; write it as target.token"),
        ("[target]", "url = \"http://h:19530/db\"", "target.url: is more or less than scheme, host and port"),
        ("[target]", "url = \"http://h:x\"", "target.url: has a port that is not"),
        ("[target]", "transport = \"http\"", "target.transport: \"http\" is none of \"grpc\", \"rest\""),
        (
            "[target]",
            "plan = \"standard\"",
            "target.plan: \"standard\" is none of \"free\", \"serverless\", \"dedicated\"",
        ),
        ("[target]", "max_write_mb_per_s = 0.0", "target.max_write_mb_per_s: 0 is not from 0.01 to 10000"),
        ("[target]", "blocked_after = \"1ms\"", "target.blocked_after: 1ms is not from 1s to 24h"),
        ("[target]", "client_cert = \"c.pem\"", "target.client_cert: client_cert and client_key belong together"),
        ("[guard]", "warn_bytes = \"512KiB\"", "guard.warn_bytes: 512KiB is not from 1MiB to 1048576GiB"),
        ("[guard]", "give_up_bytes = \"15GiB\"", "guard.give_up_bytes: is the last step, so it must be the largest"),
        ("[admin]", "listen = \"9187\"", "admin.listen: \"9187\" is neither address:port"),
        ("[pipeline]", "lanes = 0", "pipeline.lanes: 0 is not from 1 to 64"),
        ("[pipeline]", "lanes = -1", "lanes: invalid value"),
        ("[pipeline]", "memory_bytes = \"1MiB\"", "pipeline.memory_bytes: 1MiB is not from 8MiB to 64GiB"),
        ("[pipeline]", "memory_bytes = \"64Mb\"", "memory_bytes: \"64Mb\" is not a size with its unit"),
        ("[log]", "format = \"xml\"", "log.format: \"xml\" is none of \"text\", \"json\""),
        ("[log]", "filter = \"walvec=loud\"", "log.filter: is no filter such as"),
        ("[[table]]", "name = \"docs\"", "table.name: \"docs\" is not schema.table, such as \"public.docs\""),
        (
            "[[table]]",
            "columns = { include = [\"a\"], exclude = [\"b\"] }",
            "table.columns: has both include and exclude",
        ),
        ("[[table]]", "collection = \"my docs\"", "table.collection: \"my docs\" is no name in Milvus"),
        (
            "[[table]]",
            "metric = \"cosine\"",
            "table.metric: \"cosine\" is none of \"COSINE\", \"L2\", \"IP\", \"HAMMING\", \"JACCARD\"; did you mean \"COSINE\"?",
        ),
        ("[[table]]", "fields.title.max_length = 70000", "table.fields.title.max_length: 70000 is not from 1 to 65535"),
        ("[[table]]", "fields.e.dimension = 1", "table.fields.e.dimension: 1 is not from 2 to 32768"),
    ] {
        let error = parsed(&with(section, line)).expect_err(line);
        assert!(error.contains(expected), "{line}\n  expected: {expected}\n  got:      {error}");
    }
}

#[test]
fn a_file_without_a_section_says_which() {
    for (text, expected) in [
        ("", "there is no [source] section"),
        ("[source]\nurl = \"host=h user=u\"\n", "there is no [target] section"),
        ("[source]\nurl = \"host=h user=u\"\n[target]\nurl = \"http://h\"\n", "there is no [[table]]"),
        ("[source]\nslot = \"s\"\n[target]\nurl = \"http://h\"\n", "missing field `url`"),
        ("[source\n", "walvec.toml:1"),
    ] {
        let error = parsed(text).expect_err("incomplete");
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn all_problems_are_shown_at_once() {
    let text = with("[source]", "slot = \"A\"") + "[[table]]\nname = \"x\"\nmetric = \"M\"\n";
    let error = parsed(&text).expect_err("three mistakes");
    assert_eq!(error.lines().count(), 3, "{error}");
}

#[test]
fn no_message_repeats_a_secret() {
    for text in [
        with("[source]", "url = \"postgresql://u:hunter2@h:port/d\""),
        with("[source]", "url = \"host=h user=u password=my hunter2\""),
        with("[source]", "url = \"host=h user=u password=my hunter2=x\""),
        with("[source]", "url = \"host=h user=u password='hunter2\""),
        with("[source]", "password = \"hunter2"),
        with("[source]", "password = { env = hunter2 }"),
        with("[source]", "password = [\"hunter2\"]"),
        with("[target]", "token = hunter2"),
        with("[target]", "url = \"https://u:hunter2@h\""),
        with("[target]", "token = { tokn = \"hunter2\" }"),
    ] {
        let error = parsed(&text).expect_err(&text);
        assert!(!error.contains("hunter2"), "{error}");
    }
    let loaded = parsed(&with("[source]", "url = \"postgresql://u:hunter2@h/d\"")).expect("works");
    assert!(!format!("{loaded:?}").contains("hunter2"));
    assert_eq!(loaded.settings.source.password.as_ref().map(Secret::expose), Some("hunter2"));
    assert!(loaded.warnings.iter().any(|warning| warning.contains("source.url holds the password")));
    let loaded = parsed(&with("[target]", "token = \"hunter2\"")).expect("works");
    assert!(!format!("{loaded:?}").contains("hunter2"));
    assert!(loaded.warnings.iter().any(|warning| warning.contains("target.token is written")));
}

#[test]
fn the_password_comes_from_the_first_place_that_has_one() {
    let password = |text: &str, environment: &Environment| {
        let loaded = parse(text, "walvec.toml", environment).expect("valid");
        loaded.settings.source.password.map(|password| password.expose().to_owned())
    };
    let both = with("[source]", "url = \"postgresql://u:from_url@h/d\"")
        .replace("[target]", "password = { env = \"PASSWORD\" }\n[target]");
    let environment = Environment::of([("PASSWORD", "from_key"), ("PGPASSWORD", "from_pgpassword")]);
    assert_eq!(password(&both, &environment).as_deref(), Some("from_key"));
    let url = with("[source]", "url = \"postgresql://u:from_url@h/d\"");
    assert_eq!(password(&url, &environment).as_deref(), Some("from_url"));
    assert_eq!(password(MINIMAL, &environment).as_deref(), Some("from_pgpassword"));
    assert_eq!(password(MINIMAL, &Environment::of([])), None);
}

#[test]
fn libpq_rules_for_tls_hold() {
    let mode = |line: &str| {
        let source = parsed(&with("[source]", line)).expect("valid").settings.source;
        (source.sslmode, source.sslrootcert)
    };
    assert_eq!(mode("url = \"host=h user=u\""), (SslMode::Prefer, None));
    assert_eq!(mode("url = \"host=h user=u sslmode=allow\""), (SslMode::Prefer, None));
    assert_eq!(mode("url = \"host=h user=u sslmode=require\""), (SslMode::Require, None));
    let with_root = mode("url = \"host=h user=u sslmode=require sslrootcert=/ca.pem\"");
    assert_eq!(with_root, (SslMode::VerifyCa, Some("/ca.pem".into())));
    assert_eq!(mode("url = \"host=h user=u sslrootcert=system\""), (SslMode::VerifyFull, None));
}

#[test]
fn values_reach_the_settings_in_their_units() {
    let text = with("[source]", "url = \"jdbc:postgresql://h:5433/d?user=u&connectTimeout=3\"")
        + "[pipeline]\nmemory_bytes = \"1GiB\"\ncheckpoint_interval = \"250ms\"\n[admin]\nlisten = \"localhost:0\"\n";
    let settings = parsed(&text).expect("valid").settings;
    assert_eq!((settings.source.port, settings.source.connect_timeout), (5433, Duration::from_secs(3)));
    assert_eq!(settings.pipeline.memory_bytes, 1 << 30);
    assert_eq!(settings.pipeline.checkpoint_interval, Duration::from_millis(250));
    assert_eq!(settings.admin.listen.map(|address| address.to_string()).as_deref(), Some("127.0.0.1:0"));
    assert_eq!(settings.target.url, "https://in03-xxxx.serverless.gcp-us-west1.cloud.zilliz.com:443");
    let off = parsed(&with("[admin]", "listen = \"off\"")).expect("valid").settings;
    assert_eq!(off.admin.listen, None);
    let local = parsed(&with("[target]", "url = \"http://[::1]/\"")).expect("valid").settings;
    assert_eq!(local.target.url, "http://[::1]:19530");
}

#[test]
fn patterns_match_within_schema_and_table() {
    let table = |name: &str| {
        let text = with("[[table]]", &format!("name = {name:?}"));
        parsed(&text).expect("valid").settings.tables.remove(0)
    };
    for (pattern, schema, name, matches) in [
        ("public.docs", "public", "docs", true),
        ("public.docs", "public", "docs2", false),
        ("public.*", "public", "", true),
        ("public.*", "publicx", "docs", false),
        ("*.docs", "a.b", "docs", true),
        ("public.d?cs", "public", "döcs", true),
        ("public.d?cs", "public", "dcs", false),
        ("t*.*_v*2", "tenant", "docs_v_v12", true),
        ("t*.*_v*2", "tenant", "docs_v_v13", false),
        ("*.a*b*c", "s", "aXbXbYc", true),
        ("*.a*b*c", "s", "aXbXbY", false),
        ("public.my.table", "public", "my.table", true),
    ] {
        assert_eq!(table(pattern).matches(schema, name), matches, "{pattern} {schema}.{name}");
    }
    let error = parsed(&with("[[table]]", "name = \"public.*\"\ncollection = \"all\"")).expect_err("many into one");
    assert!(error.contains("is a pattern: tables cannot share one collection"), "{error}");
}

#[test]
fn the_manual_has_every_key_with_its_default() {
    let manual = include_str!("../../docs/configuration.md");
    let mut rows = std::collections::BTreeMap::new();
    let mut section = String::new();
    for line in manual.lines() {
        if let Some(header) = line.strip_prefix("## [") {
            section = header.trim_end_matches(']').to_owned();
        }
        if let Some((key, rest)) = line.strip_prefix("| `").and_then(|rest| rest.split_once("` | ")) {
            let default = rest.split(" | ").next().unwrap_or_default().trim_matches('`').to_owned();
            rows.insert((section.clone(), key.to_owned()), default);
        }
    }
    let mut known = 0;
    for (section, keys) in KEYS.iter().filter(|(section, _)| !section.is_empty()) {
        for key in *keys {
            assert!(rows.contains_key(&((*section).to_owned(), (*key).to_owned())), "[{section}] {key} is missing");
            known += 1;
        }
    }
    let shown = rows.keys().filter(|(section, _)| !section.is_empty()).count();
    assert_eq!(shown, known, "the manual has keys that there are not");
    // The documented file holds the defaults (tested above); the manual repeats them.
    let mut compared = 0;
    for line in DOCUMENTED.lines().filter(|line| !line.starts_with('#')) {
        if let Some(header) = line.strip_prefix('[') {
            section = header.trim_matches(['[', ']']).to_owned();
        }
        if let Some((key, value)) = line.split_once(" = ")
            && !["url", "name"].contains(&key)
        {
            let default = rows.get(&(section.clone(), key.to_owned())).expect("every key is there");
            assert_eq!(default, value, "[{section}] {key}");
            compared += 1;
        }
    }
    assert!(compared > 20, "{compared} defaults");
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]
    /// The documented file with a piece of it replaced is settings or an error, and never a panic.
    #[test]
    fn no_file_panics(
        from in proptest::prelude::any::<proptest::sample::Index>(), length in 0usize..40, piece in "[\\[\\]{}=\"',.a-z0-9_ é\n#-]{0,12}",
    ) {
        let chars: Vec<char> = DOCUMENTED.chars().collect();
        let from = from.index(chars.len());
        let to = (from + length).min(chars.len());
        let text: String =
            chars[..from].iter().copied().chain(piece.chars()).chain(chars[to..].iter().copied()).collect();
        drop(parsed(&text));
    }
}
