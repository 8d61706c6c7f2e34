//! Steps that run one after the other beside the tests, at the lowest priority, so that the tests do not wait for
//! them.
//!
//! Invariants: what a step prints is shown in one piece, when the step has ended; `end` returns after all of them.

use std::ffi::OsString;
use std::process::{Command, Output, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::Step;

/// A step that ran, and what it said.
type Ran = (&'static str, Duration, std::io::Result<Output>);

/// Steps that run beside others once they are started.
pub(super) struct Beside {
    steps: Vec<&'static Step<'static>>,
    environment: Vec<(OsString, OsString)>,
    thread: Option<JoinHandle<Vec<Ran>>>,
}

impl Beside {
    /// Steps, and what is in the environment of all of them.
    pub(super) fn of(
        steps: &[&'static Step<'static>],
        environment: Vec<(OsString, OsString)>,
    ) -> Self {
        Self {
            steps: steps.to_vec(),
            environment,
            thread: None,
        }
    }

    /// Begins with the first step, unless it has begun. Cargo must not build anything else meanwhile: one would wait
    /// for the other.
    pub(super) fn start(&mut self) {
        if self.thread.is_some() {
            return;
        }
        let (steps, environment) = (self.steps.clone(), self.environment.clone());
        let ran = move |step| ran(step, &environment);
        self.thread = Some(std::thread::spawn(move || {
            steps.into_iter().map(ran).collect()
        }));
    }

    /// Waits for all steps, if they were started, and shows what they said.
    ///
    /// # Errors
    /// The first step that failed.
    pub(super) fn end(mut self, times: &mut Vec<(&'static str, Duration)>) -> Result<(), String> {
        let all = self.thread.take().map(JoinHandle::join);
        let all = all.and_then(Result::ok).unwrap_or_default();
        let mut ended = Ok(());
        for (name, took, output) in all {
            let why = match output {
                Err(error) => Some(format!("cargo could not be started: {error}")),
                Ok(output) => {
                    eprintln!("\nxtask: {name}, which ran beside the tests:");
                    eprint!("{}", String::from_utf8_lossy(&output.stdout));
                    eprint!("{}", String::from_utf8_lossy(&output.stderr));
                    (!output.status.success()).then(|| output.status.to_string())
                }
            };
            match why {
                None => times.push((name, took)),
                Some(why) => ended = ended.and(Err(format!("{name} failed: {why}"))),
            }
        }
        ended
    }
}

fn ran(step: &'static Step<'static>, environment: &[(OsString, OsString)]) -> Ran {
    let started = Instant::now();
    let all = environment.iter().map(|(name, value)| (name, value));
    let output = command(step).envs(all).output();
    (step.name, started.elapsed(), output)
}

fn command(step: &Step<'_>) -> Command {
    let cargo = crate::cargo();
    let mut command = if cfg!(unix) {
        let mut nice = Command::new("nice");
        nice.args(["-n", "19"]).arg(cargo.get_program());
        nice
    } else {
        cargo
    };
    command
        .args(step.arguments)
        .envs(step.environment.iter().copied())
        .stdin(Stdio::null());
    command
}
