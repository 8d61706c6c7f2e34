//! The one byte format of a batch.
