//! `varve sim`: hands its arguments to the simulator, a program of its own that is built from the source tree and not
//! shipped with a node. Never simulates anything itself.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::process::Command;

use clap::Args;

use crate::failure::{self, Failure};

const PROGRAM: &str = "varve-sim";

/// Flags of `sim`.
#[derive(Debug, Args)]
#[command(override_usage = "varve sim --seed N\n       varve sim [cluster|torture] [OPTIONS]")]
pub struct SimArgs {
    /// --seed N replays one seed of the simulated cluster and prints what happens; all other arguments are those of
    /// `varve-sim cluster --help`
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "ARGUMENT"
    )]
    pub arguments: Vec<OsString>,
}

/// Runs the simulator.
///
/// # Errors
/// When it cannot be found or started.
pub fn run(args: &SimArgs) -> Result<u8, Failure> {
    let status = command(&args.arguments).status().map_err(|error| {
        Failure::new(
            failure::NOT_FOUND,
            format!(
                "cannot start the simulator {PROGRAM} ({error}); it is a program of its own: build it with `cargo \
                 build --release -p varve-sim` in the source tree, and put target/release/{PROGRAM} beside varve"
            ),
        )
    })?;
    // Ended by a signal: the code that a shell would report.
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(code.unwrap_or(failure::INTERRUPTED))
}

/// Seeds are those of the cluster unless something else is named.
fn command(arguments: &[OsString]) -> Command {
    let mut command = Command::new(program());
    let named = arguments
        .first()
        .is_some_and(|a| a != "-" && !a.as_encoded_bytes().starts_with(b"-"));
    if !named {
        command.arg("cluster");
    }
    command.args(arguments);
    command
}

/// The simulator in the directory of this program, if it is there.
fn beside() -> Option<PathBuf> {
    let name = format!("{PROGRAM}{}", std::env::consts::EXE_SUFFIX);
    let path = std::env::current_exe().ok()?;
    let path = path.parent()?.join(OsStr::new(&name));
    path.is_file().then_some(path)
}

/// Whether the simulator is beside this program; the help shows the command only then.
#[must_use]
pub fn is_beside() -> bool {
    beside().is_some()
}

/// Beside this program, or in the search path.
fn program() -> PathBuf {
    beside().unwrap_or_else(|| PathBuf::from(PROGRAM))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_of_the_cluster_unless_said_otherwise() {
        let of = |arguments: &[&str]| -> Vec<String> {
            let arguments: Vec<OsString> = arguments.iter().map(OsString::from).collect();
            let command = command(&arguments);
            let given = command.get_args().map(|a| a.to_string_lossy().into_owned());
            given.collect()
        };
        assert_eq!(of(&["--seed", "7"]), ["cluster", "--seed", "7"]);
        assert_eq!(of(&["torture", "--seed", "7"]), ["torture", "--seed", "7"]);
        assert_eq!(of(&[]), ["cluster"]);
    }
}
