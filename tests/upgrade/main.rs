//! Two versions in one cluster: the one under test, and the one before it, whose program `VARVE_TEST_PREVIOUS` names
//! (`cargo xtask long upgrade REVISION` builds it). Without it these tests say aloud that they did not run.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on ends"
)]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use varve_tests::cluster::Cluster;

#[path = "../deploy/load.rs"]
#[allow(dead_code, reason = "this suite has a harness that waits for replicas")]
mod load;

use load::{Load, assert_whole};

/// Only a failure waits so long.
pub const PATIENCE: Duration = Duration::from_secs(120);
const TOPIC: &str = "orders";

fn previous() -> Option<PathBuf> {
    let path = std::env::var_os("VARVE_TEST_PREVIOUS").map(PathBuf::from);
    if path.is_none() {
        // Around the capture of tests: what was not tested is to be seen.
        use std::io::Write as _;
        let said = "NOT RUN: VARVE_TEST_PREVIOUS names no program of the version before; see docs/testing.md\n";
        let _ = std::io::stderr().write_all(said.as_bytes());
    }
    path
}

fn client(addresses: &str, args: &[&str]) -> Command {
    let mut command = Command::new(varve_tests::varve());
    command.args(args).env("VARVE_BROKERS", addresses);
    command
}

/// Level of the cluster, and the highest that all nodes can work at.
fn levels(cluster: &Cluster) -> (i64, i64) {
    let found = varve_tests::wait::until("feature levels", PATIENCE, || {
        cluster.json(&["cluster", "upgrade"])
    });
    let level = |key: &str| found[key].as_i64().unwrap_or_default();
    (level("level"), level("possibleLevel"))
}

/// One node after the other gets another program, each once the one before is in sync again.
fn roll(cluster: &mut Cluster, ids: &[usize], program: Option<&Path>, load: &Load) {
    for id in ids {
        assert_eq!(cluster.node_mut(*id).stop().code(), Some(0), "node {id}");
        cluster.node_mut(*id).run_program(program);
        cluster.node_mut(*id).restart();
        cluster.wait_active(3);
        cluster.wait_in_sync(TOPIC, 3);
        load.goes_on();
    }
}

#[test]
fn a_cluster_goes_up_and_back_and_up_under_load_and_then_for_good() {
    let Some(previous) = previous() else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::prepare(dir.path(), 3, &[]);
    for id in 1..=3 {
        let log = dir.path().join(format!("{id}.log"));
        cluster.node_mut(id).keep_log(&log);
        cluster.node_mut(id).run_program(Some(&previous));
    }
    cluster.start_all();
    let create = ["topic", "create", TOPIC, "-p", "1", "-r", "3"];
    assert!(varve_tests::run(cluster.node(1), &create).status.success());
    cluster.wait_in_sync(TOPIC, 3);
    // What the version before works at, and the last it knows.
    let (old, known) = levels(&cluster);
    assert_eq!(
        old, known,
        "a new cluster begins with all that its nodes know"
    );
    let addresses = cluster.addresses();
    let load = Load::start(client(&addresses, &["produce", TOPIC, "-O", "%o\n"]));
    load.goes_on();

    // Two of three are new: what both versions know is what they do.
    roll(&mut cluster, &[1, 2], None, &load);
    let higher = (old + 1).to_string();
    let new = client(
        &cluster.node(1).address(),
        &["cluster", "upgrade", "finalize", "-y", "--level", &higher],
    );
    let refused = { new }.output().unwrap();
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success(), "{refused:?}");
    assert!(
        said.contains("node 3") && said.contains(&format!("works at feature levels 1 to {old}")),
        "{said}"
    );
    // Both ways: one goes back, and all come up.
    roll(&mut cluster, &[1], Some(&previous), &load);
    roll(&mut cluster, &[1, 3], None, &load);
    let raised = levels(&cluster);
    assert_eq!(raised.0, old, "nothing is raised by itself");
    assert!(
        raised.1 > old,
        "the version before has a level less: {raised:?}"
    );
    roll(&mut cluster, &[3], Some(&previous), &load);
    roll(&mut cluster, &[3], None, &load);

    let args = ["cluster", "upgrade", "finalize", "--dry-run"];
    let dry = varve_tests::run(cluster.node(1), &args);
    assert!(dry.status.success(), "{dry:?}");
    assert_eq!(levels(&cluster), raised);
    let done = varve_tests::run(cluster.node(1), &["cluster", "upgrade", "finalize", "-y"]);
    assert!(done.status.success(), "{done:?}");
    assert_eq!(levels(&cluster), (raised.1, raised.1));
    load.goes_on();

    // There is no way back: the old program stops, and says which one is needed.
    assert_eq!(cluster.node_mut(2).stop().code(), Some(0));
    cluster.node_mut(2).run_program(Some(&previous));
    cluster.node_mut(2).spawn();
    let ended = cluster.node_mut(2).ends();
    assert!(!ended.success(), "{ended}");
    let said = cluster.node(2).log();
    assert!(said.contains("newer program"), "{said}");
    load.goes_on();
    cluster.node_mut(2).run_program(None);
    cluster.node_mut(2).restart();
    cluster.wait_active(3);
    cluster.wait_in_sync(TOPIC, 3);
    load.goes_on();

    let count = load.finish();
    let args = ["consume", TOPIC, "--from-beginning", "-e"];
    let read = varve_tests::run(cluster.node(1), &args);
    assert_whole(&String::from_utf8_lossy(&read.stdout), count);
}
