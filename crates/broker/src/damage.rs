//! Damage that was found in a partition's files while it serves: by a read, or by the scrub. The partition goes
//! on with what is sound; what is damaged is refused by every read, told once as an error, counted, and listed
//! for the operator until the records are gone or the node starts again.
//!
//! Invariants: the same place is counted once, however often it is met; the list has a bound.

use parking_lot::Mutex;
use varve_broker_api::Error;
use varve_storage::Damage;
use varve_types::{ErrorKind, Offset, OffsetRange};

use crate::partition::Partition;

/// Damaged places of one partition that are listed; more are counted all the same.
const LISTED: usize = 1_000;

/// The damage of one partition that is known.
#[derive(Debug, Default)]
pub(crate) struct DamageList {
    found: Mutex<Vec<Damage>>,
}

impl DamageList {
    /// Notes a place. `false` when it is known, or behind the first [`LISTED`] ones.
    fn add(&self, damage: &Damage) -> bool {
        let mut found = self.found.lock();
        let known = |d: &Damage| {
            let inside =
                d.position <= damage.position && damage.position < d.end.max(d.position + 1);
            d.file == damage.file && inside
        };
        if found.iter().any(known) || found.len() >= LISTED {
            return false;
        }
        found.push(damage.clone());
        true
    }

    /// What is damaged of a log that begins at `log_start`.
    pub(crate) fn list(&self, log_start: Offset) -> Vec<Damage> {
        let mut found = self.found.lock();
        // Records that are gone need no repair.
        found.retain(|d| d.offsets.is_none_or(|range| range.end > log_start));
        found.clone()
    }
}

impl Partition {
    /// Sees to it that this damaged replica is copied again from others, where there are others. Whether that
    /// is about to happen, so that what cannot be read here can soon be read elsewhere.
    pub(crate) fn ask_repair(&self) -> bool {
        let serves = self.offline().is_none();
        let asked = self
            .repairer
            .as_ref()
            .map(|r| r.repairs.ask(r.key, self.slot, serves));
        asked.unwrap_or(false)
    }

    /// Takes note of damage in this partition's files; whether it is news.
    pub(crate) fn note_damage(&self, damage: &Damage) -> bool {
        if damage.offsets.is_some() {
            self.ask_repair();
        }
        if !self.damage.add(damage) {
            return false;
        }
        let (topic, partition) = (&self.id.topic, self.id.partition.0);
        let file = damage.file.display();
        if let Some(OffsetRange { start, end }) = damage.offsets {
            self.counters.corrupt_batches.inc();
            tracing::error!(
                %topic, partition, %file, position = damage.position, expected = damage.expected,
                found = damage.found, first_offset = %start, next_offset = %end,
                "found damaged records: they are not served; records before and after them are"
            );
        } else {
            self.counters.damaged_files.inc();
            tracing::error!(
                %topic, partition, %file, position = damage.position, expected = damage.expected,
                found = damage.found,
                "found a damaged file that can be rebuilt: no records are lost; stop the node, \
                 delete the file so that the next start rebuilds it, and check the disk"
            );
        }
        true
    }

    /// The damage that is known and still part of the log.
    pub(crate) fn damaged(&self) -> Vec<Damage> {
        self.damage.list(self.log_start())
    }

    /// One error for all damaged records; `None` when there are none.
    pub(crate) fn damage_error(&self) -> Option<Error> {
        let damaged = self.damaged();
        let ranges: Vec<OffsetRange> = damaged.iter().filter_map(|d| d.offsets).collect();
        let first = ranges.first()?;
        let more = match ranges.len() - 1 {
            0 => String::new(),
            n => format!(" and {n} more"),
        };
        let text = format!(
            "partition {} has damaged records: offsets {} to {} (exclusive){more}; they cannot be \
             read, all other records can; check the disk, and run `varve log verify` once the node \
             is stopped",
            self.id, first.start, first.end
        );
        Some(
            Error::new(ErrorKind::CorruptLog, text)
                .with("topic", &self.id.topic)
                .with("partition", self.id.partition)
                .with("offset", first.start)
                .with("next_readable_offset", first.end),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(position: u64, end: u64, offsets: Option<(i64, i64)>) -> Damage {
        let o = |n| Offset::new(n).unwrap();
        Damage {
            file: "x.log".into(),
            position,
            end,
            offsets: offsets.map(|(start, end)| OffsetRange {
                start: o(start),
                end: o(end),
            }),
            expected: String::new(),
            found: String::new(),
        }
    }

    #[test]
    fn a_place_is_noted_once_and_forgotten_with_its_records() {
        let list = DamageList::default();
        assert!(list.add(&at(100, 200, Some((5, 9)))));
        assert!(!list.add(&at(100, 100, Some((5, 9)))), "the same place");
        assert!(!list.add(&at(150, 160, None)), "within it");
        assert!(list.add(&at(200, 210, None)));
        let o = |n| Offset::new(n).unwrap();
        assert_eq!(list.list(o(8)).len(), 2);
        assert_eq!(list.list(o(9)).len(), 1, "what has no offsets stays");
        for n in 0..2 * LISTED as u64 {
            list.add(&at(1_000 + n, 0, None));
        }
        assert_eq!(list.list(o(0)).len(), LISTED);
    }
}
