//! Histories that went wrong once, by name. Each ends as the random ones do: everybody behaves, and everything
//! is owned by exactly one member. A client panics when it is fenced, or is told that it is unknown while it
//! may take itself for a member.

use varve_types::GroupMigration;

use crate::migration::world::{Action, World};

const fn act(client: usize) -> Action {
    Action::Act {
        client,
        wait: false,
        lose_request: false,
        lose_reply: false,
        slow: false,
    }
}

/// From here on nothing is durable by itself.
const fn slowly(client: usize) -> Action {
    Action::Act {
        client,
        wait: false,
        lose_request: false,
        lose_reply: false,
        slow: true,
    }
}

/// Until those who join together have gathered.
const fn gather() -> Action {
    Action::Advance { ms: 1_200 }
}

/// The coordinator goes, and with it every write under way.
const fn lose_writes() -> Action {
    Action::Failover { durable: 0 }
}

fn hold(actions: Vec<Action>) {
    let mut world = World::new(GroupMigration::Bidirectional, false, 2);
    for action in actions {
        world.run(action);
    }
    world.converge();
}

/// The passage to the consumer protocol is lost, and what the new member wrote after it is not: the next
/// coordinator took that for the passage, and did not know the members of the classic group.
#[test]
fn members_outlive_a_lost_passage_to_the_consumer_protocol() {
    hold(vec![
        act(3),
        act(1),
        act(1),
        Action::Expel { client: 3 },
        slowly(0),
        Action::Restart {
            client: 0,
            classic: false,
            polite: true,
        },
        Action::Tear,
        act(0),
    ]);
}

/// The same, with a member that owns everything: the other one was given what it still read.
#[test]
fn nobody_is_given_what_a_member_reads_after_a_lost_passage() {
    hold(vec![
        act(1),
        gather(),
        act(1),
        slowly(0),
        Action::Restart {
            client: 0,
            classic: false,
            polite: true,
        },
        Action::Tear,
        act(0),
        act(0),
    ]);
}

/// An instance starts again while its group rebalances.
#[test]
fn an_instance_that_restarts_in_a_rebalance_is_not_fenced_by_the_next_coordinator() {
    hold(vec![
        act(1),
        gather(),
        act(1),
        act(4),
        act(4),
        Action::Restart {
            client: 1,
            classic: true,
            polite: false,
        },
        slowly(1),
        lose_writes(),
        act(1),
    ]);
}

/// The write of its new id is refused: it comes again and gets another one.
#[test]
fn an_instance_whose_new_id_is_refused_comes_again() {
    hold(vec![
        act(1),
        gather(),
        act(1),
        act(4),
        act(4),
        Action::Restart {
            client: 1,
            classic: true,
            polite: false,
        },
        slowly(1),
        Action::RefuseWrite { logged: true },
        slowly(1),
        gather(),
        Action::Write,
        lose_writes(),
        act(1),
    ]);
}

/// The generation waits for the new id even when the time to join is over.
#[test]
fn a_generation_waits_for_a_new_id() {
    hold(vec![
        act(1),
        gather(),
        act(1),
        act(4),
        act(4),
        Action::Restart {
            client: 1,
            classic: true,
            polite: false,
        },
        slowly(1),
        Action::Advance { ms: 7_000 },
        lose_writes(),
        act(1),
    ]);
}

/// The last member of the consumer protocol comes back with the classic one, which passes the group back: what
/// it is told waits for that passage.
#[test]
fn an_instance_that_passes_its_group_back_is_not_fenced_by_the_next_coordinator() {
    hold(vec![
        act(0),
        Action::Restart {
            client: 0,
            classic: true,
            polite: true,
        },
        slowly(0),
        lose_writes(),
        act(0),
    ]);
}

/// The log still has the member that the instance was in the consumer protocol.
#[test]
fn an_instance_that_was_expelled_is_not_fenced_with_the_other_protocol() {
    hold(vec![
        act(0),
        slowly(0),
        Action::Expel { client: 0 },
        Action::Restart {
            client: 0,
            classic: true,
            polite: false,
        },
        slowly(0),
        gather(),
        lose_writes(),
        act(0),
    ]);
}

/// The removal of the record of a group without members was refused, so that the log still has it.
#[test]
fn an_instance_of_a_group_that_was_not_removed_is_not_fenced() {
    hold(vec![
        act(1),
        gather(),
        act(1),
        slowly(1),
        Action::Expel { client: 1 },
        Action::RefuseWrite { logged: false },
        Action::Restart {
            client: 1,
            classic: true,
            polite: false,
        },
        slowly(1),
        gather(),
        lose_writes(),
        act(1),
    ]);
}

/// What its predecessor had is not meant for the instance any more that passes the group to the consumer protocol:
/// having said that it owns nothing, it is not asked to give that up by the next coordinator.
#[test]
fn an_instance_that_passes_its_group_is_not_asked_for_what_it_never_had() {
    hold(vec![
        Action::Subscribe {
            client: 1,
            topics: 1,
        },
        act(4),
        act(4),
        gather(),
        act(4),
        // Two generations, until client 1 owns something.
        act(1),
        act(4),
        act(4),
        act(4),
        act(1),
        act(4),
        act(1),
        act(1),
        act(4),
        act(1),
        Action::Partitions { topic: 0, count: 1 },
        Action::Restart {
            client: 1,
            classic: false,
            polite: false,
        },
        act(1),
        lose_writes(),
    ]);
}

/// A group that has passed back is to join again: so the next coordinator asks for that too, or nobody would own
/// what was on its way from one member to another.
#[test]
fn a_group_that_passed_back_joins_again_with_the_next_coordinator() {
    hold(vec![
        act(1),
        act(0),
        act(2),
        act(2),
        act(4),
        act(4),
        act(1),
        Action::Restart {
            client: 3,
            classic: true,
            polite: false,
        },
        act(3),
        Action::Restart {
            client: 0,
            classic: true,
            polite: false,
        },
        act(0),
        lose_writes(),
    ]);
}
