//! The ledger: which transactions are done, though their changes finish out of order.
//!
//! In: begins, commits and keepalives as they are dispatched; holds and releases of single transactions. Out:
//! `progress`, the highest position below which no transaction is held.
//!
//! Holds: progress never goes back and is always a commit's end or a keepalive's position: an LSN inside a
//! transaction is no place to start again from. A transaction that only merged into older pending entries is not held
//! itself; the older ones keep progress below both. Once something is held for good, what begins behind it is not kept:
//! a table that stopped may stay so for weeks.

use std::collections::VecDeque;

use crate::change::Lsn;

/// A transaction's place in the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Seq(u64);

/// Of transactions behind one that is held for good.
const BEYOND: Seq = Seq(u64::MAX);

struct Transaction {
    /// `None` while it is open.
    end_lsn: Option<Lsn>,
    holds: u32,
}

pub(super) struct Ledger {
    transactions: VecDeque<Transaction>,
    /// `Seq` of the first of them.
    first: u64,
    progress: Lsn,
    /// The last of them, or an earlier one, is held for good.
    held_for_good: bool,
}

impl Ledger {
    pub(super) fn new(checkpoint: Lsn) -> Ledger {
        Ledger { transactions: VecDeque::new(), first: 0, progress: checkpoint, held_for_good: false }
    }

    pub(super) fn progress(&self) -> Lsn {
        self.progress
    }

    pub(super) fn begin(&mut self) -> Seq {
        if self.held_for_good {
            return BEYOND;
        }
        self.transactions.push_back(Transaction { end_lsn: None, holds: 0 });
        Seq(self.first + self.transactions.len() as u64 - 1)
    }

    pub(super) fn commit(&mut self, seq: Seq, end_lsn: Lsn) {
        if seq != BEYOND {
            self.transaction(seq).end_lsn = Some(end_lsn);
            self.advance();
        }
    }

    /// Everything up to here has been dispatched, and nothing of it is ours beyond what is in the ledger.
    pub(super) fn keepalive(&mut self, wal_end: Lsn) {
        if self.held_for_good {
            return;
        }
        match self.transactions.back_mut() {
            None => self.progress = self.progress.max(wal_end),
            Some(last) => last.end_lsn = last.end_lsn.map(|end| end.max(wal_end)),
        }
    }

    /// One more thing must be done before this transaction is.
    pub(super) fn hold(&mut self, seq: Seq) {
        if seq != BEYOND {
            self.transaction(seq).holds += 1;
        }
    }

    pub(super) fn release(&mut self, seq: Seq) {
        if seq == BEYOND {
            return;
        }
        let transaction = self.transaction(seq);
        assert!(transaction.holds > 0, "a transaction is released as often as it is held");
        transaction.holds -= 1;
        self.advance();
    }

    /// For good: progress will not pass the open transaction, or the point reached if there is none.
    pub(super) fn hold_from_here(&mut self, open: Option<Seq>) {
        match open {
            Some(seq) => self.hold(seq),
            None => self.transactions.push_back(Transaction { end_lsn: Some(Lsn::ZERO), holds: 1 }),
        }
        self.held_for_good = true;
    }

    fn transaction(&mut self, seq: Seq) -> &mut Transaction {
        let index = seq.0.checked_sub(self.first).expect("a held transaction is still in the ledger");
        self.transactions.get_mut(index as usize).expect("a transaction is begun before it is used")
    }

    fn advance(&mut self) {
        while let Some(Transaction { end_lsn: Some(end_lsn), holds: 0 }) = self.transactions.front() {
            self.progress = self.progress.max(*end_lsn);
            self.transactions.pop_front();
            self.first += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_stops_below_the_oldest_held_transaction() {
        let mut ledger = Ledger::new(Lsn(10));
        let (a, b) = (ledger.begin(), {
            ledger.hold(Seq(0));
            ledger.commit(Seq(0), Lsn(20));
            ledger.begin()
        });
        ledger.hold(b);
        ledger.commit(b, Lsn(30));
        ledger.keepalive(Lsn(35));
        ledger.release(b);
        assert_eq!(ledger.progress(), Lsn(10));
        ledger.release(a);
        assert_eq!(ledger.progress(), Lsn(35));
        ledger.keepalive(Lsn(40));
        assert_eq!(ledger.progress(), Lsn(40));
        ledger.keepalive(Lsn(39));
        assert_eq!(ledger.progress(), Lsn(40));
    }

    #[test]
    fn an_open_transaction_is_not_passed_though_nothing_of_it_is_held() {
        let mut ledger = Ledger::new(Lsn(10));
        let a = ledger.begin();
        ledger.hold(a);
        ledger.release(a);
        assert_eq!(ledger.progress(), Lsn(10));
        ledger.commit(a, Lsn(20));
        assert_eq!(ledger.progress(), Lsn(20));
    }

    #[test]
    fn held_from_here_is_held_for_good() {
        let mut ledger = Ledger::new(Lsn(10));
        ledger.keepalive(Lsn(12));
        ledger.hold_from_here(None);
        let a = ledger.begin();
        ledger.commit(a, Lsn(20));
        ledger.keepalive(Lsn(25));
        assert_eq!(ledger.progress(), Lsn(12));
    }

    #[test]
    fn what_begins_behind_it_takes_no_memory() {
        let mut ledger = Ledger::new(Lsn(10));
        let before = ledger.begin();
        ledger.hold(before);
        ledger.commit(before, Lsn(20));
        let stopped = ledger.begin();
        ledger.hold_from_here(Some(stopped));
        for lsn in 30..10_000 {
            let seq = ledger.begin();
            ledger.hold(seq);
            ledger.commit(seq, Lsn(lsn));
            ledger.release(seq);
        }
        assert_eq!(ledger.transactions.len(), 2);
        ledger.hold_from_here(None);
        ledger.commit(stopped, Lsn(25));
        ledger.release(before);
        assert_eq!(ledger.progress(), Lsn(20), "what was before still counts");
    }
}
