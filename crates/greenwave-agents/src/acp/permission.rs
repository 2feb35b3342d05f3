//! Decides about requests for permission: inside of the copy yes, outside no.
//!
//! The policy only looks at the paths that a request names. What the agent can really reach is
//! decided by its confinement.

use std::path::{Component, Path, PathBuf};

use serde_json::Value;

/// Keys of a tool's input that name a file.
const PATH_KEYS: [&str; 6] = ["file_path", "filePath", "path", "abs_path", "notebook_path", "cwd"];

/// The directories in which an agent may change files.
#[derive(Debug)]
pub(super) struct Policy {
    /// Directory that relative paths start from.
    directory: PathBuf,
    allowed: Vec<PathBuf>,
}

impl Policy {
    pub(super) fn new<'p>(directory: &Path, allowed: impl IntoIterator<Item = &'p PathBuf>) -> Self {
        let resolved = |path: &PathBuf| {
            [Some(path.clone()), path.canonicalize().ok()].into_iter().flatten().collect::<Vec<_>>()
        };
        let allowed = allowed.into_iter().flat_map(resolved).collect();
        Self { directory: directory.to_owned(), allowed }
    }

    /// Returns the first path that is outside of the allowed directories, by its name or by the
    /// links in the part of it that exists.
    pub(super) fn refused<'p>(&self, paths: &'p [PathBuf]) -> Option<&'p PathBuf> {
        paths.iter().find(|path| {
            let absolute = self.directory.join(path);
            !self.is_inside(&plain(&absolute))
                || existing(&absolute).is_some_and(|real| !self.is_inside(&real))
        })
    }

    fn is_inside(&self, path: &Path) -> bool {
        self.allowed.iter().any(|allowed| path.starts_with(allowed))
    }
}

/// Returns the paths that a tool call names: its locations, its diffs and its input.
pub(super) fn paths_of(call: &Value) -> Vec<PathBuf> {
    let list = |key: &str| call.get(key).and_then(Value::as_array).into_iter().flatten();
    let named = list("locations").chain(list("content")).filter_map(|part| part.get("path")?.as_str());
    let input = PATH_KEYS.iter().filter_map(|key| call.get("rawInput")?.get(key)?.as_str());
    let mut paths: Vec<PathBuf> = named.chain(input).map(PathBuf::from).collect();
    paths.dedup();
    paths
}

/// Removes `.` and `..` from an absolute path without looking at the file system.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => {
                plain.pop();
            }
            Component::CurDir => {}
            other => plain.push(other),
        }
    }
    plain
}

/// Returns the longest part of a path that exists, with its links resolved.
fn existing(path: &Path) -> Option<PathBuf> {
    path.ancestors().find_map(|part| part.canonicalize().ok())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn paths_outside_of_the_copy_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("copy");
        std::fs::create_dir_all(root.join("src")).unwrap();
        std::os::unix::fs::symlink("/etc", root.join("link")).unwrap();
        let policy = Policy::new(&root.join("src"), [&root]);
        let check = |path: &str, is_allowed: bool| {
            assert_eq!(policy.refused(&[path.into()]).is_none(), is_allowed, "{path}");
        };
        for inside in ["a.rs", "../b.txt", "new/deep/c.rs", root.join("d").to_str().unwrap()] {
            check(inside, true);
        }
        for outside in ["/etc/passwd", "../../other", "../link/passwd", "../../copyx/a", "/"] {
            check(outside, false);
        }
        assert_eq!(policy.refused(&[]), None);
    }

    #[test]
    fn a_call_names_paths_in_three_ways() {
        let call = json!({
            "locations": [{ "path": "/a" }],
            "content": [{ "type": "diff", "path": "/b" }, { "type": "content" }],
            "rawInput": { "file_path": "/c", "old_string": "/d" },
        });
        assert_eq!(paths_of(&call), ["/a", "/b", "/c"].map(PathBuf::from));
        assert!(paths_of(&json!(null)).is_empty());
    }
}
