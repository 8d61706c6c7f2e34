//! What consumer groups cost: committed offsets per second of many groups and the time to read them all again, and how
//! long readers stand still while a member joins a large group or dies in it.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use hdrhistogram::Histogram;
use varve_client::proto::{self as v1, CreateTopicRequest, GetOffsetsRequest};
use varve_client::{
    Admin, Client, ClientConfig, GroupConfig, GroupConsumer, Producer, ProducerConfig, RecordRef,
};
use varve_types::{GroupName, TopicName};

use crate::report::{Asked, Output, Row, print};
use crate::server::Server;

/// Topic whose offsets are committed.
pub const TOPIC: &str = "groups";

/// How to commit.
#[derive(Debug, Clone, clap::Args)]
pub struct CommitArgs {
    /// Groups.
    #[arg(long, default_value_t = 10_000)]
    groups: usize,
    /// Partitions that each group has an offset for in the end.
    #[arg(long, default_value_t = 100)]
    partitions: usize,
    /// Offsets of one commit.
    #[arg(long, value_delimiter = ',', default_value = "1,10,100")]
    offsets: Vec<usize>,
    /// Commits under way at a time.
    #[arg(long, default_value_t = 512)]
    clients: usize,
    /// Seconds of one measurement.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Measurements; figures are medians.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
}

/// How to rebalance.
#[derive(Debug, Clone, clap::Args)]
pub struct RebalanceArgs {
    /// Members before one more joins.
    #[arg(long, default_value_t = 100)]
    members: usize,
    /// Partitions.
    #[arg(long, default_value_t = 1_000)]
    partitions: i32,
    /// Time between two records of a partition, milliseconds.
    #[arg(long, default_value_t = 500)]
    interval_ms: u64,
    /// Session timeout, milliseconds.
    #[arg(long, default_value_t = 6_000)]
    session_timeout_ms: u64,
    /// Joins and deaths; figures are medians.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
}

/// A client of that server.
pub fn client(server: &Server) -> Result<Client> {
    Ok(Client::new(ClientConfig {
        brokers: vec![server.address.clone()],
        request_timeout: Duration::from_secs(60),
        ..ClientConfig::default()
    })?)
}

/// Makes the topic.
pub async fn create(server: &Server, partitions: i32) -> Result<TopicName> {
    let request = CreateTopicRequest {
        topic: TOPIC.to_owned(),
        partition_count: partitions,
        ..CreateTopicRequest::default()
    };
    let created = Admin::new(client(server)?).create_topic(request).await;
    created.context("create the topic")?;
    Ok(TOPIC.parse()?)
}

/// Name of a group.
pub fn group(number: usize) -> String {
    format!("group-{number}")
}

/// Measures and prints.
pub async fn commits(dir: &Path, args: &CommitArgs, output: Output) -> Result<()> {
    let mut rows = commit_rates(dir, args).await?;
    rows.extend(loads(dir, args).await?);
    print(&rows, output);
    Ok(())
}

async fn commit_rates(dir: &Path, args: &CommitArgs) -> Result<Vec<Row>> {
    let data = tempfile::tempdir_in(dir)?;
    let (server, _) = Server::start_ready(data.path())?;
    create(&server, i32::try_from(args.partitions)?).await?;
    let mut rows = Vec::new();
    for per_commit in args.offsets.iter().copied() {
        let what = format!("{} groups, {per_commit} offsets a commit", args.groups);
        let asked = Asked::AtLeast(100_000.0);
        let mut rate = Row::new(format!("{what}: committed offsets"), "1/s", asked);
        let mut slow = Row::new(format!("{what}: p99 of a commit"), "ms", Asked::Nothing);
        let cpu = format!("{what}: CPU of the server for a million offsets");
        let mut cpu = Row::new(cpu, "s", Asked::Nothing);
        for round in 0..args.rounds {
            let before = server.cpu()?;
            let (offsets, took, p99) = commit_round(&server, args, per_commit).await?;
            let used = (server.cpu()? - before).as_secs_f64();
            let per_second = offsets / took.as_secs_f64();
            eprintln!(
                "{what}, round {} of {}: {per_second:.0}/s, p99 {p99:.1} ms, {used:.1} s of CPU in {:.1} s",
                round + 1,
                args.rounds,
                took.as_secs_f64()
            );
            rate.push(per_second);
            slow.push(p99);
            cpu.push(used / offsets * 1e6);
        }
        rows.extend([rate, slow, cpu]);
    }
    Ok(rows)
}

/// How long a node takes to tell offsets that are there once each.
async fn loads(dir: &Path, args: &CommitArgs) -> Result<[Row; 2]> {
    let data = tempfile::tempdir_in(dir)?;
    let (server, _) = Server::start_ready(data.path())?;
    create(&server, i32::try_from(args.partitions)?).await?;
    commit_everything(&client(&server)?, args.groups, args.partitions).await?;
    let all = args.groups * args.partitions;
    let what = format!(
        "{all} offsets of {} groups, start after a kill",
        args.groups
    );
    let mut up = Row::new(format!("{what}: until ready"), "s", Asked::Nothing);
    let told = format!("{what}: until they are told");
    let mut told = Row::new(told, "s", Asked::AtMost(5.0));
    drop(server);
    for _ in 0..args.rounds {
        let started = Instant::now();
        let (server, ready) = Server::start_ready(data.path())?;
        let some = [0, args.groups / 2, args.groups - 1];
        all_told(vec![server.address.clone()], &some, args.partitions).await?;
        up.push(ready.as_secs_f64());
        told.push(started.elapsed().as_secs_f64());
    }
    Ok([up, told])
}

/// Waits until the offsets of these groups are told, and counts them.
pub async fn all_told(brokers: Vec<String>, groups: &[usize], expected: usize) -> Result<()> {
    const PATIENCE: Duration = Duration::from_secs(120);
    // A client that is told to come back waits ever longer; what is measured is the server, so it begins anew.
    let config = ClientConfig {
        brokers,
        request_timeout: Duration::from_millis(300),
        ..ClientConfig::default()
    };
    let (admin, started) = (Admin::new(Client::new(config)?), Instant::now());
    for number in groups {
        loop {
            let request = GetOffsetsRequest {
                group: group(*number),
                ..Default::default()
            };
            match admin.get_offsets(request).await {
                Ok(found) => {
                    let found = found.offsets.len();
                    ensure!(found == expected, "{found} offsets instead of {expected}");
                    break;
                }
                Err(error) if started.elapsed() > PATIENCE => return Err(error.into()),
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    }
    Ok(())
}

fn commit_of(number: usize, from: usize, count: usize) -> v1::CommitOffsetsRequest {
    let commit = |partition: usize| v1::PartitionCommit {
        topic_partition: Some(v1::TopicPartition {
            topic: TOPIC.to_owned(),
            partition: i32::try_from(partition).unwrap_or_default(),
        }),
        offset: 0,
        ..Default::default()
    };
    v1::CommitOffsetsRequest {
        group: group(number),
        offsets: (from..from + count).map(commit).collect(),
        ..Default::default()
    }
}

/// Offsets that were committed, the time that took, and the 99th percentile of one commit in milliseconds.
async fn commit_round(
    server: &Server,
    args: &CommitArgs,
    per_commit: usize,
) -> Result<(f64, Duration, f64)> {
    let (next, until) = (
        Arc::new(AtomicUsize::new(0)),
        Instant::now() + Duration::from_secs(args.seconds),
    );
    let started = Instant::now();
    let mut tasks = Vec::new();
    // A connection for each few of them: what is measured is the server.
    let connections: Vec<Client> = (0..8).map(|_| client(server)).collect::<Result<_>>()?;
    for worker in 0..args.clients {
        let admin = Admin::new(connections[worker % connections.len()].clone());
        let (next, args) = (Arc::clone(&next), args.clone());
        tasks.push(tokio::spawn(async move {
            let mut times = Histogram::<u64>::new(3)?;
            while Instant::now() < until {
                let number = next.fetch_add(1, Ordering::Relaxed);
                let slots = (args.partitions / per_commit).max(1);
                let from = number / args.groups % slots * per_commit;
                let request = commit_of(number % args.groups, from, per_commit);
                let sent = Instant::now();
                let answer = admin.commit_offsets(request).await?;
                if !answer.failures.is_empty() {
                    bail!("a commit was refused: {:?}", answer.failures[0]);
                }
                times.record(u64::try_from(sent.elapsed().as_micros())?)?;
            }
            Ok(times)
        }));
    }
    let mut times = Histogram::<u64>::new(3)?;
    for task in tasks {
        times.add(task.await??)?;
    }
    let offsets = times.len() as f64 * per_commit as f64;
    let p99 = times.value_at_quantile(0.99) as f64 / 1e3;
    Ok((offsets, started.elapsed(), p99))
}

/// Commits an offset of each of so many partitions in each of so many groups.
pub async fn commit_everything(client: &Client, groups: usize, partitions: usize) -> Result<()> {
    let next = Arc::new(AtomicUsize::new(0));
    let mut tasks = Vec::new();
    for _ in 0..64 {
        let (admin, next) = (Admin::new(client.clone()), Arc::clone(&next));
        tasks.push(tokio::spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= groups {
                    return anyhow::Ok(());
                }
                let answer = admin
                    .commit_offsets(commit_of(number, 0, partitions))
                    .await?;
                if let Some(failure) = answer.failures.first() {
                    bail!("a commit was refused: {failure:?}");
                }
            }
        }));
    }
    for task in tasks {
        task.await??;
    }
    Ok(())
}

/// When a partition's last record arrived, at whom, and the longest time between two since the last mark.
#[derive(Debug, Clone, Copy)]
struct Arrivals {
    last: Option<(Instant, usize)>,
    /// Who had it at the mark.
    owner: Option<usize>,
    longest: Duration,
}

/// What all members have seen, by partition.
type Seen = Arc<board::Board>;

/// One lock for each partition.
mod board {
    use std::sync::{Mutex, MutexGuard, PoisonError};

    #[derive(Debug)]
    pub struct Board(Vec<Mutex<super::Arrivals>>);

    impl Board {
        pub fn new(partitions: usize) -> Self {
            let none = super::Arrivals {
                last: None,
                owner: None,
                longest: std::time::Duration::ZERO,
            };
            Self((0..partitions).map(|_| Mutex::new(none)).collect())
        }

        pub fn at(&self, partition: usize) -> Option<MutexGuard<'_, super::Arrivals>> {
            let slot = self.0.get(partition)?;
            Some(slot.lock().unwrap_or_else(PoisonError::into_inner))
        }

        pub fn all(&self) -> Vec<super::Arrivals> {
            (0..self.0.len())
                .filter_map(|at| self.at(at).map(|a| *a))
                .collect()
        }
    }
}

/// A member that reads until it is told to leave, or dies.
struct Member {
    task: tokio::task::JoinHandle<()>,
    leave: Arc<tokio::sync::Notify>,
}

impl Member {
    fn join(server: &Server, number: usize, topic: &TopicName, seen: &Seen) -> Result<Self> {
        let name: GroupName = "rebalance".parse()?;
        let config = GroupConfig::new(name, vec![topic.clone()]);
        let mut consumer = GroupConsumer::join(client(server)?, config)?;
        let (seen, leave) = (Arc::clone(seen), Arc::new(tokio::sync::Notify::new()));
        let told = Arc::clone(&leave);
        let task = tokio::spawn(async move {
            loop {
                let batch = tokio::select! {
                    () = told.notified() => {
                        let _ = consumer.close().await;
                        return;
                    }
                    batch = consumer.next_batch() => batch,
                };
                match batch {
                    Ok(batch) => arrived(&seen, batch.partition, number),
                    Err(error) => eprintln!("member {number}: {error}"),
                }
            }
        });
        Ok(Self { task, leave })
    }
}

fn arrived(seen: &Seen, partition: varve_types::PartitionId, by: usize) {
    let Some(mut arrivals) = usize::try_from(partition.0).ok().and_then(|at| seen.at(at)) else {
        return;
    };
    let now = Instant::now();
    if let Some((last, _)) = arrivals.last {
        arrivals.longest = arrivals.longest.max(now - last);
    }
    arrivals.last = Some((now, by));
}

/// Forgets the gaps so far, and notes who has what.
fn mark(seen: &Seen, partitions: usize) {
    for partition in 0..partitions {
        if let Some(mut arrivals) = seen.at(partition) {
            arrivals.longest = Duration::ZERO;
            arrivals.owner = arrivals.last.map(|(_, by)| by);
        }
    }
}

/// Tasks that send, until they are told to stop.
struct Feeders {
    stop: Arc<AtomicBool>,
    tasks: Vec<tokio::task::JoinHandle<Result<()>>>,
}

impl Feeders {
    /// Sends a record to every partition, again and again, and to one after the other: a member that stands still is
    /// seen in whichever of its partitions is next, so a pause is measured to an interval over the partitions of a
    /// member. Several producers share the partitions: what is measured is not to wait for one of them.
    async fn start(server: &Server, topic: &TopicName, args: &RebalanceArgs) -> Result<Self> {
        const PRODUCERS: usize = 8;
        let stop = Arc::new(AtomicBool::new(false));
        let interval = Duration::from_millis(args.interval_ms);
        let step = interval / args.partitions.unsigned_abs() * u32::try_from(PRODUCERS)?;
        let mut tasks = Vec::new();
        for first in 0..PRODUCERS {
            let config = ProducerConfig {
                linger: Duration::ZERO,
                ..ProducerConfig::default()
            };
            let producer = Producer::new(client(server)?, config)?;
            producer.prepare(topic).await?;
            let (topic, stop) = (topic.clone(), Arc::clone(&stop));
            let mine = (0..args.partitions).skip(first).step_by(PRODUCERS);
            tasks.push(tokio::spawn(async move {
                let mut due = tokio::time::Instant::now();
                for partition in mine.cycle() {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    tokio::time::sleep_until(due).await;
                    due += step;
                    let record = RecordRef {
                        partition: Some(partition),
                        value: Some(b"x"),
                        ..Default::default()
                    };
                    producer.enqueue(&topic, record).await?;
                }
                producer.flush().await?;
                Ok(())
            }));
        }
        Ok(Self { stop, tasks })
    }

    async fn stop(self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.await??;
        }
        Ok(())
    }
}

/// Waits until records of every partition have come to so many members within the last second.
async fn shared(seen: &Seen, members: usize, most: Duration) -> Result<()> {
    let deadline = Instant::now() + most;
    loop {
        let all = seen.all();
        let fresh = |a: &&Arrivals| {
            a.last
                .is_some_and(|(at, _)| at.elapsed() < Duration::from_secs(1))
        };
        let owners: std::collections::BTreeSet<usize> = all
            .iter()
            .filter(fresh)
            .filter_map(|a| a.last.map(|(_, by)| by))
            .collect();
        if all.iter().filter(fresh).count() == all.len() && owners.len() == members {
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!("{} of {members} members read after {most:?}", owners.len());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Longest pause of the partitions that stayed where they were, and of those that did not, with their number. Of a
/// member that stands still the next of its partitions tells, so the interval of one partition is no part of a pause. A
/// partition that moves tells for itself alone: the interval is in, and its pause was that long or less.
fn gaps(seen: &Seen, interval: Duration) -> (f64, f64, usize) {
    let (mut kept, mut moved, mut count) = (Duration::ZERO, Duration::ZERO, 0);
    for arrivals in seen.all() {
        let longest = arrivals.longest;
        if arrivals.owner == arrivals.last.map(|(_, by)| by) {
            kept = kept.max(longest.saturating_sub(interval));
        } else {
            moved = moved.max(longest);
            count += 1;
        }
    }
    (kept.as_secs_f64(), moved.as_secs_f64(), count)
}

/// Measures and prints.
pub async fn rebalance(dir: &Path, args: &RebalanceArgs, output: Output) -> Result<()> {
    const SETTLE: Duration = Duration::from_secs(3);
    let session = (
        "VARVE_GROUP__SESSION__TIMEOUT__MS",
        args.session_timeout_ms.to_string(),
    );
    let beat = (args.session_timeout_ms / 3).min(2_000).to_string();
    let beat = ("VARVE_GROUP__HEARTBEAT__INTERVAL__MS", beat);
    let mut server = Server::launch(dir, &[session, beat])?;
    server.wait_ready()?;
    let topic = create(&server, args.partitions).await?;
    let partitions = usize::try_from(args.partitions)?;
    let seen: Seen = Arc::new(board::Board::new(partitions));
    let feeders = Feeders::start(&server, &topic, args).await?;
    let mut members = Vec::new();
    for number in 0..args.members {
        members.push(Member::join(&server, number, &topic, &seen)?);
    }
    shared(&seen, args.members, Duration::from_secs(120)).await?;
    tokio::time::sleep(SETTLE).await;
    let what = format!("{} members, {partitions} partitions", args.members);
    let interval = Duration::from_millis(args.interval_ms);
    let mut quiet = Row::new(
        format!("{what}, nothing happens: longest pause"),
        "s",
        Asked::Nothing,
    );
    let mut kept = Row::new(
        format!("{what}, one joins: longest pause of a partition that stays"),
        "s",
        Asked::AtMost(0.2),
    );
    let mut moved = Row::new(
        format!("{what}, one joins: longest pause of a partition that moves"),
        "s",
        Asked::AtMost(1.0),
    );
    let most = Asked::AtMost(args.session_timeout_ms as f64 / 1e3 + 1.0);
    let mut dead = Row::new(
        format!("{what}, one dies: longest pause of its partitions"),
        "s",
        most,
    );
    let mut others = Row::new(
        format!("{what}, one dies: longest pause of a partition that stays"),
        "s",
        Asked::Nothing,
    );
    for round in 0..args.rounds {
        mark(&seen, partitions);
        tokio::time::sleep(SETTLE).await;
        quiet.push(gaps(&seen, interval).0);
        mark(&seen, partitions);
        let number = args.members + round;
        let newcomer = Member::join(&server, number, &topic, &seen)?;
        shared(&seen, args.members + 1, Duration::from_secs(60)).await?;
        tokio::time::sleep(SETTLE).await;
        let (stayed, went, count) = gaps(&seen, interval);
        eprintln!(
            "round {}: {count} partitions moved, pause {went:.3} s; of those that stay {stayed:.3} s",
            round + 1
        );
        kept.push(stayed);
        moved.push(went);
        mark(&seen, partitions);
        newcomer.task.abort();
        let patience = Duration::from_millis(args.session_timeout_ms) + Duration::from_secs(30);
        shared(&seen, args.members, patience).await?;
        tokio::time::sleep(SETTLE).await;
        let (stayed, gone, count) = gaps(&seen, interval);
        eprintln!(
            "round {}: {count} partitions taken over, pause {gone:.3} s; of those that stay {stayed:.3} s",
            round + 1
        );
        dead.push(gone);
        others.push(stayed);
    }
    feeders.stop().await?;
    for member in &members {
        member.leave.notify_one();
    }
    for member in members {
        let _ = member.task.await;
    }
    print(&[quiet, kept, moved, dead, others], output);
    Ok(())
}
