//! The scenarios by the gRPC API.

use std::net::SocketAddr;

use bytes::Bytes;
use tonic::Status;
use tonic::transport::{Channel, Endpoint};
use tonic_types::StatusExt as _;
use varve_proto::v1;
use varve_proto::v1::consumer_service_client::ConsumerServiceClient;
use varve_proto::v1::group_service_client::GroupServiceClient;
use varve_proto::v1::producer_service_client::ProducerServiceClient;
use varve_proto::v1::topic_service_client::TopicServiceClient;
use varve_proto::v1::transaction_service_client::TransactionServiceClient;
use varve_types::ProducerId;

use super::{At, Front, Told, Why};
use crate::client::Patience;

pub struct Grpc(Channel);

impl Grpc {
    pub async fn connect(address: SocketAddr) -> Self {
        let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
        Self(endpoint.connect().await.unwrap())
    }

    fn topics(&self) -> TopicServiceClient<Channel> {
        TopicServiceClient::new(self.0.clone())
    }

    fn groups(&self) -> GroupServiceClient<Channel> {
        GroupServiceClient::new(self.0.clone())
    }

    fn transactions(&self) -> TransactionServiceClient<Channel> {
        TransactionServiceClient::new(self.0.clone())
    }
}

fn why(reason: &str, text: &str) -> Why {
    match reason {
        "TOPIC_NOT_FOUND" => Why::NoTopic,
        "PARTITION_NOT_FOUND" => Why::NoPartition,
        "TOPIC_ALREADY_EXISTS" => Why::TopicExists,
        "INVALID_REQUEST" if text.contains("partition") => Why::BadPartitionCount,
        "INVALID_REQUEST" => Why::BadTopicName,
        "INVALID_CONFIG" => Why::BadConfig,
        "OFFSET_OUT_OF_RANGE" => Why::OutOfRange,
        "CORRUPT_BATCH" => Why::Corrupt,
        "OUT_OF_ORDER_SEQUENCE" => Why::OutOfOrder,
        "PRODUCER_FENCED" => Why::Fenced,
        "GROUP_NOT_FOUND" => Why::NoGroup,
        "INVALID_TRANSACTION_STATE" => Why::NoTransaction,
        other => panic!("{other}: {text}"),
    }
}

fn refused(status: Status) -> Why {
    let info = status.get_details_error_info();
    let reason = info.map_or_else(|| panic!("{status:?}"), |info| info.reason);
    why(&reason, status.message())
}

fn refused_item(error: v1::PartitionError) -> Why {
    let name = error.reason().as_str_name();
    let reason = name.strip_prefix("ERROR_REASON_").unwrap();
    why(reason, &error.message)
}

/// Asks again what only needs time.
async fn patient<T, F>(mut call: impl FnMut() -> F) -> Told<T>
where
    F: Future<Output = Result<tonic::Response<T>, Status>>,
{
    let patience = Patience::begin();
    loop {
        let reason = match call().await {
            Ok(answer) => return Ok(answer.into_inner()),
            Err(status) => {
                let info = status.get_details_error_info();
                let reason = info.map(|info| info.reason).unwrap_or_default();
                if !["COORDINATOR_LOADING", "CONCURRENT_TRANSACTIONS"].contains(&reason.as_str()) {
                    return Err(refused(status));
                }
                reason
            }
        };
        patience.again(reason).await;
    }
}

fn place(topic: &str) -> Option<v1::TopicPartition> {
    Some(v1::TopicPartition {
        topic: topic.to_owned(),
        partition: 0,
    })
}

fn to_session(session: ProducerId) -> Option<v1::TransactionSession> {
    Some(v1::TransactionSession {
        producer_id: session.id,
        producer_epoch: session.epoch.into(),
    })
}

fn session(raw: Option<v1::TransactionSession>) -> ProducerId {
    let raw = raw.unwrap();
    ProducerId {
        id: raw.producer_id,
        epoch: raw.producer_epoch.try_into().unwrap(),
    }
}

impl Front for Grpc {
    async fn create(&mut self, topic: &str, partitions: i32, configs: &[(&str, &str)]) -> Told<()> {
        let configs = configs.iter();
        let request = v1::CreateTopicRequest {
            topic: topic.to_owned(),
            partition_count: partitions,
            configs: configs
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect(),
            ..v1::CreateTopicRequest::default()
        };
        let created = self.topics().create_topic(request).await;
        created.map(|_| ()).map_err(refused)
    }

    async fn delete(&mut self, topic: &str) -> Told<()> {
        let request = v1::DeleteTopicRequest {
            topic: topic.to_owned(),
            ..v1::DeleteTopicRequest::default()
        };
        let deleted = self.topics().delete_topic(request).await;
        deleted.map(|_| ()).map_err(refused)
    }

    async fn widen(&mut self, topic: &str, partitions: i32) -> Told<()> {
        let request = v1::AddPartitionsRequest {
            topic: topic.to_owned(),
            partition_count: partitions,
            ..v1::AddPartitionsRequest::default()
        };
        let added = self.topics().add_partitions(request).await;
        added.map(|_| ()).map_err(refused)
    }

    async fn configure(&mut self, topic: &str, name: &str, value: &str) -> Told<()> {
        let change = v1::ConfigChange {
            name: name.to_owned(),
            operation: v1::ConfigOperation::Set.into(),
            value: value.to_owned(),
        };
        let request = v1::UpdateTopicConfigsRequest {
            topic: topic.to_owned(),
            changes: vec![change],
            ..v1::UpdateTopicConfigsRequest::default()
        };
        let changed = self.topics().update_topic_configs(request).await;
        changed.map(|_| ()).map_err(refused)
    }

    async fn config(&mut self, topic: &str, name: &str) -> Told<String> {
        let request = v1::GetTopicConfigsRequest {
            topic: topic.to_owned(),
            ..v1::GetTopicConfigsRequest::default()
        };
        let found = self.topics().get_topic_configs(request).await;
        let found = found.map_err(refused)?.into_inner();
        let entry = found.configs.into_iter().find(|c| c.name == name);
        Ok(entry.unwrap().value)
    }

    async fn append(
        &mut self,
        topic: &str,
        partition: i32,
        transaction: Option<&str>,
        batch: Bytes,
    ) -> Told<i64> {
        let request = v1::ProduceRequest {
            topic: topic.to_owned(),
            partition: Some(partition),
            batch: Some(v1::EncodedBatch {
                format: 2,
                data: batch,
            }),
            transactional_id: transaction.unwrap_or_default().to_owned(),
            ..v1::ProduceRequest::default()
        };
        let producer = ProducerServiceClient::new(self.0.clone());
        let mut answer = patient(|| {
            let (mut producer, request) = (producer.clone(), request.clone());
            async move { producer.produce(request).await }
        })
        .await?;
        match answer.results.remove(0).outcome.unwrap() {
            v1::partition_produce_result::Outcome::Appended(a) => Ok(a.base_offset.unwrap()),
            v1::partition_produce_result::Outcome::Error(error) => Err(refused_item(error)),
        }
    }

    async fn values(&mut self, topic: &str, offset: i64) -> Told<Vec<String>> {
        let mut consumer = ConsumerServiceClient::new(self.0.clone());
        let (mut all, mut next) = (Vec::new(), offset);
        loop {
            let position = v1::start_position::Position::Offset(next);
            let request = v1::FetchRequest {
                topic: topic.to_owned(),
                start: Some(v1::StartPosition {
                    position: Some(position),
                }),
                ..v1::FetchRequest::default()
            };
            let found = consumer.fetch(request).await.map_err(refused)?.into_inner();
            let value = |record: v1::ConsumedRecord| record.value.unwrap().to_vec();
            let records = found.records.into_iter();
            all.extend(records.map(|r| String::from_utf8(value(r)).unwrap()));
            next = found.next_offset;
            if next >= found.last_stable_offset.unwrap() {
                return Ok(all);
            }
        }
    }

    async fn offset(&mut self, topic: &str, at: At) -> Told<Option<i64>> {
        use v1::start_position::Position;
        let position = match at {
            At::Earliest => Position::Anchor(v1::StartAnchor::Earliest.into()),
            At::Latest => Position::Anchor(v1::StartAnchor::Latest.into()),
            At::Time(ms) => Position::TimestampMs(ms),
        };
        let query = v1::OffsetQuery {
            topic_partition: place(topic),
            position: Some(v1::StartPosition {
                position: Some(position),
            }),
            ..v1::OffsetQuery::default()
        };
        let mut consumer = ConsumerServiceClient::new(self.0.clone());
        let request = v1::ListOffsetsRequest {
            queries: vec![query],
        };
        let mut answer = consumer.list_offsets(request).await.map_err(refused)?;
        match answer.get_mut().results.remove(0).outcome.unwrap() {
            // This side tells where records of that time will come, the other that there are none.
            v1::offset_result::Outcome::Offsets(found)
                if matches!(at, At::Time(_)) && found.offset == Some(found.high_watermark) =>
            {
                Ok(None)
            }
            v1::offset_result::Outcome::Offsets(found) => Ok(found.offset),
            v1::offset_result::Outcome::Error(error) => Err(refused_item(error)),
        }
    }

    async fn cut(&mut self, topic: &str, before: i64) -> Told<i64> {
        let delete = v1::DeleteBefore {
            topic_partition: place(topic),
            before: Some(v1::delete_before::Before::Offset(before)),
        };
        let request = v1::DeleteRecordsRequest {
            deletes: vec![delete],
        };
        let mut answer = self
            .topics()
            .delete_records(request)
            .await
            .map_err(refused)?;
        match answer.get_mut().results.remove(0).outcome.unwrap() {
            v1::delete_records_result::Outcome::LogStartOffset(start) => Ok(start),
            v1::delete_records_result::Outcome::Error(error) => Err(refused_item(error)),
        }
    }

    async fn session(&mut self) -> ProducerId {
        let mut producer = ProducerServiceClient::new(self.0.clone());
        let opened = producer.init_producer(v1::InitProducerRequest::default());
        let opened = opened.await.unwrap().into_inner();
        ProducerId {
            id: opened.producer_id,
            epoch: opened.producer_epoch.try_into().unwrap(),
        }
    }

    fn commits_ahead(&self) -> bool {
        false
    }

    async fn commit(&mut self, group: &str, topic: &str, offset: i64) -> Told<()> {
        let request = v1::CommitOffsetsRequest {
            group: group.to_owned(),
            offsets: vec![v1::PartitionCommit {
                topic_partition: place(topic),
                offset,
                ..v1::PartitionCommit::default()
            }],
            ..v1::CommitOffsetsRequest::default()
        };
        let groups = self.groups();
        let answer = patient(|| {
            let (mut groups, request) = (groups.clone(), request.clone());
            async move { groups.commit_offsets(request).await }
        })
        .await?;
        match answer.failures.into_iter().next() {
            Some(failure) => Err(refused_item(failure.error.unwrap())),
            None => Ok(()),
        }
    }

    async fn committed(&mut self, group: &str, topic: &str) -> Option<i64> {
        let request = v1::GetOffsetsRequest {
            group: group.to_owned(),
            partitions: place(topic).into_iter().collect(),
            ..v1::GetOffsetsRequest::default()
        };
        let groups = self.groups();
        let answer = patient(|| {
            let (mut groups, request) = (groups.clone(), request.clone());
            async move { groups.get_offsets(request).await }
        })
        .await;
        match answer {
            Ok(found) => found.offsets.first().map(|o| o.offset),
            Err(why) => {
                assert_eq!(why, Why::NoGroup);
                None
            }
        }
    }

    async fn forget_group(&mut self, group: &str) -> Told<()> {
        let request = v1::DeleteGroupRequest {
            group: group.to_owned(),
        };
        let groups = self.groups();
        let answer = patient(|| {
            let (mut groups, request) = (groups.clone(), request.clone());
            async move { groups.delete_group(request).await }
        });
        answer.await.map(|_| ())
    }

    async fn begin(&mut self, id: &str) -> Told<ProducerId> {
        let request = v1::InitTransactionsRequest {
            transactional_id: id.to_owned(),
            ..v1::InitTransactionsRequest::default()
        };
        let service = self.transactions();
        let answer = patient(|| {
            let (mut service, request) = (service.clone(), request.clone());
            async move { service.init_transactions(request).await }
        });
        answer.await.map(|opened| session(opened.session))
    }

    async fn end(&mut self, id: &str, producer: ProducerId, commit: bool) -> Told<ProducerId> {
        let outcome = match commit {
            true => v1::TransactionOutcome::Commit,
            false => v1::TransactionOutcome::Abort,
        };
        let request = v1::EndTransactionRequest {
            transactional_id: id.to_owned(),
            session: to_session(producer),
            outcome: outcome.into(),
        };
        let service = self.transactions();
        let answer = patient(|| {
            let (mut service, request) = (service.clone(), request.clone());
            async move { service.end_transaction(request).await }
        });
        answer.await.map(|ended| session(ended.session))
    }
}
