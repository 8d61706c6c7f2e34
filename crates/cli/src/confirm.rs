//! The question before something is destroyed. Without a terminal nobody can be asked, and nothing happens.

use std::io::{IsTerminal as _, Write as _};

use crate::args::Global;
use crate::failure::{FAILED, Failure};

/// Asks a person at a terminal before `what` ("this deletes ..."); `--yes` answers for scripts.
///
/// # Errors
/// Usage error without a terminal to ask at; a failure without a message after the answer `n`.
pub fn confirm(global: &Global, what: &str) -> Result<(), Failure> {
    if global.yes {
        return Ok(());
    }
    let what = what.trim_end_matches(['.', '?']);
    if !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
        return Err(Failure::usage(format!(
            "{what}; nothing was changed; repeat with --yes to do it"
        )));
    }
    let mut stderr = std::io::stderr().lock();
    let mut letters = what.chars();
    let first = letters.next().map(|first| first.to_ascii_uppercase());
    let question: String = first.into_iter().chain(letters).collect();
    write!(stderr, "{question}. Continue? [y/N] ")?;
    stderr.flush()?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    match answer.trim().to_ascii_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => {
            writeln!(stderr, "cancelled; nothing was changed")?;
            Err(Failure::silent(FAILED))
        }
    }
}
