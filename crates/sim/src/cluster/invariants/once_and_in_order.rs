//! P1 and L7: a value is in the log once, however often it was sent, and what one producer sent is there in
//! the order in which it was sent.

use std::collections::{BTreeMap, BTreeSet};

use crate::cluster::history::History;
use crate::cluster::txn::WRITERS;

pub(in crate::cluster) fn check(seen: &History) -> Result<(), String> {
    let mut once = BTreeSet::new();
    let mut last: BTreeMap<u64, u64> = BTreeMap::new();
    let trimmed = (seen.trimmed.get() as usize).min(seen.shown.len());
    let (gone, kept) = seen.shown.split_at(trimmed);
    let gone: BTreeSet<u64> = gone.iter().copied().collect();
    let mut runs = kept.to_vec();
    runs.dedup();
    runs.retain(|value| !gone.contains(value));
    for value in runs {
        // Producers that do not repeat may overtake themselves on the way.
        let (client, request) = (value >> 40, value & ((1 << 40) - 1));
        // What belongs to transactions is repeated, and is there once.
        if client >= WRITERS as u64 && !once.insert(value) {
            return Err(format!("P1: {value:x} is in the log twice"));
        }
        if client >= 2 {
            continue;
        }
        if let Some(before) = last.insert(client, request)
            && before >= request
        {
            return Err(format!(
                "P1: producer {client} has batch {request} after its batch {before}"
            ));
        }
    }
    Ok(())
}
