//! Registrations and markers of transactions between two nodes.

use std::time::Duration;

use varve_broker::peer::{MarkerOrder, MarkerOutcome, Peers as _, Registration};
use varve_broker_api::{Error, LeaderHint};
use varve_peer_grpc::{ClientOptions, Identity, PeerClient};
use varve_types::{
    ClusterId, ErrorKind, LeaderEpoch, NodeId, PartitionId, ProducerId, TopicId, TopicName,
    TopicPartition, TransactionalId,
};

use crate::fake::{CLUSTER, FOLLOWER, Fake, LEADER, client, key, serve};

const PRODUCER: ProducerId = ProducerId { id: 5, epoch: 2 };

fn silent() -> Fake {
    Fake::new(|_| None)
}

fn registration(partitions: i32) -> Registration {
    let topic = TopicName::new("orders").unwrap();
    let partition = |number| {
        let partition = TopicPartition::new(topic.clone(), PartitionId(number));
        (TopicId(0xabc), partition)
    };
    Registration {
        verify_only: false,
        id: TransactionalId::new("billing-1").unwrap(),
        producer: PRODUCER,
        partitions: (0..partitions).map(partition).collect(),
    }
}

fn order(partitions: i32) -> MarkerOrder {
    MarkerOrder {
        number: None,
        producer: PRODUCER,
        commit: true,
        coordinator_epoch: LeaderEpoch::new(3).unwrap(),
        partitions: (0..partitions).map(key).collect(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registration_is_answered_by_the_coordinator_itself() {
    let served = serve(silent()).await;
    let client = client();
    let mut moved = Error::new(
        ErrorKind::NotCoordinator,
        "node 3 coordinates \"billing-1\"",
    )
    .with("transactional_id", "billing-1")
    .after(Duration::from_millis(20));
    moved.leader = Some(Box::new(LeaderHint {
        node: NodeId(3),
        address: "node-3:8270".to_owned(),
        epoch: LeaderEpoch::new(1).unwrap(),
    }));
    for answer in [Ok(()), Err(moved)] {
        *served.fake.registered.lock().unwrap() = Some(answer.clone());
        let heard = client.register(LEADER, served.address.clone(), registration(2));
        assert_eq!(heard.await, Ok(answer));
    }
    let heard = served.fake.registrations.lock().unwrap().clone();
    assert_eq!(heard, [registration(2), registration(2)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn markers_are_answered_one_by_one() {
    let served = serve(silent()).await;
    let outcomes = [
        MarkerOutcome::Done,
        MarkerOutcome::Again,
        MarkerOutcome::Fenced,
    ];
    *served.fake.outcomes.lock().unwrap() = outcomes.to_vec();
    let client = client();
    let told = client.write_markers(LEADER, served.address.clone(), order(3));
    assert_eq!(told.await.unwrap(), outcomes);
    assert_eq!(*served.fake.orders.lock().unwrap(), [order(3)]);
    // An answer that does not fit the question counts for nothing.
    let told = client.write_markers(LEADER, served.address.clone(), order(2));
    let error = told.await.unwrap_err();
    assert!(error.why.contains("3 outcomes came for 2"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn illegal_messages_and_strangers_are_refused() {
    let served = serve(silent()).await;
    *served.fake.registered.lock().unwrap() = Some(Ok(()));
    let address = || served.address.clone();
    let ours = client();
    let heard = ours.register(LEADER, address(), registration(0));
    let error = heard.await.unwrap_err();
    assert!(error.why.contains("has 0 partitions"), "{error}");
    let heard = ours.write_markers(LEADER, address(), order(10_001));
    let error = heard.await.unwrap_err();
    assert!(error.why.contains("has 10001 partitions"), "{error}");
    let other = Identity::new(ClusterId(1), FOLLOWER);
    let strangers = PeerClient::new(other, ClientOptions::default());
    let error = strangers.register(LEADER, address(), registration(1)).await;
    let error = error.unwrap_err();
    assert!(error.why.contains("belongs to cluster"), "{error}");
    let error = strangers.write_markers(LEADER, address(), order(1)).await;
    let error = error.unwrap_err();
    assert!(error.why.contains("belongs to cluster"), "{error}");
    assert!(served.fake.registrations.lock().unwrap().is_empty());
    assert!(served.fake.orders.lock().unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coordinator_that_says_nothing_is_not_waited_for_without_end() {
    let served = serve(silent()).await;
    let options = ClientOptions {
        transaction_timeout: Duration::from_millis(300),
        ..ClientOptions::default()
    };
    let client = PeerClient::new(Identity::new(CLUSTER, FOLLOWER), options);
    let heard = client.register(LEADER, served.address.clone(), registration(1));
    let error = heard.await.unwrap_err();
    assert_eq!((error.node, &error.address), (LEADER, &served.address));
    assert!(
        error.why.contains("the node may have received the message")
            || error.why.contains("imeout"),
        "{error}"
    );
}
