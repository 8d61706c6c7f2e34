//! The producer: records in, acknowledgements out.
//!
//! [`Producer::send_nowait`] copies a record into its partition's batch under a lock that is held for
//! that copy only; there is no allocation or message per record. A background task closes, compresses,
//! sends and repeats batches. Dropping a producer without [`Producer::close`] abandons what was not sent.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use varve_record::Compression;
use varve_types::{Acks, PartitionId, ProducerId, TopicName, TransactionalId, limits};

use crate::batcher::{AppendError, Batcher, BatcherConfig, NewRecord};
use crate::connect::Client;
use crate::delivery::{BatchReport, DeliveryHandle};
use crate::error::ClientError;
use crate::sender::Sender;

/// Called once for every batch when it is settled, from the producer's own task: it must not block.
pub type OnBatch = Arc<dyn Fn(&BatchReport) + Send + Sync>;

/// Settings of a [`Producer`].
#[derive(Clone)]
pub struct ProducerConfig {
    /// When an append counts as done.
    pub acks: Acks,
    /// Repeats are recognised by the leader, so that no record is doubled or reordered. Needs `acks`
    /// all; with others it is off.
    pub idempotent: bool,
    /// Stable name: a newer producer with this name fences this one off. Empty: none.
    pub name: String,
    /// An open batch waits this long for more records.
    pub linger: Duration,
    /// Bytes of a batch before compression, at most 8 MiB.
    pub batch_bytes: usize,
    /// Bytes of records not yet settled; `send` waits when they are used up.
    pub buffer_bytes: usize,
    /// Codec.
    pub compression: Compression,
    /// Level on the codec's scale.
    pub compression_level: Option<i32>,
    /// A record fails when it is not acknowledged this long after it was given.
    pub delivery_timeout: Duration,
    /// Batches of one partition in flight, 1 to 5.
    pub max_in_flight: usize,
    /// Told of every batch that is settled.
    pub on_batch: Option<OnBatch>,
}

impl Default for ProducerConfig {
    fn default() -> Self {
        Self {
            acks: Acks::All,
            idempotent: true,
            name: String::new(),
            linger: Duration::from_millis(5),
            batch_bytes: 256 * 1024,
            buffer_bytes: 64 * 1024 * 1024,
            compression: Compression::None,
            compression_level: None,
            delivery_timeout: Duration::from_secs(120),
            max_in_flight: limits::PRODUCER_BATCHES_REMEMBERED,
            on_batch: None,
        }
    }
}

impl std::fmt::Debug for ProducerConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ProducerConfig")
            .field("acks", &self.acks)
            .field("idempotent", &self.idempotent)
            .field("linger", &self.linger)
            .field("batch_bytes", &self.batch_bytes)
            .field("compression", &self.compression)
            .finish_non_exhaustive()
    }
}

/// A record to send, borrowed; it is copied into its batch.
#[derive(Debug, Clone, Copy, Default)]
pub struct RecordRef<'a> {
    /// Partition; `None` lets the key decide, or chance for a record without key.
    pub partition: Option<i32>,
    /// Key.
    pub key: Option<&'a [u8]>,
    /// Value; `None` is a tombstone.
    pub value: Option<&'a [u8]>,
    /// Headers; names are bytes, UTF-8 by custom.
    pub headers: &'a [(&'a [u8], Option<&'a [u8]>)],
    /// Milliseconds since the epoch; `None` is now.
    pub timestamp_ms: Option<i64>,
}

/// What the producer and its background task share.
pub(crate) struct Shared {
    pub batcher: Mutex<Batcher>,
    /// There is something to send.
    pub wake: Notify,
    /// Something was settled, or became known.
    pub progress: Notify,
    pub state: Mutex<State>,
    pub started: Instant,
}

/// What is known beside the batches.
#[derive(Debug, Default)]
pub(crate) struct State {
    /// Topics that records wait for, and what is known about each.
    pub wanted: BTreeMap<String, Option<ClientError>>,
    /// Why nothing can be sent any more.
    pub fatal: Option<ClientError>,
    /// First failure since the last flush.
    pub failed: Option<ClientError>,
    pub closed: bool,
    /// Session of the next transaction, until the background task has taken it over.
    pub session: Option<ProducerId>,
    /// Everything that is not settled is to be given up with this error.
    pub abandon: Option<ClientError>,
}

impl Shared {
    pub fn batcher(&self) -> MutexGuard<'_, Batcher> {
        self.batcher.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn now(&self) -> Duration {
        self.started.elapsed()
    }
}

/// Milliseconds since the epoch.
pub(crate) fn wall_clock_ms() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// See the module.
pub struct Producer {
    shared: Arc<Shared>,
    task: JoinHandle<()>,
    delivery_timeout: Duration,
    buffer_bytes: usize,
}

impl std::fmt::Debug for Producer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Producer").finish_non_exhaustive()
    }
}

impl Producer {
    /// Starts a producer on the current runtime. No call is made before the first record.
    ///
    /// # Errors
    /// [`ClientError::Config`] when a setting is out of range.
    pub fn new(client: Client, config: ProducerConfig) -> Result<Self, ClientError> {
        Self::start(client, config, None)
    }

    /// As [`Producer::new`], for the transactions of `transaction`: nothing is sent before it was given a session.
    pub(crate) fn start(
        client: Client,
        config: ProducerConfig,
        transaction: Option<TransactionalId>,
    ) -> Result<Self, ClientError> {
        let most = limits::PRODUCER_BATCHES_REMEMBERED;
        if !(1..=most).contains(&config.max_in_flight) {
            return Err(ClientError::Config(format!(
                "max_in_flight must be 1 to {most}"
            )));
        }
        if config.batch_bytes > limits::BUILT_BATCH_MAX_BYTES {
            let max = limits::BUILT_BATCH_MAX_BYTES;
            return Err(ClientError::Config(format!(
                "batch_bytes may be at most {max}"
            )));
        }
        let seed = uuid::Uuid::new_v4().as_u64_pair().0;
        let batcher = BatcherConfig {
            batch_bytes: config.batch_bytes,
            linger: config.linger,
            buffer_bytes: config.buffer_bytes,
            compression: config.compression,
            level: config.compression_level,
        };
        let shared = Arc::new(Shared {
            batcher: Mutex::new(Batcher::new(batcher, seed)),
            wake: Notify::new(),
            progress: Notify::new(),
            state: Mutex::new(State::default()),
            started: Instant::now(),
        });
        let delivery_timeout = config.delivery_timeout;
        let buffer_bytes = config.buffer_bytes;
        let sender = Sender::new(client, config, transaction, shared.clone(), seed);
        let task = tokio::spawn(sender.run());
        Ok(Self {
            shared,
            task,
            delivery_timeout,
            buffer_bytes,
        })
    }

    /// Puts a record into its batch, waiting for room and for the topic to be known. The handle
    /// resolves when the record is acknowledged; it may be dropped.
    ///
    /// # Errors
    /// [`ClientError`]; the record was not taken.
    pub async fn send(
        &self,
        topic: &TopicName,
        record: RecordRef<'_>,
    ) -> Result<DeliveryHandle, ClientError> {
        let timestamp_ms = record.timestamp_ms.unwrap_or_else(wall_clock_ms);
        let record = RecordRef {
            timestamp_ms: Some(timestamp_ms),
            ..record
        };
        self.ready_for(topic, &record, |delivery, index| {
            DeliveryHandle::new(delivery.clone(), index, timestamp_ms)
        })
        .await
    }

    /// As [`Producer::send`], without a handle: failures are reported by [`Producer::flush`] and to
    /// `on_batch`.
    ///
    /// # Errors
    /// [`ClientError`]; the record was not taken.
    pub async fn enqueue(
        &self,
        topic: &TopicName,
        record: RecordRef<'_>,
    ) -> Result<(), ClientError> {
        match self.try_append(topic.as_str(), &record, |_, _| ()) {
            Ok(()) => Ok(()),
            Err(AppendError::BufferFull | AppendError::UnknownTopic) => {
                self.ready_for(topic, &record, |_, _| ()).await
            }
            Err(error) => Err(self.refusal(topic, &record, error)),
        }
    }

    /// Puts a record into its batch at once, or not at all. The topic must be known
    /// ([`Producer::prepare`]).
    ///
    /// # Errors
    /// [`ClientError::BufferFull`] when there is no room; others as [`Producer::send`].
    pub fn send_nowait(&self, topic: &TopicName, record: RecordRef<'_>) -> Result<(), ClientError> {
        self.try_append(topic.as_str(), &record, |_, _| ())
            .map_err(|error| self.refusal(topic, &record, error))
    }

    /// Learns a topic's partitions.
    ///
    /// # Errors
    /// [`ClientError::TopicNotFound`], or the error of the cluster.
    pub async fn prepare(&self, topic: &TopicName) -> Result<(), ClientError> {
        let deadline = self.shared.now() + self.delivery_timeout;
        loop {
            let progress = self.shared.progress.notified();
            tokio::pin!(progress);
            progress.as_mut().enable();
            if self.shared.batcher().topic_index(topic.as_str()).is_some() {
                return Ok(());
            }
            self.want(topic)?;
            self.wait(progress, deadline, topic).await?;
        }
    }

    /// Bytes of records not yet settled.
    #[must_use]
    pub fn buffered_bytes(&self) -> usize {
        self.shared.batcher().used_bytes()
    }

    async fn ready_for<T>(
        &self,
        topic: &TopicName,
        record: &RecordRef<'_>,
        then: impl Fn(&Arc<crate::delivery::Delivery>, u32) -> T,
    ) -> Result<T, ClientError> {
        let deadline = self.shared.now() + self.delivery_timeout;
        loop {
            // Armed before the attempt, so that no progress in between is missed.
            let progress = self.shared.progress.notified();
            tokio::pin!(progress);
            progress.as_mut().enable();
            match self.try_append(topic.as_str(), record, &then) {
                Ok(done) => return Ok(done),
                Err(AppendError::BufferFull) => self.check_alive()?,
                Err(AppendError::UnknownTopic) => self.want(topic)?,
                Err(error) => return Err(self.refusal(topic, record, error)),
            }
            self.wait(progress, deadline, topic).await?;
        }
    }

    async fn wait(
        &self,
        progress: impl Future<Output = ()>,
        deadline: Duration,
        topic: &TopicName,
    ) -> Result<(), ClientError> {
        let left = deadline.saturating_sub(self.shared.now());
        if tokio::time::timeout(left, progress).await.is_err() {
            let known = self.shared.batcher().topic_index(topic.as_str()).is_some();
            let error = self
                .shared
                .state()
                .wanted
                .get(topic.as_str())
                .cloned()
                .flatten();
            return Err(match error {
                Some(error) if !known => error,
                _ => ClientError::BufferFull(self.buffer_bytes),
            });
        }
        Ok(())
    }

    /// Asks the background task for a topic; fails when it is known not to be there.
    fn want(&self, topic: &TopicName) -> Result<(), ClientError> {
        self.check_alive()?;
        let mut state = self.shared.state();
        match state.wanted.get(topic.as_str()) {
            // Reported once; a later record asks again.
            Some(Some(error)) if !error.is_retryable() => {
                let error = error.clone();
                state.wanted.remove(topic.as_str());
                Err(error)
            }
            Some(_) => Ok(()),
            None => {
                state.wanted.insert(topic.to_string(), None);
                self.shared.wake.notify_one();
                Ok(())
            }
        }
    }

    fn check_alive(&self) -> Result<(), ClientError> {
        let state = self.shared.state();
        match &state.fatal {
            Some(error) => Err(error.clone()),
            None if state.closed => Err(ClientError::Closed),
            None => Ok(()),
        }
    }

    fn refusal(
        &self,
        topic: &TopicName,
        record: &RecordRef<'_>,
        error: AppendError,
    ) -> ClientError {
        match error {
            AppendError::UnknownTopic => ClientError::TopicNotFound(topic.to_string()),
            AppendError::BufferFull => ClientError::BufferFull(self.buffer_bytes),
            AppendError::Record(error) => ClientError::Record(error),
            AppendError::NoSuchPartition(count) => ClientError::PartitionNotFound {
                topic: topic.to_string(),
                partition: record.partition.unwrap_or(-1),
                count,
            },
        }
    }

    #[inline]
    fn try_append<T>(
        &self,
        topic: &str,
        record: &RecordRef<'_>,
        then: impl Fn(&Arc<crate::delivery::Delivery>, u32) -> T,
    ) -> Result<T, AppendError> {
        let now = self.shared.now();
        let mut batcher = self.shared.batcher();
        let index = batcher
            .topic_index(topic)
            .ok_or(AppendError::UnknownTopic)?;
        let record = NewRecord {
            partition: record.partition.map(PartitionId),
            key: record.key,
            value: record.value,
            headers: record.headers,
            timestamp_ms: record.timestamp_ms.unwrap_or_else(wall_clock_ms),
        };
        let appended = batcher.append(now, index, &record)?;
        let (wake, done) = (appended.wake, then(appended.delivery, appended.index));
        drop(batcher);
        if wake {
            self.shared.wake.notify_one();
        }
        Ok(done)
    }

    /// Sends everything given so far at once and waits until all of it is settled.
    ///
    /// # Errors
    /// The first failure since the last flush. Other batches may have been acknowledged.
    pub async fn flush(&self) -> Result<(), ClientError> {
        let target = self.shared.batcher().begin_flush();
        self.shared.wake.notify_one();
        loop {
            let progress = self.shared.progress.notified();
            tokio::pin!(progress);
            progress.as_mut().enable();
            if self.shared.batcher().settled_below(target) || self.task.is_finished() {
                break;
            }
            progress.await;
        }
        self.shared.batcher().end_flush();
        self.shared.state().failed.take().map_or(Ok(()), Err)
    }

    /// What was sent from now on belongs to that session. Everything before must be settled.
    pub(crate) fn set_session(&self, session: ProducerId) {
        self.shared.state().session = Some(session);
        self.shared.wake.notify_one();
    }

    /// The first failure since the last flush.
    pub(crate) fn failure(&self) -> Option<ClientError> {
        self.shared.state().failed.clone()
    }

    /// Fails everything that is not settled with `error`, and waits until it is. What is on its way may still be
    /// appended.
    pub(crate) async fn discard(&self, error: ClientError) {
        self.shared.state().abandon = Some(error);
        // Its outcome is what was asked for.
        let _ = self.flush().await;
    }

    /// Flushes and ends the producer.
    ///
    /// # Errors
    /// As [`Producer::flush`].
    pub async fn close(mut self) -> Result<(), ClientError> {
        let result = self.flush().await;
        self.shared.state().closed = true;
        self.shared.wake.notify_one();
        let _ = (&mut self.task).await;
        result
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        self.task.abort();
    }
}
