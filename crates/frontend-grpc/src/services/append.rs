//! What Produce and ProduceStream share: from a request to verified batches, admission within a time,
//! and receipts within a time.
//!
//! Invariant: COMMIT_TIMEOUT is answered for what the broker has accepted and for nothing else. Every
//! other error means that nothing was appended.

use std::time::{Duration, Instant};

use varve_broker_api::{Appended, Broker, Error, Produce};
use varve_proto::v1;
use varve_record::Compression;
use varve_types::{ErrorKind, PartitionId};

use crate::context::CallContext;
use crate::shared::Shared;
use crate::translate::missing;
use crate::translate::produce::{self, Part};

/// Records in simple form of more bytes than this are compressed away from the threads of the transport.
const COMPRESS_INLINE_BYTES: usize = 64 * 1024;

/// Checks a request and makes its batches, one per partition.
///
/// # Errors
/// The first fault found; nothing is appended then.
pub async fn prepare<B: Broker>(
    shared: &Shared<B>,
    ctx: &CallContext,
    request: v1::ProduceRequest,
) -> Result<Vec<Part>, Error> {
    let head = produce::head(&request)?;
    let view = shared.topic(&ctx.broker, &head.topic)?;
    if let Some(batch) = request.batch {
        let number = head.partition.ok_or_else(|| missing("partition"))?;
        let partition = produce::check_partition(&head, number, view.partitions)?;
        let heavy = produce::is_heavy(&batch);
        let part = on_thread(heavy, move || produce::encoded(&head, partition, batch)).await?;
        return Ok(vec![part]);
    }
    let (now_ms, unkeyed) = (shared.broker.node().now_ms, shared.next_unkeyed());
    let bytes = prost::Message::encoded_len(&request);
    let heavy = view.compression != Compression::None && bytes > COMPRESS_INLINE_BYTES;
    let records = request.records;
    on_thread(heavy, move || {
        produce::records(&head, &view, &records, now_ms, unkeyed)
    })
    .await
}

/// Runs work here, or on a thread for blocking work when it is heavy.
async fn on_thread<T: Send + 'static>(
    heavy: bool,
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    if !heavy {
        return work();
    }
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|_| {
        // The runtime is going away.
        Err(Error::new(
            ErrorKind::ShuttingDown,
            "this node is shutting down; nothing was appended",
        ))
    })
}

/// Waits until the broker has taken a batch.
///
/// # Errors
/// What the broker says; `Throttled` when it had no room until `until`, with nothing appended.
pub async fn admit<B: Broker>(
    shared: &Shared<B>,
    ctx: &CallContext,
    request: Produce,
    until: Instant,
) -> Result<B::Receipt, Error> {
    let (topic, partition) = (request.topic.clone(), request.partition);
    let taken = shared.broker.produce(&ctx.broker, request);
    tokio::time::timeout_at(until.into(), taken)
        .await
        .unwrap_or_else(|_| {
            Err(Error::new(
                ErrorKind::Throttled,
                format!(
                    "the broker had no room for the records of {topic}:{partition} in time; \
                     nothing was appended; try again"
                ),
            )
            .with("topic", &topic)
            .with("partition", partition)
            .after(Duration::from_millis(100)))
        })
}

/// The error about an append that was accepted and whose outcome is not known in time.
#[must_use]
pub fn commit_timeout(partition: PartitionId, waited: Duration) -> Error {
    Error::new(
        ErrorKind::CommitTimeout,
        format!(
            "the append to partition {partition} was not acknowledged within {} ms: the records \
             may or may not be in the log; repeat it only with a producer session",
            waited.as_millis()
        ),
    )
    .with("partition", partition)
}

/// Waits for a receipt.
///
/// # Errors
/// What the broker says; `CommitTimeout` after `until`.
pub async fn receipt<B: Broker>(
    receipt: B::Receipt,
    partition: PartitionId,
    arrived: Instant,
    until: Instant,
) -> Result<Appended, Error> {
    tokio::time::timeout_at(until.into(), receipt)
        .await
        .unwrap_or_else(|_| {
            Err(commit_timeout(
                partition,
                until.saturating_duration_since(arrived),
            ))
        })
}

/// The error about a call whose deadline had passed when it arrived.
#[must_use]
pub fn expired() -> Error {
    Error::new(
        ErrorKind::CommitTimeout,
        "the deadline of the call had passed before it arrived; nothing was appended",
    )
    .with("appended", false)
}
