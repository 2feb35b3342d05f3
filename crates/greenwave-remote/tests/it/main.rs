//! Tests of the client and of the backend, with a real server and with one that misbehaves.
#![expect(clippy::unwrap_used, reason = "test helpers may panic")]

mod addresses;
mod casd;
mod conformance;
mod executors;
mod fake;
mod fake_execution;
mod faults;
mod option_ranges;
mod proxy;
mod signatures;
mod streams;
mod tls;
mod tokens;

use std::time::Duration;

use greenwave_cache::{Key, KeyBuilder};
use greenwave_remote::{ActionCacheBackend, Client, ClientOptions};

fn key(number: u64) -> Key {
    KeyBuilder::new("remote", 1).number(number).finish()
}

/// Returns options for a busy machine.
fn patient() -> ClientOptions {
    let second = Duration::from_secs(1);
    let millisecond = Duration::from_millis(1);
    ClientOptions {
        timeout: 20 * second,
        transfer_timeout: 60 * second,
        backoff_min: millisecond,
        backoff_max: 10 * millisecond,
        ..ClientOptions::default()
    }
}

/// Returns options for a server that will not answer.
fn impatient() -> ClientOptions {
    let (timeout, minute) = (Duration::from_millis(100), Duration::from_secs(60));
    ClientOptions {
        timeout,
        transfer_timeout: timeout,
        backoff_min: minute,
        backoff_max: minute,
        // Its first delay is more than a few seconds.
        seed: Some(7),
        ..ClientOptions::default()
    }
}

fn client(port: u16, options: ClientOptions) -> Client {
    Client::new(&format!("grpc://127.0.0.1:{port}"), options).unwrap()
}

fn backend(port: u16, options: ClientOptions) -> ActionCacheBackend {
    ActionCacheBackend::new(client(port, options))
}

/// Returns bytes that do not repeat.
fn blob(bytes: usize) -> bytes::Bytes {
    let byte = |index: usize| (index.wrapping_mul(0x9E37_79B9) >> 13) as u8;
    (0..bytes).map(byte).collect()
}
