//! What a call does to a transactional id: one pure function for each, from what is durable to an answer or to
//! the record that has to become durable first. Nothing here waits, sends or remembers.

use std::collections::BTreeSet;

use varve_types::{ErrorKind, ProducerId, TransactionalId};

use crate::coordinator::Config;
use crate::planted::{self, Plant};
use crate::record::{Cause, LAST_EPOCH, Place, Record, State};
use crate::{Failure, Next, Reply};

/// A call about one transactional id.
#[derive(Debug, Clone)]
pub(crate) enum Call {
    Init {
        timeout_ms: u64,
        fresh: i64,
        keep: Option<ProducerId>,
    },
    Add {
        producer: ProducerId,
        partitions: Vec<Place>,
    },
    Verify {
        producer: ProducerId,
        partitions: Vec<Place>,
    },
    End {
        producer: ProducerId,
        commit: bool,
        next: Next,
    },
    Abort,
}

/// What the caller of a write is told once it is durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    Session,
    Added,
    Ended,
    Aborted,
}

impl Answer {
    pub(crate) const fn reply(self, record: &Record) -> Reply {
        match self {
            Self::Session => Reply::Session(record.producer),
            Self::Added => Reply::Added,
            Self::Ended => Reply::Ended(record.producer),
            Self::Aborted => Reply::Aborted,
        }
    }
}

/// What follows from a call.
#[derive(Debug)]
pub(crate) enum Decision {
    /// The answer; nothing changes.
    Reply(Reply),
    /// The answer, once this is durable.
    Write(Record, Answer),
    /// The transaction is aborted for the caller's sake, who has to come back.
    AbortFirst(Record),
    /// To be asked again once every partition knows how the transaction before ended. For who cannot wait for that:
    /// why.
    AfterCompletion(Failure),
}

/// Who calls, going by the session it names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Who {
    /// The one whose session this is.
    Owner,
    /// The owner, repeating its last call with the session it had then.
    Repeater,
    /// Its transaction was aborted without its doing, and it has not begun a new session.
    Unaware,
    /// Somebody whose session is over.
    Fenced,
}

fn who(record: &Record, producer: ProducerId) -> Who {
    let aborted = record.state.commits() == Some(false);
    let unasked = aborted && record.cause != Cause::Producer;
    if producer == record.producer && !unasked {
        return Who::Owner;
    }
    if record.previous != Some(producer) {
        return Who::Fenced;
    }
    match record.cause {
        Cause::Producer => Who::Repeater,
        Cause::Timeout | Cause::Operator => Who::Unaware,
        Cause::Successor | Cause::Renewal => Who::Fenced,
    }
}

/// What rules look at beside the record.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Context<'a> {
    pub(crate) name: &'a TransactionalId,
    pub(crate) config: &'a Config,
    /// Whether there is room for another open transaction.
    pub(crate) may_begin: bool,
    pub(crate) wall_ms: i64,
}

impl Context<'_> {
    pub(crate) fn decide(&self, record: Option<&Record>, call: &Call) -> Result<Decision, Failure> {
        match call {
            Call::Init {
                timeout_ms,
                fresh,
                keep,
            } => self.init(record, *timeout_ms, *fresh, *keep),
            Call::Add {
                producer,
                partitions,
            } => self.add(self.known(record)?, *producer, partitions),
            Call::Verify {
                producer,
                partitions,
            } => self.verify(self.known(record)?, *producer, partitions),
            Call::End {
                producer,
                commit,
                next,
            } => match next {
                Next::Epoch { fresh } => self.end(self.known(record)?, *producer, *commit, *fresh),
                Next::Same => self.end_in_epoch(self.known(record)?, *producer, *commit),
            },
            Call::Abort => self.abort(record),
        }
    }

    fn init(
        &self,
        record: Option<&Record>,
        timeout_ms: u64,
        fresh: i64,
        keep: Option<ProducerId>,
    ) -> Result<Decision, Failure> {
        let timeout_ms = self.timeout(timeout_ms)?;
        let Some(record) = record else {
            let first = ProducerId {
                id: fresh,
                epoch: 0,
            };
            let session = Record::session(first, timeout_ms, self.wall_ms);
            return Ok(Decision::Write(session, Answer::Session));
        };
        if let Some(kept) = keep {
            self.check_kept(record, kept)?;
            if record.state == State::Empty && record.previous == Some(kept) {
                // It has asked before and not heard the answer.
                return Ok(Decision::Reply(Reply::Session(record.producer)));
            }
        }
        if record.state.is_deciding() {
            return Err(self.concurrent(record));
        }
        if record.state == State::Ongoing {
            let cause = match keep {
                Some(_) => Cause::Renewal,
                None => Cause::Successor,
            };
            let aborted = record.decided(false, cause, record.raised(), self.wall_ms);
            return Ok(Decision::AbortFirst(aborted));
        }
        let session = Record {
            previous: keep,
            ..Record::session(record.next_session(fresh), timeout_ms, self.wall_ms)
        };
        Ok(Decision::Write(session, Answer::Session))
    }

    fn timeout(&self, asked_ms: u64) -> Result<u32, Failure> {
        let (least, most) = (self.config.timeout_min_ms, self.config.timeout_max_ms);
        match u32::try_from(asked_ms) {
            Ok(ms) if (least..=most).contains(&asked_ms) => Ok(ms),
            _ => Err(Failure::invalid(
                "timeout",
                format!(
                    "a transaction timeout must be {least} to {most} ms, found {asked_ms} ms; no \
                     session was opened for {}",
                    self.name
                ),
            )),
        }
    }

    /// A producer starts over with the session it has, or had when it last asked; one that was replaced may not.
    fn check_kept(&self, record: &Record, kept: ProducerId) -> Result<(), Failure> {
        let had = record.previous == Some(kept) && record.cause != Cause::Successor;
        match who(record, kept) == Who::Owner || had {
            true => Ok(()),
            false => Err(self.fenced(record, kept)),
        }
    }

    fn add(
        &self,
        record: &Record,
        producer: ProducerId,
        partitions: &[Place],
    ) -> Result<Decision, Failure> {
        if partitions.is_empty() {
            return Err(Failure::invalid(
                "partitions",
                "there are no partitions to register",
            ));
        }
        self.check_owner(record, producer)?;
        if record.state.is_deciding() {
            return Ok(Decision::AfterCompletion(self.concurrent(record)));
        }
        let begins = record.state != State::Ongoing;
        if !begins && partitions.iter().all(|p| record.partitions.contains(p)) {
            return Ok(Decision::Reply(Reply::Verified));
        }
        let mut all: BTreeSet<Place> = record.partitions.clone();
        all.extend(partitions.iter().cloned());
        self.check_room(begins, all.len())?;
        if producer.epoch > LAST_EPOCH {
            return Err(self.unknown());
        }
        let started = record.started_ms.unwrap_or(self.wall_ms.max(0));
        let ongoing = Record {
            previous: None,
            state: State::Ongoing,
            cause: Cause::Producer,
            partitions: all,
            started_ms: Some(started),
            updated_ms: self.wall_ms,
            ..*record
        };
        Ok(Decision::Write(ongoing, Answer::Added))
    }

    fn check_room(&self, begins: bool, partitions: usize) -> Result<(), Failure> {
        let most = self.config.partitions_max;
        if partitions > most {
            return Err(Failure::invalid(
                "partitions",
                format!(
                    "the transaction of {} would have {partitions} partitions; the limit is \
                     {most}; none were added",
                    self.name
                ),
            ));
        }
        if begins && !self.may_begin {
            return Err(Failure::new(
                ErrorKind::Throttled,
                format!(
                    "this coordinator has {} open transactions, which is its limit; the one of {} \
                     was not started; try again",
                    self.config.open_max, self.name
                ),
            ));
        }
        Ok(())
    }

    fn verify(
        &self,
        record: &Record,
        producer: ProducerId,
        partitions: &[Place],
    ) -> Result<Decision, Failure> {
        self.check_owner(record, producer)?;
        if record.state.is_deciding() {
            return Err(self.concurrent(record));
        }
        let missing = partitions.iter().find(|p| !record.partitions.contains(p));
        match missing {
            None if record.state == State::Ongoing => Ok(Decision::Reply(Reply::Verified)),
            missing => {
                let what = missing.map_or("no partition".to_owned(), Place::to_string);
                let text = format!(
                    "{what} is not registered in a transaction of {}; nothing was changed; register it first",
                    self.name
                );
                Err(self.about(ErrorKind::InvalidTransactionState, text))
            }
        }
    }

    fn end(
        &self,
        record: &Record,
        producer: ProducerId,
        commit: bool,
        fresh: i64,
    ) -> Result<Decision, Failure> {
        if who(record, producer) == Who::Repeater {
            return match record.state.commits() {
                Some(known) if known == commit => {
                    Ok(Decision::Reply(Reply::Ended(record.producer)))
                }
                Some(known) => Err(self.decided_otherwise(known)),
                None => Err(self.fenced(record, producer)),
            };
        }
        self.check_owner(record, producer)?;
        if record.state.is_deciding() {
            return Err(self.concurrent(record));
        }
        let next = record.next_session(fresh);
        let decided = record.decided(commit, Cause::Producer, next, self.wall_ms);
        Ok(Decision::Write(decided, Answer::Ended))
    }

    /// For a producer that keeps its epoch. Nothing tells the repeated end of one transaction from the end of the next
    /// one, so long as that has registered nothing: it is answered by what was decided.
    fn end_in_epoch(
        &self,
        record: &Record,
        producer: ProducerId,
        commit: bool,
    ) -> Result<Decision, Failure> {
        self.check_owner(record, producer)?;
        if !record.keeps_epoch() && record.state.is_deciding() {
            return Err(self.concurrent(record));
        }
        match record.state.commits().filter(|_| record.keeps_epoch()) {
            Some(known) if known == commit => Ok(Decision::Reply(Reply::Ended(record.producer))),
            Some(known) => Err(self.decided_otherwise(known)),
            None => {
                let decided = record.decided_in_epoch(commit, self.wall_ms);
                Ok(Decision::Write(decided, Answer::Ended))
            }
        }
    }

    fn decided_otherwise(&self, committed: bool) -> Failure {
        let done = if committed { "committed" } else { "aborted" };
        let text = format!(
            "this transaction of {} was already {done}; nothing was changed",
            self.name
        );
        self.about(ErrorKind::InvalidTransactionState, text)
    }

    fn abort(&self, record: Option<&Record>) -> Result<Decision, Failure> {
        let Some(record) = record else {
            return Err(self.not_found());
        };
        if record.state.is_deciding() {
            return Err(self.concurrent(record));
        }
        if record.state != State::Ongoing {
            let text = format!("{} has no open transaction; nothing was changed", self.name);
            return Err(self.about(ErrorKind::InvalidTransactionState, text));
        }
        let aborted = record.decided(false, Cause::Operator, record.raised(), self.wall_ms);
        Ok(Decision::Write(aborted, Answer::Aborted))
    }

    fn known<'r>(&self, record: Option<&'r Record>) -> Result<&'r Record, Failure> {
        record.ok_or_else(|| self.unknown())
    }

    fn check_owner(&self, record: &Record, producer: ProducerId) -> Result<(), Failure> {
        match who(record, producer) {
            Who::Owner => Ok(()),
            Who::Fenced
                if planted::is(Plant::AcceptOldSession) && producer.id == record.producer.id =>
            {
                Ok(())
            }
            Who::Repeater | Who::Fenced => Err(self.fenced(record, producer)),
            Who::Unaware => {
                let why = match record.cause {
                    Cause::Operator => "by an operator",
                    _ => "because it timed out",
                };
                let text = format!(
                    "the transaction of {} was aborted {why}; none of its records will ever be \
                     visible; open a new session and repeat the transaction",
                    self.name
                );
                Err(self.about(ErrorKind::TransactionAborted, text))
            }
        }
    }

    fn about(&self, kind: ErrorKind, text: String) -> Failure {
        Failure::new(kind, text).with("transactional_id", self.name)
    }

    fn unknown(&self) -> Failure {
        let text = format!(
            "transactional id {} is unknown here, or its session has expired; nothing was changed; \
             open a new session",
            self.name
        );
        self.about(ErrorKind::UnknownProducer, text)
    }

    pub(crate) fn not_found(&self) -> Failure {
        let text = format!("transactional id {} is unknown", self.name);
        self.about(ErrorKind::TransactionNotFound, text)
    }

    fn fenced(&self, record: &Record, producer: ProducerId) -> Failure {
        let text = format!(
            "the session of {} with producer id {} and epoch {} is fenced by a newer session; \
             nothing was changed; stop this producer",
            self.name, producer.id, producer.epoch
        );
        self.about(ErrorKind::ProducerFenced, text)
            .with("current_producer", record.producer.id)
            .with("current_epoch", record.producer.epoch)
    }

    pub(crate) fn concurrent(&self, record: &Record) -> Failure {
        let what = match record.state {
            State::PrepareCommit => "committed",
            _ => "aborted",
        };
        let text = format!(
            "the transaction of {} is still being {what}; nothing was changed; try again shortly",
            self.name
        );
        self.about(ErrorKind::ConcurrentTransactions, text)
    }

    pub(crate) fn aborting_first(&self) -> Failure {
        let text = format!(
            "the open transaction of {} is being aborted before a new session starts; try again \
             shortly",
            self.name
        );
        self.about(ErrorKind::ConcurrentTransactions, text)
    }

    pub(crate) fn unsettled(&self) -> Failure {
        let text = format!(
            "it is not known yet whether the last change of {} was stored; nothing was changed; \
             try again shortly",
            self.name
        );
        self.about(ErrorKind::ConcurrentTransactions, text)
    }

    pub(crate) fn queue_full(&self, most: usize) -> Failure {
        let text = format!(
            "{most} calls about {} are already waiting, which is the limit; nothing was changed; \
             try again",
            self.name
        );
        self.about(ErrorKind::Throttled, text)
    }

    pub(crate) fn too_many_ids(&self) -> Failure {
        let text = format!(
            "this node coordinates {} transactional ids, the limit that transactional.ids.max sets; {} was not added; \
             ids that are not used are forgotten after 7 days; use the same ids again, or raise \
             transactional.ids.max",
            self.config.ids_max, self.name
        );
        self.about(ErrorKind::PolicyViolation, text)
    }
}

/// The transaction has been open for too long.
pub(crate) fn timed_out(record: &Record, wall_ms: i64) -> Record {
    record.decided(false, Cause::Timeout, record.raised(), wall_ms)
}
