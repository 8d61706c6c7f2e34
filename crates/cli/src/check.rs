//! `varve check run`: a workload on a live cluster and the verdict of the independent checker on what its clients
//! saw. `varve check history`: the verdict on a recorded history.
//!
//! Exit codes: 0 valid, 4 something forbidden happened, 1 when the history shows too little for a verdict.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use varve_check::{Checker, Header, Outcome, Required, Verdict, read_history};
use varve_client::{Admin, proto as v1};
use varve_types::size::parse_duration;
use varve_workload::{Config, Recorder, Workload, create_topic, finish};

use crate::args::{Global, OutputArgs};
use crate::connection::Settings;
use crate::failure::{CONDITION, FAILED, Failure};
use crate::interrupt::Interrupts;
use crate::output::{Output, print_value};
use crate::parse;
use crate::probe::HealthArgs;
use crate::probe_cluster::{LagArgs, ReplicationArgs};

/// How often a run prints its progress.
const TELL_EVERY: Duration = Duration::from_secs(5);

/// Commands that probe a node or test a cluster.
#[derive(Debug, Subcommand)]
pub enum CheckCommand {
    /// Test a live cluster: produce and consume on a new topic, and judge the result
    ///
    /// Exit code 0: the cluster kept its guarantees. 4: it broke one. 1: too little was seen for a verdict.
    #[command(after_long_help = "Examples:\n  varve check run -d 30s\n\
                           \x20 varve check run -r 3 --min-insync 2 --history run.jsonl")]
    Run(Box<RunArgs>),
    /// Ask one node whether it is up
    ///
    /// Exit code 0: it is. 4: it is not. 1 or 5: it does not answer.
    #[command(
        after_long_help = "Examples:\n  varve check health --live\n  varve check health -b log1:8278\n\
                           \x20 varve check health \
                           --http log1:8277"
    )]
    Health(HealthArgs),
    /// Show the lag of a group, and fail if it is too large
    ///
    /// Without a bound it prints the lag of each partition. With --max or --max-age it prints the partitions that are
    /// further behind and exits with code 4 if there are any.
    #[command(
        after_long_help = "Examples:\n  varve check lag billing\n  varve check lag billing --max 1000 --max-age 5m"
    )]
    Lag(LagArgs),
    /// Check that every partition has a leader and that all replicas are in sync
    ///
    /// Exit code 0: all have. 4: one has not, or a node is offline.
    #[command(
        after_long_help = "Examples:\n  varve check replication\n  varve check replication -o json"
    )]
    Replication(ReplicationArgs),
    /// Judge a history that `check run --history` has written
    #[command(
        after_long_help = "Examples:\n  varve check history run.jsonl\n  varve check history run.jsonl -o json"
    )]
    History {
        /// History file
        file: PathBuf,
        /// Output format.
        #[command(flatten)]
        form: OutputArgs,
    },
}

/// Flags of `check run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// How long to produce and consume
    #[arg(short, long, value_parser = parse_duration, default_value = "60s", value_name = "TIME")]
    duration: Duration,
    /// Topic to create [default: varve-check-SEED]
    #[arg(short, long, value_name = "TOPIC")]
    topic: Option<String>,
    /// Keep the topic at the end; it is always kept if a guarantee was broken
    #[arg(long)]
    keep_topic: bool,
    /// Number of partitions
    #[arg(short, long, default_value_t = 4, value_name = "N",
          value_parser = clap::value_parser!(i32).range(1..=1000))]
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
    /// min.insync.replicas of the topic [default: the cluster's]
    #[arg(long, value_name = "N")]
    min_insync: Option<u32>,
    /// Configuration of the topic; may be repeated
    #[arg(short = 'c', long = "config", value_parser = parse::pair, value_name = "KEY=VALUE")]
    configs: Vec<(String, String)>,
    /// Number of idempotent producers
    #[arg(long, default_value_t = 4, value_name = "N")]
    producers: u32,
    /// Number of producers without idempotence; half of them use acks=leader
    #[arg(long, default_value_t = 2, value_name = "N")]
    plain_producers: u32,
    /// Number of consumers; each reads all partitions
    #[arg(long, default_value_t = 3, value_name = "N")]
    consumers: u32,
    /// Records per second of all producers together
    #[arg(long, default_value_t = 500, value_name = "N",
          value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    rate: u32,
    /// Size of the largest record in bytes
    #[arg(long, default_value_t = 1000, value_name = "BYTES",
          value_parser = clap::value_parser!(u64).range(1..=900_000))]
    record_size: u64,
    /// Give up on a record after this time without an acknowledgement
    #[arg(long, value_parser = parse_duration, default_value = "20s", value_name = "TIME")]
    delivery_timeout: Duration,
    /// Time for the final read of all records
    #[arg(long, value_parser = parse_duration, default_value = "120s", value_name = "TIME")]
    final_timeout: Duration,
    /// Seed of the random choices [default: random]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Write the history to this file, as JSON lines
    #[arg(long, value_name = "FILE")]
    history: Option<PathBuf>,
    /// Output format.
    #[command(flatten)]
    form: OutputArgs,
}

/// Judges a recorded history; needs no cluster.
///
/// # Errors
/// [`Failure`] when the file cannot be read.
pub fn history(file: &Path, output: Output) -> Result<u8, Failure> {
    let named = |error: String| Failure::new(FAILED, format!("{}: {error}", file.display()));
    let open = File::open(file).map_err(|error| named(error.to_string()))?;
    let mut checker = Checker::new();
    let read = read_history(BufReader::new(open), |line, event| {
        checker.event(line, event)
    });
    let header = read.map_err(|error| named(error.to_string()))?;
    print(output, &header, &checker.verdict(&Required::default()))
}

/// Runs a workload.
///
/// # Errors
/// [`Failure`] when the topic cannot be created, or the history cannot be written.
pub async fn run(global: &Global, args: &RunArgs) -> Result<u8, Failure> {
    let settings = Settings::resolve(global)?;
    let seed = args.seed.unwrap_or_else(seed_of_now);
    let config = config(args, &settings, seed)?;
    let admin = Admin::new(config.client(0)?);
    let mut topic_configs: BTreeMap<String, String> = args.configs.iter().cloned().collect();
    if let Some(least) = args.min_insync {
        topic_configs.insert("min.insync.replicas".to_owned(), least.to_string());
    }
    create_topic(&config, args.replicas, &topic_configs).await?;
    let header = Header::new(config.topic.as_str(), config.partitions, seed);
    let recorder = Arc::new(Recorder::new(&header, file(args.history.as_deref())?)?);
    let say = |text: &str| {
        if !global.quiet {
            let _ = writeln!(std::io::stderr(), "{text}");
        }
    };
    say(&format!(
        "topic {}, seed {seed}: producing and consuming for {:?}, then reading all records once more",
        config.topic, args.duration
    ));
    let workload = Workload::start(config.clone(), recorder.clone())?;
    let interrupts = Interrupts::listen("interrupted twice; no verdict");
    let end = Instant::now() + args.duration;
    while Instant::now() < end {
        let pause = TELL_EVERY.min(end.saturating_duration_since(Instant::now()));
        let stopped = tokio::select! {
            () = tokio::time::sleep(pause) => false,
            () = interrupts.clone().first() => true,
        };
        say(&progress(&recorder));
        if stopped {
            break;
        }
    }
    for behind in workload.stop().await {
        say(&behind);
    }
    say("reading all records");
    finish(&config, &recorder, args.final_timeout).await?;
    let verdict = recorder.verdict(&Required::default())?;
    if !args.keep_topic && verdict.outcome == Outcome::Valid {
        let request = v1::DeleteTopicRequest {
            topic: config.topic.to_string(),
            ..Default::default()
        };
        if let Err(error) = admin.delete_topic(request).await {
            say(&format!(
                "topic {} could not be deleted: {error}",
                config.topic
            ));
        }
    }
    print(args.form.output, &header, &verdict)
}

fn config(args: &RunArgs, settings: &Settings, seed: u64) -> Result<Config, Failure> {
    let name = args.topic.clone();
    let name = name.unwrap_or_else(|| format!("varve-check-{seed:x}"));
    let topic = name
        .parse()
        .map_err(|error| Failure::usage(format!("topic {name:?}: {error}")))?;
    let brokers = settings.text("brokers").split(',').map(str::trim);
    let brokers = brokers.filter(|b| !b.is_empty()).map(str::to_owned);
    let config = Config::new(brokers.collect(), topic, args.partitions, seed);
    Ok(Config {
        tls: settings.tls()?,
        // Two runs of one seed are not one run.
        run: seed_of_now(),
        producers: args.producers,
        plain_producers: args.plain_producers,
        consumers: args.consumers,
        rate: args.rate,
        record_bytes: args.record_size,
        delivery_timeout: args.delivery_timeout,
        ..config
    })
}

fn seed_of_now() -> u64 {
    uuid::Uuid::new_v4().as_u64_pair().0 >> 16
}

fn file(path: Option<&Path>) -> Result<Option<Box<dyn Write + Send>>, Failure> {
    let Some(path) = path else { return Ok(None) };
    let created = File::create(path);
    let file =
        created.map_err(|error| Failure::new(FAILED, format!("{}: {error}", path.display())))?;
    Ok(Some(Box::new(BufWriter::new(file))))
}

fn progress(recorder: &Recorder) -> String {
    let p = recorder.progress();
    format!(
        "{} s: {} sent, {} acknowledged, {} failed, {} unknown, {} read",
        recorder.ns() / 1_000_000_000,
        p.sends,
        p.ok,
        p.failed,
        p.unknown,
        p.read
    )
}

fn print(output: Output, header: &Header, verdict: &Verdict) -> Result<u8, Failure> {
    if output.is_text() {
        crate::output::write_out(verdict.text().as_bytes())?;
    } else {
        let json = |error: serde_json::Error| Failure::new(FAILED, error.to_string());
        let value = serde_json::json!({
            "history": serde_json::to_value(header).map_err(json)?,
            "verdict": serde_json::to_value(verdict).map_err(json)?,
        });
        print_value(output, &value)?;
    }
    Ok(match verdict.outcome {
        Outcome::Valid => 0,
        Outcome::Invalid => CONDITION,
        Outcome::Unknown => FAILED,
    })
}
