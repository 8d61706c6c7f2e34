//! A bounded part of every torture suite: what `cargo xtask long torture` does to the end.

use varve_sim::torture::workloads::{Workload, all};
use varve_sim::torture::{Effort, Tally, damage, enumerate, faults};

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
    assert!(workloads.len() >= 12);
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
fn a_history_is_the_same_each_time() {
    for workload in all() {
        let runs = [(); 2].map(|()| enumerate::record(workload.as_ref()).map(|t| t.steps.len()));
        assert_eq!(runs[0], runs[1], "{}", workload.name());
        assert!(runs[0].as_ref().is_ok_and(|steps| *steps > 100));
    }
}
