//! The front end over a real channel, against a broker in memory.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod admin;
mod consume;
mod fake;
mod fake_groups;
mod fake_log;
mod fake_transactions;
mod operations;
mod produce;
mod read;
mod server;
mod stream;
mod transaction;
mod transaction_reads;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};
use tonic_types::StatusExt;
use varve_frontend_grpc::{Health, Metrics, Options, Server};
use varve_proto::v1;
use varve_proto::v1::consumer_service_client::ConsumerServiceClient;
use varve_proto::v1::producer_service_client::ProducerServiceClient;
use varve_proto::v1::topic_service_client::TopicServiceClient;
use varve_record::{BatchBuilder, Compression};

use crate::fake::Fake;

/// Nothing in these tests takes this long unless it hangs.
pub(crate) const LONG: Duration = Duration::from_secs(20);

/// A server with its broker and a channel to it.
pub(crate) struct Harness {
    pub broker: Arc<Fake>,
    pub metrics: Metrics,
    pub health: Health,
    pub address: SocketAddr,
    pub shutdown: CancellationToken,
    pub server: JoinHandle<()>,
    pub channel: Channel,
}

impl Harness {
    pub async fn start() -> Self {
        Self::with(Options {
            drain_grace: Duration::from_secs(1),
            ..Options::default()
        })
        .await
    }

    pub async fn with(options: Options) -> Self {
        let broker = Fake::new();
        let metrics = Metrics::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let health = Health::starting().await;
        health.set_started(true).await;
        health.set_ready(true).await;
        let server = Server::new(
            Arc::clone(&broker),
            metrics.clone(),
            options,
            health.clone(),
        );
        let serving = server.serve(listener, shutdown.clone());
        let server = tokio::spawn(async move { serving.await.unwrap() });
        let channel = endpoint(address).connect().await.unwrap();
        Self {
            broker,
            metrics,
            health,
            address,
            shutdown,
            server,
            channel,
        }
    }

    pub fn producer(&self) -> ProducerServiceClient<Channel> {
        ProducerServiceClient::new(self.channel.clone())
    }

    pub fn consumer(&self) -> ConsumerServiceClient<Channel> {
        ConsumerServiceClient::new(self.channel.clone()).max_decoding_message_size(64 << 20)
    }

    pub fn topics(&self) -> TopicServiceClient<Channel> {
        TopicServiceClient::new(self.channel.clone())
    }

    /// Appends one record per value to a partition.
    pub async fn append(&self, topic: &str, partition: i32, values: &[&str]) {
        let records = values.iter().map(|v| record(None, v)).collect();
        let request = v1::ProduceRequest {
            topic: topic.to_owned(),
            partition: Some(partition),
            records,
            ..Default::default()
        };
        self.producer().produce(request).await.unwrap();
    }
}

pub(crate) fn endpoint(address: SocketAddr) -> Endpoint {
    Endpoint::from_shared(format!("http://{address}")).unwrap()
}

pub(crate) fn record(key: Option<&str>, value: &str) -> v1::Record {
    v1::Record {
        key: key.map(|k| Bytes::copy_from_slice(k.as_bytes())),
        value: Some(Bytes::copy_from_slice(value.as_bytes())),
        ..Default::default()
    }
}

/// An encoded batch of `values`.
pub(crate) fn batch(values: &[&[u8]]) -> Bytes {
    let mut builder = BatchBuilder::new(Compression::None, None);
    for value in values {
        builder
            .append(1_700_000_000_000, None, Some(value), &[])
            .unwrap();
    }
    builder.build().unwrap()
}

pub(crate) fn encoded(data: Bytes) -> Option<v1::EncodedBatch> {
    Some(v1::EncodedBatch { format: 2, data })
}

pub(crate) fn tp(topic: &str, partition: i32) -> Option<v1::TopicPartition> {
    Some(v1::TopicPartition {
        topic: topic.to_owned(),
        partition,
    })
}

pub(crate) fn start(position: v1::start_position::Position) -> Option<v1::StartPosition> {
    Some(v1::StartPosition {
        position: Some(position),
    })
}

/// The reason of a status, as clients read it.
pub(crate) fn reason(status: &Status) -> String {
    status
        .get_details_error_info()
        .map(|i| i.reason)
        .unwrap_or_default()
}

/// Asserts code and reason at once.
#[track_caller]
pub(crate) fn assert_fails<T: std::fmt::Debug>(result: Result<T, Status>, code: Code, why: &str) {
    let status = result.expect_err("the call must fail");
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (code, why),
        "{status:?}"
    );
}

/// Waits for something that must come.
pub(crate) async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(LONG, future)
        .await
        .expect("this takes too long")
}
