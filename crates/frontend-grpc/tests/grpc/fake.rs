//! A broker in memory with the real meaning of appends, reads, topics, and groups with one coordinator.
//! It has switches for what a test must provoke: held receipts, failing partitions.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::{future::Future, sync::Arc};

use parking_lot::Mutex;
use tokio::sync::watch;
use varve_broker_api::*;
use varve_types::{
    ClusterId, ErrorKind, GroupName, LeaderEpoch, MemberId, NodeId, Offset, PartitionId,
    ProducerId, TopicId, TopicName, TopicPartition, TransactionalId,
};

use crate::fake_groups::{Group, Member, no_group, reply, unknown};
use crate::fake_log::{Part, at, find, stable};
use crate::fake_transactions::Transactions;

#[derive(Debug)]
struct Topic {
    info: TopicInfo,
    parts: Vec<Part>,
}

#[derive(Debug, Default)]
struct State {
    topics: BTreeMap<TopicName, Topic>,
    groups: BTreeMap<GroupName, Group>,
    failing: BTreeMap<(String, i32), ErrorKind>,
    producers: i64,
    topic_ids: u128,
    fetched_bytes: usize,
    /// Topics that another node has made and that this one has not heard of.
    news: Vec<(String, i32)>,
    transactions: Transactions,
}

#[derive(Debug)]
pub struct Fake {
    state: Mutex<State>,
    data: watch::Sender<u64>,
    metadata: watch::Sender<u64>,
    hold: watch::Sender<bool>,
}

pub fn name(text: &str) -> TopicName {
    TopicName::new(text).unwrap()
}

fn no_topic(topic: &TopicName) -> Error {
    Error::new(ErrorKind::TopicNotFound, format!("no topic {topic}")).with("topic", topic)
}

impl Fake {
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::default(),
            data: watch::Sender::new(0),
            metadata: watch::Sender::new(1),
            hold: watch::Sender::new(false),
        })
    }

    pub fn topic(&self, topic: &str, partitions: i32) {
        let mut state = self.state.lock();
        state.topic_ids += 1;
        let info = TopicInfo {
            name: name(topic),
            id: TopicId(state.topic_ids),
            partitions,
            replication_factor: 1,
            configs: BTreeMap::new(),
            labels: BTreeMap::new(),
            created_ms: 1_700_000_000_000,
        };
        let parts = (0..partitions).map(|_| Part::default()).collect();
        state.topics.insert(name(topic), Topic { info, parts });
        drop(state);
        self.metadata.send_modify(|v| *v += 1);
    }

    pub fn topic_elsewhere(&self, topic: &str, partitions: i32) {
        let new = (topic.to_owned(), partitions);
        self.state.lock().news.push(new);
    }

    pub fn fail(&self, topic: &str, partition: i32, kind: ErrorKind) {
        self.state
            .lock()
            .failing
            .insert((topic.to_owned(), partition), kind);
    }

    pub fn hold_receipts(&self, hold: bool) {
        self.hold.send_replace(hold);
    }

    pub fn end_of(&self, topic: &str, partition: usize) -> i64 {
        self.state.lock().topics[&name(topic)].parts[partition].next
    }

    pub fn total(&self, topic: &str) -> i64 {
        self.state.lock().topics[&name(topic)]
            .parts
            .iter()
            .map(|p| p.next)
            .sum()
    }

    pub fn drop_before(&self, topic: &str, partition: usize, start: i64) {
        let mut state = self.state.lock();
        state.topics.get_mut(&name(topic)).unwrap().parts[partition].start = start;
    }

    pub fn fetched_bytes(&self) -> usize {
        self.state.lock().fetched_bytes
    }

    pub fn committed(&self, group: &str, topic: &str, partition: i32) -> Option<i64> {
        let tp = TopicPartition::new(name(topic), PartitionId(partition));
        let state = self.state.lock();
        let group = state.groups.get(&GroupName::new(group).unwrap())?;
        group.offsets.get(&tp).map(|o| o.get())
    }

    pub fn members(&self, group: &str) -> usize {
        let state = self.state.lock();
        state
            .groups
            .get(&GroupName::new(group).unwrap())
            .map_or(0, |g| g.members.len())
    }

    /// Changes what is decided, and wakes readers.
    fn decide<T>(&self, change: impl FnOnce(&mut State) -> Result<T>) -> Result<T> {
        let outcome = change(&mut self.state.lock());
        self.data.send_modify(|v| *v += 1);
        outcome
    }

    fn read(&self, wanted: &Fetch) -> (Vec<PartitionFetched>, usize, bool) {
        let state = self.state.lock();
        let (mut total, mut failed) = (0, false);
        let mut results = Vec::new();
        for want in &wanted.partitions {
            let key = (want.topic.to_string(), want.partition.0);
            let result = match state.failing.get(&key) {
                Some(kind) => Err(Error::new(*kind, "made to fail")),
                None => read_one(
                    &state,
                    want,
                    wanted.max_bytes.saturating_sub(total),
                    total == 0,
                    wanted.isolation,
                ),
            };
            match &result {
                Ok(fetched) => {
                    total += fetched.batches.len();
                    // A place that was passed is told at once.
                    failed |= fetched.batches.is_empty() && fetched.next_offset > want.offset;
                }
                Err(_) => failed = true,
            }
            let (topic, partition) = (want.topic.clone(), want.partition);
            results.push(PartitionFetched {
                topic,
                partition,
                result,
            });
        }
        (results, total, failed)
    }
}

fn part<'a>(state: &'a State, topic: &TopicName, partition: PartitionId) -> Result<&'a Part> {
    let found = state.topics.get(topic).ok_or_else(|| no_topic(topic))?;
    found
        .parts
        .get(usize::try_from(partition.0).unwrap_or(usize::MAX))
        .ok_or_else(|| {
            Error::new(
                ErrorKind::PartitionNotFound,
                format!("no partition {partition}"),
            )
        })
}

fn read_one(
    state: &State,
    want: &FetchPartition,
    room: usize,
    first: bool,
    isolation: Isolation,
) -> Result<Fetched> {
    let part = part(state, &want.topic, want.partition)?;
    let offset = want.offset.get();
    if offset < part.start || offset > part.next {
        return Err(Error::new(ErrorKind::OffsetOutOfRange, "out of range")
            .with("log_start_offset", part.start)
            .with("high_watermark", part.next));
    }
    let room = room.min(want.max_bytes);
    let stable = stable(part, &state.transactions);
    let (mut bytes, mut next) = (Vec::new(), offset);
    for (header, batch) in &part.batches {
        if header.next_offset().get() <= offset {
            continue;
        }
        if isolation == Isolation::Committed {
            if header.base_offset.get() >= stable {
                break;
            }
            let session = header.session();
            if session.is_some_and(|p| state.transactions.is_aborted(p)) {
                next = header.next_offset().get();
                continue;
            }
        }
        let fits = bytes.len() + batch.len() <= room || (bytes.is_empty() && first);
        if !fits {
            break;
        }
        bytes.extend_from_slice(batch);
        next = header.next_offset().get();
    }
    Ok(Fetched {
        last_stable: at(stable),
        batches: bytes.into(),
        next_offset: at(next),
        high_watermark: at(part.next),
        log_start: at(part.start),
        leader_epoch: LeaderEpoch::ZERO,
        aborted: Vec::new(),
    })
}

type Receipt = Pin<Box<dyn Future<Output = Result<Appended>> + Send>>;

impl Broker for Fake {
    type Receipt = Receipt;

    async fn produce(&self, _: &Context, request: Produce) -> Result<Receipt> {
        let key = (request.topic.to_string(), request.partition.0);
        let appended = {
            let mut state = self.state.lock();
            if let Some(kind) = state.failing.get(&key) {
                return Err(Error::new(*kind, "made to fail"));
            }
            part(&state, &request.topic, request.partition)?;
            let header = request.batch.header();
            let named = request.transactional_id.is_some();
            assert_eq!(header.is_transactional(), named);
            if let Some(id) = &request.transactional_id {
                let tp = TopicPartition::new(name(&key.0), PartitionId(key.1));
                state.transactions.append(id, header.session(), tp)?;
            }
            let topic = state.topics.get_mut(&request.topic).unwrap();
            let part = &mut topic.parts[usize::try_from(request.partition.0).unwrap()];
            if let Some(expected) = request.expected_offset
                && expected.get() != part.next
            {
                return Err(Error::new(ErrorKind::ExpectedOffsetMismatch, "moved on")
                    .with("actual_offset", part.next));
            }
            let base = at(part.next);
            let batch = request.batch.sequence(base, LeaderEpoch::ZERO);
            part.next = batch.header().next_offset().get();
            part.batches.push((*batch.header(), batch.to_bytes()));
            Appended {
                base_offset: Some(base),
                record_count: u32::try_from(batch.header().record_count).unwrap(),
                append_time_ms: 42,
                deduplicated: false,
                leader_epoch: LeaderEpoch::ZERO,
                replicas: 1,
                flushed_replicas: 1,
                log_start: None,
            }
        };
        self.data.send_modify(|v| *v += 1);
        let mut hold = self.hold.subscribe();
        Ok(Box::pin(async move {
            hold.wait_for(|held| !held)
                .await
                .map_err(|_| Error::new(ErrorKind::ShuttingDown, "gone"))?;
            Ok(appended)
        }))
    }

    async fn init_transactions(&self, _: &Context, r: InitTransactions) -> Result<ProducerId> {
        self.decide(|state| state.transactions.init(r))
    }

    async fn add_to_transaction(&self, _: &Context, r: AddToTransaction) -> Result<()> {
        panic!("no call of this API comes here: {r:?}")
    }

    async fn commit_transaction_offsets(
        &self,
        _: &Context,
        r: CommitTransactionOffsets,
    ) -> Result<Vec<Result<()>>> {
        self.decide(|state| state.transactions.commit_offsets(r))
    }

    async fn end_transaction(&self, _: &Context, r: EndTransaction) -> Result<ProducerId> {
        self.decide(|state| {
            let (session, offsets) = state.transactions.end(&r)?;
            for (group, commit) in offsets {
                let group = state.groups.entry(group).or_default();
                group.offsets.insert(commit.partition, commit.offset);
            }
            Ok(session)
        })
    }

    async fn transactions(&self, _: &Context) -> Result<Vec<TransactionListing>> {
        Ok(self.state.lock().transactions.list())
    }

    async fn transaction(&self, _: &Context, id: &TransactionalId) -> Result<TransactionInfo> {
        self.state.lock().transactions.describe(id)
    }

    async fn abort_transaction(&self, _: &Context, id: &TransactionalId) -> Result<()> {
        self.decide(|state| state.transactions.abort(id))
    }

    async fn init_producer(&self, _: &Context, _: InitProducer) -> Result<ProducerSession> {
        let mut state = self.state.lock();
        state.producers += 1;
        let producer = ProducerId {
            id: state.producers,
            epoch: 0,
        };
        Ok(ProducerSession {
            producer,
            idle_expiry_ms: 1000,
        })
    }

    async fn fetch(&self, _: &Context, request: Fetch) -> Result<Vec<PartitionFetched>> {
        let until = tokio::time::Instant::now() + request.max_wait;
        let mut data = self.data.subscribe();
        loop {
            data.borrow_and_update();
            let (results, bytes, failed) = self.read(&request);
            let full = bytes >= request.min_bytes || failed;
            if full
                || tokio::time::timeout_at(until, data.changed())
                    .await
                    .is_err()
            {
                self.state.lock().fetched_bytes += bytes;
                return Ok(results);
            }
        }
    }

    async fn list_offsets(
        &self,
        _: &Context,
        queries: Vec<OffsetQuery>,
    ) -> Vec<Result<OffsetFound>> {
        let state = self.state.lock();
        queries
            .into_iter()
            .map(|q| {
                let found = part(&state, &q.partition.topic, q.partition.partition)?;
                let stable = stable(found, &state.transactions);
                Ok(find(found, stable, q.position, q.isolation))
            })
            .collect()
    }

    async fn create_topic(&self, _: &Context, request: CreateTopic) -> Result<TopicInfo> {
        let exists = self.state.lock().topics.contains_key(&request.topic);
        if exists {
            return Err(
                Error::new(ErrorKind::TopicAlreadyExists, "exists").with("topic", &request.topic)
            );
        }
        let partitions = request.partitions.unwrap_or(1);
        let mut info = TopicInfo {
            name: request.topic.clone(),
            id: TopicId(99),
            partitions,
            replication_factor: request.replication_factor.unwrap_or(1),
            configs: request.configs.clone(),
            labels: request.labels.clone(),
            created_ms: 5,
        };
        if !request.validate_only {
            Fake::topic(self, request.topic.as_str(), partitions);
            let mut state = self.state.lock();
            let topic = state.topics.get_mut(&request.topic).unwrap();
            topic.info.configs = request.configs;
            topic.info.labels = request.labels;
            info = topic.info.clone();
        }
        Ok(info)
    }

    async fn delete_topic(&self, _: &Context, topic: &TopicName, _: Option<TopicId>) -> Result<()> {
        self.state
            .lock()
            .topics
            .remove(topic)
            .ok_or_else(|| no_topic(topic))?;
        self.metadata.send_modify(|v| *v += 1);
        Ok(())
    }

    fn topic(&self, _: &Context, topic: &TopicName) -> Result<TopicInfo> {
        let state = self.state.lock();
        state
            .topics
            .get(topic)
            .map(|t| t.info.clone())
            .ok_or_else(|| no_topic(topic))
    }

    fn topics(&self, _: &Context) -> Result<Vec<TopicInfo>> {
        Ok(self
            .state
            .lock()
            .topics
            .values()
            .map(|t| t.info.clone())
            .collect())
    }

    fn partitions(&self, _: &Context, topic: &TopicName) -> Result<Vec<PartitionInfo>> {
        let state = self.state.lock();
        let topic = state.topics.get(topic).ok_or_else(|| no_topic(topic))?;
        let info = |(n, p): (usize, &Part)| PartitionInfo {
            partition: PartitionId(i32::try_from(n).unwrap()),
            leader: Some(NodeId(1)),
            leader_epoch: LeaderEpoch::ZERO,
            replicas: vec![NodeId(1)],
            in_sync: vec![NodeId(1)],
            log_start: at(p.start),
            high_watermark: at(p.next),
            log_end: at(p.next),
            size_bytes: p.batches.iter().map(|(_, b)| b.len() as u64).sum(),
            error: None,
        };
        Ok(topic.parts.iter().enumerate().map(info).collect())
    }

    fn topic_configs(&self, _: &Context, topic: &TopicName) -> Result<Vec<ConfigEntry>> {
        let state = self.state.lock();
        let topic = state.topics.get(topic).ok_or_else(|| no_topic(topic))?;
        let entry = |key: &varve_types::config::ConfigKey| {
            let set = topic.info.configs.get(key.name);
            ConfigEntry {
                name: key.name,
                value: set.cloned().unwrap_or_else(|| key.default.to_owned()),
                source: if set.is_some() {
                    ConfigSource::Topic
                } else {
                    ConfigSource::Default
                },
                inherited: key.default.to_owned(),
                description: key.description,
            }
        };
        Ok(varve_types::config::KEYS.iter().map(entry).collect())
    }

    async fn update_topic_configs(&self, _: &Context, request: UpdateConfigs) -> Result<TopicInfo> {
        let mut state = self.state.lock();
        let topic = state
            .topics
            .get_mut(&request.topic)
            .ok_or_else(|| no_topic(&request.topic))?;
        for (name, change) in request.changes {
            match change {
                ConfigChange::Set(value) => drop(topic.info.configs.insert(name, value)),
                _ => drop(topic.info.configs.remove(&name)),
            }
        }
        let info = topic.info.clone();
        drop(state);
        self.metadata.send_modify(|v| *v += 1);
        Ok(info)
    }

    async fn add_partitions(&self, _: &Context, request: AddPartitions) -> Result<TopicInfo> {
        let mut state = self.state.lock();
        let topic = state
            .topics
            .get_mut(&request.topic)
            .ok_or_else(|| no_topic(&request.topic))?;
        topic
            .parts
            .resize_with(usize::try_from(request.total).unwrap(), Part::default);
        topic.info.partitions = request.total;
        let info = topic.info.clone();
        drop(state);
        self.metadata.send_modify(|v| *v += 1);
        Ok(info)
    }

    async fn delete_records(&self, _: &Context, items: Vec<DeleteBefore>) -> Vec<Result<Offset>> {
        let mut state = self.state.lock();
        items
            .into_iter()
            .map(|item| {
                let tp = item.partition;
                part(&state, &tp.topic, tp.partition)?;
                let topic = state.topics.get_mut(&tp.topic).unwrap();
                let part = &mut topic.parts[usize::try_from(tp.partition.0).unwrap()];
                part.start = match item.before {
                    Before::Offset(offset) => offset.get(),
                    Before::Timestamp(_) => part.start,
                    Before::End => part.next,
                };
                Ok(at(part.start))
            })
            .collect()
    }

    async fn heartbeat(&self, _: &Context, request: Heartbeat) -> Result<HeartbeatReply> {
        let until = tokio::time::Instant::now() + request.max_wait;
        let mut changes = self.metadata.subscribe();
        let mut first = true;
        loop {
            changes.borrow_and_update();
            let (reply, news) = {
                let mut state = self.state.lock();
                let State { groups, topics, .. } = &mut *state;
                let group = groups.entry(request.group.clone()).or_default();
                if request.leave {
                    group.members.remove(&request.member).ok_or_else(unknown)?;
                    group.epoch += 1;
                    drop(state);
                    self.metadata.send_modify(|v| *v += 1);
                    return Ok(reply(-1, None));
                }
                let mut news = false;
                if first && request.member_epoch == 0 {
                    group.epoch += 1;
                    let topics = request.subscription.clone().unwrap().topics;
                    group.members.insert(
                        request.member.clone(),
                        Member {
                            topics,
                            ..Member::default()
                        },
                    );
                    news = true;
                }
                let member = group.members.get_mut(&request.member).ok_or_else(unknown)?;
                let owned: BTreeSet<_> = request
                    .owned
                    .clone()
                    .unwrap_or_default()
                    .into_iter()
                    .collect();
                news |= member.owned != owned;
                member.owned.clone_from(&owned);
                member.epoch = group.epoch;
                let count = |topic: &TopicName| topics.get(topic).map_or(0, |t| t.parts.len());
                let may_own = group.may_own(&request.member, count);
                let differs = (may_own != owned).then(|| may_own.into_iter().collect::<Vec<_>>());
                // What others wait for is held until they are told.
                if let Some(list) = &differs {
                    let member = group.members.get_mut(&request.member).unwrap();
                    member.owned.extend(list.iter().cloned());
                }
                (reply(group.epoch, differs), news)
            };
            first = false;
            if news {
                self.metadata.send_modify(|v| *v += 1);
                changes.borrow_and_update();
            }
            let done = reply.assignment.is_some();
            if done
                || tokio::time::timeout_at(until, changes.changed())
                    .await
                    .is_err()
            {
                return Ok(reply);
            }
        }
    }

    async fn commit_offsets(&self, _: &Context, request: CommitOffsets) -> Result<Vec<Result<()>>> {
        let mut state = self.state.lock();
        let group = state.groups.entry(request.group).or_default();
        if let Some(id) = request.member {
            let member = group.members.get(&id).ok_or_else(unknown)?;
            if request.member_epoch < member.epoch {
                return Err(Error::new(ErrorKind::StaleMemberEpoch, "heartbeat first"));
            }
        }
        for commit in &request.offsets {
            group
                .offsets
                .insert(commit.partition.clone(), commit.offset);
        }
        Ok(request.offsets.iter().map(|_| Ok(())).collect())
    }

    async fn committed_offsets(
        &self,
        _: &Context,
        request: GetOffsets,
    ) -> Result<Vec<CommittedOffset>> {
        let state = self.state.lock();
        let group = state.groups.get(&request.group).ok_or_else(no_group)?;
        let wanted = |tp: &&TopicPartition| {
            request.partitions.is_empty() || request.partitions.contains(*tp)
        };
        let committed = |tp: &TopicPartition| CommittedOffset {
            partition: tp.clone(),
            offset: group.offsets[tp],
            leader_epoch: None,
            metadata: String::new(),
            commit_time_ms: 7,
            high_watermark: None,
            next_time_ms: None,
        };
        Ok(group.offsets.keys().filter(wanted).map(committed).collect())
    }

    async fn reset_offsets(&self, _: &Context, _: ResetOffsets) -> Result<Vec<CommittedOffset>> {
        Err(Error::new(ErrorKind::GroupNotEmpty, "members"))
    }

    async fn delete_offsets(
        &self,
        _: &Context,
        _: &GroupName,
        partitions: Vec<TopicPartition>,
    ) -> Result<Vec<Result<()>>> {
        Ok(partitions
            .iter()
            .map(|_| Err(Error::new(ErrorKind::GroupNotEmpty, "members")))
            .collect())
    }

    async fn groups(&self, _: &Context) -> Result<Vec<GroupListing>> {
        let state = self.state.lock();
        let listing = |(name, group): (&GroupName, &Group)| GroupListing {
            group: name.clone(),
            state: if group.members.is_empty() {
                GroupState::Empty
            } else {
                GroupState::Stable
            },
            coordinator: NodeId(1),
            members: group.members.len(),
            simple: false,
            protocol: GroupProtocol::Consumer,
            classic: None,
        };
        Ok(state.groups.iter().map(listing).collect())
    }

    async fn group(&self, _: &Context, group: &GroupName) -> Result<GroupInfo> {
        let _ = group;
        Err(no_group())
    }

    async fn delete_group(&self, _: &Context, group: &GroupName) -> Result<()> {
        self.state
            .lock()
            .groups
            .remove(group)
            .map(|_| ())
            .ok_or_else(no_group)
    }

    async fn remove_members(
        &self,
        _: &Context,
        group: &GroupName,
        _: Vec<MemberId>,
    ) -> Result<Vec<MemberId>> {
        let mut state = self.state.lock();
        let group = state.groups.get_mut(group).ok_or_else(no_group)?;
        let gone = std::mem::take(&mut group.members).into_keys().collect();
        drop(state);
        self.metadata.send_modify(|v| *v += 1);
        Ok(gone)
    }

    fn node(&self) -> NodeInfo {
        NodeInfo {
            version: "0.1.0",
            revision: "",
            cluster: ClusterId(7),
            node: NodeId(1),
            features: vec!["fetch-stream"],
            max_request_bytes: varve_types::limits::REQUEST_MAX_BYTES,
            max_fetch_bytes: varve_types::limits::FETCH_MAX_BYTES,
            request_timeout_ms: 5_000,
            now_ms: 1_700_000_000_123,
            listeners: Default::default(),
        }
    }

    fn nodes(&self) -> Vec<NodeStatus> {
        vec![NodeStatus {
            node: NodeId(1),
            address: "127.0.0.1:8278".to_owned(),
            listeners: Default::default(),
            rack: String::new(),
            state: NodeState::Active,
            version: "0.1.0".to_owned(),
            controller: true,
        }]
    }

    fn health(&self) -> ClusterHealth {
        ClusterHealth {
            controller: Some(NodeId(1)),
            ..ClusterHealth::default()
        }
    }

    fn metadata_version(&self) -> u64 {
        *self.metadata.borrow()
    }

    async fn metadata_newest(&self) -> bool {
        let news = std::mem::take(&mut self.state.lock().news);
        for (topic, partitions) in news {
            self.topic(&topic, partitions);
        }
        true
    }

    async fn metadata_changed(&self, seen: u64) -> u64 {
        let mut changes = self.metadata.subscribe();
        let found = changes.wait_for(|v| *v > seen).await.map(|v| *v);
        match found {
            Ok(version) => version,
            Err(_) => std::future::pending().await,
        }
    }
}
