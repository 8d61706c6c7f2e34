//! Commands and snapshots: scenarios, random command sequences, damaged bytes, and the golden file.
//! `UPDATE=1` writes the golden file; only a new format version may change it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use varve_metadata::{Command, CreateTopic, Event, Rejection, State, apply, snapshot};
use varve_types::{ErrorKind, NodeId, PartitionId, ProducerId, TopicId, TopicName, TopicPartition};

fn name(text: &str) -> TopicName {
    TopicName::new(text).unwrap()
}

fn register(node: i32) -> Command {
    Command::RegisterNode {
        node: NodeId(node),
        address: format!("host-{node}:8278"),
        rack: String::new(),
    }
}

fn create(topic: &str, id: u128, partitions: i32, replication_factor: i32) -> Command {
    Command::CreateTopic(CreateTopic {
        name: name(topic),
        id: TopicId(id),
        partitions,
        replication_factor,
        configs: BTreeMap::new(),
        labels: BTreeMap::new(),
        created_ms: 1_700_000_000_000,
        placement: BTreeMap::new(),
    })
}

fn elect(topic: &str, leader: Option<i32>, isr: &[i32]) -> Command {
    Command::ElectLeader {
        name: name(topic),
        partition: PartitionId(0),
        leader: leader.map(NodeId),
        isr: isr.iter().copied().map(NodeId).collect(),
    }
}

fn change_isr(topic: &str, isr: &[i32], partition_epoch: i32) -> Command {
    Command::ChangeIsr {
        name: name(topic),
        partition: PartitionId(0),
        isr: isr.iter().copied().map(NodeId).collect(),
        partition_epoch,
    }
}

fn state(commands: impl IntoIterator<Item = Command>) -> State {
    let mut state = State::default();
    for command in commands {
        apply(&mut state, command).unwrap();
    }
    state
}

/// A rejection leaves everything as it was, the version included.
fn refused(state: &mut State, command: Command) -> Rejection {
    let before = state.clone();
    let rejection = apply(state, command).unwrap_err();
    assert_eq!(*state, before, "{rejection}");
    rejection
}

#[test]
fn topics_come_grow_and_go() {
    let mut s = state([register(0), create("t", 1, 3, 1)]);
    assert_eq!(s.version(), 2);
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
    assert!(matches!(
        refused(&mut s, create("u", 2, 1, 2)),
        Rejection::OutOfRange { .. }
    ));
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
    let mut s = state([register(0), create("t", 1, 1, 1)]);
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
fn leaders_are_elected_among_replicas_and_epochs_grow() {
    let mut s = state([register(0), register(1), register(2), create("t", 1, 1, 2)]);
    let at = TopicPartition::new(name("t"), PartitionId(0));
    let [a, b] = s.partition(&at).unwrap().replicas[..] else {
        panic!("two replicas")
    };
    let outsider = (0..3).find(|n| *n != a.0 && *n != b.0).unwrap();
    apply(&mut s, elect("t", Some(b.0), &[b.0])).unwrap();
    let p = s.partition(&at).unwrap();
    assert_eq!(
        (p.leader, p.leader_epoch.get(), p.partition_epoch),
        (Some(b), 1, 1)
    );
    for bad in [
        elect("t", Some(outsider), &[outsider]),
        elect("t", Some(a.0), &[b.0]),
    ] {
        assert!(matches!(
            refused(&mut s, bad),
            Rejection::BadLeadership { .. }
        ));
    }
    assert_eq!(
        refused(&mut s, change_isr("t", &[b.0], 0)).kind(),
        ErrorKind::FencedLeaderEpoch
    );
    apply(&mut s, change_isr("t", &[b.0, a.0], 1)).unwrap();
    let p = s.partition(&at).unwrap();
    assert_eq!(
        (p.isr.len(), p.leader_epoch.get(), p.partition_epoch),
        (2, 1, 2)
    );
    apply(&mut s, elect("t", None, &[b.0])).unwrap();
    assert_eq!(s.partition(&at).unwrap().leader, None);
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

fn golden_state() -> State {
    let mut topic = CreateTopic {
        name: name("orders"),
        id: TopicId(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef),
        partitions: 2,
        replication_factor: 2,
        configs: BTreeMap::from([("retention.ms".to_owned(), "1000".to_owned())]),
        labels: BTreeMap::from([("team".to_owned(), "zürich".to_owned())]),
        created_ms: 1_700_000_000_000,
        placement: BTreeMap::new(),
    };
    topic.placement.insert(0, vec![NodeId(1), NodeId(0)]);
    topic.placement.insert(1, vec![NodeId(0), NodeId(1)]);
    state([
        register(0),
        register(1),
        Command::CreateTopic(topic),
        create("audit", 7, 1, 1),
        elect("orders", Some(0), &[0]),
        Command::AllocateProducerIds { count: 1000 },
        Command::BumpProducerEpoch {
            name: "loader".to_owned(),
        },
    ])
}

#[test]
fn golden_file_reads_as_it_always_did() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/snapshot-1.bin");
    let bytes = snapshot::encode(&golden_state());
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(path, &bytes).unwrap();
    }
    let golden = std::fs::read(path).unwrap();
    assert_eq!(golden, bytes, "the bytes of format version 1 never change");
    assert_eq!(snapshot::decode(&golden).unwrap(), golden_state());
}

#[test]
fn a_newer_version_names_the_newer_program() {
    let mut bytes = snapshot::encode(&golden_state());
    bytes[4] = 2;
    let error = snapshot::decode(&bytes).unwrap_err();
    assert_eq!(error, snapshot::SnapshotError::Version { found: 2 });
    assert!(error.to_string().contains("newer program"));
    assert_eq!(
        snapshot::decode(b"PK\x03\x04"),
        Err(snapshot::SnapshotError::Magic)
    );
}

fn command() -> impl Strategy<Value = Command> {
    let topic = prop::sample::select(vec!["a", "b", "c"]);
    let nodes = prop::collection::vec(0_i32..4, 0..3);
    prop_oneof![
        (0_i32..4).prop_map(register),
        (topic.clone(), 0_u128..6, -1_i32..6, 0_i32..4)
            .prop_map(|(t, id, partitions, factor)| create(t, id, partitions, factor)),
        topic.clone().prop_map(|t| Command::DeleteTopic {
            name: name(t),
            id: None
        }),
        (topic.clone(), 0_i32..9).prop_map(|(t, total)| Command::AddPartitions {
            name: name(t),
            total,
            placement: BTreeMap::new()
        }),
        (topic.clone(), prop::option::of(0_i32..4), nodes.clone())
            .prop_map(|(t, leader, isr)| elect(t, leader, &isr)),
        (topic, nodes, 0_i32..4).prop_map(|(t, isr, epoch)| change_isr(t, &isr, epoch)),
        (0_u32..5).prop_map(|count| Command::AllocateProducerIds { count }),
        "[a-c]".prop_map(|name| Command::BumpProducerEpoch { name }),
    ]
}

proptest! {
    #[test]
    fn any_commands_keep_the_invariants_and_round_trip(commands in prop::collection::vec(command(), 0..60)) {
        let mut s = State::default();
        let mut given = BTreeSet::new();
        for command in commands {
            let before = s.clone();
            match apply(&mut s, command) {
                Ok(Event::ProducerIdsAllocated { first, count }) => {
                    for id in first..first + i64::from(count) {
                        prop_assert!(given.insert(id), "producer id {} given twice", id);
                    }
                }
                Ok(Event::ProducerEpochBumped { producer }) if producer.epoch == 0 => {
                    prop_assert!(given.insert(producer.id));
                }
                Ok(_) => {}
                Err(_) => {
                    prop_assert_eq!(&s, &before);
                    continue;
                }
            }
            prop_assert_eq!(s.version(), before.version() + 1);
            prop_assert_eq!(s.check(), Ok(()));
        }
        let bytes = snapshot::encode(&s);
        prop_assert_eq!(snapshot::decode(&bytes), Ok(s));
    }

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
            prop_assert_eq!(snapshot::encode(&state), bytes);
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..200), header in any::<bool>()) {
        if header {
            bytes.splice(0..0, snapshot::encode(&State::default())[..24].iter().copied());
        }
        if let Ok(state) = snapshot::decode(&bytes) {
            prop_assert_eq!(snapshot::encode(&state), bytes);
        }
    }
}
