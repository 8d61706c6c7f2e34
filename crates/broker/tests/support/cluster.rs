//! Several brokers in one process, on simulated disks, with a metadata log that all of them share and a
//! network that can be cut. What is real: everything but those two.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU32, Ordering};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::unfold;
use parking_lot::Mutex;
use tokio::sync::watch;
use varve_broker::peer::{
    Answer, Incoming, MarkerOrder, MarkerOutcome, Outgoing, PeerError, PeerService, Peers,
    Registration,
};
use varve_broker::{Broker, BrokerConfig, Cluster, ClusterConfig, Members, PeerHandle};
use varve_broker_api::{Broker as _, Context, Error};
use varve_metadata::log::Later;
use varve_metadata::{
    Command, Event, Heartbeat, Leadership, MetadataLog, Output, ProposeError, State,
};
use varve_partition::FetchRefusal;
use varve_types::{ClusterId, DirectoryId, NodeId, TopicId};
use varve_vfs::fault::FaultVfs;
use varve_vfs::mem::MemVfs;
use varve_vfs::{Clock, SystemClock, Tick, Vfs};

/// One state for all nodes; whoever is named leads.
pub struct Shared {
    state: Mutex<State>,
    version: watch::Sender<u64>,
    leadership: watch::Sender<Leadership>,
    deaf: AtomicBool,
    /// How often somebody was told of one in vain.
    unheard: AtomicU32,
    /// Feature level above which it does not go.
    most: AtomicU16,
}

impl Shared {
    /// Whether nobody can be told that a replica is lost.
    pub fn deaf_to_losses(&self, deaf: bool) {
        self.deaf.store(deaf, Ordering::Relaxed);
    }

    /// How often nobody could be told of a lost replica so far.
    pub fn unheard(&self) -> u32 {
        self.unheard.load(Ordering::Relaxed)
    }

    /// What the controller proposes, as far as the feature level goes: an operator may raise it no further for now.
    fn bounded(&self, command: Command) -> Command {
        let most = self.most.load(Ordering::Relaxed);
        match command {
            Command::FinalizeFeature { level } => Command::FinalizeFeature {
                level: level.min(most),
            },
            command => command,
        }
    }

    /// An operator may raise the feature level as far as nodes can work.
    pub fn raise(&self) {
        self.most.store(u16::MAX, Ordering::Relaxed);
    }

    /// Another node leads the metadata from now on.
    pub fn lead(&self, node: NodeId) {
        self.leadership.send_modify(|l| {
            l.term += 1;
            l.leader = Some(node);
        });
    }

    pub fn look<T>(&self, take: impl FnOnce(&State) -> T) -> T {
        take(&self.state.lock())
    }
}

/// The shared state as one node sees it.
struct NodeLog {
    me: NodeId,
    shared: Arc<Shared>,
    net: Arc<Net>,
}

impl NodeLog {
    fn own(&self, l: Leadership) -> Leadership {
        Leadership {
            here: l.leader == Some(self.me),
            ..l
        }
    }
}

impl MetadataLog for NodeLog {
    fn look(&self, look: &mut dyn FnMut(&State)) {
        look(&self.shared.state.lock());
    }

    fn newer_than(&self, version: u64) -> Later<'_, u64> {
        let mut changes = self.shared.version.subscribe();
        Box::pin(async move {
            // A node that is cut off hears nothing.
            loop {
                if !self.net.alone(self.me) && *changes.borrow_and_update() > version {
                    return *changes.borrow();
                }
                let _ = tokio::time::timeout(Duration::from_millis(20), changes.changed()).await;
            }
        })
    }

    fn propose(&self, command: Command) -> Later<'_, Result<Event, ProposeError>> {
        Box::pin(async move {
            if self.net.alone(self.me) || self.shared.leadership.borrow().leader.is_none() {
                tokio::time::sleep(Duration::from_millis(50)).await;
                return Err(ProposeError::NoLeader);
            }
            let loss = matches!(
                command,
                Command::ReplicaLost { .. } | Command::GiveUpReplica { .. }
            );
            if loss && self.shared.deaf.load(Ordering::Relaxed) {
                self.shared.unheard.fetch_add(1, Ordering::Relaxed);
                return Err(ProposeError::NoLeader);
            }
            let mut state = self.shared.state.lock();
            let event = varve_metadata::apply(&mut state, self.shared.bounded(command))?;
            self.shared.version.send_replace(state.version());
            Ok(event)
        })
    }

    fn catch_up(&self) -> Later<'_, Result<(), ProposeError>> {
        // A node that is cut off asks in vain.
        let alone = self.net.alone(self.me);
        Box::pin(async move {
            match alone {
                true => Err(ProposeError::NoLeader),
                false => Ok(()),
            }
        })
    }

    fn leadership(&self) -> Leadership {
        self.own(*self.shared.leadership.borrow())
    }

    fn leadership_after(&self, seen: Leadership) -> Later<'_, Leadership> {
        let mut changes = self.shared.leadership.subscribe();
        Box::pin(async move {
            loop {
                let now = self.own(*changes.borrow_and_update());
                if now != seen {
                    return now;
                }
                if changes.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        })
    }
}

/// The network.
#[derive(Default)]
pub struct Net {
    services: Mutex<BTreeMap<NodeId, PeerHandle>>,
    cut: Mutex<BTreeSet<NodeId>>,
    /// Fetches that were answered, and those of them that said less than was known already.
    answered: Mutex<BTreeMap<TopicId, (usize, usize)>>,
}

impl Net {
    /// The node hears nobody, and nobody hears it.
    pub fn cut(&self, node: NodeId) {
        self.cut.lock().insert(node);
    }

    pub fn heal(&self) {
        self.cut.lock().clear();
    }

    /// Fetches of a topic that were answered so far, and those of them that came too late.
    pub fn answered(&self, topic: TopicId) -> (usize, usize) {
        let answered = self.answered.lock();
        answered.get(&topic).copied().unwrap_or_default()
    }

    fn count(&self, answers: &[Answer]) {
        let mut answered = self.answered.lock();
        for answer in answers {
            let of = answered.entry(answer.partition.topic).or_default();
            of.0 += 1;
            of.1 += usize::from(answer.result == Err(FetchRefusal::Stale));
        }
    }

    fn alone(&self, node: NodeId) -> bool {
        self.cut.lock().contains(&node)
    }

    fn between(&self, a: NodeId, b: NodeId) -> bool {
        let cut = self.cut.lock();
        !cut.contains(&a) && !cut.contains(&b)
    }
}

/// The network as one node sees it.
struct NodeNet {
    me: NodeId,
    net: Arc<Net>,
}

impl NodeNet {
    fn error(node: NodeId, why: &str) -> PeerError {
        PeerError {
            node,
            address: String::new(),
            why: why.to_owned(),
        }
    }
}

impl Peers for NodeNet {
    fn replicate(
        &self,
        to: NodeId,
        _address: String,
        mut outgoing: Outgoing,
        incoming: Incoming,
    ) -> Later<'static, Result<(), PeerError>> {
        let (me, net) = (self.me, Arc::clone(&self.net));
        Box::pin(async move {
            let service = net.services.lock().get(&to).cloned();
            let Some(service) = service.filter(|_| net.between(me, to)) else {
                return Err(Self::error(to, "not reachable"));
            };
            let (mut tell, answers) = service.connected(me);
            // An answer that is being read when something else happens is not lost.
            let mut answers = std::pin::pin!(unfold(answers, |mut answers| async move {
                let some = answers.next().await?;
                Some((some, answers))
            }));
            let mut look = tokio::time::interval(Duration::from_millis(10));
            loop {
                let mut messages = Vec::new();
                tokio::select! {
                    _ = look.tick() => {
                        if !net.between(me, to) {
                            return Err(Self::error(to, "the connection is cut"));
                        }
                    }
                    count = outgoing.recv_many(&mut messages, 1024) => {
                        if count == 0 {
                            return Ok(());
                        }
                        tell(messages);
                    }
                    some = answers.next() => match some {
                        Some(some) if net.between(me, to) => {
                            net.count(&some);
                            incoming(some);
                        }
                        _ => return Err(Self::error(to, "ended")),
                    },
                }
            }
        })
    }

    fn heartbeat(
        &self,
        to: NodeId,
        _address: String,
        beat: Heartbeat,
    ) -> Later<'static, Result<Output, PeerError>> {
        let (me, net) = (self.me, Arc::clone(&self.net));
        Box::pin(async move {
            let service = net.services.lock().get(&to).cloned();
            match service.filter(|_| net.between(me, to)) {
                Some(service) => Ok(service.heartbeat(beat).await),
                None => Err(Self::error(to, "not reachable")),
            }
        })
    }

    fn register(
        &self,
        to: NodeId,
        _address: String,
        registration: Registration,
    ) -> Later<'static, Result<Result<(), Error>, PeerError>> {
        let (me, net) = (self.me, Arc::clone(&self.net));
        Box::pin(async move {
            let service = net.services.lock().get(&to).cloned();
            match service.filter(|_| net.between(me, to)) {
                Some(service) => Ok(service.register(registration).await),
                None => Err(Self::error(to, "not reachable")),
            }
        })
    }

    fn write_markers(
        &self,
        to: NodeId,
        _address: String,
        order: MarkerOrder,
    ) -> Later<'static, Result<Vec<MarkerOutcome>, PeerError>> {
        let (me, net) = (self.me, Arc::clone(&self.net));
        Box::pin(async move {
            let service = net.services.lock().get(&to).cloned();
            match service.filter(|_| net.between(me, to)) {
                Some(service) => Ok(service.write_markers(order).await),
                None => Err(Self::error(to, "not reachable")),
            }
        })
    }
}

/// This machine's clock, with the time of day of somebody who set it wrong.
#[derive(Debug)]
struct Skewed {
    clock: SystemClock,
    by_ms: i64,
}

impl Clock for Skewed {
    fn now(&self) -> Tick {
        self.clock.now()
    }

    fn wall_ms(&self) -> i64 {
        self.clock.wall_ms() + self.by_ms
    }
}

/// Brokers that are one cluster.
pub struct Nodes {
    pub shared: Arc<Shared>,
    pub net: Arc<Net>,
    pub brokers: BTreeMap<NodeId, Broker>,
    pub disks: BTreeMap<NodeId, Arc<MemVfs>>,
    pub faults: BTreeMap<NodeId, Arc<FaultVfs>>,
    /// Nodes that were taken out of the agreement on metadata.
    pub removed: Removed,
    /// Bytes that moves may copy to a node that is started from now on.
    pub move_limit: u64,
    /// How wrong the clocks of nodes are that are started from now on, in milliseconds.
    pub skews: BTreeMap<NodeId, i64>,
    /// Time from one pass of the scrub to the next, on a node that is started from now on.
    pub scrub_interval: Duration,
    /// How long a replica that is damaged again waits, on a node that is started from now on.
    pub repair_pause: Duration,
    /// Part of the identity of directories that are new from now on.
    pub directories: u128,
    /// Nobody is given up for being silent, and this is the budget of bytes in flight.
    patient: Option<usize>,
}

/// Who was taken out of the agreement on metadata.
#[derive(Clone, Default)]
pub struct Removed(Arc<Mutex<Vec<NodeId>>>);

impl Removed {
    pub fn list(&self) -> Vec<NodeId> {
        self.0.lock().clone()
    }
}

impl Members for Removed {
    fn remove(&self, node: NodeId) -> Later<'_, Result<(), String>> {
        self.0.lock().push(node);
        Box::pin(async { Ok(()) })
    }
}

/// A node that is silent for so long is given up.
pub const SESSION: Duration = Duration::from_millis(900);

impl Nodes {
    /// So many nodes, numbered from 1, the first of which leads the metadata.
    pub async fn new(count: i32) -> Self {
        Self::build(
            &vec![0; count.unsigned_abs() as usize],
            Duration::from_secs(3600),
            Duration::from_millis(300),
            u16::MAX,
            None,
        )
        .await
    }

    /// So many nodes, which wait for each other however long that takes: a partition of one that is cut off commits
    /// nothing, and goes on being appended to. Each admits so many bytes.
    pub async fn patient(count: usize, in_flight_bytes: usize) -> Self {
        let (hour, moment) = (Duration::from_secs(3600), Duration::from_millis(300));
        let patient = Some(in_flight_bytes);
        Self::build(&vec![0; count], hour, moment, u16::MAX, patient).await
    }

    /// What a node does for the others.
    pub fn service(&self, node: NodeId) -> PeerHandle {
        self.net.services.lock()[&node].clone()
    }

    /// So many nodes, at a feature level that is not the newest.
    pub async fn at_level(count: usize, most: u16) -> Self {
        let (hour, moment) = (Duration::from_secs(3600), Duration::from_millis(300));
        Self::build(&vec![0; count], hour, moment, most, None).await
    }

    /// One node per clock, numbered from 1; each is so many milliseconds wrong.
    pub async fn with_clocks(skews: &[i64]) -> Self {
        let (hour, moment) = (Duration::from_secs(3600), Duration::from_millis(300));
        Self::build(skews, hour, moment, u16::MAX, None).await
    }

    /// So many nodes, scrubbed and repaired as often as is said.
    pub async fn with(count: i32, scrub_interval: Duration, repair_pause: Duration) -> Self {
        let skews = vec![0; count.unsigned_abs() as usize];
        Self::build(&skews, scrub_interval, repair_pause, u16::MAX, None).await
    }

    async fn build(
        skews: &[i64],
        scrub_interval: Duration,
        repair_pause: Duration,
        most: u16,
        patient: Option<usize>,
    ) -> Self {
        let leadership = Leadership {
            term: 1,
            leader: Some(NodeId(1)),
            here: false,
        };
        let mut nodes = Self {
            shared: Arc::new(Shared {
                state: Mutex::default(),
                version: watch::Sender::new(0),
                leadership: watch::Sender::new(leadership),
                deaf: AtomicBool::new(false),
                unheard: AtomicU32::new(0),
                most: AtomicU16::new(most),
            }),
            net: Arc::default(),
            brokers: BTreeMap::new(),
            disks: BTreeMap::new(),
            faults: BTreeMap::new(),
            removed: Removed::default(),
            move_limit: 0,
            skews: (1..).map(NodeId).zip(skews.iter().copied()).collect(),
            scrub_interval,
            repair_pause,
            directories: 100,
            patient,
        };
        let count = skews.len();
        for node in (1..).take(count) {
            let disk = Arc::new(MemVfs::new());
            varve_vfs::durable::create_dir_all(&*disk, &data_dir()).unwrap();
            nodes.start(NodeId(node), disk, false).await;
        }
        nodes.active(count).await;
        nodes
    }

    pub async fn start(&mut self, node: NodeId, disk: Arc<MemVfs>, clean: bool) {
        let faults = FaultVfs::new(Arc::clone(&disk) as Arc<dyn Vfs>);
        let mut config = BrokerConfig::new(data_dir(), ClusterId(1), node);
        config.offsets_partitions = 3;
        config.transactions_partitions = 3;
        config.min_free_bytes = 0;
        config.journal_max_bytes = 8 << 20;
        config.directory = DirectoryId(self.directories + node.0 as u128);
        config.address = format!("node-{node}:1");
        config.rack = format!("rack-{node}");
        config.clean_start = clean;
        config.scrub_interval = self.scrub_interval;
        config.in_flight_bytes = self.patient.unwrap_or(config.in_flight_bytes);
        let hour = self.patient.map(|_| Duration::from_secs(3600));
        let how = ClusterConfig {
            session_timeout: hour.unwrap_or(SESSION),
            heartbeat_interval: Duration::from_millis(150),
            replica_lag: hour.unwrap_or(Duration::from_millis(800)),
            park: Duration::from_millis(300),
            checkpoint_interval: Duration::from_millis(200),
            drain_timeout: Duration::from_secs(10),
            move_bytes_per_second: self.move_limit,
            repair_pause: self.repair_pause,
            ..ClusterConfig::new(format!("node-{node}:2"))
        };
        let cluster = Cluster {
            config: how,
            log: Arc::new(NodeLog {
                me: node,
                shared: Arc::clone(&self.shared),
                net: Arc::clone(&self.net),
            }),
            peers: Arc::new(NodeNet {
                me: node,
                net: Arc::clone(&self.net),
            }),
            members: Some(Arc::new(self.removed.clone())),
        };
        let service = PeerHandle::default();
        self.net.services.lock().insert(node, service.clone());
        let vfs = Arc::clone(&faults) as Arc<dyn Vfs>;
        let clock = Arc::new(Skewed {
            clock: SystemClock::new(),
            by_ms: self.skews.get(&node).copied().unwrap_or_default(),
        });
        let broker = Broker::start_in(config, vfs, clock, cluster, &service);
        let started = tokio::time::timeout(Duration::from_secs(60), broker).await;
        let broker = started.unwrap_or_else(|_| panic!("node {node} has not started within 60 s"));
        self.brokers.insert(node, broker.unwrap());
        self.disks.insert(node, disk);
        self.faults.insert(node, faults);
    }

    /// The process is gone without a word; its disk keeps what `keep` makes of it.
    pub async fn kill(&mut self, node: NodeId) -> Arc<MemVfs> {
        self.net.cut(node);
        self.net.services.lock().remove(&node);
        let disk = self.disks.remove(&node).unwrap();
        disk.crash_losing_unsynced();
        let left = Arc::new(disk.image());
        // What the old process still does reaches neither the others nor the disk that is left.
        let broker = self.brokers.remove(&node).unwrap();
        tokio::spawn(async move { broker.kill().await });
        left
    }

    /// A killed node comes back on what its disk has.
    pub async fn restart(&mut self, node: NodeId, disk: Arc<MemVfs>) {
        self.net.cut.lock().remove(&node);
        self.start(node, disk, false).await;
    }

    /// A node comes up for the first time, on an empty disk.
    pub async fn join(&mut self, node: NodeId) {
        self.net.cut.lock().remove(&node);
        let disk = Arc::new(MemVfs::new());
        varve_vfs::durable::create_dir_all(&*disk, &data_dir()).unwrap();
        self.start(node, disk, false).await;
    }

    /// Waits until so many nodes take part.
    pub async fn active(&self, count: usize) {
        super::until(&format!("{count} active nodes"), || {
            self.shared.look(|state| {
                let active = |n: &&varve_metadata::Node| n.takes_replicas();
                state.nodes().values().filter(active).count() == count
            })
        })
        .await;
    }

    /// What the metadata says of a partition.
    pub fn partition(&self, topic: &str, partition: i32) -> varve_metadata::Partition {
        self.shared.look(|state| {
            let topic = state.topic(&topic.parse().unwrap()).unwrap();
            topic.partitions[partition as usize].clone()
        })
    }

    /// The broker that leads a partition, once there is one that says so itself.
    pub async fn leader(&self, topic: &str, partition: i32) -> (NodeId, Broker) {
        for _ in 0..400 {
            if let Some(leader) = self.partition(topic, partition).leader
                && let Some(broker) = self.brokers.get(&leader)
            {
                return (leader, broker.clone());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("{topic}-{partition} has no leader");
    }

    /// Waits until a partition has so many replicas in sync.
    pub async fn in_sync(&self, topic: &str, partition: i32, count: usize) {
        let what = format!("{count} replicas");
        self.in_sync_as(topic, partition, &what, |p| p.isr.len() == count)
            .await;
    }

    /// Waits until every replica that a partition is meant to have is in sync. How many that are may change meanwhile:
    /// what was made while a node was away has none there, and the controller spreads them again.
    pub async fn whole(&self, topic: &str, partition: i32) {
        let whole = |p: &varve_metadata::Partition| p.isr.len() == p.replicas.len();
        self.in_sync_as(topic, partition, "all replicas", whole)
            .await;
    }

    async fn in_sync_as(
        &self,
        topic: &str,
        partition: i32,
        what: &str,
        so: impl Fn(&varve_metadata::Partition) -> bool,
    ) {
        for _ in 0..400 {
            if so(&self.partition(topic, partition)) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let found = self.partition(topic, partition);
        let held = |(node, broker): (&NodeId, &Broker)| {
            let all = broker.partitions(&Context::anonymous(), &topic.parse().unwrap());
            (*node, all.map(|all| all[partition as usize].clone()))
        };
        let held: Vec<_> = self.brokers.iter().map(held).collect();
        panic!("never {what} in sync: {topic}-{partition} has {found:?}; nodes say {held:?}");
    }
}

fn data_dir() -> PathBuf {
    PathBuf::from("/data")
}
