//! Reading ahead over logs that change between the read and the question. Each offset is a batch of [`BATCH`] bytes,
//! each of which is that offset.

use std::collections::BTreeMap;

use bytes::BytesMut;
use futures_util::FutureExt as _;
use parking_lot::Mutex;
use varve_broker_api::UnreadBudget;
use varve_types::{ErrorKind, LeaderEpoch, Offset};

use super::*;

const BATCH: usize = 10;

/// A partition as it is now.
#[derive(Debug, Clone, Copy)]
struct Log {
    topic: u128,
    epoch: i32,
    start: i64,
    high_watermark: i64,
    last_stable: i64,
}

impl Log {
    const fn of(high_watermark: i64) -> Self {
        Self {
            topic: 1,
            epoch: 3,
            start: 0,
            high_watermark,
            last_stable: high_watermark,
        }
    }
}

struct Fake {
    logs: Mutex<BTreeMap<i32, Log>>,
    /// What was asked: partition, offset, and the bound of the whole.
    asked: Mutex<Vec<(i32, i64, usize)>>,
    outgoing: Arc<UnreadBudget>,
    full: Mutex<bool>,
    noted: Mutex<[usize; 2]>,
    /// Reads do not end before it is open.
    slow: Mutex<Option<Arc<tokio::sync::Semaphore>>>,
}

impl Fake {
    fn with(logs: &[Log]) -> Arc<Self> {
        let fake = Self {
            logs: Mutex::default(),
            asked: Mutex::default(),
            outgoing: UnreadBudget::new(usize::MAX),
            full: Mutex::default(),
            noted: Mutex::default(),
            slow: Mutex::default(),
        };
        *fake.logs.lock() = (0..).zip(logs.iter().copied()).collect();
        Arc::new(fake)
    }

    fn change(&self, partition: i32, change: impl FnOnce(&mut Log)) {
        change(self.logs.lock().get_mut(&partition).unwrap());
    }

    fn held(&self) -> usize {
        self.outgoing.held()
    }

    /// Bytes that were of use, and that were not.
    fn noted(&self) -> [usize; 2] {
        *self.noted.lock()
    }

    fn one(&self, fetch: &Fetch, asked: &FetchPartition, before: usize) -> Result<Fetched, Error> {
        let log = self.logs.lock()[&asked.partition.0];
        let from = asked.offset.get();
        if from < log.start || from > log.high_watermark {
            return Err(Error::new(ErrorKind::OffsetOutOfRange, "not there"));
        }
        let end = match fetch.isolation {
            Isolation::Committed => log.last_stable,
            Isolation::Uncommitted => log.high_watermark,
        };
        let full = before >= fetch.min_bytes && before > fetch.max_bytes / 2;
        let left = if full {
            0
        } else {
            fetch.max_bytes.saturating_sub(before)
        };
        let mut most = left.min(asked.max_bytes) / BATCH;
        if before == 0 && fetch.max_bytes > 0 {
            most = most.max(1);
        }
        let to = end.min(from + i64::try_from(most).unwrap()).max(from);
        let mut batches = BytesMut::new();
        for at in from..to {
            batches.extend_from_slice(&[u8::try_from(at).unwrap(); BATCH]);
        }
        Ok(Fetched {
            batches: batches.freeze(),
            next_offset: Offset::new(to).unwrap(),
            high_watermark: Offset::new(log.high_watermark).unwrap(),
            last_stable: Offset::new(log.last_stable).unwrap(),
            log_start: Offset::new(log.start).unwrap(),
            leader_epoch: LeaderEpoch::new(log.epoch).unwrap(),
            aborted: Vec::new(),
        })
    }

    fn answer(&self, fetch: &Fetch) -> Vec<PartitionFetched> {
        let (mut bytes, mut all) = (0, Vec::new());
        for asked in &fetch.partitions {
            let place = (asked.partition.0, asked.offset.get(), fetch.max_bytes);
            self.asked.lock().push(place);
            let result = self.one(fetch, asked, bytes);
            bytes += result.as_ref().map_or(0, |read| read.batches.len());
            all.push(PartitionFetched {
                topic: asked.topic.clone(),
                partition: asked.partition,
                result,
            });
        }
        all
    }
}

impl Source for Fake {
    fn read<'a>(
        &'a self,
        _ctx: &'a Context,
        fetch: Fetch,
    ) -> BoxFuture<'a, Result<Vec<PartitionFetched>, Error>> {
        Box::pin(async move {
            let slow = self.slow.lock().clone();
            if let Some(slow) = slow {
                slow.acquire().await.unwrap().forget();
            }
            Ok(self.answer(&fetch))
        })
    }

    fn topic(&self, _name: &TopicName) -> Option<TopicId> {
        let logs = self.logs.lock();
        logs.values().next().map(|log| TopicId(log.topic))
    }

    fn room(&self) -> usize {
        if *self.full.lock() { 0 } else { usize::MAX }
    }

    fn hold(&self, bytes: usize) -> Unread {
        self.outgoing.hold(bytes)
    }

    fn note(&self, bytes: usize, used: bool) {
        self.noted.lock()[usize::from(!used)] += bytes;
    }
}

fn wants(partitions: &[(i32, i64)], max_bytes: usize) -> Fetch {
    let one = |(partition, offset): &(i32, i64)| FetchPartition {
        topic: "t".parse().unwrap(),
        partition: PartitionId(*partition),
        offset: Offset::new(*offset).unwrap(),
        max_bytes: 2 * BATCH,
        leader_epoch: None,
    };
    Fetch {
        partitions: partitions.iter().map(one).collect(),
        max_wait: Duration::from_secs(5),
        min_bytes: 1,
        max_bytes,
        isolation: Isolation::Uncommitted,
        raw: true,
    }
}

/// What a reader gets: of each partition the offsets of its records, or that there is an error.
fn offsets(found: &[PartitionFetched]) -> Vec<Option<Vec<u8>>> {
    let of = |found: &PartitionFetched| {
        let read = found.result.as_ref().ok()?;
        Some(read.batches.chunks(BATCH).map(|batch| batch[0]).collect())
    };
    found.iter().map(of).collect()
}

/// What was read ahead of the question that follows `fetch`.
async fn ahead(fake: &Arc<Fake>, fetch: &Fetch, habit: &mut Habit) -> Option<ReadAhead> {
    let ctx = Context::anonymous();
    let next = Next::after(&ctx, fetch, &fake.answer(fetch), |_| false)?;
    let mut ahead = ReadAhead::new(Arc::clone(fake) as Arc<dyn Source>, next, habit)?;
    while ahead.step().now_or_never() == Some(true) {}
    fake.asked.lock().clear();
    Some(ahead)
}

async fn serve(ahead: ReadAhead, fetch: &Fetch) -> Option<Vec<Option<Vec<u8>>>> {
    let found = ahead.serve(&Context::anonymous(), fetch).await;
    found.map(|found| offsets(&found))
}

#[tokio::test]
async fn the_next_question_is_answered_with_what_is_there_already() {
    let fake = Fake::with(&[Log::of(9), Log::of(9)]);
    let mut habit = Habit::default();
    let first = wants(&[(0, 0), (1, 1)], 1000);
    let ready = ahead(&fake, &first, &mut habit).await.unwrap();
    assert_eq!(fake.held(), 4 * BATCH);
    fake.change(0, |log| log.high_watermark = 50);
    let second = wants(&[(1, 3), (0, 2)], 1000);
    let found = ready.serve(&Context::anonymous(), &second).await.unwrap();
    assert_eq!(offsets(&found), [Some(vec![3, 4]), Some(vec![2, 3])]);
    // What is said of a partition is as it is now.
    let now = found[1].result.as_ref().unwrap();
    assert_eq!((now.high_watermark.get(), now.next_offset.get()), (50, 4));
    // Only how things are was asked.
    assert_eq!(*fake.asked.lock(), [(1, 3, 0), (0, 2, 0)]);
    assert_eq!(fake.noted(), [4 * BATCH, 0]);
    drop(found);
    assert_eq!(fake.held(), 0);
}

#[tokio::test]
async fn what_reaches_the_end_is_asked_anew() {
    // Two more are there after the first answer, and none after those.
    let fake = Fake::with(&[Log::of(4), Log::of(9)]);
    let ready = ahead(
        &fake,
        &wants(&[(0, 0), (1, 0)], 1000),
        &mut Habit::default(),
    )
    .await;
    fake.change(0, |log| log.high_watermark = 5);
    let found = serve(ready.unwrap(), &wants(&[(0, 2), (1, 2)], 1000)).await;
    assert_eq!(found.unwrap(), [Some(vec![2, 3]), Some(vec![2, 3])]);
    assert_eq!(
        fake.asked.lock()[0],
        (0, 2, 1000),
        "read, not only looked at"
    );
    // At the end nothing is read ahead.
    let at_the_end = wants(&[(0, 3), (1, 7)], 1000);
    assert!(
        ahead(&fake, &at_the_end, &mut Habit::default())
            .await
            .is_none()
    );
}

#[tokio::test]
async fn what_has_changed_since_is_not_given() {
    type Change = fn(&mut Log);
    let changes: [(&str, Change, Option<Vec<u8>>); 4] = [
        ("trimmed", |log| log.start = 5, None),
        ("another leader", |log| log.epoch = 4, Some(vec![])),
        (
            "another topic of that name",
            |log| log.topic = 2,
            Some(vec![]),
        ),
        (
            "a log that was cut",
            |log| log.high_watermark = 3,
            Some(vec![]),
        ),
    ];
    for (what, change, expected) in changes {
        let fake = Fake::with(&[Log::of(9), Log::of(9)]);
        let ready = ahead(&fake, &wants(&[(0, 0)], 1000), &mut Habit::default()).await;
        fake.change(0, change);
        let found = serve(ready.unwrap(), &wants(&[(0, 2)], 1000)).await;
        assert_eq!(found.unwrap(), [expected], "{what}");
        assert_eq!(fake.held(), 0, "{what}");
    }
}

#[tokio::test]
async fn another_question_is_answered_as_ever() {
    let fake = Fake::with(&[Log::of(9), Log::of(9)]);
    let committed = Fetch {
        isolation: Isolation::Committed,
        ..wants(&[(0, 2)], 1000)
    };
    let much = Fetch {
        min_bytes: 3 * BATCH,
        ..wants(&[(0, 2)], 1000)
    };
    let mut little = wants(&[(0, 2)], 1000);
    little.partitions[0].max_bytes = BATCH;
    for other in [
        wants(&[(0, 3)], 1000),
        wants(&[(1, 2)], 1000),
        committed,
        much,
        little,
    ] {
        let ready = ahead(&fake, &wants(&[(0, 0)], 1000), &mut Habit::default()).await;
        assert_eq!(serve(ready.unwrap(), &other).await, None, "{other:?}");
        assert_eq!(fake.held(), 0);
    }
    assert_eq!(fake.noted(), [0, 5 * 2 * BATCH]);
}

#[tokio::test]
async fn readers_of_committed_records_end_where_those_do() {
    let fake = Fake::with(&[Log {
        last_stable: 5,
        ..Log::of(9)
    }]);
    let committed = |offset| Fetch {
        isolation: Isolation::Committed,
        ..wants(&[(0, offset)], 1000)
    };
    let ready = ahead(&fake, &committed(0), &mut Habit::default()).await;
    let found = serve(ready.unwrap(), &committed(2)).await;
    assert_eq!(found.unwrap(), [Some(vec![2, 3])]);
    let ready = ahead(&fake, &committed(2), &mut Habit::default()).await;
    // Only offset 4 is left of them, and it was not kept.
    assert_eq!(serve(ready.unwrap(), &committed(4)).await, None);
}

#[tokio::test]
async fn partitions_come_in_the_order_of_the_question_and_within_its_bound() {
    let fake = Fake::with(&[Log::of(9), Log::of(9), Log::of(9)]);
    // Half of the bound is there after the first one: the others come first next time.
    let first = wants(&[(0, 0), (1, 0), (2, 0)], 3 * BATCH);
    let ready = ahead(&fake, &first, &mut Habit::default()).await.unwrap();
    assert_eq!(fake.held(), 2 * BATCH);
    let found = serve(ready, &wants(&[(1, 0), (2, 0), (0, 2)], 3 * BATCH)).await;
    let expected = [Some(vec![0, 1]), Some(vec![]), Some(vec![])];
    assert_eq!(found.unwrap(), expected);
    // What was read ahead waits for its turn: another partition is preferred, and takes the room.
    let ready = ahead(&fake, &first, &mut Habit::default()).await.unwrap();
    let found = serve(ready, &wants(&[(2, 0), (1, 0), (0, 2)], 3 * BATCH)).await;
    let expected = [Some(vec![0, 1]), Some(vec![]), Some(vec![])];
    assert_eq!(found.unwrap(), expected);
    // Errors of others are told with it.
    let ready = ahead(&fake, &first, &mut Habit::default()).await.unwrap();
    let found = serve(ready, &wants(&[(1, 0), (2, 99)], 3 * BATCH)).await;
    assert_eq!(found.unwrap(), [Some(vec![0, 1]), None]);
}

#[tokio::test]
async fn what_nobody_asks_for_is_let_go_and_read_less_often() {
    let fake = Fake::with(&[Log::of(9)]);
    let (mut habit, mut times) = (Habit::default(), 0);
    for _ in 0..200 {
        let Some(mut ready) = ahead(&fake, &wants(&[(0, 0)], 1000), &mut habit).await else {
            continue;
        };
        if times == 0 {
            let begun = Instant::now();
            assert!(!ready.step().await, "it waits in vain");
            assert!(begun.elapsed() > KEPT_FOR / 2);
        }
        times += 1;
        drop(ready);
        assert_eq!(fake.held(), 0);
    }
    assert!((5..=9).contains(&times), "{times}");
    assert_eq!(fake.noted(), [0, times * 2 * BATCH]);
    // Once it is of use it is done as ever.
    let mut of_use = 0;
    for _ in 0..200 {
        if let Some(ready) = ahead(&fake, &wants(&[(0, 0)], 1000), &mut habit).await {
            let found = serve(ready, &wants(&[(0, 2)], 1000)).await;
            of_use += usize::from(found.is_some());
        }
    }
    assert!(of_use > 100, "{of_use}");
}

#[tokio::test]
async fn with_many_bytes_on_their_way_nothing_is_read_ahead() {
    let fake = Fake::with(&[Log::of(9)]);
    *fake.full.lock() = true;
    let ready = ahead(&fake, &wants(&[(0, 0)], 1000), &mut Habit::default()).await;
    assert_eq!(fake.held(), 0);
    assert_eq!(serve(ready.unwrap(), &wants(&[(0, 2)], 1000)).await, None);
}

#[tokio::test]
async fn a_read_that_is_under_way_is_waited_for_if_it_is_asked_for() {
    let fake = Fake::with(&[Log::of(9), Log::of(9)]);
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    *fake.slow.lock() = Some(Arc::clone(&gate));
    let ready = ahead(&fake, &wants(&[(0, 0)], 1000), &mut Habit::default()).await;
    let question = wants(&[(0, 2)], 1000);
    let mut answer = std::pin::pin!(serve(ready.unwrap(), &question));
    assert!(answer.as_mut().now_or_never().is_none());
    gate.add_permits(2);
    assert_eq!(answer.await.unwrap(), [Some(vec![2, 3])]);
    // One that is not is not waited for.
    let ready = ahead(&fake, &wants(&[(0, 0)], 1000), &mut Habit::default()).await;
    let other = wants(&[(1, 2)], 1000);
    assert_eq!(serve(ready.unwrap(), &other).now_or_never(), Some(None));
}
