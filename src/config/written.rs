//! The configuration as it was typed: the shape of `walvec.toml`, key by key.
//!
//! In: TOML. Out: what was written, nothing filled in but the defaults. Each key's comment is its manual entry;
//! `config/walvec.toml` shows them all and a test compares it with the defaults here.
//!
//! Not here: what the values mean together (`resolve`), where secrets come from (`secret`).

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;
use toml::Spanned;

use super::values::{ByteSize, HumanDuration, SecretSource};

/// The whole file. `[source]`, `[target]` and at least one `[[table]]` must be there; the rest has defaults that work.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    pub source: Source,
    pub target: Target,
    #[serde(default)]
    pub state: State,
    #[serde(default)]
    pub guard: Guard,
    #[serde(default)]
    pub admin: Admin,
    #[serde(default)]
    pub pipeline: Pipeline,
    #[serde(default)]
    pub log: Log,
    #[serde(default, rename = "table")]
    pub tables: Vec<Spanned<Table>>,
}

/// Where rows come from: the primary of a PostgreSQL 14 or newer with `wal_level = logical`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// libpq URL (`postgresql://user@host:5432/database?sslmode=verify-full`), libpq keyword string
    /// (`host=… dbname=… user=…`) or `jdbc:postgresql://host/database?user=…`. A password in it works, with a warning.
    /// Not a connection pooler: replication needs a session of its own.
    pub url: Spanned<String>,
    /// `{ env = "NAME" }`, `{ file = "/path" }` or `{ command = ["program", "argument"] }`. Overrides the URL's.
    /// When there is none anywhere: `PGPASSWORD`, then the password file (`PGPASSFILE`, `~/.pgpass`), as libpq does.
    pub password: Option<SecretSource>,
    /// Replication slot, created if missing. `[a-z0-9_]`, at most 63. Default `walvec`.
    #[serde(default = "default_slot")]
    pub slot: Spanned<String>,
    /// Publication, created if missing and permitted. Default `walvec`.
    #[serde(default = "default_publication")]
    pub publication: Spanned<String>,
    /// May walvec create the slot and the publication and add missing tables to it? Default true.
    #[serde(default = "yes")]
    pub create: bool,
    /// Create the slot as a failover slot (PostgreSQL 17 and newer; refused by older ones). Default false.
    #[serde(default)]
    pub failover: bool,
    /// Overrides the URL's `sslmode`: disable, allow, prefer, require, verify-ca, verify-full. Default prefer, as libpq.
    pub sslmode: Option<Spanned<String>>,
    /// PEM bundle that replaces the built-in Mozilla roots. RDS, Cloud SQL and Azure need their own.
    pub sslrootcert: Option<String>,
    /// Client certificate, PEM.
    pub sslcert: Option<String>,
    /// Key of the client certificate, PEM, not encrypted.
    pub sslkey: Option<String>,
    /// As `pg_stat_activity` shows it. Must not match `synchronous_standby_names`. Default `walvec`.
    pub application_name: Option<Spanned<String>>,
    /// Time for TCP, TLS and log-in together, 100 ms to 10 min. Default 10s.
    pub connect_timeout: Option<Spanned<HumanDuration>>,
    /// How long creating the slot may wait for running write transactions, 1 s to 24 h. Default 60s.
    #[serde(default = "default_slot_lock_timeout")]
    pub slot_lock_timeout: Spanned<HumanDuration>,
    /// A stream without a sign of life is given up after this, 1 s to 1 h. Default 20s. Raise it when single rows
    /// are so large that one takes longer to transfer.
    #[serde(default = "default_wal_sender_timeout")]
    pub wal_sender_timeout: Spanned<HumanDuration>,
    /// Write a logical message so often, and measure how long it takes until the target has all that was before it. 1 s to
    /// 1 h. Default: never. Each is about 100 bytes of WAL, and keeps `archive_timeout` from sparing an idle server.
    pub heartbeat_interval: Option<Spanned<HumanDuration>>,
}

/// Where rows go: Milvus 2.3 or newer, Milvus Lite or Zilliz Cloud.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// `http://host:port` or `https://host[:port]`. Port 19530 for http and 443 for https when left out.
    pub url: Spanned<String>,
    /// API key or `user:password`, in the same forms as `source.password`.
    pub token: Option<SecretSource>,
    /// `grpc` (default) or `rest`.
    #[serde(default = "default_transport")]
    pub transport: Spanned<String>,
    /// Milvus database. Default: the server's default.
    #[serde(default)]
    pub database: String,
    /// PEM bundle that replaces the built-in Mozilla roots.
    pub ca: Option<String>,
    /// Client certificate, PEM, with `client_key`.
    pub client_cert: Option<Spanned<String>>,
    /// Key of the client certificate, PEM, with `client_cert`.
    pub client_key: Option<Spanned<String>>,
    /// Name to verify the server's certificate against, when it differs from the host of `url`.
    pub server_name: Option<String>,
    /// Time for TCP, TLS and the first answer, 100 ms to 10 min. Default 10s.
    #[serde(default = "default_connect_timeout")]
    pub connect_timeout: Spanned<HumanDuration>,
    /// Deadline that every request carries to the server, 1 s to 10 min. Default 10s.
    #[serde(default = "default_request_deadline")]
    pub request_deadline: Spanned<HumanDuration>,
    /// How long after its deadline a request that got no answer may still be applied, 1 s to 10 min. Default 5s.
    /// The keys of such a request wait this long: too short can let an old value overwrite a new one.
    #[serde(default = "default_late_margin")]
    pub late_margin: Spanned<HumanDuration>,
    /// `free`, `serverless` or `dedicated`: Zilliz Cloud's quotas of that plan, kept from the first request on.
    pub plan: Option<Spanned<String>>,
    /// Upserts per second at most, in MiB as the server counts them, 0.01 to 10,000. Default: the plan's, else found by the answers.
    pub max_write_mb_per_s: Option<Spanned<f64>>,
    /// The same for deletes.
    pub max_delete_mb_per_s: Option<Spanned<f64>>,
    /// A target that took no write for so long is reported as `blocked`, 1 s to 1 d. Default 60s.
    #[serde(default = "default_blocked_after")]
    pub blocked_after: Spanned<HumanDuration>,
}

/// What walvec must remember across restarts.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// A directory of our own on a local disk. Losing it means copying again. Default `/var/lib/walvec`.
    #[serde(default = "default_state_path")]
    pub path: String,
}

/// What is done as PostgreSQL keeps more and more WAL for the slot, by bytes retained. 1 MiB to 1 PiB each.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Guard {
    /// It is told: log, `/status`, metrics. Default 10GiB; also when half of `max_slot_wal_keep_size` is used.
    #[serde(default = "default_warn_bytes")]
    pub warn_bytes: Spanned<ByteSize>,
    /// No chunk of a copy is begun until it is less. Default 20GiB; also when three quarters of `max_slot_wal_keep_size` are used.
    #[serde(default = "default_pause_copy_bytes")]
    pub pause_copy_bytes: Spanned<ByteSize>,
    /// Tables that stopped let go of the slot, as with their `on_stop = "release"`. Default: never.
    pub release_stopped_bytes: Option<Spanned<ByteSize>>,
    /// The slot is dropped and walvec ends: the source is saved, and everything is to be copied anew. Default: never.
    pub give_up_bytes: Option<Spanned<ByteSize>>,
}

/// The HTTP server for people and monitors: `/metrics`, `/livez`, `/readyz`, `/status`. It has no log-in.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Admin {
    /// `address:port`, or `off`. Default `127.0.0.1:9187`.
    #[serde(default = "default_listen")]
    pub listen: Spanned<String>,
}

/// Sizes and times of the data path. The defaults are meant to be kept.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pipeline {
    /// Bytes of rows that may be held at once, copy and stream together, 8 MiB to 64 GiB. Default 32MiB. Reading stops
    /// when it is full. One row larger than this still passes, alone.
    #[serde(default = "default_memory_bytes")]
    pub memory_bytes: Spanned<ByteSize>,
    /// Requests in flight per table, 1 to 64. Default 2. Rows of one key always take the same lane.
    #[serde(default = "default_lanes")]
    pub lanes: Spanned<u32>,
    /// Rows per request at most, 1 to 10000. Default 1000.
    #[serde(default = "default_request_rows_max")]
    pub request_rows_max: Spanned<u32>,
    /// Bytes per request at most, 64 KiB to 64 MiB. Default 4MiB. One larger row is sent alone.
    #[serde(default = "default_request_bytes_max")]
    pub request_bytes_max: Spanned<ByteSize>,
    /// Connections that copy at the same time, 1 to 16. Default 2.
    #[serde(default = "default_copy_readers")]
    pub copy_readers: Spanned<u32>,
    /// Bytes of a table, TOAST included, that one chunk of the copy covers, 64 KiB to 1 GiB. Default 8MiB. A crash
    /// costs at most this much reading; each chunk's share lock lasts for its reading only.
    #[serde(default = "default_chunk_bytes")]
    pub chunk_bytes: Spanned<ByteSize>,
    /// Bytes of keys that the stream may touch while one chunk is read, 64 KiB to 1 GiB. Default 16MiB. A chunk that
    /// meets more is read again with the stream held.
    #[serde(default = "default_touched_bytes_max")]
    pub touched_bytes_max: Spanned<ByteSize>,
    /// Longest time between two checkpoints while there is progress, 10 ms to 10 min. Default 1s.
    #[serde(default = "default_checkpoint_interval")]
    pub checkpoint_interval: Spanned<HumanDuration>,
    /// How long SIGTERM may drain before the rest is left (and replayed at the next start), up to 1 h. Default 20s.
    #[serde(default = "default_grace_period")]
    pub grace_period: Spanned<HumanDuration>,
    /// How much of a dead letter's row is kept with it, as text; 0 to 64KiB. Default 0: no values are written to disk.
    #[serde(default = "default_dead_letter_payload_bytes")]
    pub dead_letter_payload_bytes: Spanned<ByteSize>,
}

/// The log, on standard error.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Log {
    /// `text` or `json`. Default text.
    #[serde(default = "default_log_format")]
    pub format: Spanned<String>,
    /// A `tracing` filter such as `info,walvec::pipeline=debug`. `RUST_LOG` overrides it. Default info.
    #[serde(default = "default_log_filter")]
    pub filter: Spanned<String>,
}

/// One table, or several by a pattern. An exact name goes before every pattern; of several patterns the first counts.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Table {
    /// `schema.table`; either part may hold `*` (anything) and `?` (one character).
    pub name: Spanned<String>,
    /// Collection name. Default: the table's name (`schema_table` outside `public`), with what Milvus does not allow
    /// replaced by `_`. Not with a pattern.
    pub collection: Option<Spanned<String>>,
    /// `{ include = ["a", "b"] }` or `{ exclude = ["c"] }`. Default: every column.
    #[serde(default)]
    pub columns: Option<Spanned<Columns>>,
    /// Only rows for which this SQL condition over the table's columns is true. It becomes the row filter of the
    /// publication, or must be the one that is there. PostgreSQL 15 and newer. Default: the publication's, else every row.
    pub r#where: Option<Spanned<String>>,
    /// Columns that are the key: a unique index on exactly these and NOT NULL. Default: the primary key.
    pub key: Option<Spanned<Vec<String>>>,
    /// Number the entities instead of giving them keys made from their rows: only inserts can be followed then. Default false.
    #[serde(default)]
    pub auto_id: bool,
    /// With `auto_id`, at an UPDATE or DELETE. `stop`: the table stops. `ignore`: the entity stays as it is. Default stop.
    #[serde(default = "default_on_update_delete")]
    pub on_update_delete: Spanned<String>,
    /// Only the table's own rows, not those of tables that inherit from it. Default false: such a table is refused.
    #[serde(default)]
    pub only: bool,
    /// `skip`: generated columns that the stream does not carry are left out. `reread`: they are read again from the
    /// table after every change. Default skip.
    #[serde(default = "default_generated")]
    pub generated: Spanned<String>,
    /// Rows of a partition that was detached or dropped, of which the stream tells nothing. `stop`: the table stops.
    /// `keep`: they stay in the collection. Default stop.
    #[serde(default = "default_partition_removed")]
    pub partition_removed: Spanned<String>,
    /// `auto`: from the pgvector index of the column, else AUTOINDEX. `none`: no index and no load, you make them.
    #[serde(default = "default_index")]
    pub index: Spanned<String>,
    /// `COSINE`, `L2`, `IP`, or of binary vectors `HAMMING` or `JACCARD`. Default: from the pgvector index's operator
    /// class, else COSINE (HAMMING for binary vectors, IP for sparse ones).
    pub metric: Option<Spanned<String>>,
    /// Index the fields of columns that have a btree index of their own. Default false.
    #[serde(default)]
    pub scalar_indexes: bool,
    /// Take a table without a vector column, and give its collection a constant vector, as Milvus has no collection without
    /// one. Default false: such a table is refused.
    #[serde(default)]
    pub placeholder_vector: bool,
    /// What happens to a value that its field cannot hold, for fields that do not say. `error`: the table stops. `null`:
    /// NULL takes its place. `truncate`: a text is cut at a character, an array at an element. `skip_row`: the row is left
    /// out, and an entity of its key deleted. `dead_letter`: the same, and the row is remembered until it fits; also for rows
    /// that the server refuses. Default error.
    #[serde(default = "default_on_misfit")]
    pub on_misfit: Spanned<String>,
    /// Dead letters of the table, 0 to 1000000; one more stops it. Default 10000.
    #[serde(default = "default_dead_letters_max")]
    pub dead_letters_max: Spanned<u32>,
    /// A column that the table gets later. `ignore`: it is not followed. `add`: the collection gets a field for it (Milvus 2.6 and
    /// newer). `dynamic`: it becomes a member of the dynamic field. `stop`: the table stops. Default ignore.
    #[serde(default = "default_on_add_column")]
    pub on_add_column: Spanned<String>,
    /// Any other change after which the collection no longer fits. `stop`: the table stops. `resync`: the collection is dropped,
    /// made anew and copied into again. Default stop.
    #[serde(default = "default_on_schema_change")]
    pub on_schema_change: Spanned<String>,
    /// A table that stopped. `hold`: the WAL that it needs is kept, a restart goes on with it. `release`: it is let go, and
    /// `walvec resync` brings the table back. Default hold.
    #[serde(default = "default_on_stop")]
    pub on_stop: Spanned<String>,
    /// Shards of a collection that is to be created, 1 to 64. Default: the server's.
    pub num_shards: Option<Spanned<u32>>,
    /// Column whose field is the partition key: an integer (as INT64) or a text (as VARCHAR), never NULL, not the whole primary
    /// key. Milvus 2.4 and newer. Default: none.
    pub partition_key: Option<String>,
    /// Partitions behind the partition key, 1 to 1024. Default: the server's (16).
    pub num_partitions: Option<Spanned<u32>>,
    /// Let entities have members that no field declares. Default false, true with `dynamic`.
    #[serde(default)]
    pub dynamic_field: bool,
    /// Columns that become such members instead of fields of their own.
    #[serde(default)]
    pub dynamic: Vec<String>,
    /// `Strong`, `Session`, `Bounded` or `Eventually`, for reads that ask for nothing else. Default Bounded.
    pub consistency_level: Option<Spanned<String>>,
    /// Properties of a collection that is to be created, such as `{ "mmap.enabled" = true }`. `collection.ttl.seconds` is
    /// refused.
    #[serde(default)]
    pub properties: BTreeMap<String, Param>,
    /// By column name.
    #[serde(default)]
    pub fields: BTreeMap<String, Field>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Columns {
    /// Only these. The key's columns must be among them.
    pub include: Option<Vec<String>>,
    /// All but these.
    pub exclude: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Field {
    /// Field name in the collection. Default: the column's name.
    pub rename: Option<Spanned<String>>,
    /// `max_length` of a VARCHAR in bytes, 1 to 65535. Default 65535.
    pub max_length: Option<Spanned<u32>>,
    /// `max_capacity` of an ARRAY, 1 to 4096. Default 4096.
    pub max_capacity: Option<Spanned<u32>>,
    /// Dimension of a vector column that was declared without one, 2 to 32768. Default: that of a value in the table.
    pub dimension: Option<Spanned<u32>>,
    /// Field type, such as `INT64`, `JSON` or `BINARY_VECTOR`; docs/types.md has those that a column's type can become.
    pub r#type: Option<String>,
    /// Another text than PostgreSQL's own: `base64` or `hex` of a bytea, `trimmed` of a char(n).
    pub encoding: Option<Spanned<String>>,
    /// `false`: NULL does not fit, although the server could hold it. Default: true wherever the server can.
    pub nullable: Option<bool>,
    /// Takes the place of NULL: the field's default value, which walvec writes too. Of BOOL, numbers and VARCHAR. Default: none.
    pub default: Option<Param>,
    /// Map the field's data from disk. Default: the server's.
    pub mmap: Option<bool>,
    /// As the table's, for this field.
    pub on_misfit: Option<Spanned<String>>,
    /// As the table's, for this field.
    pub metric: Option<Spanned<String>>,
    /// Index type by Milvus's name, such as `HNSW`, `IVF_FLAT`, `AUTOINDEX`; `none` for no index on a scalar field. Default:
    /// from the pgvector index, else AUTOINDEX.
    pub index: Option<String>,
    /// Parameters of the index, such as `{ M = 16, efConstruction = 200 }`. Default: those of the pgvector index.
    #[serde(default)]
    pub index_params: BTreeMap<String, Param>,
}

/// A value as it may be written: true or false, a number or a text.
#[derive(Deserialize)]
#[serde(untagged)]
pub enum Param {
    Bool(bool),
    Integer(i64),
    Float(f64),
    Text(String),
}

/// A default has no place in the file.
fn unplaced<T>(value: T) -> Spanned<T> {
    Spanned::new(0..0, value)
}

fn duration(duration: Duration) -> Spanned<HumanDuration> {
    unplaced(HumanDuration(duration))
}

fn default_slot() -> Spanned<String> {
    unplaced("walvec".into())
}

fn default_publication() -> Spanned<String> {
    unplaced("walvec".into())
}

fn yes() -> bool {
    true
}

fn default_slot_lock_timeout() -> Spanned<HumanDuration> {
    duration(Duration::from_secs(60))
}

fn default_wal_sender_timeout() -> Spanned<HumanDuration> {
    duration(Duration::from_secs(20))
}

fn default_transport() -> Spanned<String> {
    unplaced("grpc".into())
}

fn default_connect_timeout() -> Spanned<HumanDuration> {
    duration(Duration::from_secs(10))
}

fn default_request_deadline() -> Spanned<HumanDuration> {
    duration(Duration::from_secs(10))
}

fn default_late_margin() -> Spanned<HumanDuration> {
    duration(Duration::from_secs(5))
}

fn default_blocked_after() -> Spanned<HumanDuration> {
    duration(Duration::from_secs(60))
}

fn default_state_path() -> String {
    "/var/lib/walvec".into()
}

fn default_listen() -> Spanned<String> {
    unplaced("127.0.0.1:9187".into())
}

fn default_memory_bytes() -> Spanned<ByteSize> {
    unplaced(ByteSize(32 << 20))
}

fn default_lanes() -> Spanned<u32> {
    unplaced(2)
}

fn default_request_rows_max() -> Spanned<u32> {
    unplaced(1000)
}

fn default_request_bytes_max() -> Spanned<ByteSize> {
    unplaced(ByteSize(4 << 20))
}

fn default_copy_readers() -> Spanned<u32> {
    unplaced(2)
}

fn default_chunk_bytes() -> Spanned<ByteSize> {
    unplaced(ByteSize(8 << 20))
}

fn default_touched_bytes_max() -> Spanned<ByteSize> {
    unplaced(ByteSize(16 << 20))
}

fn default_checkpoint_interval() -> Spanned<HumanDuration> {
    duration(Duration::from_secs(1))
}

fn default_dead_letter_payload_bytes() -> Spanned<ByteSize> {
    unplaced(ByteSize(0))
}

fn default_grace_period() -> Spanned<HumanDuration> {
    duration(Duration::from_secs(20))
}

fn default_log_format() -> Spanned<String> {
    unplaced("text".into())
}

fn default_log_filter() -> Spanned<String> {
    unplaced("info".into())
}

fn default_index() -> Spanned<String> {
    unplaced("auto".into())
}

fn default_generated() -> Spanned<String> {
    unplaced("skip".into())
}

fn default_partition_removed() -> Spanned<String> {
    unplaced("stop".into())
}

fn default_on_misfit() -> Spanned<String> {
    unplaced("error".into())
}

fn default_dead_letters_max() -> Spanned<u32> {
    unplaced(10_000)
}

fn default_on_add_column() -> Spanned<String> {
    unplaced("ignore".into())
}

fn default_warn_bytes() -> Spanned<ByteSize> {
    unplaced(ByteSize(10 << 30))
}

fn default_pause_copy_bytes() -> Spanned<ByteSize> {
    unplaced(ByteSize(20 << 30))
}

fn default_on_stop() -> Spanned<String> {
    unplaced("hold".into())
}

fn default_on_update_delete() -> Spanned<String> {
    unplaced("stop".into())
}

fn default_on_schema_change() -> Spanned<String> {
    unplaced("stop".into())
}

impl Default for State {
    fn default() -> State {
        State { path: default_state_path() }
    }
}

impl Default for Admin {
    fn default() -> Admin {
        Admin { listen: default_listen() }
    }
}

impl Default for Pipeline {
    fn default() -> Pipeline {
        Pipeline {
            memory_bytes: default_memory_bytes(),
            lanes: default_lanes(),
            request_rows_max: default_request_rows_max(),
            request_bytes_max: default_request_bytes_max(),
            copy_readers: default_copy_readers(),
            chunk_bytes: default_chunk_bytes(),
            touched_bytes_max: default_touched_bytes_max(),
            checkpoint_interval: default_checkpoint_interval(),
            grace_period: default_grace_period(),
            dead_letter_payload_bytes: default_dead_letter_payload_bytes(),
        }
    }
}

impl Default for Guard {
    fn default() -> Guard {
        Guard {
            warn_bytes: default_warn_bytes(),
            pause_copy_bytes: default_pause_copy_bytes(),
            release_stopped_bytes: None,
            give_up_bytes: None,
        }
    }
}

impl Default for Log {
    fn default() -> Log {
        Log { format: default_log_format(), filter: default_log_filter() }
    }
}

/// Keys of the file by table, for suggestions and for the test that `config/walvec.toml` shows every one.
/// A test below holds it against the structs: a key missing here is a key serde does not know.
pub const KEYS: &[(&str, &[&str])] = &[
    ("", &["source", "target", "state", "guard", "admin", "pipeline", "log", "table"]),
    (
        "source",
        &[
            "url",
            "password",
            "slot",
            "publication",
            "create",
            "failover",
            "sslmode",
            "sslrootcert",
            "sslcert",
            "sslkey",
            "application_name",
            "connect_timeout",
            "slot_lock_timeout",
            "wal_sender_timeout",
            "heartbeat_interval",
        ],
    ),
    (
        "target",
        &[
            "url",
            "token",
            "transport",
            "database",
            "ca",
            "client_cert",
            "client_key",
            "server_name",
            "connect_timeout",
            "request_deadline",
            "late_margin",
            "plan",
            "max_write_mb_per_s",
            "max_delete_mb_per_s",
            "blocked_after",
        ],
    ),
    ("state", &["path"]),
    ("guard", &["warn_bytes", "pause_copy_bytes", "release_stopped_bytes", "give_up_bytes"]),
    ("admin", &["listen"]),
    (
        "pipeline",
        &[
            "memory_bytes",
            "lanes",
            "request_rows_max",
            "request_bytes_max",
            "copy_readers",
            "chunk_bytes",
            "touched_bytes_max",
            "checkpoint_interval",
            "grace_period",
            "dead_letter_payload_bytes",
        ],
    ),
    ("log", &["format", "filter"]),
    (
        "table",
        &[
            "name",
            "collection",
            "columns",
            "where",
            "key",
            "auto_id",
            "on_update_delete",
            "only",
            "generated",
            "partition_removed",
            "index",
            "metric",
            "scalar_indexes",
            "placeholder_vector",
            "on_misfit",
            "dead_letters_max",
            "on_add_column",
            "on_schema_change",
            "on_stop",
            "num_shards",
            "partition_key",
            "num_partitions",
            "dynamic_field",
            "dynamic",
            "consistency_level",
            "properties",
            "fields",
        ],
    ),
    ("table.columns", &["include", "exclude"]),
    (
        "table.fields",
        &[
            "rename",
            "max_length",
            "max_capacity",
            "dimension",
            "type",
            "encoding",
            "nullable",
            "default",
            "mmap",
            "on_misfit",
            "metric",
            "index",
            "index_params",
        ],
    ),
];
