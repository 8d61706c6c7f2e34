//! The second pass: copies what stays of neighbouring segments into one new segment. A batch that keeps all
//! its records is copied as it is.

use varve_record::{BatchHeader, Marker, StoredBatch};
use varve_types::limits;

use super::input::{Input, Proof};
use super::map::hash;
use super::output::Output;
use super::survey::Survey;
use super::{Compacted, Compaction, CompactionError, CompactionStats, GoOn};
use crate::change::Install;
use crate::format::SegmentHeader;
use crate::read_view::Sealed;

/// What becomes of a batch.
enum Fate {
    /// It is copied.
    Stay,
    /// These bytes take its place.
    Become(bytes::Bytes),
    Go,
}

impl Compaction {
    /// What was done so far.
    #[must_use]
    pub const fn stats(&self) -> &CompactionStats {
        &self.stats
    }

    /// Makes the next part that can be installed; `None` when the run is over. Each part has to be installed
    /// before the next is asked for. Blocks; calls `go_on` often, with the bytes read and written since it was
    /// last called, and ends when it says `false`. The rate of the disk is the caller's: it may take its time.
    ///
    /// # Errors
    /// [`CompactionError`]; the run is over then, and files of the part are removed.
    pub fn next(
        &mut self,
        go_on: &dyn Fn(u64) -> bool,
    ) -> Result<Option<Compacted>, CompactionError> {
        let check = |bytes| match go_on(bytes) {
            true => Ok(()),
            false => Err(CompactionError::Stopped),
        };
        let result = self.step(&check);
        self.over |= !matches!(result, Ok(Some(_)));
        result
    }

    fn step(&mut self, go_on: GoOn<'_>) -> Result<Option<Compacted>, CompactionError> {
        if self.over {
            return Ok(None);
        }
        let survey = match self.survey.take() {
            Some(survey) => survey,
            None => Survey::take(
                &self.inputs,
                self.clean_upto,
                &self.view,
                self.stable,
                self.map_bytes,
                &self.buffers,
                go_on,
            )?,
        };
        self.stats.upto = survey.upto.get();
        while let Some(first) = self.inputs.get(self.at) {
            if first.segment.base >= survey.upto && first.end > self.clean_upto {
                break;
            }
            if survey.latest.is_empty()
                && first.end <= self.clean_upto
                && first.horizon_ms > self.now_ms
            {
                // Nothing is newer than what is here, and nothing has to go.
                let part = first.clone();
                self.pass_over(&part, go_on)?;
                self.at += 1;
                continue;
            }
            if let Some(install) = self.rewrite(&survey, go_on)? {
                self.survey = Some(survey);
                return Ok(Some(Compacted {
                    install: Some(install),
                    clean_upto: None,
                    generation: self.generation,
                }));
            }
        }
        self.over = true;
        Ok((survey.upto > self.clean_upto).then_some(Compacted {
            install: None,
            clean_upto: Some(survey.upto),
            generation: self.generation,
        }))
    }

    /// Notes whose transactions have records in a segment that stays as it is: their markers, further on, are
    /// needed.
    fn pass_over(&mut self, part: &Sealed, go_on: GoOn<'_>) -> Result<(), CompactionError> {
        let mut input = Input::of_headers(part, &self.buffers)?;
        while let Some(header) = input.header()? {
            go_on(input.take_io())?;
            if header.is_control() {
                self.in_transaction.remove(&header.producer_id);
            } else if header.is_transactional() && header.record_count > 0 {
                self.in_transaction.insert(header.producer_id);
            }
            input.pass(&header);
        }
        part.segment.release();
        Ok(())
    }

    /// Rewrites as many segments as fit into one. `None` when nothing would change.
    fn rewrite(
        &mut self,
        survey: &Survey,
        go_on: GoOn<'_>,
    ) -> Result<Option<Install>, CompactionError> {
        let first = self.inputs[self.at].clone();
        let header = SegmentHeader {
            segment_id: self.next_id,
            base_offset: first.segment.base,
            created_ms: first.segment.created_ms,
        };
        self.next_id += 1;
        let interval = self.log.index_interval_bytes;
        let mut output =
            Output::create(&self.home, &header, interval).map_err(CompactionError::Io)?;
        let mut replaced = Vec::new();
        let (mut read, mut changed, mut end) = (0, false, first.segment.base);
        while let Some(part) = self.inputs.get(self.at).cloned() {
            let long = part.end.since(first.segment.base) > u64::from(u32::MAX);
            let full = output.size() + part.size > self.log.segment_bytes;
            let beyond = part.segment.base >= survey.upto && part.end > self.clean_upto;
            if !replaced.is_empty() && (long || full || beyond) {
                break;
            }
            changed |= self.copy(survey, &part, &mut output, go_on)?;
            replaced.push(part.segment.id);
            (read, end) = (read + part.size, part.end);
            self.at += 1;
            part.segment.release();
        }
        self.stats.read_bytes += read;
        if replaced.len() == 1 && !changed {
            return Ok(None);
        }
        // What is left to write counts as well.
        go_on(output.take_io() + output.unwritten())?;
        let with = output.finish(end).map_err(CompactionError::Io)?;
        self.stats.written_bytes += with.size;
        Ok(Some(Install { replaced, with }))
    }

    /// Copies what stays of a segment. Returns whether anything went or became something else.
    fn copy(
        &mut self,
        survey: &Survey,
        part: &Sealed,
        output: &mut Output,
        go_on: GoOn<'_>,
    ) -> Result<bool, CompactionError> {
        let mut input = Input::new(part, &self.buffers)?;
        let mut proof = Proof::new(&part.segment)?;
        let mut changed = false;
        while let Some(header) = input.header()? {
            go_on(input.take_io() + output.take_io())?;
            proof.batch(&header, input.position)?;
            let batch = input.batch(&header)?;
            let fate = self.fate(survey, &batch).map_err(|error| match error {
                varve_record::BatchError::TooLarge { .. } => CompactionError::Rebuild {
                    file: part.segment.path(crate::segment::Kind::Log),
                    offset: header.base_offset,
                    error,
                },
                other => input.fault(&other),
            })?;
            let bytes = match fate {
                Fate::Stay => batch.bytes,
                Fate::Become(bytes) => {
                    changed = true;
                    bytes
                }
                Fate::Go => {
                    changed = true;
                    input.pass(&header);
                    continue;
                }
            };
            let written = BatchHeader::parse(&bytes).map_err(|e| input.fault(&e))?;
            if let Some(horizon) = written.delete_horizon()
                && Self::has_expiring(&written, &bytes, &input)?
            {
                output.horizon_ms = output.horizon_ms.min(horizon);
            }
            output
                .append(&written, &bytes)
                .map_err(CompactionError::Io)?;
            input.pass(&header);
        }
        go_on(input.take_io())?;
        Ok(changed)
    }

    /// Whether a batch with a delete horizon has anything left that goes then.
    fn has_expiring(
        header: &BatchHeader,
        bytes: &bytes::Bytes,
        input: &Input,
    ) -> Result<bool, CompactionError> {
        if header.is_control() {
            return Ok(true);
        }
        let tombstones = StoredBatch::split_from(bytes)
            .and_then(|b| b.filter(|record| record.value.is_none()))
            .map_err(|e| input.fault(&e))?;
        Ok(tombstones.count() > 0)
    }

    fn fate(
        &mut self,
        survey: &Survey,
        batch: &StoredBatch,
    ) -> Result<Fate, varve_record::BatchError> {
        let header = &batch.header;
        if header.is_control() {
            return self.marker_fate(survey, batch);
        }
        if header.base_offset >= survey.upto {
            self.stats.kept_records += u64::from(header.record_count.unsigned_abs());
            if header.is_transactional() {
                self.in_transaction.insert(header.producer_id);
            }
            return Ok(Fate::Stay);
        }
        if survey.is_aborted(header) {
            self.stats.expired_records += u64::from(header.record_count.unsigned_abs());
            return Ok(self.empty_fate(survey, batch));
        }
        let horizon = header.delete_horizon();
        let expired = horizon.is_some_and(|ms| ms <= self.now_ms);
        let (stats, log_start) = (&mut self.stats, self.log_start);
        let mut tombstones = false;
        let kept = batch.filter(|record| {
            if record.offset >= survey.upto {
                return true;
            }
            let Some(key) = record.key else {
                stats.keyless_records += 1;
                return false;
            };
            let newest = survey.latest.get(hash(key));
            if newest.is_some_and(|newest| record.offset < newest) || record.offset < log_start {
                stats.superseded_records += 1;
                return false;
            }
            if record.value.is_none() {
                if expired {
                    stats.expired_records += 1;
                    return false;
                }
                tombstones = true;
            }
            true
        })?;
        if kept.count() == 0 {
            return Ok(self.empty_fate(survey, batch));
        }
        self.stats.kept_records += u64::from(kept.count());
        if header.is_transactional() {
            self.in_transaction.insert(header.producer_id);
        }
        let horizon = (tombstones && horizon.is_none()).then(|| self.horizon());
        if kept.keeps_all() && horizon.is_none() {
            return Ok(Fate::Stay);
        }
        kept.build(horizon).map(Fate::Become)
    }

    /// When what is first compacted now may go.
    fn horizon(&self) -> i64 {
        self.now_ms.saturating_add(self.config.delete_retention_ms)
    }

    /// A marker stays while records of its transaction do, and then for as long as a tombstone.
    fn marker_fate(
        &mut self,
        survey: &Survey,
        batch: &StoredBatch,
    ) -> Result<Fate, varve_record::BatchError> {
        let header = &batch.header;
        let known = matches!(batch.marker()?, Some(Marker::Commit | Marker::Abort));
        let has_records = self.in_transaction.remove(&header.producer_id);
        if !known || has_records || header.base_offset >= survey.upto {
            return Ok(Fate::Stay);
        }
        match header.delete_horizon() {
            Some(ms) if ms <= self.now_ms => {
                self.stats.expired_records += 1;
                Ok(Fate::Go)
            }
            Some(_) => Ok(Fate::Stay),
            None => {
                let all = batch.filter(|_| true)?;
                all.build(Some(self.horizon())).map(Fate::Become)
            }
        }
    }

    /// When everything in the segment that is copied had been appended: the next one was begun then. The times in its
    /// batches are their clients', and may be of any age. A segment that was repaired does not know when it was begun.
    fn closed_ms(&self) -> i64 {
        let after = self.inputs.iter().skip(self.at + 1);
        let begun = after.map(|s| s.segment.created_ms).find(|ms| *ms > 0);
        begun.or(self.inputs_closed_ms).unwrap_or(self.now_ms)
    }

    /// A batch without records stays if nothing else tells of its producer's session, and that may be in use.
    fn empty_fate(&self, survey: &Survey, batch: &StoredBatch) -> Fate {
        let header = &batch.header;
        let idle_ms = self.now_ms.saturating_sub(self.closed_ms());
        let session = idle_ms < limits::PRODUCER_IDLE_EXPIRY_MS
            && header.base_offset >= self.log_start
            && survey.is_last_of_producer(header);
        match session {
            true if header.record_count == 0 => Fate::Stay,
            true => Fate::Become(batch.emptied()),
            false => Fate::Go,
        }
    }
}
