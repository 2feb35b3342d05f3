//! Names that a project and a feature could provide: modules, packages, and those in the prompt.

use std::collections::BTreeSet;

use greenwave_testing::parse_toml_manifest;
use serde_json::Value;

use crate::test_files::is_test_file;

/// Names that decide whether something missing could come from the project's own sources.
#[derive(Debug, Clone, Default)]
pub(crate) struct ProjectNames {
    /// Absolute path of the directory in which the tests run.
    root: String,
    paths: BTreeSet<String>,
    /// Directories and file names without extension, normalised.
    modules: BTreeSet<String>,
    /// Names of the project's packages, normalised.
    own: BTreeSet<String>,
    /// Names of declared dependencies, normalised.
    declared: BTreeSet<String>,
    /// The text that describes the feature: id, title and prompt.
    text: String,
}

/// Manifests that declare dependencies and name packages.
const MANIFESTS: [&str; 7] =
    ["pyproject.toml", "setup.cfg", "setup.py", "package.json", "Cargo.toml", "go.mod", "Gemfile"];

/// Returns whether a file declares dependencies or names packages.
pub(crate) fn is_manifest(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    MANIFESTS.contains(&name) || (name.starts_with("requirements") && name.ends_with(".txt"))
}

impl ProjectNames {
    /// Collects the names of a project with these files, for a feature described by `text`.
    pub(crate) fn new<'p>(root: &str, paths: impl Iterator<Item = &'p str>, text: &str) -> Self {
        let mut names = Self { root: root.to_owned(), text: text.to_owned(), ..Self::default() };
        for path in paths {
            let (directories, name) = path.rsplit_once('/').unwrap_or(("", path));
            names.modules.extend(directories.split('/').filter(|it| !it.is_empty()).map(normalised));
            names.modules.insert(normalised(name.split('.').next().unwrap_or(name)));
            names.paths.insert(path.to_owned());
        }
        names
    }

    /// Adds the packages and dependencies of a manifest. Unreadable manifests add nothing.
    pub(crate) fn add_manifest(&mut self, path: &str, text: &str) {
        let name = path.rsplit('/').next().unwrap_or(path);
        match name {
            "package.json" => self.add_package_json(text),
            "Cargo.toml" | "pyproject.toml" => self.add_toml(text),
            "go.mod" => self.add_go_mod(text),
            _ => self.declared.extend(requirement_lines(text).map(|name| normalised(&name))),
        }
    }

    /// Returns a path relative to the project, if it lies inside.
    pub(crate) fn relative(&self, path: &str) -> String {
        let path = path.strip_prefix("file://").unwrap_or(path);
        let inside = path.strip_prefix(&self.root).filter(|_| !self.root.is_empty());
        let inside = inside.and_then(|rest| rest.strip_prefix('/')).unwrap_or(path);
        let mut parts: Vec<&str> = Vec::new();
        for part in inside.split('/') {
            match part {
                "." => {}
                ".." if parts.last().is_some_and(|last| *last != "..") => drop(parts.pop()),
                part => parts.push(part),
            }
        }
        parts.join("/")
    }

    /// Returns whether a path lies in the project.
    pub(crate) fn is_inside(&self, path: &str) -> bool {
        let path = path.strip_prefix("file://").unwrap_or(path);
        !path.starts_with('/') || (!self.root.is_empty() && path.starts_with(&self.root))
    }

    /// Returns whether the project has a source file, not a test, at this path.
    pub(crate) fn has_source(&self, path: &str) -> bool {
        let path = self.relative(path);
        self.paths.contains(&path) && !is_test_file(&path)
    }

    /// Returns whether the project has a directory, module or package of this name.
    pub(crate) fn has_module(&self, name: &str) -> bool {
        let name = normalised(name);
        self.modules.contains(&name) || self.own.contains(&name)
    }

    /// Returns whether one of the project's packages has this name.
    pub(crate) fn has_package(&self, name: &str) -> bool {
        self.own.contains(&normalised(name))
    }

    /// Returns whether a package path lies in one of the project's packages (`example.com/m/add`).
    pub(crate) fn contains_package(&self, path: &str) -> bool {
        let path = normalised(path);
        self.own
            .iter()
            .any(|own| path == *own || path.strip_prefix(own).is_some_and(|it| it.starts_with('/')))
    }

    /// Returns whether one of the project's packages has this scope (`@scope`).
    pub(crate) fn has_scope(&self, scope: &str) -> bool {
        let scope = format!("{}/", normalised(scope));
        self.own.iter().any(|own| own.starts_with(&scope))
    }

    /// Returns whether a manifest declares a dependency of this name.
    pub(crate) fn declares(&self, name: &str) -> bool {
        self.declared.contains(&normalised(name))
    }

    /// Returns whether the feature's text has this word.
    pub(crate) fn mentions(&self, word: &str) -> bool {
        let is_part = |character: char| character.is_alphanumeric() || character == '_';
        self.text.match_indices(word).any(|(at, _)| {
            let before = self.text[..at].chars().next_back();
            let after = self.text[at + word.len()..].chars().next();
            !before.is_some_and(is_part) && !after.is_some_and(is_part)
        })
    }

    /// Returns whether the feature's text names this path, or its last part.
    pub(crate) fn mentions_path(&self, path: &str) -> bool {
        let path = path.trim_start_matches("./");
        let name = path.rsplit('/').next().unwrap_or(path);
        self.mentions(path) || (name.contains('.') && self.mentions(name))
    }

    /// Returns whether the feature's text names a file or directory of a module.
    pub(crate) fn mentions_module_path(&self, name: &str) -> bool {
        let forms = [
            format!("{name}.py"),
            format!("{name}/"),
            format!("/{name}"),
            format!("{name}.js"),
            format!("{name}.ts"),
        ];
        forms.iter().any(|form| self.mentions(form))
    }

    fn add_package_json(&mut self, text: &str) {
        let Ok(value) = serde_json::from_str::<Value>(text) else { return };
        self.own.extend(value["name"].as_str().map(normalised));
        for key in ["dependencies", "devDependencies", "peerDependencies", "optionalDependencies"] {
            let names = value[key].as_object().into_iter().flat_map(|table| table.keys());
            self.declared.extend(names.map(|name| normalised(name)));
        }
    }

    fn add_toml(&mut self, text: &str) {
        let Some(table) = parse_toml_manifest(text) else { return };
        for pointer in ["/package/name", "/project/name", "/tool/poetry/name"] {
            self.own.extend(table.pointer(pointer).and_then(Value::as_str).map(normalised));
        }
        let tables = [
            "/dependencies",
            "/dev-dependencies",
            "/build-dependencies",
            "/workspace/dependencies",
            "/tool/poetry/dependencies",
            "/tool/poetry/dev-dependencies",
        ];
        for pointer in tables {
            let names =
                table.pointer(pointer).and_then(Value::as_object).into_iter().flat_map(|it| it.keys());
            self.declared.extend(names.map(|name| normalised(name)));
        }
        let groups = ["/project/optional-dependencies", "/dependency-groups"];
        let groups = groups.iter().filter_map(|pointer| table.pointer(pointer)?.as_object());
        let lists =
            table.pointer("/project/dependencies").into_iter().chain(groups.flat_map(|it| it.values()));
        for list in lists.filter_map(Value::as_array) {
            let names = list.iter().filter_map(Value::as_str).flat_map(requirement_lines);
            self.declared.extend(names.map(|name| normalised(&name)));
        }
    }

    fn add_go_mod(&mut self, text: &str) {
        for line in text.lines().map(str::trim) {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("module") => self.own.extend(words.next().map(normalised)),
                Some("require") => self.declared.extend(words.next().filter(|it| *it != "(").map(normalised)),
                Some(path) if path.contains('.') => drop(self.declared.insert(normalised(path))),
                _ => {}
            }
        }
    }
}

/// Returns the names of packages at the start of lines, such as in `requirements.txt`.
fn requirement_lines(text: &str) -> impl Iterator<Item = String> {
    let is_name = |character: &char| character.is_ascii_alphanumeric() || "-_.".contains(*character);
    text.lines().filter_map(move |line| {
        let line = line.trim().trim_start_matches(['"', '\'']);
        let line = line.strip_prefix("gem ").map_or(line, |rest| rest.trim_start_matches(['"', '\'']));
        let name: String = line.chars().take_while(is_name).collect();
        name.starts_with(|first: char| first.is_ascii_alphanumeric()).then_some(name)
    })
}

/// Returns a name as it is compared: lower case, with underscores.
fn normalised(name: &str) -> String {
    name.to_ascii_lowercase().replace('-', "_")
}
