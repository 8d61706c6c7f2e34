//! Consume: a group member without a client library. This node joins, heartbeats, fetches and commits on
//! the client's behalf.
//!
//! Invariants: heartbeats go on while the client does not read, because being slow is not being gone;
//! when the stream is lost heartbeats stop and the member is left as it is, so that a stream that comes
//! back with its id takes its place; commits of one stream are made in the order they were asked for.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior};
use tonic::{Status, Streaming};
use varve_broker_api::{
    Broker, CommitOffsets, Context, Error, GetOffsets, HeartbeatReply, OffsetCommit, Position,
    TopicInfo,
};
use varve_proto::v1;
use varve_proto::v1::consume_response::Event as E;
use varve_types::{ErrorKind, LeaderEpoch, Offset, Retry, TopicName, TopicPartition, limits};

use super::membership::{Action, Join, Membership};
use super::pace::Pace;
use super::reader::{Ending, Event, Fetched, Options, Reader, Spec, What};
use super::subscribe::{HOLD, MESSAGE_BYTES, to_chunk, to_progress};
use super::{DrainStep, Drainer, Gone, Outbound, Outlet, Parked, STALLED, channel, parked, until};
use crate::context::CallContext;
use crate::shared::Shared;
use crate::translate::{group, missing, to_topic_partition};

/// Commits that may wait.
const COMMITS_MAX: usize = limits::STREAM_MAX_COMMITS;
/// Heartbeat interval until the group names one.
const INTERVAL_DEFAULT: Duration = Duration::from_secs(3);
/// Least time between two heartbeats that say nothing new.
const INTERVAL_MIN: Duration = Duration::from_millis(100);
/// Pause before something is tried again.
const RETRY: Duration = Duration::from_millis(500);
/// How long leaving may take.
const LEAVE_MAX: Duration = Duration::from_secs(5);

/// Opens the stream.
pub fn open<B: Broker>(
    shared: &Arc<Shared<B>>,
    ctx: CallContext,
    inbound: Streaming<v1::ConsumeRequest>,
) -> Outbound<v1::ConsumeResponse> {
    let (outlet, outbound) = channel(shared, "Consume", 1);
    tokio::spawn(run(Arc::clone(shared), ctx, inbound, outlet));
    outbound
}

async fn run<B: Broker>(
    shared: Arc<Shared<B>>,
    ctx: CallContext,
    mut inbound: Streaming<v1::ConsumeRequest>,
    outlet: Outlet<v1::ConsumeResponse>,
) {
    let join = tokio::select! {
        biased;
        () = outlet.closed() => return,
        first = inbound.message() => match first {
            Ok(first) => joining(first),
            Err(status) => return outlet.end(shared.unreadable(status)).await,
        },
        () = shared.drain.cancelled() => Err(Shared::<B>::shutting_down()),
    };
    let join = match join {
        Ok(join) => join,
        Err(error) => return outlet.end(shared.fail(&error)).await,
    };
    let mut stream = Consume::new(shared, ctx, join, outlet.pace());
    match stream.serve(inbound, &outlet).await {
        Ok(None) => return,
        Ok(Some(status)) => outlet.end(status).await,
        Err(Gone) => {}
    }
    // A stream that was lost leaves its member there for the session timeout; its client wanted this end.
    if stream.ctx.outlived() {
        stream.leave().await;
    }
}

fn joining(first: Option<v1::ConsumeRequest>) -> Result<Join, Error> {
    use v1::consume_request::Command as C;
    match first.and_then(|m| m.command) {
        Some(C::Join(join)) => Join::read(&join),
        _ => Err(Error::invalid(
            "join",
            "the first command of Consume must be join",
        )),
    }
}

/// A commit on its way.
#[derive(Debug)]
struct Job {
    /// Of the client's command; `None`: made by the delivery of records.
    id: Option<i64>,
    offsets: Vec<OffsetCommit>,
    failures: Vec<v1::CommitFailure>,
    repeated: bool,
}

type Committed = (Job, Result<Vec<Result<(), Error>>, Error>);

struct Consume<B> {
    shared: Arc<Shared<B>>,
    ctx: CallContext,
    member: Membership,
    reader: Reader<B, TopicPartition>,
    credit: Option<i64>,
    /// Events to be sent before any records.
    queue: VecDeque<E>,
    /// Partitions that are assigned and have no cursor yet.
    to_place: BTreeSet<TopicPartition>,
    place_at: Option<Instant>,
    /// Where delivery has come to, for partitions whose cursor had to be closed.
    delivered: BTreeMap<TopicPartition, Offset>,
    /// Delivered and to be committed.
    dirty: BTreeMap<TopicPartition, (Offset, LeaderEpoch)>,
    jobs: VecDeque<Job>,
    beat: Option<Parked<Result<HeartbeatReply, Error>>>,
    beat_at: Instant,
    beat_sent: Instant,
    interval: Duration,
    committing: Option<Parked<Committed>>,
    /// Partitions of the topics as they were before it joined.
    known: Option<BTreeMap<TopicName, i32>>,
    /// Commits wait for the next heartbeat to tell the member's epoch.
    stale: bool,
    leaving: bool,
}

impl<B: Broker> Consume<B> {
    fn new(shared: Arc<Shared<B>>, ctx: CallContext, join: Join, pace: &Pace) -> Self {
        let options = Options {
            encoding: join.encoding,
            message_bytes: MESSAGE_BYTES,
            strict_size: false,
            ride_out: true,
            isolation: join.isolation,
        };
        let now = Instant::now();
        Self {
            reader: Reader::new(Arc::clone(&shared), ctx.broker.clone(), options, pace),
            credit: join.credit,
            known: known(&*shared.broker, &ctx.broker, &join),
            member: Membership::new(join),
            shared,
            ctx,
            queue: VecDeque::new(),
            to_place: BTreeSet::new(),
            place_at: None,
            delivered: BTreeMap::new(),
            dirty: BTreeMap::new(),
            jobs: VecDeque::new(),
            beat: None,
            beat_at: now,
            beat_sent: now,
            interval: INTERVAL_DEFAULT,
            committing: None,
            stale: false,
            leaving: false,
        }
    }

    /// Runs until the end: `None` is OK.
    async fn serve(
        &mut self,
        mut inbound: Streaming<v1::ConsumeRequest>,
        outlet: &Outlet<v1::ConsumeResponse>,
    ) -> Result<Option<Status>, Gone> {
        let mut drainer = Drainer::new(&self.shared);
        let mut fetching: Option<Parked<Fetched<TopicPartition>>> = None;
        let mut ticks = tokio::time::interval(self.member.join().idle / 4);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut open = true;
        loop {
            if self.turn().await {
                fetching = None;
            }
            if self.leaving && self.idle_commits() && self.queue.is_empty() {
                return Ok(self.leave().await);
            }
            let reading = !self.leaving && self.credit.is_none_or(|c| c > 0);
            let waits = !self.reader.window().is_open();
            if fetching.is_none() && reading && !waits && !self.reader.has_arrived() {
                fetching = self.reader.fetch(HOLD);
            }
            let sendable = !self.queue.is_empty() || (reading && self.reader.has_arrived());
            let (timer, retry) = (self.next_timer(), self.reader.next_retry());
            tokio::select! {
                biased;
                () = outlet.closed() => return Err(Gone),
                step = drainer.next() => match step {
                    DrainStep::Announce => self.queue.push_back(E::Drain(drainer.event())),
                    DrainStep::End => {
                        return Ok(Some(self.shared.fail(&Shared::<B>::shutting_down())));
                    }
                },
                message = inbound.message(), if open => match message {
                    Ok(Some(message)) => if let Err(error) = self.command(message) {
                        return Ok(Some(self.shared.fail(&error)));
                    },
                    // Half-closing does not leave.
                    Ok(None) => open = false,
                    // When the stream is lost nobody hears this, and the member stays for its session
                    // timeout; a message that cannot be read ends the stream with a reason.
                    Err(status) => return Ok(Some(self.shared.unreadable(status))),
                },
                reply = parked(&mut self.beat) => {
                    self.beat = None;
                    if let Err(error) = self.heard(reply) {
                        return Ok(Some(self.shared.fail(&error)));
                    }
                    fetching = None;
                }
                committed = parked(&mut self.committing) => {
                    self.committing = None;
                    self.committed(committed);
                }
                permit = outlet.ready(), if sendable => {
                    match self.next_message() {
                        Ok(Some(event)) => {
                            permit?.send(v1::ConsumeResponse { event: Some(event) });
                        }
                        Ok(None) => drop(permit?),
                        Err(error) => return Ok(Some(self.shared.fail(&error))),
                    }
                }
                () = tokio::time::sleep(STALLED), if self.reader.has_arrived() => self.reader.shed(),
                () = self.reader.window().opened(), if waits && reading && fetching.is_none() => {}
                fetched = parked(&mut fetching) => {
                    fetching = None;
                    self.reader.accept(fetched);
                }
                _ = ticks.tick() => self.reader.speak_of_idle(self.member.join().idle).await,
                () = until(timer) => {}
                () = until(retry) => fetching = None,
            }
        }
    }

    /// Work that is due, whatever woke the stream. Returns whether what is read has changed.
    async fn turn(&mut self) -> bool {
        let now = Instant::now();
        let mut changed = false;
        if let Some(lost) = self.member.expire(now) {
            self.act(lost);
            self.beat_now();
            changed = true;
        }
        if self.beat.is_none() && self.beat_at <= now {
            self.send_beat(now);
        }
        if self.committing.is_none() && !self.stale {
            self.start_commit();
        }
        if !self.to_place.is_empty() && self.place_at.is_none_or(|at| at <= now) {
            self.place().await;
            changed = true;
        }
        if self.reader.has_lost_places() {
            self.reader.recover().await;
            changed = true;
        }
        changed
    }

    fn next_timer(&self) -> Option<Instant> {
        let beat = self.beat.is_none().then_some(self.beat_at);
        let place = self.place_at.filter(|_| !self.to_place.is_empty());
        [beat, place, self.member.next_expiry()]
            .into_iter()
            .flatten()
            .min()
    }

    // ---- membership ----

    /// Makes the next heartbeat due at once. One that is held is dropped: it would answer the past.
    fn beat_now(&mut self) {
        self.beat = None;
        self.beat_at = Instant::now();
    }

    fn send_beat(&mut self, now: Instant) {
        let wait = if self.member.settled() {
            self.interval
        } else {
            Duration::ZERO
        };
        let request = self.member.heartbeat(wait);
        let (broker, ctx) = (Arc::clone(&self.shared.broker), self.ctx.broker.clone());
        self.beat_sent = now;
        self.beat = Some(Box::pin(
            async move { broker.heartbeat(&ctx, request).await },
        ));
    }

    /// Takes in the answer to a heartbeat.
    ///
    /// # Errors
    /// What ends the stream.
    fn heard(&mut self, reply: Result<HeartbeatReply, Error>) -> Result<(), Error> {
        let now = Instant::now();
        self.stale = false;
        let reply = match reply {
            Ok(reply) => reply,
            Err(e)
                if matches!(
                    e.kind,
                    ErrorKind::UnknownMember | ErrorKind::FencedMemberEpoch
                ) =>
            {
                if let Some(lost) = self.member.fenced() {
                    self.act(lost);
                }
                self.beat_at = now + INTERVAL_MIN;
                return Ok(());
            }
            Err(e) if e.retry() == Retry::Never || e.kind == ErrorKind::ShuttingDown => {
                return Err(e);
            }
            Err(e) => {
                self.beat_at = now + e.retry_after.unwrap_or(RETRY);
                return Ok(());
            }
        };
        self.interval = reply
            .heartbeat_interval
            .clamp(INTERVAL_MIN, Duration::from_secs(60));
        let actions = self.member.reply(&reply, now);
        let confirm = actions.iter().any(|a| matches!(a, Action::Assigned(_)));
        for action in actions {
            self.act(action);
        }
        self.beat_at = if confirm {
            now
        } else if self.member.settled() {
            now.max(self.beat_sent + INTERVAL_MIN)
        } else {
            now + self.interval.min(Duration::from_secs(1))
        };
        Ok(())
    }

    fn act(&mut self, action: Action) {
        let list =
            |partitions: &[TopicPartition]| partitions.iter().map(to_topic_partition).collect();
        match action {
            Action::Joined => {
                let member_id = self.member.join().member.to_string();
                self.queue
                    .push_back(E::Joined(v1::ConsumeJoined { member_id }));
            }
            Action::Assigned(new) => {
                let partitions = list(&new);
                self.queue
                    .push_back(E::Assigned(v1::ConsumeAssigned { partitions }));
                self.to_place.extend(new);
                self.place_at = None;
            }
            Action::Revoking(revocation_id, gone) => {
                let partitions = list(&gone);
                self.stop(&gone);
                let revoking = v1::ConsumeRevoking {
                    revocation_id,
                    partitions,
                };
                self.queue.push_back(E::Revoking(revoking));
            }
            Action::Lost(gone) => {
                let partitions = list(&gone);
                self.stop(&gone);
                for tp in &gone {
                    self.dirty.remove(tp);
                }
                self.queue
                    .push_back(E::Lost(v1::ConsumeLost { partitions }));
            }
        }
    }

    fn stop(&mut self, partitions: &[TopicPartition]) {
        for tp in partitions {
            self.reader.remove(tp);
            self.to_place.remove(tp);
            self.delivered.remove(tp);
        }
    }

    /// Gives cursors to what was assigned: at the committed offset, or where the client said.
    async fn place(&mut self) {
        let wanted: Vec<TopicPartition> = self
            .to_place
            .iter()
            .take(limits::REQUEST_MAX_PARTITIONS)
            .cloned()
            .collect();
        let request = GetOffsets {
            group: self.member.join().group.clone(),
            partitions: wanted.clone(),
            include_lag: false,
            require_stable: true,
        };
        let found = match self
            .shared
            .broker
            .committed_offsets(&self.ctx.broker, request)
            .await
        {
            Ok(found) => found,
            // A group that has committed nothing may not exist yet.
            Err(error) if error.kind == ErrorKind::GroupNotFound => Vec::new(),
            Err(_) => {
                self.place_at = Some(Instant::now() + RETRY);
                return;
            }
        };
        let committed: BTreeMap<_, _> =
            found.into_iter().map(|c| (c.partition, c.offset)).collect();
        let join = self.member.join();
        let specs = wanted
            .iter()
            .map(|tp| {
                let at = self
                    .delivered
                    .get(tp)
                    .or_else(|| committed.get(tp))
                    .copied();
                let spec = Spec {
                    partition: tp.clone(),
                    start: at.map_or_else(|| self.start_of(tp), Position::Offset),
                    out_of_range: join.out_of_range(),
                    until: Ending::Follow,
                    leader_epoch: None,
                    credit: None,
                };
                (tp.clone(), spec)
            })
            .collect();
        for tp in &wanted {
            self.to_place.remove(tp);
        }
        self.reader.open(specs).await;
    }

    /// Where a partition without a commit begins. A member that reads from now on has to read all of what came later.
    fn start_of(&self, partition: &TopicPartition) -> Position {
        let is_new = self.known.as_ref().is_some_and(|known| {
            partition.partition.0 >= known.get(&partition.topic).copied().unwrap_or(0)
        });
        match self.member.join().start {
            Position::Latest if is_new => Position::Earliest,
            start => start,
        }
    }

    /// Leaves the group. The member is gone for the client even when the coordinator cannot be reached.
    async fn leave(&mut self) -> Option<Status> {
        self.beat = None;
        let left = self
            .shared
            .broker
            .heartbeat(&self.ctx.broker, self.member.leave());
        match tokio::time::timeout(LEAVE_MAX, left).await {
            Ok(Ok(_)) => None,
            Ok(Err(e)) if e.kind == ErrorKind::UnknownMember => None,
            Ok(Err(error)) => Some(self.shared.fail(&error)),
            Err(_) => {
                let text =
                    "the coordinator did not answer; the member leaves when its session times out";
                Some(
                    self.shared
                        .fail(&Error::new(ErrorKind::LeaderNotAvailable, text)),
                )
            }
        }
    }

    // ---- what the client says ----

    fn command(&mut self, message: v1::ConsumeRequest) -> Result<(), Error> {
        use v1::consume_request::Command as C;
        match message.command.ok_or_else(|| missing("command"))? {
            C::Join(_) => Err(Error::invalid(
                "join",
                "join must be the first command of a stream, and is sent only once",
            )),
            C::Credit(credit) if credit.bytes <= 0 => {
                let text = format!("credit must be more than 0 bytes; found {}", credit.bytes);
                Err(Error::invalid("credit.bytes", text))
            }
            C::Credit(credit) => {
                self.credit = self.credit.map(|c| c.saturating_add(credit.bytes));
                Ok(())
            }
            C::Commit(commit) => self.queue_commit(&commit),
            C::RevokeDone(done) => {
                if self.member.revoke_done(done.revocation_id) {
                    self.beat_now();
                }
                Ok(())
            }
            C::Leave(v1::ConsumeLeave {}) => {
                self.leaving = true;
                Ok(())
            }
        }
    }

    fn queue_commit(&mut self, commit: &v1::ConsumeCommit) -> Result<(), Error> {
        if self.jobs.len() >= COMMITS_MAX {
            let text =
                format!("{COMMITS_MAX} commits are waiting on this stream; wait for `committed`");
            return Err(Error::new(ErrorKind::FlowControl, text));
        }
        let (mine, others): (Vec<_>, Vec<_>) = group::commits(&commit.offsets)?
            .into_iter()
            .partition(|o| self.member.owns(&o.partition));
        let failures = others
            .iter()
            .map(|o| self.failure(&o.partition, &not_owned(&o.partition)));
        let job = Job {
            id: Some(commit.commit_id),
            failures: failures.collect(),
            offsets: mine,
            repeated: false,
        };
        self.jobs.push_back(job);
        Ok(())
    }

    // ---- commits ----

    fn failure(&self, tp: &TopicPartition, error: &Error) -> v1::CommitFailure {
        v1::CommitFailure {
            topic_partition: Some(to_topic_partition(tp)),
            error: Some(self.shared.partition_error(error)),
        }
    }

    fn idle_commits(&self) -> bool {
        self.committing.is_none() && self.jobs.is_empty() && self.dirty.is_empty()
    }

    fn start_commit(&mut self) {
        if self.jobs.is_empty() && !self.dirty.is_empty() {
            let job = self.delivery_job();
            self.jobs.push_back(job);
        }
        let Some(job) = self.jobs.pop_front() else {
            return;
        };
        if job.offsets.is_empty() {
            self.answer_commit(job);
            return;
        }
        let request = CommitOffsets {
            group: self.member.join().group.clone(),
            member: Some(self.member.join().member.clone()),
            member_epoch: self.member.epoch(),
            offsets: job.offsets.clone(),
        };
        let (broker, ctx) = (Arc::clone(&self.shared.broker), self.ctx.broker.clone());
        self.committing = Some(Box::pin(async move {
            let outcome = broker.commit_offsets(&ctx, request).await;
            (job, outcome)
        }));
    }

    /// A commit of what was delivered, of as many partitions as one call may name; others wait for the next.
    fn delivery_job(&mut self) -> Job {
        let rest = match self.dirty.keys().nth(limits::REQUEST_MAX_PARTITIONS) {
            Some(first) => self.dirty.split_off(&first.clone()),
            None => BTreeMap::new(),
        };
        let delivered = std::mem::replace(&mut self.dirty, rest);
        let offsets = delivered
            .into_iter()
            .filter(|(tp, _)| self.member.owns(tp))
            .map(|(partition, (offset, epoch))| OffsetCommit {
                partition,
                offset,
                leader_epoch: Some(epoch),
                metadata: String::new(),
            })
            .collect();
        Job {
            id: None,
            offsets,
            failures: Vec::new(),
            repeated: false,
        }
    }

    fn committed(&mut self, committed: Committed) {
        let (mut job, outcome) = committed;
        match outcome {
            Ok(results) => {
                for (commit, result) in job.offsets.iter().zip(results) {
                    if let Err(error) = result {
                        let failure = self.failure(&commit.partition, &error);
                        job.failures.push(failure);
                    }
                }
            }
            Err(error) if error.kind == ErrorKind::StaleMemberEpoch && !job.repeated => {
                // The epoch has moved on: learn it, then repeat. The heartbeat is sent first.
                job.repeated = true;
                self.jobs.push_front(job);
                self.stale = true;
                self.beat_now();
                return;
            }
            Err(error) => {
                for commit in &job.offsets {
                    let failure = self.failure(&commit.partition, &error);
                    job.failures.push(failure);
                }
            }
        }
        self.answer_commit(job);
    }

    fn answer_commit(&mut self, job: Job) {
        if let Some(commit_id) = job.id {
            let committed = v1::ConsumeCommitted {
                commit_id,
                failures: job.failures,
            };
            self.queue.push_back(E::Committed(committed));
        }
    }

    // ---- what the client is told ----

    /// The next event for a transport that has room.
    ///
    /// # Errors
    /// What ends the stream.
    fn next_message(&mut self) -> Result<Option<E>, Error> {
        if let Some(event) = self.queue.pop_front() {
            return Ok(Some(event));
        }
        let Some(event) = self.reader.next_event(u64::MAX) else {
            return Ok(None);
        };
        let Event { key, cursor, what } = event;
        Ok(match what {
            What::Records(chunk) => {
                if let Some(credit) = &mut self.credit {
                    *credit = credit.saturating_sub(chunk.payload_bytes);
                }
                self.delivered.insert(key.clone(), chunk.next_offset);
                if self.member.join().commit_on_delivery {
                    self.dirty
                        .insert(key, (chunk.next_offset, cursor.leader_epoch));
                }
                let counts = self.credit.is_some();
                Some(E::Records(to_chunk(&cursor, chunk, counts)))
            }
            What::Opened | What::CaughtUp | What::Passed | What::Idle => {
                Some(E::Progress(to_progress(&cursor)))
            }
            What::Closed(Some(error)) if error.kind == ErrorKind::CorruptLog => return Err(error),
            What::Closed(_) => {
                // A leader that moved or a topic that goes: the assignment will say what to do.
                if self.member.reads(&key) {
                    self.to_place.insert(key);
                    self.place_at = Some(Instant::now() + RETRY);
                }
                None
            }
        })
    }
}

/// How many partitions topics have as a member joins that reads from now on; `None` for others.
fn known(broker: &impl Broker, ctx: &Context, join: &Join) -> Option<BTreeMap<TopicName, i32>> {
    let all = match join.start {
        Position::Latest => broker.topics(ctx).ok()?,
        _ => return None,
    };
    let count = |topic: TopicInfo| (topic.name, topic.partitions);
    Some(all.into_iter().map(count).collect())
}

fn not_owned(tp: &TopicPartition) -> Error {
    Error::new(
        ErrorKind::StaleMemberEpoch,
        format!("this member does not own {tp}; its offset was not committed"),
    )
    .with("topic", &tp.topic)
    .with("partition", tp.partition)
}
