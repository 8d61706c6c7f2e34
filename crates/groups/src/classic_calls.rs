//! The coordinator's calls of the classic protocol, the passage of a group without members from one protocol
//! to the other, and what is written of classic groups.
//!
//! Invariant: a group speaks one protocol at a time. Calls to one that speaks the consumer protocol are its
//! own matter: see [`crate::mixed`].

use varve_types::{GroupName, MemberId, limits};

use crate::classic::{Classic, Step, Wanted};
use crate::codec::{self, ClassicRecord};
use crate::coordinator::{Coordinator, Place, env_of};
use crate::group::{Env, Group, step};
use crate::journal::Wait;
use crate::writes::{Answer, Write};
use crate::{
    AppendId, ClassicError, ClassicHeartbeat, ClassicJoin, ClassicLeave, ClassicState, ClassicSync,
    Failure, Output, Reply, Tick, Ticket,
};

/// Most protocols of one member.
const PROTOCOLS_MAX: usize = limits::GROUP_PROTOCOLS_MAX;

type Answered = Result<Option<Reply>, Failure>;

fn refused(error: ClassicError) -> Answered {
    Ok(Some(Reply::ClassicFailed(error)))
}

impl Coordinator {
    pub(crate) fn classic_join(
        &mut self,
        now: Tick,
        ticket: Ticket,
        join: &ClassicJoin,
        out: &mut Vec<Output>,
    ) -> Answered {
        check_texts(join)?;
        if join.member.is_some() && !self.groups.contains_key(&join.group) {
            return refused(ClassicError::UnknownMember);
        }
        let (group, env) = self.open_group(now, &join.group)?;
        if !group.members.is_empty() {
            let (member, reply) = match group.mixed_join(env, join, out) {
                Ok(joined) => joined,
                Err(error) => return refused(error),
            };
            self.wait(ticket, &join.group, Some(member));
            return Ok(Some(reply));
        }
        let epoch = group.epoch;
        let before = group.classic.is_some();
        let promised = std::mem::take(&mut group.promised);
        let classic = group.classic.get_or_insert_with(|| Classic::new(epoch));
        classic.promised.extend(promised);
        match classic.join(&mut step(env, out), ticket, join) {
            Ok(member) => {
                let group = join.group.clone();
                self.open.insert(ticket, Some(Place { group, member }));
                Ok(None)
            }
            Err(error) => {
                if !before && classic.is_deserted() {
                    group.classic = None;
                }
                refused(error)
            }
        }
    }

    pub(crate) fn classic_sync(
        &mut self,
        now: Tick,
        ticket: Ticket,
        sync: ClassicSync,
        out: &mut Vec<Output>,
    ) -> Answered {
        if let Some((group, _)) = self.mixed(now, &sync.group) {
            let reply = match group.mixed_sync(now, &sync) {
                Ok(reply) => reply,
                Err(error) => return refused(error),
            };
            self.wait(ticket, &sync.group, Some(sync.member));
            return Ok(Some(reply));
        }
        let place = Place {
            group: sync.group.clone(),
            member: Some(sync.member.clone()),
        };
        let Some((classic, mut step)) = self.classic(now, &place.group, out) else {
            return refused(ClassicError::UnknownMember);
        };
        match classic.sync(&mut step, ticket, sync) {
            Ok(_) => {
                self.open.insert(ticket, Some(place));
                Ok(None)
            }
            Err(error) => refused(error),
        }
    }

    pub(crate) fn classic_heartbeat(
        &mut self,
        now: Tick,
        heartbeat: &ClassicHeartbeat,
        out: &mut Vec<Output>,
    ) -> Answered {
        if let Some((group, _)) = self.mixed(now, &heartbeat.group) {
            return match group.mixed_heartbeat(now, heartbeat) {
                Ok(()) => Ok(Some(Reply::ClassicAlive)),
                Err(error) => refused(error),
            };
        }
        let Some((classic, step)) = self.classic(now, &heartbeat.group, out) else {
            return refused(ClassicError::UnknownMember);
        };
        let instance = heartbeat.instance.as_ref();
        match classic.heartbeat(&step, &heartbeat.member, heartbeat.generation, instance) {
            Ok(()) => Ok(Some(Reply::ClassicAlive)),
            Err(error) => refused(error),
        }
    }

    pub(crate) fn classic_leave(
        &mut self,
        now: Tick,
        ticket: Ticket,
        leave: &ClassicLeave,
        out: &mut Vec<Output>,
    ) -> Answered {
        if let Some((group, env)) = self.mixed(now, &leave.group) {
            let results = group.mixed_leave(env, leave, out);
            self.wait(ticket, &leave.group, None);
            return Ok(Some(Reply::ClassicLeft(results)));
        }
        let Some((classic, mut step)) = self.classic(now, &leave.group, out) else {
            let unknown = |_: &_| Err(ClassicError::UnknownMember);
            let results = leave.members.iter().map(unknown).collect();
            return Ok(Some(Reply::ClassicLeft(results)));
        };
        let mut results = Vec::with_capacity(leave.members.len());
        for (member, instance) in &leave.members {
            results.push(classic.leave(&mut step, member.as_ref(), instance.as_ref()));
        }
        Ok(Some(Reply::ClassicLeft(results)))
    }

    /// An answer waits for the membership that it tells of to be durable.
    fn wait(&mut self, ticket: Ticket, group: &GroupName, member: Option<MemberId>) {
        let group = group.clone();
        self.open.insert(ticket, Some(Place { group, member }));
    }

    /// A group with members that speaks the consumer protocol, with what it may look at.
    fn mixed(&mut self, now: Tick, name: &GroupName) -> Option<(&mut Group, Env<'_>)> {
        let env = env_of(
            now,
            &self.config,
            &self.topics,
            &*self.matcher,
            self.draining,
        );
        let group = self.groups.get_mut(name)?;
        if group.members.is_empty() {
            return None;
        }
        self.touched.insert(name.clone());
        Some((group, env))
    }

    /// A group that speaks the classic protocol, with what it may look at.
    fn classic<'a>(
        &'a mut self,
        now: Tick,
        name: &GroupName,
        out: &'a mut Vec<Output>,
    ) -> Option<(&'a mut Classic, Step<'a>)> {
        let env = env_of(
            now,
            &self.config,
            &self.topics,
            &*self.matcher,
            self.draining,
        );
        let classic = self.groups.get_mut(name)?.classic.as_mut()?;
        self.touched.insert(name.clone());
        Some((classic, step(env, out)))
    }

    /// The record of a classic group is removed by the write that was asked for last.
    pub(crate) fn forgets_classic(&mut self, name: &GroupName, write: AppendId) {
        if let Some(group) = self.groups.get_mut(name) {
            group.passed = false;
            if let Some(classic) = &mut group.classic {
                classic.erased = Some(write);
            }
        }
    }

    /// Removals of classic groups' records that were refused are asked for again.
    pub(crate) fn retry_forgetting(&mut self) {
        for (name, group) in &mut self.groups {
            let idle = group.writes.is_empty();
            let classic = group.classic.as_mut().filter(|_| idle);
            if classic.is_some_and(|classic| classic.erased.take().is_some()) {
                self.touched.insert(name.clone());
            }
        }
    }

    /// Writes what a classic group wants written.
    pub(crate) fn write_classic(&mut self, name: &GroupName, out: &mut Vec<Output>) {
        let Some(group) = self.groups.get_mut(name) else {
            return;
        };
        let remembers = !group.offsets.is_empty() || group.writes.has_changes();
        let Some(classic) = &mut group.classic else {
            return;
        };
        let wanted = std::mem::replace(&mut classic.wanted, Wanted::Nothing);
        let (ticket, answer) = match wanted {
            Wanted::Assignment if classic.state == ClassicState::CompletingRebalance => {
                (None, Answer::ClassicAssigned(classic.generation))
            }
            Wanted::Instance(ticket, id) => (Some(ticket), Answer::ClassicReplaced(id)),
            Wanted::Record if classic.state == ClassicState::Empty && remembers => {
                (None, Answer::Nobody)
            }
            Wanted::Name(id) => (None, Answer::ClassicNamed(id)),
            // The log may say less of a group without members than memory does; nobody relies on it.
            _ if classic.is_deserted() && classic.is_logged() && !remembers => {
                let tombstone = (codec::encode_classic_key(name), None);
                let id = self.append(name, vec![tombstone], Write::new(), out);
                self.forgets_classic(name, id);
                self.touched.remove(name);
                return;
            }
            _ => return,
        };
        let renames = matches!(answer, Answer::ClassicNamed(_));
        let record = match classic.renamed_record().filter(|_| renames) {
            Some(record) => record,
            None => classic.record(),
        };
        let value = codec::encode_classic(&record);
        classic.written = Some(record);
        classic.erased = None;
        let write = Write {
            ticket,
            answer,
            ..Write::new()
        };
        let record = (codec::encode_classic_key(name), Some(value));
        self.append(name, vec![record], write, out);
        self.touched.remove(name);
    }
}

impl Group {
    /// A group without members speaks the consumer protocol from now on. Epochs go on counting.
    pub(crate) fn leave_classic(&mut self) {
        if let Some(classic) = self.classic.take() {
            self.epoch = self.epoch.max(classic.generation);
            self.classic_over |= classic.written.is_some();
            self.passed = false;
            self.promised = classic.promised;
        }
    }

    /// Whether an answer of the classic protocol waits for membership to be durable. In a consumer group it does;
    /// in a classic group that was one a moment ago, where the log may still know the instance under another id.
    pub(crate) fn keeps_back(&self, reply: &Reply, place: &Place) -> bool {
        let Some(classic) = &self.classic else {
            return true;
        };
        let unsettled = self.journal.wait() != Wait::No;
        match reply {
            Reply::ClassicJoined(_) => {
                let member = place.member.as_ref();
                unsettled && member.is_some_and(|id| classic.is_static(id))
            }
            Reply::ClassicLeft(_) => unsettled,
            _ => false,
        }
    }

    /// Whether a record of the classic group may be in the log.
    pub(crate) fn has_classic_record(&self) -> bool {
        let classic = self.classic.as_ref();
        classic.is_some_and(|classic| classic.written.is_some())
    }

    /// Takes over a classic group from its record.
    pub(crate) fn restore_classic(&mut self, env: Env<'_>, record: ClassicRecord) {
        self.epoch = self.epoch.max(record.generation);
        self.classic = Some(Classic::restored(record, env.now, env.config));
    }

    /// A write is durable: what follows from it for a classic group, and the answer if it is one of those.
    pub(crate) fn classic_written(&mut self, step: &mut Step<'_>, write: &Write) -> Option<Reply> {
        let mut classic = self.classic.as_mut();
        if let Some(classic) = classic.as_mut().filter(|c| c.erased == Some(write.id)) {
            classic.written = None;
            classic.erased = None;
        }
        match (&write.answer, classic) {
            (Answer::ClassicNamed(id), Some(classic)) => {
                classic.named(step, id);
                None
            }
            (Answer::ClassicAssigned(generation), Some(classic)) => {
                classic.assigned(step, *generation);
                None
            }
            (Answer::ClassicReplaced(id), Some(classic)) => Some(classic.replaced(id)),
            (Answer::ClassicReplaced(id), None) => {
                // The group has passed to the consumer protocol, perhaps with this member.
                let error = match self.members.contains_key(id) {
                    true => ClassicError::RebalanceInProgress,
                    false => ClassicError::UnknownMember,
                };
                Some(Reply::ClassicFailed(error))
            }
            _ => None,
        }
    }

    /// A write was refused.
    pub(crate) fn classic_refused(
        &mut self,
        step: &mut Step<'_>,
        answer: &Answer,
        failure: &Failure,
    ) {
        let Some(classic) = &mut self.classic else {
            return;
        };
        match answer {
            Answer::ClassicAssigned(generation) => {
                classic.not_assigned(step, *generation, failure);
            }
            Answer::ClassicReplaced(_) => classic.not_replaced(step),
            Answer::ClassicNamed(id) => classic.not_named(step, id, failure),
            _ => {}
        }
    }
}

/// Bounds of the texts that are kept with a member.
fn check_texts(join: &ClassicJoin) -> Result<(), Failure> {
    let names = join.protocols.iter().map(|(name, _)| name.as_str());
    let instance = join.instance.as_deref().unwrap_or_default();
    for text in names.chain([join.protocol_type.as_str(), instance]) {
        if text.len() > limits::NAME_MAX_BYTES {
            return Err(Failure::invalid(
                "protocols",
                format!(
                    "protocol type, protocol names and instance id may have at most {} bytes each; \
                     one has {}; the member was not added",
                    limits::NAME_MAX_BYTES,
                    text.len()
                ),
            ));
        }
    }
    if join.protocols.len() > PROTOCOLS_MAX {
        return Err(Failure::invalid(
            "protocols",
            format!(
                "a member may name at most {PROTOCOLS_MAX} protocols; this one names {}; it was \
                 not added",
                join.protocols.len()
            ),
        ));
    }
    let said: usize = join.protocols.iter().map(|(_, said)| said.len()).sum();
    if said > limits::GROUP_PROTOCOLS_MAX_BYTES {
        return Err(Failure::invalid(
            "protocols",
            format!(
                "a member's protocol metadata may have at most {} bytes in total; this one has \
                 {said}; it was not added; subscribe to fewer topics, or name fewer protocols",
                limits::GROUP_PROTOCOLS_MAX_BYTES
            ),
        ));
    }
    Ok(())
}
