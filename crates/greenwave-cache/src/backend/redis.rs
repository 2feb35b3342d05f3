//! A backend and leases on a Redis server, or one that speaks its protocol.

mod connection;
mod messages;

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use greenwave_retry::Retry;
use redis::{Client, Cmd, ErrorKind, FromRedisValue, RedisError};
use tokio::sync::Mutex;

use self::connection::Connection;
use super::remote::{CallFailure, CircuitBreaker, KEYS_MAX, ReadBudget, RemoteOptions};
use super::{Backend, Capabilities};
use crate::lease::{Lease, Leases};
use crate::{BoxError, Error, Key};

/// Maximum size of a value that Redis accepts by default, in bytes.
const VALUE_BYTES_MAX: u64 = 512 << 20;
/// Number of keys that one step of a listing scans.
const SCAN_COUNT: usize = 1000;
/// Bounds of the interval between attempts to acquire a lease, which doubles after each attempt.
const POLL_MIN: Duration = Duration::from_millis(5);
const POLL_MAX: Duration = Duration::from_millis(250);
/// Number of renewals within the time to live of a lease, so that one of them may fail.
const RENEWALS: u32 = 3;

/// Deletes or extends a lease only if it still has this holder's token.
const RELEASE: &str =
    "if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('del', KEYS[1]) else return 0 end";
const RENEW: &str = "if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('pexpire', KEYS[1], ARGV[2]) else return 0 end";

/// Stores results on a Redis server, over one connection on which the calls of all callers are
/// pipelined. The connection is opened on first use, and reopened when necessary.
///
/// An unreachable server costs one [timeout](RemoteOptions::timeout). After that, calls fail
/// immediately with [`Error::Unavailable`] until the next attempt is due. The backend is not
/// durable, because the server decides when it writes to disk.
#[derive(Debug, Clone)]
pub struct RedisBackend {
    link: Arc<RedisLink>,
}

#[derive(Debug)]
struct RedisLink {
    client: Client,
    connection: Mutex<Option<Connection>>,
    breaker: CircuitBreaker,
    options: RemoteOptions,
}

impl RedisBackend {
    /// Creates a backend for the server at a URL such as `redis://localhost:6379/0`. Does not
    /// connect yet.
    ///
    /// # Errors
    ///
    /// Returns [`Error::InvalidOption`] if an option is out of range, and [`Error::Backend`] if the
    /// URL is invalid.
    pub fn new(url: &str, options: RemoteOptions) -> Result<Self, Error> {
        options.check()?;
        // The message omits the URL, which may contain a password.
        let client =
            Client::open(url).map_err(|e| Error::backend("parse the URL of the Redis server")(e.into()))?;
        let server = client.get_connection_info().addr().to_string();
        let breaker = CircuitBreaker::new(format!("Redis server {server}"), &options);
        Ok(Self { link: Arc::new(RedisLink { client, connection: Mutex::new(None), breaker, options }) })
    }

    /// Returns leases on this server. A lease whose holder died expires after at most `ttl`.
    pub fn leases(&self, ttl: Duration) -> RedisLeases {
        RedisLeases { link: self.link.clone(), ttl: ttl.max(Duration::from_millis(u64::from(RENEWALS))) }
    }
}

impl RedisLink {
    /// Sends a command and converts the response.
    async fn request<T: FromRedisValue>(
        &self,
        operation: &'static str,
        command: &Cmd,
    ) -> Result<T, BoxError> {
        let work = async {
            let mut connection = self.connection().await?;
            command.query_async(&mut connection.commands).await
        };
        let result = self.breaker.call(operation, async { work.await.map_err(failure) }).await;
        if result.as_ref().is_err_and(|error| !is_refusal(error.as_ref())) {
            // Drops a connection that is broken, or that may still deliver the response to this
            // request.
            self.connection.lock().await.take();
        }
        result
    }

    async fn connection(&self) -> Result<Connection, RedisError> {
        let mut connection = self.connection.lock().await;
        if let Some(connection) = &*connection {
            return Ok(connection.clone());
        }
        let fresh =
            Connection::open(self.client.get_connection_info(), self.options.answer_bytes_max).await?;
        Ok(connection.insert(fresh).clone())
    }

    fn value_bytes_max(&self) -> u64 {
        VALUE_BYTES_MAX.min(self.options.answer_bytes_max)
    }

    fn command(&self, name: &str, key: &Key) -> Cmd {
        let mut command = redis::cmd(name);
        command.arg(self.options.key(key));
        command
    }
}

fn failure(error: RedisError) -> CallFailure {
    if is_answer(&error) {
        CallFailure::Rejected(error.into())
    } else {
        CallFailure::Disconnected(error.into())
    }
}

/// Whether the error is a response of the server.
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
        self.link.request("get", &self.link.command("GET", key)).await
    }

    async fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Bytes>>, BoxError> {
        let mut values: Vec<Option<Bytes>> = Vec::with_capacity(keys.len());
        let mut budget = ReadBudget::new(&self.link.options);
        for keys in keys.chunks(KEYS_MAX) {
            if budget.is_exhausted() {
                break;
            }
            let mut command = redis::cmd("MGET");
            keys.iter().for_each(|key| _ = command.arg(self.link.options.key(key)));
            let found: Vec<Option<Bytes>> = self.link.request("get many", &command).await?;
            if found.len() != keys.len() {
                return Err(format!("server returned {} values for {} keys", found.len(), keys.len()).into());
            }
            budget.spend(found.iter().flatten());
            values.extend(found);
        }
        values.resize(keys.len(), None);
        Ok(values)
    }

    async fn put(&self, key: &Key, value: Bytes, ttl: Option<Duration>) -> Result<(), BoxError> {
        let max = self.link.value_bytes_max();
        if value.len() as u64 > max {
            self.remove(key).await?;
            return Err(format!("value of {} bytes exceeds the limit of {max}", value.len()).into());
        }
        let ttl = ttl.or(self.link.options.ttl);
        if ttl.is_some_and(|ttl| ttl.is_zero()) {
            return self.remove(key).await;
        }
        let mut command = self.link.command("SET", key);
        command.arg(&value[..]);
        if let Some(ttl) = ttl {
            command.arg("PX").arg(millis(ttl));
        }
        self.link.request("put", &command).await
    }

    async fn remove(&self, key: &Key) -> Result<(), BoxError> {
        self.link.request("remove", &self.link.command("DEL", key)).await
    }

    async fn list(&self) -> Result<Vec<Key>, BoxError> {
        let prefix = &self.link.options.prefix;
        // Escaped, because the prefix may contain pattern characters.
        let pattern: String = prefix.chars().flat_map(|c| ['\\', c]).chain(['*']).collect();
        // A set, because the server may return a key twice while it resizes its table.
        let mut keys = std::collections::BTreeSet::new();
        let mut cursor = 0_u64;
        loop {
            let mut command = redis::cmd("SCAN");
            command.arg(cursor).arg("MATCH").arg(&pattern).arg("COUNT").arg(SCAN_COUNT);
            let (next, found): (u64, Vec<String>) = self.link.request("list", &command).await?;
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
        let value_bytes_max = Some(self.link.value_bytes_max());
        Capabilities { list: true, ttl: true, shared: true, durable: false, value_bytes_max }
    }
}

/// Leases for processes on any machine, as keys on a Redis server: `SET NX PX`, renewed while held,
/// and deleted only by their holder.
///
/// It uses one server and no quorum. If the server loses a lease, two processes may compute the
/// same result, which only costs time. The lease of a process that ended expires at the end of its
/// time to live.
#[derive(Debug, Clone)]
pub struct RedisLeases {
    link: Arc<RedisLink>,
    ttl: Duration,
}

#[async_trait]
impl Leases for RedisLeases {
    async fn acquire(&self, key: &Key) -> Result<Lease, BoxError> {
        // Created before the request: if this future is dropped during the request, the drop of the
        // claim releases the lease.
        let claim = LeaseClaim::new(self, key);
        let mut delays = poll_delays();
        while !claim.try_acquire().await? {
            tokio::time::sleep(delays.next().unwrap_or(POLL_MAX)).await;
        }
        Ok(Lease::new(claim.renew_until_dropped()))
    }
}

/// Returns the intervals between attempts to acquire a lease, without end. They are random, so that
/// processes that wait for one lease do not ask in step.
fn poll_delays() -> impl Iterator<Item = Duration> {
    let retry =
        Retry { attempts_max: usize::MAX, delay_min: POLL_MIN, delay_max: POLL_MAX, ..Retry::default() };
    // A random delay may be zero.
    retry.delays().map(|delay| delay.max(POLL_MIN / 2))
}

/// A key on the server with a random token as its value.
#[derive(Debug)]
struct LeaseClaim {
    link: Arc<RedisLink>,
    name: String,
    token: String,
    ttl: Duration,
}

impl LeaseClaim {
    fn new(leases: &RedisLeases, key: &Key) -> Self {
        let name = format!("{}:lease", leases.link.options.key(key));
        // Each hasher has a random seed from the system.
        let half = || RandomState::new().hash_one(&name);
        let token = format!("{:016x}{:016x}", half(), half());
        Self { link: leases.link.clone(), token, ttl: leases.ttl, name }
    }

    async fn try_acquire(&self) -> Result<bool, BoxError> {
        let mut command = redis::cmd("SET");
        command.arg(&self.name).arg(&self.token).arg("NX").arg("PX").arg(millis(self.ttl));
        let taken: Option<String> = self.link.request("acquire a lease", &command).await?;
        Ok(taken.is_some())
    }

    fn script(&self, script: &str) -> Cmd {
        let mut command = redis::cmd("EVAL");
        command.arg(script).arg(1).arg(&self.name).arg(&self.token);
        command
    }

    /// Renews the lease until the result is dropped.
    fn renew_until_dropped(self) -> RenewedClaim {
        let claim = Arc::new(self);
        let renewed_claim = claim.clone();
        let renewing = tokio::spawn(async move {
            loop {
                tokio::time::sleep(renewed_claim.ttl / RENEWALS).await;
                let mut command = renewed_claim.script(RENEW);
                let renewed = renewed_claim
                    .link
                    .request::<i64>("renew a lease", command.arg(millis(renewed_claim.ttl)))
                    .await;
                if let Err(error) = renewed {
                    tracing::warn!(%error, "cannot renew lease: another process may compute the same result");
                }
            }
        });
        RenewedClaim { renewing, _claim: claim }
    }
}

impl Drop for LeaseClaim {
    fn drop(&mut self) {
        // Without a runtime the lease cannot be deleted. It expires at the end of its time to live.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let (link, command) = (self.link.clone(), self.script(RELEASE));
        runtime.spawn(async move {
            let released = link.request::<i64>("release a lease", &command).await;
            released.inspect_err(|error| tracing::debug!(%error, "cannot release lease: it will expire"))
        });
    }
}

/// A claim and the task that renews it.
struct RenewedClaim {
    renewing: tokio::task::JoinHandle<()>,
    _claim: Arc<LeaseClaim>,
}

impl Drop for RenewedClaim {
    fn drop(&mut self) {
        self.renewing.abort();
    }
}

/// Converts to milliseconds within the range that the server accepts. It rejects zero, and expiry
/// times beyond a signed 64-bit timestamp in milliseconds, hence the limit of 8900 years.
fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX).clamp(1, 1 << 48)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_duration_is_clamped_to_the_range_of_the_server() {
        assert_eq!(millis(Duration::ZERO), 1);
        assert_eq!(millis(Duration::from_nanos(1)), 1);
        assert_eq!(millis(Duration::from_secs(7)), 7000);
        assert_eq!(millis(Duration::MAX), 1 << 48);
        assert_eq!(millis(Duration::from_millis(u64::MAX)), 1 << 48);
    }
    #[test]
    fn waiting_processes_do_not_ask_for_a_lease_in_step() {
        let delays = || poll_delays().take(64).collect::<Vec<_>>();
        let (one, two) = (delays(), delays());
        assert_ne!(one, two);
        assert!(one.iter().all(|delay| (POLL_MIN / 2..=POLL_MAX).contains(delay)), "{one:?}");
        assert!(one[0] <= POLL_MIN && one[8..].iter().any(|delay| *delay > POLL_MAX / 4), "{one:?}");
    }
}
