//! A lane's part in flushes: when one starts, what comes of it, and what is repeated by time.
//!
//! Invariants: one flush per partition at a time; a flush that failed is never repeated, unless only space
//! for a small file was missing.

use std::sync::Arc;

use varve_partition::Input;
use varve_storage::{FlushDone, FlushError};
use varve_types::config::Durability;
use varve_vfs::Tick;

use super::{Lane, Owned, now};
use crate::committer::{FlushJob, Work};

impl Lane {
    /// Starts a flush where the topic's durability asks for one now.
    pub(super) fn want_flush(&mut self, slot: u32, now: Tick) {
        let Some(owned) = self.slots.get_mut(&slot) else {
            return;
        };
        let config = owned.partition.config();
        if config.durability == Durability::Replicated {
            let from = owned.log.flushed();
            let (_, from) = *owned.unflushed.get_or_insert((now, from));
            if owned.log.log_end().since(from) < config.flush_messages {
                return;
            }
        }
        self.start_flush(slot);
    }

    pub(crate) fn start_flush(&mut self, slot: u32) {
        let Some(owned) = self.slots.get_mut(&slot) else {
            return;
        };
        if owned.flushing || owned.partition.offline().is_some() || owned.at_rest_for_cut() {
            return;
        }
        owned.unflushed = None;
        owned.flush_again = false;
        let batches = std::mem::take(&mut owned.unjournaled);
        owned.unjournaled_bytes = 0;
        if owned.log.needs_flush()
            && let Some(target) = owned.log.flush_target()
        {
            let job = Box::new(FlushJob {
                lane: Arc::clone(&self.inbox),
                slot,
                target,
                entry: owned.log.journal_entry(batches),
                relief: false,
            });
            owned.flushing = self.flush_jobs.push(Work::Flush(job)).is_ok();
        }
    }

    /// Has the files synced, if they are behind the journal.
    pub(super) fn relieve(&mut self, slot: u32) {
        let Some(owned) = self.slots.get_mut(&slot) else {
            return;
        };
        let work = match (owned.log.journal_relief(), owned.log.files_synced()) {
            (Some(target), _) => Work::Flush(Box::new(FlushJob {
                lane: Arc::clone(&self.inbox),
                slot,
                target,
                entry: None,
                relief: true,
            })),
            (None, Some(done)) => {
                let follow = false;
                Work::Synced { done, follow }
            }
            // The log has failed: only the journal is known to have its records.
            (None, None) => return,
        };
        let _ = self.flush_jobs.push(work);
    }

    pub(super) fn flushed(&mut self, slot: u32, result: Result<FlushDone, FlushError>) {
        let Some(owned) = self.slots.get_mut(&slot) else {
            return;
        };
        let flushed = match result {
            Ok(done) => owned.log.flush_done(&done).map_err(|e| e.to_string()),
            Err(error) => {
                owned.log.flush_failed(&error);
                match owned.log.failure() {
                    Some(_) => Err(error.to_string()),
                    // No space for a small file: nothing was lost, and a later flush covers it too.
                    None => {
                        owned.flush_again = true;
                        Ok(owned.log.flushed())
                    }
                }
            }
        };
        let input = match flushed {
            Ok(upto) => {
                owned.partition.set_flushed(upto);
                Input::Flushed(upto)
            }
            Err(reason) => {
                owned.partition.set_failed(&reason);
                Input::StorageFailed
            }
        };
        owned.core.step(now(&*self.clock), input, &mut self.outputs);
        let behind = owned.log.flushed() < owned.log.log_end();
        let fsync = owned.partition.config().durability == Durability::Fsync;
        let now = !owned.flush_again;
        self.perform_outputs(slot);
        // A manifest that the flush wrote may have had a change in it.
        self.after_change(slot);
        if behind && fsync && now {
            self.start_flush(slot);
        }
    }

    pub(super) fn tick(&mut self) {
        self.forget_unwanted();
        let now = self.clock.now();
        let due: Vec<u32> = self
            .slots
            .iter()
            .filter(|(_, owned)| {
                owned.flush_again
                    || owned.unflushed.is_some_and(|(since, _)| {
                        now.since(since).as_millis()
                            >= u128::from(owned.partition.config().flush_ms)
                    })
            })
            .map(|(slot, _)| *slot)
            .collect();
        for slot in due {
            self.start_flush(slot);
        }
        let waits = |owned: &Owned| owned.changing.again;
        let again = self.slots.iter().filter(|(_, o)| waits(o));
        let again: Vec<u32> = again.map(|(slot, _)| *slot).collect();
        for slot in again {
            self.start_change(slot);
        }
    }
}
