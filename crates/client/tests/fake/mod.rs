//! A server in the test's process: one node, logs in memory, the rules of idempotent appends, and faults
//! on demand. Only what the client calls.
#![allow(missing_docs, dead_code, clippy::unwrap_used, clippy::expect_used)]

pub mod transactions;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Notify, mpsc};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tokio_stream::{Stream, StreamExt as _};
use tonic::{Request, Response, Status, Streaming};
use varve_client::proto as v1;
use varve_record::{BatchHeader, StoredBatch, Unverified, VerifyLimits};
use varve_types::{LeaderEpoch, Offset};

type Boxed<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[derive(Default)]
pub struct Session {
    epoch: i16,
    recent: VecDeque<(i32, i32, i64)>,
    next: i32,
}

#[derive(Default)]
pub struct Log {
    pub batches: Vec<Bytes>,
    pub next_offset: i64,
    pub sessions: BTreeMap<i64, Session>,
}

/// What goes wrong. Counted in requests over all streams.
#[derive(Default)]
pub struct Faults {
    /// Every so many produce requests the stream breaks before the append.
    pub break_before: Option<u64>,
    /// Every so many produce requests the stream breaks after the append, unanswered.
    pub break_after: Option<u64>,
    /// Every so many produce requests are refused with this reason, once.
    pub refuse: Option<(u64, v1::ErrorReason)>,
    /// Fetch streams break after so many batches.
    pub break_fetch: Option<u64>,
}

#[derive(Default)]
pub struct State {
    pub partitions: Vec<Log>,
    pub faults: Faults,
    pub requests: u64,
    pub fetched: u64,
    pub next_producer: i64,
    pub sessions_opened: u64,
    pub transactions: transactions::Transactions,
}

#[derive(Clone)]
pub struct Fake {
    pub state: Arc<Mutex<State>>,
    pub appended: Arc<Notify>,
    pub address: Arc<Mutex<Option<SocketAddr>>>,
}

pub struct Running {
    pub address: SocketAddr,
    stop: tokio::sync::oneshot::Sender<()>,
    thread: std::thread::JoinHandle<()>,
}

impl Running {
    /// Ends every connection at once, as a crash does.
    pub async fn kill(self) {
        let _ = self.stop.send(());
        tokio::task::spawn_blocking(|| self.thread.join())
            .await
            .unwrap()
            .unwrap();
    }
}

fn every(count: u64, period: Option<u64>) -> bool {
    period.is_some_and(|period| count.is_multiple_of(period))
}

impl Fake {
    pub fn new(partitions: usize) -> Self {
        let state = State {
            partitions: (0..partitions).map(|_| Log::default()).collect(),
            ..State::default()
        };
        Self {
            state: Arc::new(Mutex::new(state)),
            appended: Arc::new(Notify::new()),
            address: Arc::default(),
        }
    }

    /// Serves on the address of before, or on a new one.
    pub async fn serve(&self) -> Running {
        let wanted = (*self.address.lock().unwrap()).unwrap_or("127.0.0.1:0".parse().unwrap());
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let (bound, address) = tokio::sync::oneshot::channel();
        let fake = self.clone();
        // The runtime of its own ends every connection when it is dropped.
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async move {
                let listener = tokio::net::TcpListener::bind(wanted).await.unwrap();
                let _ = bound.send(listener.local_addr().unwrap());
                tokio::select! {
                    () = fake.run(listener) => {}
                    _ = stopped => {}
                }
            });
        });
        let address = address.await.unwrap();
        *self.address.lock().unwrap() = Some(address);
        Running {
            address,
            stop,
            thread,
        }
    }

    async fn run(self, listener: tokio::net::TcpListener) {
        let incoming =
            tonic::transport::server::TcpIncoming::from(listener).with_nodelay(Some(true));
        let producer = v1::producer_service_server::ProducerServiceServer::new(self.clone())
            .max_decoding_message_size(16 << 20);
        tonic::transport::Server::builder()
            .initial_stream_window_size(8 << 20)
            .initial_connection_window_size(32 << 20)
            .add_service(producer)
            .add_service(v1::consumer_service_server::ConsumerServiceServer::new(
                self.clone(),
            ))
            .add_service(
                v1::transaction_service_server::TransactionServiceServer::new(self.clone()),
            )
            .add_service(v1::cluster_service_server::ClusterServiceServer::new(self))
            .serve_with_incoming(incoming)
            .await
            .unwrap();
    }

    /// Every record of a partition as (offset, value).
    pub fn records(&self, partition: usize) -> Vec<(i64, Bytes)> {
        let state = self.state.lock().unwrap();
        let batches = state.partitions[partition].batches.iter();
        let stored = batches.map(|bytes| StoredBatch::split_from(bytes).unwrap());
        stored
            .flat_map(|batch| batch.records().unwrap())
            .map(|record| record.unwrap())
            .map(|record| (record.offset.get(), record.value.unwrap_or_default()))
            .collect()
    }

    fn append(&self, request: &v1::ProduceRequest) -> Result<v1::Appended, v1::ErrorReason> {
        let data = request.batch.as_ref().unwrap().data.clone();
        let limits = VerifyLimits {
            transactional: !request.transactional_id.is_empty(),
            ..VerifyLimits::default()
        };
        let batch = Unverified(data)
            .verify(&limits)
            .map_err(|_| v1::ErrorReason::CorruptBatch)?;
        let mut state = self.state.lock().unwrap();
        let transactional = batch.header().is_transactional();
        assert_eq!(transactional, limits.transactional);
        if transactional {
            let producer = batch.header().session().unwrap();
            state
                .transactions
                .append(&request.transactional_id, producer)?;
        }
        let log = &mut state.partitions[request.partition.unwrap() as usize];
        let header: BatchHeader = *batch.header();
        let count = header.record_count;
        let mut appended = v1::Appended {
            record_count: count,
            ..Default::default()
        };
        if let Some((producer, sequence)) = header.producer() {
            let fresh = !log.sessions.contains_key(&producer.id);
            if fresh && sequence.get() != 0 {
                return Err(v1::ErrorReason::UnknownProducer);
            }
            let session = log.sessions.entry(producer.id).or_default();
            if session.epoch < producer.epoch {
                *session = Session::default();
            }
            if let Some(known) = session
                .recent
                .iter()
                .find(|r| (r.0, r.1) == (sequence.get(), count))
            {
                appended.base_offset = Some(known.2);
                appended.deduplicated = true;
                return Ok(appended);
            }
            if sequence.get() != session.next {
                return Err(v1::ErrorReason::OutOfOrderSequence);
            }
            session.epoch = producer.epoch;
            session.next = sequence.plus(count as u32).get();
            session
                .recent
                .push_back((sequence.get(), count, log.next_offset));
            if session.recent.len() > 5 {
                session.recent.pop_front();
            }
        }
        let base = log.next_offset;
        appended.base_offset = Some(base);
        log.next_offset += i64::from(count);
        log.batches.push(
            batch
                .sequence(Offset::new(base).unwrap(), LeaderEpoch::ZERO)
                .to_bytes(),
        );
        self.appended.notify_waiters();
        Ok(appended)
    }

    fn produce_one(
        &self,
        message: v1::ProduceStreamRequest,
    ) -> Result<v1::ProduceStreamResponse, Status> {
        let (before, after, refuse) = {
            let mut state = self.state.lock().unwrap();
            state.requests += 1;
            let (count, faults) = (state.requests, &state.faults);
            let refuse = faults
                .refuse
                .filter(|(period, _)| every(count, Some(*period)));
            (
                every(count, faults.break_before),
                every(count, faults.break_after),
                refuse,
            )
        };
        if before {
            return Err(Status::unavailable("broken before the append"));
        }
        let request = message.request.unwrap();
        let outcome = match refuse {
            Some((_, reason)) => Err(reason),
            None => self.append(&request),
        };
        if after {
            return Err(Status::unavailable("broken after the append"));
        }
        use v1::partition_produce_result::Outcome;
        let outcome = match outcome {
            Ok(appended) => Outcome::Appended(appended),
            Err(reason) => Outcome::Error(v1::PartitionError {
                reason: reason.into(),
                message: "refused".to_owned(),
                ..Default::default()
            }),
        };
        let result = v1::PartitionProduceResult {
            partition: request.partition.unwrap(),
            outcome: Some(outcome),
            record_indexes: Vec::new(),
        };
        let result = v1::ProduceStreamResult {
            request_id: message.request_id,
            result: Some(result),
        };
        let event = v1::produce_stream_response::Event::Result(result);
        Ok(v1::ProduceStreamResponse { event: Some(event) })
    }

    async fn serve_fetch(
        self,
        mut commands: Streaming<v1::FetchStreamRequest>,
        events: mpsc::UnboundedSender<Result<v1::FetchStreamResponse, Status>>,
    ) {
        use v1::fetch_stream_request::Command;
        use v1::fetch_stream_response::Event;
        // By subscription: partition, position, credit.
        let mut open: BTreeMap<i64, (usize, i64, i64)> = BTreeMap::new();
        loop {
            let appended = self.appended.notified();
            tokio::pin!(appended);
            appended.as_mut().enable();
            for (id, (partition, position, credit)) in &mut open {
                while *credit > 0 {
                    let mut state = self.state.lock().unwrap();
                    let log = &state.partitions[*partition];
                    let high_watermark = log.next_offset;
                    let found = log.batches.iter().find(|bytes| {
                        BatchHeader::parse(bytes).unwrap().next_offset().get() > *position
                    });
                    let Some(data) = found.cloned() else { break };
                    state.fetched += 1;
                    let broken = every(state.fetched, state.faults.break_fetch);
                    drop(state);
                    if broken {
                        let _ = events.send(Err(Status::unavailable("broken")));
                        return;
                    }
                    *position = BatchHeader::parse(&data).unwrap().next_offset().get();
                    let used = data.len() as i64;
                    *credit -= used;
                    let records = v1::FetchStreamRecords {
                        subscription_id: *id,
                        batches: vec![v1::EncodedBatch { format: 2, data }],
                        next_offset: *position,
                        high_watermark,
                        credit_used: used,
                        ..Default::default()
                    };
                    let event = Some(Event::Records(records));
                    let _ = events.send(Ok(v1::FetchStreamResponse { event }));
                }
            }
            tokio::select! {
                () = appended => {}
                command = commands.next() => {
                    let Some(Ok(command)) = command else { return };
                    match command.command.unwrap() {
                        Command::Add(add) => {
                            use v1::start_position::Position;
                            let Some(Position::Offset(offset)) = add.start.unwrap().position
                            else { panic!("an offset") };
                            let partition = add.topic_partition.unwrap().partition as usize;
                            let entry = (partition, offset, add.initial_credit_bytes);
                            open.insert(add.subscription_id, entry);
                            let positioned = v1::FetchStreamPositioned {
                                subscription_id: add.subscription_id,
                                next_offset: offset,
                                ..Default::default()
                            };
                            let event = Some(Event::Positioned(positioned));
                            let _ = events.send(Ok(v1::FetchStreamResponse { event }));
                        }
                        Command::Remove(remove) => {
                            open.remove(&remove.subscription_id);
                        }
                        Command::Credit(credit) => {
                            if let Some(entry) = open.get_mut(&credit.subscription_id) {
                                entry.2 += credit.bytes;
                            }
                        }
                        Command::Open(_) | Command::Seek(_) => {}
                    }
                }
            }
        }
    }
}

#[tonic::async_trait]
impl v1::producer_service_server::ProducerService for Fake {
    async fn init_producer(
        &self,
        _: Request<v1::InitProducerRequest>,
    ) -> Result<Response<v1::InitProducerResponse>, Status> {
        let mut state = self.state.lock().unwrap();
        state.next_producer += 1;
        state.sessions_opened += 1;
        let producer_id = state.next_producer;
        Ok(Response::new(v1::InitProducerResponse {
            producer_id,
            ..Default::default()
        }))
    }

    async fn produce(
        &self,
        _: Request<v1::ProduceRequest>,
    ) -> Result<Response<v1::ProduceResponse>, Status> {
        Err(Status::unimplemented("produce"))
    }

    type ProduceStreamStream = Boxed<v1::ProduceStreamResponse>;

    async fn produce_stream(
        &self,
        request: Request<Streaming<v1::ProduceStreamRequest>>,
    ) -> Result<Response<Self::ProduceStreamStream>, Status> {
        let limits = v1::ProduceStreamLimits {
            max_in_flight_requests: 64,
            max_in_flight_bytes: 32 << 20,
            max_request_bytes: 16 << 20,
        };
        let event = Some(v1::produce_stream_response::Event::Limits(limits));
        let first = tokio_stream::once(Ok(v1::ProduceStreamResponse { event }));
        let fake = self.clone();
        let mut broken = false;
        let answers = request.into_inner().map_while(move |message| {
            if broken {
                return None;
            }
            let answer = message.and_then(|message| fake.produce_one(message));
            broken = answer.is_err();
            Some(answer)
        });
        Ok(Response::new(Box::pin(first.chain(answers))))
    }
}

#[tonic::async_trait]
impl v1::consumer_service_server::ConsumerService for Fake {
    async fn list_offsets(
        &self,
        request: Request<v1::ListOffsetsRequest>,
    ) -> Result<Response<v1::ListOffsetsResponse>, Status> {
        use v1::start_position::Position;
        let state = self.state.lock().unwrap();
        let results = request.into_inner().queries.into_iter().map(|query| {
            let partition = query.topic_partition.clone().unwrap().partition as usize;
            let end = state.partitions[partition].next_offset;
            let offset = match query.position.unwrap().position.unwrap() {
                Position::Anchor(anchor) if anchor == v1::StartAnchor::Latest as i32 => end,
                Position::Last(count) => (end - count).max(0),
                _ => 0,
            };
            let offsets = v1::PartitionOffsets {
                offset: Some(offset),
                high_watermark: end,
                ..Default::default()
            };
            v1::OffsetResult {
                topic_partition: query.topic_partition,
                outcome: Some(v1::offset_result::Outcome::Offsets(offsets)),
            }
        });
        Ok(Response::new(v1::ListOffsetsResponse {
            results: results.collect(),
        }))
    }

    async fn fetch(
        &self,
        _: Request<v1::FetchRequest>,
    ) -> Result<Response<v1::FetchResponse>, Status> {
        Err(Status::unimplemented("fetch"))
    }

    type SubscribeStream = Boxed<v1::SubscribeResponse>;

    async fn subscribe(
        &self,
        _: Request<v1::SubscribeRequest>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        Err(Status::unimplemented("subscribe"))
    }

    type ConsumeStream = Boxed<v1::ConsumeResponse>;

    async fn consume(
        &self,
        _: Request<Streaming<v1::ConsumeRequest>>,
    ) -> Result<Response<Self::ConsumeStream>, Status> {
        Err(Status::unimplemented("consume"))
    }

    type FetchStreamStream = Boxed<v1::FetchStreamResponse>;

    async fn fetch_stream(
        &self,
        request: Request<Streaming<v1::FetchStreamRequest>>,
    ) -> Result<Response<Self::FetchStreamStream>, Status> {
        let (events, receiver) = mpsc::unbounded_channel();
        tokio::spawn(self.clone().serve_fetch(request.into_inner(), events));
        Ok(Response::new(Box::pin(UnboundedReceiverStream::new(
            receiver,
        ))))
    }
}

#[tonic::async_trait]
impl v1::cluster_service_server::ClusterService for Fake {
    async fn get_server_info(
        &self,
        _: Request<v1::GetServerInfoRequest>,
    ) -> Result<Response<v1::GetServerInfoResponse>, Status> {
        Err(Status::unimplemented("info"))
    }

    async fn get_metadata(
        &self,
        request: Request<v1::GetMetadataRequest>,
    ) -> Result<Response<v1::GetMetadataResponse>, Status> {
        let count = self.state.lock().unwrap().partitions.len();
        let topics = request.into_inner().topics.into_iter().map(|topic| {
            let partitions = (0..count).map(|partition| v1::PartitionMetadata {
                partition: partition as i32,
                leader_node_id: Some(1),
                ..Default::default()
            });
            let missing = v1::PartitionError {
                reason: v1::ErrorReason::TopicNotFound.into(),
                ..Default::default()
            };
            if topic == "missing" {
                return v1::TopicMetadata {
                    topic,
                    error: Some(missing),
                    ..Default::default()
                };
            }
            v1::TopicMetadata {
                topic,
                partitions: partitions.collect(),
                ..Default::default()
            }
        });
        let address = self.address.lock().unwrap().unwrap().to_string();
        let node = v1::Node {
            node_id: 1,
            address,
            ..Default::default()
        };
        Ok(Response::new(v1::GetMetadataResponse {
            metadata_version: 1,
            nodes: vec![node],
            topics: topics.collect(),
            ..Default::default()
        }))
    }

    type WatchMetadataStream = Boxed<v1::WatchMetadataResponse>;

    async fn watch_metadata(
        &self,
        _: Request<v1::WatchMetadataRequest>,
    ) -> Result<Response<Self::WatchMetadataStream>, Status> {
        Err(Status::unimplemented("watch"))
    }

    async fn get_cluster_health(
        &self,
        _: Request<v1::GetClusterHealthRequest>,
    ) -> Result<Response<v1::GetClusterHealthResponse>, Status> {
        Err(Status::unimplemented("health"))
    }
}

/// Longest time a test waits for what must happen.
pub const PATIENCE: Duration = Duration::from_secs(60);
