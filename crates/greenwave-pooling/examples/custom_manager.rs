//! A custom manager whose connections are counters that break after some uses. Run its conformance
//! tests with `cargo test -p greenwave-pooling --example custom_manager --features conformance`.

use std::convert::Infallible;
use std::sync::atomic::{AtomicU32, Ordering};

use greenwave_pooling::{Error, Manager, Pool, PoolOptions, async_trait};

/// Creates counters that last for `uses_max` uses.
#[derive(Debug)]
struct Counters {
    uses_max: u32,
    made: AtomicU32,
}

impl Counters {
    fn new(uses_max: u32) -> Self {
        Self { uses_max, made: AtomicU32::new(0) }
    }
}

/// The connection.
#[derive(Debug)]
struct Counter {
    name: u32,
    uses: u32,
}

#[async_trait]
impl Manager for Counters {
    type Connection = Counter;
    type Error = Infallible;

    async fn connect(&self) -> Result<Counter, Infallible> {
        // A real manager opens a socket and performs a handshake here.
        Ok(Counter { name: self.made.fetch_add(1, Ordering::Relaxed), uses: 0 })
    }

    async fn check(&self, _counter: &mut Counter) -> Result<(), Infallible> {
        // A real manager pings its peer here.
        Ok(())
    }

    fn is_broken(&self, counter: &mut Counter) -> bool {
        counter.uses >= self.uses_max
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let pool =
        Pool::new(Counters::new(2), PoolOptions { size_min: 0, size_max: 1, ..PoolOptions::default() });
    let mut names = Vec::new();
    for _ in 0..5 {
        let mut counter = pool.get().await?;
        counter.uses += 1;
        names.push(counter.name);
    }
    assert_eq!(names, [0, 0, 1, 1, 2]);
    pool.close().await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::Counters;

    greenwave_pooling::manager_conformance!(Counters::new(9));
}
