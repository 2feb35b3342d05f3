//! Measures handing units from one thread to another.

use std::convert::Infallible;
use std::time::Instant;

use bytes::Bytes;
use futures_util::stream;
use greenwave_benches::Row;
use greenwave_streaming::{Fanout, Pull, Sse, SubscriberPolicy, UnitBatch};
use tokio::runtime::{Builder, Runtime};

use crate::inputs::{self, Chunks};

const ROUNDS: usize = 9;
/// Maximum number of queued batches or units.
const QUEUE_MAX: usize = 64;
/// Number of units in a chunk.
const EVENTS_PER_CHUNK: usize = 16;

pub(crate) fn rows(limit: f64) -> Vec<Row> {
    let chunks = inputs::cut_at(inputs::event_stream(), EVENTS_PER_CHUNK * inputs::EVENT_BYTES);
    let runtime = Builder::new_multi_thread().worker_threads(2).build().expect("a runtime can be created");
    let (mut batches, mut units, mut read) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        read.push(measure(&runtime, reading(chunks.clone())));
        batches.push(measure(&runtime, through_fanout(chunks.clone())));
        units.push(measure(&runtime, through_channel(chunks.clone())));
    }
    let added: Vec<f64> = batches.iter().zip(&read).map(|(all, read)| (all - read).max(0.0)).collect();
    vec![
        Row::new("hand-off: found and handed on in batches of 16, per unit", "ns", batches),
        Row::new("hand-off: found only, in one thread, per unit", "ns", read),
        Row::new("hand-off: added by `Fanout` in batches of 16, per unit", "ns", added).at_most(limit),
        Row::new("hand-off: one by one through `tokio::sync::mpsc`, per unit", "ns", units),
    ]
}

/// Returns the nanoseconds per unit.
fn measure(runtime: &Runtime, work: impl Future<Output = usize> + Send + 'static) -> f64 {
    let begun = Instant::now();
    let found = runtime.block_on(async { tokio::spawn(work).await.expect("the work does not panic") });
    assert_eq!(found, inputs::EVENTS, "every unit arrives");
    begun.elapsed().as_nanos() as f64 / inputs::EVENTS as f64
}

type Events = Pull<stream::Iter<std::vec::IntoIter<Result<Bytes, Infallible>>>, Sse>;

fn events(chunks: &Chunks) -> Events {
    Pull::new(stream::iter(chunks.iter().map(Ok).collect::<Vec<_>>()), Sse::default())
}

fn texts(batch: &UnitBatch) -> usize {
    batch.iter().filter(|unit| unit.text().is_ok()).count()
}

async fn reading(chunks: Chunks) -> usize {
    let (mut pull, mut found) = (events(&chunks), 0);
    while let Some(batch) = pull.next().await {
        found += texts(&batch.expect("the events are well-formed"));
    }
    found
}

async fn through_fanout(chunks: Chunks) -> usize {
    let fanout = Fanout::new();
    let mut subscription = fanout.subscribe(SubscriberPolicy::Wait { queue_max: QUEUE_MAX });
    let reader = tokio::spawn(async move {
        let mut found = 0;
        while let Some(batch) = subscription.next().await {
            found += texts(&batch);
        }
        found
    });
    let mut pull = events(&chunks);
    while let Some(batch) = pull.next().await {
        fanout.publish(batch.expect("the events are well-formed")).await;
    }
    drop(fanout);
    reader.await.expect("the reader does not panic")
}

async fn through_channel(chunks: Chunks) -> usize {
    let (sender, mut receiver) = tokio::sync::mpsc::channel(QUEUE_MAX);
    let reader = tokio::spawn(async move {
        let mut found = 0;
        while let Some(unit) = receiver.recv().await {
            let unit: greenwave_streaming::OwnedUnit = unit;
            found += usize::from(unit.get().text().is_ok());
        }
        found
    });
    let mut pull = events(&chunks);
    while let Some(batch) = pull.next().await {
        for unit in batch.expect("the events are well-formed").into_units() {
            if sender.send(unit).await.is_err() {
                return 0;
            }
        }
    }
    drop(sender);
    reader.await.expect("the reader does not panic")
}
