//! The tier of a store of test results on a Redis or memcached server.

use std::sync::Arc;

use greenwave_cache::{AccessMode, MemcachedBackend, RedisBackend, RemoteOptions, Tier, WriteMode};

use super::{ResultStoreError, scheme};
use crate::settings::TestingSettings;

/// Maximum number of queued writes to the server.
const QUEUED_MAX: usize = 1024;

/// Returns the tier on the server that the settings name.
pub(super) fn tier(settings: &TestingSettings) -> Result<Option<Tier>, ResultStoreError> {
    let address = settings.remote.as_str();
    if address.is_empty() {
        return Ok(None);
    }
    let failed = |error: greenwave_cache::Error| ResultStoreError::Remote {
        scheme: scheme(address),
        source: error.into(),
    };
    let options = RemoteOptions {
        prefix: "greenwave-tests:".to_owned(),
        ttl: Some(settings.ttl),
        ..RemoteOptions::default()
    };
    let tier = match address.strip_prefix("memcached://") {
        Some(server) => {
            let backend = MemcachedBackend::new(server.trim_end_matches('/'), options).map_err(failed)?;
            Tier::new("memcached", Arc::new(backend))
        }
        None => Tier::new("redis", Arc::new(RedisBackend::new(address, options).map_err(failed)?)),
    };
    let access = if settings.remote_write { AccessMode::ReadWrite } else { AccessMode::ReadOnly };
    Ok(Some(Tier { access, writes: WriteMode::Back { queued_max: QUEUED_MAX }, ..tier }))
}
