//! Producers. Each batch has a value of its own; a timeout means that nobody knows. Idempotent producers
//! keep up to five batches under way and repeat them in order until each is answered; the others try once.

use std::collections::BTreeMap;

use varve_metadata::PartitionKey;
use varve_partition::{Rejection, Verified};
use varve_types::{Acks, NodeId, Offset, ProducerId, Sequence};

use super::disk::Kind;
use super::groups::MEMBERS;
use super::knobs::Knobs;
use super::txn::WRITERS;
use super::world::{Addr, Event, Message, Origin, Produce, World};
use crate::rng::Rng;

/// After so long nobody waits for an answer any more, milliseconds.
const TIMEOUT_MS: u64 = 400;
/// After so long even a producer that repeats gives a batch up, milliseconds.
const DELIVERY_MS: u64 = 4_000;
/// Ids of producers that live for one batch.
const FRESH_FROM: i64 = 1 << 40;
/// How often a producer comes that lives for one batch, milliseconds.
const FRESH_EVERY_MS: u64 = 12;
/// Most batches under way: what a partition remembers of a producer.
const IN_FLIGHT: u64 = 5;

/// A batch on its way.
#[derive(Debug, Clone, Copy)]
struct Pending {
    produce: Produce,
    first_sent: u64,
    sent: u64,
    /// Answered, or never sent: to be sent (again).
    again: bool,
}

/// A producer.
pub(super) struct Client {
    pub(super) number: usize,
    partition: usize,
    idempotent: bool,
    /// Each batch is the only one of a new producer.
    fresh: bool,
    acks: Acks,
    every_ms: u64,
    epoch: i16,
    next_sequence: i32,
    next_request: u64,
    pending: BTreeMap<u64, Pending>,
    leader: Option<NodeId>,
    last: Option<Result<Offset, Rejection>>,
    /// Answers of `acks=all` since everything was healed.
    pub(super) answered_since_heal: u64,
}

impl Client {
    pub(super) fn all(rng: &mut Rng, knobs: &Knobs) -> Vec<Self> {
        let client = |number: usize, rng: &mut Rng| Self {
            number,
            partition: number % knobs.partitions as usize,
            idempotent: number < 2,
            fresh: false,
            acks: match number {
                0..=2 => Acks::All,
                _ => [Acks::Leader, Acks::None][rng.below(2) as usize],
            },
            every_ms: 5 + rng.below(40),
            epoch: 0,
            next_sequence: 0,
            next_request: 0,
            pending: BTreeMap::new(),
            leader: None,
            last: None,
            answered_since_heal: 0,
        };
        let mut all: Vec<Self> = (0..4).map(|n| client(n, rng)).collect();
        if knobs.fresh_sessions {
            let last = &mut all[3];
            (last.fresh, last.every_ms) = (true, FRESH_EVERY_MS);
            // Where the first of the others is.
            last.partition = 0;
        }
        all
    }

    /// Whether it has everything that an end of the run waits for.
    pub(super) fn content(&self) -> bool {
        self.acks != Acks::All || self.answered_since_heal >= 3
    }

    /// For people.
    pub(super) fn state(&self) -> String {
        let pending = self.pending.values().map(|p| {
            let (sequence, records) = (p.produce.producer.map(|(_, s)| s.get()), p.produce.records);
            format!(
                "{sequence:?}+{records} {}",
                if p.again { "again" } else { "sent" }
            )
        });
        let pending: Vec<String> = pending.collect();
        format!(
            "epoch {} to {:?}, under way {pending:?}, last answer {:?}",
            self.epoch, self.leader, self.last
        )
    }

    /// Nobody answers: an idempotent producer will ask again, another leaves it at that.
    fn give_up(&mut self, now: u64) {
        let mut late = false;
        for pending in self
            .pending
            .values_mut()
            .filter(|p| p.sent + TIMEOUT_MS < now)
        {
            pending.again = true;
            late = true;
        }
        if late {
            self.leader = None;
        }
        // The delivery timeout: what nobody has confirmed for so long is unknown for good.
        let oldest = self.pending.values().next();
        if self.idempotent && oldest.is_some_and(|p| p.first_sent + DELIVERY_MS < now) {
            self.begin_again();
        }
        if !self.idempotent {
            self.pending.retain(|_, p| !p.again);
        }
    }

    fn begin_again(&mut self) {
        self.epoch += 1;
        self.next_sequence = 0;
        self.pending.clear();
    }

    /// A new batch.
    fn add(&mut self, key: PartitionKey, records: u32) -> Option<Produce> {
        let request = self.next_request;
        self.next_request += 1;
        let fresh = self.fresh.then(|| {
            let id = FRESH_FROM + request as i64;
            (ProducerId { id, epoch: 0 }, Sequence::ZERO)
        });
        let session = self.idempotent.then(|| {
            let id = ProducerId {
                id: self.number as i64 + 1,
                epoch: self.epoch,
            };
            let first = Sequence::new(self.next_sequence).unwrap_or_default();
            self.next_sequence += records as i32;
            (id, first)
        });
        Some(Produce {
            origin: Origin::Client(self.number),
            request,
            key,
            value: (self.number as u64) << 40 | request,
            records,
            producer: session.or(fresh),
            resumes: false,
            acks: self.acks,
            kind: Kind::Plain,
            leader_epoch: None,
            verified: Verified::No,
        })
    }

    /// What to send now: what has to be repeated, the first of it alone so that it cannot be overtaken,
    /// else something new.
    fn next(&mut self, now: u64, key: PartitionKey, records: u32) -> Option<Produce> {
        self.give_up(now);
        if let Some(pending) = self.pending.values_mut().find(|p| p.again) {
            pending.again = false;
            pending.sent = now;
            let produce = pending.produce;
            return Some(self.with_place(produce));
        }
        // Counted from the oldest: a partition must remember it for as long as it may be repeated.
        let oldest = self.pending.keys().next().copied();
        if oldest.is_some_and(|oldest| self.next_request - oldest >= IN_FLIGHT) {
            return None;
        }
        let produce = self.add(key, records)?;
        let (first_sent, sent, again) = (now, now, false);
        let pending = Pending {
            produce,
            first_sent,
            sent,
            again,
        };
        self.pending.insert(produce.request, pending);
        Some(self.with_place(produce))
    }

    /// Of batches that are under way only the first may be where a session goes on.
    fn with_place(&self, produce: Produce) -> Produce {
        Produce {
            resumes: self.pending.keys().next() == Some(&produce.request),
            ..produce
        }
    }
}

impl World {
    pub(super) fn client_acts(&mut self, number: usize) {
        if number >= WRITERS && self.quiet {
            return;
        }
        if number >= MEMBERS {
            return self.member_acts(number);
        }
        if number >= WRITERS {
            return self.writer_acts(number);
        }
        let keys = self.keys();
        let now = self.now;
        let guess = NodeId(1 + self.rng.below(self.knobs.nodes as u64) as i32);
        let records = 1 + self.rng.below(3) as u32;
        let client = &mut self.clients[number];
        let every = client.every_ms;
        let key = keys.get(client.partition).copied();
        let produce = key.and_then(|key| client.next(now, key, records));
        let to = client.leader.unwrap_or(guess);
        self.at(every, Event::Client(number));
        if let Some(produce) = produce {
            self.send(
                Addr::Client(number),
                Addr::Node(to),
                Message::Produce(produce),
            );
        }
    }

    pub(super) fn client_hears(&mut self, number: usize, message: Message) -> Result<(), String> {
        if number >= MEMBERS {
            return self.member_hears(number, message);
        }
        if number >= WRITERS {
            return self.writer_hears(number, message);
        }
        let Message::Produced {
            request,
            result,
            hint,
        } = message
        else {
            return Ok(());
        };
        let healed = self.healed;
        let client = &mut self.clients[number];
        let Some(pending) = client.pending.get_mut(&request) else {
            return Ok(());
        };
        let produce = pending.produce;
        client.last = Some(result);
        match result {
            Ok(_) => {
                client.pending.remove(&request);
                client.answered_since_heal += u64::from(healed);
                Ok(())
            }
            Err(rejection) => {
                client.leader = hint;
                let sure = certain(rejection);
                if client.idempotent && rejection == Rejection::UnknownProducer {
                    // Everything of it was removed from the log (KIP-360): a new epoch, and what is under
                    // way is given up as unknown.
                    client.begin_again();
                    self.count("producer begins again");
                    return Ok(());
                }
                if client.idempotent {
                    pending.again = true;
                    return Ok(());
                }
                client.pending.remove(&request);
                if sure {
                    self.oracle.refused(&produce)
                } else {
                    Ok(())
                }
            }
        }
    }
}

/// Whether that answer says that nothing was appended.
const fn certain(rejection: Rejection) -> bool {
    !matches!(
        rejection,
        Rejection::LeadershipLost | Rejection::StorageFailed
    )
}
