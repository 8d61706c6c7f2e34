//! Client library: batching, routing, retry.
//!
//! A [`Producer`] collects records into batches, sends each to its partition's leader over one stream
//! per leader, and repeats what was lost under a sequence number, so that every record is in the log
//! exactly once and in order. A [`TransactionalProducer`] makes records and commits of offsets count together
//! or not at all. A [`Consumer`] reads partitions from their leaders with a bounded prefetch; a
//! [`GroupConsumer`] does so for the partitions its group assigns to it. Both can poll or stream, pause, seek
//! and commit. An [`Admin`] has the rest of the API as plain calls.
//!
//! Invariants: memory is bounded by configuration; no call is repeated on its own unless repeating it is
//! harmless; the parts that decide (`batcher`, `flight`, `positions`) perform no I/O and get the time as an
//! argument.

pub mod admin;
pub mod backoff;
pub mod batcher;
pub mod connect;
pub mod consumer;
mod coordinators;
pub mod delivery;
pub mod error;
mod fetch_wire;
mod fetcher;
pub mod flight;
pub mod group;
mod leaders;
mod membership;
mod positions;
pub mod producer;
pub mod routing;
mod sender;
pub mod transactional;

pub use admin::Admin;
pub use connect::{Client, ClientConfig};
pub use consumer::{
    Assignment, Batches, CommitConfig, CommittedOffset, Consumer, ConsumerConfig, ConsumerRecord,
    End, FetchedBatch, GroupProgress, Rebalance, RebalanceFuture, RebalanceListener, RecordStream,
    Start, Topics,
};
pub use delivery::{BatchReport, DeliveryHandle, RecordAck};
pub use error::{ClientError, RpcError};
pub use group::{GroupConfig, GroupConsumer, StartPolicy};
pub use producer::{Producer, ProducerConfig, RecordRef};
pub use transactional::{TransactionError, TransactionalConfig, TransactionalProducer};
pub use varve_broker_api::Isolation;
pub use varve_proto::v1 as proto;
pub use varve_tls::{ClientFiles, ClientTls, Network, Tcp, TlsError};
