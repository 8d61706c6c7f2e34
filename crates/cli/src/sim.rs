//! `varve sim`: hands its arguments to the simulator, a program of its own that is built from the sources and not
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
    /// --seed N replays one seed of the simulated cluster and tells what happens in it; all else as in
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
                "the simulator {PROGRAM} could not be started ({error}); it is built from the sources, beside \
                 varve: cargo build --release -p varve-sim"
            ),
        )
    })?;
    // Ended by a signal: as a shell would say it.
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

/// Beside this program, or wherever the system looks.
fn program() -> PathBuf {
    let name = format!("{PROGRAM}{}", std::env::consts::EXE_SUFFIX);
    let beside = std::env::current_exe()
        .ok()
        .and_then(|path| Some(path.parent()?.join(OsStr::new(&name))));
    match beside {
        Some(path) if path.is_file() => path,
        _ => PathBuf::from(name),
    }
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
