//! What came back, held against what was sent. Pure: every count of the closing table is made here, from records that
//! were read and acknowledgements that arrived, and none is assumed.
//!
//! A record is known by its number, which it carries in a header, and by its place, partition and offset.

use std::collections::BTreeMap;

use super::input::Line;

/// A record that came back, from the log or through a member of the group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Returned {
    /// Index of its line; `None`: it carries no number, or one that was never sent.
    pub number: Option<usize>,
    pub partition: i32,
    pub offset: i64,
    /// Key and value are those of its line.
    pub intact: bool,
}

impl Returned {
    /// A record as it was read, compared with the line it claims to be.
    pub fn compare(
        lines: &[Line],
        (partition, offset): (i32, i64),
        number: Option<&[u8]>,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
    ) -> Self {
        let number = number
            .and_then(|bytes| Some(u64::from_be_bytes(bytes.try_into().ok()?)))
            .and_then(|number| usize::try_from(number).ok())
            .filter(|number| *number < lines.len());
        let intact = number.is_some_and(|number| {
            let line = &lines[number];
            line.key.as_deref() == key && value == Some(&line.value)
        });
        Self {
            number,
            partition,
            offset,
            intact,
        }
    }
}

/// One member of the group.
#[derive(Debug, Default)]
struct Member {
    /// Records that it has printed, by number.
    seen: Vec<bool>,
    /// Highest offset that it has printed, by partition.
    highest: BTreeMap<i32, i64>,
    /// Records that it was the first to print.
    first: usize,
}

/// One partition of the log.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Partition {
    pub records: usize,
    pub keys: usize,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Ledger {
    /// Key of each record, numbered.
    key_of: Vec<Option<usize>>,
    keys: usize,
    delivered: Vec<bool>,
    distinct: usize,
    deliveries: usize,
    damaged: usize,
    members: Vec<Member>,
    /// Keys that came out of order, in the log or at a member.
    disordered: Vec<bool>,
    /// Place of the first copy of each record in the log.
    places: Vec<Option<(i32, i64)>>,
    copies: usize,
    /// Partition and number of the last record of each key in the log.
    last_of_key: Vec<Option<(i32, usize)>>,
    partitions: Vec<Partition>,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Findings {
    pub records: usize,
    pub keys: usize,
    pub acknowledged: usize,
    pub delivered: usize,
    /// Deliveries of records that had been delivered already.
    pub again: usize,
    /// Acknowledged records that are not at the place that the acknowledgement named, or not as they were sent.
    pub lost: usize,
    /// Copies in the log beyond the first of a record.
    pub duplicated: usize,
    pub keys_out_of_order: usize,
    /// Records that came back changed, or that were never sent.
    pub damaged: usize,
    /// Records that each member was the first to print.
    pub members: Vec<usize>,
    pub partitions: Vec<Partition>,
}

impl Findings {
    /// Whether everything that the demo promises was seen.
    pub const fn hold(&self) -> bool {
        self.acknowledged == self.records
            && self.delivered == self.records
            && self.lost == 0
            && self.duplicated == 0
            && self.keys_out_of_order == 0
            && self.damaged == 0
    }
}

impl Ledger {
    pub fn new(lines: &[Line], partitions: usize, members: usize) -> Self {
        let mut ids = BTreeMap::new();
        let mut key_of = Vec::with_capacity(lines.len());
        for line in lines {
            let next = ids.len();
            let id = line.key.as_deref();
            key_of.push(id.map(|key| *ids.entry(key).or_insert(next)));
        }
        let member = || Member {
            seen: vec![false; lines.len()],
            ..Member::default()
        };
        Self {
            keys: ids.len(),
            key_of,
            delivered: vec![false; lines.len()],
            distinct: 0,
            deliveries: 0,
            damaged: 0,
            members: (0..members).map(|_| member()).collect(),
            disordered: vec![false; ids.len()],
            places: vec![None; lines.len()],
            copies: 0,
            last_of_key: vec![None; ids.len()],
            partitions: vec![Partition::default(); partitions],
        }
    }

    /// Records that have been delivered at least once.
    pub const fn distinct(&self) -> usize {
        self.distinct
    }

    /// The member that has been the first to print most records.
    pub fn busiest(&self) -> usize {
        let first = |at: &usize| self.members[*at].first;
        (0..self.members.len()).max_by_key(first).unwrap_or(0)
    }

    /// A member has printed a record.
    pub fn delivered(&mut self, member: usize, record: Returned) {
        self.deliveries += 1;
        let Some(number) = self.count_damage(record) else {
            return;
        };
        let member = &mut self.members[member];
        let highest = member.highest.entry(record.partition).or_insert(-1);
        // Going back is how a group delivers again. It is no disorder as long as it only repeats.
        let back = record.offset <= *highest;
        *highest = record.offset.max(*highest);
        let seen = std::mem::replace(&mut member.seen[number], true);
        if !std::mem::replace(&mut self.delivered[number], true) {
            self.distinct += 1;
            member.first += 1;
        }
        if back && !seen {
            self.disorder(number);
        }
    }

    /// A record was read from the log, partition by partition in the order of offsets.
    pub fn logged(&mut self, record: Returned) {
        let Some(number) = self.count_damage(record) else {
            return;
        };
        let partition = usize::try_from(record.partition).ok();
        let partition = partition.and_then(|at| self.partitions.get_mut(at));
        if let Some(partition) = partition {
            partition.records += 1;
            if let Some(key) = self.key_of[number] {
                partition.keys += usize::from(self.last_of_key[key].is_none());
            }
        }
        if self.places[number].is_some() {
            self.copies += 1;
            return;
        }
        self.places[number] = Some((record.partition, record.offset));
        let Some(key) = self.key_of[number] else {
            return;
        };
        let last = self.last_of_key[key].replace((record.partition, number));
        if last.is_some_and(|last| last.0 != record.partition || last.1 > number) {
            self.disorder(number);
        }
    }

    /// The counts, with the place that each record's acknowledgement named.
    pub fn findings(self, acknowledged: &[Option<(i32, i64)>]) -> Findings {
        let settled = acknowledged.iter().zip(&self.places);
        Findings {
            records: self.key_of.len(),
            keys: self.keys,
            acknowledged: acknowledged.iter().flatten().count(),
            delivered: self.distinct,
            again: self.deliveries - self.distinct,
            lost: settled
                .filter(|(named, found)| named.is_some() && named != found)
                .count(),
            duplicated: self.copies,
            keys_out_of_order: self.disordered.iter().filter(|bad| **bad).count(),
            damaged: self.damaged,
            members: self.members.iter().map(|member| member.first).collect(),
            partitions: self.partitions,
        }
    }

    fn count_damage(&mut self, record: Returned) -> Option<usize> {
        let good = record.number.filter(|_| record.intact);
        self.damaged += usize::from(good.is_none());
        good
    }

    fn disorder(&mut self, number: usize) {
        if let Some(key) = self.key_of[number] {
            self.disordered[key] = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines() -> Vec<Line> {
        let line = |key: Option<&str>, value: &str| Line {
            key: key.map(Into::into),
            value: value.into(),
        };
        vec![
            line(Some("a"), "0"),
            line(Some("b"), "1"),
            line(Some("a"), "2"),
            line(None, "3"),
        ]
    }

    fn at(number: usize, partition: i32, offset: i64) -> Returned {
        Returned {
            number: Some(number),
            partition,
            offset,
            intact: true,
        }
    }

    /// Everything is where it belongs: `a` and the record without a key in partition 0, `b` in partition 1.
    const PLACES: [(i32, i64); 4] = [(0, 0), (1, 0), (0, 1), (0, 2)];

    fn acknowledged() -> Vec<Option<(i32, i64)>> {
        PLACES.map(Some).to_vec()
    }

    fn all(ledger: &mut Ledger, skip: Option<usize>) {
        for (number, (partition, offset)) in PLACES.into_iter().enumerate() {
            ledger.delivered(partition as usize, at(number, partition, offset));
            if skip != Some(number) {
                ledger.logged(at(number, partition, offset));
            }
        }
    }

    #[test]
    fn what_is_whole_holds() {
        let mut ledger = Ledger::new(&lines(), 2, 2);
        all(&mut ledger, None);
        assert_eq!(ledger.busiest(), 0);
        let found = ledger.findings(&acknowledged());
        assert!(found.hold(), "{found:?}");
        assert_eq!((found.records, found.keys, found.again), (4, 2, 0));
        assert_eq!(found.members, [3, 1]);
        let partition = |records, keys| Partition { records, keys };
        assert_eq!(found.partitions, [partition(3, 1), partition(1, 1)]);
    }

    #[test]
    fn an_acknowledged_record_that_is_not_in_the_log_is_lost() {
        let mut ledger = Ledger::new(&lines(), 2, 2);
        all(&mut ledger, Some(2));
        let found = ledger.findings(&acknowledged());
        assert_eq!(found.lost, 1);
        assert!(!found.hold());

        // One that was never acknowledged is not, but not all is well either.
        let mut ledger = Ledger::new(&lines(), 2, 2);
        all(&mut ledger, Some(2));
        let mut places = acknowledged();
        places[2] = None;
        let found = ledger.findings(&places);
        assert_eq!((found.lost, found.acknowledged), (0, 3));
        assert!(!found.hold());
    }

    #[test]
    fn a_record_elsewhere_than_acknowledged_is_lost() {
        let mut ledger = Ledger::new(&lines(), 2, 2);
        all(&mut ledger, None);
        let mut places = acknowledged();
        places[1] = Some((1, 7));
        assert_eq!(ledger.findings(&places).lost, 1);
    }

    #[test]
    fn a_second_copy_in_the_log_is_a_duplicate_and_no_disorder() {
        let mut ledger = Ledger::new(&lines(), 2, 2);
        all(&mut ledger, None);
        ledger.logged(at(0, 0, 3));
        let found = ledger.findings(&acknowledged());
        assert_eq!((found.duplicated, found.keys_out_of_order), (1, 0));
        assert!(!found.hold());
    }

    #[test]
    fn a_key_out_of_order_in_the_log_is_found() {
        for places in [[(0, 1), (0, 0)], [(0, 0), (1, 1)]] {
            let mut ledger = Ledger::new(&lines(), 2, 1);
            let mut in_log = [
                at(0, places[0].0, places[0].1),
                at(2, places[1].0, places[1].1),
            ];
            in_log.sort_by_key(|record| record.offset);
            in_log.into_iter().for_each(|record| ledger.logged(record));
            let found = ledger.findings(&acknowledged());
            assert_eq!(found.keys_out_of_order, 1, "{places:?}");
            assert!(!found.hold());
        }
    }

    #[test]
    fn a_member_may_repeat_but_not_reorder() {
        let mut ledger = Ledger::new(&lines(), 2, 2);
        all(&mut ledger, None);
        // Again, at the same member and at another one: the group goes on from its last commit.
        for member in [0, 1] {
            ledger.delivered(member, at(0, 0, 0));
            ledger.delivered(member, at(2, 0, 1));
        }
        let found = ledger.findings(&acknowledged());
        assert_eq!((found.again, found.keys_out_of_order), (4, 0));
        assert!(found.hold(), "{found:?}");

        let mut ledger = Ledger::new(&lines(), 2, 1);
        ledger.delivered(0, at(2, 0, 1));
        ledger.delivered(0, at(0, 0, 0));
        assert_eq!(ledger.findings(&acknowledged()).keys_out_of_order, 1);
    }

    #[test]
    fn damage_is_counted_and_delivers_nothing() {
        let lines = lines();
        let one = 1_u64.to_be_bytes();
        let compare = |number: Option<&[u8]>, key: Option<&[u8]>, value: &[u8]| {
            Returned::compare(&lines, (1, 0), number, key, Some(value))
        };
        assert_eq!(compare(Some(&one), Some(b"b"), b"1"), at(1, 1, 0));
        let beyond = 4_u64.to_be_bytes();
        for bad in [
            compare(Some(&one), Some(b"b"), b"2"),
            compare(Some(&one), Some(b"x"), b"1"),
            compare(Some(&one), None, b"1"),
            compare(Some(&beyond), Some(b"b"), b"1"),
            compare(Some(b"1"), Some(b"b"), b"1"),
            compare(None, Some(b"b"), b"1"),
        ] {
            let mut ledger = Ledger::new(&lines, 2, 1);
            ledger.delivered(0, bad);
            ledger.logged(bad);
            assert_eq!(ledger.distinct(), 0, "{bad:?}");
            assert_eq!(ledger.findings(&acknowledged()).damaged, 2, "{bad:?}");
        }
    }
}
