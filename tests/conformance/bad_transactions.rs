//! Transactions refuse what they should with the code and reason of the schema, and a refusal changes nothing: not
//! what is open, not what readers see, not what groups have committed.

use std::time::Duration;

use v1::transaction_service_client::TransactionServiceClient;

use crate::support::{
    Bed, Code, Response, Rpc, SOON, Status, eventually, refused, refused_item, request, run,
    run_within, shared, span, told, tp, v1,
};

type Session = v1::TransactionSession;

impl Rpc {
    fn transactions(&self) -> TransactionServiceClient<tonic::transport::Channel> {
        TransactionServiceClient::new(self.channel.clone())
    }

    /// Opens the session of an id; an older transaction of it may have to be ended first.
    async fn open(&self, id: &str, timeout_ms: u64) -> Session {
        let request = v1::InitTransactionsRequest {
            transactional_id: id.to_owned(),
            transaction_timeout: span(timeout_ms),
            current: None,
        };
        patiently(|| async { self.transactions().init_transactions(request.clone()).await })
            .await
            .unwrap()
            .session
            .unwrap()
    }

    async fn append(&self, append: &v1::ProduceRequest) -> Result<i64, Status> {
        let answer = self.produce(append.clone()).await?;
        Ok(answer.base_offset.unwrap())
    }

    async fn end(&self, id: &str, session: Session, commit: bool) -> Result<Session, Status> {
        let outcome = match commit {
            true => v1::TransactionOutcome::Commit,
            false => v1::TransactionOutcome::Abort,
        };
        let request = v1::EndTransactionRequest {
            transactional_id: id.to_owned(),
            session: Some(session),
            outcome: outcome.into(),
        };
        patiently(|| async { self.transactions().end_transaction(request.clone()).await })
            .await
            .map(|answer| answer.session.unwrap())
    }

    async fn describe(&self, id: &str) -> v1::GetTransactionResponse {
        let request = v1::GetTransactionRequest {
            transactional_id: id.to_owned(),
        };
        let found = self.transactions().get_transaction(request).await;
        found.unwrap().into_inner()
    }

    /// Commits the offset of partition 0 within a transaction; the one result.
    async fn commit_in(
        &self,
        commit: v1::CommitTransactionOffsetsRequest,
    ) -> Result<Option<v1::PartitionError>, Status> {
        let mut client = self.transactions();
        let answer = client.commit_transaction_offsets(commit).await?;
        let mut results = answer.into_inner().results;
        assert_eq!(results.len(), 1);
        Ok(results.remove(0).error)
    }

    /// Waits until nothing of an id is under way, and tells where it stands.
    async fn settled(&self, id: &str) -> v1::TransactionState {
        use v1::TransactionState as S;
        eventually("the end of a transaction to be told", || async {
            let state = self.describe(id).await.state();
            !matches!(state, S::PrepareCommit | S::PrepareAbort)
        })
        .await;
        self.describe(id).await.state()
    }
}

/// Repeats what is refused only because the transaction before it is still being ended.
async fn patiently<T, F>(mut call: impl FnMut() -> F) -> Result<T, Status>
where
    F: Future<Output = Result<Response<T>, Status>>,
{
    use tonic_types::StatusExt as _;
    let give_up = tokio::time::Instant::now() + SOON;
    loop {
        match call().await {
            Err(status)
                if status
                    .get_details_error_info()
                    .is_some_and(|info| info.reason == "CONCURRENT_TRANSACTIONS") =>
            {
                assert!(tokio::time::Instant::now() < give_up, "{status:?}");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            answer => return answer.map(Response::into_inner),
        }
    }
}

fn sent(id: &str, topic: &str, session: Session, sequence: i32, value: &str) -> v1::ProduceRequest {
    v1::ProduceRequest {
        session: Some(v1::ProducerSession {
            producer_id: session.producer_id,
            producer_epoch: session.producer_epoch,
            base_sequence: sequence,
        }),
        transactional_id: id.to_owned(),
        ..request(topic, 0, &[value])
    }
}

fn offsets(id: &str, session: Session, name: &str) -> v1::CommitTransactionOffsetsRequest {
    v1::CommitTransactionOffsetsRequest {
        transactional_id: id.to_owned(),
        session: Some(session),
        group: name.to_owned(),
        offsets: vec![v1::PartitionCommit {
            topic_partition: Some(tp(name, 0)),
            offset: 1,
            ..Default::default()
        }],
        ..Default::default()
    }
}

#[test]
fn requests_that_make_no_sense() {
    run(async {
        let rpc = shared().await;
        let name = "x-sense";
        rpc.create(name, 1).await;
        rpc.put(name, 0, &["before"]).await;
        let session = rpc.open(name, 60_000).await;
        let (before, here) = (rpc.world(name).await, rpc.describe(name).await);
        let (code, reason) = (Code::InvalidArgument, "INVALID_REQUEST");
        let long = "x".repeat(250);
        for bad in ["", ".", "..", "a/b", "a\0b", "ä", long.as_str()] {
            let mut client = rpc.transactions();
            let id = || bad.to_owned();
            let init = v1::InitTransactionsRequest {
                transactional_id: id(),
                ..Default::default()
            };
            refused(bad, client.init_transactions(init).await, code, reason);
            let get = v1::GetTransactionRequest {
                transactional_id: id(),
            };
            refused(bad, client.get_transaction(get).await, code, reason);
            let abort = v1::AbortTransactionRequest {
                transactional_id: id(),
            };
            refused(bad, client.abort_transaction(abort).await, code, reason);
            refused(bad, rpc.end(bad, session, true).await, code, reason);
            let commit = offsets(bad, session, name);
            refused(bad, rpc.commit_in(commit).await, code, reason);
            let commit = v1::CommitTransactionOffsetsRequest {
                group: bad.to_owned(),
                ..offsets(name, session, name)
            };
            refused(bad, rpc.commit_in(commit).await, code, reason);
            if !bad.is_empty() {
                let append = rpc.append(&sent(bad, name, session, 0, "a")).await;
                refused(bad, append, code, reason);
            }
        }
        for ms in [0, 999, 900_001] {
            let init = v1::InitTransactionsRequest {
                transactional_id: name.to_owned(),
                transaction_timeout: span(ms),
                current: None,
            };
            let answer = rpc.transactions().init_transactions(init).await;
            refused("timeout", answer, code, reason);
        }
        for (producer_id, producer_epoch) in [(-1, 0), (0, -1), (0, 32_768), (i64::MIN, i32::MAX)] {
            let none = Session {
                producer_id,
                producer_epoch,
            };
            refused("session", rpc.end(name, none, true).await, code, reason);
            let commit = offsets(name, none, name);
            refused("session", rpc.commit_in(commit).await, code, reason);
        }
        for outcome in [0, 3, -1] {
            let end = v1::EndTransactionRequest {
                transactional_id: name.to_owned(),
                session: Some(session),
                outcome,
            };
            let answer = rpc.transactions().end_transaction(end).await;
            refused("outcome", answer, code, reason);
        }
        let list = |edit: fn(&mut v1::ListTransactionsRequest)| {
            let mut request = v1::ListTransactionsRequest::default();
            edit(&mut request);
            let mut client = rpc.transactions();
            async move { client.list_transactions(request).await }
        };
        refused("page", list(|r| r.page_size = -1).await, code, reason);
        refused("state", list(|r| r.states = vec![77]).await, code, reason);
        refused("many", list(|r| r.states = vec![1; 17]).await, code, reason);
        let answer = list(|r| r.page_token = "?".repeat(5_000)).await;
        refused("token", answer, code, reason);
        assert_eq!(rpc.world(name).await, before, "something changed");
        assert_eq!(rpc.describe(name).await, here, "something was begun");
    });
}

#[test]
fn ids_that_are_not_there() {
    run(async {
        let rpc = shared().await;
        let name = "x-nobody";
        rpc.create(name, 1).await;
        rpc.put(name, 0, &["before"]).await;
        // Transactions are used, only not by this one.
        let session = rpc.open("x-nobody-else", 60_000).await;
        let before = rpc.world(name).await;
        let id = || name.to_owned();
        let (code, reason) = (Code::NotFound, "TRANSACTION_NOT_FOUND");
        let get = v1::GetTransactionRequest {
            transactional_id: id(),
        };
        let answer = rpc.transactions().get_transaction(get.clone()).await;
        refused("get", answer, code, reason);
        let abort = v1::AbortTransactionRequest {
            transactional_id: id(),
        };
        let answer = rpc.transactions().abort_transaction(abort).await;
        refused("abort", answer, code, reason);
        let (code, reason) = (Code::FailedPrecondition, "UNKNOWN_PRODUCER");
        refused("end", rpc.end(name, session, true).await, code, reason);
        let answer = rpc.append(&sent(name, name, session, 0, "a")).await;
        refused("append", answer, code, reason);
        let answer = rpc.commit_in(offsets(name, session, name)).await;
        refused("offsets", answer, code, reason);
        assert_eq!(rpc.world(name).await, before, "something changed");
        let answer = rpc.transactions().get_transaction(get).await;
        refused("still", answer, Code::NotFound, "TRANSACTION_NOT_FOUND");
    });
}

#[test]
fn ends_that_come_twice_or_late() {
    run(async {
        let rpc = shared().await;
        let name = "x-ends";
        rpc.create(name, 1).await;
        let fenced = (Code::FailedPrecondition, "PRODUCER_FENCED");
        let invalid = (Code::FailedPrecondition, "INVALID_TRANSACTION_STATE");
        let first = rpc.open(name, 60_000).await;
        rpc.append(&sent(name, name, first, 0, "a")).await.unwrap();
        let second = rpc.end(name, first, true).await.unwrap();
        assert_eq!(rpc.end(name, first, true).await.unwrap(), second, "twice");
        let answer = rpc.end(name, first, false).await;
        refused("commit, then abort", answer, invalid.0, invalid.1);
        // The next one is open: nothing that is late touches it.
        rpc.append(&sent(name, name, second, 0, "b")).await.unwrap();
        let here = rpc.describe(name).await;
        for commit in [true, false] {
            let answer = rpc.end(name, first, commit).await;
            let status = refused("late end", answer, fenced.0, fenced.1);
            let epoch = second.producer_epoch.to_string();
            assert_eq!(told(&status, "current_epoch"), Some(epoch));
        }
        let answer = rpc.append(&sent(name, name, first, 1, "late")).await;
        refused("late append", answer, fenced.0, fenced.1);
        let answer = rpc.commit_in(offsets(name, first, name)).await;
        refused("late offsets", answer, fenced.0, fenced.1);
        let ahead = Session {
            producer_epoch: second.producer_epoch + 1,
            ..second
        };
        let answer = rpc.end(name, ahead, true).await;
        refused("a session that nobody has", answer, fenced.0, fenced.1);
        assert_eq!(rpc.describe(name).await, here, "the open one is as it was");
        assert_eq!(rpc.values(name, 0).await, ["a"], "and not to be seen");
        // An operator ends it; whoever has it learns so with the next call, whichever it is.
        let operator = || v1::AbortTransactionRequest {
            transactional_id: name.to_owned(),
        };
        rpc.transactions()
            .abort_transaction(operator())
            .await
            .unwrap();
        rpc.settled(name).await;
        let aborted = (Code::Aborted, "TRANSACTION_ABORTED");
        let answer = rpc.end(name, second, true).await;
        refused("end of an aborted one", answer, aborted.0, aborted.1);
        let answer = rpc.transactions().abort_transaction(operator()).await;
        refused("nothing is open", answer, invalid.0, invalid.1);
        assert_eq!(rpc.values(name, 0).await, ["a"]);
    });
}

#[test]
fn an_end_that_comes_after_the_timeout() {
    run(async {
        let rpc = shared().await;
        let name = "x-late";
        rpc.create(name, 1).await;
        let session = rpc.open(name, 1_000).await;
        rpc.append(&sent(name, name, session, 0, "a"))
            .await
            .unwrap();
        eventually("the transaction to time out", || async {
            rpc.describe(name).await.state() == v1::TransactionState::CompleteAbort
        })
        .await;
        let (code, reason) = (Code::Aborted, "TRANSACTION_ABORTED");
        for commit in [true, false] {
            let answer = rpc.end(name, session, commit).await;
            refused("late end", answer, code, reason);
        }
        assert_eq!(rpc.values(name, 0).await, Vec::<String>::new());
        let here = rpc.describe(name).await;
        assert_eq!(here.cause(), v1::TransactionCause::Timeout);
        // It begins a session of its own and goes on.
        let next = rpc.open(name, 60_000).await;
        rpc.append(&sent(name, name, next, 0, "b")).await.unwrap();
        rpc.end(name, next, true).await.unwrap();
        rpc.settled(name).await;
        assert_eq!(rpc.values(name, 0).await, ["b"]);
    });
}

#[test]
fn appends_that_are_in_no_transaction() {
    run(async {
        let rpc = shared().await;
        let name = "x-append";
        rpc.create(name, 1).await;
        let session = rpc.open(name, 60_000).await;
        let (before, here) = (rpc.world(name).await, rpc.describe(name).await);
        let ok = || sent(name, name, session, 0, "a");
        let (code, reason) = (Code::InvalidArgument, "INVALID_REQUEST");
        let without = v1::ProduceRequest {
            session: None,
            ..ok()
        };
        refused("no session", rpc.append(&without).await, code, reason);
        let leader = v1::ProduceRequest {
            acks: v1::Acks::Leader.into(),
            ..ok()
        };
        refused(
            "acks of the leader",
            rpc.append(&leader).await,
            code,
            reason,
        );
        let nowhere = sent(name, "x-append-none", session, 0, "a");
        let answer = rpc.append(&nowhere).await;
        refused("topic", answer, Code::NotFound, "TOPIC_NOT_FOUND");
        let far = v1::ProduceRequest {
            partition: Some(7),
            ..ok()
        };
        let answer = rpc.append(&far).await;
        refused("partition", answer, Code::NotFound, "PARTITION_NOT_FOUND");
        let ahead = Session {
            producer_epoch: session.producer_epoch + 1,
            ..session
        };
        let answer = rpc.append(&sent(name, name, ahead, 0, "a")).await;
        refused("epoch", answer, Code::FailedPrecondition, "PRODUCER_FENCED");
        assert_eq!(rpc.world(name).await, before, "something changed");
        assert_eq!(rpc.describe(name).await, here, "something was begun");
        // Another one's session is no way in either.
        let other = rpc.open("x-append-other", 60_000).await;
        let answer = rpc.append(&sent(name, name, other, 0, "a")).await;
        refused("other", answer, Code::FailedPrecondition, "PRODUCER_FENCED");
        rpc.append(&ok()).await.unwrap();
        let gap = rpc.append(&sent(name, name, session, 5, "gap")).await;
        refused(
            "gap",
            gap,
            Code::FailedPrecondition,
            "OUT_OF_ORDER_SEQUENCE",
        );
        rpc.end(name, session, true).await.unwrap();
        rpc.settled(name).await;
        assert_eq!(rpc.values(name, 0).await, ["a"]);
    });
}

#[test]
fn offsets_that_make_no_sense() {
    run(async {
        let rpc = shared().await;
        let name = "x-offsets";
        rpc.create(name, 1).await;
        rpc.put(name, 0, &["a", "b"]).await;
        let session = rpc.open(name, 60_000).await;
        let (before, here) = (rpc.world(name).await, rpc.describe(name).await);
        let with = |edit: &dyn Fn(&mut v1::PartitionCommit)| {
            let mut commit = offsets(name, session, name);
            edit(&mut commit.offsets[0]);
            commit
        };
        let many = v1::CommitTransactionOffsetsRequest {
            offsets: vec![with(&|_| ()).offsets.remove(0); 1001],
            ..with(&|_| ())
        };
        for (what, commit) in [
            ("too many", many),
            ("negative", with(&|o| o.offset = -1)),
            ("no partition", with(&|o| o.topic_partition = None)),
            ("metadata", with(&|o| o.metadata = "m".repeat(4097))),
            ("leader epoch", with(&|o| o.leader_epoch = Some(-1))),
        ] {
            let answer = rpc.commit_in(commit).await;
            refused(what, answer, Code::InvalidArgument, "INVALID_REQUEST");
        }
        for (what, commit, code, reason) in [
            (
                "beyond the end",
                with(&|o| o.offset = 3),
                Code::OutOfRange,
                "OFFSET_OUT_OF_RANGE",
            ),
            (
                "topic",
                with(&|o| o.topic_partition = Some(tp("x-offsets-none", 0))),
                Code::NotFound,
                "TOPIC_NOT_FOUND",
            ),
            (
                "partition",
                with(&|o| o.topic_partition = Some(tp(name, 7))),
                Code::NotFound,
                "PARTITION_NOT_FOUND",
            ),
        ] {
            let error = rpc.commit_in(commit).await.unwrap();
            refused_item(what, error.as_ref(), code, reason);
        }
        assert_eq!(rpc.world(name).await, before, "something changed");
        assert_eq!(rpc.describe(name).await, here, "something was begun");
        // A member that the group does not have. The group takes part in the transaction, which is then without
        // anything of it.
        let stranger = v1::CommitTransactionOffsetsRequest {
            member_id: "stranger".to_owned(),
            member_epoch: 1,
            ..with(&|_| ())
        };
        let answer = rpc.commit_in(stranger).await;
        refused(
            "stranger",
            answer,
            Code::FailedPrecondition,
            "UNKNOWN_MEMBER",
        );
        rpc.end(name, session, true).await.unwrap();
        rpc.settled(name).await;
        assert_eq!(rpc.world(name).await, before, "no offset was committed");
    });
}

/// Who goes on from committed offsets must not do so while a transaction may change them.
#[test]
fn offsets_that_are_not_decided() {
    run(async {
        let rpc = shared().await;
        let name = "x-undecided";
        rpc.create(name, 1).await;
        rpc.put(name, 0, &["a"]).await;
        let session = rpc.open(name, 60_000).await;
        let error = rpc.commit_in(offsets(name, session, name)).await.unwrap();
        assert_eq!(error, None);
        let get = |require_stable| {
            let request = v1::GetOffsetsRequest {
                group: name.to_owned(),
                partitions: vec![tp(name, 0)],
                require_stable,
                ..Default::default()
            };
            let mut client = rpc.groups();
            async move { client.get_offsets(request).await }
        };
        let (code, reason) = (Code::Aborted, "CONCURRENT_TRANSACTIONS");
        refused("undecided", get(true).await, code, reason);
        rpc.end(name, session, true).await.unwrap();
        rpc.settled(name).await;
        let decided = patiently(|| get(true)).await.unwrap();
        assert_eq!(decided.offsets[0].offset, 1);
    });
}

/// The number of open transactions is bounded, and the bound is told as something that may pass. All of them
/// outlive the node that coordinates them.
#[test]
fn a_coordinator_with_all_its_transactions_begins_no_more() {
    const LANES: usize = 64;
    run_within(Duration::from_secs(400), async {
        let mut bed = Bed::start(&[("transaction.state.log.num.partitions", "1")]).await;
        let rpc = bed.rpc.clone();
        let name = "t";
        // A partition remembers fewer producers than a coordinator has transactions.
        rpc.create(name, 4).await;
        let most = varve_types::limits::TRANSACTIONS_OPEN_MAX;
        let lanes = (0..LANES).map(|lane| {
            let rpc = rpc.clone();
            tokio::spawn(async move {
                for n in (lane..most).step_by(LANES) {
                    let id = format!("id-{n}");
                    let session = rpc.open(&id, 900_000).await;
                    let append = v1::ProduceRequest {
                        partition: Some((n % 4) as i32),
                        ..sent(&id, name, session, 0, "open")
                    };
                    rpc.append(&append).await.unwrap();
                }
            })
        });
        for lane in lanes.collect::<Vec<_>>() {
            lane.await.unwrap();
        }
        let session = rpc.open("one-more", 900_000).await;
        let append = sent("one-more", name, session, 0, "one more");
        let answer = rpc.append(&append).await;
        refused("one more", answer, Code::ResourceExhausted, "THROTTLED");
        assert_eq!(
            rpc.describe("one-more").await.state(),
            v1::TransactionState::Empty
        );
        bed.stop().await;
        bed.resume().await;
        let rpc = bed.rpc.clone();
        let first = rpc.describe("id-0").await;
        assert_eq!(first.state(), v1::TransactionState::Ongoing);
        rpc.end("id-0", first.session.unwrap(), true).await.unwrap();
        // Now there is room for one.
        rpc.settled("id-0").await;
        rpc.append(&append).await.unwrap();
        bed.stop().await;
    });
}

/// The ids are in several partitions of the transaction log, each with a coordinator of its own: the limit is that of
/// the node.
#[test]
fn ids_beyond_the_limit_of_the_node_are_refused_for_good() {
    run(async {
        let mut bed = Bed::start(&[("transactional.ids.max", "3")]).await;
        let rpc = &bed.rpc;
        for id in ["one", "two", "three"] {
            rpc.open(id, 60_000).await;
        }
        let fourth = v1::InitTransactionsRequest {
            transactional_id: "four".to_owned(),
            ..Default::default()
        };
        let answer =
            patiently(|| async { rpc.transactions().init_transactions(fourth.clone()).await })
                .await;
        let text = answer
            .as_ref()
            .err()
            .map(|s| s.message().to_owned())
            .unwrap_or_default();
        assert!(text.contains("coordinates 3 transactional ids"), "{text}");
        assert!(text.contains("raise transactional.ids.max"), "{text}");
        refused("four", answer, Code::FailedPrecondition, "POLICY_VIOLATION");
        rpc.open("two", 60_000).await;
        bed.stop().await;
    });
}
