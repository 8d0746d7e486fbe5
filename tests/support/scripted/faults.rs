//! Rules: when, and what goes wrong. Deterministic: they count requests and look at keys, never at a clock.

use std::time::Duration;

use super::store::{Key, Refusal};
use super::{Failure, Operation};

/// Counted from the rule on, over requests of its operation.
#[derive(Clone, Debug)]
pub enum When {
    Always,
    /// The nth (from 1) and no other.
    Nth(u64),
    /// The next so many.
    Next(u64),
    /// Every nth.
    Every(u64),
    /// Each that has this key.
    Key(Key),
}

#[derive(Clone, Debug)]
pub enum Fault {
    /// Nothing is applied; this code and these words.
    Refuse(i32, &'static str),
    /// Nothing is applied; something between answers with this HTTP status.
    Gateway { status: u16, retry_after: Option<u64> },
    /// Nothing is applied; the connection breaks.
    ResetBefore,
    /// Applied; the connection breaks before the answer.
    ResetAfter,
    /// Applied; the answer never comes.
    Lost,
    /// Applied in one of two shards; this code and these words.
    Half(i32, &'static str),
    /// Answered with a timeout; applied when the test releases it.
    Late,
    /// Applied, after a while.
    Slow(Duration),
}

impl Fault {
    /// What the client gets of it.
    pub fn failure(self) -> Failure {
        match self {
            Fault::Refuse(code, reason) | Fault::Half(code, reason) => {
                Failure::Refused(Refusal { code, reason: reason.to_owned() })
            }
            Fault::Gateway { status, retry_after } => Failure::Gateway { status, retry_after },
            Fault::ResetBefore | Fault::ResetAfter => Failure::Reset,
            Fault::Late => Failure::Refused(Refusal { code: 10001, reason: "timeout".to_owned() }),
            Fault::Lost | Fault::Slow(_) => Failure::Hang,
        }
    }
}

#[derive(Debug)]
struct Rule {
    operation: Operation,
    when: When,
    fault: Fault,
    seen: u64,
}

#[derive(Debug, Default)]
pub struct Faults(Vec<Rule>);

impl Faults {
    pub fn add(&mut self, operation: Operation, when: When, fault: Fault) {
        self.0.push(Rule { operation, when, fault, seen: 0 });
    }

    /// A request comes: the fault of the first rule that matches.
    pub fn strike(&mut self, operation: Operation, keys: &[Key]) -> Option<Fault> {
        let mut struck = None;
        for rule in self.0.iter_mut().filter(|rule| rule.operation == operation) {
            rule.seen += 1;
            let matches = match &rule.when {
                When::Always => true,
                When::Nth(n) => rule.seen == *n,
                When::Next(n) => rule.seen <= *n,
                When::Every(n) => rule.seen.is_multiple_of(*n),
                When::Key(key) => keys.contains(key),
            };
            if matches && struck.is_none() {
                struck = Some(rule.fault.clone());
            }
        }
        struck
    }
}

#[test]
fn rules_count_their_own_requests() {
    let mut faults = Faults::default();
    faults.add(Operation::Upsert, When::Nth(2), Fault::Lost);
    faults.add(Operation::Upsert, When::Key(Key::Int(7)), Fault::Late);
    faults.add(Operation::Delete, When::Every(2), Fault::ResetBefore);
    let mut strike = |operation, key| faults.strike(operation, &[Key::Int(key)]);
    assert!(strike(Operation::Upsert, 1).is_none());
    assert!(strike(Operation::Delete, 1).is_none());
    assert!(matches!(strike(Operation::Upsert, 7), Some(Fault::Lost)), "the first rule counts");
    assert!(matches!(strike(Operation::Upsert, 7), Some(Fault::Late)));
    assert!(matches!(strike(Operation::Delete, 1), Some(Fault::ResetBefore)));
    assert!(strike(Operation::Query, 7).is_none());
}
