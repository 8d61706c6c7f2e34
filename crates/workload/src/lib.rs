//! Clients that write down what they saw: the histories for the checker.
//!
//! Producers with and without idempotence send records with unique numbers, consumers read from different nodes
//! and go elsewhere now and then, somebody asks where logs end, offsets are committed and read. A [`Kind`] of
//! workload adds members of groups, transactions, or a pipeline of both. All of them go on whatever breaks, until
//! they are told to stop; then groups come to their end, and everything is read once more. A call is written down
//! before it is made and its answer after it came, so that the order of the lines is evidence.
//!
//! Nothing is retried here that the client library does not retry: what it says about a send is what a user
//! would have been told. Only the end of a transaction is called for again where the library says so.

mod config;
mod consumers;
mod drain;
mod finish;
mod groups;
mod kind;
mod members;
mod mixed;
mod payload;
mod pipeline;
mod producers;
mod random;
mod recorder;
mod rewind;
mod txns;

pub use config::{Config, create_topic};
pub use finish::finish;
pub use kind::{Kind, parse_kinds};
pub use recorder::{Progress, Recorder};

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use varve_client::ClientError;

use crate::groups::Group;

/// Beyond the delivery timeout, workers have this long to stop.
const STOP_WITHIN: Duration = Duration::from_secs(15);

/// What the workers of one run share.
#[derive(Debug)]
struct Shared {
    config: Config,
    recorder: Arc<Recorder>,
    next_session: AtomicU32,
    next_member: AtomicU32,
    /// Nothing more is sent, and groups are to come to their end: no member leaves any more.
    draining: AtomicBool,
}

impl Shared {
    fn session(&self) -> u32 {
        self.next_session.fetch_add(1, Ordering::Relaxed)
    }

    fn member(&self) -> u32 {
        self.next_member.fetch_add(1, Ordering::Relaxed)
    }

    fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }
}

/// Workers that are told to stop together.
#[derive(Debug)]
struct Crew {
    stop: watch::Sender<bool>,
    stopped: watch::Receiver<bool>,
    tasks: JoinSet<()>,
}

impl Crew {
    fn new() -> Self {
        let (stop, stopped) = watch::channel(false);
        Self {
            stop,
            stopped,
            tasks: JoinSet::new(),
        }
    }

    /// Stops all of them; what they are at has its time to be answered.
    async fn stop(mut self, shared: &Shared) {
        let _ = self.stop.send(true);
        let all = async {
            while let Some(ended) = self.tasks.join_next().await {
                if let Err(error) = ended {
                    tracing::error!(%error, "a worker ended early");
                }
            }
        };
        // A call that never returns must not keep the run from its end; what it would have said is unknown.
        let patience = shared.config.delivery_timeout * 2 + STOP_WITHIN;
        if tokio::time::timeout(patience, all).await.is_err() {
            let left = self.tasks.len();
            shared
                .recorder
                .note(format!("{left} workers did not stop in time"));
            self.tasks.shutdown().await;
        }
    }
}

/// A running workload.
#[derive(Debug)]
pub struct Workload {
    shared: Arc<Shared>,
    /// Those who send without transactions.
    sources: Crew,
    /// All others.
    others: Crew,
    groups: Vec<Arc<Group>>,
}

impl Workload {
    /// Starts all workers on the current runtime.
    ///
    /// # Errors
    /// When the name of the topic is too long to name groups by it.
    pub fn start(config: Config, recorder: Arc<Recorder>) -> Result<Self, ClientError> {
        let (mut sources, mut others) = (Crew::new(), Crew::new());
        let shared = Arc::new(Shared {
            config,
            recorder,
            next_session: AtomicU32::new(1),
            next_member: AtomicU32::new(1),
            draining: AtomicBool::new(false),
        });
        let group = |number, name: &str| {
            let name = config::named(&format!("{}-{name}", shared.config.topic))?;
            Ok::<_, ClientError>(Arc::new(Group::new(name, number)))
        };
        producers::start(&shared, &sources.stopped, &mut sources.tasks);
        consumers::start(&shared, &others.stopped, &mut others.tasks);
        let (stopped, tasks) = (&others.stopped, &mut others.tasks);
        let mut groups = Vec::new();
        match shared.config.kind {
            Kind::Queue => {}
            Kind::QueueSubscribe => {
                let (automatic, manual) = (group(0, "auto")?, group(1, "own")?);
                members::start(&shared, [&automatic, &manual], stopped, tasks);
                let asked = vec![manual.clone()];
                tasks.spawn(members::ask(shared.clone(), asked, stopped.clone()));
                groups = vec![automatic, manual];
            }
            Kind::Txn => mixed::start(&shared, stopped, tasks),
            Kind::Abort => rewind::start(&shared, stopped, tasks)?,
            Kind::Ctp => {
                let pipe = group(0, "pipe")?;
                pipeline::start(&shared, &pipe, stopped, tasks);
                let asked = vec![pipe.clone()];
                tasks.spawn(members::ask(shared.clone(), asked, stopped.clone()));
                groups = vec![pipe];
            }
        }
        Ok(Self {
            shared,
            sources,
            others,
            groups,
        })
    }

    /// Stops all workers, when nothing is broken any more: sends that are under way have their delivery timeout to
    /// be answered, and groups two minutes to come to the end of what was sent. What did not come to its end.
    pub async fn stop(self) -> Vec<String> {
        let mut wrong = Vec::new();
        self.sources.stop(&self.shared).await;
        self.shared.draining.store(true, Ordering::Relaxed);
        let settled = match self.groups.is_empty() {
            true => Ok(Vec::new()),
            false => drain::settle(&self.shared, &self.groups).await,
        };
        self.others.stop(&self.shared).await;
        match settled {
            Ok(ends) => drain::tell(&self.shared, &self.groups, &ends),
            Err(behind) => {
                self.shared.recorder.note(behind.clone());
                wrong.push(behind);
            }
        }
        wrong
    }
}

/// Resolves when the workers are to stop.
async fn told(stopped: &mut watch::Receiver<bool>) {
    // The sender gone means the same.
    let _ = stopped.wait_for(|stop| *stop).await;
}
