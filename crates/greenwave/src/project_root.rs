//! Finds the directory that a working copy has to hold: the project, or the repository or workspace
//! that it is a part of.

use std::path::{Path, PathBuf};

use greenwave_dir::read_regular_text;
use greenwave_testing::Test;

use crate::error::{Error, chain};
use crate::git::UserRepository;
use crate::repository_marker::nearest_marker;
use crate::trusted_owner::is_trusted_above;

/// Maximum size of a manifest, in bytes.
const MANIFEST_BYTES_MAX: u64 = 64 << 20;

/// The directory that copies are made of, and the place of the project in it.
#[derive(Debug, Clone)]
pub(crate) struct ProjectRoot {
    /// The directory, canonical.
    pub(crate) path: PathBuf,
    /// Path of the project relative to the directory; empty if they are the same.
    pub(crate) project: String,
    /// The git repository of the directory.
    pub(crate) repository: Option<UserRepository>,
    /// Why copies are plain directories although there is a repository.
    pub(crate) note: Option<String>,
}

/// A manifest that makes a directory the root of several packages.
struct WorkspaceManifest {
    /// File at the root.
    file: &'static str,
    /// Text in the file that declares a workspace.
    text: &'static str,
    /// File that a package in it has.
    of_package: &'static str,
}

const WORKSPACES: [WorkspaceManifest; 5] = [
    WorkspaceManifest { file: "Cargo.toml", text: "[workspace", of_package: "Cargo.toml" },
    WorkspaceManifest { file: "package.json", text: "\"workspaces\"", of_package: "package.json" },
    WorkspaceManifest { file: "pnpm-workspace.yaml", text: "packages", of_package: "package.json" },
    WorkspaceManifest { file: "pyproject.toml", text: "[tool.uv.workspace]", of_package: "pyproject.toml" },
    WorkspaceManifest { file: "go.work", text: "use", of_package: "go.mod" },
];

impl ProjectRoot {
    /// Finds the root of a project.
    ///
    /// # Errors
    /// [`Error::Io`] if the project's path cannot be resolved.
    pub(crate) fn of(project: &Path) -> Result<Self, Error> {
        let project = project.canonicalize().map_err(Error::io("find", project))?;
        let (repository, note) = match UserRepository::of(&project) {
            Ok(repository) => (repository, None),
            Err(error) => {
                (None, Some(format!("copies are plain directories without git: {}", chain(&error))))
            }
        };
        let marked = || note.as_ref().and_then(|_| nearest_marker(&project));
        let top = repository.as_ref().map(|it| it.top.clone()).or_else(marked);
        let path = top.or_else(|| workspace_root(&project)).unwrap_or_else(|| project.clone());
        // A path that is not UTF-8 cannot be part of a tree.
        let inner = project.strip_prefix(&path).ok().and_then(Path::to_str).map(str::to_owned);
        Ok(match inner {
            Some(inner) => Self { path, project: inner, repository, note },
            None => Self { path: project, project: String::new(), repository: None, note },
        })
    }

    /// Returns a path relative to the root, for one that is relative to the project.
    pub(crate) fn within(&self, path: &str) -> String {
        match (self.project.is_empty(), path.is_empty()) {
            (true, _) => path.to_owned(),
            (false, true) => self.project.clone(),
            (false, false) => format!("{}/{path}", self.project),
        }
    }

    /// Makes a test of the project relative to the root.
    pub(crate) fn place(&self, test: &mut Test) {
        if self.project.is_empty() {
            return;
        }
        test.directory = Path::new(&self.project).join(&test.directory);
        for pattern in test.inputs.iter_mut().chain(&mut test.outputs) {
            *pattern = self.pattern_within(pattern);
        }
        for directory in &mut test.directories {
            *directory = Path::new(&self.project).join(&*directory);
        }
    }

    /// Returns a pattern of files relative to the root, for one that is relative to the project.
    ///
    /// As in `.gitignore`, a pattern without a slash before its end matches at any depth.
    pub(crate) fn pattern_within(&self, pattern: &str) -> String {
        if self.project.is_empty() {
            return pattern.to_owned();
        }
        let (not, pattern) = pattern.strip_prefix('!').map_or(("", pattern), |rest| ("!", rest));
        let depth = if pattern.trim_end_matches('/').contains('/') { "" } else { "**/" };
        format!("{not}/{}/{depth}{}", escaped(&self.project), pattern.trim_start_matches('/'))
    }
}

/// Escapes the characters of a path that have a meaning in patterns.
fn escaped(path: &str) -> String {
    let mut text = String::new();
    for character in path.chars() {
        if "*?[]\\!# ".contains(character) {
            text.push('\\');
        }
        text.push(character);
    }
    text
}

/// Returns the nearest directory above a package whose manifest declares a workspace.
fn workspace_root(project: &Path) -> Option<PathBuf> {
    let declares = |above: &Path, manifest: &WorkspaceManifest| {
        project.join(manifest.of_package).is_file()
            && is_trusted_above(&above.join(manifest.file), project)
            && read_regular_text(above.join(manifest.file), MANIFEST_BYTES_MAX)
                .is_ok_and(|text| text.contains(manifest.text))
    };
    let is_own = WORKSPACES.iter().any(|manifest| declares(project, manifest));
    let mut above = project.ancestors().skip(1);
    let root = above.find(|above| WORKSPACES.iter().any(|manifest| declares(above, manifest)));
    root.filter(|_| !is_own).map(Path::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root(project: &str) -> ProjectRoot {
        ProjectRoot { path: "/r".into(), project: project.to_owned(), repository: None, note: None }
    }

    #[test]
    fn patterns_of_a_project_match_below_it_only() {
        let root = root("crates/a");
        assert_eq!(root.pattern_within("src/**"), "/crates/a/src/**");
        assert_eq!(root.pattern_within("/src/**"), "/crates/a/src/**");
        assert_eq!(root.pattern_within("*.rs"), "/crates/a/**/*.rs");
        assert_eq!(root.pattern_within("tests/"), "/crates/a/**/tests/");
        assert_eq!(root.pattern_within("!/x"), "!/crates/a/x");
        assert_eq!(root.within("src/f"), "crates/a/src/f");
        assert_eq!(self::root("").pattern_within("*.rs"), "*.rs");
    }

    #[test]
    fn the_root_of_a_package_is_its_workspace() {
        let directory = tempfile::tempdir().unwrap();
        let top = directory.path().canonicalize().unwrap();
        let package = top.join("crates/a");
        std::fs::create_dir_all(&package).unwrap();
        std::fs::write(top.join("Cargo.toml"), "[workspace]\nmembers = [\"crates/*\"]\n").unwrap();
        let of = || ProjectRoot::of(&package).unwrap();
        assert_eq!((of().path, of().project.as_str()), (package.clone(), ""), "it is no package");
        std::fs::write(package.join("Cargo.toml"), "[package]\n").unwrap();
        assert_eq!((of().path, of().project.as_str()), (top.clone(), "crates/a"));
        std::fs::write(package.join("Cargo.toml"), "[package]\n[workspace]\n").unwrap();
        assert_eq!(of().path, package, "it is a workspace itself");
    }
}
