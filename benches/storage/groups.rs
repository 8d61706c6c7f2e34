//! Group commit through a broker in this process, journal included: batches of 64 KiB spread evenly over
//! partitions, 16 MiB in flight, every answer after its flush. The floor writes the same bytes to one file and
//! syncs it each 4 MiB, which no number of partitions can beat.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, Result, anyhow};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use varve_broker::{Broker, BrokerConfig, Receipt};
use varve_broker_api::{Broker as _, Context, CreateTopic, Produce};
use varve_record::Batch;
use varve_types::{Acks, ClusterId, NodeId, PartitionId, TopicName};
use varve_vfs::{PacedVfs, RealVfs, SystemClock};

use super::log::{BATCH_BYTES, batch};
use super::{Bench, Better, Round, Row};

/// Bytes in flight.
const WINDOW_BYTES: usize = 16 << 20;
const GROUP_BYTES: usize = 4 << 20;
const JOURNAL_BYTES: u64 = 512 << 20;

/// One row for each number of partitions, and the most against the fewest.
pub fn rows(bench: &Bench<'_>) -> Result<Vec<Row>> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .worker_threads(1)
        .build()?;
    let mut rounds = vec![Vec::new(); bench.partitions.len()];
    for _ in 0..bench.rounds {
        for (partitions, rounds) in bench.partitions.iter().zip(&mut rounds) {
            rustix::fs::sync();
            let dir = bench.fresh("floor")?;
            let floor = raw(dir.path(), bench.bytes)?;
            drop(dir);
            rustix::fs::sync();
            let dir = bench.fresh("groups")?;
            let ours = runtime.block_on(ours(bench, dir.path(), *partitions))?;
            rounds.push(Round { floor, ours });
        }
    }
    let mut rows = Vec::new();
    for (partitions, rounds) in bench.partitions.iter().zip(&rounds) {
        let name = format!("group commit through a broker, {partitions} partitions");
        rows.push(Row::new(name, "MB/s", Better::More, rounds));
    }
    if let ([few, .., many], [of_few, .., of_many]) = (bench.partitions, rounds.as_slice()) {
        let pairs = of_few.iter().zip(of_many);
        let against = |(few, many): (&Round, &Round)| Round {
            floor: few.ours,
            ours: many.ours,
        };
        let pairs: Vec<Round> = pairs.map(against).collect();
        let name = format!("group commit, {many} partitions against {few}");
        rows.push(Row::new(name, "MB/s", Better::More, &pairs).target(0.7));
    }
    Ok(rows)
}

fn raw(dir: &Path, bytes: usize) -> Result<f64> {
    let (batch, file) = (batch()?.into_bytes(), File::create_new(dir.join("raw"))?);
    let started = Instant::now();
    let (mut at, mut synced) = (0, 0);
    while at < bytes {
        file.write_all_at(&batch, at as u64)?;
        at += batch.len();
        if at - synced >= GROUP_BYTES || at >= bytes {
            file.sync_data()?;
            synced = at;
        }
    }
    Ok(at as f64 / started.elapsed().as_secs_f64() / 1e6)
}

async fn ours(bench: &Bench<'_>, dir: &Path, partitions: usize) -> Result<f64> {
    let mut config = BrokerConfig::new(dir.to_owned(), ClusterId(1), NodeId(1));
    config.min_free_bytes = 0;
    config.scrub_bytes_per_second = 0;
    config.journal_max_bytes = if bench.quick { 4 << 20 } else { JOURNAL_BYTES };
    let journal_bytes = config.journal_max_bytes as usize;
    let clock = Arc::new(SystemClock::new());
    let vfs = PacedVfs::new(Arc::new(RealVfs), clock.clone());
    let broker = Broker::start(config, Arc::new(vfs), clock)
        .await
        .context("the broker does not start")?;
    let request = CreateTopic {
        topic: "t".parse()?,
        partitions: Some(i32::try_from(partitions)?),
        replication_factor: None,
        configs: Default::default(),
        labels: Default::default(),
        placement: Default::default(),
        validate_only: false,
        request_id: None,
    };
    let made = broker.create_topic(&Context::anonymous(), request).await;
    let topic = made.map_err(|e| anyhow!("{e:?}"))?.name;
    let batch = batch()?;
    // Every log has its first flush behind it, and the files of the journal are there.
    let warm = (journal_bytes / BATCH_BYTES).max(2 * partitions);
    drive(&broker, &topic, &batch, partitions, warm).await?;
    tokio::task::spawn_blocking(rustix::fs::sync).await?;
    let count = bench.bytes / BATCH_BYTES;
    let started = Instant::now();
    drive(&broker, &topic, &batch, partitions, count).await?;
    let rate = (count * BATCH_BYTES) as f64 / started.elapsed().as_secs_f64() / 1e6;
    broker.shutdown().await;
    Ok(rate)
}

/// Appends `count` batches, one partition after the other, and waits for all answers.
async fn drive(
    broker: &Broker,
    topic: &TopicName,
    batch: &Batch,
    partitions: usize,
    count: usize,
) -> Result<()> {
    let context = Context::anonymous();
    let mut waiting: FuturesUnordered<Receipt> = FuturesUnordered::new();
    for n in 0..count {
        if waiting.len() >= WINDOW_BYTES / BATCH_BYTES
            && let Some(answer) = waiting.next().await
        {
            answer.map_err(|e| anyhow!("{e:?}"))?;
        }
        let request = Produce {
            transaction_version: Default::default(),
            transactional_id: None,
            topic: topic.clone(),
            partition: PartitionId(i32::try_from(n % partitions)?),
            acks: Acks::All,
            batch: batch.clone(),
            expected_offset: None,
        };
        let receipt = broker.produce(&context, request).await;
        waiting.push(receipt.map_err(|e| anyhow!("{e:?}"))?);
    }
    while let Some(answer) = waiting.next().await {
        answer.map_err(|e| anyhow!("{e:?}"))?;
    }
    Ok(())
}
