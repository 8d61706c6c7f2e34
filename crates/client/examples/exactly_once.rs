//! A pipeline that counts each record of one topic exactly once in another: what it reads, what it makes of that, and
//! that it has read it become visible together, or not at all.
//!
//! `cargo run -p varve-client --example exactly_once -- localhost:8278 words lengths`, under any supervisor, as often
//! as there are to be members: whoever meets an error ends, and the next start goes on where the last commit is. Each
//! member needs a transactional id of its own (the fourth argument). Ends after ten seconds without a record.

use std::error::Error;
use std::time::Duration;

use varve_client::{
    Client, ClientConfig, GroupConfig, GroupConsumer, RecordRef, TransactionalConfig,
    TransactionalProducer,
};
use varve_types::TopicName;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let mut argument = |otherwise: &str| arguments.next().unwrap_or_else(|| otherwise.to_owned());
    // Readers see committed records alone unless they ask for others.
    let client = Client::new(ClientConfig {
        brokers: vec![argument("localhost:8278")],
        ..ClientConfig::default()
    })?;
    let input: TopicName = argument("words").parse()?;
    let output: TopicName = argument("lengths").parse()?;
    let id = argument("lengths-1").parse()?;

    // Whoever had this id before is fenced, and what it left open is aborted.
    let config = TransactionalConfig::default();
    let mut producer = TransactionalProducer::open(client.clone(), id, config).await?;
    let mut config = GroupConfig::new("lengths".parse()?, vec![input]);
    // What is read is committed with what is made of it, and by nothing else.
    config.auto_commit = None;
    let mut consumer = GroupConsumer::join(client, config)?;
    while let Some(batch) = consumer.poll(Duration::from_secs(10)).await? {
        producer.begin()?;
        for record in batch.records()? {
            let record = record?;
            let length = record.value.as_deref().map_or(0, <[u8]>::len).to_string();
            let made = RecordRef {
                key: record.key.as_deref(),
                value: Some(length.as_bytes()),
                ..RecordRef::default()
            };
            producer.enqueue(&output, made).await?;
        }
        producer.commit_progress(&consumer.progress()?).await?;
        producer.commit().await?;
    }
    // Nothing is open, and nothing is left to commit.
    consumer.close().await?;
    producer.close().await?;
    Ok(())
}
