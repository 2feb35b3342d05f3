//! A limit on the retries of all calls together.

use std::sync::{Arc, Mutex, PoisonError};

/// Limits retries to a fraction of the calls, so that a failing server does not get a multiple of its
/// usual load. Clones share it.
///
/// A token bucket: each call adds a fraction of a token, each retry takes one, and the bucket starts
/// full. The same scheme as the retry budgets of Finagle and of the AWS SDKs.
#[derive(Debug, Clone)]
pub struct RetryBudget {
    fraction: f64,
    tokens_max: f64,
    tokens: Arc<Mutex<f64>>,
}

impl RetryBudget {
    /// Allows `fraction` retries per call in the long run (0.2, say; negative numbers and NaN count as
    /// 0) and up to `tokens_max` retries at once.
    #[must_use]
    pub fn new(fraction: f64, tokens_max: u32) -> Self {
        let tokens_max = f64::from(tokens_max);
        // `max` turns NaN into 0.
        Self { fraction: fraction.max(0.0), tokens_max, tokens: Arc::new(Mutex::new(tokens_max)) }
    }

    /// Counts a call.
    pub fn deposit(&self) {
        let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        *tokens = (*tokens + self.fraction).min(self.tokens_max);
    }

    /// Takes a token for a retry; false if there is none.
    #[must_use]
    pub fn withdraw(&self) -> bool {
        let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        let has_one = *tokens >= 1.0;
        if has_one {
            *tokens -= 1.0;
        }
        has_one
    }
}
