//! What is noted of a command: each path with how it was used. Knows nothing of processes.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use super::object::{ObjectCall, Objects};
use super::{Access, Trace};

/// Everything noted so far.
#[derive(Debug)]
pub(super) struct Log {
    paths: HashMap<PathBuf, Noted>,
    /// Folders that the command made: all that is in them is its own.
    made: HashSet<PathBuf>,
    objects: Objects,
    incomplete: Option<String>,
    talks: bool,
    paths_max: usize,
}

#[derive(Debug, Default)]
struct Noted {
    access: Access,
    /// The command has put there what is there now, or removed it: what happens from here on depends on nothing before.
    is_settled: bool,
    /// There was something before that.
    was_there: bool,
}

impl Log {
    pub(super) fn new(paths_max: usize) -> Self {
        let (paths, made) = (HashMap::new(), HashSet::new());
        Self { paths, made, objects: Objects::default(), incomplete: None, talks: false, paths_max }
    }

    /// Notes that from here on something is not seen. The first reason counts.
    pub(super) fn incomplete(&mut self, why: impl Into<String>) {
        self.incomplete.get_or_insert_with(|| why.into());
    }

    pub(super) fn is_blind(&self) -> bool {
        self.incomplete.is_some()
    }

    pub(super) fn talks(&mut self) {
        self.talks = true;
    }

    /// Notes a call that concerns a kernel object.
    pub(super) fn object(&mut self, call: ObjectCall, name: impl FnOnce(u64) -> Option<Vec<u8>>) {
        self.objects.note(call, name);
    }

    /// Notes a use that depends on what is there.
    pub(super) fn depend(&mut self, path: &Path, note: impl FnOnce(&mut Access)) {
        if let Some(noted) = self.noted(path)
            && !noted.is_settled
        {
            note(&mut noted.access);
        }
    }

    /// Notes that there is something, whatever becomes of it.
    pub(super) fn is_there(&mut self, path: &Path) {
        if let Some(noted) = self.noted(path)
            && !noted.is_settled
        {
            noted.was_there = true;
        }
    }

    /// Notes that it was written to, whatever else.
    pub(super) fn write(&mut self, path: &Path) {
        if let Some(noted) = self.noted(path) {
            noted.access.written = true;
        }
    }

    /// Notes that its content was replaced, in the same way whatever was there.
    pub(super) fn replace(&mut self, path: &Path) {
        let Some(noted) = self.noted(path) else { return };
        noted.access.output_only |= noted.access == Access::default();
        noted.access.written = true;
        noted.is_settled = true;
    }

    /// Notes that it was made where nothing was.
    pub(super) fn make(&mut self, path: &Path, is_folder: bool) {
        if let Some(noted) = self.noted(path) {
            if !noted.is_settled {
                noted.access.queried = true;
                noted.access.created = true;
            }
            noted.access.written = true;
            noted.is_settled = true;
        }
        if is_folder {
            self.made.insert(path.to_owned());
        }
    }

    /// Notes that it was removed.
    pub(super) fn remove(&mut self, path: &Path) {
        self.depend(path, |access| access.queried = true);
        if let Some(noted) = self.noted(path) {
            noted.access.written = true;
            noted.is_settled = true;
        }
        self.made.remove(path);
    }

    /// Notes that a folder now has another name.
    pub(super) fn move_folder(&mut self, from: &Path, to: &Path) {
        if !self.is_made(from) {
            self.incomplete("moves a folder that it has not made");
        }
        self.made.insert(to.to_owned());
    }

    pub(super) fn finish(self) -> Trace {
        let there = self.there();
        let paths = self.paths.into_iter().map(|(path, noted)| (path, noted.access)).collect();
        let objects = self.objects.finish();
        Trace { paths, existing: there, objects, incomplete: self.incomplete, connected: self.talks }
    }

    /// A copy as of now.
    pub(super) fn so_far(&self) -> Trace {
        let paths = self.paths.iter().map(|(path, noted)| (path.clone(), noted.access)).collect();
        let objects = self.objects.finish();
        Trace {
            paths,
            existing: self.there(),
            objects,
            incomplete: self.incomplete.clone(),
            connected: self.talks,
        }
    }

    fn there(&self) -> HashSet<PathBuf> {
        self.paths.iter().filter(|(_, noted)| noted.was_there).map(|(path, _)| path.clone()).collect()
    }

    fn is_made(&self, path: &Path) -> bool {
        !self.made.is_empty() && path.ancestors().any(|above| self.made.contains(above))
    }

    /// `None` if there are too many.
    fn noted(&mut self, path: &Path) -> Option<&mut Noted> {
        if !self.paths.contains_key(path) {
            if self.paths.len() >= self.paths_max {
                self.incomplete(format!("uses more than {} paths", self.paths_max));
                return None;
            }
            let own = self.is_made(path);
            let noted = Noted {
                access: Access { output_only: own, ..Access::default() },
                is_settled: own,
                was_there: false,
            };
            self.paths.insert(path.to_owned(), noted);
        }
        self.paths.get_mut(path)
    }
}
