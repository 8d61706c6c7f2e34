//! Offsets that are committed in transactions, of which about half are aborted: what was read in one that was
//! aborted must be read again, and what the group has committed must not show it.
//!
//! Every worker has a group of its own, so nobody else commits for it: what it finds committed is what it may
//! expect.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use varve_client::{
    Assignment, Client, ClientError, CommitConfig, Consumer, ConsumerConfig, End, Start,
    TransactionError,
};
use varve_types::{GroupName, PartitionId, TopicPartition};

use crate::config::named;
use crate::consumers::{self, Eyes, committed, record, seek};
use crate::mixed::{Fate, pace};
use crate::random::Random;
use crate::txns::{Ended, Ghost, Session, Txn};
use crate::{Shared, told};

/// Workers read as processes from here on.
const READERS: u32 = 200;
const PAUSE: Duration = Duration::from_millis(200);
const POLL: Duration = Duration::from_millis(50);
const OPEN_WITHIN: Duration = Duration::from_secs(5);

struct Worker {
    shared: Arc<Shared>,
    number: u32,
    group: GroupName,
    random: Random,
    consumer: Option<(Client, Consumer)>,
    ghost: Option<Ghost>,
}

/// Starts all workers.
///
/// # Errors
/// When the name of the topic is too long to name groups by it.
pub fn start(
    shared: &Arc<Shared>,
    stopped: &watch::Receiver<bool>,
    tasks: &mut JoinSet<()>,
) -> Result<(), ClientError> {
    for number in 0..shared.config.transactional {
        let group = named(&format!("{}-{number}-rewinds", shared.config.topic))?;
        let worker = Worker {
            shared: shared.clone(),
            number,
            group,
            random: Random::new(shared.config.seed ^ 0xab07 ^ (u64::from(number) << 40)),
            consumer: None,
            ghost: None,
        };
        tasks.spawn(worker.run(stopped.clone()));
    }
    Ok(())
}

impl Worker {
    const fn process(&self) -> u32 {
        READERS + self.number
    }

    async fn run(mut self, mut stopped: watch::Receiver<bool>) {
        while let Some(session) = Session::open(&self.shared, self.number, &mut stopped).await {
            self.live(session, &mut stopped).await;
            self.consumer = None;
        }
    }

    /// One life.
    async fn live(&mut self, mut session: Session, stopped: &mut watch::Receiver<bool>) {
        let config = &self.shared.config;
        let mut ticks = tokio::time::interval(pace(&self.shared, config.transactional));
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let life = config
            .life
            .mul_f64(0.5 + self.random.below(100) as f64 / 100.0);
        let (end, mut count) = (Instant::now() + life, 0);
        while Instant::now() < end {
            tokio::select! {
                _ = ticks.tick() => {}
                () = told(stopped) => break,
            }
            let opened = tokio::select! {
                opened = self.opened() => opened,
                () = told(stopped) => break,
            };
            if opened.is_err() {
                self.consumer = None;
                tokio::time::sleep(PAUSE).await;
                continue;
            }
            let Ok(mut txn) = session.begin() else {
                return;
            };
            let fate = match self.random.below(60) {
                0 => Fate::Crash,
                1..=30 => Fate::Abort,
                _ => Fate::Commit,
            };
            let whole = self.fill(&mut session, &mut txn).await;
            if fate == Fate::Crash && whole.is_ok() {
                self.wake().await;
                self.ghost = Some(session.freeze(txn, &mut self.random));
                return;
            }
            let (ended, usable) = session
                .end(txn, fate == Fate::Commit && whole.is_ok())
                .await;
            if !usable {
                return;
            }
            if ended == Ended::Aborted {
                self.rewind().await;
            }
            count += 1;
            if count == 3 {
                self.wake().await;
            }
        }
        session.close().await;
    }

    async fn wake(&mut self) {
        if let Some(ghost) = self.ghost.take() {
            ghost.wake().await;
        }
    }

    /// A consumer that begins where the group has committed.
    async fn opened(&mut self) -> Result<(), ClientError> {
        if self.consumer.is_some() {
            return Ok(());
        }
        let (config, recorder) = (&self.shared.config, &self.shared.recorder);
        let client = config.client(self.number.wrapping_add(self.random.below(64) as u32))?;
        for place in 0..config.places() {
            let group = self.group.as_str();
            let from = committed(config, recorder, &client, group, place).await?;
            seek(recorder, self.process(), place, Some(from.unwrap_or(0)));
        }
        let all = (0..config.places()).map(|place| {
            let (topic, partition) = config.place(place);
            Assignment {
                topic: topic.clone(),
                partition,
                start: Start::Offset(0),
                end: End::Never,
            }
        });
        let settings = ConsumerConfig {
            open_timeout: OPEN_WITHIN,
            ..ConsumerConfig::default()
        };
        let commits = CommitConfig {
            interval: None,
            ..CommitConfig::new(self.group.clone())
        };
        let opened = Consumer::open_in_group(client.clone(), settings, commits, all.collect());
        self.consumer = Some((client, opened.await?));
        Ok(())
    }

    /// Reads something, sends something, and commits in the transaction how far it has read.
    async fn fill(&mut self, session: &mut Session, txn: &mut Txn) -> Result<(), TransactionError> {
        let (config, recorder) = (&self.shared.config, &self.shared.recorder);
        let process = self.process();
        let eyes = Eyes {
            txn: Some(txn.number),
            ..Eyes::of(process)
        };
        for _ in 0..=self.random.below(3) {
            let Some((_, consumer)) = &mut self.consumer else {
                break;
            };
            match timeout(POLL, consumer.next_batch()).await {
                Ok(Ok(Some(batch))) => {
                    record(config, recorder, eyes, &batch);
                }
                Ok(Ok(None)) => self.consumer = None,
                Ok(Err(error)) => {
                    consumers::failed(config, recorder, process, &error);
                    self.consumer = None;
                }
                Err(_) => break,
            }
        }
        for _ in 0..=self.random.below(3) {
            let places = u64::try_from(config.places()).unwrap_or(1);
            let place = i32::try_from(self.random.below(places)).unwrap_or(0);
            session.send(txn, place, &mut self.random, None).await?;
        }
        let progress = self
            .consumer
            .as_mut()
            .and_then(|(_, consumer)| consumer.progress().ok());
        match progress {
            Some(progress) => session.progress(txn, &progress, None, |_| true).await,
            None => Ok(()),
        }
    }

    /// Goes back to what is committed, in place or by beginning anew.
    async fn rewind(&mut self) {
        let anew = self.random.below(2) == 0;
        let Some((client, mut consumer)) = self.consumer.take().filter(|_| !anew) else {
            return;
        };
        let (config, recorder) = (&self.shared.config, &self.shared.recorder);
        for place in 0..config.places() {
            let group = self.group.as_str();
            let Ok(from) = committed(config, recorder, &client, group, place).await else {
                return;
            };
            let from = from.unwrap_or(0);
            let (topic, partition) = config.place(place);
            let partition = TopicPartition::new(topic.clone(), PartitionId(partition));
            if consumer
                .seek(&partition, Start::Offset(from))
                .await
                .is_err()
            {
                return;
            }
            seek(recorder, self.process(), place, Some(from));
        }
        self.consumer = Some((client, consumer));
    }
}
