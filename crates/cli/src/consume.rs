//! `varve consume`: reads partitions, or as a group member, and prints records.
//!
//! Output is buffered unless it goes to a terminal, and written out whenever no batch is waiting, so that
//! a pipe sees new records at once and a long read is fast.

use std::collections::{BTreeMap, BTreeSet};
use std::io::IsTerminal as _;
use std::time::Duration;

use futures_util::FutureExt as _;
use varve_client::{
    Admin, Assignment, ClientError, Consumer, ConsumerConfig, End, FetchedBatch, Start, Topics,
    proto as v1,
};
use varve_types::TopicName;

use crate::args::{ConsumeArgs, Global};
use crate::connection::{Settings, suggest_topic};
use crate::consume_group;
use crate::failure::{CONDITION, Failure, NOT_FOUND};
use crate::format::{Fields, Format};
use crate::interrupt::Interrupts;
use crate::json;
use crate::offset::{self, From, Spec};
use crate::progress::Progress;
use crate::words::count;
use crate::{output, reach, told};

/// Buffered output is written out beyond this many bytes.
const FLUSH_BYTES: usize = 256 * 1024;
/// Time without a record after which a person at a terminal reads what the command waits for.
pub const HINT_AFTER: Duration = Duration::from_millis(500);
/// Printed when a second interrupt ends a read.
pub const ABORTED: &str = "interrupted twice; ended without leaving the group cleanly";

/// Runs the command.
///
/// # Errors
/// [`Failure`] when something cannot be read, or fewer records came than required.
pub async fn run(global: &Global, args: Box<ConsumeArgs>) -> Result<u8, Failure> {
    let settings = Settings::resolve(global)?;
    let now = jiff::Timestamp::now().as_millisecond();
    let mut spec = Spec::default();
    for text in &args.offset {
        let more = offset::parse(text, now).map_err(Failure::usage)?;
        spec = spec.and(more).map_err(Failure::usage)?;
    }
    if args.from_beginning {
        spec.start = Some(From::Place(Start::Earliest));
    }
    if args.exit_at_end && spec.end.is_none() {
        spec.end = Some(End::CurrentEnd);
    }
    let mut printer = Printer::new(&args, !global.quiet)?;
    printer.tells = !global.quiet && told::sees_output();
    let result = if args.group.is_some() {
        consume_group::run(&settings, &args, spec, &mut printer).await
    } else {
        run_assigned(&settings, &args, spec, &mut printer).await
    };
    printer.progress.finish();
    let flushed = printer.flush();
    result?;
    flushed?;
    printer.verdict(args.require)
}

/// Settings of the consumer.
///
/// # Errors
/// Usage, when a setting is wrong.
pub fn consumer_config(settings: &Settings, args: &ConsumeArgs) -> Result<ConsumerConfig, Failure> {
    Ok(ConsumerConfig {
        prefetch_bytes: settings.bytes("prefetch.bytes")?,
        check_crcs: settings.parse("check.crcs", |text| {
            text.parse()
                .map_err(|_| format!("true or false, found {text:?}"))
        })?,
        rack: args
            .rack
            .clone()
            .unwrap_or_else(|| settings.text("rack").to_owned()),
        open_timeout: settings.timeout(),
        ..ConsumerConfig::default()
    })
}

/// Topics that are named, or that the expressions match.
///
/// # Errors
/// When there is none, or an expression is wrong.
pub async fn topics(settings: &Settings, args: &ConsumeArgs) -> Result<Vec<TopicName>, Failure> {
    let given: Vec<&String> = args.topics.iter().chain(&args.more_topics).collect();
    if given.is_empty() {
        return Err(Failure::usage("no topic is given: varve consume TOPIC"));
    }
    let mut names = BTreeSet::new();
    if args.regex {
        let admin = settings.admin()?;
        let all = admin.all_topics("", false).await?;
        for pattern in given {
            let pattern = whole_name(pattern)?;
            names.extend(
                all.iter()
                    .map(|topic| topic.name.as_str())
                    .filter(|name| pattern.is_match(name)),
            );
        }
        if names.is_empty() {
            let patterns: Vec<&str> = args
                .topics
                .iter()
                .chain(&args.more_topics)
                .map(String::as_str)
                .collect();
            return Err(Failure::new(
                NOT_FOUND,
                format!("no topic matches {}", patterns.join(", ")),
            ));
        }
        return parse_names(names.into_iter());
    }
    names.extend(given.into_iter().map(String::as_str));
    parse_names(names.into_iter())
}

fn parse_names<'a>(names: impl Iterator<Item = &'a str>) -> Result<Vec<TopicName>, Failure> {
    names
        .map(|name| {
            TopicName::new(name).map_err(|error| Failure::usage(format!("{name:?}: {error}")))
        })
        .collect()
}

/// An expression that must match a whole name.
///
/// # Errors
/// Usage, when it is wrong.
pub fn whole_name(pattern: &str) -> Result<regex::Regex, Failure> {
    regex::Regex::new(&format!("^(?:{pattern})$")).map_err(|error| bad_pattern(pattern, &error))
}

/// What is wrong with an expression, in one line; the parser's own text has several.
#[must_use]
pub fn bad_pattern(pattern: &str, error: &regex::Error) -> Failure {
    let text = error.to_string();
    let last = text.lines().next_back().unwrap_or_default();
    let reason = last.trim_start_matches("error: ");
    Failure::usage(format!("{pattern:?} is not a regular expression: {reason}"))
}

/// Partitions of a topic: those asked for, or all.
///
/// # Errors
/// When the topic or a partition does not exist.
pub async fn partitions_of(
    admin: &Admin,
    topic: &TopicName,
    wanted: &[i32],
) -> Result<Vec<i32>, Failure> {
    let request = v1::GetMetadataRequest {
        topics: vec![topic.to_string()],
        all_topics: false,
    };
    let metadata = admin.get_metadata(request).await?;
    let found = metadata
        .topics
        .into_iter()
        .find(|found| found.topic == topic.as_str());
    let missing = || ClientError::TopicNotFound(topic.to_string());
    let found = match found {
        Some(found) if found.error.is_none() => found,
        _ => return Err(suggest_topic(admin, topic.as_str(), missing()).await),
    };
    let count = found.partitions.len() as i32;
    if wanted.is_empty() {
        return Ok((0..count).collect());
    }
    match wanted
        .iter()
        .find(|partition| !(0..count).contains(*partition))
    {
        None => Ok(wanted.to_vec()),
        Some(partition) => {
            let (topic, partition) = (topic.to_string(), *partition);
            Err(ClientError::PartitionNotFound {
                topic,
                partition,
                count,
            }
            .into())
        }
    }
}

async fn run_assigned(
    settings: &Settings,
    args: &ConsumeArgs,
    spec: Spec,
    printer: &mut Printer,
) -> Result<(), Failure> {
    let start = match spec.start {
        None => Start::Earliest,
        Some(From::Place(start)) => start,
        Some(From::Stored) => {
            return Err(Failure::usage(
                "stored offsets belong to a group; add -g GROUP",
            ));
        }
    };
    let admin = settings.admin()?;
    let mut assignments = Vec::new();
    for topic in topics(settings, args).await? {
        for partition in partitions_of(&admin, &topic, &args.partition).await? {
            let topic = topic.clone();
            let end = spec.end.unwrap_or(End::Never);
            assignments.push(Assignment {
                topic,
                partition,
                start,
                end,
            });
        }
    }
    reach::settle(settings, &admin, &mut assignments, args.exit_at_end).await?;
    let waits = {
        let mut topics: Vec<TopicName> = assignments.iter().map(|at| at.topic.clone()).collect();
        topics.dedup();
        told::waiting(&topics, assignments.len(), None)
    };
    let config = consumer_config(settings, args)?;
    let client = settings.reading_client(args.isolation)?;
    let ends = !matches!(spec.end, None | Some(End::Never));
    let mut consumer = Consumer::open(client, config, assignments).await?;
    if args.partition.is_empty() && !ends {
        consumer.follow(followed(args)?);
    }
    let stop = Interrupts::listen(ABORTED).first();
    tokio::pin!(stop);
    let idle = idle_timeout(args);
    while !printer.is_full() {
        let batch = match consumer.next_batch().now_or_never() {
            Some(batch) => batch,
            None => {
                // No batch is ready: the reader of our output gets what there is.
                printer.flush()?;
                let quiet = printer.tells.then_some(HINT_AFTER.min(idle));
                tokio::select! {
                    biased;
                    () = &mut stop => return Ok(()),
                    batch = tokio::time::timeout(quiet.unwrap_or(idle), consumer.next_batch()) => match batch {
                        Ok(batch) => batch,
                        Err(_) if quiet.is_some_and(|quiet| quiet < idle) => {
                            printer.tell(&waits);
                            continue;
                        }
                        Err(_) => return Ok(()),
                    },
                }
            }
        };
        match batch? {
            None => return Ok(()),
            Some(batch) => {
                printer.print(&batch, i64::MAX)?;
            }
        }
        if stop.as_mut().now_or_never().is_some() {
            return Ok(());
        }
    }
    Ok(())
}

/// What is read of the topics that the command line names, also when it comes later.
fn followed(args: &ConsumeArgs) -> Result<Topics, Failure> {
    let given = args.topics.iter().chain(&args.more_topics);
    if !args.regex {
        return Ok(Topics::Named(parse_names(given.map(String::as_str))?));
    }
    let patterns: Vec<String> = given.map(|pattern| format!("(?:{pattern})")).collect();
    Ok(Topics::Matching(whole_name(&patterns.join("|"))?))
}

/// How long to wait without a record.
#[must_use]
pub fn idle_timeout(args: &ConsumeArgs) -> Duration {
    let ms = args.timeout_ms.map(Duration::from_millis);
    // Without a limit: three decades.
    args.idle_timeout
        .or(ms)
        .unwrap_or(Duration::from_secs(1_000_000_000))
}

enum Style {
    Format(Format),
    Json { pretty: bool },
}

/// Prints records to standard output.
pub struct Printer {
    style: Style,
    values: bool,
    unbuffered: bool,
    out: Vec<u8>,
    printed: u64,
    left: u64,
    /// Bytes and bar.
    pub progress: Progress,
    topics: BTreeMap<TopicName, String>,
    /// Whether a person is still to be told that the command waits.
    pub tells: bool,
}

impl Printer {
    fn new(args: &ConsumeArgs, progress: bool) -> Result<Self, Failure> {
        let terminal = std::io::stdout().is_terminal();
        let json = args.json || args.format.as_deref() == Some("json");
        let style = if json || args.json_pretty {
            Style::Json {
                pretty: args.json_pretty,
            }
        } else {
            let text = match &args.format {
                Some(text) => text.clone(),
                None => default_format(args),
            };
            Style::Format(Format::parse(&text, &args.null).map_err(Failure::usage)?)
        };
        Ok(Self {
            style,
            values: !args.meta_only,
            unbuffered: args.unbuffered || terminal,
            out: Vec::with_capacity(2 * FLUSH_BYTES),
            printed: 0,
            left: args.count.unwrap_or(u64::MAX),
            progress: Progress::bytes(None, progress && !terminal),
            topics: BTreeMap::new(),
            tells: false,
        })
    }

    /// Tells a person once that the command waits.
    pub fn tell(&mut self, waits: &str) {
        if std::mem::take(&mut self.tells) {
            told::line(waits);
        }
    }

    /// Whether the requested number of records was printed.
    #[must_use]
    pub const fn is_full(&self) -> bool {
        self.left == 0
    }

    /// Prints the batch's records before `end`, as many as are still wanted. Returns the offset after the
    /// last one printed.
    ///
    /// # Errors
    /// When the batch is damaged, or standard output cannot be written.
    pub fn print(&mut self, batch: &FetchedBatch, end: i64) -> Result<i64, Failure> {
        self.progress.add(batch.batch.bytes.len() as u64);
        let mut records = batch.records()?;
        let topic = self
            .topics
            .entry(batch.topic.clone())
            .or_insert_with(|| batch.topic.to_string())
            .clone();
        let leader_epoch = batch.batch.header.leader_epoch.get();
        while self.left > 0 {
            let Some(record) = records.next_ref()? else {
                return Ok(batch.next_offset.min(end));
            };
            if record.offset.get() >= end {
                return Ok(end);
            }
            self.left -= 1;
            self.printed += 1;
            let fields = Fields {
                topic: &topic,
                partition: batch.partition.0,
                offset: record.offset.get(),
                timestamp: record.timestamp,
                key: record.key,
                value: if self.values { record.value } else { None },
                headers: record.headers,
                count: self.printed,
                leader_epoch,
            };
            match &self.style {
                Style::Format(format) => format.render(&fields, &mut self.out),
                Style::Json { pretty } => {
                    json::write(&fields, self.values, *pretty, &mut self.out)
                        .map_err(std::io::Error::from)?;
                    self.out.push(b'\n');
                }
            }
            if self.unbuffered || self.out.len() >= FLUSH_BYTES {
                write_out(&mut self.out)?;
            }
            if self.left == 0 {
                return Ok(record.offset.get() + 1);
            }
        }
        Ok(batch.next_offset.min(end))
    }

    /// Writes out what is buffered.
    ///
    /// # Errors
    /// When standard output cannot be written.
    pub fn flush(&mut self) -> Result<(), Failure> {
        write_out(&mut self.out)
    }

    fn verdict(&self, required: Option<u64>) -> Result<u8, Failure> {
        match required {
            Some(required) if self.printed < required => {
                let found = count(self.printed, "record");
                Err(Failure::new(
                    CONDITION,
                    format!("{found} read, but --require is {required}"),
                ))
            }
            _ => Ok(0),
        }
    }
}

fn write_out(out: &mut Vec<u8>) -> Result<(), Failure> {
    if !out.is_empty() {
        output::write_out(out)?;
        output::flush()?;
        out.clear();
    }
    Ok(())
}

/// The format that the simple flags stand for.
fn default_format(args: &ConsumeArgs) -> String {
    let escape =
        |bytes: &[u8]| -> String { bytes.iter().map(|byte| format!("\\x{byte:02x}")).collect() };
    let offset = if args.print_offset { "%o\\t" } else { "" };
    let key = match &args.key_delim {
        Some(delimiter) => format!("%k{}", escape(&delimiter.0)),
        None => String::new(),
    };
    let value = if args.meta_only {
        "%t %p %o %T %k %h"
    } else {
        "%v"
    };
    let end = args
        .delim
        .as_ref()
        .map_or_else(|| "\\n".to_owned(), |d| escape(&d.0));
    format!("{offset}{key}{value}{end}")
}
