//! What the table of producers knows, and what it refuses.

use proptest::prelude::*;
use varve_types::Acks;

use super::*;
use crate::Verified;
use crate::input::{DAY_MS, Ticket};

const P: ProducerId = ProducerId { id: 7, epoch: 1 };

fn seq(n: i32) -> Sequence {
    Sequence::new(n).unwrap()
}

fn o(n: i64) -> Offset {
    Offset::new(n).unwrap()
}

fn plain(producer: ProducerId, first: Sequence, records: u32) -> Append {
    Append {
        producer: Some((producer, first)),
        ..Append::new(Ticket(0), records, Acks::All)
    }
}

fn judge(
    t: &ProducerTable,
    producer: ProducerId,
    first: Sequence,
    records: u32,
) -> Result<Verdict, Rejection> {
    t.judge(&plain(producer, first, records))
}

fn append(
    t: &mut ProducerTable,
    producer: ProducerId,
    first: i32,
    records: u32,
    at: i64,
    now_ms: i64,
) {
    t.append(&plain(producer, seq(first), records), o(at), now_ms);
}

fn table() -> ProducerTable {
    let mut t = ProducerTable::default();
    for i in 0..7 {
        append(&mut t, P, i * 10, 10, i64::from(i) * 10, 1000);
    }
    t.settle(Offset::new(70).unwrap());
    t
}

#[test]
fn the_last_five_batches_are_remembered() {
    let t = table();
    assert_eq!(judge(&t, P, seq(70), 1), Ok(Verdict::Append));
    for first in [20, 30, 40, 50, 60] {
        let base_offset = Offset::new(i64::from(first)).unwrap();
        assert_eq!(
            judge(&t, P, seq(first), 10),
            Ok(Verdict::Duplicate { base_offset })
        );
    }
    let gap = Err(Rejection::OutOfOrderSequence { expected: 70 });
    assert_eq!(judge(&t, P, seq(10), 10), gap, "forgotten");
    assert_eq!(judge(&t, P, seq(80), 10), gap, "a gap");
    assert_eq!(judge(&t, P, seq(60), 9), gap, "same start, other length");
}

#[test]
fn epochs_fence() {
    let mut t = table();
    let old = ProducerId { epoch: 0, ..P };
    let new = ProducerId { epoch: 2, ..P };
    assert_eq!(
        judge(&t, old, seq(70), 1),
        Err(Rejection::ProducerFenced { current_epoch: 1 })
    );
    assert_eq!(
        judge(&t, new, seq(70), 1),
        Err(Rejection::OutOfOrderSequence { expected: 0 })
    );
    assert_eq!(judge(&t, new, seq(0), 1), Ok(Verdict::Append));
    append(&mut t, new, 0, 1, 70, 0);
    assert_eq!(
        judge(&t, P, seq(70), 1),
        Err(Rejection::ProducerFenced { current_epoch: 2 })
    );
}

#[test]
fn unknown_sessions_start_at_zero() {
    let t = ProducerTable::default();
    assert_eq!(judge(&t, P, seq(3), 1), Err(Rejection::UnknownProducer));
    assert_eq!(judge(&t, P, seq(0), 1), Ok(Verdict::Append));
}

#[test]
fn roll_back_restores_what_settle_kept() {
    let before = table();
    let mut t = before.clone();
    append(&mut t, P, 70, 5, 70, 2000);
    let other = ProducerId { id: 9, epoch: 0 };
    append(&mut t, other, 0, 5, 75, 2000);
    t.roll_back();
    assert_eq!(t, before);
}

/// A write ends while the next append waits, and that one then finds no space: the first is in the log, and
/// its repeat must be known.
#[test]
fn roll_back_keeps_what_was_written_meanwhile() {
    let mut t = table();
    append(&mut t, P, 70, 5, 70, 2000);
    let written = t.clone();
    append(&mut t, P, 75, 5, 75, 2000);
    t.settle(Offset::new(75).unwrap());
    t.roll_back();
    assert_eq!(t.sessions, written.sessions);
    let base_offset = Offset::new(70).unwrap();
    assert_eq!(
        judge(&t, P, seq(70), 5),
        Ok(Verdict::Duplicate { base_offset })
    );
}

#[test]
fn idle_sessions_expire() {
    let mut t = table();
    t.expire(1000 + limits::PRODUCER_IDLE_EXPIRY_MS);
    assert_eq!(t.len(), 1);
    t.expire(1001 + limits::PRODUCER_IDLE_EXPIRY_MS);
    assert!(t.is_empty());
}

fn replicated(producer: ProducerId, first: i32, at: i64, max_timestamp: i64) -> Replicated {
    Replicated {
        base_offset: o(at),
        end_offset: o(at + 1),
        leader_epoch: varve_types::LeaderEpoch::ZERO,
        producer: Some((producer, seq(first))),
        unsequenced: None,
        records: 1,
        max_timestamp,
        transactional: false,
        marker: None,
    }
}

const NOW_MS: i64 = 1_700_000_000_000;

/// Records of last month are written today.
#[test]
fn the_time_in_a_batch_makes_no_session_old() {
    let old = replicated(P, 0, 0, NOW_MS - 30 * DAY_MS);
    let mut follower = ProducerTable::default();
    follower.follow(&old, Heard::Now(NOW_MS));
    let of_a_day = NOW_MS + DAY_MS;
    let known = |t: &ProducerTable| judge(t, P, seq(0), 1) != Ok(Verdict::Append);
    follower.expire(NOW_MS + limits::PRODUCER_IDLE_EXPIRY_MS);
    assert!(known(&follower));
    follower.expire(NOW_MS + limits::PRODUCER_IDLE_EXPIRY_MS + 1);
    assert!(!known(&follower));
    // Of what is read back nobody knows how old it is.
    let mut restarted = ProducerTable::default();
    restarted.learn(&old, Heard::Late(NOW_MS));
    restarted.expire(of_a_day);
    assert!(known(&restarted));
    // What is saved keeps that.
    let mut again = ProducerTable::decode(&restarted.encode()).unwrap();
    again.expire(of_a_day);
    assert!(known(&again));
    again.expire(of_a_day + 1);
    assert!(!known(&again));
    // Nor does a time that has not come keep one for ever.
    let mut ahead = ProducerTable::default();
    let early = replicated(P, 0, 0, i64::MAX);
    ahead.learn(&early, Heard::Late(NOW_MS));
    ahead.expire(NOW_MS + limits::PRODUCER_IDLE_EXPIRY_MS + 1);
    assert!(ahead.is_empty());
}

/// A session that is not known goes on where its producer is, unless a batch before it is known to be missing.
#[test]
fn a_session_that_was_forgotten_goes_on() {
    let mut t = ProducerTable::default();
    let resumed = |first| Append {
        resumes: true,
        ..plain(P, seq(first), 5)
    };
    assert_eq!(t.judge(&resumed(300)), Ok(Verdict::Append));
    t.append(&resumed(300), o(0), NOW_MS);
    // From there on it is a session like any other.
    let gap = Err(Rejection::OutOfOrderSequence { expected: 305 });
    assert_eq!(t.judge(&resumed(310)), gap);
    assert_eq!(t.judge(&resumed(295)), gap);
    let base_offset = o(0);
    let repeat = Ok(Verdict::Duplicate { base_offset });
    assert_eq!(t.judge(&resumed(300)), repeat);
    assert_eq!(t.judge(&resumed(305)), Ok(Verdict::Append));
    // A newer epoch begins anew.
    let newer = ProducerId { epoch: 2, ..P };
    let newer = Append {
        resumes: true,
        ..plain(newer, seq(7), 1)
    };
    let gap = Err(Rejection::OutOfOrderSequence { expected: 0 });
    assert_eq!(t.judge(&newer), gap);
}

/// Producers that come and go never fill a table: the one that was used least recently gives way.
#[test]
fn the_least_recently_used_session_gives_way() {
    let mut t = ProducerTable::default();
    t.bound(80);
    let of = |id| ProducerId { id, epoch: 0 };
    append(&mut t, of(-1), 0, 1, 0, 0);
    // A transaction that stays open, however long.
    take(&mut t, &verified(of(-2), 0, 1), 1);
    let mut most = 0;
    for id in 0..10_000 {
        append(&mut t, of(id), 0, 1, id + 2, id);
        // Alive, if slowly.
        if id % 20 == 0 {
            let at = i32::try_from(id / 20).unwrap();
            append(&mut t, of(-1), at + 1, 1, id + 2, id);
        }
        t.settle(o(id + 3));
        most = most.max(t.len());
    }
    assert!((70..=80).contains(&most), "{most}");
    assert!(t.active().any(|session| session.producer == of(-2)));
    let alive = t.active().find(|session| session.producer == of(-1));
    assert_eq!(alive.and_then(|session| session.last), Some(seq(500)));
    let newest = judge(&t, of(9_999), seq(0), 1);
    let base_offset = o(10_001);
    assert_eq!(newest, Ok(Verdict::Duplicate { base_offset }));
    assert_eq!(judge(&t, of(0), seq(1), 1), Err(Rejection::UnknownProducer));
    // What makes room is undone with the batch that needed it.
    while t.len() < 80 {
        let id = 20_000 + i64::try_from(t.len()).unwrap();
        append(&mut t, of(id), 0, 1, id, id);
    }
    t.settle(o(30_000));
    let before = t.clone();
    t.follow(&replicated(of(-3), 0, 30_000, 0), Heard::Late(NOW_MS));
    assert_eq!(t.len(), 71);
    t.roll_back();
    assert_eq!(t, before);
}

/// The node has too many over all partitions: sessions that were last used before a time give way.
#[test]
fn sessions_give_way_by_time() {
    let mut t = table();
    take(&mut t, &verified(ProducerId { id: 9, epoch: 0 }, 0, 1), 70);
    append(&mut t, ProducerId { id: 8, epoch: 0 }, 0, 1, 71, 2_000);
    assert_eq!(t.idle().collect::<Vec<_>>(), [1_000, 2_000]);
    t.give_way(1_500);
    let left: Vec<i64> = t.active().map(|session| session.producer.id).collect();
    assert_eq!(left, [8, 9], "the transaction is open");
}

/// What is left of a session is the end of a transaction, whose batches retention has removed.
#[test]
fn a_session_known_by_its_end_alone_goes_on_where_it_was() {
    let kept = ProducerId { id: 7, epoch: 0 };
    let end = |producer, number| Replicated {
        producer: None,
        marker: Some(TransactionEnd {
            producer,
            end: EndMarker {
                marker: Marker::Commit,
                coordinator_epoch: 4,
                number,
            },
        }),
        ..replicated(producer, 0, 0, NOW_MS)
    };
    let mut t = ProducerTable::default();
    t.learn(&end(kept, Some(3)), Heard::Late(NOW_MS));
    let next = |first| Append {
        verified: Verified::Since(o(1)),
        ..transactional(kept, first, 5)
    };
    take(&mut t, &next(51), 1);
    // From there on there are no gaps.
    let gap = Err(Rejection::OutOfOrderSequence { expected: 56 });
    assert_eq!(t.judge(&next(61)), gap);
    // In an epoch that the marker began, nothing was before.
    let raised = ProducerId { id: 9, epoch: 1 };
    t.learn(&end(raised, None), Heard::Late(NOW_MS));
    let gap = Err(Rejection::OutOfOrderSequence { expected: 0 });
    assert_eq!(t.judge(&verified(raised, 51, 5)), gap);
}

#[test]
fn snapshots_round_trip() {
    for t in [table(), in_transactions()] {
        assert_eq!(ProducerTable::decode(&t.encode()), Ok(t));
    }
}

fn transactional(producer: ProducerId, first: i32, records: u32) -> Append {
    Append {
        transactional: true,
        ..plain(producer, seq(first), records)
    }
}

fn verified(producer: ProducerId, first: i32, records: u32) -> Append {
    Append {
        verified: Verified::Since(Offset::ZERO),
        ..transactional(producer, first, records)
    }
}

fn marker(producer: ProducerId, marker: Marker, coordinator_epoch: i32) -> Append {
    let end = EndMarker {
        marker,
        coordinator_epoch,
        number: None,
    };
    Append::end_of_transaction(Ticket(0), TransactionEnd { producer, end })
}

/// A marker that leaves the epoch as it is.
fn numbered(marker: Marker, coordinator_epoch: i32, number: i64) -> Append {
    let end = EndMarker {
        marker,
        coordinator_epoch,
        number: Some(number),
    };
    Append::end_of_transaction(Ticket(0), TransactionEnd { producer: P, end })
}

/// Of a producer that keeps its epoch, verified when the log ended at `end`.
fn since(end: i64, first: i32, records: u32) -> Append {
    Append {
        verified: Verified::Since(o(end)),
        ..transactional(P, first, records)
    }
}

/// Appends what must be accepted.
fn take(t: &mut ProducerTable, append: &Append, at: i64) {
    assert_eq!(t.judge(append), Ok(Verdict::Append), "{append:?}");
    t.append(append, o(at), 1000);
}

const NEXT: ProducerId = ProducerId { id: 7, epoch: 2 };

/// One that was aborted from 70 to 75, one that is open from 76 on, and one that was committed at 90.
fn in_transactions() -> ProducerTable {
    let mut t = table();
    take(&mut t, &verified(P, 70, 5), 70);
    take(&mut t, &marker(NEXT, Marker::Abort, 4), 75);
    take(&mut t, &verified(NEXT, 0, 2), 76);
    let other = ProducerId { id: 9, epoch: 0 };
    take(&mut t, &verified(other, 0, 2), 80);
    let next = ProducerId { id: 9, epoch: 1 };
    take(&mut t, &marker(next, Marker::Commit, 4), 90);
    t.settle(o(100));
    t
}

#[test]
fn a_transaction_begins_only_verified() {
    let mut t = table();
    let unverified = Err(Rejection::TransactionUnverified);
    assert_eq!(t.judge(&transactional(P, 70, 5)), unverified);
    // What follows it waits too, and is not told of a gap.
    assert_eq!(t.judge(&transactional(P, 75, 5)), unverified);
    let stranger = ProducerId { id: 8, epoch: 0 };
    assert_eq!(t.judge(&transactional(stranger, 0, 5)), unverified);
    take(&mut t, &verified(P, 70, 5), 70);
    // From then on it is known.
    take(&mut t, &transactional(P, 75, 5), 75);
    let repeat = t.judge(&transactional(P, 70, 5));
    let base_offset = o(70);
    assert_eq!(repeat, Ok(Verdict::Duplicate { base_offset }));
}

#[test]
fn an_open_transaction_takes_nothing_else() {
    let mut t = table();
    take(&mut t, &verified(P, 70, 5), 70);
    let mixed = Err(Rejection::InvalidTransactionState);
    assert_eq!(t.judge(&plain(P, seq(75), 1)), mixed);
    assert_eq!(t.judge(&plain(NEXT, seq(0), 1)), mixed);
    assert_eq!(t.judge(&verified(NEXT, 0, 1)), mixed);
    let old = ProducerId { epoch: 0, ..P };
    let fenced = Err(Rejection::ProducerFenced { current_epoch: 1 });
    assert_eq!(t.judge(&verified(old, 75, 1)), fenced);
}

#[test]
fn sessions_are_told_with_what_is_open() {
    let mut t = table();
    let told = |t: &ProducerTable| t.active().next().unwrap();
    let plain = told(&t);
    assert_eq!((plain.producer, plain.last), (P, Some(seq(69))));
    assert_eq!((plain.last_used_ms, plain.open), (1000, None));
    assert_eq!(plain.coordinator_epoch, None);
    // A marker raises the epoch, in which there is no record yet.
    take(&mut t, &marker(NEXT, Marker::Abort, 4), 75);
    let ended = told(&t);
    assert_eq!((ended.producer, ended.last), (NEXT, None));
    assert_eq!(ended.coordinator_epoch, Some(4));
    // Sequences wrap, and so does the last one.
    let mut wrapped = ProducerTable::default();
    append(&mut wrapped, P, 0, 1, 0, 1);
    append(&mut wrapped, P, 1, i32::MAX.unsigned_abs(), 1, 2);
    append(&mut wrapped, P, 0, 3, 1 << 40, 3);
    assert_eq!(told(&wrapped).last, Some(seq(2)));
}

/// T3: nothing of a transaction, neither its records nor its marker, touches the next one.
#[test]
fn a_marker_fences_what_it_ends() {
    let mut t = in_transactions();
    let fenced = Err(Rejection::ProducerFenced { current_epoch: 2 });
    assert_eq!(t.judge(&verified(P, 75, 1)), fenced);
    assert_eq!(t.judge(&plain(P, seq(75), 1)), fenced);
    let repeat = t.judge(&marker(NEXT, Marker::Abort, 4));
    let base_offset = o(75);
    assert_eq!(repeat, Ok(Verdict::Duplicate { base_offset }));
    // By the coordinator after the next election too.
    let repeat = t.judge(&marker(NEXT, Marker::Abort, 5));
    assert_eq!(repeat, Ok(Verdict::Duplicate { base_offset }));
    assert_eq!(t.judge(&marker(P, Marker::Abort, 5)), fenced);
    let third = ProducerId { id: 7, epoch: 3 };
    let old = Err(Rejection::CoordinatorFenced { current_epoch: 4 });
    assert_eq!(t.judge(&marker(third, Marker::Commit, 3)), old);
    assert_eq!(t.open_count(), 1);
    take(&mut t, &marker(third, Marker::Commit, 4), 100);
    assert_eq!(t.open_count(), 0);
    assert_eq!(t.aborted(o(0), o(101)).count(), 1);
}

/// A marker comes to a partition that was registered and never written to: late batches are kept out there too.
#[test]
fn a_marker_needs_no_transaction() {
    let mut t = ProducerTable::default();
    take(&mut t, &marker(NEXT, Marker::Commit, 0), 0);
    assert_eq!((t.len(), t.open_count()), (1, 0));
    let fenced = Err(Rejection::ProducerFenced { current_epoch: 2 });
    assert_eq!(t.judge(&verified(P, 0, 1)), fenced);
    assert_eq!(t.stable_below(o(1)), o(1));
}

#[test]
fn a_marker_of_the_epoch_of_an_open_transaction_ends_nothing() {
    let mut t = ProducerTable::default();
    take(&mut t, &verified(P, 0, 5), 0);
    let wrong = Err(Rejection::InvalidTransactionState);
    assert_eq!(t.judge(&marker(P, Marker::Commit, 0)), wrong);
}

/// KIP-98: the epoch stays, and sequences go on from one transaction to the next.
#[test]
fn a_numbered_marker_keeps_the_epoch() {
    let mut t = table();
    take(&mut t, &since(70, 70, 5), 70);
    take(&mut t, &numbered(Marker::Abort, 4, 1), 75);
    assert_eq!((t.open_count(), t.aborted(o(0), o(100)).count()), (0, 1));
    assert_eq!(
        t.judge(&since(76, 0, 5)),
        Err(Rejection::OutOfOrderSequence { expected: 75 })
    );
    take(&mut t, &since(76, 75, 5), 76);
    take(&mut t, &numbered(Marker::Commit, 4, 2), 81);
    assert_eq!((t.open_count(), t.aborted(o(0), o(100)).count()), (0, 1));
    t.settle(o(100));
    assert_eq!(ProducerTable::decode(&t.encode()), Ok(t));
}

/// The next transaction has the same epoch, so the epoch does not keep a late marker away from it.
#[test]
fn a_late_numbered_marker_ends_nothing_that_began_since() {
    let mut t = table();
    take(&mut t, &since(70, 70, 5), 70);
    take(&mut t, &numbered(Marker::Commit, 4, 1), 75);
    let base_offset = o(75);
    let repeat = t.judge(&numbered(Marker::Commit, 4, 1));
    assert_eq!(repeat, Ok(Verdict::Duplicate { base_offset }));
    take(&mut t, &since(76, 75, 5), 76);
    let repeat = t.judge(&numbered(Marker::Commit, 4, 1));
    assert_eq!(repeat, Ok(Verdict::Duplicate { base_offset }));
    take(&mut t, &numbered(Marker::Abort, 4, 2), 81);
    // One before the last says nothing of what the last one decided.
    let late = Err(Rejection::ProducerFenced { current_epoch: 1 });
    assert_eq!(t.judge(&numbered(Marker::Commit, 4, 1)), late);
    // The coordinator after the next election repeats, and goes on counting.
    let base_offset = o(81);
    let repeat = t.judge(&numbered(Marker::Abort, 5, 2));
    assert_eq!(repeat, Ok(Verdict::Duplicate { base_offset }));
    take(&mut t, &numbered(Marker::Abort, 5, 3), 82);
    let old = Err(Rejection::CoordinatorFenced { current_epoch: 5 });
    assert_eq!(t.judge(&numbered(Marker::Commit, 4, 7)), old);
}

/// A batch that waited for the coordinator's answer while the marker came.
#[test]
fn what_was_verified_before_the_last_marker_begins_nothing() {
    let mut t = table();
    take(&mut t, &since(70, 70, 5), 70);
    take(&mut t, &numbered(Marker::Commit, 4, 1), 75);
    let over = Err(Rejection::TransactionOver);
    assert_eq!(t.judge(&since(70, 75, 5)), over);
    assert_eq!(t.judge(&since(75, 75, 5)), over);
    take(&mut t, &since(76, 75, 5), 76);
    // Nor does it join what began since.
    assert_eq!(t.judge(&since(70, 80, 5)), over);
    take(&mut t, &transactional(P, 80, 5), 81);
}

/// Whether an end keeps the epoch is for the end to say: one that raised it before says nothing of the next.
#[test]
fn ends_of_both_kinds_follow_each_other() {
    let mut t = table();
    take(&mut t, &since(70, 70, 5), 70);
    // The next transaction was verified before this marker came: its epoch is its own.
    take(&mut t, &marker(NEXT, Marker::Commit, 4), 75);
    let next = |end, first| Append {
        verified: Verified::Since(o(end)),
        ..transactional(NEXT, first, 5)
    };
    take(&mut t, &next(70, 0), 76);
    let end = EndMarker {
        marker: Marker::Commit,
        coordinator_epoch: 4,
        number: Some(1),
    };
    let end = TransactionEnd {
        producer: NEXT,
        end,
    };
    take(&mut t, &Append::end_of_transaction(Ticket(0), end), 81);
    let over = Err(Rejection::TransactionOver);
    assert_eq!(t.judge(&next(70, 5)), over);
    assert_eq!(t.open_count(), 0);
    take(&mut t, &next(82, 5), 82);
    let third = ProducerId { id: 7, epoch: 3 };
    take(&mut t, &marker(third, Marker::Abort, 4), 87);
    assert_eq!(t.open_count(), 0);
    assert_eq!(ProducerTable::decode(&t.encode()).unwrap().len(), 1);
}

#[test]
fn an_open_transaction_is_not_forgotten() {
    let mut t = in_transactions();
    t.expire(2000 + limits::PRODUCER_IDLE_EXPIRY_MS);
    assert_eq!((t.len(), t.open_count()), (1, 1));
}

#[test]
fn roll_back_restores_transactions() {
    let before = in_transactions();
    let mut t = before.clone();
    let third = ProducerId { id: 7, epoch: 3 };
    take(&mut t, &marker(third, Marker::Abort, 6), 100);
    take(&mut t, &verified(third, 0, 3), 101);
    let stranger = ProducerId { id: 11, epoch: 0 };
    take(&mut t, &verified(stranger, 0, 3), 104);
    assert_eq!(t.stable_below(o(0)), o(0));
    t.roll_back();
    assert_eq!(t, before);
}

#[test]
fn what_compaction_emptied_opens_nothing() {
    let mut builder = varve_record::BatchBuilder::new(varve_record::Compression::None, None);
    builder.append(5, Some(b"k"), None, &[]).unwrap();
    builder.set_transaction(P, seq(0));
    let mut header = *builder.build_batch().unwrap().header();
    let mut t = ProducerTable::default();
    t.replay(&header, None, 5);
    assert_eq!(t.open_count(), 1);
    header.record_count = 0;
    let mut t = ProducerTable::default();
    t.replay(&header, None, 5);
    assert_eq!((t.len(), t.open_count()), (1, 0));
}

proptest! {
    /// Leader and follower forget the same sessions, whatever times clients put into their batches.
    #[test]
    fn replicas_forget_alike(
        steps in proptest::collection::vec((0_i64..6, -60 * DAY_MS..60 * DAY_MS, 0..3 * DAY_MS), 1..60),
    ) {
        let (mut leader, mut follower) = (ProducerTable::default(), ProducerTable::default());
        let mut now_ms = NOW_MS;
        for (at, (id, skew_ms, pause_ms)) in steps.into_iter().enumerate() {
            let producer = ProducerId { id, epoch: 0 };
            let known = leader.sessions.get(&id);
            let next = known.and_then(Session::next).unwrap_or(Sequence::ZERO);
            leader.append(&plain(producer, next, 1), o(at as i64), now_ms);
            let batch = replicated(producer, next.get(), at as i64, now_ms + skew_ms);
            follower.follow(&batch, Heard::Now(now_ms));
            now_ms += pause_ms;
            leader.expire(now_ms);
            follower.expire(now_ms);
            prop_assert_eq!(&leader.sessions, &follower.sessions);
        }
    }

    #[test]
    fn arbitrary_snapshots_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = ProducerTable::decode(&bytes);
    }

    #[test]
    fn truncated_snapshots_are_refused(cut in 0usize..300) {
        let bytes = in_transactions().encode();
        prop_assert!(ProducerTable::decode(&bytes[..bytes.len() - 1 - cut.min(bytes.len() - 1)]).is_err());
    }
}
