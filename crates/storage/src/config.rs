//! What a log is told when it is opened: sizes, times, and how the last run ended.

use varve_types::config::TopicConfig;

/// Sizes and times of one log. Comes from the topic's configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogConfig {
    /// A segment that would pass this many bytes is rolled before the append. One batch larger than
    /// this still gets a segment of its own.
    pub segment_bytes: u64,
    /// A segment whose first append is this old, in milliseconds, is rolled before the next append.
    pub segment_ms: i64,
    /// Least distance between two index entries, in bytes.
    pub index_interval_bytes: u64,
    /// Oldest segments are removed while the rest has at least this many bytes; `None` for no limit.
    pub retention_bytes: Option<u64>,
    /// Segments whose newest record is older than this, in milliseconds, are removed; `None` for no limit.
    pub retention_ms: Option<i64>,
}

impl From<&TopicConfig> for LogConfig {
    fn from(topic: &TopicConfig) -> Self {
        let delete = topic.cleanup.delete;
        Self {
            segment_bytes: topic.segment_bytes,
            segment_ms: topic.segment_ms,
            index_interval_bytes: topic.index_interval_bytes,
            retention_bytes: topic.retention_bytes.filter(|_| delete),
            retention_ms: topic.retention_ms.filter(|_| delete),
        }
    }
}

impl Default for LogConfig {
    fn default() -> Self {
        Self::from(&TopicConfig::default())
    }
}

/// How the last run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenMode {
    /// The last run closed the log and everything was flushed: there is no torn tail to expect, so any
    /// damage is corruption.
    pub clean: bool,
}
