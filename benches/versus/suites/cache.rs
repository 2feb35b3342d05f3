//! Compares the in-memory cache with `lru`, moka, mini-moka, quick_cache and foyer. Also measures
//! hit ratios, the memory that results take, and the disk.
#![expect(clippy::print_stdout, reason = "a child process prints its result")]

use std::fmt::Write as _;
use std::hash::{BuildHasherDefault, Hasher};
use std::hint::black_box;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use bytes::Bytes;
use greenwave_benches::{Page, Row, is_measuring};
use greenwave_cache::{
    Adaptive, Backend, Cache, CacheOptions, DiskBackend, DiskOptions, IdentityHasher, Key, KeyBuilder,
    KeyHasher, Lru, MemoryBackend, Policy, Predictor, Record, S3Fifo, Tier, Tiered, TieredOptions, Trail,
};
use greenwave_versus::traces::{Random, Trace, Zipf, optimal_hits, traces};
use parking_lot::Mutex;

const ABOUT: &str = "
Reads and writes of `Arc<[u8; 256]>` under 32-byte BLAKE3 keys, with 65,536 entries. Rows with `/`
are ratios of times, Greenwave's by the rival's, from rounds in which all caches take turns on the
same keys. A ratio below 1 is faster than the rival. `hits`: 50,000 keys, all of them cached.
`reads`: a million keys, each inserted on a miss. `mixed`: like `reads`, but every tenth operation
inserts unconditionally. Keys follow Zipf's law and are drawn beforehand. Times are those of all
threads together, per operation.

Settings: every cache uses the first eight bytes of the keys as their hash, except the table of
`lru`, which hashes those. quick_cache 0.7 with parking_lot, without counting hits; moka 0.12
`sync`; mini-moka 0.10 `sync`; foyer-memory 0.22 with S3-FIFO and 64 shards; `lru` in one
parking_lot mutex. Greenwave counts hits, per thread. Caveats: two cores do not show how locks
behave on many. Expiry is off everywhere; with expiry, Greenwave also reads a clock, which takes 24
ns. Misses of Greenwave cost more than those of quick_cache: one key in 64 is also read in three
simulated caches, which makes up a quarter of the difference (found by leaving that out), and the
rest is spread thinly. Entries of one cache line, a sketch that touches one line per key, no lock
where nothing is computed, and no copies of evicted entries were tried. They reduced the ratio from
1.3-1.4 to 1.2-1.3.

A thousand results of 4 KB take 4.1 MB in memory, which holds them uncompressed. Together with their
compressed copy on disk, they cannot take less than 5 MB. `warm` and prediction are measured on
tiers in memory: they show how many misses are avoided, not the speed of a disk.
";

/// Expected ratio of times, Greenwave by quick_cache, stated before measuring.
const QUICK_MAX: f64 = 1.1;
/// Expected ratio of times, Greenwave by moka.
const MOKA_MAX: f64 = 0.25;
/// Maximum difference to the hit ratio of the best rival on any trace, in percentage points.
const BEHIND_MAX: f64 = 2.0;
/// Expected misses in percent on the trace of phases: 68 % hits.
const PHASES_MISSES_MAX: f64 = 32.0;
/// Expected misses in percent on the trace of agents, with room for their working set: 85 % hits.
const AGENTS_MISSES_MAX: f64 = 15.0;
/// Expected size of a thousand results with 4 KB of output each, in memory and on disk together.
const RESULTS_MB_MAX: f64 = 5.0;
/// Expected ratio of misses of the memory tier, after a warm restart by before. A guess: almost
/// nothing is lost.
const RESTART_MISSES_MAX: f64 = 1.1;
/// Expected ratio of misses of the memory tier on the trace of agents, with prediction by without.
/// A guess: most of a run's order is predictable.
const PREDICTED_MISSES_MAX: f64 = 0.5;
/// Expected percentage of prefetched records that are never read. A guess.
const WASTED_MAX: f64 = 20.0;
const DISK_GET_US_MAX: f64 = 20.0;
const OPEN_MS_MAX: f64 = 30.0;

const CAPACITY: usize = 65_536;
const RESIDENT: usize = 50_000;
const UNIVERSE: usize = 1_000_000;
const OPERATIONS: usize = 600_000;
const ROUNDS: usize = 7;

type Value = Arc<[u8; 256]>;

/// The common interface of the caches.
trait CacheUnderTest: Sync {
    fn name(&self) -> &'static str;
    fn get(&self, key: &Key) -> Option<Value>;
    fn put(&self, key: Key, value: Value);
}

struct Greenwave(Cache<Key, Value, Adaptive, IdentityHasher>);
struct Quick(quick_cache::sync::Cache<Key, Value, quick_cache::UnitWeighter, FirstBytes>);
struct Moka(moka::sync::Cache<Key, Value, FirstBytes>);
struct MiniMoka(mini_moka::sync::Cache<Key, Value, FirstBytes>);
struct Foyer(foyer_memory::Cache<Key, Value, FirstBytes>);
struct LruCrate(Mutex<lru::LruCache<Key, Value, FirstBytes>>);

/// Uses the first eight bytes of a key as its hash, since keys are hashes already.
type FirstBytes = BuildHasherDefault<FirstBytesHasher>;

#[derive(Default)]
struct FirstBytesHasher(u64);

impl Hasher for FirstBytesHasher {
    fn write(&mut self, bytes: &[u8]) {
        self.0 = bytes.first_chunk().map_or(0, |first| u64::from_le_bytes(*first));
    }

    // Ignores the length prefix, which is constant.
    fn write_usize(&mut self, _: usize) {}

    fn finish(&self) -> u64 {
        self.0
    }
}

macro_rules! cache_under_test {
    ($type:ty, $name:literal, $get:expr, $put:expr) => {
        impl CacheUnderTest for $type {
            fn name(&self) -> &'static str {
                $name
            }

            #[inline]
            fn get(&self, key: &Key) -> Option<Value> {
                $get(&self.0, key)
            }

            #[inline]
            fn put(&self, key: Key, value: Value) {
                $put(&self.0, key, value);
            }
        }
    };
}

cache_under_test!(
    Greenwave,
    "Greenwave",
    |cache: &Cache<_, _, _, _>, key| cache.get(key),
    |cache: &Cache<_, _, _, _>, key, value| {
        cache.insert(key, value);
    }
);
cache_under_test!(
    Quick,
    "quick_cache",
    |cache: &quick_cache::sync::Cache<_, _, _, _>, key| cache.get(key),
    |cache: &quick_cache::sync::Cache<_, _, _, _>, key, value| cache.insert(key, value)
);
cache_under_test!(
    Moka,
    "moka",
    |cache: &moka::sync::Cache<_, _, _>, key| cache.get(key),
    |cache: &moka::sync::Cache<_, _, _>, key, value| cache.insert(key, value)
);
cache_under_test!(
    MiniMoka,
    "mini-moka",
    |cache: &mini_moka::sync::Cache<_, _, _>, key| cache.get(key),
    |cache: &mini_moka::sync::Cache<_, _, _>, key, value| cache.insert(key, value)
);
cache_under_test!(
    Foyer,
    "foyer",
    |cache: &foyer_memory::Cache<Key, Value, _>, key| cache.get(key).map(|entry| entry.value().clone()),
    |cache: &foyer_memory::Cache<Key, Value, _>, key, value| drop(cache.insert(key, value))
);
cache_under_test!(
    LruCrate,
    "lru",
    |cache: &Mutex<lru::LruCache<Key, Value, _>>, key| cache.lock().get(key).cloned(),
    |cache: &Mutex<lru::LruCache<Key, Value, _>>, key, value| _ = cache.lock().push(key, value)
);

fn contestants() -> Vec<Box<dyn Contestant>> {
    let foyer = foyer_memory::CacheBuilder::new(CAPACITY)
        .with_shards(64)
        .with_eviction_config(foyer_memory::S3FifoConfig::default())
        .with_hash_builder(FirstBytes::default());
    let quick = quick_cache::sync::Cache::with(
        CAPACITY,
        CAPACITY as u64,
        quick_cache::UnitWeighter,
        FirstBytes::default(),
        quick_cache::sync::DefaultLifecycle::default(),
    );
    let capacity = NonZeroUsize::new(CAPACITY).expect("the capacity is not zero");
    let moka = moka::sync::Cache::builder().max_capacity(CAPACITY as u64);
    let mini_moka = mini_moka::sync::Cache::builder().max_capacity(CAPACITY as u64);
    vec![
        Box::new(Greenwave(greenwave(CAPACITY))),
        Box::new(Quick(quick)),
        Box::new(Moka(moka.build_with_hasher(FirstBytes::default()))),
        Box::new(MiniMoka(mini_moka.build_with_hasher(FirstBytes::default()))),
        Box::new(Foyer(foyer.build())),
        Box::new(LruCrate(Mutex::new(lru::LruCache::with_hasher(capacity, FirstBytes::default())))),
    ]
}

fn greenwave<P: Policy, S: KeyHasher<Key> + Default, V>(entries_max: usize) -> Cache<Key, V, P, S> {
    Cache::with(CacheOptions { entries_max, ..CacheOptions::default() }).expect("the options are valid")
}

/// A mix of operations.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Mix {
    Hits,
    Reads,
    Mixed,
}

impl Mix {
    fn name(self) -> &'static str {
        match self {
            Self::Hits => "hits",
            Self::Reads => "reads",
            Self::Mixed => "mixed",
        }
    }

    fn universe(self) -> usize {
        if self == Self::Hits { RESIDENT } else { UNIVERSE }
    }
}

/// Runs work on a cache whose type is static, so that the measured code makes no virtual calls.
trait Contestant {
    fn name(&self) -> &'static str;
    fn fill(&self, work: &Work);
    /// Returns the nanoseconds per operation, of all threads together.
    fn run(&self, work: &Work, mix: Mix) -> f64;
}

struct Work {
    keys: Vec<Key>,
    /// One value per key: threads would contend for the reference count of a shared one.
    values: Vec<Value>,
    /// Indices of the keys that each thread reads.
    threads: Vec<Vec<u32>>,
}

impl<C: CacheUnderTest> Contestant for C {
    fn name(&self) -> &'static str {
        CacheUnderTest::name(self)
    }

    fn fill(&self, work: &Work) {
        work.keys[..RESIDENT].iter().zip(&work.values).for_each(|(key, value)| self.put(*key, value.clone()));
        let cached = work.keys[..RESIDENT].iter().filter(|key| self.get(key).is_some()).count();
        assert!(cached * 100 > RESIDENT * 98, "{} holds {cached} of {RESIDENT}", CacheUnderTest::name(self));
    }

    fn run(&self, work: &Work, mix: Mix) -> f64 {
        let barrier = Barrier::new(work.threads.len());
        let thread = |chosen: &Vec<u32>| {
            barrier.wait();
            let begun = Instant::now();
            operate(self, work, chosen, mix);
            (begun, Instant::now())
        };
        let spans: Vec<(Instant, Instant)> = std::thread::scope(|scope| {
            let threads = work.threads.iter().map(|chosen| scope.spawn(|| thread(chosen)));
            let threads: Vec<_> = threads.collect();
            threads.into_iter().map(|thread| thread.join().expect("threads do not panic")).collect()
        });
        let first = spans.iter().map(|(begun, _)| begun).min().expect("there is at least one thread");
        let last = spans.iter().map(|(_, ended)| ended).max().expect("there is at least one thread");
        let operations: usize = work.threads.iter().map(Vec::len).sum();
        last.duration_since(*first).as_nanos() as f64 / operations as f64
    }
}

#[inline(never)]
fn operate<C: CacheUnderTest>(cache: &C, work: &Work, chosen: &[u32], mix: Mix) {
    for (number, chosen) in chosen.iter().enumerate() {
        let (key, value) = (&work.keys[*chosen as usize], &work.values[*chosen as usize]);
        match mix {
            Mix::Hits => _ = black_box(cache.get(key)),
            Mix::Mixed if number % 10 == 0 => cache.put(*key, value.clone()),
            _ => {
                if black_box(cache.get(key)).is_none() {
                    cache.put(*key, value.clone());
                }
            }
        }
    }
}

fn key(number: u64) -> Key {
    KeyBuilder::new("versus", 1).number(number).finish()
}

fn speed(rows: &mut Vec<Row>) {
    let keys = (0..UNIVERSE as u64).map(key).collect();
    let values = (0..UNIVERSE).map(|_| Arc::new([7; 256])).collect();
    let mut work = Work { keys, values, threads: Vec::new() };
    for exponent in [0.9, 1.0] {
        for mix in [Mix::Hits, Mix::Reads, Mix::Mixed] {
            let zipf = Zipf::new(mix.universe(), exponent);
            for threads in [1, 2, 4] {
                let mut random = Random(threads as u64);
                // Popular keys are spread over the whole universe.
                let draw = |random: &mut Random| scatter(zipf.draw(random), mix.universe() as u64);
                let each = OPERATIONS / threads;
                work.threads = (0..threads).map(|_| (0..each).map(|_| draw(&mut random)).collect()).collect();
                let what = format!("{}, zipf {exponent:.1}, {threads} threads", mix.name());
                rows.extend(compare(&what, &work, mix));
            }
        }
    }
}

fn scatter(rank: u64, universe: u64) -> u32 {
    // The prime divides no universe used here, so each rank maps to a different key.
    (rank.wrapping_mul(7_368_787) % universe) as u32
}

fn compare(what: &str, work: &Work, mix: Mix) -> Vec<Row> {
    let contestants = contestants();
    contestants.iter().for_each(|contestant| contestant.fill(work));
    let mut times: Vec<Vec<f64>> = vec![Vec::new(); contestants.len()];
    // The first round fills the caches and does not count.
    for round in 0..=ROUNDS {
        for (contestant, times) in contestants.iter().zip(&mut times) {
            let time = contestant.run(work, mix);
            times.extend((round > 0).then_some(time));
        }
    }
    let greenwave = times[0].clone();
    let ratio = |rival: &[f64]| {
        greenwave.iter().zip(rival).map(|(greenwave, rival)| greenwave / rival).collect::<Vec<_>>()
    };
    let versus = |(rival, times): (&dyn Contestant, &Vec<f64>)| {
        let row = Row::new(format!("{what}: Greenwave / {}", rival.name()), "x", ratio(times));
        match rival.name() {
            "quick_cache" => row.at_most(QUICK_MAX),
            "moka" => row.at_most(MOKA_MAX),
            _ => row,
        }
    };
    let rivals = contestants.iter().map(|rival| &**rival).zip(&times).skip(1).map(versus);
    std::iter::once(Row::new(format!("{what}: Greenwave"), "ns", greenwave.clone())).chain(rivals).collect()
}

/// Returns the hit ratio in percent. `read` returns whether the key hits, and inserts it on a miss.
fn hit_ratio(trace: &Trace, mut read: impl FnMut(u64) -> bool) -> f64 {
    let hits = trace.keys.iter().filter(|key| read(**key)).count();
    hits as f64 * 100.0 / trace.keys.len() as f64
}

fn greenwave_on<P: Policy>(trace: &Trace) -> f64 {
    let cache: Cache<Key, (), P, IdentityHasher> = greenwave(trace.capacity);
    hit_ratio(trace, |number| {
        let key = spread(number);
        cache.get(&key).is_some() || {
            cache.insert(key, ());
            false
        }
    })
}

/// Returns a uniformly distributed key, faster than by hashing.
fn spread(number: u64) -> Key {
    let mut bytes = [0; 32];
    let mut random = Random(number);
    bytes.chunks_mut(8).for_each(|chunk| chunk.copy_from_slice(&random.bits().to_le_bytes()));
    Key::from_bytes(bytes)
}

fn quick_on(trace: &Trace) -> f64 {
    let cache = quick_cache::sync::Cache::new(trace.capacity);
    hit_ratio(trace, |key| {
        cache.get(&key).is_some() || {
            cache.insert(key, ());
            false
        }
    })
}

fn moka_on(trace: &Trace) -> f64 {
    let cache = moka::sync::Cache::new(trace.capacity as u64);
    hit_ratio(trace, |key| {
        cache.get(&key).is_some() || {
            cache.insert(key, ());
            false
        }
    })
}

fn mini_moka_on(trace: &Trace) -> f64 {
    let cache = mini_moka::sync::Cache::new(trace.capacity as u64);
    hit_ratio(trace, |key| {
        cache.get(&key).is_some() || {
            cache.insert(key, ());
            false
        }
    })
}

fn foyer_on(trace: &Trace) -> f64 {
    let builder = foyer_memory::CacheBuilder::new(trace.capacity).with_shards(8);
    let cache: foyer_memory::Cache<u64, ()> =
        builder.with_eviction_config(foyer_memory::S3FifoConfig::default()).build();
    hit_ratio(trace, |key| {
        cache.get(&key).is_some() || {
            cache.insert(key, ());
            false
        }
    })
}

fn lru_on(trace: &Trace) -> f64 {
    let mut cache = lru::LruCache::new(NonZeroUsize::new(trace.capacity).expect("the capacity is not zero"));
    hit_ratio(trace, |key| {
        cache.get(&key).is_some() || {
            cache.put(key, ());
            false
        }
    })
}

/// A cache, and the function that measures its hit ratio on a trace.
type Column = (&'static str, fn(&Trace) -> f64);

/// Columns of Greenwave's policies.
const POLICIES: [Column; 3] = [
    ("Adaptive", greenwave_on::<Adaptive>),
    ("S3Fifo", greenwave_on::<S3Fifo>),
    ("Lru", greenwave_on::<Lru>),
];
/// Columns of the rivals.
const RIVALS: [Column; 5] = [
    ("lru", lru_on),
    ("moka", moka_on),
    ("mini-moka", mini_moka_on),
    ("quick_cache", quick_on),
    ("foyer", foyer_on),
];

/// Returns the table of hit ratios, and adds the rows with expectations.
fn hit_ratios(rows: &mut Vec<Row>) -> String {
    let names = POLICIES.iter().chain(&RIVALS).map(|(name, _)| format!(" {name} |"));
    let mut table = format!(
        "\nHits in percent. Keys are inserted on a miss.\n\n| trace | optimum |{}\n",
        names.collect::<String>()
    );
    let _ = writeln!(table, "|{}", " --- |".repeat(2 + POLICIES.len() + RIVALS.len()));
    for trace in traces() {
        let measure = |columns: &[Column]| -> Vec<f64> { columns.iter().map(|(_, on)| on(&trace)).collect() };
        let (greenwave, rivals) = (measure(&POLICIES), measure(&RIVALS));
        let cells: String = greenwave.iter().chain(&rivals).map(|hits| format!(" {hits:.1} |")).collect();
        let _ = writeln!(table, "| {} | {:.1} |{cells}", trace.name, optimal_hits(&trace));
        let best = rivals.iter().copied().fold(0.0, f64::max);
        let behind = Row::new(
            format!("{}: points behind the best rival", trace.name),
            "points",
            [best - greenwave[0]],
        );
        rows.push(behind.at_most(BEHIND_MAX));
        let limit = match trace.name {
            name if name.starts_with("phases") => Some(PHASES_MISSES_MAX),
            name if name.ends_with("1.5 suites") => Some(AGENTS_MISSES_MAX),
            _ => None,
        };
        let misses =
            |limit| Row::new(format!("{}: misses", trace.name), "%", [100.0 - greenwave[0]]).at_most(limit);
        rows.extend(limit.map(misses));
    }
    table
}

/// Returns the output of a test, about 4 KB and different for each number.
fn output(number: u64) -> Bytes {
    let mut random = Random(number);
    let mut text = String::new();
    while text.len() < 4_000 {
        let (module, test) = (random.below(40), random.below(1000));
        let _ =
            writeln!(text, "test module_{module}::case_{test}_holds ... ok in {} us", random.below(10_000));
    }
    Bytes::from(text)
}

fn record(number: u64) -> (Key, Record) {
    let cost = Duration::from_millis(250);
    (key(number), Record { schema: 1, created_ms: number, cost, tags: vec![], payload: output(number) })
}

/// Returns the resident memory of this process, in bytes.
fn resident_bytes() -> f64 {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("Linux has /proc");
    let pages: f64 =
        statm.split(' ').nth(1).and_then(|pages| pages.parse().ok()).expect("the second field is a number");
    pages * 4096.0
}

/// Variable that makes this program fill a cache with the given number of results, and print how
/// many bytes each of them takes.
const FILL: &str = "CACHE_FILL";

fn fill(results: u64) {
    let backend = MemoryBackend::new(results as usize * 2, results * 16_000).expect("the options are valid");
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime can be created");
    let before = resident_bytes();
    for number in 0..results {
        let (key, record) = record(number);
        let put = backend.put(&key, record.encode(&key), None);
        runtime.block_on(put).expect("the backend stores the record");
    }
    println!("{}", (resident_bytes() - before) / results as f64);
}

/// Returns the bytes of memory per result, measured in a new process.
fn bytes_each(results: u64) -> f64 {
    let program = std::env::current_exe().expect("a running program has an executable");
    let child = std::process::Command::new(program).arg("--bench").env(FILL, results.to_string()).output();
    let output = child.expect("the program can be started again").stdout;
    String::from_utf8_lossy(&output).trim().parse().expect("the child prints a number")
}

fn memory(rows: &mut Vec<Row>) -> f64 {
    let few = bytes_each(1_000);
    rows.push(Row::new("memory per result of 4 KB, 1,000 results", "bytes", [few]));
    rows.push(Row::new("memory per result of 4 KB, 100,000 results", "bytes", [bytes_each(100_000)]));
    few * 1_000.0
}

fn directory_bytes(directory: &Path) -> f64 {
    let files = std::fs::read_dir(directory).expect("the directory exists").flatten();
    files.map(|file| file.metadata().map_or(0, |metadata| metadata.len()) as f64).sum()
}

fn disk(rows: &mut Vec<Row>, memory_bytes: f64) {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime can be created");
    runtime.block_on(async {
        let few = tempfile::tempdir().expect("a temporary directory can be created");
        put_results(few.path(), 1_000).await;
        let total = (memory_bytes + directory_bytes(few.path())) / 1e6;
        let name = "1,000 results of 4 KB, memory and disk together";
        rows.push(Row::new(name, "MB", [total]).at_most(RESULTS_MB_MAX));
        let many = tempfile::tempdir().expect("a temporary directory can be created");
        put_results(many.path(), 100_000).await;
        let disk_each = directory_bytes(many.path()) / 100_000.0;
        rows.push(Row::new("disk per result of 4 KB, 100,000 results", "bytes", [disk_each]));
        let open = || DiskBackend::open(many.path(), options()).expect("the directory opens");
        let opens: Vec<f64> = (0..9).map(|_| timed(open).1 * 1e3).collect();
        rows.push(Row::new("open a store of 100,000 results", "ms", opens).at_most(OPEN_MS_MAX));
        let (backend, mut random, mut gets) = (open(), Random(1), Vec::new());
        for _ in 0..20_000 {
            let (key, begun) = (key(random.below(100_000)), Instant::now());
            let found = backend.get(&key).await.expect("the backend reads");
            gets.push(begun.elapsed().as_secs_f64() * 1e6);
            assert!(found.is_some());
        }
        rows.push(Row::new("get from disk, page cache warm", "us", gets).at_most(DISK_GET_US_MAX));
    });
}

fn options() -> DiskOptions {
    DiskOptions { disk_bytes_max: None, ..DiskOptions::default() }
}

async fn put_results(directory: &Path, results: u64) {
    let backend = DiskBackend::open(directory, options()).expect("the directory opens");
    for number in 0..results {
        let (key, record) = record(number);
        backend.put(&key, record.encode(&key), None).await.expect("the backend stores the record");
    }
    backend.close().await.expect("the backend closes");
}

fn tiered(memory: &Arc<MemoryBackend>, slow: &Arc<dyn Backend>, predictor: Option<Predictor>) -> Tiered {
    let tiers = vec![Tier::new("memory", memory.clone()), Tier::new("slow", slow.clone())];
    Tiered::new(tiers, TieredOptions { predictor: predictor.map(Arc::new), ..TieredOptions::new(1) })
}

fn small_record(number: u64) -> Record {
    let payload = Bytes::copy_from_slice(&number.to_le_bytes());
    Record { schema: 1, created_ms: 0, cost: Duration::ZERO, tags: vec![], payload }
}

/// Reads the keys, and puts each record that no tier has. Returns the misses of the first tier in
/// percent.
async fn memory_misses(tiered: &Tiered, keys: &[u64]) -> f64 {
    let (before, mut trail) = (tiered.stats().tiers[0].hits, Trail::default());
    for number in keys {
        let key = spread(*number);
        if tiered.get_with_trail(&mut trail, &key).await.is_none() {
            tiered.put(&key, &small_record(*number)).await.expect("the backends report no errors");
        }
        // Prefetches finish before the next read, as they would while a test runs.
        for _ in 0..8 {
            tokio::task::yield_now().await;
        }
    }
    let hits = tiered.stats().tiers[0].hits - before;
    100.0 - hits as f64 * 100.0 / keys.len() as f64
}

/// Measures the misses after a restart, and the effect of prediction.
fn tiers(rows: &mut Vec<Row>) {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime can be created");
    let memory = |entries| Arc::new(MemoryBackend::new(entries, 1 << 30).expect("the options are valid"));
    let slow = || memory(1_000_000) as Arc<dyn Backend>;
    runtime.block_on(async {
        let (zipf, mut random) = (Zipf::new(10_000, 0.9), Random(1));
        let mut draw = |reads: usize| -> Vec<u64> { (0..reads).map(|_| zipf.draw(&mut random)).collect() };
        let (slow_tier, first) = (slow(), memory(1_000));
        let running = tiered(&first, &slow_tier, None);
        memory_misses(&running, &draw(100_000)).await;
        let before = memory_misses(&running, &draw(2_000)).await;
        running.save_heat(&first, 1_000).await.expect("the backends report no errors");
        let second = memory(1_000);
        let restarted = tiered(&second, &slow_tier, None);
        let begun = Instant::now();
        let warmed = restarted.warm(&second).await;
        let took = begun.elapsed().as_secs_f64() * 1e3;
        assert!(warmed > 900, "{warmed} records were hot");
        let after = memory_misses(&restarted, &draw(2_000)).await;
        let name = "2,000 reads after a warm restart: misses of the memory tier by those before";
        rows.push(Row::new(name, "x", [after / before]).at_most(RESTART_MISSES_MAX));
        let cold = memory_misses(&tiered(&memory(1_000), &slow_tier, None), &draw(2_000)).await;
        rows.push(Row::new(
            "2,000 reads after a cold restart: misses of the memory tier by those before",
            "x",
            [cold / before],
        ));
        rows.push(Row::new("warm 1,000 records from a tier in memory", "ms", [took]));

        let traces = traces();
        let agents =
            traces.iter().find(|trace| trace.name.ends_with("half the suite")).expect("the trace exists");
        let keys = &agents.keys[..100_000];
        let plain = memory_misses(&tiered(&memory(agents.capacity), &slow(), None), keys).await;
        let predictor = Predictor::new(20_000, 4).expect("the options are valid");
        let predicting = tiered(&memory(agents.capacity), &slow(), Some(predictor));
        let predicted = memory_misses(&predicting, keys).await;
        let name = "agents' trace, room for half: misses of the memory tier with prediction by those without";
        rows.push(Row::new(name, "x", [predicted / plain]).at_most(PREDICTED_MISSES_MAX));
        let stats = predicting.stats();
        let wasted = 100.0 - stats.prefetch_hits as f64 * 100.0 / stats.prefetched as f64;
        rows.push(Row::new("prefetched records that were never read", "%", [wasted]).at_most(WASTED_MAX));
    });
}

fn timed<T>(work: impl FnOnce() -> T) -> (T, f64) {
    let begun = Instant::now();
    (work(), begun.elapsed().as_secs_f64())
}

fn main() {
    if !is_measuring() {
        return;
    }
    if let Some(results) = std::env::var(FILL).ok().and_then(|results| results.parse().ok()) {
        return fill(results);
    }
    let mut rows = Vec::new();
    speed(&mut rows);
    let memory_bytes = memory(&mut rows);
    disk(&mut rows, memory_bytes);
    tiers(&mut rows);
    let table = hit_ratios(&mut rows);
    let about = Box::leak(format!("{}{table}", ABOUT.trim()).into_boxed_str());
    Page { suite: "versus-cache", about, rows }.publish();
}
