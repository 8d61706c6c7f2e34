//! Transactions against a whole node: the real coordinator, real partitions, readers of either isolation.

use std::time::Duration;

use tokio::time::timeout;
use varve_client::{
    Admin, Client, ClientConfig, ClientError, GroupConfig, GroupConsumer, Producer, ProducerConfig,
    RecordRef, Start, TransactionError, TransactionalConfig, TransactionalProducer, proto as v1,
};
use varve_server::{Node, embedded};
use varve_types::{ErrorKind, GroupName, Offset, PartitionId, TopicName, TopicPartition};

/// Only a failure waits so long.
const PATIENCE: Duration = Duration::from_secs(180);
const ID: &str = "billing-1";
const PARTITIONS: i32 = 3;

struct Cluster {
    node: Node,
    client: Client,
    _dir: tempfile::TempDir,
}

fn topic() -> TopicName {
    "events".parse().unwrap()
}

impl Cluster {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let quick = [
            ("group.heartbeat.interval.ms", "100"),
            ("group.session.timeout.ms", "3000"),
        ];
        let node = embedded::start_with(dir.path(), &quick).await.unwrap();
        let client = Client::new(ClientConfig {
            brokers: vec![node.client_address().to_string()],
            ..Default::default()
        })
        .unwrap();
        let request = v1::CreateTopicRequest {
            topic: topic().to_string(),
            partition_count: PARTITIONS,
            ..Default::default()
        };
        Admin::new(client.clone())
            .create_topic(request)
            .await
            .unwrap();
        Self {
            node,
            client,
            _dir: dir,
        }
    }

    fn admin(&self) -> Admin {
        Admin::new(self.client.clone())
    }

    async fn producer(&self) -> TransactionalProducer {
        let config = TransactionalConfig::default();
        let id = ID.parse().unwrap();
        let opened = TransactionalProducer::open(self.client.clone(), id, config);
        timeout(PATIENCE, opened).await.unwrap().unwrap()
    }

    /// Values of a partition that readers of that isolation see.
    async fn seen(&self, partition: i32, isolation: v1::Isolation) -> Vec<String> {
        let address = self.node.client_address().to_string();
        let mut service = self.client.consumer_service(&address, false).unwrap();
        let request = v1::FetchRequest {
            topic: topic().to_string(),
            partition,
            isolation: isolation.into(),
            ..Default::default()
        };
        let found = service.fetch(request).await.unwrap().into_inner();
        let text = |r: v1::ConsumedRecord| String::from_utf8(r.value.unwrap().into()).unwrap();
        found.records.into_iter().map(text).collect()
    }

    /// Waits until readers of committed records see exactly this: markers come by and by.
    async fn shows(&self, partition: i32, expected: &[&str]) {
        let looked = async {
            loop {
                let seen = self.seen(partition, v1::Isolation::ReadCommitted).await;
                if seen == expected {
                    return;
                }
                assert!(seen.len() < expected.len(), "{seen:?}");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(PATIENCE, looked).await.unwrap();
    }

    async fn describe(&self) -> v1::GetTransactionResponse {
        let request = v1::GetTransactionRequest {
            transactional_id: ID.to_owned(),
        };
        self.admin().get_transaction(request).await.unwrap()
    }
}

async fn send(producer: &TransactionalProducer, value: &str) {
    for partition in 0..PARTITIONS {
        let record = RecordRef {
            partition: Some(partition),
            value: Some(value.as_bytes()),
            ..Default::default()
        };
        let handle = producer.send(&topic(), record).await.unwrap();
        timeout(PATIENCE, handle).await.unwrap().unwrap();
    }
}

async fn commit(producer: &mut TransactionalProducer) -> Result<(), TransactionError> {
    timeout(PATIENCE, producer.commit()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn records_of_several_partitions_and_offsets_become_visible_together() {
    let cluster = Cluster::start().await;
    let mut producer = cluster.producer().await;
    producer.begin().unwrap();
    send(&producer, "a").await;
    let group: GroupName = "workers".parse().unwrap();
    let place = TopicPartition::new(topic(), PartitionId(0));
    let offsets = [(place, Offset::new(1).unwrap())];
    let added = producer.commit_offsets(&group, "", 0, &offsets);
    timeout(PATIENCE, added).await.unwrap().unwrap();
    assert_eq!(
        cluster.describe().await.state(),
        v1::TransactionState::Ongoing
    );
    for partition in 0..PARTITIONS {
        let committed = cluster.seen(partition, v1::Isolation::ReadCommitted).await;
        assert!(committed.is_empty(), "{committed:?}");
        let all = cluster
            .seen(partition, v1::Isolation::ReadUncommitted)
            .await;
        assert_eq!(all, ["a"]);
    }
    commit(&mut producer).await.unwrap();
    for partition in 0..PARTITIONS {
        cluster.shows(partition, &["a"]).await;
    }
    let request = v1::GetOffsetsRequest {
        group: group.to_string(),
        ..Default::default()
    };
    let committed = async {
        loop {
            let answer = cluster.admin().get_offsets(request.clone()).await;
            match answer {
                Ok(found) if !found.offsets.is_empty() => return found.offsets[0].offset,
                _ => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    };
    assert_eq!(timeout(PATIENCE, committed).await.unwrap(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_aborted_transaction_is_never_seen_and_the_next_one_goes_on() {
    let cluster = Cluster::start().await;
    let mut producer = cluster.producer().await;
    producer.begin().unwrap();
    send(&producer, "aborted").await;
    timeout(PATIENCE, producer.abort()).await.unwrap().unwrap();
    for round in ["b", "c"] {
        producer.begin().unwrap();
        send(&producer, round).await;
        commit(&mut producer).await.unwrap();
    }
    for partition in 0..PARTITIONS {
        cluster.shows(partition, &["b", "c"]).await;
        let all = cluster
            .seen(partition, v1::Isolation::ReadUncommitted)
            .await;
        assert_eq!(all, ["aborted", "b", "c"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_producer_fences_the_older_and_ends_what_it_left_behind() {
    let cluster = Cluster::start().await;
    let mut older = cluster.producer().await;
    older.begin().unwrap();
    send(&older, "older").await;
    let mut newer = cluster.producer().await;
    newer.begin().unwrap();
    send(&newer, "newer").await;
    commit(&mut newer).await.unwrap();
    let error = commit(&mut older).await.unwrap_err();
    assert!(matches!(error, TransactionError::Fenced(_)), "{error}");
    cluster.shows(0, &["newer"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_producer_whose_transaction_an_operator_aborted_does_it_again() {
    let cluster = Cluster::start().await;
    let mut producer = cluster.producer().await;
    producer.begin().unwrap();
    send(&producer, "first").await;
    let request = v1::AbortTransactionRequest {
        transactional_id: ID.to_owned(),
    };
    cluster.admin().abort_transaction(request).await.unwrap();
    let error = commit(&mut producer).await.unwrap_err();
    assert!(matches!(error, TransactionError::MustAbort(_)), "{error}");
    let kind = error.cause().and_then(ClientError::kind);
    assert_eq!(kind, Some(ErrorKind::TransactionAborted));
    timeout(PATIENCE, producer.abort()).await.unwrap().unwrap();
    producer.begin().unwrap();
    send(&producer, "again").await;
    commit(&mut producer).await.unwrap();
    cluster.shows(0, &["again"]).await;
}

/// What a pipeline has done when it ends, or is ended.
async fn pipeline(client: Client, number: u32, stop_after: usize) -> Result<(), ClientError> {
    let config = TransactionalConfig::default();
    let id = ID.parse().unwrap();
    let opened = TransactionalProducer::open(client.clone(), id, config).await;
    let mut producer = opened.unwrap();
    let group = GroupName::new("pipeline").unwrap();
    let mut config = GroupConfig::new(group, vec!["inputs".parse().unwrap()]);
    config.auto_commit = None;
    let mut consumer = GroupConsumer::join(client, config)?;
    for turn in 0.. {
        // Longer than the session of a pipeline that stopped: what it held comes first.
        let Some(batch) = consumer.poll(Duration::from_secs(10)).await? else {
            return consumer.close().await;
        };
        producer.begin().unwrap();
        for record in batch.records()? {
            let record = record?;
            let made = RecordRef {
                partition: Some(batch.partition.0),
                value: record.value.as_deref(),
                ..Default::default()
            };
            producer.enqueue(&topic(), made).await.unwrap();
        }
        let progress = consumer.progress()?;
        producer.commit_progress(&progress).await.unwrap();
        if turn == stop_after {
            // Everything is sent and nothing is decided: the process is gone, and says no goodbye.
            std::mem::forget(producer);
            return Ok(());
        }
        if (number as usize + turn).is_multiple_of(3) {
            producer.abort().await.unwrap();
            for (partition, _) in progress.offsets {
                let committed = consumer.committed([&partition]).await?;
                let from = committed.get(&partition).map_or(0, |c| c.offset);
                consumer.seek(&partition, Start::Offset(from)).await?;
            }
        } else {
            producer.commit().await.unwrap();
        }
    }
    unreachable!()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_copies_every_record_once_however_often_it_stops() {
    let cluster = Cluster::start().await;
    let request = v1::CreateTopicRequest {
        topic: "inputs".to_owned(),
        partition_count: PARTITIONS,
        ..Default::default()
    };
    cluster.admin().create_topic(request).await.unwrap();
    let producer = Producer::new(cluster.client.clone(), ProducerConfig::default()).unwrap();
    let mut expected = vec![Vec::new(); PARTITIONS as usize];
    for number in 0..300 {
        let partition = number % PARTITIONS;
        let value = number.to_string();
        let record = RecordRef {
            partition: Some(partition),
            value: Some(value.as_bytes()),
            ..Default::default()
        };
        let sent = producer.send(&"inputs".parse().unwrap(), record).await;
        sent.unwrap().await.unwrap();
        expected[partition as usize].push(value);
    }
    for (number, stop_after) in [(0, 1), (1, 0), (2, 3), (3, usize::MAX)] {
        let run = pipeline(cluster.client.clone(), number, stop_after);
        timeout(PATIENCE, run).await.unwrap().unwrap();
    }
    for (partition, expected) in (0..).zip(&expected) {
        let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
        cluster.shows(partition, &expected).await;
    }
    drop(cluster.client);
    cluster.node.shutdown().await.unwrap();
}
