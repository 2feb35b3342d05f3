//! Results on a memcached server.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_memcached::{AsciiProtocol, Client, Error as ClientError, ErrorKind, Status};
use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;

use super::remote::{Failure, Guard, RemoteOptions};
use super::{Backend, Capabilities};
use crate::{BoxError, Error, Key};

/// What memcached takes by default is 1 MiB, its own header and the key included.
const VALUE_BYTES_MAX: u64 = (1 << 20) - 1024;
/// Connections that are kept for the next callers.
const IDLE_MAX: usize = 8;
/// A longer time would be read as a date.
const TTL_MAX: Duration = Duration::from_secs(30 * 24 * 3600);
/// Keys in one request.
const KEYS_MAX: usize = 256;

/// Keeps results on a memcached server, over a few connections. It connects when it is called.
///
/// Lives are counted in whole seconds, rounded up, and 30 days at most. It does not list its keys, and takes nothing larger than 1 MiB.
/// A server that cannot be reached or does not answer costs one [time limit](RemoteOptions::timeout), and then nothing for a while.
#[derive(Clone)]
pub struct MemcachedBackend {
    link: Arc<Link>,
}

struct Link {
    address: String,
    idle: Mutex<Vec<Client>>,
    guard: Guard,
    options: RemoteOptions,
}

impl MemcachedBackend {
    /// Uses the server at an address, as in `localhost:11211` or `unix:///run/memcached.sock`. Does not connect yet.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidOption`].
    pub fn new(address: &str, options: RemoteOptions) -> Result<Self, Error> {
        options.check()?;
        let address = if address.contains("://") { address.to_owned() } else { format!("tcp://{address}") };
        let guard = Guard::new(format!("memcached server {address}"), &options);
        Ok(Self { link: Arc::new(Link { address, idle: Mutex::default(), guard, options }) })
    }

    /// Does the work on a connection of its own for the time.
    async fn ask<T>(
        &self,
        operation: &'static str,
        work: impl AsyncFnOnce(&mut Client) -> Result<T, ClientError>,
    ) -> Result<T, BoxError> {
        let link = &self.link;
        let work = async {
            let idle = link.idle.lock().pop();
            let mut client = match idle {
                Some(client) => client,
                None => Client::new(&link.address).await.map_err(failure)?,
            };
            let result = work(&mut client).await;
            // One that broke off in the middle closed itself.
            if !client.is_closed() && link.idle.lock().len() < IDLE_MAX {
                link.idle.lock().push(client);
            }
            result.map_err(failure)
        };
        let result = link.guard.call(operation, work).await;
        if result.is_err() {
            // What went wrong with one connection has most likely happened to all.
            link.idle.lock().clear();
        }
        result
    }

    /// Refuses what the server would cut off.
    async fn refuse(&self, key: &Key, bytes: usize) -> Result<(), BoxError> {
        self.remove(key).await?;
        Err(format!("{bytes} bytes are more than {VALUE_BYTES_MAX}").into())
    }
}

fn failure(error: ClientError) -> Failure {
    let said =
        matches!(&error, ClientError::Protocol(Status::Error(ErrorKind::Client(_) | ErrorKind::Server(_))));
    if said { Failure::Refused(error.into()) } else { Failure::Lost(error.into()) }
}

/// What the server counts in.
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
        let mut found: HashMap<Vec<u8>, Bytes> = HashMap::new();
        for names in names.chunks(KEYS_MAX) {
            let get = async |client: &mut Client| match client.get_multi(names).await {
                Err(ClientError::Protocol(Status::NotFound)) => Ok(Vec::new()),
                other => other,
            };
            let values = self.ask("get", get).await?;
            found.extend(values.into_iter().filter_map(|value| Some((value.key, value.data?.into()))));
        }
        // By name and not by order: those that are missing are left out, and a name may be asked for twice.
        Ok(names.iter().map(|name| found.get(name.as_bytes()).cloned()).collect())
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
        self.ask("put", async |client| client.set(&name, &value[..], ttl, None).await).await
    }

    async fn remove(&self, key: &Key) -> Result<(), BoxError> {
        let name = self.link.options.key(key);
        let delete = async |client: &mut Client| match client.delete(&name).await {
            Err(ClientError::Protocol(Status::NotFound)) => Ok(()),
            other => other,
        };
        self.ask("remove", delete).await
    }

    async fn list(&self) -> Result<Vec<Key>, BoxError> {
        Err("memcached does not list its keys".into())
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
        let Link { address, guard, .. } = &*self.link;
        f.debug_struct("MemcachedBackend")
            .field("address", address)
            .field("guard", guard)
            .finish_non_exhaustive()
    }
}
