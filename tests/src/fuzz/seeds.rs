//! Where fuzzing begins: inputs that every target accepts, and a few that it must refuse. They are committed
//! in `tests/fuzz/corpus` with what fuzzing has found; `VARVE_BLESS=1 cargo test -p varve-tests --test replay`
//! writes them again.

use bytes::Bytes;
use varve_groups::codec;
use varve_partition::ProducerTable;
use varve_record::{BatchBuilder, Compression};
use varve_types::{
    GroupName, Offset, PartitionId, ProducerId, Sequence, TopicId, TopicName, TopicPartition,
};

use super::image::{CLEAN, Image, SEAL};

/// A file of `testdata` of a crate.
macro_rules! golden {
    ($name:literal) => {
        include_bytes!(concat!("../../../crates/", $name))
    };
}

/// The golden log of `storage`: two segments, three epochs, one snapshot, closed cleanly.
#[must_use]
pub fn golden_image() -> Image {
    let files: [(u8, &[u8]); 9] = [
        (0, golden!("storage/testdata/00000000000000000000.log")),
        (1, golden!("storage/testdata/00000000000000000000.index")),
        (
            2,
            golden!("storage/testdata/00000000000000000000.timeindex"),
        ),
        (3, golden!("storage/testdata/manifest")),
        (4, golden!("storage/testdata/leader-epoch")),
        (5, golden!("storage/testdata/00000000000000000024.snapshot")),
        (6, golden!("storage/testdata/00000000000000000021.log")),
        (7, golden!("storage/testdata/00000000000000000021.index")),
        (
            8,
            golden!("storage/testdata/00000000000000000021.timeindex"),
        ),
    ];
    Image {
        flags: CLEAN,
        files: files.map(|(n, content)| (n, content.to_vec())).into(),
    }
}

/// The golden log of `storage` with a compacted segment.
#[must_use]
pub fn compacted_image() -> Image {
    let files: [(u8, &[u8]); 8] = [
        (
            14,
            golden!("storage/testdata-compacted/00000000000000000000-2.log"),
        ),
        (
            15,
            golden!("storage/testdata-compacted/00000000000000000000-2.index"),
        ),
        (
            16,
            golden!("storage/testdata-compacted/00000000000000000000-2.timeindex"),
        ),
        (3, golden!("storage/testdata-compacted/manifest")),
        (4, golden!("storage/testdata-compacted/leader-epoch")),
        (
            17,
            golden!("storage/testdata-compacted/00000000000000000006.log"),
        ),
        (
            18,
            golden!("storage/testdata-compacted/00000000000000000006.index"),
        ),
        (
            19,
            golden!("storage/testdata-compacted/00000000000000000006.timeindex"),
        ),
    ];
    Image {
        flags: CLEAN,
        files: files.map(|(n, content)| (n, content.to_vec())).into(),
    }
}

fn content(image: &Image, number: u8) -> Vec<u8> {
    let found = image.files.iter().find(|(n, _)| *n == number);
    found
        .map(|(_, content)| content.clone())
        .unwrap_or_default()
}

/// Inputs by target and name.
#[must_use]
pub fn all() -> Vec<(&'static str, String, Vec<u8>)> {
    let mut seeds = Vec::new();
    let mut add = |target: &'static str, name: &str, bytes: Vec<u8>| {
        seeds.push((target, name.to_owned(), bytes));
    };
    for codec in [
        Compression::None,
        Compression::Gzip,
        Compression::Snappy,
        Compression::Lz4,
        Compression::Zstd,
    ] {
        add("batch", &codec.to_string(), one_batch(codec).to_vec());
    }
    for (name, set) in super::records::message_set_seeds() {
        add("message_set", &name, set);
    }
    for (name, requests) in super::requests::seeds() {
        add("kafka_requests", name, requests);
    }
    let golden = golden_image();
    add("batch", "stored-run", content(&golden, 0));
    add("index", "golden", content(&golden, 1));
    add("timeindex", "golden", content(&golden, 2));
    add("manifest", "golden", content(&golden, 3));
    add("epochs", "golden", content(&golden, 4));
    add("snapshot", "golden", content(&golden, 5));
    for (name, image) in images(&golden) {
        add("recovery", name, image.encode());
        add("inspect", name, image.encode());
    }
    let compacted = compacted_image();
    add("manifest", "compacted", content(&compacted, 3));
    let mut unclean = compacted.clone();
    unclean.flags = 0;
    let mut unindexed = unclean.clone();
    unindexed.files.retain(|(n, _)| ![15, 16, 4].contains(n));
    for (name, image) in [
        ("compacted", compacted),
        ("compacted-unclean", unclean),
        ("compacted-unindexed", unindexed),
    ] {
        add("recovery", name, image.encode());
        add("inspect", name, image.encode());
    }
    let producers = golden!("partition/testdata/producers-1.bin");
    add("producers", "two-sessions", producers.to_vec());
    let producers = golden!("partition/testdata/producers-2.bin");
    add("producers", "transactions", producers.to_vec());
    let producers = golden!("partition/testdata/producers-3.bin");
    add("producers", "numbered", producers.to_vec());
    add("producers", "empty", ProducerTable::default().encode());
    let state = golden!("metadata/testdata/snapshot-1.bin").to_vec();
    add("metadata", "golden", state);
    let state = golden!("metadata/testdata/snapshot-2.bin").to_vec();
    add("metadata", "golden-2", state);
    let commands = golden!("metadata/testdata/commands-1.bin").to_vec();
    add("metadata_command", "golden", commands);
    add("metadata_command", "two-nodes", two_nodes(true));
    add("metadata_command", "one-create", two_nodes(false));
    let file = golden!("broker/testdata/metadata-1.bin").to_vec();
    add("metadata_file", "one-deleted", file);
    let file = golden!("broker/testdata/metadata-1-2.bin").to_vec();
    add("metadata_file", "one-deleted-2", file);
    let file = golden!("broker/testdata/scrub-1.bin").to_vec();
    add("scrub_file", "half-way", file);
    add("journal", "two-logs", super::journal::seed());
    for (number, request) in super::raft::parts(golden!("metadata-raft/testdata/requests-1.bin"))
        .into_iter()
        .enumerate()
    {
        add("raft_message", &format!("request-{number}"), request);
    }
    for (number, response) in super::raft::parts(golden!("metadata-raft/testdata/responses-1.bin"))
        .into_iter()
        .enumerate()
    {
        add("raft_message", &format!("response-{number}"), response);
    }
    for (number, entry) in super::raft::parts(golden!("metadata-raft/testdata/entries-1.bin"))
        .into_iter()
        .enumerate()
    {
        add("raft_file", &format!("entry-{number}"), entry);
    }
    for (name, bytes) in [
        (
            "vote",
            golden!("metadata-raft/testdata/vote-1.bin").to_vec(),
        ),
        (
            "purged",
            golden!("metadata-raft/testdata/purged-1.bin").to_vec(),
        ),
        (
            "identity",
            golden!("metadata-raft/testdata/identity-1.bin").to_vec(),
        ),
        (
            "committed",
            golden!("metadata-raft/testdata/committed-1.bin").to_vec(),
        ),
        (
            "kept",
            golden!("metadata-raft/testdata/kept-1.bin").to_vec(),
        ),
        (
            "snapshot",
            golden!("metadata-raft/testdata/snapshot-1.bin").to_vec(),
        ),
    ] {
        add("raft_file", name, bytes);
    }
    let (key, value) = offset_record();
    add("offsets", "key", key);
    add("offsets", "value", value);
    for (name, bytes) in classic_member() {
        add("offsets", name, bytes);
    }
    let [key, value, numbered] = transaction_record();
    add("transactions", "key", key);
    add("transactions", "value", value);
    add("transactions", "numbered-value", numbered);
    add(
        "identity",
        "one",
        golden!("server/testdata/meta.toml").to_vec(),
    );
    for (name, message) in super::peer::seeds() {
        add("peer", name, message);
    }
    for (name, input) in super::kafka::seeds() {
        add("kafka_wire", name, input);
    }
    seeds
}

fn one_batch(codec: Compression) -> Bytes {
    let mut builder = BatchBuilder::new(codec, None);
    let headers = [("trace", Some(&b"abc"[..])), ("none", None)];
    let value = "hello ".repeat(20);
    builder
        .append(1_700_000_000_000, Some(b"user-1"), Some(b"hello"), &headers)
        .unwrap();
    builder
        .append(1_700_000_000_005, None, Some(value.as_bytes()), &[])
        .unwrap();
    builder
        .append(1_699_999_999_999, Some(b"user-1"), None, &[])
        .unwrap();
    builder.set_producer(ProducerId { id: 4242, epoch: 3 }, Sequence::new(7).unwrap());
    builder.build().unwrap()
}

/// The golden log as it is and as crashes and accidents leave it.
fn images(golden: &Image) -> Vec<(&'static str, Image)> {
    let without = |gone: &[u8]| {
        let mut image = golden.clone();
        image.files.retain(|(n, _)| !gone.contains(n));
        image.flags = 0;
        image
    };
    let mut torn = without(&[]);
    let mut unsealed = without(&[]);
    unsealed.flags = SEAL;
    for (number, content) in &mut torn.files {
        if *number == 6 {
            content.truncate(content.len() - 20);
        }
        if *number == 7 {
            content.truncate(64);
        }
    }
    let mut leftovers = without(&[]);
    leftovers.files.push((11, b"half a manifest".to_vec()));
    leftovers.files.push((12, content(golden, 0)));
    leftovers.files.push((13, content(golden, 5)));
    let mut unlisted = without(&[]);
    unlisted.files.push((9, Vec::new()));
    unlisted.files.push((10, content(golden, 7)));
    vec![
        ("clean", golden.clone()),
        ("unclean", without(&[])),
        ("sealed-anew", unsealed),
        ("torn-tail", torn),
        ("no-indexes", without(&[1, 2, 7, 8])),
        ("no-epochs", without(&[4])),
        ("no-manifest", without(&[3])),
        ("no-first-segment", without(&[0, 1, 2])),
        ("leftovers", leftovers),
        ("unlisted-segment", unlisted),
        ("nothing", without(&[0, 1, 2, 3, 4, 5, 6, 7, 8])),
    ]
}

/// A transactional id whose transaction is open in two partitions: its key, and its value as the first of its epoch,
/// and as one after others that kept it.
fn transaction_record() -> [Vec<u8>; 3] {
    use varve_txn::{Cause, Place, Record, State, codec};
    let place = |partition| Place {
        topic: TopicId(7),
        name: "orders".parse().unwrap(),
        partition: PartitionId(partition),
    };
    let record = Record {
        number: 0,
        producer: ProducerId { id: 9, epoch: 3 },
        previous: Some(ProducerId { id: 9, epoch: 2 }),
        timeout_ms: 60_000,
        state: State::Ongoing,
        cause: Cause::Producer,
        started_ms: Some(1_700_000_000_000),
        updated_ms: 1_700_000_000_500,
        partitions: [place(0), place(4)].into(),
    };
    let id = "pipeline-1".parse().unwrap();
    let value = codec::encode_value(&record);
    let numbered = codec::encode_value(&Record {
        number: 12,
        previous: None,
        ..record
    });
    [codec::encode_key(&id), value, numbered]
}

/// A member of the classic protocol in a group of the consumer protocol, what it said, and what it is told.
fn classic_member() -> [(&'static str, Vec<u8>); 3] {
    let orders: TopicName = "orders".parse().unwrap();
    let owned = vec![(orders.clone(), vec![0, 2])];
    let said = codec::encode_subscription(&codec::EmbeddedSubscription {
        version: codec::EMBEDDED_VERSION,
        topics: vec![orders.clone()],
        user_data: Some(vec![7]),
        owned: owned.clone(),
        generation: 5,
        rack: Some("r1".to_owned()),
    });
    let told = codec::encode_assignment(&codec::EmbeddedAssignment {
        version: codec::EMBEDDED_VERSION,
        partitions: owned.clone(),
        user_data: None,
    });
    let member = codec::encode_member(&codec::MemberRecord {
        epoch: 7,
        previous_epoch: 6,
        departed: false,
        instance: Some("one".to_owned()),
        rack: "r1".to_owned(),
        client_id: "app".to_owned(),
        peer: "10.0.0.9:4711".to_owned(),
        session_timeout_ms: 45_000,
        rebalance_timeout_ms: 60_000,
        assignor: String::new(),
        pattern: String::new(),
        topics: vec![orders],
        granted: owned,
        classic: Some(vec![("range".to_owned(), said.clone())]),
    });
    [
        ("subscription", said),
        ("assignment", told),
        ("classic-member", member),
    ]
}

fn offset_record() -> (Vec<u8>, Vec<u8>) {
    let group = GroupName::new("billing").unwrap();
    let topic = TopicName::new("orders").unwrap();
    let key = codec::encode_key(&group, &TopicPartition::new(topic, PartitionId(7)));
    let mut value = 3_i16.to_be_bytes().to_vec();
    value.extend_from_slice(&Offset::new(1_234).unwrap().get().to_be_bytes());
    value.extend_from_slice(&5_i32.to_be_bytes());
    value.extend_from_slice(&2_i16.to_be_bytes());
    value.extend_from_slice(b"ok");
    value.extend_from_slice(&1_700_000_000_000_i64.to_be_bytes());
    (key, value)
}

/// The life of a partition on two nodes as entries of the metadata log, each with its length before it; or
/// the entry that creates it alone.
fn two_nodes(all: bool) -> Vec<u8> {
    use varve_metadata::{Command, CreateTopic, Election, FeatureRange, command_codec};
    use varve_types::{BrokerEpoch, DirectoryId, LeaderEpoch, NodeId, TopicId};
    let (a, b, topic_id, partition) = (NodeId(0), NodeId(1), TopicId(7), PartitionId(0));
    let epoch = |e| BrokerEpoch::new(e).expect("not negative");
    let register = |node: NodeId| Command::RegisterNode {
        node,
        incarnation: 5,
        directory: DirectoryId(9),
        address: "a:1".to_owned(),
        peer_address: "a:2".to_owned(),
        rack: "r".to_owned(),
        features: FeatureRange::THIS_PROGRAM,
        version: "1".to_owned(),
        clean: Some(epoch(1)),
    };
    let create = Command::CreateTopic(CreateTopic {
        name: TopicName::new("t").expect("a good name"),
        id: topic_id,
        partitions: 2,
        replication_factor: 2,
        configs: [("min.insync.replicas".to_owned(), "2".to_owned())].into(),
        labels: [].into(),
        created_ms: 1,
        placement: [(0, vec![a, b]), (1, vec![b, a])].into(),
    });
    if !all {
        return command_codec::encode(&create);
    }
    let elect = |how| Command::ElectLeader {
        topic_id,
        partition,
        how,
    };
    let commands = [
        register(a),
        Command::UnfenceNode {
            node: a,
            epoch: epoch(1),
        },
        register(b),
        Command::UnfenceNode {
            node: b,
            epoch: epoch(3),
        },
        create,
        Command::FenceNode {
            node: a,
            epoch: epoch(1),
        },
        Command::UnfenceNode {
            node: a,
            epoch: epoch(1),
        },
        Command::AlterPartition {
            topic_id,
            partition,
            leader: b,
            leader_epoch: LeaderEpoch::new(1).expect("not negative"),
            partition_epoch: 1,
            isr: vec![(a, epoch(1)), (b, epoch(3))],
            broker_epoch: epoch(3),
        },
        elect(Election::Preferred),
        Command::Reassign {
            topic_id,
            partition,
            target: Some(vec![b]),
        },
        Command::ReplicaLost {
            node: b,
            epoch: epoch(3),
            topic_id,
            partition,
        },
        Command::GiveUpReplica {
            node: b,
            epoch: epoch(3),
            topic_id,
            partition,
        },
        elect(Election::Unclean(b)),
        Command::BeginShutdown {
            node: b,
            epoch: epoch(3),
        },
    ];
    let one = |command: &Command| {
        let bytes = command_codec::encode(command);
        [&(bytes.len() as u32).to_le_bytes()[..], &bytes].concat()
    };
    commands.iter().flat_map(one).collect()
}
