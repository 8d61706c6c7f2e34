//! What must hold, one property a file, named as in the published specification of the protocol where it
//! has a name there.

pub(super) mod acknowledged_is_there;
pub(super) mod consistent_read;
pub(super) mod given_up_stays_away;
pub(super) mod latest_is_monotonic;
pub(super) mod leader_candidate_completeness;
pub(super) mod leader_completeness;
pub(super) mod log_matching;
pub(super) mod metadata_steps;
pub(super) mod no_fenced_replica;
pub(super) mod once_and_in_order;
pub(super) mod refused_is_invisible;
