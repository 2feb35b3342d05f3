//! Working copies that are overlays on the files that all copies share.

use std::sync::Arc;

use greenwave_storage::Store;

use super::scan::StampedFiles;
use super::{InFlight, Workspace};
use crate::copies::{BaseFiles, Copies, CopyMethod};
use crate::error::Error;
use crate::tree::Tree;

impl Workspace {
    /// Creates the directory that the first tree of a run is written to: with overlays that of the
    /// files that all copies share, and otherwise the copy named `name`.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(crate) fn first(copies: &Arc<Copies>, name: &str, in_flight: &InFlight) -> Result<Self, Error> {
        if !matches!(copies.method(), CopyMethod::Overlay(_)) {
            return Self::in_copies(copies, name, in_flight);
        }
        let workspace = Self::new(&copies.layers_dir()?, Copies::BASE_FILES, Arc::clone(in_flight))?;
        Ok(Self { copies: Some(Arc::clone(copies)), ..workspace })
    }

    /// Shares the files of this workspace among all copies. Returns the workspace if copies share
    /// no files.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(crate) fn share(self) -> Result<Option<Self>, Error> {
        let Some(copies) = self.copies.clone() else { return Ok(Some(self)) };
        if !matches!(copies.method(), CopyMethod::Overlay(_)) {
            return Ok(Some(self));
        }
        self.dir().remove_all(".git").map_err(Error::io("remove", self.root().join(".git")))?;
        let stamps = self.stamps.into_known();
        copies.set_base(BaseFiles { dir: self.destination.dir, tree: self.tree, stamps });
        Ok(None)
    }

    /// Writes the tree of a project without a repository to the files that all copies share, if
    /// they share any.
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::Store`].
    pub(crate) async fn share_tree(
        copies: &Arc<Copies>,
        tree: &Tree,
        store: &Store,
        in_flight: &InFlight,
    ) -> Result<(), Error> {
        if matches!(copies.method(), CopyMethod::Overlay(_)) {
            let mut workspace = Self::first(copies, Copies::BASE_FILES, in_flight)?;
            workspace.write_first(tree, store).await?;
            workspace.share()?;
        }
        Ok(())
    }

    /// Mounts the files that all copies share on the directory, if there are any.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(super) fn mount(&mut self) -> Result<(), Error> {
        let (Some(copies), Some(name)) = (self.copies.clone(), self.root().file_name()) else {
            return Ok(());
        };
        let Some(base) = copies.base() else { return Ok(()) };
        let failed = || Error::io("mount an overlay on", self.root());
        let mounted = copies.mount(base, name, self.dir()).map_err(failed())?;
        let dir = copies.plan_dir()?.subdirectory(name).map_err(failed())?;
        let device = dir.metadata("").map_err(failed())?.identity().0;
        self.mounted = Some(mounted);
        self.destination.dir = dir;
        self.stamps = StampedFiles::default();
        let stamps = base.stamps.iter().cloned();
        self.stamps.record(stamps.map(|(path, file, mut stamp)| {
            stamp.device = device;
            (path, file, stamp)
        }));
        self.tree.clone_from(&base.tree);
        self.is_pristine = true;
        Ok(())
    }
}
