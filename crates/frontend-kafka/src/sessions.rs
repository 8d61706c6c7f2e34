//! Fetch sessions (KIP-227): what a consumer reads, remembered, so that it names only what changes, and hears only of
//! what is new. Sans-IO: time is an argument.
//!
//! Invariants: at most [`SESSIONS_MAX`] sessions and [`PARTITIONS_MAX`] partitions in all of them are remembered; a
//! consumer that gets no session names all its partitions each time, and misses nothing; a session that was not used
//! for [`EVICT_AFTER`] gives way to a new one; an epoch that is not the next one changes nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use varve_types::limits::{self, NAME_MAX_BYTES};

use crate::wire::{ErrorCode, Text, Uuid};

/// Most sessions.
pub const SESSIONS_MAX: usize = limits::FETCH_SESSIONS_MAX;
/// Most partitions of all sessions together.
pub const PARTITIONS_MAX: usize = limits::FETCH_SESSION_PARTITIONS_MAX;
/// Silence after which a session gives way to another.
pub const EVICT_AFTER: Duration = Duration::from_mins(2);

/// A partition as the consumer names it: its topic by id or by name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Named {
    /// The topic's id; zero where it is named.
    pub id: Uuid,
    /// The topic's name; empty where the id is given.
    pub topic: Text,
    /// The partition's number.
    pub partition: i32,
}

impl Named {
    /// The same, in memory of its own: a slice would keep the whole frame that it came in.
    #[must_use]
    pub fn owned(&self) -> Self {
        Self {
            topic: Text::from(self.topic.as_str()),
            ..self.clone()
        }
    }
}

/// What a consumer wants of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Want {
    /// First offset.
    pub offset: i64,
    /// Most bytes.
    pub max_bytes: i32,
    /// Epoch of the leader that it believes in, or -1.
    pub leader_epoch: i32,
    /// Epoch of the last record that it has, or -1.
    pub last_epoch: i32,
}

/// What a consumer was told of a partition last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Told {
    /// High watermark.
    pub high_watermark: i64,
    /// Last stable offset.
    pub last_stable: i64,
    /// Log start.
    pub log_start: i64,
}

impl Told {
    const NOTHING: Self = Self {
        high_watermark: -1,
        last_stable: -1,
        log_start: -1,
    };
}

#[derive(Debug)]
struct Remembered {
    want: Want,
    told: Told,
    /// Place in the order of reading.
    turn: u64,
}

#[derive(Debug)]
struct Session {
    /// Epoch of the next request.
    next: i32,
    by_id: bool,
    partitions: BTreeMap<Named, Remembered>,
    used: Duration,
    turns: u64,
}

/// What a request says of its session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asked {
    /// The session, or 0.
    pub id: i32,
    /// 0: begin one; -1: none; otherwise the next of it.
    pub epoch: i32,
    /// Topics are given by their ids.
    pub by_id: bool,
}

/// What to read.
#[derive(Debug, PartialEq, Eq)]
pub struct Plan {
    /// The session to name in the answer, or 0.
    pub session: i32,
    /// Only what is new is told.
    pub incremental: bool,
    /// In the order of reading.
    pub partitions: Vec<(Named, Want)>,
}

/// Every session.
#[derive(Debug)]
pub struct Sessions {
    all: BTreeMap<i32, Session>,
    partitions: usize,
    seed: u32,
}

impl Sessions {
    /// None yet. `seed` should differ from run to run.
    #[must_use]
    pub const fn new(seed: i32) -> Self {
        Self {
            all: BTreeMap::new(),
            partitions: 0,
            seed: seed as u32,
        }
    }

    /// Number of sessions.
    #[must_use]
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// What a request is to read, with what its session remembers.
    ///
    /// # Errors
    /// The protocol's error for a session or an epoch of it that there is not. Nothing was changed.
    pub fn plan(
        &mut self,
        now: Duration,
        asked: Asked,
        wanted: Vec<(Named, Want)>,
        forgotten: &[Named],
    ) -> Result<Plan, ErrorCode> {
        if asked.epoch > 0 {
            return self.go_on(now, asked, wanted, forgotten);
        }
        self.end(asked.id);
        let session = match asked.epoch {
            0 => self.begin(now, asked.by_id, &wanted),
            _ => 0,
        };
        Ok(Plan {
            session,
            incremental: false,
            partitions: wanted,
        })
    }

    /// Whether the answer of an incremental request has to name a partition, of which `told` is known now. Notes
    /// what the consumer is told; with `data` others come first next time.
    pub fn tell(&mut self, session: i32, named: &Named, told: Option<Told>, data: bool) -> bool {
        let Some(session) = self.all.get_mut(&session) else {
            return true;
        };
        let Some(known) = session.partitions.get_mut(named) else {
            return true;
        };
        if data {
            session.turns += 1;
            known.turn = session.turns;
        }
        // An error is told each time.
        let new = told.is_none_or(|told| told != known.told);
        known.told = told.unwrap_or(Told::NOTHING);
        new || data
    }

    fn go_on(
        &mut self,
        now: Duration,
        asked: Asked,
        wanted: Vec<(Named, Want)>,
        forgotten: &[Named],
    ) -> Result<Plan, ErrorCode> {
        let session = self.all.get_mut(&asked.id);
        let session = session.ok_or(ErrorCode::FetchSessionIdNotFound)?;
        if session.next != asked.epoch {
            return Err(ErrorCode::InvalidFetchSessionEpoch);
        }
        let named = !wanted.is_empty() || !forgotten.is_empty();
        if named && session.by_id != asked.by_id {
            return Err(ErrorCode::FetchSessionTopicIdError);
        }
        let before = session.partitions.len();
        if self.partitions + wanted.len() > PARTITIONS_MAX || !short(&wanted) {
            return Err(ErrorCode::FetchSessionIdNotFound);
        }
        // After the largest comes 1: 0 and less have a meaning of their own.
        session.next = session.next.checked_add(1).unwrap_or(1);
        session.used = now;
        for (named, want) in wanted {
            session.remember(&named, want);
        }
        for named in forgotten {
            session.partitions.remove(named);
        }
        self.partitions = self.partitions - before + session.partitions.len();
        let mut partitions: Vec<_> = session.partitions.iter().collect();
        partitions.sort_by_key(|(_, known)| known.turn);
        Ok(Plan {
            session: asked.id,
            incremental: true,
            partitions: partitions
                .into_iter()
                .map(|(named, known)| (named.clone(), known.want))
                .collect(),
        })
    }

    /// The id of a new session, or 0 when there is no room.
    fn begin(&mut self, now: Duration, by_id: bool, wanted: &[(Named, Want)]) -> i32 {
        if wanted.is_empty() || !short(wanted) || !self.room_for(now, wanted.len()) {
            return 0;
        }
        let id = loop {
            // Any sequence without short cycles will do: ids are no secret, they need only be new.
            self.seed = self
                .seed
                .wrapping_mul(1_664_525)
                .wrapping_add(1_013_904_223);
            let id = (self.seed >> 1) as i32;
            if id != 0 && !self.all.contains_key(&id) {
                break id;
            }
        };
        let mut session = Session {
            next: 1,
            by_id,
            partitions: BTreeMap::new(),
            used: now,
            turns: 0,
        };
        for (named, want) in wanted {
            session.remember(named, *want);
        }
        self.partitions += session.partitions.len();
        self.all.insert(id, session);
        id
    }

    fn room_for(&mut self, now: Duration, partitions: usize) -> bool {
        if self.all.len() >= SESSIONS_MAX || self.partitions + partitions > PARTITIONS_MAX {
            let stale = self.all.iter().min_by_key(|(_, session)| session.used);
            let stale = stale.filter(|(_, s)| s.used + EVICT_AFTER <= now);
            if let Some(id) = stale.map(|(id, _)| *id) {
                self.end(id);
            }
        }
        self.all.len() < SESSIONS_MAX && self.partitions + partitions <= PARTITIONS_MAX
    }

    fn end(&mut self, id: i32) {
        if let Some(session) = self.all.remove(&id) {
            self.partitions -= session.partitions.len();
        }
    }
}

/// Whether no topic's name is longer than any topic's, which would be memory for nothing.
fn short(wanted: &[(Named, Want)]) -> bool {
    let mut names = wanted.iter().map(|(named, _)| named.topic.len());
    names.all(|length| length <= NAME_MAX_BYTES)
}

impl Session {
    fn remember(&mut self, named: &Named, want: Want) {
        if let Some(known) = self.partitions.get_mut(named) {
            known.want = want;
            return;
        }
        self.turns += 1;
        let new = Remembered {
            want,
            told: Told::NOTHING,
            turn: self.turns,
        };
        self.partitions.insert(named.owned(), new);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(partition: i32) -> Named {
        Named {
            id: Uuid(7),
            topic: Text::EMPTY,
            partition,
        }
    }

    const fn want(offset: i64) -> Want {
        Want {
            offset,
            max_bytes: 100,
            leader_epoch: -1,
            last_epoch: -1,
        }
    }

    const fn asked(id: i32, epoch: i32) -> Asked {
        Asked {
            id,
            epoch,
            by_id: true,
        }
    }

    const fn told(end: i64) -> Option<Told> {
        Some(Told {
            high_watermark: end,
            last_stable: end,
            log_start: 0,
        })
    }

    fn numbers(plan: &Plan) -> Vec<(i32, i64)> {
        let of = |(named, want): &(Named, Want)| (named.partition, want.offset);
        plan.partitions.iter().map(of).collect()
    }

    const NOW: Duration = Duration::ZERO;

    #[test]
    fn a_session_remembers_what_is_read() {
        let mut sessions = Sessions::new(1);
        let wanted = vec![(named(0), want(0)), (named(1), want(5))];
        let plan = sessions.plan(NOW, asked(0, 0), wanted, &[]).unwrap();
        assert!(plan.session > 0 && !plan.incremental);
        let id = plan.session;
        assert!(sessions.tell(id, &named(0), told(3), true));
        assert!(sessions.tell(id, &named(1), told(5), false));
        // The one that had data comes last.
        let moved = vec![(named(0), want(3))];
        let plan = sessions.plan(NOW, asked(id, 1), moved, &[]).unwrap();
        assert!(plan.incremental);
        assert_eq!(numbers(&plan), [(1, 5), (0, 3)]);
        assert!(!sessions.tell(id, &named(1), told(5), false));
        assert!(sessions.tell(id, &named(1), told(6), false));
        assert!(sessions.tell(id, &named(1), None, false), "an error");
        assert!(sessions.tell(id, &named(1), None, false), "and again");
        let plan = sessions.plan(NOW, asked(id, 2), Vec::new(), &[named(0)]);
        assert_eq!(numbers(&plan.unwrap()), [(1, 5)]);
        assert_eq!(sessions.partitions, 1);
        // Without a session the old one is gone.
        let plan = sessions.plan(NOW, asked(id, -1), vec![(named(0), want(0))], &[]);
        assert_eq!(plan.unwrap().session, 0);
        assert_eq!((sessions.len(), sessions.partitions), (0, 0));
    }

    #[test]
    fn sessions_and_epochs_that_are_not_there_are_refused() {
        let mut sessions = Sessions::new(1);
        let mut plan = |asked, wanted| sessions.plan(NOW, asked, wanted, &[]);
        let id = plan(asked(0, 0), vec![(named(0), want(0))])
            .unwrap()
            .session;
        let wrong = plan(asked(id + 1, 1), Vec::new());
        assert_eq!(wrong, Err(ErrorCode::FetchSessionIdNotFound));
        let wrong = plan(asked(id, 2), Vec::new());
        assert_eq!(wrong, Err(ErrorCode::InvalidFetchSessionEpoch));
        let by_name = Asked {
            by_id: false,
            ..asked(id, 1)
        };
        let wrong = plan(by_name, vec![(named(0), want(0))]);
        assert_eq!(wrong, Err(ErrorCode::FetchSessionTopicIdError));
        assert!(plan(asked(id, 1), Vec::new()).is_ok());
        assert_eq!(
            plan(asked(id, 1), Vec::new()),
            Err(ErrorCode::InvalidFetchSessionEpoch)
        );
    }

    #[test]
    fn the_number_of_sessions_is_bounded_and_idle_ones_give_way() {
        let mut sessions = Sessions::new(1);
        let mut begin = |now| {
            let wanted = vec![(named(0), want(0))];
            sessions
                .plan(now, asked(0, 0), wanted, &[])
                .unwrap()
                .session
        };
        for _ in 0..SESSIONS_MAX {
            assert_ne!(begin(NOW), 0);
        }
        assert_eq!(begin(NOW), 0);
        assert_ne!(begin(EVICT_AFTER), 0);
        assert_eq!(sessions.len(), SESSIONS_MAX);
    }

    #[test]
    fn the_epoch_after_the_largest_is_one() {
        let mut sessions = Sessions::new(1);
        let wanted = vec![(named(0), want(0))];
        let id = sessions
            .plan(NOW, asked(0, 0), wanted, &[])
            .unwrap()
            .session;
        sessions.all.get_mut(&id).unwrap().next = i32::MAX;
        assert!(
            sessions
                .plan(NOW, asked(id, i32::MAX), Vec::new(), &[])
                .is_ok()
        );
        assert!(sessions.plan(NOW, asked(id, 1), Vec::new(), &[]).is_ok());
    }
}
