//! What a start does with a journal that holds records of partitions which could not be opened.
//!
//! Invariants: records that may be acknowledged and that no other node is known to have stay in the journal until a
//! start has put them back; a node that keeps them so appends nothing to that journal, and has none in this run.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use varve_metadata::PartitionKey;
use varve_storage::Journal;
use varve_storage::journal::{JournalError, Replay};
use varve_types::TopicPartition;
use varve_vfs::Vfs;

use crate::cluster::reconcile::counts;
use crate::config::BrokerConfig;
use crate::opener::identity;
use crate::registry::Registry;
use crate::start::open_journal;

/// Sees to what was not placed, once every log is open that can be. Returns the journal of this run.
pub(crate) fn settle(
    (config, vfs, now_ms): (&BrokerConfig, &Arc<dyn Vfs>, i64),
    registry: &Registry,
    (journal, replay): (Option<Journal>, &Replay),
) -> Result<Option<Journal>, JournalError> {
    let unplaced = registry.opener.unplaced.lock().clone();
    let Some(journal) = journal else {
        return Ok(None);
    };
    if unplaced.is_empty() {
        return Ok(Some(journal));
    }
    let (waiting, elsewhere) = split(registry, unplaced);
    if waiting.is_empty() {
        drop(journal);
        keep_aside(config, vfs, now_ms, &elsewhere)?;
        registry.opener.unplaced.lock().clear();
        return Ok(open_journal(config, vfs)?.map(|(fresh, _)| fresh));
    }
    let kept: BTreeSet<_> = waiting.keys().copied().map(identity).collect();
    journal.keep(replay, &kept)?;
    for partition in waiting.values() {
        tracing::error!(
            %partition,
            "the partition is offline, and only the journal may hold some of its acknowledged \
             records; the journal stays as it is until a start can open the partition, and this \
             run does without a journal, so small appends are slower"
        );
    }
    *registry.opener.unplaced.lock() = waiting;
    Ok(None)
}

type Partitions = BTreeMap<PartitionKey, TopicPartition>;

/// Those that this node is counted on for, or alone holds; and those that others hold whole.
fn split(registry: &Registry, unplaced: Partitions) -> (Partitions, Partitions) {
    let Some(cluster) = registry.cluster() else {
        return (unplaced, Partitions::new());
    };
    cluster.look(|state| {
        let counted = |key: &PartitionKey| {
            let partition = state.partition_at(*key);
            partition.is_some_and(|p| counts(p, cluster.me))
        };
        unplaced.into_iter().partition(|(key, _)| counted(key))
    })
}

/// Others hold what these partitions had: the journal is kept as it is, under another name, for whoever looks into it.
fn keep_aside(
    config: &BrokerConfig,
    vfs: &Arc<dyn Vfs>,
    now_ms: i64,
    partitions: &Partitions,
) -> Result<(), JournalError> {
    let kept = config.data_dir.join(format!("journal.kept-{now_ms}"));
    vfs.rename(&config.data_dir.join("journal"), &kept)?;
    vfs.sync_dir(&config.data_dir)?;
    for partition in partitions.values() {
        tracing::error!(
            %partition, kept = %kept.display(),
            "the partition is offline, and the journal holds records of it that other nodes hold \
             too; the journal was set aside, and nothing in it was removed"
        );
    }
    Ok(())
}
