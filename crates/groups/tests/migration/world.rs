//! A group whose members speak either protocol, with their coordinators, log and clock.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use varve_groups::{
    AppendId, Config, Coordinator, Failure, GroupDescription, GroupState, Input, Matcher,
    OffsetCommit, Output, Reply, Tick, Ticket, TopicState,
};
use varve_types::{
    ErrorKind, GroupMigration, GroupName, MemberId, Offset, PartitionId, TopicId, TopicName,
    TopicPartition,
};

use crate::migration::client::{Client, Phase};

pub const CLIENTS: usize = 5;
pub const TOPICS: [&str; 2] = ["t", "u"];
pub const SESSION_MS: u64 = 10_000;
pub const REBALANCE_MS: u64 = 6_000;

#[derive(Debug, Clone)]
pub enum Action {
    /// The next thing a client would do.
    Act {
        client: usize,
        wait: bool,
        lose_request: bool,
        lose_reply: bool,
        /// Its writes are not durable at once.
        slow: bool,
    },
    Write,
    RefuseWrite {
        logged: bool,
    },
    /// Another coordinator reads what is durable. Bit by bit, which writes under way are.
    Failover {
        durable: u8,
    },
    /// The oldest write under way is refused, those after it are durable, and the coordinator goes.
    Tear,
    /// A client ends and starts again, with the one or the other protocol.
    Restart {
        client: usize,
        classic: bool,
        polite: bool,
    },
    /// A commit with an epoch before the one it was told.
    CommitStale {
        client: usize,
    },
    Subscribe {
        client: usize,
        topics: u8,
    },
    Partitions {
        topic: usize,
        count: i32,
    },
    Expel {
        client: usize,
    },
    Advance {
        ms: u64,
    },
}

fn first_partition() -> TopicPartition {
    TopicPartition::new(TopicName::new("t").unwrap(), PartitionId(0))
}

struct NoPatterns;

impl Matcher for NoPatterns {
    fn matches(&self, _: &str, _: &str) -> Result<bool, String> {
        Err("there are no patterns in this test".to_owned())
    }
}

type Record = (Vec<u8>, Option<Vec<u8>>);

pub struct World {
    config: Config,
    coordinator: Coordinator,
    clients: Vec<Client>,
    eager: bool,
    counts: [i32; 2],
    now: Tick,
    next: u64,
    group: GroupName,
    /// What is durable, in order.
    log: Vec<Record>,
    /// Writes under way.
    writes: VecDeque<(AppendId, Vec<Record>)>,
    slow: bool,
    answered: BTreeSet<Ticket>,
    /// The last epoch at which a member was seen without the first partition.
    without: BTreeMap<MemberId, i32>,
}

impl World {
    /// The first so many clients are static members.
    pub fn new(policy: GroupMigration, eager: bool, statics: usize) -> Self {
        let config = Config {
            session_timeout_ms: SESSION_MS,
            heartbeat_interval_ms: 2_000,
            rebalance_timeout_ms: REBALANCE_MS,
            migration: policy,
            ..Config::default()
        };
        let mut world = Self {
            coordinator: Coordinator::new(config.clone(), Box::new(NoPatterns)),
            config,
            clients: (0..CLIENTS).map(|n| Client::new(n, statics)).collect(),
            eager,
            counts: [4, 3],
            now: Tick(0),
            next: 0,
            group: GroupName::new("g").unwrap(),
            log: Vec::new(),
            writes: VecDeque::new(),
            slow: false,
            answered: BTreeSet::new(),
            without: BTreeMap::new(),
        };
        world.send_topics();
        world.step(Input::Loaded);
        world
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn send_topics(&mut self) {
        let state = |partitions| TopicState {
            id: TopicId(1),
            partitions,
        };
        let name = |name: &&str| TopicName::new(name).unwrap();
        let topics = TOPICS.iter().zip(self.counts);
        let topics = topics.map(|(topic, count)| (name(topic), state(count)));
        self.step(Input::Topics(Arc::new(topics.collect())));
    }

    /// Steps, delivers the replies that somebody waits for, and lets what is written be durable unless
    /// writes are slow.
    fn step(&mut self, input: Input) -> Vec<Output> {
        let mut out = Vec::new();
        self.coordinator.step(self.now, input, &mut out);
        for output in &out {
            match output {
                Output::Reply { ticket, reply } => {
                    assert!(self.answered.insert(*ticket), "{ticket:?} answered twice");
                    let waits = |c: &&mut Client| c.waits_for(*ticket);
                    if let Some(client) = self.clients.iter_mut().find(waits) {
                        client.hear(self.now, reply);
                    }
                }
                Output::Append { id, records, .. } => {
                    self.writes.push_back((*id, records.clone()));
                }
                other => panic!("{other:?}"),
            }
        }
        while !self.slow && self.write() {}
        out
    }

    /// The oldest write under way is durable.
    fn write(&mut self) -> bool {
        let Some((id, records)) = self.writes.pop_front() else {
            return false;
        };
        self.log.extend(records);
        self.step(Input::CommitDurable { id });
        true
    }

    fn refuse(&mut self, logged: bool) {
        let Some((id, records)) = self.writes.pop_front() else {
            return;
        };
        if logged {
            self.log.extend(records);
        }
        let failure = Failure::new(ErrorKind::NotEnoughReplicas, "a replica is away");
        self.step(Input::CommitFailed { id, failure });
    }

    fn failover(&mut self, durable: u8) {
        for (at, (_, records)) in std::mem::take(&mut self.writes).into_iter().enumerate() {
            if durable & (1 << (at % 8)) != 0 {
                self.log.extend(records);
            }
        }
        // As compaction leaves it: the last record of each key, in its place, tombstones gone.
        let all = std::mem::take(&mut self.log);
        for (at, (key, value)) in all.iter().enumerate() {
            if value.is_some() && !all[at + 1..].iter().any(|(k, _)| k == key) {
                self.log.push((key.clone(), value.clone()));
            }
        }
        self.coordinator = Coordinator::new(self.config.clone(), Box::new(NoPatterns));
        for client in &mut self.clients {
            client.miss();
        }
        for (key, value) in self.log.clone() {
            self.step(Input::Load { key, value });
        }
        self.send_topics();
        self.step(Input::Loaded);
    }

    fn act(&mut self, index: usize, wait: bool, lose_request: bool, lose_reply: bool) {
        let number = self.number();
        let (group, counts, eager) = (self.group.clone(), self.counts, self.eager);
        let client = &mut self.clients[index];
        if client.is_held() {
            return;
        }
        let input = client.next(group, Ticket(number), wait, eager, counts);
        if lose_reply || lose_request {
            client.miss();
        }
        if !lose_request {
            self.step(input);
        }
    }

    fn advance(&mut self, ms: u64) {
        let end = self.now.plus(ms);
        while let Some(due) = self.coordinator.next_deadline().filter(|d| *d <= end) {
            self.now = due.max(self.now);
            self.step(Input::Tick { wall_ms: 0 });
        }
        self.now = end;
    }

    pub fn run(&mut self, action: Action) {
        match action {
            Action::Act {
                client,
                wait,
                lose_request,
                lose_reply,
                slow,
            } => {
                self.slow = slow;
                self.act(client, wait, lose_request, lose_reply);
            }
            Action::Write => drop(self.write()),
            Action::RefuseWrite { logged } => self.refuse(logged),
            Action::Failover { durable } => self.failover(durable),
            Action::Tear => {
                self.slow = true;
                self.refuse(false);
                for _ in 0..self.writes.len() {
                    self.write();
                }
                self.failover(0);
            }
            Action::Restart {
                client,
                classic,
                polite,
            } => {
                let ticket = Ticket(self.number());
                let leave = self.clients[client].leave(self.group.clone(), ticket);
                self.clients[client].restart(classic);
                if let Some(leave) = leave.filter(|_| polite) {
                    self.step(leave);
                }
            }
            Action::CommitStale { client } => self.commit_stale(client),
            Action::Subscribe { client, topics } => self.clients[client].subscribe(topics),
            Action::Partitions { topic, count } => {
                self.counts[topic] = count;
                self.send_topics();
                for client in &mut self.clients {
                    client.look_again();
                }
            }
            Action::Expel { client } => self.expel(client),
            Action::Advance { ms } => self.advance(ms),
        }
        self.check();
    }

    fn commit_stale(&mut self, index: usize) {
        let ticket = Ticket(self.number());
        let client = &self.clients[index];
        let (Some(member), epoch) = (client.id.clone(), client.settled - 1) else {
            return;
        };
        if epoch < 0 {
            return;
        }
        let partition = first_partition();
        let out = self.step(Input::Commit {
            ticket,
            group: self.group.clone(),
            member: Some(member.clone()),
            member_epoch: epoch,
            offsets: vec![OffsetCommit {
                partition,
                offset: Offset::new(1).unwrap(),
                leader_epoch: None,
                metadata: String::new(),
            }],
            wall_ms: 0,
        });
        let refused = out.iter().any(|output| match output {
            Output::Reply { ticket: t, reply } if *t == ticket => {
                matches!(reply, Reply::Failed(_) | Reply::ClassicFailed(_))
            }
            _ => false,
        });
        if refused {
            return;
        }
        let group = self.describe().unwrap();
        let holder = group.members.iter().find(|m| m.member == member);
        let holder = holder.filter(|m| group.classic.is_none() && m.classic.is_none());
        assert!(
            holder.is_some_and(|m| m.owned.contains(&first_partition()))
                && self.without.get(&member).is_none_or(|seen| *seen <= epoch),
            "G4: a commit of epoch {epoch} went through: {out:?}, {group:#?}"
        );
    }

    fn expel(&mut self, index: usize) {
        let ticket = Ticket(self.number());
        let Some(member) = self.clients[index].id.clone() else {
            return;
        };
        // An answer that was on its way does not make it a member again.
        self.clients[index].expelled();
        self.step(Input::RemoveMembers {
            ticket,
            group: self.group.clone(),
            members: vec![member],
        });
    }

    fn describe(&mut self) -> Option<GroupDescription> {
        let (ticket, group) = (Ticket(self.number()), self.group.clone());
        let out = self.step(Input::GetGroup { ticket, group });
        out.into_iter().find_map(|output| match output {
            Output::Reply {
                ticket: t,
                reply: Reply::Group(group),
            } if t == ticket => Some(*group),
            _ => None,
        })
    }

    fn check(&mut self) {
        let mut read = BTreeMap::new();
        for (at, client) in self.clients.iter().enumerate() {
            for partition in client.owned.iter().filter(|_| client.entitled > self.now) {
                if let Some(other) = read.insert(partition.clone(), at) {
                    panic!("G1: {other} and {at} both read {partition}");
                }
            }
        }
        if let Some(group) = self.describe().filter(|g| g.classic.is_none()) {
            self.check_consumer_group(&group);
        }
    }

    fn check_consumer_group(&mut self, group: &GroupDescription) {
        for member in &group.members {
            if !member.owned.contains(&first_partition()) {
                self.without
                    .insert(member.member.clone(), member.member_epoch);
            }
        }
        let (mut owned, mut target) = (BTreeSet::new(), BTreeSet::new());
        let mut subscribed = BTreeSet::new();
        for member in &group.members {
            for partition in &member.owned {
                assert!(owned.insert(partition), "G1: {partition} is granted twice");
            }
            for partition in &member.target {
                assert!(
                    target.insert(partition),
                    "G2: {partition} is in two targets"
                );
            }
            subscribed.extend(&member.subscription.topics);
            assert!(member.member_epoch <= group.group_epoch, "G5");
        }
        let counts = TOPICS.iter().zip(self.counts);
        let wanted = counts.filter(|(name, _)| subscribed.iter().any(|t| t.as_str() == **name));
        let wanted: i32 = wanted.map(|(_, count)| count).sum();
        assert_eq!(target.len() as i32, wanted, "G2: everything has a target");
    }

    /// Everybody behaves from here on.
    pub fn converge(&mut self) {
        self.slow = false;
        while self.write() {}
        for _ in 0..100 {
            for index in 0..CLIENTS {
                self.act(index, false, false, false);
                self.check();
            }
            self.advance(500);
            self.check();
        }
        let group = self.describe().unwrap();
        assert_eq!(group.state, GroupState::Stable, "{group:#?}");
        assert_eq!(group.members.len(), CLIENTS, "{group:#?}");
        let consumers = self.clients.iter().any(|c| !c.classic);
        let downgrades = self.config.migration.downgrades();
        assert!(group.classic.is_none() || !consumers, "{group:#?}");
        assert!(
            group.classic.is_some() || consumers || !downgrades,
            "nobody speaks the consumer protocol: {group:#?}"
        );
        for member in &group.members {
            let client = self
                .clients
                .iter()
                .find(|c| c.id.as_ref() == Some(&member.member));
            let client = client.unwrap_or_else(|| panic!("{} is nobody", member.member));
            assert_eq!(member.classic.is_some(), client.classic, "{group:#?}");
            assert!(client.phase == Phase::Settled, "{}", member.member);
            let owned: BTreeSet<_> = member.owned.iter().cloned().collect();
            assert_eq!(owned, client.owned, "{}", member.member);
        }
        for (topic, count) in TOPICS.iter().zip(self.counts) {
            let wanted = self
                .clients
                .iter()
                .any(|c| c.names().iter().any(|n| n.as_str() == *topic));
            for number in 0..count {
                let partition =
                    TopicPartition::new(TopicName::new(topic).unwrap(), PartitionId(number));
                let readers = self.clients.iter().filter(|c| c.owned.contains(&partition));
                assert_eq!(
                    readers.count(),
                    usize::from(wanted),
                    "readers of {partition}"
                );
            }
        }
    }
}
