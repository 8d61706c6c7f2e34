//! How many producer sessions the node remembers, over all of its partitions: where they would take more memory than
//! they may, those that were used least recently give way, whichever partition they are of.
//!
//! Invariants: a session that was used gives way after all that were idle for an eighth longer; no partition looks at
//! its sessions while there is room. It never touches a session itself: lanes do, by the cutoff that they get here.

use std::time::Duration;

use parking_lot::Mutex;
use varve_types::limits::PRODUCER_SESSION_BYTES;
use varve_vfs::Tick;

/// Steps per doubling of the idle time.
const STEPS: u32 = 8;
/// One bucket per step, up to 2^40 ms.
const BUCKETS: usize = 41 * STEPS as usize;
/// How often a lane counts while the node is near its limit.
const EVERY: Duration = Duration::from_secs(1);

/// Sessions of one lane.
#[derive(Debug, Clone, Default)]
struct Share {
    count: usize,
    /// By idle time; empty when nobody had to look.
    ages: Vec<usize>,
    looked: Option<Tick>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct ProducerSessions {
    most: usize,
    lanes: Mutex<Vec<Share>>,
}

/// What a lane does about its sessions.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Advice {
    /// Nothing: there is room.
    Keep,
    /// Count by idle time.
    Look,
}

impl ProducerSessions {
    /// For sessions that take so many bytes together.
    pub(crate) fn new(bytes: u64, lanes: usize) -> Self {
        let most = usize::try_from(bytes).unwrap_or(usize::MAX) / PRODUCER_SESSION_BYTES;
        Self {
            most: most.max(1),
            lanes: Mutex::new(vec![Share::default(); lanes]),
        }
    }

    /// Sessions of the node, and of a partition if no other has any.
    pub(crate) const fn most(&self) -> usize {
        self.most
    }

    /// Sessions that the lanes have last told of.
    pub(crate) fn count(&self) -> usize {
        self.lanes.lock().iter().map(|share| share.count).sum()
    }

    /// A lane has so many now.
    pub(crate) fn counted(&self, lane: usize, count: usize, now: Tick) -> Advice {
        let mut lanes = self.lanes.lock();
        lanes[lane].count = count;
        let all: usize = lanes.iter().map(|share| share.count).sum();
        let share = &mut lanes[lane];
        if all <= self.most - self.most / 16 {
            share.ages.clear();
            return Advice::Keep;
        }
        if share.looked.is_some_and(|at| now.since(at) < EVERY) {
            return Advice::Keep;
        }
        share.looked = Some(now);
        Advice::Look
    }

    /// A lane has sessions that were idle for so many milliseconds each. Returns for how long a session must have been
    /// idle to give way; `None`: none has to.
    pub(crate) fn looked(&self, lane: usize, idle_ms: impl Iterator<Item = u64>) -> Option<u64> {
        let mut ages = vec![0; BUCKETS];
        for idle in idle_ms {
            ages[bucket(idle)] += 1;
        }
        let mut lanes = self.lanes.lock();
        lanes[lane].ages = ages;
        let all: usize = lanes.iter().map(|share| share.count).sum();
        if all <= self.most {
            return None;
        }
        let mut give_way = all - (self.most - self.most / 8);
        for at in (0..BUCKETS).rev() {
            let here = lanes.iter().filter_map(|share| share.ages.get(at));
            let here: usize = here.sum();
            if here >= give_way {
                return Some(least(at));
            }
            give_way -= here;
        }
        Some(0)
    }
}

/// Eight steps per doubling; the first ones are of a millisecond each.
fn bucket(idle_ms: u64) -> usize {
    let idle = idle_ms.min((1 << 40) - 1) + u64::from(STEPS);
    let power = idle.ilog2();
    let step = (idle >> (power - 3)) & 7;
    ((power - 3) * STEPS) as usize + usize::try_from(step).unwrap_or(0)
}

/// The shortest idle time of a bucket.
fn least(bucket: usize) -> u64 {
    let (power, step) = (bucket / STEPS as usize, bucket % STEPS as usize);
    ((STEPS as u64 + step as u64) << power) - u64::from(STEPS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Tick {
        Tick::from_start(Duration::from_secs(seconds))
    }

    fn of(most: usize, lanes: usize) -> ProducerSessions {
        ProducerSessions::new((most * PRODUCER_SESSION_BYTES) as u64, lanes)
    }

    #[test]
    fn buckets_cover_every_idle_time_in_order() {
        let mut last = 0;
        for idle in (0..10_000).chain((14..40).flat_map(|p| [(1 << p) - 1, 1 << p, (1 << p) + 1])) {
            let found = bucket(idle);
            assert!(found >= last, "{idle}");
            assert!(least(found) <= idle, "{idle}");
            assert!(
                found + 1 == BUCKETS || idle < least(found + 1),
                "{idle} in {found}"
            );
            last = found;
        }
        assert!(bucket(u64::MAX) < BUCKETS);
    }

    #[test]
    fn nobody_looks_while_there_is_room() {
        let node = of(1_000, 2);
        assert_eq!(node.most(), 1_000);
        assert_eq!(node.counted(0, 400, at(1)), Advice::Keep);
        assert_eq!(node.counted(1, 500, at(1)), Advice::Keep);
        assert_eq!(node.counted(1, 550, at(2)), Advice::Look);
        assert_eq!(node.counted(1, 560, at(2)), Advice::Keep, "a moment ago");
        assert_eq!(node.looked(1, std::iter::repeat_n(5, 560)), None);
        assert_eq!(node.count(), 960);
    }

    #[test]
    fn the_least_recently_used_of_all_lanes_give_way() {
        let node = of(1_000, 2);
        // The first lane has only sessions in use, the second those of last week beside some in use.
        node.counted(0, 600, at(1));
        node.counted(1, 500, at(1));
        node.looked(0, std::iter::repeat_n(10, 600));
        let week = 7 * 24 * 3_600_000;
        let idle = std::iter::repeat_n(week, 300).chain(std::iter::repeat_n(20, 200));
        let cutoff = node.looked(1, idle).unwrap();
        assert!(cutoff > 1_000 && cutoff <= week, "{cutoff}");
        // The lane of the others gets the same answer, and has none that old.
        node.counted(0, 600, at(3));
        let same = node.looked(0, std::iter::repeat_n(10, 600)).unwrap();
        assert_eq!(same, cutoff);
        // What could give way did: there is room again.
        assert_eq!(node.counted(1, 200, at(3)), Advice::Keep);
    }

    #[test]
    fn where_all_are_in_use_the_oldest_of_them_give_way() {
        let node = of(800, 1);
        node.counted(0, 1_000, at(1));
        let cutoff = node.looked(0, 0..1_000).unwrap();
        // 300 of 1,000 have to go; a bucket goes as a whole.
        assert!((600..=700).contains(&cutoff), "{cutoff}");
    }
}
