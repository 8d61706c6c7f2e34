//! Flags of `varve consume`.

use std::time::Duration;

use clap::Args;
use varve_types::size::parse_duration;

use super::produce::Delimiter;

/// Flags of `consume`.
#[derive(Debug, Args)]
pub struct ConsumeArgs {
    /// Topics to read
    #[arg(value_name = "TOPIC")]
    pub topics: Vec<String>,
    /// Topic to read; may be repeated
    #[arg(short = 't', long = "topic", value_name = "TOPIC")]
    pub more_topics: Vec<String>,
    /// Treat the topics as regular expressions that match whole names
    #[arg(short, long)]
    pub regex: bool,
    /// Partitions to read [default: all]
    #[arg(short, long, value_delimiter = ',', value_name = "N")]
    pub partition: Vec<i32>,
    /// Join this consumer group, and commit what was printed
    #[arg(
        short,
        long,
        short_alias = 'G',
        conflicts_with = "partition",
        value_name = "GROUP"
    )]
    pub group: Option<String>,
    /// Where to start and stop: beginning, end, stored, 42, -100, +100, 10:20, @TIME, @-2h:-1h
    #[arg(short, long, allow_hyphen_values = true, value_name = "SPEC")]
    pub offset: Vec<String>,
    /// Stop at the current end of each partition
    #[arg(short, long)]
    pub exit_at_end: bool,
    /// Stop after N records
    #[arg(short, long, short_alias = 'n', aliases = ["num", "max-messages"], value_name = "N")]
    pub count: Option<u64>,
    /// Output format of a record; json is the same as -J [default: '%v\n']
    #[arg(short, long, conflicts_with_all = ["json", "json_pretty"], value_name = "FORMAT")]
    pub format: Option<String>,
    /// Print one JSON object per line
    #[arg(short = 'J', long)]
    pub json: bool,
    /// Print indented JSON
    #[arg(long)]
    pub json_pretty: bool,
    /// Delimiter after each record: \n, \t, \0, \xNN
    #[arg(short = 'D', long, value_parser = Delimiter::parse, value_name = "TEXT",
          allow_hyphen_values = true)]
    pub delim: Option<Delimiter>,
    /// Print the key and this delimiter before the value
    #[arg(short = 'K', long, value_parser = Delimiter::parse, value_name = "TEXT",
          allow_hyphen_values = true)]
    pub key_delim: Option<Delimiter>,
    /// Print the offset before the record
    #[arg(short = 'O', long)]
    pub print_offset: bool,
    /// Text to print for a null key or value
    #[arg(short = 'Z', long = "null", default_value = "", value_name = "TEXT")]
    pub null: String,
    /// Flush the output after every record
    #[arg(short, long)]
    pub unbuffered: bool,
    /// Do not print values
    #[arg(long, alias = "headers-only")]
    pub meta_only: bool,
    /// Start at the oldest record
    #[arg(long, conflicts_with = "offset")]
    pub from_beginning: bool,
    /// Stop when no record arrives for this many milliseconds
    #[arg(long, hide = true, value_name = "MS")]
    pub timeout_ms: Option<u64>,
    /// Stop when no record arrives for this long
    #[arg(long, value_parser = parse_duration, value_name = "TIME")]
    pub idle_timeout: Option<Duration>,
    /// Exit with code 4 if fewer than N records were printed
    #[arg(long, value_name = "N")]
    pub require: Option<u64>,
    /// Do not commit offsets
    #[arg(long)]
    pub no_commit: bool,
    /// How often to commit offsets
    #[arg(long, value_parser = parse_duration, default_value = "5s", value_name = "TIME")]
    pub commit_interval: Duration,
    /// Static member id: the member keeps its partitions across restarts
    #[arg(long, default_value = "", value_name = "ID")]
    pub instance_id: String,
    /// Rack of this client, to read from a replica nearby
    #[arg(long, value_name = "RACK")]
    pub rack: Option<String>,
    /// Which transactional records to read
    #[arg(
        long,
        value_enum,
        default_value = "read_committed",
        value_name = "LEVEL"
    )]
    pub isolation: IsolationLevel,
}

/// Which transactional records are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum IsolationLevel {
    /// Records of committed transactions only
    ReadCommitted,
    /// All records, including those of open and aborted transactions
    ReadUncommitted,
}
