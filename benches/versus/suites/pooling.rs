//! Compares connection pools: one task, many tasks on few connections, and recovery after the peer
//! restarts. Also measures object pools, batches, and many requests on one connection.

use std::convert::Infallible;
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use greenwave_benches::{Page, Row, is_measuring};
use greenwave_pooling::{
    Balanced, BatchOptions, Batcher, LengthFraming, Manager, Multiplexed, MultiplexedOptions, ObjectPool,
    Pool, PoolOptions, Tcp,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;

const ABOUT: &str = "
*Pools*: 8 connections that cost nothing to open and check, on a runtime of two threads. Time limits
are off in every pool, which is its fastest configuration; *Greenwave, defaults* has all of
Greenwave's defaults. Every round measures all pools.

- *one task*: one task checks a connection out and returns it.
- *64 on 8, yield*: each of 64 tasks checks out a connection, yields once and returns it, 500 times.
  Rows show the time per checkout, and percentiles and the maximum of the wait for a connection over
  all checkouts of a round. *unfinished*: tasks that did not finish within 20 s. In bb8 and
  fast_pool, new requests overtake waiting ones, which gives a low median and a high maximum.
- *64 on 8, 100 us*: the same 20 times, with each connection held for 100 us, yielding meanwhile.
- *storm*: connecting takes 2 ms, and all 8 connections have just been lost. Time until each of 64
  tasks has been served once.

*Objects*: take and return a buffer with 4 KiB of capacity, cleared, or one of 64 KiB, which the
allocator zeroes.
*Batcher*: each of 64 tasks submits a number 500 times, to a handler that returns it. Time per
request.

*Requests*: each of 64 tasks requests 64 bytes 200 times on the loopback, over 8 connections. A
connection is either lent to one request at a time, or carries many. The peer responds at once to
everything that it has read.";

/// Expectations, from the issue that introduced the suite.
const ONE_TASK_NS: f64 = 30.0;
const OF_RIVALS_PERCENT: f64 = 20.0;
const OF_DEADPOOL_PERCENT: f64 = 100.0;
const P99_US: f64 = 45.0;
const BATCHED_NS: f64 = 1000.0;
const MULTIPLEXED_PERCENT: f64 = 66.7;

const CONNECTIONS: usize = 8;
const TASKS: usize = 64;
const ROUNDS: usize = 7;
const TIME_MAX: Duration = Duration::from_secs(20);

fn main() {
    if !is_measuring() {
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("tokio starts");
    let mut rows = Vec::new();
    pools(&runtime, &mut rows);
    objects(&mut rows);
    batches(&runtime, &mut rows);
    requests(&runtime, &mut rows);
    Page { suite: "versus-pooling", about: ABOUT, rows }.publish();
}

/// A simulated peer of all pools.
#[derive(Debug, Clone, Default)]
struct Peer {
    /// Number of restarts.
    restarts: Arc<AtomicUsize>,
    /// Time that connecting takes.
    connect: Duration,
}

/// A connection of 32 bytes, which holds the number of the peer's restarts when it was opened.
type Connection = [usize; 4];

#[derive(Debug)]
struct Lost;

impl From<&str> for Lost {
    fn from(_: &str) -> Self {
        Self
    }
}

impl std::fmt::Display for Lost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("lost")
    }
}

impl std::error::Error for Lost {}

impl Peer {
    async fn open(&self) -> Connection {
        if !self.connect.is_zero() {
            tokio::time::sleep(self.connect).await;
        }
        [self.restarts.load(Ordering::Relaxed); 4]
    }

    fn is_alive(&self, connection: &Connection) -> bool {
        connection[0] == self.restarts.load(Ordering::Relaxed)
    }

    fn check_alive(&self, connection: &Connection) -> Result<(), Lost> {
        if self.is_alive(connection) { Ok(()) } else { Err(Lost) }
    }
}

#[async_trait::async_trait]
impl Manager for Peer {
    type Connection = Connection;
    type Error = Infallible;

    async fn connect(&self) -> Result<Connection, Infallible> {
        Ok(self.open().await)
    }

    async fn check(&self, _: &mut Connection) -> Result<(), Infallible> {
        Ok(())
    }

    fn is_broken(&self, connection: &mut Connection) -> bool {
        !self.is_alive(connection)
    }
}

impl deadpool::managed::Manager for Peer {
    type Type = Connection;
    type Error = Lost;

    async fn create(&self) -> Result<Connection, Lost> {
        Ok(self.open().await)
    }

    async fn recycle(
        &self,
        connection: &mut Connection,
        _: &deadpool::managed::Metrics,
    ) -> deadpool::managed::RecycleResult<Lost> {
        Ok(self.check_alive(connection)?)
    }
}

impl bb8::ManageConnection for Peer {
    type Connection = Connection;
    type Error = Lost;

    async fn connect(&self) -> Result<Connection, Lost> {
        Ok(self.open().await)
    }

    async fn is_valid(&self, connection: &mut Connection) -> Result<(), Lost> {
        self.check_alive(connection)
    }

    fn has_broken(&self, connection: &mut Connection) -> bool {
        !self.is_alive(connection)
    }
}

#[async_trait::async_trait]
impl mobc::Manager for Peer {
    type Connection = Connection;
    type Error = Lost;

    async fn connect(&self) -> Result<Connection, Lost> {
        Ok(self.open().await)
    }

    async fn check(&self, connection: Connection) -> Result<Connection, Lost> {
        self.check_alive(&connection).map(|()| connection)
    }
}

impl fast_pool::Manager for Peer {
    type Connection = Connection;
    type Error = Lost;

    async fn connect(&self) -> Result<Connection, Lost> {
        Ok(self.open().await)
    }

    async fn check(&self, connection: &mut Connection) -> Result<(), Lost> {
        self.check_alive(connection)
    }
}

/// The common interface of the pools.
trait PoolUnderTest: Clone + Send + Sync + 'static {
    type Lease: Send;
    fn lend(&self) -> impl Future<Output = Self::Lease> + Send;
}

#[derive(Clone)]
struct Greenwave(Pool<Peer>);
#[derive(Clone)]
struct Deadpool(deadpool::managed::Pool<Peer>);
#[derive(Clone)]
struct Bb8(bb8::Pool<Peer>);
#[derive(Clone)]
struct Mobc(mobc::Pool<Peer>);
#[derive(Clone)]
struct FastPool(fast_pool::Pool<Peer>);

const LENT: &str = "the peer accepts every connection";

impl PoolUnderTest for Greenwave {
    type Lease = greenwave_pooling::Lease<Peer>;
    async fn lend(&self) -> Self::Lease {
        self.0.get().await.expect(LENT)
    }
}

impl PoolUnderTest for Deadpool {
    type Lease = deadpool::managed::Object<Peer>;
    async fn lend(&self) -> Self::Lease {
        self.0.get().await.expect(LENT)
    }
}

impl PoolUnderTest for Bb8 {
    type Lease = bb8::PooledConnection<'static, Peer>;
    async fn lend(&self) -> Self::Lease {
        self.0.get_owned().await.expect(LENT)
    }
}

impl PoolUnderTest for Mobc {
    type Lease = mobc::Connection<Peer>;
    async fn lend(&self) -> Self::Lease {
        self.0.get().await.expect(LENT)
    }
}

impl PoolUnderTest for FastPool {
    type Lease = fast_pool::ConnectionGuard<Peer>;
    fn lend(&self) -> impl Future<Output = Self::Lease> + Send {
        let pool = self.0.clone();
        async move { pool.get().await.expect(LENT) }
    }
}

fn no_limits() -> PoolOptions {
    PoolOptions {
        size_min: 0,
        size_max: CONNECTIONS,
        idle_timeout: None,
        max_lifetime: None,
        checkout_timeout: None,
        connect_timeout: None,
        check_after: None,
        ..PoolOptions::default()
    }
}

#[derive(Debug, Default)]
struct PoolSamples {
    one: Vec<f64>,
    each: Vec<f64>,
    waits: [Vec<f64>; 4],
    unfinished: Vec<f64>,
    held: Vec<f64>,
    held_max: Vec<f64>,
    storm: Vec<f64>,
}

const NAMES: [&str; 6] = ["Greenwave", "Greenwave, defaults", "deadpool", "bb8", "mobc", "fast_pool"];

fn pools(runtime: &Runtime, rows: &mut Vec<Row>) {
    let mut found: [PoolSamples; 6] = Default::default();
    for _ in 0..ROUNDS {
        for (at, found) in found.iter_mut().enumerate() {
            measure(runtime, at, found);
        }
    }
    let of = |at: usize, pick: fn(&PoolSamples) -> &Vec<f64>| {
        let (greenwave, other) = (pick(&found[0]), pick(&found[at]));
        greenwave.iter().zip(other).map(|(greenwave, other)| greenwave / other * 100.0).collect::<Vec<_>>()
    };
    rows.push(
        Row::new("one task, Greenwave / deadpool", "%", of(2, |it| &it.one)).at_most(OF_RIVALS_PERCENT),
    );
    rows.push(Row::new("one task, Greenwave / bb8", "%", of(3, |it| &it.one)).at_most(OF_RIVALS_PERCENT));
    rows.push(
        Row::new("64 on 8, yield, Greenwave / deadpool", "%", of(2, |it| &it.each))
            .at_most(OF_DEADPOOL_PERCENT),
    );
    for (name, found) in NAMES.iter().zip(found) {
        let has_expectations = *name == "Greenwave";
        let row = |what: &str, unit, samples: Vec<f64>| Row::new(format!("{what}, {name}"), unit, samples);
        let expected = |row: Row, limit| if has_expectations { row.at_most(limit) } else { row };
        rows.push(expected(row("one task", "ns", found.one), ONE_TASK_NS));
        rows.push(row("64 on 8, yield", "ns", found.each));
        for (percentile, samples) in ["p50", "p99", "p99.9", "max"].iter().zip(found.waits) {
            let row = row(&format!("64 on 8, yield, {percentile}"), "us", samples);
            rows.push(if *percentile == "p99" { expected(row, P99_US) } else { row });
        }
        rows.push(row("64 on 8, yield, unfinished", "tasks", found.unfinished));
        rows.push(row("64 on 8, 100 us", "us", found.held));
        rows.push(row("64 on 8, 100 us, max", "us", found.held_max));
        rows.push(row("storm", "ms", found.storm));
    }
}

fn measure(runtime: &Runtime, which: usize, found: &mut PoolSamples) {
    let peer = |connect: u64| Peer { connect: Duration::from_millis(connect), ..Peer::default() };
    let size = CONNECTIONS;
    match which {
        0 => rounds(runtime, found, peer, |peer| async { Greenwave(Pool::new(peer, no_limits())) }),
        1 => rounds(runtime, found, peer, |peer| async {
            Greenwave(Pool::new(
                peer,
                PoolOptions { size_min: 0, size_max: CONNECTIONS, ..PoolOptions::default() },
            ))
        }),
        2 => rounds(runtime, found, peer, |peer| async move {
            Deadpool(
                deadpool::managed::Pool::builder(peer).max_size(size).build().expect("the options are valid"),
            )
        }),
        3 => rounds(runtime, found, peer, |peer| async move {
            let pool = bb8::Pool::builder().max_size(size as u32).test_on_check_out(false);
            Bb8(pool.idle_timeout(None).max_lifetime(None).build(peer).await.expect(LENT))
        }),
        4 => rounds(runtime, found, peer, |peer| async move {
            Mobc(
                mobc::Pool::builder()
                    .max_open(size as u64)
                    .max_idle(size as u64)
                    .get_timeout(None)
                    .build(peer),
            )
        }),
        _ => rounds(runtime, found, peer, |peer| async move {
            let pool = fast_pool::Pool::new(peer);
            pool.set_max_open(size as u64);
            pool.set_timeout_check(None);
            FastPool(pool)
        }),
    }
}

fn rounds<P: PoolUnderTest, F: Future<Output = P>>(
    runtime: &Runtime,
    found: &mut PoolSamples,
    peer: impl Fn(u64) -> Peer,
    make: impl Fn(Peer) -> F,
) {
    let pool = runtime.block_on(make(peer(0)));
    found.one.push(one_task(runtime, &pool));
    let crowd = crowd(runtime, &pool, 500, Duration::ZERO);
    found.each.push(crowd.each.as_nanos() as f64);
    for (samples, per_mille) in found.waits.iter_mut().zip([500, 990, 999, 1000]) {
        samples.push(crowd.wait(per_mille).as_nanos() as f64 / 1e3);
    }
    found.unfinished.push(crowd.unfinished as f64);
    let held = self::crowd(runtime, &pool, 20, Duration::from_micros(100));
    found.held.push(held.each.as_nanos() as f64 / 1e3);
    found.held_max.push(held.wait(1000).as_nanos() as f64 / 1e3);
    let slow = peer(2);
    let pool = runtime.block_on(make(slow.clone()));
    found.storm.push(storm(runtime, &pool, &slow).as_nanos() as f64 / 1e6);
}

fn one_task<P: PoolUnderTest>(runtime: &Runtime, pool: &P) -> f64 {
    const TIMES: u32 = 100_000;
    let pool = pool.clone();
    let run = async move {
        drop(pool.lend().await);
        let begun = Instant::now();
        for _ in 0..TIMES {
            drop(black_box(pool.lend().await));
        }
        begun.elapsed().as_nanos() as f64 / f64::from(TIMES)
    };
    runtime.block_on(runtime.spawn(run)).expect("tasks do not panic")
}

struct Crowd {
    each: Duration,
    waits: Vec<Duration>,
    unfinished: usize,
}

impl Crowd {
    fn wait(&self, per_mille: usize) -> Duration {
        self.waits[((self.waits.len() - 1) * per_mille) / 1000]
    }
}

fn crowd<P: PoolUnderTest>(runtime: &Runtime, pool: &P, times: usize, hold: Duration) -> Crowd {
    let begun = Instant::now();
    let tasks: Vec<_> = (0..TASKS)
        .map(|_| {
            let pool = pool.clone();
            runtime.spawn(async move {
                let mut waits = Vec::with_capacity(times);
                for _ in 0..times {
                    let asked = Instant::now();
                    let lease = pool.lend().await;
                    let lent = Instant::now();
                    waits.push(lent - asked);
                    tokio::task::yield_now().await;
                    while lent.elapsed() < hold {
                        tokio::task::yield_now().await;
                    }
                    drop(lease);
                }
                waits
            })
        })
        .collect();
    let (mut waits, mut unfinished) = (Vec::new(), 0);
    for task in tasks {
        let left = TIME_MAX.saturating_sub(begun.elapsed());
        let stop = task.abort_handle();
        match runtime.block_on(async { tokio::time::timeout(left, task).await }) {
            Ok(done) => waits.extend(done.expect("tasks do not panic")),
            Err(_) => {
                stop.abort();
                unfinished += 1;
            }
        }
    }
    let each = begun.elapsed() / (TASKS * times) as u32;
    waits.sort_unstable();
    if waits.is_empty() {
        waits.push(TIME_MAX);
    }
    Crowd { each, waits, unfinished }
}

/// Opens all connections, restarts the peer, and measures the time until every task was served.
fn storm<P: PoolUnderTest>(runtime: &Runtime, pool: &P, peer: &Peer) -> Duration {
    let mut leases = Vec::new();
    for _ in 0..CONNECTIONS {
        leases.push(runtime.block_on(async { pool.lend().await }));
    }
    peer.restarts.fetch_add(1, Ordering::Relaxed);
    let begun = Instant::now();
    let tasks: Vec<_> = (0..TASKS)
        .map(|_| {
            let pool = pool.clone();
            runtime.spawn(async move {
                let lease = pool.lend().await;
                tokio::task::yield_now().await;
                drop(lease);
            })
        })
        .collect();
    let _entered = runtime.enter();
    drop(leases);
    runtime.block_on(async {
        for task in tasks {
            task.await.expect("tasks do not panic");
        }
    });
    begun.elapsed()
}

struct Buffers;

impl opool::PoolAllocator<Vec<u8>> for Buffers {
    fn allocate(&self) -> Vec<u8> {
        Vec::with_capacity(4096)
    }

    fn reset(&self, buffer: &mut Vec<u8>) {
        buffer.clear();
    }
}

fn per_call(mut call: impl FnMut()) -> f64 {
    const TIMES: u32 = 100_000;
    let begun = Instant::now();
    (0..TIMES).for_each(|_| call());
    begun.elapsed().as_nanos() as f64 / f64::from(TIMES)
}

fn objects(rows: &mut Vec<Row>) {
    let small = ObjectPool::new(
        64,
        || Vec::<u8>::with_capacity(4096),
        |buffer| {
            buffer.clear();
            true
        },
    );
    let large = ObjectPool::new(64, || vec![0_u8; 1 << 16], |_| true);
    let opool = opool::Pool::new(64, Buffers);
    let list = parking_lot::Mutex::new(Vec::<Vec<u8>>::new());
    let mut found: [Vec<f64>; 6] = Default::default();
    for _ in 0..ROUNDS {
        let times = [
            per_call(|| drop(black_box(small.get()))),
            per_call(|| drop(black_box(opool.get()))),
            per_call(|| {
                let taken = list.lock().pop();
                let mut buffer = black_box(taken.unwrap_or_else(|| Vec::with_capacity(4096)));
                buffer.clear();
                list.lock().push(buffer);
            }),
            per_call(|| drop(black_box(Vec::<u8>::with_capacity(4096)))),
            per_call(|| drop(black_box(large.get()))),
            per_call(|| {
                let mut buffer = vec![0_u8; 1 << 16];
                black_box(&mut buffer);
            }),
        ];
        found.iter_mut().zip(times).for_each(|(samples, time)| samples.push(time));
    }
    let names = [
        "4 KiB, Greenwave",
        "4 KiB, opool",
        "4 KiB, Mutex<Vec>",
        "4 KiB, malloc",
        "64 KiB, Greenwave",
        "64 KiB, zeroed by the allocator",
    ];
    for (name, samples) in names.iter().zip(found) {
        rows.push(Row::new(format!("object, {name}"), "ns", samples));
    }
}

fn batches(runtime: &Runtime, rows: &mut Vec<Row>) {
    const TIMES: usize = 500;
    let mut samples = Vec::new();
    for _ in 0..ROUNDS {
        let _entered = runtime.enter();
        let batcher = Batcher::new(BatchOptions::default(), async |numbers: Vec<u64>| numbers);
        let begun = Instant::now();
        let tasks: Vec<_> = (0..TASKS as u64)
            .map(|task| {
                let batcher = batcher.clone();
                runtime.spawn(async move {
                    for _ in 0..TIMES {
                        assert_eq!(batcher.submit(task).await.expect("the handler returns"), task);
                    }
                })
            })
            .collect();
        runtime.block_on(async {
            for task in tasks {
                task.await.expect("tasks do not panic");
            }
        });
        samples.push(begun.elapsed().as_nanos() as f64 / (TASKS * TIMES) as f64);
    }
    rows.push(Row::new("batched request, saturated", "ns", samples).at_most(BATCHED_NS));
}

/// Responds to each frame with the same frame. Frames that arrive together are answered together.
async fn echo(mut stream: TcpStream) {
    let (mut bytes, mut answers) = (Vec::with_capacity(1 << 16), Vec::new());
    while stream.read_buf(&mut bytes).await.is_ok_and(|read| read > 0) {
        let mut taken = 0;
        while let Some((length, ..)) = LengthFraming::read(&bytes[taken..]) {
            taken += length;
        }
        answers.extend(bytes.drain(..taken));
        if stream.write_all(&answers).await.is_err() {
            return;
        }
        answers.clear();
    }
}

fn requests(runtime: &Runtime, rows: &mut Vec<Row>) {
    let listener =
        runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("the loopback accepts listeners");
    let address = listener.local_addr().expect("a listener has an address").to_string();
    runtime.spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            stream.set_nodelay(true).expect("the option exists for TCP");
            tokio::spawn(echo(stream));
        }
    });
    let pool = Pool::new(Tcp::new(address.clone()), no_limits());
    let mut lines = Vec::new();
    for _ in 0..CONNECTIONS {
        let stream = runtime.block_on(TcpStream::connect(&address)).expect("the peer listens");
        stream.set_nodelay(true).expect("the option exists for TCP");
        let _entered = runtime.enter();
        lines.push(Multiplexed::new(stream, LengthFraming, MultiplexedOptions::default()));
    }
    let balanced = Balanced::new(lines, Some(0));
    let (mut exclusive, mut multiplexed, mut shares) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let pool = pool.clone();
        let one = request_us(runtime, move || {
            let pool = pool.clone();
            async move {
                let mut lease = pool.get().await.expect("the peer listens");
                let mut frame = Vec::with_capacity(76);
                LengthFraming::write(1, &[7; 64], &mut frame).expect("the frame is short");
                lease.write_all(&frame).await.expect("the peer reads");
                lease.read_exact(&mut frame).await.expect("the peer responds");
                assert_eq!(frame[75], 7);
            }
        });
        let balanced = balanced.clone();
        let other = request_us(runtime, move || {
            let balanced = balanced.clone();
            async move {
                let answer = balanced.request(vec![7; 64]).await.expect("the peer responds");
                assert_eq!(answer, [7; 64]);
            }
        });
        shares.push(other / one * 100.0);
        exclusive.push(one);
        multiplexed.push(other);
    }
    rows.push(Row::new("request, multiplexed / exclusive", "%", shares).at_most(MULTIPLEXED_PERCENT));
    rows.push(Row::new("request, exclusive", "us", exclusive));
    rows.push(Row::new("request, multiplexed", "us", multiplexed));
}

/// Returns the microseconds per request.
fn request_us<F>(runtime: &Runtime, request: impl Fn() -> F + Clone + Send + 'static) -> f64
where
    F: Future<Output = ()> + Send,
{
    const TIMES: usize = 200;
    let begun = Instant::now();
    let tasks: Vec<_> = (0..TASKS)
        .map(|_| {
            let request = request.clone();
            runtime.spawn(async move {
                for _ in 0..TIMES {
                    request().await;
                }
            })
        })
        .collect();
    runtime.block_on(async {
        for task in tasks {
            task.await.expect("tasks do not panic");
        }
    });
    begun.elapsed().as_nanos() as f64 / 1e3 / (TASKS * TIMES) as f64
}
