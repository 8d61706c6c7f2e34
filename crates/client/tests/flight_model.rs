//! The table of unsettled batches against a model of the server and of a network that loses streams,
//! delivers late, delivers twice and refuses: whatever happens, every partition's log holds every record
//! once, in order, and every acknowledgement tells the truth.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;
use varve_client::RpcError;
use varve_client::backoff::Backoff;
use varve_client::batcher::{ClosedBatch, Slot};
use varve_client::delivery::{BatchAck, Delivery};
use varve_client::error::ClientError;
use varve_client::flight::{Flight, FlightConfig, Settled};
use varve_record::{BatchBuilder, BatchHeader, Compression, StoredBatch, Unverified, VerifyLimits};
use varve_types::{ErrorKind, LeaderEpoch, Offset, Outcome, PartitionId, ProducerId, TopicName};

const PARTITIONS: usize = 2;
const IN_FLIGHT: usize = 5;

/// What one producer has in one partition's log: the rules of idempotent appends.
#[derive(Default)]
struct Session {
    next: i32,
    /// First sequence, records, base offset of the last five batches.
    recent: VecDeque<(i32, i32, usize)>,
}

#[derive(Default)]
struct Log {
    values: Vec<u32>,
    sessions: BTreeMap<i64, Session>,
}

fn values_of(bytes: &Bytes) -> Vec<u32> {
    let batch = Unverified(bytes.clone())
        .verify(&VerifyLimits::default())
        .unwrap();
    let stored = batch
        .sequence(Offset::new(0).unwrap(), LeaderEpoch::ZERO)
        .to_bytes();
    let stored = StoredBatch::split_from(&stored).unwrap();
    let mut records = stored.records().unwrap();
    let mut values = Vec::new();
    while let Some(record) = records.next_ref() {
        let value: [u8; 4] = record.unwrap().value.unwrap().try_into().unwrap();
        values.push(u32::from_be_bytes(value));
    }
    values
}

/// Batches that begin with such a number are refused whenever they come.
const fn is_poison(first: u32) -> bool {
    first % 23 == 7
}

impl Log {
    fn append(&mut self, bytes: &Bytes) -> Result<BatchAck, ErrorKind> {
        let values = values_of(bytes);
        if is_poison(values[0]) {
            return Err(ErrorKind::RecordTooLarge);
        }
        let header = BatchHeader::parse(bytes).unwrap();
        let (producer, sequence) = header.producer().unwrap();
        let (sequence, count) = (sequence.get(), values.len() as i32);
        let known = self.sessions.contains_key(&producer.id);
        if !known && sequence != 0 {
            return Err(ErrorKind::UnknownProducer);
        }
        let session = self.sessions.entry(producer.id).or_default();
        let ack = |base: usize, deduplicated| BatchAck {
            base_offset: Some(Offset::new(base as i64).unwrap()),
            append_time_ms: 0,
            deduplicated,
        };
        let same = |batch: &&(i32, i32, usize)| (batch.0, batch.1) == (sequence, count);
        if let Some(batch) = session.recent.iter().find(same) {
            return Ok(ack(batch.2, true));
        }
        if sequence != session.next {
            return Err(ErrorKind::OutOfOrderSequence);
        }
        let base = self.values.len();
        session.next += count;
        session.recent.push_back((sequence, count, base));
        if session.recent.len() > 5 {
            session.recent.pop_front();
        }
        self.values.extend(values);
        Ok(ack(base, false))
    }
}

struct Message {
    request: i64,
    slot: Slot,
    bytes: Bytes,
}

/// One step of the world.
#[derive(Debug, Clone, Copy)]
enum Step {
    /// The application has another batch for a partition.
    Batch { partition: usize, records: u32 },
    /// Everything sendable goes onto the stream.
    Send,
    /// The server takes the next message.
    Serve,
    /// The server takes the next message twice.
    ServeTwice,
    /// The server refuses the next message for now; with `after`, although it was appended.
    Refuse { kind: usize, after: bool },
    /// The next answer arrives.
    Answer,
    /// The stream breaks. What was on its way is lost, or (late) reaches the server some time later.
    Break { late: bool },
    /// A message of a broken stream reaches the server after all.
    ServeLate { which: usize },
    /// The server forgets the producers of a partition of which everything is acknowledged.
    Forget { partition: usize },
    /// Time passes.
    Wait { ms: u64 },
}

const REFUSALS: [ErrorKind; 3] = [
    ErrorKind::NotLeader,
    ErrorKind::CommitTimeout,
    ErrorKind::LeaderNotAvailable,
];

fn step() -> impl Strategy<Value = Step> {
    let partition = 0..PARTITIONS;
    prop_oneof![
        8 => (partition.clone(), 1..4_u32)
            .prop_map(|(partition, records)| Step::Batch { partition, records }),
        8 => Just(Step::Send),
        12 => Just(Step::Serve),
        1 => Just(Step::ServeTwice),
        2 => (0..REFUSALS.len(), any::<bool>())
            .prop_map(|(kind, after)| Step::Refuse { kind, after }),
        10 => Just(Step::Answer),
        2 => any::<bool>().prop_map(|late| Step::Break { late }),
        3 => (0..8_usize).prop_map(|which| Step::ServeLate { which }),
        1 => partition.prop_map(|partition| Step::Forget { partition }),
        4 => (1..400_u64).prop_map(|ms| Step::Wait { ms }),
    ]
}

struct World {
    flight: Flight,
    now: Duration,
    logs: Vec<Log>,
    stream: u64,
    wire: VecDeque<Message>,
    answers: VecDeque<(i64, Result<BatchAck, RpcError>)>,
    late: Vec<Message>,
    sessions: i64,
    next_value: u32,
    next_id: u64,
    waiting: Vec<VecDeque<ClosedBatch>>,
    /// By batch: partition, values, fate.
    batches: BTreeMap<u64, (usize, Vec<u32>, Arc<Delivery>)>,
    settled: BTreeMap<u64, u32>,
}

fn slot(partition: usize) -> Slot {
    let partition = PartitionId(partition as i32);
    Slot {
        topic: 0,
        partition,
    }
}

fn error(kind: ErrorKind) -> RpcError {
    RpcError {
        kind: Some(kind),
        ..RpcError::transport("refused")
    }
}

impl World {
    fn new(delivery_timeout: Duration) -> Self {
        let config = FlightConfig {
            max_in_flight: IN_FLIGHT,
            transactional: false,
            idempotent: true,
            delivery_timeout,
            request_timeout: Duration::from_secs(30),
            backoff: Backoff::default(),
        };
        Self {
            flight: Flight::new(config, 1),
            now: Duration::ZERO,
            logs: (0..PARTITIONS).map(|_| Log::default()).collect(),
            stream: 1,
            wire: VecDeque::new(),
            answers: VecDeque::new(),
            late: Vec::new(),
            sessions: 0,
            next_value: 0,
            next_id: 0,
            waiting: (0..PARTITIONS).map(|_| VecDeque::new()).collect(),
            batches: BTreeMap::new(),
            settled: BTreeMap::new(),
        }
    }

    fn note(&mut self, settled: Vec<Settled>) {
        for settled in settled {
            *self.settled.entry(settled.id).or_default() += 1;
            assert!(settled.delivery.result().is_some(), "settled with a fate");
        }
    }

    fn batch(&mut self, partition: usize, records: u32) {
        let mut builder = BatchBuilder::new(Compression::None, None);
        let mut values = Vec::new();
        for _ in 0..records {
            let value = self.next_value.to_be_bytes();
            builder.append(0, None, Some(&value), &[]).unwrap();
            values.push(self.next_value);
            self.next_value += 1;
        }
        let topic: TopicName = "events".parse().unwrap();
        let delivery = Delivery::new(topic, PartitionId(partition as i32));
        self.next_id += 1;
        let id = self.next_id;
        self.batches
            .insert(id, (partition, values, delivery.clone()));
        self.waiting[partition].push_back(ClosedBatch {
            id,
            slot: slot(partition),
            builder,
            delivery,
            charged: 1,
            created: self.now,
        });
    }

    /// What the sender does between events.
    fn turn(&mut self) {
        let settled = self.flight.tick(self.now);
        self.note(settled);
        if self.flight.wants_session() {
            self.sessions += 1;
            let session = ProducerId {
                id: self.sessions,
                epoch: 0,
            };
            self.flight.grant_session(session);
            let settled = self.flight.tick(self.now);
            self.note(settled);
        }
        for partition in 0..PARTITIONS {
            while self.flight.has_room(self.now, slot(partition)) {
                let Some(batch) = self.waiting[partition].pop_front() else {
                    break;
                };
                self.flight.push(batch).unwrap();
                self.send();
            }
        }
    }

    fn send(&mut self) {
        for slot in self.flight.sendable(self.now) {
            while let Some(out) = self.flight.send(self.now, slot, self.stream) {
                assert_eq!(self.flight.slot_of(out.request_id), Some(slot));
                self.wire.push_back(Message {
                    request: out.request_id,
                    slot,
                    bytes: out.bytes,
                });
            }
            let of_slot = |message: &&Message| message.slot == slot;
            let unanswered = self.wire.iter().filter(of_slot).count();
            assert!(unanswered <= IN_FLIGHT, "{unanswered} in flight");
        }
    }

    fn log(&mut self, slot: Slot) -> &mut Log {
        &mut self.logs[slot.partition.0 as usize]
    }

    fn serve(&mut self, times: usize) {
        let Some(message) = self.wire.pop_front() else {
            return;
        };
        let log = self.log(message.slot);
        let answer = log.append(&message.bytes);
        for _ in 1..times {
            let _ = log.append(&message.bytes);
        }
        self.answers
            .push_back((message.request, answer.map_err(error)));
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Batch { partition, records } => self.batch(partition, records),
            Step::Send => self.send(),
            Step::Serve => self.serve(1),
            Step::ServeTwice => self.serve(2),
            Step::Refuse { kind, after } => {
                if let Some(message) = self.wire.pop_front() {
                    let kind = REFUSALS[kind];
                    let refused = if after && kind.outcome() == Outcome::Unknown {
                        // A refusal that would be final is not hidden by one for now.
                        match self.log(message.slot).append(&message.bytes) {
                            Err(ErrorKind::RecordTooLarge) => ErrorKind::RecordTooLarge,
                            _ => kind,
                        }
                    } else {
                        kind
                    };
                    self.answers
                        .push_back((message.request, Err(error(refused))));
                }
            }
            Step::Answer => {
                if let Some((request, answer)) = self.answers.pop_front() {
                    let settled = self.flight.answered(self.now, request, answer);
                    self.note(settled);
                }
            }
            Step::Break { late } => {
                self.flight
                    .stream_lost(self.now, self.stream, &RpcError::transport("broken"));
                self.stream += 1;
                self.answers.clear();
                let lost = std::mem::take(&mut self.wire);
                if late {
                    self.late.extend(lost);
                }
            }
            Step::ServeLate { which } => {
                if which < self.late.len() {
                    let message = self.late.remove(which);
                    let _ = self.log(message.slot).append(&message.bytes);
                }
            }
            Step::Forget { partition } => {
                let quiet = |slot: Slot| slot.partition.0 as usize != partition;
                let settled = self
                    .batches
                    .iter()
                    .filter(|(_, (at, ..))| *at == partition)
                    .all(|(_, (.., fate))| fate.result().is_some());
                if settled && self.late.iter().all(|message| quiet(message.slot)) {
                    self.logs[partition].sessions.clear();
                }
            }
            Step::Wait { ms } => self.now += Duration::from_millis(ms),
        }
        self.turn();
    }

    /// Nothing goes wrong any more.
    fn calm(&mut self) {
        for _ in 0..100_000 {
            let waiting = self.waiting.iter().any(|queue| !queue.is_empty());
            if !waiting && self.flight.is_empty() {
                for message in std::mem::take(&mut self.late) {
                    let _ = self.log(message.slot).append(&message.bytes);
                }
                return;
            }
            for step in [Step::Send, Step::Serve, Step::Answer, Step::Wait { ms: 50 }] {
                self.step(step);
            }
        }
        panic!("the flight never settles: {:?}", self.flight);
    }

    /// What was acknowledged is in the log once, where the acknowledgement says; what was refused is not.
    fn check(&self, everything: bool) {
        let mut expected: Vec<Vec<u32>> = vec![Vec::new(); PARTITIONS];
        for (id, (partition, values, fate)) in &self.batches {
            assert_eq!(self.settled.get(id), Some(&1), "batch {id} is settled once");
            let log = &self.logs[*partition].values;
            match fate.result().unwrap() {
                Ok(ack) => {
                    assert!(!is_poison(values[0]));
                    let base = ack.base_offset.unwrap().get() as usize;
                    assert_eq!(&log[base..base + values.len()], values, "batch {id}");
                    expected[*partition].extend(values);
                }
                Err(error) => {
                    let known_lost = match &error {
                        ClientError::DeliveryTimeout { outcome, .. } => {
                            assert!(!everything, "no time ran out");
                            *outcome == Outcome::NotApplied
                        }
                        _ => {
                            assert!(is_poison(values[0]), "{error}");
                            true
                        }
                    };
                    let found = log.contains(&values[0]);
                    assert!(!(known_lost && found), "batch {id} is in the log: {error}");
                    if found {
                        expected[*partition].extend(values);
                    }
                }
            }
        }
        for (log, expected) in self.logs.iter().zip(expected) {
            assert_eq!(log.values, expected, "in order, without a gap or a double");
        }
    }
}

proptest! {
    #[test]
    fn every_record_is_in_the_log_once_and_in_order(
        steps in proptest::collection::vec(step(), 0..160),
    ) {
        let mut world = World::new(Duration::from_secs(1_000_000));
        for step in steps {
            world.step(step);
        }
        world.calm();
        world.check(true);
    }

    /// With a short delivery timeout, what fails may or may not be in the log, and says so. Messages of a
    /// broken stream are lost here: one that outlives its batch could come before a later batch.
    #[test]
    fn what_runs_out_of_time_says_whether_it_may_be_in_the_log(
        steps in proptest::collection::vec(step(), 0..160),
    ) {
        let mut world = World::new(Duration::from_millis(700));
        for step in steps {
            world.step(match step {
                Step::Break { .. } => Step::Break { late: false },
                other => other,
            });
        }
        world.calm();
        world.check(false);
    }
}

fn settled_in_order(world: &World) -> Vec<bool> {
    let fates = world.batches.values();
    fates
        .map(|(.., fate)| matches!(fate.result(), Some(Ok(_))))
        .collect()
}

#[test]
fn a_lost_stream_is_sent_again_in_order_and_recognised() {
    let mut world = World::new(Duration::from_secs(120));
    for _ in 0..7 {
        world.step(Step::Batch {
            partition: 0,
            records: 2,
        });
    }
    assert_eq!(world.wire.len(), IN_FLIGHT, "two wait for room");
    // Two were appended and not answered; the third was lost.
    world.step(Step::Serve);
    world.step(Step::Serve);
    world.step(Step::Break { late: false });
    assert!(world.flight.sendable(world.now).is_empty(), "a pause first");
    world.step(Step::Wait { ms: 100 });
    world.step(Step::Send);
    let sequences: Vec<i32> = world
        .wire
        .iter()
        .map(|message| BatchHeader::parse(&message.bytes).unwrap().base_sequence)
        .collect();
    assert_eq!(sequences, [0, 2, 4, 6, 8], "the same sequences, in order");
    world.calm();
    world.check(true);
    let deduplicated: Vec<bool> = world
        .batches
        .values()
        .map(|(.., fate)| fate.result().unwrap().unwrap().deduplicated)
        .collect();
    assert_eq!(
        deduplicated,
        [true, true, false, false, false, false, false]
    );
}

#[test]
fn a_server_that_forgot_the_producer_gets_a_new_session() {
    let mut world = World::new(Duration::from_secs(120));
    world.step(Step::Batch {
        partition: 0,
        records: 1,
    });
    world.calm();
    world.step(Step::Forget { partition: 0 });
    assert!(world.logs[0].sessions.is_empty());
    for _ in 0..3 {
        world.step(Step::Batch {
            partition: 0,
            records: 1,
        });
    }
    world.calm();
    world.check(true);
    assert_eq!(world.sessions, 2);
    assert_eq!(settled_in_order(&world), [true; 4]);
}

#[test]
fn a_refused_batch_fails_alone() {
    let mut world = World::new(Duration::from_secs(120));
    world.next_value = 6;
    for _ in 0..3 {
        world.step(Step::Batch {
            partition: 0,
            records: 1,
        });
    }
    world.calm();
    world.check(true);
    assert_eq!(settled_in_order(&world), [true, false, true]);
}

#[test]
fn a_newer_producer_of_the_name_ends_this_one() {
    let mut world = World::new(Duration::from_secs(120));
    for partition in 0..PARTITIONS {
        world.step(Step::Batch {
            partition,
            records: 1,
        });
    }
    let request = world.wire.pop_front().unwrap().request;
    let fenced = Err(error(ErrorKind::ProducerFenced));
    let settled = world.flight.answered(world.now, request, fenced);
    assert_eq!(settled.len(), PARTITIONS, "all that was open");
    world.note(settled);
    assert_eq!(settled_in_order(&world), [false; PARTITIONS]);
    let fenced = world.flight.fenced().map(|error| error.kind);
    assert_eq!(fenced, Some(Some(ErrorKind::ProducerFenced)));
    assert!(!world.flight.wants_session());
    assert!(!world.flight.has_room(world.now, slot(0)));
}

#[test]
fn nothing_is_sent_so_far_ahead_that_the_oldest_could_be_forgotten() {
    let mut world = World::new(Duration::from_secs(120));
    for _ in 0..4 {
        world.step(Step::Batch {
            partition: 0,
            records: 1,
        });
    }
    // The first was appended, and the answer says only that it may have been.
    let after = true;
    world.step(Step::Refuse { kind: 1, after });
    for _ in 0..3 {
        world.step(Step::Serve);
    }
    for _ in 0..4 {
        world.step(Step::Answer);
    }
    world.step(Step::Wait { ms: 100 });
    world.step(Step::Send);
    for _ in 0..3 {
        world.step(Step::Batch {
            partition: 0,
            records: 1,
        });
    }
    assert_eq!(world.wire.len(), 2, "the repeat, and one more");
    // The repeat is refused without being looked at, the other one is appended.
    let after = false;
    world.step(Step::Refuse { kind: 0, after });
    world.calm();
    world.check(true);
}

/// Puts one batch on the wire, lets the server append it, and loses the answer.
fn append_without_answer(world: &mut World) {
    world.step(Step::Batch {
        partition: 0,
        records: 1,
    });
    world.step(Step::Serve);
    world.step(Step::Break { late: false });
    world.step(Step::Wait { ms: 100 });
    world.step(Step::Send);
    assert_eq!(world.logs[0].values.len(), 1, "it is in the log");
}

/// Answers the oldest message with a refusal, without the server seeing it.
fn refuse(world: &mut World, kind: ErrorKind) -> Vec<ClientError> {
    let request = world.wire.pop_front().unwrap().request;
    let refused = Err(error(kind));
    let settled = world.flight.answered(world.now, request, refused);
    let fates = settled.iter().map(|s| s.delivery.result().unwrap());
    fates.map(Result::unwrap_err).collect()
}

fn assert_uncertain(failed: &ClientError, kind: ErrorKind) {
    let ClientError::Uncertain { last, .. } = failed else {
        panic!("told as certain: {failed}")
    };
    assert_eq!(last.kind, Some(kind));
    assert!(!failed.was_refused() && failed.to_rpc().outcome() == Outcome::Unknown);
    assert!(failed.to_string().contains("may be in the log"), "{failed}");
}

#[test]
fn a_final_refusal_does_not_unsay_an_attempt_without_answer() {
    let mut world = World::new(Duration::from_secs(120));
    append_without_answer(&mut world);
    let failed = refuse(&mut world, ErrorKind::PolicyViolation);
    assert_eq!(failed.len(), 1);
    assert_uncertain(&failed[0], ErrorKind::PolicyViolation);
    // The first attempt of another is refused for certain.
    let mut world = World::new(Duration::from_secs(120));
    world.step(Step::Batch {
        partition: 0,
        records: 1,
    });
    let failed = refuse(&mut world, ErrorKind::PolicyViolation);
    assert!(matches!(&failed[..], [ClientError::Rpc(_)]) && failed[0].was_refused());
}

#[test]
fn a_lost_session_does_not_unsay_an_attempt_without_answer() {
    for kind in [ErrorKind::OutOfOrderSequence, ErrorKind::UnknownProducer] {
        let mut world = World::new(Duration::from_millis(700));
        append_without_answer(&mut world);
        // A leader that was replaced and does not know it yet.
        assert!(refuse(&mut world, kind).is_empty());
        assert!(world.flight.wants_session());
        world.now += Duration::from_secs(1);
        let settled = world.flight.tick(world.now);
        assert_eq!(settled.len(), 1, "its time is up");
        let failed = settled[0].delivery.result().unwrap().unwrap_err();
        let outcome = match &failed {
            ClientError::DeliveryTimeout { outcome, .. } => *outcome,
            other => panic!("{other}"),
        };
        assert_eq!(outcome, Outcome::Unknown, "{kind:?}");
    }
}

#[test]
fn a_fence_does_not_unsay_what_is_on_its_way() {
    let mut world = World::new(Duration::from_secs(120));
    for partition in 0..PARTITIONS {
        world.step(Step::Batch {
            partition,
            records: 1,
        });
    }
    let failed = refuse(&mut world, ErrorKind::ProducerFenced);
    assert_eq!(failed.len(), PARTITIONS);
    assert!(matches!(&failed[0], ClientError::Rpc(_)) && failed[0].was_refused());
    assert_uncertain(&failed[1], ErrorKind::ProducerFenced);
}
