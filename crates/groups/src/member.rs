//! One member of a group: what it said, what it was granted, and the heartbeat it may be waiting on.
//! Knows no other member; the group decides.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use varve_types::{TopicName, TopicPartition};

use crate::coordinator::Config;
use crate::group::Env;
use crate::{Heartbeat, HeartbeatReply, Output, Reply, Subscription, Tick, Ticket};

/// A heartbeat whose answer is held.
#[derive(Debug)]
pub(crate) struct Parked {
    pub(crate) ticket: Ticket,
    pub(crate) until: Tick,
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
    pub(crate) target: BTreeSet<TopicPartition>,
    /// What the member last said it owns.
    pub(crate) reported: BTreeSet<TopicPartition>,
    pub(crate) heard: Tick,
    pub(crate) expires: Tick,
    /// Set while the member has been told to give something up and has not.
    pub(crate) revoke_by: Option<Tick>,
    pub(crate) parked: Option<Parked>,
    /// A static member that left and whose partitions wait for it.
    pub(crate) departed: bool,
}

impl Member {
    /// What it may own now. Anything granted outside its target is being taken back.
    pub(crate) fn assignment(&self) -> BTreeSet<TopicPartition> {
        self.granted.intersection(&self.target).cloned().collect()
    }

    pub(crate) fn interval_ms(&self, config: &Config) -> u64 {
        config
            .heartbeat_interval_ms
            .min(self.session_timeout_ms / 3)
            .max(1)
    }

    pub(crate) fn settled(&self) -> bool {
        self.epoch == self.presented && self.assignment() == self.reported
    }

    pub(crate) fn deadline(&self) -> Tick {
        let silent = self.parked.as_ref().map_or(self.expires, |p| p.until);
        self.revoke_by.map_or(silent, |t| t.min(silent))
    }

    pub(crate) fn reply(&self, config: &Config) -> Reply {
        let assignment = self.assignment();
        Reply::Heartbeat(HeartbeatReply {
            member_epoch: self.epoch,
            assignment: (assignment != self.reported).then(|| assignment.into_iter().collect()),
            heartbeat_interval_ms: self.interval_ms(config),
            session_timeout_ms: self.session_timeout_ms,
        })
    }

    /// Answers the parked heartbeat, if there is one; the session counts from the answer.
    pub(crate) fn unpark(&mut self, now: Tick, config: &Config, out: &mut Vec<Output>) {
        if let Some(parked) = self.parked.take() {
            self.expires = now.plus(self.session_timeout_ms);
            out.push(Output::Reply {
                ticket: parked.ticket,
                reply: self.reply(config),
            });
        }
    }
}

pub(crate) fn session_timeout(given: Option<u64>, config: &Config) -> u64 {
    given.map_or(config.session_timeout_ms, |ms| {
        ms.clamp(config.session_timeout_min_ms, config.session_timeout_max_ms)
    })
}

pub(crate) fn new_member(heartbeat: &Heartbeat, instance: Option<String>, env: Env<'_>) -> Member {
    Member {
        instance,
        client_id: heartbeat.client_id.clone(),
        peer: heartbeat.peer,
        subscription: Subscription::default(),
        topics: BTreeSet::new(),
        session_timeout_ms: env.config.session_timeout_ms,
        rebalance_timeout_ms: env.config.rebalance_timeout_ms,
        epoch: 0,
        presented: 0,
        granted: BTreeSet::new(),
        target: BTreeSet::new(),
        reported: BTreeSet::new(),
        heard: env.now,
        expires: env.now,
        revoke_by: None,
        parked: None,
        departed: false,
    }
}
