//! The common language of snapshots and commands: little-endian numbers, counted texts and lists.
//!
//! Invariants: reading is total (an error, never a panic); a count is compared with the bytes that are
//! left before anything is made room for; a value has one encoding.

use std::collections::BTreeMap;

use varve_types::{BrokerEpoch, DirectoryId, LeaderEpoch, NodeId, TopicId, TopicName};

use crate::features::FeatureRange;

/// Why bytes cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// The bytes end early.
    #[error("it ends inside {field}, at byte {at}")]
    Short {
        /// Field that was being read.
        field: &'static str,
        /// Position.
        at: usize,
    },
    /// A field holds what it cannot.
    #[error("{field} before byte {at} is not valid: {why}")]
    Field {
        /// Field.
        field: &'static str,
        /// Position behind it.
        at: usize,
        /// Why.
        why: String,
    },
}

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

numbers! { u8 u16 u32 u64 u128 i16 i32 i64 }

impl Writer {
    /// Every collection and text of a state is bounded far below 2^32.
    pub(crate) fn count(&mut self, n: usize) {
        let Ok(n) = u32::try_from(n) else {
            unreachable!("collections of a state are bounded")
        };
        self.u32(n);
    }

    pub(crate) fn text(&mut self, text: &str) {
        self.count(text.len());
        self.0.extend_from_slice(text.as_bytes());
    }

    pub(crate) fn texts(&mut self, texts: &BTreeMap<String, String>) {
        self.count(texts.len());
        for (key, value) in texts {
            self.text(key);
            self.text(value);
        }
    }

    pub(crate) fn nodes(&mut self, nodes: &[NodeId]) {
        self.count(nodes.len());
        for node in nodes {
            self.i32(node.0);
        }
    }

    pub(crate) fn flag(&mut self, flag: bool) {
        self.u8(u8::from(flag));
    }

    pub(crate) fn features(&mut self, features: FeatureRange) {
        self.u16(features.min);
        self.u16(features.max);
    }
}

pub(crate) struct Reader<'a> {
    pub(crate) all: &'a [u8],
    pub(crate) at: usize,
}

impl Reader<'_> {
    pub(crate) fn bad(&self, field: &'static str, why: String) -> CodecError {
        let at = self.at;
        CodecError::Field { field, at, why }
    }

    pub(crate) fn array<const N: usize>(
        &mut self,
        field: &'static str,
    ) -> Result<[u8; N], CodecError> {
        let Some((head, _)) = self.all[self.at..].split_first_chunk::<N>() else {
            return Err(CodecError::Short { field, at: self.at });
        };
        self.at += N;
        Ok(*head)
    }

    /// A count of entries, each of at least `least` bytes.
    pub(crate) fn count(&mut self, field: &'static str, least: usize) -> Result<usize, CodecError> {
        let count = self.u32(field)? as usize;
        if count > (self.all.len() - self.at) / least.max(1) {
            return Err(CodecError::Short { field, at: self.at });
        }
        Ok(count)
    }

    pub(crate) fn text(&mut self, field: &'static str) -> Result<String, CodecError> {
        let len = self.count(field, 1)?;
        let text = &self.all[self.at..self.at + len];
        self.at += len;
        match std::str::from_utf8(text) {
            Ok(text) => Ok(text.to_owned()),
            Err(error) => Err(self.bad(field, error.to_string())),
        }
    }

    /// Entries in ascending order of key: any other order is damage, and makes the bytes ambiguous.
    pub(crate) fn map<K: Ord, V>(
        &mut self,
        field: &'static str,
        least: usize,
        mut entry: impl FnMut(&mut Self) -> Result<(K, V), CodecError>,
    ) -> Result<BTreeMap<K, V>, CodecError> {
        let mut map = BTreeMap::new();
        for _ in 0..self.count(field, least)? {
            let (key, value) = entry(self)?;
            if map.last_key_value().is_some_and(|(last, _)| *last >= key) {
                return Err(self.bad(field, "it is out of order or a duplicate".to_owned()));
            }
            map.insert(key, value);
        }
        Ok(map)
    }

    pub(crate) fn list<T>(
        &mut self,
        field: &'static str,
        least: usize,
        mut entry: impl FnMut(&mut Self) -> Result<T, CodecError>,
    ) -> Result<Vec<T>, CodecError> {
        let count = self.count(field, least)?;
        let mut list = Vec::with_capacity(count);
        for _ in 0..count {
            list.push(entry(self)?);
        }
        Ok(list)
    }

    pub(crate) fn nodes(&mut self, field: &'static str) -> Result<Vec<NodeId>, CodecError> {
        self.list(field, 4, |r| r.i32(field).map(NodeId))
    }

    pub(crate) fn texts(
        &mut self,
        field: &'static str,
    ) -> Result<BTreeMap<String, String>, CodecError> {
        self.map(field, 8, |r| Ok((r.text(field)?, r.text(field)?)))
    }

    pub(crate) fn flag(&mut self, field: &'static str) -> Result<bool, CodecError> {
        match self.u8(field)? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(self.bad(field, format!("it is {other}, not 0 or 1"))),
        }
    }

    pub(crate) fn features(&mut self, field: &'static str) -> Result<FeatureRange, CodecError> {
        let (min, max) = (self.u16(field)?, self.u16(field)?);
        Ok(FeatureRange { min, max })
    }

    pub(crate) fn topic_name(&mut self, field: &'static str) -> Result<TopicName, CodecError> {
        let name = self.text(field)?;
        TopicName::new(&name).map_err(|e| self.bad(field, e.to_string()))
    }

    pub(crate) fn topic_id(&mut self) -> Result<TopicId, CodecError> {
        self.u128("topic id").map(TopicId)
    }

    pub(crate) fn directory(&mut self) -> Result<DirectoryId, CodecError> {
        self.u128("directory id").map(DirectoryId)
    }

    pub(crate) fn leader_epoch(&mut self) -> Result<LeaderEpoch, CodecError> {
        let epoch = self.i32("leader epoch")?;
        LeaderEpoch::new(epoch).ok_or_else(|| self.bad("leader epoch", format!("it is {epoch}")))
    }

    /// A leader epoch, or -1 for none.
    pub(crate) fn unclean_epoch(&mut self) -> Result<Option<LeaderEpoch>, CodecError> {
        match self.i32("unclean epoch")? {
            -1 => Ok(None),
            epoch => LeaderEpoch::new(epoch)
                .map(Some)
                .ok_or_else(|| self.bad("unclean epoch", format!("it is {epoch}"))),
        }
    }

    pub(crate) fn broker_epoch(&mut self) -> Result<BrokerEpoch, CodecError> {
        let epoch = self.i64("broker epoch")?;
        BrokerEpoch::new(epoch).ok_or_else(|| self.bad("broker epoch", format!("it is {epoch}")))
    }

    /// Nothing is left over.
    pub(crate) fn end(&self) -> Result<(), CodecError> {
        match self.all.len() - self.at {
            0 => Ok(()),
            left => Err(self.bad("end", format!("{left} bytes are left over"))),
        }
    }
}
