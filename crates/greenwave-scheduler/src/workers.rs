//! Controls how many workers are used: all, or as many as the machine's load and a jobserver
//! permit. Only new stages are limited; running stages continue.

use std::future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

#[cfg(feature = "jobserver")]
use greenwave_process::{Jobserver, Tokens};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::load::{LoadController, LoadOptions};
use crate::{Limits, ScheduleStats};

/// Controls how many units of the pool `workers` are used: by default, all. Other pools are not
/// affected. A stage that needs more units than are admitted runs when no other stage uses any.
#[derive(Debug, Clone, Default)]
pub struct Workers {
    /// Adapts the number to the machine's load.
    pub follow: Option<LoadOptions>,
}

/// A number of units of a pool that may be used, which can change during a run. Only new stages are
/// limited; running stages continue. A stage that needs more units runs when no other stage uses
/// any.
#[derive(Debug, Clone)]
pub struct AdmittedUnits {
    /// Name of the pool. A pool of another name than `workers`.
    pub pool: String,
    /// The number of units; values above the limit count as the limit.
    pub units: watch::Receiver<u32>,
}

impl AdmittedUnits {
    /// Returns the present number.
    pub(crate) fn now(&mut self) -> u32 {
        *self.units.borrow_and_update()
    }

    /// Waits until the number changes.
    pub(crate) async fn changed(admitted: &mut Option<Self>) {
        if let Some(Self { units, .. }) = admitted
            && units.changed().await.is_ok()
        {
            return;
        }
        future::pending::<()>().await;
    }
}

/// The number of admitted workers of a run.
pub(crate) struct Admission {
    units: u32,
    follow: Option<LoadTracker>,
    #[cfg(feature = "jobserver")]
    tokens: Option<Tokens>,
}

struct LoadTracker {
    follow: LoadOptions,
    controller: LoadController,
    next: Instant,
    /// Statistics from the last call of `update`: stages started and workers in use.
    started: usize,
    used: u32,
    started_before: usize,
}

impl Workers {
    pub(crate) fn admission(&self, limits: &Limits) -> Admission {
        let units = limits.resources.limit("workers").unwrap_or(u32::MAX);
        let follow = self.follow.as_ref().map(|follow| LoadTracker {
            controller: LoadController::new(follow, units),
            next: next_sample_at(follow.every),
            follow: follow.clone(),
            started: 0,
            used: 0,
            started_before: 0,
        });
        Admission {
            units,
            follow,
            #[cfg(feature = "jobserver")]
            tokens: None,
        }
    }
}

impl Admission {
    /// Adds a jobserver. Every worker except the first takes one of its tokens.
    #[cfg(feature = "jobserver")]
    pub(crate) fn with_tokens(self, jobserver: Option<&Jobserver>) -> Self {
        Self { tokens: jobserver.map(Jobserver::tokens), ..self }
    }

    /// Returns the number of units that may be used now.
    pub(crate) fn admitted(&self) -> u32 {
        let follow = self.follow.as_ref().map_or(u32::MAX, |tracker| tracker.controller.admitted());
        let units = self.units.min(follow);
        #[cfg(feature = "jobserver")]
        let units = units.min(self.tokens.as_ref().map_or(u32::MAX, Tokens::jobs));
        units
    }

    /// Updates the demand from the statistics of the run and returns unneeded tokens, so fewer
    /// units may be admitted afterwards.
    pub(crate) fn update(&mut self, stats: &ScheduleStats) {
        let used = stats.pool("workers").map_or(0, |pool| pool.used);
        if let Some(tracker) = &mut self.follow {
            (tracker.started, tracker.used) = (stats.started, used);
        }
        #[cfg(feature = "jobserver")]
        if let Some(tokens) = &mut self.tokens {
            let ready = u32::try_from(stats.ready).unwrap_or(u32::MAX);
            tokens.adjust(used, used.saturating_add(ready).min(self.units));
        }
    }

    /// Waits until the number of admitted units changes.
    pub(crate) async fn changed(&mut self) {
        let before = self.admitted();
        loop {
            #[cfg(feature = "jobserver")]
            let tokens = async {
                match &mut self.tokens {
                    Some(tokens) => tokens.acquired().await,
                    None => future::pending().await,
                }
            };
            #[cfg(not(feature = "jobserver"))]
            let tokens = future::pending::<()>();
            tokio::select! {
                () = take_sample(&mut self.follow) => {}
                () = tokens => {}
            }
            if self.admitted() != before {
                return;
            }
        }
    }
}

/// Returns the time of the next sample. The interval is limited to a century to avoid overflow.
fn next_sample_at(every: Duration) -> Instant {
    const CENTURY: Duration = Duration::from_secs(100 * 365 * 24 * 3600);
    Instant::now() + every.clamp(Duration::from_millis(1), CENTURY)
}

async fn take_sample(tracker: &mut Option<LoadTracker>) {
    let Some(LoadTracker { follow, controller, next, started, used, started_before }) = tracker else {
        return future::pending().await;
    };
    tokio::time::sleep_until(*next).await;
    // Not relative to `next`: after a long stall, missed samples are not made up for.
    *next = next_sample_at(follow.every);
    let started_since = *started - std::mem::replace(started_before, *started);
    // A sampler that panics gives no information about the load.
    let Ok(sample) = catch_unwind(AssertUnwindSafe(|| (follow.sampler)())) else { return };
    controller.sample(&sample, *used, u32::try_from(started_since).unwrap_or(u32::MAX));
}
