//! The first pass: which transactions were aborted, which batch is a producer's last, and where each key of
//! the dirty part was written last. Reads headers of everything and records of the dirty part only.
//!
//! Invariants: memory is bounded, whatever the log holds; what does not fit makes the part that is compacted
//! now shorter, never wrong. A transaction whose end is not known bounds it too.

use std::collections::BTreeMap;

use varve_record::{BatchHeader, Marker};
use varve_types::{Offset, limits};

use super::input::Input;
use super::map::{OffsetMap, hash};
use super::{CompactionError, GoOn};
use crate::buffers::ReadBuffers;
use crate::planted::{self, Plant};
use crate::read_view::{ReadView, Sealed};

/// Aborted transactions that are remembered at most.
const ABORTED_MAX: usize = 1 << 16;
/// Producers that are remembered at most; empty batches of others stay.
const PRODUCERS_MAX: usize = limits::PRODUCER_SESSIONS_MAX;

/// What the first pass learned.
#[derive(Debug)]
pub(super) struct Survey {
    /// Last offset of each key in the dirty part.
    pub(super) latest: OffsetMap,
    /// The dirty part ends here, and so does what may be dropped.
    pub(super) upto: Offset,
    /// By producer: base offset of its last batch.
    producers: BTreeMap<i64, Offset>,
    /// By producer: first offsets and markers of aborted transactions, rising.
    aborted: BTreeMap<i64, Vec<(Offset, Offset)>>,
    aborted_count: usize,
}

impl Survey {
    /// Looks at `inputs`, of which everything from `clean` on is dirty. Transactions are followed through
    /// `view` up to `stable`.
    pub(super) fn take(
        inputs: &[Sealed],
        clean: Offset,
        view: &ReadView,
        stable: Offset,
        map_bytes: usize,
        buffers: &ReadBuffers,
        go_on: GoOn<'_>,
    ) -> Result<Self, CompactionError> {
        let end = inputs.last().map_or(clean, |s| s.end);
        let mut survey = Self {
            latest: OffsetMap::new(0, 0),
            upto: end,
            producers: BTreeMap::new(),
            aborted: BTreeMap::new(),
            aborted_count: 0,
        };
        let mut open: BTreeMap<i64, Offset> = BTreeMap::new();
        let mut dirty_records = 0;
        'all: for part in inputs {
            let mut input = Input::of_headers(part, buffers)?;
            while let Some(header) = input.header()? {
                go_on(input.take_io())?;
                if survey.aborted_count >= ABORTED_MAX || open.len() >= PRODUCERS_MAX {
                    survey.upto = header.base_offset;
                    break 'all;
                }
                if header.next_offset() > clean {
                    dirty_records += u64::from(header.record_count.unsigned_abs());
                }
                survey.note_producer(&header);
                survey.follow(&mut input, &header, &mut open)?;
                input.pass(&header);
            }
            go_on(input.take_io())?;
        }
        survey.look_ahead(view, stable, &mut open, buffers, go_on)?;
        if let Some(first) = open.values().min() {
            survey.upto = survey.upto.min(*first);
        }
        survey.upto = survey.upto.max(clean);
        survey.latest = OffsetMap::new(dirty_records, map_bytes);
        survey.map_keys(inputs, clean, buffers, go_on)?;
        Ok(survey)
    }

    fn note_producer(&mut self, header: &BatchHeader) {
        if header.producer().is_some()
            && (self.producers.len() < PRODUCERS_MAX
                || self.producers.contains_key(&header.producer_id))
        {
            self.producers
                .insert(header.producer_id, header.base_offset);
        }
    }

    /// Follows transactions: `open` has the first offset of each that has no marker yet.
    fn follow(
        &mut self,
        input: &mut Input,
        header: &BatchHeader,
        open: &mut BTreeMap<i64, Offset>,
    ) -> Result<(), CompactionError> {
        let producer = header.producer_id;
        if !header.is_control() {
            // One that was emptied may outlive its marker.
            if header.is_transactional() && header.record_count > 0 {
                open.entry(producer).or_insert(header.base_offset);
            }
            return Ok(());
        }
        if header.record_count == 0 || !open.contains_key(&producer) {
            return Ok(());
        }
        let batch = input.batch(header)?;
        let marker = batch.marker().map_err(|e| input.fault(&e))?;
        if marker.is_some()
            && let Some(first) = open.remove(&producer)
            && marker == Some(Marker::Abort)
        {
            self.aborted_count += 1;
            let of_producer = self.aborted.entry(producer).or_default();
            of_producer.push((first, header.base_offset));
        }
        Ok(())
    }

    /// Finds the markers of transactions that are open at the end of the inputs.
    fn look_ahead(
        &mut self,
        view: &ReadView,
        stable: Offset,
        open: &mut BTreeMap<i64, Offset>,
        buffers: &ReadBuffers,
        go_on: GoOn<'_>,
    ) -> Result<(), CompactionError> {
        let from = self.upto;
        for part in view.sealed.iter().chain(std::iter::once(&view.active)) {
            if open.is_empty() {
                break;
            }
            if part.end <= from {
                continue;
            }
            let mut input = Input::of_headers(part, buffers)?;
            while let Some(header) = input.header()? {
                go_on(input.take_io())?;
                if open.is_empty() || header.base_offset >= stable {
                    return Ok(());
                }
                // Transactions that begin here do not matter.
                if header.base_offset >= from && header.is_control() {
                    self.follow(&mut input, &header, open)?;
                }
                input.pass(&header);
            }
        }
        Ok(())
    }

    fn map_keys(
        &mut self,
        inputs: &[Sealed],
        clean: Offset,
        buffers: &ReadBuffers,
        go_on: GoOn<'_>,
    ) -> Result<(), CompactionError> {
        for part in inputs.iter().filter(|s| s.end > clean) {
            let mut input = Input::new(part, buffers)?;
            while let Some(header) = input.header()? {
                go_on(input.take_io())?;
                if header.base_offset >= self.upto {
                    return Ok(());
                }
                let aborted = self.is_aborted(&header) && !planted::is(Plant::CountAborted);
                let counts = !header.is_control() && !aborted;
                if header.next_offset() > clean && counts {
                    let full = self.map_batch(&mut input, &header, clean)?;
                    if let Some(offset) = full {
                        self.upto = offset;
                        return Ok(());
                    }
                }
                input.pass(&header);
            }
            go_on(input.take_io())?;
        }
        Ok(())
    }

    /// Returns the offset of the first record that found no place.
    fn map_batch(
        &mut self,
        input: &mut Input,
        header: &BatchHeader,
        clean: Offset,
    ) -> Result<Option<Offset>, CompactionError> {
        let batch = input.batch(header)?;
        let mut records = batch.records().map_err(|e| input.fault(&e))?;
        while let Some(record) = records.next_ref() {
            let record = record.map_err(|e| input.fault(&e))?;
            if record.offset < clean || record.offset >= self.upto {
                continue;
            }
            if let Some(key) = record.key
                && !self.latest.put(hash(key), record.offset)
            {
                return Ok(Some(record.offset));
            }
        }
        Ok(None)
    }

    /// Whether the batch belongs to a transaction that was aborted.
    pub(super) fn is_aborted(&self, header: &BatchHeader) -> bool {
        if !header.is_transactional() {
            return false;
        }
        let Some(ranges) = self.aborted.get(&header.producer_id) else {
            return false;
        };
        let after = ranges.partition_point(|(first, _)| *first <= header.base_offset);
        let range = after.checked_sub(1).and_then(|i| ranges.get(i));
        range.is_some_and(|(_, marker)| header.base_offset < *marker)
    }

    /// Whether the batch may be the last that tells of its producer's session.
    pub(super) fn is_last_of_producer(&self, header: &BatchHeader) -> bool {
        let last = self.producers.get(&header.producer_id);
        header.producer().is_some() && last.is_none_or(|last| *last == header.base_offset)
    }
}
