//! Short histories on one node, of every workload.

use std::time::Duration;

use varve_tests::chaos::{Fault, Options, Report, Work, run};
use varve_workload::Kind;

fn history(kind: Kind, seed: u64) -> Report {
    let options = Options {
        nodes: 1,
        seed,
        duration: Duration::from_secs(12),
        faults: vec![Fault::Kill, Fault::Term, Fault::Pause, Fault::Reset],
        in_turn: false,
        work: Work::Own(kind),
        rate: 200,
        loopback: true,
        keep: None,
    };
    let report = run(&options).unwrap();
    let text = report.text();
    assert_eq!(report.exit_code(), 0, "{}: {text}", kind.name());
    // A history in which nothing broke would show nothing.
    assert!(report.faults.values().sum::<u64>() > 0, "{text}");
    report
}

#[test]
fn one_node_killed_and_restarted_keeps_every_promise() {
    let report = history(Kind::Queue, 11);
    let text = report.text();
    // As few as that only on a machine that does much else.
    assert!(report.verdict.coverage.sends_ok > 40, "{text}");
    assert!(report.verdict.coverage.final_reads == 8, "{text}");
}

#[test]
fn groups_and_transactions_keep_every_promise_over_kills_of_one_node() {
    let kinds = [Kind::QueueSubscribe, Kind::Txn, Kind::Abort, Kind::Ctp];
    for (seed, kind) in (11..).zip(kinds) {
        let report = history(kind, seed);
        let (c, text) = (&report.verdict.coverage, report.text());
        match kind {
            Kind::Queue => {}
            Kind::QueueSubscribe => assert!(c.owned > 0 && c.commits_ok > 0, "{text}"),
            Kind::Txn => assert!(c.txns_committed > 0 && c.txns_aborted > 0, "{text}"),
            Kind::Abort => assert!(c.txns_aborted > 0 && c.commits_read > 0, "{text}"),
            Kind::Ctp => assert!(c.copies > 0 && c.owned > 0, "{text}"),
        }
    }
}
