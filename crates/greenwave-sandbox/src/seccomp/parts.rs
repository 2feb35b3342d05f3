//! Attributes accesses to the parts of a command that announces where each of them begins.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::TraceParts;

/// The device that discards what is written to it.
const NULL_DEVICE: &str = "/dev/null";

/// The parts of a running command.
///
/// A part observes a path if a call between its announcement and the next one does. A part that
/// observes a change by an earlier part also depends on every observation of the earlier part.
#[derive(Debug, Default)]
pub(super) struct Parts {
    /// The directory whose entries a command asks for to announce a part.
    announcements: Option<PathBuf>,
    current: u32,
    observed: HashMap<PathBuf, Vec<u32>>,
    listed: HashMap<PathBuf, Vec<u32>>,
    /// Parts that changed a path.
    changed: HashMap<PathBuf, Vec<u32>>,
    /// Parts that created, removed or moved an entry of a directory.
    changed_entries: HashMap<PathBuf, Vec<u32>>,
    /// Parts that created, removed or moved a directory.
    changed_directories: HashMap<PathBuf, Vec<u32>>,
    uses: BTreeMap<u32, BTreeSet<u32>>,
}

impl Parts {
    pub(super) fn new(announcements: Option<PathBuf>) -> Self {
        Self { announcements, ..Self::default() }
    }

    /// Returns whether the command may announce parts.
    pub(super) fn are_announced(&self) -> bool {
        self.announcements.is_some()
    }

    /// Returns whether a command asks for this path, which is not resolved, to announce a part. In
    /// that case, starts the part.
    pub(super) fn announce(&mut self, path: &[u8]) -> bool {
        let Some(directory) = &self.announcements else { return false };
        let inside = path.strip_prefix(directory.as_os_str().as_bytes());
        let number = inside.and_then(|inside| inside.strip_prefix(b"/"));
        let number = number.and_then(|number| std::str::from_utf8(number).ok()?.parse().ok());
        if let Some(number) = number {
            self.current = number;
        }
        number.is_some()
    }

    /// Records that the current part depends on the state of a path.
    pub(super) fn observe(&mut self, path: &Path) {
        if self.announcements.is_none() {
            return;
        }
        add(&mut self.observed, path, self.current);
        self.use_changes(path);
    }

    /// Records that the current part depends on the names in a directory.
    pub(super) fn list(&mut self, path: &Path) {
        if self.announcements.is_some() {
            add(&mut self.listed, path, self.current);
            let by = self.changed_entries.get(path).cloned().unwrap_or_default();
            self.uses.entry(self.current).or_default().extend(by);
        }
    }

    /// Records that the current part changes the content of a path, or creates or removes it.
    pub(super) fn change(&mut self, path: &Path, is_directory: bool) {
        if self.announcements.is_none() {
            return;
        }
        // The call may fail, or succeed, because of the state of the path.
        self.observe(path);
        if path == Path::new(NULL_DEVICE) {
            return;
        }
        add(&mut self.changed, path, self.current);
        if let Some(directory) = path.parent() {
            add(&mut self.changed_entries, directory, self.current);
        }
        if is_directory {
            add(&mut self.changed_directories, path, self.current);
        }
    }

    fn use_changes(&mut self, path: &Path) {
        let uses = self.uses.entry(self.current).or_default();
        uses.extend(self.changed.get(path).into_iter().flatten());
        if !self.changed_directories.is_empty() {
            let above = path.ancestors().filter_map(|above| self.changed_directories.get(above));
            uses.extend(above.flatten());
        }
    }

    /// Returns the parts; `None` if the command announces none.
    pub(super) fn finish(&self) -> Option<TraceParts> {
        self.announcements.as_ref()?;
        let Self { observed, listed, uses, .. } = self;
        Some(TraceParts { observed: observed.clone(), listed: listed.clone(), uses: uses.clone() })
    }
}

fn add(map: &mut HashMap<PathBuf, Vec<u32>>, path: &Path, part: u32) {
    match map.get_mut(path) {
        Some(parts) if parts.last() == Some(&part) => {}
        Some(parts) if parts.contains(&part) => {}
        Some(parts) => parts.push(part),
        None => drop(map.insert(path.to_owned(), vec![part])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts() -> Parts {
        Parts::new(Some(PathBuf::from("/own/parts")))
    }

    fn closure(parts: &Parts, part: u32) -> Vec<u32> {
        parts.finish().unwrap_or_default().closure(part).into_iter().collect()
    }

    #[test]
    fn only_numbers_in_the_directory_announce_a_part() {
        let mut parts = parts();
        for path in ["/own/parts", "/own/parts/", "/own/parts/x", "/own/parts/1/2", "/own/other/1"] {
            assert!(!parts.announce(path.as_bytes()), "{path}");
        }
        assert!(parts.announce(b"/own/parts/7"));
        assert_eq!(parts.current, 7);
        assert!(!Parts::new(None).announce(b"/own/parts/7"));
    }

    #[test]
    fn a_part_that_observes_changes_of_others_depends_on_them() {
        let mut parts = parts();
        let path = Path::new;
        parts.announce(b"/own/parts/1");
        parts.change(path("/p/a"), false);
        parts.announce(b"/own/parts/2");
        parts.observe(path("/p/a"));
        parts.announce(b"/own/parts/3");
        parts.observe(path("/p/b"));
        parts.announce(b"/own/parts/4");
        parts.list(path("/p"));
        parts.change(path("/p/d"), true);
        parts.announce(b"/own/parts/5");
        parts.observe(path("/p/d/missing"));
        assert_eq!(closure(&parts, 1), [0, 1]);
        assert_eq!(closure(&parts, 2), [0, 1, 2]);
        assert_eq!(closure(&parts, 3), [0, 3]);
        assert_eq!(closure(&parts, 4), [0, 1, 4]);
        assert_eq!(closure(&parts, 5), [0, 1, 4, 5]);
    }

    #[test]
    fn names_and_state_of_a_directory_are_observed_separately() {
        let mut parts = parts();
        let (path, by) = (Path::new("/p"), |part| std::iter::once(part).collect());
        parts.observe(path);
        parts.announce(b"/own/parts/1");
        parts.list(path);
        let trace = parts.finish().unwrap_or_default();
        assert!(trace.is_observed(path, &by(0)) && !trace.is_observed(path, &by(1)));
        assert!(trace.is_listed(path, &by(1)) && !trace.is_listed(path, &by(0)));
        let unknown = Path::new("/q");
        assert!(trace.is_observed(unknown, &by(0)) && trace.is_listed(unknown, &by(0)));
    }

    #[test]
    fn a_write_to_the_null_device_changes_nothing() {
        let mut parts = parts();
        for part in ["/own/parts/1", "/own/parts/2"] {
            parts.announce(part.as_bytes());
            parts.change(Path::new(NULL_DEVICE), false);
        }
        assert_eq!(closure(&parts, 2), [0, 2]);
    }

    #[test]
    fn what_part_0_observes_belongs_to_all() {
        let mut parts = parts();
        parts.announce(b"/own/parts/1");
        parts.change(Path::new("/p/a"), false);
        parts.announce(b"/own/parts/0");
        parts.observe(Path::new("/p/a"));
        assert_eq!(closure(&parts, 2), [0, 1, 2]);
    }
}
