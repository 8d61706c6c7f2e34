//! What a cluster costs while nobody uses it: CPU, wake-ups and memory of each of three nodes with many
//! replicated partitions.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use crate::cluster::Cluster;
use crate::report::{Asked, Output, Row, print};

/// How to measure.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Partitions, each with three replicas.
    #[arg(long, default_value_t = 1_000)]
    partitions: i32,
    /// Seconds without load before anything is measured.
    #[arg(long, default_value_t = 15)]
    settle: u64,
    /// Seconds of one measurement.
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// Measurements; figures are medians.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
}

/// Measures and prints.
pub async fn run(dir: &Path, args: &Args, output: Output) -> Result<()> {
    let cluster = Cluster::start(dir, 3, &[]).await?;
    cluster.topic("idle", args.partitions).await?;
    tokio::time::sleep(Duration::from_secs(args.settle)).await;
    let n = args.partitions;
    let each = |what: &str, unit, asked| {
        let row = |id: &i32| {
            Row::new(
                format!("{n} idle partitions, node {id}: {what}"),
                unit,
                asked,
            )
        };
        cluster.nodes().keys().map(row).collect::<Vec<Row>>()
    };
    let mut cpu = each("CPU", "% of a core", Asked::AtMost(3.0));
    let mut wakes = each("wake-ups", "1/s", Asked::Nothing);
    let mut resident = each("resident", "MiB", Asked::Nothing);
    for round in 0..args.rounds {
        eprintln!("round {} of {}", round + 1, args.rounds);
        let nodes = cluster.nodes().values();
        let before: Result<Vec<_>> = nodes.map(|s| Ok((s.cpu()?, s.wakes()?))).collect();
        let before = before?;
        tokio::time::sleep(Duration::from_secs(args.seconds)).await;
        let span = args.seconds as f64;
        for (at, server) in cluster.nodes().values().enumerate() {
            let (cpu_before, wakes_before) = before[at];
            cpu[at].push((server.cpu()? - cpu_before).as_secs_f64() / span * 100.0);
            wakes[at].push((server.wakes()? - wakes_before) as f64 / span);
            resident[at].push(server.memory("VmRSS")? as f64 / f64::from(1 << 20));
        }
    }
    cpu.extend(wakes);
    cpu.extend(resident);
    print(&cpu, output);
    Ok(())
}
