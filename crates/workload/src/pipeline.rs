//! A pipeline of several members: each record of the first topic becomes exactly one of the second. What is read,
//! what is made of it, and that it was read are committed in one transaction.
//!
//! Members share the work as a group, and each has a transactional id of its own, which its successor takes over.
//! What was read and is not in a transaction yet is forgotten when its partition goes.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use varve_client::{
    ClientError, FetchedBatch, GroupConsumer, GroupProgress, Start, TransactionError,
};

use crate::consumers::{self, Eyes, record, seek};
use crate::groups::{Group, Kept, Owner, kept};
use crate::members::{end_of_life, settings};
use crate::mixed::Fate;
use crate::random::Random;
use crate::txns::{Ended, Ghost, Session, Txn};
use crate::{Shared, told};

const PAUSE: Duration = Duration::from_millis(200);
const TURN: Duration = Duration::from_millis(200);
/// Batches of one transaction.
const BATCHES: usize = 32;
/// A member that cannot go back to what is committed in this time begins anew.
const REWIND_WITHIN: Duration = Duration::from_secs(2);
const LEAVE_WITHIN: Duration = Duration::from_secs(5);

/// A member of the pipeline, one after the other.
struct Seat {
    shared: Arc<Shared>,
    group: Arc<Group>,
    number: u32,
    random: Random,
    ghost: Option<Ghost>,
}

type Member = Owner<Vec<FetchedBatch>>;

/// Starts all members.
pub fn start(
    shared: &Arc<Shared>,
    group: &Arc<Group>,
    stopped: &watch::Receiver<bool>,
    tasks: &mut JoinSet<()>,
) {
    let config = &shared.config;
    for number in 0..config.members {
        let seat = Seat {
            shared: shared.clone(),
            group: group.clone(),
            number,
            random: Random::new(config.seed ^ 0x919e ^ (u64::from(number) << 40)),
            ghost: None,
        };
        tasks.spawn(seat.run(stopped.clone()));
    }
}

impl Seat {
    async fn run(mut self, mut stopped: watch::Receiver<bool>) {
        while let Some(session) = Session::open(&self.shared, self.number, &mut stopped).await {
            let member = self.shared.member();
            let owner = Owner {
                shared: self.shared.clone(),
                group: self.group.clone(),
                member,
                commits: false,
                kept: Kept::default(),
            };
            let settings = settings(&self.shared.config, &self.group, None);
            let client = self.shared.config.client(self.number.wrapping_add(member));
            let joined =
                client.and_then(|client| GroupConsumer::join_with(client, settings, owner.clone()));
            let Ok(mut consumer) = joined else {
                return;
            };
            match self
                .live(&owner, &mut consumer, session, &mut stopped)
                .await
            {
                Some(session) => {
                    let _ = timeout(LEAVE_WITHIN, consumer.close()).await;
                    self.group.gone(&self.shared.recorder, member);
                    session.close().await;
                }
                None => {
                    drop(consumer);
                    self.group.gone(&self.shared.recorder, member);
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// One life. The session, when the member leaves in order; otherwise it was killed.
    async fn live(
        &mut self,
        owner: &Member,
        consumer: &mut GroupConsumer,
        mut session: Session,
        stopped: &mut watch::Receiver<bool>,
    ) -> Option<Session> {
        let shared = self.shared.clone();
        let end = end_of_life(&shared.config, &mut self.random);
        let mut count = 0;
        loop {
            let read = tokio::select! {
                read = read(&shared, owner, consumer) => read,
                () = told(stopped) => return Some(session),
            };
            if read.is_err() {
                return None;
            }
            let over = Instant::now() >= end && !shared.is_draining();
            // Nothing changes hands from here to the end of the transaction: nobody calls the consumer.
            let batches = std::mem::take(&mut *kept(&owner.kept));
            if batches.is_empty() {
                match over {
                    true => return Some(session),
                    false => continue,
                }
            }
            let Ok(mut txn) = session.begin() else {
                return None;
            };
            let made = self
                .make(owner, consumer, &mut session, &mut txn, &batches)
                .await;
            let fate = self.fate(over);
            if fate == Fate::Crash && made.is_ok() {
                self.wake().await;
                self.ghost = Some(session.freeze(txn, &mut self.random));
                return None;
            }
            let (ended, usable) = session.end(txn, fate == Fate::Commit && made.is_ok()).await;
            if !usable {
                return None;
            }
            if ended == Ended::Aborted {
                let back = rewind(&shared, owner, consumer, batches.keys().copied());
                if !matches!(timeout(REWIND_WITHIN, back).await, Ok(Ok(()))) {
                    return None;
                }
            }
            count += 1;
            if count == 3 {
                self.wake().await;
            }
        }
    }

    async fn wake(&mut self) {
        if let Some(ghost) = self.ghost.take() {
            ghost.wake().await;
        }
    }

    /// Lives often end in the middle of a transaction.
    fn fate(&mut self, over: bool) -> Fate {
        match self.random.below(10) {
            0 => Fate::Abort,
            1..=5 if over => Fate::Crash,
            _ => Fate::Commit,
        }
    }

    /// Makes one record from each, and commits in the transaction how far that is.
    async fn make(
        &mut self,
        owner: &Member,
        consumer: &mut GroupConsumer,
        session: &mut Session,
        txn: &mut Txn,
        batches: &std::collections::BTreeMap<i32, Vec<FetchedBatch>>,
    ) -> Result<(), TransactionError> {
        let (config, recorder) = (&self.shared.config, &self.shared.recorder);
        let eyes = Eyes {
            txn: Some(txn.number),
            ..Eyes::of(owner.process())
        };
        for batch in batches.values().flatten() {
            let seen = record(config, recorder, eyes, batch);
            for (_, value) in seen.records {
                let some = u64::try_from(config.partitions).unwrap_or(1);
                let to = i32::try_from(self.random.below(some)).unwrap_or(0);
                let to = config.partitions + to;
                session.send(txn, to, &mut self.random, Some(value)).await?;
            }
        }
        let progress = consumer.progress();
        let progress: GroupProgress = progress.map_err(TransactionError::MustAbort)?;
        let of = |place| batches.contains_key(&place);
        session
            .progress(txn, &progress, Some(owner.member), of)
            .await
    }
}

/// Reads until there is nothing more for the moment, or enough.
async fn read(
    shared: &Shared,
    owner: &Member,
    consumer: &mut GroupConsumer,
) -> Result<(), ClientError> {
    let mut wait = TURN;
    for _ in 0..BATCHES {
        match consumer.poll(wait).await {
            Ok(Some(batch)) => {
                let place = shared.config.place_of(&batch.topic, batch.partition.0);
                kept(&owner.kept).entry(place).or_default().push(batch);
            }
            Ok(None) => break,
            Err(error) => {
                let (config, recorder) = (&shared.config, &shared.recorder);
                consumers::failed(config, recorder, owner.process(), &error);
                return Err(error);
            }
        }
        wait = Duration::ZERO;
    }
    Ok(())
}

/// Goes back to what is committed: what was read in a transaction that was aborted was not read.
async fn rewind(
    shared: &Shared,
    owner: &Member,
    consumer: &mut GroupConsumer,
    places: impl Iterator<Item = i32>,
) -> Result<(), ClientError> {
    let owned = consumer.assignment().clone();
    let places: Vec<i32> = places.collect();
    let back: Vec<_> = owned
        .iter()
        .map(|partition| {
            let place = shared
                .config
                .place_of(&partition.topic, partition.partition.0);
            (place, partition)
        })
        .filter(|(place, _)| places.contains(place))
        .collect();
    let names: Vec<_> = back.iter().map(|(_, partition)| *partition).collect();
    let committed = consumer.committed(names).await?;
    for (place, partition) in back {
        let from = committed
            .get(partition)
            .map_or(0, |committed| committed.offset);
        consumer.seek(partition, Start::Offset(from)).await?;
        seek(&shared.recorder, owner.process(), place, Some(from));
    }
    Ok(())
}
