//! Tests of the tests: each planted bug must be caught by some suite.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::workloads::{Workload, all};
use super::{Effort, Tally, damage, enumerate, faults};
use crate::plants::{self, Plant};

/// Which suite caught a planted bug, and after how many states.
#[derive(Debug, Clone)]
pub struct Caught {
    /// The suite, and the workload if it has one.
    pub by: String,
    /// States visited until then, over all suites.
    pub states: u64,
    /// The first line of what it said.
    pub said: String,
}

/// Plants a bug and runs the suites until one notices.
#[must_use]
pub fn hunt(plant: Plant, effort: Effort) -> (u64, Option<Caught>) {
    let effort = Effort {
        stop_after: 1,
        ..effort
    };
    plants::set(Some(plant));
    let found = catch_unwind(AssertUnwindSafe(|| search(effort)));
    plants::set(None);
    found.unwrap_or_else(|_| {
        let caught = Caught {
            by: "an assertion of the log".into(),
            states: 0,
            said: "a panic".into(),
        };
        (0, Some(caught))
    })
}

type Suite = fn(&dyn Workload, Effort) -> Tally;

fn search(effort: Effort) -> (u64, Option<Caught>) {
    let mut states = 0;
    let mut caught = |tally: &Tally| {
        states += tally.states;
        tally.violations.first().map(|said| Caught {
            by: format!("{} {}", tally.suite, tally.name),
            states,
            said: said
                .lines()
                .next()
                .unwrap_or_default()
                .chars()
                .take(160)
                .collect(),
        })
    };
    let suites: [Suite; 4] = [enumerate::k1, enumerate::k7, faults::k8, faults::k9];
    for suite in suites {
        for workload in all() {
            if let Some(found) = caught(&suite(workload.as_ref(), effort)) {
                return (found.states, Some(found));
            }
        }
    }
    for tally in damage::all(None, effort) {
        if let Some(found) = caught(&tally) {
            return (found.states, Some(found));
        }
    }
    (states, None)
}
