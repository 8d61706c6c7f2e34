//! The Kafka listener of a whole node, through a client of nothing but the wire codec, through the node's own API
//! beside it, and through the clients that people use.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod admin;
mod classic;
mod client;
mod clients;
mod cluster;
mod connections;
mod groups;
mod moves;
mod records;
mod tools;
mod topics;

use std::net::SocketAddr;

use varve_server::Node;

/// A node of its own with the listener on, and what it is to be told apart from that.
struct Bed {
    node: Node,
    kafka: SocketAddr,
    _dir: tempfile::TempDir,
}

impl Bed {
    async fn start(settings: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let base = [
            ("listeners.kafka.address", "127.0.0.1:0"),
            ("listeners.kafka.tls.mode", "insecure"),
            ("log.filter", "warn"),
        ];
        let all: Vec<_> = base.iter().chain(settings).copied().collect();
        let node = varve_server::embedded::start_with(dir.path(), &all)
            .await
            .unwrap();
        Self {
            kafka: node.kafka_address().unwrap(),
            node,
            _dir: dir,
        }
    }

    async fn client(&self) -> client::Client {
        client::Client::connect(self.kafka).await
    }

    async fn stop(self) {
        self.node.shutdown().await.unwrap();
    }
}
