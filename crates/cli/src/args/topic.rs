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
        /// Names of the topics
        #[arg(required = true, value_name = "TOPIC")]
        topics: Vec<String>,
        /// Number of partitions; 0: the cluster's default
        #[arg(short, long, default_value_t = 0, value_name = "N")]
        partitions: i32,
        /// Replicas of each partition; 0: the cluster's default
        #[arg(
            short,
            long,
            alias = "replication-factor",
            default_value_t = 0,
            value_name = "N"
        )]
        replicas: i32,
        /// Configuration of the topic, such as retention.ms=7d; may be repeated
        #[arg(short = 'c', long = "config", value_parser = parse::pair,
              value_name = "KEY=VALUE")]
        configs: Vec<(String, String)>,
        /// Succeed if the topic exists as requested; exit with code 4 if it differs
        #[arg(long)]
        if_not_exists: bool,
        /// Validate the request and create nothing
        #[arg(short, long)]
        dry_run: bool,
        /// Keep the latest record of every key (cleanup.policy=compact)
        #[arg(long)]
        compact: bool,
        /// Return without waiting until every partition has an open leader
        #[arg(long)]
        no_wait: bool,
        /// Output format.
        #[command(flatten)]
        form: OutputArgs,
    },
    /// List topics
    #[command(visible_alias = "ls")]
    List {
        /// List only these topics
        #[arg(value_name = "TOPIC")]
        topics: Vec<String>,
        /// Show topic ids and the configs that were set
        #[arg(short, long)]
        detailed: bool,
        /// Include internal topics
        #[arg(short, long)]
        internal: bool,
        /// List only names that match this regular expression
        #[arg(short, long, value_name = "PATTERN")]
        regex: Option<String>,
        /// Output format.
        #[command(flatten)]
        form: OutputArgs,
    },
    /// Show partitions, leaders, replicas and configs of topics
    #[command(visible_alias = "info")]
    Describe {
        /// Names of the topics
        #[arg(required_unless_present_any = ["under_replicated", "unavailable"], value_name = "TOPIC")]
        topics: Vec<String>,
        /// Show the summary
        #[arg(short, long)]
        summary: bool,
        /// Show the configs
        #[arg(short = 'c', long)]
        configs: bool,
        /// Show the partitions
        #[arg(short, long)]
        partitions: bool,
        /// Show summary, configs and partitions
        #[arg(short, long)]
        all: bool,
        /// Show only partitions with replicas that are not in sync; without topics: of all topics
        #[arg(long)]
        under_replicated: bool,
        /// Show only partitions without a leader; without topics: of all topics
        #[arg(long)]
        unavailable: bool,
        /// Output format.
        #[command(flatten)]
        form: OutputArgs,
    },
    /// Show or change the configs of a topic
    Config {
        /// Name of the topic
        topic: String,
        /// Set a config, such as retention.ms=7d or segment.bytes=1GiB; may be repeated
        #[arg(long = "set", short = 'c', value_parser = parse::pair,
              value_name = "KEY=VALUE")]
        sets: Vec<(String, String)>,
        /// Remove a config, so that the default applies
        #[arg(long, value_name = "KEY")]
        delete: Vec<String>,
        /// Add a value to a config that is a list
        #[arg(long, value_parser = parse::pair, value_name = "KEY=VALUE")]
        append: Vec<(String, String)>,
        /// Validate the request and change nothing
        #[arg(long)]
        dry_run: bool,
        /// Output format.
        #[command(flatten)]
        form: OutputArgs,
    },
    /// Add partitions to a topic
    AddPartitions {
        /// Name of the topic
        topic: String,
        /// Add this many partitions
        #[arg(short, long, value_name = "N", group = "size", required_unless_present = "total",
              value_parser = clap::value_parser!(i32).range(1..))]
        num: Option<i32>,
        /// Grow the topic to this many partitions
        #[arg(
            long,
            short_alias = 't',
            alias = "partitions",
            value_name = "N",
            group = "size"
        )]
        total: Option<i32>,
        /// Validate the request and add nothing
        #[arg(short, long)]
        dry_run: bool,
        /// Output format.
        #[command(flatten)]
        form: OutputArgs,
    },
    /// Change the replication factor of topics
    Alter {
        /// Names of the topics
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
        /// Validate the request and change nothing
        #[arg(short, long)]
        dry_run: bool,
        /// Whether to wait.
        #[command(flatten)]
        wait: WaitArgs,
        /// Output format.
        #[command(flatten)]
        form: OutputArgs,
    },
    /// Delete the oldest records of a topic
    Trim {
        /// Name of the topic
        topic: String,
        /// Delete all records before this: 42, end, @TIME, -100 (keep the last 100)
        #[arg(short, long, allow_hyphen_values = true, value_name = "SPEC")]
        offset: String,
        /// Partitions [default: all]
        #[arg(short, long, value_delimiter = ',', value_name = "N")]
        partition: Vec<i32>,
        /// Show the new start offsets and delete nothing
        #[arg(long)]
        dry_run: bool,
        /// Output format
        #[arg(long, value_enum, default_value = "text", value_name = "FORMAT")]
        output: Output,
    },
    /// Delete topics with all their records
    #[command(visible_alias = "rm")]
    Delete {
        /// Names of the topics
        #[arg(required = true, value_name = "TOPIC")]
        topics: Vec<String>,
        /// Treat the topics as regular expressions that match whole names
        #[arg(short, long)]
        regex: bool,
        /// Output format.
        #[command(flatten)]
        form: OutputArgs,
    },
    /// Show the first and last offsets, or the offset at a time or position
    Offsets {
        /// Names of the topics
        #[arg(required = true, value_name = "TOPIC")]
        topics: Vec<String>,
        /// Position to look up: beginning, end, 42, -100, @TIME
        #[arg(
            short = 'a',
            long = "at",
            allow_hyphen_values = true,
            value_name = "SPEC"
        )]
        at: Option<String>,
        /// Partitions [default: all]
        #[arg(short, long, value_delimiter = ',', value_name = "N")]
        partition: Vec<i32>,
        /// Output format.
        #[command(flatten)]
        form: OutputArgs,
    },
}
