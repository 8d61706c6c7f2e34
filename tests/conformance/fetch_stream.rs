//! FetchStream: credit, pausing, moving, and what breaks it.

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use v1::fetch_stream_request::Command as C;
use v1::fetch_stream_response::Event as E;

use crate::support::{
    Code, Rpc, at, refused, refused_item, request, run, shared, soon, span, tp, v1,
};

struct Reader {
    commands: mpsc::Sender<v1::FetchStreamRequest>,
    events: Streaming<v1::FetchStreamResponse>,
}

impl Reader {
    async fn open_with(rpc: &Rpc, first: C) -> Self {
        let (commands, receiver) = mpsc::channel(256);
        let first = v1::FetchStreamRequest {
            command: Some(first),
        };
        commands.send(first).await.unwrap();
        let mut client = rpc.consumer();
        let opened = client.fetch_stream(ReceiverStream::new(receiver));
        let events = soon("the stream to open", opened)
            .await
            .unwrap()
            .into_inner();
        Self { commands, events }
    }

    async fn open(rpc: &Rpc) -> Self {
        Self::open_with(
            rpc,
            C::Open(v1::FetchStreamOpen {
                idle_heartbeat: span(1000),
                ..Default::default()
            }),
        )
        .await
    }

    async fn say(&self, command: C) {
        let message = v1::FetchStreamRequest {
            command: Some(command),
        };
        self.commands.send(message).await.unwrap();
    }

    async fn add(&self, id: i64, topic: &str, partition: i32, credit: i64) {
        self.say(C::Add(v1::FetchStreamAdd {
            subscription_id: id,
            topic_partition: Some(tp(topic, partition)),
            initial_credit_bytes: credit,
            ..Default::default()
        }))
        .await;
    }

    async fn credit(&self, id: i64, bytes: i64) {
        self.say(C::Credit(v1::FetchStreamCredit {
            subscription_id: id,
            bytes,
        }))
        .await;
    }

    async fn event(&mut self) -> E {
        let next = soon("an event", self.events.message()).await;
        next.unwrap().expect("the stream goes on").event.unwrap()
    }

    /// The next event that is no heartbeat.
    async fn next(&mut self) -> E {
        loop {
            let event = self.event().await;
            if !matches!(event, E::Heartbeat(_)) {
                return event;
            }
        }
    }

    async fn records(&mut self) -> v1::FetchStreamRecords {
        match self.next().await {
            E::Records(records) => records,
            other => panic!("{other:?}"),
        }
    }

    async fn positioned(&mut self) -> v1::FetchStreamPositioned {
        match self.next().await {
            E::Positioned(positioned) => positioned,
            other => panic!("{other:?}"),
        }
    }

    async fn fails(mut self, what: &str, code: Code, reason: &str) {
        let status = soon("the end", async {
            loop {
                match self.events.message().await {
                    Err(status) => return status,
                    Ok(Some(_)) => {}
                    Ok(None) => panic!("{what}: ended with OK"),
                }
            }
        });
        refused(what, Err::<(), _>(status.await), code, reason);
    }
}

#[test]
fn a_paused_partition_does_not_slow_the_others() {
    run(async {
        let rpc = shared().await;
        let name = "f-pause";
        rpc.create(name, 2).await;
        let value = "x".repeat(10_000);
        for partition in 0..2 {
            for _ in 0..50 {
                rpc.put(name, partition, &[&value]).await;
            }
        }
        let mut reader = Reader::open(&rpc).await;
        reader.add(1, name, 0, 0).await;
        reader.add(2, name, 1, i64::MAX).await;
        let mut delivered = 0;
        while delivered < 50 {
            match reader.next().await {
                E::Positioned(_) => {}
                E::Records(r) => {
                    assert_eq!(r.subscription_id, 2, "no credit, no records");
                    delivered = r.next_offset;
                }
                other => panic!("{other:?}"),
            }
        }
        // One byte of credit lets one chunk pass, however large, and no more.
        reader.credit(1, 1).await;
        let first = reader.records().await;
        assert_eq!(first.subscription_id, 1);
        assert!(
            first.credit_used >= 10_000 && first.next_offset < 50,
            "{}",
            first.next_offset
        );
        rpc.put(name, 1, &["marker"]).await;
        let marker = reader.records().await;
        assert_eq!(
            (marker.subscription_id, marker.next_offset),
            (2, 51),
            "the overdrawn one waits"
        );
        // Credit that does not lift the balance above zero changes nothing; what lifts it does.
        reader.credit(1, first.credit_used).await;
        let more = reader.records().await;
        assert_eq!(more.subscription_id, 1);
        assert!(more.next_offset > first.next_offset);
    });
}

#[test]
fn credit_counts_what_was_sent() {
    run(async {
        let rpc = shared().await;
        let name = "f-credit";
        rpc.create(name, 1).await;
        for n in 0..20 {
            rpc.put(name, 0, &[&format!("{n:0100}")]).await;
        }
        let mut reader = Reader::open(&rpc).await;
        reader.add(7, name, 0, 350).await;
        assert_eq!(reader.positioned().await.high_watermark, 20);
        let (mut next, mut balance) = (0, 350);
        while next < 20 {
            let records = reader.records().await;
            assert!(balance > 0, "sent without credit");
            let payload: usize = records
                .records
                .iter()
                .map(|r| r.value.as_ref().unwrap().len())
                .sum();
            assert_eq!(
                records.credit_used, payload as i64,
                "payload is what counts"
            );
            assert_eq!(records.records[0].offset, next);
            next = records.next_offset;
            balance -= records.credit_used;
            while balance <= 0 && next < 20 {
                reader.credit(7, 100).await;
                balance += 100;
            }
        }
    });
}

#[test]
fn a_subscription_moves_and_goes() {
    run(async {
        let rpc = shared().await;
        let name = "f-seek";
        rpc.create(name, 1).await;
        rpc.put(name, 0, &["a", "b", "c", "d"]).await;
        let mut reader = Reader::open(&rpc).await;
        reader.add(1, name, 0, 1 << 20).await;
        assert_eq!(reader.positioned().await.next_offset, 0);
        assert_eq!(reader.records().await.next_offset, 4);
        let seek = v1::FetchStreamSeek {
            subscription_id: 1,
            start: at(2),
            initial_credit_bytes: 1,
        };
        reader.say(C::Seek(seek)).await;
        assert_eq!(reader.positioned().await.next_offset, 2);
        assert_eq!(reader.records().await.records[0].offset, 2);
        reader
            .say(C::Remove(v1::FetchStreamRemove { subscription_id: 1 }))
            .await;
        let E::Closed(closed) = reader.next().await else {
            panic!("remove is answered by closed");
        };
        assert!(closed.error.is_none() && closed.subscription_id == 1);
        // One that cannot be made is closed with the reason; the stream goes on.
        for (id, topic, partition, reason) in [
            (2, "f-none", 0, "TOPIC_NOT_FOUND"),
            (3, name, 9, "PARTITION_NOT_FOUND"),
            (4, name, -1, "PARTITION_NOT_FOUND"),
        ] {
            reader.add(id, topic, partition, 1).await;
            let E::Closed(closed) = reader.next().await else {
                panic!("{topic}-{partition} is refused");
            };
            assert_eq!(closed.subscription_id, id);
            refused_item(topic, closed.error.as_ref(), Code::NotFound, reason);
        }
        reader
            .say(C::Add(v1::FetchStreamAdd {
                subscription_id: 5,
                topic_partition: Some(tp(name, 0)),
                start: at(99),
                ..Default::default()
            }))
            .await;
        let E::Closed(closed) = reader.next().await else {
            panic!("out of range is refused");
        };
        refused_item(
            "start",
            closed.error.as_ref(),
            Code::OutOfRange,
            "OFFSET_OUT_OF_RANGE",
        );
        reader.add(6, name, 0, 100).await;
        assert_eq!(reader.positioned().await.subscription_id, 6);
        assert_eq!(reader.records().await.next_offset, 4);
    });
}

#[test]
fn an_idle_stream_tells_that_it_lives() {
    run(async {
        let rpc = shared().await;
        let name = "f-idle";
        rpc.create(name, 1).await;
        let mut reader = Reader::open(&rpc).await;
        reader.add(1, name, 0, 0).await;
        reader.positioned().await;
        rpc.put(name, 0, &["a", "b"]).await;
        loop {
            if let E::Heartbeat(beat) = reader.event().await
                && beat.high_watermarks.get(&1) == Some(&2)
            {
                break;
            }
        }
    });
}

#[test]
fn commands_that_break_the_rules_end_the_stream() {
    run(async {
        let rpc = shared().await;
        let name = "f-rules";
        rpc.create(name, 1).await;
        let (code, reason) = (Code::InvalidArgument, "INVALID_REQUEST");
        let credit = |bytes| {
            C::Credit(v1::FetchStreamCredit {
                subscription_id: 1,
                bytes,
            })
        };
        let open = |max_message_bytes, encoding| {
            C::Open(v1::FetchStreamOpen {
                max_message_bytes,
                encoding,
                ..Default::default()
            })
        };
        for (what, first) in [
            ("no open", credit(1)),
            ("negative size", open(-1, 0)),
            ("unknown encoding", open(0, 9)),
        ] {
            Reader::open_with(&rpc, first)
                .await
                .fails(what, code, reason)
                .await;
        }
        for (what, command) in [
            ("open twice", open(0, 0)),
            ("credit of nothing", credit(0)),
            ("negative credit", credit(-5)),
            (
                "seek to nowhere",
                C::Seek(v1::FetchStreamSeek {
                    subscription_id: 1,
                    start: None,
                    initial_credit_bytes: 0,
                }),
            ),
            (
                "seek with negative credit",
                C::Seek(v1::FetchStreamSeek {
                    subscription_id: 1,
                    start: at(0),
                    initial_credit_bytes: -1,
                }),
            ),
            (
                "an id twice",
                C::Add(v1::FetchStreamAdd {
                    subscription_id: 1,
                    topic_partition: Some(tp(name, 0)),
                    ..Default::default()
                }),
            ),
        ] {
            let reader = Reader::open(&rpc).await;
            reader.add(1, name, 0, 0).await;
            reader.say(command).await;
            reader.fails(what, code, reason).await;
        }
        let reader = Reader::open(&rpc).await;
        reader
            .commands
            .send(v1::FetchStreamRequest { command: None })
            .await
            .unwrap();
        reader.fails("nothing", code, reason).await;
        rpc.produce(request(name, 0, &["still here"]))
            .await
            .unwrap();
    });
}
