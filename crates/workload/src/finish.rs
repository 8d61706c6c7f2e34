//! The end of a run: everything is repaired, every partition takes records again, and all of it is read once more
//! by readers that know nothing, up to the end of the logs: what was left open there is aborted by the cluster first.

use std::time::Duration;

use tokio::time::{Instant, timeout, timeout_at};
use varve_check::{Acks, Event};
use varve_client::{ClientError, Producer, RecordRef};

use crate::consumers::{Eyes, bounds, open, record};
use crate::payload::Payload;
use crate::producers::{Manner, settings};
use crate::{Config, Recorder};

/// Sends to each partition that must succeed.
const SENDS: u64 = 10;
/// They have this long.
const SENDS_WITHIN: Duration = Duration::from_secs(60);
/// Readers of everything, through different nodes.
const READERS: u32 = 2;
const FIRST_READER: u32 = 2_000;
/// Sessions of the last sends, above those of the run.
const LAST_SESSION: u32 = u32::MAX;
/// A read that brings nothing for so long is begun anew through another node.
const SILENCE: Duration = Duration::from_secs(15);
const PAUSE: Duration = Duration::from_millis(200);

/// Sends to every partition, which must succeed now, and reads everything. To be called when nothing is broken
/// any more and the workload has stopped.
///
/// # Errors
/// When a setting is wrong; everything else is part of the history.
pub async fn finish(
    config: &Config,
    recorder: &Recorder,
    within: Duration,
) -> Result<(), ClientError> {
    recorder.event(Event::Healed { ns: recorder.ns() });
    send_to_all(config, recorder).await?;
    for reader in 0..READERS {
        read_all(config, recorder, reader, within).await?;
    }
    Ok(())
}

async fn send_to_all(config: &Config, recorder: &Recorder) -> Result<(), ClientError> {
    let manner = Manner {
        acks: Acks::All,
        idempotent: true,
    };
    let producer = Producer::new(config.client(0)?, settings(manner, SENDS_WITHIN))?;
    let mut handles = Vec::new();
    for place in 0..config.places() {
        let (topic, partition) = config.place(place);
        for _ in 0..SENDS {
            let (op, value) = (recorder.number(), recorder.number());
            let payload = Payload {
                run: config.run,
                partition: place,
                key: 0,
                value,
                bytes: 100,
            };
            recorder.event(Event::Send {
                op,
                ns: recorder.ns(),
                session: LAST_SESSION,
                partition: place,
                key: 0,
                value,
                acks: Acks::All,
                idempotent: true,
                txn: None,
                source: None,
            });
            let (key, bytes) = (Payload::key_bytes(0), payload.value_bytes());
            let record = RecordRef {
                partition: Some(partition),
                key: Some(&key),
                value: Some(&bytes),
                ..RecordRef::default()
            };
            match producer.send(topic, record).await {
                Ok(handle) => handles.push((op, handle)),
                Err(error) => recorder.sent(op, Err(&error)),
            }
        }
    }
    for (op, handle) in handles {
        let result = handle.await;
        let offset = result
            .as_ref()
            .map(|ack| ack.offset.map(|offset| offset.get()));
        recorder.sent(op, offset);
    }
    Ok(())
}

async fn read_all(
    config: &Config,
    recorder: &Recorder,
    reader: u32,
    within: Duration,
) -> Result<(), ClientError> {
    let process = FIRST_READER + reader;
    let deadline = Instant::now() + within;
    let calls: Vec<u64> = (0..config.places()).map(|_| recorder.number()).collect();
    for (partition, op) in (0..).zip(&calls) {
        recorder.event(Event::Final {
            op: *op,
            ns: recorder.ns(),
            process,
            partition,
        });
    }
    let mut state = Whole::default();
    let mut turn = reader;
    let mut last = None;
    while Instant::now() < deadline && !state.is_done() {
        // Another node each time.
        let client = config.client(turn)?;
        turn = turn.wrapping_add(1);
        let part = read_some(config, recorder, process, client, &mut state);
        match timeout_at(deadline, part).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                last = Some(error);
                tokio::time::sleep(PAUSE).await;
            }
            Err(_) => break,
        }
    }
    if let Some(error) = last.filter(|_| !state.is_done()) {
        recorder.note(format!("the last read of everything: {error}"));
    }
    for (at, op) in calls.into_iter().enumerate() {
        let (position, end) = (state.positions.get(at), state.ends.get(at));
        let ns = recorder.ns();
        recorder.event(match (position, end) {
            (Some(position), Some(end)) if position >= end => Event::Ok {
                op,
                ns,
                offset: Some(*position),
            },
            _ => Event::Unknown {
                op,
                ns,
                error: format!("reached {position:?} of {end:?}"),
            },
        });
    }
    Ok(())
}

/// How far a read of everything is.
#[derive(Debug, Default)]
struct Whole {
    positions: Vec<i64>,
    ends: Vec<i64>,
}

impl Whole {
    fn is_done(&self) -> bool {
        !self.ends.is_empty()
            && self
                .positions
                .iter()
                .zip(&self.ends)
                .all(|(at, end)| at >= end)
    }
}

async fn read_some(
    config: &Config,
    recorder: &Recorder,
    process: u32,
    client: varve_client::Client,
    state: &mut Whole,
) -> Result<(), ClientError> {
    if state.ends.is_empty() {
        let bounds = bounds(config, &client).await?;
        (state.positions, state.ends) = bounds.into_iter().unzip();
    }
    let mut consumer = open(config, client, &state.positions, Some(&state.ends)).await?;
    // A reader that is given nothing asks elsewhere: the deadline says whether that helps.
    let silent = || ClientError::Protocol(format!("nothing came for {SILENCE:?}"));
    while let Some(batch) = timeout(SILENCE, consumer.next_batch())
        .await
        .map_err(|_| silent())??
    {
        let seen = record(config, recorder, Eyes::of(process), &batch);
        if let Some(position) = state.positions.get_mut(seen.place as usize) {
            *position = seen.next;
        }
    }
    // Records of the service's own at the end of a partition come in no batch.
    state.positions.clone_from(&state.ends);
    Ok(())
}
