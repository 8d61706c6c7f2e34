//! Flags of `varve group`.

use std::path::PathBuf;

use clap::Subcommand;

use super::OutputArgs;

/// Commands on consumer groups.
#[derive(Debug, Subcommand)]
pub enum GroupCommand {
    /// List groups
    List {
        /// Form of the output.
        #[command(flatten)]
        form: OutputArgs,
    },
    /// Describe groups: members, committed offsets, lag
    Describe {
        /// Groups
        #[arg(required = true, value_name = "GROUP")]
        groups: Vec<String>,
        /// Only the summary
        #[arg(short, long)]
        summary: bool,
        /// Lag per topic
        #[arg(short = 't', long)]
        topics: bool,
        /// Again every two seconds
        #[arg(short, long)]
        watch: bool,
        /// Form of the output.
        #[command(flatten)]
        form: OutputArgs,
    },
    /// Move the committed offsets of a group without members
    Seek {
        /// Group
        group: String,
        /// Where to: start, end, @TIME, an offset
        #[arg(
            long,
            allow_hyphen_values = true,
            value_name = "SPEC",
            group = "target"
        )]
        to: Option<String>,
        /// Forward, or back with -N
        #[arg(long, allow_hyphen_values = true, value_name = "N", group = "target")]
        shift_by: Option<i64>,
        /// To the offsets of another group
        #[arg(long, value_name = "GROUP", group = "target")]
        to_group: Option<String>,
        /// To the offsets in a file: lines of TOPIC PARTITION OFFSET
        #[arg(long, value_name = "FILE", group = "target")]
        to_file: Option<PathBuf>,
        /// Only these topics; with --to also topics the group has no offsets for
        #[arg(long, num_args = 1.., value_name = "TOPIC")]
        topics: Vec<String>,
        /// Show the new offsets, write nothing
        #[arg(long)]
        dry_run: bool,
        /// Do not ask
        #[arg(long)]
        execute: bool,
        /// Form of the output.
        #[command(flatten)]
        form: OutputArgs,
    },
    /// Delete groups without members, with their offsets
    Delete {
        /// Groups
        #[arg(required = true, value_name = "GROUP")]
        groups: Vec<String>,
        /// Form of the output.
        #[command(flatten)]
        form: OutputArgs,
    },
    /// Delete committed offsets of a group
    OffsetDelete {
        /// Group
        group: String,
        /// Topics, or TOPIC:PARTITION
        #[arg(short, long, required = true, num_args = 1.., value_name = "TOPIC[:N]")]
        topic: Vec<String>,
        /// Form of the output.
        #[command(flatten)]
        form: OutputArgs,
    },
    /// Expel members of a group
    RemoveMember {
        /// Group
        group: String,
        /// Members
        #[arg(value_name = "MEMBER")]
        members: Vec<String>,
        /// All members
        #[arg(long, conflicts_with = "members")]
        all: bool,
        /// Form of the output.
        #[command(flatten)]
        form: OutputArgs,
    },
}
