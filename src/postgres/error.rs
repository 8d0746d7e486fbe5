//! What can go wrong at the boundary to PostgreSQL, sorted by what to do about it.
//!
//! In: errors of tokio-postgres (typed SQLSTATE) and of pgwire-replication (SQLSTATE at the end of a text). Out:
//! `Transient` (start over after a pause) or `Definite` (a person must act), with a hint that says how.

use std::error::Error as _;
use std::io;
use std::time::Duration;

use pgwire_replication::PgWireError;

use super::pgoutput::DecodeError;
use crate::change::Lsn;

pub type Result<T, E = PostgresError> = std::result::Result<T, E>;

/// What to do about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disposition {
    /// The same may work later: the server restarts, the line was cut, the slot is still held.
    Transient,
    /// It will fail again until somebody changes something.
    Definite,
}

/// `doing` completes the sentence "failed to …".
#[derive(Debug, thiserror::Error)]
pub enum PostgresError {
    #[error("failed to connect to PostgreSQL at {address}")]
    Connect {
        address: String,
        #[source]
        source: tokio_postgres::Error,
    },
    #[error("failed to open a replication connection to PostgreSQL at {address}")]
    ConnectReplication {
        address: String,
        #[source]
        source: PgWireError,
    },
    #[error("no answer from PostgreSQL at {address} within {} s", after.as_secs_f32())]
    ConnectTimeout { address: String, after: Duration },
    #[error("the TLS settings cannot be used: {what}")]
    Tls {
        what: String,
        #[source]
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
    #[error("PostgreSQL did not take over our session settings: {setting} is {found:?}")]
    SettingsIgnored { setting: &'static str, found: String },
    #[error("PostgreSQL {version} is too old: 14 is the oldest that works")]
    TooOld { version: String },
    #[error("failed to {doing}")]
    Query {
        doing: &'static str,
        #[source]
        source: tokio_postgres::Error,
    },
    #[error("failed to {doing}")]
    Replication {
        doing: &'static str,
        #[source]
        source: PgWireError,
    },
    #[error("failed to {doing}: no answer within {} s", after.as_secs_f32())]
    QueryTimeout { doing: &'static str, after: Duration },
    #[error("failed to {doing}: the answer was not understood ({what})")]
    Answer { doing: &'static str, what: String },
    #[error("replication slot {slot:?} could not be created: transactions are still running after {} s{}", waited.as_secs(), named(.blockers))]
    SlotBlocked { slot: String, waited: Duration, blockers: Vec<String> },
    #[error("tables with `auto_id` cannot be copied yet: after {} s the copy still waits for {by}", waited.as_secs())]
    CopyBlocked { waited: Duration, by: String },
    #[error("publication {publication:?} does not fit: {}", problems.join("; "))]
    Publication { publication: String, problems: Vec<String>, mend: Vec<String> },
    #[error("the stream cannot be decoded after {after}")]
    Decode {
        after: Lsn,
        #[source]
        source: DecodeError,
    },
    #[error("the stream broke its own rules after {after}: {what}")]
    StreamProtocol { after: Lsn, what: String },
    #[error("nothing was heard from PostgreSQL for {} s", silent.as_secs())]
    StreamSilent { silent: Duration },
    #[error("PostgreSQL is shutting down and waits for us")]
    ServerDraining,
    #[error("PostgreSQL ended the stream")]
    StreamEnded,
    #[error("relation {oid} is gone or was renamed while it was read")]
    RelationChanged { oid: u32 },
    #[error("{what}")]
    ShapeChanged { what: String },
    #[error("the rows of a COPY cannot be decoded: {what}")]
    CopyFormat { what: &'static str },
}

fn named(blockers: &[String]) -> String {
    if blockers.is_empty() { String::new() } else { format!(" ({})", blockers.join(", ")) }
}

impl PostgresError {
    pub fn disposition(&self) -> Disposition {
        use Disposition::{Definite, Transient};
        match self {
            PostgresError::Connect { source, .. } | PostgresError::Query { source, .. } => sql_disposition(source),
            PostgresError::ConnectReplication { source, .. } | PostgresError::Replication { source, .. } => {
                replication_disposition(source)
            }
            PostgresError::ConnectTimeout { .. }
            | PostgresError::QueryTimeout { .. }
            | PostgresError::SlotBlocked { .. }
            | PostgresError::CopyBlocked { .. }
            | PostgresError::StreamSilent { .. }
            | PostgresError::ServerDraining
            | PostgresError::StreamEnded
            | PostgresError::ShapeChanged { .. }
            | PostgresError::RelationChanged { .. } => Transient,
            PostgresError::Tls { .. }
            | PostgresError::SettingsIgnored { .. }
            | PostgresError::TooOld { .. }
            | PostgresError::Answer { .. }
            | PostgresError::Publication { .. }
            | PostgresError::Decode { .. }
            | PostgresError::StreamProtocol { .. }
            | PostgresError::CopyFormat { .. } => Definite,
        }
    }

    /// PostgreSQL answered that it did not do it. False: it may have, and the answer was lost, or the session ended with it done
    /// (class 57, 08).
    pub fn is_refusal(&self) -> bool {
        matches!(self, PostgresError::SlotBlocked { .. })
            || self.sqlstate().is_some_and(|sqlstate| !sqlstate.starts_with("57") && !sqlstate.starts_with("08"))
    }

    /// The five characters that PostgreSQL gave as the reason, if it was PostgreSQL that gave one.
    pub fn sqlstate(&self) -> Option<&str> {
        match self {
            PostgresError::Connect { source, .. } | PostgresError::Query { source, .. } => {
                source.code().map(|code| code.code())
            }
            PostgresError::ConnectReplication { source, .. } | PostgresError::Replication { source, .. } => {
                match source {
                    PgWireError::Server(text) | PgWireError::Auth(text) => sqlstate_in(text),
                    _ => None,
                }
            }
            _ => None,
        }
    }

    /// What an operator can do about it.
    pub fn hint(&self) -> Option<String> {
        let own = match self {
            PostgresError::SettingsIgnored { .. } => {
                Some("connect to PostgreSQL itself: a pooler in between drops startup options".to_owned())
            }
            // A pooler that opened a plain session for the stream's.
            PostgresError::Replication { doing: IDENTIFY, .. } if self.sqlstate() == Some("42601") => {
                advice(POOLER).map(str::to_owned)
            }
            PostgresError::SlotBlocked { .. } | PostgresError::CopyBlocked { .. } => {
                Some("end the named sessions or wait; raise slot_lock_timeout to wait longer".to_owned())
            }
            PostgresError::Publication { mend, .. } if !mend.is_empty() => Some(mend.join("; ")),
            PostgresError::ConnectReplication { source: PgWireError::Tls(text), .. }
                if text.contains("not valid for name") =>
            {
                Some("put a name or address of the server's certificate into source.url".to_owned())
            }
            PostgresError::Connect { .. } | PostgresError::ConnectReplication { .. }
                if self.sqlstate() == Some("42704") =>
            {
                Some("the server does not know a setting of ours: PostgreSQL 14 is the oldest that works".to_owned())
            }
            PostgresError::Connect { source, .. } | PostgresError::Query { source, .. } => {
                source.as_db_error().and_then(|error| error.hint()).map(str::to_owned)
            }
            _ => None,
        };
        own.or_else(|| self.sqlstate().and_then(advice).map(str::to_owned))
    }
}

/// What the stream's session is asked first.
pub(super) const IDENTIFY: &str = "identify the server";

/// PgBouncer's SQLSTATE for whatever it says itself (protocol violation).
const POOLER: &str = "08P01";

fn advice(sqlstate: &str) -> Option<&'static str> {
    Some(match sqlstate {
        POOLER => {
            "connect to PostgreSQL itself: replication and our settings need a session without a pooler in between"
        }
        "28P01" | "28000" => "check user, password and pg_hba.conf (a replication connection needs a line of its own)",
        "3D000" => "check the database name in source.url",
        "42501" => "grant the role what is missing: SELECT on the tables, USAGE on their schemas, and REPLICATION",
        "53300" => "raise max_connections, or max_wal_senders for the replication connection",
        "53400" => "raise max_replication_slots (needs a restart), or drop a slot that nobody uses",
        "55000" => "see pg_replication_slots: the slot was invalidated, or wal_level is not logical",
        "55006" => "another process holds the slot; it is taken over when that process ends",
        "42704" => "a slot or publication is missing",
        "42703" | "42P01" => "the table changed since the plan was made; restart to plan again",
        _ => return None,
    })
}

/// Classes 08 (connection), 40 (rolled back, try again), 53 (out of a resource), 57P (shutdown, crash, not yet
/// up), and single states of other classes that pass by themselves.
pub(super) fn is_transient_sqlstate(sqlstate: &str) -> bool {
    sqlstate.starts_with("08")
        || sqlstate.starts_with("40")
        || (sqlstate.starts_with("53") && sqlstate != "53400")
        || sqlstate.starts_with("57P") && sqlstate != "57P04"
        || matches!(sqlstate, "55006" | "55P03" | "57014" | "25P03")
}

/// The same, but a pooler that does not take our settings will not take them later.
fn passes_by_itself(sqlstate: &str, message: &str) -> bool {
    is_transient_sqlstate(sqlstate) && !(sqlstate == POOLER && message.contains("startup parameter"))
}

fn sql_disposition(error: &tokio_postgres::Error) -> Disposition {
    let transient = match error.code() {
        Some(code) => passes_by_itself(code.code(), error.as_db_error().map_or("", |error| error.message())),
        None => {
            error.is_closed() || error.source().and_then(|source| source.downcast_ref()).is_some_and(is_transient_io)
        }
    };
    if transient { Disposition::Transient } else { Disposition::Definite }
}

fn replication_disposition(error: &PgWireError) -> Disposition {
    let transient = match error {
        PgWireError::Io(error) => is_transient_io(error),
        PgWireError::Server(text) | PgWireError::Auth(text) => {
            sqlstate_in(text).is_some_and(|sqlstate| passes_by_itself(sqlstate, text))
        }
        // `Internal` is what is left when the worker's own error was taken by a dropped future.
        PgWireError::Task(_) | PgWireError::Internal(_) => true,
        _ => false,
    };
    if transient { Disposition::Transient } else { Disposition::Definite }
}

/// A certificate that is not accepted arrives as `InvalidData`; everything else is the network.
fn is_transient_io(error: &io::Error) -> bool {
    !matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput | io::ErrorKind::PermissionDenied)
}

/// pgwire-replication flattens an ErrorResponse to `message (SQLSTATE xxxxx)`; the message is localized, the code not.
pub(super) fn sqlstate_in(text: &str) -> Option<&str> {
    let (_, tail) = text.rsplit_once("(SQLSTATE ")?;
    let code = tail.get(..5)?;
    code.bytes().all(|byte| byte.is_ascii_alphanumeric()).then_some(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sqlstate_decides_whether_to_try_again() {
        let server =
            |text: &str| PostgresError::Replication { doing: "stream", source: PgWireError::Server(text.to_owned()) };
        for (text, disposition) in [
            ("terminating connection due to administrator command (SQLSTATE 57P01)", Disposition::Transient),
            ("the database system is starting up (SQLSTATE 57P03)", Disposition::Transient),
            ("replication slot \"s\" is active for PID 7 (SQLSTATE 55006)", Disposition::Transient),
            ("sorry, too many clients already (SQLSTATE 53300)", Disposition::Transient),
            ("all replication slots are in use (SQLSTATE 53400)", Disposition::Definite),
            ("replication slot \"s\" does not exist (SQLSTATE 42704)", Disposition::Definite),
            ("cannot read from logical replication slot (SQLSTATE 55000)", Disposition::Definite),
            ("password authentication failed (SQLSTATE 28P01)", Disposition::Definite),
            ("unsupported startup parameter: replication (SQLSTATE 08P01)", Disposition::Definite),
            ("query_wait_timeout (SQLSTATE 08P01)", Disposition::Transient),
            ("no code at all", Disposition::Definite),
        ] {
            assert_eq!(server(text).disposition(), disposition, "{text}");
        }
        assert_eq!(server("x (SQLSTATE 55006)").sqlstate(), Some("55006"));
        for (text, refusal) in [("42710", true), ("53400", true), ("57P01", false), ("08006", false)] {
            assert_eq!(server(&format!("x (SQLSTATE {text})")).is_refusal(), refusal, "{text}");
        }
        let lost = PgWireError::Io(std::sync::Arc::new(io::ErrorKind::ConnectionReset.into()));
        assert!(!PostgresError::Replication { doing: "stream", source: lost }.is_refusal());
        assert_eq!(server("x (SQLSTATE 5)").sqlstate(), None);
        assert_eq!(server("(SQLSTATE \u{e4}\u{e4}\u{e4})").sqlstate(), None);
    }

    /// In the words of PgBouncer 1.18: with `ignore_startup_parameters` the stream's session is a plain one.
    #[test]
    fn a_pooler_in_between_is_named() {
        let said = |doing, text: &str| {
            let source = PgWireError::Server(text.to_owned());
            PostgresError::Replication { doing, source }.hint().unwrap_or_default()
        };
        assert!(
            said("start", "unsupported startup parameter: replication (SQLSTATE 08P01)").contains("without a pooler")
        );
        let syntax = "syntax error at or near \"IDENTIFY_SYSTEM\" (SQLSTATE 42601)";
        assert!(said(IDENTIFY, syntax).contains("without a pooler"));
        assert_eq!(said("start", syntax), "");
    }

    #[test]
    fn a_cut_line_is_transient_and_a_bad_certificate_is_not() {
        let io =
            |kind| PostgresError::Replication { doing: "stream", source: PgWireError::from(io::Error::from(kind)) };
        assert_eq!(io(io::ErrorKind::ConnectionReset).disposition(), Disposition::Transient);
        assert_eq!(io(io::ErrorKind::UnexpectedEof).disposition(), Disposition::Transient);
        assert_eq!(io(io::ErrorKind::InvalidData).disposition(), Disposition::Definite);
    }
}
