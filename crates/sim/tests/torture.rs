//! A bounded part of every torture suite: what `cargo xtask long torture` does to the end.

use varve_sim::torture::driver::{CameBy, Disk, Driver};
use varve_sim::torture::workloads::{Workload, all};
use varve_sim::torture::{Effort, Tally, damage, enumerate, faults};
use varve_vfs::mem::MemVfs;

fn clean(tally: &Tally, at_least: u64) {
    assert!(
        tally.violations.is_empty(),
        "{} {}:\n{}",
        tally.suite,
        tally.name,
        tally.violations.join("\n\n")
    );
    assert!(
        tally.states >= at_least,
        "{} {} visited {} states only",
        tally.suite,
        tally.name,
        tally.states
    );
}

fn each(suite: fn(&dyn Workload, Effort) -> Tally, at_least: u64) {
    let workloads = all();
    assert!(workloads.len() >= 16);
    for workload in workloads {
        clean(&suite(workload.as_ref(), Effort::bounded()), at_least);
    }
}

#[test]
fn k1_any_power_cut_leaves_a_prefix_with_all_that_was_acknowledged() {
    each(enumerate::k1, 100);
}

#[test]
fn k7_what_the_next_process_acknowledges_survives_the_power_cut_after_it() {
    each(enumerate::k7, 50);
}

#[test]
fn k8_after_a_failed_call_nothing_is_acknowledged_and_nothing_is_lost() {
    each(faults::k8, 10);
}

#[test]
fn k9_a_full_disk_refuses_cleanly_and_goes_on_when_there_is_space() {
    each(faults::k9, 10);
}

#[test]
fn k2_k3_k4_damage_is_found_or_changes_no_answer() {
    for tally in damage::all(None, Effort::bounded()) {
        clean(&tally, 100);
    }
}

#[test]
fn workloads_of_the_journal_and_of_compaction_come_by_what_they_are_there_for() {
    for workload in all() {
        let disk = MemVfs::new();
        let setup = workload.setup();
        let mut driver = Driver::new(&disk, setup, Disk::Good, false);
        workload.run(&mut driver).unwrap();
        let came_by = driver.came_by;
        if setup.journal.is_some() {
            let CameBy {
                shared_groups,
                full,
                relieved,
                voided,
                ..
            } = came_by;
            assert!(shared_groups >= 5 && full >= 1, "{came_by:?}");
            assert!(relieved >= 5 && voided >= 1, "{came_by:?}");
        } else if setup.keyed {
            assert!(
                came_by.installed >= 6 && came_by.taken_away >= 20,
                "{came_by:?}"
            );
        } else {
            assert_eq!(came_by, CameBy::default(), "{}", workload.name());
        }
    }
}

#[test]
fn a_history_is_the_same_each_time() {
    for workload in all() {
        let runs = [(); 2].map(|()| enumerate::record(workload.as_ref()).map(|t| t.steps.len()));
        assert_eq!(runs[0], runs[1], "{}", workload.name());
        assert!(runs[0].as_ref().is_ok_and(|steps| *steps > 100));
    }
}
