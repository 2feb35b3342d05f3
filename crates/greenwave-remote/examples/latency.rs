//! Measures look-ups of results on a server, beside a client without any checks.
//!
//! `cargo run --release -p greenwave-remote --example latency -- grpc://127.0.0.1:PORT`
#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "an example prints what it measures")]

use std::time::{Duration, Instant};

use bazel_remote_apis::build::bazel::remote::execution::v2 as proto;
use greenwave_cache::{Backend, Key, KeyBuilder};
use greenwave_remote::{ActionCacheBackend, Client, ClientOptions, Digest};
use proto::action_cache_client::ActionCacheClient;
use tonic::transport::Channel;

const ROUNDS: usize = 500;
const KEYS: u64 = 1000;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let address = std::env::args().nth(1).expect("the address of a server");
    let client = Client::new(&address, ClientOptions::default()).unwrap();
    let backend = ActionCacheBackend::new(client.clone());
    let run = format!("{:?}", std::time::SystemTime::now());
    let key = |number| KeyBuilder::new("latency", 1).text(&run).number(number).finish();
    let keys: Vec<Key> = (0..KEYS).map(key).collect();
    for key in &keys {
        backend.put(key, vec![7; 1000].into(), None).await.unwrap();
    }
    let actions: Vec<Digest> = keys.iter().map(|key| Digest { hash: *key.as_bytes(), bytes: 64 }).collect();
    let mut bare = bare_client(&address).await;
    // In turns, so that other work on the machine slows both.
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let action = &actions[round % actions.len()];
        let started = Instant::now();
        assert!(client.action_result(action, &[]).await.unwrap().is_some());
        ours.push(started.elapsed());
        let started = Instant::now();
        bare_lookup(&mut bare, action).await;
        theirs.push(started.elapsed());
    }
    println!("one look-up, {ROUNDS} rounds: {} here, {} bare", shown(&mut ours), shown(&mut theirs));
    let (mut results, mut values) = (Vec::new(), Vec::new());
    for _ in 0..20 {
        let started = Instant::now();
        let found = client.action_results(&actions, &[]).await.unwrap();
        results.push(started.elapsed());
        assert!(found.iter().all(Option::is_some));
        let started = Instant::now();
        let found = backend.get_many(&keys).await.unwrap();
        values.push(started.elapsed());
        assert!(found.iter().all(Option::is_some));
    }
    println!("{KEYS} look-ups at once, 20 rounds: {}", shown(&mut results));
    println!("{KEYS} values of 1000 bytes at once, 20 rounds: {}", shown(&mut values));
}

fn shown(times: &mut [Duration]) -> String {
    times.sort();
    format!("{:.3?} least, {:.3?} median", times[0], times[times.len() / 2])
}

async fn bare_client(address: &str) -> ActionCacheClient<Channel> {
    ActionCacheClient::connect(address.replacen("grpc", "http", 1)).await.unwrap()
}

async fn bare_lookup(client: &mut ActionCacheClient<Channel>, action: &Digest) {
    let hash = action.to_string()[..64].to_owned();
    let size_bytes = i64::try_from(action.bytes).unwrap();
    let request = proto::GetActionResultRequest {
        action_digest: Some(proto::Digest { hash, size_bytes }),
        ..proto::GetActionResultRequest::default()
    };
    client.get_action_result(request).await.unwrap();
}
