//! A second attempt beside a first one that is slow. Knows nothing of what is attempted.

use std::pin::pin;
use std::time::Duration;

use greenwave_retry::RetryBudget;

/// Makes a second attempt when the first has brought nothing for a while, and takes whichever answers first; the other one is dropped
/// (Dean, Barroso, "The Tail at Scale", 2013).
///
/// An attempt should end with the first byte of its answer: once there is one, there is nothing to hedge against. Only for calls that may
/// be made twice. Each second attempt is charged to the budget of retries, and is not made when that is spent.
#[derive(Debug, Clone)]
pub struct Hedge {
    after: Duration,
    budget: RetryBudget,
}

impl Hedge {
    /// Waits `after` for the first attempt alone: as long as most answers take, the 95th percentile say.
    #[must_use]
    pub fn new(after: Duration, budget: RetryBudget) -> Self {
        Self { after, budget }
    }

    /// Makes one attempt or two, counted from 1. A failure of one waits for the other, if there is another.
    ///
    /// # Errors
    /// That of the attempt that failed last.
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
        tracing::debug!(after = ?self.after, "a second attempt");
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
