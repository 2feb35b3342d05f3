//! The state of one feature during a run.

mod candidate;
mod kept_agent;

use std::collections::BTreeSet;

use greenwave_agents::{Admission, Place};
use greenwave_storage::{AttemptFigures, Store, Transcript};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::cases::CaseLog;
use crate::error::Error;
use crate::event::AttemptDetails;
use crate::green_record::GreenRecord;
use crate::phase::{Phase, PhaseEvent};
use crate::tree::{File, Tree};
use crate::workspace::Workspace;

pub(crate) use candidate::{Candidate, CandidateState};
pub(crate) use kept_agent::KeptAgent;

/// State of a feature.
#[derive(Debug)]
pub(crate) enum FeatureState {
    /// Not started. `record` is set if an earlier run made the feature green.
    Waiting { record: Option<GreenRecord> },
    /// Started and not ended.
    Active(Box<ActiveFeature>),
    /// Green, failed or skipped.
    Ended(Phase),
}

/// A started feature: its phase, its workspace, and the input of its next stage.
#[derive(Debug)]
pub(crate) struct ActiveFeature {
    pub(crate) phase: Phase,
    /// Private copy of the project.
    pub(crate) workspace: Workspace,
    /// Whether the workspace has the files that the feature starts from.
    pub(crate) is_prepared: bool,
    /// Files that the workspace started from.
    pub(crate) base: Tree,
    /// Why the last attempt was refused, for the next prompt.
    pub(crate) feedback: String,
    /// Failure of its test before the code existed.
    pub(crate) red: String,
    /// Single tests that the feature's tests ran.
    pub(crate) cases: CaseLog,
    /// Parts of the last answer that were not taken, one message each.
    pub(crate) partial: Vec<String>,
    /// Words of the agent in the last attempt.
    pub(crate) transcript: Transcript,
    /// Time and usage of the agent in the last attempt, if this run requested it.
    pub(crate) figures: Option<AttemptFigures>,
    /// Number of agents that another one has taken over from.
    pub(crate) fallbacks: usize,
    /// Id of the agent's last session, which the next attempt continues.
    pub(crate) session: Option<String>,
    /// The program of the agent, suspended until the next attempt.
    pub(crate) kept: KeptAgent,
    /// Output of the test that failed in the last attempt, cleaned and bounded.
    pub(crate) test_output: String,
    /// Output of the tests that passed in the last attempt, cleaned and bounded.
    pub(crate) passing_output: String,
    /// Whether the reviewer has approved the current answer.
    pub(crate) is_reviewed: bool,
    /// Number of the last attempt. Counts the attempts of earlier runs.
    pub(crate) attempts_max: u32,
    /// Number of the first attempt at the code. Those before it are attempts at the tests.
    pub(crate) first_attempt: u32,
    /// Tests that failed at the last attempt, by the names that their runner prints.
    pub(crate) failing: BTreeSet<String>,
    /// Files of the last answer that was tested and refused, and the failure.
    pub(crate) refused: Option<(Tree, Failure)>,
    /// The agent that gets the request, if the plan does not decide that alone: the agent of a
    /// candidate.
    pub(crate) agent: Option<String>,
    /// Number of the candidate that this is, if it is one.
    pub(crate) candidate: Option<u32>,
    /// The answers to the attempt, if it asks for several, until one of them is chosen.
    pub(crate) candidates: Vec<Candidate>,
    /// Number of the candidate that was chosen last.
    pub(crate) chosen: Option<u32>,
    /// Files of the current answer, from its end until it is refused.
    pub(crate) answer: Option<Tree>,
    /// Permission to send the next request, obtained while the feature was paused.
    pub(crate) admission: Option<Admission>,
    /// Place of the next request among the requests of other features. A refused request keeps it.
    pub(crate) place: Option<Place>,
    /// Time since when the feature waits for its agent.
    pub(crate) paused_since: Option<Instant>,
    /// Reason why the feature is paused or blocked.
    pub(crate) waits_for: Option<Wait>,
}

/// A failure of an answer, for comparison with another one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Failure {
    reason: String,
    /// Names of the failing tests.
    tests: BTreeSet<String>,
}

/// Reason why a feature is paused or blocked.
#[derive(Debug, Clone)]
pub(crate) enum Wait {
    /// The provider of the agent.
    Agent {
        /// The message of the agent, or of the agent of another feature.
        message: String,
        /// Whether the provider cannot be reached.
        is_unreachable: bool,
    },
    /// The user, who changed a file.
    User {
        /// Path of the file.
        path: String,
        /// State of the file in the project.
        now: Option<File>,
        /// Whether the feature creates the file.
        is_new: bool,
    },
}

/// Result of a stage that does not end the feature with an error.
#[derive(Debug)]
pub(crate) enum StageResult {
    /// The stage completed.
    Completed(PhaseEvent),
    /// The attempt is refused. `reason` is one line for the user, `feedback` goes into the next
    /// prompt.
    Refused { reason: String, feedback: String },
}

impl FeatureState {
    pub(crate) fn phase(&self) -> Phase {
        match self {
            FeatureState::Waiting { .. } => Phase::Waiting,
            FeatureState::Active(active) => active.phase,
            FeatureState::Ended(phase) => *phase,
        }
    }

    /// Ends the feature in a final phase, and returns its leftovers, which are to be removed.
    #[must_use]
    pub(crate) fn end(&mut self, phase: Phase) -> Option<Box<ActiveFeature>> {
        match std::mem::replace(self, FeatureState::Ended(phase)) {
            FeatureState::Active(active) => Some(active),
            FeatureState::Waiting { .. } | FeatureState::Ended(_) => None,
        }
    }
}

impl ActiveFeature {
    pub(crate) fn new(phase: Phase, workspace: Workspace) -> Self {
        Self {
            phase,
            workspace,
            is_prepared: false,
            base: Tree::new(),
            feedback: String::new(),
            red: String::new(),
            cases: CaseLog::default(),
            partial: Vec::new(),
            transcript: Transcript::default(),
            figures: None,
            fallbacks: 0,
            session: None,
            kept: KeptAgent::default(),
            test_output: String::new(),
            passing_output: String::new(),
            is_reviewed: false,
            attempts_max: 1,
            first_attempt: 1,
            failing: BTreeSet::new(),
            refused: None,
            agent: None,
            candidate: None,
            candidates: Vec::new(),
            chosen: None,
            answer: None,
            admission: None,
            place: None,
            paused_since: None,
            waits_for: None,
        }
    }

    /// Notes that the current answer, if there is one, was refused. Returns whether the answer that
    /// was refused before has the same files and failed in the same way.
    pub(crate) fn refuse_answer(&mut self, reason: &str) -> bool {
        let failure = || Failure { reason: reason.to_owned(), tests: self.failing.clone() };
        self.is_reviewed = false;
        let answer = self.answer.take().map(|files| (files, failure()));
        let is_repeated = answer.is_some() && answer == self.refused;
        // An attempt without a testable answer is no evidence about the code.
        self.refused = answer;
        is_repeated
    }

    /// Removes the workspaces of the candidates.
    pub(crate) async fn discard_candidates(&mut self) {
        for candidate in std::mem::take(&mut self.candidates) {
            candidate.discard().await;
        }
        self.agent = None;
    }

    /// Removes the workspaces.
    pub(crate) async fn remove(mut self) {
        self.kept.clear();
        self.discard_candidates().await;
        self.workspace.tear_down().await;
        self.workspace.remove();
    }

    /// Leaves the feature to its next agent, which gets the feedback of the last attempt.
    pub(crate) fn take_over(&mut self) {
        self.fallbacks += 1;
        self.chosen = None;
        self.kept.clear();
        (self.session, self.admission, self.place) = (None, None, None);
        (self.paused_since, self.waits_for) = (None, None);
    }

    /// Leaves the feature, whose tests were written in an attempt, to the agents that write the
    /// code.
    pub(crate) fn begin_code(&mut self, attempt: u32) {
        self.fallbacks = 0;
        self.first_attempt = attempt.saturating_add(1);
        (self.session, self.admission, self.place) = (None, None, None);
        (self.refused, self.answer) = (None, None);
        self.partial.clear();
    }

    /// Returns the messages of the last attempt.
    pub(crate) fn details(&self) -> AttemptDetails {
        let Transcript { words, stderr, exit } = self.transcript.clone();
        AttemptDetails { test_output: self.test_output.clone(), words, stderr, exit }
    }

    /// Resets the workspace to `tree`, which becomes the base of the next attempt.
    pub(crate) async fn reset_to(&mut self, tree: Tree, store: &Store) -> Result<(), Error> {
        self.workspace.start_from(&tree, &tree, store).await?;
        self.base = tree;
        Ok(())
    }
}

impl StageResult {
    /// Refuses an attempt whose reason is all the feedback that there is.
    pub(crate) fn refused(reason: impl Into<String>) -> Self {
        let reason = reason.into();
        StageResult::Refused { feedback: reason.clone(), reason }
    }
}
