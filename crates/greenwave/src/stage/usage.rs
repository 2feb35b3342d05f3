//! Accounts for the usage of an agent.

use greenwave_storage::AttemptFigures;

use super::Stage;
use crate::budget::{Reservation, Uncounted};
use crate::error::FeatureError;
use crate::event::Event;
use crate::report::Usage;
use crate::spending::Prices;
use crate::transcript::Recorder;

impl Stage<'_> {
    /// Reserves the expected usage of a request. Waits while other requests hold the rest.
    ///
    /// # Errors
    /// [`FeatureError::Budget`] if the request would pass a limit.
    pub(super) async fn reserve(&self) -> Result<Reservation, FeatureError> {
        let reserved = self.ctx.budget.reserve(self.id, self.agent()).await;
        reserved.map_err(FeatureError::Budget)
    }

    /// Stores the transcript, the session and the usage of a response.
    pub(super) async fn record(&mut self, recorder: Recorder) {
        self.active.transcript = recorder.transcript(&self.ctx.mask);
        // A program that did not get to work may have refused to continue a session.
        self.active.session = recorder.session().filter(|_| recorder.has_acted());
        let mut usage = recorder.usage();
        if usage.cost.is_none() && !usage.is_empty() {
            usage.cost = self.prices().map(|prices| prices.cost(&usage));
        }
        self.add_figures(usage);
        self.report.usage.add(usage);
        self.ctx.totals.lock().usage.add(usage);
        let agent = self.agent();
        if let Some(uncounted) = self.ctx.budget.settle(self.id, agent, &usage) {
            self.ctx.emit(note(agent, uncounted, &usage)).await;
        }
    }

    /// Adds usage to the figures of the attempt.
    fn add_figures(&mut self, usage: Usage) {
        let figures = self.active.figures.get_or_insert_default();
        let mut sum = Usage {
            input_tokens: figures.input_tokens,
            cached_tokens: figures.cached_tokens,
            output_tokens: figures.output_tokens,
            cost: figures.cost,
        };
        sum.add(usage);
        let Usage { input_tokens, cached_tokens, output_tokens, cost } = sum;
        *figures = AttemptFigures { input_tokens, cached_tokens, output_tokens, cost, ..*figures };
    }

    fn prices(&self) -> Option<Prices> {
        self.agent_spec()?.prices()
    }
}

/// Returns a note about usage that a limit does not count.
fn note(agent: &str, uncounted: Uncounted, usage: &Usage) -> Event {
    let (what, limits) = match uncounted {
        Uncounted::Cost => ("cost", "`budget.usd` and `budget.feature_usd` do"),
        Uncounted::Tokens => ("number of tokens", "`budget.tokens` and `budget.feature_tokens` do"),
    };
    let hint = (uncounted == Uncounted::Cost && !usage.is_empty())
        .then(|| format!("set the prices of its model: `[agents.{agent}.prices]`"));
    let message = format!("agent `{agent}` does not report its {what}, so {limits} not limit it");
    Event::Note { code: "usage-unknown", feature: None, message, hint }
}
