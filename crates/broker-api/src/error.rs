//! The one error of the API: a kind that programs match on, a sentence for people, and the values the
//! sentence mentions under stable names.

use std::time::Duration;

use varve_types::{ErrorKind, LeaderEpoch, NodeId, Outcome, Retry};

/// Every name under which an error carries a value ([`Error::metadata`]), in order. Adapters read errors of other
/// nodes with it: a value under another name is left out there.
pub const METADATA_KEYS: &[&str] = &[
    "actual_offset",
    "appended",
    "config",
    "current_epoch",
    "current_producer",
    "expected_sequence",
    "feature",
    "format",
    "group",
    "high_watermark",
    "instance_id",
    "key",
    "leader_epoch",
    "level",
    "limit",
    "log_start_offset",
    "max",
    "max.message.bytes",
    "member_epoch",
    "member_id",
    "members",
    "nearest",
    "next_readable_offset",
    "node",
    "node_id",
    "offset",
    "partition",
    "producer_epoch",
    "producer_id",
    "protocol",
    "quota",
    "record",
    "size",
    "state",
    "supported",
    "timestamp",
    "topic",
    "transactional_id",
];

/// The name of [`METADATA_KEYS`] that `name` is.
#[must_use]
pub fn metadata_key(name: &str) -> Option<&'static str> {
    let index = METADATA_KEYS.binary_search(&name).ok()?;
    METADATA_KEYS.get(index).copied()
}

/// Address of the node that leads a partition or coordinates a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaderHint {
    /// Node.
    pub node: NodeId,
    /// `host:port` as advertised to clients.
    pub address: String,
    /// Epoch in which that node leads.
    pub epoch: LeaderEpoch,
}

/// Why a request failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// What programs match on.
    pub kind: ErrorKind,
    /// What happened, to what, whether anything was changed, and what to do next.
    pub message: String,
    /// Field of the request at fault, for `InvalidRequest`.
    pub field: Option<&'static str>,
    /// Values of the message under stable names.
    pub metadata: Vec<(&'static str, String)>,
    /// Where to go instead.
    pub leader: Option<Box<LeaderHint>>,
    /// Wait this long before repeating.
    pub retry_after: Option<Duration>,
}

impl Error {
    /// An error of `kind` with a sentence for people.
    #[must_use]
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            field: None,
            metadata: Vec::new(),
            leader: None,
            retry_after: None,
        }
    }

    /// `InvalidRequest` about one field.
    #[must_use]
    pub fn invalid(field: &'static str, message: impl Into<String>) -> Self {
        Self {
            field: Some(field),
            ..Self::new(ErrorKind::InvalidRequest, message)
        }
    }

    /// Adds a value that the message mentions.
    #[must_use]
    pub fn with(mut self, key: &'static str, value: impl ToString) -> Self {
        self.metadata.push((key, value.to_string()));
        self
    }

    /// Adds how long to wait before repeating.
    #[must_use]
    pub const fn after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    /// Whether the mutation may have taken effect.
    #[must_use]
    pub const fn outcome(&self) -> Outcome {
        self.kind.outcome()
    }

    /// What the caller may do on its own.
    #[must_use]
    pub const fn retry(&self) -> Retry {
        self.kind.retry()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_values_are_found() {
        assert!(METADATA_KEYS.is_sorted());
        for key in METADATA_KEYS {
            assert_eq!(metadata_key(key), Some(*key));
        }
        assert_eq!(metadata_key("colour"), None);
    }
}
