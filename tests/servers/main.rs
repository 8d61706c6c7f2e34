//! Whole servers in simulated time: brokers, consensus, both gRPC layers and the client library as they are, on
//! turmoil's network and on disks in memory, under faults that follow from a seed. Each seed ends with everything
//! repaired, everything whole, everything read, and the verdict of the independent checker.
//!
//! What is simulated, what is not, and what a seed repeats: docs/testing.md.

#![allow(clippy::expect_used, reason = "a test that cannot go on ends")]

mod chance;
mod clients;
mod dials;
mod links;
mod machine;
mod nemesis;
mod panics;
mod plan;
mod world;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use varve_tests::chaos::say;

use crate::plan::Plan;
use crate::world::Report;

/// How long things break in the seeds of an ordinary run.
const SHORT: Duration = Duration::from_secs(20);
/// How long things break otherwise.
const LONG: Duration = Duration::from_secs(60);

/// Runs a seed on a thread of its own.
fn seed(number: u64, faulty: Duration, history: Option<PathBuf>, story: bool) -> Report {
    let run = move || {
        panics::keep();
        chance::follow(number);
        let plan = Plan::new(number, faulty);
        let file = history.and_then(|path| std::fs::File::create(path).ok());
        let file = file.map(|file| Box::new(std::io::BufWriter::new(file)) as _);
        if !story {
            return world::run(&plan, file);
        }
        let filter = std::env::var("RUST_LOG").unwrap_or_else(|_| "info,openraft=warn".to_owned());
        let subscriber = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_timer(Simulated)
            .with_ansi(false)
            .with_writer(std::io::stderr)
            .finish();
        tracing::subscriber::with_default(subscriber, || world::run(&plan, file))
    };
    let thread = std::thread::Builder::new()
        .name(format!("seed-{number}"))
        .stack_size(16 << 20);
    let running = thread.spawn(run).expect("a thread");
    running.join().expect("panics are part of the report")
}

/// The time of log lines.
struct Simulated;

impl tracing_subscriber::fmt::time::FormatTime for Simulated {
    fn format_time(&self, w: &mut tracing_subscriber::fmt::format::Writer<'_>) -> std::fmt::Result {
        match turmoil::sim_elapsed() {
            Some(now) => write!(w, "{:>9.3}", now.as_secs_f64()),
            None => write!(w, "        -"),
        }
    }
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.trim().parse().ok()
}

/// Sums of many seeds.
#[derive(Debug, Default)]
struct Sums {
    seeds: u64,
    simulated: Duration,
    counts: BTreeMap<String, u64>,
    broken: Vec<u64>,
    /// Connections of one host to one port of another in the second that had the most.
    dials: u32,
}

impl Sums {
    fn add(&mut self, report: &Report) {
        self.seeds += 1;
        self.simulated += report.simulated;
        self.dials = self.dials.max(report.dials.0);
        for (name, count) in &report.counts {
            *self.counts.entry((*name).to_owned()).or_default() += count;
        }
        if let Some(verdict) = &report.verdict {
            let c = &verdict.coverage;
            for (name, count) in [
                ("records sent", c.sends),
                ("acknowledged", c.sends_ok),
                ("certainly failed", c.sends_failed),
                ("unknown", c.sends_unknown),
                ("unknown and there", c.sends_unknown_seen),
                ("records read", c.records_polled),
                ("leader changes in logs", c.leader_changes),
                ("transactions committed", c.txns_committed),
                ("transactions aborted", c.txns_aborted),
                ("transactions unknown", c.txns_unknown),
                ("records made from others", c.copies),
                ("partitions taken by members", c.owned),
            ] {
                *self.counts.entry(name.to_owned()).or_default() += count;
            }
        }
        if !report.holds() {
            self.broken.push(report.plan.seed);
        }
    }

    fn text(&self, took: Duration) -> String {
        let mut text = format!(
            "{} seeds, {:.0} simulated s in {:.0} s\n",
            self.seeds,
            self.simulated.as_secs_f64(),
            took.as_secs_f64()
        );
        for (name, count) in &self.counts {
            text += &format!("{count:>12}  {name}\n");
        }
        text += &format!(
            "{:>12}  connections of one host to one port within a second, at most\n",
            self.dials
        );
        text += &match self.broken.as_slice() {
            [] => "no violation\n".to_owned(),
            broken => format!("VIOLATIONS in seeds {broken:?}\n"),
        };
        text
    }
}

fn run(seeds: impl Iterator<Item = u64>, faulty: Duration) -> Sums {
    let (began, mut sums) = (Instant::now(), Sums::default());
    for number in seeds {
        let report = seed(number, faulty, None, false);
        sums.add(&report);
        if report.holds() {
            say(&format!(
                "seed {number} holds ({:.0} s)",
                began.elapsed().as_secs_f64()
            ));
        } else {
            say(&report.text());
            say(&format!(
                "again: cargo xtask servers {number} {}",
                faulty.as_secs()
            ));
        }
    }
    say(&sums.text(began.elapsed()));
    sums
}

#[test]
fn a_few_seeds_hold() {
    let sums = run(1..=3, SHORT);
    assert!(sums.broken.is_empty(), "seeds {:?}", sums.broken);
    assert!(sums.counts["acknowledged"] > 0, "nothing was tested");
}

#[test]
fn a_seed_repeats_itself() {
    let story = |report: Report| (report.notes, report.counts, report.simulated);
    let once = story(seed(4, SHORT / 2, None, false));
    let again = story(seed(4, SHORT / 2, None, false));
    assert_eq!(once, again);
}

/// `SERVERS_SEEDS` of them from `SERVERS_FROM` on, each with `SERVERS_SECONDS` of faults.
#[test]
#[ignore = "takes long: cargo xtask long servers"]
fn many_seeds_hold() {
    let from = number("SERVERS_FROM").unwrap_or(1);
    let seeds = number("SERVERS_SEEDS").unwrap_or(200);
    let faulty = number("SERVERS_SECONDS").map_or(LONG, Duration::from_secs);
    let sums = run(from..from + seeds, faulty);
    assert!(sums.broken.is_empty(), "seeds {:?}", sums.broken);
}

/// `SERVERS_SEED` with everything that the servers say.
#[test]
#[ignore = "it is for looking at one seed: cargo xtask servers"]
fn one_seed_tells_its_story() {
    let number_of = number("SERVERS_SEED").unwrap_or(1);
    let faulty = number("SERVERS_SECONDS").map_or(LONG, Duration::from_secs);
    let history = std::env::var("SERVERS_HISTORY").ok().map(PathBuf::from);
    let report = seed(number_of, faulty, history, true);
    say(&report.text());
    assert!(report.holds(), "seed {number_of}");
}
