//! The messages of transactions, to the wire and back: registrations and markers.
//!
//! Invariants: conversion to the wire is total; conversion from it either gives legal values or says which part
//! is not legal, and never panics; a message names at most [`limits::TRANSACTION_MAX_PARTITIONS`] partitions.
//! Whether a registration or a marker is right is for others to say.

use std::time::Duration;

use varve_broker::peer::{MarkerOrder, MarkerOutcome, Registration};
use varve_broker_api::error::metadata_key;
use varve_broker_api::{Error, LeaderHint};
use varve_metadata::PartitionKey;
use varve_proto::peer::v1 as pb;
use varve_types::{
    ErrorKind, ProducerId, TopicId, TopicName, TopicPartition, TransactionalId, limits,
};

use crate::convert::{
    Invalid, Result, invalid, leader_epoch, missing, node, partition, to_partition,
};

/// Most values that a refusal carries.
const VALUES_MAX: usize = 32;

fn to_producer(producer: ProducerId) -> pb::Producer {
    pb::Producer {
        producer_id: producer.id,
        producer_epoch: producer.epoch.into(),
    }
}

fn producer(raw: Option<pb::Producer>) -> Result<ProducerId> {
    let raw = raw.ok_or_else(|| missing("producer"))?;
    if raw.producer_id < 0 {
        return invalid(format!(
            "producer_id is {}; it must not be negative",
            raw.producer_id
        ));
    }
    match i16::try_from(raw.producer_epoch) {
        Ok(epoch) if epoch >= 0 => Ok(ProducerId {
            id: raw.producer_id,
            epoch,
        }),
        _ => invalid(format!(
            "producer_epoch is {}; it must be 0 to 32767",
            raw.producer_epoch
        )),
    }
}

/// Checks how many partitions a message names.
fn counted(count: usize) -> Result<()> {
    let most = limits::TRANSACTION_MAX_PARTITIONS;
    if count == 0 || count > most {
        return invalid(format!(
            "the request has {count} partitions; 1 to {most} are allowed"
        ));
    }
    Ok(())
}

/// A registration, for the wire.
#[must_use]
pub fn to_register_request(registration: &Registration) -> pb::RegisterRequest {
    let named = |(topic, tp): &(TopicId, TopicPartition)| pb::NamedPartition {
        partition: Some(to_partition(PartitionKey {
            topic: *topic,
            partition: tp.partition,
        })),
        topic: tp.topic.to_string(),
    };
    pb::RegisterRequest {
        transactional_id: registration.id.to_string(),
        producer: Some(to_producer(registration.producer)),
        partitions: registration.partitions.iter().map(named).collect(),
        verify_only: registration.verify_only,
    }
}

/// A registration.
///
/// # Errors
/// [`Invalid`]; nothing was registered then.
pub fn register_request(raw: pb::RegisterRequest) -> Result<Registration> {
    counted(raw.partitions.len())?;
    let named = |raw: pb::NamedPartition| {
        let key = partition(raw.partition)?;
        let topic = TopicName::new(&raw.topic)
            .map_err(|error| Invalid::new(format!("topic is not valid: {error}")))?;
        Ok((key.topic, TopicPartition::new(topic, key.partition)))
    };
    Ok(Registration {
        id: TransactionalId::new(&raw.transactional_id)
            .map_err(|error| Invalid::new(format!("transactional_id is not valid: {error}")))?,
        producer: producer(raw.producer)?,
        partitions: raw
            .partitions
            .into_iter()
            .map(named)
            .collect::<Result<_>>()?,
        verify_only: raw.verify_only,
    })
}

fn to_refused(error: Error) -> pb::RegistrationRefused {
    let value = |(name, value): (&'static str, String)| pb::NamedValue {
        name: name.to_owned(),
        value,
    };
    pb::RegistrationRefused {
        reason: error.kind.reason().to_owned(),
        message: error.message,
        metadata: error
            .metadata
            .into_iter()
            .take(VALUES_MAX)
            .map(value)
            .collect(),
        elsewhere: error.leader.map(|hint| pb::Elsewhere {
            node_id: hint.node.0,
            address: hint.address,
            leader_epoch: hint.epoch.get(),
        }),
        retry_after_ms: error
            .retry_after
            .map(|wait| u64::try_from(wait.as_millis()).unwrap_or(u64::MAX)),
    }
}

fn refused(raw: pb::RegistrationRefused) -> Result<Error> {
    let kind = ErrorKind::ALL.iter().find(|k| k.reason() == raw.reason);
    let Some(kind) = kind else {
        return invalid(format!("{:?} is not a known refusal", raw.reason));
    };
    let hint = |raw: pb::Elsewhere| {
        Ok(Box::new(LeaderHint {
            node: node(raw.node_id)?,
            address: raw.address,
            epoch: leader_epoch("leader_epoch", raw.leader_epoch)?,
        }))
    };
    let known = |raw: pb::NamedValue| Some((metadata_key(&raw.name)?, raw.value));
    Ok(Error {
        metadata: raw
            .metadata
            .into_iter()
            .take(VALUES_MAX)
            .filter_map(known)
            .collect(),
        leader: raw.elsewhere.map(hint).transpose()?,
        retry_after: raw.retry_after_ms.map(Duration::from_millis),
        ..Error::new(*kind, raw.message)
    })
}

/// What a coordinator says to a registration, for the wire.
#[must_use]
pub fn to_register_response(outcome: std::result::Result<(), Error>) -> pb::RegisterResponse {
    use pb::register_response::Outcome as Wire;
    pb::RegisterResponse {
        outcome: Some(match outcome {
            Ok(()) => Wire::Registered(pb::Registered {}),
            Err(error) => Wire::Refused(to_refused(error)),
        }),
    }
}

/// What a coordinator says to a registration. The inner error is its refusal; the field at fault is not told.
///
/// # Errors
/// [`Invalid`]; whether anything was registered is unknown then.
pub fn register_response(raw: pb::RegisterResponse) -> Result<std::result::Result<(), Error>> {
    use pb::register_response::Outcome as Wire;
    match raw.outcome.ok_or_else(|| missing("outcome"))? {
        Wire::Registered(pb::Registered {}) => Ok(Ok(())),
        Wire::Refused(raw) => Ok(Err(refused(raw)?)),
    }
}

/// An order to write markers, for the wire.
#[must_use]
pub fn to_write_markers_request(order: &MarkerOrder) -> pb::WriteMarkersRequest {
    pb::WriteMarkersRequest {
        producer: Some(to_producer(order.producer)),
        commit: order.commit,
        coordinator_epoch: order.coordinator_epoch.get(),
        partitions: order.partitions.iter().copied().map(to_partition).collect(),
        number: order.number,
    }
}

/// An order to write markers.
///
/// # Errors
/// [`Invalid`]; no marker was written then.
pub fn write_markers_request(raw: pb::WriteMarkersRequest) -> Result<MarkerOrder> {
    counted(raw.partitions.len())?;
    if raw.number.is_some_and(|number| number < 1) {
        return invalid(format!(
            "number is {:?}; transactions of an epoch are counted from 1",
            raw.number
        ));
    }
    let keys = raw.partitions.into_iter().map(|raw| partition(Some(raw)));
    Ok(MarkerOrder {
        producer: producer(raw.producer)?,
        number: raw.number,
        commit: raw.commit,
        coordinator_epoch: leader_epoch("coordinator_epoch", raw.coordinator_epoch)?,
        partitions: keys.collect::<Result<_>>()?,
    })
}

/// What became of markers, for the wire.
#[must_use]
pub fn to_write_markers_response(outcomes: &[MarkerOutcome]) -> pb::WriteMarkersResponse {
    let outcome = |outcome: &MarkerOutcome| match outcome {
        MarkerOutcome::Done => pb::MarkerOutcome::Done,
        MarkerOutcome::Again => pb::MarkerOutcome::Again,
        MarkerOutcome::Fenced => pb::MarkerOutcome::Fenced,
    };
    pb::WriteMarkersResponse {
        outcomes: outcomes.iter().map(|o| outcome(o).into()).collect(),
    }
}

/// What became of `asked` markers.
///
/// # Errors
/// [`Invalid`]; whether any of them was written is unknown then.
pub fn write_markers_response(
    asked: usize,
    raw: &pb::WriteMarkersResponse,
) -> Result<Vec<MarkerOutcome>> {
    if raw.outcomes.len() != asked {
        return invalid(format!(
            "{} outcomes came for {asked} partitions",
            raw.outcomes.len()
        ));
    }
    let outcome = |raw: &i32| match pb::MarkerOutcome::try_from(*raw) {
        Ok(pb::MarkerOutcome::Done) => Ok(MarkerOutcome::Done),
        Ok(pb::MarkerOutcome::Again) => Ok(MarkerOutcome::Again),
        Ok(pb::MarkerOutcome::Fenced) => Ok(MarkerOutcome::Fenced),
        Ok(pb::MarkerOutcome::Unspecified) => Err(missing("outcome")),
        Err(_) => invalid(format!("{raw} is not a known marker outcome")),
    };
    raw.outcomes.iter().map(outcome).collect()
}

#[cfg(test)]
#[path = "transaction_tests.rs"]
mod tests;
