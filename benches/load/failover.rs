//! How long writes stand still when a node of three ends: killed or stopped, the one that decides about
//! metadata or another, and with many partitions to be led by others.
//!
//! An idempotent producer sends a record to every partition every few milliseconds, whatever comes of those
//! before. What counts is what it sees: the longest time in which a partition acknowledged nothing, and errors.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use varve_client::{Client, ClientConfig, Producer, ProducerConfig, RecordRef};
use varve_types::TopicName;

use crate::cluster::Cluster;
use crate::report::{Asked, Output, Row, print};

/// Time between records to one partition.
const EVERY: Duration = Duration::from_millis(10);
/// Time under load before a node ends.
const WARM: Duration = Duration::from_secs(2);
/// Time under load after the last thing that is waited for.
const AFTER: Duration = Duration::from_secs(2);
/// Longest time until writes go on.
const PATIENCE: Duration = Duration::from_secs(120);
const TOPIC: &str = "failover";

/// How to measure.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Rounds of each kind; figures are medians.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Silence after which a node counts as dead, in milliseconds; as `node.session.timeout.ms`.
    #[arg(long, default_value_t = 9_000)]
    session_timeout_ms: u64,
    /// Partitions under load.
    #[arg(long, default_value_t = 6)]
    partitions: i32,
    /// Partitions that the node leads when many are to move; three times as many are made. 0: not measured.
    #[arg(long, default_value_t = 1_000)]
    led: i32,
    /// Only these kinds.
    #[arg(long, value_delimiter = ',')]
    only: Vec<Kind>,
}

/// What happens to which node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// `kill -9` of a leader that is not the controller.
    Kill,
    /// `kill -9` of the controller.
    KillController,
    /// SIGTERM to a leader that is not the controller.
    Stop,
    /// SIGTERM to the controller.
    StopController,
    /// `kill -9` of a leader of many partitions that is not the controller.
    Many,
    /// The same of the controller.
    ManyController,
}

const KINDS: [Kind; 6] = [
    Kind::Kill,
    Kind::KillController,
    Kind::Stop,
    Kind::StopController,
    Kind::Many,
    Kind::ManyController,
];

/// Measures and prints.
pub async fn run(dir: &Path, args: &Args, output: Output) -> Result<()> {
    let mut rows = Vec::new();
    for kind in KINDS {
        let many = matches!(kind, Kind::Many | Kind::ManyController);
        if (!args.only.is_empty() && !args.only.contains(&kind)) || (many && args.led == 0) {
            continue;
        }
        let some = match many {
            true => many_rounds(dir, args, kind).await,
            false => few_rounds(dir, args, kind).await,
        };
        rows.extend(some.with_context(|| format!("{kind:?}"))?);
    }
    print(&rows, output);
    Ok(())
}

/// What a producer has seen of one partition.
#[derive(Debug, Default)]
struct Seen {
    /// When records were acknowledged.
    acked: Vec<Instant>,
    /// When the first record sent after the node ended was acknowledged.
    resumed: Option<Instant>,
}

/// A producer that goes on whatever happens.
struct Probe {
    stop: Arc<AtomicBool>,
    ended: Arc<Mutex<Option<Instant>>>,
    seen: Arc<Vec<Mutex<Seen>>>,
    errors: Arc<Mutex<Vec<String>>>,
    task: tokio::task::JoinHandle<Result<()>>,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Probe {
    async fn start(cluster: &Cluster, topic: &TopicName, partitions: i32) -> Result<Self> {
        let producer = producer(cluster)?;
        producer.prepare(topic).await?;
        let probe = Self {
            stop: Arc::default(),
            ended: Arc::default(),
            seen: Arc::new((0..partitions).map(|_| Mutex::default()).collect()),
            errors: Arc::default(),
            task: tokio::spawn(async { Ok(()) }),
        };
        let (stop, ended) = (Arc::clone(&probe.stop), Arc::clone(&probe.ended));
        let (seen, errors) = (Arc::clone(&probe.seen), Arc::clone(&probe.errors));
        let topic = topic.clone();
        let task = tokio::spawn(async move {
            let mut every = tokio::time::interval(EVERY);
            while !stop.load(Ordering::SeqCst) {
                every.tick().await;
                for partition in 0..partitions {
                    let record = RecordRef {
                        partition: Some(partition),
                        value: Some(&[0x5a; 100]),
                        ..RecordRef::default()
                    };
                    let after = lock(&ended).is_some();
                    let handle = producer.send(&topic, record).await?;
                    let (seen, errors) = (Arc::clone(&seen), Arc::clone(&errors));
                    tokio::spawn(async move {
                        if let Err(error) = handle.await {
                            return lock(&errors).push(error.to_string());
                        }
                        let mut seen = lock(&seen[partition.unsigned_abs() as usize]);
                        let now = Instant::now();
                        seen.acked.push(now);
                        if after {
                            seen.resumed.get_or_insert(now);
                        }
                    });
                }
            }
            producer.close().await?;
            Ok(())
        });
        Ok(Self { task, ..probe })
    }

    /// Ends once every partition has acknowledged a record that was sent after the node ended.
    async fn finish(self, ended: Instant) -> Result<Found> {
        let resumed = || self.seen.iter().all(|seen| lock(seen).resumed.is_some());
        while !resumed() {
            ensure!(ended.elapsed() < PATIENCE, "writes do not go on");
            tokio::time::sleep(EVERY).await;
        }
        tokio::time::sleep(AFTER).await;
        self.stop.store(true, Ordering::SeqCst);
        self.task.await??;
        let mut found = Found::default();
        for seen in self.seen.iter() {
            let mut seen = lock(seen);
            seen.acked.sort_unstable();
            let around = seen.acked.windows(2).filter(|two| two[1] >= ended);
            let longest = around.map(|two| two[1] - two[0]).max();
            found.silence = found.silence.max(longest.unwrap_or(PATIENCE));
            if let Some(resumed) = seen.resumed {
                found.resumed = found.resumed.max(resumed - ended);
            }
        }
        let errors = lock(&self.errors);
        found.errors = errors.len();
        if let Some(first) = errors.first() {
            eprintln!("  {} errors, the first: {first}", errors.len());
        }
        Ok(found)
    }
}

#[derive(Debug, Default)]
struct Found {
    /// Longest time without an acknowledgement of some partition.
    silence: Duration,
    /// Time until all partitions had acknowledged something that was sent after the node ended.
    resumed: Duration,
    errors: usize,
}

fn producer(cluster: &Cluster) -> Result<Producer> {
    let config = ClientConfig {
        brokers: cluster.all_brokers(),
        ..ClientConfig::default()
    };
    let how = ProducerConfig {
        linger: Duration::ZERO,
        ..ProducerConfig::default()
    };
    Ok(Producer::new(Client::new(config)?, how)?)
}

async fn started(dir: &Path, args: &Args) -> Result<Cluster> {
    rustix::fs::sync();
    let session = args.session_timeout_ms;
    // As with the defaults, a session is four and a half heartbeats.
    let beat = (session * 2 / 9).max(50);
    let env = [
        ("VARVE_NODE__SESSION__TIMEOUT__MS", session.to_string()),
        ("VARVE_NODE__HEARTBEAT__INTERVAL__MS", beat.to_string()),
    ];
    Cluster::start(dir, 3, &env).await
}

/// Which node ends.
async fn victim(cluster: &Cluster, kind: Kind) -> Result<i32> {
    let controller = cluster.controller().await?;
    if matches!(
        kind,
        Kind::KillController | Kind::StopController | Kind::ManyController
    ) {
        return Ok(controller);
    }
    let other = cluster.nodes().keys().find(|id| **id != controller);
    other.copied().context("a node that is not the controller")
}

async fn few_rounds(dir: &Path, args: &Args, kind: Kind) -> Result<Vec<Row>> {
    let stops = matches!(kind, Kind::Stop | Kind::StopController);
    let what = match kind {
        Kind::Stop => "SIGTERM to a leader",
        Kind::StopController => "SIGTERM to the controller",
        Kind::KillController => "kill -9 of the controller",
        _ => "kill -9 of a leader",
    };
    let most = match stops {
        true => 1.0,
        false => args.session_timeout_ms as f64 / 1e3 + 1.0,
    };
    let mut silence = Row::new(
        format!("{what}: longest time without an acknowledgement"),
        "s",
        Asked::AtMost(most),
    );
    let mut resumed = Row::new(
        format!("{what}: until what is sent then is acknowledged"),
        "s",
        Asked::AtMost(most),
    );
    let mut errors = Row::new(
        format!("{what}: errors of an idempotent producer"),
        "",
        Asked::AtMost(0.0),
    );
    for round in 0..args.rounds {
        let data = tempfile::tempdir_in(dir)?;
        let mut cluster = started(data.path(), args).await?;
        let topic = cluster.topic(TOPIC, args.partitions).await?;
        let probe = Probe::start(&cluster, &topic, args.partitions).await?;
        tokio::time::sleep(WARM).await;
        let id = victim(&cluster, kind).await?;
        let server = cluster.take(id)?;
        let ended = Instant::now();
        *lock(&probe.ended) = Some(ended);
        if stops {
            let took = tokio::task::spawn_blocking(move || server.stop()).await??;
            eprintln!("  node {id} was through after {:.2} s", took.as_secs_f64());
        } else {
            drop(server);
        }
        let found = probe.finish(ended).await?;
        eprintln!("{what}, round {} of {}: {found:?}", round + 1, args.rounds);
        silence.push(found.silence.as_secs_f64());
        resumed.push(found.resumed.as_secs_f64());
        errors.push(found.errors as f64);
    }
    Ok(vec![silence, resumed, errors])
}

async fn many_rounds(dir: &Path, args: &Args, kind: Kind) -> Result<Vec<Row>> {
    let led = args.led;
    let what = match kind {
        Kind::ManyController => format!("kill -9 of the controller, which leads {led} partitions"),
        _ => format!("kill -9 of a leader of {led} partitions"),
    };
    let most = Asked::AtMost(args.session_timeout_ms as f64 / 1e3 + 2.0);
    let mut elected = Row::new(format!("{what}: until all are led"), "s", most);
    let mut span = Row::new(
        format!("{what}: from the first to the last election"),
        "s",
        Asked::Nothing,
    );
    let mut written = Row::new(
        format!("{what}: until each has acknowledged a record"),
        "s",
        most,
    );
    for round in 0..args.rounds {
        let data = tempfile::tempdir_in(dir)?;
        let mut cluster = started(data.path(), args).await?;
        let began = Instant::now();
        let topic = cluster.topic(TOPIC, 3 * led).await?;
        eprintln!(
            "  {} partitions made and in sync after {:.1} s",
            3 * led,
            began.elapsed().as_secs_f64()
        );
        let found = many_round(&mut cluster, &topic, kind).await?;
        eprintln!("{what}, round {} of {}: {found:?}", round + 1, args.rounds);
        elected.push(found.elected.as_secs_f64());
        span.push(found.span.as_secs_f64());
        written.push(found.written.as_secs_f64());
    }
    Ok(vec![elected, span, written])
}

#[derive(Debug, Default)]
struct Moved {
    elected: Duration,
    span: Duration,
    written: Duration,
}

async fn many_round(cluster: &mut Cluster, topic: &TopicName, kind: Kind) -> Result<Moved> {
    let id = victim(cluster, kind).await?;
    let mine = cluster.until("leaders", &[TOPIC], |metadata| {
        let all = metadata.topics.first()?.partitions.iter();
        let mine = all.filter(|p| p.leader_node_id == Some(id));
        Some(mine.map(|p| p.partition).collect::<BTreeSet<i32>>())
    });
    let mine = mine.await?;
    if mine.is_empty() {
        bail!("node {id} leads nothing");
    }
    let producer = producer(cluster)?;
    producer.prepare(topic).await?;
    // Connections and sessions are there before the node ends.
    send_each(&producer, topic, &mine).await?;
    drop(cluster.take(id)?);
    let ended = Instant::now();
    let written = async {
        send_each(&producer, topic, &mine).await?;
        Ok::<Duration, anyhow::Error>(ended.elapsed())
    };
    let mut first = None;
    let elected = cluster.until("other leaders", &[TOPIC], |metadata| {
        let all = &metadata.topics.first()?.partitions;
        let led = |p: i32| {
            let leader = all.get(p.unsigned_abs() as usize)?.leader_node_id?;
            (leader != id).then_some(())
        };
        let moved = mine.iter().filter(|p| led(**p).is_some()).count();
        if moved > 0 {
            first.get_or_insert_with(|| ended.elapsed());
        }
        (moved == mine.len()).then(|| ended.elapsed())
    });
    let (written, elected) = tokio::join!(written, elected);
    let elected = elected?;
    Ok(Moved {
        elected,
        span: elected - first.unwrap_or(elected),
        written: written?,
    })
}

/// A record to each of those partitions; ends when all are acknowledged.
async fn send_each(
    producer: &Producer,
    topic: &TopicName,
    partitions: &BTreeSet<i32>,
) -> Result<()> {
    let mut handles = Vec::new();
    for partition in partitions {
        let record = RecordRef {
            partition: Some(*partition),
            value: Some(&[0x5a; 100]),
            ..RecordRef::default()
        };
        handles.push(producer.send(topic, record).await?);
    }
    for handle in handles {
        handle.await?;
    }
    Ok(())
}
