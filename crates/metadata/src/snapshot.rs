//! A state as bytes and back. See `FORMAT.md`.
//!
//! Invariants: decoding is total (an error, never a panic, never more memory than a multiple of the
//! input), what decodes satisfies [`State::check`], and decoding then encoding gives the same bytes.
//! The checksum is that of the file the bytes are kept in; none is here.

use std::collections::BTreeMap;

use varve_types::{LeaderEpoch, NodeId, ProducerId, TopicId, TopicName};

use crate::state::{Node, Partition, State, Topic};

/// First bytes of a snapshot.
pub const MAGIC: [u8; 4] = *b"VRVM";
/// Format version that is written; also the only one that is read.
pub const VERSION: u16 = 1;

/// Why bytes are not a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// Other bytes.
    #[error("this is not a metadata snapshot: it does not begin with VRVM")]
    Magic,
    /// Written by a newer program.
    #[error(
        "the metadata snapshot has format version {found}, and this program reads {VERSION}; it was \
         written by a newer program: start that one (nothing was changed)"
    )]
    Version {
        /// Version found.
        found: u16,
    },
    /// The bytes end early.
    #[error("the metadata snapshot ends inside {field}, at byte {at}")]
    Short {
        /// Field that was being read.
        field: &'static str,
        /// Position.
        at: usize,
    },
    /// A field holds what it cannot.
    #[error("the metadata snapshot is damaged: {field} before byte {at} is not valid: {why}")]
    Field {
        /// Field.
        field: &'static str,
        /// Position behind it.
        at: usize,
        /// Why.
        why: String,
    },
    /// The parts do not fit together.
    #[error("the metadata snapshot is damaged: {0}")]
    State(String),
}

/// The bytes of a state.
#[must_use]
pub fn encode(state: &State) -> Vec<u8> {
    let mut w = Writer(Vec::with_capacity(256));
    w.0.extend_from_slice(&MAGIC);
    w.u16(VERSION);
    w.u16(0);
    w.u64(state.version);
    w.i64(state.next_producer_id);
    w.count(state.nodes.len());
    for (id, node) in &state.nodes {
        w.i32(id.0);
        w.text(&node.address);
        w.text(&node.rack);
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
            w.i32(partition.leader.map_or(-1, |n| n.0));
            w.i32(partition.leader_epoch.get());
            w.nodes(&partition.isr);
            w.i32(partition.partition_epoch);
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

/// The state of those bytes.
///
/// # Errors
/// [`SnapshotError`] for anything that [`encode`] does not write.
pub fn decode(bytes: &[u8]) -> Result<State, SnapshotError> {
    let mut r = Reader { all: bytes, at: 0 };
    if r.array("magic") != Ok(MAGIC) {
        return Err(SnapshotError::Magic);
    }
    let found = u16::from_le_bytes(r.array("version")?);
    if found != VERSION {
        return Err(SnapshotError::Version { found });
    }
    let reserved = u16::from_le_bytes(r.array("reserved")?);
    if reserved != 0 {
        return Err(r.bad("reserved", format!("it is {reserved}, not 0")));
    }
    let mut state = State {
        version: u64::from_le_bytes(r.array("state version")?),
        next_producer_id: r.i64("next producer id")?,
        ..State::default()
    };
    if state.next_producer_id < 0 {
        return Err(r.bad("next producer id", "it is negative".to_owned()));
    }
    state.nodes = r.map("node", |r| {
        let id = r.i32("node id")?;
        if id < 0 {
            return Err(r.bad("node id", format!("it is {id}")));
        }
        Ok((
            NodeId(id),
            Node {
                address: r.text("node address")?,
                rack: r.text("node rack")?,
            },
        ))
    })?;
    state.topics = r.map("topic", Reader::topic)?;
    state.producers = r.map("producer", |r| {
        let name = r.text("producer name")?;
        let id = r.i64("producer id")?;
        let epoch = i16::from_le_bytes(r.array("producer epoch")?);
        Ok((name, ProducerId { id, epoch }))
    })?;
    if r.at != bytes.len() {
        return Err(r.bad("end", format!("{} bytes are left over", bytes.len() - r.at)));
    }
    state.check().map_err(SnapshotError::State)?;
    Ok(state)
}

struct Writer(Vec<u8>);

impl Writer {
    fn u16(&mut self, v: u16) {
        self.0.extend_from_slice(&v.to_le_bytes());
    }

    fn i16(&mut self, v: i16) {
        self.0.extend_from_slice(&v.to_le_bytes());
    }

    fn i32(&mut self, v: i32) {
        self.0.extend_from_slice(&v.to_le_bytes());
    }

    fn i64(&mut self, v: i64) {
        self.0.extend_from_slice(&v.to_le_bytes());
    }

    fn u64(&mut self, v: u64) {
        self.0.extend_from_slice(&v.to_le_bytes());
    }

    fn u128(&mut self, v: u128) {
        self.0.extend_from_slice(&v.to_le_bytes());
    }

    /// Every collection and text of a state is bounded far below 2^32.
    fn count(&mut self, n: usize) {
        let Ok(n) = u32::try_from(n) else {
            unreachable!("collections of a state are bounded")
        };
        self.0.extend_from_slice(&n.to_le_bytes());
    }

    fn text(&mut self, text: &str) {
        self.count(text.len());
        self.0.extend_from_slice(text.as_bytes());
    }

    fn texts(&mut self, texts: &BTreeMap<String, String>) {
        self.count(texts.len());
        for (key, value) in texts {
            self.text(key);
            self.text(value);
        }
    }

    fn nodes(&mut self, nodes: &[NodeId]) {
        self.count(nodes.len());
        for node in nodes {
            self.i32(node.0);
        }
    }
}

struct Reader<'a> {
    all: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn bad(&self, field: &'static str, why: String) -> SnapshotError {
        SnapshotError::Field {
            field,
            at: self.at,
            why,
        }
    }

    fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], SnapshotError> {
        let Some((head, _)) = self.all[self.at..].split_first_chunk::<N>() else {
            return Err(SnapshotError::Short { field, at: self.at });
        };
        self.at += N;
        Ok(*head)
    }

    fn i32(&mut self, field: &'static str) -> Result<i32, SnapshotError> {
        self.array(field).map(i32::from_le_bytes)
    }

    fn i64(&mut self, field: &'static str) -> Result<i64, SnapshotError> {
        self.array(field).map(i64::from_le_bytes)
    }

    fn count(&mut self, field: &'static str) -> Result<u32, SnapshotError> {
        self.array(field).map(u32::from_le_bytes)
    }

    fn text(&mut self, field: &'static str) -> Result<String, SnapshotError> {
        let len = self.count(field)? as usize;
        let Some((text, _)) = self.all[self.at..].split_at_checked(len) else {
            return Err(SnapshotError::Short { field, at: self.at });
        };
        self.at += len;
        match std::str::from_utf8(text) {
            Ok(text) => Ok(text.to_owned()),
            Err(error) => Err(self.bad(field, error.to_string())),
        }
    }

    /// Entries in ascending order of key: any other order is damage, and makes the bytes ambiguous.
    fn map<K: Ord, V>(
        &mut self,
        field: &'static str,
        mut entry: impl FnMut(&mut Self) -> Result<(K, V), SnapshotError>,
    ) -> Result<BTreeMap<K, V>, SnapshotError> {
        let mut map = BTreeMap::new();
        for _ in 0..self.count(field)? {
            let (key, value) = entry(self)?;
            if map.last_key_value().is_some_and(|(last, _)| *last >= key) {
                return Err(self.bad(field, "it is out of order or there twice".to_owned()));
            }
            map.insert(key, value);
        }
        Ok(map)
    }

    fn nodes(&mut self, field: &'static str) -> Result<Vec<NodeId>, SnapshotError> {
        let mut nodes = Vec::new();
        for _ in 0..self.count(field)? {
            nodes.push(NodeId(self.i32(field)?));
        }
        Ok(nodes)
    }

    fn texts(&mut self, field: &'static str) -> Result<BTreeMap<String, String>, SnapshotError> {
        self.map(field, |r| Ok((r.text(field)?, r.text(field)?)))
    }

    fn topic(&mut self) -> Result<(TopicName, Topic), SnapshotError> {
        let name = self.text("topic name")?;
        let name = TopicName::new(&name).map_err(|e| self.bad("topic name", e.to_string()))?;
        let mut topic = Topic {
            id: TopicId(u128::from_le_bytes(self.array("topic id")?)),
            replication_factor: self.i32("replication factor")?,
            created_ms: self.i64("creation time")?,
            configs: self.texts("topic config")?,
            labels: self.texts("topic label")?,
            partitions: Vec::new(),
        };
        for _ in 0..self.count("number of partitions")? {
            topic.partitions.push(self.partition()?);
        }
        Ok((name, topic))
    }

    fn partition(&mut self) -> Result<Partition, SnapshotError> {
        let replicas = self.nodes("replicas")?;
        let leader = match self.i32("leader")? {
            -1 => None,
            id => Some(NodeId(id)),
        };
        let epoch = self.i32("leader epoch")?;
        let Some(leader_epoch) = LeaderEpoch::new(epoch) else {
            return Err(self.bad("leader epoch", format!("it is {epoch}")));
        };
        let isr = self.nodes("in-sync replicas")?;
        let partition_epoch = self.i32("partition epoch")?;
        Ok(Partition {
            replicas,
            leader,
            leader_epoch,
            isr,
            partition_epoch,
        })
    }
}
