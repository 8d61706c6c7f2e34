//! Flags of `varve topic`.

use clap::Subcommand;

use super::OutputArgs;
use crate::operate_args::WaitArgs;
use crate::output::Output;
use crate::parse;

/// Commands on topics.
#[derive(Debug, Subcommand)]
pub enum TopicCommand {
    /// Create topics
    Create {
        /// Topics
        #[arg(required = true, value_name = "TOPIC")]
        topics: Vec<String>,
        /// Partitions; 0: the server's default
        #[arg(short, long, default_value_t = 0, value_name = "N")]
        partitions: i32,
        /// Replicas of each partition; 0: the server's default
        #[arg(
            short,
            long,
            alias = "replication-factor",
            default_value_t = 0,
            value_name = "N"
        )]
        replicas: i32,
        /// Config of the topic
        #[arg(short = 'c', long = "config", value_parser = parse::pair,
              value_name = "KEY=VALUE")]
        configs: Vec<(String, String)>,
        /// Do nothing when the topic exists
        #[arg(long)]
        if_not_exists: bool,
        /// Check everything, create nothing
        #[arg(short, long)]
        dry_run: bool,
        /// Keep the last record of every key
        #[arg(long)]
        compact: bool,
        /// Return at once, and not when every partition has an open leader
        #[arg(long)]
        no_wait: bool,
        /// Form of the output.
        #[command(flatten)]
        form: OutputArgs,
    },
    /// List topics
    List {
        /// Only these topics
        #[arg(value_name = "TOPIC")]
        topics: Vec<String>,
        /// With the configs that were set
        #[arg(short, long)]
        detailed: bool,
        /// With the server's own topics
        #[arg(short, long)]
        internal: bool,
        /// Only names that match this regular expression
        #[arg(short, long, value_name = "PATTERN")]
        regex: Option<String>,
        /// Form of the output.
        #[command(flatten)]
        form: OutputArgs,
    },
    /// Describe topics
    Describe {
        /// Topics
        #[arg(required_unless_present_any = ["under_replicated", "unavailable"], value_name = "TOPIC")]
        topics: Vec<String>,
        /// The summary
        #[arg(short, long)]
        summary: bool,
        /// The configs
        #[arg(short = 'c', long)]
        configs: bool,
        /// The partitions
        #[arg(short, long)]
        partitions: bool,
        /// Everything
        #[arg(short, long)]
        all: bool,
        /// Show only partitions with replicas that are not in sync; without topics: of all topics
        #[arg(long)]
        under_replicated: bool,
        /// Show only partitions without a leader; without topics: of all topics
        #[arg(long)]
        unavailable: bool,
        /// Form of the output.
        #[command(flatten)]
        form: OutputArgs,
    },
    /// Show or change configs of a topic
    Config {
        /// Topic
        topic: String,
        /// Set
        #[arg(long = "set", value_parser = parse::pair,
              value_name = "KEY=VALUE")]
        sets: Vec<(String, String)>,
        /// Remove, so that the default applies
        #[arg(long, value_name = "KEY")]
        delete: Vec<String>,
        /// Add to a list
        #[arg(long, value_parser = parse::pair, value_name = "KEY=VALUE")]
        append: Vec<(String, String)>,
        /// Check everything, change nothing
        #[arg(long)]
        dry_run: bool,
        /// Form of the output.
        #[command(flatten)]
        form: OutputArgs,
    },
    /// Add partitions to a topic
    AddPartitions {
        /// Topic
        topic: String,
        /// New total
        #[arg(short, long, alias = "partitions", value_name = "TOTAL")]
        total: i32,
        /// Check everything, add nothing
        #[arg(short, long)]
        dry_run: bool,
        /// Form of the output.
        #[command(flatten)]
        form: OutputArgs,
    },
    /// Change the number of replicas of topics
    Alter {
        /// Topics
        #[arg(required = true, value_name = "TOPIC")]
        topics: Vec<String>,
        /// Replicas of each partition
        #[arg(
            short,
            long,
            alias = "replication-factor",
            value_parser = clap::value_parser!(i32).range(1..),
            value_name = "N"
        )]
        replicas: i32,
        /// Check everything, change nothing
        #[arg(short, long)]
        dry_run: bool,
        /// Whether to wait.
        #[command(flatten)]
        wait: WaitArgs,
        /// Form of the output.
        #[command(flatten)]
        form: OutputArgs,
    },
    /// Delete old records
    Trim {
        /// Topic
        topic: String,
        /// Delete what is before this: 42, end, @TIME, -100
        #[arg(short, long, allow_hyphen_values = true, value_name = "SPEC")]
        offset: String,
        /// Partitions; default: all
        #[arg(short, long, value_delimiter = ',', value_name = "N")]
        partition: Vec<i32>,
        /// Show what would go, delete nothing
        #[arg(long)]
        dry_run: bool,
        /// Form of the output
        #[arg(long, value_enum, default_value = "text", value_name = "FORM")]
        output: Output,
    },
    /// Delete topics with all their records
    Delete {
        /// Topics
        #[arg(required = true, value_name = "TOPIC")]
        topics: Vec<String>,
        /// Topics are regular expressions over whole names
        #[arg(short, long)]
        regex: bool,
        /// Form of the output.
        #[command(flatten)]
        form: OutputArgs,
    },
    /// Find offsets, by time or place
    Offsets {
        /// Topics
        #[arg(required = true, value_name = "TOPIC")]
        topics: Vec<String>,
        /// Place to find: beginning, end, 42, -100, @TIME
        #[arg(
            short = 'a',
            long = "at",
            allow_hyphen_values = true,
            value_name = "SPEC"
        )]
        at: Option<String>,
        /// Partitions; default: all
        #[arg(short, long, value_delimiter = ',', value_name = "N")]
        partition: Vec<i32>,
        /// Form of the output.
        #[command(flatten)]
        form: OutputArgs,
    },
}
