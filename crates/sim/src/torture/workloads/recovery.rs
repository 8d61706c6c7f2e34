//! Processes die and the power goes, and recovery itself is the workload: it is cut off at every step, too.

use varve_storage::LogConfig;

use super::{Workload, config};
use crate::torture::driver::{Driver, Violation};

pub(super) struct RecoveryItself;

impl Workload for RecoveryItself {
    fn name(&self) -> &'static str {
        "recovery"
    }

    fn config(&self) -> LogConfig {
        LogConfig {
            segment_bytes: 1700,
            ..config()
        }
    }

    fn run(&self, d: &mut Driver) -> Result<(), Violation> {
        d.open(false)?;
        for (round, (lost, torn)) in [(1, 700), (0, 0), (2, 100), (3, 0), (1, 1300)]
            .into_iter()
            .enumerate()
        {
            d.append(&[200, 350])?;
            d.flush()?;
            d.append(&[150, 640])?;
            d.begin_epoch()?;
            d.append(&[400 + round])?;
            d.kill()?;
            d.append(&[310, 45])?;
            if round % 2 == 1 {
                d.flush()?;
                d.flush_index()?;
            }
            d.append(&[500])?;
            d.append(&[77])?;
            d.power_cut(lost, torn)?;
            d.append(&[128])?;
        }
        d.flush()
    }
}
