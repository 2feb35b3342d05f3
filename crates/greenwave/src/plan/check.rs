//! The checks that a plan must pass before it runs.

use std::collections::{BTreeMap, HashMap, HashSet};

use greenwave_agents::{ApiKeySource, check_placeholders};
use greenwave_scheduler::{Graph, GraphBuilder};

use super::error::{FEATURES_MAX, ID_BYTES_MAX, PlanError};
use super::{AgentSpec, Candidates, CommandSpec, Feature, FeatureId, HttpSpec, Plan};
use crate::{included, mask};

/// Maximum pace of a scripted agent.
const PACE_MAX: f64 = 1e6;

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
        let mut agents: Vec<&String> = Vec::new();
        for name in self.agents_of(feature) {
            if !self.agents.contains_key(name) {
                return Err(unknown("agent", name, &mut self.agents.keys().map(String::as_str)));
            }
            if agents.contains(&name) {
                let (feature, value) = (feature.id.clone(), format!("{name:?}"));
                let expected = "each agent once, and another than the one that begins";
                return Err(PlanError::Incomplete { feature, field: "fallback", value, expected });
            }
            agents.push(name);
        }
        let mut others =
            feature.named_candidates().iter().chain(&feature.reviewer).chain(self.test_agents_of(feature));
        if let Some(name) = others.find(|name| !self.agents.contains_key(*name)) {
            return Err(unknown("agent", name, &mut self.agents.keys().map(String::as_str)));
        }
        self.check_test_agent(feature)?;
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

    /// Checks that the tests and the code of a feature are written by different agents, unless the
    /// plan permits that.
    fn check_test_agent(&self, feature: &Feature) -> Result<(), PlanError> {
        let Some(of_tests) = feature.writing_agent().filter(|it| !it.may_write_code) else { return Ok(()) };
        if self.agents_of(feature).chain(feature.named_candidates()).all(|name| *name != of_tests.agent) {
            return Ok(());
        }
        Err(PlanError::Incomplete {
            feature: feature.id.clone(),
            field: "test_agent",
            value: format!("{:?}", of_tests.agent),
            expected: "another agent than those that write the code, or a table with `may_write_code = true`",
        })
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
        AgentSpec::Http(spec) => match spec.problem() {
            Some(problem) => problem,
            None => return Ok(()),
        },
        AgentSpec::Scripted { .. } => return Ok(()),
    };
    Err(PlanError::InvalidAgent { agent: name.to_owned(), field, value, expected })
}

impl HttpSpec {
    /// Returns the first invalid key with its value and the accepted ones.
    fn problem(&self) -> Option<(&'static str, String, &'static str)> {
        if let Err(invalid) = self.options.check() {
            return Some((invalid.option, invalid.value, invalid.expected));
        }
        let ApiKeySource::Command(words) = &self.options.key else { return None };
        let has_secret = words.iter().any(|word| mask::has_secret(word));
        let expected = "no credentials: name a program that prints the key";
        has_secret.then(|| ("key_command", "[…]".to_owned(), expected))
    }
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
    let (field, value, expected) = if feature.tests.is_empty() && feature.test_agent.is_none() {
        (
            "tests",
            "[]".to_owned(),
            "at least one test, which shows that the feature is done, or a `test_agent`",
        )
    } else if feature.attempts_max == 0 {
        ("attempts", "0".to_owned(), "a whole number from 1")
    } else if let Some(candidates) = feature.candidates.as_ref().filter(|it| !has_valid_count(it)) {
        ("candidates", candidates.count().to_string(), "1 to 16 answers: a number, or a list of agents")
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

fn has_valid_count(candidates: &Candidates) -> bool {
    (1..=Candidates::CANDIDATES_MAX as usize).contains(&candidates.count())
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
