//! Limits the retries of all calls together.

use std::sync::{Arc, Mutex, PoisonError};

/// A limit on retries as a fraction of calls, so that a failing server does not receive a multiple
/// of its usual load. Clones share the budget.
///
/// A token bucket that starts full: each call adds a fraction of a token, and each retry takes one.
/// The retry budgets of Finagle and the AWS SDKs work in the same way.
#[derive(Debug, Clone)]
pub struct RetryBudget {
    fraction: f64,
    tokens_max: f64,
    tokens: Arc<Mutex<f64>>,
}

impl RetryBudget {
    /// Creates a budget that allows `fraction` retries per call on average (for example 0.2;
    /// negative numbers and NaN count as 0) and bursts of up to `tokens_max` retries.
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

    /// Takes a token for a retry. Returns whether one was available.
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
