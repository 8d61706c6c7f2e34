//! The demo itself: a group reads what a producer writes, one of its members is killed, the node is killed in the
//! middle of producing and started again, and in the end the whole log is read and held against what was sent.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, mpsc};
use varve_client::proto as v1;
use varve_client::{
    Admin, Assignment, Client, ClientConfig, ClientError, Consumer, ConsumerConfig, End, Producer,
    ProducerConfig, RecordRef, Start,
};
use varve_types::TopicName;

use super::input::Line;
use super::ledger::{Ledger, Returned};
use super::members::Event;
use super::report::Report;
use super::stage::Stage;
use super::talk::{Talk, count, grouped};
use super::{GROUP, TOPIC};
use crate::failure::{FAILED, Failure, TIMEOUT};

/// Members of the group.
const MEMBERS: usize = 3;
/// The header that carries a record's number.
const NUMBER: &str = "n";
/// Input with fewer records fits into a few batches: the producer waits once, so that there is a middle.
const FEW: usize = 5_000;
/// Time for the members to join and share the partitions.
const SETTLE: Duration = Duration::from_secs(60);
/// Without an acknowledgement or a delivery for this long, no more will come.
const SILENCE: Duration = Duration::from_secs(60);
/// How often the processes are looked at.
const LOOK: Duration = Duration::from_millis(50);
/// Answers that a killed node had already sent are read in this time.
const LAST_ANSWERS: Duration = Duration::from_millis(50);
/// Starts with other ports, if others take them first.
const STARTS: usize = 3;

/// Where each record was acknowledged, by number.
type Places = Vec<Option<(i32, i64)>>;

/// Counts that the producer keeps while it runs.
#[derive(Debug, Default)]
struct Meter {
    sent: AtomicUsize,
    acknowledged: AtomicUsize,
    /// Acknowledged records that an earlier attempt had appended already.
    repeated: AtomicUsize,
    changed: Notify,
    /// Why a record was not written.
    failure: Mutex<Option<ClientError>>,
}

impl Meter {
    fn sent(&self) -> usize {
        self.sent.load(Ordering::Acquire)
    }

    fn acknowledged(&self) -> usize {
        self.acknowledged.load(Ordering::Acquire)
    }
}

/// Starts the node; starts it again on other ports if another program took them first.
///
/// # Errors
/// Why it does not start.
pub(super) async fn start(stage: &mut Stage) -> Result<(), Failure> {
    for _ in 1..STARTS {
        stage.start_node()?;
        match stage.node_ready().await {
            Err(failure) if failure.message.contains("cannot listen") => stage.change_ports(),
            ended => return ended,
        }
    }
    stage.start_node()?;
    stage.node_ready().await
}

/// Plays on a node that is ready.
///
/// # Errors
/// What keeps the demo from going on, in a sentence.
pub(super) async fn run(
    stage: &mut Stage,
    talk: &Talk,
    (source, lines): (String, Arc<[Line]>),
    partitions: i32,
) -> Result<Report, Failure> {
    let started = Instant::now();
    let client = client(stage)?;
    create_topic(&client, partitions).await?;
    let (events, deliveries) = mpsc::channel(64);
    stage.start_members(MEMBERS, &lines, &events)?;
    drop(events);
    settle(stage, &client, partitions).await?;
    talk.say(&format!(
        "{MEMBERS} consumers have joined the group and share {}",
        count(
            partitions.unsigned_abs() as usize,
            "partition",
            "partitions"
        )
    ));
    talk.say(&format!(
        "producing {}",
        count(lines.len(), "record", "records")
    ));
    let meter = Arc::new(Meter::default());
    let producing = tokio::spawn(produce(
        client.clone(),
        Arc::clone(&lines),
        Arc::clone(&meter),
    ));
    let mut play = Play {
        stage,
        talk,
        meter,
        ledger: Ledger::new(&lines, partitions.unsigned_abs() as usize, MEMBERS),
        total: lines.len(),
        began: Instant::now(),
        killed_member: None,
        outage: None,
        moved: (0, Instant::now()),
    };
    let places = play.watch(deliveries, producing).await?;
    let Play {
        mut ledger,
        killed_member,
        outage,
        meter,
        ..
    } = play;
    talk.say("reading the whole log to verify it");
    talk.progress(String::new());
    read_log(&client, partitions, &lines, &mut ledger).await?;
    let outage = outage.unwrap_or_default();
    Ok(Report {
        source,
        bytes: lines.iter().map(|line| line.bytes() as u64).sum(),
        findings: ledger.findings(&places),
        killed: killed_member,
        pending: outage.pending,
        repeated: meter.repeated.load(Ordering::Acquire),
        recovery: outage.recovery,
        rate: outage.rate,
        took: started.elapsed(),
    })
}

fn client(stage: &Stage) -> Result<Client, Failure> {
    Ok(Client::new(ClientConfig {
        brokers: vec![stage.address()],
        client_id: "varve-demo".to_owned(),
        connect_timeout: Duration::from_secs(1),
        ..ClientConfig::default()
    })?)
}

async fn create_topic(client: &Client, partitions: i32) -> Result<(), Failure> {
    let request = v1::CreateTopicRequest {
        topic: TOPIC.to_owned(),
        partition_count: partitions,
        // The table says what an acknowledgement meant: it is not left to a default.
        configs: [
            ("durability".to_owned(), "fsync".to_owned()),
            ("retention.ms".to_owned(), "-1".to_owned()),
        ]
        .into(),
        ..v1::CreateTopicRequest::default()
    };
    let created = Admin::new(client.clone()).create_topic(request).await;
    created.map_err(|error| Failure::from(error).context("the topic cannot be created"))?;
    Ok(())
}

/// Waits until every member has its share: then the table shows a group that really was shared.
async fn settle(stage: &mut Stage, client: &Client, partitions: i32) -> Result<(), Failure> {
    let admin = Admin::new(client.clone());
    let deadline = Instant::now() + SETTLE;
    let partitions = partitions.unsigned_abs() as usize;
    loop {
        let request = v1::GetGroupRequest {
            group: GROUP.to_owned(),
        };
        // There is no such group before the first member has joined.
        let group = admin.get_group(request).await.ok().and_then(|r| r.group);
        let members = group.map(|group| group.members).unwrap_or_default();
        let owned: usize = members.iter().map(|member| member.owned.len()).sum();
        let busy = members.iter().filter(|member| !member.owned.is_empty());
        if owned == partitions
            && members.len() == MEMBERS
            && busy.count() == partitions.min(MEMBERS)
        {
            return Ok(());
        }
        stage.check_node()?;
        stage.check_members(None)?;
        if Instant::now() > deadline {
            let text = format!("the group has not settled within {} s", SETTLE.as_secs());
            return Err(Failure::new(TIMEOUT, text));
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Sends every line and says where each was acknowledged.
async fn produce(
    client: Client,
    lines: Arc<[Line]>,
    meter: Arc<Meter>,
) -> Result<Places, ClientError> {
    let topic: TopicName = TOPIC.parse().map_err(|_| ClientError::Closed)?;
    let producer = Producer::new(client, config(&lines, &meter))?;
    producer.prepare(&topic).await?;
    let mut handles = Vec::with_capacity(lines.len());
    for (number, line) in lines.iter().enumerate() {
        if lines.len() < FEW && number == lines.len() / 2 {
            producer.flush().await?;
        }
        let bytes = (number as u64).to_be_bytes();
        let record = RecordRef {
            key: line.key.as_deref(),
            value: Some(&line.value),
            headers: &[(NUMBER.as_bytes(), Some(&bytes[..]))],
            ..RecordRef::default()
        };
        handles.push(producer.send(&topic, record).await?);
        meter.sent.store(number + 1, Ordering::Release);
    }
    meter.changed.notify_one();
    let flushed = producer.flush().await;
    let mut places = Vec::with_capacity(handles.len());
    for handle in handles {
        let place = handle.await.ok();
        places.push(place.and_then(|ack| Some((ack.partition.0, ack.offset?.get()))));
    }
    // A record that failed is seen in its place; the reason is kept by the meter.
    drop(flushed);
    Ok(places)
}

/// Small batches and a short queue: the producer cannot run far ahead of the acknowledgements, so that a kill in the
/// middle meets records on their way, and not only ones that wait.
fn config(lines: &[Line], meter: &Arc<Meter>) -> ProducerConfig {
    let bytes: usize = lines.iter().map(Line::bytes).sum();
    let largest = lines.iter().map(Line::bytes).max().unwrap_or(0);
    let batch = (bytes / 200).clamp(4 * 1024, 64 * 1024);
    let few = lines.len() < FEW;
    let buffer = if few {
        // All of it, with what the client counts for a record beside its bytes.
        bytes * 2 + 256 * lines.len()
    } else {
        batch * 16
    };
    let meter = Arc::clone(meter);
    ProducerConfig {
        batch_bytes: batch,
        buffer_bytes: buffer.max(4 * largest).max(64 * 1024),
        // The second half of few records is still here when the node is killed.
        linger: Duration::from_millis(if few { 100 } else { 5 }),
        on_batch: Some(Arc::new(move |report| {
            match &report.result {
                Ok(ack) => {
                    let records = report.records as usize;
                    if ack.deduplicated {
                        meter.repeated.fetch_add(records, Ordering::AcqRel);
                    }
                    meter.acknowledged.fetch_add(records, Ordering::AcqRel);
                }
                Err(error) => {
                    let failure = meter.failure.lock();
                    let mut failure = failure.unwrap_or_else(PoisonError::into_inner);
                    failure.get_or_insert_with(|| error.clone());
                }
            }
            meter.changed.notify_one();
        })),
        ..ProducerConfig::default()
    }
}

/// The kill of the node, and what was measured around it.
#[derive(Debug, Default)]
struct Outage {
    at: Option<Instant>,
    /// Acknowledged by the killed process.
    before: usize,
    pending: usize,
    recovery: Option<Duration>,
    rate: f64,
}

struct Play<'a> {
    stage: &'a mut Stage,
    talk: &'a Talk,
    meter: Arc<Meter>,
    ledger: Ledger,
    total: usize,
    began: Instant,
    killed_member: Option<usize>,
    outage: Option<Outage>,
    /// Acknowledged and delivered when something last moved, and when that was.
    moved: (usize, Instant),
}

impl Play<'_> {
    /// Takes what the members print, and kills, until all of it has come or no more will.
    async fn watch(
        &mut self,
        mut deliveries: mpsc::Receiver<Event>,
        mut producing: tokio::task::JoinHandle<Result<Places, ClientError>>,
    ) -> Result<Places, Failure> {
        let mut places = None;
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let meter = Arc::clone(&self.meter);
        while !self.is_done(places.is_some()) {
            tokio::select! {
                Some(event) = deliveries.recv() => self.take(event),
                () = meter.changed.notified() => {}
                ended = &mut producing, if places.is_none() => places = Some(joined(ended)?),
                _ = look.tick() => self.look().await?,
            }
            self.kill_when_due().await?;
            if self.is_silent() {
                break;
            }
        }
        self.stage.end_members().await;
        // What members still printed before they left counts as well.
        while let Ok(Some(event)) = tokio::time::timeout(SETTLE, deliveries.recv()).await {
            self.take(event);
        }
        places.ok_or_else(|| self.stuck())
    }

    fn is_done(&self, produced: bool) -> bool {
        let recovered = self.outage.as_ref().is_some_and(|o| o.recovery.is_some());
        produced
            && recovered
            && self.killed_member.is_some()
            && (self.ledger.distinct() == self.total || self.failure().is_some())
    }

    fn failure(&self) -> Option<ClientError> {
        let failure = self.meter.failure.lock();
        failure.unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn stuck(&self) -> Failure {
        let text = format!(
            "{} of {} records were acknowledged, and nothing moved for {} s",
            grouped(self.meter.acknowledged()),
            grouped(self.total),
            SILENCE.as_secs()
        );
        Failure::new(TIMEOUT, text)
    }

    fn is_silent(&mut self) -> bool {
        let now = self.meter.acknowledged() + self.ledger.distinct();
        if now != self.moved.0 {
            self.moved = (now, Instant::now());
        }
        self.moved.1.elapsed() > SILENCE
    }

    fn take(&mut self, event: Event) {
        for record in event.records {
            self.ledger.delivered(event.member, record);
        }
    }

    /// A look at the processes, now and then.
    async fn look(&mut self) -> Result<(), Failure> {
        self.stage.check_disk()?;
        self.stage.check_node()?;
        self.stage.check_members(self.killed_member)?;
        let acknowledged = self.meter.acknowledged();
        let all_sent = acknowledged == self.total;
        // With everything acknowledged before the kill, no acknowledgement tells that the node is back.
        let waits = self.outage.as_ref().is_some_and(|o| o.recovery.is_none());
        if waits && all_sent && self.stage.node_is_ready().await {
            self.recovered();
        }
        self.talk.progress(format!(
            "{} acknowledged, {} delivered, of {}",
            grouped(acknowledged),
            grouped(self.ledger.distinct()),
            grouped(self.total)
        ));
        Ok(())
    }

    async fn kill_when_due(&mut self) -> Result<(), Failure> {
        if self.killed_member.is_none() && self.ledger.distinct() >= (self.total / 4).max(1) {
            self.kill_member();
        }
        let (sent, acknowledged) = (self.meter.sent(), self.meter.acknowledged());
        match &self.outage {
            None => {
                let half = (self.total / 2).max(1);
                // With few records the producer waits at the half; the kill comes when the rest is on its way.
                if acknowledged >= half && (sent > half || sent == self.total) {
                    self.kill_node().await?;
                }
            }
            Some(outage) if outage.recovery.is_none() && acknowledged > outage.before => {
                self.recovered();
            }
            Some(_) => {}
        }
        Ok(())
    }

    fn kill_member(&mut self) {
        let number = self.ledger.busiest();
        let id = self.stage.kill_member(number);
        self.killed_member = Some(number);
        self.talk.say(&format!(
            "kill -9 {id}: consumer {}, after {} had been delivered",
            number + 1,
            count(self.ledger.distinct(), "record", "records")
        ));
    }

    async fn kill_node(&mut self) -> Result<(), Failure> {
        let (id, at) = (self.stage.node_id(), Instant::now());
        self.stage.kill_node();
        tokio::time::sleep(LAST_ANSWERS).await;
        let before = self.meter.acknowledged();
        let pending = self.meter.sent() - before;
        self.talk.say(&format!(
            "kill -9 {id}: the node, with {} acknowledged and {} pending",
            count(before, "record", "records"),
            grouped(pending)
        ));
        let seconds = at.duration_since(self.began).as_secs_f64().max(1e-3);
        self.outage = Some(Outage {
            at: Some(at),
            before,
            pending,
            recovery: None,
            rate: before as f64 / seconds,
        });
        self.stage.start_node()
    }

    fn recovered(&mut self) {
        if let Some(outage) = &mut self.outage {
            let took = outage.at.map(|at| at.elapsed()).unwrap_or_default();
            outage.recovery = Some(took);
            self.talk.say(&format!(
                "the node is back after {:.1} s, on the same directory",
                took.as_secs_f64()
            ));
        }
    }
}

fn joined(
    ended: Result<Result<Places, ClientError>, tokio::task::JoinError>,
) -> Result<Places, Failure> {
    let ended = ended.map_err(|error| Failure::new(FAILED, format!("the producer: {error}")))?;
    ended.map_err(|error| Failure::from(error).context("the producer cannot go on"))
}

/// Reads every partition from its beginning to its end.
async fn read_log(
    client: &Client,
    partitions: i32,
    lines: &[Line],
    ledger: &mut Ledger,
) -> Result<(), Failure> {
    let topic: TopicName = TOPIC
        .parse()
        .map_err(|error| Failure::new(FAILED, format!("{TOPIC}: {error}")))?;
    let whole = |partition| Assignment {
        topic: topic.clone(),
        partition,
        start: Start::Earliest,
        end: End::CurrentEnd,
    };
    let all = (0..partitions).map(whole).collect();
    let mut consumer = Consumer::open(client.clone(), ConsumerConfig::default(), all).await?;
    while let Some(batch) = consumer.next_batch().await? {
        let mut records = batch.records()?;
        while let Some(record) = records.next_ref()? {
            let number = record
                .headers
                .iter()
                .find(|(name, _)| *name == NUMBER.as_bytes());
            let place = (batch.partition.0, record.offset.get());
            let number = number.and_then(|(_, value)| value);
            ledger.logged(Returned::compare(
                lines,
                place,
                number,
                record.key,
                record.value,
            ));
        }
    }
    Ok(())
}
