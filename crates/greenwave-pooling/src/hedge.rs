//! Hedged requests: a second attempt beside a slow one.

use std::pin::pin;
use std::time::Duration;

use greenwave_retry::RetryBudget;

/// Starts a second attempt if the first has not finished after a delay, returns the result of
/// whichever finishes first, and drops the other (Dean, Barroso, "The Tail at Scale", 2013).
///
/// Use it only for calls that may be made twice. An attempt should finish with the first byte of
/// its response, since hedging is pointless after that. Each second attempt takes a token from the
/// retry budget, and none is made if the budget is spent.
#[derive(Debug, Clone)]
pub struct Hedge {
    after: Duration,
    budget: RetryBudget,
}

impl Hedge {
    /// Creates a hedge that starts the second attempt after `after`. The 95th percentile of the
    /// latency is a good value.
    #[must_use]
    pub fn new(after: Duration, budget: RetryBudget) -> Self {
        Self { after, budget }
    }

    /// Makes one or two attempts, numbered from 1. If one fails, the other one decides.
    ///
    /// # Errors
    /// The error of the attempt that failed last.
    pub async fn run<T, E, Fut>(&self, mut attempt: impl FnMut(usize) -> Fut) -> Result<T, E>
    where
        Fut: Future<Output = Result<T, E>>,
    {
        self.budget.deposit();
        let mut first = pin!(attempt(1));
        if let Ok(ended) = tokio::time::timeout(self.after, &mut first).await {
            return ended;
        }
        if !self.budget.withdraw() {
            return first.await;
        }
        tracing::debug!(after = ?self.after, "starting a second attempt");
        let mut second = pin!(attempt(2));
        tokio::select! {
            biased;
            ended = &mut first => match ended {
                Err(_) => second.await,
                ended => ended,
            },
            ended = &mut second => match ended {
                Err(_) => first.await,
                ended => ended,
            },
        }
    }
}
