//! Replays the scripts of `testdata/*.txt` against one coordinator each: a command, a line of dashes,
//! and what the coordinator put out. `UPDATE=1 cargo test -p varve-groups` rewrites the expected parts;
//! review the difference.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod print;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use varve_groups::{
    AppendId, ClassicHeartbeat, ClassicJoin, ClassicLeave, ClassicSync, Config, Coordinator,
    Failure, Heartbeat, Input, Matcher, OffsetCommit, Output, Subscription, Tick, Ticket,
    TopicState, codec,
};
use varve_types::{
    ErrorKind, GroupName, LeaderEpoch, MemberId, Offset, PartitionId, ProducerId, TopicId,
    TopicName, TopicPartition,
};

use print::{is_of_offsets, print, print_append};

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
    config: Config,
    coordinator: Coordinator,
    now: Tick,
    next_ticket: u64,
    topics: Arc<BTreeMap<TopicName, TopicState>>,
    /// Every batch, in the order of the log.
    log: Vec<Batch>,
    next_label: u64,
    /// Whether batches of membership alone are printed and wait for `durable`; otherwise they are durable
    /// at once and not mentioned.
    shows_membership: bool,
}

type Record = (Vec<u8>, Option<Vec<u8>>);

struct Batch {
    /// What the script calls it, if it is printed.
    label: Option<u64>,
    id: AppendId,
    records: Vec<Record>,
    durable: bool,
    of: Of,
}

/// What a batch is of.
#[derive(Clone, Copy)]
enum Of {
    Plain,
    Txn(ProducerId),
    Marker(i64, bool),
}

fn config() -> Config {
    Config {
        group_max_size: 3,
        offsets_retention_ms: 3_600_000,
        ..Config::default()
    }
}

const WALL_START_MS: i64 = 1_700_000_000_000;

fn partitions(text: &str) -> Vec<TopicPartition> {
    text.split(',')
        .filter(|t| !t.is_empty())
        .map(partition)
        .collect()
}

/// Commands write `t-0` for the partition that is printed as `t:0`: the colon ends the name of an argument.
fn partition(text: &str) -> TopicPartition {
    let (topic, number) = text.rsplit_once('-').unwrap();
    TopicPartition::new(
        TopicName::new(topic).unwrap(),
        PartitionId(number.parse().unwrap()),
    )
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

/// What a member says of itself: `@topics/owned/generation` is a consumer's subscription, its parts of names
/// with `+` between them; anything else is text.
fn said(text: &str) -> Vec<u8> {
    let Some(rest) = text.strip_prefix('@') else {
        return text.as_bytes().to_vec();
    };
    let mut parts = rest.split('/');
    let mut part = || parts.next().unwrap_or("");
    let topics = part().split('+').filter(|t| !t.is_empty());
    codec::encode_subscription(&codec::EmbeddedSubscription {
        version: 3,
        topics: topics.map(|t| TopicName::new(t).unwrap()).collect(),
        user_data: None,
        owned: places(part()),
        generation: part().parse().unwrap_or(-1),
        rack: None,
    })
}

/// What a leader assigns: `@partitions` is a consumer's assignment.
fn assigned(text: &str) -> Vec<u8> {
    let Some(rest) = text.strip_prefix('@') else {
        return text.as_bytes().to_vec();
    };
    codec::encode_assignment(&codec::EmbeddedAssignment {
        version: 3,
        partitions: places(rest),
        user_data: None,
    })
}

fn places(text: &str) -> codec::ByTopic {
    let all = text.split('+').filter(|t| !t.is_empty());
    codec::by_topic(&all.map(partition).collect())
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

    fn generation(&self) -> i32 {
        self.named.get("gen").map_or(0, |g| g.parse().unwrap())
    }

    fn producer(&self) -> ProducerId {
        let id = self.named["producer"].parse().unwrap();
        ProducerId { id, epoch: 0 }
    }

    fn flag(&self, name: &str) -> bool {
        self.words.contains(&name)
    }
}

impl Script {
    fn new() -> Self {
        Self {
            config: config(),
            coordinator: Coordinator::new(config(), Box::new(Glob)),
            now: Tick(0),
            next_ticket: 1,
            topics: Arc::default(),
            log: Vec::new(),
            next_label: 0,
            shows_membership: false,
        }
    }

    fn is_of_no_batch(&self, line: &str) -> bool {
        let label = line
            .strip_prefix("durable ")
            .or_else(|| line.strip_prefix("failed "));
        label.is_some_and(|l| !self.log.iter().any(|b| b.label == l.parse().ok()))
    }

    /// The batch of that label, whose completion comes now.
    fn batch(&mut self, label: &str, durable: bool) -> AppendId {
        let label = Some(label.parse().unwrap());
        let batch = self.log.iter_mut().find(|b| b.label == label).unwrap();
        batch.durable = durable;
        batch.id
    }

    /// One step. Batches go to the log; those that nobody looks at are durable at once.
    fn step(&mut self, input: Input, text: &mut String) {
        let mut inputs = vec![input];
        while let Some(input) = inputs.pop() {
            let mut out = Vec::new();
            self.coordinator.step(self.now, input, &mut out);
            for output in out {
                let (id, group, records, of) = match output {
                    Output::Append { id, group, records } => (id, group, records, Of::Plain),
                    Output::TxnAppend {
                        id,
                        group,
                        producer,
                        since: _,
                        records,
                    } => {
                        let _ = write!(text, "in the transaction of {}: ", producer.id);
                        (id, group, records, Of::Txn(producer))
                    }
                    other => {
                        print(text, &other);
                        continue;
                    }
                };
                let shown = self.shows_membership || records.iter().any(is_of_offsets);
                let label = shown.then_some(self.next_label);
                if shown {
                    self.next_label += 1;
                    print_append(text, label.unwrap(), &group, &records);
                } else {
                    inputs.push(Input::CommitDurable { id });
                }
                self.log.push(Batch {
                    label,
                    id,
                    records,
                    durable: !shown,
                    of,
                });
            }
        }
    }

    /// Another coordinator reads what is durable, of each key the last record, and goes on.
    fn reload(&mut self, text: &mut String) {
        self.coordinator = Coordinator::new(self.config.clone(), Box::new(Glob));
        self.log.retain(|b| b.durable);
        let of = |b: &Batch| (b.of, b.records.clone());
        let log: Vec<_> = self.log.iter().map(of).collect();
        let plain = |batch: &&(Of, Vec<Record>)| matches!(batch.0, Of::Plain);
        for (at, (of, records)) in log.iter().enumerate() {
            if let Of::Marker(producer_id, committed) = *of {
                let ended = Input::TxnEnded {
                    producer: ProducerId {
                        id: producer_id,
                        epoch: i16::MAX,
                    },
                    kept_at: None,
                    within: None,
                    committed,
                };
                self.step(ended, text);
            }
            for (key, value) in records {
                let (key, value) = (key.clone(), value.clone());
                // Records of transactions are not compacted here.
                let mut later = log[at + 1..].iter().filter(plain).flat_map(|(_, r)| r);
                match *of {
                    Of::Txn(producer) => {
                        let load = Input::LoadTxn {
                            producer,
                            offset: Offset::new(at as i64).unwrap(),
                            key,
                            value,
                        };
                        self.step(load, text);
                    }
                    _ if later.any(|(k, _)| *k == key) => {}
                    _ => self.step(Input::Load { key, value }, text),
                }
            }
        }
        self.step(Input::Topics(self.topics.clone()), text);
        self.step(Input::Loaded, text);
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
                rack: named("rack").unwrap_or("").to_owned(),
                session_timeout_ms: args.number("session"),
                rebalance_timeout_ms: args.number("rebalance"),
                max_wait_ms: args.number("wait").unwrap_or(0),
                client_id: Arc::from("test"),
                peer: None,
            }),
        }
    }

    /// `join GROUP MEMBER|- as:ID protocols:name=text,... type:T session:MS rebalance:MS instance:I known`
    fn classic_join(&mut self, args: &Args<'_>) -> Input {
        let named = |name: &str| args.named.get(name).copied();
        let protocols = named("protocols").unwrap_or("range=x").split(',');
        Input::ClassicJoin {
            ticket: self.ticket(),
            join: Box::new(ClassicJoin {
                group: args.group(),
                member: MemberId::new(args.words[2])
                    .ok()
                    .filter(|id| id.as_str() != "-"),
                proposed: MemberId::new(named("as").unwrap_or("unused")).unwrap(),
                instance: named("instance").map(str::to_owned),
                protocol_type: named("type").unwrap_or("consumer").to_owned(),
                protocols: protocols
                    .filter_map(|p| p.split_once('='))
                    .map(|(name, text)| (name.to_owned(), said(text)))
                    .collect(),
                session_timeout_ms: args.number("session").unwrap_or(10_000),
                rebalance_timeout_ms: args.number("rebalance").unwrap_or(20_000),
                client_id: Arc::from("test"),
                peer: None,
                require_known_member_id: args.flag("known"),
            }),
        }
    }

    /// `sync GROUP MEMBER gen:N assign:member=text,... type:T protocol:P instance:I`
    fn classic_sync(&mut self, args: &Args<'_>) -> Input {
        let named = |name: &str| args.named.get(name).map(|v| (*v).to_owned());
        let assign = named("assign").unwrap_or_default();
        Input::ClassicSync {
            ticket: self.ticket(),
            sync: Box::new(ClassicSync {
                group: args.group(),
                member: MemberId::new(args.words[2]).unwrap(),
                generation: args.generation(),
                instance: named("instance"),
                protocol_type: named("type"),
                protocol: named("protocol"),
                assignments: assign
                    .split(',')
                    .filter_map(|a| a.split_once('='))
                    .map(|(id, text)| (MemberId::new(id).unwrap(), assigned(text)))
                    .collect(),
            }),
        }
    }

    fn input(&mut self, line: &str) -> Input {
        let args = Args::parse(line);
        let wall_ms = self.wall_ms();
        let member_epoch = args.named.get("epoch").map_or(0, |e| e.parse().unwrap());
        match args.words[0] {
            "topics" => {
                self.topics = Arc::new(topics(&args));
                Input::Topics(self.topics.clone())
            }
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
                id: self.batch(args.words[1], true),
            },
            "failed" => Input::CommitFailed {
                id: self.batch(args.words[1], false),
                failure: Failure::new(ErrorKind::StorageError, "the disk is gone"),
            },
            "hb" => self.heartbeat(&args),
            "join" => self.classic_join(&args),
            "sync" => self.classic_sync(&args),
            "beat" => Input::ClassicHeartbeat {
                ticket: self.ticket(),
                heartbeat: Box::new(ClassicHeartbeat {
                    group: args.group(),
                    member: MemberId::new(args.words[2]).unwrap(),
                    generation: args.generation(),
                    instance: args.named.get("instance").map(|i| (*i).to_owned()),
                }),
            },
            "leave" => Input::ClassicLeave {
                ticket: self.ticket(),
                leave: Box::new(ClassicLeave {
                    group: args.group(),
                    // `member`, `/instance` or `member/instance`.
                    members: args.words[2..]
                        .iter()
                        .map(|w| {
                            let (id, instance) = w.split_once('/').unwrap_or((w, ""));
                            let instance = Some(instance.to_owned()).filter(|i| !i.is_empty());
                            (MemberId::new(id).ok(), instance)
                        })
                        .collect(),
                }),
            },
            "commit" => Input::Commit {
                ticket: self.ticket(),
                group: args.group(),
                member: args.named.get("member").map(|m| MemberId::new(m).unwrap()),
                member_epoch,
                offsets: commits(args.words[2]),
                wall_ms,
            },
            "txn-commit" => Input::TxnCommit {
                ticket: self.ticket(),
                group: args.group(),
                member: args.named.get("member").map(|m| MemberId::new(m).unwrap()),
                member_epoch,
                producer: args.producer(),
                since: None,
                offsets: commits(args.words[2]),
                wall_ms,
            },
            "txn-end" => {
                let producer_id = args.producer().id;
                let committed = args.flag("commit");
                self.log.push(Batch {
                    label: None,
                    id: AppendId(0),
                    of: Of::Marker(producer_id, committed),
                    records: Vec::new(),
                    durable: true,
                });
                Input::TxnEnded {
                    producer: ProducerId {
                        id: producer_id,
                        epoch: i16::MAX,
                    },
                    kept_at: None,
                    within: None,
                    committed,
                }
            }
            "set" => Input::SetOffsets {
                ticket: self.ticket(),
                group: args.group(),
                offsets: commits(args.words[2]),
                wall_ms,
            },
            "offsets" => Input::GetOffsets {
                ticket: self.ticket(),
                group: args.group(),
                partitions: args
                    .words
                    .get(2)
                    .filter(|p| **p != "stable")
                    .map_or_else(Vec::new, |p| partitions(p)),
                require_stable: args.flag("stable"),
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
        let mut text = String::new();
        if let Some(ms) = line.strip_prefix("wait ") {
            let end = self.now.plus(ms.trim().parse().unwrap());
            // As a rim does: a tick whenever the coordinator asked for one.
            while let Some(due) = self.coordinator.next_deadline().filter(|d| *d <= end) {
                self.now = due.max(self.now);
                let wall_ms = self.wall_ms();
                self.step(Input::Tick { wall_ms }, &mut text);
            }
            self.now = end;
        } else if self.is_of_no_batch(line) {
            text.push_str("there is no such batch\n");
        } else if let Some(policy) = line.strip_prefix("policy ") {
            // Of the coordinators to come.
            self.config.migration = policy.parse().unwrap();
        } else if line == "reload" {
            self.reload(&mut text);
        } else if let Some(what) = line.strip_prefix("membership ") {
            self.shows_membership = what == "shown";
        } else {
            let input = self.input(line);
            self.step(input, &mut text);
        }
        if text.is_empty() {
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
