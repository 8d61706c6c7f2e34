//! The fate of a batch, shared by the records in it: pending, then acknowledged or failed, once.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use varve_types::{Offset, PartitionId, TopicName};

use crate::error::ClientError;

/// Where a batch was appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchAck {
    /// Offset of its first record; `None` when no acknowledgement was asked for.
    pub base_offset: Option<Offset>,
    /// The leader's clock at the append, in milliseconds since the epoch.
    pub append_time_ms: i64,
    /// The batch had been appended by an earlier attempt.
    pub deduplicated: bool,
}

/// What became of one batch, for a callback.
#[derive(Debug, Clone)]
pub struct BatchReport {
    /// Topic.
    pub topic: TopicName,
    /// Partition.
    pub partition: PartitionId,
    /// Number of records.
    pub records: u32,
    /// Outcome.
    pub result: Result<BatchAck, ClientError>,
}

/// Where one record was appended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordAck {
    /// Topic.
    pub topic: TopicName,
    /// Partition.
    pub partition: PartitionId,
    /// Offset; `None` when no acknowledgement was asked for.
    pub offset: Option<Offset>,
    /// The record's timestamp in milliseconds since the epoch.
    pub timestamp_ms: i64,
}

#[derive(Debug)]
enum State {
    Pending(Vec<Waker>),
    Done(Result<BatchAck, ClientError>),
}

/// The fate of one batch.
#[derive(Debug)]
pub struct Delivery {
    topic: TopicName,
    partition: PartitionId,
    state: Mutex<State>,
}

impl Delivery {
    /// A batch whose fate is open.
    #[must_use]
    pub fn new(topic: TopicName, partition: PartitionId) -> Arc<Self> {
        Arc::new(Self {
            topic,
            partition,
            state: Mutex::new(State::Pending(Vec::new())),
        })
    }

    /// Topic.
    #[must_use]
    pub const fn topic(&self) -> &TopicName {
        &self.topic
    }

    /// Partition.
    #[must_use]
    pub const fn partition(&self) -> PartitionId {
        self.partition
    }

    /// Settles the batch. The first call counts; later ones do nothing.
    pub fn complete(&self, result: Result<BatchAck, ClientError>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let wakers = match &mut *state {
            State::Done(_) => return,
            State::Pending(wakers) => std::mem::take(wakers),
        };
        *state = State::Done(result);
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
    }

    /// The outcome, when it is known.
    #[must_use]
    pub fn result(&self) -> Option<Result<BatchAck, ClientError>> {
        match &*self.state.lock().unwrap_or_else(PoisonError::into_inner) {
            State::Done(result) => Some(result.clone()),
            State::Pending(_) => None,
        }
    }

    fn poll(&self, context: &Context<'_>) -> Poll<Result<BatchAck, ClientError>> {
        match &mut *self.state.lock().unwrap_or_else(PoisonError::into_inner) {
            State::Done(result) => Poll::Ready(result.clone()),
            State::Pending(wakers) => {
                if !wakers.iter().any(|waker| waker.will_wake(context.waker())) {
                    wakers.push(context.waker().clone());
                }
                Poll::Pending
            }
        }
    }
}

/// Resolves when one record is acknowledged, or has failed for good. Dropping it changes nothing: the
/// record is sent all the same.
#[derive(Debug)]
pub struct DeliveryHandle {
    delivery: Arc<Delivery>,
    index: u32,
    timestamp_ms: i64,
}

impl DeliveryHandle {
    /// The handle of record `index` of a batch.
    #[must_use]
    pub const fn new(delivery: Arc<Delivery>, index: u32, timestamp_ms: i64) -> Self {
        Self {
            delivery,
            index,
            timestamp_ms,
        }
    }
}

impl Future for DeliveryHandle {
    type Output = Result<RecordAck, ClientError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.delivery.poll(context).map_ok(|ack| RecordAck {
            topic: self.delivery.topic.clone(),
            partition: self.delivery.partition,
            offset: ack.base_offset.map(|base| base.plus(u64::from(self.index))),
            timestamp_ms: self.timestamp_ms,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_outcome_counts_and_reaches_every_record() {
        let delivery = Delivery::new("t".parse().unwrap(), PartitionId(3));
        let mut handle = DeliveryHandle::new(delivery.clone(), 2, 99);
        let mut context = Context::from_waker(Waker::noop());
        assert!(Pin::new(&mut handle).poll(&mut context).is_pending());
        let base_offset = Offset::new(10);
        let ack = BatchAck {
            base_offset,
            append_time_ms: 5,
            deduplicated: false,
        };
        delivery.complete(Ok(ack));
        delivery.complete(Err(ClientError::Closed));
        let Poll::Ready(Ok(record)) = Pin::new(&mut handle).poll(&mut context) else {
            panic!("settled")
        };
        assert_eq!(record.offset, Offset::new(12));
        assert_eq!(
            (record.partition, record.timestamp_ms),
            (PartitionId(3), 99)
        );
    }
}
