//! Subscribe: a topic, or some of its partitions, as a stream without a group. HTTP/2 holds it back: the
//! log is read one message ahead of what the transport has taken, and no further.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::MissedTickBehavior;
use varve_broker_api::{Broker, Error, Isolation, Position};
use varve_proto::v1;
use varve_types::{ErrorKind, Offset, PartitionId, TopicId, TopicName, TopicPartition, limits};

use super::reader::{Ending, Event, Fetched, Options, Reader, Spec, What};
use super::{DrainStep, Drainer, Gone, Outbound, Outlet, Parked, channel, idle, parked, until};
use crate::context::CallContext;
use crate::shared::Shared;
use crate::translate::fetch::{Encoding, OutOfRange, Until, encoding, out_of_range};
use crate::translate::{
    isolation, missing, offset, partition, partition_not_found, start_without_group, topic_name,
};

/// Largest message. Three of them at most are in memory for one stream: with the transport, waiting, and
/// being made.
pub const MESSAGE_BYTES: usize = 1024 * 1024;
/// Longest time one fetch is held.
pub const HOLD: Duration = Duration::from_millis(limits::WAIT_MAX_MS);

/// A Subscribe, checked.
#[derive(Debug)]
pub struct Plan {
    topic: TopicName,
    partitions: BTreeSet<i32>,
    start: Position,
    resume: BTreeMap<i32, Offset>,
    ending: Ending,
    max_records: u64,
    encoding: Encoding,
    out_of_range: OutOfRange,
    idle: Duration,
    isolation: Isolation,
}

/// Reads a Subscribe.
///
/// # Errors
/// `InvalidRequest` naming the field; `PartitionNotFound` for negative numbers.
pub fn plan(request: &v1::SubscribeRequest) -> Result<Plan, Error> {
    let topic = topic_name("topic", &request.topic)?;
    crate::translate::at_most(
        "partitions",
        request.partitions.len().max(request.resume_offsets.len()),
        usize::try_from(limits::PARTITIONS_PER_TOPIC_MAX).unwrap_or(usize::MAX),
    )?;
    let partitions: BTreeSet<i32> = request.partitions.iter().copied().collect();
    let mut resume = BTreeMap::new();
    for (number, raw) in &request.resume_offsets {
        if !partitions.is_empty() && !partitions.contains(number) {
            let text =
                format!("resume_offsets names partition {number}, which is not in partitions");
            return Err(Error::invalid("resume_offsets", text));
        }
        resume.insert(*number, offset("resume_offsets", *raw)?);
    }
    for number in partitions.iter().chain(resume.keys()) {
        partition(&topic, *number)?;
    }
    let max_records = match u64::try_from(request.max_records) {
        Ok(0) => u64::MAX,
        Ok(n) => n,
        Err(_) => {
            let text = format!(
                "max_records must not be negative; found {}",
                request.max_records
            );
            return Err(Error::invalid("max_records", text));
        }
    };
    Ok(Plan {
        start: start_without_group("start", request.start.as_ref())?,
        ending: ending(request.end.as_ref())?,
        encoding: encoding(request.encoding)?,
        out_of_range: out_of_range(request.out_of_range)?,
        idle: idle(request.idle_heartbeat.as_ref())?,
        isolation: isolation("isolation", request.isolation)?,
        topic,
        partitions,
        resume,
        max_records,
    })
}

fn ending(end: Option<&v1::EndPosition>) -> Result<Ending, Error> {
    use v1::end_position::Position as P;
    let Some(end) = end else {
        return Ok(Ending::Follow);
    };
    match end.position {
        None => Err(missing("end.position")),
        Some(P::Offset(raw)) => Ok(Ending::At(Until {
            offset: Some(offset("end.offset", raw)?),
            timestamp: None,
        })),
        Some(P::TimestampMs(ms)) => Ok(Ending::At(Until {
            offset: None,
            timestamp: Some(ms),
        })),
        Some(P::CurrentEnd(true)) => Ok(Ending::CurrentEnd),
        Some(P::CurrentEnd(false)) => Err(Error::invalid(
            "end.current_end",
            "if current_end is set, it must be true",
        )),
    }
}

/// Opens the stream.
///
/// # Errors
/// `TopicNotFound`, `PartitionNotFound`.
pub fn open<B: Broker>(
    shared: &Arc<Shared<B>>,
    ctx: &CallContext,
    plan: Plan,
) -> Result<Outbound<v1::SubscribeResponse>, Error> {
    let info = shared.broker.topic(&ctx.broker, &plan.topic)?;
    for number in plan.partitions.iter().chain(plan.resume.keys()) {
        if *number >= info.partitions {
            return Err(partition_not_found(
                &plan.topic,
                *number,
                Some(info.partitions),
            ));
        }
    }
    let (outlet, outbound) = channel(shared, "Subscribe", 1);
    let options = Options {
        encoding: plan.encoding,
        message_bytes: MESSAGE_BYTES,
        strict_size: false,
        ride_out: true,
        isolation: plan.isolation,
    };
    let subscription = Subscription {
        reader: Reader::new(
            Arc::clone(shared),
            ctx.broker.clone(),
            options,
            outlet.pace(),
        ),
        shared: Arc::clone(shared),
        ctx: ctx.clone(),
        topic_id: info.id,
        known: info.partitions,
        remaining: plan.max_records,
        failed: None,
        finished: 0,
        plan,
        outlet,
    };
    tokio::spawn(subscription.run());
    Ok(outbound)
}

struct Subscription<B> {
    shared: Arc<Shared<B>>,
    ctx: CallContext,
    plan: Plan,
    reader: Reader<B, i32>,
    topic_id: TopicId,
    /// Partitions of the topic when last looked at.
    known: i32,
    remaining: u64,
    /// The last error that closed a partition.
    failed: Option<Error>,
    /// Partitions that came to their end.
    finished: usize,
    outlet: Outlet<v1::SubscribeResponse>,
}

impl<B: Broker> Subscription<B> {
    async fn run(mut self) {
        let outcome = self.serve().await;
        if let Ok(Some(error)) = outcome {
            self.outlet.end(self.shared.fail(&error)).await;
        }
    }

    /// Runs until the end: `None` is OK.
    async fn serve(&mut self) -> Result<Option<Error>, Gone> {
        let mut seen = self.shared.broker.metadata_version();
        let mut changed = self.watch(seen);
        let mut drainer = Drainer::new(&self.shared);
        let mut fetching: Option<Parked<Fetched<i32>>> = None;
        let mut ticks = tokio::time::interval(self.plan.idle / 4);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.open_all().await;
        loop {
            while let Some(event) = self.reader.next_event(self.remaining) {
                self.send(event).await?;
                if self.remaining == 0 {
                    return Ok(None);
                }
            }
            if let Some(end) = self.ended() {
                return Ok(end);
            }
            if self.reader.has_lost_places() {
                self.reader.recover().await;
                continue;
            }
            let waits = !self.reader.window().is_open();
            if fetching.is_none() && !waits {
                fetching = self.reader.fetch(HOLD);
            }
            tokio::select! {
                biased;
                () = self.outlet.closed() => return Err(Gone),
                step = drainer.next() => match step {
                    DrainStep::Announce => {
                        let drain = v1::subscribe_response::Event::Drain(drainer.event());
                        self.outlet.send(v1::SubscribeResponse { event: Some(drain) }).await?;
                    }
                    DrainStep::End => return Ok(Some(Shared::<B>::shutting_down())),
                },
                () = self.reader.window().opened(), if waits && fetching.is_none() => {}
                fetched = parked(&mut fetching) => {
                    fetching = None;
                    self.reader.accept(fetched);
                }
                version = &mut changed => {
                    seen = version.max(seen);
                    changed = self.watch(seen);
                    if self.look_at_topic().await {
                        fetching = None;
                    }
                }
                _ = ticks.tick() => self.reader.speak_of_idle(self.plan.idle).await,
                () = until(self.reader.next_retry()) => fetching = None,
            }
        }
    }

    fn watch(&self, seen: u64) -> Parked<u64> {
        let broker = Arc::clone(&self.shared.broker);
        Box::pin(async move { broker.metadata_changed(seen).await })
    }

    fn spec(&self, number: i32, start: Position) -> (i32, Spec) {
        let spec = Spec {
            partition: TopicPartition::new(self.plan.topic.clone(), PartitionId(number)),
            start,
            out_of_range: self.plan.out_of_range,
            until: self.plan.ending,
            leader_epoch: None,
            credit: None,
        };
        (number, spec)
    }

    async fn open_all(&mut self) {
        let chosen: Vec<i32> = if self.plan.partitions.is_empty() {
            (0..self.known).collect()
        } else {
            self.plan.partitions.iter().copied().collect()
        };
        let specs = chosen
            .into_iter()
            .map(|n| {
                let resume = self.plan.resume.get(&n).copied().map(Position::Offset);
                self.spec(n, resume.unwrap_or(self.plan.start))
            })
            .collect();
        self.reader.open(specs).await;
    }

    /// Picks up new partitions and notices a deletion. Returns whether what is read has changed.
    async fn look_at_topic(&mut self) -> bool {
        let found = match self.shared.broker.topic(&self.ctx.broker, &self.plan.topic) {
            Ok(info) if info.id == self.topic_id => info,
            Err(error) if error.kind != ErrorKind::TopicNotFound => return false,
            _ => {
                let topic = &self.plan.topic;
                let error = Error::new(
                    ErrorKind::TopicNotFound,
                    format!("topic {topic} was deleted"),
                )
                .with("topic", topic);
                self.reader.close_all(&error);
                self.failed = Some(error);
                return true;
            }
        };
        let follows = self.plan.partitions.is_empty() && self.plan.ending == Ending::Follow;
        if !follows || found.partitions <= self.known {
            return false;
        }
        // Everything in a partition that was added later is new to this client.
        let specs = (self.known..found.partitions)
            .map(|n| self.spec(n, Position::Earliest))
            .collect();
        self.known = found.partitions;
        self.reader.open(specs).await;
        true
    }

    /// Whether the stream has come to its end: `Some(None)` is OK.
    fn ended(&self) -> Option<Option<Error>> {
        if !self.reader.cursors().is_empty() || self.reader.has_arrived() {
            return None;
        }
        Some(if self.finished > 0 {
            None
        } else {
            self.failed.clone()
        })
    }

    async fn send(&mut self, event: Event<i32>) -> Result<(), Gone> {
        use v1::subscribe_response::Event as E;
        let (tp, cursor) = (&event.cursor.partition, &event.cursor);
        let event = match event.what {
            What::Records(chunk) => {
                self.remaining = self.remaining.saturating_sub(chunk.record_count);
                E::Records(to_chunk(cursor, chunk, false))
            }
            What::Opened | What::CaughtUp | What::Passed | What::Idle => {
                E::Progress(to_progress(cursor))
            }
            What::Closed(error) => {
                match &error {
                    None => self.finished += 1,
                    Some(error) => self.failed = Some(error.clone()),
                }
                E::Closed(v1::PartitionClosed {
                    topic: tp.topic.to_string(),
                    partition: tp.partition.0,
                    next_offset: cursor.next.get(),
                    error: error.map(|e| self.shared.partition_error(&e)),
                })
            }
        };
        let message = v1::SubscribeResponse { event: Some(event) };
        let reader = &mut self.reader;
        self.outlet.deliver(message, || reader.shed()).await
    }
}

/// Records of one partition in the words of the API.
#[must_use]
pub fn to_chunk(
    cursor: &super::reader::Cursor,
    chunk: crate::translate::fetch::Chunk,
    counts_credit: bool,
) -> v1::RecordChunk {
    v1::RecordChunk {
        topic: cursor.partition.topic.to_string(),
        partition: cursor.partition.partition.0,
        records: chunk.records,
        batches: chunk.batches,
        next_offset: chunk.next_offset.get(),
        high_watermark: cursor.high_watermark.get(),
        leader_epoch: cursor.leader_epoch.get().into(),
        credit_used: if counts_credit {
            chunk.payload_bytes
        } else {
            0
        },
    }
}

/// A position in the words of the API.
#[must_use]
pub fn to_progress(cursor: &super::reader::Cursor) -> v1::Progress {
    v1::Progress {
        topic: cursor.partition.topic.to_string(),
        partition: cursor.partition.partition.0,
        next_offset: cursor.next.get(),
        high_watermark: cursor.high_watermark.get(),
        log_start_offset: cursor.log_start.get(),
        caught_up: cursor.caught_up(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subscriptions_are_checked() {
        let ok = || v1::SubscribeRequest {
            topic: "t".to_owned(),
            ..Default::default()
        };
        assert!(plan(&ok()).is_ok());
        let end = |p| Some(v1::EndPosition { position: Some(p) });
        use v1::end_position::Position as P;
        for (bad, field) in [
            (
                v1::SubscribeRequest {
                    topic: "..".to_owned(),
                    ..ok()
                },
                Some("topic"),
            ),
            (
                v1::SubscribeRequest {
                    max_records: -1,
                    ..ok()
                },
                Some("max_records"),
            ),
            (
                v1::SubscribeRequest {
                    end: end(P::CurrentEnd(false)),
                    ..ok()
                },
                Some("end.current_end"),
            ),
            (
                v1::SubscribeRequest {
                    end: end(P::Offset(-1)),
                    ..ok()
                },
                Some("end.offset"),
            ),
            (
                v1::SubscribeRequest {
                    end: Some(v1::EndPosition::default()),
                    ..ok()
                },
                Some("end.position"),
            ),
            (
                v1::SubscribeRequest {
                    partitions: vec![1],
                    resume_offsets: [(2, 0)].into(),
                    ..ok()
                },
                Some("resume_offsets"),
            ),
            (
                v1::SubscribeRequest {
                    resume_offsets: [(0, -1)].into(),
                    ..ok()
                },
                Some("resume_offsets"),
            ),
            (
                v1::SubscribeRequest {
                    partitions: vec![-1],
                    ..ok()
                },
                None,
            ),
        ] {
            assert_eq!(plan(&bad).unwrap_err().field, field);
        }
    }
}
