//! What transactions cost: the same records through an idempotent producer and through transactional ones that
//! commit every so often, in turn, each against servers and files of its own.
//!
//! A side sends for the same time. What counts is what was acknowledged, or committed, by the time that took: the wait
//! for the last answer is in it. A transaction is as old as it is asked to be when its commit is called; what the
//! commit takes comes on top.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use hdrhistogram::Histogram;
use varve_benches::stats;
use varve_client::proto::CreateTopicRequest;
use varve_client::{
    Admin, Client, ClientConfig, Producer, ProducerConfig, RecordRef, TransactionalConfig,
    TransactionalProducer,
};
use varve_types::TopicName;
use varve_types::size::parse_bytes;

use crate::cluster::Cluster;
use crate::report::{Asked, Output, Row, print};
use crate::server::Server;

const TOPIC: &str = "transactions";
/// Time under load before anything counts: connections, sessions and the internal topic are there then.
const WARM: Duration = Duration::from_millis(500);

/// How to measure.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Rounds; figures are medians, shares medians of the ratios of the rounds.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds a round and side.
    #[arg(long, default_value_t = 4)]
    seconds: u64,
    /// Ages at which transactions are committed, milliseconds.
    #[arg(long, value_delimiter = ',', default_value = "10,100,1000")]
    transaction_ms: Vec<u64>,
    /// Nodes; three have three replicas of everything.
    #[arg(long, value_delimiter = ',', default_value = "1")]
    nodes: Vec<usize>,
    /// Partitions; every transaction writes to each that it gets to.
    #[arg(long, default_value_t = 8)]
    partitions: i32,
    /// Bytes of one record's value.
    #[arg(long, default_value_t = 1024)]
    record_bytes: usize,
    /// Bytes of one batch.
    #[arg(long, default_value = "256KiB", value_parser = parse_bytes)]
    batch_bytes: u64,
    /// Bytes that a producer may have unsettled.
    #[arg(long, default_value = "64MiB", value_parser = parse_bytes)]
    buffer_bytes: u64,
}

/// Measures and prints.
pub async fn run(dir: &Path, args: &Args, output: Output) -> Result<()> {
    let mut rows = Vec::new();
    for nodes in args.nodes.iter().copied() {
        ensure!(nodes == 1 || nodes == 3, "--nodes is 1 or 3");
        rows.extend(compare(dir, args, nodes).await?);
    }
    print(&rows, output);
    Ok(())
}

/// One node alone, or three that are a cluster.
enum Servers {
    One(Server),
    Three(Cluster),
}

impl Servers {
    async fn start(dir: &Path, nodes: usize, partitions: i32) -> Result<Self> {
        rustix::fs::sync();
        if nodes == 1 {
            let (server, _) = Server::start_ready(dir)?;
            let one = Self::One(server);
            let request = CreateTopicRequest {
                topic: TOPIC.to_owned(),
                partition_count: partitions,
                ..CreateTopicRequest::default()
            };
            let created = Admin::new(one.client()?).create_topic(request).await;
            created.context("create the topic")?;
            return Ok(one);
        }
        let cluster = Cluster::start(dir, nodes, &[]).await?;
        cluster.topic(TOPIC, partitions).await?;
        Ok(Self::Three(cluster))
    }

    fn client(&self) -> Result<Client> {
        let brokers = match self {
            Self::One(server) => vec![server.address.clone()],
            Self::Three(cluster) => cluster.all_brokers(),
        };
        Ok(Client::new(ClientConfig {
            brokers,
            ..ClientConfig::default()
        })?)
    }

    /// CPU time of all so far.
    fn cpu(&self) -> Result<Duration> {
        match self {
            Self::One(server) => server.cpu(),
            Self::Three(cluster) => cluster.nodes().values().map(Server::cpu).sum(),
        }
    }
}

/// What one side did.
struct Done {
    bytes: u64,
    took: Duration,
    /// Of the servers.
    cpu: Duration,
    /// How long commits took; empty without transactions.
    commits: Histogram<u64>,
}

impl Done {
    fn bytes_per_second(&self) -> f64 {
        self.bytes as f64 / self.took.as_secs_f64()
    }

    fn cpu_per_gb(&self) -> f64 {
        self.cpu.as_secs_f64() / (self.bytes as f64 / 1e9)
    }
}

/// The rows of one age of transactions.
struct Figures {
    age: Duration,
    rate: Row,
    share: Row,
    commit: Row,
    slowest: Row,
    cpu: Row,
}

impl Figures {
    fn new(nodes: &str, age: Duration) -> Self {
        let ms = age.as_millis();
        let what = |text: &str| format!("{nodes}, transactions of {ms} ms: {text}");
        let asked = match ms {
            100 => Asked::AtLeast(0.8),
            _ => Asked::Nothing,
        };
        Self {
            age,
            rate: Row::new(what("committed"), "MB/s", Asked::Nothing),
            share: Row::new(what("share of the idempotent producer"), "", asked),
            commit: Row::new(what("median commit"), "ms", Asked::Nothing),
            slowest: Row::new(what("slowest commit"), "ms", Asked::Nothing),
            cpu: Row::new(what("CPU of the servers"), "s/GB", Asked::Nothing),
        }
    }

    fn push(&mut self, done: &Done, plain: f64) {
        self.rate.push(done.bytes_per_second() / 1e6);
        self.share.push(done.bytes_per_second() / plain);
        let commits = &done.commits;
        self.commit
            .push(commits.value_at_quantile(0.5) as f64 / 1e6);
        self.slowest.push(commits.max() as f64 / 1e6);
        self.cpu.push(done.cpu_per_gb());
    }

    fn rows(self) -> [Row; 5] {
        [self.rate, self.share, self.commit, self.slowest, self.cpu]
    }
}

async fn compare(dir: &Path, args: &Args, nodes: usize) -> Result<Vec<Row>> {
    let name = match nodes {
        1 => "one node".to_owned(),
        _ => format!("{nodes} nodes, {nodes} replicas"),
    };
    let mut plain = Row::new(format!("{name}, idempotent"), "MB/s", Asked::Nothing);
    let cpu = format!("{name}, idempotent: CPU of the servers");
    let mut plain_cpu = Row::new(cpu, "s/GB", Asked::Nothing);
    let ages = args
        .transaction_ms
        .iter()
        .copied()
        .map(Duration::from_millis);
    let mut figures: Vec<Figures> = ages.map(|age| Figures::new(&name, age)).collect();
    for round in 0..args.rounds {
        let done = side(dir, args, nodes, None).await?;
        let rate = done.bytes_per_second();
        eprintln!("{name}, round {} of {}", round + 1, args.rounds);
        eprintln!("  idempotent: {:.0} MB/s", rate / 1e6);
        plain.push(rate / 1e6);
        plain_cpu.push(done.cpu_per_gb());
        for figures in &mut figures {
            let done = side(dir, args, nodes, Some(figures.age)).await?;
            eprintln!(
                "  transactions of {:?}: {:.0} MB/s, share {:.2}, {} commits, {}",
                figures.age,
                done.bytes_per_second() / 1e6,
                done.bytes_per_second() / rate,
                done.commits.len(),
                stats::summary(&done.commits)
            );
            figures.push(&done, rate);
        }
    }
    let rows = figures.into_iter().flat_map(Figures::rows);
    Ok([plain, plain_cpu].into_iter().chain(rows).collect())
}

/// One side of a round, with servers and files of its own.
async fn side(dir: &Path, args: &Args, nodes: usize, age: Option<Duration>) -> Result<Done> {
    let data = tempfile::tempdir_in(dir)?;
    let servers = Servers::start(data.path(), nodes, args.partitions).await?;
    let config = ProducerConfig {
        batch_bytes: usize::try_from(args.batch_bytes)?,
        buffer_bytes: usize::try_from(args.buffer_bytes)?,
        ..ProducerConfig::default()
    };
    let records = Records::new(args)?;
    let length = Duration::from_secs(args.seconds);
    match age {
        None => {
            let producer = Producer::new(servers.client()?, config)?;
            plain(&producer, &records, WARM).await?;
            measure(&servers, async {
                let sent = plain(&producer, &records, length).await?;
                anyhow::Ok((sent, stats::latencies()))
            })
            .await
        }
        Some(age) => {
            let id = "load".parse()?;
            let config = TransactionalConfig {
                producer: config,
                ..TransactionalConfig::default()
            };
            let mut producer = TransactionalProducer::open(servers.client()?, id, config).await?;
            transactional(&mut producer, &records, age, WARM).await?;
            let done = measure(
                &servers,
                transactional(&mut producer, &records, age, length),
            );
            done.await
        }
    }
}

async fn measure(
    servers: &Servers,
    work: impl Future<Output = Result<(u64, Histogram<u64>)>>,
) -> Result<Done> {
    let (before, started) = (servers.cpu()?, Instant::now());
    let (bytes, commits) = work.await?;
    let took = started.elapsed();
    Ok(Done {
        bytes,
        took,
        cpu: servers.cpu()?.saturating_sub(before),
        commits,
    })
}

/// The records of both kinds of producers, in the same order.
struct Records {
    topic: TopicName,
    value: Vec<u8>,
    /// Records for one partition before the next, as sticky batching does.
    run: u64,
    partitions: u64,
}

impl Records {
    fn new(args: &Args) -> Result<Self> {
        let bytes = |n: usize| (n * 31 % 251) as u8;
        Ok(Self {
            topic: TOPIC.parse()?,
            value: (0..args.record_bytes).map(bytes).collect(),
            run: (args.batch_bytes / (args.record_bytes as u64 + 16)).max(1),
            partitions: u64::try_from(args.partitions)?,
        })
    }

    fn get(&self, number: u64) -> RecordRef<'_> {
        let partition = number / self.run % self.partitions;
        RecordRef {
            partition: i32::try_from(partition).ok(),
            value: Some(&self.value),
            ..RecordRef::default()
        }
    }
}

/// Sends for so long and waits for all answers; how many bytes.
async fn plain(producer: &Producer, records: &Records, length: Duration) -> Result<u64> {
    let (started, mut number) = (Instant::now(), 0);
    while started.elapsed() < length {
        producer
            .enqueue(&records.topic, records.get(number))
            .await?;
        number += 1;
    }
    producer.flush().await?;
    Ok(number * records.value.len() as u64)
}

/// Sends for so long in transactions of that age, and waits for the last commit; how many bytes, and how long commits
/// took.
async fn transactional(
    producer: &mut TransactionalProducer,
    records: &Records,
    age: Duration,
    length: Duration,
) -> Result<(u64, Histogram<u64>)> {
    let (started, mut number) = (Instant::now(), 0);
    let mut commits = stats::latencies();
    while started.elapsed() < length {
        producer.begin()?;
        let begun = Instant::now();
        while begun.elapsed() < age && started.elapsed() < length {
            producer
                .enqueue(&records.topic, records.get(number))
                .await?;
            number += 1;
        }
        let ended = Instant::now();
        producer.commit().await?;
        stats::record(&mut commits, ended.elapsed());
    }
    Ok((number * records.value.len() as u64, commits))
}
