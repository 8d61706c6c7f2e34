//! Appends that wait for an offset to be written or committed: plain ordered data. An entry leaves
//! exactly once, by completion or by refusal, unless nobody waits for it any more.

use std::collections::{BTreeMap, BTreeSet};

use varve_types::Offset;

use crate::input::Ticket;
use crate::output::Accepted;

/// Appends ordered by the offset they wait for.
#[derive(Debug, Default)]
pub(crate) struct PendingAcks {
    by_end: BTreeMap<(Offset, Ticket), Accepted>,
}

impl PendingAcks {
    /// `accepted` is answered once the watched cursor reaches `end`.
    pub(crate) fn push(&mut self, end: Offset, ticket: Ticket, accepted: Accepted) {
        let old = self.by_end.insert((end, ticket), accepted);
        assert!(old.is_none(), "ticket {ticket:?} waits twice");
    }

    /// Takes everything that waits for `cursor` or less, in order, with the offset it waited for.
    pub(crate) fn complete(
        &mut self,
        cursor: Offset,
    ) -> impl Iterator<Item = (Offset, Ticket, Accepted)> + use<> {
        let keep = self.by_end.split_off(&(cursor.plus(1), Ticket(0)));
        std::mem::replace(&mut self.by_end, keep)
            .into_iter()
            .map(|((end, t), a)| (end, t, a))
    }

    /// Takes everything that waits for more than `end`, in order.
    pub(crate) fn refuse_above(&mut self, end: Offset) -> impl Iterator<Item = Ticket> {
        self.by_end
            .split_off(&(end.plus(1), Ticket(0)))
            .into_keys()
            .map(|(_, t)| t)
    }

    /// Takes everything, in order.
    pub(crate) fn refuse_all(&mut self) -> impl Iterator<Item = Ticket> {
        std::mem::take(&mut self.by_end).into_keys().map(|(_, t)| t)
    }

    /// Drops these without an answer.
    pub(crate) fn forget(&mut self, gone: &BTreeSet<Ticket>) {
        self.by_end.retain(|(_, ticket), _| !gone.contains(ticket));
    }

    /// Number of appends that wait.
    pub(crate) fn len(&self) -> usize {
        self.by_end.len()
    }
}
