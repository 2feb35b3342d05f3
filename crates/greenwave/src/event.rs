//! Events that a run publishes while it works.

use std::collections::BTreeMap;

use serde::Serialize;

/// Change of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum FileChange {
    /// The file is new.
    Created,
    /// The content or the mode changed.
    Modified,
    /// The file was removed.
    Deleted,
    /// The file has another path.
    Renamed,
}

/// Output and words of an attempt. Texts are bounded, without control characters, and without
/// secrets; empty ones are not serialised. The whole is stored with the attempt.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct AttemptDetails {
    /// Output of the failing test or review.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub test_output: String,
    /// Text of the agent's answer.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub words: String,
    /// Standard error of the agent's program.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub stderr: String,
    /// Exit of the agent's program, such as `exit status: 1`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub exit: String,
}

/// Event of a run, published when it happens.
///
/// Serialises as an object with the event's name in the key `event`.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Event {
    /// The run started.
    Started {
        /// Name of the plan.
        plan: String,
        /// Number of features in the plan.
        features: usize,
        /// Maximum number of tests that run at once.
        workers: u32,
        /// Maximum number of agent requests in flight.
        agents: u32,
        /// Kinds of the plan's agents (`scripted`, `command`), sorted.
        agent_kinds: Vec<String>,
    },
    /// Agents and tests are confined, or not.
    Confinement {
        /// Confinement of tests, and of agents that do not set it: `mount`, `landlock` or `off`.
        strength: &'static str,
        /// Version of Landlock in the kernel, if that is used.
        landlock: Option<u32>,
        /// Reason why agents and tests run unconfined.
        reason: Option<String>,
        /// Reason why tests see the user's processes in spite of mounts.
        shared_processes: Option<String>,
        /// Agents that set it, by name, and how each is confined.
        agents: BTreeMap<String, &'static str>,
    },
    /// The way in which working copies are made.
    Copies {
        /// `overlay`, `reflink` or `copy`, as in the setting `run.copies`.
        method: &'static str,
    },
    /// Tests are traced, or not.
    Tracing {
        /// `off`: tests of a run are not traced, so a result depends on the test's inputs only.
        status: &'static str,
    },
    /// The copies of a git project have their base.
    Base {
        /// Commit that the copies start from. `None` before the first commit, or without git.
        commit: Option<String>,
        /// Number of files with uncommitted work, which the copies have as well.
        uncommitted: usize,
        /// Why the copies have no git repository.
        note: Option<String>,
    },
    /// A feature is up to date: an earlier run made it green, and its tests have cached passes.
    UpToDate {
        /// Id of the feature.
        feature: String,
    },
    /// A feature moved to another phase or attempt.
    Phase {
        /// Id of the feature.
        feature: String,
        /// Label of the phase: checking, tests, red, yellow, review, held, merging or
        /// green.
        phase: &'static str,
        /// Number of the attempt, from 1; 0 before the first.
        attempt: u32,
    },
    /// A file was taken from an agent's work.
    File {
        /// Id of the feature.
        feature: String,
        /// Number of the attempt, from 1.
        attempt: u32,
        /// Path of the file, relative to the project.
        path: String,
        /// Size of the file, in bytes; 0 if it is deleted.
        bytes: usize,
        /// Change of the file.
        change: FileChange,
        /// Path before a rename.
        #[serde(skip_serializing_if = "Option::is_none")]
        from: Option<String>,
        /// Whether the file is executable.
        executable: bool,
    },
    /// A part of an answer was not taken. The attempt goes on without it.
    NotTaken {
        /// Id of the feature.
        feature: String,
        /// Number of the attempt, from 1.
        attempt: u32,
        /// Path of the file that the part is about, if it names one.
        path: Option<String>,
        /// Why it was not taken.
        reason: String,
    },
    /// A test has a result.
    Tests {
        /// Id of the feature that needs the result.
        feature: String,
        /// Name of the test.
        test: String,
        /// Label of the phase that needs the result: checking, red, yellow, review, merging, or
        /// `baseline` for a test that shall guard the project, before the first merge.
        phase: &'static str,
        /// `passed`, or how the test failed.
        status: String,
        /// Number of tests that passed, if the runner counts them.
        passed: Option<u32>,
        /// Number of tests that failed, if the runner counts them.
        failed: Option<u32>,
        /// Whether the result was cached.
        cached: bool,
        /// Duration of the test when it ran, in seconds.
        seconds: f64,
    },
    /// A feature continues the attempts of an earlier run.
    Continued {
        /// Id of the feature.
        feature: String,
        /// Number of the attempt at which it continues.
        attempt: u32,
        /// Whether the answer to this attempt is complete, so that it is tested without a request.
        answered: bool,
        /// Whether the attempts of the earlier run were used up, so that a new round begins.
        new_round: bool,
    },
    /// A feature waits, without using up an attempt, for its agent or for the user.
    Waiting {
        /// Id of the feature.
        feature: String,
        /// Number of the attempt, from 1.
        attempt: u32,
        /// Reason of the wait.
        reason: String,
        /// Time after which the agent can work again, in seconds, as far as it is foreseeable.
        seconds: Option<f64>,
    },
    /// An agent takes over a feature from another one, which cannot work or has used up its
    /// attempts.
    Fallback {
        /// Id of the feature.
        feature: String,
        /// Number of the attempt, from 1, of the other agent.
        attempt: u32,
        /// Name of the agent that takes over.
        agent: String,
        /// Name of the other agent.
        instead_of: String,
        /// Why the other agent does not go on.
        reason: String,
    },
    /// One of several answers to an attempt is complete, or its agent cannot answer.
    Candidate {
        /// Id of the feature.
        feature: String,
        /// Number of the attempt, from 1.
        attempt: u32,
        /// Number of the answer, from 1.
        candidate: u32,
        /// Number of answers that the attempt asks for.
        of: u32,
        /// Name of the agent.
        agent: String,
        /// `answered`; `unusable` for an answer that cannot be tested; `waiting` if the provider of
        /// the agent limits requests; `unavailable` for an agent that cannot work.
        status: &'static str,
        /// Why the answer cannot be used or is missing.
        reason: Option<String>,
    },
    /// One of several answers to an attempt was chosen. The others are stored as attempts.
    Chosen {
        /// Id of the feature.
        feature: String,
        /// Number of the attempt, from 1.
        attempt: u32,
        /// Number of the answer, from 1.
        candidate: u32,
        /// Number of answers that the attempt asked for.
        of: u32,
        /// Name of the agent.
        agent: String,
        /// Why it was chosen.
        reason: String,
    },
    /// An agent has written the tests of a feature, and they fail as they must.
    TestsWritten {
        /// Id of the feature.
        feature: String,
        /// Number of the attempt, from 1.
        attempt: u32,
        /// Name of the agent.
        agent: String,
        /// Names of the tests, as the harnesses have found them.
        tests: Vec<String>,
        /// Paths of the files, relative to the project.
        files: Vec<String>,
    },
    /// The reviewer of a feature has decided about an answer.
    Reviewed {
        /// Id of the feature.
        feature: String,
        /// Number of the attempt, from 1.
        attempt: u32,
        /// Name of the reviewing agent.
        agent: String,
        /// Whether it approves the change.
        approved: bool,
        /// The first line of its reasons. Empty if it approves.
        reason: String,
    },
    /// A feature cannot continue before the user does something.
    NeedsYou {
        /// Id of the feature.
        feature: String,
        /// Number of the attempt, from 1.
        attempt: u32,
        /// Kind of the reason: `approval` for an answer that is held before its merge, `edit` for a
        /// change of the user that overlaps with the answer, `budget` for a budget that is used
        /// up, and `login` for an agent whose program is not logged in.
        kind: &'static str,
        /// Reason why it cannot continue.
        reason: String,
        /// Instruction for the user.
        action: String,
    },
    /// The tests of a feature passed before any code was written in this run. It is green, because
    /// the user adopts the code, or because an agent wrote it in another copy of the project.
    Adopted {
        /// Id of the feature.
        feature: String,
    },
    /// An attempt was refused. Another may follow.
    Refused {
        /// Id of the feature.
        feature: String,
        /// Number of the attempt, from 1.
        attempt: u32,
        /// Why it was refused.
        reason: String,
        /// Output of the tests and words of the agent.
        #[serde(flatten)]
        details: AttemptDetails,
    },
    /// The files of a feature were merged into the project.
    Merged {
        /// Id of the feature.
        feature: String,
        /// Number of changed files.
        files: usize,
        /// Number of tests, of this and of other green features, that ran for the merge.
        retested: usize,
        /// Number of such tests whose result was cached.
        cached: usize,
    },
    /// A feature failed.
    Failed {
        /// Id of the feature.
        feature: String,
        /// Why it failed.
        reason: String,
        /// Output of the tests and words of the agent in the last attempt.
        #[serde(flatten)]
        details: AttemptDetails,
    },
    /// Something that the user should know and that does not end a feature.
    Note {
        /// Kind of the note, a constant in kebab case, such as `flaky-test`.
        code: &'static str,
        /// Id of the feature that it is about. `None` for the run as a whole.
        feature: Option<String>,
        /// The note, one line.
        message: String,
        /// Instruction that would remove the cause.
        hint: Option<String>,
    },
    /// A feature was never started.
    Skipped {
        /// Id of the feature.
        feature: String,
        /// Id of the failed feature that it depends on.
        because: String,
    },
}

#[cfg(test)]
mod tests;
