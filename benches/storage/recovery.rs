//! Recovery after a kill of a log whose checkpoint covers nothing: every byte is read, checked, written again
//! and synced. The floor does the same with the file as one run of bytes: `pread`, CRC-32C, `pwrite`,
//! `fdatasync`.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Instant;

use anyhow::{Result, ensure};
use crc_fast::{CrcAlgorithm, checksum};

use super::log::{filled, open};
use super::{Bench, Better, Row};

const PIECE_BYTES: usize = 1 << 20;

/// All rows.
pub fn rows(bench: &Bench<'_>) -> Result<Vec<Row>> {
    let bytes = (bench.bytes / 2) as u64;
    let rounds = bench.rounds(
        || {
            let dir = prepared(bench, bytes)?;
            raw(&log_file(dir.path()))
        },
        || {
            let dir = prepared(bench, bytes)?;
            let started = Instant::now();
            let log = open(dir.path(), 0, 1 << 30)?;
            let rate = bytes as f64 / started.elapsed().as_secs_f64() / 1e6;
            ensure!(log.size_bytes() == bytes, "all of the log is back");
            Ok(rate)
        },
    )?;
    let name = "recovery, all of a log scanned and written again";
    Ok(vec![Row::new(name, "MB/s", Better::More, &rounds)])
}

fn log_file(dir: &Path) -> std::path::PathBuf {
    dir.join(format!("{:020}.log", 0))
}

/// A log that a process left behind without its index.
fn prepared(bench: &Bench<'_>, bytes: u64) -> Result<tempfile::TempDir> {
    let dir = bench.fresh("recovery")?;
    filled(dir.path(), bytes, 1 << 30)?.close(false)?;
    std::fs::remove_file(dir.path().join(format!("{:020}.index", 0)))?;
    rustix::fs::sync();
    Ok(dir)
}

fn raw(path: &Path) -> Result<f64> {
    let file = File::options().read(true).write(true).open(path)?;
    let len = file.metadata()?.len();
    let mut buffer = vec![0; PIECE_BYTES];
    let (mut at, mut crcs) = (0, 0);
    let started = Instant::now();
    while at < len {
        let n = file.read_at(&mut buffer, at)?;
        crcs ^= checksum(CrcAlgorithm::Crc32Iscsi, &buffer[..n]);
        file.write_all_at(&buffer[..n], at)?;
        at += n as u64;
    }
    file.sync_data()?;
    std::hint::black_box(crcs);
    Ok(len as f64 / started.elapsed().as_secs_f64() / 1e6)
}
