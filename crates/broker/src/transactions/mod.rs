//! Transactions over several partitions: whom a call about one goes to, what a leader asks before it appends, and
//! how partitions learn of the end.
//!
//! There is one coordinator for each partition of `__transaction_state`, on the node that leads it. Invariants: a
//! partition takes the first batch of a transaction only when its coordinator has it registered durably; a caller
//! that comes to the wrong node is told the right one; nothing is begun before every node of the cluster can read
//! markers.

mod gate;
mod host;
mod loading;
mod markers;
mod registered;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use varve_broker_api as api;
use varve_broker_api::{Error, Result, TransactionVersion};
use varve_metadata::features;
use varve_partition::Verified;
use varve_txn::{Cause, Input, Next, Place, Reply, State, Ticket};
use varve_types::{
    ErrorKind, LeaderEpoch, NodeId, PartitionId, ProducerId, TopicPartition, TransactionalId,
};
use varve_vfs::Clock;

use crate::config::BrokerConfig;
use crate::coordinators::Coordinators;
use crate::internal_topic::{InternalTopic, TRANSACTIONS};
use crate::leaderships::{Leaderships, Subject, moved};
use crate::node_count::NodeCount;
use crate::peer::{MarkerOrder, MarkerOutcome, Registration};
use crate::registry::Registry;
use crate::{coordinator, offsets};
use gate::Gate;
use host::Host;
use loading::Loading;
use markers::Sender;

pub(crate) use registered::Registered;

/// How often leaderships that are over are looked for.
const SWEEP: Duration = Duration::from_millis(500);

/// Transactions of this node.
pub(crate) struct Transactions {
    registry: Arc<Registry>,
    groups: Arc<Coordinators>,
    clock: Arc<dyn Clock>,
    config: Arc<BrokerConfig>,
    tickets: AtomicU64,
    led: Leaderships<Host>,
    sender: Arc<Sender>,
    loading: Loading,
    gate: Gate,
    /// Transactional ids of all coordinators.
    ids: NodeCount,
    draining: AtomicBool,
}

impl std::fmt::Debug for Transactions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Transactions")
            .field("gate", &self.gate)
            .finish_non_exhaustive()
    }
}

impl Transactions {
    pub(crate) fn start(
        registry: Arc<Registry>,
        groups: Arc<Coordinators>,
        clock: Arc<dyn Clock>,
        config: Arc<BrokerConfig>,
    ) -> Arc<Self> {
        let sender = Sender::new(
            Arc::clone(&registry),
            Arc::clone(&groups),
            Arc::clone(&clock),
        );
        let me = Arc::new(Self {
            led: Leaderships::new(TRANSACTIONS, Arc::clone(&registry)),
            registry,
            groups,
            clock,
            config,
            tickets: AtomicU64::new(1),
            sender: Arc::new(sender),
            loading: Loading::default(),
            gate: Gate::default(),
            ids: NodeCount::default(),
            draining: AtomicBool::new(false),
        });
        let weak = Arc::downgrade(&me);
        crate::work::spawn(async move {
            while let Some(me) = weak.upgrade() {
                me.sweep();
                drop(me);
                tokio::time::sleep(SWEEP).await;
            }
        });
        me
    }

    /// Ends the coordinators of leaderships that are over, and starts those of new ones: transactions are to be
    /// completed and timed out whoever calls.
    fn sweep(&self) {
        self.led.forget_ended();
        if !self.draining.load(Ordering::SeqCst) {
            // Those that begin together are one event in the log.
            let _round = self.loading.begin();
            self.led.here(|number, epoch| self.begin(number, epoch));
        }
    }

    fn begin(&self, number: PartitionId, epoch: LeaderEpoch) -> Host {
        let config = varve_txn::Config {
            ids_max: self.config.transactional_ids_max,
            ..varve_txn::Config::default()
        };
        Host::start(
            config,
            Arc::clone(&self.registry),
            self.topic(),
            Arc::clone(&self.clock),
            (number, epoch),
            Arc::clone(&self.sender),
            (&self.loading, self.ids.share()),
        )
    }

    /// Transactional ids that this node coordinates.
    pub(crate) fn id_count(&self) -> usize {
        self.ids.get()
    }

    fn topic(&self) -> InternalTopic {
        InternalTopic::transactions(
            Arc::clone(&self.registry),
            Arc::clone(&self.clock),
            &self.config,
        )
    }

    /// Transactional ids that are coordinated here, and those with a transaction that is open or being completed.
    pub(crate) fn counts(&self) -> (i64, i64) {
        let counts = self.led.running().into_iter().map(|host| host.counts());
        counts.fold((0, 0), |(a, b), (ids, open)| (a + ids, b + open))
    }

    /// Refuses everything from now on.
    pub(crate) async fn drain(&self) {
        self.draining.store(true, Ordering::SeqCst);
        for host in self.led.running() {
            host.drain().await;
        }
    }

    fn ticket(&self) -> Ticket {
        Ticket(self.tickets.fetch_add(1, Ordering::Relaxed))
    }

    /// Asks the coordinator of an id, if it is this node.
    async fn ask(
        &self,
        id: &TransactionalId,
        remembered: Remembered,
        input: impl FnOnce(Ticket) -> Input,
    ) -> Result<Reply> {
        if self.draining.load(Ordering::SeqCst) {
            let text = "this node is shutting down; nothing was changed; ask another node";
            return Err(Error::new(ErrorKind::ShuttingDown, text));
        }
        let subject = subject(id);
        if self.led.never_made().await {
            let text = format!(
                "transactional id {:?} is unknown; nothing was changed; call InitTransactions \
                 again",
                id.as_str()
            );
            let error = Error::new(ErrorKind::UnknownProducer, text);
            return Err(error.with("transactional_id", id));
        }
        let (number, epoch, _) = self.led.place(subject)?;
        let host = self
            .led
            .of(number, epoch, |number, epoch| self.begin(number, epoch));
        match host.call(input(self.ticket())).await {
            Err(error) if moved(error.kind) => Err(self
                .led
                .elsewhere(subject)
                .unwrap_or_else(|| subject.again(error))),
            // What this node remembers may be out of date: another may have begun a session since.
            Err(error) if is_final(error.kind) && !self.led.confirmed(number, epoch).await => {
                Err(self
                    .led
                    .elsewhere(subject)
                    .unwrap_or_else(|| subject.unconfirmed()))
            }
            Ok(reply)
                if (remembered == Remembered::ForOneTransaction || reply == Reply::Verified)
                    && !self.led.confirmed(number, epoch).await =>
            {
                Err(self
                    .led
                    .elsewhere(subject)
                    .unwrap_or_else(|| subject.unconfirmed()))
            }
            answer => answer,
        }
    }

    /// A producer id that nobody has had.
    async fn fresh(&self) -> Result<i64> {
        Ok(self.registry.init_producer(None).await?.producer.id)
    }

    pub(crate) async fn init(&self, request: api::InitTransactions) -> Result<ProducerId> {
        self.registry
            .check_level(features::TRANSACTIONS, "transactions")?;
        if !self.led.exists() {
            self.topic().create().await?;
        }
        let api::InitTransactions { id, timeout, keep } = request;
        let fresh = self.fresh().await?;
        let timeout_ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
        let name = id.clone();
        let input = |ticket| Input::Init {
            ticket,
            name,
            timeout_ms,
            fresh,
            keep,
        };
        match self.ask(&id, Remembered::ForTheEpoch, input).await? {
            Reply::Session(producer) => Ok(producer),
            other => Err(unexpected(&other)),
        }
    }

    pub(crate) async fn end(&self, request: api::EndTransaction) -> Result<ProducerId> {
        let api::EndTransaction {
            id,
            producer,
            commit,
            version,
        } = request;
        let next = match version {
            TransactionVersion::V1 => {
                self.check_kept_epochs()?;
                Next::Same
            }
            TransactionVersion::V2 => Next::Epoch {
                fresh: match producer.epoch >= i16::MAX - 2 {
                    true => self.fresh().await?,
                    // Epochs are not used up: none is needed.
                    false => producer.id,
                },
            },
        };
        let name = id.clone();
        let input = |ticket| Input::End {
            ticket,
            name,
            producer,
            commit,
            next,
        };
        match self.ask(&id, Remembered::of(version), input).await? {
            Reply::Ended(producer) => Ok(producer),
            other => Err(unexpected(&other)),
        }
    }

    fn check_kept_epochs(&self) -> Result<()> {
        self.registry.check_level(
            features::KEPT_EPOCHS,
            "transactions of producers that keep their epoch",
        )
    }

    /// Registers partitions, and that of a group, for a producer that keeps its epoch; this node must be the
    /// coordinator.
    pub(crate) async fn add(&self, request: api::AddToTransaction) -> Result<()> {
        self.check_kept_epochs()?;
        let api::AddToTransaction {
            id,
            producer,
            partitions: wanted,
            group,
        } = request;
        let mut partitions = Vec::with_capacity(wanted.len() + 1);
        for partition in wanted {
            let topic = self.registry.topic(&partition.topic)?;
            topic.check_number(partition.partition)?;
            partitions.push((topic.info.id, partition));
        }
        if let Some(group) = group {
            partitions.push(self.groups.home_of(&group).await?);
        }
        let registration = Registration {
            id,
            producer,
            partitions,
            verify_only: false,
        };
        self.register_as(registration, TransactionVersion::V1).await
    }

    pub(crate) async fn abort(&self, id: &TransactionalId) -> Result<()> {
        let name = id.clone();
        let asked = self.ask(id, Remembered::ForTheEpoch, |ticket| Input::Abort {
            ticket,
            name,
        });
        match asked.await.map_err(not_found)? {
            Reply::Aborted => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    /// Those that are coordinated here.
    pub(crate) async fn list(&self) -> Result<Vec<api::TransactionListing>> {
        let coordinator = self.config.node;
        let mut all = Vec::new();
        for host in self.led.here(|number, epoch| self.begin(number, epoch)) {
            let ticket = self.ticket();
            if let Ok(Reply::Transactions(some)) = host.call(Input::List { ticket }).await {
                all.extend(some.into_iter().map(|t| api::TransactionListing {
                    id: t.name,
                    producer: t.producer,
                    state: state(t.state),
                    coordinator,
                    started_ms: t.started_ms,
                }));
            }
        }
        all.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(all)
    }

    pub(crate) async fn describe(&self, id: &TransactionalId) -> Result<api::TransactionInfo> {
        let name = id.clone();
        let asked = self.ask(id, Remembered::ForTheEpoch, |ticket| Input::Get {
            ticket,
            name,
        });
        match asked.await.map_err(not_found)? {
            Reply::Transaction(found) => Ok(info(*found, self.config.node)),
            other => Err(unexpected(&other)),
        }
    }

    /// A leader asks for partitions of its own; this node must be the coordinator.
    pub(crate) async fn register_here(&self, registration: Registration) -> Result<()> {
        let version = match registration.verify_only {
            true => TransactionVersion::V1,
            false => TransactionVersion::V2,
        };
        self.register_as(registration, version).await
    }

    async fn register_as(
        &self,
        registration: Registration,
        version: TransactionVersion,
    ) -> Result<()> {
        let Registration {
            id,
            producer,
            partitions,
            verify_only,
        } = registration;
        let places = partitions.into_iter().map(|(topic, of)| Place {
            topic,
            name: of.topic,
            partition: of.partition,
        });
        let (name, partitions) = (id.clone(), places.collect());
        let input = |ticket| match verify_only {
            false => Input::Add {
                ticket,
                name,
                producer,
                partitions,
            },
            true => Input::Verify {
                ticket,
                name,
                producer,
                partitions,
            },
        };
        match self.ask(&id, Remembered::of(version), input).await? {
            Reply::Added | Reply::Verified => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    /// A coordinator has markers for partitions that this node leads.
    pub(crate) async fn write_markers_here(&self, order: &MarkerOrder) -> Vec<MarkerOutcome> {
        self.sender.write(order).await
    }

    /// Commits offsets as part of a transaction; this node must coordinate the group.
    pub(crate) async fn commit_offsets(
        &self,
        ctx: &api::Context,
        request: api::CommitTransactionOffsets,
    ) -> Result<Vec<Result<()>>> {
        let api::CommitTransactionOffsets {
            id,
            producer,
            group,
            member,
            member_epoch,
            offsets,
            version,
        } = request;
        let check = |o: &api::OffsetCommit| offsets::check_commit(&self.registry, ctx, o);
        let checked: Vec<Result<()>> = offsets.iter().map(check).collect();
        let right = offsets.into_iter().zip(&checked);
        let wanted: Vec<_> = right
            .filter(|(_, check)| check.is_ok())
            .map(|(offset, _)| offsets::to_core(offset))
            .collect();
        if wanted.is_empty() {
            return Ok(checked);
        }
        let (topic, home) = self.groups.home(&group).await?;
        let (mut epoch, mut verified) = home.registered.verified(producer);
        if verified == Verified::No {
            epoch = home.leading();
            verified = Verified::Since(home.log_end());
            let partitions = vec![(topic, home.id.clone())];
            self.register(Registration {
                id,
                producer,
                partitions,
                verify_only: version == TransactionVersion::V1,
            })
            .await?;
            home.registered.note(producer, verified, epoch);
        }
        if home.leading() != epoch {
            // What was verified by a place in the log holds in one leadership.
            let text = format!(
                "the coordinator of group {:?} changed in the meantime; nothing was committed; try \
                 again",
                group.as_str()
            );
            return Err(Error::new(ErrorKind::CoordinatorLoading, text));
        }
        let since = match verified {
            Verified::Since(end) => Some(end),
            Verified::No => None,
        };
        let wall_ms = self.clock.wall_ms();
        let input = |ticket| varve_groups::Input::TxnCommit {
            ticket,
            group,
            member,
            member_epoch,
            producer,
            since,
            offsets: wanted,
            wall_ms,
        };
        let varve_groups::Reply::Committed(results) = self.groups.call(input).await? else {
            let text = "internal error: the group coordinator answered another call";
            return Err(Error::new(ErrorKind::StorageError, text));
        };
        let mut results = results.into_iter();
        let result = |check: Result<()>| match check {
            Ok(()) => results.next().unwrap_or(Ok(())).map_err(coordinator::error),
            Err(error) => Err(error),
        };
        Ok(checked.into_iter().map(result).collect())
    }
}

/// How long the effect of what was asked is true. What was remembered only, and not written for the question, is to be
/// confirmed in any case: of which kind the end of a transaction is shows when it comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Remembered {
    /// As long as the epoch of the producer: who asks with it can be answered by an old coordinator too.
    ForTheEpoch,
    /// For one of several transactions of an epoch: a coordinator that was replaced and does not know it yet may take
    /// the present one for one that is over. Its yes is to be confirmed.
    ForOneTransaction,
}

impl Remembered {
    const fn of(version: TransactionVersion) -> Self {
        match version {
            TransactionVersion::V1 => Self::ForOneTransaction,
            TransactionVersion::V2 => Self::ForTheEpoch,
        }
    }
}

/// Refusals by what is remembered of a transactional id, after which a producer does not ask again.
const fn is_final(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::UnknownProducer
            | ErrorKind::ProducerFenced
            | ErrorKind::TransactionAborted
            | ErrorKind::InvalidTransactionState
            | ErrorKind::TransactionNotFound
    )
}

fn subject(id: &TransactionalId) -> Subject<'_> {
    Subject {
        what: "transactional id",
        key: "transactional_id",
        name: id.as_str(),
    }
}

/// For who asks about an id and does not produce: it is not there.
fn not_found(error: Error) -> Error {
    match error.kind {
        ErrorKind::UnknownProducer => Error {
            kind: ErrorKind::TransactionNotFound,
            message: "no transactional ids are known yet; nothing was changed".to_owned(),
            ..error
        },
        _ => error,
    }
}

/// The core answers each call with its own reply; anything else is a bug, and told as one.
fn unexpected(reply: &Reply) -> Error {
    tracing::error!(
        ?reply,
        "internal error: the transaction coordinator answered another call"
    );
    Error::new(
        ErrorKind::StorageError,
        "internal error in the transaction coordinator",
    )
}

const fn state(state: State) -> api::TransactionState {
    match state {
        State::Empty => api::TransactionState::Empty,
        State::Ongoing => api::TransactionState::Ongoing,
        State::PrepareCommit => api::TransactionState::PrepareCommit,
        State::PrepareAbort => api::TransactionState::PrepareAbort,
        State::CompleteCommit => api::TransactionState::CompleteCommit,
        State::CompleteAbort => api::TransactionState::CompleteAbort,
    }
}

const fn cause(cause: Cause) -> api::TransactionCause {
    match cause {
        Cause::Producer => api::TransactionCause::Producer,
        Cause::Timeout => api::TransactionCause::Timeout,
        Cause::Operator => api::TransactionCause::Operator,
        Cause::Successor => api::TransactionCause::Successor,
        Cause::Renewal => api::TransactionCause::Renewal,
    }
}

fn info(found: varve_txn::Description, coordinator: NodeId) -> api::TransactionInfo {
    let partition = |place: Place| TopicPartition::new(place.name, place.partition);
    api::TransactionInfo {
        id: found.name,
        producer: found.producer,
        state: state(found.state),
        cause: cause(found.cause),
        coordinator,
        timeout: Duration::from_millis(found.timeout_ms.into()),
        started_ms: found.started_ms,
        updated_ms: found.updated_ms,
        partitions: found.partitions.into_iter().map(partition).collect(),
        untold: found.untold.into_iter().map(partition).collect(),
    }
}
