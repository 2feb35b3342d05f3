//! The agents and options of plans that are written, from another plan, the settings, or the name
//! of a coding program.

use std::path::{Path, PathBuf};

use greenwave::{CodingProgram, Plan};
use toml::{Table, Value};

use super::toml_text;
use crate::diagnostic::Document;
use crate::error::CliError;
use crate::planfile::{PlanFile, beside_plan};
use crate::reader::SETTINGS_FILE;

/// Keys of a plan that belong to its features, or that each plan has for itself.
const OWN_KEYS: [&str; 3] = ["features", "name", "project"];
/// Keys with paths that are relative to the plan.
const PATHS: [&str; 3] = ["writable", "readable", "hidden"];

/// The parts of a plan besides its features.
#[derive(Debug)]
pub(crate) struct Template {
    /// The plan without its features.
    pub(crate) plan: Plan,
    table: Table,
    /// Directory that paths are relative to.
    dir: PathBuf,
}

impl Template {
    /// Reads the agents and options of a plan.
    ///
    /// # Errors
    /// Those of reading a plan.
    pub(crate) fn of_plan(path: &Path) -> Result<Self, CliError> {
        let plan = PlanFile::read(path)?.plan;
        let document = Document::read(path);
        let text = document.map_err(|source| CliError::ReadPlan { path: path.to_owned(), source })?.text;
        let dir = path.parent().filter(|dir| *dir != Path::new("")).unwrap_or(Path::new("."));
        Ok(Self::new(plan, table(&text), dir))
    }

    /// Reads the agents of a settings file with this text.
    ///
    /// # Errors
    /// [`CliError::Plan`] for an invalid agent.
    pub(crate) fn of_settings(project: &Path, text: &str) -> Result<Self, CliError> {
        let agents = table(text).remove("agents");
        Self::of_table(agents.into_iter().map(|agents| ("agents".to_owned(), agents)).collect(), project)
    }

    /// Returns a template with a coding program as its only agent. `None` if no program has the
    /// name.
    ///
    /// # Errors
    /// None that a name of a program causes.
    pub(crate) fn of_program(name: &str, project: &Path) -> Result<Option<Self>, CliError> {
        if CodingProgram::by_name(name).is_none() {
            return Ok(None);
        }
        Self::of_table(table(&format!("[agents.{name}]\nkind = \"{name}\"\n")), project).map(Some)
    }

    fn of_table(table: Table, project: &Path) -> Result<Self, CliError> {
        let document = Document { path: project.join(SETTINGS_FILE), text: header(&table) };
        let file = PlanFile::parse(document).map_err(|error| CliError::Plan(Box::new(error)))?;
        Ok(Self::new(file.plan, table, project))
    }

    fn new(mut plan: Plan, mut table: Table, dir: &Path) -> Self {
        OWN_KEYS.iter().for_each(|key| drop(table.remove(*key)));
        plan.features.clear();
        Self { plan, table, dir: dir.to_owned() }
    }

    /// Returns the options and agents as the start of a plan in a directory.
    pub(crate) fn header(&self, directory: &Path, project: &Path) -> String {
        let is_same = |one: &Path, other: &Path| matches!((one.canonicalize(), other.canonicalize()), (Ok(one), Ok(other)) if one == other);
        let mut table = self.table.clone();
        if !is_same(&self.dir, directory) {
            resolve(&mut table, &self.dir, project);
        }
        header(&table)
    }
}

/// Parses text that was parsed before.
fn table(text: &str) -> Table {
    toml::from_str(text).unwrap_or_default()
}

/// Makes paths absolute that are relative to the plan.
fn resolve(table: &mut Table, dir: &Path, project: &Path) {
    let dir = &std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned());
    resolve_paths(table, dir);
    resolve_command(table, "notify", dir, project);
    let Some(agents) = table.get_mut("agents").and_then(Value::as_table_mut) else { return };
    for agent in agents.iter_mut().filter_map(|(_, agent)| agent.as_table_mut()) {
        resolve_paths(agent, dir);
        resolve_command(agent, "command", dir, project);
        if let Some(Value::String(script)) = agent.get_mut("script") {
            *script = dir.join(&*script).to_string_lossy().into_owned();
        }
    }
}

fn resolve_paths(table: &mut Table, dir: &Path) {
    for key in PATHS {
        let paths = table.get_mut(key).and_then(Value::as_array_mut);
        for path in paths.into_iter().flatten() {
            if let Value::String(path) = path
                && !path.starts_with('~')
            {
                *path = dir.join(&*path).to_string_lossy().into_owned();
            }
        }
    }
}

fn resolve_command(table: &mut Table, key: &str, dir: &Path, project: &Path) {
    let Some(words) = table.get_mut(key).and_then(Value::as_array_mut) else { return };
    let texts = words.iter().filter_map(|word| word.as_str().map(str::to_owned)).collect();
    *words = beside_plan(texts, dir, project).into_iter().map(Value::String).collect();
}

/// Writes the keys of a plan, and then its tables.
fn header(table: &Table) -> String {
    let is_table = |value: &Value| match value {
        Value::Table(_) => true,
        Value::Array(values) => values.iter().any(Value::is_table),
        _ => false,
    };
    let plain: Table = table.iter().filter(|(_, value)| !is_table(value)).map(owned).collect();
    let mut text = toml_text::entries(&plain, &[]);
    for (name, value) in table.iter().filter(|(_, value)| is_table(value)) {
        let name = toml_text::key(name);
        match value {
            Value::Table(agents) if name == "agents" => {
                for (agent, table) in agents.iter().filter_map(|(name, it)| Some((name, it.as_table()?))) {
                    let entries = toml_text::entries(table, &["kind"]);
                    text.push_str(&format!("\n[agents.{}]\n{entries}", toml_text::key(agent)));
                }
            }
            Value::Table(table) => {
                text.push_str(&format!("\n[{name}]\n{}", toml_text::entries(table, &[])));
            }
            Value::Array(tables) => {
                for table in tables.iter().filter_map(Value::as_table) {
                    text.push_str(&format!("\n[[{name}]]\n{}", toml_text::entries(table, &["name"])));
                }
            }
            _ => {}
        }
    }
    text
}

fn owned((name, value): (&String, &Value)) -> (String, Value) {
    (name.clone(), value.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_read_back() {
        let table = table(
            "hold = true\nconfine = \"off\"\nwritable = [\"x\", \"~/y\"]\n[budget]\nusd = 1.5\n\
             [[guards]]\nname = \"g\"\ncommand = [\"true\"]\n[agents.\"a b\"]\nkind = \"command\"\n\
             command = [\"sh\", \"-c\", '''\nx\ny''']\nenv = { A = \"1\" }\n",
        );
        let written = header(&table);
        assert_eq!(toml::from_str::<Table>(&written).unwrap(), table, "{written}");
    }

    #[test]
    fn paths_beside_another_plan_become_absolute() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().canonicalize().unwrap();
        std::fs::write(root.join("agent.sh"), "").unwrap();
        let plan = "writable = [\"w\", \"/v\", \"~/u\"]\n[agents.a]\nkind = \"command\"\n\
                    command = [\"./agent.sh\", \"x\"]\n[agents.b]\nkind = \"scripted\"\nscript = \"s\"\n";
        std::fs::write(root.join("plan.toml"), plan).unwrap();
        let template = Template::of_plan(&root.join("plan.toml")).unwrap();
        assert!(template.header(&root, &root).contains("\"./agent.sh\""));
        let moved = template.header(Path::new("/"), Path::new("/"));
        for path in ["w", "agent.sh", "s"] {
            assert!(moved.contains(&format!("\"{}\"", root.join(path).display())), "{moved}");
        }
        assert!(moved.contains("\"/v\", \"~/u\""), "{moved}");
    }
}
