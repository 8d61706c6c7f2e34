//! Where reading begins and ends, and what that is in offsets.
//!
//! Never guesses: a position that a leader cannot tell is an error.

use std::time::Duration;

use varve_proto::v1;
use varve_types::TopicName;

use crate::admin::Admin;
use crate::connect::Client;
use crate::error::ClientError;

/// Where reading begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// The oldest record.
    Earliest,
    /// Records appended from now on.
    Latest,
    /// This offset.
    Offset(i64),
    /// The first record at or after this time, in milliseconds since the epoch.
    Timestamp(i64),
    /// The last so many records.
    Last(i64),
    /// So many records after the oldest.
    AfterEarliest(i64),
}

/// Where reading ends; all are exclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Never: follow the log.
    Never,
    /// The high watermark as it is now.
    CurrentEnd,
    /// This offset.
    Offset(i64),
    /// The first record at or after this time, in milliseconds since the epoch.
    Timestamp(i64),
}

/// A partition to read.
#[derive(Debug, Clone)]
pub struct Assignment {
    /// Topic.
    pub topic: TopicName,
    /// Partition.
    pub partition: i32,
    /// Where to begin.
    pub start: Start,
    /// Where to end.
    pub end: End,
}

/// A partition with numbers for its positions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resolved {
    /// First offset to read.
    pub start: i64,
    /// One past the last offset to read; `None`: follow.
    pub end: Option<i64>,
}

const fn anchor(anchor: v1::StartAnchor) -> v1::start_position::Position {
    v1::start_position::Position::Anchor(anchor as i32)
}

fn query(assignment: &Assignment, position: v1::start_position::Position) -> v1::OffsetQuery {
    v1::OffsetQuery {
        isolation: v1::Isolation::Unspecified.into(),
        with_timestamp: false,
        topic_partition: Some(v1::TopicPartition {
            topic: assignment.topic.to_string(),
            partition: assignment.partition,
        }),
        position: Some(v1::StartPosition {
            position: Some(position),
        }),
    }
}

/// Turns positions into offsets.
///
/// # Errors
/// The first partition's error, after `within` when a leader is missing.
pub async fn resolve(
    client: &Client,
    within: Duration,
    assignments: &[Assignment],
) -> Result<Vec<Resolved>, ClientError> {
    use v1::start_position::Position;
    let mut queries = Vec::with_capacity(assignments.len() * 2);
    for assignment in assignments {
        queries.push(match assignment.start {
            Start::Earliest | Start::Offset(_) | Start::AfterEarliest(_) => {
                query(assignment, anchor(v1::StartAnchor::Earliest))
            }
            Start::Latest => query(assignment, anchor(v1::StartAnchor::Latest)),
            Start::Timestamp(ms) => query(assignment, Position::TimestampMs(ms)),
            Start::Last(count) => query(assignment, Position::Last(count)),
        });
        queries.push(match assignment.end {
            End::Timestamp(ms) => query(assignment, Position::TimestampMs(ms)),
            _ => query(assignment, anchor(v1::StartAnchor::Latest)),
        });
    }
    let admin = Admin::new(client.clone());
    let answers = admin.list_offsets_within(within, queries).await;
    let offsets = answers
        .into_iter()
        .collect::<Result<Vec<_>, ClientError>>()?;
    let pairs = offsets.chunks_exact(2).zip(assignments);
    Ok(pairs
        .map(|(pair, assignment)| {
            let (first, last) = (&pair[0], &pair[1]);
            let start = match assignment.start {
                Start::Offset(offset) => offset,
                Start::AfterEarliest(count) => first.log_start_offset.saturating_add(count),
                _ => first.offset.unwrap_or(first.log_start_offset),
            };
            let end = match assignment.end {
                End::Never => None,
                End::CurrentEnd => Some(last.high_watermark),
                End::Offset(offset) => Some(offset),
                End::Timestamp(_) => Some(last.offset.unwrap_or(last.high_watermark)),
            };
            Resolved { start, end }
        })
        .collect())
}
