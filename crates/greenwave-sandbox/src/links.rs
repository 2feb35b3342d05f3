//! Finds the symbolic links that a path leads through.

use std::collections::VecDeque;
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
}
