//! Commands as bytes: one of each kind in the golden file, damage, and what this program does not know.
//! `UPDATE=1` writes the golden file; only a new format version may change it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

use std::collections::BTreeMap;

use crate::support::{create_with, name, register};
use proptest::prelude::*;
use varve_metadata::{Command, CreateTopic, Election, command_codec};
use varve_types::{BrokerEpoch, LeaderEpoch, NodeId, PartitionId, TopicId};

const ID: TopicId = TopicId(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef);

/// One of each kind, and of each shape.
fn all() -> Vec<Command> {
    let (node, partition, topic_id) = (NodeId(3), PartitionId(7), ID);
    let epoch = BrokerEpoch::new(42).unwrap();
    let placement = BTreeMap::from([
        (0, vec![NodeId(1), NodeId(0)]),
        (1, vec![NodeId(0), NodeId(1)]),
    ]);
    let Command::CreateTopic(topic) =
        create_with("orders", ID.0, 2, 2, &[("retention.ms", "1000")])
    else {
        unreachable!()
    };
    let mut again = register(3, 77);
    if let Command::RegisterNode { clean, rack, .. } = &mut again {
        (*clean, *rack) = (Some(epoch), "zürich-1".to_owned());
    }
    let elect = |how| Command::ElectLeader {
        topic_id,
        partition,
        how,
    };
    vec![
        register(3, 76),
        again,
        Command::FenceNode { node, epoch },
        Command::UnfenceNode { node, epoch },
        Command::BeginShutdown { node, epoch },
        Command::UnregisterNode { node },
        Command::SetDecommissioning { node, on: true },
        Command::CreateTopic(CreateTopic {
            labels: BTreeMap::from([("team".to_owned(), "log".to_owned())]),
            placement: placement.clone(),
            ..topic
        }),
        Command::DeleteTopic {
            name: name("orders"),
            id: None,
        },
        Command::DeleteTopic {
            name: name("orders"),
            id: Some(ID),
        },
        Command::AddPartitions {
            name: name("orders"),
            total: 4,
            placement,
        },
        Command::SetTopicConfigs {
            name: name("orders"),
            configs: BTreeMap::new(),
        },
        Command::AlterPartition {
            topic_id,
            partition,
            leader: node,
            leader_epoch: LeaderEpoch::new(5).unwrap(),
            partition_epoch: 9,
            isr: vec![(node, epoch), (NodeId(4), BrokerEpoch::ZERO)],
            broker_epoch: epoch,
        },
        elect(Election::Preferred),
        elect(Election::Clean(None)),
        elect(Election::Clean(Some(node))),
        elect(Election::Unclean(node)),
        Command::Reassign {
            topic_id,
            partition,
            target: None,
        },
        Command::Reassign {
            topic_id,
            partition,
            target: Some(vec![node, NodeId(1)]),
        },
        Command::ReplicaLost {
            node,
            epoch,
            topic_id,
            partition,
        },
        Command::FinalizeFeature { level: 2 },
        Command::AllocateProducerIds { count: 1000 },
        Command::BumpProducerEpoch {
            name: "loader".to_owned(),
        },
        Command::GiveUpReplica {
            node,
            epoch,
            topic_id,
            partition,
        },
    ]
}

/// Those that came with feature level 2.
fn of_level_2() -> Vec<Command> {
    vec![Command::CheckState {
        version: 71,
        checksum: 0xfeed_beef,
    }]
}

/// Each with its length before it.
fn golden_bytes(commands: &[Command]) -> Vec<u8> {
    let one = |command: &Command| {
        let bytes = command_codec::encode(command);
        let length = u32::try_from(bytes.len()).unwrap().to_le_bytes();
        [&length[..], &bytes].concat()
    };
    commands.iter().flat_map(one).collect()
}

#[test]
fn golden_commands_read_as_they_always_did() {
    golden("commands-1.bin", all());
    golden("commands-level-2.bin", of_level_2());
}

fn golden(file: &str, commands: Vec<Command>) {
    let path = format!("{}/testdata/{file}", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, golden_bytes(&commands)).unwrap();
    }
    let golden = std::fs::read(&path).unwrap();
    assert_eq!(
        golden,
        golden_bytes(&commands),
        "the bytes of format version 1 never change"
    );
    let mut rest = &golden[..];
    for command in commands {
        let (length, tail) = rest.split_first_chunk::<4>().unwrap();
        let (bytes, tail) = tail.split_at(u32::from_le_bytes(*length) as usize);
        assert_eq!(command_codec::decode(bytes), Ok(command));
        rest = tail;
    }
    assert!(rest.is_empty());
}

#[test]
fn what_is_not_known_stops_the_node() {
    for (bytes, version, kind) in [([1, 20], 1, 20), ([1, 0], 1, 0), ([2, 1], 2, 1)] {
        let error = command_codec::decode(&bytes).unwrap_err();
        assert_eq!(
            error,
            command_codec::CommandError::Unknown { version, kind }
        );
        assert!(error.to_string().contains("newer program"), "{error}");
    }
}

#[test]
fn every_cut_is_noticed() {
    for command in all().into_iter().chain(of_level_2()) {
        let bytes = command_codec::encode(&command);
        for cut in 0..bytes.len() {
            assert!(
                command_codec::decode(&bytes[..cut]).is_err(),
                "{command:?} cut at {cut}"
            );
        }
        let longer = [&bytes[..], &[0]].concat();
        assert!(command_codec::decode(&longer).is_err(), "{command:?}");
    }
}

#[test]
fn a_count_makes_no_room_for_what_is_not_there() {
    // AlterPartition with 2^32 - 1 replicas in 45 bytes.
    let mut bytes = command_codec::encode(&all()[12]);
    let at = bytes.len() - 2 * 12 - 4;
    bytes[at..at + 4].fill(0xff);
    let error = command_codec::decode(&bytes).unwrap_err();
    assert!(error.to_string().contains("ends inside"), "{error}");
}

proptest! {
    #[test]
    fn damaged_commands_are_refused_or_canonical(
        which in any::<prop::sample::Index>(),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mut bytes = command_codec::encode(which.get(&all()));
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        if let Ok(command) = command_codec::decode(&bytes) {
            prop_assert_eq!(command_codec::encode(&command), bytes);
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(kind in 0_u8..20, bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let bytes = [&[1, kind][..], &bytes].concat();
        if let Ok(command) = command_codec::decode(&bytes) {
            prop_assert_eq!(command_codec::encode(&command), bytes);
        }
    }
}
