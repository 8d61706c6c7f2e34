//! A disk that fails at the wrong time.

use std::time::Duration;

use varve_tests::chaos::{Cluster, Ground};
use varve_tests::machine::skipped;
use varve_tests::wait;

const WITHIN: Duration = Duration::from_secs(60);

/// Seed 202 of the long histories: it waited for ever to be let in, without a consensus to tell it.
#[test]
fn a_node_whose_disk_fails_while_it_waits_to_be_let_in_ends() {
    if skipped("a disk that fails while a node joins") {
        return;
    }
    let mut cluster = Cluster::new(Ground::on_loopback(3), 3);
    cluster.start_all(WITHIN).unwrap();
    // Its former self is alive to the others until the session times out.
    cluster.kill(2);
    cluster.start(2);
    let joining = || {
        cluster
            .log_tail(2)
            .contains("cannot join the cluster yet")
            .then_some(())
    };
    wait::until("node 3 to be refused", WITHIN, joining);
    let syncs = "fsync,fdatasync";
    assert!(cluster.trace(2, syncs, &format!("{syncs}:error=EIO"), false));
    let ended = || cluster.ended_by_itself();
    assert_eq!(wait::until("node 3 to end", WITHIN, ended), 2);
    let log = cluster.log_tail(2);
    assert!(
        log.contains("the metadata consensus is out of service"),
        "{log}"
    );
    cluster.heal();
    cluster.start_all(WITHIN).unwrap();
}
