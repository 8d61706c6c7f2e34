//! What readers must know of a partition's transactions, and what of a read they get to see.
//!
//! Invariants: the list of aborted transactions is published before the last stable offset that needs it, so whoever
//! reads below that offset finds every transaction there that was aborted; it is published before the high watermark,
//! so nobody meets an end that lags for no reason; what the list forgets is gone from the view of the log that was
//! published before, and whoever reads an older view is told to read again; markers of the log itself are shown to
//! nobody but the log's own coordinators and followers.

use std::sync::atomic::{AtomicI64, Ordering};

use bytes::{Bytes, BytesMut};
use parking_lot::RwLock;
use varve_broker_api::{Error, Isolation};
use varve_partition::{Aborted, AbortedList};
use varve_record::{StoredBatch, has_transactions};
use varve_types::{ErrorKind, Offset};

/// What a reader is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sight {
    /// Everything, as it is stored, up to the high watermark.
    Raw,
    /// Everything, as it is stored, up to where that isolation ends.
    RawOf(Isolation),
    /// What a client asked for.
    Of(Isolation),
}

/// Transactions of a partition as its lane published them last.
#[derive(Debug, Default)]
pub(crate) struct Stable {
    last_stable: AtomicI64,
    aborted: RwLock<Known>,
}

#[derive(Debug, Default)]
struct Known {
    list: AbortedList,
    /// Times that the list was another all of a sudden.
    replaced: u64,
}

/// What was forgotten when a reader took its view of the log: that view, being as new at least, has nothing of it. What
/// is forgotten later it may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Forgotten {
    below: Offset,
    replaced: u64,
}

impl Stable {
    /// Readers of committed records may read below `last_stable`, with these aborted.
    pub(crate) fn publish(&self, last_stable: Offset, aborted: &AbortedList) {
        let same = {
            let known = self.aborted.read();
            let ends = |list: &AbortedList| {
                let all = list.all();
                let ends = (all.first().copied(), all.last().copied());
                (all.len(), ends, list.floor())
            };
            ends(&known.list) == ends(aborted)
        };
        if !same {
            self.aborted.write().list.follow(aborted);
        }
        self.last_stable.store(last_stable.get(), Ordering::SeqCst);
    }

    /// As [`Self::publish`], after the log was cut: what was known may be wrong anywhere.
    pub(crate) fn replace(&self, last_stable: Offset, aborted: &AbortedList) {
        let mut known = self.aborted.write();
        known.list = aborted.clone();
        known.replaced += 1;
        drop(known);
        self.last_stable.store(last_stable.get(), Ordering::SeqCst);
    }

    pub(crate) fn last_stable(&self) -> Offset {
        Offset::new(self.last_stable.load(Ordering::SeqCst)).unwrap_or(Offset::ZERO)
    }

    /// To be asked before the view of the log is taken that is read.
    pub(crate) fn forgotten(&self) -> Forgotten {
        let known = self.aborted.read();
        Forgotten {
            below: known.list.floor(),
            replaced: known.replaced,
        }
    }

    /// Aborted transactions with an offset in `[from, to)`, where `batches` were read, as far as a reader with that
    /// sight leaves them out. `None`: what is needed for a view as old as that was forgotten since.
    pub(crate) fn aborted(
        &self,
        sight: Sight,
        batches: &[u8],
        then: Forgotten,
        (from, to): (Offset, Offset),
    ) -> Option<Vec<Aborted>> {
        match sight {
            Sight::Of(Isolation::Committed) if has_transactions(batches) => {}
            Sight::RawOf(Isolation::Committed) => {}
            Sight::Of(_) | Sight::RawOf(_) | Sight::Raw => return Some(Vec::new()),
        }
        let known = self.aborted.read();
        let floor = known.list.floor();
        let needed = known.replaced == then.replaced && (floor <= then.below || floor <= from);
        needed.then(|| known.list.overlapping(from, to).copied().collect())
    }

    /// What of whole batches a reader is shown, of which `aborted` does not count. Copies only where something in the
    /// middle is left out.
    pub(crate) fn show(sight: Sight, batches: Bytes, aborted: &[Aborted]) -> Result<Bytes, Error> {
        let Sight::Of(_) = sight else {
            return Ok(batches);
        };
        if !has_transactions(&batches) {
            return Ok(batches);
        }
        let mut shown = Shown::default();
        let mut rest = batches.clone();
        let mut at = 0;
        while !rest.is_empty() {
            let batch = StoredBatch::split_from(&rest).map_err(|error| {
                let text = format!("a batch that was just read is damaged: {error}");
                Error::new(ErrorKind::CorruptLog, text)
            })?;
            let size = batch.bytes.len();
            let header = &batch.header;
            let hidden = header.is_control()
                || header.is_transactional()
                    && aborted.iter().any(|a| {
                        a.producer == header.producer_id
                            && (a.first..=a.last).contains(&header.base_offset)
                    });
            if !hidden {
                shown.add(at, size);
            }
            at += size;
            rest = rest.slice(size..);
        }
        Ok(shown.of(&batches))
    }
}

/// What a reader that is shown everything is told to leave out.
pub(crate) fn told(sight: Sight, aborted: &[Aborted]) -> Vec<varve_broker_api::Aborted> {
    if sight != Sight::RawOf(Isolation::Committed) {
        return Vec::new();
    }
    let all = aborted.iter().map(|a| varve_broker_api::Aborted {
        producer: a.producer,
        first: a.first,
    });
    all.collect()
}

/// Runs of batches that are shown.
#[derive(Default)]
struct Shown(Vec<(usize, usize)>);

impl Shown {
    fn add(&mut self, at: usize, size: usize) {
        match self.0.last_mut() {
            Some((_, end)) if *end == at => *end += size,
            _ => self.0.push((at, at + size)),
        }
    }

    fn of(&self, bytes: &Bytes) -> Bytes {
        match self.0.as_slice() {
            [] => Bytes::new(),
            [(start, end)] => bytes.slice(*start..*end),
            runs => {
                let mut all = BytesMut::with_capacity(bytes.len());
                for (start, end) in runs {
                    all.extend_from_slice(&bytes[*start..*end]);
                }
                all.freeze()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use varve_record::{BatchBuilder, Compression, EndMarker, Marker, end_marker};
    use varve_types::{LeaderEpoch, ProducerId, Sequence};

    use super::*;

    fn o(n: i64) -> Offset {
        Offset::new(n).unwrap()
    }

    const TXN: ProducerId = ProducerId { id: 7, epoch: 1 };

    /// Batches of one record each, back to back: plain, of the producer's transaction, or its marker.
    fn log(what: &str) -> Bytes {
        let mut all = BytesMut::new();
        for (at, kind) in (0..).zip(what.chars()) {
            let batch = if kind == '!' {
                let end = EndMarker {
                    number: None,
                    marker: Marker::Abort,
                    coordinator_epoch: 0,
                };
                end_marker(TXN, end, 1)
            } else {
                let mut builder = BatchBuilder::new(Compression::None, None);
                builder.append(1, None, Some(b"v"), &[]).unwrap();
                if kind == 't' {
                    builder.set_transaction(TXN, Sequence::ZERO);
                }
                builder.build_batch().unwrap()
            };
            let batch = batch.sequence(o(at), LeaderEpoch::ZERO);
            let (header, body) = (batch.header().encode(), batch.body());
            all.extend_from_slice(&header);
            all.extend_from_slice(body);
        }
        all.freeze()
    }

    fn shown(stable: &Stable, sight: Sight, bytes: &Bytes) -> Vec<i64> {
        let then = stable.forgotten();
        let aborted = stable.aborted(sight, bytes, then, (o(0), o(99))).unwrap();
        let bytes = Stable::show(sight, bytes.clone(), &aborted).unwrap();
        let batches = varve_record::iter_batches(bytes);
        batches
            .map(|b| b.unwrap().header.base_offset.get())
            .collect()
    }

    #[test]
    fn markers_are_hidden_and_aborted_records_from_readers_of_committed_ones() {
        let stable = Stable::default();
        let mut table = varve_partition::ProducerTable::default();
        let bytes = log("-t-t!t-");
        for batch in varve_record::iter_batches(bytes.clone()) {
            let batch = batch.unwrap();
            table.replay(&batch.header, batch.end_marker().unwrap(), 0);
        }
        stable.publish(o(5), table.aborted_list());
        assert_eq!(stable.last_stable(), o(5));
        let committed = Sight::Of(Isolation::Committed);
        assert_eq!(shown(&stable, committed, &bytes), [0, 2, 5, 6]);
        let all = Sight::Of(Isolation::Uncommitted);
        assert_eq!(shown(&stable, all, &bytes), [0, 1, 2, 3, 5, 6]);
        assert_eq!(shown(&stable, Sight::Raw, &bytes), [0, 1, 2, 3, 4, 5, 6]);
        // Whoever is shown everything is told what to leave out.
        let raw = Sight::RawOf(Isolation::Committed);
        assert_eq!(shown(&stable, raw, &bytes), [0, 1, 2, 3, 4, 5, 6]);
        let told = |sight, from, to| {
            let aborted = stable.aborted(sight, &bytes, stable.forgotten(), (o(from), o(to)));
            let told = super::told(sight, &aborted.unwrap()).into_iter();
            told.map(|a| (a.producer, a.first.get()))
                .collect::<Vec<_>>()
        };
        assert_eq!(told(raw, 0, 7), [(TXN.id, 1)]);
        assert_eq!(told(raw, 4, 5), [(TXN.id, 1)], "its marker is there");
        assert_eq!(told(raw, 5, 7), []);
        assert_eq!(told(Sight::RawOf(Isolation::Uncommitted), 0, 7), []);
        // Nothing is copied where nothing is hidden.
        let plain = log("----");
        let same = Stable::show(committed, plain.clone(), &[]).unwrap();
        assert_eq!(same.as_ptr(), plain.as_ptr());
        // A list that is replaced is forgotten, whatever it had.
        stable.replace(o(1), &AbortedList::default());
        assert_eq!(shown(&stable, committed, &bytes), [0, 1, 2, 3, 5, 6]);
    }

    /// A reader's view of the log may be older than the list that it asks.
    #[test]
    fn what_was_forgotten_since_is_not_taken_for_committed() {
        let stable = Stable::default();
        let bytes = log("t!-t!-");
        let mut table = varve_partition::ProducerTable::default();
        for batch in varve_record::iter_batches(bytes.clone()) {
            let batch = batch.unwrap();
            table.replay(&batch.header, batch.end_marker().unwrap(), 0);
        }
        let core = |table| {
            let recovered = varve_partition::Recovered {
                log_end: o(6),
                producers: table,
                ..Default::default()
            };
            let config = varve_partition::CoreConfig::default();
            varve_partition::Core::new(varve_types::NodeId(1), config, recovered, 0)
        };
        let mut core = core(table);
        stable.publish(o(6), core.producers().aborted_list());
        let (committed, before) = (Sight::Of(Isolation::Committed), stable.forgotten());
        let found = |then, from, to| {
            let found = stable.aborted(committed, &bytes, then, (o(from), o(to)));
            found.map(|all| all.iter().map(|a| a.first.get()).collect::<Vec<_>>())
        };
        assert_eq!(found(before, 0, 6), Some(vec![0, 3]));
        core.compacted(o(3));
        stable.publish(o(6), core.producers().aborted_list());
        assert_eq!(found(before, 0, 6), None, "the view may have the first one");
        assert_eq!(found(before, 3, 6), Some(vec![3]), "not there");
        let after = stable.forgotten();
        assert_eq!(found(after, 0, 6), Some(vec![3]));
        // Whoever is shown everything is told the same.
        let raw = Sight::RawOf(Isolation::Committed);
        assert_eq!(stable.aborted(raw, &[], before, (o(0), o(6))), None);
        let all = stable.aborted(
            Sight::Of(Isolation::Uncommitted),
            &bytes,
            before,
            (o(0), o(6)),
        );
        assert_eq!(all, Some(Vec::new()));
        // A log that was cut is another one.
        stable.replace(o(6), core.producers().aborted_list());
        assert_eq!(found(after, 0, 6), None);
    }
}
