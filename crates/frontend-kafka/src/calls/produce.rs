//! Appends, and the sessions of producers.
//!
//! Invariants: a batch is verified and handed on as it came ([`batches`] says what becomes of older formats); batches
//! reach the broker in the order of the requests; the code for an unknown outcome is answered for what the broker
//! has accepted and for nothing else.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{BoxFuture, join_all};
use tokio::time::{Instant, timeout_at};
use varve_broker_api::{
    Appended, Broker, Error, InitProducer, InitTransactions, LeaderHint, OffsetQuery, Produce,
};
use varve_types::{
    Acks, ErrorKind, Offset, PartitionId, ProducerId, TopicId, TopicName, TopicPartition,
    TransactionalId, limits,
};

use super::blamed::blamed;
use super::transactions::version_of;
use super::{Answer, Call, Sent, batches};
use crate::shared::Shared;
use crate::translate::{code, names, partition, sentence, topic_name};
use crate::wire::generated::init_producer_id::{InitProducerIdRequest, InitProducerIdResponse};
use crate::wire::generated::produce::{
    BatchIndexAndErrorMessage, LeaderIdAndEpoch, NodeEndpoint, PartitionProduceData,
    PartitionProduceResponse, ProduceRequest, ProduceResponse, TopicProduceData,
    TopicProduceResponse,
};
use crate::wire::{ApiKey, ErrorCode, Response, Text, Uuid};

/// Longest time that a producer may ask an append to be waited for.
const TIMEOUT_MAX: Duration = Duration::from_mins(10);
/// From this version on topics are given by their ids.
const BY_ID_FROM: i16 = 13;
/// From this version on a leader is named beside the error.
const LEADER_FROM: i16 = 10;
/// From this version on the partition's leader registers it in the transaction.
const REGISTERS_FROM: i16 = 12;

/// An error as it is told.
pub(super) struct Refused {
    pub(super) code: ErrorCode,
    pub(super) message: Option<Text>,
    pub(super) leader: Option<Box<LeaderHint>>,
    pub(super) records: Vec<BatchIndexAndErrorMessage>,
}

impl From<ErrorCode> for Refused {
    fn from(code: ErrorCode) -> Self {
        Self {
            code,
            message: None,
            leader: None,
            records: Vec::new(),
        }
    }
}

/// What holds for all batches of a request.
struct Terms {
    acks: Acks,
    transaction: Option<TransactionalId>,
    until: Instant,
}

/// A batch that was accepted, or why not.
enum Taken<R> {
    Waits(R),
    Refused(Refused),
}

/// One partition's part of a request.
struct Part<R> {
    index: i32,
    place: Option<TopicPartition>,
    taken: Taken<R>,
}

/// One topic's part of a request.
struct Topic<R> {
    name: Text,
    id: Uuid,
    stamped: bool,
    parts: Vec<Part<R>>,
}

/// Hands every batch to the broker; the answer comes with the receipts.
pub(super) async fn begin<B: Broker>(
    shared: Arc<Shared<B>>,
    call: Call,
    request: ProduceRequest,
) -> BoxFuture<'static, Answer> {
    let terms = terms(&call, &request);
    let mut topics = Vec::with_capacity(request.topic_data.len());
    for topic in request.topic_data {
        topics.push(take_topic(&shared, &call, &terms, topic).await);
    }
    let silent = request.acks == 0;
    let until = match &terms {
        Ok(terms) => terms.until,
        Err(_) => call.arrived,
    };
    Box::pin(async move {
        let waiting = topics
            .into_iter()
            .map(|topic| answer_topic(&shared, &call, topic, until));
        let answered = join_all(waiting).await;
        if silent {
            let took = call.arrived.elapsed();
            let version = call.version();
            shared.metrics.answered(ApiKey::Produce, version, took);
            return silence(&answered);
        }
        let response = respond(&shared, &call, answered);
        call.answer(&shared, &Response::Produce(response), Sent::default())
    })
}

fn terms(call: &Call, request: &ProduceRequest) -> Result<Terms, ErrorCode> {
    let acks = match request.acks {
        -1 => Acks::All,
        0 => Acks::None,
        1 => Acks::Leader,
        _ => return Err(ErrorCode::InvalidRequiredAcks),
    };
    let transaction = match &request.transactional_id {
        None => None,
        Some(id) => Some(
            names::transactional(id.as_str()).map_err(|_| ErrorCode::InvalidProducerIdMapping)?,
        ),
    };
    // It is a time for replicas. Whoever does not wait for them would send again what is there.
    let wait = match acks {
        Acks::All => Duration::from_millis(u64::try_from(request.timeout_ms).unwrap_or(0)),
        Acks::Leader | Acks::None => TIMEOUT_MAX,
    };
    Ok(Terms {
        acks,
        transaction,
        until: call.arrived + wait.min(TIMEOUT_MAX),
    })
}

/// An append that is not answered: one that failed ends the connection, which is all the client would notice.
fn silence(answered: &[(Text, Uuid, Vec<PartitionAnswer>)]) -> Answer {
    let mut parts = answered.iter().flat_map(|(_, _, parts)| parts);
    if parts.any(|(part, _)| part.error_code != 0) {
        Answer::Close("append_refused")
    } else {
        Answer::Nothing
    }
}

async fn take_topic<B: Broker>(
    shared: &Shared<B>,
    call: &Call,
    terms: &Result<Terms, ErrorCode>,
    topic: TopicProduceData,
) -> Topic<B::Receipt> {
    let known = shared.topics().ok();
    let name = match call.version() >= BY_ID_FROM {
        true => known
            .as_ref()
            .and_then(|all| all.name(TopicId(topic.topic_id.0)).cloned())
            .ok_or(ErrorCode::UnknownTopicId),
        false => topic_name(&topic.name),
    };
    let stamped = match (&known, &name) {
        (Some(all), Ok(name)) => all.stamped(&*shared.broker, name.as_str()),
        _ => false,
    };
    let mut parts = Vec::with_capacity(topic.partition_data.len());
    for data in topic.partition_data {
        let index = data.index;
        let place = name.as_ref().ok().zip(partition(index));
        let place = place.map(|(name, number)| TopicPartition::new(name.clone(), number));
        let taken = match (terms, &name) {
            (Err(error), _) | (_, Err(error)) => Err(Refused::from(*error)),
            (Ok(terms), Ok(name)) => take(shared, call, terms, name, data).await,
        };
        let taken = taken.map_or_else(Taken::Refused, Taken::Waits);
        parts.push(Part {
            index,
            place,
            taken,
        });
    }
    Topic {
        name: topic.name,
        id: topic.topic_id,
        stamped,
        parts,
    }
}

/// Verifies a batch and hands it to the broker.
async fn take<B: Broker>(
    shared: &Shared<B>,
    call: &Call,
    terms: &Terms,
    topic: &TopicName,
    data: PartitionProduceData,
) -> Result<B::Receipt, Refused> {
    let number = partition(data.index).ok_or(ErrorCode::UnknownTopicOrPartition)?;
    let bytes = data.records.unwrap_or_default();
    if bytes.is_empty() {
        // Final: a batch that is cut off may arrive whole when it is sent again, and one that is not there never will.
        let text = format!("the request has no records for {topic}:{number}; nothing was appended");
        return Err(Refused {
            message: Some(Text::from(text)),
            ..ErrorCode::InvalidRecord.into()
        });
    }
    let transactional = terms.transaction.is_some();
    let batch = batches::taken(shared, call.version(), bytes, transactional).await?;
    let keyless = batch.has_null_key().then(|| batch.clone());
    let request = Produce {
        topic: topic.clone(),
        partition: number,
        acks: terms.acks,
        batch,
        expected_offset: None,
        transactional_id: terms.transaction.clone(),
        transaction_version: version_of(call, REGISTERS_FROM),
    };
    let taken = shared.broker.produce(&call.ctx, request);
    let taken = timeout_at(terms.until.max(Instant::now()), taken).await;
    match taken {
        Ok(Ok(receipt)) => Ok(receipt),
        Ok(Err(error)) => Err(Refused {
            records: blamed(&error, keyless).await,
            ..refused(shared, &error)
        }),
        // The broker had no room in time: nothing was appended.
        Err(_) => Err(refused(shared, &no_room(topic, number))),
    }
}

fn no_room(topic: &TopicName, partition: PartitionId) -> Error {
    let text = format!(
        "the broker had no room for the records of {topic}:{partition} in time; nothing was \
         appended; try again"
    );
    Error::new(ErrorKind::Throttled, text)
}

/// An error of the broker in the words of this API.
fn refused<B: Broker>(shared: &Shared<B>, error: &Error) -> Refused {
    shared.count(error);
    let timestamp = error.metadata.iter().any(|(key, _)| *key == "timestamp");
    let code = match error.kind {
        ErrorKind::InvalidRecord if timestamp => ErrorCode::InvalidTimestamp,
        ErrorKind::ProducerFenced | ErrorKind::TransactionAborted => {
            ErrorCode::InvalidProducerEpoch
        }
        // Nothing was appended, and producers repeat it by themselves.
        ErrorKind::Throttled
        | ErrorKind::ConcurrentTransactions
        | ErrorKind::CoordinatorLoading
        | ErrorKind::NotCoordinator => ErrorCode::NotEnoughReplicas,
        ErrorKind::LeaderNotAvailable | ErrorKind::FencedLeaderEpoch => {
            ErrorCode::NotLeaderOrFollower
        }
        ErrorKind::TransactionNotFound => ErrorCode::InvalidProducerIdMapping,
        // Internal topics are the server's to write.
        ErrorKind::PolicyViolation => ErrorCode::InvalidTopicException,
        kind => code(kind),
    };
    Refused {
        code,
        message: sentence(error),
        leader: error.leader.clone(),
        records: Vec::new(),
    }
}

/// A partition's answer, and who leads it where that is another node.
type PartitionAnswer = (PartitionProduceResponse, Option<Box<LeaderHint>>);

async fn answer_topic<B: Broker>(
    shared: &Shared<B>,
    call: &Call,
    topic: Topic<B::Receipt>,
    until: Instant,
) -> (Text, Uuid, Vec<PartitionAnswer>) {
    let stamped = topic.stamped;
    let parts = topic.parts.into_iter().map(async |part| {
        let outcome = match part.taken {
            Taken::Refused(refused) => Err(refused),
            Taken::Waits(receipt) => match timeout_at(until, receipt).await {
                Ok(Ok(appended)) => Ok(appended),
                Ok(Err(error)) => Err(refused(shared, &error)),
                Err(_) => Err(ErrorCode::RequestTimedOut.into()),
            },
        };
        answer_part(shared, call, (part.index, part.place), outcome, stamped).await
    });
    (topic.name, topic.id, join_all(parts).await)
}

async fn answer_part<B: Broker>(
    shared: &Shared<B>,
    call: &Call,
    (index, place): (i32, Option<TopicPartition>),
    outcome: Result<Appended, Refused>,
    stamped: bool,
) -> PartitionAnswer {
    let mut answer = PartitionProduceResponse {
        index,
        base_offset: -1,
        ..PartitionProduceResponse::default()
    };
    let refused = match outcome {
        Ok(appended) => {
            answer.base_offset = appended.base_offset.map_or(-1, Offset::get);
            answer.log_start_offset = appended.log_start.map_or(-1, Offset::get);
            if stamped {
                answer.log_append_time_ms = appended.append_time_ms;
            }
            return (answer, None);
        }
        Err(refused) => refused,
    };
    answer.error_code = refused.code.code();
    answer.error_message = refused.message;
    answer.record_errors = refused.records;
    if let (ErrorCode::UnknownProducerId, Some(place)) = (refused.code, place) {
        // By this producers tell whether their records were deleted, and begin anew.
        answer.log_start_offset = log_start(shared, call, place).await;
    }
    let leader = refused.leader.filter(|_| call.version() >= LEADER_FROM);
    if let Some(leader) = &leader {
        answer.current_leader = LeaderIdAndEpoch {
            leader_id: leader.node.0,
            leader_epoch: leader.epoch.get(),
        };
    }
    (answer, leader)
}

async fn log_start<B: Broker>(shared: &Shared<B>, call: &Call, place: TopicPartition) -> i64 {
    let query = OffsetQuery {
        partition: place,
        position: None,
        with_time: false,
        isolation: Default::default(),
    };
    let found = shared.broker.list_offsets(&call.ctx, vec![query]).await;
    match found.into_iter().next() {
        Some(Ok(found)) => found.log_start.get(),
        _ => -1,
    }
}

fn respond<B: Broker>(
    shared: &Shared<B>,
    call: &Call,
    answered: Vec<(Text, Uuid, Vec<PartitionAnswer>)>,
) -> ProduceResponse {
    let mut response = ProduceResponse::default();
    let mut leaders = Vec::new();
    for (name, topic_id, parts) in answered {
        let (partitions, hints): (Vec<_>, Vec<_>) = parts.into_iter().unzip();
        leaders.extend(hints.into_iter().flatten().map(|hint| hint.node));
        response.responses.push(TopicProduceResponse {
            name,
            topic_id,
            partition_responses: partitions,
        });
    }
    if call.version() >= LEADER_FROM && !leaders.is_empty() {
        let all = shared.endpoints().into_iter();
        let named = all.filter(|e| leaders.contains(&e.node));
        response.node_endpoints = named
            .map(|e| NodeEndpoint {
                node_id: e.node.0,
                host: Text::from(e.host),
                port: e.port.into(),
                rack: (!e.rack.is_empty()).then(|| Text::from(e.rack)),
            })
            .collect();
    }
    response
}

/// Opens the session of a producer.
pub(super) async fn init_producer_id<B: Broker>(
    shared: &Shared<B>,
    call: &Call,
    request: InitProducerIdRequest,
) -> InitProducerIdResponse {
    let opened = match &request.transactional_id {
        None => {
            let anonymous = InitProducer { name: None };
            let opened = shared.broker.init_producer(&call.ctx, anonymous).await;
            opened.map(|session| session.producer)
        }
        Some(id) => init_transactions(shared, call, id, &request).await,
    };
    match opened {
        Ok(producer) => InitProducerIdResponse {
            producer_id: producer.id,
            producer_epoch: producer.epoch,
            ..InitProducerIdResponse::default()
        },
        Err(error) => {
            shared.count(&error);
            InitProducerIdResponse {
                error_code: init_code(call, &error).code(),
                producer_epoch: -1,
                ..InitProducerIdResponse::default()
            }
        }
    }
}

async fn init_transactions<B: Broker>(
    shared: &Shared<B>,
    call: &Call,
    id: &Text,
    request: &InitProducerIdRequest,
) -> Result<ProducerId, Error> {
    let id = names::transactional(id.as_str())
        .map_err(|error| Error::invalid("transactional_id", error.to_string()))?;
    let timeout = u64::try_from(request.transaction_timeout_ms).unwrap_or(0);
    let range = limits::TRANSACTION_TIMEOUT_MIN_MS..=limits::TRANSACTION_TIMEOUT_MAX_MS;
    if timeout == 0 || timeout > *range.end() {
        let text = format!("a transaction timeout may be at most {} ms", range.end());
        return Err(Error::invalid("timeout", text));
    }
    let keep = (request.producer_id >= 0).then_some(ProducerId {
        id: request.producer_id,
        epoch: request.producer_epoch,
    });
    let wanted = InitTransactions {
        id,
        // Shorter ones are the least there is: clients may ask for less, and nothing breaks by more.
        timeout: Duration::from_millis(timeout.max(*range.start())),
        keep,
    };
    shared.broker.init_transactions(&call.ctx, wanted).await
}

/// From this version on producers know a code of its own for a session that is over.
const FENCED_FROM: i16 = 4;

fn init_code(call: &Call, error: &Error) -> ErrorCode {
    match (error.kind, error.field) {
        (ErrorKind::ProducerFenced, _) if call.version() < FENCED_FROM => {
            ErrorCode::InvalidProducerEpoch
        }
        (ErrorKind::InvalidRequest, Some("timeout")) => ErrorCode::InvalidTransactionTimeout,
        (
            ErrorKind::LeaderNotAvailable
            | ErrorKind::ShuttingDown
            | ErrorKind::Throttled
            | ErrorKind::CommitTimeout
            | ErrorKind::NotEnoughReplicas,
            _,
        ) => ErrorCode::CoordinatorNotAvailable,
        (kind, _) => code(kind),
    }
}
