//! Flags of `varve consume`.

use std::time::Duration;

use clap::Args;
use varve_types::size::parse_duration;

use super::produce::Delimiter;

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
