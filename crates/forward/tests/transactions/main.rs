//! Calls about transactions at a node that cannot answer them: who answers, what is sent on, what is sent again.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod fake;

use std::sync::Arc;
use std::time::Duration;

use varve_broker_api::*;
use varve_client::proto as v1;
use varve_record::{BatchBuilder, Compression, Unverified, VerifyLimits};
use varve_types::{
    Acks, ErrorKind, GroupName, MemberId, NodeId, Offset, PartitionId, ProducerId, Sequence,
    TopicName, TopicPartition, TransactionalId,
};

use crate::fake::{Answer, Local, ME, OTHER, Remote, call, message, node};

const PRODUCER: ProducerId = ProducerId { id: 7, epoch: 3 };
const NEXT: ProducerId = ProducerId { id: 7, epoch: 4 };

fn id() -> TransactionalId {
    TransactionalId::new("billing-1").unwrap()
}

fn wire(producer: ProducerId) -> Option<v1::TransactionSession> {
    Some(v1::TransactionSession {
        producer_id: producer.id,
        producer_epoch: producer.epoch.into(),
    })
}

fn orders(partition: i32) -> TopicPartition {
    TopicPartition::new(TopicName::new("orders").unwrap(), PartitionId(partition))
}

fn end(commit: bool) -> EndTransaction {
    EndTransaction {
        version: TransactionVersion::V2,
        id: id(),
        producer: PRODUCER,
        commit,
    }
}

fn init(keep: Option<ProducerId>) -> InitTransactions {
    InitTransactions {
        id: id(),
        timeout: Duration::from_secs(30),
        keep,
    }
}

fn offsets() -> CommitTransactionOffsets {
    let commit = |partition| OffsetCommit {
        partition: orders(partition),
        offset: Offset::new(9).unwrap(),
        leader_epoch: None,
        metadata: "m".to_owned(),
    };
    CommitTransactionOffsets {
        version: TransactionVersion::V2,
        id: id(),
        producer: PRODUCER,
        group: GroupName::new("readers").unwrap(),
        member: Some(MemberId::new("member-1").unwrap()),
        member_epoch: 5,
        offsets: vec![commit(0), commit(1)],
    }
}

#[tokio::test]
async fn sessions_begin_and_end_at_the_coordinator() {
    let remote = Arc::new(Remote::default());
    let node = node(Local::default(), &remote);
    let begun = v1::InitTransactionsResponse {
        session: wire(PRODUCER),
    };
    remote.answers("InitTransactions", message(&begun));
    let answer = node.init_transactions(&call(), init(None)).await;
    assert_eq!(answer, Ok(PRODUCER));
    remote.answers("InitTransactions", message(&begun));
    let answer = node.init_transactions(&call(), init(Some(NEXT))).await;
    assert_eq!(answer, Ok(PRODUCER));
    let heard: Vec<v1::InitTransactionsRequest> = remote.heard_of("InitTransactions");
    assert_eq!(heard[0].transactional_id, "billing-1");
    assert_eq!(heard[0].transaction_timeout.unwrap().seconds, 30);
    assert_eq!((heard[0].current, heard[1].current), (None, wire(NEXT)));
    for (commit, outcome) in [
        (true, v1::TransactionOutcome::Commit),
        (false, v1::TransactionOutcome::Abort),
    ] {
        let ended = v1::EndTransactionResponse {
            session: wire(NEXT),
        };
        remote.answers("EndTransaction", message(&ended));
        let ctx = call();
        assert_eq!(node.end_transaction(&ctx, end(commit)).await, Ok(NEXT));
        let heard: Vec<v1::EndTransactionRequest> = remote.heard_of("EndTransaction");
        let last = heard.last().unwrap();
        assert_eq!((last.outcome(), last.session), (outcome, wire(PRODUCER)));
        let answered = ctx.forward.as_ref().unwrap().answered().unwrap();
        assert_eq!(answered.node, OTHER);
    }
    let hops = remote.heard.lock().unwrap();
    assert!(hops.iter().all(|(_, _, hop)| *hop == ME.to_string()));
}

#[tokio::test]
async fn offsets_are_committed_at_the_coordinator_one_result_each() {
    let remote = Arc::new(Remote::default());
    let node = node(Local::default(), &remote);
    let stale = v1::PartitionError {
        reason: v1::ErrorReason::StaleMemberEpoch.into(),
        ..Default::default()
    };
    let result = |partition, error| v1::TransactionOffsetResult {
        topic_partition: Some(v1::TopicPartition {
            topic: "orders".to_owned(),
            partition,
        }),
        error,
    };
    let answer = v1::CommitTransactionOffsetsResponse {
        results: vec![result(0, None), result(1, Some(stale))],
    };
    remote.answers("CommitTransactionOffsets", message(&answer));
    let results = node.commit_transaction_offsets(&call(), offsets()).await;
    let results = results.unwrap();
    assert_eq!(results[0], Ok(()));
    let error = results[1].as_ref().unwrap_err();
    assert_eq!(error.kind, ErrorKind::StaleMemberEpoch);
    let heard: Vec<v1::CommitTransactionOffsetsRequest> =
        remote.heard_of("CommitTransactionOffsets");
    let heard = &heard[0];
    assert_eq!(
        (heard.group.as_str(), heard.member_id.as_str()),
        ("readers", "member-1")
    );
    assert_eq!((heard.member_epoch, heard.session), (5, wire(PRODUCER)));
    assert_eq!((heard.offsets[1].offset, heard.offsets.len()), (9, 2));
    // An answer that leaves offsets out says nothing about them.
    let short = v1::CommitTransactionOffsetsResponse::default();
    remote.answers("CommitTransactionOffsets", message(&short));
    let results = node.commit_transaction_offsets(&call(), offsets()).await;
    assert_eq!(results.unwrap_err().kind, ErrorKind::StorageError);
}

#[tokio::test]
async fn what_broke_off_is_repeated_where_that_is_harmless() {
    let remote = Arc::new(Remote::default());
    let node = node(Local::default(), &remote);
    remote.answers("EndTransaction", Answer::Broken);
    let ended = v1::EndTransactionResponse {
        session: wire(NEXT),
    };
    remote.answers("EndTransaction", message(&ended));
    assert_eq!(node.end_transaction(&call(), end(true)).await, Ok(NEXT));
    remote.answers("InitTransactions", Answer::Broken);
    let begun = v1::InitTransactionsResponse {
        session: wire(PRODUCER),
    };
    remote.answers("InitTransactions", message(&begun));
    let answer = node.init_transactions(&call(), init(None)).await;
    assert_eq!(answer, Ok(PRODUCER));
    remote.answers("CommitTransactionOffsets", Answer::Broken);
    let refused = Answer::Refused(ErrorKind::ProducerFenced);
    remote.answers("CommitTransactionOffsets", refused);
    let results = node.commit_transaction_offsets(&call(), offsets()).await;
    assert_eq!(results.unwrap_err().kind, ErrorKind::ProducerFenced);
    remote.answers("AbortTransaction", Answer::Broken);
    let aborted = node.abort_transaction(&call(), &id()).await;
    let error = aborted.unwrap_err();
    assert_eq!(error.kind, ErrorKind::CommitTimeout, "{error}");
    assert_eq!(
        remote
            .heard_of::<v1::AbortTransactionRequest>("AbortTransaction")
            .len(),
        1
    );
}

#[tokio::test]
async fn a_call_without_leave_is_not_passed_on() {
    let remote = Arc::new(Remote::default());
    let node = node(Local::default(), &remote);
    let ctx = Context::anonymous();
    let error = node.end_transaction(&ctx, end(true)).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::NotCoordinator);
    assert_eq!(error.leader.unwrap().node, OTHER);
    assert_eq!(node.transactions(&ctx).await, Ok(Vec::new()));
    assert!(remote.heard.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_transactional_id_is_described_by_its_coordinator() {
    let remote = Arc::new(Remote::default());
    let node = node(Local::default(), &remote);
    let partition = |partition| v1::TopicPartition {
        topic: "orders".to_owned(),
        partition,
    };
    let time = |seconds| {
        Some(prost_types::Timestamp {
            seconds,
            nanos: 5_000_000,
        })
    };
    let found = v1::GetTransactionResponse {
        transactional_id: "billing-1".to_owned(),
        session: wire(PRODUCER),
        state: v1::TransactionState::PrepareAbort.into(),
        cause: v1::TransactionCause::Timeout.into(),
        coordinator_id: 2,
        transaction_timeout: Some(prost_types::Duration {
            seconds: 60,
            nanos: 0,
        }),
        started: time(1),
        updated: time(2),
        partitions: vec![partition(0), partition(1)],
        untold: vec![partition(1)],
    };
    remote.answers("GetTransaction", message(&found));
    let expected = TransactionInfo {
        id: id(),
        producer: PRODUCER,
        state: TransactionState::PrepareAbort,
        cause: TransactionCause::Timeout,
        coordinator: OTHER,
        timeout: Duration::from_secs(60),
        started_ms: Some(1005),
        updated_ms: 2005,
        partitions: vec![orders(0), orders(1)],
        untold: vec![orders(1)],
    };
    assert_eq!(node.transaction(&call(), &id()).await, Ok(expected));
    let strange = v1::GetTransactionResponse { state: 77, ..found };
    remote.answers("GetTransaction", message(&strange));
    let error = node.transaction(&call(), &id()).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::StorageError, "{error}");
    let done = v1::AbortTransactionResponse {};
    remote.answers("AbortTransaction", message(&done));
    assert_eq!(node.abort_transaction(&call(), &id()).await, Ok(()));
}

#[tokio::test]
async fn everybody_is_asked_for_a_list() {
    let remote = Arc::new(Remote::default());
    let listing = |id: &str, coordinator| TransactionListing {
        id: TransactionalId::new(id).unwrap(),
        producer: PRODUCER,
        state: TransactionState::Ongoing,
        coordinator,
        started_ms: Some(1_700_000_000_000),
    };
    let local = Local {
        own: vec![listing("b", ME), listing("d", ME)],
    };
    let node = node(local, &remote);
    let page = |ids: &[&str], next: &str| {
        let listing = |id: &&str| v1::TransactionListing {
            transactional_id: (*id).to_owned(),
            session: wire(PRODUCER),
            state: v1::TransactionState::Ongoing.into(),
            coordinator_id: 2,
            started: Some(prost_types::Timestamp {
                seconds: 1_700_000_000,
                nanos: 0,
            }),
        };
        message(&v1::ListTransactionsResponse {
            transactions: ids.iter().map(listing).collect(),
            next_page_token: next.to_owned(),
        })
    };
    remote.answers("ListTransactions", page(&["a", "c"], "more"));
    remote.answers("ListTransactions", page(&["e"], ""));
    let all = node.transactions(&call()).await.unwrap();
    let found: Vec<(&str, NodeId)> = all.iter().map(|t| (t.id.as_str(), t.coordinator)).collect();
    assert_eq!(
        found,
        [
            ("a", OTHER),
            ("b", ME),
            ("c", OTHER),
            ("d", ME),
            ("e", OTHER)
        ]
    );
    let began = |t: &TransactionListing| t.started_ms == Some(1_700_000_000_000);
    assert!(all.iter().all(began), "{all:?}");
    let heard: Vec<v1::ListTransactionsRequest> = remote.heard_of("ListTransactions");
    assert_eq!(heard[1].page_token, "more");
}

#[tokio::test]
async fn appends_of_a_transaction_say_whose_and_are_repeated() {
    let remote = Arc::new(Remote::default());
    let node = node(Local::default(), &remote);
    let mut builder = BatchBuilder::new(Compression::None, None);
    builder.append(1, None, Some(b"v"), &[]).unwrap();
    builder.set_transaction(PRODUCER, Sequence::ZERO);
    let limits = VerifyLimits {
        transactional: true,
        ..Default::default()
    };
    let produce = Produce {
        transaction_version: Default::default(),
        topic: TopicName::new("orders").unwrap(),
        partition: PartitionId(0),
        acks: Acks::All,
        batch: Unverified(builder.build().unwrap())
            .verify(&limits)
            .unwrap(),
        expected_offset: None,
        transactional_id: Some(id()),
    };
    remote.answers("Produce", Answer::Broken);
    let outcome = v1::partition_produce_result::Outcome::Appended(v1::Appended {
        base_offset: Some(4),
        ..Default::default()
    });
    let answer = v1::ProduceResponse {
        results: vec![v1::PartitionProduceResult {
            outcome: Some(outcome),
            ..Default::default()
        }],
    };
    remote.answers("Produce", message(&answer));
    let receipt = node.produce(&call(), produce).await.unwrap();
    let appended = receipt.await.unwrap();
    assert_eq!(appended.base_offset, Offset::new(4));
    let heard: Vec<v1::ProduceRequest> = remote.heard_of("Produce");
    assert_eq!(heard.len(), 2);
    assert!(heard.iter().all(|r| r.transactional_id == "billing-1"));
}

#[tokio::test]
async fn reads_keep_their_isolation_elsewhere() {
    let remote = Arc::new(Remote::default());
    let node = node(Local::default(), &remote);
    for (isolation, expected) in [
        (Isolation::Committed, v1::Isolation::ReadCommitted),
        (Isolation::Uncommitted, v1::Isolation::ReadUncommitted),
    ] {
        let answer = v1::FetchResponse {
            high_watermark: 8,
            last_stable_offset: Some(5),
            ..Default::default()
        };
        remote.answers("Fetch", message(&answer));
        let fetch = Fetch {
            partitions: vec![FetchPartition {
                topic: TopicName::new("orders").unwrap(),
                partition: PartitionId(0),
                offset: Offset::ZERO,
                max_bytes: 1000,
                leader_epoch: None,
            }],
            max_wait: Duration::ZERO,
            min_bytes: 1,
            max_bytes: 1000,
            raw: false,
            isolation,
        };
        let found = node.fetch(&call(), fetch).await.unwrap().remove(0);
        let found = found.result.unwrap();
        assert_eq!(found.last_stable, Offset::new(5).unwrap());
        let heard: Vec<v1::FetchRequest> = remote.heard_of("Fetch");
        assert_eq!(heard.last().unwrap().isolation(), expected);
        let offsets = v1::PartitionOffsets {
            high_watermark: 8,
            last_stable_offset: None,
            ..Default::default()
        };
        let answer = v1::ListOffsetsResponse {
            results: vec![v1::OffsetResult {
                topic_partition: None,
                outcome: Some(v1::offset_result::Outcome::Offsets(offsets)),
            }],
        };
        remote.answers("ListOffsets", message(&answer));
        let query = OffsetQuery {
            partition: orders(0),
            position: Some(Position::Latest),
            with_time: false,
            isolation,
        };
        let found = node.list_offsets(&call(), vec![query]).await.remove(0);
        // A node that does not speak of it has no transactions.
        assert_eq!(found.unwrap().last_stable, Offset::new(8).unwrap());
        let heard: Vec<v1::ListOffsetsRequest> = remote.heard_of("ListOffsets");
        assert_eq!(heard.last().unwrap().queries[0].isolation(), expected);
    }
}

#[tokio::test]
async fn a_held_read_that_has_passed_what_its_reader_does_not_get_is_answered_at_once() {
    let remote = Arc::new(Remote::default());
    let node = node(Local::default(), &remote);
    let answer = v1::FetchResponse {
        next_offset: 2,
        high_watermark: 2,
        ..Default::default()
    };
    // One answer and no more: asking again would be a fault.
    remote.answers("Fetch", message(&answer));
    let fetch = Fetch {
        partitions: vec![FetchPartition {
            topic: TopicName::new("orders").unwrap(),
            partition: PartitionId(0),
            offset: Offset::ZERO,
            max_bytes: 1000,
            leader_epoch: None,
        }],
        max_wait: Duration::from_secs(60),
        min_bytes: 1,
        max_bytes: 1000,
        raw: false,
        isolation: Isolation::Committed,
    };
    let found = node.fetch(&call(), fetch).await.unwrap().remove(0);
    let found = found.result.unwrap();
    assert!(found.batches.is_empty());
    assert_eq!(found.next_offset, Offset::new(2).unwrap());
    assert_eq!(remote.heard_of::<v1::FetchRequest>("Fetch").len(), 1);
}
