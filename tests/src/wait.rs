//! Waiting for a condition with a deadline that is generous because it is only reached by a failure.

use std::time::{Duration, Instant};

/// Polls until `condition` gives a value.
///
/// # Panics
/// When it gave none within `deadline`; the message says what was waited for.
pub fn until<T>(what: &str, deadline: Duration, mut condition: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(
            started.elapsed() < deadline,
            "waited {deadline:?} in vain for {what}"
        );
        std::thread::sleep(Duration::from_millis(10));
    }
}
