//! Configs of topics, groups and client metrics that Kafka 4.x knows, and those of topics that it knew until 3.9,
//! ordered by name.

use super::Fate::{Kept, KeptAt, Obeyed, Refused};
use super::Kind::{Boolean, Double, Int, List, Long, Text};
use super::Row;
use super::reasons::{NO_SHARE_GROUPS, NO_STREAMS_GROUPS, NO_TELEMETRY, NO_TIERS, NODE_TIMES};

/// Topics: name, type, Kafka's default, and its fate here.
#[rustfmt::skip]
pub(super) const TOPICS: &[Row] = &[
    ("cleanup.policy", List, Some("delete"), Obeyed("cleanup.policy")),
    ("compression.gzip.level", Int, Some("-1"), Obeyed("compression.gzip.level")),
    ("compression.lz4.level", Int, Some("9"), Kept),
    ("compression.type", Text, Some("producer"), Obeyed("compression.type")),
    ("compression.zstd.level", Int, Some("3"), Obeyed("compression.zstd.level")),
    ("delete.retention.ms", Long, Some("86400000"), Obeyed("delete.retention.ms")),
    ("file.delete.delay.ms", Long, Some("60000"), Kept),
    ("flush.messages", Long, Some("9223372036854775807"), Obeyed("flush.messages")),
    ("flush.ms", Long, Some("9223372036854775807"), Obeyed("flush.ms")),
    ("follower.replication.throttled.replicas", List, Some(""), Kept),
    ("index.interval.bytes", Int, Some("4096"), Obeyed("index.interval.bytes")),
    ("internal.segment.bytes", Int, None, Kept),
    ("leader.replication.throttled.replicas", List, Some(""), Kept),
    ("local.retention.bytes", Long, Some("-2"), Kept),
    ("local.retention.ms", Long, Some("-2"), Kept),
    ("max.compaction.lag.ms", Long, Some("9223372036854775807"), Obeyed("max.compaction.lag.ms")),
    ("max.message.bytes", Int, Some("1048588"), Obeyed("max.message.bytes")),
    ("message.downconversion.enable", Boolean, Some("true"), Kept),
    ("message.format.version", Text, Some("3.0-IV1"), Kept),
    ("message.timestamp.after.max.ms", Long, Some("3600000"), Obeyed("message.timestamp.after.max.ms")),
    ("message.timestamp.before.max.ms", Long, Some("9223372036854775807"), Obeyed("message.timestamp.before.max.ms")),
    ("message.timestamp.difference.max.ms", Long, Some("9223372036854775807"), Obeyed("message.timestamp.before.max.ms and message.timestamp.after.max.ms")),
    ("message.timestamp.type", Text, Some("CreateTime"), Obeyed("message.timestamp.type")),
    ("min.cleanable.dirty.ratio", Double, Some("0.5"), Obeyed("min.cleanable.dirty.ratio")),
    ("min.compaction.lag.ms", Long, Some("0"), Obeyed("min.compaction.lag.ms")),
    ("min.insync.replicas", Int, Some("1"), Obeyed("min.insync.replicas")),
    ("preallocate", Boolean, Some("false"), Kept),
    ("remote.copy.lag.bytes", Long, Some("-1"), Kept),
    ("remote.copy.lag.ms", Long, Some("0"), Kept),
    ("remote.log.copy.disable", Boolean, Some("false"), Kept),
    ("remote.log.delete.on.disable", Boolean, Some("false"), Kept),
    ("remote.storage.enable", Boolean, Some("false"), KeptAt("false", NO_TIERS)),
    ("retention.bytes", Long, Some("-1"), Obeyed("retention.bytes")),
    ("retention.ms", Long, Some("604800000"), Obeyed("retention.ms")),
    ("segment.bytes", Int, Some("1073741824"), Obeyed("segment.bytes")),
    ("segment.index.bytes", Int, Some("10485760"), Kept),
    ("segment.jitter.ms", Long, Some("0"), Kept),
    ("segment.ms", Long, Some("604800000"), Obeyed("segment.ms")),
    ("unclean.leader.election.enable", Boolean, Some("false"), Obeyed("unclean.leader.election.enable")),
];

/// Topic configs of Kafka 3.9 that 4.0 no longer has: clients and mirrors of old clusters still set them.
pub(super) const UNTIL_3_9: &[&str] = &[
    "message.downconversion.enable",
    "message.format.version",
    "message.timestamp.difference.max.ms",
];

/// Groups.
#[rustfmt::skip]
pub(super) const GROUPS: &[Row] = &[
    ("consumer.assignment.interval.ms", Int, Some("1000"), Refused(NODE_TIMES)),
    ("consumer.heartbeat.interval.ms", Int, Some("5000"), Refused(NODE_TIMES)),
    ("consumer.session.timeout.ms", Int, Some("45000"), Refused(NODE_TIMES)),
    ("share.assignment.interval.ms", Int, Some("1000"), Refused(NO_SHARE_GROUPS)),
    ("share.auto.offset.reset", Text, Some("latest"), Refused(NO_SHARE_GROUPS)),
    ("share.delivery.count.limit", Int, Some("5"), Refused(NO_SHARE_GROUPS)),
    ("share.heartbeat.interval.ms", Int, Some("5000"), Refused(NO_SHARE_GROUPS)),
    ("share.isolation.level", Text, Some("read_uncommitted"), Refused(NO_SHARE_GROUPS)),
    ("share.partition.max.record.locks", Int, Some("2000"), Refused(NO_SHARE_GROUPS)),
    ("share.record.lock.duration.ms", Int, Some("30000"), Refused(NO_SHARE_GROUPS)),
    ("share.renew.acknowledge.enable", Boolean, Some("true"), Refused(NO_SHARE_GROUPS)),
    ("share.session.timeout.ms", Int, Some("45000"), Refused(NO_SHARE_GROUPS)),
    ("streams.assignment.interval.ms", Int, Some("1000"), Refused(NO_STREAMS_GROUPS)),
    ("streams.heartbeat.interval.ms", Int, Some("5000"), Refused(NO_STREAMS_GROUPS)),
    ("streams.initial.rebalance.delay.ms", Int, Some("3000"), Refused(NO_STREAMS_GROUPS)),
    ("streams.num.standby.replicas", Int, Some("0"), Refused(NO_STREAMS_GROUPS)),
    ("streams.session.timeout.ms", Int, Some("45000"), Refused(NO_STREAMS_GROUPS)),
];

/// Client metrics.
#[rustfmt::skip]
pub(super) const CLIENT_METRICS: &[Row] = &[
    ("interval.ms", Int, Some("300000"), Refused(NO_TELEMETRY)),
    ("match", List, Some(""), Refused(NO_TELEMETRY)),
    ("metrics", List, Some(""), Refused(NO_TELEMETRY)),
];

/// Values of the kept numbers that Kafka takes; the others take every number of their type.
pub(super) const RANGES: &[(&str, i64, i64)] = &[
    ("compression.lz4.level", 1, 17),
    ("file.delete.delay.ms", 0, i64::MAX),
    ("internal.segment.bytes", 1, i32::MAX as i64),
    ("local.retention.bytes", -2, i64::MAX),
    ("local.retention.ms", -2, i64::MAX),
    ("remote.copy.lag.bytes", -1, i64::MAX),
    ("remote.copy.lag.ms", -1, i64::MAX),
    ("segment.index.bytes", 4, i32::MAX as i64),
    ("segment.jitter.ms", 0, i64::MAX),
];
