//! `cargo xtask long fuzz`: builds the targets of `tests/fuzz` once, runs each for a while on its committed corpus
//! and prints a table. What is found is left in `tests/fuzz/artifacts`; inputs that reached new code stay in
//! `tests/fuzz/target`, so that the next run goes on from there. Never writes to the committed corpus.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

const HOME: &str = "tests/fuzz";
/// Memory of one target, in MiB: the sanitizer's own included.
const MEMORY_MIB: &str = "2048";
/// Longest run of one input, in seconds.
const INPUT_SECONDS: &str = "10";

struct Outcome {
    target: String,
    /// What libFuzzer counts, as it prints it.
    runs: String,
    coverage: String,
    failed: bool,
}

/// Runs all targets, or those that `VARVE_FUZZ_TARGETS` names.
pub fn run() -> ExitCode {
    match all() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(why) => {
            eprintln!("xtask: fuzz: {why}");
            ExitCode::FAILURE
        }
    }
}

fn all() -> Result<bool, String> {
    let seconds = std::env::var("VARVE_FUZZ_SECONDS").unwrap_or_else(|_| "300".to_owned());
    let targets = targets()?;
    build()?;
    let mut outcomes = Vec::new();
    for target in targets {
        eprintln!("xtask: fuzz: {target} for {seconds} s");
        outcomes.push(one(&target, &seconds)?);
    }
    println!("| target | runs | edges covered | result |");
    println!("| --- | ---: | ---: | --- |");
    for o in &outcomes {
        let result = if o.failed { "FAILED" } else { "ok" };
        println!("| {} | {} | {} | {result} |", o.target, o.runs, o.coverage);
    }
    Ok(outcomes.iter().all(|o| !o.failed))
}

fn targets() -> Result<Vec<String>, String> {
    if let Ok(named) = std::env::var("VARVE_FUZZ_TARGETS") {
        return Ok(named.split([',', ' ']).map(str::to_owned).collect());
    }
    let listing = std::fs::read_dir(Path::new(HOME).join("fuzz_targets"))
        .map_err(|e| format!("cannot list the targets, run this from the top of the tree: {e}"))?;
    let mut names: Vec<String> = listing
        .filter_map(|entry| Some(entry.ok()?.path().file_stem()?.to_str()?.to_owned()))
        .collect();
    names.sort();
    Ok(names)
}

/// A toolchain other than the one that runs this needs a clean environment.
fn nightly() -> Command {
    let mut cargo = Command::new("cargo");
    cargo.arg("+nightly");
    for name in ["CARGO", "RUSTC", "RUSTDOC", "RUSTUP_TOOLCHAIN"] {
        cargo.env_remove(name);
    }
    cargo
}

fn build() -> Result<(), String> {
    let status = nightly()
        .args(["fuzz", "build", "--fuzz-dir", HOME])
        .env("RUSTFLAGS", "--cfg tokio_unstable")
        .status()
        .map_err(|e| format!("cargo could not be started: {e}"))?;
    if status.success() {
        return Ok(());
    }
    Err(
        "the targets were not built. Needed: rustup toolchain install nightly, and \
         cargo install --locked cargo-fuzz"
            .to_owned(),
    )
}

/// The built binary of a target, below a folder named after this machine.
fn binary(target: &str) -> Result<PathBuf, String> {
    let built = Path::new(HOME).join("target");
    let folders = std::fs::read_dir(&built).map_err(|e| format!("{}: {e}", built.display()))?;
    folders
        .filter_map(|entry| Some(entry.ok()?.path().join("release").join(target)))
        .find(|path| path.is_file())
        .ok_or_else(|| format!("{target} was not built"))
}

fn one(target: &str, seconds: &str) -> Result<Outcome, String> {
    let grown = Path::new(HOME).join("target/corpus").join(target);
    let artifacts = Path::new(HOME).join("artifacts").join(target);
    for folder in [&grown, &artifacts] {
        std::fs::create_dir_all(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    }
    let output = Command::new(binary(target)?)
        .arg(&grown)
        .arg(Path::new(HOME).join("corpus").join(target))
        .arg(format!("-max_total_time={seconds}"))
        .arg(format!("-rss_limit_mb={MEMORY_MIB}"))
        .arg(format!("-timeout={INPUT_SECONDS}"))
        .arg(format!("-artifact_prefix={}/", artifacts.display()))
        .stderr(Stdio::piped())
        .output()
        .map_err(|e| format!("{target} could not be started: {e}"))?;
    let text = String::from_utf8_lossy(&output.stderr);
    let failed = !output.status.success();
    if failed {
        let from = text.lines().count().saturating_sub(60);
        let end: Vec<&str> = text.lines().skip(from).collect();
        eprintln!(
            "{}\nxtask: fuzz: {target} failed; the input is in {}",
            end.join("\n"),
            artifacts.display()
        );
    }
    let (runs, coverage) = counts(&text);
    Ok(Outcome {
        target: target.to_owned(),
        runs,
        coverage,
        failed,
    })
}

/// Runs and covered edges of the last line that has them: `#4096 REDUCE cov: 300 ft: ...`.
fn counts(text: &str) -> (String, String) {
    let last = text
        .lines()
        .rfind(|l| l.starts_with('#') && l.contains(" cov: "));
    let mut words = last.unwrap_or_default().split_whitespace();
    let runs = words
        .next()
        .unwrap_or("#?")
        .trim_start_matches('#')
        .to_owned();
    let coverage = words.skip_while(|w| *w != "cov:").nth(1).unwrap_or("?");
    (runs, coverage.to_owned())
}

#[cfg(test)]
mod tests {
    use super::counts;

    #[test]
    fn counts_are_those_of_the_last_line_with_any() {
        let text = "INFO: seed\n#2\tINITED cov: 10 ft: 3\n#51031\tDONE   cov: 1906 ft: 6202 corp: 5/1Kb\nDone\n";
        assert_eq!(counts(text), ("51031".to_owned(), "1906".to_owned()));
        assert_eq!(counts("nothing"), ("?".to_owned(), "?".to_owned()));
    }
}
