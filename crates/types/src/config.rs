//! Topic configuration: Kafka's names and defaults, the subset that means something here. A topic keeps
//! the strings its user gave; [`TopicConfig::resolve`] turns them, with the node's defaults, into values
//! without options left. Unknown keys are refused with the nearest known name, and keys of Kafka that
//! are known but not supported are refused by name: nothing is ignored in silence.

use std::collections::BTreeMap;

use crate::limits;

/// What an `acks=all` answer waits for on each replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Durability {
    /// A group-committed `fdatasync` covers the records.
    Fsync,
    /// The records are in the operating system's page cache.
    Replicated,
}

/// `cleanup.policy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CleanupPolicy {
    /// Old segments are deleted by time and size.
    pub delete: bool,
    /// Older records of a key are removed.
    pub compact: bool,
}

/// `message.timestamp.type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TimestampType {
    /// The producer's time.
    CreateTime,
    /// The leader's time at the append, given to the batch as a whole.
    LogAppendTime,
}

/// Why a config was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// No such key.
    #[error("unknown topic config {key:?}{}", .nearest.map(|n| format!("; did you mean {n:?}?")).unwrap_or_default())]
    UnknownKey {
        /// The key given.
        key: String,
        /// The known key that looks most like it.
        nearest: Option<&'static str>,
    },
    /// A key of Kafka that is known and not supported.
    #[error("topic config {key:?} is not supported")]
    NotSupported {
        /// The key given.
        key: String,
    },
    /// The value is not of the key's kind or range.
    #[error("topic config {key:?}: {value:?} is not valid; expected {expected}")]
    BadValue {
        /// The key.
        key: String,
        /// The value given.
        value: String,
        /// What is accepted.
        expected: &'static str,
    },
}

/// One supported config key.
#[derive(Debug, Clone, Copy)]
pub struct ConfigKey {
    /// Kafka's name, or ours where Kafka has none.
    pub name: &'static str,
    /// Built-in default as text.
    pub default: &'static str,
    /// What is accepted, for error messages.
    pub expected: &'static str,
    /// One sentence.
    pub description: &'static str,
}

macro_rules! keys {
    ($($name:literal, $default:literal, $expected:literal, $description:literal;)*) => {
        /// Every supported topic config, ordered by name.
        pub const KEYS: &[ConfigKey] = &[$(ConfigKey {
            name: $name, default: $default, expected: $expected, description: $description,
        },)*];
    };
}

keys! {
    "cleanup.policy", "delete", "delete, compact or compact,delete", "Remove old records by deleting whole segments, by compaction, or both.";
    "compression.type", "producer", "producer, none, gzip, snappy, lz4 or zstd", "Compression of stored batches; producer keeps the codec that the producer used.";
    "delete.retention.ms", "86400000", "milliseconds, >= 0", "How long tombstones are kept after compaction.";
    "durability", "fsync", "fsync or replicated", "What acks=all waits for on each in-sync replica: a flush to disk (fsync) or the page cache (replicated).";
    "flush.messages", "9223372036854775807", "a number >= 1", "Number of records after which a topic with durability=replicated is flushed to disk.";
    "flush.ms", "1000", "milliseconds, >= 1", "Time after which a topic with durability=replicated is flushed to disk.";
    "index.interval.bytes", "4096", "bytes, >= 0", "Minimum number of bytes between two entries of the offset index.";
    "max.compaction.lag.ms", "9223372036854775807", "milliseconds, >= 1", "Maximum time that a record stays uncompacted.";
    "max.message.bytes", "1048576", "bytes, 1024 to 8388608", "Maximum size of a record batch, after compression.";
    "message.timestamp.after.max.ms", "3600000", "milliseconds, >= 0", "How far a record's timestamp may be ahead of the broker's clock.";
    "message.timestamp.before.max.ms", "9223372036854775807", "milliseconds, >= 0", "How far a record's timestamp may be behind the broker's clock.";
    "message.timestamp.type", "CreateTime", "CreateTime or LogAppendTime", "Source of record timestamps: the producer's clock or the broker's.";
    "min.cleanable.dirty.ratio", "0.5", "a number from 0 to 1", "Share of uncompacted bytes at which compaction starts.";
    "min.compaction.lag.ms", "0", "milliseconds, >= 0", "Minimum time that a record stays uncompacted.";
    "min.insync.replicas", "1", "a number from 1 to 7", "Number of replicas that must hold a record before an append with acks=all is acknowledged.";
    "retention.bytes", "-1", "bytes, or -1 for no limit", "Maximum size of a partition; beyond it, the oldest segments are deleted.";
    "retention.ms", "604800000", "milliseconds, or -1 for no limit", "Age at which segments are deleted.";
    "segment.bytes", "1073741824", "bytes, 4096 to 2147483647", "Size at which a new segment starts.";
    "segment.ms", "604800000", "milliseconds, >= 1", "Age at which a new segment starts.";
    "unclean.leader.election.enable", "false", "true or false", "Allow a replica that may lack committed records to become leader.";
}

/// Kafka's topic configs that have no meaning here, refused by name.
const NOT_SUPPORTED: &[&str] = &[
    "file.delete.delay.ms",
    "follower.replication.throttled.replicas",
    "leader.replication.throttled.replicas",
    "local.retention.bytes",
    "local.retention.ms",
    "message.downconversion.enable",
    "message.format.version",
    "message.timestamp.difference.max.ms",
    "preallocate",
    "remote.storage.enable",
    "segment.index.bytes",
    "segment.jitter.ms",
];

/// Resolved configuration of a topic: no options left.
#[derive(Debug, Clone, PartialEq)]
pub struct TopicConfig {
    /// `cleanup.policy`.
    pub cleanup: CleanupPolicy,
    /// `compression.type` as given; `producer` keeps the batch as it came.
    pub compression: String,
    /// `delete.retention.ms`.
    pub delete_retention_ms: i64,
    /// `durability`.
    pub durability: Durability,
    /// `flush.messages`.
    pub flush_messages: u64,
    /// `flush.ms`.
    pub flush_ms: u64,
    /// `index.interval.bytes`.
    pub index_interval_bytes: u64,
    /// `max.compaction.lag.ms`.
    pub max_compaction_lag_ms: i64,
    /// `max.message.bytes`.
    pub max_message_bytes: usize,
    /// `message.timestamp.type`.
    pub timestamp_type: TimestampType,
    /// `message.timestamp.before.max.ms`.
    pub timestamp_before_max_ms: i64,
    /// `message.timestamp.after.max.ms`.
    pub timestamp_after_max_ms: i64,
    /// `min.cleanable.dirty.ratio`, 0 to 1.
    pub min_cleanable_dirty_ratio: f64,
    /// `min.compaction.lag.ms`.
    pub min_compaction_lag_ms: i64,
    /// `min.insync.replicas`.
    pub min_insync_replicas: usize,
    /// `retention.bytes`; `None` is no limit.
    pub retention_bytes: Option<u64>,
    /// `retention.ms`; `None` is no limit.
    pub retention_ms: Option<i64>,
    /// `segment.bytes`.
    pub segment_bytes: u64,
    /// `segment.ms`.
    pub segment_ms: i64,
    /// `unclean.leader.election.enable`.
    pub unclean_leader_election: bool,
}

/// The key of that name.
///
/// # Errors
/// [`ConfigError::NotSupported`] for Kafka's keys without meaning here, [`ConfigError::UnknownKey`] else.
pub fn find_key(name: &str) -> Result<&'static ConfigKey, ConfigError> {
    if let Some(key) = KEYS.iter().find(|k| k.name == name) {
        return Ok(key);
    }
    if NOT_SUPPORTED.contains(&name) {
        return Err(ConfigError::NotSupported {
            key: name.to_owned(),
        });
    }
    let nearest = nearest(name, KEYS.iter().map(|k| k.name));
    Err(ConfigError::UnknownKey {
        key: name.to_owned(),
        nearest,
    })
}

/// The candidate closest to `name`, if any is close enough to be a slip of the finger.
pub fn nearest<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    candidates
        .map(|c| (edit_distance(name, c), c))
        .min()
        .filter(|(d, c)| *d <= c.len().max(name.len()) / 3)
        .map(|(_, c)| c)
}

/// Levenshtein distance over bytes. Inputs are cut at 64 bytes: this serves hints, not searches.
fn edit_distance(a: &str, b: &str) -> usize {
    let (a, b) = (
        &a.as_bytes()[..a.len().min(64)],
        &b.as_bytes()[..b.len().min(64)],
    );
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let substitute = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = substitute.min(row[j] + 1).min(row[j + 1] + 1);
        }
    }
    row[b.len()]
}

struct Values<'a> {
    given: &'a BTreeMap<String, String>,
    defaults: &'a BTreeMap<String, String>,
}

impl Values<'_> {
    fn text(&self, name: &'static str) -> (&'static ConfigKey, &str) {
        let Some(key) = KEYS.iter().find(|k| k.name == name) else {
            unreachable!("{name} is in KEYS")
        };
        let given = self.given.get(name).or_else(|| self.defaults.get(name));
        (key, given.map_or(key.default, String::as_str))
    }

    fn parse<T>(
        &self,
        name: &'static str,
        accept: impl Fn(&str) -> Option<T>,
    ) -> Result<T, ConfigError> {
        let (key, text) = self.text(name);
        accept(text).ok_or_else(|| ConfigError::BadValue {
            key: name.to_owned(),
            value: text.chars().take(64).collect(),
            expected: key.expected,
        })
    }

    fn number(&self, name: &'static str, min: i64, max: i64) -> Result<i64, ConfigError> {
        self.parse(name, |t| t.parse().ok().filter(|n| (min..=max).contains(n)))
    }

    fn limit(&self, name: &'static str) -> Result<Option<i64>, ConfigError> {
        self.number(name, -1, i64::MAX)
            .map(|n| (n >= 0).then_some(n))
    }
}

impl TopicConfig {
    /// Resolves the configs a topic was given over the node's `defaults` over the built-in ones.
    ///
    /// # Errors
    /// The first key that is unknown, not supported, or has a bad value.
    pub fn resolve(
        given: &BTreeMap<String, String>,
        defaults: &BTreeMap<String, String>,
    ) -> Result<Self, ConfigError> {
        for name in given.keys().chain(defaults.keys()) {
            find_key(name)?;
        }
        let v = Values { given, defaults };
        let bool_of = |t: &str| match t {
            "true" => Some(true),
            "false" => Some(false),
            _ => None,
        };
        Ok(Self {
            cleanup: v.parse("cleanup.policy", parse_cleanup)?,
            compression: v.parse("compression.type", |t| {
                ["producer", "none", "gzip", "snappy", "lz4", "zstd"]
                    .contains(&t)
                    .then(|| t.to_owned())
            })?,
            delete_retention_ms: v.number("delete.retention.ms", 0, i64::MAX)?,
            durability: v.parse("durability", |t| match t {
                "fsync" => Some(Durability::Fsync),
                "replicated" => Some(Durability::Replicated),
                _ => None,
            })?,
            flush_messages: v.number("flush.messages", 1, i64::MAX)? as u64,
            flush_ms: v.number("flush.ms", 1, i64::MAX)? as u64,
            index_interval_bytes: v.number("index.interval.bytes", 0, i32::MAX.into())? as u64,
            max_compaction_lag_ms: v.number("max.compaction.lag.ms", 1, i64::MAX)?,
            max_message_bytes: v.number(
                "max.message.bytes",
                1024,
                limits::BATCH_MAX_BYTES as i64,
            )? as usize,
            timestamp_type: v.parse("message.timestamp.type", |t| match t {
                "CreateTime" => Some(TimestampType::CreateTime),
                "LogAppendTime" => Some(TimestampType::LogAppendTime),
                _ => None,
            })?,
            timestamp_before_max_ms: v.number("message.timestamp.before.max.ms", 0, i64::MAX)?,
            timestamp_after_max_ms: v.number("message.timestamp.after.max.ms", 0, i64::MAX)?,
            min_cleanable_dirty_ratio: v.parse("min.cleanable.dirty.ratio", |t| {
                t.parse::<f64>().ok().filter(|r| (0.0..=1.0).contains(r))
            })?,
            min_compaction_lag_ms: v.number("min.compaction.lag.ms", 0, i64::MAX)?,
            min_insync_replicas: v.number("min.insync.replicas", 1, 7)? as usize,
            retention_bytes: v.limit("retention.bytes")?.map(|n| n as u64),
            retention_ms: v.limit("retention.ms")?,
            segment_bytes: v.number("segment.bytes", 4096, i32::MAX.into())? as u64,
            segment_ms: v.number("segment.ms", 1, i64::MAX)?,
            unclean_leader_election: v.parse("unclean.leader.election.enable", bool_of)?,
        })
    }
}

impl Default for TopicConfig {
    fn default() -> Self {
        let none = BTreeMap::new();
        match Self::resolve(&none, &none) {
            Ok(config) => config,
            Err(error) => unreachable!("built-in defaults are valid: {error}"),
        }
    }
}

fn parse_cleanup(text: &str) -> Option<CleanupPolicy> {
    let mut policy = CleanupPolicy {
        delete: false,
        compact: false,
    };
    for part in text.split(',').map(str::trim) {
        match part {
            "delete" => policy.delete = true,
            "compact" => policy.compact = true,
            _ => return None,
        }
    }
    Some(policy)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(pairs: &[(&str, &str)]) -> Result<TopicConfig, ConfigError> {
        let given = pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect();
        TopicConfig::resolve(&given, &BTreeMap::new())
    }

    #[test]
    fn defaults_are_safe() {
        let config = TopicConfig::default();
        assert_eq!(config.durability, Durability::Fsync);
        assert!(!config.unclean_leader_election);
        assert_eq!(config.retention_ms, Some(604_800_000));
        assert_eq!(config.retention_bytes, None);
    }

    #[test]
    fn unknown_keys_are_refused_with_a_hint() {
        assert_eq!(
            resolve(&[("retention.mss", "1")]).unwrap_err().to_string(),
            "unknown topic config \"retention.mss\"; did you mean \"retention.ms\"?"
        );
        assert!(matches!(
            resolve(&[("preallocate", "true")]),
            Err(ConfigError::NotSupported { .. })
        ));
        assert!(matches!(
            resolve(&[("zzzzzzzz", "1")]),
            Err(ConfigError::UnknownKey { nearest: None, .. })
        ));
    }

    #[test]
    fn bad_values_say_what_is_expected() {
        for (key, value) in [
            ("retention.ms", "-2"),
            ("segment.bytes", "1"),
            ("cleanup.policy", "shred"),
            ("durability", "maybe"),
            ("min.insync.replicas", "0"),
            ("max.message.bytes", "999999999"),
            ("min.cleanable.dirty.ratio", "1.5"),
        ] {
            assert!(
                matches!(resolve(&[(key, value)]), Err(ConfigError::BadValue { .. })),
                "{key}"
            );
        }
    }

    #[test]
    fn keys_are_sorted_and_every_default_resolves() {
        assert!(KEYS.windows(2).all(|w| w[0].name < w[1].name));
        for key in KEYS {
            assert!(resolve(&[(key.name, key.default)]).is_ok(), "{}", key.name);
        }
    }

    #[test]
    fn given_beats_node_default() {
        let defaults = BTreeMap::from([("segment.bytes".to_owned(), "8192".to_owned())]);
        let given = BTreeMap::from([("segment.bytes".to_owned(), "16384".to_owned())]);
        let none = BTreeMap::new();
        assert_eq!(
            TopicConfig::resolve(&none, &defaults)
                .unwrap()
                .segment_bytes,
            8192
        );
        assert_eq!(
            TopicConfig::resolve(&given, &defaults)
                .unwrap()
                .segment_bytes,
            16384
        );
    }
}
