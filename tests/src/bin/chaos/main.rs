//! `cargo xtask chaos`: one history of real processes under faults and its verdict, or several.
//!
//! The verdict goes to standard output, progress to standard error. Exit codes: 0 valid, 4 something forbidden
//! happened, 1 nothing could be said, 2 usage.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use varve_tests::chaos::{Fault, Options, Work, parse_faults, parse_works, run, say};
use varve_types::size::parse_duration;
use varve_workload::Kind;

const HELP: &str = "\
Usage: cargo xtask chaos [OPTIONS]

Options:
  --nodes N[,M...]   nodes; with --histories the numbers are taken in turn  [default: 3]
  --seed S           what everything is drawn from                          [default: the time]
  --duration TIME    how long things break                                  [default: 60s]
  --faults LIST      names with commas, or all                              [default: all]
  --workload LIST    what clients do: names with commas, or all; with --histories in turn  [default: all]
  --rate N           sends in a second                                      [default: 300]
  --histories N      so many, with seeds S, S+1, ...                        [default: 1]
  --ground G         auto: network namespaces if they can be had; loopback    [default: auto]
  --keep DIR         keep history and logs here; else only when something is wrong

";

fn usage(error: &str) -> ExitCode {
    eprintln!("error: {error}\n\n{}", help());
    ExitCode::from(2)
}

fn help() -> String {
    let mut text = HELP.to_owned() + "Workloads:\n";
    for work in Work::all() {
        text += &format!("  {:<16}{}\n", work.name(), work.what());
    }
    text += "\nFaults:\n";
    for fault in Fault::ALL {
        text += &format!("  {:<11}{}\n", fault.name(), fault.what());
    }
    text
}

struct Arguments {
    options: Options,
    nodes: Vec<usize>,
    works: Vec<Work>,
    histories: u64,
}

fn parse(words: &[String]) -> Result<Arguments, String> {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let mut all = Arguments {
        options: Options {
            nodes: 3,
            seed: since.map_or(1, |time| time.as_secs()),
            duration: Duration::from_secs(60),
            faults: Fault::ALL.to_vec(),
            in_turn: false,
            work: Work::Own(Kind::Queue),
            rate: 300,
            loopback: false,
            keep: None,
        },
        nodes: vec![3],
        works: Kind::ALL.iter().map(|kind| Work::Own(*kind)).collect(),
        histories: 1,
    };
    for pair in words.chunks(2) {
        let [name, value] = pair else {
            return Err(format!("{} needs a value", pair[0]));
        };
        let number = || {
            value
                .parse::<u64>()
                .map_err(|error| format!("{name} {value}: {error}"))
        };
        match name.as_str() {
            "--nodes" => {
                let one = |word: &str| word.parse().ok().filter(|n| (1..=9).contains(n));
                let counts: Option<Vec<usize>> = value.split(',').map(one).collect();
                all.nodes = counts.ok_or("--nodes: numbers from 1 to 9")?;
            }
            "--seed" => all.options.seed = number()?,
            "--duration" => all.options.duration = parse_duration(value)?,
            "--faults" => all.options.faults = parse_faults(value)?,
            "--workload" => all.works = parse_works(value)?,
            "--rate" => all.options.rate = u32::try_from(number()?).map_err(|e| e.to_string())?,
            "--histories" => all.histories = number()?,
            "--ground" => all.options.loopback = value == "loopback",
            "--keep" => all.options.keep = Some(PathBuf::from(value)),
            other => return Err(format!("unknown option {other}")),
        }
    }
    Ok(all)
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if words.iter().any(|word| word == "--help" || word == "-h") {
        print!("{}", help());
        return ExitCode::SUCCESS;
    }
    let arguments = match parse(&words) {
        Ok(arguments) => arguments,
        Err(error) => return usage(&error),
    };
    let mut worst = 0;
    for number in 0..arguments.histories {
        let mut options = arguments.options.clone();
        options.seed = options.seed.wrapping_add(number);
        let at = usize::try_from(number).unwrap_or(0);
        options.nodes = arguments.nodes[at % arguments.nodes.len()];
        options.work = arguments.works[at % arguments.works.len()];
        options.keep = options.keep.map(|dir| match arguments.histories {
            1 => dir,
            _ => dir.join(options.seed.to_string()),
        });
        let names: Vec<&str> = options.faults.iter().map(|fault| fault.name()).collect();
        say(&format!(
            "history {} of {}: {}, {} nodes, seed {}, {:?} of {}",
            number + 1,
            arguments.histories,
            options.work.name(),
            options.nodes,
            options.seed,
            options.duration,
            names.join(",")
        ));
        match run(&options) {
            Ok(report) => {
                println!("{}", report.text());
                worst = worst.max(report.exit_code());
            }
            Err(error) => {
                eprintln!("error: {error}");
                worst = worst.max(1);
            }
        }
    }
    ExitCode::from(worst)
}
