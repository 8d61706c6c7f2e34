//! Flags of `varve cluster` that change a cluster.

use std::time::Duration;

use clap::{Args, Subcommand};
use varve_types::size::parse_duration;

use crate::args::OutputArgs;

/// Whether to wait for the end of what was started.
#[derive(Debug, Clone, Copy, Args)]
pub struct WaitArgs {
    /// Wait until it is done
    #[arg(short, long)]
    pub wait: bool,
    /// Stop waiting after this time, with exit code 5; the operation continues
    #[arg(long, requires = "wait", value_parser = parse_duration, value_name = "TIME")]
    pub within: Option<Duration>,
}

/// Where replicas go.
#[derive(Debug, Clone, Args)]
#[group(required = true, multiple = false)]
pub struct TargetArgs {
    /// Put the replicas on these nodes; the first becomes the preferred leader
    #[arg(long, value_delimiter = ',', value_name = "NODE,...")]
    pub to: Vec<i32>,
    /// Change the number of replicas; racks and load decide which nodes get them
    #[arg(
        short,
        long,
        alias = "replication-factor",
        value_parser = clap::value_parser!(i32).range(1..),
        value_name = "N"
    )]
    pub replicas: Option<i32>,
    /// Cancel the move in progress; the replicas stay where they were
    #[arg(long)]
    pub cancel: bool,
}

/// Commands that change a cluster.
#[derive(Debug, Subcommand)]
pub enum OperateCommand {
    /// List nodes with their state and load
    #[command(after_long_help = "Examples:\n  varve cluster nodes\n  varve cluster nodes -o json")]
    Nodes {
        /// Output format.
        #[command(flatten)]
        form: OutputArgs,
    },
    /// Move leadership away from a node until it is resumed or restarted
    #[command(
        after_long_help = "Examples:\n  varve cluster drain 2 --wait\n  varve cluster drain 2 --force"
    )]
    Drain {
        /// Node id
        node: i32,
        /// Drain the node even if another one is draining or offline
        #[arg(long)]
        force: bool,
        /// Whether to wait.
        #[command(flatten)]
        wait: WaitArgs,
        /// Output format.
        #[command(flatten)]
        form: OutputArgs,
    },
    /// Cancel a drain or a decommission
    #[command(
        after_long_help = "Examples:\n  varve cluster resume 2\n  varve cluster resume 2 -o json"
    )]
    Resume {
        /// Node id
        node: i32,
        /// Output format.
        #[command(flatten)]
        form: OutputArgs,
    },
    /// Move all replicas away from a node and remove it from the cluster
    #[command(
        after_long_help = "Examples:\n  varve cluster decommission 3 --wait\n  varve cluster decommission 3 --dead -y"
    )]
    Decommission {
        /// Node id
        node: i32,
        /// The node is lost: rebuild its replicas on other nodes; it must never start again
        #[arg(long)]
        dead: bool,
        /// Whether to wait.
        #[command(flatten)]
        wait: WaitArgs,
        /// Output format.
        #[command(flatten)]
        form: OutputArgs,
    },
    /// Move the leadership of a partition to another in-sync replica
    #[command(
        after_long_help = "Examples:\n  varve cluster transfer-leader orders:0\n\
                           \x20 varve cluster transfer-leader orders:0 \
                           --to 2"
    )]
    TransferLeader {
        /// Partition
        #[arg(value_name = "TOPIC:PARTITION")]
        partition: String,
        /// New leader, which must be in sync; default: the preferred leader, or any other in-sync replica
        #[arg(long, value_name = "NODE")]
        to: Option<i32>,
        /// Output format.
        #[command(flatten)]
        form: OutputArgs,
    },
    /// Give leadership back to the preferred leaders
    #[command(
        visible_alias = "elect",
        after_long_help = "Examples:\n  varve cluster elect-leaders\n  varve cluster elect-leaders orders"
    )]
    ElectLeaders {
        /// Topics; default: all
        #[arg(value_name = "TOPIC")]
        topics: Vec<String>,
        /// Output format.
        #[command(flatten)]
        form: OutputArgs,
    },
    /// Move replicas to other nodes, or change their number
    #[command(
        visible_alias = "move",
        after_long_help = "Examples:\n  varve cluster reassign orders --to 1,2,3 --wait\n\
                           \x20 varve cluster reassign orders:0 \
                           --replicas 3 --dry-run\n  varve cluster reassign orders --cancel"
    )]
    Reassign {
        /// Topics with all their partitions, or single partitions
        #[arg(required = true, value_name = "TOPIC[:PARTITION]")]
        partitions: Vec<String>,
        /// Where to.
        #[command(flatten)]
        target: TargetArgs,
        /// Validate the request and move nothing
        #[arg(short, long, conflicts_with = "cancel")]
        dry_run: bool,
        /// Whether to wait.
        #[command(flatten)]
        wait: WaitArgs,
        /// Output format.
        #[command(flatten)]
        form: OutputArgs,
    },
    /// Show or raise the feature level of the cluster
    ///
    /// Without a command it only shows the level of the cluster and the levels that each node supports.
    #[command(
        after_long_help = "Examples:\n  varve cluster upgrade\n  varve cluster upgrade finalize --dry-run"
    )]
    Upgrade {
        /// What to do.
        #[command(subcommand)]
        action: Option<UpgradeCommand>,
        /// Output format.
        #[command(flatten)]
        form: OutputArgs,
    },
    /// List partitions whose replicas are moving
    #[command(
        after_long_help = "Examples:\n  varve cluster reassignments\n  varve cluster reassignments --watch"
    )]
    Reassignments {
        /// Look again every two seconds until none is moving
        #[arg(short, long)]
        watch: bool,
        /// Output format.
        #[command(flatten)]
        form: OutputArgs,
    },
}

/// What to do with feature levels.
#[derive(Debug, Clone, Copy, Subcommand)]
pub enum UpgradeCommand {
    /// Raise the feature level once every node runs the new version
    ///
    /// It cannot be lowered again: nodes that run an older version can no longer join.
    #[command(
        after_long_help = "Examples:\n  varve cluster upgrade finalize --dry-run\n  varve cluster upgrade finalize -y"
    )]
    Finalize {
        /// Level to raise to; default: the highest that every node supports
        #[arg(long, value_parser = clap::value_parser!(i32).range(1..=65_535), value_name = "N")]
        level: Option<i32>,
        /// Validate the request and change nothing
        #[arg(short, long)]
        dry_run: bool,
        /// Output format.
        #[command(flatten)]
        form: OutputArgs,
    },
}
