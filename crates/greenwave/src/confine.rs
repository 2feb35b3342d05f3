//! Keeps files that agents name inside a folder. Knows nothing of agents, and trusts no path.

use std::path::{Component, Path, PathBuf};

/// Folders that no agent writes to: what stands there is run or believed by others.
const RESERVED: [&str; 4] = [".git", ".hg", ".jj", ".greenwave"];

/// Why a path is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("file `{}` {problem}", path.escape_debug())]
pub struct PathError {
    /// The path as the agent gave it.
    pub path: String,
    /// What is wrong with it.
    pub problem: PathProblem,
}

/// What can be wrong with a path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PathProblem {
    /// It begins at the root.
    #[error("is absolute; a path relative to the project is wanted")]
    Absolute,
    /// It has `..` in it.
    #[error("has `..` in it; a path inside the project is wanted")]
    Upwards,
    /// It has no name, or characters that no file name should have.
    #[error("is no usable file name")]
    NoName,
    /// It is in a folder that belongs to version control or to Greenwave.
    #[error("is in `{0}`, where agents may not write")]
    Reserved(String),
    /// A symbolic link on the way leads out of the project.
    #[error("would be written through the symbolic link `{0}`, which leads out of the project")]
    LeadsOutside(String),
    /// There is a folder of that name, or a file where a folder would be.
    #[error("cannot be written where `{0}` is")]
    InTheWay(String),
}

/// The plain form of a relative path (`a/b`), if it stays inside the folder it is relative to.
///
/// # Errors
/// A [`PathError`] that names the path.
pub(crate) fn plain(path: &str) -> Result<String, PathError> {
    let refuse = |problem| Err(PathError { path: path.to_owned(), problem });
    let mut parts = Vec::new();
    for component in Path::new(path).components() {
        match component {
            Component::CurDir => {}
            Component::Normal(part) => {
                parts.push(part.to_str().expect("a part of a text at its separators is text"));
            }
            Component::ParentDir => return refuse(PathProblem::Upwards),
            Component::RootDir | Component::Prefix(_) => return refuse(PathProblem::Absolute),
        }
    }
    if parts.is_empty() || path.ends_with('/') || path.contains(char::is_control) {
        return refuse(PathProblem::NoName);
    }
    // File systems that ignore case lead `.GIT` to `.git`.
    if let Some(part) = parts.iter().find(|part| RESERVED.iter().any(|name| part.eq_ignore_ascii_case(name)))
    {
        return refuse(PathProblem::Reserved((*part).to_owned()));
    }
    Ok(parts.join("/"))
}

/// The plain path that a plain path below a folder leads to, after following the symbolic links on the way.
///
/// The check is sound as long as nobody else changes the folder meanwhile; the folder is a feature's own
/// copy, in which nothing runs while answers are written.
///
/// # Errors
/// A [`PathError`] that names the path and the link.
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
            return refuse(PathProblem::LeadsOutside(shown()));
        }
        let is_folder = at.is_dir();
        if is_last == is_folder || (is_last && metadata.is_symlink()) {
            return refuse(PathProblem::InTheWay(shown()));
        }
    }
    resolved(root, &at).map_or_else(|| refuse(PathProblem::NoName), |at| plain(&at))
}

/// The path relative to the root with its links followed as far as it exists.
fn resolved(root: &Path, path: &Path) -> Option<String> {
    let existing = path.ancestors().skip(1).find(|folder| folder.exists())?;
    let behind = path.strip_prefix(existing).ok()?;
    let whole: PathBuf = existing.canonicalize().ok()?.join(behind);
    whole.strip_prefix(root.canonicalize().ok()?).ok()?.to_str().map(str::to_owned)
}

fn stays_inside(root: &Path, link: &Path) -> bool {
    // In the project itself a link that climbs out of it leads elsewhere than in a copy, which lies deeper.
    if !stays_inside_by_name(root, link) {
        return false;
    }
    let (root, target) = (root.canonicalize(), link.canonicalize());
    matches!((root, target), (Ok(root), Ok(target)) if target.starts_with(&root))
}

fn stays_inside_by_name(root: &Path, link: &Path) -> bool {
    let Ok(target) = link.read_link() else { return false };
    let Ok(place) = link.strip_prefix(root) else { return false };
    let mut depth = place.components().count() - 1;
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
    fn only_plain_paths_inside_pass() {
        assert_eq!(plain("./src//lib.rs").as_deref(), Ok("src/lib.rs"));
        assert_eq!(plain("ünï/code.rs").as_deref(), Ok("ünï/code.rs"));
        assert_eq!(problem("/etc/passwd"), PathProblem::Absolute);
        assert_eq!(problem("src/../../x"), PathProblem::Upwards);
        assert_eq!(problem("../x"), PathProblem::Upwards);
        assert_eq!(problem(""), PathProblem::NoName);
        assert_eq!(problem("."), PathProblem::NoName);
        assert_eq!(problem("src/"), PathProblem::NoName);
        assert_eq!(problem("a\nb"), PathProblem::NoName);
        assert_eq!(problem("x/.Git/hooks/pre-commit"), PathProblem::Reserved(".Git".to_owned()));
    }

    #[test]
    fn links_that_lead_outside_are_found() {
        let outside = tempfile::tempdir().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        std::fs::create_dir(root.join("src")).unwrap();
        std::fs::write(root.join("file"), "").unwrap();
        std::os::unix::fs::symlink(outside.path(), root.join("out")).unwrap();
        std::os::unix::fs::symlink("src", root.join("alias")).unwrap();
        std::os::unix::fs::symlink("/nowhere/at/all", root.join("dangling")).unwrap();
        let problem = |path: &str| inside(root, path).unwrap_err().problem;
        assert_eq!(inside(root, "src/new/lib.rs").as_deref(), Ok("src/new/lib.rs"));
        assert_eq!(inside(root, "alias/lib.rs").as_deref(), Ok("src/lib.rs"));
        assert_eq!(inside(root, "file").as_deref(), Ok("file"));
        assert_eq!(problem("out/x"), PathProblem::LeadsOutside("out".to_owned()));
        assert_eq!(problem("dangling"), PathProblem::LeadsOutside("dangling".to_owned()));
        assert_eq!(problem("src"), PathProblem::InTheWay("src".to_owned()));
        assert_eq!(problem("file/x"), PathProblem::InTheWay("file".to_owned()));
    }
}
