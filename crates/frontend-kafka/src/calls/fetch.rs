//! Reads, with and without sessions. Batches go out as they are stored, markers of transactions among them; a reader
//! of committed records is told which transactions were aborted, and leaves them out by itself.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use varve_broker_api::{
    Broker, Context, Error, Fetch, FetchPartition, Fetched, Isolation, PartitionFetched,
};
use varve_record::{BatchHeader, filler};
use varve_types::{ErrorKind, NodeId, Offset, PartitionId, TopicId, TopicName, TopicPartition};

use super::{Call, Sent};
use crate::ahead::{Next, ReadAhead};
use crate::following::{Follows, Place, Turn};
use crate::sessions::{Asked, Named, Plan, Told, Want};
use crate::shared::{Shared, Topics};
use crate::translate::{code, epoch, partition, size, topic_name};
use crate::wire::generated::fetch::{
    AbortedTransaction, EpochEndOffset, FetchRequest, FetchResponse, FetchableTopicResponse,
    LeaderIdAndEpoch, NodeEndpoint, PartitionData,
};
use crate::wire::{ErrorCode, Text, Uuid};

/// From this version on topics are given by their ids.
const BY_ID_FROM: i16 = 13;
/// From this version on the leader is named beside the error, and a reader is told where its log parts from the
/// leader's.
const LEADER_FROM: i16 = 12;
/// From this version on readers say in which rack they are.
const RACK_FROM: i16 = 11;
/// From this version on addresses of leaders are named.
const ENDPOINTS_FROM: i16 = 16;

/// A partition of a plan on its way.
struct Part {
    named: Named,
    /// Where it was to begin.
    offset: i64,
    /// Which of the broker's answers is its; otherwise what is known without the broker.
    index: Result<usize, PartitionData>,
    /// The node that the reader had better ask (KIP-392). It gets no records here.
    nearer: Option<i32>,
}

pub(super) async fn fetch<B: Broker>(
    shared: &Shared<B>,
    call: &Call,
    mut request: FetchRequest,
    turn: Turn,
) -> (FetchResponse, Sent) {
    let plan = match plan(shared, call, &mut request) {
        Ok(plan) => plan,
        Err(error) => {
            let response = FetchResponse {
                error_code: error.code(),
                ..FetchResponse::default()
            };
            return (response, Sent::default());
        }
    };
    let isolation = match request.isolation_level {
        1 => Isolation::Committed,
        _ => Isolation::Uncommitted,
    };
    let topics = shared.topics().unwrap_or_default();
    let (session, incremental) = (plan.session, plan.incremental);
    let mut near = Near::new(shared, call, &topics, request.rack_id.as_str());
    let (parts, partitions) = prepare(&mut near, plan);
    // Readers that have to go back or elsewhere, and those of which nothing is left, need not wait for others' records.
    let urgent = |part: &Part| {
        let known = part.index.as_ref().err();
        part.nearer.is_some() || known.is_some_and(|data| data.error_code == 0)
    };
    let max_bytes = size(request.max_bytes).max(1);
    let most = turn.most(partitions.len(), size(request.min_bytes), shared.is_quiet());
    let max_bytes = shared.read_share(max_bytes.min(most));
    // A full answer need not wait, nor one that may be empty.
    let min_bytes = size(request.min_bytes).min(max_bytes);
    let at_once = partitions.is_empty() || min_bytes == 0;
    let wait = match at_once || parts.iter().any(urgent) {
        true => 0,
        false => u64::try_from(request.max_wait_ms).unwrap_or(0),
    };
    let mut wanted = Fetch {
        partitions,
        max_wait: Duration::from_millis(wait),
        min_bytes,
        max_bytes,
        isolation,
        raw: true,
    };
    // In a session it is their turn in the order of the plan.
    let first = match session {
        0 => first(&wanted.partitions, turn.last.as_ref()),
        _ => 0,
    };
    wanted.partitions.rotate_left(first);
    let ctx = Context {
        rack: Arc::from(request.rack_id.as_str()),
        ..call.ctx.clone()
    };
    let mut found = match read(shared, &ctx, &wanted, turn.ahead).await {
        Ok(found) => found,
        Err(error) => {
            shared.count(&error);
            let response = FetchResponse {
                error_code: code(error.kind).code(),
                session_id: session,
                ..FetchResponse::default()
            };
            return (response, Sent::default());
        }
    };
    let nearer = parts.iter().filter(|part| part.nearer.is_some());
    let elsewhere: Vec<_> = nearer.map(|part| part.named.partition).collect();
    let next = Next::after(&ctx, &wanted, &found, |asked| {
        elsewhere.contains(&asked.partition.0)
    });
    let last = last(&found);
    let first = first.min(found.len());
    found.rotate_right(first);
    let (response, bytes) = answer(
        shared,
        call,
        (session, incremental),
        isolation,
        (parts, found),
    );
    let sent = Sent {
        outgoing: Some(shared.outgoing(bytes)),
        follows: Some(Box::new(Follows { next, last, bytes })),
    };
    (response, sent)
}

/// Whose turn it is after that one.
fn first(partitions: &[FetchPartition], last: Option<&Place>) -> usize {
    let is_last = |(topic, partition): &Place| {
        let same = |p: &FetchPartition| p.partition == *partition && p.topic == *topic;
        partitions.iter().position(same)
    };
    let at = last.and_then(is_last);
    at.map_or(0, |at| (at + 1) % partitions.len())
}

/// Who had its turn last.
fn last(found: &[PartitionFetched]) -> Option<Place> {
    let has_some = |found: &&PartitionFetched| {
        let read = found.result.as_ref();
        read.is_ok_and(|read| !read.batches.is_empty())
    };
    let last = found.iter().rev().find(has_some)?;
    Some((last.topic.clone(), last.partition))
}

/// Reads, or takes what was read ahead.
async fn read<B: Broker>(
    shared: &Shared<B>,
    ctx: &Context,
    wanted: &Fetch,
    ahead: Option<ReadAhead>,
) -> Result<Vec<PartitionFetched>, Error> {
    if let Some(ahead) = ahead
        && let Some(found) = ahead.serve(ctx, wanted).await
    {
        return Ok(found);
    }
    shared.broker.fetch(ctx, wanted.clone()).await
}

/// What is to be read, after the session.
fn plan<B: Broker>(
    shared: &Shared<B>,
    call: &Call,
    request: &mut FetchRequest,
) -> Result<Plan, ErrorCode> {
    if request.replica_id >= 0 || request.replica_state.replica_id >= 0 {
        // Replicas of ours speak another protocol.
        return Err(ErrorCode::InvalidRequest);
    }
    let by_id = call.version() >= BY_ID_FROM;
    let mut wanted = Vec::new();
    for topic in std::mem::take(&mut request.topics) {
        for p in topic.partitions {
            let named = Named {
                id: topic.topic_id,
                topic: topic.topic.clone(),
                partition: p.partition,
            };
            let want = Want {
                offset: p.fetch_offset,
                max_bytes: p.partition_max_bytes,
                leader_epoch: p.current_leader_epoch,
                last_epoch: p.last_fetched_epoch,
            };
            wanted.push((named, want));
        }
    }
    let mut forgotten = Vec::new();
    for topic in std::mem::take(&mut request.forgotten_topics_data) {
        forgotten.extend(topic.partitions.into_iter().map(|partition| Named {
            id: topic.topic_id,
            topic: topic.topic.clone(),
            partition,
        }));
    }
    let asked = Asked {
        id: request.session_id,
        epoch: request.session_epoch,
        by_id,
    };
    let mut sessions = shared.sessions.lock();
    let plan = sessions.plan(shared.now(), asked, wanted, &forgotten);
    shared.metrics.fetch_sessions(sessions.len());
    plan
}

/// What the broker is asked, and what is known without it.
fn prepare<B: Broker>(near: &mut Near<'_, B>, plan: Plan) -> (Vec<Part>, Vec<FetchPartition>) {
    let (shared, call, topics) = (near.shared, near.call, near.topics);
    let mut asked = Vec::with_capacity(plan.partitions.len());
    let parts = plan.partitions.into_iter().map(|(named, want)| {
        let mut nearer = None;
        let index = match question(shared, call, topics, &named, want) {
            Ok(question) => {
                nearer = near.of(&question.topic, question.partition);
                asked.push(question);
                Ok(asked.len() - 1)
            }
            Err(known) => Err(*known),
        };
        let offset = want.offset;
        Part {
            named,
            offset,
            index,
            nearer,
        }
    });
    let parts = parts.collect();
    (parts, asked)
}

fn question<B: Broker>(
    shared: &Shared<B>,
    call: &Call,
    topics: &Topics,
    named: &Named,
    want: Want,
) -> Result<FetchPartition, Box<PartitionData>> {
    let failed = |error: ErrorCode| Box::new(failed(named.partition, error));
    let topic = match named.id {
        Uuid::ZERO if call.version() < BY_ID_FROM => {
            topic_name(&named.topic).map_err(|_| failed(ErrorCode::UnknownTopicOrPartition))?
        }
        id => topics
            .name(TopicId(id.0))
            .cloned()
            .ok_or_else(|| failed(ErrorCode::UnknownTopicId))?,
    };
    let number =
        partition(named.partition).ok_or_else(|| failed(ErrorCode::UnknownTopicOrPartition))?;
    let offset = Offset::new(want.offset).ok_or_else(|| failed(ErrorCode::OffsetOutOfRange))?;
    if let Some(diverging) = parted(shared, call, &topic, named.partition, want) {
        return Err(Box::new(diverging));
    }
    Ok(FetchPartition {
        topic,
        partition: number,
        offset,
        max_bytes: size(want.max_bytes),
        leader_epoch: epoch(want.leader_epoch),
    })
}

/// The answer to a reader whose log is not the beginning of the leader's: where it has to go back to.
fn parted<B: Broker>(
    shared: &Shared<B>,
    call: &Call,
    topic: &TopicName,
    number: i32,
    want: Want,
) -> Option<PartitionData> {
    let last = epoch(want.last_epoch).filter(|_| call.version() >= LEADER_FROM)?;
    let place = TopicPartition::new(topic.clone(), partition(number)?);
    // Errors are told with the read: also that this node does not know yet of the leader which the reader knows, and
    // then it cannot know where that one's log parts from its own either.
    let current = epoch(want.leader_epoch);
    let end = shared
        .broker
        .epoch_end(&call.ctx, &place, last, current)
        .ok()??;
    if end.epoch >= last && end.end.get() >= want.offset {
        return None;
    }
    Some(PartitionData {
        diverging_epoch: EpochEndOffset {
            epoch: end.epoch.get(),
            end_offset: end.end.get(),
        },
        ..failed(number, ErrorCode::None)
    })
}

fn failed(partition_index: i32, error: ErrorCode) -> PartitionData {
    PartitionData {
        partition_index,
        error_code: error.code(),
        high_watermark: -1,
        // Some clients take null for damage.
        records: Some(bytes::Bytes::new()),
        ..PartitionData::default()
    }
}

fn answer<B: Broker>(
    shared: &Shared<B>,
    call: &Call,
    (session, incremental): (i32, bool),
    isolation: Isolation,
    (parts, found): (Vec<Part>, Vec<PartitionFetched>),
) -> (FetchResponse, usize) {
    let mut response = FetchResponse {
        session_id: session,
        ..FetchResponse::default()
    };
    let mut found: Vec<Option<PartitionFetched>> = found.into_iter().map(Some).collect();
    let (mut leaders, mut bytes) = (Vec::new(), 0);
    for part in parts {
        let (data, told) = match &part.index {
            Err(known) => (known.clone(), None),
            Ok(index) => match found.get_mut(*index).and_then(Option::take) {
                Some(PartitionFetched {
                    result: Ok(read), ..
                }) => {
                    let told = told(&read);
                    let mut data = data(&part, isolation, read);
                    if let Some(nearer) = part.nearer {
                        data.preferred_read_replica = nearer;
                        data.records = Some(bytes::Bytes::new());
                    }
                    // Where to go is told each time: a reader that is here again has forgotten it.
                    (data, Some(told).filter(|_| part.nearer.is_none()))
                }
                Some(PartitionFetched {
                    result: Err(error), ..
                }) => (
                    refused(shared, call, &part.named, &error, &mut leaders),
                    None,
                ),
                // The broker answers each question.
                None => (
                    failed(part.named.partition, ErrorCode::UnknownServerError),
                    None,
                ),
            },
        };
        let length = data.records.as_ref().map_or(0, bytes::Bytes::len);
        bytes += length;
        let new = session == 0
            || shared
                .sessions
                .lock()
                .tell(session, &part.named, told, length > 0);
        if new || !incremental {
            push(&mut response, part.named, data);
        }
    }
    if call.version() >= ENDPOINTS_FROM && !leaders.is_empty() {
        response.node_endpoints = endpoints(shared, &leaders);
    }
    (response, bytes)
}

fn push(response: &mut FetchResponse, named: Named, data: PartitionData) {
    let same = |t: &&mut FetchableTopicResponse| t.topic == named.topic && t.topic_id == named.id;
    match response.responses.last_mut().filter(same) {
        Some(topic) => topic.partitions.push(data),
        None => response.responses.push(FetchableTopicResponse {
            topic: named.topic,
            topic_id: named.id,
            partitions: vec![data],
        }),
    }
}

fn told(read: &Fetched) -> Told {
    Told {
        high_watermark: read.high_watermark.get(),
        last_stable: read.last_stable.get(),
        log_start: read.log_start.get(),
    }
}

/// An empty batch for offsets of which nothing is left: without it a reader would ask for them for ever.
fn skipped(from: i64, read: &Fetched) -> Option<bytes::Bytes> {
    let from = Offset::new(from)?;
    if !read.batches.is_empty() || read.next_offset <= from {
        return None;
    }
    let header = BatchHeader {
        base_offset: from,
        batch_length: 0,
        leader_epoch: read.leader_epoch,
        crc: 0,
        attributes: 0,
        last_offset_delta: 0,
        base_timestamp: -1,
        max_timestamp: -1,
        producer_id: -1,
        producer_epoch: -1,
        base_sequence: -1,
        record_count: 0,
    };
    Some(filler(from, read.next_offset, &header).to_bytes())
}

/// Replicas in sync that are nearer to the reader than this node (KIP-392).
struct Near<'a, B> {
    shared: &'a Shared<B>,
    call: &'a Call,
    topics: &'a Topics,
    /// Nodes in the reader's rack; none when this one is in it.
    nodes: Vec<NodeId>,
    /// Of each topic that was asked for, by partition: where to go.
    known: HashMap<TopicName, Vec<(PartitionId, i32)>>,
}

impl<'a, B: Broker> Near<'a, B> {
    fn new(shared: &'a Shared<B>, call: &'a Call, topics: &'a Topics, rack: &'a str) -> Self {
        let mut nodes = Vec::new();
        if !rack.is_empty() && call.version() >= RACK_FROM {
            let all = shared.endpoints().into_iter();
            nodes = all.filter(|e| e.rack == rack).map(|e| e.node).collect();
        }
        if nodes.contains(&shared.node) {
            nodes.clear();
        }
        Self {
            shared,
            call,
            topics,
            nodes,
            known: HashMap::new(),
        }
    }

    /// The node that the reader had better ask, of what this one leads.
    fn of(&mut self, topic: &TopicName, partition: PartitionId) -> Option<i32> {
        if self.nodes.is_empty() {
            return None;
        }
        if !self.known.contains_key(topic) {
            self.known.insert(topic.clone(), self.look_up(topic));
        }
        let known = self.known.get(topic)?;
        let at = known.binary_search_by_key(&partition, |(number, _)| *number);
        known.get(at.ok()?).map(|(_, node)| *node)
    }

    fn look_up(&self, topic: &TopicName) -> Vec<(PartitionId, i32)> {
        let all = self.shared.broker.partitions(&self.call.ctx, topic);
        let led = all.unwrap_or_default().into_iter();
        let led = led.filter(|p| p.leader == Some(self.shared.node));
        let near = led.filter_map(|p| {
            let mut near = p.in_sync.iter().filter(|node| self.nodes.contains(node));
            near.next().map(|node| (p.partition, node.0))
        });
        let mut near: Vec<_> = near.collect();
        near.sort_unstable();
        near
    }
}

fn data(part: &Part, isolation: Isolation, read: Fetched) -> PartitionData {
    let aborted = read.aborted.iter().map(|aborted| AbortedTransaction {
        producer_id: aborted.producer,
        first_offset: aborted.first.get(),
    });
    let skipped = skipped(part.offset, &read);
    PartitionData {
        partition_index: part.named.partition,
        high_watermark: read.high_watermark.get(),
        last_stable_offset: read.last_stable.get(),
        log_start_offset: read.log_start.get(),
        aborted_transactions: (isolation == Isolation::Committed).then(|| aborted.collect()),
        records: Some(skipped.unwrap_or(read.batches)),
        ..PartitionData::default()
    }
}

fn refused<B: Broker>(
    shared: &Shared<B>,
    call: &Call,
    named: &Named,
    error: &Error,
    leaders: &mut Vec<NodeId>,
) -> PartitionData {
    shared.count(error);
    let code = match error.kind {
        ErrorKind::TopicNotFound if named.id != Uuid::ZERO => ErrorCode::UnknownTopicId,
        // Readers ask for the leader anew.
        ErrorKind::LeaderNotAvailable => ErrorCode::NotLeaderOrFollower,
        kind => code(kind),
    };
    let mut data = failed(named.partition, code);
    let leader = error.leader.as_ref();
    if let Some(leader) = leader.filter(|_| call.version() >= LEADER_FROM) {
        data.current_leader = LeaderIdAndEpoch {
            leader_id: leader.node.0,
            leader_epoch: leader.epoch.get(),
        };
        leaders.push(leader.node);
    }
    data
}

fn endpoints<B: Broker>(shared: &Shared<B>, leaders: &[NodeId]) -> Vec<NodeEndpoint> {
    let all = shared.endpoints().into_iter();
    let named = all.filter(|e| leaders.contains(&e.node));
    named
        .map(|e| NodeEndpoint {
            node_id: e.node.0,
            host: Text::from(e.host),
            port: e.port.into(),
            rack: (!e.rack.is_empty()).then(|| Text::from(e.rack)),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use varve_record::iter_batches;
    use varve_types::LeaderEpoch;

    use super::*;

    #[test]
    fn partitions_take_turns_in_the_order_of_the_question() {
        let of = |n| FetchPartition {
            topic: "t".parse().unwrap(),
            partition: PartitionId(n),
            offset: Offset::ZERO,
            max_bytes: 1,
            leader_epoch: None,
        };
        let three: Vec<_> = [4, 2, 7].map(of).into();
        let after = |n| first(&three, Some(&("t".parse().unwrap(), PartitionId(n))));
        assert_eq!([after(4), after(2), after(7)], [1, 2, 0]);
        assert_eq!([after(5), first(&three, None), first(&[], None)], [0; 3]);
        let other = ("u".parse().unwrap(), PartitionId(4));
        assert_eq!(first(&three, Some(&other)), 0);
    }

    #[test]
    fn a_reader_is_led_past_offsets_of_which_nothing_is_left() {
        let at = |n| Offset::new(n).unwrap();
        let read = |next| Fetched {
            batches: bytes::Bytes::new(),
            next_offset: at(next),
            high_watermark: at(20),
            last_stable: at(20),
            log_start: at(0),
            leader_epoch: LeaderEpoch::ZERO,
            aborted: Vec::new(),
        };
        assert_eq!(skipped(7, &read(7)), None);
        let batch = skipped(7, &read(12)).unwrap();
        let batch = iter_batches(batch).next().unwrap().unwrap();
        batch.verify_crc().unwrap();
        assert_eq!(batch.header.base_offset, at(7));
        assert_eq!(batch.header.next_offset(), at(12));
        assert_eq!(batch.header.record_count, 0);
    }
}
