//! Finds the symbolic links that a path leads through.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};

/// Maximum number of links on a path, as in the kernel.
const LINKS_MAX: usize = 40;

/// Returns the paths of the symbolic links that are followed when a path is resolved, each with its
/// directory resolved. A command that can replace one of them decides where the path leads.
pub(crate) fn on_path(path: &Path) -> Vec<PathBuf> {
    let mut links = Vec::new();
    let mut resolved = PathBuf::from("/");
    let mut rest: VecDeque<OsString> = VecDeque::new();
    let Ok(path) = std::path::absolute(path) else { return links };
    push_front(&mut rest, &path);
    while let Some(name) = rest.pop_front() {
        if name == ".." {
            resolved.pop();
            continue;
        }
        let next = resolved.join(&name);
        let Ok(target) = next.read_link() else {
            resolved = next;
            continue;
        };
        if links.len() == LINKS_MAX {
            break;
        }
        links.push(next);
        if target.is_absolute() {
            resolved = PathBuf::from("/");
        }
        push_front(&mut rest, &target);
    }
    links
}

/// Resolves paths like [`Path::canonicalize`], and each path and directory once. For paths that are
/// resolved at one moment, since it does not see later changes.
#[derive(Debug, Default)]
pub(crate) struct ResolvedPaths(RefCell<HashMap<OsString, Found>>);

/// The entry that a path leads to.
#[derive(Debug, Clone)]
enum Found {
    /// Its path without symbolic links.
    Entry {
        path: PathBuf,
        is_directory: bool,
    },
    /// A symbolic link that leads nowhere.
    Link,
    Nothing,
}

impl ResolvedPaths {
    /// Returns the path without symbolic links, or `None` if it does not exist.
    pub(crate) fn resolve(&self, path: &Path) -> Option<PathBuf> {
        // Only a directory has such a path.
        let text = path.as_os_str().as_encoded_bytes();
        let is_directory = text.ends_with(b"/") || text.ends_with(b"/.");
        match self.find(path) {
            Found::Entry { path, is_directory: found } if found || !is_directory => Some(path),
            _ => None,
        }
    }

    /// Returns whether a path has no entry, not even a symbolic link.
    pub(crate) fn is_absent(&self, path: &Path) -> bool {
        matches!(self.find(path), Found::Nothing)
    }

    fn find(&self, path: &Path) -> Found {
        // The same for all spellings, and compared at once, unlike a path.
        let key = path.components().as_path().as_os_str();
        if let Some(found) = self.0.borrow().get(key) {
            return found.clone();
        }
        let found = self.look_up(Path::new(key)).unwrap_or(Found::Nothing);
        self.0.borrow_mut().insert(key.to_owned(), found.clone());
        found
    }

    fn look_up(&self, path: &Path) -> Option<Found> {
        let is_plain = |part: Component<'_>| matches!(part, Component::RootDir | Component::Normal(_));
        if !path.is_absolute() || !path.components().all(is_plain) {
            return canonical(path);
        }
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return canonical(path) };
        let Found::Entry { path: parent, is_directory: true } = self.find(parent) else { return None };
        let path = parent.join(name);
        let found = path.symlink_metadata().ok()?;
        if found.is_symlink() {
            return Some(canonical(&path).unwrap_or(Found::Link));
        }
        Some(Found::Entry { path, is_directory: found.is_dir() })
    }
}

fn canonical(path: &Path) -> Option<Found> {
    let path = path.canonicalize().ok()?;
    let is_directory = path.is_dir();
    Some(Found::Entry { path, is_directory })
}

/// Puts the names in a path before others.
fn push_front(rest: &mut VecDeque<OsString>, path: &Path) {
    for component in path.components().rev() {
        if let Component::Normal(_) | Component::ParentDir = component {
            rest.push_front(component.as_os_str().to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn all_links_of_a_chain_are_found() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().canonicalize().unwrap();
        fs::create_dir_all(root.join("real/deep")).unwrap();
        fs::create_dir(root.join("links")).unwrap();
        symlink("../links/two", root.join("links/one")).unwrap();
        symlink(root.join("real"), root.join("links/two")).unwrap();
        symlink(".", root.join("real/deep/here")).unwrap();
        let found = on_path(&root.join("links/one/deep/here/absent"));
        assert_eq!(found, ["links/one", "links/two", "real/deep/here"].map(|path| root.join(path)));
        assert_eq!(on_path(&root.join("real/deep")), Vec::<PathBuf>::new());
        symlink("loop", root.join("loop")).unwrap();
        assert_eq!(on_path(&root.join("loop")).len(), LINKS_MAX);
    }
    #[test]
    fn paths_are_resolved_as_by_the_system() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        fs::create_dir_all(root.join("real/deep")).unwrap();
        fs::write(root.join("real/file"), "").unwrap();
        let targets = ["real", "../real/deep", "absent", "loop", "real/file", ".."];
        for (name, target) in ["link", "real/up", "dangling", "loop", "to-file", "parent"].iter().zip(targets)
        {
            symlink(target, root.join(name)).unwrap();
        }
        symlink(root.join("link/up"), root.join("absolute")).unwrap();
        let names =
            ["real", "link", "deep", "up", "file", "to-file", "dangling", "loop", "absolute", "..", "x"];
        let links = ResolvedPaths::default();
        let mut paths = vec![PathBuf::from("/"), PathBuf::new(), PathBuf::from("."), PathBuf::from("src")];
        for first in names {
            for second in names {
                let two = root.join(first).join(second);
                paths.extend(
                    ["", "/", "/.", "//x"].map(|end| PathBuf::from(format!("{}{end}", two.display()))),
                );
                paths.extend([root.join(first), two.join("file"), two.join("deep")]);
            }
        }
        let mut found = 0;
        for path in &paths {
            let expected = path.canonicalize().ok();
            assert_eq!(links.resolve(path), expected, "{}", path.display());
            found += usize::from(expected.is_some());
            let is_plain = path.is_absolute() && path.file_name().is_some();
            let entry: PathBuf = path.components().collect();
            assert!(!is_plain || links.is_absent(path) == entry.symlink_metadata().is_err(), "{path:?}");
        }
        assert!(found > 20 && found < paths.len(), "{found} of {} exist", paths.len());
    }
}
