//! Producers and readers through the client library, as any user has them.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use hdrhistogram::Histogram;
use varve_benches::stats;
use varve_client::proto::CreateTopicRequest;
use varve_client::{
    Admin, Assignment, Client, ClientConfig, Consumer, ConsumerConfig, End, Producer,
    ProducerConfig, RecordRef, Start,
};
use varve_types::TopicName;

use crate::Load;

/// Figures of one run.
#[derive(Debug)]
pub struct Outcome {
    pub records: u64,
    pub bytes: u64,
    pub took: Duration,
    pub latency: Histogram<u64>,
}

impl Outcome {
    pub fn bytes_per_second(&self) -> f64 {
        self.bytes as f64 / self.took.as_secs_f64()
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let seconds = self.took.as_secs_f64();
        write!(
            f,
            "{} records, {:.1} MB in {seconds:.2} s: {:.0} MB/s, {:.0} records/s",
            self.records,
            self.bytes as f64 / 1e6,
            self.bytes_per_second() / 1e6,
            self.records as f64 / seconds
        )?;
        if self.latency.is_empty() {
            return Ok(());
        }
        write!(f, "; {}", stats::summary(&self.latency))
    }
}

fn client(load: &Load) -> Result<Client> {
    let brokers = load.brokers.split(',').map(str::to_owned).collect();
    Ok(Client::new(ClientConfig {
        brokers,
        ..ClientConfig::default()
    })?)
}

/// Makes the topic unless it is there.
pub async fn ensure_topic(load: &Load) -> Result<TopicName> {
    let topic: TopicName = load.topic.parse()?;
    let admin = Admin::new(client(load)?);
    let get = varve_client::proto::GetTopicRequest {
        topic: topic.to_string(),
    };
    if admin.get_topic(get.clone()).await.is_err() {
        let request = CreateTopicRequest {
            topic: topic.to_string(),
            partition_count: load.partitions,
            ..CreateTopicRequest::default()
        };
        admin
            .create_topic(request)
            .await
            .context("create the topic")?;
    }
    Ok(topic)
}

/// Intended send times of the records of one partition, oldest first.
type Intended = Arc<Vec<Mutex<VecDeque<Instant>>>>;

/// Produces `load.bytes` in all.
pub async fn produce(load: &Load) -> Result<Outcome> {
    let topic = ensure_topic(load).await?;
    let latency = Arc::new(Mutex::new(stats::latencies()));
    let started = Instant::now();
    let mut clients = Vec::new();
    for _ in 0..load.clients {
        let (load, topic, latency) = (load.clone(), topic.clone(), Arc::clone(&latency));
        clients.push(tokio::spawn(async move {
            one_producer(&load, &topic, &latency).await
        }));
    }
    let mut records = 0;
    for client in clients {
        records += client.await??;
    }
    let took = started.elapsed();
    let latency = latency
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .clone();
    Ok(Outcome {
        records,
        bytes: records * load.record_bytes as u64,
        took,
        latency,
    })
}

async fn one_producer(
    load: &Load,
    topic: &TopicName,
    latency: &Arc<Mutex<Histogram<u64>>>,
) -> Result<u64> {
    let partitions = usize::try_from(load.partitions)?;
    let intended: Intended = Arc::new((0..partitions).map(|_| Mutex::default()).collect());
    let on_batch = load.rate.map(|_| {
        let (intended, latency) = (Arc::clone(&intended), Arc::clone(latency));
        let report: varve_client::producer::OnBatch = Arc::new(move |report| {
            let partition = report.partition.0.unsigned_abs() as usize;
            let mut times = intended[partition]
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            let mut latency = latency.lock().unwrap_or_else(PoisonError::into_inner);
            let now = Instant::now();
            for _ in 0..report.records {
                if let Some(time) = times.pop_front() {
                    stats::record(&mut latency, now.saturating_duration_since(time));
                }
            }
        });
        report
    });
    let config = ProducerConfig {
        batch_bytes: usize::try_from(load.batch_bytes)?,
        on_batch,
        ..ProducerConfig::default()
    };
    let producer = Producer::new(client(load)?, config)?;
    producer.prepare(topic).await?;
    let value: Vec<u8> = (0..load.record_bytes)
        .map(|n| (n * 31 % 251) as u8)
        .collect();
    let records = load.bytes / load.record_bytes as u64 / load.clients as u64;
    let every = load
        .rate
        .map(|rate| Duration::from_secs_f64(load.clients as f64 / rate as f64));
    let started = Instant::now();
    // A run of records goes to one partition before the next, as sticky batching does.
    let run = (load.batch_bytes / (load.record_bytes as u64 + 16)).max(1);
    for n in 0..records {
        let partition = match every {
            Some(_) => n % partitions as u64,
            None => n / run % partitions as u64,
        };
        if let Some(every) = every {
            let due = started + every.mul_f64(n as f64);
            if due > Instant::now() {
                tokio::time::sleep_until(due.into()).await;
            }
            let mut times = intended[partition as usize]
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            times.push_back(due);
        }
        let record = RecordRef {
            partition: Some(i32::try_from(partition)?),
            value: Some(&value),
            ..RecordRef::default()
        };
        producer.enqueue(topic, record).await?;
    }
    producer.close().await?;
    Ok(records)
}

/// Reads every partition from the beginning to its end as it is now, `load.bytes` at most.
pub async fn fetch(load: &Load) -> Result<Outcome> {
    let topic: TopicName = load.topic.parse()?;
    let assignments = (0..load.partitions)
        .map(|partition| Assignment {
            topic: topic.clone(),
            partition,
            start: Start::Earliest,
            end: End::CurrentEnd,
        })
        .collect();
    let config = ConsumerConfig::default();
    let started = Instant::now();
    let mut consumer = Consumer::open(client(load)?, config, assignments).await?;
    let (mut records, mut bytes) = (0, 0);
    while let Some(batch) = consumer.next_batch().await? {
        records += u64::from(batch.batch.header.record_count.unsigned_abs());
        bytes += batch.batch.bytes.len() as u64;
        if bytes >= load.bytes {
            break;
        }
    }
    ensure!(records > 0, "topic {topic} has no records");
    Ok(Outcome {
        records,
        bytes,
        took: started.elapsed(),
        latency: stats::latencies(),
    })
}

/// Sends records one at a time, each after the answer to the one before.
pub async fn latency(load: &Load) -> Result<Histogram<u64>> {
    let topic = ensure_topic(load).await?;
    let config = ProducerConfig {
        linger: Duration::ZERO,
        ..ProducerConfig::default()
    };
    let producer = Producer::new(client(load)?, config)?;
    let value = vec![0x5au8; load.record_bytes];
    let mut histogram = stats::latencies();
    for n in 0..load.count + 100 {
        let started = Instant::now();
        let record = RecordRef {
            partition: Some(0),
            value: Some(&value),
            ..RecordRef::default()
        };
        producer.send(&topic, record).await?.await?;
        // The first ones open connections and files.
        if n >= 100 {
            stats::record(&mut histogram, started.elapsed());
        }
    }
    producer.close().await?;
    Ok(histogram)
}
