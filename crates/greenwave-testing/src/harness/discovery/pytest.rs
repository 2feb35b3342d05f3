//! Files with tests for pytest. Knows nothing of running them, and asks no Python.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use globset::{GlobBuilder, GlobMatcher};
use toml::{Table, Value};

use super::found::{Discovery, DiscoveryNote, Files, closure, parse_toml, within};
use super::ini;
use crate::harness::problem::Problem;
use crate::test::Harness;
use crate::{Error, Test};

const RUNNER: &str = "pytest";
/// What `python_files` and `norecursedirs` are where nothing else is said
/// (<https://docs.pytest.org/en/stable/reference/reference.html#configuration-options>).
const PYTHON_FILES: [&str; 2] = ["test_*.py", "*_test.py"];
const NO_RECURSE: [&str; 9] =
    ["*.egg", ".*", "_darcs", "build", "CVS", "dist", "node_modules", "venv", "{arch}"];
/// Where pytest's own settings may stand, in the order in which it looks: the file, its section, and whether the file counts without it.
const SETTINGS: [(&str, &str, bool); 7] = [
    ("pytest.toml", "pytest", true),
    (".pytest.toml", "pytest", true),
    ("pytest.ini", "pytest", true),
    (".pytest.ini", "pytest", true),
    ("pyproject.toml", "tool.pytest", false),
    ("tox.ini", "pytest", false),
    ("setup.cfg", "tool:pytest", false),
];
/// What makes a folder a Python project.
const PROJECTS: [&str; 4] = ["pyproject.toml", "setup.py", "setup.cfg", "requirements.txt"];
const ENVIRONMENTS: [&str; 2] = [".venv", "venv"];

/// pytest's settings in one folder.
struct Settings {
    folder: PathBuf,
    test_paths: Vec<String>,
    python_files: Vec<Pattern>,
    no_recurse: Vec<Pattern>,
}

/// A pattern of names, or of paths if it has a slash.
struct Pattern {
    glob: GlobMatcher,
    is_path: bool,
}

/// One test for each file that pytest would collect.
pub(super) fn discover(files: &Files<'_>) -> Result<Discovery, Error> {
    let mut found = Discovery::default();
    if !files.files.iter().any(|file| is_python(file)) {
        return Ok(found);
    }
    let all = settings(files)?;
    let projects: BTreeSet<&Path> = PROJECTS.iter().flat_map(|name| files.folders_with(name)).collect();
    let dependencies = dependencies(files, &mut found.notes)?;
    let default = Settings::new(files, Path::new(""), None, None, None)?;
    let mut needs_python = 0;
    for file in files.files.iter().filter(|file| is_python(file)) {
        let own = all.iter().filter(|it| file.starts_with(&it.folder));
        let settings = own.max_by_key(|it| it.folder.components().count()).unwrap_or(&default);
        if settings.collects(file) {
            let configured = all.iter().any(|it| std::ptr::eq(it, settings));
            let project = file.ancestors().skip(1).find(|folder| projects.contains(folder));
            let project = project.unwrap_or(Path::new(""));
            // pytest's settings count from the folder they are in.
            let root = if configured { settings.folder.as_path() } else { project };
            let test = test(files, root, project, file, &dependencies);
            needs_python += usize::from(test.command[0] == "python3");
            found.tests.push(test);
        }
    }
    found.notes.extend(files.missing("python3", needs_python));
    Ok(found)
}

fn is_python(file: &Path) -> bool {
    file.extension().is_some_and(|extension| extension == "py")
}

/// Folders with Python in them: manifests elsewhere are none that anything is run by.
fn with_python<'a>(files: &Files<'a>) -> BTreeSet<&'a Path> {
    let files = files.files.iter().filter(|file| is_python(file));
    files.flat_map(|file| file.ancestors().skip(1)).collect()
}

fn test(
    files: &Files<'_>,
    root: &Path,
    project: &Path,
    file: &Path,
    dependencies: &BTreeMap<PathBuf, Vec<PathBuf>>,
) -> Test {
    let relative = file.strip_prefix(root).unwrap_or(file).to_string_lossy().into_owned();
    let command = [python(files, root).as_str(), "-m", "pytest", "-p", "no:cacheprovider", "-q", &relative]
        .map(str::to_owned);
    // What stands in the folder that pytest runs in can be imported, if that is above the project.
    let start = if project.starts_with(root) { root } else { project };
    let (mut folders, more) = (closure(start, dependencies), closure(project, dependencies));
    if folders.is_empty() || more.is_empty() {
        folders.clear();
    } else {
        folders.extend(more);
        folders.sort_unstable();
        folders.dedup();
    }
    Test {
        directory: root.to_owned(),
        directories: folders,
        outputs: [".pytest_cache/", "__pycache__/"].map(str::to_owned).to_vec(),
        set: BTreeMap::from([("PYTHONDONTWRITEBYTECODE".to_owned(), "1".to_owned())]),
        harness: Harness::Pytest,
        ..Test::new(format!("py:{}", file.to_string_lossy()), command)
    }
}

/// The program of the nearest virtual environment, seen from the folder, or whatever `python3` means.
fn python(files: &Files<'_>, folder: &Path) -> String {
    let mut up = String::new();
    for above in folder.ancestors() {
        for name in ENVIRONMENTS {
            if files.project.join(above).join(name).join("bin/python").exists() {
                return format!("{up}{name}/bin/python");
            }
        }
        up.push_str("../");
    }
    "python3".to_owned()
}

/// All settings in the project's files, of each folder those that pytest would take.
fn settings(files: &Files<'_>) -> Result<Vec<Settings>, Error> {
    let mut folders: BTreeSet<&Path> =
        SETTINGS.iter().flat_map(|(name, ..)| files.folders_with(name)).collect();
    let with_python = with_python(files);
    folders.retain(|folder| with_python.contains(folder));
    let mut found = Vec::new();
    for folder in folders {
        for (name, section, counts_anyway) in SETTINGS {
            let path = folder.join(name);
            if files.has(&path)
                && let Some(settings) = read(files, folder, &path, section, counts_anyway)?
            {
                found.push(settings);
                break;
            }
        }
    }
    Ok(found)
}

fn read(
    files: &Files<'_>,
    folder: &Path,
    path: &Path,
    section: &str,
    counts_anyway: bool,
) -> Result<Option<Settings>, Error> {
    if path.extension().is_some_and(|extension| extension == "toml") {
        let table = parse_toml(RUNNER, files, path)?;
        let found = section.split('.').try_fold(&table, |table, key| table.get(key)?.as_table());
        // The older place of the same.
        let found = match found.and_then(|it| it.get("ini_options")) {
            Some(older) => older.as_table(),
            None => found,
        };
        if found.is_none() && !counts_anyway {
            return Ok(None);
        }
        let list = |key: &str| found.and_then(|table| table.get(key)).map(words_of);
        let lists = (list("testpaths"), list("python_files"), list("norecursedirs"));
        return Settings::new(files, folder, lists.0, lists.1, lists.2).map(Some);
    }
    let text = files.text(RUNNER, path)?;
    if !counts_anyway && !ini::has_section(&text, section) {
        return Ok(None);
    }
    let list = |key: &str| ini::value(&text, section, key).map(|value| words(&value));
    Settings::new(files, folder, list("testpaths"), list("python_files"), list("norecursedirs")).map(Some)
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
        files: &Files<'_>,
        folder: &Path,
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
            problem.discovering(RUNNER, &files.project.join(folder))
        };
        Ok(Self {
            folder: folder.to_owned(),
            test_paths: test_paths.unwrap_or_default(),
            python_files: patterns(python_files, &PYTHON_FILES).map_err(invalid)?,
            no_recurse: patterns(no_recurse, &NO_RECURSE).map_err(invalid)?,
        })
    }

    fn collects(&self, file: &Path) -> bool {
        let inside = file.strip_prefix(&self.folder).unwrap_or(file);
        self.python_files.iter().any(|pattern| pattern.matches(inside))
            && self.is_asked_for(inside)
            && !self.is_passed_over(inside)
    }

    fn is_asked_for(&self, inside: &Path) -> bool {
        let asks = |path: &String| {
            let path = path.trim_start_matches("./").trim_end_matches('/');
            // A path that is none of a pattern is one of itself.
            let glob =
                GlobBuilder::new(path).literal_separator(true).build().map(|glob| glob.compile_matcher());
            path == "."
                || inside.starts_with(path)
                || glob.is_ok_and(|glob| inside.ancestors().any(|it| glob.is_match(it)))
        };
        self.test_paths.is_empty() || self.test_paths.iter().any(asks)
    }

    /// A folder that is asked for by name is looked into all the same.
    fn is_passed_over(&self, inside: &Path) -> bool {
        let mut folders: Vec<&Path> = inside.ancestors().skip(1).collect();
        folders.retain(|folder| {
            !folder.as_os_str().is_empty()
                && !self.test_paths.iter().any(|path| Path::new(path).starts_with(folder))
        });
        folders.iter().any(|folder| self.no_recurse.iter().any(|pattern| pattern.matches(folder)))
    }
}

impl Pattern {
    fn new(text: &str) -> Result<Self, globset::Error> {
        // `{arch}` is a name, and braces mean nothing to `fnmatch`.
        let escaped = text.replace('{', "[{]").replace('}', "[}]");
        Ok(Self { glob: GlobBuilder::new(&escaped).build()?.compile_matcher(), is_path: text.contains('/') })
    }

    fn matches(&self, path: &Path) -> bool {
        if !self.is_path {
            return path.file_name().is_some_and(|name| self.glob.is_match(name));
        }
        // pytest compares with the end of the absolute path.
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

/// Which folders each Python project may import from, beside its own.
fn dependencies(
    files: &Files<'_>,
    notes: &mut Vec<DiscoveryNote>,
) -> Result<BTreeMap<PathBuf, Vec<PathBuf>>, Error> {
    let mut tables = BTreeMap::new();
    let with_python = with_python(files);
    for folder in files.folders_with("pyproject.toml").filter(|folder| with_python.contains(folder)) {
        tables.insert(folder.to_owned(), parse_toml(RUNNER, files, &folder.join("pyproject.toml"))?);
    }
    let names: BTreeMap<String, &PathBuf> =
        tables.iter().filter_map(|(folder, table)| Some((project_name(table)?, folder))).collect();
    let mut found: BTreeMap<PathBuf, Vec<PathBuf>> = BTreeMap::new();
    let mut add = |manifest: PathBuf, path: String| {
        let folder = manifest.parent().unwrap_or(Path::new(""));
        match within(folder, &path) {
            Some(target) => found.entry(folder.to_owned()).or_default().push(target),
            None => notes.push(DiscoveryNote::OutsideDependency { manifest, directory: path }),
        }
    };
    for (folder, table) in &tables {
        for path in paths_of(table) {
            add(folder.join("pyproject.toml"), path);
        }
    }
    for folder in files.folders_with("requirements.txt") {
        let manifest = folder.join("requirements.txt");
        for path in required(&files.text(RUNNER, &manifest)?) {
            add(manifest.clone(), path);
        }
    }
    for (folder, table) in &tables {
        let members = workspace_sources(table).filter_map(|name| names.get(&name).map(|it| (*it).clone()));
        found.entry(folder.clone()).or_default().extend(members);
    }
    Ok(found)
}

/// A project's name as names are compared (<https://packaging.python.org/en/latest/specifications/name-normalization/>).
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

/// Members of uv's workspace that a project depends on.
fn workspace_sources(table: &Table) -> impl Iterator<Item = String> {
    let is_member = |value: &Value| value.get("workspace").and_then(Value::as_bool) == Some(true);
    uv_sources(table).filter(move |(_, value)| is_member(value)).map(|(name, _)| normal(name))
}

/// Folders that a project depends on, as uv and Poetry write them.
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
    // A wheel is a file, and names no folder of sources.
    paths.retain(|path| !path.ends_with(".whl") && !path.ends_with(".tar.gz"));
    paths
}

/// Folders in a list of requirements (<https://pip.pypa.io/en/stable/reference/requirements-file-format/>).
fn required(text: &str) -> Vec<String> {
    let folder = |line: &str| {
        let line = line.split(" #").next().unwrap_or_default().trim();
        let editable = ["-e", "--editable"].iter().find_map(|flag| line.strip_prefix(flag));
        let target = editable.unwrap_or(line).trim_start_matches('=').trim();
        let target = target.split(['[', ';']).next().unwrap_or_default().trim();
        let is_folder = target.starts_with('.') && !target.ends_with(".whl") && !target.ends_with(".tar.gz");
        is_folder.then(|| target.to_owned())
    };
    text.lines().filter_map(folder).collect()
}
