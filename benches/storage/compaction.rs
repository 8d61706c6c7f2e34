//! Compaction: bytes compacted per second against reading and writing the same bytes.

use anyhow::Result;

use super::{Bench, Row};

/// All rows: none, for as long as the engine does not compact.
pub fn rows(_bench: &Bench<'_>) -> Result<Vec<Row>> {
    Ok(Vec::new())
}
