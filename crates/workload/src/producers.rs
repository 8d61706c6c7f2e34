//! Producers. Each lives for a while, with several sends under way, and then ends: in order, or as a process ends
//! that is killed. The next one takes its place with a session of its own.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use varve_check::{Acks, Event};
use varve_client::{ClientError, DeliveryHandle, Producer, ProducerConfig, RecordAck, RecordRef};

use crate::payload::Payload;
use crate::random::Random;
use crate::{Shared, told};

/// What keeps a producer from sending is waited out for this long.
const PAUSE: Duration = Duration::from_millis(100);
/// Keys in a partition.
pub const KEYS: u64 = 8;

/// What a producer asks for.
#[derive(Debug, Clone, Copy)]
pub struct Manner {
    pub acks: Acks,
    pub idempotent: bool,
}

pub fn start(shared: &Arc<Shared>, stopped: &watch::Receiver<bool>, tasks: &mut JoinSet<()>) {
    let idempotent = |_| Manner {
        acks: Acks::All,
        idempotent: true,
    };
    let plain = |n: u32| Manner {
        acks: if n.is_multiple_of(2) {
            Acks::All
        } else {
            Acks::Leader
        },
        idempotent: false,
    };
    let config = &shared.config;
    let manners = (0..config.producers)
        .map(idempotent)
        .chain((0..config.plain_producers).map(plain));
    for (number, manner) in (0_u32..).zip(manners) {
        let worker = Worker {
            shared: shared.clone(),
            number,
            manner,
            random: Random::new(config.seed ^ (u64::from(number) << 32)),
        };
        tasks.spawn(worker.run(stopped.clone()));
    }
}

struct Worker {
    shared: Arc<Shared>,
    number: u32,
    manner: Manner,
    random: Random,
}

type UnderWay = FuturesUnordered<std::pin::Pin<Box<dyn Future<Output = Answer> + Send>>>;
type Answer = (u64, Result<RecordAck, ClientError>);

async fn answer(op: u64, handle: DeliveryHandle) -> Answer {
    (op, handle.await)
}

/// The settings of a producer of that manner.
pub fn settings(manner: Manner, delivery_timeout: Duration) -> ProducerConfig {
    ProducerConfig {
        acks: match manner.acks {
            Acks::All => varve_types::Acks::All,
            Acks::Leader => varve_types::Acks::Leader,
            Acks::None => varve_types::Acks::None,
        },
        idempotent: manner.idempotent,
        linger: Duration::from_millis(2),
        batch_bytes: 16 * 1024,
        delivery_timeout,
        ..ProducerConfig::default()
    }
}

impl Worker {
    async fn run(mut self, mut stopped: watch::Receiver<bool>) {
        while !*stopped.borrow() {
            let session = self.shared.session();
            let config = &self.shared.config;
            let settings = settings(self.manner, config.delivery_timeout);
            // Other connections every time: a new process has none.
            let opened = config
                .client(self.number.wrapping_add(session))
                .and_then(|client| Producer::new(client, settings));
            match opened {
                Ok(producer) => self.live(session, producer, &mut stopped).await,
                Err(error) => {
                    self.shared.recorder.note(format!("no producer: {error}"));
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    /// One life.
    async fn live(
        &mut self,
        session: u32,
        producer: Producer,
        stopped: &mut watch::Receiver<bool>,
    ) {
        let config = &self.shared.config;
        let workers = config.producers + config.plain_producers;
        let every = Duration::from_secs(1) * workers.max(1) / config.rates().0;
        let mut ticks = tokio::time::interval(every);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let life =
            config.life.mul_f64(0.5) + config.life.mul_f64(self.random.below(100) as f64 / 100.0);
        let end = tokio::time::sleep_until(Instant::now() + life);
        tokio::pin!(end);
        let in_flight = config.in_flight;
        let mut under_way = UnderWay::new();
        let graceful = loop {
            tokio::select! {
                _ = ticks.tick(), if under_way.len() < in_flight => {
                    let sent = tokio::select! {
                        sent = self.send(session, &producer, &mut under_way) => sent,
                        () = told(stopped) => break true,
                    };
                    if sent.is_err() {
                        tokio::time::sleep(PAUSE).await;
                    }
                    if matches!(sent, Err(ClientError::Closed)) {
                        break false;
                    }
                }
                Some((op, result)) = under_way.next() => self.answered(op, &result),
                () = &mut end => break self.random.below(2) == 0,
                () = told(stopped) => break true,
            }
        };
        if graceful {
            self.drain(&mut under_way).await;
        }
        // What is under way now stays unanswered: nobody knows what became of it.
        drop(producer);
    }

    async fn send(
        &mut self,
        session: u32,
        producer: &Producer,
        under_way: &mut UnderWay,
    ) -> Result<(), ClientError> {
        let (recorder, config) = (&self.shared.recorder, &self.shared.config);
        let partitions = u64::try_from(config.partitions).unwrap_or(1);
        let partition = i32::try_from(self.random.below(partitions)).unwrap_or(0);
        let payload = Payload {
            run: config.run,
            partition,
            key: self.random.below(KEYS),
            value: recorder.number(),
            bytes: self.random.below(config.record_bytes),
        };
        let op = recorder.number();
        recorder.event(Event::Send {
            op,
            ns: recorder.ns(),
            session,
            partition,
            key: payload.key,
            value: payload.value,
            acks: self.manner.acks,
            idempotent: self.manner.idempotent,
            txn: None,
            source: None,
        });
        let (key, value) = (Payload::key_bytes(payload.key), payload.value_bytes());
        let record = RecordRef {
            partition: Some(partition),
            key: Some(&key),
            value: Some(&value),
            ..RecordRef::default()
        };
        match producer.send(&config.topic, record).await {
            Ok(handle) => {
                under_way.push(Box::pin(answer(op, handle)));
                Ok(())
            }
            Err(error) => {
                recorder.sent(op, Err(&error));
                Err(error)
            }
        }
    }

    fn answered(&self, op: u64, result: &Result<RecordAck, ClientError>) {
        let offset = result
            .as_ref()
            .map(|ack| ack.offset.map(|offset| offset.get()));
        self.shared.recorder.sent(op, offset);
    }

    /// Everything under way is answered, or has had its time.
    async fn drain(&self, under_way: &mut UnderWay) {
        let patience = self.shared.config.delivery_timeout + Duration::from_secs(5);
        let all = async {
            while let Some((op, result)) = under_way.next().await {
                self.answered(op, &result);
            }
        };
        let _ = tokio::time::timeout(patience, all).await;
    }
}
