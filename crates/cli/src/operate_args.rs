//! Flags of `varve cluster` that change a cluster.

use std::time::Duration;

use clap::{Args, Subcommand};
use varve_types::size::parse_duration;

use crate::args::OutputArgs;

/// Whether to wait until what was declared is done.
#[derive(Debug, Clone, Copy, Args)]
pub struct WaitArgs {
    /// Wait until it is done
    #[arg(short, long)]
    pub wait: bool,
    /// Give up waiting after this long, with code 5; what was declared goes on
    #[arg(long, requires = "wait", value_parser = parse_duration, value_name = "TIME")]
    pub within: Option<Duration>,
}

/// Where replicas are to be.
#[derive(Debug, Clone, Args)]
#[group(required = true, multiple = false)]
pub struct TargetArgs {
    /// On these nodes; the first is the preferred leader
    #[arg(long, value_delimiter = ',', value_name = "NODE,...")]
    pub to: Vec<i32>,
    /// On so many nodes, chosen by rack and load; those that have a partition keep it if possible
    #[arg(
        short,
        long,
        alias = "replication-factor",
        value_parser = clap::value_parser!(i32).range(1..),
        value_name = "N"
    )]
    pub replicas: Option<i32>,
    /// Where they were before the move that is under way
    #[arg(long)]
    pub cancel: bool,
}

/// Commands that change a cluster.
#[derive(Debug, Subcommand)]
pub enum OperateCommand {
    /// List nodes with their state and load
    Nodes {
        /// Form of the output.
        #[command(flatten)]
        form: OutputArgs,
    },
    /// Take leadership from a node, until it is resumed or started again
    Drain {
        /// Node
        node: i32,
        /// Even while another node is draining or offline
        #[arg(long)]
        force: bool,
        /// Whether to wait.
        #[command(flatten)]
        wait: WaitArgs,
        /// Form of the output.
        #[command(flatten)]
        form: OutputArgs,
    },
    /// End a drain or a decommission
    Resume {
        /// Node
        node: i32,
        /// Form of the output.
        #[command(flatten)]
        form: OutputArgs,
    },
    /// Move everything away from a node and forget it
    Decommission {
        /// Node
        node: i32,
        /// It is dead and will not come back
        #[arg(long)]
        dead: bool,
        /// Whether to wait.
        #[command(flatten)]
        wait: WaitArgs,
        /// Form of the output.
        #[command(flatten)]
        form: OutputArgs,
    },
    /// Move the leadership of a partition
    TransferLeader {
        /// Partition
        #[arg(value_name = "TOPIC:PARTITION")]
        partition: String,
        /// New leader, in sync; default: the preferred leader, or else any other
        #[arg(long, value_name = "NODE")]
        to: Option<i32>,
        /// Form of the output.
        #[command(flatten)]
        form: OutputArgs,
    },
    /// Let preferred leaders lead again
    #[command(visible_alias = "elect")]
    ElectLeaders {
        /// Topics; default: all
        #[arg(value_name = "TOPIC")]
        topics: Vec<String>,
        /// Form of the output.
        #[command(flatten)]
        form: OutputArgs,
    },
    /// Move replicas to other nodes, or change their number
    #[command(visible_alias = "move")]
    Reassign {
        /// Topics with all their partitions, or single partitions
        #[arg(required = true, value_name = "TOPIC[:PARTITION]")]
        partitions: Vec<String>,
        /// Where to.
        #[command(flatten)]
        target: TargetArgs,
        /// Check everything, move nothing
        #[arg(short, long, conflicts_with = "cancel")]
        dry_run: bool,
        /// Whether to wait.
        #[command(flatten)]
        wait: WaitArgs,
        /// Form of the output.
        #[command(flatten)]
        form: OutputArgs,
    },
    /// Show the feature level of the cluster and what its nodes can work at, or raise it
    Upgrade {
        /// What to do; shows the levels if absent
        #[command(subcommand)]
        action: Option<UpgradeCommand>,
        /// Form of the output.
        #[command(flatten)]
        form: OutputArgs,
    },
    /// List partitions on the move
    Reassignments {
        /// Again every two seconds, until there are none
        #[arg(long)]
        watch: bool,
        /// Form of the output.
        #[command(flatten)]
        form: OutputArgs,
    },
}

/// What to do with feature levels.
#[derive(Debug, Clone, Copy, Subcommand)]
pub enum UpgradeCommand {
    /// Raise the feature level, once every node runs the new version; older programs are of no use afterwards
    Finalize {
        /// To this level, and not to the highest that all nodes can work at
        #[arg(long, value_parser = clap::value_parser!(i32).range(1..=65_535), value_name = "N")]
        level: Option<i32>,
        /// Only say whether it is possible
        #[arg(short, long)]
        dry_run: bool,
    },
}
