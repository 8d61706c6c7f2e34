//! The consumer's background task: one fetch stream per leader, partitions placed on it, credit given
//! back as batches are consumed, everything opened again where it stopped after a loss.
//!
//! Memory is bounded by credit: a partition is never sent more than its window beyond what the
//! application has taken.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::Instant;
use varve_proto::v1::{
    self, fetch_stream_request::Command as Wire, fetch_stream_response::Event as WireEvent,
};
use varve_types::{ErrorKind, TopicName};

use crate::backoff::{Backoff, Random};
use crate::connect::{Client, Rpc};
use crate::error::{ClientError, RpcError};
use crate::fetch_wire;

/// Largest response message, in bytes.
const MESSAGE_BYTES: i64 = 4 * 1024 * 1024;
/// The server speaks at least every 15 s; a stream silent for three times that is given up.
const SILENCE_MAX: Duration = Duration::from_secs(45);

/// How long a partition is read from its leader after another copy could not answer.
const LEADER_ONLY: Duration = Duration::from_secs(30);

/// What the consumer asks for.
#[derive(Debug)]
pub(crate) enum Command {
    Add(Subscription),
    Remove(u64),
    /// The application has taken this many bytes.
    Taken(u64, usize),
}

/// A partition to read.
#[derive(Debug, Clone)]
pub(crate) struct Subscription {
    pub id: u64,
    pub topic: TopicName,
    pub partition: i32,
    pub next_offset: i64,
    pub window: usize,
    pub out_of_range: v1::OutOfRangePolicy,
}

/// What the consumer gets.
#[derive(Debug)]
pub(crate) enum Item {
    Records {
        id: u64,
        batches: Vec<Bytes>,
        next_offset: i64,
        high_watermark: i64,
        credit: usize,
    },
    /// The partition was opened elsewhere than asked, as the out-of-range policy says.
    Positioned {
        id: u64,
        next_offset: i64,
    },
    Failed {
        id: u64,
        error: ClientError,
    },
}

enum Event {
    Message(u64, v1::FetchStreamResponse),
    Ended(u64, RpcError),
    Refreshed(Result<(), ClientError>),
}

struct Partition {
    subscription: Subscription,
    /// Stream and number on it.
    placed: Option<(u64, i64)>,
    /// Bytes sent and not yet taken by the application.
    held: usize,
    /// Bytes taken and not yet given back as credit.
    taken: usize,
    retry_at: Instant,
    failures: u32,
    /// Until when only the leader is asked, since a copy nearby could not answer.
    leader_until: Instant,
}

struct Stream {
    id: u64,
    requests: mpsc::UnboundedSender<v1::FetchStreamRequest>,
    wires: BTreeMap<i64, u64>,
    heard: Instant,
    draining: bool,
}

pub(crate) struct Fetcher {
    client: Client,
    rack: String,
    partitions: BTreeMap<u64, Partition>,
    streams: BTreeMap<i32, Stream>,
    resting: BTreeMap<i32, (u32, Instant)>,
    next_stream: u64,
    next_wire: i64,
    commands: mpsc::UnboundedReceiver<Command>,
    items: mpsc::UnboundedSender<Item>,
    events: mpsc::UnboundedReceiver<Event>,
    report: mpsc::UnboundedSender<Event>,
    refreshing: bool,
    refresh_at: Option<Instant>,
    refresh_failures: u32,
    backoff: Backoff,
    random: Random,
}

/// Starts a fetcher. It ends when the command channel closes.
pub(crate) fn start(
    client: Client,
    rack: String,
) -> (
    mpsc::UnboundedSender<Command>,
    mpsc::UnboundedReceiver<Item>,
) {
    let (command, commands) = mpsc::unbounded_channel();
    let (items, item) = mpsc::unbounded_channel();
    let (report, events) = mpsc::unbounded_channel();
    let fetcher = Fetcher {
        client,
        rack,
        partitions: BTreeMap::new(),
        streams: BTreeMap::new(),
        resting: BTreeMap::new(),
        next_stream: 1,
        next_wire: 1,
        commands,
        items,
        events,
        report,
        refreshing: false,
        refresh_at: None,
        refresh_failures: 0,
        backoff: Backoff::default(),
        random: Random::new(uuid::Uuid::new_v4().as_u64_pair().0),
    };
    tokio::spawn(fetcher.run());
    (command, item)
}

impl Fetcher {
    async fn run(mut self) {
        loop {
            let now = Instant::now();
            self.place(now);
            self.refresh(now);
            let wait = self.next_due(now).saturating_duration_since(now);
            tokio::select! {
                command = self.commands.recv() => match command {
                    None => return,
                    Some(command) => {
                        self.on_command(command);
                        while let Ok(command) = self.commands.try_recv() {
                            self.on_command(command);
                        }
                    }
                },
                Some(event) = self.events.recv() => self.on_event(event),
                () = tokio::time::sleep(wait) => self.drop_silent(),
            }
        }
    }

    fn next_due(&self, now: Instant) -> Instant {
        let retries = self
            .partitions
            .values()
            .filter(|p| p.placed.is_none())
            .map(|p| p.retry_at);
        let rests = self.resting.values().map(|(_, until)| *until);
        let due = retries
            .chain(rests)
            .chain(self.refresh_at)
            .filter(|due| *due > now)
            .min();
        due.unwrap_or(now + Duration::from_secs(5))
            .min(now + Duration::from_secs(5))
    }

    fn on_command(&mut self, command: Command) {
        match command {
            Command::Add(subscription) => {
                let id = subscription.id;
                let partition = Partition {
                    subscription,
                    placed: None,
                    held: 0,
                    taken: 0,
                    retry_at: Instant::now(),
                    failures: 0,
                    leader_until: Instant::now(),
                };
                self.partitions.insert(id, partition);
            }
            Command::Remove(id) => {
                let Some(partition) = self.partitions.remove(&id) else {
                    return;
                };
                if let Some((stream, wire)) = partition.placed {
                    let remove = v1::FetchStreamRemove {
                        subscription_id: wire,
                    };
                    self.tell(stream, Wire::Remove(remove));
                    if let Some(stream) = self.stream_mut(stream) {
                        stream.1.wires.remove(&wire);
                    }
                }
            }
            Command::Taken(id, bytes) => {
                let Some(partition) = self.partitions.get_mut(&id) else {
                    return;
                };
                partition.held -= bytes.min(partition.held);
                partition.taken += bytes;
                // Many small returns are one message.
                let due =
                    partition.taken >= partition.subscription.window / 4 || partition.held == 0;
                if let (true, Some((stream, wire))) = (due, partition.placed) {
                    let bytes = std::mem::take(&mut partition.taken) as i64;
                    let credit = v1::FetchStreamCredit {
                        subscription_id: wire,
                        bytes,
                    };
                    self.tell(stream, Wire::Credit(credit));
                }
            }
        }
    }

    fn stream_mut(&mut self, id: u64) -> Option<(i32, &mut Stream)> {
        let found = self.streams.iter_mut().find(|(_, stream)| stream.id == id);
        found.map(|(node, stream)| (*node, stream))
    }

    fn tell(&mut self, stream: u64, command: Wire) {
        if let Some((_, stream)) = self.stream_mut(stream) {
            // A closed stream reports its end by itself.
            let _ = stream.requests.send(v1::FetchStreamRequest {
                command: Some(command),
            });
        }
    }

    /// Puts every partition that is on no stream onto its leader's.
    fn place(&mut self, now: Instant) {
        let waiting: Vec<u64> = self
            .partitions
            .iter()
            .filter(|(_, p)| p.placed.is_none() && p.retry_at <= now)
            .map(|(id, _)| *id)
            .collect();
        for id in waiting {
            self.place_one(now, id);
        }
    }

    fn place_one(&mut self, now: Instant, id: u64) {
        let Some(partition) = self.partitions.get(&id) else {
            return;
        };
        let subscription = partition.subscription.clone();
        let routing = self.client.routing();
        let (topic, number) = (subscription.topic.as_str(), subscription.partition);
        let near = match self.rack.is_empty() || now < partition.leader_until {
            true => None,
            false => routing.nearest(topic, number, &self.rack),
        };
        let node = near.or_else(|| Some(routing.leader(topic, number)?.node_id));
        let address = node.and_then(|node| routing.address(node));
        let (Some(node), Some(address)) = (node, address) else {
            self.ask_refresh(now);
            return;
        };
        if self
            .resting
            .get(&node)
            .is_some_and(|(_, until)| now < *until)
        {
            return;
        }
        if !self.streams.contains_key(&node) {
            self.open_stream(now, node, &address);
        }
        let Some(stream) = self
            .streams
            .get_mut(&node)
            .filter(|stream| !stream.draining)
        else {
            return;
        };
        let Some(partition) = self.partitions.get_mut(&id) else {
            return;
        };
        let wire = self.next_wire;
        self.next_wire += 1;
        stream.wires.insert(wire, id);
        partition.placed = Some((stream.id, wire));
        partition.taken = 0;
        let credit = subscription.window.saturating_sub(partition.held);
        let position = v1::start_position::Position::Offset(subscription.next_offset);
        let add = v1::FetchStreamAdd {
            subscription_id: wire,
            topic_partition: Some(v1::TopicPartition {
                topic: subscription.topic.to_string(),
                partition: subscription.partition,
            }),
            start: Some(v1::StartPosition {
                position: Some(position),
            }),
            out_of_range: subscription.out_of_range.into(),
            initial_credit_bytes: credit as i64,
            leader_epoch: None,
        };
        let stream = stream.id;
        self.tell(stream, Wire::Add(add));
    }

    fn open_stream(&mut self, now: Instant, node: i32, address: &str) {
        let id = self.next_stream;
        self.next_stream += 1;
        let (requests, receiver) = mpsc::unbounded_channel();
        let open = v1::FetchStreamOpen {
            isolation: v1::Isolation::Unspecified.into(),
            encoding: v1::ReadEncoding::Batches.into(),
            max_message_bytes: MESSAGE_BYTES,
            rack: self.rack.clone(),
            idle_heartbeat: None,
        };
        let _ = requests.send(v1::FetchStreamRequest {
            command: Some(Wire::Open(open)),
        });
        let wires = BTreeMap::new();
        self.streams.insert(
            node,
            Stream {
                id,
                requests,
                wires,
                heard: now,
                draining: false,
            },
        );
        let report = self.report.clone();
        match self.client.rpc(address, true) {
            Ok(rpc) => {
                tokio::spawn(read_stream(id, rpc, receiver, report));
            }
            Err(error) => {
                let error = RpcError::transport(error.to_string());
                let _ = report.send(Event::Ended(id, error));
            }
        }
    }

    fn on_event(&mut self, event: Event) {
        let now = Instant::now();
        match event {
            Event::Message(id, message) => {
                let Some((node, stream)) = self.stream_mut(id) else {
                    return;
                };
                stream.heard = now;
                self.resting.remove(&node);
                if let Some(event) = message.event {
                    self.on_message(now, id, event);
                }
            }
            Event::Ended(id, error) => self.lose_stream(now, id, &error),
            Event::Refreshed(result) => {
                self.refreshing = false;
                self.refresh_failures = if result.is_ok() {
                    0
                } else {
                    self.refresh_failures.saturating_add(1)
                };
                if let Err(ClientError::TopicNotFound(topic)) = result {
                    self.fail_topic(&topic);
                }
            }
        }
    }

    fn partition_of(&mut self, stream: u64, wire: i64) -> Option<&mut Partition> {
        let id = *self.stream_mut(stream)?.1.wires.get(&wire)?;
        self.partitions.get_mut(&id)
    }

    fn on_message(&mut self, now: Instant, stream: u64, event: WireEvent) {
        match event {
            WireEvent::Positioned(event) => {
                let Some(partition) = self.partition_of(stream, event.subscription_id) else {
                    return;
                };
                partition.failures = 0;
                let (id, next_offset) = (partition.subscription.id, event.next_offset);
                if partition.subscription.next_offset != next_offset {
                    partition.subscription.next_offset = next_offset;
                    let _ = self.items.send(Item::Positioned { id, next_offset });
                }
            }
            WireEvent::Records(event) => {
                let Some(partition) = self.partition_of(stream, event.subscription_id) else {
                    return;
                };
                let credit = usize::try_from(event.credit_used).unwrap_or(0);
                partition.held += credit;
                partition.failures = 0;
                partition.subscription.next_offset = event.next_offset;
                let item = Item::Records {
                    id: partition.subscription.id,
                    batches: event.batches.into_iter().map(|batch| batch.data).collect(),
                    next_offset: event.next_offset,
                    high_watermark: event.high_watermark,
                    credit,
                };
                let _ = self.items.send(item);
            }
            WireEvent::Closed(event) => self.on_closed(now, stream, event),
            WireEvent::Heartbeat(_) => {}
            WireEvent::Drain(_) => {
                if let Some((_, stream)) = self.stream_mut(stream) {
                    stream.draining = true;
                }
                self.ask_refresh(now);
            }
        }
    }

    fn on_closed(&mut self, now: Instant, stream: u64, event: v1::FetchStreamClosed) {
        let wire = event.subscription_id;
        let id = match self.stream_mut(stream) {
            Some((_, stream)) => stream.wires.remove(&wire),
            None => None,
        };
        let Some(partition) = id.and_then(|id| self.partitions.get_mut(&id)) else {
            return;
        };
        partition.placed = None;
        let Some(error) = event.error.map(RpcError::from_partition) else {
            // Closed without our asking: open it again.
            partition.retry_at = now;
            return;
        };
        let id = partition.subscription.id;
        let (topic, number) = (
            partition.subscription.topic.clone(),
            partition.subscription.partition,
        );
        if !error.is_retryable() && error.kind != Some(ErrorKind::TopicNotFound) {
            self.partitions.remove(&id);
            let _ = self.items.send(Item::Failed {
                id,
                error: error.into(),
            });
            return;
        }
        partition.failures += 1;
        partition.leader_until = now + LEADER_ONLY;
        let pause = self.backoff.pause(partition.failures, &mut self.random);
        let learned = error
            .leader
            .as_ref()
            .is_some_and(|hint| self.client.routing().learn(topic.as_str(), number, hint));
        let pause = if learned && partition.failures <= 3 {
            Duration::ZERO
        } else {
            pause
        };
        partition.retry_at = now + error.retry_delay.unwrap_or(pause);
        if !learned {
            self.ask_refresh(now);
        }
    }

    fn lose_stream(&mut self, now: Instant, id: u64, error: &RpcError) {
        tracing::debug!(stream = id, %error, "fetch stream lost");
        let Some((node, _)) = self.stream_mut(id) else {
            return;
        };
        self.streams.remove(&node);
        let failures = self.resting.get(&node).map_or(0, |(failures, _)| *failures) + 1;
        let pause = self.backoff.pause(failures, &mut self.random);
        self.resting.insert(node, (failures, now + pause));
        for partition in self.partitions.values_mut() {
            if partition.placed.is_some_and(|(stream, _)| stream == id) {
                partition.placed = None;
                partition.retry_at = now + pause;
                partition.leader_until = now + LEADER_ONLY;
            }
        }
        self.ask_refresh(now);
    }

    fn drop_silent(&mut self) {
        let now = Instant::now();
        let silent: Vec<u64> = self
            .streams
            .values()
            .filter(|stream| now > stream.heard + SILENCE_MAX)
            .map(|stream| stream.id)
            .collect();
        for id in silent {
            self.lose_stream(
                now,
                id,
                &RpcError::transport("the stream sent nothing for too long"),
            );
        }
    }

    fn fail_topic(&mut self, topic: &str) {
        let gone: Vec<u64> = self
            .partitions
            .iter()
            .filter(|(_, p)| p.subscription.topic.as_str() == topic && p.placed.is_none())
            .map(|(id, _)| *id)
            .collect();
        for id in gone {
            self.partitions.remove(&id);
            let error = ClientError::TopicNotFound(topic.to_owned());
            let _ = self.items.send(Item::Failed { id, error });
        }
    }

    fn ask_refresh(&mut self, now: Instant) {
        if self.refresh_at.is_none() && !self.refreshing {
            let pause = match self.refresh_failures {
                0 => Duration::ZERO,
                failures => self.backoff.pause(failures, &mut self.random),
            };
            self.refresh_at = Some(now + pause);
        }
    }

    fn refresh(&mut self, now: Instant) {
        if self.refreshing || self.refresh_at.is_none_or(|at| at > now) {
            return;
        }
        self.refresh_at = None;
        self.refreshing = true;
        // The next question, if this answer does not help, comes after a pause.
        self.refresh_failures = self.refresh_failures.max(1);
        let mut topics: Vec<String> = self
            .partitions
            .values()
            .map(|p| p.subscription.topic.to_string())
            .collect();
        topics.sort_unstable();
        topics.dedup();
        let (client, report) = (self.client.clone(), self.report.clone());
        tokio::spawn(async move {
            let _ = report.send(Event::Refreshed(client.refresh(&topics).await));
        });
    }
}

async fn read_stream(
    id: u64,
    rpc: Rpc,
    requests: mpsc::UnboundedReceiver<v1::FetchStreamRequest>,
    report: mpsc::UnboundedSender<Event>,
) {
    let error = match fetch_wire::open(rpc, requests).await {
        Err(status) => RpcError::from_status(&status),
        Ok(mut answers) => loop {
            match answers.next().await {
                Ok(Some(message)) => {
                    if report.send(Event::Message(id, message)).is_err() {
                        return;
                    }
                }
                Ok(None) => break RpcError::transport("the server closed the stream"),
                Err(status) => break RpcError::from_status(&status),
            }
        },
    };
    let _ = report.send(Event::Ended(id, error));
}
