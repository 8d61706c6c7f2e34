//! No false alarm, and a long history in little time.

use varve_check::{Acks, Checker, Coverage, Event, Kind, Outcome, Required};

use crate::transactions::{check, model};

#[test]
fn legal_histories_pass() {
    let mut total = Coverage::default();
    for seed in 1..=1_500 {
        let verdict = check(model::legal(seed, 100 + seed as usize % 500));
        assert_eq!(
            verdict.outcome,
            Outcome::Valid,
            "seed {seed}:\n{}",
            verdict.text()
        );
        let c = verdict.coverage;
        total.txns_committed += c.txns_committed;
        total.txns_aborted += c.txns_aborted;
        total.txns_unknown += c.txns_unknown;
        total.txns_unknown_seen += c.txns_unknown_seen;
        total.copies += c.copies;
        total.owned += c.owned;
        total.commits_ok += c.commits_ok;
        total.sends_unknown_seen += c.sends_unknown_seen;
    }
    for (what, count) in [
        ("committed", total.txns_committed),
        ("aborted", total.txns_aborted),
        (
            "unknown, never read",
            total.txns_unknown - total.txns_unknown_seen,
        ),
        ("unknown and read", total.txns_unknown_seen),
        ("copies", total.copies),
        ("partitions taken", total.owned),
        ("commits of members", total.commits_ok),
        ("sends unknown and read", total.sends_unknown_seen),
    ] {
        assert!(count > 1_000, "only {count} {what}");
    }
}

fn send(op: u64, txn: Option<u64>) -> Event {
    Event::Send {
        op,
        ns: op,
        session: 1,
        partition: 0,
        key: 1,
        value: op,
        acks: Acks::All,
        idempotent: true,
        txn,
        source: None,
    }
}

const fn ok(op: u64, offset: Option<i64>) -> Event {
    Event::Ok { op, ns: op, offset }
}

const fn end(op: u64, txn: u64, commit: bool) -> Event {
    Event::EndTxn {
        op,
        ns: op,
        txn,
        commit,
    }
}

fn poll(process: u32, uncommitted: bool, offsets: &[(i64, u64)]) -> Event {
    Event::Poll {
        process,
        ns: 1,
        partition: 0,
        epoch: 1,
        high_watermark: -1,
        records: offsets.to_vec(),
        uncommitted,
        txn: None,
    }
}

/// What was aborted is a hole for readers of committed records, and a record for others.
#[test]
fn an_aborted_record_is_a_hole_only_for_readers_of_committed_ones() {
    let mut events = vec![
        send(1, None),
        ok(1, Some(0)),
        send(2, Some(7)),
        ok(2, Some(1)),
        end(3, 7, false),
        ok(3, None),
        send(4, None),
        ok(4, Some(3)),
        poll(1, false, &[(0, 1), (3, 4)]),
    ];
    assert!(check(events.clone()).findings.is_empty());
    events.push(poll(2, true, &[(0, 1), (3, 4)]));
    assert_eq!(check(events).count(Kind::IntPollSkip), 1);
}

/// Whether a transaction was committed that nobody was told of is known once somebody has seen a record of it.
#[test]
fn what_somebody_saw_of_an_unknown_transaction_others_must_see() {
    let mut events = vec![
        send(1, None),
        ok(1, Some(0)),
        send(2, Some(7)),
        ok(2, Some(1)),
        end(3, 7, true),
        send(4, None),
        ok(4, Some(3)),
        poll(1, false, &[(0, 1), (3, 4)]),
    ];
    assert!(check(events.clone()).findings.is_empty());
    events.push(poll(2, false, &[(0, 1), (1, 2), (3, 4)]));
    assert_eq!(check(events).count(Kind::IntPollSkip), 1);
}

/// An abort that was refused says nothing: the transaction may have been committed before.
#[test]
fn a_refused_abort_is_no_commit_and_no_abort() {
    let events = vec![
        send(1, Some(7)),
        ok(1, Some(0)),
        end(2, 7, true),
        end(3, 7, false),
        Event::Fail {
            op: 3,
            ns: 3,
            error: "too late".to_owned(),
        },
        poll(1, false, &[(0, 1)]),
        ok(2, None),
    ];
    assert!(check(events).findings.is_empty());
}

/// A member that was expelled is refused, and its successor commits the same offset, whichever answer is told first.
/// When nobody else has committed it, it is nobody's.
#[test]
fn of_two_commits_of_one_offset_one_may_fail() {
    let commit = |op| Event::Commit {
        op,
        ns: op,
        group: "g".to_owned(),
        partition: 0,
        offset: 5,
        member: None,
    };
    let failed = |op| Event::Fail {
        op,
        ns: op,
        error: "expelled".to_owned(),
    };
    let asked = |op| Event::Committed {
        op,
        ns: op,
        group: "g".to_owned(),
        partition: 0,
    };
    let found = |op| ok(op, Some(5));
    let mut events = vec![commit(1), commit(2), ok(2, None), failed(1)];
    events.extend([asked(3), found(3)]);
    assert!(check(events).findings.is_empty());
    let mut events = vec![commit(1), commit(2), failed(1), failed(2)];
    events.extend([asked(3), found(3)]);
    assert_eq!(check(events).count(Kind::PhantomCommit), 1);
}

/// A commit that was under way when the partition changed hands was of its owner; so was one of a member that owned it
/// for a moment in between.
#[test]
fn a_commit_of_whoever_owned_the_partition_at_any_moment_is_no_zombie() {
    let (group, partition, ns) = (|| "g".to_owned(), 0, 0);
    let own = |member| Event::Own {
        group: group(),
        member,
        partition,
        ns,
    };
    let disown = |member| Event::Disown {
        group: group(),
        member,
        partition,
        ns,
    };
    let commit = |op, member| Event::Commit {
        op,
        ns,
        group: group(),
        partition,
        offset: 1,
        member: Some(member),
    };
    let (gone, done) = (Event::Gone { member: 1, ns }, ok(9, None));
    let handed_over = vec![own(1), commit(9, 1), disown(1), own(2), done.clone()];
    assert!(check(handed_over).findings.is_empty());
    let nobody = vec![own(1), disown(1), commit(9, 1), own(2), done.clone()];
    assert!(check(nobody).findings.is_empty());
    let between = vec![
        own(2),
        commit(9, 1),
        disown(2),
        own(1),
        disown(1),
        own(2),
        done.clone(),
    ];
    assert!(check(between).findings.is_empty());
    let killed = vec![own(1), gone, own(2), commit(9, 1), done];
    let verdict = check(killed);
    assert_eq!(verdict.count(Kind::ZombieCommit), 1, "{}", verdict.text());
    assert_eq!(verdict.count(Kind::DoubleOwnership), 0);
}

/// What nobody read may have been copied to where nobody read: that is no verdict.
#[test]
fn a_copy_that_nobody_can_have_seen_is_not_missing() {
    let mut copy = send(2, Some(7));
    if let Event::Send {
        source, partition, ..
    } = &mut copy
    {
        (*source, *partition) = (Some(1), 1);
    }
    let ends = vec![(0, 1)];
    let mut events = vec![
        send(1, None),
        ok(1, Some(0)),
        poll(1, false, &[(0, 1)]),
        copy,
        end(3, 7, true),
        Event::Drained { ns: 0, ends },
    ];
    assert!(check(events.clone()).findings.is_empty());
    events.push(Event::Final {
        op: 4,
        ns: 0,
        process: 9,
        partition: 1,
    });
    events.push(ok(4, Some(5)));
    assert_eq!(check(events).count(Kind::NotCopied), 1);
}

/// A million calls in transactions of ten records, every one copied from the one before and read by its follower.
#[test]
fn a_long_history_is_checked_in_a_moment() {
    let count: i64 = 500_000;
    let started = std::time::Instant::now();
    let mut checker = Checker::new();
    let mut line = 0;
    let mut take = |event| {
        line += 1;
        checker.event(line, event);
    };
    let calls = count as u64;
    let mut records = Vec::new();
    for offset in 0..count {
        let op = offset as u64;
        let txn = op / 10;
        if op.is_multiple_of(10) && !records.is_empty() {
            let mut read = poll(2, false, &records);
            if let Event::Poll { txn: of, .. } = &mut read {
                *of = Some(txn);
            }
            take(read);
            records.clear();
        }
        let mut sent = send(op, Some(txn));
        if let Event::Send { source, .. } = &mut sent {
            *source = op.checked_sub(1);
        }
        take(sent);
        take(ok(op, Some(offset + offset / 10)));
        records.push((offset + offset / 10, op));
        if op % 10 == 9 {
            take(end(calls + txn, txn, true));
            take(ok(calls + txn, None));
        }
    }
    let verdict = checker.verdict(&Required::default());
    assert!(verdict.findings.is_empty(), "{}", verdict.text());
    assert_eq!(verdict.coverage.txns_committed, calls / 10);
    assert_eq!(verdict.coverage.copies, calls - 1);
    assert!(started.elapsed().as_secs() < 60, "{:?}", started.elapsed());
}
