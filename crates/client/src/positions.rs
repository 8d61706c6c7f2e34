//! Where a consumer is in each of its partitions: what was fetched and waits, what the caller works on, what
//! was processed and is not committed yet. No I/O, no clock.
//!
//! Invariants: records of a partition are given in order, and none twice unless it was put back or sought; a
//! paused partition gives nothing and loses nothing; a seek is a new subscription, so that nothing fetched
//! before it is ever given after it; only what the caller has come back from counts as processed; the credit
//! of a message is owed once, when the caller is done with its last batch.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use varve_types::TopicPartition;

/// A run of records of one partition that can be given again from its middle.
pub(crate) trait Span {
    /// First offset that may be given.
    fn from(&self) -> i64;
    /// Where to continue after it.
    fn next_offset(&self) -> i64;
    /// The same without what lies before `from`.
    fn starting_at(self, from: i64) -> Self;
}

/// Something fetched, and the credit to give back when the caller is done with it.
#[derive(Debug)]
struct Ready<B> {
    batch: B,
    credit: usize,
}

#[derive(Debug)]
struct Part<B> {
    /// Subscription that is read. `None`: the end is reached, reading failed, or it is being given up.
    id: Option<u64>,
    /// Which grant of the group it belongs to.
    grant: u64,
    end: Option<i64>,
    /// One past the last offset that has arrived.
    fetched: i64,
    /// Next offset to be given.
    position: i64,
    paused: bool,
    /// Being given up: nothing of it is given any more, what was processed can still be committed.
    stopped: bool,
    /// Whether it is in `turns`.
    waiting: bool,
    ready: VecDeque<Ready<B>>,
    processed: Option<i64>,
}

impl<B> Part<B> {
    fn can_give(&self) -> bool {
        !self.paused && !self.stopped && !self.ready.is_empty()
    }

    /// What holds no record for the caller (control batches, what was compacted away) is processed as soon
    /// as everything before it is.
    fn pass_gap(&mut self) {
        if self.ready.is_empty() && self.fetched > self.position {
            self.position = self.fetched;
            self.processed = Some(self.fetched);
        }
    }
}

/// What the caller is working on.
#[derive(Debug)]
struct Given<B> {
    partition: TopicPartition,
    ready: Ready<B>,
    /// Names this giving: a later one of the same partition has another number.
    serial: u64,
    /// Where the last thing given begins.
    last: i64,
    /// Up to where it counts as processed when the caller comes back.
    done: i64,
    /// Up to where it has been counted.
    marked: i64,
}

/// An offset to commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Processed {
    pub partition: TopicPartition,
    pub grant: u64,
    pub offset: i64,
}

/// What a seek changes at the source.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Reopen {
    pub close: Option<u64>,
    /// `None`: there is nothing to read from there.
    pub open: Option<u64>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Positions<B> {
    parts: BTreeMap<TopicPartition, Part<B>>,
    assigned: BTreeSet<TopicPartition>,
    ids: BTreeMap<u64, TopicPartition>,
    /// Partitions that may have something to give, in the order in which they are asked.
    turns: VecDeque<TopicPartition>,
    given: Option<Given<B>>,
    owed: Vec<(u64, usize)>,
    next_id: u64,
    next_serial: u64,
}

impl<B> Default for Positions<B> {
    fn default() -> Self {
        Self {
            parts: BTreeMap::new(),
            assigned: BTreeSet::new(),
            ids: BTreeMap::new(),
            turns: VecDeque::new(),
            given: None,
            owed: Vec::new(),
            next_id: 1,
            next_serial: 1,
        }
    }
}

impl<B: Span + Clone> Positions<B> {
    /// Adds a partition that is not there yet. The subscription to open; `None` when its range is empty.
    pub fn assign(
        &mut self,
        partition: TopicPartition,
        start: i64,
        end: Option<i64>,
        grant: u64,
    ) -> Option<u64> {
        self.remove(&partition);
        let part = Part {
            id: None,
            grant,
            end,
            fetched: start,
            position: start,
            paused: false,
            stopped: false,
            waiting: false,
            ready: VecDeque::new(),
            processed: None,
        };
        self.parts.insert(partition.clone(), part);
        self.assigned.insert(partition.clone());
        self.open(&partition)
    }

    /// Gives a partition a new subscription from where its fetching stands.
    fn open(&mut self, partition: &TopicPartition) -> Option<u64> {
        let part = self.parts.get_mut(partition)?;
        if part.end.is_some_and(|end| part.fetched >= end) {
            return None;
        }
        let id = self.next_id;
        self.next_id += 1;
        part.id = Some(id);
        self.ids.insert(id, partition.clone());
        Some(id)
    }

    /// Forgets a partition with all that belongs to it. The subscription to close.
    pub fn remove(&mut self, partition: &TopicPartition) -> Option<u64> {
        let part = self.parts.remove(partition)?;
        self.assigned.remove(partition);
        self.turns.retain(|other| other != partition);
        if self.is_given(partition) {
            self.given = None;
        }
        let id = part.id?;
        self.ids.remove(&id);
        Some(id)
    }

    /// Gives nothing of a partition any more; what was processed is kept for a commit, until
    /// [`Positions::remove`]. The subscription to close.
    pub fn stop(&mut self, partition: &TopicPartition) -> Option<u64> {
        if self.is_given(partition) {
            self.mark();
            self.given = None;
        }
        let part = self.parts.get_mut(partition)?;
        part.stopped = true;
        part.ready.clear();
        let id = part.id.take()?;
        self.ids.remove(&id);
        Some(id)
    }

    /// Everything that is assigned.
    pub const fn assigned(&self) -> &BTreeSet<TopicPartition> {
        &self.assigned
    }

    /// Whether a partition is assigned and not being given up.
    pub fn is_active(&self, partition: &TopicPartition) -> bool {
        self.parts.get(partition).is_some_and(|part| !part.stopped)
    }

    /// The grant of the group that a partition belongs to.
    pub fn grant(&self, partition: &TopicPartition) -> Option<u64> {
        Some(self.parts.get(partition)?.grant)
    }

    /// Whether every partition has reached its end, or failed, and all of it was given.
    pub fn is_done(&self) -> bool {
        self.given.is_none()
            && self
                .parts
                .values()
                .all(|part| part.id.is_none() && part.ready.is_empty())
    }

    // What arrives.

    /// The partition of a subscription, where its next batch is expected, and where it ends (exclusive).
    /// `None`: it is not read any more.
    pub fn expected(&self, id: u64) -> Option<(&TopicPartition, i64, i64)> {
        let partition = self.ids.get(&id)?;
        let part = self.parts.get(partition)?;
        Some((partition, part.fetched, part.end.unwrap_or(i64::MAX)))
    }

    /// A batch has arrived, in order.
    pub fn arrived(&mut self, id: u64, batch: B) {
        let Some(partition) = self.ids.get(&id) else {
            return;
        };
        let Some(part) = self.parts.get_mut(partition) else {
            return;
        };
        part.fetched = part.fetched.max(batch.next_offset());
        part.ready.push_back(Ready { batch, credit: 0 });
        if part.can_give() && !part.waiting {
            part.waiting = true;
            self.turns.push_back(partition.clone());
        }
    }

    /// All batches of a message have arrived: fetching stands at `next_offset`, `credit` is to be given back
    /// when they were taken. The subscription to close, when its end is reached.
    pub fn message_ended(&mut self, id: u64, next_offset: i64, credit: usize) -> Option<u64> {
        let partition = self.ids.get(&id)?.clone();
        let given = self.given.as_mut().filter(|g| g.partition == partition);
        let part = self.parts.get_mut(&partition)?;
        part.fetched = part.fetched.max(next_offset);
        match (part.ready.back_mut(), given) {
            (Some(last), _) => last.credit += credit,
            (None, Some(given)) => given.ready.credit += credit,
            (None, None) => {
                self.owed.push((id, credit));
                part.pass_gap();
            }
        }
        self.end_reached(&partition)
    }

    fn end_reached(&mut self, partition: &TopicPartition) -> Option<u64> {
        let part = self.parts.get_mut(partition)?;
        if part.end.is_none_or(|end| part.fetched < end) {
            return None;
        }
        let id = part.id.take()?;
        self.ids.remove(&id);
        Some(id)
    }

    /// The source reads on from elsewhere than asked, as the out-of-range policy says. The subscription to
    /// close, when its end is reached.
    pub fn moved(&mut self, id: u64, next_offset: i64) -> Option<u64> {
        let partition = self.ids.get(&id)?.clone();
        let idle = !self.is_given(&partition);
        let part = self.parts.get_mut(&partition)?;
        part.fetched = next_offset;
        if idle && part.ready.is_empty() {
            part.position = next_offset;
        }
        self.end_reached(&partition)
    }

    /// The source does not read a subscription any more. Whether it was read until now.
    pub fn failed(&mut self, id: u64) -> bool {
        let partition = self.ids.remove(&id);
        match partition.and_then(|partition| self.parts.get_mut(&partition)) {
            Some(part) => part.id.take().is_some(),
            None => false,
        }
    }

    /// Credit to give back: subscription and bytes.
    pub fn owed(&mut self) -> impl Iterator<Item = (u64, usize)> {
        self.owed.drain(..).filter(|(_, credit)| *credit > 0)
    }

    // What is given.

    /// The next batch, of the partition whose turn it is. The caller has come back from the one before. It
    /// counts as processed as a whole when the caller comes back, unless something else is said meanwhile.
    pub fn take(&mut self) -> Option<B> {
        assert!(self.given.is_none(), "the caller has not come back");
        while let Some(partition) = self.turns.pop_front() {
            let Some(part) = self.parts.get_mut(&partition) else {
                continue;
            };
            part.waiting = false;
            if !part.can_give() {
                continue;
            }
            let Some(ready) = part.ready.pop_front() else {
                continue;
            };
            part.position = ready.batch.next_offset();
            if part.can_give() {
                part.waiting = true;
                self.turns.push_back(partition.clone());
            }
            let batch = ready.batch.clone();
            self.given = Some(Given {
                partition,
                last: batch.from(),
                marked: batch.from(),
                done: batch.next_offset(),
                ready,
                serial: self.next_serial,
            });
            self.next_serial += 1;
            return Some(batch);
        }
        None
    }

    fn is_given(&self, partition: &TopicPartition) -> bool {
        self.given
            .as_ref()
            .is_some_and(|g| g.partition == *partition)
    }

    /// The number of what is given, when records of it may be given: it is not paused meanwhile.
    pub fn given(&self) -> Option<u64> {
        let given = self.given.as_ref()?;
        let part = self.parts.get(&given.partition)?;
        (!part.paused).then_some(given.serial)
    }

    /// Records of the batch are given one by one: none was yet.
    pub fn begin_records(&mut self) {
        if let Some(given) = &mut self.given {
            given.last = given.ready.batch.from();
            given.done = given.last;
        }
    }

    /// One record was given: when the caller comes back, all up to it is processed.
    pub fn record_given(&mut self, offset: i64) {
        if let Some(given) = &mut self.given {
            given.last = offset;
            given.done = offset.saturating_add(1);
        }
    }

    /// No record of the batch is left.
    pub fn records_ended(&mut self) {
        if let Some(given) = &mut self.given {
            given.done = given.ready.batch.next_offset();
        }
    }

    /// The caller says up to where the batch was processed; the rest is given again.
    pub fn processed_up_to(&mut self, next_offset: i64) {
        if let Some(given) = &mut self.given {
            let batch = &given.ready.batch;
            given.done = next_offset.clamp(batch.from(), batch.next_offset());
        }
    }

    /// The caller says that what was given last was not processed: it is given again.
    pub fn not_processed(&mut self) {
        if let Some(given) = &mut self.given {
            given.done = given.last;
        }
        self.come_back();
    }

    /// Counts what is done with as processed, and leaves the rest with the caller.
    pub fn mark(&mut self) {
        if let Some(given) = &mut self.given
            && given.done != given.marked
            && let Some(part) = self.parts.get_mut(&given.partition)
        {
            part.processed = Some(given.done);
            given.marked = given.done;
        }
    }

    /// The caller is back: what is done with is processed, the rest of it is given again.
    pub fn come_back(&mut self) {
        self.mark();
        let Some(given) = self.given.take() else {
            return;
        };
        let Some(part) = self.parts.get_mut(&given.partition) else {
            return;
        };
        if given.done < given.ready.batch.next_offset() {
            let batch = given.ready.batch.starting_at(given.done);
            let credit = given.ready.credit;
            part.position = given.done;
            part.ready.push_front(Ready { batch, credit });
            if part.waiting {
                self.turns.retain(|other| *other != given.partition);
            }
            part.waiting = part.can_give();
            if part.waiting {
                self.turns.push_front(given.partition);
            }
            return;
        }
        if let Some(id) = part.id {
            self.owed.push((id, given.ready.credit));
        }
        part.pass_gap();
    }

    // What the caller asks for.

    /// Stops giving records of a partition.
    pub fn pause(&mut self, partition: &TopicPartition) {
        if let Some(part) = self.parts.get_mut(partition) {
            part.paused = true;
        }
    }

    /// Goes on giving them, from where they were stopped.
    pub fn resume(&mut self, partition: &TopicPartition) {
        if let Some(part) = self.parts.get_mut(partition) {
            part.paused = false;
            if part.can_give() && !part.waiting {
                part.waiting = true;
                self.turns.push_back(partition.clone());
            }
        }
    }

    /// Partitions that are paused.
    pub fn paused(&self) -> BTreeSet<TopicPartition> {
        let paused = self.parts.iter().filter(|(_, part)| part.paused);
        paused.map(|(partition, _)| partition.clone()).collect()
    }

    /// The offset of the next record to be given.
    pub fn position(&self, partition: &TopicPartition) -> Option<i64> {
        match &self.given {
            Some(given) if given.partition == *partition => Some(given.done),
            _ => Some(self.parts.get(partition)?.position),
        }
    }

    /// Goes on at an offset. What was processed and not committed is forgotten with the place it belongs to.
    /// `None`: not assigned, or being given up.
    pub fn seek(&mut self, partition: &TopicPartition, offset: i64) -> Option<Reopen> {
        if !self.is_active(partition) {
            return None;
        }
        if self.is_given(partition) {
            self.given = None;
        }
        let part = self.parts.get_mut(partition)?;
        let close = part.id.take();
        part.ready.clear();
        part.processed = None;
        part.fetched = offset;
        part.position = offset;
        if let Some(id) = close {
            self.ids.remove(&id);
        }
        let open = self.open(partition);
        Some(Reopen { close, open })
    }

    // What is committed.

    /// Whether something was processed that is not known to be committed.
    pub fn is_dirty(&self) -> bool {
        self.parts.values().any(|part| part.processed.is_some())
    }

    /// What was processed and is not known to be committed.
    pub fn processed(&self) -> Vec<Processed> {
        let processed = self.parts.iter().filter_map(|(partition, part)| {
            Some(Processed {
                partition: partition.clone(),
                grant: part.grant,
                offset: part.processed?,
            })
        });
        processed.collect()
    }

    /// Nothing up to `offset` needs another commit.
    pub fn settled(&mut self, partition: &TopicPartition, grant: u64, offset: i64) {
        if let Some(part) = self.parts.get_mut(partition)
            && part.grant == grant
            && part.processed.is_some_and(|processed| processed <= offset)
        {
            part.processed = None;
        }
    }
}

#[cfg(test)]
mod tests;
