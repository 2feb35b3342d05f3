//! A custom source: a log that can be read from any entry, over connections that break. Run its
//! conformance suite with `cargo test -p greenwave-streaming --example custom_source --features
//! conformance`.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream;
use greenwave_streaming::{
    BoxError, Delivery, Lines, OpenError, Opened, Position, Resume, ResumeStrategy, Source, Unit,
};

/// A log with one entry per line, ending with `end`.
#[derive(Debug)]
struct Entries {
    lines: Vec<&'static str>,
    /// Number of lines after which a connection breaks.
    lines_per_connection: usize,
    connections: AtomicUsize,
}

#[async_trait]
impl Source for Entries {
    async fn open(&self, at: &Position) -> Result<Opened, OpenError> {
        if self.connections.fetch_add(1, Ordering::Relaxed) > 10_000 {
            return Err(OpenError::Permanent("too many connections".into()));
        }
        // Like a server with a parameter `?from=SEQUENCE`.
        let from = usize::try_from(at.sequence).unwrap_or(usize::MAX).min(self.lines.len());
        let lines = self.lines[from..].iter().take(self.lines_per_connection);
        let mut chunks: Vec<Result<Bytes, BoxError>> =
            lines.map(|line| Ok(Bytes::from(format!("{line}\n")))).collect();
        if chunks.len() == self.lines_per_connection {
            chunks.push(Err("connection reset".into()));
        }
        Ok(Opened::new(stream::iter(chunks), ResumeStrategy::Next))
    }
}

fn is_end(unit: &Unit<'_>) -> bool {
    unit.bytes() == "end"
}

fn entries(lines_per_connection: usize) -> Entries {
    Entries {
        lines: vec!["one", "two", "three", "end"],
        lines_per_connection,
        connections: AtomicUsize::default(),
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), greenwave_streaming::Error> {
    let mut response = Resume::new(Arc::new(entries(2)), 0, |_| Lines::default(), is_end);
    let mut lines = 0;
    while let Some(delivery) = response.next().await {
        if let Delivery::Units { batch, .. } = delivery? {
            lines += batch.len();
        }
    }
    assert_eq!((lines, response.stats().opened), (4, 3), "three connections, and each line once");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{entries, is_end};

    greenwave_streaming::source_conformance! {
        entries(9),
        |_| greenwave_streaming::Lines::default(),
        is_end
    }
}
