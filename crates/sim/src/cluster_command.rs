//! `varve-sim cluster`: runs seeds of the simulated cluster, or tells the story of one.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use clap::Args;
use serde_json::json;
use varve_sim::cluster::{self, Report};

use crate::Output;

/// Options of `varve-sim cluster`.
#[derive(Debug, Args)]
pub struct Cluster {
    /// How many seeds
    #[arg(long, default_value_t = 300)]
    seeds: u64,
    /// The first
    #[arg(long, default_value_t = 1)]
    from: u64,
    /// Run this seed alone, twice, and tell what happens in it
    #[arg(long, value_name = "SEED", conflicts_with_all = ["seeds", "from"])]
    seed: Option<u64>,
    /// How many at a time; default: one for each core
    #[arg(long)]
    jobs: Option<usize>,
    /// Take out the safety line of this name, and look for the first seed that notices
    #[cfg(feature = "planted")]
    #[arg(long, value_name = "NAME", conflicts_with = "seed")]
    plant: Option<String>,
    /// Form of the result
    #[arg(long, value_enum, default_value = "text")]
    output: Output,
}

/// Runs it.
pub fn run(options: &Cluster) -> ExitCode {
    #[cfg(feature = "planted")]
    if let Some(name) = &options.plant {
        return hunt(name, options);
    }
    match options.seed {
        Some(seed) => tell(seed),
        None => many(options),
    }
}

#[cfg(feature = "planted")]
fn hunt(name: &str, options: &Cluster) -> ExitCode {
    use varve_sim::cluster::planted::{Plant, hunt};

    let mut found = true;
    for plant in Plant::all() {
        if !format!("{plant:?}").contains(name) {
            continue;
        }
        match hunt(plant, options.from, options.seeds) {
            Some((seed, why)) => println!("{plant:?}: seed {seed}: {why}"),
            None => {
                println!("{plant:?}: NOT caught");
                found = false;
            }
        }
    }
    ExitCode::from(u8::from(!found))
}

fn tell(seed: u64) -> ExitCode {
    let report = cluster::run(seed, true);
    for line in &report.story {
        println!("{line}");
    }
    let again = cluster::run(seed, false);
    println!(
        "seed {seed}: {} events, {} records shown, trace {:016x}, again {:016x}",
        report.events, report.records, report.trace, again.trace
    );
    match (&report.violation, report.trace == again.trace) {
        (Some(why), _) => println!("VIOLATION {why}"),
        (None, false) => println!("VIOLATION the same seed produced two different runs"),
        (None, true) => return ExitCode::SUCCESS,
    }
    ExitCode::from(1)
}

#[derive(Debug, Default)]
struct Sum {
    seeds: u64,
    events: u64,
    records: u64,
    coverage: BTreeMap<&'static str, u64>,
    violations: Vec<(u64, String)>,
}

impl Sum {
    fn add(&mut self, report: Report) {
        self.seeds += 1;
        self.events += report.events;
        self.records += report.records;
        for (what, times) in report.coverage {
            *self.coverage.entry(what).or_default() += times;
        }
        if let Some(why) = report.violation {
            eprintln!("seed {}: {why}", report.seed);
            self.violations.push((report.seed, why));
        }
    }
}

fn many(options: &Cluster) -> ExitCode {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let jobs = options.jobs.unwrap_or(cores).max(1);
    let (next, started) = (AtomicU64::new(0), Instant::now());
    let sum = Mutex::new(Sum::default());
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= options.seeds {
                        break;
                    }
                    let seed = options.from + n;
                    let ran = std::panic::catch_unwind(|| cluster::run(seed, false));
                    let report = ran.unwrap_or_else(|_| panicked(seed));
                    let mut sum = sum
                        .lock()
                        .unwrap_or_else(std::sync::PoisonError::into_inner);
                    sum.add(report);
                    if sum.seeds.is_multiple_of(1_000) {
                        eprintln!("{} of {} seeds", sum.seeds, options.seeds);
                    }
                }
            });
        }
    });
    let sum = sum
        .into_inner()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    print(
        &sum,
        started.elapsed().as_secs_f64(),
        options.output == Output::Json,
    );
    let missing = cluster::missing(&sum.coverage);
    let asked = sum.seeds >= cluster::SEEDS;
    for what in missing.iter().filter(|_| asked) {
        println!("NEVER HAPPENED {what}");
    }
    let failed = !sum.violations.is_empty() || (asked && !missing.is_empty());
    ExitCode::from(u8::from(failed))
}

fn panicked(seed: u64) -> Report {
    Report {
        seed,
        violation: Some("an assertion failed; see above".to_owned()),
        trace: 0,
        events: 0,
        records: 0,
        coverage: BTreeMap::new(),
        story: Vec::new(),
    }
}

fn print(sum: &Sum, seconds: f64, as_json: bool) {
    if as_json {
        let violations: Vec<_> = sum
            .violations
            .iter()
            .map(|(seed, why)| json!({ "seed": seed, "why": why }))
            .collect();
        let document = json!({
            "seeds": sum.seeds, "events": sum.events, "records": sum.records,
            "seconds": seconds, "coverage": sum.coverage, "violations": violations,
        });
        println!("{document}");
        return;
    }
    for (what, times) in &sum.coverage {
        println!("{times:>12}  {what}");
    }
    println!(
        "{} seeds, {} events, {} records shown, {:.0} seeds/s, {} violations",
        sum.seeds,
        sum.events,
        sum.records,
        sum.seeds as f64 / seconds.max(0.001),
        sum.violations.len()
    );
}
