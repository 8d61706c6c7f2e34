//! Flags of `varve cluster`.

use clap::Subcommand;

use super::OutputArgs;
use crate::operate_args::OperateCommand;

/// Commands on the cluster.
#[derive(Debug, Subcommand)]
pub enum ClusterCommand {
    /// Those that change it.
    #[command(flatten)]
    Operate(OperateCommand),
    /// Show version, limits and nodes of the cluster
    #[command(after_long_help = "Examples:\n  varve cluster info\n  varve cluster info -o json")]
    Info {
        /// Output format.
        #[command(flatten)]
        form: OutputArgs,
    },
    /// Show what is wrong with the cluster
    ///
    /// Each problem is one sentence. With `-o wide` the partitions concerned are listed below.
    #[command(
        after_long_help = "Examples:\n  varve cluster health --exit-code\n  varve cluster health -w -e"
    )]
    Health {
        /// Look again every two seconds
        #[arg(short, long)]
        watch: bool,
        /// With --watch: stop when the cluster is healthy
        #[arg(short, long)]
        exit_when_healthy: bool,
        /// Exit with code 4 if the cluster is not healthy
        #[arg(long)]
        exit_code: bool,
        /// Output format.
        #[command(flatten)]
        form: OutputArgs,
    },
    /// Show nodes, topics, partitions and leaders
    #[command(
        after_long_help = "Examples:\n  varve cluster metadata\n  varve cluster metadata orders -o json"
    )]
    Metadata {
        /// Show only these topics
        #[arg(value_name = "TOPIC")]
        topics: Vec<String>,
        /// Show only this topic; may be repeated
        #[arg(short = 't', long = "topic", value_name = "TOPIC")]
        more_topics: Vec<String>,
        /// Include internal topics
        #[arg(short, long)]
        internal: bool,
        /// Output format.
        #[command(flatten)]
        form: OutputArgs,
        /// Print JSON, as -o json
        #[arg(short = 'J', long)]
        json: bool,
    },
}
