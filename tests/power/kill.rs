//! Killed at every system call that changes a file, and the recovery after it killed at every one of its own.
//!
//! The workload and its recovery run on one thread and do the same calls in the same order every time, so "the
//! N-th `pwritev`" names one moment; a tracer sends SIGKILL there, before the call is done. What is in the
//! page cache stays, as after any `kill -9`: what a power cut takes is the matter of `cut`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::driver::{Outcome, Shape, program};
use varve_tests::machine::{amount, full, skipped};

/// Every call that changes a file or a directory. `openat` counts where it may create.
const CALLS: [&str; 16] = [
    "pwrite64",
    "pwritev",
    "pwritev2",
    "fsync",
    "fdatasync",
    "sync_file_range",
    "ftruncate",
    "fallocate",
    "rename",
    "renameat",
    "renameat2",
    "unlink",
    "unlinkat",
    "mkdir",
    "mkdirat",
    "openat",
];
/// Operations of the workload.
const OPERATIONS: u32 = 150;
/// Points at which the workload is killed in the sample, and its recovery after each.
const SAMPLE: usize = 40;
const SAMPLE_OF_RECOVERY: usize = 2;
/// In the full run every point of the recovery follows one in so many points of the workload, and two of
/// them follow the others.
const ALL_OF_RECOVERY_EVERY: usize = 10;

/// A moment: before the `nth` of a system call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Point {
    call: &'static str,
    nth: usize,
}

fn shape(journal: bool) -> Shape {
    Shape {
        journal,
        seed: 3,
        partitions: 4,
        segment_bytes: 8 << 10,
        batch_bytes: 2 << 10,
    }
}

fn run_arguments(shape: &Shape, dir: &Path) -> Vec<String> {
    let mut arguments = shape.arguments("run", dir);
    arguments.extend(["--ops".to_owned(), OPERATIONS.to_string()]);
    arguments
}

/// Runs the driver under the tracer and returns its standard output.
fn traced(tracing: &[String], arguments: &[String]) -> String {
    let output = Command::new("strace")
        .arg("-qq")
        .args(tracing)
        .arg(program())
        .args(arguments)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .expect("strace runs");
    String::from_utf8(output.stdout).expect("the driver writes text")
}

/// All moments of a run, in the order in which they come.
fn points(arguments: &[String]) -> Vec<Point> {
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    let trace = format!("trace={},write,writev", CALLS.join(","));
    let path = file.path().to_str().expect("plain names").to_owned();
    traced(&["-o".to_owned(), path, "-e".to_owned(), trace], arguments);
    let text = std::fs::read_to_string(file.path()).expect("the trace can be read");
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    let mut points = Vec::new();
    for line in text.lines() {
        let Some((name, rest)) = line.split_once('(') else {
            continue;
        };
        if name.starts_with("write") {
            // Files are written by the calls above alone, so that this list misses none.
            assert!(rest.starts_with("1,") || rest.starts_with("2,"), "{line}");
            continue;
        }
        let Some(known) = CALLS.iter().find(|c| **c == name) else {
            continue;
        };
        let count = counts.entry(known).or_default();
        *count += 1;
        if *known != "openat" || rest.contains("O_CREAT") {
            points.push(Point {
                call: known,
                nth: *count,
            });
        }
    }
    points
}

/// Runs the driver and kills it at `point`; returns what it had said.
fn killed_at(point: Point, arguments: &[String]) -> String {
    let Point { call, nth } = point;
    let trace = format!("trace={call}");
    let inject = format!("inject={call}:signal=SIGKILL:when={nth}");
    let said = traced(
        &["-o", "/dev/null", "-e", &trace, "-e", &inject].map(str::to_owned),
        arguments,
    );
    assert!(!said.contains("finished"), "{point:?} did not come again");
    said
}

/// A directory that is as fast as memory, for files of which only the page cache matters.
fn scratch() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let place = if memory.is_dir() {
        memory.to_owned()
    } else {
        std::env::temp_dir()
    };
    tempfile::Builder::new()
        .prefix("varve-kill-")
        .tempdir_in(place)
        .expect("a temporary directory")
}

fn copy(from: &Path, to: &Path) {
    if !from.exists() {
        // Killed before it was made.
        return;
    }
    std::fs::create_dir_all(to).expect("a directory");
    for entry in std::fs::read_dir(from)
        .expect("the directory is read")
        .flatten()
    {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).expect("a file is copied");
        }
    }
}

/// `count` of `all`, spread evenly; all of them if there are fewer.
fn spread<T: Copy>(all: &[T], count: usize, from: usize) -> Vec<T> {
    if all.len() <= count {
        return all.to_vec();
    }
    (0..count)
        .map(|n| all[(n * all.len() / count + from) % all.len()])
        .collect()
}

/// The logs that a check found, without what the recovery had to do for them.
fn logs(checked: &str) -> Vec<String> {
    let log = |line: &str| line.split(", cut ").next().unwrap_or(line).to_owned();
    checked.lines().map(log).collect()
}

/// Kills the workload at `point`, checks what is left, and kills the recovery of it; the number of checks.
fn kill_and_recover(shape: &Shape, point: Point, recoveries: usize, number: usize) -> usize {
    let scratch = scratch();
    let crashed = scratch.path().join("a");
    let said = killed_at(point, &run_arguments(shape, &crashed));
    let fresh = |name: &str| -> PathBuf {
        let dir = scratch.path().join(name);
        copy(&crashed, &dir);
        dir
    };
    let checked = fresh("b");
    let what = format!("killed at {point:?}");
    let expected = logs(&shape.check(&checked, &said).right(&what, &said));
    let traced = fresh("c");
    let steps = points(&shape.arguments("recover", &traced));
    let chosen = spread(&steps, recoveries, number);
    for (n, step) in chosen.iter().enumerate() {
        let dir = fresh(&format!("r{n}"));
        killed_at(*step, &shape.arguments("recover", &dir));
        let what = format!("{what}, its recovery at {step:?}");
        let found = match shape.check(&dir, &said) {
            Outcome::Right(text) => logs(&text),
            wrong => {
                wrong.right(&what, &said);
                continue;
            }
        };
        assert_eq!(
            found, expected,
            "{what}: another log than without that kill"
        );
        // Unless it was killed before it was made.
        let _ = std::fs::remove_dir_all(&dir);
    }
    chosen.len() + 1
}

#[test]
fn killed_at_every_system_call_and_again_in_recovery() {
    if !skipped("kill at every system call") {
        killed_everywhere(&shape(false));
    }
}

#[test]
fn killed_at_every_system_call_of_logs_with_a_journal_and_again_in_recovery() {
    if !skipped("kill at every system call with a journal") {
        killed_everywhere(&shape(true));
    }
}

fn killed_everywhere(shape: &Shape) {
    let dir = scratch();
    let all = points(&run_arguments(shape, &dir.path().join("a")));
    assert!(all.len() >= 500, "{} points are too few", all.len());
    let chosen = spread(&all, amount(SAMPLE, usize::MAX), 0);
    let (next, checks) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let work = || {
        loop {
            let n = next.fetch_add(1, Ordering::Relaxed);
            let Some(point) = chosen.get(n) else { break };
            let recoveries = if full() && n.is_multiple_of(ALL_OF_RECOVERY_EVERY) {
                usize::MAX
            } else {
                SAMPLE_OF_RECOVERY
            };
            let done = kill_and_recover(shape, *point, recoveries, n);
            checks.fetch_add(done, Ordering::Relaxed);
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(work);
        work();
    });
    eprintln!(
        "killed at {} of {} system calls, {} logs recovered and compared",
        chosen.len(),
        all.len(),
        checks.load(Ordering::Relaxed) * shape.partitions as usize
    );
}
