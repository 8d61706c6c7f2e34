//! Groups with members: who owns what, as the members themselves know it, and what all of them together have read.
//!
//! A member owns a partition from its callback on until the end of the callback that takes it, or until it knows
//! better: the client library may know that the session is over before the member comes to hear of it, and then
//! nobody may be blamed for owning the partition next.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::timeout;
use varve_check::Event;
use varve_client::proto as v1;
use varve_client::{Admin, Client, ClientError, Rebalance, RebalanceFuture, RebalanceListener};
use varve_types::{GroupName, TopicPartition};

use crate::consumers::{Seen, seek};
use crate::{Config, Recorder, Shared};

/// Members of the first group read as processes from here on.
const MEMBERS: u32 = 10_000;
/// All members of a group together, as one reader, are the process of the group's number above this.
const TOGETHER: u32 = 3_000;
/// Records in one event of what a group has read.
const CHUNK: usize = 500;
/// A commit in a callback must not keep the member from what else it is told.
const COMMIT_WITHIN: Duration = Duration::from_millis(500);

/// Offset, with value and leader epoch.
type Records = BTreeMap<i64, (u64, i64)>;

/// A group.
#[derive(Debug)]
pub struct Group {
    pub name: GroupName,
    number: u32,
    ledger: Mutex<Ledger>,
}

#[derive(Debug, Default)]
struct Ledger {
    /// Who owns what, and what its library says of that.
    owners: BTreeMap<i32, (u32, Rebalance)>,
    /// What was processed, by any member.
    processed: BTreeMap<i32, Records>,
    /// Calls of the read of everything that all members together are, by partition.
    calls: Vec<u64>,
}

impl Group {
    pub fn new(name: GroupName, number: u32) -> Self {
        Self {
            name,
            number,
            ledger: Mutex::default(),
        }
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn own(
        &self,
        recorder: &Recorder,
        member: u32,
        place: i32,
        partition: &TopicPartition,
        rebalance: &Rebalance,
    ) {
        let mut ledger = self.ledger();
        // Lost again already: the next callback says so.
        if !rebalance.holds(partition) {
            return;
        }
        let (group, ns) = (self.name.to_string(), recorder.ns());
        if let Some((other, held)) = ledger.owners.get(&place)
            && *other != member
            && !held.holds(partition)
        {
            recorder.event(Event::Disown {
                group: group.clone(),
                member: *other,
                partition: place,
                ns,
            });
        }
        recorder.event(Event::Own {
            group,
            member,
            partition: place,
            ns,
        });
        ledger.owners.insert(place, (member, rebalance.clone()));
    }

    fn disown(&self, recorder: &Recorder, member: u32, place: i32) {
        let mut ledger = self.ledger();
        recorder.event(Event::Disown {
            group: self.name.to_string(),
            member,
            partition: place,
            ns: recorder.ns(),
        });
        if ledger
            .owners
            .get(&place)
            .is_some_and(|(of, _)| *of == member)
        {
            ledger.owners.remove(&place);
        }
    }

    /// A member does not run any more.
    pub fn gone(&self, recorder: &Recorder, member: u32) {
        let mut ledger = self.ledger();
        let ns = recorder.ns();
        recorder.event(Event::Gone { member, ns });
        ledger.owners.retain(|_, (of, _)| *of != member);
    }

    /// A member is done with what it was given.
    pub fn processed(&self, seen: &Seen) {
        let mut ledger = self.ledger();
        let records = ledger.processed.entry(seen.place).or_default();
        for (offset, value) in &seen.records {
            records.entry(*offset).or_insert((*value, seen.epoch));
        }
    }

    /// Begins the read of everything that all members together are: what is known to be there now, some of them must
    /// have processed when it ends.
    pub fn call_for_all(&self, config: &Config, recorder: &Recorder) {
        let process = TOGETHER + self.number;
        let calls = (0..config.partitions).map(|partition| {
            let (op, ns) = (recorder.number(), recorder.ns());
            recorder.event(Event::Final {
                op,
                ns,
                process,
                partition,
            });
            op
        });
        self.ledger().calls = calls.collect();
    }

    /// Ends it, with all that was processed: what no member has processed is missing in it. The partitions were
    /// processed up to `ends`.
    pub fn tell(&self, recorder: &Recorder, ends: &[i64]) {
        let process = TOGETHER + self.number;
        let ledger = self.ledger();
        let none = Records::new();
        for ((place, op), end) in (0..).zip(&ledger.calls).zip(ends) {
            let records = ledger.processed.get(&place).unwrap_or(&none);
            let all: Vec<_> = records.iter().collect();
            let of_one_epoch = all.chunk_by(|(_, (_, a)), (_, (_, b))| a == b);
            for some in of_one_epoch.flat_map(|some| some.chunks(CHUNK)) {
                recorder.event(Event::Poll {
                    process,
                    ns: recorder.ns(),
                    partition: place,
                    epoch: some[0].1.1,
                    high_watermark: -1,
                    records: some.iter().map(|(at, (value, _))| (**at, *value)).collect(),
                    uncommitted: false,
                    txn: None,
                });
            }
            recorder.event(Event::Ok {
                op: *op,
                ns: recorder.ns(),
                offset: Some(*end),
            });
        }
    }
}

/// What a member keeps by partition, and must forget with it.
pub type Kept<T> = Arc<Mutex<BTreeMap<i32, T>>>;

/// Locks what a member keeps.
pub fn kept<T>(kept: &Kept<T>) -> MutexGuard<'_, BTreeMap<i32, T>> {
    kept.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One life of one member, as it is told of partitions that come and go.
#[derive(Debug)]
pub struct Owner<T> {
    pub shared: Arc<Shared>,
    pub group: Arc<Group>,
    pub member: u32,
    /// It commits what it has processed when partitions are taken.
    pub commits: bool,
    pub kept: Kept<T>,
}

impl<T> Clone for Owner<T> {
    fn clone(&self) -> Self {
        Self {
            shared: self.shared.clone(),
            group: self.group.clone(),
            kept: self.kept.clone(),
            ..*self
        }
    }
}

impl<T> Owner<T> {
    /// The process that it reads as.
    pub const fn process(&self) -> u32 {
        MEMBERS + self.member
    }

    fn place(&self, partition: &TopicPartition) -> i32 {
        let config = &self.shared.config;
        config.place_of(&partition.topic, partition.partition.0)
    }

    fn forget<'a>(&self, partitions: impl IntoIterator<Item = &'a TopicPartition>) {
        for partition in partitions {
            let place = self.place(partition);
            kept(&self.kept).remove(&place);
            self.group.disown(&self.shared.recorder, self.member, place);
        }
    }

    async fn commit(&self, rebalance: &Rebalance) {
        let recorder = &self.shared.recorder;
        let commits = rebalance.processed().iter().map(|(partition, offset)| {
            let op = recorder.number();
            recorder.event(Event::Commit {
                op,
                ns: recorder.ns(),
                group: self.group.name.to_string(),
                partition: self.place(partition),
                offset: *offset,
                member: Some(self.member),
            });
            op
        });
        let ops: Vec<u64> = commits.collect();
        if ops.is_empty() {
            return;
        }
        let committed = timeout(COMMIT_WITHIN, rebalance.commit_processed()).await;
        for op in ops {
            match &committed {
                Ok(committed) => recorder.answer(op, committed.as_ref().map(|()| None)),
                Err(_) => recorder.unknown(op, "it took too long"),
            }
        }
    }
}

impl<T: Send + 'static> RebalanceListener for Owner<T> {
    fn on_assigned(&mut self, rebalance: Rebalance) -> RebalanceFuture {
        let recorder = &self.shared.recorder;
        for partition in rebalance.partitions() {
            let place = self.place(partition);
            kept(&self.kept).remove(&place);
            seek(recorder, self.process(), place, None);
            self.group
                .own(recorder, self.member, place, partition, &rebalance);
        }
        Box::pin(std::future::ready(()))
    }

    fn on_revoked(&mut self, rebalance: Rebalance) -> RebalanceFuture {
        let owner = self.clone();
        Box::pin(async move {
            if owner.commits {
                owner.commit(&rebalance).await;
            }
            owner.forget(rebalance.partitions());
        })
    }

    fn on_lost(
        &mut self,
        partitions: std::collections::BTreeSet<TopicPartition>,
    ) -> RebalanceFuture {
        self.forget(&partitions);
        Box::pin(std::future::ready(()))
    }
}

/// The least that a group has committed of every partition that is not empty, by place; nothing decided may be
/// missing in it.
///
/// # Errors
/// As the cluster says.
pub async fn progress(
    config: &Config,
    client: &Client,
    group: &Group,
) -> Result<BTreeMap<i32, i64>, ClientError> {
    let partitions = (0..config.partitions).map(|partition| v1::TopicPartition {
        topic: config.topic.to_string(),
        partition,
    });
    let request = v1::GetOffsetsRequest {
        group: group.name.to_string(),
        partitions: partitions.collect(),
        include_lag: false,
        require_stable: true,
    };
    let found = Admin::new(client.clone()).get_offsets(request).await?;
    let offsets = found.offsets.into_iter().filter_map(|found| {
        let at = found.topic_partition?;
        Some((at.partition, found.offset))
    });
    Ok(offsets.collect())
}
