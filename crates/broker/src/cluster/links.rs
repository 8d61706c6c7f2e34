//! The follower's side of replication: one connection to each leader, over which the fetches of all its
//! partitions go, and whose answers are checked and handed to the lanes.
//!
//! Invariants: a fetch is answered, or its core is told that it will not be; what does not pass its checksum
//! never reaches a lane; a connection that ended is made again by the next fetch, not by itself; replicas that a
//! move adds copy no faster than they may, all of them together, and no other replica waits for that; a fetch is
//! sent at once or never, since what it says of its log is soon old; of two fetches of a partition the newer waits.

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
use crate::throttles::Throttles;

/// A fetch that has had no answer for so long will have none.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);

/// How often a fetch that is held back is looked after: the replica may be in sync meanwhile, or gone.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

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
    pub(crate) moves: Throttles,
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
            moves: Throttles::new(move_bytes_per_second),
            closed: AtomicBool::new(false),
        })
    }

    /// The other nodes.
    pub(crate) fn peers(&self) -> &dyn Peers {
        &*self.peers
    }

    /// Sends a fetch; that of a replica which a move adds is held back until what it and its like have copied is
    /// paid for, and the lane is told then.
    pub(crate) fn fetch(
        &self,
        to: NodeId,
        partition: &Arc<Partition>,
        key: PartitionKey,
        id: FetchId,
        position: Position,
    ) {
        let pause = match partition.joining() {
            true => self.moves.spent(0, self.clock.now()),
            false => Duration::ZERO,
        };
        if pause.is_zero() {
            return self.send(to, partition, key, id, position);
        }
        let partition = Arc::clone(partition);
        self.runtime.spawn(async move {
            hold(&partition, pause).await;
            let slot = partition.slot;
            let _ = partition.lane.push(Command::FetchHeld { slot, id });
        });
    }

    /// Sends a fetch, whoever's it is. Others may have copied while it was held back: it is their turn to pay, not
    /// this one's to wait again.
    pub(crate) fn send(
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
            let present = link.waiting.get(&key);
            if present.is_some_and(|newer| newer.id > id) {
                // Its core has asked anew, and only the answer to that counts.
                return failed(&waiting);
            }
            if let Some(older) = link.waiting.insert(key, waiting) {
                failed(&older);
            }
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
                    self.moves.spent(bytes, self.clock.now());
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
                    tracing::warn!(
                        partition = %waiting.partition.id,
                        "the leader has not answered a fetch; fetching again"
                    );
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

/// Waits, for as long as the replica is one that has to.
async fn hold(partition: &Partition, pause: Duration) {
    let until = tokio::time::Instant::now() + pause;
    while partition.joining() && !partition.is_deleted() {
        let now = tokio::time::Instant::now();
        if now >= until {
            return;
        }
        tokio::time::sleep((until - now).min(LOOK_AGAIN)).await;
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
                    "records from the leader are damaged; none of them were written; fetching \
                     again"
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

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use varve_metadata::log::Later;
    use varve_metadata::{
        Command as Change, Event, FeatureRange, Heartbeat, Leadership, Output, ProposeError, State,
    };
    use varve_storage::ReadBuffers;
    use varve_types::{
        BrokerEpoch, DirectoryId, LeaderEpoch, Offset, PartitionId, TopicConfig, TopicId,
        TopicPartition,
    };
    use varve_vfs::ManualClock;

    use super::*;
    use crate::inbox::Inbox;
    use crate::metrics::Metrics;
    use crate::peer::{
        Incoming, MarkerOrder, MarkerOutcome, Outgoing, PeerError, Records, Registration,
    };

    /// Metadata that know one node and never change.
    struct Fixed(State);

    impl MetadataLog for Fixed {
        fn look(&self, look: &mut dyn FnMut(&State)) {
            look(&self.0);
        }

        fn newer_than(&self, _version: u64) -> Later<'_, u64> {
            Box::pin(std::future::pending())
        }

        fn propose(&self, _command: Change) -> Later<'_, Result<Event, ProposeError>> {
            Box::pin(async { Err(ProposeError::NoLeader) })
        }

        fn catch_up(&self) -> Later<'_, Result<(), ProposeError>> {
            Box::pin(async { Err(ProposeError::NoLeader) })
        }

        fn leadership(&self) -> Leadership {
            Leadership::default()
        }

        fn leadership_after(&self, _seen: Leadership) -> Later<'_, Leadership> {
            Box::pin(std::future::pending())
        }
    }

    /// A leader that answers when it is told to.
    #[derive(Default)]
    struct Fake(Mutex<Option<(Outgoing, Incoming)>>);

    impl Peers for Fake {
        fn replicate(
            &self,
            _to: NodeId,
            _address: String,
            outgoing: Outgoing,
            incoming: Incoming,
        ) -> Later<'static, Result<(), PeerError>> {
            *self.0.lock() = Some((outgoing, incoming));
            Box::pin(std::future::pending())
        }

        fn heartbeat(
            &self,
            _to: NodeId,
            _address: String,
            _beat: Heartbeat,
        ) -> Later<'static, Result<Output, PeerError>> {
            Box::pin(std::future::pending())
        }

        fn register(
            &self,
            _to: NodeId,
            _address: String,
            _registration: Registration,
        ) -> Later<'static, Result<Result<(), varve_broker_api::Error>, PeerError>> {
            Box::pin(std::future::pending())
        }

        fn write_markers(
            &self,
            _to: NodeId,
            _address: String,
            _order: MarkerOrder,
        ) -> Later<'static, Result<Vec<MarkerOutcome>, PeerError>> {
            Box::pin(std::future::pending())
        }
    }

    const LEADER: NodeId = NodeId(2);
    const KEY: PartitionKey = PartitionKey {
        topic: TopicId(7),
        partition: PartitionId(0),
    };

    struct World {
        links: Arc<Links>,
        peers: Arc<Fake>,
        lane: Arc<Inbox<Command>>,
        partition: Arc<Partition>,
    }

    impl World {
        fn new(move_bytes_per_second: u64) -> Self {
            let mut state = State::default();
            let register = Change::RegisterNode {
                node: LEADER,
                incarnation: 1,
                directory: DirectoryId(1),
                address: "a:1".to_owned(),
                peer_address: "a:2".to_owned(),
                rack: String::new(),
                features: FeatureRange::THIS_PROGRAM,
                version: "1".to_owned(),
                clean: None,
            };
            varve_metadata::apply(&mut state, register).unwrap();
            let peers = Arc::new(Fake::default());
            let lane = Inbox::new();
            let id = TopicPartition::new("orders".parse().unwrap(), PartitionId(0));
            let partition = Partition::new(
                id,
                1,
                Arc::clone(&lane),
                TopicConfig::default(),
                &Metrics::new(),
                ReadBuffers::new(1),
                None,
            );
            let links = Links::new(
                Arc::clone(&peers) as Arc<dyn Peers>,
                Arc::new(Fixed(state)),
                Arc::new(ManualClock::new(0)),
                move_bytes_per_second,
            );
            Self {
                links,
                peers,
                lane,
                partition: Arc::new(partition),
            }
        }

        fn position(sequence: u64) -> Position {
            Position {
                from: NodeId(1),
                broker_epoch: BrokerEpoch::new(1).unwrap(),
                sequence,
                partition_epoch: 1,
                leader_epoch: LeaderEpoch::ZERO,
                log_end: Offset::ZERO,
                flushed: Offset::ZERO,
                last_epoch: None,
            }
        }

        fn send(&self, id: u64) {
            let position = Self::position(id);
            self.links
                .send(LEADER, &self.partition, KEY, FetchId(id), position);
        }

        /// Fetches that have been sent since the last call.
        fn sent(&self) -> Vec<u64> {
            let mut sent = Vec::new();
            if let Some((outgoing, _)) = &mut *self.peers.0.lock() {
                while let Ok(message) = outgoing.try_recv() {
                    if let ToLeader::Fetch { id, .. } = message {
                        sent.push(id.0);
                    }
                }
            }
            sent
        }

        fn answer(&self, id: u64, bytes: usize) {
            let answer = Answer {
                partition: KEY,
                id: FetchId(id),
                result: match bytes {
                    0 => Err(varve_partition::FetchRefusal::NotLeader),
                    _ => Ok(Records {
                        batches: vec![0; bytes].into(),
                        high_watermark: Offset::ZERO,
                        log_start: Offset::ZERO,
                    }),
                },
            };
            let incoming = self.peers.0.lock().as_ref().map(|(_, i)| Arc::clone(i));
            incoming.unwrap()(vec![answer]);
        }

        /// What the lane was told since the last call.
        fn told(&self) -> Vec<(&'static str, u64)> {
            let mut commands = VecDeque::new();
            self.lane.try_take(false, &mut commands);
            let told = commands.into_iter().filter_map(|command| match command {
                Command::Fetched { id, .. } => Some(("answered", id.0)),
                Command::FetchFailed { id, .. } => Some(("failed", id.0)),
                Command::FetchHeld { id, .. } => Some(("held", id.0)),
                _ => None,
            });
            told.collect()
        }

        /// So many things that it is told some time, in order.
        async fn told_later(&self, count: usize) -> Vec<(&'static str, u64)> {
            let mut told = Vec::new();
            while told.len() < count {
                tokio::time::sleep(Duration::from_millis(10)).await;
                told.extend(self.told());
            }
            told.sort_unstable();
            told
        }
    }

    #[tokio::test]
    async fn the_newer_of_two_fetches_waits_whichever_comes_first() {
        let world = World::new(0);
        world.send(6);
        world.send(5);
        assert_eq!((world.sent(), world.told()), (vec![6], vec![("failed", 5)]));
        world.answer(6, 0);
        assert_eq!(world.told(), [("answered", 6)]);
        world.send(7);
        world.send(8);
        assert_eq!(
            (world.sent(), world.told()),
            (vec![7, 8], vec![("failed", 7)])
        );
        world.answer(7, 0);
        world.answer(8, 0);
        assert_eq!(world.told(), [("answered", 8)]);
    }

    #[tokio::test]
    async fn a_fetch_that_has_to_wait_is_not_sent_late_but_asked_afresh() {
        let world = World::new(1_000);
        world.partition.set_joining(true);
        let fetch = |id| {
            let (partition, position) = (&world.partition, World::position(id));
            world
                .links
                .fetch(LEADER, partition, KEY, FetchId(id), position);
        };
        fetch(1);
        assert_eq!(world.sent(), [1], "nothing is to be paid for yet");
        // What is not even a batch was copied all the same.
        world.answer(1, 400);
        assert_eq!(world.told(), [("failed", 1)]);
        // The same leader begins another epoch meanwhile, and the core asks anew.
        fetch(2);
        fetch(3);
        assert_eq!((world.sent(), world.told()), (vec![], vec![]));
        assert_eq!(world.told_later(2).await, [("held", 2), ("held", 3)]);
        assert_eq!(world.sent(), [0; 0]);
        world.send(4);
        assert_eq!(world.sent(), [4]);
        world.answer(4, 3_600_000);
        assert_eq!(world.told(), [("failed", 4)]);
        // In sync, it waits for nothing.
        fetch(5);
        world.partition.set_joining(false);
        assert_eq!(world.told_later(1).await, [("held", 5)]);
    }
}
