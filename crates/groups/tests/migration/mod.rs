//! Random members of both group protocols in one group, which start again with the one or the other, leave,
//! crash, lose requests and replies, while writes are slow or refused and coordinators go: no two members
//! that may believe so own a partition (G1), targets cover everything (G2), commits of an old epoch or
//! generation are refused (G4), epochs and generations never go back (G5), and once members behave every
//! partition is owned by exactly one of them within a few rounds.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod cases;
mod client;
mod world;

use proptest::prelude::*;
use varve_types::GroupMigration;

use world::{Action, CLIENTS, TOPICS, World};

fn action() -> impl Strategy<Value = Action> {
    let client = 0..CLIENTS;
    let chance = prop::bool::weighted;
    prop_oneof![
        24 => (client.clone(), any::<bool>(), chance(0.08), chance(0.15), chance(0.3)).prop_map(
            |(client, wait, lose_request, lose_reply, slow)| {
                Action::Act { client, wait, lose_request, lose_reply, slow }
            },
        ),
        4 => Just(Action::Write),
        2 => any::<bool>().prop_map(|logged| Action::RefuseWrite { logged }),
        2 => any::<u8>().prop_map(|durable| Action::Failover { durable }),
        2 => Just(Action::Tear),
        3 => (client.clone(), any::<bool>(), any::<bool>()).prop_map(|(client, classic, polite)| {
            Action::Restart { client, classic, polite }
        }),
        2 => client.clone().prop_map(|client| Action::CommitStale { client }),
        1 => (client.clone(), 1_u8..4).prop_map(|(client, topics)| {
            Action::Subscribe { client, topics }
        }),
        1 => (0..TOPICS.len(), 1_i32..7).prop_map(|(topic, count)| {
            Action::Partitions { topic, count }
        }),
        1 => client.prop_map(|client| Action::Expel { client }),
        4 => (1_u64..3_000).prop_map(|ms| Action::Advance { ms }),
    ]
}

fn policy() -> impl Strategy<Value = GroupMigration> {
    prop_oneof![
        3 => Just(GroupMigration::Bidirectional),
        1 => Just(GroupMigration::Upgrade),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]
    #[test]
    fn members_of_both_protocols_share_partitions(
        policy in policy(),
        eager in any::<bool>(),
        statics in 0..=CLIENTS,
        actions in prop::collection::vec(action(), 1..160),
    ) {
        let mut world = World::new(policy, eager, statics);
        for action in actions {
            world.run(action);
        }
        world.converge();
    }
}
