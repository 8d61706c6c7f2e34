//! The server keeps the deadline of a call, whatever its client does: it sends no message, never cancels, or reads
//! nothing. A timeout that says nothing is refused by every service.

use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::join_all;
use prost::Message as _;
use tonic_types::StatusExt as _;

use crate::raw_client::{Answer, Raw, frame};
use crate::support::{Code, Rpc, Status, eventually, run, shared, v1};

const CONSUMER: &str = "/varve.v1.ConsumerService";
const REFLECTION: &str = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
const WATCH: &str = "/grpc.health.v1.Health/Watch";

fn subscribe(topic: &str) -> Bytes {
    let request = v1::SubscribeRequest {
        topic: topic.into(),
        start: crate::support::anchor(v1::StartAnchor::Earliest),
        ..Default::default()
    };
    frame(&request.encode_to_vec())
}

fn join(topic: &str, group: &str) -> Bytes {
    let join = v1::ConsumeJoin {
        group: group.into(),
        topics: vec![topic.into()],
        ..Default::default()
    };
    let request = v1::ConsumeRequest {
        command: Some(v1::consume_request::Command::Join(join)),
    };
    frame(&request.encode_to_vec())
}

async fn members(rpc: &Rpc, group: &str) -> Option<usize> {
    let request = v1::GetGroupRequest {
        group: group.into(),
    };
    let answer = rpc.groups().get_group(request).await.ok()?;
    Some(answer.into_inner().group?.members.len())
}

fn field(status: &Status) -> Option<String> {
    let bad = status.get_details_bad_request()?;
    bad.field_violations.first().map(|v| v.field.clone())
}

fn is_over(what: &str, answer: &Answer) {
    let status = answer
        .status()
        .unwrap_or_else(|| panic!("{what}: {answer:?}"));
    assert_eq!(status.code(), Code::DeadlineExceeded, "{what}: {answer:?}");
    assert_eq!(answer.http, 200, "{what}");
}

#[test]
fn every_call_ends_at_its_deadline() {
    run(async {
        let rpc = shared().await;
        rpc.create("deadline", 1).await;
        rpc.put("deadline", 0, &["a"]).await;
        let calls: Vec<(String, Option<Bytes>)> = vec![
            (format!("{CONSUMER}/Subscribe"), Some(subscribe("deadline"))),
            (format!("{CONSUMER}/Subscribe"), None),
            (
                format!("{CONSUMER}/Consume"),
                Some(join("deadline", "deadline-a")),
            ),
            (format!("{CONSUMER}/Consume"), None),
            (format!("{CONSUMER}/FetchStream"), None),
            (format!("{CONSUMER}/Fetch"), None),
            ("/varve.v1.ProducerService/ProduceStream".into(), None),
            ("/varve.v1.ProducerService/Produce".into(), None),
            ("/varve.v1.TopicService/ListTopics".into(), None),
            (
                "/varve.v1.ClusterService/WatchMetadata".into(),
                Some(frame(b"")),
            ),
            (REFLECTION.into(), None),
            (REFLECTION.replace("v1.", "v1alpha."), None),
            (WATCH.into(), Some(frame(b""))),
            ("/grpc.health.v1.Health/Check".into(), None),
        ];
        let started = Instant::now();
        let answers = calls.iter().map(async |(path, message)| {
            let raw = Raw::connect(rpc.address).await;
            raw.held(path, "1500m", message.clone()).await
        });
        for ((path, _), answer) in calls.iter().zip(join_all(answers).await) {
            is_over(path, &answer);
        }
        let took = started.elapsed();
        assert!(took >= Duration::from_millis(1_400), "{took:?}");
        // The member that the stream was has left.
        eventually("the membership is let go", async || {
            members(&rpc, "deadline-a").await.unwrap_or(0) == 0
        })
        .await;
    });
}

#[test]
fn what_a_stream_holds_is_let_go_though_its_client_reads_nothing() {
    run(async {
        let rpc = shared().await;
        rpc.create("deadline-full", 1).await;
        let value = "x".repeat(900_000);
        for _ in 0..20 {
            rpc.put("deadline-full", 0, &[&value]).await;
        }
        let raw = Raw::connect(rpc.address).await;
        let path = format!("{CONSUMER}/Consume");
        let message = join("deadline-full", "deadline-b");
        let (answer, open) = raw.unread(&path, "4S", message).await;
        eventually("a member is there", async || {
            members(&rpc, "deadline-b").await == Some(1)
        })
        .await;
        eventually("it has left", async || {
            members(&rpc, "deadline-b").await.unwrap_or(0) == 0
        })
        .await;
        assert_eq!(answer.http, 200, "{answer:?}");
        assert!(answer.status().is_none(), "nothing was read: {answer:?}");
        drop(open);
    });
}

#[test]
fn a_timeout_that_says_nothing_is_refused_everywhere() {
    run(async {
        let rpc = shared().await;
        rpc.create("deadline-bad", 1).await;
        let raw = Raw::connect(rpc.address).await;
        let subscribe = subscribe("deadline-bad");
        let unary = "/varve.v1.TopicService/ListTopics".to_owned();
        for bad in [
            "",
            "abc",
            "1",
            "S",
            "-1S",
            "+1S",
            "1.5S",
            "999999999S",
            "1X",
            "1s",
            "1 S",
            "S1",
        ] {
            for (path, body) in [
                (format!("{CONSUMER}/Subscribe"), subscribe.clone()),
                (unary.clone(), frame(b"")),
                (WATCH.into(), frame(b"")),
                (REFLECTION.into(), Bytes::new()),
            ] {
                let answer = raw.call(&path, &[("grpc-timeout", bad)], body).await;
                let status = answer.status().unwrap_or_else(|| panic!("{path} {bad:?}"));
                assert_eq!(status.code(), Code::InvalidArgument, "{path} {bad:?}");
                assert_eq!(field(&status).as_deref(), Some("grpc-timeout"));
            }
        }
        for good in ["99999999H", "00000030S", "30000m"] {
            let answer = raw
                .call(&unary, &[("grpc-timeout", good)], frame(b""))
                .await;
            assert_eq!(answer.status().unwrap().code(), Code::Ok, "{good}");
        }
    });
}
