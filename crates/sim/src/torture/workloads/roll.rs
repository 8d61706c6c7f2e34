//! Segments fill and are rolled, some of them several times between two flushes.

use varve_storage::LogConfig;

use super::{Workload, config};
use crate::torture::driver::{Driver, Violation};

pub(super) struct Roll;

impl Workload for Roll {
    fn name(&self) -> &'static str {
        "roll"
    }

    fn config(&self) -> LogConfig {
        LogConfig {
            segment_bytes: 1500,
            ..config()
        }
    }

    fn run(&self, d: &mut Driver) -> Result<(), Violation> {
        d.open(false)?;
        for round in 0..7usize {
            d.append(&[300, 200])?;
            d.append(&[450, 450, 100])?;
            if round % 2 == 0 {
                d.flush()?;
            }
            if round == 3 {
                d.roll()?;
                d.append(&[30])?;
                d.roll()?;
            }
        }
        d.append(&[500])
    }
}
