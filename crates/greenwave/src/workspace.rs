//! Workspaces: private copies of the project. Writes changes into them and into the project.

mod listing;
mod scan;

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use greenwave_dir::{Dir, Metadata, Temporary};
use greenwave_storage::Store;
use greenwave_testing::{EntryKind, Manifest};
use parking_lot::Mutex;
use tokio::sync::RwLock;

use crate::copies::Copies;
use crate::error::Error;
use crate::file_state::{file_at, kind_of, read};
use crate::guarded_write;
use crate::included::{Included, is_secret};
use crate::remove::remove_all;
use crate::setup;
use crate::setup_store::{StoredFiles, StoredSetup};
use crate::steps::Steps;
use crate::tree::{self, Change, File, Tree};

/// Maximum size of file contents in memory while changes are written, in bytes.
const BATCH_BYTES_MAX: usize = 8 << 20;

/// Prefix of temporary files, which are renamed to their final names.
const TEMPORARY_PREFIX: &str = ".greenwave-tmp-";

/// Read-locked by writes in flight. A write continues in its own thread when its stage is aborted.
///
/// Holds the locks of the project's state and of its copies, so that no other run starts before all
/// writes have ended.
pub(crate) type InFlight = Arc<RwLock<Vec<fs::File>>>;

/// A directory in which changes are written.
#[derive(Debug, Clone)]
pub(crate) struct Destination {
    /// The directory. Writes go through this handle, so that a link never leads them elsewhere.
    pub(crate) dir: Dir,
    pub(crate) in_flight: InFlight,
    pub(crate) steps: Steps,
    /// Whether this is the project, where the user may write at any moment. Each file is then
    /// compared with its expected state immediately before it is written.
    pub(crate) is_project: bool,
    /// Paths that were written, in the project.
    pub(crate) written: Arc<Mutex<BTreeSet<String>>>,
}

/// A private directory that holds the files of a tree, plus files that programs have left there.
#[derive(Debug)]
pub(crate) struct Workspace {
    destination: Destination,
    tree: Tree,
    stamps: scan::StampedFiles,
    /// Directories whose `.git` belongs to the workspace.
    repositories: BTreeSet<String>,
    copies: Option<Arc<Copies>>,
    /// Whether no tree was written yet.
    is_fresh: bool,
    included: Included,
    /// Files that the setup commands have created.
    set_up: BTreeSet<String>,
    /// Hash of the inputs of the last setup.
    setup_key: Option<[u8; 32]>,
    /// Whether setup commands or programs of the feature have run here. Their files cannot be
    /// distinguished from files of another setup.
    is_used: bool,
}

impl Workspace {
    /// Creates an empty workspace in a directory. Removes files of an earlier run from it.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(crate) fn new(parent: &Dir, name: &str, in_flight: InFlight) -> Result<Self, Error> {
        let root = parent.path().join(name);
        parent.remove_all(name).map_err(Error::io("clear", &root))?;
        let dir = parent.create_subdirectory(name, 0o777).map_err(Error::io("create", &root))?;
        // Steps do not matter here: the next run clears the workspaces of a killed run.
        let destination = Destination {
            dir,
            in_flight,
            steps: Steps::default(),
            is_project: false,
            written: Arc::default(),
        };
        let (stamps, repositories) = (scan::StampedFiles::default(), BTreeSet::new());
        Ok(Self {
            destination,
            tree: Tree::new(),
            stamps,
            repositories,
            copies: None,
            is_fresh: true,
            included: Included::default(),
            set_up: BTreeSet::new(),
            setup_key: None,
            is_used: false,
        })
    }

    /// Creates an empty working copy of a run. Removes files of an earlier one with that name.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(crate) fn in_copies(copies: &Arc<Copies>, name: &str, in_flight: &InFlight) -> Result<Self, Error> {
        let workspace = Self::new(&copies.plan_dir()?, name, Arc::clone(in_flight))?;
        Ok(Self { copies: Some(Arc::clone(copies)), ..workspace })
    }

    /// Returns the directory.
    pub(crate) fn root(&self) -> &Path {
        self.destination.dir.path()
    }

    /// Returns the handle of the directory.
    pub(crate) fn dir(&self) -> &Dir {
        &self.destination.dir
    }

    /// Returns the project's directory in the workspace. It differs from [`root`](Self::root) if
    /// the workspace is a copy of the repository or workspace around the project.
    pub(crate) fn directory(&self) -> PathBuf {
        match &self.copies {
            Some(copies) if !copies.root.project.is_empty() => self.root().join(&copies.root.project),
            _ => self.root().to_owned(),
        }
    }

    /// Returns the files of the workspace.
    pub(crate) fn tree(&self) -> &Tree {
        &self.tree
    }

    /// Resets the directory to `tree`, copies included files, and runs the setup commands if their
    /// inputs have changed since they ran here.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Store`] or [`Error::Setup`].
    pub(crate) async fn prepare(&mut self, tree: &Tree, store: &Store) -> Result<(), Error> {
        self.reset(tree, store).await?;
        let Some(copies) = self.copies.clone() else { return Ok(()) };
        let options = copies.options();
        self.restore_included().await?;
        let key = setup::key(&options.setup, &options.setup_inputs, tree);
        let is_used = std::mem::replace(&mut self.is_used, true);
        if options.setup.is_empty() || self.setup_key == Some(key) {
            return Ok(());
        }
        self.setup_key = None;
        // Commands with a teardown do more than create files.
        if is_used || !options.teardown.is_empty() {
            self.run_setup(&copies).await?;
        } else {
            // Without a list of inputs, the commands may read any file.
            let any = ["*".to_owned()];
            let inputs = if options.setup_inputs.is_empty() { &any[..] } else { &options.setup_inputs };
            self.share_setup(&copies, setup::key(&options.setup, inputs, tree)).await?;
        }
        let created = self.created(tree).await?;
        self.set_up.extend(created);
        self.setup_key = Some(key);
        // Commands may have changed files of the project.
        self.reset(tree, store).await
    }

    /// Takes what setup commands have created in another copy. Runs them if no copy has run them,
    /// or if their results work only in the copy in which they were created.
    async fn share_setup(&self, copies: &Arc<Copies>, key: [u8; 32]) -> Result<(), Error> {
        let mut stored = copies.setups().lock(key).await;
        let root = self.dir().clone();
        match &*stored {
            StoredSetup::Unshared => {
                drop(stored);
                self.run_setup(copies).await
            }
            StoredSetup::Stored(_) => {
                self.blocking(move || {
                    let StoredSetup::Stored(files) = &*stored else { return Ok(()) };
                    files.restore(&root).map_err(Error::io("copy the files of a setup to", root.path()))
                })
                .await
            }
            StoredSetup::Missing => {
                self.run_setup(copies).await?;
                let store = copies.setup_dir(&key)?;
                let others = copies.included()?.iter().cloned().chain(copies.needed());
                let existing: BTreeSet<String> = self.tree.keys().cloned().chain(others).collect();
                let files = self.blocking(move || {
                    let stored = StoredFiles::store(&root, store, &existing);
                    stored.map_err(Error::io("store a setup of", root.path()))
                });
                // Without a stored setup, each copy is set up by itself.
                *stored = match files.await {
                    Ok(Some(files)) => StoredSetup::Stored(files),
                    Ok(None) => StoredSetup::Unshared,
                    Err(error) => {
                        tracing::warn!(error = crate::error::chain(&error), "cannot store a setup");
                        StoredSetup::Unshared
                    }
                };
                Ok(())
            }
        }
    }

    /// Runs the setup commands here.
    async fn run_setup(&self, copies: &Copies) -> Result<(), Error> {
        let options = copies.options();
        let directory = self.create_directory()?;
        let temporary = copies.temporary_dir()?;
        let variables = copies.variables();
        let setting = self.setting(&directory, temporary.path(), &variables, options.time_max);
        for command in &options.setup {
            setup::run(command, &setting, &options.starter).await?;
        }
        Ok(())
    }

    /// Copies included files and files that tests turned out to need, unless they exist.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(crate) async fn restore_included(&mut self) -> Result<(), Error> {
        let Some(copies) = self.copies.clone() else { return Ok(()) };
        let needed = copies.needed();
        if copies.options().include.is_empty() && needed.is_empty() {
            return Ok(());
        }
        let (mut included, root) = (std::mem::take(&mut self.included), self.dir().clone());
        let restored = self.blocking(move || {
            let paths = copies.included()?;
            let project = &copies.root.path;
            let project = Dir::open(project).map_err(Error::io("open", project))?;
            let paths: Vec<String> = paths.iter().cloned().chain(needed).collect();
            let restored = included.restore(&project, &root, &paths);
            restored.map_err(|(path, source)| Error::io("copy", &path)(source))?;
            Ok(included)
        });
        self.included = restored.await?;
        Ok(())
    }

    /// Removes files with secrets that were copied because tests need them, and that the plan does
    /// not include. [`restore_included`](Self::restore_included) copies them again.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(crate) async fn withhold_secrets(&self) -> Result<(), Error> {
        let Some(copies) = self.copies.clone() else { return Ok(()) };
        let secrets: Vec<String> = copies.needed().into_iter().filter(|path| is_secret(path)).collect();
        if secrets.is_empty() {
            return Ok(());
        }
        let root = self.dir().clone();
        self.blocking(move || {
            let listed = copies.included()?;
            for path in secrets.iter().filter(|path| !listed.contains(path)) {
                root.remove_all(path).map_err(Error::io("remove", root.path().join(path)))?;
            }
            Ok(())
        })
        .await
    }

    /// Runs the teardown commands. Failures are logged.
    pub(crate) async fn tear_down(&self) {
        let Some(copies) = self.copies.as_ref().filter(|_| self.setup_key.is_some() || !self.is_fresh) else {
            return;
        };
        let (directory, variables, options) = (self.directory(), copies.variables(), copies.options());
        let Ok(temporary) = copies.temporary_dir() else { return };
        let setting = self.setting(&directory, temporary.path(), &variables, options.time_max);
        for command in &options.teardown {
            if let Err(error) = setup::run(command, &setting, &options.starter).await {
                tracing::warn!(error = crate::error::chain(&error), "cannot tear down a working copy");
            }
        }
    }

    /// Returns the setting of a command that works in this workspace.
    fn setting<'a>(
        &'a self,
        directory: &'a Path,
        temporary: &'a Path,
        variables: &'a [(String, String)],
        time_max: Duration,
    ) -> setup::Setting<'a> {
        setup::Setting { root: self.root(), directory, temporary, variables, time_max }
    }

    /// Resets the directory to `tree`, and its repository, if it has one, to `base`.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Store`], [`Error::Setup`] or [`Error::Git`].
    pub(crate) async fn start_from(&mut self, base: &Tree, tree: &Tree, store: &Store) -> Result<(), Error> {
        self.prepare(tree, store).await?;
        if let Some(git) = self.copies.as_ref().and_then(|copies| copies.git()) {
            git.attach(self.dir(), base, store).await?;
            self.repositories.insert(String::new());
        }
        self.create_directory().map(drop)
    }

    /// Creates the project's directory in the workspace, and returns its path.
    fn create_directory(&self) -> Result<PathBuf, Error> {
        let directory = self.directory();
        let created = self.dir().create_subdirectory(self.project(), 0o777);
        created.map_err(Error::io("create", &directory))?;
        Ok(directory)
    }

    /// Returns the path of the project in the workspace; empty if it is the whole workspace.
    pub(crate) fn project(&self) -> String {
        self.copies.as_ref().map(|copies| copies.root.project.clone()).unwrap_or_default()
    }

    /// Removes the directory and remembers its files, so that others can use the space.
    pub(crate) async fn suspend(&mut self) {
        self.tear_down().await;
        self.remove_directory();
        (self.stamps, self.included) = (scan::StampedFiles::default(), Included::default());
        (self.is_fresh, self.setup_key, self.is_used) = (true, None, false);
        self.repositories.clear();
        self.set_up.clear();
    }

    /// Creates the directory of a suspended workspace again, empty. Its files are written by the
    /// next [`reset`](Self::reset).
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(crate) fn wake(&mut self) -> Result<(), Error> {
        let (Some(copies), Some(name)) = (&self.copies, self.root().file_name()) else { return Ok(()) };
        let dir = copies.plan_dir()?.create_subdirectory(name, 0o777);
        self.destination.dir = dir.map_err(Error::io("create", self.root()))?;
        Ok(())
    }

    /// Removes the directory.
    pub(crate) fn remove(self) {
        self.remove_directory();
    }

    fn remove_directory(&self) {
        if let Err(error) = remove_all(self.root()) {
            tracing::warn!(%error, directory = %self.root().display(), "cannot remove a workspace");
        }
    }
}

/// Reads the files of a project into the store, and returns their tree.
///
/// Leaves out files that the project's ignore files name unless they are in `tracked`, and files
/// whose names are not UTF-8.
pub(crate) async fn capture(project: &Path, tracked: &[String], store: &Store) -> Result<Tree, Error> {
    let manifest =
        Manifest::of_project(project).map_err(|source| Error::Project { source: source.into() })?;
    let dir = Dir::open(project).map_err(Error::io("open", project))?;
    let mut files = Vec::new();
    for (path, entry) in manifest.files() {
        match path.to_str() {
            Some(name) => files.push((name.to_owned(), entry.kind)),
            None => tracing::warn!(path = %path.display(), "skipped a file whose name is not UTF-8"),
        }
    }
    let listed: BTreeSet<String> = files.iter().map(|(name, _)| name.clone()).collect();
    for name in tracked.iter().filter(|name| !listed.contains(*name)) {
        files.extend(kind_at(&dir, name).map(|kind| (name.clone(), kind)));
    }
    read_kinds(&dir, files, store).await
}

/// Reads files and links below a directory into the store. Leaves out paths that have neither.
pub(crate) async fn read_files(root: &Dir, paths: &[String], store: &Store) -> Result<Tree, Error> {
    let kind = |path: &String| Some((path.clone(), kind_at(root, path)?));
    read_kinds(root, paths.iter().filter_map(kind).collect(), store).await
}

async fn read_kinds(project: &Dir, files: Vec<(String, EntryKind)>, store: &Store) -> Result<Tree, Error> {
    let mut tree = Tree::new();
    for (name, kind) in files {
        let content = read(project, &name, kind).map_err(Error::io("read", project.path().join(&name)))?;
        let blob = store.put_blob(content).await.map_err(Error::store("write to"))?;
        tree.insert(name, File { kind, blob });
    }
    Ok(tree)
}

/// Returns the kind of a file or link. Returns `None` for other entries.
fn kind_at(root: &Dir, path: &str) -> Option<EntryKind> {
    kind_of(&root.metadata(path).ok()?)
}

/// Writes all changes or none: if one fails, reverts those before it.
pub(crate) async fn apply_or_revert(
    destination: &Destination,
    changes: &[Change],
    store: &Store,
) -> Result<(), Error> {
    let Err(error) = apply(destination, changes, store).await else { return Ok(()) };
    revert(destination, changes, store).await;
    Err(error)
}

/// Reverts those changes that were made. Logs a warning for each file that cannot be reverted.
pub(crate) async fn revert(destination: &Destination, changes: &[Change], store: &Store) {
    // Created files come first, because they can be in the place of a removed one.
    let (created, other): (Vec<_>, Vec<_>) = changes.iter().partition(|change| change.before.is_none());
    for change in created.into_iter().chain(other) {
        let inverse = change.inverse();
        let was_made = file_at(&destination.dir, &change.path)
            .is_ok_and(|now| now == change.after && now != change.before);
        if was_made && let Err(error) = apply(destination, &[inverse], store).await {
            tracing::warn!(%error, path = change.path, "cannot revert a file of a failed merge");
        }
    }
}

/// Removes temporary files that a killed process has left beside the changed files.
pub(crate) fn remove_temporary_files(root: &Dir, changes: &[Change]) {
    for change in changes {
        guarded_write::recover(root, change);
        let Ok((directory, _)) = root.parent(&change.path) else { continue };
        let names = directory.entries().unwrap_or_default().into_iter().map(|entry| entry.name);
        let is_temporary = |name: &OsString| name.as_encoded_bytes().starts_with(TEMPORARY_PREFIX.as_bytes());
        for name in names.filter(is_temporary) {
            let _ = directory.remove_file(&name);
        }
    }
}

/// Writes changes into a directory. A kill at any moment leaves each file either old or new.
///
/// # Errors
/// [`Error::Io`], [`Error::Store`], or [`Error::ConcurrentEdit`] in the project.
pub(crate) async fn apply(destination: &Destination, changes: &[Change], store: &Store) -> Result<(), Error> {
    let mut batch = Vec::new();
    let mut bytes = 0;
    // Removals come first, because a file can make room for a directory.
    let (removed, written): (Vec<_>, Vec<_>) = changes.iter().partition(|change| change.after.is_none());
    for change in removed.into_iter().chain(written) {
        let content = match change.after {
            Some(file) => Some((file.kind, tree::content(store, &file.blob).await?)),
            None => None,
        };
        bytes += content.as_ref().map_or(0, |(_, content)| content.len());
        batch.push((change.clone(), content));
        if bytes >= BATCH_BYTES_MAX {
            write_batch(destination, std::mem::take(&mut batch)).await?;
            bytes = 0;
        }
    }
    write_batch(destination, batch).await
}

/// A change with the content that it writes.
type PlannedChange = (Change, Option<(EntryKind, Bytes)>);

async fn write_batch(destination: &Destination, batch: Vec<PlannedChange>) -> Result<(), Error> {
    let destination = destination.clone();
    let in_flight = Arc::clone(&destination.in_flight).read_owned().await;
    let written = tokio::task::spawn_blocking(move || {
        let _in_flight = in_flight;
        batch.iter().try_for_each(|(change, content)| write_one(&destination, change, content.as_ref()))
    });
    written.await.expect("writing files does not panic and is not cancelled")
}

fn write_one(
    destination: &Destination,
    change: &Change,
    content: Option<&(EntryKind, Bytes)>,
) -> Result<(), Error> {
    let root = &destination.dir;
    let path = root.path().join(&change.path);
    destination.steps.pass_blocking("write a file").map_err(Error::io("write", &path))?;
    if destination.is_project {
        destination.written.lock().insert(change.path.clone());
        let now = file_at(root, &change.path)?;
        if now == change.after {
            return Ok(());
        }
        if now != change.before {
            return Err(Error::ConcurrentEdit { path: change.path.clone() });
        }
    }
    if !destination.is_project {
        return match content {
            Some((kind, content)) => {
                put(root, &change.path, *kind, content).map_err(Error::io("write", &path))
            }
            None => remove(root, &change.path).map_err(Error::io("remove", &path)),
        };
    }
    let written = match content {
        Some((kind, content)) => put_guarded(root, *kind, content, change),
        None => remove_guarded(root, change),
    };
    if written.map_err(Error::io("write", &path))? {
        Ok(())
    } else {
        Err(Error::ConcurrentEdit { path: change.path.clone() })
    }
}

/// Like [`put`], but only if the file is still in the state before the change.
fn put_guarded(root: &Dir, kind: EntryKind, content: &[u8], change: &Change) -> io::Result<bool> {
    let (temporary, name) = temporary(root, &change.path, kind, content)?;
    guarded_write::replace(temporary, &name, change.before, change.after)
}

/// Like [`remove`], but only if the file is still in the state before the change.
fn remove_guarded(root: &Dir, change: &Change) -> io::Result<bool> {
    let (directory, name) = match root.parent(&change.path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(change.before.is_none()),
        parent => parent?,
    };
    let is_removed = guarded_write::remove(&directory, &name, change.before)?;
    if is_removed {
        remove_empty_parents(root, &change.path);
    }
    Ok(is_removed)
}

/// Writes a temporary file and renames it, so that a reader finds the whole old or the whole new
/// file.
fn put(root: &Dir, path: &str, kind: EntryKind, content: &[u8]) -> io::Result<()> {
    let (temporary, name) = temporary(root, path, kind, content)?;
    temporary.replace(name)
}

/// Writes a temporary file beside the file that it is to replace, with its permissions. Returns it
/// with the name of that file.
fn temporary(root: &Dir, path: &str, kind: EntryKind, content: &[u8]) -> io::Result<(Temporary, OsString)> {
    let (parent, name) = root.create_parent(path, 0o777)?;
    if kind == EntryKind::Symlink {
        return Ok((parent.temporary_link(TEMPORARY_PREFIX, OsStr::from_bytes(content))?, name));
    }
    let permissions = if kind == EntryKind::Executable { 0o777 } else { 0o666 };
    let mut temporary = parent.temporary(TEMPORARY_PREFIX, permissions)?;
    temporary.write_all(content)?;
    if let Some(mode) = replaced_mode(&parent, &name, kind) {
        temporary.file().set_permissions(fs::Permissions::from_mode(mode))?;
    }
    Ok((temporary, name))
}

/// Returns the permissions for a file that replaces another: those of the old file, with only the
/// executable bits adapted to `kind`. Returns `None` without a file to replace.
fn replaced_mode(directory: &Dir, name: &OsStr, kind: EntryKind) -> Option<u32> {
    let mode = directory.metadata(name).ok().filter(Metadata::is_file)?.permissions() & 0o777;
    let is_executable = mode & 0o100 != 0;
    match kind {
        EntryKind::Executable if !is_executable => Some(mode | (mode & 0o444) >> 2),
        EntryKind::Regular if is_executable => Some(mode & !0o111),
        _ => Some(mode),
    }
}

/// Removes a file, and the directories that are empty without it.
fn remove(root: &Dir, path: &str) -> io::Result<()> {
    match root.remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    remove_empty_parents(root, path);
    Ok(())
}

fn remove_empty_parents(root: &Dir, path: &str) {
    let parents = Path::new(path).ancestors().skip(1).filter(|parent| *parent != Path::new(""));
    // Stops at the first directory that is not empty.
    let _ = parents.map(|parent| root.remove_empty(parent)).find(Result::is_err);
}

#[cfg(test)]
mod race;
