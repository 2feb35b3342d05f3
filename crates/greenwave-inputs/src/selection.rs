//! Which of a project's files a test's patterns and directories mean. Knows nothing of the files themselves.

use std::path::{Component, Path, PathBuf};

use ignore::gitignore::{Gitignore, GitignoreBuilder};
use ignore::overrides::OverrideBuilder;

use crate::Error;
use crate::codec::path_bytes;

/// The files that a test may read, and those that it writes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct InputSpec {
    pub inputs: Vec<String>,
    pub directories: Vec<PathBuf>,
    pub outputs: Vec<String>,
}

/// A [`InputSpec`] made ready to be asked.
#[derive(Debug, Clone)]
pub struct Selection {
    everything: bool,
    directories: Vec<PathBuf>,
    inputs: Patterns,
    outputs: Patterns,
}

impl Selection {
    /// All files that are not ignored.
    pub fn everything() -> Self {
        Self {
            everything: true,
            directories: vec![],
            inputs: Patterns::default(),
            outputs: Patterns::default(),
        }
    }

    pub fn of(spec: &InputSpec) -> Result<Self, Error> {
        Ok(Self {
            // Patterns that only exclude leave all the others.
            everything: spec.inputs.iter().all(|pattern| pattern.starts_with('!'))
                && spec.directories.is_empty(),
            directories: sorted(spec.directories.iter().map(|folder| normal(folder)).collect()),
            inputs: Patterns::new(&spec.inputs)?,
            outputs: Patterns::new(&spec.outputs)?,
        })
    }

    /// What one pattern matches.
    pub fn of_pattern(pattern: &str) -> Result<Self, Error> {
        let inputs = Patterns::new(&[pattern.to_owned()])?;
        Ok(Self { everything: false, directories: vec![], inputs, outputs: Patterns::default() })
    }

    /// Whether the file at this relative path is one of them.
    pub fn includes(&self, path: &Path, is_ignored: bool) -> bool {
        let plain = !is_ignored && (self.everything || is_below(path, &self.directories));
        self.inputs.verdict(path).unwrap_or(plain) && !self.outputs.has(path)
    }

    /// Whether files below a path that could not be looked at may be some of them.
    pub fn may_have(&self, path: &Path) -> bool {
        let is_below = self.roots().into_iter().any(|root| path.starts_with(root));
        is_below && self.inputs.verdict(path) != Some(false) && !self.outputs.has(path)
    }

    /// Whether the test writes it.
    pub fn is_output(&self, path: &Path) -> bool {
        self.outputs.has(path)
    }

    /// Folders and files below which everything lies that the test writes.
    pub fn output_roots(&self) -> impl Iterator<Item = &Path> {
        self.outputs.roots().filter(|root| !root.as_os_str().is_empty())
    }

    /// Folders and files below which all of them lie. An empty path is the whole project.
    pub fn roots(&self) -> Vec<&Path> {
        match self.everything {
            true => vec![Path::new("")],
            false => self.directories.iter().map(PathBuf::as_path).chain(self.inputs.roots()).collect(),
        }
    }

    /// The same for those that count even if they are ignored.
    pub fn pattern_roots(&self) -> impl Iterator<Item = &Path> {
        self.inputs.roots()
    }
}

/// A relative path without its dots.
fn normal(path: &Path) -> PathBuf {
    path.components().filter(|part| *part != Component::CurDir).collect()
}

/// Patterns in the syntax of `.gitignore`, where the last that matches decides.
#[derive(Debug, Clone, Default)]
struct Patterns {
    /// What all of them mean if they are of the plain kinds, `a/b` and `a/b/**`: everything at or below these.
    plain: Vec<PathBuf>,
    /// Otherwise, what the library makes of them.
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
        let positive = patterns.iter().filter(|pattern| !pattern.starts_with('!'));
        Ok(Self { plain: vec![], globs: Some(globs), roots: positive.map(|pattern| root(pattern)).collect() })
    }

    /// Whether they include the path, or exclude it, or say nothing of it.
    fn verdict(&self, path: &Path) -> Option<bool> {
        let Some(globs) = &self.globs else {
            return self.plain.iter().any(|plain| path.starts_with(plain)).then_some(true);
        };
        let path = Path::new("/").join(path);
        // What a pattern says of a folder holds for what is in it, unless another says otherwise of that.
        let verdict = |(depth, path): (usize, &Path)| match globs.matched(path, depth > 0) {
            ignore::Match::Ignore(_) => Some(true),
            ignore::Match::Whitelist(_) => Some(false),
            ignore::Match::None => None,
        };
        path.ancestors().enumerate().find_map(verdict)
    }

    fn has(&self, path: &Path) -> bool {
        self.verdict(path) == Some(true)
    }

    fn roots(&self) -> impl Iterator<Item = &Path> {
        self.roots.iter().map(PathBuf::as_path)
    }
}

/// Characters that make a pattern more than a path.
const SPECIAL: &[char] = &['*', '?', '[', ']', '{', '}', '\\', '!', '#'];

/// The path that a pattern means, if it means no more than that and what is below it. Without a slash inside, a pattern means any folder's.
fn plain(pattern: &str) -> Option<PathBuf> {
    let path = pattern.strip_suffix("/**").unwrap_or(pattern);
    let inside = path.strip_prefix('/').unwrap_or(path);
    let is_anchored = path.starts_with('/') || inside.contains('/') || path.len() < pattern.len();
    let is_path = !inside.is_empty() && !inside.ends_with('/') && !inside.contains(SPECIAL);
    (is_anchored && is_path && inside.trim() == inside).then(|| PathBuf::from(inside))
}

/// The longest path that everything a pattern can match is at or below.
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

/// Whether a text can be a pattern of a test's inputs; what is wrong with it otherwise.
///
/// # Errors
/// The mistake in a few words.
pub fn check_pattern(pattern: &str) -> Result<(), String> {
    let path = pattern.trim().trim_start_matches('!');
    if path.trim_matches('/').is_empty() {
        return Err("it means no file; `**` means every file of the project".to_owned());
    }
    if path.split('/').any(|part| part == "..") {
        return Err(
            "a path inside the project is wanted, without `..`: what lies outside cannot be declared"
                .to_owned(),
        );
    }
    if plain(pattern).is_some() {
        return Ok(());
    }
    let mut patterns = OverrideBuilder::new(".");
    match patterns.add(pattern).and_then(|patterns| patterns.build()) {
        Ok(_) => Ok(()),
        Err(ignore::Error::Glob { err, .. }) => Err(err),
        Err(other) => Err(other.to_string()),
    }
}

/// By their bytes.
fn sorted(mut paths: Vec<PathBuf>) -> Vec<PathBuf> {
    paths.sort_unstable_by(|one, other| path_bytes(one).cmp(path_bytes(other)));
    paths
}

/// Whether a path is at or below one of these, which are sorted by their bytes.
fn is_below(path: &Path, roots: &[PathBuf]) -> bool {
    let is_root = |path: &Path| roots.binary_search_by(|root| path_bytes(root).cmp(path_bytes(path))).is_ok();
    !roots.is_empty() && path.ancestors().any(is_root)
}

/// Whether a path is at, above or below one of these, which are sorted by their bytes.
pub(crate) fn is_on_the_way(path: &Path, roots: &[PathBuf]) -> bool {
    let below = [path_bytes(path), b"/"].concat();
    let next = roots.partition_point(|root| path_bytes(root) < below.as_slice());
    is_below(path, roots) || roots.get(next).is_some_and(|root| path_bytes(root).starts_with(&below))
}
