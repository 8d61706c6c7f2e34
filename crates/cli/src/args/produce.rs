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
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        parse::delimiter(text).map(Self)
    }
}
