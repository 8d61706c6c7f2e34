//! The decisions: which offset a batch gets, when it is committed, what a repeat is answered.
//!
//! A partition that this node alone keeps has one in-sync replica: the high watermark is the leader's own
//! written end, or flushed end where the topic's durability is `fsync`.

use varve_types::config::Durability;
use varve_types::{Acks, LeaderEpoch, Offset};

use crate::input::{Append, Input, Ticket};
use crate::invariants::Cursors;
use crate::output::{Accepted, Output, Rejection};
use crate::pending_acks::PendingAcks;
use crate::producer_state::{ProducerTable, Verdict};

/// What a partition's topic asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CoreConfig {
    /// What `acks=all` waits for.
    pub durability: Durability,
    /// Least in-sync replicas for `acks=all`.
    pub min_insync_replicas: usize,
}

/// What the log held when it was opened. All of it counts as flushed: opening makes it so.
#[derive(Debug, Clone, Default)]
pub struct Recovered {
    /// Oldest offset.
    pub log_start: Offset,
    /// One past the last record.
    pub log_end: Offset,
    /// Producer sessions found in the log.
    pub producers: ProducerTable,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    /// Takes appends in this epoch.
    Leader(LeaderEpoch),
    /// Takes nothing.
    Offline,
}

/// The state machine of one partition.
#[derive(Debug)]
pub struct Core {
    role: Role,
    config: CoreConfig,
    cursors: Cursors,
    producers: ProducerTable,
    /// `acks=all`, waiting for the high watermark.
    committing: PendingAcks,
    /// `acks=leader`, waiting for the write.
    writing: PendingAcks,
}

impl Core {
    /// A partition over a log that was just opened. It leads nothing until told to.
    #[must_use]
    pub fn new(config: CoreConfig, recovered: Recovered) -> Self {
        let end = recovered.log_end;
        let cursors = Cursors {
            log_start: recovered.log_start,
            high_watermark: end,
            flushed: end,
            written: end,
            log_end: end,
        };
        cursors.check(&cursors);
        Self {
            role: Role::Offline,
            config,
            cursors,
            producers: recovered.producers,
            committing: PendingAcks::default(),
            writing: PendingAcks::default(),
        }
    }

    /// Takes one input. `now_ms` is the wall clock in milliseconds since the Unix epoch; it only ages
    /// producer sessions and decides nothing else.
    pub fn step(&mut self, now_ms: i64, input: Input, out: &mut Vec<Output>) {
        let before = self.cursors;
        match input {
            Input::BecomeLeader(epoch) => self.become_leader(epoch),
            Input::Append(append) => self.append(now_ms, append, out),
            Input::Written(end) => self.written(end, out),
            Input::Flushed(end) => self.flushed(end, out),
            Input::WriteRefused(end) => self.write_refused(end, out),
            Input::StorageFailed => self.storage_failed(out),
            Input::LogStart(start) => self.cursors.log_start = start,
        }
        self.cursors.check(&before);
    }

    /// Takes a new configuration; it holds for appends from now on.
    pub fn set_config(&mut self, config: CoreConfig, out: &mut Vec<Output>) {
        self.config = config;
        self.advance_high_watermark(out);
    }

    /// One past the last committed record.
    #[must_use]
    pub const fn high_watermark(&self) -> Offset {
        self.cursors.high_watermark
    }

    /// One past the last assigned offset.
    #[must_use]
    pub const fn log_end(&self) -> Offset {
        self.cursors.log_end
    }

    /// Epoch in which this node leads; `None` when it does not.
    #[must_use]
    pub const fn leader_epoch(&self) -> Option<LeaderEpoch> {
        match self.role {
            Role::Leader(epoch) => Some(epoch),
            Role::Offline => None,
        }
    }

    /// Appends not answered yet.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.committing.len() + self.writing.len()
    }

    /// Producer sessions, for a snapshot.
    #[must_use]
    pub const fn producers(&self) -> &ProducerTable {
        &self.producers
    }

    /// Forgets producer sessions that have been idle too long.
    pub fn expire_producers(&mut self, now_ms: i64) {
        self.producers.expire(now_ms);
    }

    fn become_leader(&mut self, epoch: LeaderEpoch) {
        if let Role::Leader(old) = self.role {
            assert!(epoch > old, "leader epoch went from {old} to {epoch}");
        }
        self.role = Role::Leader(epoch);
    }

    fn append(&mut self, now_ms: i64, append: Append, out: &mut Vec<Output>) {
        assert!(append.records > 0, "an empty batch passed verification");
        match self.judge(now_ms, &append) {
            Err(rejection) => {
                out.push(Output::Answer {
                    ticket: append.ticket,
                    result: Err(rejection),
                });
            }
            Ok((epoch, Verdict::Duplicate { base_offset })) => {
                self.wait(append, epoch, base_offset, true, out);
            }
            Ok((epoch, Verdict::Append)) => {
                let base_offset = self.cursors.log_end;
                if let Some((producer, first)) = append.producer {
                    self.producers
                        .append(producer, first, append.records, base_offset, now_ms);
                }
                self.cursors.log_end = base_offset.plus(append.records.into());
                let ticket = append.ticket;
                out.push(Output::Write {
                    ticket,
                    base_offset,
                    leader_epoch: epoch,
                });
                self.wait(append, epoch, base_offset, false, out);
            }
        }
    }

    fn judge(&self, now_ms: i64, append: &Append) -> Result<(LeaderEpoch, Verdict), Rejection> {
        let Role::Leader(epoch) = self.role else {
            return Err(Rejection::Offline);
        };
        let in_sync = 1;
        if append.acks == Acks::All && in_sync < self.config.min_insync_replicas {
            return Err(Rejection::NotEnoughReplicas);
        }
        let verdict = match append.producer {
            None => Verdict::Append,
            Some((producer, sequence)) => {
                self.producers
                    .judge(producer, sequence, append.records, now_ms)?
            }
        };
        match append.expected_offset {
            Some(expected) if verdict == Verdict::Append && expected != self.cursors.log_end => {
                Err(Rejection::ExpectedOffset {
                    actual: self.cursors.log_end,
                })
            }
            _ => Ok((epoch, verdict)),
        }
    }

    /// Answers now, or once what the caller waits for has happened.
    fn wait(
        &mut self,
        append: Append,
        leader_epoch: LeaderEpoch,
        base_offset: Offset,
        deduplicated: bool,
        out: &mut Vec<Output>,
    ) {
        let Append {
            ticket,
            acks,
            records,
            ..
        } = append;
        let end = base_offset.plus(records.into());
        let flushed_replicas = u32::from(end <= self.cursors.flushed);
        let accepted = Accepted {
            base_offset,
            deduplicated,
            leader_epoch,
            replicas: 1,
            flushed_replicas,
        };
        let (reached, pending) = match acks {
            Acks::None => (true, &mut self.writing),
            Acks::Leader => (end <= self.cursors.written, &mut self.writing),
            Acks::All => (end <= self.cursors.high_watermark, &mut self.committing),
        };
        if reached {
            out.push(Output::Answer {
                ticket,
                result: Ok(accepted),
            });
        } else {
            pending.push(end, ticket, accepted);
        }
    }

    fn written(&mut self, end: Offset, out: &mut Vec<Output>) {
        assert!(
            end >= self.cursors.written,
            "written end went back to {end}"
        );
        self.cursors.written = end;
        if end == self.cursors.log_end {
            self.producers.settle();
        }
        for (ticket, accepted) in self.writing.complete(end) {
            out.push(Output::Answer {
                ticket,
                result: Ok(accepted),
            });
        }
        self.advance_high_watermark(out);
    }

    fn flushed(&mut self, end: Offset, out: &mut Vec<Output>) {
        // Flushes may be reported late and out of order; the cursor keeps the furthest.
        self.cursors.flushed = self.cursors.flushed.max(end);
        self.advance_high_watermark(out);
    }

    fn advance_high_watermark(&mut self, out: &mut Vec<Output>) {
        let Role::Leader(_) = self.role else { return };
        let committed = match self.config.durability {
            Durability::Fsync => self.cursors.flushed,
            Durability::Replicated => self.cursors.written,
        };
        if committed <= self.cursors.high_watermark {
            return;
        }
        self.cursors.high_watermark = committed;
        out.push(Output::HighWatermark(committed));
        let flushed = self.cursors.flushed;
        for (ticket, mut accepted) in self.committing.complete(committed) {
            accepted.flushed_replicas = u32::from(committed <= flushed);
            out.push(Output::Answer {
                ticket,
                result: Ok(accepted),
            });
        }
    }

    fn write_refused(&mut self, end: Offset, out: &mut Vec<Output>) {
        assert!(
            end == self.cursors.written,
            "only unwritten appends can be refused"
        );
        self.producers.roll_back();
        self.cursors.log_end = end;
        self.refuse(end, Rejection::StorageFull, out);
    }

    fn storage_failed(&mut self, out: &mut Vec<Output>) {
        self.role = Role::Offline;
        self.refuse(Offset::ZERO, Rejection::StorageFailed, out);
    }

    fn refuse(&mut self, above: Offset, rejection: Rejection, out: &mut Vec<Output>) {
        let tickets: Vec<Ticket> = self
            .writing
            .refuse_above(above)
            .chain(self.committing.refuse_above(above))
            .collect();
        for ticket in tickets {
            out.push(Output::Answer {
                ticket,
                result: Err(rejection),
            });
        }
    }
}

#[cfg(test)]
#[path = "core_tests.rs"]
mod tests;
