//! How a broker becomes one node of several: its tasks are started, it registers, its partitions are opened;
//! and what it does for its peers meanwhile and afterwards.
//!
//! Invariant: peers are answered from the first moment, if only with a refusal: a cluster whose nodes waited
//! for each other to be ready would never start.

use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot, watch};
use varve_broker_api::Error;
use varve_metadata::log::Later;
use varve_metadata::{ControllerConfig, Heartbeat, Output};
use varve_types::{BrokerEpoch, ErrorKind, NodeId};
use varve_vfs::Clock;

use super::isr::{self, Wish};
use super::links::Links;
use super::member::Member;
use super::reconcile::Reconciler;
use super::repair::Repairs;
use super::watermarks::Watermarks;
use super::{Cluster, InCluster, Rim, controller, followers};
use crate::config::BrokerConfig;
use crate::metrics::Metrics;
use crate::opener::Opener;
use crate::peer::{Answers, MarkerOrder, MarkerOutcome, PeerService, Registration, Tell};
use crate::registry::{Changes, Registry};
use crate::start::StartError;
use crate::transactions::Transactions;

/// What a broker does for its peers, from before it is started until it is stopped.
#[derive(Clone, Default)]
pub struct PeerHandle(
    Arc<Mutex<Option<Arc<Registry>>>>,
    Arc<Mutex<Option<Weak<Transactions>>>>,
);

impl std::fmt::Debug for PeerHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PeerHandle").finish_non_exhaustive()
    }
}

impl PeerHandle {
    fn registry(&self) -> Option<Arc<Registry>> {
        self.0.lock().clone()
    }

    fn transactions(&self) -> Option<Arc<Transactions>> {
        self.1.lock().as_ref().and_then(Weak::upgrade)
    }

    /// Transactions are served from now on.
    pub(crate) fn serve_transactions(&self, transactions: &Arc<Transactions>) {
        *self.1.lock() = Some(Arc::downgrade(transactions));
    }
}

/// The answers of a node that does not serve yet: none.
struct NoAnswers;

impl Answers for NoAnswers {
    fn next(&mut self) -> Later<'_, Option<Vec<crate::peer::Answer>>> {
        Box::pin(async { None })
    }
}

impl PeerService for PeerHandle {
    fn connected(&self, follower: NodeId) -> (Tell, Box<dyn Answers>) {
        match self.registry() {
            Some(registry) => match registry.cluster() {
                Some(cluster) => {
                    let stopped = cluster.stopped.subscribe();
                    followers::connected(&registry, follower, stopped)
                }
                None => (Box::new(|_| {}), Box::new(NoAnswers)),
            },
            None => (Box::new(|_| {}), Box::new(NoAnswers)),
        }
    }

    fn heartbeat(&self, beat: Heartbeat) -> Later<'static, Output> {
        let controller = self
            .registry()
            .and_then(|r| r.cluster().map(|c| c.controller.clone()));
        Box::pin(async move {
            let answer = match controller {
                Some(controller) => controller.heartbeat(beat).await,
                None => None,
            };
            answer.unwrap_or(Output::NotController { node: beat.node })
        })
    }

    fn register(&self, registration: Registration) -> Later<'static, Result<(), Error>> {
        let transactions = self.transactions();
        Box::pin(async move {
            match transactions {
                Some(transactions) => transactions.register_here(registration).await,
                None => Err(Error::new(
                    ErrorKind::CoordinatorLoading,
                    "this node is still starting; nothing was changed; try again",
                )),
            }
        })
    }

    fn write_markers(&self, order: MarkerOrder) -> Later<'static, Vec<MarkerOutcome>> {
        let transactions = self.transactions();
        Box::pin(async move {
            match transactions {
                Some(transactions) => transactions.write_markers_here(&order).await,
                None => vec![MarkerOutcome::Again; order.partitions.len()],
            }
        })
    }
}

/// A node that is about to join.
pub(crate) struct Joining {
    pub(crate) rim: Arc<Rim>,
    cluster: Arc<InCluster>,
    member: Member,
    wishes: mpsc::UnboundedReceiver<Wish>,
    applied: watch::Sender<u64>,
}

impl Joining {
    /// Who sees to damaged replicas.
    pub(crate) fn repairs(&self) -> Arc<Repairs> {
        Arc::clone(&self.cluster.repairs)
    }

    /// Makes what lanes need. To be called within a runtime.
    pub(crate) fn begin(
        config: &Arc<BrokerConfig>,
        cluster: Cluster,
        clock: &Arc<dyn Clock>,
        marks: &Watermarks,
        metrics: &Metrics,
    ) -> Self {
        let Cluster {
            config: how,
            log,
            peers,
            members,
        } = cluster;
        let links = Links::new(
            Arc::clone(&peers),
            Arc::clone(&log),
            Arc::clone(clock),
            how.move_bytes_per_second,
        );
        let (rim, wishes) = Rim::new(how.clone(), Arc::clone(&links));
        let millis =
            |span: std::time::Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        let controls = ControllerConfig {
            session_timeout_ms: millis(how.session_timeout),
            shutdown_timeout_ms: millis(how.drain_timeout),
            balance_leaders: how.balance_leaders,
            balance_replicas: how.balance_replicas,
            ..ControllerConfig::default()
        };
        let (handle, task) = controller::start(
            controls,
            Arc::clone(&log),
            members.clone(),
            Arc::clone(clock),
        );
        let (epoch, epochs) = watch::channel(None);
        let (applied, applies) = watch::channel(0);
        let (stopping, stops) = watch::channel(false);
        let (may_stop, may) = watch::channel(false);
        let (gone, is_gone) = watch::channel(false);
        let (heard, hears) = watch::channel(tokio::time::Instant::now());
        let member = Member {
            config: Arc::clone(config),
            cluster: how.clone(),
            log: Arc::clone(&log),
            peers,
            controller: handle.clone(),
            clean: clean_run(config, marks),
            epoch,
            applied: applies.clone(),
            stopping: stops,
            may_stop,
            gone,
            heard,
        };
        let repairs = Repairs::new(
            config.node,
            Arc::clone(&log),
            Arc::clone(clock),
            how.repair_pause,
            metrics.partition_repairs_in_progress.clone(),
        );
        let cluster = Arc::new(InCluster {
            me: config.node,
            config: how,
            log,
            members,
            links,
            controller: handle,
            epoch: epochs,
            stopping,
            may_stop: may,
            heard: hears,
            gone: is_gone,
            caught_up: std::sync::atomic::AtomicBool::new(false),
            applied: applies,
            repairs,
            started: std::sync::atomic::AtomicBool::new(false),
            producer_ids: super::changes::ProducerIds::new(0..0),
            tasks: Mutex::new(vec![task]),
            stopped: watch::Sender::new(false),
            absent: Default::default(),
            saved: tokio::sync::Mutex::new(Watermarks::default()),
        });
        Self {
            rim,
            cluster,
            member,
            wishes,
            applied,
        }
    }

    /// Registers, opens what this node holds, and ends then.
    pub(crate) async fn join(
        self,
        opener: Opener,
        service: &PeerHandle,
    ) -> Result<Arc<Registry>, StartError> {
        let Self {
            rim,
            cluster,
            member,
            wishes,
            applied,
        } = self;
        drop(rim);
        let registry = Arc::new(Registry::new(
            opener,
            Changes::Cluster(Arc::clone(&cluster)),
        ));
        *service.0.lock() = Some(Arc::clone(&registry));
        let (opened, first) = oneshot::channel();
        let reconciler =
            Reconciler::new(Arc::clone(&registry), Arc::clone(&cluster), applied, opened);
        let wishes = isr::run(
            cluster.me,
            Arc::clone(&cluster.log),
            cluster.epoch.clone(),
            wishes,
        );
        let tasks = [
            crate::work::spawn(member.run()).abort_handle(),
            crate::work::spawn(reconciler.run()).abort_handle(),
            crate::work::spawn(wishes).abort_handle(),
            crate::work::spawn(by_time(Arc::downgrade(&registry))).abort_handle(),
        ];
        cluster.tasks.lock().extend(tasks);
        first
            .await
            .map_err(|_| StartError::Open("the metadata could not be applied".to_owned()))?;
        Ok(registry)
    }
}

/// The run before, if it left everything on disk.
fn clean_run(config: &BrokerConfig, marks: &Watermarks) -> Option<BrokerEpoch> {
    marks.clean.filter(|_| config.clean_start)
}

/// Lets time pass for replicas, and saves high watermarks. Ends with the registry.
async fn by_time(registry: std::sync::Weak<Registry>) {
    let mut tick = tokio::time::interval(super::TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut since = tokio::time::Instant::now();
    loop {
        tick.tick().await;
        let Some(registry) = registry.upgrade() else {
            return;
        };
        for lane in registry.opener.lanes.iter() {
            let _ = lane.push(crate::lane::Command::TickReplicas);
        }
        let Some(cluster) = registry.cluster() else {
            return;
        };
        cluster.links.sweep();
        if since.elapsed() >= cluster.config.checkpoint_interval {
            since = tokio::time::Instant::now();
            cluster.save(&registry, None).await;
        }
    }
}
