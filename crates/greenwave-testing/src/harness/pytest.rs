//! pytest: one test for each file, many files in one process.

mod batch;
mod collect;
mod collection;
mod continued;
mod dependencies;
mod files;
mod ini;
mod interpreter;
mod script;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use globset::{GlobBuilder, GlobMatcher};
use toml::Value;

use super::Harness;
use super::batch::Batch;
use super::continuation::Continuation;
use super::discovery::{Discovery, DiscoveryInputs, DiscoveryNote};
use super::launch::LaunchSpec;
use super::listing::{Listing, ListingContext};
use super::problem::Problem;
use super::project::{Project, closure};
use super::summary::{Summary, SummaryVerdict, TestCount};
use crate::run::blocking::blocking;
use crate::{CaseReport, Environment, Error, HarnessName, Test};
use batch::PytestBatch;
pub(super) use batch::{equip_by_variables, has_ended};
use dependencies::dependencies;
use interpreter::Interpreter;

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
/// Programs and environments that decide which interpreter runs pytest.
const PROGRAMS: [&str; 6] =
    ["python3", "pytest", ".venv/bin/python", ".venv/bin/pytest", "venv/bin/python", "venv/bin/pytest"];
/// Variable with further arguments of pytest.
const ARGUMENTS: &str = "PYTEST_ADDOPTS";
/// Words after the interpreter in the command of a discovered test. The cache directory of pytest
/// is private to the process, since its options (`--failed-first`) must exist but select nothing.
const PREFIX: [&str; 5] = ["-m", "pytest", "-o", "cache_dir=$TMPDIR/pytest_cache", "-q"];

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
        DiscoveryInputs { manifests: &MANIFESTS, programs: &PROGRAMS, ..DiscoveryInputs::default() }
    }

    async fn discover(&self, project: &Project) -> Result<Discovery, Error> {
        let project = project.clone();
        blocking(move || find(&project)).await
    }

    fn collected(&self, collections: &[&Test], context: &ListingContext<'_>) -> Vec<Option<Discovery>> {
        collection::collected(collections, context)
    }

    async fn list(&self, tests: &[&Test], context: &ListingContext<'_>) -> Result<Vec<Listing>, Error> {
        collect::list(tests, context).await
    }

    fn trace_decides(&self, _test: &Test) -> bool {
        true
    }

    fn as_program(&self, test: &Test, project: &Path) -> Option<Test> {
        script::as_program(test, project)
    }

    fn is_serial(&self, test: &Test) -> bool {
        let names_test = test.command.last().is_some_and(|word| word.contains("::"));
        is_file(test) || (is_discovered(test) && names_test)
    }

    fn equip(
        &self,
        test: &Test,
        command: LaunchSpec,
        directory: &Path,
        environment: &Environment,
    ) -> Result<LaunchSpec, Error> {
        if collection::is_collection(test) {
            Ok(command)
        } else if is_file(test) || is_discovered(test) {
            batch::equip(test, command, directory, environment)
        } else {
            equip_by_variables(test, command, directory, environment)
        }
    }

    fn result_file(&self, test: &Test) -> Option<&'static str> {
        collection::result_file(test)
    }

    fn read_cases(&self, test: &Test, directory: &Path) -> Vec<CaseReport> {
        if collection::is_collection(test) { Vec::new() } else { batch::read_cases(directory) }
    }

    fn is_complete(&self, _test: &Test, _output: &[u8], directory: &Path) -> bool {
        has_ended(directory)
    }

    fn continuation(&self, collection: &Test) -> Option<&dyn Continuation> {
        continued::continuation(collection).map(|it| it as &dyn Continuation)
    }

    fn batch(&self, test: &Test) -> Option<&dyn Batch> {
        is_file(test).then_some(&PytestBatch)
    }

    fn parse_summary(&self, test: &Test, exit_code: Option<i32>, output: &[u8]) -> Summary {
        if collection::is_collection(test) {
            return Summary::default();
        }
        let summary = Summary::of_count(TestCount::find(output));
        if none_is_left(test, exit_code, output) {
            return Summary { verdict: SummaryVerdict::Passed, ..summary };
        }
        summary
    }
}

/// Exit code of a run that collected no test, or deselected all of them
/// (<https://docs.pytest.org/en/stable/reference/exit-codes.html>).
const NO_TESTS_COLLECTED: i32 = 5;
/// Upper bound of the length of pytest's last line, in bytes.
const SUMMARY_BYTES_MAX: usize = 1024;

/// Returns whether no test ran since the project's settings deselect all of them (`addopts = "-m
/// 'not slow'"`), or since the files skip themselves.
///
/// This is not a failure of the file. A command that deselects tests itself must run at least one.
fn none_is_left(test: &Test, exit_code: Option<i32>, output: &[u8]) -> bool {
    if exit_code != Some(NO_TESTS_COLLECTED) {
        return false;
    }
    let end = String::from_utf8_lossy(&output[output.len().saturating_sub(SUMMARY_BYTES_MAX)..]).into_owned();
    let last = end.lines().rev().find(|line| !line.trim().is_empty());
    last.is_some_and(|line| line.contains(" skipped") || (line.contains(" deselected") && !deselects(test)))
}

/// Returns whether the last word of a test's command is a file, so that other files can share its
/// process. The command of a single test, `file.py::name`, is meant to run alone.
fn is_file(test: &Test) -> bool {
    test.command.last().is_some_and(|word| {
        word.ends_with(".py")
            || (is_discovered(test)
                && test.command.len() > PREFIX.len() + 1
                && !word.starts_with('-')
                && !word.is_empty()
                && !word.contains("::"))
    })
}

/// Returns whether a command begins like those of discovered tests.
fn is_discovered(test: &Test) -> bool {
    let words = test.command.iter().skip(1).zip(PREFIX);
    words.filter(|(word, own)| word == own).count() == PREFIX.len()
}

/// Returns the command that runs a whole suite.
fn command(python: &str, arguments: &[String]) -> Vec<String> {
    let prefix = [python].into_iter().chain(PREFIX).map(str::to_owned);
    prefix.chain(arguments.iter().cloned()).collect()
}

/// Returns the command that runs one file of a suite.
fn file_command(whole: &[String], options: &[String], file: &str) -> Vec<String> {
    [whole, options, &[files::word(file)]].concat()
}

/// Returns whether a command itself says which tests to deselect.
fn deselects(test: &Test) -> bool {
    let selects = |word: &String| ["-k", "-m", "--deselect"].iter().any(|flag| word.starts_with(flag));
    test.command.iter().skip_while(|word| *word != "pytest").any(selects)
}

/// Returns one test for each file that pytest would collect without plugins, and the collections
/// that replace them by what pytest does collect.
fn find(project: &Project) -> Result<Discovery, Error> {
    let mut found = Discovery::default();
    if !project.files().iter().any(|file| is_python(file)) {
        return Ok(found);
    }
    let all = settings(project, &mut found.notes);
    let projects: BTreeSet<&Path> = PROJECTS.iter().flat_map(|name| project.directories_with(name)).collect();
    let dependencies = dependencies(project, &mut found.notes);
    let default = Settings::new(project, Path::new(""), None, None, None)?;
    let above = |path: &Path| {
        projects.iter().rfind(|directory| path.starts_with(directory)).map(|it| it.to_path_buf())
    };
    let mut roots: BTreeMap<PathBuf, Interpreter> = BTreeMap::new();
    for file in project.files().iter().filter(|file| is_python(file)) {
        let own = all.iter().filter(|it| file.starts_with(&it.directory));
        let settings = own.max_by_key(|it| it.directory.components().count()).unwrap_or(&default);
        if settings.collects(file) {
            let configured = all.iter().any(|it| std::ptr::eq(it, settings));
            let python_root = file.parent().and_then(above).unwrap_or_default();
            // pytest resolves its settings from the directory that contains them.
            let root = if configured { settings.directory.as_path() } else { &python_root };
            let interpreter =
                roots.entry(root.to_owned()).or_insert_with(|| Interpreter::find(project, root));
            let base = base(root, &python_root, &interpreter.word, &dependencies);
            let relative = file.strip_prefix(root).unwrap_or(file).to_string_lossy();
            let command = file_command(&base.command, &[], &relative);
            found.tests.push(Test { name: format!("py:{}", file.to_string_lossy()), command, ..base });
        }
    }
    let needs_python = found.tests.iter().filter(|test| test.command[0] == interpreter::DEFAULT).count();
    found.notes.extend(project.missing_program(interpreter::DEFAULT, needs_python));
    for root in collection_roots(&all, &mut roots, project) {
        let interpreter = &roots[root.as_path()];
        found.notes.extend(interpreter.notes(project, &root));
        let base = base(&root, &above(&root).unwrap_or_default(), &interpreter.word, &dependencies);
        found.collections.push(collection::command(&base));
    }
    Ok(found)
}

/// Returns the directories that pytest collects from: the outermost ones with its settings, and
/// those of files outside of all settings.
fn collection_roots(
    all: &[Settings],
    roots: &mut BTreeMap<PathBuf, Interpreter>,
    project: &Project,
) -> Vec<PathBuf> {
    let is_inside =
        |path: &Path, other: &Settings| path != other.directory && path.starts_with(&other.directory);
    for settings in all {
        roots
            .entry(settings.directory.clone())
            .or_insert_with(|| Interpreter::find(project, &settings.directory));
    }
    let is_outermost = |path: &&PathBuf| !all.iter().any(|other| is_inside(path, other));
    roots.keys().filter(is_outermost).cloned().collect()
}

fn is_python(file: &Path) -> bool {
    file.extension().is_some_and(|extension| extension == "py")
}

/// Returns the directories with Python files below them. Manifests elsewhere belong to other tools.
fn with_python(project: &Project) -> BTreeSet<&Path> {
    let files = project.files().iter().filter(|file| is_python(file));
    files.flat_map(|file| file.ancestors().skip(1)).collect()
}

/// Returns what all tests that run in a directory have in common, with the command of the whole
/// suite.
fn base(
    root: &Path,
    python_root: &Path,
    python: &str,
    dependencies: &BTreeMap<PathBuf, Vec<PathBuf>>,
) -> Test {
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
        outputs: [".pytest_cache/", "__pycache__/", ".hypothesis/"].map(str::to_owned).to_vec(),
        env: vec![ARGUMENTS.to_owned()],
        set: BTreeMap::from([("PYTHONDONTWRITEBYTECODE".to_owned(), "1".to_owned())]),
        harness: HarnessName::new(HARNESS),
        ..Test::new(String::new(), command(python, &[]))
    }
}

/// Reads the settings of each directory, from the file that pytest would choose. A file that cannot
/// be read is a note; pytest fails where it needs the file.
fn settings(project: &Project, notes: &mut Vec<DiscoveryNote>) -> Vec<Settings> {
    let mut directories: BTreeSet<&Path> =
        SETTINGS.iter().flat_map(|(name, ..)| project.directories_with(name)).collect();
    let with_python = with_python(project);
    directories.retain(|directory| with_python.contains(directory));
    let mut found = Vec::new();
    for directory in directories {
        for (name, section, counts_anyway) in SETTINGS {
            let path = directory.join(name);
            if !project.has(&path) {
                continue;
            }
            match read(project, directory, &path, section, counts_anyway) {
                Ok(None) => {}
                Ok(Some(settings)) => {
                    found.push(settings);
                    break;
                }
                Err(error) => notes.push(DiscoveryNote::unreadable(&path, &error)),
            }
        }
    }
    found
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
