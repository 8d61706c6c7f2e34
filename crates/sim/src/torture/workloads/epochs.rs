//! Leaders change: with batches, without any, and back through a truncation.

use varve_storage::LogConfig;

use super::{Workload, config};
use crate::torture::driver::{Driver, Violation};

pub(super) struct Epochs;

impl Workload for Epochs {
    fn name(&self) -> &'static str {
        "epochs"
    }

    fn config(&self) -> LogConfig {
        LogConfig {
            segment_bytes: 2200,
            ..config()
        }
    }

    fn run(&self, d: &mut Driver) -> Result<(), Violation> {
        d.open(false)?;
        for round in 0..6usize {
            d.begin_epoch()?;
            d.append(&[180, 90 + round])?;
            if round % 2 == 0 {
                d.flush()?;
            }
            d.begin_epoch()?;
            if round == 3 {
                d.flush()?;
                d.begin_epoch()?;
            }
            d.append(&[333])?;
            if round == 4 {
                d.flush_index()?;
                d.truncate(d.end() - 5)?;
            }
        }
        d.begin_epoch()?;
        d.flush()?;
        d.append(&[64])
    }
}
