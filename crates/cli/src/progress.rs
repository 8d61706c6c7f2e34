//! The progress of a long command, on standard error, for a person at a terminal; nothing otherwise.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::failure::stderr_is_terminal;

/// A bar, or nothing.
#[derive(Debug)]
pub struct Progress(Option<ProgressBar>);

impl Progress {
    /// Shows bytes done (of `total`, when known) if standard error is a terminal and `wanted`.
    #[must_use]
    pub fn bytes(total: Option<u64>, wanted: bool) -> Self {
        if !wanted || !stderr_is_terminal() {
            return Self(None);
        }
        let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::stderr_with_hz(5));
        let template = match total {
            Some(_) => "{bytes} of {total_bytes} {bar:30} {bytes_per_sec}, {eta} left {msg}",
            None => "{bytes} {bytes_per_sec} {msg}",
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(500));
        Self(Some(bar))
    }

    /// Adds bytes.
    pub fn add(&self, bytes: u64) {
        if let Some(bar) = &self.0 {
            bar.inc(bytes);
        }
    }

    /// Removes the bar.
    pub fn finish(&self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}
