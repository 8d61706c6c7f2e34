//! What was seen at each offset of a partition: pages of slots, so that memory follows what was seen, whatever
//! numbers a history holds.

use std::collections::BTreeMap;

const PAGE: u64 = 1024;

/// One offset.
#[derive(Debug, Clone, Copy, Default)]
pub struct Slot {
    /// Number of the send that is there, plus one; 0: nobody has seen anything.
    send: u32,
    /// Leader epoch plus one; 0: not known.
    epoch: u32,
    /// Somebody has read it, not only been told of it.
    pub read: bool,
}

impl Slot {
    /// The send that is there.
    pub const fn send(self) -> Option<u32> {
        self.send.checked_sub(1)
    }

    /// Puts a send there.
    pub const fn set_send(&mut self, send: u32) {
        self.send = send.saturating_add(1);
    }

    /// The leader epoch of the record.
    pub const fn epoch(self) -> Option<u32> {
        self.epoch.checked_sub(1)
    }

    /// Notes the leader epoch of the record.
    pub const fn set_epoch(&mut self, epoch: u32) {
        self.epoch = epoch.saturating_add(1);
    }
}

/// The slots of one partition.
#[derive(Debug, Default)]
pub struct Slots {
    pages: BTreeMap<u64, Box<[Slot]>>,
}

impl Slots {
    /// The slot of an offset, made when it is not there. Offsets are not negative.
    pub fn at(&mut self, offset: u64) -> &mut Slot {
        let page = self
            .pages
            .entry(offset / PAGE)
            .or_insert_with(|| vec![Slot::default(); PAGE as usize].into_boxed_slice());
        &mut page[(offset % PAGE) as usize]
    }

    /// Every offset at which something is, in order.
    pub fn iter(&self) -> impl Iterator<Item = (u64, Slot)> + '_ {
        self.pages.iter().flat_map(|(page, slots)| {
            let base = page * PAGE;
            let of_page = slots.iter().zip(base..);
            of_page
                .filter(|(slot, _)| slot.send != 0)
                .map(|(slot, offset)| (offset, *slot))
        })
    }

    /// The first offset of a range at which a send is that counts.
    pub fn first_in(
        &self,
        from: u64,
        to: u64,
        counts: impl Fn(u32) -> bool,
    ) -> Option<(u64, Slot)> {
        if from >= to {
            return None;
        }
        let pages = self.pages.range(from / PAGE..=(to - 1) / PAGE);
        for (page, slots) in pages {
            let base = page * PAGE;
            let found = slots.iter().zip(base..).find(|(slot, offset)| {
                (from..to).contains(offset) && slot.send().is_some_and(&counts)
            });
            if let Some((slot, offset)) = found {
                return Some((offset, *slot));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_found_across_pages_and_at_the_edge_of_numbers() {
        let mut slots = Slots::default();
        for offset in [3, 1023, 1024, 5000, u64::MAX >> 1] {
            slots.at(offset).set_send(offset as u32);
        }
        slots.at(4); // Looked at, and still empty.
        let all: Vec<u64> = slots.iter().map(|(offset, _)| offset).collect();
        assert_eq!(all, [3, 1023, 1024, 5000, u64::MAX >> 1]);
        let first = |from, to| slots.first_in(from, to, |_| true).map(|(o, _)| o);
        assert_eq!(first(4, 1023), None);
        assert_eq!(first(4, 1025), Some(1023));
        assert_eq!(first(1025, 9000), Some(5000));
        assert_eq!(first(9, 9), None);
        let found = slots.first_in(4, 9000, |send| send != 1023).map(|(o, _)| o);
        assert_eq!(found, Some(1024));
    }
}
