//! Readers: each of all partitions, from one place after the other, through one node after the other. Beside them
//! somebody asks where the logs end, and a group commits how far a reader is.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use varve_check::Event;
use varve_client::consumer::resolve;
use varve_client::proto as v1;
use varve_client::{
    Admin, Assignment, Client, ClientError, Consumer, ConsumerConfig, End, FetchedBatch, Isolation,
    RpcError, Start,
};
use varve_types::ErrorKind;

use crate::payload::Payload;
use crate::random::Random;
use crate::{Config, Recorder, Shared, told};

const PAUSE: Duration = Duration::from_millis(200);
/// Leaders have this long to say where logs end.
const ENDS_WITHIN: Duration = Duration::from_secs(10);
/// Processes that are no readers.
const ASKER: u32 = 1_000;
/// The reader of records that are not committed.
const UNCOMMITTED: u32 = 500;

pub fn start(shared: &Arc<Shared>, stopped: &watch::Receiver<bool>, tasks: &mut JoinSet<()>) {
    let (config, seed) = (&shared.config, shared.config.seed);
    let uncommitted = config.kind.has_transactions().then_some(UNCOMMITTED);
    for process in (0..config.consumers).chain(uncommitted) {
        let reader = Reader {
            shared: shared.clone(),
            process,
            uncommitted: uncommitted == Some(process),
            random: Random::new(seed ^ 0x5eed ^ (u64::from(process) << 40)),
            positions: vec![0; usize::try_from(config.places()).unwrap_or(0)],
            committed: Vec::new(),
        };
        tasks.spawn(reader.run(stopped.clone()));
    }
    tasks.spawn(ask(shared.clone(), stopped.clone()));
}

struct Reader {
    shared: Arc<Shared>,
    process: u32,
    /// It is given records of transactions before these end.
    uncommitted: bool,
    random: Random,
    /// Where the next batch of each partition begins.
    positions: Vec<i64>,
    /// What was tried to commit last, by partition.
    committed: Vec<i64>,
}

/// Where every partition begins and ends now, the end also for readers that do not see it yet.
///
/// # Errors
/// When some leader does not answer in time.
pub async fn bounds(config: &Config, client: &Client) -> Result<Vec<(i64, i64)>, ClientError> {
    let all = (0..config.places()).map(|place| {
        let (topic, partition) = config.place(place);
        Assignment {
            topic: topic.clone(),
            partition,
            start: Start::Earliest,
            end: End::CurrentEnd,
        }
    });
    let all: Vec<_> = all.collect();
    let found = resolve(client, ENDS_WITHIN, &all).await?;
    let bounds = found.iter();
    Ok(bounds
        .map(|found| (found.start, found.end.unwrap_or(0)))
        .collect())
}

/// A consumer of all partitions from these positions on.
pub async fn open(
    config: &Config,
    client: Client,
    positions: &[i64],
    ends: Option<&[i64]>,
) -> Result<Consumer, ClientError> {
    let mut all = Vec::new();
    for (place, position) in (0_i32..).zip(positions) {
        let end = ends.and_then(|ends| ends.get(place as usize));
        if end.is_some_and(|end| position >= end) {
            continue;
        }
        let (topic, partition) = config.place(place);
        all.push(Assignment {
            topic: topic.clone(),
            partition,
            start: Start::Offset(*position),
            end: end.map_or(End::Never, |end| End::Offset(*end)),
        });
    }
    let settings = ConsumerConfig {
        open_timeout: Duration::from_secs(5),
        ..ConsumerConfig::default()
    };
    Consumer::open(client, settings, all).await
}

/// Who is given a batch, and how it sees records of transactions.
#[derive(Debug, Clone, Copy)]
pub struct Eyes {
    pub process: u32,
    /// Also what is not committed.
    pub uncommitted: bool,
    /// The transaction that the batch is read in.
    pub txn: Option<u64>,
}

impl Eyes {
    /// Somebody who reads committed records, in no transaction.
    pub const fn of(process: u32) -> Self {
        Self {
            process,
            uncommitted: false,
            txn: None,
        }
    }
}

/// What a batch held.
#[derive(Debug)]
pub struct Seen {
    pub place: i32,
    /// Where the partition goes on.
    pub next: i64,
    pub epoch: i64,
    /// Offset and value of each record.
    pub records: Vec<(i64, u64)>,
}

/// Writes a batch down.
pub fn record(config: &Config, recorder: &Recorder, eyes: Eyes, batch: &FetchedBatch) -> Seen {
    let process = eyes.process;
    let place = config.place_of(&batch.topic, batch.partition.0);
    let ns = recorder.ns();
    let corrupt = |offset: i64, what: String| {
        recorder.event(Event::Corrupt {
            process,
            ns,
            partition: place,
            offset,
            what,
        });
    };
    let base = batch.batch.header.base_offset.get();
    let mut found = Vec::new();
    match batch.records() {
        Err(error) => corrupt(base, error.to_string()),
        Ok(mut records) => loop {
            let record = match records.next_ref() {
                Ok(Some(record)) => record,
                Ok(None) => break,
                Err(error) => {
                    corrupt(base, error.to_string());
                    break;
                }
            };
            let offset = record.offset.get();
            match Payload::read(config.run, place, record.key, record.value) {
                Ok(value) => found.push((offset, value)),
                Err(what) => corrupt(offset, what),
            }
        },
    }
    let epoch = i64::from(batch.batch.header.leader_epoch.get());
    if !found.is_empty() {
        recorder.event(Event::Poll {
            process,
            ns,
            partition: place,
            epoch,
            high_watermark: batch.high_watermark,
            records: found.clone(),
            uncommitted: eyes.uncommitted,
            txn: eyes.txn,
        });
    }
    Seen {
        place,
        next: batch.next_offset,
        epoch,
        records: found,
    }
}

/// Says that a process goes elsewhere in a partition.
pub fn seek(recorder: &Recorder, process: u32, partition: i32, offset: Option<i64>) {
    recorder.event(Event::Seek {
        process,
        ns: recorder.ns(),
        partition,
        offset,
    });
}

/// Writes down that a reader failed: damage is evidence; what comes and goes with nodes is not.
pub fn failed(config: &Config, recorder: &Recorder, process: u32, error: &ClientError) {
    if let ClientError::Corrupt {
        partition,
        offset,
        source,
    } = error
    {
        recorder.event(Event::Corrupt {
            process,
            ns: recorder.ns(),
            partition: config.place_of(&partition.topic, partition.partition.0),
            offset: *offset,
            what: source.to_string(),
        });
    } else if !error.is_retryable() {
        recorder.note(format!("reader {process}: {error}"));
    }
}

/// Reads what a group has committed in a partition, once nothing undecided may change it any more. `None`: nothing,
/// or nobody answered.
pub async fn committed(
    config: &Config,
    recorder: &Recorder,
    client: &Client,
    group: &str,
    place: i32,
) -> Result<Option<i64>, ClientError> {
    let (topic, partition) = config.place(place);
    let (op, ns) = (recorder.number(), recorder.ns());
    recorder.event(Event::Committed {
        op,
        ns,
        group: group.to_owned(),
        partition: place,
    });
    let request = v1::GetOffsetsRequest {
        group: group.to_owned(),
        partitions: vec![v1::TopicPartition {
            topic: topic.to_string(),
            partition,
        }],
        include_lag: false,
        require_stable: true,
    };
    let found = Admin::new(client.clone()).get_offsets(request).await;
    let offset = match found {
        Ok(found) => Ok(found.offsets.first().map(|o| o.offset)),
        // A group that nobody has committed for does not exist.
        Err(error) if error.kind() == Some(ErrorKind::GroupNotFound) => Ok(None),
        Err(error) => Err(error),
    };
    recorder.answer(op, offset.as_ref().map(|offset| *offset));
    offset
}

impl Reader {
    async fn run(mut self, mut stopped: watch::Receiver<bool>) {
        for place in 0..self.shared.config.places() {
            self.seek(place, 0);
        }
        self.committed = vec![0; self.positions.len()];
        let mut turn = 0;
        while !*stopped.borrow() {
            turn += 1;
            let first = self.process.wrapping_add(turn);
            let isolation = match self.uncommitted {
                true => Isolation::Uncommitted,
                false => Isolation::Committed,
            };
            let opened = match self.shared.config.client_seeing(first, isolation) {
                Ok(client) => tokio::select! {
                    opened = open(&self.shared.config, client.clone(), &self.positions, None) => {
                        opened.map(|consumer| (client, consumer))
                    }
                    () = told(&mut stopped) => return,
                },
                Err(error) => Err(error),
            };
            match opened {
                Ok((client, consumer)) => self.read(client, consumer, &mut stopped).await,
                Err(error) => {
                    tracing::debug!(process = self.process, %error, "no consumer");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    fn seek(&mut self, partition: i32, offset: i64) {
        if let Some(position) = self.positions.get_mut(partition as usize) {
            *position = offset;
        }
        seek(&self.shared.recorder, self.process, partition, Some(offset));
    }

    /// Reads for a while; then the reader may go elsewhere.
    async fn read(
        &mut self,
        client: Client,
        mut consumer: Consumer,
        stopped: &mut watch::Receiver<bool>,
    ) {
        let shared = self.shared.clone();
        let (config, recorder) = (&shared.config, &shared.recorder);
        let life =
            config.life.mul_f64(0.2) + config.life.mul_f64(self.random.below(100) as f64 / 100.0);
        let eyes = Eyes {
            uncommitted: self.uncommitted,
            ..Eyes::of(self.process)
        };
        let end = tokio::time::sleep_until(Instant::now() + life);
        tokio::pin!(end);
        let mut commits = tokio::time::interval(Duration::from_millis(700));
        commits.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                batch = consumer.next_batch() => match batch {
                    Ok(Some(batch)) => {
                        let seen = record(config, recorder, eyes, &batch);
                        if let Some(position) = self.positions.get_mut(seen.place as usize) {
                            *position = seen.next;
                        }
                    }
                    // It has no end: asked again, from where it was.
                    Ok(None) => return tokio::time::sleep(PAUSE).await,
                    Err(error) => {
                        failed(config, recorder, self.process, &error);
                        return tokio::time::sleep(PAUSE).await;
                    }
                },
                _ = commits.tick() => self.commit(&client).await,
                () = &mut end => break,
                () = told(stopped) => return,
            }
        }
        for place in 0..config.places() {
            if self.random.below(3) == 0 {
                let reached = self.positions[place as usize];
                let to = self.random.below(u64::try_from(reached).unwrap_or(0) + 1);
                self.seek(place, i64::try_from(to).unwrap_or(0));
            }
        }
    }

    /// Commits how far it is in one partition, or reads what was committed.
    async fn commit(&mut self, client: &Client) {
        let shared = self.shared.clone();
        let (config, recorder) = (&shared.config, &shared.recorder);
        let at = self.random.below(self.positions.len() as u64) as usize;
        let place = i32::try_from(at).unwrap_or(0);
        let (topic, partition) = config.place(place);
        let group = format!("{}-{}", config.topic, self.process);
        let offset = self.positions[at];
        if offset <= self.committed[at] || self.random.below(2) != 0 {
            // What comes of it is in the history.
            let _ = committed(config, recorder, client, &group, place).await;
            return;
        }
        self.committed[at] = offset;
        let (op, ns) = (recorder.number(), recorder.ns());
        recorder.event(Event::Commit {
            op,
            ns,
            group: group.clone(),
            partition: place,
            offset,
            member: None,
        });
        let request = v1::CommitOffsetsRequest {
            group,
            offsets: vec![v1::PartitionCommit {
                topic_partition: Some(v1::TopicPartition {
                    topic: topic.to_string(),
                    partition,
                }),
                offset,
                ..Default::default()
            }],
            ..Default::default()
        };
        let admin = Admin::new(client.clone());
        let committed = admin.commit_offsets(request).await.and_then(|response| {
            let failure = response.failures.into_iter().find_map(|f| f.error);
            failure.map_or(
                Ok(None),
                |error| Err(RpcError::from_partition(error).into()),
            )
        });
        recorder.answer(op, committed.as_ref().map(|none| *none));
    }
}

/// Asks where logs end.
async fn ask(shared: Arc<Shared>, mut stopped: watch::Receiver<bool>) {
    let (config, recorder) = (&shared.config, &shared.recorder);
    let mut random = Random::new(config.seed ^ 0xa5c);
    // What one client was told it must never be told to be less; another client knows nothing of it.
    let (Ok(first), Ok(second)) = (config.client(0), config.client(1)) else {
        return;
    };
    let clients = [first, second];
    for turn in 0_usize.. {
        let places = u64::try_from(config.places()).unwrap_or(1);
        let (process, place) = (
            ASKER + turn as u32 % 2,
            i32::try_from(random.below(places)).unwrap_or(0),
        );
        let (topic, partition) = config.place(place);
        let client = clients[turn % clients.len()].clone();
        let op = recorder.number();
        let ns = recorder.ns();
        recorder.event(Event::End {
            op,
            ns,
            process,
            partition: place,
        });
        let latest = v1::start_position::Position::Anchor(v1::StartAnchor::Latest.into());
        let query = v1::OffsetQuery {
            isolation: v1::Isolation::Unspecified.into(),
            with_timestamp: false,
            topic_partition: Some(v1::TopicPartition {
                topic: topic.to_string(),
                partition,
            }),
            position: Some(v1::StartPosition {
                position: Some(latest),
            }),
        };
        let admin = Admin::new(client);
        let asked = admin.list_offsets(vec![query]);
        let found = tokio::select! {
            found = asked => found,
            () = told(&mut stopped) => return,
        };
        let end = match found.first() {
            Some(Ok(found)) => Ok(Some(found.high_watermark)),
            Some(Err(error)) => Err(error),
            None => Ok(None),
        };
        recorder.answer(op, end);
        tokio::select! {
            () = tokio::time::sleep(PAUSE) => {}
            () = told(&mut stopped) => return,
        }
    }
}
