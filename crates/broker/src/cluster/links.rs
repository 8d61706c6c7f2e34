//! The follower's side of replication: one connection to each leader, over which the fetches of all its
//! partitions go, and whose answers are checked and handed to the lanes.
//!
//! Invariants: a fetch is answered, or its core is told that it will not be; what does not pass its checksum
//! never reaches a lane; a connection that ended is made again by the next fetch, not by itself; replicas that a
//! move adds copy no faster than they may, all of them together, and no other replica waits for that.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use varve_metadata::{MetadataLog, PartitionKey};
use varve_partition::{FetchId, Position};
use varve_record::{Sequenced, StoredBatch};
use varve_types::NodeId;
use varve_vfs::{Clock, Tick};

use crate::lane::{Arrived, Command};
use crate::partition::Partition;
use crate::peer::{Answer, Peers, ToLeader};
use crate::rate::Rate;

/// A fetch that has had no answer for so long will have none.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);

/// A fetch that is under way.
struct Waiting {
    id: FetchId,
    partition: Arc<Partition>,
    since: Tick,
}

/// One connection.
struct Link {
    number: u64,
    outgoing: mpsc::UnboundedSender<ToLeader>,
    waiting: BTreeMap<PartitionKey, Waiting>,
}

/// All connections to leaders.
pub(crate) struct Links {
    me: Weak<Self>,
    peers: Arc<dyn Peers>,
    log: Arc<dyn MetadataLog>,
    clock: Arc<dyn Clock>,
    runtime: Handle,
    links: Mutex<(u64, BTreeMap<NodeId, Link>)>,
    /// Of replicas that moves add.
    moves: Mutex<Rate>,
    closed: AtomicBool,
}

impl Links {
    /// To be called within a runtime.
    pub(crate) fn new(
        peers: Arc<dyn Peers>,
        log: Arc<dyn MetadataLog>,
        clock: Arc<dyn Clock>,
        move_bytes_per_second: u64,
    ) -> Arc<Self> {
        Arc::new_cyclic(|me| Self {
            me: me.clone(),
            peers,
            log,
            clock,
            runtime: Handle::current(),
            links: Mutex::default(),
            moves: Mutex::new(Rate::new(move_bytes_per_second)),
            closed: AtomicBool::new(false),
        })
    }

    /// The other nodes.
    pub(crate) fn peers(&self) -> &dyn Peers {
        &*self.peers
    }

    /// Sends a fetch; that of a replica which a move adds once what it and its like have copied is paid for.
    pub(crate) fn fetch(
        &self,
        to: NodeId,
        partition: &Arc<Partition>,
        key: PartitionKey,
        id: FetchId,
        position: Position,
    ) {
        let pause = match partition.joining() {
            true => self.moves.lock().spent(0, self.clock.now()),
            false => Duration::ZERO,
        };
        if pause.is_zero() {
            return self.send(to, partition, key, id, position);
        }
        let (me, partition) = (self.me.clone(), Arc::clone(partition));
        self.runtime.spawn(async move {
            tokio::time::sleep(pause).await;
            // Others may have copied meanwhile: it is their turn to pay, not this one's to wait again.
            if let Some(links) = me.upgrade() {
                links.send(to, &partition, key, id, position);
            }
        });
    }

    fn send(
        &self,
        to: NodeId,
        partition: &Arc<Partition>,
        key: PartitionKey,
        id: FetchId,
        position: Position,
    ) {
        let waiting = Waiting {
            id,
            partition: Arc::clone(partition),
            since: self.clock.now(),
        };
        let message = ToLeader::Fetch {
            partition: key,
            id,
            position,
        };
        let mut links = self.links.lock();
        if self.closed.load(Ordering::SeqCst) {
            return failed(&waiting);
        }
        if !links.1.contains_key(&to) {
            links.0 += 1;
            let number = links.0;
            match self.connect(to, number) {
                Some(link) => drop(links.1.insert(to, link)),
                None => return failed(&waiting),
            }
        }
        if let Some(link) = links.1.get_mut(&to) {
            link.waiting.insert(key, waiting);
            // The task takes the link away before it ends.
            let _ = link.outgoing.send(message);
        }
    }

    /// Sends news of what is flushed, if there is a connection.
    pub(crate) fn progress(&self, to: NodeId, partition: PartitionKey, position: Position) {
        let links = self.links.lock();
        if let Some(link) = links.1.get(&to) {
            let _ = link.outgoing.send(ToLeader::Progress {
                partition,
                position,
            });
        }
    }

    fn connect(&self, to: NodeId, number: u64) -> Option<Link> {
        let address = varve_metadata::log::read(&*self.log, |state| {
            state.node(to).map(|n| n.peer_address.clone())
        })?;
        let (outgoing, messages) = mpsc::unbounded_channel();
        let me = self.me.clone();
        let incoming = Arc::new(move |answers| {
            if let Some(links) = me.upgrade() {
                links.answered(to, number, answers);
            }
        });
        let connection = self.peers.replicate(to, address, messages, incoming);
        let me = self.me.clone();
        self.runtime.spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "replication from a leader ended");
            }
            if let Some(links) = me.upgrade() {
                links.ended(to, number);
            }
        });
        Some(Link {
            number,
            outgoing,
            waiting: BTreeMap::new(),
        })
    }

    /// A connection is gone, and every answer that was to come over it.
    fn ended(&self, to: NodeId, number: u64) {
        let mut links = self.links.lock();
        if links.1.get(&to).is_some_and(|l| l.number == number)
            && let Some(link) = links.1.remove(&to)
        {
            link.waiting.values().for_each(failed);
        }
    }

    fn answered(&self, from: NodeId, number: u64, answers: Vec<Answer>) {
        for answer in answers {
            let waiting = {
                let mut links = self.links.lock();
                let link = links.1.get_mut(&from).filter(|l| l.number == number);
                let Some(link) = link else { return };
                match link.waiting.get(&answer.partition) {
                    Some(waiting) if waiting.id == answer.id => {
                        link.waiting.remove(&answer.partition)
                    }
                    _ => None,
                }
            };
            if let Some(waiting) = waiting {
                if waiting.partition.joining()
                    && let Ok(records) = &answer.result
                {
                    let bytes = records.batches.len() as u64;
                    self.moves.lock().spent(bytes, self.clock.now());
                }
                take(&waiting, answer, from);
            }
        }
    }

    /// Gives up fetches that have waited too long, and connections to nodes that have moved.
    pub(crate) fn sweep(&self) {
        let late = self.clock.now().before(ANSWER_TIMEOUT);
        let mut links = self.links.lock();
        for link in links.1.values_mut() {
            link.waiting.retain(|_, waiting| {
                let keep = waiting.since >= late || late == Tick::ZERO;
                if !keep {
                    tracing::warn!(partition = %waiting.partition.id, "the leader has not answered a fetch; asking again");
                    failed(waiting);
                }
                keep
            });
        }
    }

    /// Ends every connection.
    pub(crate) fn close(&self) {
        let mut links = self.links.lock();
        self.closed.store(true, Ordering::SeqCst);
        links.1.clear();
    }
}

fn failed(waiting: &Waiting) {
    let slot = waiting.partition.slot;
    let _ = waiting.partition.lane.push(Command::FetchFailed {
        slot,
        id: waiting.id,
    });
}

fn take(waiting: &Waiting, answer: Answer, from: NodeId) {
    let result = match answer.result {
        Err(refusal) => Err(refusal),
        Ok(records) => match check(&records.batches) {
            Ok(batches) => Ok(Arrived {
                batches,
                high_watermark: records.high_watermark,
                log_start: records.log_start,
            }),
            Err(error) => {
                tracing::error!(
                    partition = %waiting.partition.id, leader = %from, %error,
                    "records from the leader are damaged; nothing of them was written; asking again"
                );
                waiting.partition.counters.corrupt_batches.inc();
                return failed(waiting);
            }
        },
    };
    let slot = waiting.partition.slot;
    let _ = waiting.partition.lane.push(Command::Fetched {
        slot,
        id: answer.id,
        result,
    });
}

/// Every batch, each with a right checksum. A batch that is cut short at the end is left out.
fn check(bytes: &bytes::Bytes) -> Result<Vec<Sequenced>, varve_record::BatchError> {
    let mut rest = bytes.clone();
    let mut batches = Vec::new();
    while !rest.is_empty() {
        let batch = StoredBatch::split_from(&rest)?;
        let _ = rest.split_to(batch.bytes.len());
        batches.push(Sequenced::from_stored(&batch.bytes)?);
    }
    Ok(batches)
}
