//! Consumer groups and committed offsets, without I/O.
//!
//! The core is [`Coordinator`]: one value that holds every group of a node and is stepped with inputs. It follows the
//! consumer protocol of KIP-848 folded into one idempotent heartbeat and, beside it, the classic protocol of joins and
//! syncs. A group speaks one at a time; one that speaks the consumer protocol also serves members that speak the
//! classic one, and passes from one to the other with its members. It keeps the table of committed offsets that the
//! compacted topic `__consumer_offsets` replays into.
//!
//! Invariants, asserted while it runs:
//! - **G1** no partition is granted to two current members of a group;
//! - **G2** a target assignment covers every subscribed partition exactly once;
//! - **G5** group and member epochs never decrease while the group exists;
//! - a ticket is answered at most once, and a commit is answered after it is durable;
//! - a heartbeat is answered after every change of its group's membership before it is durable, so the
//!   coordinator that replays the log knows at least what members know.
//!
//! Never here: I/O, clocks, threads, randomness, a wire format of requests.

mod assignor;
mod classic;
mod classic_calls;
pub mod codec;
mod commits;
mod config;
mod coordinator;
mod describe;
mod group;
mod input;
mod journal;
mod loading;
mod member;
mod mixed;
mod offsets;
mod output;
pub mod planted;
mod reconcile;
mod rules;
mod subscription;
mod txn;
mod writes;

pub use assignor::{Assignor, Candidate, assign};
pub use classic::{
    ClassicError, ClassicHeartbeat, ClassicJoin, ClassicJoined, ClassicLeave, ClassicMember,
    ClassicState, ClassicSync, ClassicSynced,
};
pub use config::Config;
pub use coordinator::{Coordinator, Matcher};
pub use input::{AppendId, Heartbeat, Input, OffsetCommit, Subscription, Tick, Ticket, TopicState};
pub use offsets::CommittedOffset;
pub use output::{
    ClassicListing, Failure, GroupDescription, GroupListing, GroupState, HeartbeatReply,
    MemberDescription, Output, Reply, Survey,
};
