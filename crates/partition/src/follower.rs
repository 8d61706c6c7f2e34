//! The rules of a follower: it asks the leader for what follows its own log, cuts where the logs part,
//! and applies nothing but the answer to the question it has just asked.
//!
//! Invariants: at most one fetch is under way, and only when the log is at rest; the log is cut only on
//! an answer about epochs (KIP-101, KIP-279, KIP-595), never by the high watermark, and never below it
//! unless an unclean election allows that. What a leader sends is checked before it can reach an assertion.

use varve_types::config::Durability;
use varve_types::{LeaderEpoch, NodeId, Offset};

use crate::core::{Core, RETRY_MS, Role};
use crate::epochs::Epochs;
use crate::input::{FetchId, Fetched, Heard, Now, Replicated};
use crate::output::{Distrust, FetchRefusal, Output};
use crate::planted::{self, Plant};
use crate::producer_state::ProducerTable;

/// What only a follower knows.
#[derive(Debug)]
pub(crate) struct Follower {
    leader: NodeId,
    epoch: LeaderEpoch,
    /// The one fetch whose answer counts.
    pub(crate) outstanding: Option<FetchId>,
    /// The leader's high watermark, as last heard.
    leader_high_watermark: Offset,
    /// When to ask again, monotonic milliseconds.
    pub(crate) retry_at: Option<u64>,
    /// The leader was the same node in the epoch before. Only a planted bug looks at it.
    same_leader: bool,
}

impl Core {
    pub(crate) fn become_follower(
        &mut self,
        now: Now,
        leader: NodeId,
        epoch: LeaderEpoch,
        (previous, void): (Option<NodeId>, bool),
        out: &mut Vec<Output>,
    ) {
        // An epoch that this node led without a record is no part of its log: the next leader may have
        // records of older epochs from there on.
        self.epochs.truncate(self.cursors.log_end);
        if self.epochs.last().is_some_and(|last| last > epoch) {
            return self.contradicted(leader, out);
        }
        self.role = Role::Follower(Follower {
            leader,
            epoch,
            outstanding: None,
            leader_high_watermark: self.cursors.high_watermark,
            retry_at: None,
            same_leader: previous == Some(leader),
        });
        if planted::is(Plant::TruncateByHighWatermark)
            && self.cursors.high_watermark < self.cursors.log_end
        {
            self.cutting = true;
            out.push(Output::Truncate(self.cursors.high_watermark));
            return;
        }
        let empty = self.cursors.log_start == self.cursors.log_end;
        if void && empty && self.cursors.log_start > Offset::ZERO {
            // Where it begins says that all before was committed and removed; that is void.
            return self.begin_below(out);
        }
        self.fetch_if_at_rest(now, out);
    }

    /// This log begins anew from the very first offset, since where it begins means nothing in the log of a
    /// leader that was elected uncleanly. That leader will say where its own log begins.
    fn begin_below(&mut self, out: &mut Vec<Output>) {
        self.cutting = true;
        self.begun_anew = true;
        out.push(Output::Restart(Offset::ZERO));
    }

    /// The metadata is older than this log, or another cluster's: nothing is safe any more.
    pub(crate) fn contradicted(&mut self, leader: NodeId, out: &mut Vec<Output>) {
        self.refuse(
            Offset::ZERO,
            true,
            crate::output::Rejection::LeadershipLost,
            out,
        );
        self.role = Role::Failed;
        out.push(Output::Distrust {
            leader,
            why: Distrust::BadEpoch,
        });
    }

    /// Asks for what follows, if nothing is under way.
    pub(crate) fn fetch_if_at_rest(&mut self, now: Now, out: &mut Vec<Output>) {
        let at_rest =
            !self.cutting && self.cursors.written == self.cursors.log_end && self.next.is_none();
        let Role::Follower(follower) = &mut self.role else {
            return;
        };
        let waits = follower.retry_at.is_some_and(|at| now.mono_ms < at);
        if !at_rest || waits || follower.outstanding.is_some() {
            return;
        }
        self.next_fetch += 1;
        let id = FetchId(self.next_fetch);
        follower.outstanding = Some(id);
        follower.retry_at = None;
        let (leader, epoch, same) = (follower.leader, follower.epoch, follower.same_leader);
        let mut position = self.position(epoch);
        if planted::is(Plant::NoReconcileSameLeader) && same {
            position.last_epoch = None;
        }
        out.push(Output::Fetch {
            id,
            leader,
            position,
        });
    }

    pub(crate) fn follower_tick(&mut self, now: Now, out: &mut Vec<Output>) {
        self.fetch_if_at_rest(now, out);
    }

    pub(crate) fn fetch_failed(&mut self, now: Now, id: FetchId) {
        if let Role::Follower(follower) = &mut self.role
            && follower.outstanding == Some(id)
        {
            follower.outstanding = None;
            follower.retry_at = Some(now.mono_ms + RETRY_MS);
        }
    }

    pub(crate) fn fetch_held(&mut self, now: Now, id: FetchId, out: &mut Vec<Output>) {
        if let Role::Follower(follower) = &mut self.role
            && follower.outstanding == Some(id)
        {
            follower.outstanding = None;
            self.fetch_if_at_rest(now, out);
        }
    }

    pub(crate) fn fetched(
        &mut self,
        now: Now,
        id: FetchId,
        result: Result<Fetched, FetchRefusal>,
        out: &mut Vec<Output>,
    ) {
        let Role::Follower(follower) = &mut self.role else {
            return;
        };
        let stale = follower.outstanding != Some(id);
        if (stale && !planted::is(Plant::AcceptStaleFetch)) || self.cutting {
            return;
        }
        if self.cursors.written < self.cursors.log_end {
            return;
        }
        follower.outstanding = None;
        let leader = follower.leader;
        let done = match result {
            Ok(fetched) => self.apply(now, id, &fetched, out),
            Err(FetchRefusal::Diverging { epoch, end_offset }) => {
                self.reconcile(epoch, end_offset, out)
            }
            Err(FetchRefusal::OutOfRange { log_start }) => self.start_over(log_start, out),
            Err(_) => {
                // The metadata will say who leads; until then, ask again now and then.
                self.follower_refused(now);
                Ok(())
            }
        };
        match done {
            Ok(()) => self.fetch_if_at_rest(now, out),
            Err(why @ Distrust::BelowHighWatermark { .. }) => {
                self.role = Role::Failed;
                out.push(Output::Distrust { leader, why });
            }
            Err(why) => {
                self.follower_refused(now);
                out.push(Output::Distrust { leader, why });
            }
        }
    }

    /// Nothing came of it: wait before asking again.
    pub(crate) fn follower_refused(&mut self, now: Now) {
        if let Role::Follower(follower) = &mut self.role {
            follower.retry_at = Some(now.mono_ms + RETRY_MS);
        }
    }

    fn apply(
        &mut self,
        now: Now,
        id: FetchId,
        fetched: &Fetched,
        out: &mut Vec<Output>,
    ) -> Result<(), Distrust> {
        if fetched.log_start > self.cursors.log_end {
            // Removed while the fetch waited: what it was answered does not follow this log.
            return self.start_over(fetched.log_start, out);
        }
        if self.begins_within(&fetched.batches) {
            self.begin_below(out);
            return Ok(());
        }
        self.check_batches(&fetched.batches)?;
        if let Role::Follower(follower) = &mut self.role {
            follower.leader_high_watermark =
                follower.leader_high_watermark.max(fetched.high_watermark);
        }
        for batch in &fetched.batches {
            self.epochs.assign(batch.leader_epoch, batch.base_offset);
            if !planted::is(Plant::ForgetProducers) {
                // Nothing that an in-sync replica does not have is committed: that it is says that this one is behind.
                let heard = match batch.end_offset > fetched.high_watermark {
                    true => Heard::Now(now.wall_ms),
                    false => Heard::Late(now.wall_ms),
                };
                self.producers.follow(batch, heard);
            }
        }
        if let Some(last) = fetched.batches.last() {
            self.cursors.log_end = last.end_offset;
            out.push(Output::WriteReplicated {
                id,
                end: last.end_offset,
            });
        }
        self.follow_high_watermark(out);
        let start = fetched.log_start.min(self.cursors.high_watermark);
        if start > self.cursors.log_start {
            out.push(Output::Trim(start));
        }
        Ok(())
    }

    fn check_batches(&self, batches: &[Replicated]) -> Result<(), Distrust> {
        let Role::Follower(follower) = &self.role else {
            return Err(Distrust::NotContiguous);
        };
        let mut end = self.cursors.log_end;
        let mut epoch = self.epochs.last();
        for batch in batches {
            if batch.base_offset < end || batch.end_offset <= batch.base_offset {
                return Err(Distrust::NotContiguous);
            }
            if epoch.is_some_and(|e| batch.leader_epoch < e) || batch.leader_epoch > follower.epoch
            {
                return Err(Distrust::BadEpoch);
            }
            end = batch.end_offset;
            epoch = Some(batch.leader_epoch);
        }
        Ok(())
    }

    /// The logs part. Cuts to the end of the largest epoch both have, or asks on from there.
    fn reconcile(
        &mut self,
        epoch: LeaderEpoch,
        end_offset: Offset,
        out: &mut Vec<Output>,
    ) -> Result<(), Distrust> {
        let (log_start, log_end) = (self.cursors.log_start, self.cursors.log_end);
        if planted::is(Plant::CutToLogStart) {
            self.cutting = true;
            out.push(Output::Truncate(log_start));
            return Ok(());
        }
        let to = match self.epochs.end_of(epoch, log_end) {
            Some((own, own_end)) if own == epoch => end_offset.min(own_end).max(log_start),
            Some((_, own_end)) => own_end.max(log_start),
            None => log_start,
        };
        if end_offset < log_start && self.unclean_since_last_record() {
            // They part before this one begins. What the leader has appended there must not be skipped.
            self.begin_below(out);
            return Ok(());
        }
        if to >= log_end {
            return Err(Distrust::NoProgress);
        }
        if to < self.cursors.high_watermark && !self.unclean_since_last_record() {
            return Err(Distrust::BelowHighWatermark { to });
        }
        self.cutting = true;
        out.push(Output::Truncate(to));
        Ok(())
    }

    /// Whether this log, which is empty, begins within a batch of a leader that was elected uncleanly: then it
    /// is from before that.
    fn begins_within(&self, batches: &[Replicated]) -> bool {
        let empty = self.cursors.log_start == self.cursors.log_end;
        let first = batches
            .first()
            .is_some_and(|b| b.base_offset < self.cursors.log_end);
        empty && first && self.unclean_since_last_record()
    }

    /// Whether a leader was elected uncleanly after this log's last record: then even records that were
    /// committed once may have to go.
    fn unclean_since_last_record(&self) -> bool {
        let unclean = self.assigned.as_ref().and_then(|a| a.unclean_epoch);
        unclean.is_some_and(|unclean| self.epochs.last().is_none_or(|last| last < unclean))
    }

    /// The leader's log begins after this one ends, or nothing that is left of it is as old as this one's
    /// last record: there is nothing to keep. What was committed here lies before the leader's log.
    fn start_over(&mut self, log_start: Offset, out: &mut Vec<Output>) -> Result<(), Distrust> {
        let empty = self.cursors.log_start == self.cursors.log_end;
        // An empty one may still begin too high: what it had began after the end of a log that was made to
        // lead uncleanly.
        if empty && self.epochs.last().is_none() && log_start == self.cursors.log_end {
            return Err(Distrust::NoProgress);
        }
        if self.cursors.high_watermark > log_start && !self.unclean_since_last_record() {
            return Err(Distrust::BelowHighWatermark { to: log_start });
        }
        self.cutting = true;
        self.begun_anew = true;
        out.push(Output::Restart(log_start));
        Ok(())
    }

    pub(crate) fn truncated(
        &mut self,
        now: Now,
        (log_start, log_end, flushed): (Offset, Offset, Offset),
        producers: ProducerTable,
        out: &mut Vec<Output>,
    ) {
        assert!(self.cutting, "the log was cut without being asked");
        self.cutting = false;
        if std::mem::take(&mut self.begun_anew) {
            // Of what lies before, nothing is known.
            self.epochs = Epochs::default();
        }
        self.epochs.truncate(log_end);
        self.epochs.trim(log_start);
        let most = self.producers.most();
        self.producers = producers;
        self.producers.bound(most);
        self.producers.trim(log_start);
        let cursors = &mut self.cursors;
        cursors.log_start = log_start;
        cursors.log_end = log_end;
        cursors.written = log_end;
        cursors.flushed = flushed;
        cursors.high_watermark = cursors.high_watermark.clamp(log_start, log_end);
        let high_watermark = cursors.high_watermark;
        if let Role::Follower(follower) = &mut self.role
            && !planted::is(Plant::KeepHighWatermark)
        {
            // What the leader has committed beyond the cut it will say again.
            follower.leader_high_watermark = high_watermark;
        }
        self.settle(now, out);
        self.fetch_if_at_rest(now, out);
    }

    fn follow_high_watermark(&mut self, out: &mut Vec<Output>) {
        let Role::Follower(follower) = &self.role else {
            return;
        };
        let high_watermark = follower.leader_high_watermark.min(self.cursors.written);
        if high_watermark > self.cursors.high_watermark {
            self.cursors.high_watermark = high_watermark;
            out.push(Output::HighWatermark(high_watermark));
            self.move_last_stable(out);
        }
    }

    pub(crate) fn follower_written(&mut self, now: Now, out: &mut Vec<Output>) {
        self.follow_high_watermark(out);
        self.fetch_if_at_rest(now, out);
    }

    /// The fetch that is under way told of less: the leader learns at once, since an answer may hang on it.
    pub(crate) fn follower_flushed(&mut self, out: &mut Vec<Output>) {
        if self.config.durability == Durability::Fsync {
            self.tell_progress(out);
        }
    }

    /// Says again where the log ends, beside the fetch that is under way.
    pub(crate) fn tell_progress(&mut self, out: &mut Vec<Output>) {
        let Role::Follower(follower) = &self.role else {
            return;
        };
        if follower.outstanding.is_some() && !self.cutting {
            let (leader, epoch) = (follower.leader, follower.epoch);
            let position = self.position(epoch);
            out.push(Output::Progress { leader, position });
        }
    }
}
