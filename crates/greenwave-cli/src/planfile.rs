//! Reads plans from TOML files, and shows errors of a plan at their location in the file.

use std::collections::BTreeMap;
use std::error::Error as _;
use std::ops::Range;
use std::path::{Path, PathBuf};

use greenwave::{
    AgentSpec, BaseKind, Candidates, Exchanges, Feature, Guards, Plan, PlanError, PlanLocation, Problem,
    ResultKind, Test, TestAgent,
};

use crate::diagnostic::{Diagnostic, Document};
use crate::error::CliError;
use crate::reader::{Located, SETTINGS_FILE, Table};

mod agent;
pub(crate) mod confinement;
mod http_agent;
mod notify;
mod spending;

pub(crate) use agent::beside_plan;
use agent::{choice, command};

/// Number of attempts of features that do not set it.
const ATTEMPTS: u32 = 3;

/// Accepted values of `base`.
const BASES: [(&str, BaseKind); 2] = [("worktree", BaseKind::Worktree), ("HEAD", BaseKind::Head)];
/// Accepted values of `result`.
const RESULTS: [(&str, ResultKind); 3] =
    [("files", ResultKind::Files), ("branch", ResultKind::Branch), ("pr", ResultKind::PullRequest)];

/// Sections of the settings file.
const SETTINGS: [&str; 8] = ["cache", "parallel", "storage", "memory", "pool", "agent", "metrics", "run"];

/// A plan with the locations of its parts.
#[derive(Debug)]
pub(crate) struct PlanFile {
    pub(crate) plan: Plan,
    document: Document,
    project: Range<usize>,
    agents: BTreeMap<String, Range<usize>>,
    resources: BTreeMap<String, Range<usize>>,
    include: Vec<(String, Range<usize>)>,
    features: Vec<FeatureLocations>,
}

#[derive(Debug)]
struct FeatureLocations {
    id: String,
    table: Range<usize>,
    fields: BTreeMap<&'static str, Range<usize>>,
    depends_on: Vec<Located<String>>,
}

impl PlanFile {
    /// Reads a plan. Relative paths in it are relative to its directory.
    ///
    /// # Errors
    /// [`CliError::ReadPlan`] if the file cannot be read, [`CliError::Plan`] if it is not a plan.
    pub(crate) fn read(path: &Path) -> Result<Self, CliError> {
        let document =
            Document::read(path).map_err(|source| CliError::ReadPlan { path: path.to_owned(), source })?;
        let copy = document.clone();
        Self::parse(document).map_err(|error| {
            let message = "cannot read a settings file as a plan: it has no `[[features]]`";
            let settings_error = is_settings_file(&copy).then(|| copy.error(0..0, message));
            CliError::Plan(Box::new(settings_error.unwrap_or(error)))
        })
    }

    pub(crate) fn parse(document: Document) -> Result<Self, Diagnostic> {
        let dir = match document.path.parent() {
            Some(dir) if dir != Path::new("") => dir.to_owned(),
            _ => PathBuf::from("."),
        };
        let mut root = Table::parse(&document)?;
        let name = root.text("name")?.map(|name| name.value);
        let project = root.text("project")?.unwrap_or(Located { value: ".".to_owned(), at: 0..0 });
        let base = choice(&document, &mut root, "base", &BASES)?;
        let result = choice(&document, &mut root, "result", &RESULTS)?;
        let include = root.texts("include")?.map(|list| list.value).unwrap_or_default();
        let setup = root.commands("setup")?;
        let setup_inputs = root.patterns("setup_inputs")?;
        let teardown = root.commands("teardown")?;
        let (resources, resource_locations) = split(root.counts("resources")?);
        let confinement = confinement::read(&document, &mut root, &dir)?;
        let budget = spending::budget(&mut root)?;
        let (agents, fallbacks) = agents(&document, &mut root, &dir, &dir.join(&project.value))?;
        let (agents, agent_locations) = split(agents);
        let hold = root.flag("hold")?.unwrap_or(false);
        let notify = beside_plan(notify::read(&document, &mut root)?, &dir, &dir.join(&project.value));
        let features = root.tables("features")?.into_iter().map(|table| feature(table, hold));
        let (features, feature_locations) = features.collect::<Result<(Vec<_>, Vec<_>), _>>()?;
        let protect = protect(&mut root)?;
        let guards = guards(&mut root)?;
        reject_settings(&document, &root)?;
        root.finish()?;
        let stem = document.path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
        let name = name.or(stem).unwrap_or_default();
        Ok(Self {
            include: include.iter().map(|pattern| (pattern.value.clone(), pattern.at.clone())).collect(),
            plan: Plan {
                declared: Vec::new(),
                name,
                file: Some(document.path.clone()),
                project: dir.join(&project.value),
                agents,
                fallbacks,
                resources,
                features,
                base,
                result,
                include: include.into_iter().map(|pattern| pattern.value).collect(),
                setup,
                setup_inputs,
                teardown,
                protect,
                guards,
                confinement,
                budget,
                exchanges: Exchanges::Live,
                notify,
            },
            project: project.at,
            agents: agent_locations,
            resources: resource_locations,
            features: feature_locations,
            document,
        })
    }

    /// Adds the location in the file to an error of a run, if the error is about the plan.
    pub(crate) fn locate(&self, error: greenwave::Error) -> CliError {
        match error {
            greenwave::Error::Plan(error) => self.locate_plan_error(&error),
            other => CliError::Run(other),
        }
    }

    /// Adds the location in the file to an error of the plan.
    pub(crate) fn locate_plan_error(&self, error: &PlanError) -> CliError {
        let include = match error {
            PlanError::InvalidInclude { pattern } => self.include.iter().find(|(other, _)| other == pattern),
            _ => None,
        };
        let at = include.map_or_else(|| self.range(&error.location()), |(_, at)| at.clone());
        let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
        CliError::Plan(Box::new(self.document.error(at, format!("{error}{cause}"))))
    }

    /// Adds the location in the file to a problem of the plan.
    pub(crate) fn locate_problem(&self, problem: &Problem) -> CliError {
        let diagnostic = self.document.error(self.range(&problem.location()), problem.message.clone());
        CliError::Problem { diagnostic: Box::new(diagnostic), hint: problem.hint.clone() }
    }

    /// Describes a note about the plan, with its location in the file.
    pub(crate) fn describe(&self, problem: &Problem) -> String {
        let diagnostic = self.document.error(self.range(&problem.location()), problem.message.clone());
        let hint = problem.hint.as_ref().map(|hint| format!("\nhint: {hint}")).unwrap_or_default();
        format!("{diagnostic}{hint}")
    }

    fn range(&self, location: &PlanLocation<'_>) -> Range<usize> {
        match *location {
            PlanLocation::Plan => 0..0,
            PlanLocation::Project => self.project.clone(),
            PlanLocation::Resource(name) => self.resources.get(name).cloned().unwrap_or(0..0),
            PlanLocation::Agent(name) => self.agents.get(name).cloned().unwrap_or(0..0),
            PlanLocation::Feature { id, field, value, occurrence } => {
                self.feature_location(id, field, value, occurrence)
            }
        }
    }

    fn feature_location(
        &self,
        id: &str,
        field: &str,
        value: Option<&str>,
        occurrence: usize,
    ) -> Range<usize> {
        let Some(feature) = self.features.iter().filter(|feature| feature.id == id).nth(occurrence) else {
            return 0..0;
        };
        let mut dependencies = feature.depends_on.iter();
        let dependency =
            dependencies.find(|name| field == "depends_on" && Some(name.value.as_str()) == value);
        let field = || feature.fields.get(field).cloned();
        dependency.map(|name| name.at.clone()).or_else(field).unwrap_or_else(|| feature.table.clone())
    }
}

type LocatedAgents = BTreeMap<String, Located<AgentSpec>>;

/// Separates values from their locations.
fn split<T>(located: BTreeMap<String, Located<T>>) -> (BTreeMap<String, T>, BTreeMap<String, Range<usize>>) {
    let locations = located.iter().map(|(name, found)| (name.clone(), found.at.clone())).collect();
    (located.into_iter().map(|(name, found)| (name, found.value)).collect(), locations)
}

/// Returns texts without their locations.
fn plain(texts: Vec<Located<String>>) -> Vec<String> {
    texts.into_iter().map(|text| text.value).collect()
}

/// Reads the table `agents`.
pub(crate) fn agents(
    document: &Document,
    root: &mut Table<'_>,
    dir: &Path,
    project: &Path,
) -> Result<(LocatedAgents, BTreeMap<String, Vec<String>>), Diagnostic> {
    let (mut agents, mut fallbacks) = (BTreeMap::new(), BTreeMap::new());
    let Some(table) = root.table("agents")? else { return Ok((agents, fallbacks)) };
    for (name, mut table) in table.tables_by_name("agent")? {
        let fallback = table.plain_texts("fallback")?;
        if !fallback.is_empty() {
            fallbacks.insert(name.value.clone(), fallback);
        }
        agents
            .insert(name.value, Located { value: agent::read(document, table, dir, project)?, at: name.at });
    }
    Ok((agents, fallbacks))
}

/// Keys of a feature whose locations errors name.
const LOCATED: [&str; 15] = [
    "id",
    "was",
    "title",
    "depends_on",
    "prompt",
    "agent",
    "fallback",
    "candidates",
    "attempts",
    "resources",
    "tests",
    "test_agent",
    "review",
    "red",
    "may_edit",
];

/// Reads a feature. `hold` applies to features that do not set it.
fn feature(mut table: Table<'_>, hold: bool) -> Result<(Feature, FeatureLocations), Diagnostic> {
    let location = |name: &'static str| table.location(name).map(|at| (name, at));
    let mut fields: BTreeMap<_, _> = LOCATED.into_iter().filter_map(location).collect();
    let at = table.at();
    let id = table.required_text("id")?;
    fields.insert("id", id.at);
    let was = table.text("was")?.map(|was| was.value);
    let title = table.text("title")?.map_or_else(|| id.value.clone(), |title| title.value);
    let depends_on = table.texts("depends_on")?.map(|list| list.value).unwrap_or_default();
    let prompt = table.required_text("prompt")?.value;
    let agent = table.required_text("agent")?;
    fields.insert("agent", agent.at);
    let fallback = table.texts("fallback")?.map(|names| plain(names.value));
    let candidates = candidates(&mut table)?;
    let attempts_max = table.count("attempts", 1)?.map_or(ATTEMPTS, |attempts| attempts.value);
    let (resources, _) = split(table.counts("resources")?);
    let mut tests = Vec::new();
    for entry in table.tables("tests")? {
        tests.push(test(entry, &id.value, tests.len())?);
    }
    let test_agent = test_agent(&mut table)?;
    let (review, reviewer) = match table.table("review")? {
        Some(review) => read_review(review, &id.value)?,
        None => (None, None),
    };
    let hold = table.flag("hold")?.unwrap_or(hold);
    let (red, may_edit) = (table.expression("red")?, table.patterns("may_edit")?);
    table.finish()?;
    let locations =
        FeatureLocations { id: id.value.clone(), table: at, fields, depends_on: depends_on.clone() };
    let depends_on = plain(depends_on);
    let (id, agent) = (id.value, agent.value);
    let feature = Feature {
        id,
        was,
        title,
        depends_on,
        prompt,
        agent,
        fallback,
        candidates,
        tests,
        test_agent,
        attempts_max,
        resources,
        review,
        reviewer,
        hold,
        red,
        may_edit,
        ..Feature::default()
    };
    Ok((feature, locations))
}

/// Reads `test_agent`: the name of an agent, or a table with the name.
fn test_agent(table: &mut Table<'_>) -> Result<Option<TestAgent>, Diagnostic> {
    if !table.is_table("test_agent") {
        let name = table.text("test_agent")?;
        return Ok(name.map(|name| TestAgent { agent: name.value, may_write_code: false }));
    }
    let Some(mut table) = table.table("test_agent")? else { return Ok(None) };
    let agent = table.required_text("agent")?.value;
    let may_write_code = table.flag("may_write_code")?.unwrap_or(false);
    table.finish()?;
    Ok(Some(TestAgent { agent, may_write_code }))
}

/// Reads the review of a feature: a command, an agent, or both.
fn read_review(mut table: Table<'_>, feature: &str) -> Result<(Option<Test>, Option<String>), Diagnostic> {
    let agent = table.text("agent")?.map(|agent| agent.value);
    let is_command = table.keys().iter().any(|key| key.value != "agent");
    if agent.is_some() && !is_command {
        table.finish()?;
        return Ok((None, agent));
    }
    Ok((Some(test(table, feature, 0)?), agent))
}

/// Reads `candidates`: a number of answers, or a list of agents.
fn candidates(table: &mut Table<'_>) -> Result<Option<Candidates>, Diagnostic> {
    if table.is_list("candidates") {
        let names = table.texts("candidates")?;
        return Ok(names.map(|names| Candidates::Agents(plain(names.value))));
    }
    let count = table.count("candidates", 1)?;
    Ok(count.map(|count| Candidates::Count(count.value)))
}

/// Reads `guards`: `"auto"`, `"off"`, or a list of tests. Reads the changes of the list of
/// protected files: a list of patterns, or a table of patterns that are added and removed.
fn protect(root: &mut Table<'_>) -> Result<Vec<String>, Diagnostic> {
    if root.is_list("protect") {
        return root.patterns("protect");
    }
    let Some(mut table) = root.table("protect")? else { return Ok(Vec::new()) };
    let mut patterns = table.patterns("files")?;
    let removed = table.patterns("except")?;
    table.finish()?;
    patterns.extend(removed.iter().map(|pattern| format!("!{}", pattern.trim_start_matches('!'))));
    Ok(patterns)
}

fn guards(root: &mut Table<'_>) -> Result<Guards, Diagnostic> {
    let accepted = "\"auto\", \"off\" or a list of tests ([[guards]])";
    let word = |text: &str| match text {
        "auto" => Some(Guards::Auto),
        "off" => Some(Guards::Off),
        _ => None,
    };
    if !root.is_list("guards") {
        return Ok(root.choice("guards", accepted, word)?.unwrap_or_default());
    }
    let mut tests = Vec::new();
    for entry in root.tables("guards")? {
        tests.push(test(entry, "guard", tests.len())?);
    }
    Ok(if tests.is_empty() { Guards::default() } else { Guards::Tests(tests) })
}

/// Reads the test with an index in its feature, which its default name contains.
fn test(mut table: Table<'_>, feature: &str, index: usize) -> Result<Test, Diagnostic> {
    let default_name = || if index == 0 { feature.to_owned() } else { format!("{feature}-{}", index + 1) };
    let name = table.text("name")?.map_or_else(default_name, |name| name.value);
    let command = command(&mut table)?;
    let test = Test {
        directory: table.inner_dir("directory")?.unwrap_or_default(),
        inputs: table.patterns("inputs")?,
        env: table.plain_texts("env")?,
        time_max: table.time_limit("time_limit")?.unwrap_or(Test::TIME_MAX),
        ..Test::new(name, command)
    };
    table.finish()?;
    Ok(test)
}

fn reject_settings(document: &Document, root: &Table<'_>) -> Result<(), Diagnostic> {
    match root.keys().into_iter().find(|key| SETTINGS.contains(&key.value.as_str())) {
        None => Ok(()),
        Some(key) => {
            let message = format!("unexpected section `{}` in a plan: move it to {SETTINGS_FILE}", key.value);
            Err(document.error(key.at, message))
        }
    }
}

/// Returns whether a file that was given as a plan is a settings file.
fn is_settings_file(document: &Document) -> bool {
    let parsed = toml::de::DeTable::parse(&document.text);
    parsed.is_ok_and(|table| {
        let has = |name: &str| table.get_ref().keys().any(|key| key.get_ref() == name);
        !has("features") && (has("profile") || SETTINGS.iter().any(|name| has(name)))
    })
}
