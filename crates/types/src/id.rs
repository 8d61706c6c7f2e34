//! Names and ids. A name is checked when it is made, so holding one means it is legal; ids are opaque.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use crate::limits;

/// Why a name is not legal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Empty.
    #[error("a {what} name must not be empty")]
    Empty {
        /// Kind of name.
        what: &'static str,
    },
    /// Longer than the limit.
    #[error("a {what} name has at most {max} characters; this one has {found}", max = limits::NAME_MAX_BYTES)]
    TooLong {
        /// Kind of name.
        what: &'static str,
        /// Its length in bytes.
        found: usize,
    },
    /// `.` or `..`.
    #[error("a {what} name must not be \".\" or \"..\"")]
    Dots {
        /// Kind of name.
        what: &'static str,
    },
    /// A character outside `[A-Za-z0-9._-]`.
    #[error(
        "a {what} name may contain only letters, digits, '.', '_' and '-'; found {found:?} at byte \
         {at}"
    )]
    BadCharacter {
        /// Kind of name.
        what: &'static str,
        /// The character.
        found: char,
        /// Its position in bytes.
        at: usize,
    },
}

fn check_name(what: &'static str, name: &str) -> Result<(), NameError> {
    if name.is_empty() {
        return Err(NameError::Empty { what });
    }
    if name == "." || name == ".." {
        return Err(NameError::Dots { what });
    }
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if let Some((at, found)) = name.char_indices().find(|(_, c)| !legal(*c)) {
        return Err(NameError::BadCharacter { what, found, at });
    }
    if name.len() > limits::NAME_MAX_BYTES {
        return Err(NameError::TooLong {
            what,
            found: name.len(),
        });
    }
    Ok(())
}

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks the name rule: `[A-Za-z0-9._-]{1,249}`, not `.` or `..`.
            ///
            /// # Errors
            /// [`NameError`] says which part of the rule is broken.
            pub fn new(name: &str) -> Result<Self, NameError> {
                check_name($what, name).map(|()| Self(name.into()))
            }

            /// The name.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl std::str::FromStr for $name {
            type Err = NameError;

            fn from_str(s: &str) -> Result<Self, NameError> {
                Self::new(s)
            }
        }
    };
}

name_type!(
    /// Name of a topic.
    TopicName, "topic"
);
name_type!(
    /// Name of a consumer group.
    GroupName, "group"
);
name_type!(
    /// Name under which a producer's transactions survive its restarts, chosen by the client.
    TransactionalId, "transactional id"
);
name_type!(
    /// Id of a group member, chosen by the client.
    MemberId, "member"
);

impl TopicName {
    /// Committed offsets of groups.
    pub const OFFSETS: &'static str = "__consumer_offsets";
    /// Transactions of producers.
    pub const TRANSACTIONS: &'static str = "__transaction_state";

    /// Whether the topic is the server's own, or its name is kept for one that is to come (prefix `__varve`).
    /// Other names that begin with `__` are anybody's: tools for Kafka's topics give them to their own.
    #[must_use]
    pub fn is_internal(&self) -> bool {
        let name = self.as_str();
        name == Self::OFFSETS || name == Self::TRANSACTIONS || name.starts_with("__varve")
    }
}

macro_rules! uuid_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub u128);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let h = format!("{:032x}", self.0);
                write!(f, "{}-{}-{}-{}-{}", &h[..8], &h[8..12], &h[12..16], &h[16..20], &h[20..])
            }
        }

        impl std::str::FromStr for $name {
            type Err = String;

            /// Parses 32 hexadecimal digits, with or without hyphens.
            fn from_str(s: &str) -> Result<Self, String> {
                let digits: String = s.chars().filter(|c| *c != '-').collect();
                if digits.len() != 32 {
                    return Err(format!("a UUID has 32 hexadecimal digits; found {s:?}"));
                }
                u128::from_str_radix(&digits, 16)
                    .map(Self)
                    .map_err(|_| format!("a UUID has 32 hexadecimal digits; found {s:?}"))
            }
        }
    };
}

uuid_type!(
    /// Identity of a topic. Differs when a topic is deleted and created again under its name.
    TopicId
);
uuid_type!(
    /// Identity of a cluster, made when it is formed.
    ClusterId
);
uuid_type!(
    /// Identity of a data directory, made with it. Another one under a known node id is another disk.
    DirectoryId
);

impl DirectoryId {
    /// Of a directory that was made before directories had ids.
    pub const UNKNOWN: Self = Self(0);
}

/// Number of a node, `>= 0`. Never reused for another log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct NodeId(pub i32);

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Which registration of a node is meant (KIP-631): grows with each one, over the whole cluster. What was
/// decided about an older one does not hold for the node as it is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct BrokerEpoch(i64);

impl BrokerEpoch {
    /// Of a node that has not been registered since there are such epochs.
    pub const ZERO: Self = Self(0);

    /// Checks that `raw` is not negative.
    #[must_use]
    pub const fn new(raw: i64) -> Option<Self> {
        if raw < 0 { None } else { Some(Self(raw)) }
    }

    /// The number, `>= 0`.
    #[must_use]
    pub const fn get(self) -> i64 {
        self.0
    }
}

impl fmt::Display for BrokerEpoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Number of a partition in its topic, counted from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct PartitionId(pub i32);

impl fmt::Display for PartitionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A partition of a topic. Printed as one types it: `orders:0`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicPartition {
    /// Topic.
    pub topic: TopicName,
    /// Partition.
    pub partition: PartitionId,
}

impl TopicPartition {
    /// Pairs a topic with a partition number.
    #[must_use]
    pub const fn new(topic: TopicName, partition: PartitionId) -> Self {
        Self { topic, partition }
    }
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.topic, self.partition)
    }
}

/// Identity of a producer session with its epoch (KIP-98).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProducerId {
    /// Cluster-wide unique id, `>= 0`.
    pub id: i64,
    /// Epoch, `>= 0`; a newer session of the same producer has a higher one.
    pub epoch: i16,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn legal_names() {
        for name in [
            "a",
            "orders",
            "A.b_c-9",
            &"x".repeat(249),
            "...",
            "__consumer_offsets",
        ] {
            assert!(TopicName::new(name).is_ok(), "{name}");
        }
        for (name, internal) in [
            (TopicName::OFFSETS, true),
            (TopicName::TRANSACTIONS, true),
            ("__varve_quotas", true),
            ("__consumer_offsets_copy", false),
            ("__debezium-heartbeat.orders", false),
        ] {
            assert_eq!(
                TopicName::new(name).unwrap().is_internal(),
                internal,
                "{name}"
            );
        }
    }

    #[test]
    fn illegal_names_say_why() {
        assert_eq!(TopicName::new(""), Err(NameError::Empty { what: "topic" }));
        assert_eq!(TopicName::new(".."), Err(NameError::Dots { what: "topic" }));
        assert!(matches!(
            TopicName::new(&"x".repeat(250)),
            Err(NameError::TooLong { found: 250, .. })
        ));
        for bad in ["a/b", "a\0b", "ä", "a b", "a\n"] {
            assert!(
                matches!(TopicName::new(bad), Err(NameError::BadCharacter { .. })),
                "{bad:?}"
            );
        }
    }

    #[test]
    fn uuids_round_trip() {
        let id = TopicId(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef);
        assert_eq!(id.to_string(), "01234567-89ab-cdef-0123-456789abcdef");
        assert_eq!(id.to_string().parse::<TopicId>(), Ok(id));
        assert!("xyz".parse::<TopicId>().is_err());
    }

    #[test]
    fn partitions_print_as_they_are_typed() {
        let topic = TopicName::new("orders-eu").unwrap();
        let id = TopicPartition::new(topic, PartitionId(0));
        assert_eq!(id.to_string(), "orders-eu:0");
    }
}
