//! SIGINT and SIGTERM: the first ends a command cleanly, the second ends it at once with exit code 130,
//! whatever it is waiting for.

use std::io::Write as _;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use crate::failure::INTERRUPTED;

/// The interrupts of one command, from [`Interrupts::listen`] on.
#[derive(Debug, Clone)]
pub struct Interrupts {
    first: watch::Receiver<bool>,
}

impl Interrupts {
    /// Begins to listen; from here on a signal alone does not end the process. `abort` is printed at the second
    /// one. Where signals are not available, [`Interrupts::first`] never resolves.
    #[must_use]
    pub fn listen(abort: &'static str) -> Self {
        let (tell, first) = watch::channel(false);
        if let (Ok(interrupt), Ok(terminate)) = (
            signal(SignalKind::interrupt()),
            signal(SignalKind::terminate()),
        ) {
            tokio::spawn(count(interrupt, terminate, tell, abort));
        }
        Self { first }
    }

    /// Resolves when the first signal has come.
    pub async fn first(mut self) {
        if self.first.wait_for(|come| *come).await.is_err() {
            std::future::pending().await
        }
    }
}

async fn count(
    mut interrupt: Signal,
    mut terminate: Signal,
    tell: watch::Sender<bool>,
    abort: &'static str,
) {
    let mut next = async || {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    };
    next().await;
    let _ = tell.send(true);
    next().await;
    // The command may hang in a write that nobody reads: nothing but an exit ends that.
    let _ = writeln!(std::io::stderr(), "error: {abort}");
    std::process::exit(i32::from(INTERRUPTED));
}

/// SIGINT, SIGTERM and SIGHUP, for a command that cleans up after child processes: a terminal that is closed takes them
/// with it. What a second signal means is up to the command.
#[derive(Debug)]
pub struct Stop([Signal; 3]);

impl Stop {
    /// Begins to listen.
    ///
    /// # Errors
    /// The system's.
    pub fn listen() -> std::io::Result<Self> {
        Ok(Self([
            signal(SignalKind::interrupt())?,
            signal(SignalKind::terminate())?,
            signal(SignalKind::hangup())?,
        ]))
    }

    /// Resolves when the next of them comes.
    pub async fn come(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}
