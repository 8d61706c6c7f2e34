//! Consumer groups and committed offsets, without I/O.
//!
//! The core is [`Coordinator`]: one value that holds every group of a node and is stepped with inputs.
//! It follows the consumer protocol of KIP-848 folded into one idempotent heartbeat, and keeps the
//! table of committed offsets that the compacted topic `__consumer_offsets` replays into.
//!
//! Invariants, asserted while it runs:
//! - **G1** no partition is granted to two current members of a group;
//! - **G2** a target assignment covers every subscribed partition exactly once;
//! - **G5** group and member epochs never decrease while the group exists;
//! - a ticket is answered at most once, and a commit is answered after it is durable.
//!
//! Never here: I/O, clocks, threads, randomness, a wire format of requests. Membership is not written
//! anywhere: after a restart members rejoin, offsets are replayed.

mod assignor;
pub mod codec;
mod coordinator;
mod describe;
mod group;
mod input;
mod member;
mod offsets;
mod output;
mod writes;

pub use assignor::{Assignor, Candidate, assign};
pub use coordinator::{Config, Coordinator, Matcher};
pub use input::{AppendId, Heartbeat, Input, OffsetCommit, Subscription, Tick, Ticket, TopicState};
pub use offsets::CommittedOffset;
pub use output::{
    Failure, GroupDescription, GroupListing, GroupState, HeartbeatReply, MemberDescription, Output,
    Reply,
};
