//! Legal histories pass: thousands from a model, and a long one in little time and memory.

#![allow(clippy::unwrap_used, clippy::cast_sign_loss, reason = "tests")]

use varve_check::{Acks, Checker, Coverage, Event, Kind, Outcome, Required};

#[test]
fn legal_histories_pass() {
    let mut total = Coverage::default();
    let (mut doubled, mut forgotten) = (0, 0);
    for seed in 1..=4_000 {
        let mut checker = Checker::new();
        let events = crate::model::legal(seed, 50 + seed as usize % 400);
        for (line, event) in events.into_iter().enumerate() {
            checker.event(line as u64, event);
        }
        let required = Required {
            sends_ok: 0,
            ..Required::default()
        };
        let verdict = checker.verdict(&required);
        assert_eq!(
            verdict.outcome,
            Outcome::Valid,
            "seed {seed}:\n{}",
            verdict.text()
        );
        doubled += verdict.count(Kind::DuplicateAllowed);
        forgotten += verdict.count(Kind::LostWeak);
        let c = verdict.coverage;
        total.sends_ok += c.sends_ok;
        total.sends_failed += c.sends_failed;
        total.sends_unknown += c.sends_unknown;
        total.sends_unknown_seen += c.sends_unknown_seen;
        total.leader_changes += c.leader_changes;
        total.seeks += c.seeks;
        total.commits_read += c.commits_read;
        total.records_polled += c.records_polled;
    }
    // What was passed is worth nothing unless the histories hold what is hard.
    for (what, count) in [
        ("acknowledged", total.sends_ok),
        ("failed", total.sends_failed),
        ("unknown", total.sends_unknown - total.sends_unknown_seen),
        ("unknown and read", total.sends_unknown_seen),
        ("leader changes", total.leader_changes),
        ("seeks", total.seeks),
        ("commits read", total.commits_read),
        ("records", total.records_polled),
        ("doubled", doubled),
        ("forgotten", forgotten),
    ] {
        assert!(count > 1_000, "only {count} {what}");
    }
}

/// 300,000 sends here; ten million take the same for each.
#[test]
fn a_long_history_is_checked_in_a_moment() {
    let count: i64 = 300_000;
    let started = std::time::Instant::now();
    let mut checker = Checker::new();
    for offset in 0..count {
        let op = offset as u64;
        checker.event(
            op,
            Event::Send {
                op,
                ns: op,
                session: 1,
                partition: 0,
                key: op % 16,
                value: op,
                acks: Acks::All,
                idempotent: true,
                txn: None,
                source: None,
            },
        );
        let offset = Some(offset);
        checker.event(op, Event::Ok { op, ns: op, offset });
    }
    let op = count as u64;
    let (process, partition) = (1, 0);
    checker.event(
        op,
        Event::Final {
            op,
            ns: op,
            process,
            partition,
        },
    );
    for from in (0..count).step_by(500) {
        let records = (from..from + 500)
            .map(|offset| (offset, offset as u64))
            .collect();
        checker.event(
            op,
            Event::Poll {
                process,
                ns: op,
                partition,
                epoch: 1,
                high_watermark: count,
                records,
                uncommitted: false,
                txn: None,
            },
        );
    }
    checker.event(
        op,
        Event::Ok {
            op,
            ns: op,
            offset: Some(count),
        },
    );
    let verdict = checker.verdict(&Required::default());
    assert_eq!(verdict.outcome, Outcome::Valid, "{}", verdict.text());
    assert!(started.elapsed().as_secs() < 60, "{:?}", started.elapsed());
}

#[test]
fn a_history_that_shows_too_little_is_unknown() {
    let verdict = Checker::new().verdict(&Required::default());
    assert_eq!(verdict.outcome, Outcome::Unknown);
    assert!(verdict.text().contains("lacking: 0 sends acknowledged"));
    // Acknowledged, and nobody ever read it.
    let mut checker = Checker::new();
    let send = crate::model::legal(1, 60).into_iter().find(|event| {
        matches!(
            event,
            Event::Send {
                acks: Acks::All,
                ..
            }
        )
    });
    let send = send.unwrap();
    let Event::Send { op, .. } = send else {
        unreachable!()
    };
    checker.event(1, send);
    checker.event(
        2,
        Event::Ok {
            op,
            ns: 1,
            offset: Some(0),
        },
    );
    let verdict = checker.verdict(&Required::default());
    assert_eq!(verdict.outcome, Outcome::Unknown, "{}", verdict.text());
    assert!(
        verdict
            .lacks
            .iter()
            .any(|lack| lack.contains("complete read"))
    );
}

#[test]
fn a_broken_history_is_unknown_and_says_where() {
    let mut checker = Checker::new();
    checker.event(
        7,
        Event::Ok {
            op: 5,
            ns: 1,
            offset: None,
        },
    );
    let verdict = checker.verdict(&Required {
        sends_ok: 0,
        ..Required::default()
    });
    assert_eq!(verdict.outcome, Outcome::Unknown);
    assert!(
        verdict.lacks[0].starts_with("line 7"),
        "{:?}",
        verdict.lacks
    );
}
