//! Files outside the log: a metadata file replaced as a whole while topics come and go.

use std::path::Path;

use varve_storage::LogConfig;

use super::{Workload, config};
use crate::torture::driver::{Driver, Violation};

pub(super) struct Metadata;

impl Workload for Metadata {
    fn name(&self) -> &'static str {
        "metadata-and-delete"
    }

    fn config(&self) -> LogConfig {
        config()
    }

    fn run(&self, d: &mut Driver) -> Result<(), Violation> {
        let meta = Path::new("/data/meta");
        d.make_dir(meta)?;
        for round in 0..6usize {
            let content =
                |n: usize| -> Vec<u8> { (0..300 + 400 * n).map(|i| (i * 7 + n) as u8).collect() };
            d.replace(&meta.join("state"), &content(2 * round))?;
            d.open(false)?;
            d.append(&[200, 600])?;
            d.flush()?;
            d.append(&[150])?;
            d.replace(&meta.join("state"), &content(2 * round + 1))?;
            d.append(&[90])?;
            d.delete_topic()?;
            d.forget();
        }
        d.open(false)?;
        d.append(&[100])?;
        d.flush()
    }
}
