//! Real power cuts on a real file system: what was acknowledged is there when the power is back.

use std::collections::BTreeMap;

use crate::driver::{Driver, Outcome, Random, Shape};
use varve_tests::machine::{Disk, amount, skipped};

/// Size of the file system, in MiB.
const DISK_MIB: u32 = 256;
/// Cuts before the logs begin anew: later ones find what earlier ones left.
const CUTS_IN_A_ROW: usize = 5;
/// More operations than any run gets to.
const ENDLESS: u64 = 1 << 40;

/// What a series of cuts came to.
#[derive(Debug, Default)]
struct Tally {
    cuts: usize,
    /// Records that were acknowledged over all runs, last ends of logs counted once per run.
    acknowledged: u64,
    /// Logs of which a torn tail was cut.
    torn: usize,
    /// Logs with bytes that were written again.
    persisted_again: usize,
    /// Logs that were refused, by the reason given.
    refused: BTreeMap<String, usize>,
}

impl Tally {
    fn count(&mut self, lines: &str, outcome: &Outcome) {
        self.cuts += 1;
        let mut ends: BTreeMap<&str, u64> = BTreeMap::new();
        for line in lines.lines() {
            let mut words = line.split(' ');
            if let (Some("acked"), Some(p), Some(end)) = (words.next(), words.next(), words.next())
            {
                ends.insert(p, end.parse().expect("a number"));
            }
        }
        self.acknowledged += ends.values().sum::<u64>();
        let (Outcome::Right(text) | Outcome::Refused(text)) = outcome else {
            return;
        };
        for line in text.lines() {
            self.torn += usize::from(line.contains("cut ") && !line.contains("cut 0,"));
            self.persisted_again +=
                usize::from(line.contains("again ") && !line.ends_with("again 0"));
            if let Some((_, why)) = line.split_once(": refused: ") {
                let why = why.split(": ").nth(1).unwrap_or(why);
                let why = why.split(';').next().unwrap_or(why);
                *self.refused.entry(why.to_owned()).or_default() += 1;
            }
        }
    }
}

fn shape(seed: u64, journal: bool) -> Shape {
    // Small and large batches, few and many segments: by seed.
    let large = seed.is_multiple_of(3);
    Shape {
        seed,
        journal,
        partitions: if seed.is_multiple_of(2) { 4 } else { 12 },
        segment_bytes: if large { 1 << 20 } else { 32 << 10 },
        batch_bytes: if large { 128 << 10 } else { 4 << 10 },
    }
}

/// Power cuts under load, some in a row on the same logs.
fn cut_under_load(data: &'static str, journal: bool, cuts: usize) {
    let mut tally = Tally::default();
    for series in 1.. {
        if tally.cuts >= cuts {
            break;
        }
        let shape = shape(series, journal);
        let mut random = Random::new(shape.seed ^ data.len() as u64);
        let disk = Disk::new(DISK_MIB, data);
        let dir = disk.path().join("logs");
        let mut lines = String::new();
        for generation in 1..=CUTS_IN_A_ROW.min(cuts - tally.cuts) {
            let generation = u32::try_from(generation).expect("a small number");
            let switch = disk.arm();
            let mut driver = Driver::start(&shape, &dir, generation, ENDLESS, false);
            assert!(
                driver.wait_lines(1 + random.below(1_500)),
                "the driver goes on"
            );
            switch.cut(driver.pid());
            let said = driver.kill();
            lines.push_str(&said);
            disk.power_on();
            let outcome = shape.check(&dir, &lines);
            tally.count(&said, &outcome);
            match outcome {
                Outcome::Right(_) => {}
                // Safe, but the log is out of service: counted, and the next series begins anew.
                Outcome::Refused(_) => break,
                wrong @ Outcome::Wrong(_) => {
                    wrong.right(&format!("{shape:?}, cut {generation}, {data}"), &lines);
                }
            }
        }
    }
    eprintln!("power cuts, data={data}, journal {journal}: {tally:#?}");
    assert!(tally.cuts > 0 && tally.acknowledged > 0, "{tally:?}");
}

/// `kill -9` between a write and its flush, a restart that finds the bytes in memory, more traffic, and then a
/// cut: what the restarted process took over counts as acknowledged, so it must be there.
fn cut_after_kill(data: &'static str, journal: bool, runs: usize) {
    let mut tally = Tally::default();
    for run in 0..runs {
        let shape = shape(1_000 + run as u64, journal);
        let mut random = Random::new(shape.seed);
        let disk = Disk::new(DISK_MIB, data);
        let dir = disk.path().join("logs");
        let mut driver = Driver::start(&shape, &dir, 1, random.below(60), true);
        assert!(driver.wait_for(|line| line == "holding"), "it holds");
        let mut lines = driver.kill();
        let switch = disk.arm();
        let mut driver = Driver::start(&shape, &dir, 2, ENDLESS, false);
        let mut opened = 0;
        let all = driver.wait_for(|line| {
            opened += u32::from(line.starts_with("open "));
            opened == shape.partitions
        });
        assert!(all, "it opens every log");
        if random.below(4) > 0 {
            driver.wait_lines(1 + random.below(200));
        }
        switch.cut(driver.pid());
        let said = driver.kill();
        lines.push_str(&said);
        disk.power_on();
        let outcome = shape.check(&dir, &lines);
        tally.count(&said, &outcome);
        if let Outcome::Wrong(_) = outcome {
            outcome.right(&format!("{shape:?}, run {run}"), &lines);
        }
    }
    eprintln!("kill, restart, power cut, journal {journal}: {tally:#?}");
    assert_eq!(tally.cuts, runs);
}

#[test]
fn acknowledged_records_survive_a_power_cut_data_ordered() {
    if !skipped("power cuts with data=ordered") {
        cut_under_load("ordered", false, amount(3, 500));
    }
}

#[test]
fn acknowledged_records_survive_a_power_cut_data_writeback() {
    if !skipped("power cuts with data=writeback") {
        cut_under_load("writeback", false, amount(3, 500));
    }
}

#[test]
fn what_a_restart_found_in_memory_survives_a_power_cut() {
    if !skipped("a kill, a restart and a power cut") {
        cut_after_kill("ordered", false, amount(3, 200));
    }
}

#[test]
fn what_a_journal_acknowledged_survives_a_power_cut_data_ordered() {
    if !skipped("power cuts with a journal and data=ordered") {
        cut_under_load("ordered", true, amount(3, 500));
    }
}

#[test]
fn what_a_journal_acknowledged_survives_a_power_cut_data_writeback() {
    if !skipped("power cuts with a journal and data=writeback") {
        cut_under_load("writeback", true, amount(3, 500));
    }
}

#[test]
fn what_a_restart_with_a_journal_found_in_memory_survives_a_power_cut() {
    if !skipped("a kill, a restart with a journal and a power cut") {
        cut_after_kill("ordered", true, amount(3, 200));
    }
}
