//! A pipeline that reads, writes and commits what it has read in transactions, while node after node is killed.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends")]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::support::cluster::Nodes;
use crate::support::new_topic;
use crate::support::transactions::*;
use varve_broker_api::{Broker as _, Context, Result};
use varve_types::{GroupName, NodeId, TopicName};

/// Inputs of the pipeline.
const INPUTS: usize = 90;

/// One step of a pipeline: what was read is written, and that it was read, together.
async fn copy(at: &At<'_>, producer: &mut Producer, topic: &TopicName, n: usize) -> Result<()> {
    let group: GroupName = "pipe".parse().unwrap();
    let from = offset_of(at, &group, true).await.unwrap_or(0);
    // A leader that has just been elected may not know yet how far everything is committed.
    let mut all = committed(at, topic, 0).await;
    for _ in 0..1000 {
        if all.len() == INPUTS {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
        all = committed(at, topic, 0).await;
    }
    assert_eq!(all.len(), INPUTS, "all inputs are read again");
    let from = usize::try_from(from).unwrap();
    let some = &all[from..all.len().min(from + 1 + n % 4)];
    for value in some {
        producer.send(at, topic, 1, &[value]).await?;
    }
    if n % 7 == 3 {
        // It stops without a word: its successor finds the transaction open.
        return Ok(());
    }
    let next = i64::try_from(from + some.len()).unwrap();
    for result in producer.commit_offset(at, &group, topic, next).await? {
        result?;
    }
    producer.end(at, n % 5 != 2).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pipeline_is_exactly_once_whoever_is_killed() {
    let mut nodes = Nodes::new(3).await;
    let request = varve_broker_api::CreateTopic {
        replication_factor: Some(3),
        ..new_topic("t", 2)
    };
    let context = Context::anonymous();
    let any = nodes.brokers[&NodeId(1)].clone();
    let topic = any.create_topic(&context, request).await.unwrap().name;
    for n in 0..2 {
        nodes.in_sync("t", n, 3).await;
    }
    let inputs: Vec<String> = (0..INPUTS).map(|n| format!("in-{n}")).collect();
    let mut writer = Producer::open(&At::Any(&nodes), "input").await;
    for value in &inputs {
        let at = At::Any(&nodes);
        writer.send(&at, &topic, 0, &[value]).await.unwrap();
    }
    writer.end(&At::Any(&nodes), true).await.unwrap();
    sees_all(&At::Any(&nodes), &topic, 0, &inputs).await;

    let living = Arc::new(Mutex::new(
        nodes.brokers.values().cloned().collect::<Vec<_>>(),
    ));
    let (over, stop) = (Arc::clone(&living), topic.clone());
    let pipeline = tokio::spawn(async move {
        let at = At::Living(over);
        let group: GroupName = "pipe".parse().unwrap();
        let mut producer = Producer::open(&at, "pipe").await;
        for n in 0.. {
            // Not faster than nodes are killed.
            tokio::time::sleep(Duration::from_millis(20)).await;
            let done = copy(&at, &mut producer, &stop, n).await;
            if done.is_err() || n % 7 == 3 {
                producer = Producer::open(&at, "pipe").await;
            }
            let offset = offset_of(&at, &group, true).await.unwrap_or(0);
            if usize::try_from(offset).unwrap() >= INPUTS {
                return n;
            }
        }
        unreachable!()
    });
    let mut killed = 0;
    while !pipeline.is_finished() {
        let victim = NodeId(1 + killed % 3);
        killed += 1;
        let others = nodes.brokers.iter().filter(|(node, _)| **node != victim);
        *living.lock().unwrap() = others.map(|(_, broker)| broker.clone()).collect();
        let left = nodes.kill(victim).await;
        let other = nodes.brokers.keys().next().copied();
        nodes.shared.lead(other.unwrap());
        tokio::time::sleep(Duration::from_millis(700)).await;
        nodes.restart(victim, left).await;
        *living.lock().unwrap() = nodes.brokers.values().cloned().collect();
        nodes.active(3).await;
        for topic in ["t", "__transaction_state", "__consumer_offsets"] {
            let count = nodes.shared.look(|state| {
                let topic = state.topic(&topic.parse().unwrap());
                topic.map_or(0, |t| t.partitions.len())
            });
            for n in 0..count {
                nodes.whole(topic, i32::try_from(n).unwrap()).await;
            }
        }
    }
    let steps = pipeline.await.unwrap();
    assert!(killed > 0, "no kills in {steps} steps");
    sees_all(&At::Any(&nodes), &topic, 1, &inputs).await;
    sees_all(&At::Any(&nodes), &topic, 0, &inputs).await;
}
