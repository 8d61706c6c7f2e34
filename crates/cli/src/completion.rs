//! Shell completions and the version.

use std::io::Write as _;

use clap::CommandFactory as _;

use crate::args::Cli;
use crate::failure::Failure;

/// Version of this program.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Prints the completion script of a shell.
///
/// # Errors
/// When standard output cannot be written.
pub fn print(shell: clap_complete::Shell) -> Result<u8, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "varve", &mut script);
    std::io::stdout().lock().write_all(&script)?;
    Ok(0)
}

/// Prints the version.
///
/// # Errors
/// When standard output cannot be written.
pub fn version(json: bool) -> Result<u8, Failure> {
    let revision = option_env!("VARVE_REVISION").unwrap_or("unknown");
    let mut stdout = std::io::stdout().lock();
    if json {
        let version = serde_json::json!({"version": VERSION, "revision": revision});
        writeln!(stdout, "{version}")?;
    } else {
        writeln!(stdout, "varve {VERSION} ({revision})")?;
    }
    Ok(0)
}
