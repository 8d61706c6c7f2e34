//! Transactions of the broker in memory: one coordinator, decisions that count at once, and an epoch that is
//! raised with every end.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use varve_broker_api::*;
use varve_types::{ErrorKind, GroupName, NodeId, ProducerId, TopicPartition, TransactionalId};

/// Producers of transactional ids are told from others by their numbers.
const FIRST_PRODUCER: i64 = 1000;

#[derive(Debug)]
struct Transaction {
    producer: ProducerId,
    timeout: Duration,
    state: TransactionState,
    cause: TransactionCause,
    partitions: BTreeSet<TopicPartition>,
    offsets: Vec<(GroupName, OffsetCommit)>,
}

/// What the coordinator knows.
#[derive(Debug, Default)]
pub struct Transactions {
    ids: BTreeMap<TransactionalId, Transaction>,
    /// Sessions whose records nobody but readers of uncommitted ones sees.
    aborted: BTreeSet<(i64, i16)>,
}

/// A session, and the offsets that count from now on.
pub type Ended = (ProducerId, Vec<(GroupName, OffsetCommit)>);

fn fenced() -> Error {
    Error::new(ErrorKind::ProducerFenced, "there is a newer session")
}

fn unknown() -> Error {
    Error::new(ErrorKind::TransactionNotFound, "no such transactional id")
}

impl Transactions {
    pub fn init(&mut self, request: InitTransactions) -> Result<ProducerId> {
        let next = FIRST_PRODUCER + self.ids.len() as i64;
        let Some(known) = self.ids.get_mut(&request.id) else {
            let transaction = Transaction {
                producer: ProducerId { id: next, epoch: 0 },
                timeout: request.timeout,
                state: TransactionState::Empty,
                cause: TransactionCause::Producer,
                partitions: BTreeSet::new(),
                offsets: Vec::new(),
            };
            let producer = transaction.producer;
            self.ids.insert(request.id, transaction);
            return Ok(producer);
        };
        if request.keep.is_some_and(|keep| keep != known.producer) {
            return Err(fenced());
        }
        let cause = match request.keep {
            Some(_) => TransactionCause::Renewal,
            None => TransactionCause::Successor,
        };
        known.timeout = request.timeout;
        let open = known.state == TransactionState::Ongoing;
        if open {
            self.finish(&request.id, false, cause);
        }
        let known = self.ids.get_mut(&request.id).unwrap();
        if !open {
            known.producer.epoch += 1;
        }
        known.state = TransactionState::Empty;
        Ok(known.producer)
    }

    /// Takes part in the transaction of `id`, which begins with that.
    pub fn append(
        &mut self,
        id: &TransactionalId,
        producer: Option<ProducerId>,
        partition: TopicPartition,
    ) -> Result<()> {
        let known = self.ids.get_mut(id).ok_or_else(unknown)?;
        if producer != Some(known.producer) {
            return Err(fenced());
        }
        known.state = TransactionState::Ongoing;
        known.partitions.insert(partition);
        Ok(())
    }

    pub fn commit_offsets(&mut self, request: CommitTransactionOffsets) -> Result<Vec<Result<()>>> {
        let known = self.ids.get_mut(&request.id).ok_or_else(unknown)?;
        if request.producer != known.producer {
            return Err(fenced());
        }
        known.state = TransactionState::Ongoing;
        let mut results = Vec::new();
        for offset in request.offsets {
            if offset.partition.topic.is_internal() {
                results.push(Err(Error::new(ErrorKind::TopicNotFound, "not for groups")));
                continue;
            }
            known.offsets.push((request.group.clone(), offset));
            results.push(Ok(()));
        }
        Ok(results)
    }

    pub fn end(&mut self, request: &EndTransaction) -> Result<Ended> {
        let known = self.ids.get(&request.id).ok_or_else(unknown)?;
        let ProducerId { id, epoch } = known.producer;
        let repeated = ProducerId {
            id,
            epoch: epoch.saturating_sub(1),
        };
        let same = match known.state {
            TransactionState::CompleteCommit => request.commit,
            TransactionState::CompleteAbort => !request.commit,
            _ => false,
        };
        if request.producer == repeated && same {
            return Ok((known.producer, Vec::new()));
        }
        if request.producer != known.producer {
            return Err(fenced());
        }
        if known.state != TransactionState::Ongoing {
            return Err(Error::new(
                ErrorKind::InvalidTransactionState,
                "nothing was begun",
            ));
        }
        let offsets = self.finish(&request.id, request.commit, TransactionCause::Producer);
        Ok((self.ids[&request.id].producer, offsets))
    }

    fn finish(
        &mut self,
        id: &TransactionalId,
        commit: bool,
        cause: TransactionCause,
    ) -> Vec<(GroupName, OffsetCommit)> {
        let known = self.ids.get_mut(id).unwrap();
        let offsets = std::mem::take(&mut known.offsets);
        known.partitions.clear();
        known.cause = cause;
        known.state = TransactionState::CompleteCommit;
        let ended = known.producer;
        known.producer.epoch += 1;
        if commit {
            return offsets;
        }
        known.state = TransactionState::CompleteAbort;
        self.aborted.insert((ended.id, ended.epoch));
        Vec::new()
    }

    pub fn abort(&mut self, id: &TransactionalId) -> Result<()> {
        let known = self.ids.get(id).ok_or_else(unknown)?;
        if known.state != TransactionState::Ongoing {
            return Err(Error::new(
                ErrorKind::InvalidTransactionState,
                "no transaction is open",
            ));
        }
        self.finish(id, false, TransactionCause::Operator);
        Ok(())
    }

    pub fn list(&self) -> Vec<TransactionListing> {
        let listing = |(id, known): (&TransactionalId, &Transaction)| TransactionListing {
            id: id.clone(),
            producer: known.producer,
            state: known.state,
            coordinator: NodeId(1),
            started_ms: (known.state == TransactionState::Ongoing).then_some(1_700_000_000_000),
        };
        self.ids.iter().map(listing).collect()
    }

    pub fn describe(&self, id: &TransactionalId) -> Result<TransactionInfo> {
        let known = self.ids.get(id).ok_or_else(unknown)?;
        let open = known.state == TransactionState::Ongoing;
        Ok(TransactionInfo {
            id: id.clone(),
            producer: known.producer,
            state: known.state,
            cause: known.cause,
            coordinator: NodeId(1),
            timeout: known.timeout,
            started_ms: open.then_some(1_700_000_000_000),
            updated_ms: 1_700_000_000_123,
            partitions: known.partitions.iter().cloned().collect(),
            untold: Vec::new(),
        })
    }

    /// Whether the records of that session are not decided.
    pub fn is_open(&self, producer: ProducerId) -> bool {
        let open = |known: &Transaction| known.state == TransactionState::Ongoing;
        self.ids
            .values()
            .any(|known| known.producer == producer && open(known))
    }

    /// Whether the records of that session count for nothing.
    pub fn is_aborted(&self, producer: ProducerId) -> bool {
        self.aborted.contains(&(producer.id, producer.epoch))
    }
}
