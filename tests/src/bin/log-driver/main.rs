//! A program that keeps logs busy and one that looks at what a crash left of them; the `power` suite kills the
//! one at any moment and believes the other.
//!
//! `log-driver run` does a seeded mix of everything a log can do, all of it on one thread, so that a tracer's
//! count of system calls is the same in every run. It says what it is about to do before it does it and
//! what is durable after it is, in lines on standard output (see `journal`), which outlive any crash.
//! `log-driver check` recovers the logs and holds them against those lines. What a record contains follows
//! from its seed, partition, offset and generation, so nothing but the lines is needed to tell a right
//! byte from a wrong one.
//!
//! Nothing here syncs, repairs or retries on its own: all of that is the storage's work.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a driver of tests ends when it cannot go on"
)]

mod check;
mod content;
mod journal;
mod shared;
mod workload;

use std::path::PathBuf;
use std::process::ExitCode;

const HELP: &str = "\
Usage: log-driver run   --dir D --seed S --ops N [--partitions P] [--generation G] [--segment-bytes B]
                        [--batch-bytes B] [--hold] [--journal]
       log-driver recover --dir D --partitions P [--journal]
       log-driver check --dir D --seed S --partitions P --acks FILE [--journal]

run      opens or makes P logs in D, does N operations, says on standard output what is durable
         --generation  tells the runs on one directory apart; every run needs its own
         --hold        appends to every log at the end, without a flush, and waits to be killed
         --journal     acknowledges small flushes through a journal that the logs share
recover  opens the logs and ends
check    recovers the logs twice and compares them with the lines of all runs; exit code 0: all is there,
         1: something is lost or wrong, 4: a log was refused although nothing acknowledged is damaged
";

/// Arguments, all of which have one meaning in every command.
#[derive(Debug, Clone)]
pub struct Options {
    /// Directory of the logs.
    pub dir: PathBuf,
    /// Lines of the runs so far.
    pub acks: PathBuf,
    /// Seed of the operations and of the content.
    pub seed: u64,
    /// Operations of a run.
    pub ops: u64,
    /// Logs.
    pub partitions: u32,
    /// Number of this run on the directory.
    pub generation: u32,
    /// Size at which segments are rolled.
    pub segment_bytes: u64,
    /// Largest batch, about.
    pub batch_bytes: u64,
    /// End with appends that are not flushed, and wait.
    pub hold: bool,
    /// The logs share a journal.
    pub journal: bool,
}

fn parse(arguments: &[String]) -> Option<Options> {
    let mut options = Options {
        dir: PathBuf::new(),
        acks: PathBuf::new(),
        seed: 1,
        ops: 100,
        partitions: 4,
        generation: 1,
        segment_bytes: 16 << 10,
        batch_bytes: 2 << 10,
        hold: false,
        journal: false,
    };
    let mut rest = arguments.iter();
    while let Some(name) = rest.next() {
        if name == "--hold" {
            options.hold = true;
            continue;
        }
        if name == "--journal" {
            options.journal = true;
            continue;
        }
        let value = rest.next()?;
        match name.as_str() {
            "--dir" => options.dir = PathBuf::from(value),
            "--acks" => options.acks = PathBuf::from(value),
            "--seed" => options.seed = value.parse().ok()?,
            "--ops" => options.ops = value.parse().ok()?,
            "--partitions" => options.partitions = value.parse().ok()?,
            "--generation" => options.generation = value.parse().ok()?,
            "--segment-bytes" => options.segment_bytes = value.parse().ok()?,
            "--batch-bytes" => options.batch_bytes = value.parse().ok()?,
            _ => return None,
        }
    }
    (!options.dir.as_os_str().is_empty()).then_some(options)
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let parsed = arguments.split_first().map(|(c, rest)| (c, parse(rest)));
    match parsed {
        Some((command, Some(options))) => match command.as_str() {
            "run" => workload::run(&options),
            "recover" => workload::recover(&options),
            "check" => check::check(&options),
            _ => usage(),
        },
        _ => usage(),
    }
}

fn usage() -> ExitCode {
    eprint!("{HELP}");
    ExitCode::from(2)
}
