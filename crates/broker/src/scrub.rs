//! The scrub: every byte of every log is looked at again, slowly, so that damage in records that nobody reads is
//! found while there is still something to be done about it.
//!
//! Invariants: it reads at most at its rate, changes nothing but its own file, and goes on after a restart where
//! it was. What it finds is noted on the partition, exactly as damage that a read meets.
//!
//! [`Scrubber::step`] is a plain function; the thread around it is [`ScrubThread`].

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry as MetricsRegistry, Unit};
use varve_storage::{Damage, ReadError, ReadMode, ScrubStep, SegmentScrub};
use varve_types::{Offset, TopicId};
use varve_vfs::{Clock, Tick, Vfs};

use crate::config::BrokerConfig;
use crate::partition::Partition;
use crate::registry::Registry;
use crate::scrub_file::{self, Place, Progress};
use crate::storage_health::ScrubStatus;

/// Bytes of one step.
const STEP_BYTES: u64 = 256 * 1024;
/// Between two steps, however little they have read.
const LEAST_WAIT: Duration = Duration::from_millis(1);
/// How often the place is written down, at least.
const SAVE_EVERY: Duration = Duration::from_secs(30);
/// Longest sleep while nothing is due: the wall clock may be set meanwhile.
const IDLE: Duration = Duration::from_secs(60);

/// What the scrub tells.
#[derive(Debug, Clone, Default)]
pub(crate) struct ScrubMetrics {
    bytes: Counter,
    finds: Counter,
    progress: Gauge<f64, AtomicU64>,
    last_pass: Gauge<f64, AtomicU64>,
}

impl ScrubMetrics {
    pub(crate) fn register(&self, r: &mut MetricsRegistry) {
        let m = self.clone();
        r.register("scrub_bytes", "Bytes read by the scrub", m.bytes);
        r.register(
            "scrub_damage",
            "Damaged places that the scrub found first; must be 0",
            m.finds,
        );
        r.register(
            "scrub_pass_progress_ratio",
            "Fraction of the data that the current scrub pass has read; 1 while no pass is due",
            m.progress,
        );
        r.register_with_unit(
            "scrub_last_pass_timestamp",
            "Unix time at which the last complete scrub pass ended; 0 if none has",
            Unit::Seconds,
            m.last_pass,
        );
    }
}

/// The state of the scrub.
pub(crate) struct Scrubber {
    vfs: Arc<dyn Vfs>,
    clock: Arc<dyn Clock>,
    config: Arc<BrokerConfig>,
    registry: Arc<Registry>,
    metrics: ScrubMetrics,
    progress: Progress,
    /// A pass is under way; else it waits for the next one to be due.
    running: bool,
    /// The segment that is being looked at.
    current: Option<(Place, Arc<Partition>, SegmentScrub)>,
    saved: Tick,
    standing: Arc<Mutex<ScrubStatus>>,
    /// What was damaged before the start is still to be looked at.
    remembers: bool,
}

impl Scrubber {
    pub(crate) fn new(
        vfs: Arc<dyn Vfs>,
        clock: Arc<dyn Clock>,
        config: Arc<BrokerConfig>,
        registry: Arc<Registry>,
        metrics: ScrubMetrics,
    ) -> Self {
        let stored = scrub_file::load(&*vfs, &config.data_dir);
        let progress = stored.unwrap_or_else(|| Progress::new(clock.wall_ms()));
        // A pass that was broken off has a place to go on from.
        let running = progress.last_pass_ms.is_none() || progress.next != Place::FIRST;
        let scrubber = Self {
            saved: clock.now(),
            vfs,
            clock,
            config,
            registry,
            metrics,
            progress,
            running,
            current: None,
            standing: Arc::default(),
            remembers: true,
        };
        scrubber.tell();
        scrubber
    }

    pub(crate) fn standing(&self) -> Arc<Mutex<ScrubStatus>> {
        Arc::clone(&self.standing)
    }

    /// Partitions in the order of the scrub.
    fn partitions(&self) -> Vec<(TopicId, Arc<Partition>)> {
        let view = self.registry.view();
        let mut all: Vec<(TopicId, Arc<Partition>)> = view
            .topics
            .values()
            .flat_map(|t| t.partitions.values().map(|p| (t.info.id, Arc::clone(p))))
            .collect();
        all.sort_by_key(|(topic, p)| (*topic, p.id.partition));
        all
    }

    /// What was damaged when the node stopped is told again at once, if it still is.
    fn look_at_known(&mut self) {
        let partitions = self.partitions();
        for (topic, number, offset) in std::mem::take(&mut self.progress.damaged) {
            let found = partitions
                .iter()
                .find(|(t, p)| (*t, p.id.partition) == (topic, number));
            let Some((_, partition)) = found else {
                continue;
            };
            let Ok(view) = partition.view() else { continue };
            let read = view.read(offset, 1, view.log_end(), true, ReadMode::Blocking, None);
            if let Err(error @ ReadError::Corrupt { .. }) = read {
                let resume = Some(view.readable_after(offset));
                let _ = crate::reader::read_error(partition, offset, &error, resume);
            }
        }
    }

    /// Does the next piece of work and says how long to wait before the one after it.
    pub(crate) fn step(&mut self) -> Duration {
        if std::mem::take(&mut self.remembers) {
            self.look_at_known();
        }
        if !self.running && !self.begin_if_due() {
            return IDLE;
        }
        let bytes = match self.current.take() {
            Some(current) => self.go_on(current),
            None => self.next_segment(),
        };
        self.metrics.bytes.inc_by(bytes);
        self.progress.pass_bytes += bytes;
        self.tell();
        if self.clock.now().since(self.saved) >= SAVE_EVERY {
            self.save();
        }
        let rate = self.config.scrub_bytes_per_second.max(1);
        Duration::from_micros(bytes.saturating_mul(1_000_000) / rate).max(LEAST_WAIT)
    }

    /// Begins a pass when the last one began long enough ago. A clock that was set back does not put it off
    /// for longer than one interval.
    fn begin_if_due(&mut self) -> bool {
        let now = self.clock.wall_ms();
        let interval = i64::try_from(self.config.scrub_interval.as_millis()).unwrap_or(i64::MAX);
        let began = self.progress.pass_began_ms.min(now);
        self.progress.pass_began_ms = began;
        if now.saturating_sub(began) < interval {
            return false;
        }
        self.progress = Progress {
            last_pass_ms: self.progress.last_pass_ms,
            ..Progress::new(now)
        };
        self.running = true;
        true
    }

    /// Looks at a piece of a segment; returns the bytes read.
    fn go_on(&mut self, current: (Place, Arc<Partition>, SegmentScrub)) -> u64 {
        let (place, partition, mut segment) = current;
        match segment.step(STEP_BYTES) {
            Ok(step) => {
                let (bytes, done) = (step.bytes, step.done);
                self.note(&partition, &step.damage);
                if done {
                    self.pass(place);
                } else {
                    self.current = Some((place, partition, segment));
                }
                bytes
            }
            Err(error) => self.failed(place, &partition, &error),
        }
    }

    /// A segment that was removed or cut under the scrub is looked at again if it is still there; an error
    /// of the disk is damage as well.
    fn failed(&mut self, place: Place, partition: &Partition, error: &ReadError) -> u64 {
        if matches!(error, ReadError::Stale) {
            let gone = partition.view().map_or(true, |view| {
                let bases = view.segments();
                place
                    .base
                    .is_none_or(|base| bases.iter().all(|(b, _)| *b != base))
            });
            if gone {
                self.pass(place);
            }
            return 0;
        }
        tracing::warn!(
            partition = %partition.id, %error,
            "the scrub cannot read part of a log; it skips that part"
        );
        self.pass(place);
        0
    }

    /// Everything up to and including `place` is done.
    fn pass(&mut self, place: Place) {
        let next = place.base.map_or(Offset::ZERO, |base| base.plus(1));
        self.progress.next = Place {
            base: Some(next),
            ..place
        };
    }

    /// Finds what is next, and looks at small files at once; ends the pass when there is nothing.
    fn next_segment(&mut self) -> u64 {
        let from = self.progress.next;
        for (topic, partition) in self.partitions() {
            let here = Place {
                topic,
                partition: partition.id.partition,
                base: None,
            };
            if (topic, here.partition) < (from.topic, from.partition) {
                continue;
            }
            // Offline or being opened: there is nothing to look through.
            let Ok(view) = partition.view() else { continue };
            if here >= from {
                let step = view.scrub_small_files().unwrap_or_else(|error| {
                    tracing::warn!(
                        partition = %partition.id, %error,
                        "the scrub cannot read the small files of a log"
                    );
                    ScrubStep::default()
                });
                self.note(&partition, &step.damage);
                self.pass(here);
                return step.bytes;
            }
            let wanted = if (topic, here.partition) == (from.topic, from.partition) {
                from.base.unwrap_or(Offset::ZERO)
            } else {
                Offset::ZERO
            };
            let Some((base, _)) = view.segments().into_iter().find(|(b, _)| *b >= wanted) else {
                continue;
            };
            let place = Place {
                base: Some(base),
                ..here
            };
            return match view.scrub(base, partition.flushed()) {
                Ok(Some(segment)) => {
                    self.progress.next = place;
                    self.current = Some((place, partition, segment));
                    0
                }
                Ok(None) => {
                    self.pass(place);
                    0
                }
                Err(error) => {
                    self.progress.next = place;
                    self.failed(place, &partition, &error)
                }
            };
        }
        self.end_pass();
        0
    }

    fn end_pass(&mut self) {
        let now = self.clock.wall_ms();
        let (bytes, damage) = (self.progress.pass_bytes, self.progress.pass_damage);
        tracing::info!(bytes, damage, "a scrub pass is complete");
        self.progress.last_pass_ms = Some(now);
        self.progress.next = Place::FIRST;
        self.running = false;
        self.save();
    }

    fn note(&mut self, partition: &Partition, damage: &[Damage]) {
        for found in damage {
            self.progress.pass_damage += 1;
            if partition.note_damage(found) {
                self.metrics.finds.inc();
            }
        }
    }

    fn tell(&self) {
        let view = self.registry.view();
        let partitions = view.partitions();
        let total: u64 = partitions.map(|p| p.size_bytes()).sum();
        let ratio = if self.running {
            (self.progress.pass_bytes as f64 / total.max(1) as f64).min(1.0)
        } else {
            1.0
        };
        self.metrics.progress.set(ratio);
        let last = self.progress.last_pass_ms;
        self.metrics
            .last_pass
            .set(last.unwrap_or(0) as f64 / 1_000.0);
        *self.standing.lock() = ScrubStatus {
            running: self.running,
            pass_bytes: self.progress.pass_bytes,
            pass_damage: self.progress.pass_damage,
            last_pass_ms: last,
        };
    }

    /// Writes down where the scrub is. A failure costs a repeated look after a restart.
    pub(crate) fn save(&mut self) {
        self.saved = self.clock.now();
        self.progress.damaged = self
            .partitions()
            .iter()
            .flat_map(|(topic, p)| {
                let starts = p.damaged().into_iter().filter_map(|d| d.offsets);
                let place = (*topic, p.id.partition);
                starts.map(move |range| (place.0, place.1, range.start))
            })
            .collect();
        if let Err(error) = scrub_file::store(&*self.vfs, &self.config.data_dir, &self.progress) {
            tracing::warn!(%error, "could not save the position of the scrub");
        }
    }
}

/// The thread that scrubs.
#[derive(Debug)]
pub(crate) struct ScrubThread {
    stop: Arc<(Mutex<bool>, Condvar)>,
    thread: JoinHandle<()>,
}

impl ScrubThread {
    pub(crate) fn start(mut scrubber: Scrubber) -> std::io::Result<Self> {
        let stop: Arc<(Mutex<bool>, Condvar)> = Arc::default();
        let told = Arc::clone(&stop);
        let builder = std::thread::Builder::new().name("varve-scrub".to_owned());
        let thread = builder.spawn(move || {
            let (stop, changed) = &*told;
            loop {
                let wait = scrubber.step();
                let mut stop = stop.lock();
                if !*stop && !wait.is_zero() {
                    changed.wait_for(&mut stop, wait);
                }
                if *stop {
                    break;
                }
            }
            scrubber.save();
        })?;
        Ok(Self { stop, thread })
    }

    /// Ends the thread after the step it is in; the next start goes on from there. Blocks.
    pub(crate) fn stop(self) {
        *self.stop.0.lock() = true;
        self.stop.1.notify_all();
        if self.thread.join().is_err() {
            tracing::error!("the scrub thread panicked");
        }
    }
}
