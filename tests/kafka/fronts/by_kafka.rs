//! The scenarios by the Kafka protocol.

use std::net::SocketAddr;

use bytes::Bytes;
use varve_frontend_kafka::wire::generated::create_partitions::{
    CreatePartitionsRequest, CreatePartitionsTopic,
};
use varve_frontend_kafka::wire::generated::create_topics::{
    CreatableTopic, CreatableTopicConfig, CreateTopicsRequest,
};
use varve_frontend_kafka::wire::generated::delete_groups::DeleteGroupsRequest;
use varve_frontend_kafka::wire::generated::delete_records::{
    DeleteRecordsPartition, DeleteRecordsRequest, DeleteRecordsTopic,
};
use varve_frontend_kafka::wire::generated::delete_topics::DeleteTopicsRequest;
use varve_frontend_kafka::wire::generated::describe_configs::{
    DescribeConfigsRequest, DescribeConfigsResource,
};
use varve_frontend_kafka::wire::generated::end_txn::EndTxnRequest;
use varve_frontend_kafka::wire::generated::fetch::{FetchPartition, FetchRequest, FetchTopic};
use varve_frontend_kafka::wire::generated::incremental_alter_configs::{
    AlterConfigsResource, AlterableConfig, IncrementalAlterConfigsRequest,
};
use varve_frontend_kafka::wire::generated::init_producer_id::InitProducerIdRequest;
use varve_frontend_kafka::wire::generated::list_offsets::{
    ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic,
};
use varve_frontend_kafka::wire::generated::offset_commit::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use varve_frontend_kafka::wire::generated::offset_fetch::{
    OffsetFetchRequest, OffsetFetchRequestGroup, OffsetFetchRequestTopics,
};
use varve_frontend_kafka::wire::generated::produce::{
    PartitionProduceData, ProduceRequest, TopicProduceData,
};
use varve_frontend_kafka::wire::{ErrorCode, Text};
use varve_record::iter_batches;
use varve_types::ProducerId;

use super::{At, Front, Told, Why};
use crate::client::{Client, Patience, ask};

pub struct Kafka(Client);

impl Kafka {
    pub async fn connect(address: SocketAddr) -> Self {
        Self(Client::connect(address).await)
    }

    /// Whether the topic has that partition, as clients find out before they write.
    async fn has(&mut self, topic: &str, partition: i32) -> Told<()> {
        let found = self.0.describe(topic).await;
        if found.error_code != 0 {
            return Err(Why::NoTopic);
        }
        match found
            .partitions
            .iter()
            .any(|p| p.partition_index == partition)
        {
            true => Ok(()),
            false => Err(Why::NoPartition),
        }
    }
}

/// The codes that a refusal may have, by what it is about.
fn told(code: i16) -> Told<()> {
    let why = [
        (ErrorCode::UnknownTopicOrPartition, Why::NoTopic),
        (ErrorCode::TopicAlreadyExists, Why::TopicExists),
        (ErrorCode::InvalidTopicException, Why::BadTopicName),
        (ErrorCode::InvalidConfig, Why::BadConfig),
        (ErrorCode::InvalidPartitions, Why::BadPartitionCount),
        (ErrorCode::OffsetOutOfRange, Why::OutOfRange),
        (ErrorCode::CorruptMessage, Why::Corrupt),
        (ErrorCode::OutOfOrderSequenceNumber, Why::OutOfOrder),
        (ErrorCode::InvalidProducerEpoch, Why::Fenced),
        (ErrorCode::ProducerFenced, Why::Fenced),
        (ErrorCode::GroupIdNotFound, Why::NoGroup),
        (ErrorCode::InvalidTxnState, Why::NoTransaction),
    ];
    if code == 0 {
        return Ok(());
    }
    let found = why.iter().find(|(known, _)| known.code() == code);
    Err(found.unwrap_or_else(|| panic!("error code {code}")).1)
}

/// Whether it is to be asked again.
fn passes(code: i16) -> bool {
    let again = [
        ErrorCode::CoordinatorLoadInProgress,
        ErrorCode::CoordinatorNotAvailable,
        ErrorCode::ConcurrentTransactions,
        ErrorCode::NotEnoughReplicas,
    ];
    again.iter().any(|known| known.code() == code)
}

impl Front for Kafka {
    async fn create(&mut self, topic: &str, partitions: i32, configs: &[(&str, &str)]) -> Told<()> {
        let configs = configs.iter().map(|(name, value)| CreatableTopicConfig {
            name: Text::from(*name),
            value: Some(Text::from(*value)),
        });
        let request = CreateTopicsRequest {
            topics: vec![CreatableTopic {
                name: Text::from(topic),
                num_partitions: partitions,
                replication_factor: 1,
                configs: configs.collect(),
                ..CreatableTopic::default()
            }],
            ..CreateTopicsRequest::default()
        };
        told(ask!(self.0, 7, CreateTopics, request).topics[0].error_code)
    }

    async fn delete(&mut self, topic: &str) -> Told<()> {
        let request = DeleteTopicsRequest {
            topic_names: vec![Text::from(topic)],
            ..DeleteTopicsRequest::default()
        };
        told(ask!(self.0, 5, DeleteTopics, request).responses[0].error_code)
    }

    async fn widen(&mut self, topic: &str, partitions: i32) -> Told<()> {
        let request = CreatePartitionsRequest {
            topics: vec![CreatePartitionsTopic {
                name: Text::from(topic),
                count: partitions,
                ..CreatePartitionsTopic::default()
            }],
            ..CreatePartitionsRequest::default()
        };
        told(ask!(self.0, 3, CreatePartitions, request).results[0].error_code)
    }

    async fn configure(&mut self, topic: &str, name: &str, value: &str) -> Told<()> {
        let config = AlterableConfig {
            name: Text::from(name),
            config_operation: 0,
            value: Some(Text::from(value)),
        };
        let request = IncrementalAlterConfigsRequest {
            resources: vec![AlterConfigsResource {
                resource_type: 2,
                resource_name: Text::from(topic),
                configs: vec![config],
            }],
            ..IncrementalAlterConfigsRequest::default()
        };
        let answer = ask!(self.0, 1, IncrementalAlterConfigs, request);
        told(answer.responses[0].error_code)
    }

    async fn config(&mut self, topic: &str, name: &str) -> Told<String> {
        let request = DescribeConfigsRequest {
            resources: vec![DescribeConfigsResource {
                resource_type: 2,
                resource_name: Text::from(topic),
                configuration_keys: Some(vec![Text::from(name)]),
            }],
            ..DescribeConfigsRequest::default()
        };
        let answer = ask!(self.0, 4, DescribeConfigs, request);
        let result = &answer.results[0];
        told(result.error_code)?;
        let value = result.configs[0].value.as_ref();
        Ok(value.unwrap().as_str().to_owned())
    }

    async fn append(
        &mut self,
        topic: &str,
        partition: i32,
        transaction: Option<&str>,
        batch: Bytes,
    ) -> Told<i64> {
        self.has(topic, partition).await?;
        let patience = Patience::begin();
        loop {
            let request = ProduceRequest {
                transactional_id: transaction.map(Text::from),
                acks: -1,
                timeout_ms: 10_000,
                topic_data: vec![TopicProduceData {
                    name: Text::from(topic),
                    partition_data: vec![PartitionProduceData {
                        index: partition,
                        records: Some(batch.clone()),
                    }],
                    ..TopicProduceData::default()
                }],
            };
            let answer = ask!(self.0, 12, Produce, request);
            let part = &answer.responses[0].partition_responses[0];
            if !passes(part.error_code) {
                return told(part.error_code).map(|()| part.base_offset);
            }
            patience.again(part.error_code).await;
        }
    }

    async fn values(&mut self, topic: &str, offset: i64) -> Told<Vec<String>> {
        let (mut all, mut next) = (Vec::new(), offset);
        let patience = Patience::begin();
        loop {
            let request = FetchRequest {
                max_wait_ms: 0,
                max_bytes: 1 << 20,
                isolation_level: 1,
                topics: vec![FetchTopic {
                    topic: Text::from(topic),
                    partitions: vec![FetchPartition {
                        fetch_offset: next,
                        partition_max_bytes: 1 << 20,
                        ..FetchPartition::default()
                    }],
                    ..FetchTopic::default()
                }],
                ..FetchRequest::default()
            };
            let answer = ask!(self.0, 12, Fetch, request);
            let part = &answer.responses[0].partitions[0];
            told(part.error_code)?;
            let aborted = part.aborted_transactions.iter().flatten();
            let mut aborted: Vec<_> = aborted.map(|a| (a.producer_id, a.first_offset)).collect();
            for batch in iter_batches(part.records.clone().unwrap_or_default()) {
                let batch = batch.unwrap();
                let (header, first) = (batch.header, batch.header.base_offset.get());
                next = header.next_offset().get();
                let of = |(id, from): &(i64, i64)| *id == header.producer_id && *from <= first;
                if header.is_control() {
                    aborted.retain(|a| !of(a));
                    continue;
                }
                if header.is_transactional() && aborted.iter().any(of) {
                    continue;
                }
                for record in batch.records().unwrap() {
                    let record = record.unwrap();
                    if record.offset.get() >= offset {
                        let value = record.value.unwrap().to_vec();
                        all.push(String::from_utf8(value).unwrap());
                    }
                }
            }
            if next >= part.last_stable_offset {
                return Ok(all);
            }
            patience.again((next, part.last_stable_offset)).await;
        }
    }

    async fn offset(&mut self, topic: &str, at: At) -> Told<Option<i64>> {
        let request = ListOffsetsRequest {
            replica_id: -1,
            topics: vec![ListOffsetsTopic {
                name: Text::from(topic),
                partitions: vec![ListOffsetsPartition {
                    timestamp: match at {
                        At::Earliest => -2,
                        At::Latest => -1,
                        At::Time(ms) => ms,
                    },
                    ..ListOffsetsPartition::default()
                }],
            }],
            ..ListOffsetsRequest::default()
        };
        let answer = ask!(self.0, 7, ListOffsets, request);
        let part = &answer.topics[0].partitions[0];
        told(part.error_code)?;
        Ok((part.offset >= 0).then_some(part.offset))
    }

    async fn cut(&mut self, topic: &str, before: i64) -> Told<i64> {
        let request = DeleteRecordsRequest {
            topics: vec![DeleteRecordsTopic {
                name: Text::from(topic),
                partitions: vec![DeleteRecordsPartition {
                    partition_index: 0,
                    offset: before,
                }],
            }],
            ..DeleteRecordsRequest::default()
        };
        let answer = ask!(self.0, 2, DeleteRecords, request);
        let part = &answer.topics[0].partitions[0];
        told(part.error_code).map(|()| part.low_watermark)
    }

    async fn session(&mut self) -> ProducerId {
        let request = InitProducerIdRequest {
            producer_id: -1,
            producer_epoch: -1,
            ..InitProducerIdRequest::default()
        };
        let opened = ask!(self.0, 5, InitProducerId, request);
        assert_eq!(opened.error_code, 0);
        ProducerId {
            id: opened.producer_id,
            epoch: opened.producer_epoch,
        }
    }

    fn commits_ahead(&self) -> bool {
        true
    }

    async fn commit(&mut self, group: &str, topic: &str, offset: i64) -> Told<()> {
        let patience = Patience::begin();
        loop {
            let request = OffsetCommitRequest {
                group_id: Text::from(group),
                generation_id_or_member_epoch: -1,
                topics: vec![OffsetCommitRequestTopic {
                    name: Text::from(topic),
                    partitions: vec![OffsetCommitRequestPartition {
                        committed_offset: offset,
                        committed_leader_epoch: -1,
                        ..OffsetCommitRequestPartition::default()
                    }],
                    ..OffsetCommitRequestTopic::default()
                }],
                ..OffsetCommitRequest::default()
            };
            let answer = ask!(self.0, 9, OffsetCommit, request);
            let code = answer.topics[0].partitions[0].error_code;
            if !passes(code) {
                return told(code);
            }
            patience.again(code).await;
        }
    }

    async fn committed(&mut self, group: &str, topic: &str) -> Option<i64> {
        let patience = Patience::begin();
        loop {
            let request = OffsetFetchRequest {
                groups: vec![OffsetFetchRequestGroup {
                    group_id: Text::from(group),
                    topics: Some(vec![OffsetFetchRequestTopics {
                        name: Text::from(topic),
                        partition_indexes: vec![0],
                        ..OffsetFetchRequestTopics::default()
                    }]),
                    ..OffsetFetchRequestGroup::default()
                }],
                ..OffsetFetchRequest::default()
            };
            let answer = ask!(self.0, 9, OffsetFetch, request);
            let found = &answer.groups[0];
            if !passes(found.error_code) {
                assert_eq!(found.error_code, 0);
                let offset = found.topics[0].partitions[0].committed_offset;
                return (offset >= 0).then_some(offset);
            }
            patience.again(found.error_code).await;
        }
    }

    async fn forget_group(&mut self, group: &str) -> Told<()> {
        let patience = Patience::begin();
        loop {
            let request = DeleteGroupsRequest {
                groups_names: vec![Text::from(group)],
            };
            let code = ask!(self.0, 2, DeleteGroups, request).results[0].error_code;
            if !passes(code) {
                return told(code);
            }
            patience.again(code).await;
        }
    }

    async fn begin(&mut self, id: &str) -> Told<ProducerId> {
        let patience = Patience::begin();
        loop {
            let request = InitProducerIdRequest {
                transactional_id: Some(Text::from(id)),
                transaction_timeout_ms: 60_000,
                producer_id: -1,
                producer_epoch: -1,
            };
            let opened = ask!(self.0, 5, InitProducerId, request);
            if !passes(opened.error_code) {
                return told(opened.error_code).map(|()| ProducerId {
                    id: opened.producer_id,
                    epoch: opened.producer_epoch,
                });
            }
            patience.again(opened.error_code).await;
        }
    }

    async fn end(&mut self, id: &str, session: ProducerId, commit: bool) -> Told<ProducerId> {
        let patience = Patience::begin();
        loop {
            let request = EndTxnRequest {
                transactional_id: Text::from(id),
                producer_id: session.id,
                producer_epoch: session.epoch,
                committed: commit,
            };
            let ended = ask!(self.0, 5, EndTxn, request);
            if !passes(ended.error_code) {
                return told(ended.error_code).map(|()| ProducerId {
                    id: ended.producer_id,
                    epoch: ended.producer_epoch,
                });
            }
            patience.again(ended.error_code).await;
        }
    }
}
