//! L8: what was surely refused is never shown.

use crate::cluster::oracle::Seen;

pub(in crate::cluster) fn check(seen: &Seen) -> Result<(), String> {
    let histories = seen.histories.values();
    let mut shown = histories.flat_map(|h| h.shown.iter().rev().take(200));
    match shown.find(|v| seen.refused.contains(v)) {
        Some(value) => Err(format!("L8: value {value:x} was refused but is shown")),
        None => Ok(()),
    }
}
