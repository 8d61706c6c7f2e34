//! What members of the classic protocol may say, and the leader assign: more is refused with a reason, and the group
//! goes on.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

use std::sync::Arc;

use varve_groups::{
    ClassicError, ClassicJoin, ClassicJoined, ClassicSync, Config, Coordinator, Failure, Input,
    Matcher, Output, Reply, Tick, Ticket,
};
use varve_types::{GroupName, MemberId, limits};

struct NoPatterns;

impl Matcher for NoPatterns {
    fn matches(&self, _: &str, _: &str) -> Result<bool, String> {
        Ok(false)
    }
}

struct World {
    core: Coordinator,
    now: Tick,
    ticket: u64,
}

fn group() -> GroupName {
    "g".parse().unwrap()
}

impl World {
    fn new() -> Self {
        let mut core = Coordinator::new(Config::default(), Box::new(NoPatterns));
        core.step(Tick(0), Input::Topics(Arc::default()), &mut Vec::new());
        core.step(Tick(0), Input::Loaded, &mut Vec::new());
        Self {
            core,
            now: Tick(0),
            ticket: 0,
        }
    }

    /// One call; what is written is durable at once, and time passes until there is an answer.
    fn call(&mut self, input: impl FnOnce(Ticket) -> Input) -> Reply {
        self.ticket += 1;
        let asked = Ticket(self.ticket);
        let mut inputs = vec![input(asked)];
        for _ in 0..100 {
            let mut out = Vec::new();
            for input in inputs.drain(..) {
                self.core.step(self.now, input, &mut out);
            }
            for output in out {
                match output {
                    Output::Reply { ticket, reply } if ticket == asked => return reply,
                    Output::Append { id, .. } => inputs.push(Input::CommitDurable { id }),
                    _ => {}
                }
            }
            if inputs.is_empty() {
                self.now = self.core.next_deadline().unwrap().max(self.now);
                inputs.push(Input::Tick { wall_ms: 0 });
            }
        }
        panic!("no answer");
    }

    fn join(&mut self, id: &str, said: &[usize]) -> Reply {
        let join = join_of(id, said);
        self.call(|ticket| Input::ClassicJoin { ticket, join })
    }

    /// Asks, and waits for no answer.
    fn begin_join(&mut self, id: &str, said: &[usize]) {
        self.ticket += 1;
        let (ticket, join) = (Ticket(self.ticket), join_of(id, said));
        let input = Input::ClassicJoin { ticket, join };
        self.core.step(self.now, input, &mut Vec::new());
    }

    fn sync(&mut self, joined: &ClassicJoined, assigned: usize) -> Reply {
        let sync = ClassicSync {
            group: group(),
            member: joined.member.clone(),
            generation: joined.generation,
            instance: None,
            protocol_type: None,
            protocol: None,
            assignments: vec![(joined.member.clone(), vec![9; assigned])],
        };
        self.call(|ticket| Input::ClassicSync {
            ticket,
            sync: Box::new(sync),
        })
    }
}

fn join_of(id: &str, said: &[usize]) -> Box<ClassicJoin> {
    let protocols = said.iter().enumerate();
    Box::new(ClassicJoin {
        group: group(),
        member: None,
        proposed: id.parse().unwrap(),
        instance: None,
        protocol_type: "connect".to_owned(),
        protocols: protocols
            .map(|(n, s)| (format!("p{n}"), vec![7; *s]))
            .collect(),
        session_timeout_ms: 45_000,
        rebalance_timeout_ms: 60_000,
        client_id: Arc::from("app"),
        peer: None,
        require_known_member_id: false,
    })
}

fn joined(reply: Reply) -> ClassicJoined {
    match reply {
        Reply::ClassicJoined(joined) => *joined,
        other => panic!("{other:?}"),
    }
}

fn refused(failure: &Failure, field: &str, limit: usize) {
    assert_eq!(failure.field, Some(field), "{failure:?}");
    assert!(failure.message.contains(&limit.to_string()), "{failure}");
}

#[test]
fn a_member_that_says_too_much_is_refused_and_the_next_one_is_not() {
    let mut world = World::new();
    let most = limits::GROUP_PROTOCOLS_MAX_BYTES;
    match world.join("a", &[most / 2, most / 2 + 1]) {
        Reply::Failed(failure) => refused(&failure, "protocols", most),
        other => panic!("{other:?}"),
    }
    let found = joined(world.join("b", &[most / 2, most / 2]));
    assert_eq!(found.members.len(), 1, "nothing is left of the other");
    assert_eq!(found.member, MemberId::new("b").unwrap());
}

/// Large subscriptions are taken; what all members of a group say together is bounded, for it stays in memory.
#[test]
fn members_that_say_too_much_together_are_refused() {
    let mut world = World::new();
    let (each, most) = (
        limits::GROUP_PROTOCOLS_MAX_BYTES,
        limits::GROUP_MEMBERS_MAX_BYTES,
    );
    // None is answered before all have joined again: only refusals are.
    for n in 0..most / each {
        world.begin_join(&format!("m{n}"), &[each]);
    }
    match world.join("late", &[1]) {
        Reply::ClassicFailed(ClassicError::Failed(failure)) => refused(&failure, "protocols", most),
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_assignment_that_is_too_large_is_refused_and_a_smaller_one_is_not() {
    let mut world = World::new();
    let said = 1000;
    let leader = joined(world.join("a", &[said]));
    let most = limits::GROUP_RECORD_MAX_BYTES;
    match world.sync(&leader, most - said + 1) {
        Reply::ClassicFailed(ClassicError::Failed(failure)) => {
            refused(&failure, "assignments", most);
        }
        other => panic!("{other:?}"),
    }
    match world.sync(&leader, most - said) {
        Reply::ClassicSynced(synced) => assert_eq!(synced.assignment.len(), most - said),
        other => panic!("{other:?}"),
    }
}
