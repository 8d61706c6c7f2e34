//! `--watch`: a command's output again and again. A terminal is redrawn with the time; elsewhere only changes are
//! printed, so that a log of it stays readable.

use std::future::Future;
use std::io::IsTerminal as _;
use std::time::Duration;

use crate::failure::Failure;
use crate::output;

/// Pause between two looks.
pub const PAUSE: Duration = Duration::from_secs(2);
/// Cursor to the top left corner, and the screen is empty.
const CLEAR: &str = "\x1b[H\x1b[2J\x1b[3J";

/// Calls `look`, which prints, until it says that there is no more to see.
///
/// # Errors
/// Those of `look`, after what it has printed.
pub async fn watch<F>(mut look: impl FnMut() -> F) -> Result<u8, Failure>
where
    F: Future<Output = Result<Option<u8>, Failure>>,
{
    let redraws = std::io::stdout().is_terminal();
    let mut before = None;
    loop {
        output::capture();
        let seen = look().await;
        let now = output::captured();
        show(&now, before.as_ref(), redraws)?;
        before = Some(now);
        if let Some(code) = seen? {
            return Ok(code);
        }
        tokio::time::sleep(PAUSE).await;
    }
}

fn show(now: &[u8], before: Option<&Vec<u8>>, redraws: bool) -> Result<(), Failure> {
    if redraws {
        let time = jiff::Zoned::now().strftime("%H:%M:%S").to_string();
        let every = PAUSE.as_secs();
        let head = format!("{CLEAR}{time}, every {every} s; Ctrl-C ends\n\n");
        output::write_out(head.as_bytes())?;
        output::write_out(now)?;
    } else if before.is_none_or(|before| before != now) {
        output::write_out(now)?;
    }
    output::flush()
}
