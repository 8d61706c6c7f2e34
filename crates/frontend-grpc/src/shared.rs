//! What every call of one server shares: the broker, the metrics, the drain signal, and a cache of the
//! few facts about topics that a produce in simple form needs.
//!
//! Invariant: every error that leaves this crate passes through [`Shared::fail`] or
//! [`Shared::partition_error`], so the error counter misses none.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Status};
use varve_broker_api::{Broker, Context, Error, UnreadBudget};
use varve_proto::v1;
use varve_record::Compression;
use varve_types::{ErrorKind, TopicName, limits};

use crate::context::CallContext;
use crate::metrics::Metrics;
use crate::status;

/// What the front end knows of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicView {
    /// Number of partitions, at least 1.
    pub partitions: i32,
    /// `max.message.bytes`.
    pub max_message_bytes: usize,
    /// Codec of batches made here: that of `compression.type`, none for `producer`.
    pub compression: Compression,
}

#[derive(Debug, Default)]
struct TopicCache {
    version: u64,
    topics: BTreeMap<TopicName, Arc<TopicView>>,
}

/// State shared by the services of one server.
#[derive(Debug)]
pub struct Shared<B> {
    /// The broker.
    pub broker: Arc<B>,
    /// Metrics.
    pub metrics: Metrics,
    /// Cancelled when the server begins to drain.
    pub drain: CancellationToken,
    /// How long streams live on after that.
    pub grace: Duration,
    /// The node's budget for what is read and not taken.
    pub unread: Arc<UnreadBudget>,
    topics: Mutex<TopicCache>,
    unkeyed: AtomicU32,
    request_timeout: Duration,
    max_fetch_bytes: usize,
}

impl<B: Broker> Shared<B> {
    /// State of a server that drains when `drain` is cancelled.
    #[must_use]
    pub fn new(
        broker: Arc<B>,
        metrics: Metrics,
        drain: CancellationToken,
        grace: Duration,
        unread: Arc<UnreadBudget>,
    ) -> Self {
        let node = broker.node();
        Self {
            broker,
            metrics,
            drain,
            grace,
            unread,
            topics: Mutex::default(),
            unkeyed: AtomicU32::new(0),
            request_timeout: Duration::from_millis(node.request_timeout_ms.max(1)),
            max_fetch_bytes: node.max_fetch_bytes.clamp(1, limits::FETCH_MAX_BYTES),
        }
    }

    /// Reads a call's circumstances.
    ///
    /// # Errors
    /// The status the call fails with.
    pub fn context<T>(&self, request: &Request<T>) -> Result<CallContext, Status> {
        CallContext::read(request.metadata(), request.remote_addr(), || {
            self.broker.node()
        })
        .map_err(|error| self.fail(&error))
    }

    /// The status for an error, counted.
    pub fn fail(&self, error: &Error) -> Status {
        self.metrics.error(error.kind.reason());
        status::to_status(error)
    }

    /// The status for a message of a stream that could not be read, counted.
    pub fn unreadable(&self, status: Status) -> Status {
        status::unreadable(&status).map_or(status, |error| self.fail(&error))
    }

    /// Waits for the answer to a call, for as long as its client does.
    ///
    /// # Errors
    /// What the answer says; `CommitTimeout` when there is none in time: the outcome is not known.
    pub async fn within<T>(
        &self,
        ctx: &CallContext,
        answer: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let until = ctx.answer_until(self.request_timeout);
        tokio::time::timeout_at(until.into(), answer)
            .await
            .unwrap_or_else(|_| {
                Err(Error::new(
                    ErrorKind::CommitTimeout,
                    "timed out; the change may or may not have been made",
                ))
            })
    }

    /// The body of an error, counted.
    pub fn partition_error(&self, error: &Error) -> v1::PartitionError {
        self.metrics.error(error.kind.reason());
        status::to_partition_error(error)
    }

    /// Deadline of calls that name none.
    pub const fn request_timeout(&self) -> Duration {
        self.request_timeout
    }

    /// Largest `max_bytes` of a read.
    pub const fn max_fetch_bytes(&self) -> usize {
        self.max_fetch_bytes
    }

    /// A number that differs for consecutive requests, for records without key.
    pub fn next_unkeyed(&self) -> u32 {
        self.unkeyed.fetch_add(1, Ordering::Relaxed)
    }

    /// What is known of a topic. Read from the broker once per version of its metadata.
    ///
    /// # Errors
    /// `TopicNotFound`, or what the broker says.
    pub fn topic(&self, ctx: &Context, topic: &TopicName) -> Result<Arc<TopicView>, Error> {
        // The version is read before the topic: a change in between makes the entry stale, never wrong
        // for longer than until the next call.
        let version = self.broker.metadata_version();
        {
            let mut cache = self.topics.lock();
            if cache.version != version {
                cache.topics.clear();
                cache.version = version;
            } else if let Some(view) = cache.topics.get(topic) {
                return Ok(Arc::clone(view));
            }
        }
        let info = self.broker.topic(ctx, topic)?;
        let configs = self.broker.topic_configs(ctx, topic)?;
        let value = |name: &str| {
            configs
                .iter()
                .find(|c| c.name == name)
                .map(|c| c.value.as_str())
        };
        let view = Arc::new(TopicView {
            partitions: info.partitions.max(1),
            max_message_bytes: value("max.message.bytes")
                .and_then(|v| v.parse().ok())
                .unwrap_or(limits::MESSAGE_DEFAULT_MAX_BYTES),
            compression: value("compression.type")
                .and_then(|v| v.parse().ok())
                .unwrap_or(Compression::None),
        });
        let mut cache = self.topics.lock();
        if cache.version == version && cache.topics.len() < limits::PARTITIONS_PER_NODE_MAX {
            cache.topics.insert(topic.clone(), Arc::clone(&view));
        }
        Ok(view)
    }

    /// The error that ends calls and streams of a draining server.
    #[must_use]
    pub fn shutting_down() -> Error {
        Error::new(
            ErrorKind::ShuttingDown,
            "this node is shutting down; repeat the call at another node",
        )
    }
}
