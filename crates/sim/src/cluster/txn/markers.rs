//! Markers on their way: a coordinator's to the leaders of the partitions, into their logs, and what comes back.
//! Follows `varve-broker`, `transactions/markers.rs`, with one partition in a message.

use varve_metadata::PartitionKey;
use varve_partition::{Rejection, TransactionEnd, Verified};
use varve_record::{EndMarker, Marker};
use varve_txn::{Input, Markers};
use varve_types::{Acks, LeaderEpoch, NodeId, Offset, ProducerId, TransactionalId};

use super::super::disk::Kind;
use super::super::world::{Addr, Message, Origin, Produce, World};
use super::{Local, Role, key_of, marker_value, name, place};

/// A marker for one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cluster) struct Order {
    /// Number of the transactional id.
    name: usize,
    producer: ProducerId,
    number: Option<i64>,
    commit: bool,
    /// Epoch of the coordinator.
    pub(super) epoch: LeaderEpoch,
    key: PartitionKey,
}

impl Order {
    fn end(&self) -> TransactionEnd {
        let marker = match self.commit {
            true => Marker::Commit,
            false => Marker::Abort,
        };
        let coordinator_epoch = self.epoch.get();
        TransactionEnd {
            producer: self.producer,
            end: EndMarker {
                marker,
                coordinator_epoch,
                number: self.number,
            },
        }
    }

    pub(super) fn again(&self) -> Input {
        Input::MarkersFailed {
            name: name(self.name),
            producer: self.producer,
            number: self.number,
        }
    }

    fn done(&self) -> Input {
        Input::MarkersDone {
            name: name(self.name),
            producer: self.producer,
            number: self.number,
            partitions: vec![place(self.key)],
        }
    }
}

fn number(name: &TransactionalId) -> usize {
    name.as_str()[1..].parse().unwrap_or_default()
}

impl World {
    pub(super) fn send_orders(&mut self, id: NodeId, epoch: LeaderEpoch, markers: Markers) {
        let name = number(&markers.name);
        for place in &markers.partitions {
            let order = Order {
                name,
                producer: markers.producer,
                number: markers.number,
                commit: markers.commit,
                epoch,
                key: key_of(place),
            };
            match self.leader_known_to(id, order.key) {
                Some(leader) => self.send(Addr::Node(id), Addr::Node(leader), Message::Mark(order)),
                None => self.local(id, 1, Local::Nowhere(order)),
            }
        }
    }

    /// A coordinator has a marker for a partition that this node may lead.
    pub(in crate::cluster) fn marker_arrives(
        &mut self,
        id: NodeId,
        from: Addr,
        order: Order,
    ) -> Result<(), String> {
        let Addr::Node(to) = from else {
            return Ok(());
        };
        let leads = self
            .replica(id, order.key)
            .is_some_and(|r| r.core.leader_epoch().is_some());
        if !leads {
            self.send(Addr::Node(id), from, Message::Marked { order, done: false });
            return Ok(());
        }
        let end = order.end();
        let produce = Produce {
            origin: Origin::Marker { to, order },
            request: 0,
            key: order.key,
            value: marker_value(&end),
            records: 1,
            producer: None,
            resumes: false,
            acks: Acks::All,
            kind: Kind::Marker(end),
            leader_epoch: None,
            verified: Verified::No,
        };
        self.offer(id, produce)
    }

    /// The core answers a marker.
    pub(in crate::cluster) fn marker_answered(
        &mut self,
        id: NodeId,
        produce: &Produce,
        result: Result<Offset, Rejection>,
    ) -> Result<(), String> {
        let Origin::Marker { to, order } = produce.origin else {
            return Ok(());
        };
        // With a greater epoch there this marker is there already, or nothing it would end is.
        let done = matches!(result, Ok(_) | Err(Rejection::ProducerFenced { .. }));
        if let Err(Rejection::CoordinatorFenced { .. }) = result {
            self.count("marker of an old coordinator refused");
        }
        if let Ok(at) = result {
            let kept_at = order.number.map(|_| at);
            if let Some(replica) = self.replica(id, order.key) {
                replica.registered.ended(order.producer, kept_at);
            }
            // The coordinator of the group hears of it first.
            if self.role(order.key) == Role::Offsets {
                self.group_hears_of_marker(id, (order.producer, kept_at), order.commit)?;
            }
        }
        self.send(
            Addr::Node(id),
            Addr::Node(to),
            Message::Marked { order, done },
        );
        Ok(())
    }

    /// A leader says what became of a marker.
    pub(in crate::cluster) fn marked(
        &mut self,
        id: NodeId,
        order: Order,
        done: bool,
    ) -> Result<(), String> {
        if done {
            self.strike_coordinator(id, "marker told");
        }
        let input = if done { order.done() } else { order.again() };
        self.coordinate(id, order.epoch, input)
    }
}
