//! Results on a Redis server, or what speaks its protocol, and leases there.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, Cmd, ErrorKind, FromRedisValue, RedisError};
use tokio::sync::Mutex;

use super::remote::{Failure, Guard, RemoteOptions};
use super::{Backend, Capabilities};
use crate::lease::{Lease, Leases};
use crate::{BoxError, Error, Key};

/// What Redis takes by default, in bytes.
const VALUE_BYTES_MAX: u64 = 512 << 20;
/// Keys that one step of a listing looks at.
const SCAN_COUNT: usize = 1000;
/// How long to wait before asking for a lease again; doubled each time up to the maximum.
const POLL_MIN: Duration = Duration::from_millis(5);
const POLL_MAX: Duration = Duration::from_millis(250);
/// Times that a lease is renewed within its own time: one that fails is no loss yet.
const RENEWALS: u32 = 3;

/// Gives a lease back only if it is still ours.
const RELEASE: &str =
    "if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('del', KEYS[1]) else return 0 end";
const RENEW: &str = "if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('pexpire', KEYS[1], ARGV[2]) else return 0 end";

/// Keeps results on a Redis server, over one connection for all callers, their calls pipelined. It connects when it is first called, and
/// again when that is needed.
///
/// A server that cannot be reached or does not answer costs one [time limit](RemoteOptions::timeout); after that, calls fail at once with
/// [`Error::Unavailable`] until it is worth a try. Not durable: when a server writes to disk is its own business.
#[derive(Debug, Clone)]
pub struct RedisBackend {
    link: Arc<Link>,
}

#[derive(Debug)]
struct Link {
    client: Client,
    connection: Mutex<Option<MultiplexedConnection>>,
    guard: Guard,
    options: RemoteOptions,
}

impl RedisBackend {
    /// Uses the server at a URL, as in `redis://localhost:6379/0`. Does not connect yet.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidOption`], [`Error::Backend`] if the URL is none.
    pub fn new(url: &str, options: RemoteOptions) -> Result<Self, Error> {
        options.check()?;
        // Without the URL, which may hold a password.
        let client =
            Client::open(url).map_err(|e| Error::backend("read the URL of a Redis server")(e.into()))?;
        let server = client.get_connection_info().addr().to_string();
        let guard = Guard::new(format!("Redis server {server}"), &options);
        Ok(Self { link: Arc::new(Link { client, connection: Mutex::new(None), guard, options }) })
    }

    /// Leases on this server that are free at the latest this long after their holder died.
    pub fn leases(&self, ttl: Duration) -> RedisLeases {
        RedisLeases { link: self.link.clone(), ttl: ttl.max(Duration::from_millis(u64::from(RENEWALS))) }
    }
}

impl Link {
    /// Asks, and understands the answer.
    async fn ask<T: FromRedisValue>(&self, operation: &'static str, command: &Cmd) -> Result<T, BoxError> {
        let work = async {
            let mut connection = self.connection().await?;
            command.query_async(&mut connection).await
        };
        let result = self.guard.call(operation, async { work.await.map_err(failure) }).await;
        if result.as_ref().is_err_and(|error| !is_refusal(error.as_ref())) {
            // A connection that is lost, or whose next answer may be to this question, is of no use to the next caller.
            self.connection.lock().await.take();
        }
        result
    }

    async fn connection(&self) -> Result<MultiplexedConnection, RedisError> {
        let mut connection = self.connection.lock().await;
        if let Some(connection) = &*connection {
            return Ok(connection.clone());
        }
        // Time is the guard's business.
        let config = AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
        let fresh = self.client.get_multiplexed_async_connection_with_config(&config).await?;
        Ok(connection.insert(fresh).clone())
    }

    fn command(&self, name: &str, key: &Key) -> Cmd {
        let mut command = redis::cmd(name);
        command.arg(self.options.key(key));
        command
    }
}

fn failure(error: RedisError) -> Failure {
    if is_answer(&error) { Failure::Refused(error.into()) } else { Failure::Lost(error.into()) }
}

/// Whether the server itself said so.
fn is_answer(error: &RedisError) -> bool {
    matches!(error.kind(), ErrorKind::Server(_) | ErrorKind::Extension)
}

fn is_refusal(error: &(dyn std::error::Error + 'static)) -> bool {
    let answer = |error: &(dyn std::error::Error + 'static)| error.downcast_ref().is_some_and(is_answer);
    error.source().is_some_and(answer)
}

#[async_trait]
impl Backend for RedisBackend {
    async fn get(&self, key: &Key) -> Result<Option<Bytes>, BoxError> {
        self.link.ask("get", &self.link.command("GET", key)).await
    }

    async fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Bytes>>, BoxError> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let mut command = redis::cmd("MGET");
        keys.iter().for_each(|key| _ = command.arg(self.link.options.key(key)));
        let values: Vec<Option<Bytes>> = self.link.ask("get many", &command).await?;
        if values.len() != keys.len() {
            return Err(format!("{} values came for {} keys", values.len(), keys.len()).into());
        }
        Ok(values)
    }

    async fn put(&self, key: &Key, value: Bytes, ttl: Option<Duration>) -> Result<(), BoxError> {
        let ttl = ttl.or(self.link.options.ttl);
        if ttl.is_some_and(|ttl| ttl.is_zero()) {
            return self.remove(key).await;
        }
        let mut command = self.link.command("SET", key);
        command.arg(&value[..]);
        if let Some(ttl) = ttl {
            command.arg("PX").arg(millis(ttl));
        }
        self.link.ask("put", &command).await
    }

    async fn remove(&self, key: &Key) -> Result<(), BoxError> {
        self.link.ask("remove", &self.link.command("DEL", key)).await
    }

    async fn list(&self) -> Result<Vec<Key>, BoxError> {
        let prefix = &self.link.options.prefix;
        // Characters that mean something in a pattern stand for themselves.
        let pattern: String = prefix.chars().flat_map(|c| ['\\', c]).chain(['*']).collect();
        // A key may be seen twice while the server moves its table.
        let mut keys = std::collections::BTreeSet::new();
        let mut cursor = 0_u64;
        loop {
            let mut command = redis::cmd("SCAN");
            command.arg(cursor).arg("MATCH").arg(&pattern).arg("COUNT").arg(SCAN_COUNT);
            let (next, found): (u64, Vec<String>) = self.link.ask("list", &command).await?;
            keys.extend(
                found.iter().filter_map(|key| key.strip_prefix(prefix.as_str())?.parse::<Key>().ok()),
            );
            cursor = next;
            if cursor == 0 {
                return Ok(keys.into_iter().collect());
            }
        }
    }

    async fn flush(&self) -> Result<(), BoxError> {
        Ok(())
    }

    async fn close(&self) -> Result<(), BoxError> {
        Ok(())
    }

    fn capabilities(&self) -> Capabilities {
        let value_bytes_max = Some(VALUE_BYTES_MAX);
        Capabilities { list: true, ttl: true, shared: true, durable: false, value_bytes_max }
    }
}

/// Leases for processes of any machine, as keys on a Redis server: `SET NX PX`, renewed while held, deleted only by who set it. One
/// server, no quorum: if it forgets, two processes may compute the same result, which costs time and nothing else.
///
/// The lease of a process that ended is free when its time is over.
#[derive(Debug, Clone)]
pub struct RedisLeases {
    link: Arc<Link>,
    ttl: Duration,
}

#[async_trait]
impl Leases for RedisLeases {
    async fn acquire(&self, key: &Key) -> Result<Lease, BoxError> {
        // Made first: if this future is dropped while the server answers, what it may hold is given back.
        let claim = Claim::new(self, key);
        let mut pause = POLL_MIN;
        while !claim.try_take().await? {
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(POLL_MAX);
        }
        Ok(Lease::new(claim.keep_alive()))
    }
}

/// A key on the server with a value that nobody else writes.
#[derive(Debug)]
struct Claim {
    link: Arc<Link>,
    name: String,
    token: String,
    ttl: Duration,
}

impl Claim {
    fn new(leases: &RedisLeases, key: &Key) -> Self {
        let name = format!("{}:lease", leases.link.options.key(key));
        // Two seeds from the system's source of randomness.
        let half = || RandomState::new().hash_one(&name);
        let token = format!("{:016x}{:016x}", half(), half());
        Self { link: leases.link.clone(), token, ttl: leases.ttl, name }
    }

    async fn try_take(&self) -> Result<bool, BoxError> {
        let mut command = redis::cmd("SET");
        command.arg(&self.name).arg(&self.token).arg("NX").arg("PX").arg(millis(self.ttl));
        let taken: Option<String> = self.link.ask("take a lease", &command).await?;
        Ok(taken.is_some())
    }

    fn script(&self, script: &str) -> Cmd {
        let mut command = redis::cmd("EVAL");
        command.arg(script).arg(1).arg(&self.name).arg(&self.token);
        command
    }

    /// Renews it until it is dropped.
    fn keep_alive(self) -> Kept {
        let claim = Arc::new(self);
        let kept = claim.clone();
        let renewing = tokio::spawn(async move {
            loop {
                tokio::time::sleep(kept.ttl / RENEWALS).await;
                let mut command = kept.script(RENEW);
                let renewed = kept.link.ask::<i64>("renew a lease", command.arg(millis(kept.ttl))).await;
                if let Err(error) = renewed {
                    tracing::warn!(%error, "a lease was not renewed: another process may compute the same");
                }
            }
        });
        Kept { renewing, _claim: claim }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        // Without a runtime nobody can be told. It is free when its time is over.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let (link, command) = (self.link.clone(), self.script(RELEASE));
        runtime.spawn(async move {
            let released = link.ask::<i64>("give a lease back", &command).await;
            released.inspect_err(|error| tracing::debug!(%error, "a lease will end by itself"))
        });
    }
}

/// A claim, and the task that renews it.
struct Kept {
    renewing: tokio::task::JoinHandle<()>,
    _claim: Arc<Claim>,
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.renewing.abort();
    }
}

/// At least one: zero is an error to the server. So is an end beyond 64 bits, signed, of milliseconds
/// since 1970, which is why nothing lives longer than 8900 years.
fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX).clamp(1, 1 << 48)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_life_of_any_length_is_one_that_the_server_takes() {
        assert_eq!(millis(Duration::ZERO), 1);
        assert_eq!(millis(Duration::from_nanos(1)), 1);
        assert_eq!(millis(Duration::from_secs(7)), 7000);
        assert_eq!(millis(Duration::MAX), 1 << 48);
        assert_eq!(millis(Duration::from_millis(u64::MAX)), 1 << 48);
    }
}
