//! Random members of a classic group that join, sync, fall silent, leave and start again, while writes are
//! slow or refused and coordinators go: one leader per generation, generations never go back, every member
//! has what the leader of its generation assigned to it, and once members behave they come to rest.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use proptest::prelude::*;
use varve_groups::{
    AppendId, ClassicError, ClassicHeartbeat, ClassicJoin, ClassicJoined, ClassicLeave,
    ClassicState, ClassicSync, Config, Coordinator, Failure, Input, Matcher, Output, Reply, Tick,
    Ticket, codec,
};
use varve_types::{ErrorKind, GroupName, MemberId};

struct NoPatterns;

impl Matcher for NoPatterns {
    fn matches(&self, _: &str, _: &str) -> Result<bool, String> {
        Err("there are no patterns in this test".to_owned())
    }
}

#[derive(Debug, Clone)]
enum Action {
    /// The next thing a client would do: join, sync or heartbeat.
    Act {
        client: usize,
        lose_reply: bool,
        slow: bool,
    },
    /// It joins again, with something new to say or not.
    Join {
        client: usize,
        changes: bool,
    },
    Leave {
        client: usize,
    },
    Crash {
        client: usize,
    },
    Write,
    RefuseWrite {
        logged: bool,
    },
    Failover {
        durable: u8,
    },
    Advance {
        ms: u64,
    },
}

const CLIENTS: usize = 4;

fn action() -> impl Strategy<Value = Action> {
    let client = 0..CLIENTS;
    prop_oneof![
        14 => (client.clone(), prop::bool::weighted(0.15), prop::bool::weighted(0.4))
            .prop_map(|(client, lose_reply, slow)| Action::Act { client, lose_reply, slow }),
        1 => (client.clone(), any::<bool>())
            .prop_map(|(client, changes)| Action::Join { client, changes }),
        1 => client.clone().prop_map(|client| Action::Leave { client }),
        1 => client.prop_map(|client| Action::Crash { client }),
        4 => Just(Action::Write),
        1 => any::<bool>().prop_map(|logged| Action::RefuseWrite { logged }),
        1 => any::<u8>().prop_map(|durable| Action::Failover { durable }),
        4 => (1_u64..4_000).prop_map(|ms| Action::Advance { ms }),
    ]
}

#[derive(Default)]
struct Client {
    id: Option<MemberId>,
    /// Answer to its last join.
    joined: Option<ClassicJoined>,
    /// Generation and assignment it works with.
    holds: Option<(i32, Vec<u8>)>,
    /// Changes with what it says of itself.
    version: u32,
    waiting: Option<Ticket>,
}

type Record = (Vec<u8>, Option<Vec<u8>>);

struct World {
    coordinator: Coordinator,
    incarnation: u32,
    clients: Vec<Client>,
    now: Tick,
    next: u64,
    group: GroupName,
    /// Leaders by coordinator and generation.
    leaders: BTreeMap<(u32, i32), MemberId>,
    /// Who assigned in a generation, as somebody was told.
    told: BTreeMap<i32, String>,
    answered: BTreeSet<Ticket>,
    log: Vec<Record>,
    writes: VecDeque<(AppendId, Vec<Record>)>,
    slow: bool,
}

impl World {
    fn new() -> Self {
        let mut world = Self {
            coordinator: Coordinator::new(Config::default(), Box::new(NoPatterns)),
            incarnation: 0,
            clients: (0..CLIENTS).map(|_| Client::default()).collect(),
            now: Tick(0),
            next: 0,
            group: GroupName::new("g").unwrap(),
            leaders: BTreeMap::new(),
            told: BTreeMap::new(),
            answered: BTreeSet::new(),
            log: Vec::new(),
            writes: VecDeque::new(),
            slow: false,
        };
        world.step(Input::Topics(Arc::default()));
        world.step(Input::Loaded);
        world
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

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
        self.incarnation += 1;
        self.coordinator = Coordinator::new(Config::default(), Box::new(NoPatterns));
        for client in &mut self.clients {
            client.waiting = None;
        }
        for (key, value) in self.log.clone() {
            self.step(Input::Load { key, value });
        }
        self.step(Input::Topics(Arc::default()));
        self.step(Input::Loaded);
    }

    fn deliver(&mut self, ticket: Ticket, reply: &Reply) {
        let waits = |c: &&mut Client| c.waiting == Some(ticket);
        let Some(client) = self.clients.iter_mut().find(waits) else {
            return;
        };
        client.waiting = None;
        match reply {
            Reply::ClassicJoined(joined) => {
                let place = (self.incarnation, joined.generation);
                let told = joined.leader.clone().expect("a member leads");
                let leader = self.leaders.entry(place).or_insert(told.clone());
                assert_eq!(*leader, told, "one leader per generation");
                assert_eq!(told == joined.member, !joined.members.is_empty());
                let latest = self.told.last_key_value().map_or(0, |(g, _)| *g);
                assert!(joined.generation >= latest, "a generation went back");
                client.id = Some(joined.member.clone());
                client.holds = None;
                client.joined = Some((**joined).clone());
            }
            Reply::ClassicSynced(synced) => {
                let joined = client.joined.as_ref().unwrap();
                let text = String::from_utf8(synced.assignment.clone()).unwrap();
                // Who came to a generation after its leader had assigned has nothing.
                let (by, to) = text.rsplit_once('>').expect("every member was assigned");
                assert_eq!(to, joined.member.as_str());
                let durable = self.log.iter().filter_map(|(_, value)| value.as_deref());
                let mut durable = durable.filter_map(|v| codec::decode_classic(v).ok());
                assert!(
                    durable.any(|r| r.generation == joined.generation
                        && r.members.iter().any(|m| m.assignment == synced.assignment)),
                    "what is told is durable"
                );
                let told = self.told.entry(joined.generation);
                assert_eq!(
                    told.or_insert_with(|| by.to_owned()),
                    by,
                    "one assignment per generation"
                );
                client.holds = Some((joined.generation, synced.assignment.clone()));
            }
            Reply::ClassicAlive | Reply::ClassicLeft(_) => {}
            Reply::ClassicFailed(error) => match error {
                ClassicError::MemberIdRequired(id) => client.id = Some(id.clone()),
                ClassicError::UnknownMember => client.forget(),
                ClassicError::IllegalGeneration | ClassicError::RebalanceInProgress => {
                    client.joined = None;
                }
                other => panic!("{other:?}"),
            },
            Reply::Failed(_) => client.joined = None,
            other => panic!("{other:?}"),
        }
    }

    fn send(&mut self, client: usize, lose_reply: bool, input: impl FnOnce(Ticket) -> Input) {
        let ticket = Ticket(self.number());
        self.clients[client].waiting = (!lose_reply).then_some(ticket);
        self.step(input(ticket));
    }

    fn join(&mut self, index: usize, lose_reply: bool) {
        let number = self.number();
        let client = &mut self.clients[index];
        client.joined = None;
        // It stops working before it joins.
        client.holds = None;
        let join = ClassicJoin {
            group: self.group.clone(),
            member: client.id.clone(),
            proposed: MemberId::new(&format!("m{index}-{number}")).unwrap(),
            instance: None,
            protocol_type: "consumer".to_owned(),
            protocols: vec![("range".to_owned(), client.version.to_be_bytes().to_vec())],
            session_timeout_ms: 10_000,
            rebalance_timeout_ms: 6_000,
            client_id: Arc::from("test"),
            peer: None,
            require_known_member_id: index.is_multiple_of(2),
        };
        self.send(index, lose_reply, |ticket| Input::ClassicJoin {
            ticket,
            join: Box::new(join),
        });
    }

    /// What a client does next. One that waits goes on waiting.
    fn act(&mut self, index: usize, lose_reply: bool) {
        let client = &self.clients[index];
        if client.waiting.is_some() {
            return;
        }
        let Some(joined) = client.joined.clone() else {
            return self.join(index, lose_reply);
        };
        let group = self.group.clone();
        if client.holds.is_some() {
            let heartbeat = ClassicHeartbeat {
                group,
                member: joined.member,
                generation: joined.generation,
                instance: None,
            };
            return self.send(index, lose_reply, |ticket| Input::ClassicHeartbeat {
                ticket,
                heartbeat: Box::new(heartbeat),
            });
        }
        let incarnation = self.incarnation;
        let assign = |id: &MemberId| {
            let by = format!("{incarnation}/{}/{}", joined.generation, joined.member);
            (id.clone(), format!("{by}>{id}").into_bytes())
        };
        let sync = ClassicSync {
            group,
            member: joined.member.clone(),
            generation: joined.generation,
            instance: None,
            protocol_type: Some("consumer".to_owned()),
            protocol: Some("range".to_owned()),
            assignments: joined.members.iter().map(|m| assign(&m.member)).collect(),
        };
        self.send(index, lose_reply, |ticket| Input::ClassicSync {
            ticket,
            sync: Box::new(sync),
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
            Action::Act {
                client,
                lose_reply,
                slow,
            } => {
                self.slow = slow;
                self.act(client, lose_reply);
            }
            Action::Join { client, changes } => {
                self.clients[client].version += u32::from(changes);
                self.join(client, false);
            }
            Action::Leave { client } => {
                let group = self.group.clone();
                let members = vec![(self.clients[client].id.clone(), None)];
                self.clients[client].forget();
                self.send(client, true, |ticket| Input::ClassicLeave {
                    ticket,
                    leave: Box::new(ClassicLeave { group, members }),
                });
            }
            Action::Crash { client } => self.clients[client].forget(),
            Action::Write => drop(self.write()),
            Action::RefuseWrite { logged } => self.refuse(logged),
            Action::Failover { durable } => self.failover(durable),
            Action::Advance { ms } => self.advance(ms),
        }
        self.check();
    }

    fn check(&mut self) {
        let (ticket, group) = (Ticket(self.number()), self.group.clone());
        let out = self.step(Input::GetGroup { ticket, group });
        let group = out.into_iter().find_map(|output| match output {
            Output::Reply {
                ticket: t,
                reply: Reply::Group(group),
            } if t == ticket => Some(group),
            _ => None,
        });
        // A group without members and offsets is forgotten, with its generations.
        let Some(group) = group.filter(|g| !g.members.is_empty()) else {
            self.told.clear();
            self.leaders.clear();
            return;
        };
        let state = group.classic.as_ref().unwrap().state;
        let latest = self.told.last_key_value().map_or(0, |(g, _)| *g);
        assert!(group.group_epoch >= latest, "a generation went back");
        for member in group
            .members
            .iter()
            .filter(|_| state == ClassicState::Stable)
        {
            let holder = |c: &&Client| c.id.as_ref() == Some(&member.member);
            let Some(client) = self.clients.iter().find(holder) else {
                continue;
            };
            if let Some((generation, assignment)) = &client.holds
                && *generation == group.group_epoch
            {
                let stored = &member.classic.as_ref().unwrap().1;
                assert_eq!(stored, assignment, "what it holds is what is assigned");
            }
        }
    }

    /// Everybody behaves from here on.
    fn converge(&mut self) {
        self.slow = false;
        while self.write() {}
        for _ in 0..60 {
            for index in 0..CLIENTS {
                self.act(index, false);
                self.check();
            }
            self.advance(500);
            self.check();
        }
        let held: BTreeSet<_> = self
            .clients
            .iter()
            .map(|c| c.holds.as_ref().expect("everybody has an assignment").0)
            .collect();
        assert_eq!(held.len(), 1, "everybody is in one generation: {held:?}");
    }
}

impl Client {
    fn forget(&mut self) {
        *self = Self {
            version: self.version,
            ..Self::default()
        };
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]
    #[test]
    fn members_get_what_their_leader_assigned(actions in prop::collection::vec(action(), 1..120)) {
        let mut world = World::new();
        for action in actions {
            world.run(action);
        }
        world.converge();
    }
}
