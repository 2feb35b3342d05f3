//! Measures the parts of the cache one by one: a hit, an insertion, a shared computation, a record,
//! a key, the disk. The suite `versus-cache` compares them with rivals.

use std::convert::Infallible;
use std::hint::black_box;
use std::time::Duration;

use bytes::Bytes;
use criterion::{Bencher, Criterion};
use greenwave_benches::{Page, Row, criterion, is_measuring, samples};
use greenwave_cache::{
    Adaptive, Backend, Cache, CacheOptions, DiskBackend, DiskOptions, IdentityHasher, Key, KeyBuilder,
    Record, Secret,
};
use tokio::runtime::Runtime;

const ABOUT: &str = "
One thread reads 10,000 keys in a fixed order from a cache with room for 20,000. The adaptive policy
samples more keys of a small cache for its simulation: one in 16 here. Records have a payload of 4
KB. Reads from disk are served by the page cache, and puts are not flushed.";

/// Expected costs in nanoseconds, stated before measuring.
///
/// They derive from prototypes: 30 for a hit, plus sampling; 24 more for reading the clock; for
/// `get_or_compute`, a hit and another counter. BLAKE3 hashes 2.9 bytes per nanosecond. The
/// requirement for the disk was a get in 20 us.
const EXPECTED: [(&str, f64); 8] = [
    ("get", 60.0),
    ("get, with expiry", 90.0),
    ("insert, replacing", 120.0),
    ("get_or_compute, hit", 150.0),
    ("record, encode", 2_500.0),
    ("record, unseal", 2_500.0),
    ("key of twenty fields", 1_500.0),
    ("disk, get", 20_000.0),
];

const KEYS: u64 = 10_000;

fn key(number: u64) -> Key {
    KeyBuilder::new("suite", 1).number(number).finish()
}

fn cache(ttl: Option<Duration>) -> Cache<Key, u64, Adaptive, IdentityHasher> {
    let options = CacheOptions { entries_max: 2 * KEYS as usize, ttl, ..CacheOptions::default() };
    let cache = Cache::with(options).expect("the options are valid");
    (0..KEYS).for_each(|number| cache.insert(key(number), number));
    assert!((0..KEYS).all(|number| cache.get(&key(number)) == Some(number)));
    cache
}

fn record() -> Record {
    let payload = Bytes::from(vec![b'x'; 4096]);
    Record {
        schema: 1,
        created_ms: 0,
        cost: Duration::from_millis(9),
        tags: vec!["parser".to_owned()],
        payload,
    }
}

/// Calls a closure with one key after another, in an order that defeats prefetching.
fn bench_keys(bencher: &mut Bencher<'_>, keys: &[Key], mut call: impl FnMut(&Key)) {
    let mut at = 0;
    bencher.iter(|| {
        at = (at + 7_919) % keys.len();
        call(&keys[at]);
    });
}

fn measure(criterion: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime can be created");
    let keys: Vec<Key> = (0..KEYS).map(key).collect();
    let mut group = criterion.benchmark_group("cache");
    group.sample_size(50).measurement_time(Duration::from_secs(2));
    let (plain, limited) = (cache(None), cache(Some(Duration::from_secs(3600))));
    group.bench_function("get", |bencher| bench_keys(bencher, &keys, |key| _ = black_box(plain.get(key))));
    group.bench_function("get, with expiry", |bencher| {
        bench_keys(bencher, &keys, |key| _ = black_box(limited.get(key)));
    });
    group.bench_function("insert, replacing", |bencher| {
        bench_keys(bencher, &keys, |key| plain.insert(*key, 7));
    });
    group.bench_function("get_or_compute, hit", |bencher| {
        bench_keys(bencher, &keys, |key| {
            let found = runtime.block_on(plain.get_or_compute(*key, async || Ok::<_, Infallible>(7)));
            assert!(found.is_ok());
        });
    });
    let (record, secret) = (record(), Secret::new(b"a secret"));
    let sealed = record.seal(&keys[0], &secret);
    assert_eq!(Record::unseal(&keys[0], &sealed, 1, &secret).as_ref(), Ok(&record));
    group.bench_function("record, encode", |bencher| bencher.iter(|| black_box(&record).encode(&keys[0])));
    group.bench_function("record, unseal", |bencher| {
        bencher.iter(|| Record::unseal(&keys[0], black_box(&sealed), 1, &secret));
    });
    group.bench_function("key of twenty fields", |bencher| {
        bencher.iter(|| {
            let mut key = KeyBuilder::new("suite", 1);
            (0..20).for_each(|number| _ = key.text(black_box("src/lib.rs")).number(number));
            key.finish()
        });
    });
    let dir = tempfile::tempdir().expect("a temporary directory can be created");
    let disk = DiskBackend::open(dir.path(), DiskOptions::default()).expect("the directory opens");
    for key in &keys[..1000] {
        runtime.block_on(disk.put(key, record.encode(key), None)).expect("the backend stores the record");
    }
    group.bench_function("disk, get", |bencher| {
        bench_keys(bencher, &keys[..1000], |key| {
            assert!(matches!(runtime.block_on(disk.get(key)), Ok(Some(_))));
        });
    });
    group.finish();
}

fn main() {
    let mut criterion = criterion();
    measure(&mut criterion);
    criterion.final_summary();
    if !is_measuring() {
        return;
    }
    let row = |(name, limit): (&str, f64)| {
        let found = samples(&format!("cache/{name}"));
        found.map(|samples| Row::new(name, "ns", samples).at_most(limit))
    };
    Page { suite: "cache", about: ABOUT, rows: EXPECTED.into_iter().filter_map(row).collect() }.publish();
}
