//! A backend on a memcached server.

mod connection;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;

use self::connection::{CommandError, Connection};
use super::remote::{CallFailure, CircuitBreaker, KEYS_MAX, ReadBudget, RemoteOptions};
use super::{Backend, Capabilities};
use crate::{BoxError, Error, Key};

/// Default maximum of memcached, 1 MiB, less room for its header and the key.
const VALUE_BYTES_MAX: u64 = (1 << 20) - 1024;
/// Maximum number of idle connections.
const IDLE_MAX: usize = 8;
/// Longest time to live. The server would read a larger number as a date.
const TTL_MAX: Duration = Duration::from_secs(30 * 24 * 3600);

/// Stores results on a memcached server, over a few connections that are opened on demand.
///
/// Times to live are rounded up to whole seconds, and limited to 30 days. The backend cannot list
/// its keys, and values are limited to 1 MiB. An unreachable server costs one
/// [timeout](RemoteOptions::timeout), after which calls fail immediately for some time.
#[derive(Clone)]
pub struct MemcachedBackend {
    link: Arc<MemcachedLink>,
}

struct MemcachedLink {
    address: String,
    idle: Mutex<Vec<Connection>>,
    breaker: CircuitBreaker,
    options: RemoteOptions,
}

impl MemcachedBackend {
    /// Creates a backend for the server at an address such as `localhost:11211` or
    /// `unix:///run/memcached.sock`. Does not connect yet.
    ///
    /// # Errors
    ///
    /// Returns [`Error::InvalidOption`] if an option is out of range.
    pub fn new(address: &str, options: RemoteOptions) -> Result<Self, Error> {
        options.check()?;
        let address = address.strip_prefix("tcp://").unwrap_or(address).to_owned();
        let breaker = CircuitBreaker::new(format!("memcached server {address}"), &options);
        Ok(Self { link: Arc::new(MemcachedLink { address, idle: Mutex::default(), breaker, options }) })
    }

    /// Runs `work` on a connection that no other call uses meanwhile.
    async fn request<T>(
        &self,
        operation: &'static str,
        work: impl AsyncFnOnce(&mut Connection) -> Result<T, CommandError>,
    ) -> Result<T, BoxError> {
        let link = &self.link;
        let work = async {
            let idle = link.idle.lock().pop();
            let mut connection = match idle {
                Some(connection) => connection,
                None => Connection::open(&link.address).await.map_err(failure)?,
            };
            let result = work(&mut connection).await.map_err(failure)?;
            // After a failure or a cancelled call, the rest of an answer may still arrive.
            let mut idle = link.idle.lock();
            if idle.len() < IDLE_MAX {
                idle.push(connection);
            }
            Ok(result)
        };
        let result = link.breaker.call(operation, work).await;
        if result.is_err() {
            // The problem of one connection most likely affects all of them.
            link.idle.lock().clear();
        }
        result
    }

    /// Rejects a value that the server would truncate, and removes the old value.
    async fn refuse(&self, key: &Key, bytes: usize) -> Result<(), BoxError> {
        self.remove(key).await?;
        Err(format!("value of {bytes} bytes exceeds the limit of {VALUE_BYTES_MAX}").into())
    }
}

fn failure(error: CommandError) -> CallFailure {
    match error {
        CommandError::Refused(_) => CallFailure::Rejected(error.into()),
        error => CallFailure::Disconnected(error.into()),
    }
}

/// Converts to the whole seconds that the server expects, rounded up.
fn seconds(ttl: Duration) -> i64 {
    let ttl = ttl.min(TTL_MAX);
    i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX) + i64::from(ttl.subsec_nanos() > 0)
}

#[async_trait]
impl Backend for MemcachedBackend {
    async fn get(&self, key: &Key) -> Result<Option<Bytes>, BoxError> {
        Ok(self.get_many(std::slice::from_ref(key)).await?.pop().flatten())
    }

    async fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Bytes>>, BoxError> {
        let names: Vec<String> = keys.iter().map(|key| self.link.options.key(key)).collect();
        let mut found: HashMap<String, Bytes> = HashMap::new();
        let mut budget = ReadBudget::new(&self.link.options);
        let limits = (VALUE_BYTES_MAX, self.link.options.answer_bytes_max);
        for names in names.chunks(KEYS_MAX) {
            if budget.is_exhausted() {
                break;
            }
            let values = self.request("get", async |server| server.get(names, limits).await).await?;
            budget.spend(values.iter().map(|(_, value)| value));
            found.extend(values);
        }
        // Matched by name: the server omits missing keys, and a key may be requested twice.
        Ok(names.iter().map(|name| found.get(name).cloned()).collect())
    }

    async fn put(&self, key: &Key, value: Bytes, ttl: Option<Duration>) -> Result<(), BoxError> {
        if value.len() as u64 > VALUE_BYTES_MAX {
            return self.refuse(key, value.len()).await;
        }
        let ttl = ttl.or(self.link.options.ttl);
        if ttl.is_some_and(|ttl| ttl.is_zero()) {
            return self.remove(key).await;
        }
        let (name, ttl) = (self.link.options.key(key), ttl.map(seconds));
        self.request("put", async |server| server.set(&name, &value, ttl).await).await
    }

    async fn remove(&self, key: &Key) -> Result<(), BoxError> {
        let name = self.link.options.key(key);
        self.request("remove", async |server| server.delete(&name).await).await
    }

    async fn list(&self) -> Result<Vec<Key>, BoxError> {
        Err("memcached cannot list keys".into())
    }

    async fn flush(&self) -> Result<(), BoxError> {
        Ok(())
    }

    async fn close(&self) -> Result<(), BoxError> {
        self.link.idle.lock().clear();
        Ok(())
    }

    fn capabilities(&self) -> Capabilities {
        let value_bytes_max = Some(VALUE_BYTES_MAX);
        Capabilities { list: false, ttl: true, shared: true, durable: false, value_bytes_max }
    }
}

impl fmt::Debug for MemcachedBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let MemcachedLink { address, breaker, .. } = &*self.link;
        f.debug_struct("MemcachedBackend")
            .field("address", address)
            .field("breaker", breaker)
            .finish_non_exhaustive()
    }
}
