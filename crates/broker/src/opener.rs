//! Opening partitions: the log is recovered, producer sessions are rebuilt, a new leader epoch begins, and
//! the partition is handed to its lane.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use varve_broker_api::TopicInfo;
use varve_metadata::PartitionKey;
use varve_partition::{Core, Epochs, ProducerTable, Recovered};
use varve_record::{BatchHeader, EndMarker, StoredBatch};
use varve_storage::journal::{LogReplay, Replay};
use varve_storage::{
    Log, LogConfig, LogError, LogIdentity, OpenMode, ReadBuffers, ReadError, ReadMode, ReadOutcome,
    ReadView,
};
use varve_types::{LeaderEpoch, Offset, PartitionId, TopicConfig, TopicPartition};
use varve_vfs::{Clock, Vfs, VfsError};

use crate::cluster::key;
use crate::cluster::repair::{Repairer, Repairs};
use crate::cluster::watermarks::Watermarks;
use crate::config::BrokerConfig;
use crate::failure::FirstFailure;
use crate::inbox::Inbox;
use crate::lane::{Command, Opening, Role, core_config};
use crate::metrics::Metrics;
use crate::partition::Partition;
use crate::work::blocking;

/// Times that opening a log is tried while the disk fails.
const OPEN_ATTEMPTS: u32 = 3;
/// Threads that open logs at start: recovery waits for the disk more than for a core.
const OPEN_THREADS: usize = 4;
/// Longest topic name that the name of its directory holds whole, in bytes.
const NAME_KEPT_WHOLE: usize = 240;
/// Bytes of a longer one that it begins with.
const LONG_NAME_KEPT: usize = 200;

/// As what a partition is opened.
#[derive(Debug, Clone, Copy)]
pub(crate) enum OpenAs {
    /// This node alone holds it, and leads it at once. `fresh`: it has just been created.
    Alone { fresh: bool },
    /// One of several replicas, which does what it is told. A missing directory is made, unless the replica is `kept`:
    /// others count on what it has.
    Replica { kept: bool },
}

/// Why a partition was not opened.
struct Refused {
    reason: String,
    /// Its files are damaged: another replica's copy would help.
    damaged: bool,
    /// The disk failed: another attempt may do better.
    failed: bool,
}

impl From<String> for Refused {
    fn from(reason: String) -> Self {
        Self {
            reason,
            damaged: false,
            failed: false,
        }
    }
}

impl From<LogError> for Refused {
    fn from(error: LogError) -> Self {
        Self {
            reason: error.to_string(),
            damaged: matches!(error, LogError::Corrupt(_)),
            failed: matches!(error, LogError::Io(_) | LogError::Failed { .. }),
        }
    }
}

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
    pub(crate) unplaced: Arc<Mutex<BTreeMap<PartitionKey, TopicPartition>>>,
    /// Logs that were refused in this run and were not opened since: nobody knows what is in their files.
    pub(crate) refused: Arc<Mutex<BTreeSet<PartitionKey>>>,
    /// High watermarks as they were saved last.
    pub(crate) watermarks: Arc<Watermarks>,
    /// A replica that is behind for so long leaves the in-sync replicas.
    pub(crate) replica_lag: Duration,
    /// Producer sessions that a partition remembers at most.
    pub(crate) producer_sessions: usize,
    /// Who sees to damaged replicas; `None`: this node is alone.
    pub(crate) repairs: Option<Arc<Repairs>>,
    /// Who hears of logs that fail once they are open.
    pub(crate) failure: FirstFailure,
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

    pub(crate) fn topics_dir(&self) -> PathBuf {
        self.config.data_dir.join("topics")
    }

    /// Opens partitions and hands them to their lanes. One that cannot be opened is there, offline, and
    /// says why.
    pub(crate) fn open_many(
        &self,
        info: &TopicInfo,
        config: &TopicConfig,
        partitions: impl Iterator<Item = PartitionId>,
        mode: OpenAs,
        mut slot: impl FnMut() -> u32,
    ) -> Vec<Arc<Partition>> {
        let handles: Vec<Arc<Partition>> = partitions
            .map(|p| {
                let slot = slot();
                let lane = Arc::clone(&self.lanes[slot as usize % self.lanes.len()]);
                let id = TopicPartition::new(info.name.clone(), p);
                let repairer = self.repairs.as_ref().map(|repairs| Repairer {
                    key: key(info.id, p),
                    repairs: Arc::clone(repairs),
                });
                let (config, buffers) = (config.clone(), self.buffers.clone());
                let metrics = &self.metrics;
                let partition = Partition::new(id, slot, lane, config, metrics, buffers, repairer);
                let partition = partition
                    .read_by(self.config.workers.clone())
                    .waiting_for(self.config.in_flight_bytes);
                Arc::new(partition.telling(self.failure.clone()))
            })
            .collect();
        if self.config.workers.at_once(OPEN_THREADS) == 1 {
            handles
                .iter()
                .for_each(|p| self.open(info, config, p, mode));
            return handles;
        }
        let share = handles.len().div_ceil(OPEN_THREADS).max(1);
        std::thread::scope(|scope| {
            for some in handles.chunks(share) {
                scope.spawn(move || some.iter().for_each(|p| self.open(info, config, p, mode)));
            }
        });
        handles
    }

    fn open(
        &self,
        info: &TopicInfo,
        config: &TopicConfig,
        partition: &Arc<Partition>,
        mode: OpenAs,
    ) {
        let key = key(info.id, partition.id.partition);
        match self.open_patiently(info, config, partition, mode) {
            Ok(opening) => {
                self.refused.lock().remove(&key);
                let log = &opening.log;
                if let Role::Alone(epoch) = opening.role {
                    partition.set_leader_epoch(epoch);
                }
                partition.set_flushed(log.flushed());
                partition.publish(log.view(), log.size_bytes(), log.segments() as u64);
                let core = &opening.core;
                let aborted = core.producers().aborted_list();
                partition.advance(core.high_watermark(), core.last_stable_offset(), aborted);
                // Lanes end only after the registry is closed.
                let _ = partition.lane.push(Command::Open(Box::new(opening)));
            }
            Err(Refused {
                reason, damaged, ..
            }) => {
                self.refused.lock().insert(key);
                let replay = self.replay.lock();
                if replay
                    .log(&identity(key))
                    .is_some_and(LogReplay::has_batches)
                {
                    self.unplaced.lock().insert(key, partition.id.clone());
                }
                drop(replay);
                partition.set_offline(reason);
                if damaged {
                    partition.ask_repair();
                }
            }
        }
    }

    /// Opens a log; where the disk fails, again. Nobody has been told anything of a log that is not open, so nothing
    /// is lost by that, while one that stays closed would be out of service until the next start. An attempt after
    /// a failure believes nothing that was not checked: recovery writes again what may be in memory only.
    fn open_patiently(
        &self,
        info: &TopicInfo,
        config: &TopicConfig,
        partition: &Arc<Partition>,
        mode: OpenAs,
    ) -> Result<Opening, Refused> {
        let mut attempt = 1;
        loop {
            match self.try_open(info, config, partition, mode, attempt == 1) {
                Err(Refused {
                    reason,
                    failed: true,
                    ..
                }) if attempt < OPEN_ATTEMPTS => {
                    tracing::warn!(
                        partition = %partition.id, attempt, reason,
                        "the disk failed while the log was being opened; the node tries again"
                    );
                    attempt += 1;
                }
                opened => return opened,
            }
        }
    }

    /// `trusted`: what a clean stop says of the files is believed.
    fn try_open(
        &self,
        info: &TopicInfo,
        config: &TopicConfig,
        partition: &Arc<Partition>,
        mode: OpenAs,
        trusted: bool,
    ) -> Result<Opening, Refused> {
        let dir = self.partition_dir(info, partition.id.partition);
        let exists = self.vfs.exists(&dir).map_err(|e| e.to_string())?;
        let fresh = match mode {
            OpenAs::Alone { fresh } => fresh,
            OpenAs::Replica { kept } => !exists && !kept,
        };
        if !fresh && !exists {
            let reason = format!(
                "its directory {} is missing; the node does not create it again, because that \
                 would hide the loss of its records: restore the directory, or delete the topic",
                dir.display()
            );
            return Err(reason.into());
        }
        let identity = identity(key(info.id, partition.id.partition));
        let how = OpenMode {
            clean: trusted && (self.config.clean_start || fresh),
        };
        let now_ms = self.clock.wall_ms();
        let replay = self.replay.lock().log(&identity).cloned();
        let (mut log, recovery) = Log::open_replayed(
            Arc::clone(&self.vfs),
            &dir,
            identity,
            LogConfig::from(config),
            how,
            now_ms,
            replay.as_ref(),
        )?;
        if recovery.bytes_cut > 0 {
            tracing::warn!(
                partition = %partition.id, cut_bytes = recovery.bytes_cut, log_end = %log.log_end(),
                "truncated a torn tail: bytes after the last flush that were never acknowledged"
            );
        }
        if recovery.replayed.entries > 0 {
            tracing::info!(
                partition = %partition.id, entries = recovery.replayed.entries,
                bytes = recovery.replayed.bytes_written, "restored records from the journal"
            );
        }
        let role = match mode {
            OpenAs::Alone { .. } => {
                let epoch = log
                    .last_epoch()
                    .map_or(LeaderEpoch::ZERO, LeaderEpoch::next);
                log.begin_epoch(epoch)?;
                Role::Alone(epoch)
            }
            OpenAs::Replica { .. } => Role::Copied(key(info.id, partition.id.partition)),
        };
        let high_watermark = self.saved_high_watermark(role, &log);
        let now_ms = self.clock.wall_ms();
        let mut producers =
            rebuild_producers(&mut log, high_watermark, now_ms).map_err(|e| Refused {
                damaged: matches!(e, ReadError::Corrupt { .. }),
                failed: matches!(e, ReadError::Io(_)),
                reason: e.to_string(),
            })?;
        producers.bound(self.producer_sessions);
        let recovered = Recovered {
            log_start: log.log_start(),
            log_end: log.log_end(),
            high_watermark,
            epochs: match role {
                Role::Alone(_) => Epochs::default(),
                Role::Copied(_) => epochs_of(&log).map_err(|reason| Refused {
                    reason,
                    damaged: true,
                    failed: false,
                })?,
            },
            producers,
        };
        let config = core_config(config, self.replica_lag);
        // Slots are used once, so the number of one tells instances of a partition apart.
        let core = Core::new(self.config.node, config, recovered, partition.slot);
        Ok(Opening {
            partition: Arc::clone(partition),
            core,
            log,
            role,
        })
    }

    /// Whether the journal holds, for the next start, records that belong into the files which are there now: no
    /// others may take their place before.
    pub(crate) fn waits_in_journal(&self, key: PartitionKey) -> bool {
        self.unplaced.lock().contains_key(&key)
    }

    /// Where a partition's files are.
    pub(crate) fn partition_dir(&self, info: &TopicInfo, partition: PartitionId) -> PathBuf {
        let topic = self.topics_dir().join(self.dir_name(info));
        topic.join(partition.to_string())
    }

    fn saved_high_watermark(&self, role: Role, log: &Log) -> Offset {
        match role {
            // This node alone holds it: what is here is what was ever committed.
            Role::Alone(_) => log.log_end(),
            Role::Copied(key) => {
                let saved = self.watermarks.partitions.get(&key).copied();
                let saved = saved.unwrap_or_else(|| log.log_start());
                saved.clamp(log.log_start(), log.log_end())
            }
        }
    }

    /// Removes a topic's directory; whether it is gone. Unlinking takes long, so on a blocking thread.
    pub(crate) async fn remove_topic_dir(&self, name: &str) -> bool {
        let (vfs, parent) = (Arc::clone(&self.vfs), self.topics_dir());
        let dir = parent.join(name);
        let removed = blocking(&self.config.workers, move || {
            if vfs.exists(&dir)? {
                vfs.remove_dir_all(&dir)?;
                vfs.sync_dir(&parent)?;
            }
            Ok::<(), varve_vfs::VfsError>(())
        });
        match removed.await {
            Ok(Ok(())) => true,
            Ok(Err(error)) => {
                tracing::warn!(
                    %error,
                    "could not remove the directory of a deleted topic; the next start tries again"
                );
                false
            }
            Err(_) => false,
        }
    }
}

/// A partition as its log is called.
pub(crate) const fn identity(key: PartitionKey) -> LogIdentity {
    LogIdentity {
        topic_id: key.topic,
        partition: key.partition,
    }
}

/// The leader epochs of a log. One that began at its end, and has no record, is for the metadata to tell.
fn epochs_of(log: &Log) -> Result<Epochs, String> {
    let end = log.log_end();
    let entries = log.epochs().entries().iter().copied();
    let with_records = entries.filter(|(_, start)| *start < end);
    Epochs::new(with_records).map_err(|(epoch, start)| {
        format!("its leader epochs do not increase: epoch {epoch} at offset {start}")
    })
}

/// Batches after which a table that is being rebuilt lets go of transactions whose end is committed.
const PRUNE_EVERY: u32 = 1024;

/// Producer sessions from the newest snapshot and the batches after it, as they are learnt now. Everything below
/// `high_watermark` is committed.
pub(crate) fn rebuild_producers(
    log: &mut Log,
    high_watermark: Offset,
    now_ms: i64,
) -> Result<ProducerTable, ReadError> {
    let snapshot = log
        .latest_snapshot(log.log_end())
        .and_then(|(offset, bytes)| match ProducerTable::decode(&bytes) {
            Ok(table) => Some((offset, table)),
            Err(error) => {
                tracing::warn!(%error, "ignoring a producer snapshot; reading the log instead");
                None
            }
        });
    let (from, mut table) = snapshot.unwrap_or((log.log_start(), ProducerTable::default()));
    let view = log.view();
    let mut since = 0;
    for header in view.headers(from.max(log.log_start())) {
        let header = header?;
        table.replay(&header, end_marker(&view, &header)?, now_ms);
        since += 1;
        if since == PRUNE_EVERY {
            since = 0;
            table.committed(high_watermark);
        }
    }
    table.committed(high_watermark);
    Ok(table)
}

/// What a control batch says: the one thing about producers that no header tells.
fn end_marker(view: &ReadView, header: &BatchHeader) -> Result<Option<EndMarker>, ReadError> {
    if !header.is_control() {
        return Ok(None);
    }
    let (at, end) = (
        header.base_offset.max(view.log_start()),
        header.next_offset(),
    );
    let ReadOutcome::Slice(slice) = view.read(at, 1, end, true, ReadMode::Blocking, None)? else {
        unreachable!("a read that may block does not say that it would")
    };
    let said = StoredBatch::split_from(&slice.bytes).and_then(|batch| batch.end_marker());
    Ok(said.unwrap_or_else(|error| {
        tracing::warn!(
            offset = %header.base_offset, %error,
            "ignoring a control batch that this version does not understand"
        );
        None
    }))
}

/// Removes a directory, durably, if it is there. Blocking.
pub(crate) fn remove(vfs: &dyn Vfs, dir: &Path) -> Result<(), VfsError> {
    if vfs.exists(dir)? {
        vfs.remove_dir_all(dir)?;
        if let Some(parent) = dir.parent() {
            vfs.sync_dir(parent)?;
        }
    }
    Ok(())
}
