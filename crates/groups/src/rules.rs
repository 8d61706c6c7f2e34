//! What a group refuses, in words for people, and the checks that change nothing.

use varve_types::text::counted;
use varve_types::{ErrorKind, GroupName, MemberId};

use crate::config::Config;
use crate::group::{Env, Group};
use crate::member::Member;
use crate::planted::{self, Plant};
use crate::{Failure, Heartbeat, HeartbeatReply, OffsetCommit, Reply};

impl Group {
    pub(crate) fn check_member_epoch(&self, heartbeat: &Heartbeat) -> Result<(), Failure> {
        let id = &heartbeat.member;
        let given = heartbeat.member_epoch;
        let speaks = |member: &&Member| member.classic.is_none();
        let Some(member) = self.members.get(id).filter(speaks) else {
            return Err(unknown_member(&self.name, id));
        };
        if member.departed {
            return Err(self.departed(id));
        }
        if given == member.epoch {
            return Ok(());
        }
        // The reply that moved the epoch was lost: the member repeats itself, and can own nothing
        // that was not granted to it.
        let subset = match &heartbeat.owned {
            Some(owned) => owned.iter().all(|p| member.granted.contains(p)),
            None => member.reported.is_subset(&member.granted),
        };
        if given == member.presented && subset {
            return Ok(());
        }
        Err(self.fenced(id, given, member.epoch))
    }

    pub(crate) fn fenced(&self, id: &MemberId, given: i32, current: i32) -> Failure {
        Failure::new(
            ErrorKind::FencedMemberEpoch,
            format!(
                "member {id} of group {} is at epoch {current}, not {given}; give up every \
                 partition, then rejoin with epoch 0",
                self.name
            ),
        )
        .with("group", &self.name)
        .with("member_id", id)
        .with("member_epoch", current)
    }

    fn departed(&self, id: &MemberId) -> Failure {
        Failure::new(
            ErrorKind::FencedMemberEpoch,
            format!(
                "member {id} of group {} has left, and its partitions wait for its instance; \
                 rejoin with epoch 0",
                self.name
            ),
        )
        .with("group", &self.name)
        .with("member_id", id)
    }

    /// Whether a commit of this member at this epoch is allowed. One of an epoch that is over is allowed where the
    /// member has held every partition since then (assignment epochs, KIP-1251): a rebalance that leaves it a
    /// partition does not disturb its commits for that one.
    ///
    /// # Errors
    /// Why not.
    pub(crate) fn check_commit(
        &self,
        member: Option<&MemberId>,
        member_epoch: i32,
        offsets: &[OffsetCommit],
    ) -> Result<(), Failure> {
        let Some(id) = member else {
            return self.check_empty("a commit without member id");
        };
        let Some(member) = self.members.get(id) else {
            return Err(unknown_member(&self.name, id));
        };
        if member.departed {
            return Err(self.departed(id));
        }
        if member_epoch > member.epoch {
            return Err(self.fenced(id, member_epoch, member.epoch));
        }
        let others = |o: &&OffsetCommit| !member.holds_since(&o.partition, member_epoch);
        if member_epoch < member.epoch
            && let Some(other) = offsets.iter().find(others)
            && !planted::is(Plant::AcceptOldEpoch)
        {
            return Err(Failure::new(
                ErrorKind::StaleMemberEpoch,
                format!(
                    "member {id} of group {} committed {} with epoch {member_epoch} but is at {}, \
                     and has not owned that partition since; nothing was committed; send a \
                     heartbeat, then commit the offsets of the partitions it still owns",
                    self.name, other.partition, member.epoch
                ),
            )
            .with("group", &self.name)
            .with("member_id", id)
            .with("member_epoch", member.epoch));
        }
        Ok(())
    }

    /// # Errors
    /// `InvalidRequest` when a member that speaks the classic protocol has this id: it is given to that one.
    pub(crate) fn check_id(&self, id: &MemberId) -> Result<(), Failure> {
        let classic = self.classic.as_ref();
        let classic = classic.is_some_and(|c| c.members.contains_key(id));
        let mixed = self.members.get(id).is_some_and(|m| m.classic.is_some());
        if !mixed && !classic {
            return Ok(());
        }
        Err(Failure::invalid(
            "member_id",
            format!(
                "member {id} of group {} uses the classic group protocol; use another member id",
                self.name
            ),
        )
        .with("group", &self.name)
        .with("member_id", id))
    }

    /// # Errors
    /// `InstanceIdInUse` when the instance id is held by a member that has not left. One that speaks the
    /// classic protocol does not say when it stops for a while, so that a successor fences it.
    pub(crate) fn check_departed(
        &self,
        holder: &MemberId,
        heartbeat: &Heartbeat,
    ) -> Result<(), Failure> {
        let held = |m: &Member| !m.departed && m.classic.is_none();
        if !self.members.get(holder).is_some_and(held) {
            return Ok(());
        }
        let instance = heartbeat.instance.as_deref().unwrap_or_default();
        Err(Failure::new(
            ErrorKind::InstanceIdInUse,
            format!(
                "instance id {instance:?} of group {} belongs to the live member {holder}; stop \
                 that member, or wait for its session to expire",
                self.name
            ),
        )
        .with("group", &self.name)
        .with("instance_id", instance)
        .with("member_id", holder))
    }

    /// # Errors
    /// `GroupFull` when there is no room for one more member.
    pub(crate) fn check_room(&self, env: Env<'_>, id: &MemberId) -> Result<(), Failure> {
        let count = self.member_count();
        if count < env.config.group_max_size {
            return Ok(());
        }
        Err(Failure::new(
            ErrorKind::GroupFull,
            format!(
                "group {} has {}, which is group.max.size; member {id} was not added",
                self.name,
                counted(count, "member")
            ),
        )
        .with("group", &self.name)
        .with("limit", env.config.group_max_size))
    }

    /// # Errors
    /// `GroupNotEmpty` when there are members.
    pub(crate) fn check_empty(&self, what: &str) -> Result<(), Failure> {
        let count = self.member_count();
        if count == 0 {
            return Ok(());
        }
        Err(Failure::new(
            ErrorKind::GroupNotEmpty,
            format!(
                "{what} needs group {} to be empty, but it has {}; stop the members first",
                self.name,
                counted(count, "member")
            ),
        )
        .with("group", &self.name)
        .with("members", count))
    }

    pub(crate) fn is_stable(&self) -> bool {
        self.members
            .values()
            .all(|m| m.epoch == self.epoch && m.granted == m.target)
    }

    /// The cheap part of the invariants, after every step that touched this group.
    pub(crate) fn assert_invariants(&self) {
        if let Some(classic) = &self.classic {
            assert!(self.members.is_empty(), "a group speaks one protocol");
            assert!(self.owners.is_empty(), "G1: each grant has an owner");
            classic.assert_invariants();
        }
        let granted: usize = self.members.values().map(|m| m.granted.len()).sum();
        assert_eq!(granted, self.owners.len(), "G1: each grant has one owner");
        for (id, member) in &self.members {
            assert!(
                member.epoch <= self.epoch,
                "G5: member {id} is ahead of its group"
            );
            debug_assert!(
                member
                    .since
                    .iter()
                    .all(|(p, since)| member.granted.contains(p) && *since <= member.epoch),
                "G4: {id} has epochs of partitions that it does not hold"
            );
            assert!(
                !(member.departed && member.parked.is_some()),
                "{id} left and still waits"
            );
            assert!(
                member.classic.is_none() || !(member.departed || member.parked.is_some()),
                "{id} speaks the classic protocol: it neither departs nor waits"
            );
            debug_assert!(
                member
                    .granted
                    .iter()
                    .all(|p| self.owners.get(p) == Some(id)),
                "G1: a grant of {id} is not its own"
            );
        }
    }
}

pub(crate) fn unknown_member(group: &GroupName, id: &MemberId) -> Failure {
    Failure::new(
        ErrorKind::UnknownMember,
        format!(
            "group {group} has no member {id}; give up every partition, then rejoin with epoch 0"
        ),
    )
    .with("group", group)
    .with("member_id", id)
}

/// Answer to a member that leaves, however often it says so.
pub(crate) fn farewell(config: &Config) -> Reply {
    Reply::Heartbeat(HeartbeatReply {
        member_epoch: 0,
        assignment: None,
        heartbeat_interval_ms: config.heartbeat_interval_ms,
        session_timeout_ms: config.session_timeout_ms,
    })
}
