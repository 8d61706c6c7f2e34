//! `varve produce`: reads records from standard input or files and exits with 0 only when every one of
//! them was acknowledged.

use std::io::{Read, Write as _};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use tokio::sync::mpsc;
use varve_client::producer::OnBatch;
use varve_client::{Client, ProducerConfig, RecordRef};
use varve_types::TopicName;

use crate::args::{Global, ProduceArgs};
use crate::connection::{Settings, suggest_topic};
use crate::failure::{FAILED, Failure, NOT_FOUND};
use crate::format::{Fields, Format};
use crate::input::{Cut, InputFormat, Next, Splitter, json_line};
use crate::interrupt::Interrupts;
use crate::json::JsonRecord;
use crate::output::write_out;
use crate::parse;
use crate::progress::Progress;
use crate::sink::Sink;
use crate::told;
use crate::words::count;

/// Bytes read at once.
const CHUNK_BYTES: usize = 1024 * 1024;
/// Longest record that is searched for its end.
const RECORD_MAX_BYTES: usize = varve_types::limits::BUILT_BATCH_MAX_BYTES;

/// Printed when a second interrupt ends the command.
const ABORTED: &str =
    "interrupted while records were being sent; they may or may not be in the log";

/// What was acknowledged and what was not.
#[derive(Debug, Default)]
struct Tally {
    acknowledged: AtomicU64,
    failed: AtomicU64,
    repeated: AtomicU64,
    /// Why acknowledged records could not be printed.
    unprinted: Mutex<Option<std::io::Error>>,
}

impl Tally {
    /// Whether all was printed that was to be.
    fn printed(&self) -> Result<(), Failure> {
        let unprinted = self.unprinted.lock();
        match unprinted.unwrap_or_else(PoisonError::into_inner).take() {
            None => Ok(()),
            Some(error) => {
                let mut failure = Failure::unprinted(&error);
                failure.message = format!("all records were written, but {}", failure.message);
                Err(failure)
            }
        }
    }
}

/// What a record gets where the input gives nothing.
struct Defaults {
    key: Option<Vec<u8>>,
    headers: Vec<(String, Option<String>)>,
    partition: Option<i32>,
    timestamp: Option<i64>,
    null_empty: bool,
}

struct Session {
    sink: Sink,
    topic: Option<TopicName>,
    defaults: Defaults,
    json: bool,
    splitter: Splitter,
    tee: bool,
    left: u64,
    records: u64,
    bytes: u64,
    progress: Progress,
    interrupts: Interrupts,
}

/// Where the input comes from.
enum Source {
    Stdin,
    /// Texts of the command line.
    Values(Vec<String>),
    Lines(Vec<PathBuf>),
    Files(Vec<PathBuf>),
}

/// Runs the command.
///
/// # Errors
/// [`Failure`] when a record was not acknowledged, or the input cannot be read.
pub async fn run(global: &Global, args: Box<ProduceArgs>) -> Result<u8, Failure> {
    let settings = Settings::resolve(global)?;
    let client = settings.data_client()?;
    let tally = Arc::new(Tally::default());
    let (topic, files) = topic_and_files(&args)?;
    let config = producer_config(&settings, &args, tally.clone())?;
    let defaults = defaults(&args)?;
    if let Some(topic) = &topic {
        check_topic(&settings, &client, topic).await?;
    }
    check_files(&files, topic.as_ref())?;
    if !args.value.is_empty() && !files.is_empty() {
        return Err(Failure::usage(
            "--value and files cannot be combined; nothing was written",
        ));
    }
    let source = match (files.is_empty(), args.lines) {
        (true, _) if !args.value.is_empty() => Source::Values(args.value.clone()),
        (true, _) => Source::Stdin,
        (false, true) => Source::Lines(files),
        (false, false) => Source::Files(files),
    };
    let size = total_size(&source);
    let by_hand = matches!(source, Source::Stdin) && is_terminal_input();
    let json = args.json || args.format.as_deref() == Some("json");
    let splitter = match &args.format {
        Some(format) if !json => {
            Splitter::Format(InputFormat::parse(format).map_err(Failure::usage)?)
        }
        _ => Splitter::Delimited {
            delimiter: args.delim.0.clone(),
            key_delimiter: args.key_delim.as_ref().map(|delimiter| delimiter.0.clone()),
        },
    };
    let mut session = Session {
        sink: Sink::open(client, config, &args).await?,
        topic,
        defaults,
        json,
        splitter,
        tee: args.tee,
        left: args.count.unwrap_or(u64::MAX),
        records: 0,
        bytes: 0,
        progress: Progress::bytes(size, !global.quiet && !by_hand),
        interrupts: Interrupts::listen(ABORTED),
    };
    if by_hand && !global.quiet && told::types_input() {
        told::line(&told::typing(session.topic.as_ref()));
    }
    let started = Instant::now();
    let read = match source {
        Source::Values(values) => session.values(&values).await,
        Source::Files(files) => session.whole_files(files).await,
        Source::Stdin => session.stream(Vec::new()).await,
        Source::Lines(files) => session.stream(files).await,
    };
    session.progress.finish();
    let flushed = session.sink.finish(read.is_ok()).await;
    let seconds = started.elapsed().as_secs_f64();
    if global.verbose > 0 {
        summary(&tally, session.bytes, seconds);
    }
    read?;
    flushed.map_err(|failure| with_counts(&tally, failure))?;
    let code = outcome(&tally)?;
    tally.printed()?;
    let watched = global.verbose > 0 || crate::failure::stderr_is_terminal();
    if watched && !global.quiet {
        told::line(&told::written(session.records, session.topic.as_ref()));
    }
    Ok(code)
}

fn outcome(tally: &Tally) -> Result<u8, Failure> {
    match tally.failed.load(Ordering::Relaxed) {
        0 => Ok(0),
        failed => Err(Failure::new(
            FAILED,
            format!("{} not acknowledged", count(failed, "record")),
        )),
    }
}

/// A failure with the number of records that it is about.
fn with_counts(tally: &Tally, failure: Failure) -> Failure {
    let failed = tally.failed.load(Ordering::Relaxed);
    let all = failed + tally.acknowledged.load(Ordering::Relaxed);
    if failed == 0 {
        // A transaction may fail although every record was acknowledged.
        return failure;
    }
    failure.context(&format!("{failed} of {all} records not written"))
}

fn summary(tally: &Tally, bytes: u64, seconds: f64) {
    let acknowledged = tally.acknowledged.load(Ordering::Relaxed);
    let failed = tally.failed.load(Ordering::Relaxed);
    let repeated = tally.repeated.load(Ordering::Relaxed);
    let rate = bytes as f64 / 1e6 / seconds.max(1e-9);
    let _ = writeln!(
        std::io::stderr(),
        "{} acknowledged, {failed} failed, {} dropped, {} in {seconds:.2} s ({rate:.1} MB/s)",
        count(acknowledged, "record"),
        count(repeated, "duplicate"),
        count(bytes, "byte")
    );
}

fn is_terminal_input() -> bool {
    std::io::IsTerminal::is_terminal(&std::io::stdin())
}

/// With -t every argument is a file; otherwise the first is the topic.
fn topic_and_files(args: &ProduceArgs) -> Result<(Option<TopicName>, Vec<PathBuf>), Failure> {
    let parse = |name: &str| {
        TopicName::new(name)
            .map(Some)
            .map_err(|error| Failure::usage(format!("{name:?}: {error}")))
    };
    let (topic, files) = match (&args.topic, args.inputs.split_first()) {
        (Some(topic), _) => (parse(topic)?, &args.inputs[..]),
        (None, Some((first, rest))) => (parse(first)?, rest),
        (None, None) => (None, &[][..]),
    };
    let names_itself = args.json
        || args
            .format
            .as_ref()
            .is_some_and(|format| format == "json" || format.contains("%t"));
    if topic.is_none() && !names_itself {
        return Err(Failure::usage("no topic is given: varve produce TOPIC"));
    }
    Ok((topic, files.iter().map(PathBuf::from).collect()))
}

/// Checks the files before anything is sent: a text in the place of a file is a common slip.
fn check_files(files: &[PathBuf], topic: Option<&TopicName>) -> Result<(), Failure> {
    for file in files {
        let name = file.display();
        let topic = topic.map_or("TOPIC", TopicName::as_str);
        match std::fs::metadata(file) {
            Ok(metadata) if metadata.is_dir() => {
                return Err(Failure::usage(format!(
                    "{name} is a directory; name its files, or with -l files with a record per line; nothing was \
                     written"
                )));
            }
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let text = match files.len() {
                    1 => format!(
                        "; to send the text: echo {name} | varve produce {topic}, or varve produce {topic} --value \
                         {name}"
                    ),
                    _ => String::new(),
                };
                return Err(Failure::new(
                    NOT_FOUND,
                    format!("there is no file {name}; nothing was written{text}"),
                ));
            }
            Err(error) => return Err(Failure::from(error).context(&name.to_string())),
        }
    }
    Ok(())
}

/// Fails early, and with a hint, when the topic does not exist.
async fn check_topic(
    settings: &Settings,
    client: &Client,
    topic: &TopicName,
) -> Result<(), Failure> {
    let topics = [topic.to_string()];
    match client
        .retrying(settings.timeout(), || client.refresh(&topics))
        .await
    {
        Ok(()) => Ok(()),
        Err(error) => Err(suggest_topic(&settings.admin()?, topic.as_str(), error).await),
    }
}

fn defaults(args: &ProduceArgs) -> Result<Defaults, Failure> {
    let now = jiff::Timestamp::now().as_millisecond();
    let timestamp = match &args.at {
        Some(at) => Some(parse::time(at, now).map_err(Failure::usage)?),
        None => args.timestamp,
    };
    Ok(Defaults {
        key: args.key.clone().map(String::into_bytes),
        headers: args.header.clone(),
        partition: args.partition,
        timestamp,
        null_empty: args.null_empty,
    })
}

fn producer_config(
    settings: &Settings,
    args: &ProduceArgs,
    tally: Arc<Tally>,
) -> Result<ProducerConfig, Failure> {
    let or = |flag: Option<_>, name: &str| flag.map_or_else(|| settings.duration(name), Ok);
    let level = match settings.text("compression.level") {
        "" => None,
        _ => Some(settings.parse("compression.level", |text| {
            text.parse::<i32>().map_err(|error| error.to_string())
        })?),
    };
    let on_batch = on_batch(args, tally)?;
    Ok(ProducerConfig {
        acks: match args.acks {
            Some(acks) => acks,
            None => settings.parse("acks", str::parse)?,
        },
        idempotent: !args.no_idempotent,
        name: args.producer_name.clone(),
        linger: or(args.linger, "linger")?,
        batch_bytes: args
            .batch_size
            .map_or_else(|| settings.bytes("batch.size"), Ok)?,
        buffer_bytes: settings.bytes("buffer.memory")?,
        compression: match args.compression {
            Some(codec) => codec,
            None => settings.parse("compression", str::parse)?,
        },
        compression_level: level,
        delivery_timeout: or(args.delivery_timeout, "delivery.timeout")?,
        on_batch: Some(on_batch),
        ..ProducerConfig::default()
    })
}

/// Counts what was settled, and prints acknowledged records when asked to.
fn on_batch(args: &ProduceArgs, tally: Arc<Tally>) -> Result<OnBatch, Failure> {
    let format = match &args.output_format {
        None => None,
        Some(text) => {
            let format = Format::parse(text, "").map_err(Failure::usage)?;
            if let Some(token) = format.needs_record() {
                return Err(Failure::usage(format!(
                    "{token} is not available when a record is acknowledged; use %t, %p, %o and %i"
                )));
            }
            Some(format)
        }
    };
    let text = Mutex::new(Vec::new());
    Ok(Arc::new(move |report| {
        let records = u64::from(report.records);
        let Ok(ack) = &report.result else {
            tally.failed.fetch_add(records, Ordering::Relaxed);
            return;
        };
        let before = tally.acknowledged.fetch_add(records, Ordering::Relaxed);
        if ack.deduplicated {
            tally.repeated.fetch_add(records, Ordering::Relaxed);
        }
        let Some(format) = &format else { return };
        let mut text = text.lock().unwrap_or_else(PoisonError::into_inner);
        text.clear();
        for index in 0..records {
            let fields = Fields {
                topic: report.topic.as_str(),
                partition: report.partition.0,
                offset: ack.base_offset.map_or(-1, |base| base.plus(index).get()),
                count: before + index + 1,
                ..Fields::default()
            };
            format.render(&fields, &mut text);
        }
        let mut stdout = std::io::stdout().lock();
        if let Err(error) = stdout.write_all(&text).and_then(|()| stdout.flush()) {
            let unprinted = tally.unprinted.lock();
            *unprinted.unwrap_or_else(PoisonError::into_inner) = Some(error);
        }
    }))
}

fn total_size(source: &Source) -> Option<u64> {
    match source {
        Source::Values(values) => Some(values.iter().map(|value| value.len() as u64).sum()),
        Source::Stdin => {
            let metadata = std::fs::metadata("/dev/stdin").ok()?;
            metadata.is_file().then_some(metadata.len())
        }
        Source::Lines(files) | Source::Files(files) => files
            .iter()
            .map(|file| Some(std::fs::metadata(file).ok()?.len()))
            .sum(),
    }
}

/// Reads standard input, or files one after the other, on a thread of its own: a read of a terminal
/// cannot be interrupted.
fn read_chunks(files: Vec<PathBuf>) -> mpsc::Receiver<std::io::Result<Vec<u8>>> {
    let (chunks, receiver) = mpsc::channel(4);
    std::thread::spawn(move || {
        let send = |chunk| chunks.blocking_send(chunk).is_ok();
        let copy = |mut reader: Box<dyn Read>| {
            loop {
                let mut chunk = vec![0; CHUNK_BYTES];
                match reader.read(&mut chunk) {
                    Ok(0) => return true,
                    Ok(len) => {
                        chunk.truncate(len);
                        if !send(Ok(chunk)) {
                            return false;
                        }
                    }
                    Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                    Err(error) => {
                        send(Err(error));
                        return false;
                    }
                }
            }
        };
        if files.is_empty() {
            copy(Box::new(std::io::stdin().lock()));
            return;
        }
        for file in files {
            let opened = std::fs::File::open(&file);
            let name = file.display().to_string();
            let opened = opened
                .map_err(|error| std::io::Error::new(error.kind(), format!("{name}: {error}")));
            match opened {
                Ok(file) => {
                    if !copy(Box::new(file)) {
                        return;
                    }
                }
                Err(error) => {
                    send(Err(error));
                    return;
                }
            }
        }
    });
    receiver
}

impl Session {
    /// Sends every record of the stream. The first interrupt ends the input, not the command.
    async fn stream(&mut self, files: Vec<PathBuf>) -> Result<(), Failure> {
        let mut chunks = read_chunks(files);
        let stop = self.interrupts.clone().first();
        tokio::pin!(stop);
        let mut carry: Vec<u8> = Vec::new();
        loop {
            let chunk = tokio::select! {
                chunk = chunks.recv() => chunk,
                () = &mut stop => return Ok(()),
            };
            let last = chunk.is_none();
            if let Some(chunk) = chunk {
                let chunk = chunk?;
                self.progress.add(chunk.len() as u64);
                if carry.is_empty() {
                    carry = chunk;
                } else {
                    carry.extend_from_slice(&chunk);
                }
            }
            let taken = tokio::select! {
                taken = self.consume(&carry, last) => taken?,
                () = &mut stop => return Ok(()),
            };
            if last || self.left == 0 {
                return Ok(());
            }
            carry.drain(..taken);
            if carry.len() > RECORD_MAX_BYTES + CHUNK_BYTES {
                return Err(Failure::new(
                    FAILED,
                    format!(
                        "no record ends within {RECORD_MAX_BYTES} bytes; check the delimiter (-D)"
                    ),
                ));
            }
        }
    }

    /// Sends the whole records at the front of `input`; returns the bytes they took.
    async fn consume(&mut self, input: &[u8], last: bool) -> Result<usize, Failure> {
        let splitter = self.splitter.clone();
        let mut at = 0;
        while self.left > 0 {
            let next = splitter
                .next(&input[at..], last)
                .map_err(|error| self.bad_record(&error))?;
            let Next::Record(cut, taken) = next else {
                break;
            };
            if self.json {
                let line = cut.value.unwrap_or_default();
                if let Some(record) = json_line(line).map_err(|error| self.bad_record(&error))? {
                    self.send_json(&record).await?;
                }
            } else {
                self.send(&cut).await?;
            }
            if self.tee {
                write_out(&input[at..at + taken])?;
            }
            at += taken;
        }
        Ok(at)
    }

    fn bad_record(&self, error: &str) -> Failure {
        Failure::new(
            FAILED,
            format!("record {} of the input: {error}", self.records + 1),
        )
    }

    async fn send(&mut self, cut: &Cut<'_>) -> Result<(), Failure> {
        let value = cut
            .value
            .filter(|value| !(self.defaults.null_empty && value.is_empty()));
        let headers: Vec<(&[u8], Option<&[u8]>)> = self
            .defaults
            .headers
            .iter()
            .map(|(name, value)| (name.as_bytes(), value.as_deref().map(str::as_bytes)))
            .collect();
        let record = RecordRef {
            partition: self.defaults.partition.or(cut.partition),
            key: cut.key.or(self.defaults.key.as_deref()),
            value,
            headers: &headers,
            timestamp_ms: cut.timestamp.or(self.defaults.timestamp),
        };
        let named = match (&self.topic, cut.topic) {
            (Some(_), _) => None,
            (None, name) => Some(self.name(name.map(String::from_utf8_lossy).as_deref())?),
        };
        let Some(topic) = named.as_ref().or(self.topic.as_ref()) else {
            return Ok(());
        };
        self.sink.enqueue(topic, record).await?;
        self.bytes +=
            cut.value.map_or(0, <[u8]>::len) as u64 + cut.key.map_or(0, <[u8]>::len) as u64;
        self.records += 1;
        self.left -= 1;
        Ok(())
    }

    fn name(&self, name: Option<&str>) -> Result<TopicName, Failure> {
        let name = name
            .ok_or_else(|| self.bad_record("it names no topic, and the command line names none"))?;
        TopicName::new(name).map_err(|error| self.bad_record(&error.to_string()))
    }

    async fn send_json(&mut self, json: &JsonRecord) -> Result<(), Failure> {
        let mut headers: Vec<(&[u8], Option<&[u8]>)> = json
            .headers
            .iter()
            .map(|(name, value)| (name.as_slice(), value.as_deref()))
            .collect();
        headers.extend(
            self.defaults
                .headers
                .iter()
                .map(|(name, value)| (name.as_bytes(), value.as_deref().map(str::as_bytes))),
        );
        let topic = match &self.topic {
            Some(topic) => topic.clone(),
            None => self.name(json.topic.as_deref())?,
        };
        let empty_is_null = self.defaults.null_empty;
        let record = RecordRef {
            partition: self.defaults.partition,
            key: json.key.as_deref().or(self.defaults.key.as_deref()),
            value: json
                .value
                .as_deref()
                .filter(|value| !(empty_is_null && value.is_empty())),
            headers: &headers,
            timestamp_ms: json.timestamp.or(self.defaults.timestamp),
        };
        self.sink.enqueue(&topic, record).await?;
        self.bytes += json.value.as_ref().map_or(0, Vec::len) as u64;
        self.records += 1;
        self.left -= 1;
        Ok(())
    }

    /// One record per text of the command line.
    async fn values(&mut self, values: &[String]) -> Result<(), Failure> {
        for value in values {
            if self.left == 0 {
                break;
            }
            let cut = Cut {
                value: Some(value.as_bytes()),
                ..Cut::default()
            };
            self.send(&cut).await?;
            if self.tee {
                write_out(format!("{value}\n").as_bytes())?;
            }
        }
        Ok(())
    }

    /// One record per file. The first interrupt ends the input, not the command.
    async fn whole_files(&mut self, files: Vec<PathBuf>) -> Result<(), Failure> {
        let stop = self.interrupts.clone().first();
        tokio::pin!(stop);
        for file in files {
            if self.left == 0 {
                break;
            }
            let name = file.display().to_string();
            let value = tokio::task::spawn_blocking(move || std::fs::read(file))
                .await
                .map_err(|error| Failure::new(FAILED, error.to_string()))?
                .map_err(|error| Failure::from(error).context(&name))?;
            self.progress.add(value.len() as u64);
            let cut = Cut {
                value: Some(&value),
                ..Cut::default()
            };
            tokio::select! {
                biased;
                () = &mut stop => return Ok(()),
                sent = self.send(&cut) => sent.map_err(|failure| failure.context(&name))?,
            }
            if self.tee {
                write_out(&value)?;
            }
        }
        Ok(())
    }
}
