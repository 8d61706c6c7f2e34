//! Snapshots of derived state beside appends and rolls.

use varve_storage::LogConfig;

use super::{Workload, config};
use crate::torture::driver::{Driver, Violation};

pub(super) struct Snapshot;

impl Workload for Snapshot {
    fn name(&self) -> &'static str {
        "snapshot"
    }

    fn config(&self) -> LogConfig {
        LogConfig {
            segment_bytes: 2000,
            ..config()
        }
    }

    fn run(&self, d: &mut Driver) -> Result<(), Violation> {
        d.open(false)?;
        for round in 0..7usize {
            d.append(&[250, 120])?;
            d.snapshot(40 + 300 * round)?;
            if round % 2 == 0 {
                d.flush()?;
            }
            d.append(&[90])?;
            if round == 4 {
                d.truncate(d.end() - 7)?;
                d.snapshot(900)?;
            }
        }
        Ok(())
    }
}
