//! `cargo xtask long upgrade [REVISION]`: builds the program of an earlier revision in a working tree of its own
//! below `target/`, then runs the suite of two versions with it. Never touches the tree that it is run from.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// Runs the suite against that revision; `None`: the newest tag.
pub fn run(revision: Option<&str>) -> ExitCode {
    match all(revision) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(why) => {
            eprintln!("xtask: upgrade: {why}");
            ExitCode::FAILURE
        }
    }
}

fn all(revision: Option<&str>) -> Result<bool, String> {
    let revision = match revision {
        Some(revision) => revision.to_owned(),
        None => git(&["describe", "--tags", "--abbrev=0"])
            .map_err(|_| "there is no tag yet: name the revision before".to_owned())?,
    };
    let commit = git(&["rev-parse", "--verify", &format!("{revision}^{{commit}}")])?;
    let program = build(&commit)?;
    let status = crate::cargo()
        .args([
            "test",
            "--package",
            "varve-tests",
            "--test",
            "upgrade",
            "--",
            "--nocapture",
        ])
        .env("VARVE_TEST_PREVIOUS", &program)
        .status()
        .map_err(|error| format!("cargo could not be started: {error}"))?;
    Ok(status.success())
}

fn build(commit: &str) -> Result<PathBuf, String> {
    let here = std::env::current_dir().map_err(|error| error.to_string())?;
    let tree = here.join("target/previous").join(commit);
    if !tree.join("Cargo.toml").exists() {
        let tree = tree.to_string_lossy();
        git(&["worktree", "prune"])?;
        git(&["worktree", "add", "--detach", &tree, commit])?;
    }
    eprintln!("xtask: upgrade: building {commit}");
    let status = crate::cargo()
        .args([
            "build",
            "--locked",
            "--package",
            "varve-cli",
            "--bin",
            "varve",
        ])
        .arg("--target-dir")
        .arg(tree.join("target"))
        .current_dir(&tree)
        .status()
        .map_err(|error| format!("cargo could not be started: {error}"))?;
    let program = tree.join("target/debug/varve");
    match status.success() && Path::new(&program).exists() {
        true => Ok(program),
        false => Err(format!("{commit} could not be built")),
    }
}

fn git(arguments: &[&str]) -> Result<String, String> {
    let output = Command::new("git")
        .args(arguments)
        .output()
        .map_err(|error| format!("git could not be started: {error}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("git {}: {}", arguments.join(" "), said.trim()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
