//! What holds: the configuration after defaults, secrets and checks. `super::Config` is what was typed.
//!
//! Each part of the daemon takes its own section, never the whole. Secrets have no `Debug` that shows them.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// Everything `walvec run` needs.
#[derive(Clone, Debug)]
pub struct Settings {
    pub source: SourceSettings,
    pub target: TargetSettings,
    pub state: StateSettings,
    pub guard: GuardSettings,
    pub admin: AdminSettings,
    pub pipeline: PipelineSettings,
    pub log: LogSettings,
    pub tables: Vec<TableSettings>,
}

/// A password or token. `Debug` shows nothing; there is no `Display`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    pub fn new(secret: impl Into<String>) -> Secret {
        Secret(secret.into())
    }

    /// The secret itself, for the one call that sends it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// libpq's `sslmode`. `allow` and `prefer` both mean: try TLS without verification, else plain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SslMode {
    Disable,
    Prefer,
    Require,
    VerifyCa,
    VerifyFull,
}

#[derive(Clone, Debug)]
pub struct SourceSettings {
    /// A host name, an address, or a directory of a Unix socket (begins with `/`).
    pub host: String,
    pub port: u16,
    pub user: String,
    pub password: Option<Secret>,
    pub database: String,
    pub sslmode: SslMode,
    /// PEM bundle that replaces the built-in Mozilla roots.
    pub sslrootcert: Option<PathBuf>,
    /// Client certificate and key, PEM.
    pub sslcert: Option<PathBuf>,
    pub sslkey: Option<PathBuf>,
    pub application_name: String,
    pub connect_timeout: Duration,
    pub slot: String,
    pub publication: String,
    /// Create the publication and the slot when they are missing.
    pub create: bool,
    /// Create the slot as a failover slot (PostgreSQL 17 and newer).
    pub failover: bool,
    /// How long creating the slot may wait for running write transactions.
    pub slot_lock_timeout: Duration,
    /// `wal_sender_timeout` of our session: a silent stream is given up after it.
    pub wal_sender_timeout: Duration,
    /// How often a logical message is written, to see how long it takes to the target and back; `None`: never.
    pub heartbeat_interval: Option<Duration>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    Grpc,
    /// The v2 routes over HTTP.
    Rest,
}

/// A plan of Zilliz Cloud, for its quotas (docs.zilliz.com, "Zilliz Cloud Limits", of 2026).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plan {
    Free,
    Serverless,
    /// 16 MB/s and one more for each compute unit: counted here with one unit.
    Dedicated,
}

impl Plan {
    /// Upserts, in bytes per second.
    pub fn write(self) -> u64 {
        match self {
            Plan::Free => 2 << 20,
            Plan::Serverless => 10 << 20,
            Plan::Dedicated => 17 << 20,
        }
    }

    /// Deletes, in bytes per second: the same on every plan.
    pub fn delete(self) -> u64 {
        1 << 19
    }
}

#[derive(Clone, Debug)]
pub struct TargetSettings {
    /// `http://host:port` or `https://host[:port]`.
    pub url: String,
    /// API key or `user:password`.
    pub token: Option<Secret>,
    pub transport: Transport,
    /// Milvus database; empty means the server's default.
    pub database: String,
    /// PEM bundle that replaces the built-in Mozilla roots.
    pub ca: Option<PathBuf>,
    pub client_cert: Option<PathBuf>,
    pub client_key: Option<PathBuf>,
    /// Name to verify the server's certificate against, when it differs from the host of `url`.
    pub server_name: Option<String>,
    pub connect_timeout: Duration,
    /// Deadline that every request carries to the server.
    pub request_deadline: Duration,
    /// How long after its deadline a request may still be applied.
    pub late_margin: Duration,
    /// Upserts and deletes in bytes per second at most; `None`: found by the server's answers.
    pub max_write: Option<u64>,
    pub max_delete: Option<u64>,
    /// A target that took no write for so long is reported as blocked.
    pub blocked_after: Duration,
}

impl TargetSettings {
    /// Is it a cluster of Zilliz Cloud, by its host name?
    pub fn is_zilliz_cloud(&self) -> bool {
        let rest = self.url.split_once("://").map_or(self.url.as_str(), |(_, rest)| rest);
        let host = rest.split(['/', ':']).next().unwrap_or_default();
        [".zillizcloud.com", ".zilliz.com", ".zilliz.com.cn", ".zilliz.cn"].iter().any(|suffix| host.ends_with(suffix))
    }
}

#[derive(Clone, Debug)]
pub struct StateSettings {
    pub path: PathBuf,
}

/// WAL retained for the slot, in bytes, from which on something is done about it.
#[derive(Clone, Copy, Debug)]
pub struct GuardSettings {
    /// It is told.
    pub warn_bytes: u64,
    /// No chunk of a copy is begun: the stream gets all that the target takes.
    pub pause_copy_bytes: u64,
    /// Tables that stopped let go of the slot, whatever their `on_stop`.
    pub release_stopped_bytes: Option<u64>,
    /// The slot is dropped, for the sake of the source's disk.
    pub give_up_bytes: Option<u64>,
}

#[derive(Clone, Debug)]
pub struct AdminSettings {
    /// `None` turns the admin server off.
    pub listen: Option<std::net::SocketAddr>,
}

#[derive(Clone, Debug)]
pub struct PipelineSettings {
    /// Bytes of rows that the daemon may hold, copy and stream together.
    pub memory_bytes: usize,
    /// Requests in flight per table.
    pub lanes: usize,
    pub request_rows_max: usize,
    pub request_bytes_max: usize,
    /// Connections that copy at the same time.
    pub copy_readers: usize,
    /// Bytes of a table, TOAST included, that one chunk of the copy covers.
    pub chunk_bytes: u64,
    /// Bytes of keys that the stream may touch while one chunk is read.
    pub touched_bytes_max: usize,
    /// Longest time between two checkpoints while there is progress.
    pub checkpoint_interval: Duration,
    /// How long a SIGTERM may drain before the rest is abandoned (and replayed at the next start).
    pub grace_period: Duration,
    /// Of a dead row's values, as text; 0: none are kept.
    pub dead_letter_payload_bytes: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    Json,
}

#[derive(Clone, Debug)]
pub struct LogSettings {
    pub format: LogFormat,
    /// A `tracing` filter, e.g. `info,walvec::engine=debug`.
    pub filter: String,
}

/// What happens to the index of the vector field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IndexSetting {
    /// From the pgvector index of the column, else AUTOINDEX with COSINE.
    Auto,
    /// No index and no load: the user makes them.
    None,
}

/// What happens to a value that its field cannot hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnMisfit {
    /// The table stops.
    #[default]
    Error,
    /// NULL takes its place.
    Null,
    /// A text is cut at a character, an array at an element; what cannot be cut stops the table.
    Truncate,
    /// The row is left out, and an entity of its key deleted.
    SkipRow,
    /// The same, and the row is remembered with the reason until it fits.
    DeadLetter,
}

impl OnMisfit {
    pub const ALL: [OnMisfit; 5] =
        [OnMisfit::Error, OnMisfit::Null, OnMisfit::Truncate, OnMisfit::SkipRow, OnMisfit::DeadLetter];

    /// Is the row left out, and the table goes on?
    pub fn leaves_out(self) -> bool {
        matches!(self, OnMisfit::SkipRow | OnMisfit::DeadLetter)
    }

    /// As the configuration spells it.
    pub fn name(self) -> &'static str {
        match self {
            OnMisfit::Error => "error",
            OnMisfit::Null => "null",
            OnMisfit::Truncate => "truncate",
            OnMisfit::SkipRow => "skip_row",
            OnMisfit::DeadLetter => "dead_letter",
        }
    }
}

/// What happens when a table gets a column.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnAddColumn {
    /// It is not followed.
    #[default]
    Ignore,
    /// The collection gets a field for it.
    Add,
    /// It becomes a member of the dynamic field.
    Dynamic,
    /// The table stops.
    Stop,
}

/// What happens when a table changes so that its collection no longer fits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnSchemaChange {
    /// The table stops.
    #[default]
    Stop,
    /// The collection is dropped, made anew and copied into again.
    Resync,
}

/// What becomes of the WAL that a stopped table still needs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnStop {
    /// PostgreSQL keeps it: once the row or the mapping is mended, a restart goes on where the table stopped.
    #[default]
    Hold,
    /// It is let go, for the sake of the source's disk and of the other tables: `walvec resync` brings the table back.
    Release,
}

/// What happens at an UPDATE or DELETE of a table whose entities are numbered: nobody knows which of them it concerns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnUpdateDelete {
    /// The table stops.
    #[default]
    Stop,
    /// Its entity stays as it is.
    Ignore,
}

/// Another text than PostgreSQL's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// bytea in base64, with padding.
    Base64,
    /// bytea in hexadecimal, without `\x`.
    Hex,
    /// char(n) without the spaces at its end.
    Trimmed,
}

impl Encoding {
    pub const ALL: [Encoding; 3] = [Encoding::Base64, Encoding::Hex, Encoding::Trimmed];

    /// As the configuration spells it.
    pub fn name(self) -> &'static str {
        match self {
            Encoding::Base64 => "base64",
            Encoding::Hex => "hex",
            Encoding::Trimmed => "trimmed",
        }
    }
}

/// One `[[table]]`. `name` may be a glob; then `collection` is `None`.
#[derive(Clone, Debug)]
pub struct TableSettings {
    /// `schema.table`, either part may hold `*` and `?`.
    pub name: String,
    /// Collection name; default: the table's name (`schema_table` outside `public`), sanitised.
    pub collection: Option<String>,
    /// Columns to take; `None` = all.
    pub include: Option<Vec<String>>,
    pub exclude: Vec<String>,
    /// SQL condition: only rows for which it is true.
    pub filter: Option<String>,
    /// Columns that are the key instead of the primary key's.
    pub key: Option<Vec<String>>,
    /// Number the entities, instead of giving them a key made from their rows: inserts are followed.
    pub auto_id: bool,
    pub on_update_delete: OnUpdateDelete,
    /// Its own rows only, not those of tables that inherit from it.
    pub only: bool,
    /// Read generated columns again that the stream does not carry, instead of leaving them out.
    pub reread_generated: bool,
    /// Rows of a partition that is no longer one stay in the collection; else the table stops.
    pub keep_removed_partitions: bool,
    pub index: IndexSetting,
    /// `metric_type` to use instead of the one found, for vectors that have it.
    pub metric: Option<String>,
    /// Index the fields of columns that have a btree index.
    pub scalar_indexes: bool,
    /// Give a table without a vector a constant one, as a collection must have one.
    pub placeholder_vector: bool,
    /// For fields that do not say; `DeadLetter` also for rows that the server refuses.
    pub on_misfit: OnMisfit,
    /// Dead letters that stop the table when there is one more.
    pub dead_letters_max: usize,
    pub on_add_column: OnAddColumn,
    pub on_schema_change: OnSchemaChange,
    pub on_stop: OnStop,
    pub num_shards: Option<u32>,
    /// Column whose field is the partition key.
    pub partition_key: Option<String>,
    pub num_partitions: Option<u32>,
    /// Let entities have members that no field declares.
    pub dynamic_field: bool,
    /// Columns that become such members instead of fields.
    pub dynamic: Vec<String>,
    /// Milvus's name of it.
    pub consistency_level: Option<String>,
    /// Of a collection that is to be created.
    pub properties: std::collections::BTreeMap<String, String>,
    /// By column name.
    pub fields: Vec<(String, FieldSettings)>,
}

impl TableSettings {
    /// Is this table meant? `*` stands for any characters, `?` for one, within the schema's or the table's name.
    pub fn matches(&self, schema: &str, table: &str) -> bool {
        self.name
            .split_once('.')
            .is_some_and(|(schema_pattern, table_pattern)| glob(schema_pattern, schema) && glob(table_pattern, table))
    }

    /// Does `name` mean whatever matches, rather than one table that must be there?
    pub fn is_pattern(&self) -> bool {
        self.name.contains(['*', '?'])
    }
}

/// Greedy matching with one point to come back to, the last `*`: at most |pattern| × |text| steps.
fn glob(pattern: &str, text: &str) -> bool {
    let (mut pattern, mut text) = (pattern.chars(), text.chars());
    let mut back: Option<(std::str::Chars, std::str::Chars)> = None;
    loop {
        let (pattern_here, text_here) = (pattern.clone(), text.clone());
        match (pattern.next(), text.next()) {
            (Some('*'), _) => {
                text = text_here.clone();
                back = Some((pattern_here, text_here));
            }
            (None, None) => return true,
            (Some(p), Some(t)) if p == '?' || p == t => {}
            _ => {
                let Some((star, mut rest)) = back.take() else { return false };
                if rest.next().is_none() {
                    return false;
                }
                (pattern, text) = (star.clone(), rest.clone());
                pattern.next();
                back = Some((star, rest));
            }
        }
    }
}

#[derive(Clone, Debug, Default)]
pub struct FieldSettings {
    pub rename: Option<String>,
    /// `max_length` of a VARCHAR, in bytes, 1…65,535.
    pub max_length: Option<u32>,
    /// `max_capacity` of an ARRAY, 1…4,096.
    pub max_capacity: Option<u32>,
    /// `dim` of a vector column declared without one.
    pub dimension: Option<u32>,
    /// Field type by Milvus's name, one of those that the column's type can become.
    pub data_type: Option<String>,
    pub encoding: Option<Encoding>,
    /// False: NULL does not fit, although the server could hold it.
    pub nullable: Option<bool>,
    /// Takes the place of NULL, in the field type's own spelling.
    pub default: Option<String>,
    pub mmap: Option<bool>,
    pub on_misfit: Option<OnMisfit>,
    pub metric: Option<String>,
    /// Index type by Milvus's name.
    pub index: Option<String>,
    pub index_params: std::collections::BTreeMap<String, String>,
}
