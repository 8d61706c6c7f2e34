//! The command tree and its flags. Names follow kcat, rpk and Kafka's own tools where those agree.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use varve_record::Compression;
use varve_types::Acks;
use varve_types::size::{parse_bytes, parse_duration};

use crate::check::CheckCommand;
use crate::demo::DemoArgs;
use crate::inspect::LogCommand;
use crate::operate_args::{OperateCommand, WaitArgs};
use crate::output::Output;
use crate::parse;
use crate::serve::{ConfigCommand, ServerArgs};
use crate::sim::SimArgs;
use crate::transaction::TransactionCommand;

fn size(text: &str) -> Result<usize, String> {
    usize::try_from(parse_bytes(text)?).map_err(|error| error.to_string())
}

/// A log service: produce, consume and operate.
#[derive(Debug, Parser)]
#[command(
    name = "varve",
    version,
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
    /// Addresses of the cluster: host:port, separated by commas
    #[arg(short, long, global = true, env = "VARVE_BROKERS", value_delimiter = ',',
          value_name = "HOST:PORT", aliases = ["bootstrap-server", "server"])]
    pub brokers: Vec<String>,
    /// Change a setting of the client; `-X list` prints all
    #[arg(
        short = 'X',
        long = "client-set",
        global = true,
        value_name = "KEY=VALUE"
    )]
    pub set: Vec<String>,
    /// Configuration file of the client [default: ~/.config/varve/client.toml]
    #[arg(
        short = 'F',
        long,
        global = true,
        env = "VARVE_CLIENT_CONFIG",
        value_name = "FILE"
    )]
    pub client_config: Option<PathBuf>,
    /// Named connection of the configuration file
    #[arg(long, global = true, env = "VARVE_CONTEXT", value_name = "NAME")]
    pub context: Option<String>,
    /// Speak TLS, trusting the CAs of the system unless --tls-ca names others
    #[arg(long, global = true, env = "VARVE_TLS",
          value_parser = clap::builder::FalseyValueParser::new())]
    pub tls: bool,
    /// CAs that the cluster's certificates are signed by, PEM; turns TLS on
    #[arg(long, global = true, env = "VARVE_TLS_CA", value_name = "FILE")]
    pub tls_ca: Option<PathBuf>,
    /// Certificate to show to the cluster, PEM; turns TLS on
    #[arg(long, global = true, env = "VARVE_TLS_CERT", value_name = "FILE")]
    pub tls_cert: Option<PathBuf>,
    /// Private key of that certificate, PEM
    #[arg(long, global = true, env = "VARVE_TLS_KEY", value_name = "FILE")]
    pub tls_key: Option<PathBuf>,
    /// How long to wait for the cluster
    #[arg(long, global = true, env = "VARVE_TIMEOUT", value_parser = parse_duration,
          default_value = "5s", value_name = "TIME")]
    pub timeout: Duration,
    /// Print nothing but data and errors
    #[arg(short, long, global = true)]
    pub quiet: bool,
    /// Print more; may be repeated
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// No colours
    #[arg(long, global = true, env = "NO_COLOR",
          value_parser = clap::builder::FalseyValueParser::new())]
    pub no_color: bool,
    /// Do not ask before something is destroyed
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

/// Form of a management command's output.
#[derive(Debug, Clone, Copy, Args)]
pub struct OutputArgs {
    /// Form of the output
    #[arg(short, long, value_enum, default_value = "text", value_name = "FORM")]
    pub output: Output,
}

/// Commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Write records to a topic
    Produce(Box<ProduceArgs>),
    /// Read records of topics
    Consume(Box<ConsumeArgs>),
    /// Create, list, change and delete topics
    Topic {
        /// What to do.
        #[command(subcommand)]
        command: TopicCommand,
    },
    /// List, describe, move and delete consumer groups
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
    /// Look at the cluster and change it
    Cluster {
        /// What to do.
        #[command(subcommand)]
        command: ClusterCommand,
    },
    /// Look whether a node is up, and whether a cluster keeps its promises
    Check {
        /// What to do.
        #[command(subcommand)]
        command: CheckCommand,
    },
    /// Read the files of a stopped node
    Log {
        /// What to do.
        #[command(subcommand)]
        command: LogCommand,
    },
    /// Run a node
    Server(Box<ServerArgs>),
    /// Look at the configuration of a node
    Config {
        /// What to do.
        #[command(subcommand)]
        command: ConfigCommand,
    },
    /// Run the whole path on real input, verify it, and leave nothing behind
    Demo(DemoArgs),
    /// Run seeds of the simulated cluster, or replay one and tell its story
    Sim(SimArgs),
    /// Print the completion script of a shell
    Completion {
        /// Shell
        shell: clap_complete::Shell,
    },
    /// Print the version
    Version {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
}

/// Flags of `produce`.
#[derive(Debug, Args)]
#[command(override_usage = "varve produce [OPTIONS] [TOPIC] [FILE]...")]
pub struct ProduceArgs {
    /// Topic, and files to send: one record per file (with -l: one per line)
    #[arg(value_name = "TOPIC|FILE")]
    pub inputs: Vec<String>,
    /// Topic; every argument is then a file
    #[arg(short, long, value_name = "TOPIC")]
    pub topic: Option<String>,
    /// Lines of the files are records
    #[arg(short, long)]
    pub lines: bool,
    /// Delimiter of records: \n, \t, \0, \xNN
    #[arg(short = 'D', long, default_value = "\\n", value_parser = Delimiter::parse,
          value_name = "TEXT", allow_hyphen_values = true)]
    pub delim: Delimiter,
    /// Split key from value at the first of these
    #[arg(short = 'K', long, value_parser = Delimiter::parse, value_name = "TEXT",
          allow_hyphen_values = true)]
    pub key_delim: Option<Delimiter>,
    /// Key of records without one of their own
    #[arg(short, long, value_name = "TEXT", allow_hyphen_values = true)]
    pub key: Option<String>,
    /// Partition; default: by key
    #[arg(short, long, value_name = "N")]
    pub partition: Option<i32>,
    /// Header; NAME alone is null
    #[arg(short = 'H', long, value_parser = parse::header, value_name = "NAME=VALUE")]
    pub header: Vec<(String, Option<String>)>,
    /// Codec: none, gzip, snappy, lz4, zstd [default: lz4]
    #[arg(short = 'z', long, value_name = "CODEC")]
    pub compression: Option<Compression>,
    /// When an append counts: all, leader, none [default: all]
    #[arg(short, long, allow_hyphen_values = true, value_name = "WHEN")]
    pub acks: Option<Acks>,
    /// An empty value is null
    #[arg(short = 'Z', long)]
    pub null_empty: bool,
    /// Stop after so many records
    #[arg(short, long, short_alias = 'n', value_name = "N")]
    pub count: Option<u64>,
    /// Format of the input, e.g. '%k %v\n'
    #[arg(short, long, conflicts_with_all = ["json", "key_delim"], value_name = "FORMAT")]
    pub format: Option<String>,
    /// The input is JSON lines as `consume -J` prints them
    #[arg(short = 'J', long, conflicts_with = "key_delim")]
    pub json: bool,
    /// Copy the input to standard output
    #[arg(short = 'T', long, conflicts_with = "output_format")]
    pub tee: bool,
    /// Print this for every acknowledged record, e.g. '%t[%p]@%o\n'
    #[arg(short = 'O', long, value_name = "FORMAT")]
    pub output_format: Option<String>,
    /// How long a batch waits for more records
    #[arg(long, value_parser = parse_duration, value_name = "TIME")]
    pub linger: Option<Duration>,
    /// Bytes of a batch before compression
    #[arg(long, value_parser = size, value_name = "BYTES")]
    pub batch_size: Option<usize>,
    /// A record fails when not acknowledged for this long
    #[arg(long, value_parser = parse_duration, value_name = "TIME")]
    pub delivery_timeout: Option<Duration>,
    /// Repeats are recognised (the default)
    #[arg(long, overrides_with = "no_idempotent")]
    pub idempotent: bool,
    /// Repeats may double records
    #[arg(long)]
    pub no_idempotent: bool,
    /// Stable name: a newer producer of this name fences this one off
    #[arg(long, default_value = "", value_name = "NAME")]
    pub producer_name: String,
    /// Everything counts together or not at all; a newer producer of this id fences this one off
    #[arg(long, conflicts_with_all = ["no_idempotent", "producer_name"], value_name = "ID")]
    pub transactional_id: Option<String>,
    /// Commit after so many records, and at the end
    #[arg(long, requires = "transactional_id", value_parser = clap::value_parser!(u64).range(1..),
          value_name = "N")]
    pub transaction_records: Option<u64>,
    /// Time of the records: RFC 3339, a date, or -1h
    #[arg(
        long,
        conflicts_with = "timestamp",
        allow_hyphen_values = true,
        value_name = "TIME"
    )]
    pub at: Option<String>,
    /// Time of the records in milliseconds since 1970
    #[arg(long, value_name = "MS")]
    pub timestamp: Option<i64>,
}

/// A delimiter of at least one byte.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delimiter(pub Vec<u8>);

impl Delimiter {
    fn parse(text: &str) -> Result<Self, String> {
        parse::delimiter(text).map(Self)
    }
}

/// Flags of `consume`.
#[derive(Debug, Args)]
pub struct ConsumeArgs {
    /// Topics
    #[arg(value_name = "TOPIC")]
    pub topics: Vec<String>,
    /// Topic; may be repeated
    #[arg(short = 't', long = "topic", value_name = "TOPIC")]
    pub more_topics: Vec<String>,
    /// Topics are regular expressions over whole names
    #[arg(short, long)]
    pub regex: bool,
    /// Partitions; default: all
    #[arg(short, long, value_delimiter = ',', value_name = "N")]
    pub partition: Vec<i32>,
    /// Read as a member of this group, committing what was printed
    #[arg(
        short,
        long,
        short_alias = 'G',
        conflicts_with = "partition",
        value_name = "GROUP"
    )]
    pub group: Option<String>,
    /// Where to begin and end: beginning, end, stored, 42, -100, +100, 10:20, @TIME, @-2h:-1h
    #[arg(short, long, allow_hyphen_values = true, value_name = "SPEC")]
    pub offset: Vec<String>,
    /// Stop at the end as it is now
    #[arg(short, long)]
    pub exit_at_end: bool,
    /// Stop after so many records
    #[arg(short, long, short_alias = 'n', aliases = ["num", "max-messages"], value_name = "N")]
    pub count: Option<u64>,
    /// Format of a record [default: '%v\n']
    #[arg(short, long, conflicts_with_all = ["json", "json_pretty"], value_name = "FORMAT")]
    pub format: Option<String>,
    /// One JSON object per line
    #[arg(short = 'J', long)]
    pub json: bool,
    /// JSON over several lines
    #[arg(long)]
    pub json_pretty: bool,
    /// Delimiter after a record: \n, \t, \0, \xNN
    #[arg(short = 'D', long, value_parser = Delimiter::parse, value_name = "TEXT",
          allow_hyphen_values = true)]
    pub delim: Option<Delimiter>,
    /// Print the key and this in front of the value
    #[arg(short = 'K', long, value_parser = Delimiter::parse, value_name = "TEXT",
          allow_hyphen_values = true)]
    pub key_delim: Option<Delimiter>,
    /// Print the offset in front of the record
    #[arg(short = 'O', long)]
    pub print_offset: bool,
    /// How a null is printed
    #[arg(short = 'Z', long = "null", default_value = "", value_name = "TEXT")]
    pub null: String,
    /// Write every record at once
    #[arg(short, long)]
    pub unbuffered: bool,
    /// Leave values out
    #[arg(long, alias = "headers-only")]
    pub meta_only: bool,
    /// Begin with the oldest record
    #[arg(long, conflicts_with = "offset")]
    pub from_beginning: bool,
    /// Stop after silence of so many milliseconds
    #[arg(long, hide = true, value_name = "MS")]
    pub timeout_ms: Option<u64>,
    /// Stop after silence of this long
    #[arg(long, value_parser = parse_duration, value_name = "TIME")]
    pub idle_timeout: Option<Duration>,
    /// Exit with 4 when fewer records came
    #[arg(long, value_name = "N")]
    pub require: Option<u64>,
    /// Do not commit
    #[arg(long)]
    pub no_commit: bool,
    /// How often to commit
    #[arg(long, value_parser = parse_duration, default_value = "5s", value_name = "TIME")]
    pub commit_interval: Duration,
    /// Stable id of this member
    #[arg(long, default_value = "", value_name = "ID")]
    pub instance_id: String,
    /// Rack of this client
    #[arg(long, value_name = "RACK")]
    pub rack: Option<String>,
    /// Which records of transactions are read
    #[arg(
        long,
        value_enum,
        default_value = "read_committed",
        value_name = "LEVEL"
    )]
    pub isolation: IsolationLevel,
}

/// Which records of transactions are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum IsolationLevel {
    /// Those of committed ones
    ReadCommitted,
    /// All, also of open and aborted ones
    ReadUncommitted,
}

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
        #[arg(required = true, value_name = "TOPIC")]
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
        /// Only partitions with fewer replicas in sync than they should have
        #[arg(long)]
        under_replicated: bool,
        /// Only partitions without leader
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

/// Commands on consumer groups.
#[derive(Debug, Subcommand)]
pub enum GroupCommand {
    /// List groups
    List {
        /// Form of the output.
        #[command(flatten)]
        form: OutputArgs,
    },
    /// Describe groups: members, committed offsets, lag
    Describe {
        /// Groups
        #[arg(required = true, value_name = "GROUP")]
        groups: Vec<String>,
        /// Only the summary
        #[arg(short, long)]
        summary: bool,
        /// Lag per topic
        #[arg(short = 't', long)]
        topics: bool,
        /// Again every two seconds
        #[arg(short, long)]
        watch: bool,
        /// Form of the output.
        #[command(flatten)]
        form: OutputArgs,
    },
    /// Move the committed offsets of a group without members
    Seek {
        /// Group
        group: String,
        /// Where to: start, end, @TIME, an offset
        #[arg(
            long,
            allow_hyphen_values = true,
            value_name = "SPEC",
            group = "target"
        )]
        to: Option<String>,
        /// Forward, or back with -N
        #[arg(long, allow_hyphen_values = true, value_name = "N", group = "target")]
        shift_by: Option<i64>,
        /// To the offsets of another group
        #[arg(long, value_name = "GROUP", group = "target")]
        to_group: Option<String>,
        /// To the offsets in a file: lines of TOPIC PARTITION OFFSET
        #[arg(long, value_name = "FILE", group = "target")]
        to_file: Option<PathBuf>,
        /// Only these topics; with --to also topics the group has no offsets for
        #[arg(long, num_args = 1.., value_name = "TOPIC")]
        topics: Vec<String>,
        /// Show the new offsets, write nothing
        #[arg(long)]
        dry_run: bool,
        /// Do not ask
        #[arg(long)]
        execute: bool,
        /// Form of the output.
        #[command(flatten)]
        form: OutputArgs,
    },
    /// Delete groups without members, with their offsets
    Delete {
        /// Groups
        #[arg(required = true, value_name = "GROUP")]
        groups: Vec<String>,
    },
    /// Delete committed offsets of a group
    OffsetDelete {
        /// Group
        group: String,
        /// Topics, or TOPIC:PARTITION
        #[arg(short, long, required = true, num_args = 1.., value_name = "TOPIC[:N]")]
        topic: Vec<String>,
    },
    /// Expel members of a group
    RemoveMember {
        /// Group
        group: String,
        /// Members
        #[arg(value_name = "MEMBER")]
        members: Vec<String>,
        /// All members
        #[arg(long, conflicts_with = "members")]
        all: bool,
    },
}

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
            "varve cluster reassign orders",
            "varve cluster reassign orders --to 1 --replicas 1",
            "varve cluster drain 2 --within 1m",
            "varve topic alter orders --replicas 0",
        ] {
            assert!(Cli::try_parse_from(line.split(' ')).is_err(), "{line}");
        }
    }
}
