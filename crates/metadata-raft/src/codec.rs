//! The common language of entries, files and messages: little-endian numbers, counted bytes and lists, and
//! the raft words in it.
//!
//! Invariants: reading is total (an error, never a panic); a count is compared with the bytes that are left
//! before anything is made room for; a value has one encoding; a checksum covers everything before it.

use std::collections::{BTreeMap, BTreeSet};

use varve_types::{DirectoryId, NodeId};

use crate::types::{LogId, Member, Membership, RaftId, StoredMembership, Vote, log_id, vote};

/// Why bytes cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field} before byte {at} is not valid: {why}")]
pub struct CodecError {
    /// Field.
    pub field: &'static str,
    /// Position behind it.
    pub at: usize,
    /// Why.
    pub why: String,
}

#[derive(Default)]
pub(crate) struct Writer(pub(crate) Vec<u8>);

macro_rules! numbers {
    ($($name:ident)*) => {
        impl Writer {
            $(pub(crate) fn $name(&mut self, v: $name) {
                self.0.extend_from_slice(&v.to_le_bytes());
            })*
        }

        impl Reader<'_> {
            $(pub(crate) fn $name(&mut self, field: &'static str) -> Result<$name, CodecError> {
                self.array(field).map($name::from_le_bytes)
            })*
        }
    };
}

numbers! { u8 u16 u32 u64 u128 i32 }

impl Writer {
    pub(crate) fn count(&mut self, n: usize) {
        // Everything here is bounded by the size of a message or a file, far below 2^32.
        let n = u32::try_from(n).unwrap_or(u32::MAX);
        self.u32(n);
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.count(bytes.len());
        self.0.extend_from_slice(bytes);
    }

    pub(crate) fn flag(&mut self, flag: bool) {
        self.u8(u8::from(flag));
    }

    pub(crate) fn log_id(&mut self, id: &LogId) {
        self.u64(id.leader_id.term);
        self.u64(id.index);
    }

    pub(crate) fn option<T>(&mut self, value: Option<&T>, put: impl FnOnce(&mut Self, &T)) {
        self.flag(value.is_some());
        if let Some(value) = value {
            put(self, value);
        }
    }

    pub(crate) fn vote(&mut self, vote: &Vote) {
        self.u64(vote.leader_id.term);
        self.u64(vote.leader_id.voted_for);
        self.flag(vote.committed);
    }

    pub(crate) fn member(&mut self, member: &Member) {
        self.i32(member.node.0);
        self.u128(member.directory.0);
        self.bytes(member.address.as_bytes());
        self.bytes(member.rack.as_bytes());
    }

    pub(crate) fn membership(&mut self, membership: &Membership) {
        let configs = membership.get_joint_config();
        self.count(configs.len());
        for config in configs {
            self.count(config.len());
            for id in config {
                self.u64(*id);
            }
        }
        let nodes: Vec<_> = membership.nodes().collect();
        self.count(nodes.len());
        for (id, member) in nodes {
            self.u64(*id);
            self.member(member);
        }
    }

    pub(crate) fn stored_membership(&mut self, stored: &StoredMembership) {
        self.option(stored.log_id().as_ref(), Self::log_id);
        self.membership(stored.membership());
    }

    /// Ends with the checksum of all bytes before.
    pub(crate) fn sealed(mut self) -> Vec<u8> {
        let crc = crc32fast::hash(&self.0);
        self.u32(crc);
        self.0
    }
}

/// The bytes before the checksum at the end, if it is theirs.
pub(crate) fn unsealed(bytes: &[u8]) -> Result<&[u8], CodecError> {
    let at = bytes.len();
    let bad = |why: String| CodecError {
        field: "checksum",
        at,
        why,
    };
    let Some((body, crc)) = bytes.split_last_chunk::<4>() else {
        return Err(bad("there are not enough bytes for it".to_owned()));
    };
    let (stated, found) = (u32::from_le_bytes(*crc), crc32fast::hash(body));
    if stated != found {
        return Err(bad(format!(
            "it is {stated:08x}, but the checksum of the bytes is {found:08x}"
        )));
    }
    Ok(body)
}

pub(crate) struct Reader<'a> {
    all: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub(crate) const fn new(all: &'a [u8]) -> Self {
        Self { all, at: 0 }
    }

    pub(crate) fn bad(&self, field: &'static str, why: impl Into<String>) -> CodecError {
        CodecError {
            field,
            at: self.at,
            why: why.into(),
        }
    }

    pub(crate) fn array<const N: usize>(
        &mut self,
        field: &'static str,
    ) -> Result<[u8; N], CodecError> {
        let Some((head, _)) = self.all[self.at..].split_first_chunk::<N>() else {
            return Err(self.bad(field, "the bytes end inside it"));
        };
        self.at += N;
        Ok(*head)
    }

    /// A count of entries, each of at least `least` bytes.
    pub(crate) fn count(&mut self, field: &'static str, least: usize) -> Result<usize, CodecError> {
        let count = self.u32(field)? as usize;
        if count > (self.all.len() - self.at) / least.max(1) {
            return Err(self.bad(field, "the bytes end inside it"));
        }
        Ok(count)
    }

    pub(crate) fn bytes(&mut self, field: &'static str) -> Result<&'a [u8], CodecError> {
        let len = self.count(field, 1)?;
        let bytes = &self.all[self.at..self.at + len];
        self.at += len;
        Ok(bytes)
    }

    pub(crate) fn rest(&mut self) -> &'a [u8] {
        let rest = &self.all[self.at..];
        self.at = self.all.len();
        rest
    }

    pub(crate) fn text(&mut self, field: &'static str, max: usize) -> Result<String, CodecError> {
        let bytes = self.bytes(field)?;
        if bytes.len() > max {
            return Err(self.bad(
                field,
                format!("it has {} bytes; the limit is {max}", bytes.len()),
            ));
        }
        match std::str::from_utf8(bytes) {
            Ok(text) => Ok(text.to_owned()),
            Err(error) => Err(self.bad(field, error.to_string())),
        }
    }

    pub(crate) fn flag(&mut self, field: &'static str) -> Result<bool, CodecError> {
        match self.u8(field)? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(self.bad(field, format!("it is {other}, not 0 or 1"))),
        }
    }

    pub(crate) fn option<T>(
        &mut self,
        field: &'static str,
        read: impl FnOnce(&mut Self) -> Result<T, CodecError>,
    ) -> Result<Option<T>, CodecError> {
        match self.flag(field)? {
            true => read(self).map(Some),
            false => Ok(None),
        }
    }

    pub(crate) fn log_id(&mut self) -> Result<LogId, CodecError> {
        Ok(log_id(self.u64("term")?, self.u64("index")?))
    }

    pub(crate) fn vote(&mut self) -> Result<Vote, CodecError> {
        Ok(vote(
            self.u64("term of a vote")?,
            self.u64("candidate of a vote")?,
            self.flag("whether a vote is granted")?,
        ))
    }

    pub(crate) fn member(&mut self) -> Result<Member, CodecError> {
        Ok(Member {
            node: NodeId(self.i32("node of a member")?),
            directory: DirectoryId(self.u128("directory of a member")?),
            address: self.text("address of a member", ADDRESS_MAX_BYTES)?,
            rack: self.text("rack of a member", ADDRESS_MAX_BYTES)?,
        })
    }

    pub(crate) fn membership(&mut self) -> Result<Membership, CodecError> {
        let mut configs = Vec::new();
        for _ in 0..self.count("configurations", 4)? {
            let mut config = BTreeSet::new();
            for _ in 0..self.count("voters", 8)? {
                let id = self.u64("voter")?;
                self.ascending("voters", config.last(), id)?;
                config.insert(id);
            }
            configs.push(config);
        }
        let mut nodes = BTreeMap::new();
        for _ in 0..self.count("members", MEMBER_LEAST_BYTES)? {
            let id: RaftId = self.u64("member")?;
            self.ascending("members", nodes.last_key_value().map(|(k, _)| k), id)?;
            nodes.insert(id, self.member()?);
        }
        Membership::new(configs, nodes).map_err(|e| self.bad("membership", e.to_string()))
    }

    fn ascending(
        &self,
        field: &'static str,
        last: Option<&RaftId>,
        id: RaftId,
    ) -> Result<(), CodecError> {
        match last {
            Some(last) if *last >= id => Err(self.bad(field, "they are out of order")),
            _ => Ok(()),
        }
    }

    pub(crate) fn stored_membership(&mut self) -> Result<StoredMembership, CodecError> {
        let id = self.option("entry of the membership", Self::log_id)?;
        Ok(StoredMembership::new(id, self.membership()?))
    }

    pub(crate) fn end(&self) -> Result<(), CodecError> {
        match self.all.len() - self.at {
            0 => Ok(()),
            left => Err(self.bad("end", format!("{left} bytes are left over"))),
        }
    }
}

/// Longest address and rack.
pub(crate) const ADDRESS_MAX_BYTES: usize = 512;
const MEMBER_LEAST_BYTES: usize = 8 + 4 + 16 + 4 + 4;
