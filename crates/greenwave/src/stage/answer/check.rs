//! Takes answers with arbitrary names into arbitrary trees, and compares the files that they write
//! with a model.

mod model;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use greenwave_dir::Dir;
use greenwave_storage::{MemoryColdTier, Store, StoreOptions};
use greenwave_testing::{EntryKind, Test};
use tempfile::TempDir;

use super::{AnswerPart, Draft, StoredContent};
use crate::plan::{Feature, Plan};
use crate::project_root::ProjectRoot;
use crate::protection::{FileChange, Links, Protection, RunProtection};
use crate::tree::{self, Change, File, Tree};
use crate::workspace::{self, Destination};
use model::{Model, Rule};

/// Maximum number of lines of an input. Later ones are ignored.
const LINES_MAX: usize = 24;
/// Content of the files that an answer writes.
const NEW: &[u8] = b"new";

/// Takes the answers that an input describes, one a line: a letter, and one or two names separated
/// by a tab. Capital letters build the tree as the project's author does. The first byte of the
/// input chooses the plan.
///
/// # Panics
/// If something is written that may not be, or a file that may be written is not.
pub(crate) fn check(input: &[u8]) {
    let Some((plan, lines)) = input.split_first() else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(async {
        let world = World::new(*plan);
        for line in lines.split(|byte| *byte == b'\n').take(LINES_MAX) {
            let Some((letter, names)) = line.split_first() else { continue };
            let names = String::from_utf8_lossy(names);
            let (one, other) = names.split_once('\t').unwrap_or((&names, ""));
            match letter {
                b'A'..=b'Z' => world.build(*letter, one, other),
                _ => world.answer(*letter, one, other).await,
            }
        }
    });
}

/// A working copy, and beside it a directory of the user.
struct World {
    directory: TempDir,
    store: Store,
    run: RunProtection,
    feature: Feature,
    model: Model,
}

/// Files and links by path, with their contents and targets.
type Files = BTreeMap<String, (EntryKind, Vec<u8>)>;

impl World {
    fn new(plan: u8) -> Self {
        let memory = Path::new("/dev/shm");
        let made = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
        let directory = made.expect("a directory");
        for name in ["base", "outside"] {
            fs::create_dir(directory.path().join(name)).expect("a directory");
        }
        fs::write(directory.path().join("outside/precious"), "precious").expect("a file");
        let base = directory.path().join("base");
        fs::write(base.join("plan.toml"), "").expect("a file");
        let model = Model::numbered(plan);
        let list = |patterns: &[&str]| patterns.iter().map(|it| (*it).to_owned()).collect();
        let plan =
            Plan { file: Some(base.join("plan.toml")), protect: list(model.protect), ..Plan::default() };
        let feature = Feature {
            prompt: model.prompt.to_owned(),
            tests: vec![Test::new("check", ["./check.sh"])],
            may_edit: list(model.may_edit),
            ..Feature::default()
        };
        let root = ProjectRoot { path: base, project: String::new(), repository: None, note: None };
        let cold = Arc::new(MemoryColdTier::default());
        let store = Store::open(StoreOptions::default(), cold).expect("a store in memory");
        Self { run: RunProtection::new(&plan, &root), directory, store, feature, model }
    }

    fn base(&self) -> PathBuf {
        self.directory.path().join("base")
    }

    /// Adds an entry to the tree, without regard to any rules.
    fn build(&self, kind: u8, one: &str, target: &str) {
        let Some(path) = model::plain(one) else { return };
        let at = self.base().join(path);
        let parent = at.parent().expect("the path is below the base");
        let inside = parent.canonicalize().is_ok_and(|real| real.starts_with(self.base()));
        if kind.is_multiple_of(4) && inside {
            let _ = fs::create_dir(&at);
        } else if inside && at.symlink_metadata().is_err() {
            // A link may lead anywhere, outside included.
            let _ = match kind % 4 {
                1 => fs::write(&at, "old"),
                2 => symlink(target, &at),
                _ => symlink("../outside", &at),
            };
        }
    }

    /// Takes one answer as a run does: applies it to a draft, and writes the draft unless the
    /// protection of the feature refuses a change.
    async fn answer(&self, letter: u8, one: &str, other: &str) {
        let before = self.files();
        let part = self.part(letter, one, other).await;
        let tree = self.tree(&before).await;
        let (base, destination) = (self.base(), self.destination(letter & 1 == 0));
        let mut draft = Draft::new(&base, "", &self.store, tree.clone());
        let is_taken = draft.apply(&part).await.is_ok();
        let changes = tree::changes(&tree, &draft.tree);
        let links = before.iter().filter(|(_, (kind, _))| *kind == EntryKind::Symlink);
        let links: Links = links
            .map(|(path, (_, target))| (path.clone(), String::from_utf8_lossy(target).into_owned()))
            .collect();
        let protection = Protection::new(&self.feature, &self.feature.tests, &self.run).with_links(&links);
        let trusted = self.behind_trusted_links(&links);
        let violation = changes.iter().find_map(|change| violation(&protection, change));
        let is_written = is_taken
            && violation.is_none()
            && workspace::apply(&destination, &changes, &self.store).await.is_ok();
        let after = self.files();
        let line = format!("{} {one:?} {other:?}", char::from(letter));
        self.check_outside(&line);
        if !is_written {
            assert_eq!(before, after, "a refused answer has written: {line}");
        }
        for path in before.keys().chain(after.keys()).filter(|path| before.get(*path) != after.get(*path)) {
            let rule = self.model.rule(path, before.contains_key(path));
            assert_ne!(rule, Rule::Refused, "{path:?} is written: {line}");
            let is_behind = trusted.iter().any(|target| Path::new(path).starts_with(target));
            assert!(
                !is_behind || rule == Rule::Permitted && self.model.is_named(path),
                "{path:?} is written, and a trusted link leads there: {line}"
            );
        }
        // A link that leads nowhere protects the path that it names.
        if !links.keys().any(|link| self.is_trusted(link))
            && matches!(part, AnswerPart::File { .. })
            && let Some(path) = model::plain(one).filter(|path| self.is_clear(&before, path))
            && self.model.rule(&path, before.contains_key(&path)) == Rule::Permitted
        {
            assert!(is_written, "{path:?} is not written ({violation:?}): {line}");
            assert_eq!(after.get(&path).map(|(_, content)| &content[..]), Some(NEW), "{line}");
        }
    }

    async fn part(&self, letter: u8, one: &str, other: &str) -> AnswerPart {
        let path = Some(one.to_owned());
        match letter / 2 % 4 {
            0 | 1 => {
                let content = StoredContent::put(&self.store, Bytes::from_static(NEW)).await;
                AnswerPart::File { path: one.to_owned(), content: content.expect("a store in memory") }
            }
            2 => {
                let text = format!("{other}\n<<<<<<< SEARCH\nold\n=======\nnew\n>>>>>>> REPLACE\n");
                AnswerPart::Edit { path, text }
            }
            _ => {
                let text = format!(
                    "diff --git a/{one} b/{other}\nsimilarity index 100%\nrename from {one}\nrename to {other}\n"
                );
                AnswerPart::Diff { path: None, text }
            }
        }
    }

    fn destination(&self, is_project: bool) -> Destination {
        Destination {
            dir: Dir::open(self.base()).expect("a handle"),
            in_flight: Arc::default(),
            steps: crate::steps::Steps::default(),
            is_project,
            written: Arc::default(),
        }
    }

    async fn tree(&self, files: &Files) -> Tree {
        let mut tree = Tree::new();
        for (path, (kind, content)) in files {
            let blob = self.store.put_blob(Bytes::copy_from_slice(content)).await;
            let blob = blob.expect("a store in memory");
            tree.insert(path.clone(), File { kind: *kind, blob });
        }
        tree
    }

    /// Reads the files and links below the base.
    fn files(&self) -> Files {
        let (mut files, mut open) = (Files::new(), vec![self.base()]);
        while let Some(directory) = open.pop() {
            for entry in fs::read_dir(directory).expect("a directory") {
                let path = entry.expect("an entry").path();
                let kind = path.symlink_metadata().expect("an entry").file_type();
                let inner = path.strip_prefix(self.base()).expect("the path is below the base");
                let name = inner.to_str().expect("the names are UTF-8").to_owned();
                if kind.is_dir() {
                    open.push(path);
                } else if kind.is_symlink() {
                    let target = path.read_link().expect("a link").as_os_str().as_bytes().to_vec();
                    files.insert(name, (EntryKind::Symlink, target));
                } else {
                    let content = fs::read(&path).expect("a file");
                    files.insert(name, (EntryKind::Regular, content));
                }
            }
        }
        files
    }

    /// Returns the paths that links lead to whose names an answer may not write.
    fn behind_trusted_links(&self, links: &Links) -> Vec<PathBuf> {
        let base = self.base();
        let is_trusted = |link: &&String| {
            let is_text = link.rsplit('/').next().is_some_and(|name| name.starts_with(char::is_uppercase));
            !is_text && self.is_trusted(link)
        };
        let targets = links.keys().filter(is_trusted).filter_map(|link| base.join(link).canonicalize().ok());
        let inside = targets.filter_map(|target| Some(target.strip_prefix(&base).ok()?.to_owned()));
        inside.filter(|target| !target.as_os_str().is_empty()).collect()
    }

    fn is_trusted(&self, link: &str) -> bool {
        self.model.rule(link, true) == Rule::Refused
    }

    /// Returns whether a file can be written at a path: all its parents are directories or do not
    /// exist, and in its place is a file or nothing.
    fn is_clear(&self, files: &Files, path: &str) -> bool {
        let parents = path.match_indices('/').map(|(at, _)| &path[..at]);
        let is_file = files.get(path).is_none_or(|(kind, _)| *kind != EntryKind::Symlink);
        let fits = path.split('/').all(|name| name.len() <= 255) && path.len() < 1000;
        fits && is_file
            && parents.into_iter().all(|parent| !files.contains_key(parent))
            && !self.base().join(path).is_dir()
    }

    fn check_outside(&self, line: &str) {
        let names = |directory: &str| {
            let entries = fs::read_dir(self.directory.path().join(directory)).expect("a directory");
            let mut names: Vec<_> = entries.map(|entry| entry.expect("an entry").file_name()).collect();
            names.sort();
            names
        };
        assert_eq!(names("outside"), ["precious"], "after {line}");
        assert_eq!(names(""), ["base", "outside"], "after {line}");
        let content = fs::read(self.directory.path().join("outside/precious"));
        assert_eq!(content.expect("a file"), b"precious", "after {line}");
    }
}

fn violation(protection: &Protection<'_>, change: &Change) -> Option<String> {
    let content = |file: Option<File>| file.map(|_| NEW);
    let (before, after) = (content(change.before), content(change.after));
    protection.violation(&FileChange { path: &change.path, before, after })
}

#[cfg(test)]
mod tests;
