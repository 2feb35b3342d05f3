//! Confines paths that agents name to a directory.

use std::path::{Component, Path, PathBuf};

use greenwave_dir::folded_name;

/// Directories that agents must not write to, because other programs run or trust their content.
const RESERVED: [&str; 4] = [".git", ".hg", ".jj", ".greenwave"];

/// A path that an agent may not write.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid path `{}`: {problem}", path.escape_debug())]
pub struct PathError {
    /// Path as the agent wrote it.
    pub path: String,
    /// The reason.
    pub problem: PathProblem,
}

/// Reason why a path is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PathProblem {
    /// The path is absolute.
    #[error("expected a path relative to the project")]
    Absolute,
    /// The path contains `..`.
    #[error("expected a path without `..`")]
    ParentDirectory,
    /// The path has no file name, or contains control characters.
    #[error("expected a file name without control characters")]
    NoFileName,
    /// The path is in a directory that belongs to version control or to Greenwave.
    #[error("agents may not write to `{0}`")]
    Reserved(String),
    /// A symbolic link on the path leads out of the project.
    #[error("the symbolic link `{0}` leads out of the project")]
    LinkOutside(String),
    /// A directory has that name, or a file exists where the path needs a directory.
    #[error("`{0}` exists with another file type")]
    Obstructed(String),
}

/// Returns the normalised form (`a/b`) of a relative path that stays inside its directory.
///
/// Does not access the file system: [`inside`] checks symbolic links.
///
/// # Errors
/// [`PathError`].
pub(crate) fn plain(path: &str) -> Result<String, PathError> {
    let refuse = |problem| Err(PathError { path: path.to_owned(), problem });
    let mut parts = Vec::new();
    for component in Path::new(path).components() {
        match component {
            Component::CurDir => {}
            Component::Normal(part) => {
                parts.push(part.to_str().expect("a UTF-8 path is split at separators into UTF-8"));
            }
            Component::ParentDir => return refuse(PathProblem::ParentDirectory),
            Component::RootDir | Component::Prefix(_) => return refuse(PathProblem::Absolute),
        }
    }
    if parts.is_empty() || path.ends_with('/') || path.contains(char::is_control) {
        return refuse(PathProblem::NoFileName);
    }
    // On a file system that ignores case, `.GIT` names `.git`.
    if let Some(part) = parts.iter().find(|part| RESERVED.contains(&folded_name(part).as_str())) {
        return refuse(PathProblem::Reserved((*part).to_owned()));
    }
    Ok(parts.join("/"))
}

/// Resolves the symbolic links of a normalised path below a directory.
///
/// Programs in the directory may change it at any time, so the result is no promise: callers
/// write the path below a handle of the directory, which follows no link.
///
/// # Errors
/// [`PathError`] with the path and the link.
pub(crate) fn inside(root: &Path, path: &str) -> Result<String, PathError> {
    let refuse = |problem| Err(PathError { path: path.to_owned(), problem });
    let mut at = root.to_owned();
    let mut parts = Path::new(path).components().peekable();
    while let Some(part) = parts.next() {
        at.push(part);
        let shown = || at.strip_prefix(root).unwrap_or(&at).display().to_string();
        let Ok(metadata) = at.symlink_metadata() else { continue };
        let is_last = parts.peek().is_none();
        if metadata.is_symlink() && !stays_inside(root, &at) {
            return refuse(PathProblem::LinkOutside(shown()));
        }
        let is_directory = at.is_dir();
        if is_last == is_directory || (is_last && metadata.is_symlink()) {
            return refuse(PathProblem::Obstructed(shown()));
        }
    }
    resolved(root, &at).map_or_else(|| refuse(PathProblem::NoFileName), |at| plain(&at))
}

/// Returns the path relative to the root. Resolves symbolic links in the part that exists.
fn resolved(root: &Path, path: &Path) -> Option<String> {
    let existing = path.ancestors().skip(1).find(|parent| parent.exists())?;
    let behind = path.strip_prefix(existing).ok()?;
    let whole: PathBuf = existing.canonicalize().ok()?.join(behind);
    whole.strip_prefix(root.canonicalize().ok()?).ok()?.to_str().map(str::to_owned)
}

fn stays_inside(root: &Path, link: &Path) -> bool {
    let (Ok(target), Ok(path)) = (link.read_link(), link.strip_prefix(root)) else { return false };
    // A workspace is deeper than the project, so a link that climbs out leads elsewhere from there.
    if !stays_inside_by_name(path, &target) {
        return false;
    }
    let (root, target) = (root.canonicalize(), link.canonicalize());
    matches!((root, target), (Ok(root), Ok(target)) if target.starts_with(&root))
}

/// Returns whether the target of a symbolic link, by its name, is in the directory that the path of
/// the link is relative to.
pub(crate) fn stays_inside_by_name(link: &Path, target: &Path) -> bool {
    let mut depth = link.components().count() - 1;
    for part in target.components() {
        match part {
            Component::CurDir => {}
            Component::Normal(_) => depth += 1,
            Component::ParentDir if depth > 0 => depth -= 1,
            _ => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(path: &str) -> PathProblem {
        plain(path).unwrap_err().problem
    }

    #[test]
    fn only_relative_paths_inside_are_accepted() {
        assert_eq!(plain("./src//lib.rs").as_deref(), Ok("src/lib.rs"));
        assert_eq!(plain("ünï/code.rs").as_deref(), Ok("ünï/code.rs"));
        assert_eq!(problem("/etc/passwd"), PathProblem::Absolute);
        assert_eq!(problem("src/../../x"), PathProblem::ParentDirectory);
        assert_eq!(problem("../x"), PathProblem::ParentDirectory);
        assert_eq!(problem(""), PathProblem::NoFileName);
        assert_eq!(problem("."), PathProblem::NoFileName);
        assert_eq!(problem("src/"), PathProblem::NoFileName);
        assert_eq!(problem("a\nb"), PathProblem::NoFileName);
        for name in [".Git", ".g\u{200d}it", ".git ", ".git::$INDEX_ALLOCATION", "GIT~1"] {
            let path = format!("x/{name}/hooks/pre-commit");
            assert_eq!(problem(&path), PathProblem::Reserved(name.to_owned()));
        }
    }

    #[test]
    fn links_that_lead_outside_are_refused() {
        let outside = tempfile::tempdir().unwrap();
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        std::fs::create_dir(root.join("src")).unwrap();
        std::fs::write(root.join("file"), "").unwrap();
        std::os::unix::fs::symlink(outside.path(), root.join("out")).unwrap();
        std::os::unix::fs::symlink("src", root.join("alias")).unwrap();
        std::os::unix::fs::symlink("/nowhere/at/all", root.join("dangling")).unwrap();
        let problem = |path: &str| inside(root, path).unwrap_err().problem;
        assert_eq!(inside(root, "src/new/lib.rs").as_deref(), Ok("src/new/lib.rs"));
        assert_eq!(inside(root, "alias/lib.rs").as_deref(), Ok("src/lib.rs"));
        assert_eq!(inside(root, "file").as_deref(), Ok("file"));
        assert_eq!(problem("out/x"), PathProblem::LinkOutside("out".to_owned()));
        assert_eq!(problem("dangling"), PathProblem::LinkOutside("dangling".to_owned()));
        assert_eq!(problem("src"), PathProblem::Obstructed("src".to_owned()));
        assert_eq!(problem("file/x"), PathProblem::Obstructed("file".to_owned()));
    }
}
