//! Records are deleted from the front: within a segment, past one, past what was flushed, and all of them.

use varve_storage::LogConfig;

use super::{Workload, config};
use crate::torture::driver::{Driver, Violation};

pub(super) struct Trim;

impl Workload for Trim {
    fn name(&self) -> &'static str {
        "trim"
    }

    fn config(&self) -> LogConfig {
        LogConfig {
            segment_bytes: 1300,
            ..config()
        }
    }

    fn run(&self, d: &mut Driver) -> Result<(), Violation> {
        d.open(false)?;
        for round in 0..5i64 {
            d.append(&[300, 300])?;
            d.append(&[200, 100])?;
            d.flush()?;
            d.append(&[350])?;
            d.trim(d.start() + 3 + round)?;
            d.append(&[90])?;
            if round == 2 {
                d.trim(d.end() - 1)?;
            }
            if round == 3 {
                d.trim(d.end())?;
            }
        }
        d.append(&[128])?;
        d.flush()
    }
}
