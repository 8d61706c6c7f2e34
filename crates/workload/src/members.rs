//! Members of groups that read and commit: of one group the library commits by itself, of the other the members do
//! after they have processed. Each lives for a while, and then leaves, or is killed; another takes its place.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use varve_check::Event;
use varve_client::{ClientError, GroupConfig, GroupConsumer};
use varve_types::{PartitionId, TopicPartition};

use crate::consumers::{self, Eyes, record};
use crate::groups::{Group, Kept, Owner, kept};
use crate::random::Random;
use crate::{Config, Shared, told};

const PAUSE: Duration = Duration::from_millis(200);
/// How long a member waits for records before it looks after its commits.
const TURN: Duration = Duration::from_millis(200);
/// A member that waits for a commit hears of nothing else meanwhile.
const COMMIT_WITHIN: Duration = Duration::from_millis(500);
/// Leaving may need a commit.
const LEAVE_WITHIN: Duration = Duration::from_secs(8);
const AUTO_COMMIT: Duration = Duration::from_millis(700);
/// Whoever does not give up partitions for so long is expelled, and hears of it only later: longer than any commit
/// takes that is made before.
const REBALANCE_WITHIN: Duration = Duration::from_secs(30);

/// A member of a group, one after the other.
struct Seat {
    shared: Arc<Shared>,
    group: Arc<Group>,
    /// It commits by itself, and the library does not.
    commits: bool,
    number: u32,
    random: Random,
}

/// How a member came to its end.
enum End {
    Leaves,
    Killed,
}

/// Starts all members of both groups.
pub fn start(
    shared: &Arc<Shared>,
    groups: [&Arc<Group>; 2],
    stopped: &watch::Receiver<bool>,
    tasks: &mut JoinSet<()>,
) {
    let config = &shared.config;
    let mut number = 0;
    for (group, commits) in groups.into_iter().zip([false, true]) {
        for _ in 0..config.members {
            let seat = Seat {
                shared: shared.clone(),
                group: group.clone(),
                commits,
                number,
                random: Random::new(config.seed ^ 0x5ea7 ^ (u64::from(number) << 40)),
            };
            tasks.spawn(seat.run(stopped.clone()));
            number += 1;
        }
    }
}

/// The settings of a member.
pub fn settings(config: &Config, group: &Group, auto_commit: Option<Duration>) -> GroupConfig {
    let mut settings = GroupConfig::new(group.name.clone(), vec![config.topic.clone()]);
    settings.auto_commit = auto_commit;
    settings.rebalance_timeout = REBALANCE_WITHIN;
    settings.consumer.open_timeout = Duration::from_secs(5);
    settings
}

/// When a life that begins now is to end. Groups that are shuffled all the time would read nothing.
pub fn end_of_life(config: &Config, random: &mut Random) -> Instant {
    let least = config.life.max(Duration::from_secs(4));
    Instant::now() + least.mul_f64(0.5 + random.below(100) as f64 / 100.0)
}

impl Seat {
    async fn run(mut self, mut stopped: watch::Receiver<bool>) {
        while !*stopped.borrow() {
            let member = self.shared.member();
            let owner = Owner {
                shared: self.shared.clone(),
                group: self.group.clone(),
                member,
                commits: self.commits,
                kept: Kept::default(),
            };
            let settings = settings(
                &self.shared.config,
                &self.group,
                (!self.commits).then_some(AUTO_COMMIT),
            );
            // Other connections every time: a new process has none.
            let client = self.shared.config.client(self.number.wrapping_add(member));
            let joined =
                client.and_then(|client| GroupConsumer::join_with(client, settings, owner.clone()));
            match joined {
                Ok(mut consumer) => {
                    let end = self.live(&owner, &mut consumer, &mut stopped).await;
                    match end {
                        End::Leaves => {
                            let _ = timeout(LEAVE_WITHIN, consumer.close()).await;
                        }
                        End::Killed => drop(consumer),
                    }
                    self.group.gone(&self.shared.recorder, member);
                }
                Err(error) => self.shared.recorder.note(format!("no member: {error}")),
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// One life.
    async fn live(
        &mut self,
        owner: &Owner<i64>,
        consumer: &mut GroupConsumer,
        stopped: &mut watch::Receiver<bool>,
    ) -> End {
        let shared = self.shared.clone();
        let (config, recorder) = (&shared.config, &shared.recorder);
        let end = end_of_life(config, &mut self.random);
        loop {
            let batch = tokio::select! {
                batch = consumer.poll(TURN) => batch,
                () = told(stopped) => return End::Leaves,
            };
            let idle = match batch {
                Ok(Some(batch)) => {
                    let seen = record(config, recorder, Eyes::of(owner.process()), &batch);
                    self.group.processed(&seen);
                    kept(&owner.kept).insert(seen.place, seen.next);
                    false
                }
                Ok(None) => true,
                Err(error) => {
                    consumers::failed(config, recorder, owner.process(), &error);
                    return End::Killed;
                }
            };
            if self.commits && (idle || self.random.below(8) == 0) {
                self.commit(owner, consumer).await;
            }
            if Instant::now() >= end && !shared.is_draining() {
                return match self.random.below(2) {
                    0 => End::Leaves,
                    _ => End::Killed,
                };
            }
        }
    }

    /// Commits what was processed of one partition.
    async fn commit(&mut self, owner: &Owner<i64>, consumer: &mut GroupConsumer) {
        let recorder = &self.shared.recorder;
        let Some((place, offset)) = ({
            let due = kept(&owner.kept);
            let at = self.random.below(due.len() as u64) as usize;
            due.iter().nth(at).map(|(place, offset)| (*place, *offset))
        }) else {
            return;
        };
        let op = recorder.number();
        recorder.event(Event::Commit {
            op,
            ns: recorder.ns(),
            group: self.group.name.to_string(),
            partition: place,
            offset,
            member: Some(owner.member),
        });
        let (topic, partition) = self.shared.config.place(place);
        let partition = TopicPartition::new(topic.clone(), PartitionId(partition));
        let committed = consumer.commit_offsets([(partition, offset)]);
        match timeout(COMMIT_WITHIN, committed).await {
            Ok(committed) => {
                recorder.answer(op, committed.as_ref().map(|()| None));
                let again = committed.as_ref().is_err_and(ClientError::is_retryable);
                if !again {
                    kept(&owner.kept).remove(&place);
                }
            }
            // It goes on with the next call, which is for as much or more.
            Err(_) => recorder.unknown(op, "it took too long"),
        }
    }
}

/// Asks now and then what groups have committed.
pub async fn ask(shared: Arc<Shared>, groups: Vec<Arc<Group>>, mut stopped: watch::Receiver<bool>) {
    let (config, recorder) = (&shared.config, &shared.recorder);
    let mut random = Random::new(config.seed ^ 0x9f0b);
    let (Ok(first), Ok(second)) = (config.client(0), config.client(1)) else {
        return;
    };
    for client in [first, second].iter().cycle() {
        let group = &groups[random.below(groups.len() as u64) as usize];
        let places = u64::try_from(config.partitions).unwrap_or(1);
        let place = i32::try_from(random.below(places)).unwrap_or(0);
        let asked = consumers::committed(config, recorder, client, group.name.as_str(), place);
        tokio::select! {
            _ = asked => {}
            () = told(&mut stopped) => return,
        }
        tokio::select! {
            () = tokio::time::sleep(PAUSE) => {}
            () = told(&mut stopped) => return,
        }
    }
}
