//! Who writes to a partition: the producers that its leader remembers.

use varve_broker_api::{ActiveProducer, Broker, Error, Operations};
use varve_types::{ErrorKind, Offset, Sequence, TopicPartition};

use super::Call;
use crate::shared::Shared;
use crate::translate::{code, sentence, topic_name};
use crate::wire::generated::describe_producers::{
    DescribeProducersRequest, DescribeProducersResponse, PartitionResponse, ProducerState,
    TopicResponse,
};
use crate::wire::{ErrorCode, Text};

/// Most producers of one answer. A partition remembers ten thousand, and a request can name thousands of
/// partitions, each as often as it likes.
const PRODUCERS_PER_ANSWER: usize = 100_000;

fn producers_code(error: &Error) -> ErrorCode {
    match error.kind {
        // Clients look for the leader anew upon this one alone.
        ErrorKind::LeaderNotAvailable => ErrorCode::NotLeaderOrFollower,
        kind => code(kind),
    }
}

fn told(active: &ActiveProducer) -> ProducerState {
    ProducerState {
        producer_id: active.producer.id,
        producer_epoch: active.producer.epoch.into(),
        last_sequence: active.last_sequence.map_or(-1, Sequence::get),
        last_timestamp: active.last_used_ms,
        coordinator_epoch: active.coordinator_epoch.unwrap_or(-1),
        current_txn_start_offset: active.transaction_start.map_or(-1, Offset::get),
    }
}

fn refused(number: i32, code: ErrorCode, text: Option<Text>) -> PartitionResponse {
    PartitionResponse {
        partition_index: number,
        error_code: code.code(),
        error_message: text,
        ..PartitionResponse::default()
    }
}

async fn one<B: Broker + Operations>(
    shared: &Shared<B>,
    call: &Call,
    topic: &Text,
    number: i32,
    left: &mut usize,
) -> PartitionResponse {
    let name = match topic_name(topic) {
        Ok(name) => name,
        Err(error) => return refused(number, error, None),
    };
    let Some(place) = crate::translate::partition(number) else {
        return refused(number, ErrorCode::UnknownTopicOrPartition, None);
    };
    if *left == 0 {
        let text = "the response is full: the producers of this partition do not fit; ask for \
            fewer partitions at once";
        let text = Text::from_static(text);
        return refused(number, ErrorCode::InvalidRequest, Some(text));
    }
    let id = TopicPartition::new(name, place);
    match shared.broker.active_producers(&call.ctx, &id).await {
        Ok(active) => {
            *left = left.saturating_sub(active.len());
            PartitionResponse {
                partition_index: number,
                active_producers: active.iter().map(told).collect(),
                ..PartitionResponse::default()
            }
        }
        Err(error) => {
            shared.count(&error);
            refused(number, producers_code(&error), sentence(&error))
        }
    }
}

pub(super) async fn describe<B: Broker + Operations>(
    shared: &Shared<B>,
    call: &Call,
    request: DescribeProducersRequest,
) -> DescribeProducersResponse {
    let mut response = DescribeProducersResponse::default();
    let mut left = PRODUCERS_PER_ANSWER;
    for topic in request.topics {
        let mut partitions = Vec::with_capacity(topic.partition_indexes.len());
        for number in topic.partition_indexes {
            partitions.push(one(shared, call, &topic.name, number, &mut left).await);
        }
        response.topics.push(TopicResponse {
            name: topic.name,
            partitions,
        });
    }
    response
}
