//! `varve log dump` and `varve log verify`: they read the files of a stopped node and never change them. They need
//! no server and no configuration. `varve log repair` is in `repair`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Subcommand;
use varve_storage::inspect::{self, BatchSeen, Problem, Report};
use varve_vfs::{RealVfs, Vfs, VfsError};

use crate::args::{Global, OutputArgs};
use crate::failure::{CONDITION, FAILED, Failure, NOT_FOUND};
use crate::output::{Output, print_line, print_table, print_value};
use crate::progress::Progress;
use crate::repair::{self, RepairArgs};
use crate::words::count;

/// `varve log …`.
#[derive(Debug, Clone, Subcommand)]
pub enum LogCommand {
    /// Print the batches of segment files, one line for each
    ///
    /// With `-o json` each line is a JSON object, so that a log of any size can be piped into another program.
    #[command(
        after_long_help = "Examples:\n  varve log dump varve-data/topics/orders-*/0\n  varve log dump \
                           varve-data/topics/orders-*/0 -o json"
    )]
    Dump {
        /// Segment file (.log) or directory of a partition
        #[arg(required = true, value_name = "PATH")]
        paths: Vec<PathBuf>,
        /// Output format.
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Verify batches, indexes, manifests and snapshots; exit with code 4 if one is damaged
    ///
    /// With `-o json` each line is a JSON object about one partition.
    #[command(after_long_help = "Examples:\n  varve log verify varve-data\n\
                           \x20 varve log verify varve-data/topics/orders-*/0 -o json")]
    Verify {
        /// Directories of partitions, or a directory above them, such as the data directory
        #[arg(required = true, value_name = "DIR")]
        paths: Vec<PathBuf>,
        /// Output format.
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Cut a damaged log at its first damage; without --yes only show what would be lost
    ///
    /// For a log that the node refuses to open and that no other replica has. Records before the first damage are kept;
    /// new records reuse the offsets after it. The damaged directory is moved aside and kept.
    #[command(
        after_long_help = "Examples:\n  varve log repair varve-data/topics/orders-*/0 --cut-at-damage\n\
                           \x20 varve log repair \
                           varve-data/topics/orders-*/0 --cut-at-damage --yes"
    )]
    Repair(RepairArgs),
}

/// Runs `varve log …`.
///
/// # Errors
/// When a file cannot be read. Damage is printed on standard output, with exit code 4.
pub fn run(command: &LogCommand, global: &Global) -> Result<u8, Failure> {
    let vfs: Arc<dyn Vfs> = Arc::new(RealVfs);
    match command {
        LogCommand::Dump { paths, output } => {
            let mut damaged = false;
            for path in paths {
                damaged |= dump(&vfs, output.output, path)?;
            }
            Ok(if damaged { CONDITION } else { 0 })
        }
        LogCommand::Verify { paths, output } => verify(&vfs, output.output, paths, !global.quiet),
        LogCommand::Repair(args) => repair::run(&vfs, args, global.yes),
    }
}

pub(crate) fn unreadable(error: &VfsError) -> Failure {
    let code = if error.is_not_found() {
        NOT_FOUND
    } else {
        FAILED
    };
    Failure::new(code, error.to_string())
}

fn dump(vfs: &Arc<dyn Vfs>, output: Output, path: &Path) -> Result<bool, Failure> {
    let mut damaged = false;
    if !vfs.exists(path).map_err(|e| unreadable(&e))? {
        let path = path.display();
        return Err(Failure::new(NOT_FOUND, format!("{path} does not exist")));
    }
    for batch in inspect::dump(vfs, path).map_err(|e| unreadable(&e))? {
        match batch {
            Ok(batch) => {
                damaged |= batch.fault.is_some();
                print_batch(output, &batch)?;
            }
            Err(problem) => {
                damaged = true;
                let (file, at, what) = (problem.file.display(), problem.position, &problem.what);
                if output.is_text() {
                    print_line(&format!("{file} at byte {at}: {what}"))?;
                } else {
                    let file = file.to_string();
                    let value = serde_json::json!({"file": file, "position": at, "fault": what});
                    print_item(output, &value)?;
                }
            }
        }
    }
    Ok(damaged)
}

/// One of many values: a line of JSON, or an item of a YAML list, which the lines together are.
fn print_item(output: Output, value: &serde_json::Value) -> Result<(), Failure> {
    match output {
        Output::Yaml => print_value(output, &serde_json::json!([value])),
        _ => print_line(&value.to_string()),
    }
}

fn print_batch(output: Output, batch: &BatchSeen) -> Result<(), Failure> {
    let h = &batch.header;
    if !output.is_text() {
        let value = serde_json::json!({
            "file": batch.file.display().to_string(), "position": batch.position,
            "base_offset": h.base_offset.get(), "last_offset": h.last_offset().get(),
            "records": h.record_count, "bytes": h.size(), "leader_epoch": h.leader_epoch.get(),
            "compression": h.compression().to_string(), "base_timestamp": h.base_timestamp,
            "max_timestamp": h.max_timestamp, "producer_id": h.producer_id,
            "producer_epoch": h.producer_epoch, "base_sequence": h.base_sequence,
            "crc": format!("{:08x}", h.crc), "fault": batch.fault,
        });
        return print_item(output, &value);
    }
    let producer = match h.producer() {
        Some((id, sequence)) => format!(" producer {}/{} sequence {sequence}", id.id, id.epoch),
        None => String::new(),
    };
    let fault = batch
        .fault
        .as_ref()
        .map_or(String::new(), |f| format!(" DAMAGED: {f}"));
    print_line(&format!(
        "{}:{} offsets {}..{} records {} bytes {} epoch {} {} crc {:08x}{producer}{fault}",
        batch.file.display(),
        batch.position,
        h.base_offset,
        h.next_offset(),
        h.record_count,
        h.size(),
        h.leader_epoch,
        h.compression(),
        h.crc,
    ))
}

/// Directories of partitions at or below `path`, in order.
fn partitions(vfs: &dyn Vfs, path: &Path, found: &mut Vec<PathBuf>) -> Result<(), VfsError> {
    let entries = vfs.list(path)?;
    if entries
        .iter()
        .any(|e| !e.is_dir && (e.name == "manifest" || e.name.ends_with(".log")))
    {
        found.push(path.to_owned());
        return Ok(());
    }
    // A repair has moved damaged logs aside; they are verified only when they are named.
    let live = |name: &str| !name.contains(".damaged");
    for entry in entries.iter().filter(|e| e.is_dir && live(&e.name)) {
        partitions(vfs, &path.join(&entry.name), found)?;
    }
    Ok(())
}

fn verify(
    vfs: &Arc<dyn Vfs>,
    output: Output,
    paths: &[PathBuf],
    progress: bool,
) -> Result<u8, Failure> {
    let mut dirs = Vec::new();
    for path in paths {
        partitions(&**vfs, path, &mut dirs).map_err(|e| unreadable(&e))?;
    }
    let mut reports = Vec::new();
    let progress = Progress::bytes(None, progress);
    for dir in dirs {
        let report = inspect::verify_with(vfs, &dir, &mut |bytes| progress.add(bytes));
        reports.push((dir, report.map_err(|e| unreadable(&e))?));
    }
    progress.finish();
    let damaged = reports
        .iter()
        .filter(|(_, r)| !r.problems.is_empty())
        .count();
    if output.is_text() {
        print_reports(&reports)?;
    } else {
        for (dir, report) in &reports {
            print_item(output, &json(dir, report))?;
        }
    }
    Ok(if damaged == 0 { 0 } else { CONDITION })
}

pub(crate) fn problems_json(problems: &[Problem]) -> Vec<serde_json::Value> {
    let json = |p: &Problem| {
        let file = p.file.display().to_string();
        serde_json::json!({ "file": file, "position": p.position, "what": p.what })
    };
    problems.iter().map(json).collect()
}

fn json(dir: &Path, report: &Report) -> serde_json::Value {
    serde_json::json!({
        "directory": dir.display().to_string(), "segments": report.segments,
        "batches": report.batches, "records": report.records, "bytes": report.bytes,
        "log_start": report.log_start.map(|o| o.get()), "log_end": report.log_end.map(|o| o.get()),
        "problems": problems_json(&report.problems), "notes": problems_json(&report.notes),
    })
}

fn print_reports(reports: &[(PathBuf, Report)]) -> Result<(), Failure> {
    let number = |o: Option<varve_types::Offset>| o.map_or("-".to_owned(), |o| o.to_string());
    let rows = reports
        .iter()
        .map(|(dir, r)| {
            let state = match r.problems.len() {
                0 => "ok".to_owned(),
                n => count(n, "problem"),
            };
            vec![
                dir.display().to_string(),
                r.segments.to_string(),
                r.batches.to_string(),
                r.records.to_string(),
                number(r.log_start),
                number(r.log_end),
                state,
            ]
        })
        .collect();
    print_table(
        &[
            "PARTITION",
            "SEGMENTS",
            "BATCHES",
            "RECORDS",
            "START",
            "END",
            "STATE",
        ],
        rows,
    )?;
    for (_, report) in reports {
        for p in &report.problems {
            print_line(&format!(
                "{} at byte {}: {}",
                p.file.display(),
                p.position,
                p.what
            ))?;
        }
        for note in &report.notes {
            print_line(&format!("note: {}: {}", note.file.display(), note.what))?;
        }
    }
    Ok(())
}
