//! Workspaces: private copies of the project. Writes changes into them and into the project.

mod capture;
mod destination;
mod extras;
mod listing;
mod mounted;
mod owner;
mod reset;
mod scan;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use greenwave_dir::Dir;
use greenwave_storage::Store;

pub(crate) use self::capture::{Captured, capture, read_files};
pub(crate) use self::destination::{
    Destination, InFlight, apply, apply_or_revert, remove_temporary_files, revert,
};
use crate::copies::{Copies, Mounted};
use crate::error::Error;
use crate::included::Included;
use crate::remove::remove_all;
use crate::setup;
use crate::steps::Steps;
use crate::tree::Tree;

/// A private directory that holds the files of a tree, plus files that programs have left there.
#[derive(Debug)]
pub(crate) struct Workspace {
    destination: Destination,
    tree: Tree,
    stamps: scan::StampedFiles,
    /// Directories whose `.git` belongs to the workspace.
    repositories: BTreeSet<String>,
    copies: Option<Arc<Copies>>,
    /// The mount of the files that all copies share.
    mounted: Option<Mounted>,
    /// Whether no tree was written yet.
    is_fresh: bool,
    /// Whether the directory holds exactly the files that all copies share.
    is_pristine: bool,
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
            mounted: None,
            is_fresh: true,
            is_pristine: false,
            included: Included::default(),
            set_up: BTreeSet::new(),
            setup_key: None,
            is_used: false,
        })
    }

    /// Creates a working copy of a run: an empty one, or with overlays one with the files that all
    /// copies share. Removes files of an earlier one with that name.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(crate) fn in_copies(copies: &Arc<Copies>, name: &str, in_flight: &InFlight) -> Result<Self, Error> {
        let workspace = Self::new(&copies.plan_dir()?, name, Arc::clone(in_flight))?;
        let mut workspace = Self { copies: Some(Arc::clone(copies)), ..workspace };
        workspace.mount()?;
        Ok(workspace)
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

    /// Returns whether no files were written yet.
    pub(crate) fn is_fresh(&self) -> bool {
        self.is_fresh
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
        if !is_used {
            self.copy_built().await?;
        }
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

    /// Resets the directory to `tree`, and its repository, if it has one, to `base`.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Store`], [`Error::Setup`] or [`Error::Git`].
    pub(crate) async fn start_from(&mut self, base: &Tree, tree: &Tree, store: &Store) -> Result<(), Error> {
        self.prepare(tree, store).await?;
        let copies = self.copies.clone();
        if let Some((copies, git)) = copies.as_ref().and_then(|copies| Some((copies, copies.git()?))) {
            git.attach(self.dir(), &copies.layers_dir()?, base, store).await?;
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
        self.is_pristine = false;
        self.repositories.clear();
        self.set_up.clear();
    }

    /// Creates the directory of a workspace again if it is suspended. Its files are written by the
    /// next [`reset`](Self::reset).
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(crate) fn wake(&mut self) -> Result<(), Error> {
        if self.mounted.is_some() {
            return Ok(());
        }
        let (Some(copies), Some(name)) = (&self.copies, self.root().file_name()) else { return Ok(()) };
        let dir = copies.plan_dir()?.create_subdirectory(name, 0o777);
        self.destination.dir = dir.map_err(Error::io("create", self.root()))?;
        self.mount()
    }

    /// Removes the directory.
    pub(crate) fn remove(mut self) {
        self.remove_directory();
    }

    fn remove_directory(&mut self) {
        self.mounted = None;
        if let Err(error) = remove_all(self.root()) {
            tracing::warn!(%error, directory = %self.root().display(), "cannot remove a workspace");
        }
    }
}

#[cfg(test)]
mod race;
