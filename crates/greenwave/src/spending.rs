//! Limits and prices of what agents use.

use std::fmt;

use crate::report::Usage;

/// Limits of what agents may use in one run, as far as they report it. `None` for no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BudgetLimits {
    /// Maximum number of tokens of all features, read and written.
    pub tokens: Option<u64>,
    /// Maximum number of tokens of one feature, read and written.
    pub feature_tokens: Option<u64>,
    /// Maximum cost of all features, in millionths of a US dollar.
    pub cost: Option<u64>,
    /// Maximum cost of one feature, in millionths of a US dollar.
    pub feature_cost: Option<u64>,
}

/// Prices of an agent's model, each in millionths of a US dollar for one million tokens. They apply
/// to usage whose cost the agent does not report.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Prices {
    /// Price of tokens that the model reads.
    pub input: u64,
    /// Price of tokens that the model reads from the provider's cache.
    pub cached: u64,
    /// Price of tokens that the model writes.
    pub output: u64,
}

impl Prices {
    /// Returns the cost of a usage, in millionths of a US dollar, rounded up.
    #[must_use]
    pub fn cost(&self, usage: &Usage) -> u64 {
        let uncached = usage.input_tokens.saturating_sub(usage.cached_tokens);
        let parts =
            [(uncached, self.input), (usage.cached_tokens, self.cached), (usage.output_tokens, self.output)];
        let product = |(tokens, price): (u64, u64)| u128::from(tokens) * u128::from(price);
        let sum = parts.into_iter().map(product).fold(0_u128, u128::saturating_add);
        u64::try_from(sum.div_ceil(1_000_000)).unwrap_or(u64::MAX)
    }
}

impl BudgetLimits {
    pub(crate) fn limits_tokens(&self) -> bool {
        self.tokens.is_some() || self.feature_tokens.is_some()
    }

    pub(crate) fn limits_cost(&self) -> bool {
        self.cost.is_some() || self.feature_cost.is_some()
    }
}

/// A limit that a request would pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BudgetExceeded {
    /// Key of the limit in a plan.
    pub(crate) key: &'static str,
    /// Whether the limit is one of the feature.
    pub(crate) of_feature: bool,
    pub(crate) limit: u64,
    pub(crate) used: u64,
    pub(crate) expected: u64,
}

impl BudgetExceeded {
    /// Returns the key of the limit in a plan, such as `budget.usd`.
    #[must_use]
    pub fn key(&self) -> &'static str {
        self.key
    }
}

impl fmt::Display for BudgetExceeded {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_money = self.key.ends_with("usd");
        let amount = |value: u64| if is_money { format_dollars(value) } else { value.to_string() };
        let unit = if is_money { "" } else { " tokens" };
        let owner = if self.of_feature { "this feature" } else { "the run" };
        let (used, limit) = (amount(self.used), amount(self.limit));
        write!(out, "{owner} has used {used} of {limit}{unit} (`{}`)", self.key)?;
        match self.expected {
            0 => Ok(()),
            expected => write!(out, ", and an answer of its agent took {}", amount(expected)),
        }
    }
}

/// Formats an amount of millionths of a US dollar, with cents, or more digits below a cent.
#[must_use]
pub fn format_dollars(millionths: u64) -> String {
    let dollars = millionths as f64 / 1e6;
    if millionths == 0 || millionths >= 10_000 { format!("${dollars:.2}") } else { format!("${dollars:.4}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prices_apply_to_each_kind_of_token() {
        let prices = Prices { input: 1_250_000, cached: 125_000, output: 10_000_000 };
        let usage = Usage { input_tokens: 3000, cached_tokens: 1000, output_tokens: 100, cost: None };
        assert_eq!(prices.cost(&usage), 2500 + 125 + 1000);
        let all =
            Usage { input_tokens: u64::MAX, cached_tokens: u64::MAX, output_tokens: u64::MAX, cost: None };
        let most = Prices { input: u64::MAX, cached: u64::MAX, output: u64::MAX };
        assert_eq!(most.cost(&all), u64::MAX);
        // More cached tokens than tokens, which a provider may report.
        assert_eq!(prices.cost(&Usage { cached_tokens: 8, ..Usage::default() }), 1);
    }

    #[test]
    fn amounts_are_short() {
        assert_eq!(
            [0, 4, 9_999, 10_000, 1_234_567].map(format_dollars),
            ["$0.00", "$0.0000", "$0.0100", "$0.01", "$1.23"]
        );
    }
}
