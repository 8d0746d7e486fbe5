//! The start gate: may we go on from our checkpoint on this server's slot? Pure.
//!
//! In: what we saved, and who the server says it is, read on the very session that will stream. Out: one `Verdict`.
//!
//! Holds: refuses rather than guesses. PostgreSQL itself would not: START_REPLICATION beyond the server's WAL
//! succeeds and skips everything below it, and below the slot's confirmed position it silently starts at that
//! position. So these are compared first. Rule G: a server that was rolled back to before `sent_limit` may lack what the
//! target already has, even when it has everything up to the checkpoint.
//!
//! Not here: the list of tables (`publication`), retrying a `Wait` (the pipeline).

use std::fmt;

use super::slot::{Slot, WalStatus, drop_statement};
use crate::change::Lsn;

/// What the state directory says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Saved {
    pub system_identifier: u64,
    pub timeline: u32,
    /// Everything below is at the target; the stream starts here.
    pub checkpoint: Lsn,
    /// No effect beyond this can be at the target (T of rule G). Never beyond what the server had flushed.
    pub sent_limit: Lsn,
}

/// IDENTIFY_SYSTEM and TIMELINE_HISTORY.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub system_identifier: u64,
    pub timeline: u32,
    /// Everything below is durable at the server.
    pub flush_lsn: Lsn,
    pub database: String,
    pub in_recovery: bool,
    /// Earlier timelines, and where each was left for the next.
    pub history: Vec<TimelineSwitch>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimelineSwitch {
    pub timeline: u32,
    pub switch_lsn: Lsn,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing saved, no slot: the first start.
    CreateSlot,
    StartAt(Lsn),
    /// Not now: the sentence says what is waited for.
    Wait(String),
    Refuse(GateRefusal),
}

/// Why we do not start. `Display` says what happened, `way_out` what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GateRefusal {
    #[error("the server is a standby: walvec reads from the primary")]
    Standby,
    #[error("replication slot {slot:?} is not ours to use: {what}")]
    ForeignSlot { slot: String, what: String },
    #[error("replication slot {slot:?} exists, but the state directory knows nothing of it")]
    SlotWithoutState { slot: String },
    #[error("the replication slot is gone, and with it all changes since {checkpoint}")]
    SlotMissing { checkpoint: Lsn },
    #[error("replication slot {slot:?} is lost ({reason}), and with it the changes since {checkpoint}")]
    SlotLost { slot: String, reason: String, checkpoint: Lsn },
    #[error("the slot is at {confirmed}, beyond our checkpoint {checkpoint}: the changes between the two are gone")]
    SlotAhead { confirmed: Lsn, checkpoint: Lsn },
    #[error(
        "the server's WAL ends at {flush_lsn}, before {limit}, which the target may have: it was restored to an earlier time"
    )]
    ServerBehind { flush_lsn: Lsn, limit: Lsn },
    #[error("the server is another cluster: its system identifier is {found}, ours was {expected}")]
    OtherCluster { expected: u64, found: u64 },
    #[error("the server is on timeline {found}, which does not descend from ours, {expected}")]
    OtherTimeline { expected: u32, found: u32 },
    #[error(
        "timeline {timeline} ended at {switch_lsn}, before {limit}: the target may have changes that this server never had"
    )]
    Diverged { timeline: u32, switch_lsn: Lsn, limit: Lsn },
}

impl GateRefusal {
    /// The command or step that leads out, as one sentence.
    pub fn way_out(&self) -> String {
        let anew = "move state.path away, drop the slot if it is there, drop the collections (or name others), and run again: \
                    everything is copied anew";
        match self {
            GateRefusal::Standby => "Set source.url to the primary, or promote this server".to_owned(),
            GateRefusal::ForeignSlot { slot, .. } => {
                format!("Choose another name in source.slot, or drop the slot: {}", drop_statement(slot))
            }
            GateRefusal::SlotWithoutState { slot } => format!(
                "Point state.path to the directory that belongs to the slot; if that is lost, start anew: {anew}. {}",
                drop_statement(slot)
            ),
            GateRefusal::SlotLost { slot, .. } => format!("Start anew: {anew}. {}", drop_statement(slot)),
            GateRefusal::SlotAhead { .. } => format!(
                "Find out who else reads the slot (a second walvec, pg_replication_slot_advance) or whether state.path is \
                 a restored copy; then start anew: {anew}"
            ),
            GateRefusal::ServerBehind { .. }
            | GateRefusal::SlotMissing { .. }
            | GateRefusal::OtherTimeline { .. }
            | GateRefusal::Diverged { .. } => format!("Start anew: {anew}"),
            GateRefusal::OtherCluster { .. } => {
                format!("Check source.url; if the cluster was replaced on purpose, start anew: {anew}")
            }
        }
    }
}

/// The rules in the order in which they are asked: first whether this is our server, then whether it is our slot, then
/// who holds it, then whether the positions agree. A slot that another session holds is waited for before positions
/// are compared, as its holder moves them.
pub fn decide(saved: Option<&Saved>, identity: &Identity, slot: Option<&Slot>) -> Verdict {
    if identity.in_recovery {
        return match slot {
            Some(slot) if slot.synced => {
                Verdict::Wait(format!("slot {:?} is a copy on a standby: waiting for its promotion", slot.name))
            }
            _ => Verdict::Refuse(GateRefusal::Standby),
        };
    }
    if let Some(saved) = saved
        && saved.system_identifier != identity.system_identifier
    {
        let (expected, found) = (saved.system_identifier, identity.system_identifier);
        return Verdict::Refuse(GateRefusal::OtherCluster { expected, found });
    }
    let (saved, slot) = match (saved, slot) {
        (None, None) => return Verdict::CreateSlot,
        (None, Some(slot)) => {
            let refusal = match foreign(slot, identity) {
                Some(what) => GateRefusal::ForeignSlot { slot: slot.name.clone(), what },
                None => GateRefusal::SlotWithoutState { slot: slot.name.clone() },
            };
            return Verdict::Refuse(refusal);
        }
        (Some(saved), None) => {
            return Verdict::Refuse(GateRefusal::SlotMissing { checkpoint: saved.checkpoint });
        }
        (Some(saved), Some(slot)) => (saved, slot),
    };
    if let Some(what) = foreign(slot, identity) {
        return Verdict::Refuse(GateRefusal::ForeignSlot { slot: slot.name.clone(), what });
    }
    if let Some(pid) = slot.active_pid {
        return Verdict::Wait(Holder { slot, pid }.to_string());
    }
    match agreement(saved, identity, slot) {
        Ok(()) => Verdict::StartAt(saved.checkpoint),
        Err(refusal) => Verdict::Refuse(refusal),
    }
}

struct Holder<'a> {
    slot: &'a Slot,
    pid: i32,
}

impl fmt::Display for Holder<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "slot {:?} is held by pid {}", self.slot.name, self.pid)?;
        match &self.slot.active_application {
            Some(application) => write!(f, " ({application})"),
            None => Ok(()),
        }
    }
}

fn foreign(slot: &Slot, identity: &Identity) -> Option<String> {
    if slot.slot_type != "logical" {
        return Some(format!("it is a {} slot", slot.slot_type));
    }
    match slot.plugin.as_deref() {
        Some("pgoutput") => {}
        plugin => return Some(format!("its plugin is {}, not pgoutput", plugin.unwrap_or("unknown"))),
    }
    if slot.database.as_deref() != Some(identity.database.as_str()) {
        let database = slot.database.as_deref().unwrap_or("unknown");
        return Some(format!("it belongs to database {database:?}, not {:?}", identity.database));
    }
    if slot.temporary {
        return Some("it is temporary".to_owned());
    }
    if slot.two_phase {
        return Some("it decodes prepared transactions (two_phase)".to_owned());
    }
    None
}

/// Do the positions of server, slot and checkpoint agree?
fn agreement(saved: &Saved, identity: &Identity, slot: &Slot) -> Result<(), GateRefusal> {
    let checkpoint = saved.checkpoint;
    let lost = |reason: &str| GateRefusal::SlotLost { slot: slot.name.clone(), reason: reason.to_owned(), checkpoint };
    if let Some(reason) = &slot.invalidation_reason {
        return Err(lost(reason));
    }
    if slot.wal_status == Some(WalStatus::Lost) {
        return Err(lost("its WAL was removed"));
    }
    if slot.conflicting {
        return Err(lost("it conflicts with recovery"));
    }
    if identity.timeline != saved.timeline {
        let other = GateRefusal::OtherTimeline { expected: saved.timeline, found: identity.timeline };
        let switch = identity.history.iter().find(|switch| switch.timeline == saved.timeline).ok_or(other)?;
        let limit = checkpoint.max(saved.sent_limit);
        if limit > switch.switch_lsn {
            return Err(GateRefusal::Diverged { timeline: saved.timeline, switch_lsn: switch.switch_lsn, limit });
        }
    }
    // The sent limit is raised to what the stream has shown or a flush has covered, so a server that nothing happened
    // to is at least there.
    let limit = checkpoint.max(saved.sent_limit);
    if limit > identity.flush_lsn {
        return Err(GateRefusal::ServerBehind { flush_lsn: identity.flush_lsn, limit });
    }
    match slot.confirmed_flush_lsn {
        Some(confirmed) if confirmed > checkpoint => Err(GateRefusal::SlotAhead { confirmed, checkpoint }),
        Some(_) => Ok(()),
        None => Err(lost("it has no confirmed position")),
    }
}

/// The lines `timeline<TAB>switch<TAB>reason` of a history file; blank lines and comments are allowed.
pub fn parse_timeline_history(content: &str) -> Result<Vec<TimelineSwitch>, String> {
    let mut switches = Vec::new();
    for line in content.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let mut fields = line.split_whitespace();
        let switch = (|| {
            let timeline = fields.next()?.parse().ok()?;
            let switch_lsn = fields.next()?.parse().ok()?;
            Some(TimelineSwitch { timeline, switch_lsn })
        })();
        switches.push(switch.ok_or_else(|| format!("a line of the timeline history: {line:?}"))?);
    }
    Ok(switches)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn saved() -> Saved {
        Saved { system_identifier: 7, timeline: 2, checkpoint: Lsn(100), sent_limit: Lsn(120) }
    }

    fn identity() -> Identity {
        Identity {
            system_identifier: 7,
            timeline: 2,
            flush_lsn: Lsn(130),
            database: "app".to_owned(),
            in_recovery: false,
            history: vec![TimelineSwitch { timeline: 1, switch_lsn: Lsn(10) }],
        }
    }

    fn slot() -> Slot {
        Slot {
            name: "walvec".to_owned(),
            plugin: Some("pgoutput".to_owned()),
            slot_type: "logical".to_owned(),
            database: Some("app".to_owned()),
            wal_status: Some(WalStatus::Reserved),
            restart_lsn: Some(Lsn(80)),
            confirmed_flush_lsn: Some(Lsn(90)),
            ..Slot::default()
        }
    }

    /// The verdict when one thing differs from a healthy restart.
    fn with(change: impl FnOnce(&mut Saved, &mut Identity, &mut Slot)) -> Verdict {
        let (mut saved, mut identity, mut slot) = (saved(), identity(), slot());
        change(&mut saved, &mut identity, &mut slot);
        decide(Some(&saved), &identity, Some(&slot))
    }

    fn promoted(switch_lsn: u64) -> impl FnOnce(&mut Saved, &mut Identity, &mut Slot) {
        move |_, identity, _| {
            identity.timeline = 3;
            identity.flush_lsn = Lsn(500);
            identity.history.push(TimelineSwitch { timeline: 2, switch_lsn: Lsn(switch_lsn) });
        }
    }

    #[test]
    fn a_first_start_creates_and_a_healthy_restart_goes_on() {
        assert_eq!(decide(None, &identity(), None), Verdict::CreateSlot);
        let start = Verdict::StartAt(Lsn(100));
        assert_eq!(with(|_, _, _| {}), start);
        assert_eq!(with(|_, _, slot| slot.confirmed_flush_lsn = Some(Lsn(100))), start);
        assert_eq!(with(|saved, identity, _| identity.flush_lsn = saved.sent_limit), start);
        assert_eq!(with(|_, _, slot| slot.wal_status = Some(WalStatus::Unreserved)), start);
        assert_eq!(with(|saved, identity, _| saved.sent_limit = identity.flush_lsn), start);
    }

    #[test]
    fn every_disagreement_has_its_own_refusal() {
        type Change = Box<dyn FnOnce(&mut Saved, &mut Identity, &mut Slot)>;
        let lost = |reason: &str| GateRefusal::SlotLost {
            slot: "walvec".to_owned(),
            reason: reason.to_owned(),
            checkpoint: Lsn(100),
        };
        let foreign = |what: &str| GateRefusal::ForeignSlot { slot: "walvec".to_owned(), what: what.to_owned() };
        let cases: Vec<(Change, GateRefusal)> = vec![
            (Box::new(|_, identity, _| identity.in_recovery = true), GateRefusal::Standby),
            (
                Box::new(|_, identity, _| identity.system_identifier = 8),
                GateRefusal::OtherCluster { expected: 7, found: 8 },
            ),
            (Box::new(|_, _, slot| slot.slot_type = "physical".to_owned()), foreign("it is a physical slot")),
            (
                Box::new(|_, _, slot| slot.plugin = Some("wal2json".to_owned())),
                foreign("its plugin is wal2json, not pgoutput"),
            ),
            (
                Box::new(|_, _, slot| slot.database = Some("other".to_owned())),
                foreign("it belongs to database \"other\", not \"app\""),
            ),
            (Box::new(|_, _, slot| slot.temporary = true), foreign("it is temporary")),
            (Box::new(|_, _, slot| slot.two_phase = true), foreign("it decodes prepared transactions (two_phase)")),
            (Box::new(|_, _, slot| slot.invalidation_reason = Some("idle_timeout".to_owned())), lost("idle_timeout")),
            (Box::new(|_, _, slot| slot.wal_status = Some(WalStatus::Lost)), lost("its WAL was removed")),
            (Box::new(|_, _, slot| slot.conflicting = true), lost("it conflicts with recovery")),
            (Box::new(|_, _, slot| slot.confirmed_flush_lsn = None), lost("it has no confirmed position")),
            (
                Box::new(|_, _, slot| slot.confirmed_flush_lsn = Some(Lsn(101))),
                GateRefusal::SlotAhead { confirmed: Lsn(101), checkpoint: Lsn(100) },
            ),
            (
                Box::new(|_, identity, _| identity.flush_lsn = Lsn(99)),
                GateRefusal::ServerBehind { flush_lsn: Lsn(99), limit: Lsn(120) },
            ),
            (Box::new(|_, identity, _| identity.timeline = 1), GateRefusal::OtherTimeline { expected: 2, found: 1 }),
            (Box::new(promoted(99)), GateRefusal::Diverged { timeline: 2, switch_lsn: Lsn(99), limit: Lsn(120) }),
            // Rule G: the checkpoint survived the switch, but not all that may be at the target.
            (Box::new(promoted(110)), GateRefusal::Diverged { timeline: 2, switch_lsn: Lsn(110), limit: Lsn(120) }),
        ];
        for (change, refusal) in cases {
            assert!(!refusal.way_out().is_empty());
            assert_eq!(with(change), Verdict::Refuse(refusal));
        }
        let missing = decide(Some(&saved()), &identity(), None);
        assert_eq!(missing, Verdict::Refuse(GateRefusal::SlotMissing { checkpoint: Lsn(100) }));
        let orphan = decide(None, &identity(), Some(&slot()));
        assert_eq!(orphan, Verdict::Refuse(GateRefusal::SlotWithoutState { slot: "walvec".to_owned() }));
        let wrong = Slot { temporary: true, ..slot() };
        let orphan = decide(None, &identity(), Some(&wrong));
        assert_eq!(orphan, Verdict::Refuse(foreign("it is temporary")));
    }

    #[test]
    fn a_clean_promotion_goes_on() {
        assert_eq!(with(promoted(120)), Verdict::StartAt(Lsn(100)));
    }

    #[test]
    fn a_held_slot_and_a_synced_copy_are_waited_for() {
        let held = with(|_, _, slot| {
            slot.active_pid = Some(42);
            slot.active_application = Some("walvec".to_owned());
            slot.confirmed_flush_lsn = Some(Lsn(105));
        });
        assert_eq!(held, Verdict::Wait("slot \"walvec\" is held by pid 42 (walvec)".to_owned()));
        let copy = with(|_, identity, slot| {
            identity.in_recovery = true;
            slot.synced = true;
        });
        assert!(matches!(copy, Verdict::Wait(reason) if reason.contains("promotion")));
    }

    #[test]
    fn a_history_file_is_read_line_by_line() {
        let content = "1\t0/3000160\tno recovery target specified\n\n# a comment\n2\t16/B374D848\tbefore 2000-01-01\n";
        assert_eq!(
            parse_timeline_history(content),
            Ok(vec![
                TimelineSwitch { timeline: 1, switch_lsn: Lsn(0x300_0160) },
                TimelineSwitch { timeline: 2, switch_lsn: Lsn(0x16_B374_D848) },
            ])
        );
        assert!(parse_timeline_history("1\tnowhere\tx").is_err());
        assert!(parse_timeline_history("one\t0/1").is_err());
    }
}
