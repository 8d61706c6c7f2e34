//! Clients that write down what they saw: the histories for the checker.
//!
//! Producers with and without idempotence send records with unique numbers, consumers read from different nodes
//! and go elsewhere now and then, somebody asks where logs end, offsets are committed and read. All of them go
//! on whatever breaks, until they are told to stop; then everything is read once more. A call is written down
//! before it is made and its answer after it came, so that the order of the lines is evidence.
//!
//! Nothing is retried here that the client library does not retry: what it says about a send is what a user
//! would have been told.

mod config;
mod consumers;
mod finish;
mod payload;
mod producers;
mod random;
mod recorder;

pub use config::{Config, create_topic};
pub use finish::finish;
pub use recorder::{Progress, Recorder};

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;

/// Beyond the delivery timeout, workers have this long to stop.
const STOP_WITHIN: Duration = Duration::from_secs(15);

/// What the workers of one run share.
#[derive(Debug)]
struct Shared {
    config: Config,
    recorder: Arc<Recorder>,
    next_session: AtomicU32,
}

impl Shared {
    fn session(&self) -> u32 {
        self.next_session.fetch_add(1, Ordering::Relaxed)
    }
}

/// A running workload.
#[derive(Debug)]
pub struct Workload {
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
    recorder: Arc<Recorder>,
    patience: Duration,
}

impl Workload {
    /// Starts all workers on the current runtime.
    #[must_use]
    pub fn start(config: Config, recorder: Arc<Recorder>) -> Self {
        let (stop, stopped) = watch::channel(false);
        let (patience, notes) = (config.delivery_timeout + STOP_WITHIN, recorder.clone());
        let mut tasks = JoinSet::new();
        let shared = Arc::new(Shared {
            config,
            recorder,
            next_session: AtomicU32::new(1),
        });
        producers::start(&shared, &stopped, &mut tasks);
        consumers::start(&shared, &stopped, &mut tasks);
        Self {
            stop,
            tasks,
            recorder: notes,
            patience,
        }
    }

    /// Stops all workers. Sends that are under way have their delivery timeout to be answered.
    pub async fn stop(mut self) {
        let _ = self.stop.send(true);
        let all = async {
            while let Some(ended) = self.tasks.join_next().await {
                if let Err(error) = ended {
                    tracing::error!(%error, "a worker ended early");
                }
            }
        };
        // A call that never returns must not keep the run from its end; what it would have said is unknown.
        if tokio::time::timeout(self.patience, all).await.is_err() {
            let left = self.tasks.len();
            self.recorder
                .note(format!("{left} workers did not stop in time"));
            self.tasks.shutdown().await;
        }
    }
}

/// Resolves when the workers are to stop.
async fn told(stopped: &mut watch::Receiver<bool>) {
    // The sender gone means the same.
    let _ = stopped.wait_for(|stop| *stop).await;
}
