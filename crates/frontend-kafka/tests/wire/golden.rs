//! Bytes written down by hand from the protocol's rules: what the codec must say, whatever it is made of. All
//! versions that the other implementation does not have are here.

use bytes::Bytes;
use varve_frontend_kafka::wire::generated::{
    api_versions::{ApiVersion, ApiVersionsRequest, ApiVersionsResponse},
    create_topics::*,
    delete_topics::*,
    describe_configs::*,
    describe_log_dirs::*,
    fetch::*,
    list_offsets::*,
    metadata::{MetadataRequest, MetadataRequestTopic},
    offset_commit::*,
    offset_fetch::*,
    offset_for_leader_epoch::{
        EpochEndOffset, OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse,
        OffsetForLeaderPartition, OffsetForLeaderTopic, OffsetForLeaderTopicResult,
    },
    produce::*,
};
use varve_frontend_kafka::wire::{ApiKey, Request, Response, Text, Uuid};

use crate::{CLIENT_ID, CORRELATION_ID, Case, Message, header_length, unframed};

/// Bytes from hexadecimal digits, with texts between quotes.
fn bytes(notation: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (at, part) in notation.split('\'').enumerate() {
        if at % 2 == 1 {
            bytes.extend_from_slice(part.as_bytes());
            continue;
        }
        let digits: String = part.split_whitespace().collect();
        for at in (0..digits.len()).step_by(2) {
            bytes.push(u8::from_str_radix(&digits[at..at + 2], 16).unwrap());
        }
    }
    bytes
}

fn check(message: Message, version: i16, notation: &str) {
    let (key, is_request) = match &message {
        Message::Request(request) => (request.key(), true),
        Message::Response(response) => (response.key(), false),
    };
    let case = Case {
        key,
        version,
        is_request,
    };
    let frame = unframed(case.encode(&message));
    let body = frame.slice(header_length(&case)..);
    assert_eq!(body, bytes(notation), "{}", case.name());
    assert_eq!(case.decode(frame), Ok(message), "{}", case.name());
}

fn asks(request: Request, version: i16, notation: &str) {
    check(Message::Request(request), version, notation);
}

fn answers(response: Response, version: i16, notation: &str) {
    check(Message::Response(response), version, notation);
}

fn text(text: &'static str) -> Text {
    Text::from_static(text)
}

#[test]
fn headers() {
    let whole = |key, version, message: Message| {
        let is_request = matches!(message, Message::Request(_));
        let case = Case {
            key,
            version,
            is_request,
        };
        case.encode(&message).into_bytes()
    };
    assert_eq!(
        (CORRELATION_ID, CLIENT_ID.as_str()),
        (0x1234_5678, "client")
    );
    let plain = Message::Request(Request::ApiVersions(ApiVersionsRequest::default()));
    let expected = "00000010 0012 0000 12345678 0006'client'";
    assert_eq!(whole(ApiKey::ApiVersions, 0, plain), bytes(expected));
    // Flexible: tags after the client's name, whose length stays plain.
    let flexible = Message::Request(Request::ApiVersions(ApiVersionsRequest {
        client_software_name: text("kcat"),
        client_software_version: text("1"),
        ..ApiVersionsRequest::default()
    }));
    let expected = "00000019 0012 0003 12345678 0006'client' 00  05'kcat' 02'1' 00";
    assert_eq!(whole(ApiKey::ApiVersions, 3, flexible), bytes(expected));
    let meant = Message::Request(Request::ApiVersions(ApiVersionsRequest {
        client_software_name: text("kcat"),
        client_software_version: text("1"),
        cluster_id: Some(text("c")),
        node_id: 7,
    }));
    let expected = "0000001f 0012 0005 12345678 0006'client' 00  05'kcat' 02'1' 02'c' 00000007 00";
    assert_eq!(whole(ApiKey::ApiVersions, 5, meant), bytes(expected));
    // The response to ApiVersions has no tags in its header, flexible or not; others do.
    let versions = Message::Response(Response::ApiVersions(ApiVersionsResponse::default()));
    let expected = "0000000c 12345678  0000 01 00000000 00";
    assert_eq!(whole(ApiKey::ApiVersions, 3, versions), bytes(expected));
    let heartbeat = Message::Response(Response::Heartbeat(Default::default()));
    let expected = "0000000c 12345678 00  00000000 0000 00";
    assert_eq!(
        whole(ApiKey::Heartbeat, 4, heartbeat.clone()),
        bytes(expected)
    );
    let expected = "0000000a 12345678  00000000 0000";
    assert_eq!(whole(ApiKey::Heartbeat, 3, heartbeat), bytes(expected));
}

#[test]
fn api_versions() {
    let api = ApiVersion {
        api_key: 1,
        min_version: 4,
        max_version: 18,
    };
    let response = |epoch| {
        Response::ApiVersions(ApiVersionsResponse {
            error_code: 35,
            api_keys: vec![api.clone()],
            finalized_features_epoch: epoch,
            ..ApiVersionsResponse::default()
        })
    };
    answers(response(-1), 0, "0023 00000001 0001 0004 0012");
    answers(response(-1), 2, "0023 00000001 0001 0004 0012 00000000");
    answers(response(-1), 3, "0023 02 0001 0004 0012 00 00000000 00");
    answers(
        response(5),
        4,
        "0023 02 0001 0004 0012 00 00000000 01 01 08 0000000000000005",
    );
}

#[test]
fn metadata() {
    let ask = |topics, auto| {
        Request::Metadata(MetadataRequest {
            topics,
            allow_auto_topic_creation: auto,
            ..MetadataRequest::default()
        })
    };
    let topic = |id, name| MetadataRequestTopic {
        topic_id: Uuid(id),
        name,
    };
    asks(
        ask(Some(vec![topic(0, Some(text("tea")))]), true),
        0,
        "00000001 0003'tea'",
    );
    asks(ask(None, true), 1, "ffffffff");
    asks(ask(Some(vec![]), false), 4, "00000000 00");
    asks(ask(None, true), 9, "00 01 00 00 00");
    let id = 0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10;
    let body = "02 0102030405060708090a0b0c0d0e0f10 00 00 01 00 00";
    asks(ask(Some(vec![topic(id, None)]), true), 12, body);
}

#[test]
fn produce() {
    let ask = |name: &'static str, id, transactional_id: Option<Text>| {
        Request::Produce(ProduceRequest {
            transactional_id,
            acks: -1,
            timeout_ms: 1500,
            topic_data: vec![TopicProduceData {
                name: text(name),
                topic_id: Uuid(id),
                partition_data: vec![PartitionProduceData {
                    index: 7,
                    records: Some(Bytes::from_static(b"\x01\x02\x03")),
                }],
            }],
        })
    };
    let old = "ffff 000005dc 00000001 0001't' 00000001 00000007 00000003 010203";
    for version in [0, 1, 2] {
        asks(ask("t", 0, None), version, old);
    }
    asks(ask("t", 0, None), 3, &format!("ffff {old}"));
    asks(ask("t", 0, Some(text("x"))), 8, &format!("0001'x' {old}"));
    asks(
        ask("t", 0, None),
        9,
        "00 ffff 000005dc 02 02't' 02 00000007 04 010203 00 00 00",
    );
    let id = "000000000000000000000000000000ff";
    let body = format!("00 ffff 000005dc 02 {id} 02 00000007 04 010203 00 00 00");
    asks(ask("", 0xff, None), 13, &body);
    let answer = |append_time, throttle| {
        Response::Produce(ProduceResponse {
            responses: vec![TopicProduceResponse {
                name: text("t"),
                partition_responses: vec![PartitionProduceResponse {
                    index: 7,
                    error_code: 6,
                    base_offset: 300,
                    log_append_time_ms: append_time,
                    ..PartitionProduceResponse::default()
                }],
                ..TopicProduceResponse::default()
            }],
            throttle_time_ms: throttle,
            ..ProduceResponse::default()
        })
    };
    let old = "00000001 0001't' 00000001 00000007 0006 000000000000012c";
    answers(answer(-1, 0), 0, old);
    answers(answer(-1, 9), 1, &format!("{old} 00000009"));
    answers(answer(5, 9), 2, &format!("{old} 0000000000000005 00000009"));
}

#[test]
fn fetch() {
    let ask = |max_bytes| {
        Request::Fetch(FetchRequest {
            max_wait_ms: 500,
            min_bytes: 1,
            max_bytes,
            topics: vec![FetchTopic {
                topic: text("t"),
                partitions: vec![FetchPartition {
                    partition: 2,
                    fetch_offset: 40,
                    partition_max_bytes: 4096,
                    ..FetchPartition::default()
                }],
                ..FetchTopic::default()
            }],
            ..FetchRequest::default()
        })
    };
    let topics = "00000001 0001't' 00000001 00000002 0000000000000028 00001000";
    let old = "ffffffff 000001f4 00000001";
    for version in [0, 1, 2] {
        asks(ask(i32::MAX), version, &format!("{old} {topics}"));
    }
    asks(ask(99), 3, &format!("{old} 00000063 {topics}"));
    asks(ask(99), 4, &format!("{old} 00000063 00 {topics}"));
    let answer = |throttle| {
        Response::Fetch(FetchResponse {
            throttle_time_ms: throttle,
            responses: vec![FetchableTopicResponse {
                topic: text("t"),
                partitions: vec![PartitionData {
                    partition_index: 2,
                    high_watermark: 41,
                    records: Some(Bytes::from_static(b"abc")),
                    ..PartitionData::default()
                }],
                ..FetchableTopicResponse::default()
            }],
            ..FetchResponse::default()
        })
    };
    let old = "00000001 0001't' 00000001 00000002 0000 0000000000000029 00000003'abc'";
    answers(answer(0), 0, old);
    for version in [1, 2, 3] {
        answers(answer(8), version, &format!("00000008 {old}"));
    }
}

#[test]
fn list_offsets() {
    let ask = |timeout_ms| {
        Request::ListOffsets(ListOffsetsRequest {
            replica_id: -1,
            topics: vec![ListOffsetsTopic {
                name: text("t"),
                partitions: vec![ListOffsetsPartition {
                    partition_index: 1,
                    timestamp: -2,
                    ..ListOffsetsPartition::default()
                }],
            }],
            timeout_ms,
            ..ListOffsetsRequest::default()
        })
    };
    let old = "ffffffff 00000001 0001't' 00000001 00000001 fffffffffffffffe";
    asks(ask(0), 0, &format!("{old} 00000001"));
    asks(ask(0), 1, old);
    let new = "ffffffff 00 02 02't' 02 00000001 ffffffff fffffffffffffffe 00 00 0000000a 00";
    asks(ask(10), 11, new);
    let answer = |old_style_offsets: Vec<i64>, timestamp, offset| {
        Response::ListOffsets(ListOffsetsResponse {
            topics: vec![ListOffsetsTopicResponse {
                name: text("t"),
                partitions: vec![ListOffsetsPartitionResponse {
                    partition_index: 1,
                    old_style_offsets,
                    timestamp,
                    offset,
                    ..ListOffsetsPartitionResponse::default()
                }],
            }],
            ..ListOffsetsResponse::default()
        })
    };
    let head = "00000001 0001't' 00000001 00000001 0000";
    answers(
        answer(vec![9], -1, -1),
        0,
        &format!("{head} 00000001 0000000000000009"),
    );
    answers(
        answer(vec![], 3, 9),
        1,
        &format!("{head} 0000000000000003 0000000000000009"),
    );
    let new =
        "00000000 02 02't' 02 00000001 0000 0000000000000003 0000000000000009 ffffffff 00 00 00";
    answers(answer(vec![], 3, 9), 11, new);
}

#[test]
fn committed_offsets() {
    let ask = |generation, member: &'static str| {
        Request::OffsetCommit(OffsetCommitRequest {
            group_id: text("g"),
            generation_id_or_member_epoch: generation,
            member_id: text(member),
            topics: vec![OffsetCommitRequestTopic {
                name: text("t"),
                partitions: vec![OffsetCommitRequestPartition {
                    partition_index: 1,
                    committed_offset: 12,
                    ..OffsetCommitRequestPartition::default()
                }],
                ..OffsetCommitRequestTopic::default()
            }],
            ..OffsetCommitRequest::default()
        })
    };
    let topic = "00000001 0001't' 00000001 00000001 000000000000000c";
    asks(ask(-1, ""), 0, &format!("0001'g' {topic} ffff"));
    asks(
        ask(3, "m"),
        1,
        &format!("0001'g' 00000003 0001'm' {topic} ffffffffffffffff ffff"),
    );
    let by_id = Request::OffsetCommit(OffsetCommitRequest {
        group_id: text("g"),
        generation_id_or_member_epoch: 3,
        member_id: text("m"),
        topics: vec![OffsetCommitRequestTopic {
            topic_id: Uuid(0xff),
            partitions: vec![OffsetCommitRequestPartition {
                partition_index: 1,
                committed_offset: 12,
                ..OffsetCommitRequestPartition::default()
            }],
            ..OffsetCommitRequestTopic::default()
        }],
        ..OffsetCommitRequest::default()
    });
    let id = "000000000000000000000000000000ff";
    let partition = "02 00000001 000000000000000c ffffffff 00 00";
    asks(
        by_id,
        10,
        &format!("02'g' 00000003 02'm' 00 02 {id} {partition} 00 00"),
    );
    let answer = Response::OffsetCommit(OffsetCommitResponse {
        topics: vec![OffsetCommitResponseTopic {
            name: text("t"),
            partitions: vec![OffsetCommitResponsePartition {
                partition_index: 1,
                error_code: 22,
            }],
            ..OffsetCommitResponseTopic::default()
        }],
        ..OffsetCommitResponse::default()
    });
    answers(answer.clone(), 0, "00000001 0001't' 00000001 00000001 0016");
    answers(answer, 1, "00000001 0001't' 00000001 00000001 0016");
    let ask = Request::OffsetFetch(OffsetFetchRequest {
        group_id: text("g"),
        topics: Some(vec![OffsetFetchRequestTopic {
            name: text("t"),
            partition_indexes: vec![1, 2],
        }]),
        ..OffsetFetchRequest::default()
    });
    asks(
        ask,
        0,
        "0001'g' 00000001 0001't' 00000002 00000001 00000002",
    );
    let by_id = Request::OffsetFetch(OffsetFetchRequest {
        groups: vec![OffsetFetchRequestGroup {
            group_id: text("g"),
            topics: Some(vec![OffsetFetchRequestTopics {
                topic_id: Uuid(0xff),
                partition_indexes: vec![1],
                ..OffsetFetchRequestTopics::default()
            }]),
            ..OffsetFetchRequestGroup::default()
        }],
        require_stable: true,
        ..OffsetFetchRequest::default()
    });
    asks(
        by_id,
        10,
        &format!("02 02'g' 00 ffffffff 02 {id} 02 00000001 00 00 01 00"),
    );
    let answer = Response::OffsetFetch(OffsetFetchResponse {
        topics: vec![OffsetFetchResponseTopic {
            name: text("t"),
            partitions: vec![OffsetFetchResponsePartition {
                partition_index: 1,
                committed_offset: 12,
                metadata: Some(text("note")),
                error_code: 0,
                ..OffsetFetchResponsePartition::default()
            }],
        }],
        ..OffsetFetchResponse::default()
    });
    let body = "00000001 0001't' 00000001 00000001 000000000000000c 0004'note' 0000";
    answers(answer, 0, body);
}

#[test]
fn topics() {
    let ask = |validate_only| {
        Request::CreateTopics(CreateTopicsRequest {
            topics: vec![CreatableTopic {
                name: text("t"),
                num_partitions: -1,
                replication_factor: -1,
                assignments: vec![CreatableReplicaAssignment {
                    partition_index: 0,
                    broker_ids: vec![3],
                }],
                configs: vec![CreatableTopicConfig {
                    name: text("k"),
                    value: None,
                }],
            }],
            timeout_ms: 1000,
            validate_only,
        })
    };
    let old = "00000001 0001't' ffffffff ffff 00000001 00000000 00000001 00000003 \
               00000001 0001'k' ffff 000003e8";
    asks(ask(false), 0, old);
    asks(ask(true), 1, &format!("{old} 01"));
    let answer = |error_message| {
        Response::CreateTopics(CreateTopicsResponse {
            topics: vec![CreatableTopicResult {
                name: text("t"),
                error_code: 36,
                error_message,
                ..CreatableTopicResult::default()
            }],
            ..CreateTopicsResponse::default()
        })
    };
    answers(answer(None), 0, "00000001 0001't' 0024");
    answers(
        answer(Some(text("why"))),
        1,
        "00000001 0001't' 0024 0003'why'",
    );
    let ask = Request::DeleteTopics(DeleteTopicsRequest {
        topic_names: vec![text("t"), text("u")],
        timeout_ms: 1000,
        ..DeleteTopicsRequest::default()
    });
    asks(ask, 0, "00000002 0001't' 0001'u' 000003e8");
    let answer = Response::DeleteTopics(DeleteTopicsResponse {
        responses: vec![DeletableTopicResult {
            name: Some(text("t")),
            error_code: 3,
            ..DeletableTopicResult::default()
        }],
        ..DeleteTopicsResponse::default()
    });
    answers(answer, 0, "00000001 0001't' 0003");
}

#[test]
fn leader_epochs() {
    let ask = Request::OffsetForLeaderEpoch(OffsetForLeaderEpochRequest {
        topics: vec![OffsetForLeaderTopic {
            topic: text("t"),
            partitions: vec![OffsetForLeaderPartition {
                partition: 1,
                leader_epoch: 4,
                ..OffsetForLeaderPartition::default()
            }],
        }],
        ..OffsetForLeaderEpochRequest::default()
    });
    asks(
        ask.clone(),
        0,
        "00000001 0001't' 00000001 00000001 00000004",
    );
    asks(ask, 1, "00000001 0001't' 00000001 00000001 00000004");
    let answer = |leader_epoch| {
        Response::OffsetForLeaderEpoch(OffsetForLeaderEpochResponse {
            topics: vec![OffsetForLeaderTopicResult {
                topic: text("t"),
                partitions: vec![EpochEndOffset {
                    error_code: 0,
                    partition: 1,
                    leader_epoch,
                    end_offset: 8,
                }],
            }],
            ..OffsetForLeaderEpochResponse::default()
        })
    };
    let head = "00000001 0001't' 00000001 0000 00000001";
    answers(answer(-1), 0, &format!("{head} 0000000000000008"));
    answers(answer(4), 1, &format!("{head} 00000004 0000000000000008"));
}

#[test]
fn configurations_and_directories() {
    let ask = Request::DescribeConfigs(DescribeConfigsRequest {
        resources: vec![DescribeConfigsResource {
            resource_type: 2,
            resource_name: text("t"),
            configuration_keys: None,
        }],
        ..DescribeConfigsRequest::default()
    });
    asks(ask, 0, "00000001 02 0001't' ffffffff");
    let answer = Response::DescribeConfigs(DescribeConfigsResponse {
        results: vec![DescribeConfigsResult {
            resource_type: 2,
            resource_name: text("t"),
            configs: vec![DescribeConfigsResourceResult {
                name: text("k"),
                value: Some(text("v")),
                is_default: true,
                ..DescribeConfigsResourceResult::default()
            }],
            ..DescribeConfigsResult::default()
        }],
        ..DescribeConfigsResponse::default()
    });
    let body = "00000000 00000001 0000 ffff 02 0001't' 00000001 0001'k' 0001'v' 00 01 00";
    answers(answer, 0, body);
    let ask = Request::DescribeLogDirs(DescribeLogDirsRequest {
        topics: Some(vec![DescribableLogDirTopic {
            topic: text("t"),
            partitions: vec![1],
        }]),
    });
    asks(ask.clone(), 0, "00000001 0001't' 00000001 00000001");
    asks(ask, 5, "02 02't' 02 00000001 00 00");
    let answer = |is_cordoned, bytes| {
        Response::DescribeLogDirs(DescribeLogDirsResponse {
            results: vec![DescribeLogDirsResult {
                log_dir: text("/d"),
                topics: vec![DescribeLogDirsTopic {
                    name: text("t"),
                    partitions: vec![DescribeLogDirsPartition {
                        partition_index: 1,
                        partition_size: 77,
                        offset_lag: 0,
                        is_future_key: true,
                    }],
                }],
                total_bytes: bytes,
                usable_bytes: bytes,
                is_cordoned,
                ..DescribeLogDirsResult::default()
            }],
            ..DescribeLogDirsResponse::default()
        })
    };
    let partition = "00000001 000000000000004d 0000000000000000 01";
    let body = format!("00000000 00000001 0000 0002'/d' 00000001 0001't' 00000001 {partition}");
    answers(answer(false, -1), 0, &body);
    let body = format!(
        "00000000 0000 02 0000 03'/d' 02 02't' 02 {partition} 00 00 \
         0000000000000100 0000000000000100 01 00 00"
    );
    answers(answer(true, 256), 5, &body);
}
