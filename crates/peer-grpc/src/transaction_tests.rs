//! Tests of the messages of transactions: everything comes back as it was, and what is not legal is named.

use prost::Message as _;
use varve_types::{LeaderEpoch, NodeId, PartitionId};

use super::*;

const PRODUCER: ProducerId = ProducerId {
    id: i64::MAX,
    epoch: i16::MAX,
};

fn named(topic: &str, partition: i32) -> (TopicId, TopicPartition) {
    let topic = TopicName::new(topic).unwrap();
    let id = TopicId(0x0123_4567_89ab_cdef_fedc_ba98_7654_3210);
    (id, TopicPartition::new(topic, PartitionId(partition)))
}

fn registration() -> Registration {
    Registration {
        verify_only: false,
        id: TransactionalId::new("billing-1").unwrap(),
        producer: PRODUCER,
        partitions: vec![named("orders", 0), named("orders", i32::MAX)],
    }
}

fn order() -> MarkerOrder {
    let key = |partition| PartitionKey {
        topic: TopicId(u128::MAX),
        partition: PartitionId(partition),
    };
    MarkerOrder {
        number: None,
        producer: PRODUCER,
        commit: true,
        coordinator_epoch: LeaderEpoch::new(7).unwrap(),
        partitions: vec![key(0), key(3)],
    }
}

#[test]
fn registrations_come_back() {
    let wire = to_register_request(&registration());
    assert_eq!(register_request(wire).unwrap(), registration());
}

#[test]
fn the_largest_messages_are_within_their_bound() {
    let most = limits::TRANSACTION_MAX_PARTITIONS;
    let long = "x".repeat(249);
    let largest = Registration {
        id: TransactionalId::new(&long).unwrap(),
        partitions: vec![named(&long, i32::MAX); most],
        ..registration()
    };
    let wire = to_register_request(&largest);
    assert!(wire.encoded_len() < limits::PEER_RAFT_MAX_BYTES);
    assert_eq!(register_request(wire.clone()).unwrap(), largest);
    let mut over = wire;
    over.partitions.push(over.partitions[0].clone());
    let why = register_request(over).unwrap_err().to_string();
    assert_eq!(
        why,
        "the request has 10001 partitions; 1 to 10000 are allowed"
    );
    let order = MarkerOrder {
        partitions: vec![order().partitions[0]; most + 1],
        ..order()
    };
    let wire = to_write_markers_request(&order);
    assert!(wire.encoded_len() < limits::PEER_RAFT_MAX_BYTES);
    assert!(write_markers_request(wire).is_err());
}

#[test]
fn answers_to_registrations_come_back() {
    let back = |outcome| register_response(to_register_response(outcome)).unwrap();
    assert_eq!(back(Ok(())), Ok(()));
    for kind in ErrorKind::ALL {
        let error = Error::new(*kind, "no").with("transactional_id", "billing-1");
        assert_eq!(back(Err(error.clone())), Err(error));
    }
    let mut moved = Error::new(ErrorKind::NotCoordinator, "moved")
        .with("topic", "orders")
        .with("partition", 3)
        .after(Duration::from_millis(1500));
    moved.leader = Some(Box::new(LeaderHint {
        node: NodeId(4),
        address: "node-4:8270".to_owned(),
        epoch: LeaderEpoch::new(9).unwrap(),
    }));
    assert_eq!(back(Err(moved.clone())), Err(moved));
    // What this version has no name for is left out, and there is an end to it.
    let strange = Error::new(ErrorKind::Throttled, "slow").with("colour", "blue");
    assert_eq!(
        back(Err(strange)),
        Err(Error::new(ErrorKind::Throttled, "slow"))
    );
    let mut many = Error::new(ErrorKind::Throttled, "slow");
    many.metadata = vec![("topic", "t".to_owned()); VALUES_MAX + 1];
    assert_eq!(back(Err(many)).unwrap_err().metadata.len(), VALUES_MAX);
}

#[test]
fn markers_come_back() {
    for commit in [true, false] {
        let order = MarkerOrder { commit, ..order() };
        let wire = to_write_markers_request(&order);
        assert_eq!(write_markers_request(wire).unwrap(), order);
    }
    let outcomes = [
        MarkerOutcome::Done,
        MarkerOutcome::Again,
        MarkerOutcome::Fenced,
    ];
    let wire = to_write_markers_response(&outcomes);
    assert_eq!(write_markers_response(3, &wire).unwrap(), outcomes);
}

#[test]
fn illegal_registrations_are_named() {
    let fault = |change: fn(&mut pb::RegisterRequest)| {
        let mut wire = to_register_request(&registration());
        change(&mut wire);
        register_request(wire).unwrap_err().to_string()
    };
    let id = fault(|m| m.transactional_id = "a b".to_owned());
    assert!(id.starts_with("transactional_id is not valid: "), "{id}");
    let topic = fault(|m| m.partitions[1].topic = String::new());
    assert!(topic.starts_with("topic is not valid: "), "{topic}");
    assert_eq!(fault(|m| m.producer = None), "producer is missing");
    assert_eq!(
        fault(|m| m.producer.as_mut().unwrap().producer_id = -1),
        "producer_id is -1; it must not be negative"
    );
    for epoch in [-1, 32768] {
        let mut wire = to_register_request(&registration());
        wire.producer.as_mut().unwrap().producer_epoch = epoch;
        assert_eq!(
            register_request(wire).unwrap_err().to_string(),
            format!("producer_epoch is {epoch}; it must be 0 to 32767")
        );
    }
    assert_eq!(
        fault(|m| m.partitions[0].partition = None),
        "partition is missing"
    );
    assert_eq!(
        fault(|m| m.partitions.clear()),
        "the request has 0 partitions; 1 to 10000 are allowed"
    );
}

#[test]
fn illegal_orders_and_answers_are_named() {
    let mut wire = to_write_markers_request(&order());
    wire.coordinator_epoch = -1;
    assert_eq!(
        write_markers_request(wire).unwrap_err().to_string(),
        "coordinator_epoch is -1; an epoch must not be negative"
    );
    let mut wire = to_write_markers_request(&order());
    wire.partitions[1].partition = -2;
    assert_eq!(
        write_markers_request(wire).unwrap_err().to_string(),
        "partition is -2; it must not be negative"
    );
    let outcomes = |outcomes: &[i32]| {
        let raw = pb::WriteMarkersResponse {
            outcomes: outcomes.to_vec(),
        };
        write_markers_response(1, &raw).unwrap_err().to_string()
    };
    assert_eq!(outcomes(&[]), "0 outcomes came for 1 partitions");
    assert_eq!(outcomes(&[1, 1]), "2 outcomes came for 1 partitions");
    assert_eq!(outcomes(&[0]), "outcome is missing");
    assert_eq!(outcomes(&[9]), "9 is not a known marker outcome");
    let answer = |outcome| {
        let raw = pb::RegisterResponse { outcome };
        register_response(raw).unwrap_err().to_string()
    };
    assert_eq!(answer(None), "outcome is missing");
    let refused = |change: fn(&mut pb::RegistrationRefused)| {
        let mut raw = to_refused(Error::new(ErrorKind::NotCoordinator, "moved"));
        raw.elsewhere = Some(pb::Elsewhere::default());
        change(&mut raw);
        answer(Some(pb::register_response::Outcome::Refused(raw)))
    };
    assert_eq!(
        refused(|r| r.reason = "MOON".to_owned()),
        "\"MOON\" is not a known refusal"
    );
    assert_eq!(
        refused(|r| r.elsewhere.as_mut().unwrap().node_id = -1),
        "node_id is -1; it must not be negative"
    );
    assert_eq!(
        refused(|r| r.elsewhere.as_mut().unwrap().leader_epoch = -1),
        "leader_epoch is -1; an epoch must not be negative"
    );
}
