//! L1, no committed record lost: what was acknowledged to `acks=all` is shown at its offset.

use crate::cluster::history::History;

pub(in crate::cluster) fn check(seen: &History) -> Result<(), String> {
    for (value, (base, records)) in &seen.acknowledged {
        for n in 0..u64::from(*records) {
            let offset = base.plus(n);
            let shown = seen.shown.get(offset.get() as usize);
            if shown != Some(value) {
                return Err(format!(
                    "L1: value {value:x} was acknowledged at {base}, but {offset} holds {shown:x?}"
                ));
            }
        }
    }
    Ok(())
}
