//! The command tree and the flags of every command; the flags of one command are in a file of their own.
//! Names follow kcat, rpk and Kafka's own tools where those agree.

mod cluster;
mod consume;
mod group;
mod produce;
mod topic;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use varve_types::size::parse_duration;

use crate::check::CheckCommand;
use crate::demo::DemoArgs;
use crate::inspect::LogCommand;
use crate::output::Output;
use crate::serve::{ConfigCommand, ServerArgs};
use crate::sim::SimArgs;
use crate::transaction::TransactionCommand;

pub use cluster::ClusterCommand;
pub use consume::{ConsumeArgs, IsolationLevel};
pub use group::GroupCommand;
pub use produce::{Delimiter, ProduceArgs};
pub use topic::TopicCommand;

/// A log service: produce, consume and operate.
#[derive(Debug, Parser)]
#[command(
    name = "varve",
    version = varve_server::VERSION_LINE,
    disable_help_subcommand = true,
    max_term_width = 100
)]
pub struct Cli {
    /// Flags of every command.
    #[command(flatten)]
    pub global: Global,
    /// Command.
    #[command(subcommand)]
    pub command: Command,
}

/// Flags of every command.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// Addresses of cluster nodes, separated by commas [default: localhost:8278]
    #[arg(short, long, global = true, env = "VARVE_BROKERS", value_delimiter = ',',
          value_name = "HOST:PORT", aliases = ["bootstrap-server", "server"])]
    pub brokers: Vec<String>,
    /// Override a client setting; `-X list` prints all settings
    #[arg(
        short = 'X',
        long = "client-set",
        global = true,
        value_name = "KEY=VALUE"
    )]
    pub set: Vec<String>,
    /// Client configuration file [default: ~/.config/varve/client.toml]
    #[arg(
        short = 'F',
        long,
        global = true,
        env = "VARVE_CLIENT_CONFIG",
        value_name = "FILE"
    )]
    pub client_config: Option<PathBuf>,
    /// Context in the client configuration file
    #[arg(long, global = true, env = "VARVE_CONTEXT", value_name = "NAME")]
    pub context: Option<String>,
    /// Use TLS; trust the system's CAs unless --tls-ca is given
    #[arg(long, global = true, env = "VARVE_TLS",
          value_parser = clap::builder::FalseyValueParser::new())]
    pub tls: bool,
    /// CA certificates that sign the cluster's certificates, PEM; enables TLS
    #[arg(long, global = true, env = "VARVE_TLS_CA", value_name = "FILE")]
    pub tls_ca: Option<PathBuf>,
    /// Client certificate, PEM; enables TLS
    #[arg(long, global = true, env = "VARVE_TLS_CERT", value_name = "FILE")]
    pub tls_cert: Option<PathBuf>,
    /// Private key of the client certificate, PEM
    #[arg(long, global = true, env = "VARVE_TLS_KEY", value_name = "FILE")]
    pub tls_key: Option<PathBuf>,
    /// How long to wait for the cluster
    #[arg(long, global = true, env = "VARVE_TIMEOUT", value_parser = parse_duration,
          default_value = "5s", value_name = "TIME")]
    pub timeout: Duration,
    /// Print only data and errors
    #[arg(short, long, global = true)]
    pub quiet: bool,
    /// Log more to standard error; may be repeated
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// Do not use colours
    #[arg(long, global = true, env = "NO_COLOR",
          value_parser = clap::builder::FalseyValueParser::new())]
    pub no_color: bool,
    /// Do not ask for confirmation
    #[arg(short, long, global = true)]
    pub yes: bool,
}

impl Global {
    /// Whether the settings are asked for.
    #[must_use]
    pub fn list_settings(&self) -> bool {
        self.set.iter().any(|set| set == "list")
    }
}

/// Output format of a management command.
#[derive(Debug, Clone, Copy, Args)]
pub struct OutputArgs {
    /// Output format
    #[arg(short, long, value_enum, default_value = "text", value_name = "FORMAT")]
    pub output: Output,
}

/// Commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Write records to a topic
    #[command(visible_alias = "pub")]
    Produce(Box<ProduceArgs>),
    /// Read records from topics
    #[command(visible_alias = "sub")]
    Consume(Box<ConsumeArgs>),
    /// Create, list, change and delete topics
    Topic {
        /// What to do.
        #[command(subcommand)]
        command: TopicCommand,
    },
    /// List, describe, reset and delete consumer groups
    Group {
        /// What to do.
        #[command(subcommand)]
        command: GroupCommand,
    },
    /// List, describe and abort transactions
    Transaction {
        /// What to do.
        #[command(subcommand)]
        command: TransactionCommand,
    },
    /// Inspect and operate the cluster
    Cluster {
        /// What to do.
        #[command(subcommand)]
        command: ClusterCommand,
    },
    /// Probe a node, or test whether a cluster keeps its guarantees
    Check {
        /// What to do.
        #[command(subcommand)]
        command: CheckCommand,
    },
    /// Inspect and repair the files of a stopped node
    Log {
        /// What to do.
        #[command(subcommand)]
        command: LogCommand,
    },
    /// Run a node
    Server(Box<ServerArgs>),
    /// Show and check the configuration of a node
    Config {
        /// What to do.
        #[command(subcommand)]
        command: ConfigCommand,
    },
    /// Start a temporary node, produce, consume, kill, recover, verify, and clean up
    Demo(DemoArgs),
    /// Run the simulated cluster, or replay a seed and print what happens
    Sim(SimArgs),
    /// Print a shell completion script
    Completion {
        /// Shell
        shell: clap_complete::Shell,
    },
    /// Print the version
    Version {
        /// Print JSON
        #[arg(long)]
        json: bool,
        /// Output format.
        #[command(flatten)]
        form: OutputArgs,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_tree_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn what_fingers_type() {
        for line in [
            "varve produce orders",
            "varve produce -t orders -K : -p 3 -z zstd -a -1 file",
            "varve -b a:1,b:2 consume orders -o -100 -e -f %v\\n",
            "varve consume -t a -t b -o s@1767225600000 -o e@1767225600001",
            "varve consume -G g orders -c 5 -J",
            "varve consume orders -n 5 --bootstrap-server h:1",
            "varve topic create a b -p 3 -r 1 -c retention.ms=1000 --compact",
            "varve topic list -o json -r ^o",
            "varve topic describe orders -a",
            "varve topic config orders --set retention.ms=1 --delete x --append a=b",
            "varve topic add-partitions orders -n 2",
            "varve topic add-partitions orders -t 5",
            "varve topic add-partitions orders --total 5",
            "varve produce orders --value hello --value -5 -k me",
            "varve topic create a --config retention.ms=1000",
            "varve topic trim orders -o @-1h -y",
            "varve group describe g -o yaml",
            "varve transaction list --state ongoing --prefix etl- -o json",
            "varve transaction describe billing-1",
            "varve transaction abort billing-1 -y",
            "varve produce orders --transactional-id billing-1 --transaction-records 100",
            "varve consume orders --isolation read_uncommitted",
            "varve group seek g --shift-by -5 --topics a b --dry-run",
            "varve group seek g --to @-1h --execute",
            "varve cluster health -w -e",
            "varve cluster metadata -t orders",
            "varve check health --ready",
            "varve check health --live --http h:8277",
            "varve cluster nodes -o json",
            "varve cluster drain 2 --wait --within 1m",
            "varve cluster decommission 3 --dead -y",
            "varve cluster transfer-leader orders:0 --to 2",
            "varve cluster elect-leaders",
            "varve cluster reassign orders:0 payments --to 1,2,3 --wait",
            "varve cluster move orders --cancel",
            "varve cluster reassignments --watch",
            "varve topic alter orders --replicas 3",
            "varve completion bash",
            "varve version --json",
        ] {
            let parsed = Cli::try_parse_from(line.split(' '));
            assert!(parsed.is_ok(), "{line}: {}", parsed.unwrap_err());
        }
        for line in [
            "varve",
            "varve produce -f x -J",
            "varve produce orders --transaction-records 100",
            "varve produce orders --transactional-id a --producer-name b",
            "varve produce orders --transactional-id a --transaction-records 0",
            "varve consume orders --isolation serializable",
            "varve transaction abort",
            "varve consume -g g -p 1",
            "varve nonsense",
            "varve topic add-partitions orders",
            "varve topic add-partitions orders -n 2 -t 5",
            "varve topic add-partitions orders -n 0",
            "varve produce orders --value a -J",
            "varve cluster reassign orders",
            "varve cluster reassign orders --to 1 --replicas 1",
            "varve cluster drain 2 --within 1m",
            "varve topic alter orders --replicas 0",
        ] {
            assert!(Cli::try_parse_from(line.split(' ')).is_err(), "{line}");
        }
    }
}
