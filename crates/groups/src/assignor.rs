//! Who should read what: pure functions from members, topics and the target before to a new target.
//!
//! Invariant: every partition of every subscribed topic goes to exactly one subscriber of that topic.
//! Never decides when a member may start: that is reconciliation, in `group`.

use std::collections::{BTreeMap, BTreeSet};

use varve_types::{MemberId, PartitionId, TopicName, TopicPartition};

/// A rule of assignment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Assignor {
    /// Loads differ by at most one where subscriptions allow it, and as few partitions as possible move.
    Uniform,
    /// Per topic, runs of neighbouring partitions in the order of members, as Kafka's range assignor.
    Range,
}

impl Assignor {
    /// Name in the public API.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Uniform => "uniform",
            Self::Range => "range",
        }
    }

    /// The assignor of that name; `None` when there is none.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "uniform" => Some(Self::Uniform),
            "range" => Some(Self::Range),
            _ => None,
        }
    }
}

/// A member as an assignor sees it.
#[derive(Debug, Clone)]
pub struct Candidate<'a> {
    /// Member.
    pub member: &'a MemberId,
    /// Instance id of a static member: orders members of the range assignor.
    pub instance: Option<&'a str>,
    /// Topics it is subscribed to, patterns resolved.
    pub topics: &'a BTreeSet<TopicName>,
    /// Its target before.
    pub before: &'a BTreeSet<TopicPartition>,
}

/// A new target, one set per candidate in the order given. Topics without `partitions` entry do not
/// exist and are left out.
///
/// # Panics
/// When the result does not cover every subscribed partition exactly once: a bug of ours (G2).
#[must_use]
pub fn assign(
    assignor: Assignor,
    candidates: &[Candidate<'_>],
    partitions: impl Fn(&TopicName) -> Option<i32>,
) -> Vec<BTreeSet<TopicPartition>> {
    let mut subscribers: BTreeMap<&TopicName, Vec<usize>> = BTreeMap::new();
    for (index, candidate) in candidates.iter().enumerate() {
        for topic in candidate.topics {
            subscribers.entry(topic).or_default().push(index);
        }
    }
    let topics: Vec<Topic<'_>> = subscribers
        .into_iter()
        .filter_map(|(name, subscribers)| {
            partitions(name).map(|count| Topic {
                name,
                count,
                subscribers,
            })
        })
        .collect();
    let target = match assignor {
        Assignor::Uniform => uniform(candidates, &topics),
        Assignor::Range => range(candidates, &topics),
    };
    assert_covers(&topics, &target);
    target
}

struct Topic<'a> {
    name: &'a TopicName,
    count: i32,
    /// Indices of candidates, ascending.
    subscribers: Vec<usize>,
}

impl Topic<'_> {
    fn partition(&self, number: i32) -> TopicPartition {
        TopicPartition::new(self.name.clone(), PartitionId(number))
    }
}

fn assert_covers(topics: &[Topic<'_>], target: &[BTreeSet<TopicPartition>]) {
    let wanted: u64 = topics.iter().map(|t| t.count.max(0) as u64).sum();
    let given: usize = target.iter().map(BTreeSet::len).sum();
    assert_eq!(
        wanted, given as u64,
        "G2: a target covers every partition exactly once"
    );
    let mut seen = BTreeSet::new();
    for partition in target.iter().flatten() {
        assert!(seen.insert(partition), "G2: {partition} is in two targets");
    }
}

/// Kafka's order of range assignment: static members by instance id, then dynamic ones by member id.
fn range(candidates: &[Candidate<'_>], topics: &[Topic<'_>]) -> Vec<BTreeSet<TopicPartition>> {
    let mut target = vec![BTreeSet::new(); candidates.len()];
    for topic in topics {
        let mut order = topic.subscribers.clone();
        order.sort_by_key(|&i| {
            let c = &candidates[i];
            (c.instance.is_none(), c.instance, c.member)
        });
        let members = order.len() as i32;
        let (each, extra) = (topic.count / members, topic.count % members);
        let mut next = 0;
        for (rank, &index) in order.iter().enumerate() {
            let take = each + i32::from((rank as i32) < extra);
            target[index].extend((next..next + take).map(|n| topic.partition(n)));
            next += take;
        }
    }
    target
}

/// Topics with the same subscribers are one pool: any of their partitions fits any of these members.
struct Pool {
    members: Vec<usize>,
    /// Partitions nobody had before, or whose owner is no longer eligible.
    free: Vec<TopicPartition>,
    /// Partitions of this pool by their present owner.
    held: BTreeMap<usize, BTreeSet<TopicPartition>>,
}

fn uniform(candidates: &[Candidate<'_>], topics: &[Topic<'_>]) -> Vec<BTreeSet<TopicPartition>> {
    let mut load = vec![0_usize; candidates.len()];
    let mut pools = pools(candidates, topics, &mut load);
    // The fewest choices first, so that members with wide subscriptions even out what is left.
    pools.sort_by(|a, b| {
        a.members
            .len()
            .cmp(&b.members.len())
            .then(a.members.cmp(&b.members))
    });
    for pool in &mut pools {
        pool.place_free(&mut load);
    }
    // Each move takes from a member with at least two more, so the sum of squared loads falls and
    // the loop ends.
    let mut moved = true;
    while moved {
        moved = false;
        for pool in &mut pools {
            moved |= pool.balance(&mut load);
        }
    }
    let mut target = vec![BTreeSet::new(); candidates.len()];
    for pool in pools {
        for (index, held) in pool.held {
            target[index].extend(held);
        }
    }
    target
}

fn pools(candidates: &[Candidate<'_>], topics: &[Topic<'_>], load: &mut [usize]) -> Vec<Pool> {
    let mut before: BTreeMap<&TopicPartition, usize> = BTreeMap::new();
    for (index, candidate) in candidates.iter().enumerate() {
        for partition in candidate.before {
            before.entry(partition).or_insert(index);
        }
    }
    let mut pools: BTreeMap<&[usize], Pool> = BTreeMap::new();
    for topic in topics {
        let pool = pools.entry(&topic.subscribers).or_insert_with(|| Pool {
            members: topic.subscribers.clone(),
            free: Vec::new(),
            held: BTreeMap::new(),
        });
        for number in 0..topic.count {
            let partition = topic.partition(number);
            match before.get(&partition) {
                Some(index) if topic.subscribers.binary_search(index).is_ok() => {
                    load[*index] += 1;
                    pool.held.entry(*index).or_default().insert(partition);
                }
                _ => pool.free.push(partition),
            }
        }
    }
    pools.into_values().collect()
}

impl Pool {
    fn by_load(&self, load: &[usize]) -> BTreeSet<(usize, usize)> {
        self.members.iter().map(|&i| (load[i], i)).collect()
    }

    fn place_free(&mut self, load: &mut [usize]) {
        let mut order = self.by_load(load);
        for partition in std::mem::take(&mut self.free) {
            let Some((_, index)) = order.pop_first() else {
                unreachable!("a pool has at least one member")
            };
            load[index] += 1;
            order.insert((load[index], index));
            self.held.entry(index).or_default().insert(partition);
        }
    }

    /// Moves partitions from the most to the least loaded member until that no longer helps.
    fn balance(&mut self, load: &mut [usize]) -> bool {
        let mut takers = self.by_load(load);
        let mut givers: BTreeSet<(usize, usize)> = self
            .held
            .iter()
            .filter(|(_, h)| !h.is_empty())
            .map(|(&i, _)| (load[i], i))
            .collect();
        let mut moved = false;
        while let (Some(&(most, from)), Some(&(least, to))) = (givers.last(), takers.first()) {
            if most < least + 2 {
                break;
            }
            let Some(partition) = self.held.get_mut(&from).and_then(BTreeSet::pop_last) else {
                unreachable!("a giver holds at least one partition")
            };
            self.held.entry(to).or_default().insert(partition);
            moved = true;
            for (index, new) in [(from, most - 1), (to, least + 1)] {
                takers.remove(&(load[index], index));
                givers.remove(&(load[index], index));
                load[index] = new;
                takers.insert((new, index));
                if self.held.get(&index).is_some_and(|h| !h.is_empty()) {
                    givers.insert((new, index));
                }
            }
        }
        moved
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topics(names: &[&str]) -> BTreeSet<TopicName> {
        names.iter().map(|n| TopicName::new(n).unwrap()).collect()
    }

    fn run(
        assignor: Assignor,
        members: &[(&str, &[&str])],
        counts: &[(&str, i32)],
        before: &[BTreeSet<TopicPartition>],
    ) -> Vec<BTreeSet<TopicPartition>> {
        let ids: Vec<_> = members
            .iter()
            .map(|(id, _)| MemberId::new(id).unwrap())
            .collect();
        let subs: Vec<_> = members.iter().map(|(_, t)| topics(t)).collect();
        let none = BTreeSet::new();
        let candidates: Vec<_> = (0..members.len())
            .map(|i| Candidate {
                member: &ids[i],
                instance: None,
                topics: &subs[i],
                before: before.get(i).unwrap_or(&none),
            })
            .collect();
        assign(assignor, &candidates, |t| {
            counts
                .iter()
                .find(|(n, _)| *n == t.as_str())
                .map(|(_, c)| *c)
        })
    }

    fn print(target: &[BTreeSet<TopicPartition>]) -> Vec<String> {
        target
            .iter()
            .map(|s| {
                s.iter()
                    .map(ToString::to_string)
                    .collect::<Vec<_>>()
                    .join(" ")
            })
            .collect()
    }

    #[test]
    fn range_gives_runs_and_the_first_members_one_more() {
        let target = run(
            Assignor::Range,
            &[("a", &["t", "u"]), ("b", &["t", "u"])],
            &[("t", 3), ("u", 3)],
            &[],
        );
        assert_eq!(print(&target), ["t:0 t:1 u:0 u:1", "t:2 u:2"]);
        let target = run(
            Assignor::Range,
            &[("a", &["t"]), ("b", &["u"])],
            &[("t", 2)],
            &[],
        );
        assert_eq!(print(&target), ["t:0 t:1", ""]);
    }

    #[test]
    fn uniform_balances_across_topics() {
        let target = run(
            Assignor::Uniform,
            &[("a", &["t", "u"]), ("b", &["t", "u"])],
            &[("t", 3), ("u", 3)],
            &[],
        );
        assert_eq!(print(&target), ["t:0 t:2 u:1", "t:1 u:0 u:2"]);
    }

    #[test]
    fn uniform_moves_no_more_than_it_must() {
        let counts = [("t", 9)];
        let two = run(
            Assignor::Uniform,
            &[("a", &["t"]), ("b", &["t"])],
            &counts,
            &[],
        );
        let three: [(&str, &[&str]); 3] = [("a", &["t"]), ("b", &["t"]), ("c", &["t"])];
        let after = run(Assignor::Uniform, &three, &counts, &two);
        let kept: usize = (0..2).map(|i| two[i].intersection(&after[i]).count()).sum();
        assert_eq!(
            kept, 6,
            "three partitions move to the new member, none between the old"
        );
        assert!(after.iter().all(|s| s.len() == 3));
        // And the partitions of a member that is gone go to the others, which keep theirs.
        let rest = run(Assignor::Uniform, &three[..2], &counts, &after);
        assert!(after[0].is_subset(&rest[0]) && after[1].is_subset(&rest[1]));
    }

    #[test]
    fn uniform_respects_subscriptions_that_differ() {
        let target = run(
            Assignor::Uniform,
            &[("a", &["t"]), ("b", &["t", "u"]), ("c", &["u", "gone"])],
            &[("t", 4), ("u", 2)],
            &[],
        );
        assert!(target[0].iter().all(|p| p.topic.as_str() == "t"));
        assert!(target[2].iter().all(|p| p.topic.as_str() == "u"));
        let sizes: Vec<_> = target.iter().map(BTreeSet::len).collect();
        assert_eq!(sizes, [2, 2, 2]);
    }
}
