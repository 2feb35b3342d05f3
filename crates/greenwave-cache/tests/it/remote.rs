//! Tests of the Redis and memcached backends, on real servers and on servers that die, hang or send
//! garbage.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use greenwave_cache::conformance::{self, BackendFixture};
use greenwave_cache::{
    Backend, Error, Key, KeyBuilder, Leases, MemcachedBackend, MemoryBackend, Persist, Record, RedisBackend,
    RemoteOptions, Tier, Tiered, TieredOptions,
};
use greenwave_testkit::server::{Server, fake_server};

use crate::servers::{impatient, patient};

fn key(number: u64) -> Key {
    KeyBuilder::new("remote", 1).number(number).finish()
}

fn record() -> Record {
    Record { schema: 1, created_ms: 0, cost: Duration::ZERO, tags: vec![], payload: "computed".into() }
}

/// Generates a test per promise of the contract. Tests are skipped with a note if the server is not
/// installed.
macro_rules! conformance_on {
    ($server:expr, $open:expr; $($promise:ident),*) => {
        $(#[test]
        fn $promise() {
            struct ServerFixture(Server);
            impl BackendFixture for ServerFixture {
                async fn open(&self) -> Arc<dyn Backend> {
                    $open(&self.0)
                }
            }
            let Some(server) = $server else { return };
            conformance::run(conformance::$promise(&ServerFixture(server)));
        })*
    };
    ($server:expr, $open:expr) => {
        conformance_on!($server, $open; get_returns_what_was_put, last_put_wins, remove_is_idempotent,
            get_many_preserves_order, values_are_arbitrary_bytes, list_returns_all_keys_if_supported, entries_expire_if_supported,
            flushed_entries_survive_reopening_if_durable, tasks_can_share_a_backend);
    };
}

mod redis_keeps_the_contract {
    use super::*;

    conformance_on!(Server::redis(), |server: &Server| Arc::new(redis(server, "conformance:")));
}

mod memcached_keeps_the_contract {
    use super::*;

    conformance_on!(Server::memcached(), |server: &Server| Arc::new(memcached(server, "conformance:")));
}

fn redis(server: &Server, prefix: &str) -> RedisBackend {
    RedisBackend::new(&server.redis_url(), patient(prefix)).unwrap()
}

fn memcached(server: &Server, prefix: &str) -> MemcachedBackend {
    MemcachedBackend::new(&server.address(), patient(prefix)).unwrap()
}

/// Runs a check with two backends on a server of each installed kind.
async fn with_two_backends(check: impl AsyncFn(Arc<dyn Backend>, Arc<dyn Backend>)) {
    if let Some(server) = Server::redis() {
        check(Arc::new(redis(&server, "a*[1]")), Arc::new(redis(&server, "b"))).await;
    }
    if let Some(server) = Server::memcached() {
        check(Arc::new(memcached(&server, "a*[1]")), Arc::new(memcached(&server, "b"))).await;
    }
}

#[tokio::test]
async fn prefixes_separate_the_users_of_a_server() {
    with_two_backends(async |one, two| {
        one.put(&key(1), "one".into(), None).await.unwrap();
        two.put(&key(1), "two".into(), None).await.unwrap();
        assert_eq!(one.get(&key(1)).await.unwrap().unwrap(), "one");
        two.remove(&key(1)).await.unwrap();
        if one.capabilities().list {
            assert_eq!((one.list().await.unwrap(), two.list().await.unwrap()), (vec![key(1)], vec![]));
        }
        assert_eq!(one.get_many(&[key(1), key(2)]).await.unwrap(), [Some("one".into()), None]);
    })
    .await;
}

#[tokio::test]
async fn many_keys_can_be_read_in_one_call() {
    with_two_backends(async |one, _| {
        let keys: Vec<Key> = (0..1000).map(key).collect();
        for (number, key) in keys.iter().enumerate().filter(|(number, _)| number % 3 == 0) {
            one.put(key, number.to_string().into(), None).await.unwrap();
        }
        let found = one.get_many(&keys).await.unwrap();
        for (number, found) in found.iter().enumerate() {
            let expected = (number % 3 == 0).then(|| Bytes::from(number.to_string()));
            assert_eq!(*found, expected);
        }
    })
    .await;
}

#[tokio::test]
async fn an_oversized_value_is_rejected_and_the_old_value_removed() {
    let Some(server) = Server::memcached() else { return };
    let backend = memcached(&server, "");
    let limit = backend.capabilities().value_bytes_max.unwrap();
    backend.put(&key(1), vec![1; limit as usize].into(), None).await.unwrap();
    assert_eq!(backend.get(&key(1)).await.unwrap().map(|value| value.len() as u64), Some(limit));
    assert!(backend.put(&key(1), vec![2; limit as usize + 1].into(), None).await.is_err());
    assert_eq!(backend.get(&key(1)).await.unwrap(), None);
    backend.put(&key(1), "small".into(), None).await.unwrap();
}

#[tokio::test]
async fn a_value_of_the_wrong_type_is_an_error_but_not_an_outage() {
    let Some(server) = Server::redis() else { return };
    let (backend, client) = (redis(&server, ""), ::redis::Client::open(server.redis_url()).unwrap());
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let mut push = ::redis::cmd("LPUSH");
    let pushed: i64 = push.arg(key(1).to_string()).arg("x").query_async(&mut connection).await.unwrap();
    assert_eq!(pushed, 1);
    for _ in 0..3 {
        let error = backend.get(&key(1)).await.unwrap_err();
        assert!(!is_unavailable(&error), "{error}");
    }
    assert_eq!(backend.get(&key(2)).await.unwrap(), None);
}

fn is_unavailable(error: &greenwave_cache::BoxError) -> bool {
    matches!(error.downcast_ref(), Some(Error::Unavailable { .. }))
}

/// Creates a memory tier in front of a failing server.
fn tiered(server: Arc<dyn Backend>) -> Tiered {
    let memory = Arc::new(MemoryBackend::new(100, 1 << 20).unwrap());
    let tiers = vec![Tier::new("memory", memory), Tier::new("server", server)];
    Tiered::new(tiers, TieredOptions::new(1))
}

/// Asserts that the failures of a server affect no caller and appear in the statistics.
async fn check_works_without(server: Arc<dyn Backend>) {
    let tiered = tiered(server);
    for number in 0..50 {
        assert_eq!(tiered.get(&key(number)).await, None);
        tiered.put(&key(number), &record()).await.unwrap();
        assert_eq!(tiered.get(&key(number)).await, Some(record()));
        tiered.remove(&key(number)).await;
    }
    let stats = &tiered.stats().tiers[1];
    assert!(stats.errors >= 1 && stats.skipped > 0, "{stats:?}");
}

#[tokio::test]
async fn an_unreachable_server_is_skipped() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let slow = || RemoteOptions { backoff_min: Duration::from_secs(30), ..patient("") };
    check_works_without(Arc::new(RedisBackend::new(&format!("redis://127.0.0.1:{port}"), slow()).unwrap()))
        .await;
    check_works_without(Arc::new(MemcachedBackend::new(&format!("127.0.0.1:{port}"), slow()).unwrap())).await;
}

#[tokio::test]
async fn a_hanging_server_is_skipped_after_one_timeout() {
    let port = fake_server(b"");
    let options = || RemoteOptions { backoff_min: Duration::from_secs(30), ..impatient() };
    check_works_without(Arc::new(
        RedisBackend::new(&format!("redis://127.0.0.1:{port}"), options()).unwrap(),
    ))
    .await;
    check_works_without(Arc::new(MemcachedBackend::new(&format!("127.0.0.1:{port}"), options()).unwrap()))
        .await;
}

#[tokio::test]
async fn garbage_is_never_a_value() {
    // Garbage; valid syntax of the wrong type; a value that is not a record; for memcached, a value
    // of another key.
    let answers: [&'static [u8]; 6] = [
        b"\0\xFF\xFEgarbage\r\n\r\n",
        b"+OK\r\n+OK\r\n+OK\r\n",
        b"$7\r\ngarbage\r\n$7\r\ngarbage\r\n",
        b"*2\r\n$1\r\na\r\n$1\r\nb\r\n",
        b"VALUE other 0 7\r\ngarbage\r\nEND\r\n",
        b"STORED\r\n",
    ];
    for answer in answers {
        let port = fake_server(answer);
        let redis = RedisBackend::new(&format!("redis://127.0.0.1:{port}"), impatient()).unwrap();
        let memcached = MemcachedBackend::new(&format!("127.0.0.1:{port}"), impatient()).unwrap();
        for server in [Arc::new(redis) as Arc<dyn Backend>, Arc::new(memcached)] {
            let tiered = Tiered::new(vec![Tier::new("server", server)], TieredOptions::new(1));
            for number in 0..10 {
                assert_eq!(tiered.get(&key(number)).await, None, "{answer:?}");
                tiered.put(&key(number), &record()).await.unwrap();
            }
        }
    }
}

#[tokio::test]
async fn a_killed_server_counts_as_errors() {
    let Some(mut server) = Server::redis() else { return };
    let options = RemoteOptions { backoff_min: Duration::from_millis(1), ..patient("") };
    let tiered = tiered(Arc::new(RedisBackend::new(&server.redis_url(), options).unwrap()));
    tiered.put(&key(1), &record()).await.unwrap();
    assert_eq!(tiered.stats().tiers[1].errors, 0);
    server.kill();
    assert_eq!(tiered.get(&key(2)).await, None);
    tiered.put(&key(2), &record()).await.unwrap();
    assert_eq!((tiered.get(&key(1)).await, tiered.get(&key(2)).await), (Some(record()), Some(record())));
    assert!(tiered.stats().tiers[1].errors > 0);
}

#[tokio::test]
async fn a_frozen_server_costs_one_timeout() {
    let Some(server) = Server::redis() else { return };
    let timeout = Duration::from_millis(200);
    let options = RemoteOptions { timeout, backoff_min: Duration::from_secs(30), ..RemoteOptions::default() };
    let backend = RedisBackend::new(&server.redis_url(), options).unwrap();
    // On a busy machine even a healthy server may exceed the timeout.
    if backend.put(&key(1), "value".into(), None).await.is_err() {
        return;
    }
    server.freeze();
    let started = Instant::now();
    assert!(!is_unavailable(&backend.get(&key(1)).await.unwrap_err()));
    assert!(started.elapsed() >= timeout);
    for _ in 0..1000 {
        assert!(is_unavailable(&backend.get(&key(1)).await.unwrap_err()));
    }
}

#[tokio::test]
async fn a_redis_lease_has_one_holder_at_a_time() {
    let Some(server) = Server::redis() else { return };
    let leases = |ttl| redis(&server, "").leases(ttl);
    let minute = Duration::from_secs(60);
    let held = leases(minute).acquire(&key(1)).await.unwrap();
    let other = leases(minute).acquire(&key(2)).await.unwrap();
    let second = leases(minute);
    let name = key(1);
    let mut waiting = Box::pin(second.acquire(&name));
    assert!(tokio::time::timeout(Duration::from_millis(100), &mut waiting).await.is_err());
    drop(held);
    let held = waiting.await.unwrap();
    drop((held, other));
    // Released in the background, long before it would expire.
    leases(minute).acquire(&key(1)).await.unwrap();
}

#[tokio::test]
async fn a_held_lease_is_renewed() {
    let Some(server) = Server::redis() else { return };
    let short = Duration::from_millis(300);
    let held = redis(&server, "").leases(short).acquire(&key(1)).await.unwrap();
    let (other, name) = (redis(&server, "").leases(short), key(1));
    let mut waiting = Box::pin(other.acquire(&name));
    assert!(tokio::time::timeout(4 * short, &mut waiting).await.is_err());
    drop(held);
    waiting.await.unwrap();
}

#[test]
fn the_lease_of_a_dead_holder_expires() {
    let Some(server) = Server::redis() else { return };
    let short = Duration::from_millis(300);
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let holder = runtime();
    let held = holder.block_on(async { redis(&server, "").leases(short).acquire(&key(1)).await.unwrap() });
    // Dropping the runtime stops the tasks that would renew or release the lease.
    drop(holder);
    std::mem::forget(held);
    runtime().block_on(async {
        redis(&server, "").leases(short).acquire(&key(1)).await.unwrap();
    });
}

#[tokio::test]
async fn concurrent_machines_compute_once() {
    let Some(server) = Server::redis() else { return };
    let runs = Arc::new(AtomicUsize::new(0));
    let task = |_| {
        let backend = redis(&server, "");
        let leases = Arc::new(backend.leases(Duration::from_secs(60)));
        let options = TieredOptions { leases: Some(leases), ..TieredOptions::new(1) };
        let tiered = Tiered::new(vec![Tier::new("redis", Arc::new(backend))], options);
        let runs = runs.clone();
        tokio::spawn(async move {
            let compute = || async {
                runs.fetch_add(1, Ordering::Relaxed);
                tokio::task::yield_now().await;
                Ok::<_, Infallible>((record(), Persist::Yes))
            };
            assert_eq!(tiered.get_or_compute(&key(1), compute).await, Ok(record()));
        })
    };
    let tasks: Vec<_> = (0..8).map(task).collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(runs.load(Ordering::Relaxed), 1);
}
