//! Random members that join, leave, crash, lose requests and replies, and repeat themselves: no two
//! current members ever own a partition (G1), targets cover everything (G2), epochs never decrease (G5),
//! and once members behave every partition is owned by exactly one of them within a few rounds.
//!
//! The coordinator goes too: its writes are slow, are refused (and may be in the log all the same), and
//! another one takes over from what is durable. Who has heard from a coordinator lately is a member
//! wherever the group is coordinated.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use proptest::prelude::*;
use varve_groups::{
    AppendId, Config, Coordinator, Failure, GroupDescription, GroupState, Heartbeat, Input,
    Matcher, Output, Reply, Subscription, Tick, Ticket, TopicState,
};
use varve_types::{ErrorKind, GroupName, MemberId, TopicId, TopicName, TopicPartition};

struct NoPatterns;

impl Matcher for NoPatterns {
    fn matches(&self, _: &str, _: &str) -> Result<bool, String> {
        Err("there are no patterns in this test".to_owned())
    }
}

#[derive(Debug, Clone)]
enum Action {
    Beat {
        member: usize,
        wait: bool,
        lose_request: bool,
        lose_reply: bool,
        /// Its writes are not durable at once.
        slow: bool,
    },
    /// The oldest write under way is durable.
    Write,
    /// The oldest write under way is refused, and is in the log or not.
    RefuseWrite {
        logged: bool,
    },
    /// Another coordinator reads what is durable. Bit by bit, which writes under way are.
    Failover {
        durable: u8,
    },
    /// The oldest write under way is refused, those after it are durable, and the coordinator goes.
    Tear,
    Rejoin {
        member: usize,
    },
    Leave {
        member: usize,
        keep: bool,
    },
    Crash {
        member: usize,
    },
    Abandon {
        member: usize,
    },
    Subscribe {
        member: usize,
        topics: u8,
    },
    Partitions {
        topic: usize,
        count: i32,
    },
    Expel {
        member: usize,
    },
    Advance {
        ms: u64,
    },
}

const MEMBERS: usize = 5;
const TOPICS: [&str; 2] = ["t", "u"];
const SESSION_MS: u64 = 10_000;
const REBALANCE_MS: u64 = 6_000;

fn action() -> impl Strategy<Value = Action> {
    let member = 0..MEMBERS;
    prop_oneof![
        14 => (
            member.clone(),
            any::<bool>(),
            prop::bool::weighted(0.1),
            prop::bool::weighted(0.2),
            prop::bool::weighted(0.4),
        )
            .prop_map(|(member, wait, lose_request, lose_reply, slow)| {
                Action::Beat { member, wait, lose_request, lose_reply, slow }
            }),
        4 => Just(Action::Write),
        2 => any::<bool>().prop_map(|logged| Action::RefuseWrite { logged }),
        1 => any::<u8>().prop_map(|durable| Action::Failover { durable }),
        2 => Just(Action::Tear),
        1 => member.clone().prop_map(|member| Action::Rejoin { member }),
        1 => (member.clone(), any::<bool>()).prop_map(|(member, keep)| Action::Leave { member, keep }),
        1 => member.clone().prop_map(|member| Action::Crash { member }),
        1 => member.clone().prop_map(|member| Action::Abandon { member }),
        1 => (member.clone(), 1_u8..4).prop_map(|(member, topics)| {
            Action::Subscribe { member, topics }
        }),
        1 => (0..TOPICS.len(), 0_i32..9).prop_map(|(topic, count)| {
            Action::Partitions { topic, count }
        }),
        1 => member.prop_map(|member| Action::Expel { member }),
        3 => (1_u64..4_000).prop_map(|ms| Action::Advance { ms }),
    ]
}

/// A member as a correct client implements it.
struct Client {
    id: MemberId,
    instance: Option<String>,
    incarnation: u32,
    epoch: i32,
    owned: BTreeSet<TopicPartition>,
    /// What the coordinator answered to last: leaving `owned` out means this.
    confirmed: Option<BTreeSet<TopicPartition>>,
    topics: u8,
    /// The heartbeat whose answer is awaited, with what it reported.
    waiting: Option<(Ticket, BTreeSet<TopicPartition>)>,
    /// Until then it is a member, whatever happens to others and to the coordinator.
    entitled: Tick,
}

type Record = (Vec<u8>, Option<Vec<u8>>);

struct World {
    coordinator: Coordinator,
    clients: Vec<Client>,
    counts: [i32; 2],
    now: Tick,
    next_ticket: u64,
    group: GroupName,
    /// Greatest epochs told, by member, while the group knows it.
    epochs: BTreeMap<MemberId, i32>,
    /// What is durable, in order.
    log: Vec<Record>,
    /// Writes under way.
    writes: VecDeque<(AppendId, Vec<Record>)>,
    slow: bool,
    answered: BTreeSet<Ticket>,
}

impl World {
    fn new() -> Self {
        let clients = (0..MEMBERS)
            .map(|i| Client {
                id: MemberId::new(&format!("m{i}-0")).unwrap(),
                instance: (i < 2).then(|| format!("instance-{i}")),
                incarnation: 0,
                epoch: 0,
                owned: BTreeSet::new(),
                confirmed: None,
                topics: 3,
                waiting: None,
                entitled: Tick(0),
            })
            .collect();
        let mut world = Self {
            coordinator: Coordinator::new(config(), Box::new(NoPatterns)),
            clients,
            counts: [4, 3],
            now: Tick(0),
            next_ticket: 0,
            group: GroupName::new("g").unwrap(),
            epochs: BTreeMap::new(),
            answered: BTreeSet::new(),
            log: Vec::new(),
            writes: VecDeque::new(),
            slow: false,
        };
        world.send_topics();
        world.step(Input::Loaded);
        world
    }

    fn ticket(&mut self) -> Ticket {
        self.next_ticket += 1;
        Ticket(self.next_ticket)
    }

    fn send_topics(&mut self) {
        let topics = TOPICS
            .iter()
            .zip(self.counts)
            .filter(|(_, partitions)| *partitions > 0)
            .map(|(name, partitions)| {
                (
                    TopicName::new(name).unwrap(),
                    TopicState {
                        id: TopicId(1),
                        partitions,
                    },
                )
            })
            .collect();
        self.step(Input::Topics(Arc::new(topics)));
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
                    self.deliver(*ticket, reply);
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
        // As compaction leaves it: the last record of each key, in its place.
        let all = std::mem::take(&mut self.log);
        for (at, (key, value)) in all.iter().enumerate() {
            if !all[at + 1..].iter().any(|(k, _)| k == key) {
                self.log.push((key.clone(), value.clone()));
            }
        }
        self.coordinator = Coordinator::new(config(), Box::new(NoPatterns));
        for client in &mut self.clients {
            client.waiting = None;
        }
        for (key, value) in self.log.clone() {
            self.step(Input::Load { key, value });
        }
        self.send_topics();
        self.step(Input::Loaded);
    }

    fn deliver(&mut self, ticket: Ticket, reply: &Reply) {
        let waiting = |c: &&mut Client| c.waiting.as_ref().is_some_and(|(t, _)| *t == ticket);
        let Some(client) = self.clients.iter_mut().find(waiting) else {
            return;
        };
        let Some((_, reported)) = client.waiting.take() else {
            return;
        };
        match reply {
            Reply::Heartbeat(reply) => {
                client.epoch = reply.member_epoch;
                client.confirmed = Some(reported);
                let mut gives_up = false;
                if let Some(assignment) = &reply.assignment {
                    let assignment: BTreeSet<_> = assignment.iter().cloned().collect();
                    gives_up = !client.owned.is_subset(&assignment);
                    client.owned = assignment;
                }
                // Who is asked to give something up has been asked before, perhaps, and did not hear.
                if !gives_up {
                    client.entitled = self.now.plus(REBALANCE_MS);
                }
                let told = self.epochs.insert(client.id.clone(), client.epoch);
                assert!(
                    told.is_none_or(|e| e <= client.epoch),
                    "G5: an epoch went back"
                );
            }
            Reply::Failed(failure) => match failure.kind {
                ErrorKind::UnknownMember | ErrorKind::FencedMemberEpoch => {
                    assert!(
                        client.epoch == 0 || client.entitled <= self.now,
                        "{} was a member a moment ago: {failure}",
                        client.id
                    );
                    self.epochs.remove(&client.id);
                    client.forget();
                }
                ErrorKind::InstanceIdInUse => client.forget(),
                // It comes again.
                _ => assert_eq!(failure.kind, ErrorKind::NotEnoughReplicas),
            },
            other => panic!("a heartbeat was answered with {other:?}"),
        }
    }

    fn beat(&mut self, index: usize, wait: bool, lose_request: bool, lose_reply: bool) {
        let ticket = self.ticket();
        let group = self.group.clone();
        let client = &mut self.clients[index];
        if lose_request {
            client.waiting = None;
            return;
        }
        let heartbeat = client.heartbeat(group, if wait { 2_000 } else { 0 });
        client.waiting = (!lose_reply).then(|| (ticket, client.owned.clone()));
        self.step(Input::Heartbeat {
            ticket,
            heartbeat: Box::new(heartbeat),
        });
    }

    fn leave(&mut self, index: usize, keep: bool) {
        let ticket = self.ticket();
        let group = self.group.clone();
        let client = &mut self.clients[index];
        // A correct client has stopped reading before it says so.
        let mut heartbeat = client.heartbeat(group, 0);
        heartbeat.leave = true;
        heartbeat.keep_assignment = keep;
        client.restart();
        self.step(Input::Heartbeat {
            ticket,
            heartbeat: Box::new(heartbeat),
        });
    }

    fn advance(&mut self, ms: u64) {
        let end = self.now.plus(ms);
        while let Some(due) = self.coordinator.next_deadline().filter(|d| *d <= end) {
            self.now = due.max(self.now);
            self.step(Input::Tick { wall_ms: 0 });
        }
        self.now = end;
    }

    fn run(&mut self, action: Action) {
        match action {
            Action::Beat {
                member,
                wait,
                lose_request,
                lose_reply,
                slow,
            } => {
                self.slow = slow;
                self.beat(member, wait, lose_request, lose_reply);
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
            Action::Rejoin { member } => self.clients[member].forget(),
            Action::Leave { member, keep } => self.leave(member, keep),
            Action::Crash { member } => self.clients[member].restart(),
            Action::Abandon { member } => {
                if let Some((ticket, _)) = self.clients[member].waiting.take() {
                    self.step(Input::Cancel { ticket });
                }
            }
            Action::Subscribe { member, topics } => self.clients[member].topics = topics,
            Action::Partitions { topic, count } => {
                self.counts[topic] = count;
                self.send_topics();
            }
            Action::Expel { member } => {
                let (ticket, group) = (self.ticket(), self.group.clone());
                let members = vec![self.clients[member].id.clone()];
                // An answer that was on its way does not make it a member again.
                self.clients[member].entitled = Tick(0);
                self.clients[member].waiting = None;
                self.step(Input::RemoveMembers {
                    ticket,
                    group,
                    members,
                });
            }
            Action::Advance { ms } => self.advance(ms),
        }
        self.check();
    }

    fn describe(&mut self) -> Option<GroupDescription> {
        let (ticket, group) = (self.ticket(), self.group.clone());
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
        self.check_beliefs();
        let Some(group) = self.describe() else {
            self.epochs.clear();
            return;
        };
        let mut owned = BTreeSet::new();
        let mut target = BTreeSet::new();
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
            let told = self.epochs.get(&member.member);
            assert!(
                told.is_none_or(|e| *e <= member.member_epoch),
                "G5: an epoch went back"
            );
            assert!(member.member_epoch <= group.group_epoch);
        }
        self.epochs
            .retain(|id, _| group.members.iter().any(|m| m.member == *id));
        let subscribed: BTreeSet<_> = group
            .members
            .iter()
            .flat_map(|m| &m.subscription.topics)
            .collect();
        let expected: i32 = TOPICS
            .iter()
            .zip(self.counts)
            .filter(|(name, _)| subscribed.iter().any(|t| t.as_str() == **name))
            .map(|(_, count)| count)
            .sum();
        assert_eq!(
            target.len() as i32,
            expected,
            "G2: every subscribed partition has a target"
        );
        // What the clients really own, not only what the coordinator believes.
        let mut real = BTreeSet::new();
        for client in &self.clients {
            if group.members.iter().any(|m| m.member == client.id) {
                for partition in &client.owned {
                    assert!(real.insert(partition), "G1: two members read {partition}");
                }
            }
        }
    }

    /// What members think they own, whatever the coordinator of the moment thinks.
    fn check_beliefs(&self) {
        let mut read = BTreeMap::new();
        for client in self.clients.iter().filter(|c| c.entitled > self.now) {
            for partition in &client.owned {
                if let Some(other) = read.insert(partition, &client.id) {
                    panic!("G1: {other} and {} both read {partition}", client.id);
                }
            }
        }
    }

    /// Everybody behaves from here on.
    fn converge(&mut self) {
        self.slow = false;
        while self.write() {}
        for _ in 0..SESSION_MS / 1_000 + 8 {
            for index in 0..MEMBERS {
                self.beat(index, false, false, false);
                self.check();
            }
            self.advance(1_000);
            self.check();
        }
        let group = self.describe().unwrap();
        assert_eq!(group.state, GroupState::Stable, "{group:#?}");
        assert_eq!(group.members.len(), MEMBERS);
        for (name, count) in TOPICS.iter().zip(self.counts) {
            let readers = |n: i32| {
                let reads = |c: &&Client| {
                    c.owned
                        .iter()
                        .any(|p| p.topic.as_str() == *name && p.partition.0 == n)
                };
                self.clients.iter().filter(reads).count()
            };
            let wanted = self
                .clients
                .iter()
                .any(|c| c.names().iter().any(|t| t.as_str() == *name));
            for number in 0..count {
                assert_eq!(
                    readers(number),
                    usize::from(wanted),
                    "readers of {name}-{number}"
                );
            }
        }
    }
}

fn config() -> Config {
    Config {
        session_timeout_ms: SESSION_MS,
        heartbeat_interval_ms: 2_000,
        rebalance_timeout_ms: REBALANCE_MS,
        ..Config::default()
    }
}

impl Client {
    fn names(&self) -> Vec<TopicName> {
        (0..TOPICS.len())
            .filter(|i| self.topics & (1 << i) != 0)
            .map(|i| TopicName::new(TOPICS[i]).unwrap())
            .collect()
    }

    fn heartbeat(&mut self, group: GroupName, max_wait_ms: u64) -> Heartbeat {
        let unchanged = self.epoch > 0 && self.confirmed.as_ref() == Some(&self.owned);
        self.confirmed = None;
        Heartbeat {
            group,
            member: self.id.clone(),
            member_epoch: self.epoch,
            leave: false,
            keep_assignment: false,
            instance: self.instance.clone(),
            subscription: Some(Subscription {
                topics: self.names(),
                pattern: String::new(),
                assignor: String::new(),
            }),
            owned: (!unchanged).then(|| self.owned.iter().cloned().collect()),
            rack: String::new(),
            session_timeout_ms: None,
            rebalance_timeout_ms: None,
            max_wait_ms,
            client_id: Arc::from("test"),
            peer: None,
        }
    }

    /// Gives up everything and will rejoin.
    fn forget(&mut self) {
        self.epoch = 0;
        self.owned.clear();
        self.confirmed = None;
        self.waiting = None;
        self.entitled = Tick(0);
    }

    /// The process starts again, under a new member id.
    fn restart(&mut self) {
        self.forget();
        self.incarnation += 1;
        let stem = self.id.as_str().split('-').next().unwrap().to_owned();
        self.id = MemberId::new(&format!("{stem}-{}", self.incarnation)).unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]
    #[test]
    fn members_share_partitions_whatever_happens(actions in prop::collection::vec(action(), 1..120)) {
        let mut world = World::new();
        for action in actions {
            world.run(action);
        }
        world.converge();
    }
}
