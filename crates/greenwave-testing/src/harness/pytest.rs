//! pytest: one test for each file, many files in one process.

mod batch;
mod collect;
mod ini;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use globset::{GlobBuilder, GlobMatcher};
use toml::{Table, Value};

use super::Harness;
use super::batch::Batch;
use super::build::{BuildOutput, BuildRequest};
use super::crash::Crash;
use super::discovery::{Discovery, DiscoveryInputs, DiscoveryNote};
use super::launch::LaunchSpec;
use super::listing::{Listing, ListingContext};
use super::problem::Problem;
use super::project::{Project, closure, within};
use super::summary::{Summary, SummaryVerdict, TestCount};
use crate::run::blocking::blocking;
use crate::{CaseReport, Error, HarnessName, Test};
use batch::PytestBatch;

const HARNESS: &str = "pytest";
/// Defaults of `python_files` and `norecursedirs`
/// (<https://docs.pytest.org/en/stable/reference/reference.html#configuration-options>).
const PYTHON_FILES: [&str; 2] = ["test_*.py", "*_test.py"];
const NO_RECURSE: [&str; 9] =
    ["*.egg", ".*", "_darcs", "build", "CVS", "dist", "node_modules", "venv", "{arch}"];
/// Files with pytest's settings, in order of precedence: name, section, and whether the file counts
/// without the section.
const SETTINGS: [(&str, &str, bool); 7] = [
    ("pytest.toml", "pytest", true),
    (".pytest.toml", "pytest", true),
    ("pytest.ini", "pytest", true),
    (".pytest.ini", "pytest", true),
    ("pyproject.toml", "tool.pytest", false),
    ("tox.ini", "pytest", false),
    ("setup.cfg", "tool:pytest", false),
];
/// Files that mark the root of a Python project.
const PROJECTS: [&str; 4] = ["pyproject.toml", "setup.py", "setup.cfg", "requirements.txt"];
const ENVIRONMENTS: [&str; 2] = [".venv", "venv"];

/// Files whose content discovery reads.
const MANIFESTS: [&str; 8] = [
    "pyproject.toml",
    "pytest.toml",
    ".pytest.toml",
    "pytest.ini",
    ".pytest.ini",
    "setup.cfg",
    "tox.ini",
    "requirements.txt",
];

/// pytest (<https://docs.pytest.org>).
#[derive(Debug, Clone, Copy)]
pub(crate) struct PytestHarness;

/// pytest's settings in one directory.
struct Settings {
    directory: PathBuf,
    test_paths: Vec<String>,
    python_files: Vec<Pattern>,
    no_recurse: Vec<Pattern>,
}

/// A pattern of file names, or of paths if it contains a slash.
struct Pattern {
    glob: GlobMatcher,
    is_path: bool,
}

#[async_trait]
impl Harness for PytestHarness {
    fn name(&self) -> &'static str {
        HARNESS
    }

    fn recognizes(&self, command: &[String]) -> bool {
        let words: Vec<&str> = command.iter().map(String::as_str).collect();
        matches!(words.as_slice(), [_, "-m", "pytest", ..] | ["pytest", ..])
    }

    fn discovery_inputs(&self) -> DiscoveryInputs {
        DiscoveryInputs { manifests: &MANIFESTS, programs: &["python3"], ..DiscoveryInputs::default() }
    }

    async fn discover(&self, project: &Project) -> Result<Discovery, Error> {
        let project = project.clone();
        blocking(move || find(&project)).await
    }

    fn listing_commands(&self, _test: &Test, _context: &ListingContext<'_>) -> Vec<Test> {
        Vec::new()
    }

    async fn list(&self, tests: &[&Test], context: &ListingContext<'_>) -> Result<Vec<Listing>, Error> {
        collect::list(tests, context).await
    }

    fn needs_build(&self, _test: &Test) -> bool {
        false
    }

    async fn build(&self, _request: &BuildRequest<'_>) -> Result<Option<Arc<dyn BuildOutput>>, Error> {
        Ok(None)
    }

    fn launch(&self, _test: &Test, _built: Option<&dyn BuildOutput>, command: LaunchSpec) -> LaunchSpec {
        command
    }

    fn batch(&self, test: &Test) -> Option<&dyn Batch> {
        // The command of a single test, `file.py::name`, is meant to run alone.
        let is_file = test.command.last().is_some_and(|word| word.ends_with(".py"));
        is_file.then_some(&PytestBatch)
    }

    fn parse_summary(&self, test: &Test, exit_code: Option<i32>, output: &[u8]) -> Summary {
        let summary = Summary::of_count(TestCount::find(output));
        if all_deselected(test, exit_code, output) {
            return Summary { verdict: SummaryVerdict::Passed, ..summary };
        }
        summary
    }

    fn parse_cases(&self, _output: &str) -> Vec<CaseReport> {
        Vec::new()
    }

    async fn explain_crash(&self, _crash: &Crash<'_>) -> Option<String> {
        None
    }
}

/// Exit code of a run that collected no test, or deselected all of them
/// (<https://docs.pytest.org/en/stable/reference/exit-codes.html>).
const NO_TESTS_COLLECTED: i32 = 5;
/// Upper bound of the length of pytest's last line, in bytes.
const SUMMARY_BYTES_MAX: usize = 1024;

/// Returns whether the project's settings deselect all tests of a file (`addopts = "-m 'not
/// slow'"`).
///
/// This is not a failure of the file. A command that deselects tests itself must run at least one.
fn all_deselected(test: &Test, exit_code: Option<i32>, output: &[u8]) -> bool {
    if exit_code != Some(NO_TESTS_COLLECTED) || deselects(test) {
        return false;
    }
    let end = String::from_utf8_lossy(&output[output.len().saturating_sub(SUMMARY_BYTES_MAX)..]).into_owned();
    let last = end.lines().rev().find(|line| !line.trim().is_empty());
    last.is_some_and(|line| line.contains(" deselected"))
}

/// Returns whether a command itself says which tests to deselect.
fn deselects(test: &Test) -> bool {
    let selects = |word: &String| ["-k", "-m", "--deselect"].iter().any(|flag| word.starts_with(flag));
    test.command.iter().skip_while(|word| *word != "pytest").any(selects)
}

/// Returns one test for each file that pytest would collect.
fn find(project: &Project) -> Result<Discovery, Error> {
    let mut found = Discovery::default();
    if !project.files().iter().any(|file| is_python(file)) {
        return Ok(found);
    }
    let all = settings(project)?;
    let projects: BTreeSet<&Path> = PROJECTS.iter().flat_map(|name| project.directories_with(name)).collect();
    let dependencies = dependencies(project, &mut found.notes)?;
    let default = Settings::new(project, Path::new(""), None, None, None)?;
    let mut needs_python = 0;
    for file in project.files().iter().filter(|file| is_python(file)) {
        let own = all.iter().filter(|it| file.starts_with(&it.directory));
        let settings = own.max_by_key(|it| it.directory.components().count()).unwrap_or(&default);
        if settings.collects(file) {
            let configured = all.iter().any(|it| std::ptr::eq(it, settings));
            let python_root = file.ancestors().skip(1).find(|directory| projects.contains(directory));
            let python_root = python_root.unwrap_or(Path::new(""));
            // pytest resolves its settings from the directory that contains them.
            let root = if configured { settings.directory.as_path() } else { python_root };
            let test = test(project, root, python_root, file, &dependencies);
            needs_python += usize::from(test.command[0] == "python3");
            found.tests.push(test);
        }
    }
    found.notes.extend(project.missing_program("python3", needs_python));
    Ok(found)
}

fn is_python(file: &Path) -> bool {
    file.extension().is_some_and(|extension| extension == "py")
}

/// Returns the directories with Python files below them. Manifests elsewhere belong to other tools.
fn with_python(project: &Project) -> BTreeSet<&Path> {
    let files = project.files().iter().filter(|file| is_python(file));
    files.flat_map(|file| file.ancestors().skip(1)).collect()
}

fn test(
    project: &Project,
    root: &Path,
    python_root: &Path,
    file: &Path,
    dependencies: &BTreeMap<PathBuf, Vec<PathBuf>>,
) -> Test {
    let relative = file.strip_prefix(root).unwrap_or(file).to_string_lossy().into_owned();
    let command = [python(project, root).as_str(), "-m", "pytest", "-p", "no:cacheprovider", "-q", &relative]
        .map(str::to_owned);
    // Tests can import modules in the directory that pytest runs in, if that is above the project.
    let start = if python_root.starts_with(root) { root } else { python_root };
    let (mut directories, more) = (closure(start, dependencies), closure(python_root, dependencies));
    if directories.is_empty() || more.is_empty() {
        directories.clear();
    } else {
        directories.extend(more);
        directories.sort_unstable();
        directories.dedup();
    }
    Test {
        directory: root.to_owned(),
        directories,
        outputs: [".pytest_cache/", "__pycache__/"].map(str::to_owned).to_vec(),
        set: BTreeMap::from([("PYTHONDONTWRITEBYTECODE".to_owned(), "1".to_owned())]),
        harness: HarnessName::new(HARNESS),
        ..Test::new(format!("py:{}", file.to_string_lossy()), command)
    }
}

/// Returns the interpreter of the nearest virtual environment, relative to the directory, or
/// `python3`.
fn python(project: &Project, directory: &Path) -> String {
    let mut up = String::new();
    for above in directory.ancestors() {
        for name in ENVIRONMENTS {
            if project.root().join(above).join(name).join("bin/python").exists() {
                return format!("{up}{name}/bin/python");
            }
        }
        up.push_str("../");
    }
    "python3".to_owned()
}

/// Reads the settings of each directory, from the file that pytest would choose.
fn settings(project: &Project) -> Result<Vec<Settings>, Error> {
    let mut directories: BTreeSet<&Path> =
        SETTINGS.iter().flat_map(|(name, ..)| project.directories_with(name)).collect();
    let with_python = with_python(project);
    directories.retain(|directory| with_python.contains(directory));
    let mut found = Vec::new();
    for directory in directories {
        for (name, section, counts_anyway) in SETTINGS {
            let path = directory.join(name);
            if project.has(&path)
                && let Some(settings) = read(project, directory, &path, section, counts_anyway)?
            {
                found.push(settings);
                break;
            }
        }
    }
    Ok(found)
}

fn read(
    project: &Project,
    directory: &Path,
    path: &Path,
    section: &str,
    counts_anyway: bool,
) -> Result<Option<Settings>, Error> {
    if path.extension().is_some_and(|extension| extension == "toml") {
        let table = project.toml(HARNESS, path)?;
        let found = section.split('.').try_fold(&table, |table, key| table.get(key)?.as_table());
        // The older name of the section.
        let found = match found.and_then(|it| it.get("ini_options")) {
            Some(older) => older.as_table(),
            None => found,
        };
        if found.is_none() && !counts_anyway {
            return Ok(None);
        }
        let list = |key: &str| found.and_then(|table| table.get(key)).map(words_of);
        let lists = (list("testpaths"), list("python_files"), list("norecursedirs"));
        return Settings::new(project, directory, lists.0, lists.1, lists.2).map(Some);
    }
    let text = project.text(HARNESS, path)?;
    if !counts_anyway && !ini::has_section(&text, section) {
        return Ok(None);
    }
    let list = |key: &str| ini::value(&text, section, key).map(|value| words(&value));
    Settings::new(project, directory, list("testpaths"), list("python_files"), list("norecursedirs"))
        .map(Some)
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

fn words_of(value: &Value) -> Vec<String> {
    match value {
        Value::String(text) => words(text),
        Value::Array(list) => list.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        _ => Vec::new(),
    }
}

impl Settings {
    fn new(
        project: &Project,
        directory: &Path,
        test_paths: Option<Vec<String>>,
        python_files: Option<Vec<String>>,
        no_recurse: Option<Vec<String>>,
    ) -> Result<Self, Error> {
        let patterns = |given: Option<Vec<String>>, otherwise: &[&str]| {
            let texts = given.unwrap_or_else(|| otherwise.iter().map(|it| (*it).to_owned()).collect());
            texts.iter().map(|text| Pattern::new(text)).collect::<Result<Vec<_>, _>>()
        };
        let invalid = |source: globset::Error| {
            let problem = Problem::Pattern { file: "pytest settings".to_owned(), source };
            problem.discovering(HARNESS, &project.root().join(directory))
        };
        Ok(Self {
            directory: directory.to_owned(),
            test_paths: test_paths.unwrap_or_default(),
            python_files: patterns(python_files, &PYTHON_FILES).map_err(invalid)?,
            no_recurse: patterns(no_recurse, &NO_RECURSE).map_err(invalid)?,
        })
    }

    fn collects(&self, file: &Path) -> bool {
        let inside = file.strip_prefix(&self.directory).unwrap_or(file);
        self.python_files.iter().any(|pattern| pattern.matches(inside))
            && self.is_in_test_paths(inside)
            && !self.is_excluded(inside)
    }

    fn is_in_test_paths(&self, inside: &Path) -> bool {
        let asks = |path: &String| {
            let path = path.trim_start_matches("./").trim_end_matches('/');
            // A path that is not a valid glob matches literally.
            let glob =
                GlobBuilder::new(path).literal_separator(true).build().map(|glob| glob.compile_matcher());
            path == "."
                || inside.starts_with(path)
                || glob.is_ok_and(|glob| inside.ancestors().any(|it| glob.is_match(it)))
        };
        self.test_paths.is_empty() || self.test_paths.iter().any(asks)
    }

    /// Returns whether `norecursedirs` excludes a file. A directory that `testpaths` names is never
    /// excluded.
    fn is_excluded(&self, inside: &Path) -> bool {
        let mut directories: Vec<&Path> = inside.ancestors().skip(1).collect();
        directories.retain(|directory| {
            !directory.as_os_str().is_empty()
                && !self.test_paths.iter().any(|path| Path::new(path).starts_with(directory))
        });
        directories.iter().any(|directory| self.no_recurse.iter().any(|pattern| pattern.matches(directory)))
    }
}

impl Pattern {
    fn new(text: &str) -> Result<Self, globset::Error> {
        // `{arch}` is a literal name: braces have no meaning in `fnmatch`.
        let escaped = text.replace('{', "[{]").replace('}', "[}]");
        Ok(Self { glob: GlobBuilder::new(&escaped).build()?.compile_matcher(), is_path: text.contains('/') })
    }

    fn matches(&self, path: &Path) -> bool {
        if !self.is_path {
            return path.file_name().is_some_and(|name| self.glob.is_match(name));
        }
        // pytest matches such a pattern against the end of the absolute path.
        suffixes(path).any(|suffix| self.glob.is_match(suffix))
    }
}

fn suffixes(path: &Path) -> impl Iterator<Item = &Path> {
    std::iter::successors(Some(path), |path| {
        let mut parts = path.components();
        parts.next()?;
        Some(parts.as_path()).filter(|rest| !rest.as_os_str().is_empty())
    })
}

/// Returns the directories that each Python project may import from, beside its own.
fn dependencies(
    project: &Project,
    notes: &mut Vec<DiscoveryNote>,
) -> Result<BTreeMap<PathBuf, Vec<PathBuf>>, Error> {
    let mut tables = BTreeMap::new();
    let with_python = with_python(project);
    for directory in
        project.directories_with("pyproject.toml").filter(|directory| with_python.contains(directory))
    {
        tables.insert(directory.to_owned(), project.toml(HARNESS, &directory.join("pyproject.toml"))?);
    }
    let names: BTreeMap<String, &PathBuf> =
        tables.iter().filter_map(|(directory, table)| Some((project_name(table)?, directory))).collect();
    let mut found: BTreeMap<PathBuf, Vec<PathBuf>> = BTreeMap::new();
    let mut add = |manifest: PathBuf, path: String| {
        let directory = manifest.parent().unwrap_or(Path::new(""));
        match within(directory, &path) {
            Some(target) => found.entry(directory.to_owned()).or_default().push(target),
            None => notes.push(DiscoveryNote::OutsideDependency { manifest, directory: path }),
        }
    };
    for (directory, table) in &tables {
        for path in paths_of(table) {
            add(directory.join("pyproject.toml"), path);
        }
    }
    for directory in project.directories_with("requirements.txt") {
        let manifest = directory.join("requirements.txt");
        for path in required(&project.text(HARNESS, &manifest)?) {
            add(manifest.clone(), path);
        }
    }
    for (directory, table) in &tables {
        let members = workspace_sources(table).filter_map(|name| names.get(&name).map(|it| (*it).clone()));
        found.entry(directory.clone()).or_default().extend(members);
    }
    Ok(found)
}

/// Normalizes a project's name for comparison
/// (<https://packaging.python.org/en/latest/specifications/name-normalization/>).
fn normal(name: &str) -> String {
    let mut normal = String::new();
    for character in name.chars() {
        match character {
            '-' | '_' | '.' if normal.ends_with('-') => {}
            '-' | '_' | '.' => normal.push('-'),
            other => normal.extend(other.to_lowercase()),
        }
    }
    normal
}

fn project_name(table: &Table) -> Option<String> {
    let standard = table.get("project").and_then(|it| it.get("name"));
    let poetry = || table.get("tool")?.get("poetry")?.get("name");
    standard.or_else(poetry)?.as_str().map(normal)
}

fn uv_sources(table: &Table) -> impl Iterator<Item = (&String, &Value)> {
    let sources = table.get("tool").and_then(|it| it.get("uv")?.get("sources")?.as_table());
    sources.into_iter().flatten().flat_map(|(name, value)| {
        let one_or_more = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
        one_or_more.iter().map(move |value| (name, value))
    })
}

/// Returns the members of uv's workspace that a project depends on.
fn workspace_sources(table: &Table) -> impl Iterator<Item = String> {
    let is_member = |value: &Value| value.get("workspace").and_then(Value::as_bool) == Some(true);
    uv_sources(table).filter(move |(_, value)| is_member(value)).map(|(name, _)| normal(name))
}

/// Returns the directories that uv and Poetry settings of a project depend on.
fn paths_of(table: &Table) -> Vec<String> {
    let path = |value: &Value| value.get("path").and_then(Value::as_str).map(str::to_owned);
    let mut paths: Vec<String> = uv_sources(table).filter_map(|(_, value)| path(value)).collect();
    let poetry = table.get("tool").and_then(|it| it.get("poetry"));
    let groups =
        poetry.and_then(|it| it.get("group")?.as_table()).into_iter().flatten().map(|(_, group)| group);
    for list in poetry.into_iter().chain(groups) {
        for key in ["dependencies", "dev-dependencies"] {
            let list = list.get(key).and_then(Value::as_table);
            paths.extend(list.into_iter().flatten().filter_map(|(_, value)| path(value)));
        }
    }
    // A wheel is a file, not a directory with sources.
    paths.retain(|path| !path.ends_with(".whl") && !path.ends_with(".tar.gz"));
    paths
}

/// Returns the directories in a list of requirements
/// (<https://pip.pypa.io/en/stable/reference/requirements-file-format/>).
fn required(text: &str) -> Vec<String> {
    let directory = |line: &str| {
        let line = line.split(" #").next().unwrap_or_default().trim();
        let editable = ["-e", "--editable"].iter().find_map(|flag| line.strip_prefix(flag));
        let target = editable.unwrap_or(line).trim_start_matches('=').trim();
        let target = target.split(['[', ';']).next().unwrap_or_default().trim();
        let is_directory =
            target.starts_with('.') && !target.ends_with(".whl") && !target.ends_with(".tar.gz");
        is_directory.then(|| target.to_owned())
    };
    text.lines().filter_map(directory).collect()
}
