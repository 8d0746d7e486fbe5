//! From what was typed to what holds: bounds, agreements between keys, secrets.
//!
//! In: `Config`. Out: `Settings` and warnings, or every problem at once.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use toml::Spanned;

use super::conninfo::Conninfo;
use super::secret::{self, Environment};
use super::settings::*;
use super::values::{ByteSize, HumanDuration, SecretSource};
use super::written::{self, Config};
use super::{Loaded, Problem, line_of, nearest};

/// Collects problems, so that one run shows them all.
struct Resolver<'a> {
    text: &'a str,
    environment: &'a Environment,
    problems: Vec<Problem>,
    warnings: Vec<String>,
}

pub(super) fn resolve(config: Config, text: &str, environment: &Environment) -> Result<Loaded, Vec<Problem>> {
    let mut resolver = Resolver { text, environment, problems: Vec::new(), warnings: Vec::new() };
    let source = resolver.source(config.source);
    let target = resolver.target(config.target);
    let guard = resolver.guard(&config.guard);
    let admin = resolver.admin(&config.admin);
    let pipeline = resolver.pipeline(&config.pipeline);
    let log = resolver.log(config.log);
    let state = resolver.state(&config.state);
    let tables = resolver.tables(config.tables);
    let Resolver { problems, warnings, .. } = resolver;
    match (source, target) {
        (Some(source), Some(target)) if problems.is_empty() => {
            Ok(Loaded { settings: Settings { source, target, state, guard, admin, pipeline, log, tables }, warnings })
        }
        _ => Err(problems),
    }
}

pub(super) fn admin(config: &Config, text: &str) -> Result<AdminSettings, Vec<Problem>> {
    let environment = &Environment::process();
    let mut resolver = Resolver { text, environment, problems: Vec::new(), warnings: Vec::new() };
    let admin = resolver.admin(&config.admin);
    if resolver.problems.is_empty() { Ok(admin) } else { Err(resolver.problems) }
}

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

impl Resolver<'_> {
    fn problem(&mut self, line: Option<usize>, key: &str, sentence: impl Into<String>) {
        self.problems.push(Problem { line, key: key.to_owned(), sentence: sentence.into() });
    }

    fn at<T>(&mut self, place: &Spanned<T>, key: &str, sentence: impl Into<String>) {
        let span = place.span();
        self.problem((span != (0..0)).then(|| line_of(self.text, span.start)), key, sentence);
    }

    fn duration(&mut self, value: &Spanned<HumanDuration>, key: &str, min: Duration, max: Duration) -> Duration {
        let duration = value.get_ref().0;
        if duration < min || duration > max {
            let sentence = format!("{} is not from {} to {}", value.get_ref(), HumanDuration(min), HumanDuration(max));
            self.at(value, key, sentence);
        }
        duration
    }

    fn size(&mut self, value: &Spanned<ByteSize>, key: &str, min: u64, max: u64) -> u64 {
        let bytes = value.get_ref().0;
        if bytes < min || bytes > max {
            let sentence = format!("{} is not from {} to {}", value.get_ref(), ByteSize(min), ByteSize(max));
            self.at(value, key, sentence);
        }
        bytes
    }

    /// Bytes per second, of MiB per second.
    fn rate(&mut self, value: Option<&Spanned<f64>>, key: &str) -> Option<u64> {
        let value = value?;
        let rate = *value.get_ref();
        if !(0.01..=10_000.0).contains(&rate) {
            self.at(value, key, format!("{rate} is not from 0.01 to 10000"));
            return None;
        }
        Some((rate * f64::from(1 << 20)) as u64)
    }

    fn count(&mut self, value: &Spanned<u32>, key: &str, min: u32, max: u32) -> u32 {
        let count = *value.get_ref();
        if count < min || count > max {
            self.at(value, key, format!("{count} is not from {min} to {max}"));
        }
        count
    }

    /// One of a few words; `None` after a problem was noted.
    fn word<T: Copy>(&mut self, value: &Spanned<String>, key: &str, words: &[(&str, T)]) -> Option<T> {
        let typed = value.get_ref().as_str();
        let found = words.iter().find(|(word, _)| *word == typed).map(|(_, meaning)| *meaning);
        if found.is_none() {
            let all = words.iter().map(|(word, _)| format!("{word:?}")).collect::<Vec<_>>().join(", ");
            let hint = nearest(typed, words.iter().map(|(word, _)| *word))
                .map(|word| format!("; did you mean {word:?}?"))
                .unwrap_or_default();
            self.at(value, key, format!("{typed:?} is none of {all}{hint}"));
        }
        found
    }

    fn secret(&mut self, source: Option<&SecretSource>, key: &str) -> Option<Secret> {
        let source = source?;
        if let SecretSource::Plain(_) = source {
            self.warnings.push(format!(
                "{key} is written into the configuration in the clear; {{ env = … }}, {{ file = … }} and {{ command = … }} keep it out"
            ));
        }
        match secret::read(source, self.environment, &mut self.warnings) {
            Ok(secret) => Some(secret),
            Err(sentence) => {
                self.problem(None, key, sentence);
                None
            }
        }
    }

    fn source(&mut self, source: written::Source) -> Option<SourceSettings> {
        let info = match Conninfo::parse(source.url.get_ref()) {
            Ok(info) => info,
            Err(error) => {
                self.at(&source.url, "source.url", error.to_string());
                return None;
            }
        };
        for name in &info.ignored {
            self.warnings.push(format!("source.url: parameter {name:?} has no meaning here and is ignored"));
        }
        let host = match info.get("host") {
            Some(host) => host.to_owned(),
            None => {
                let way_out = "has no host; write the server's name, its address, or the directory of its socket";
                self.at(&source.url, "source.url", way_out);
                String::new()
            }
        };
        let port = info.port();
        let Some(user) = info.get("user").map(str::to_owned) else {
            self.at(&source.url, "source.url", "has no user; write postgresql://USER@host/database");
            return None;
        };
        // libpq: the database is named like the user when it is not named.
        let database = info.get("dbname").unwrap_or(&user).to_owned();

        let mut sslrootcert = source.sslrootcert.or_else(|| info.get("sslrootcert").map(str::to_owned));
        // libpq 16: the system's roots, and nothing less than verify-full. Ours are Mozilla's, built in.
        let system_roots = sslrootcert.as_deref() == Some("system");
        if system_roots {
            sslrootcert = None;
        }
        let modes = [
            ("disable", SslMode::Disable),
            ("allow", SslMode::Prefer),
            ("prefer", SslMode::Prefer),
            ("require", SslMode::Require),
            ("verify-ca", SslMode::VerifyCa),
            ("verify-full", SslMode::VerifyFull),
        ];
        let typed =
            source.sslmode.or_else(|| info.get("sslmode").map(|mode| Spanned::new(source.url.span(), mode.into())));
        let sslmode = match typed {
            Some(typed) => self.word(&typed, "source.sslmode", &modes)?,
            None if system_roots => SslMode::VerifyFull,
            None => SslMode::Prefer,
        };
        let sslmode = match sslmode {
            // libpq: with a root certificate, require verifies the chain.
            SslMode::Require if sslrootcert.is_some() => SslMode::VerifyCa,
            mode => mode,
        };
        let sslcert = source.sslcert.or_else(|| info.get("sslcert").map(str::to_owned));
        let sslkey = source.sslkey.or_else(|| info.get("sslkey").map(str::to_owned));
        if sslcert.is_some() != sslkey.is_some() {
            self.at(&source.url, "source.sslcert", "sslcert and sslkey belong together; give both or none");
        }

        if info.get("password").is_some() && source.password.is_none() {
            self.warnings.push(
                "source.url holds the password in the clear; source.password = { env = … }, { file = … } or { command = … } keeps it out".into(),
            );
        }
        let password = match &source.password {
            Some(written) => self.secret(Some(written), "source.password"),
            None => info.get("password").map(Secret::new).or_else(|| {
                let whom = (host.as_str(), port, database.as_str(), user.as_str());
                secret::libpq_password(self.environment, info.get("passfile"), whom, &mut self.warnings)
            }),
        };

        let application_name = match &source.application_name {
            Some(name) => name.get_ref().clone(),
            None => info.get("application_name").unwrap_or("walvec").to_owned(),
        };
        if application_name.len() > 63 || !application_name.bytes().all(|b| (b' '..=b'~').contains(&b)) {
            let place = source.application_name.as_ref().unwrap_or(&source.url);
            self.at(place, "source.application_name", "is not printable ASCII of at most 63 characters");
        }
        let connect_timeout = match &source.connect_timeout {
            Some(typed) => self.duration(typed, "source.connect_timeout", 100 * MS, 10 * MINUTE),
            None => match info.get("connect_timeout").map(str::parse::<u64>) {
                None | Some(Ok(0)) => 10 * SECOND,
                Some(Ok(seconds @ 1..=600)) => Duration::from_secs(seconds),
                Some(_) => {
                    self.at(&source.url, "source.url", "connect_timeout is not a number of seconds from 0 to 600");
                    10 * SECOND
                }
            },
        };

        let slot = source.slot.get_ref();
        let slot_characters = slot.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
        if slot.is_empty() || slot.len() > 63 || !slot_characters {
            let sentence = format!("{slot:?} is no slot name: lower-case letters, digits and _ only, at most 63");
            self.at(&source.slot, "source.slot", sentence);
        }
        let publication = source.publication.get_ref();
        if publication.is_empty() || publication.len() > 63 || publication.contains('\0') {
            self.at(&source.publication, "source.publication", "is no name: 1 to 63 bytes");
        }
        let slot_lock_timeout =
            self.duration(&source.slot_lock_timeout, "source.slot_lock_timeout", SECOND, 1440 * MINUTE);
        let wal_sender_timeout =
            self.duration(&source.wal_sender_timeout, "source.wal_sender_timeout", SECOND, 60 * MINUTE);
        let heartbeat_interval = source
            .heartbeat_interval
            .as_ref()
            .map(|interval| self.duration(interval, "source.heartbeat_interval", SECOND, 60 * MINUTE));
        Some(SourceSettings {
            host,
            port,
            user,
            password,
            database,
            sslmode,
            sslrootcert: sslrootcert.map(PathBuf::from),
            sslcert: sslcert.map(PathBuf::from),
            sslkey: sslkey.map(PathBuf::from),
            application_name,
            connect_timeout,
            slot: source.slot.into_inner(),
            publication: source.publication.into_inner(),
            create: source.create,
            failover: source.failover,
            slot_lock_timeout,
            wal_sender_timeout,
            heartbeat_interval,
        })
    }

    fn target(&mut self, target: written::Target) -> Option<TargetSettings> {
        let url = match target_url(target.url.get_ref()) {
            Ok(url) => url,
            Err(sentence) => {
                self.at(&target.url, "target.url", sentence);
                return None;
            }
        };
        let transports = [("grpc", Transport::Grpc), ("rest", Transport::Rest)];
        let transport = self.word(&target.transport, "target.transport", &transports).unwrap_or(Transport::Grpc);
        let plans = [("free", Plan::Free), ("serverless", Plan::Serverless), ("dedicated", Plan::Dedicated)];
        let plan = target.plan.as_ref().and_then(|plan| self.word(plan, "target.plan", &plans));
        let token = self.secret(target.token.as_ref(), "target.token");
        let local = ["localhost", "127.0.0.1", "[::1]"].iter().any(|host| url.starts_with(&format!("http://{host}:")));
        if token.is_some() && url.starts_with("http://") && !local {
            self.warnings.push("target.token travels unencrypted: target.url is http://".into());
        }
        match (&target.client_cert, &target.client_key) {
            (Some(alone), None) | (None, Some(alone)) => {
                self.at(alone, "target.client_cert", "client_cert and client_key belong together; give both or none");
            }
            _ => {}
        }
        if url.starts_with("http://") && (target.ca.is_some() || target.client_cert.is_some()) {
            self.at(&target.url, "target.url", "is http://, so ca and client_cert have no meaning; write https://");
        }
        let max_write = self.rate(target.max_write_mb_per_s.as_ref(), "target.max_write_mb_per_s");
        let max_delete = self.rate(target.max_delete_mb_per_s.as_ref(), "target.max_delete_mb_per_s");
        let deadline = self.duration(&target.request_deadline, "target.request_deadline", SECOND, 10 * MINUTE);
        Some(TargetSettings {
            url,
            token,
            transport,
            database: target.database,
            ca: target.ca.map(PathBuf::from),
            client_cert: target.client_cert.map(|path| path.into_inner().into()),
            client_key: target.client_key.map(|path| path.into_inner().into()),
            server_name: target.server_name,
            connect_timeout: self.duration(&target.connect_timeout, "target.connect_timeout", 100 * MS, 10 * MINUTE),
            request_deadline: deadline,
            late_margin: self.duration(&target.late_margin, "target.late_margin", SECOND, 10 * MINUTE),
            max_write: max_write.or(plan.map(Plan::write)),
            max_delete: max_delete.or(plan.map(Plan::delete)),
            blocked_after: self.duration(&target.blocked_after, "target.blocked_after", SECOND, 24 * 60 * MINUTE),
        })
    }

    fn state(&mut self, state: &written::State) -> StateSettings {
        if state.path.is_empty() {
            self.problem(None, "state.path", "is empty; give a directory on a local disk");
        }
        StateSettings { path: PathBuf::from(&state.path) }
    }

    fn guard(&mut self, guard: &written::Guard) -> GuardSettings {
        let mut size = |value: &Spanned<ByteSize>, key: &str| self.size(value, key, MIB, MIB * GIB);
        let warn_bytes = size(&guard.warn_bytes, "guard.warn_bytes");
        let pause_copy_bytes = size(&guard.pause_copy_bytes, "guard.pause_copy_bytes");
        let release_stopped_bytes =
            guard.release_stopped_bytes.as_ref().map(|bytes| size(bytes, "guard.release_stopped_bytes"));
        let give_up_bytes = guard.give_up_bytes.as_ref().map(|bytes| size(bytes, "guard.give_up_bytes"));
        if let (Some(typed), Some(limit)) = (&guard.give_up_bytes, give_up_bytes)
            && limit < warn_bytes.max(pause_copy_bytes).max(release_stopped_bytes.unwrap_or(0))
        {
            self.at(
                typed,
                "guard.give_up_bytes",
                "is the last step, so it must be the largest of the sizes in [guard]",
            );
        }
        GuardSettings { warn_bytes, pause_copy_bytes, release_stopped_bytes, give_up_bytes }
    }

    fn admin(&mut self, admin: &written::Admin) -> AdminSettings {
        let typed = admin.listen.get_ref();
        if typed == "off" {
            return AdminSettings { listen: None };
        }
        // A name is looked up by nobody here: what is listened on should not depend on a resolver.
        let address = typed.strip_prefix("localhost:").map(|port| format!("127.0.0.1:{port}"));
        let listen = address.as_deref().unwrap_or(typed).parse::<SocketAddr>().ok();
        if listen.is_none() {
            let sentence =
                format!("{typed:?} is neither address:port, such as \"127.0.0.1:9187\" or \"[::]:9187\", nor \"off\"");
            self.at(&admin.listen, "admin.listen", sentence);
        }
        AdminSettings { listen }
    }

    fn pipeline(&mut self, pipeline: &written::Pipeline) -> PipelineSettings {
        let memory = self.size(&pipeline.memory_bytes, "pipeline.memory_bytes", 8 * MIB, 64 * GIB);
        let request = self.size(&pipeline.request_bytes_max, "pipeline.request_bytes_max", 64 * KIB, 64 * MIB);
        if request > memory {
            let sentence = format!(
                "{} is more than pipeline.memory_bytes ({}): no request could fill up",
                ByteSize(request),
                ByteSize(memory)
            );
            self.at(&pipeline.request_bytes_max, "pipeline.request_bytes_max", sentence);
        }
        let payload = self.size(&pipeline.dead_letter_payload_bytes, "pipeline.dead_letter_payload_bytes", 0, 64 * KIB);
        let touched = self.size(&pipeline.touched_bytes_max, "pipeline.touched_bytes_max", 64 * KIB, GIB);
        let checkpoint_interval =
            self.duration(&pipeline.checkpoint_interval, "pipeline.checkpoint_interval", 10 * MS, 10 * MINUTE);
        PipelineSettings {
            memory_bytes: memory as usize,
            lanes: self.count(&pipeline.lanes, "pipeline.lanes", 1, 64) as usize,
            request_rows_max: self.count(&pipeline.request_rows_max, "pipeline.request_rows_max", 1, 10_000) as usize,
            request_bytes_max: request as usize,
            copy_readers: self.count(&pipeline.copy_readers, "pipeline.copy_readers", 1, 16) as usize,
            chunk_bytes: self.size(&pipeline.chunk_bytes, "pipeline.chunk_bytes", 64 * KIB, GIB),
            touched_bytes_max: touched as usize,
            checkpoint_interval,
            dead_letter_payload_bytes: payload as usize,
            grace_period: self.duration(&pipeline.grace_period, "pipeline.grace_period", Duration::ZERO, 60 * MINUTE),
        }
    }

    fn log(&mut self, log: written::Log) -> LogSettings {
        let format = self.word(&log.format, "log.format", &[("text", LogFormat::Text), ("json", LogFormat::Json)]);
        if let Err(error) = tracing_subscriber::EnvFilter::builder().parse(log.filter.get_ref()) {
            self.at(
                &log.filter,
                "log.filter",
                format!("is no filter such as \"info,walvec::pipeline=debug\": {error}"),
            );
        }
        LogSettings { format: format.unwrap_or(LogFormat::Text), filter: log.filter.into_inner() }
    }

    fn tables(&mut self, tables: Vec<Spanned<written::Table>>) -> Vec<TableSettings> {
        if tables.is_empty() {
            self.problem(None, "table", "there is no [[table]]; add one with name = \"schema.table\"");
        }
        let (mut names, mut collections) = (BTreeSet::new(), BTreeSet::new());
        let mut settings = Vec::with_capacity(tables.len());
        for table in tables {
            let table = self.table(table.into_inner());
            if !names.insert(table.name.clone()) {
                self.problem(None, "table.name", format!("{:?} stands twice; one [[table]] a name", table.name));
            }
            if let Some(collection) = &table.collection
                && !collections.insert(collection.clone())
            {
                let sentence = format!("{collection:?} is the collection of two tables; give each its own");
                self.problem(None, "table.collection", sentence);
            }
            settings.push(table);
        }
        settings
    }

    fn table(&mut self, table: written::Table) -> TableSettings {
        let name = table.name.get_ref().clone();
        if !name.split_once('.').is_some_and(|(schema, table)| !schema.is_empty() && !table.is_empty()) {
            self.at(&table.name, "table.name", format!("{name:?} is not schema.table, such as \"public.{name}\""));
        }
        let pattern = name.contains(['*', '?']);
        if let Some(collection) = &table.collection {
            let typed = collection.get_ref();
            if pattern {
                let sentence =
                    format!("table.name {name:?} is a pattern: tables cannot share one collection; leave it out");
                self.at(collection, "table.collection", sentence);
            }
            if !is_milvus_name(typed) {
                let sentence = format!("{typed:?} {MILVUS_NAME}");
                self.at(collection, "table.collection", sentence);
            }
        }
        let (include, exclude) = match table.columns {
            None => (None, Vec::new()),
            Some(columns) => {
                if columns.get_ref().include.is_some() && columns.get_ref().exclude.is_some() {
                    self.at(&columns, "table.columns", "has both include and exclude; one of them says it all");
                }
                if columns.get_ref().include.as_ref().is_some_and(Vec::is_empty) {
                    self.at(&columns, "table.columns.include", "is empty: nothing would be left of the table");
                }
                let columns = columns.into_inner();
                (columns.include, columns.exclude.unwrap_or_default())
            }
        };
        #[derive(Clone, Copy)]
        enum Index {
            Auto,
            None,
        }
        let index = match self.word(&table.index, "table.index", &[("auto", Index::Auto), ("none", Index::None)]) {
            Some(Index::Auto) | None => IndexSetting::Auto,
            Some(Index::None) => IndexSetting::None,
        };
        let filter = table.r#where.map(|condition| {
            if condition.get_ref().trim().is_empty() || condition.get_ref().contains('\0') {
                self.at(&condition, "table.where", "is no SQL condition such as \"tenant = 7\"");
            }
            condition.into_inner()
        });
        let key = table.key.map(|key| {
            let columns: BTreeSet<&String> = key.get_ref().iter().collect();
            if columns.is_empty() || columns.len() < key.get_ref().len() {
                self.at(&key, "table.key", "names no column, or one twice; leave it out to use the primary key");
            }
            key.into_inner()
        });
        let generated = self.word(&table.generated, "table.generated", &[("skip", false), ("reread", true)]);
        let removed = [("stop", false), ("keep", true)];
        let removed = self.word(&table.partition_removed, "table.partition_removed", &removed);
        let metric = table.metric.and_then(|metric| self.metric(&metric, "table.metric"));
        let on_misfit = self.on_misfit(&table.on_misfit, "table.on_misfit");
        let words = [
            ("ignore", OnAddColumn::Ignore),
            ("add", OnAddColumn::Add),
            ("dynamic", OnAddColumn::Dynamic),
            ("stop", OnAddColumn::Stop),
        ];
        let on_add_column = self.word(&table.on_add_column, "table.on_add_column", &words);
        let words = [("stop", OnSchemaChange::Stop), ("resync", OnSchemaChange::Resync)];
        let on_schema_change = self.word(&table.on_schema_change, "table.on_schema_change", &words);
        let on_stop =
            self.word(&table.on_stop, "table.on_stop", &[("hold", OnStop::Hold), ("release", OnStop::Release)]);
        let words = [("stop", OnUpdateDelete::Stop), ("ignore", OnUpdateDelete::Ignore)];
        let on_update_delete = self.word(&table.on_update_delete, "table.on_update_delete", &words);
        let levels = ["Strong", "Session", "Bounded", "Eventually"].map(|level| (level, level));
        let level = table.consistency_level.and_then(|level| self.word(&level, "table.consistency_level", &levels));
        if let Some(partitions) = table.num_partitions.as_ref().filter(|_| table.partition_key.is_none()) {
            self.at(partitions, "table.num_partitions", "needs table.partition_key");
        }
        let num_partitions = table.num_partitions.map(|n| self.count(&n, "table.num_partitions", 1, 1_024));
        if table.properties.contains_key("collection.ttl.seconds") {
            let sentence =
                "collection.ttl.seconds lets entities vanish whose rows stay: delete the rows in PostgreSQL instead";
            self.problem(None, "table.properties", sentence);
        }
        let num_shards = table.num_shards.map(|shards| self.count(&shards, "table.num_shards", 1, 64));
        let fields = table.fields.into_iter().map(|(column, field)| self.field(column, field)).collect();
        TableSettings {
            name,
            collection: table.collection.map(Spanned::into_inner),
            include,
            exclude,
            filter,
            key,
            auto_id: table.auto_id,
            on_update_delete: on_update_delete.unwrap_or_default(),
            only: table.only,
            reread_generated: generated.unwrap_or(false),
            keep_removed_partitions: removed.unwrap_or(false),
            index,
            metric,
            scalar_indexes: table.scalar_indexes,
            placeholder_vector: table.placeholder_vector,
            on_misfit: on_misfit.unwrap_or_default(),
            dead_letters_max: self.count(&table.dead_letters_max, "table.dead_letters_max", 0, 1_000_000) as usize,
            on_add_column: on_add_column.unwrap_or_default(),
            on_schema_change: on_schema_change.unwrap_or_default(),
            on_stop: on_stop.unwrap_or_default(),
            num_shards,
            partition_key: table.partition_key,
            num_partitions,
            dynamic_field: table.dynamic_field || !table.dynamic.is_empty(),
            dynamic: table.dynamic,
            consistency_level: level.map(str::to_owned),
            properties: table.properties.into_iter().map(|(name, value)| (name, spelt(value))).collect(),
            fields,
        }
    }

    fn field(&mut self, column: String, field: written::Field) -> (String, FieldSettings) {
        let key = |name: &str| format!("table.fields.{column}.{name}");
        if let Some(rename) = &field.rename
            && !is_milvus_name(rename.get_ref())
        {
            self.at(rename, &key("rename"), format!("{:?} {MILVUS_NAME}", rename.get_ref()));
        }
        let settings = FieldSettings {
            max_length: field.max_length.map(|n| self.count(&n, &key("max_length"), 1, 65_535)),
            max_capacity: field.max_capacity.map(|n| self.count(&n, &key("max_capacity"), 1, 4_096)),
            dimension: field.dimension.map(|n| self.count(&n, &key("dimension"), 2, 32_768)),
            rename: field.rename.map(Spanned::into_inner),
            data_type: field.r#type,
            encoding: field.encoding.and_then(|word| {
                self.word(&word, &key("encoding"), &Encoding::ALL.map(|encoding| (encoding.name(), encoding)))
            }),
            nullable: field.nullable,
            default: field.default.map(spelt),
            mmap: field.mmap,
            on_misfit: field.on_misfit.and_then(|word| self.on_misfit(&word, &key("on_misfit"))),
            metric: field.metric.and_then(|metric| self.metric(&metric, &key("metric"))),
            index: field.index,
            index_params: field.index_params.into_iter().map(|(name, param)| (name, spelt(param))).collect(),
        };
        (column, settings)
    }

    fn on_misfit(&mut self, word: &Spanned<String>, key: &str) -> Option<OnMisfit> {
        self.word(word, key, &OnMisfit::ALL.map(|policy| (policy.name(), policy)))
    }

    fn metric(&mut self, word: &Spanned<String>, key: &str) -> Option<String> {
        let metrics = ["COSINE", "L2", "IP", "HAMMING", "JACCARD"].map(|metric| (metric, metric));
        self.word(word, key, &metrics).map(str::to_owned)
    }
}

fn spelt(param: written::Param) -> String {
    match param {
        written::Param::Bool(value) => value.to_string(),
        written::Param::Integer(number) => number.to_string(),
        written::Param::Float(number) => number.to_string(),
        written::Param::Text(text) => text,
    }
}

const MILVUS_NAME: &str = "is no name in Milvus: a letter or _, then letters, digits and _, at most 255";

fn is_milvus_name(name: &str) -> bool {
    name.len() <= 255
        && name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// `scheme://host:port`, the port filled in. The error does not repeat the URL: someone may have put a token into it.
fn target_url(typed: &str) -> Result<String, &'static str> {
    let typed = typed.trim();
    let (scheme, rest) = typed.split_once("://").ok_or("is not http://host:port or https://host[:port]")?;
    let default_port = match scheme {
        "http" => 19530,
        "https" => 443,
        _ => return Err("is neither http:// nor https://"),
    };
    let host = rest.strip_suffix('/').unwrap_or(rest);
    if host.contains('@') {
        return Err("holds user:password@; write it as target.token");
    }
    if host.is_empty() || host.contains(['/', '?', '#']) || host.contains(char::is_whitespace) {
        return Err(
            "is more or less than scheme, host and port: no path, no parameters (the database is target.database)",
        );
    }
    let after_host = host.rfind(']').map_or(host, |bracket| host.split_at(bracket).1);
    match after_host.rsplit_once(':') {
        None => Ok(format!("{scheme}://{host}:{default_port}")),
        Some((_, port)) if port.parse::<u16>().is_ok_and(|port| port != 0) => Ok(format!("{scheme}://{host}")),
        Some(_) => Err("has a port that is not a number from 1 to 65535"),
    }
}
