//! Nodes that found a cluster, lose each other, come and go.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod harness;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use harness::{World, address, has, propose};
use varve_metadata::log::read;
use varve_metadata::{Command, Event, MetadataLog, ProposeError, snapshot};
use varve_metadata_raft::disk::Disk;
use varve_metadata_raft::files::Identity;
use varve_metadata_raft::types::raft_id;
use varve_metadata_raft::{ChangeError, Phase};
use varve_types::{ClusterId, NodeId};
use varve_vfs::fault::Op;
use varve_vfs::mem::{Answer, MemVfs};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_nodes_found_a_cluster_and_every_one_writes() {
    let mut world = World::founded(3).await;
    assert_eq!(world.voters(1), BTreeSet::from([1, 2, 3]));
    let clusters: BTreeSet<_> = (1..=3).map(|n| world.raft(n).cluster()).collect();
    assert!(
        clusters.len() == 1 && !clusters.contains(&None),
        "{clusters:?}"
    );
    for number in 0..30 {
        world.write(1 + number % 3, number).await;
    }
    // What is refused is refused everywhere, and changes nothing.
    let unregister = varve_metadata::Command::UnregisterNode { node: NodeId(77) };
    for node in 1..=3 {
        let refused = world.raft(node).propose(unregister.clone()).await;
        assert!(
            matches!(refused, Err(ProposeError::Rejected(_))),
            "{refused:?}"
        );
    }
    for node in 1..=3 {
        world.raft(node).catch_up().await.unwrap();
        assert!((0..30).all(|number| has(world.raft(node), number)));
    }
    world.until_same(&[1, 2, 3]).await;
    world.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_cut_off_is_replaced_and_catches_up() {
    let mut world = World::founded(3).await;
    world.write(1, 0).await;
    let old = world.led().await;
    let term = world.raft(old).leadership().term;
    world.net.cut(&address(old));
    let rest: Vec<i32> = (1..=3).filter(|n| *n != old).collect();
    world
        .until(
            "another one leads, and the old one knows that it does not",
            |w| !w.raft(old).leadership().here && rest.iter().any(|n| w.raft(*n).leadership().here),
        )
        .await;
    world.write(rest[0], 1).await;
    world.write(rest[1], 2).await;
    let lost = tokio::time::timeout(Duration::from_secs(60), propose(world.raft(old), 3)).await;
    assert!(
        lost.unwrap().is_err(),
        "nothing is committed without a quorum"
    );
    assert!(world.raft(rest[0]).leadership().term > term);
    world.net.heal();
    world
        .until("the old leader has caught up", |w| has(w.raft(old), 2))
        .await;
    world.write(old, 4).await;
    world.until_same(&[1, 2, 3]).await;
    world.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn observers_follow_and_late_ones_get_a_snapshot() {
    let mut world = World::new(3);
    for node in 1..=3 {
        let mut config = world.config(node);
        (config.snapshot_every, config.entries_kept) = (20, 5);
        world.start_with(config, MemVfs::new()).await;
    }
    world
        .until("there is a leader", |w| w.leader().is_some())
        .await;
    for number in 0..100 {
        world.write(1 + number % 3, number).await;
    }
    world
        .until("the log is purged", |w| {
            w.status(w.leader().unwrap_or(1)).purged.is_some()
        })
        .await;
    for node in [4, 5] {
        world.start(node).await;
    }
    world
        .until("the observers are members and have all", |w| {
            [4, 5]
                .iter()
                .all(|n| w.status(*n).phase == Phase::Member && has(w.raft(*n), 99))
        })
        .await;
    assert!(world.status(4).snapshot.is_some());
    assert_eq!(world.voters(4), BTreeSet::from([1, 2, 3]));
    world.write(4, 200).await;
    world.write(5, 201).await;
    world.raft(4).catch_up().await.unwrap();
    assert!(has(world.raft(4), 201));
    world.until_same(&[1, 2, 3, 4, 5]).await;
    let (config, disk) = world.stop(5).await;
    world.write(4, 202).await;
    world.start_with(config, disk).await;
    world
        .until("an observer comes back", |w| has(w.raft(5), 202))
        .await;
    world.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wiped_node_comes_back_as_another_member_and_votes_again() {
    let mut world = World::founded(3).await;
    world.write(1, 0).await;
    let leader = world.led().await;
    let wiped = (1..=3).find(|n| *n != leader).unwrap();
    let old = world.status(wiped).id;
    world.stop(wiped).await;
    world.write(leader, 1).await;
    world.start(wiped).await;
    assert_ne!(world.status(wiped).id, old);
    world
        .until("it votes under its new id, and the old one is gone", |w| {
            let leader = w.leader().unwrap_or(leader);
            let members = w.status(leader).members;
            let new = w.status(wiped).id;
            members.iter().any(|m| m.id == new && m.voter) && members.iter().all(|m| m.id != old)
        })
        .await;
    world.until_same(&[1, 2, 3]).await;
    world.write(wiped, 2).await;
    world.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_stop_and_start_again_with_everything() {
    let mut world = World::founded(3).await;
    for number in 0..10 {
        world.write(1 + number % 3, number).await;
    }
    let cluster = world.raft(1).cluster();
    let mut stopped = Vec::new();
    for node in 1..=3 {
        stopped.push(world.stop(node).await);
    }
    for (config, disk) in stopped {
        // Not only the process ends: the power goes too.
        disk.crash_losing_unsynced();
        world.start_with(config, disk).await;
    }
    world
        .until("somebody leads again", |w| w.leader().is_some())
        .await;
    for node in 1..=3 {
        world.raft(node).catch_up().await.unwrap();
        assert!((0..10).all(|number| has(world.raft(node), number)));
        assert_eq!(world.raft(node).cluster(), cluster);
    }
    world.write(2, 10).await;
    world.until_same(&[1, 2, 3]).await;
    world.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_node_of_one_id_and_a_node_of_another_cluster_are_refused() {
    let mut world = World::founded(3).await;
    world.write(1, 0).await;
    let mut twin = world.config(2);
    twin.address = "twin:1".to_owned();
    twin.bootstrap_expect = 0;
    let held = world.nodes.remove(&2).unwrap();
    world.start_with(twin, MemVfs::new()).await;
    let twin = world.nodes.remove(&2).unwrap();
    world.nodes.insert(2, held);
    let told = async {
        while !twin
            .raft
            .status()
            .notices
            .iter()
            .any(|n| n.contains("node id 2"))
        {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(harness::PATIENCE, told).await.unwrap();
    assert_eq!(world.voters(1), BTreeSet::from([1, 2, 3]));
    assert_eq!(world.status(1).members.len(), 3);

    let mut foreign = world.config(9);
    foreign.cluster = Some(ClusterId(99));
    world.start_with(foreign, MemVfs::new()).await;
    world
        .until("it says whose cluster that is", |w| {
            w.status(9)
                .notices
                .iter()
                .any(|n| n.contains("belongs to cluster"))
        })
        .await;
    assert_eq!(world.status(1).members.len(), 3);
    assert_eq!(world.raft(9).cluster(), Some(ClusterId(99)));
    world.write(3, 1).await;
    twin.raft.shutdown().await;
    world.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_node_grows_to_three_voters_and_gives_one_back() {
    let mut world = World::founded(1).await;
    world.write(1, 0).await;
    for node in [2, 3, 4] {
        world.start(node).await;
    }
    world
        .until("three vote", |w| {
            w.voters(1).len() == 3 && w.status(1).members.len() == 4 && !w.status(1).changing
        })
        .await;
    let leader = world.led().await;
    let gone = world.voters(1).into_iter().find(|n| *n != leader).unwrap();
    let asked = world.voters(1).into_iter().find(|n| *n != gone).unwrap();
    world.stop(gone).await;
    let began = tokio::time::Instant::now();
    loop {
        match world.raft(asked).remove(NodeId(gone)).await {
            Ok(()) => break,
            Err(ChangeError::Unknown(why)) => panic!("{why}"),
            Err(why) if began.elapsed() > harness::PATIENCE => {
                let all: Vec<_> = world
                    .nodes
                    .values()
                    .map(|n| n.raft.status().detail)
                    .collect();
                panic!("{why}: {all:#?}")
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
    world
        .until("the fourth votes in its place", |w| {
            let voters = w.voters(asked);
            voters.len() == 3 && !voters.contains(&gone)
        })
        .await;
    world.write(asked, 1).await;
    world.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_hands_over_and_a_new_address_is_told() {
    let mut world = World::founded(3).await;
    world.write(1, 0).await;
    let old = world.led().await;
    let to = (1..=3).find(|n| *n != old).unwrap();
    world
        .raft(old)
        .transfer_leadership(Some(NodeId(to)))
        .await
        .unwrap();
    world
        .until("the other one leads", |w| w.leader() == Some(to))
        .await;
    world.write(old, 1).await;
    let (mut config, disk) = world.stop(old).await;
    config.address = "moved:1".to_owned();
    world.start_with(config, disk).await;
    world.write(to, 2).await;
    world
        .until("its address is known and it has all", |w| {
            let members = w.status(to).members;
            members.iter().any(|m| m.member.address == "moved:1") && has(w.raft(old), 2)
        })
        .await;
    world.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_answer_is_unknown_and_not_made_twice() {
    let mut world = World::founded(3).await;
    world.write(1, 0).await;
    let mut number = 50;
    let other = loop {
        let leader = world.led().await;
        let other = (1..=3).find(|n| *n != leader).unwrap();
        world.raft(other).catch_up().await.unwrap();
        let before = world.raft(other).leadership();
        world.net.mute(&address(leader));
        let answer = propose(world.raft(other), number).await;
        world.net.heal();
        if before.leader == Some(NodeId(leader)) && before == world.raft(other).leadership() {
            let unknown = matches!(answer, Err(ProposeError::Unknown(_)));
            assert!(unknown, "{answer:?}");
            break other;
        }
        // Another one began to lead meanwhile, whose answers are not lost.
        number += 1;
        assert!(number < 60, "elections without end: {answer:?}");
    };
    world
        .until("it was made", |w| has(w.raft(other), number))
        .await;
    world.stop_all().await;
}

/// A leader that is known and not reached is asked with growing pauses: many may be waiting for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_not_reached_is_not_asked_without_end() {
    let mut world = World::founded(3).await;
    world.write(1, 0).await;
    let leader = world.led().await;
    let other = (1..=3).find(|n| *n != leader).unwrap();
    world.raft(other).catch_up().await.unwrap();
    world.net.shut(&address(leader));
    let waiting = tokio::spawn({
        let raft = world.raft(other).clone();
        async move { propose(&raft, 51).await }
    });
    let within = Duration::from_secs(2);
    let read = tokio::time::timeout(within, world.raft(other).catch_up()).await;
    let refused = world.net.refused();
    if world.leader() == Some(leader) {
        assert!(!matches!(read, Ok(Ok(()))), "nobody could be asked");
        assert!(refused > 0, "the leader was asked");
    }
    assert!(refused <= 40, "asked {refused} times in {within:?}");
    world.net.heal();
    let proposed = waiting.await.unwrap();
    assert!(proposed.is_ok(), "{proposed:?}");
    world.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_fails_takes_its_node_out_and_the_others_go_on() {
    let mut world = World::founded(3).await;
    world.write(1, 0).await;
    let broken = world.led().await;
    world.nodes[&broken]
        .disk
        .set_hook(Some(Arc::new(|call| match call.op {
            Op::Sync => Answer::Fail(rustix::io::Errno::IO),
            _ => Answer::Go,
        })));
    // The two others are a majority without this disk: a yes is right, if it is kept.
    let before = propose(world.raft(broken), 1).await;
    let why = tokio::time::timeout(harness::PATIENCE, world.raft(broken).failed())
        .await
        .unwrap();
    assert!(why.contains("sync"), "{why}");
    assert!(world.status(broken).failure.is_some());
    let refused = propose(world.raft(broken), 2).await;
    assert!(
        matches!(refused, Err(ProposeError::Stopped(_))),
        "{refused:?}"
    );
    let rest: Vec<i32> = (1..=3).filter(|n| *n != broken).collect();
    world
        .until("another one leads", |w| {
            rest.iter().any(|n| w.raft(*n).leadership().here)
        })
        .await;
    assert!(!world.raft(broken).leadership().here);
    world.write(rest[0], 3).await;
    world.write(rest[1], 4).await;
    if before.is_ok() {
        assert!(rest.iter().all(|n| has(world.raft(*n), 1)), "{before:?}");
    }
    // The process starts again on a disk that works.
    let (config, disk) = world.stop(broken).await;
    disk.set_hook(None);
    disk.crash_losing_unsynced();
    world.start_with(config, disk).await;
    world
        .until("it has caught up", |w| has(w.raft(broken), 4))
        .await;
    world.until_same(&[1, 2, 3]).await;
    world.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_founding_that_was_cut_off_is_done_again_and_a_foreign_store_is_refused() {
    let mut world = World::new(1);
    let config = world.config(1);
    let disk = MemVfs::new();
    let owner = raft_id(config.directory);
    let identity = Identity {
        cluster: ClusterId(5),
        node: NodeId(1),
    };
    let (mut store, _) = Disk::open(Arc::new(disk.clone()), &config.dir, owner).unwrap();
    store.save_identity(&identity).unwrap();
    drop(store);
    world.start_with(config, disk).await;
    world.until("it leads", |w| w.leader() == Some(1)).await;
    assert_ne!(world.raft(1).cluster(), Some(ClusterId(5)));
    world.write(1, 0).await;
    let (mut config, disk) = world.stop(1).await;
    config.cluster = Some(ClusterId(6));
    let refused = world.try_start_with(&config, &disk).await;
    assert!(
        refused
            .unwrap_err()
            .to_string()
            .contains("belongs to cluster")
    );
    (config.cluster, config.node) = (None, NodeId(2));
    let refused = world.try_start_with(&config, &disk).await;
    assert!(
        refused
            .unwrap_err()
            .to_string()
            .contains("belongs to node 1")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_level_beyond_this_program_stops_the_node() {
    let mut world = World::founded(1).await;
    let mut able = harness::register(0);
    if let Command::RegisterNode { features, .. } = &mut able {
        features.max = 9;
    }
    world.raft(1).propose(able).await.unwrap();
    let raise = Command::FinalizeFeature { level: 9 };
    let raised = world.raft(1).propose(raise).await;
    assert!(raised.is_err(), "{raised:?}");
    let why = tokio::time::timeout(harness::PATIENCE, world.raft(1).failed()).await;
    let why = why.unwrap();
    assert!(why.contains("newer program on this node"), "{why}");
    // And it meets the same entry again whenever it starts.
    let (config, disk) = world.stop(1).await;
    let why = match world.try_start_with(&config, &disk).await {
        Ok(raft) => tokio::time::timeout(harness::PATIENCE, raft.failed())
            .await
            .unwrap(),
        Err(error) => error.to_string(),
    };
    assert!(why.contains("newer program on this node"), "{why}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_whose_state_is_not_the_controllers_stop() {
    let mut world = World::founded(3).await;
    world.write(1, 0).await;
    let leader = world.led().await;
    let raft = world.raft(leader);
    let raise = Command::FinalizeFeature { level: 2 };
    raft.propose(raise).await.unwrap();
    let compare = || {
        read(raft, |state| Command::CheckState {
            version: state.version(),
            checksum: snapshot::checksum(state),
        })
    };
    let same = raft.propose(compare()).await.unwrap();
    assert_eq!(same, Event::StateChecked { compared: true });
    for node in 1..=3 {
        assert_eq!(world.status(node).failure, None);
    }
    // As a controller would whose state is not that of the others.
    let Command::CheckState { version, checksum } = compare() else {
        unreachable!()
    };
    let checksum = checksum ^ 1;
    let wrong = Command::CheckState { version, checksum };
    assert!(raft.propose(wrong).await.is_err());
    let why = tokio::time::timeout(harness::PATIENCE, raft.failed()).await;
    let why = why.unwrap();
    assert!(why.contains("differs from the controller's"), "{why}");
    world.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_of_a_directory_does_not_start_beside_the_original() {
    let mut world = World::founded(3).await;
    world.write(1, 0).await;
    let (config, disk) = world.stop(2).await;
    let copy = disk.image();
    world.start_with(config.clone(), disk).await;
    let mut second = config;
    second.address = "elsewhere:1".to_owned();
    let refused = world.try_start_with(&second, &copy).await.err().unwrap();
    assert!(
        refused.to_string().contains("one of the two is a copy"),
        "{refused}"
    );
    // Seeds of another cluster alone are not those of this directory.
    let mut other = World::new(1);
    for _ in 0..9 {
        // Each takes the identity of a directory: none is to be one of the first world's.
        let _ = other.config(1);
    }
    other.start(1).await;
    other
        .until("it leads itself", |w| w.leader() == Some(1))
        .await;
    let (mut config, disk) = other.stop(1).await;
    config.address = "elsewhere:1".to_owned();
    config.seeds = (1..=3).map(address).collect();
    let refused = world.try_start_with(&config, &disk).await.err().unwrap();
    assert!(
        refused.to_string().contains("belong to another cluster"),
        "{refused}"
    );
    world.write(3, 1).await;
    world.stop_all().await;
}
