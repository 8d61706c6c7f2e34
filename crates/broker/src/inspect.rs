//! What a node holds, and who writes to it, for those who look after it.
//!
//! Invariants: nothing is changed here; sizes and cursors are those that the lanes have published, so that one look
//! costs no lane anything; the table of producers belongs to its lane, which copies it out between two groups.

use tokio::sync::oneshot;
use varve_broker_api::{ActiveProducer, Error, LogDirectory, ReplicaLog, Result};
use varve_types::{ErrorKind, TopicPartition};

use crate::lane::{Command, Lane};
use crate::partition::Partition;
use crate::start::Inner;
use crate::work::blocking;

/// Who waits for the producers of a partition.
pub(crate) type ProducersReply = oneshot::Sender<Result<Vec<ActiveProducer>>>;

fn replica(partition: &Partition) -> ReplicaLog {
    let (end, committed) = (partition.log_end(), partition.high_watermark());
    let lag = committed.get().saturating_sub(end.get()).max(0);
    ReplicaLog {
        partition: partition.id.clone(),
        size_bytes: partition.size_bytes(),
        lag: (partition.offline().is_none()).then_some(lag.unsigned_abs()),
    }
}

impl Inner {
    pub(crate) async fn log_directory(&self) -> LogDirectory {
        let space = std::sync::Arc::clone(&self.space);
        let measured = blocking(&self.config.workers, move || space.measure()).await;
        let closed = self.registry.cluster().is_some_and(|cluster| {
            varve_metadata::log::read(&*cluster.log, |state| {
                let node = state.node(self.config.node);
                node.is_some_and(|node| !node.takes_replicas())
            })
        });
        let view = self.registry.view();
        LogDirectory {
            path: self.config.data_dir.display().to_string(),
            space: measured.ok().flatten(),
            closed,
            replicas: view.partitions().map(|p| replica(p)).collect(),
        }
    }

    pub(crate) async fn active_producers(
        &self,
        id: &TopicPartition,
    ) -> Result<Vec<ActiveProducer>> {
        let partition = self.registry.leading(id)?;
        if partition.offline().is_some() {
            return Err(partition.offline_error());
        }
        let (reply, answer) = oneshot::channel();
        let slot = partition.slot;
        let ask = Command::Producers { slot, reply };
        let shutting_down = || Error::new(ErrorKind::ShuttingDown, "the broker is shutting down");
        partition.lane.push(ask).map_err(|_| shutting_down())?;
        answer.await.map_err(|_| shutting_down())?
    }
}

impl Lane {
    pub(crate) fn producers(&self, slot: u32, reply: ProducersReply) {
        let Some(owned) = self.slots.get(&slot) else {
            let gone = Error::new(ErrorKind::TopicNotFound, "the topic was deleted");
            return drop(reply.send(Err(gone)));
        };
        let active = owned.core.producers().active();
        let active = active.map(|session| ActiveProducer {
            producer: session.producer,
            last_sequence: session.last,
            last_used_ms: session.last_used_ms,
            coordinator_epoch: session.coordinator_epoch,
            transaction_start: session.open,
        });
        // Whoever asked may be gone.
        drop(reply.send(Ok(active.collect())));
    }
}
