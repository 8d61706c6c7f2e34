//! Which APIs and versions are announced. Clients choose the newest that both sides know.

use crate::wire::ApiKey;
use crate::wire::generated::api_versions::{
    ApiVersion, ApiVersionsResponse, FinalizedFeatureKey, SupportedFeatureKey,
};

/// APIs that have tables and are not served.
const NOT_SERVED: &[ApiKey] = &[
    // Producers whose transactions keep their epoch need these, and are not served.
    ApiKey::AddPartitionsToTxn,
    ApiKey::AddOffsetsToTxn,
];

/// First and last version of an API that is served; `None`: it is not.
#[must_use]
pub fn served(key: ApiKey) -> Option<(i16, i16)> {
    if NOT_SERVED.contains(&key) {
        return None;
    }
    let first = match key {
        // Older ones carry records of a format that is not stored here.
        ApiKey::Fetch => 4,
        // The producer takes over the epoch that it is told.
        ApiKey::EndTxn | ApiKey::TxnOffsetCommit => 5,
        key => key.first_version(),
    };
    Some((first, key.last_version()))
}

/// Whether that version is announced.
#[must_use]
pub fn serves(key: ApiKey, version: i16) -> bool {
    served(key).is_some_and(|(first, last)| (first..=last).contains(&version))
}

/// What `ApiVersions` answers, as of `version`.
#[must_use]
pub fn announced(version: i16, error_code: i16) -> ApiVersionsResponse {
    let keys = ApiKey::ALL.iter().filter_map(|key| {
        let (min_version, max_version) = served(*key)?;
        Some(ApiVersion {
            api_key: *key as i16,
            min_version,
            max_version,
        })
    });
    let mut response = ApiVersionsResponse {
        error_code,
        api_keys: keys.collect(),
        ..ApiVersionsResponse::default()
    };
    if version >= 3 {
        features(&mut response);
    }
    response
}

/// Transactions of the second kind only (KIP-890): the coordinator is told of a partition by the partition's leader, and
/// every transaction has an epoch of its own.
fn features(response: &mut ApiVersionsResponse) {
    const TRANSACTIONS: &str = "transaction.version";
    response.supported_features = vec![SupportedFeatureKey {
        name: crate::wire::Text::from_static(TRANSACTIONS),
        min_version: 2,
        max_version: 2,
    }];
    response.finalized_features_epoch = 1;
    response.finalized_features = vec![FinalizedFeatureKey {
        name: crate::wire::Text::from_static(TRANSACTIONS),
        max_version_level: 2,
        min_version_level: 2,
    }];
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_announced_has_a_table() {
        let all = announced(0, 0);
        assert!(all.supported_features.is_empty());
        for api in all.api_keys {
            let key = ApiKey::from_key(api.api_key).unwrap();
            assert!(key.has_version(api.min_version) && key.has_version(api.max_version));
            assert!(serves(key, api.max_version) && !serves(key, api.max_version + 1));
        }
        assert!(!serves(ApiKey::Fetch, 3));
        assert_eq!(announced(3, 0).finalized_features.len(), 1);
    }
}
