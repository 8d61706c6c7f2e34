//! A lane lets go of a replica that is given up, or that is elsewhere now, so that its files can be taken out of
//! their place.
//!
//! Invariants: whoever waits for it gets an answer; it is let go of only when nobody writes to its files
//! any more and the journal, durably, has nothing that a replay could put into the files of its successor.

use tokio::sync::oneshot;
use varve_partition::{Assignment, FetchRefusal, Input};

use super::Lane;
use crate::committer::Work;

/// Who waits until a replica is let go of; an error says why it cannot be before the next start.
pub(crate) type GoneReply = oneshot::Sender<Result<(), String>>;

impl Lane {
    pub(super) fn give_up(&mut self, slot: u32, newest: Assignment, reply: GoneReply) {
        let Some(owned) = self.slots.get_mut(&slot) else {
            // It was never open.
            let _ = reply.send(Ok(()));
            return;
        };
        let Some(copying) = owned.copying.as_mut() else {
            let _ = reply.send(Err("no one else holds it".to_owned()));
            return;
        };
        copying.leave(reply);
        copying.refuse_all(FetchRefusal::NotLeader);
        owned.partition.set_leader_epoch(newest.leader_epoch);
        self.step(slot, Input::Assign(newest));
        if let Some(owned) = self.slots.get(&slot) {
            owned.partition.retire(
                "it is damaged, and this node copies it again from the leader; ask the leader"
                    .to_owned(),
            );
        }
        self.step(slot, Input::StorageFailed);
        self.try_leave(slot);
    }

    /// The replica has moved to another node.
    pub(super) fn leave(&mut self, slot: u32, reply: GoneReply) {
        let Some(owned) = self.slots.get_mut(&slot) else {
            // It was never open.
            let _ = reply.send(Ok(()));
            return;
        };
        if let Some(copying) = owned.copying.as_mut() {
            copying.leave(reply);
            copying.refuse_all(FetchRefusal::NotReplica);
        }
        self.step(slot, Input::StorageFailed);
        self.try_leave(slot);
    }

    /// Lets go, once nothing is under way and the journal holds nothing of the log.
    pub(super) fn try_leave(&mut self, slot: u32) {
        let Some(owned) = self.slots.get_mut(&slot) else {
            return;
        };
        let busy = owned.flushing || owned.changing.busy() || !owned.writes.is_empty();
        let Some(copying) = owned.copying.as_mut() else {
            return;
        };
        if busy || !copying.may_leave() {
            return;
        }
        if owned.log.in_journal() {
            copying.clear();
            let work = Work::Void {
                identity: *owned.log.identity(),
                lane: std::sync::Arc::clone(&self.inbox),
                slot,
            };
            let _ = self.flush_jobs.push(work);
            return;
        }
        let reply = copying.left();
        self.release(slot);
        if let Some(reply) = reply {
            let _ = reply.send(Ok(()));
        }
    }
}
