//! Start and stop of a broker, and the handle that the rest of the program holds.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use prometheus_client::registry::Registry as MetricsRegistry;
use tokio::sync::oneshot;
use varve_broker_api::{Boxed, Error, Limits, PartitionInfo, SharedBroker};
use varve_storage::journal::{JournalError, Replay};
use varve_storage::{Journal, JournalConfig, ReadBuffers};
use varve_types::{ErrorKind, limits};
use varve_vfs::{Clock, Vfs};

use crate::admission::Admission;
use crate::cleaner::Cleaner;
use crate::cluster::Cluster;
use crate::cluster::join::{Joining, PeerHandle};
use crate::cluster::watermarks::{self, Watermarks};
use crate::config::BrokerConfig;
use crate::confirm::Confirm;
use crate::coordinators::Coordinators;
use crate::failure::FirstFailure;
use crate::flusher::Flushers;
use crate::group_metrics::GroupGauges;
use crate::housekeeping::{self, Space};
use crate::inbox::Inbox;
use crate::lane::{self, Command};
pub use crate::metadata_file::MetadataFileError;
use crate::metrics::Metrics;
use crate::opener::Opener;
use crate::partition::Partition;
use crate::producer_sessions::ProducerSessions;
use crate::recompress::Recompression;
use crate::registry::Registry;
use crate::scrape::Scrape;
use crate::scrub::{ScrubMetrics, ScrubThread, Scrubber};
use crate::stall::{self, FlushWatch};
use crate::storage_health::ScrubStatus;
use crate::throttles::Throttles;
use crate::transactions::Transactions;
use crate::unplaced;
use crate::work::{Worker, blocking};

/// Buffers of reads that are kept for the next reads.
const READ_BUFFERS_KEPT: usize = 16;

/// Batches that wait for a word of their transaction's coordinator have a budget of their own, of this part of the
/// bytes in flight.
const UNVERIFIED_SHARE: usize = 4;

/// Files of the journal: the finer, the sooner one is free again.
const JOURNAL_FILES: u64 = 16;
/// Smallest journal that is of use.
const JOURNAL_MIN_BYTES: u64 = 1 << 20;
/// Files are made of whole pages.
const JOURNAL_PAGE: u64 = 4096;
/// The journal takes no more than this part of the disk.
const JOURNAL_SHARE_OF_DISK: u64 = 16;

/// Why a broker did not start. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The node's topic defaults are not valid.
    #[error("topic defaults: {0}")]
    TopicDefaults(#[from] varve_types::ConfigError),
    /// The metadata cannot be read.
    #[error(transparent)]
    Metadata(#[from] MetadataFileError),
    /// The journal cannot be read.
    #[error("{0}")]
    Journal(#[from] JournalError),
    /// A thread could not be started.
    #[error("cannot start a thread: {0}")]
    Thread(#[from] std::io::Error),
    /// Opening the logs panicked.
    #[error("opening the logs failed: {0}")]
    Open(String),
}

/// What a shutdown ends: lanes, flushers, the cleaner.
type Threads = (Vec<Worker>, Flushers, Cleaner);

/// The parts of a running broker.
pub(crate) struct Inner {
    pub(crate) config: Arc<BrokerConfig>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) admission: Admission,
    pub(crate) recompression: Recompression,
    /// Of a node that is alone: nothing moves, and tools set and delete them all the same.
    pub(crate) throttles_alone: Throttles,
    /// Batches whose transaction's coordinator is asked about them, which may take its time.
    pub(crate) unverified: Admission,
    pub(crate) groups: Arc<Coordinators>,
    pub(crate) group_gauges: GroupGauges,
    /// Limits of the node, for its health.
    pub(crate) limits: OnceLock<Arc<Limits>>,
    pub(crate) transactions: Arc<Transactions>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) space: Arc<Space>,
    pub(crate) lanes: Arc<[Arc<Inbox<Command>>]>,
    pub(crate) sessions: Arc<ProducerSessions>,
    pub(crate) watch: Arc<FlushWatch>,
    /// How the scrub stands; `None` when it is off.
    pub(crate) scrub: Option<Arc<Mutex<ScrubStatus>>>,
    scrub_thread: Mutex<Option<ScrubThread>>,
    scrub_metrics: ScrubMetrics,
    metrics: Metrics,
    failure: FirstFailure,
    draining: AtomicBool,
    /// Asks whether the metadata here are the newest.
    pub(crate) newest: Confirm,
    threads: Mutex<Option<Threads>>,
    housekeeping: tokio::task::AbortHandle,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Broker")
            .field("node", &self.config.node)
            .finish_non_exhaustive()
    }
}

/// A running broker. Clones are handles to the same one.
#[derive(Debug, Clone)]
pub struct Broker {
    pub(crate) inner: Arc<Inner>,
}

impl Broker {
    /// Recovers every partition and starts lanes, flushers and the group coordinator. Needs a tokio
    /// runtime. Partitions that cannot be opened are offline and say why; the others serve.
    ///
    /// # Errors
    /// [`StartError`], with nothing changed.
    pub fn start(
        config: BrokerConfig,
        vfs: Arc<dyn Vfs>,
        clock: Arc<dyn Clock>,
    ) -> Boxed<'static, Result<Self, StartError>> {
        Box::pin(Self::start_as(config, vfs, clock, None))
    }

    /// As [`Self::start`], as one node of several. Ends once this node is registered and every partition that
    /// it holds is open, however long that takes. Peers can be served before, through `service`.
    ///
    /// # Errors
    /// [`StartError`], with nothing changed.
    pub fn start_in(
        config: BrokerConfig,
        vfs: Arc<dyn Vfs>,
        clock: Arc<dyn Clock>,
        cluster: Cluster,
        service: &PeerHandle,
    ) -> Boxed<'_, Result<Self, StartError>> {
        Box::pin(Self::start_as(config, vfs, clock, Some((cluster, service))))
    }

    /// This broker as front ends take it, compiled in this crate.
    #[must_use]
    pub fn shared(&self) -> SharedBroker {
        SharedBroker::new(self.clone())
    }

    async fn start_as(
        config: BrokerConfig,
        vfs: Arc<dyn Vfs>,
        clock: Arc<dyn Clock>,
        cluster: Option<(Cluster, &PeerHandle)>,
    ) -> Result<Self, StartError> {
        let none = std::collections::BTreeMap::new();
        varve_types::TopicConfig::resolve(&none, &config.topic_defaults)?;
        let config = Arc::new(config);
        let metrics = Metrics::new();
        let mut flushers =
            Flushers::start(&config.workers, config.flush_threads, &clock, &metrics)?;
        let cleaner = Cleaner::start(
            &config.workers,
            config.cleaner_bytes_per_second,
            &clock,
            &metrics,
        )?;
        let lanes: Arc<[_]> = (0..config.lanes.max(1)).map(|_| Inbox::new()).collect();
        let sessions = ProducerSessions::new(config.producer_sessions_bytes, lanes.len());
        let sessions = Arc::new(sessions);
        let mut threads = Vec::new();
        let marks = match &cluster {
            Some(_) => watermarks::load(&*vfs, &config.data_dir),
            None => Watermarks::default(),
        };
        let replica_lag = match &cluster {
            Some((cluster, _)) => cluster.config.replica_lag,
            None => lane::REPLICA_LAG,
        };
        let service = cluster.as_ref().map(|(_, service)| *service);
        let joining = cluster.map(|(cluster, service)| {
            let joining = Joining::begin(&config, cluster, &clock, &marks, &metrics);
            (joining, service)
        });
        let rim = joining.as_ref().map(|(j, _)| Arc::clone(&j.rim));
        for (number, inbox) in lanes.iter().enumerate() {
            let inbox = Arc::clone(inbox);
            let clock = Arc::clone(&clock);
            threads.push(lane::spawn(
                &config.workers,
                number,
                inbox,
                clock,
                (&flushers, &cleaner, &sessions),
                metrics.clone(),
                rim.clone(),
            )?);
        }
        let journal = open_journal(&config, &vfs)?;
        let (mut journal, replay) = match journal {
            Some((journal, replay)) => (Some(journal), replay),
            None => (None, Replay::default()),
        };
        let failure = FirstFailure::default();
        let replay = Arc::new(Mutex::new(replay));
        let opener = Opener {
            replay: Arc::clone(&replay),
            unplaced: Arc::default(),
            refused: Arc::default(),
            config: Arc::clone(&config),
            vfs: Arc::clone(&vfs),
            clock: Arc::clone(&clock),
            lanes: Arc::clone(&lanes),
            metrics: metrics.clone(),
            buffers: ReadBuffers::new(READ_BUFFERS_KEPT),
            watermarks: Arc::new(marks),
            replica_lag,
            producer_sessions: sessions.most(),
            repairs: joining.as_ref().map(|(j, _)| j.repairs()),
            failure: failure.clone(),
        };
        let registry = match joining {
            None => {
                let opened = blocking(&config.workers, move || Registry::open_alone(opener));
                let opened = opened.await.map_err(|e| StartError::Open(e.to_string()))?;
                Arc::new(opened?)
            }
            Some((joining, service)) => joining.join(opener, service).await?,
        };
        let replay = std::mem::take(&mut *replay.lock());
        journal = unplaced::settle(
            (&config, &vfs, clock.wall_ms()),
            &registry,
            (journal, &replay),
        )?;
        if let Some(journal) = journal.as_mut() {
            // Every log has what the journal held for it, or is offline and says why.
            journal.begin(&[]).map_err(JournalError::Io)?;
        }
        if journal_bytes(&config, &vfs)?.is_none()
            && let Some(unwanted) = journal.take()
        {
            unwanted.remove().map_err(JournalError::Io)?;
        }
        flushers.commit_with(journal, &clock, &metrics)?;
        registry.finish_deletions().await;
        if let Some(cluster) = registry.cluster() {
            cluster.start_repairs();
        }
        let scrub_metrics = ScrubMetrics::default();
        let scrubs = config.scrub_bytes_per_second > 0 && !config.workers.are_tasks();
        let scrubber = scrubs.then(|| {
            Scrubber::new(
                Arc::clone(&vfs),
                Arc::clone(&clock),
                Arc::clone(&config),
                Arc::clone(&registry),
                scrub_metrics.clone(),
            )
        });
        let scrub = scrubber.as_ref().map(Scrubber::standing);
        let scrub_thread = scrubber.map(ScrubThread::start).transpose()?;
        let space = Arc::new(Space::new(vfs, Arc::clone(&config), metrics.clone()));
        let groups = Coordinators::start(
            groups_config(&config),
            Arc::clone(&registry),
            Arc::clone(&clock),
            Arc::clone(&config),
        );
        let transactions = Transactions::start(
            Arc::clone(&registry),
            Arc::clone(&groups),
            Arc::clone(&clock),
            Arc::clone(&config),
        );
        if let Some(service) = service {
            service.serve_transactions(&transactions);
        }
        let watch = Arc::clone(&flushers.watch);
        let by_time = housekeeping::run(Arc::clone(&lanes), Arc::clone(&space));
        let stalls = stall::run(
            Arc::clone(&watch),
            Arc::clone(&registry),
            Arc::clone(&clock),
        );
        let housekeeping = crate::work::spawn(async move {
            let ((), ()) = tokio::join!(by_time, stalls);
        })
        .abort_handle();
        let inner = Inner {
            admission: Admission::new(config.in_flight_bytes),
            recompression: Recompression::new(),
            throttles_alone: Throttles::new(0),
            unverified: Admission::new(config.in_flight_bytes / UNVERIFIED_SHARE),
            config,
            registry,
            groups,
            group_gauges: GroupGauges::default(),
            limits: OnceLock::new(),
            transactions,
            clock,
            space,
            lanes,
            sessions,
            watch,
            scrub,
            scrub_thread: Mutex::new(scrub_thread),
            scrub_metrics,
            metrics,
            failure,
            draining: AtomicBool::new(false),
            newest: Confirm::default(),
            threads: Mutex::new(Some((threads, flushers, cleaner))),
            housekeeping,
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// Moves leaderships to other nodes, as far as there are others, and waits for that within the drain
    /// timeout; still serves. The first act of a shutdown in a cluster; nothing happens on a node that is alone.
    pub async fn leave(&self) {
        if let Some(cluster) = self.inner.registry.cluster()
            && !self.inner.draining()
        {
            cluster.leave().await;
        }
    }

    /// Answers what is parked and parks nothing more; still serves. The first act of a shutdown.
    pub async fn drain(&self) {
        self.inner.draining.store(true, Ordering::SeqCst);
        self.inner.groups.drain().await;
        self.inner.transactions.drain().await;
    }

    /// Refuses appends, flushes and closes every log that is open, ends the threads. Returns whether everything
    /// that was accepted is safely on disk. The next start need not recover if that is so and
    /// [`Broker::opened_every_log`] too. A second call returns `false`.
    pub async fn shutdown(&self) -> bool {
        self.leave().await;
        self.drain().await;
        self.inner.admission.close();
        self.inner.unverified.close();
        self.inner.housekeeping.abort();
        if let Some(cluster) = self.inner.registry.cluster() {
            cluster.stop();
        }
        let Some((lanes, mut flushers, mut cleaner)) = self.inner.threads.lock().take() else {
            return false;
        };
        let scrub = self.inner.scrub_thread.lock().take();
        if let Some(scrub) = scrub {
            // It ends with the step it is in, so a quarter of a MiB at most.
            let _ = blocking(&self.inner.config.workers, move || scrub.stop()).await;
        }
        let stopped = blocking(&self.inner.config.workers, move || cleaner.stop()).await;
        let mut safe = stopped.is_ok();
        for lane in self.inner.lanes.iter() {
            let (reply, done) = oneshot::channel();
            let told = lane.push(Command::Shutdown { reply }).is_ok();
            safe &= told && done.await.unwrap_or(false);
        }
        flushers.stop().await;
        for lane in lanes {
            safe &= lane.ended().await;
        }
        if let Some(cluster) = self.inner.registry.cluster() {
            let clean = safe && self.opened_every_log();
            let clean = if clean { *cluster.epoch.borrow() } else { None };
            cluster.save(&self.inner.registry, clean).await;
        }
        safe
    }

    /// Whether no log of a topic that is still there was refused in this run. A mark of a clean stop vouches for every
    /// log, so none may be made when there is one that nobody could look into.
    pub fn opened_every_log(&self) -> bool {
        !self.inner.registry.has_refused()
    }

    /// Resolves with the reason once a write or sync of an open log, or of the journal, has failed. Whoever runs the
    /// broker should shut it down then and start it anew: what failed acknowledges nothing until then, and only a
    /// start finds out what is on the disk. Safe to drop; resolves at once if it has happened before.
    pub async fn failed(&self) -> String {
        self.inner.failure.told().await
    }

    /// Stops at once, without a word to the other nodes and without leaving anything in good order: what a
    /// killed process does. For tests.
    pub async fn kill(&self) {
        if let Some(cluster) = self.inner.registry.cluster() {
            cluster.stop();
        }
        self.inner.draining.store(true, Ordering::SeqCst);
        self.shutdown().await;
    }

    /// Adds the limits of this broker to those of its node.
    pub fn add_limits(&self, all: &mut Limits) {
        let (groups, config) = (Arc::clone(&self.inner.groups), &self.inner.config);
        all.refusing("groups.max", config.groups_max, move || groups.count());
        let transactions = Arc::clone(&self.inner.transactions);
        let ids = config.transactional_ids_max;
        all.refusing("transactional.ids.max", ids, move || {
            transactions.id_count()
        });
        let registry = Arc::clone(&self.inner.registry);
        all.refusing(
            "partitions of a node",
            limits::PARTITIONS_PER_NODE_MAX,
            move || registry.view().partitions().count(),
        );
        let sessions = Arc::clone(&self.inner.sessions);
        let (most, each) = (sessions.most(), limits::PRODUCER_SESSION_BYTES);
        all.yielding("producer.sessions.max.bytes", most * each, move || {
            sessions.count() * each
        });
    }

    /// Tells health of the limits of this node, once.
    pub fn watch_limits(&self, limits: Arc<Limits>) {
        let _ = self.inner.limits.set(limits);
    }

    /// Adds the broker's metrics to a registry whose prefix is `varve`.
    pub fn register_metrics(&self, registry: &mut MetricsRegistry) {
        self.inner.metrics.register(registry);
        self.inner.scrub_metrics.register(registry);
        registry.register_collector(Box::new(Scrape(Arc::downgrade(&self.inner))));
    }

    /// Whether lanes and flushers answer within `timeout`. Looks at this process alone, never at peers.
    ///
    /// # Errors
    /// Which part did not answer.
    pub async fn liveness(&self, timeout: Duration) -> Result<(), String> {
        for (number, lane) in self.inner.lanes.iter().enumerate() {
            let (reply, done) = oneshot::channel();
            // Closing a slot that no partition has answers at once and changes nothing.
            let probe = Command::Close {
                slot: u32::MAX,
                reply,
            };
            lane.push(probe)
                .map_err(|_| format!("lane {number} has ended"))?;
            match tokio::time::timeout(timeout, done).await {
                Ok(_) => {}
                Err(_) => return Err(format!("lane {number} did not answer within {timeout:?}")),
            }
        }
        Ok(())
    }

    /// Whether this node should be sent requests.
    ///
    /// # Errors
    /// Why not.
    pub fn readiness(&self) -> Result<(), String> {
        if self.inner.draining() {
            return Err("draining".to_owned());
        }
        if self.inner.space.refuses() {
            return Err("disk is below its reserve".to_owned());
        }
        match self.inner.registry.cluster() {
            Some(cluster) => cluster.readiness(&self.inner.registry),
            None => Ok(()),
        }
    }
}

impl Inner {
    pub(crate) fn draining(&self) -> bool {
        self.draining.load(Ordering::SeqCst)
    }

    /// The error of a partition whose flush hangs.
    fn stall_error(&self, partition: &Partition) -> Option<Error> {
        let span = self.watch.of(partition.slot, self.clock.now())?;
        let text = format!(
            "a flush of partition {} has been running for {} s: the disk does not answer; \
             appends wait and are not acknowledged",
            partition.id,
            span.as_secs()
        );
        Some(Error::new(ErrorKind::StorageError, text))
    }

    pub(crate) fn describe(&self, partition: &Partition) -> PartitionInfo {
        let me = self.config.node;
        let offline = partition.offline().is_some();
        PartitionInfo {
            partition: partition.id.partition,
            leader: (!offline).then_some(me),
            leader_epoch: partition.leader_epoch(),
            replicas: vec![me],
            in_sync: if offline { Vec::new() } else { vec![me] },
            log_start: partition.log_start(),
            high_watermark: partition.high_watermark(),
            log_end: partition.log_end(),
            size_bytes: partition.size_bytes(),
            error: if offline {
                Some(partition.offline_error())
            } else {
                self.stall_error(partition)
                    .or_else(|| partition.damage_error())
            },
        }
    }
}

/// Bytes the journal may take; `None` for no journal.
fn journal_bytes(config: &BrokerConfig, vfs: &Arc<dyn Vfs>) -> Result<Option<u64>, JournalError> {
    let share = vfs.free_space(&config.data_dir)?.total / JOURNAL_SHARE_OF_DISK;
    let bytes = config.journal_max_bytes.min(share);
    Ok((bytes >= JOURNAL_MIN_BYTES).then_some(bytes))
}

/// The journal, with what the last run left in it; `None` where there is none.
pub(crate) fn open_journal(
    config: &BrokerConfig,
    vfs: &Arc<dyn Vfs>,
) -> Result<Option<(Journal, Replay)>, JournalError> {
    let dir = config.data_dir.join("journal");
    let bytes = match journal_bytes(config, vfs)? {
        Some(bytes) => bytes,
        // It was wanted before: what it holds is needed all the same.
        None if vfs.exists(&dir)? => JOURNAL_MIN_BYTES,
        None => return Ok(None),
    };
    let file_bytes = bytes / JOURNAL_FILES;
    let sizes = JournalConfig {
        file_bytes: file_bytes / JOURNAL_PAGE * JOURNAL_PAGE,
        files: JOURNAL_FILES as usize,
    };
    // Whose records these are: a directory that ends up at another node is refused.
    let owner = config.cluster.0.rotate_left(32) ^ u128::from(config.node.0.unsigned_abs());
    Journal::open(Arc::clone(vfs), &dir, owner, sizes, config.clean_start).map(Some)
}

fn groups_config(config: &BrokerConfig) -> varve_groups::Config {
    let millis = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
    let session_timeout_ms = millis(config.group_session_timeout);
    varve_groups::Config {
        session_timeout_ms,
        // An operator who sets a short default wants it.
        session_timeout_min_ms: limits::SESSION_TIMEOUT_MIN_MS.min(session_timeout_ms),
        heartbeat_interval_ms: millis(config.group_heartbeat_interval),
        group_max_size: config.group_max_size,
        groups_max: config.groups_max,
        initial_rebalance_delay_ms: millis(config.group_initial_rebalance_delay),
        migration: config.group_migration,
        offsets_retention_ms: i64::try_from(millis(config.offsets_retention)).unwrap_or(i64::MAX),
        ..varve_groups::Config::default()
    }
}
