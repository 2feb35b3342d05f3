//! Decides which files of a project the patterns and directories of a specification select.

use std::path::{Component, Path, PathBuf};

use ignore::gitignore::{Gitignore, GitignoreBuilder};
use ignore::overrides::OverrideBuilder;

use crate::Error;
use crate::codec::path_bytes;

/// A specification of the files of a project that a test reads and writes.
///
/// Patterns have the syntax of `.gitignore` and are relative to the project. The last pattern that
/// matches a file decides; a pattern that begins with `!` excludes. If there are no directories,
/// and no patterns except excluding ones, all files that are not ignored are selected.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct InputSpec {
    /// Patterns of input files. They match ignored files too.
    pub inputs: Vec<String>,
    /// Directories whose files are inputs unless they are ignored, relative to the project.
    pub directories: Vec<PathBuf>,
    /// Patterns of files that the test writes. They are never inputs.
    pub outputs: Vec<String>,
}

/// A compiled [`InputSpec`].
#[derive(Debug, Clone)]
pub struct Selection {
    everything: bool,
    directories: Vec<PathBuf>,
    inputs: Patterns,
    outputs: Patterns,
    output_patterns: Vec<String>,
}

impl Selection {
    /// Selects all files that are not ignored.
    pub fn everything() -> Self {
        Self {
            everything: true,
            directories: vec![],
            inputs: Patterns::default(),
            outputs: Patterns::default(),
            output_patterns: vec![],
        }
    }

    /// Compiles a specification.
    ///
    /// # Errors
    /// [`Error::InvalidPattern`].
    pub fn of(spec: &InputSpec) -> Result<Self, Error> {
        let has_only_exclusions = spec.inputs.iter().all(|pattern| pattern.starts_with('!'));
        let mut directories: Vec<PathBuf> =
            spec.directories.iter().map(|directory| without_dots(directory)).collect();
        directories.sort_unstable_by(|one, other| path_bytes(one).cmp(path_bytes(other)));
        Ok(Self {
            everything: has_only_exclusions && spec.directories.is_empty(),
            directories,
            inputs: Patterns::new(&spec.inputs)?,
            outputs: Patterns::new(&spec.outputs.iter().map(|it| with_directory(it)).collect::<Vec<_>>())?,
            output_patterns: spec.outputs.clone(),
        })
    }

    /// Compiles a single pattern.
    pub(crate) fn of_pattern(pattern: &str) -> Result<Self, Error> {
        let inputs = Patterns::new(&[pattern.to_owned()])?;
        let outputs = Patterns::default();
        Ok(Self { everything: false, directories: vec![], inputs, outputs, output_patterns: vec![] })
    }

    /// Returns whether the file at a path relative to the project is selected. `is_ignored` says
    /// whether an ignore file excludes it.
    pub fn includes(&self, path: &Path, is_ignored: bool) -> bool {
        let by_default = !is_ignored && (self.everything || is_below(path, &self.directories));
        self.inputs.decide(path).unwrap_or(by_default) && !self.outputs.match_path(path)
    }

    /// Returns whether files at or below a path that could not be examined may be selected.
    pub(crate) fn may_include(&self, path: &Path) -> bool {
        let is_below = self.roots().into_iter().any(|root| path.starts_with(root));
        is_below && self.inputs.decide(path) != Some(false) && !self.outputs.match_path(path)
    }

    /// Returns whether a path matches the patterns of outputs. A pattern for a directory, `out/`,
    /// matches the path `out`, too, which may not exist yet.
    pub fn is_output(&self, path: &Path) -> bool {
        self.outputs.decide_as(path, true) == Some(true)
    }

    /// Returns the patterns of outputs.
    pub(crate) fn output_patterns(&self) -> &[String] {
        &self.output_patterns
    }

    /// Returns files and directories that together contain all outputs, except patterns that match
    /// anywhere in the project.
    pub fn output_roots(&self) -> impl Iterator<Item = &Path> {
        self.outputs.roots().filter(|root| !root.as_os_str().is_empty())
    }

    /// Returns files and directories that together contain all selected files. An empty path means
    /// the project itself.
    pub(crate) fn roots(&self) -> Vec<&Path> {
        if self.everything {
            vec![Path::new("")]
        } else {
            self.directories.iter().map(PathBuf::as_path).chain(self.inputs.roots()).collect()
        }
    }

    /// Returns files and directories that together contain all files that are selected even if they
    /// are ignored.
    pub(crate) fn pattern_roots(&self) -> impl Iterator<Item = &Path> {
        self.inputs.roots()
    }
}

/// Checks the syntax of a pattern of an [`InputSpec`].
///
/// # Errors
/// The mistake, as a lower-case fragment.
pub fn check_pattern(pattern: &str) -> Result<(), String> {
    let path = pattern.trim().trim_start_matches('!');
    if path.trim_matches('/').is_empty() {
        return Err("it matches no file; use `**` for every file of the project".to_owned());
    }
    if path.split('/').any(|part| part == "..") {
        return Err("expected a path inside the project, without `..`".to_owned());
    }
    // Compiling a pattern takes longer than reading the rest of a test from a plan.
    if plain(pattern).is_some() || !pattern.contains(SPECIAL) {
        return Ok(());
    }
    let mut patterns = OverrideBuilder::new(".");
    match patterns.add(pattern).and_then(|patterns| patterns.build()) {
        Ok(_) => Ok(()),
        Err(ignore::Error::Glob { err, .. }) => Err(err),
        Err(other) => Err(other.to_string()),
    }
}

/// Returns whether a path is at, above or below one of `roots`, which are sorted by their bytes:
/// whether a walk that searches below the roots must visit it.
pub(crate) fn is_on_the_way(path: &Path, roots: &[PathBuf]) -> bool {
    let below = [path_bytes(path), b"/"].concat();
    let next = roots.partition_point(|root| path_bytes(root) < below.as_slice());
    is_below(path, roots) || roots.get(next).is_some_and(|root| path_bytes(root).starts_with(&below))
}

/// Returns whether a path is at or below one of `roots`, which are sorted by their bytes.
fn is_below(path: &Path, roots: &[PathBuf]) -> bool {
    let is_root = |path: &Path| roots.binary_search_by(|root| path_bytes(root).cmp(path_bytes(path))).is_ok();
    !roots.is_empty() && path.ancestors().any(is_root)
}

fn without_dots(path: &Path) -> PathBuf {
    path.components().filter(|part| *part != Component::CurDir).collect()
}

/// Compiled patterns in the syntax of `.gitignore`.
#[derive(Debug, Clone, Default)]
struct Patterns {
    /// The paths that the patterns match with everything below, if all have the form `a/b` or
    /// `a/b/**`. Comparing paths is much cheaper than matching globs.
    plain: Vec<PathBuf>,
    /// The compiled globs, if a pattern has another form.
    globs: Option<Gitignore>,
    roots: Vec<PathBuf>,
}

impl Patterns {
    fn new(patterns: &[String]) -> Result<Self, Error> {
        let plain: Option<Vec<PathBuf>> = patterns.iter().map(|pattern| plain(pattern)).collect();
        if let Some(plain) = plain {
            return Ok(Self { roots: plain.clone(), plain, globs: None });
        }
        let mut globs = GitignoreBuilder::new("/");
        globs.allow_unclosed_class(false);
        let invalid = |pattern: &str| {
            let pattern = pattern.to_owned();
            move |source: ignore::Error| Error::InvalidPattern { test: None, pattern, source: source.into() }
        };
        for pattern in patterns {
            globs.add_line(None, pattern).map_err(invalid(pattern))?;
        }
        let globs = globs.build().map_err(invalid(""))?;
        let including = patterns.iter().filter(|pattern| !pattern.starts_with('!'));
        Ok(Self {
            plain: vec![],
            globs: Some(globs),
            roots: including.map(|pattern| root(pattern)).collect(),
        })
    }

    /// Returns whether the patterns include or exclude a path. Returns `None` if no pattern
    /// matches.
    fn decide(&self, path: &Path) -> Option<bool> {
        self.decide_as(path, false)
    }

    /// Like [`decide`](Self::decide), for the path of a directory if `is_directory`.
    fn decide_as(&self, path: &Path, is_directory: bool) -> Option<bool> {
        let Some(globs) = &self.globs else {
            return self.plain.iter().any(|plain| path.starts_with(plain)).then_some(true);
        };
        let path = Path::new("/").join(path);
        // A pattern that matches a directory applies to the files in it, unless another one matches
        // them.
        let decision = |(depth, path): (usize, &Path)| match globs.matched(path, is_directory || depth > 0) {
            ignore::Match::Ignore(_) => Some(true),
            ignore::Match::Whitelist(_) => Some(false),
            ignore::Match::None => None,
        };
        path.ancestors().enumerate().find_map(decision)
    }

    fn match_path(&self, path: &Path) -> bool {
        self.decide(path) == Some(true)
    }

    /// Returns files and directories that together contain all paths that the patterns include.
    fn roots(&self) -> impl Iterator<Item = &Path> {
        self.roots.iter().map(PathBuf::as_path)
    }
}

/// The characters with a special meaning in patterns.
const SPECIAL: &[char] = &['*', '?', '[', ']', '{', '}', '\\', '!', '#'];

/// Returns the path that a pattern matches, if it matches exactly that path and everything below
/// it. A pattern without an inner slash matches in every directory and is therefore not plain.
fn plain(pattern: &str) -> Option<PathBuf> {
    let path = pattern.strip_suffix("/**").unwrap_or(pattern);
    let inside = path.strip_prefix('/').unwrap_or(path);
    let is_anchored = path.starts_with('/') || inside.contains('/') || path.len() < pattern.len();
    let is_path = !inside.is_empty() && !inside.ends_with('/') && !inside.contains(SPECIAL);
    (is_anchored && is_path && inside.trim() == inside).then(|| PathBuf::from(inside))
}

/// Returns the pattern of an output without a final `/**`, so that it matches the directory, too.
fn with_directory(pattern: &str) -> String {
    match pattern.strip_suffix("/**") {
        Some(directory) if directory.is_empty() || directory.starts_with('!') => pattern.to_owned(),
        Some(directory) if directory.contains('/') => directory.to_owned(),
        // Without a slash, the pattern would match in every directory.
        Some(directory) => format!("/{directory}"),
        None => pattern.to_owned(),
    }
}

/// Returns the longest path that contains everything that a pattern can match.
fn root(pattern: &str) -> PathBuf {
    let inside = pattern.strip_prefix('/').unwrap_or(pattern);
    let end = inside.find(SPECIAL).unwrap_or(inside.len());
    let is_anchored =
        pattern.starts_with('/') || inside[..inside.len() - usize::from(inside.ends_with('/'))].contains('/');
    match inside[..end].rfind('/') {
        _ if !is_anchored => PathBuf::new(),
        _ if end == inside.len() => PathBuf::from(inside.trim_end_matches('/')),
        Some(slash) => PathBuf::from(&inside[..slash]),
        None => PathBuf::new(),
    }
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::{is_on_the_way, plain, root};

    #[test]
    fn roots_contain_everything_that_a_pattern_matches() {
        for (pattern, expected_root, is_plain) in [
            ("a/b", "a/b", true),
            ("/a", "a", true),
            ("a/b/**", "a/b", true),
            ("a", "", false),
            ("a/", "", false),
            ("/a/", "a", false),
            ("a/b/*.txt", "a/b", false),
            ("a/b*/c", "a", false),
            ("*.txt", "", false),
            ("**/a/b", "", false),
        ] {
            assert_eq!(root(pattern), PathBuf::from(expected_root), "{pattern}");
            assert_eq!(plain(pattern), is_plain.then(|| PathBuf::from(expected_root)), "{pattern}");
        }
    }

    #[test]
    fn walks_visit_paths_at_above_and_below_the_roots() {
        // By bytes, `a-b` is between `a` and `a/b`.
        let roots = ["a-b", "a/b", "c"].map(PathBuf::from);
        for (path, expected) in [
            ("a", true),
            ("a/b", true),
            ("a/b/c", true),
            ("a-b/c", true),
            ("a/c", false),
            ("a-", false),
            ("c/d", true),
            ("d", false),
        ] {
            assert_eq!(is_on_the_way(Path::new(path), &roots), expected, "{path}");
        }
        assert!(!is_on_the_way(Path::new("a"), &[]));
    }
}
