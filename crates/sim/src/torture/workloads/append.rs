//! Appends of one and of several batches, small and of several blocks, flushed now and then.

use varve_storage::LogConfig;

use super::{Workload, config};
use crate::torture::driver::{Driver, Violation};

pub(super) struct Append;

impl Workload for Append {
    fn name(&self) -> &'static str {
        "append"
    }

    fn config(&self) -> LogConfig {
        config()
    }

    fn run(&self, d: &mut Driver) -> Result<(), Violation> {
        d.open(false)?;
        for round in 0..9usize {
            d.append(&[100 + 37 * round])?;
            d.append(&[60, 300, 25 + round])?;
            if round % 3 == 1 {
                d.append(&[700])?;
                d.flush()?;
            }
        }
        d.append(&[40, 600])
    }
}
