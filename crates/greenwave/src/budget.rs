//! Limits the tokens and the money that agents use in a run.
//!
//! A request reserves the usage of the largest response of its agent in this run, and settles its
//! own usage afterwards. A request that would pass a limit is refused. It waits if a limit would be
//! passed only by the reservations of other requests, which may need less.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::plan::FeatureId;
use crate::report::Usage;
use crate::spending::{BudgetExceeded, BudgetLimits};

/// The part of an agent's usage that a limit cannot count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Uncounted {
    /// The agent reports no tokens.
    Tokens,
    /// The agent reports no cost, and has no prices.
    Cost,
}

/// Tokens and money.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Amount {
    tokens: u64,
    cost: u64,
}

impl Amount {
    fn of(usage: &Usage) -> Self {
        let tokens = usage.input_tokens.saturating_add(usage.output_tokens);
        Self { tokens, cost: usage.cost.unwrap_or(0) }
    }

    fn plus(self, other: Self) -> Self {
        let tokens = self.tokens.saturating_add(other.tokens);
        Self { tokens, cost: self.cost.saturating_add(other.cost) }
    }

    fn minus(self, other: Self) -> Self {
        let tokens = self.tokens.saturating_sub(other.tokens);
        Self { tokens, cost: self.cost.saturating_sub(other.cost) }
    }

    fn max(self, other: Self) -> Self {
        Self { tokens: self.tokens.max(other.tokens), cost: self.cost.max(other.cost) }
    }
}

/// The usage of the agents of a run, and its limits.
#[derive(Debug, Default)]
pub(crate) struct BudgetLedger {
    limits: BudgetLimits,
    entries: Mutex<Entries>,
    released: Notify,
}

#[derive(Debug, Default)]
struct Entries {
    used: Amount,
    reserved: Amount,
    features: HashMap<FeatureId, Amount>,
    /// Usage of the largest response of each agent.
    largest: BTreeMap<String, Amount>,
    uncounted: Vec<String>,
}

/// The expected usage of a request. Dropping it ends the reservation.
#[derive(Debug)]
pub(crate) struct Reservation {
    ledger: Arc<BudgetLedger>,
    amount: Amount,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let mut entries = self.ledger.entries.lock();
        entries.reserved = entries.reserved.minus(self.amount);
        drop(entries);
        self.ledger.released.notify_waiters();
    }
}

impl BudgetLedger {
    pub(crate) fn new(limits: BudgetLimits) -> Self {
        Self { limits, ..Self::default() }
    }

    /// Reserves the expected usage of a request. Waits while the reservations of other requests
    /// leave too little.
    ///
    /// # Errors
    /// [`BudgetExceeded`] if the request would pass a limit even if the others used nothing.
    pub(crate) async fn reserve(
        self: &Arc<Self>,
        feature: FeatureId,
        agent: &str,
    ) -> Result<Reservation, BudgetExceeded> {
        loop {
            let mut released = std::pin::pin!(self.released.notified());
            released.as_mut().enable();
            if let Some(amount) = self.try_reserve(feature, agent)? {
                return Ok(Reservation { ledger: Arc::clone(self), amount });
            }
            released.await;
        }
    }

    /// Reserves the expected usage of a request. Returns `None` if it has to wait for others.
    fn try_reserve(&self, feature: FeatureId, agent: &str) -> Result<Option<Amount>, BudgetExceeded> {
        let mut entries = self.entries.lock();
        let expected = entries.largest.get(agent).copied().unwrap_or_default();
        let of_feature = entries.features.get(&feature).copied().unwrap_or_default();
        self.check(entries.used, of_feature, expected)?;
        let committed = entries.used.plus(entries.reserved);
        if entries.reserved != Amount::default() && self.check(committed, of_feature, expected).is_err() {
            return Ok(None);
        }
        entries.reserved = entries.reserved.plus(expected);
        Ok(Some(expected))
    }

    /// Checks that a request fits into all limits.
    fn check(&self, run: Amount, feature: Amount, expected: Amount) -> Result<(), BudgetExceeded> {
        let limits = &self.limits;
        let checks = [
            ("budget.usd", limits.cost, run.cost, expected.cost),
            ("budget.feature_usd", limits.feature_cost, feature.cost, expected.cost),
            ("budget.tokens", limits.tokens, run.tokens, expected.tokens),
            ("budget.feature_tokens", limits.feature_tokens, feature.tokens, expected.tokens),
        ];
        for (key, limit, used, expected) in checks {
            let Some(limit) = limit else { continue };
            if used >= limit || used.saturating_add(expected) > limit {
                let of_feature = key.contains("feature");
                return Err(BudgetExceeded { key, of_feature, limit, used, expected });
            }
        }
        Ok(())
    }

    /// Returns the cost of a feature, in millionths of a US dollar.
    pub(crate) fn cost(&self, feature: FeatureId) -> u64 {
        self.entries.lock().features.get(&feature).map_or(0, |amount| amount.cost)
    }

    /// Adds the usage of a response. Returns the part that a limit cannot count, once per agent.
    pub(crate) fn settle(&self, feature: FeatureId, agent: &str, usage: &Usage) -> Option<Uncounted> {
        let amount = Amount::of(usage);
        let mut entries = self.entries.lock();
        entries.used = entries.used.plus(amount);
        let of_feature = entries.features.entry(feature).or_default();
        *of_feature = of_feature.plus(amount);
        let largest = entries.largest.entry(agent.to_owned()).or_default();
        *largest = largest.max(amount);
        let uncounted = if self.limits.limits_cost() && usage.cost.is_none() {
            Uncounted::Cost
        } else if self.limits.limits_tokens() && amount.tokens == 0 {
            Uncounted::Tokens
        } else {
            return None;
        };
        let is_new = !entries.uncounted.iter().any(|name| name == agent);
        is_new.then(|| {
            entries.uncounted.push(agent.to_owned());
            uncounted
        })
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    const FIRST: FeatureId = FeatureId::from_index(0);
    const SECOND: FeatureId = FeatureId::from_index(1);

    fn usage(tokens: u64, cost: u64) -> Usage {
        Usage { input_tokens: tokens, cost: Some(cost), ..Usage::default() }
    }

    fn ledger(limits: BudgetLimits) -> Arc<BudgetLedger> {
        Arc::new(BudgetLedger::new(limits))
    }

    /// Sends a request whose response uses this much.
    fn request(ledger: &Arc<BudgetLedger>, feature: FeatureId, used: Usage) -> Result<(), BudgetExceeded> {
        let reserved = ledger.reserve(feature, "coder").now_or_never().expect("no other request is sent")?;
        ledger.settle(feature, "coder", &used);
        drop(reserved);
        Ok(())
    }

    #[test]
    fn the_request_that_would_pass_a_limit_is_refused() {
        let ledger = ledger(BudgetLimits { cost: Some(1_000_000), ..BudgetLimits::default() });
        for _ in 0..3 {
            request(&ledger, FIRST, usage(10, 300_000)).unwrap();
        }
        let refused = request(&ledger, SECOND, usage(10, 300_000)).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "the run has used $0.90 of $1.00 (`budget.usd`), and an answer of its agent took $0.30"
        );
        assert_eq!(ledger.entries.lock().used.cost, 900_000);
    }

    #[test]
    fn each_limit_is_checked() {
        let none = BudgetLimits::default();
        for (limits, key) in [
            (BudgetLimits { tokens: Some(10), ..none }, "budget.tokens"),
            (BudgetLimits { feature_tokens: Some(10), ..none }, "budget.feature_tokens"),
            (BudgetLimits { cost: Some(10), ..none }, "budget.usd"),
            (BudgetLimits { feature_cost: Some(10), ..none }, "budget.feature_usd"),
        ] {
            let ledger = ledger(limits);
            request(&ledger, FIRST, usage(10, 10)).unwrap();
            assert_eq!(request(&ledger, FIRST, usage(0, 0)).unwrap_err().key(), key);
            // The other feature has used nothing.
            assert_eq!(request(&ledger, SECOND, usage(0, 0)).is_ok(), key.contains("feature"), "{key}");
        }
        let ledger = ledger(BudgetLimits { tokens: Some(0), ..none });
        assert!(request(&ledger, FIRST, usage(0, 0)).is_err());
    }

    #[tokio::test]
    async fn a_request_waits_for_reservations_and_is_refused_once_they_are_used() {
        let ledger = ledger(BudgetLimits { tokens: Some(25), ..BudgetLimits::default() });
        request(&ledger, FIRST, usage(10, 0)).unwrap();
        for (used, is_sent) in [(2, true), (10, false)] {
            let first = ledger.reserve(FIRST, "coder").await.unwrap();
            let mut second = Box::pin(ledger.reserve(SECOND, "coder"));
            assert!(second.as_mut().now_or_never().is_none(), "20 of 25 are taken");
            ledger.settle(FIRST, "coder", &usage(used, 0));
            drop(first);
            assert_eq!(second.await.is_ok(), is_sent);
        }
    }

    #[test]
    fn an_agent_without_figures_is_named_once() {
        let limits = BudgetLimits { cost: Some(10), tokens: Some(10), ..BudgetLimits::default() };
        let ledger = ledger(limits);
        let without_cost = Usage { input_tokens: 1, ..Usage::default() };
        assert_eq!(ledger.settle(FIRST, "one", &without_cost), Some(Uncounted::Cost));
        assert_eq!(ledger.settle(FIRST, "one", &without_cost), None);
        assert_eq!(ledger.settle(FIRST, "two", &usage(0, 1)), Some(Uncounted::Tokens));
        assert_eq!(ledger.settle(FIRST, "three", &usage(1, 1)), None);
    }
}
