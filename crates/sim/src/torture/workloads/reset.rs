//! The log is started over: behind its end, before its start, at its own first offset.

use varve_storage::LogConfig;

use super::{Workload, config};
use crate::torture::driver::{Driver, Violation};

pub(super) struct Reset;

impl Workload for Reset {
    fn name(&self) -> &'static str {
        "reset"
    }

    fn config(&self) -> LogConfig {
        LogConfig {
            segment_bytes: 1500,
            ..config()
        }
    }

    fn run(&self, d: &mut Driver) -> Result<(), Violation> {
        d.open(false)?;
        d.append(&[300, 200, 500])?;
        d.flush()?;
        d.append(&[250])?;
        for to in [1_000, 40, 40, 44, 0, 7] {
            d.reset(to)?;
            d.begin_epoch()?;
            d.append(&[220, 220])?;
            d.append(&[500, 400])?;
            d.flush()?;
            d.flush_index()?;
            d.append(&[333])?;
        }
        Ok(())
    }
}
