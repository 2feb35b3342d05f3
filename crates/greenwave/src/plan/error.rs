//! Errors in plans, and the part of the plan that each is about.

use std::path::PathBuf;

use greenwave_agents::UnknownPlaceholder;

/// Maximum length of a feature's id, in bytes. The id names a directory.
pub(super) const ID_BYTES_MAX: usize = 100;
/// Maximum number of features in a plan.
pub(super) const FEATURES_MAX: usize = 10_000;

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

fn did_you_mean(nearest: &Option<String>) -> String {
    nearest.as_ref().map(|name| format!("; did you mean `{name}`?")).unwrap_or_default()
}

fn cycle(path: &[String]) -> String {
    path.iter().chain(path.first()).map(String::as_str).collect::<Vec<_>>().join(" -> ")
}
