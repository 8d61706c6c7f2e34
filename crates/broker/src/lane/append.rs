//! A lane's part in appends: offer a batch to its core, stage what the core takes, write one group per
//! partition, answer.
//!
//! Invariants: a batch gets its offset from its core alone; what is staged is written in that order, in one
//! vectored write per partition; a ticket is answered once.

use varve_broker_api::{Appended, Error};
use varve_partition::{Accepted, Append, Input, Ticket};
use varve_record::TimestampType;
use varve_types::config::Durability;
use varve_types::{Acks, ErrorKind, LeaderEpoch, Offset};

use super::{Arrival, Lane, Owed, now};
use crate::reject;

impl Lane {
    pub(super) fn produce(&mut self, slot: u32, arrival: Arrival) {
        let Arrival {
            batch,
            terms,
            arrived,
            reply,
            permit,
        } = arrival;
        let Some(owned) = self.slots.get_mut(&slot) else {
            let _ = reply.send(Err(Error::new(
                ErrorKind::TopicNotFound,
                "the topic was deleted; nothing was appended",
            )));
            return;
        };
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        let header = batch.header();
        let records = header.record_count.unsigned_abs();
        let append = match terms.marker {
            Some(end) => Append::end_of_transaction(ticket, end),
            None => Append {
                producer: header.producer(),
                unsequenced: header.transaction_without_sequence(),
                expected_offset: terms.expected_offset,
                leader_epoch: terms.leader_epoch,
                transactional: header.is_transactional(),
                verified: terms.verified,
                ..Append::new(ticket, records, terms.acks)
            },
        };
        // The time that is told is the one that readers see.
        let append_time_ms = match header.timestamp_type() {
            TimestampType::LogAppendTime => header.max_timestamp,
            TimestampType::CreateTime => self.clock.wall_ms(),
        };
        let owed = Owed {
            reply,
            acks: terms.acks,
            records,
            append_time_ms,
            arrived,
            _permit: permit,
        };
        self.owed.insert(ticket, owed);
        self.offered = Some((ticket, batch));
        owned
            .core
            .step(now(&*self.clock), Input::Append(append), &mut self.outputs);
        self.perform_outputs(slot);
        // A duplicate or refused batch was not taken.
        self.offered = None;
    }

    pub(super) fn stage(&mut self, slot: u32, ticket: Ticket, base: Offset, epoch: LeaderEpoch) {
        let Some((offered, batch)) = self.offered.take() else {
            unreachable!("the core writes only what it was offered")
        };
        assert_eq!(offered, ticket, "the core writes only what it was offered");
        let Some(owned) = self.slots.get_mut(&slot) else {
            unreachable!("the core is owned")
        };
        if owned.writes.is_empty() {
            self.dirty.push(slot);
        }
        let sequenced = batch.sequence(base, epoch);
        owned.write_bytes += sequenced.size();
        self.group_bytes += sequenced.size();
        owned.writes.push(sequenced);
    }

    pub(super) fn answer(
        &mut self,
        slot: u32,
        ticket: Ticket,
        result: Result<Accepted, varve_partition::Rejection>,
    ) {
        let Some(owed) = self.owed.remove(&ticket) else {
            unreachable!("ticket {ticket:?} is answered twice")
        };
        let took = self.clock.now().since(owed.arrived);
        let label = crate::metrics::AcksLabel {
            acks: owed.acks.to_string(),
        };
        self.metrics
            .produce_seconds
            .get_or_create(&label)
            .observe(took.as_secs_f64());
        let answer = match result {
            Ok(accepted) => Ok(Appended {
                base_offset: (owed.acks != Acks::None).then_some(accepted.base_offset),
                record_count: owed.records,
                append_time_ms: owed.append_time_ms,
                deduplicated: accepted.deduplicated,
                leader_epoch: accepted.leader_epoch,
                replicas: accepted.replicas,
                flushed_replicas: accepted.flushed_replicas,
            }),
            Err(rejection) => Err(match self.slots.get(&slot) {
                Some(owned) => reject::error(&owned.partition, rejection),
                None => Error::new(rejection.kind(), "the partition was closed"),
            }),
        };
        // The caller may have gone; the append stands.
        let _ = owed.reply.send(answer);
    }

    /// Writes what was staged: one vectored write per partition.
    pub(super) fn write_group(&mut self) {
        let dirty = std::mem::take(&mut self.dirty);
        for slot in &dirty {
            self.write_partition(*slot);
        }
        self.dirty = dirty;
        self.dirty.clear();
        self.group_bytes = 0;
    }

    pub(super) fn write_partition(&mut self, slot: u32) {
        let Some(owned) = self.slots.get_mut(&slot) else {
            return;
        };
        let now_ms = self.clock.wall_ms();
        let started = self.clock.now();
        let result = owned.log.append(&owned.writes, now_ms);
        self.metrics
            .append_seconds
            .observe(self.clock.now().since(started).as_secs_f64());
        let records: u64 = owned
            .writes
            .iter()
            .map(|w| u64::from(w.header().record_count.unsigned_abs()))
            .sum();
        let fsync = owned.partition.config().durability == Durability::Fsync;
        if result.is_ok() && fsync {
            owned.keep_for_journal();
        }
        owned.writes.clear();
        let bytes = std::mem::take(&mut owned.write_bytes);
        let input = match result {
            Ok(_) => {
                owned.partition.counters.records_produced.inc_by(records);
                owned.partition.counters.bytes_produced.inc_by(bytes as u64);
                owned.publish();
                owned.unsaved.add(bytes);
                Input::Written(owned.log.log_end())
            }
            Err(error) if error.is_no_space() => {
                tracing::warn!(partition = %owned.partition.id, %error, "append refused");
                Input::WriteRefused(owned.log.log_end())
            }
            Err(error) => {
                owned.partition.set_failed(&error.to_string());
                Input::StorageFailed
            }
        };
        owned.core.step(now(&*self.clock), input, &mut self.outputs);
        self.perform_outputs(slot);
        self.want_flush(slot, started);
        // Nothing is staged now, and the flush is already under way.
        if let Some(owned) = self.slots.get_mut(&slot) {
            owned
                .unsaved
                .save_if_due(&mut owned.log, owned.core.producers());
        }
    }
}
