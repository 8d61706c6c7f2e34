//! The passage of a group with members from the classic protocol to the consumer protocol, and back.
//!
//! Invariants: what a member may own before a passage it may own after it, and nobody else may (G1); epochs
//! and generations go on counting, and of two records of a group, one of either protocol, the right one has
//! the greater number, the classic one if they are the same. Never decides who leaves.

use std::collections::{BTreeMap, BTreeSet};

use varve_types::text::counted;
use varve_types::{ErrorKind, MemberId, TopicPartition};

use crate::classic::members::Peer;
use crate::classic::{Classic, ClassicError, ClassicState};
use crate::codec::{
    self, CONSUMER_PROTOCOL, ClassicRecord, CodecError, EmbeddedAssignment, EmbeddedSubscription,
};
use crate::group::{Env, Group, step};
use crate::member::{ClassicSide, Member, new_member};
use crate::{Failure, Heartbeat, Output, Subscription, Ticket};

/// Joins that wait for the generation of a group which has passed to the consumer protocol.
pub(crate) type Waiting = Vec<(MemberId, Ticket)>;

/// What a member of a classic group says that it owns, or was told to.
struct Claim {
    /// Generation it says it got that in. Of two that claim a partition the later one is right.
    generation: i32,
    member: MemberId,
    partitions: BTreeSet<TopicPartition>,
}

impl Group {
    /// The members of a classic group as members of a consumer group, when this heartbeat makes it one.
    ///
    /// # Errors
    /// `GroupProtocolMismatch` when it may not become one, and why it may not be joined. Nothing was changed.
    pub(crate) fn plan_upgrade(
        &self,
        env: Env<'_>,
        heartbeat: &Heartbeat,
    ) -> Result<Option<BTreeMap<MemberId, Member>>, Failure> {
        let populated = |c: &&Classic| !c.members.is_empty();
        let Some(classic) = self.classic.as_ref().filter(populated) else {
            return Ok(None);
        };
        if heartbeat.member_epoch > 0 {
            // It is told that it is no member: then it gives up what it owns.
            return Ok(None);
        }
        if !env.config.migration.upgrades() {
            let policy = env.config.migration;
            return Err(self.stays_classic(&format!(
                "and group.consumer.migration.policy is {policy} here; join with that protocol, \
                 stop those members first, or change the policy"
            )));
        }
        if classic.protocol_type != CONSUMER_PROTOCOL {
            return Err(self.stays_classic(&format!(
                "for the protocol type {:?}, which is not {CONSUMER_PROTOCOL}; use another group",
                classic.protocol_type
            )));
        }
        self.check_id(&heartbeat.member)?;
        let instance = heartbeat.instance.as_ref().filter(|i| !i.is_empty());
        if !instance.is_some_and(|i| classic.instances.contains_key(i)) {
            self.check_room(env, &heartbeat.member)?;
        }
        classic.converted(env).map(Some).map_err(|(id, error)| {
            self.stays_classic(&format!(
                "and the subscription of member {id} in it cannot be read: {error}; join with that \
                 protocol, or stop that member first"
            ))
        })
    }

    fn stays_classic(&self, why: &str) -> Failure {
        Failure::new(
            ErrorKind::GroupProtocolMismatch,
            format!(
                "group {} has {} with the classic group protocol, {why}",
                self.name,
                counted(self.member_count(), "member")
            ),
        )
        .with("group", &self.name)
    }

    /// The group speaks the consumer protocol from now on, with the same members. Who waits for an assignment
    /// is told to join again; who waits to join is answered once there is a target.
    pub(crate) fn upgrade(
        &mut self,
        env: Env<'_>,
        members: BTreeMap<MemberId, Member>,
        out: &mut Vec<Output>,
    ) -> Waiting {
        let mut waiting = Waiting::new();
        if let Some(classic) = &mut self.classic {
            let mut step = step(env, out);
            for (id, peer) in &mut classic.members {
                if let Some(ticket) = peer.syncing.take() {
                    step.refuse(ticket, ClassicError::RebalanceInProgress);
                }
                let ticket = peer.joining.take();
                waiting.extend(ticket.map(|ticket| (id.clone(), ticket)));
            }
            self.instances = std::mem::take(&mut classic.instances);
        }
        self.leave_classic();
        for (id, member) in members {
            for partition in &member.granted {
                let before = self.owners.insert(partition.clone(), id.clone());
                assert!(before.is_none(), "G1: {partition} is granted twice");
            }
            self.journal.mark(&id);
            self.members.insert(id, member);
        }
        self.empty_since = None;
        self.dirty = true;
        waiting
    }

    /// Whether nobody speaks the consumer protocol any more, and the group may become a classic one.
    pub(crate) fn passes_back(&self, env: Env<'_>) -> bool {
        env.config.migration.downgrades()
            && !self.members.is_empty()
            && self.members.values().all(|m| m.classic.is_some())
    }

    /// The group speaks the classic protocol from now on, with the same members, which are to join again.
    /// They learn that with their next heartbeats, in the generation they have.
    pub(crate) fn downgrade(&mut self, env: Env<'_>, out: &mut Vec<Output>) {
        let mut classic = Classic::new(self.epoch);
        CONSUMER_PROTOCOL.clone_into(&mut classic.protocol_type);
        classic.instances = std::mem::take(&mut self.instances);
        classic.promised = std::mem::take(&mut self.promised);
        for (id, member) in std::mem::take(&mut self.members) {
            self.journal.mark(&id);
            classic.members.insert(id, Peer::passed(member));
        }
        self.owners.clear();
        self.subscribed.clear();
        classic.protocol = classic.vote();
        classic.leader = classic.members.keys().next().cloned();
        classic.state = ClassicState::Stable;
        classic.written = Some(ClassicRecord {
            leader: None,
            ..classic.record()
        });
        self.passed = true;
        self.journal.passes();
        self.classic_over = false;
        classic.prepare_rebalance(&mut step(env, out));
        self.classic = Some(classic);
    }
}

impl Classic {
    /// The members as those of a consumer group at the epoch of this generation.
    ///
    /// # Errors
    /// The first member whose metadata or assignment is not that of a consumer.
    fn converted(
        &self,
        env: Env<'_>,
    ) -> Result<BTreeMap<MemberId, Member>, (MemberId, CodecError)> {
        let mut members = BTreeMap::new();
        let mut claims = Vec::new();
        for (id, peer) in &self.members {
            let side = ClassicSide::new(peer.protocols.clone());
            let said = match peer.metadata(&self.protocol) {
                [] => side.first().1,
                said => said,
            };
            let unreadable = |error| (id.clone(), error);
            let subscription = codec::decode_subscription(said).map_err(unreadable)?;
            let mut claim = |generation, partitions| {
                claims.push(Claim {
                    generation,
                    member: id.clone(),
                    partitions,
                });
            };
            // What was assigned in a generation that is not settled has not been told to anybody.
            if self.state != ClassicState::CompletingRebalance && !peer.assignment.is_empty() {
                let assigned = codec::decode_assignment(&peer.assignment).map_err(unreadable)?;
                claim(self.generation, codec::partition_set(&assigned.partitions));
            }
            let owned = codec::partition_set(&subscription.owned);
            let known = (0..=self.generation).contains(&subscription.generation);
            if self.generation > 0 {
                let generation = if known { subscription.generation } else { -1 };
                claim(generation, owned.clone());
            }
            let epoch = peer.former.unwrap_or(self.generation);
            let mut member = peer.converted(env, epoch, subscription, side);
            // Who waits to join owns what it says; of others it is not known what they have let go.
            if peer.joining.is_some() {
                member.reported = owned;
            }
            members.insert(id.clone(), member);
        }
        grant(&mut members, claims);
        for (id, member) in &mut members {
            member.target = member.granted.clone();
            if self.members.get(id).is_some_and(|p| p.joining.is_none()) {
                member.reported = member.granted.clone();
            }
        }
        Ok(members)
    }
}

/// Each partition to the one with the latest claim; of several, to the first.
fn grant(members: &mut BTreeMap<MemberId, Member>, mut claims: Vec<Claim>) {
    claims.sort_by_key(|claim| std::cmp::Reverse(claim.generation));
    let mut taken = BTreeSet::new();
    for claim in claims {
        let Some(member) = members.get_mut(&claim.member) else {
            continue;
        };
        for partition in claim.partitions {
            if taken.insert(partition.clone()) {
                member.granted.insert(partition);
            }
        }
    }
}

impl Peer {
    /// This member in a group of the consumer protocol, with nothing granted yet.
    fn converted(
        &self,
        env: Env<'_>,
        epoch: i32,
        subscription: EmbeddedSubscription,
        side: ClassicSide,
    ) -> Member {
        let topics = subscription.topics;
        Member {
            client_id: self.client_id.clone(),
            peer: self.peer,
            topics: topics.iter().cloned().collect(),
            subscription: Subscription {
                topics,
                ..Subscription::default()
            },
            session_timeout_ms: self.session_timeout_ms,
            rebalance_timeout_ms: self.rebalance_timeout_ms,
            epoch,
            presented: epoch,
            heard: self.heard,
            expires: self
                .deadline()
                .unwrap_or_else(|| env.now.plus(self.session_timeout_ms)),
            rack: subscription.rack.unwrap_or_default(),
            classic: Some(side),
            ..new_member(self.instance.clone(), env)
        }
    }
}

/// What a member of a consumer group that speaks the classic protocol is told to own.
pub(crate) fn assignment(version: i16, partitions: &BTreeSet<TopicPartition>) -> Vec<u8> {
    codec::encode_assignment(&EmbeddedAssignment {
        version,
        partitions: codec::by_topic(partitions),
        user_data: None,
    })
}
