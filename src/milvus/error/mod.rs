//! What can go wrong at Milvus, and what may be done next.
//!
//! In: a status in a body, a gRPC status, or our own refusal to send. Out: one `MilvusError` whose `Condition` decides
//! everything else. The numbers of both transports are translated here and nowhere else: `Condition::of_code` for
//! the `code` in a body (gRPC and REST share them), `Condition::of_legacy` for servers that set only the old
//! `error_code`, `MilvusError::from_grpc` for the transport's own status.
//!
//! Holds: `outcome_unknown` is false only where the server (or we) refused the whole request before writing any of it;
//! every number that is not known here counts as `Unexpected`, whose outcome is unknown. A server's text about a value
//! may quote the value: it is kept (bounded) for `reason`, and neither `Display` nor `Debug` shows it.
//!
//! Not here: how often and how fast to try again, bisection (the pipeline's).

pub mod codes;
#[cfg(test)]
mod docs;

use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

use tonic::{Code, Status};

/// What may be done with a request that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// Send the same request again, with backoff.
    Retry,
    /// The same, but slower: the server asks for less (see `MilvusError::retry_after`).
    Throttle,
    /// The request (or the answer) is too large: halve it.
    Split,
    /// At least one entity can never be accepted: find it by bisection.
    Poison,
    /// The collection's schema is not what we took it for: describe it, rebuild the request, try once more.
    SchemaStale,
    /// Nothing helps but a person.
    Fatal,
}

/// What is the matter, by consequence rather than by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Condition {
    /// No connection came about: refused, DNS, TLS handshake, connect timeout. Nothing was sent.
    ConnectFailed,
    /// The connection broke while the request was out.
    ConnectionLost,
    /// Time ran out, at the server or here, or the server cancelled the request.
    TimedOut,
    /// Starting, recovering, a component gone, a queue full.
    Unavailable,
    RateLimited,
    /// Writes are denied until memory, disk or lag recover.
    QuotaExceeded,
    RequestTooLarge,
    AnswerTooLarge,
    /// A value in the request does not fit its field.
    InvalidData,
    SchemaStale,
    NotLoaded,
    NoCollection,
    NoDatabase,
    NoPartition,
    NoIndex,
    NoAlias,
    AlreadyExists,
    /// Too many collections, databases or indexes.
    LimitReached,
    Unauthenticated,
    PermissionDenied,
    /// A standby cluster, a denied channel.
    NotWritable,
    KeyRevoked,
    Unsupported,
    /// Refused for a reason that belongs to the request as a whole.
    Refused,
    /// A failure that the server itself does not explain. Milvus 2.3 also reports bad values so.
    Unexpected,
    /// Our own request broke the contract; it was not sent.
    InvalidRequest,
    /// The server's answer does not have the form it must have.
    InvalidAnswer,
    /// The address, a certificate or the token cannot be used.
    Configuration,
}

impl Condition {
    /// Every condition once, for tables in tests and metrics.
    pub const ALL: [Condition; 28] = [
        Condition::ConnectFailed,
        Condition::ConnectionLost,
        Condition::TimedOut,
        Condition::Unavailable,
        Condition::RateLimited,
        Condition::QuotaExceeded,
        Condition::RequestTooLarge,
        Condition::AnswerTooLarge,
        Condition::InvalidData,
        Condition::SchemaStale,
        Condition::NotLoaded,
        Condition::NoCollection,
        Condition::NoDatabase,
        Condition::NoPartition,
        Condition::NoIndex,
        Condition::NoAlias,
        Condition::AlreadyExists,
        Condition::LimitReached,
        Condition::Unauthenticated,
        Condition::PermissionDenied,
        Condition::NotWritable,
        Condition::KeyRevoked,
        Condition::Unsupported,
        Condition::Refused,
        Condition::Unexpected,
        Condition::InvalidRequest,
        Condition::InvalidAnswer,
        Condition::Configuration,
    ];

    /// What may be done next.
    pub fn class(self) -> Class {
        match self {
            Condition::ConnectFailed
            | Condition::ConnectionLost
            | Condition::TimedOut
            | Condition::Unavailable
            | Condition::NotLoaded
            | Condition::Unexpected => Class::Retry,
            Condition::RateLimited | Condition::QuotaExceeded => Class::Throttle,
            Condition::RequestTooLarge | Condition::AnswerTooLarge => Class::Split,
            Condition::InvalidData | Condition::InvalidRequest => Class::Poison,
            Condition::SchemaStale => Class::SchemaStale,
            Condition::NoCollection
            | Condition::NoDatabase
            | Condition::NoPartition
            | Condition::NoIndex
            | Condition::NoAlias
            | Condition::AlreadyExists
            | Condition::LimitReached
            | Condition::Unauthenticated
            | Condition::PermissionDenied
            | Condition::NotWritable
            | Condition::KeyRevoked
            | Condition::Unsupported
            | Condition::Refused
            | Condition::InvalidAnswer
            | Condition::Configuration => Class::Fatal,
        }
    }

    /// May (a part of) the mutation have been applied, or be applied still?
    ///
    /// Milvus validates a whole request before it writes any of it, so a refusal of values, rights, rates or names is
    /// certain. The rest may come from the middle of writing: a request goes to each shard's log separately.
    pub fn outcome_unknown(self) -> bool {
        match self {
            Condition::ConnectionLost
            | Condition::TimedOut
            | Condition::Unavailable
            | Condition::AnswerTooLarge
            | Condition::Unexpected
            | Condition::InvalidAnswer => true,
            Condition::ConnectFailed
            | Condition::RateLimited
            | Condition::QuotaExceeded
            | Condition::RequestTooLarge
            | Condition::InvalidData
            | Condition::SchemaStale
            | Condition::NotLoaded
            | Condition::NoCollection
            | Condition::NoDatabase
            | Condition::NoPartition
            | Condition::NoIndex
            | Condition::NoAlias
            | Condition::AlreadyExists
            | Condition::LimitReached
            | Condition::Unauthenticated
            | Condition::PermissionDenied
            | Condition::NotWritable
            | Condition::KeyRevoked
            | Condition::Unsupported
            | Condition::Refused
            | Condition::InvalidRequest
            | Condition::Configuration => false,
        }
    }

    /// One line for a message: lower case, no full stop.
    fn sentence(self) -> &'static str {
        match self {
            Condition::ConnectFailed => "no connection to Milvus",
            Condition::ConnectionLost => "the connection to Milvus broke",
            Condition::TimedOut => "Milvus did not answer in time",
            Condition::Unavailable => "Milvus is not available",
            Condition::RateLimited => "Milvus limits the rate",
            Condition::QuotaExceeded => "Milvus denies writes",
            Condition::RequestTooLarge => "the request is larger than Milvus takes",
            Condition::AnswerTooLarge => "the answer is larger than we take",
            Condition::InvalidData => "Milvus refuses a value",
            Condition::SchemaStale => "the collection's schema is not the one expected",
            Condition::NotLoaded => "the collection is not loaded",
            Condition::NoCollection => "no such collection",
            Condition::NoDatabase => "no such database",
            Condition::NoPartition => "no such partition",
            Condition::NoIndex => "no such index",
            Condition::NoAlias => "no such alias",
            Condition::AlreadyExists => "it exists already",
            Condition::LimitReached => "a limit on the number of objects is reached",
            Condition::Unauthenticated => "Milvus does not know us",
            Condition::PermissionDenied => "Milvus does not permit it",
            Condition::NotWritable => "the cluster takes no writes",
            Condition::KeyRevoked => "the encryption key is revoked",
            Condition::Unsupported => "this server cannot do it",
            Condition::Refused => "Milvus refuses the request",
            Condition::Unexpected => "Milvus failed without saying why",
            Condition::InvalidRequest => "the request breaks our own rules",
            Condition::InvalidAnswer => "the answer of Milvus makes no sense",
            Condition::Configuration => "the target's settings cannot be used",
        }
    }

    /// May the server's text quote values of the request?
    fn quotes_values(self) -> bool {
        matches!(
            self,
            Condition::InvalidData
                | Condition::Unexpected
                | Condition::Unavailable
                | Condition::TimedOut
                | Condition::Refused
                | Condition::InvalidRequest
        )
    }
}

/// A call that did not succeed.
pub struct MilvusError {
    condition: Condition,
    /// The RPC, or what we were about to do.
    during: &'static str,
    /// The body's `code`, where there was one.
    code: Option<i32>,
    /// The HTTP status, where no body of Milvus came with it.
    http_status: Option<u16>,
    /// How long the server asks us to wait, in milliseconds.
    retry_after: Option<u32>,
    reason: Box<str>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

/// Longest text of a server that we keep, in bytes.
const REASON_BYTES_MAX: usize = 200;

/// A server that asks for more is asked again all the same.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);

impl MilvusError {
    pub(crate) fn new(condition: Condition, during: &'static str, reason: impl Into<String>) -> MilvusError {
        MilvusError {
            condition,
            during,
            code: None,
            http_status: None,
            retry_after: None,
            reason: shorten(reason.into()),
            source: None,
        }
    }

    pub(crate) fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> MilvusError {
        self.source = Some(source.into());
        self
    }

    /// A body's status that is not success. `input_error`: the server itself says that the request can never succeed.
    pub(crate) fn from_body(
        during: &'static str,
        code: i32,
        legacy: i32,
        input_error: bool,
        reason: String,
        lite: bool,
    ) -> Option<MilvusError> {
        let found = Condition::of_code(code, lite).or_else(|| Condition::of_legacy(legacy))?;
        let condition = match found {
            // The cluster of a replication group that took the writes has changed: the next connection finds the new one.
            _ if reason.contains("STREAMING_CODE_REPLICATE_VIOLATION") => Condition::Unavailable,
            // One number for all limiters of the REST front; the text tells a bucket from a denial.
            Condition::RateLimited if reason.contains("quota exceeded") => Condition::QuotaExceeded,
            // Milvus marks 109 as an input error too, though describing the collection again heals it.
            Condition::Unexpected | Condition::Refused if input_error => Condition::InvalidData,
            found => found,
        };
        let code = if code != 0 { code } else { legacy };
        Some(MilvusError {
            condition,
            during,
            code: Some(code),
            http_status: None,
            retry_after: None,
            reason: shorten(reason),
            source: None,
        })
    }

    /// A gRPC status, as tonic gives it.
    pub(crate) fn from_grpc(during: &'static str, status: Status) -> MilvusError {
        let condition = condition_of_status(&status);
        let reason = shorten(status.message().to_owned());
        MilvusError {
            condition,
            during,
            code: None,
            http_status: None,
            retry_after: None,
            reason,
            source: Some(Box::new(status)),
        }
    }

    /// An answer over REST that is not success: its HTTP status, the body's `code` and `message` where the body is Milvus's, and
    /// else the beginning of whatever it is.
    pub(crate) fn from_rest(
        during: &'static str,
        status: u16,
        code: Option<i32>,
        message: String,
        retry_after: Option<Duration>,
    ) -> MilvusError {
        let error = match code {
            // The handler panicked, which bad values can make it do; 500 as a code of its own is a channel's.
            Some(500) if status == 500 => {
                MilvusError { code, ..MilvusError::new(Condition::Unexpected, during, message) }
            }
            Some(code) => MilvusError::from_body(during, code, 0, false, message, false)
                .unwrap_or_else(|| MilvusError::new(Condition::InvalidAnswer, during, "code 0 in a failure")),
            None => MilvusError {
                http_status: Some(status),
                ..MilvusError::new(Condition::of_http(status), during, message)
            },
        };
        let millis = |wait: Duration| u32::try_from(wait.as_millis()).unwrap_or(u32::MAX);
        MilvusError { retry_after: retry_after.map(millis), ..error }
    }

    /// No answer over REST: no connection, a broken one, or time that ran out.
    pub(crate) fn from_http_client(during: &'static str, error: reqwest::Error) -> MilvusError {
        let condition = if error.is_connect() {
            Condition::ConnectFailed
        } else if error.is_timeout() {
            Condition::TimedOut
        } else if error.is_builder() {
            Condition::Configuration
        } else {
            Condition::ConnectionLost
        };
        // The address stands in the settings, and may hold what a log should not.
        MilvusError::new(condition, during, "").with_source(error.without_url())
    }

    pub fn condition(&self) -> Condition {
        self.condition
    }

    pub fn class(&self) -> Class {
        self.condition.class()
    }

    /// May the mutation have been applied, or may it land until its deadline and margin are over?
    pub fn outcome_unknown(&self) -> bool {
        self.condition.outcome_unknown()
    }

    /// Did the request certainly never leave? Then there is nothing to wait for before another mutation of its keys.
    pub fn never_sent(&self) -> bool {
        matches!(self.condition, Condition::ConnectFailed | Condition::InvalidRequest | Condition::Configuration)
    }

    /// The collection must be loaded before this request can succeed.
    pub fn needs_load(&self) -> bool {
        self.condition == Condition::NotLoaded
    }

    /// Of class `Retry`, but when it comes back again and again for one request, bisect as if it were `Poison`: Milvus up to 2.6
    /// reports some bad values (NaN, a wrong dimension) as unexpected errors.
    pub fn may_be_poison(&self) -> bool {
        self.condition == Condition::Unexpected
    }

    /// How long the server itself asks us to wait (`Retry-After`), within reason.
    pub fn asked_to_wait(&self) -> Option<Duration> {
        let asked = Duration::from_millis(self.retry_after?.into());
        Some(asked.clamp(Duration::from_millis(100), RETRY_AFTER_MAX))
    }

    /// How long to wait before the next attempt, when the server or the condition says so; else the caller's own backoff.
    pub fn retry_after(&self) -> Option<Duration> {
        if let Some(asked) = self.asked_to_wait() {
            return Some(asked);
        }
        match self.condition {
            Condition::RateLimited => Some(Duration::from_millis(500)),
            Condition::QuotaExceeded => Some(Duration::from_secs(30)),
            _ => None,
        }
    }

    /// The RPC, or what was being done.
    pub fn during(&self) -> &'static str {
        self.during
    }

    /// The number in the answer's body.
    pub fn code(&self) -> Option<i32> {
        self.code
    }

    /// What the server said, at most 200 bytes of it. It may quote values of the request: for dead letters, not for logs.
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// What an operator can do; `None` where waiting or the daemon itself does it.
    pub fn hint(&self) -> Option<&'static str> {
        match self.condition {
            Condition::ConnectFailed => Some(
                "Check target.url, the network between here and Milvus, and with https the certificate (target.ca).",
            ),
            Condition::QuotaExceeded => {
                Some("The cluster is out of memory or disk, or an operator denied writes: give it more room.")
            }
            Condition::SchemaStale => Some("Somebody altered the collection: compare it with `walvec plan`."),
            Condition::NoCollection => {
                Some("The collection was dropped, renamed or is in another database: restore it.")
            }
            Condition::NoDatabase => Some(
                "Create the database, or correct target.database; Zilliz Cloud also says this without the privilege.",
            ),
            Condition::NoPartition => Some("The collection's partitions were changed by hand: restore them."),
            Condition::NoIndex => {
                Some("Create an index on every vector field, or let walvec do it (index = \"auto\").")
            }
            Condition::NoAlias => Some("The alias was dropped: create it again."),
            Condition::LimitReached => Some("Drop collections that are not needed, or raise the cluster's limit."),
            Condition::Unauthenticated => Some("Check target.token: an API key, or user:password."),
            Condition::PermissionDenied => {
                Some("Grant the role of target.token the privileges that `walvec check` lists.")
            }
            Condition::NotWritable => Some("This cluster is a standby: point target.url at the one that takes writes."),
            Condition::KeyRevoked => Some("Restore the encryption key of the cluster."),
            Condition::Unsupported => {
                Some("Use a newer Milvus, leave the feature out, or check that target.url is the address of a Milvus.")
            }
            Condition::Configuration => Some("Correct the [target] section of the configuration."),
            Condition::InvalidRequest | Condition::InvalidAnswer => {
                Some("This is a defect of walvec or an unknown kind of server: please report it.")
            }
            Condition::ConnectionLost
            | Condition::TimedOut
            | Condition::Unavailable
            | Condition::RateLimited
            | Condition::RequestTooLarge
            | Condition::AnswerTooLarge
            | Condition::InvalidData
            | Condition::NotLoaded
            | Condition::AlreadyExists
            | Condition::Refused
            | Condition::Unexpected => None,
        }
    }
}

impl fmt::Display for MilvusError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.during, self.condition.sentence())?;
        if let Some(code) = self.code {
            write!(f, " (code {code})")?;
        }
        if let Some(status) = self.http_status {
            // A page of HTML says nothing that its status does not.
            return write!(f, " (HTTP status {status})");
        }
        // A transport's status stands in the chain of sources already; a refusal of values may quote them.
        let told = self.source.is_some() && self.condition != Condition::Configuration;
        if !told && !self.reason.is_empty() && !self.condition.quotes_values() {
            write!(f, ": {}", self.reason)?;
        }
        Ok(())
    }
}

impl fmt::Debug for MilvusError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MilvusError({:?}, {self})", self.condition)
    }
}

impl StdError for MilvusError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn StdError + 'static))
    }
}

fn condition_of_status(status: &Status) -> Condition {
    let mut cause: Option<&(dyn StdError + 'static)> = status.source();
    let has_cause = cause.is_some();
    while let Some(error) = cause {
        if error.is::<tonic::ConnectError>() {
            return Condition::ConnectFailed;
        }
        cause = error.source();
    }
    match status.code() {
        Code::Unavailable => Condition::ConnectionLost,
        // tonic says Cancelled when our own `grpc-timeout` is over.
        Code::Cancelled | Code::DeadlineExceeded => Condition::TimedOut,
        // A reset stream, a killed server, an answer that is not HTTP/2.
        Code::Unknown if has_cause => Condition::ConnectionLost,
        Code::ResourceExhausted if status.message().contains("larger than max") => Condition::RequestTooLarge,
        Code::ResourceExhausted => Condition::RateLimited,
        Code::OutOfRange => Condition::AnswerTooLarge,
        Code::Unimplemented => Condition::Unsupported,
        Code::Unauthenticated => Condition::Unauthenticated,
        Code::PermissionDenied => Condition::PermissionDenied,
        Code::InvalidArgument => Condition::InvalidData,
        Code::AlreadyExists => Condition::AlreadyExists,
        Code::Ok
        | Code::Unknown
        | Code::NotFound
        | Code::FailedPrecondition
        | Code::Aborted
        | Code::Internal
        | Code::DataLoss => Condition::Unexpected,
    }
}

/// At most `REASON_BYTES_MAX` bytes, cut between characters.
fn shorten(mut text: String) -> Box<str> {
    if text.len() > REASON_BYTES_MAX {
        let end = (0..=REASON_BYTES_MAX).rev().find(|&i| text.is_char_boundary(i)).unwrap_or(0);
        text.truncate(end);
        text.push('…');
    }
    text.into_boxed_str()
}

#[cfg(test)]
mod tests {
    use super::*;
    use Condition::*;

    #[test]
    fn the_old_enumeration_counts_only_without_a_code() {
        let body = |code, legacy| {
            MilvusError::from_body("Upsert", code, legacy, false, String::new(), false).map(|e| e.condition())
        };
        assert_eq!(body(0, 0), None);
        assert_eq!(body(1100, 1), Some(InvalidData));
        assert_eq!(body(0, 49), Some(RateLimited));
    }

    #[test]
    fn the_text_decides_where_a_number_is_not_enough() {
        let body = |code, input_error, reason: &str| {
            MilvusError::from_body("Upsert", code, 0, input_error, reason.to_owned(), false).map(|e| e.condition())
        };
        assert_eq!(body(1807, false, "rate limit exceeded[rate=1]"), Some(RateLimited));
        assert_eq!(body(1807, false, "quota exceeded[reason=disk]"), Some(QuotaExceeded));
        assert_eq!(body(65535, false, "?"), Some(Unexpected));
        assert_eq!(body(65535, true, "?"), Some(InvalidData));
        assert_eq!(body(109, true, "schema mismatch"), Some(SchemaStale));
        assert_eq!(body(100, true, "collection not found"), Some(NoCollection));
        assert_eq!(body(5, false, "STREAMING_CODE_REPLICATE_VIOLATION"), Some(Unavailable));
    }

    #[test]
    fn every_grpc_status_has_its_condition() {
        let table = [
            (Code::Cancelled, "Timeout expired", TimedOut),
            (Code::DeadlineExceeded, "", TimedOut),
            (Code::Unavailable, "http2 error", ConnectionLost),
            (
                Code::ResourceExhausted,
                "grpc: received message larger than max (70402104 vs. 67108864)",
                RequestTooLarge,
            ),
            (Code::ResourceExhausted, "too many requests", RateLimited),
            (Code::OutOfRange, "decoded message length too large", AnswerTooLarge),
            (Code::Unimplemented, "", Unsupported),
            (Code::Unauthenticated, "", Unauthenticated),
            (Code::PermissionDenied, "", PermissionDenied),
            (Code::InvalidArgument, "", InvalidData),
            (Code::AlreadyExists, "", AlreadyExists),
            (Code::Unknown, "", Unexpected),
            (Code::Internal, "", Unexpected),
            (Code::NotFound, "", Unexpected),
            (Code::FailedPrecondition, "", Unexpected),
            (Code::Aborted, "", Unexpected),
            (Code::DataLoss, "", Unexpected),
        ];
        for (code, message, condition) in table {
            assert_eq!(MilvusError::from_grpc("Upsert", Status::new(code, message)).condition(), condition, "{code:?}");
        }
        let cut = Status::from_error(Box::new(std::io::Error::from(std::io::ErrorKind::BrokenPipe)));
        assert_eq!((cut.code(), MilvusError::from_grpc("Upsert", cut).condition()), (Code::Unknown, ConnectionLost));
        let refused = Status::from_error(Box::new(tonic::ConnectError("refused".into())));
        let error = MilvusError::from_grpc("Upsert", refused);
        assert_eq!((error.condition(), error.never_sent()), (ConnectFailed, true));
    }

    #[test]
    fn over_rest_the_code_goes_before_the_status() {
        let rest = |status, code, message: &str| {
            MilvusError::from_rest("entities/upsert", status, code, message.to_owned(), None).condition()
        };
        assert_eq!(rest(200, Some(1100), "?"), InvalidData);
        assert_eq!(rest(200, Some(1807), "quota exceeded[reason=disk]"), QuotaExceeded);
        assert_eq!(rest(401, Some(1800), "?"), Unauthenticated);
        assert_eq!(rest(408, Some(10001), "timeout"), TimedOut);
        assert_eq!(rest(503, Some(8), "rate limit exceeded"), RateLimited);
        assert_eq!(rest(500, Some(500), ""), Unexpected);
        assert_eq!(rest(200, Some(500), ""), Unavailable);
        assert_eq!(rest(502, None, "<html>secret</html>"), Unavailable);
        let page = MilvusError::from_rest("entities/upsert", 502, None, "<html>secret</html>".into(), None);
        assert_eq!(page.to_string(), "entities/upsert: Milvus is not available (HTTP status 502)");
        assert!(page.outcome_unknown() && !format!("{page:?}").contains("secret"));
        let asked = |seconds| {
            let wait = Some(Duration::from_secs(seconds));
            MilvusError::from_rest("entities/upsert", 429, None, String::new(), wait).retry_after()
        };
        assert_eq!(asked(7), Some(Duration::from_secs(7)));
        assert_eq!((asked(0), asked(86_400)), (Some(Duration::from_millis(100)), Some(RETRY_AFTER_MAX)));
    }

    #[test]
    fn the_answers_about_a_condition_agree_with_each_other() {
        for condition in Condition::ALL {
            let error = MilvusError::new(condition, "Upsert", "");
            assert!(!(error.never_sent() && error.outcome_unknown()), "{condition:?}");
            match error.class() {
                Class::Fatal => {
                    assert!(error.hint().is_some() || matches!(condition, AlreadyExists | Refused), "{condition:?}")
                }
                Class::Throttle => assert!(error.retry_after().is_some(), "{condition:?}"),
                // Bisection sends parts of a request whose whole must not be under way any more.
                Class::Poison | Class::SchemaStale => assert!(!error.outcome_unknown(), "{condition:?}"),
                Class::Split | Class::Retry => {}
            }
            let line = error.to_string();
            assert!(!line.contains('\n') && !line.ends_with('.'), "{line}");
        }
        assert_eq!(Condition::ALL.iter().collect::<std::collections::HashSet<_>>().len(), Condition::ALL.len());
    }

    #[test]
    fn values_that_a_server_quotes_are_kept_short_and_out_of_logs() {
        let reason = format!("the length of field name exceeds max length: {}", "é".repeat(300));
        let error = MilvusError::from_body("Upsert", 1100, 5, false, reason, false).expect("an error");
        assert!(error.reason().len() <= REASON_BYTES_MAX + '…'.len_utf8());
        assert!(error.reason().starts_with("the length of field name"));
        assert_eq!(error.to_string(), "Upsert: Milvus refuses a value (code 1100)");
        assert!(!format!("{error:?}").contains('é'));
        let named =
            MilvusError::from_body("Upsert", 100, 4, false, "collection not found[collection=docs]".into(), false);
        assert_eq!(
            named.expect("an error").to_string(),
            "Upsert: no such collection (code 100): collection not found[collection=docs]"
        );
    }
}
