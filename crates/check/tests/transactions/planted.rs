//! What may never happen, planted into legal histories.

use std::collections::BTreeMap;

use varve_check::{Event, Kind, Outcome};

use crate::model::Random;
use crate::model::kinds::OF_TRANSACTIONS;
use crate::transactions::check;
use crate::transactions::model::{self, FINALS, GROUP, UNCOMMITTED};

/// Histories with each anomaly.
const HISTORIES: usize = 20;
/// A reader that there is not yet, calls from here on are free, and a member.
const STRANGER: u32 = 9_999;
const FREE: u64 = 1_000_000;

/// One of those, by chance.
fn any<T: Clone>(random: &mut Random, all: &[T]) -> Option<T> {
    (!all.is_empty()).then(|| all[random.below(all.len() as u64) as usize].clone())
}

/// What an answer says: ok, with its offset; fail; or nothing, as unknown or no answer at all.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Told {
    Ok(Option<i64>),
    Fail,
    Nothing,
}

#[derive(Clone)]
struct Sent {
    value: u64,
    partition: i32,
    txn: Option<u64>,
    source: Option<u64>,
    /// Where it was acknowledged.
    acked: Option<(usize, i64)>,
    /// A reader of committed records was given it.
    seen: bool,
}

/// What a history holds, for those who look for a place.
struct View {
    sent: Vec<Sent>,
    /// Every end that was called for: place of the call and of its answer, transaction, commit, and what was told.
    ends: Vec<(usize, usize, u64, bool, Told)>,
}

impl View {
    fn of(events: &[Event]) -> Self {
        let mut told = BTreeMap::new();
        let mut seen = std::collections::BTreeSet::new();
        for (at, event) in events.iter().enumerate() {
            match event {
                Event::Ok { op, offset, .. } => drop(told.insert(*op, (at, Told::Ok(*offset)))),
                Event::Fail { op, .. } => drop(told.insert(*op, (at, Told::Fail))),
                Event::Poll {
                    uncommitted: false,
                    records,
                    ..
                } => seen.extend(records.iter().map(|(_, value)| *value)),
                _ => {}
            }
        }
        let mut view = Self {
            sent: Vec::new(),
            ends: Vec::new(),
        };
        for (place, event) in events.iter().enumerate() {
            match event {
                Event::Send {
                    op,
                    value,
                    partition,
                    txn,
                    source,
                    ..
                } => view.sent.push(Sent {
                    value: *value,
                    partition: *partition,
                    txn: *txn,
                    source: *source,
                    acked: match told.get(op) {
                        Some((at, Told::Ok(Some(offset)))) => Some((*at, *offset)),
                        _ => None,
                    },
                    seen: seen.contains(value),
                }),
                Event::EndTxn {
                    op, txn, commit, ..
                } => {
                    let (at, told) = told.get(op).copied().unwrap_or((place, Told::Nothing));
                    view.ends.push((place, at, *txn, *commit, told));
                }
                _ => {}
            }
        }
        view
    }

    /// Whether somebody was told that a transaction was committed.
    fn is_committed(&self, txn: u64) -> bool {
        let told = |(_, _, of, commit, told): &(_, _, _, _, _)| {
            *of == txn && *commit && matches!(told, Told::Ok(_))
        };
        self.ends.iter().any(told)
    }

    /// Whether its commit was called, and nobody was told anything of its end.
    fn is_unknown(&self, txn: u64) -> bool {
        let mut of = self.ends.iter().filter(|end| end.2 == txn);
        let called = self.ends.iter().any(|end| end.2 == txn && end.3);
        called && of.all(|end| end.4 == Told::Nothing)
    }
}

fn poll(partition: i32, offset: i64, value: u64, txn: Option<u64>) -> Event {
    Event::Poll {
        process: STRANGER,
        ns: 0,
        partition,
        epoch: -1,
        high_watermark: -1,
        records: vec![(offset, value)],
        uncommitted: false,
        txn,
    }
}

fn drop_value(events: &mut [Event], value: u64, fits: impl Fn(u32) -> bool) {
    for event in events {
        if let Event::Poll {
            process, records, ..
        } = event
            && fits(*process)
        {
            records.retain(|(_, other)| *other != value);
        }
    }
}

/// Plants an anomaly; `None` when the history has no place for it.
fn plant(kind: Kind, events: &mut Vec<Event>, random: &mut Random) -> Option<()> {
    let view = View::of(events);
    match kind {
        Kind::PrecommittedRead | Kind::AbortedRead => {
            read_of_no_commit(kind, &view, events, random)
        }
        Kind::TornTransaction | Kind::VanishedRead | Kind::LostAcked => {
            missing(kind, &view, events, random)
        }
        Kind::StuckTransaction => stuck(&view, events, random),
        Kind::TwoOutcomes => {
            let told: Vec<_> = view
                .ends
                .iter()
                .filter(|end| end.4 != Told::Nothing)
                .collect();
            let told: Vec<u64> = told
                .iter()
                .filter(|end| end.3 || matches!(end.4, Told::Ok(_)))
                .map(|end| end.2)
                .collect();
            let txn = any(random, &told)?;
            let (op, ns, commit) = (FREE, 0, !view.is_committed(txn));
            events.push(Event::EndTxn {
                op,
                ns,
                txn,
                commit,
            });
            events.push(Event::Ok {
                op,
                ns,
                offset: None,
            });
            Some(())
        }
        Kind::G1c => {
            let acked = view.sent.iter().filter(|sent| {
                sent.acked.is_some() && sent.txn.is_some_and(|txn| view.is_committed(txn))
            });
            let acked: Vec<_> = acked.cloned().collect();
            let a = any(random, &acked)?;
            let others: Vec<_> = acked.iter().filter(|b| b.txn != a.txn).cloned().collect();
            let b = any(random, &others)?;
            for (by, of) in [(&a, &b), (&b, &a)] {
                events.push(poll(of.partition, of.acked?.1, of.value, by.txn));
            }
            Some(())
        }
        Kind::CopiedTwice | Kind::NotCopied => copies(kind, &view, events, random),
        Kind::DoubleOwnership | Kind::ZombieCommit => owners(kind, events, random),
        Kind::IntPollSkip => {
            let due = |value: u64| {
                let sent = view.sent.iter().find(|sent| sent.value == value);
                sent.is_some_and(|sent| sent.txn.is_none_or(|txn| view.is_committed(txn)))
                    && sent.is_some_and(|sent| sent.acked.is_some())
            };
            let fits = |event: &Event| match event {
                Event::Poll {
                    process, records, ..
                } => {
                    let reader = !FINALS.contains(process) && !UNCOMMITTED.contains(process);
                    reader && records.len() > 2 && due(records[1].1)
                }
                _ => false,
            };
            let places: Vec<usize> = (0..events.len()).filter(|at| fits(&events[*at])).collect();
            if let Event::Poll { records, .. } = &mut events[any(random, &places)?] {
                records.remove(1);
            }
            Some(())
        }
        _ => None,
    }
}

fn read_of_no_commit(
    kind: Kind,
    view: &View,
    events: &mut Vec<Event>,
    random: &mut Random,
) -> Option<()> {
    let aborted = |txn: u64| {
        let told = |end: &&(usize, usize, u64, bool, Told)| {
            end.2 == txn
                && if end.3 {
                    end.4 == Told::Fail
                } else {
                    matches!(end.4, Told::Ok(_))
                }
        };
        view.ends.iter().any(|end| told(&end)) && !view.is_committed(txn)
    };
    let acked = view.sent.iter().filter(|sent| sent.acked.is_some());
    if kind == Kind::AbortedRead {
        let acked: Vec<_> = acked
            .filter(|sent| sent.txn.is_some_and(aborted))
            .cloned()
            .collect();
        let sent = any(random, &acked)?;
        let (from, offset) = sent.acked?;
        // Before its end was told, or after.
        let at = from + 1 + random.below((events.len() - from) as u64) as usize;
        events.insert(at, poll(sent.partition, offset, sent.value, None));
        return Some(());
    }
    // Acknowledged, and its commit was called only later, or never.
    let called = |txn: u64| {
        let of = view
            .ends
            .iter()
            .filter(|end| end.2 == txn && end.3)
            .map(|end| end.0);
        of.min().unwrap_or(events.len())
    };
    let early = acked.filter_map(|sent| {
        let txn = sent.txn.filter(|txn| !aborted(*txn))?;
        let (from, offset) = sent.acked?;
        (called(txn) > from).then(|| (sent.clone(), from, called(txn), offset))
    });
    let early: Vec<_> = early.collect();
    let (sent, from, to, offset) = any(random, &early)?;
    let at = from + 1 + random.below((to - from) as u64) as usize;
    events.insert(at, poll(sent.partition, offset, sent.value, None));
    Some(())
}

fn missing(kind: Kind, view: &View, events: &mut [Event], random: &mut Random) -> Option<()> {
    let acked = view
        .sent
        .iter()
        .filter(|sent| sent.acked.is_some() && sent.seen);
    let of_txn = |sent: &&Sent| {
        sent.txn.is_some_and(|txn| {
            if kind == Kind::LostAcked {
                view.is_committed(txn)
            } else {
                view.is_unknown(txn)
            }
        })
    };
    let mut fits: Vec<Sent> = acked.filter(of_txn).cloned().collect();
    if kind == Kind::TornTransaction {
        // Another one of the same transaction stays.
        let all = fits.clone();
        fits.retain(|sent| {
            all.iter()
                .any(|b| b.txn == sent.txn && b.value != sent.value)
        });
    }
    if kind == Kind::VanishedRead {
        let early = |event: &Event, value: u64| match event {
            Event::Poll {
                process,
                records,
                uncommitted: false,
                ..
            } => !FINALS.contains(process) && records.iter().any(|(_, v)| *v == value),
            _ => false,
        };
        fits.retain(|sent| events.iter().any(|event| early(event, sent.value)));
    }
    let value = any(random, &fits)?.value;
    match kind {
        Kind::TornTransaction => {
            drop_value(events, value, |process| !UNCOMMITTED.contains(&process));
        }
        Kind::LostAcked if random.one_in(2) => drop_value(events, value, |_| true),
        _ => drop_value(events, value, |process| FINALS.contains(&process)),
    }
    Some(())
}

/// The partition shows nothing committed from the first record of a transaction on, to the end.
fn stuck(view: &View, events: &mut [Event], random: &mut Random) -> Option<()> {
    let acked = view
        .sent
        .iter()
        .filter(|sent| sent.txn.is_some() && sent.acked.is_some());
    let acked: Vec<_> = acked.cloned().collect();
    let sent = any(random, &acked)?;
    let (_, from) = sent.acked?;
    let mut finals = Vec::new();
    for event in events.iter_mut() {
        match event {
            Event::Poll {
                partition,
                records,
                uncommitted: false,
                ..
            } if *partition == sent.partition => records.retain(|(offset, _)| *offset < from),
            Event::Final { op, partition, .. } if *partition == sent.partition => finals.push(*op),
            Event::Ok { op, ns, .. } if finals.contains(op) => {
                let (op, ns, error) = (*op, *ns, "late".to_owned());
                *event = Event::Unknown { op, ns, error };
            }
            _ => {}
        }
    }
    Some(())
}

fn copies(kind: Kind, view: &View, events: &mut [Event], random: &mut Random) -> Option<()> {
    let seen = view
        .sent
        .iter()
        .filter(|sent| sent.seen && sent.source.is_some());
    let seen: Vec<_> = seen.cloned().collect();
    let copy = any(random, &seen)?;
    let others: Vec<u64> = seen
        .iter()
        .filter(|sent| sent.value != copy.value)
        .map(|sent| sent.value)
        .collect();
    for event in events {
        if let Event::Send { value, source, .. } = event {
            match kind {
                Kind::CopiedTwice if others.first() == Some(value) => *source = copy.source,
                // No attempt, or none that anybody sees.
                Kind::NotCopied if *source == copy.source => *source = None,
                _ => {}
            }
        }
    }
    (kind == Kind::NotCopied || !others.is_empty()).then_some(())
}

fn owners(kind: Kind, events: &mut Vec<Event>, random: &mut Random) -> Option<()> {
    let owned = |(at, event): (usize, &Event)| match event {
        Event::Own { partition, .. } => Some((at + 1, *partition)),
        _ => None,
    };
    let owned: Vec<_> = events.iter().enumerate().filter_map(owned).collect();
    let (at, partition) = any(random, &owned)?;
    let (group, member, ns) = (GROUP.to_owned(), STRANGER, 0);
    if kind == Kind::DoubleOwnership {
        events.insert(
            at,
            Event::Own {
                group,
                member,
                partition,
                ns,
            },
        );
        return Some(());
    }
    let (op, offset) = (FREE, None);
    let commit = Event::Commit {
        op,
        ns,
        group,
        partition,
        offset: 5,
        member: Some(member),
    };
    // The answer comes at once, or while anybody else owns the partition.
    let next = owned
        .iter()
        .find(|(later, p)| *later > at && *p == partition);
    let until = next
        .filter(|_| random.one_in(2))
        .map_or(at, |(later, _)| *later);
    events.insert(until, Event::Ok { op, ns, offset });
    events.insert(at, commit);
    Some(())
}

#[test]
fn every_planted_anomaly_is_found_and_named() {
    let of_records = [
        Kind::AbortedRead,
        Kind::LostAcked,
        Kind::VanishedRead,
        Kind::IntPollSkip,
    ];
    for kind in OF_TRANSACTIONS.iter().chain(&of_records) {
        let mut found = 0;
        for seed in 1.. {
            assert!(seed < 2_000, "{}: no place in any history", kind.name());
            let mut events = model::legal(seed, 400);
            assert_eq!(check(events.clone()).outcome, Outcome::Valid);
            let mut random = Random::new(seed ^ 0xfeed);
            if plant(*kind, &mut events, &mut random).is_none() {
                continue;
            }
            let verdict = check(events);
            assert!(
                verdict.found(*kind),
                "{} planted into history {seed} is not found:\n{}",
                kind.name(),
                verdict.text()
            );
            assert_eq!(verdict.outcome, Outcome::Invalid);
            let of_kind = verdict.findings.iter().find(|f| f.name == kind.name());
            assert!(!of_kind.unwrap().examples.is_empty());
            found += 1;
            if found == HISTORIES {
                break;
            }
        }
    }
}
