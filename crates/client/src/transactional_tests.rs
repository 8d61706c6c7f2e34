//! Tests of what may follow what in a transactional producer, and of what its errors mean.

use super::*;

fn said(kind: ErrorKind) -> ClientError {
    let error = RpcError {
        kind: Some(kind),
        ..RpcError::transport("said")
    };
    error.into()
}

fn lost() -> ClientError {
    RpcError::transport("reset").into()
}

fn in_turn<T>(result: Result<T, TransactionError>) -> bool {
    match result {
        Ok(_) => true,
        Err(TransactionError::OutOfTurn(_)) => false,
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn what_may_follow_what() {
    let ending = |commit| Stage::Ending { commit };
    // Stage, and whether begin, send, commit, abort are in turn.
    let rows = [
        (Stage::Ready, [true, false, false, false]),
        (Stage::Open, [false, true, true, true]),
        (Stage::Broken, [false, false, false, true]),
        (ending(true), [false, false, true, false]),
        (ending(false), [false, false, false, true]),
        (Stage::Fenced, [false, false, false, false]),
    ];
    for (stage, expected) in rows {
        let found = [
            in_turn(stage.begin()),
            in_turn(stage.add()),
            in_turn(stage.end(true)),
            in_turn(stage.end(false)),
        ];
        assert_eq!(found, expected, "{stage:?}");
    }
    assert_eq!(Stage::Ready.begin(), Ok(Stage::Open));
}

#[test]
fn who_was_fenced_can_do_nothing_more() {
    for ending in [None, Some(true), Some(false)] {
        let (stage, error) = Stage::Open.failed(said(ErrorKind::ProducerFenced), ending);
        assert_eq!(stage, Stage::Fenced);
        assert!(matches!(error, TransactionError::Fenced(_)), "{error}");
        assert_eq!(
            error.cause().and_then(ClientError::kind),
            Some(ErrorKind::ProducerFenced)
        );
    }
}

#[test]
fn an_end_without_answer_is_made_again_and_not_otherwise() {
    for commit in [true, false] {
        for error in [
            lost(),
            said(ErrorKind::ConcurrentTransactions),
            // The log of its coordinator has failed: the record may be with the other replicas.
            said(ErrorKind::StorageError),
        ] {
            let (stage, error) = Stage::Open.failed(error, Some(commit));
            assert_eq!(stage, Stage::Ending { commit });
            assert!(matches!(error, TransactionError::Unsure(_)), "{error}");
        }
    }
    // Without an answer about offsets they may or may not be in it: it cannot be committed.
    let (stage, error) = Stage::Open.failed(lost(), None);
    assert_eq!(stage, Stage::Broken);
    assert!(matches!(error, TransactionError::MustAbort(_)), "{error}");
}

#[test]
fn what_the_cluster_has_aborted_is_to_be_done_again() {
    for kind in [
        ErrorKind::TransactionAborted,
        ErrorKind::UnknownProducer,
        ErrorKind::InvalidTransactionState,
        ErrorKind::StaleMemberEpoch,
    ] {
        let (stage, error) = Stage::Open.failed(said(kind), Some(true));
        assert_eq!(stage, Stage::Broken, "{kind:?}");
        assert!(matches!(error, TransactionError::MustAbort(_)), "{error}");
    }
}

#[test]
fn calls_are_repeated_while_that_may_help() {
    for kind in [
        ErrorKind::ConcurrentTransactions,
        ErrorKind::CoordinatorLoading,
        ErrorKind::NotCoordinator,
        ErrorKind::LeaderNotAvailable,
        ErrorKind::Throttled,
        ErrorKind::CommitTimeout,
        ErrorKind::StorageError,
    ] {
        assert!(again(&said(kind)), "{kind:?}");
    }
    for kind in [
        ErrorKind::ProducerFenced,
        ErrorKind::TransactionAborted,
        ErrorKind::UnknownProducer,
        ErrorKind::InvalidTransactionState,
        ErrorKind::StaleMemberEpoch,
        ErrorKind::InvalidRequest,
    ] {
        assert!(!again(&said(kind)), "{kind:?}");
    }
    assert!(again(&lost()));
    assert!(over(&said(ErrorKind::TransactionAborted)) && over(&said(ErrorKind::UnknownProducer)));
    assert!(!over(&said(ErrorKind::ProducerFenced)) && !over(&lost()));
}

#[test]
fn only_sessions_that_can_be_ones_are_taken_over() {
    let read = |producer_id, producer_epoch| {
        let raw = v1::TransactionSession {
            producer_id,
            producer_epoch,
        };
        session("EndTransaction", Some(raw))
    };
    assert_eq!(
        read(7, 32767),
        Ok(ProducerId {
            id: 7,
            epoch: i16::MAX
        })
    );
    for bad in [read(-1, 0), read(1, -1), read(1, 32768), session("X", None)] {
        assert!(matches!(bad, Err(ClientError::Protocol(_))), "{bad:?}");
    }
}

#[tokio::test]
async fn a_name_of_its_own_is_refused() {
    let config = TransactionalConfig {
        producer: ProducerConfig {
            name: "other".to_owned(),
            ..Default::default()
        },
        ..Default::default()
    };
    let client = Client::new(crate::ClientConfig::default()).unwrap();
    let id = TransactionalId::new("billing-1").unwrap();
    let refused = TransactionalProducer::open(client, id, config).await;
    assert!(matches!(
        refused.unwrap_err(),
        TransactionError::Refused(ClientError::Config(_))
    ));
}
