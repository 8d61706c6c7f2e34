//! L9: the end that clients are told never goes back, not even over a change of leader (KIP-207): what
//! any later leader says is at least what any earlier one has ever said.

use std::collections::BTreeMap;

use varve_types::{LeaderEpoch, Offset};

pub(in crate::cluster) fn check(
    ends: &mut BTreeMap<LeaderEpoch, (Offset, Offset)>,
    epoch: LeaderEpoch,
    latest: Offset,
) -> Result<(), String> {
    let told = ends.entry(epoch).or_insert((latest, latest));
    *told = (told.0.min(latest), told.1.max(latest));
    let (least, greatest) = *told;
    let earlier = ends.range(..epoch).next_back();
    let later = LeaderEpoch::new(epoch.get() + 1).and_then(|e| ends.range(e..).next());
    if let Some((other, (_, end))) = earlier.filter(|(_, (_, end))| *end > least) {
        return Err(format!(
            "L9: {least} is the latest in epoch {epoch}, but in epoch {other} it was {end}"
        ));
    }
    if let Some((other, (start, _))) = later.filter(|(_, (start, _))| *start < greatest) {
        return Err(format!(
            "L9: {greatest} is the latest in epoch {epoch}, but in epoch {other} it is {start}"
        ));
    }
    Ok(())
}
