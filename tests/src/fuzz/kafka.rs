//! The Kafka protocol: any bytes as a stream of frames, as a request, and as a response. What is read can be
//! written, and is read again as the same.

use bytes::{Bytes, BytesMut};
use varve_frontend_kafka::wire::generated::{
    api_versions, fetch, join_group, metadata, produce, sync_group,
};
use varve_frontend_kafka::wire::reader::{MEMORY_FACTOR, MEMORY_FLOOR};
use varve_frontend_kafka::wire::{
    ApiKey, Frame, FrameReader, Request, Response, Text, Uuid, decode_request, decode_response,
    encode_request, encode_response,
};

/// Longest frame that the target takes.
const FRAME_MAX_BYTES: usize = 1 << 16;

/// The first byte says what the rest is: frames with requests, a request, or a response whose API and version
/// are the two bytes that follow.
///
/// # Panics
/// When a property is broken.
pub fn wire(data: &[u8]) {
    let Some((which, data)) = data.split_first() else {
        return;
    };
    match which % 3 {
        0 => frames(data),
        1 => request(Bytes::copy_from_slice(data)),
        _ => response(data),
    }
}

fn frames(data: &[u8]) {
    let reader = FrameReader::new(FRAME_MAX_BYTES);
    let mut buffer = BytesMut::new();
    let mut given = 0;
    // Bytes arrive in small pieces: what a frame is does not depend on how.
    for piece in data.chunks(7) {
        buffer.extend_from_slice(piece);
        loop {
            match reader.next(&mut buffer) {
                Err(_) => return,
                Ok(None) => break,
                Ok(Some(frame)) => {
                    assert!((8..=FRAME_MAX_BYTES).contains(&frame.len()));
                    given += 4 + frame.len();
                    request(frame);
                }
            }
        }
        let most = 4 * (data.len() + 8 * 1024);
        assert!(
            buffer.capacity() <= most,
            "{} for {}",
            buffer.capacity(),
            data.len()
        );
    }
    assert_eq!(given + buffer.len(), data.len(), "no byte is lost");
}

fn request(frame: Bytes) {
    let length = frame.len();
    let Ok((header, read)) = decode_request(frame) else {
        return;
    };
    let version = header.prefix.api_version;
    assert_eq!(read.key() as i16, header.prefix.api_key);
    let id = header.prefix.correlation_id;
    let written = encode_request(id, header.client_id.clone(), version, &read).unwrap();
    let again = decode_request(body(written)).unwrap();
    assert_eq!(again.0, header);
    assert_eq!(again.1, read);
    assert!(
        length < MEMORY_FLOOR * MEMORY_FACTOR,
        "the fuzzer gives small inputs"
    );
}

fn response(data: &[u8]) {
    let [key, version, rest @ ..] = data else {
        return;
    };
    let key = ApiKey::ALL[usize::from(*key) % ApiKey::ALL.len()];
    let versions = key.first_version()..=key.last_version();
    let version = i16::from(*version) % (versions.end() + 1);
    if !versions.contains(&version) {
        return;
    }
    let Ok((id, read)) = decode_response(key, version, Bytes::copy_from_slice(rest)) else {
        return;
    };
    let written = encode_response(id, version, &read).unwrap();
    assert_eq!(decode_response(key, version, body(written)), Ok((id, read)));
}

/// A frame without its length.
fn body(frame: Frame) -> Bytes {
    let length = frame.length();
    let bytes = frame.into_bytes();
    assert_eq!(bytes.len(), length);
    assert_eq!(bytes[..4], u32::try_from(length - 4).unwrap().to_be_bytes());
    bytes.slice(4..)
}

/// Where fuzzing begins, by name.
#[must_use]
pub fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let text = Text::from_static;
    let asked = |version, request: Request| {
        let frame = encode_request(7, Some(Text::from_static("seed")), version, &request);
        frame.unwrap().into_bytes()
    };
    let produce = |version| {
        let partition = produce::PartitionProduceData {
            index: 3,
            records: Some(Bytes::from_static(b"records")),
        };
        let topic = produce::TopicProduceData {
            name: if version < 13 {
                text("topic")
            } else {
                Text::EMPTY
            },
            topic_id: Uuid(if version < 13 { 0 } else { 5 }),
            partition_data: vec![partition],
        };
        let request = produce::ProduceRequest {
            acks: -1,
            timeout_ms: 1000,
            topic_data: vec![topic],
            ..produce::ProduceRequest::default()
        };
        asked(version, Request::Produce(request))
    };
    let versions = asked(
        3,
        Request::ApiVersions(api_versions::ApiVersionsRequest {
            client_software_name: text("name"),
            client_software_version: text("1.0"),
            ..Default::default()
        }),
    );
    let mut stream = vec![0];
    for frame in [&versions, &produce(2), &produce(9), &produce(13)] {
        stream.extend_from_slice(frame);
    }
    let one = |frame: Bytes| [&[1], &frame[4..]].concat();
    let join = join_group::JoinGroupRequest {
        group_id: text("group"),
        protocol_type: text("consumer"),
        protocols: vec![join_group::JoinGroupRequestProtocol {
            name: text("range"),
            metadata: Bytes::from_static(b"subscription"),
        }],
        ..join_group::JoinGroupRequest::default()
    };
    let sync = sync_group::SyncGroupRequest {
        group_id: text("group"),
        assignments: vec![sync_group::SyncGroupRequestAssignment {
            member_id: text("member"),
            assignment: Bytes::from_static(b"assignment"),
        }],
        ..sync_group::SyncGroupRequest::default()
    };
    let fetched = fetch::FetchRequest {
        cluster_id: Some(text("cluster")),
        topics: vec![fetch::FetchTopic {
            topic_id: Uuid(5),
            partitions: vec![fetch::FetchPartition::default()],
            ..fetch::FetchTopic::default()
        }],
        forgotten_topics_data: vec![fetch::ForgottenTopic {
            topic_id: Uuid(6),
            partitions: vec![1, 2],
            ..fetch::ForgottenTopic::default()
        }],
        ..fetch::FetchRequest::default()
    };
    vec![
        ("stream", stream),
        ("too-long", vec![0, 0x7f, 0xff, 0xff, 0xff, 1, 2, 3]),
        ("versions", one(versions)),
        ("produce", one(produce(9))),
        ("join", one(asked(9, Request::JoinGroup(join)))),
        ("sync", one(asked(5, Request::SyncGroup(sync)))),
        ("fetch", one(asked(13, Request::Fetch(fetched)))),
        (
            "many",
            [
                &[1, 0, 3, 0, 0, 0, 0, 0, 1, 0xff, 0xff][..],
                &[0x7f, 0xff, 0xff, 0xff],
            ]
            .concat(),
        ),
        ("fetched", answered(16, Response::Fetch(fetched_response()))),
        ("described", answered(12, Response::Metadata(described()))),
    ]
}

/// A response behind its choice of API and version.
fn answered(version: u8, response: Response) -> Vec<u8> {
    let key = ApiKey::ALL.iter().position(|key| *key == response.key());
    let frame = encode_response(7, i16::from(version), &response)
        .unwrap()
        .into_bytes();
    let key = u8::try_from(key.unwrap()).unwrap();
    [&[2, key, version], &frame[4..]].concat()
}

fn fetched_response() -> fetch::FetchResponse {
    let partition = fetch::PartitionData {
        records: Some(Bytes::from_static(b"records")),
        diverging_epoch: fetch::EpochEndOffset {
            epoch: 2,
            end_offset: 9,
        },
        ..fetch::PartitionData::default()
    };
    fetch::FetchResponse {
        responses: vec![fetch::FetchableTopicResponse {
            topic_id: Uuid(5),
            partitions: vec![partition],
            ..fetch::FetchableTopicResponse::default()
        }],
        ..fetch::FetchResponse::default()
    }
}

fn described() -> metadata::MetadataResponse {
    metadata::MetadataResponse {
        brokers: vec![metadata::MetadataResponseBroker {
            node_id: 1,
            host: Text::from_static("host"),
            port: 9092,
            rack: None,
        }],
        topics: vec![metadata::MetadataResponseTopic {
            name: Some(Text::from_static("topic")),
            partitions: vec![metadata::MetadataResponsePartition::default()],
            ..metadata::MetadataResponseTopic::default()
        }],
        ..metadata::MetadataResponse::default()
    }
}
