//! Transactions of sends and polls in any order: committed, aborted, or left behind by a producer that stops in the
//! middle, whose successor has the same transactional id.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use varve_client::{Consumer, TransactionError};

use crate::consumers::{self, Eyes, bounds, open, record, seek};
use crate::random::Random;
use crate::txns::{Ghost, Session, Txn};
use crate::{Shared, told};

/// Producers read as processes from here on.
const READERS: u32 = 100;
/// A poll brings something in this time, or nothing.
const POLL: Duration = Duration::from_millis(50);
/// Records of a transaction, about.
const RECORDS: u32 = 3;

struct Worker {
    shared: Arc<Shared>,
    number: u32,
    random: Random,
    consumer: Option<Consumer>,
    /// Who had the transactional id before, and does not know that somebody else has it.
    ghost: Option<Ghost>,
}

/// What becomes of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    Commit,
    Abort,
    Crash,
}

/// How long until the next transaction is to begin, when so many workers make a rate of records.
pub fn pace(shared: &Shared, workers: u32) -> Duration {
    Duration::from_secs(1) * workers.max(1) * RECORDS / shared.config.rates().1.max(1)
}

pub fn start(shared: &Arc<Shared>, stopped: &watch::Receiver<bool>, tasks: &mut JoinSet<()>) {
    for number in 0..shared.config.transactional {
        let worker = Worker {
            shared: shared.clone(),
            number,
            random: Random::new(shared.config.seed ^ 0x7a50 ^ (u64::from(number) << 40)),
            consumer: None,
            ghost: None,
        };
        tasks.spawn(worker.run(stopped.clone()));
    }
}

impl Worker {
    async fn run(mut self, mut stopped: watch::Receiver<bool>) {
        while let Some(session) = Session::open(&self.shared, self.number, &mut stopped).await {
            self.live(session, &mut stopped).await;
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
        let end = Instant::now() + life;
        let mut count = 0;
        while Instant::now() < end {
            tokio::select! {
                _ = ticks.tick() => {}
                () = told(stopped) => break,
            }
            let Ok(mut txn) = session.begin() else {
                return;
            };
            let (fate, whole) = (self.fate(), self.fill(&session, &mut txn).await);
            if fate == Fate::Crash && whole.is_ok() {
                self.wake().await;
                self.ghost = Some(session.freeze(txn, &mut self.random));
                return;
            }
            let (_, usable) = session
                .end(txn, fate == Fate::Commit && whole.is_ok())
                .await;
            if !usable {
                return;
            }
            count += 1;
            if count == 3 {
                self.wake().await;
            }
        }
        session.close().await;
    }

    /// The predecessor does what it was about to do.
    async fn wake(&mut self) {
        if let Some(ghost) = self.ghost.take() {
            ghost.wake().await;
        }
    }

    fn fate(&mut self) -> Fate {
        match self.random.below(60) {
            0 => Fate::Crash,
            1..=15 => Fate::Abort,
            _ => Fate::Commit,
        }
    }

    /// One to four times, polls or sends.
    async fn fill(&mut self, session: &Session, txn: &mut Txn) -> Result<(), TransactionError> {
        for _ in 0..=self.random.below(4) {
            if self.random.below(3) == 0 {
                self.poll(txn.number).await;
                continue;
            }
            for _ in 0..=self.random.below(3) {
                let places = u64::try_from(self.shared.config.places()).unwrap_or(1);
                let place = i32::try_from(self.random.below(places)).unwrap_or(0);
                session.send(txn, place, &mut self.random, None).await?;
            }
        }
        Ok(())
    }

    async fn poll(&mut self, txn: u64) {
        let (config, recorder) = (&self.shared.config, &self.shared.recorder);
        let process = READERS + self.number;
        let eyes = Eyes {
            txn: Some(txn),
            ..Eyes::of(process)
        };
        if let Some(consumer) = &mut self.consumer {
            match timeout(POLL, consumer.next_batch()).await {
                Ok(Ok(Some(batch))) => {
                    record(config, recorder, eyes, &batch);
                }
                Ok(Ok(None)) => self.consumer = None,
                Ok(Err(error)) => {
                    consumers::failed(config, recorder, process, &error);
                    self.consumer = None;
                }
                Err(_) => {}
            }
            return;
        }
        let Ok(client) = config.client(process.wrapping_add(self.random.below(64) as u32)) else {
            return;
        };
        // What others do now is worth more than what was long ago.
        let opened = async {
            let bounds = bounds(config, &client).await?;
            let ends: Vec<i64> = bounds.into_iter().map(|(_, end)| end).collect();
            open(config, client.clone(), &ends, None).await
        };
        if let Ok(Ok(consumer)) = timeout(Duration::from_secs(2), opened).await {
            for place in 0..config.places() {
                seek(recorder, process, place, None);
            }
            self.consumer = Some(consumer);
        }
    }
}
