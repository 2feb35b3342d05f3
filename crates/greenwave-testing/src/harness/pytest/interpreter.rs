//! Finds the interpreter whose pytest the user runs.

use std::path::{Path, PathBuf};

use greenwave_dir::{read_regular, read_regular_text};

use crate::harness::discovery::DiscoveryNote;
use crate::harness::project::{MANIFEST_BYTES_MAX, Project};
use crate::run::toolchain::resolve;

/// Names of virtual environments in a project.
const ENVIRONMENTS: [&str; 2] = [".venv", "venv"];
/// Interpreter without a better one.
pub(super) const DEFAULT: &str = "python3";
/// Directory of tox's environments.
const TOX: &str = ".tox";
/// Bytes of a script that are read to find its interpreter.
const SCRIPT_BYTES: usize = 1024;

/// An interpreter, as a word of a command that runs in one directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Interpreter {
    pub(super) word: String,
    /// Origin of the interpreter, unless it is `python3` or inside the project.
    origin: Option<String>,
}

impl Interpreter {
    /// Finds the interpreter for a directory of the project.
    ///
    /// The first of these that has pytest: the active virtual environment (`VIRTUAL_ENV`), the
    /// nearest `.venv` or `venv`, the interpreter of the program `pytest` on the `PATH`, an
    /// environment of tox, `python3`.
    pub(super) fn find(project: &Project, directory: &Path) -> Self {
        Self::active(project, directory)
            .or_else(|| Self::nearest(project, directory))
            .or_else(|| Self::of_program(project))
            .or_else(|| Self::of_tox(project, directory))
            .unwrap_or_else(|| Self::plain(DEFAULT))
    }

    /// Returns a remark that names the interpreter if it is not an expected one, and one that says
    /// how to get the environment that a lock file describes.
    pub(super) fn notes(&self, project: &Project, directory: &Path) -> Vec<DiscoveryNote> {
        let origin = self
            .origin
            .as_ref()
            .map(|origin| DiscoveryNote::Interpreter { program: self.word.clone(), origin: origin.clone() });
        let is_missing = self.word == DEFAULT && !project.has_program("pytest");
        let lock = |name: &str| is_missing && project.has(&directory.join(name));
        let hint = if lock("uv.lock") {
            Some("uv sync")
        } else if lock("poetry.lock") {
            Some("poetry run greenwave test")
        } else {
            None
        };
        let hint = hint.map(|command| DiscoveryNote::NoVirtualEnvironment { command: command.to_owned() });
        origin.into_iter().chain(hint).collect()
    }

    fn plain(word: impl Into<String>) -> Self {
        Self { word: word.into(), origin: None }
    }

    fn active(project: &Project, directory: &Path) -> Option<Self> {
        let environment = PathBuf::from(project.environment().get("VIRTUAL_ENV")?);
        let python = environment.join("bin/python");
        if !environment.is_absolute() || !python.exists() || !has_pytest(&environment) {
            return None;
        }
        let Ok(inside) = python.strip_prefix(project.root()) else {
            let origin = Some("the active virtual environment".to_owned());
            return Some(Self { word: python.to_str()?.to_owned(), origin });
        };
        let up = "../".repeat(directory.components().count());
        Some(Self::plain(format!("{up}{}", inside.to_str()?)))
    }

    fn nearest(project: &Project, directory: &Path) -> Option<Self> {
        let mut up = String::new();
        for above in directory.ancestors() {
            for name in ENVIRONMENTS {
                let environment = project.root().join(above).join(name);
                if environment.join("bin/python").exists() && has_pytest(&environment) {
                    return Some(Self::plain(format!("{up}{name}/bin/python")));
                }
            }
            up.push_str("../");
        }
        None
    }

    /// Returns the interpreter of the program `pytest`, unless `python3` is the same.
    fn of_program(project: &Project) -> Option<Self> {
        let path = project.environment().get("PATH");
        let program = resolve("pytest", project.root(), path)?;
        let word = interpreter_of(&program)?;
        let found = resolve(&word, project.root(), path)?;
        let is_default = resolve(DEFAULT, project.root(), path).is_some_and(|default| default == found);
        let origin = Some(format!("the interpreter of {}", program.display()));
        Some(if is_default {
            Self::plain(DEFAULT)
        } else {
            Self { word: found.to_str()?.to_owned(), origin }
        })
    }

    fn of_tox(project: &Project, directory: &Path) -> Option<Self> {
        let entries = std::fs::read_dir(project.root().join(directory).join(TOX)).ok()?;
        let mut names: Vec<String> =
            entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.sort_unstable();
        let has = |name: &String| {
            let environment = project.root().join(directory).join(TOX).join(name);
            environment.join("bin/python").exists() && environment.join("bin/pytest").exists()
        };
        let name = names.into_iter().rfind(has)?;
        let origin = Some(format!("tox's environment `{name}`"));
        Some(Self { word: format!("{TOX}/{name}/bin/python"), origin })
    }
}

/// Returns whether pytest is installed in a virtual environment. A directory without `pyvenv.cfg`
/// is no environment, and its interpreter may find pytest elsewhere.
fn has_pytest(environment: &Path) -> bool {
    let libraries = || std::fs::read_dir(environment.join("lib")).into_iter().flatten().flatten();
    !environment.join("pyvenv.cfg").exists()
        || environment.join("bin/pytest").exists()
        || libraries().any(|python| python.path().join("site-packages/pytest").exists())
        || includes_system_packages(environment)
}

fn includes_system_packages(environment: &Path) -> bool {
    let text = read_regular_text(environment.join("pyvenv.cfg"), MANIFEST_BYTES_MAX).unwrap_or_default();
    text.lines().any(|line| {
        line.split_once('=').is_some_and(|(key, value)| {
            key.trim() == "include-system-site-packages" && value.trim() == "true"
        })
    })
}

/// Returns the Python interpreter that a script starts with; `None` for a script of another
/// language.
fn interpreter_of(script: &Path) -> Option<String> {
    let bytes = read_regular(script, MANIFEST_BYTES_MAX).ok()?;
    let text = String::from_utf8_lossy(bytes.get(..SCRIPT_BYTES).unwrap_or(&bytes)).into_owned();
    let mut lines = text.lines();
    let first = lines.next()?.strip_prefix("#!")?.trim();
    let mut words = first.split_whitespace();
    let program = words.next()?;
    let word = match Path::new(program).file_name()?.to_str()? {
        "env" => words.find(|word| !word.starts_with('-'))?.to_owned(),
        // Installers write this if the path is too long for the kernel, or has a space.
        "sh" => {
            let rest = lines.next()?.strip_prefix("'''exec' ")?;
            rest.split(" \"$0\"").next()?.trim_matches('"').to_owned()
        }
        _ => program.to_owned(),
    };
    let is_python = Path::new(&word).file_name()?.to_str()?.starts_with("py");
    is_python.then_some(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interpreter_of_a_script_is_in_its_first_lines() {
        let directory = tempfile::tempdir().expect("a temporary directory can be created");
        let script = directory.path().join("pytest");
        let of = |text: &str| {
            std::fs::write(&script, text).expect("the directory is writable");
            interpreter_of(&script)
        };
        assert_eq!(of("#!/usr/bin/python3\n").as_deref(), Some("/usr/bin/python3"));
        assert_eq!(of("#! /usr/bin/env -S python3.12\n").as_deref(), Some("python3.12"));
        let long = "#!/bin/sh\n'''exec' \"/a b/python\" \"$0\" \"$@\"\n' '''\n";
        assert_eq!(of(long).as_deref(), Some("/a b/python"));
        assert_eq!(of("#!/bin/sh\nexec pyenv exec pytest\n"), None);
        assert_eq!(of("#!/usr/bin/env bash\n"), None);
        assert_eq!(of(""), None);
    }
}
