//! Which APIs and versions are announced. Clients choose the newest that both sides know.

use crate::wire::ApiKey;
use crate::wire::generated::api_versions::{
    ApiVersion, ApiVersionsResponse, FinalizedFeatureKey, SupportedFeatureKey,
};

/// The feature that says of which kind transactions are.
pub(crate) const TRANSACTIONS: &str = "transaction.version";
/// Its level: transactions of the second kind.
pub(crate) const TRANSACTIONS_LEVEL: i16 = 2;

/// First and last version of an API that is served.
#[must_use]
pub fn served(key: ApiKey) -> (i16, i16) {
    let first = match key {
        // Older ones carry records of a format that is not stored here.
        ApiKey::Fetch => 4,
        key => key.first_version(),
    };
    let last = match key {
        // Later ones are for brokers among themselves.
        ApiKey::AddPartitionsToTxn => 3,
        key => key.last_version(),
    };
    (first, last)
}

/// Whether that version is announced.
#[must_use]
pub fn serves(key: ApiKey, version: i16) -> bool {
    let (first, last) = served(key);
    (first..=last).contains(&version)
}

/// What `ApiVersions` answers, as of `version`.
#[must_use]
pub fn announced(version: i16, error_code: i16) -> ApiVersionsResponse {
    let keys = ApiKey::ALL.iter().map(|key| {
        let (min_version, max_version) = served(*key);
        ApiVersion {
            api_key: *key as i16,
            min_version,
            max_version,
        }
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

/// Transactions of the second kind (KIP-890) for who knows them: the coordinator is told of a partition by the
/// partition's leader, and every transaction has an epoch of its own. Of the first kind for all others.
fn features(response: &mut ApiVersionsResponse) {
    response.supported_features = vec![SupportedFeatureKey {
        name: crate::wire::Text::from_static(TRANSACTIONS),
        min_version: 1,
        max_version: TRANSACTIONS_LEVEL,
    }];
    response.finalized_features_epoch = 1;
    response.finalized_features = vec![FinalizedFeatureKey {
        name: crate::wire::Text::from_static(TRANSACTIONS),
        max_version_level: TRANSACTIONS_LEVEL,
        min_version_level: TRANSACTIONS_LEVEL,
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
