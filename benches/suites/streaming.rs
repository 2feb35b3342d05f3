//! Measures finding the files in a response that arrives token by token.

use std::hint::black_box;

use bytes::Bytes;
use criterion::{Criterion, Throughput};
use futures_util::stream;
use greenwave_benches::{Page, Row, criterion, is_measuring, samples};
use greenwave_streaming::{BufferedSplitter, Files, Pull};

const ABOUT: &str = "
A response of 64 KiB contains 32 files in fenced blocks, and arrives in chunks of four bytes.
`splitting` is the synchronous form. `pull` reads from a `Stream` that is always ready. The chunks
are clones of one shared buffer: updating its reference count 16,000 times takes about half of the
measured time. A prototype that accumulated the response and scanned all of it after each chunk took
33 ms. The suite `versus-streaming` compares the crate with rivals, on static chunks without a
reference count.";

/// Expected time for the whole response, in milliseconds.
const EXPECTED_MS: f64 = 0.3;

const RESPONSE_BYTES: usize = 64 << 10;
const FILES: usize = 32;
const CHUNK_BYTES: usize = 4;

/// Returns the response in chunks.
fn response() -> Vec<Bytes> {
    let mut text = String::new();
    for file in 0..FILES {
        text.push_str(&format!("Here is file {file}:\n\n```rust src/file_{file}.rs\n"));
        while text.len() < RESPONSE_BYTES / FILES * (file + 1) - 10 {
            text.push_str("    let total = items.iter().map(|item| item.price).sum::<u64>();\n");
        }
        text.push_str("```\n\n");
    }
    let text = Bytes::from(text);
    let at = (0..text.len()).step_by(CHUNK_BYTES);
    at.map(|at| text.slice(at..text.len().min(at + CHUNK_BYTES))).collect()
}

fn splitting(chunks: &[Bytes]) -> usize {
    let mut splitting = BufferedSplitter::new(Files::default());
    let mut files = 0;
    for chunk in chunks {
        files += splitting
            .feed(chunk.clone())
            .expect("the response is well-formed")
            .map_or(0, |batch| batch.len());
    }
    files + splitting.finish().expect("the response is well-formed").map_or(0, |batch| batch.len())
}

async fn pull(chunks: &[Bytes]) -> usize {
    let chunks: Vec<_> = chunks.iter().cloned().map(Ok::<_, std::io::Error>).collect();
    let mut pull = Pull::new(stream::iter(chunks), Files::default());
    let mut files = 0;
    while let Some(batch) = pull.next().await {
        files += batch.expect("the response is well-formed").len();
    }
    files
}

fn measure(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime can be created");
    let chunks = response();
    assert_eq!((splitting(&chunks), runtime.block_on(pull(&chunks))), (FILES, FILES), "every file is found");
    let mut group = criterion.benchmark_group("streaming");
    group.throughput(Throughput::Bytes(chunks.iter().map(|chunk| chunk.len() as u64).sum()));
    group.bench_function("splitting", |bencher| bencher.iter(|| splitting(black_box(&chunks))));
    group.bench_function("pull", |bencher| bencher.to_async(&runtime).iter(|| pull(black_box(&chunks))));
    group.finish();
}

fn main() {
    let mut criterion = criterion();
    measure(&mut criterion);
    criterion.final_summary();
    if !is_measuring() {
        return;
    }
    let row = |name: &str| {
        let nanoseconds = samples(&format!("streaming/{name}"))?;
        let microseconds = nanoseconds.into_iter().map(|time| time / 1e3);
        Some(Row::new(format!("files of a response, {name}"), "µs", microseconds).at_most(EXPECTED_MS * 1e3))
    };
    let rows = ["splitting", "pull"].into_iter().filter_map(row).collect();
    Page { suite: "streaming", about: ABOUT, rows }.publish();
}
