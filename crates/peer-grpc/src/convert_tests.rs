//! Tests of the conversions: everything comes back as it was, and what is not legal is named.

use bytes::Bytes;
use prost::Message as _;

use super::*;

fn key(partition: i32) -> PartitionKey {
    PartitionKey {
        topic: TopicId(0x0123_4567_89ab_cdef_fedc_ba98_7654_3210),
        partition: PartitionId(partition),
    }
}

fn place(raw: i64) -> Offset {
    Offset::new(raw).unwrap()
}

fn position_of(node: i32) -> Position {
    Position {
        from: NodeId(node),
        broker_epoch: BrokerEpoch::new(7).unwrap(),
        leader_epoch: LeaderEpoch::new(3).unwrap(),
        partition_epoch: 12,
        sequence: u64::MAX,
        log_end: place(i64::MAX),
        last_epoch: Some(LeaderEpoch::ZERO),
        flushed: place(99),
    }
}

fn said() -> Vec<ToLeader> {
    vec![
        ToLeader::Fetch {
            partition: key(0),
            id: FetchId(0),
            position: position_of(4),
        },
        ToLeader::Progress {
            partition: key(i32::MAX),
            position: Position {
                last_epoch: None,
                ..position_of(4)
            },
        },
    ]
}

fn refusals() -> Vec<FetchRefusal> {
    let epoch = LeaderEpoch::new(5).unwrap();
    vec![
        FetchRefusal::NotLeader,
        FetchRefusal::FencedLeaderEpoch(epoch),
        FetchRefusal::UnknownLeaderEpoch(LeaderEpoch::ZERO),
        FetchRefusal::NotReplica,
        FetchRefusal::Stale,
        FetchRefusal::Diverging {
            epoch,
            end_offset: Offset::ZERO,
        },
        FetchRefusal::OutOfRange {
            log_start: place(1),
        },
    ]
}

#[test]
fn what_followers_say_comes_back() {
    let said = said();
    let wire = to_replicate_request(&said);
    assert_eq!(replicate_request(NodeId(4), wire).unwrap(), said);
}

#[test]
fn the_longest_message_of_a_follower_is_within_its_bound() {
    let longest = ToLeader::Fetch {
        partition: key(i32::MAX),
        id: FetchId(u64::MAX),
        position: Position {
            from: NodeId(i32::MAX),
            broker_epoch: BrokerEpoch::new(i64::MAX).unwrap(),
            leader_epoch: LeaderEpoch::new(i32::MAX).unwrap(),
            partition_epoch: -1,
            sequence: u64::MAX,
            log_end: place(i64::MAX),
            last_epoch: LeaderEpoch::new(i32::MAX),
            flushed: place(i64::MAX),
        },
    };
    let all = vec![longest; limits::PEER_MESSAGES_MAX];
    let wire = to_replicate_request(&all);
    assert!(wire.encoded_len() < limits::PEER_REQUEST_MAX_BYTES);
    let mut over = wire;
    over.messages.push(pb::FollowerMessage::default());
    let why = replicate_request(NodeId(i32::MAX), over).unwrap_err();
    assert_eq!(
        why.to_string(),
        "4097 messages in one; at most 4096 are allowed"
    );
}

#[test]
fn what_leaders_answer_comes_back() {
    let mut answers = vec![Answer {
        partition: key(1),
        id: FetchId(9),
        result: Ok(Records {
            batches: Bytes::from_static(b"batches"),
            high_watermark: place(10),
            log_start: Offset::ZERO,
        }),
    }];
    for (n, refusal) in refusals().into_iter().enumerate() {
        answers.push(Answer {
            partition: key(n as i32),
            id: FetchId(n as u64),
            result: Err(refusal),
        });
    }
    let wire = to_replicate_response(answers.clone());
    assert_eq!(replicate_response(wire).unwrap(), answers);
}

#[test]
fn heartbeats_come_back() {
    let node = NodeId(3);
    let beat = Heartbeat {
        node,
        epoch: BrokerEpoch::new(2).unwrap(),
        metadata_version_applied: u64::MAX,
        wants_shutdown: true,
    };
    let wire = to_heartbeat_request(&beat);
    assert_eq!(heartbeat_request(node, &wire).unwrap(), beat);
    let alive = |state| Output::Alive {
        node,
        state,
        may_stop: true,
        emptied: false,
    };
    for output in [
        alive(NodeState::Fenced),
        alive(NodeState::Active),
        alive(NodeState::Draining),
        Output::MustRegister { node, found: None },
        Output::MustRegister {
            node,
            found: Some(BrokerEpoch::ZERO),
        },
        Output::NotController { node },
    ] {
        let wire = to_heartbeat_response(&output);
        assert_eq!(heartbeat_response(node, wire).unwrap(), output);
    }
}

/// What is wrong with a fetch once `change` has been made to it.
fn fault(change: impl Fn(&mut pb::FollowerMessage)) -> String {
    let mut wire = to_replicate_request(&said());
    change(&mut wire.messages[0]);
    let why = replicate_request(NodeId(4), wire).unwrap_err();
    why.to_string()
}

#[test]
fn illegal_fetches_are_named() {
    fn at(m: &mut pb::FollowerMessage) -> &mut pb::Position {
        m.position.as_mut().unwrap()
    }
    assert_eq!(fault(|m| m.partition = None), "partition is missing");
    assert_eq!(fault(|m| m.position = None), "position is missing");
    assert_eq!(
        fault(|m| m.partition.as_mut().unwrap().partition = -1),
        "partition is -1; it must not be negative"
    );
    assert_eq!(
        fault(|m| at(m).node_id = 5),
        "node 4 sent a position of node 5"
    );
    assert_eq!(
        fault(|m| at(m).node_id = -4),
        "node_id is -4; it must not be negative"
    );
    assert_eq!(
        fault(|m| at(m).log_end = -1),
        "log_end is -1; an offset must not be negative"
    );
    assert_eq!(
        fault(|m| at(m).flushed = i64::MIN),
        "flushed is -9223372036854775808; an offset must not be negative"
    );
    for (change, name) in [
        (
            (|m| at(m).leader_epoch = -1) as fn(&mut pb::FollowerMessage),
            "leader_epoch",
        ),
        (|m| at(m).last_epoch = Some(-1), "last_epoch"),
        (|m| at(m).broker_epoch = -1, "broker_epoch"),
    ] {
        assert_eq!(
            fault(change),
            format!("{name} is -1; an epoch must not be negative")
        );
    }
}

#[test]
fn illegal_answers_are_named() {
    let wrong = |result: Option<pb::fetch_answer::Result>| {
        let answer = pb::FetchAnswer {
            partition: Some(to_partition(key(0))),
            fetch_id: 1,
            result,
        };
        let raw = pb::ReplicateResponse {
            answers: vec![answer],
        };
        replicate_response(raw).unwrap_err().to_string()
    };
    let refused = |reason, leader_epoch, offset| {
        wrong(Some(pb::fetch_answer::Result::Refused(pb::FetchRefused {
            reason,
            leader_epoch,
            offset,
        })))
    };
    assert_eq!(wrong(None), "result is missing");
    assert_eq!(refused(0, None, None), "reason is missing");
    assert_eq!(refused(77, None, None), "77 is not a known refusal");
    assert_eq!(refused(2, None, None), "leader_epoch is missing");
    assert_eq!(refused(6, Some(1), None), "offset is missing");
    assert_eq!(
        refused(7, None, Some(-3)),
        "offset is -3; an offset must not be negative"
    );
    let records = pb::FetchedRecords {
        high_watermark: -1,
        ..Default::default()
    };
    assert_eq!(
        wrong(Some(pb::fetch_answer::Result::Records(records))),
        "high_watermark is -1; an offset must not be negative"
    );
}

#[test]
fn illegal_heartbeats_are_named() {
    let beat = pb::HeartbeatRequest {
        node_id: 2,
        broker_epoch: -1,
        ..Default::default()
    };
    let why = |caller| heartbeat_request(NodeId(caller), &beat).unwrap_err();
    assert_eq!(why(1).to_string(), "node 1 sent a heartbeat of node 2");
    assert_eq!(
        why(2).to_string(),
        "broker_epoch is -1; an epoch must not be negative"
    );
    let answer = |output| {
        let raw = pb::HeartbeatResponse { node_id: 2, output };
        heartbeat_response(NodeId(2), raw).unwrap_err().to_string()
    };
    let heard = |state| {
        let heard = pb::HeardNode {
            state,
            ..Default::default()
        };
        answer(Some(pb::heartbeat_response::Output::Heard(heard)))
    };
    assert_eq!(answer(None), "output is missing");
    assert_eq!(heard(0), "state is missing");
    assert_eq!(heard(9), "9 is not a known node state");
    let other = to_heartbeat_response(&Output::NotController { node: NodeId(1) });
    assert_eq!(
        heartbeat_response(NodeId(2), other)
            .unwrap_err()
            .to_string(),
        "the heartbeat of node 2 got the answer for node 1"
    );
}
