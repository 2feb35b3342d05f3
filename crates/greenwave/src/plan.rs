//! What a plan is, and what makes it a sound one. Knows nothing of files it may come from, nor of running it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use greenwave_scheduler::{Graph, GraphBuilder, Needs};
use greenwave_testing::Test;

/// Longest id of a feature, which is the name of a folder.
const ID_BYTES_MAX: usize = 100;
/// Slowest pace of a scripted agent.
const PACE_MAX: f64 = 1e6;

/// A project, agents, and the features they shall build.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// What the plan is called in output.
    pub name: String,
    /// The project's folder.
    pub project: PathBuf,
    /// Agents by name.
    pub agents: BTreeMap<String, AgentSpec>,
    /// Resources that features' tests need beside a worker, with how many units there are of each.
    pub resources: BTreeMap<String, u32>,
    /// The features, in the order of the plan.
    pub features: Vec<Feature>,
}

/// How an agent is to be reached.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum AgentSpec {
    /// Recorded answers, replayed.
    Scripted {
        /// The script's file.
        script: PathBuf,
        /// What the recorded delays are multiplied by.
        pace: f64,
    },
    /// A program that reads the prompt on its standard input and writes its answer to its standard output.
    Command {
        /// The program and its arguments.
        command: Vec<String>,
        /// How long one answer may take; `None` for the profile's limit.
        time_max: Option<Duration>,
    },
}

/// A feature: tests that fail, and what an agent is told so that they pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Feature {
    /// What other features call it.
    pub id: String,
    /// What it is called in output.
    pub title: String,
    /// Features that must be green before this one begins.
    pub depends_on: Vec<String>,
    /// What the agent is told.
    pub prompt: String,
    /// The agent's name.
    pub agent: String,
    /// What must fail before and pass after.
    pub tests: Vec<Test>,
    /// How often the agent is asked, at the most.
    pub attempts_max: u32,
    /// Units of the plan's resources that its tests hold while they run.
    pub resources: BTreeMap<String, u32>,
    /// A command that has the last word before the merge, run in the feature's copy of the project.
    pub review: Option<Test>,
}

/// What is wrong with a plan. [`PlanError::location`] says where.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// There is nothing to do.
    #[error("the plan has no features")]
    Empty,
    /// Two features have one id.
    #[error("feature `{id}` is defined twice")]
    DuplicateFeature {
        /// The id.
        id: String,
    },
    /// A feature's id is too long for the name of a folder.
    #[error("`{id}` is no feature id: it is longer than {ID_BYTES_MAX} letters")]
    LongId {
        /// The id.
        id: String,
    },
    /// A feature's id cannot be the name of a folder.
    #[error(
        "`{id}` is no feature id: letters, digits, `-`, `_` and `.` make one, beginning with a letter or digit"
    )]
    InvalidId {
        /// The id.
        id: String,
    },
    /// A feature names a dependency, an agent or a resource that the plan does not have.
    #[error(
        "feature `{feature}` names {what} `{name}`, which the plan does not have{}",
        did_you_mean(nearest)
    )]
    Unknown {
        /// The feature.
        feature: String,
        /// `dependency`, `agent` or `resource`.
        what: &'static str,
        /// The name that nothing has.
        name: String,
        /// The name that comes nearest.
        nearest: Option<String>,
    },
    /// Features wait for each other in a circle.
    #[error("features depend on each other in a circle: {}", circle(path))]
    Cycle {
        /// The ids along the circle.
        path: Vec<String>,
    },
    /// A resource's name is reserved.
    #[error("`{resource}` is no name for a resource: it must not be empty or have a colon in it")]
    InvalidResource {
        /// The name.
        resource: String,
    },
    /// A feature needs more of a resource than there is.
    #[error("feature `{feature}` needs {wanted} of resource `{resource}`, of which the plan has {limit}")]
    ResourceTooSmall {
        /// The feature.
        feature: String,
        /// The resource.
        resource: String,
        /// Units it needs.
        wanted: u32,
        /// Units there are.
        limit: u32,
    },
    /// A feature lacks something that it cannot do without.
    #[error("feature `{feature}` {problem}")]
    Incomplete {
        /// The feature.
        feature: String,
        /// The field in question.
        field: &'static str,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// An agent lacks something that it cannot do without.
    #[error("agent `{agent}` {problem}")]
    InvalidAgent {
        /// The agent.
        agent: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The project's folder is not there.
    #[error("the project's folder {} {problem}", path.display())]
    Project {
        /// The folder.
        path: PathBuf,
        /// What is wrong with it.
        problem: &'static str,
    },
}

/// Which part of a plan an error is about, for those who know where that part stands in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PlanLocation<'a> {
    /// The plan as a whole.
    Plan,
    /// The project's folder.
    Project,
    /// A resource.
    Resource(&'a str),
    /// An agent.
    Agent(&'a str),
    /// A feature's field; where a value is given, that one of the field's values.
    Feature {
        /// The feature's id.
        id: &'a str,
        /// The field's name.
        field: &'static str,
        /// The value within the field.
        value: Option<&'a str>,
        /// Which feature of that id, from 0.
        occurrence: usize,
    },
}

impl PlanError {
    /// The part of the plan in question.
    pub fn location(&self) -> PlanLocation<'_> {
        let feature = |id, field, value| PlanLocation::Feature { id, field, value, occurrence: 0 };
        match self {
            PlanError::Empty => PlanLocation::Plan,
            PlanError::InvalidResource { resource } => PlanLocation::Resource(resource),
            PlanError::LongId { id } => feature(id, "id", None),
            PlanError::Project { .. } => PlanLocation::Project,
            PlanError::InvalidAgent { agent, .. } => PlanLocation::Agent(agent),
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
    /// Checks the plan and gives its graph: a node a feature, with its position in `features`.
    ///
    /// # Errors
    /// The first [`PlanError`] in the order of the plan; a cycle, which has no such place, last.
    pub fn graph(&self) -> Result<Graph<usize>, PlanError> {
        if self.features.is_empty() {
            return Err(PlanError::Empty);
        }
        self.check_project()?;
        if let Some(name) = self.resources.keys().find(|name| name.contains(':') || name.is_empty()) {
            return Err(PlanError::InvalidResource { resource: name.clone() });
        }
        self.agents.iter().try_for_each(|(name, agent)| check_agent(name, agent))?;
        self.features.iter().try_for_each(|feature| self.check_feature(feature))?;
        let mut graph = GraphBuilder::new();
        for (at, feature) in self.features.iter().enumerate() {
            graph.task(&feature.id, at);
            feature.depends_on.iter().for_each(|dependency| {
                graph.depends_on(&feature.id, dependency);
            });
        }
        graph.build().map_err(|error| match error {
            greenwave_scheduler::Error::Cycle { path } => PlanError::Cycle { path },
            greenwave_scheduler::Error::DuplicateTask { id } => PlanError::DuplicateFeature { id },
            // Unknown names were found above, with the nearest known one.
            _ => PlanError::Empty,
        })
    }

    /// What a feature's tests hold while they run, beside a worker.
    pub(crate) fn needs(feature: &Feature) -> Needs {
        feature.resources.iter().fold(Needs::nothing(), |needs, (name, units)| needs.of(name, *units))
    }

    fn check_project(&self) -> Result<(), PlanError> {
        let problem = match self.project.metadata() {
            Ok(metadata) if metadata.is_dir() => return Ok(()),
            Ok(_) => "is no folder",
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => "does not exist",
            Err(_) => "cannot be looked at",
        };
        Err(PlanError::Project { path: self.project.clone(), problem })
    }

    fn check_feature(&self, feature: &Feature) -> Result<(), PlanError> {
        if feature.id.len() > ID_BYTES_MAX {
            return Err(PlanError::LongId { id: feature.id.clone() });
        }
        let ids = || self.features.iter().map(|other| other.id.as_str());
        let mut characters = feature.id.chars();
        let begins_well = characters.next().is_some_and(|first| first.is_ascii_alphanumeric());
        if !begins_well || !characters.all(|other| other.is_ascii_alphanumeric() || "-_.".contains(other)) {
            return Err(PlanError::InvalidId { id: feature.id.clone() });
        }
        if ids().filter(|id| *id == feature.id).count() > 1 {
            return Err(PlanError::DuplicateFeature { id: feature.id.clone() });
        }
        let unknown = |what, name: &str, known: &mut dyn Iterator<Item = &str>| PlanError::Unknown {
            feature: feature.id.clone(),
            what,
            name: name.to_owned(),
            nearest: nearest(name, known),
        };
        if let Some(name) = feature.depends_on.iter().find(|name| !ids().any(|id| id == *name)) {
            return Err(unknown("dependency", name, &mut ids()));
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
    let problem = match agent {
        AgentSpec::Scripted { pace, .. } if !(0.0..=PACE_MAX).contains(pace) => {
            "has a pace that is not from 0 to 1000000"
        }
        AgentSpec::Command { command, .. } if command.is_empty() => "has an empty command",
        _ => return Ok(()),
    };
    Err(PlanError::InvalidAgent { agent: name.to_owned(), problem })
}

fn check_contents(feature: &Feature) -> Result<(), PlanError> {
    let (field, problem) = if feature.tests.is_empty() {
        ("tests", "has no tests, so nothing could show that it is done")
    } else if feature.attempts_max == 0 {
        ("attempts", "has 0 attempts; it needs at least 1")
    } else if feature.tests.iter().any(|test| test.command.is_empty()) {
        ("tests", "has a test with an empty command")
    } else if feature.review.iter().any(|review| review.command.is_empty()) {
        ("review", "has a review with an empty command")
    } else if feature.tests.iter().chain(&feature.review).any(|test| !stays_inside(&test.directory)) {
        ("tests", "has a test whose folder is not inside the project")
    } else if feature.prompt.trim().is_empty() {
        ("prompt", "has an empty prompt")
    } else {
        return Ok(());
    };
    Err(PlanError::Incomplete { feature: feature.id.clone(), field, problem })
}

/// Whether a folder that tests run in is inside the project, going by its path.
fn stays_inside(directory: &std::path::Path) -> bool {
    use std::path::Component;
    directory.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir))
}

/// The known name that is most like one that is not known, if any is much like it.
pub fn nearest(name: &str, known: &mut dyn Iterator<Item = &str>) -> Option<String> {
    let likeness = |other: &str| strsim::jaro_winkler(name, other);
    let best = known.max_by(|a, b| likeness(a).total_cmp(&likeness(b)))?;
    (likeness(best) > 0.75).then(|| best.to_owned())
}

fn did_you_mean(nearest: &Option<String>) -> String {
    nearest.as_ref().map(|name| format!("; did you mean `{name}`?")).unwrap_or_default()
}

fn circle(path: &[String]) -> String {
    path.iter().chain(path.first()).map(String::as_str).collect::<Vec<_>>().join(" -> ")
}
