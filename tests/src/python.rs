//! The Python whose packages some suites need, where there is one.

use std::path::{Path, PathBuf};
use std::process::Command;

/// What is said where there is none.
pub const MISSING: &str = "no Python with the packages of tests/python/requirements.txt was found; set \
                           VARVE_TEST_PYTHON to one";

/// Where the scripts are.
#[must_use]
pub fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("python")
}

/// A Python that has these modules: the one that `VARVE_TEST_PYTHON` names, that of the scripts, or the machine's.
#[must_use]
pub fn python(modules: &str) -> Option<PathBuf> {
    let own = scripts().join(".venv/bin/python");
    let named = std::env::var_os("VARVE_TEST_PYTHON").map(PathBuf::from);
    let mut candidates = named.into_iter().chain([own, PathBuf::from("python3")]);
    candidates.find(|python| {
        let mut probe = Command::new(python);
        // Not from where tests run: there any directory passes for a module of its name, such as that of the Kafka
        // tests.
        probe.current_dir(std::env::temp_dir());
        probe.args(["-c", &format!("import {modules}")]);
        probe.output().is_ok_and(|o| o.status.success())
    })
}

/// Says loudly that a test does not run for want of a Python.
///
/// # Panics
/// When `VARVE_TEST_REQUIRE_PYTHON=1` says that there must be one.
pub fn skip(what: &str) {
    let required = std::env::var_os("VARVE_TEST_REQUIRE_PYTHON").is_some_and(|v| v == "1");
    assert!(!required, "{what}: {MISSING}");
    crate::chaos::say(&format!("SKIPPED: {what}: {MISSING}"));
}
