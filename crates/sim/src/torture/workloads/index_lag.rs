//! Index entries lag behind flushes or have just caught up; small batches close many runs.

use varve_storage::LogConfig;

use super::{Workload, config};
use crate::torture::driver::{Driver, Violation};

pub(super) struct IndexLag;

impl Workload for IndexLag {
    fn name(&self) -> &'static str {
        "index-lag"
    }

    fn config(&self) -> LogConfig {
        LogConfig {
            segment_bytes: 5000,
            ..config()
        }
    }

    fn run(&self, d: &mut Driver) -> Result<(), Violation> {
        d.open(false)?;
        for round in 0..8usize {
            d.append(&[10, 20, 30, 40, 50])?;
            d.append(&[60, 70, 80])?;
            if round % 2 == 0 {
                d.flush()?;
            }
            if round % 3 == 0 {
                d.flush_index()?;
            }
            d.append(&[15, 25])?;
            d.flush()?;
        }
        d.append(&[5])
    }
}
