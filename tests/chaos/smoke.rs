//! A short history on one node.

use std::time::Duration;

use varve_tests::chaos::{Fault, Options, run};

#[test]
fn one_node_killed_and_restarted_keeps_every_promise() {
    let options = Options {
        nodes: 1,
        seed: 11,
        duration: Duration::from_secs(12),
        faults: vec![Fault::Kill, Fault::Term, Fault::Pause, Fault::Reset],
        rate: 200,
        loopback: true,
        keep: None,
    };
    let report = run(&options).unwrap();
    let text = report.text();
    assert_eq!(report.exit_code(), 0, "{text}");
    // A history in which nothing broke would show nothing.
    assert!(report.faults.values().sum::<u64>() > 0, "{text}");
    assert!(report.verdict.coverage.sends_ok > 200, "{text}");
    assert!(report.verdict.coverage.final_reads == 8, "{text}");
}
