//! The phases of a feature, and the rules that move it between them.

use std::fmt;

/// Phase of a feature.
///
/// [`Phase::after`] holds all rules for moving between phases. It is a pure function, so that the
/// rules can be tested alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Waiting for dependencies or for resources.
    Waiting,
    /// Running the tests of a feature that an earlier run made green, because their inputs changed.
    Checking,
    /// A test agent is working on attempt `n`, in which it writes the feature's tests.
    Writing(u32),
    /// Attempt `n` at the tests waits because the provider of the test agent limits requests or is
    /// overloaded.
    WritingPaused(u32),
    /// Finding and running the tests that were written in attempt `n`. They must fail.
    Confirming(u32),
    /// Running the tests before any code is written. They must fail.
    Red,
    /// The agent is working on attempt `n`.
    Prompting(u32),
    /// Attempt `n` waits because the agent's provider limits requests or is overloaded.
    Paused(u32),
    /// Running the tests on the answer of attempt `n`.
    Testing(u32),
    /// Running the review command on the answer of attempt `n`, or asking the agent that reviews
    /// it.
    Reviewing(u32),
    /// The review of attempt `n` waits because the reviewing agent's provider limits requests or is
    /// overloaded.
    ReviewPaused(u32),
    /// The answer of attempt `n` waits for the approval of the user before its merge.
    Held(u32),
    /// The answer of attempt `n` waits to be merged into the project, in a batch with others.
    Queued(u32),
    /// Merging the answer of attempt `n` into the project, with those of other features that are
    /// [`Queued`](Self::Queued).
    Merging(u32),
    /// The answer of attempt `n` waits because it overlaps with an edit of the user.
    Blocked(u32),
    /// Merged into the project, after `n` attempts.
    Green(u32),
    /// Ended without being merged.
    Failed,
    /// Never started, because a feature that it depends on failed.
    Skipped,
}

/// Event that can move a feature to another phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PhaseEvent {
    /// The feature starts.
    Started,
    /// The feature starts, and an earlier run made it green.
    Resumed,
    /// The tests failed before any code was written, as they must. The code begins.
    TestsFailed,
    /// The tests failed as they must, and attempt `n` continues the attempts of an earlier run.
    Continued(u32),
    /// The tests pass before any code was written in this run, and the user adopts the present
    /// code.
    Adopted,
    /// The agent cannot take the request at the moment.
    Overloaded,
    /// The feature merges the batch of all queued features.
    Elected,
    /// The user changed the same lines of a file as the answer.
    Overlapped,
    /// The agent can work again, or the user has changed the file.
    Released,
    /// The agent answered with files.
    Answered,
    /// The user approved the answer.
    Approved,
    /// The tests passed, the review approved, or the merge succeeded.
    Passed,
    /// The attempt is refused: the answer is unusable, a test failed, the review disapproved, the
    /// user rejected it, or the merge has a conflict. Another attempt may follow.
    Refused,
    /// A feature that this one depends on failed.
    AncestorFailed,
}

/// Policy of a feature: the last attempt that it has, and the steps before its merge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FeaturePolicy {
    /// Number of the last attempt, at least 1. Counts the attempts of earlier runs. The attempts at
    /// the tests and those at the code have a limit each.
    pub attempts_max: u32,
    /// Whether an agent writes the tests before they run.
    pub writes_tests: bool,
    /// Whether a review follows the tests.
    pub review: bool,
    /// Whether the merge waits for the approval of the user.
    pub hold: bool,
}

impl Phase {
    /// Returns the phase that follows `event`. An event that cannot happen in a phase has no
    /// effect.
    #[must_use]
    pub fn after(self, event: PhaseEvent, policy: FeaturePolicy) -> Phase {
        use {Phase as P, PhaseEvent as E};
        match (self, event) {
            (P::Waiting, E::Started) if policy.writes_tests => P::Writing(1),
            (P::Waiting, E::Started) => P::Red,
            (P::Waiting, E::Resumed) => P::Checking,
            (P::Waiting, E::AncestorFailed) => P::Skipped,
            (P::Checking, E::Passed) => P::Green(0),
            (P::Checking, E::Refused) => P::Red,
            (P::Writing(_), E::Continued(n)) if (1..=policy.attempts_max).contains(&n) => P::Writing(n),
            (P::Writing(n), E::Overloaded) => P::WritingPaused(n),
            (P::WritingPaused(n), E::Released) => P::Writing(n),
            (P::Writing(n), E::Answered) => P::Confirming(n),
            (P::Confirming(n), E::TestsFailed) => P::Prompting(n + 1),
            (P::Writing(n) | P::Confirming(n), E::Refused) if n < policy.attempts_max => P::Writing(n + 1),
            (P::Writing(_) | P::Confirming(_), E::Refused) => P::Failed,
            (P::Red, E::TestsFailed) => P::Prompting(1),
            (P::Red, E::Continued(n)) if (1..=policy.attempts_max).contains(&n) => P::Prompting(n),
            (P::Red, E::Adopted) => P::Green(0),
            (P::Prompting(n), E::Overloaded) => P::Paused(n),
            (P::Paused(n), E::Released) => P::Prompting(n),
            (P::Reviewing(n), E::Overloaded) => P::ReviewPaused(n),
            (P::ReviewPaused(n), E::Released) => P::Reviewing(n),
            (P::Queued(n) | P::Merging(n), E::Overlapped) => P::Blocked(n),
            (P::Blocked(n), E::Released) => P::Queued(n),
            (P::Prompting(n), E::Answered) => P::Testing(n),
            (P::Testing(n), E::Passed) if policy.review => P::Reviewing(n),
            (P::Testing(n) | P::Reviewing(n), E::Passed) if policy.hold => P::Held(n),
            (P::Testing(n) | P::Reviewing(n), E::Passed) | (P::Held(n), E::Approved) => P::Queued(n),
            (P::Queued(n), E::Elected) => P::Merging(n),
            (P::Queued(n) | P::Merging(n), E::Passed) => P::Green(n),
            (
                P::Prompting(n) | P::Testing(n) | P::Reviewing(n) | P::Held(n) | P::Queued(n) | P::Merging(n),
                E::Refused,
            ) => {
                if n < policy.attempts_max {
                    P::Prompting(n + 1)
                } else {
                    P::Failed
                }
            }
            _ => self,
        }
    }

    /// Returns the number of the current attempt, from 1. Returns 0 in phases that have no attempt.
    pub fn attempt(self) -> u32 {
        match self {
            Phase::Writing(n)
            | Phase::WritingPaused(n)
            | Phase::Confirming(n)
            | Phase::Prompting(n)
            | Phase::Paused(n)
            | Phase::Testing(n)
            | Phase::Reviewing(n)
            | Phase::ReviewPaused(n)
            | Phase::Held(n)
            | Phase::Queued(n)
            | Phase::Merging(n)
            | Phase::Blocked(n)
            | Phase::Green(n) => n,
            Phase::Waiting | Phase::Checking | Phase::Red | Phase::Failed | Phase::Skipped => 0,
        }
    }

    /// Returns whether an agent writes the tests of the feature in the phase.
    pub(crate) fn is_about_tests(self) -> bool {
        matches!(self, Phase::Writing(_) | Phase::WritingPaused(_) | Phase::Confirming(_))
    }

    /// Returns whether the feature waits for an agent whose provider does not take the request.
    pub(crate) fn is_paused(self) -> bool {
        matches!(self, Phase::WritingPaused(_) | Phase::Paused(_) | Phase::ReviewPaused(_))
    }

    /// Returns whether the feature only waits in the phase.
    pub(crate) fn is_wait(self) -> bool {
        self.is_paused() || matches!(self, Phase::Held(_) | Phase::Queued(_) | Phase::Blocked(_))
    }

    /// Returns whether no event leads out of the phase.
    pub fn is_final(self) -> bool {
        matches!(self, Phase::Green(_) | Phase::Failed | Phase::Skipped)
    }

    /// Returns the phase's name in output: its colour, where it has one.
    pub fn label(self) -> &'static str {
        match self {
            Phase::Waiting
            | Phase::WritingPaused(_)
            | Phase::Paused(_)
            | Phase::ReviewPaused(_)
            | Phase::Blocked(_) => "waiting",
            Phase::Checking => "checking",
            Phase::Writing(_) => "tests",
            Phase::Red | Phase::Confirming(_) => "red",
            Phase::Prompting(_) | Phase::Testing(_) => "yellow",
            Phase::Reviewing(_) => "review",
            Phase::Held(_) => "held",
            Phase::Queued(_) | Phase::Merging(_) => "merging",
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
