//! What is made of the answers: facts in, findings out. No IO.

use crate::config::{SourceSettings, SslMode, TableSettings};
use crate::milvus::ServerInfo;
use crate::plan::{Plan, PlanRefusal, TablePlan};
use crate::postgres::catalog::{ServerFacts, Table};
use crate::postgres::gate::Verdict;
use crate::postgres::publication::{Publication, PublicationProblem};
use crate::postgres::slot::{Slot, WalStatus, drop_statement};

use super::super::Exit;
use super::Findings;

/// How the rows travel.
pub(super) fn transport(source: &SourceSettings, findings: &mut Findings) {
    let local = source.host.starts_with('/') || ["localhost", "127.0.0.1", "::1"].contains(&source.host.as_str());
    if local {
        return;
    }
    let weak = match source.sslmode {
        SslMode::Disable => "rows travel unencrypted",
        SslMode::Prefer => "rows travel unencrypted if the server has no TLS, and its certificate is not verified",
        SslMode::Require => "the server's certificate is not verified, so another server could take its place",
        SslMode::VerifyCa | SslMode::VerifyFull => return,
    };
    let mend = "source.sslmode = \"verify-full\", with source.sslrootcert where the provider has a CA of its own";
    findings.warning("source", weak, Some(mend.to_owned()));
}

pub(super) fn facts(facts: &ServerFacts, source: &SourceSettings, findings: &mut Findings) {
    let subject = "source";
    findings.info(subject, format!("PostgreSQL {}, role {:?}", facts.version, facts.role));
    if facts.version_num < 140_000 {
        findings.error(Exit::Source, subject, "is too old: 14 is the oldest that works", None);
    }
    if facts.in_recovery {
        let sentence = "is a standby: values that the stream leaves out are read from the primary";
        findings.error(Exit::Source, subject, sentence, Some("set source.url to the primary".to_owned()));
    }
    if facts.wal_level != "logical" {
        let mend = "ALTER SYSTEM SET wal_level = 'logical', then restart PostgreSQL (a managed service has a parameter for it)";
        let sentence = format!("wal_level is {:?}, replication needs 'logical'", facts.wal_level);
        findings.error(Exit::Source, subject, sentence, Some(mend.to_owned()));
    }
    if facts.waits_for(&source.application_name) {
        let sentence = format!(
            "synchronous_standby_names ({:?}) names walvec: commits would wait for walvec, which waits for commits",
            facts.synchronous_standby_names
        );
        let mend = format!(
            "take {:?} (or *) out of synchronous_standby_names, or set source.application_name",
            source.application_name
        );
        findings.error(Exit::Source, subject, sentence, Some(mend));
    }
    if source.failover && facts.version_num < 170_000 {
        findings.error(
            Exit::Source,
            subject,
            "has no failover slots, which came with 17",
            Some("source.failover = false".to_owned()),
        );
    }
    for (what, used, max, setting) in [
        ("replication slot", facts.replication_slots_used, facts.max_replication_slots, "max_replication_slots"),
        ("WAL sender", facts.wal_senders_used, facts.max_wal_senders, "max_wal_senders"),
    ] {
        if used >= max {
            let mend = format!(
                "ALTER SYSTEM SET {setting} = {}, then restart PostgreSQL; or end one that is not needed",
                max + 4
            );
            // Ours may be one of them: a slot that exists, a daemon that runs.
            findings.warning(subject, format!("every {what} is taken ({used} of {max})"), Some(mend));
        }
    }
    match facts.max_slot_wal_keep_size_mb {
        None => findings.warning(
            subject,
            "max_slot_wal_keep_size is unlimited: while walvec is down, the WAL kept for its slot can fill the disk",
            Some("ALTER SYSTEM SET max_slot_wal_keep_size = '50GB' (what the disk can spare), then SELECT pg_reload_conf()".to_owned()),
        ),
        Some(megabytes) => findings.info(
            subject,
            format!("max_slot_wal_keep_size is {megabytes} MB: a slot that lags further is lost, and everything is copied anew"),
        ),
    }
    if let Some(seconds) = facts.idle_replication_slot_timeout_s.filter(|seconds| *seconds > 0) {
        let sentence =
            format!("idle_replication_slot_timeout is {seconds} s: a walvec that is down for longer loses its slot");
        findings.warning(subject, sentence, None);
    }
}

pub(super) fn verdict(verdict: &Verdict, source: &SourceSettings, findings: &mut Findings) {
    let subject = format!("slot {:?}", source.slot);
    match verdict {
        Verdict::CreateSlot if source.create => {
            findings.info(&subject, "does not exist yet; it is created at the first start")
        }
        Verdict::CreateSlot => {
            let mend = "source.create = true: walvec must make the slot itself, to know where its copy begins";
            findings.error(Exit::Source, &subject, "does not exist, and source.create is false", Some(mend.to_owned()));
        }
        Verdict::StartAt(lsn) => findings.info(&subject, format!("fits the state: the stream starts at {lsn}")),
        Verdict::Wait(reason) => findings.warning(&subject, format!("{reason}; run would wait"), None),
        Verdict::Refuse(refusal) => {
            findings.error(Exit::Source, &subject, refusal.to_string(), Some(refusal.way_out()))
        }
    }
}

pub(super) fn slot(slot: &Slot, findings: &mut Findings) {
    let subject = format!("slot {:?}", slot.name);
    if slot.wal_status == Some(WalStatus::Unreserved) {
        let mend = "start walvec at once, or raise max_slot_wal_keep_size".to_owned();
        findings.warning(&subject, "is unreserved: the next checkpoint of PostgreSQL may end it", Some(mend));
    }
    if let Some(bytes) = slot.retained_bytes.filter(|bytes| *bytes > 1 << 30) {
        findings.warning(&subject, format!("PostgreSQL keeps {} MiB of WAL for it", bytes >> 20), None);
    }
    if let Some(standbys) = &slot.absent_standbys {
        let sentence = format!("is sent nothing before the standbys of {standbys} have it, and they are not connected");
        let mend = "bring them back, or take them out of synchronized_standby_slots (ALTER SYSTEM, then SELECT pg_reload_conf())";
        findings.warning(&subject, sentence, Some(mend.to_owned()));
    }
}

/// From so much WAL on a slot of anybody's is worth a word.
pub(super) const IDLE_SLOT_BYTES: u64 = 1 << 30;

/// Of a walvec that is no longer, most likely, or of another consumer: they fill the disk just as ours would.
pub(super) fn idle_slots(slots: &[Slot], findings: &mut Findings) {
    for slot in slots {
        let kept =
            slot.retained_bytes.map_or_else(String::new, |bytes| format!(" and keeps {} MiB of WAL", bytes >> 20));
        let sentence = format!("nobody reads it{kept}");
        let mend = format!("if nobody needs it any more: {}", drop_statement(&slot.name));
        findings.warning(&format!("slot {:?}", slot.name), sentence, Some(mend));
    }
}

/// A name that nothing matches: an error for one table, a warning for a pattern.
pub(super) fn patterns(settings: &[TableSettings], tables: &[(usize, Table)], findings: &mut Findings) {
    for (index, wanted) in settings.iter().enumerate() {
        if tables.iter().any(|(pattern, _)| *pattern == index) {
            continue;
        }
        let subject = format!("table {}", wanted.name);
        if wanted.is_pattern() {
            findings.warning(&subject, "matches no table that another [[table]] before it does not take", None);
        } else {
            let mend = "check the name (it is case-sensitive, without quotes) and GRANT USAGE ON SCHEMA".to_owned();
            findings.error(Exit::Tables, &subject, "does not exist, or this role may not see it", Some(mend));
        }
    }
    if tables.is_empty() {
        findings.error(Exit::Tables, "tables", "no table matches the configuration", None);
    }
}

pub(super) fn publication(
    publication: &Publication,
    problems: &[PublicationProblem],
    create: bool,
    findings: &mut Findings,
) {
    let subject = format!("publication {:?}", publication.name);
    if problems.is_empty() {
        findings.info(&subject, "publishes every table, whole and with every kind of change");
    }
    for problem in problems {
        if problem.missing_table && create && publication.owned {
            findings.info(&subject, format!("{}; it is added at the start", problem.sentence));
        } else {
            findings.error(Exit::Source, &subject, problem.sentence.clone(), Some(problem.mend.clone()));
        }
    }
}

pub(super) fn no_publication(name: &str, create: bool, lacks: &[String], statement: String, findings: &mut Findings) {
    let subject = format!("publication {name:?}");
    match (create, lacks) {
        (true, []) => findings.info(&subject, "does not exist yet; it is created at the start"),
        (true, lacks) => {
            let sentence = format!("does not exist, and this role cannot create it: it lacks {}", lacks.join(" and "));
            findings.error(Exit::Source, &subject, sentence, Some(format!("as a role that may: {statement}")));
        }
        (false, _) => {
            findings.error(Exit::Source, &subject, "does not exist, and source.create is false", Some(statement));
        }
    }
}

pub(super) fn server(server: &ServerInfo, findings: &mut Findings) {
    let version = if server.version.is_empty() { "of an unknown version" } else { server.version.as_str() };
    findings.info("target", format!("answers: Milvus {version}"));
    if !server.has_nullable() {
        findings.warning(
            "target",
            "has no nullable fields (they came with 2.5): a row with a NULL stops its table",
            None,
        );
    }
}

pub(super) fn refusals(refusals: &[PlanRefusal], findings: &mut Findings) {
    for refusal in refusals {
        let subject = match &refusal.column {
            Some(column) => format!("table {} column {column}", refusal.table),
            None => format!("table {}", refusal.table),
        };
        findings.error(Exit::Tables, &subject, refusal.reason.clone(), Some(refusal.remedy.clone()));
    }
}

pub(super) fn plan(plan: &Plan, findings: &mut Findings) {
    for table in &plan.tables {
        let subject = format!("table {}", table.qualified_name());
        findings.info(
            &subject,
            format!("becomes collection {} with {} fields", table.collection.name, table.collection.fields.len()),
        );
        for remark in &table.remarks {
            findings.info(&subject, remark.clone());
        }
    }
}

/// `count`: entities in a collection that this state has never written to.
pub(super) fn collection(
    subject: &str,
    table: &TablePlan,
    differences: &[String],
    count: u64,
    findings: &mut Findings,
) {
    let mend = Some("drop or rename the collection, or set another collection for the table".to_owned());
    if !differences.is_empty() {
        let sentence = format!("does not fit table {}: {}", table.qualified_name(), differences.join("; "));
        findings.error(Exit::Target, subject, sentence, mend);
    } else if count > 0 {
        let sentence = format!("holds {count} entities that walvec did not write: they would stay beside the rows");
        findings.error(Exit::Target, subject, sentence, mend);
    } else {
        findings.info(subject, format!("exists and fits table {}", table.qualified_name()));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::change::Lsn;
    use crate::postgres::gate::GateRefusal;

    use super::super::{Finding, Level};
    use super::*;

    fn settings() -> SourceSettings {
        SourceSettings {
            host: "localhost".into(),
            port: 5432,
            user: "u".into(),
            password: None,
            database: "app".into(),
            sslmode: SslMode::Prefer,
            sslrootcert: None,
            sslcert: None,
            sslkey: None,
            application_name: "walvec".into(),
            connect_timeout: Duration::from_secs(1),
            slot: "walvec".into(),
            publication: "walvec".into(),
            create: true,
            failover: false,
            slot_lock_timeout: Duration::from_secs(1),
            wal_sender_timeout: Duration::from_secs(1),
            heartbeat_interval: None,
        }
    }

    fn good_facts() -> ServerFacts {
        ServerFacts {
            version_num: 160_014,
            version: "16.14".into(),
            system_identifier: Some(1),
            timeline: Some(1),
            in_recovery: false,
            database: "app".into(),
            role: "u".into(),
            superuser: false,
            replication: true,
            wal_level: "logical".into(),
            max_slot_wal_keep_size_mb: Some(10_000),
            idle_replication_slot_timeout_s: None,
            synchronous_standby_names: String::new(),
            max_replication_slots: 10,
            replication_slots_used: 1,
            max_wal_senders: 10,
            wal_senders_used: 1,
            wal_sender_timeout_ms: 60_000,
        }
    }

    fn judged(judge: impl FnOnce(&mut Findings)) -> Vec<Finding> {
        let mut findings = Findings::default();
        judge(&mut findings);
        findings.0
    }

    /// The findings above info, as `level: sentence`.
    fn serious(found: &[Finding]) -> Vec<String> {
        let serious = found.iter().filter(|finding| finding.level != Level::Info);
        serious.map(|finding| format!("{:?}: {}", finding.level, finding.sentence)).collect()
    }

    #[test]
    fn a_server_as_it_should_be_gives_nothing_to_mend() {
        assert_eq!(serious(&judged(|findings| facts(&good_facts(), &settings(), findings))), [""; 0]);
    }

    #[test]
    fn each_fact_that_would_fail_later_is_found_and_has_a_way_out() {
        type Spoil = fn(&mut ServerFacts, &mut SourceSettings);
        let spoils: [(Spoil, &str); 9] = [
            (|facts, _| facts.version_num = 130_000, "Error: is too old"),
            (|facts, _| facts.in_recovery = true, "Error: is a standby"),
            (|facts, _| facts.wal_level = "replica".into(), "Error: wal_level is \"replica\""),
            (
                |facts, _| facts.synchronous_standby_names = "ANY 1 (walvec, b)".into(),
                "Error: synchronous_standby_names",
            ),
            (|_, source| source.failover = true, "Error: has no failover slots"),
            (|facts, _| facts.replication_slots_used = 10, "Warning: every replication slot is taken (10 of 10)"),
            (|facts, _| facts.wal_senders_used = 10, "Warning: every WAL sender is taken (10 of 10)"),
            (|facts, _| facts.max_slot_wal_keep_size_mb = None, "Warning: max_slot_wal_keep_size is unlimited"),
            (
                |facts, _| facts.idle_replication_slot_timeout_s = Some(60),
                "Warning: idle_replication_slot_timeout is 60 s",
            ),
        ];
        for (spoil, expected) in spoils {
            let (mut spoilt, mut source) = (good_facts(), settings());
            spoil(&mut spoilt, &mut source);
            let found = judged(|findings| facts(&spoilt, &source, findings));
            let found = serious(&found);
            assert!(matches!(&found[..], [only] if only.starts_with(expected)), "{expected}: {found:?}");
        }
    }

    #[test]
    fn a_remote_source_without_verification_is_warned_about() {
        let mut remote = SourceSettings { host: "db.internal".into(), ..settings() };
        for (mode, warned) in [
            (SslMode::Disable, 1),
            (SslMode::Prefer, 1),
            (SslMode::Require, 1),
            (SslMode::VerifyCa, 0),
            (SslMode::VerifyFull, 0),
        ] {
            remote.sslmode = mode;
            assert_eq!(judged(|findings| transport(&remote, findings)).len(), warned, "{mode:?}");
        }
        assert_eq!(judged(|findings| transport(&settings(), findings)).len(), 0);
    }

    #[test]
    fn the_gate_speaks_with_its_way_out() {
        let refusal = GateRefusal::SlotMissing { checkpoint: Lsn(16) };
        let found = judged(|findings| verdict(&Verdict::Refuse(refusal.clone()), &settings(), findings));
        assert_eq!(found[0].mend.as_deref(), Some(refusal.way_out().as_str()));
        assert_eq!((found[0].level, found[0].exit), (Level::Error, Exit::Source));
        let forbidden = SourceSettings { create: false, ..settings() };
        assert_eq!(judged(|findings| verdict(&Verdict::CreateSlot, &forbidden, findings))[0].level, Level::Error);
        assert_eq!(judged(|findings| verdict(&Verdict::CreateSlot, &settings(), findings))[0].level, Level::Info);
        assert_eq!(judged(|findings| verdict(&Verdict::StartAt(Lsn(1)), &settings(), findings))[0].level, Level::Info);
    }

    #[test]
    fn a_missing_publication_is_an_error_only_when_it_cannot_be_made() {
        let level = |create, lacks: &[&str]| {
            let lacks: Vec<String> = lacks.iter().map(|lack| (*lack).to_owned()).collect();
            let found = judged(|findings| no_publication("p", create, &lacks, "CREATE …".into(), findings));
            (found[0].level, found[0].mend.is_some())
        };
        assert_eq!(level(true, &[]), (Level::Info, false));
        assert_eq!(level(true, &["ownership of docs"]), (Level::Error, true));
        assert_eq!(level(false, &[]), (Level::Error, true));
    }

    #[test]
    fn the_exit_code_is_that_of_the_first_error_a_person_must_mend() {
        let mut findings = Findings::default();
        assert_eq!(findings.exit(), Exit::Ok);
        findings.warning("a", "b", None);
        assert_eq!(findings.exit(), Exit::Ok);
        findings.error(Exit::Temporary, "a", "b", None);
        assert_eq!(findings.exit(), Exit::Temporary);
        findings.error(Exit::Target, "a", "b", None);
        findings.error(Exit::Tables, "a", "b", None);
        assert_eq!(findings.exit(), Exit::Target);
    }
}
