//! What nodes say to each other: any bytes as each message. What is legal comes back from the wire as it was.

use bytes::Bytes;
use prost::Message;
use varve_broker::peer::{Answer, Records, ToLeader};
use varve_metadata::{NodeState, Output, PartitionKey};
use varve_partition::{FetchId, FetchRefusal, Position};
use varve_peer_grpc::convert;
use varve_types::{BrokerEpoch, LeaderEpoch, NodeId, Offset, PartitionId, TopicId};

/// Who speaks in the seeds.
const NODE: NodeId = NodeId(2);

/// Messages of replication and heartbeats: the first byte says which, the rest is the message.
///
/// # Panics
/// When a property is broken.
pub fn messages(data: &[u8]) {
    let Some((which, data)) = data.split_first() else {
        return;
    };
    let data = Bytes::copy_from_slice(data);
    match which % 4 {
        0 => {
            let Some(message) = decoded(data, |m| convert::replicate_request(NODE, m)) else {
                return;
            };
            let again = convert::to_replicate_request(&message);
            assert_eq!(convert::replicate_request(NODE, wired(&again)), Ok(message));
        }
        1 => {
            let Some(message) = decoded(data, convert::replicate_response) else {
                return;
            };
            let again = convert::to_replicate_response(message.clone());
            assert_eq!(convert::replicate_response(wired(&again)), Ok(message));
        }
        2 => {
            let Some(beat) = decoded(data, |m| convert::heartbeat_request(NODE, &m)) else {
                return;
            };
            let again = convert::to_heartbeat_request(&beat);
            assert_eq!(convert::heartbeat_request(NODE, &wired(&again)), Ok(beat));
        }
        _ => {
            let Some(output) = decoded(data, |m| convert::heartbeat_response(NODE, m)) else {
                return;
            };
            let again = convert::to_heartbeat_response(&output);
            assert_eq!(convert::heartbeat_response(NODE, wired(&again)), Ok(output));
        }
    }
}

fn decoded<M: Message + Default, T>(
    data: Bytes,
    convert: impl FnOnce(M) -> Result<T, convert::Invalid>,
) -> Option<T> {
    convert(M::decode(data).ok()?).ok()
}

/// A message as it comes out at the other end.
fn wired<M: Message + Default>(message: &M) -> M {
    M::decode(message.encode_to_vec().as_slice()).unwrap()
}

fn seed(which: u8, message: &impl Message) -> Vec<u8> {
    let mut bytes = vec![which];
    message.encode(&mut bytes).unwrap();
    bytes
}

/// Where fuzzing begins, by name.
#[must_use]
pub fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let partition = PartitionKey {
        topic: TopicId(0x0123_4567_89ab_cdef_fedc_ba98_7654_3210),
        partition: PartitionId(7),
    };
    let (epoch, offset) = (LeaderEpoch::new(3).unwrap(), Offset::new(70).unwrap());
    let position = Position {
        from: NODE,
        broker_epoch: BrokerEpoch::new(5).unwrap(),
        leader_epoch: epoch,
        partition_epoch: 9,
        sequence: 11,
        log_end: offset,
        last_epoch: Some(LeaderEpoch::ZERO),
        flushed: Offset::new(60).unwrap(),
    };
    let id = FetchId(4);
    let said = [
        ToLeader::Fetch {
            partition,
            id,
            position,
        },
        ToLeader::Progress {
            partition,
            position,
        },
    ];
    let records = Records {
        batches: Bytes::from_static(b"batches"),
        high_watermark: offset,
        log_start: Offset::ZERO,
    };
    let diverging = FetchRefusal::Diverging {
        epoch,
        end_offset: offset,
    };
    let answer = |result| Answer {
        partition,
        id,
        result,
    };
    let answers = vec![answer(Ok(records)), answer(Err(diverging))];
    let beat = varve_metadata::Heartbeat {
        node: NODE,
        epoch: BrokerEpoch::new(5).unwrap(),
        metadata_version_applied: 1_000,
        wants_shutdown: true,
    };
    let alive = Output::Alive {
        node: NODE,
        state: NodeState::Draining,
        may_stop: true,
        emptied: true,
    };
    let unknown = Output::MustRegister {
        node: NODE,
        found: Some(BrokerEpoch::ZERO),
    };
    let lost = Output::NotController { node: NODE };
    vec![
        ("said", seed(0, &convert::to_replicate_request(&said))),
        ("answers", seed(1, &convert::to_replicate_response(answers))),
        ("beat", seed(2, &convert::to_heartbeat_request(&beat))),
        ("alive", seed(3, &convert::to_heartbeat_response(&alive))),
        (
            "unknown",
            seed(3, &convert::to_heartbeat_response(&unknown)),
        ),
        ("lost", seed(3, &convert::to_heartbeat_response(&lost))),
    ]
}
