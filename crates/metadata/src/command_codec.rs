//! A command as bytes and back: an entry of the metadata log. See `FORMAT.md`.
//!
//! Invariants: decoding is total, decoding then encoding gives the same bytes, and what this program does
//! not know is an error that stops the node: a command that others apply is never skipped.

use varve_types::{NodeId, PartitionId};

use crate::codec::{CodecError, Reader, Writer};
use crate::command::{Command, CreateTopic, Election};

/// Format version that is written; also the only one that is read.
pub const VERSION: u8 = 1;

/// Why bytes are not a command that this program can apply. The node must stop.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// Written by a newer program.
    #[error(
        "an entry of the metadata log has format version {version} and kind {kind}, which this \
         program does not know; a newer program wrote it: start that one on this node (nothing was \
         changed)"
    )]
    Unknown {
        /// Version found.
        version: u8,
        /// Kind found.
        kind: u8,
    },
    /// The bytes end early, or a field holds what it cannot.
    #[error("an entry of the metadata log is damaged: {0}")]
    Damaged(#[from] CodecError),
}

const REGISTER_NODE: u8 = 1;
const FENCE_NODE: u8 = 2;
const UNFENCE_NODE: u8 = 3;
const BEGIN_SHUTDOWN: u8 = 4;
const UNREGISTER_NODE: u8 = 5;
const SET_DECOMMISSIONING: u8 = 6;
const CREATE_TOPIC: u8 = 7;
const DELETE_TOPIC: u8 = 8;
const ADD_PARTITIONS: u8 = 9;
const SET_TOPIC_CONFIGS: u8 = 10;
const ALTER_PARTITION: u8 = 11;
const ELECT_LEADER: u8 = 12;
const REASSIGN: u8 = 13;
const REPLICA_LOST: u8 = 14;
const FINALIZE_FEATURE: u8 = 15;
const ALLOCATE_PRODUCER_IDS: u8 = 16;
const BUMP_PRODUCER_EPOCH: u8 = 17;
const GIVE_UP_REPLICA: u8 = 18;
const CHECK_STATE: u8 = 19;

/// The bytes of a command.
#[must_use]
pub fn encode(command: &Command) -> Vec<u8> {
    let mut w = Writer(Vec::with_capacity(64));
    w.u8(VERSION);
    put(&mut w, command);
    w.0
}

fn put(w: &mut Writer, command: &Command) {
    match command {
        Command::RegisterNode {
            node,
            incarnation,
            directory,
            address,
            peer_address,
            rack,
            features,
            version,
            clean,
        } => {
            w.u8(REGISTER_NODE);
            w.i32(node.0);
            w.u128(*incarnation);
            w.u128(directory.0);
            w.text(address);
            w.text(peer_address);
            w.text(rack);
            w.features(*features);
            w.text(version);
            w.flag(clean.is_some());
            if let Some(epoch) = clean {
                w.i64(epoch.get());
            }
        }
        Command::FenceNode { node, epoch } => {
            w.u8(FENCE_NODE);
            w.i32(node.0);
            w.i64(epoch.get());
        }
        Command::UnfenceNode { node, epoch } => {
            w.u8(UNFENCE_NODE);
            w.i32(node.0);
            w.i64(epoch.get());
        }
        Command::BeginShutdown { node, epoch } => {
            w.u8(BEGIN_SHUTDOWN);
            w.i32(node.0);
            w.i64(epoch.get());
        }
        Command::UnregisterNode { node } => {
            w.u8(UNREGISTER_NODE);
            w.i32(node.0);
        }
        Command::SetDecommissioning { node, on } => {
            w.u8(SET_DECOMMISSIONING);
            w.i32(node.0);
            w.flag(*on);
        }
        Command::CreateTopic(topic) => {
            w.u8(CREATE_TOPIC);
            w.text(topic.name.as_str());
            w.u128(topic.id.0);
            w.i32(topic.partitions);
            w.i32(topic.replication_factor);
            w.texts(&topic.configs);
            w.texts(&topic.labels);
            w.i64(topic.created_ms);
            put_placement(w, &topic.placement);
        }
        Command::DeleteTopic { name, id } => {
            w.u8(DELETE_TOPIC);
            w.text(name.as_str());
            w.flag(id.is_some());
            if let Some(id) = id {
                w.u128(id.0);
            }
        }
        Command::AddPartitions {
            name,
            total,
            placement,
        } => {
            w.u8(ADD_PARTITIONS);
            w.text(name.as_str());
            w.i32(*total);
            put_placement(w, placement);
        }
        Command::SetTopicConfigs { name, configs } => {
            w.u8(SET_TOPIC_CONFIGS);
            w.text(name.as_str());
            w.texts(configs);
        }
        command => put_of_partition(w, command),
    }
}

fn put_of_partition(w: &mut Writer, command: &Command) {
    match command {
        Command::AlterPartition {
            topic_id,
            partition,
            leader,
            leader_epoch,
            partition_epoch,
            isr,
            broker_epoch,
        } => {
            w.u8(ALTER_PARTITION);
            w.u128(topic_id.0);
            w.i32(partition.0);
            w.i32(leader.0);
            w.i32(leader_epoch.get());
            w.i32(*partition_epoch);
            w.i64(broker_epoch.get());
            w.count(isr.len());
            for (node, epoch) in isr {
                w.i32(node.0);
                w.i64(epoch.get());
            }
        }
        Command::ElectLeader {
            topic_id,
            partition,
            how,
        } => {
            w.u8(ELECT_LEADER);
            w.u128(topic_id.0);
            w.i32(partition.0);
            let (how, node) = match how {
                Election::Preferred => (0, None),
                Election::Clean(None) => (1, None),
                Election::Clean(Some(node)) => (2, Some(node)),
                Election::Unclean(node) => (3, Some(node)),
            };
            w.u8(how);
            if let Some(node) = node {
                w.i32(node.0);
            }
        }
        Command::Reassign {
            topic_id,
            partition,
            target,
        } => {
            w.u8(REASSIGN);
            w.u128(topic_id.0);
            w.i32(partition.0);
            w.flag(target.is_some());
            if let Some(target) = target {
                w.nodes(target);
            }
        }
        Command::ReplicaLost {
            node,
            epoch,
            topic_id,
            partition,
        } => {
            w.u8(REPLICA_LOST);
            w.i32(node.0);
            w.i64(epoch.get());
            w.u128(topic_id.0);
            w.i32(partition.0);
        }
        Command::GiveUpReplica {
            node,
            epoch,
            topic_id,
            partition,
        } => {
            w.u8(GIVE_UP_REPLICA);
            w.i32(node.0);
            w.i64(epoch.get());
            w.u128(topic_id.0);
            w.i32(partition.0);
        }
        Command::FinalizeFeature { level } => {
            w.u8(FINALIZE_FEATURE);
            w.u16(*level);
        }
        Command::AllocateProducerIds { count } => {
            w.u8(ALLOCATE_PRODUCER_IDS);
            w.u32(*count);
        }
        Command::BumpProducerEpoch { name } => {
            w.u8(BUMP_PRODUCER_EPOCH);
            w.text(name);
        }
        Command::CheckState { version, checksum } => {
            w.u8(CHECK_STATE);
            w.u64(*version);
            w.u32(*checksum);
        }
        other => unreachable!("written above: {other:?}"),
    }
}

fn put_placement(w: &mut Writer, placement: &std::collections::BTreeMap<i32, Vec<NodeId>>) {
    w.count(placement.len());
    for (number, nodes) in placement {
        w.i32(*number);
        w.nodes(nodes);
    }
}

/// The command of those bytes.
///
/// # Errors
/// [`CommandError`] for anything that [`encode`] does not write.
pub fn decode(bytes: &[u8]) -> Result<Command, CommandError> {
    let mut r = Reader { all: bytes, at: 0 };
    let version = r.u8("format version")?;
    let kind = r.u8("kind")?;
    if version != VERSION {
        return Err(CommandError::Unknown { version, kind });
    }
    let command = match kind {
        REGISTER_NODE..=SET_DECOMMISSIONING => of_node(&mut r, kind)?,
        CREATE_TOPIC..=SET_TOPIC_CONFIGS => of_topic(&mut r, kind)?,
        ALTER_PARTITION..=CHECK_STATE => of_partition(&mut r, kind)?,
        _ => return Err(CommandError::Unknown { version, kind }),
    };
    r.end()?;
    Ok(command)
}

fn of_node(r: &mut Reader<'_>, kind: u8) -> Result<Command, CodecError> {
    let node = NodeId(r.i32("node")?);
    Ok(match kind {
        REGISTER_NODE => Command::RegisterNode {
            node,
            incarnation: r.u128("incarnation")?,
            directory: r.directory()?,
            address: r.text("address")?,
            peer_address: r.text("peer address")?,
            rack: r.text("rack")?,
            features: r.features("features")?,
            version: r.text("version")?,
            clean: match r.flag("clean")? {
                true => Some(r.broker_epoch()?),
                false => None,
            },
        },
        FENCE_NODE => Command::FenceNode {
            node,
            epoch: r.broker_epoch()?,
        },
        UNFENCE_NODE => Command::UnfenceNode {
            node,
            epoch: r.broker_epoch()?,
        },
        BEGIN_SHUTDOWN => Command::BeginShutdown {
            node,
            epoch: r.broker_epoch()?,
        },
        UNREGISTER_NODE => Command::UnregisterNode { node },
        _ => Command::SetDecommissioning {
            node,
            on: r.flag("decommissioning")?,
        },
    })
}

fn of_topic(r: &mut Reader<'_>, kind: u8) -> Result<Command, CodecError> {
    let name = r.topic_name("topic name")?;
    let placement = |r: &mut Reader<'_>| {
        r.map("placement", 8, |r| {
            Ok((r.i32("partition")?, r.nodes("replicas")?))
        })
    };
    Ok(match kind {
        CREATE_TOPIC => Command::CreateTopic(CreateTopic {
            name,
            id: r.topic_id()?,
            partitions: r.i32("number of partitions")?,
            replication_factor: r.i32("replication factor")?,
            configs: r.texts("topic config")?,
            labels: r.texts("topic label")?,
            created_ms: r.i64("creation time")?,
            placement: placement(r)?,
        }),
        DELETE_TOPIC => Command::DeleteTopic {
            name,
            id: match r.flag("id")? {
                true => Some(r.topic_id()?),
                false => None,
            },
        },
        ADD_PARTITIONS => Command::AddPartitions {
            name,
            total: r.i32("total")?,
            placement: placement(r)?,
        },
        _ => Command::SetTopicConfigs {
            name,
            configs: r.texts("topic config")?,
        },
    })
}

fn of_partition(r: &mut Reader<'_>, kind: u8) -> Result<Command, CodecError> {
    let at = |r: &mut Reader<'_>| Ok((r.topic_id()?, PartitionId(r.i32("partition")?)));
    Ok(match kind {
        ALTER_PARTITION => {
            let (topic_id, partition) = at(r)?;
            Command::AlterPartition {
                topic_id,
                partition,
                leader: NodeId(r.i32("leader")?),
                leader_epoch: r.leader_epoch()?,
                partition_epoch: r.i32("partition epoch")?,
                broker_epoch: r.broker_epoch()?,
                isr: r.list("in-sync replicas", 12, |r| {
                    Ok((NodeId(r.i32("in-sync replica")?), r.broker_epoch()?))
                })?,
            }
        }
        ELECT_LEADER => {
            let (topic_id, partition) = at(r)?;
            Command::ElectLeader {
                topic_id,
                partition,
                how: match r.u8("election")? {
                    0 => Election::Preferred,
                    1 => Election::Clean(None),
                    2 => Election::Clean(Some(NodeId(r.i32("node")?))),
                    3 => Election::Unclean(NodeId(r.i32("node")?)),
                    other => return Err(r.bad("election", format!("it is {other}"))),
                },
            }
        }
        REASSIGN => {
            let (topic_id, partition) = at(r)?;
            Command::Reassign {
                topic_id,
                partition,
                target: match r.flag("target")? {
                    true => Some(r.nodes("target")?),
                    false => None,
                },
            }
        }
        REPLICA_LOST => {
            let (node, epoch) = (NodeId(r.i32("node")?), r.broker_epoch()?);
            let (topic_id, partition) = at(r)?;
            Command::ReplicaLost {
                node,
                epoch,
                topic_id,
                partition,
            }
        }
        GIVE_UP_REPLICA => {
            let (node, epoch) = (NodeId(r.i32("node")?), r.broker_epoch()?);
            let (topic_id, partition) = at(r)?;
            Command::GiveUpReplica {
                node,
                epoch,
                topic_id,
                partition,
            }
        }
        FINALIZE_FEATURE => Command::FinalizeFeature {
            level: r.u16("level")?,
        },
        ALLOCATE_PRODUCER_IDS => Command::AllocateProducerIds {
            count: r.u32("count")?,
        },
        CHECK_STATE => Command::CheckState {
            version: r.u64("version")?,
            checksum: r.u32("checksum")?,
        },
        _ => Command::BumpProducerEpoch {
            name: r.text("producer name")?,
        },
    })
}
