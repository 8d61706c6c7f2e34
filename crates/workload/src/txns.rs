//! Transactions as a history has them: each has a number, its sends and commits of offsets are answered with what
//! the client library says of its end, and one that is left behind may still be tried to commit much later.
//!
//! A commit that the library says cannot be had counts as an abort, because a user does it all again then; only
//! what it calls unsure is unknown.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;
use varve_check::{Acks, Event};
use varve_client::{
    ClientError, DeliveryHandle, GroupProgress, RecordRef, TransactionError, TransactionalConfig,
    TransactionalProducer,
};
use varve_types::{ErrorKind, Outcome};

use crate::payload::Payload;
use crate::producers::{KEYS, Manner, settings};
use crate::random::Random;
use crate::{Recorder, Shared, told};

const PAUSE: Duration = Duration::from_millis(500);
/// An end that is not known is asked for again, so often in all.
const ATTEMPTS: u32 = 3;
/// What is sent is answered by the end of its transaction; whatever is not has this long.
const ANSWERS_WITHIN: Duration = Duration::from_secs(1);
/// How long somebody who is fenced goes on trying.
const LATE: Duration = Duration::from_secs(5);

/// How a transaction ended, as far as the client library knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    Committed,
    Aborted,
    Unknown,
}

/// An open transaction.
#[derive(Debug)]
pub struct Txn {
    /// Its number in the history.
    pub number: u64,
    sends: Vec<(u64, DeliveryHandle)>,
    commits: Vec<u64>,
}

/// One life of one transactional producer.
#[derive(Debug)]
pub struct Session {
    shared: Arc<Shared>,
    /// Number of the life: its sends are ordered.
    number: u32,
    producer: TransactionalProducer,
}

/// A producer that stopped in the middle of a transaction, and does not know that it was replaced.
#[derive(Debug)]
pub struct Ghost {
    session: Session,
    txn: Txn,
    /// When it wakes up it calls for the commit; otherwise nobody ever does.
    commits: bool,
}

impl Txn {
    /// Writes down what became of the offsets that were to be committed with it.
    fn answer_commits(&mut self, recorder: &Recorder, ended: Ended) {
        for op in std::mem::take(&mut self.commits) {
            match ended {
                Ended::Committed => recorder.answer(op, Ok(None)),
                Ended::Aborted => recorder.failed(op, "the transaction was not committed"),
                Ended::Unknown => recorder.unknown(op, "the outcome of the transaction is unknown"),
            }
        }
    }
}

impl Session {
    /// Opens the session of a transactional id, however long that takes. `None`: the run ends.
    pub async fn open(
        shared: &Arc<Shared>,
        id: u32,
        stopped: &mut watch::Receiver<bool>,
    ) -> Option<Self> {
        let config = &shared.config;
        while !*stopped.borrow() {
            let number = shared.session();
            let manner = Manner {
                acks: Acks::All,
                idempotent: true,
            };
            let transactional = TransactionalConfig {
                producer: settings(manner, config.delivery_timeout),
                transaction_timeout: config.transaction_timeout,
            };
            let (client, name) = (config.client(number), config.transactional_id(id));
            let (Ok(client), Ok(name)) = (client, name) else {
                return None;
            };
            let opened = TransactionalProducer::open(client, name, transactional);
            let opened = tokio::select! {
                opened = opened => opened,
                () = told(stopped) => return None,
            };
            match opened {
                Ok(producer) => {
                    return Some(Self {
                        shared: shared.clone(),
                        number,
                        producer,
                    });
                }
                Err(error) => {
                    tracing::debug!(id, %error, "no transactional producer");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
        None
    }

    /// Begins a transaction.
    ///
    /// # Errors
    /// When the last one has not ended: the session is of no use any more.
    pub fn begin(&mut self) -> Result<Txn, TransactionError> {
        self.producer.begin()?;
        Ok(Txn {
            number: self.shared.recorder.number(),
            sends: Vec::new(),
            commits: Vec::new(),
        })
    }

    /// Sends a record; `source` is the value of the record that it is made from.
    ///
    /// # Errors
    /// When the transaction can only be aborted.
    pub async fn send(
        &self,
        txn: &mut Txn,
        place: i32,
        random: &mut Random,
        source: Option<u64>,
    ) -> Result<(), TransactionError> {
        let (config, recorder) = (&self.shared.config, &self.shared.recorder);
        let payload = Payload {
            run: config.run,
            partition: place,
            key: random.below(KEYS),
            value: recorder.number(),
            bytes: random.below(config.record_bytes),
        };
        let op = recorder.number();
        recorder.event(Event::Send {
            op,
            ns: recorder.ns(),
            session: self.number,
            partition: place,
            key: payload.key,
            value: payload.value,
            acks: Acks::All,
            idempotent: true,
            txn: Some(txn.number),
            source,
        });
        let (topic, partition) = config.place(place);
        let (key, value) = (Payload::key_bytes(payload.key), payload.value_bytes());
        let record = RecordRef {
            partition: Some(partition),
            key: Some(&key),
            value: Some(&value),
            ..RecordRef::default()
        };
        match self.producer.send(topic, record).await {
            Ok(handle) => {
                txn.sends.push((op, handle));
                Ok(())
            }
            // It was not taken, and the transaction is as it was.
            Err(TransactionError::Refused(error)) => {
                recorder.sent(op, Err(&error));
                Ok(())
            }
            Err(error) => {
                recorder.failed(op, error.to_string());
                Err(error)
            }
        }
    }

    /// Commits how far a group is as part of the transaction, for partitions that `of` names; `member`: who of it.
    ///
    /// # Errors
    /// When the transaction can only be aborted.
    pub async fn progress(
        &mut self,
        txn: &mut Txn,
        progress: &GroupProgress,
        member: Option<u32>,
        of: impl Fn(i32) -> bool,
    ) -> Result<(), TransactionError> {
        let (config, recorder) = (&self.shared.config, &self.shared.recorder);
        for (partition, offset) in &progress.offsets {
            let place = config.place_of(&partition.topic, partition.partition.0);
            if !of(place) {
                continue;
            }
            let op = recorder.number();
            recorder.event(Event::Commit {
                op,
                ns: recorder.ns(),
                group: progress.group.to_string(),
                partition: place,
                offset: offset.get(),
                member,
            });
            txn.commits.push(op);
        }
        self.producer.commit_progress(progress).await
    }

    /// Ends a transaction. Also whether the session can begin another one.
    pub async fn end(&mut self, mut txn: Txn, commit: bool) -> (Ended, bool) {
        if !commit && txn.number.is_multiple_of(2) {
            // Otherwise hardly anything that is aborted would be in the log.
            self.answers(std::mem::take(&mut txn.sends)).await;
        }
        let ended = match commit {
            true => self.call(txn.number, true).await,
            // Nobody has called for anything else.
            false => Ended::Aborted,
        };
        // What cannot be committed has to be aborted in so many words before it goes on.
        let usable = match ended {
            Ended::Committed => true,
            Ended::Aborted => self.call(txn.number, false).await == Ended::Aborted,
            Ended::Unknown => false,
        };
        txn.answer_commits(&self.shared.recorder, ended);
        self.answers(txn.sends).await;
        (ended, usable)
    }

    /// Calls for an end, again while nobody knows.
    async fn call(&mut self, txn: u64, commit: bool) -> Ended {
        let recorder = self.shared.recorder.clone();
        let (op, ns) = (recorder.number(), recorder.ns());
        recorder.event(Event::EndTxn {
            op,
            ns,
            txn,
            commit,
        });
        let mut unsure = false;
        for _ in 0..ATTEMPTS {
            let error = match commit {
                true => self.producer.commit().await,
                false => self.producer.abort().await,
            };
            let Err(error) = error else {
                recorder.answer(op, Ok(None));
                return match commit {
                    true => Ended::Committed,
                    false => Ended::Aborted,
                };
            };
            match &error {
                TransactionError::Unsure(_) => unsure = true,
                TransactionError::MustAbort(_) if commit => {
                    recorder.failed(op, error.to_string());
                    return Ended::Aborted;
                }
                TransactionError::Fenced(cause) if commit && !unsure && is_refusal(cause) => {
                    recorder.failed(op, error.to_string());
                    return Ended::Aborted;
                }
                _ => {
                    recorder.unknown(op, error.to_string());
                    return Ended::Unknown;
                }
            }
        }
        recorder.unknown(op, "no answer after many attempts");
        Ended::Unknown
    }

    /// Writes down what became of sends of a transaction, those of one that has ended at once.
    async fn answers(&self, sends: Vec<(u64, DeliveryHandle)>) {
        let recorder = &self.shared.recorder;
        for (op, handle) in sends {
            let Ok(result) = timeout(ANSWERS_WITHIN, handle).await else {
                // Nobody waits for it any longer.
                return;
            };
            match &result {
                // It was given up with its transaction, and may be in the log all the same.
                Err(error) if error.kind() == Some(ErrorKind::TransactionAborted) => {
                    recorder.sent_somewhere(op, error);
                }
                result => {
                    let ack = result.as_ref();
                    recorder.sent(op, ack.map(|ack| ack.offset.map(|offset| offset.get())));
                }
            }
        }
    }

    /// Stops in the middle of a transaction, without a word.
    pub fn freeze(self, mut txn: Txn, random: &mut Random) -> Ghost {
        let commits = random.below(2) == 0;
        if !commits {
            txn.answer_commits(&self.shared.recorder, Ended::Aborted);
        }
        Ghost {
            session: self,
            txn,
            commits,
        }
    }

    /// Ends the session; no transaction is open.
    pub async fn close(self) {
        let _ = timeout(LATE, self.producer.close()).await;
    }
}

impl Ghost {
    /// Wakes up, and goes on where it was although the id has another owner now; or it is dropped only now, which
    /// tells the cluster to abort.
    pub async fn wake(mut self) {
        if self.commits {
            let _ = timeout(LATE, self.session.end(self.txn, true)).await;
        }
    }
}

/// Whether an error says that the call it answers did nothing.
fn is_refusal(error: &ClientError) -> bool {
    matches!(error, ClientError::Rpc(rpc) if rpc.outcome() == Outcome::NotApplied)
}
