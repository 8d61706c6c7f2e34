//! What a crash left, held against what was said before it: every acknowledged record is there with its bytes,
//! what else is there is what was written next, and recovering twice comes to the same log.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::process::ExitCode;

use varve_record::BatchHeader;
use varve_record::crc::crc32c;
use varve_storage::{Log, LogError, ReadMode, ReadOutcome, Recovery};
use varve_types::Offset;

use crate::Options;
use crate::content::Described;
use crate::journal::{Event, Model};
use crate::workload::Disk;

/// How the check of one log came out.
enum Verdict {
    Right(String),
    /// Not opened, and everything acknowledged is intact in the files.
    Refused(String),
    Wrong(String),
}

/// `log-driver check`.
pub fn check(options: &Options) -> ExitCode {
    let text = std::fs::read_to_string(&options.acks).expect("the lines can be read");
    let disk = Disk::new(options);
    let (models, mut wrong) = models(options.partitions, &text);
    let mut refused = 0;
    for (partition, verdict) in verdicts(options, &disk, &models) {
        match verdict {
            Verdict::Right(text) => println!("log {partition}: {text}"),
            Verdict::Refused(text) => {
                refused += 1;
                println!("log {partition}: refused: {text}");
            }
            Verdict::Wrong(text) => wrong.push(format!("log {partition}: {text}")),
        }
    }
    for problem in &wrong {
        println!("WRONG: {problem}");
    }
    match (wrong.len(), refused) {
        (0, 0) => ExitCode::SUCCESS,
        (0, _) => ExitCode::from(4),
        _ => ExitCode::FAILURE,
    }
}

/// Recovers everything twice.
fn verdicts(options: &Options, disk: &Disk, models: &BTreeMap<u32, Model>) -> Vec<(u32, Verdict)> {
    let opened = match disk.open_all() {
        Ok(opened) => opened.logs,
        Err(error) => return vec![(0, Verdict::Wrong(format!("the start: {error}")))],
    };
    let firsts: Vec<_> = models
        .iter()
        .zip(opened)
        .map(|((p, model), found)| (*p, model, first_of(options, disk, *p, model, found)))
        .collect();
    let opened = match disk.open_all() {
        Ok(opened) => opened.logs,
        Err(error) => return vec![(0, Verdict::Wrong(format!("the second start: {error}")))],
    };
    let second = |((p, model, first), found)| match first {
        Ok(first) => (p, second_of(options, p, model, first, found)),
        Err(verdict) => (p, verdict),
    };
    firsts.into_iter().zip(opened).map(second).collect()
}

/// What each log may be, and what it did that it must not.
fn models(partitions: u32, text: &str) -> (BTreeMap<u32, Model>, Vec<String>) {
    let mut models: BTreeMap<u32, Model> = (0..partitions).map(|p| (p, Model::default())).collect();
    let mut wrong = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let Some((partition, event)) = Event::parse(line) else {
            continue;
        };
        let model = models.entry(partition).or_default();
        if let Err(problem) = model.take(event) {
            wrong.push(format!(
                "log {partition}: line {} {line:?}: {problem}",
                number + 1
            ));
        }
    }
    (models, wrong)
}

type Found = Result<(Log, Recovery), LogError>;

/// The first recovery: what it came to, or how it was wrong already.
fn first_of(
    options: &Options,
    disk: &Disk,
    partition: u32,
    model: &Model,
    found: Found,
) -> Result<(String, u64, u64), Verdict> {
    let (log, recovery) = match found {
        Ok(opened) => opened,
        Err(LogError::Corrupt(corruption)) => {
            return Err(match raw(options, disk, partition, model) {
                Ok(()) => Verdict::Refused(corruption.to_string()),
                Err(lost) => Verdict::Wrong(format!("{lost}; it was refused: {corruption}")),
            });
        }
        Err(error) => return Err(Verdict::Wrong(error.to_string())),
    };
    let digest = holds(options, partition, &log, model).map_err(Verdict::Wrong)?;
    Ok((digest, recovery.bytes_cut, recovery.bytes_persisted_again))
}

/// The second recovery. Nothing was written since, so there is nothing to cut and nothing that could come out
/// otherwise.
fn second_of(
    options: &Options,
    partition: u32,
    model: &Model,
    (first, cut, again): (String, u64, u64),
    found: Found,
) -> Verdict {
    let (log, recovery) = match found {
        Ok(opened) => opened,
        Err(error) => return Verdict::Wrong(format!("after a recovery: {error}")),
    };
    if recovery.bytes_cut > 0 {
        return Verdict::Wrong(format!(
            "a second recovery cut {} bytes",
            recovery.bytes_cut
        ));
    }
    match holds(options, partition, &log, model) {
        Ok(second) if second == first => {
            Verdict::Right(format!("{first}, cut {cut}, persisted again {again}"))
        }
        Ok(second) => Verdict::Wrong(format!("recovered to {first}, then to {second}")),
        Err(problem) => Verdict::Wrong(problem),
    }
}

/// Compares a log with its model; a digest of it.
fn holds(options: &Options, partition: u32, log: &Log, model: &Model) -> Result<String, String> {
    let (start, end) = (log.log_start(), log.log_end());
    model.judge(start.get(), end.get())?;
    if log.flushed() != end {
        return Err(format!("recovery left {end} not durable"));
    }
    let expected: BTreeMap<i64, &Described> = model.batches.iter().map(|b| (b.base, b)).collect();
    let mut sum = crc32c(&[]);
    let mut first_of_epoch: BTreeMap<i32, i64> = BTreeMap::new();
    let mut at = start;
    while at < end {
        let bytes = read(log, at)?;
        let header = BatchHeader::parse(&bytes).map_err(|e| format!("offset {at}: {e}"))?;
        let base = header.base_offset.get();
        let batch = expected
            .get(&base)
            .ok_or_else(|| format!("a batch at {base}, where none was written"))?;
        if bytes != batch.bytes(options.seed, partition) {
            return Err(format!(
                "the batch at {base} is not what was written: {batch:?}"
            ));
        }
        sum = sum.rotate_left(1) ^ crc32c(&bytes);
        first_of_epoch.entry(batch.epoch).or_insert(base);
        at = header.next_offset();
    }
    check_epochs(log, &first_of_epoch)?;
    if let Some((offset, payload)) = log.latest_snapshot(end)
        && payload != format!("state of {partition} at {offset}").as_bytes()
    {
        return Err(format!("the snapshot at {offset} is another one"));
    }
    let mut digest = format!("{start} to {end}, crc {sum:08x}, epochs");
    for (epoch, from) in log.epochs().entries() {
        let _ = write!(digest, " {epoch}@{from}");
    }
    Ok(digest)
}

/// The one batch that holds an offset.
fn read(log: &Log, at: Offset) -> Result<Vec<u8>, String> {
    let view = log.view();
    let outcome = view.read(at, 1, log.log_end(), true, ReadMode::Blocking, None);
    match outcome.map_err(|e| format!("offset {at}: {e}"))? {
        ReadOutcome::Slice(slice) if slice.batches == 1 => Ok(slice.bytes.to_vec()),
        other => Err(format!("a read at {at} gave {other:?}")),
    }
}

/// Every epoch begins where its first batch is; the oldest may begin before what is left of it.
fn check_epochs(log: &Log, first_of_epoch: &BTreeMap<i32, i64>) -> Result<(), String> {
    let entries = log.epochs().entries();
    for (n, (epoch, base)) in first_of_epoch.iter().enumerate() {
        let entry = entries.iter().find(|(e, _)| e.get() == *epoch);
        let right = entry.is_some_and(|(_, from)| from.get() == *base)
            || (n == 0 && entry.is_some_and(|(_, from)| from.get() >= *base));
        if !right {
            return Err(format!(
                "epoch {epoch} has its first batch at {base}; the log knows {entries:?}"
            ));
        }
    }
    Ok(())
}

/// Whether everything acknowledged is in the files, by reading them without the storage.
fn raw(options: &Options, disk: &Disk, partition: u32, model: &Model) -> Result<(), String> {
    let mut found: BTreeMap<i64, Vec<Vec<u8>>> = BTreeMap::new();
    let entries = std::fs::read_dir(disk.dir(partition)).map_err(|e| e.to_string())?;
    for entry in entries.flatten() {
        if entry.path().extension().is_none_or(|e| e != "log") {
            continue;
        }
        let bytes = std::fs::read(entry.path()).map_err(|e| e.to_string())?;
        let mut at = 0;
        while let Ok(header) = BatchHeader::parse(&bytes[at..]) {
            let Some(batch) = bytes.get(at..at + header.size()) else {
                break;
            };
            let same = found.entry(header.base_offset.get()).or_default();
            same.push(batch.to_vec());
            at += header.size();
        }
    }
    let acknowledged = |b: &&Described| b.next() <= model.least_end() && b.next() > model.start_max;
    for batch in model.batches.iter().filter(acknowledged) {
        let right = batch.bytes(options.seed, partition);
        if !found
            .get(&batch.base)
            .is_some_and(|all| all.contains(&right))
        {
            return Err(format!(
                "LOST: the batch at {} is not in any file",
                batch.base
            ));
        }
    }
    Ok(())
}
