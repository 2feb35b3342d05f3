//! The tier of a store of test results that machines share: a Redis or memcached server, a server
//! of the Remote Execution API, or an object store.

#[cfg_attr(not(feature = "remote-reapi"), path = "remote/no_reapi.rs")]
mod reapi;

use std::sync::Arc;
use std::time::Duration;

use greenwave_cache::{
    AccessMode, MemcachedBackend, ObjectBackend, RedisBackend, RemoteOptions, Scope, Tier, WriteMode,
};

use super::{ResultStoreError, scheme};
use crate::result_keys::{ResultKeys, SigningSeed};
use crate::settings::{RemoteScope, TestingSettings};

/// Maximum number of queued writes to the server.
const QUEUED_MAX: usize = 1024;
/// Maximum duration of a request to an object store, with its retries.
const OBJECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Scheme of a directory that machines share.
const DIRECTORY: &str = "file";
/// Schemes of object stores.
const OBJECT_STORES: [&str; 4] = [DIRECTORY, "s3", "gs", "az"];

/// Returns the tiers on the server that the settings name: for a branch, its own results come
/// before those of the main branch, which it does not write.
pub(super) fn tiers(settings: &TestingSettings, keys: &ResultKeys) -> Result<Vec<Tier>, ResultStoreError> {
    let Some(tier) = tier(settings, keys)? else { return Ok(Vec::new()) };
    let main = Tier {
        secrets: keys.remote_secrets(),
        signing_key: keys.signing.as_ref().and_then(SigningSeed::key),
        trusted: settings.trust.clone(),
        ..tier
    };
    let RemoteScope::Branch(branch) = &settings.remote_scope else { return Ok(vec![main]) };
    let name = format!("{} (branch)", main.name);
    let own = Tier { name, scope: Some(Scope::new(branch)), ..main.clone() };
    Ok(vec![own, Tier { access: AccessMode::ReadOnly, ..main }])
}

/// Returns the tier on the server that the settings name.
fn tier(settings: &TestingSettings, keys: &ResultKeys) -> Result<Option<Tier>, ResultStoreError> {
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
