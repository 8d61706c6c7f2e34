//! The storage engine as a library: opens a log, appends, reads, and recovers it after the process "died".
//! `cargo run -p varve-storage --example log -- DIRECTORY`

use std::path::Path;
use std::sync::Arc;

use varve_record::{BatchBuilder, Compression, iter_batches};
use varve_storage::{Log, LogConfig, LogIdentity, OpenMode, ReadMode, ReadOutcome};
use varve_types::{LeaderEpoch, PartitionId, TopicId};
use varve_vfs::RealVfs;

fn open(dir: &Path) -> Result<Log, Box<dyn std::error::Error>> {
    let (topic_id, partition) = (TopicId(7), PartitionId(0));
    let identity = LogIdentity {
        topic_id,
        partition,
    };
    let (config, mode) = (LogConfig::default(), OpenMode { clean: false });
    // The last argument is the time; storage reads no clock.
    let (log, recovery) = Log::open(Arc::new(RealVfs), dir, identity, config, mode, 0)?;
    println!(
        "{} batches checked, {} bytes cut",
        recovery.batches_scanned, recovery.bytes_cut
    );
    Ok(log)
}

/// Appends two records durably, forgets the log without closing it, opens it again and returns all values.
pub fn run(dir: &Path) -> Result<Vec<String>, Box<dyn std::error::Error>> {
    let mut log = open(dir)?;
    let mut builder = BatchBuilder::new(Compression::None, None);
    builder.append(1, Some(b"key"), Some(b"first"), &[])?;
    builder.append(2, None, Some(b"second"), &[])?;
    let batch = builder
        .build_batch()?
        .sequence(log.log_end(), LeaderEpoch::ZERO);
    let appended = log.append(&[batch], 0)?; // written, and visible to readers
    assert_eq!(log.flush_now()?, appended.range.end); // durable
    drop(log); // no close: as after a kill
    let log = open(dir)?;
    let (view, mut offset, mut values) = (log.view(), log.log_start(), Vec::new());
    while let ReadOutcome::Slice(slice) = view.read(
        offset,
        1 << 20,
        log.log_end(),
        true,
        ReadMode::Blocking,
        None,
    )? && !slice.bytes.is_empty()
    {
        for batch in iter_batches(slice.bytes) {
            let mut records = batch?.records()?;
            while let Some(record) = records.next_ref() {
                values
                    .push(String::from_utf8_lossy(record?.value.unwrap_or_default()).into_owned());
            }
        }
        offset = slice.next_offset;
    }
    Ok(values)
}

#[allow(dead_code, reason = "the test of this example calls `run`")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = std::env::args()
        .nth(1)
        .ok_or("say which directory the log is in")?;
    println!("{:?}", run(Path::new(&dir))?);
    Ok(())
}
