//! Takes events in their order and finds what can be found at once; the rest is found in [`crate::end`].
//!
//! What is kept: one entry for every send, one slot for every offset, one position for every reader of a partition.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use crate::copies::Copies;
use crate::history::{Acks, Event};
use crate::offsets::Slots;
use crate::owners::{Committer, Owners};
use crate::txns::Txns;
use crate::verdict::{Coverage, Findings, Kind, Verdict};

/// What a history must hold before it may be called valid.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Required {
    /// Acknowledged sends.
    pub sends_ok: u64,
    /// Acknowledged sends in percent of all.
    pub ok_percent: u64,
    /// Changes of leaders.
    pub leader_changes: u64,
    /// Notes: faults.
    pub notes: u64,
}

impl Default for Required {
    fn default() -> Self {
        Self {
            sends_ok: 1,
            ok_percent: 0,
            leader_changes: 0,
            notes: 0,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    Open,
    Ok,
    Failed,
    Unknown,
}

/// One send.
#[derive(Debug)]
pub(crate) struct Sent {
    pub value: u64,
    pub session: u32,
    pub partition: i32,
    pub acks: Acks,
    pub idempotent: bool,
    pub answer: Answer,
    /// Its transaction.
    pub txn: Option<u32>,
    /// Somebody has read it.
    pub read: bool,
    /// A reader of committed records has read it.
    pub seen: bool,
    /// It is in the log, and a reader of all committed records was not given it.
    pub absent: bool,
    /// Where it is, as far as known; -1: nobody knows.
    pub offset: i64,
    /// Everything below was acknowledged or read when it was sent.
    pub floor: i64,
    pub healed: bool,
}

/// A call without answer so far.
#[derive(Debug)]
pub(crate) enum Pending {
    Send(u32),
    End(u32, i32),
    EndTxn(u32, bool),
    Commit((String, i32), i64, Option<Committer>),
    Committed(String, i32, Option<i64>),
    Final(u32, i32),
}

/// One partition.
#[derive(Debug, Default)]
pub(crate) struct Part {
    pub slots: Slots,
    /// Its sends, in their order.
    pub sends: Vec<u32>,
    /// One past the last offset that was acknowledged by all or read.
    pub floor: i64,
    pub finals: u64,
    pub finals_incomplete: u64,
    /// How far the reads of everything came that did not come to their end.
    pub reached: i64,
}

/// A read of everything that is under way.
#[derive(Debug)]
pub(crate) struct Whole {
    pub op: u64,
    /// Everything below was acknowledged or read before it began.
    pub bound: i64,
    /// What its polls left out.
    pub gaps: Vec<(i64, i64)>,
}

/// A read of everything that came to its end, which is judged when everything is known.
#[derive(Debug)]
pub(crate) struct Compared {
    pub process: u32,
    pub partition: i32,
    /// What it says that it reached.
    pub end: i64,
    pub whole: Whole,
}

/// One poll, but for its records.
#[derive(Debug, Clone, Copy)]
struct Poll {
    line: u64,
    process: u32,
    partition: i32,
    epoch: i64,
    high_watermark: i64,
    uncommitted: bool,
    /// The transaction that it is part of.
    txn: Option<u32>,
}

#[derive(Debug, Default)]
struct Position {
    /// Where the next poll begins; `None`: anywhere.
    next: Option<i64>,
    latest: i64,
    whole: Option<Whole>,
}

/// Offsets that a poll passed over: harmless unless something was there.
#[derive(Debug)]
pub(crate) struct Gap {
    pub process: u32,
    pub partition: i32,
    pub from: i64,
    pub to: i64,
    pub inside: bool,
    pub line: u64,
    /// The reader is given what is not committed, too.
    pub uncommitted: bool,
}

#[derive(Debug, Default)]
struct Group {
    /// Commits of each offset that have not failed. One of two for the same offset may fail: two owners one after
    /// the other come to the same place.
    tried: HashMap<i64, u32>,
    /// Commits without answer: each may still be on its way, whatever was committed after it.
    unanswered: HashSet<i64>,
    acknowledged: Option<i64>,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Checker {
    pub(crate) sends: Vec<Sent>,
    pub(crate) parts: BTreeMap<i32, Part>,
    pub(crate) gaps: Vec<Gap>,
    pub(crate) findings: Findings,
    pub(crate) coverage: Coverage,
    /// What is wrong with the history itself.
    pub(crate) broken: Vec<String>,
    by_value: HashMap<u64, u32>,
    pub(crate) pending: HashMap<u64, Pending>,
    positions: HashMap<(u32, i32), Position>,
    groups: HashMap<(String, i32), Group>,
    pub(crate) txns: Txns,
    pub(crate) copies: Copies,
    pub(crate) compared: Vec<Compared>,
    owners: Owners,
    sessions: BTreeSet<u32>,
    healed: bool,
}

impl Checker {
    /// A checker that has seen nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next event; `line` is named in findings.
    pub fn event(&mut self, line: u64, event: Event) {
        self.coverage.events += 1;
        match event {
            Event::Ok { op, offset, .. } => self.answered(line, op, Answer::Ok, offset),
            Event::Fail { op, .. } => self.answered(line, op, Answer::Failed, None),
            Event::Unknown { op, .. } => self.answered(line, op, Answer::Unknown, None),
            Event::Poll {
                process,
                partition,
                epoch,
                high_watermark,
                records,
                uncommitted,
                txn,
                ..
            } => {
                let txn = txn.and_then(|number| self.txn(line, number));
                let poll = Poll {
                    line,
                    process,
                    partition,
                    epoch,
                    high_watermark,
                    uncommitted,
                    txn,
                };
                self.poll(poll, &records);
            }
            Event::Seek {
                process,
                partition,
                offset,
                ..
            } => {
                self.coverage.seeks += 1;
                self.positions.entry((process, partition)).or_default().next = offset;
            }
            Event::Corrupt {
                process,
                partition,
                offset,
                what,
                ..
            } => self.findings.add(Kind::Corrupt, || {
                format!("line {line}: process {process} read {partition}@{offset}: {what}")
            }),
            Event::Drained { ends, .. } => self.copies.drained(&ends),
            Event::Own {
                group,
                member,
                partition,
                ..
            } => {
                self.coverage.owned += 1;
                let now = (line, self.coverage.events);
                self.owners
                    .own(now, group, member, partition, &mut self.findings);
            }
            Event::Disown {
                group,
                member,
                partition,
                ..
            } => self.owners.disown(group, member, partition),
            Event::Gone { member, .. } => self.owners.gone(member),
            Event::Note { .. } => self.coverage.notes += 1,
            Event::Healed { .. } => self.healed = true,
            call => self.call(line, call),
        }
    }

    fn call(&mut self, line: u64, event: Event) {
        let (op, pending) = match event {
            Event::Send {
                op,
                session,
                partition,
                value,
                acks,
                idempotent,
                txn,
                source,
                ..
            } => {
                let sent = Sent {
                    value,
                    session,
                    partition,
                    acks,
                    idempotent,
                    answer: Answer::Open,
                    txn: txn.and_then(|number| self.txn(line, number)),
                    read: false,
                    seen: false,
                    absent: false,
                    offset: -1,
                    floor: self.parts.entry(partition).or_default().floor,
                    healed: self.healed,
                };
                let Some(send) = self.new_send(line, sent) else {
                    return;
                };
                if let Some(source) = source {
                    self.copies.add(source, send);
                }
                (op, Pending::Send(send))
            }
            Event::EndTxn {
                op, txn, commit, ..
            } => {
                let Some(txn) = self.end_called(line, txn, commit) else {
                    return;
                };
                (op, Pending::EndTxn(txn, commit))
            }
            Event::End {
                op,
                process,
                partition,
                ..
            } => (op, Pending::End(process, partition)),
            Event::Commit {
                op,
                group,
                partition,
                offset,
                member,
                ..
            } => {
                let key = (group, partition);
                let of_group = self.groups.entry(key.clone()).or_default();
                *of_group.tried.entry(offset).or_default() += 1;
                let now = self.coverage.events;
                let committer = member.map(|member| self.owners.commit(now, &key, member));
                (op, Pending::Commit(key, offset, committer))
            }
            Event::Committed {
                op,
                group,
                partition,
                ..
            } => {
                let of_group = self.groups.entry((group.clone(), partition)).or_default();
                let floor = of_group.acknowledged;
                (op, Pending::Committed(group, partition, floor))
            }
            Event::Final {
                op,
                process,
                partition,
                ..
            } => {
                let bound = self.parts.entry(partition).or_default().floor;
                let position = self.positions.entry((process, partition)).or_default();
                position.next = Some(0);
                position.whole = Some(Whole {
                    op,
                    bound,
                    gaps: Vec::new(),
                });
                (op, Pending::Final(process, partition))
            }
            _ => return,
        };
        if self.pending.insert(op, pending).is_some() {
            self.broken
                .push(format!("line {line}: call {op} is made twice"));
        }
    }

    fn new_send(&mut self, line: u64, sent: Sent) -> Option<u32> {
        // One less than the most: slots keep the number plus one.
        let Some(number) = u32::try_from(self.sends.len())
            .ok()
            .filter(|n| *n < u32::MAX)
        else {
            self.broken.push(format!("line {line}: too many sends"));
            return None;
        };
        if self.by_value.insert(sent.value, number).is_some() {
            let value = sent.value;
            self.broken
                .push(format!("line {line}: value {value} is sent twice"));
        }
        self.sessions.insert(sent.session);
        self.coverage.sessions = self.sessions.len() as u64;
        self.coverage.sends += 1;
        if let Some(part) = self.parts.get_mut(&sent.partition) {
            part.sends.push(number);
        }
        if let Some(txn) = sent.txn {
            self.txns.all[txn as usize].sends.push(number);
        }
        self.sends.push(sent);
        Some(number)
    }

    fn answered(&mut self, line: u64, op: u64, answer: Answer, offset: Option<i64>) {
        let ok = answer == Answer::Ok;
        match self.pending.remove(&op) {
            None => self.broken.push(format!(
                "line {line}: an answer to call {op}, which is not open"
            )),
            Some(Pending::Send(send)) => self.sent(line, send, answer, offset),
            Some(Pending::End(process, partition)) => {
                if ok && let Some(offset) = offset {
                    self.latest(line, process, partition, offset);
                }
            }
            Some(Pending::EndTxn(txn, commit)) => self.ended(line, txn, commit, answer),
            Some(Pending::Commit(key, offset, committer)) => {
                if let Some(committer) = committer.filter(|_| ok) {
                    self.owners
                        .accepted(line, &key, committer, &mut self.findings);
                }
                let of_group = self.groups.entry(key).or_default();
                match answer {
                    Answer::Ok => {
                        self.coverage.commits_ok += 1;
                        of_group.acknowledged = of_group.acknowledged.max(Some(offset));
                    }
                    Answer::Failed => {
                        if let Some(tried) = of_group.tried.get_mut(&offset) {
                            *tried = tried.saturating_sub(1);
                        }
                    }
                    Answer::Open | Answer::Unknown => {
                        of_group.unanswered.insert(offset);
                    }
                }
            }
            Some(Pending::Committed(group, partition, floor)) => {
                if ok {
                    self.committed(line, group, partition, floor, offset);
                }
            }
            Some(Pending::Final(process, partition)) => {
                let reached = if ok { offset } else { None };
                self.whole(op, process, partition, reached);
            }
        }
    }

    fn sent(&mut self, line: u64, send: u32, answer: Answer, offset: Option<i64>) {
        let sent = &mut self.sends[send as usize];
        sent.answer = answer;
        let (value, partition, after) = (sent.value, sent.partition, sent.healed);
        if answer != Answer::Ok && after {
            self.findings.add(Kind::UnavailableAfterHeal, || {
                format!("line {line}: the send of {value} to partition {partition}")
            });
        }
        match answer {
            Answer::Ok => {
                self.coverage.sends_ok += 1;
                self.coverage.sends_ok_after_heal += u64::from(after);
            }
            Answer::Failed => {
                self.coverage.sends_failed += 1;
                if sent.read {
                    self.findings.add(Kind::AbortedRead, || {
                        format!("line {line}: value {value} of partition {partition} failed after it was read")
                    });
                }
            }
            Answer::Open | Answer::Unknown => {}
        }
        // What only a leader has may make room for another.
        if answer == Answer::Ok && sent.acks == Acks::All {
            match offset {
                Some(offset) => {
                    self.place(line, send, partition, offset, false);
                    self.raise(partition, offset);
                }
                // Told that it is there and not where, as a repeat may be: reads must find it.
                None => self.coverage.sends_ok_somewhere += 1,
            }
        }
    }

    fn raise(&mut self, partition: i32, offset: i64) {
        let part = self.parts.entry(partition).or_default();
        part.floor = part.floor.max(offset.saturating_add(1));
    }

    /// Notes that a send is at an offset.
    fn place(&mut self, line: u64, send: u32, partition: i32, offset: i64, read: bool) {
        let Ok(at) = u64::try_from(offset) else {
            self.broken.push(format!("line {line}: offset {offset}"));
            return;
        };
        let slot = self.parts.entry(partition).or_default().slots.at(at);
        // Told once, however often it is read again.
        let known = slot.send() == Some(send);
        match slot.send() {
            None => slot.set_send(send),
            Some(other) if other != send => {
                let kind = if slot.read == read {
                    Kind::InconsistentOffset
                } else {
                    Kind::AckedOffsetMismatch
                };
                let (a, b) = (
                    self.sends[other as usize].value,
                    self.sends[send as usize].value,
                );
                self.findings.add(kind, || {
                    format!("line {line}: {partition}@{offset} held value {a}, and now {b}")
                });
            }
            Some(_) => {}
        }
        slot.read |= read;
        let sent = &mut self.sends[send as usize];
        if sent.offset < 0 {
            sent.offset = offset;
        } else if sent.offset != offset && !known {
            let (value, first) = (sent.value, sent.offset);
            let kind = if sent.idempotent {
                Kind::Duplicate
            } else {
                Kind::DuplicateAllowed
            };
            self.findings.add(kind, || {
                format!("line {line}: value {value} is at {partition}@{first} and at {partition}@{offset}")
            });
        }
    }

    fn poll(&mut self, poll: Poll, records: &[(i64, u64)]) {
        self.coverage.polls += 1;
        let (line, process, partition) = (poll.line, poll.process, poll.partition);
        let mut inside = false;
        for (offset, value) in records {
            self.coverage.records_polled += 1;
            self.step(poll, *offset, inside);
            inside = true;
            self.seen(poll, *offset, *value);
            let high_watermark = poll.high_watermark;
            if high_watermark >= 0 && *offset >= high_watermark {
                self.findings.add(Kind::AboveHighWatermark, || {
                    format!(
                        "line {line}: process {process} was shown {partition}@{offset}, high watermark \
                         {high_watermark}"
                    )
                });
            }
        }
    }

    /// A reader comes to an offset.
    fn step(&mut self, poll: Poll, offset: i64, inside: bool) {
        let (line, process, partition) = (poll.line, poll.process, poll.partition);
        let position = self.positions.entry((process, partition)).or_default();
        let expected = position.next.replace(offset.saturating_add(1));
        let Some(expected) = expected else { return };
        if offset < expected {
            let kind = if inside {
                Kind::IntNonmonotonicPoll
            } else {
                Kind::NonmonotonicPoll
            };
            self.findings.add(kind, || {
                format!("line {line}: process {process} was at {partition}@{expected} and came to {offset}")
            });
        } else if offset > expected {
            if let Some(whole) = &mut position.whole {
                whole.gaps.push((expected, offset));
            } else {
                self.gaps.push(Gap {
                    process,
                    partition,
                    from: expected,
                    to: offset,
                    inside,
                    line,
                    uncommitted: poll.uncommitted,
                });
            }
        }
    }

    fn seen(&mut self, poll: Poll, offset: i64, value: u64) {
        let (line, process, partition) = (poll.line, poll.process, poll.partition);
        let Some(&send) = self.by_value.get(&value) else {
            self.findings.add(Kind::Phantom, || {
                format!("line {line}: process {process} read value {value} at {partition}@{offset}")
            });
            return;
        };
        let sent = &mut self.sends[send as usize];
        if sent.partition != partition {
            let meant = sent.partition;
            self.findings.add(Kind::Misplaced, || {
                format!("line {line}: value {value}, sent to partition {meant}, is at {partition}@{offset}")
            });
            return;
        }
        sent.read = true;
        sent.seen |= !poll.uncommitted;
        if sent.answer == Answer::Failed {
            self.findings.add(Kind::AbortedRead, || {
                format!("line {line}: process {process} read value {value} at {partition}@{offset}")
            });
        }
        if !poll.uncommitted {
            self.seen_of_txn(line, (process, poll.txn), send, offset);
        }
        self.place(line, send, partition, offset, true);
        self.raise(partition, offset);
        let (Ok(at), Ok(epoch)) = (u64::try_from(offset), u32::try_from(poll.epoch)) else {
            return;
        };
        let slot = self.parts.entry(partition).or_default().slots.at(at);
        match slot.epoch() {
            None => slot.set_epoch(epoch),
            Some(other) if other != epoch && slot.send() == Some(send) => {
                self.findings.add(Kind::InconsistentEpoch, || {
                    format!("line {line}: {partition}@{offset} had epoch {other}, and now {epoch}")
                });
            }
            Some(_) => {}
        }
    }

    fn latest(&mut self, line: u64, process: u32, partition: i32, offset: i64) {
        self.coverage.ends += 1;
        let position = self.positions.entry((process, partition)).or_default();
        let before = position.latest;
        if offset < before {
            self.findings.add(Kind::LatestRegress, || {
                format!(
                    "line {line}: process {process} saw the end of partition {partition} at \
                     {before}, and later at {offset}"
                )
            });
        }
        position.latest = before.max(offset);
    }

    fn committed(
        &mut self,
        line: u64,
        group: String,
        partition: i32,
        floor: Option<i64>,
        found: Option<i64>,
    ) {
        self.coverage.commits_read += 1;
        let of_group = self.groups.entry((group.clone(), partition)).or_default();
        if found < floor {
            let late = found.is_some_and(|found| of_group.unanswered.contains(&found));
            let kind = if late {
                Kind::CommitLate
            } else {
                Kind::CommitRegress
            };
            self.findings.add(kind, || {
                format!("line {line}: group {group}, partition {partition}: {found:?} after {floor:?} was acknowledged")
            });
        }
        let Some(found) = found else { return };
        if of_group.tried.get(&found).is_none_or(|tried| *tried == 0) {
            self.findings.add(Kind::PhantomCommit, || {
                format!("line {line}: group {group}, partition {partition}: {found}")
            });
        }
    }

    fn whole(&mut self, op: u64, process: u32, partition: i32, reached: Option<i64>) {
        let position = self.positions.entry((process, partition)).or_default();
        let Some(mut whole) = position.whole.take_if(|whole| whole.op == op) else {
            return;
        };
        // It says that it came to the end: nothing was between its last record and there.
        let next = position.next.unwrap_or(0);
        whole.gaps.push((next, i64::MAX));
        let part = self.parts.entry(partition).or_default();
        match reached {
            Some(end) => {
                part.finals += 1;
                self.coverage.final_reads += 1;
                self.compared.push(Compared {
                    process,
                    partition,
                    end,
                    whole,
                });
            }
            None => {
                part.finals_incomplete += 1;
                part.reached = part.reached.max(next);
                self.coverage.final_reads_incomplete += 1;
            }
        }
    }

    /// Where the next poll of a process begins.
    pub(crate) fn position(&self, process: u32, partition: i32) -> i64 {
        let position = self.positions.get(&(process, partition));
        position.and_then(|position| position.next).unwrap_or(0)
    }

    /// The verdict on everything that was taken.
    #[must_use]
    pub fn verdict(self, required: &Required) -> Verdict {
        crate::end::verdict(self, required)
    }
}
