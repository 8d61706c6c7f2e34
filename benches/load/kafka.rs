//! The listener of the Kafka protocol beside our own, on the same server: librdkafka's performance tool on one side,
//! our client library on the other, in turn, and what each costs the server.
//!
//! Every side of a round that produces has a server and files of its own, and which goes first changes with every
//! round: a disk that slows down as it fills hits all. All send the same records in batches of the same size, with
//! every acknowledgement flushed. Ours is idempotent, with five batches of each partition in flight; the tool is
//! measured without idempotence, as it is by itself, and with: then it has five requests of one batch each in flight in
//! all.
//!
//! Readers read one log of whole batches, once to warm the cache and once for the figure. The tool decodes every
//! record; our client is measured as it hands out batches and as it hands out records. All end with the last record:
//! the tool's `-e` would end half a second later, when a request that found nothing more has been held as long as it
//! allows (`fetch.wait.max.ms`). The tool is measured with a queue that has room for all, and as it is by itself: then
//! it asks for nothing for up to a second (`fetch.queue.backoff.ms`) whenever 64 MiB wait there. What the listener
//! gives to a reader that does nothing with the records is measured beside it: one connection, one request at a time,
//! as clients of the field ask.
//!
//! Bytes are bytes of values.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use bytes::BytesMut;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use varve_client::{Assignment, Client, ClientConfig, Consumer, ConsumerConfig, End, Start};
use varve_frontend_kafka::wire::generated::fetch::{FetchPartition, FetchRequest, FetchTopic};
use varve_frontend_kafka::wire::{
    ApiKey, FrameReader, Request, Response, Text, decode_response, encode_request,
};
use varve_record::iter_batches;
use varve_types::TopicName;
use varve_types::size::parse_bytes;

use crate::report::{Asked, Output, Row, print};
use crate::server::{Server, free_port};
use crate::{Load, drive};

const TOPIC: &str = "load";
const PARTITIONS: i32 = 8;
/// So that the tool need not stop asking because of what it has not yet given out.
const ROOM: &[&str] = &[
    "-X",
    "queued.max.messages.kbytes=2097151",
    "-X",
    "queued.min.messages=10000000",
];

/// How to measure.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// The tool: `rdkafka_performance`, built from librdkafka's `examples/`.
    #[arg(long, default_value = "rdkafka_performance")]
    tool: PathBuf,
    /// Rounds; figures are medians, shares medians of the ratios of the rounds.
    #[arg(long, default_value_t = 6)]
    rounds: usize,
    /// Bytes of values that a side sends, and that are read.
    #[arg(long, default_value = "2GiB", value_parser = parse_bytes)]
    bytes: u64,
    /// Bytes of one record's value.
    #[arg(long, default_value_t = 1024)]
    record_bytes: usize,
    /// Bytes of one batch; the tool's own default is 1,000,000.
    #[arg(long, value_delimiter = ',', default_value = "256KiB,1000000", value_parser = parse_bytes)]
    batch_bytes: Vec<u64>,
    /// Only reads are measured.
    #[arg(long)]
    fetch_only: bool,
}

/// What one side did.
#[derive(Debug, Clone, Copy)]
struct Done {
    bytes: u64,
    took: Duration,
    /// Of the server.
    cpu: Duration,
}

impl Done {
    fn mb_per_second(&self) -> f64 {
        self.bytes as f64 / self.took.as_secs_f64() / 1e6
    }

    fn cpu_per_gb(&self) -> f64 {
        self.cpu.as_secs_f64() / (self.bytes as f64 / 1e9)
    }
}

/// Rate and cost of one side.
struct Side {
    rate: Row,
    cpu: Row,
}

impl Side {
    fn new(what: &str) -> Self {
        Self {
            rate: Row::new(what, "MB/s", Asked::Nothing),
            cpu: Row::new(format!("{what}: CPU of the server"), "s/GB", Asked::Nothing),
        }
    }

    fn push(&mut self, done: Done) {
        self.rate.push(done.mb_per_second());
        self.cpu.push(done.cpu_per_gb());
    }
}

/// Measures and prints.
pub async fn run(dir: &Path, args: &Args, output: Output) -> Result<()> {
    let mut rows = match args.fetch_only {
        true => Vec::new(),
        false => produce(dir, args).await?,
    };
    rows.extend(fetch(dir, args).await?);
    print(&rows, output);
    Ok(())
}

/// One side of a round that produces.
#[derive(Debug, Clone, Copy)]
struct Produces {
    by_kafka: bool,
    idempotent: bool,
    batch_bytes: u64,
}

async fn produce(dir: &Path, args: &Args) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for batch_bytes in args.batch_bytes.iter().copied() {
        let side = |by_kafka, idempotent| Produces {
            by_kafka,
            idempotent,
            batch_bytes,
        };
        let sides = [side(false, true), side(true, false), side(true, true)];
        rows.extend(compare(dir, args, sides).await?);
    }
    Ok(rows)
}

/// Our client, and the tool without and with idempotence, with batches of one size.
async fn compare(dir: &Path, args: &Args, sides: [Produces; 3]) -> Result<Vec<Row>> {
    let kib = sides[0].batch_bytes / 1024;
    let what = |text: &str| format!("produce, {kib} KiB, {text}");
    let mut own = Side::new(&what("gRPC"));
    let mut plain = Side::new(&what("Kafka"));
    let mut idempotent = Side::new(&what("Kafka, idempotent"));
    let mut share = Row::new(what("Kafka to gRPC"), "", Asked::AtLeast(0.9));
    let other = what("Kafka, idempotent, to gRPC");
    let mut idempotent_share = Row::new(other, "", Asked::Nothing);
    for round in 0..args.rounds {
        let mut done = [None; 3];
        for at in 0..sides.len() {
            // Another one goes first each time.
            let at = (at + round) % sides.len();
            done[at] = Some(produce_side(dir, args, sides[at]).await?);
        }
        let [Some(a), Some(b), Some(c)] = done else {
            bail!("a side was left out");
        };
        let ratio = |side: Done| side.mb_per_second() / a.mb_per_second();
        eprintln!(
            "{kib} KiB, round {} of {}: gRPC {:.0} MB/s, {:.2} s/GB; Kafka {:.0} MB/s, {:.2} s/GB, {:.2}; idempotent {:.0} MB/s, {:.2} s/GB, {:.2}",
            round + 1,
            args.rounds,
            a.mb_per_second(),
            a.cpu_per_gb(),
            b.mb_per_second(),
            b.cpu_per_gb(),
            ratio(b),
            c.mb_per_second(),
            c.cpu_per_gb(),
            ratio(c),
        );
        share.push(ratio(b));
        idempotent_share.push(ratio(c));
        own.push(a);
        plain.push(b);
        idempotent.push(c);
    }
    let rates = [
        own.rate,
        plain.rate,
        idempotent.rate,
        share,
        idempotent_share,
    ];
    Ok(rates
        .into_iter()
        .chain([own.cpu, plain.cpu, idempotent.cpu])
        .collect())
}

async fn produce_side(dir: &Path, args: &Args, side: Produces) -> Result<Done> {
    let data = tempfile::tempdir_in(dir)?;
    rustix::fs::sync();
    let bed = Bed::start(data.path()).await?;
    let load = bed.load(args, side.batch_bytes);
    // There before it counts.
    drive::ensure_topic(&load).await?;
    if !side.by_kafka {
        return bed
            .measure(async || {
                let outcome = drive::produce(&load).await?;
                Ok((outcome.bytes, outcome.took))
            })
            .await;
    }
    let records = args.bytes / args.record_bytes as u64;
    let batch = format!("batch.size={}", side.batch_bytes);
    let idempotence = format!("enable.idempotence={}", side.idempotent);
    bed.measure(async || {
        let (size, count) = (args.record_bytes.to_string(), records.to_string());
        let sends = ["-P", "-t", TOPIC, "-s", &size, "-c", &count, "-a", "all"];
        let batches = ["-X", "linger.ms=5", "-X", &batch, "-X", &idempotence];
        let line = bed.tool(args, &[&sends[..], &batches[..]].concat()).await?;
        let delivered: u64 = before(&line, " delivered")?;
        ensure!(
            delivered == records,
            "{delivered} of {records} were delivered: {line}"
        );
        Ok((delivered * args.record_bytes as u64, milliseconds(&line)?))
    })
    .await
}

async fn fetch(dir: &Path, args: &Args) -> Result<Vec<Row>> {
    let data = tempfile::tempdir_in(dir)?;
    let bed = Bed::start(data.path()).await?;
    let load = bed.load(args, 256 * 1024);
    drive::produce(&load).await?;
    let mut batches = Side::new("fetch, gRPC, batches");
    let mut records = Side::new("fetch, gRPC, records");
    let mut kafka = Side::new("fetch, Kafka, records");
    let mut pausing = Side::new("fetch, Kafka, records, the tool by itself");
    let mut lean = Side::new("fetch, Kafka, batches");
    let lean_to_batches = "fetch, Kafka to gRPC, both to batches";
    let mut lean_to_batches = Row::new(lean_to_batches, "", Asked::AtLeast(1.0));
    let to_records = "fetch, Kafka to gRPC, both to records";
    let mut to_records = Row::new(to_records, "", Asked::AtLeast(1.0));
    let pausing_to_records = "fetch, Kafka to gRPC, both to records, the tool by itself";
    let mut pausing_to_records = Row::new(pausing_to_records, "", Asked::Nothing);
    let mut to_batches = Row::new(
        "fetch, Kafka with records to gRPC with batches",
        "",
        Asked::Nothing,
    );
    read_own(&bed, args, false).await?;
    for round in 0..args.rounds {
        let mut done = [None; 5];
        for at in 0..done.len() {
            // Another one goes first each time.
            let at = (at + round) % done.len();
            done[at] = Some(match at {
                0 => read_own(&bed, args, false).await?,
                1 => read_own(&bed, args, true).await?,
                2 => read_kafka(&bed, args, &format!("room-{round}"), ROOM).await?,
                3 => read_lean(&bed, args).await?,
                _ => read_kafka(&bed, args, &format!("by-itself-{round}"), &[]).await?,
            });
        }
        let [Some(a), Some(b), Some(c), Some(d), Some(e)] = done else {
            bail!("a side was left out");
        };
        eprintln!(
            "fetch, round {} of {}: gRPC {:.0} MB/s, {:.2} s/GB; its records {:.0} MB/s, {:.2} s/GB; Kafka {:.0} MB/s, {:.2} s/GB; its batches {:.0} MB/s, {:.2} s/GB; the tool by itself {:.0} MB/s",
            round + 1,
            args.rounds,
            a.mb_per_second(),
            a.cpu_per_gb(),
            b.mb_per_second(),
            b.cpu_per_gb(),
            c.mb_per_second(),
            c.cpu_per_gb(),
            d.mb_per_second(),
            d.cpu_per_gb(),
            e.mb_per_second(),
        );
        pausing_to_records.push(e.mb_per_second() / b.mb_per_second());
        pausing.push(e);
        lean_to_batches.push(d.mb_per_second() / a.mb_per_second());
        lean.push(d);
        to_batches.push(c.mb_per_second() / a.mb_per_second());
        to_records.push(c.mb_per_second() / b.mb_per_second());
        batches.push(a);
        records.push(b);
        kafka.push(c);
    }
    Ok(vec![
        batches.rate,
        records.rate,
        kafka.rate,
        pausing.rate,
        lean.rate,
        to_records,
        pausing_to_records,
        lean_to_batches,
        to_batches,
        batches.cpu,
        records.cpu,
        kafka.cpu,
        pausing.cpu,
        lean.cpu,
    ])
}

/// Reads all through our client, as batches or as records.
async fn read_own(bed: &Bed, args: &Args, as_records: bool) -> Result<Done> {
    bed.measure(async || {
        let topic: TopicName = TOPIC.parse()?;
        let all = |partition| Assignment {
            topic: TopicName::clone(&topic),
            partition,
            start: Start::Earliest,
            end: End::CurrentEnd,
        };
        let client = Client::new(ClientConfig {
            brokers: vec![bed.server.address.clone()],
            ..ClientConfig::default()
        })?;
        let assignments = (0..PARTITIONS).map(all).collect();
        let mut consumer = Consumer::open(client, ConsumerConfig::default(), assignments).await?;
        let (mut read, mut bytes) = (0, 0);
        // As the tool counts: from the first that arrives.
        let mut started = None;
        while let Some(batch) = consumer.next_batch().await? {
            started.get_or_insert_with(Instant::now);
            if as_records {
                for record in batch.records()? {
                    bytes += record?.value.map_or(0, |value| value.len() as u64);
                    read += 1;
                }
            } else {
                let count = u64::from(batch.batch.header.record_count.unsigned_abs());
                bytes += count * args.record_bytes as u64;
                read += count;
            }
        }
        let wanted = args.bytes / args.record_bytes as u64;
        ensure!(read == wanted, "{read} of {wanted} records were read");
        let started = started.context("nothing was read")?;
        Ok((bytes, started.elapsed()))
    })
    .await
}

/// Reads all with the tool, as a group of one that begins at the beginning.
async fn read_kafka(bed: &Bed, args: &Args, group: &str, more: &[&str]) -> Result<Done> {
    let wanted = args.bytes / args.record_bytes as u64;
    let count = wanted.to_string();
    bed.measure(async || {
        let reads = [
            "-G",
            group,
            "-t",
            TOPIC,
            "-c",
            &count,
            "-o",
            "beginning",
            "-X",
            "auto.offset.reset=earliest",
            "-X",
            "enable.auto.commit=false",
        ];
        let line = bed.tool(args, &[&reads[..], more].concat()).await?;
        let read: u64 = before(&line, " messages")?;
        ensure!(
            read == wanted,
            "{read} of {wanted} records were read: {line}"
        );
        Ok((read * args.record_bytes as u64, milliseconds(&line)?))
    })
    .await
}

/// Reads all as a client does that wants no records: the next request follows the whole answer.
async fn read_lean(bed: &Bed, args: &Args) -> Result<Done> {
    const VERSION: i16 = 11;
    const PART_BYTES: i32 = 1 << 20;
    let wanted = args.bytes / args.record_bytes as u64;
    bed.measure(async || {
        let mut stream = TcpStream::connect(&bed.kafka).await?;
        stream.set_nodelay(true)?;
        let (reader, mut buffer) = (FrameReader::new(64 << 20), BytesMut::new());
        let mut offsets = vec![0_i64; usize::try_from(PARTITIONS)?];
        let (mut read, mut started) = (0, None);
        while read < wanted {
            let partitions = (0..)
                .zip(&offsets)
                .map(|(partition, offset)| FetchPartition {
                    partition,
                    fetch_offset: *offset,
                    partition_max_bytes: PART_BYTES,
                    ..FetchPartition::default()
                });
            let request = FetchRequest {
                max_wait_ms: 500,
                min_bytes: 1,
                max_bytes: 50 << 20,
                topics: vec![FetchTopic {
                    topic: Text::from_static(TOPIC),
                    partitions: partitions.collect(),
                    ..FetchTopic::default()
                }],
                ..FetchRequest::default()
            };
            let frame = encode_request(1, None, VERSION, &Request::Fetch(request))?;
            stream.write_all(&frame.into_bytes()).await?;
            let frame = loop {
                if let Some(frame) = reader.next(&mut buffer)? {
                    break frame;
                }
                ensure!(
                    stream.read_buf(&mut buffer).await? > 0,
                    "the server has gone"
                );
            };
            started.get_or_insert_with(Instant::now);
            let (_, Response::Fetch(answer)) = decode_response(ApiKey::Fetch, VERSION, frame)?
            else {
                bail!("the answer is none of a fetch");
            };
            let parts = answer.responses.into_iter().flat_map(|t| t.partitions);
            for part in parts {
                ensure!(part.error_code == 0, "error {}", part.error_code);
                for batch in iter_batches(part.records.unwrap_or_default()) {
                    let header = batch?.header;
                    read += u64::from(header.record_count.unsigned_abs());
                    offsets[usize::try_from(part.partition_index)?] = header.next_offset().get();
                }
            }
        }
        ensure!(read == wanted, "{read} of {wanted} records were read");
        let started = started.context("nothing was read")?;
        Ok((read * args.record_bytes as u64, started.elapsed()))
    })
    .await
}

/// A server with both listeners.
struct Bed {
    server: Server,
    kafka: String,
}

impl Bed {
    async fn start(dir: &Path) -> Result<Self> {
        let kafka = format!("127.0.0.1:{}", free_port()?);
        let env = [
            ("VARVE_LISTENERS__KAFKA__ADDRESS", kafka.clone()),
            ("VARVE_LISTENERS__KAFKA__TLS__MODE", "insecure".to_owned()),
        ];
        let mut server = Server::launch(dir, &env)?;
        server.wait_ready()?;
        Ok(Self { server, kafka })
    }

    fn load(&self, args: &Args, batch_bytes: u64) -> Load {
        Load {
            brokers: self.server.address.clone(),
            topic: TOPIC.to_owned(),
            partitions: PARTITIONS,
            record_bytes: args.record_bytes,
            batch_bytes,
            bytes: args.bytes,
            clients: 1,
            rate: None,
            count: 0,
        }
    }

    async fn measure(&self, work: impl AsyncFnOnce() -> Result<(u64, Duration)>) -> Result<Done> {
        let before = self.server.cpu()?;
        let (bytes, took) = work().await?;
        let cpu = self.server.cpu()?.saturating_sub(before);
        Ok(Done { bytes, took, cpu })
    }

    /// Runs the tool to its end; its summary.
    async fn tool(&self, args: &Args, more: &[&str]) -> Result<String> {
        let mut command = Command::new(&args.tool);
        // Quiet but for the summary.
        command.args(["-b", &self.kafka, "-q"]).args(more);
        command.stdin(Stdio::null()).stderr(Stdio::piped());
        let what = format!("run {}", args.tool.display());
        let ran = tokio::task::spawn_blocking(move || command.output());
        let ran = ran.await?.context(what)?;
        let text = String::from_utf8_lossy(&ran.stdout);
        let told = String::from_utf8_lossy(&ran.stderr);
        ensure!(
            ran.status.success(),
            "the tool ended with {}: {told}",
            ran.status
        );
        let summary = text.lines().rfind(|line| line.contains(" messages"));
        let summary = summary.with_context(|| format!("no summary: {text} {told}"))?;
        Ok(summary.to_owned())
    }
}

/// The number right before `what`.
fn before(line: &str, what: &str) -> Result<u64> {
    let (head, _) = line
        .split_once(what)
        .with_context(|| format!("no {what:?}: {line}"))?;
    let number = head.rsplit([' ', '(']).next().unwrap_or_default();
    number
        .parse()
        .with_context(|| format!("no number before {what:?}: {line}"))
}

/// The time that the tool itself took it to be: from the first record to the last.
fn milliseconds(line: &str) -> Result<Duration> {
    let (_, rest) = line
        .split_once(" in ")
        .with_context(|| format!("no time: {line}"))?;
    let (number, _) = rest
        .split_once("ms")
        .with_context(|| format!("no time: {line}"))?;
    Ok(Duration::from_millis(number.trim().parse()?))
}
