//! Histories with transactions, a pipeline and a group: legal ones pass, and whatever is planted is found and named.

#![allow(clippy::unwrap_used, clippy::cast_sign_loss, reason = "tests")]

mod legal;
mod model;
mod planted;

use varve_check::{Checker, Event, Required, Verdict};

fn check(events: Vec<Event>) -> Verdict {
    let mut checker = Checker::new();
    for (line, event) in events.into_iter().enumerate() {
        checker.event(line as u64 + 2, event);
    }
    let required = Required {
        sends_ok: 0,
        ..Required::default()
    };
    checker.verdict(&required)
}
