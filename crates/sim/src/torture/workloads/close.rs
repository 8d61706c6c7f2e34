//! The log is closed cleanly and opened as after a clean stop, again and again.

use varve_storage::LogConfig;

use super::{Workload, config};
use crate::torture::driver::{Driver, Violation};

pub(super) struct Close;

impl Workload for Close {
    fn name(&self) -> &'static str {
        "close"
    }

    fn config(&self) -> LogConfig {
        LogConfig {
            segment_bytes: 1600,
            ..config()
        }
    }

    fn run(&self, d: &mut Driver) -> Result<(), Violation> {
        d.open(false)?;
        for round in 0..6usize {
            d.append(&[240, 120])?;
            d.append(&[500 + round])?;
            if round % 2 == 0 {
                d.flush()?;
            }
            d.append(&[60, 60])?;
            d.close_and_reopen()?;
        }
        d.append(&[99])
    }
}
