//! Prints what this disk and loopback can do: `cargo bench -p varve-benches --bench floor`.
//!
//! The directory is `$VARVE_BENCH_DIR`, else a temporary one. Rounds are interleaved; figures are medians.

use anyhow::Result;
use varve_benches::floor::{FetchBy, ProduceFloor, fetch, sync_latency};
use varve_benches::stats::{median, summary};

const ROUNDS: usize = 3;

fn main() -> Result<()> {
    varve_benches::tell_profile();
    // `cargo test --benches` runs this too; one small round shows that it works.
    let quick = std::env::args().any(|a| a == "--test");
    let total = if quick { 16 << 20 } else { 1 << 30 };
    let rounds = if quick { 1 } else { ROUNDS };
    let dir = match std::env::var_os("VARVE_BENCH_DIR") {
        Some(dir) => tempfile::tempdir_in(dir)?,
        None => tempfile::tempdir()?,
    };
    println!("floor in {}", dir.path().display());
    for bytes in [1024, 64 * 1024] {
        let histogram = sync_latency(dir.path(), bytes, if quick { 50 } else { 2_000 })?;
        println!("append {bytes} B + fdatasync: {}", summary(&histogram));
    }
    for (partitions, batch) in [(1, 64), (8, 64), (1, 256), (8, 256), (8, 1024), (100, 64)] {
        for fsync in [true, false] {
            let floor = ProduceFloor {
                partitions,
                batch_bytes: batch * 1024,
                total_bytes: total,
                in_flight_bytes: 16 << 20,
                fsync,
            };
            let mut figures = Vec::new();
            for _ in 0..rounds {
                rustix::fs::sync();
                figures.push(floor.run(dir.path())? / 1e6);
            }
            let how = if fsync { "fdatasync" } else { "page cache" };
            println!(
                "produce {partitions:>4} partitions x {batch:>4} KiB, {how:<10} {:>7.0} MB/s",
                median(&figures)
            );
        }
    }
    for (name, by) in [
        ("sendfile", FetchBy::Sendfile),
        ("pread + write", FetchBy::PreadWrite),
    ] {
        let mut figures = Vec::new();
        for _ in 0..rounds {
            figures.push(fetch(dir.path(), by, 256 << 20, total * 2, 1 << 20)? / 1e6);
        }
        println!("fetch, {name:<14} {:>7.0} MB/s", median(&figures));
    }
    Ok(())
}
