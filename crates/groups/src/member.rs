//! One member of a group: what it said, what it was granted, and the heartbeat it may be waiting on.
//! Knows no other member; the group decides.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use varve_types::{TopicName, TopicPartition};

use crate::codec::MemberRecord;
use crate::config::Config;
use crate::group::Env;
use crate::subscription::resolve;
use crate::{HeartbeatReply, Output, Reply, Subscription, Tick, Ticket};

/// A heartbeat whose answer is held.
#[derive(Debug)]
pub(crate) struct Parked {
    pub(crate) ticket: Ticket,
    pub(crate) until: Tick,
}

/// What a member that speaks the classic protocol has of it.
#[derive(Debug)]
pub(crate) struct ClassicSide {
    /// Ways to assign it knows, most preferred first, each with what it said with it.
    pub(crate) protocols: Vec<(String, Vec<u8>)>,
    /// It has been told what to give up, and its time for that runs.
    pub(crate) revoking: bool,
    /// It has joined and not asked for its assignment since, and its time for that runs.
    pub(crate) unsynced: bool,
}

impl ClassicSide {
    pub(crate) const fn new(protocols: Vec<(String, Vec<u8>)>) -> Self {
        Self {
            protocols,
            revoking: false,
            unsynced: false,
        }
    }

    /// The protocol it likes best, and what it said with that.
    pub(crate) fn first(&self) -> (&str, &[u8]) {
        let first = self.protocols.first();
        first.map_or(("", &[]), |(name, metadata)| (name, metadata))
    }
}

#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) instance: Option<String>,
    pub(crate) client_id: Arc<str>,
    pub(crate) peer: Option<SocketAddr>,
    pub(crate) subscription: Subscription,
    /// The subscription with its pattern resolved.
    pub(crate) topics: BTreeSet<TopicName>,
    pub(crate) session_timeout_ms: u64,
    pub(crate) rebalance_timeout_ms: u64,
    pub(crate) epoch: i32,
    /// Epoch the member last presented: it is accepted again when our reply was lost.
    pub(crate) presented: i32,
    pub(crate) granted: BTreeSet<TopicPartition>,
    /// Epochs at which it was granted what it holds. Where none is known, its present one stands for it.
    pub(crate) since: BTreeMap<TopicPartition, i32>,
    pub(crate) target: BTreeSet<TopicPartition>,
    /// What the member last said it owns.
    pub(crate) reported: BTreeSet<TopicPartition>,
    pub(crate) heard: Tick,
    pub(crate) expires: Tick,
    /// Set while the member has been told to give something up and has not. One that speaks the classic
    /// protocol has this long for its next step: to join again, or to ask for its assignment.
    pub(crate) revoke_by: Option<Tick>,
    pub(crate) parked: Option<Parked>,
    /// A static member that left and whose partitions wait for it.
    pub(crate) departed: bool,
    /// Rack, as it said.
    pub(crate) rack: String,
    /// Replies to it that wait for a write.
    pub(crate) held: usize,
    /// It was read from the log and has not said since what it owns: `reported` is a guess.
    pub(crate) unheard: bool,
    /// It was read from the log and not answered since.
    pub(crate) greet: bool,
    /// Set if it speaks the classic protocol.
    pub(crate) classic: Option<ClassicSide>,
}

impl Member {
    /// What it may own now. Anything granted outside its target is being taken back.
    pub(crate) fn assignment(&self) -> BTreeSet<TopicPartition> {
        self.granted.intersection(&self.target).cloned().collect()
    }

    /// Whether the partition has been its own from an epoch on without a break.
    pub(crate) fn holds_since(&self, partition: &TopicPartition, epoch: i32) -> bool {
        self.since
            .get(partition)
            .is_some_and(|since| *since <= epoch)
    }

    /// The session begins anew.
    pub(crate) fn alive(&mut self, now: Tick) {
        self.heard = now;
        self.expires = now.plus(self.session_timeout_ms);
    }

    /// It holds what it is not meant to own any more.
    pub(crate) fn is_unrevoked(&self) -> bool {
        !self.granted.is_subset(&self.target)
    }

    pub(crate) fn interval_ms(&self, config: &Config) -> u64 {
        config
            .heartbeat_interval_ms
            .min(self.session_timeout_ms / 3)
            .max(1)
    }

    pub(crate) fn settled(&self) -> bool {
        self.epoch == self.presented && self.assignment() == self.reported && !self.greet
    }

    pub(crate) fn deadline(&self) -> Option<Tick> {
        if let Some(parked) = &self.parked {
            return Some(self.revoke_by.map_or(parked.until, |t| t.min(parked.until)));
        }
        let silent = self.revoke_by.map_or(self.expires, |t| t.min(self.expires));
        (self.held == 0).then_some(silent)
    }

    /// Whether it has not been heard of in time, or has not given up in time what it was asked for. Not
    /// while it waits for us.
    pub(crate) fn is_lost(&self, now: Tick) -> bool {
        let stubborn = self.revoke_by.is_some_and(|t| t <= now);
        let silent = self.parked.is_none() && self.expires <= now;
        self.held == 0 && (stubborn || silent)
    }

    pub(crate) fn reply(&self, config: &Config) -> Reply {
        let assignment = self.assignment();
        Reply::Heartbeat(HeartbeatReply {
            member_epoch: self.epoch,
            assignment: (self.unheard || assignment != self.reported)
                .then(|| assignment.into_iter().collect()),
            heartbeat_interval_ms: self.interval_ms(config),
            session_timeout_ms: self.session_timeout_ms,
        })
    }

    /// Answers the parked heartbeat, if there is one; the session counts from the answer.
    pub(crate) fn unpark(&mut self, now: Tick, config: &Config, out: &mut Vec<Output>) {
        if let Some(parked) = self.parked.take() {
            self.expires = now.plus(self.session_timeout_ms);
            self.greet = false;
            out.push(Output::Reply {
                ticket: parked.ticket,
                reply: self.reply(config),
            });
        }
    }
}

/// Session timeout of a member that asks for this one, milliseconds.
pub(crate) fn session_timeout(given: Option<u64>, config: &Config) -> u64 {
    given.map_or(config.session_timeout_ms, |ms| {
        ms.clamp(config.session_timeout_min_ms, config.session_timeout_max_ms)
    })
}

pub(crate) fn new_member(instance: Option<String>, env: Env<'_>) -> Member {
    Member {
        instance,
        client_id: Arc::from(""),
        peer: None,
        subscription: Subscription::default(),
        topics: BTreeSet::new(),
        session_timeout_ms: env.config.session_timeout_ms,
        rebalance_timeout_ms: env.config.rebalance_timeout_ms,
        epoch: 0,
        presented: 0,
        granted: BTreeSet::new(),
        since: BTreeMap::new(),
        target: BTreeSet::new(),
        reported: BTreeSet::new(),
        heard: env.now,
        expires: env.now,
        revoke_by: None,
        parked: None,
        departed: false,
        rack: String::new(),
        held: 0,
        unheard: false,
        greet: false,
        classic: None,
    }
}

/// A member as the log has it. Its session begins anew; what it owns it will say.
pub(crate) fn restored(record: MemberRecord, env: Env<'_>) -> Member {
    let subscription = Subscription {
        topics: record.topics,
        pattern: record.pattern,
        assignor: record.assignor,
    };
    // A pattern that cannot be resolved was accepted once: what is named stays.
    let topics = resolve(env, &subscription)
        .unwrap_or_else(|_| subscription.topics.iter().cloned().collect());
    let session_timeout_ms =
        session_timeout(Some(record.session_timeout_ms.unsigned_abs()), env.config);
    // One that speaks the classic protocol says what it owns when it joins, and only then.
    let says = !record.departed && record.classic.is_none();
    Member {
        instance: record.instance.filter(|i| !i.is_empty()),
        client_id: Arc::from(record.client_id),
        peer: record.peer.parse().ok(),
        subscription,
        topics,
        session_timeout_ms,
        rebalance_timeout_ms: record.rebalance_timeout_ms.unsigned_abs(),
        epoch: record.epoch,
        presented: record.previous_epoch,
        granted: BTreeSet::new(),
        since: BTreeMap::new(),
        target: BTreeSet::new(),
        reported: BTreeSet::new(),
        heard: env.now,
        expires: env.now.plus(session_timeout_ms),
        revoke_by: None,
        parked: None,
        departed: record.departed,
        rack: record.rack,
        held: 0,
        unheard: says,
        greet: says,
        classic: record.classic.map(ClassicSide::new),
    }
}
