//! The tier of a store of test results that machines share: a Redis or memcached server, a server
//! of the Remote Execution API, or an object store.

#[cfg_attr(not(feature = "remote-reapi"), path = "remote/no_reapi.rs")]
mod reapi;

use std::sync::Arc;
use std::time::Duration;

use greenwave_cache::{
    AccessMode, MemcachedBackend, ObjectBackend, RedisBackend, RemoteOptions, Tier, WriteMode,
};

use super::{ResultStoreError, scheme};
use crate::result_keys::ResultKeys;
use crate::settings::TestingSettings;

/// Maximum number of queued writes to the server.
const QUEUED_MAX: usize = 1024;
/// Maximum duration of a request to an object store, with its retries.
const OBJECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Scheme of a directory that machines share.
const DIRECTORY: &str = "file";
/// Schemes of object stores.
const OBJECT_STORES: [&str; 4] = [DIRECTORY, "s3", "gs", "az"];

/// Returns the tier on the server that the settings name.
pub(super) fn tier(settings: &TestingSettings, keys: &ResultKeys) -> Result<Option<Tier>, ResultStoreError> {
    let address = settings.remote.as_str();
    if address.is_empty() {
        return Ok(None);
    }
    let scheme = scheme(address);
    let failed = |error: greenwave_cache::Error| ResultStoreError::Remote {
        scheme: scheme.clone(),
        source: error.into(),
    };
    let options = RemoteOptions {
        prefix: "greenwave-tests:".to_owned(),
        ttl: Some(settings.ttl),
        ..RemoteOptions::default()
    };
    let tier = if let Some(server) = address.strip_prefix("memcached://") {
        let backend = MemcachedBackend::new(server.trim_end_matches('/'), options).map_err(failed)?;
        Tier::new("memcached", Arc::new(backend))
    } else if let Some(name) = OBJECT_STORES.into_iter().find(|name| *name == scheme) {
        if name != DIRECTORY && cfg!(not(feature = "remote-objects")) {
            return Err(ResultStoreError::NoRemote { scheme, feature: "remote-objects" });
        }
        let options = RemoteOptions { timeout: OBJECT_TIMEOUT, ..options };
        let backend = ObjectBackend::open(address, keys.object_store.iter(), &options).map_err(failed)?;
        Tier::new(name, Arc::new(backend))
    } else if scheme == "grpc" || scheme == "grpcs" {
        Tier::new("remote execution", reapi::backend(address, keys)?)
    } else {
        Tier::new("redis", Arc::new(RedisBackend::new(address, options).map_err(failed)?))
    };
    let access = if settings.remote_write { AccessMode::ReadWrite } else { AccessMode::ReadOnly };
    Ok(Some(Tier { access, writes: WriteMode::Back { queued_max: QUEUED_MAX }, ..tier }))
}
