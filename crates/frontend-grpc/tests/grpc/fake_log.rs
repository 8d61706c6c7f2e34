//! One partition of the broker in memory: its batches, where its readers end, and what a position means there.

use bytes::Bytes;
use varve_broker_api::*;
use varve_record::{BatchHeader, iter_batches};
use varve_types::{LeaderEpoch, Offset};

use crate::fake_transactions::Transactions;

#[derive(Debug, Default)]
pub struct Part {
    pub batches: Vec<(BatchHeader, Bytes)>,
    pub start: i64,
    pub next: i64,
}

pub fn at(raw: i64) -> Offset {
    Offset::new(raw).unwrap()
}

/// Where readers of committed records end.
pub fn stable(part: &Part, transactions: &Transactions) -> i64 {
    let open = |(header, _): &&(BatchHeader, Bytes)| {
        header.is_transactional() && header.session().is_some_and(|p| transactions.is_open(p))
    };
    let first = part.batches.iter().find(open);
    first.map_or(part.next, |(header, _)| header.base_offset.get())
}

pub fn find(
    part: &Part,
    stable: i64,
    position: Option<Position>,
    isolation: Isolation,
) -> OffsetFound {
    let end = match isolation {
        Isolation::Committed => stable,
        Isolation::Uncommitted => part.next,
    };
    let mut timestamp_ms = None;
    let offset = match position {
        None => None,
        Some(Position::Offset(offset)) => Some(offset),
        Some(Position::Earliest) => Some(at(part.start)),
        Some(Position::Latest | Position::MaxTimestamp) => Some(at(end)),
        Some(Position::Last(n)) => Some(at(end
            .saturating_sub(i64::try_from(n).unwrap_or(i64::MAX))
            .max(part.start))),
        Some(Position::Timestamp(ms)) => {
            let found = part.batches.iter().flat_map(|(_, b)| {
                iter_batches(b.clone())
                    .flat_map(|b| b.unwrap().records().unwrap())
                    .map(|r| r.unwrap())
            });
            let found = found
                .filter(|r| r.offset.get() >= part.start)
                .find(|r| r.timestamp >= ms);
            timestamp_ms = found.as_ref().map(|r| r.timestamp);
            Some(found.map_or(at(part.next), |r| r.offset))
        }
    };
    OffsetFound {
        last_stable: at(stable),
        offset,
        timestamp_ms,
        log_start: at(part.start),
        high_watermark: at(part.next),
        leader_epoch: LeaderEpoch::ZERO,
    }
}
