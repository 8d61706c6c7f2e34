//! Transactions of the server in the test's process: decisions count at once, and each raises the epoch.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use tonic::{Code, Request, Response, Status};
use tonic_types::{ErrorDetails, StatusExt as _};
use varve_client::proto as v1;
use varve_record::StoredBatch;
use varve_types::{ErrorKind, ProducerId};

use super::Fake;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Nothing,
    Open,
    Committed,
    Aborted,
    /// Aborted by the server itself: its producer does not know.
    TimedOut,
}

#[derive(Debug)]
struct Transaction {
    producer: ProducerId,
    fate: Fate,
    offsets: Vec<(String, v1::PartitionCommit)>,
}

#[derive(Debug, Default)]
pub struct Transactions {
    ids: BTreeMap<String, Transaction>,
    committed: BTreeSet<(i64, i16)>,
    /// Groups' offsets that count.
    pub offsets: Vec<(String, v1::PartitionCommit)>,
    /// Calls that end a transaction, repeats counted.
    pub ends: u32,
    /// So many ends are told to come again.
    pub busy: u32,
    /// So many ends are carried out without an answer.
    pub unanswered: u32,
}

fn refuse(kind: ErrorKind) -> Status {
    let details = ErrorDetails::with_error_info(kind.reason(), "varve", []);
    Status::with_error_details(Code::Aborted, "refused", details)
}

fn wire(producer: ProducerId) -> Option<v1::TransactionSession> {
    Some(v1::TransactionSession {
        producer_id: producer.id,
        producer_epoch: producer.epoch.into(),
    })
}

impl Transaction {
    fn is_of(&self, session: Option<v1::TransactionSession>, epochs_ago: i16) -> bool {
        let ProducerId { id, epoch } = self.producer;
        let epoch = epoch - epochs_ago;
        session == wire(ProducerId { id, epoch })
    }

    /// Ends it; the session that it was of.
    fn end(&mut self, fate: Fate) -> ProducerId {
        let ended = self.producer;
        self.producer.epoch += 1;
        self.fate = fate;
        ended
    }
}

impl Transactions {
    pub fn append(&mut self, id: &str, producer: ProducerId) -> Result<(), v1::ErrorReason> {
        let known = self.ids.get_mut(id);
        let known = known.ok_or(v1::ErrorReason::UnknownProducer)?;
        if known.producer != producer {
            return Err(v1::ErrorReason::ProducerFenced);
        }
        known.fate = Fate::Open;
        Ok(())
    }

    /// Its time is over.
    pub fn time_out(&mut self, id: &str) {
        let known = self.ids.get_mut(id).unwrap();
        assert_eq!(known.fate, Fate::Open);
        known.offsets.clear();
        known.end(Fate::TimedOut);
    }

    pub fn is_open(&self, id: &str) -> bool {
        self.ids[id].fate == Fate::Open
    }

    fn init(&mut self, request: &v1::InitTransactionsRequest) -> Result<ProducerId, ErrorKind> {
        let next = 100 + self.ids.len() as i64;
        let known = self
            .ids
            .entry(request.transactional_id.clone())
            .or_insert(Transaction {
                producer: ProducerId {
                    id: next,
                    epoch: -1,
                },
                fate: Fate::Nothing,
                offsets: Vec::new(),
            });
        let own = known.is_of(request.current, 0)
            || known.fate == Fate::TimedOut && known.is_of(request.current, 1);
        if request.current.is_some() && !own {
            return Err(ErrorKind::ProducerFenced);
        }
        known.offsets.clear();
        known.end(Fate::Nothing);
        Ok(known.producer)
    }

    fn finish(&mut self, request: &v1::EndTransactionRequest) -> Result<ProducerId, ErrorKind> {
        let commit = request.outcome() == v1::TransactionOutcome::Commit;
        let fate = match commit {
            true => Fate::Committed,
            false => Fate::Aborted,
        };
        let known = self.ids.get_mut(&request.transactional_id);
        let known = known.ok_or(ErrorKind::UnknownProducer)?;
        if known.is_of(request.session, 1) && known.fate == Fate::TimedOut {
            return Err(ErrorKind::TransactionAborted);
        }
        if known.is_of(request.session, 1) && known.fate == fate {
            return Ok(known.producer);
        }
        if !known.is_of(request.session, 0) {
            return Err(ErrorKind::ProducerFenced);
        }
        let offsets = std::mem::take(&mut known.offsets);
        let ended = known.end(fate);
        let session = known.producer;
        if commit {
            self.committed.insert((ended.id, ended.epoch));
            self.offsets.extend(offsets);
        }
        Ok(session)
    }
}

impl Fake {
    /// Values of committed transactions in a partition.
    pub fn committed(&self, partition: usize) -> Vec<Bytes> {
        let state = self.state.lock().unwrap();
        let committed = &state.transactions.committed;
        let batches = state.partitions[partition].batches.iter();
        let stored = batches.map(|bytes| StoredBatch::split_from(bytes).unwrap());
        let counts = |batch: &StoredBatch| {
            let session = batch.header.session().unwrap();
            committed.contains(&(session.id, session.epoch))
        };
        let records = stored
            .filter(counts)
            .flat_map(|batch| batch.records().unwrap());
        records
            .map(|record| record.unwrap().value.unwrap())
            .collect()
    }
}

#[tonic::async_trait]
impl v1::transaction_service_server::TransactionService for Fake {
    async fn init_transactions(
        &self,
        request: Request<v1::InitTransactionsRequest>,
    ) -> Result<Response<v1::InitTransactionsResponse>, Status> {
        let mut state = self.state.lock().unwrap();
        let session = state.transactions.init(request.get_ref());
        let session = wire(session.map_err(refuse)?);
        Ok(Response::new(v1::InitTransactionsResponse { session }))
    }

    async fn commit_transaction_offsets(
        &self,
        request: Request<v1::CommitTransactionOffsetsRequest>,
    ) -> Result<Response<v1::CommitTransactionOffsetsResponse>, Status> {
        let request = request.into_inner();
        let mut state = self.state.lock().unwrap();
        let ids = &mut state.transactions.ids;
        let known = ids.get_mut(&request.transactional_id).unwrap();
        if !known.is_of(request.session, 0) {
            return Err(refuse(ErrorKind::ProducerFenced));
        }
        known.fate = Fate::Open;
        let mut results = Vec::new();
        for offset in request.offsets {
            results.push(v1::TransactionOffsetResult {
                topic_partition: offset.topic_partition.clone(),
                error: None,
            });
            known.offsets.push((request.group.clone(), offset));
        }
        Ok(Response::new(v1::CommitTransactionOffsetsResponse {
            results,
        }))
    }

    async fn end_transaction(
        &self,
        request: Request<v1::EndTransactionRequest>,
    ) -> Result<Response<v1::EndTransactionResponse>, Status> {
        let mut state = self.state.lock().unwrap();
        let transactions = &mut state.transactions;
        transactions.ends += 1;
        if transactions.busy > 0 {
            transactions.busy -= 1;
            return Err(refuse(ErrorKind::ConcurrentTransactions));
        }
        let session = wire(transactions.finish(request.get_ref()).map_err(refuse)?);
        if transactions.unanswered > 0 {
            transactions.unanswered -= 1;
            return Err(Status::unavailable("broken after the end"));
        }
        Ok(Response::new(v1::EndTransactionResponse { session }))
    }

    async fn list_transactions(
        &self,
        _: Request<v1::ListTransactionsRequest>,
    ) -> Result<Response<v1::ListTransactionsResponse>, Status> {
        Err(Status::unimplemented("list"))
    }

    async fn get_transaction(
        &self,
        _: Request<v1::GetTransactionRequest>,
    ) -> Result<Response<v1::GetTransactionResponse>, Status> {
        Err(Status::unimplemented("get"))
    }

    async fn abort_transaction(
        &self,
        _: Request<v1::AbortTransactionRequest>,
    ) -> Result<Response<v1::AbortTransactionResponse>, Status> {
        Err(Status::unimplemented("abort"))
    }
}
