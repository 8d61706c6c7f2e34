//! Transcripts of the core: commands in `testdata/*.txt` and what is expected to be printed, and random
//! schedules that check the promises no transcript can list.

use std::fmt::Write as _;

use proptest::prelude::*;
use varve_types::{ProducerId, Sequence};

use super::*;

fn config(durability: Durability) -> CoreConfig {
    CoreConfig {
        durability,
        min_insync_replicas: 1,
    }
}

fn offset(n: i64) -> Offset {
    Offset::new(n).unwrap()
}

/// One line of a transcript: `append t=1 n=2 [acks=all] [pid=7/0 seq=0] [at=0]`, `written 2`,
/// `flushed 2`, `refused 0`, `failed`, `leader 1`, `trim 1`, `config replicated min=2`.
fn run(core: &mut Core, line: &str) -> String {
    let mut words = line.split_whitespace();
    let command = words.next().unwrap();
    let args: Vec<&str> = words.collect();
    let named = |name: &str| {
        args.iter()
            .find_map(|a| a.strip_prefix(name).and_then(|a| a.strip_prefix('=')))
    };
    let number = |text: &str| text.parse::<i64>().unwrap();
    let mut out = Vec::new();
    if command == "config" {
        let durability = if args[0] == "fsync" {
            Durability::Fsync
        } else {
            Durability::Replicated
        };
        let min_insync_replicas = named("min").map_or(1, |n| number(n) as usize);
        core.set_config(
            CoreConfig {
                durability,
                min_insync_replicas,
            },
            &mut out,
        );
    } else {
        let input = match command {
            "append" => Input::Append(Append {
                ticket: Ticket(number(named("t").unwrap()) as u64),
                records: number(named("n").unwrap()) as u32,
                producer: named("pid").map(|p| {
                    let (id, epoch) = p.split_once('/').unwrap();
                    let id = ProducerId {
                        id: number(id),
                        epoch: number(epoch) as i16,
                    };
                    (
                        id,
                        Sequence::new(number(named("seq").unwrap()) as i32).unwrap(),
                    )
                }),
                acks: named("acks").map_or(Acks::All, |a| a.parse().unwrap()),
                expected_offset: named("at").map(|a| offset(number(a))),
            }),
            "written" => Input::Written(offset(number(args[0]))),
            "flushed" => Input::Flushed(offset(number(args[0]))),
            "refused" => Input::WriteRefused(offset(number(args[0]))),
            "failed" => Input::StorageFailed,
            "leader" => Input::BecomeLeader(LeaderEpoch::new(number(args[0]) as i32).unwrap()),
            "trim" => Input::LogStart(offset(number(args[0]))),
            other => panic!("unknown command {other}"),
        };
        core.step(1_000, input, &mut out);
    }
    let mut text = String::new();
    for output in out {
        match output {
            Output::Write {
                ticket,
                base_offset,
                leader_epoch,
            } => {
                writeln!(
                    text,
                    "  write t={} at {base_offset} epoch {leader_epoch}",
                    ticket.0
                )
            }
            Output::HighWatermark(hw) => writeln!(text, "  high watermark {hw}"),
            Output::Answer {
                ticket,
                result: Ok(a),
            } => writeln!(
                text,
                "  answer t={} ok at {}{} flushed on {}",
                ticket.0,
                a.base_offset,
                if a.deduplicated { " (duplicate)" } else { "" },
                a.flushed_replicas
            ),
            Output::Answer {
                ticket,
                result: Err(r),
            } => {
                writeln!(text, "  answer t={} {r:?}", ticket.0)
            }
        }
        .unwrap();
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
        let mut core = Core::new(config(Durability::Fsync), Recovered::default());
        let mut actual = String::new();
        for line in expected.lines().filter(|l| !l.starts_with("  ")) {
            writeln!(actual, "{line}").unwrap();
            if !line.is_empty() && !line.starts_with('#') {
                actual += &run(&mut core, line);
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
        let mut core = Core::new(config(Durability::Fsync), Recovered::default());
        let mut out = Vec::new();
        core.step(0, Input::BecomeLeader(LeaderEpoch::ZERO), &mut out);
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
                        ticket,
                        records,
                        producer: Some((ProducerId { id: 1, epoch: 0 }, Sequence::new(seq).unwrap())),
                        acks: *acks,
                        expected_offset: None,
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
            core.step(0, input, &mut out);
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
                    Output::HighWatermark(hw) => prop_assert_eq!(hw.get(), flushed),
                }
            }
        }
        prop_assert!(open.is_empty(), "unanswered: {open:?}");
        prop_assert_eq!(core.pending(), 0);
    }
}
