//! The membership of a consumer in its group: one long-polled heartbeat at a time to the group's coordinator.
//!
//! Invariants: a partition is owned from the answer that grants it until it was given up, or this member is out; a
//! member that has had no answer for a whole session gives up everything by itself, because the coordinator may have
//! given it to others meanwhile. Never reads a record.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use varve_proto::v1;
use varve_types::{ErrorKind, PartitionId, TopicName, TopicPartition};

use crate::admin::Admin;
use crate::backoff::{Backoff, Random};
use crate::connect::Client;
use crate::consumer::additions::{Counts, counts_of, counts_of_all};
use crate::consumer::{Assignment, End, Resolved, Start, resolve};
use crate::error::ClientError;
use crate::group::GroupConfig;

/// How long an answer that is not held may take: a coordinator that is silent for longer is looked for
/// elsewhere.
pub(crate) const ANSWER: Duration = Duration::from_secs(10);

/// What the background task tells the consumer. In order.
pub(crate) enum Control {
    Assigned {
        grant: u64,
        partitions: Vec<(TopicPartition, Resolved)>,
    },
    /// Give up; confirm by sending.
    Revoke(BTreeSet<TopicPartition>, oneshot::Sender<()>),
    /// Already taken away.
    Lost(BTreeSet<TopicPartition>),
    Fatal(ClientError),
}

/// What both sides know.
#[derive(Debug, Default)]
pub(crate) struct Membership {
    pub(crate) epoch: i32,
    /// What this member holds, and the grant under which it does. What was taken away and came back has another
    /// number: work that began under the first one must not be committed under the second.
    pub(crate) grants: BTreeMap<TopicPartition, u64>,
    /// When the session ends unless another answer comes; `None`: never, or there is none.
    pub(crate) until: Option<Instant>,
}

impl Membership {
    /// Whether a partition is held under that grant, and the coordinator has not given it to another one for all
    /// this side knows.
    pub(crate) fn holds(&self, partition: &TopicPartition, grant: u64) -> bool {
        self.grants.get(partition) == Some(&grant)
            && self.until.is_none_or(|until| Instant::now() < until)
    }
}

pub(crate) type SharedMembership = Arc<Mutex<Membership>>;

pub(crate) fn lock(shared: &SharedMembership) -> MutexGuard<'_, Membership> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether the coordinator does not count this member any more.
pub(crate) const fn is_out(kind: Option<ErrorKind>) -> bool {
    matches!(
        kind,
        Some(ErrorKind::UnknownMember | ErrorKind::FencedMemberEpoch)
    )
}

pub(crate) fn wire_partition(partition: &TopicPartition) -> v1::TopicPartition {
    v1::TopicPartition {
        topic: partition.topic.to_string(),
        partition: partition.partition.0,
    }
}

fn partitions_of(owned: v1::OwnedPartitions) -> Result<BTreeSet<TopicPartition>, ClientError> {
    let parse = |partition: v1::TopicPartition| {
        let topic = TopicName::new(&partition.topic)
            .map_err(|error| ClientError::Protocol(error.to_string()))?;
        Ok(TopicPartition::new(topic, PartitionId(partition.partition)))
    };
    owned.partitions.into_iter().map(parse).collect()
}

struct Revoking {
    partitions: BTreeSet<TopicPartition>,
    done: oneshot::Receiver<()>,
    deadline: Instant,
}

/// The background task.
pub(crate) struct Member {
    client: Client,
    config: GroupConfig,
    member_id: String,
    membership: SharedMembership,
    owned: BTreeSet<TopicPartition>,
    revoking: Option<Revoking>,
    next_grant: u64,
    tell: mpsc::UnboundedSender<Control>,
    interval: Duration,
    failures: u32,
    random: Random,
    /// Partitions as they were before it joined, where it reads from now on.
    known: Option<Counts>,
    /// When the last heartbeat that was answered was sent, and how long the session lasts from its arrival. Sent is
    /// before arrived: this side's session ends first.
    heard: Instant,
    session: Duration,
}

impl Member {
    /// A member that has not joined yet.
    pub(crate) fn new(
        client: Client,
        config: GroupConfig,
        member_id: String,
        membership: SharedMembership,
        tell: mpsc::UnboundedSender<Control>,
    ) -> Self {
        Self {
            client,
            config,
            member_id,
            membership,
            owned: BTreeSet::new(),
            revoking: None,
            next_grant: 1,
            tell,
            interval: Duration::from_secs(5),
            failures: 0,
            random: Random::new(uuid::Uuid::new_v4().as_u64_pair().0),
            known: None,
            heard: Instant::now(),
            session: Duration::MAX,
        }
    }

    pub(crate) async fn run(mut self, mut left: oneshot::Receiver<()>) {
        tokio::select! {
            biased;
            _ = &mut left => return,
            () = self.look() => {}
        }
        loop {
            let epoch = lock(&self.membership).epoch;
            let started = Instant::now();
            let request = self.heartbeat(epoch);
            let client = self.client.clone();
            let answer = tokio::select! {
                biased;
                _ = &mut left => break,
                () = revoked(&mut self.revoking) => {
                    self.given_up();
                    continue;
                }
                () = session_end(self.owned.is_empty(), self.heard, self.session) => {
                    self.out();
                    continue;
                }
                answer = call(&client, request, self.interval) => answer,
            };
            let pause = match answer {
                Ok(response) => {
                    self.failures = 0;
                    self.on_answer(epoch, response, started).await
                }
                Err(error) => self.on_error(error),
            };
            // What ends the membership by an error leaves nothing to the session timeout.
            let Some(pause) = pause else { break };
            tokio::select! {
                biased;
                _ = &mut left => break,
                () = revoked(&mut self.revoking) => self.given_up(),
                () = session_end(self.owned.is_empty(), self.heard, self.session) => self.out(),
                () = tokio::time::sleep(pause) => {}
            }
        }
        let epoch = lock(&self.membership).epoch;
        if epoch != 0 {
            let leave = v1::HeartbeatRequest {
                leave: true,
                keep_assignment: !self.config.instance_id.is_empty(),
                ..self.heartbeat(epoch)
            };
            // The coordinator would find out by itself, only later.
            let _ = call(&self.client, leave, Duration::ZERO).await;
        }
    }

    fn heartbeat(&self, epoch: i32) -> v1::HeartbeatRequest {
        let subscription = v1::GroupSubscription {
            topics: self.config.topics.iter().map(ToString::to_string).collect(),
            topic_pattern: self.config.topic_pattern.clone(),
            assignor: self.config.assignor.clone(),
        };
        let hold = epoch != 0 && self.revoking.is_none();
        let wait = if hold { self.interval } else { Duration::ZERO };
        v1::HeartbeatRequest {
            group: self.config.group.to_string(),
            member_id: self.member_id.clone(),
            member_epoch: epoch,
            instance_id: self.config.instance_id.clone(),
            subscription: (epoch == 0).then_some(subscription),
            owned: Some(v1::OwnedPartitions {
                partitions: self.owned.iter().map(wire_partition).collect(),
            }),
            rack: self.config.consumer.rack.clone(),
            rebalance_timeout: prost_types::Duration::try_from(self.config.rebalance_timeout).ok(),
            max_wait: prost_types::Duration::try_from(wait).ok(),
            ..Default::default()
        }
    }

    /// The front has given up what it was asked to, or its time is up.
    fn given_up(&mut self) {
        if let Some(revoking) = self.revoking.take() {
            lock(&self.membership)
                .grants
                .retain(|partition, _| !revoking.partitions.contains(partition));
            self.owned
                .retain(|partition| !revoking.partitions.contains(partition));
            if Instant::now() >= revoking.deadline {
                let _ = self.tell.send(Control::Lost(revoking.partitions));
            }
        }
    }

    /// The pause until the next heartbeat; `None` ends the membership.
    async fn on_answer(
        &mut self,
        sent_epoch: i32,
        response: v1::HeartbeatResponse,
        started: Instant,
    ) -> Option<Duration> {
        self.heard = started;
        let session = response
            .session_timeout
            .and_then(|d| Duration::try_from(d).ok());
        self.session = session.filter(|s| !s.is_zero()).unwrap_or(Duration::MAX);
        {
            let mut membership = lock(&self.membership);
            membership.epoch = response.member_epoch;
            membership.until = started.checked_add(self.session);
        }
        let interval = response
            .heartbeat_interval
            .and_then(|d| Duration::try_from(d).ok());
        if let Some(interval) = interval.filter(|interval| !interval.is_zero()) {
            self.interval = interval;
        }
        let unchanged = sent_epoch == response.member_epoch;
        let quiet = if unchanged {
            // Held by the server for about an interval; if it was not, this side keeps the pace.
            self.interval.saturating_sub(started.elapsed())
        } else {
            Duration::ZERO
        };
        let Some(assignment) = response.assignment else {
            return Some(quiet);
        };
        let target = match partitions_of(assignment) {
            Ok(target) => target,
            Err(error) => {
                let _ = self.tell.send(Control::Fatal(error));
                return None;
            }
        };
        if self.revoking.is_some() {
            return Some(self.interval.min(Duration::from_secs(1)));
        }
        let excess: BTreeSet<_> = self.owned.difference(&target).cloned().collect();
        if !excess.is_empty() {
            let (done, confirmed) = oneshot::channel();
            let _ = self.tell.send(Control::Revoke(excess.clone(), done));
            let deadline = Instant::now() + self.config.rebalance_timeout;
            self.revoking = Some(Revoking {
                partitions: excess,
                done: confirmed,
                deadline,
            });
            return Some(self.interval);
        }
        let added: Vec<_> = target.difference(&self.owned).cloned().collect();
        if added.is_empty() {
            return Some(quiet);
        }
        // A coordinator that does not say where to begin in time has given it all to others meanwhile.
        let begins = tokio::select! {
            begins = self.start_offsets(&added) => begins,
            () = session_end(false, self.heard, self.session) => {
                self.out();
                return Some(Duration::ZERO);
            }
        };
        match begins {
            Ok(resolved) => {
                let grant = self.next_grant;
                self.next_grant += 1;
                let granted = added.iter().map(|partition| (partition.clone(), grant));
                lock(&self.membership).grants.extend(granted);
                let partitions = added.iter().cloned().zip(resolved).collect();
                let _ = self.tell.send(Control::Assigned { grant, partitions });
                self.owned.extend(added);
                Some(Duration::ZERO)
            }
            Err(error) => self.on_error(error),
        }
    }

    /// Committed offsets, or the start that is configured for partitions without one.
    async fn start_offsets(
        &self,
        partitions: &[TopicPartition],
    ) -> Result<Vec<Resolved>, ClientError> {
        let admin = Admin::new(self.client.clone());
        let request = v1::GetOffsetsRequest {
            group: self.config.group.to_string(),
            partitions: partitions.iter().map(wire_partition).collect(),
            // Not waited for here, where heartbeats would wait too: it is asked again with the next.
            require_stable: true,
            ..Default::default()
        };
        let committed = match admin.offsets_of(request).await {
            Ok(offsets) => offsets,
            Err(error) if error.kind() == Some(ErrorKind::GroupNotFound) => Vec::new(),
            Err(error) => return Err(error),
        };
        let find = |partition: &TopicPartition| {
            let wire = wire_partition(partition);
            committed
                .iter()
                .find(|c| c.topic_partition.as_ref() == Some(&wire))
                .map(|c| c.offset)
        };
        let without: Vec<Assignment> = partitions
            .iter()
            .filter(|partition| find(partition).is_none())
            .map(|partition| Assignment {
                topic: partition.topic.clone(),
                partition: partition.partition.0,
                start: self.start_of(partition),
                end: End::Never,
            })
            .collect();
        let within = self.interval;
        let mut resolved = resolve(&self.client, within, &without).await?.into_iter();
        let offsets = partitions.iter().map(|partition| match find(partition) {
            Some(start) => Some(Resolved { start, end: None }),
            None => resolved.next(),
        });
        offsets
            .collect::<Option<_>>()
            .ok_or_else(|| ClientError::Protocol("fewer offsets than partitions".to_owned()))
    }

    /// Where a partition without a commit begins. A member that reads from now on has to read all of what came later.
    fn start_of(&self, partition: &TopicPartition) -> Start {
        let known = self.known.as_ref();
        let is_new = known.is_some_and(|known| {
            let count = known.get(&partition.topic).copied().unwrap_or(0);
            partition.partition.0 >= count
        });
        match self.config.start.0 {
            Start::Latest if is_new => Start::Earliest,
            start => start,
        }
    }

    /// Looks at the topics as they are, for a member that reads from now on.
    async fn look(&mut self) {
        if self.config.start.0 != Start::Latest {
            return;
        }
        // All that exist now, for a pattern: whether they match matters to those that come.
        let known = match self.config.topic_pattern.is_empty() {
            true => counts_of(&self.client, &self.config.topics).await,
            false => counts_of_all(&self.client, |_| true).await,
        };
        match known {
            Ok(known) => self.known = Some(known),
            Err(error) => tracing::debug!(%error, "could not look at the topics before joining"),
        }
    }

    /// Not a member any more: everything is given up, and the next heartbeat joins again.
    fn out(&mut self) {
        {
            // Before anybody is told: from here on nothing can be committed.
            let mut membership = lock(&self.membership);
            membership.grants.clear();
            membership.epoch = 0;
        }
        self.revoking = None;
        let lost = std::mem::take(&mut self.owned);
        let _ = self.tell.send(Control::Lost(lost));
    }

    fn on_error(&mut self, error: ClientError) -> Option<Duration> {
        if is_out(error.kind()) {
            self.out();
            return Some(Duration::ZERO);
        }
        if !error.is_retryable() {
            let _ = self.tell.send(Control::Fatal(error));
            return None;
        }
        tracing::debug!(group = %self.config.group, %error, "heartbeat failed");
        self.failures += 1;
        Some(Backoff::default().pause(self.failures, &mut self.random))
    }
}

/// Resolves when the front has confirmed, or has taken too long; never when nothing is being revoked.
async fn revoked(revoking: &mut Option<Revoking>) {
    match revoking {
        None => std::future::pending().await,
        Some(revoking) => {
            let _ = tokio::time::timeout_at(revoking.deadline, &mut revoking.done).await;
        }
    }
}

/// Resolves when the session is over for all this side knows; never for a member that owns nothing.
async fn session_end(idle: bool, heard: Instant, session: Duration) {
    match heard.checked_add(session).filter(|_| !idle) {
        Some(end) => tokio::time::sleep_until(end).await,
        None => std::future::pending().await,
    }
}

/// One heartbeat, at the coordinator.
async fn call(
    client: &Client,
    request: v1::HeartbeatRequest,
    held: Duration,
) -> Result<v1::HeartbeatResponse, ClientError> {
    let timeout = held + client.config().request_timeout.min(ANSWER);
    client
        .at_coordinator(&request.group, ANSWER, true, |address| {
            let mut request = tonic::Request::new(request.clone());
            request.set_timeout(timeout);
            async move {
                let mut service = client.group_service(&address, true)?;
                Ok(service.heartbeat(request).await?.into_inner())
            }
        })
        .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connect::ClientConfig;

    /// The coordinator may have given the partitions to others once the session is over, and nobody can say so.
    #[tokio::test]
    async fn a_member_that_nobody_answers_gives_up_when_its_session_ends() {
        let client = Client::new(ClientConfig {
            brokers: vec!["127.0.0.1:1".to_owned()],
            ..ClientConfig::default()
        })
        .unwrap();
        let topic: TopicName = "orders".parse().unwrap();
        let config = GroupConfig::new("billing".parse().unwrap(), vec![topic.clone()]);
        let membership = SharedMembership::default();
        lock(&membership).epoch = 7;
        let (tell, mut told) = mpsc::unbounded_channel();
        let mut member = Member::new(client, config, "m".to_owned(), membership.clone(), tell);
        let owned = BTreeSet::from([TopicPartition::new(topic, PartitionId(3))]);
        let session = Duration::from_millis(300);
        member.owned = owned.clone();
        member.session = session;
        let heard = member.heard;
        let (leave, left) = oneshot::channel();
        let task = tokio::spawn(member.run(left));
        let control = tokio::time::timeout(Duration::from_secs(30), told.recv()).await;
        match control.unwrap() {
            Some(Control::Lost(lost)) => assert_eq!(lost, owned),
            _ => panic!("only the loss is to be told"),
        }
        assert!(heard.elapsed() >= session, "not before the session is over");
        assert_eq!(lock(&membership).epoch, 0, "it joins anew");
        let _ = leave.send(());
        task.await.unwrap();
    }

    /// What a member is granted it gets only while its session lasts, however long it takes to learn where to begin.
    #[tokio::test]
    async fn a_grant_is_void_when_the_session_ends_before_its_offsets_are_known() {
        // Takes connections and says nothing.
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = Client::new(ClientConfig {
            brokers: vec![silent.local_addr().unwrap().to_string()],
            ..ClientConfig::default()
        })
        .unwrap();
        let topic: TopicName = "orders".parse().unwrap();
        let config = GroupConfig::new("billing".parse().unwrap(), vec![topic.clone()]);
        let membership = SharedMembership::default();
        let (tell, mut told) = mpsc::unbounded_channel();
        let mut member = Member::new(client, config, "m".to_owned(), membership.clone(), tell);
        let (held, granted) = (
            TopicPartition::new(topic.clone(), PartitionId(3)),
            TopicPartition::new(topic, PartitionId(4)),
        );
        member.owned = BTreeSet::from([held.clone()]);
        lock(&membership).grants.insert(held.clone(), 1);
        assert!(lock(&membership).holds(&held, 1) && !lock(&membership).holds(&held, 2));
        let partitions = [&held, &granted].map(wire_partition).to_vec();
        let session = Duration::from_millis(200);
        let answer = v1::HeartbeatResponse {
            member_epoch: 8,
            assignment: Some(v1::OwnedPartitions { partitions }),
            session_timeout: prost_types::Duration::try_from(session).ok(),
            ..Default::default()
        };
        let pause = member.on_answer(8, answer, Instant::now());
        let pause = tokio::time::timeout(Duration::from_secs(10), pause).await;
        assert_eq!(pause.unwrap(), Some(Duration::ZERO), "it joins anew");
        match told.try_recv() {
            Ok(Control::Lost(lost)) => assert_eq!(lost, BTreeSet::from([held.clone()])),
            _ => panic!("only the loss is to be told"),
        }
        assert!(!lock(&membership).holds(&held, 1));
        assert_eq!(lock(&membership).epoch, 0);
    }
}
