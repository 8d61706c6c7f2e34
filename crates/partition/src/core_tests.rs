//! Transcripts of the core: commands in `testdata/*.txt` and what is expected to be printed, and random
//! schedules that check the promises no transcript can list.

use std::fmt::Write as _;

use proptest::prelude::*;
use varve_record::{EndMarker, Marker};
use varve_types::{Acks, ProducerId, Sequence};

use super::*;
use crate::Verified;
use crate::input::{Append, FetchId, Fetched, IsrRefusal, Replicated, TransactionEnd};
use crate::output::FetchRefusal;
use crate::transactions::Aborted;

fn config(durability: Durability) -> CoreConfig {
    CoreConfig {
        durability,
        ..CoreConfig::default()
    }
}

const NOW: Now = Now {
    mono_ms: 1_000,
    wall_ms: 1_000,
};

/// This node alone.
fn core() -> Core {
    Core::new(
        NodeId(1),
        config(Durability::Fsync),
        Recovered::default(),
        0,
    )
}

fn alone(epoch: i32) -> Input {
    Input::Assign(Assignment {
        leader: Some(NodeId(1)),
        leader_epoch: LeaderEpoch::new(epoch).unwrap(),
        partition_epoch: epoch,
        replicas: vec![NodeId(1)],
        isr: vec![NodeId(1)],
        min_isr: 1,
        unclean_epoch: None,
    })
}

fn offset(n: i64) -> Offset {
    Offset::new(n).unwrap()
}

/// The words of a line after its command, `name=value` or bare.
struct Words<'a>(Vec<&'a str>);

impl<'a> Words<'a> {
    fn named(&self, name: &str) -> Option<&'a str> {
        self.0
            .iter()
            .find_map(|a| a.strip_prefix(name).and_then(|a| a.strip_prefix('=')))
    }

    fn number(&self, name: &str) -> i64 {
        let word = self
            .named(name)
            .unwrap_or_else(|| panic!("{name}= is missing"));
        word.parse().unwrap()
    }

    fn offset(&self, name: &str) -> Offset {
        offset(self.number(name))
    }

    fn epoch(&self, name: &str) -> Option<LeaderEpoch> {
        self.named(name)
            .map(|e| LeaderEpoch::new(e.parse().unwrap()).unwrap())
    }

    fn nodes(&self, name: &str) -> Vec<NodeId> {
        let list = self.named(name).unwrap();
        list.split(',')
            .map(|n| NodeId(n.parse().unwrap()))
            .collect()
    }

    fn first(&self) -> i64 {
        self.0[0].parse().unwrap()
    }

    fn position(&self) -> Position {
        Position {
            from: NodeId(self.number("from") as i32),
            broker_epoch: BrokerEpoch::new(self.number("run")).unwrap(),
            leader_epoch: self.epoch("epoch").unwrap(),
            partition_epoch: self.named("change").map_or(99, |c| c.parse().unwrap()),
            sequence: self.number("n") as u64,
            log_end: self.offset("end"),
            last_epoch: self.epoch("last"),
            flushed: self.offset("flushed"),
        }
    }

    fn append(&self) -> Append {
        let ticket = Ticket(self.number("t") as u64);
        if let Some(end) = self.marker() {
            return Append::end_of_transaction(ticket, end);
        }
        let acks = self.named("acks").map_or(Acks::All, |a| a.parse().unwrap());
        Append {
            producer: self.named("pid").map(|p| {
                let (id, epoch) = p.split_once('/').unwrap();
                let id = ProducerId {
                    id: id.parse().unwrap(),
                    epoch: epoch.parse().unwrap(),
                };
                (id, Sequence::new(self.number("seq") as i32).unwrap())
            }),
            expected_offset: self.named("at").map(|_| self.offset("at")),
            leader_epoch: self.epoch("epoch"),
            transactional: ["txn", "verified"].iter().any(|w| self.0.contains(w))
                || self.named("since").is_some(),
            verified: match (self.0.contains(&"verified"), self.named("since")) {
                (true, _) => Verified::Since(Offset::ZERO),
                (false, Some(_)) => Verified::Since(self.offset("since")),
                (false, None) => Verified::No,
            },
            ..Append::new(ticket, self.number("n") as u32, acks)
        }
    }

    /// `commit=7/2/4` or `abort=7/2/4`: producer, its next epoch, the coordinator's epoch.
    fn marker(&self) -> Option<TransactionEnd> {
        let commit = self.named("commit").map(|m| (Marker::Commit, m));
        let abort = self.named("abort").map(|m| (Marker::Abort, m));
        let (marker, text) = commit.or(abort)?;
        Some(end_of(marker, text))
    }

    /// `batches=0-5@2,5-7@3`: offsets from, to, and the leader epoch; then `:7/1/0` for a batch of a transaction
    /// (producer, epoch, sequence), or `:commit/7/2/4` for a marker as above.
    fn batches(&self) -> Vec<Replicated> {
        let list = self.named("batches").into_iter();
        list.flat_map(|l| l.split(','))
            .map(|batch| {
                let (batch, what) = batch.split_once(':').unwrap_or((batch, ""));
                let (range, epoch) = batch.split_once('@').unwrap();
                let (from, to) = range.split_once('-').unwrap();
                let (from, to) = (from.parse::<i64>().unwrap(), to.parse::<i64>().unwrap());
                Replicated {
                    unsequenced: None,
                    base_offset: offset(from),
                    end_offset: offset(to),
                    leader_epoch: LeaderEpoch::new(epoch.parse().unwrap()).unwrap(),
                    producer: session_of(what),
                    records: (to - from).unsigned_abs() as u32,
                    max_timestamp: 0,
                    transactional: session_of(what).is_some(),
                    marker: what.split_once('/').and_then(|(kind, text)| match kind {
                        "commit" => Some(end_of(Marker::Commit, text)),
                        "abort" => Some(end_of(Marker::Abort, text)),
                        _ => None,
                    }),
                }
            })
            .collect()
    }

    fn input(&self, command: &str) -> Input {
        let id = || FetchId(self.number("id") as u64);
        let refused = |why| Input::Fetched {
            id: id(),
            result: Err(why),
        };
        match command {
            "append" => Input::Append(self.append()),
            "written" => Input::Written(offset(self.first())),
            "flushed" => Input::Flushed(offset(self.first())),
            "refused" => Input::WriteRefused(offset(self.first())),
            "failed" => Input::StorageFailed,
            "leader" => alone(self.first() as i32),
            "trim" => Input::LogStart(offset(self.first())),
            "assign" => Input::Assign(Assignment {
                leader: self.named("leader").map(|n| NodeId(n.parse().unwrap())),
                leader_epoch: self.epoch("epoch").unwrap(),
                partition_epoch: self.number("change") as i32,
                replicas: self.nodes("replicas"),
                isr: self.nodes("isr"),
                min_isr: self.named("min").map_or(1, |n| n.parse().unwrap()),
                unclean_epoch: self.epoch("unclean"),
            }),
            "registered" => Input::Registered(BrokerEpoch::new(self.first()).unwrap()),
            "fetch" => Input::ReplicaFetch {
                ticket: Ticket(self.number("t") as u64),
                position: self.position(),
            },
            "progress" => Input::ReplicaProgress(self.position()),
            "fetched" => Input::Fetched {
                id: id(),
                result: Ok(Fetched {
                    batches: self.batches(),
                    high_watermark: self.offset("hw"),
                    log_start: self
                        .named("start")
                        .map_or(Offset::ZERO, |_| self.offset("start")),
                }),
            },
            "diverging" => refused(FetchRefusal::Diverging {
                epoch: self.epoch("epoch").unwrap(),
                end_offset: self.offset("end"),
            }),
            "out-of-range" => refused(FetchRefusal::OutOfRange {
                log_start: self.offset("start"),
            }),
            "fetch-failed" => Input::FetchFailed(id()),
            "fetch-held" => Input::FetchHeld(id()),
            "truncated" => Input::Truncated {
                log_start: self
                    .named("start")
                    .map_or(Offset::ZERO, |_| self.offset("start")),
                log_end: self.offset("end"),
                flushed: self.offset("end"),
                producers: ProducerTable::default(),
            },
            "isr-refused" => Input::IsrRefused {
                partition_epoch: self.number("change") as i32,
                why: self.named("node").map_or(IsrRefusal::Stale, |n| {
                    IsrRefusal::Ineligible(NodeId(n.parse().unwrap()))
                }),
            },
            "tick" => Input::Tick,
            other => panic!("unknown command {other}"),
        }
    }
}

/// The three numbers of `7/1/0`.
fn three(text: &str) -> Option<(ProducerId, i32)> {
    let mut parts = text.split('/');
    let id = parts.next()?.parse().ok()?;
    let epoch = parts.next()?.parse().ok()?;
    let third = parts.next()?.parse().ok()?;
    Some((ProducerId { id, epoch }, third))
}

fn session_of(text: &str) -> Option<(ProducerId, Sequence)> {
    let (producer, sequence) = three(text)?;
    Some((producer, Sequence::new(sequence).unwrap()))
}

/// `7/2/4`, and for one that keeps the epoch `7/2/4#0` with its number.
fn end_of(marker: Marker, whole: &str) -> TransactionEnd {
    let (text, number) = whole.split_once('#').unzip();
    let text = text.unwrap_or(whole);
    let (producer, coordinator_epoch) = three(text).unwrap();
    let end = EndMarker {
        marker,
        coordinator_epoch,
        number: number.map(|n| n.parse().unwrap()),
    };
    TransactionEnd { producer, end }
}

fn text_of(output: Output) -> String {
    let nodes = |isr: &[(NodeId, Option<BrokerEpoch>)]| {
        let one = |(node, run): &(NodeId, Option<BrokerEpoch>)| match run {
            Some(run) => format!("{node} (run {run})"),
            None => node.to_string(),
        };
        isr.iter().map(one).collect::<Vec<_>>().join(", ")
    };
    let position = |p: Position| {
        let last = p.last_epoch.map_or("none".to_owned(), |e| e.to_string());
        format!(
            "n={} epoch {} end {} last epoch {last} flushed {}",
            p.sequence, p.leader_epoch, p.log_end, p.flushed
        )
    };
    match output {
        Output::Write {
            ticket,
            base_offset,
            leader_epoch,
        } => format!("write t={} at {base_offset} epoch {leader_epoch}", ticket.0),
        Output::HighWatermark(hw) => format!("high watermark {hw}"),
        Output::LastStable(offset) => format!("last stable {offset}"),
        Output::Answer {
            ticket,
            result: Ok(a),
        } => format!(
            "answer t={} ok at {}{} flushed on {}",
            ticket.0,
            a.base_offset,
            if a.deduplicated { " (duplicate)" } else { "" },
            a.flushed_replicas
        ),
        Output::Answer {
            ticket,
            result: Err(r),
        } => format!("answer t={} {r:?}", ticket.0),
        Output::AnswerFetch {
            ticket,
            result: Ok(g),
        } => format!(
            "fetch t={} from {} to {} high watermark {} log start {}",
            ticket.0, g.from, g.log_end, g.high_watermark, g.log_start
        ),
        Output::AnswerFetch {
            ticket,
            result: Err(r),
        } => format!("fetch t={} {r:?}", ticket.0),
        Output::Fetch {
            id,
            leader,
            position: p,
        } => format!("ask {leader} id={} {}", id.0, position(p)),
        Output::Progress {
            leader,
            position: p,
        } => format!("tell {leader} {}", position(p)),
        Output::WriteReplicated { id, end } => format!("write id={} up to {end}", id.0),
        Output::Truncate(to) => format!("cut to {to}"),
        Output::Restart(at) => format!("begin anew at {at}"),
        Output::Trim(to) => format!("trim to {to}"),
        Output::ProposeIsr {
            leader_epoch,
            partition_epoch,
            isr,
        } => format!(
            "propose in sync {} in epoch {leader_epoch} on change {partition_epoch}",
            nodes(&isr)
        ),
        Output::Distrust { leader, why } => format!("distrust {leader} {why:?}"),
    }
}

/// One line of a transcript: a command of [`Words::input`], or `config replicated min=2`, `time 5000`,
/// `state`, which prints the cursors, or `transactions`.
fn run(core: &mut Core, mono_ms: &mut u64, line: &str) -> String {
    let mut words = line.split_whitespace();
    let command = words.next().unwrap();
    let words = Words(words.collect());
    let mut out = Vec::new();
    match command {
        "time" => *mono_ms = words.first() as u64,
        "state" => {
            return format!(
                "  log {}..{} flushed {} high watermark {} latest {:?} next deadline {:?}\n",
                core.log_start(),
                core.log_end(),
                core.flushed_end(),
                core.high_watermark(),
                core.latest().map(Offset::get),
                core.next_deadline()
            );
        }
        "transactions" => {
            let (start, end) = (core.log_start(), core.log_end());
            let mut text = format!("  last stable {}\n", core.last_stable_offset());
            for (producer, first) in core.producers().open() {
                let ProducerId { id, epoch } = producer;
                writeln!(text, "  open {id}/{epoch} from {first}").unwrap();
            }
            for a in core.producers().aborted(start, end) {
                writeln!(
                    text,
                    "  aborted {} from {} to {}",
                    a.producer, a.first, a.last
                )
                .unwrap();
            }
            return text;
        }
        "config" => {
            let durability = if words.0[0] == "fsync" {
                Durability::Fsync
            } else {
                Durability::Replicated
            };
            let min = words.named("min").map_or(1, |n| n.parse().unwrap());
            let config = CoreConfig {
                min_insync_replicas: min,
                ..config(durability)
            };
            core.set_config(config, &mut out);
        }
        _ => {
            let now = Now {
                mono_ms: *mono_ms,
                ..NOW
            };
            core.step(now, words.input(command), &mut out);
        }
    }
    let mut text = String::new();
    for output in out {
        writeln!(text, "  {}", text_of(output)).unwrap();
    }
    text
}

#[test]
fn transcripts() {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/testdata");
    let mut files: Vec<_> = std::fs::read_dir(dir)
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "txt"))
        .collect();
    files.sort();
    assert!(!files.is_empty());
    for file in files {
        let expected = std::fs::read_to_string(&file).unwrap();
        let mut core = core();
        let mut mono_ms = 1_000;
        let mut actual = String::new();
        for line in expected.lines().filter(|l| !l.starts_with("  ")) {
            writeln!(actual, "{line}").unwrap();
            if !line.is_empty() && !line.starts_with('#') {
                actual += &run(&mut core, &mut mono_ms, line);
            }
        }
        if std::env::var_os("UPDATE_TRANSCRIPTS").is_some() {
            std::fs::write(&file, &actual).unwrap();
        } else {
            assert_eq!(actual, expected, "{}", file.display());
        }
    }
}

#[derive(Debug, Clone)]
enum Op {
    Append {
        records: u32,
        acks: Acks,
        repeat: bool,
    },
    Write,
    Flush,
    Refuse,
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let acks = prop_oneof![Just(Acks::All), Just(Acks::Leader), Just(Acks::None)];
    let append =
        (1u32..5, acks, prop::bool::weighted(0.2)).prop_map(|(records, acks, repeat)| Op::Append {
            records,
            acks,
            repeat,
        });
    prop::collection::vec(
        prop_oneof![4 => append, 2 => Just(Op::Write), 2 => Just(Op::Flush), 1 => Just(Op::Refuse)],
        0..60,
    )
}

proptest! {
    /// Every ticket is answered once at most, and all are once everything is flushed; an `acks=all`
    /// answer is never given before the flush; the writes are contiguous; duplicates get the first offset.
    #[test]
    fn promises_hold_under_any_schedule(ops in ops()) {
        let mut core = core();
        let mut out = Vec::new();
        core.step(NOW, alone(0), &mut out);
        let (mut next_ticket, mut next_seq, mut last) = (0u64, 0i32, None::<(i32, u32)>);
        let (mut assigned, mut written, mut flushed) = (0i64, 0i64, 0i64);
        let mut open = std::collections::BTreeMap::new();
        let mut seq_at_written = 0i32;
        let mut last_at_written = None;
        let finish = [Op::Write, Op::Flush];
        for op in ops.iter().chain(&finish) {
            let input = match op {
                Op::Append { records, acks, repeat } => {
                    let (seq, records) = match last {
                        Some(known) if *repeat => known,
                        _ => {
                            let fresh = (next_seq, *records);
                            next_seq += *records as i32;
                            last = Some(fresh);
                            fresh
                        }
                    };
                    let ticket = Ticket(next_ticket);
                    next_ticket += 1;
                    open.insert(ticket, *acks);
                    Input::Append(Append {
                        producer: Some((ProducerId { id: 1, epoch: 0 }, Sequence::new(seq).unwrap())),
                        ..Append::new(ticket, records, *acks)
                    })
                }
                Op::Write => {
                    written = assigned;
                    (seq_at_written, last_at_written) = (next_seq, last);
                    Input::Written(offset(written))
                }
                Op::Flush => {
                    flushed = written;
                    Input::Flushed(offset(flushed))
                }
                Op::Refuse => {
                    assigned = written;
                    (next_seq, last) = (seq_at_written, last_at_written);
                    Input::WriteRefused(offset(written))
                }
            };
            out.clear();
            core.step(NOW, input, &mut out);
            for output in &out {
                match output {
                    Output::Write { base_offset, .. } => {
                        prop_assert_eq!(base_offset.get(), assigned);
                        assigned = core.log_end().get();
                    }
                    Output::Answer { ticket, result } => {
                        let acks = open.remove(ticket);
                        prop_assert!(acks.is_some(), "answered twice");
                        if let Ok(a) = result
                            && acks == Some(Acks::All)
                        {
                            prop_assert!(a.base_offset.get() < flushed);
                            prop_assert_eq!(a.flushed_replicas, 1);
                        }
                    }
                    Output::HighWatermark(hw) | Output::LastStable(hw) => {
                        prop_assert_eq!(hw.get(), flushed);
                    }
                    other => prop_assert!(false, "{other:?} of a partition that is alone"),
                }
            }
        }
        prop_assert!(open.is_empty(), "unanswered: {open:?}");
        prop_assert_eq!(core.pending(), 0);
    }
}

#[cfg(test)]
#[path = "transaction_tests.rs"]
mod transactions;

/// A replica that follows ages sessions by its own clock, as the leader does.
#[test]
fn a_follower_forgets_no_session_for_the_times_in_its_batches() {
    const DAY_MS: i64 = 86_400_000;
    let now = Now {
        mono_ms: 1_000,
        wall_ms: 1_700_000_000_000,
    };
    let batch = |from: i64, id| Replicated {
        base_offset: offset(from),
        end_offset: offset(from + 1),
        leader_epoch: LeaderEpoch::ZERO,
        producer: Some((ProducerId { id, epoch: 0 }, Sequence::ZERO)),
        unsequenced: None,
        records: 1,
        max_timestamp: now.wall_ms - 30 * DAY_MS,
        transactional: false,
        marker: None,
    };
    let mut core = core();
    let mut out = Vec::new();
    let following = Assignment {
        leader: Some(NodeId(2)),
        leader_epoch: LeaderEpoch::ZERO,
        partition_epoch: 0,
        replicas: vec![NodeId(1), NodeId(2)],
        isr: vec![NodeId(1), NodeId(2)],
        min_isr: 1,
        unclean_epoch: None,
    };
    core.step(now, Input::Assign(following), &mut out);
    let id = out.iter().find_map(|output| match output {
        Output::Fetch { id, .. } => Some(*id),
        _ => None,
    });
    // The first is committed without this replica: it comes late. The second comes as it is appended.
    let fetched = Fetched {
        batches: vec![batch(0, 7), batch(1, 8)],
        high_watermark: offset(1),
        log_start: Offset::ZERO,
    };
    let fetched = Input::Fetched {
        id: id.unwrap(),
        result: Ok(fetched),
    };
    core.step(now, fetched, &mut out);
    let mut known_after = |days| {
        core.expire_producers(now.wall_ms + days * DAY_MS);
        let active = core.producers().active();
        active.map(|a| a.producer.id).collect::<Vec<_>>()
    };
    assert_eq!(known_after(0), [7, 8]);
    assert_eq!(known_after(1), [7, 8]);
    assert_eq!(known_after(7), [8]);
    assert_eq!(known_after(8), [0; 0]);
}
