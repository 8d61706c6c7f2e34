//! Members of a classic group: who they are, what they wait for, and what they have in common.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use varve_types::{ErrorKind, MemberId};

use crate::classic::assignment;
use crate::classic::state::{Classic, Step};
use crate::classic::{ClassicError, ClassicJoin, ClassicJoined, ClassicMember};
use crate::codec::{self, ClassicMemberRecord};
use crate::config::Config;
use crate::member::Member;
use crate::{Failure, Reply, Tick, Ticket};

#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) instance: Option<String>,
    pub(crate) client_id: Arc<str>,
    pub(crate) peer: Option<SocketAddr>,
    pub(crate) protocols: Vec<(String, Vec<u8>)>,
    pub(crate) session_timeout_ms: u64,
    pub(crate) rebalance_timeout_ms: u64,
    pub(crate) assignment: Vec<u8>,
    pub(crate) heard: Tick,
    /// Silent from then on, unless it waits for us.
    expires: Tick,
    /// The join it waits for.
    pub(super) joining: Option<Ticket>,
    /// The sync it waits for.
    pub(super) syncing: Option<Ticket>,
    /// It has been told its assignment of this generation.
    pub(super) synced: bool,
    /// Its id is being written, and not to be told before that is durable.
    pub(super) naming: bool,
    /// Epoch it has from the consumer group that this was, until the first generation after it begins.
    pub(super) former: Option<i32>,
}

impl Peer {
    pub(super) fn new(join: &ClassicJoin, now: Tick) -> Self {
        let mut peer = Self {
            instance: join.instance.clone().filter(|i| !i.is_empty()),
            client_id: Arc::from(""),
            peer: None,
            protocols: Vec::new(),
            session_timeout_ms: 0,
            rebalance_timeout_ms: 0,
            assignment: Vec::new(),
            heard: now,
            expires: now,
            joining: None,
            syncing: None,
            synced: false,
            naming: false,
            former: None,
        };
        peer.says(join, now);
        peer
    }

    pub(super) fn restored(
        record: &ClassicMemberRecord,
        protocol: &str,
        now: Tick,
        config: &Config,
    ) -> Self {
        let session_timeout_ms = u64::from(record.session_timeout_ms.unsigned_abs())
            .clamp(config.session_timeout_min_ms, config.session_timeout_max_ms);
        Self {
            instance: record.instance.clone().filter(|i| !i.is_empty()),
            client_id: Arc::from(record.client_id.as_str()),
            peer: None,
            protocols: vec![(protocol.to_owned(), record.metadata.clone())],
            session_timeout_ms,
            rebalance_timeout_ms: u64::from(record.rebalance_timeout_ms.unsigned_abs()),
            assignment: record.assignment.clone(),
            heard: now,
            expires: now.plus(session_timeout_ms),
            joining: None,
            syncing: None,
            synced: true,
            naming: false,
            former: None,
        }
    }

    /// A member of a consumer group that speaks this protocol, and goes on in a classic group.
    pub(super) fn passed(member: Member) -> Self {
        let side = member.classic.as_ref();
        let version = codec::answer_version(side.map_or(&[], |s| s.first().1));
        let assignment = assignment(version, &member.granted);
        Self {
            instance: member.instance,
            client_id: member.client_id,
            peer: member.peer,
            protocols: member.classic.map(|s| s.protocols).unwrap_or_default(),
            session_timeout_ms: member.session_timeout_ms,
            rebalance_timeout_ms: member.rebalance_timeout_ms,
            assignment,
            heard: member.heard,
            expires: member.expires,
            joining: None,
            syncing: None,
            synced: true,
            naming: false,
            former: Some(member.epoch),
        }
    }

    /// Takes over what a join says.
    pub(super) fn says(&mut self, join: &ClassicJoin, now: Tick) {
        self.client_id = join.client_id.clone();
        self.peer = join.peer;
        self.protocols.clone_from(&join.protocols);
        self.session_timeout_ms = join.session_timeout_ms;
        self.rebalance_timeout_ms = join.rebalance_timeout_ms;
        self.alive(now);
    }

    /// The session begins anew.
    pub(super) fn alive(&mut self, now: Tick) {
        self.heard = now;
        self.expires = now.plus(self.session_timeout_ms);
    }

    /// An answer that waited leaves now: until then it could not say anything.
    pub(crate) fn answered(&mut self, now: Tick) {
        self.expires = self.expires.max(now.plus(self.session_timeout_ms));
    }

    /// When it is silent; never while it waits for us.
    pub(super) fn deadline(&self) -> Option<Tick> {
        (self.joining.is_none() && self.syncing.is_none()).then_some(self.expires)
    }

    /// Bytes of the metadata of all its protocols.
    pub(crate) fn said(&self) -> usize {
        self.protocols.iter().map(|(_, said)| said.len()).sum()
    }

    pub(crate) fn metadata(&self, protocol: &str) -> &[u8] {
        let mut known = self.protocols.iter();
        known
            .find(|(name, _)| name == protocol)
            .map_or(&[], |(_, metadata)| metadata)
    }
}

impl Classic {
    /// Whether a member with these protocols can be one of this group.
    pub(super) fn supports(&self, join: &ClassicJoin) -> bool {
        if join.protocol_type.is_empty() || join.protocols.is_empty() {
            return false;
        }
        // Who joins again is not asked to agree with what it said before.
        let me = self.id_of(join);
        let mut others = self
            .members
            .iter()
            .filter(|(id, _)| Some(*id) != me)
            .peekable();
        if others.peek().is_none() {
            return true;
        }
        self.protocol_type == join.protocol_type
            && join.protocols.iter().any(|(name, _)| {
                let knows = |m: &Peer| m.protocols.iter().any(|(n, _)| n == name);
                others.clone().all(|(_, m)| knows(m))
            })
    }

    /// The member that a join is of, if it is one already.
    fn id_of<'a>(&'a self, join: &'a ClassicJoin) -> Option<&'a MemberId> {
        let instance = join.instance.as_ref().filter(|i| !i.is_empty());
        join.member
            .as_ref()
            .or_else(|| instance.and_then(|i| self.instances.get(i)))
    }

    /// The protocol that everybody knows and most like best; of several, the first by name.
    pub(super) fn vote(&self) -> String {
        let mut candidates: Option<BTreeSet<&str>> = None;
        for member in self.members.values() {
            let names: BTreeSet<_> = member.protocols.iter().map(|(n, _)| n.as_str()).collect();
            candidates = Some(match candidates {
                None => names,
                Some(common) => common.intersection(&names).copied().collect(),
            });
        }
        let candidates = candidates.unwrap_or_default();
        let favourite = |m: &Peer| {
            let mut names = m.protocols.iter().map(|(n, _)| n.as_str());
            names.find(|n| candidates.contains(n)).map(str::to_owned)
        };
        let votes: Vec<_> = self.members.values().filter_map(favourite).collect();
        let count = |name: &str| votes.iter().filter(|v| *v == name).count();
        let best = candidates.iter().map(|n| count(n)).max();
        let mut chosen = candidates.iter().filter(|n| Some(count(n)) == best);
        chosen.next().map(|n| (*n).to_owned()).unwrap_or_default()
    }

    /// What a member is told of the present generation.
    pub(super) fn joined(&self, id: &MemberId, skip_assignment: bool) -> Reply {
        let leader = self.leader.clone().unwrap_or_else(|| id.clone());
        let leads = leader == *id;
        let describe = |(member, m): (&MemberId, &Peer)| ClassicMember {
            member: member.clone(),
            instance: m.instance.clone(),
            metadata: m.metadata(&self.protocol).to_vec(),
        };
        let members = if leads {
            self.members.iter().map(describe).collect()
        } else {
            Vec::new()
        };
        Reply::ClassicJoined(Box::new(ClassicJoined {
            member: id.clone(),
            generation: self.generation,
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            leader: Some(leader),
            members,
            skip_assignment,
        }))
    }

    pub(crate) fn is_static(&self, id: &MemberId) -> bool {
        let member = self.members.get(id);
        member.is_some_and(|m| m.instance.is_some())
    }

    /// Checks that a call is of the member it says. `Ok` if the member exists.
    pub(super) fn check_member(
        &self,
        id: &MemberId,
        instance: Option<&String>,
    ) -> Result<(), ClassicError> {
        if let Some(instance) = instance.filter(|i| !i.is_empty()) {
            match self.instances.get(instance) {
                None => return Err(ClassicError::UnknownMember),
                Some(holder) if holder != id => return Err(ClassicError::FencedInstance),
                Some(_) => {}
            }
        }
        if self.members.contains_key(id) {
            return Ok(());
        }
        Err(ClassicError::UnknownMember)
    }

    /// Whether a member has this generation: that of the group, or the one it came with when the group
    /// passed from the consumer protocol, until it is told the next.
    pub(super) fn has_generation(&self, id: &MemberId, generation: i32) -> bool {
        let former = self.members.get(id).and_then(|m| m.former);
        generation == self.generation || former == Some(generation)
    }

    /// Takes a member out. Whoever waits in its name is told that it is not known.
    pub(super) fn remove(&mut self, step: &mut Step<'_>, id: &MemberId) {
        let Some(peer) = self.members.remove(id) else {
            return;
        };
        for ticket in peer.joining.into_iter().chain(peer.syncing) {
            step.refuse(ticket, ClassicError::UnknownMember);
        }
        if let Some(instance) = &peer.instance
            && self.instances.get(instance) == Some(id)
        {
            self.instances.remove(instance);
        }
        if self.leader.as_ref() == Some(id) {
            self.leader = self.members.keys().next().cloned();
        }
    }

    /// The caller of a join or sync is gone; the member's session goes on. Whether one waited.
    pub(crate) fn cancel(&mut self, now: Tick, id: &MemberId, ticket: Ticket) -> bool {
        let Some(peer) = self.members.get_mut(id) else {
            return false;
        };
        let joined = peer.joining.take_if(|t| *t == ticket);
        let gone = joined.or_else(|| peer.syncing.take_if(|t| *t == ticket));
        if gone.is_some() {
            peer.alive(now);
        }
        gone.is_some()
    }

    /// Answers everybody who waits: the node shuts down.
    pub(crate) fn drain(&mut self, step: &mut Step<'_>) {
        for peer in self.members.values_mut() {
            let waiting = peer.joining.take().into_iter().chain(peer.syncing.take());
            for ticket in waiting {
                peer.alive(step.now);
                let failure = Failure::new(
                    ErrorKind::ShuttingDown,
                    "this node is shutting down; find the group's new coordinator and join there",
                );
                step.answer(ticket, Reply::Failed(failure));
            }
        }
    }

    /// Removes members on behalf of an operator.
    pub(crate) fn expel(&mut self, step: &mut Step<'_>, ids: &[MemberId]) {
        for id in ids {
            self.remove(step, id);
        }
        if !ids.is_empty() {
            self.members_left(step);
            self.try_begin_generation(step);
        }
    }
}
