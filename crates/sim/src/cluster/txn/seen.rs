//! What is known of transactions from outside: who asked for what and was answered what, which records readers of
//! committed ones were shown and which were passed over, and what became durable in `__transaction_state`.

use std::collections::{BTreeMap, BTreeSet};

use varve_metadata::PartitionKey;
use varve_partition::TransactionEnd;
use varve_record::Marker;
use varve_txn::{Record, State};
use varve_types::ProducerId;

use super::key_of;

/// One transaction, as its producer knows it.
#[derive(Debug, Default)]
pub(in crate::cluster) struct Transaction {
    /// Its batches; whether each was acknowledged.
    pub(super) batches: BTreeMap<u64, bool>,
    /// The producer has asked for it to be committed.
    pub(super) commit_asked: bool,
    /// Offsets that were committed with it.
    pub(super) offsets: Vec<u64>,
    /// Which of its epoch it is, of a producer that keeps it.
    pub(super) number: Option<i64>,
    /// What the producer was told became of it.
    told: Option<bool>,
    /// What readers of committed records were shown first: it, or not.
    shown: Option<bool>,
}

/// All of them.
#[derive(Debug, Default)]
pub(in crate::cluster) struct Seen {
    /// By serial number.
    pub(super) transactions: BTreeMap<u64, Transaction>,
    pub(super) of_batch: BTreeMap<u64, u64>,
    /// Transactions of offsets, by the serial number of the commit.
    pub(super) of_offset: BTreeMap<u64, u64>,
    /// Whether a batch is visible, where that is decided.
    visible: BTreeMap<u64, bool>,
    /// Partitions that are durably registered, by session.
    registered: BTreeMap<ProducerId, BTreeSet<PartitionKey>>,
    /// Decisions that are durable, by the producer and the number of their markers.
    decided: BTreeMap<(ProducerId, Option<i64>), bool>,
    /// Committed transactions of which something was shown.
    pub(in crate::cluster) committed: u64,
}

impl Seen {
    /// A record of `__transaction_state` is committed.
    pub(in crate::cluster) fn durable(&mut self, record: &Record) -> Result<(), String> {
        if record.state == State::Ongoing {
            let known = self.registered.entry(record.producer).or_default();
            known.extend(record.partitions.iter().map(key_of));
        }
        let (Some(marker), Some(commit)) = (record.marker_producer(), record.state.commits())
        else {
            return Ok(());
        };
        let latest = ProducerId {
            epoch: i16::MAX,
            ..marker.0
        };
        let later = (latest, Some(i64::MAX));
        let newest = self.decided.range(marker..=later).next_back();
        match newest {
            Some((known, first)) if *known == marker && *first != commit => Err(format!(
                "T1: the transaction that ends with {marker:?} got two different decisions"
            )),
            Some((known, _)) if *known != marker => Err(format!(
                "T3: a transaction that ends with {marker:?} is decided after one that ended with {known:?}"
            )),
            _ => {
                self.decided.insert(marker, commit);
                Ok(())
            }
        }
    }

    /// T5: a leader appends a marker.
    pub(in crate::cluster) fn marked(&self, end: &TransactionEnd) -> Result<(), String> {
        let commit = end.end.marker == Marker::Commit;
        match self.decided.get(&(end.producer, end.end.number)) {
            Some(decided) if *decided == commit => Ok(()),
            decided => Err(format!(
                "T5: marker {end:?} was written, but the durable decision is {decided:?}"
            )),
        }
    }

    /// T6: a leader appends a batch of a transaction.
    pub(in crate::cluster) fn taken(
        &self,
        producer: ProducerId,
        key: PartitionKey,
    ) -> Result<(), String> {
        let known = self.registered.get(&producer);
        match known.is_some_and(|keys| keys.contains(&key)) {
            true => Ok(()),
            false => Err(format!(
                "T6: partition {} accepted a batch of {producer:?} that is not durably registered \
                 in its transaction",
                key.partition
            )),
        }
    }

    /// T1 and T2: readers of committed records are shown a batch, or it is passed over.
    pub(in crate::cluster) fn shown(&mut self, value: u64, visible: bool) -> Result<(), String> {
        let Some(serial) = self.of_batch.get(&value) else {
            return Ok(());
        };
        let before = self.visible.insert(value, visible);
        if before == Some(visible) {
            return Ok(());
        }
        let Some(transaction) = self.transactions.get_mut(serial) else {
            return Ok(());
        };
        if visible && !transaction.commit_asked {
            return Err(format!(
                "T2: {value:x} of transaction {serial} is shown although no client asked to commit \
                 it"
            ));
        }
        if transaction.shown.is_none() && visible {
            self.committed += 1;
        }
        let first = *transaction.shown.get_or_insert(visible);
        if first != visible || transaction.told.is_some_and(|told| told != visible) {
            return Err(format!(
                "T1: {value:x} of transaction {serial} is shown: {visible}; another batch of it: \
                 {first}; the answer to its producer: {:?}",
                transaction.told
            ));
        }
        Ok(())
    }

    /// T1 and T2: somebody is told an offset that was committed in a transaction.
    pub(in crate::cluster) fn offset_shown(&mut self, commit: u64) -> Result<(), String> {
        let serial = self.of_offset.get(&commit).copied();
        let transaction = serial.and_then(|serial| self.transactions.get_mut(&serial));
        let Some(transaction) = transaction else {
            return Ok(());
        };
        let shown = *transaction.shown.get_or_insert(true);
        if transaction.commit_asked && shown && transaction.told != Some(false) {
            return Ok(());
        }
        Err(format!(
            "T1: offset {commit} of transaction {serial:?} was reported; asked to commit: {}, \
             batches shown: {shown}, the answer to its producer: {:?}",
            transaction.commit_asked, transaction.told
        ))
    }

    /// Whether the transaction of that session that this commit of offsets is part of is durably committed.
    pub(super) fn is_committed(&self, producer: ProducerId, commit: u64) -> bool {
        let serial = self.of_offset.get(&commit);
        let transaction = serial.and_then(|serial| self.transactions.get(serial));
        let marker = match transaction.and_then(|t| t.number) {
            Some(number) => (producer, Some(number)),
            None => {
                let epoch = producer.epoch.saturating_add(1);
                (ProducerId { epoch, ..producer }, None)
            }
        };
        self.decided.get(&marker) == Some(&true)
    }

    /// A producer is told what became of its transaction.
    pub(super) fn told(&mut self, serial: u64, commit: bool) -> Result<(), String> {
        let Some(transaction) = self.transactions.get_mut(&serial) else {
            return Ok(());
        };
        let first = *transaction.told.get_or_insert(commit);
        if first != commit || transaction.shown.is_some_and(|shown| shown != commit) {
            return Err(format!(
                "T1: the producer of transaction {serial} learned that it is committed: {commit}; \
                 before that: {first}; readers saw {:?}",
                transaction.shown
            ));
        }
        Ok(())
    }

    /// T1, at the end: of a transaction that is committed every batch that was acknowledged is visible, and of one
    /// that is not none is.
    pub(in crate::cluster) fn check_whole(&self) -> Result<(), String> {
        for (serial, transaction) in &self.transactions {
            let commit = transaction.told.or(transaction.shown);
            let Some(commit) = commit else { continue };
            for (value, acknowledged) in &transaction.batches {
                let visible = self.visible.get(value).copied();
                let torn = match (commit, visible) {
                    (_, Some(visible)) => visible != commit,
                    (true, None) => *acknowledged,
                    (false, None) => false,
                };
                if torn {
                    return Err(format!(
                        "T1: transaction {serial} is committed: {commit}, but its acknowledged \
                         batch {value:x} is visible: {visible:?}"
                    ));
                }
            }
        }
        Ok(())
    }
}
