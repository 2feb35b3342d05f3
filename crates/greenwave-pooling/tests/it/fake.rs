//! A manager of numbered fake connections that counts the live ones and fails on demand.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use greenwave_pooling::{Manager, Pool, PoolOptions, async_trait};
use parking_lot::Mutex;
use tokio::time::sleep;

/// The behaviour of a connect.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Connect {
    Succeeds(Duration),
    Fails(Duration),
    Hangs,
    Panics,
}

#[derive(Debug, thiserror::Error)]
#[error("out of order")]
pub(crate) struct OutOfOrder;

#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) alive: AtomicUsize,
    pub(crate) alive_peak: AtomicUsize,
    pub(crate) checks: AtomicUsize,
}

/// Connects as scripted, and immediately after the script ends.
#[derive(Debug, Default, Clone)]
pub(crate) struct Fake {
    pub(crate) script: Arc<Mutex<VecDeque<Connect>>>,
    pub(crate) counts: Arc<Counts>,
    pub(crate) checks_fail: Arc<AtomicBool>,
    pub(crate) checks_hang: Arc<AtomicBool>,
}

impl Fake {
    pub(crate) fn scripted(script: impl IntoIterator<Item = Connect>) -> Self {
        Self { script: Arc::new(Mutex::new(script.into_iter().collect())), ..Self::default() }
    }

    pub(crate) fn alive(&self) -> usize {
        self.counts.alive.load(Ordering::SeqCst)
    }

    pub(crate) fn pool(&self, options: PoolOptions) -> Pool<Self> {
        Pool::new(self.clone(), options)
    }
}

/// Counts as alive from the start of its connect to its drop.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) is_broken: bool,
    counts: Arc<Counts>,
}

impl Connection {
    fn new(counts: &Arc<Counts>) -> Self {
        let alive = counts.alive.fetch_add(1, Ordering::SeqCst) + 1;
        counts.alive_peak.fetch_max(alive, Ordering::SeqCst);
        Self { is_broken: false, counts: counts.clone() }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.counts.alive.fetch_sub(1, Ordering::SeqCst);
    }
}

#[async_trait]
impl Manager for Fake {
    type Connection = Connection;
    type Error = OutOfOrder;

    async fn connect(&self) -> Result<Connection, OutOfOrder> {
        let connection = Connection::new(&self.counts);
        let next = self.script.lock().pop_front();
        match next.unwrap_or(Connect::Succeeds(Duration::ZERO)) {
            Connect::Succeeds(Duration::ZERO) => {}
            Connect::Succeeds(after) => sleep(after).await,
            Connect::Fails(after) => {
                sleep(after).await;
                return Err(OutOfOrder);
            }
            Connect::Hangs => std::future::pending().await,
            Connect::Panics => panic!("a bad manager"),
        }
        Ok(connection)
    }

    async fn check(&self, _: &mut Connection) -> Result<(), OutOfOrder> {
        self.counts.checks.fetch_add(1, Ordering::SeqCst);
        if self.checks_hang.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        if self.checks_fail.load(Ordering::SeqCst) { Err(OutOfOrder) } else { Ok(()) }
    }

    fn is_broken(&self, connection: &mut Connection) -> bool {
        connection.is_broken
    }
}
