//! What replication costs: three nodes with three replicas beside one node alone, in turn, on the same disk
//! and the same cores. Three copies are three times the work of one, so the measure is a third of what one
//! node does.

use std::path::Path;

use anyhow::Result;
use varve_types::size::parse_bytes;

use crate::cluster::Cluster;
use crate::report::{Asked, Output, Row, print};
use crate::server::Server;
use crate::{Load, drive};

/// How to measure.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Rounds; figures are medians, shares medians of the ratios of the rounds.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Bytes a round and side.
    #[arg(long, default_value = "512MiB", value_parser = parse_bytes)]
    bytes: u64,
    /// Partitions.
    #[arg(long, default_value_t = 9)]
    partitions: i32,
    /// Sizes of batches in KiB.
    #[arg(long, value_delimiter = ',', default_value = "64,256,1000")]
    batch_kib: Vec<u64>,
    /// Producers.
    #[arg(long, default_value_t = 1)]
    clients: usize,
}

/// Measures and prints.
pub async fn run(dir: &Path, args: &Args, output: Output) -> Result<()> {
    let mut rows = Vec::new();
    for kib in &args.batch_kib {
        rows.extend(one_size(dir, args, *kib).await?);
    }
    print(&rows, output);
    Ok(())
}

async fn one_size(dir: &Path, args: &Args, kib: u64) -> Result<[Row; 5]> {
    let what = |text: &str| format!("acks=all, fsync, {kib} KiB batches: {text}");
    let mut alone = Row::new(what("one node"), "MB/s", Asked::Nothing);
    let mut three = Row::new(what("three nodes, three replicas"), "MB/s", Asked::Nothing);
    let mut share = Row::new(
        what("share of a third of one node"),
        "",
        Asked::AtLeast(0.7),
    );
    let mut cpu_alone = Row::new(what("one node, CPU"), "s/GB", Asked::Nothing);
    let mut cpu_three = Row::new(what("three nodes, CPU of all"), "s/GB", Asked::Nothing);
    let load = |brokers: String| Load {
        brokers,
        topic: "load".to_owned(),
        partitions: args.partitions,
        record_bytes: 1024,
        batch_bytes: kib * 1024,
        bytes: args.bytes,
        clients: args.clients,
        rate: None,
        count: 0,
    };
    for round in 0..args.rounds {
        eprintln!("{kib} KiB, round {} of {}", round + 1, args.rounds);
        let data = tempfile::tempdir_in(dir)?;
        rustix::fs::sync();
        let (server, _) = Server::start_ready(data.path())?;
        let before = server.cpu()?;
        let one = drive::produce(&load(server.address.clone())).await?;
        cpu_alone.push((server.cpu()? - before).as_secs_f64() / (one.bytes as f64 / 1e9));
        drop(server);
        drop(data);

        let data = tempfile::tempdir_in(dir)?;
        rustix::fs::sync();
        let cluster = Cluster::start(data.path(), 3, &[]).await?;
        cluster.topic("load", args.partitions).await?;
        let used = || -> Result<f64> {
            let nodes = cluster.nodes().values();
            nodes.map(|s| Ok(s.cpu()?.as_secs_f64())).sum()
        };
        let before = used()?;
        let all = drive::produce(&load(cluster.brokers())).await?;
        cpu_three.push((used()? - before) / (all.bytes as f64 / 1e9));
        drop(cluster);

        alone.push(one.bytes_per_second() / 1e6);
        three.push(all.bytes_per_second() / 1e6);
        share.push(3.0 * all.bytes_per_second() / one.bytes_per_second());
        eprintln!("  one node: {one}\n  three:    {all}");
    }
    Ok([alone, three, share, cpu_alone, cpu_three])
}
