//! FetchStream: many partitions of one node on one stream, with credit per partition. One task, one fetch
//! parked in the broker for all partitions that have credit; a command that changes what is to be read
//! drops that fetch and the next turn makes another.
//!
//! In batch form no payload is copied or looked at here: slices of what the broker read go into the
//! messages. While one message is with the transport, one more is ready and the next is being read.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::MissedTickBehavior;
use tonic::{Status, Streaming};
use varve_broker_api::{Broker, Context, Error, Position};
use varve_proto::v1;
use varve_types::{ErrorKind, Offset, limits};

use super::reader::{Cursor, Ending, Event, Fetched, Options, Reader, Spec, What};
use super::subscribe::HOLD;
use super::{DrainStep, Drainer, Gone, Outbound, Outlet, Parked, channel, idle, parked};
use crate::context::CallContext;
use crate::shared::Shared;
use crate::translate::fetch::{OutOfRange, encoding, out_of_range};
use crate::translate::group::bounded;
use crate::translate::{isolation, leader_epoch, missing, start_without_group, topic_partition};

/// Smallest `max_message_bytes`.
const MESSAGE_MIN_BYTES: usize = 64 * 1024;
/// Largest `max_message_bytes`.
const MESSAGE_MAX_BYTES: usize = limits::STREAM_MESSAGE_MAX_BYTES;
/// Most subscriptions of one stream.
const SUBSCRIPTIONS_MAX: usize = limits::STREAM_MAX_SUBSCRIPTIONS;

/// Opens the stream.
pub fn open<B: Broker>(
    shared: &Arc<Shared<B>>,
    ctx: CallContext,
    inbound: Streaming<v1::FetchStreamRequest>,
) -> Outbound<v1::FetchStreamResponse> {
    let (outlet, outbound) = channel(shared, "FetchStream", 1);
    tokio::spawn(run(Arc::clone(shared), ctx, inbound, outlet));
    outbound
}

/// Settings of a stream, from its first command.
#[derive(Debug, Clone)]
struct Settings {
    options: Options,
    idle: Duration,
    rack: Arc<str>,
}

impl Settings {
    fn read(open: &v1::FetchStreamOpen) -> Result<Self, Error> {
        let bytes = match u64::try_from(open.max_message_bytes) {
            Ok(0) => limits::RESPONSE_DEFAULT_MAX_BYTES,
            Ok(n) => usize::try_from(n)
                .unwrap_or(usize::MAX)
                .clamp(MESSAGE_MIN_BYTES, MESSAGE_MAX_BYTES),
            Err(_) => {
                let text = format!(
                    "max_message_bytes must not be negative; found {}",
                    open.max_message_bytes
                );
                return Err(Error::invalid("max_message_bytes", text));
            }
        };
        let rack = bounded("rack", &open.rack)?.into();
        let options = Options {
            encoding: encoding(open.encoding)?,
            message_bytes: bytes,
            strict_size: true,
            ride_out: false,
            isolation: isolation("isolation", open.isolation)?,
        };
        Ok(Self {
            options,
            idle: idle(open.idle_heartbeat.as_ref())?,
            rack,
        })
    }
}

async fn run<B: Broker>(
    shared: Arc<Shared<B>>,
    ctx: CallContext,
    mut inbound: Streaming<v1::FetchStreamRequest>,
    outlet: Outlet<v1::FetchStreamResponse>,
) {
    let settings = tokio::select! {
        biased;
        () = outlet.closed() => return,
        first = inbound.message() => match first {
            Ok(first) => opening(first),
            Err(status) => return outlet.end(shared.unreadable(status)).await,
        },
        () = shared.drain.cancelled() => Err(Shared::<B>::shutting_down()),
    };
    let settings = match settings {
        Ok(settings) => settings,
        Err(error) => return outlet.end(shared.fail(&error)).await,
    };
    let ctx = Context {
        rack: Arc::clone(&settings.rack),
        ..ctx.broker
    };
    let mut stream = FetchStream {
        reader: Reader::new(Arc::clone(&shared), ctx, settings.options, outlet.pace()),
        shared,
        settings,
        outlet,
        reported: BTreeMap::new(),
        refused: Vec::new(),
        spoken: false,
    };
    if let Ok(Some(status)) = stream.serve(inbound).await {
        stream.outlet.end(status).await;
    }
}

fn opening(first: Option<v1::FetchStreamRequest>) -> Result<Settings, Error> {
    use v1::fetch_stream_request::Command as C;
    match first.and_then(|m| m.command) {
        Some(C::Open(open)) => Settings::read(&open),
        _ => Err(Error::invalid(
            "open",
            "the first command of FetchStream must be open",
        )),
    }
}

struct FetchStream<B> {
    shared: Arc<Shared<B>>,
    settings: Settings,
    reader: Reader<B, i64>,
    outlet: Outlet<v1::FetchStreamResponse>,
    /// High watermarks as the client last heard of them.
    reported: BTreeMap<i64, Offset>,
    /// Subscriptions that could not be made.
    refused: Vec<(i64, Error)>,
    /// Something was sent since the last tick.
    spoken: bool,
}

impl<B: Broker> FetchStream<B> {
    /// Runs until the end: `None` is OK.
    async fn serve(
        &mut self,
        mut inbound: Streaming<v1::FetchStreamRequest>,
    ) -> Result<Option<Status>, Gone> {
        let mut drainer = Drainer::new(&self.shared);
        let mut fetching: Option<Parked<Fetched<i64>>> = None;
        let mut ticks = tokio::time::interval(self.settings.idle);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks.tick().await;
        let mut open = true;
        loop {
            for (id, error) in std::mem::take(&mut self.refused) {
                self.put(closed(id, 0, Some(self.shared.partition_error(&error))))
                    .await?;
            }
            while let Some(event) = self.reader.next_event(u64::MAX) {
                self.send(event).await?;
            }
            if self.reader.has_lost_places() {
                self.reader.recover().await;
                continue;
            }
            // Half-closed with nothing left to read: there is nothing the client could still ask for.
            if !open && self.reader.cursors().is_empty() {
                return Ok(None);
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
                        let drain = v1::fetch_stream_response::Event::Drain(drainer.event());
                        self.put(drain).await?;
                    }
                    DrainStep::End => {
                        return Ok(Some(self.shared.fail(&Shared::<B>::shutting_down())));
                    }
                },
                message = inbound.message(), if open => match message {
                    Ok(Some(message)) => match self.command(message).await {
                        Ok(true) => fetching = None,
                        Ok(false) => {}
                        Err(error) => return Ok(Some(self.shared.fail(&error))),
                    },
                    Ok(None) => open = false,
                    Err(status) => return Ok(Some(self.shared.unreadable(status))),
                },
                () = self.reader.window().opened(), if waits && fetching.is_none() => {}
                fetched = parked(&mut fetching) => {
                    fetching = None;
                    self.reader.accept(fetched);
                }
                _ = ticks.tick() => self.heartbeat().await?,
            }
        }
    }

    /// Carries out a command. Returns whether the parked fetch no longer asks for the right thing.
    async fn command(&mut self, message: v1::FetchStreamRequest) -> Result<bool, Error> {
        use v1::fetch_stream_request::Command as C;
        match message.command.ok_or_else(|| missing("command"))? {
            C::Open(_) => Err(Error::invalid(
                "open",
                "open must be the first command of a stream, and is sent only once",
            )),
            C::Add(add) => {
                if self.reader.cursors().contains_key(&add.subscription_id) {
                    let text = format!(
                        "subscription_id {} is already in use on this stream",
                        add.subscription_id
                    );
                    return Err(Error::invalid("add.subscription_id", text));
                }
                if self.reader.cursors().len() >= SUBSCRIPTIONS_MAX {
                    let text =
                        format!("a stream may have at most {SUBSCRIPTIONS_MAX} subscriptions");
                    return Err(Error::new(ErrorKind::FlowControl, text));
                }
                match spec(&add) {
                    Ok(spec) => self.reader.open(vec![(add.subscription_id, spec)]).await,
                    Err(error) => self.refused.push((add.subscription_id, error)),
                }
                Ok(true)
            }
            C::Remove(remove) => Ok(self.remove(remove.subscription_id)),
            C::Seek(seek) => self.seek(&seek).await,
            C::Credit(credit) => {
                if credit.bytes <= 0 {
                    let text = format!("credit must be more than 0 bytes; found {}", credit.bytes);
                    return Err(Error::invalid("credit.bytes", text));
                }
                // A subscription that is closed already needs none.
                Ok(self
                    .reader
                    .add_credit(&credit.subscription_id, credit.bytes))
            }
        }
    }

    fn remove(&mut self, id: i64) -> bool {
        let Some(cursor) = self.reader.remove(&id) else {
            return false;
        };
        self.reader.say_closed(id, cursor);
        true
    }

    async fn seek(&mut self, seek: &v1::FetchStreamSeek) -> Result<bool, Error> {
        let position = seek.start.as_ref().filter(|s| s.position.is_some());
        let start = start_without_group(
            "seek.start",
            Some(position.ok_or_else(|| missing("seek.start"))?),
        )?;
        let credit = credit("seek.initial_credit_bytes", seek.initial_credit_bytes)?;
        // A subscription that is closed already stays closed: its event is on the way.
        let Some(cursor) = self.reader.cursors().get(&seek.subscription_id) else {
            return Ok(false);
        };
        let spec = cursor.moved(start, Some(credit));
        self.reader.open(vec![(seek.subscription_id, spec)]).await;
        Ok(true)
    }

    async fn heartbeat(&mut self) -> Result<(), Gone> {
        self.reader.refresh(self.settings.idle).await;
        let mut moved = BTreeMap::new();
        for (id, cursor) in self.reader.cursors() {
            let told = self.reported.get(id).copied();
            if told.is_none_or(|t| t < cursor.high_watermark) {
                moved.insert(*id, cursor.high_watermark.get());
            }
        }
        for (id, hw) in &moved {
            self.reported
                .insert(*id, Offset::new(*hw).unwrap_or_default());
        }
        if std::mem::take(&mut self.spoken) && moved.is_empty() {
            return Ok(());
        }
        let beat = v1::FetchStreamHeartbeat {
            high_watermarks: moved,
        };
        self.put(v1::fetch_stream_response::Event::Heartbeat(beat))
            .await?;
        self.spoken = false;
        Ok(())
    }

    async fn send(&mut self, event: Event<i64>) -> Result<(), Gone> {
        use v1::fetch_stream_response::Event as E;
        let (id, cursor) = (event.key, &event.cursor);
        let event = match event.what {
            What::Opened => E::Positioned(positioned(id, cursor)),
            What::Records(chunk) => E::Records(v1::FetchStreamRecords {
                subscription_id: id,
                records: chunk.records,
                batches: chunk.batches,
                next_offset: chunk.next_offset.get(),
                high_watermark: cursor.high_watermark.get(),
                credit_used: chunk.payload_bytes,
            }),
            // A client that reads up to an offset learns that it is there.
            What::Passed => E::Records(v1::FetchStreamRecords {
                subscription_id: id,
                next_offset: cursor.next.get(),
                high_watermark: cursor.high_watermark.get(),
                ..Default::default()
            }),
            What::Closed(error) => {
                self.reported.remove(&id);
                closed(
                    id,
                    cursor.next.get(),
                    error.map(|e| self.shared.partition_error(&e)),
                )
            }
            What::CaughtUp | What::Idle => return Ok(()),
        };
        self.reported
            .entry(id)
            .and_modify(|hw| *hw = cursor.high_watermark);
        if matches!(event, E::Positioned(_)) {
            self.reported.insert(id, cursor.high_watermark);
        }
        self.spoken = true;
        let message = v1::FetchStreamResponse { event: Some(event) };
        let reader = &mut self.reader;
        self.outlet.deliver(message, || reader.shed()).await
    }

    async fn put(&mut self, event: v1::fetch_stream_response::Event) -> Result<(), Gone> {
        self.spoken = true;
        self.outlet
            .send(v1::FetchStreamResponse { event: Some(event) })
            .await
    }
}

fn closed(
    subscription_id: i64,
    next_offset: i64,
    error: Option<v1::PartitionError>,
) -> v1::fetch_stream_response::Event {
    let closed = v1::FetchStreamClosed {
        subscription_id,
        next_offset,
        error,
    };
    v1::fetch_stream_response::Event::Closed(closed)
}

fn positioned(id: i64, cursor: &Cursor) -> v1::FetchStreamPositioned {
    v1::FetchStreamPositioned {
        subscription_id: id,
        next_offset: cursor.next.get(),
        high_watermark: cursor.high_watermark.get(),
        log_start_offset: cursor.log_start.get(),
        leader_epoch: cursor.leader_epoch.get().into(),
    }
}

fn spec(add: &v1::FetchStreamAdd) -> Result<Spec, Error> {
    let policy: OutOfRange = out_of_range(add.out_of_range)?;
    let start: Position = start_without_group("add.start", add.start.as_ref())?;
    Ok(Spec {
        partition: topic_partition("add.topic_partition", add.topic_partition.as_ref())?,
        start,
        out_of_range: policy,
        until: Ending::Follow,
        leader_epoch: leader_epoch("add.leader_epoch", add.leader_epoch)?,
        credit: Some(credit(
            "add.initial_credit_bytes",
            add.initial_credit_bytes,
        )?),
    })
}

fn credit(field: &'static str, bytes: i64) -> Result<i64, Error> {
    if bytes < 0 {
        return Err(Error::invalid(
            field,
            format!("{field} must not be negative; found {bytes}"),
        ));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_sizes_are_clamped() {
        let size = |n| {
            Settings::read(&v1::FetchStreamOpen {
                max_message_bytes: n,
                ..Default::default()
            })
            .map(|s| s.options.message_bytes)
        };
        assert_eq!(size(0).unwrap(), limits::RESPONSE_DEFAULT_MAX_BYTES);
        assert_eq!(size(1).unwrap(), MESSAGE_MIN_BYTES);
        assert_eq!(size(i64::MAX).unwrap(), MESSAGE_MAX_BYTES);
        assert!(size(-1).is_err());
    }

    #[test]
    fn adds_are_checked() {
        let ok = || v1::FetchStreamAdd {
            topic_partition: Some(v1::TopicPartition {
                topic: "t".to_owned(),
                partition: 0,
            }),
            ..Default::default()
        };
        assert!(spec(&ok()).is_ok());
        assert!(
            spec(&v1::FetchStreamAdd {
                topic_partition: None,
                ..ok()
            })
            .is_err()
        );
        assert!(
            spec(&v1::FetchStreamAdd {
                initial_credit_bytes: -1,
                ..ok()
            })
            .is_err()
        );
        assert!(
            spec(&v1::FetchStreamAdd {
                leader_epoch: Some(-1),
                ..ok()
            })
            .is_err()
        );
    }
}
