//! Opening partitions: the log is recovered, producer sessions are rebuilt, a new leader epoch begins, and
//! the partition is handed to its lane.

use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;
use varve_broker_api::TopicInfo;
use varve_partition::{Core, Epochs, ProducerTable, Recovered};
use varve_storage::journal::{LogReplay, Replay};
use varve_storage::{Log, LogConfig, LogIdentity, OpenMode, ReadBuffers};
use varve_types::{LeaderEpoch, PartitionId, TopicConfig, TopicPartition};
use varve_vfs::{Clock, Vfs};

use crate::config::BrokerConfig;
use crate::inbox::Inbox;
use crate::lane::{Command, Opening, core_config};
use crate::metrics::Metrics;
use crate::partition::Partition;

/// Threads that open logs at start: recovery waits for the disk more than for a core.
const OPEN_THREADS: usize = 4;
/// Longest topic name that the name of its directory holds whole, in bytes.
const NAME_KEPT_WHOLE: usize = 240;
/// Bytes of a longer one that it begins with.
const LONG_NAME_KEPT: usize = 200;

/// What opening needs.
#[derive(Clone)]
pub(crate) struct Opener {
    pub(crate) config: Arc<BrokerConfig>,
    pub(crate) vfs: Arc<dyn Vfs>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) lanes: Arc<[Arc<Inbox<Command>>]>,
    pub(crate) metrics: Metrics,
    pub(crate) buffers: ReadBuffers,
    /// What the journal holds of the last run; nothing once all logs of a start are open.
    pub(crate) replay: Arc<Mutex<Replay>>,
    /// Partitions that are offline although the journal holds records of them.
    pub(crate) unplaced: Arc<Mutex<Vec<TopicPartition>>>,
}

impl Opener {
    /// Name of a topic's directory under `topics/`.
    pub(crate) fn dir_name(&self, info: &TopicInfo) -> String {
        let name = info.name.as_str();
        match name.get(..LONG_NAME_KEPT) {
            // A file name has at most 255 bytes; the whole id tells apart what begins alike.
            Some(head) if name.len() > NAME_KEPT_WHOLE => format!("{head}-{:032x}", info.id.0),
            _ => format!("{name}-{:08x}", (info.id.0 >> 96) as u32),
        }
    }

    fn topics_dir(&self) -> PathBuf {
        self.config.data_dir.join("topics")
    }

    /// Opens partitions and hands them to their lanes. One that cannot be opened is there, offline, and
    /// says why.
    pub(crate) fn open_many(
        &self,
        info: &TopicInfo,
        config: &TopicConfig,
        partitions: impl Iterator<Item = PartitionId>,
        fresh: bool,
        mut slot: impl FnMut() -> u32,
    ) -> Vec<Arc<Partition>> {
        let handles: Vec<Arc<Partition>> = partitions
            .map(|p| {
                let slot = slot();
                let lane = Arc::clone(&self.lanes[slot as usize % self.lanes.len()]);
                let id = TopicPartition::new(info.name.clone(), p);
                let buffers = self.buffers.clone();
                let handle = Partition::new(id, slot, lane, config.clone(), &self.metrics, buffers);
                Arc::new(handle)
            })
            .collect();
        let share = handles.len().div_ceil(OPEN_THREADS).max(1);
        std::thread::scope(|scope| {
            for some in handles.chunks(share) {
                scope.spawn(move || some.iter().for_each(|p| self.open(info, config, p, fresh)));
            }
        });
        handles
    }

    fn open(
        &self,
        info: &TopicInfo,
        config: &TopicConfig,
        partition: &Arc<Partition>,
        fresh: bool,
    ) {
        match self.try_open(info, config, partition, fresh) {
            Ok(opening) => {
                let log = &opening.log;
                partition.set_leader_epoch(opening.epoch);
                partition.set_flushed(log.flushed());
                partition.publish(log.view(), log.size_bytes(), log.segments() as u64);
                partition.advance(opening.core.high_watermark());
                // Lanes end only after the registry is closed.
                let _ = partition.lane.push(Command::Open(Box::new(opening)));
            }
            Err(reason) => {
                let identity = LogIdentity {
                    topic_id: info.id,
                    partition: partition.id.partition,
                };
                let replay = self.replay.lock();
                if replay.log(&identity).is_some_and(LogReplay::has_batches) {
                    self.unplaced.lock().push(partition.id.clone());
                }
                drop(replay);
                partition.set_offline(reason);
            }
        }
    }

    fn try_open(
        &self,
        info: &TopicInfo,
        config: &TopicConfig,
        partition: &Arc<Partition>,
        fresh: bool,
    ) -> Result<Opening, String> {
        let dir = self
            .topics_dir()
            .join(self.dir_name(info))
            .join(partition.id.partition.to_string());
        let exists = self.vfs.exists(&dir).map_err(|e| e.to_string())?;
        if !fresh && !exists {
            return Err(format!(
                "its directory {} is missing; it is not made anew, because its records would be \
                 lost without a word: restore it, or delete the topic",
                dir.display()
            ));
        }
        let identity = LogIdentity {
            topic_id: info.id,
            partition: partition.id.partition,
        };
        let mode = OpenMode {
            clean: self.config.clean_start || fresh,
        };
        let now_ms = self.clock.wall_ms();
        let replay = self.replay.lock().log(&identity).cloned();
        let (mut log, recovery) = Log::open_replayed(
            Arc::clone(&self.vfs),
            &dir,
            identity,
            LogConfig::from(config),
            mode,
            now_ms,
            replay.as_ref(),
        )
        .map_err(|e| e.to_string())?;
        if recovery.bytes_cut > 0 {
            tracing::warn!(
                partition = %partition.id, cut_bytes = recovery.bytes_cut, log_end = %log.log_end(),
                "torn tail cut: bytes after the last flush that were never acknowledged"
            );
        }
        if recovery.replayed.entries > 0 {
            tracing::info!(
                partition = %partition.id, entries = recovery.replayed.entries,
                bytes = recovery.replayed.bytes_written, "records put back from the journal"
            );
        }
        let producers = rebuild_producers(&mut log)?;
        let epoch = log
            .last_epoch()
            .map_or(LeaderEpoch::ZERO, LeaderEpoch::next);
        log.begin_epoch(epoch).map_err(|e| e.to_string())?;
        let recovered = Recovered {
            log_start: log.log_start(),
            log_end: log.log_end(),
            // This node alone holds it: what is here is what was ever committed.
            high_watermark: log.log_end(),
            epochs: Epochs::default(),
            producers,
        };
        let core = Core::new(self.config.node, core_config(config), recovered, 0);
        Ok(Opening {
            partition: Arc::clone(partition),
            core,
            log,
            epoch,
        })
    }

    /// Removes a topic's directory; whether it is gone. Unlinking takes long, so on a blocking thread.
    pub(crate) async fn remove_topic_dir(&self, name: &str) -> bool {
        let (vfs, parent) = (Arc::clone(&self.vfs), self.topics_dir());
        let dir = parent.join(name);
        let removed = tokio::task::spawn_blocking(move || {
            if vfs.exists(&dir)? {
                vfs.remove_dir_all(&dir)?;
                vfs.sync_dir(&parent)?;
            }
            Ok::<(), varve_vfs::VfsError>(())
        });
        match removed.await {
            Ok(Ok(())) => true,
            Ok(Err(error)) => {
                tracing::warn!(%error, "directory of a deleted topic is left for the next start");
                false
            }
            Err(_) => false,
        }
    }
}

/// Producer sessions from the newest snapshot and the batches after it.
fn rebuild_producers(log: &mut Log) -> Result<ProducerTable, String> {
    let snapshot = log
        .latest_snapshot(log.log_end())
        .and_then(|(offset, bytes)| match ProducerTable::decode(&bytes) {
            Ok(table) => Some((offset, table)),
            Err(error) => {
                tracing::warn!(%error, "producer snapshot left aside; the log is read instead");
                None
            }
        });
    let (from, mut table) = snapshot.unwrap_or((log.log_start(), ProducerTable::default()));
    let view = log.view();
    for header in view.headers(from.max(log.log_start())) {
        table.replay(&header.map_err(|e| e.to_string())?);
    }
    Ok(table)
}
