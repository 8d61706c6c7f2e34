//! Transactions over several partitions: whom a call about one goes to, what a leader asks before it appends, and
//! how partitions learn of the end.

mod registered;

use varve_broker_api as api;
use varve_broker_api::{Error, Result};
use varve_types::{ErrorKind, ProducerId, TransactionalId};

use crate::peer::{MarkerOrder, MarkerOutcome, Registration};

pub(crate) use registered::Registered;

/// Transactions of this node.
#[derive(Debug, Default)]
pub(crate) struct Transactions;

impl Transactions {
    /// A leader asks for partitions of its own; this node must be the coordinator.
    pub(crate) async fn register_here(&self, _registration: Registration) -> Result<()> {
        Err(unserved())
    }

    /// A coordinator has markers for partitions that this node leads.
    pub(crate) async fn write_markers_here(&self, order: &MarkerOrder) -> Vec<MarkerOutcome> {
        vec![MarkerOutcome::Again; order.partitions.len()]
    }

    pub(crate) async fn init(&self, _request: api::InitTransactions) -> Result<ProducerId> {
        Err(unserved())
    }

    pub(crate) async fn end(&self, _request: api::EndTransaction) -> Result<ProducerId> {
        Err(unserved())
    }

    pub(crate) async fn commit_offsets(
        &self,
        _request: api::CommitTransactionOffsets,
    ) -> Result<Vec<Result<()>>> {
        Err(unserved())
    }

    pub(crate) async fn list(&self) -> Result<Vec<api::TransactionListing>> {
        Err(unserved())
    }

    pub(crate) async fn describe(&self, _id: &TransactionalId) -> Result<api::TransactionInfo> {
        Err(unserved())
    }

    pub(crate) async fn abort(&self, _id: &TransactionalId) -> Result<()> {
        Err(unserved())
    }
}

fn unserved() -> Error {
    let text = "this node serves no transactions yet; nothing was done";
    Error::new(ErrorKind::UnsupportedFeature, text)
}
