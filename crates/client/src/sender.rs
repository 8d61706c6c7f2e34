//! The producer's background task: takes due batches from the batcher, gives them to the flight table,
//! keeps one stream per leader, and feeds answers and losses back.
//!
//! All decisions about order and repetition are the flight table's; all waiting is here.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use varve_proto::v1::{self, produce_stream_response::Event as StreamEvent};
use varve_types::{Acks, ErrorKind, Offset, ProducerId, TransactionalId};

use crate::backoff::{Backoff, Random};
use crate::batcher::Slot;
use crate::connect::Client;
use crate::delivery::{BatchAck, BatchReport};
use crate::error::{ClientError, RpcError};
use crate::flight::{Flight, FlightConfig, Settled, StreamId, expired_unsent};
use crate::producer::{ProducerConfig, Shared};

/// Bytes of a request beside the batch and the topic's name.
const REQUEST_OVERHEAD: usize = 64;
/// The table is asked for again after this long, so that new partitions are found.
const METADATA_MAX_AGE: Duration = Duration::from_secs(300);

/// What the tasks beside this one report.
enum Event {
    Stream(StreamId, Result<v1::ProduceStreamResponse, RpcError>),
    Session(Result<ProducerId, ClientError>),
    Metadata(Vec<String>, Result<(), ClientError>),
}

struct Stream {
    id: StreamId,
    requests: mpsc::UnboundedSender<v1::ProduceStreamRequest>,
    /// `None` until the server has announced them.
    limits: Option<v1::ProduceStreamLimits>,
    sizes: BTreeMap<i64, usize>,
    in_flight_bytes: usize,
    draining: bool,
}

impl Stream {
    fn has_credit(&self, size: usize) -> bool {
        let Some(limits) = &self.limits else {
            return false;
        };
        let most = usize::try_from(limits.max_in_flight_requests)
            .unwrap_or(1)
            .max(1);
        let bytes = usize::try_from(limits.max_in_flight_bytes).unwrap_or(usize::MAX);
        !self.draining
            && self.sizes.len() < most
            && (self.sizes.is_empty() || self.in_flight_bytes + size <= bytes)
    }
}

pub(crate) struct Sender {
    client: Client,
    config: ProducerConfig,
    /// Whose transactions everything belongs to; sessions come from there.
    transaction: Option<TransactionalId>,
    shared: Arc<Shared>,
    flight: Flight,
    backoff: Backoff,
    random: Random,
    streams: BTreeMap<i32, Stream>,
    /// Nodes whose stream failed lately, and until when they are left alone.
    resting: BTreeMap<i32, (u32, Duration)>,
    next_stream: StreamId,
    events: mpsc::UnboundedReceiver<Event>,
    report: mpsc::UnboundedSender<Event>,
    topics: BTreeSet<String>,
    opening_session: bool,
    session_retry_at: Duration,
    session_failures: u32,
    refreshing: bool,
    refresh_due: Option<Duration>,
    refresh_failures: u32,
    refreshed_at: Duration,
}

impl Sender {
    pub fn new(
        client: Client,
        mut config: ProducerConfig,
        transaction: Option<TransactionalId>,
        shared: Arc<Shared>,
        seed: u64,
    ) -> Self {
        let backoff = Backoff::default();
        config.idempotent &= config.acks == Acks::All;
        let flight = FlightConfig {
            max_in_flight: config.max_in_flight,
            idempotent: config.idempotent,
            transactional: transaction.is_some(),
            delivery_timeout: config.delivery_timeout,
            request_timeout: client.config().request_timeout,
            backoff,
        };
        let (report, events) = mpsc::unbounded_channel();
        Self {
            client,
            config,
            transaction,
            shared,
            flight: Flight::new(flight, seed),
            backoff,
            random: Random::new(seed.rotate_left(17)),
            streams: BTreeMap::new(),
            resting: BTreeMap::new(),
            next_stream: 1,
            events,
            report,
            topics: BTreeSet::new(),
            opening_session: false,
            session_retry_at: Duration::ZERO,
            session_failures: 0,
            refreshing: false,
            refresh_due: None,
            refresh_failures: 0,
            refreshed_at: Duration::ZERO,
        }
    }

    /// Runs until the producer is closed and everything is settled, or the producer is dropped.
    pub async fn run(mut self) {
        let shared = self.shared.clone();
        loop {
            let now = shared.now();
            self.step(now);
            if shared.state().closed && self.flight.is_empty() {
                return;
            }
            let due = self.next_due(now);
            tokio::select! {
                biased;
                Some(event) = self.events.recv() => {
                    self.on_event(event);
                    while let Ok(event) = self.events.try_recv() {
                        self.on_event(event);
                    }
                }
                () = shared.wake.notified() => {}
                () = tokio::time::sleep(due.saturating_sub(now)) => {}
            }
        }
    }

    fn next_due(&self, now: Duration) -> Duration {
        let batcher = self.shared.batcher().next_due(now);
        let resting = self.resting.values().map(|(_, until)| *until);
        [
            batcher,
            self.flight.next_due(now),
            self.refresh_due,
            Some(self.session_retry_at),
        ]
        .into_iter()
        .flatten()
        .chain(resting)
        .filter(|due| *due > now)
        .min()
        .unwrap_or(now + Duration::from_secs(1))
        .min(now + Duration::from_secs(1))
    }

    /// Does what the transactions ask for: gives up everything, takes a new session.
    fn obey(&mut self) {
        if self.transaction.is_none() {
            return;
        }
        let abandon = self.shared.state().abandon.take();
        if let Some(error) = abandon {
            self.abandon_all(&error);
        }
        self.take_session();
    }

    fn take_session(&mut self) {
        let session = self.shared.state().session.take();
        if let Some(session) = session {
            self.flight.grant_session(session);
        }
    }

    fn step(&mut self, now: Duration) {
        self.obey();
        let settled = self.flight.tick(now);
        self.settle(settled);
        if let Some(oldest) = now.checked_sub(self.config.delivery_timeout) {
            let expired = self.shared.batcher().expire(oldest);
            let after = self.config.delivery_timeout;
            let settled = expired
                .into_iter()
                .map(|batch| expired_unsent(batch, after))
                .collect();
            self.settle(settled);
        }
        for stream in self.flight.stalled(now) {
            self.lose_stream(
                now,
                stream,
                &RpcError::transport("no answer within the timeout"),
            );
        }
        self.refresh_topics(now);
        // Batches to be repeated go before new ones.
        for slot in self.flight.sendable(now) {
            self.send_ready(now, slot);
        }
        let active = self.shared.batcher().active();
        self.open_session(now, !active.is_empty());
        for slot in active {
            self.fill(now, slot);
        }
    }

    /// Moves due batches of a partition into flight while there is room and credit.
    fn fill(&mut self, now: Duration, slot: Slot) {
        while self.flight.has_room(now, slot) {
            let Some(node) = self.ready_stream(now, slot) else {
                return;
            };
            let guess = self.config.batch_bytes.min(1024 * 1024);
            if !self
                .streams
                .get(&node)
                .is_some_and(|stream| stream.has_credit(guess))
            {
                return;
            }
            let Some(batch) = self.shared.batcher().take(now, slot) else {
                return;
            };
            // A session is set before the first record that is meant for it is taken, maybe just now.
            self.take_session();
            match self.flight.push(batch) {
                Ok(()) => self.send_ready(now, slot),
                Err(settled) => self.settle(vec![settled]),
            }
        }
    }

    /// Sends what the flight table has ready for a partition.
    fn send_ready(&mut self, now: Duration, slot: Slot) {
        let Some(topic) = self.shared.batcher().topic_name(slot.topic).cloned() else {
            return;
        };
        while let Some(size) = self.flight.next_size(now, slot) {
            let Some(node) = self.ready_stream(now, slot) else {
                return;
            };
            let Some(stream) = self.streams.get_mut(&node) else {
                return;
            };
            let size = size + topic.as_str().len() + REQUEST_OVERHEAD;
            if !stream.has_credit(size) {
                return;
            }
            let Some(outgoing) = self.flight.send(now, slot, stream.id) else {
                return;
            };
            let request_id = outgoing.request_id;
            stream.sizes.insert(request_id, size);
            stream.in_flight_bytes += size;
            let request = v1::ProduceRequest {
                topic: topic.to_string(),
                partition: Some(slot.partition.0),
                batch: Some(v1::EncodedBatch {
                    format: 2,
                    data: outgoing.bytes,
                }),
                acks: wire_acks(self.config.acks).into(),
                transactional_id: self
                    .transaction
                    .as_ref()
                    .map(ToString::to_string)
                    .unwrap_or_default(),
                ..Default::default()
            };
            let request = v1::ProduceStreamRequest {
                request_id,
                request: Some(request),
            };
            // A closed stream reports its end by itself.
            let _ = stream.requests.send(request);
        }
    }

    /// The node whose stream can take requests for the partition; opens it when there is none.
    fn ready_stream(&mut self, now: Duration, slot: Slot) -> Option<i32> {
        let topic = self.shared.batcher().topic_name(slot.topic)?.clone();
        let leader = self
            .client
            .routing()
            .leader(topic.as_str(), slot.partition.0);
        let address = leader.and_then(|leader| self.client.routing().address(leader.node_id));
        let (Some(leader), Some(address)) = (leader, address) else {
            self.ask_refresh(now);
            return None;
        };
        if let Some(stream) = self.streams.get(&leader.node_id) {
            return (stream.limits.is_some() && !stream.draining).then_some(leader.node_id);
        }
        let resting = self
            .resting
            .get(&leader.node_id)
            .is_some_and(|(_, until)| now < *until);
        if !resting {
            self.open_stream(leader.node_id, &address);
        }
        None
    }

    fn open_stream(&mut self, node: i32, address: &str) {
        let id = self.next_stream;
        self.next_stream += 1;
        let (requests, receiver) = mpsc::unbounded_channel();
        let stream = Stream {
            id,
            requests,
            limits: None,
            sizes: BTreeMap::new(),
            in_flight_bytes: 0,
            draining: false,
        };
        self.streams.insert(node, stream);
        let report = self.report.clone();
        match self.client.producer_service(address, true) {
            Ok(service) => {
                tokio::spawn(read_answers(id, service, receiver, report));
            }
            Err(error) => {
                let error = RpcError::transport(error.to_string());
                let _ = report.send(Event::Stream(id, Err(error)));
            }
        }
    }

    fn on_event(&mut self, event: Event) {
        let now = self.shared.now();
        match event {
            Event::Stream(id, Ok(response)) => self.on_response(now, id, response),
            Event::Stream(id, Err(error)) => self.lose_stream(now, id, &error),
            Event::Session(result) => self.on_session(now, result),
            Event::Metadata(topics, result) => self.on_metadata(now, &topics, &result),
        }
    }

    fn stream_mut(&mut self, id: StreamId) -> Option<(i32, &mut Stream)> {
        let found = self.streams.iter_mut().find(|(_, stream)| stream.id == id);
        found.map(|(node, stream)| (*node, stream))
    }

    fn on_response(&mut self, now: Duration, id: StreamId, response: v1::ProduceStreamResponse) {
        match response.event {
            Some(StreamEvent::Limits(limits)) => {
                let Some((node, stream)) = self.stream_mut(id) else {
                    return;
                };
                stream.limits = Some(limits);
                self.resting.remove(&node);
            }
            Some(StreamEvent::Result(result)) => self.on_result(now, id, result),
            Some(StreamEvent::Drain(_)) => {
                if let Some((_, stream)) = self.stream_mut(id) {
                    stream.draining = true;
                }
                self.ask_refresh(now);
                self.end_drained(id);
            }
            None => {}
        }
    }

    fn on_result(&mut self, now: Duration, id: StreamId, result: v1::ProduceStreamResult) {
        if let Some((_, stream)) = self.stream_mut(id) {
            let size = stream.sizes.remove(&result.request_id).unwrap_or(0);
            stream.in_flight_bytes -= size;
        }
        let outcome = answer(result.result);
        if let Err(error) = &outcome {
            self.learn_from(now, result.request_id, error);
        }
        let settled = self.flight.answered(now, result.request_id, outcome);
        self.settle(settled);
        self.end_drained(id);
        if let Some(error) = self.flight.fenced() {
            self.shared
                .state()
                .fatal
                .get_or_insert(ClientError::Rpc(error.clone()));
            self.shared.progress.notify_waiters();
        }
    }

    fn learn_from(&mut self, now: Duration, request_id: i64, error: &RpcError) {
        let Some(slot) = self.flight.slot_of(request_id) else {
            return;
        };
        let topic = self.shared.batcher().topic_name(slot.topic).cloned();
        let learned = match (&error.leader, topic) {
            (Some(hint), Some(topic)) => {
                self.client
                    .routing()
                    .learn(topic.as_str(), slot.partition.0, hint)
            }
            _ => false,
        };
        let moved = matches!(
            error.kind,
            Some(
                ErrorKind::NotLeader
                    | ErrorKind::LeaderNotAvailable
                    | ErrorKind::FencedLeaderEpoch
                    | ErrorKind::TopicNotFound
                    | ErrorKind::ShuttingDown
            )
        );
        if moved && !learned {
            self.ask_refresh(now);
        }
    }

    /// Lets go of a draining stream once it has answered everything.
    fn end_drained(&mut self, id: StreamId) {
        if let Some((node, stream)) = self.stream_mut(id)
            && stream.draining
            && stream.sizes.is_empty()
        {
            self.streams.remove(&node);
            self.rest(node);
        }
    }

    fn rest(&mut self, node: i32) {
        let failures = self.resting.get(&node).map_or(0, |(failures, _)| *failures) + 1;
        let pause = self.backoff.pause(failures, &mut self.random);
        self.resting
            .insert(node, (failures, self.shared.now() + pause));
    }

    fn lose_stream(&mut self, now: Duration, id: StreamId, error: &RpcError) {
        tracing::debug!(stream = id, %error, "produce stream lost");
        self.flight.stream_lost(now, id, error);
        let Some((node, _)) = self.stream_mut(id) else {
            return;
        };
        self.streams.remove(&node);
        self.rest(node);
        self.ask_refresh(now);
    }

    fn open_session(&mut self, now: Duration, needed: bool) {
        if self.transaction.is_some()
            || !needed && self.flight.is_empty()
            || !self.flight.wants_session()
            || self.opening_session
            || now < self.session_retry_at
        {
            return;
        }
        self.opening_session = true;
        let (client, report) = (self.client.clone(), self.report.clone());
        let name = self.config.name.clone();
        tokio::spawn(async move {
            let _ = report.send(Event::Session(init_producer(&client, name).await));
        });
    }

    fn on_session(&mut self, now: Duration, result: Result<ProducerId, ClientError>) {
        self.opening_session = false;
        match result {
            Ok(session) => {
                self.session_failures = 0;
                self.flight.grant_session(session);
            }
            Err(error) if error.is_retryable() => {
                self.session_failures += 1;
                let pause = self.backoff.pause(self.session_failures, &mut self.random);
                self.session_retry_at = now + pause;
            }
            Err(error) => self.fail_all(error),
        }
    }

    /// Nothing can be sent any more.
    fn fail_all(&mut self, error: ClientError) {
        self.shared.state().fatal = Some(error.clone());
        self.abandon_all(&error);
    }

    /// Fails everything that is not settled.
    fn abandon_all(&mut self, error: &ClientError) {
        let settled = self.flight.abandon(error);
        self.settle(settled);
        let waiting = self.shared.batcher().expire(Duration::MAX);
        let settled = waiting.into_iter().map(|batch| {
            batch.delivery.complete(Err(error.clone()));
            let records = batch.builder.len();
            Settled {
                id: batch.id,
                charged: batch.charged,
                records,
                delivery: batch.delivery,
            }
        });
        let settled = settled.collect();
        self.settle(settled);
    }

    fn ask_refresh(&mut self, now: Duration) {
        if self.refresh_due.is_none() {
            let pause =
                if self.refresh_failures == 0 && now > self.refreshed_at + self.backoff.first {
                    Duration::ZERO
                } else {
                    self.backoff
                        .pause(self.refresh_failures.max(1), &mut self.random)
                };
            self.refresh_due = Some(now + pause);
        }
    }

    fn refresh_topics(&mut self, now: Duration) {
        let mut asked = BTreeSet::new();
        for (topic, error) in &mut self.shared.state().wanted {
            if error.is_none() {
                asked.insert(topic.clone());
            }
        }
        let unknown = !asked.is_subset(&self.topics);
        let due = self.refresh_due.is_some_and(|due| due <= now)
            || unknown && self.refresh_due.is_none()
            || !self.topics.is_empty() && now > self.refreshed_at + METADATA_MAX_AGE;
        if !due || self.refreshing {
            return;
        }
        self.topics.extend(asked);
        let topics: Vec<String> = self.topics.iter().cloned().collect();
        self.refreshing = true;
        self.refresh_due = None;
        let (client, report) = (self.client.clone(), self.report.clone());
        tokio::spawn(async move {
            // One topic that is missing must not hide the others.
            let mut result = client.refresh(&topics).await;
            if matches!(result, Err(ClientError::TopicNotFound(_))) && topics.len() > 1 {
                for topic in &topics {
                    let one = client.refresh(std::slice::from_ref(topic)).await;
                    let _ = report.send(Event::Metadata(vec![topic.clone()], one));
                }
                result = Ok(());
            }
            let _ = report.send(Event::Metadata(topics, result));
        });
    }

    fn on_metadata(&mut self, now: Duration, topics: &[String], result: &Result<(), ClientError>) {
        self.refreshing = false;
        self.refreshed_at = now;
        self.refresh_failures = if result.is_ok() {
            0
        } else {
            self.refresh_failures + 1
        };
        for topic in topics {
            let routes = self.client.routing().topic(topic);
            let mut state = self.shared.state();
            match (routes, topic.parse()) {
                (Some(routes), Ok(name)) => {
                    let available: Vec<bool> = routes.leaders.iter().map(Option::is_some).collect();
                    state.wanted.remove(topic);
                    drop(state);
                    self.shared.batcher().set_topic(&name, &available);
                }
                _ => {
                    let known = self.shared.batcher().topic_index(topic).is_some();
                    let error = result.as_ref().err().cloned();
                    let retryable = error.as_ref().is_none_or(ClientError::is_retryable);
                    if !known && !retryable {
                        self.topics.remove(topic);
                    }
                    if let Some(wanted) = state.wanted.get_mut(topic)
                        && !retryable
                    {
                        *wanted = error;
                    }
                    drop(state);
                    if known || retryable {
                        self.ask_refresh(now);
                    }
                }
            }
        }
        self.shared.progress.notify_waiters();
    }

    /// Gives memory back, remembers the first failure, tells the callback.
    fn settle(&mut self, settled: Vec<Settled>) {
        if settled.is_empty() {
            return;
        }
        let mut batcher = self.shared.batcher();
        for batch in &settled {
            batcher.settle(batch.id, batch.charged);
        }
        drop(batcher);
        for batch in &settled {
            let Some(result) = batch.delivery.result() else {
                continue;
            };
            if let Err(error) = &result {
                self.shared
                    .state()
                    .failed
                    .get_or_insert_with(|| error.clone());
            }
            if let Some(on_batch) = &self.config.on_batch {
                on_batch(&BatchReport {
                    topic: batch.delivery.topic().clone(),
                    partition: batch.delivery.partition(),
                    records: batch.records,
                    result,
                });
            }
        }
        self.shared.progress.notify_waiters();
    }
}

const fn wire_acks(acks: Acks) -> v1::Acks {
    match acks {
        Acks::None => v1::Acks::None,
        Acks::Leader => v1::Acks::Leader,
        Acks::All => v1::Acks::All,
    }
}

fn answer(result: Option<v1::PartitionProduceResult>) -> Result<BatchAck, RpcError> {
    use v1::partition_produce_result::Outcome;
    match result.and_then(|result| result.outcome) {
        Some(Outcome::Appended(appended)) => Ok(BatchAck {
            base_offset: appended.base_offset.and_then(Offset::new),
            append_time_ms: appended.append_time_ms,
            deduplicated: appended.deduplicated,
        }),
        Some(Outcome::Error(error)) => Err(RpcError::from_partition(error)),
        None => Err(RpcError::transport(
            "the server sent a result without an outcome",
        )),
    }
}

async fn init_producer(client: &Client, name: String) -> Result<ProducerId, ClientError> {
    let request = v1::InitProducerRequest {
        producer_name: name,
    };
    let response = client
        .any_node(|address| {
            let request = request.clone();
            async move {
                let mut service = client.producer_service(&address, false)?;
                Ok(service
                    .init_producer(client.with_deadline(request))
                    .await?
                    .into_inner())
            }
        })
        .await?;
    let epoch = i16::try_from(response.producer_epoch);
    match epoch {
        Ok(epoch) if epoch >= 0 && response.producer_id >= 0 => Ok(ProducerId {
            id: response.producer_id,
            epoch,
        }),
        _ => Err(ClientError::Protocol(format!(
            "InitProducer returned producer {} epoch {}",
            response.producer_id, response.producer_epoch
        ))),
    }
}

/// Reads the answers of one stream until it ends. Answers are always read, or the server would have to
/// drop the connection.
async fn read_answers(
    id: StreamId,
    mut service: v1::producer_service_client::ProducerServiceClient<crate::connect::Rpc>,
    requests: mpsc::UnboundedReceiver<v1::ProduceStreamRequest>,
    report: mpsc::UnboundedSender<Event>,
) {
    let error = match service
        .produce_stream(UnboundedReceiverStream::new(requests))
        .await
    {
        Err(status) => RpcError::from_status(&status),
        Ok(response) => {
            let mut answers = response.into_inner();
            loop {
                match answers.message().await {
                    Ok(Some(message)) => {
                        if report.send(Event::Stream(id, Ok(message))).is_err() {
                            return;
                        }
                    }
                    Ok(None) => break RpcError::transport("the server closed the stream"),
                    Err(status) => break RpcError::from_status(&status),
                }
            }
        }
    };
    let _ = report.send(Event::Stream(id, Err(error)));
}
