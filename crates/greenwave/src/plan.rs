//! Plans: a project, agents and features, and the checks that a plan must pass.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::PathBuf;
use std::time::Duration;

use greenwave_agents::{CodingProgram, UnknownPlaceholder, WaitOn, check_placeholders};
use greenwave_scheduler::{Graph, GraphBuilder};
use greenwave_testing::Test;

use crate::confinement::ConfineOptions;
use crate::included;
use crate::mask;
use crate::spending::{BudgetLimits, Prices};

/// Maximum length of a feature's id, in bytes. The id names a directory.
const ID_BYTES_MAX: usize = 100;
/// Maximum number of features in a plan.
const FEATURES_MAX: usize = 10_000;
/// Maximum pace of a scripted agent.
const PACE_MAX: f64 = 1e6;

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
#[expect(clippy::large_enum_variant, reason = "a plan has few agents")]
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
    /// Tests that must fail before the feature is written and pass after.
    pub tests: Vec<Test>,
    /// Maximum number of attempts, at least 1.
    pub attempts_max: u32,
    /// Number of units of each resource that the tests hold while they run, by name.
    pub resources: BTreeMap<String, u32>,
    /// Command that must succeed before the merge. Runs in the feature's workspace.
    pub review: Option<Test>,
    /// Regular expression that the output of the failing tests must match before the code exists.
    /// `None` to decide by the report of the test runner.
    pub red: Option<String>,
    /// Patterns of tests and other protected files that the agent may change, in the syntax of
    /// `.gitignore`.
    pub may_edit: Vec<String>,
}

/// Error in a plan. [`PlanError::location`] returns the part of the plan that it is about.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// The plan has no features.
    #[error("missing key `features`: expected at least one feature")]
    Empty,
    /// The plan has too many features.
    #[error("too many features ({found}): expected at most {FEATURES_MAX}")]
    TooManyFeatures {
        /// Number of features in the plan.
        found: usize,
    },
    /// Two features have the same id.
    #[error("duplicate feature `{id}`")]
    DuplicateFeature {
        /// Id of the feature.
        id: String,
    },
    /// A feature's id is too long for the name of a directory.
    #[error("invalid value `{id:?}` for `id`: expected at most {ID_BYTES_MAX} bytes")]
    LongId {
        /// Id of the feature.
        id: String,
    },
    /// A feature's id cannot be the name of a directory.
    #[error(
        "invalid value `{id:?}` for `id`: expected letters, digits, `-`, `_` and `.`, starting with a letter \
         or digit"
    )]
    InvalidId {
        /// Id of the feature.
        id: String,
    },
    /// A feature names a dependency, an agent or a resource that the plan does not define.
    #[error("unknown {what} `{name}` in feature `{feature}`{}", did_you_mean(nearest))]
    Unknown {
        /// Id of the feature.
        feature: String,
        /// Kind of the name: `dependency`, `agent` or `resource`.
        what: &'static str,
        /// The unknown name.
        name: String,
        /// The most similar defined name, if one is similar.
        nearest: Option<String>,
    },
    /// A run is restricted to a feature that the plan does not have.
    #[error("unknown feature `{name}`{}", did_you_mean(nearest))]
    UnknownSelection {
        /// The unknown id.
        name: String,
        /// The most similar id, if one is similar.
        nearest: Option<String>,
    },
    /// Features depend on each other in a cycle.
    #[error("cyclic dependency of features: {}", cycle(path))]
    Cycle {
        /// Ids along the cycle. Each feature depends on the next one, the last on the first.
        path: Vec<String>,
    },
    /// A resource's name is empty or reserved.
    #[error("invalid value `{resource:?}` for `resources`: expected a non-empty name without a colon")]
    InvalidResource {
        /// Name of the resource.
        resource: String,
    },
    /// A feature needs more units of a resource than the plan has.
    #[error(
        "invalid value `{wanted}` for `{resource}` in feature `{feature}`: expected at most {limit}, as in the \
         plan's resources"
    )]
    ResourceTooSmall {
        /// Id of the feature.
        feature: String,
        /// Name of the resource.
        resource: String,
        /// Number of units that the feature needs.
        wanted: u32,
        /// Number of units that the plan has.
        limit: u32,
    },
    /// A field of a feature is missing or invalid.
    #[error("invalid value `{value}` for `{field}` in feature `{feature}`: expected {expected}")]
    Incomplete {
        /// Id of the feature.
        feature: String,
        /// Name of the field.
        field: &'static str,
        /// The invalid value, in TOML.
        value: String,
        /// The values that are valid.
        expected: &'static str,
    },
    /// The configuration of an agent is invalid.
    #[error("invalid value `{value}` for `{field}` in agent `{agent}`: expected {expected}")]
    InvalidAgent {
        /// Name of the agent.
        agent: String,
        /// Name of the field.
        field: &'static str,
        /// The invalid value, in TOML, or the name of an invalid variable, whose value may be a
        /// secret.
        value: String,
        /// The values that are valid.
        expected: &'static str,
    },
    /// An argument of an agent's command contains a placeholder that does not exist.
    #[error("invalid `command` in agent `{agent}`")]
    Placeholder {
        /// Name of the agent.
        agent: String,
        /// The placeholder, and the valid ones.
        #[source]
        source: UnknownPlaceholder,
    },
    /// A pattern leads out of the project.
    #[error("invalid value `{pattern:?}` for `include`: expected a pattern of files inside the project")]
    InvalidInclude {
        /// The pattern.
        pattern: String,
    },
    /// A command of `setup` or `teardown` is empty.
    #[error("invalid value `[[]]` for `{field}`: expected commands with a program")]
    EmptyCommand {
        /// Name of the field.
        field: &'static str,
    },
    /// The project's directory does not exist.
    #[error("invalid value `{path:?}` for `project`: expected {expected}")]
    Project {
        /// Directory of the project.
        path: PathBuf,
        /// The values that are valid.
        expected: &'static str,
    },
}

/// Part of a plan. A parser of plan files translates it into a position in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PlanLocation<'a> {
    /// The plan as a whole.
    Plan,
    /// The project's directory.
    Project,
    /// A resource, by name.
    Resource(&'a str),
    /// An agent, by name.
    Agent(&'a str),
    /// A field of a feature, or one value of the field.
    Feature {
        /// Id of the feature.
        id: &'a str,
        /// Name of the field.
        field: &'static str,
        /// The value, if the field has several.
        value: Option<&'a str>,
        /// Index of the feature among those with this id, from 0.
        occurrence: usize,
    },
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
            tests: Vec::new(),
            attempts_max: 1,
            resources: BTreeMap::new(),
            review: None,
            red: None,
            may_edit: Vec::new(),
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

impl PlanError {
    /// Returns the part of the plan that the error is about.
    pub fn location(&self) -> PlanLocation<'_> {
        let feature = |id, field, value| PlanLocation::Feature { id, field, value, occurrence: 0 };
        match self {
            PlanError::Empty
            | PlanError::TooManyFeatures { .. }
            | PlanError::UnknownSelection { .. }
            | PlanError::InvalidInclude { .. }
            | PlanError::EmptyCommand { .. } => PlanLocation::Plan,
            PlanError::InvalidResource { resource } => PlanLocation::Resource(resource),
            PlanError::LongId { id } => feature(id, "id", None),
            PlanError::Project { .. } => PlanLocation::Project,
            PlanError::InvalidAgent { agent, .. } | PlanError::Placeholder { agent, .. } => {
                PlanLocation::Agent(agent)
            }
            PlanError::DuplicateFeature { id } => {
                PlanLocation::Feature { id, field: "id", value: None, occurrence: 1 }
            }
            PlanError::InvalidId { id } => feature(id, "id", None),
            PlanError::Unknown { feature: id, what: "dependency", name, .. } => {
                feature(id, "depends_on", Some(name))
            }
            PlanError::Unknown { feature: id, what: "agent", .. } => feature(id, "agent", None),
            PlanError::Unknown { feature: id, .. } => feature(id, "resources", None),
            PlanError::Cycle { path } => match &path[..] {
                [first, .., last] => feature(last, "depends_on", Some(first)),
                [only] => feature(only, "depends_on", Some(only)),
                [] => PlanLocation::Plan,
            },
            PlanError::ResourceTooSmall { feature: id, .. } => feature(id, "resources", None),
            PlanError::Incomplete { feature: id, field, .. } => feature(id, field, None),
        }
    }
}

impl Plan {
    /// Checks the plan and returns its graph, with a node for each feature.
    ///
    /// # Errors
    /// Returns the first [`PlanError`] in the order of the plan. A cycle is found last.
    pub fn graph(&self) -> Result<Graph<FeatureId>, PlanError> {
        match self.own_problems().into_iter().next() {
            Some(error) => Err(error),
            None => self.build_graph(),
        }
    }

    /// Returns all errors of the plan: at most one for each feature and agent, in their order.
    pub fn problems(&self) -> Vec<PlanError> {
        let problems = self.own_problems();
        if problems.is_empty() { self.build_graph().err().into_iter().collect() } else { problems }
    }

    /// Returns all errors except for cycles, which need defined names.
    fn own_problems(&self) -> Vec<PlanError> {
        if self.features.is_empty() {
            return vec![PlanError::Empty];
        }
        if self.features.len() > FEATURES_MAX {
            return vec![PlanError::TooManyFeatures { found: self.features.len() }];
        }
        let mut problems: Vec<PlanError> = self.check_project().err().into_iter().collect();
        let resources = self.resources.keys().filter(|name| name.contains(':') || name.is_empty());
        problems.extend(resources.map(|name| PlanError::InvalidResource { resource: name.clone() }));
        problems.extend(self.check_copies().err());
        problems.extend(self.agents.iter().filter_map(|(name, agent)| check_agent(name, agent).err()));
        let mut occurrences = HashMap::with_capacity(self.features.len());
        for feature in &self.features {
            *occurrences.entry(feature.id.as_str()).or_insert(0) += 1;
        }
        let mut seen = HashSet::new();
        for error in
            self.features.iter().filter_map(|feature| self.check_feature(feature, &occurrences).err())
        {
            // Each of several features with the same id has this error.
            if seen.insert(error.to_string()) {
                problems.push(error);
            }
        }
        problems
    }

    fn build_graph(&self) -> Result<Graph<FeatureId>, PlanError> {
        let mut graph = GraphBuilder::new();
        for (at, feature) in self.features.iter().enumerate() {
            graph.task(&feature.id, FeatureId(at));
            feature.depends_on.iter().for_each(|dependency| {
                graph.depends_on(&feature.id, dependency);
            });
        }
        graph.build().map_err(|error| match error {
            greenwave_scheduler::Error::Cycle { path } => PlanError::Cycle { path },
            greenwave_scheduler::Error::DuplicateTask { id } => PlanError::DuplicateFeature { id },
            // Unknown names were found above, with the most similar name.
            _ => PlanError::Empty,
        })
    }

    fn check_project(&self) -> Result<(), PlanError> {
        let expected = match self.project.metadata() {
            Ok(metadata) if metadata.is_dir() => return Ok(()),
            Ok(_) => "a directory",
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => "a directory that exists",
            Err(_) => "a directory that can be read",
        };
        Err(PlanError::Project { path: self.project.clone(), expected })
    }

    fn check_copies(&self) -> Result<(), PlanError> {
        if let Some(pattern) = self.include.iter().find(|pattern| !included::is_valid_pattern(pattern)) {
            return Err(PlanError::InvalidInclude { pattern: pattern.clone() });
        }
        for (field, commands) in [("setup", &self.setup), ("teardown", &self.teardown)] {
            if commands.iter().any(|command| command.first().is_none_or(String::is_empty)) {
                return Err(PlanError::EmptyCommand { field });
            }
        }
        Ok(())
    }

    /// Checks a feature. `occurrences` has the number of features with each id.
    fn check_feature(&self, feature: &Feature, occurrences: &HashMap<&str, usize>) -> Result<(), PlanError> {
        if feature.id.len() > ID_BYTES_MAX {
            return Err(PlanError::LongId { id: feature.id.clone() });
        }
        let mut characters = feature.id.chars();
        let starts_well = characters.next().is_some_and(|first| first.is_ascii_alphanumeric());
        if !starts_well || !characters.all(|other| other.is_ascii_alphanumeric() || "-_.".contains(other)) {
            return Err(PlanError::InvalidId { id: feature.id.clone() });
        }
        if occurrences[feature.id.as_str()] > 1 {
            return Err(PlanError::DuplicateFeature { id: feature.id.clone() });
        }
        let unknown = |what, name: &str, defined: &mut dyn Iterator<Item = &str>| PlanError::Unknown {
            feature: feature.id.clone(),
            what,
            name: name.to_owned(),
            nearest: nearest(name, defined),
        };
        if feature.was.iter().any(|was| occurrences.contains_key(was.as_str())) {
            let expected = "the id of a feature that the plan no longer has";
            let value = format!("{:?}", feature.was.as_deref().unwrap_or_default());
            return Err(PlanError::Incomplete { feature: feature.id.clone(), field: "was", value, expected });
        }
        if let Some(name) = feature.depends_on.iter().find(|name| !occurrences.contains_key(name.as_str())) {
            let mut ids = self.features.iter().map(|other| other.id.as_str());
            return Err(unknown("dependency", name, &mut ids));
        }
        if !self.agents.contains_key(&feature.agent) {
            return Err(unknown("agent", &feature.agent, &mut self.agents.keys().map(String::as_str)));
        }
        for (name, &wanted) in &feature.resources {
            let Some(&limit) = self.resources.get(name) else {
                return Err(unknown("resource", name, &mut self.resources.keys().map(String::as_str)));
            };
            if wanted > limit {
                let (feature, resource) = (feature.id.clone(), name.clone());
                return Err(PlanError::ResourceTooSmall { feature, resource, wanted, limit });
            }
        }
        check_contents(feature)
    }
}

fn check_agent(name: &str, agent: &AgentSpec) -> Result<(), PlanError> {
    let (field, value, expected) = match agent {
        AgentSpec::Scripted { pace, .. } if !(0.0..=PACE_MAX).contains(pace) => {
            ("pace", pace.to_string(), "a number from 0 to 1000000")
        }
        AgentSpec::Command(CommandSpec { command, .. }) if command.is_empty() => {
            ("command", "[]".to_owned(), "a program and its arguments")
        }
        AgentSpec::Command(CommandSpec { command, env, .. }) => match invalid_variable(env) {
            Some((variable, expected)) => ("env", format!("{variable:?}"), expected),
            None => {
                let checked = check_placeholders(&command[1..]);
                return checked.map_err(|source| PlanError::Placeholder { agent: name.to_owned(), source });
            }
        },
        AgentSpec::Scripted { .. } => return Ok(()),
    };
    Err(PlanError::InvalidAgent { agent: name.to_owned(), field, value, expected })
}

/// Returns the name of a variable that an agent's command must not have, with the accepted form.
fn invalid_variable(env: &BTreeMap<String, String>) -> Option<(&str, &'static str)> {
    let malformed = env
        .iter()
        .find(|(name, value)| name.is_empty() || name.contains(['=', '\0']) || value.contains('\0'));
    if let Some((name, _)) = malformed {
        return Some((name.as_str(), "names without `=`, and values without NUL bytes"));
    }
    let secret = env.iter().find(|(name, value)| mask::is_secret(name, value));
    secret.map(|(name, _)| (name.as_str(), "no credentials: set them in the environment of greenwave"))
}

fn check_contents(feature: &Feature) -> Result<(), PlanError> {
    let mut commands = feature.tests.iter().chain(&feature.review);
    let outside = commands.find(|test| !stays_inside(&test.directory));
    let invalid_red = feature.red.as_deref().filter(|red| check_expression(red).is_err());
    let (field, value, expected) = if feature.tests.is_empty() {
        ("tests", "[]".to_owned(), "at least one test, which shows that the feature is done")
    } else if feature.attempts_max == 0 {
        ("attempts", "0".to_owned(), "a whole number from 1")
    } else if feature.tests.iter().any(|test| test.command.is_empty()) {
        ("tests", "{ command = [] }".to_owned(), "commands with a program")
    } else if feature.review.iter().any(|review| review.command.is_empty()) {
        ("review", "{ command = [] }".to_owned(), "a command with a program")
    } else if let Some(test) = outside {
        ("tests", format!("{{ directory = {:?} }}", test.directory), "directories inside the project")
    } else if let Some(red) = invalid_red {
        ("red", format!("{red:?}"), "a regular expression")
    } else if feature.prompt.trim().is_empty() {
        ("prompt", format!("{:?}", feature.prompt), "text that is not blank")
    } else {
        return Ok(());
    };
    Err(PlanError::Incomplete { feature: feature.id.clone(), field, value, expected })
}

/// Returns whether a test's directory is inside the project. Does not resolve symbolic links.
fn stays_inside(directory: &std::path::Path) -> bool {
    use std::path::Component;
    directory.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir))
}

/// Checks a regular expression for the output of tests.
///
/// # Errors
/// Returns the error in the expression and the expected form.
pub fn check_expression(expression: &str) -> Result<(), String> {
    match regex_lite::Regex::new(expression) {
        Ok(_) => Ok(()),
        Err(error) => Err(format!("expected a regular expression ({error})")),
    }
}

/// Returns the candidate that is most similar to an unknown name, if one is similar enough to
/// suggest.
pub fn nearest(name: &str, candidates: &mut dyn Iterator<Item = &str>) -> Option<String> {
    let similarity = |other: &str| strsim::jaro_winkler(name, other);
    let best = candidates.max_by(|a, b| similarity(a).total_cmp(&similarity(b)))?;
    (similarity(best) > 0.75).then(|| best.to_owned())
}

fn did_you_mean(nearest: &Option<String>) -> String {
    nearest.as_ref().map(|name| format!("; did you mean `{name}`?")).unwrap_or_default()
}

fn cycle(path: &[String]) -> String {
    path.iter().chain(path.first()).map(String::as_str).collect::<Vec<_>>().join(" -> ")
}
