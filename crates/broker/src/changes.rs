//! A lane's part in changes of what its logs consist of: retention, trims, installed compactions. The lane
//! prepares one and goes on; a thread of the disk makes it durable; the lane finishes it. Nothing here waits
//! for a disk.
//!
//! Invariants: at most one change of a partition is under way; a trim is answered once the log start is
//! durably past it, never before; a change that found the disk full is tried again, never given up.

use varve_broker_api::Error;
use varve_partition::Input;
use varve_storage::{ChangeDone, Compacted, CompactionConfig, FlushError};
use varve_types::{ErrorKind, Offset};

use crate::cleaner::{Candidate, InstallReply, MAP_BYTES, RunReply};
use crate::flusher::ChangeJob;
use crate::lane::{Lane, Owned, now};
use crate::partition::Partition;
use crate::reject;

/// Who waits for the answer to a trim.
pub(crate) type TrimReply = tokio::sync::oneshot::Sender<Result<Offset, Error>>;

/// What is under way for one partition.
#[derive(Debug, Default)]
pub(crate) struct Changing {
    /// A thread has the change.
    running: bool,
    /// The last run found no space; it is tried again with the next tick.
    pub(crate) again: bool,
    /// Trims that wait for the log start to reach an offset.
    trims: Vec<(Offset, TrimReply)>,
    /// Parts of compactions that wait to be part of the log.
    installs: Vec<InstallReply>,
    /// The cleaner knows that the log is due, or has it.
    offered: bool,
    /// The cleaner has it, and writes beside its files.
    compacting: bool,
    /// How far the log is known to be compacted.
    clean: Offset,
}

impl Changing {
    /// Whether a thread has a change of the log.
    pub(crate) const fn running(&self) -> bool {
        self.running
    }

    /// Whether somebody else is at work on the log's files.
    pub(crate) const fn busy(&self) -> bool {
        self.running || self.compacting
    }

    /// Answers the trims that `answer` has an answer for.
    fn answer(&mut self, answer: impl Fn(Offset) -> Option<Result<Offset, Error>>) {
        for (to, reply) in std::mem::take(&mut self.trims) {
            match answer(to) {
                Some(result) => drop(reply.send(result)),
                None => self.trims.push((to, reply)),
            }
        }
    }
}

fn no_space(partition: &Partition) -> Error {
    let text = format!(
        "there is no disk space to store the new log start of {}; the records are still there, and \
         are deleted once there is space; try again then",
        partition.id
    );
    Error::new(ErrorKind::StorageFull, text)
        .with("topic", &partition.id.topic)
        .with("partition", partition.id.partition)
}

fn not_noted(partition: &Partition, reason: &str) -> Error {
    let text = format!(
        "the disk failed while the new log start of {} was being stored: {reason}. It may or may \
         not have moved; the next start of the node finds out, and the partition takes no writes \
         until then",
        partition.id
    );
    Error::new(ErrorKind::StorageError, text)
        .with("topic", &partition.id.topic)
        .with("partition", partition.id.partition)
}

impl Lane {
    pub(crate) fn trim(&mut self, slot: u32, to: Offset, reply: TrimReply) {
        let Some(owned) = self.slots.get_mut(&slot) else {
            let gone = Error::new(ErrorKind::TopicNotFound, "the topic was deleted");
            return drop(reply.send(Err(gone)));
        };
        if to > owned.core.high_watermark() {
            let error = reject::out_of_range(&owned.partition, to);
            return drop(reply.send(Err(error)));
        }
        match owned.log.prepare_trim(to) {
            Ok(_) if owned.log.log_start() >= to => {
                let _ = reply.send(Ok(owned.log.log_start()));
            }
            Ok(_) => {
                owned.changing.trims.push((to, reply));
                self.start_change(slot);
            }
            Err(error) => {
                let _ = reply.send(Err(reject::storage(&owned.partition, &error)));
                self.check_latch(slot);
            }
        }
    }

    pub(crate) fn retain(&mut self, slot: u32, now_ms: i64) {
        let Some(owned) = self.slots.get_mut(&slot) else {
            return;
        };
        if owned.partition.offline().is_some() || !owned.partition.config().cleanup.delete {
            return;
        }
        let upto = owned.core.high_watermark();
        match owned.log.prepare_retention(now_ms, upto) {
            Ok(false) => {}
            Ok(true) => self.start_change(slot),
            Err(error) => {
                tracing::warn!(partition = %owned.partition.id, %error, "retention failed");
                self.check_latch(slot);
            }
        }
    }

    /// Hands a pending change to the thread that makes it durable.
    pub(crate) fn start_change(&mut self, slot: u32) {
        let Some(owned) = self.slots.get_mut(&slot) else {
            return;
        };
        if owned.changing.running || owned.partition.offline().is_some() {
            return;
        }
        owned.changing.again = false;
        if let Some(target) = owned.log.change_target() {
            let lane = std::sync::Arc::clone(&self.inbox);
            let job = ChangeJob { lane, slot, target };
            owned.changing.running = self.change_jobs.push(job).is_ok();
        }
    }

    /// A change came back.
    pub(crate) fn changed(&mut self, slot: u32, result: Result<ChangeDone, FlushError>) {
        let Some(owned) = self.slots.get_mut(&slot) else {
            return;
        };
        owned.changing.running = false;
        let failed = match result {
            Ok(done) => owned.log.change_done(&done).err().map(|e| e.to_string()),
            Err(error) => {
                owned.log.change_failed(&error);
                if owned.log.failure().is_none() {
                    tracing::warn!(
                        partition = %owned.partition.id, %error,
                        "retention or a trim is waiting for disk space"
                    );
                    owned.changing.again = true;
                    let text = no_space(&owned.partition);
                    owned.changing.answer(|_| Some(Err(text.clone())));
                }
                owned.log.failure().map(str::to_owned)
            }
        };
        let input = match failed {
            None => {
                owned.partition.set_flushed(owned.log.flushed());
                Input::Flushed(owned.log.flushed())
            }
            Some(reason) => {
                owned.partition.set_failed(&reason);
                let error = not_noted(&owned.partition, &reason);
                owned.changing.answer(|_| Some(Err(error.clone())));
                Input::StorageFailed
            }
        };
        owned.core.step(now(&*self.clock), input, &mut self.outputs);
        self.perform_outputs(slot);
        self.after_change(slot);
    }

    /// Shows what a finished change did, and starts the next one.
    pub(crate) fn after_change(&mut self, slot: u32) {
        let time = now(&*self.clock);
        let Some(owned) = self.slots.get_mut(&slot) else {
            return;
        };
        let removal = owned.log.take_removed();
        let start = owned.log.log_start();
        if !removal.is_empty() || start != owned.partition.log_start() {
            tracing::info!(
                partition = %owned.partition.id, log_start = %start, segments = removal.segments,
                bytes = removal.bytes, "old records removed"
            );
            owned.publish();
            owned
                .core
                .step(time, Input::LogStart(start), &mut self.outputs);
        }
        let clean = owned.log.clean_upto();
        if clean != owned.changing.clean {
            owned.changing.clean = clean;
            // The view without those records is there before they are forgotten.
            owned.publish();
            owned.core.compacted(clean);
            owned.publish_stable();
        }
        if !removal.is_empty() {
            let _ = self.removals.push(removal);
        }
        let offline = owned.partition.offline().is_some();
        let Owned {
            changing,
            partition,
            ..
        } = owned;
        changing.answer(|to| match () {
            () if to <= start => Some(Ok(start)),
            () if offline => Some(Err(partition.offline_error())),
            () => None,
        });
        let pending = owned.log.change_pending();
        if offline || !pending {
            for reply in owned.changing.installs.drain(..) {
                let _ = reply.try_send(!offline);
            }
        }
        let more = pending && !owned.changing.again;
        self.perform_outputs(slot);
        if more {
            self.start_change(slot);
        }
    }
}

impl Owned {
    /// Before the partition is let go of: what is under way is finished here and now, and answered.
    pub(crate) fn finish_changes(&mut self, safe: bool) -> varve_storage::Removal {
        if safe && let Err(error) = self.log.change_now() {
            tracing::warn!(partition = %self.partition.id, %error, "a log change was not completed");
        }
        let start = self.log.log_start();
        let partition = &self.partition;
        self.changing.answer(|to| {
            Some(if to <= start {
                Ok(start)
            } else {
                let text = format!(
                    "partition {} was closed; its log start may or may not have moved",
                    partition.id
                );
                Err(Error::new(ErrorKind::StorageError, text))
            })
        });
        self.changing.installs.clear();
        self.log.take_removed()
    }
}

impl Lane {
    /// Tells the cleaner if the log should be compacted.
    pub(crate) fn offer(&mut self, slot: u32, now_ms: i64) {
        let Some(owned) = self.slots.get_mut(&slot) else {
            return;
        };
        let config = owned.partition.config();
        if owned.partition.offline().is_some() || !config.cleanup.compact || owned.changing.offered
        {
            return;
        }
        let compaction = CompactionConfig::from(&*config);
        if owned.log.active_is_late(&compaction, now_ms) {
            // No space for a segment: there is nothing more to compact, then.
            if let Err(error) = owned.log.roll()
                && !error.is_no_space()
            {
                tracing::warn!(partition = %owned.partition.id, %error, "could not roll a segment");
                return self.check_latch(slot);
            }
            self.start_flush(slot);
        }
        let Some(owned) = self.slots.get_mut(&slot) else {
            return;
        };
        // What is not decided may yet turn out never to have been.
        let upto = owned.core.last_stable_offset();
        let dirt = owned.log.dirt(&compaction, now_ms, upto);
        if dirt.due {
            let candidate = Candidate {
                partition: std::sync::Arc::clone(&owned.partition),
                ratio: dirt.ratio(),
            };
            owned.changing.offered = self.candidates.push(candidate).is_ok();
        }
    }

    pub(crate) fn compact(&mut self, slot: u32, reply: &RunReply) {
        let now_ms = self.clock.wall_ms();
        let run = self.slots.get_mut(&slot).and_then(|owned| {
            let config = owned.partition.config();
            let wanted = config.cleanup.compact && owned.partition.offline().is_none();
            let upto = owned.core.last_stable_offset();
            let config = CompactionConfig::from(&*config);
            wanted
                .then(|| {
                    owned
                        .log
                        .prepare_compaction(&config, now_ms, upto, MAP_BYTES)
                })
                .flatten()
        });
        if let Some(owned) = self.slots.get_mut(&slot) {
            owned.changing.compacting = run.is_some();
        }
        let _ = reply.try_send(run);
    }

    pub(crate) fn install(&mut self, slot: u32, part: Compacted, reply: InstallReply) {
        let Some(owned) = self.slots.get_mut(&slot) else {
            return;
        };
        match owned.log.prepare_install(part) {
            Ok(()) => {
                owned.changing.installs.push(reply);
                self.start_change(slot);
            }
            Err(removal) => {
                let _ = self.removals.push(removal);
                let _ = reply.try_send(false);
            }
        }
    }

    pub(crate) fn compaction_over(&mut self, slot: u32) {
        if let Some(owned) = self.slots.get_mut(&slot) {
            owned.changing.offered = false;
            owned.changing.compacting = false;
        }
    }
}
