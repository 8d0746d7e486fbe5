//! `walvec check`: what would fail later, found before anything is touched.
//!
//! In: the configuration, both servers, the state directory. Out: findings, each with what it is about, one sentence, and
//! where there is one the statement that mends it; as text or as JSON.
//!
//! Holds: nothing is created, changed or locked, at neither server. A part that cannot be asked is a finding and the
//! rest is asked all the same, so that one run shows everything there is to mend.
//!
//! Not here: what is judged of the answers (`judge`, pure), what `run` does about it.

mod judge;

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;

use serde::Serialize;

use crate::checkpoint::{Saved, Store, StoreError};
use crate::config::{Loaded, Settings};
use crate::milvus::{Class, Milvus, MilvusError, ServerInfo};
use crate::pipeline::{self, Catalog};
use crate::plan::evolve::{Evolution, evolve};
use crate::plan::{self, Plan};
use crate::postgres::publication::Wanted;
use crate::postgres::{self, Connection, Disposition, PostgresError, gate};

use super::{Exit, Failure, Global};

/// Find what would fail later, before anything is touched
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print the findings as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// `walvec run` would end, or lose its footing later.
    Error,
    /// It works, and somebody should know.
    Warning,
    Info,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub level: Level,
    /// `source`, `slot "walvec"`, `table public.docs` …
    pub subject: String,
    pub sentence: String,
    /// A statement or step that mends it.
    pub mend: Option<String>,
    /// The exit code that it stands for.
    #[serde(skip)]
    pub exit: Exit,
}

/// Findings as they are made.
#[derive(Debug, Default)]
pub struct Findings(Vec<Finding>);

impl Findings {
    fn add(&mut self, level: Level, exit: Exit, subject: &str, sentence: impl Into<String>, mend: Option<String>) {
        self.0.push(Finding { level, subject: subject.to_owned(), sentence: sentence.into(), mend, exit });
    }

    fn error(&mut self, exit: Exit, subject: &str, sentence: impl Into<String>, mend: Option<String>) {
        self.add(Level::Error, exit, subject, sentence, mend);
    }

    fn warning(&mut self, subject: &str, sentence: impl Into<String>, mend: Option<String>) {
        self.add(Level::Warning, Exit::Ok, subject, sentence, mend);
    }

    fn info(&mut self, subject: &str, sentence: impl Into<String>) {
        self.add(Level::Info, Exit::Ok, subject, sentence, None);
    }

    fn count(&self, level: Level) -> usize {
        self.0.iter().filter(|finding| finding.level == level).count()
    }

    /// The code of the first error that a person must mend, else of the first that may pass, else 0.
    pub fn exit(&self) -> Exit {
        let errors = || self.0.iter().filter(|finding| finding.level == Level::Error).map(|finding| finding.exit);
        errors().find(|exit| *exit != Exit::Temporary).or_else(|| errors().next()).unwrap_or(Exit::Ok)
    }
}

pub async fn run(args: Args, global: &Global) -> Result<Exit, Failure> {
    let Loaded { settings, warnings } = global.load()?;
    let mut findings = Findings::default();
    for warning in warnings {
        findings.warning("configuration", warning, None);
    }
    Box::pin(check(&settings, &mut findings)).await;
    let text = if args.json { render_json(&findings) } else { render_text(&findings) };
    // A reader that closes the pipe early (`| head`) has seen what it wanted; the verdict is the exit code.
    drop(std::io::stdout().write_all(text.as_bytes()));
    Ok(findings.exit())
}

async fn check(settings: &Settings, findings: &mut Findings) {
    let saved = state(settings, findings).await;
    let tables = source(settings, &saved, findings).await;
    let target = target(settings, findings).await;
    let Some(mut catalog) = tables else { return };
    // Without a target the plan is made for a new server, so that what PostgreSQL's side lacks is shown anyway.
    let server = target.as_ref().map_or_else(|| ServerInfo { version: String::new() }, |(_, server)| server.clone());
    if let Some((milvus, server)) = &target {
        evolved(milvus.as_ref(), server, &saved, &mut catalog, findings).await;
    }
    match pipeline::make_plan(settings, &catalog, &server) {
        Ok(plan) => {
            judge::plan(&plan, findings);
            if let Some((milvus, _)) = target {
                collections(milvus.as_ref(), &plan, &saved, findings).await;
            }
        }
        Err(pipeline::RunError::Plan(refusals)) => judge::refusals(&refusals, findings),
        Err(error) => findings.error(super::run::exit(&error), "tables", error.to_string(), None),
    }
}

/// What is known of the state directory.
enum State {
    /// There is none yet.
    New,
    Known(Saved),
    /// A daemon works with it, or it cannot be read: not asked.
    Unknown,
}

impl State {
    fn knows(&self, table: &str) -> Option<bool> {
        match self {
            State::New => Some(false),
            State::Known(saved) => Some(saved.tables.contains_key(table)),
            State::Unknown => None,
        }
    }
}

async fn state(settings: &Settings, findings: &mut Findings) -> State {
    let path = &settings.state.path;
    let subject = format!("state {}", path.display());
    // Opening would create it.
    if !path.join("sled").exists() {
        match writable_ancestor(path) {
            Ok(()) => findings.info(&subject, "does not exist yet; it is created at the first start"),
            Err(ancestor) => {
                let sentence = format!("cannot be created: this user may not write to {}", ancestor.display());
                let mend = Some("create it and give it to the user that runs walvec".to_owned());
                findings.error(Exit::State, &subject, sentence, mend);
            }
        }
        return State::New;
    }
    match Store::open(path, &pipeline::identity(&settings.source)) {
        Ok((store, saved)) => {
            if let Err(error) = store.close().await {
                findings.warning(&subject, chain(&error), None);
            }
            State::Known(saved)
        }
        Err(StoreError::Held { holder, .. }) => {
            let sentence =
                format!("is in use by process {holder}: a daemon runs, so slot and positions are not compared");
            findings.info(&subject, sentence);
            State::Unknown
        }
        Err(error) => {
            findings.error(Exit::State, &subject, chain(&error), None);
            State::Unknown
        }
    }
}

/// May the nearest directory that exists be written to? `Err` names it.
fn writable_ancestor(path: &Path) -> Result<(), &Path> {
    let nearest = path.ancestors().find(|ancestor| ancestor.exists()).unwrap_or(Path::new("."));
    rustix::fs::access(nearest, rustix::fs::Access::WRITE_OK).map_err(|_| nearest)
}

/// Both kinds of connection, and everything on PostgreSQL's side. `None`: the tables are not known.
async fn source(settings: &Settings, saved: &State, findings: &mut Findings) -> Option<Catalog> {
    judge::transport(&settings.source, findings);
    let sql = match postgres::connect(&settings.source, "check").await {
        Ok(sql) => sql,
        Err(error) => {
            postgres_error("source", &error, findings);
            return None;
        }
    };
    replication(settings, saved, findings).await;
    match postgres::catalog::read_facts(&sql).await {
        Ok(facts) => judge::facts(&facts, &settings.source, findings),
        Err(error) => postgres_error("source", &error, findings),
    }
    match postgres::slot::read_idle_slots(&sql, &settings.source.slot, judge::IDLE_SLOT_BYTES).await {
        Ok(slots) => judge::idle_slots(&slots, findings),
        Err(error) => findings.warning("slots", chain(&error), None),
    }
    let patterns: Vec<String> = settings.tables.iter().map(|table| table.name.clone()).collect();
    let tables = match postgres::catalog::read_tables(&sql, &patterns).await {
        Ok(tables) => tables,
        Err(error) => {
            postgres_error("tables", &error, findings);
            return None;
        }
    };
    judge::patterns(&settings.tables, &tables, findings);
    let mut catalog: Catalog =
        tables.into_iter().map(|(pattern, table)| (table, settings.tables[pattern].clone())).collect();
    if !catalog.is_empty() {
        publication(settings, &sql, &mut catalog, findings).await;
    }
    Some(catalog)
}

/// The replication connection is another kind of log-in: other entries in pg_hba.conf, another privilege, no pooler.
async fn replication(settings: &Settings, saved: &State, findings: &mut Findings) {
    let start = match saved {
        State::Known(saved) => saved.source.map_or(crate::change::Lsn::ZERO, |source| source.checkpoint),
        State::New | State::Unknown => crate::change::Lsn::ZERO,
    };
    let asked = async {
        let format = postgres::StreamFormat::Binary; // nothing is streamed
        let mut session = postgres::stream::Session::open(&settings.source, start, format).await?;
        Ok::<_, PostgresError>((session.identify().await?, session.slot().await?))
    };
    let (identity, slot) = match asked.await {
        Ok(answers) => answers,
        Err(error) => return postgres_error("replication connection", &error, findings),
    };
    let saved = match saved {
        State::New => None,
        State::Known(saved) => saved.source.as_ref(),
        State::Unknown => {
            if let Some(slot) = &slot {
                judge::slot(slot, findings);
            }
            return;
        }
    };
    let saved = saved.map(|source| gate::Saved {
        system_identifier: source.system_identifier,
        timeline: source.timeline,
        checkpoint: source.checkpoint,
        sent_limit: source.sent_limit,
    });
    let verdict = gate::decide(saved.as_ref(), &identity, slot.as_ref());
    judge::verdict(&verdict, &settings.source, findings);
    if let Some(slot) = &slot {
        judge::slot(slot, findings);
    }
}

async fn publication(settings: &Settings, sql: &Connection, catalog: &mut Catalog, findings: &mut Findings) {
    let name = &settings.source.publication;
    let found = match pipeline::describe(&settings.source, sql, catalog).await {
        Ok(found) => found,
        Err(error) => return postgres_error("publication", &error, findings),
    };
    let wanted = pipeline::wanted(catalog, sql.version_num());
    match found {
        Some(publication) => {
            let problems = postgres::publication::problems(&publication, &wanted);
            judge::publication(&publication, &problems, settings.source.create, findings);
        }
        None => match may_create_publication(sql, &wanted).await {
            Ok(may) => {
                let statement = postgres::publication::create_statement(name, &wanted);
                judge::no_publication(name, settings.source.create, &may, statement, findings);
            }
            Err(error) => findings.warning("publication", chain(&error), None),
        },
    }
}

/// What the role lacks for CREATE PUBLICATION … FOR TABLE: CREATE on the database, and owning every table.
async fn may_create_publication(sql: &Connection, tables: &[Wanted]) -> Result<Vec<String>, tokio_postgres::Error> {
    let create = "SELECT pg_catalog.has_database_privilege(pg_catalog.current_database(), 'CREATE')";
    let mut lacks = Vec::new();
    if !sql.query_one(create, &[]).await?.try_get::<_, bool>(0)? {
        lacks.push("CREATE on the database".to_owned());
    }
    let oids: Vec<u32> = tables.iter().map(|table| table.oid).collect();
    let not_owned = "SELECT c.oid::regclass::text FROM pg_catalog.pg_class c \
                     WHERE c.oid = ANY ($1) AND NOT pg_catalog.pg_has_role(c.relowner, 'USAGE') ORDER BY 1";
    for row in sql.query(not_owned, &[&oids]).await? {
        lacks.push(format!("ownership of {}", row.try_get::<_, String>(0)?));
    }
    Ok(lacks)
}

async fn target(settings: &Settings, findings: &mut Findings) -> Option<(Arc<dyn Milvus>, ServerInfo)> {
    let milvus = match pipeline::connect_target(&settings.target) {
        Ok(milvus) => milvus,
        Err(error) => {
            findings.error(Exit::Configuration, "target", chain(&error), error.hint().map(str::to_owned));
            return None;
        }
    };
    match milvus.server_info().await {
        Ok(server) => {
            judge::server(&server, findings);
            Some((milvus, server))
        }
        Err(error) => {
            milvus_error("target", &error, findings);
            None
        }
    }
}

/// Columns that came since a table was copied go as its policy says.
async fn evolved(
    milvus: &dyn Milvus,
    server: &ServerInfo,
    saved: &State,
    catalog: &mut pipeline::Catalog,
    findings: &mut Findings,
) {
    for (table, settings) in catalog.iter_mut() {
        let name = table.qualified_name();
        if saved.knows(&name) != Some(true) {
            continue;
        }
        let Ok(plan) = plan::build(&[(table.clone(), settings.clone())], server) else { continue };
        let Some(collection) = plan.tables.first().map(|table| table.collection.name.clone()) else { continue };
        // What cannot be described is told below.
        let Ok(Some(existing)) = milvus.describe_collection(&collection).await else { continue };
        match evolve(table, settings, &existing, server) {
            Evolution::Fits(adapted) => {
                if adapted.exclude.len() > settings.exclude.len() {
                    let columns = adapted.exclude.get(settings.exclude.len()..).unwrap_or_default().join(", ");
                    findings.info(&format!("table {name}"), format!("columns {columns} are new and not followed"));
                }
                *settings = adapted;
            }
            Evolution::AddFields { settings: adapted, columns, .. } => {
                let names = columns.join(", ");
                findings
                    .info(&format!("table {name}"), format!("columns {names} are new and become fields at the start"));
                // The plan without them is the one that fits now.
                *settings = adapted;
                settings.exclude.extend(columns);
            }
            Evolution::Unfit(_) => {}
        }
    }
}

async fn collections(milvus: &dyn Milvus, plan: &Plan, state: &State, findings: &mut Findings) {
    for table in &plan.tables {
        let name = &table.collection.name;
        let subject = format!("collection {name}");
        match milvus.describe_collection(name).await {
            Ok(None) => findings.info(&subject, format!("is created for {}", table.qualified_name())),
            Ok(Some(existing)) => {
                let differences = plan::differences(table, &existing);
                let count = match (differences.is_empty(), state.knows(&table.qualified_name())) {
                    (true, Some(false)) => {
                        // One without an index cannot be counted, nor loaded yet.
                        milvus.count(name).await.unwrap_or_default()
                    }
                    _ => 0,
                };
                judge::collection(&subject, table, &differences, count, findings);
            }
            Err(error) => milvus_error(&subject, &error, findings),
        }
    }
}

fn postgres_error(subject: &str, error: &PostgresError, findings: &mut Findings) {
    let exit = match error.disposition() {
        Disposition::Transient => Exit::Temporary,
        Disposition::Definite => Exit::Source,
    };
    findings.error(exit, subject, chain(error), error.hint());
}

fn milvus_error(subject: &str, error: &MilvusError, findings: &mut Findings) {
    let exit = match error.class() {
        Class::Retry | Class::Throttle => Exit::Temporary,
        Class::Split | Class::Poison | Class::SchemaStale | Class::Fatal => Exit::Target,
    };
    findings.error(exit, subject, chain(error), error.hint().map(str::to_owned));
}

/// An error and its causes in one sentence.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        next = cause.source();
    }
    text
}

fn render_text(findings: &Findings) -> String {
    let mut out = String::new();
    let mut line = |text: std::fmt::Arguments<'_>| writeln!(out, "{text}").expect("a String takes every write");
    for level in [Level::Error, Level::Warning, Level::Info] {
        for finding in findings.0.iter().filter(|finding| finding.level == level) {
            let word = match level {
                Level::Error => "error  ",
                Level::Warning => "warning",
                Level::Info => "info   ",
            };
            line(format_args!("{word}  {}: {}", finding.subject, finding.sentence));
            if let Some(mend) = &finding.mend {
                line(format_args!("         mend: {mend}"));
            }
        }
    }
    let (errors, warnings) = (findings.count(Level::Error), findings.count(Level::Warning));
    line(format_args!("{errors} errors, {warnings} warnings"));
    out
}

fn render_json(findings: &Findings) -> String {
    let value = serde_json::json!({
        "errors": findings.count(Level::Error),
        "warnings": findings.count(Level::Warning),
        "findings": findings.0,
    });
    format!("{value:#}\n")
}
