//! `varve-sim`: the torture suites on the command line. Results go to stdout, progress to stderr; the exit
//! status is 1 when something happened that must not, 2 when the command line is wrong.

mod cluster_command;

use std::process::ExitCode;
use std::time::Instant;

use clap::{Args, Parser, Subcommand, ValueEnum};
use serde_json::json;
use varve_sim::plants::Plant;
use varve_sim::torture::workloads::{self, Workload};
use varve_sim::torture::{Effort, Tally, damage, enumerate, faults, planted};

/// Makes the storage engine's life as hard as a disk can.
#[derive(Debug, Parser)]
#[command(name = "varve-sim", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Crash states, failing calls, full disks, damage at rest, planted bugs
    Torture(Torture),
    /// A cluster of real cores on simulated disks, network and clocks, seed by seed
    Cluster(cluster_command::Cluster),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Suite {
    /// Power cuts after every step, in every state of the unsynced changes
    K1,
    /// Files cut at every byte
    K2,
    /// Flipped bits
    K3,
    /// Blocks that hold something else
    K4,
    /// A kill after every step, acknowledgements by the next process, then a power cut
    K7,
    /// Calls that fail
    K8,
    /// Disks that fill up
    K9,
    /// Planted bugs, each of which must be caught
    Plants,
    /// All of them
    All,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    /// A table
    Text,
    /// One JSON document
    Json,
}

#[derive(Debug, Args)]
struct Torture {
    /// Which suite
    #[arg(long, value_enum, default_value = "all")]
    suite: Suite,
    /// Only this workload
    #[arg(long, value_name = "NAME")]
    workload: Option<String>,
    /// A part that takes seconds; the default
    #[arg(long, conflicts_with = "full")]
    bounded: bool,
    /// Everything
    #[arg(long)]
    full: bool,
    /// Where random choices start
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Look at one state again, as a violation has named it; needs --suite and --workload
    #[arg(long, value_name = "STATE", requires = "workload")]
    state: Option<String>,
    /// Form of the result
    #[arg(long, value_enum, default_value = "text")]
    output: Output,
}

fn main() -> ExitCode {
    let torture = match Cli::parse().command {
        Command::Torture(torture) => torture,
        Command::Cluster(cluster) => return cluster_command::run(&cluster),
    };
    let chosen: Vec<Box<dyn Workload>> = workloads::all()
        .into_iter()
        .filter(|w| {
            torture
                .workload
                .as_deref()
                .is_none_or(|name| name == w.name())
        })
        .collect();
    if chosen.is_empty() {
        let names: Vec<&str> = workloads::all().iter().map(|w| w.name()).collect();
        eprintln!(
            "error: this workload does not exist; there are {}",
            names.join(", ")
        );
        return ExitCode::from(2);
    }
    match &torture.state {
        Some(state) => replay(chosen[0].as_ref(), state, torture.suite),
        None => run(&torture, &chosen),
    }
}

fn replay(workload: &dyn Workload, state: &str, suite: Suite) -> ExitCode {
    let result = match suite {
        Suite::K8 | Suite::K9 => faults::replay(workload, state),
        _ => state.parse().and_then(|state| {
            let suite = if suite == Suite::K7 { "k7" } else { "k1" };
            enumerate::replay(workload, &state, suite)
        }),
    };
    match result {
        Ok(said) => {
            println!("{said}");
            ExitCode::SUCCESS
        }
        Err(said) => {
            println!("violation: {said}");
            ExitCode::FAILURE
        }
    }
}

fn run(torture: &Torture, chosen: &[Box<dyn Workload>]) -> ExitCode {
    let effort = if torture.full {
        Effort::full(torture.seed)
    } else {
        Effort {
            seed: torture.seed,
            ..Effort::bounded()
        }
    };
    let wants = |suite: Suite| torture.suite == suite || torture.suite == Suite::All;
    let mut tallies: Vec<Tally> = Vec::new();
    type OnWorkload = fn(&dyn Workload, Effort) -> Tally;
    let on_workloads: [(Suite, OnWorkload); 4] = [
        (Suite::K1, enumerate::k1),
        (Suite::K7, enumerate::k7),
        (Suite::K8, faults::k8),
        (Suite::K9, faults::k9),
    ];
    for (suite, run) in on_workloads.into_iter().filter(|(suite, _)| wants(*suite)) {
        for workload in chosen {
            eprintln!("{suite:?} {} ...", workload.name());
            let start = Instant::now();
            let mut tally = run(workload.as_ref(), effort);
            tally.ms = start.elapsed().as_millis() as u64;
            tallies.push(tally);
        }
    }
    for (suite, name) in [(Suite::K2, "k2"), (Suite::K3, "k3"), (Suite::K4, "k4")] {
        if wants(suite) && torture.workload.is_none() {
            eprintln!("{name} ...");
            let start = Instant::now();
            let mut found = damage::all(Some(name), effort);
            let ms = start.elapsed().as_millis() as u64 / found.len().max(1) as u64;
            found.iter_mut().for_each(|tally| tally.ms = ms);
            tallies.extend(found);
        }
    }
    if wants(Suite::Plants) && torture.workload.is_none() {
        tallies.extend(
            Plant::all()
                .into_iter()
                .map(|plant| plants(plant, torture.seed)),
        );
    }
    print(&tallies, torture.output);
    if tallies.iter().all(|t| t.violations.is_empty()) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// A planted bug that nobody catches is the violation.
fn plants(plant: Plant, seed: u64) -> Tally {
    eprintln!("planted: {} ...", plant.describe());
    let start = Instant::now();
    let mut tally = Tally::new("plants", plant.describe());
    let mut efforts = vec![Effort::bounded(), Effort::full(seed)];
    while !efforts.is_empty() {
        let (states, caught) = planted::hunt(plant, efforts.remove(0));
        tally.states += states;
        if let Some(caught) = caught {
            tally.note(&format!("caught by {}: {}", caught.by, caught.said), 1);
            tally.ms = start.elapsed().as_millis() as u64;
            return tally;
        }
    }
    tally
        .violations
        .push(format!("no suite noticed: {}", plant.describe()));
    tally
}

fn print(tallies: &[Tally], output: Output) {
    if output == Output::Json {
        let rows: Vec<serde_json::Value> = tallies
            .iter()
            .map(|t| {
                let notes: serde_json::Map<String, serde_json::Value> =
                    t.notes.iter().map(|(k, v)| (k.clone(), json!(v))).collect();
                json!({
                    "suite": t.suite, "name": t.name, "states": t.states, "refused": t.refused,
                    "violations": t.violations, "notes": notes, "ms": t.ms,
                })
            })
            .collect();
        println!("{}", json!({ "rows": rows }));
        return;
    }
    println!(
        "{:<7} {:<50} {:>8} {:>8} {:>10} {:>8}  notes",
        "suite", "name", "states", "refused", "violations", "seconds"
    );
    for t in tallies {
        let notes: Vec<String> = t
            .notes
            .iter()
            .filter(|(_, count)| *count > 0)
            .map(|(what, count)| format!("{what} {count}"))
            .collect();
        println!(
            "{:<7} {:<50} {:>8} {:>8} {:>10} {:>8.1}  {}",
            t.suite,
            t.name,
            t.states,
            t.refused,
            t.violations.len(),
            t.ms as f64 / 1000.0,
            notes.join(", ")
        );
    }
    let states: u64 = tallies.iter().map(|t| t.states).sum();
    let refused: u64 = tallies.iter().map(|t| t.refused).sum();
    let violations: usize = tallies.iter().map(|t| t.violations.len()).sum();
    println!(
        "\n{states} states, {violations} violations, {refused} refused although no acknowledged \
         record was lost"
    );
    for violation in tallies.iter().flat_map(|t| &t.violations) {
        println!("\n{violation}");
    }
}
