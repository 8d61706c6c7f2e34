//! The table of unsettled batches where they belong to transactions: whose they are, and what a leader that does
//! not take them means for the others.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

use std::time::Duration;

use varve_client::RpcError;
use varve_client::backoff::Backoff;
use varve_client::batcher::{ClosedBatch, Slot};
use varve_client::delivery::{BatchAck, Delivery};
use varve_client::flight::{Flight, FlightConfig, Outgoing};
use varve_record::{BatchBuilder, BatchHeader, Compression};
use varve_types::{ErrorKind, Offset, PartitionId, ProducerId};

const NOW: Duration = Duration::from_secs(1);
const LATER: Duration = Duration::from_secs(60);
const SLOT: Slot = Slot {
    topic: 0,
    partition: PartitionId(0),
};

fn session(epoch: i16) -> ProducerId {
    ProducerId { id: 7, epoch }
}

fn flight() -> Flight {
    let config = FlightConfig {
        max_in_flight: 5,
        idempotent: true,
        transactional: true,
        delivery_timeout: Duration::from_secs(120),
        request_timeout: Duration::from_secs(30),
        backoff: Backoff::default(),
    };
    let mut flight = Flight::new(config, 1);
    flight.grant_session(session(0));
    flight
}

/// Puts a batch of one record on a stream.
fn send(flight: &mut Flight, id: u64) -> Outgoing {
    let mut builder = BatchBuilder::new(Compression::None, None);
    builder.append(0, None, Some(b"v"), &[]).unwrap();
    let batch = ClosedBatch {
        id,
        slot: SLOT,
        builder,
        delivery: Delivery::new("events".parse().unwrap(), SLOT.partition),
        charged: 1,
        created: NOW,
    };
    flight.push(batch).unwrap();
    flight.send(NOW, SLOT, 1).unwrap()
}

fn refused(kind: ErrorKind) -> Result<BatchAck, RpcError> {
    Err(RpcError {
        kind: Some(kind),
        ..RpcError::transport("refused")
    })
}

fn acknowledged() -> Result<BatchAck, RpcError> {
    Ok(BatchAck {
        base_offset: Some(Offset::ZERO),
        append_time_ms: 0,
        deduplicated: false,
    })
}

#[test]
fn batches_belong_to_their_session_and_count_from_zero_in_the_next() {
    let mut flight = flight();
    let header = |sent: &Outgoing| BatchHeader::parse(&sent.bytes).unwrap();
    for (id, sequence) in [(1, 0), (2, 1)] {
        let sent = send(&mut flight, id);
        assert!(header(&sent).is_transactional());
        assert_eq!(header(&sent).session(), Some(session(0)));
        assert_eq!(header(&sent).base_sequence, sequence);
        assert_eq!(
            flight.answered(NOW, sent.request_id, acknowledged()).len(),
            1
        );
    }
    flight.grant_session(session(1));
    let sent = send(&mut flight, 3);
    assert_eq!(header(&sent).session(), Some(session(1)));
    assert_eq!(header(&sent).base_sequence, 0);
}

#[test]
fn a_session_that_is_not_taken_fails_its_batch_and_asks_for_no_other() {
    for kind in [
        ErrorKind::ProducerFenced,
        ErrorKind::UnknownProducer,
        ErrorKind::OutOfOrderSequence,
        ErrorKind::TransactionAborted,
        ErrorKind::InvalidTransactionState,
    ] {
        let mut flight = flight();
        let sent = send(&mut flight, 1);
        let settled = flight.answered(NOW, sent.request_id, refused(kind));
        assert_eq!(settled.len(), 1, "{kind:?}");
        let error = settled[0].delivery.result().unwrap().unwrap_err();
        assert_eq!(error.kind(), Some(kind));
        assert!(flight.fenced().is_none() && !flight.wants_session());
        assert!(flight.is_empty());
        // What comes then, in the next transaction, is sent.
        flight.grant_session(session(1));
        send(&mut flight, 2);
    }
}

#[test]
fn a_gap_behind_a_batch_that_goes_again_closes_or_fails_with_it() {
    for first_arrives in [true, false] {
        let mut flight = flight();
        let first = send(&mut flight, 1).request_id;
        let second = send(&mut flight, 2).request_id;
        let lost = refused(ErrorKind::NotEnoughReplicas);
        assert!(flight.answered(NOW, first, lost).is_empty());
        let gap = refused(ErrorKind::OutOfOrderSequence);
        assert!(flight.answered(NOW, second, gap).is_empty());
        let first = flight.send(LATER, SLOT, 1).unwrap().request_id;
        let second = flight.send(LATER, SLOT, 1).unwrap().request_id;
        let (one, other) = match first_arrives {
            true => (acknowledged(), acknowledged()),
            false => (
                refused(ErrorKind::InvalidRecord),
                refused(ErrorKind::OutOfOrderSequence),
            ),
        };
        let mut settled = flight.answered(LATER, first, one);
        settled.extend(flight.answered(LATER, second, other));
        let fates: Vec<bool> = settled
            .iter()
            .map(|batch| batch.delivery.result().unwrap().is_ok())
            .collect();
        assert_eq!(fates, [first_arrives, first_arrives]);
        assert!(flight.is_empty());
    }
}
