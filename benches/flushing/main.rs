//! Durable acknowledgements against the number of partitions: a broker in this process, batches spread evenly,
//! a bounded number in flight, flushed file by file, by many threads, and through the journal.
//! `cargo bench -p varve-benches --bench flushing`; `-- --help` lists the options.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, Result};
use clap::Parser;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use hdrhistogram::Histogram;
use varve_benches::stats::median;
use varve_broker::{Broker, BrokerConfig};
use varve_broker_api::{Broker as _, Context, CreateTopic, Produce};
use varve_record::{Batch, BatchBuilder, Compression};
use varve_types::{Acks, ClusterId, NodeId, PartitionId, TopicName};
use varve_vfs::{RealVfs, SystemClock};

/// Bytes in flight.
const WINDOW: usize = 16 << 20;

/// Flushing against the number of partitions.
#[derive(Debug, Parser)]
struct Args {
    /// Numbers of partitions.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 8, 100, 1000])]
    partitions: Vec<i32>,
    /// KiB of a batch.
    #[arg(long, value_delimiter = ',', default_values_t = [4, 64, 1000])]
    kib: Vec<usize>,
    /// Ways: files, parallel, journal.
    #[arg(long, value_delimiter = ',', default_values_t = ["files".to_owned(), "parallel".to_owned(), "journal".to_owned()])]
    ways: Vec<String>,
    /// MiB of a round; a quarter of it for batches below 64 KiB.
    #[arg(long, default_value_t = 1024)]
    mib: usize,
    /// Rounds of each; the ways take turns, and medians are printed.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// MiB of the journal.
    #[arg(long, default_value_t = 512)]
    journal_mib: u64,
    /// Where; else a temporary directory.
    #[arg(long)]
    dir: Option<PathBuf>,
    /// One JSON document instead of a table.
    #[arg(long)]
    json: bool,
    /// A small round, to see that it works: what `cargo test --benches` runs.
    #[arg(long)]
    test: bool,
    /// Given by cargo.
    #[arg(long, hide = true)]
    bench: bool,
}

/// What a round has measured.
#[derive(Clone, Copy)]
struct Seen {
    mb_per_s: f64,
    p50_ms: f64,
    p99_ms: f64,
}

fn main() -> Result<()> {
    varve_benches::tell_profile();
    let mut args = Args::parse();
    if args.test {
        (args.partitions, args.kib, args.mib, args.rounds) = (vec![8], vec![64], 16, 1);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .worker_threads(1)
        .build()?;
    let mut rows = Vec::new();
    for kib in &args.kib {
        for partitions in &args.partitions {
            let mut seen = vec![Vec::new(); args.ways.len()];
            for _ in 0..args.rounds {
                for (way, seen) in args.ways.iter().zip(&mut seen) {
                    seen.push(runtime.block_on(round(&args, way, *partitions, kib * 1024))?);
                }
            }
            for (way, seen) in args.ways.iter().zip(&seen) {
                let of = |f: fn(&Seen) -> f64| median(&seen.iter().map(f).collect::<Vec<_>>());
                let row = (of(|s| s.mb_per_s), of(|s| s.p50_ms), of(|s| s.p99_ms));
                if !args.json {
                    println!(
                        "{kib:>5} KiB {partitions:>5} partitions {way:<9} {:>7.0} MB/s  p50 {:>7.2} ms  p99 {:>7.2} ms",
                        row.0, row.1, row.2
                    );
                }
                rows.push(serde_json::json!({
                    "kib": kib, "partitions": partitions, "way": way,
                    "mb_per_s": row.0, "p50_ms": row.1, "p99_ms": row.2,
                }));
            }
        }
    }
    if args.json {
        println!("{}", serde_json::to_string_pretty(&rows)?);
    }
    Ok(())
}

async fn round(args: &Args, way: &str, partitions: i32, batch_bytes: usize) -> Result<Seen> {
    let parent = args.dir.clone().unwrap_or_else(std::env::temp_dir);
    let dir = tempfile::tempdir_in(parent)?;
    let broker = start(dir.path(), way, args.journal_mib << 20).await?;
    let topic = create(&broker, partitions).await?;
    let batch = batch(batch_bytes)?;
    // Every log has its first flush behind it, and the files of the journal are made once and then used again.
    let made = if way == "journal" && !args.test {
        (args.journal_mib as usize) << 20
    } else {
        0
    };
    let warm = (made / batch_bytes).max(2 * partitions as usize).max(64);
    drive(&broker, &topic, &batch, partitions, warm).await?;
    tokio::task::spawn_blocking(rustix::fs::sync).await?;
    let mib = if batch_bytes < 64 * 1024 {
        args.mib / 4
    } else {
        args.mib
    };
    let count = ((mib << 20) / batch_bytes).max(1);
    let started = Instant::now();
    let latency = drive(&broker, &topic, &batch, partitions, count).await?;
    let took = started.elapsed().as_secs_f64();
    broker.shutdown().await;
    Ok(Seen {
        mb_per_s: (count * batch_bytes) as f64 / took / 1e6,
        p50_ms: latency.value_at_quantile(0.5) as f64 / 1e3,
        p99_ms: latency.value_at_quantile(0.99) as f64 / 1e3,
    })
}

async fn start(dir: &Path, way: &str, journal_bytes: u64) -> Result<Broker> {
    let mut config = BrokerConfig::new(dir.to_owned(), ClusterId(1), NodeId(1));
    config.min_free_bytes = 0;
    config.scrub_bytes_per_second = 0;
    (config.flush_threads, config.journal_max_bytes) = match way {
        "files" => (1, 0),
        "parallel" => (8, 0),
        _ => (4, journal_bytes),
    };
    let broker = Broker::start(config, Arc::new(RealVfs), Arc::new(SystemClock::new()));
    broker.await.context("the broker does not start")
}

async fn create(broker: &Broker, partitions: i32) -> Result<TopicName> {
    let request = CreateTopic {
        topic: "t".parse()?,
        partitions: Some(partitions),
        replication_factor: None,
        configs: Default::default(),
        labels: Default::default(),
        placement: Default::default(),
        validate_only: false,
        request_id: None,
    };
    let made = broker.create_topic(&Context::anonymous(), request).await;
    Ok(made.map_err(|e| anyhow::anyhow!("{e:?}"))?.name)
}

fn batch(bytes: usize) -> Result<Batch> {
    let mut builder = BatchBuilder::new(Compression::None, None);
    let value: Vec<u8> = (0..bytes - 90).map(|i| (i * 31 % 251) as u8).collect();
    builder.append(1_700_000_000_000, None, Some(&value), &[])?;
    Ok(builder.build_batch()?)
}

/// Appends `count` batches, one partition after the other, and returns latencies in microseconds.
async fn drive(
    broker: &Broker,
    topic: &TopicName,
    batch: &Batch,
    partitions: i32,
    count: usize,
) -> Result<Histogram<u64>> {
    let in_flight = (WINDOW / batch.size()).max(1);
    let context = Context::anonymous();
    let mut latency = Histogram::new(3)?;
    let mut waiting = FuturesUnordered::new();
    let mut sent = 0;
    while sent < count || !waiting.is_empty() {
        while sent < count && waiting.len() < in_flight {
            let request = Produce {
                transaction_version: Default::default(),
                transactional_id: None,
                topic: topic.clone(),
                partition: PartitionId((sent % partitions as usize) as i32),
                acks: Acks::All,
                batch: batch.clone(),
                expected_offset: None,
            };
            let at = Instant::now();
            let receipt = broker.produce(&context, request).await;
            let receipt = receipt.map_err(|e| anyhow::anyhow!("{e:?}"))?;
            waiting.push(async move { (receipt.await, at) });
            sent += 1;
        }
        if let Some((answer, at)) = waiting.next().await {
            answer.map_err(|e| anyhow::anyhow!("{e:?}"))?;
            latency.record(at.elapsed().as_micros() as u64)?;
        }
    }
    Ok(latency)
}
