//! Plans as TOML files. Reads them into `greenwave::Plan`, and finds the place in the file that a mistake in a
//! plan is about. Knows nothing of running plans.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use greenwave::{AgentSpec, Feature, Plan, PlanError, PlanLocation, Test, check_pattern};

use crate::diagnostic::{Diagnostic, Document};
use crate::reader::{DURATION, Placed, Table};

/// How often an agent is asked where the plan does not say.
const ATTEMPTS: u32 = 3;

/// A plan with the places of its parts.
#[derive(Debug)]
pub(crate) struct PlanFile {
    pub(crate) plan: Plan,
    document: Document,
    project: Range<usize>,
    agents: BTreeMap<String, Range<usize>>,
    resources: BTreeMap<String, Range<usize>>,
    features: Vec<FeaturePlaces>,
}

#[derive(Debug)]
struct FeaturePlaces {
    id: String,
    table: Range<usize>,
    fields: BTreeMap<&'static str, Range<usize>>,
    depends_on: Vec<Placed<String>>,
}

impl PlanFile {
    /// Reads a plan. Relative paths in it are relative to the folder it is in.
    pub(crate) fn read(document: Document) -> Result<Self, Diagnostic> {
        let folder = match document.path.parent() {
            Some(folder) if folder != Path::new("") => folder.to_owned(),
            _ => PathBuf::from("."),
        };
        let mut root = Table::parse(&document)?;
        let name = root.text("name")?.map(|name| name.value);
        let project = root.text("project")?.unwrap_or(Placed { value: ".".to_owned(), at: 0..0 });
        let resources = root.counts("resources")?;
        let resource_places =
            resources.iter().map(|(name, count)| (name.clone(), count.at.clone())).collect();
        let resources = plain(resources);
        let mut agents = BTreeMap::new();
        let mut agent_places = BTreeMap::new();
        if let Some(table) = root.table("agents")? {
            for (name, table) in table.tables_by_name("agent")? {
                agents.insert(name.value.clone(), agent(&document, table, &folder)?);
                agent_places.insert(name.value, name.at);
            }
        }
        let mut features = Vec::new();
        let mut places = Vec::new();
        for table in root.tables("features")? {
            let (feature, place) = feature(&document, table)?;
            features.push(feature);
            places.push(place);
        }
        refuse_settings(&document, &root)?;
        root.finish()?;
        let stem = document.path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
        let name = name.or(stem).unwrap_or_default();
        let plan = Plan { name, project: folder.join(&project.value), agents, resources, features };
        Ok(Self {
            plan,
            project: project.at,
            agents: agent_places,
            resources: resource_places,
            features: places,
            document,
        })
    }

    /// A mistake in the plan, at its place in the file.
    pub(crate) fn locate(&self, error: &PlanError) -> Diagnostic {
        let at = match error.location() {
            PlanLocation::Plan => 0..0,
            PlanLocation::Project => self.project.clone(),
            PlanLocation::Resource(name) => self.resources.get(name).cloned().unwrap_or(0..0),
            PlanLocation::Agent(name) => self.agents.get(name).cloned().unwrap_or(0..0),
            PlanLocation::Feature { id, field, value, occurrence } => {
                self.feature_place(id, field, value, occurrence)
            }
        };
        self.document.mistake(at, error.to_string())
    }

    fn feature_place(&self, id: &str, field: &str, value: Option<&str>, occurrence: usize) -> Range<usize> {
        let Some(feature) = self.features.iter().filter(|feature| feature.id == id).nth(occurrence) else {
            return 0..0;
        };
        let within = feature
            .depends_on
            .iter()
            .find(|name| field == "depends_on" && Some(name.value.as_str()) == value);
        let field = || feature.fields.get(field).cloned();
        within.map(|name| name.at.clone()).or_else(field).unwrap_or_else(|| feature.table.clone())
    }
}

fn agent(document: &Document, mut table: Table<'_>, folder: &Path) -> Result<AgentSpec, Diagnostic> {
    let kind = table.required_text("kind")?;
    let agent = match kind.value.as_str() {
        "scripted" => {
            let script = folder.join(table.required_text("script")?.value);
            let pace = table.number("pace")?.map_or(1.0, |pace| pace.value);
            AgentSpec::Scripted { script, pace }
        }
        "command" => {
            let command = command(&mut table)?;
            AgentSpec::Command { command, time_max: time_limit(document, &mut table, "time_limit")? }
        }
        other => {
            let message = format!("there is no kind of agent `{other}`; there are `scripted` and `command`");
            return Err(document.mistake(kind.at, message));
        }
    };
    table.finish()?;
    Ok(agent)
}

fn command(table: &mut Table<'_>) -> Result<Vec<String>, Diagnostic> {
    let words = table.texts("command")?.ok_or_else(|| table.missing("command"))?;
    Ok(words.value.into_iter().map(|word| word.value).collect())
}

fn feature(document: &Document, mut table: Table<'_>) -> Result<(Feature, FeaturePlaces), Diagnostic> {
    let keys = ["id", "title", "depends_on", "prompt", "agent", "attempts", "resources", "tests", "review"];
    let place =
        |name: &'static str| table.keys().into_iter().find(|key| key.value == name).map(|key| (name, key.at));
    let mut fields: BTreeMap<_, _> = keys.into_iter().filter_map(place).collect();
    let at = table.at();
    let id = table.required_text("id")?;
    fields.insert("id", id.at);
    let title = table.text("title")?.map_or_else(|| id.value.clone(), |title| title.value);
    let depends_on = table.texts("depends_on")?.map(|list| list.value).unwrap_or_default();
    let prompt = table.required_text("prompt")?.value;
    let agent = table.required_text("agent")?;
    fields.insert("agent", agent.at);
    let attempts_max = table.count("attempts", 1)?.map_or(ATTEMPTS, |attempts| attempts.value);
    let resources = plain(table.counts("resources")?);
    let mut tests = Vec::new();
    for entry in table.tables("tests")? {
        tests.push(test(document, entry, &id.value, tests.len())?);
    }
    let review = match table.table("review")? {
        Some(review) => Some(test(document, review, &id.value, 0)?),
        None => None,
    };
    table.finish()?;
    let places = FeaturePlaces { id: id.value.clone(), table: at, fields, depends_on: depends_on.clone() };
    let depends_on = depends_on.into_iter().map(|name| name.value).collect();
    let (id, agent) = (id.value, agent.value);
    Ok((Feature { id, title, depends_on, prompt, agent, tests, attempts_max, resources, review }, places))
}

fn test(document: &Document, mut table: Table<'_>, feature: &str, number: usize) -> Result<Test, Diagnostic> {
    let default_name = || if number == 0 { feature.to_owned() } else { format!("{feature}-{}", number + 1) };
    let texts = |list: Option<Placed<Vec<Placed<String>>>>| {
        list.map(|list| list.value.into_iter().map(|text| text.value).collect()).unwrap_or_default()
    };
    let name = table.text("name")?.map_or_else(default_name, |name| name.value);
    let command = command(&mut table)?;
    let directory = directory(document, &mut table)?;
    let inputs = table.texts("inputs")?;
    for pattern in inputs.iter().flat_map(|list| &list.value) {
        let problem = |problem| format!("`{}` is not a valid glob pattern: {problem}", pattern.value);
        check_pattern(&pattern.value).map_err(|it| document.mistake(pattern.at.clone(), problem(it)))?;
    }
    let inputs = texts(inputs);
    let env = texts(table.texts("env")?);
    let time_max = time_limit(document, &mut table, "time_limit")?.unwrap_or(Test::TIME_MAX);
    table.finish()?;
    Ok(Test { directory, inputs, env, time_max, ..Test::new(name, command) })
}

pub(crate) fn time_limit(
    document: &Document,
    table: &mut Table<'_>,
    key: &'static str,
) -> Result<Option<Duration>, Diagnostic> {
    match table.duration(key)? {
        Some(limit) if limit.value.is_zero() => {
            Err(document.mistake(limit.at, format!("`{key}` is zero; {DURATION} is wanted")))
        }
        limit => Ok(limit.map(|limit| limit.value)),
    }
}

fn directory(document: &Document, table: &mut Table<'_>) -> Result<PathBuf, Diagnostic> {
    match table.text("directory")? {
        Some(found) => folder_inside(document, "directory", &found),
        None => Ok(PathBuf::new()),
    }
}

/// A path that does not lead out of the project.
pub(crate) fn folder_inside(
    document: &Document,
    key: &str,
    found: &Placed<String>,
) -> Result<PathBuf, Diagnostic> {
    let is_inside = |part| matches!(part, Component::Normal(_) | Component::CurDir);
    if Path::new(&found.value).components().all(is_inside) {
        return Ok(PathBuf::from(&found.value));
    }
    let message = format!("`{key}` is the text {:?}; a path inside the project is wanted", found.value);
    Err(document.mistake(found.at.clone(), message))
}

fn plain(counts: BTreeMap<String, Placed<u32>>) -> BTreeMap<String, u32> {
    counts.into_iter().map(|(name, count)| (name, count.value)).collect()
}

/// Sections that are settings.
const SETTINGS: [&str; 7] = ["cache", "parallel", "storage", "memory", "pool", "agent", "metrics"];

fn refuse_settings(document: &Document, root: &Table<'_>) -> Result<(), Diagnostic> {
    match root.keys().into_iter().find(|key| SETTINGS.contains(&key.value.as_str())) {
        None => Ok(()),
        Some(key) => {
            let message = format!("`{}` belongs into {}, not into a plan", key.value, crate::config::FILE);
            Err(document.mistake(key.at, message))
        }
    }
}

/// Whether this is a configuration file that is given as a plan.
pub(crate) fn looks_like_configuration(document: &Document) -> bool {
    let parsed = toml::de::DeTable::parse(&document.text);
    parsed.is_ok_and(|table| {
        let has = |name: &str| table.get_ref().keys().any(|key| key.get_ref() == name);
        !has("features") && (has("profile") || SETTINGS.iter().any(|name| has(name)))
    })
}
