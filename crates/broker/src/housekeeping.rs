//! What happens by time: flushes of topics that flush by time, retention, free space.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use varve_broker_api::{Error, Result};
use varve_types::ErrorKind;
use varve_vfs::Vfs;

use crate::config::BrokerConfig;
use crate::inbox::Inbox;
use crate::lane::Command;
use crate::metrics::Metrics;
use crate::partition::Partition;
use crate::work::blocking;

/// How often lanes are told that time has passed.
const TICK: Duration = Duration::from_millis(500);
/// Ticks between looks at the disk.
const SPACE_TICKS: u64 = 4;

/// Whether writes are refused for lack of space. Reads never are.
#[derive(Debug)]
pub(crate) struct Space {
    vfs: Arc<dyn Vfs>,
    config: Arc<BrokerConfig>,
    metrics: Metrics,
    refuses: AtomicBool,
}

impl Space {
    pub(crate) fn new(vfs: Arc<dyn Vfs>, config: Arc<BrokerConfig>, metrics: Metrics) -> Self {
        let space = Self {
            vfs,
            config,
            metrics,
            refuses: AtomicBool::new(false),
        };
        space.look();
        space
    }

    /// Looks at the disk.
    pub(crate) fn look(&self) {
        let space = match self.vfs.free_space(&self.config.data_dir) {
            Ok(space) => space,
            Err(error) => {
                tracing::warn!(%error, "cannot read the free disk space");
                return;
            }
        };
        let share = space.total / 100 * self.config.min_free_percent;
        // The smaller of the two, so that a small disk can be used and a large one keeps a reserve.
        let reserve = self.config.min_free_bytes.min(share);
        let refuses = space.available < reserve;
        if self.refuses.swap(refuses, Ordering::Relaxed) != refuses {
            if refuses {
                tracing::error!(
                    free = space.available,
                    reserve,
                    "disk space is low: writes are refused"
                );
            } else {
                tracing::info!(
                    free = space.available,
                    "there is disk space again: writes are accepted"
                );
            }
        }
        let level = if refuses {
            2
        } else {
            i64::from(space.available < reserve.saturating_mul(2))
        };
        self.metrics.space_alert.set(level);
        self.metrics
            .disk_total_bytes
            .set(i64::try_from(space.total).unwrap_or(i64::MAX));
        self.metrics
            .disk_free_bytes
            .set(i64::try_from(space.available).unwrap_or(i64::MAX));
    }

    /// Size of the data directory's file system and what is free of that, bytes; `None`: it does not say. May block.
    pub(crate) fn measure(&self) -> Option<(u64, u64)> {
        let space = self.vfs.free_space(&self.config.data_dir).ok()?;
        Some((space.total, space.available))
    }

    pub(crate) fn refuses(&self) -> bool {
        self.refuses.load(Ordering::Relaxed)
    }

    /// Refuses an append while space is below the reserve.
    pub(crate) fn check(&self, partition: &Partition) -> Result<()> {
        if !self.refuses() {
            return Ok(());
        }
        let text = format!(
            "the disk of this node is below its reserve, so partition {} takes no records; nothing \
             was appended; free disk space or reduce retention",
            partition.id
        );
        Err(Error::new(ErrorKind::StorageFull, text).after(Duration::from_secs(5)))
    }
}

/// Runs until dropped.
pub(crate) async fn run(lanes: Arc<[Arc<Inbox<Command>>]>, space: Arc<Space>) {
    let mut ticks = 0u64;
    let every = space.config.housekeeping_interval.as_millis() / TICK.as_millis();
    let every = u64::try_from(every).unwrap_or(u64::MAX).max(1);
    let mut interval = tokio::time::interval(TICK);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        ticks += 1;
        for lane in lanes.iter() {
            let _ = lane.push(Command::Tick);
            if ticks.is_multiple_of(every) {
                let _ = lane.push(Command::Housekeeping);
            }
        }
        if ticks.is_multiple_of(SPACE_TICKS) {
            let space = Arc::clone(&space);
            let workers = space.config.workers.clone();
            let _ = blocking(&workers, move || space.look()).await;
        }
    }
}
