//! Replaces servers for test results where the feature `remote` is disabled.

use greenwave_cache::Tier;

use super::{ResultStoreError, scheme};
use crate::result_keys::ResultKeys;
use crate::settings::TestingSettings;

/// Returns an error if the settings name a server.
pub(super) fn tiers(settings: &TestingSettings, _keys: &ResultKeys) -> Result<Vec<Tier>, ResultStoreError> {
    match settings.remote.as_str() {
        "" => Ok(Vec::new()),
        address => {
            let scheme = scheme(address);
            let feature = if scheme.starts_with("grpc") { "remote-reapi" } else { "remote" };
            Err(ResultStoreError::NoRemote { scheme, feature })
        }
    }
}
