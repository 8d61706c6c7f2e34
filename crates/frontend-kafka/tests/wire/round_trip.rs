//! What is written is read again: every message, every version, values from chance.

use varve_frontend_kafka::wire::writer::PART_MIN_BYTES;
use varve_frontend_kafka::wire::{EncodeFault, Response, Text, generated};
use varve_frontend_kafka::wire::{ErrorCode, decode_request, decode_response, encode_response};

use crate::{CORRELATION_ID, Case, Message, assert_header, unframed};

/// Random messages of each kind and version.
const SEEDS: u64 = 20;

#[test]
fn every_message_comes_back_in_every_version() {
    let mut cases = 0;
    for case in Case::all() {
        cases += 1;
        for seed in 0..SEEDS {
            let message = case.random(seed);
            let body = unframed(case.encode(&message));
            match &message {
                Message::Request(request) => {
                    let (header, read) = decode_request(body).unwrap();
                    assert_header(&case, &header);
                    assert_eq!(read, *request, "{} seed {seed}", case.name());
                }
                Message::Response(response) => {
                    let (id, read) = decode_response(case.key, case.version, body).unwrap();
                    assert_eq!(id, CORRELATION_ID);
                    assert_eq!(read, *response, "{} seed {seed}", case.name());
                }
            }
        }
    }
    assert!(cases > 300, "{cases} cases");
}

#[test]
fn a_message_that_is_cut_anywhere_is_refused() {
    for case in Case::all() {
        for seed in 0..2 {
            let body = unframed(case.encode(&case.random(seed)));
            // All places in short messages, and some in long ones.
            let step = body.len() / 150 + 1;
            for cut in (0..body.len()).step_by(step) {
                let error = case.decode(body.slice(..cut)).expect_err("it is not whole");
                assert!(error.offset <= cut, "{} cut at {cut}: {error}", case.name());
                assert!(
                    !error.message.is_empty() && !error.field.is_empty(),
                    "{error}"
                );
            }
        }
    }
}

#[test]
fn a_byte_too_many_is_ignored_in_a_request_and_refused_in_a_response() {
    for case in Case::all() {
        let message = case.random(1);
        let body = unframed(case.encode(&message));
        let longer = [&body[..], &[0]].concat();
        let decoded = case.decode(longer.into());
        if case.is_request {
            // Clients in use send such bytes.
            assert_eq!(decoded, Ok(message));
            continue;
        }
        let error = decoded.expect_err("a byte is left over");
        assert_eq!(
            error.to_string().rsplit(": ").next(),
            Some("1 bytes are left over")
        );
    }
}

#[test]
fn fetched_records_are_parts_of_the_frame_and_not_copies() {
    use generated::fetch::{FetchResponse, FetchableTopicResponse, PartitionData};
    let long = bytes::Bytes::from(vec![7_u8; PART_MIN_BYTES]);
    let short = bytes::Bytes::from(vec![9_u8; PART_MIN_BYTES - 1]);
    for version in 0..=18 {
        let partition = |records: &bytes::Bytes| PartitionData {
            records: Some(records.clone()),
            ..PartitionData::default()
        };
        let topic = FetchableTopicResponse {
            partitions: vec![partition(&long), partition(&short), partition(&long)],
            ..FetchableTopicResponse::default()
        };
        let response = Response::Fetch(FetchResponse {
            responses: vec![topic],
            ..FetchResponse::default()
        });
        let frame = encode_response(1, version, &response).unwrap();
        let same = |part: &&bytes::Bytes| part.as_ptr() == long.as_ptr();
        assert_eq!(frame.parts().iter().filter(same).count(), 2, "v{version}");
        let sum: usize = frame.parts().iter().map(bytes::Bytes::len).sum();
        assert_eq!(sum, frame.length());
        let (_, read) =
            decode_response(generated::ApiKey::Fetch, version, unframed(frame)).unwrap();
        assert_eq!(read, response, "v{version}");
    }
}

#[test]
fn strings_and_records_of_a_request_are_slices_of_its_frame() {
    use generated::produce::{PartitionProduceData, ProduceRequest, TopicProduceData};
    let request = ProduceRequest {
        topic_data: vec![TopicProduceData {
            name: Text::from_static("topic"),
            partition_data: vec![PartitionProduceData {
                index: 0,
                records: Some(bytes::Bytes::from(vec![1; 5000])),
            }],
            ..TopicProduceData::default()
        }],
        ..ProduceRequest::default()
    };
    let request = generated::Request::Produce(request);
    let frame = varve_frontend_kafka::wire::encode_request(1, None, 9, &request).unwrap();
    let body = unframed(frame);
    let within = body.as_ptr_range();
    let (_, generated::Request::Produce(read)) = decode_request(body.clone()).unwrap() else {
        panic!("it is a produce request");
    };
    let records = read.topic_data[0].partition_data[0]
        .records
        .as_ref()
        .unwrap();
    assert!(within.contains(&records.as_ptr()));
    assert!(within.contains(&read.topic_data[0].name.as_bytes().as_ptr()));
}

#[test]
fn what_a_version_cannot_say_is_refused_and_not_left_out() {
    use generated::offset_commit::{OffsetCommitRequest, OffsetCommitRequestTopic};
    let encode = |version, request: OffsetCommitRequest| {
        let request = generated::Request::OffsetCommit(request);
        varve_frontend_kafka::wire::encode_request(1, None, version, &request)
    };
    let request = OffsetCommitRequest {
        group_instance_id: Some(Text::from_static("i")),
        ..OffsetCommitRequest::default()
    };
    assert!(encode(7, request.clone()).is_ok());
    let refused = encode(6, request).unwrap_err();
    assert_eq!(refused.fault, EncodeFault::NotInVersion);
    assert_eq!(
        refused.to_string(),
        "OffsetCommitRequest v6: field \"group_instance_id\": it is set, but this version does not \
         have it"
    );
    let long = OffsetCommitRequest {
        topics: vec![OffsetCommitRequestTopic {
            name: Text::from("x".repeat(32_768)),
            ..OffsetCommitRequestTopic::default()
        }],
        ..OffsetCommitRequest::default()
    };
    let refused = encode(8, long).unwrap_err();
    assert_eq!(refused.field, "topics.name");
    let length = 32_768;
    assert_eq!(
        refused.fault,
        EncodeFault::TooLong {
            length,
            most: 32_767
        }
    );
    assert_eq!(
        encode(11, OffsetCommitRequest::default())
            .unwrap_err()
            .fault,
        EncodeFault::NoSuchVersion
    );
    let response = Response::Metadata(generated::metadata::MetadataResponse {
        topics: vec![generated::metadata::MetadataResponseTopic::default()],
        ..Default::default()
    });
    assert!(
        encode_response(1, 12, &response).is_ok(),
        "a topic without a name, by id"
    );
    let refused = encode_response(1, 11, &response).unwrap_err();
    assert_eq!(
        (refused.field.as_str(), refused.fault),
        ("topics.name", EncodeFault::Null)
    );
    assert_eq!(ErrorCode::None.code(), 0);
}
