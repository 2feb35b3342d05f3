//! Replaces servers of the Remote Execution API where the feature `remote-reapi` is disabled.

use std::sync::Arc;

use greenwave_cache::Backend;

use super::super::{ResultStoreError, scheme};
use crate::result_keys::ResultKeys;

/// Returns an error that names the feature.
pub(super) fn backend(address: &str, _keys: &ResultKeys) -> Result<Arc<dyn Backend>, ResultStoreError> {
    Err(ResultStoreError::NoRemote { scheme: scheme(address), feature: "remote-reapi" })
}
