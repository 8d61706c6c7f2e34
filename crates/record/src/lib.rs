//! The one byte format of a batch: Kafka's record batch v2, read, checked, built and patched. What came before it
//! ([`message_set`]) is read and made a batch of.
//!
//! The same bytes travel from producer to disk to consumer. A broker changes exactly two fields (base
//! offset and leader epoch), which the checksum leaves out, so a batch is verified once and never
//! copied or compressed again. `FORMAT.md` has the layout with golden bytes.
//!
//! Invariants: a [`Batch`] has been verified (or was built here); a [`Sequenced`] has its place in a
//! log. No input makes this crate panic, and none makes it allocate more than
//! `limits::DECOMPRESSED_MAX_BYTES` for a payload (an old set: as much again for its records). It performs no
//! I/O and reads no clock.

pub mod batch;
pub mod builder;
pub mod compress;
pub mod control;
pub mod crc;
pub mod error;
pub mod header;
pub mod message_set;
pub mod record;
pub mod rewrite;
pub mod stored;
pub mod varint;

pub use batch::{Batch, Sequenced, Unverified, VerifyLimits};
pub use builder::{BatchBuilder, record_size_bound, with_producer};
pub use compress::Compression;
pub use control::{EndMarker, Marker, end_marker};
pub use error::{BatchError, MessageFault, RecordFault};
pub use header::{BatchHeader, HEADER_BYTES, TimestampType, check_stored};
pub use record::{HeadersRef, RecordRef, RecordView, Records};
pub use rewrite::{Filtered, filler, seal};
pub use stored::{StoredBatch, StoredBatches, has_transactions, iter_batches};
