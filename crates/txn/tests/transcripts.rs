//! Replays the scripts of `testdata/*.txt` against one coordinator each: a command, a line of dashes, and what the
//! coordinator put out. `UPDATE=1 cargo test -p varve-txn` rewrites the expected parts; review the difference.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use varve_txn::{
    AppendId, Config, Coordinator, Failure, Input, Lost, Markers, Next, Now, Output, Place, Record,
    Reply, Tick, Ticket, codec,
};
use varve_types::{
    ErrorKind, LeaderEpoch, PartitionId, ProducerId, TopicId, TopicName, TransactionalId,
};

const WALL_START_MS: i64 = 1_700_000_000_000;

struct Script {
    coordinator: Coordinator,
    epoch: i32,
    tick: u64,
    next_ticket: u64,
    pending: BTreeMap<AppendId, (Vec<u8>, Option<Vec<u8>>)>,
    /// What is durable, in order.
    log: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

fn name(text: &str) -> TransactionalId {
    TransactionalId::new(text).unwrap()
}

/// A topic's id is the first byte of its name.
fn topic_id(name: &str) -> TopicId {
    TopicId(name.as_bytes()[0].into())
}

fn places(text: &str) -> Vec<Place> {
    text.split(',')
        .map(|item| {
            let (topic, number) = item.rsplit_once(':').unwrap();
            Place {
                topic: topic_id(topic),
                name: TopicName::new(topic).unwrap(),
                partition: PartitionId(number.parse().unwrap()),
            }
        })
        .collect()
}

fn producer(text: &str) -> ProducerId {
    let (id, epoch) = text.split_once('/').unwrap();
    ProducerId {
        id: id.parse().unwrap(),
        epoch: epoch.parse().unwrap(),
    }
}

fn join<'a>(places: impl IntoIterator<Item = &'a Place>) -> String {
    let all: Vec<_> = places.into_iter().map(ToString::to_string).collect();
    all.join(",")
}

fn config() -> Config {
    Config {
        ids_max: 4,
        open_max: 2,
        partitions_max: 3,
        max_waiting: 2,
        expiration_ms: 3_600_000,
        ..Config::default()
    }
}

impl Script {
    fn new() -> Self {
        Self {
            coordinator: Coordinator::new(config(), LeaderEpoch::new(5).unwrap()),
            epoch: 5,
            tick: 0,
            next_ticket: 1,
            pending: BTreeMap::new(),
            log: Vec::new(),
        }
    }

    fn now(&self) -> Now {
        Now {
            tick: Tick(self.tick),
            wall_ms: WALL_START_MS + i64::try_from(self.tick).unwrap(),
        }
    }

    fn ticket(&mut self) -> Ticket {
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        ticket
    }

    fn input(&mut self, line: &str) -> Input {
        let words: Vec<&str> = line.split_whitespace().collect();
        let named = |key: &str| {
            words
                .iter()
                .find_map(|w| w.strip_prefix(key)?.strip_prefix(':'))
        };
        let fresh = named("fresh").map_or(100, |f| f.parse().unwrap());
        let id = || AppendId(words[1].parse().unwrap());
        match words[0] {
            "load-raw" => Input::Load {
                key: unhex(words[1]),
                value: words.get(2).map(|v| unhex(v)),
            },
            "loaded" => Input::Loaded,
            "drain" => Input::Drain,
            "topics" => {
                let all = words[1..].iter().map(|t| topic_id(t)).collect();
                Input::Topics(Arc::new(all))
            }
            "durable" => {
                let record = self.pending.remove(&id()).unwrap();
                self.log.push(record);
                Input::Durable { id: id() }
            }
            "refused" | "unknown" => {
                let record = self.pending.remove(&id()).unwrap();
                let (lost, kind, text) = match words[0] {
                    "refused" => (
                        Lost::Refused,
                        ErrorKind::NotEnoughReplicas,
                        "too few replicas",
                    ),
                    _ => (
                        Lost::Unknown,
                        ErrorKind::CommitTimeout,
                        "not committed in time",
                    ),
                };
                if words.contains(&"written") {
                    self.log.push(record);
                }
                Input::Failed {
                    id: id(),
                    lost,
                    failure: Failure::new(kind, text),
                }
            }
            "init" => Input::Init {
                ticket: self.ticket(),
                name: name(words[1]),
                timeout_ms: named("timeout").map_or(60_000, |t| t.parse().unwrap()),
                fresh,
                keep: named("keep").map(producer),
            },
            "add" => Input::Add {
                ticket: self.ticket(),
                name: name(words[1]),
                producer: producer(words[2]),
                partitions: words.get(3).map_or_else(Vec::new, |p| places(p)),
            },
            "verify" => Input::Verify {
                ticket: self.ticket(),
                name: name(words[1]),
                producer: producer(words[2]),
                partitions: places(words[3]),
            },
            "commit" | "rollback" => Input::End {
                ticket: self.ticket(),
                name: name(words[1]),
                producer: producer(words[2]),
                commit: words[0] == "commit",
                next: match words.contains(&"keep") {
                    true => Next::Same,
                    false => Next::Epoch { fresh },
                },
            },
            "told" => Input::MarkersDone {
                name: name(words[1]),
                producer: producer(words[2]),
                number: named("number").map(|n| n.parse().unwrap()),
                partitions: places(words[3]),
            },
            "not-told" => Input::MarkersFailed {
                name: name(words[1]),
                producer: producer(words[2]),
                number: named("number").map(|n| n.parse().unwrap()),
            },
            "abort" => Input::Abort {
                ticket: self.ticket(),
                name: name(words[1]),
            },
            "list" => Input::List {
                ticket: self.ticket(),
            },
            "get" => Input::Get {
                ticket: self.ticket(),
                name: name(words[1]),
            },
            other => panic!("unknown command {other:?}"),
        }
    }

    /// Another coordinator takes over what is durable.
    fn fail_over(&mut self, out: &mut Vec<Output>) {
        self.epoch += 1;
        self.pending.clear();
        self.coordinator = Coordinator::new(config(), LeaderEpoch::new(self.epoch).unwrap());
        for (key, value) in self.log.clone() {
            let load = Input::Load { key, value };
            self.coordinator.step(self.now(), load, out);
        }
        self.coordinator.step(self.now(), Input::Loaded, out);
    }

    /// Runs one command and prints what came out.
    fn run(&mut self, line: &str) -> String {
        let mut out = Vec::new();
        if let Some(ms) = line.strip_prefix("wait ") {
            let end = self.tick + ms.trim().parse::<u64>().unwrap();
            // As a rim does: a tick whenever the coordinator asked for one.
            while let Some(due) = self.coordinator.next_deadline().filter(|d| d.0 <= end) {
                self.tick = due.0.max(self.tick);
                self.coordinator.step(self.now(), Input::Tick, &mut out);
            }
            self.tick = end;
        } else if let Some(ms) = line.strip_prefix("late ") {
            // Time passes, and the tick that is due comes late.
            self.tick += ms.trim().parse::<u64>().unwrap();
        } else if line == "failover" {
            self.fail_over(&mut out);
        } else {
            let input = self.input(line);
            self.coordinator.step(self.now(), input, &mut out);
        }
        let mut text = String::new();
        for output in &out {
            if let Output::Append { id, key, value, .. } = output {
                self.pending.insert(*id, (key.clone(), value.clone()));
            }
            print(&mut text, output);
        }
        if out.is_empty() {
            text.push_str("ok\n");
        }
        text
    }
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len() / 2)
        .map(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).unwrap())
        .collect()
}

fn session(p: ProducerId) -> String {
    format!("{}/{}", p.id, p.epoch)
}

fn print_record(record: &Record) -> String {
    let mut line = format!("{:?} {}", record.state, session(record.producer));
    if let Some(previous) = record.previous {
        let _ = write!(line, " after {}", session(previous));
    }
    if record.number > 0 {
        let _ = write!(line, " #{}", record.number);
    }
    let _ = write!(line, " by {:?}", record.cause);
    if let Some(started) = record.started_ms {
        let _ = write!(
            line,
            " since {} [{}]",
            started - WALL_START_MS,
            join(&record.partitions)
        );
    }
    line
}

fn print(text: &mut String, output: &Output) {
    let line = match output {
        Output::LoadSkipped { error } => format!("skipped: {error}"),
        Output::Append {
            id, name, value, ..
        } => {
            let what = value.as_ref().map_or_else(
                || "forgotten".to_owned(),
                |v| print_record(&codec::decode_value(v).unwrap()),
            );
            format!("append {}: {name} {what}", id.0)
        }
        Output::SendMarkers(Markers {
            name,
            producer,
            number,
            commit,
            coordinator_epoch,
            partitions,
        }) => {
            let what = if *commit { "commit" } else { "abort" };
            let (mut p, places) = (session(*producer), join(partitions));
            if let Some(number) = number {
                let _ = write!(p, " #{number}");
            }
            format!("tell {places} {what} of {name} {p} in epoch {coordinator_epoch}")
        }
        Output::Reply { ticket, reply } => format!("#{} {}", ticket.0, print_reply(reply)),
    };
    let _ = writeln!(text, "{line}");
}

fn print_reply(reply: &Reply) -> String {
    match reply {
        Reply::Session(p) => format!("session {}", session(*p)),
        Reply::Added => "added".to_owned(),
        Reply::Verified => "verified".to_owned(),
        Reply::Ended(p) => format!("ended, go on with {}", session(*p)),
        Reply::Aborted => "aborted".to_owned(),
        Reply::Transactions(all) => {
            let mut line = format!("{} ids", all.len());
            for t in all {
                let _ = write!(line, "\n  {} {:?} {}", t.name, t.state, session(t.producer));
            }
            line
        }
        Reply::Transaction(t) => format!(
            "{} {:?} {} by {:?} timeout={} started={:?} updated={} [{}] untold [{}]{}",
            t.name,
            t.state,
            session(t.producer),
            t.cause,
            t.timeout_ms,
            t.started_ms.map(|ms| ms - WALL_START_MS),
            t.updated_ms - WALL_START_MS,
            join(&t.partitions),
            join(&t.untold),
            if t.writing { " writing" } else { "" }
        ),
        Reply::Failed(e) => format!("{}: {e}", e.kind.reason()),
    }
}

/// One script: blocks of `command`, `----`, expected lines, separated by blank lines; `#` comments.
fn replay(source: &str) -> String {
    let mut script = Script::new();
    let mut result = String::new();
    let mut lines = source.lines().peekable();
    while let Some(line) = lines.next() {
        if line.trim().is_empty() || line.starts_with('#') {
            result.push_str(line);
            result.push('\n');
            continue;
        }
        let printed = script.run(line);
        let _ = write!(result, "{line}\n----\n{printed}");
        if lines.peek() == Some(&"----") {
            while lines.next_if(|l| !l.trim().is_empty()).is_some() {}
        }
    }
    result
}

#[test]
fn transcripts_replay_as_written() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/testdata");
    let mut paths: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    assert!(!paths.is_empty(), "{folder} holds the transcripts");
    for path in paths {
        let source = std::fs::read_to_string(&path).unwrap();
        let replayed = replay(&source);
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(&path, &replayed).unwrap();
        } else {
            assert_eq!(
                source,
                replayed,
                "{} (UPDATE=1 rewrites it)",
                path.display()
            );
        }
    }
}
