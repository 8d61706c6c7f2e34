//! A lane's part in appends: offer a batch to its core, stage what the core takes, write one group per
//! partition, answer.
//!
//! Invariants: a batch gets its offset from its core alone; what is staged is written in that order, in one
//! vectored write per partition; a ticket is answered once; a byte permit is held until the batch is in the log as
//! safely as the topic asks of one replica, or answered, and no longer.

use std::collections::{BTreeMap, BTreeSet};

use varve_broker_api::{Appended, Error};
use varve_partition::{Accepted, Append, Input, Rejection, Ticket};
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
                resumes: owned
                    .partition
                    .refusals
                    .is_clear_of(header.producer(), self.clock.now()),
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
            of_transaction: header.session().filter(|_| header.is_transactional()),
            producer: header.producer(),
            arrived,
            slot,
            permit,
        };
        self.owed.insert(ticket, owed);
        self.metrics.answers_owed.inc();
        self.offered = Some((ticket, batch));
        let sessions = owned.core.producers().len();
        owned
            .core
            .step(now(&*self.clock), Input::Append(append), &mut self.outputs);
        let evicted = (sessions + 1).saturating_sub(owned.core.producers().len());
        if evicted > 1 {
            let count = &self.metrics.producer_sessions_evicted;
            count.inc_by(evicted as u64);
        }
        self.perform_outputs(slot);
        // A duplicate or refused batch was not taken: nothing of it is kept.
        if self.offered.take().is_some()
            && let Some(owed) = self.owed.get_mut(&ticket)
        {
            owed.permit.give_back_bytes();
        }
    }

    /// Gives back the bytes of what is safe on this node, whoever else it waits for.
    pub(super) fn give_back_bytes(&mut self, slot: u32) {
        let Some(owned) = self.slots.get_mut(&slot) else {
            return;
        };
        let (safe, end) = (owned.core.own_end(), owned.core.log_end());
        // What could not be written, or was cut off, is answered.
        while owned.unsafe_yet.back().is_some_and(|(at, _)| *at > end) {
            owned.unsafe_yet.pop_back();
        }
        while let Some((at, ticket)) = owned.unsafe_yet.front()
            && *at <= safe
        {
            if let Some(owed) = self.owed.get_mut(ticket) {
                owed.permit.give_back_bytes();
            }
            owned.unsafe_yet.pop_front();
        }
    }

    /// Forgets the answers that nobody waits for any more: the appends stand, or fall, without them. A partition that
    /// cannot commit would gather them for as long as that lasts.
    pub(super) fn forget_unwanted(&mut self) {
        let unwanted = |owed: &Owed| !owed.permit.holds_bytes() && owed.reply.is_closed();
        let mut gone: BTreeMap<u32, BTreeSet<Ticket>> = BTreeMap::new();
        for (ticket, owed) in self.owed.iter().filter(|(_, owed)| unwanted(owed)) {
            gone.entry(owed.slot).or_default().insert(*ticket);
        }
        for (slot, tickets) in gone {
            if let Some(owned) = self.slots.get_mut(&slot) {
                owned.core.forget_waiting(&tickets);
            }
            for ticket in &tickets {
                self.owed.remove(ticket);
                self.metrics.answers_owed.dec();
            }
        }
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
        let end = sequenced.header().next_offset();
        owned.unsafe_yet.push_back((end, ticket));
        owned.write_bytes += sequenced.size();
        self.group_bytes += sequenced.size();
        owned.writes.push(sequenced);
    }

    pub(super) fn answer(
        &mut self,
        slot: u32,
        ticket: Ticket,
        result: Result<Accepted, Rejection>,
    ) {
        let Some(owed) = self.owed.remove(&ticket) else {
            unreachable!("ticket {ticket:?} is answered twice")
        };
        self.metrics.answers_owed.dec();
        let now = self.clock.now();
        let took = now.since(owed.arrived);
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
                log_start: self.slots.get(&slot).map(|o| o.partition.log_start()),
            }),
            Err(rejection) => Err(match self.slots.get(&slot) {
                Some(owned) => {
                    let over = rejection == Rejection::TransactionOver;
                    if let Some(producer) = owed.of_transaction.filter(|_| over) {
                        owned.partition.registered.forget(producer);
                    }
                    let partition = &owned.partition;
                    let refusals = &partition.refusals;
                    let excuse = refusals.excuse(&partition.id, owed.producer, rejection, now);
                    excuse.unwrap_or_else(|| {
                        let error = reject::error(partition, rejection);
                        refusals.note(owed.producer, &error, now);
                        error
                    })
                }
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
