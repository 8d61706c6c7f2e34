//! Where a read without a group begins and ends in each partition: an offset that a partition does not have is
//! refused before anything is printed, and `-e` never waits for an end that lies in the future.

use std::ops::RangeInclusive;

use varve_client::{Admin, Assignment, ClientError, End, Start, proto as v1};

use crate::connection::Settings;
use crate::failure::{Failure, NOT_FOUND};
use crate::words::count;

/// Partitions that an error names; the others are counted.
const NAMED_MAX: usize = 3;

/// Checks the offsets of a read against the partitions, and takes an end beyond the current one back to it when
/// `until_end`.
///
/// # Errors
/// Not found, with the range of the partitions that do not have the offset.
pub async fn settle(
    settings: &Settings,
    admin: &Admin,
    assignments: &mut [Assignment],
    until_end: bool,
) -> Result<(), Failure> {
    let numbered = |at: &Assignment| {
        matches!(at.start, Start::Offset(_) | Start::AfterEarliest(_))
            || until_end && matches!(at.end, End::Offset(_))
    };
    if !assignments.iter().any(numbered) {
        return Ok(());
    }
    let ranges = ranges(settings, admin, assignments).await?;
    let mut outside = Vec::new();
    for (at, range) in assignments.iter_mut().zip(&ranges) {
        let (first, last) = (*range.start(), *range.end());
        match at.start {
            Start::Offset(offset) if !range.contains(&offset) => {
                outside.push((
                    offset,
                    format!("{}:{}", at.topic, at.partition),
                    first,
                    last,
                ));
            }
            // "The first 100 and what follows" of fewer records is the end.
            Start::AfterEarliest(count) => {
                at.start = Start::Offset(first.saturating_add(count).min(last));
            }
            _ => {}
        }
        if let End::Offset(end) = at.end
            && until_end
        {
            at.end = End::Offset(end.min(last));
        }
    }
    match outside.first() {
        None => Ok(()),
        Some((offset, ..)) => Err(Failure::new(
            NOT_FOUND,
            refusal(*offset, assignments.len(), &outside),
        )),
    }
}

/// First and last offset that each partition can be read from.
async fn ranges(
    settings: &Settings,
    admin: &Admin,
    assignments: &[Assignment],
) -> Result<Vec<RangeInclusive<i64>>, Failure> {
    let query = |at: &Assignment| v1::OffsetQuery {
        isolation: v1::Isolation::Unspecified.into(),
        with_timestamp: false,
        topic_partition: Some(v1::TopicPartition {
            topic: at.topic.to_string(),
            partition: at.partition,
        }),
        position: None,
    };
    let queries = assignments.iter().map(query).collect();
    let found = admin
        .list_offsets_within(settings.timeout(), queries)
        .await
        .into_iter()
        .collect::<Result<Vec<_>, ClientError>>()?;
    let range = |found: v1::PartitionOffsets| found.log_start_offset..=found.high_watermark;
    Ok(found.into_iter().map(range).collect())
}

/// The sentence about partitions that do not have an offset.
fn refusal(offset: i64, asked: usize, outside: &[(i64, String, i64, i64)]) -> String {
    let named: Vec<String> = outside
        .iter()
        .take(NAMED_MAX)
        .map(|(_, partition, first, last)| match first == last {
            true => format!("{partition} is empty, and its next record gets offset {last}"),
            false => format!("{partition} has offsets {first} to {}", last - 1),
        })
        .collect();
    let more = match outside.len().saturating_sub(NAMED_MAX) {
        0 => String::new(),
        more => format!(", and {} do not have it", count(more, "more partition")),
    };
    let others = match asked - outside.len() {
        0 => "",
        _ => "; -p N reads single partitions",
    };
    format!(
        "offset {offset} is out of range: {}{more}; nothing was read{others}",
        named.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_refusal_has_the_range() {
        let outside = |count: i32| -> Vec<_> {
            (0..count)
                .map(|n| (1000, format!("orders:{n}"), 2, 10))
                .collect()
        };
        assert_eq!(
            refusal(1000, 1, &outside(1)),
            "offset 1000 is out of range: orders:0 has offsets 2 to 9; nothing was read"
        );
        let many = refusal(1000, 6, &outside(5));
        assert!(
            many.contains("and 2 more partitions do not have it"),
            "{many}"
        );
        assert!(many.ends_with("-p N reads single partitions"), "{many}");
        let empty = refusal(5, 1, &[(5, "orders:0".to_owned(), 0, 0)]);
        assert!(empty.contains("orders:0 is empty"), "{empty}");
    }
}
