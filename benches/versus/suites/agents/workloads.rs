//! The workloads: turns as fast as the server responds, and turns at the pace of a model.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use greenwave_benches::Result;
use tokio::runtime::Runtime;
use tokio::sync::Barrier;

use crate::contestants::Contestant;
use crate::memory;
use crate::server::{self, EVENTS, PACED_EVENTS, Server, TEXT};

/// Turns that are taken at once.
pub(crate) const STREAMS: usize = 64;
/// Turns that each of them takes in a round of the fast workload.
const TURNS: usize = 40;

/// Figures of one round of the fast workload.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fast {
    pub(crate) turns_per_second: f64,
    /// Processor time of this process per turn, in microseconds.
    pub(crate) processor_us: f64,
    /// Largest memory per stream, in kilobytes.
    pub(crate) peak_kb: f64,
    pub(crate) connections: f64,
}

/// Figures of one round of the paced workload.
#[derive(Debug, Clone)]
pub(crate) struct Paced {
    /// Time from sending each event until its text is handed on, in milliseconds, ascending.
    pub(crate) first_ms: Vec<f64>,
    pub(crate) all_ms: Vec<f64>,
    /// Memory per open stream, in kilobytes.
    pub(crate) open_kb: f64,
}

/// Takes turns as fast as possible, in 64 tasks.
pub(crate) fn fast<C: Contestant>(runtime: &Runtime, server: &Server) -> Result<Fast> {
    runtime.block_on(async {
        let before = settled().await;
        let opened = server.connections()?;
        let contestant = C::new(&server.url("fast"))?;
        // Opens the connections.
        turns(&contestant, 2).await?;
        memory::take_peak();
        let (start, processor) = (Instant::now(), processor_time());
        turns(&contestant, TURNS).await?;
        let (time, processor) = (start.elapsed(), processor_time() - processor);
        let count = (STREAMS * TURNS) as f64;
        Ok(Fast {
            turns_per_second: count / time.as_secs_f64(),
            processor_us: processor.as_secs_f64() * 1e6 / count,
            peak_kb: (memory::take_peak() - before) as f64 / 1e3 / STREAMS as f64,
            // One of them asks for the number.
            connections: (server.connections()? - opened - 1) as f64,
        })
    })
}

/// Returns the memory once the connections of the last workload are closed.
async fn settled() -> isize {
    let mut last = memory::live();
    loop {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let now = memory::live();
        if now >= last {
            return now;
        }
        last = now;
    }
}

async fn turns<C: Contestant>(contestant: &C, count: usize) -> Result<()> {
    let tasks: Vec<_> = (0..STREAMS)
        .map(|_| {
            let contestant = contestant.clone();
            tokio::spawn(async move {
                for _ in 0..count {
                    let mut bytes = 0;
                    contestant.turn(|text| bytes += text.len()).await?;
                    if bytes != EVENTS * TEXT.len() {
                        return Err(format!("{bytes} bytes instead of those of {EVENTS} events").into());
                    }
                }
                Ok::<(), Box<dyn std::error::Error + Send + Sync>>(())
            })
        })
        .collect();
    for task in tasks {
        task.await??;
    }
    Ok(())
}

/// Takes one turn in each of 64 tasks, at the pace of a model.
pub(crate) fn paced<C: Contestant>(runtime: &Runtime, server: &Server, kind: &str) -> Result<Paced> {
    runtime.block_on(async {
        let before = settled().await;
        let contestant = C::new(&server.url(kind))?;
        let barrier = Arc::new(Barrier::new(STREAMS));
        let begun = Arc::new(AtomicUsize::new(0));
        let tasks: Vec<_> = (0..STREAMS)
            .map(|_| {
                let (contestant, barrier, begun) =
                    (contestant.clone(), Arc::clone(&barrier), Arc::clone(&begun));
                tokio::spawn(async move {
                    barrier.wait().await;
                    timed(&contestant, &begun).await
                })
            })
            .collect();
        while begun.load(Ordering::Relaxed) < STREAMS {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let open_kb = (memory::live() - before) as f64 / 1e3 / STREAMS as f64;
        let (mut first_ms, mut all_ms) = (Vec::new(), Vec::new());
        for task in tasks {
            let times = task.await??;
            first_ms.push(times[0]);
            all_ms.extend(times);
        }
        first_ms.sort_by(f64::total_cmp);
        all_ms.sort_by(f64::total_cmp);
        Ok(Paced { first_ms, all_ms, open_kb })
    })
}

/// Takes a turn, and returns the delay of each piece in milliseconds.
async fn timed<C: Contestant>(contestant: &C, begun: &AtomicUsize) -> Result<Vec<f64>> {
    let mut times = Vec::with_capacity(PACED_EVENTS);
    contestant
        .turn(|text| {
            let now = server::now();
            let sent = std::str::from_utf8(text).ok().and_then(|text| text.parse::<u64>().ok());
            if times.is_empty() {
                begun.fetch_add(1, Ordering::Relaxed);
            }
            times.push(sent.map_or(f64::INFINITY, |sent| now.saturating_sub(sent) as f64 / 1e6));
        })
        .await?;
    if times.len() != PACED_EVENTS {
        return Err(format!("{} pieces instead of {PACED_EVENTS}", times.len()).into());
    }
    Ok(times)
}

/// Returns the processor time that this process has used.
fn processor_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Returns a percentile of ascending values.
pub(crate) fn percentile(sorted: &[f64], of_hundred: usize) -> f64 {
    sorted[(sorted.len() * of_hundred / 100).min(sorted.len() - 1)]
}
