//! What the bytes of an append are: one batch that is verified and goes on as it came, or a message set of an older
//! format that becomes one.
//!
//! Invariants: bytes of which anything is wrong become nothing at all; what is long, or unpacks to much, does so on a
//! thread for such work, no more of them at a time than there are cores, so that it neither holds up other connections
//! nor takes memory without bound.

use std::sync::Arc;

use bytes::Bytes;
use varve_broker_api::Broker;
use varve_record::{Batch, BatchError, MessageFault, Unverified, VerifyLimits, message_set};
use varve_types::limits;

use super::produce::Refused;
use crate::shared::Shared;
use crate::wire::{ErrorCode, Text};

/// Compressed bytes longer than this are unpacked on a thread for such work.
const HEAVY_BYTES: usize = 16 * 1024;
/// What unpacks to more than this, whatever its own length, does so there too.
const UNPACKED_INLINE_BYTES: usize = 1024 * 1024;
/// From this version on an append holds batches only.
const BATCHES_FROM: i16 = 3;

/// The batch that goes to the broker.
pub(super) async fn taken<B: Broker>(
    shared: &Shared<B>,
    version: i16,
    bytes: Bytes,
    transactional: bool,
) -> Result<Batch, Refused> {
    let old = message_set::is_message_set(&bytes);
    if old && version >= BATCHES_FROM {
        let text = format!(
            "records of magic 0 and 1 are accepted by Produce versions 0 to 2 only, not by version \
             {version}; nothing was appended"
        );
        return Err(Refused {
            code: ErrorCode::InvalidRecord,
            message: Some(Text::from(text)),
            leader: None,
            records: Vec::new(),
        });
    }
    let heavy = bytes.len() > HEAVY_BYTES && (old || is_compressed(&bytes));
    let now_ms = if old { shared.broker.node().now_ms } else { 0 };
    let made = move |max_unpacked_bytes| {
        let limits = VerifyLimits {
            max_batch_bytes: limits::BATCH_MAX_BYTES,
            max_records: limits::BATCH_MAX_RECORDS,
            max_unpacked_bytes,
            transactional,
            mend_max_timestamp: true,
        };
        match old {
            true => message_set::convert(&bytes, now_ms, &limits),
            false => Unverified(bytes.clone()).verify(&limits),
        }
    };
    let here = (!heavy).then(|| made(UNPACKED_INLINE_BYTES));
    let batch = match here {
        Some(Ok(batch)) => Ok(batch),
        Some(Err(error)) if !matches!(error, BatchError::DecompressedTooLarge { .. }) => Err(error),
        _ => on_thread(shared, move || made(limits::DECOMPRESSED_MAX_BYTES)).await?,
    };
    batch.map_err(|error| Refused {
        code: code(&error),
        message: Some(Text::from(error.to_string())),
        leader: None,
        records: Vec::new(),
    })
}

/// Runs work on a thread for blocking work once there is leave to unpack.
async fn on_thread<B: Broker, T: Send + 'static>(
    shared: &Shared<B>,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Refused> {
    let leave = Arc::clone(&shared.unpacking).acquire_owned().await;
    let work = move || {
        // Given back when the memory is, also when nobody waits any more.
        let _leave = leave;
        work()
    };
    let done = tokio::task::spawn_blocking(work).await;
    // The runtime is going away.
    done.map_err(|_| ErrorCode::NotLeaderOrFollower.into())
}

/// Whether a batch names a codec.
fn is_compressed(batch: &[u8]) -> bool {
    const ATTRIBUTES_LOW_BYTE: usize = 22;
    batch
        .get(ATTRIBUTES_LOW_BYTE)
        .is_some_and(|low| low & 7 != 0)
}

const fn code(error: &BatchError) -> ErrorCode {
    match error {
        BatchError::TooLarge { .. }
        | BatchError::TooManyRecords { .. }
        | BatchError::DecompressedTooLarge { .. } => ErrorCode::MessageTooLarge,
        BatchError::Magic(_) => ErrorCode::UnsupportedForMessageFormat,
        BatchError::Crc { .. }
        | BatchError::Truncated { .. }
        | BatchError::Message {
            fault: MessageFault::Crc { .. } | MessageFault::Truncated { .. } | MessageFault::Size(_),
            ..
        } => ErrorCode::CorruptMessage,
        BatchError::Message {
            fault: MessageFault::Timestamp(_) | MessageFault::LogAppendTime,
            ..
        } => ErrorCode::InvalidTimestamp,
        _ => ErrorCode::InvalidRecord,
    }
}
