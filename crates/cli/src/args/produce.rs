//! Flags of `varve produce`.

use std::time::Duration;

use clap::Args;
use varve_record::Compression;
use varve_types::Acks;
use varve_types::size::{parse_bytes, parse_duration};

use crate::parse;

fn size(text: &str) -> Result<usize, String> {
    usize::try_from(parse_bytes(text)?).map_err(|error| error.to_string())
}

/// Flags of `produce`.
#[derive(Debug, Args)]
#[command(override_usage = "varve produce [OPTIONS] [TOPIC] [FILE]...")]
pub struct ProduceArgs {
    /// Topic, then files to send: each file is one record (with -l: each line)
    #[arg(value_name = "TOPIC|FILE")]
    pub inputs: Vec<String>,
    /// Topic; all other arguments are then files
    #[arg(short, long, value_name = "TOPIC")]
    pub topic: Option<String>,
    /// Send each line of the files as a record
    #[arg(short, long)]
    pub lines: bool,
    /// Send this text as a record instead of reading input; may be repeated
    #[arg(long, allow_hyphen_values = true, value_name = "TEXT",
          conflicts_with_all = ["lines", "key_delim", "format", "json"])]
    pub value: Vec<String>,
    /// Delimiter between records: \n, \t, \0, \xNN
    #[arg(short = 'D', long, default_value = "\\n", value_parser = Delimiter::parse,
          value_name = "TEXT", allow_hyphen_values = true)]
    pub delim: Delimiter,
    /// Split each record into key and value at the first of these
    #[arg(short = 'K', long, value_parser = Delimiter::parse, value_name = "TEXT",
          allow_hyphen_values = true)]
    pub key_delim: Option<Delimiter>,
    /// Key for records that have none
    #[arg(short, long, value_name = "TEXT", allow_hyphen_values = true)]
    pub key: Option<String>,
    /// Partition [default: chosen by the key]
    #[arg(short, long, value_name = "N")]
    pub partition: Option<i32>,
    /// Header of every record; NAME= is empty, NAME alone is null
    #[arg(short = 'H', long, value_parser = parse::header, value_name = "NAME=VALUE")]
    pub header: Vec<(String, Option<String>)>,
    /// Compression codec: none, gzip, snappy, lz4, zstd [default: lz4]
    #[arg(short = 'z', long, value_name = "CODEC")]
    pub compression: Option<Compression>,
    /// Acknowledge after all in-sync replicas, the leader, or not at all: all, leader, none [default: all]
    #[arg(short, long, allow_hyphen_values = true, value_name = "WHEN")]
    pub acks: Option<Acks>,
    /// Send null instead of an empty value
    #[arg(short = 'Z', long)]
    pub null_empty: bool,
    /// Stop after N records
    #[arg(short, long, short_alias = 'n', value_name = "N")]
    pub count: Option<u64>,
    /// Input format, such as '%k %v\n'; json is the same as -J
    #[arg(short, long, conflicts_with_all = ["json", "key_delim"], value_name = "FORMAT")]
    pub format: Option<String>,
    /// Read JSON lines, as printed by `varve consume -J`
    #[arg(short = 'J', long, conflicts_with = "key_delim")]
    pub json: bool,
    /// Copy the input to standard output
    #[arg(short = 'T', long, conflicts_with = "output_format")]
    pub tee: bool,
    /// Print this for every acknowledged record, such as '%t[%p]@%o\n'
    #[arg(short = 'O', long, value_name = "FORMAT")]
    pub output_format: Option<String>,
    /// How long a batch waits for more records
    #[arg(long, value_parser = parse_duration, value_name = "TIME")]
    pub linger: Option<Duration>,
    /// Largest batch before compression
    #[arg(long, value_parser = size, value_name = "BYTES")]
    pub batch_size: Option<usize>,
    /// Give up on a record after this long without an acknowledgement
    #[arg(long, value_parser = parse_duration, value_name = "TIME")]
    pub delivery_timeout: Option<Duration>,
    /// Detect and drop duplicates caused by retries (the default)
    #[arg(long, overrides_with = "no_idempotent")]
    pub idempotent: bool,
    /// Do not detect duplicates caused by retries
    #[arg(long)]
    pub no_idempotent: bool,
    /// Producer name; a newer producer with this name fences this one
    #[arg(long, default_value = "", value_name = "NAME")]
    pub producer_name: String,
    /// Write everything in one transaction; a newer producer with this id fences this one
    #[arg(long, conflicts_with_all = ["no_idempotent", "producer_name"], value_name = "ID")]
    pub transactional_id: Option<String>,
    /// Commit a transaction after every N records, and at the end
    #[arg(long, requires = "transactional_id", value_parser = clap::value_parser!(u64).range(1..),
          value_name = "N")]
    pub transaction_records: Option<u64>,
    /// Timestamp of the records: RFC 3339, a date, or a time before now such as -1h
    #[arg(
        long,
        conflicts_with = "timestamp",
        allow_hyphen_values = true,
        value_name = "TIME"
    )]
    pub at: Option<String>,
    /// Timestamp of the records in milliseconds since 1970
    #[arg(long, value_name = "MS")]
    pub timestamp: Option<i64>,
}

/// A delimiter of at least one byte.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delimiter(pub Vec<u8>);

impl Delimiter {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        parse::delimiter(text).map(Self)
    }
}
