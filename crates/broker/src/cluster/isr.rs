//! What this node's partitions want of the controller: other in-sync replicas (KIP-497), or to be known as
//! lost. Each wish is one command; what is refused goes back to the partition that wished.
//!
//! Invariants: a wish is made with the broker epochs that the follower was heard in, or, of one not heard
//! from, the epoch that the metadata of the same partition epoch knows; nothing waits for another wish.

use std::sync::Arc;

use tokio::sync::{Semaphore, mpsc, watch};
use varve_metadata::{Command, MetadataLog, PartitionKey, ProposeError, Rejection};
use varve_partition::IsrRefusal;
use varve_types::{BrokerEpoch, LeaderEpoch, NodeId};

use crate::lane;
use crate::partition::Partition;

/// Wishes that are on their way at once.
const AT_ONCE: usize = 256;

/// What a partition wants.
#[derive(Debug)]
pub(crate) enum Wish {
    /// Other in-sync replicas.
    Isr {
        partition: Arc<Partition>,
        key: PartitionKey,
        leader_epoch: LeaderEpoch,
        partition_epoch: i32,
        isr: Vec<(NodeId, Option<BrokerEpoch>)>,
    },
    /// This node's replica is of no use until it is opened again.
    Lost { key: PartitionKey },
}

/// Carries wishes to the controller until the broker is gone.
pub(crate) async fn run(
    me: NodeId,
    log: Arc<dyn MetadataLog>,
    epoch: watch::Receiver<Option<BrokerEpoch>>,
    mut wishes: mpsc::UnboundedReceiver<Wish>,
) {
    let permits = Arc::new(Semaphore::new(AT_ONCE));
    while let Some(wish) = wishes.recv().await {
        let Some(broker_epoch) = *epoch.borrow() else {
            continue;
        };
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else {
            return;
        };
        let log = Arc::clone(&log);
        tokio::spawn(async move {
            carry(me, &*log, broker_epoch, wish).await;
            drop(permit);
        });
    }
}

async fn carry(me: NodeId, log: &dyn MetadataLog, broker_epoch: BrokerEpoch, wish: Wish) {
    match wish {
        Wish::Lost { key } => {
            let command = Command::ReplicaLost {
                node: me,
                epoch: broker_epoch,
                topic_id: key.topic,
                partition: key.partition,
            };
            if let Err(error) = log.propose(command).await {
                tracing::warn!(?key, %error, "the controller was not told that this replica failed");
            }
        }
        Wish::Isr {
            partition,
            key,
            leader_epoch,
            partition_epoch,
            isr,
        } => {
            let refused = match name_runs(log, key, partition_epoch, isr) {
                None => Some(IsrRefusal::Stale),
                Some(isr) => {
                    let command = Command::AlterPartition {
                        topic_id: key.topic,
                        partition: key.partition,
                        leader: me,
                        leader_epoch,
                        partition_epoch,
                        isr,
                        broker_epoch,
                    };
                    refusal(log.propose(command).await, &partition)
                }
            };
            if let Some(why) = refused {
                let slot = partition.slot;
                let _ = partition.lane.push(lane::Command::IsrRefused {
                    slot,
                    partition_epoch,
                    why,
                });
            }
        }
    }
}

/// The replicas with their runs; `None` when the metadata has moved on.
fn name_runs(
    log: &dyn MetadataLog,
    key: PartitionKey,
    partition_epoch: i32,
    isr: Vec<(NodeId, Option<BrokerEpoch>)>,
) -> Option<Vec<(NodeId, BrokerEpoch)>> {
    varve_metadata::log::read(log, |state| {
        if state.partition_at(key)?.partition_epoch != partition_epoch {
            return None;
        }
        let run = |(node, heard): (NodeId, Option<BrokerEpoch>)| {
            Some((node, heard.or_else(|| state.node(node).map(|n| n.epoch))?))
        };
        isr.into_iter().map(run).collect()
    })
}

/// Why a proposal was certainly refused. One whose fate is unknown is repeated by the core.
fn refusal<T>(result: Result<T, ProposeError>, partition: &Partition) -> Option<IsrRefusal> {
    match result {
        Ok(_) => None,
        Err(ProposeError::Rejected(rejection)) => {
            tracing::debug!(partition = %partition.id, %rejection, "in-sync replicas stay as they are");
            Some(match rejection {
                Rejection::IneligibleReplica { node, .. } => IsrRefusal::Ineligible(node),
                _ => IsrRefusal::Stale,
            })
        }
        Err(error) => {
            tracing::debug!(partition = %partition.id, %error, "in-sync replicas: no answer");
            None
        }
    }
}
