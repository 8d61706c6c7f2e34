//! Which coordinator answers for a group. On a node that is alone there is one for all groups; in a cluster
//! there is one for each partition of `__consumer_offsets`, on the node that leads it, from the first call or look
//! (whichever is first) in a leadership to its end.
//!
//! Invariants: a coordinator has read everything that is committed in its partition before it answers; it
//! answers for one leadership only; what it appends is refused in any other, and what it tells of offsets, or sends a
//! member away for, was confirmed by the quorum; a caller that comes to the wrong node is told the right one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use varve_broker_api::Error;
use varve_groups::{ClassicError, Input, Reply, Survey, Ticket};
use varve_types::{
    ErrorKind, GroupName, LeaderEpoch, PartitionId, TopicId, TopicPartition, partitioner,
};
use varve_vfs::Clock;

use crate::config::BrokerConfig;
use crate::coordinator::{Groups, group_of};
use crate::internal_topic::{Ended, InternalTopic, OFFSETS};
use crate::leaderships::{Leaderships, Subject, moved};
use crate::node_count::NodeCount;
use crate::partition::Partition;
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
    led: Leaderships<Groups>,
    /// Groups of all of them.
    count: NodeCount,
    draining: AtomicBool,
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
        let count = NodeCount::default();
        let all = registry.cluster().is_none().then(|| {
            let offsets =
                InternalTopic::offsets(Arc::clone(&registry), Arc::clone(&clock), &config);
            Groups::start(
                groups.clone(),
                Arc::clone(&registry),
                offsets,
                Arc::clone(&clock),
                None,
                count.share(),
            )
        });
        let coordinators = Arc::new(Self {
            led: Leaderships::new(OFFSETS, Arc::clone(&registry)),
            registry,
            count,
            groups,
            clock,
            config,
            tickets,
            all,
            draining: AtomicBool::new(false),
        });
        if coordinators.all.is_none() {
            let weak = Arc::downgrade(&coordinators);
            crate::work::spawn(async move {
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
        // By the answer a member knows that it has its partitions for another session. From a coordinator that was
        // replaced it would have them while the next one, which does not hear of it, gives them to others.
        let keeps = matches!(input, Input::Heartbeat { .. });
        let (groups, number, epoch) = self.of(&group, creates).await?;
        let answer = groups.call(ticket, input).await;
        // An unknown group is told as much as a known one; and whoever is sent away gives up what it works on.
        let newest = tells || keeps || sends_away(&answer);
        match answer {
            Ok(_) | Err(_) if newest && !self.led.confirmed(number, epoch).await => {
                let subject = subject(&group);
                Err(self
                    .led
                    .elsewhere(subject)
                    .unwrap_or_else(|| subject.unconfirmed()))
            }
            Err(error) if moved(error.kind) => {
                let subject = subject(&group);
                Err(self
                    .led
                    .elsewhere(subject)
                    .unwrap_or_else(|| subject.again(error)))
            }
            answer => answer,
        }
    }

    /// Groups that this node coordinates.
    pub(crate) fn count(&self) -> usize {
        self.count.get()
    }

    /// What metrics show of the groups that are coordinated here, of at most so many more than their number. It may be
    /// that of a leadership which is over. `None` when no coordinator answers.
    pub(crate) async fn survey(&self, most: usize) -> Option<Survey> {
        let led = match &self.all {
            Some(_) => Vec::new(),
            None => self.led.here(|number, epoch| self.begin(number, epoch)),
        };
        let mut all: Option<Survey> = None;
        for groups in self.all.iter().chain(&led) {
            let ticket = Ticket(self.tickets.fetch_add(1, Ordering::Relaxed));
            let answer = groups.call(ticket, Input::Survey { ticket, most }).await;
            if let Ok(Reply::Survey(some)) = answer {
                all.get_or_insert_default().merge(*some, most);
            }
        }
        all
    }

    /// Groups that are coordinated here.
    async fn list(&self, ticket: Ticket) -> Result<Reply, Error> {
        let mut all = Vec::new();
        for groups in self.led.here(|number, epoch| self.begin(number, epoch)) {
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
        // Another node may have made the topic, and this one not have heard of it yet.
        if !self.led.exists() && (creates || self.registry.cluster().is_some()) {
            self.offsets().create().await?;
        }
        let (number, epoch, _) = self.led.place(subject(group))?;
        let groups = self
            .led
            .of(number, epoch, |number, epoch| self.begin(number, epoch));
        Ok((groups, number, epoch))
    }

    fn begin(&self, number: PartitionId, epoch: LeaderEpoch) -> Groups {
        Groups::start(
            self.groups.clone(),
            Arc::clone(&self.registry),
            self.offsets(),
            Arc::clone(&self.clock),
            Some((number, epoch)),
            self.count.share(),
        )
    }

    fn offsets(&self) -> InternalTopic {
        InternalTopic::offsets(
            Arc::clone(&self.registry),
            Arc::clone(&self.clock),
            &self.config,
        )
    }

    /// The partition that a group's offsets are in, and the id of its topic, whoever leads it. Made if there is none
    /// yet.
    ///
    /// # Errors
    /// Those of making a topic.
    pub(crate) async fn home_of(
        &self,
        group: &GroupName,
    ) -> Result<(TopicId, TopicPartition), Error> {
        let offsets = self.offsets();
        let count = offsets.partition_count().await?;
        let number = partitioner::coordinator_partition(group.as_str(), count);
        let topic = self.registry.topic(offsets.name())?;
        let id = TopicPartition::new(offsets.name().clone(), number);
        Ok((topic.info.id, id))
    }

    /// The partition that a group's offsets are in, and the id of its topic, if this node leads it. Made if there is
    /// none yet.
    ///
    /// # Errors
    /// `NotCoordinator`, `CoordinatorLoading`, and those of making a topic.
    pub(crate) async fn home(&self, group: &GroupName) -> Result<(TopicId, Arc<Partition>), Error> {
        if !self.led.exists() {
            self.offsets().create().await?;
        }
        let (_, _, partition) = self.led.place(subject(group))?;
        let topic = self.registry.topic(&partition.id.topic)?;
        Ok((topic.info.id, partition))
    }

    /// The marker that ends a producer's transaction is committed in this partition of the topic. Returns once what
    /// comes to the coordinator later comes after it.
    pub(crate) async fn transaction_ended(&self, partition: &Partition, end: Ended) {
        let number = partition.id.partition;
        let groups = match (&self.all, partition.leading()) {
            (Some(all), _) => all.clone(),
            (None, Some(epoch)) => self
                .led
                .of(number, epoch, |number, epoch| self.begin(number, epoch)),
            // Whoever leads now reads it in the log.
            (None, None) => return,
        };
        groups.transaction_ended(number, end).await;
    }

    /// Ends the coordinators of leaderships that are over, and starts those of new ones: members come back to a
    /// coordinator that has read its offsets already, and offsets expire in groups that nobody calls.
    fn sweep(&self) {
        self.led.forget_ended();
        if !self.draining.load(Ordering::SeqCst) {
            self.led.here(|number, epoch| self.begin(number, epoch));
        }
    }

    /// Answers everything that is parked and parks nothing more.
    pub(crate) async fn drain(&self) {
        self.draining.store(true, Ordering::SeqCst);
        for groups in self.all.iter().cloned().chain(self.led.running()) {
            groups.drain().await;
        }
    }
}

/// Whether a member is refused by what the coordinator remembers: its successor may know the member, or a later epoch
/// of it.
fn sends_away(answer: &Result<Reply, Error>) -> bool {
    match answer {
        Err(error) => matches!(
            error.kind,
            ErrorKind::UnknownMember
                | ErrorKind::FencedMemberEpoch
                | ErrorKind::StaleMemberEpoch
                | ErrorKind::InstanceIdInUse
        ),
        Ok(Reply::ClassicFailed(why)) => is_unknown(why),
        Ok(Reply::ClassicLeft(left)) => left.iter().any(|one| one.as_ref().is_err_and(is_unknown)),
        Ok(_) => false,
    }
}

const fn is_unknown(why: &ClassicError) -> bool {
    matches!(
        why,
        ClassicError::UnknownMember
            | ClassicError::IllegalGeneration
            | ClassicError::FencedInstance
    )
}

fn subject(group: &GroupName) -> Subject<'_> {
    Subject {
        what: "group",
        key: "group",
        name: group.as_str(),
    }
}

#[cfg(test)]
#[path = "coordinators_migration.rs"]
mod migration;
