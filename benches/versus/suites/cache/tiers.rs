//! Misses of the memory tier after a restart, and with prediction.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use greenwave_benches::{Result, Row};
use greenwave_cache::{Backend, MemoryBackend, Predictor, Record, Tier, Tiered, TieredOptions, Trail};
use greenwave_versus::traces::{Random, Zipf, traces};

use crate::keys::spread;

/// Expected ratio of misses of the memory tier, after a warm restart by before. A guess: almost
/// nothing is lost.
const RESTART_MISSES_MAX: f64 = 1.1;
/// Expected ratio of misses of the memory tier on the trace of agents, with prediction by without.
/// A guess: most of a run's order is predictable.
const PREDICTED_MISSES_MAX: f64 = 0.5;
/// Expected percentage of prefetched records that are never read. A guess.
const WASTED_MAX: f64 = 20.0;

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
async fn memory_misses(tiered: &Tiered, keys: &[u64]) -> Result<f64> {
    let (before, mut trail) = (tiered.stats().tiers[0].hits, Trail::default());
    for number in keys {
        let key = spread(*number);
        if tiered.get_with_trail(&mut trail, &key).await.is_none() {
            tiered.put(&key, &small_record(*number)).await?;
        }
        // Prefetches finish before the next read, as they would while a test runs.
        for _ in 0..8 {
            tokio::task::yield_now().await;
        }
    }
    let hits = tiered.stats().tiers[0].hits - before;
    Ok(100.0 - hits as f64 * 100.0 / keys.len() as f64)
}

/// Measures the misses after a restart, and the effect of prediction.
pub(crate) fn tiers(rows: &mut Vec<Row>) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let memory = |entries| Arc::new(MemoryBackend::new(entries, 1 << 30).expect("the options are valid"));
    let slow = || memory(1_000_000) as Arc<dyn Backend>;
    runtime.block_on(async {
        let (zipf, mut random) = (Zipf::new(10_000, 0.9), Random(1));
        let mut draw = |reads: usize| -> Vec<u64> { (0..reads).map(|_| zipf.draw(&mut random)).collect() };
        let (slow_tier, first) = (slow(), memory(1_000));
        let running = tiered(&first, &slow_tier, None);
        memory_misses(&running, &draw(100_000)).await?;
        let before = memory_misses(&running, &draw(2_000)).await?;
        running.save_heat(&first, 1_000).await?;
        let second = memory(1_000);
        let restarted = tiered(&second, &slow_tier, None);
        let begun = Instant::now();
        let warmed = restarted.warm(&second).await;
        let took = begun.elapsed().as_secs_f64() * 1e3;
        assert!(warmed > 900, "{warmed} records were hot");
        let after = memory_misses(&restarted, &draw(2_000)).await?;
        let name = "2,000 reads after a warm restart: misses of the memory tier by those before";
        rows.push(Row::new(name, "x", [after / before]).at_most(RESTART_MISSES_MAX));
        let cold = memory_misses(&tiered(&memory(1_000), &slow_tier, None), &draw(2_000)).await?;
        rows.push(Row::new(
            "2,000 reads after a cold restart: misses of the memory tier by those before",
            "x",
            [cold / before],
        ));
        rows.push(Row::new("warm 1,000 records from a tier in memory", "ms", [took]));

        let traces = traces();
        let agents = traces.iter().find(|trace| trace.name.ends_with("half the suite"));
        let agents = agents.ok_or("no trace of half the suite")?;
        let keys = &agents.keys[..100_000];
        let plain = memory_misses(&tiered(&memory(agents.capacity), &slow(), None), keys).await?;
        let predictor = Predictor::new(20_000, 4)?;
        let predicting = tiered(&memory(agents.capacity), &slow(), Some(predictor));
        let predicted = memory_misses(&predicting, keys).await?;
        let name = "agents' trace, room for half: misses of the memory tier with prediction by those without";
        rows.push(Row::new(name, "x", [predicted / plain]).at_most(PREDICTED_MISSES_MAX));
        let stats = predicting.stats();
        let wasted = 100.0 - stats.prefetch_hits as f64 * 100.0 / stats.prefetched as f64;
        rows.push(Row::new("prefetched records that were never read", "%", [wasted]).at_most(WASTED_MAX));
        Ok(())
    })
}
