//! How many workers are used: all, or what the machine's load and a jobserver leave. Only admission is limited: what runs goes on. Knows nothing
//! of tasks.

use std::future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

#[cfg(feature = "jobserver")]
use greenwave_process::{Jobserver, Tokens};
use tokio::time::Instant;

use crate::load::{Control, LoadOptions};
use crate::{Limits, ScheduleStats};

/// How many units of the pool `workers` are used. The default: all that exist. Other pools, those of agents say, are not touched. A stage that
/// needs more than are left to it runs when no other stage uses any.
#[derive(Debug, Clone, Default)]
pub struct Workers {
    /// LoadOptions the machine's load.
    pub follow: Option<LoadOptions>,
}

/// The admission of a run.
pub(crate) struct Admission {
    units: u32,
    follow: Option<Following>,
    #[cfg(feature = "jobserver")]
    tokens: Option<Tokens>,
}

struct Following {
    follow: LoadOptions,
    control: Control,
    next: Instant,
    /// Stages started, and workers in use, when last looked at.
    started: usize,
    used: u32,
    started_before: usize,
}

impl Workers {
    pub(crate) fn admission(&self, limits: &Limits) -> Admission {
        let units = limits.resources.limit("workers").unwrap_or(u32::MAX);
        let follow = self.follow.as_ref().map(|follow| Following {
            control: Control::new(follow, units),
            next: soon(follow.every),
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
    /// With a token for every worker but the first.
    #[cfg(feature = "jobserver")]
    pub(crate) fn with_tokens(self, jobserver: Option<&Jobserver>) -> Self {
        Self { tokens: jobserver.map(Jobserver::tokens), ..self }
    }

    /// Units that may be used now.
    pub(crate) fn admitted(&self) -> u32 {
        let follow = self.follow.as_ref().map_or(u32::MAX, |following| following.control.admitted());
        let units = self.units.min(follow);
        #[cfg(feature = "jobserver")]
        let units = units.min(self.tokens.as_ref().map_or(u32::MAX, Tokens::jobs));
        units
    }

    /// Takes note of how a run stands, and gives back what it does not need: fewer units may be admitted then.
    pub(crate) fn look(&mut self, stats: &ScheduleStats) {
        let used = stats.pool("workers").map_or(0, |pool| pool.used);
        if let Some(following) = &mut self.follow {
            (following.started, following.used) = (stats.started, used);
        }
        #[cfg(feature = "jobserver")]
        if let Some(tokens) = &mut self.tokens {
            let ready = u32::try_from(stats.ready).unwrap_or(u32::MAX);
            tokens.adjust(used, used.saturating_add(ready).min(self.units));
        }
    }

    /// Waits until another number of units is admitted.
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
                () = sampled(&mut self.follow) => {}
                () = tokens => {}
            }
            if self.admitted() != before {
                return;
            }
        }
    }
}

/// When to sample again. No program runs for a century.
fn soon(every: Duration) -> Instant {
    const CENTURY: Duration = Duration::from_secs(100 * 365 * 24 * 3600);
    Instant::now() + every.clamp(Duration::from_millis(1), CENTURY)
}

async fn sampled(following: &mut Option<Following>) {
    let Some(Following { follow, control, next, started, used, started_before }) = following else {
        return future::pending().await;
    };
    tokio::time::sleep_until(*next).await;
    // Not from `next`: after a long stall there is nothing to catch up on.
    *next = soon(follow.every);
    let launched = *started - std::mem::replace(started_before, *started);
    // A sampler that fails says nothing of the load.
    let Ok(sample) = catch_unwind(AssertUnwindSafe(|| (follow.sampler)())) else { return };
    control.sample(&sample, *used, u32::try_from(launched).unwrap_or(u32::MAX));
}
