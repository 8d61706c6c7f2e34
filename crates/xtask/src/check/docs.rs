//! The documentation from the libraries that were built for the tests. `cargo test --doc` calls `rustdoc` with them,
//! one library after the other, to run the examples; this program stands in as that `rustdoc` and makes the pages from
//! the same arguments first. `cargo doc` would check every dependency again for them.
//!
//! Invariant: a warning about the pages fails the step, as does an example.

use std::ffi::{OsStr, OsString};
use std::process::{Command, ExitCode};

/// Set, this program is called as `rustdoc`; the value is the real one.
const REAL: &str = "VARVE_XTASK_RUSTDOC";

/// What makes cargo call this program as `rustdoc`.
///
/// # Errors
/// When this program does not know its own path.
pub(super) fn environment() -> Result<Vec<(OsString, OsString)>, String> {
    let this = std::env::current_exe();
    let this = this.map_err(|error| format!("xtask does not know its own path: {error}"))?;
    let real = std::env::var_os("RUSTDOC").unwrap_or_else(|| OsString::from("rustdoc"));
    Ok(vec![
        (OsString::from("RUSTDOC"), this.into_os_string()),
        (OsString::from(REAL), real),
    ])
}

/// Does what it was called for as `rustdoc`; `None`: it was called as itself.
pub(crate) fn as_rustdoc() -> Option<ExitCode> {
    let real = std::env::var_os(REAL)?;
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    let mut calls = vec![arguments.clone()];
    if let Some(pages) = pages(&arguments) {
        calls.insert(0, pages);
    }
    for call in calls {
        let status = Command::new(&real).args(call).env_remove(REAL).status();
        match status {
            Ok(status) if status.success() => {}
            Ok(status) => {
                let code = status.code().and_then(|code| u8::try_from(code).ok());
                return Some(ExitCode::from(code.unwrap_or(1)));
            }
            Err(error) => {
                eprintln!("error: {} could not be started: {error}", real.display());
                return Some(ExitCode::FAILURE);
            }
        }
    }
    Some(ExitCode::SUCCESS)
}

/// The arguments that make the pages of what these test; `None`: they test nothing.
fn pages(arguments: &[OsString]) -> Option<Vec<OsString>> {
    let mut pages = Vec::with_capacity(arguments.len());
    let (mut tests, mut given) = (false, arguments.iter());
    while let Some(argument) = given.next() {
        match argument.to_str() {
            Some("--test") => tests = true,
            Some("--test-run-directory" | "--test-args" | "--test-runtool") => drop(given.next()),
            _ => pages.push(argument.clone()),
        }
    }
    let out = super::target().join("doc").into_os_string();
    let more = ["-D", "warnings", "--out-dir"].map(OsStr::new);
    pages.extend(more.map(OsStr::to_owned));
    pages.push(out);
    tests.then_some(pages)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_come_from_the_arguments_of_tests() {
        let given = |words: &[&str]| words.iter().map(OsString::from).collect::<Vec<_>>();
        let tests = given(&["--test", "a/lib.rs", "--test-run-directory", "a", "-L", "d"]);
        let pages = pages(&tests).unwrap();
        assert_eq!(
            pages[..6],
            given(&["a/lib.rs", "-L", "d", "-D", "warnings", "--out-dir"])
        );
        assert_eq!(pages.len(), 7);
        assert_eq!(super::pages(&given(&["--version"])), None);
    }
}
