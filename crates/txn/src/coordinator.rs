//! All transactional ids of one partition of `__transaction_state`: the core that is stepped.
//!
//! Invariants: every call is answered at most once; a name has at most one append under way; what changes one name
//! touches no other. Never waits, never reads a clock.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use varve_types::{ErrorKind, LeaderEpoch, TopicId, TransactionalId, limits};

use crate::codec;
use crate::entry::{Act, Entry, Env};
use crate::rules::{Call, Context};
use crate::{AppendId, Failure, Input, Markers, Now, Output, Reply, Tick, Ticket};

/// Times and bounds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Least transaction timeout that can be asked for, milliseconds.
    pub timeout_min_ms: u64,
    /// Greatest, milliseconds (`transaction.max.timeout.ms`).
    pub timeout_max_ms: u64,
    /// Most transactional ids of all coordinators of this node together (`transactional.ids.max`).
    pub ids_max: usize,
    /// Most transactions that are open or being completed.
    pub open_max: usize,
    /// Most partitions of one transaction.
    pub partitions_max: usize,
    /// Most calls about one id that wait for an append; further ones are told to come back.
    pub max_waiting: usize,
    /// What failed is tried again after this long, milliseconds.
    pub retry_ms: u64,
    /// Partitions that do not say whether they have a marker are told again after this long, milliseconds.
    pub marker_wait_ms: u64,
    /// An id without open transaction is forgotten when it has been idle for so long, milliseconds
    /// (`transactional.id.expiration.ms`).
    pub expiration_ms: i64,
    /// Expired ids are looked for this often, milliseconds.
    pub expiry_interval_ms: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            timeout_min_ms: limits::TRANSACTION_TIMEOUT_MIN_MS,
            timeout_max_ms: limits::TRANSACTION_TIMEOUT_MAX_MS,
            ids_max: limits::TRANSACTIONAL_IDS_DEFAULT_MAX,
            open_max: limits::TRANSACTIONS_OPEN_MAX,
            partitions_max: limits::TRANSACTION_MAX_PARTITIONS,
            max_waiting: 100,
            retry_ms: 500,
            marker_wait_ms: 10_000,
            expiration_ms: 7 * 24 * 3_600 * 1_000,
            expiry_interval_ms: 600_000,
        }
    }
}

/// The transactional ids of one partition of `__transaction_state`, in one leadership of it.
pub struct Coordinator {
    config: Config,
    epoch: LeaderEpoch,
    /// `None` until the first list.
    topics: Option<Arc<BTreeSet<TopicId>>>,
    loaded: bool,
    draining: bool,
    entries: BTreeMap<TransactionalId, Entry>,
    /// Ids of the node's other coordinators, which share its limit.
    ids_elsewhere: usize,
    /// Those whose transaction is open or being completed.
    open: BTreeSet<TransactionalId>,
    /// When an entry has something to do by itself.
    deadlines: BTreeSet<(Tick, TransactionalId)>,
    /// Callers not yet answered.
    callers: BTreeSet<Ticket>,
    /// Names of the appends under way.
    appends: BTreeMap<AppendId, TransactionalId>,
    next_append: u64,
    next_expiry: Tick,
    /// Entries this step changed.
    touched: BTreeSet<TransactionalId>,
}

impl Coordinator {
    /// A coordinator without ids that waits to be loaded. `epoch` is that of this leadership of the partition of
    /// `__transaction_state`; a leadership gets a coordinator of its own.
    #[must_use]
    pub fn new(config: Config, epoch: LeaderEpoch) -> Self {
        Self {
            config,
            epoch,
            topics: None,
            loaded: false,
            draining: false,
            entries: BTreeMap::new(),
            ids_elsewhere: 0,
            open: BTreeSet::new(),
            deadlines: BTreeSet::new(),
            callers: BTreeSet::new(),
            appends: BTreeMap::new(),
            next_append: 0,
            next_expiry: Tick(0),
            touched: BTreeSet::new(),
        }
    }

    /// When [`Input::Tick`] must be sent at the latest; `None` while there is nothing to wait for.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Tick> {
        if self.draining || !self.loaded {
            return None;
        }
        let entry = self.deadlines.first().map(|(t, _)| *t);
        entry.into_iter().chain([self.next_expiry]).min()
    }

    /// How many ids the node's other coordinators have now: all of them share [`Config::ids_max`].
    pub const fn set_ids_elsewhere(&mut self, count: usize) {
        self.ids_elsewhere = count;
    }

    /// Number of transactional ids, for metrics.
    #[must_use]
    pub fn id_count(&self) -> usize {
        self.entries.len()
    }

    /// Number of transactions that are open or being completed, for metrics.
    #[must_use]
    pub fn open_count(&self) -> usize {
        self.open.len()
    }

    /// Takes one input at `now` and appends what is to be done to `out`.
    ///
    /// # Panics
    /// On bugs only: a ticket used twice, an unknown append completed, an invariant broken.
    pub fn step(&mut self, now: Now, input: Input, out: &mut Vec<Output>) {
        let first = out.len();
        if let Some(ticket) = input.ticket() {
            let fresh = self.callers.insert(ticket);
            assert!(fresh, "ticket {} is in use", ticket.0);
        }
        self.take_due(now);
        // What is due comes before the call: a transaction whose time is over cannot be committed any more.
        self.settle(now, out);
        match input.ticket() {
            Some(ticket) if !self.loaded || self.draining => {
                let reply = Reply::Failed(self.not_now());
                out.push(Output::Reply { ticket, reply });
            }
            _ => self.dispatch(now, input, out),
        }
        self.settle(now, out);
        for output in &out[first..] {
            if let Output::Reply { ticket, .. } = output {
                let open = self.callers.remove(ticket);
                assert!(open, "ticket {} is answered twice", ticket.0);
            }
        }
    }

    fn not_now(&self) -> Failure {
        if self.draining {
            return Failure::new(
                ErrorKind::ShuttingDown,
                "the transaction coordinator of this node is shutting down; nothing was changed; \
                 find the new coordinator and ask it",
            );
        }
        Failure::new(
            ErrorKind::CoordinatorLoading,
            "the transaction coordinator is still loading its transactions; nothing was changed; \
             try again shortly",
        )
    }

    fn dispatch(&mut self, now: Now, input: Input, out: &mut Vec<Output>) {
        match input {
            Input::Tick => self.expire(now, out),
            Input::Load { key, value } => self.load(&key, value.as_deref(), out),
            Input::Loaded => self.finish_loading(now),
            Input::Topics(topics) => self.topics_changed(topics),
            Input::Drain => self.drain(now, out),
            Input::Durable { id } => {
                let name = self.take_append(id);
                self.with(now, &name, out, |entry, env| entry.wrote(id, env));
            }
            Input::Failed { id, lost, failure } => {
                let name = self.take_append(id);
                self.with(now, &name, out, |entry, env| {
                    entry.failed(id, lost, failure, env);
                });
            }
            Input::MarkersDone {
                name,
                producer,
                number,
                partitions,
            } => self.with(now, &name, out, |entry, _| {
                entry.told((producer, number), &partitions);
            }),
            Input::MarkersFailed {
                name,
                producer,
                number,
            } => {
                let markers = (producer, number);
                self.with(now, &name, out, |entry, env| entry.not_told(markers, env));
            }
            Input::Init {
                ticket,
                name,
                timeout_ms,
                fresh,
                keep,
            } => self.init(now, ticket, &name, (timeout_ms, fresh, keep), out),
            Input::Add {
                ticket,
                name,
                producer,
                partitions,
            } => {
                let call = Call::Add {
                    producer,
                    partitions,
                };
                self.call(now, ticket, &name, call, out);
            }
            Input::Verify {
                ticket,
                name,
                producer,
                partitions,
            } => {
                let call = Call::Verify {
                    producer,
                    partitions,
                };
                self.call(now, ticket, &name, call, out);
            }
            Input::End {
                ticket,
                name,
                producer,
                commit,
                next,
            } => {
                let call = Call::End {
                    producer,
                    commit,
                    next,
                };
                self.call(now, ticket, &name, call, out);
            }
            Input::Abort { ticket, name } => self.call(now, ticket, &name, Call::Abort, out),
            Input::List { ticket } => {
                let all = self.entries.iter().filter_map(|(name, e)| e.listing(name));
                let reply = Reply::Transactions(all.collect());
                out.push(Output::Reply { ticket, reply });
            }
            Input::Get { ticket, name } => {
                let found = self.entries.get(&name).and_then(|e| e.describe(&name));
                let reply = match found {
                    Some(description) => Reply::Transaction(Box::new(description)),
                    None => Reply::Failed(self.rules(now, &name).not_found()),
                };
                out.push(Output::Reply { ticket, reply });
            }
        }
    }

    fn rules<'a>(&'a self, now: Now, name: &'a TransactionalId) -> Context<'a> {
        Context {
            name,
            config: &self.config,
            may_begin: self.may_begin(name),
            wall_ms: now.wall_ms,
        }
    }

    /// Whether there is room for a transaction of this id. The next one takes the place of the one that is being
    /// completed.
    fn may_begin(&self, name: &TransactionalId) -> bool {
        self.open.contains(name) || self.open.len() < self.config.open_max
    }

    fn init(
        &mut self,
        now: Now,
        ticket: Ticket,
        name: &TransactionalId,
        (timeout_ms, fresh, keep): (u64, i64, Option<varve_types::ProducerId>),
        out: &mut Vec<Output>,
    ) {
        if !self.entries.contains_key(name) {
            if self.entries.len() + self.ids_elsewhere >= self.config.ids_max {
                let reply = Reply::Failed(self.rules(now, name).too_many_ids());
                return out.push(Output::Reply { ticket, reply });
            }
            self.entries.insert(name.clone(), Entry::new(None));
        }
        let call = Call::Init {
            timeout_ms,
            fresh,
            keep,
        };
        self.call(now, ticket, name, call, out);
    }

    fn call(
        &mut self,
        now: Now,
        ticket: Ticket,
        name: &TransactionalId,
        call: Call,
        out: &mut Vec<Output>,
    ) {
        if self.entries.contains_key(name) {
            return self.with(now, name, out, |entry, env| entry.call(ticket, call, env));
        }
        // An unknown name: the rules say what that means for the call, and none of them makes it known.
        if let Err(failure) = self.rules(now, name).decide(None, &call) {
            let reply = Reply::Failed(failure);
            out.push(Output::Reply { ticket, reply });
        }
    }

    fn take_append(&mut self, id: AppendId) -> TransactionalId {
        match self.appends.remove(&id) {
            Some(name) => name,
            None => panic!("append {} is not under way", id.0),
        }
    }

    /// Lets `work` change an entry, if there is one, and performs what it wants done.
    fn with(
        &mut self,
        now: Now,
        name: &TransactionalId,
        out: &mut Vec<Output>,
        work: impl FnOnce(&mut Entry, &mut Env<'_>),
    ) {
        let may_begin = self.may_begin(name);
        let Some(entry) = self.entries.get_mut(name) else {
            return;
        };
        self.touched.insert(name.clone());
        let mut acts = Vec::new();
        let mut env = Env {
            now,
            config: &self.config,
            name,
            may_begin,
            draining: self.draining,
            next_append: &mut self.next_append,
            acts: &mut acts,
        };
        work(entry, &mut env);
        let markers = entry.marker_producer().zip(entry.durable());
        let markers = markers.map(|(of, record)| (of, record.state.commits()));
        for act in acts {
            match act {
                Act::Reply(ticket, reply) => out.push(Output::Reply { ticket, reply }),
                Act::Append(id, record) => {
                    self.appends.insert(id, name.clone());
                    out.push(Output::Append {
                        id,
                        name: name.clone(),
                        key: codec::encode_key(name),
                        value: record.as_ref().map(codec::encode_value),
                    });
                }
                Act::Send(partitions) => {
                    let Some(((producer, number), Some(commit))) = markers else {
                        unreachable!("markers follow a durable decision")
                    };
                    out.push(Output::SendMarkers(Markers {
                        name: name.clone(),
                        producer,
                        number,
                        commit,
                        coordinator_epoch: self.epoch,
                        partitions,
                    }));
                }
            }
        }
    }

    fn load(&mut self, key: &[u8], value: Option<&[u8]>, out: &mut Vec<Output>) {
        assert!(!self.loaded, "replay comes before Loaded");
        let decoded = codec::decode_key(key)
            .and_then(|k| value.map(codec::decode_value).transpose().map(|v| (k, v)));
        match decoded {
            Ok((name, Some(record))) => {
                self.entries.insert(name, Entry::new(Some(record)));
            }
            Ok((name, None)) => {
                self.entries.remove(&name);
            }
            Err(error) => out.push(Output::LoadSkipped { error }),
        }
    }

    fn finish_loading(&mut self, now: Now) {
        assert!(!self.loaded, "Loaded comes once");
        self.loaded = true;
        self.next_expiry = now.tick.plus(self.config.expiry_interval_ms);
        for (name, entry) in &mut self.entries {
            entry.resume(now);
            self.touched.insert(name.clone());
        }
    }

    fn topics_changed(&mut self, topics: Arc<BTreeSet<TopicId>>) {
        let Some(before) = self.topics.replace(topics.clone()) else {
            return;
        };
        let gone: BTreeSet<TopicId> = before.difference(&topics).copied().collect();
        if gone.is_empty() {
            return;
        }
        for (name, entry) in &mut self.entries {
            entry.without(&gone);
            self.touched.insert(name.clone());
        }
    }

    fn drain(&mut self, now: Now, out: &mut Vec<Output>) {
        self.draining = true;
        let failure = self.not_now();
        let names: Vec<_> = self.entries.keys().cloned().collect();
        for name in names {
            self.with(now, &name, out, |entry, env| entry.drain(&failure, env));
        }
    }

    fn expire(&mut self, now: Now, out: &mut Vec<Output>) {
        if !self.loaded || self.draining || now.tick < self.next_expiry {
            return;
        }
        self.next_expiry = now.tick.plus(self.config.expiry_interval_ms);
        let expiration_ms = self.config.expiration_ms;
        let names: Vec<_> = self.entries.keys().cloned().collect();
        for name in names {
            self.with(now, &name, out, |entry, env| {
                entry.expire(expiration_ms, env);
            });
        }
    }

    /// Marks entries that have something to do.
    fn take_due(&mut self, now: Now) {
        let due = self.deadlines.iter().take_while(|(at, _)| *at <= now.tick);
        let names: Vec<_> = due.map(|(_, name)| name.clone()).collect();
        self.touched.extend(names);
    }

    /// Lets the entries that changed do what is due, indexes them anew and checks their invariants.
    fn settle(&mut self, now: Now, out: &mut Vec<Output>) {
        if !self.loaded {
            return;
        }
        while let Some(name) = self.touched.pop_first() {
            self.with(now, &name, out, Entry::settle);
            self.touched.remove(&name);
            let Some(entry) = self.entries.get_mut(&name) else {
                continue;
            };
            entry.assert_invariants(&name);
            let deadline = entry.deadline();
            if let Some(old) = entry.indexed.filter(|old| Some(*old) != deadline) {
                self.deadlines.remove(&(old, name.clone()));
            }
            entry.indexed = deadline;
            if let Some(at) = deadline {
                self.deadlines.insert((at, name.clone()));
            }
            match entry.is_open() {
                true => self.open.insert(name.clone()),
                false => self.open.remove(&name),
            };
            if entry.is_vacant() {
                self.entries.remove(&name);
            }
        }
    }
}
