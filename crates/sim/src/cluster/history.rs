//! What one partition has shown since an unclean election, or from the beginning. An unclean election gives
//! records up: from then on the truth is the log of the replica that was made to lead, as it stood when it
//! began to. Everything that this log holds durably of what was shown or acknowledged before still counts, in
//! full; the rest is given up for as long as no later unclean election brings it back.

use std::collections::BTreeMap;

use varve_types::{LeaderEpoch, Offset};

use super::disk::{Batch, Log};

/// What was shown and promised between two unclean elections.
#[derive(Debug, Clone, Default)]
pub(super) struct History {
    /// The value at each offset, as it was shown first. A value takes as many offsets as it has records.
    pub(super) shown: Vec<u64>,
    /// Where each acknowledged value (`acks=all`) begins.
    pub(super) acknowledged: BTreeMap<u64, (Offset, u32)>,
    /// Records below have been removed on some node. What a producer repeats after that is new again to a
    /// replica that began without them (the sessions go with the records).
    pub(super) trimmed: Offset,
    /// For each epoch, the least and the greatest end that its leader has told clients.
    pub(super) latest: BTreeMap<LeaderEpoch, (Offset, Offset)>,
    /// The same of the last stable offset.
    pub(super) stable: BTreeMap<LeaderEpoch, (Offset, Offset)>,
    /// The log it began with, and its epoch; `None`: it began with nothing.
    pub(super) founder: Option<(LeaderEpoch, Log)>,
}

impl History {
    /// One that begins with `log`, of which `durable` survives whatever comes.
    pub(super) fn found<'a>(
        epoch: LeaderEpoch,
        log: &Log,
        durable: Offset,
        earlier: impl Iterator<Item = &'a Self> + Clone,
    ) -> Self {
        let best = earlier.clone().max_by_key(|h| h.agreement(log, durable));
        let mut history = Self {
            founder: Some((epoch, log.clone())),
            ..Self::default()
        };
        if let Some(best) = best {
            history.shown = best.shown[..best.agreement(log, durable)].to_vec();
            let end = Offset::new(history.shown.len() as i64).unwrap_or_default();
            history.trimmed = best.trimmed.min(end).max(log.start.min(end));
        }
        for (value, (base, records)) in earlier.flat_map(|h| &h.acknowledged) {
            let end = base.plus((*records).into());
            let same = |b: &Batch| (b.base, b.value) == (*base, *value);
            let held = log.at(*base).is_some_and(same) && end <= durable;
            let gone = end <= log.start && history.shown.get(base.get() as usize) == Some(value);
            if held || gone {
                history.acknowledged.insert(*value, (*base, *records));
            }
        }
        history
    }

    /// How much of what was shown that log still has.
    fn agreement(&self, log: &Log, durable: Offset) -> usize {
        let mut shown = self.shown.iter().enumerate();
        let parts = shown.find(|(at, value)| {
            let offset = Offset::new(*at as i64).unwrap_or_default();
            let held = log.at(offset).is_some_and(|b| b.value == **value);
            offset >= log.start && !(held && offset < durable)
        });
        parts.map_or(self.shown.len(), |(at, _)| at)
    }
}
