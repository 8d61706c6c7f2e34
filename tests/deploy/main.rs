//! What is in `deploy/`: manifests that are checked and run, with real processes, as an orchestrator would run
//! them. What a machine lacks for a test is said on standard error, and the test passes as skipped unless the
//! variable named there forbids that.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on ends"
)]

#[path = "../../crates/tls/tests/support/ca.rs"]
mod ca;
mod compose;
mod files;
mod image;
mod load;
mod manifest;
mod set;
mod stateful;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

/// Far more than anything here takes, with a debug build on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(180);

/// Top of the repository.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("..")
        .canonicalize()
        .unwrap()
}

/// Says it past the capture of the test's output.
pub fn loudly(text: &str) {
    use std::io::Write as _;
    // A closed terminal is no reason to fail.
    let _ = writeln!(std::io::stderr(), "\n{text}");
}

/// A test cannot run here: fails where `variable` is 1, otherwise says so.
pub fn skip(variable: &str, why: &str) {
    let required = std::env::var_os(variable).is_some_and(|v| v == "1");
    assert!(!required, "{variable} is 1, and {why}");
    loudly(&format!("SKIPPED: {why}"));
}

/// A command without the settings of whoever runs the tests.
pub fn clean(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(program);
    for (variable, _) in std::env::vars_os() {
        if variable.to_string_lossy().starts_with("VARVE_") {
            command.env_remove(variable);
        }
    }
    command.env("XDG_CONFIG_HOME", "/nonexistent");
    command
}

/// Runs `tests/python/manifests.py`; `None` after saying that there is no Python for it.
pub fn manifests(args: &[&str]) -> Option<Output> {
    let venv = root().join("tests/python/.venv/bin/python");
    let named = std::env::var_os("VARVE_TEST_PYTHON").map(PathBuf::from);
    let candidates = named.into_iter().chain([venv, PathBuf::from("python3")]);
    let python = candidates.into_iter().find(|python| {
        let mut probe = Command::new(python);
        probe.args(["-c", "import yaml, jsonschema, kubernetes"]);
        probe.output().is_ok_and(|o| o.status.success())
    });
    let Some(python) = python else {
        let why = "no Python with the packages of tests/python/requirements.txt was found; set \
                   VARVE_TEST_PYTHON to one";
        skip("VARVE_TEST_REQUIRE_PYTHON", why);
        return None;
    };
    let mut command = clean(python);
    command
        .arg("-B")
        .arg(root().join("tests/python/manifests.py"));
    Some(command.args(args).output().unwrap())
}

/// Its standard output; a failure ends the test.
pub fn said(output: &Output) -> String {
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(output.status.success(), "{}: {out}\n{err}", output.status);
    out.into_owned()
}
