//! Which coordinator answers for a group. On a node that is alone there is one for all groups; in a cluster
//! there is one for each partition of `__consumer_offsets`, on the node that leads it, from the first call or look
//! (whichever is first) in a leadership to its end.
//!
//! Invariants: a coordinator has read everything that is committed in its partition before it answers; it
//! answers for one leadership only; what it appends is refused in any other, and what it tells was confirmed by
//! the quorum; a caller that comes to the wrong node is told the right one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use varve_broker_api::Error;
use varve_groups::{Input, Reply, Ticket, codec};
use varve_types::{ErrorKind, GroupName, LeaderEpoch, PartitionId, TopicPartition};
use varve_vfs::Clock;

use crate::config::BrokerConfig;
use crate::confirm::Confirm;
use crate::coordinator::{Groups, group_of};
use crate::offsets_topic::{self, OffsetsTopic};
use crate::registry::Registry;

/// How often leaderships that are over are looked for.
const SWEEP: Duration = Duration::from_millis(500);

/// The coordinators of this node.
pub(crate) struct Coordinators {
    registry: Arc<Registry>,
    groups: varve_groups::Config,
    clock: Arc<dyn Clock>,
    config: Arc<BrokerConfig>,
    tickets: Arc<AtomicU64>,
    /// On a node that is alone.
    all: Option<Groups>,
    led: Mutex<BTreeMap<PartitionId, (LeaderEpoch, Groups)>>,
    confirm: Confirm,
    draining: std::sync::atomic::AtomicBool,
}

impl Coordinators {
    /// Loads committed offsets on a node that is alone.
    pub(crate) fn start(
        groups: varve_groups::Config,
        registry: Arc<Registry>,
        clock: Arc<dyn Clock>,
        config: Arc<BrokerConfig>,
    ) -> Arc<Self> {
        let tickets = Arc::new(AtomicU64::new(1));
        let all = registry.cluster().is_none().then(|| {
            let offsets = OffsetsTopic::new(Arc::clone(&registry), Arc::clone(&clock), &config);
            Groups::start(
                groups.clone(),
                Arc::clone(&registry),
                offsets,
                Arc::clone(&clock),
                None,
            )
        });
        let coordinators = Arc::new(Self {
            registry,
            groups,
            clock,
            config,
            tickets,
            all,
            led: Mutex::default(),
            confirm: Confirm::default(),
            draining: false.into(),
        });
        if coordinators.all.is_none() {
            let weak = Arc::downgrade(&coordinators);
            tokio::spawn(async move {
                loop {
                    tokio::time::sleep(SWEEP).await;
                    match weak.upgrade() {
                        Some(coordinators) => coordinators.sweep(),
                        None => return,
                    }
                }
            });
        }
        coordinators
    }

    /// One call. Safe to drop. What is told of a group was the newest at some moment of the call.
    pub(crate) async fn call(&self, input: impl FnOnce(Ticket) -> Input) -> Result<Reply, Error> {
        self.ask(input, true).await
    }

    /// A call for people to look at: what it tells may be that of a leadership which is over.
    pub(crate) async fn look(&self, input: impl FnOnce(Ticket) -> Input) -> Result<Reply, Error> {
        self.ask(input, false).await
    }

    async fn ask(&self, input: impl FnOnce(Ticket) -> Input, newest: bool) -> Result<Reply, Error> {
        let ticket = Ticket(self.tickets.fetch_add(1, Ordering::Relaxed));
        let input = input(ticket);
        if let Some(all) = &self.all {
            return all.call(ticket, input).await;
        }
        let Some(group) = group_of(&input).cloned() else {
            return self.list(ticket).await;
        };
        let creates = matches!(
            input,
            Input::Commit { .. }
                | Input::TxnCommit { .. }
                | Input::Heartbeat { .. }
                | Input::ClassicJoin { .. }
        );
        let tells = matches!(input, Input::GetOffsets { .. } | Input::GetGroup { .. });
        let (groups, number, epoch) = self.of(&group, creates).await?;
        match groups.call(ticket, input).await {
            // An unknown group is told as much as a known one.
            Ok(_) | Err(_) if tells && newest && !self.leads(number, epoch).await => {
                Err(self.elsewhere(&group).unwrap_or_else(|| replaced(&group)))
            }
            Err(error) if moved(error.kind) => Err(self
                .elsewhere(&group)
                .unwrap_or_else(|| again(error, &group))),
            answer => answer,
        }
    }

    /// Groups that are coordinated here.
    async fn list(&self, ticket: Ticket) -> Result<Reply, Error> {
        // Those of a leadership that nobody has called yet are loaded now.
        let here: Vec<Groups> = match self.registry.topic(&OffsetsTopic::name()) {
            Ok(topic) => {
                let led = topic.partitions.iter();
                led.filter_map(|(number, p)| Some(self.leading(*number, p.leading()?)))
                    .collect()
            }
            Err(_) => Vec::new(),
        };
        let mut all = Vec::new();
        for groups in here {
            if let Ok(Reply::Groups(some)) = groups.call(ticket, Input::ListGroups { ticket }).await
            {
                all.extend(some);
            }
        }
        all.sort_by(|a, b| a.group.cmp(&b.group));
        Ok(Reply::Groups(all))
    }

    /// The coordinator of a group, if it is this node.
    async fn of(
        &self,
        group: &GroupName,
        creates: bool,
    ) -> Result<(Groups, PartitionId, LeaderEpoch), Error> {
        if self.draining.load(Ordering::SeqCst) {
            let text = "this node is shutting down; nothing was changed; ask another node";
            return Err(Error::new(ErrorKind::ShuttingDown, text));
        }
        let name = OffsetsTopic::name();
        let topic = match self.registry.topic(&name) {
            Ok(topic) => topic,
            Err(_) => {
                let offsets = self.offsets();
                if creates || self.registry.cluster().is_some() {
                    offsets.create(name.clone()).await?;
                }
                // Another node may have made it, and this one not have heard of it yet.
                self.registry
                    .topic(&name)
                    .map_err(|error| match self.registry.cluster() {
                        Some(_) => coordinator_error(error, group),
                        None => error,
                    })?
            }
        };
        let number = codec::partition_of(group, topic.info.partitions);
        let id = TopicPartition::new(name, number);
        let partition = self
            .registry
            .leading(&id)
            .map_err(|error| coordinator_error(error, group))?;
        let Some(epoch) = partition.leading() else {
            return Err(coordinator_error(self.registry.not_leading(&id), group));
        };
        Ok((self.leading(number, epoch), number, epoch))
    }

    /// Whether this node leads the partition in this epoch, as the newest metadata have it.
    async fn leads(&self, number: PartitionId, epoch: LeaderEpoch) -> bool {
        let Some(cluster) = self.registry.cluster() else {
            return true;
        };
        if !self.confirm.newest(&cluster.log).await {
            return false;
        }
        let id = TopicPartition::new(OffsetsTopic::name(), number);
        varve_metadata::log::read(&*cluster.log, |state| {
            let partition = state.partition(&id);
            partition.is_some_and(|p| p.leader == Some(cluster.me) && p.leader_epoch == epoch)
        })
    }

    /// The coordinator of one leadership, started when it is first asked for.
    fn leading(&self, number: PartitionId, epoch: LeaderEpoch) -> Groups {
        let mut led = self.led.lock();
        match led.get(&number) {
            Some((known, groups)) if *known == epoch => groups.clone(),
            _ => {
                let groups = Groups::start(
                    self.groups.clone(),
                    Arc::clone(&self.registry),
                    self.offsets(),
                    Arc::clone(&self.clock),
                    Some((number, epoch)),
                );
                led.insert(number, (epoch, groups.clone()));
                groups
            }
        }
    }

    fn offsets(&self) -> OffsetsTopic {
        OffsetsTopic::new(
            Arc::clone(&self.registry),
            Arc::clone(&self.clock),
            &self.config,
        )
    }

    /// Where a group's coordinator is, if it is not here.
    fn elsewhere(&self, group: &GroupName) -> Option<Error> {
        let name = OffsetsTopic::name();
        let topic = self.registry.topic(&name).ok()?;
        let number = codec::partition_of(group, topic.info.partitions);
        let error = self.registry.leading(&TopicPartition::new(name, number));
        error.err().map(|error| coordinator_error(error, group))
    }

    /// Ends the coordinators of leaderships that are over, and starts those of new ones: members come back to a
    /// coordinator that has read its offsets already, and offsets expire in groups that nobody calls.
    fn sweep(&self) {
        let name = OffsetsTopic::name();
        let topic = self.registry.topic(&name).ok();
        self.led.lock().retain(|number, (epoch, _)| {
            let partition = topic.as_ref().and_then(|t| t.partitions.get(number));
            partition.is_some_and(|p| p.leading() == Some(*epoch))
        });
        if self.draining.load(Ordering::SeqCst) {
            return;
        }
        for (number, partition) in topic.iter().flat_map(|t| &t.partitions) {
            if let Some(epoch) = partition.leading() {
                self.leading(*number, epoch);
            }
        }
    }

    /// Answers everything that is parked and parks nothing more.
    pub(crate) async fn drain(&self) {
        self.draining.store(true, Ordering::SeqCst);
        let mut all: Vec<Groups> = self.all.iter().cloned().collect();
        all.extend(self.led.lock().values().map(|(_, groups)| groups.clone()));
        for groups in all {
            groups.drain().await;
        }
    }
}

/// The coordinator is not, or no longer, where the call came.
const fn moved(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::NotLeader
            | ErrorKind::FencedLeaderEpoch
            | ErrorKind::ShuttingDown
            | ErrorKind::LeaderNotAvailable
    )
}

/// This node coordinates the group again, and the coordinator that was asked is of the time before.
fn again(error: Error, group: &GroupName) -> Error {
    if error.kind != ErrorKind::FencedLeaderEpoch {
        return error;
    }
    let text = format!(
        "the coordinator of group {:?} has just begun anew; nothing was changed; try again",
        group.as_str()
    );
    Error::new(ErrorKind::CoordinatorLoading, text).with("group", group)
}

/// What this node remembers of the group may be out of date.
fn replaced(group: &GroupName) -> Error {
    let text = format!(
        "this node cannot confirm that it still coordinates group {:?}; nothing was changed; try again, also at \
         other nodes",
        group.as_str()
    );
    Error::new(ErrorKind::CoordinatorLoading, text).with("group", group)
}

/// What is said of the partition of a group's offsets, said of its coordinator.
fn coordinator_error(error: Error, group: &GroupName) -> Error {
    let (kind, text) = match (error.kind, &error.leader) {
        (ErrorKind::NotLeader, Some(hint)) => (
            ErrorKind::NotCoordinator,
            format!(
                "node {} coordinates group {:?}, not this one; nothing was changed; ask it",
                hint.node,
                group.as_str()
            ),
        ),
        _ => (
            ErrorKind::CoordinatorLoading,
            format!(
                "group {:?} has no coordinator at present: its partition of {} has no leader; nothing was changed; try again",
                group.as_str(),
                offsets_topic::NAME
            ),
        ),
    };
    Error {
        leader: error.leader,
        ..Error::new(kind, text).with("group", group)
    }
}
