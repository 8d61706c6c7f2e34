//! Who is a member and who votes: the leader's work.
//!
//! Invariants: one change at a time, and only after the one before is committed; a voter was a learner that had
//! caught up; a voter is taken out only if a quorum of the rest is heard from; of one node id there is one
//! member; a member whose directory is in use is never replaced by another directory.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use openraft::errors::{ClientWriteError, RaftError};
use openraft::{ChangeMembers, Instant as _};
use varve_metadata::log::Later;
use varve_types::NodeId;

use crate::message::{Hello, Refusal, Request, Response, is_of};
use crate::network::{TransportError, Whom};
use crate::node::{Inner, MetadataRaft, Metrics};
use crate::types::{Member, Membership, RaftId, TypeConfig};

/// How many entries a learner may lack and still count as caught up.
const CAUGHT_UP_WITHIN: u64 = 64;

/// Why a change was not made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// Nobody leads.
    #[error("the metadata has no leader at present; nothing was changed; try again")]
    NoLeader,
    /// Not now.
    #[error("{0}; nothing was changed")]
    NotNow(String),
    /// It may have been made.
    #[error("the change may or may not have been made: {0}; check before you try again")]
    Unknown(String),
}

impl MetadataRaft {
    /// Takes a node out of the consensus, whichever node leads. A node that is no member is no error.
    ///
    /// # Errors
    /// [`ChangeError`]; a voter stays if the rest could not go on without it.
    pub fn remove(&self, node: NodeId) -> Later<'_, Result<(), ChangeError>> {
        Box::pin(self.remove_member(node))
    }

    async fn remove_member(&self, node: NodeId) -> Result<(), ChangeError> {
        let inner = &self.inner;
        let Some((id, leader)) = inner.leader() else {
            return Err(ChangeError::NoLeader);
        };
        let answer = if id == inner.id {
            Ok(inner.remove_here(node).await)
        } else {
            let within = inner.config.propose_timeout;
            inner
                .speaker
                .ask(Whom::member(id, &leader), &Request::Remove(node), within)
                .await
        };
        match answer {
            Ok(Response::Changed) => Ok(()),
            Ok(Response::NotLeader(_)) | Err(TransportError::Unreachable(_)) => {
                Err(ChangeError::NoLeader)
            }
            Ok(Response::Refused(_, why)) => Err(ChangeError::NotNow(why)),
            Ok(Response::Unknown(why)) | Err(TransportError::Failed(why)) => {
                Err(ChangeError::Unknown(why))
            }
            Ok(_) => Err(ChangeError::Unknown(
                "internal error: the leader answered another question".to_owned(),
            )),
        }
    }

    /// Hands the leadership to another voter, or to the one that has most; resolves once somebody else leads.
    /// A node that does not lead has nothing to hand over.
    ///
    /// # Errors
    /// [`ChangeError`]: there is nobody to lead, or the handover did not happen in time.
    pub fn transfer_leadership(&self, to: Option<NodeId>) -> Later<'_, Result<(), ChangeError>> {
        Box::pin(self.inner.hand_over(to))
    }
}

impl Inner {
    async fn hand_over(&self, to: Option<NodeId>) -> Result<(), ChangeError> {
        let metrics = self.metrics();
        if !metrics.state.is_leader() {
            return Ok(());
        }
        let membership = metrics.membership_config.membership();
        let others = membership
            .voter_ids()
            .filter(|id| *id != self.id)
            .filter(|id| {
                to.is_none_or(|node| membership.get_node(id).is_some_and(|m| m.node == node))
            });
        let behind = metrics.replication.unwrap_or_default();
        let heard = |id: &RaftId| heard_lately(self, metrics.heartbeat.as_ref(), id);
        let best = others.max_by_key(|id| (heard(id), behind.get(id).copied().flatten()));
        let Some(best) = best else {
            return Err(ChangeError::NotNow("no other voter can lead".to_owned()));
        };
        let sent = self.raft.trigger().transfer_leader(best).await;
        sent.map_err(|e| ChangeError::Unknown(e.to_string()))?;
        let mut metrics = self.raft.metrics();
        let id = self.id;
        let moved = async {
            use openraft::async_runtime::watch::WatchReceiver;
            loop {
                let leader = metrics.borrow_watched().current_leader;
                if leader.is_some_and(|leader| leader != id) || metrics.changed().await.is_err() {
                    return;
                }
            }
        };
        match tokio::time::timeout(self.config.propose_timeout, moved).await {
            Ok(()) => Ok(()),
            Err(_) => Err(ChangeError::Unknown(
                "no other voter took over in time".to_owned(),
            )),
        }
    }

    /// Lets a node in as a learner, or notes its new address.
    pub(crate) async fn join(&self, from: RaftId, member: Member) -> Response {
        if !is_of(&member, from) {
            let why = "the raft id does not belong to the directory".to_owned();
            return Response::Refused(Refusal::Unreadable, why);
        }
        if self.removed.lock().contains(&from) {
            let why = format!("node {} was removed from the cluster", member.node);
            return Response::Refused(Refusal::Removed, why);
        }
        let _one = self.changes.lock().await;
        let membership = match self.settled() {
            Ok(membership) => membership,
            Err(response) => return response,
        };
        if let Some(known) = membership.get_node(&from) {
            return match *known == member {
                true => Response::Changed,
                false => {
                    if let Err(response) = self.check_moved(known, &member).await {
                        return response;
                    }
                    self.change(
                        ChangeMembers::SetNodes(BTreeMap::from([(from, member)])),
                        true,
                    )
                    .await
                }
            };
        }
        let twins: Vec<(RaftId, Member)> = membership
            .nodes()
            .filter(|(_, m)| m.node == member.node)
            .map(|(id, m)| (*id, m.clone()))
            .collect();
        for (id, twin) in twins {
            if let Err(response) = self.check_gone(id, &twin).await {
                return response;
            }
            match self.take_out(id).await {
                Response::Changed => {}
                other => return other,
            }
        }
        tracing::info!(node = %member.node, address = member.address, "a node joins as a learner");
        self.change(
            ChangeMembers::AddNodes(BTreeMap::from([(from, member)])),
            true,
        )
        .await
    }

    /// Whether a member is at its new address alone: whoever copies a directory and starts the copy makes two
    /// processes that take themselves for the same member.
    async fn check_moved(&self, known: &Member, new: &Member) -> Result<(), Response> {
        if known.address == new.address {
            return Ok(());
        }
        let within = self.config.call_timeout;
        let (old_at, new_at) = tokio::join!(
            self.speaker.hello(&known.address, within),
            self.speaker.hello(&new.address, within),
        );
        let process = |answer: Result<(Hello, Option<u128>), String>| {
            let (hello, process) = answer.ok()?;
            process.filter(|_| hello.member.directory == new.directory)
        };
        match (process(old_at), process(new_at)) {
            (Some(old), Some(other)) if old != other => {
                let why = format!(
                    "the data directory {} of node {} is in use at {} and at {}: one of the two is \
                     a copy; stop the copy, and give it an id and an empty directory of its own",
                    new.directory, new.node, known.address, new.address
                );
                Err(Response::Refused(Refusal::NodeIdInUse, why))
            }
            _ => Ok(()),
        }
    }

    /// Whether a member's directory is out of use, as far as anybody can tell.
    async fn check_gone(&self, id: RaftId, twin: &Member) -> Result<(), Response> {
        let in_use = || {
            let Member {
                node,
                directory,
                address,
                ..
            } = twin;
            let why = format!(
                "node id {node} is in use by the data directory {directory} at {address}; give this node another \
                 id, or stop that one"
            );
            Err(Response::Refused(Refusal::NodeIdInUse, why))
        };
        if id == self.id {
            return in_use();
        }
        let hello = self.speaker.hello(&twin.address, self.config.call_timeout);
        if let Ok((hello, _)) = hello.await
            && hello.member.directory == twin.directory
        {
            return in_use();
        }
        if heard_lately(self, self.metrics().heartbeat.as_ref(), &id) {
            let why = format!("node id {} was in use a moment ago; try again", twin.node);
            return Err(Response::Refused(Refusal::NotNow, why));
        }
        Ok(())
    }

    /// Takes a node out, if this one leads.
    pub(crate) async fn remove_here(&self, node: NodeId) -> Response {
        let _one = self.changes.lock().await;
        let membership = match self.settled() {
            Ok(membership) => membership,
            Err(response) => return response,
        };
        let ids: Vec<RaftId> = membership
            .nodes()
            .filter(|(_, m)| m.node == node)
            .map(|(id, _)| *id)
            .collect();
        for id in ids {
            if id == self.id {
                return match self.hand_over(None).await {
                    Ok(()) => Response::NotLeader(self.leader_address()),
                    Err(error) => Response::Refused(Refusal::NotNow, error.to_string()),
                };
            }
            match self.take_out(id).await {
                Response::Changed => {
                    self.removed.lock().insert(id);
                }
                other => return other,
            }
        }
        Response::Changed
    }

    async fn take_out(&self, id: RaftId) -> Response {
        let metrics = self.metrics();
        let membership = metrics.membership_config.membership();
        let mut voters: BTreeSet<RaftId> = membership.voter_ids().collect();
        let one = BTreeSet::from([id]);
        if !voters.remove(&id) {
            return self.change(ChangeMembers::RemoveNodes(one), true).await;
        }
        let heard =
            |id: &&RaftId| **id == self.id || heard_lately(self, metrics.heartbeat.as_ref(), id);
        let alive = voters.iter().filter(heard).count();
        if alive * 2 <= voters.len() {
            let why = format!(
                "without that member only {alive} of {} voters answer, which is not a majority",
                voters.len()
            );
            return Response::Refused(Refusal::NotNow, why);
        }
        self.change(ChangeMembers::RemoveVoters(one), false).await
    }

    /// The members, if this node leads and no change is on its way.
    fn settled(&self) -> Result<Membership, Response> {
        let metrics = self.metrics();
        if !self.leads(&metrics) {
            return Err(Response::NotLeader(
                self.leader_address().filter(|(id, _)| *id != self.id),
            ));
        }
        match is_settled(&metrics) {
            true => Ok(metrics.membership_config.membership().clone()),
            false => {
                let why = "another membership change is in progress; try again".to_owned();
                Err(Response::Refused(Refusal::NotNow, why))
            }
        }
    }

    async fn change(&self, change: ChangeMembers<RaftId, Member>, retain: bool) -> Response {
        let made = self.raft.change_membership(change, retain);
        match tokio::time::timeout(self.config.propose_timeout, made).await {
            Ok(Ok(_)) => Response::Changed,
            Ok(Err(RaftError::APIError(error))) => match error {
                ClientWriteError::ForwardToLeader(_) => Response::NotLeader(self.leader_address()),
                ClientWriteError::LogEntryDiscarded(_) => Response::Unknown(error.to_string()),
                other => Response::Refused(Refusal::NotNow, other.to_string()),
            },
            Ok(Err(RaftError::Fatal(error))) => Response::Unknown(error.to_string()),
            Err(_) => Response::Unknown("the change was not committed in time".to_owned()),
        }
    }

    /// One step towards the wanted number of voters.
    async fn keep_voters_once(&self) {
        let Ok(_one) = self.changes.try_lock() else {
            return;
        };
        let metrics = self.metrics();
        let membership = metrics.membership_config.membership();
        if !self.leads(&metrics) || !is_committed(&metrics) {
            return;
        }
        let response = if membership.get_joint_config().len() > 1 {
            // A leader died between the two halves of a change: finish it.
            self.change(ChangeMembers::AddVoterIds(BTreeSet::new()), false)
                .await
        } else {
            let ready = self.caught_up(&metrics);
            let next = promotion(membership, &ready, self.config.voters);
            if next.is_empty() {
                return;
            }
            let nodes: Vec<_> = next
                .iter()
                .filter_map(|id| membership.get_node(id))
                .collect();
            tracing::info!(?nodes, "learners were promoted to voters");
            self.change(ChangeMembers::AddVoterIds(next), true).await
        };
        if response != Response::Changed {
            tracing::debug!(?response, "could not change the voters");
        }
    }

    /// Learners that have almost everything, are heard from, and are not about to leave.
    fn caught_up(&self, metrics: &Metrics) -> BTreeSet<RaftId> {
        let last = metrics.last_log_index.unwrap_or_default();
        let membership = metrics.membership_config.membership();
        let has = |id: &RaftId| {
            let matched = metrics
                .replication
                .as_ref()
                .and_then(|r| r.get(id).copied().flatten());
            matched.is_some_and(|m| m.index + CAUGHT_UP_WITHIN >= last)
        };
        let leaving = |id: &RaftId| {
            let node = membership.get_node(id).map(|m| m.node);
            self.machine.look(|state| {
                node.and_then(|n| state.node(n))
                    .is_some_and(|n| n.decommissioning)
            })
        };
        membership
            .learner_ids()
            .filter(|id| {
                has(id) && heard_lately(self, metrics.heartbeat.as_ref(), id) && !leaving(id)
            })
            .collect()
    }
}

type Heartbeats = BTreeMap<
    RaftId,
    Option<openraft::metrics::SerdeInstant<openraft::alias::InstantOf<TypeConfig>>>,
>;

fn heard_lately(inner: &Inner, heartbeats: Option<&Heartbeats>, id: &RaftId) -> bool {
    let at = heartbeats.and_then(|h| h.get(id).copied().flatten());
    at.is_some_and(|at| at.elapsed() < inner.lease() * 2)
}

fn is_committed(metrics: &Metrics) -> bool {
    metrics.membership_config.log_id() == metrics.committed_membership_config.log_id()
}

pub(crate) fn is_settled(metrics: &Metrics) -> bool {
    is_committed(metrics)
        && metrics
            .membership_config
            .membership()
            .get_joint_config()
            .len()
            == 1
}

/// The learners that vote next. An even number of voters bears no more losses than one less, and while it is
/// two it bears none: from an odd number on, two learners become voters in one change, or none.
fn promotion(membership: &Membership, ready: &BTreeSet<RaftId>, wanted: usize) -> BTreeSet<RaftId> {
    let voters: BTreeSet<RaftId> = membership.voter_ids().collect();
    let even = voters.len().is_multiple_of(2);
    let count = if even || voters.len() + 1 == wanted {
        1
    } else {
        2
    };
    if voters.len() >= wanted || ready.len() < count {
        return BTreeSet::new();
    }
    let racks: BTreeSet<&str> = voters
        .iter()
        .filter_map(|id| membership.get_node(id))
        .map(|m| m.rack.as_str())
        .collect();
    let mut ranked: Vec<RaftId> = ready.iter().copied().collect();
    ranked.sort_by_key(|id| {
        let member = membership.get_node(id);
        member.map(|m| (racks.contains(m.rack.as_str()), m.node))
    });
    ranked.into_iter().take(count).collect()
}

/// Works as long as the node does, and only where it leads.
pub(crate) async fn keep_voters(inner: Arc<Inner>) {
    let every = (inner.config.heartbeat * 4).max(Duration::from_millis(100));
    while inner.pause(every).await {
        inner.keep_voters_once().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn membership(voters: &[RaftId], learners: &[(RaftId, &str)]) -> Membership {
        let member = |id: RaftId, rack: &str| Member {
            node: NodeId(id as i32),
            rack: rack.to_owned(),
            ..Member::default()
        };
        let mut nodes: BTreeMap<RaftId, Member> = learners
            .iter()
            .map(|(id, r)| (*id, member(*id, r)))
            .collect();
        nodes.extend(voters.iter().map(|id| (*id, member(*id, "a"))));
        Membership::new(vec![voters.iter().copied().collect()], nodes).unwrap()
    }

    #[test]
    fn from_an_odd_number_of_voters_two_are_added_or_none() {
        let one = membership(&[1], &[(2, "a"), (3, "a")]);
        let none = BTreeSet::new();
        assert_eq!(promotion(&one, &BTreeSet::from([2]), 3), none);
        assert_eq!(
            promotion(&one, &BTreeSet::from([2, 3]), 3),
            BTreeSet::from([2, 3])
        );
        assert_eq!(
            promotion(&one, &BTreeSet::from([2]), 2),
            BTreeSet::from([2])
        );
        let two = membership(&[1, 2], &[(3, "a")]);
        assert_eq!(
            promotion(&two, &BTreeSet::from([3]), 3),
            BTreeSet::from([3])
        );
        let three = membership(&[1, 2, 3], &[(4, "a"), (5, "a")]);
        assert_eq!(promotion(&three, &BTreeSet::from([4, 5]), 3), none);
    }

    #[test]
    fn a_new_rack_goes_before_a_low_number() {
        let two = membership(&[1, 2], &[(3, "a"), (4, "b")]);
        assert_eq!(
            promotion(&two, &BTreeSet::from([3, 4]), 3),
            BTreeSet::from([4])
        );
    }
}
