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
    /// Version, limits and nodes
    Info {
        /// Form of the output.
        #[command(flatten)]
        form: OutputArgs,
    },
    /// What is wrong
    Health {
        /// Again every two seconds
        #[arg(short, long)]
        watch: bool,
        /// With --watch: stop when all is well
        #[arg(short, long)]
        exit_when_healthy: bool,
        /// Exit with 4 when something is wrong
        #[arg(long)]
        exit_code: bool,
        /// Form of the output.
        #[command(flatten)]
        form: OutputArgs,
    },
    /// Nodes, topics, partitions and leaders
    Metadata {
        /// Only these topics
        #[arg(value_name = "TOPIC")]
        topics: Vec<String>,
        /// Only this topic; may be repeated
        #[arg(short = 't', long = "topic", value_name = "TOPIC")]
        more_topics: Vec<String>,
        /// Form of the output.
        #[command(flatten)]
        form: OutputArgs,
        /// As JSON
        #[arg(short = 'J', long)]
        json: bool,
    },
}
