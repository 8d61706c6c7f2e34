//! Reading ahead, through a whole node: every record once and unchanged, and nothing that is not there any more.

use bytes::Bytes;
use varve_frontend_kafka::wire::generated::delete_records::{
    DeleteRecordsPartition, DeleteRecordsRequest, DeleteRecordsTopic,
};
use varve_frontend_kafka::wire::generated::fetch::{
    FetchPartition, FetchRequest, FetchResponse, FetchTopic,
};
use varve_frontend_kafka::wire::generated::produce::{
    PartitionProduceData, ProduceRequest, TopicProduceData,
};
use varve_frontend_kafka::wire::{ErrorCode, Text, Uuid};
use varve_record::{BatchBuilder, Compression, iter_batches};

use crate::Bed;
use crate::client::{Client, ask};
use varve_tests::node::http_get_at;

const PARTITIONS: i32 = 3;
/// Batches of a partition, of one record each.
const BATCHES: i64 = 60;
/// Bytes of a record.
const SIZE: usize = 50_000;

/// A record that no other is like.
fn value(partition: i32, offset: i64) -> Vec<u8> {
    let start = u8::try_from(offset).unwrap() ^ u8::try_from(partition * 64).unwrap();
    (0..SIZE)
        .map(|at| (at as u8).wrapping_mul(31) ^ start)
        .collect()
}

async fn fill(client: &mut Client) {
    client.create("orders", PARTITIONS).await;
    for offset in 0..BATCHES {
        let data = (0..PARTITIONS).map(|partition| {
            let mut builder = BatchBuilder::new(Compression::None, None);
            let value = value(partition, offset);
            builder.append(1, None, Some(&value), &[]).unwrap();
            PartitionProduceData {
                index: partition,
                records: Some(builder.build().unwrap()),
            }
        });
        let request = ProduceRequest {
            transactional_id: None,
            acks: -1,
            timeout_ms: 10_000,
            topic_data: vec![TopicProduceData {
                name: Text::from_static("orders"),
                topic_id: Uuid::ZERO,
                partition_data: data.collect(),
            }],
        };
        let response = ask!(client, 9, Produce, request);
        for part in &response.responses[0].partition_responses {
            assert_eq!((part.error_code, part.base_offset), (0, offset));
        }
    }
}

/// Asks for up to 200 kB of each partition, and 500 kB in all.
async fn fetch(client: &mut Client, offsets: &[i64]) -> FetchResponse {
    let partitions = (0..)
        .zip(offsets)
        .map(|(partition, offset)| FetchPartition {
            partition,
            fetch_offset: *offset,
            partition_max_bytes: 200_000,
            ..FetchPartition::default()
        });
    let request = FetchRequest {
        max_wait_ms: 100,
        min_bytes: 1,
        max_bytes: 500_000,
        topics: vec![FetchTopic {
            topic: Text::from_static("orders"),
            partitions: partitions.collect(),
            ..FetchTopic::default()
        }],
        ..FetchRequest::default()
    };
    ask!(client, 11, Fetch, request)
}

/// Offsets and values of what was read, and the next offset.
fn records(records: Option<Bytes>) -> Vec<(i64, Vec<u8>)> {
    let mut all = Vec::new();
    for batch in iter_batches(records.unwrap_or_default()) {
        let batch = batch.unwrap();
        batch.verify_crc().unwrap();
        for record in batch.records().unwrap() {
            let record = record.unwrap();
            all.push((record.offset.get(), record.value.unwrap().to_vec()));
        }
    }
    all
}

/// Bytes that were read ahead, and whether they were of use.
async fn read_ahead(bed: &Bed) -> (u64, u64) {
    let address = bed.node.http_address();
    let metrics = tokio::task::spawn_blocking(move || http_get_at(address, "/metrics"));
    let (_, metrics) = metrics.await.unwrap().unwrap();
    let of = |result: &str| {
        let name = format!("varve_kafka_read_ahead_bytes_total{{result=\"{result}\"}} ");
        let line = metrics.lines().find_map(|line| line.strip_prefix(&name));
        line.map_or(0, |count| count.parse().unwrap())
    };
    (of("used"), of("unused"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_is_read_whole_and_once_with_what_was_read_ahead() {
    let bed = Bed::start(&[]).await;
    let mut client = bed.client().await;
    fill(&mut client).await;
    let mut offsets = [0; PARTITIONS as usize];
    while offsets != [BATCHES; PARTITIONS as usize] {
        let response = fetch(&mut client, &offsets).await;
        let mut moved = false;
        for part in &response.responses[0].partitions {
            assert_eq!((part.error_code, part.high_watermark), (0, BATCHES));
            let next = &mut offsets[part.partition_index as usize];
            for (offset, found) in records(part.records.clone()) {
                assert_eq!(offset, *next, "{}", part.partition_index);
                assert!(found == value(part.partition_index, offset), "{offset}");
                *next += 1;
                moved = true;
            }
        }
        assert!(moved, "{offsets:?}");
        // Two of them fit into an answer, and take turns: a turn is three batches.
        let (least, most) = (offsets.iter().min(), offsets.iter().max());
        let apart = most.unwrap() - least.unwrap();
        assert!(apart <= 6, "{offsets:?}");
    }
    let all = u64::try_from(SIZE).unwrap() * BATCHES as u64 * PARTITIONS as u64;
    let (used, unused) = read_ahead(&bed).await;
    assert!(used > all / 2, "{used} of {all}, {unused} in vain");
    bed.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_deleted_meanwhile_is_not_answered() {
    let bed = Bed::start(&[]).await;
    let mut client = bed.client().await;
    fill(&mut client).await;
    let first = fetch(&mut client, &[0, 0, 0]).await;
    let next = |response: &FetchResponse, at: usize| {
        let part = &response.responses[0].partitions[at];
        records(part.records.clone())
            .last()
            .map_or(0, |(offset, _)| offset + 1)
    };
    let offsets = [next(&first, 0), next(&first, 1), next(&first, 2)];
    assert!(offsets[0] > 0, "{offsets:?}");
    let request = DeleteRecordsRequest {
        topics: vec![DeleteRecordsTopic {
            name: Text::from_static("orders"),
            partitions: vec![DeleteRecordsPartition {
                partition_index: 0,
                offset: 40,
            }],
        }],
        timeout_ms: 10_000,
    };
    let deleted = ask!(client, 2, DeleteRecords, request);
    assert_eq!(deleted.topics[0].partitions[0].low_watermark, 40);
    let second = fetch(&mut client, &offsets).await;
    let parts = &second.responses[0].partitions;
    assert_eq!(parts[0].error_code, ErrorCode::OffsetOutOfRange.code());
    assert_eq!(records(parts[0].records.clone()), []);
    assert_eq!(parts[1].error_code, 0);
    bed.stop().await;
}
