//! Consume: members of a group behind the gateway.

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};
use varve_proto::v1;
use varve_proto::v1::consume_request::Command as C;
use varve_proto::v1::consume_response::Event as E;

use crate::{Harness, assert_fails, soon, tp};

struct Member {
    tx: Option<mpsc::Sender<v1::ConsumeRequest>>,
    rx: Streaming<v1::ConsumeResponse>,
}

fn join() -> v1::ConsumeJoin {
    v1::ConsumeJoin {
        group: "billing".to_owned(),
        topics: vec!["orders".to_owned()],
        ..Default::default()
    }
}

impl Member {
    async fn start(h: &Harness, join: v1::ConsumeJoin) -> Self {
        let (tx, commands) = mpsc::channel(64);
        tx.send(v1::ConsumeRequest {
            command: Some(C::Join(join)),
        })
        .await
        .unwrap();
        let rx = h
            .consumer()
            .consume(ReceiverStream::new(commands))
            .await
            .unwrap()
            .into_inner();
        Self { tx: Some(tx), rx }
    }

    async fn send(&self, command: C) {
        let request = v1::ConsumeRequest {
            command: Some(command),
        };
        self.tx.as_ref().unwrap().send(request).await.unwrap();
    }

    /// The next event that is not about progress.
    async fn event(&mut self) -> Result<Option<E>, Status> {
        loop {
            match soon(self.rx.message()).await?.map(|m| m.event.unwrap()) {
                Some(E::Progress(_)) => {}
                other => return Ok(other),
            }
        }
    }

    async fn next(&mut self) -> E {
        self.event().await.unwrap().unwrap()
    }

    async fn joined(&mut self) -> String {
        match self.next().await {
            E::Joined(joined) => joined.member_id,
            other => panic!("not joined: {other:?}"),
        }
    }

    async fn assigned(&mut self) -> Vec<i32> {
        match self.next().await {
            E::Assigned(assigned) => assigned.partitions.iter().map(|p| p.partition).collect(),
            other => panic!("not assigned: {other:?}"),
        }
    }

    async fn records(&mut self) -> v1::RecordChunk {
        match self.next().await {
            E::Records(chunk) => chunk,
            other => panic!("no records: {other:?}"),
        }
    }

    async fn commit(&self, id: i64, partition: i32, offset: i64) {
        let commit = v1::PartitionCommit {
            topic_partition: tp("orders", partition),
            offset,
            ..Default::default()
        };
        self.send(C::Commit(v1::ConsumeCommit {
            commit_id: id,
            offsets: vec![commit],
        }))
        .await;
    }

    async fn committed(&mut self) -> v1::ConsumeCommitted {
        match self.next().await {
            E::Committed(committed) => committed,
            other => panic!("not committed: {other:?}"),
        }
    }
}

#[tokio::test]
async fn a_member_reads_commits_leaves_and_comes_back_where_it_was() {
    let h = Harness::start().await;
    h.broker.topic("orders", 1);
    h.append("orders", 0, &["a", "b", "c"]).await;
    let mut member = Member::start(&h, join()).await;
    assert_eq!(member.joined().await.len(), 36);
    assert_eq!(member.assigned().await, [0]);
    let chunk = member.records().await;
    assert_eq!((chunk.records.len(), chunk.next_offset), (3, 3));
    member.commit(11, 0, 2).await;
    let committed = member.committed().await;
    assert_eq!((committed.commit_id, committed.failures.len()), (11, 0));
    member.commit(12, 5, 1).await;
    let failed = member.committed().await;
    assert_eq!((failed.commit_id, failed.failures.len()), (12, 1));
    assert_eq!(h.broker.committed("billing", "orders", 0), Some(2));
    member.send(C::Leave(v1::ConsumeLeave {})).await;
    assert!(
        member.event().await.unwrap().is_none(),
        "leaving ends with OK"
    );
    assert_eq!(h.broker.members("billing"), 0);
    let mut again = Member::start(&h, join()).await;
    again.joined().await;
    again.assigned().await;
    let chunk = again.records().await;
    assert_eq!(
        chunk.records.iter().map(|r| r.offset).collect::<Vec<_>>(),
        [2]
    );
}

#[tokio::test]
async fn half_closing_keeps_the_member_and_a_lost_stream_leaves_it_in_the_group() {
    let h = Harness::start().await;
    h.broker.topic("orders", 1);
    let mut member = Member::start(
        &h,
        v1::ConsumeJoin {
            member_id: "m1".to_owned(),
            ..join()
        },
    )
    .await;
    assert_eq!(member.joined().await, "m1");
    member.assigned().await;
    member.tx = None;
    h.append("orders", 0, &["a"]).await;
    assert_eq!(member.records().await.next_offset, 1);
    drop(member);
    soon(async {
        while h.metrics.open_streams("Consume") > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(
        h.broker.members("billing"),
        1,
        "only the session timeout expels it"
    );
    let mut again = Member::start(
        &h,
        v1::ConsumeJoin {
            member_id: "m1".to_owned(),
            ..join()
        },
    )
    .await;
    assert_eq!(again.joined().await, "m1");
    assert_eq!(again.assigned().await, [0]);
    assert_eq!(h.broker.members("billing"), 1);
}

#[tokio::test]
async fn a_second_member_takes_over_what_the_first_confirms() {
    let h = Harness::start().await;
    h.broker.topic("orders", 2);
    let mut one = Member::start(
        &h,
        v1::ConsumeJoin {
            member_id: "a".to_owned(),
            ..join()
        },
    )
    .await;
    one.joined().await;
    assert_eq!(one.assigned().await, [0, 1]);
    let mut two = Member::start(
        &h,
        v1::ConsumeJoin {
            member_id: "b".to_owned(),
            ..join()
        },
    )
    .await;
    two.joined().await;
    let E::Revoking(revoking) = one.next().await else {
        panic!("revoking")
    };
    assert_eq!(
        revoking
            .partitions
            .iter()
            .map(|p| p.partition)
            .collect::<Vec<_>>(),
        [1]
    );
    // Until it is confirmed the partition can still be committed, and nobody else reads it.
    one.commit(1, 1, 0).await;
    assert!(one.committed().await.failures.is_empty());
    let revocation_id = revoking.revocation_id;
    one.send(C::RevokeDone(v1::ConsumeRevokeDone { revocation_id }))
        .await;
    assert_eq!(two.assigned().await, [1]);
    h.append("orders", 1, &["x"]).await;
    assert_eq!(two.records().await.partition, 1);
    h.append("orders", 0, &["y"]).await;
    assert_eq!(one.records().await.partition, 0);
}

#[tokio::test]
async fn an_expelled_member_loses_everything_and_joins_again() {
    let h = Harness::start().await;
    h.broker.topic("orders", 1);
    let mut member = Member::start(&h, join()).await;
    member.joined().await;
    member.assigned().await;
    let request = v1::RemoveMembersRequest {
        group: "billing".to_owned(),
        ..Default::default()
    };
    let mut groups = v1::group_service_client::GroupServiceClient::new(h.channel.clone());
    assert_eq!(
        groups
            .remove_members(request)
            .await
            .unwrap()
            .into_inner()
            .member_ids
            .len(),
        1
    );
    assert!(matches!(member.next().await, E::Lost(lost) if lost.partitions.len() == 1));
    assert_eq!(member.assigned().await, [0]);
}

#[tokio::test]
async fn credit_holds_the_stream_back_and_commits_go_on() {
    let h = Harness::start().await;
    h.broker.topic("orders", 1);
    h.append("orders", 0, &["aaaa"]).await;
    let mut member = Member::start(
        &h,
        v1::ConsumeJoin {
            initial_credit_bytes: 1,
            ..join()
        },
    )
    .await;
    member.joined().await;
    member.assigned().await;
    let first = member.records().await;
    assert_eq!(first.credit_used, 4);
    h.append("orders", 0, &["bbbb"]).await;
    member.commit(1, 0, 1).await;
    assert_eq!(
        member.committed().await.commit_id,
        1,
        "no records before credit comes"
    );
    member.send(C::Credit(v1::ConsumeCredit { bytes: 4 })).await;
    assert_eq!(member.records().await.next_offset, 2);
}

#[tokio::test]
async fn delivery_commits_by_itself_when_asked_to() {
    let h = Harness::start().await;
    h.broker.topic("orders", 1);
    h.append("orders", 0, &["a", "b"]).await;
    let commit_mode = v1::CommitMode::OnDelivery as i32;
    let mut member = Member::start(
        &h,
        v1::ConsumeJoin {
            commit_mode,
            ..join()
        },
    )
    .await;
    member.joined().await;
    member.assigned().await;
    assert_eq!(member.records().await.next_offset, 2);
    soon(async {
        while h.broker.committed("billing", "orders", 0) != Some(2) {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn bad_joins_and_broken_protocol_end_with_a_reason() {
    let h = Harness::start().await;
    h.broker.topic("orders", 1);
    let commit = v1::ConsumeCommit {
        commit_id: 1,
        offsets: Vec::new(),
    };
    let bad: Vec<Vec<Option<C>>> = vec![
        vec![None],
        vec![Some(C::Leave(v1::ConsumeLeave {}))],
        vec![Some(C::Join(v1::ConsumeJoin {
            group: "a/b".to_owned(),
            ..join()
        }))],
        vec![Some(C::Join(v1::ConsumeJoin {
            topics: Vec::new(),
            ..join()
        }))],
        vec![Some(C::Join(v1::ConsumeJoin {
            topic_pattern: "(".to_owned(),
            ..join()
        }))],
        vec![Some(C::Join(join())), Some(C::Join(join()))],
        vec![
            Some(C::Join(join())),
            Some(C::Credit(v1::ConsumeCredit { bytes: 0 })),
        ],
        vec![Some(C::Join(join())), Some(C::Commit(commit))],
    ];
    for commands in bad {
        let (tx, rx) = mpsc::channel(8);
        for command in commands {
            tx.send(v1::ConsumeRequest { command }).await.unwrap();
        }
        let rx = h
            .consumer()
            .consume(ReceiverStream::new(rx))
            .await
            .unwrap()
            .into_inner();
        let mut member = Member { tx: Some(tx), rx };
        let end = loop {
            match member.event().await {
                Ok(Some(_)) => {}
                other => break other,
            }
        };
        assert_fails(end, Code::InvalidArgument, "INVALID_REQUEST");
    }
}
