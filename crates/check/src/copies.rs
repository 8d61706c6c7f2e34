//! Pipelines that make one record from each that they read: what was made from what, and whether it was once.

use std::collections::BTreeMap;

use crate::checker::{Answer, Checker, Sent};
use crate::txns::{Ended, Txns};
use crate::verdict::Kind;

/// What pipelines made.
#[derive(Debug, Default)]
pub(crate) struct Copies {
    /// Value of the record it was made from, and the send.
    made: Vec<(u64, u32)>,
    /// Up to where each partition was read, once a pipeline says so.
    ends: BTreeMap<i32, i64>,
}

impl Copies {
    pub fn add(&mut self, source: u64, send: u32) {
        self.made.push((source, send));
    }

    pub fn drained(&mut self, ends: &[(i32, i64)]) {
        for (partition, end) in ends {
            let known = self.ends.entry(*partition).or_insert(*end);
            *known = (*known).max(*end);
        }
    }

    /// What was made from a record; only when sorted.
    fn of(&self, source: u64) -> &[(u64, u32)] {
        let from = self.made.partition_point(|(other, _)| *other < source);
        let to = self.made.partition_point(|(other, _)| *other <= source);
        &self.made[from..to]
    }
}

/// Whether readers of committed records see a record, or must.
fn is_visible(txns: &Txns, sent: &Sent) -> bool {
    sent.seen || txns.is_safe(sent)
}

impl Checker {
    /// Holds what pipelines made against what they read.
    pub(crate) fn copies(&mut self) {
        self.copies.made.sort_unstable();
        let visible = |send: u32| is_visible(&self.txns, &self.sends[send as usize]);
        for made in self.copies.made.chunk_by(|a, b| a.0 == b.0) {
            let there = made.iter().filter(|(_, send)| visible(*send)).count();
            self.coverage.copies += there as u64;
            if there > 1 {
                self.findings.add(Kind::CopiedTwice, || {
                    let copies = made
                        .iter()
                        .filter(|(_, send)| visible(*send))
                        .map(|(_, send)| {
                            let sent = &self.sends[*send as usize];
                            format!("value {} at {}@{}", sent.value, sent.partition, sent.offset)
                        });
                    let copies: Vec<_> = copies.collect();
                    format!("value {} became {}", made[0].0, copies.join(", "))
                });
            }
        }
        for (partition, end) in &self.copies.ends {
            let Some(part) = self.parts.get(partition) else {
                continue;
            };
            let inputs = part.sends.iter().map(|send| &self.sends[*send as usize]);
            for input in inputs.filter(|sent| sent.seen && (0..*end).contains(&sent.offset)) {
                let made = self.copies.of(input.value);
                let there = made.iter().any(|(_, send)| visible(*send));
                if there || made.iter().any(|(_, send)| self.is_hidden(*send)) {
                    continue;
                }
                let (value, offset, tried) = (input.value, input.offset, made.len());
                self.findings.add(Kind::NotCopied, || {
                    format!(
                        "value {value} at {partition}@{offset}, below {end}, has no copy; {tried} \
                         attempts"
                    )
                });
            }
        }
    }

    /// Whether a send that nobody read may be there all the same: no read of everything came past it.
    fn is_hidden(&self, send: u32) -> bool {
        let sent = &self.sends[send as usize];
        let aborted = sent
            .txn
            .is_some_and(|txn| self.txns.all[txn as usize].ended == Ended::Aborted);
        let read = self
            .parts
            .get(&sent.partition)
            .is_some_and(|part| part.finals > 0);
        sent.answer != Answer::Failed && !aborted && !read
    }
}
