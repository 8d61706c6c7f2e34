//! A member as a correct client implements it, in either protocol.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use varve_groups::{
    ClassicError, ClassicHeartbeat, ClassicJoin, ClassicJoined, ClassicLeave, ClassicSync,
    Heartbeat, HeartbeatReply, Input, Reply, Subscription, Tick, Ticket,
    codec::{
        EmbeddedAssignment, EmbeddedSubscription, by_topic, decode_assignment, decode_subscription,
        encode_assignment, encode_subscription, partition_set,
    },
};
use varve_types::{ErrorKind, GroupName, MemberId, PartitionId, TopicName, TopicPartition};

use crate::migration::world::{REBALANCE_MS, SESSION_MS, TOPICS};

/// Where a client of the classic protocol is. One of the consumer protocol is always settled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Phase {
    /// It is to join, again or anew.
    Joins,
    /// It has been answered, and is to ask for its assignment; as leader with the members.
    Syncs(ClassicJoined),
    Settled,
}

pub struct Client {
    number: usize,
    incarnation: u32,
    pub id: Option<MemberId>,
    instance: Option<String>,
    pub classic: bool,
    /// Epoch or generation it was told last; 0 while it is none.
    pub epoch: i32,
    /// The last of those in which it was told what it owns: what it knows of is durable.
    pub settled: i32,
    pub owned: BTreeSet<TopicPartition>,
    pub phase: Phase,
    topics: u8,
    /// The call whose answer is awaited, with what it said it owns.
    waiting: Option<(Ticket, BTreeSet<TopicPartition>)>,
    /// What the coordinator answered to last: in the consumer protocol, leaving `owned` out means this.
    confirmed: Option<BTreeSet<TopicPartition>>,
    /// An answer was lost since it was last told that all is well.
    missed: bool,
    /// Until then nobody else owns what it owns, whatever happens to others and to the coordinator.
    pub entitled: Tick,
}

impl Client {
    pub fn new(number: usize, statics: usize) -> Self {
        let mut client = Self {
            number,
            incarnation: 0,
            id: None,
            instance: (number < statics).then(|| format!("instance-{number}")),
            classic: false,
            epoch: 0,
            settled: 0,
            owned: BTreeSet::new(),
            phase: Phase::Joins,
            topics: 3,
            waiting: None,
            confirmed: None,
            missed: false,
            entitled: Tick(0),
        };
        client.restart(!number.is_multiple_of(3));
        client
    }

    /// The process starts again.
    pub fn restart(&mut self, classic: bool) {
        self.forget();
        self.incarnation += 1;
        self.classic = classic;
        self.id = (!classic).then(|| self.fresh_id());
    }

    fn fresh_id(&self) -> MemberId {
        MemberId::new(&format!("m{}-{}", self.number, self.incarnation)).unwrap()
    }

    /// It owns nothing any more, and is to join.
    fn forget(&mut self) {
        self.epoch = 0;
        self.settled = 0;
        self.owned.clear();
        self.phase = Phase::Joins;
        self.waiting = None;
        self.confirmed = None;
        self.missed = false;
        self.entitled = Tick(0);
    }

    pub fn expelled(&mut self) {
        self.entitled = Tick(0);
        self.waiting = None;
    }

    pub fn waits_for(&self, ticket: Ticket) -> bool {
        self.waiting.as_ref().is_some_and(|(t, _)| *t == ticket)
    }

    /// A call of the classic protocol that is held is not repeated; a heartbeat of the other may be.
    pub fn is_held(&self) -> bool {
        self.classic && self.waiting.is_some()
    }

    /// The answer to its last call is lost.
    pub fn miss(&mut self) {
        if self.waiting.take().is_some() {
            self.missed = true;
            self.confirmed = None;
        }
    }

    pub fn subscribe(&mut self, topics: u8) {
        self.topics = topics;
        self.look_again();
    }

    /// Topics have changed: a member of the classic protocol joins again.
    pub fn look_again(&mut self) {
        if self.classic && self.phase == Phase::Settled && self.waiting.is_none() {
            self.phase = Phase::Joins;
        }
    }

    pub fn names(&self) -> Vec<TopicName> {
        (0..TOPICS.len())
            .filter(|i| self.topics & (1 << i) != 0)
            .map(|i| TopicName::new(TOPICS[i]).unwrap())
            .collect()
    }

    /// What it says when it ends in order. It has stopped reading before.
    pub fn leave(&mut self, group: GroupName, ticket: Ticket) -> Option<Input> {
        let member = self.id.clone()?;
        if !self.classic {
            let mut heartbeat = self.heartbeat(group, 0);
            heartbeat.leave = true;
            heartbeat.keep_assignment = self.instance.is_some();
            return Some(Input::Heartbeat {
                ticket,
                heartbeat: Box::new(heartbeat),
            });
        }
        // A static member says nothing.
        self.instance.is_none().then(|| Input::ClassicLeave {
            ticket,
            leave: Box::new(ClassicLeave {
                group,
                members: vec![(Some(member), None)],
            }),
        })
    }

    /// The next thing it does.
    pub fn next(
        &mut self,
        group: GroupName,
        ticket: Ticket,
        wait: bool,
        eager: bool,
        counts: [i32; 2],
    ) -> Input {
        let input = if !self.classic {
            Input::Heartbeat {
                ticket,
                heartbeat: Box::new(self.heartbeat(group, if wait { 2_000 } else { 0 })),
            }
        } else {
            match self.phase.clone() {
                Phase::Joins => Input::ClassicJoin {
                    ticket,
                    join: Box::new(self.join(group, ticket, eager)),
                },
                Phase::Syncs(joined) => Input::ClassicSync {
                    ticket,
                    sync: Box::new(self.sync(group, &joined, counts)),
                },
                Phase::Settled => Input::ClassicHeartbeat {
                    ticket,
                    heartbeat: Box::new(ClassicHeartbeat {
                        group,
                        member: self.id.clone().unwrap(),
                        generation: self.epoch,
                        instance: self.instance.clone(),
                    }),
                },
            }
        };
        self.waiting = Some((ticket, self.owned.clone()));
        input
    }

    fn heartbeat(&mut self, group: GroupName, max_wait_ms: u64) -> Heartbeat {
        let unchanged = self.epoch > 0 && self.confirmed.as_ref() == Some(&self.owned);
        self.confirmed = None;
        Heartbeat {
            group,
            member: self.id.clone().unwrap(),
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

    fn join(&mut self, group: GroupName, ticket: Ticket, eager: bool) -> ClassicJoin {
        if eager {
            // It gives up everything before it joins.
            self.owned.clear();
        }
        let said = encode_subscription(&EmbeddedSubscription {
            version: 3,
            topics: self.names(),
            user_data: None,
            owned: by_topic(&self.owned),
            generation: if self.epoch > 0 { self.epoch } else { -1 },
            rack: None,
        });
        let protocol = if eager { "range" } else { "cooperative-sticky" };
        ClassicJoin {
            group,
            member: self.id.clone(),
            proposed: MemberId::new(&format!("c{}-{}", self.number, ticket.0)).unwrap(),
            instance: self.instance.clone(),
            protocol_type: "consumer".to_owned(),
            protocols: vec![(protocol.to_owned(), said)],
            session_timeout_ms: SESSION_MS,
            rebalance_timeout_ms: REBALANCE_MS,
            client_id: Arc::from("test"),
            peer: None,
            require_known_member_id: self.number.is_multiple_of(2),
        }
    }

    fn sync(&self, group: GroupName, joined: &ClassicJoined, counts: [i32; 2]) -> ClassicSync {
        let leads = joined.leader.as_ref() == self.id.as_ref();
        ClassicSync {
            group,
            member: joined.member.clone(),
            generation: joined.generation,
            instance: self.instance.clone(),
            protocol_type: Some(joined.protocol_type.clone()),
            protocol: Some(joined.protocol.clone()),
            assignments: if leads {
                lead(joined, counts)
            } else {
                Vec::new()
            },
        }
    }

    pub fn hear(&mut self, now: Tick, reply: &Reply) {
        let Some((_, reported)) = self.waiting.take() else {
            return;
        };
        match reply {
            Reply::Heartbeat(reply) => self.told(now, reply, reported),
            Reply::ClassicJoined(joined) => {
                assert!(
                    joined.generation >= self.settled,
                    "G5: a generation went back"
                );
                self.id = Some(joined.member.clone());
                self.epoch = joined.generation;
                self.phase = Phase::Syncs((**joined).clone());
            }
            Reply::ClassicSynced(synced) => {
                let assigned = match synced.assignment.as_slice() {
                    // Who came to a generation after its leader had assigned has nothing.
                    [] => BTreeSet::new(),
                    some => partition_set(&decode_assignment(some).unwrap().partitions),
                };
                let gives_up = !self.owned.is_subset(&assigned);
                self.settled = self.epoch;
                self.owned = assigned;
                self.phase = if gives_up {
                    Phase::Joins
                } else {
                    Phase::Settled
                };
                if !gives_up && !self.missed {
                    self.entitled = now.plus(REBALANCE_MS);
                }
            }
            Reply::ClassicAlive => {
                self.missed = false;
                self.entitled = now.plus(REBALANCE_MS);
            }
            Reply::ClassicFailed(error) => self.refused(now, error),
            Reply::Failed(failure) => self.failed(now, failure.kind),
            other => panic!("{other:?}"),
        }
    }

    fn told(&mut self, now: Tick, reply: &HeartbeatReply, reported: BTreeSet<TopicPartition>) {
        assert!(reply.member_epoch >= self.epoch, "G5: an epoch went back");
        self.phase = Phase::Settled;
        self.epoch = reply.member_epoch;
        self.settled = self.epoch;
        self.confirmed = Some(reported);
        let mut gives_up = false;
        if let Some(assignment) = &reply.assignment {
            let assignment: BTreeSet<_> = assignment.iter().cloned().collect();
            gives_up = !self.owned.is_subset(&assignment);
            self.owned = assignment;
        }
        // Who is asked to give something up has been asked before, perhaps, and did not hear.
        if !gives_up {
            self.entitled = now.plus(REBALANCE_MS);
        }
    }

    /// It is told that it is no member.
    fn lost(&mut self, now: Tick) {
        assert!(
            self.epoch == 0 || self.entitled <= now,
            "it was a member a moment ago"
        );
        self.forget();
    }

    fn refused(&mut self, now: Tick, error: &ClassicError) {
        match error {
            ClassicError::MemberIdRequired(id) => self.id = Some(id.clone()),
            ClassicError::UnknownMember => {
                self.lost(now);
                self.id = None;
            }
            ClassicError::IllegalGeneration => self.forget(),
            ClassicError::RebalanceInProgress => self.phase = Phase::Joins,
            other => panic!("{other:?}"),
        }
    }

    fn failed(&mut self, now: Tick, kind: ErrorKind) {
        match kind {
            ErrorKind::UnknownMember | ErrorKind::FencedMemberEpoch => self.lost(now),
            ErrorKind::InstanceIdInUse => self.forget(),
            // It comes again.
            _ => {
                assert_eq!(kind, ErrorKind::NotEnoughReplicas);
                if self.classic {
                    self.phase = Phase::Joins;
                }
            }
        }
    }
}

/// What a leader assigns: evenly, and nobody gets what another one still owns.
fn lead(joined: &ClassicJoined, counts: [i32; 2]) -> Vec<(MemberId, Vec<u8>)> {
    let said: Vec<_> = joined
        .members
        .iter()
        .map(|m| decode_subscription(&m.metadata).unwrap())
        .collect();
    let mut owners: BTreeMap<TopicPartition, (i32, usize)> = BTreeMap::new();
    for (at, subscription) in said.iter().enumerate() {
        for partition in partition_set(&subscription.owned) {
            let claim = (subscription.generation, at);
            let held = owners.entry(partition).or_insert(claim);
            if held.0 < claim.0 {
                *held = claim;
            }
        }
    }
    let mut given = vec![BTreeSet::new(); said.len()];
    let mut load = vec![0_i32; said.len()];
    for (topic, count) in TOPICS.iter().zip(counts) {
        let topic = TopicName::new(topic).unwrap();
        let able: Vec<usize> = (0..said.len())
            .filter(|at| said[*at].topics.contains(&topic))
            .collect();
        for number in 0..count {
            let partition = TopicPartition::new(topic.clone(), PartitionId(number));
            let Some(least) = able.iter().copied().min_by_key(|at| load[*at]) else {
                continue;
            };
            let owner = owners.get(&partition).map(|(_, at)| *at);
            let stays = owner.filter(|at| able.contains(at) && load[*at] <= load[least] + 1);
            let to = stays.unwrap_or(least);
            load[to] += 1;
            if owner.is_none_or(|owner| owner == to) {
                given[to].insert(partition);
            }
        }
    }
    let members = joined.members.iter().zip(given);
    let encode = |partitions: &BTreeSet<_>| {
        encode_assignment(&EmbeddedAssignment {
            version: 3,
            partitions: by_topic(partitions),
            user_data: None,
        })
    };
    members
        .map(|(m, partitions)| (m.member.clone(), encode(&partitions)))
        .collect()
}
