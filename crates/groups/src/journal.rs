//! What the log holds of a group's membership, what it does not hold yet, and the replies that wait for it.
//!
//! Invariants: a reply that membership decides leaves only when every membership write of its group
//! before it is durable, so nobody knows of a grant that the next coordinator would not know; after a
//! refused write the log lags behind the memory, and nothing but a whole image of the group is written
//! until one is durable; while the group passes from one protocol to the other, nothing is written before that
//! passage is durable. Never decides who is a member.

use std::collections::BTreeSet;

use varve_types::{ErrorKind, MemberId, Retry};

use crate::classic::Classic;
use crate::codec::{self, GroupRecord, MemberRecord};
use crate::group::Group;
use crate::member::Member;
use crate::{Failure, Output, Reply, Tick, Ticket};

/// Membership writes of one group under way at most; what changes meanwhile goes into the next one.
const PENDING_MAX: usize = 8;
/// A whole image that was refused is tried again after this long, milliseconds.
const REWRITE_PAUSE_MS: u64 = 1_000;

/// Key with value; `None`: tombstone.
pub(crate) type Record = (Vec<u8>, Option<Vec<u8>>);

/// A reply that waits for a write.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) ticket: Ticket,
    /// Member it goes to, if it answers a heartbeat.
    pub(crate) member: Option<MemberId>,
    pub(crate) reply: Reply,
    /// It is the first one that asks the member to give something up.
    asks: bool,
}

/// The log lags behind the memory.
#[derive(Debug)]
struct Lag {
    /// The image is due.
    at: Tick,
    /// A heartbeat may bring that forward.
    soon: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Journal {
    /// Members whose records have changed, or that are gone, since the last write was asked for.
    changed: BTreeSet<MemberId>,
    /// Members whose record may be in the log.
    logged: BTreeSet<MemberId>,
    /// Epoch in the group's own record as last asked for; `None`: there is none.
    group: Option<i32>,
    lag: Option<Lag>,
    /// Replies that wait for a write not asked for yet.
    held: Vec<Held>,
    /// Membership writes under way.
    pending: usize,
    /// The last write asked for was an image.
    imaged: bool,
    /// The group has become a classic one: its record goes with the next write.
    passes: bool,
    /// Writes under way hold the removal of a classic group's record.
    removes_classic: bool,
    /// The last write asked for, which is under way, passes the group from one protocol to the other. A write
    /// of what changes after it would be taken for that passage, should it be the only one that is not lost.
    passing: bool,
}

/// Where a reply waits.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Wait {
    /// Nowhere: everything is durable.
    No,
    /// For the last membership write under way.
    Pending,
    /// For the next one.
    Next,
}

impl Journal {
    pub(crate) fn mark(&mut self, member: &MemberId) {
        self.changed.insert(member.clone());
    }

    /// The group has become a classic one.
    pub(crate) const fn passes(&mut self) {
        self.passes = true;
    }

    /// Somebody waits for an image that is due.
    pub(crate) fn hasten(&mut self, now: Tick) {
        if let Some(lag) = self.lag.as_mut().filter(|lag| lag.soon) {
            lag.at = lag.at.min(now);
        }
    }

    /// Nothing is left in the log, nor about to be put there.
    pub(crate) fn is_blank(&self) -> bool {
        self.pending == 0
            && !self.passes
            && self.group.is_none()
            && self.lag.is_none()
            && self.changed.is_empty()
            && self.held.is_empty()
    }

    /// When an image is due.
    pub(crate) fn deadline(&self) -> Option<Tick> {
        let lag = self.lag.as_ref().filter(|_| self.pending == 0)?;
        Some(lag.at)
    }

    pub(crate) const fn has_group_record(&self) -> bool {
        self.group.is_some() || self.lag.is_some()
    }

    /// The group's own record is removed by a write that is asked for now.
    pub(crate) fn group_record_removed(&mut self) {
        self.group = None;
        self.pending += 1;
    }

    pub(crate) fn restored(&mut self, group: Option<GroupRecord>) {
        self.group = group.map(|g| g.epoch);
    }

    pub(crate) fn restored_member(&mut self, id: &MemberId) {
        self.logged.insert(id.clone());
    }

    /// What was read contradicts itself: an image goes out at once.
    pub(crate) fn contradicted(&mut self, now: Tick) {
        let soon = true;
        self.lag = Some(Lag { at: now, soon });
    }

    pub(crate) fn wait(&self) -> Wait {
        if self.lag.is_some() || !self.changed.is_empty() || self.passes {
            return Wait::Next;
        }
        if self.pending > 0 {
            return Wait::Pending;
        }
        Wait::No
    }

    pub(crate) fn take_held(&mut self) -> Vec<Held> {
        std::mem::take(&mut self.held)
    }
}

impl Group {
    /// Records that are to be written now, as one batch. With them go the replies held so far.
    pub(crate) fn membership_records(&mut self, now: Tick) -> Option<Vec<Record>> {
        let whole = match &self.journal.lag {
            Some(lag) => {
                if self.journal.pending > 0 || lag.at > now {
                    return None;
                }
                true
            }
            None => {
                let same = self.group_record() == self.journal.group;
                let passes = self.journal.passes || self.classic_over;
                if same && self.journal.changed.is_empty() && !passes {
                    return None;
                }
                if self.journal.passing || self.journal.pending >= PENDING_MAX {
                    return None;
                }
                false
            }
        };
        let mut ids = std::mem::take(&mut self.journal.changed);
        if whole {
            self.journal.lag = None;
            ids.extend(
                self.journal
                    .logged
                    .iter()
                    .chain(self.members.keys())
                    .cloned(),
            );
        }
        let mut records = Vec::new();
        for id in ids {
            let key = codec::encode_member_key(&self.name, &id);
            if let Some(member) = self.members.get(&id) {
                records.push((key, Some(codec::encode_member(&record_of(member)))));
                self.journal.logged.insert(id);
            } else if self.journal.logged.contains(&id) {
                records.push((key, None));
            }
        }
        let group = if whole {
            self.group_image()
        } else {
            self.group_record()
        };
        if whole || group != self.journal.group {
            let value = group.map(|epoch| codec::encode_group(&GroupRecord { epoch }));
            records.push((codec::encode_group_key(&self.name), value));
            self.journal.group = group;
        }
        let passage = self.passage_record(whole);
        let passing = passage.is_some();
        records.extend(passage);
        if records.is_empty() {
            return None;
        }
        self.journal.passing = passing;
        self.journal.pending += 1;
        self.journal.imaged = whole;
        Some(records)
    }

    /// What goes with the membership when the group has passed from one protocol to the other: the record of
    /// the classic group, or its removal.
    fn passage_record(&mut self, whole: bool) -> Option<Record> {
        let key = || codec::encode_classic_key(&self.name);
        let passes = std::mem::take(&mut self.journal.passes);
        if self.classic.is_none() && std::mem::take(&mut self.classic_over) {
            self.journal.removes_classic = true;
            return Some((key(), None));
        }
        let record = self.classic.as_ref()?.written.as_ref();
        let record = record.filter(|_| self.passed && (passes || whole))?;
        Some((key(), Some(codec::encode_classic(record))))
    }

    /// What the group's own record should hold, as long as the log does not lag.
    fn group_record(&self) -> Option<i32> {
        let written = !self.members.is_empty() || self.journal.group.is_some();
        self.group_image().filter(|_| written)
    }

    /// A classic group has another record, once it has one. Epochs outlive the members as long as there are offsets:
    /// the group is the same one.
    fn group_image(&self) -> Option<i32> {
        let classic = self.classic.as_ref().is_some_and(Classic::is_logged);
        let remembers = !classic
            && (!self.members.is_empty() || !self.offsets.is_empty() || self.writes.has_changes());
        (remembers && self.epoch > 0).then_some(self.epoch)
    }

    /// Keeps a reply back. A member that waits for us does not fall silent meanwhile.
    pub(crate) fn hold(&mut self, now: Tick, ticket: Ticket, id: Option<MemberId>, reply: Reply) {
        let mut asks = false;
        if let Some(member) = id.as_ref().and_then(|id| self.members.get_mut(id)) {
            member.held += 1;
            asks = member.revoke_by == Some(now.plus(member.rebalance_timeout_ms));
        }
        self.journal.held.push(Held {
            ticket,
            member: id,
            reply,
            asks,
        });
    }

    /// A reply that waited leaves; with it the times that it starts begin again.
    pub(crate) fn release(&mut self, now: Tick, held: Held) -> Output {
        let classic = self.classic.as_mut().zip(held.member.as_ref());
        if let Some(peer) = classic.and_then(|(c, id)| c.members.get_mut(id)) {
            peer.answered(now);
        }
        if let Some(member) = held.member.as_ref().and_then(|id| self.members.get_mut(id)) {
            member.held = member.held.saturating_sub(1);
            member.expires = member.expires.max(now.plus(member.session_timeout_ms));
            if held.asks && member.revoke_by.is_some() {
                let told = !matches!(held.reply, Reply::Failed(_));
                member.revoke_by = told.then(|| now.plus(member.rebalance_timeout_ms));
            }
        }
        Output::Reply {
            ticket: held.ticket,
            reply: held.reply,
        }
    }

    /// A membership write is durable.
    pub(crate) fn membership_written(&mut self) {
        let journal = &mut self.journal;
        assert!(journal.pending > 0, "a membership write completes once");
        journal.pending -= 1;
        journal.passing &= journal.pending > 0;
        if journal.pending == 0 && journal.lag.is_none() {
            journal.removes_classic = false;
            if !journal.passes {
                self.passed = false;
            }
            // The log holds what was asked for: tombstones have done their work.
            let (members, changed) = (&self.members, &journal.changed);
            journal
                .logged
                .retain(|id| members.contains_key(id) || changed.contains(id));
        }
    }

    /// A membership write was refused, or nobody knows. Who waits for it or for a later one is told to
    /// come again, and an image of the group follows.
    pub(crate) fn membership_refused(
        &mut self,
        now: Tick,
        mut held: Vec<Held>,
        failure: &Failure,
        out: &mut Vec<Output>,
    ) {
        assert!(
            self.journal.pending > 0,
            "a membership write completes once"
        );
        self.journal.pending -= 1;
        self.journal.passing &= self.journal.pending > 0;
        // An image that fails at once must not be followed by another at once.
        let soon = self.journal.lag.is_none() && !self.journal.imaged;
        let at = now.plus(REWRITE_PAUSE_MS);
        self.journal.lag = Some(Lag { at, soon });
        let removes = std::mem::take(&mut self.journal.removes_classic);
        self.classic_over |= removes && self.classic.is_none();
        held.extend(self.writes.take_held());
        let failure = not_durable(self, failure);
        for mut held in held {
            held.reply = Reply::Failed(failure.clone());
            out.push(self.release(now, held));
        }
    }
}

/// The answer to who waited for a write that was refused. Memory is ahead of the log and will be written:
/// coming again is right whatever the reason was.
fn not_durable(group: &Group, failure: &Failure) -> Failure {
    let kind = match failure.kind.retry() {
        Retry::Never => ErrorKind::LeaderNotAvailable,
        Retry::Later | Retry::AfterRefresh => failure.kind,
    };
    Failure {
        kind,
        message: format!(
            "the membership of group {} could not be stored, so nothing new was assigned; repeat \
             the call: {}",
            group.name, failure.message
        ),
        field: None,
        metadata: failure.metadata.clone(),
    }
}

fn milliseconds(ms: u64) -> i64 {
    i64::try_from(ms).unwrap_or(i64::MAX)
}

fn record_of(member: &Member) -> MemberRecord {
    MemberRecord {
        epoch: member.epoch,
        previous_epoch: member.presented,
        departed: member.departed,
        instance: member.instance.clone(),
        rack: member.rack.clone(),
        client_id: codec::cut(&member.client_id),
        peer: member.peer.map(|p| p.to_string()).unwrap_or_default(),
        session_timeout_ms: milliseconds(member.session_timeout_ms),
        rebalance_timeout_ms: milliseconds(member.rebalance_timeout_ms),
        assignor: member.subscription.assignor.clone(),
        pattern: member.subscription.pattern.clone(),
        topics: member.subscription.topics.clone(),
        granted: codec::by_topic(&member.granted),
        classic: member.classic.as_ref().map(|side| side.protocols.clone()),
    }
}
