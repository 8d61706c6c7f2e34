//! The end is cut within a segment, at a batch, within a batch, and across segments; other batches of the same
//! sizes take the place of those that were cut.

use varve_storage::LogConfig;

use super::{Workload, config};
use crate::torture::driver::{Driver, Violation};

pub(super) struct Truncate;

impl Workload for Truncate {
    fn name(&self) -> &'static str {
        "truncate"
    }

    fn config(&self) -> LogConfig {
        LogConfig {
            segment_bytes: 1800,
            ..config()
        }
    }

    fn run(&self, d: &mut Driver) -> Result<(), Violation> {
        d.open(false)?;
        d.append(&[200, 200, 200])?;
        d.flush()?;
        d.flush_index()?;
        d.append(&[150, 150])?;
        for (cut, size) in [(3, 200), (2, 150), (5, 400), (13, 300), (9, 120)] {
            // A flush from before the cut tells its news after it.
            let old = d.target()?;
            let done = d.sync(old)?;
            let to = (d.end() - cut).max(0);
            d.truncate(to)?;
            d.append(&[size, size])?;
            if let Some(done) = done {
                d.done(&done)?;
            }
            d.append(&[size, size, 80])?;
            let stale = d.target()?;
            d.truncate((d.end() - 3).max(0))?;
            d.append(&[size + 1])?;
            d.run(stale)?;
            d.append(&[size])?;
            d.flush()?;
            d.append(&[700])?;
        }
        d.flush_index()?;
        d.truncate(0)?;
        d.append(&[100])?;
        d.flush()
    }
}
