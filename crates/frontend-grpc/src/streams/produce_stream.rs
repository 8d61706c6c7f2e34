//! ProduceStream: pipelined appends. Requests are read, checked and handed to the broker one after the
//! other, which keeps the order of each partition and makes the broker's admission hold the client back;
//! results come back as their receipts resolve, those of one partition in the order of the requests.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use prost::Message;
use tonic::{Status, Streaming};
use varve_broker_api::{Appended, Broker, Error};
use varve_proto::v1;
use varve_types::{ErrorKind, PartitionId, limits};

use super::{DrainStep, Drainer, Gone, Outbound, Outlet, Parked, channel, parked};
use crate::context::CallContext;
use crate::services::append;
use crate::shared::Shared;
use crate::translate::missing;
use crate::translate::produce::to_appended;

/// Results that may wait for the transport: no more than the client may have in flight.
const WAITING: usize = limits::STREAM_MAX_IN_FLIGHT_REQUESTS;

/// One request between its arrival and its result.
#[derive(Debug, Clone)]
struct Ticket {
    request_id: i64,
    topic: Arc<str>,
    partition: i32,
    bytes: usize,
}

impl Ticket {
    fn lane(&self) -> Lane {
        (Arc::clone(&self.topic), self.partition)
    }
}

/// Requests whose results keep their order: those of one partition.
type Lane = (Arc<str>, i32);

type Accepted<R> = (Ticket, Result<(PartitionId, R), Error>);
type Resolved = (Ticket, Result<Appended, Error>);

/// Opens the stream.
pub fn open<B: Broker>(
    shared: &Arc<Shared<B>>,
    ctx: CallContext,
    inbound: Streaming<v1::ProduceStreamRequest>,
) -> Outbound<v1::ProduceStreamResponse> {
    let (outlet, outbound) = channel(shared, "ProduceStream", WAITING);
    let stream = ProduceStream {
        shared: Arc::clone(shared),
        ctx,
        outlet,
        receipts: FuturesUnordered::new(),
        behind: BTreeMap::new(),
        requests: 0,
        bytes: 0,
    };
    tokio::spawn(stream.run(inbound));
    outbound
}

struct ProduceStream<B> {
    shared: Arc<Shared<B>>,
    ctx: CallContext,
    outlet: Outlet<v1::ProduceStreamResponse>,
    /// The oldest result of each lane that is not sent yet.
    receipts: FuturesUnordered<Parked<Resolved>>,
    /// Those behind it. A lane with an unsent result has an entry, be it empty.
    behind: BTreeMap<Lane, VecDeque<Parked<Resolved>>>,
    /// Requests received and not yet answered.
    requests: usize,
    /// Their size.
    bytes: usize,
}

impl<B: Broker> ProduceStream<B> {
    async fn run(mut self, inbound: Streaming<v1::ProduceStreamRequest>) {
        if let Ok(Some(status)) = self.serve(inbound).await {
            self.outlet.end(status).await;
        }
    }

    /// Runs until the end: `None` is OK.
    async fn serve(
        &mut self,
        mut inbound: Streaming<v1::ProduceStreamRequest>,
    ) -> Result<Option<Status>, Gone> {
        let mut drainer = Drainer::new(&self.shared);
        let mut accepting: Option<Parked<Accepted<B::Receipt>>> = None;
        let mut open = true;
        self.outlet.send(limits_event()).await?;
        loop {
            if !open && self.requests == 0 {
                return Ok(None);
            }
            tokio::select! {
                biased;
                () = self.outlet.closed() => return Err(Gone),
                step = drainer.next() => match step {
                    DrainStep::Announce => {
                        let drain = v1::produce_stream_response::Event::Drain(drainer.event());
                        self.outlet.send(v1::ProduceStreamResponse { event: Some(drain) }).await?;
                    }
                    DrainStep::End => {
                        return Ok(Some(self.shared.fail(&Shared::<B>::shutting_down())));
                    }
                },
                Some(first) = self.receipts.next() => self.answer(first).await?,
                accepted = parked(&mut accepting) => {
                    accepting = None;
                    self.accepted(accepted);
                }
                message = inbound.message(), if open && accepting.is_none() => match message {
                    Ok(Some(message)) => match self.admit(&message) {
                        Ok(ticket) => accepting = Some(self.accept(ticket, message)),
                        Err(error) => return Ok(Some(self.shared.fail(&error))),
                    },
                    Ok(None) => open = false,
                    Err(status) => return Ok(Some(self.shared.unreadable(status))),
                },
            }
        }
    }

    /// Counts a request in, within the limits that the client was told.
    fn admit(&mut self, message: &v1::ProduceStreamRequest) -> Result<Ticket, Error> {
        let bytes = message.encoded_len();
        self.requests += 1;
        self.bytes += bytes;
        if self.requests > limits::STREAM_MAX_IN_FLIGHT_REQUESTS
            || self.bytes > limits::STREAM_MAX_IN_FLIGHT_BYTES
        {
            return Err(Error::new(
                ErrorKind::FlowControl,
                format!(
                    "{} requests with {} bytes are in flight on this stream, which allows {} and \
                     {}: the stream ends, and requests without an answer may have been appended",
                    self.requests,
                    self.bytes,
                    limits::STREAM_MAX_IN_FLIGHT_REQUESTS,
                    limits::STREAM_MAX_IN_FLIGHT_BYTES
                ),
            ));
        }
        let request = message.request.as_ref();
        Ok(Ticket {
            request_id: message.request_id,
            topic: request.map_or("", |r| r.topic.as_str()).into(),
            partition: request.and_then(|r| r.partition).unwrap_or(0),
            bytes,
        })
    }

    /// Checks a request and waits for the broker to take it.
    fn accept(
        &self,
        ticket: Ticket,
        message: v1::ProduceStreamRequest,
    ) -> Parked<Accepted<B::Receipt>> {
        let (shared, mut ctx) = (Arc::clone(&self.shared), self.ctx.clone());
        // A stream has no deadline; each request has the server's.
        ctx.arrived = crate::context::now();
        ctx.broker.deadline = None;
        Box::pin(async move { (ticket, take(&shared, &ctx, message.request).await) })
    }

    /// Puts the outcome of a request behind those of its lane.
    fn accepted(&mut self, accepted: Accepted<B::Receipt>) {
        let (ticket, outcome) = accepted;
        let wait = self.shared.request_timeout();
        let until = tokio::time::Instant::now() + wait;
        let lane = ticket.lane();
        let resolved: Parked<Resolved> = Box::pin(async move {
            let (partition, receipt) = match outcome {
                Ok(accepted) => accepted,
                Err(error) => return (ticket, Err(error)),
            };
            let resolved = tokio::time::timeout_at(until, receipt).await;
            (
                ticket,
                resolved.unwrap_or_else(|_| Err(append::commit_timeout(partition, wait))),
            )
        });
        match self.behind.get_mut(&lane) {
            Some(queue) => queue.push_back(resolved),
            None => {
                self.behind.insert(lane, VecDeque::new());
                self.receipts.push(resolved);
            }
        }
    }

    /// Sends a result, and every other one that is ready: the transport then packs them into one frame.
    async fn answer(&mut self, first: Resolved) -> Result<(), Gone> {
        let mut next = Some(first);
        while let Some((ticket, outcome)) = next {
            let lane = ticket.lane();
            match self.behind.get_mut(&lane).and_then(VecDeque::pop_front) {
                Some(resolved) => self.receipts.push(resolved),
                None => drop(self.behind.remove(&lane)),
            }
            self.send(ticket, outcome).await?;
            next = self.receipts.next().now_or_never().flatten();
        }
        Ok(())
    }

    async fn send(&mut self, ticket: Ticket, outcome: Result<Appended, Error>) -> Result<(), Gone> {
        use v1::partition_produce_result::Outcome as O;
        // Counted out before the client can know, so that a client within its limits is never over them.
        self.requests -= 1;
        self.bytes -= ticket.bytes;
        let outcome = match outcome {
            Ok(appended) => O::Appended(to_appended(&appended)),
            Err(error) => O::Error(self.shared.partition_error(&error)),
        };
        let result = v1::ProduceStreamResult {
            request_id: ticket.request_id,
            result: Some(v1::PartitionProduceResult {
                partition: ticket.partition,
                outcome: Some(outcome),
                record_indexes: Vec::new(),
            }),
        };
        let event = Some(v1::produce_stream_response::Event::Result(result));
        self.outlet.send(v1::ProduceStreamResponse { event }).await
    }
}

async fn take<B: Broker>(
    shared: &Shared<B>,
    ctx: &CallContext,
    request: Option<v1::ProduceRequest>,
) -> Result<(PartitionId, B::Receipt), Error> {
    let request = request.ok_or_else(|| missing("request"))?;
    if request.partition.is_none() {
        return Err(missing("partition"));
    }
    let mut parts = append::prepare(shared, ctx, request).await?;
    // A request that names its partition makes one part.
    let part = parts.pop().ok_or_else(|| missing("records"))?;
    let partition = part.produce.partition;
    let until = ctx.work_until(shared.request_timeout());
    Ok((
        partition,
        append::admit(shared, ctx, part.produce, until).await?,
    ))
}

fn limits_event() -> v1::ProduceStreamResponse {
    let bytes = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
    let limits = v1::ProduceStreamLimits {
        max_in_flight_requests: i32::try_from(limits::STREAM_MAX_IN_FLIGHT_REQUESTS)
            .unwrap_or(i32::MAX),
        max_in_flight_bytes: bytes(limits::STREAM_MAX_IN_FLIGHT_BYTES),
        max_request_bytes: bytes(limits::REQUEST_MAX_BYTES),
    };
    v1::ProduceStreamResponse {
        event: Some(v1::produce_stream_response::Event::Limits(limits)),
    }
}
