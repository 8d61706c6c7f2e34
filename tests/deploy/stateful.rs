//! The overlay of three nodes, with its certificates, as a StatefulSet runs it: started all at once; a pod that dies
//! and comes back; one that comes back without its volume; a rollout under load; one pod more; a loss of all.

use std::path::Path;

use crate::ca::Ca;
use crate::load::{Load, assert_whole, in_sync};
use crate::manifest::Manifest;
use crate::set::Set;
use crate::{loudly, manifests, said};

const TOPIC: &str = "orders";

/// Files of the secrets, as docs/deployment.md says to make them.
fn secret(set: &Set, name: &str, folder: &Path) {
    let certificates = tempfile::tempdir().unwrap();
    let ca = Ca::new(certificates.path(), "ca");
    let put = |from: &Path, to: &str| {
        std::fs::copy(from, folder.join(to)).unwrap();
    };
    put(&ca.file, "ca.crt");
    let most = set.most();
    match name {
        "varve-client-tls" => {
            // The addresses are for where names cannot be had.
            let hosts = (0..most).flat_map(|n| [set.manifest.host(n), set.ip(n)]);
            let hosts: Vec<String> = hosts.collect();
            let hosts: Vec<&str> = hosts.iter().map(String::as_str).collect();
            let (cert, key) = ca.issue("client", &hosts);
            put(&cert, "tls.crt");
            put(&key, "tls.key");
        }
        "varve-peer-tls" => {
            for pod in 0..most {
                let (cert, key) = ca.node(i32::try_from(pod).unwrap());
                put(&cert, &format!("{}.crt", set.manifest.pod(pod)));
                put(&key, &format!("{}.key", set.manifest.pod(pod)));
            }
        }
        other => panic!("nobody knows how to make the secret {other}"),
    }
}

/// All replicas are in sync.
fn whole(set: &Set) {
    in_sync(|args| set.client(args), TOPIC, set.manifest.replicas());
}

#[test]
fn a_stateful_set_of_three_lives_through_loss_and_rollout() {
    let Some(output) = manifests(&["json", "prod-3node"]) else {
        return;
    };
    let work = tempfile::tempdir().unwrap();
    let mut set = Set::new(Manifest::parse(&said(&output)), 4, work.path(), secret);
    assert_eq!(set.manifest.replicas(), 3);

    // podManagementPolicy: Parallel.
    for pod in 0..3 {
        set.start(pod);
    }
    for pod in 0..3 {
        set.ready(pod);
        assert!(set.probe(pod, "startupProbe") && set.probe(pod, "livenessProbe"));
    }
    set.run(&["topic", "create", TOPIC, "-p", "1", "-r", "3"]);
    whole(&set);
    let load = Load::start(set.client(&["produce", TOPIC, "-O", "%o\n"]));
    load.goes_on();

    // A pod dies and comes back with its volume.
    set.kill(0);
    load.goes_on();
    set.start(0);
    set.ready(0);
    whole(&set);

    // One comes back with an empty volume: a new holder of the same replicas.
    set.kill(1);
    load.goes_on();
    set.lose_volume(1);
    set.start(1);
    set.ready(1);
    whole(&set);

    // A rollout: the highest ordinal first, each once the one before counts as available. Nothing else is waited for.
    for pod in [2, 1, 0] {
        let took = set.delete(pod);
        loudly(&format!("{} stopped in {took:?}", set.manifest.pod(pod)));
        set.start(pod);
        set.available(pod);
    }
    whole(&set);

    // One more replica: not one of the seeds, so it joins.
    set.start(3);
    set.ready(3);
    let metadata = set.run(&["cluster", "metadata", TOPIC, "-o", "json"]);
    let metadata: serde_json::Value = serde_json::from_str(&metadata).unwrap();
    assert_eq!(metadata["nodes"].as_array().map(Vec::len), Some(4));
    load.goes_on();
    let count = load.finish();
    let read = set.run(&["consume", TOPIC, "--from-beginning", "-e"]);
    assert_whole(&read, count);

    // All at once, as when a zone loses its power.
    for pod in 0..4 {
        set.kill(pod);
    }
    for pod in 0..4 {
        set.start(pod);
    }
    for pod in 0..4 {
        set.ready(pod);
    }
    whole(&set);
    let read = set.run(&["consume", TOPIC, "--from-beginning", "-e"]);
    assert_whole(&read, count);
}

#[test]
fn the_overlay_of_one_node_serves_and_comes_back() {
    let Some(output) = manifests(&["json", "dev-1node"]) else {
        return;
    };
    let work = tempfile::tempdir().unwrap();
    let mut set = Set::new(Manifest::parse(&said(&output)), 1, work.path(), secret);
    assert_eq!(set.manifest.replicas(), 1);
    set.start(0);
    set.ready(0);
    set.run(&["topic", "create", TOPIC]);
    // What the test pod of the chart does, too: a file that every container has.
    set.run(&["produce", TOPIC, "/etc/nsswitch.conf"]);
    set.delete(0);
    set.start(0);
    set.ready(0);
    let read = set.run(&["consume", TOPIC, "--from-beginning", "-c", "1"]);
    assert!(read.contains("hosts"), "{read}");
    set.run(&["topic", "delete", TOPIC, "--yes"]);
}
