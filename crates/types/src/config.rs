//! Topic configuration: Kafka's names and defaults, and those that mean something here. A topic keeps its values as
//! [`canonical`] texts; [`TopicConfig::resolve`] turns them, with the node's defaults, into values without options
//! left. Names that only Kafka gives a meaning are kept and shown ([`crate::kafka_configs`]); unknown names are
//! refused with the nearest known one: nothing is ignored in silence.

use std::collections::BTreeMap;

use crate::kafka_configs::{Fate, KafkaConfig, Scope, boolean};
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

/// `compression.type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TopicCompression {
    /// Batches are stored as the producer packed them.
    Producer,
    /// Without a codec.
    None,
    /// gzip.
    Gzip,
    /// Snappy.
    Snappy,
    /// LZ4.
    Lz4,
    /// Zstandard.
    Zstd,
}

/// Values of `compression.type`, the first being the default. Kafka's word for none is `uncompressed`.
const COMPRESSIONS: [(&str, TopicCompression); 7] = [
    ("producer", TopicCompression::Producer),
    ("none", TopicCompression::None),
    (UNCOMPRESSED, TopicCompression::None),
    ("gzip", TopicCompression::Gzip),
    ("snappy", TopicCompression::Snappy),
    ("lz4", TopicCompression::Lz4),
    ("zstd", TopicCompression::Zstd),
];
/// What Kafka calls a `compression.type` of none.
pub const UNCOMPRESSED: &str = "uncompressed";

const DURABILITIES: [(&str, Durability); 2] = [
    ("fsync", Durability::Fsync),
    ("replicated", Durability::Replicated),
];

const TIMESTAMP_TYPES: [(&str, TimestampType); 2] = [
    ("CreateTime", TimestampType::CreateTime),
    ("LogAppendTime", TimestampType::LogAppendTime),
];

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
    /// A value of Kafka's that would promise what is not there.
    #[error("topic config {key:?} can only be {only:?} here, not {value:?}: {reason}")]
    Refused {
        /// The key given.
        key: String,
        /// The value given.
        value: String,
        /// The only value that is taken.
        only: &'static str,
        /// Why.
        reason: &'static str,
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
    "cleanup.policy", "delete", "delete, compact or compact,delete; empty for neither", "Remove old records by deleting whole segments, by compaction, or both.";
    "compression.gzip.level", "-1", "1 to 9, or -1 for the codec's default", "Level at which batches are compressed with gzip, if compression.type=gzip.";
    "compression.type", "producer", "producer, none (or uncompressed), gzip, snappy, lz4 or zstd", "Codec of stored batches. The leader recompresses batches that arrive in another; producer keeps the codec that the producer used.";
    "compression.zstd.level", "3", "-131072 to 22", "Level at which batches are compressed with zstd, if compression.type=zstd.";
    "delete.retention.ms", "86400000", "milliseconds, >= 0", "How long tombstones are kept after compaction.";
    "durability", "fsync", "fsync or replicated", "What acks=all waits for on each in-sync replica: a flush to disk (fsync) or the page cache (replicated).";
    "flush.messages", "9223372036854775807", "a number >= 1", "Number of records after which a topic with durability=replicated is flushed to disk.";
    "flush.ms", "1000", "milliseconds, >= 0", "Time after which a topic with durability=replicated is flushed to disk.";
    "index.interval.bytes", "4096", "bytes, >= 0", "Minimum number of bytes between two entries of the offset index.";
    "max.compaction.lag.ms", "9223372036854775807", "milliseconds, >= 1", "Maximum time that a record stays uncompacted.";
    "max.message.bytes", "1048576", "bytes, 0 to 104857600", "Maximum size of a record batch, after compression.";
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

/// Resolved configuration of a topic: no options left.
#[derive(Debug, Clone, PartialEq)]
pub struct TopicConfig {
    /// `cleanup.policy`.
    pub cleanup: CleanupPolicy,
    /// `compression.type`.
    pub compression: TopicCompression,
    /// `compression.gzip.level`; `None` is the codec's default.
    pub gzip_level: Option<i32>,
    /// `compression.zstd.level`.
    pub zstd_level: i32,
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

/// A topic config that may be set.
#[derive(Debug, Clone, Copy)]
pub enum Known {
    /// It means something here.
    Ours(&'static ConfigKey),
    /// Only Kafka gives it a meaning: it is kept and shown.
    Kafkas(KafkaConfig),
}

/// The config of that name.
///
/// # Errors
/// [`ConfigError::UnknownKey`].
pub fn find(name: &str) -> Result<Known, ConfigError> {
    if let Some(key) = KEYS.iter().find(|k| k.name == name) {
        return Ok(Known::Ours(key));
    }
    if let Some(config) = Scope::Topic.find(name) {
        return Ok(Known::Kafkas(config));
    }
    let names = KEYS.iter().map(|k| k.name);
    let all = names.chain(Scope::Topic.configs().map(|config| config.name));
    Err(ConfigError::UnknownKey {
        key: name.to_owned(),
        nearest: nearest(name, all),
    })
}

/// A value as it is stored: without blanks around it, words in the case that this page gives them, `none` for Kafka's
/// `uncompressed`. Whether a value of ours is in range is for [`TopicConfig::resolve`] to say.
///
/// # Errors
/// [`ConfigError::UnknownKey`] for a name that nobody knows; for one that only Kafka knows, what is wrong with the
/// value.
pub fn canonical(name: &str, value: &str) -> Result<String, ConfigError> {
    let key = match find(name)? {
        Known::Ours(key) => key,
        Known::Kafkas(config) => return kept(&config, value),
    };
    let value = value.trim();
    let word = |words: &[&'static str]| {
        let found = words.iter().find(|word| word.eq_ignore_ascii_case(value));
        found.copied().unwrap_or(value).to_owned()
    };
    Ok(match key.name {
        "compression.type" => match word(&COMPRESSIONS.map(|w| w.0)) {
            none if none == UNCOMPRESSED => "none".to_owned(),
            word => word,
        },
        "durability" => word(&DURABILITIES.map(|w| w.0)),
        "message.timestamp.type" => word(&TIMESTAMP_TYPES.map(|w| w.0)),
        "unclean.leader.election.enable" => word(&["true", "false"]),
        "cleanup.policy" => {
            let parts = value.split(',').map(str::trim);
            parts.collect::<Vec<_>>().join(",").to_ascii_lowercase()
        }
        _ => value.to_owned(),
    })
}

/// The value of a config that only Kafka gives a meaning, as it is kept.
fn kept(config: &KafkaConfig, value: &str) -> Result<String, ConfigError> {
    let short = || value.chars().take(64).collect();
    let Some(kept) = config.kept(value) else {
        return Err(ConfigError::BadValue {
            key: config.name.to_owned(),
            value: short(),
            expected: config.expected(),
        });
    };
    match config.fate {
        Fate::KeptAt(only, reason) if kept != only => Err(ConfigError::Refused {
            key: config.name.to_owned(),
            value: short(),
            only,
            reason,
        }),
        _ => Ok(kept),
    }
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
        accept(text.trim()).ok_or_else(|| ConfigError::BadValue {
            key: name.to_owned(),
            value: text.chars().take(64).collect(),
            expected: key.expected,
        })
    }

    fn number(&self, name: &'static str, min: i64, max: i64) -> Result<i64, ConfigError> {
        self.parse(name, |t| t.parse().ok().filter(|n| (min..=max).contains(n)))
    }

    fn limit(&self, name: &'static str, least: i64) -> Result<Option<i64>, ConfigError> {
        self.number(name, least, i64::MAX)
            .map(|n| (n >= 0).then_some(n))
    }

    fn word<T: Copy>(
        &self,
        name: &'static str,
        words: &[(&'static str, T)],
    ) -> Result<T, ConfigError> {
        self.parse(name, |text| {
            let found = words.iter().find(|word| word.0.eq_ignore_ascii_case(text));
            found.map(|word| word.1)
        })
    }

    /// A bound of a record's time, which Kafka gave by one config for both directions until 3.9.
    fn difference(&self, name: &'static str) -> Result<i64, ConfigError> {
        const BOTH: &str = "message.timestamp.difference.max.ms";
        match self.given.get(BOTH) {
            Some(both) if !self.given.contains_key(name) => {
                let number = both.trim().parse().ok().filter(|n| *n >= 0);
                number.ok_or_else(|| ConfigError::BadValue {
                    key: BOTH.to_owned(),
                    value: both.chars().take(64).collect(),
                    expected: "milliseconds, >= 0",
                })
            }
            _ => self.number(name, 0, i64::MAX),
        }
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
        for (name, value) in given.iter().chain(defaults) {
            canonical(name, value)?;
        }
        let v = Values { given, defaults };
        let level = v.parse("compression.gzip.level", |t| {
            let in_range = |n: &i32| *n == -1 || (1..=9).contains(n);
            t.parse().ok().filter(in_range)
        })?;
        Ok(Self {
            cleanup: v.parse("cleanup.policy", parse_cleanup)?,
            compression: v.word("compression.type", &COMPRESSIONS)?,
            gzip_level: (level != -1).then_some(level),
            zstd_level: v.number("compression.zstd.level", -131_072, 22)? as i32,
            delete_retention_ms: v.number("delete.retention.ms", 0, i64::MAX)?,
            durability: v.word("durability", &DURABILITIES)?,
            flush_messages: v.number("flush.messages", 1, i64::MAX)? as u64,
            flush_ms: (v.number("flush.ms", 0, i64::MAX)? as u64).max(1),
            index_interval_bytes: v.number("index.interval.bytes", 0, i32::MAX.into())? as u64,
            max_compaction_lag_ms: v.number("max.compaction.lag.ms", 1, i64::MAX)?,
            max_message_bytes: v.number("max.message.bytes", 0, limits::BATCH_MAX_BYTES as i64)?
                as usize,
            timestamp_type: v.word("message.timestamp.type", &TIMESTAMP_TYPES)?,
            timestamp_before_max_ms: v.difference("message.timestamp.before.max.ms")?,
            timestamp_after_max_ms: v.difference("message.timestamp.after.max.ms")?,
            min_cleanable_dirty_ratio: v.parse("min.cleanable.dirty.ratio", |t| {
                t.parse::<f64>().ok().filter(|r| (0.0..=1.0).contains(r))
            })?,
            min_compaction_lag_ms: v.number("min.compaction.lag.ms", 0, i64::MAX)?,
            min_insync_replicas: v.number("min.insync.replicas", 1, 7)? as usize,
            retention_bytes: v.limit("retention.bytes", i64::MIN)?.map(|n| n as u64),
            retention_ms: v.limit("retention.ms", -1)?,
            segment_bytes: v.number("segment.bytes", 4096, i32::MAX.into())? as u64,
            segment_ms: v.number("segment.ms", 1, i64::MAX)?,
            unclean_leader_election: v.parse("unclean.leader.election.enable", boolean)?,
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
    if text.is_empty() {
        return Some(policy);
    }
    for part in text.split(',').map(str::trim) {
        match part.to_ascii_lowercase().as_str() {
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
            resolve(&[("zzzzzzzz", "1")]),
            Err(ConfigError::UnknownKey { nearest: None, .. })
        ));
    }

    #[test]
    fn bad_values_say_what_is_expected() {
        for (key, value) in [
            ("retention.ms", "-2"),
            ("segment.bytes", "1"),
            ("segment.jitter.ms", "-1"),
            ("compression.gzip.level", "0"),
            ("compression.type", "brotli"),
            ("unclean.leader.election.enable", "yes"),
            ("cleanup.policy", "shred"),
            ("durability", "maybe"),
            ("min.insync.replicas", "0"),
            ("max.message.bytes", "104857601"),
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
    fn values_are_taken_as_people_write_them() {
        for (key, value, stored) in [
            ("unclean.leader.election.enable", " True ", "true"),
            ("unclean.leader.election.enable", "FALSE", "false"),
            ("retention.ms", " 86400000\n", "86400000"),
            ("compression.type", "GZIP", "gzip"),
            ("compression.type", " uncompressed ", "none"),
            ("message.timestamp.type", "logappendtime", "LogAppendTime"),
            ("cleanup.policy", "Compact, delete", "compact,delete"),
            ("durability", "Replicated", "replicated"),
            ("preallocate", "FALSE", "false"),
        ] {
            assert_eq!(canonical(key, value).unwrap(), stored, "{key}={value:?}");
            assert_eq!(resolve(&[(key, value)]), resolve(&[(key, stored)]), "{key}");
            assert!(resolve(&[(key, value)]).is_ok(), "{key}={value:?}");
        }
        let both = resolve(&[("message.timestamp.difference.max.ms", "5")]).unwrap();
        assert_eq!(
            (both.timestamp_before_max_ms, both.timestamp_after_max_ms),
            (5, 5)
        );
    }

    #[test]
    fn what_only_kafka_knows_is_kept_unless_it_would_promise_something() {
        assert!(resolve(&[("segment.index.bytes", "10485760")]).is_ok());
        assert!(resolve(&[("remote.storage.enable", "false")]).is_ok());
        assert_eq!(
            resolve(&[("remote.storage.enable", "true")])
                .unwrap_err()
                .to_string(),
            "topic config \"remote.storage.enable\" can only be \"false\" here, not \"true\": there is no tiered storage"
        );
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
