//! Servers that are dead, slow, full, incompatible, or that lie.

use std::sync::Arc;
use std::time::Duration;

use bazel_remote_apis::build::bazel::remote::execution::v2 as proto;
use bazel_remote_apis::build::bazel::semver::SemVer;
use greenwave_cache::{Backend, MemoryBackend, Persist, Record, Tier, Tiered, TieredOptions};
use greenwave_remote::{Digest, Error};
use tonic::Status;

use crate::fake::{Fake, State};
use crate::proxy::Proxy;
use crate::{backend, blob, client, impatient, key, patient};

#[tokio::test]
async fn a_dead_server_is_named_and_then_skipped() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let client = client(port, impatient());
    let error = client.capabilities().await.unwrap_err();
    let Error::Call { server, source, .. } = &error else { panic!("{error}") };
    assert_eq!(server, &format!("grpc://127.0.0.1:{port}"));
    assert!(source.to_string().contains("Connection refused"), "{source}");
    assert!(matches!(client.capabilities().await, Err(Error::Unavailable { .. })));
}

#[tokio::test]
async fn a_server_that_is_no_such_server_is_an_error() {
    let port = greenwave_testkit::server::fake_server(b"HTTP/1.1 200 OK\r\n\r\nhello\r\n");
    let error = client(port, impatient()).capabilities().await.unwrap_err();
    assert!(matches!(error, Error::Call { .. }), "{error}");
}

#[tokio::test]
async fn a_run_goes_on_without_a_slow_server() {
    let fake = Fake::start(State { delay: Duration::from_secs(3600), ..State::default() });
    let memory = Arc::new(MemoryBackend::new(100, 1 << 20).unwrap());
    let tiers =
        vec![Tier::new("memory", memory), Tier::new("remote", Arc::new(backend(fake.port, impatient())))];
    let cache = Tiered::new(tiers, TieredOptions::new(1));
    let record = || Record {
        schema: 1,
        created_ms: u64::MAX,
        cost: Duration::ZERO,
        tags: vec![],
        payload: "computed".into(),
    };
    for number in 0..100 {
        let compute = async || Ok::<_, Error>((record(), Persist::Yes));
        let found = cache.get_or_compute_retrying(&key(number), compute).await.unwrap();
        assert_eq!(found.payload, "computed");
    }
    let stats = &cache.stats().tiers[1];
    assert_eq!((stats.errors, stats.hits), (1, 0), "{stats:?}");
    assert!(stats.skipped >= 199, "{stats:?}");
}

#[tokio::test]
async fn incompatible_servers_are_refused_with_the_reason() {
    let check = async |change: fn(&mut proto::ServerCapabilities), expected: &str| {
        let fake = Fake::start(State { capabilities: Some(change), ..State::default() });
        let client = client(fake.port, impatient());
        let error = client.action_result(&Digest::of(b""), &[]).await.unwrap_err();
        assert!(matches!(error, Error::Incompatible { .. }), "{error}");
        assert_eq!(error.to_string(), format!("cannot use {}: it {expected}", client.server()));
        assert_eq!(fake.calls("get_action_result"), 0);
        assert!(matches!(client.capabilities().await, Err(Error::Unavailable { .. })));
    };
    let other_version = |answer: &mut proto::ServerCapabilities| {
        answer.low_api_version = Some(SemVer { major: 3, ..SemVer::default() });
        answer.high_api_version = answer.low_api_version.clone();
    };
    check(other_version, "speaks versions 3.0 to 3.0 of the protocol, and 2 is needed").await;
    let other_function = |answer: &mut proto::ServerCapabilities| {
        let cache = answer.cache_capabilities.as_mut().unwrap();
        cache.digest_functions = vec![proto::digest_function::Value::Blake3 as i32];
    };
    check(other_function, "names blobs by BLAKE3, and SHA256 is needed").await;
    check(|answer| answer.cache_capabilities = None, "has no cache").await;
    let unknown_functions = |answer: &mut proto::ServerCapabilities| {
        answer.cache_capabilities.as_mut().unwrap().digest_functions = vec![1000, 2];
    };
    check(unknown_functions, "names blobs by function 1000, SHA1, and SHA256 is needed").await;
    let nothing = |answer: &mut proto::ServerCapabilities| {
        answer.cache_capabilities.as_mut().unwrap().digest_functions.clear();
    };
    check(nothing, "names blobs by nothing, and SHA256 is needed").await;
    check(
        |answer| {
            answer.low_api_version = None;
            answer.high_api_version = Some(SemVer { major: 1, minor: 9, ..SemVer::default() });
        },
        "speaks versions any to 1.9 of the protocol, and 2 is needed",
    )
    .await;
}

#[tokio::test]
async fn limits_that_a_server_states_are_read() {
    let check = async |change: fn(&mut proto::CacheCapabilities), batch_bytes_max, blob_bytes_max| {
        let fake = Fake::start(State { cache: Some(change), ..State::default() });
        let found = client(fake.port, patient()).capabilities().await.unwrap();
        assert_eq!((found.batch_bytes_max, found.blob_bytes_max), (batch_bytes_max, blob_bytes_max));
        assert!(found.accepts_results && !found.executes);
    };
    let most = 3 << 20;
    check(|_| {}, most, None).await;
    check(|cache| cache.max_batch_total_size_bytes = 0, most, None).await;
    check(|cache| cache.max_batch_total_size_bytes = -1, most, None).await;
    check(|cache| cache.max_batch_total_size_bytes = i64::MAX, most, None).await;
    check(|cache| cache.max_batch_total_size_bytes = 1000, 1000, None).await;
    check(|cache| cache.max_cas_blob_size_bytes = 1000, most, Some(1000)).await;
    check(|cache| cache.max_cas_blob_size_bytes = -1, most, None).await;
}

#[tokio::test]
async fn small_limits_give_small_messages() {
    let small = |cache: &mut proto::CacheCapabilities| cache.max_batch_total_size_bytes = 1000;
    let fake = Fake::start(State { cache: Some(small), ..State::default() });
    let client = client(fake.port, patient());
    // The digest of a blob is in the message, too.
    let blobs = [840, 841, 340, 341, 0, 1].map(blob).to_vec();
    client.upload(&blobs).await.unwrap();
    assert_eq!(fake.calls("write"), 1);
    assert!(fake.calls("batch_update_blobs") > 2);
    let digests: Vec<Digest> = blobs.iter().map(|blob| Digest::of(blob)).collect();
    let found = client.download(&digests, u64::MAX).await.unwrap();
    assert!(found.into_iter().flatten().eq(blobs.iter().cloned()));
    assert!(fake.state.lock().batches.iter().all(|bytes| *bytes <= 1000));
    // Blobs that do not fit are left out.
    let room = client.download(&[digests[0], digests[2], digests[0], digests[5]], 841).await.unwrap();
    let sizes: Vec<Option<usize>> = room.iter().map(|blob| blob.as_ref().map(bytes::Bytes::len)).collect();
    assert_eq!(sizes, [Some(840), None, Some(840), Some(1)]);
}

#[tokio::test]
async fn a_message_of_a_server_is_one_short_line() {
    let text = format!("a\nb\u{1b}[31m{}", "x".repeat(1000));
    let fake = Fake::start(State { refuses_blobs: Some(Status::data_loss(text)), ..State::default() });
    let error = client(fake.port, patient()).upload(&[blob(1)]).await.unwrap_err();
    let Error::Call { source, .. } = &error else { panic!("{error}") };
    let shown = source.to_string();
    assert!(shown.starts_with("DATA_LOSS: a b [31mxxx") && shown.ends_with("x…"), "{shown}");
    assert_eq!(shown.chars().count(), "DATA_LOSS: ".len() + 301);
    assert!(!error.is_refusal());
}

#[tokio::test(start_paused = true)]
async fn delays_grow_while_a_server_is_dead() {
    let second = Duration::from_secs(1);
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let options = greenwave_remote::ClientOptions {
        backoff_min: second,
        backoff_max: 60 * second,
        seed: Some(7),
        ..patient()
    };
    let client = client(port, options);
    let mut delays = Vec::new();
    for exponent in 0..20 {
        assert!(matches!(client.capabilities().await, Err(Error::Call { .. })));
        let Err(Error::Unavailable { retry_in, .. }) = client.capabilities().await else {
            panic!("the server is dead")
        };
        assert!(retry_in <= Duration::from_secs(60.min(1 << exponent)), "{exponent}: {retry_in:?}");
        delays.push(retry_in);
        tokio::time::advance(retry_in).await;
    }
    assert!(delays.iter().max() > Some(&(30 * second)), "{delays:?}");
}

#[tokio::test]
async fn a_server_that_accepts_no_results_is_only_read() {
    let read_only = |answer: &mut proto::ServerCapabilities| {
        let cache = answer.cache_capabilities.as_mut().unwrap();
        cache.action_cache_update_capabilities = None;
    };
    let stated = State { capabilities: Some(read_only), ..State::default() };
    let refused =
        State { refuses_results: Some(Status::permission_denied("CI writes them")), ..State::default() };
    for (state, attempts) in [(stated, 0), (refused, 1)] {
        let fake = Fake::start(state);
        let backend = backend(fake.port, patient());
        for number in 0..3 {
            backend.put(&key(number), "value".into(), None).await.unwrap();
            backend.remove(&key(number)).await.unwrap();
        }
        assert_eq!(fake.calls("update_action_result"), attempts);
        // What others have stored is found.
        let writable = Fake::start(State::default());
        crate::backend(writable.port, patient()).put(&key(1), "value".into(), None).await.unwrap();
        {
            let (mut to, from) = (fake.state.lock(), writable.state.lock());
            to.actions = from.actions.clone();
            to.blobs = from.blobs.clone();
        }
        assert_eq!(backend.get(&key(1)).await.unwrap().as_deref(), Some(&b"value"[..]));
    }
}

#[tokio::test]
async fn a_full_server_is_still_read() {
    let fake = Fake::start(State::default());
    let backend = backend(fake.port, impatient());
    backend.put(&key(1), "one".into(), None).await.unwrap();
    fake.state.lock().refuses_blobs = Some(Status::resource_exhausted("no space is left"));
    let error = backend.put(&key(2), "two".into(), None).await.unwrap_err();
    let error = error.downcast_ref::<Error>().unwrap();
    assert!(error.is_refusal(), "{error}");
    let cause = std::error::Error::source(error).unwrap().to_string();
    assert_eq!(cause, "RESOURCE_EXHAUSTED: no space is left");
    assert_eq!(backend.get(&key(1)).await.unwrap().as_deref(), Some(&b"one"[..]));
}

#[tokio::test]
async fn a_blob_that_does_not_match_its_digest_is_missing() {
    for inlines in [false, true] {
        // The second value is sent as a stream.
        for size in [0, 10, 5 << 20] {
            let fake = Fake::start(State { inlines, ..State::default() });
            let backend = backend(fake.port, patient());
            backend.put(&key(1), blob(size), None).await.unwrap();
            backend.put(&key(2), "other".into(), None).await.unwrap();
            fake.state.lock().corrupts = true;
            let found = backend.get_many(&[key(1), key(2)]).await.unwrap();
            // The contents of an empty blob are not sent apart from it.
            let expected = if size == 0 && !inlines { Some(blob(0)) } else { None };
            assert_eq!(found, [expected, None], "{inlines} {size}");
            fake.state.lock().corrupts = false;
            assert!(backend.get(&key(1)).await.unwrap() == Some(blob(size)));
        }
    }
}

#[tokio::test]
async fn a_result_that_makes_no_sense_is_missing() {
    let fake = Fake::start(State::default());
    let backend = backend(fake.port, patient());
    let check = async |change: fn(&mut proto::ActionResult), is_found: bool| {
        backend.put(&key(1), "value".into(), None).await.unwrap();
        fake.state.lock().actions.values_mut().for_each(change);
        assert_eq!(backend.get(&key(1)).await.unwrap().is_some(), is_found);
    };
    check(|_| {}, true).await;
    check(|result| result.exit_code = 1, true).await;
    check(|result| result.output_files.clear(), false).await;
    check(|result| result.output_files[0].path = "other".to_owned(), false).await;
    check(|result| result.output_files[0].digest = None, false).await;
    check(|result| result.output_files[0].digest.as_mut().unwrap().size_bytes = -1, false).await;
    check(|result| result.output_files[0].digest.as_mut().unwrap().size_bytes = i64::MAX, false).await;
    check(|result| result.output_files[0].digest.as_mut().unwrap().hash = "x".repeat(64), false).await;
    check(|result| result.output_files[0].contents = b"forged".to_vec(), false).await;
    // Another blob, which exists.
    fake.state.lock().blobs.insert(Digest::of(b"").to_string()[..64].to_owned(), Vec::new());
    check(
        |result| {
            let digest = result.output_files[0].digest.as_mut().unwrap();
            digest.hash = Digest::of(b"").to_string()[..64].to_owned();
        },
        false,
    )
    .await;
}

#[tokio::test]
async fn messages_keep_within_the_limits_of_the_server() {
    let fake = Fake::start(State::default());
    let client = client(fake.port, patient());
    let blobs: Vec<_> =
        [2 << 20, (2 << 20) + 1, (2 << 20) + 2, 6 << 20, 100].map(|size| blob(size).slice(..)).to_vec();
    client.upload(&blobs).await.unwrap();
    let digests: Vec<Digest> = blobs.iter().map(|blob| Digest::of(blob)).collect();
    assert_eq!(client.missing_blobs(&digests).await.unwrap(), []);
    let found = client.download(&digests, u64::MAX).await.unwrap();
    assert!(found.into_iter().flatten().eq(blobs.iter().cloned()));
    assert!(fake.state.lock().batches.iter().all(|bytes| *bytes <= crate::fake::BATCH_BYTES_MAX));
    assert_eq!((fake.calls("write"), fake.calls("read")), (1, 1));
    // No blob is sent twice.
    client.upload(&blobs).await.unwrap();
    assert_eq!(fake.calls("write"), 1);
    let limited = |answer: &mut proto::ServerCapabilities| {
        answer.cache_capabilities.as_mut().unwrap().max_cas_blob_size_bytes = 10;
    };
    let small = Fake::start(State { capabilities: Some(limited), ..State::default() });
    let error = crate::client(small.port, patient()).upload(&[blob(11)]).await.unwrap_err();
    assert!(matches!(error, Error::TooLarge { bytes: 11, bytes_max: 10, .. }), "{error}");
}

#[tokio::test]
async fn a_connection_that_is_cut_at_any_byte_gives_no_wrong_value() {
    let fake = Fake::start(State::default());
    backend(fake.port, patient()).put(&key(1), blob(300), None).await.unwrap();
    let proxy = Proxy::start(fake.port);
    let (mut failures, mut bytes) = (0, 0);
    loop {
        proxy.cut_after(bytes);
        match backend(proxy.port, patient()).get(&key(1)).await {
            Ok(Some(value)) => {
                assert_eq!(value, blob(300), "{bytes}");
                break;
            }
            Ok(None) => panic!("cut after {bytes} bytes, a value that exists is missing"),
            Err(error) => {
                let error = error.downcast_ref::<Error>().unwrap();
                assert!(error.to_string().contains("grpc://127.0.0.1:"), "{error}");
                failures += 1;
            }
        }
        bytes += 1;
    }
    assert!(failures > 500, "the answers have only {failures} bytes");
}

#[tokio::test]
async fn a_dropped_call_makes_room_for_the_next() {
    let fake = Fake::start(State::default());
    let client = client(fake.port, greenwave_remote::ClientOptions { calls_max: 1, ..patient() });
    client.capabilities().await.unwrap();
    fake.state.lock().delay = Duration::from_secs(3600);
    let digests = [Digest::of(b"")];
    {
        let mut hanging = Box::pin(client.missing_blobs(&digests));
        while fake.calls("find_missing_blobs") == 0 {
            tokio::select! {
                biased;
                result = &mut hanging => panic!("the server does not answer: {result:?}"),
                () = tokio::task::yield_now() => {}
            }
        }
    }
    fake.state.lock().delay = Duration::ZERO;
    assert_eq!(client.missing_blobs(&digests).await.unwrap().len(), 1);
}

#[test]
fn a_client_can_be_used_in_one_runtime_after_another() {
    let fake = Fake::start(State::default());
    let backend = backend(fake.port, patient());
    for number in 0..3 {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(backend.put(&key(number), "value".into(), None)).unwrap();
    }
    assert_eq!(fake.calls("get_capabilities"), 3);
}
