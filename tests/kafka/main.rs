//! The Kafka listener of a whole node, through a client of nothing but the wire codec, through the node's own API
//! beside it, and through the clients that people use.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod admin;
mod ahead;
mod asked;
mod both;
#[path = "../../crates/tls/tests/support/ca.rs"]
mod ca;
mod classic;
mod client;
mod clients;
mod cluster;
mod configs;
mod connections;
mod elections;
mod faults;
mod field;
mod fronts;
mod groups;
mod lenient;
mod moves;
mod old_formats;
mod ordinary;
mod placements;
mod racks;
mod records;
mod seen;
mod shared;
mod tls;
mod tools;
mod topics;
mod transactions;

use std::net::SocketAddr;
use std::path::Path;

use varve_server::Node;

/// A node of its own with the listener on, and what it is to be told apart from that.
struct Bed {
    node: Node,
    kafka: SocketAddr,
    _dir: Option<tempfile::TempDir>,
}

impl Bed {
    async fn start(settings: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let started = Self::start_in(dir.path(), settings).await;
        Self {
            _dir: Some(dir),
            ..started
        }
    }

    /// In a directory that stays.
    async fn start_in(dir: &Path, settings: &[(&str, &str)]) -> Self {
        let base = [
            ("listeners.kafka.address", "127.0.0.1:0"),
            ("listeners.kafka.tls.mode", "insecure"),
            ("log.filter", "warn"),
        ];
        let all: Vec<_> = base.iter().chain(settings).copied().collect();
        let node = varve_server::embedded::start_with(dir, &all).await.unwrap();
        Self {
            kafka: node.kafka_address().unwrap(),
            node,
            _dir: None,
        }
    }

    async fn client(&self) -> client::Client {
        client::Client::connect(self.kafka).await
    }

    async fn stop(self) {
        self.node.shutdown().await.unwrap();
    }
}
