//! Replays the scripts of `testdata/*.txt` against one coordinator each: a command, a line of dashes,
//! and what the coordinator put out. `UPDATE=1 cargo test -p varve-groups` rewrites the expected parts;
//! review the difference.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use varve_groups::{
    AppendId, Config, Coordinator, Failure, Heartbeat, Input, Matcher, OffsetCommit, Output, Reply,
    Subscription, Tick, Ticket, TopicState, codec,
};
use varve_types::{
    ErrorKind, GroupName, LeaderEpoch, MemberId, Offset, PartitionId, TopicId, TopicName,
    TopicPartition,
};

/// `*` at the end stands for anything; `(` is not valid.
struct Glob;

impl Matcher for Glob {
    fn matches(&self, pattern: &str, topic: &str) -> Result<bool, String> {
        if pattern.contains('(') {
            return Err("unclosed group".to_owned());
        }
        Ok(pattern
            .strip_suffix('*')
            .map_or(pattern == topic, |p| topic.starts_with(p)))
    }
}

struct Script {
    coordinator: Coordinator,
    now: Tick,
    next_ticket: u64,
}

const WALL_START_MS: i64 = 1_700_000_000_000;

fn partitions(text: &str) -> Vec<TopicPartition> {
    text.split(',')
        .filter(|t| !t.is_empty())
        .map(partition)
        .collect()
}

fn partition(text: &str) -> TopicPartition {
    let (topic, number) = text.rsplit_once('-').unwrap();
    TopicPartition::new(
        TopicName::new(topic).unwrap(),
        PartitionId(number.parse().unwrap()),
    )
}

fn join(items: &[TopicPartition]) -> String {
    items
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(",")
}

/// `topic-0=12` or `topic-0=12@3/text`: offset, leader epoch, metadata.
fn commits(text: &str) -> Vec<OffsetCommit> {
    text.split(',')
        .filter(|t| !t.is_empty())
        .map(|item| {
            let (place, rest) = item.split_once('=').unwrap();
            let (rest, metadata) = rest.split_once('/').unwrap_or((rest, ""));
            let (offset, epoch) = rest
                .split_once('@')
                .map_or((rest, None), |(o, e)| (o, Some(e)));
            OffsetCommit {
                partition: partition(place),
                offset: Offset::new(offset.parse().unwrap()).unwrap(),
                leader_epoch: epoch.map(|e| LeaderEpoch::new(e.parse().unwrap()).unwrap()),
                metadata: metadata.to_owned(),
            }
        })
        .collect()
}

struct Args<'a> {
    words: Vec<&'a str>,
    named: BTreeMap<&'a str, &'a str>,
}

impl<'a> Args<'a> {
    fn parse(line: &'a str) -> Self {
        let mut args = Self {
            words: Vec::new(),
            named: BTreeMap::new(),
        };
        for word in line.split_whitespace() {
            match word.split_once(':') {
                Some((name, value)) => drop(args.named.insert(name, value)),
                None => args.words.push(word),
            }
        }
        args
    }

    fn group(&self) -> GroupName {
        GroupName::new(self.words[1]).unwrap()
    }

    fn number(&self, name: &str) -> Option<u64> {
        self.named.get(name).map(|v| v.parse().unwrap())
    }

    fn flag(&self, name: &str) -> bool {
        self.words.contains(&name)
    }
}

impl Script {
    fn new() -> Self {
        let config = Config {
            group_max_size: 3,
            offsets_retention_ms: 3_600_000,
            ..Config::default()
        };
        let coordinator = Coordinator::new(config, Box::new(Glob));
        Self {
            coordinator,
            now: Tick(0),
            next_ticket: 1,
        }
    }

    fn wall_ms(&self) -> i64 {
        WALL_START_MS + i64::try_from(self.now.0).unwrap()
    }

    fn ticket(&mut self) -> Ticket {
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        ticket
    }

    fn heartbeat(&mut self, args: &Args<'_>) -> Input {
        let epoch = args.named.get("epoch").map_or(0, |e| e.parse().unwrap());
        let named = |name: &str| args.named.get(name).copied();
        let subscribes = ["topics", "pattern", "assignor"]
            .iter()
            .any(|n| named(n).is_some());
        let subscription = subscribes.then(|| Subscription {
            topics: named("topics")
                .unwrap_or("")
                .split(',')
                .filter(|t| !t.is_empty())
                .map(|t| TopicName::new(t).unwrap())
                .collect(),
            pattern: named("pattern").unwrap_or("").to_owned(),
            assignor: named("assignor").unwrap_or("").to_owned(),
        });
        Input::Heartbeat {
            ticket: self.ticket(),
            heartbeat: Box::new(Heartbeat {
                group: args.group(),
                member: MemberId::new(args.words[2]).unwrap(),
                member_epoch: epoch,
                leave: args.flag("leave"),
                keep_assignment: args.flag("keep"),
                instance: named("instance").map(str::to_owned),
                subscription,
                owned: named("owned").map(partitions),
                rack: String::new(),
                session_timeout_ms: args.number("session"),
                rebalance_timeout_ms: args.number("rebalance"),
                max_wait_ms: args.number("wait").unwrap_or(0),
                client_id: Arc::from("test"),
                peer: None,
            }),
        }
    }

    fn input(&mut self, line: &str) -> Input {
        let args = Args::parse(line);
        let wall_ms = self.wall_ms();
        let member_epoch = args.named.get("epoch").map_or(0, |e| e.parse().unwrap());
        match args.words[0] {
            "topics" => Input::Topics(Arc::new(topics(&args))),
            "load" => Input::Load {
                key: codec::encode_key(&args.group(), &partition(args.words[2])),
                value: args.words.get(3).map(|v| unhex(v)),
            },
            "load-raw" => Input::Load {
                key: unhex(args.words[1]),
                value: args.words.get(2).map(|v| unhex(v)),
            },
            "loaded" => Input::Loaded,
            "drain" => Input::Drain,
            "cancel" => Input::Cancel {
                ticket: Ticket(args.words[1].parse().unwrap()),
            },
            "durable" => Input::CommitDurable {
                id: AppendId(args.words[1].parse().unwrap()),
            },
            "failed" => Input::CommitFailed {
                id: AppendId(args.words[1].parse().unwrap()),
                failure: Failure::new(ErrorKind::StorageError, "the disk is gone"),
            },
            "hb" => self.heartbeat(&args),
            "commit" => Input::Commit {
                ticket: self.ticket(),
                group: args.group(),
                member: args.named.get("member").map(|m| MemberId::new(m).unwrap()),
                member_epoch,
                offsets: commits(args.words[2]),
                wall_ms,
            },
            "set" => Input::SetOffsets {
                ticket: self.ticket(),
                group: args.group(),
                offsets: commits(args.words[2]),
                wall_ms,
            },
            "offsets" => Input::GetOffsets {
                ticket: self.ticket(),
                group: args.group(),
                partitions: args.words.get(2).map_or_else(Vec::new, |p| partitions(p)),
            },
            "delete-offsets" => Input::DeleteOffsets {
                ticket: self.ticket(),
                group: args.group(),
                partitions: partitions(args.words[2]),
            },
            "groups" => Input::ListGroups {
                ticket: self.ticket(),
            },
            "group" => Input::GetGroup {
                ticket: self.ticket(),
                group: args.group(),
            },
            "delete-group" => Input::DeleteGroup {
                ticket: self.ticket(),
                group: args.group(),
            },
            "remove" => Input::RemoveMembers {
                ticket: self.ticket(),
                group: args.group(),
                members: args.words[2..]
                    .iter()
                    .map(|m| MemberId::new(m).unwrap())
                    .collect(),
            },
            other => panic!("unknown command {other:?}"),
        }
    }

    /// Runs one command and prints what came out.
    fn run(&mut self, line: &str) -> String {
        let mut out = Vec::new();
        if let Some(ms) = line.strip_prefix("wait ") {
            let end = self.now.plus(ms.trim().parse().unwrap());
            // As a rim does: a tick whenever the coordinator asked for one.
            while let Some(due) = self.coordinator.next_deadline().filter(|d| *d <= end) {
                self.now = due.max(self.now);
                let wall_ms = self.wall_ms();
                self.coordinator
                    .step(self.now, Input::Tick { wall_ms }, &mut out);
            }
            self.now = end;
        } else {
            let input = self.input(line);
            self.coordinator.step(self.now, input, &mut out);
        }
        let mut text = String::new();
        for output in &out {
            print(&mut text, output);
        }
        if out.is_empty() {
            text.push_str("ok\n");
        }
        text
    }
}

fn topics(args: &Args<'_>) -> BTreeMap<TopicName, TopicState> {
    args.words[1..]
        .iter()
        .map(|item| {
            // `name=partitions` or `name=partitions#id`.
            let (name, rest) = item.split_once('=').unwrap();
            let (count, id) = rest.split_once('#').unwrap_or((rest, "1"));
            let state = TopicState {
                id: TopicId(id.parse().unwrap()),
                partitions: count.parse().unwrap(),
            };
            (TopicName::new(name).unwrap(), state)
        })
        .collect()
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len() / 2)
        .map(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).unwrap())
        .collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, b| {
        let _ = write!(text, "{b:02x}");
        text
    })
}

fn results(items: &[Result<(), Failure>]) -> String {
    items
        .iter()
        .map(|r| match r {
            Ok(()) => "ok".to_owned(),
            Err(e) => format!("{}({e})", e.kind.reason()),
        })
        .collect::<Vec<_>>()
        .join(", ")
}

fn print(text: &mut String, output: &Output) {
    let line = match output {
        Output::LoadSkipped { error } => format!("skipped: {error}"),
        Output::Append { id, group, records } => {
            let mut line = format!("append {} for {group}", id.0);
            for (key, value) in records {
                let (_, partition) = codec::decode_key(key).unwrap();
                let value = value
                    .as_ref()
                    .map_or_else(|| "removed".to_owned(), |v| hex(v));
                let _ = write!(line, "\n  {partition} {value}");
            }
            line
        }
        Output::Reply { ticket, reply } => format!("#{} {}", ticket.0, print_reply(reply)),
    };
    let _ = writeln!(text, "{line}");
}

fn print_reply(reply: &Reply) -> String {
    match reply {
        Reply::Heartbeat(r) => format!(
            "epoch={} assignment={} interval={} session={}",
            r.member_epoch,
            r.assignment
                .as_ref()
                .map_or_else(|| "same".to_owned(), |a| format!("[{}]", join(a))),
            r.heartbeat_interval_ms,
            r.session_timeout_ms
        ),
        Reply::Committed(r) => format!("committed: {}", results(r)),
        Reply::OffsetsDeleted(r) => format!("deleted: {}", results(r)),
        Reply::Offsets(offsets) | Reply::OffsetsSet(offsets) => {
            let mut line = format!("{} offsets", offsets.len());
            for o in offsets {
                let epoch = o
                    .leader_epoch
                    .map_or_else(|| "-".to_owned(), |e| e.to_string());
                let age = o.commit_time_ms - WALL_START_MS;
                let _ = write!(
                    line,
                    "\n  {} {} epoch={epoch} metadata={:?} at={age}",
                    o.partition, o.offset, o.metadata
                );
            }
            line
        }
        Reply::Groups(groups) => {
            let mut line = format!("{} groups", groups.len());
            for g in groups {
                let _ = write!(line, "\n  {} {:?} members={}", g.group, g.state, g.members);
            }
            line
        }
        Reply::Group(g) => {
            let mut line = format!(
                "{} {:?} epoch={} assignor={}",
                g.group, g.state, g.group_epoch, g.assignor
            );
            for m in &g.members {
                let _ = write!(
                    line,
                    "\n  {} epoch={} owned=[{}] target=[{}] silent={}",
                    m.member,
                    m.member_epoch,
                    join(&m.owned),
                    join(&m.target),
                    m.since_heartbeat_ms
                );
            }
            line
        }
        Reply::GroupDeleted => "group deleted".to_owned(),
        Reply::MembersRemoved(ids) => {
            let ids: Vec<_> = ids.iter().map(MemberId::as_str).collect();
            format!("removed [{}]", ids.join(","))
        }
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

#[test]
fn a_call_given_up_when_its_answer_is_due_is_answered_once() {
    let mut script = Script::new();
    for line in [
        "topics t=1",
        "loaded",
        "hb g a topics:t owned:",
        "hb g a epoch:1 owned:t-0 wait:5000",
    ] {
        script.run(line);
    }
    // No tick comes between: the same step finds the wait over and the caller gone.
    script.now = script.now.plus(5000);
    let printed = script.run("cancel 2");
    assert_eq!(
        printed,
        "#2 epoch=1 assignment=same interval=5000 session=45000\n"
    );
    assert_eq!(script.run("cancel 2"), "ok\n");
}
