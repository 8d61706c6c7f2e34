//! What can be found only at the end, or at the end of a read of everything: what is missing, and what is out of
//! order.

use std::collections::HashMap;

use crate::checker::{Answer, Checker, Compared, Pending, Required};
use crate::history::Acks;
use crate::verdict::{Kind, Outcome, Verdict};

impl Checker {
    /// Holds a read of everything against what was acknowledged and read before it. It came past all of that, so
    /// every transaction there was decided: whether it was told before or after the read makes no difference.
    fn compare(&mut self, compared: &Compared) {
        let Compared {
            process,
            partition,
            end,
            whole,
        } = compared;
        let Some(part) = self.parts.get(partition) else {
            return;
        };
        // Gaps are in order unless the read went back, which is an anomaly of its own.
        let mut gaps = whole.gaps.clone();
        gaps.sort_unstable();
        let missing = |offset: i64| {
            let before = gaps.partition_point(|(from, _)| *from <= offset);
            before > 0 && gaps[before - 1].1 > offset
        };
        // Below the bound, it was committed before the read began.
        let bound = u64::try_from(whole.bound).unwrap_or(0);
        let known = part.slots.iter().take_while(|(offset, _)| *offset < bound);
        for (offset, slot) in known {
            let (Ok(at), Some(send)) = (i64::try_from(offset), slot.send()) else {
                continue;
            };
            if !missing(at) {
                continue;
            }
            let sent = &mut self.sends[send as usize];
            let value = sent.value;
            sent.absent = true;
            if !self.txns.is_due(sent) {
                continue;
            }
            let (kind, what) = if self.txns.is_safe(sent) {
                (Kind::LostAcked, "acknowledged")
            } else {
                (Kind::VanishedRead, "read before")
            };
            self.findings.add(kind, || {
                format!(
                    "value {value}, {what} at {partition}@{offset}, was not read by process {process}, which \
                     read up to {end}"
                )
            });
        }
        for send in &part.sends {
            let sent = &self.sends[*send as usize];
            let (value, offset) = (sent.value, sent.offset);
            let replaced = self.txns.is_safe(sent) && !sent.read && !missing(offset);
            if replaced && offset < whole.bound {
                self.findings.add(Kind::LostAcked, || {
                    format!(
                        "value {value}, acknowledged at {partition}@{offset}, was not read by \
                         process {process}, which found another value there"
                    )
                });
            }
        }
    }

    /// Calls without answer are unknown; a read of everything without answer did not come to its end.
    fn close(&mut self) {
        let open: Vec<_> = std::mem::take(&mut self.pending).into_values().collect();
        for pending in open {
            if let Pending::Final(process, partition) = pending {
                self.coverage.final_reads_incomplete += 1;
                let reached = self.position(process, partition);
                let part = self.parts.entry(partition).or_default();
                part.finals_incomplete += 1;
                part.reached = part.reached.max(reached);
            }
        }
        for sent in &mut self.sends {
            if matches!(sent.answer, Answer::Open | Answer::Unknown) {
                sent.answer = Answer::Unknown;
                self.coverage.sends_unknown += 1;
                self.coverage.sends_unknown_seen += u64::from(sent.read);
            }
        }
    }

    /// What polls passed over although something was there.
    fn skips(&mut self) {
        for gap in &self.gaps {
            let Some(part) = self.parts.get(&gap.partition) else {
                continue;
            };
            let (from, to) = (
                gap.from.max(0).cast_unsigned(),
                gap.to.max(0).cast_unsigned(),
            );
            // Whoever is given committed records alone comes past aborted ones, and past what nobody ever saw.
            let counts =
                |send: u32| gap.uncommitted || self.txns.is_due(&self.sends[send as usize]);
            let Some((offset, slot)) = part.slots.first_in(from, to, counts) else {
                continue;
            };
            let kind = if gap.inside {
                Kind::IntPollSkip
            } else {
                Kind::PollSkip
            };
            let value = slot.send().map(|send| self.sends[send as usize].value);
            self.findings.add(kind, || {
                format!(
                    "line {}: process {} moved from {} to {} in partition {} and did not get \
                     {offset}, value {value:?}",
                    gap.line, gap.process, gap.from, gap.to, gap.partition
                )
            });
        }
    }

    fn order(&mut self) {
        let mut last: HashMap<(u32, i32), (i64, u64)> = HashMap::new();
        for sent in &self.sends {
            let (value, partition, offset) = (sent.value, sent.partition, sent.offset);
            if offset < 0 {
                continue;
            }
            if offset < sent.floor {
                let floor = sent.floor;
                self.findings.add(Kind::RealTimeOrder, || {
                    format!(
                        "value {value} is at {partition}@{offset}; everything below {floor} was known when it \
                         was sent"
                    )
                });
            }
            if !sent.idempotent {
                continue;
            }
            let before = last.insert((sent.session, partition), (offset, value));
            if let Some((at, earlier)) = before
                && at > offset
            {
                let session = sent.session;
                self.findings.add(Kind::NonmonotonicSend, || {
                    format!(
                        "session {session} sent {earlier} and then {value}, which are at {partition}@{at} and \
                         {partition}@{offset}"
                    )
                });
            }
        }
    }

    fn epochs(&mut self) {
        for (partition, part) in &self.parts {
            let mut last = None;
            for (offset, slot) in part.slots.iter() {
                self.coverage.offsets += 1;
                let Some(epoch) = slot.epoch() else { continue };
                match last {
                    Some(before) if epoch < before => {
                        self.findings.add(Kind::EpochRegress, || {
                            format!("{partition}@{offset} has epoch {epoch}, after {before}")
                        });
                    }
                    Some(before) => self.coverage.leader_changes += u64::from(epoch > before),
                    None => {}
                }
                last = last.max(Some(epoch));
            }
        }
    }

    fn missing(&mut self) {
        for (partition, part) in &self.parts {
            let sends = || part.sends.iter().map(|send| &self.sends[*send as usize]);
            if part.finals == 0 && part.finals_incomplete > 0 {
                let safe = || sends().filter(|sent| self.txns.is_safe(sent));
                let unseen = safe().filter(|sent| !sent.read).count();
                let acknowledged = safe().count();
                if acknowledged > 0 {
                    self.findings.add(Kind::Unseen, || {
                        format!(
                            "partition {partition}: {acknowledged} acknowledged, {unseen} of them never read"
                        )
                    });
                }
            }
            if part.finals > 0 {
                // Where it was written nobody was told: only that some reader was given it says that it is there.
                let lost = |sent: &&_| {
                    let sent: &crate::checker::Sent = sent;
                    self.txns.is_safe(sent) && sent.offset < 0
                };
                for sent in sends().filter(lost) {
                    let value = sent.value;
                    self.findings.add(Kind::LostAcked, || {
                        format!(
                            "value {value} of partition {partition}, acknowledged without an offset, was never read"
                        )
                    });
                }
                let weak = |sent: &&_| {
                    let sent: &crate::checker::Sent = sent;
                    sent.answer == Answer::Ok && sent.acks != Acks::All && !sent.read
                };
                for sent in sends().filter(weak) {
                    let value = sent.value;
                    self.findings.add(Kind::LostWeak, || {
                        format!("value {value} of partition {partition}")
                    });
                }
            }
        }
    }

    /// What the history would need to be worth a verdict.
    fn lacks(&self, required: &Required) -> Vec<String> {
        let mut lacks = self.broken.clone();
        let c = &self.coverage;
        let mut at_least = |what: &str, found: u64, wanted: u64| {
            if found < wanted {
                lacks.push(format!("{found} {what}; at least {wanted} are needed"));
            }
        };
        at_least("sends acknowledged", c.sends_ok, required.sends_ok);
        let percent = (c.sends_ok * 100).checked_div(c.sends).unwrap_or(0);
        at_least(
            "percent of the sends acknowledged",
            percent,
            required.ok_percent,
        );
        at_least(
            "changes of a leader",
            c.leader_changes,
            required.leader_changes,
        );
        at_least("notes of faults", c.notes, required.notes);
        let unread = self.parts.values().filter(|part| {
            let safe = |send: &u32| self.txns.is_safe(&self.sends[*send as usize]);
            part.finals == 0 && part.sends.iter().any(safe)
        });
        let unread = unread.count();
        if unread > 0 {
            lacks.push(format!("complete read at the end of {unread} partitions"));
        }
        lacks
    }
}

/// See [`Checker::verdict`].
pub fn verdict(mut checker: Checker, required: &Required) -> Verdict {
    checker.close();
    for compared in std::mem::take(&mut checker.compared) {
        checker.compare(&compared);
    }
    checker.transactions();
    checker.copies();
    checker.skips();
    checker.order();
    checker.epochs();
    checker.missing();
    let lacks = checker.lacks(required);
    let findings = checker.findings.list();
    let outcome = if findings.iter().any(|found| !found.allowed) {
        Outcome::Invalid
    } else if lacks.is_empty() {
        Outcome::Valid
    } else {
        Outcome::Unknown
    };
    Verdict {
        outcome,
        lacks,
        findings,
        coverage: checker.coverage,
    }
}
