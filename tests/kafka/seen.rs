//! Records as the two sides of a node show them: by the Kafka protocol, read as its clients read, and by the node's own
//! API over its own listener. What is the same log is equal here, record by record.

use std::net::SocketAddr;

use bytes::Bytes;
use tonic::transport::{Channel, Endpoint};
use varve_frontend_kafka::wire::Text;
use varve_frontend_kafka::wire::generated::fetch::{
    FetchPartition, FetchRequest, FetchTopic, PartitionData,
};
use varve_frontend_kafka::wire::generated::produce::{
    PartitionProduceData, PartitionProduceResponse, ProduceRequest, TopicProduceData,
};
use varve_proto::v1;
use varve_proto::v1::cluster_service_client::ClusterServiceClient;
use varve_proto::v1::consumer_service_client::ConsumerServiceClient;
use varve_proto::v1::producer_service_client::ProducerServiceClient;
use varve_proto::v1::transaction_service_client::TransactionServiceClient;
use varve_record::iter_batches;

use crate::client::{Client, ask};

type Field = Option<Vec<u8>>;

/// One record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub offset: i64,
    pub time: i64,
    pub key: Field,
    pub value: Field,
    pub headers: Vec<(Vec<u8>, Field)>,
}

fn owned(field: Option<Bytes>) -> Field {
    field.map(|bytes| bytes.to_vec())
}

/// Which records of transactions are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    Committed,
    All,
}

/// An append of these bytes to partition 0.
pub fn append(topic: &str, transaction: Option<&str>, records: Bytes) -> ProduceRequest {
    ProduceRequest {
        transactional_id: transaction.map(Text::from),
        acks: -1,
        timeout_ms: 10_000,
        topic_data: vec![TopicProduceData {
            name: Text::from(topic),
            partition_data: vec![PartitionProduceData {
                index: 0,
                records: Some(records),
            }],
            ..TopicProduceData::default()
        }],
    }
}

/// Appends by the Kafka protocol and returns what became of it.
pub async fn produce(
    client: &mut Client,
    version: i16,
    topic: &str,
    records: Bytes,
) -> PartitionProduceResponse {
    let request = append(topic, None, records);
    let mut response = ask!(client, version, Produce, request);
    response.responses.remove(0).partition_responses.remove(0)
}

/// What a fetch from partition 0 says.
pub async fn fetched(
    client: &mut Client,
    version: i16,
    topic: &str,
    offset: i64,
    which: Which,
) -> PartitionData {
    let request = FetchRequest {
        max_wait_ms: 200,
        min_bytes: 1,
        max_bytes: 64 << 20,
        isolation_level: i8::from(which == Which::Committed),
        topics: vec![FetchTopic {
            topic: Text::from(topic),
            partitions: vec![FetchPartition {
                fetch_offset: offset,
                partition_max_bytes: 64 << 20,
                ..FetchPartition::default()
            }],
            ..FetchTopic::default()
        }],
        ..FetchRequest::default()
    };
    let mut response = ask!(client, version, Fetch, request);
    let part = response.responses.remove(0).partitions.remove(0);
    assert_eq!(part.error_code, 0, "{part:?}");
    part
}

/// All of partition 0 by the Kafka protocol: batches of the log itself are not shown, and those of aborted
/// transactions are left out with the list of them, as clients do.
pub async fn by_kafka(client: &mut Client, topic: &str, which: Which) -> Vec<Seen> {
    let (mut all, mut offset) = (Vec::new(), 0);
    loop {
        let part = fetched(client, 12, topic, offset, which).await;
        let end = match which {
            Which::Committed => part.last_stable_offset,
            Which::All => part.high_watermark,
        };
        let mut aborted: Vec<(i64, i64)> = part
            .aborted_transactions
            .iter()
            .flatten()
            .map(|a| (a.producer_id, a.first_offset))
            .collect();
        for batch in iter_batches(part.records.unwrap_or_default()) {
            let batch = batch.unwrap();
            batch.verify_crc().unwrap();
            let header = batch.header;
            offset = header.next_offset().get();
            let first = header.base_offset.get();
            if header.is_control() {
                // The marker ends what it is about.
                aborted.retain(|(id, from)| *id != header.producer_id || *from > first);
                continue;
            }
            let gone = |(id, from): &(i64, i64)| *id == header.producer_id && *from <= first;
            if header.is_transactional() && aborted.iter().any(gone) {
                continue;
            }
            for record in batch.records().unwrap() {
                let record = record.unwrap();
                let headers = record.headers.into_iter();
                all.push(Seen {
                    offset: record.offset.get(),
                    time: record.timestamp,
                    key: owned(record.key),
                    value: owned(record.value),
                    headers: headers
                        .map(|(n, value)| (n.to_vec(), owned(value)))
                        .collect(),
                });
            }
        }
        if offset >= end {
            return all;
        }
    }
}

/// The node's own API over its own listener.
#[derive(Debug, Clone)]
pub struct Own(Channel);

impl Own {
    pub async fn connect(address: SocketAddr) -> Self {
        let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
        Self(endpoint.connect().await.unwrap())
    }

    /// All of partition 0.
    pub async fn read(&self, topic: &str, which: Which) -> Vec<Seen> {
        let mut consumer =
            ConsumerServiceClient::new(self.0.clone()).max_decoding_message_size(64 << 20);
        let (mut all, mut next) = (Vec::new(), 0);
        loop {
            let position = v1::start_position::Position::Offset(next);
            let request = v1::FetchRequest {
                topic: topic.to_owned(),
                start: Some(v1::StartPosition {
                    position: Some(position),
                }),
                isolation: match which {
                    Which::Committed => v1::Isolation::ReadCommitted.into(),
                    Which::All => v1::Isolation::ReadUncommitted.into(),
                },
                ..v1::FetchRequest::default()
            };
            let found = consumer.fetch(request).await.unwrap().into_inner();
            all.extend(found.records.into_iter().map(|record| {
                Seen {
                    offset: record.offset,
                    time: record.timestamp_ms,
                    key: owned(record.key),
                    value: owned(record.value),
                    headers: record
                        .headers
                        .into_iter()
                        .map(|h| {
                            let name = h.name_bytes.map_or(h.name.into_bytes(), Vec::from);
                            (name, owned(h.value))
                        })
                        .collect(),
                }
            }));
            next = found.next_offset;
            let end = match which {
                Which::Committed => found.last_stable_offset.unwrap(),
                Which::All => found.high_watermark,
            };
            if next >= end {
                return all;
            }
        }
    }

    /// Where the node serves the Kafka protocol, as it says itself.
    pub async fn kafka(&self) -> SocketAddr {
        let mut service = ClusterServiceClient::new(self.0.clone());
        let info = service.get_server_info(v1::GetServerInfoRequest {}).await;
        info.unwrap().into_inner().listeners["kafka"]
            .parse()
            .unwrap()
    }

    pub fn producer(&self) -> ProducerServiceClient<Channel> {
        ProducerServiceClient::new(self.0.clone())
    }

    pub fn transactions(&self) -> TransactionServiceClient<Channel> {
        TransactionServiceClient::new(self.0.clone())
    }

    /// Appends to partition 0. The offset of the first record.
    pub async fn produce(&self, request: v1::ProduceRequest) -> i64 {
        let request = v1::ProduceRequest {
            partition: Some(0),
            ..request
        };
        let answer = self.producer().produce(request).await.unwrap();
        match answer.into_inner().results.remove(0).outcome {
            Some(v1::partition_produce_result::Outcome::Appended(appended)) => {
                appended.base_offset.unwrap()
            }
            other => panic!("{other:?}"),
        }
    }
}
