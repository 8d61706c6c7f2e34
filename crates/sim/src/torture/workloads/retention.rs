//! Old segments go by size, flushed and not, while new ones come.

use varve_storage::LogConfig;

use super::{Workload, config};
use crate::torture::driver::{Driver, Violation};

pub(super) struct Retention;

impl Workload for Retention {
    fn name(&self) -> &'static str {
        "retention"
    }

    fn config(&self) -> LogConfig {
        LogConfig {
            segment_bytes: 1200,
            ..config()
        }
    }

    fn run(&self, d: &mut Driver) -> Result<(), Violation> {
        d.open(false)?;
        for round in 0..7usize {
            d.append(&[260, 260])?;
            d.append(&[420])?;
            if round % 2 == 1 {
                d.flush()?;
            }
            d.append(&[150, 150])?;
            d.retain(2500)?;
        }
        d.append(&[70])?;
        d.flush()
    }
}
