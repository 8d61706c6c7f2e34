//! What a subscription means: its topics by name and those its pattern matches now. Pure.

use std::collections::BTreeSet;

use varve_types::{TopicName, limits};

use crate::assignor::Assignor;
use crate::group::Env;
use crate::{Failure, Heartbeat, Subscription};

/// Topics a subscription means now. Names need not exist; patterns match what exists. One without any is that of a
/// member who does not know yet what it wants: clients with a pattern of their own join like that, and get nothing.
pub(crate) fn resolve(
    env: Env<'_>,
    subscription: &Subscription,
) -> Result<BTreeSet<TopicName>, Failure> {
    let bad = |message: String| Failure::invalid("subscription", message);
    if subscription.topics.len() > limits::PARTITIONS_PER_NODE_MAX {
        return Err(bad(format!(
            "a subscription may name at most {} topics; this one has {}",
            limits::PARTITIONS_PER_NODE_MAX,
            subscription.topics.len()
        )));
    }
    if !subscription.assignor.is_empty() && Assignor::parse(&subscription.assignor).is_none() {
        let why = format!(
            "the assignor must be uniform or range; found {:?}",
            subscription.assignor
        );
        return Err(Failure::invalid("subscription.assignor", why));
    }
    let mut topics: BTreeSet<_> = subscription.topics.iter().cloned().collect();
    if !subscription.pattern.is_empty() {
        let matches = |topic: &str| {
            env.matcher
                .matches(&subscription.pattern, topic)
                .map_err(|why| {
                    let pattern = &subscription.pattern;
                    let message = format!("the topic pattern {pattern:?} is not valid: {why}");
                    Failure::invalid("subscription.topic_pattern", message)
                })
        };
        // A bad pattern is refused even where there is no topic to try it on.
        matches("")?;
        for topic in env.topics.keys().filter(|t| !t.is_internal()) {
            if matches(topic.as_str())? {
                topics.insert(topic.clone());
            }
        }
    }
    Ok(topics)
}

/// Bounds of the texts that are kept with a member.
pub(crate) fn check_texts(heartbeat: &Heartbeat) -> Result<(), Failure> {
    let subscription = heartbeat.subscription.as_ref();
    let pattern = subscription.map_or("", |s| s.pattern.as_str());
    let instance = heartbeat.instance.as_deref().unwrap_or_default();
    for (field, text, most) in [
        ("instance_id", instance, limits::NAME_MAX_BYTES),
        ("rack", &heartbeat.rack, limits::NAME_MAX_BYTES),
        (
            "subscription.topic_pattern",
            pattern,
            limits::TOPIC_PATTERN_MAX_BYTES,
        ),
    ] {
        if text.len() > most {
            return Err(Failure::invalid(
                field,
                format!(
                    "{field} may have at most {most} bytes of text; this one has {}",
                    text.len()
                ),
            ));
        }
    }
    Ok(())
}
