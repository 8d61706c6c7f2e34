//! The server around the services: reflection, health, limits, drain.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use varve_frontend_grpc::Options;
use varve_frontend_grpc::incoming::PREFACE_WAIT;
use varve_frontend_grpc::server::SERVICES;
use varve_proto::v1;
use varve_proto::v1::consume_request::Command as C;

use crate::{Harness, assert_fails, batch, encoded, endpoint, soon};

#[tokio::test]
async fn reflection_lists_every_service_in_both_versions() {
    let h = Harness::start().await;
    {
        use tonic_reflection::pb::v1::ServerReflectionRequest;
        use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
        use tonic_reflection::pb::v1::server_reflection_request::MessageRequest as Q;
        use tonic_reflection::pb::v1::server_reflection_response::MessageResponse as A;
        let ask = |q| ServerReflectionRequest {
            host: String::new(),
            message_request: Some(q),
        };
        let questions = vec![
            ask(Q::ListServices(String::new())),
            ask(Q::FileContainingSymbol(
                "varve.v1.ProduceRequest".to_owned(),
            )),
            ask(Q::FileByFilename(
                "google/protobuf/duration.proto".to_owned(),
            )),
        ];
        let mut client = ServerReflectionClient::new(h.channel.clone());
        let mut answers = client
            .server_reflection_info(tokio_stream::iter(questions))
            .await
            .unwrap()
            .into_inner();
        let first = soon(answers.message())
            .await
            .unwrap()
            .unwrap()
            .message_response
            .unwrap();
        let A::ListServicesResponse(list) = first else {
            panic!("{first:?}")
        };
        let names: Vec<_> = list.service.iter().map(|s| s.name.as_str()).collect();
        for service in SERVICES.iter().chain(&["grpc.health.v1.Health"]) {
            assert!(names.contains(service), "{service} not in {names:?}");
        }
        for _ in 0..2 {
            let answer = soon(answers.message())
                .await
                .unwrap()
                .unwrap()
                .message_response
                .unwrap();
            assert!(matches!(answer, A::FileDescriptorResponse(_)), "{answer:?}");
        }
    }
    use tonic_reflection::pb::v1alpha::ServerReflectionRequest;
    use tonic_reflection::pb::v1alpha::server_reflection_client::ServerReflectionClient;
    use tonic_reflection::pb::v1alpha::server_reflection_request::MessageRequest as Q;
    let ask = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(Q::ListServices(String::new())),
    };
    let mut client = ServerReflectionClient::new(h.channel.clone());
    let answers = client
        .server_reflection_info(tokio_stream::iter([ask]))
        .await
        .unwrap();
    assert!(
        soon(answers.into_inner().message())
            .await
            .unwrap()
            .is_some()
    );
}

#[tokio::test]
async fn health_knows_every_name_and_follows_readiness() {
    let h = Harness::start().await;
    let mut client = HealthClient::new(h.channel.clone());
    let check = |service: &str| HealthCheckRequest {
        service: service.to_owned(),
    };
    let names = ["", "startup", "liveness", "readiness"];
    for name in names.into_iter().chain(SERVICES) {
        let status = client.check(check(name)).await.unwrap().into_inner().status;
        assert_eq!(status, ServingStatus::Serving as i32, "{name:?}");
    }
    h.health.set_ready(false).await;
    for (name, expected) in [
        ("", ServingStatus::NotServing),
        ("readiness", ServingStatus::NotServing),
        ("varve.v1.ProducerService", ServingStatus::NotServing),
        ("liveness", ServingStatus::Serving),
    ] {
        let status = client.check(check(name)).await.unwrap().into_inner().status;
        assert_eq!(status, expected as i32, "{name:?}");
    }
    assert_eq!(
        client.check(check("nonsense")).await.unwrap_err().code(),
        Code::NotFound
    );
}

#[tokio::test]
async fn a_drain_is_announced_and_ends_every_stream_within_its_grace() {
    let h = Harness::start().await;
    h.broker.topic("orders", 1);
    h.broker.hold_receipts(true);
    let mut subscribed = {
        let request = v1::SubscribeRequest {
            topic: "orders".to_owned(),
            ..Default::default()
        };
        h.consumer().subscribe(request).await.unwrap().into_inner()
    };
    let (produce, requests) = mpsc::channel(4);
    let append = v1::ProduceRequest {
        topic: "orders".to_owned(),
        partition: Some(0),
        batch: encoded(batch(&[b"v"])),
        ..Default::default()
    };
    produce
        .send(v1::ProduceStreamRequest {
            request_id: 1,
            request: Some(append),
        })
        .await
        .unwrap();
    let mut produced = h
        .producer()
        .produce_stream(ReceiverStream::new(requests))
        .await
        .unwrap()
        .into_inner();
    let (fetch, commands) = mpsc::channel(4);
    let open = v1::fetch_stream_request::Command::Open(v1::FetchStreamOpen::default());
    fetch
        .send(v1::FetchStreamRequest {
            command: Some(open),
        })
        .await
        .unwrap();
    let mut fetched = h
        .consumer()
        .fetch_stream(ReceiverStream::new(commands))
        .await
        .unwrap()
        .into_inner();
    let (consume, commands) = mpsc::channel(4);
    let join = v1::ConsumeJoin {
        group: "g".to_owned(),
        topics: vec!["orders".to_owned()],
        ..Default::default()
    };
    consume
        .send(v1::ConsumeRequest {
            command: Some(C::Join(join)),
        })
        .await
        .unwrap();
    let mut consumed = h
        .consumer()
        .consume(ReceiverStream::new(commands))
        .await
        .unwrap()
        .into_inner();
    let long_poll = v1::FetchRequest {
        topic: "orders".to_owned(),
        start: crate::start(v1::start_position::Position::Offset(1)),
        max_wait: Some(prost_types::Duration {
            seconds: 30,
            nanos: 0,
        }),
        ..Default::default()
    };
    // All are under way: the append has arrived and the group has its member.
    soon(async {
        while h.broker.total("orders") == 0 || h.broker.members("g") == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let mut consumer = h.consumer();
    let held = tokio::spawn(async move { consumer.fetch(long_poll).await });
    soon(async {
        while h.metrics.open_streams("FetchStream") == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let began = Instant::now();
    h.shutdown.cancel();
    let drained = async {
        use v1::produce_stream_response::Event as P;
        let mut seen = [false; 4];
        let status = loop {
            match subscribed.message().await {
                Ok(m) => {
                    seen[0] |= matches!(
                        m.unwrap().event,
                        Some(v1::subscribe_response::Event::Drain(_))
                    )
                }
                Err(status) => break status,
            }
        };
        assert_fails(Err::<(), _>(status), Code::Unavailable, "SHUTTING_DOWN");
        let status = loop {
            match produced.message().await {
                Ok(m) => {
                    let event = m.unwrap().event;
                    if matches!(event, Some(P::Drain(_))) {
                        seen[1] = true;
                    }
                }
                Err(status) => break status,
            }
        };
        assert_fails(Err::<(), _>(status), Code::Unavailable, "SHUTTING_DOWN");
        let status = loop {
            match fetched.message().await {
                Ok(m) => {
                    seen[2] |= matches!(
                        m.unwrap().event,
                        Some(v1::fetch_stream_response::Event::Drain(_))
                    )
                }
                Err(status) => break status,
            }
        };
        assert_fails(Err::<(), _>(status), Code::Unavailable, "SHUTTING_DOWN");
        let status = loop {
            match consumed.message().await {
                Ok(m) => {
                    seen[3] |= matches!(
                        m.unwrap().event,
                        Some(v1::consume_response::Event::Drain(_))
                    )
                }
                Err(status) => break status,
            }
        };
        assert_fails(Err::<(), _>(status), Code::Unavailable, "SHUTTING_DOWN");
        assert_eq!(seen, [true; 4], "each stream announces its end");
    };
    soon(drained).await;
    if let Ok(answer) = soon(held).await.unwrap() {
        assert_eq!(
            answer.into_inner().records.len(),
            0,
            "a held read is answered"
        );
    }
    soon(h.server).await.unwrap();
    assert!(
        began.elapsed() < Duration::from_secs(6),
        "{:?}",
        began.elapsed()
    );
    assert_eq!(
        h.broker.members("g"),
        1,
        "a drain does not make members leave"
    );
}

#[tokio::test]
async fn requests_in_flight_are_answered_while_draining() {
    let h = Harness::with(Options {
        drain_grace: Duration::from_secs(15),
        ..Options::default()
    })
    .await;
    h.broker.topic("orders", 1);
    h.broker.hold_receipts(true);
    let mut producer = h.producer();
    let call = tokio::spawn(async move {
        let request = v1::ProduceRequest {
            topic: "orders".to_owned(),
            records: vec![crate::record(None, "v")],
            ..Default::default()
        };
        producer.produce(request).await
    });
    soon(async {
        while h.broker.total("orders") == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    h.shutdown.cancel();
    soon(async {
        while TcpStream::connect(h.address).await.is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    h.broker.hold_receipts(false);
    let results = soon(call).await.unwrap().unwrap().into_inner().results;
    assert_eq!(results.len(), 1);
    soon(h.server).await.unwrap();
}

#[tokio::test]
async fn connections_are_bounded_and_the_bound_is_counted() {
    let options = Options {
        connections: varve_tls::ConnectionLimits::of(2),
        ..Options::default()
    };
    let h = Harness::with(options).await;
    let second = endpoint(h.address).connect().await.unwrap();
    let mut third = TcpStream::connect(h.address).await.unwrap();
    let mut said = Vec::new();
    soon(third.read_to_end(&mut said)).await.unwrap();
    let why = varve_tls::speech::reason_in(&said);
    let varve_tls::speech::Reason::Text(why) = why else {
        panic!("the third is told why it is closed: {said:?}");
    };
    assert!(
        why.contains("2 are open, the limit that listeners.client.max_connections sets"),
        "{why}"
    );
    let mut client = HealthClient::new(second);
    assert!(client.check(HealthCheckRequest::default()).await.is_ok());
    assert_eq!(h.metrics.open_connections(), 2);
    let mut registry = prometheus_client::registry::Registry::with_prefix("varve");
    h.metrics.register(&mut registry);
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    assert!(text.contains("varve_connections_refused_total 1"), "{text}");
}

#[tokio::test]
async fn a_preface_that_comes_byte_by_byte_has_no_more_time_than_another() {
    let h = Harness::start().await;
    for first in [&b"PRI * HTTP/2.0"[..], b"PRX"] {
        let (mut reading, mut writing) = TcpStream::connect(h.address).await.unwrap().into_split();
        let began = tokio::time::Instant::now();
        let bytes = first.to_vec();
        let trickle = tokio::spawn(async move {
            for byte in bytes {
                let sent = writing.write_all(&[byte]).await;
                tokio::time::sleep(Duration::from_secs(4)).await;
                if sent.is_err() {
                    return;
                }
            }
            std::future::pending::<()>().await;
        });
        let mut rest = Vec::new();
        let closed = reading.read_to_end(&mut rest);
        let most = PREFACE_WAIT + Duration::from_secs(10);
        let closed = tokio::time::timeout_at(began + most, closed).await;
        assert!(
            closed.is_ok(),
            "{first:?}: open after {:?}",
            began.elapsed()
        );
        trickle.abort();
    }
    soon(async {
        // The harness has a connection of its own.
        while h.metrics.open_connections() > 1 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn garbage_on_the_wire_harms_nobody() {
    let h = Harness::start().await;
    h.broker.topic("orders", 1);
    for garbage in [
        &b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"[..],
        &[0xff; 4096][..],
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\x09\xff\xff\xff\xff\xff",
    ] {
        let mut socket = TcpStream::connect(h.address).await.unwrap();
        let _ = socket.write_all(garbage).await;
        let mut rest = Vec::new();
        // The server answers what it likes and closes; a reset is as good as an end.
        let _ = soon(socket.read_to_end(&mut rest)).await;
    }
    h.append("orders", 0, &["fine"]).await;
    assert_eq!(h.broker.end_of("orders", 0), 1);
}

#[tokio::test]
async fn bytes_that_are_no_message_and_methods_that_do_not_exist_have_a_status() {
    let h = Harness::start().await;
    let call = async |path: &'static str, bytes: &'static [u8]| {
        let mut grpc = tonic::client::Grpc::new(h.channel.clone());
        grpc.ready().await.unwrap();
        let path = http::uri::PathAndQuery::from_static(path);
        grpc.unary(Request::new(bytes), path, Raw)
            .await
            .map(|_: tonic::Response<()>| ())
    };
    for bytes in [
        &b"\x0a\xff\xff\xff\xff\x0f"[..],
        b"\x0a",
        b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
    ] {
        let answer = call("/varve.v1.ProducerService/Produce", bytes).await;
        assert_fails(answer, Code::InvalidArgument, "INVALID_REQUEST");
    }
    let status = call("/varve.v1.ProducerService/Nonsense", b"")
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
    let status = call("/nobody/home", b"").await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
}

/// A codec that sends what it is given and wants no answer.
#[derive(Debug, Default)]
struct Raw;

impl tonic::codec::Codec for Raw {
    type Encode = &'static [u8];
    type Decode = ();
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl tonic::codec::Encoder for Raw {
    type Item = &'static [u8];
    type Error = tonic::Status;

    fn encode(
        &mut self,
        item: &'static [u8],
        out: &mut tonic::codec::EncodeBuf<'_>,
    ) -> Result<(), tonic::Status> {
        bytes::BufMut::put_slice(out, item);
        Ok(())
    }
}

impl tonic::codec::Decoder for Raw {
    type Item = ();
    type Error = tonic::Status;

    fn decode(
        &mut self,
        from: &mut tonic::codec::DecodeBuf<'_>,
    ) -> Result<Option<()>, tonic::Status> {
        let left = bytes::Buf::remaining(from);
        bytes::Buf::advance(from, left);
        Ok(Some(()))
    }
}
