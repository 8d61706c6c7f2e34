//! The end of groups: when nothing more is sent, their members go on until everything is committed. That they come
//! there is a promise of its own, once nothing is broken any more.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use varve_check::Event;
use varve_client::ClientError;

use crate::consumers::bounds;
use crate::groups::{self, Group};
use crate::{Kind, Shared};

/// Groups have this long to come to the end.
const WITHIN: Duration = Duration::from_secs(120);
const LOOK: Duration = Duration::from_millis(250);

/// Waits until every group has committed all that was there when it was called. Where that is, by partition.
///
/// # Errors
/// How far who is after [`WITHIN`].
pub async fn settle(shared: &Shared, groups: &[Arc<Group>]) -> Result<Vec<i64>, String> {
    let deadline = Instant::now() + WITHIN;
    if shared.config.kind == Kind::QueueSubscribe {
        // Before it is asked where the logs end.
        for group in groups {
            group.call_for_all(&shared.config, &shared.recorder);
        }
    }
    let (mut ends, mut last) = (None, "no consumer answered".to_owned());
    for turn in 0_u32.. {
        if Instant::now() >= deadline {
            break;
        }
        match look(shared, groups, turn, &mut ends).await {
            Ok(None) => return Ok(ends.unwrap_or_default()),
            Ok(Some(behind)) => last = behind,
            Err(error) => last = error.to_string(),
        }
        sleep(LOOK).await;
    }
    Err(format!(
        "not everything was committed within {WITHIN:?} after the last record was sent: {last}"
    ))
}

/// Who is behind, through another node each time.
async fn look(
    shared: &Shared,
    groups: &[Arc<Group>],
    turn: u32,
    ends: &mut Option<Vec<i64>>,
) -> Result<Option<String>, ClientError> {
    let config = &shared.config;
    let client = config.client(turn)?;
    let ends = match ends {
        Some(ends) => ends,
        None => {
            let bounds = bounds(config, &client).await?;
            let inputs = bounds.iter().zip(0..config.partitions);
            ends.insert(inputs.map(|((_, end), _)| *end).collect())
        }
    };
    for group in groups {
        let committed = groups::progress(config, &client, group).await?;
        for (place, end) in (0..).zip(&*ends) {
            let at = committed.get(&place).copied().unwrap_or(0);
            if at < *end {
                let group = &group.name;
                return Ok(Some(format!(
                    "group {group} has committed {at} of {end} in partition {place}"
                )));
            }
        }
    }
    Ok(None)
}

/// Writes down what groups have done, up to `ends`, when none of their members runs any more.
pub fn tell(shared: &Shared, groups: &[Arc<Group>], ends: &[i64]) {
    let recorder = &shared.recorder;
    match shared.config.kind {
        Kind::QueueSubscribe => groups.iter().for_each(|group| group.tell(recorder, ends)),
        Kind::Ctp => recorder.event(Event::Drained {
            ns: recorder.ns(),
            ends: (0..).zip(ends.iter().copied()).collect(),
        }),
        Kind::Queue | Kind::Txn | Kind::Abort => {}
    }
}
