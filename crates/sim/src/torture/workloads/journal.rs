//! Three logs of one disk with a journal: groups of one and of several logs, rolls between them, files that are
//! synced behind the journal so that its files are written over, truncations after what it holds was made void,
//! kills and power cuts with records in it. Once with acknowledgements that follow the journal wherever they
//! can, once with large flushes in between that go to the files alone.

use varve_storage::{JournalConfig, LogConfig};

use super::{Workload, config};
use crate::torture::driver::{Driver, Violation};
use crate::torture::world::Setup;

/// Sizes: two groups of several logs fill a file.
const SIZES: JournalConfig = JournalConfig {
    file_bytes: 20 * 1024,
    files: 3,
};

fn small() -> LogConfig {
    LogConfig {
        segment_bytes: 2500,
        ..config()
    }
}

fn setup() -> Setup {
    Setup {
        logs: 3,
        journal: Some(SIZES),
        ..Setup::one(small())
    }
}

pub(super) struct FollowingJournal;

impl Workload for FollowingJournal {
    fn name(&self) -> &'static str {
        "journal"
    }

    fn config(&self) -> LogConfig {
        small()
    }

    fn setup(&self) -> Setup {
        setup()
    }

    fn run(&self, d: &mut Driver) -> Result<(), Violation> {
        run(d, false)
    }
}

pub(super) struct JournalAndFiles;

impl Workload for JournalAndFiles {
    fn name(&self) -> &'static str {
        "journal-and-files"
    }

    fn config(&self) -> LogConfig {
        small()
    }

    fn setup(&self) -> Setup {
        setup()
    }

    fn run(&self, d: &mut Driver) -> Result<(), Violation> {
        run(d, true)
    }
}

fn append(d: &mut Driver, log: usize, sizes: &[usize]) -> Result<(), Violation> {
    d.select(log);
    d.append(sizes)
}

fn run(d: &mut Driver, direct: bool) -> Result<(), Violation> {
    d.open(false)?;
    for log in 0..3 {
        d.select(log);
        d.begin_epoch()?;
        append(d, log, &[90 + log])?;
    }
    d.commit(&[0, 1, 2])?;
    for round in 0..3usize {
        append(d, 0, &[150, 80 + round])?;
        d.commit(&[0])?;
        append(d, 1, &[220])?;
        append(d, 2, &[60, 60])?;
        d.commit(&[0, 1, 2])?;
        append(d, 1, &[640])?;
        append(d, 0, &[333])?;
        if direct {
            d.commit_files(&[1])?;
            append(d, 1, &[75])?;
        }
        d.commit(&[0, 1])?;
        // Appended, and not acknowledged.
        append(d, 2, &[180, 40])?;
        match round {
            0 => {
                d.select(0);
                d.roll()?;
                append(d, 0, &[120])?;
                d.commit(&[0, 2])?;
            }
            1 => {
                d.commit(&[2])?;
                d.relieve(false)?;
                d.select(2);
                d.void_and_truncate(d.end() - 3)?;
                append(d, 2, &[210, 33])?;
                d.commit(&[2])?;
            }
            _ => d.relieve(true)?,
        }
        append(d, 0, &[55])?;
        d.commit(&[0])?;
        append(d, 0, &[66])?;
        if round == 1 {
            d.power_cut(1, 900)?;
        } else {
            d.kill()?;
        }
    }
    append(d, 0, &[140])?;
    append(d, 1, &[140])?;
    d.commit(&[0, 1])?;
    d.close_and_reopen()?;
    // Until there is no room; then files are synced behind it, and it goes on.
    for round in 0..9usize {
        append(d, round % 3, &[44 + round])?;
        d.commit(&[0, 1, 2])?;
    }
    d.relieve(false)?;
    for round in 0..6usize {
        append(d, round % 3, &[300, 300, 310])?;
        append(d, (round + 1) % 3, &[70])?;
        d.commit(&[0, 1, 2])?;
        d.relieve(round % 2 == 0)?;
    }
    append(d, 1, &[99])?;
    append(d, 2, &[99])?;
    d.commit(&[1, 2])
}
