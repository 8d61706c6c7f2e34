//! One transactional id while it is coordinated: what is durable, the one append under way, who waits for it, and
//! which partitions have not heard of a decision.
//!
//! Invariants: what is answered or sent rests on what is durable; at most one append is under way; an append whose
//! outcome is unknown is repeated until it is durable, and meanwhile nothing is answered; whoever waits for a
//! transaction to be completed waits no longer than one round of markers.

use std::collections::{BTreeSet, VecDeque};

use varve_types::TransactionalId;

use crate::coordinator::Config;
use crate::planted::{self, Plant};
use crate::record::{Place, Record, State};
use crate::rules::{Answer, Call, Context, Decision, timed_out};
use crate::{AppendId, Description, Failure, Listing, Lost, Now, Reply, Tick, Ticket};

/// What an append would make durable.
#[derive(Debug, Clone)]
pub(crate) struct Intent {
    /// `None`: the id is forgotten.
    pub(crate) record: Option<Record>,
    answers: Vec<(Ticket, Answer)>,
}

/// Producer and number of markers: what names the transaction they end.
type MarkersOf = (varve_types::ProducerId, Option<i64>);

#[derive(Debug)]
enum Phase {
    /// Nothing is under way.
    Rest,
    /// An append is under way. `doubtful`: an earlier one of the same may be in the log.
    Writing {
        id: AppendId,
        intent: Intent,
        doubtful: bool,
    },
    /// The last append may be in the log: the same is appended again.
    Doubt { at: Tick, intent: Intent },
}

/// What an entry wants done.
#[derive(Debug)]
pub(crate) enum Act {
    Append(AppendId, Option<Record>),
    Send(Vec<Place>),
    Reply(Ticket, Reply),
}

/// What an entry may look at and use.
pub(crate) struct Env<'a> {
    pub(crate) now: Now,
    pub(crate) config: &'a Config,
    pub(crate) name: &'a TransactionalId,
    pub(crate) may_begin: bool,
    pub(crate) draining: bool,
    pub(crate) next_append: &'a mut u64,
    pub(crate) acts: &'a mut Vec<Act>,
}

impl Env<'_> {
    fn rules(&self) -> Context<'_> {
        Context {
            name: self.name,
            config: self.config,
            may_begin: self.may_begin,
            wall_ms: self.now.wall_ms,
        }
    }

    fn refuse(&mut self, ticket: Ticket, failure: Failure) {
        self.acts.push(Act::Reply(ticket, Reply::Failed(failure)));
    }
}

#[derive(Debug)]
pub(crate) struct Entry {
    durable: Option<Record>,
    phase: Phase,
    waiting: VecDeque<(Ticket, Call)>,
    /// Registrations for the next transaction, until every partition knows how this one ended.
    next: VecDeque<(Ticket, Call)>,
    /// Partitions that are not known to have the marker of the decision that is durable.
    untold: BTreeSet<Place>,
    /// When they are told again.
    tell_at: Tick,
    /// When the transaction that is open, or is being begun, has been open for too long.
    times_out: Tick,
    /// The coordinator does nothing of its own before.
    not_before: Tick,
    /// Where the coordinator's index of deadlines has it.
    pub(crate) indexed: Option<Tick>,
}

impl Entry {
    pub(crate) const fn new(durable: Option<Record>) -> Self {
        Self {
            durable,
            phase: Phase::Rest,
            waiting: VecDeque::new(),
            next: VecDeque::new(),
            untold: BTreeSet::new(),
            tell_at: Tick(0),
            times_out: Tick(0),
            not_before: Tick(0),
            indexed: None,
        }
    }

    pub(crate) const fn durable(&self) -> Option<&Record> {
        self.durable.as_ref()
    }

    /// Takes up what an earlier coordinator left.
    pub(crate) fn resume(&mut self, now: Now) {
        let Some(record) = &self.durable else { return };
        let timeout = u64::from(record.timeout_ms);
        // A wall clock that differs may end it sooner, never later.
        let age = now
            .wall_ms
            .saturating_sub(record.started_ms.unwrap_or(now.wall_ms));
        let age = u64::try_from(age).unwrap_or(0).min(timeout);
        self.times_out = now.tick.plus(timeout - age);
        if record.state.is_deciding() && !planted::is(Plant::ForgetUntold) {
            self.untold = record.partitions.clone();
            self.tell_at = now.tick;
        }
    }

    pub(crate) fn call(&mut self, ticket: Ticket, call: Call, env: &mut Env<'_>) {
        match &self.phase {
            Phase::Rest if self.waiting.is_empty() => self.answer(ticket, call, env),
            Phase::Doubt { .. } | Phase::Writing { doubtful: true, .. } => {
                let failure = env.rules().unsettled();
                env.refuse(ticket, failure);
            }
            _ if self.waiting.len() >= env.config.max_waiting => {
                let failure = env.rules().queue_full(env.config.max_waiting);
                env.refuse(ticket, failure);
            }
            _ => self.waiting.push_back((ticket, call)),
        }
    }

    fn answer(&mut self, ticket: Ticket, call: Call, env: &mut Env<'_>) {
        match env.rules().decide(self.durable.as_ref(), &call) {
            Err(failure) => env.refuse(ticket, failure),
            Ok(Decision::Reply(reply)) => env.acts.push(Act::Reply(ticket, reply)),
            Ok(Decision::Write(mut record, answer)) => {
                let mut answers = vec![(ticket, answer)];
                if answer == Answer::Added {
                    gather(&mut self.waiting, &mut record, &mut answers, env);
                }
                self.write(Some(record), answers, env);
            }
            Ok(Decision::AbortFirst(record)) => {
                let failure = env.rules().aborting_first();
                env.refuse(ticket, failure);
                self.write(Some(record), Vec::new(), env);
            }
            Ok(Decision::AfterCompletion(failure)) => {
                if self.next.len() < env.config.max_waiting {
                    self.next.push_back((ticket, call));
                } else {
                    env.refuse(ticket, failure);
                }
            }
        }
    }

    fn write(&mut self, record: Option<Record>, answers: Vec<(Ticket, Answer)>, env: &mut Env<'_>) {
        assert!(
            matches!(self.phase, Phase::Rest),
            "two appends of {} at once",
            env.name
        );
        let ongoing = |record: &&Record| record.state == State::Ongoing;
        if let Some(begun) = record.as_ref().filter(ongoing)
            && self.durable.as_ref().filter(ongoing).is_none()
        {
            self.times_out = env.now.tick.plus(begun.timeout_ms.into());
        }
        let answers = self.too_early(record.as_ref(), answers, env);
        self.append(Intent { record, answers }, false, env);
    }

    /// Every partition knows how the transaction ended. If somebody waits to begin the next one, the record in which it
    /// begins says that too.
    fn complete(&mut self, mut record: Record, env: &mut Env<'_>) {
        let mut answers = Vec::new();
        gather(&mut self.next, &mut record, &mut answers, env);
        for call in self.next.drain(..).rev() {
            self.waiting.push_front(call);
        }
        self.write(Some(record), answers, env);
    }

    /// Answers everybody who waits with a failure.
    fn refuse_all(&mut self, failure: &Failure, env: &mut Env<'_>) {
        for (ticket, _) in self.next.drain(..).chain(self.waiting.drain(..)) {
            env.refuse(ticket, failure.clone());
        }
    }

    /// Only a planted bug answers, or sends markers, before what that rests on is durable.
    fn too_early(
        &mut self,
        record: Option<&Record>,
        mut answers: Vec<(Ticket, Answer)>,
        env: &mut Env<'_>,
    ) -> Vec<(Ticket, Answer)> {
        let Some(record) = record else {
            return answers;
        };
        if planted::is(Plant::MarkerBeforeDecision) && record.state.is_deciding() {
            self.durable = Some(record.clone());
            env.acts
                .push(Act::Send(record.partitions.iter().cloned().collect()));
        }
        answers.retain(|(ticket, what)| {
            let early = match what {
                Answer::Added => planted::is(Plant::RegisteredBeforeDurable),
                Answer::Ended => planted::is(Plant::EndedBeforeDurable),
                Answer::Session | Answer::Aborted => false,
            };
            if early {
                env.acts.push(Act::Reply(*ticket, what.reply(record)));
            }
            !early
        });
        answers
    }

    fn append(&mut self, intent: Intent, doubtful: bool, env: &mut Env<'_>) {
        let id = AppendId(*env.next_append);
        *env.next_append += 1;
        env.acts.push(Act::Append(id, intent.record.clone()));
        self.phase = Phase::Writing {
            id,
            intent,
            doubtful,
        };
    }

    fn take_intent(&mut self, id: AppendId) -> (Intent, bool) {
        match std::mem::replace(&mut self.phase, Phase::Rest) {
            Phase::Writing {
                id: known,
                intent,
                doubtful,
            } if known == id => (intent, doubtful),
            other => panic!("append {} is not under way: {other:?}", id.0),
        }
    }

    pub(crate) fn wrote(&mut self, id: AppendId, env: &mut Env<'_>) {
        let (intent, _) = self.take_intent(id);
        if let (Some(old), Some(new)) = (&self.durable, &intent.record) {
            assert!(
                new.producer.id != old.producer.id || new.producer.epoch >= old.producer.epoch,
                "the epoch of {} went back: {old:?} to {new:?}",
                env.name
            );
        }
        self.durable = intent.record;
        self.untold.clear();
        if let Some(record) = &self.durable {
            for (ticket, answer) in intent.answers {
                env.acts.push(Act::Reply(ticket, answer.reply(record)));
            }
        }
        if let Some(record) = self.durable.as_ref().filter(|r| r.state.is_deciding()) {
            self.untold = record.partitions.clone();
            self.tell_at = env.now.tick;
        }
    }

    pub(crate) fn failed(&mut self, id: AppendId, lost: Lost, failure: Failure, env: &mut Env<'_>) {
        let (mut intent, doubtful) = self.take_intent(id);
        let at = env.now.tick.plus(env.config.retry_ms);
        for (ticket, _) in intent.answers.drain(..) {
            env.refuse(ticket, failure.clone());
        }
        if lost == Lost::Unknown || doubtful {
            self.phase = Phase::Doubt { at, intent };
            let failure = env.rules().unsettled();
            self.refuse_all(&failure, env);
        } else {
            self.not_before = at;
        }
    }

    /// These markers have arrived there.
    pub(crate) fn told(&mut self, markers: MarkersOf, partitions: &[Place]) {
        if self.marker_producer() == Some(markers) {
            for place in partitions {
                self.untold.remove(place);
            }
        }
    }

    /// Some of these markers have not arrived.
    pub(crate) fn not_told(&mut self, markers: MarkersOf, env: &Env<'_>) {
        if self.marker_producer() == Some(markers) {
            let soon = env.now.tick.plus(env.config.retry_ms);
            self.tell_at = self.tell_at.min(soon);
        }
    }

    pub(crate) fn marker_producer(&self) -> Option<MarkersOf> {
        self.durable.as_ref().and_then(Record::marker_producer)
    }

    /// Topics that are gone take part in nothing any more.
    pub(crate) fn without(&mut self, gone: &BTreeSet<varve_types::TopicId>) {
        let stays = |place: &Place| !gone.contains(&place.topic);
        self.untold.retain(stays);
        let intended = match &mut self.phase {
            Phase::Writing { intent, .. } | Phase::Doubt { intent, .. } => intent.record.as_mut(),
            Phase::Rest => None,
        };
        for record in self.durable.iter_mut().chain(intended) {
            record.partitions.retain(stays);
        }
    }

    /// Answers everybody who waits: nothing is begun any more.
    pub(crate) fn drain(&mut self, failure: &Failure, env: &mut Env<'_>) {
        self.refuse_all(failure, env);
    }

    /// Forgets an id that has been idle for longer than `expiration_ms`.
    pub(crate) fn expire(&mut self, expiration_ms: i64, env: &mut Env<'_>) {
        let Some(record) = &self.durable else { return };
        let idle_ms = env.now.wall_ms.saturating_sub(record.updated_ms);
        let free = matches!(self.phase, Phase::Rest) && self.waiting.is_empty();
        if free && !record.state.is_open() && idle_ms >= expiration_ms {
            self.write(None, Vec::new(), env);
        }
    }

    /// Does what is due, and lets those who wait come.
    pub(crate) fn settle(&mut self, env: &mut Env<'_>) {
        if env.draining {
            return;
        }
        if matches!(&self.phase, Phase::Doubt { at, .. } if *at <= env.now.tick)
            && let Phase::Doubt { intent, .. } = std::mem::replace(&mut self.phase, Phase::Rest)
        {
            self.append(intent, true, env);
        }
        while matches!(self.phase, Phase::Rest) {
            if self.act(env) {
                continue;
            }
            match self.waiting.pop_front() {
                Some((ticket, call)) => self.answer(ticket, call, env),
                None => return,
            }
        }
    }

    /// Does one thing of its own that is due; whether there was one.
    fn act(&mut self, env: &mut Env<'_>) -> bool {
        let (now, free) = (env.now.tick, env.now.tick >= self.not_before);
        let Some(record) = &self.durable else {
            return false;
        };
        let late = self.times_out <= now && !planted::is(Plant::NeverTimesOut);
        if record.state == State::Ongoing && late && free {
            let aborted = timed_out(record, env.now.wall_ms);
            self.write(Some(aborted), Vec::new(), env);
            return true;
        }
        if record.state.is_deciding() && self.untold.is_empty() && free {
            let completed = record.completed(env.now.wall_ms);
            self.complete(completed, env);
            return true;
        }
        if record.state.is_deciding() && !self.untold.is_empty() && self.tell_at <= now {
            self.tell_at = now.plus(env.config.marker_wait_ms);
            // The first round was not enough: how long it takes is not known any more.
            let failure = env.rules().concurrent(record);
            for (ticket, _) in self.next.drain(..) {
                env.refuse(ticket, failure.clone());
            }
            env.acts
                .push(Act::Send(self.untold.iter().cloned().collect()));
            return true;
        }
        false
    }

    /// When it has something to do by itself.
    pub(crate) fn deadline(&self) -> Option<Tick> {
        match (&self.phase, &self.durable) {
            (Phase::Writing { .. }, _) => None,
            (Phase::Doubt { at, .. }, _) => Some(*at),
            (Phase::Rest, Some(record)) if record.state == State::Ongoing => {
                Some(self.times_out.max(self.not_before))
            }
            (Phase::Rest, Some(record)) if record.state.is_deciding() => {
                Some(match self.untold.is_empty() {
                    true => self.not_before,
                    false => self.tell_at,
                })
            }
            (Phase::Rest, _) => None,
        }
    }

    /// Whether a transaction is open, or would be if what is under way became durable.
    pub(crate) fn is_open(&self) -> bool {
        let intended = match &self.phase {
            Phase::Writing { intent, .. } | Phase::Doubt { intent, .. } => intent.record.as_ref(),
            Phase::Rest => None,
        };
        let records = self.durable.iter().chain(intended);
        records.into_iter().any(|record| record.state.is_open())
    }

    /// Whether nothing is left of it.
    pub(crate) fn is_vacant(&self) -> bool {
        let nobody = self.waiting.is_empty() && self.next.is_empty();
        self.durable.is_none() && matches!(self.phase, Phase::Rest) && nobody
    }

    pub(crate) fn listing(&self, name: &TransactionalId) -> Option<Listing> {
        let record = self.durable.as_ref()?;
        Some(Listing {
            name: name.clone(),
            producer: record.producer,
            state: record.state,
            started_ms: record.started_ms,
        })
    }

    pub(crate) fn describe(&self, name: &TransactionalId) -> Option<Description> {
        let record = self.durable.as_ref()?;
        Some(Description {
            name: name.clone(),
            producer: record.producer,
            state: record.state,
            cause: record.cause,
            timeout_ms: record.timeout_ms,
            started_ms: record.started_ms,
            updated_ms: record.updated_ms,
            partitions: record.partitions.iter().cloned().collect(),
            untold: self.untold.iter().cloned().collect(),
            writing: !matches!(self.phase, Phase::Rest),
        })
    }

    pub(crate) fn assert_invariants(&self, name: &TransactionalId) {
        let deciding = self.durable.as_ref().is_some_and(|r| r.state.is_deciding());
        assert!(
            deciding || self.untold.is_empty(),
            "partitions of {name} get a decision that is not durable"
        );
        assert!(
            deciding || self.next.is_empty(),
            "a call waits for a transaction of {name} that is not being completed"
        );
    }
}

/// Takes calls from the front that register partitions in the transaction of `record`: one append is for all of them.
/// What would be refused stays, to be judged by what is durable then.
fn gather(
    queue: &mut VecDeque<(Ticket, Call)>,
    record: &mut Record,
    answers: &mut Vec<(Ticket, Answer)>,
    env: &Env<'_>,
) {
    while let Some((ticket, call @ Call::Add { .. })) = queue.front() {
        match env.rules().decide(Some(&*record), call) {
            Ok(Decision::Write(more, Answer::Added)) => *record = more,
            Ok(Decision::Reply(Reply::Verified)) => {}
            _ => return,
        }
        answers.push((*ticket, Answer::Added));
        queue.pop_front();
    }
}
