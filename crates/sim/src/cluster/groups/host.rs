//! The rim of the groups core: a coordinator for each leadership of `__consumer_offsets`, from the first look or
//! call in it until somebody notices that it is over.
//!
//! Invariants: appends are made in the coordinator's own leadership only; before all that was committed is read,
//! nothing is answered but that; what is told of offsets was confirmed by the controller.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use varve_groups::{
    AppendId, Config, Coordinator, Failure, Heartbeat, Input, Matcher, OffsetCommit, Output,
    Reply as Told, Subscription, Tick, Ticket, TopicState,
};
use varve_metadata::PartitionKey;
use varve_partition::{Rejection, Verified};
use varve_record::Marker;
use varve_types::{
    Acks, ErrorKind, LeaderEpoch, MemberId, NodeId, Offset, PartitionId, ProducerId, TopicPartition,
};

use super::super::disk::Kind;
use super::super::txn::{self, KeyValue, Local, Role};
use super::super::world::{Addr, Message, Origin, Produce, World};
use super::{Appended, Ask, Reply, group, topic};

/// Who waits for an answer.
#[derive(Debug, Clone)]
pub(in crate::cluster) struct Caller {
    pub(in crate::cluster) number: usize,
    pub(in crate::cluster) request: u64,
    pub(in crate::cluster) ask: Ask,
}

/// The coordinator of one leadership.
pub(in crate::cluster) struct Host {
    core: Coordinator,
    loaded: bool,
    callers: BTreeMap<Ticket, Caller>,
    /// Appends that it has not heard the end of.
    under_way: BTreeSet<AppendId>,
}

/// No member here subscribes by a pattern.
struct NoPatterns;

impl Matcher for NoPatterns {
    fn matches(&self, _: &str, _: &str) -> Result<bool, String> {
        Ok(false)
    }
}

fn config() -> Config {
    Config {
        session_timeout_ms: 500,
        session_timeout_min_ms: 1,
        heartbeat_interval_ms: 60,
        rebalance_timeout_ms: 700,
        ..Config::default()
    }
}

pub(super) fn member_id(number: usize) -> MemberId {
    match MemberId::new(&format!("m{number}")) {
        Ok(id) => id,
        Err(error) => unreachable!("m{number} is a legal id: {error}"),
    }
}

fn place(partition: i32) -> TopicPartition {
    TopicPartition::new(topic(), PartitionId(partition))
}

fn positions(partition: i32, serial: u64, who: String) -> Vec<OffsetCommit> {
    vec![OffsetCommit {
        partition: place(partition),
        offset: Offset::new(serial as i64).unwrap_or_default(),
        leader_epoch: None,
        metadata: who,
    }]
}

impl World {
    /// Looks after the coordinators of groups of a node.
    pub(in crate::cluster) fn tend_groups(&mut self, id: NodeId) -> Result<(), String> {
        let Some(key) = self.log_of(Role::Offsets) else {
            return Ok(());
        };
        let led = self.begin_group(id, key);
        let forget = self.rng.below(2) == 0;
        let Some(node) = self.nodes.get_mut(&id) else {
            return Ok(());
        };
        let (mono, wall_ms) = (Tick(node.clock.mono(self.now)), node.clock.wall(self.now));
        if forget {
            node.groups.retain(|epoch, _| Some(*epoch) == led);
        }
        let due = node
            .groups
            .iter()
            .filter(|(_, h)| h.core.next_deadline().is_some_and(|at| at <= mono));
        let due: Vec<LeaderEpoch> = due.map(|(epoch, _)| *epoch).collect();
        if let Some(epoch) = led {
            self.load_group(id, key, epoch)?;
        }
        for epoch in due {
            self.group_step(id, epoch, Input::Tick { wall_ms })?;
        }
        Ok(())
    }

    fn begin_group(&mut self, id: NodeId, key: PartitionKey) -> Option<LeaderEpoch> {
        let node = self.nodes.get_mut(&id)?;
        let epoch = node.replicas.get(&key)?.core.leader_epoch()?;
        node.groups.entry(epoch).or_insert_with(|| Host {
            core: Coordinator::new(config(), Box::new(NoPatterns)),
            loaded: false,
            callers: BTreeMap::new(),
            under_way: BTreeSet::new(),
        });
        Some(epoch)
    }

    /// Reads the partition, once everything that earlier leaders have committed is known to be.
    fn load_group(
        &mut self,
        id: NodeId,
        key: PartitionKey,
        epoch: LeaderEpoch,
    ) -> Result<(), String> {
        let Some(node) = self.nodes.get(&id) else {
            return Ok(());
        };
        let waits = node.groups.get(&epoch).is_some_and(|h| !h.loaded);
        let (Some(replica), Some(log)) = (node.replicas.get(&key), node.disks.get(&key)) else {
            return Ok(());
        };
        let Some(latest) = replica.core.latest().filter(|_| waits) else {
            return Ok(());
        };
        let batches = log.batches.iter().take_while(|b| b.end() <= latest);
        let batches: Vec<_> = batches.map(|b| (b.base, b.value, b.kind)).collect();
        for (offset, value, kind) in batches {
            if let Kind::Marker(end) = kind {
                let ended = Input::TxnEnded {
                    producer: end.producer,
                    kept_at: end.end.number.map(|_| offset),
                    committed: end.end.marker == Marker::Commit,
                    within: None,
                };
                self.group_step(id, epoch, ended)?;
                continue;
            }
            for (key, value) in self
                .transactions
                .contents
                .get(&value)
                .cloned()
                .unwrap_or_default()
            {
                let input = match kind {
                    Kind::Offsets(producer) => Input::LoadTxn {
                        producer,
                        offset,
                        key,
                        value,
                    },
                    _ => Input::Load { key, value },
                };
                self.group_step(id, epoch, input)?;
            }
        }
        if let Some(host) = self.group_host(id, epoch) {
            host.loaded = true;
        }
        let state = TopicState {
            id: key.topic,
            partitions: self.knobs.partitions,
        };
        let topics = Arc::new(BTreeMap::from([(topic(), state)]));
        self.group_step(id, epoch, Input::Topics(topics))?;
        self.group_step(id, epoch, Input::Loaded)?;
        if !self.group.seen.stable() {
            self.count("group coordinator changed during a rebalance");
        }
        self.say(|_| format!("node {id} coordinates groups in epoch {epoch}"));
        Ok(())
    }

    /// What the newest coordinator holds, if it has read everything.
    pub(in crate::cluster) fn offsets_of_group(&mut self) -> Option<BTreeMap<i32, u64>> {
        let key = self.log_of(Role::Offsets)?;
        let partition = self.controller.state.partition_at(key)?;
        let (id, epoch) = (partition.leader?, partition.leader_epoch);
        let ticket = Ticket(self.ticket(id)?.0);
        let now = Tick(self.nodes.get(&id)?.clock.mono(self.now));
        let host = self.group_host(id, epoch).filter(|h| h.loaded)?;
        let mut out = Vec::new();
        let (group, partitions, require_stable) = (group(), Vec::new(), false);
        let input = Input::GetOffsets {
            ticket,
            group,
            partitions,
            require_stable,
        };
        host.core.step(now, input, &mut out);
        out.iter().find_map(|output| match output {
            Output::Reply {
                ticket: of,
                reply: Told::Offsets(offsets),
            } if *of == ticket => Some(table(offsets)),
            _ => None,
        })
    }

    /// Whether the newest coordinator has read everything, and heard of everything that it wrote: what it holds is
    /// then what a replay of the log gives. Until then the end of a transaction may wait in it behind a write.
    pub(in crate::cluster) fn group_has_heard_all(&self) -> bool {
        let newest = self.log_of(Role::Offsets).and_then(|key| {
            let partition = self.controller.state.partition_at(key)?;
            let node = self.nodes.get(&partition.leader?)?;
            node.groups.get(&partition.leader_epoch)
        });
        !self.knobs.transactions || newest.is_some_and(|h| h.loaded && h.under_way.is_empty())
    }

    fn group_host(&mut self, id: NodeId, epoch: LeaderEpoch) -> Option<&mut Host> {
        self.nodes.get_mut(&id)?.groups.get_mut(&epoch)
    }

    /// Somebody asks. A commit in a transaction comes through the gate of the partition first.
    pub(in crate::cluster) fn group_asked(
        &mut self,
        id: NodeId,
        caller: Caller,
    ) -> Result<(), String> {
        let Some(key) = self.log_of(Role::Offsets) else {
            return Ok(());
        };
        let Some(epoch) = self.begin_group(id, key) else {
            let leader = self.leader_known_to(id, key);
            let kind = match leader {
                Some(_) => ErrorKind::NotCoordinator,
                None => ErrorKind::CoordinatorLoading,
            };
            self.tell_group_caller(id, &caller, Reply::Failed(kind, leader));
            return Ok(());
        };
        let mut verified = Verified::No;
        if let Ask::TxnCommit { producer, name, .. } = caller.ask {
            if self.is_late(&caller, name) {
                return Ok(());
            }
            verified = self.registered_here(id, key, producer);
            if verified == Verified::No {
                self.offsets_wait(id, (key, producer, name), caller);
                return Ok(());
            }
        }
        let Some(ticket) = self.ticket(id) else {
            return Ok(());
        };
        let ticket = Ticket(ticket.0);
        let wall_ms = self.nodes.get(&id).map_or(0, |n| n.clock.wall(self.now));
        let wait = self.rng.below(2) * 40;
        let input = input_of(ticket, &caller.ask, verified, wall_ms, wait);
        if let Some(host) = self.group_host(id, epoch) {
            host.callers.insert(ticket, caller);
        }
        self.group_step(id, epoch, input)
    }

    /// Whether it is a call of a producer that keeps its epoch by a connection that is over.
    fn is_late(&self, caller: &Caller, name: usize) -> bool {
        let asks = |w: &txn::Writer| w.asks(caller.request);
        name == txn::KEEPER
            && !self
                .transactions
                .writers
                .get(&caller.number)
                .is_some_and(asks)
    }

    pub(in crate::cluster) fn tell_group_caller(
        &mut self,
        id: NodeId,
        caller: &Caller,
        reply: Reply,
    ) {
        let message = Message::GroupTold {
            request: caller.request,
            reply,
        };
        self.send(Addr::Node(id), Addr::Client(caller.number), message);
    }

    /// One step of a coordinator of groups, and everything that follows from it.
    fn group_step(&mut self, id: NodeId, epoch: LeaderEpoch, input: Input) -> Result<(), String> {
        let Some(node) = self.nodes.get_mut(&id) else {
            return Ok(());
        };
        let now = Tick(node.clock.mono(self.now));
        let Some(host) = node.groups.get_mut(&epoch) else {
            return Ok(());
        };
        let mut out = Vec::new();
        host.core.step(now, input, &mut out);
        for output in out {
            match output {
                Output::Append {
                    id: append,
                    records,
                    ..
                } => self.append_of_group(id, (epoch, append), None, records)?,
                Output::TxnAppend {
                    id: append,
                    producer,
                    since,
                    records,
                    ..
                } => {
                    let verified = since.map_or(Verified::No, Verified::Since);
                    let producer = Some((producer, verified));
                    self.append_of_group(id, (epoch, append), producer, records)?;
                }
                Output::Reply { ticket, reply } => self.group_reply(id, epoch, ticket, reply)?,
                Output::LoadSkipped { error } => {
                    return Err(format!("a record of a group is not understood: {error}"));
                }
            }
        }
        Ok(())
    }

    fn group_reply(
        &mut self,
        id: NodeId,
        epoch: LeaderEpoch,
        ticket: Ticket,
        reply: Told,
    ) -> Result<(), String> {
        let caller = self
            .group_host(id, epoch)
            .and_then(|h| h.callers.remove(&ticket));
        let Some(caller) = caller else {
            return Ok(());
        };
        let key = self.log_of(Role::Offsets);
        let leader = key.and_then(|key| self.leader_known_to(id, key));
        let newest = key
            .and_then(|key| self.controller.state.partition_at(key))
            .map(|p| p.leader_epoch);
        let reply = match reply {
            Told::Heartbeat(reply) => Reply::Heartbeat(reply),
            Told::Committed(results) => match results.into_iter().find_map(Result::err) {
                None => Reply::Committed,
                Some(failure) => Reply::Failed(failure.kind, None),
            },
            // What this node remembers may be out of date.
            Told::Offsets(_) | Told::OffsetsUnstable { .. } if newest != Some(epoch) => {
                Reply::Failed(ErrorKind::CoordinatorLoading, None)
            }
            Told::Offsets(offsets) => Reply::Offsets {
                stable: table(&offsets),
                unstable: Vec::new(),
            },
            Told::OffsetsUnstable { offsets, unstable } => Reply::Offsets {
                stable: table(&offsets),
                unstable: unstable.iter().map(|p| p.partition.0).collect(),
            },
            Told::Failed(Failure { kind, .. }) => {
                let moved = matches!(
                    kind,
                    ErrorKind::NotLeader
                        | ErrorKind::FencedLeaderEpoch
                        | ErrorKind::LeaderNotAvailable
                );
                Reply::Failed(
                    if moved {
                        ErrorKind::NotCoordinator
                    } else {
                        kind
                    },
                    leader,
                )
            }
            other => {
                return Err(format!(
                    "the coordinator of the group answers {caller:?} with {other:?}"
                ));
            }
        };
        if let (
            Ask::Commit { .. },
            Reply::Failed(ErrorKind::StaleMemberEpoch | ErrorKind::FencedMemberEpoch, _),
        ) = (&caller.ask, &reply)
        {
            self.count("commit of an old member epoch refused");
        }
        self.tell_group_caller(id, &caller, reply);
        Ok(())
    }

    fn append_of_group(
        &mut self,
        id: NodeId,
        (epoch, append): (LeaderEpoch, AppendId),
        producer: Option<(ProducerId, Verified)>,
        records: Vec<KeyValue>,
    ) -> Result<(), String> {
        let Some(key) = self.log_of(Role::Offsets) else {
            return Ok(());
        };
        if !self.group.seen.stable() {
            self.count("group rebalance during commit");
        }
        if let Some(host) = self.group_host(id, epoch) {
            host.under_way.insert(append);
        }
        let count = records.len() as u32;
        let value = self.transactions.record(records);
        if let Some((producer, _)) = producer {
            self.transactions.offsets_in.insert(value, producer);
        }
        let produce = Produce {
            origin: Origin::Group { epoch, append },
            request: 0,
            key,
            value,
            records: count,
            producer: None,
            resumes: false,
            acks: Acks::All,
            kind: producer.map_or(Kind::Plain, |(producer, _)| Kind::Offsets(producer)),
            leader_epoch: Some(epoch),
            verified: producer.map_or(Verified::No, |(_, verified)| verified),
        };
        self.offer(id, produce)
    }

    /// An append of a coordinator was answered: it hears of that a little later.
    pub(in crate::cluster) fn appended_of_group(
        &mut self,
        id: NodeId,
        produce: &Produce,
        result: Result<(), Rejection>,
    ) {
        let Origin::Group { epoch, append } = produce.origin else {
            return;
        };
        let result = result.map_err(Rejection::kind);
        let after = self.rng.below(3);
        self.local(
            id,
            after,
            Local::Group(Appended {
                epoch,
                id: append,
                result,
            }),
        );
    }

    pub(in crate::cluster) fn group_appended(
        &mut self,
        id: NodeId,
        appended: Appended,
    ) -> Result<(), String> {
        let Appended {
            epoch,
            id: append,
            result,
        } = appended;
        if let Some(host) = self.group_host(id, epoch) {
            host.under_way.remove(&append);
        }
        let input = match result {
            Ok(()) => Input::CommitDurable { id: append },
            Err(kind) => Input::CommitFailed {
                id: append,
                failure: Failure::new(kind, "the append failed"),
            },
        };
        self.group_step(id, epoch, input)
    }

    /// A marker is committed in the partition of the group, which this node leads. One that is still to be read is
    /// read with the rest.
    pub(in crate::cluster) fn group_hears_of_marker(
        &mut self,
        id: NodeId,
        (producer, kept_at): (ProducerId, Option<Offset>),
        committed: bool,
    ) -> Result<(), String> {
        let Some(node) = self.nodes.get(&id) else {
            return Ok(());
        };
        let loaded = node.groups.iter().filter(|(_, h)| h.loaded);
        let epochs: Vec<LeaderEpoch> = loaded.map(|(epoch, _)| *epoch).collect();
        for epoch in epochs {
            let within = None;
            self.group_step(
                id,
                epoch,
                Input::TxnEnded {
                    producer,
                    kept_at,
                    committed,
                    within,
                },
            )?;
        }
        Ok(())
    }
}

fn table(offsets: &[varve_groups::CommittedOffset]) -> BTreeMap<i32, u64> {
    let entry =
        |o: &varve_groups::CommittedOffset| (o.partition.partition.0, o.offset.get() as u64);
    offsets.iter().map(entry).collect()
}

fn input_of(
    ticket: Ticket,
    ask: &Ask,
    verified: Verified,
    wall_ms: i64,
    max_wait_ms: u64,
) -> Input {
    match *ask {
        Ask::Heartbeat {
            member,
            epoch,
            ref owned,
            leave,
        } => Input::Heartbeat {
            ticket,
            heartbeat: Box::new(Heartbeat {
                group: group(),
                member: member_id(member),
                member_epoch: epoch,
                leave,
                keep_assignment: false,
                instance: None,
                subscription: (epoch == 0 && !leave).then(|| Subscription {
                    topics: vec![topic()],
                    ..Subscription::default()
                }),
                owned: Some(owned.iter().map(|p| place(*p)).collect()),
                rack: String::new(),
                session_timeout_ms: None,
                rebalance_timeout_ms: None,
                max_wait_ms,
                client_id: "sim".into(),
                peer: None,
            }),
        },
        Ask::Commit {
            member,
            epoch,
            partition,
            serial,
        } => Input::Commit {
            ticket,
            group: group(),
            member: Some(member_id(member)),
            member_epoch: epoch,
            offsets: positions(partition, serial, format!("m{member}/{epoch}")),
            wall_ms,
        },
        Ask::TxnCommit {
            producer,
            partition,
            serial,
            ..
        } => Input::TxnCommit {
            ticket,
            group: group(),
            member: None,
            member_epoch: 0,
            producer,
            since: match verified {
                Verified::Since(end) => Some(end),
                Verified::No => None,
            },
            offsets: positions(partition, serial, String::new()),
            wall_ms,
        },
        Ask::Offsets => Input::GetOffsets {
            ticket,
            group: group(),
            partitions: Vec::new(),
            require_stable: true,
        },
    }
}
