//! What the demo says while it runs, on standard error: a line for each thing that happens, and on a terminal one
//! line below them that shows how far it is. Nothing with `-q`.

use std::io::Write as _;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::failure::stderr_is_terminal;

/// See the module.
#[derive(Debug)]
pub(super) struct Talk {
    quiet: bool,
    line: Option<ProgressBar>,
}

impl Talk {
    pub fn new(quiet: bool) -> Self {
        let line = (!quiet && stderr_is_terminal()).then(|| {
            let line = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(10));
            if let Ok(style) = ProgressStyle::with_template("{wide_msg}") {
                line.set_style(style);
            }
            line.enable_steady_tick(Duration::from_millis(200));
            line
        });
        Self { quiet, line }
    }

    /// Something has happened.
    pub fn say(&self, text: &str) {
        let print = || {
            // A terminal that is gone is no reason to stop.
            let _ = writeln!(std::io::stderr(), "{text}");
        };
        match &self.line {
            _ if self.quiet => {}
            Some(line) => line.suspend(print),
            None => print(),
        }
    }

    /// How far it is.
    pub fn progress(&self, text: String) {
        if let Some(line) = &self.line {
            line.set_message(text);
        }
    }

    /// Removes the line of progress.
    pub fn finish(&self) {
        if let Some(line) = &self.line {
            line.finish_and_clear();
        }
    }
}

impl Drop for Talk {
    fn drop(&mut self) {
        self.finish();
    }
}

/// A number with commas between thousands.
pub(super) fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A count with its noun, singular or plural.
pub(super) fn count(number: usize, one: &str, many: &str) -> String {
    let noun = if number == 1 { one } else { many };
    format!("{} {noun}", grouped(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_and_nouns_agree() {
        for (number, text) in [
            (0, "0"),
            (999, "999"),
            (1_000, "1,000"),
            (1_234_567, "1,234,567"),
        ] {
            assert_eq!(grouped(number), text);
        }
        assert_eq!(count(1, "record", "records"), "1 record");
        assert_eq!(count(2_000, "record", "records"), "2,000 records");
    }
}
