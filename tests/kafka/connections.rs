//! Connections: versions, order, bounds, and what hostile bytes cost.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use varve_frontend_kafka::wire::generated::api_versions::ApiVersionsRequest;
use varve_frontend_kafka::wire::generated::fetch::{FetchPartition, FetchRequest, FetchTopic};
use varve_frontend_kafka::wire::generated::get_telemetry_subscriptions::GetTelemetrySubscriptionsRequest;
use varve_frontend_kafka::wire::generated::metadata::MetadataRequest;
use varve_frontend_kafka::wire::generated::push_telemetry::PushTelemetryRequest;
use varve_frontend_kafka::wire::{
    ApiKey, ErrorCode, Request, Response, Text, Uuid, decode_response,
};

use crate::Bed;
use crate::client::{Client, ask};

fn versions() -> ApiVersionsRequest {
    ApiVersionsRequest {
        client_software_name: Text::from_static("test"),
        client_software_version: Text::from_static("1.0"),
        ..ApiVersionsRequest::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_are_told_in_every_version() {
    let bed = Bed::start(&[]).await;
    let mut client = bed.client().await;
    for version in 0..=5 {
        let request = match version {
            0..=2 => ApiVersionsRequest::default(),
            _ => versions(),
        };
        let response = ask!(client, version, ApiVersions, request);
        assert_eq!(response.error_code, 0);
        let keys: Vec<i16> = response.api_keys.iter().map(|k| k.api_key).collect();
        for key in [ApiKey::Produce, ApiKey::Fetch, ApiKey::Metadata] {
            assert!(keys.contains(&(key as i16)), "{keys:?}");
        }
    }
    // Software without a name is told so, and what there is.
    let response = ask!(client, 3, ApiVersions, ApiVersionsRequest::default());
    assert_eq!(response.error_code, ErrorCode::InvalidRequest.code());
    bed.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_means_another_node_is_told_so() {
    let bed = Bed::start(&[]).await;
    let mut client = bed.client().await;
    let all = MetadataRequest {
        topics: None,
        ..MetadataRequest::default()
    };
    let cluster = ask!(client, 12, Metadata, all).cluster_id.unwrap();
    let other = Text::from_static("another");
    for (cluster_id, node_id, code) in [
        (Some(&cluster), 1, ErrorCode::None),
        (Some(&cluster), 2, ErrorCode::RebootstrapRequired),
        (Some(&other), 1, ErrorCode::RebootstrapRequired),
        (Some(&cluster), -1, ErrorCode::InvalidRequest),
        (None, 1, ErrorCode::InvalidRequest),
    ] {
        let request = ApiVersionsRequest {
            cluster_id: cluster_id.cloned(),
            node_id,
            ..versions()
        };
        let response = ask!(client, 5, ApiVersions, request);
        assert_eq!(response.error_code, code.code(), "{cluster_id:?} {node_id}");
    }
    bed.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_version_of_versions_is_answered_in_version_0_and_the_connection_goes_on() {
    let bed = Bed::start(&[]).await;
    let mut client = bed.client().await;
    // Key 18, version 99, correlation id 5, and bytes that nobody knows.
    let mut frame = vec![0, 0, 0, 12, 0, 18, 0, 99, 0, 0, 0, 5];
    frame.extend_from_slice(&[1, 2, 3, 4]);
    client.raw(&frame).await;
    let (id, response) = client.receive(ApiKey::ApiVersions, 0).await;
    let Response::ApiVersions(response) = response else {
        panic!("{response:?}")
    };
    assert_eq!(id, 5);
    assert_eq!(response.error_code, ErrorCode::UnsupportedVersion.code());
    assert!(response.api_keys.len() > 10);
    assert_eq!(ask!(client, 3, ApiVersions, versions()).error_code, 0);
    bed.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_served_is_refused_by_its_own_response() {
    let bed = Bed::start(&[]).await;
    let mut client = bed.client().await;
    // Reads of versions whose records are not stored here.
    for version in 0..=3 {
        let reads = FetchRequest {
            topics: vec![FetchTopic {
                topic: Text::from_static("orders"),
                partitions: vec![FetchPartition::default()],
                ..FetchTopic::default()
            }],
            ..FetchRequest::default()
        };
        let response = ask!(client, version, Fetch, reads);
        let part = &response.responses[0].partitions[0];
        assert_eq!(part.error_code, ErrorCode::UnsupportedVersion.code());
    }
    // An API that nobody knows: there is nothing to say that the client would understand.
    client
        .raw(&[0, 0, 0, 8, 0x7f, 0xff, 0, 0, 0, 0, 0, 1])
        .await;
    assert_eq!(client.frame().await, None);
    bed.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_are_sent_together_are_answered_in_order() {
    let bed = Bed::start(&[]).await;
    let mut client = bed.client().await;
    let metadata = Request::Metadata(MetadataRequest {
        topics: None,
        ..MetadataRequest::default()
    });
    let mut sent = Vec::new();
    for _ in 0..100 {
        sent.push(client.send(12, &metadata).await);
    }
    for id in sent {
        let frame = client.frame().await.unwrap();
        let (answered, _) = decode_response(ApiKey::Metadata, 12, frame).unwrap();
        assert_eq!(answered, id);
    }
    bed.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_bytes_end_their_own_connection_only() {
    let bed = Bed::start(&[("socket.request.max.bytes", "1MiB")]).await;
    let mut honest = bed.client().await;
    let produce = |count: [u8; 4]| {
        let mut body = vec![0, 0, 0, 3, 0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff, 0, 1];
        body.extend_from_slice(&[0, 0, 0, 0]);
        body.extend_from_slice(&count);
        let length = u32::try_from(body.len()).unwrap();
        [&length.to_be_bytes()[..], &body].concat()
    };
    // A flexible request: its header and its body end with tagged fields.
    let tagged = |tags: &[u8]| {
        let head = [0, 18, 0, 3, 0, 0, 0, 7, 0xff, 0xff];
        let body = [&head, tags].concat();
        let length = u32::try_from(body.len()).unwrap();
        [&length.to_be_bytes()[..], &body].concat()
    };
    let compact = |count: &[u8]| {
        let head = [0, 3, 0, 12, 0, 0, 0, 7, 0xff, 0xff, 0];
        let body = [&head, count].concat();
        let length = u32::try_from(body.len()).unwrap();
        [&length.to_be_bytes()[..], &body].concat()
    };
    // What looks like another protocol is answered in that protocol: see `tests/cli/wrong_port.rs`.
    let hostile: [(&str, Vec<u8>); 11] = [
        ("2 GiB", vec![0x7f, 0xff, 0xff, 0xff]),
        ("one byte more than is taken", vec![0, 0x10, 0, 1]),
        ("a negative length", vec![0xff; 4]),
        ("too short for a request", vec![0, 0, 0, 1, 9]),
        ("an array of 2^31", produce([0x7f, 0xff, 0xff, 0xff])),
        ("a negative array", produce([0xff, 0xff, 0xff, 0xfe])),
        (
            "a compact array of 2^32",
            compact(&[0xff, 0xff, 0xff, 0xff, 0x0f]),
        ),
        (
            "2^32 tagged fields",
            tagged(&[0xff, 0xff, 0xff, 0xff, 0x0f]),
        ),
        (
            "a tagged field of 2^32 bytes",
            tagged(&[1, 9, 0xff, 0xff, 0xff, 0xff, 0x0f, 1]),
        ),
        (
            "the same tag again and again",
            tagged(&[3, 9, 0, 9, 0, 9, 0]),
        ),
        (
            "a tagged field for every byte",
            tagged(&[&[0xff, 0x7f][..], &[5, 0].repeat(500_000)].concat()),
        ),
    ];
    for (what, bytes) in hostile {
        let mut client = bed.client().await;
        client.raw(&bytes).await;
        assert_eq!(client.frame().await, None, "{what}");
        let answer = ask!(honest, 3, ApiVersions, versions());
        assert_eq!(answer.error_code, 0, "after {what}");
    }
    bed.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn silence_ends_a_connection_and_a_drain_does_not_wait_for_it() {
    let bed = Bed::start(&[("connections.max.idle.ms", "1000")]).await;
    let mut client = bed.client().await;
    assert_eq!(ask!(client, 3, ApiVersions, versions()).error_code, 0);
    let begun = tokio::time::Instant::now();
    assert_eq!(client.frame().await, None);
    assert!(begun.elapsed() >= Duration::from_millis(900));
    let mut silent = Client::connect(bed.kafka).await;
    assert_eq!(ask!(silent, 3, ApiVersions, versions()).error_code, 0);
    let address = bed.kafka;
    let begun = tokio::time::Instant::now();
    bed.stop().await;
    assert!(begun.elapsed() < Duration::from_secs(10));
    assert_eq!(silent.frame().await, None);
    assert!(TcpStream::connect(address).await.is_err());
}

/// Ours to check by hand: the codec under test writes the header of the response as well.
#[tokio::test(flavor = "multi_thread")]
async fn the_header_of_a_response_has_tags_where_its_version_has_them() {
    let bed = Bed::start(&[]).await;
    let mut stream = TcpStream::connect(bed.kafka).await.unwrap();
    // ApiVersions 3: a flexible request, and a response header without tags.
    let request = [0, 18, 0, 3, 0, 0, 0, 7, 0xff, 0xff, 0, 2, b'a', 2, b'1', 0];
    stream
        .write_all(&(request.len() as u32).to_be_bytes())
        .await
        .unwrap();
    stream.write_all(&request).await.unwrap();
    let mut head = [0; 11];
    stream.read_exact(&mut head).await.unwrap();
    assert_eq!(
        head[4..10],
        [0, 0, 0, 7, 0, 0],
        "id, and at once the error code"
    );
    bed.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_keep_what_they_measure_to_themselves() {
    let bed = Bed::start(&[]).await;
    let mut client = bed.client().await;
    let first = GetTelemetrySubscriptionsRequest::default();
    let told = ask!(client, 0, GetTelemetrySubscriptions, first);
    assert_eq!((told.error_code, told.requested_metrics.len()), (0, 0));
    assert!(told.push_interval_ms > 0 && told.telemetry_max_bytes > 0);
    // librdkafka counts the interval in microseconds of 32 bits: with more than these it asks again and again at once.
    assert!(told.push_interval_ms.checked_mul(1000).is_some());
    let id = told.client_instance_id;
    assert_ne!(id, Uuid::ZERO);
    // Who has an id keeps it.
    let again = GetTelemetrySubscriptionsRequest {
        client_instance_id: id,
    };
    let again = ask!(client, 0, GetTelemetrySubscriptions, again);
    assert_eq!(again.client_instance_id, id);
    let subscription = told.subscription_id;
    let large = vec![0; told.telemetry_max_bytes as usize + 1];
    for (id, subscription, codec, metrics, code) in [
        (id, subscription, 0, vec![1; 100], ErrorCode::None),
        (id, subscription, 4, vec![], ErrorCode::None),
        (
            Uuid::ZERO,
            subscription,
            0,
            vec![],
            ErrorCode::InvalidRequest,
        ),
        (id, 77, 0, vec![], ErrorCode::UnknownSubscriptionId),
        (
            id,
            subscription,
            9,
            vec![],
            ErrorCode::UnsupportedCompressionType,
        ),
        (id, subscription, 0, large, ErrorCode::TelemetryTooLarge),
    ] {
        let push = PushTelemetryRequest {
            client_instance_id: id,
            subscription_id: subscription,
            terminating: true,
            compression_type: codec,
            metrics: metrics.into(),
        };
        let answer = ask!(client, 0, PushTelemetry, push);
        assert_eq!(answer.error_code, code.code());
    }
    bed.stop().await;
}
