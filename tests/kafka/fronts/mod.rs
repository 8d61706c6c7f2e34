//! What both front ends must do alike: the same scenarios through the gRPC API and through the Kafka protocol, each in
//! the words of its own side, and mixed, where one call comes by one and the next by the other.
//!
//! A refusal is known by what went wrong ([`Why`]); each side says that in its own code, and any other code fails the
//! test that meets it.

mod by_grpc;
mod by_kafka;

use bytes::Bytes;
use varve_record::{BatchBuilder, Compression};
use varve_types::{ProducerId, Sequence};

use crate::Bed;
use crate::client::Patience;
use by_grpc::Grpc;
use by_kafka::Kafka;

/// What went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Why {
    NoTopic,
    NoPartition,
    TopicExists,
    BadTopicName,
    BadConfig,
    BadPartitionCount,
    OutOfRange,
    Corrupt,
    OutOfOrder,
    Fenced,
    NoGroup,
    NoTransaction,
}

type Told<T> = Result<T, Why>;

/// Where an offset is looked for.
#[derive(Debug, Clone, Copy)]
enum At {
    Earliest,
    Latest,
    Time(i64),
}

/// A front end. Everything is about partition 0 unless a partition is named.
trait Front {
    async fn create(&mut self, topic: &str, partitions: i32, configs: &[(&str, &str)]) -> Told<()>;
    async fn delete(&mut self, topic: &str) -> Told<()>;
    async fn widen(&mut self, topic: &str, partitions: i32) -> Told<()>;
    async fn configure(&mut self, topic: &str, name: &str, value: &str) -> Told<()>;
    async fn config(&mut self, topic: &str, name: &str) -> Told<String>;
    async fn append(
        &mut self,
        topic: &str,
        partition: i32,
        transaction: Option<&str>,
        batch: Bytes,
    ) -> Told<i64>;
    /// Values from that offset on, of committed records.
    async fn values(&mut self, topic: &str, offset: i64) -> Told<Vec<String>>;
    async fn offset(&mut self, topic: &str, at: At) -> Told<Option<i64>>;
    async fn cut(&mut self, topic: &str, before: i64) -> Told<i64>;
    async fn session(&mut self) -> ProducerId;
    fn commits_ahead(&self) -> bool;
    async fn commit(&mut self, group: &str, topic: &str, offset: i64) -> Told<()>;
    async fn committed(&mut self, group: &str, topic: &str) -> Option<i64>;
    async fn forget_group(&mut self, group: &str) -> Told<()>;
    async fn begin(&mut self, id: &str) -> Told<ProducerId>;
    async fn end(&mut self, id: &str, session: ProducerId, commit: bool) -> Told<ProducerId>;
}

fn batch(values: &[&str], times: &[i64]) -> BatchBuilder {
    let mut builder = BatchBuilder::new(Compression::None, None);
    for (value, time) in values.iter().zip(times.iter().chain(std::iter::repeat(&1))) {
        let value = Some(value.as_bytes());
        builder.append(*time, None, value, &[]).unwrap();
    }
    builder
}

fn plain(values: &[&str]) -> Bytes {
    batch(values, &[]).build().unwrap()
}

fn sequenced(values: &[&str], producer: ProducerId, first: i32) -> Bytes {
    let mut batch = batch(values, &[]);
    batch.set_producer(producer, Sequence::new(first).unwrap());
    batch.build().unwrap()
}

fn transactional(values: &[&str], producer: ProducerId, first: i32) -> Bytes {
    let mut batch = batch(values, &[]);
    batch.set_transaction(producer, Sequence::new(first).unwrap());
    batch.build().unwrap()
}

async fn topics(a: &mut impl Front, b: &mut impl Front, t: &str) {
    assert_eq!(a.create(t, 2, &[]).await, Ok(()));
    assert_eq!(b.create(t, 2, &[]).await, Err(Why::TopicExists));
    for bad in ["", "a b", "..", &"x".repeat(250)] {
        assert_eq!(
            a.create(bad, 1, &[]).await,
            Err(Why::BadTopicName),
            "{bad:?}"
        );
    }
    let unknown = [("retention.moons", "1")];
    assert_eq!(a.create("c", 1, &unknown).await, Err(Why::BadConfig));
    let range = [("retention.ms", "soon")];
    assert_eq!(a.create("c", 1, &range).await, Err(Why::BadConfig));
    assert_eq!(a.configure(t, "retention.ms", "86400000").await, Ok(()));
    assert_eq!(b.config(t, "retention.ms").await.unwrap(), "86400000");
    assert_eq!(
        a.configure(t, "retention.ms", "x").await,
        Err(Why::BadConfig)
    );
    assert_eq!(b.config(t, "retention.ms").await.unwrap(), "86400000");
    assert_eq!(a.widen(t, 3).await, Ok(()));
    assert_eq!(b.widen(t, 2).await, Err(Why::BadPartitionCount));
    assert_eq!(b.append(t, 2, None, plain(&["v"])).await, Ok(0));
    assert_eq!(
        b.append(t, 3, None, plain(&["v"])).await,
        Err(Why::NoPartition)
    );
    assert_eq!(b.delete(t).await, Ok(()));
    assert_eq!(a.delete(t).await, Err(Why::NoTopic));
    assert_eq!(a.append(t, 0, None, plain(&["v"])).await, Err(Why::NoTopic));
    assert_eq!(a.values(t, 0).await, Err(Why::NoTopic));
    assert_eq!(a.offset(t, At::Latest).await, Err(Why::NoTopic));
}

async fn records(a: &mut impl Front, b: &mut impl Front, t: &str) {
    a.create(t, 1, &[]).await.unwrap();
    assert_eq!(a.append(t, 0, None, plain(&["0", "1"])).await, Ok(0));
    let timed = batch(&["2", "3", "4"], &[5_000, 9_000, 7_000]);
    assert_eq!(b.append(t, 0, None, timed.build().unwrap()).await, Ok(2));
    for (at, offset) in [
        (At::Earliest, Some(0)),
        (At::Latest, Some(5)),
        (At::Time(0), Some(0)),
        (At::Time(6_000), Some(3)),
        (At::Time(9_001), None),
    ] {
        assert_eq!(a.offset(t, at).await, Ok(offset), "{at:?}");
    }
    assert_eq!(a.values(t, 3).await.unwrap(), ["3", "4"]);
    assert_eq!(a.values(t, 5).await.unwrap(), [""; 0]);
    assert_eq!(a.values(t, 6).await, Err(Why::OutOfRange));
    assert_eq!(a.cut(t, 6).await, Err(Why::OutOfRange));
    assert_eq!(a.cut(t, 2).await, Ok(2));
    assert_eq!(b.values(t, 1).await, Err(Why::OutOfRange));
    assert_eq!(b.offset(t, At::Earliest).await, Ok(Some(2)));
    assert_eq!(b.values(t, 2).await.unwrap(), ["2", "3", "4"]);
    let mut torn = plain(&["torn"]).to_vec();
    *torn.last_mut().unwrap() ^= 1;
    assert_eq!(a.append(t, 0, None, torn.into()).await, Err(Why::Corrupt));
    assert_eq!(a.offset(t, At::Latest).await, Ok(Some(5)));
}

async fn sessions(a: &mut impl Front, b: &mut impl Front, t: &str) {
    a.create(t, 1, &[]).await.unwrap();
    let session = a.session().await;
    assert_ne!(b.session().await.id, session.id);
    let first = sequenced(&["a", "b"], session, 0);
    assert_eq!(a.append(t, 0, None, first.clone()).await, Ok(0));
    // The answer was lost, and the other way is tried.
    assert_eq!(b.append(t, 0, None, first).await, Ok(0));
    let gap = sequenced(&["d"], session, 3);
    assert_eq!(a.append(t, 0, None, gap).await, Err(Why::OutOfOrder));
    let second = sequenced(&["c"], session, 2);
    assert_eq!(b.append(t, 0, None, second).await, Ok(2));
    assert_eq!(a.values(t, 0).await.unwrap(), ["a", "b", "c"]);
}

async fn offsets(a: &mut impl Front, b: &mut impl Front, t: &str) {
    a.create(t, 1, &[]).await.unwrap();
    let group = &format!("readers-of-{t}");
    a.append(t, 0, None, plain(&["0", "1", "2"])).await.unwrap();
    assert_eq!(a.committed(group, t).await, None);
    assert_eq!(a.forget_group(group).await, Err(Why::NoGroup));
    assert_eq!(a.commit(group, t, 1).await, Ok(()));
    assert_eq!(b.committed(group, t).await, Some(1));
    assert_eq!(b.commit(group, t, 3).await, Ok(()));
    // What the log has not reached: clients of the one side may, those of the other may not.
    let ahead = a.commit(group, t, 4).await;
    match a.commits_ahead() {
        true => assert_eq!((ahead, a.commit(group, t, 3).await), (Ok(()), Ok(()))),
        false => assert_eq!(ahead, Err(Why::OutOfRange)),
    }
    assert_eq!(a.commit(group, "nothing", 0).await, Err(Why::NoTopic));
    assert_eq!(a.committed(group, t).await, Some(3));
    assert_eq!(b.forget_group(group).await, Ok(()));
    assert_eq!(a.committed(group, t).await, None);
}

async fn transactions(a: &mut impl Front, b: &mut impl Front, t: &str) {
    a.create(t, 1, &[]).await.unwrap();
    let id = &format!("writer-of-{t}");
    let first = a.begin(id).await.unwrap();
    let kept = transactional(&["kept"], first, 0);
    assert_eq!(a.append(t, 0, Some(id), kept).await, Ok(0));
    assert_eq!(b.values(t, 0).await.unwrap(), [""; 0]);
    let second = b.end(id, first, true).await.unwrap();
    assert_eq!(second.epoch, first.epoch + 1);
    assert_eq!(a.end(id, first, true).await, Ok(second), "the same again");
    assert_eq!(a.end(id, first, false).await, Err(Why::NoTransaction));
    let gone = transactional(&["gone"], second, 0);
    b.append(t, 0, Some(id), gone).await.unwrap();
    let third = a.end(id, second, false).await.unwrap();
    let fourth = b.begin(id).await.unwrap();
    assert!(fourth.epoch > third.epoch);
    assert_eq!(a.end(id, third, true).await, Err(Why::Fenced));
    let late = transactional(&["late"], second, 1);
    assert_eq!(a.append(t, 0, Some(id), late).await, Err(Why::Fenced));
    let last = transactional(&["last"], fourth, 0);
    a.append(t, 0, Some(id), last).await.unwrap();
    b.end(id, fourth, true).await.unwrap();
    let patience = Patience::begin();
    loop {
        let seen = a.values(t, 0).await.unwrap();
        if seen == ["kept", "last"] {
            break;
        }
        assert!(seen.is_empty() || seen == ["kept"], "{seen:?}");
        patience.again(seen).await;
    }
    assert_eq!(b.values(t, 0).await.unwrap(), ["kept", "last"]);
}

/// Runs a scenario by one side alone, by the other alone, and by both in turn.
macro_rules! by_both {
    ($($scenario:ident),*) => {$(
        #[tokio::test(flavor = "multi_thread")]
        async fn $scenario() {
            let bed = Bed::start(&[]).await;
            let grpc = || Grpc::connect(bed.node.client_address());
            let kafka = || Kafka::connect(bed.kafka);
            super::$scenario(&mut grpc().await, &mut grpc().await, "own").await;
            super::$scenario(&mut kafka().await, &mut kafka().await, "kafka").await;
            super::$scenario(&mut grpc().await, &mut kafka().await, "own-first").await;
            super::$scenario(&mut kafka().await, &mut grpc().await, "kafka-first").await;
            bed.stop().await;
        }
    )*};
}

mod alike {
    use super::{Bed, Grpc, Kafka};

    by_both!(topics, records, sessions, offsets, transactions);
}
