//! Logs of values whose formatting panics. This test has a process of its own: `tracing` decides
//! once for all threads whether an event is of interest, and a thread without a subscriber that
//! reaches the event at the same moment can turn it off for this one.

use std::fmt;
use std::sync::Arc;

use greenwave_pooling::{Error, Manager, Pool, PoolOptions, async_trait};

/// A manager and an error that cannot be formatted.
struct Unprintable {
    connects: bool,
}

impl fmt::Debug for Unprintable {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        panic!("unprintable")
    }
}

impl fmt::Display for Unprintable {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        panic!("unprintable")
    }
}

impl std::error::Error for Unprintable {}

#[async_trait]
impl Manager for Unprintable {
    type Connection = ();
    type Error = Self;

    async fn connect(&self) -> Result<(), Self> {
        if self.connects { Ok(()) } else { Err(Self { connects: false }) }
    }

    async fn check(&self, (): &mut ()) -> Result<(), Self> {
        Ok(())
    }

    fn is_broken(&self, (): &mut ()) -> bool {
        false
    }
}

/// Formats the fields of all events of this crate, as a logger at level trace does.
#[derive(Clone, Default)]
struct Logger(Arc<parking_lot::Mutex<Vec<String>>>);

impl tracing::Subscriber for Logger {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.target().starts_with("greenwave_pooling")
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        event.record(&mut |field: &tracing::field::Field, value: &dyn fmt::Debug| {
            self.0.lock().push(format!("{field}={value:?}"));
        });
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}

fn options() -> PoolOptions {
    PoolOptions { size_min: 0, size_max: 2, ..PoolOptions::default() }
}

#[tokio::test(start_paused = true)]
async fn a_log_of_values_that_cannot_be_formatted_fails_no_call() {
    let logger = Logger::default();
    let _logging = tracing::subscriber::set_default(logger.clone());
    let pool = Pool::new(Unprintable { connects: true }, options());
    for _ in 0..3 {
        drop(pool.get().await.unwrap());
    }
    assert_eq!((pool.stats().size, pool.stats().created), (1, 1));

    let observer = |_: &greenwave_pooling::PoolEvent<'_>| panic!("a bad observer");
    let pool = Pool::with_observer(Unprintable { connects: false }, options(), observer);
    for _ in 0..3 {
        assert!(matches!(pool.get().await, Err(Error::Connect { .. })));
    }
    assert_eq!(pool.stats().size, 0);
    let logged = logger.0.lock().join("\n");
    assert!(logged.contains("manager=<`Debug` panicked: unprintable>"), "{logged}");
    assert!(logged.contains("event=<`Debug` panicked: unprintable>"), "{logged}");
}
