//! Requests over TCP: batches, and many requests on one connection.

use std::time::Instant;

use greenwave_benches::{Result, Row};
use greenwave_pooling::{
    Balanced, BatchOptions, Batcher, LengthFraming, Multiplexed, MultiplexedOptions, Pool, Tcp,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;

use crate::peer::CONNECTIONS;
use crate::rivals::no_limits;
use crate::{ROUNDS, TASKS};

/// Expectations, from the issue that introduced the suite.
const BATCHED_NS: f64 = 1000.0;
const MULTIPLEXED_PERCENT: f64 = 66.7;

/// Measures requests that a batcher combines.
pub(crate) fn batches(runtime: &Runtime, rows: &mut Vec<Row>) {
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

/// Measures requests on connections that are lent, and on connections that carry many.
pub(crate) fn requests(runtime: &Runtime, rows: &mut Vec<Row>) -> Result<()> {
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0"))?;
    let address = listener.local_addr()?.to_string();
    runtime.spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            stream.set_nodelay(true).expect("the option exists for TCP");
            tokio::spawn(echo(stream));
        }
    });
    let pool = Pool::new(Tcp::new(address.clone()), no_limits());
    let mut lines = Vec::new();
    for _ in 0..CONNECTIONS {
        let stream = runtime.block_on(TcpStream::connect(&address))?;
        stream.set_nodelay(true)?;
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
    Ok(())
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
