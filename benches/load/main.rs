//! Load against a running server, and our share of the floor.
//!
//! `load produce|fetch|latency` drive a server that is already there; `load share` starts one of its own,
//! measures the floor and us in turn in the same run, and prints the table of `benches/README.md`;
//! `load memory` watches what a server of its own uses; `load startup` starts one again after a stop and a kill.
//! Of three nodes that are a cluster, `load failover` measures how long writes stand still when one ends,
//! `load replicated` what replication costs, and `load idle` what they use while nobody needs them. `load commits` and
//! `load rebalance` are about consumer groups, `load takeover` about their coordinators, `load transactions` about what
//! transactions cost, `load kafka` about clients of the Kafka protocol beside our own.

mod cluster;
mod drive;
mod failover;
mod groups;
mod idle;
mod kafka;
mod many;
mod memory;
mod replicated;
mod report;
mod server;
mod share;
mod startup;
mod takeover;
mod transactions;

use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};
use varve_types::size::parse_bytes;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Debug, Parser)]
#[command(about = "Load and shares of the floor")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Append records as fast as they are acknowledged, or at a fixed rate (open loop).
    Produce(Load),
    /// Read a topic from the beginning.
    Fetch(Load),
    /// One record in flight: what an acknowledgement costs.
    Latency(Load),
    /// Our share of the floor, measured in the same run.
    Share {
        /// Rounds; figures are medians.
        #[arg(long, default_value_t = 5)]
        rounds: usize,
        /// Bytes per round.
        #[arg(long, default_value = "1GiB", value_parser = parse_bytes)]
        bytes: u64,
        /// Directory for the data of both; default: a temporary one.
        #[arg(long)]
        dir: Option<PathBuf>,
        /// JSON instead of a table.
        #[arg(long)]
        json: bool,
    },
    /// Memory and idle CPU of a server.
    Memory {
        /// Directory for its data; default: a temporary one.
        #[arg(long)]
        dir: Option<PathBuf>,
        /// Seconds to watch the idle server.
        #[arg(long, default_value_t = 20)]
        seconds: u64,
    },
    /// How long a server takes to start: after a clean stop with many partitions, and after a kill under
    /// load with many bytes.
    Startup {
        /// Directory for its data; default: a temporary one.
        #[arg(long)]
        dir: Option<PathBuf>,
        /// Starts of each kind; figures are medians.
        #[arg(long, default_value_t = 3)]
        rounds: usize,
        /// Partitions of the clean start, in topics of 1,000; 0 leaves it out.
        #[arg(long, default_value_t = 10_000)]
        partitions: usize,
        /// Bytes in 200 partitions before the kill; 0 leaves it out.
        #[arg(long, default_value = "10GiB", value_parser = parse_bytes)]
        bytes: u64,
        /// Bytes of one batch of those.
        #[arg(long, default_value = "256KiB", value_parser = parse_bytes)]
        batch_bytes: u64,
    },
    /// Three nodes, one of which ends: how long writes stand still, and what producers are told.
    Failover {
        #[command(flatten)]
        args: failover::Args,
        #[command(flatten)]
        how: How,
    },
    /// Three nodes with three replicas, as a share of a third of one node, in turn.
    Replicated {
        #[command(flatten)]
        args: replicated::Args,
        #[command(flatten)]
        how: How,
    },
    /// Three nodes that nobody uses: CPU and memory of each.
    Idle {
        #[command(flatten)]
        args: idle::Args,
        #[command(flatten)]
        how: How,
    },
    /// Committed offsets of many groups, and reading them all again after a kill.
    Commits {
        #[command(flatten)]
        args: groups::CommitArgs,
        #[command(flatten)]
        how: How,
    },
    /// A large group: one member more, and one that dies.
    Rebalance {
        #[command(flatten)]
        args: groups::RebalanceArgs,
        #[command(flatten)]
        how: How,
    },
    /// Three nodes, one of which ends: until the others have read the committed offsets that it coordinated.
    Takeover {
        #[command(flatten)]
        args: takeover::Args,
        #[command(flatten)]
        how: How,
    },
    /// Transactions of several lengths, as a share of the idempotent producer, in turn.
    Transactions {
        #[command(flatten)]
        args: transactions::Args,
        #[command(flatten)]
        how: How,
    },
    /// Producer sessions, groups and idle connections of one node: memory, scrapes, and the start after a kill.
    Many {
        #[command(flatten)]
        args: many::Args,
        #[command(flatten)]
        how: How,
    },
    /// librdkafka's performance tool beside our own client, on the same server, in turn.
    Kafka {
        #[command(flatten)]
        args: kafka::Args,
        #[command(flatten)]
        how: How,
    },
}

/// Where a run has its files, and what it prints.
#[derive(Debug, Clone, Args)]
struct How {
    /// Directory for the data of all; default: a temporary one.
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Shape of the report.
    #[arg(short, long, value_enum, default_value = "table")]
    output: report::Output,
}

impl How {
    fn directory(&self) -> Result<tempfile::TempDir> {
        Ok(match &self.dir {
            Some(dir) => tempfile::tempdir_in(dir)?,
            None => tempfile::tempdir()?,
        })
    }
}

/// What to send or read.
#[derive(Debug, Clone, Args)]
struct Load {
    /// Server.
    #[arg(short, long, default_value = "localhost:8278", env = "VARVE_BROKERS")]
    brokers: String,
    /// Topic; made if it is not there.
    #[arg(short, long, default_value = "load")]
    topic: String,
    /// Partitions of a topic that is made.
    #[arg(short, long, default_value_t = 8)]
    partitions: i32,
    /// Bytes of one record's value.
    #[arg(long, default_value_t = 1024)]
    record_bytes: usize,
    /// Bytes of one batch.
    #[arg(long, default_value = "256KiB", value_parser = parse_bytes)]
    batch_bytes: u64,
    /// Bytes to send or read.
    #[arg(long, default_value = "1GiB", value_parser = parse_bytes)]
    bytes: u64,
    /// Producers or readers, each with a connection of its own.
    #[arg(long, default_value_t = 1)]
    clients: usize,
    /// Records per second in all; latency is then counted from the intended time of each record.
    #[arg(long)]
    rate: Option<u64>,
    /// Records to send one at a time (`latency`).
    #[arg(long, default_value_t = 5_000)]
    count: usize,
}

#[tokio::main]
async fn main() -> Result<()> {
    varve_benches::tell_profile();
    match Cli::parse().command {
        Command::Produce(load) => {
            let outcome = drive::produce(&load).await?;
            println!("{outcome}");
        }
        Command::Fetch(load) => {
            let outcome = drive::fetch(&load).await?;
            println!("{outcome}");
        }
        Command::Latency(load) => {
            let histogram = drive::latency(&load).await?;
            println!(
                "one in flight: {}",
                varve_benches::stats::summary(&histogram)
            );
        }
        Command::Share {
            rounds,
            bytes,
            dir,
            json,
        } => {
            share::run(rounds, bytes, dir.as_deref(), json).await?;
        }
        Command::Memory { dir, seconds } => memory::run(dir.as_deref(), seconds).await?,
        Command::Startup {
            dir,
            rounds,
            partitions,
            bytes,
            batch_bytes,
        } => {
            let dir = dir.as_deref();
            startup::run(dir, rounds, partitions, bytes, batch_bytes).await?;
        }
        Command::Failover { args, how } => {
            failover::run(how.directory()?.path(), &args, how.output).await?;
        }
        Command::Replicated { args, how } => {
            replicated::run(how.directory()?.path(), &args, how.output).await?;
        }
        Command::Commits { args, how } => {
            groups::commits(how.directory()?.path(), &args, how.output).await?;
        }
        Command::Rebalance { args, how } => {
            groups::rebalance(how.directory()?.path(), &args, how.output).await?;
        }
        Command::Takeover { args, how } => {
            takeover::run(how.directory()?.path(), &args, how.output).await?;
        }
        Command::Transactions { args, how } => {
            transactions::run(how.directory()?.path(), &args, how.output).await?;
        }
        Command::Kafka { args, how } => {
            kafka::run(how.directory()?.path(), &args, how.output).await?;
        }
        Command::Many { args, how } => {
            many::run(how.directory()?.path(), &args, how.output).await?;
        }
        Command::Idle { args, how } => {
            idle::run(how.directory()?.path(), &args, how.output).await?;
        }
    }
    Ok(())
}
