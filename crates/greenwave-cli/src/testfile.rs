//! Reads a project's tests from `greenwave.toml`: `[[test]]`, `[resources]` and `[[quarantine]]`.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use greenwave::Test;
use greenwave_testing::{HarnessName, Harnesses, JunitReports, QuarantineEntry, is_server};

use crate::diagnostic::{Diagnostic, Document};
use crate::reader::{Located, Table};

/// The harness that reads reports in JUnit XML.
const JUNIT: &str = "junit";
/// Time limit of tests that have no `timeout`.
const TIMEOUT: Duration = Duration::from_secs(600);

/// Description of a server in errors.
pub(crate) const SERVER: &str =
    "an address such as \"localhost:5432\" or \"[::1]:*\", an absolute path, or \"@\" and an abstract name";

/// The tests, resources and quarantine of a settings file.
#[derive(Debug, Default)]
pub(crate) struct TestFile {
    pub(crate) tests: Vec<Test>,
    pub(crate) resources: BTreeMap<String, u32>,
    /// Tests in quarantine, declared here or discovered.
    pub(crate) quarantine: Vec<QuarantineEntry>,
    /// Names of the declared tests without `retries`.
    pub(crate) without_retries: HashSet<String>,
}

impl TestFile {
    /// Takes the tests, resources and quarantine out of the root table of a settings file.
    pub(crate) fn take(document: &Document, root: &mut Table<'_>) -> Result<Self, Diagnostic> {
        let resources = root.counts("resources")?;
        let mut tests: Vec<Test> = Vec::new();
        let (mut names, mut without_retries) = (HashSet::new(), HashSet::new());
        for table in root.tables("test")? {
            let at = table.at();
            let has_retries = table.keys().iter().any(|key| key.value == "retries");
            let test = test(document, table)?;
            if !has_retries {
                without_retries.insert(test.name.clone());
            }
            if !names.insert(test.name.clone()) {
                return Err(document.error(at, format!("duplicate test name `{}`", test.name)));
            }
            if let Some((name, needed)) = first_shortage(&test, &resources) {
                let message = format!(
                    "invalid value `{needed}` for `{name}` in test `{}`: expected at most {}, as in [resources]",
                    test.name,
                    units(&resources, name)
                );
                return Err(document.error(at, message));
            }
            tests.push(test);
        }
        let resources = resources.into_iter().map(|(name, count)| (name, count.value)).collect();
        let quarantine = root.tables("quarantine")?.into_iter().map(|table| quarantined(document, table));
        let quarantine = quarantine.collect::<Result<_, _>>()?;
        Ok(Self { tests, resources, quarantine, without_retries })
    }
}

fn quarantined(document: &Document, mut table: Table<'_>) -> Result<QuarantineEntry, Diagnostic> {
    let test = table.required_text("test")?;
    if test.value.trim().is_empty() {
        let message = format!("invalid value `{:?}` for `test`: expected a non-empty name", test.value);
        return Err(document.error(test.at, message));
    }
    let until = table.day("until")?.ok_or_else(|| table.missing("until"))?;
    let reason = table.text("reason")?.map(|reason| reason.value);
    table.finish()?;
    QuarantineEntry::new(test.value, &until.value, reason).map_err(|error| {
        document.error(until.at, format!("invalid value `{}` for `until`: {error}", until.value))
    })
}

/// Returns the first resource that a test needs more of than exists.
fn first_shortage<'t>(test: &'t Test, resources: &BTreeMap<String, Located<u32>>) -> Option<(&'t str, u32)> {
    let mut needs = test.needs.iter().map(|(name, needed)| (name.as_str(), *needed));
    needs.find(|(name, needed)| *needed > units(resources, name))
}

/// Returns the number of units of a resource. A resource that is not declared has one.
fn units(resources: &BTreeMap<String, Located<u32>>, name: &str) -> u32 {
    resources.get(name).map_or(1, |count| count.value)
}

fn test(document: &Document, mut table: Table<'_>) -> Result<Test, Diagnostic> {
    let name = table.required_text("name")?;
    if name.value.trim().is_empty() {
        let message = format!("invalid value `{:?}` for `name`: expected a non-empty name", name.value);
        return Err(document.error(name.at, message));
    }
    let command = table.words("command")?.ok_or_else(|| table.missing("command"))?;
    if is_empty(&command.value) {
        let value = match &command.value[..] {
            [shell, flag, line] if shell == "sh" && flag == "-c" => format!("{line:?}"),
            words => format!("{words:?}"),
        };
        let message = format!("invalid value `{value}` for `command`: expected a program and its arguments");
        return Err(document.error(command.at, message));
    }
    let reports = reports(document, &mut table, &command)?;
    let harness = match &reports {
        Some(_) => HarnessName::new(JUNIT),
        None => Harnesses::builtin().recognize(&command.value),
    };
    let test = Test {
        directory: table.inner_dir("directory")?.unwrap_or_default(),
        inputs: table.patterns("inputs")?,
        directories: table.inner_dirs("folders")?,
        outputs: table.patterns("outputs")?,
        env: table.plain_texts("env")?,
        set: table.texts_by_name("set")?,
        servers: servers(document, &mut table)?,
        time_max: table.time_limit("timeout")?.unwrap_or(TIMEOUT),
        retries: table.count("retries", 0)?.map_or(0, |count| count.value),
        needs: needs(&mut table)?,
        parallel_safe: table.flag("parallel_safe")?.unwrap_or(true),
        harness,
        reports,
        ..Test::new(name.value, command.value)
    };
    table.finish()?;
    Ok(with_reports_as_outputs(test))
}

/// Reads the keys of a test whose command writes reports in JUnit XML.
fn reports(
    document: &Document,
    table: &mut Table<'_>,
    command: &Located<Vec<String>>,
) -> Result<Option<JunitReports>, Diagnostic> {
    let at = table.at();
    let harness = table.text("harness")?;
    if let Some(harness) = harness.as_ref().filter(|harness| harness.value != JUNIT) {
        let message = format!("invalid value `{:?}` for `harness`: expected \"{JUNIT}\"", harness.value);
        return Err(document.error(harness.at.clone(), message));
    }
    let paths = if table.is_list("report") {
        table.plain_texts("report")?
    } else {
        table.text("report")?.map(|path| vec![path.value]).unwrap_or_default()
    };
    let select = table.plain_texts("select")?;
    let is_junit = harness.is_some();
    let has_keys = !paths.is_empty() || !select.is_empty();
    if has_keys && !is_junit {
        let message = format!("`report` and `select` need `harness = \"{JUNIT}\"`");
        return Err(document.error(at, message));
    }
    let invalid = paths.iter().find(|path| !is_report_path(path));
    if let Some(path) = invalid {
        let message =
            format!("invalid value `{path:?}` for `report`: expected a path or glob below `directory`");
        return Err(document.error(at, message));
    }
    let has_placeholder = command.value.iter().any(|word| word.contains(JunitReports::PLACEHOLDER));
    if is_junit && paths.is_empty() && !has_placeholder {
        let message = format!(
            "missing `report`: expected the path of the report, or `{}` in `command`",
            JunitReports::PLACEHOLDER
        );
        return Err(document.error(at, message));
    }
    Ok(is_junit.then_some(JunitReports { paths, select }))
}

/// Returns whether a path stays in the directory that it is relative to, and is a valid pattern.
fn is_report_path(path: &str) -> bool {
    let parts = || path.split('/');
    !path.is_empty()
        && !path.starts_with('/')
        && !parts().any(|part| part == "..")
        && JunitReports::is_pattern(path)
}

/// Adds the reports to the outputs of a test, since it writes them.
fn with_reports_as_outputs(mut test: Test) -> Test {
    let paths = test.reports.iter().flat_map(|reports| &reports.paths);
    let below = |path: &String| {
        let path = test.directory.join(path.trim_start_matches("./"));
        format!("/{}", path.display())
    };
    let outputs: Vec<String> = paths.map(below).collect();
    test.outputs.extend(outputs);
    test
}

fn servers(document: &Document, table: &mut Table<'_>) -> Result<Vec<String>, Diagnostic> {
    let Some(list) = table.texts("servers")? else { return Ok(Vec::new()) };
    if let Some(server) = list.value.iter().find(|server| !is_server(&server.value)) {
        let message = format!("invalid value `{:?}` for `servers`: expected {SERVER}", server.value);
        return Err(document.error(server.at.clone(), message));
    }
    Ok(list.value.into_iter().map(|server| server.value).collect())
}

/// Returns whether a command does nothing. The shell succeeds at an empty line, so that such a test
/// would pass.
fn is_empty(command: &[String]) -> bool {
    let is_blank = |word: &String| word.trim().is_empty();
    match command {
        [shell, flag, line] if shell == "sh" && flag == "-c" => is_blank(line),
        words => words.iter().all(is_blank),
    }
}

/// Returns the needed resources with their units. A plain list of names needs one unit of each.
fn needs(table: &mut Table<'_>) -> Result<BTreeMap<String, u32>, Diagnostic> {
    if let Some(names) = table.list_of_texts("needs") {
        return Ok(names.into_iter().map(|name| (name, 1)).collect());
    }
    Ok(table.counts("needs")?.into_iter().map(|(name, count)| (name, count.value)).collect())
}
