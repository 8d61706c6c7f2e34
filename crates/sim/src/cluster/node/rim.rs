//! What a node does about the outputs of its cores: writes, flushes and cuts that take time, and messages.

use varve_metadata::PartitionKey;
use varve_partition::{FetchGrant, FetchRefusal, Input, Output, Ticket};
use varve_types::config::Durability;
use varve_types::{BrokerEpoch, LeaderEpoch, NodeId, Offset};

use super::super::disk::Batch;
use super::super::world::{Addr, Event, Message, Origin, World};
use super::{FETCH_BATCHES, FETCH_TIMEOUT_MS, PARK_MS, Parked};

impl World {
    pub(super) fn perform(
        &mut self,
        id: NodeId,
        key: PartitionKey,
        output: Output,
    ) -> Result<(), String> {
        let me = Addr::Node(id);
        match output {
            Output::Write {
                ticket,
                base_offset,
                leader_epoch,
            } => {
                self.oracle.leads(key, leader_epoch, id)?;
                if let Some(replica) = self.replica(id, key)
                    && let Some(produce) = replica.offered.get(&ticket)
                {
                    let (value, produce) = (produce.value, *produce);
                    replica.staged.push(Batch {
                        base: base_offset,
                        records: produce.records,
                        epoch: leader_epoch,
                        value: produce.value,
                        producer: produce.producer,
                        kind: produce.kind,
                    });
                    self.say(|_| {
                        let partition = key.partition;
                        format!("node {id} appends {value:x} at {base_offset} of partition {partition} in epoch {leader_epoch}")
                    });
                    self.check_taken(&produce)?;
                }
                Ok(())
            }
            Output::Answer { ticket, result } => {
                let hint = self
                    .replica(id, key)
                    .and_then(|r| r.core.assignment()?.leader);
                let offered = self
                    .replica(id, key)
                    .and_then(|r| r.offered.remove(&ticket));
                let Some(produce) = offered else {
                    return Ok(());
                };
                if let Ok(accepted) = &result {
                    self.acknowledged(&produce, accepted)?;
                }
                let result = result.map(|a| a.base_offset);
                match produce.origin {
                    Origin::Client(client) => {
                        let request = produce.request;
                        let message = Message::Produced {
                            request,
                            result,
                            hint,
                        };
                        self.send(me, Addr::Client(client), message);
                    }
                    Origin::Writer { .. } => self.answer_writer(id, produce, result, hint),
                    Origin::Coordinator { .. } => {
                        return self.appended(id, &produce, result.map(|_| ()));
                    }
                    Origin::Marker { .. } => {
                        return self.marker_answered(id, &produce, result);
                    }
                    Origin::Group { .. } => {
                        self.appended_of_group(id, &produce, result.map(|_| ()));
                    }
                }
                Ok(())
            }
            Output::HighWatermark(offset) => {
                let save = self.rng.below(8) == 0;
                if save
                    && let Some(node) = self.nodes.get_mut(&id)
                    && let Some(log) = node.disks.get_mut(&key)
                {
                    log.saved_high_watermark = offset.min(log.end());
                }
                Ok(())
            }
            // Whoever reads by it is looked after when the step is over.
            Output::LastStable(_) => Ok(()),
            Output::AnswerFetch { ticket, result } => {
                self.answer_fetch(id, key, ticket, result);
                Ok(())
            }
            Output::Fetch {
                id: fetch,
                leader,
                position,
            } => {
                let (run, life) = self.run_and_life(id, key);
                let to = Addr::Node(leader);
                self.send(
                    me,
                    to,
                    Message::Fetch {
                        key,
                        id: fetch,
                        position,
                    },
                );
                self.at(
                    FETCH_TIMEOUT_MS,
                    Event::FetchTimeout {
                        node: id,
                        run,
                        life,
                        key,
                        id: fetch,
                    },
                );
                Ok(())
            }
            Output::Progress { leader, position } => {
                self.send(me, Addr::Node(leader), Message::Progress { key, position });
                Ok(())
            }
            Output::WriteReplicated { id: fetch, .. } => {
                let Some(replica) = self.replica(id, key) else {
                    return Ok(());
                };
                match replica.arrived.take() {
                    Some((arrived, batches)) if arrived == fetch => {
                        replica.staged.extend(&batches);
                        self.say(|_| {
                            let ends = batches.first().zip(batches.last());
                            let ends =
                                ends.map(|(a, b)| (a.base.get(), b.end().get(), b.epoch.get()));
                            format!("node {id} copies {ends:?} of partition {}", key.partition)
                        });
                    }
                    _ => return Err(format!("node {id} is to write an answer that is gone")),
                }
                Ok(())
            }
            Output::Truncate(to) => self.cut_later(id, key, to, false),
            Output::Restart(to) => self.cut_later(id, key, to, true),
            Output::Trim(to) => self.trim(id, key, to),
            Output::ProposeIsr {
                leader_epoch,
                partition_epoch,
                isr,
            } => self.propose(id, key, (leader_epoch, partition_epoch), &isr),
            Output::Distrust { leader, why } => Err(format!(
                "node {id} does not trust leader {leader} of partition {}: {why:?}",
                key.partition
            )),
        }
    }

    fn cut_later(
        &mut self,
        id: NodeId,
        key: PartitionKey,
        to: Offset,
        anew: bool,
    ) -> Result<(), String> {
        let (run, life) = self.run_and_life(id, key);
        let after = self.rng.below(8);
        self.say(|_| format!("node {id} cuts partition {} to {to}", key.partition));
        self.at(
            after,
            Event::Cut {
                node: id,
                run,
                life,
                key,
                to,
                anew,
            },
        );
        Ok(())
    }

    /// Removes records below an offset, as retention does.
    pub(in crate::cluster) fn trim(
        &mut self,
        id: NodeId,
        key: PartitionKey,
        to: Offset,
    ) -> Result<(), String> {
        let Some(node) = self.nodes.get_mut(&id) else {
            return Ok(());
        };
        let wall_ms = node.clock.wall(self.now);
        let Some(log) = node.disks.get_mut(&key) else {
            return Ok(());
        };
        // Whole batches go; the log begins with one.
        let to = log.at(to).map_or(to.min(log.end()), |b| b.base);
        if to <= log.start {
            return Ok(());
        }
        log.trim(to, wall_ms);
        let since = self.replica(id, key).and_then(|r| r.since);
        let seen = self.oracle.partition(key);
        if let Some(history) = seen.histories.get_mut(&since) {
            history.trimmed = history.trimmed.max(to);
        }
        self.count("log start moved");
        self.step(id, key, Input::LogStart(to))
    }

    /// The replicas that were not heard from in this epoch are named in the run that the metadata of the
    /// same partition epoch knows: a later registration would have changed the partition.
    fn propose(
        &mut self,
        id: NodeId,
        key: PartitionKey,
        (leader_epoch, partition_epoch): (LeaderEpoch, i32),
        isr: &[(NodeId, Option<BrokerEpoch>)],
    ) -> Result<(), String> {
        let Some(node) = self.nodes.get(&id) else {
            return Ok(());
        };
        let Some(broker_epoch) = node.epoch else {
            return Ok(());
        };
        let view = self.controller.view(node.applied);
        let run = |n: &NodeId, heard: &Option<BrokerEpoch>| {
            heard
                .or_else(|| view.epochs.get(n).copied())
                .unwrap_or_default()
        };
        let isr: Vec<_> = isr.iter().map(|(n, heard)| (*n, run(n, heard))).collect();
        let known = view.assignments.get(&key);
        let joins = |n: &&(NodeId, BrokerEpoch)| known.is_some_and(|a| !a.isr.contains(&n.0));
        let joining = isr.iter().find(joins).map(|(n, _)| *n);
        let message = Message::Alter {
            key,
            leader: id,
            leader_epoch,
            partition_epoch,
            isr,
            broker_epoch,
        };
        match joining {
            Some(joining) if self.strikes(id) => self.strike(id, joining, message),
            _ if self.muted.0 == id && self.now < self.muted.1 => {
                self.count("message lost");
            }
            _ => self.send(Addr::Node(id), Addr::Controller, message),
        }
        Ok(())
    }

    pub(super) fn start_write(&mut self, id: NodeId, key: PartitionKey) {
        let Some(node) = self.nodes.get_mut(&id) else {
            return;
        };
        let run = node.run;
        let Some(replica) = node.replicas.get_mut(&key) else {
            return;
        };
        if replica.writing {
            return;
        }
        let Some(end) = replica.staged.last().map(Batch::end) else {
            return;
        };
        replica.writing = true;
        let life = replica.life;
        let after = self.rng.below(self.knobs.write_ms + 1);
        self.at(
            after,
            Event::Written {
                node: id,
                run,
                life,
                key,
                end,
            },
        );
    }

    pub(super) fn start_flush(&mut self, id: NodeId, key: PartitionKey) {
        let now = self.now;
        let Some(node) = self.nodes.get_mut(&id) else {
            return;
        };
        let (run, stalled) = (node.run, node.stalled_until.saturating_sub(now));
        let (Some(replica), Some(log)) = (node.replicas.get_mut(&key), node.disks.get(&key)) else {
            return;
        };
        let (end, cuts, life) = (log.end(), replica.cuts, replica.life);
        if replica.flushing || end <= log.flushed {
            return;
        }
        replica.flushing = true;
        // With durability=replicated nobody waits for a flush, so it comes late.
        let lazy = u64::from(self.knobs.durability == Durability::Replicated) * 600;
        let after = stalled + 1 + self.rng.below(self.knobs.flush_ms + lazy);
        self.at(
            after,
            Event::Flushed {
                node: id,
                run,
                life,
                key,
                end,
                cuts,
            },
        );
    }

    fn answer_fetch(
        &mut self,
        id: NodeId,
        key: PartitionKey,
        ticket: Ticket,
        result: Result<FetchGrant, FetchRefusal>,
    ) {
        let Some(replica) = self.replica(id, key) else {
            return;
        };
        let Some((from, fetch)) = replica.fetches.remove(&ticket) else {
            return;
        };
        let epoch = replica.core.leader_epoch();
        match (result, epoch) {
            (Ok(grant), Some(epoch)) => {
                replica.parked.insert(
                    ticket,
                    Parked {
                        from,
                        id: fetch,
                        epoch,
                        grant,
                    },
                );
                let (run, life) = self.run_and_life(id, key);
                self.at(
                    PARK_MS,
                    Event::ParkTimeout {
                        node: id,
                        run,
                        life,
                        key,
                        ticket,
                    },
                );
            }
            (refused, _) => {
                self.count(match refused {
                    Err(FetchRefusal::Diverging { .. }) => "fetch refused: logs part",
                    Err(FetchRefusal::FencedLeaderEpoch(_)) => "fetch refused: old leader epoch",
                    Err(FetchRefusal::UnknownLeaderEpoch(_)) => "fetch refused: newer leader epoch",
                    Err(FetchRefusal::OutOfRange { .. }) => "fetch refused: log begins later",
                    Err(FetchRefusal::Stale) => "fetch refused: overtaken",
                    _ => "fetch refused: not leader, or not replica",
                });
                self.say(|_| format!("node {id} refuses node {from}: {refused:?}"));
                let result = Err(refused.err().unwrap_or(FetchRefusal::NotLeader));
                let message = Message::Fetched {
                    key,
                    id: fetch,
                    result,
                };
                self.send(Addr::Node(id), Addr::Node(from), message);
            }
        }
    }

    /// Answers the fetches that have something to read, or have waited long enough.
    pub(super) fn serve(&mut self, id: NodeId, key: PartitionKey, late: Option<Ticket>) {
        let Some(node) = self.nodes.get_mut(&id) else {
            return;
        };
        let (Some(replica), Some(log)) = (node.replicas.get_mut(&key), node.disks.get(&key)) else {
            return;
        };
        let (epoch, end) = (replica.core.leader_epoch(), log.end());
        let (high_watermark, log_start) = (replica.core.committed(), replica.core.log_start());
        let ready: Vec<(Ticket, Parked)> = replica
            .parked
            .iter()
            .filter(|(ticket, p)| {
                Some(p.epoch) != epoch
                    || end > p.grant.from
                    || high_watermark > p.grant.high_watermark
                    || late == Some(**ticket)
            })
            .map(|(t, p)| (*t, *p))
            .collect();
        let mut answers = Vec::new();
        for (ticket, parked) in ready {
            replica.parked.remove(&ticket);
            let result = if Some(parked.epoch) == epoch {
                let batches = log.from(parked.grant.from, FETCH_BATCHES);
                Ok((batches, high_watermark, log_start))
            } else {
                Err(FetchRefusal::NotLeader)
            };
            answers.push((
                parked.from,
                Message::Fetched {
                    key,
                    id: parked.id,
                    result,
                },
            ));
        }
        for (to, message) in answers {
            self.send(Addr::Node(id), Addr::Node(to), message);
        }
    }
}
