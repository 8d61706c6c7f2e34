//! Coordinators of one internal topic: one for each partition that this node leads, from the first call or look
//! (whichever is first) in a leadership to its end; and where to go for what another node coordinates.
//!
//! Invariants: a coordinator answers for one leadership only; a caller that comes to the wrong node is told the
//! right one, if there is one.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use varve_broker_api::Error;
use varve_types::{ErrorKind, LeaderEpoch, PartitionId, TopicName, TopicPartition, partitioner};

use crate::confirm::Confirm;
use crate::internal_topic::name_of;
use crate::partition::Partition;
use crate::registry::Registry;

/// What is coordinated.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Subject<'a> {
    /// What it is, for people.
    pub(crate) what: &'static str,
    /// Key of its name in an error's metadata.
    pub(crate) key: &'static str,
    /// Its name.
    pub(crate) name: &'a str,
}

impl Subject<'_> {
    fn error(self, kind: ErrorKind, text: String) -> Error {
        Error::new(kind, text).with(self.key, self.name)
    }

    /// What is said of its partition, said of its coordinator.
    pub(crate) fn coordinator_error(self, error: Error, topic: &TopicName) -> Error {
        let Self { what, name, .. } = self;
        let (kind, text) = match (error.kind, &error.leader) {
            (ErrorKind::NotLeader, Some(hint)) => (
                ErrorKind::NotCoordinator,
                format!(
                    "node {} coordinates {what} {name:?}, not this one; nothing was changed; ask \
                     that node",
                    hint.node,
                ),
            ),
            _ => (
                ErrorKind::CoordinatorLoading,
                format!(
                    "{what} {name:?} has no coordinator at present because its partition of \
                     {topic} has no leader; nothing was changed; try again",
                ),
            ),
        };
        Error {
            leader: error.leader,
            ..self.error(kind, text)
        }
    }

    /// What this node remembers of it may be out of date.
    pub(crate) fn unconfirmed(self) -> Error {
        let text = format!(
            "this node cannot confirm that it still coordinates {} {:?}; nothing was changed; try \
             again, on another node if need be",
            self.what, self.name
        );
        self.error(ErrorKind::CoordinatorLoading, text)
    }

    /// This node coordinates it again, and the coordinator that was asked is of the time before.
    pub(crate) fn again(self, error: Error) -> Error {
        if error.kind != ErrorKind::FencedLeaderEpoch {
            return error;
        }
        let text = format!(
            "the coordinator of {} {:?} has just started again; nothing was changed; try again",
            self.what, self.name
        );
        self.error(ErrorKind::CoordinatorLoading, text)
    }
}

/// What those who wait for a coordinator's record are told of an append that failed. With its log the coordinator is
/// gone; the record may be with the replicas, and the next coordinator find it: "no" would be a lie, and a call that is
/// made again finds out.
pub(crate) fn unwritten(error: &Error) -> Error {
    if error.kind != ErrorKind::StorageError {
        return error.clone();
    }
    Error {
        kind: ErrorKind::CommitTimeout,
        message: format!("{}; repeat the call", error.message),
        ..error.clone()
    }
}

/// The coordinator is not, or no longer, where the call came.
pub(crate) const fn moved(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::NotLeader
            | ErrorKind::FencedLeaderEpoch
            | ErrorKind::ShuttingDown
            | ErrorKind::LeaderNotAvailable
    )
}

/// See the module. `H`: handle to a coordinator.
pub(crate) struct Leaderships<H> {
    topic: TopicName,
    registry: Arc<Registry>,
    led: Mutex<BTreeMap<PartitionId, (LeaderEpoch, H)>>,
    confirm: Confirm,
}

impl<H: Clone> Leaderships<H> {
    pub(crate) fn new(topic: &'static str, registry: Arc<Registry>) -> Self {
        Self {
            topic: name_of(topic),
            registry,
            led: Mutex::default(),
            confirm: Confirm::default(),
        }
    }

    /// The topic, if this node has heard of it.
    pub(crate) fn exists(&self) -> bool {
        self.registry.topic(&self.topic).is_ok()
    }

    /// Whether nobody has made the topic yet, as the newest metadata have it. `false` where that cannot be found out.
    pub(crate) async fn never_made(&self) -> bool {
        if self.exists() {
            return false;
        }
        let Some(cluster) = self.registry.cluster() else {
            return true;
        };
        self.confirm.newest(&cluster.log).await
            && varve_metadata::log::read(&*cluster.log, |state| state.topic(&self.topic).is_none())
    }

    /// The partition that a subject belongs to, and the leadership, if it is this node's.
    ///
    /// # Errors
    /// `NotCoordinator`, `CoordinatorLoading`.
    pub(crate) fn place(
        &self,
        subject: Subject<'_>,
    ) -> Result<(PartitionId, LeaderEpoch, Arc<Partition>), Error> {
        let because = |error| subject.coordinator_error(error, &self.topic);
        let topic = self.registry.topic(&self.topic).map_err(because)?;
        let number = partitioner::coordinator_partition(subject.name, topic.info.partitions);
        let id = TopicPartition::new(self.topic.clone(), number);
        let partition = self.registry.leading(&id).map_err(because)?;
        match partition.leading() {
            Some(epoch) => Ok((number, epoch, partition)),
            None => Err(because(self.registry.not_leading(&id))),
        }
    }

    /// Where a subject's coordinator is, if it is not here.
    pub(crate) fn elsewhere(&self, subject: Subject<'_>) -> Option<Error> {
        self.exists().then(|| self.place(subject).err()).flatten()
    }

    /// The coordinator of one leadership, started when it is first asked for.
    pub(crate) fn of(
        &self,
        number: PartitionId,
        epoch: LeaderEpoch,
        start: impl FnOnce(PartitionId, LeaderEpoch) -> H,
    ) -> H {
        let mut led = self.led.lock();
        match led.get(&number) {
            Some((known, handle)) if *known == epoch => handle.clone(),
            _ => {
                let handle = start(number, epoch);
                led.insert(number, (epoch, handle.clone()));
                handle
            }
        }
    }

    /// Those of every leadership of this node: what nobody has called yet is started now.
    pub(crate) fn here(&self, start: impl Fn(PartitionId, LeaderEpoch) -> H) -> Vec<H> {
        let Ok(topic) = self.registry.topic(&self.topic) else {
            return Vec::new();
        };
        let led = topic.partitions.iter();
        led.filter_map(|(number, p)| Some(self.of(*number, p.leading()?, &start)))
            .collect()
    }

    /// Those that are running.
    pub(crate) fn running(&self) -> Vec<H> {
        let led = self.led.lock();
        led.values().map(|(_, handle)| handle.clone()).collect()
    }

    /// Lets go of those whose leadership is over.
    pub(crate) fn forget_ended(&self) {
        let topic = self.registry.topic(&self.topic).ok();
        self.led.lock().retain(|number, (epoch, _)| {
            let partition = topic.as_ref().and_then(|t| t.partitions.get(number));
            partition.is_some_and(|p| p.leading() == Some(*epoch))
        });
    }

    /// Whether this node leads the partition in this epoch, as the newest metadata have it.
    pub(crate) async fn confirmed(&self, number: PartitionId, epoch: LeaderEpoch) -> bool {
        let Some(cluster) = self.registry.cluster() else {
            return true;
        };
        if !self.confirm.newest(&cluster.log).await {
            return false;
        }
        let id = TopicPartition::new(self.topic.clone(), number);
        varve_metadata::log::read(&*cluster.log, |state| {
            let partition = state.partition(&id);
            partition.is_some_and(|p| p.leader == Some(cluster.me) && p.leader_epoch == epoch)
        })
    }
}
