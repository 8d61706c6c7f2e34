//! TransactionService, and appends in transactions.

use tonic::Code;
use tonic::transport::Channel;
use varve_proto::v1;
use varve_proto::v1::partition_produce_result::Outcome;
use varve_proto::v1::transaction_service_client::TransactionServiceClient;

use crate::{Harness, assert_fails, record, soon, tp};

pub const ID: &str = "billing-1";

pub fn service(h: &Harness) -> TransactionServiceClient<Channel> {
    TransactionServiceClient::new(h.channel.clone())
}

pub async fn init(h: &Harness) -> v1::TransactionSession {
    let request = v1::InitTransactionsRequest {
        transactional_id: ID.to_owned(),
        ..Default::default()
    };
    let answer = service(h).init_transactions(request).await.unwrap();
    answer.into_inner().session.unwrap()
}

pub fn produce(
    session: &v1::TransactionSession,
    topic: &str,
    sequence: i32,
    value: &str,
) -> v1::ProduceRequest {
    v1::ProduceRequest {
        topic: topic.to_owned(),
        partition: Some(0),
        records: vec![record(None, value)],
        session: Some(v1::ProducerSession {
            producer_id: session.producer_id,
            producer_epoch: session.producer_epoch,
            base_sequence: sequence,
        }),
        transactional_id: ID.to_owned(),
        ..Default::default()
    }
}

pub fn end(
    session: &v1::TransactionSession,
    outcome: v1::TransactionOutcome,
) -> v1::EndTransactionRequest {
    v1::EndTransactionRequest {
        transactional_id: ID.to_owned(),
        session: Some(*session),
        outcome: outcome.into(),
    }
}

fn commit_offsets(
    session: &v1::TransactionSession,
    topics: &[&str],
) -> v1::CommitTransactionOffsetsRequest {
    let offset = |topic: &&str| v1::PartitionCommit {
        topic_partition: tp(topic, 0),
        offset: 7,
        ..Default::default()
    };
    v1::CommitTransactionOffsetsRequest {
        transactional_id: ID.to_owned(),
        session: Some(*session),
        group: "readers".to_owned(),
        offsets: topics.iter().map(offset).collect(),
        ..Default::default()
    }
}

#[tokio::test]
async fn a_transaction_is_committed_with_its_records_and_offsets() {
    let h = Harness::start().await;
    h.broker.topic("orders", 1);
    let first = init(&h).await;
    assert_eq!(first.producer_epoch, 0);
    h.producer()
        .produce(produce(&first, "orders", 0, "a"))
        .await
        .unwrap();
    let answer = service(&h)
        .commit_transaction_offsets(commit_offsets(&first, &["orders", "__consumer_offsets"]))
        .await;
    let results = answer.unwrap().into_inner().results;
    assert_eq!(results[0].topic_partition, tp("orders", 0));
    assert_eq!(results[0].error, None);
    let refused = results[1].error.as_ref().unwrap();
    assert_eq!(refused.reason(), v1::ErrorReason::TopicNotFound);
    assert_eq!(h.broker.committed("readers", "orders", 0), None);
    let open = describe(&h).await;
    assert_eq!(open.state(), v1::TransactionState::Ongoing);
    assert_eq!(open.partitions, [tp("orders", 0).unwrap()]);
    assert!(open.started.is_some());
    let commit = || end(&first, v1::TransactionOutcome::Commit);
    let answer = service(&h).end_transaction(commit()).await.unwrap();
    let next = answer.into_inner().session.unwrap();
    assert_eq!(
        (next.producer_id, next.producer_epoch),
        (first.producer_id, first.producer_epoch + 1)
    );
    assert_eq!(h.broker.committed("readers", "orders", 0), Some(7));
    let again = service(&h).end_transaction(commit()).await.unwrap();
    assert_eq!(again.into_inner().session, Some(next));
    let done = describe(&h).await;
    assert_eq!(done.state(), v1::TransactionState::CompleteCommit);
    assert_eq!(done.cause(), v1::TransactionCause::Producer);
    assert_eq!(done.started, None);
    assert_eq!(done.transaction_timeout.unwrap().seconds, 60);
    assert_eq!(done.coordinator_id, 1);
    let late = produce(&first, "orders", 1, "b");
    let late = h.producer().produce(late).await;
    assert_fails(late, Code::FailedPrecondition, "PRODUCER_FENCED");
}

async fn describe(h: &Harness) -> v1::GetTransactionResponse {
    let request = v1::GetTransactionRequest {
        transactional_id: ID.to_owned(),
    };
    let answer = service(h).get_transaction(request).await.unwrap();
    answer.into_inner()
}

#[tokio::test]
async fn a_stream_appends_in_transactions_too() {
    let h = Harness::start().await;
    h.broker.topic("orders", 1);
    let session = init(&h).await;
    let message = |request_id, request| v1::ProduceStreamRequest {
        request_id,
        request: Some(request),
    };
    let unsure = v1::ProduceRequest {
        acks: v1::Acks::Leader.into(),
        ..produce(&session, "orders", 0, "x")
    };
    let sent = tokio_stream::iter(vec![
        message(1, produce(&session, "orders", 0, "a")),
        message(2, unsure),
    ]);
    let answers = h.producer().produce_stream(sent).await.unwrap();
    let mut answers = answers.into_inner();
    let mut outcomes = Vec::new();
    while let Some(answer) = soon(answers.message()).await.unwrap() {
        if let Some(v1::produce_stream_response::Event::Result(result)) = answer.event {
            outcomes.push((result.request_id, result.result.unwrap().outcome.unwrap()));
        }
    }
    outcomes.sort_by_key(|(id, _)| *id);
    assert!(
        matches!(outcomes[0].1, Outcome::Appended(_)),
        "{outcomes:?}"
    );
    match &outcomes[1].1 {
        Outcome::Error(error) => assert_eq!(error.reason(), v1::ErrorReason::InvalidRequest),
        other => panic!("appended: {other:?}"),
    }
    assert_eq!(h.broker.end_of("orders", 0), 1);
}

#[tokio::test]
async fn an_operator_aborts_what_is_open() {
    let h = Harness::start().await;
    h.broker.topic("orders", 1);
    let abort = || v1::AbortTransactionRequest {
        transactional_id: ID.to_owned(),
    };
    let unknown = service(&h).abort_transaction(abort()).await;
    assert_fails(unknown, Code::NotFound, "TRANSACTION_NOT_FOUND");
    let session = init(&h).await;
    let nothing = service(&h).abort_transaction(abort()).await;
    assert_fails(
        nothing,
        Code::FailedPrecondition,
        "INVALID_TRANSACTION_STATE",
    );
    h.producer()
        .produce(produce(&session, "orders", 0, "a"))
        .await
        .unwrap();
    service(&h).abort_transaction(abort()).await.unwrap();
    let found = describe(&h).await;
    assert_eq!(found.state(), v1::TransactionState::CompleteAbort);
    assert_eq!(found.cause(), v1::TransactionCause::Operator);
    let late = service(&h)
        .end_transaction(end(&session, v1::TransactionOutcome::Commit))
        .await;
    assert_fails(late, Code::FailedPrecondition, "PRODUCER_FENCED");
}

#[tokio::test]
async fn lists_are_filtered_and_paged() {
    let h = Harness::start().await;
    h.broker.topic("orders", 1);
    let session = init(&h).await;
    for n in 0..5 {
        let request = v1::InitTransactionsRequest {
            transactional_id: format!("etl-{n}"),
            ..Default::default()
        };
        service(&h).init_transactions(request).await.unwrap();
    }
    h.producer()
        .produce(produce(&session, "orders", 0, "a"))
        .await
        .unwrap();
    let list = |request: v1::ListTransactionsRequest| async {
        let answer = service(&h).list_transactions(request).await.unwrap();
        answer.into_inner()
    };
    let open = list(v1::ListTransactionsRequest {
        states: vec![v1::TransactionState::Ongoing.into()],
        ..Default::default()
    })
    .await;
    assert_eq!(open.transactions.len(), 1);
    let first = &open.transactions[0];
    assert_eq!(
        (first.transactional_id.as_str(), first.session),
        (ID, Some(session))
    );
    assert_eq!(first.coordinator_id, 1);
    let (mut token, mut seen) = (String::new(), Vec::new());
    loop {
        let page = list(v1::ListTransactionsRequest {
            id_prefix: "etl-".to_owned(),
            page_size: 2,
            page_token: token,
            ..Default::default()
        })
        .await;
        assert!(page.transactions.len() <= 2);
        seen.extend(page.transactions.into_iter().map(|t| t.transactional_id));
        token = page.next_page_token;
        if token.is_empty() {
            break;
        }
    }
    assert_eq!(seen, ["etl-0", "etl-1", "etl-2", "etl-3", "etl-4"]);
}

#[tokio::test]
async fn bad_requests_are_refused_with_their_reason() {
    let h = Harness::start().await;
    h.broker.topic("orders", 1);
    let session = init(&h).await;
    let (bad, why) = (Code::InvalidArgument, "INVALID_REQUEST");
    let long = v1::InitTransactionsRequest {
        transactional_id: ID.to_owned(),
        transaction_timeout: Some(prost_types::Duration {
            seconds: 3600,
            nanos: 0,
        }),
        ..Default::default()
    };
    assert_fails(service(&h).init_transactions(long).await, bad, why);
    let other = v1::InitTransactionsRequest {
        transactional_id: ID.to_owned(),
        current: Some(v1::TransactionSession {
            producer_epoch: 9,
            ..session
        }),
        ..Default::default()
    };
    let answer = service(&h).init_transactions(other).await;
    assert_fails(answer, Code::FailedPrecondition, "PRODUCER_FENCED");
    let unspecified = end(&session, v1::TransactionOutcome::Unspecified);
    let answer = service(&h).end_transaction(unspecified).await;
    assert_fails(answer, bad, why);
    let early = end(&session, v1::TransactionOutcome::Commit);
    let answer = service(&h).end_transaction(early).await;
    let state = "INVALID_TRANSACTION_STATE";
    assert_fails(answer, Code::FailedPrecondition, state);
    let none = commit_offsets(&session, &[]);
    let answer = service(&h).commit_transaction_offsets(none).await;
    assert_fails(answer, bad, why);
    let nameless = v1::GetTransactionRequest::default();
    let answer = service(&h).get_transaction(nameless).await;
    assert_fails(answer, bad, why);
    let unknown = v1::GetTransactionRequest {
        transactional_id: "nobody".to_owned(),
    };
    let answer = service(&h).get_transaction(unknown).await;
    assert_fails(answer, Code::NotFound, "TRANSACTION_NOT_FOUND");
    let list = v1::ListTransactionsRequest {
        page_size: -1,
        ..Default::default()
    };
    assert_fails(service(&h).list_transactions(list).await, bad, why);
    for change in [
        (|r| r.session = None) as fn(&mut v1::ProduceRequest),
        |r| r.partition = None,
        |r| r.acks = v1::Acks::None.into(),
        |r| r.transactional_id = "a/b".to_owned(),
    ] {
        let mut request = produce(&session, "orders", 0, "a");
        change(&mut request);
        assert_fails(h.producer().produce(request).await, bad, why);
    }
    assert_eq!(h.broker.end_of("orders", 0), 0);
}
