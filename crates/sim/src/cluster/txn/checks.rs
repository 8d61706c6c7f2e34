//! When what is known of transactions is compared with what happens: at every append, whenever something more is
//! shown to readers of committed records, and at the end.

use std::collections::BTreeMap;

use varve_metadata::PartitionKey;
use varve_txn::codec;
use varve_types::NodeId;

use super::super::disk::{Kind, Log};
use super::super::invariants::latest_is_monotonic;
use super::super::world::{Produce, World};
use super::{Role, Transactions};

impl World {
    /// A leader appends.
    pub(in crate::cluster) fn check_taken(&self, produce: &Produce) -> Result<(), String> {
        match (produce.kind, produce.producer) {
            (Kind::Marker(end), _) => self.transactions.seen.marked(&end),
            (Kind::Transactional, Some((producer, _))) => {
                self.transactions.seen.taken(producer, produce.key)
            }
            (Kind::Offsets(producer), _) => self.transactions.seen.taken(producer, produce.key),
            (Kind::Transactional | Kind::Plain, _) => Ok(()),
        }
    }

    /// Batches of an internal topic are committed.
    pub(in crate::cluster) fn learn_records(
        &mut self,
        key: PartitionKey,
        values: &[u64],
    ) -> Result<(), String> {
        let mut last = None;
        for value in values {
            // A batch has as many offsets as records.
            if last.replace(*value) == Some(*value) || !self.transactions.learned.insert(*value) {
                continue;
            }
            let Transactions {
                contents,
                seen,
                offsets_in,
                ..
            } = &mut self.transactions;
            let Some(records) = contents.get(value) else {
                continue;
            };
            match self.knobs.partitions == key.partition.0 {
                true => {
                    for (_, record) in records {
                        if let Some(Ok(record)) = record.as_deref().map(codec::decode_value) {
                            seen.durable(&record)?;
                        }
                    }
                }
                false => self
                    .group
                    .seen
                    .durable(records, offsets_in.get(value).copied())?,
            }
        }
        Ok(())
    }

    /// After each step of a core: what readers of committed records are shown from now on.
    pub(in crate::cluster) fn check_stable(
        &mut self,
        id: NodeId,
        key: PartitionKey,
    ) -> Result<(), String> {
        if !self.knobs.transactions || self.role(key) != Role::Data {
            return Ok(());
        }
        let Some(node) = self.nodes.get_mut(&id) else {
            return Ok(());
        };
        let (Some(replica), Some(log)) = (node.replicas.get_mut(&key), node.disks.get(&key)) else {
            return Ok(());
        };
        if replica.core.assignment().is_none() {
            return Ok(());
        }
        let (from, to) = (
            replica.stable.max(log.start),
            replica.core.last_stable_offset(),
        );
        replica.stable = replica.stable.max(to);
        let first = log.batches.partition_point(|b| b.end() <= from);
        let batches = log.batches[first..].iter().take_while(|b| b.base < to);
        for batch in batches.filter(|b| b.kind == Kind::Transactional) {
            let mut aborted = replica.core.producers().aborted(batch.base, batch.end());
            let passed = aborted.any(|a| {
                let of = batch
                    .producer
                    .is_some_and(|(producer, _)| producer.id == a.producer);
                of && a.first <= batch.base && batch.base < a.last
            });
            let shown = self.transactions.seen.shown(batch.value, !passed);
            shown.map_err(|why| format!("{why}; partition {} of node {id}", key.partition))?;
        }
        let Some((epoch, _)) = replica.core.leader_epoch().zip(replica.core.latest()) else {
            return Ok(());
        };
        let since = replica.since;
        let history = self.oracle.partition(key).histories.get_mut(&since);
        match history {
            Some(history) => latest_is_monotonic::check(&mut history.stable, epoch, to),
            None => Ok(()),
        }
    }

    /// T4: no transaction is open, and readers of committed records read to the end.
    pub(in crate::cluster) fn nothing_is_open(&self) -> bool {
        let decided = |key: &PartitionKey| {
            let leader = self
                .controller
                .state
                .partition_at(*key)
                .and_then(|p| p.leader);
            let replica = leader.and_then(|n| self.nodes.get(&n)?.replicas.get(key));
            replica.is_some_and(|r| r.core.last_stable_offset() == r.core.committed())
        };
        !self.knobs.transactions || self.keys().iter().all(decided)
    }

    /// G3 and T1: the coordinator of the group has what the log says, read with the decisions of transactions.
    fn check_offsets(&mut self) -> Result<(), String> {
        let seen = &self.transactions.seen;
        let expected = self
            .group
            .seen
            .table(|producer, commit| seen.is_committed(producer, commit));
        match self.offsets_of_group() {
            Some(found) if found != expected => Err(format!(
                "G3: the coordinator has the offsets {found:?}, but the log says {expected:?}"
            )),
            _ => Ok(()),
        }
    }

    /// What must hold in the end.
    pub(in crate::cluster) fn final_check(&mut self) -> Result<(), String> {
        self.oracle.final_check(&self.nodes)?;
        if !self.knobs.transactions {
            return Ok(());
        }
        for _ in 0..self.transactions.seen.committed {
            self.count("transaction committed and shown");
        }
        self.transactions.seen.check_whole()?;
        self.check_offsets()?;
        for key in self.keys() {
            let leader = self
                .controller
                .state
                .partition_at(key)
                .and_then(|p| p.leader);
            if let Some(log) = leader.and_then(|n| self.nodes.get(&n)?.disks.get(&key)) {
                check_order(log).map_err(|why| format!("{why} in partition {}", key.partition))?;
            }
        }
        Ok(())
    }
}

/// T3 and T5: after a marker nothing of the transaction follows that it ends, and neither an older marker of that
/// producer, nor the same again, nor one of an older coordinator. Batches of a producer that keeps its epoch do not say
/// of which transaction they are: what readers are shown does.
fn check_order(log: &Log) -> Result<(), String> {
    let mut ended = BTreeMap::new();
    for batch in &log.batches {
        match (batch.kind, batch.producer) {
            (Kind::Offsets(producer), _) | (Kind::Transactional, Some((producer, _))) => {
                let last = ended.get(&producer.id);
                if last.is_some_and(|((epoch, _), _)| *epoch > producer.epoch) {
                    return Err(format!(
                        "T3: {:x} of {producer:?} follows the marker that ended its transaction",
                        batch.value
                    ));
                }
            }
            (Kind::Marker(end), _) => {
                let which = (end.producer.epoch, end.end.number.unwrap_or(0));
                let this = (which, end.end.coordinator_epoch);
                let last = ended.insert(end.producer.id, this);
                if last.is_some_and(|(which, coordinator)| which >= this.0 || coordinator > this.1)
                {
                    return Err(format!(
                        "T5: marker {end:?} follows one of ((epoch, number), coordinator) {last:?}"
                    ));
                }
            }
            _ => {}
        }
    }
    Ok(())
}
