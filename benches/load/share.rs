//! Our figures as shares of the floor, both measured in turn in the same run.

use std::path::Path;

use anyhow::Result;
use varve_benches::floor::{self, FetchBy, ProduceFloor};
use varve_benches::stats::median;

use crate::server::Server;
use crate::{Load, drive};

/// One line of the table.
struct Row {
    what: String,
    unit: &'static str,
    floor: Vec<f64>,
    ours: Vec<f64>,
    cpu: Vec<f64>,
}

impl Row {
    fn new(what: String, unit: &'static str) -> Self {
        Self {
            what,
            unit,
            floor: Vec::new(),
            ours: Vec::new(),
            cpu: Vec::new(),
        }
    }

    /// Median of the ratios round by round: noise that hits a round hits both.
    fn share(&self) -> f64 {
        let shares: Vec<f64> = self
            .ours
            .iter()
            .zip(&self.floor)
            .map(|(o, f)| o / f)
            .collect();
        median(&shares)
    }
}

fn load(address: &str, topic: &str, batch_bytes: u64, bytes: u64) -> Load {
    Load {
        brokers: address.to_owned(),
        topic: topic.to_owned(),
        partitions: 8,
        record_bytes: 1024,
        batch_bytes,
        bytes,
        clients: 1,
        rate: None,
        count: 2_000,
    }
}

/// Measures and prints.
pub async fn run(rounds: usize, bytes: u64, dir: Option<&Path>, json: bool) -> Result<()> {
    let dir = match dir {
        Some(dir) => tempfile::tempdir_in(dir)?,
        None => tempfile::tempdir()?,
    };
    let mut rows: Vec<Row> = Vec::new();
    for kib in [64, 256, 1000] {
        rows.push(Row::new(
            format!("produce, acks=all, fsync, 8 partitions, {kib} KiB batches"),
            "MB/s",
        ));
    }
    let mut fetch = Row::new("fetch, hot, 8 partitions".to_owned(), "MB/s");
    let mut ack = Row::new("flushed ack, one in flight, p50".to_owned(), "ms");
    for round in 0..rounds {
        eprintln!("round {} of {rounds}", round + 1);
        for (row, kib) in rows.iter_mut().zip([64u64, 256, 1000]) {
            produce_round(row, dir.path(), kib * 1024, bytes).await?;
        }
        fetch_round(&mut fetch, dir.path(), bytes).await?;
        latency_round(&mut ack, dir.path()).await?;
    }
    rows.push(fetch);
    rows.push(ack);
    print(&rows, json);
    Ok(())
}

async fn produce_round(row: &mut Row, dir: &Path, batch_bytes: u64, bytes: u64) -> Result<()> {
    let floor = ProduceFloor {
        partitions: 8,
        batch_bytes: usize::try_from(batch_bytes)?,
        total_bytes: usize::try_from(bytes - bytes % batch_bytes)?,
        in_flight_bytes: 16 << 20,
        fsync: true,
    };
    rustix::fs::sync();
    row.floor
        .push(blocking(dir, move |dir| floor.run(dir)).await? / 1e6);
    let data = tempfile::tempdir_in(dir)?;
    rustix::fs::sync();
    let server = Server::start(data.path())?;
    let before = server.cpu()?;
    let outcome = drive::produce(&load(&server.address, "load", batch_bytes, bytes)).await?;
    row.ours.push(outcome.bytes_per_second() / 1e6);
    row.cpu
        .push((server.cpu()? - before).as_secs_f64() / (outcome.bytes as f64 / 1e9));
    Ok(())
}

async fn fetch_round(row: &mut Row, dir: &Path, bytes: u64) -> Result<()> {
    let total = usize::try_from(bytes)?;
    let file = 256 << 20;
    let raw = blocking(dir, move |dir| {
        floor::fetch(dir, FetchBy::Sendfile, file, total, 1 << 20)
    });
    row.floor.push(raw.await? / 1e6);
    let data = tempfile::tempdir_in(dir)?;
    let server = Server::start(data.path())?;
    let load = load(&server.address, "load", 256 * 1024, bytes);
    drive::produce(&load).await?;
    let load = Load {
        bytes: u64::MAX,
        ..load
    };
    // The first pass warms the cache; the second is the figure.
    drive::fetch(&load).await?;
    let before = server.cpu()?;
    let outcome = drive::fetch(&load).await?;
    row.ours.push(outcome.bytes_per_second() / 1e6);
    row.cpu
        .push((server.cpu()? - before).as_secs_f64() / (outcome.bytes as f64 / 1e9));
    Ok(())
}

async fn latency_round(row: &mut Row, dir: &Path) -> Result<()> {
    let floor = blocking(dir, |dir| floor::sync_latency(dir, 1024, 2_000)).await?;
    row.floor.push(floor.value_at_quantile(0.5) as f64 / 1e6);
    let data = tempfile::tempdir_in(dir)?;
    let server = Server::start(data.path())?;
    let ours = drive::latency(&load(&server.address, "load", 256 * 1024, 0)).await?;
    row.ours.push(ours.value_at_quantile(0.5) as f64 / 1e6);
    Ok(())
}

async fn blocking<T: Send + 'static>(
    dir: &Path,
    work: impl FnOnce(&Path) -> Result<T> + Send + 'static,
) -> Result<T> {
    let dir = dir.to_owned();
    tokio::task::spawn_blocking(move || work(&dir)).await?
}

fn print(rows: &[Row], json: bool) {
    if json {
        for row in rows {
            let line = serde_json::json!({
                "what": row.what, "unit": row.unit, "floor": median(&row.floor),
                "ours": median(&row.ours), "share": row.share(),
                "server_cpu_s_per_gb": median(&row.cpu),
            });
            println!("{line}");
        }
        return;
    }
    println!("| what | floor | varve | share | server CPU s/GB |");
    println!("| --- | ---: | ---: | ---: | ---: |");
    for row in rows {
        let (floor, ours) = (median(&row.floor), median(&row.ours));
        if row.unit == "ms" {
            let more = ours - floor;
            println!(
                "| {} | {floor:.3} ms | {ours:.3} ms | +{more:.3} ms | |",
                row.what
            );
        } else {
            let (share, cpu) = (row.share(), median(&row.cpu));
            println!(
                "| {} | {floor:.0} MB/s | {ours:.0} MB/s | {share:.2} | {cpu:.2} |",
                row.what
            );
        }
    }
}
