//! Which records of a refused batch are to blame (KIP-467): producers fail these and send the others anew, where
//! without them a whole batch would be given up. Named are those without a key in a topic that is compacted. The list
//! has a bound; a batch with more culprits is refused with the first of them.

use varve_broker_api::Error;
use varve_record::Batch;
use varve_types::ErrorKind;

use crate::wire::Text;
use crate::wire::generated::produce::BatchIndexAndErrorMessage;

const NAMED_MAX: usize = 1_000;

/// The records that `error` is about; `batch` is what was refused, kept where it has records without a key.
pub(super) async fn blamed(error: &Error, batch: Option<Batch>) -> Vec<BatchIndexAndErrorMessage> {
    let about_time = error.metadata.iter().any(|(key, _)| *key == "timestamp");
    let Some(batch) = batch.filter(|_| error.kind == ErrorKind::InvalidRecord && !about_time)
    else {
        return Vec::new();
    };
    // A payload may unpack to many times its size: it must not hold up other connections.
    let work = move || keyless(&batch);
    tokio::task::spawn_blocking(work).await.unwrap_or_default()
}

fn keyless(batch: &Batch) -> Vec<BatchIndexAndErrorMessage> {
    let Ok(mut records) = batch.records() else {
        return Vec::new();
    };
    let text = Text::from_static("the topic is compacted, so the record needs a key");
    let mut found = Vec::new();
    let mut index = 0;
    while let Some(Ok(record)) = records.next_ref() {
        if record.key.is_none() {
            found.push(BatchIndexAndErrorMessage {
                batch_index: index,
                batch_index_error_message: Some(text.clone()),
            });
        }
        if found.len() == NAMED_MAX {
            break;
        }
        index += 1;
    }
    found
}

#[cfg(test)]
mod tests {
    use varve_record::{BatchBuilder, Compression, Unverified, VerifyLimits};

    use super::*;

    fn batch(keys: impl Iterator<Item = Option<&'static [u8]>>) -> Batch {
        let mut builder = BatchBuilder::new(Compression::Zstd, None);
        for key in keys {
            builder.append(1, key, Some(b"v"), &[]).unwrap();
        }
        let limits = VerifyLimits {
            max_batch_bytes: 1 << 20,
            max_records: 100_000,
            max_unpacked_bytes: 1 << 20,
            transactional: false,
            mend_max_timestamp: false,
        };
        Unverified(builder.build().unwrap())
            .verify(&limits)
            .unwrap()
    }

    fn named(found: &[BatchIndexAndErrorMessage]) -> Vec<i32> {
        found.iter().map(|r| r.batch_index).collect()
    }

    #[tokio::test]
    async fn records_without_a_key_are_named_up_to_a_bound() {
        let refused = Error::new(ErrorKind::InvalidRecord, "no key");
        let some = batch([Some(&b"k"[..]), None, Some(b"k"), None].into_iter());
        assert_eq!(named(&blamed(&refused, Some(some.clone())).await), [1, 3]);
        let all = batch(std::iter::repeat_n(None, 5_000));
        assert_eq!(blamed(&refused, Some(all)).await.len(), NAMED_MAX);
        // Of other errors no single record is the cause.
        let late = Error::new(ErrorKind::InvalidRecord, "late").with("timestamp", 1);
        assert!(blamed(&late, Some(some.clone())).await.is_empty());
        let full = Error::new(ErrorKind::StorageFull, "full");
        assert!(blamed(&full, Some(some)).await.is_empty());
        assert!(blamed(&refused, None).await.is_empty());
    }
}
