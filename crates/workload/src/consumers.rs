//! Readers: each of all partitions, from one place after the other, through one node after the other. Beside them
//! somebody asks where the logs end, and a group commits how far a reader is.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use varve_check::Event;
use varve_client::proto as v1;
use varve_client::{
    Admin, Assignment, Client, ClientError, Consumer, ConsumerConfig, End, FetchedBatch, RpcError,
    Start,
};

use crate::payload::Payload;
use crate::random::Random;
use crate::{Config, Recorder, Shared, told};

const PAUSE: Duration = Duration::from_millis(200);
/// Processes that are no readers.
const ASKER: u32 = 1_000;

pub fn start(shared: &Arc<Shared>, stopped: &watch::Receiver<bool>, tasks: &mut JoinSet<()>) {
    let seed = shared.config.seed;
    for process in 0..shared.config.consumers {
        let reader = Reader {
            shared: shared.clone(),
            process,
            random: Random::new(seed ^ 0x5eed ^ (u64::from(process) << 40)),
            positions: vec![0; usize::try_from(shared.config.partitions).unwrap_or(0)],
            committed: Vec::new(),
        };
        tasks.spawn(reader.run(stopped.clone()));
    }
    tasks.spawn(ask(shared.clone(), stopped.clone()));
}

struct Reader {
    shared: Arc<Shared>,
    process: u32,
    random: Random,
    /// Where the next batch of each partition begins.
    positions: Vec<i64>,
    /// What was tried to commit last, by partition.
    committed: Vec<i64>,
}

/// A consumer of all partitions from these positions on.
pub async fn open(
    config: &Config,
    client: Client,
    positions: &[i64],
    ends: Option<&[i64]>,
) -> Result<Consumer, ClientError> {
    let mut all = Vec::new();
    for (partition, position) in (0_i32..).zip(positions) {
        let end = ends.and_then(|ends| ends.get(partition as usize));
        if end.is_some_and(|end| position >= end) {
            continue;
        }
        all.push(Assignment {
            topic: config.topic.clone(),
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

/// Writes a batch down; where the partition goes on.
pub fn record(config: &Config, recorder: &Recorder, process: u32, batch: &FetchedBatch) -> i64 {
    let partition = batch.partition.0;
    let ns = recorder.ns();
    let corrupt = |offset: i64, what: String| {
        recorder.event(Event::Corrupt {
            process,
            ns,
            partition,
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
            match Payload::read(config.run, partition, record.key, record.value) {
                Ok(value) => found.push((offset, value)),
                Err(what) => corrupt(offset, what),
            }
        },
    }
    if !found.is_empty() {
        recorder.event(Event::Poll {
            process,
            ns,
            partition,
            epoch: i64::from(batch.batch.header.leader_epoch.get()),
            high_watermark: batch.high_watermark,
            records: found,
            uncommitted: false,
            txn: None,
        });
    }
    batch.next_offset
}

impl Reader {
    async fn run(mut self, mut stopped: watch::Receiver<bool>) {
        for partition in 0..self.shared.config.partitions {
            self.seek(partition, 0);
        }
        self.committed = vec![0; self.positions.len()];
        let mut turn = 0;
        while !*stopped.borrow() {
            turn += 1;
            let first = self.process.wrapping_add(turn);
            let opened = match self.shared.config.client(first) {
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
        let recorder = &self.shared.recorder;
        recorder.event(Event::Seek {
            process: self.process,
            ns: recorder.ns(),
            partition,
            offset: Some(offset),
        });
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
        let end = tokio::time::sleep_until(Instant::now() + life);
        tokio::pin!(end);
        let mut commits = tokio::time::interval(Duration::from_millis(700));
        commits.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                batch = consumer.next_batch() => match batch {
                    Ok(Some(batch)) => {
                        let next = record(config, recorder, self.process, &batch);
                        if let Some(position) = self.positions.get_mut(batch.partition.0 as usize) {
                            *position = next;
                        }
                    }
                    // It has no end: asked again, from where it was.
                    Ok(None) => return tokio::time::sleep(PAUSE).await,
                    Err(error) => {
                        self.failed(&error);
                        return tokio::time::sleep(PAUSE).await;
                    }
                },
                _ = commits.tick() => self.commit(&client).await,
                () = &mut end => break,
                () = told(stopped) => return,
            }
        }
        for partition in 0..config.partitions {
            if self.random.below(3) == 0 {
                let reached = self.positions[partition as usize];
                let to = self.random.below(u64::try_from(reached).unwrap_or(0) + 1);
                self.seek(partition, i64::try_from(to).unwrap_or(0));
            }
        }
    }

    /// Damage is evidence; what comes and goes with nodes is not.
    fn failed(&self, error: &ClientError) {
        let (recorder, process) = (&self.shared.recorder, self.process);
        if let ClientError::Corrupt {
            partition,
            offset,
            source,
        } = error
        {
            recorder.event(Event::Corrupt {
                process,
                ns: recorder.ns(),
                partition: partition.partition.0,
                offset: *offset,
                what: source.to_string(),
            });
        } else if !error.is_retryable() {
            recorder.note(format!("reader {process}: {error}"));
        }
    }

    /// Commits how far it is in one partition, or reads what was committed.
    async fn commit(&mut self, client: &Client) {
        let shared = self.shared.clone();
        let (config, recorder) = (&shared.config, &shared.recorder);
        let at = self.random.below(self.positions.len() as u64) as usize;
        let partition = i32::try_from(at).unwrap_or(0);
        let group = format!("{}-{}", config.topic, self.process);
        let topic_partition = Some(v1::TopicPartition {
            topic: config.topic.to_string(),
            partition,
        });
        let admin = Admin::new(client.clone());
        let (op, ns) = (recorder.number(), recorder.ns());
        let offset = self.positions[at];
        if offset > self.committed[at] && self.random.below(2) == 0 {
            self.committed[at] = offset;
            recorder.event(Event::Commit {
                op,
                ns,
                group: group.clone(),
                partition,
                offset,
                member: None,
            });
            let request = v1::CommitOffsetsRequest {
                group,
                offsets: vec![v1::PartitionCommit {
                    topic_partition,
                    offset,
                    ..Default::default()
                }],
                ..Default::default()
            };
            let committed = admin.commit_offsets(request).await.and_then(|response| {
                let failure = response.failures.into_iter().find_map(|f| f.error);
                failure.map_or(
                    Ok(None),
                    |error| Err(RpcError::from_partition(error).into()),
                )
            });
            recorder.answer(op, committed.as_ref().map(|none| *none));
            return;
        }
        recorder.event(Event::Committed {
            op,
            ns,
            group: group.clone(),
            partition,
        });
        let request = v1::GetOffsetsRequest {
            group,
            partitions: topic_partition.into_iter().collect(),
            include_lag: false,
            require_stable: false,
        };
        let found = admin.get_offsets(request).await;
        let offset = found
            .as_ref()
            .map(|found| found.offsets.first().map(|o| o.offset));
        // A group that nobody has committed for does not exist.
        if let Err(error) = &offset
            && error.kind() == Some(varve_types::ErrorKind::GroupNotFound)
        {
            recorder.answer(op, Ok(None));
        } else {
            recorder.answer(op, offset);
        }
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
        let (process, partition) = (
            ASKER + turn as u32 % 2,
            i32::try_from(random.below(u64::try_from(config.partitions).unwrap_or(1))).unwrap_or(0),
        );
        let client = clients[turn % clients.len()].clone();
        let op = recorder.number();
        let ns = recorder.ns();
        recorder.event(Event::End {
            op,
            ns,
            process,
            partition,
        });
        let latest = v1::start_position::Position::Anchor(v1::StartAnchor::Latest.into());
        let query = v1::OffsetQuery {
            isolation: v1::Isolation::Unspecified.into(),
            with_timestamp: false,
            topic_partition: Some(v1::TopicPartition {
                topic: config.topic.to_string(),
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
