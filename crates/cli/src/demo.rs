//! `varve demo`: the main job on real input, all by itself. A node in a temporary directory, a topic with
//! several partitions, the lines of a file, of standard input or of this repository's `git log`, a consumer
//! group of two members, and a table that says what was verified.
//!
//! Nothing is left behind: the directory goes when the demo ends. Every claim in the table was checked on
//! the records that came back, none is assumed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;
use tokio::sync::mpsc;
use varve_client::proto::CreateTopicRequest;
use varve_client::{
    Admin, Client, ClientConfig, GroupConfig, GroupConsumer, Producer, ProducerConfig, RecordRef,
};
use varve_types::{GroupName, TopicName};

use crate::failure::{FAILED, Failure};
use crate::output::{print_line, print_table};
use crate::progress::Progress;

/// Name of the demo's topic.
const TOPIC: &str = "demo";
/// The header that carries the number of the input line.
const LINE: &str = "line";

/// Arguments of `varve demo`.
#[derive(Debug, Clone, Args)]
pub struct DemoArgs {
    /// Lines to send: a file, or - for standard input. Default: this repository's git log, keyed by author
    file: Option<PathBuf>,
    /// Key and value of a line are split at the first STR; without it the first word is the key
    #[arg(short = 'K', long, value_name = "STR")]
    key_delim: Option<String>,
    /// Partitions of the topic
    #[arg(short, long, default_value_t = 6, value_parser = clap::value_parser!(i32).range(1..=1000))]
    partitions: i32,
}

/// One input line.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Line {
    key: Vec<u8>,
    value: Vec<u8>,
}

/// What one member saw of one record.
struct Seen {
    member: usize,
    partition: i32,
    offset: i64,
    key: Vec<u8>,
    value: Vec<u8>,
    line: usize,
}

/// Runs the demo.
///
/// # Errors
/// Anything that keeps the node from doing its job, in a sentence.
pub async fn run(args: &DemoArgs) -> Result<u8, Failure> {
    let (source, report) = demo(args)
        .await
        .map_err(|error| Failure::new(FAILED, format!("{error:#}")))?;
    report.print(&source)?;
    Ok(0)
}

async fn demo(args: &DemoArgs) -> Result<(String, Report)> {
    let (source, lines) = input(args)?;
    ensure!(
        !lines.is_empty(),
        "{source} has no lines; give a file: varve demo FILE"
    );
    let dir = tempdir()?;
    let node = varve_server::embedded::start(dir.path())
        .await
        .context("start the node")?;
    let client = Client::new(ClientConfig {
        brokers: vec![node.client_address().to_string()],
        client_id: "varve-demo".to_owned(),
        ..ClientConfig::default()
    })?;
    let report = play(&client, args.partitions, &lines).await;
    node.shutdown().await?;
    Ok((source, report?))
}

fn tempdir() -> Result<TempDir> {
    let path = std::env::temp_dir().join(format!("varve-demo-{}", uuid::Uuid::new_v4()));
    std::fs::create_dir(&path).with_context(|| format!("make {}", path.display()))?;
    Ok(TempDir(path))
}

/// A directory that goes with its value.
struct TempDir(PathBuf);

impl TempDir {
    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn input(args: &DemoArgs) -> Result<(String, Vec<Line>)> {
    let delim = args.key_delim.as_deref();
    match args.file.as_deref() {
        None => git_log(),
        Some(path) if path == Path::new("-") => {
            let lines = split_lines(std::io::stdin().lock(), delim)?;
            Ok(("standard input".to_owned(), lines))
        }
        Some(path) => {
            let file =
                std::fs::File::open(path).with_context(|| format!("open {}", path.display()))?;
            let lines = split_lines(std::io::BufReader::new(file), delim)
                .with_context(|| format!("read {}", path.display()))?;
            Ok((path.display().to_string(), lines))
        }
    }
}

fn git_log() -> Result<(String, Vec<Line>)> {
    let hint = "give the demo lines of your own: varve demo FILE, or ... | varve demo -";
    let output = std::process::Command::new("git")
        .args(["log", "--reverse", "--format=%an%x09%h %s"])
        .output()
        .with_context(|| format!("run git log; {hint}"))?;
    if !output.status.success() {
        let why = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        bail!("git log failed: {why}; {hint}");
    }
    let lines = split_lines(&output.stdout[..], Some("\t"))?;
    Ok(("git log, keyed by author".to_owned(), lines))
}

fn split_lines(mut input: impl std::io::BufRead, delim: Option<&str>) -> Result<Vec<Line>> {
    let mut lines = Vec::new();
    let mut buffer = Vec::new();
    while input.read_until(b'\n', &mut buffer)? > 0 {
        if buffer.last() == Some(&b'\n') {
            buffer.pop();
        }
        lines.push(split(&buffer, delim));
        buffer.clear();
    }
    Ok(lines)
}

fn split(line: &[u8], delim: Option<&str>) -> Line {
    let (at, skip) = match delim {
        Some(delim) => {
            let delim = delim.as_bytes();
            let at = (!delim.is_empty())
                .then(|| line.windows(delim.len()).position(|w| w == delim))
                .flatten();
            (at, delim.len())
        }
        None => {
            let word = line.iter().position(u8::is_ascii_whitespace);
            return Line {
                key: line[..word.unwrap_or(line.len())].to_vec(),
                value: line.to_vec(),
            };
        }
    };
    match at {
        Some(at) => Line {
            key: line[..at].to_vec(),
            value: line[at + skip..].to_vec(),
        },
        None => Line {
            key: Vec::new(),
            value: line.to_vec(),
        },
    }
}

async fn play(client: &Client, partitions: i32, lines: &[Line]) -> Result<Report> {
    let topic: TopicName = TOPIC.parse()?;
    let request = CreateTopicRequest {
        topic: TOPIC.to_owned(),
        partition_count: partitions,
        ..CreateTopicRequest::default()
    };
    Admin::new(client.clone())
        .create_topic(request)
        .await
        .context("create the topic")?;

    // Both members join before the first record, so that the table shows a shared group.
    let (seen, mut records) = mpsc::channel(4096);
    let (joined, mut owned) = mpsc::channel(16);
    let members: Vec<_> = (0..2)
        .map(|number| {
            let (client, topic) = (client.clone(), topic.clone());
            tokio::spawn(member(number, client, topic, seen.clone(), joined.clone()))
        })
        .collect();
    drop((seen, joined));
    wait_for_assignment(partitions, &mut owned).await?;

    let (produced, report) = tokio::join!(
        produce(client, &topic, lines),
        collect(lines, partitions, &mut records)
    );
    // Closing the channel ends the members, which commit and leave.
    drop(records);
    for member in members {
        member.await??;
    }
    let produce_took = produced?;
    Ok(Report {
        produce_took,
        ..report?
    })
}

async fn wait_for_assignment(
    partitions: i32,
    owned: &mut mpsc::Receiver<(usize, usize)>,
) -> Result<()> {
    let mut now = [0; 2];
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    while now.iter().sum::<usize>() != partitions.unsigned_abs() as usize
        || (partitions > 1 && now.contains(&0))
    {
        let update = tokio::time::timeout_at(deadline, owned.recv()).await;
        let (member, count) = update
            .context("the group has not settled within 30 s")?
            .context("a member ended")?;
        now[member] = count;
    }
    Ok(())
}

async fn member(
    number: usize,
    client: Client,
    topic: TopicName,
    seen: mpsc::Sender<Seen>,
    joined: mpsc::Sender<(usize, usize)>,
) -> Result<()> {
    let group: GroupName = "demo".parse()?;
    let mut consumer = GroupConsumer::join(client, GroupConfig::new(group, vec![topic]))?;
    let mut told = usize::MAX;
    loop {
        let owned = consumer.owned().len();
        if owned != told {
            told = owned;
            let _ = joined.send((number, owned)).await;
        }
        tokio::select! {
            () = seen.closed() => break,
            // Wakes now and then, because an assignment alone is no batch.
            () = tokio::time::sleep(Duration::from_millis(20)) => {}
            batch = consumer.next_batch() => {
                let batch = batch?;
                let mut records = batch.records()?;
                while let Some(record) = records.next_ref()? {
                    let line = record
                        .headers
                        .iter()
                        .find(|(name, _)| *name == LINE)
                        .and_then(|(_, value)| std::str::from_utf8(value?).ok()?.parse().ok())
                        .context("a record without its line number")?;
                    let record = Seen {
                        member: number,
                        partition: batch.partition.0,
                        offset: record.offset.get(),
                        key: record.key.unwrap_or_default().to_vec(),
                        value: record.value.unwrap_or_default().to_vec(),
                        line,
                    };
                    if seen.send(record).await.is_err() {
                        break;
                    }
                }
            }
        }
    }
    consumer.close().await?;
    Ok(())
}

async fn produce(client: &Client, topic: &TopicName, lines: &[Line]) -> Result<Duration> {
    let producer = Producer::new(client.clone(), ProducerConfig::default())?;
    producer.prepare(topic).await?;
    let started = Instant::now();
    for (number, line) in lines.iter().enumerate() {
        let number = number.to_string();
        let headers = [(LINE, Some(number.as_bytes()))];
        let record = RecordRef {
            key: Some(&line.key),
            value: Some(&line.value),
            headers: &headers,
            ..RecordRef::default()
        };
        producer.enqueue(topic, record).await?;
    }
    producer.close().await?;
    Ok(started.elapsed())
}

fn total_bytes(lines: &[Line]) -> u64 {
    lines
        .iter()
        .map(|l| (l.key.len() + l.value.len()) as u64)
        .sum()
}

/// What the table shows.
struct Report {
    lines: usize,
    bytes: usize,
    partitions: Vec<PartitionReport>,
    keys: usize,
    produce_took: Duration,
    consume_took: Duration,
}

#[derive(Default)]
struct PartitionReport {
    records: usize,
    bytes: usize,
    keys: usize,
    member: Option<usize>,
}

/// Takes every record once, and checks it against the line it came from.
async fn collect(
    lines: &[Line],
    partitions: i32,
    records: &mut mpsc::Receiver<Seen>,
) -> Result<Report> {
    let started = Instant::now();
    let progress = Progress::bytes(Some(total_bytes(lines)), true);
    let mut table: Vec<PartitionReport> = (0..partitions)
        .map(|_| PartitionReport::default())
        .collect();
    let mut delivered = vec![false; lines.len()];
    let mut keys: BTreeMap<Vec<u8>, (i32, usize)> = BTreeMap::new();
    let mut left = lines.len();
    let mut bytes = 0;
    while left > 0 {
        let next = tokio::time::timeout(Duration::from_secs(60), records.recv()).await;
        let seen = next
            .with_context(|| format!("{left} records did not come back within 60 s"))?
            .context("the members ended early")?;
        let line = lines.get(seen.line).context("a record of no line")?;
        ensure!(
            line.key == seen.key && line.value == seen.value,
            "line {} came back changed at partition {} offset {}",
            seen.line,
            seen.partition,
            seen.offset
        );
        if std::mem::replace(&mut delivered[seen.line], true) {
            // A group delivers at least once; after a rebalance some may come again.
            continue;
        }
        left -= 1;
        progress.add((line.key.len() + line.value.len()) as u64);
        let report = &mut table[seen.partition.unsigned_abs() as usize];
        match keys.get_mut(&seen.key) {
            Some((partition, last)) => {
                ensure!(*partition == seen.partition, "a key is in two partitions");
                ensure!(
                    *last < seen.line,
                    "line {} came after line {last} of its key",
                    seen.line
                );
                *last = seen.line;
            }
            None => {
                keys.insert(seen.key.clone(), (seen.partition, seen.line));
                report.keys += 1;
            }
        }
        let size = seen.key.len() + seen.value.len();
        bytes += size;
        report.records += 1;
        report.bytes += size;
        report.member = Some(seen.member);
    }
    progress.finish();
    Ok(Report {
        lines: lines.len(),
        bytes,
        partitions: table,
        keys: keys.len(),
        produce_took: Duration::ZERO,
        consume_took: started.elapsed(),
    })
}

impl Report {
    fn print(&self, source: &str) -> Result<(), Failure> {
        let mut rows: Vec<Vec<String>> = Vec::new();
        for (number, p) in self.partitions.iter().enumerate() {
            let member = p
                .member
                .map_or("-".to_owned(), |m| format!("member-{}", m + 1));
            rows.push(vec![
                number.to_string(),
                p.records.to_string(),
                p.bytes.to_string(),
                p.keys.to_string(),
                member,
            ]);
        }
        rows.push(vec![
            "all".to_owned(),
            self.lines.to_string(),
            self.bytes.to_string(),
            self.keys.to_string(),
            "2 members".to_owned(),
        ]);
        print_line(&format!(
            "{source}: {} records, {} keys",
            self.lines, self.keys
        ))?;
        print_table(&["PARTITION", "RECORDS", "BYTES", "KEYS", "MEMBER"], rows)?;
        let rate = |took: Duration| {
            let seconds = took.as_secs_f64().max(1e-6);
            format!(
                "{:.0} records/s, {:.1} MB/s",
                self.lines as f64 / seconds,
                self.bytes as f64 / 1e6 / seconds
            )
        };
        print_line("every record      came back once, unchanged")?;
        print_line(&format!(
            "order per key     verified for {} keys",
            self.keys
        ))?;
        let (produced, consumed) = (rate(self.produce_took), rate(self.consume_took));
        print_line(&format!(
            "produced          {produced} (acks=all, flushed to disk)"
        ))?;
        print_line(&format!(
            "end to end        {consumed} (first line sent to last line read, group of 2)"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(key: &str, value: &str) -> Line {
        Line {
            key: key.into(),
            value: value.into(),
        }
    }

    #[test]
    fn lines_are_keyed_by_delimiter_or_first_word() {
        let by = |text: &str, delim| split_lines(text.as_bytes(), delim).unwrap();
        assert_eq!(
            by("a\tb c\nd", Some("\t")),
            [line("a", "b c"), line("", "d")]
        );
        assert_eq!(by("x y\nz\n", None), [line("x", "x y"), line("z", "z")]);
        assert_eq!(by("k::v\n", Some("::")), [line("k", "v")]);
        assert!(by("", None).is_empty());
    }

    #[test]
    fn the_directory_goes_with_the_demo() {
        let dir = tempdir().unwrap();
        let path = dir.path().to_owned();
        assert!(path.is_dir());
        drop(dir);
        assert!(!path.exists());
    }
}
