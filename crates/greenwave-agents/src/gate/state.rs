//! Decides which requests may be sent, from the outcomes of earlier ones.

use std::time::Duration;

use tokio::time::Instant;

use super::backoff::{ASKED_MAX, Backoff};

/// Minimum delay after an outage, and the time after which a trial that has no outcome yet lets
/// another one through.
pub(super) const COOLDOWN: Duration = Duration::from_secs(1);
/// Number of refusals in a row, without an accepted request between them, that are an outage.
const REFUSALS_MAX: u32 = 5;

/// State of a gate.
#[derive(Debug)]
pub(super) struct GateState {
    requests_max: usize,
    in_flight: usize,
    /// Number of requests that the provider is believed to serve at once. 0 during an outage.
    limit: usize,
    /// The limit after the next trial that is accepted, unless more requests are in flight.
    limit_after_trial: usize,
    /// Time from which one request beyond the limit may be sent.
    next_trial: Instant,
    /// Time between trials whose outcomes are not known.
    spacing: Duration,
    /// Number of refusals of requests within the limit. Those of requests that were sent together
    /// count once.
    refusals: u64,
    /// Number of such refusals since a request was accepted.
    refusals_in_row: u32,
    /// Number of requests that were served since the last trial.
    served: usize,
    last_served: Instant,
    /// Time at which a served request has ended.
    last_end: Option<Instant>,
    trials: Backoff,
    outages: Backoff,
}

/// A request in flight.
#[derive(Debug, Clone, Copy)]
pub(super) struct Permit {
    sent: Instant,
    /// Number of requests in flight when it was sent, with itself.
    rank: usize,
    /// Whether it was sent beyond the limit.
    is_trial: bool,
    /// Number of refusals when it was sent.
    refusals: u64,
}

/// End of a request.
#[derive(Debug, Clone, Copy)]
pub(super) enum Outcome {
    Served,
    Refused { retry_after: Option<Duration> },
    Unreachable,
    Unknown,
}

impl GateState {
    pub(super) fn new(requests_max: usize, now: Instant) -> Self {
        let requests_max = requests_max.max(1);
        Self {
            requests_max,
            in_flight: 0,
            limit: requests_max,
            limit_after_trial: requests_max,
            next_trial: now,
            spacing: COOLDOWN,
            refusals: 0,
            refusals_in_row: 0,
            served: 0,
            last_served: now,
            last_end: None,
            trials: Backoff::new(),
            outages: Backoff::new(),
        }
    }

    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    pub(super) fn last_served(&self) -> Instant {
        self.last_served
    }

    /// Returns the time at which the next request may be sent if none ends before, or `None` if
    /// that has no limit.
    pub(super) fn next(&self, now: Instant) -> Option<Instant> {
        match self.in_flight {
            requests if requests < self.limit => Some(now),
            requests if requests < self.requests_max => Some(self.next_trial),
            _ => None,
        }
    }

    /// Admits a request, or returns the time of [`next`](Self::next).
    pub(super) fn admit(&mut self, now: Instant) -> Result<Permit, Option<Instant>> {
        match self.next(now) {
            Some(next) if next <= now => {}
            next => return Err(next),
        }
        let is_trial = self.in_flight >= self.limit;
        if is_trial {
            (self.next_trial, self.served) = (now + self.spacing, 0);
        }
        self.in_flight += 1;
        Ok(Permit { sent: now, rank: self.in_flight, is_trial, refusals: self.refusals })
    }

    /// Learns that a request in flight was accepted.
    pub(super) fn accept(&mut self, permit: Permit, now: Instant) {
        self.last_served = now;
        if permit.refusals != self.refusals {
            // Requests that were sent later are refused.
            return;
        }
        self.refusals_in_row = 0;
        self.outages.reset();
        if permit.is_trial && permit.rank > self.limit {
            // If another request has ended meanwhile, the trial may have taken its place.
            let has_replaced = self.last_end.is_some_and(|end| end > permit.sent);
            let limit = if has_replaced { 0 } else { self.limit_after_trial };
            self.limit = permit.rank.max(limit).min(self.requests_max);
            self.next_trial = now;
            if !has_replaced {
                self.trials.reset();
            }
        }
    }

    /// Ends a request in flight.
    pub(super) fn end(&mut self, permit: Permit, outcome: Outcome, now: Instant) {
        assert!(self.in_flight > 0, "each permit is ended once");
        let was_at_limit = self.in_flight >= self.limit;
        self.in_flight -= 1;
        self.learn(permit, outcome, now);
        if !matches!(outcome, Outcome::Served) {
            return;
        }
        self.last_end = Some(now);
        if was_at_limit && self.limit > 0 {
            self.served += 1;
            if self.served >= self.limit {
                // A round of requests was served at the limit, which may be higher.
                self.next_trial = now;
            }
        }
    }

    /// Learns from the outcome of a request that is no longer in flight.
    pub(super) fn learn(&mut self, permit: Permit, outcome: Outcome, now: Instant) {
        match outcome {
            Outcome::Served => self.accept(permit, now),
            Outcome::Refused { retry_after } => {
                self.refuse(permit, retry_after.map(|delay| delay.min(ASKED_MAX)), false, now);
            }
            Outcome::Unreachable => self.refuse(permit, None, true, now),
            Outcome::Unknown if permit.is_trial => self.next_trial = now,
            Outcome::Unknown => {}
        }
    }

    fn refuse(&mut self, permit: Permit, asked: Option<Duration>, is_unreachable: bool, now: Instant) {
        // The provider was busy with others if they still run, or ended after the request was sent.
        let serves_others = self.in_flight > 0 || self.last_end.is_some_and(|end| end > permit.sent);
        let is_limited = self.limit > 0 && serves_others && !is_unreachable;
        if is_limited && permit.is_trial {
            // The limit is right.
            self.delay_trials(self.next_trial, asked, now);
            return;
        }
        let is_first = permit.refusals == self.refusals;
        if is_first {
            self.refusals += 1;
            self.refusals_in_row += 1;
            self.limit_after_trial = (self.limit / 2).max(self.limit_after_trial / 4).max(1);
        }
        if is_limited && self.refusals_in_row < REFUSALS_MAX {
            self.limit = self.limit.min(self.in_flight.max(1));
            if is_first {
                self.delay_trials(now, asked, now);
            }
            return;
        }
        let delay = match self.limit {
            0 if !is_first => asked.unwrap_or_default(),
            _ => self.outages.next(asked),
        };
        let earliest = if self.limit == 0 { self.next_trial } else { now };
        self.next_trial = earliest.max(now + delay.max(COOLDOWN));
        (self.limit, self.spacing) = (0, COOLDOWN);
    }

    fn delay_trials(&mut self, earliest: Instant, asked: Option<Duration>, now: Instant) {
        self.spacing = self.trials.next(asked).max(COOLDOWN);
        self.next_trial = earliest.max(now + self.spacing);
    }
}
