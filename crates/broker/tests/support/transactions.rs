//! A transactional producer and readers by hand, over whichever broker is the right one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use varve_broker::Broker;
use varve_broker_api::{
    AddToTransaction, Broker as _, CommitTransactionOffsets, Context, EndTransaction, Fetch,
    FetchPartition, GetOffsets, InitTransactions, Isolation, OffsetCommit, Produce, Result,
    TransactionState, TransactionVersion,
};
use varve_record::{Batch, BatchBuilder, Compression, iter_batches};
use varve_types::{
    Acks, ErrorKind, GroupName, Offset, PartitionId, ProducerId, Sequence, TopicName,
    TopicPartition, TransactionalId,
};
use varve_vfs::{Clock as _, SystemClock};

use super::cluster::Nodes;

/// Where calls go: one node, or whichever of several is the right one.
pub enum At<'a> {
    One(&'a Broker),
    Any(&'a Nodes),
    /// Of several that come and go meanwhile.
    Living(Arc<Mutex<Vec<Broker>>>),
}

impl At<'_> {
    pub fn brokers(&self) -> Vec<Broker> {
        match self {
            Self::One(broker) => vec![(*broker).clone()],
            Self::Any(nodes) => nodes.brokers.values().cloned().collect(),
            Self::Living(living) => living.lock().unwrap().clone(),
        }
    }

    /// Asks whoever answers, as a client does: what only needs time or another node is asked again.
    pub async fn call<T, F>(&self, call: impl Fn(Broker) -> F) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        let until = tokio::time::Instant::now() + Duration::from_secs(30);
        loop {
            // What is answered at once, from memory, would keep a worker from all else when it is asked in a loop.
            tokio::task::yield_now().await;
            let mut last = None;
            for broker in self.brokers() {
                let answer = tokio::time::timeout(Duration::from_secs(5), call(broker)).await;
                match answer {
                    Ok(Err(error)) if passes(error.kind) => last = Some(error),
                    Ok(answer) => return answer,
                    Err(_) => {
                        last = last.or(Some(varve_broker_api::Error::new(
                            ErrorKind::CommitTimeout,
                            "no answer in time",
                        )))
                    }
                }
            }
            if tokio::time::Instant::now() > until {
                return Err(last.unwrap());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

pub fn passes(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::NotCoordinator
            | ErrorKind::CoordinatorLoading
            | ErrorKind::ConcurrentTransactions
            | ErrorKind::NotLeader
            | ErrorKind::LeaderNotAvailable
            | ErrorKind::ShuttingDown
            | ErrorKind::CommitTimeout
            | ErrorKind::NotEnoughReplicas
            // What a node says of its disk while it is being killed.
            | ErrorKind::StorageError
    )
}

/// A transactional producer, by hand.
pub struct Producer {
    pub id: TransactionalId,
    pub session: ProducerId,
    pub next: BTreeMap<TopicPartition, i32>,
    /// Of which kind its transactions are.
    pub version: TransactionVersion,
    /// What it has registered itself in the present one.
    added: BTreeSet<(Option<TopicPartition>, Option<GroupName>)>,
}

pub fn offset(n: i64) -> Offset {
    Offset::new(n).unwrap()
}

pub fn txn_batch(producer: ProducerId, sequence: i32, values: &[&str]) -> Batch {
    let mut builder = BatchBuilder::new(Compression::None, None);
    let now = SystemClock::new().wall_ms();
    for value in values {
        builder
            .append(now, Some(b"k"), Some(value.as_bytes()), &[])
            .unwrap();
    }
    builder.set_transaction(producer, Sequence::new(sequence).unwrap());
    builder.build_batch().unwrap()
}

pub async fn init(at: &At<'_>, id: &str, timeout: Duration) -> Result<ProducerId> {
    let id: TransactionalId = id.parse().unwrap();
    at.call(|broker| {
        let request = InitTransactions {
            id: id.clone(),
            timeout,
            keep: None,
        };
        async move {
            broker
                .init_transactions(&Context::anonymous(), request)
                .await
        }
    })
    .await
}

impl Producer {
    pub async fn open(at: &At<'_>, id: &str) -> Self {
        Self::with_timeout(at, id, Duration::from_secs(60)).await
    }

    pub async fn with_timeout(at: &At<'_>, id: &str, timeout: Duration) -> Self {
        Self::with_session(id, init(at, id, timeout).await.unwrap())
    }

    /// One that takes itself for the owner of a session.
    pub fn with_session(id: &str, session: ProducerId) -> Self {
        Self {
            id: id.parse().unwrap(),
            session,
            next: BTreeMap::new(),
            version: TransactionVersion::V2,
            added: BTreeSet::new(),
        }
    }

    /// The same with transactions of that kind.
    pub fn of(self, version: TransactionVersion) -> Self {
        Self { version, ..self }
    }

    /// Registers a partition or a group, if it does so itself and has not yet.
    pub async fn add(
        &mut self,
        at: &At<'_>,
        partition: Option<TopicPartition>,
        group: Option<&GroupName>,
    ) -> Result<()> {
        let added = (partition.clone(), group.cloned());
        if self.version == TransactionVersion::V2 || self.added.contains(&added) {
            return Ok(());
        }
        at.call(|broker| {
            let request = AddToTransaction {
                id: self.id.clone(),
                producer: self.session,
                partitions: partition.iter().cloned().collect(),
                group: group.cloned(),
            };
            async move {
                broker
                    .add_to_transaction(&Context::anonymous(), request)
                    .await
            }
        })
        .await?;
        self.added.insert(added);
        Ok(())
    }

    pub async fn send(
        &mut self,
        at: &At<'_>,
        topic: &TopicName,
        n: i32,
        values: &[&str],
    ) -> Result<()> {
        let partition = TopicPartition::new(topic.clone(), PartitionId(n));
        self.add(at, Some(partition.clone()), None).await?;
        let version = self.version;
        let next = self.next.entry(partition).or_default();
        let batch = txn_batch(self.session, *next, values);
        let id = Some(self.id.clone());
        at.call(|broker| {
            let request = Produce {
                transaction_version: version,
                topic: topic.clone(),
                partition: PartitionId(n),
                acks: Acks::All,
                batch: batch.clone(),
                expected_offset: None,
                transactional_id: id.clone(),
            };
            async move {
                let receipt = broker.produce(&Context::anonymous(), request).await?;
                receipt.await.map(|_| ())
            }
        })
        .await?;
        *next += i32::try_from(values.len()).unwrap();
        Ok(())
    }

    pub async fn end(&mut self, at: &At<'_>, commit: bool) -> Result<()> {
        let (id, producer, version) = (self.id.clone(), self.session, self.version);
        self.session = at
            .call(|broker| {
                let request = EndTransaction {
                    version,
                    id: id.clone(),
                    producer,
                    commit,
                };
                async move { broker.end_transaction(&Context::anonymous(), request).await }
            })
            .await?;
        self.added.clear();
        if version == TransactionVersion::V2 {
            self.next.clear();
        }
        Ok(())
    }

    pub async fn commit_offset(
        &mut self,
        at: &At<'_>,
        group: &GroupName,
        topic: &TopicName,
        n: i64,
    ) -> Result<Vec<Result<()>>> {
        self.add(at, None, Some(group)).await?;
        self.commit_unadded(at, group, topic, n).await
    }

    /// The same without registering the group.
    pub async fn commit_unadded(
        &self,
        at: &At<'_>,
        group: &GroupName,
        topic: &TopicName,
        n: i64,
    ) -> Result<Vec<Result<()>>> {
        at.call(|broker| {
            let request = CommitTransactionOffsets {
                version: self.version,
                id: self.id.clone(),
                producer: self.session,
                group: group.clone(),
                member: None,
                member_epoch: 0,
                offsets: vec![OffsetCommit {
                    partition: TopicPartition::new(topic.clone(), PartitionId(0)),
                    offset: offset(n),
                    leader_epoch: None,
                    metadata: String::new(),
                }],
            };
            async move {
                broker
                    .commit_transaction_offsets(&Context::anonymous(), request)
                    .await
            }
        })
        .await
    }
}

/// Values that a reader sees in a partition, from its start.
pub async fn read(at: &At<'_>, topic: &TopicName, n: i32, isolation: Isolation) -> Vec<String> {
    let mut from = 0;
    let mut values = Vec::new();
    loop {
        let fetched = at
            .call(|broker| {
                let fetch = Fetch {
                    raw: false,
                    isolation,
                    partitions: vec![FetchPartition {
                        topic: topic.clone(),
                        partition: PartitionId(n),
                        offset: offset(from),
                        max_bytes: 1 << 20,
                        leader_epoch: None,
                    }],
                    max_wait: Duration::ZERO,
                    min_bytes: 1,
                    max_bytes: 1 << 20,
                };
                async move {
                    let mut all = broker.fetch(&Context::anonymous(), fetch).await?;
                    all.remove(0).result
                }
            })
            .await
            .unwrap();
        for batch in iter_batches(fetched.batches.clone()) {
            let batch = batch.unwrap();
            assert!(!batch.header.is_control(), "markers are nobody's to see");
            for record in batch.records().unwrap() {
                values.push(String::from_utf8(record.unwrap().value.unwrap().to_vec()).unwrap());
            }
        }
        from = fetched.next_offset.get();
        if fetched.next_offset >= fetched.end(isolation) {
            return values;
        }
    }
}

pub async fn committed(at: &At<'_>, topic: &TopicName, n: i32) -> Vec<String> {
    read(at, topic, n, Isolation::Committed).await
}

/// Waits until readers of committed records see exactly these.
pub async fn sees(at: &At<'_>, topic: &TopicName, n: i32, expected: &[&str]) {
    for _ in 0..400 {
        if committed(at, topic, n).await == expected {
            return;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    let found = committed(at, topic, n).await;
    assert_eq!(found, expected, "{topic}-{n}");
}

/// Waits until the transaction is over, in every partition.
pub async fn settled(at: &At<'_>, id: &str) -> TransactionState {
    let id: TransactionalId = id.parse().unwrap();
    for _ in 0..400 {
        let state = state(at, &id).await.unwrap();
        if matches!(
            state,
            TransactionState::CompleteAbort | TransactionState::CompleteCommit
        ) {
            return state;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("the transaction of {id} is never over");
}

pub async fn state(at: &At<'_>, id: &TransactionalId) -> Result<TransactionState> {
    let found = at.call(|broker| {
        let id = id.clone();
        async move { broker.transaction(&Context::anonymous(), &id).await }
    });
    Ok(found.await?.state)
}

pub async fn group_offset(at: &At<'_>, group: &GroupName) -> Option<i64> {
    offset_of(at, group, false).await
}

pub async fn offset_of(at: &At<'_>, group: &GroupName, require_stable: bool) -> Option<i64> {
    let found = at
        .call(|broker| {
            let request = GetOffsets {
                require_stable,
                group: group.clone(),
                partitions: Vec::new(),
                include_lag: false,
            };
            async move {
                broker
                    .committed_offsets(&Context::anonymous(), request)
                    .await
            }
        })
        .await
        .unwrap();
    found.first().map(|o| o.offset.get())
}

pub fn kind<T: std::fmt::Debug>(result: Result<T>) -> ErrorKind {
    result.map(|done| panic!("{done:?}")).unwrap_err().kind
}

pub async fn sees_all(at: &At<'_>, topic: &TopicName, n: i32, values: &[String]) {
    let expected: Vec<&str> = values.iter().map(String::as_str).collect();
    sees(at, topic, n, &expected).await;
}
