//! Reads limits of what agents use, and prices.

use greenwave::{BudgetLimits, Prices};

use crate::diagnostic::Diagnostic;
use crate::reader::Table;

/// Reads the table `budget` of a plan.
pub(super) fn budget(root: &mut Table<'_>) -> Result<BudgetLimits, Diagnostic> {
    let Some(mut table) = root.table("budget")? else { return Ok(BudgetLimits::default()) };
    let limits = BudgetLimits {
        tokens: table.whole("tokens")?.map(|number| number.value),
        feature_tokens: table.whole("feature_tokens")?.map(|number| number.value),
        cost: dollars(&mut table, "usd")?,
        feature_cost: dollars(&mut table, "feature_usd")?,
    };
    table.finish()?;
    Ok(limits)
}

/// Reads the table `prices` of an agent.
pub(super) fn prices(agent: &mut Table<'_>) -> Result<Option<Prices>, Diagnostic> {
    let Some(mut table) = agent.table("prices")? else { return Ok(None) };
    let input = dollars(&mut table, "input")?.ok_or_else(|| table.missing("input"))?;
    let output = dollars(&mut table, "output")?.ok_or_else(|| table.missing("output"))?;
    let cached = dollars(&mut table, "cached")?.unwrap_or(input);
    table.finish()?;
    Ok(Some(Prices { input, cached, output }))
}

/// Takes an amount of US dollars. Returns it in millionths.
fn dollars(table: &mut Table<'_>, key: &'static str) -> Result<Option<u64>, Diagnostic> {
    Ok(table.number(key)?.map(|number| (number.value * 1e6).round() as u64))
}
