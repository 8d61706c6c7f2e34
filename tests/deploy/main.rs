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

use varve_tests::python::{self, python, scripts};

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
    let Some(python) = python("yaml, jsonschema, kubernetes") else {
        python::skip("manifests.py");
        return None;
    };
    let mut command = clean(python);
    command.arg("-B").arg(scripts().join("manifests.py"));
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
