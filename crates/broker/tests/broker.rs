//! The broker in process, over a disk that loses power and fails on command: what front ends rely on.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends")]

use std::time::Duration;

use crate::support::{Fixture, batch, idempotent_batch, produce, read_all};
use futures_util::FutureExt as _;
use varve_broker_api::{
    AddPartitions, Before, Broker as _, CommitOffsets, ConfigChange, Context, CreateTopic,
    DeleteBefore, Fetch, FetchPartition, GetOffsets, Heartbeat, InitProducer, Isolation,
    OffsetCommit, OffsetQuery, Position, Produce, ResetOffsets, ResetTarget, Subscription,
    UpdateConfigs,
};
use varve_types::{
    Acks, ErrorKind, GroupName, LeaderEpoch, MemberId, Offset, PartitionId, Sequence,
};
use varve_vfs::fault::Op;

fn offset(n: i64) -> Offset {
    Offset::new(n).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_acknowledged_is_read_back_at_its_offset() {
    let f = Fixture::new().await;
    let topic = f.create("orders", 2).await;
    let first = produce(&f.broker, &topic, 1, batch(&["a", "b"]))
        .await
        .unwrap();
    let second = produce(&f.broker, &topic, 1, batch(&["c"])).await.unwrap();
    assert_eq!(
        (first.base_offset, second.base_offset),
        (Some(offset(0)), Some(offset(2)))
    );
    assert_eq!((first.replicas, first.flushed_replicas), (1, 1));
    assert_eq!(read_all(&f.broker, &topic, 1).await, ["a", "b", "c"]);
    assert!(read_all(&f.broker, &topic, 0).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn acknowledged_records_survive_power_loss() {
    let f = Fixture::new().await;
    let topic = f.create("orders", 1).await;
    for value in ["a", "b", "c"] {
        produce(&f.broker, &topic, 0, batch(&[value]))
            .await
            .unwrap();
    }
    let f = f.crash_and_restart().await;
    assert_eq!(read_all(&f.broker, &topic, 0).await, ["a", "b", "c"]);
    let next = produce(&f.broker, &topic, 0, batch(&["d"])).await.unwrap();
    assert_eq!(next.base_offset, Some(offset(3)));
    assert!(next.leader_epoch.get() > 0, "a restart begins an epoch");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clean_shutdown_keeps_everything_and_refuses_what_comes_after() {
    let f = Fixture::new().await;
    let topic = f.create("orders", 3).await;
    produce(&f.broker, &topic, 2, batch(&["x"])).await.unwrap();
    assert!(f.broker.shutdown().await, "everything is on disk");
    let refused = produce(&f.broker, &topic, 2, batch(&["y"]))
        .await
        .unwrap_err();
    assert_eq!(refused.kind, ErrorKind::ShuttingDown);
    let f = f.restart(true).await;
    assert_eq!(read_all(&f.broker, &topic, 2).await, ["x"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_batch_is_stored_once_even_after_a_crash() {
    let f = Fixture::new().await;
    let topic = f.create("orders", 1).await;
    let ctx = Context::anonymous();
    let session = f
        .broker
        .init_producer(&ctx, InitProducer { name: None })
        .await
        .unwrap()
        .producer;
    let seq = |n| Sequence::new(n).unwrap();
    let one = || idempotent_batch(session, seq(0), &["a", "b"]);
    let first = produce(&f.broker, &topic, 0, one()).await.unwrap();
    let again = produce(&f.broker, &topic, 0, one()).await.unwrap();
    assert!(!first.deduplicated && again.deduplicated);
    assert_eq!(first.base_offset, again.base_offset);

    let f = f.crash_and_restart().await;
    let again = produce(&f.broker, &topic, 0, one()).await.unwrap();
    assert!(again.deduplicated, "sessions are rebuilt from the log");
    let gap = idempotent_batch(session, seq(9), &["z"]);
    let error = produce(&f.broker, &topic, 0, gap).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::OutOfOrderSequence);
    assert!(
        error
            .metadata
            .contains(&("expected_sequence", "2".to_owned()))
    );

    assert!(f.broker.shutdown().await);
    let f = f.restart(true).await;
    let again = produce(&f.broker, &topic, 0, one()).await.unwrap();
    assert!(again.deduplicated, "sessions are read from the snapshot");
    assert_eq!(read_all(&f.broker, &topic, 0).await, ["a", "b"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn producer_ids_are_never_given_twice() {
    let f = Fixture::new().await;
    let ctx = Context::anonymous();
    let anonymous = InitProducer { name: None };
    let a = f
        .broker
        .init_producer(&ctx, anonymous.clone())
        .await
        .unwrap()
        .producer;
    let b = f
        .broker
        .init_producer(&ctx, anonymous.clone())
        .await
        .unwrap()
        .producer;
    assert_ne!(a.id, b.id);
    let named = InitProducer {
        name: Some("billing".to_owned()),
    };
    let n1 = f
        .broker
        .init_producer(&ctx, named.clone())
        .await
        .unwrap()
        .producer;
    let f = f.crash_and_restart().await;
    let c = f
        .broker
        .init_producer(&ctx, anonymous)
        .await
        .unwrap()
        .producer;
    assert!(![a.id, b.id, n1.id].contains(&c.id));
    let n2 = f.broker.init_producer(&ctx, named).await.unwrap().producer;
    assert_eq!(
        (n2.id, n2.epoch),
        (n1.id, n1.epoch + 1),
        "the older session is fenced"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_at_the_end_is_woken_by_the_next_record() {
    let f = Fixture::new().await;
    let topic = f.create("orders", 2).await;
    let broker = f.broker.clone();
    let wanted = |partition| FetchPartition {
        topic: "orders".parse().unwrap(),
        partition: PartitionId(partition),
        offset: Offset::ZERO,
        max_bytes: 1 << 20,
        leader_epoch: None,
    };
    let fetch = Fetch {
        raw: false,
        isolation: varve_broker_api::Isolation::default(),
        partitions: vec![wanted(0), wanted(1)],
        max_wait: Duration::from_secs(20),
        min_bytes: 1,
        max_bytes: 1 << 20,
    };
    let ctx = Context::anonymous();
    let mut waiting = Box::pin(async move { broker.fetch(&ctx, fetch).await });
    assert!(
        (&mut waiting).now_or_never().is_none(),
        "nothing to read yet"
    );
    produce(&f.broker, &topic, 1, batch(&["x"])).await.unwrap();
    let answers = tokio::time::timeout(Duration::from_secs(10), waiting)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(answers[1].result.as_ref().unwrap().next_offset, offset(1));
    assert_eq!(answers[0].result.as_ref().unwrap().next_offset, offset(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_addresses_are_told_apart() {
    let f = Fixture::new().await;
    let topic = f.create("orders", 1).await;
    let error = produce(&f.broker, &"order".parse().unwrap(), 0, batch(&["x"]))
        .await
        .unwrap_err();
    assert_eq!(error.kind, ErrorKind::TopicNotFound);
    assert!(
        error.message.contains("did you mean \"orders\"?"),
        "{error}"
    );
    for partition in [1, -1, i32::MAX] {
        let error = produce(&f.broker, &topic, partition, batch(&["x"]))
            .await
            .unwrap_err();
        assert_eq!(error.kind, ErrorKind::PartitionNotFound, "{error}");
    }
    let error = crate::support::fetch_one(&f.broker, &topic, 0, 5)
        .await
        .unwrap_err();
    assert_eq!(error.kind, ErrorKind::OffsetOutOfRange);
    assert!(
        error.metadata.contains(&("high_watermark", "0".to_owned())),
        "{error:?}"
    );
    let internal = "__consumer_offsets".parse().unwrap();
    let error = produce(&f.broker, &internal, 0, batch(&["x"]))
        .await
        .unwrap_err();
    assert_eq!(error.kind, ErrorKind::PolicyViolation);
    assert!(read_all(&f.broker, &topic, 0).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn expected_offsets_are_compared() {
    let f = Fixture::new().await;
    let topic = f.create("orders", 1).await;
    let at = |n| Produce {
        transaction_version: Default::default(),
        transactional_id: None,
        topic: topic.clone(),
        partition: PartitionId(0),
        acks: Acks::All,
        batch: batch(&["x"]),
        expected_offset: Some(offset(n)),
    };
    let ctx = Context::anonymous();
    f.broker.produce(&ctx, at(0)).await.unwrap().await.unwrap();
    let error = f
        .broker
        .produce(&ctx, at(0))
        .await
        .unwrap()
        .await
        .unwrap_err();
    assert_eq!(error.kind, ErrorKind::ExpectedOffsetMismatch);
    assert!(error.metadata.contains(&("actual_offset", "1".to_owned())));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_of_no_bytes_is_told_how_things_are() {
    let f = Fixture::new().await;
    let topic = f.create("orders", 1).await;
    for value in ["a", "b"] {
        let sent = produce(&f.broker, &topic, 0, batch(&[value])).await;
        sent.unwrap();
    }
    let look = async |from, epoch| {
        let fetch = Fetch {
            raw: true,
            isolation: Isolation::Committed,
            partitions: vec![FetchPartition {
                topic: topic.clone(),
                partition: PartitionId(0),
                offset: offset(from),
                max_bytes: 1 << 20,
                leader_epoch: epoch,
            }],
            max_wait: Duration::ZERO,
            min_bytes: 1,
            max_bytes: 0,
        };
        let found = f.broker.fetch(&Context::anonymous(), fetch).await;
        found.unwrap().remove(0).result
    };
    let found = look(1, None).await.unwrap();
    assert!(found.batches.is_empty());
    let ends = (found.next_offset, found.high_watermark, found.log_start);
    assert_eq!(ends, (offset(1), offset(2), offset(0)));
    let error = look(3, None).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::OffsetOutOfRange);
    let error = look(1, LeaderEpoch::new(99)).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::UnknownLeaderEpoch);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_appends_and_serves_reads_until_there_is_space() {
    let f = Fixture::new().await;
    let topic = f.create("orders", 1).await;
    produce(&f.broker, &topic, 0, batch(&["a"])).await.unwrap();
    f.faults.set_budget(Some(0));
    let error = produce(&f.broker, &topic, 0, batch(&["b"]))
        .await
        .unwrap_err();
    assert_eq!(error.kind, ErrorKind::StorageFull, "{error}");
    assert_eq!(read_all(&f.broker, &topic, 0).await, ["a"]);
    f.faults.heal();
    let next = produce(&f.broker, &topic, 0, batch(&["b"])).await.unwrap();
    assert_eq!(next.base_offset, Some(offset(1)));
    assert_eq!(read_all(&f.broker, &topic, 0).await, ["a", "b"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_failed_flush_nothing_more_is_acknowledged() {
    let f = Fixture::new().await;
    let topic = f.create("orders", 1).await;
    let other = f.create("others", 1).await;
    produce(&f.broker, &topic, 0, batch(&["a"])).await.unwrap();
    f.faults.fail_once(Op::Sync, 1, rustix::io::Errno::IO);
    let error = produce(&f.broker, &topic, 0, batch(&["b"]))
        .await
        .unwrap_err();
    assert_eq!(error.kind, ErrorKind::StorageError, "{error}");
    assert_eq!(error.outcome(), varve_types::Outcome::Unknown);
    // The next flush would succeed, and is never asked for.
    let error = produce(&f.broker, &topic, 0, batch(&["c"]))
        .await
        .unwrap_err();
    assert_eq!(error.kind, ErrorKind::LeaderNotAvailable, "{error}");
    produce(&f.broker, &other, 0, batch(&["x"])).await.unwrap();
    assert_eq!(f.broker.health().leaderless, 1);
    assert_eq!(
        read_all(&f.broker, &topic, 0).await,
        ["a"],
        "reads go on below the watermark"
    );
    assert!(
        !f.broker.shutdown().await,
        "a failed log is not a clean shutdown"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_change_and_go_durably() {
    let f = Fixture::new().await;
    let ctx = Context::anonymous();
    let topic = f.create("orders", 1).await;
    let request = CreateTopic {
        topic: topic.clone(),
        ..crate::support::new_topic("orders", 1)
    };
    let error = f.broker.create_topic(&ctx, request).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::TopicAlreadyExists);

    let add = AddPartitions {
        topic: topic.clone(),
        total: 3,
        placement: Default::default(),
        validate_only: false,
    };
    assert_eq!(
        f.broker.add_partitions(&ctx, add).await.unwrap().partitions,
        3
    );
    let changes = [(
        "retention.ms".to_owned(),
        ConfigChange::Set("1000".to_owned()),
    )]
    .into();
    let update = UpdateConfigs {
        topic: topic.clone(),
        changes,
        validate_only: false,
    };
    f.broker.update_topic_configs(&ctx, update).await.unwrap();
    let changes = [(
        "retention.mss".to_owned(),
        ConfigChange::Set("1".to_owned()),
    )]
    .into();
    let update = UpdateConfigs {
        topic: topic.clone(),
        changes,
        validate_only: false,
    };
    let error = f
        .broker
        .update_topic_configs(&ctx, update)
        .await
        .unwrap_err();
    assert_eq!(error.kind, ErrorKind::InvalidConfig);

    let f = f.crash_and_restart().await;
    let info = f.broker.topic(&ctx, &topic).unwrap();
    assert_eq!(info.partitions, 3);
    assert_eq!(
        info.configs.get("retention.ms").map(String::as_str),
        Some("1000")
    );
    produce(&f.broker, &topic, 2, batch(&["x"])).await.unwrap();

    f.broker.delete_topic(&ctx, &topic, None).await.unwrap();
    assert_eq!(
        f.broker.topic(&ctx, &topic).unwrap_err().kind,
        ErrorKind::TopicNotFound
    );
    let again = f.create("orders", 1).await;
    assert!(
        read_all(&f.broker, &again, 0).await.is_empty(),
        "a new topic is empty"
    );
    let f = f.crash_and_restart().await;
    assert!(read_all(&f.broker, &again, 0).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_directory_is_offline_and_not_silently_empty() {
    let f = Fixture::new().await;
    let topic = f.create("orders", 1).await;
    produce(&f.broker, &topic, 0, batch(&["a"])).await.unwrap();
    assert!(f.broker.shutdown().await);
    f.remove_topic_dir("orders");
    let f = f.restart(true).await;
    let error = produce(&f.broker, &topic, 0, batch(&["b"]))
        .await
        .unwrap_err();
    assert_eq!(error.kind, ErrorKind::LeaderNotAvailable);
    assert!(error.message.contains("missing"), "{error}");
    f.broker
        .delete_topic(&Context::anonymous(), &topic, None)
        .await
        .unwrap();
    let again = f.create("orders", 1).await;
    produce(&f.broker, &again, 0, batch(&["b"])).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn trims_move_the_log_start_and_nothing_else() {
    let f = Fixture::new().await;
    let ctx = Context::anonymous();
    let topic = f.create("orders", 1).await;
    for value in ["a", "b", "c", "d"] {
        produce(&f.broker, &topic, 0, batch(&[value]))
            .await
            .unwrap();
    }
    let partition = varve_types::TopicPartition::new(topic.clone(), PartitionId(0));
    let before = |before| DeleteBefore {
        partition: partition.clone(),
        before,
    };
    let items = vec![
        before(Before::Offset(offset(2))),
        before(Before::Offset(offset(99))),
    ];
    let results = f.broker.delete_records(&ctx, items).await;
    assert_eq!(results[0].as_ref().unwrap(), &offset(2));
    assert_eq!(
        results[1].as_ref().unwrap_err().kind,
        ErrorKind::OffsetOutOfRange
    );
    let error = crate::support::fetch_one(&f.broker, &topic, 0, 1)
        .await
        .unwrap_err();
    assert_eq!(error.kind, ErrorKind::OffsetOutOfRange);
    assert_eq!(read_all(&f.broker, &topic, 0).await, ["c", "d"]);
    let f = f.crash_and_restart().await;
    assert_eq!(read_all(&f.broker, &topic, 0).await, ["c", "d"]);
    let query = |position| OffsetQuery {
        isolation: varve_broker_api::Isolation::default(),
        partition: partition.clone(),
        position: Some(position),
        with_time: false,
    };
    let queries = vec![
        query(Position::Earliest),
        query(Position::Latest),
        query(Position::Last(1)),
    ];
    let found: Vec<i64> = f
        .broker
        .list_offsets(&ctx, queries)
        .await
        .into_iter()
        .map(|r| r.unwrap().offset.unwrap().get())
        .collect();
    assert_eq!(found, [2, 4, 3]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_resumes_where_it_committed_after_a_crash() {
    let f = Fixture::new().await;
    let ctx = Context::anonymous();
    let topic = f.create("orders", 2).await;
    for value in ["a", "b", "c"] {
        produce(&f.broker, &topic, 0, batch(&[value]))
            .await
            .unwrap();
    }
    let group: GroupName = "g".parse().unwrap();
    let member: MemberId = "m1".parse().unwrap();
    let heartbeat = |member: &MemberId, epoch, owned| Heartbeat {
        group: group.clone(),
        member: member.clone(),
        member_epoch: epoch,
        leave: false,
        keep_assignment: false,
        instance: None,
        subscription: (epoch == 0).then(|| Subscription {
            topics: vec![topic.clone()],
            ..Subscription::default()
        }),
        owned,
        rack: String::new(),
        session_timeout: None,
        rebalance_timeout: None,
        max_wait: Duration::ZERO,
    };
    let reply = f
        .broker
        .heartbeat(&ctx, heartbeat(&member, 0, Some(vec![])))
        .await
        .unwrap();
    assert_eq!(
        reply.assignment.as_ref().unwrap().len(),
        2,
        "one member owns everything"
    );
    let partition = varve_types::TopicPartition::new(topic.clone(), PartitionId(0));
    let commit = |epoch, at| CommitOffsets {
        group: group.clone(),
        member: Some(member.clone()),
        member_epoch: epoch,
        offsets: vec![OffsetCommit {
            partition: partition.clone(),
            offset: offset(at),
            leader_epoch: None,
            metadata: "m".to_owned(),
        }],
    };
    let done = f
        .broker
        .commit_offsets(&ctx, commit(reply.member_epoch, 2))
        .await
        .unwrap();
    assert!(done[0].is_ok());
    let done = f
        .broker
        .commit_offsets(&ctx, commit(reply.member_epoch, 99))
        .await
        .unwrap();
    assert_eq!(
        done[0].as_ref().unwrap_err().kind,
        ErrorKind::OffsetOutOfRange
    );
    let old = f
        .broker
        .commit_offsets(&ctx, commit(reply.member_epoch + 7, 1))
        .await
        .unwrap_err();
    assert_eq!(old.kind, ErrorKind::FencedMemberEpoch);

    let f = f.crash_and_restart().await;
    let get = GetOffsets {
        require_stable: false,
        group: group.clone(),
        partitions: vec![],
        include_lag: true,
    };
    let found = f.broker.committed_offsets(&ctx, get.clone()).await.unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(
        (found[0].offset, found[0].high_watermark),
        (offset(2), Some(offset(3)))
    );
    let query = OffsetQuery {
        isolation: varve_broker_api::Isolation::default(),
        partition: partition.clone(),
        position: Some(Position::Offset(offset(2))),
        with_time: true,
    };
    let at = f.broker.list_offsets(&ctx, vec![query.clone()]).await;
    let time = at[0].as_ref().unwrap().timestamp_ms;
    assert!(time.is_some());
    assert_eq!(
        found[0].next_time_ms, time,
        "of the first that was not read"
    );
    let end = OffsetQuery {
        position: Some(Position::Latest),
        ..query
    };
    let at = f.broker.list_offsets(&ctx, vec![end]).await;
    assert_eq!(at[0].as_ref().unwrap().timestamp_ms, None);
    let known = f
        .broker
        .heartbeat(&ctx, heartbeat(&member, reply.member_epoch, None))
        .await
        .unwrap();
    assert_eq!(
        (known.member_epoch, known.assignment),
        (reply.member_epoch, reply.assignment),
        "a member and what it owns survive"
    );
    let leave = Heartbeat {
        leave: true,
        ..heartbeat(&member, reply.member_epoch, None)
    };
    f.broker.heartbeat(&ctx, leave).await.unwrap();

    let reset = ResetOffsets {
        group: group.clone(),
        partitions: vec![],
        topics: vec![topic.clone()],
        target: ResetTarget::Position(Position::Earliest),
        validate_only: true,
    };
    let plan = f.broker.reset_offsets(&ctx, reset.clone()).await.unwrap();
    assert_eq!(plan.len(), 2);
    let found = f.broker.committed_offsets(&ctx, get.clone()).await.unwrap();
    assert_eq!(found[0].offset, offset(2), "a dry run changes nothing");
    let reset = ResetOffsets {
        validate_only: false,
        ..reset
    };
    f.broker.reset_offsets(&ctx, reset).await.unwrap();
    let found = f.broker.committed_offsets(&ctx, get).await.unwrap();
    assert_eq!(found[0].offset, offset(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn offsets_that_cannot_be_read_are_not_taken_for_none() {
    let f = Fixture::new().await;
    let ctx = Context::anonymous();
    let topic = f.create("orders", 1).await;
    produce(&f.broker, &topic, 0, batch(&["a"])).await.unwrap();
    let commit = |group: &str| CommitOffsets {
        group: group.parse().unwrap(),
        member: None,
        member_epoch: 0,
        offsets: vec![OffsetCommit {
            partition: varve_types::TopicPartition::new(topic.clone(), PartitionId(0)),
            offset: offset(1),
            leader_epoch: None,
            metadata: String::new(),
        }],
    };
    let groups = ["a", "b", "c", "d", "e", "f"];
    for group in groups {
        f.broker.commit_offsets(&ctx, commit(group)).await.unwrap();
    }
    assert!(f.broker.shutdown().await);
    f.remove_partition_dir("__consumer_offsets", 1);
    let f = f.restart(true).await;
    let (mut found, mut refused) = (0, 0);
    for group in groups {
        let get = GetOffsets {
            require_stable: false,
            group: group.parse().unwrap(),
            partitions: vec![],
            include_lag: false,
        };
        match f.broker.committed_offsets(&ctx, get).await {
            Ok(offsets) => {
                assert_eq!(offsets.len(), 1, "group {group}");
                found += 1;
            }
            Err(error) => {
                assert_eq!(error.kind, ErrorKind::LeaderNotAvailable, "{error}");
                refused += 1;
            }
        }
    }
    assert!(found > 0 && refused > 0, "{found} found, {refused} refused");
}

/// Holds every operation of a disk until it is dropped.
struct Hold {
    disk: std::sync::Arc<varve_vfs::mem::MemVfs>,
    _release: std::sync::mpsc::Sender<()>,
}

impl Hold {
    fn on(disk: &std::sync::Arc<varve_vfs::mem::MemVfs>) -> Self {
        let (release, held) = std::sync::mpsc::channel::<()>();
        let held = std::sync::Mutex::new(held);
        let hook = move |_: &varve_vfs::mem::Call<'_>| {
            // Nothing is ever sent: this returns when the other end is gone.
            let _ = held.lock().unwrap_or_else(|e| e.into_inner()).recv();
            varve_vfs::mem::Answer::Go
        };
        disk.set_hook(Some(std::sync::Arc::new(hook)));
        Self {
            disk: disk.clone(),
            _release: release,
        }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        // The sender goes with this value, after the hook is out of the way of new operations.
        self.disk.set_hook(None);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_change_of_topics_is_whole_on_disk_and_in_memory() {
    let f = Fixture::new().await;
    let ctx = Context::anonymous();
    let topic: varve_types::TopicName = "orders".parse().unwrap();
    let exists = |f: &Fixture| f.broker.topic(&Context::anonymous(), &topic).is_ok();
    let until = async |f: &Fixture, wanted: bool| {
        let reached = async {
            while exists(f) != wanted {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), reached)
            .await
            .expect("the change is made");
    };
    let request = crate::support::new_topic("orders", 2);
    let hold = Hold::on(&f.disk);
    let creating = f.broker.create_topic(&ctx, request).now_or_never();
    assert!(creating.is_none(), "dropped before it was answered");
    drop(hold);
    until(&f, true).await;
    produce(&f.broker, &topic, 1, batch(&["a"])).await.unwrap();
    let f = f.crash_and_restart().await;
    assert_eq!(read_all(&f.broker, &topic, 1).await, ["a"]);

    let hold = Hold::on(&f.disk);
    let deleting = f.broker.delete_topic(&ctx, &topic, None).now_or_never();
    assert!(deleting.is_none(), "dropped before it was answered");
    drop(hold);
    until(&f, false).await;
    // Another change stores the metadata again: the topic must not come back with it.
    f.create("others", 1).await;
    let f = f.crash_and_restart().await;
    assert!(!exists(&f), "a deleted topic stays deleted");
}
