//! Plans: a project, agents and features, and the checks that a plan must pass.

mod check;
mod error;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use greenwave_agents::{CodingProgram, HttpOptions, WaitOn};
use greenwave_testing::Test;

use crate::confinement::ConfineOptions;
use crate::spending::{BudgetLimits, Prices};

pub use check::{check_expression, nearest};
pub use error::{PlanError, PlanLocation};

/// A project, agents, and the features that the agents build.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plan {
    /// Name of the plan in output.
    pub name: String,
    /// File of the plan, if it was read from one. Agents may not change it.
    pub file: Option<PathBuf>,
    /// Directory of the project.
    pub project: PathBuf,
    /// Agents, by name.
    pub agents: BTreeMap<String, AgentSpec>,
    /// Agents that take over, in this order, from the agent with a name.
    pub fallbacks: BTreeMap<String, Vec<String>>,
    /// Number of units of each resource that tests can hold in addition to a worker, by name.
    pub resources: BTreeMap<String, u32>,
    /// Features, in the order of the plan.
    pub features: Vec<Feature>,
    /// State of the project that working copies start from.
    pub base: BaseKind,
    /// Place of the results.
    pub result: ResultKind,
    /// Patterns of ignored files that working copies have, relative to the project.
    pub include: Vec<String>,
    /// Commands that run in a fresh working copy before its first use, in the project's directory.
    pub setup: Vec<Vec<String>>,
    /// Patterns of the files that `setup` depends on, in the syntax of `.gitignore`. Empty for
    /// manifests and lock files of package managers.
    pub setup_inputs: Vec<String>,
    /// Commands that run in a working copy before it is removed.
    pub teardown: Vec<Vec<String>>,
    /// Patterns that change the list of files that agents may not change,
    /// [`PROTECTED_FILES`](crate::PROTECTED_FILES), in the syntax of `.gitignore`. One that begins
    /// with `!` takes files out of the list.
    pub protect: Vec<String>,
    /// Tests that pass at the start and must pass after every merge.
    pub guards: Guards,
    /// Confinement of agents and tests.
    pub confinement: ConfineOptions,
    /// Tests that the project's `greenwave.toml` declares. With [`Guards::Auto`] and at least one
    /// such test, these are the guards, as they are what `greenwave test` runs.
    pub declared: Vec<Test>,
    /// Limits of what agents may use in a run.
    pub budget: BudgetLimits,
    /// Source of the responses of model servers and programs. Not part of plan files: the user
    /// decides it for one run.
    pub exchanges: Exchanges,
    /// Command that runs when a feature needs the user, see
    /// [`Event::NeedsYou`](crate::Event::NeedsYou). Empty for none.
    pub notify: Vec<String>,
}

/// State of a project that working copies start from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum BaseKind {
    /// The files as they are, with uncommitted work.
    #[default]
    Worktree,
    /// The commit of `HEAD`.
    Head,
}

/// Place of the results of a plan.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ResultKind {
    /// The files of the project.
    #[default]
    Files,
    /// A branch of the project's repository, with one commit for each feature.
    Branch,
    /// Such a branch, with a report for a pull request: [`Report::branch`](crate::Report::branch).
    PullRequest,
}

/// Source of the responses of model servers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Exchanges {
    /// The servers and programs.
    #[default]
    Live,
    /// The servers and programs. Requests and responses are recorded in a directory, without
    /// secrets.
    Record(PathBuf),
    /// The responses that were recorded in a directory. No request is sent, and no program starts.
    Replay(PathBuf),
}

/// The tests that pass at the start of a run and must pass after every merge.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Guards {
    /// The tests that `greenwave test` runs: those of [`Plan::declared`], or else those that are
    /// discovered in the project.
    #[default]
    Auto,
    /// No tests.
    Off,
    /// These tests.
    Tests(Vec<Test>),
}

/// Position of a feature in [`Plan::features`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FeatureId(usize);

/// Configuration of an agent.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum AgentSpec {
    /// An agent that replays recorded answers.
    Scripted {
        /// File of the script.
        script: PathBuf,
        /// Factor for the recorded delays, from 0 to 1,000,000.
        pace: f64,
    },
    /// A program that edits files in its working directory, or answers on standard output.
    Command(CommandSpec),
    /// A model server, whose model answers with files, edits and diffs, or changes files with
    /// tools. Needs the feature `http-agents`.
    Http(HttpSpec),
}

/// Configuration of an agent that is a model server.
#[derive(Debug, Clone, PartialEq)]
pub struct HttpSpec {
    /// Server, model and key.
    pub options: HttpOptions,
    /// Patterns of the files that prompts contain, in the syntax of `.gitignore`, relative to the
    /// project. Files that probably hold secrets are left out.
    pub context: Vec<String>,
    /// Maximum duration of one answer. `None` for the limit of the settings.
    pub time_max: Option<Duration>,
    /// Maximum time that a feature waits for a server that limits requests, is overloaded or cannot
    /// be reached. `None` for one hour, or ten minutes if it cannot be reached.
    pub wait_max: Option<Duration>,
    /// Prices of the model.
    pub prices: Option<Prices>,
}

impl AgentSpec {
    /// Returns the agent as a program, if it is one.
    pub(crate) fn as_command(&self) -> Option<&CommandSpec> {
        match self {
            Self::Command(spec) => Some(spec),
            _ => None,
        }
    }

    /// Returns whether [`Exchanges`] can record and replay the agent.
    #[must_use]
    pub fn is_recorded(&self) -> bool {
        match self {
            Self::Scripted { .. } => false,
            Self::Command(spec) => spec.protocol == AgentProtocol::Pipe,
            Self::Http(_) => true,
        }
    }

    /// Returns the time limit of one answer, unless it is that of the settings.
    pub(crate) fn time_max(&self) -> Option<Duration> {
        match self {
            Self::Scripted { .. } => None,
            Self::Command(spec) => spec.time_max,
            Self::Http(spec) => spec.time_max,
        }
    }

    /// Returns the time that a feature waits for the agent, unless it is the usual one.
    pub(crate) fn wait_max(&self) -> Option<Duration> {
        match self {
            Self::Scripted { .. } => None,
            Self::Command(spec) => spec.wait_max,
            Self::Http(spec) => spec.wait_max,
        }
    }

    /// Returns the prices of the agent's model.
    pub(crate) fn prices(&self) -> Option<Prices> {
        match self {
            Self::Scripted { .. } => None,
            Self::Command(spec) => spec.prices,
            Self::Http(spec) => spec.prices,
        }
    }
}

/// Configuration of an agent that is a program.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CommandSpec {
    /// The program and its arguments, which may contain
    /// [placeholders](greenwave_agents::PLACEHOLDERS).
    pub command: Vec<String>,
    /// Maximum duration of one answer. `None` for the limit of the settings.
    pub time_max: Option<Duration>,
    /// When a failed program is started again later, without using up an attempt.
    pub wait_on: WaitOn,
    /// Maximum time that a feature waits for that, and then fails. `None` for one hour.
    pub wait_max: Option<Duration>,
    /// Protocol of the program's standard streams.
    pub protocol: AgentProtocol,
    /// The coding program that the command starts, whose output is read for its result, its usage
    /// and its session. `None` for a program whose standard output is its answer.
    pub program: Option<CodingProgram>,
    /// The command that replaces the other one if the agent is not confined.
    pub unconfined_command: Option<Vec<String>>,
    /// Variables of the program, which take precedence over others.
    pub env: BTreeMap<String, String>,
    /// Source of the agent's work.
    pub edits: Edits,
    /// Confinement of this agent, in addition to the plan's.
    pub confinement: ConfineOptions,
    /// Prices of its model, for usage whose cost the agent does not report.
    pub prices: Option<Prices>,
}

/// Protocol of the standard streams of an agent that is a program.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum AgentProtocol {
    /// The prompt is the input, and the answer or a report the output.
    #[default]
    Pipe,
    /// The Agent Client Protocol (<https://agentclientprotocol.com>).
    Acp,
}

/// Source of the work of an agent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Edits {
    /// The changes that the agent makes in its working directory, and the files, edits and diffs in
    /// its answer.
    #[default]
    Directory,
    /// Only the files, edits and diffs in the answer. Changes that the agent makes in its working
    /// directory are reverted before the tests run.
    Answer,
}

/// A feature: tests that fail, and a prompt for the agent that makes them pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Feature {
    /// Id of the feature, unique in the plan.
    pub id: String,
    /// Id that the feature had in earlier runs, whose records it continues.
    pub was: Option<String>,
    /// Whether the feature is green if its tests pass before any code is written. Not part of plan
    /// files: the user decides it for one run.
    pub adopt: bool,
    /// Title of the feature in output and in the prompt.
    pub title: String,
    /// Ids of features that must be green before this one starts.
    pub depends_on: Vec<String>,
    /// Prompt for the agent.
    pub prompt: String,
    /// Name of the agent.
    pub agent: String,
    /// Agents that take over, in this order. `None` for those of the agent.
    pub fallback: Option<Vec<String>>,
    /// The answers that each attempt asks for, of which the best one is chosen. `None` for the
    /// number in the settings.
    pub candidates: Option<Candidates>,
    /// Tests that must fail before the feature is written and pass after.
    pub tests: Vec<Test>,
    /// Agent that writes the tests of a feature without tests.
    pub test_agent: Option<TestAgent>,
    /// Maximum number of attempts, at least 1.
    pub attempts_max: u32,
    /// Number of units of each resource that the tests hold while they run, by name.
    pub resources: BTreeMap<String, u32>,
    /// Command that must succeed before the merge. Runs in the feature's workspace.
    pub review: Option<Test>,
    /// Agent that must approve the change before the merge, after the command of `review`. It reads
    /// a copy.
    pub reviewer: Option<String>,
    /// Whether the merge waits for the approval of the user, see [`decide`](crate::decide).
    pub hold: bool,
    /// Regular expression that the output of the failing tests must match before the code exists.
    /// `None` to decide by the report of the test runner.
    pub red: Option<String>,
    /// Patterns of tests and other protected files that the agent may change, in the syntax of
    /// `.gitignore`.
    pub may_edit: Vec<String>,
}

/// The agent that writes the tests of a feature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TestAgent {
    /// Name of the agent.
    pub agent: String,
    /// Whether the agent may also write the code. Otherwise the feature's own agents must be
    /// others.
    pub may_write_code: bool,
}

/// The answers that an attempt asks for, at least one and at most
/// [`CANDIDATES_MAX`](Candidates::CANDIDATES_MAX).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Candidates {
    /// This number of answers of the agent that works on the feature.
    Count(u32),
    /// One answer of each of these agents. An agent may be named several times. A
    /// [fallback](Feature::fallback) works alone.
    Agents(Vec<String>),
}

impl Candidates {
    /// Maximum number of answers that an attempt asks for.
    pub const CANDIDATES_MAX: u32 = 16;

    /// Returns the number of answers.
    pub fn count(&self) -> usize {
        match self {
            Self::Count(count) => *count as usize,
            Self::Agents(agents) => agents.len(),
        }
    }
}

impl Default for Feature {
    /// Returns a feature with one attempt and without an id, a prompt, an agent or tests, for use
    /// as `..Feature::default()`. Does not pass [`Plan::graph`] as it is.
    fn default() -> Self {
        Self {
            id: String::new(),
            was: None,
            adopt: false,
            title: String::new(),
            depends_on: Vec::new(),
            prompt: String::new(),
            agent: String::new(),
            fallback: None,
            candidates: None,
            tests: Vec::new(),
            test_agent: None,
            attempts_max: 1,
            resources: BTreeMap::new(),
            review: None,
            reviewer: None,
            hold: false,
            red: None,
            may_edit: Vec::new(),
        }
    }
}

impl Plan {
    /// Returns the names of a feature's agents: its first agent, and its fallbacks in order. The
    /// agent that writes the tests does not take over.
    pub(crate) fn agents_of<'a>(&'a self, feature: &'a Feature) -> impl Iterator<Item = &'a String> {
        let fallback = feature.fallback.as_ref().or_else(|| self.fallbacks.get(&feature.agent));
        let of_tests = feature.writing_agent().filter(|it| !it.may_write_code && feature.fallback.is_none());
        let fallback = fallback.into_iter().flatten();
        let fallback = fallback.filter(move |name| of_tests.is_none_or(|it| it.agent != **name));
        std::iter::once(&feature.agent).chain(fallback)
    }

    /// Returns the names of the agents that write the tests of a feature: the first one, and its
    /// fallbacks in order. Agents that write the code do not take over.
    pub(crate) fn test_agents_of<'a>(&'a self, feature: &'a Feature) -> impl Iterator<Item = &'a String> {
        let first = feature.writing_agent();
        let fallback = first.and_then(|first| self.fallbacks.get(&first.agent)).into_iter().flatten();
        let may_take_over = move |name: &&String| {
            first.is_some_and(|first| first.may_write_code)
                || self.agents_of(feature).chain(feature.named_candidates()).all(|other| other != *name)
        };
        first.map(|first| &first.agent).into_iter().chain(fallback.filter(may_take_over))
    }

    /// Returns the names of the agents that an attempt at a feature asks, after a number of
    /// fallbacks. `count` is the number of answers of features that do not set it.
    pub(crate) fn candidates_of<'a>(
        &'a self,
        feature: &'a Feature,
        fallbacks: usize,
        count: u32,
    ) -> Vec<&'a String> {
        let agent = self.agents_of(feature).nth(fallbacks).unwrap_or(&feature.agent);
        let answers = |count: u32| count.clamp(1, Candidates::CANDIDATES_MAX) as usize;
        match &feature.candidates {
            Some(Candidates::Agents(agents)) if fallbacks == 0 => agents.iter().collect(),
            Some(Candidates::Agents(_)) => vec![agent],
            Some(Candidates::Count(count)) => vec![agent; answers(*count)],
            None => vec![agent; answers(count)],
        }
    }

    /// Returns the agents that a feature may ask, some of them more than once.
    pub(crate) fn agents_asked<'a>(&'a self, feature: &'a Feature) -> impl Iterator<Item = &'a String> {
        let writers = self.agents_of(feature).chain(feature.named_candidates());
        self.test_agents_of(feature).chain(writers).chain(&feature.reviewer)
    }
}

impl Feature {
    /// Returns the agent that writes the tests. Returns `None` if the feature has tests.
    pub(crate) fn writing_agent(&self) -> Option<&TestAgent> {
        self.test_agent.as_ref().filter(|_| self.tests.is_empty())
    }

    /// Returns the agents that `candidates` names.
    pub(crate) fn named_candidates(&self) -> &[String] {
        match &self.candidates {
            Some(Candidates::Agents(agents)) => agents,
            _ => &[],
        }
    }
}

impl FeatureId {
    /// Returns the id of the feature at `index`, from 0.
    pub const fn from_index(index: usize) -> Self {
        Self(index)
    }

    /// Returns the feature's index in [`Plan::features`].
    pub const fn index(self) -> usize {
        self.0
    }
}
