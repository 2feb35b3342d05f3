//! Pools beside others: one task, many tasks on few connections, what is left after the other side was restarted; objects; batches; many
//! requests on one connection.

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
*Pools*: 8 connections that cost nothing to make and to check, a runtime of two threads; each pool without limits of time, which is the
fastest that each can be set to; *ours, defaults* with all of ours. Every round goes through all pools.

- *one task*: check out and give back, in one task.
- *64 on 8, yield*: 64 tasks, each of them 500 times: check out, yield once, give back. Time for one of these, and how long one check-out
  took: percentiles and maximum over all check-outs of a round. *Finished*: tasks that came to their end within 20 s.
  bb8 and fast_pool let others overtake who wait: a low median beside a high maximum.
- *64 on 8, 100 us*: the same 20 times, with a connection held for 100 us, yielding meanwhile.
- *storm*: connecting takes 2 ms, and all 8 connections have just been lost; until 64 tasks have each been served once.

*Objects*: take and give back a buffer with 4 KiB of capacity, cleared; of 64 KiB, zeroed where it is made anew.
*Batcher*: 64 tasks that each submit a number 500 times, to a handler that returns them; for one request, all included.

*Requests*: 64 tasks that each ask 200 times for 64 bytes on the loopback, over 8 connections: each lent to one request at a time, or carrying
many. The other side answers what it has read at once.";

/// What the issue asks for.
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

/// The other side: which of its lives it is in, and how long it takes to connect.
#[derive(Debug, Clone, Default)]
struct Peer {
    life: Arc<AtomicUsize>,
    connect: Duration,
}

/// 32 bytes, of one life of the other side.
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
        [self.life.load(Ordering::Relaxed); 4]
    }

    fn is_alive(&self, connection: &Connection) -> bool {
        connection[0] == self.life.load(Ordering::Relaxed)
    }

    fn look(&self, connection: &Connection) -> Result<(), Lost> {
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
        Ok(self.look(connection)?)
    }
}

impl bb8::ManageConnection for Peer {
    type Connection = Connection;
    type Error = Lost;

    async fn connect(&self) -> Result<Connection, Lost> {
        Ok(self.open().await)
    }

    async fn is_valid(&self, connection: &mut Connection) -> Result<(), Lost> {
        self.look(connection)
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
        self.look(&connection).map(|()| connection)
    }
}

impl fast_pool::Manager for Peer {
    type Connection = Connection;
    type Error = Lost;

    async fn connect(&self) -> Result<Connection, Lost> {
        Ok(self.open().await)
    }

    async fn check(&self, connection: &mut Connection) -> Result<(), Lost> {
        self.look(connection)
    }
}

/// A pool, ours or another's.
trait Lends: Clone + Send + Sync + 'static {
    type Lease: Send;
    fn lend(&self) -> impl Future<Output = Self::Lease> + Send;
}

#[derive(Clone)]
struct Ours(Pool<Peer>);
#[derive(Clone)]
struct Deadpool(deadpool::managed::Pool<Peer>);
#[derive(Clone)]
struct Bb8(bb8::Pool<Peer>);
#[derive(Clone)]
struct Mobc(mobc::Pool<Peer>);
#[derive(Clone)]
struct FastPool(fast_pool::Pool<Peer>);

const LENT: &str = "the other side lets everybody in";

impl Lends for Ours {
    type Lease = greenwave_pooling::Lease<Peer>;
    async fn lend(&self) -> Self::Lease {
        self.0.get().await.expect(LENT)
    }
}

impl Lends for Deadpool {
    type Lease = deadpool::managed::Object<Peer>;
    async fn lend(&self) -> Self::Lease {
        self.0.get().await.expect(LENT)
    }
}

impl Lends for Bb8 {
    type Lease = bb8::PooledConnection<'static, Peer>;
    async fn lend(&self) -> Self::Lease {
        self.0.get_owned().await.expect(LENT)
    }
}

impl Lends for Mobc {
    type Lease = mobc::Connection<Peer>;
    async fn lend(&self) -> Self::Lease {
        self.0.get().await.expect(LENT)
    }
}

impl Lends for FastPool {
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
struct Found {
    one: Vec<f64>,
    each: Vec<f64>,
    waits: [Vec<f64>; 4],
    unfinished: Vec<f64>,
    held: Vec<f64>,
    held_max: Vec<f64>,
    storm: Vec<f64>,
}

const NAMES: [&str; 6] = ["ours", "ours, defaults", "deadpool", "bb8", "mobc", "fast_pool"];

fn pools(runtime: &Runtime, rows: &mut Vec<Row>) {
    let mut found: [Found; 6] = Default::default();
    for _ in 0..ROUNDS {
        for (at, found) in found.iter_mut().enumerate() {
            measure(runtime, at, found);
        }
    }
    let of = |at: usize, pick: fn(&Found) -> &Vec<f64>| {
        let (ours, other) = (pick(&found[0]), pick(&found[at]));
        ours.iter().zip(other).map(|(ours, other)| ours / other * 100.0).collect::<Vec<_>>()
    };
    rows.push(Row::new("one task, ours of deadpool's", "%", of(2, |it| &it.one)).at_most(OF_RIVALS_PERCENT));
    rows.push(Row::new("one task, ours of bb8's", "%", of(3, |it| &it.one)).at_most(OF_RIVALS_PERCENT));
    rows.push(
        Row::new("64 on 8, yield, ours of deadpool's", "%", of(2, |it| &it.each))
            .at_most(OF_DEADPOOL_PERCENT),
    );
    for (name, found) in NAMES.iter().zip(found) {
        let is_ours = *name == "ours";
        let row = |what: &str, unit, samples: Vec<f64>| Row::new(format!("{what}, {name}"), unit, samples);
        let expected = |row: Row, limit| if is_ours { row.at_most(limit) } else { row };
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

fn measure(runtime: &Runtime, which: usize, found: &mut Found) {
    let peer = |connect: u64| Peer { connect: Duration::from_millis(connect), ..Peer::default() };
    let size = CONNECTIONS;
    match which {
        0 => rounds(runtime, found, peer, |peer| async { Ours(Pool::new(peer, no_limits())) }),
        1 => rounds(runtime, found, peer, |peer| async {
            Ours(Pool::new(
                peer,
                PoolOptions { size_min: 0, size_max: CONNECTIONS, ..PoolOptions::default() },
            ))
        }),
        2 => rounds(runtime, found, peer, |peer| async move {
            Deadpool(deadpool::managed::Pool::builder(peer).max_size(size).build().expect("it is well set"))
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

fn rounds<P: Lends, F: Future<Output = P>>(
    runtime: &Runtime,
    found: &mut Found,
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

fn one_task<P: Lends>(runtime: &Runtime, pool: &P) -> f64 {
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
    runtime.block_on(runtime.spawn(run)).expect("no task fails")
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

fn crowd<P: Lends>(runtime: &Runtime, pool: &P, times: usize, hold: Duration) -> Crowd {
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
            Ok(done) => waits.extend(done.expect("no task fails")),
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

/// All connections are made, and then the other side is another one.
fn storm<P: Lends>(runtime: &Runtime, pool: &P, peer: &Peer) -> Duration {
    let mut leases = Vec::new();
    for _ in 0..CONNECTIONS {
        leases.push(runtime.block_on(async { pool.lend().await }));
    }
    peer.life.fetch_add(1, Ordering::Relaxed);
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
            task.await.expect("no task fails");
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
    let ours = ObjectPool::new(
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
            per_call(|| drop(black_box(ours.get()))),
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
        "4 KiB, ours",
        "4 KiB, opool",
        "4 KiB, Mutex<Vec>",
        "4 KiB, malloc",
        "64 KiB, ours",
        "64 KiB, zeroed by the allocator",
    ];
    for (name, samples) in names.iter().zip(found) {
        rows.push(Row::new(format!("object of {name}"), "ns", samples));
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
                        assert_eq!(batcher.submit(task).await.expect("it is handled"), task);
                    }
                })
            })
            .collect();
        runtime.block_on(async {
            for task in tasks {
                task.await.expect("no task fails");
            }
        });
        samples.push(begun.elapsed().as_nanos() as f64 / (TASKS * TIMES) as f64);
    }
    rows.push(Row::new("batched request, ours, saturated", "ns", samples).at_most(BATCHED_NS));
}

/// Answers each frame with itself, those that came together at once.
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
        runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("the loopback can be listened on");
    let address = listener.local_addr().expect("it has an address").to_string();
    runtime.spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            stream.set_nodelay(true).expect("it is a TCP connection");
            tokio::spawn(echo(stream));
        }
    });
    let pool = Pool::new(Tcp::new(address.clone()), no_limits());
    let mut lines = Vec::new();
    for _ in 0..CONNECTIONS {
        let stream = runtime.block_on(TcpStream::connect(&address)).expect("the other side listens");
        stream.set_nodelay(true).expect("it is a TCP connection");
        let _entered = runtime.enter();
        lines.push(Multiplexed::new(stream, LengthFraming, MultiplexedOptions::default()));
    }
    let balanced = Balanced::new(lines, Some(0));
    let (mut exclusive, mut multiplexed, mut shares) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let pool = pool.clone();
        let one = asks(runtime, move || {
            let pool = pool.clone();
            async move {
                let mut lease = pool.get().await.expect("the other side listens");
                let mut frame = Vec::with_capacity(76);
                LengthFraming::write(1, &[7; 64], &mut frame).expect("it is short");
                lease.write_all(&frame).await.expect("it is read");
                lease.read_exact(&mut frame).await.expect("it is answered");
                assert_eq!(frame[75], 7);
            }
        });
        let balanced = balanced.clone();
        let other = asks(runtime, move || {
            let balanced = balanced.clone();
            async move {
                let answer = balanced.request(vec![7; 64]).await.expect("it is answered");
                assert_eq!(answer, [7; 64]);
            }
        });
        shares.push(other / one * 100.0);
        exclusive.push(one);
        multiplexed.push(other);
    }
    rows.push(Row::new("request, multiplexed of exclusive", "%", shares).at_most(MULTIPLEXED_PERCENT));
    rows.push(Row::new("request, exclusive", "us", exclusive));
    rows.push(Row::new("request, multiplexed", "us", multiplexed));
}

/// Microseconds for one request.
fn asks<F>(runtime: &Runtime, ask: impl Fn() -> F + Clone + Send + 'static) -> f64
where
    F: Future<Output = ()> + Send,
{
    const TIMES: usize = 200;
    let begun = Instant::now();
    let tasks: Vec<_> = (0..TASKS)
        .map(|_| {
            let ask = ask.clone();
            runtime.spawn(async move {
                for _ in 0..TIMES {
                    ask().await;
                }
            })
        })
        .collect();
    runtime.block_on(async {
        for task in tasks {
            task.await.expect("no task fails");
        }
    });
    begun.elapsed().as_nanos() as f64 / 1e3 / (TASKS * TIMES) as f64
}
