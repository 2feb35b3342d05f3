//! The smallest and the largest value of each option, with a server that answers.

use std::time::Duration;

use greenwave_cache::Backend;
use greenwave_remote::ClientOptions;

use crate::fake::{Fake, State};
use crate::{backend, blob, client, key, patient};

const NANOSECOND: Duration = Duration::from_nanos(1);

/// Stores and fetches a value in a message and one in a stream.
async fn works(options: ClientOptions) {
    let fake = Fake::start(State::default());
    let backend = backend(fake.port, options);
    for (number, size) in [(1, 10), (2, 4 << 20)] {
        backend.put(&key(number), blob(size), None).await.unwrap();
        assert!(backend.get(&key(number)).await.unwrap() == Some(blob(size)));
    }
}

#[tokio::test]
async fn the_longest_times_are_no_limit() {
    works(ClientOptions { timeout: Duration::MAX, transfer_timeout: Duration::MAX, ..patient() }).await;
    works(ClientOptions { transfer_timeout: Duration::MAX, ..patient() }).await;
}

#[tokio::test]
async fn the_shortest_times_are_errors_of_each_call() {
    let fake = Fake::start(State::default());
    let options = ClientOptions { timeout: NANOSECOND, transfer_timeout: NANOSECOND, ..patient() };
    for _ in 0..3 {
        assert!(client(fake.port, options.clone()).capabilities().await.is_err());
    }
}

#[tokio::test]
async fn one_call_at_a_time_is_enough() {
    works(ClientOptions { calls_max: 1, ..patient() }).await;
    works(ClientOptions { calls_max: tokio::sync::Semaphore::MAX_PERMITS, ..patient() }).await;
}

#[tokio::test]
async fn any_delay_and_seed_is_accepted() {
    for (backoff_min, backoff_max, seed) in [
        (NANOSECOND, NANOSECOND, Some(0)),
        (NANOSECOND, Duration::MAX, Some(u64::MAX)),
        (Duration::MAX, Duration::MAX, None),
    ] {
        let options = ClientOptions { backoff_min, backoff_max, seed, ..patient() };
        works(options.clone()).await;
        let dead = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let client = client(dead, options);
        assert!(client.capabilities().await.is_err() && client.capabilities().await.is_err());
    }
}
