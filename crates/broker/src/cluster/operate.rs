//! What operators ask of a cluster, as commands for the metadata; the controller and the replicas do the rest.
//!
//! Invariants: what can be seen to be impossible is refused before anything is proposed; what is proposed is
//! checked again where it is applied, on the state of that moment; a sentence says whether anything changed.

use std::time::Duration;

use futures_util::future::join_all;
use varve_broker_api::{
    Decommission, Drain, Elections, Error, LeaderHint, NodeDetail, NodeState, Reassign,
    Reassignment, Result, Target,
};
use varve_metadata::{
    Command, Election, Node, PartitionKey, Progress, ProposeError, Rejection, State,
};
use varve_types::text::counted;
use varve_types::{ErrorKind, NodeId, TopicName, TopicPartition};

use super::InCluster;
use super::changes::unmade;
use super::overview::state_of;
use super::replicas::Chooser;
use crate::registry::rejected;

/// Elections that are asked for at once.
const ELECTIONS_AT_ONCE: usize = 100;
/// How long a node that is resumed may take to serve before the answer is given without that.
const RESUMED: Duration = Duration::from_secs(3);

fn refused(text: String) -> Error {
    Error::new(
        ErrorKind::PolicyViolation,
        format!("{text}; nothing was changed"),
    )
}

fn invalid(field: &'static str, text: &str) -> Error {
    Error::invalid(field, format!("{text}; nothing was changed"))
}

fn known(state: &State, node: NodeId) -> Result<&Node> {
    state.node(node).ok_or_else(|| {
        let text = format!("node {node} is not part of this cluster; nothing was changed");
        Error::new(ErrorKind::NodeNotFound, text).with("node_id", node)
    })
}

fn find(state: &State, id: &TopicPartition) -> Result<(PartitionKey, varve_metadata::Partition)> {
    let Some(topic) = state.topic(&id.topic) else {
        let text = format!(
            "topic {:?} does not exist; nothing was changed",
            id.topic.as_str()
        );
        return Err(Error::new(ErrorKind::TopicNotFound, text).with("topic", &id.topic));
    };
    let Some(found) = topic.partition(id.partition) else {
        let text = format!(
            "topic {} has no partition {}: it has {}, counted from 0; nothing was changed",
            id.topic,
            id.partition,
            topic.partition_count()
        );
        return Err(Error::new(ErrorKind::PartitionNotFound, text)
            .with("topic", &id.topic)
            .with("partition", id.partition));
    };
    Ok((super::key(topic.id, id.partition), found.clone()))
}

fn drain_of(state: &State, node: NodeId) -> Result<Drain> {
    let is = known(state, node)?;
    let alone = |p: &varve_metadata::Partition| {
        let active = |n: &NodeId| {
            let other = state.node(*n).map(|n| n.state);
            *n != node && other == Some(varve_metadata::NodeState::Active)
        };
        p.leader == Some(node) && !p.replicas.iter().any(active)
    };
    let stuck = state.partitions_of(node).filter(|(_, _, p)| alone(p));
    Ok(Drain {
        state: state_of(state, node, is),
        leaders: state.led_by(node) as u64,
        stuck: stuck.count() as u64,
    })
}

fn decommission_of(state: &State, node: NodeId) -> Result<Decommission> {
    let is = known(state, node)?;
    let progress = Progress::of(state, node);
    Ok(Decommission {
        state: state_of(state, node, is),
        replicas: progress.left as u64,
        moving: progress.moving as u64,
    })
}

/// Whether what a node holds has a place elsewhere.
fn check_places(state: &State, node: NodeId) -> Result<()> {
    let others: Vec<NodeId> = state
        .nodes()
        .iter()
        .filter(|(id, n)| **id != node && n.takes_replicas())
        .map(|(id, _)| *id)
        .collect();
    if others.is_empty() {
        return Err(refused(format!(
            "no other node takes replicas, so node {node} cannot be emptied"
        )));
    }
    for (id, _, partition) in state.partitions_of(node) {
        let target = partition.target();
        let places = others.len()
            + target
                .iter()
                .filter(|n| stays(state, node, **n, &others))
                .count();
        if target.contains(&node) && target.len() > places {
            return Err(refused(format!(
                "partition {id} has {}, but without node {node} only {} can hold them; first add a \
                 node, or reduce the topic's replicas",
                counted(target.len(), "replica"),
                counted(places, "node")
            )));
        }
    }
    Ok(())
}

/// A replica on another node that gets no new ones, and keeps those it has.
fn stays(state: &State, leaving: NodeId, node: NodeId, others: &[NodeId]) -> bool {
    let keeps = state.node(node).is_some_and(|n| !n.decommissioning);
    node != leaving && keeps && !others.contains(&node)
}

/// The replica that leads when nobody is named: the preferred one, or else any other in sync.
fn successor(state: &State, partition: &varve_metadata::Partition) -> Option<NodeId> {
    let active = |n: &&NodeId| {
        let node = state.node(**n);
        node.is_some_and(|n| n.state == varve_metadata::NodeState::Active)
    };
    let can = |n: &&NodeId| partition.isr.contains(n) && partition.leader != Some(**n) && active(n);
    partition.replicas.iter().find(can).copied()
}

impl InCluster {
    pub(crate) fn node_details(&self) -> Vec<NodeDetail> {
        let nodes = self.nodes();
        self.look(|state| {
            let detail = |status: varve_broker_api::NodeStatus| {
                let node = status.node;
                NodeDetail {
                    replicas: state.held_by(node) as u64,
                    leaders: state.led_by(node) as u64,
                    decommissioning: state.node(node).is_some_and(|n| n.decommissioning),
                    status,
                }
            };
            nodes.into_iter().map(detail).collect()
        })
    }

    pub(crate) async fn drain_node(&self, node: NodeId, force: bool) -> Result<Drain> {
        use varve_metadata::NodeState as Is;
        let epoch = self.look(|state| {
            let is = known(state, node)?;
            let mut others = state.nodes().iter().filter(|(id, _)| **id != node);
            let away = others.find(|(_, n)| n.state != Is::Active);
            match (is.state, away) {
                (Is::Fenced, _) => Err(refused(format!(
                    "node {node} is offline and already leads no partitions"
                ))),
                (Is::Draining, _) => Ok(None),
                (Is::Active, Some((other, _))) if !force => Err(refused(format!(
                    "node {other} is already draining or offline, and losing one more node may \
                     cost availability; wait for it, or force the drain"
                ))),
                (Is::Active, _) => Ok(Some(is.epoch)),
            }
        })?;
        if let Some(epoch) = epoch {
            self.propose(Command::BeginShutdown { node, epoch }).await?;
            tracing::info!(node_id = node.0, "an operator drains a node");
        }
        self.look(|state| drain_of(state, node))
    }

    pub(crate) async fn resume_node(&self, node: NodeId) -> Result<NodeState> {
        use varve_metadata::NodeState as Is;
        let (state, decommissioning, epoch) = self.look(|state| {
            let is = known(state, node)?;
            Ok::<_, Error>((is.state, is.decommissioning, is.epoch))
        })?;
        if decommissioning {
            let on = false;
            self.propose(Command::SetDecommissioning { node, on })
                .await?;
            tracing::info!(node_id = node.0, "an operator cancels a decommission");
        }
        if state == Is::Draining {
            // Fenced for a moment: the controller lets it in again as it does with every node that is alive.
            self.propose(Command::FenceNode { node, epoch }).await?;
            tracing::info!(node_id = node.0, "an operator ends a drain");
            let back = |state: &State| state.node(node).is_none_or(|n| n.state == Is::Active);
            self.wait_until(RESUMED, back).await;
        }
        self.look(|state| Ok(state_of(state, node, known(state, node)?)))
    }

    /// Waits until the metadata say so, or until it has taken too long.
    async fn wait_until(&self, within: Duration, holds: impl Fn(&State) -> bool) {
        let wait = async {
            loop {
                let (version, done) = self.look(|state| (state.version(), holds(state)));
                if done {
                    return;
                }
                self.log.newer_than(version).await;
            }
        };
        let _ = tokio::time::timeout(within, wait).await;
    }

    pub(crate) async fn decommission_node(&self, node: NodeId, dead: bool) -> Result<Decommission> {
        use varve_metadata::NodeState as Is;
        let begun = self.look(|state| {
            let is = known(state, node)?;
            if is.decommissioning {
                return Ok(true);
            }
            match (is.state, dead) {
                (Is::Fenced, false) => {
                    return Err(refused(format!(
                        "node {node} is offline; start it, or declare it dead if it will not come \
                         back"
                    )));
                }
                (Is::Active | Is::Draining, true) => {
                    return Err(refused(format!(
                        "node {node} is alive; decommission it without declaring it dead, or stop \
                         it for good first"
                    )));
                }
                _ => {}
            }
            check_places(state, node).map(|()| false)
        })?;
        if !begun {
            let on = true;
            self.propose(Command::SetDecommissioning { node, on })
                .await?;
            tracing::info!(node_id = node.0, dead, "an operator decommissions a node");
        }
        self.look(|state| decommission_of(state, node))
    }

    pub(crate) async fn transfer_leadership(
        &self,
        id: TopicPartition,
        to: Option<NodeId>,
    ) -> Result<LeaderHint> {
        let (key, to) = self.look(|state| {
            let (key, found) = find(state, &id)?;
            if let Some(to) = to {
                known(state, to)?;
            }
            let to = to.or_else(|| successor(state, &found));
            let to = to.ok_or_else(|| {
                let text = format!(
                    "partition {id} has no other in-sync, active replica; nothing was changed"
                );
                Error::new(ErrorKind::LeaderNotAvailable, text)
            })?;
            Ok::<_, Error>((key, to))
        })?;
        let elect = Command::ElectLeader {
            topic_id: key.topic,
            partition: key.partition,
            how: Election::Clean(Some(to)),
        };
        self.propose(elect.clone()).await?;
        self.prefer(key, to).await?;
        if self.look(|state| state.partition_at(key).and_then(|p| p.leader)) != Some(to) {
            // Somebody gave it back to the preferred leader meanwhile, which is this one by now.
            self.propose(elect).await?;
        }
        self.hint(&id.topic, id.partition).ok_or_else(|| {
            let text = format!("partition {id} lost its leader in the meantime");
            Error::new(ErrorKind::LeaderNotAvailable, text)
        })
    }

    /// Puts a replica first, so that leadership stays there.
    async fn prefer(&self, key: PartitionKey, node: NodeId) -> Result<()> {
        let found = self.look(|state| state.partition_at(key).cloned());
        let Some(found) = found.filter(|p| !p.is_reassigning()) else {
            return Ok(());
        };
        if found.preferred_leader() == Some(node) || !found.replicas.contains(&node) {
            return Ok(());
        }
        let rest = found.replicas.iter().filter(|n| **n != node).copied();
        let reorder = Command::Reassign {
            topic_id: key.topic,
            partition: key.partition,
            target: Some(std::iter::once(node).chain(rest).collect()),
        };
        self.propose(reorder).await.map(drop)
    }

    pub(crate) async fn elect_preferred_leaders(&self, topics: &[TopicName]) -> Result<Elections> {
        let wanted: Vec<PartitionKey> = self.look(|state| {
            if let Some(missing) = topics.iter().find(|t| state.topic(t).is_none()) {
                let text = format!(
                    "topic {:?} does not exist; nothing was changed",
                    missing.as_str()
                );
                return Err(Error::new(ErrorKind::TopicNotFound, text).with("topic", missing));
            }
            let these = state
                .topics()
                .iter()
                .filter(|(name, _)| topics.is_empty() || topics.contains(name));
            let wanted = these.flat_map(|(_, topic)| {
                let off = topic.partitions.iter().enumerate();
                let off = off.filter(|(_, p)| p.leader != p.preferred_leader());
                off.map(|(n, _)| super::key(topic.id, varve_types::PartitionId(n as i32)))
            });
            Ok(wanted.collect())
        })?;
        let mut done = Elections::default();
        for some in wanted.chunks(ELECTIONS_AT_ONCE) {
            let elect = |key: &PartitionKey| self.elect_preferred(*key);
            for result in join_all(some.iter().map(elect)).await {
                match result {
                    Ok(true) => done.started += 1,
                    Ok(false) | Err(_) => done.skipped += 1,
                }
            }
        }
        Ok(done)
    }

    pub(crate) async fn elect_preferred_leaders_of(
        &self,
        partitions: Vec<TopicPartition>,
    ) -> Vec<Result<bool>> {
        let mut done = Vec::with_capacity(partitions.len());
        for some in partitions.chunks(ELECTIONS_AT_ONCE) {
            let elect = async |id: &TopicPartition| {
                let found = self.look(|state| find(state, id).map(|(key, _)| key));
                self.elect_preferred(found?).await
            };
            done.extend(join_all(some.iter().map(elect)).await);
        }
        done
    }

    /// Whether the preferred leader leads now; `false`: it cannot at present.
    async fn elect_preferred(&self, key: PartitionKey) -> Result<bool> {
        let elect = Command::ElectLeader {
            topic_id: key.topic,
            partition: key.partition,
            how: Election::Preferred,
        };
        match self.log.propose(elect).await {
            Ok(_) => Ok(true),
            Err(ProposeError::Rejected(Rejection::NotElectable { .. })) => Ok(false),
            Err(error) => Err(unmade(&error)),
        }
    }

    pub(crate) async fn reassign(&self, request: Reassign) -> Result<Vec<Result<()>>> {
        let plan = self.look(|state| plan(state, request.items));
        if request.validate_only {
            return Ok(self.look(|state| {
                let mut copy = state.clone();
                let mut check = |command: Result<Command>| {
                    let command = command?;
                    let applied = varve_metadata::apply(&mut copy, command);
                    applied.map(drop).map_err(|r| rejected(&r))
                };
                plan.into_iter().map(&mut check).collect()
            }));
        }
        let mut results = Vec::with_capacity(plan.len());
        for command in plan {
            results.push(match command {
                Ok(command) => self.propose(command).await.map(drop),
                Err(error) => Err(error),
            });
        }
        Ok(results)
    }

    pub(crate) async fn cancel_reassignments(
        &self,
        partitions: Vec<TopicPartition>,
    ) -> Vec<Result<()>> {
        let mut results = Vec::with_capacity(partitions.len());
        for id in partitions {
            let found = self.look(|state| find(state, &id).map(|(key, _)| key));
            results.push(match found {
                Ok(key) => {
                    let cancel = Command::Reassign {
                        topic_id: key.topic,
                        partition: key.partition,
                        target: None,
                    };
                    self.propose(cancel).await.map(drop)
                }
                Err(error) => Err(error),
            });
        }
        results
    }

    /// Every move; `left` says how many bytes a node still lacks of a partition, if that is known here.
    pub(crate) fn reassignments(
        &self,
        left: impl Fn(PartitionKey, NodeId) -> Option<u64>,
    ) -> Vec<Reassignment> {
        let mut moves: Vec<Reassignment> = self.look(|state| {
            let one = |key: &PartitionKey| {
                let (name, topic) = state.topic_by_id(key.topic)?;
                let partition = topic.partition(key.partition)?;
                let bytes = partition.adding.iter().map(|n| left(*key, *n));
                Some(Reassignment {
                    partition: TopicPartition::new(name.clone(), key.partition),
                    leader: partition.leader,
                    replicas: partition.replicas.clone(),
                    adding: partition.adding.clone(),
                    removing: partition.removing.clone(),
                    remaining_bytes: bytes.sum(),
                })
            };
            state.reassigning().iter().filter_map(one).collect()
        });
        moves.sort_by(|a, b| a.partition.cmp(&b.partition));
        moves
    }
}

/// The command of each item, or why there is none.
fn plan(state: &State, items: Vec<(TopicPartition, Target)>) -> Vec<Result<Command>> {
    let mut chooser = Chooser::new(state);
    let mut one = |(id, target): (TopicPartition, Target)| {
        let (key, found) = find(state, &id)?;
        let nodes = match target {
            Target::Nodes(nodes) => nodes,
            Target::Count(count) => chooser
                .choose(&found, count)
                .map_err(|why| invalid("replica_count", &format!("partition {id}: {why}")))?,
        };
        for node in nodes.iter().filter(|n| !found.replicas.contains(n)) {
            if known(state, *node)?.state == varve_metadata::NodeState::Fenced {
                return Err(refused(format!(
                    "partition {id} cannot be moved to node {node}, which is offline; start it first"
                )));
            }
        }
        Ok(Command::Reassign {
            topic_id: key.topic,
            partition: key.partition,
            target: Some(nodes),
        })
    };
    items.into_iter().map(&mut one).collect()
}
