//! A log of records with keys that is compacted while it goes on: values that are written over, tombstones
//! whose time comes, committed, aborted and open transactions, a new leader, a truncation of what was not
//! compacted, a trim into a compacted segment. Each part of a run is installed in two phases with appends
//! in between.

use varve_record::Marker;
use varve_storage::LogConfig;

use super::{Workload, config};
use crate::torture::driver::{DELETE_RETENTION_MS, Driver, Entry, Violation};
use crate::torture::world::Setup;

pub(super) struct Compaction;

impl Workload for Compaction {
    fn name(&self) -> &'static str {
        "compaction"
    }

    fn config(&self) -> LogConfig {
        LogConfig {
            segment_bytes: 1100,
            index_interval_bytes: 150,
            ..config()
        }
    }

    fn setup(&self) -> Setup {
        Setup {
            keyed: true,
            ..Setup::one(self.config())
        }
    }

    fn run(&self, d: &mut Driver) -> Result<(), Violation> {
        d.open(false)?;
        for round in 0..3u8 {
            write_over(d, round)?;
            transactions(d, round)?;
            d.roll()?;
            d.put(&[(90 + round, Some(20))])?;
            d.flush()?;
            compact_beside_appends(d, round)?;
            d.put(&[(1, Some(33))])?;
            match round {
                0 => d.kill()?,
                1 => {
                    d.begin_epoch()?;
                    d.put(&[(2, Some(40)), (5, None)])?;
                    d.flush()?;
                    d.put(&[(3, Some(12))])?;
                    d.truncate(d.end() - 1)?;
                    // Tombstones and markers of the first round go.
                    d.wait(2 * DELETE_RETENTION_MS);
                    d.compact()?;
                }
                _ => d.trim(d.start() + 9)?,
            }
        }
        d.wait(2 * DELETE_RETENTION_MS);
        d.compact()?;
        d.close_and_reopen()?;
        d.put(&[(4, Some(70))])
    }
}

fn write_over(d: &mut Driver, round: u8) -> Result<(), Violation> {
    for i in 0..6u8 {
        let entries: [Entry; 3] = [
            (i % 4, Some(60 + usize::from(round))),
            (4 + i % 3, (i % 3 > 0).then_some(25)),
            (20 + i, (round != 1).then_some(45)),
        ];
        d.put(&entries)?;
        if i == 3 {
            d.flush()?;
        }
    }
    Ok(())
}

/// One that is committed, one that is aborted, one that stays open for a round.
fn transactions(d: &mut Driver, round: u8) -> Result<(), Violation> {
    let sequence = i32::from(round) * 4;
    d.put_in_transaction(7, sequence, &[(0, Some(30)), (40, Some(30))])?;
    d.put_in_transaction(8, sequence, &[(1, Some(30)), (41, None)])?;
    d.put(&[(40, Some(9))])?;
    d.put_in_transaction(7, sequence + 2, &[(2, Some(31))])?;
    d.end_transaction(8, Marker::Abort)?;
    d.end_transaction(7, Marker::Commit)?;
    if round > 0 {
        d.end_transaction(9, Marker::Commit)?;
    }
    d.put_in_transaction(9, i32::from(round), &[(3, Some(26)), (60 + round, Some(8))])
}

fn compact_beside_appends(d: &mut Driver, round: u8) -> Result<(), Violation> {
    let Some(mut run) = d.begin_compaction()? else {
        return Ok(());
    };
    let mut part = 0;
    while let Some(change) = d.next_part(&mut run)? {
        d.put(&[(70 + part, Some(15))])?;
        if part == round {
            d.flush()?;
        }
        d.finish_change(Some(change))?;
        part += 1;
    }
    Ok(())
}
