//! `compression.type` of a topic: batches that arrive in another codec are compressed anew by the leader, before they
//! get their place in the log, so that the topic holds one codec whoever produces to it.
//!
//! Invariants: a topic with `compression.type=producer` pays nothing; what is large, or packed, is worked on by a
//! thread for blocking work, no more at a time than there are cores, which bounds the memory that it takes; the
//! records, their times, and the producer's sequence stay, so a repeated batch is still known as a repeat.

use std::sync::Arc;

use tokio::sync::Semaphore;
use varve_broker_api::{Error, Result};
use varve_record::{Batch, BatchError, Compression};
use varve_types::config::TopicCompression;
use varve_types::{ErrorKind, TopicConfig, TopicName};

/// Records without a codec up to this size are compressed where they are: that takes less time than another thread.
const INLINE_BYTES: usize = 16 * 1024;

/// Leave to unpack and compress.
#[derive(Debug, Clone)]
pub(crate) struct Recompression(Arc<Semaphore>);

impl Recompression {
    pub(crate) fn new() -> Self {
        let cores = std::thread::available_parallelism().map_or(2, |cores| cores.get().max(2));
        Self(Arc::new(Semaphore::new(cores)))
    }

    /// The batch in its topic's codec.
    pub(crate) async fn of(
        &self,
        topic: &TopicName,
        config: &TopicConfig,
        batch: Batch,
    ) -> Result<Batch> {
        let Some((codec, level)) = wanted(config) else {
            return Ok(batch);
        };
        let header = batch.header();
        if header.compression() == codec {
            return Ok(batch);
        }
        let inline = header.compression() == Compression::None && batch.size() <= INLINE_BYTES;
        let done = if inline {
            batch.recompressed(codec, level)
        } else {
            let leave = Arc::clone(&self.0).acquire_owned().await;
            let work = move || {
                // Given back when the memory is, also when nobody waits any more.
                let _leave = leave;
                batch.recompressed(codec, level)
            };
            let done = tokio::task::spawn_blocking(work).await;
            done.map_err(|_| {
                let text = "the broker is shutting down; nothing was appended; use another node or try again later";
                Error::new(ErrorKind::ShuttingDown, text)
            })?
        };
        done.map_err(|error| refused(topic, codec, &error))
    }
}

/// Codec and level of a topic's batches; `None`: whatever the producer chose.
fn wanted(config: &TopicConfig) -> Option<(Compression, Option<i32>)> {
    Some(match config.compression {
        TopicCompression::Producer => return None,
        TopicCompression::None => (Compression::None, None),
        TopicCompression::Gzip => (Compression::Gzip, config.gzip_level),
        TopicCompression::Snappy => (Compression::Snappy, None),
        TopicCompression::Lz4 => (Compression::Lz4, None),
        TopicCompression::Zstd => (Compression::Zstd, Some(config.zstd_level)),
    })
}

fn refused(topic: &TopicName, codec: Compression, error: &BatchError) -> Error {
    let kind = match error {
        BatchError::TooLarge { .. } => ErrorKind::BatchTooLarge,
        _ => ErrorKind::InvalidRecord,
    };
    let text = format!(
        "the batch cannot be stored with compression.type={codec} of topic {:?}: {error}; nothing was appended",
        topic.as_str()
    );
    Error::new(kind, text)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use varve_record::BatchBuilder;

    use super::*;

    fn config(pairs: &[(&str, &str)]) -> TopicConfig {
        let pair = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        TopicConfig::resolve(&pairs.iter().map(pair).collect(), &BTreeMap::new()).unwrap()
    }

    fn batch(codec: Compression, value_bytes: usize) -> Batch {
        let mut builder = BatchBuilder::new(codec, None);
        for number in 0..20 {
            let value = vec![b'v'; value_bytes];
            builder
                .append(1_000 + number, Some(b"k"), Some(&value), &[])
                .unwrap();
        }
        builder.build_batch().unwrap()
    }

    fn records(batch: &Batch) -> Vec<varve_record::RecordView> {
        batch
            .records()
            .unwrap()
            .map(|record| record.unwrap())
            .collect()
    }

    #[tokio::test]
    async fn a_batch_is_stored_in_the_codec_of_its_topic() {
        let topic = TopicName::new("t").unwrap();
        let recompression = Recompression::new();
        for (word, codec) in [
            ("none", Compression::None),
            ("gzip", Compression::Gzip),
            ("snappy", Compression::Snappy),
            ("lz4", Compression::Lz4),
            ("zstd", Compression::Zstd),
        ] {
            let config = config(&[("compression.type", word)]);
            for sent in Compression::ALL {
                // Small enough for the caller's thread, and not.
                for bytes in [10, 100_000] {
                    let before = batch(sent, bytes);
                    let after = recompression
                        .of(&topic, &config, before.clone())
                        .await
                        .unwrap();
                    assert_eq!(after.header().compression(), codec, "{sent} into {word}");
                    assert_eq!(records(&before), records(&after), "{sent} into {word}");
                }
            }
        }
    }

    #[tokio::test]
    async fn producer_leaves_the_bytes_as_they_came_and_levels_are_obeyed() {
        let topic = TopicName::new("t").unwrap();
        let recompression = Recompression::new();
        let sent = batch(Compression::Snappy, 100);
        let kept = recompression
            .of(&topic, &config(&[]), sent.clone())
            .await
            .unwrap();
        assert_eq!(kept.bytes().as_ptr(), sent.bytes().as_ptr());
        let pack = |level: &'static str| {
            let config = config(&[
                ("compression.type", "zstd"),
                ("compression.zstd.level", level),
            ]);
            let (recompression, topic, sent) = (&recompression, &topic, sent.clone());
            async move { recompression.of(topic, &config, sent).await.unwrap().size() }
        };
        assert!(pack("19").await < pack("-100000").await);
    }
}
