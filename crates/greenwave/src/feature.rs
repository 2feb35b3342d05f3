//! Where a feature is in its life, and what moves it on. Decides; does nothing, and knows of no file, agent or test.

use std::fmt;

/// Where a feature is. [`Phase::after`] alone moves a feature between phases.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Waits for the features it depends on, or for its turn.
    Waiting,
    /// It was green in an earlier run, and something that its tests read has changed: they are run again.
    Checking,
    /// Its tests are run before there is any code, and must fail.
    Red,
    /// The agent is asked, for the so-manieth time.
    Prompting(u32),
    /// The tests are run on the agent's answer.
    Testing(u32),
    /// The review has its say.
    Reviewing(u32),
    /// The answer is joined with what other features have made, and tested with it.
    Merging(u32),
    /// Its files are in the project, after so many attempts.
    Green(u32),
    /// It could not be done.
    Failed,
    /// It was never begun, because a feature it depends on failed.
    Skipped,
}

/// What happened to a feature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PhaseEvent {
    /// Its turn has come.
    Begun,
    /// Its turn has come, and it was green in an earlier run.
    Resumed,
    /// The tests failed before there was any code, as they should.
    TestsFailed,
    /// The agent has answered with files.
    Answered,
    /// The tests pass, the review approves, or the merge holds: the next thing may be done.
    Passed,
    /// The tests fail, the review refuses, the merge does not hold, or the answer is unusable: the agent
    /// may be told, and asked again.
    Refused,
    /// A feature that it depends on failed.
    AncestorFailed,
}

/// What a feature is configured to go through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FeaturePolicy {
    /// How often the agent is asked, at the most.
    pub attempts_max: u32,
    /// Whether there is a review.
    pub review: bool,
}

impl Phase {
    /// The phase after something happened. What cannot happen in a phase changes nothing.
    #[must_use]
    pub fn after(self, happening: PhaseEvent, course: FeaturePolicy) -> Phase {
        use {Phase as P, PhaseEvent as H};
        match (self, happening) {
            (P::Green(_) | P::Failed | P::Skipped, _) => self,
            (P::Waiting, H::Begun) => P::Red,
            (P::Waiting, H::Resumed) => P::Checking,
            (P::Checking, H::Passed) => P::Green(0),
            (P::Checking, H::Refused) => P::Red,
            (P::Waiting, H::AncestorFailed) => P::Skipped,
            (P::Red, H::TestsFailed) => P::Prompting(1),
            (P::Prompting(attempt), H::Answered) => P::Testing(attempt),
            (P::Testing(attempt), H::Passed) if course.review => P::Reviewing(attempt),
            (P::Testing(attempt) | P::Reviewing(attempt), H::Passed) => P::Merging(attempt),
            (P::Merging(attempt), H::Passed) => P::Green(attempt),
            (P::Prompting(n) | P::Testing(n) | P::Reviewing(n) | P::Merging(n), H::Refused) => {
                if n < course.attempts_max { P::Prompting(n + 1) } else { P::Failed }
            }
            _ => self,
        }
    }

    /// How often the agent has been asked, this time included.
    pub fn attempt(self) -> u32 {
        match self {
            Phase::Prompting(n)
            | Phase::Testing(n)
            | Phase::Reviewing(n)
            | Phase::Merging(n)
            | Phase::Green(n) => n,
            _ => 0,
        }
    }

    /// The light that a feature in this phase shows: the phase's name for people.
    pub fn label(self) -> &'static str {
        match self {
            Phase::Waiting => "waiting",
            Phase::Checking => "checking",
            Phase::Red => "red",
            Phase::Prompting(_) | Phase::Testing(_) => "yellow",
            Phase::Reviewing(_) => "review",
            Phase::Merging(_) => "merging",
            Phase::Green(_) => "green",
            Phase::Failed => "failed",
            Phase::Skipped => "skipped",
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.label())
    }
}
