//! Consume, the gateway for simple clients: sharing, committing, resuming, giving up partitions.

use std::collections::BTreeSet;

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use v1::consume_request::Command as C;
use v1::consume_response::Event as E;

use crate::support::{Code, Rpc, refused, refused_item, run, shared, soon, span, tp, v1, value};

struct Member {
    commands: mpsc::Sender<v1::ConsumeRequest>,
    events: Streaming<v1::ConsumeResponse>,
    owned: BTreeSet<i32>,
    seen: Vec<(i32, i64, String)>,
}

fn join(group: &str, topic: &str) -> v1::ConsumeJoin {
    v1::ConsumeJoin {
        group: group.to_owned(),
        topics: vec![topic.to_owned()],
        idle_heartbeat: span(1000),
        ..Default::default()
    }
}

impl Member {
    async fn open(rpc: &Rpc, first: C) -> Self {
        let (commands, receiver) = mpsc::channel(256);
        commands
            .send(v1::ConsumeRequest {
                command: Some(first),
            })
            .await
            .unwrap();
        let mut client = rpc.consumer();
        let opened = client.consume(ReceiverStream::new(receiver));
        let events = soon("the stream to open", opened)
            .await
            .unwrap()
            .into_inner();
        Self {
            commands,
            events,
            owned: BTreeSet::new(),
            seen: Vec::new(),
        }
    }

    async fn join(rpc: &Rpc, join: v1::ConsumeJoin) -> Self {
        let mut member = Self::open(rpc, C::Join(join)).await;
        let first = member.event().await;
        assert!(matches!(first, E::Joined(_)), "{first:?}");
        member
    }

    async fn say(&self, command: C) {
        self.commands
            .send(v1::ConsumeRequest {
                command: Some(command),
            })
            .await
            .unwrap();
    }

    /// The next event; assignments, records and revocations are taken in, and the last are confirmed.
    async fn event(&mut self) -> E {
        let next = soon("an event", self.events.message()).await;
        let event = next.unwrap().expect("the stream goes on").event.unwrap();
        match &event {
            E::Assigned(a) => self.owned.extend(a.partitions.iter().map(|p| p.partition)),
            E::Revoking(r) => {
                for p in &r.partitions {
                    self.owned.remove(&p.partition);
                }
                let done = v1::ConsumeRevokeDone {
                    revocation_id: r.revocation_id,
                };
                self.say(C::RevokeDone(done)).await;
            }
            E::Lost(l) => {
                for p in &l.partitions {
                    self.owned.remove(&p.partition);
                }
            }
            E::Records(chunk) => {
                assert!(
                    self.owned.contains(&chunk.partition),
                    "records of what is not assigned"
                );
                let records = chunk
                    .records
                    .iter()
                    .map(|r| (chunk.partition, r.offset, value(r)));
                self.seen.extend(records);
            }
            _ => {}
        }
        event
    }

    async fn commit(
        &mut self,
        id: i64,
        topic: &str,
        partition: i32,
        offset: i64,
    ) -> v1::ConsumeCommitted {
        let offsets = vec![v1::PartitionCommit {
            topic_partition: Some(tp(topic, partition)),
            offset,
            ..Default::default()
        }];
        self.say(C::Commit(v1::ConsumeCommit {
            commit_id: id,
            offsets,
        }))
        .await;
        loop {
            if let E::Committed(committed) = self.event().await {
                assert_eq!(committed.commit_id, id);
                return committed;
            }
        }
    }

    async fn leave(mut self) {
        self.say(C::Leave(v1::ConsumeLeave {})).await;
        let ended = soon("the end", async {
            loop {
                match self.events.message().await {
                    Ok(Some(_)) => {}
                    other => return other,
                }
            }
        });
        assert!(
            ended.await.unwrap().is_none(),
            "leaving ends the stream with OK"
        );
    }
}

#[test]
fn two_members_share_the_partitions() {
    run(async {
        let rpc = shared().await;
        let name = "c-share";
        rpc.create(name, 4).await;
        for partition in 0..4 {
            rpc.put(name, partition, &["a", "b"]).await;
        }
        let mut one = Member::join(&rpc, join(name, name)).await;
        while one.seen.len() < 8 {
            one.event().await;
        }
        assert_eq!(one.owned, (0..4).collect());
        let mut two = Member::join(&rpc, join(name, name)).await;
        while one.owned.len() != 2 || two.owned.len() != 2 {
            tokio::select! {
                _ = one.event() => {}
                _ = two.event() => {}
            }
        }
        assert!(
            one.owned.is_disjoint(&two.owned),
            "no partition has two owners"
        );
        let before = two.seen.len();
        for partition in 0..4 {
            rpc.put(name, partition, &["c"]).await;
        }
        let fresh = |m: &Member| {
            m.seen
                .iter()
                .filter(|(_, _, v)| v == "c")
                .map(|(p, _, _)| *p)
                .collect::<BTreeSet<_>>()
        };
        while fresh(&one) != one.owned || fresh(&two) != two.owned {
            tokio::select! {
                _ = one.event() => {}
                _ = two.event() => {}
            }
        }
        assert!(two.seen.len() > before);
        // The first leaves: the second gets everything.
        one.leave().await;
        while two.owned.len() < 4 {
            two.event().await;
        }
        two.leave().await;
    });
}

#[test]
fn a_member_resumes_where_the_group_committed() {
    run(async {
        let rpc = shared().await;
        let name = "c-resume";
        rpc.create(name, 1).await;
        rpc.put(name, 0, &["a", "b", "c", "d"]).await;
        let mut first = Member::join(&rpc, join(name, name)).await;
        while first.seen.len() < 4 {
            first.event().await;
        }
        let committed = first.commit(9, name, 0, 2).await;
        assert!(committed.failures.is_empty(), "{committed:?}");
        let foreign = first.commit(10, name, 7, 0).await;
        assert_eq!(
            foreign.failures.len(),
            1,
            "what is not owned is not committed"
        );
        refused_item(
            "foreign",
            foreign.failures[0].error.as_ref(),
            Code::Aborted,
            "STALE_MEMBER_EPOCH",
        );
        let beyond = first.commit(11, name, 0, 99).await;
        refused_item(
            "beyond",
            beyond.failures[0].error.as_ref(),
            Code::OutOfRange,
            "OFFSET_OUT_OF_RANGE",
        );
        first.leave().await;
        let mut second = Member::join(&rpc, join(name, name)).await;
        while second.seen.len() < 2 {
            second.event().await;
        }
        assert_eq!(
            second.seen,
            [(0, 2, "c".to_owned()), (0, 3, "d".to_owned())]
        );
        second.leave().await;
    });
}

/// A stream that is lost without leaving is taken up again under the same member id.
#[test]
fn a_lost_stream_is_resumed_by_its_member() {
    run(async {
        let rpc = shared().await;
        let name = "c-lost";
        rpc.create(name, 1).await;
        rpc.put(name, 0, &["a"]).await;
        let named = || v1::ConsumeJoin {
            member_id: "me".into(),
            ..join(name, name)
        };
        let mut first = Member::join(&rpc, named()).await;
        while first.seen.is_empty() {
            first.event().await;
        }
        assert!(first.commit(1, name, 0, 1).await.failures.is_empty());
        drop(first);
        rpc.put(name, 0, &["b"]).await;
        let mut again = Member::join(&rpc, named()).await;
        while again.seen.is_empty() {
            again.event().await;
        }
        assert_eq!(again.seen[0], (0, 1, "b".to_owned()));
        again.leave().await;
    });
}

#[test]
fn delivery_commits_when_asked_to() {
    run(async {
        let rpc = shared().await;
        let name = "c-delivery";
        rpc.create(name, 1).await;
        rpc.put(name, 0, &["a", "b"]).await;
        let delivery = v1::ConsumeJoin {
            commit_mode: v1::CommitMode::OnDelivery as i32,
            ..join(name, name)
        };
        let mut member = Member::join(&rpc, delivery).await;
        while member.seen.len() < 2 {
            member.event().await;
        }
        member.leave().await;
        let request = v1::GetOffsetsRequest {
            group: name.into(),
            ..Default::default()
        };
        let offsets = rpc
            .groups()
            .get_offsets(request)
            .await
            .unwrap()
            .into_inner()
            .offsets;
        assert_eq!(offsets.iter().map(|o| o.offset).collect::<Vec<_>>(), [2]);
    });
}

#[test]
fn credit_holds_the_gateway_back() {
    run(async {
        let rpc = shared().await;
        let name = "c-credit";
        rpc.create(name, 1).await;
        for n in 0..10 {
            rpc.put(name, 0, &[&format!("{n:01000}")]).await;
        }
        let credited = v1::ConsumeJoin {
            initial_credit_bytes: 1500,
            ..join(name, name)
        };
        let mut member = Member::join(&rpc, credited).await;
        let (mut balance, mut next) = (1500, 0);
        while next < 10 {
            if let E::Records(chunk) = member.event().await {
                assert!(balance > 0, "sent without credit");
                assert!(chunk.credit_used > 0);
                balance -= chunk.credit_used;
                next = chunk.next_offset;
                while balance <= 0 && next < 10 {
                    member
                        .say(C::Credit(v1::ConsumeCredit { bytes: 700 }))
                        .await;
                    balance += 700;
                }
            }
        }
        member.leave().await;
    });
}

#[test]
fn joins_and_commands_that_break_the_rules() {
    run(async {
        let rpc = shared().await;
        let name = "c-rules";
        rpc.create(name, 1).await;
        let (code, reason) = (Code::InvalidArgument, "INVALID_REQUEST");
        let ok = || join(name, name);
        let credit = |bytes| C::Credit(v1::ConsumeCredit { bytes });
        for (what, first) in [
            ("no join", credit(1)),
            (
                "no group",
                C::Join(v1::ConsumeJoin {
                    group: String::new(),
                    ..ok()
                }),
            ),
            (
                "no topics",
                C::Join(v1::ConsumeJoin {
                    topics: Vec::new(),
                    ..ok()
                }),
            ),
            (
                "bad pattern",
                C::Join(v1::ConsumeJoin {
                    topic_pattern: "(".into(),
                    ..ok()
                }),
            ),
            (
                "bad member",
                C::Join(v1::ConsumeJoin {
                    member_id: "a/b".into(),
                    ..ok()
                }),
            ),
            (
                "unknown mode",
                C::Join(v1::ConsumeJoin {
                    commit_mode: 9,
                    ..ok()
                }),
            ),
            (
                "negative credit",
                C::Join(v1::ConsumeJoin {
                    initial_credit_bytes: -1,
                    ..ok()
                }),
            ),
            (
                "short session",
                C::Join(v1::ConsumeJoin {
                    session_timeout: span(1),
                    ..ok()
                }),
            ),
            (
                "long session",
                C::Join(v1::ConsumeJoin {
                    session_timeout: span(1_800_001),
                    ..ok()
                }),
            ),
        ] {
            let mut member = Member::open(&rpc, first).await;
            let ended = soon("the end", member.events.message()).await;
            refused(what, ended, code, reason);
        }
        for (what, command) in [
            ("join twice", C::Join(ok())),
            ("credit of nothing", credit(0)),
            (
                "commit of nothing",
                C::Commit(v1::ConsumeCommit {
                    commit_id: 1,
                    offsets: Vec::new(),
                }),
            ),
        ] {
            let member = Member::join(&rpc, ok()).await;
            member.say(command).await;
            let mut events = member.events;
            let status = soon("the end", async {
                loop {
                    match events.message().await {
                        Ok(Some(_)) => {}
                        Ok(None) => panic!("{what}: ended with OK"),
                        Err(status) => return status,
                    }
                }
            });
            refused(what, Err::<(), _>(status.await), code, reason);
        }
    });
}
