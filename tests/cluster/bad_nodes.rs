//! Nodes that must not be let in, or must not start: ids that are in use, directories of others or copied, wrong
//! seeds, wrong certificates, disks that are gone. Each says why, and the cluster goes on as it is.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use varve_tests::cluster::Cluster;
use varve_tests::node::{Node, free_port};
use varve_tests::wait;

use crate::secure;

/// Only a failure waits so long.
const PATIENCE: Duration = Duration::from_secs(90);

/// A node with that id that looks for a cluster; its log is kept.
fn stranger(dir: &Path, name: &str, id: &str, seeds: &str) -> Node {
    let peer = format!("127.0.0.1:{}", free_port());
    let env = [
        ("VARVE_NODE__ID", id),
        ("VARVE_CLUSTER__SEEDS", seeds),
        ("VARVE_LISTENERS__PEER__ADDRESS", &peer),
        ("VARVE_SHUTDOWN__DRAIN_GRACE", "0s"),
    ];
    let mut node = Node::prepare(&dir.join(name), &env);
    node.keep_log(&dir.join(format!("{name}.log")));
    node
}

fn three(dir: &Path) -> Cluster {
    let cluster = Cluster::start(dir);
    let args = ["topic", "create", "kept", "-p", "1", "-r", "3"];
    assert!(varve_tests::run(cluster.node(1), &args).status.success());
    cluster.wait_in_sync("kept", 3);
    put(&cluster, "before\n");
    cluster
}

fn put(cluster: &Cluster, lines: &str) {
    let output =
        varve_tests::run_with_input(cluster.alive(), &["produce", "kept"], lines.as_bytes());
    assert!(output.status.success(), "{output:?}");
}

fn all(node: &Node) -> String {
    let output = varve_tests::run(node, &["consume", "kept", "-o", "beginning", "-e"]);
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Nothing has changed for the cluster.
fn unharmed(cluster: &Cluster, nodes: usize) {
    cluster.wait_active(nodes);
    put(cluster, "after\n");
    let read = all(cluster.alive());
    assert!(
        read.starts_with("before\n") && read.ends_with("after\n"),
        "{read}"
    );
}

fn copy(from: &Path, to: &Path) {
    let copied = std::process::Command::new("cp")
        .arg("-a")
        .arg(from)
        .arg(to)
        .status();
    assert!(copied.unwrap().success());
}

#[test]
fn an_id_that_is_in_use_is_refused_and_one_that_is_free_again_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = three(dir.path());
    let mut twin = stranger(dir.path(), "twin", "2", &cluster.seeds());
    twin.spawn();
    twin.logs("has the same node id 2 as this one, but another data directory");
    assert!(!twin.is_ready(), "it takes no requests");
    assert_eq!(twin.get("/livez").0, 200, "and waits");
    unharmed(&cluster, 3);
    // The first one dies: the second takes its place, as another directory that has everything to copy.
    cluster.node_mut(2).kill();
    twin.wait_ready();
    cluster.wait_active(3);
    cluster.wait_in_sync("kept", 3);
    assert_eq!(all(&twin), "before\nafter\n");
    // What comes back too late is the stranger now.
    let log = dir.path().join("late.log");
    cluster.node_mut(2).keep_log(&log);
    cluster.node_mut(2).spawn();
    cluster
        .node(2)
        .logs("node id 2 is in use by the data directory");
    assert!(!cluster.node(2).is_ready());
    unharmed(&cluster, 3);
}

#[test]
fn a_copy_of_a_directory_is_not_a_second_node() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = three(dir.path());
    assert_eq!(cluster.node_mut(2).stop().code(), Some(0));
    let copied = dir.path().join("copy");
    copy(cluster.node(2).dir(), &copied);
    cluster.node_mut(2).restart();
    let mut twin = stranger(dir.path(), "copy", "2", &cluster.seeds());
    twin.spawn();
    assert_eq!(twin.ends().code(), Some(1));
    let said = twin.log();
    assert!(said.contains("one of the two is a copy"), "{said}");
    // Given another id, it is another node's directory.
    twin.set("VARVE_NODE__ID", "4");
    twin.spawn();
    assert_eq!(twin.ends().code(), Some(1));
    let said = twin.log();
    assert!(said.contains("belongs to node 2, not 4"), "{said}");
    unharmed(&cluster, 3);
}

#[test]
fn a_directory_of_another_cluster_does_not_change_sides() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = three(dir.path());
    let other = dir.path().join("other");
    std::fs::create_dir(&other).unwrap();
    let mut alone = Cluster::start_with(&other, 1, &[]);
    assert_eq!(alone.node_mut(1).stop().code(), Some(0));
    let node = alone.node_mut(1);
    node.keep_log(&dir.path().join("other.log"));
    node.set("VARVE_CLUSTER__SEEDS", &cluster.seeds());
    node.spawn();
    assert_eq!(node.ends().code(), Some(1));
    let said = node.log();
    assert!(
        said.contains("either the seeds or the directory belong to another cluster"),
        "{said}"
    );
    unharmed(&cluster, 3);
    // With its own seeds it is what it was.
    let own = alone.peer(1).to_owned();
    let node = alone.node_mut(1);
    node.set("VARVE_CLUSTER__SEEDS", &own);
    node.restart();
    alone.wait_active(1);
}

/// A port that takes connections and never says a word; how many it has taken.
fn mute() -> (String, Arc<AtomicUsize>) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let taken = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&taken);
    std::thread::spawn(move || {
        let mut open = Vec::new();
        for stream in listener.incoming() {
            open.push(stream);
            count.fetch_add(1, Ordering::SeqCst);
        }
    });
    (address, taken)
}

#[test]
fn a_node_waits_for_seeds_that_never_answer() {
    let dir = tempfile::tempdir().unwrap();
    let (silent, taken) = mute();
    let dead = format!("127.0.0.1:{}", free_port());
    let mut node = stranger(dir.path(), "waiting", "1", &format!("{dead},{silent}"));
    node.spawn();
    node.logs(&format!("the node at {dead} cannot be reached"));
    node.logs(&format!("the node at {silent} "));
    assert!(!node.is_ready());
    assert_eq!(node.get("/livez").0, 200);
    // Rounds of asking later it has not said much more.
    wait::until("the seed to be asked again and again", PATIENCE, || {
        (taken.load(Ordering::SeqCst) >= 3).then_some(())
    });
    let said = node.log();
    let lines = said
        .lines()
        .filter(|line| line.contains("the node at"))
        .count();
    assert!((2..=8).contains(&lines), "{said}");
    assert!(!node.is_ready());
    node.kill();
}

#[test]
fn a_seed_that_is_the_node_itself_by_another_name_is_recognised() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::prepare(dir.path(), 3, &[]);
    let aliases = cluster.seeds().replace("127.0.0.1", "localhost");
    for id in 1..=3 {
        cluster.node_mut(id).set("VARVE_CLUSTER__SEEDS", &aliases);
    }
    cluster.start_all();
    // And after a restart, when it would look like a second process on its directory.
    assert_eq!(cluster.node_mut(2).stop().code(), Some(0));
    cluster.node_mut(2).restart();
    cluster.wait_active(3);
}

#[test]
fn when_most_voters_have_lost_their_disks_nobody_pretends() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = three(dir.path());
    let log = dir.path().join("survivor.log");
    cluster.node_mut(1).keep_log(&log);
    let kept = dir.path().join("kept-aside");
    std::fs::create_dir(&kept).unwrap();
    for id in 1..=3 {
        cluster.node_mut(id).kill();
    }
    for id in 2..=3 {
        let data = cluster.node(id).dir().to_owned();
        std::fs::rename(&data, kept.join(id.to_string())).unwrap();
    }
    for id in 1..=3 {
        cluster.node_mut(id).spawn();
    }
    cluster
        .node(1)
        .logs("2 of the 3 nodes that vote on the metadata came back with other data directories");
    for id in 1..=3 {
        assert!(!cluster.node(id).is_ready(), "node {id} serves nothing");
        assert_eq!(cluster.node(id).get("/livez").0, 200);
    }
    let said = cluster.node(1).log();
    assert!(
        !said.contains("pre-vote"),
        "every failed election is no news: {said}"
    );
    // With the old disks back, everything is there.
    for id in 2..=3 {
        cluster.node_mut(id).kill();
        let data = cluster.node(id).dir().to_owned();
        std::fs::remove_dir_all(&data).unwrap();
        std::fs::rename(kept.join(id.to_string()), &data).unwrap();
        cluster.node_mut(id).spawn();
    }
    for id in 1..=3 {
        cluster.node_mut(id).wait_ready();
    }
    unharmed(&cluster, 3);
}

#[test]
fn a_node_without_the_right_certificate_is_not_let_in() {
    let dir = tempfile::tempdir().unwrap();
    let (mut cluster, peers) = secure::prepare(dir.path());
    let log = dir.path().join("three.log");
    cluster.node_mut(3).keep_log(&log);
    let show = |cluster: &mut Cluster, (cert, key): (std::path::PathBuf, std::path::PathBuf)| {
        let node = cluster.node_mut(3);
        node.set("VARVE_LISTENERS__PEER__TLS__CERT", cert.to_str().unwrap());
        node.set("VARVE_LISTENERS__PEER__TLS__KEY", key.to_str().unwrap());
    };
    for id in 1..=2 {
        let seeds = format!("{},{}", cluster.peer(1), cluster.peer(2));
        cluster.node_mut(id).set("VARVE_CLUSTER__SEEDS", &seeds);
        cluster.node_mut(id).spawn();
    }
    for id in 1..=2 {
        cluster.node_mut(id).wait_ready();
    }
    // Another node's, a stranger's, and one of another CA.
    let stranger = peers.issue("stranger", &["somebody.example", "peer.varve"]);
    let other = tempfile::tempdir().unwrap();
    let other = crate::ca::Ca::new(other.path(), "other").node(3);
    for (shown, says) in [
        (peers.node(9), "but its certificate is node 9's"),
        (stranger, "but its certificate names no node"),
        (other, "does not know the CA of this side's certificate"),
    ] {
        show(&mut cluster, shown);
        cluster.node_mut(3).spawn();
        cluster.node(3).logs(says);
        assert!(!cluster.node(3).is_ready());
        cluster.node_mut(3).kill();
    }
    show(&mut cluster, peers.node(3));
    cluster.node_mut(3).restart();
    cluster.wait_active(3);
}
