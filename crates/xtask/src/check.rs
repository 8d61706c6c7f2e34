//! `cargo xtask check` and `cargo xtask test`: the steps of a check, how long each took, and how to run what failed
//! alone.
//!
//! Whatever is compiled is compiled once: the compiler that builds the tests is clippy's, which lints what it builds,
//! and the documentation is made from the libraries that the tests use. `cargo clippy` and `cargo doc` would each check
//! all dependencies again. Most tests wait, so the documentation is made beside them, at the lowest priority.
//!
//! Invariant: a step that did not run is named at the end; "all that ran is fine" is never said after a failure.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use crate::{Step, cargo, run};

mod beside;
pub(crate) mod docs;

use beside::Beside;

/// What makes cargo build with clippy's compiler, as `cargo clippy -- -D warnings` does.
const LINTING: &[(&str, &str)] = &[
    ("RUSTC_WORKSPACE_WRAPPER", "clippy-driver"),
    (
        "CLIPPY_ARGS",
        "-D__CLIPPY_HACKERY__warnings__CLIPPY_HACKERY__",
    ),
];

const FMT: Step = Step {
    name: "fmt",
    arguments: &["fmt", "--all", "--check"],
    environment: &[],
};
const CLIPPY: Step = Step {
    name: "clippy",
    arguments: &[
        "clippy",
        "--workspace",
        "--all-targets",
        "--locked",
        "--",
        "-D",
        "warnings",
    ],
    environment: &[],
};
/// Everything that tests need, the programs too: `crates/cli/tests` has tests of them.
const BUILD: Step = Step {
    name: "build",
    arguments: &[
        "test",
        "--workspace",
        "--locked",
        "--no-run",
        "--all-targets",
    ],
    environment: &[],
};
/// Without nextest; the examples in the documentation have a step of their own.
const TEST: Step = Step {
    name: "test",
    arguments: &[
        "test",
        "--workspace",
        "--locked",
        "--lib",
        "--bins",
        "--tests",
        "--no-fail-fast",
    ],
    environment: &[],
};
const NEXTEST: Step = Step {
    name: "test",
    arguments: &[
        "nextest",
        "run",
        "--workspace",
        "--locked",
        "--profile",
        "ci",
    ],
    environment: &[],
};
const DOCTEST: Step = Step {
    name: "doctest",
    arguments: &["test", "--workspace", "--locked", "--doc"],
    environment: &[],
};
/// The pages too: see [`docs`].
const DOCTEST_AND_PAGES: Step = Step {
    name: "doc",
    environment: LINTING,
    ..DOCTEST
};
const DOC: Step = Step {
    name: "doc",
    arguments: &["doc", "--workspace", "--no-deps", "--locked"],
    environment: &[("RUSTDOCFLAGS", "-D warnings")],
};
const DENY: Step = Step {
    name: "deny",
    arguments: &["deny", "--config", ".deny.toml", "check"],
    environment: &[],
};

/// What was run so far.
struct Log {
    begun: Instant,
    times: Vec<(&'static str, Duration)>,
    skipped: Vec<&'static str>,
}

impl Log {
    fn begin() -> Self {
        Self {
            begun: Instant::now(),
            times: Vec::new(),
            skipped: Vec::new(),
        }
    }

    fn run(&mut self, step: &Step<'static>) -> Result<(), String> {
        let took = run(step).map_err(|why| format!("{} failed: {why}", step.name))?;
        self.times.push((step.name, took));
        Ok(())
    }

    fn end(self, ended: Result<(), String>) -> ExitCode {
        eprintln!();
        for (name, took) in &self.times {
            eprintln!("xtask: {name:<7} ok in {:.1} s", took.as_secs_f64());
        }
        // Less than the sum: some ran beside others.
        let all = self.begun.elapsed().as_secs_f64();
        eprintln!("xtask: {:<7}       {all:.1} s", "all");
        for reason in &self.skipped {
            eprintln!("xtask: SKIPPED {reason}");
        }
        match ended {
            Err(why) => {
                eprintln!("xtask: {why}");
                ExitCode::FAILURE
            }
            Ok(()) => {
                let all = if self.skipped.is_empty() {
                    ""
                } else {
                    ", NOT ALL RAN"
                };
                eprintln!("xtask: all that ran is fine{all}");
                ExitCode::SUCCESS
            }
        }
    }
}

/// Everything that must hold before a change lands.
pub(crate) fn check(skip_tests: bool) -> ExitCode {
    let mut log = Log::begin();
    let ended = steps(&mut log, skip_tests);
    log.end(ended)
}

fn steps(log: &mut Log, skip_tests: bool) -> Result<(), String> {
    log.run(&FMT)?;
    if skip_tests {
        log.skipped.push("test: --skip-tests was given");
        log.run(&CLIPPY)?;
        log.run(&DOC)?;
    } else {
        let mut beside = Beside::of(&[&DOCTEST_AND_PAGES], docs::environment()?);
        let tested = tests(log, LINTING, &[], || beside.start());
        if tested.is_ok() {
            beside.start();
        }
        let documented = beside.end(&mut log.times);
        tested.and(documented)?;
    }
    if installed("deny") {
        log.run(&DENY)
    } else {
        log.skipped
            .push("deny: cargo-deny is not installed (cargo install --locked cargo-deny)");
        Ok(())
    }
}

/// All tests, or those that the arguments name (as nextest or `cargo test` take them).
pub(crate) fn test(arguments: &[&str]) -> ExitCode {
    let mut log = Log::begin();
    let mut ended = tests(&mut log, &[], arguments, || {});
    if ended.is_ok() && arguments.is_empty() {
        ended = log.run(&DOCTEST);
    }
    log.end(ended)
}

/// Builds and runs the tests; calls `building_ended` when cargo builds nothing any more.
fn tests(
    log: &mut Log,
    environment: &'static [(&str, &str)],
    arguments: &[&str],
    building_ended: impl FnOnce(),
) -> Result<(), String> {
    log.run(&Step {
        environment,
        ..BUILD
    })?;
    let step = if installed("nextest") { NEXTEST } else { TEST };
    let step = Step {
        environment,
        ..step
    };
    let started = Instant::now();
    let failed = watch(&step, arguments, building_ended)?;
    if !failed.is_empty() {
        let mut text = format!(
            "{} failed; to run each alone:",
            plural(failed.len(), "test")
        );
        for command in failed {
            text.push_str("\n  ");
            text.push_str(&command);
        }
        return Err(text);
    }
    log.times.push((step.name, started.elapsed()));
    Ok(())
}

/// Runs tests and shows what they print. The commands that run those that failed, each alone.
fn watch(
    step: &Step<'_>,
    arguments: &[&str],
    building_ended: impl FnOnce(),
) -> Result<BTreeSet<String>, String> {
    eprintln!("\nxtask: {}: cargo {}", step.name, step.arguments.join(" "));
    let not_started = |error: std::io::Error| format!("cargo could not be started: {error}");
    let (reader, writer) = std::io::pipe().map_err(not_started)?;
    let mut command = cargo();
    command
        .args(step.arguments)
        .args(arguments)
        .envs(step.environment.iter().copied())
        // No test builds the program by itself.
        .env("VARVE_BIN", target().join("debug/varve"))
        .stdin(Stdio::null())
        .stdout(writer.try_clone().map_err(not_started)?)
        .stderr(writer);
    let mut child = command.spawn().map_err(not_started)?;
    // Its ends of the pipe are the child's alone from here on.
    drop(command);
    let (mut failed, mut binary) = (BTreeSet::new(), String::new());
    let mut building_ended = Some(building_ended);
    for line in BufReader::new(reader).split(b'\n').map_while(Result::ok) {
        let line = String::from_utf8_lossy(&line);
        eprintln!("{line}");
        // The first words of nextest and of `cargo test` once all is built; cargo gives its lock back before.
        if line.trim_start().starts_with("Starting ") || line.trim_start().starts_with("Running ") {
            building_ended.take().into_iter().for_each(|tell| tell());
        }
        failed.extend(alone(&line, &mut binary));
    }
    let status = child.wait().map_err(not_started)?;
    if !status.success() && failed.is_empty() {
        return Err(format!("{} failed: {status}", step.name));
    }
    Ok(failed)
}

/// The command that runs alone what a line says has failed: a line of nextest (`FAIL [  1.2s] varve-broker::all
/// groups::x`) or of `cargo test` (`test groups::x ... FAILED`), whose binary a line before has named.
fn alone(line: &str, binary: &mut String) -> Option<String> {
    let line = line.trim();
    if let Some(rest) = line.strip_prefix("Running ") {
        *binary = of_path(rest);
    }
    if let Some(name) = line
        .strip_prefix("test ")
        .and_then(|rest| rest.strip_suffix(" ... FAILED"))
    {
        // Under nextest these are lines of the test's own output, and nextest names it itself.
        return (!binary.is_empty()).then(|| format!("cargo test {binary} -- --exact {name}"));
    }
    let failed = ["FAIL", "TIMEOUT", "ABORT", "SIGABRT", "SIGSEGV", "SIGKILL"];
    let (word, rest) = line.split_once(" [")?;
    if !failed.contains(&word) {
        return None;
    }
    let mut words = rest.split_once(']')?.1.split_whitespace();
    // A counter of nextest's, as in `( 12/1500)`, may stand before the name.
    let id = words.by_ref().find(|word| word.starts_with("varve"))?;
    let name = words.next()?;
    let target = match id.split_once("::") {
        Some((package, target)) => match target.split_once('/') {
            Some(("bin", name)) => format!("-p {package} --bin {name}"),
            _ => format!("-p {package} --test {target}"),
        },
        None => format!("-p {id} --lib"),
    };
    Some(format!("cargo test {target} -- --exact {name}"))
}

/// What selects the binary that `cargo test` says it runs: `tests/all.rs (target/debug/deps/all-1f2e)`.
fn of_path(running: &str) -> String {
    let source = running.split(" (").next().unwrap_or_default();
    let stem = running
        .split_once(" (")
        .and_then(|(_, path)| path.rsplit('/').next())
        .and_then(|file| file.split('-').next())
        .unwrap_or_default();
    match source {
        "unittests src/lib.rs" => format!("-p {} --lib", stem.replace('_', "-")),
        "unittests src/main.rs" => format!("-p {} --bins", stem.replace('_', "-")),
        _ => format!("--workspace --test {stem}"),
    }
}

/// Format, lints and unit tests of the crates that differ from the commit where this branch left `main`.
pub(crate) fn quick() -> ExitCode {
    let mut log = Log::begin();
    let ended = quick_steps(&mut log);
    log.end(ended)
}

fn quick_steps(log: &mut Log) -> Result<(), String> {
    let crates = changed()?;
    log.run(&FMT)?;
    if crates.is_empty() {
        log.skipped
            .push("clippy, test: no crate differs from main, so there is nothing to look at");
        return Ok(());
    }
    let packages: Vec<&str> = crates.iter().flat_map(|name| ["-p", name]).collect();
    let mut clippy = vec!["clippy", "--locked", "--all-targets"];
    clippy.extend(&packages);
    clippy.extend(["--", "-D", "warnings"]);
    let mut test = vec!["test", "--locked", "--lib", "--bins"];
    test.extend(&packages);
    for (name, arguments) in [("clippy", clippy), ("test", test)] {
        let step = Step {
            name,
            arguments: &arguments,
            environment: &[],
        };
        let took = run(&step).map_err(|why| format!("{name} failed: {why}"))?;
        log.times.push((name, took));
    }
    log.skipped
        .push("suites, documentation and all crates that did not change: cargo xtask check");
    Ok(())
}

/// Packages with a file that differs from the commit where this branch left `main`, or that git does not know yet.
fn changed() -> Result<BTreeSet<String>, String> {
    let git = |arguments: &[&str]| -> Result<String, String> {
        let output = Command::new("git").args(arguments).output();
        let output = output.map_err(|error| format!("git could not be started: {error}"))?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let mut base = String::new();
    for main in ["origin/main", "main"] {
        base = git(&["merge-base", "HEAD", main])?;
        if !base.trim().is_empty() {
            break;
        }
    }
    let base = match base.trim() {
        "" => "HEAD",
        found => found,
    };
    let mut files = git(&["diff", "--name-only", base])?;
    files.push_str(&git(&["ls-files", "--others", "--exclude-standard"])?);
    Ok(files.lines().filter_map(package).collect())
}

/// The package that a file belongs to.
fn package(file: &str) -> Option<String> {
    let (folder, rest) = file.split_once('/')?;
    match folder {
        "crates" => Some(format!("varve-{}", rest.split_once('/')?.0)),
        "tests" => Some("varve-tests".to_owned()),
        "benches" => Some("varve-benches".to_owned()),
        "proto" => Some("varve-proto".to_owned()),
        _ => None,
    }
}

fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../target")),
        PathBuf::from,
    )
}

fn installed(subcommand: &str) -> bool {
    let version = cargo().args([subcommand, "--version"]).output();
    version.is_ok_and(|output| output.status.success())
}

fn plural(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_test_is_told_how_to_run_alone() {
        let mut binary = String::new();
        let mut command = |line: &str| alone(line, &mut binary);
        assert_eq!(command("test groups::x ... FAILED"), None);
        assert_eq!(
            command("     Running tests/all.rs (target/debug/deps/all-1f2e)"),
            None
        );
        assert_eq!(
            command("test groups::x ... FAILED").as_deref(),
            Some("cargo test --workspace --test all -- --exact groups::x")
        );
        assert_eq!(
            command("   Running unittests src/lib.rs (target/debug/deps/varve_metadata_raft-9a)"),
            None
        );
        assert_eq!(
            command("test a::b ... FAILED").as_deref(),
            Some("cargo test -p varve-metadata-raft --lib -- --exact a::b")
        );
        assert_eq!(command("test a::c ... ok"), None);
        for (line, expected) in [
            (
                "        FAIL [   1.234s] ( 12/1500) varve-broker::all groups::x",
                "-p varve-broker --test all -- --exact groups::x",
            ),
            (
                "     TIMEOUT [ 600.001s] varve-tests::cli topics::y",
                "-p varve-tests --test cli -- --exact topics::y",
            ),
            (
                "        FAIL [   0.010s] varve-types size::tests::z",
                "-p varve-types --lib -- --exact size::tests::z",
            ),
            (
                "        FAIL [   0.010s] varve-xtask::bin/varve-xtask kafka::z",
                "-p varve-xtask --bin varve-xtask -- --exact kafka::z",
            ),
        ] {
            assert_eq!(
                command(line).as_deref(),
                Some(&*format!("cargo test {expected}"))
            );
        }
        assert_eq!(command("        PASS [   0.010s] varve-types a"), None);
    }

    #[test]
    fn files_belong_to_packages() {
        assert_eq!(
            package("crates/metadata-raft/src/a.rs").as_deref(),
            Some("varve-metadata-raft")
        );
        assert_eq!(package("tests/cli/main.rs").as_deref(), Some("varve-tests"));
        assert_eq!(package("README.md"), None);
        assert_eq!(package("docs/cli.md"), None);
    }
}
