//! Transactions: what belongs to each, how it ended as far as anybody was told, and who read from whom.
//!
//! A transaction is decided once. What was told first counts; another word on it is an anomaly of its own.

use std::collections::HashMap;

use crate::checker::{Answer, Checker, Sent};
use crate::verdict::{Findings, Kind};

/// Transactions that are named in a finding of a circle.
const NAMED: usize = 8;

/// How a transaction ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// Nobody was told.
    Open,
    Committed,
    Aborted,
}

#[derive(Debug)]
pub(crate) struct Txn {
    pub number: u64,
    /// Somebody has called for its commit.
    pub commit_called: bool,
    pub ended: Ended,
    /// Its sends, in their order.
    pub sends: Vec<u32>,
}

/// Every transaction of a history.
#[derive(Debug, Default)]
pub(crate) struct Txns {
    pub all: Vec<Txn>,
    by_number: HashMap<u64, u32>,
    /// Who wrote and who read, both transactions.
    reads: Vec<(u32, u32)>,
}

impl Txns {
    /// The place of a transaction; the first mention makes one. `None`: there are too many.
    pub fn at(&mut self, number: u64) -> Option<u32> {
        if let Some(found) = self.by_number.get(&number) {
            return Some(*found);
        }
        let at = u32::try_from(self.all.len()).ok()?;
        self.by_number.insert(number, at);
        self.all.push(Txn {
            number,
            commit_called: false,
            ended: Ended::Open,
            sends: Vec::new(),
        });
        Some(at)
    }

    fn of(&self, sent: &Sent) -> Option<&Txn> {
        sent.txn.and_then(|txn| self.all.get(txn as usize))
    }

    /// Whether a send must never be lost: every replica in sync has it, and its transaction was told committed.
    pub fn is_safe(&self, sent: &Sent) -> bool {
        let committed = self
            .of(sent)
            .is_none_or(|txn| txn.ended == Ended::Committed);
        sent.answer == Answer::Ok && sent.acks == crate::Acks::All && committed
    }

    /// Whether readers of committed records must be given a record that is in the log, once they come past it: by
    /// then its transaction was decided.
    pub fn is_due(&self, sent: &Sent) -> bool {
        match self.of(sent).map(|txn| txn.ended) {
            None | Some(Ended::Committed) => true,
            Some(Ended::Aborted) => false,
            Some(Ended::Open) => sent.seen,
        }
    }

    /// Notes that a transaction read a record of another.
    fn read(&mut self, writer: u32, reader: u32) {
        // Its own records are none of another's: whoever sees them saw them too early.
        if writer != reader && self.reads.last() != Some(&(writer, reader)) {
            self.reads.push((writer, reader));
        }
    }

    fn circles(&mut self, findings: &mut Findings) {
        self.reads.sort_unstable();
        self.reads.dedup();
        for circle in crate::graph::circles(self.all.len(), &self.reads) {
            findings.add(Kind::G1c, || {
                let named = circle.iter().take(NAMED);
                let named: Vec<u64> = named.map(|at| self.all[*at as usize].number).collect();
                let count = circle.len();
                format!("{count} transactions, each of which read from another one: {named:?}")
            });
        }
    }
}

impl Checker {
    /// Somebody calls for the end of a transaction; its place.
    pub(crate) fn end_called(&mut self, line: u64, number: u64, commit: bool) -> Option<u32> {
        let at = self.txn(line, number)?;
        self.txns.all[at as usize].commit_called |= commit;
        Some(at)
    }

    pub(crate) fn txn(&mut self, line: u64, number: u64) -> Option<u32> {
        let at = self.txns.at(number);
        if at.is_none() {
            self.broken
                .push(format!("line {line}: too many transactions"));
        }
        at
    }

    /// The end of a transaction was answered.
    pub(crate) fn ended(&mut self, line: u64, at: u32, commit: bool, answer: Answer) {
        let ended = match (commit, answer) {
            (true, Answer::Ok) => Ended::Committed,
            (true, Answer::Failed) | (false, Answer::Ok) => Ended::Aborted,
            // An abort that was refused may have been too late for either.
            _ => return,
        };
        let txn = &mut self.txns.all[at as usize];
        let number = txn.number;
        if txn.ended != Ended::Open {
            if txn.ended != ended {
                let before = txn.ended;
                self.findings.add(Kind::TwoOutcomes, || {
                    format!("line {line}: transaction {number}: {ended:?}, and before {before:?}")
                });
            }
            return;
        }
        txn.ended = ended;
        if ended == Ended::Aborted {
            for send in &txn.sends {
                let sent = &self.sends[*send as usize];
                if sent.seen {
                    let (value, partition) = (sent.value, sent.partition);
                    self.findings.add(Kind::AbortedRead, || {
                        format!(
                            "line {line}: transaction {number} was aborted after its value {value} of \
                             partition {partition} was read"
                        )
                    });
                }
            }
        }
    }

    /// A reader of committed records, perhaps in a transaction, was given a record of a transaction.
    pub(crate) fn seen_of_txn(
        &mut self,
        line: u64,
        (process, reader): (u32, Option<u32>),
        send: u32,
        offset: i64,
    ) {
        let sent = &self.sends[send as usize];
        let Some(at) = sent.txn else { return };
        let (value, partition) = (sent.value, sent.partition);
        let txn = &self.txns.all[at as usize];
        let number = txn.number;
        let kind = match txn.ended {
            Ended::Aborted => Some((Kind::AbortedRead, "that was aborted")),
            _ if !txn.commit_called => {
                Some((Kind::PrecommittedRead, "that no client had committed"))
            }
            _ => None,
        };
        if let Some((kind, why)) = kind {
            self.findings.add(kind, || {
                format!(
                    "line {line}: process {process} read value {value} at {partition}@{offset}, of \
                     transaction {number}, {why}"
                )
            });
        }
        if let Some(reader) = reader {
            self.txns.read(at, reader);
        }
    }

    /// What can be said of transactions only at the end, after the reads of everything were compared.
    pub(crate) fn transactions(&mut self) {
        self.coverage.txns = self.txns.all.len() as u64;
        for txn in &self.txns.all {
            let sends = || txn.sends.iter().map(|send| &self.sends[*send as usize]);
            match txn.ended {
                Ended::Committed => self.coverage.txns_committed += 1,
                Ended::Aborted => self.coverage.txns_aborted += 1,
                Ended::Open if !txn.commit_called => {}
                Ended::Open => {
                    self.coverage.txns_unknown += 1;
                    let seen = sends().find(|sent| sent.seen);
                    self.coverage.txns_unknown_seen += u64::from(seen.is_some());
                    let there = sends().find(|sent| sent.seen && !sent.absent);
                    let absent = sends().find(|sent| sent.absent && !sent.seen);
                    if let (Some(there), Some(absent)) = (there, absent) {
                        let number = txn.number;
                        self.findings.add(Kind::TornTransaction, || {
                            format!(
                                "transaction {number}: value {} at {}@{} was read, value {} at {}@{} was not",
                                there.value,
                                there.partition,
                                there.offset,
                                absent.value,
                                absent.partition,
                                absent.offset
                            )
                        });
                    }
                }
            }
        }
        self.txns.circles(&mut self.findings);
        self.stuck();
    }

    /// Where no read of everything came to its end, and the next thing known to be in the log is a transaction's.
    fn stuck(&mut self) {
        for (partition, part) in &self.parts {
            if part.finals > 0 || part.finals_incomplete == 0 {
                continue;
            }
            let from = part.reached.max(0).cast_unsigned();
            let Some((offset, slot)) = part.slots.first_in(from, u64::MAX, |_| true) else {
                continue;
            };
            let Some(sent) = slot.send().map(|send| &self.sends[send as usize]) else {
                continue;
            };
            if let Some(txn) = self.txns.of(sent).filter(|_| !sent.seen) {
                let (number, ended) = (txn.number, txn.ended);
                self.findings.add(Kind::StuckTransaction, || {
                    format!(
                        "partition {partition}: read up to {from}; at {offset} is a record of \
                         transaction {number}, {ended:?} as far as any client knows"
                    )
                });
            }
        }
    }
}
