//! A project's own tests as `greenwave.toml` has them: `[[test]]` and `[resources]`. Knows nothing of running them.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use greenwave::{Test, check_pattern};
use greenwave_testing::Harnesses;

use crate::diagnostic::{Diagnostic, Document};
use crate::planfile::{folder_inside, time_limit};
use crate::reader::{Placed, Table};

/// What the file says of tests.
#[derive(Debug, Default)]
pub(crate) struct TestFile {
    pub(crate) tests: Vec<Test>,
    pub(crate) resources: BTreeMap<String, u32>,
}

impl TestFile {
    /// Takes what is said of tests out of a project's file.
    pub(crate) fn take(document: &Document, root: &mut Table<'_>) -> Result<Self, Diagnostic> {
        let resources = root.counts("resources")?;
        let mut tests: Vec<Test> = Vec::new();
        let mut names = HashSet::new();
        for table in root.tables("test")? {
            let at = table.at();
            let test = test(document, table)?;
            if !names.insert(test.name.clone()) {
                let message = format!("there is another test called `{}`; names tell tests apart", test.name);
                return Err(document.mistake(at, message));
            }
            if let Some((name, units)) = wanting(&test, &resources) {
                let there = resources.get(name).map_or(1, |count| count.value);
                let message = format!(
                    "test `{}` needs {units} of `{name}`, and there is {there}; `[resources]` says how much there is",
                    test.name
                );
                return Err(document.mistake(at, message));
            }
            tests.push(test);
        }
        let resources = resources.into_iter().map(|(name, count)| (name, count.value)).collect();
        Ok(Self { tests, resources })
    }
}

/// The first resource of which a test needs more than there is.
fn wanting<'t>(test: &'t Test, resources: &BTreeMap<String, Placed<u32>>) -> Option<(&'t str, u32)> {
    let there = |name: &str| resources.get(name).map_or(1, |count| count.value);
    let mut needs = test.needs.iter().map(|(name, units)| (name.as_str(), *units));
    needs.find(|(name, units)| *units > there(name))
}

fn test(document: &Document, mut table: Table<'_>) -> Result<Test, Diagnostic> {
    let name = table.required_text("name")?;
    if name.value.trim().is_empty() {
        return Err(document.mistake(name.at, "`name` is empty; a name that tells the test apart is wanted"));
    }
    let command = table.words("command")?.ok_or_else(|| table.missing("command"))?;
    // The shell succeeds at nothing, and a test that does nothing would pass.
    if command.value.iter().all(|word| word.trim().is_empty())
        || matches!(command.value.as_slice(), [shell, flag, line] if (shell.as_str(), flag.as_str()) == ("sh", "-c") && line.trim().is_empty())
    {
        return Err(
            document.mistake(command.at, "`command` is empty; a program and its arguments are wanted")
        );
    }
    let inputs = patterns(document, &mut table, "inputs")?;
    let outputs = patterns(document, &mut table, "outputs")?;
    let mut directories = Vec::new();
    for folder in table.texts("folders")?.map(|list| list.value).unwrap_or_default() {
        directories.push(folder_inside(document, "folders", &folder)?);
    }
    let directory = match table.text("directory")? {
        Some(folder) => folder_inside(document, "directory", &folder)?,
        None => Default::default(),
    };
    let env = table.texts("env")?.map(|list| list.value).unwrap_or_default();
    let test = Test {
        directory,
        inputs,
        directories,
        outputs,
        env: env.into_iter().map(|name| name.value).collect(),
        set: table.texts_by_name("set")?,
        time_max: time_limit(document, &mut table, "timeout")?.unwrap_or(Duration::from_secs(600)),
        retries: table.count("retries", 0)?.map_or(0, |count| count.value),
        needs: needs(&mut table)?,
        parallel_safe: table.flag("parallel_safe")?.unwrap_or(true),
        harness: Harnesses::builtin().recognize(&command.value),
        ..Test::new(name.value, command.value)
    };
    table.finish()?;
    Ok(test)
}

/// Resources with how much of each, or their names alone for one each.
fn needs(table: &mut Table<'_>) -> Result<BTreeMap<String, u32>, Diagnostic> {
    if let Some(names) = table.list_of_texts("needs") {
        return Ok(names.into_iter().map(|name| (name, 1)).collect());
    }
    Ok(table.counts("needs")?.into_iter().map(|(name, count)| (name, count.value)).collect())
}

fn patterns(
    document: &Document,
    table: &mut Table<'_>,
    key: &'static str,
) -> Result<Vec<String>, Diagnostic> {
    let patterns = table.texts(key)?.map(|list| list.value).unwrap_or_default();
    for pattern in &patterns {
        let problem = |problem| format!("`{}` is not a valid glob pattern: {problem}", pattern.value);
        check_pattern(&pattern.value).map_err(|it| document.mistake(pattern.at.clone(), problem(it)))?;
    }
    Ok(patterns.into_iter().map(|pattern| pattern.value).collect())
}
