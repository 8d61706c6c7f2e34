//! Membership of one Consume stream in its group: what it owns, what it is giving up, and what the next
//! heartbeat says. Synchronous, with time as an argument; the stream around it does the waiting.
//!
//! Invariants: a partition is reported as owned until the client has confirmed its revocation, or the
//! time for that is over; a partition is never owned twice; after a fence nothing is owned.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;
use varve_broker_api::{Error, Heartbeat, HeartbeatReply, Isolation, Position, Subscription};
use varve_proto::v1;
use varve_types::{GroupName, MemberId, TopicPartition, limits};

use super::idle;
use crate::translate::fetch::{Encoding, OutOfRange, encoding};
use crate::translate::group::{instance, subscription};
use crate::translate::{Start, duration, group_name, isolation, member_id, start, unknown_enum};

/// Time to give up partitions, when the client names none.
const REBALANCE_DEFAULT: Duration = Duration::from_secs(60);

/// A ConsumeJoin, checked.
#[derive(Debug, Clone)]
pub struct Join {
    /// Group.
    pub group: GroupName,
    /// Member; chosen here when the client names none.
    pub member: MemberId,
    /// Stable instance id.
    pub instance: Option<String>,
    /// What to read.
    pub subscription: Subscription,
    /// Offsets are committed when records were handed to the transport.
    pub commit_on_delivery: bool,
    /// Where to begin without a committed offset.
    pub start: Position,
    /// Payload bytes before the first credit; `None`: no credit is kept.
    pub credit: Option<i64>,
    /// Silence after which the member is expelled; `None`: the group's default.
    pub session_timeout: Option<Duration>,
    /// Time to give up partitions.
    pub rebalance_timeout: Duration,
    /// Carrier.
    pub encoding: Encoding,
    /// Idle time before a Progress event.
    pub idle: Duration,
    /// Which records of transactions are delivered.
    pub isolation: Isolation,
}

impl Join {
    /// Reads a ConsumeJoin.
    ///
    /// # Errors
    /// `InvalidRequest` naming the field.
    pub fn read(join: &v1::ConsumeJoin) -> Result<Self, Error> {
        let commit_on_delivery = match v1::CommitMode::try_from(join.commit_mode) {
            Ok(v1::CommitMode::Unspecified | v1::CommitMode::Manual) => false,
            Ok(v1::CommitMode::OnDelivery) => true,
            Err(_) => return Err(unknown_enum("commit_mode", join.commit_mode)),
        };
        let credit = match join.initial_credit_bytes {
            0 => None,
            n if n > 0 => Some(n),
            n => {
                let text = format!("initial_credit_bytes must not be negative; found {n}");
                return Err(Error::invalid("initial_credit_bytes", text));
            }
        };
        let session_timeout = duration("session_timeout", join.session_timeout.as_ref())?;
        let (min, max) = (
            Duration::from_millis(limits::SESSION_TIMEOUT_MIN_MS),
            Duration::from_millis(limits::SESSION_TIMEOUT_MAX_MS),
        );
        if let Some(given) = session_timeout.filter(|t| *t < min || *t > max) {
            let text = format!("session_timeout must be {min:?} to {max:?}; found {given:?}");
            return Err(Error::invalid("session_timeout", text));
        }
        let rebalance = duration("rebalance_timeout", join.rebalance_timeout.as_ref())?;
        let member = match join.member_id.as_str() {
            "" => uuid::Uuid::new_v4().to_string(),
            id => id.to_owned(),
        };
        Ok(Self {
            group: group_name("group", &join.group)?,
            member: member_id("member_id", &member)?,
            instance: instance(&join.instance_id)?,
            subscription: subscription("topics", &join.topics, &join.topic_pattern, "")?,
            commit_on_delivery,
            start: match start("start", join.start.as_ref())? {
                Some(Start::At(position)) => position,
                Some(Start::Committed) | None => Position::Earliest,
            },
            credit,
            session_timeout,
            rebalance_timeout: rebalance
                .unwrap_or(REBALANCE_DEFAULT)
                .clamp(Duration::from_secs(1), max),
            encoding: encoding(join.encoding)?,
            idle: idle(join.idle_heartbeat.as_ref())?,
            isolation: isolation("isolation", join.isolation)?,
        })
    }

    /// Where to go on when a committed offset has left the log.
    #[must_use]
    pub const fn out_of_range(&self) -> OutOfRange {
        match self.start {
            Position::Latest => OutOfRange::Latest,
            _ => OutOfRange::Earliest,
        }
    }
}

/// What the client must be told, and the stream must do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// The member is in the group.
    Joined,
    /// Read these from now on.
    Assigned(Vec<TopicPartition>),
    /// Read these no more; the client will confirm.
    Revoking(i64, Vec<TopicPartition>),
    /// These are gone.
    Lost(Vec<TopicPartition>),
}

#[derive(Debug)]
struct Revocation {
    partitions: Vec<TopicPartition>,
    deadline: Instant,
}

/// The state of a member.
#[derive(Debug)]
pub struct Membership {
    join: Join,
    epoch: i32,
    joined: bool,
    owned: BTreeSet<TopicPartition>,
    revocations: BTreeMap<i64, Revocation>,
    next_revocation: i64,
}

impl Membership {
    /// A member that has not joined yet.
    #[must_use]
    pub const fn new(join: Join) -> Self {
        Self {
            join,
            epoch: 0,
            joined: false,
            owned: BTreeSet::new(),
            revocations: BTreeMap::new(),
            next_revocation: 1,
        }
    }

    /// Settings of the member.
    #[must_use]
    pub const fn join(&self) -> &Join {
        &self.join
    }

    /// Epoch to commit with.
    #[must_use]
    pub const fn epoch(&self) -> i32 {
        self.epoch
    }

    /// Whether a partition is owned, and its offsets may be committed.
    #[must_use]
    pub fn owns(&self, partition: &TopicPartition) -> bool {
        self.owned.contains(partition)
    }

    /// Whether a partition is owned and not being given up.
    #[must_use]
    pub fn reads(&self, partition: &TopicPartition) -> bool {
        self.owns(partition)
            && !self
                .revocations
                .values()
                .any(|r| r.partitions.contains(partition))
    }

    /// Whether nothing is left to confirm, so that the next heartbeat may be held.
    #[must_use]
    pub fn settled(&self) -> bool {
        self.epoch > 0 && self.revocations.is_empty()
    }

    /// The next heartbeat.
    #[must_use]
    pub fn heartbeat(&self, max_wait: Duration) -> Heartbeat {
        let joining = self.epoch == 0;
        Heartbeat {
            group: self.join.group.clone(),
            member: self.join.member.clone(),
            member_epoch: self.epoch,
            leave: false,
            keep_assignment: false,
            instance: self.join.instance.clone(),
            subscription: joining.then(|| self.join.subscription.clone()),
            owned: Some(self.owned.iter().cloned().collect()),
            rack: String::new(),
            session_timeout: self.join.session_timeout,
            rebalance_timeout: Some(self.join.rebalance_timeout),
            max_wait,
        }
    }

    /// The heartbeat that leaves.
    #[must_use]
    pub fn leave(&self) -> Heartbeat {
        Heartbeat {
            leave: true,
            keep_assignment: self.join.instance.is_some(),
            subscription: None,
            owned: None,
            ..self.heartbeat(Duration::ZERO)
        }
    }

    /// Takes in an answer.
    pub fn reply(&mut self, reply: &HeartbeatReply, now: Instant) -> Vec<Action> {
        let mut actions = Vec::new();
        self.epoch = reply.member_epoch;
        if !self.joined {
            self.joined = true;
            actions.push(Action::Joined);
        }
        let Some(assignment) = &reply.assignment else {
            return actions;
        };
        let target: BTreeSet<TopicPartition> = assignment.iter().cloned().collect();
        let gone: Vec<_> = self
            .owned
            .iter()
            .filter(|p| !target.contains(p) && self.reads(p))
            .cloned()
            .collect();
        let new: Vec<_> = target.difference(&self.owned).cloned().collect();
        if !gone.is_empty() {
            let id = self.next_revocation;
            self.next_revocation += 1;
            let deadline = now + self.join.rebalance_timeout;
            self.revocations.insert(
                id,
                Revocation {
                    partitions: gone.clone(),
                    deadline,
                },
            );
            actions.push(Action::Revoking(id, gone));
        }
        if !new.is_empty() {
            self.owned.extend(new.iter().cloned());
            actions.push(Action::Assigned(new));
        }
        actions
    }

    /// The client has confirmed a revocation. Returns whether there was one of that id.
    pub fn revoke_done(&mut self, id: i64) -> bool {
        let Some(revocation) = self.revocations.remove(&id) else {
            return false;
        };
        self.owned.retain(|p| !revocation.partitions.contains(p));
        true
    }

    /// Gives up what the client did not confirm in time.
    pub fn expire(&mut self, now: Instant) -> Option<Action> {
        let due: Vec<i64> = self
            .revocations
            .iter()
            .filter(|(_, r)| r.deadline <= now)
            .map(|(id, _)| *id)
            .collect();
        let mut lost = Vec::new();
        for id in due {
            if let Some(revocation) = self.revocations.remove(&id) {
                lost.extend(revocation.partitions);
            }
        }
        self.owned.retain(|p| !lost.contains(p));
        (!lost.is_empty()).then_some(Action::Lost(lost))
    }

    /// When the next unconfirmed revocation ends.
    #[must_use]
    pub fn next_expiry(&self) -> Option<Instant> {
        self.revocations.values().map(|r| r.deadline).min()
    }

    /// The group does not know this member any more: gives up everything, to join again.
    pub fn fenced(&mut self) -> Option<Action> {
        self.epoch = 0;
        self.revocations.clear();
        let lost: Vec<_> = std::mem::take(&mut self.owned).into_iter().collect();
        (!lost.is_empty()).then_some(Action::Lost(lost))
    }
}

#[cfg(test)]
mod tests {
    use varve_types::{PartitionId, TopicName};

    use super::*;

    fn tp(n: i32) -> TopicPartition {
        TopicPartition::new(TopicName::new("t").unwrap(), PartitionId(n))
    }

    fn member() -> Membership {
        let join = v1::ConsumeJoin {
            group: "g".to_owned(),
            topics: vec!["t".to_owned()],
            rebalance_timeout: Some(prost_types::Duration {
                seconds: 10,
                nanos: 0,
            }),
            ..Default::default()
        };
        Membership::new(Join::read(&join).unwrap())
    }

    fn reply(epoch: i32, assignment: Option<&[i32]>) -> HeartbeatReply {
        HeartbeatReply {
            member_epoch: epoch,
            assignment: assignment.map(|a| a.iter().copied().map(tp).collect()),
            heartbeat_interval: Duration::from_secs(3),
            session_timeout: Duration::from_secs(45),
        }
    }

    #[test]
    fn a_member_joins_gives_up_and_takes_over() {
        let now = Instant::now();
        let mut m = member();
        assert!(m.heartbeat(Duration::ZERO).subscription.is_some());
        let actions = m.reply(&reply(1, Some(&[0, 1])), now);
        assert_eq!(
            actions,
            [Action::Joined, Action::Assigned(vec![tp(0), tp(1)])]
        );
        assert!(m.heartbeat(Duration::ZERO).subscription.is_none());
        let actions = m.reply(&reply(2, Some(&[1])), now);
        assert_eq!(actions, [Action::Revoking(1, vec![tp(0)])]);
        assert!(m.owns(&tp(0)) && !m.reads(&tp(0)) && !m.settled());
        assert_eq!(m.heartbeat(Duration::ZERO).owned, Some(vec![tp(0), tp(1)]));
        assert!(m.reply(&reply(2, Some(&[1])), now).is_empty(), "said once");
        assert!(!m.revoke_done(7) && m.revoke_done(1));
        assert_eq!(m.heartbeat(Duration::ZERO).owned, Some(vec![tp(1)]));
        assert_eq!(
            m.reply(&reply(3, Some(&[0, 1])), now),
            [Action::Assigned(vec![tp(0)])]
        );
    }

    #[test]
    fn unconfirmed_partitions_are_lost_after_the_rebalance_timeout() {
        let now = Instant::now();
        let mut m = member();
        m.reply(&reply(1, Some(&[0, 1])), now);
        m.reply(&reply(2, Some(&[])), now);
        assert_eq!(m.expire(now + Duration::from_secs(9)), None);
        let at = m.next_expiry().unwrap();
        assert_eq!(m.expire(at), Some(Action::Lost(vec![tp(0), tp(1)])));
        assert!(m.settled() && !m.owns(&tp(0)));
    }

    #[test]
    fn a_fenced_member_owns_nothing_and_joins_again() {
        let mut m = member();
        m.reply(&reply(4, Some(&[0])), Instant::now());
        assert_eq!(m.fenced(), Some(Action::Lost(vec![tp(0)])));
        assert_eq!(m.fenced(), None);
        let beat = m.heartbeat(Duration::ZERO);
        assert_eq!((beat.member_epoch, beat.owned), (0, Some(Vec::new())));
        let again = m.reply(&reply(5, Some(&[0])), Instant::now());
        assert_eq!(
            again,
            [Action::Assigned(vec![tp(0)])],
            "joined is said once"
        );
    }

    #[test]
    fn joins_are_checked() {
        let ok = || v1::ConsumeJoin {
            group: "g".to_owned(),
            topics: vec!["t".to_owned()],
            ..Default::default()
        };
        let seconds = |s| {
            Some(prost_types::Duration {
                seconds: s,
                nanos: 0,
            })
        };
        assert!(Join::read(&ok()).unwrap().member.as_str().len() == 36);
        for (bad, field) in [
            (
                v1::ConsumeJoin {
                    group: String::new(),
                    ..ok()
                },
                "group",
            ),
            (
                v1::ConsumeJoin {
                    topics: Vec::new(),
                    ..ok()
                },
                "topics",
            ),
            (
                v1::ConsumeJoin {
                    topic_pattern: "(".to_owned(),
                    ..ok()
                },
                "topic_pattern",
            ),
            (
                v1::ConsumeJoin {
                    member_id: "a/b".to_owned(),
                    ..ok()
                },
                "member_id",
            ),
            (
                v1::ConsumeJoin {
                    commit_mode: 9,
                    ..ok()
                },
                "commit_mode",
            ),
            (
                v1::ConsumeJoin {
                    initial_credit_bytes: -1,
                    ..ok()
                },
                "initial_credit_bytes",
            ),
            (
                v1::ConsumeJoin {
                    session_timeout: seconds(1),
                    ..ok()
                },
                "session_timeout",
            ),
            (
                v1::ConsumeJoin {
                    session_timeout: seconds(9999),
                    ..ok()
                },
                "session_timeout",
            ),
            (
                v1::ConsumeJoin {
                    rebalance_timeout: seconds(-1),
                    ..ok()
                },
                "rebalance_timeout",
            ),
            (
                v1::ConsumeJoin {
                    encoding: 8,
                    ..ok()
                },
                "encoding",
            ),
        ] {
            assert_eq!(Join::read(&bad).unwrap_err().field, Some(field));
        }
    }
}
