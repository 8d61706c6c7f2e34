//! Every kind of anomaly, planted into legal histories, is found and named.

#![allow(clippy::unwrap_used, clippy::cast_sign_loss, reason = "tests")]

use std::collections::BTreeMap;

use crate::model::kinds::OF_TRANSACTIONS;
use crate::model::{FINALS, Random};
use varve_check::{Acks, Checker, Event, Kind, Outcome, Required, Verdict};

/// Histories with each anomaly.
const HISTORIES: usize = 20;

fn check(events: Vec<Event>) -> Verdict {
    let mut checker = Checker::new();
    for (line, event) in events.into_iter().enumerate() {
        checker.event(line as u64 + 2, event);
    }
    checker.verdict(&Required::default())
}

type Records = Vec<(i64, u64)>;

/// Every record that a process other than the last readers was given, with where in the history.
fn polled(events: &[Event], last: bool) -> Vec<(usize, i32, i64, u64)> {
    let mut all = Vec::new();
    for (at, event) in events.iter().enumerate() {
        if let Event::Poll {
            process,
            partition,
            records,
            ..
        } = event
            && FINALS.contains(process) == last
        {
            all.extend(
                records
                    .iter()
                    .map(|(offset, value)| (at, *partition, *offset, *value)),
            );
        }
    }
    all
}

fn records_of(event: &mut Event) -> Option<&mut Records> {
    match event {
        Event::Poll { records, .. } => Some(records),
        _ => None,
    }
}

/// Place in the history, op, session, partition, acks, idempotent.
type Sent = (usize, u64, u32, i32, Acks, bool);

/// Sends by value.
fn sends(events: &[Event]) -> BTreeMap<u64, Sent> {
    let one = |(at, event): (usize, &Event)| match event {
        Event::Send {
            op,
            session,
            partition,
            value,
            acks,
            idempotent,
            ..
        } => Some((*value, (at, *op, *session, *partition, *acks, *idempotent))),
        _ => None,
    };
    events.iter().enumerate().filter_map(one).collect()
}

/// Place of the answer to a call.
fn answer(events: &[Event], call: u64) -> Option<usize> {
    events.iter().position(|event| match event {
        Event::Ok { op, .. } | Event::Fail { op, .. } | Event::Unknown { op, .. } => *op == call,
        _ => false,
    })
}

/// One of those, by chance.
fn any<T: Clone>(random: &mut Random, all: &[T]) -> Option<T> {
    (!all.is_empty()).then(|| all[random.below(all.len() as u64) as usize].clone())
}

/// Plants an anomaly; `None` when the history has no place for it.
fn plant(kind: Kind, events: &mut Vec<Event>, random: &mut Random) -> Option<()> {
    let all = sends(events);
    let (early, late) = (polled(events, false), polled(events, true));
    let is_ok = |events: &[Event], op| {
        answer(events, op).is_some_and(|at| matches!(events[at], Event::Ok { .. }))
    };
    let drop_value = |events: &mut Vec<Event>, value: u64, only_last: bool| {
        for event in events.iter_mut() {
            let last = matches!(event, Event::Poll { process, .. } if FINALS.contains(process));
            if let Some(records) = records_of(event).filter(|_| last || !only_last) {
                records.retain(|(_, v)| *v != value);
            }
        }
    };
    let ns = events.len() as u64;
    let op = 1_000_000;
    match kind {
        Kind::LostAcked => {
            let safe = |(_, _, _, value): &&(usize, i32, i64, u64)| {
                let (_, op, _, _, acks, _) = all[value];
                acks == Acks::All && is_ok(events, op)
            };
            let safe: Vec<_> = late.iter().filter(safe).copied().collect();
            let (_, _, _, value) = any(random, &safe)?;
            drop_value(events, value, random.one_in(2));
        }
        Kind::VanishedRead => {
            let weak = |(_, _, _, value): &&(usize, i32, i64, u64)| {
                let (_, op, _, _, acks, _) = all[value];
                acks != Acks::All || !is_ok(events, op)
            };
            let weak: Vec<_> = early.iter().filter(weak).copied().collect();
            let (_, _, _, value) = any(random, &weak)?;
            drop_value(events, value, true);
        }
        Kind::Unseen => {
            let begun: Vec<u64> = events
                .iter()
                .filter_map(|event| match event {
                    Event::Final {
                        op, partition: 0, ..
                    } => Some(*op),
                    _ => None,
                })
                .collect();
            let safe =
                |(op, partition, acks)| partition == 0 && acks == Acks::All && is_ok(events, op);
            all.values()
                .find(|(_, op, _, partition, acks, _)| safe((*op, *partition, *acks)))?;
            for op in begun {
                let at = answer(events, op)?;
                events[at] = Event::Unknown {
                    op,
                    ns,
                    error: "late".to_owned(),
                };
            }
        }
        Kind::InconsistentOffset | Kind::Phantom => {
            let (at, partition, offset, value) = any(random, &late)?;
            // Another value of the same partition, or one of nobody.
            let others = late
                .iter()
                .filter(|(_, p, _, v)| *p == partition && *v != value);
            let others: Vec<u64> = others.map(|(_, _, _, v)| *v).collect();
            let other = if kind == Kind::Phantom {
                1
            } else {
                any(random, &others)?
            };
            let records = records_of(&mut events[at])?;
            records.iter_mut().find(|(o, _)| *o == offset)?.1 = other;
        }
        Kind::AckedOffsetMismatch => {
            let (_, partition, offset, value) = any(random, &late)?;
            let (_, call, _, _, acks, _) = all[&value];
            let elsewhere = late
                .iter()
                .find(|(_, p, o, _)| *p == partition && *o != offset)?
                .2;
            let at = answer(events, call).filter(|_| acks == Acks::All)?;
            match &mut events[at] {
                Event::Ok { offset, .. } => *offset = Some(elsewhere),
                _ => return None,
            }
        }
        Kind::Duplicate | Kind::DuplicateAllowed => {
            let fits = |v: &u64| all[v].5 == (kind == Kind::Duplicate);
            let fits: Vec<_> = late
                .iter()
                .filter(|(_, _, _, v)| fits(v))
                .copied()
                .collect();
            let (_, partition, _, value) = any(random, &fits)?;
            let process = FINALS[0];
            let offset = 1_000_000;
            let at = events.iter().rposition(|event| {
                matches!(event, Event::Poll { process: p, partition: q, .. } if *p == process && *q == partition)
            })?;
            let records = vec![(offset, value)];
            let (epoch, high_watermark) = (1_000, offset + 1);
            let poll = Event::Poll {
                process,
                ns,
                partition,
                epoch,
                high_watermark,
                records,
                uncommitted: false,
                txn: None,
            };
            events.insert(at + 1, poll);
        }
        Kind::AbortedRead => {
            let (_, _, _, value) = any(random, &late)?;
            let op = all[&value].1;
            let at = answer(events, op)?;
            events[at] = Event::Fail {
                op,
                ns,
                error: "no".to_owned(),
            };
        }
        Kind::Misplaced => {
            let (_, _, _, value) = any(random, &late)?;
            match &mut events[all[&value].0] {
                Event::Send { partition, .. } => *partition = 77,
                _ => return None,
            }
        }
        Kind::Corrupt => {
            let what = "the checksum".to_owned();
            let (process, partition, offset) = (1, 0, 3);
            let at = random.below(ns) as usize;
            events.insert(
                at,
                Event::Corrupt {
                    process,
                    ns,
                    partition,
                    offset,
                    what,
                },
            );
        }
        Kind::PollSkip | Kind::NonmonotonicPoll => {
            let places: Vec<usize> = follow_ups(events);
            let at = any(random, &places)?;
            if kind == Kind::PollSkip {
                records_of(&mut events[at])?.remove(0);
            } else {
                let again = events[at].clone();
                events.insert(at, again);
            }
        }
        Kind::IntPollSkip | Kind::IntNonmonotonicPoll => {
            let long = |event: &Event| {
                matches!(event, Event::Poll { process, records, .. }
                    if !FINALS.contains(process) && records.len() > 2)
            };
            let places: Vec<usize> = (0..events.len()).filter(|at| long(&events[*at])).collect();
            let at = any(random, &places)?;
            let records = records_of(&mut events[at])?;
            if kind == Kind::IntPollSkip {
                records.remove(1);
            } else {
                records.swap(0, 1);
            }
        }
        Kind::NonmonotonicSend => {
            // Two that were under way together: exchanged, the log has them the other way round.
            let read: Vec<u64> = late.iter().map(|(_, _, _, value)| *value).collect();
            let pairs = all.iter().flat_map(|a| all.iter().map(move |b| (a, b)));
            let fits = |((v, a), (w, b)): &((&u64, &Sent), (&u64, &Sent))| {
                a.0 < b.0
                    && a.2 == b.2
                    && a.3 == b.3
                    && a.5
                    && answer(events, a.1).is_none_or(|at| at > b.0)
                    && read.contains(v)
                    && read.contains(w)
            };
            let pairs: Vec<(usize, usize)> = pairs
                .filter(fits)
                .map(|((_, a), (_, b))| (a.0, b.0))
                .collect();
            let (a, b) = any(random, &pairs)?;
            events.swap(a, b);
        }
        Kind::RealTimeOrder => {
            // Made when later offsets had been read, and read only at the end.
            let (_, partition, offset, value) = any(random, &late)?;
            early
                .iter()
                .find(|(_, p, o, _)| *p == partition && *o > offset)?;
            for event in events.iter_mut() {
                let last = matches!(event, Event::Poll { process, .. } if FINALS.contains(process));
                if let Some(records) = records_of(event).filter(|_| !last) {
                    records.retain(|(_, v)| *v != value);
                }
            }
            let (at, op, ..) = all[&value];
            if let Some(at) = answer(events, op) {
                events.remove(at);
            }
            let send = events.remove(at);
            let healed = |event: &Event| matches!(event, Event::Healed { .. });
            let end = events.iter().position(healed)?;
            events.insert(end, send);
        }
        Kind::AboveHighWatermark => {
            let (at, _, offset, _) = any(random, &early)?;
            if let Event::Poll { high_watermark, .. } = &mut events[at] {
                *high_watermark = offset;
            }
        }
        Kind::LatestRegress => {
            let (process, partition) = (1, 0);
            for (op, offset) in [(op, 500_000), (op + 1, 499_999)] {
                events.push(Event::End {
                    op,
                    ns,
                    process,
                    partition,
                });
                events.push(Event::Ok {
                    op,
                    ns,
                    offset: Some(offset),
                });
            }
        }
        Kind::EpochRegress => {
            let (_, of, offset, _) = any(random, &late)?;
            let mut older = false;
            for event in events.iter_mut() {
                if let Event::Poll {
                    partition,
                    epoch,
                    records,
                    ..
                } = event
                    && *partition == of
                {
                    let after = records[0].0 > offset;
                    older |= after;
                    *epoch = if after { 4 } else { 5 };
                    // No poll with records of both.
                    records.retain(|(o, _)| after || *o <= offset);
                }
            }
            older.then_some(())?;
        }
        Kind::InconsistentEpoch => {
            let (at, ..) = any(random, &late)?;
            if let Event::Poll { epoch, .. } = &mut events[at] {
                *epoch += 1;
            }
        }
        Kind::CommitLate => {
            let (partition, group) = (0, || "other".to_owned());
            let commit = |op, offset| Event::Commit {
                op,
                ns,
                group: group(),
                partition,
                offset,
                member: None,
            };
            let (error, offset) = ("lost".to_owned(), None);
            // The first has no answer, arrives after the second, and is read.
            events.extend([
                commit(op, 7),
                Event::Unknown { op, ns, error },
                commit(op + 1, 8),
            ]);
            let op = op + 1;
            events.push(Event::Ok { op, ns, offset });
            let op = op + 1;
            events.push(Event::Committed {
                op,
                ns,
                group: group(),
                partition,
            });
            let offset = Some(7);
            events.push(Event::Ok { op, ns, offset });
        }
        Kind::CommitRegress | Kind::PhantomCommit => {
            let (partition, group) = (0, || "other".to_owned());
            events.push(Event::Commit {
                op,
                ns,
                group: group(),
                partition,
                offset: 8,
                member: None,
            });
            events.push(Event::Ok {
                op,
                ns,
                offset: None,
            });
            let op = op + 1;
            events.push(Event::Committed {
                op,
                ns,
                group: group(),
                partition,
            });
            let lost = if random.one_in(2) { None } else { Some(7) };
            let offset = if kind == Kind::PhantomCommit {
                Some(9)
            } else {
                lost
            };
            events.push(Event::Ok { op, ns, offset });
        }
        Kind::UnavailableAfterHeal => {
            let unknown = |event: &Event| matches!(event, Event::Unknown { op, .. } if all.values().any(|s| s.1 == *op));
            events.iter().find(|event| unknown(event))?;
            events.insert(0, Event::Healed { ns: 0 });
        }
        Kind::LostWeak => {
            let weak = |(_, _, _, value): &&(usize, i32, i64, u64)| {
                let (_, op, _, _, acks, _) = all[value];
                acks != Acks::All && is_ok(events, op)
            };
            let weak: Vec<_> = late.iter().filter(weak).copied().collect();
            let (_, _, _, value) = any(random, &weak)?;
            drop_value(events, value, false);
        }
        // Planted by the tests in `transactions`.
        _ => return None,
    }
    Some(())
}

/// Polls that go on where the one before ended.
fn follow_ups(events: &[Event]) -> Vec<usize> {
    let mut known = std::collections::BTreeSet::new();
    let mut places = Vec::new();
    for (at, event) in events.iter().enumerate() {
        match event {
            Event::Poll {
                process,
                partition,
                records,
                ..
            } if !FINALS.contains(process) => {
                let first = known.insert((*process, *partition));
                if !first && records.len() > 1 {
                    places.push(at);
                }
            }
            Event::Seek {
                process, partition, ..
            } => {
                known.remove(&(*process, *partition));
            }
            _ => {}
        }
    }
    places
}

#[test]
fn every_planted_anomaly_is_found_and_named() {
    for kind in Kind::ALL
        .iter()
        .filter(|kind| !OF_TRANSACTIONS.contains(kind))
    {
        let mut found = 0;
        for seed in 1.. {
            assert!(seed < 2_000, "{}: no place in any history", kind.name());
            let mut events = crate::model::legal(seed, 500);
            let clean = check(events.clone());
            assert_eq!(clean.outcome, Outcome::Valid, "{}", clean.text());
            let before = clean.count(*kind);
            let mut random = Random::new(seed ^ 0xfeed);
            if plant(*kind, &mut events, &mut random).is_none() {
                continue;
            }
            let verdict = check(events);
            assert!(
                verdict.count(*kind) > before,
                "{} planted into history {seed} is not found:\n{}",
                kind.name(),
                verdict.text()
            );
            if !kind.is_allowed() {
                assert_eq!(verdict.outcome, Outcome::Invalid);
            }
            let named = verdict
                .findings
                .iter()
                .find(|f| f.name == kind.name())
                .unwrap();
            assert!(!named.examples.is_empty());
            found += 1;
            if found == HISTORIES {
                break;
            }
        }
    }
}

/// What a leader acknowledged that was cut off: its record was truncated, another took its offset.
#[test]
fn an_acknowledgement_after_a_truncation_is_found() {
    let send = |op, value, session| Event::Send {
        op,
        ns: op,
        session,
        partition: 0,
        key: 1,
        value,
        acks: Acks::All,
        idempotent: true,
        txn: None,
        source: None,
    };
    let ok = |op, offset| Event::Ok {
        op,
        ns: op,
        offset: Some(offset),
    };
    let (process, partition) = (9, 0);
    let poll = |epoch, records: &[(i64, u64)]| Event::Poll {
        process,
        ns: 9,
        partition,
        epoch,
        high_watermark: 2,
        records: records.to_vec(),
        uncommitted: false,
        txn: None,
    };
    let history = [
        send(1, 10, 1),
        ok(1, 0),
        send(2, 20, 1),
        send(3, 30, 2),
        ok(3, 1),
        ok(2, 1),
        Event::Final {
            op: 4,
            ns: 9,
            process,
            partition,
        },
        poll(1, &[(0, 10)]),
        poll(2, &[(1, 30)]),
        ok(4, 2),
    ];
    let verdict = check(history.to_vec());
    assert_eq!(verdict.outcome, Outcome::Invalid);
    assert_eq!(verdict.count(Kind::LostAcked), 1, "{}", verdict.text());
    assert!(
        verdict.found(Kind::InconsistentOffset),
        "{}",
        verdict.text()
    );
    assert!(
        verdict.text().contains("value 20, acknowledged at 0@1"),
        "{}",
        verdict.text()
    );
}

/// Some libraries know that a record was written and not where: it must be read all the same.
#[test]
fn what_is_acknowledged_without_an_offset_must_be_read() {
    let (ns, partition, process) = (0, 0, 1);
    let history = |records: Records| {
        let end = i64::try_from(records.len()).unwrap();
        let send = Event::Send {
            op: 1,
            ns,
            session: 1,
            partition,
            key: 0,
            value: 7,
            acks: Acks::All,
            idempotent: true,
            txn: None,
            source: None,
        };
        let ok = |op, offset| Event::Ok { op, ns, offset };
        let read = Event::Final {
            op: 2,
            ns,
            process,
            partition,
        };
        let poll = Event::Poll {
            process,
            ns,
            partition,
            epoch: 0,
            high_watermark: -1,
            records,
            uncommitted: false,
            txn: None,
        };
        check(vec![send, ok(1, None), read, poll, ok(2, Some(end))])
    };
    let there = history(vec![(0, 7)]);
    assert_eq!(there.outcome, Outcome::Valid, "{}", there.text());
    assert_eq!(there.coverage.sends_ok_somewhere, 1);
    let lost = history(Vec::new());
    assert!(lost.found(Kind::LostAcked), "{}", lost.text());
}
