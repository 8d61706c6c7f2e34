//! A member of a group that counts words by partition: it loads its counts when a partition comes, commits by
//! itself when a partition goes and every hundred records, and throws away what it has lost.
//!
//! `cargo run -p varve-client --example group_consumer -- localhost:8278 words counters`, as often as there
//! are to be members; ends after ten seconds without a record.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt as _;
use varve_client::{
    Client, ClientConfig, ClientError, GroupConfig, GroupConsumer, Rebalance, RebalanceFuture,
    RebalanceListener,
};
use varve_types::TopicPartition;

/// Words seen, by partition. Shared between the loop and the callbacks, which never run at the same time.
#[derive(Clone, Default)]
struct Counts(Arc<Mutex<BTreeMap<TopicPartition, u64>>>);

impl Counts {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<TopicPartition, u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RebalanceListener for Counts {
    fn on_assigned(&mut self, rebalance: Rebalance) -> RebalanceFuture {
        let counts = self.clone();
        Box::pin(async move {
            for partition in rebalance.partitions() {
                eprintln!("assigned {partition}");
                counts.lock().insert(partition.clone(), 0);
            }
        })
    }

    fn on_revoked(&mut self, rebalance: Rebalance) -> RebalanceFuture {
        let counts = self.clone();
        Box::pin(async move {
            for partition in rebalance.partitions() {
                let words = counts.lock().remove(partition);
                println!("{partition}: {} words", words.unwrap_or_default());
            }
            // The results are out: only now may the next owner begin after them.
            if let Err(error) = rebalance.commit_processed().await {
                eprintln!("the next owner begins at an earlier commit: {error}");
            }
        })
    }

    fn on_lost(&mut self, partitions: BTreeSet<TopicPartition>) -> RebalanceFuture {
        for partition in &partitions {
            eprintln!("lost {partition}: what was counted since the last commit is void");
            self.lock().remove(partition);
        }
        Box::pin(async {})
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let mut argument = |otherwise: &str| arguments.next().unwrap_or_else(|| otherwise.to_owned());
    let client = Client::new(ClientConfig {
        brokers: vec![argument("localhost:8278")],
        ..ClientConfig::default()
    })?;
    let topic = argument("words").parse()?;
    let mut config = GroupConfig::new(argument("counters").parse()?, vec![topic]);
    config.auto_commit = None;
    let counts = Counts::default();
    let mut consumer = GroupConsumer::join_with(client, config, counts.clone())?;
    let mut records = consumer.records();
    let mut since_commit = 0_u32;
    let silence = Duration::from_secs(10);
    while let Ok(Some(record)) = tokio::time::timeout(silence, records.next()).await {
        let record = record?;
        let text = record.value.as_deref().unwrap_or_default();
        let words = text.split(u8::is_ascii_whitespace);
        let words = words.filter(|word| !word.is_empty()).count() as u64;
        *counts.lock().entry(record.topic_partition()).or_default() += words;
        since_commit += 1;
        if since_commit >= 100 {
            since_commit = 0;
            match records.consumer().commit().await {
                // The next call tells the listener which partitions are gone.
                Err(error @ ClientError::Fenced { .. }) => eprintln!("{error}"),
                committed => committed?,
            }
        }
    }
    consumer.close().await?;
    Ok(())
}
