//! A short history of Kafka's clients: one kill, one partition, nothing that was acknowledged is lost.

use std::time::Duration;

use varve_tests::chaos::{Fault, Options, Work, run};
use varve_tests::python;

#[test]
fn kafka_clients_lose_nothing_over_a_kill_and_a_partition() {
    if python::python("kafka, confluent_kafka").is_none() {
        return python::skip("Kafka's clients under faults");
    }
    let report = run(&Options {
        nodes: 3,
        seed: 31,
        duration: Duration::from_secs(24),
        faults: vec![Fault::Kill, Fault::Isolate],
        in_turn: true,
        work: Work::Kafka,
        rate: 100,
        loopback: false,
        keep: None,
    });
    let report = report.unwrap();
    let (c, text) = (&report.verdict.coverage, report.text());
    assert_eq!(report.exit_code(), 0, "{text}");
    let faults: Vec<_> = report.faults.into_iter().collect();
    assert_eq!(faults, [("isolate", 1), ("kill", 1)], "{text}");
    assert!(c.sends_ok > 200 && c.commits_ok > 5, "{text}");
    // Each of the two producers goes on, when nothing is broken any more, until it has seen four of each.
    assert!(c.txns_committed >= 8 && c.txns_aborted >= 8, "{text}");
    // Twice by each library, by both groups, and twice over gRPC.
    assert_eq!(c.final_reads, 8 * 4, "{text}");
}
