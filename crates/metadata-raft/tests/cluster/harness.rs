//! Several nodes in one process over a network that can be cut.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use varve_metadata::{Command, Event, MetadataLog, ProposeError, features, log::read, snapshot};
use varve_metadata_raft::network::Call;
use varve_metadata_raft::{
    Answered, MetadataRaft, Phase, RaftConfig, StartError, Status, Transport, TransportError,
};
use varve_types::{DirectoryId, NodeId};
use varve_vfs::mem::MemVfs;

/// Longest wait for anything that must come.
pub const PATIENCE: Duration = Duration::from_secs(40);

#[derive(Default)]
struct Wires {
    nodes: BTreeMap<String, MetadataRaft>,
    cut: BTreeSet<String>,
    /// Requests to here arrive, and the answers are lost.
    mute: BTreeSet<String>,
    /// Requests to here are refused; what it asks others is not.
    shut: BTreeSet<String>,
    /// Requests that were refused there.
    refused: u64,
}

/// The network.
#[derive(Clone, Default)]
pub struct Net(Arc<Mutex<Wires>>);

impl Net {
    /// Nothing goes to or from an address any more.
    pub fn cut(&self, address: &str) {
        self.0.lock().cut.insert(address.to_owned());
    }

    /// Answers from an address get lost.
    pub fn mute(&self, address: &str) {
        self.0.lock().mute.insert(address.to_owned());
    }

    /// Nobody reaches an address any more; it reaches others.
    pub fn shut(&self, address: &str) {
        self.0.lock().shut.insert(address.to_owned());
    }

    /// Requests to addresses that are shut, so far.
    pub fn refused(&self) -> u64 {
        self.0.lock().refused
    }

    /// Everything goes again.
    pub fn heal(&self) {
        let mut wires = self.0.lock();
        wires.cut.clear();
        wires.mute.clear();
        wires.shut.clear();
    }
}

struct Wire {
    net: Net,
    from: NodeId,
    address: String,
}

impl Transport for Wire {
    fn process(&self) -> u128 {
        process(&self.address)
    }

    fn call(&self, _node: Option<NodeId>, to: &str, request: Bytes) -> Call {
        let (net, from, mine, to) = (
            self.net.clone(),
            self.from,
            self.address.clone(),
            to.to_owned(),
        );
        Box::pin(async move {
            let node = {
                let mut wires = net.0.lock();
                if wires.shut.contains(&to) {
                    wires.refused += 1;
                    None
                } else if wires.cut.contains(&mine) || wires.cut.contains(&to) {
                    None
                } else {
                    wires.nodes.get(&to).cloned()
                }
            };
            let Some(node) = node else {
                return Err(TransportError::Unreachable("the wire is cut".to_owned()));
            };
            let answer = Answered {
                bytes: node.serve(from, request).await,
                process: Some(process(&to)),
            };
            let lost = {
                let wires = net.0.lock();
                wires.cut.contains(&mine) || wires.cut.contains(&to) || wires.mute.contains(&to)
            };
            match lost {
                true => Err(TransportError::Failed("the answer was lost".to_owned())),
                false => Ok(answer),
            }
        })
    }
}

/// The process at an address.
fn process(address: &str) -> u128 {
    address
        .bytes()
        .fold(0, |sum, byte| sum * 256 + u128::from(byte))
}

/// One node with its disk.
pub struct Node {
    pub config: RaftConfig,
    pub disk: MemVfs,
    pub raft: MetadataRaft,
}

/// The nodes.
pub struct World {
    pub net: Net,
    pub nodes: BTreeMap<i32, Node>,
    pub seeds: i32,
    directories: u128,
}

pub fn address(node: i32) -> String {
    format!("n{node}:1")
}

impl World {
    /// No nodes yet; the first `seeds` found the cluster.
    pub fn new(seeds: i32) -> Self {
        Self {
            net: Net::default(),
            nodes: BTreeMap::new(),
            seeds,
            directories: 1 << 70,
        }
    }

    pub fn config(&mut self, node: i32) -> RaftConfig {
        self.directories += (1 << 64) + 7;
        let directory = DirectoryId(self.directories);
        let mut config = RaftConfig::new(
            NodeId(node),
            directory,
            address(node),
            PathBuf::from("/data/raft"),
        );
        config.seeds = (1..=self.seeds).map(address).collect();
        config.bootstrap_expect = if node <= self.seeds {
            self.seeds as usize
        } else {
            0
        };
        config.heartbeat = Duration::from_millis(100);
        config.election_min = Duration::from_millis(500);
        config.election_max = Duration::from_millis(1000);
        config.call_timeout = Duration::from_secs(1);
        config
    }

    /// Starts a node on a disk, if it will.
    pub async fn try_start_with(
        &mut self,
        config: &RaftConfig,
        disk: &MemVfs,
    ) -> Result<MetadataRaft, StartError> {
        let wire = Wire {
            net: self.net.clone(),
            from: config.node,
            address: config.address.clone(),
        };
        MetadataRaft::start(config.clone(), Arc::new(disk.clone()), Arc::new(wire)).await
    }

    /// Starts a node on a disk.
    pub async fn start_with(&mut self, config: RaftConfig, disk: MemVfs) {
        let raft = self.try_start_with(&config, &disk).await.unwrap();
        self.net
            .0
            .lock()
            .nodes
            .insert(config.address.clone(), raft.clone());
        self.nodes
            .insert(config.node.0, Node { config, disk, raft });
    }

    /// Starts a new node on an empty disk.
    pub async fn start(&mut self, node: i32) {
        let config = self.config(node);
        self.start_with(config, MemVfs::new()).await;
    }

    /// Stops a node and returns what starts it again.
    pub async fn stop(&mut self, node: i32) -> (RaftConfig, MemVfs) {
        let node = self.nodes.remove(&node).unwrap();
        self.net.0.lock().nodes.remove(&node.config.address);
        node.raft.shutdown().await;
        (node.config, node.disk)
    }

    pub async fn stop_all(&mut self) {
        for node in self.nodes.keys().copied().collect::<Vec<_>>() {
            self.stop(node).await;
        }
    }

    pub fn raft(&self, node: i32) -> &MetadataRaft {
        &self.nodes[&node].raft
    }

    pub fn status(&self, node: i32) -> Status {
        self.raft(node).status()
    }

    /// A cluster of the seeds, all of which vote.
    pub async fn founded(seeds: i32) -> Self {
        let mut world = Self::new(seeds);
        for node in 1..=seeds {
            world.start(node).await;
        }
        world
            .until("all are members", |w| {
                w.nodes.keys().all(|n| w.status(*n).phase == Phase::Member) && w.leader().is_some()
            })
            .await;
        world
    }

    /// The node that leads, if all that are reachable agree.
    pub fn leader(&self) -> Option<i32> {
        let here = self.nodes.iter().filter(|(_, n)| n.raft.leadership().here);
        let mut here = here.map(|(id, _)| *id);
        let leader = here.next()?;
        here.next().is_none().then_some(leader)
    }

    /// Waits for a node that leads: a busy machine makes elections of its own.
    pub async fn led(&self) -> i32 {
        let found = std::cell::Cell::new(None);
        self.until("one node leads", |w| {
            found.set(w.leader());
            found.get().is_some()
        })
        .await;
        found.get().unwrap()
    }

    /// Waits until something is so.
    pub async fn until(&self, what: &str, so: impl Fn(&Self) -> bool) {
        let waited = async {
            while !so(self) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        if tokio::time::timeout(PATIENCE, waited).await.is_err() {
            for node in self.nodes.values() {
                eprintln!("{:#?}", node.raft.status());
            }
            panic!("waited in vain: {what}");
        }
    }

    /// Registers a broker through a node, and sees it there.
    pub async fn write(&self, through: i32, number: i32) {
        let event = propose(self.raft(through), number).await.unwrap();
        assert!(matches!(event, Event::NodeRegistered { node, .. } if node == NodeId(number)));
        assert!(has(self.raft(through), number));
    }

    /// Waits until nodes have the same state.
    pub async fn until_same(&self, nodes: &[i32]) {
        self.until("all have the same state", |w| {
            let states: BTreeSet<_> = nodes
                .iter()
                .map(|n| (w.status(*n).applied, read(w.raft(*n), snapshot::encode)))
                .collect();
            states.len() == 1
        })
        .await;
    }

    pub fn voters(&self, node: i32) -> BTreeSet<i32> {
        let members = self.status(node).members;
        members
            .iter()
            .filter(|m| m.voter)
            .map(|m| m.member.node.0)
            .collect()
    }
}

pub fn register(number: i32) -> Command {
    Command::RegisterNode {
        node: NodeId(number),
        incarnation: number as u128 + 1,
        directory: DirectoryId(number as u128 + 1),
        address: "a:1".to_owned(),
        peer_address: "a:2".to_owned(),
        rack: String::new(),
        features: features::FeatureRange::THIS_PROGRAM,
        version: "1".to_owned(),
        clean: None,
    }
}

/// Registers a broker; nobody leading is tried again for a while.
pub async fn propose(raft: &MetadataRaft, number: i32) -> Result<Event, ProposeError> {
    raft.propose(register(number)).await
}

pub fn has(raft: &MetadataRaft, number: i32) -> bool {
    read(raft, |state| state.node(NodeId(number)).is_some())
}
