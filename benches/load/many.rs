//! What a node holds at once of what is small and numerous: producer sessions, groups and idle connections. Memory
//! after each, what a scrape of its metrics costs then, and how soon it is back after a kill.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use varve_benches::stats::median;
use varve_client::proto as v1;
use varve_client::{Admin, Client};
use varve_types::limits;

use crate::report::{Asked, Output, Row, print};
use crate::server::Server;
use crate::{Load, drive, groups};

/// Calls under way at a time.
const CALLERS: usize = 512;
/// What a client of HTTP/2 says first, with settings that change nothing.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// Time in which the CPU is looked at while nothing is asked.
const QUIET: Duration = Duration::from_secs(10);

/// How many.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Producers, each with a session of its own and one record in one partition.
    #[arg(long, default_value_t = 1_000_000)]
    producers: usize,
    /// Partitions of the topic.
    #[arg(long, default_value_t = 1_000)]
    partitions: usize,
    /// Groups, each with one committed offset and no members.
    #[arg(long, default_value_t = 100_000)]
    groups: usize,
    /// Connections over which nothing is said. A listener gets a quarter of the files that a process may open.
    #[arg(long, default_value_t = 20_000)]
    connections: usize,
    /// Appends alone and beside the rest, and scrapes; figures are medians.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
}

/// Measures and prints.
pub async fn run(dir: &Path, args: &Args, output: Output) -> Result<()> {
    let data = tempfile::tempdir_in(dir)?;
    let (server, _) = Server::start_ready(data.path())?;
    groups::create(&server, i32::try_from(args.partitions)?).await?;
    let mut rows = Vec::new();
    let mut before = stage(&mut rows, &server, "nothing", (0, 0))?;
    let alone = rates(&server, args, "alone").await?;

    let started = Instant::now();
    let some = produce(&server, args).await?;
    tell("producers", args.producers, started);
    before = stage(
        &mut rows,
        &server,
        "producer sessions",
        (args.producers, before),
    )?;

    let started = Instant::now();
    groups::commit_everything(&groups::client(&server)?, args.groups, 1).await?;
    tell("groups", args.groups, started);
    before = stage(&mut rows, &server, "groups", (args.groups, before))?;

    let started = Instant::now();
    let open = connect(&server, args.connections).await?;
    tell("connections", args.connections, started);
    stage(
        &mut rows,
        &server,
        "idle connections",
        (args.connections, before),
    )?;

    let beside = rates(&server, args, "beside").await?;
    let what = "appends of 256 KiB, beside all of them, as a share of alone";
    let mut share = Row::new(what, "", Asked::AtLeast(0.95));
    share.push(median(&beside) / median(&alone));
    rows.push(share);
    rows.extend(scrapes(&server, args).await?);
    let cpu = server.cpu()?;
    tokio::time::sleep(QUIET).await;
    let used = (server.cpu()? - cpu).as_secs_f64() / QUIET.as_secs_f64();
    let mut idle = Row::new("with all of them, idle: CPU", "% of a core", Asked::Nothing);
    idle.push(used * 100.0);
    rows.push(idle);
    drop((open, server));
    rows.extend(restarts(data.path(), args, &some).await?);
    print(&rows, output);
    Ok(())
}

fn tell(what: &str, count: usize, started: Instant) {
    eprintln!("{count} {what} in {:.1} s", started.elapsed().as_secs_f64());
}

/// The memory of the server now, and what each of those that came last takes of it.
fn stage(
    rows: &mut Vec<Row>,
    server: &Server,
    what: &str,
    (count, before): (usize, u64),
) -> Result<u64> {
    let now = server.memory("VmRSS")?;
    eprintln!("with {count} {what}: resident {} MiB", now >> 20);
    let mut all = Row::new(
        format!("after {count} {what}: resident"),
        "MiB",
        Asked::Nothing,
    );
    all.push(now as f64 / f64::from(1 << 20));
    rows.push(all);
    if count > 0 {
        let mut each = Row::new(
            format!("{what}: resident for each"),
            "bytes",
            Asked::Nothing,
        );
        each.push(now.saturating_sub(before) as f64 / count as f64);
        rows.push(each);
    }
    Ok(now)
}

/// The first, a middle and the last producer, of those that a server with its default still remembers.
fn remembered(producers: usize) -> Vec<usize> {
    let last = producers - 1;
    match producers <= limits::PRODUCER_SESSIONS_MAX {
        true => vec![0, producers / 2, last],
        false => vec![last],
    }
}

/// Sessions by the number of their producer.
type Sessions = Arc<Mutex<BTreeMap<usize, v1::InitProducerResponse>>>;

/// One record of each producer.
async fn produce(server: &Server, args: &Args) -> Result<Sessions> {
    let some = Sessions::default();
    let next = Arc::new(AtomicUsize::new(0));
    let clients: Vec<Client> = (0..8)
        .map(|_| groups::client(server))
        .collect::<Result<_>>()?;
    let mut tasks = Vec::new();
    for caller in 0..CALLERS {
        let mut service =
            clients[caller % clients.len()].producer_service(&server.address, false)?;
        let (next, args, some) = (Arc::clone(&next), args.clone(), Arc::clone(&some));
        tasks.push(tokio::spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= args.producers {
                    return anyhow::Ok(());
                }
                let init = v1::InitProducerRequest::default();
                let session = service.init_producer(init).await?.into_inner();
                let partition = i32::try_from(number % args.partitions)?;
                service.produce(record(&session, partition)).await?;
                if remembered(args.producers).contains(&number) {
                    some.lock().await.insert(number, session);
                }
            }
        }));
    }
    for task in tasks {
        task.await??;
    }
    Ok(some)
}

/// Sends the records of those producers again, which the server must know to be there.
async fn repeat(server: &Server, args: &Args, some: &Sessions) -> Result<()> {
    let mut service = groups::client(server)?.producer_service(&server.address, false)?;
    for (number, session) in some.lock().await.iter() {
        let partition = i32::try_from(number % args.partitions)?;
        let answer = service
            .produce(record(session, partition))
            .await?
            .into_inner();
        let outcome = answer.results.into_iter().find_map(|result| result.outcome);
        let known = matches!(
            &outcome,
            Some(v1::partition_produce_result::Outcome::Appended(at)) if at.deduplicated
        );
        ensure!(
            known,
            "producer {number} is not known any more: {outcome:?}"
        );
    }
    Ok(())
}

fn record(session: &v1::InitProducerResponse, partition: i32) -> v1::ProduceRequest {
    v1::ProduceRequest {
        topic: groups::TOPIC.to_owned(),
        partition: Some(partition),
        records: vec![v1::Record {
            value: Some(bytes::Bytes::from_static(b"one")),
            ..Default::default()
        }],
        acks: v1::Acks::All as i32,
        session: Some(v1::ProducerSession {
            producer_id: session.producer_id,
            producer_epoch: session.producer_epoch,
            base_sequence: 0,
        }),
        ..Default::default()
    }
}

/// Bytes per second of appends that are flushed, to a topic of their own.
async fn rates(server: &Server, args: &Args, topic: &str) -> Result<Vec<f64>> {
    let load = Load {
        brokers: server.address.clone(),
        topic: topic.to_owned(),
        partitions: 8,
        record_bytes: 1024,
        batch_bytes: 256 * 1024,
        bytes: 512 << 20,
        clients: 4,
        rate: None,
        count: 0,
    };
    let mut rates = Vec::new();
    for _ in 0..args.rounds {
        let outcome = drive::produce(&load).await?;
        eprintln!("{topic}: {outcome}");
        rates.push(outcome.bytes_per_second());
    }
    // A start after a kill must not read these.
    let request = v1::DeleteTopicRequest {
        topic: topic.to_owned(),
        ..Default::default()
    };
    let admin = Admin::new(groups::client(server)?);
    admin.delete_topic(request).await?;
    Ok(rates)
}

/// Connections that have begun HTTP/2 and then say nothing.
async fn connect(server: &Server, count: usize) -> Result<Vec<TcpStream>> {
    let mut open = Vec::with_capacity(count);
    for _ in 0..count {
        let mut stream = TcpStream::connect(&server.address)
            .await
            .with_context(|| format!("connection {} of {count}", open.len() + 1))?;
        stream.write_all(PREFACE).await?;
        open.push(stream);
    }
    // Each has been served: the server has told its settings.
    let mut settings = [0; 9];
    for stream in &mut open {
        stream.read_exact(&mut settings).await?;
    }
    Ok(open)
}

/// What a scrape costs with all of that.
async fn scrapes(server: &Server, args: &Args) -> Result<Vec<Row>> {
    let mut took = Row::new("a scrape of the metrics", "s", Asked::Nothing);
    let mut size = Row::new("a scrape of the metrics: size", "MiB", Asked::Nothing);
    for _ in 0..args.rounds {
        let started = Instant::now();
        let bytes = server.scrape().await?;
        took.push(started.elapsed().as_secs_f64());
        size.push(bytes as f64 / f64::from(1 << 20));
    }
    let mut all = Row::new("after scrapes: resident", "MiB", Asked::Nothing);
    all.push(server.memory("VmRSS")? as f64 / f64::from(1 << 20));
    Ok(vec![took, size, all])
}

/// A start after a kill of the server that took all of that, and then of one that has done nothing since its start.
async fn restarts(data: &Path, args: &Args, producers: &Sessions) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for what in [
        "start after a kill",
        "start after a kill, nothing written since",
    ] {
        let started = Instant::now();
        let (server, up) = Server::start_ready(data)?;
        let some = [0, args.groups / 2, args.groups - 1];
        groups::all_told(vec![server.address.clone()], &some, 1).await?;
        repeat(&server, args, producers).await?;
        let known = started.elapsed();
        let mut row = |text: &str, unit, asked, figure| {
            let mut row = Row::new(format!("{what}: {text}"), unit, asked);
            row.push(figure);
            rows.push(row);
        };
        row("until ready", "s", Asked::AtMost(5.0), up.as_secs_f64());
        let text = "until groups and producers are known";
        row(text, "s", Asked::AtMost(5.0), known.as_secs_f64());
        let resident = server.memory("VmRSS")? as f64 / f64::from(1 << 20);
        row("resident", "MiB", Asked::Nothing, resident);
    }
    Ok(rows)
}
