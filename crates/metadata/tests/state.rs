//! Commands and snapshots: scenarios, damaged bytes, and the golden files. `UPDATE=1` writes the golden
//! files of the present version; only a new format version may change them.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

use std::collections::BTreeMap;

use crate::support::{create, create_with, name, node, register, state, unfence};
use proptest::prelude::*;
use varve_metadata::{
    Command, CreateTopic, Event, FeatureRange, NodeState, Rejection, State, apply, features,
    snapshot,
};
use varve_types::{
    DirectoryId, ErrorKind, NodeId, PartitionId, ProducerId, TopicId, TopicPartition,
};

/// A rejection leaves everything as it was, the version included.
fn refused(state: &mut State, command: Command) -> Rejection {
    let before = state.clone();
    let rejection = apply(state, command).unwrap_err();
    assert_eq!(*state, before, "{rejection}");
    rejection
}

#[test]
fn topics_come_grow_and_go() {
    let mut s = state(&[0], [create("t", 1, 3, 1)]);
    assert_eq!(s.version(), 3);
    let topic = s.topic(&name("t")).unwrap();
    assert_eq!(topic.partition_count(), 3);
    assert_eq!(
        topic.partition(PartitionId(2)).unwrap().leader,
        Some(NodeId(0))
    );
    assert!(
        topic.partition(PartitionId(3)).is_none() && topic.partition(PartitionId(-1)).is_none()
    );
    assert_eq!(
        refused(&mut s, create("t", 2, 1, 1)).kind(),
        ErrorKind::TopicAlreadyExists
    );
    assert!(matches!(
        refused(&mut s, create("u", 1, 1, 1)),
        Rejection::TopicIdExists { .. }
    ));
    let few = refused(&mut s, create("u", 2, 1, 2)).to_string();
    assert!(
        few.contains("needs 2 replicas") && few.contains("only 1 of 1 known node can"),
        "{few}"
    );
    assert!(matches!(
        refused(&mut s, create("u", 2, 0, 1)),
        Rejection::OutOfRange { .. }
    ));
    let grow = |total| Command::AddPartitions {
        name: name("t"),
        total,
        placement: BTreeMap::new(),
    };
    assert!(matches!(
        refused(&mut s, grow(3)),
        Rejection::NotMorePartitions { .. }
    ));
    let event = apply(&mut s, grow(5)).unwrap();
    assert_eq!(
        event,
        Event::PartitionsAdded {
            name: name("t"),
            first: PartitionId(3),
            total: 5
        }
    );
    assert_eq!(s.partitions_of(NodeId(0)).count(), 5);
    let delete = |id| Command::DeleteTopic {
        name: name("t"),
        id,
    };
    assert!(matches!(
        refused(&mut s, delete(Some(TopicId(9)))),
        Rejection::TopicIdMismatch {
            found: TopicId(1),
            ..
        }
    ));
    assert!(apply(&mut s, delete(Some(TopicId(1)))).is_ok());
    assert_eq!(
        refused(&mut s, delete(None)).kind(),
        ErrorKind::TopicNotFound
    );
    assert!(s.topics().is_empty());
}

#[test]
fn configs_are_checked_as_a_whole() {
    let mut s = state(&[0], [create("t", 1, 1, 1)]);
    let set = |pairs: &[(&str, &str)]| Command::SetTopicConfigs {
        name: name("t"),
        configs: pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect(),
    };
    apply(&mut s, set(&[("retention.ms", "1000")])).unwrap();
    let bad = set(&[("retention.ms", "5"), ("segment.bytes", "x")]);
    assert_eq!(refused(&mut s, bad).kind(), ErrorKind::InvalidConfig);
    assert_eq!(s.topic(&name("t")).unwrap().configs["retention.ms"], "1000");
}

#[test]
fn a_cluster_takes_what_older_nodes_cannot_read_only_from_its_level_on() {
    let new: &[(&str, &str)] = &[
        ("segment.index.bytes", "10485760"),
        ("compression.zstd.level", "19"),
        ("max.message.bytes", "10485760"),
        ("flush.ms", "0"),
        ("retention.ms", " 1000"),
    ];
    let set = |pair: &(&str, &str)| Command::SetTopicConfigs {
        name: name("t"),
        configs: [(pair.0.to_owned(), pair.1.to_owned())].into(),
    };
    let mut s = State::default();
    let mut newer = register(0, 1);
    if let Command::RegisterNode { features, .. } = &mut newer {
        *features = FeatureRange::THIS_PROGRAM;
    }
    apply(&mut s, newer).unwrap();
    let active = unfence(&s, 0);
    apply(&mut s, active).unwrap();
    apply(&mut s, create("t", 1, 1, 1)).unwrap();
    for pair in new {
        let early = refused(&mut s, set(pair));
        assert!(
            early.to_string().contains("needs feature level 7"),
            "{pair:?}: {early}"
        );
        assert!(s.topic(&name("t")).unwrap().configs.is_empty());
    }
    assert!(
        refused(&mut s, create_with("u", 2, 1, 1, &new[..1]))
            .to_string()
            .contains("level 7")
    );
    let level = features::KEPT_CONFIGS;
    apply(&mut s, Command::FinalizeFeature { level }).unwrap();
    for pair in new {
        apply(&mut s, set(pair)).unwrap();
        assert_eq!(s.topic(&name("t")).unwrap().configs[pair.0], pair.1);
    }
    // A list of replicas may be long, nothing else.
    let long = "0:1,".repeat(8_000) + "0:1";
    apply(
        &mut s,
        set(&("leader.replication.throttled.replicas", &long)),
    )
    .unwrap();
    let bytes = snapshot::encode(&s);
    assert_eq!(snapshot::decode(&bytes).unwrap(), s);
}

#[test]
fn producer_ids_are_given_out_once() {
    let mut s = State::default();
    let bump = || Command::BumpProducerEpoch {
        name: "loader".to_owned(),
    };
    let producer = |s: &mut State| match apply(s, bump()).unwrap() {
        Event::ProducerEpochBumped { producer } => producer,
        other => panic!("{other:?}"),
    };
    assert_eq!(
        apply(&mut s, Command::AllocateProducerIds { count: 1000 }).unwrap(),
        Event::ProducerIdsAllocated {
            first: 1,
            count: 1000
        }
    );
    assert_eq!(producer(&mut s), ProducerId { id: 1001, epoch: 0 });
    for _ in 0..i16::MAX {
        producer(&mut s);
    }
    assert_eq!(
        s.producer("loader"),
        Some(ProducerId {
            id: 1001,
            epoch: i16::MAX
        })
    );
    assert_eq!(
        producer(&mut s),
        ProducerId { id: 1002, epoch: 0 },
        "its epochs were used up"
    );
    assert!(matches!(
        refused(&mut s, Command::AllocateProducerIds { count: 0 }),
        Rejection::OutOfRange { .. }
    ));
}

/// What version 1 could say: made from the golden file's own commands when it was written.
fn old_topics() -> [Command; 2] {
    let Command::CreateTopic(orders) =
        create_with("orders", GOLDEN_ID, 2, 2, &[("retention.ms", "1000")])
    else {
        unreachable!()
    };
    let placement = BTreeMap::from([
        (0, vec![NodeId(1), NodeId(0)]),
        (1, vec![NodeId(0), NodeId(1)]),
    ]);
    let labels = BTreeMap::from([("team".to_owned(), "zürich".to_owned())]);
    let orders = CreateTopic {
        placement,
        labels,
        ..orders
    };
    [Command::CreateTopic(orders), create("audit", 7, 1, 1)]
}

const GOLDEN_ID: u128 = 0x0123_4567_89ab_cdef_0123_4567_89ab_cdef;

/// A little of everything: a node of each state, a move, eligible replicas.
fn golden_state() -> State {
    let mut s = state(&[0, 1, 2], old_topics());
    let more = [
        Command::FenceNode {
            node: NodeId(1),
            epoch: node(&s, 1).epoch,
        },
        Command::SetTopicConfigs {
            name: name("orders"),
            configs: BTreeMap::from([("min.insync.replicas".to_owned(), "2".to_owned())]),
        },
        Command::UnfenceNode {
            node: NodeId(1),
            epoch: node(&s, 1).epoch,
        },
        Command::AlterPartition {
            topic_id: TopicId(GOLDEN_ID),
            partition: PartitionId(0),
            leader: NodeId(0),
            leader_epoch: varve_types::LeaderEpoch::new(1).unwrap(),
            partition_epoch: 2,
            isr: vec![
                (NodeId(1), node(&s, 1).epoch),
                (NodeId(0), node(&s, 0).epoch),
            ],
            broker_epoch: node(&s, 0).epoch,
        },
        Command::FenceNode {
            node: NodeId(1),
            epoch: node(&s, 1).epoch,
        },
        Command::BeginShutdown {
            node: NodeId(2),
            epoch: node(&s, 2).epoch,
        },
        Command::SetDecommissioning {
            node: NodeId(1),
            on: true,
        },
        Command::Reassign {
            topic_id: TopicId(GOLDEN_ID),
            partition: PartitionId(0),
            target: Some(vec![NodeId(0), NodeId(2)]),
        },
        Command::AllocateProducerIds { count: 1000 },
        Command::BumpProducerEpoch {
            name: "loader".to_owned(),
        },
    ];
    for command in more {
        apply(&mut s, command).unwrap();
    }
    let p = s
        .partition(&TopicPartition::new(name("orders"), PartitionId(0)))
        .unwrap();
    assert_eq!(
        (&p.isr[..], &p.elr[..]),
        (&[NodeId(0)][..], &[NodeId(1)][..])
    );
    assert!(p.is_reassigning() && s.reassigning().len() == 1);
    s
}

fn golden(name: &str) -> String {
    format!("{}/testdata/{name}", env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn golden_file_reads_as_it_always_did() {
    let path = golden("snapshot-2.bin");
    let bytes = snapshot::encode(&golden_state());
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, &bytes).unwrap();
    }
    let golden = std::fs::read(&path).unwrap();
    assert_eq!(golden, bytes, "the bytes of format version 2 never change");
    assert_eq!(snapshot::decode(&golden).unwrap(), golden_state());
}

/// Version 1: one node without epochs, leaders and in-sync replicas as they were written.
#[test]
fn a_snapshot_of_version_1_opens_with_defaults() {
    let mut s = snapshot::decode(&std::fs::read(golden("snapshot-1.bin")).unwrap()).unwrap();
    assert_eq!((s.version(), s.level(), s.nodes().len()), (7, 1, 2));
    for known in s.nodes().values() {
        assert_eq!(known.state, NodeState::Active);
        assert_eq!(
            (known.directory, known.epoch.get()),
            (DirectoryId::UNKNOWN, 0)
        );
        assert_eq!(known.peer_address, "");
    }
    let at = TopicPartition::new(name("orders"), PartitionId(0));
    let p = s.partition(&at).unwrap();
    assert_eq!(
        (p.leader, p.isr.len(), p.elr.len()),
        (Some(NodeId(0)), 1, 0)
    );
    assert_eq!(s.topics()[&name("orders")].configs["retention.ms"], "1000");
    // The first start of this program: the old run is over, and the disk is the one it was.
    for command in [
        Command::FenceNode {
            node: NodeId(0),
            epoch: node(&s, 0).epoch,
        },
        register(0, 5),
    ] {
        apply(&mut s, command).unwrap();
    }
    assert_eq!(s.partition(&at).unwrap().elr, [NodeId(0)]);
    let back = unfence(&s, 0);
    apply(&mut s, back).unwrap();
    assert_eq!(s.partition(&at).unwrap().leader, Some(NodeId(0)));
    assert_eq!(snapshot::decode(&snapshot::encode(&s)).unwrap(), s);
}

#[test]
fn states_are_compared_from_level_2_on() {
    let able = |number, incarnation, max| {
        let mut command = register(number, incarnation);
        if let Command::RegisterNode { features, .. } = &mut command {
            features.max = max;
        }
        command
    };
    let mut s = State::default();
    apply(&mut s, able(0, 1, 2)).unwrap();
    let check = |version, checksum| Command::CheckState { version, checksum };
    let early = refused(&mut s, check(0, 0));
    assert!(
        early.to_string().contains("needs feature level 2"),
        "{early}"
    );
    assert!(!early.is_fatal());
    assert_eq!(features::highest(&s), Some(2));
    apply(&mut s, Command::FinalizeFeature { level: 2 }).unwrap();
    let (version, same) = (s.version(), snapshot::checksum(&s));
    let compared = |compared| Ok(Event::StateChecked { compared });
    let mut other = s.clone();
    assert_eq!(apply(&mut s, check(version, same)), compared(true));
    // Something came in between: the versions are no longer the same.
    assert_eq!(apply(&mut s, check(version, same)), compared(false));
    let diverged = refused(&mut other, check(version, same ^ 1));
    assert!(diverged.is_fatal(), "{diverged}");
    assert!(
        diverged.to_string().contains("the node stops"),
        "{diverged}"
    );
    // A node that does not work at the level is not let in any more.
    let refusal = refused(&mut s, able(1, 1, 1)).to_string();
    assert!(
        refusal.contains("supports feature levels 1 to 1, but the cluster is at 2"),
        "{refusal}"
    );
}

#[test]
fn levels_only_grow_and_unknown_ones_stop_the_node() {
    let mut s = state(&[0], []);
    let level = |level| Command::FinalizeFeature { level };
    assert_eq!(
        apply(&mut s, level(1)).unwrap(),
        Event::FeatureFinalized { level: 1 }
    );
    assert_eq!(features::highest(&s), Some(1));
    assert_eq!(features::highest(&State::default()), None);
    let unable = refused(&mut s, level(2));
    assert!(
        !unable.is_fatal() && unable.to_string().contains("node 0"),
        "{unable}"
    );
    assert!(!refused(&mut s, level(0)).is_fatal());
    let Command::RegisterNode {
        node,
        incarnation,
        directory,
        address,
        peer_address,
        rack,
        version,
        ..
    } = register(1, 1)
    else {
        unreachable!()
    };
    let with = |features| Command::RegisterNode {
        node,
        incarnation,
        directory,
        address: address.clone(),
        peer_address: peer_address.clone(),
        rack: rack.clone(),
        features,
        version: version.clone(),
        clean: None,
    };
    let old = refused(&mut s, with(FeatureRange { min: 2, max: 3 }));
    assert!(old.to_string().contains("the cluster is at 1"), "{old}");
    // Nodes of a newer program only, and this one as an observer that knows less.
    let mut s = State::default();
    let (min, max) = (1, features::KNOWN_LEVEL + 1);
    apply(&mut s, with(FeatureRange { min, max })).unwrap();
    let beyond = refused(&mut s, level(max));
    assert!(
        beyond.is_fatal() && beyond.to_string().contains("newer program"),
        "{beyond}"
    );
    let mut bytes = snapshot::encode(&s);
    bytes[16] = u8::try_from(max).unwrap();
    assert_eq!(
        snapshot::decode(&bytes),
        Err(snapshot::SnapshotError::Level { found: max })
    );
}

#[test]
fn a_newer_version_names_the_newer_program() {
    let mut bytes = snapshot::encode(&golden_state());
    bytes[4] = 3;
    let error = snapshot::decode(&bytes).unwrap_err();
    assert_eq!(error, snapshot::SnapshotError::Version { found: 3 });
    assert!(error.to_string().contains("newer program"));
    assert_eq!(
        snapshot::decode(b"PK\x03\x04"),
        Err(snapshot::SnapshotError::Magic)
    );
}

proptest! {
    #[test]
    fn damaged_snapshots_are_refused_or_canonical(
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mut bytes = snapshot::encode(&golden_state());
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        if let Ok(state) = snapshot::decode(&bytes) {
            prop_assert!(bytes[4] == 1 || snapshot::encode(&state) == bytes);
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..200), header in any::<bool>()) {
        if header {
            bytes.splice(0..0, snapshot::encode(&State::default())[..26].iter().copied());
        }
        if let Ok(state) = snapshot::decode(&bytes) {
            prop_assert_eq!(snapshot::encode(&state), bytes);
        }
    }
}
