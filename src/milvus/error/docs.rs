//! `docs/errors.md`, made from the conditions and the tables of numbers, so that it cannot say anything else.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

use super::codes::{CODES, Code, HTTP_STATUSES, LEGACY_CODES, LITE_CODES};
use super::{Class, Condition, MilvusError};

const HEAD: &str = "\
# Errors of the target

Whatever Milvus, Zilliz Cloud or something in between answers becomes one of the conditions below: the same over gRPC and
REST. A log line has the sentence, the number in brackets, and the RPC or REST route before it:

    Upsert: Milvus limits the rate (code 8)
    entities/upsert: Milvus is not available (HTTP status 502)

The server's own text is left out where it may quote a value of the row.

What walvec does follows from the class:

| class | what walvec does |
|---|---|
| Retry | sends the same request again, after 0.1 s, then up to 10 s, for as long as it takes; nothing newer of these rows goes before |
| Throttle | the same, slower: it waits as long as the server asks, and lowers its rate |
| Split | halves the request |
| Poison | halves the request until the one row is found; that row is read anew from PostgreSQL and tried once more, and then stops its table |
| SchemaStale | tries three times more, as a change of the schema needs a moment to be known everywhere, then stops the table |
| Fatal | stops the table, or ends with exit code 4 where no table could be written; nothing is lost: the WAL is kept |

Where the outcome is unknown, the request may have been applied, or may be applied later: no other change of the same rows leaves
before that is over (`target.request_deadline` + `target.late_margin`).

What heals by itself is waited for. When a target has taken no write for a minute (`target.blocked_after`), `/status` says
`blocked`, the log says so once, and `walvec_target_blocked_seconds` counts.

Numbers marked * were seen from a real server by walvec's tests (Milvus 2.3.5, Milvus Lite 3.2.2); the others are known from
the servers' sources and documents. What walvec itself says is in [messages.md](messages.md), its exit codes are in
[exit-codes.md](exit-codes.md).
";

/// Seen from Milvus 2.3.5 or Milvus Lite 3.2.2 in `tests/it/milvus_contract.rs` and `vendor_clients.rs`.
const SEEN: &[i32] = &[100, 101, 700, 1100, 65535];
const SEEN_LITE: &[i32] = &[1, 6, 35];

/// What is done about it, where the error itself has no hint.
fn advice(condition: Condition) -> &'static str {
    let error = MilvusError::new(condition, "", "");
    error.hint().unwrap_or(match condition {
        Condition::ConnectionLost | Condition::TimedOut | Condition::Unavailable => {
            "Nothing, when it passes. When it stays: look at the cluster, and at what lies between."
        }
        Condition::RateLimited => {
            "Nothing: walvec finds the rate. A larger plan takes more; `target.max_write_mb_per_s` keeps walvec below a rate of your own."
        }
        Condition::RequestTooLarge | Condition::AnswerTooLarge => {
            "Nothing. If it comes often, lower `pipeline.request_bytes_max`."
        }
        Condition::InvalidData => {
            "The log names table, key and field: mend the row in PostgreSQL, or leave the column out, and restart."
        }
        Condition::NotLoaded => "Nothing for writes. Readers need the collection loaded: walvec asks for it at its start.",
        Condition::AlreadyExists => "Drop the collection or index of that name, or give ours another name.",
        Condition::Refused => "The log has the number: look at the collection's schema and the limits of the plan.",
        Condition::Unexpected => {
            "Nothing at first: three failures in a row are taken for a bad value and bisected. If it goes on, the server's own log says why."
        }
        _ => "",
    })
}

fn numbers(table: &[Code], condition: Condition, seen: &[i32]) -> Vec<String> {
    let mut listed = BTreeSet::new();
    for code in table.iter().filter(|code| code.condition == condition) {
        let (first, last) = (*code.numbers.start(), *code.numbers.end());
        let mark = if code.numbers.clone().any(|number| seen.contains(&number)) { "*" } else { "" };
        let numbers = if first == last { format!("{first}{mark}") } else { format!("{first}–{last}{mark}") };
        listed.insert((first, format!("{numbers} ({})", code.name)));
    }
    listed.into_iter().map(|(_, text)| text).collect()
}

fn render() -> String {
    let mut out = HEAD.to_owned();
    for condition in Condition::ALL {
        let class = condition.class();
        let outcome = if condition.outcome_unknown() { "unknown" } else { "not applied" };
        write!(out, "\n## {}\n\n`{condition:?}` · class {class:?} · outcome: {outcome}\n\n", condition.sentence())
            .expect("a String");
        let advice = advice(condition);
        assert!(!advice.is_empty() || class == Class::Retry, "{condition:?} has no advice");
        writeln!(out, "{advice}\n").expect("a String");
        for (name, table, seen) in [
            ("Code", CODES, SEEN),
            ("Code of Milvus Lite", LITE_CODES, SEEN_LITE),
            ("Old `error_code`", LEGACY_CODES, &[][..]),
            ("HTTP status", HTTP_STATUSES, &[]),
        ] {
            let numbers = numbers(table, condition, seen);
            if !numbers.is_empty() {
                writeln!(out, "- {name}: {}", numbers.join(", ")).expect("a String");
            }
        }
        let transport = match condition {
            Condition::ConnectFailed => "refused, name not found, TLS handshake failed, `target.connect_timeout` over",
            Condition::ConnectionLost => {
                "connection reset or closed, HTTP/2 stream broken (gRPC `UNAVAILABLE`, `UNKNOWN` with a cause)"
            }
            Condition::TimedOut => "the deadline is over here (gRPC `DEADLINE_EXCEEDED`, `CANCELLED`)",
            Condition::RateLimited => "gRPC `RESOURCE_EXHAUSTED`",
            Condition::RequestTooLarge => "gRPC `RESOURCE_EXHAUSTED` that says \"larger than max\"*",
            Condition::AnswerTooLarge => "gRPC `OUT_OF_RANGE`, or more than 128 MiB over REST",
            Condition::Unauthenticated => "gRPC `UNAUTHENTICATED`*",
            Condition::PermissionDenied => "gRPC `PERMISSION_DENIED`",
            Condition::Unsupported => "gRPC `UNIMPLEMENTED`*",
            Condition::InvalidData => "gRPC `INVALID_ARGUMENT`; any code with `is_input_error`",
            Condition::InvalidRequest => "found by walvec before sending",
            Condition::InvalidAnswer => "found by walvec in the answer",
            Condition::Configuration => "found by walvec in the settings",
            Condition::Unexpected => "any other gRPC status, and any number that is in no table",
            _ => continue,
        };
        writeln!(out, "- Transport: {transport}").expect("a String");
    }
    out
}

#[test]
fn the_page_about_errors_is_made_from_the_tables() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/errors.md");
    let rendered = render();
    if std::env::var_os("WALVEC_WRITE_DOCS").is_some() {
        std::fs::write(&path, &rendered).expect("written");
    }
    let found = std::fs::read_to_string(&path).expect("docs/errors.md");
    assert!(found == rendered, "docs/errors.md differs: WALVEC_WRITE_DOCS=1 cargo test --lib the_page_about_errors");
}
