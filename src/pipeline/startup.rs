//! Start-up: everything that must be true before the stream may be started. The one recovery path: a process that was
//! killed, a stream that was lost and a first run all come through here.
//!
//! Order, each step because of the next: state opened → source reached and fit → plan → target reached →
//! publication (before the slot: a slot that is older than its publication can never decode) → start gate → slot →
//! collections → nothing clean any more on disk → stream → X and the server's position, taken after it (V, H).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::change::{Lsn, Oid, Skip, TableId};
use crate::checkpoint::{BlockRange, LeafState, SlotIntent, TableState};
use crate::config::settings::OnStop;
use crate::config::{Settings, Transport};
use crate::engine::{Engine, EngineSettings, Start, TableStart};
use crate::milvus::ServerInfo;
use crate::plan::{self, Plan, TablePlan};
use crate::postgres::gate::Verdict;
use crate::postgres::{self, Connection, PostgresError, StreamFormat};

use super::catalog::{self, Catalog};
use super::clock::Backoff;
use super::encode::Encoder;
use super::evolve::{self, Step, Steps};
use super::requests::{Collection, Target};
use super::session::Begin;
use super::source_watch::Shape;
use super::{Context, Process, RunError, collections, held};

/// A fetch whose snapshot did not see its change is tried again after this.
const FETCH_RETRY_MS: u64 = 5;

/// Bring everything to the point where a session can run.
pub(super) async fn begin(process: &mut Process) -> Result<(Arc<Context>, Begin), RunError> {
    let settings = Arc::clone(&process.settings);
    let sql = postgres::connect(&settings.source, "catalog").await?;
    check_source(process, &sql).await?;
    // Before the catalog: what committed up to here, the plan has seen.
    let planned_at = postgres::catalog::read_flush_lsn(&sql).await?;
    let mut catalog = catalog::read_tables(&settings, &sql, |name| process.tables.contains_key(name)).await?;
    let server = process.milvus.server_info().await.map_err(RunError::TargetUnreachable)?;
    process.status.send_modify(|status| status.target.version = server.version.clone());
    let steps = evolve::steps(process, &mut catalog, &server).await?;
    evolve::make_plan(process, &catalog, &server, &steps)?; // whatever it refuses is told before anything is made
    for (table, _) in &catalog {
        // Added again it would be published from then on: what happened in between would be missing for good.
        let name = table.qualified_name();
        let is_over = matches!(steps.get(&name), Some(Step::Stop(_) | Step::Resync(_)));
        if process.tables.contains_key(&name) && !table.published.exists && !is_over {
            return Err(RunError::LeftPublication { table: name, publication: settings.source.publication.clone() });
        }
    }
    let stops = |table: &postgres::catalog::Table| matches!(steps.get(&table.qualified_name()), Some(Step::Stop(_)));
    let followed: Catalog = catalog.iter().filter(|(table, _)| !stops(table)).cloned().collect();
    let wanted = catalog::wanted(&followed, sql.version_num());
    postgres::publication::ensure_publication(&sql, &settings.source, &wanted).await?;
    // From what is there now: conditions as PostgreSQL prints them.
    catalog::describe(&settings.source, &sql, &mut catalog).await?;
    let plan = Arc::new(evolve::make_plan(process, &catalog, &server, &steps)?);
    let keeps: Vec<bool> = catalog.iter().map(|(_, settings)| settings.keep_removed_partitions).collect();
    let tables: Vec<postgres::catalog::Table> = catalog.into_iter().map(|(table, _)| table).collect();

    let printed: Vec<String> = plan.columns_that_need_text().collect();
    let format = if printed.is_empty() { StreamFormat::Binary } else { StreamFormat::Text };
    if format == StreamFormat::Text {
        tracing::info!(
            columns = printed.join(", "),
            "the stream is asked for text: these can only be printed by PostgreSQL"
        );
    }
    let session = pass_gate(process, format).await?;

    for table in &plan.tables {
        let name = table.qualified_name();
        if let Some(step) = steps.get(&name) {
            evolve::carry_out(process, &name, step, planned_at).await?;
        }
        if let Some(Step::Stop(_)) = steps.get(&name) {
            continue;
        }
        let known = process.tables.contains_key(&name);
        collections::prepare(process.milvus.as_ref(), table, known).await?;
    }
    let (mut states, stopped) = plan_copy(process, &plan, &tables, &keeps, (&steps, planned_at), &sql).await?;
    process.noticed.clear();
    process.unfit.clear();
    process.store.start_sending().await?;

    let source = process.source.expect("the gate leaves a source");
    // Opened before the stream, so before any snapshot that it will speak for (W).
    let flush_probe = postgres::probe::Probe::connect(&settings.source).await?;
    let monitor_probe = postgres::probe::Probe::connect(&settings.source).await?;
    let followed = plan.tables.iter().zip(&tables).filter(|(_, table)| !stops(table));
    let mut stream = session
        .start(followed.map(|(plan, table)| tracked(plan, table, states.get(&plan.id))).collect(), planned_at)
        .await?;
    let slot = hold_gate(&monitor_probe, &settings.source.slot, source.checkpoint).await?;
    let visible_from = flush_probe.current_xid().await?;
    let held = held::take(process, &plan, &mut states, visible_from, &mut stream).await?;
    let_go_of_the_absent(process, &plan).await?;
    let server_lsn = flush_probe.insert_lsn().await?;
    tracing::info!(
        slot = %settings.source.slot, system_identifier = source.system_identifier, start_lsn = %source.checkpoint,
        %server_lsn, "stream started"
    );

    let now = process.clock.now();
    let starts = plan.tables.iter().map(|table| TableStart {
        columns: table.columns.len(),
        key_columns: table.key.columns().iter().fold(0, |mask, column| mask | 1 << column),
        reread_columns: mask(table.columns.iter().map(|column| column.reread)),
        copied: states.get(&table.id).is_some_and(|state| state.copied),
        sweep: states.get(&table.id).is_some_and(|state| state.sweep),
        letters_max: table.dead_letters_max,
    });
    let pipeline = &settings.pipeline;
    let mut engine = Engine::new(
        EngineSettings {
            lanes: pipeline.lanes,
            request_rows_max: pipeline.request_rows_max,
            request_bytes_max: match settings.target.transport {
                Transport::Grpc => pipeline.request_bytes_max,
                // Rows are counted as columns; as JSON they are about three times as large.
                Transport::Rest => pipeline.request_bytes_max / 3,
            },
            touched_bytes_max: pipeline.touched_bytes_max,
            memory_bytes: pipeline.memory_bytes,
            fetch_retry_ms: FETCH_RETRY_MS,
        },
        starts.collect(),
        Start {
            checkpoint: source.checkpoint,
            server_lsn,
            sent_limit: source.sent_limit,
            visible_from,
            quiet_until: process.quiet_until,
            now,
        },
    );
    for table in &plan.tables {
        engine.known_letters(table.id, process.letters.keys(&table.qualified_name()));
    }
    if process.quiet_until > now {
        tracing::info!(
            milliseconds = process.quiet_until - now,
            "requests of before may still be applied: nothing is sent until they cannot"
        );
    }
    process.metrics.lag.restart(source.checkpoint);
    process.metrics.lag.connected(true, std::time::Instant::now());
    let context = Arc::new(Context {
        target: Arc::new(target(process, &plan)),
        plan,
        settings,
        store: process.store.clone(),
        letters: Arc::clone(&process.letters),
        metrics: Arc::clone(&process.metrics),
        clock: process.clock,
    });
    let begin = Begin {
        engine,
        stream,
        tables: states,
        stopped,
        checkpoint: source.checkpoint,
        server_lsn,
        slot,
        flush_probe,
        monitor_probe,
        held,
        shape: Shape::of(&context.settings.source.publication, &tables),
    };
    Ok((context, begin))
}

fn mask(bits: impl Iterator<Item = bool>) -> u64 {
    bits.enumerate().fold(0, |mask, (i, set)| mask | u64::from(set) << i)
}

async fn check_source(process: &Process, sql: &Connection) -> Result<(), RunError> {
    let facts = postgres::catalog::read_facts(sql).await?;
    process.status.send_modify(|status| {
        status.source.server_version = facts.version.clone();
        status.source.system_identifier = facts.system_identifier.map(|identifier| identifier.to_string());
    });
    if facts.in_recovery {
        return Err(RunError::Standby);
    }
    if facts.wal_level != "logical" {
        return Err(RunError::WalLevel { found: facts.wal_level });
    }
    if facts.waits_for(&process.settings.source.application_name) {
        return Err(RunError::SynchronousStandby { names: facts.synchronous_standby_names });
    }
    Ok(())
}

/// The plan for these tables at this target.
pub(crate) fn make_plan(settings: &Settings, catalog: &Catalog, server: &ServerInfo) -> Result<Plan, RunError> {
    let mut plan = plan::build(catalog, server).map_err(RunError::Plan)?;
    if settings.target.is_zilliz_cloud() {
        plan::use_autoindex(&mut plan); // the only vector index that Zilliz Cloud makes
    }
    Ok(plan)
}

/// The start gate: go on only where the state on disk, the slot and the server agree.
async fn pass_gate(process: &mut Process, format: StreamFormat) -> Result<postgres::stream::Session, RunError> {
    let settings = Arc::clone(&process.settings);
    let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(15));
    loop {
        let start = process.source.as_ref().map_or(Lsn::ZERO, |source| source.checkpoint);
        let mut session = postgres::stream::Session::open(&settings.source, start, format).await?;
        let identity = session.identify().await?;
        let slot = session.slot().await?;
        if process.source.is_none() && process.intent.is_some() && slot.is_some() {
            // We were killed, or the answer was lost, between creating the slot and writing that down: nobody has read from it.
            drop(session);
            let sql = postgres::connect(&settings.source, "slot").await?;
            postgres::slot::drop_slot(&sql, &settings.source.slot).await?;
            process.forget_intent().await?;
            tracing::info!(slot = %settings.source.slot, "dropped the slot of an interrupted first start");
            continue;
        }
        let saved = process.source.as_ref().map(|source| postgres::gate::Saved {
            system_identifier: source.system_identifier,
            timeline: source.timeline,
            checkpoint: source.checkpoint,
            sent_limit: source.sent_limit,
        });
        match postgres::gate::decide(saved.as_ref(), &identity, slot.as_ref()) {
            Verdict::StartAt(_) => {
                process.store.adopt_source(identity.system_identifier, identity.timeline).await?;
                if let Some(source) = &mut process.source {
                    source.timeline = identity.timeline;
                }
                return Ok(session);
            }
            Verdict::CreateSlot if !settings.source.create => {
                return Err(RunError::NoSlot { slot: settings.source.slot.clone() });
            }
            Verdict::CreateSlot => {
                let an_earlier_attempt_may_have = process.intent.is_some();
                process.store.intend_slot(SlotIntent::Creating).await?;
                process.intent = Some(SlotIntent::Creating); // also for the next attempt, should the answer be lost
                super::crash::point("intended");
                let consistent_point = match session.create_slot().await {
                    Ok(consistent_point) => consistent_point,
                    Err(error) => {
                        // A slot of that name that is there later is then somebody else's.
                        if error.is_refusal() && !an_earlier_attempt_may_have {
                            process.forget_intent().await?;
                        }
                        return Err(error.into());
                    }
                };
                process.store.slot_created(identity.system_identifier, identity.timeline, consistent_point).await?;
                process.source = Some(crate::checkpoint::SavedSource {
                    system_identifier: identity.system_identifier,
                    timeline: identity.timeline,
                    checkpoint: consistent_point,
                    sent_limit: consistent_point,
                });
                process.intent = None;
                process.tables.clear();
                process.letters.clear_all();
                tracing::info!(slot = %settings.source.slot, %consistent_point, "slot created");
                return Ok(session);
            }
            Verdict::Wait(reason) => {
                process.state(crate::admin::State::WaitingForSlot);
                let wait = backoff.next();
                tracing::info!(%reason, seconds = wait.as_secs(), "standing by");
                tokio::time::sleep(wait).await;
            }
            Verdict::Refuse(refusal) => return Err(RunError::Gate(refusal)),
        }
    }
}

/// The gate is passed before the slot is ours, and loading collections may take minutes: did somebody move the slot in
/// between? PostgreSQL would have started there without a word. Now that we hold it, nobody else can.
async fn hold_gate(
    probe: &postgres::probe::Probe,
    slot: &str,
    checkpoint: Lsn,
) -> Result<Option<postgres::slot::Slot>, RunError> {
    let held = probe.slot(slot).await?;
    match held.as_ref().and_then(|slot| slot.confirmed_flush_lsn) {
        Some(confirmed) if confirmed > checkpoint => {
            Err(RunError::Gate(postgres::gate::GateRefusal::SlotAhead { confirmed, checkpoint }))
        }
        _ => Ok(held),
    }
}

/// Chunk lists for every table or partition that is not copied, as far as they are not on disk already; and the tables
/// that must stop at once, each with the reason.
async fn plan_copy(
    process: &mut Process,
    plan: &Plan,
    tables: &[postgres::catalog::Table],
    keeps_removed: &[bool],
    (steps, planned_at): (&Steps, Lsn),
    sql: &Connection,
) -> Result<(BTreeMap<TableId, TableState>, Vec<Stopped>), RunError> {
    let mut states = BTreeMap::new();
    let mut stopped = Vec::new();
    for ((table, found), keeps_removed) in plan.tables.iter().zip(tables).zip(keeps_removed) {
        let name = table.qualified_name();
        let key = table.key_names();
        let saved = process.tables.get(&name);
        if let (Some(Step::Stop(reason)), Some(saved)) = (steps.get(&name), saved) {
            let (stop, state) = stop_at_once(process, table, saved.clone(), reason.clone()).await?;
            stopped.push(stop);
            states.insert(table.id, state);
            continue;
        }
        if let Some(saved) = saved {
            compare(saved, table, &key)?;
        }
        let is_leaf = |oid: Oid| found.leaves.iter().any(|leaf| leaf.oid == oid);
        let removed = saved.map_or(0, |saved| saved.leaves.iter().filter(|leaf| !is_leaf(leaf.oid)).count());
        if let Some(saved) = saved.filter(|_| removed > 0 && !keeps_removed) {
            let reason = format!(
                "{removed} of its partitions were detached or dropped, and collection {:?} still has their rows: set \
                 `partition_removed = \"keep\"` to leave them there, or `walvec resync {name}` to remove them",
                saved.collection
            );
            let (stop, state) = stop_at_once(process, table, saved.clone(), reason).await?;
            stopped.push(stop);
            states.insert(table.id, state);
            continue;
        }
        let asked_anew = saved.is_some_and(TableState::is_asked_anew);
        if asked_anew {
            // Changes up to there will be skipped: a server that lost some of them would write others in their place (G).
            process.store.raise_sent_limit(planned_at).await?;
            if let Some(source) = &mut process.source {
                source.sent_limit = source.sent_limit.max(planned_at);
            }
            tracing::info!(table = %name, "the table is copied again over its collection, as was asked for");
        }
        let saved = process.tables.get(&name);
        let was_copied = saved.is_some_and(|saved| saved.copied);
        let mut leaves = Vec::with_capacity(found.leaves.len());
        let mut added = 0;
        for leaf in &found.leaves {
            let kept = saved.and_then(|saved| saved.leaves.iter().find(|kept| kept.oid == leaf.oid));
            if let Some(kept) = kept.filter(|_| was_copied) {
                leaves.push(kept.clone()); // a new file of it is nothing to us any more
                continue;
            }
            added += usize::from(saved.is_some() && kept.is_none());
            let fresh = plan_leaf(sql, leaf.oid, process.settings.pipeline.chunk_bytes).await?;
            let kept = kept.filter(|kept| kept.filenode == fresh.filenode);
            leaves.push(kept.cloned().unwrap_or(fresh));
        }
        if removed > 0 {
            tracing::warn!(table = %name, removed, "partitions were detached or dropped: their rows stay in the collection");
        }
        if added > 0 && !asked_anew {
            tracing::info!(table = %name, added, "partitions are new: their rows are copied");
        }
        let state = TableState {
            oid: table.oid,
            collection: table.collection.name.clone(),
            row_filter: table.row_filter.clone(),
            key,
            copied: was_copied && added == 0,
            sweep: saved.is_some_and(|saved| saved.sweep),
            skip: match steps.get(&name) {
                Some(Step::Resync(_)) => Skip { until: planned_at, snapshot: None },
                _ if asked_anew => Skip { until: planned_at, snapshot: None },
                _ => saved.map(|saved| saved.skip.clone()).unwrap_or_default(),
            },
            let_go: None,
            leaves,
        };
        if saved != Some(&state) {
            process.store.put_table(&name, state.clone()).await?;
            process.tables.insert(name, state.clone());
        }
        states.insert(table.id, state);
    }
    Ok((states, stopped))
}

/// Tables of the state that this session does not have: dropped or renamed, or taken out of the configuration. The slot goes on without
/// them, so should one come back, what happened to it meanwhile was not followed. Written when nothing can refuse this
/// session any more, and before a change is read.
async fn let_go_of_the_absent(process: &mut Process, plan: &Plan) -> Result<(), RunError> {
    let is_here = |name: &str| plan.tables.iter().any(|table| table.qualified_name() == name);
    let absent: Vec<String> = process.tables.keys().filter(|name| !is_here(name)).cloned().collect();
    for name in absent {
        let (schema, table) = name.split_once('.').unwrap_or_default();
        let is_wanted = process.settings.tables.iter().any(|settings| settings.matches(schema, table));
        let Some(state) = process.tables.get_mut(&name) else { continue };
        if is_wanted {
            tracing::warn!(
                table = %name, collection = %state.collection,
                "the table is gone, dropped or renamed: the others go on, and its collection stays as it is. Take it out of the configuration"
            );
        }
        if state.let_go.is_none() {
            let reason = match is_wanted {
                true => "it was dropped or renamed for a while",
                false => "it was not in the configuration for a while",
            };
            state.let_go = Some(let_go_sentence(&name, reason));
            let state = state.clone();
            process.store.put_table(&name, state).await?;
        }
    }
    Ok(())
}

/// A table that takes no change in this session.
pub(super) struct Stopped {
    pub(super) table: TableId,
    pub(super) reason: String,
    /// The WAL that it needs was let go: progress does not wait for it.
    pub(super) let_go: bool,
}

/// What a table that stops at once is told to the session as, and the state that it has then.
async fn stop_at_once(
    process: &mut Process,
    table: &TablePlan,
    mut state: TableState,
    reason: String,
) -> Result<(Stopped, TableState), RunError> {
    let name = table.qualified_name();
    if table.on_stop == OnStop::Release && state.let_go.is_none() {
        state.let_go = Some(let_go_sentence(&name, &reason));
        process.store.put_table(&name, state.clone()).await?;
        process.tables.insert(name, state.clone());
    }
    let let_go = state.let_go.is_some();
    let reason = state.let_go.clone().unwrap_or(reason);
    Ok((Stopped { table: table.id, reason, let_go }, state))
}

/// What the state and everybody is told of a table whose WAL is let go.
pub(super) fn let_go_sentence(name: &str, reason: &str) -> String {
    format!(
        "{reason}; what happened to it since was let go, so that the slot can go on: `walvec resync {name}` copies it again"
    )
}

/// Is the table still the one that the state is about?
fn compare(saved: &TableState, table: &TablePlan, key: &[String]) -> Result<(), RunError> {
    let name = table.qualified_name();
    if saved.collection != table.collection.name {
        let (before, now) = (saved.collection.clone(), table.collection.name.clone());
        return Err(RunError::CollectionChanged { table: name, before, now });
    }
    if saved.row_filter != table.row_filter && !saved.is_asked_anew() {
        let text = |filter: &Option<String>| filter.clone().unwrap_or_else(|| "none".to_owned());
        let (before, now) = (text(&saved.row_filter), text(&table.row_filter));
        return Err(RunError::FilterChanged { table: name, before, now });
    }
    if !saved.key.is_empty() && saved.key != key {
        let (before, now) = (saved.key.join(", "), key.join(", "));
        return Err(RunError::KeyChanged { table: name, before, now });
    }
    Ok(())
}

pub(super) async fn plan_leaf(sql: &Connection, leaf: Oid, chunk_bytes: u64) -> Result<LeafState, PostgresError> {
    let planned = postgres::copy::plan_ranges(sql, leaf, chunk_bytes).await?;
    let ranges: Vec<BlockRange> = planned
        .ranges
        .iter()
        .map(|range| BlockRange { from_block: range.from_block, to_block: range.to_block })
        .collect();
    Ok(LeafState { oid: leaf, filenode: planned.filenode, done: vec![false; ranges.len()], ranges })
}

/// For a leaf that was rewritten while it was copied.
pub(super) async fn plan_leaf_until_it_works(context: &Context, leaf: Oid) -> LeafState {
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(10));
    loop {
        let planned = async {
            let sql = postgres::connect(&context.settings.source, "copy plan").await?;
            plan_leaf(&sql, leaf, context.settings.pipeline.chunk_bytes).await
        };
        match planned.await {
            Ok(state) => return state,
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "a copy cannot be planned, trying again")
            }
        }
        tokio::time::sleep(backoff.next()).await;
    }
}

fn tracked(
    plan: &TablePlan,
    table: &postgres::catalog::Table,
    state: Option<&TableState>,
) -> postgres::relation::TrackedTable {
    let full = |identity: &postgres::catalog::ReplicaIdentity| *identity == postgres::catalog::ReplicaIdentity::Full;
    postgres::relation::TrackedTable {
        id: plan.id,
        oid: plan.oid,
        schema: plan.schema.clone(),
        name: plan.name.clone(),
        columns: plan
            .columns
            .iter()
            .map(|column| postgres::relation::TrackedColumn {
                name: column.name.clone(),
                type_oid: column.type_oid,
                typmod: column.typmod,
                reread: column.reread,
            })
            .collect(),
        others: table
            .columns
            .iter()
            .map(|column| &column.name)
            .filter(|name| !plan.columns.iter().any(|column| column.name == **name))
            .cloned()
            .collect(),
        skip: state.map(|state| state.skip.clone()).unwrap_or_default(),
        key: plan.key.columns().to_vec(),
        leaves: table
            .leaves
            .iter()
            .map(|leaf| postgres::relation::TrackedLeaf { oid: leaf.oid, full: full(&leaf.replica_identity) })
            .collect(),
    }
}

fn target(process: &Process, plan: &Plan) -> Target {
    let settings = &process.settings.target;
    Target {
        milvus: Arc::clone(&process.milvus),
        collections: plan
            .tables
            .iter()
            .map(|table| Collection {
                name: table.collection.name.clone(),
                primary_field: table.collection.fields[table.key.field()].name.clone(),
                encoder: Encoder::new(table),
                refused_to_letters: table.refused_to_letters,
                metrics: process.metrics.table(&table.qualified_name()),
            })
            .collect(),
        metrics: Arc::clone(&process.metrics),
        clock: process.clock,
        deadline: settings.request_deadline,
        margin: settings.late_margin,
        trouble: process.trouble.clone(),
        pace: Arc::clone(&process.pace),
        told_at: std::sync::atomic::AtomicU64::new(0),
    }
}
