//! Markers on their way: a coordinator's to the leaders of the partitions, and those for partitions that this node
//! leads into the logs.
//!
//! Invariants: a partition counts as told only when its marker is committed, or cannot be needed any more; the
//! coordinator of groups hears of a marker in its partition before the transaction's coordinator does.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use varve_metadata::PartitionKey;
use varve_partition::TransactionEnd;
use varve_record::{EndMarker, Marker, end_marker};
use varve_txn::{Markers, Place};
use varve_types::{Acks, ErrorKind, NodeId, ProducerId, TopicPartition, TransactionalId};
use varve_vfs::Clock;

use crate::admission::Admission;
use crate::cluster::{InCluster, key};
use crate::confirm::Confirm;
use crate::coordinators::Coordinators;
use crate::internal_topic::{Ended, OFFSETS};
use crate::partition::Partition;
use crate::peer::{MarkerOrder, MarkerOutcome};
use crate::produce::{Terms, enqueue};
use crate::registry::Registry;

/// Bytes of markers that are not in the logs yet. What waits to be committed there is not counted.
const IN_FLIGHT_BYTES: usize = 4 * 1024 * 1024;
/// A marker that is not committed within this time, from when it is wanted, is asked for again.
const COMMIT_WITHIN: Duration = Duration::from_secs(10);

/// What became of the markers of one transaction.
#[derive(Debug)]
pub(crate) struct Sent {
    pub(crate) name: TransactionalId,
    pub(crate) producer: ProducerId,
    pub(crate) number: Option<i64>,
    pub(crate) done: Vec<Place>,
    /// Some partition is not known to have its marker.
    pub(crate) again: bool,
}

/// Sends markers and writes those that are sent here.
pub(crate) struct Sender {
    registry: Arc<Registry>,
    groups: Arc<Coordinators>,
    clock: Arc<dyn Clock>,
    admission: Admission,
    confirm: Confirm,
}

/// Where a partition is to be told.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum To {
    Here,
    Node(NodeId, String),
    /// Nobody leads it, or its leader is not known here.
    Nowhere,
    /// Its topic is deleted.
    Gone,
}

impl Sender {
    pub(crate) fn new(
        registry: Arc<Registry>,
        groups: Arc<Coordinators>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self {
            registry,
            groups,
            clock,
            admission: Admission::new(IN_FLIGHT_BYTES),
            confirm: Confirm::default(),
        }
    }

    /// Tells every partition, each through its leader, all at the same time.
    pub(crate) async fn send(&self, markers: Markers) -> Sent {
        let mut by_leader: BTreeMap<To, Vec<Place>> = BTreeMap::new();
        for place in markers.partitions.iter().cloned() {
            by_leader.entry(self.to(&place)).or_default().push(place);
        }
        let told = by_leader.into_iter().map(|(to, places)| {
            let order = MarkerOrder {
                producer: markers.producer,
                number: markers.number,
                commit: markers.commit,
                coordinator_epoch: markers.coordinator_epoch,
                partitions: places.iter().map(|p| key(p.topic, p.partition)).collect(),
            };
            async move {
                let outcomes = self.tell(to, order).await;
                places.into_iter().zip(outcomes).collect::<Vec<_>>()
            }
        });
        let (mut done, mut again) = (Vec::new(), false);
        for (place, outcome) in join_all(told).await.into_iter().flatten() {
            match outcome {
                MarkerOutcome::Done => done.push(place),
                // A newer coordinator speaks for the id: this one's leadership ends by itself.
                MarkerOutcome::Again | MarkerOutcome::Fenced => again = true,
            }
        }
        // An answer that is too short says nothing of the rest, and the rest is asked for again.
        again |= done.len() < markers.partitions.len();
        Sent {
            name: markers.name,
            producer: markers.producer,
            number: markers.number,
            done,
            again,
        }
    }

    fn to(&self, place: &Place) -> To {
        let Some(cluster) = self.registry.cluster() else {
            let here = key(place.topic, place.partition);
            return match self.registry.view().by_key.contains_key(&here) {
                true => To::Here,
                false => To::Gone,
            };
        };
        let id = TopicPartition::new(place.name.clone(), place.partition);
        varve_metadata::log::read(&*cluster.log, |state| {
            let topic = state.topic(&place.name).filter(|t| t.id == place.topic);
            let Some(partition) = topic.and_then(|t| t.partition(id.partition)) else {
                return To::Gone;
            };
            match partition.leader {
                Some(node) if node == cluster.me => To::Here,
                Some(node) => match state.node(node) {
                    Some(found) => To::Node(node, found.peer_address.clone()),
                    None => To::Nowhere,
                },
                None => To::Nowhere,
            }
        })
    }

    async fn tell(&self, to: To, order: MarkerOrder) -> Vec<MarkerOutcome> {
        let all = |outcome| vec![outcome; order.partitions.len()];
        match (to, self.registry.cluster()) {
            (To::Here, _) => self.write(&order).await,
            (To::Gone, cluster) => all(match cluster {
                Some(cluster) if !self.confirm.newest(&cluster.log).await => MarkerOutcome::Again,
                Some(cluster) if still_there(cluster, &order) => MarkerOutcome::Again,
                _ => MarkerOutcome::Done,
            }),
            (To::Node(node, address), Some(cluster)) => {
                let peers = cluster.links.peers();
                match peers.write_markers(node, address, order.clone()).await {
                    Ok(outcomes) => outcomes,
                    Err(error) => {
                        tracing::debug!(
                            %error,
                            "could not write transaction markers; sending them again"
                        );
                        all(MarkerOutcome::Again)
                    }
                }
            }
            (To::Node(..), None) | (To::Nowhere, _) => all(MarkerOutcome::Again),
        }
    }

    /// Writes markers into partitions that this node leads; one outcome each, in order.
    pub(crate) async fn write(&self, order: &MarkerOrder) -> Vec<MarkerOutcome> {
        let view = self.registry.view();
        let written = order.partitions.iter().map(|key| {
            let partition = view.by_key.get(key).cloned();
            async move {
                match partition {
                    Some(partition) if partition.leading().is_some() => {
                        self.write_one(&partition, order).await
                    }
                    _ => MarkerOutcome::Again,
                }
            }
        });
        join_all(written).await
    }

    async fn write_one(&self, partition: &Arc<Partition>, order: &MarkerOrder) -> MarkerOutcome {
        let end = EndMarker {
            marker: if order.commit {
                Marker::Commit
            } else {
                Marker::Abort
            },
            coordinator_epoch: order.coordinator_epoch.get(),
            number: order.number,
        };
        let batch = end_marker(order.producer, end, self.clock.wall_ms());
        let until = tokio::time::Instant::now() + COMMIT_WITHIN;
        let admitted = self.admission.admit(batch.header().size());
        let Ok(Some(permit)) = tokio::time::timeout_at(until, admitted).await else {
            return MarkerOutcome::Again;
        };
        let terms = Terms {
            marker: Some(TransactionEnd {
                producer: order.producer,
                end,
            }),
            ..Terms::new(Acks::All)
        };
        let result = match enqueue(partition, batch, terms, permit, self.clock.now()) {
            Ok(receipt) => match tokio::time::timeout_at(until, receipt).await {
                Ok(result) => result.map(|appended| appended.base_offset),
                Err(_) => return MarkerOutcome::Again,
            },
            Err(error) => Err(error),
        };
        match result {
            Ok(at) => {
                let kept_at = at.filter(|_| order.number.is_some());
                partition.registered.ended(order.producer, kept_at);
                if partition.id.topic.as_str() == OFFSETS {
                    let end = Ended {
                        producer: order.producer,
                        kept_at,
                        committed: order.commit,
                    };
                    self.groups.transaction_ended(partition, end).await;
                }
                MarkerOutcome::Done
            }
            // The partition has a greater epoch of the producer, or a later marker: this one is there, or nothing it
            // would end is.
            Err(error) if error.kind == ErrorKind::ProducerFenced => MarkerOutcome::Done,
            Err(error) if error.kind == ErrorKind::NotCoordinator => MarkerOutcome::Fenced,
            Err(error) => {
                tracing::debug!(
                    partition = %partition.id, %error,
                    "could not write a transaction marker yet"
                );
                MarkerOutcome::Again
            }
        }
    }
}

/// Whether one of the partitions exists after all.
fn still_there(cluster: &InCluster, order: &MarkerOrder) -> bool {
    varve_metadata::log::read(&*cluster.log, |state| {
        let exists = |key: &PartitionKey| state.topics().values().any(|t| t.id == key.topic);
        order.partitions.iter().any(exists)
    })
}
