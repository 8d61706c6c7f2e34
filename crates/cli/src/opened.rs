//! Partitions of a new topic, and those of any topic while leaders change: waits until they can be used, for a bounded
//! time.
//!
//! Invariant: nothing here changes anything, and every wait ends.

use std::time::Duration;

use tokio::time::Instant;
use varve_client::{Admin, RpcError, proto as v1};

use crate::failure::{Failure, TIMEOUT};
use crate::words::count;

/// Time between two looks.
const PAUSE: Duration = Duration::from_millis(50);
/// How long a read waits for leaders that are just changing.
const SETTLE: Duration = Duration::from_secs(2);

/// Waits until every partition of a topic that was just created has an open leader.
///
/// # Errors
/// Timeout, when one has none within `within`; the topic exists nevertheless.
pub async fn wait(admin: &Admin, topic: &str, within: Duration) -> Result<(), Failure> {
    let late = Instant::now() + within;
    loop {
        // A node that has not heard of the topic yet is only late.
        let last = match admin.all_partitions(topic).await {
            Ok(partitions) => match unopened(&partitions) {
                (_, None) => return Ok(()),
                (closed, Some(first)) => {
                    let of = count(partitions.len(), "partition");
                    format!("{closed} of {of} cannot be used yet: {first}")
                }
            },
            Err(error) => error.to_string(),
        };
        if Instant::now() >= late {
            let text =
                format!("topic {topic} was created, but {last}; see: varve topic describe {topic}");
            return Err(Failure::new(TIMEOUT, text));
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// The number of partitions without an open leader, and what is wrong with the first of them.
fn unopened(partitions: &[v1::Partition]) -> (usize, Option<String>) {
    let closed = |p: &&v1::Partition| p.leader_node_id.is_none() || p.error.is_some();
    let first = partitions.iter().find(closed).map(|partition| {
        let number = partition.partition;
        match partition.error.clone() {
            Some(error) => format!("partition {number}: {}", RpcError::from_partition(error)),
            None => format!("partition {number} has no leader"),
        }
    });
    (partitions.iter().filter(closed).count(), first)
}

/// The partitions of a topic. While one of them has an error, as when its leader changes, it asks again for a while.
///
/// # Errors
/// Those of the first question.
pub async fn settled(
    admin: &Admin,
    topic: &str,
) -> Result<Vec<v1::Partition>, varve_client::ClientError> {
    let late = Instant::now() + SETTLE;
    let mut partitions = admin.all_partitions(topic).await?;
    while partitions.iter().any(|p| p.error.is_some()) && Instant::now() < late {
        tokio::time::sleep(PAUSE).await;
        if let Ok(now) = admin.all_partitions(topic).await {
            partitions = now;
        }
    }
    Ok(partitions)
}

/// What is wrong with partitions, each with its name: printed below a table.
#[must_use]
pub fn errors(topic: &str, partitions: &[v1::Partition]) -> Vec<(String, String)> {
    let failing = partitions.iter().filter_map(|partition| {
        let error = RpcError::from_partition(partition.error.clone()?);
        Some((
            format!("{topic}:{}", partition.partition),
            error.to_string(),
        ))
    });
    failing.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_open_is_named() {
        let open = |number| v1::Partition {
            partition: number,
            leader_node_id: Some(1),
            ..Default::default()
        };
        let failing = v1::Partition {
            error: Some(RpcError::transport("node 3 is opening it").to_partition()),
            ..open(1)
        };
        let leaderless = v1::Partition {
            leader_node_id: None,
            ..open(2)
        };
        assert_eq!(unopened(&[open(0)]), (0, None));
        let all = [open(0), failing, leaderless.clone()];
        let (closed, first) = unopened(&all);
        assert_eq!(closed, 2);
        assert_eq!(
            first.unwrap(),
            "partition 1: node 3 is opening it (UNAVAILABLE)"
        );
        assert_eq!(
            unopened(&[leaderless]).1.unwrap(),
            "partition 2 has no leader"
        );
        let below = errors("orders", &all);
        assert_eq!(
            below,
            [(
                "orders:1".to_owned(),
                "node 3 is opening it (UNAVAILABLE)".to_owned()
            )]
        );
    }
}
