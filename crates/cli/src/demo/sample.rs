//! Sample records: what happens to the orders of a web shop, made from a seed. Always the same for the same seed, and
//! shaped like real data: a few hundred customers, several orders open at a time, every order in its steps.

use super::input::Line;

/// Seed of the demo.
pub(super) const SEED: u64 = 8278;
/// Records of the demo.
pub(super) const RECORDS: usize = 50_000;

const CUSTOMERS: u64 = 400;
/// Orders that are open at a time.
const OPEN: usize = 64;
const STEPS: [&str; 4] = ["placed", "paid", "packed", "shipped"];
const ITEMS: [(&str, u64); 10] = [
    ("espresso cups", 1890),
    ("desk lamp", 4950),
    ("rain jacket", 8900),
    ("notebook", 450),
    ("bicycle bell", 1290),
    ("olive oil", 1150),
    ("headphones", 12900),
    ("wool socks", 990),
    ("chess set", 3475),
    ("garden hose", 2250),
];

/// Steele, Lea and Flood's SplitMix64.
struct Random(u64);

impl Random {
    const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    const fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

struct Order {
    number: u64,
    customer: u64,
    item: usize,
    quantity: u64,
    step: usize,
}

/// This number of records, keyed by customer.
pub(super) fn orders(seed: u64, records: usize) -> Vec<Line> {
    let mut random = Random(seed);
    let (mut next, mut open) = (1, Vec::with_capacity(OPEN));
    let mut lines = Vec::with_capacity(records);
    while lines.len() < records {
        if open.len() < OPEN {
            open.push(Order {
                number: next,
                customer: random.below(CUSTOMERS),
                item: random.below(ITEMS.len() as u64) as usize,
                quantity: 1 + random.below(3),
                step: 0,
            });
            next += 1;
        }
        let at = random.below(open.len() as u64) as usize;
        lines.push(line(&open[at]));
        open[at].step += 1;
        if open[at].step == STEPS.len() {
            open.swap_remove(at);
        }
    }
    lines
}

fn line(order: &Order) -> Line {
    let (item, cents) = ITEMS[order.item];
    let customer = format!("customer-{:03}", order.customer);
    let value = format!(
        "{{\"order\":{},\"customer\":\"{customer}\",\"step\":\"{}\",\"item\":\"{item}\",\"quantity\":{},\"cents\":{}}}",
        order.number,
        STEPS[order.step],
        order.quantity,
        cents * order.quantity
    );
    Line {
        key: Some(customer.into_bytes()),
        value: value.into_bytes(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    #[test]
    fn the_same_seed_makes_the_same_records() {
        assert_eq!(orders(1, 500), orders(1, 500));
        assert_ne!(orders(1, 500), orders(2, 500));
    }

    #[test]
    fn records_are_json_and_every_order_goes_through_its_steps() {
        let mut seen: BTreeMap<u64, Vec<String>> = BTreeMap::new();
        for line in orders(SEED, 5_000) {
            let value: serde_json::Value = serde_json::from_slice(&line.value).unwrap();
            let key = line.key.unwrap();
            assert_eq!(
                value["customer"].as_str().map(str::as_bytes),
                Some(&key[..])
            );
            let step = value["step"].as_str().unwrap().to_owned();
            seen.entry(value["order"].as_u64().unwrap())
                .or_default()
                .push(step);
        }
        for steps in seen.values() {
            assert_eq!(steps[..], STEPS[..steps.len()]);
        }
    }

    #[test]
    fn keys_spread_over_six_partitions() {
        let lines = orders(SEED, RECORDS);
        assert_eq!(lines.len(), RECORDS);
        let keys: BTreeSet<_> = lines.iter().filter_map(|line| line.key.clone()).collect();
        assert_eq!(keys.len(), CUSTOMERS as usize);
        let mut partitions = [0; 6];
        for line in &lines {
            let hash = fnv(line.key.as_deref().unwrap_or_default());
            partitions[hash as usize % 6] += 1;
        }
        let fair = RECORDS / 6;
        for count in partitions {
            assert!((fair / 2..fair * 2).contains(&count), "{partitions:?}");
        }
    }

    /// Any hash will do here; a test against a node looks at the real partitions.
    fn fnv(bytes: &[u8]) -> u32 {
        bytes.iter().fold(0x811c_9dc5, |hash: u32, byte| {
            (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
        })
    }
}
