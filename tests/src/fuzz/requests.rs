//! Whole requests of the Kafka protocol: bytes become frames, frames requests, and requests are answered by a broker
//! of its own on a disk in memory. Whatever they are, nothing panics, and what is answered is a response of the API and
//! version that was asked, within a bound.
//!
//! A broker serves some inputs and is replaced, so that what one of them leaves behind meets the next and does not
//! grow. Nothing is waited for that requests wait for among themselves: a call that takes long is dropped, as at the
//! end of a connection.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::runtime::Runtime;
use varve_broker::{Broker, BrokerConfig};
use varve_broker_api::{Broker as _, Context, CreateTopic};
use varve_frontend_kafka::wire::generated::{
    create_topics, fetch, find_coordinator, init_producer_id, join_group, list_offsets, metadata,
    offset_commit, produce,
};
use varve_frontend_kafka::wire::{
    ApiKey, FrameReader, Request, Response, Text, decode_request, decode_response, encode_request,
};
use varve_frontend_kafka::{Metrics, Options, Outcome, Server};
use varve_record::{BatchBuilder, Compression};
use varve_types::{ClusterId, NodeId};
use varve_vfs::mem::MemVfs;
use varve_vfs::{SystemClock, Vfs};

/// Longest frame that the target takes.
const FRAME_MAX_BYTES: usize = 1 << 16;
/// Most frames of one input.
const FRAMES_MAX: usize = 16;
/// Inputs that one broker serves.
const INPUTS: u32 = 64;
/// How long a request is waited for.
const PATIENCE: Duration = Duration::from_millis(20);
/// More partitions than this are not created: they would cost time and find nothing.
const PARTITIONS_MAX: i32 = 8;
/// Most bytes of an answer: what there is at most here, told once for each time that a frame can name it.
const ANSWER_MAX_BYTES: usize = 64 << 20;

/// A broker and its front end.
struct World {
    runtime: Runtime,
    broker: Broker,
    server: Server<Broker>,
    /// A call that is not answered in this time is given up.
    patience: Duration,
    served: u32,
}

impl World {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let (broker, server) = runtime.block_on(Self::start());
        Self {
            runtime,
            broker,
            server,
            served: 0,
            patience: PATIENCE,
        }
    }

    async fn start() -> (Broker, Server<Broker>) {
        let data = PathBuf::from("/data");
        let disk = Arc::new(MemVfs::new());
        varve_vfs::durable::create_dir_all(&*disk, &data).expect("a directory in memory");
        let mut config = BrokerConfig::new(data, ClusterId(1), NodeId(1));
        config.offsets_partitions = 1;
        config.transactions_partitions = 1;
        config.min_free_bytes = 0;
        config.journal_max_bytes = 0;
        config.scrub_bytes_per_second = 0;
        config.offsets_segment_bytes = 1 << 20;
        let clock = Arc::new(SystemClock::new());
        let broker = Broker::start(config, disk as Arc<dyn Vfs>, clock).await;
        let broker = broker.expect("the broker starts");
        let topic = CreateTopic {
            topic: "orders".parse().expect("a name"),
            partitions: Some(2),
            replication_factor: None,
            configs: BTreeMap::new(),
            labels: BTreeMap::new(),
            placement: BTreeMap::new(),
            validate_only: false,
            request_id: None,
        };
        let created = broker.create_topic(&Context::anonymous(), topic).await;
        created.expect("a topic");
        let options = Options {
            advertised: "127.0.0.1:9092".to_owned(),
            auto_create: true,
            ..Options::default()
        };
        let server = Server::new(Arc::new(broker.clone()), Metrics::default(), options);
        (broker, server.expect("the address is one"))
    }

    /// What became of each frame.
    fn serve(&mut self, data: &[u8]) -> Vec<Option<Response>> {
        self.served += 1;
        let mut responses = Vec::new();
        let reader = FrameReader::new(FRAME_MAX_BYTES);
        for frame in frames(data) {
            let mut buffer = BytesMut::new();
            buffer.extend_from_slice(&(frame.len() as u32).to_be_bytes());
            buffer.extend_from_slice(frame);
            if let Ok(Some(frame)) = reader.next(&mut buffer) {
                responses.push(self.ask(frame));
            }
        }
        responses
    }

    /// The response, where there is one.
    fn ask(&self, frame: Bytes) -> Option<Response> {
        let asked = decode_request(frame.clone());
        if asked.as_ref().is_ok_and(|(_, request)| is_large(request)) {
            return None;
        }
        let peer = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
        let answer = self.runtime.block_on(async {
            tokio::time::timeout(self.patience, self.server.answer(peer, frame)).await
        });
        let Ok(Outcome::Frame(answer)) = answer else {
            return None;
        };
        assert!(answer.len() <= ANSWER_MAX_BYTES, "{} bytes", answer.len());
        let length = u32::try_from(answer.len() - 4).expect("it is bounded");
        assert_eq!(answer[..4], length.to_be_bytes());
        let (key, version, id) = match asked {
            Ok((header, request)) => {
                let prefix = header.prefix;
                (request.key(), prefix.api_version, prefix.correlation_id)
            }
            // Only this is answered in a version that both sides know.
            Err(_) => (ApiKey::ApiVersions, 0, -1),
        };
        let response = decode_response(key, version, answer.slice(4..));
        let (answered, response) = response.expect("an answer is a response of what was asked");
        assert_eq!(response.key(), key);
        assert!(id == -1 || answered == id, "{answered} for {id}");
        Some(response)
    }

    fn end(self) {
        self.runtime.block_on(self.broker.shutdown());
        self.runtime.shutdown_timeout(Duration::from_secs(5));
    }
}

/// Frames of an input: each behind its length, of 16 bits; the last may say more than there is.
fn frames(data: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = data;
    let each = std::iter::from_fn(move || {
        let (length, tail) = rest.split_first_chunk::<2>()?;
        let length = usize::from(u16::from_be_bytes(*length)).min(tail.len());
        let (frame, tail) = tail.split_at(length);
        rest = tail;
        Some(frame)
    });
    each.take(FRAMES_MAX)
}

/// Whether it asks for more partitions than are worth their time.
fn is_large(request: &Request) -> bool {
    match request {
        Request::CreateTopics(r) => {
            let large = |t: &create_topics::CreatableTopic| {
                t.num_partitions > PARTITIONS_MAX || t.assignments.len() > 8
            };
            r.topics.len() > 8 || r.topics.iter().any(large)
        }
        Request::CreatePartitions(r) => r.topics.iter().any(|t| t.count > PARTITIONS_MAX),
        Request::Metadata(r) => r.topics.as_ref().is_some_and(|all| all.len() > 8),
        _ => false,
    }
}

/// See the module.
///
/// # Panics
/// When a property is broken.
pub fn requests(data: &[u8]) {
    thread_local! {
        static WORLD: RefCell<Option<World>> = const { RefCell::new(None) };
    }
    WORLD.with_borrow_mut(|world| {
        if let Some(old) = world.take_if(|world| world.served >= INPUTS) {
            old.end();
        }
        world.get_or_insert_with(World::new).serve(data);
    });
}

/// Where fuzzing begins, by name.
#[must_use]
pub fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let text = Text::from_static;
    let asked = |version, request: Request| {
        let frame = encode_request(7, Some(text("seed")), version, &request);
        let frame = frame.expect("a request").into_bytes().slice(4..);
        let length = u16::try_from(frame.len()).expect("it is short");
        [&length.to_be_bytes()[..], &frame].concat()
    };
    let append = |version, records: Bytes| {
        let topic = produce::TopicProduceData {
            name: text("orders"),
            partition_data: vec![produce::PartitionProduceData {
                index: 0,
                records: Some(records),
            }],
            ..produce::TopicProduceData::default()
        };
        let request = produce::ProduceRequest {
            acks: -1,
            timeout_ms: 1000,
            topic_data: vec![topic],
            ..produce::ProduceRequest::default()
        };
        asked(version, Request::Produce(request))
    };
    let mut batch = BatchBuilder::new(Compression::Gzip, None);
    batch
        .append(5, Some(b"key"), Some(b"value"), &[])
        .expect("a record");
    let batch = batch.build().expect("a batch");
    let sets = super::records::message_set_seeds();
    let old = |at: usize| append(2, Bytes::from(sets[at].1.clone()));
    let fetch = asked(
        12,
        Request::Fetch(fetch::FetchRequest {
            max_bytes: 1 << 20,
            topics: vec![fetch::FetchTopic {
                topic: text("orders"),
                partitions: vec![fetch::FetchPartition {
                    partition_max_bytes: 1 << 20,
                    ..fetch::FetchPartition::default()
                }],
                ..fetch::FetchTopic::default()
            }],
            ..fetch::FetchRequest::default()
        }),
    );
    let read_back = [append(9, batch), old(0), old(1), fetch].concat();
    vec![
        ("read-back", read_back),
        ("topics", topics(&asked)),
        ("groups", groups(&asked)),
        (
            "unknown-versions",
            vec![0, 10, 0, 18, 0, 99, 0, 0, 0, 5, 0, 0],
        ),
    ]
}

fn topics(asked: &dyn Fn(i16, Request) -> Vec<u8>) -> Vec<u8> {
    let text = Text::from_static;
    let created = create_topics::CreateTopicsRequest {
        topics: vec![create_topics::CreatableTopic {
            name: text("made"),
            num_partitions: 2,
            replication_factor: 1,
            ..create_topics::CreatableTopic::default()
        }],
        ..create_topics::CreateTopicsRequest::default()
    };
    let known = metadata::MetadataRequest {
        topics: None,
        allow_auto_topic_creation: true,
        ..metadata::MetadataRequest::default()
    };
    let place = list_offsets::ListOffsetsRequest {
        replica_id: -1,
        topics: vec![list_offsets::ListOffsetsTopic {
            name: text("orders"),
            partitions: vec![list_offsets::ListOffsetsPartition {
                timestamp: -1,
                ..list_offsets::ListOffsetsPartition::default()
            }],
        }],
        ..list_offsets::ListOffsetsRequest::default()
    };
    [
        asked(5, Request::CreateTopics(created)),
        asked(9, Request::Metadata(known)),
        asked(7, Request::ListOffsets(place)),
    ]
    .concat()
}

fn groups(asked: &dyn Fn(i16, Request) -> Vec<u8>) -> Vec<u8> {
    let text = Text::from_static;
    let find = find_coordinator::FindCoordinatorRequest {
        key: text("group"),
        ..find_coordinator::FindCoordinatorRequest::default()
    };
    let join = join_group::JoinGroupRequest {
        group_id: text("group"),
        session_timeout_ms: 10_000,
        rebalance_timeout_ms: 10_000,
        protocol_type: text("consumer"),
        protocols: vec![join_group::JoinGroupRequestProtocol {
            name: text("range"),
            metadata: Bytes::from_static(b"subscription"),
        }],
        ..join_group::JoinGroupRequest::default()
    };
    let commit = offset_commit::OffsetCommitRequest {
        group_id: text("group"),
        generation_id_or_member_epoch: -1,
        topics: vec![offset_commit::OffsetCommitRequestTopic {
            name: text("orders"),
            partitions: vec![offset_commit::OffsetCommitRequestPartition::default()],
            ..offset_commit::OffsetCommitRequestTopic::default()
        }],
        ..offset_commit::OffsetCommitRequest::default()
    };
    let session = init_producer_id::InitProducerIdRequest {
        transactional_id: Some(text("writer")),
        transaction_timeout_ms: 60_000,
        ..init_producer_id::InitProducerIdRequest::default()
    };
    [
        asked(2, Request::FindCoordinator(find)),
        asked(3, Request::JoinGroup(join)),
        asked(8, Request::OffsetCommit(commit)),
        asked(5, Request::InitProducerId(session)),
    ]
    .concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seeds_reach_the_broker_and_are_answered() {
        let mut world = World::new();
        // A machine that is busy is no reason to give up.
        world.patience = Duration::from_secs(10);
        let mut appended = Vec::new();
        for (name, seed) in seeds() {
            for response in world.serve(&seed) {
                match response {
                    Some(Response::Produce(response)) => {
                        let part = &response.responses[0].partition_responses[0];
                        appended.push((part.error_code, part.base_offset));
                    }
                    Some(Response::Fetch(response)) => {
                        let part = &response.responses[0].partitions[0];
                        assert_eq!((part.error_code, part.high_watermark), (0, 5));
                    }
                    Some(_) => {}
                    // A join waits for others.
                    None => assert_eq!(name, "groups"),
                }
            }
        }
        assert_eq!(appended, [(0, 0), (0, 1), (0, 3)]);
        world.end();
    }
}
