//! Group commit: a flush of an earlier end runs while more is written, two flushes wait at once, and news of
//! the older one may come after the newer.

use varve_storage::LogConfig;

use super::{Workload, config};
use crate::torture::driver::{Driver, Violation};

pub(super) struct GroupCommit;

impl Workload for GroupCommit {
    fn name(&self) -> &'static str {
        "group-commit"
    }

    fn config(&self) -> LogConfig {
        config()
    }

    fn run(&self, d: &mut Driver) -> Result<(), Violation> {
        d.open(false)?;
        for round in 0..6usize {
            d.append(&[200 + round])?;
            d.append(&[90, 90])?;
            let first = d.target()?;
            d.append(&[310])?;
            let done = d.sync(first)?;
            d.append(&[50])?;
            if let Some(done) = done {
                d.done(&done)?;
            }
            d.append(&[120])?;
            let (older, newer) = (d.target()?, d.target()?);
            d.append(&[400 + 10 * round])?;
            d.run(newer)?;
            d.run(older)?;
        }
        Ok(())
    }
}
