//! A state as bytes and back. See `FORMAT.md`.
//!
//! Invariants: decoding is total (an error, never a panic, never more memory than a multiple of the
//! input), what decodes satisfies [`State::check`], and decoding then encoding gives the same bytes, for the
//! version that is written. The version before it is read: what it did not say gets the value that its
//! program meant.
//! What damage does to the bytes is for the file to notice that they are kept in.

use varve_types::{BrokerEpoch, DirectoryId, LeaderEpoch, NodeId, ProducerId, TopicName};

use crate::codec::{CodecError, Reader, Writer};
use crate::features::{FIRST_LEVEL, FeatureRange, KNOWN_LEVEL};
use crate::index::Index;
use crate::state::{Node, NodeState, Partition, Rules, State, Topic};

/// First bytes of a snapshot.
pub const MAGIC: [u8; 4] = *b"VRVM";
/// Format version that is written.
pub const VERSION: u16 = 2;
/// Oldest format version that is read.
pub const OLDEST_VERSION: u16 = 1;

/// Why bytes are not a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// Other bytes.
    #[error("this is not a metadata snapshot: it does not begin with VRVM")]
    Magic,
    /// Written by a newer program.
    #[error(
        "the metadata snapshot has format version {found}, but this program reads {OLDEST_VERSION} \
         to {VERSION}; a newer program wrote it: start that one (nothing was changed)"
    )]
    Version {
        /// Version found.
        found: u16,
    },
    /// The cluster has agreed on what this program does not know.
    #[error(
        "the metadata snapshot is at feature level {found}, but this program supports levels up to \
         {KNOWN_LEVEL}; start a newer program (nothing was changed)"
    )]
    Level {
        /// Level found.
        found: u16,
    },
    /// The bytes end early, or a field holds what it cannot.
    #[error("the metadata snapshot is damaged: {0}")]
    Damaged(#[from] CodecError),
    /// The parts do not fit together.
    #[error("the metadata snapshot is damaged: {0}")]
    State(String),
}

/// The bytes of a state.
#[must_use]
pub fn encode(state: &State) -> Vec<u8> {
    let mut w = Writer(Vec::with_capacity(256 + state.partition_count() * 64));
    w.0.extend_from_slice(&MAGIC);
    w.u16(VERSION);
    w.u16(0);
    w.u64(state.version);
    w.u16(state.level);
    w.i64(state.next_producer_id);
    w.count(state.nodes.len());
    for (id, node) in &state.nodes {
        w.i32(id.0);
        put_node(&mut w, node);
    }
    w.count(state.topics.len());
    for (name, topic) in &state.topics {
        w.text(name.as_str());
        w.u128(topic.id.0);
        w.i32(topic.replication_factor);
        w.i64(topic.created_ms);
        w.texts(&topic.configs);
        w.texts(&topic.labels);
        w.count(topic.partitions.len());
        for partition in &topic.partitions {
            w.nodes(&partition.replicas);
            w.nodes(&partition.adding);
            w.nodes(&partition.removing);
            w.i32(partition.leader.map_or(-1, |n| n.0));
            w.i32(partition.leader_epoch.get());
            w.nodes(&partition.isr);
            w.nodes(&partition.elr);
            w.i32(partition.partition_epoch);
            w.i32(partition.unclean_epoch.map_or(-1, LeaderEpoch::get));
        }
    }
    w.count(state.producers.len());
    for (name, producer) in &state.producers {
        w.text(name);
        w.i64(producer.id);
        w.i16(producer.epoch);
    }
    w.0
}

/// A number that equal states have in common and others hardly ever do: the CRC-32 of [`encode`].
#[must_use]
pub fn checksum(state: &State) -> u32 {
    crc32fast::hash(&encode(state))
}

fn put_node(w: &mut Writer, node: &Node) {
    w.text(&node.address);
    w.text(&node.peer_address);
    w.text(&node.rack);
    w.u128(node.directory.0);
    w.u128(node.incarnation);
    w.i64(node.epoch.get());
    w.u8(match node.state {
        NodeState::Fenced => 0,
        NodeState::Active => 1,
        NodeState::Draining => 2,
    });
    w.flag(node.decommissioning);
    w.features(node.features);
    w.text(&node.version);
}

/// The state of those bytes.
///
/// # Errors
/// [`SnapshotError`] for anything that [`encode`] does not write, and did not in version 1.
pub fn decode(bytes: &[u8]) -> Result<State, SnapshotError> {
    let mut r = Reader { all: bytes, at: 0 };
    if r.array("magic") != Ok(MAGIC) {
        return Err(SnapshotError::Magic);
    }
    let found = r.u16("version")?;
    if !(OLDEST_VERSION..=VERSION).contains(&found) {
        return Err(SnapshotError::Version { found });
    }
    let reserved = r.u16("reserved")?;
    if reserved != 0 {
        Err(r.bad("reserved", format!("it is {reserved}, not 0")))?;
    }
    let version = r.u64("state version")?;
    let level = match found {
        1 => FIRST_LEVEL,
        _ => r.u16("feature level")?,
    };
    if level > KNOWN_LEVEL {
        return Err(SnapshotError::Level { found: level });
    }
    let mut state = State {
        version,
        level,
        next_producer_id: r.i64("next producer id")?,
        ..State::default()
    };
    if state.next_producer_id < 0 {
        Err(r.bad("next producer id", "it is negative".to_owned()))?;
    }
    state.nodes = r.map("node", 12, |r| {
        let id = r.i32("node id")?;
        if id < 0 {
            return Err(r.bad("node id", format!("it is {id}")));
        }
        let node = if found == 1 { node_1(r) } else { node(r) };
        Ok((NodeId(id), node?))
    })?;
    state.topics = r.map("topic", 44, |r| topic(r, found))?;
    state.producers = r.map("producer", 14, |r| {
        let name = r.text("producer name")?;
        let id = r.i64("producer id")?;
        let epoch = r.i16("producer epoch")?;
        Ok((name, ProducerId { id, epoch }))
    })?;
    r.end()?;
    state.index = Index::of(&state.topics);
    state.check_parts().map_err(SnapshotError::State)?;
    Ok(state)
}

/// A node of version 1 was alone, and alive.
fn node_1(r: &mut Reader<'_>) -> Result<Node, CodecError> {
    Ok(Node {
        address: r.text("node address")?,
        peer_address: String::new(),
        rack: r.text("node rack")?,
        directory: DirectoryId::UNKNOWN,
        incarnation: 0,
        epoch: BrokerEpoch::ZERO,
        state: NodeState::Active,
        decommissioning: false,
        features: FeatureRange {
            min: FIRST_LEVEL,
            max: FIRST_LEVEL,
        },
        version: String::new(),
    })
}

fn node(r: &mut Reader<'_>) -> Result<Node, CodecError> {
    Ok(Node {
        address: r.text("node address")?,
        peer_address: r.text("node peer address")?,
        rack: r.text("node rack")?,
        directory: r.directory()?,
        incarnation: r.u128("node incarnation")?,
        epoch: r.broker_epoch()?,
        state: match r.u8("node state")? {
            0 => NodeState::Fenced,
            1 => NodeState::Active,
            2 => NodeState::Draining,
            other => return Err(r.bad("node state", format!("it is {other}"))),
        },
        decommissioning: r.flag("node decommissioning")?,
        features: r.features("node features")?,
        version: r.text("node version")?,
    })
}

fn topic(r: &mut Reader<'_>, version: u16) -> Result<(TopicName, Topic), CodecError> {
    let name = r.topic_name("topic name")?;
    let id = r.topic_id()?;
    let replication_factor = r.i32("replication factor")?;
    let created_ms = r.i64("creation time")?;
    let configs = r.texts("topic config")?;
    let rules = Rules::of(&configs).map_err(|e| r.bad("topic config", e.to_string()))?;
    let labels = r.texts("topic label")?;
    let least = if version == 1 { 20 } else { 32 };
    let partitions = r.list("number of partitions", least, |r| partition(r, version))?;
    let topic = Topic {
        id,
        replication_factor,
        configs,
        labels,
        created_ms,
        partitions,
        rules,
    };
    Ok((name, topic))
}

fn partition(r: &mut Reader<'_>, version: u16) -> Result<Partition, CodecError> {
    let replicas = r.nodes("replicas")?;
    let (adding, removing) = match version {
        1 => (Vec::new(), Vec::new()),
        _ => (
            r.nodes("replicas being added")?,
            r.nodes("replicas being removed")?,
        ),
    };
    let leader = match r.i32("leader")? {
        -1 => None,
        id => Some(NodeId(id)),
    };
    let leader_epoch = r.leader_epoch()?;
    let mut isr = r.nodes("in-sync replicas")?;
    let elr = match version {
        // Without a leader nobody was in sync any more: they are eligible.
        1 if leader.is_none() => std::mem::take(&mut isr),
        1 => Vec::new(),
        _ => r.nodes("eligible replicas")?,
    };
    let partition_epoch = r.i32("partition epoch")?;
    let unclean_epoch = match version {
        1 => None,
        _ => r.unclean_epoch()?,
    };
    Ok(Partition {
        replicas,
        adding,
        removing,
        leader,
        leader_epoch,
        isr,
        elr,
        partition_epoch,
        unclean_epoch,
    })
}

#[cfg(test)]
pub(crate) mod tests_support {
    use super::*;

    /// An active node in that rack.
    pub(crate) fn node(rack: &str) -> Node {
        Node {
            address: "a:1".to_owned(),
            peer_address: String::new(),
            rack: rack.to_owned(),
            directory: DirectoryId(1),
            incarnation: 1,
            epoch: BrokerEpoch::ZERO,
            state: NodeState::Active,
            decommissioning: false,
            features: FeatureRange::THIS_PROGRAM,
            version: String::new(),
        }
    }
}
