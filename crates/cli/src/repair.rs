//! `varve log repair`: cuts a damaged log at its first damage. It says exactly which records would be lost and changes
//! nothing without `--yes`. The node must be stopped: its data directory is locked meanwhile.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use varve_storage::repair::{self, RepairError, RepairPlan, Repaired};
use varve_vfs::{Clock as _, LockGuard, SystemClock, Vfs};

use crate::args::OutputArgs;
use crate::failure::{FAILED, Failure};
use crate::inspect::{problems_json, unreadable};
use crate::output::{print_line, print_value};
use crate::words::count;

/// Directories between a data directory and a partition: `topics/<topic>/<partition>`.
const DEPTH: usize = 3;

/// `varve log repair …`.
#[derive(Debug, Clone, Args)]
pub struct RepairArgs {
    /// Directory of one partition
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Keep the records before the first damage and give up the rest
    #[arg(long, required = true)]
    cut_at_damage: bool,
    /// Output format.
    #[command(flatten)]
    output: OutputArgs,
}

/// Plans a repair and, with `--yes`, makes it.
///
/// # Errors
/// When a file cannot be read or written, or the data directory is in use.
pub fn run(vfs: &Arc<dyn Vfs>, args: &RepairArgs, yes: bool) -> Result<u8, Failure> {
    let dir = std::path::absolute(&args.dir)
        .map_err(|e| Failure::new(FAILED, format!("{}: {e}", args.dir.display())))?;
    vfs.list(&dir).map_err(|e| unreadable(&e))?;
    let _lock = lock(vfs, &dir)?;
    let plan = repair::plan(vfs, &dir).map_err(|e| failed(&e))?;
    let done = match yes && !plan.is_needless() {
        true => {
            let now_ms = SystemClock::new().wall_ms();
            Some(repair::execute(vfs, &plan, now_ms).map_err(|e| failed(&e))?)
        }
        false => None,
    };
    if args.output.output.is_text() {
        print(&plan, done.as_ref())?;
    } else {
        print_value(args.output.output, &json(&plan, done.as_ref()))?;
    }
    Ok(0)
}

fn failed(error: &RepairError) -> Failure {
    Failure::new(FAILED, error.to_string())
}

/// The lock of the data directory that the partition lies in, if it lies in one.
fn lock(vfs: &Arc<dyn Vfs>, dir: &Path) -> Result<Option<LockGuard>, Failure> {
    let data = dir.ancestors().nth(DEPTH);
    let data = data.filter(|data| vfs.exists(&data.join("meta.toml")).unwrap_or(false));
    let Some(data) = data else {
        eprintln!(
            "note: {} is not in a data directory, so it is not locked; make sure that no node uses it",
            dir.display()
        );
        return Ok(None);
    };
    let lock = vfs.lock(&data.join("LOCK"));
    let told = |e| {
        Failure::new(
            FAILED,
            format!("{e}; stop the node first; nothing was changed"),
        )
    };
    lock.map(Some).map_err(told)
}

fn print(plan: &RepairPlan, done: Option<&Repaired>) -> Result<(), Failure> {
    let dir = plan.dir.display();
    if plan.is_needless() {
        return print_line(&format!(
            "{dir}: nothing to repair; the log has {} and ends at offset {}",
            count(plan.records_kept, "record"),
            plan.cut_at
        ));
    }
    for p in &plan.damage {
        print_line(&format!(
            "{} at byte {}: {}",
            p.file.display(),
            p.position,
            p.what
        ))?;
    }
    let (cut, end) = (plan.cut_at, plan.end_seen);
    print_line(&format!(
        "kept:     {} in {}, from offset {} to before {cut}",
        count(plan.records_kept, "record"),
        count_batches(plan.batches_kept),
        plan.log_start
    ))?;
    print_line(&format!(
        "given up: offsets {cut} to before {end}, {}; {} of them could be read",
        count(plan.bytes_given_up, "byte"),
        count(plan.sound_records_given_up, "record")
    ))?;
    print_line(&format!(
        "new records get offsets from {cut} on; move consumers that have read further back to {cut}"
    ))?;
    match done {
        None => print_line("nothing was changed; repeat with --yes to repair the log"),
        Some(done) => print_line(&format!(
            "done: {dir} has the repaired log, which was verified; the damaged one was moved to {}",
            done.backup.display()
        )),
    }
}

fn count_batches(number: u64) -> String {
    match number {
        1 => "1 batch".to_owned(),
        number => format!("{number} batches"),
    }
}

fn json(plan: &RepairPlan, done: Option<&Repaired>) -> serde_json::Value {
    serde_json::json!({
        "directory": plan.dir.display().to_string(),
        "needed": !plan.is_needless(),
        "damage": problems_json(&plan.damage),
        "log_start": plan.log_start.get(),
        "cut_at": plan.cut_at.get(),
        "end_seen": plan.end_seen.get(),
        "batches_kept": plan.batches_kept,
        "records_kept": plan.records_kept,
        "sound_records_given_up": plan.sound_records_given_up,
        "bytes_given_up": plan.bytes_given_up,
        "done": done.is_some(),
        "backup": done.map(|d| d.backup.display().to_string()),
    })
}
