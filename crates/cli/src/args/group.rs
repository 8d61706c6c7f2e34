//! Flags of `varve group`.

use std::path::PathBuf;

use clap::Subcommand;

use super::OutputArgs;

/// Commands on consumer groups.
#[derive(Debug, Subcommand)]
pub enum GroupCommand {
    /// List consumer groups
    #[command(visible_alias = "ls")]
    List {
        /// Output format.
        #[command(flatten)]
        form: OutputArgs,
    },
    /// Show members, committed offsets and lag of groups
    #[command(visible_aliases = ["info", "lag"])]
    Describe {
        /// Names of the groups
        #[arg(required = true, value_name = "GROUP")]
        groups: Vec<String>,
        /// Show only the summary
        #[arg(short, long)]
        summary: bool,
        /// Show the lag of each topic
        #[arg(short = 't', long)]
        topics: bool,
        /// Repeat every two seconds
        #[arg(short, long)]
        watch: bool,
        /// Output format.
        #[command(flatten)]
        form: OutputArgs,
    },
    /// Move the committed offsets of a group that has no members
    #[command(visible_alias = "reset")]
    Seek {
        /// Name of the group
        group: String,
        /// New position: start, end, @TIME, -N (the last N records) or an offset
        #[arg(
            long,
            allow_hyphen_values = true,
            value_name = "SPEC",
            group = "target"
        )]
        to: Option<String>,
        /// Move forward by N records, or back with -N
        #[arg(long, allow_hyphen_values = true, value_name = "N", group = "target")]
        shift_by: Option<i64>,
        /// Copy the offsets of another group
        #[arg(long, value_name = "GROUP", group = "target")]
        to_group: Option<String>,
        /// Read the offsets from a file with lines of TOPIC PARTITION OFFSET
        #[arg(long, value_name = "FILE", group = "target")]
        to_file: Option<PathBuf>,
        /// Only these topics; with --to, also topics without a committed offset
        #[arg(long, num_args = 1.., value_name = "TOPIC")]
        topics: Vec<String>,
        /// Show the new offsets and change nothing
        #[arg(long)]
        dry_run: bool,
        /// Do not ask for confirmation, as --yes
        #[arg(long)]
        execute: bool,
        /// Output format.
        #[command(flatten)]
        form: OutputArgs,
    },
    /// Delete groups that have no members, with their committed offsets
    #[command(visible_alias = "rm")]
    Delete {
        /// Names of the groups
        #[arg(required = true, value_name = "GROUP")]
        groups: Vec<String>,
        /// Output format.
        #[command(flatten)]
        form: OutputArgs,
    },
    /// Delete committed offsets of a group
    OffsetDelete {
        /// Name of the group
        group: String,
        /// Topics, or single partitions as TOPIC:PARTITION
        #[arg(short, long, required = true, num_args = 1.., value_name = "TOPIC[:N]")]
        topic: Vec<String>,
        /// Output format.
        #[command(flatten)]
        form: OutputArgs,
    },
    /// Remove members from a group
    RemoveMember {
        /// Name of the group
        group: String,
        /// Ids of the members
        #[arg(value_name = "MEMBER")]
        members: Vec<String>,
        /// Remove all members
        #[arg(long, conflicts_with = "members")]
        all: bool,
        /// Output format.
        #[command(flatten)]
        form: OutputArgs,
    },
}
