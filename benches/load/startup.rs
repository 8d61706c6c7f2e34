//! How long a server takes to be ready again: with ten thousand partitions after a clean stop, and with
//! 10 GiB in two hundred partitions after a kill under load. Also what making the partitions costs.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use varve_client::{Client, ClientConfig, Producer, ProducerConfig, RecordRef};

use crate::server::Server;
use crate::{Load, drive};

/// Partitions of one topic of the clean start.
const PARTITIONS_PER_TOPIC: usize = 1_000;
/// Partitions that hold the bytes of the start after a kill.
const LOADED_PARTITIONS: i32 = 200;

/// Measures and prints.
pub async fn run(
    dir: Option<&Path>,
    rounds: usize,
    partitions: usize,
    bytes: u64,
    batch_bytes: u64,
) -> Result<()> {
    let dir = match dir {
        Some(dir) => tempfile::tempdir_in(dir)?,
        None => tempfile::tempdir()?,
    };
    if partitions > 0 {
        clean_start(dir.path(), rounds, partitions).await?;
    }
    if bytes > 0 {
        start_after_kill(dir.path(), rounds, bytes, batch_bytes).await?;
    }
    Ok(())
}

fn load(server: &Server, topic: &str, partitions: i32) -> Load {
    Load {
        brokers: server.address.clone(),
        topic: topic.to_owned(),
        partitions,
        record_bytes: 1024,
        batch_bytes: 256 * 1024,
        bytes: 0,
        clients: 4,
        rate: None,
        count: 0,
    }
}

async fn clean_start(dir: &Path, rounds: usize, partitions: usize) -> Result<()> {
    let data = tempfile::tempdir_in(dir)?;
    let (mut server, empty) = Server::start_ready(data.path())?;
    println!("start with nothing: {}", seconds(empty));
    let started = Instant::now();
    let topics = partitions.div_ceil(PARTITIONS_PER_TOPIC);
    for topic in 0..topics {
        let some = PARTITIONS_PER_TOPIC.min(partitions - topic * PARTITIONS_PER_TOPIC);
        let load = load(&server, &format!("t{topic}"), i32::try_from(some)?);
        drive::ensure_topic(&load).await?;
    }
    println!(
        "{partitions} partitions made: {}",
        seconds(started.elapsed())
    );
    let started = Instant::now();
    for topic in 0..topics {
        one_record_each(
            &load(&server, &format!("t{topic}"), 0),
            PARTITIONS_PER_TOPIC,
        )
        .await?;
    }
    println!("a record to each: {}", seconds(started.elapsed()));
    let (mut stops, mut starts) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        stops.push(server.stop()?);
        let took;
        (server, took) = Server::start_ready(data.path())?;
        starts.push(took);
        println!(
            "  ready after {}, resident {} MiB, {} MiB read, cpu {}",
            seconds(took),
            server.memory("VmHWM")? >> 20,
            server.io("rchar")? >> 20,
            seconds(server.cpu()?)
        );
    }
    let first = stops.first().copied().unwrap_or_default();
    println!("clean stop, a record written to each: {}", seconds(first));
    println!("clean stop with {partitions} partitions: {}", median(stops));
    println!(
        "clean start with {partitions} partitions: {}",
        median(starts)
    );
    drop(server);
    // What a kill costs when nothing was being written.
    let (server, took) = Server::start_ready(data.path())?;
    println!(
        "start after a kill, nothing written since: {}",
        seconds(took)
    );
    drop(server);
    Ok(())
}

/// One record to each partition of a topic.
async fn one_record_each(load: &Load, partitions: usize) -> Result<()> {
    let brokers = vec![load.brokers.clone()];
    let config = ClientConfig {
        brokers,
        ..ClientConfig::default()
    };
    let producer = Producer::new(Client::new(config)?, ProducerConfig::default())?;
    let topic = load.topic.parse()?;
    producer.prepare(&topic).await?;
    let value = vec![0x5a; load.record_bytes];
    for partition in 0..partitions {
        let record = RecordRef {
            partition: Some(i32::try_from(partition)?),
            value: Some(&value),
            ..RecordRef::default()
        };
        producer.enqueue(&topic, record).await?;
    }
    producer.close().await?;
    Ok(())
}

async fn start_after_kill(dir: &Path, rounds: usize, bytes: u64, batch: u64) -> Result<()> {
    let data = tempfile::tempdir_in(dir)?;
    let (mut server, _) = Server::start_ready(data.path())?;
    let fill = Load {
        bytes,
        batch_bytes: batch,
        ..load(&server, "loaded", LOADED_PARTITIONS)
    };
    println!("filled: {}", drive::produce(&fill).await?);
    let mut starts = Vec::new();
    for _ in 0..rounds {
        let more = Load {
            bytes: u64::MAX >> 1,
            batch_bytes: batch,
            ..load(&server, "loaded", LOADED_PARTITIONS)
        };
        let before = server.io("wchar")?;
        let writing = tokio::spawn(async move { drive::produce(&more).await });
        while server.io("wchar")? < before + (256 << 20) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        // Ends it with SIGKILL, in the middle of all that.
        drop(server);
        writing.abort();
        let took;
        (server, took) = Server::start_ready(data.path())?;
        let peak = server.memory("VmHWM")?;
        println!(
            "  ready after {}, resident {} MiB, {} MiB read ({} MiB from the disk), cpu {}",
            seconds(took),
            peak >> 20,
            server.io("rchar")? >> 20,
            server.io("read_bytes")? >> 20,
            seconds(server.cpu()?)
        );
        ensure!(peak < 512 << 20, "a start takes more than 512 MiB");
        starts.push(took);
    }
    println!(
        "start after a kill with {} GiB in {LOADED_PARTITIONS} partitions: {}",
        bytes >> 30,
        median(starts)
    );
    Ok(())
}

fn seconds(span: Duration) -> String {
    format!("{:.2} s", span.as_secs_f64())
}

fn median(mut all: Vec<Duration>) -> String {
    all.sort_unstable();
    all.get(all.len() / 2)
        .map_or_else(|| "not measured".to_owned(), |m| seconds(*m))
}
