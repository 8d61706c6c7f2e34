//! `varve topic trim` and `varve topic offsets`: commands about a topic's records.

use varve_client::consumer::resolve;
use varve_client::{Admin, Assignment, ClientError, End, Start, proto as v1};
use varve_types::TopicName;

use crate::args::{Global, OutputArgs};
use crate::confirm::confirm;
use crate::connection::Settings;
use crate::consume::partitions_of;
use crate::failure::{FAILED, Failure};
use crate::offset::{self, From};
use crate::output::{Output, print_message, print_table};

/// What to trim.
pub struct Trim {
    /// Topic.
    pub topic: String,
    /// The first record to keep.
    pub offset: String,
    /// Partitions; empty: all.
    pub partitions: Vec<i32>,
    /// Delete nothing.
    pub dry_run: bool,
    /// Form of the output.
    pub output: Output,
}

fn place(text: &str) -> Result<Start, Failure> {
    let now = jiff::Timestamp::now().as_millisecond();
    let spec = offset::parse(text, now).map_err(Failure::usage)?;
    match (spec.start, spec.end) {
        (Some(From::Place(start)), None) => Ok(start),
        _ => Err(Failure::usage(format!(
            "{text:?} is not a single position; use beginning, end, 42, -100 or @TIME"
        ))),
    }
}

async fn assignments(
    admin: &Admin,
    topic: &str,
    partitions: &[i32],
    start: Start,
) -> Result<Vec<Assignment>, Failure> {
    let topic = TopicName::new(topic).map_err(|error| Failure::usage(error.to_string()))?;
    let partitions = partitions_of(admin, &topic, partitions).await?;
    let end = End::CurrentEnd;
    Ok(partitions
        .into_iter()
        .map(|partition| Assignment {
            topic: topic.clone(),
            partition,
            start,
            end,
        })
        .collect())
}

/// Deletes records before a place.
///
/// # Errors
/// [`Failure`] of the first partition that fails; others may have been trimmed.
pub async fn trim(
    global: &Global,
    settings: &Settings,
    admin: &Admin,
    trim: Trim,
) -> Result<u8, Failure> {
    let assignments =
        assignments(admin, &trim.topic, &trim.partitions, place(&trim.offset)?).await?;
    let resolved = resolve(admin.client(), settings.timeout(), &assignments).await?;
    let offsets: Vec<i64> = resolved
        .iter()
        .map(|at| at.end.map_or(at.start, |end| at.start.min(end)))
        .collect();
    if trim.dry_run {
        let rows = assignments
            .iter()
            .zip(&offsets)
            .map(|(assignment, offset)| {
                vec![
                    trim.topic.clone(),
                    assignment.partition.to_string(),
                    offset.to_string(),
                ]
            });
        print_table(&["TOPIC", "PARTITION", "NEW START"], rows.collect())?;
        return Ok(0);
    }
    confirm(
        global,
        &format!(
            "this deletes all records of {} before {}",
            trim.topic, trim.offset
        ),
    )?;
    let deletes = assignments
        .iter()
        .zip(&offsets)
        .map(|(assignment, offset)| v1::DeleteBefore {
            topic_partition: Some(v1::TopicPartition {
                topic: trim.topic.clone(),
                partition: assignment.partition,
            }),
            before: Some(v1::delete_before::Before::Offset(*offset)),
        });
    let answers = admin.delete_records(deletes.collect()).await;
    report(trim.output, &assignments, &answers)
}

fn report(
    output: Output,
    asked: &[Assignment],
    answers: &[Result<i64, ClientError>],
) -> Result<u8, Failure> {
    use v1::delete_records_result::Outcome;
    let asked = asked.iter().zip(answers);
    if output.is_text() {
        let rows = asked.map(|(assignment, answer)| {
            let text = match answer {
                Ok(offset) => offset.to_string(),
                Err(error) => error.to_string(),
            };
            let (topic, partition) = (&assignment.topic, assignment.partition);
            vec![topic.to_string(), partition.to_string(), text]
        });
        print_table(&["TOPIC", "PARTITION", "NEW START"], rows.collect())?;
    } else {
        let results = asked.map(|(assignment, answer)| v1::DeleteRecordsResult {
            topic_partition: Some(v1::TopicPartition {
                topic: assignment.topic.to_string(),
                partition: assignment.partition,
            }),
            outcome: Some(match answer {
                Ok(offset) => Outcome::LogStartOffset(*offset),
                Err(error) => Outcome::Error(error.to_rpc().to_partition()),
            }),
        });
        let response = v1::DeleteRecordsResponse {
            results: results.collect(),
        };
        print_message(output, "DeleteRecordsResponse", &response)?;
    }
    match answers.iter().find_map(|answer| answer.as_ref().err()) {
        None => Ok(0),
        Some(error) => Err(Failure::new(FAILED, error.to_string())),
    }
}

/// Shows the bounds of partitions, and the offset of a place in each.
///
/// # Errors
/// [`Failure`] of the first partition that fails.
pub async fn offsets(
    settings: &Settings,
    admin: &Admin,
    topics: &[String],
    at: Option<&str>,
    partitions: &[i32],
    form: OutputArgs,
) -> Result<u8, Failure> {
    let start = at.map(place).transpose()?;
    let mut all = Vec::new();
    for topic in topics {
        let start = start.unwrap_or(Start::Earliest);
        all.extend(assignments(admin, topic, partitions, start).await?);
    }
    let found = resolve(admin.client(), settings.timeout(), &all).await?;
    let queries: Vec<v1::OffsetQuery> = all
        .iter()
        .map(|assignment| v1::OffsetQuery {
            isolation: v1::Isolation::Unspecified.into(),
            with_timestamp: false,
            topic_partition: Some(v1::TopicPartition {
                topic: assignment.topic.to_string(),
                partition: assignment.partition,
            }),
            position: None,
        })
        .collect();
    let bounds = admin
        .list_offsets_within(settings.timeout(), queries.clone())
        .await
        .into_iter()
        .collect::<Result<Vec<_>, ClientError>>()?;
    if !form.output.is_text() {
        let results = queries
            .into_iter()
            .zip(bounds)
            .zip(found)
            .map(|((query, bounds), found)| {
                let offsets = v1::PartitionOffsets {
                    offset: start.map(|_| found.start),
                    ..bounds
                };
                v1::OffsetResult {
                    topic_partition: query.topic_partition,
                    outcome: Some(v1::offset_result::Outcome::Offsets(offsets)),
                }
            });
        let response = v1::ListOffsetsResponse {
            results: results.collect(),
        };
        print_message(form.output, "ListOffsetsResponse", &response)?;
        return Ok(0);
    }
    let mut headings = vec!["TOPIC", "PARTITION", "START", "END"];
    if start.is_some() {
        headings.push("OFFSET");
    }
    let rows = all
        .iter()
        .zip(bounds)
        .zip(found)
        .map(|((assignment, bounds), found)| {
            let mut row = vec![
                assignment.topic.to_string(),
                assignment.partition.to_string(),
                bounds.log_start_offset.to_string(),
                bounds.high_watermark.to_string(),
            ];
            if start.is_some() {
                row.push(found.start.to_string());
            }
            row
        });
    print_table(&headings, rows.collect())?;
    Ok(0)
}
