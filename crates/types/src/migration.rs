//! Whether groups with members may pass from one group protocol to the other. Never decides when they do:
//! that is the groups core.

/// Which way a group that has members may pass. Groups without members always may, both ways.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum GroupMigration {
    /// From the classic protocol to the consumer protocol and back.
    #[default]
    Bidirectional,
    /// From the classic protocol to the consumer protocol.
    Upgrade,
    /// From the consumer protocol to the classic protocol.
    Downgrade,
    /// Neither way: members that speak the other protocol are not let in.
    Disabled,
}

impl GroupMigration {
    /// Whether a member of the consumer protocol may join a classic group that has members.
    #[must_use]
    pub const fn upgrades(self) -> bool {
        matches!(self, Self::Bidirectional | Self::Upgrade)
    }

    /// Whether a group becomes a classic one when its last member of the consumer protocol is gone.
    #[must_use]
    pub const fn downgrades(self) -> bool {
        matches!(self, Self::Bidirectional | Self::Downgrade)
    }
}

impl std::str::FromStr for GroupMigration {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        match s {
            "bidirectional" => Ok(Self::Bidirectional),
            "upgrade" => Ok(Self::Upgrade),
            "downgrade" => Ok(Self::Downgrade),
            "disabled" => Ok(Self::Disabled),
            _ => Err(format!(
                "the migration policy must be bidirectional, upgrade, downgrade or disabled; found \
                 {s:?}"
            )),
        }
    }
}

impl std::fmt::Display for GroupMigration {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Bidirectional => "bidirectional",
            Self::Upgrade => "upgrade",
            Self::Downgrade => "downgrade",
            Self::Disabled => "disabled",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_back_and_say_which_way() {
        for (policy, ways) in [
            (GroupMigration::Bidirectional, (true, true)),
            (GroupMigration::Upgrade, (true, false)),
            (GroupMigration::Downgrade, (false, true)),
            (GroupMigration::Disabled, (false, false)),
        ] {
            assert_eq!(policy.to_string().parse(), Ok(policy));
            assert_eq!((policy.upgrades(), policy.downgrades()), ways);
        }
        assert!("both".parse::<GroupMigration>().is_err());
    }
}
