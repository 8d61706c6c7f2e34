//! Automation: `cargo xtask check` is everything that must hold before a change lands, the same here and
//! in CI. Needs nothing of the product and nothing but the standard library; never needed to build.

mod check;
mod fuzz;
mod kafka;
mod upgrade;

use std::ffi::OsString;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

const HELP: &str = "\
Usage: cargo xtask <command>

Commands:
  check [--skip-tests]  format, tests, lints, documentation, dependencies: what CI runs
  check --quick         format, lints and unit tests of the crates that differ from main: about a minute
  test [ARGUMENTS]      the tests, by cargo-nextest where it is installed, with the program built beforehand
  chaos [OPTIONS]       one history of real processes under faults and its verdict; --help tells more
  servers SEED [SECONDS]  one seed of whole servers in simulated time, with everything that they say
  long [NAME]           the long suites, each one command; without NAME all of them
  kafka                 writes the codec of the Kafka protocol from its message tables
  help                  this text

check runs, in this order, and stops at the first failure:
  fmt      cargo fmt --all --check
  build    cargo test --workspace --all-targets --no-run, which builds the programs too, with clippy's compiler, so
           that it is what cargo clippy --workspace --all-targets -- -D warnings checks as well
  test     cargo nextest run --workspace where it is installed, otherwise cargo test --workspace; the tidy test of
           layers, absences and words is one of them
  doc      beside the tests: the documentation of all libraries, warnings are errors, and the examples in it
  deny     cargo deny check, if cargo-deny is installed

long suites:
  kill    1 GiB of real text through a node that is killed again and again, read back and compared
  storage random histories with power cuts against a model, 20,000 cases
  groups  random joins, leaves, timeouts and lost replies, 20,000 cases
  torture crash states, failing calls, full disks, damage at rest and planted bugs, all of each
  cluster 20,000 seeds of a simulated cluster, and its planted bugs
  servers 200 seeds of whole servers in simulated time, each with 60 s of faults
  power   the real kernel: kills at every system call, 1,200 power cuts, failing, full and hung disks (root)
  chaos   20 histories of real processes under all faults, with 3 and 5 nodes and all workloads in turn (root)
  kafka   6 histories of real processes under all faults whose clients are kafka-python and librdkafka, 3 and 5
          nodes in turn (root, and the Python packages of tests/python/requirements.txt)
  fuzz    every fuzz target, each for $VARVE_FUZZ_SECONDS (default 300); $VARVE_FUZZ_TARGETS names some.
          Needs a nightly toolchain and cargo-fuzz; not part of `long` without a name
  upgrade [REVISION]
          a cluster of two versions, this one and that of the revision (default: the newest tag), under load;
          not part of `long` without a name
";

const LONG: [Step; 10] = [
    Step {
        name: "kill",
        arguments: &[
            "test",
            "--release",
            "--package",
            "varve-tests",
            "--test",
            "cluster",
            "killed::",
            "--",
            "--nocapture",
        ],
        environment: &[("VARVE_TEST_KILL_BYTES", "1GiB")],
    },
    Step {
        name: "storage",
        arguments: &[
            "test",
            "--release",
            "--package",
            "varve-storage",
            "--test",
            "all",
            "model::",
        ],
        environment: &[("PROPTEST_CASES", "20000")],
    },
    Step {
        name: "groups",
        arguments: &["test", "--release", "--package", "varve-groups", "--tests"],
        environment: &[("PROPTEST_CASES", "20000")],
    },
    Step {
        name: "torture",
        arguments: &[
            "run",
            "--release",
            "--package",
            "varve-sim",
            "--features",
            "planted",
            "--",
            "torture",
            "--full",
        ],
        // A planted bug may well end in an assertion: that is caught and counted.
        environment: &[("CARGO_PROFILE_RELEASE_PANIC", "unwind")],
    },
    Step {
        name: "cluster",
        arguments: &[
            "run",
            "--release",
            "--package",
            "varve-sim",
            "--features",
            "planted",
            "--",
            "cluster",
            "--seeds",
            "20000",
        ],
        environment: &[("CARGO_PROFILE_RELEASE_PANIC", "unwind")],
    },
    Step {
        name: "cluster",
        arguments: &[
            "test",
            "--release",
            "--package",
            "varve-sim",
            "--features",
            "planted",
            "--test",
            "cluster_plants",
            "--",
            "--nocapture",
        ],
        environment: &[("CARGO_PROFILE_RELEASE_PANIC", "unwind")],
    },
    Step {
        name: "servers",
        arguments: &[
            "test",
            "--profile",
            "dist",
            "--package",
            "varve-tests",
            "--test",
            "servers",
            "many_seeds_hold",
            "--",
            "--ignored",
            "--nocapture",
        ],
        environment: &[("SERVERS_SEEDS", "200"), ("SERVERS_SECONDS", "60")],
    },
    Step {
        name: "power",
        arguments: &[
            "test",
            "--release",
            "--package",
            "varve-tests",
            "--test",
            "power",
            "--",
            "--nocapture",
        ],
        environment: &[
            ("VARVE_TEST_POWER", "full"),
            ("VARVE_TEST_REQUIRE_POWER", "1"),
        ],
    },
    Step {
        name: "chaos",
        arguments: &[
            "run",
            "--release",
            "--package",
            "varve-tests",
            "--bin",
            "chaos",
            "--",
            "--nodes",
            "3,5",
            "--histories",
            "20",
            "--seed",
            "1",
            "--duration",
            "300s",
        ],
        environment: &[("VARVE_TEST_REQUIRE_POWER", "1")],
    },
    Step {
        name: "kafka",
        arguments: &[
            "run",
            "--release",
            "--package",
            "varve-tests",
            "--bin",
            "chaos",
            "--",
            "--workload",
            "kafka",
            "--nodes",
            "3,5",
            "--histories",
            "6",
            "--seed",
            "1",
            "--duration",
            "300s",
            "--rate",
            "150",
        ],
        environment: &[("VARVE_TEST_REQUIRE_POWER", "1")],
    },
];

/// One thing to run.
struct Step<'a> {
    name: &'a str,
    arguments: &'a [&'a str],
    environment: &'a [(&'a str, &'a str)],
}

fn main() -> ExitCode {
    if let Some(code) = check::docs::as_rustdoc() {
        return code;
    }
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["check"] => check::check(false),
        ["check", "--skip-tests"] => check::check(true),
        ["check", "--quick"] => check::quick(),
        ["test", arguments @ ..] => check::test(arguments),
        ["chaos", options @ ..] => chaos(options),
        ["servers", seed] => servers(seed, "60"),
        ["servers", seed, seconds] => servers(seed, seconds),
        ["long"] => long(&LONG),
        ["long", "fuzz"] => fuzz::run(),
        ["long", "upgrade"] => upgrade::run(None),
        ["long", "upgrade", revision] => upgrade::run(Some(revision)),
        ["long", name] => {
            // A suite may have several steps; they stand together.
            let steps = LONG.iter().filter(|step| step.name == *name).count();
            match LONG.iter().position(|step| step.name == *name) {
                Some(at) => long(&LONG[at..at + steps]),
                None => {
                    eprintln!("error: unknown suite {name:?}\n\n{HELP}");
                    ExitCode::from(2)
                }
            }
        }
        ["kafka"] => kafka_codec(),
        ["help" | "--help" | "-h"] => {
            print!("{HELP}");
            ExitCode::SUCCESS
        }
        [] => {
            eprint!("{HELP}");
            ExitCode::from(2)
        }
        other => {
            eprintln!("error: unknown command {:?}\n\n{HELP}", other.join(" "));
            ExitCode::from(2)
        }
    }
}

fn long(suites: &[Step]) -> ExitCode {
    for step in suites {
        match run(step) {
            Ok(took) => eprintln!("xtask: {} passed in {:.0} s", step.name, took.as_secs_f64()),
            Err(why) => {
                eprintln!("\nxtask: {} failed: {why}", step.name);
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}

/// The exit code of the history is ours: it tells a broken promise from one that could not be tested.
fn chaos(options: &[&str]) -> ExitCode {
    let program = [
        "run",
        "--release",
        "--package",
        "varve-tests",
        "--bin",
        "chaos",
        "--",
    ];
    let status = cargo().args(program).args(options).status();
    match status {
        Ok(status) => ExitCode::from(
            status
                .code()
                .and_then(|c| u8::try_from(c).ok())
                .unwrap_or(1),
        ),
        Err(error) => {
            eprintln!("error: cargo could not be started: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Writes the codec of the Kafka protocol.
fn kafka_codec() -> ExitCode {
    match kafka::run() {
        Ok(files) => {
            eprintln!("xtask: kafka: {files} files in crates/frontend-kafka/src/wire/generated");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// One seed of the simulation of whole servers.
fn servers(seed: &str, seconds: &str) -> ExitCode {
    let step = Step {
        name: "servers",
        arguments: &[
            "test",
            "--profile",
            "dist",
            "--package",
            "varve-tests",
            "--test",
            "servers",
            "one_seed_tells_its_story",
            "--",
            "--ignored",
            "--nocapture",
        ],
        environment: &[("SERVERS_SEED", seed), ("SERVERS_SECONDS", seconds)],
    };
    long(&[step])
}

fn cargo() -> Command {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    Command::new(cargo)
}

fn run(step: &Step) -> Result<Duration, String> {
    eprintln!("\nxtask: {}: cargo {}", step.name, step.arguments.join(" "));
    let start = Instant::now();
    let status = cargo()
        .args(step.arguments)
        .envs(step.environment.iter().copied())
        .status()
        .map_err(|error| format!("cargo could not be started: {error}"))?;
    let took = start.elapsed();
    if !status.success() {
        return Err(format!("{status} after {:.1} s", took.as_secs_f64()));
    }
    eprintln!("xtask: {} ok in {:.1} s", step.name, took.as_secs_f64());
    Ok(took)
}
