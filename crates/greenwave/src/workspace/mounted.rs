//! The files that all copies share, and working copies that are overlays on them.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use greenwave_dir::FileKind;
use greenwave_inputs::is_cache_directory;

use super::scan::StampedFiles;
use super::{InFlight, Workspace};
use crate::copies::{BaseFiles, BaseStamps, Copies, CopyMethod};
use crate::error::Error;
use crate::setup;
use crate::test_runner::TestRunner;

impl Workspace {
    /// Creates the directory of the files that all copies share. It is not a working copy.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(crate) fn base(copies: &Arc<Copies>, in_flight: &InFlight) -> Result<Self, Error> {
        let workspace = Self::new(&copies.layers_dir()?, Copies::BASE_FILES, Arc::clone(in_flight))?;
        Ok(Self { copies: Some(Arc::clone(copies)), ..workspace })
    }

    /// Shares the files of this directory among all copies: overlays share all of them, and other
    /// copies begin with the build output. `mtime` is the modification time of the files.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(crate) fn share(self, mtime: i64) -> Result<(), Error> {
        let Some(copies) = self.copies.clone() else { return Ok(()) };
        self.dir().remove_all(".git").map_err(Error::io("remove", self.root().join(".git")))?;
        let mut built = Vec::new();
        for directory in BTreeSet::from([String::new(), self.project()]) {
            let at = self.dir().subdirectory(&directory);
            let entries =
                at.and_then(|at| at.entries()).map_err(Error::io("list", self.root().join(&directory)))?;
            for entry in entries.into_iter().filter(|entry| entry.kind == FileKind::Directory) {
                let path = Path::new(&directory).join(entry.name);
                let name = path.to_str().filter(|_| is_cache_directory(&self.root().join(&path)));
                built.extend(name.map(str::to_owned));
            }
        }
        let stamps = Arc::new(BaseStamps::new(self.stamps.into_known()));
        copies.set_base(BaseFiles { dir: self.destination.dir, tree: self.tree, stamps, mtime, built });
        Ok(())
    }

    /// Adds the hashes of the files that did not change since they were written or read to those of
    /// tests.
    pub(crate) fn add_hashes(&self, tests: &dyn TestRunner) {
        tests.add_hashes(self.stamps.hashes());
        if let Some((device, files)) = self.stamps.shared_hashes() {
            tests.share_hashes(device, files);
        }
    }

    /// Runs a command that builds the project here.
    ///
    /// # Errors
    /// [`Error::Setup`] or [`Error::Io`].
    pub(crate) async fn build(&self, command: &[String]) -> Result<(), Error> {
        let Some(copies) = self.copies.clone() else { return Ok(()) };
        let (directory, temporary, variables) =
            (self.create_directory()?, copies.temporary_dir()?, copies.variables());
        let setting = self.setting(&directory, temporary.path(), &variables, copies.options().time_max);
        setup::run(command, &setting, &copies.options().starter).await
    }

    /// Copies the build output that all copies share into a new copy, which does not have it yet.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(super) async fn copy_built(&self) -> Result<(), Error> {
        let Some(copies) = self.copies.clone().filter(|_| self.mounted.is_none()) else { return Ok(()) };
        if copies.base().is_none_or(|base| base.built.is_empty()) {
            return Ok(());
        }
        let root = self.dir().clone();
        self.blocking(move || {
            copies
                .base()
                .map_or(Ok(()), |base| base.copy_built(&root))
                .map_err(Error::io("copy build output to", root.path()))
        })
        .await
    }

    /// Mounts the files that all copies share on the directory, if there are any.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(super) fn mount(&mut self) -> Result<(), Error> {
        let (Some(copies), Some(name)) = (self.copies.clone(), self.root().file_name()) else {
            return Ok(());
        };
        let overlay = copies.base().filter(|_| matches!(copies.method(), CopyMethod::Overlay(_)));
        let Some(base) = overlay else { return Ok(()) };
        let failed = || Error::io("mount an overlay on", self.root());
        let mounted = copies.mount(base, name, self.dir()).map_err(failed())?;
        let dir = copies.plan_dir()?.subdirectory(name).map_err(failed())?;
        let device = dir.metadata("").map_err(failed())?.identity().0;
        self.mounted = Some(mounted);
        self.destination.dir = dir;
        self.stamps = StampedFiles::shared(Arc::clone(&base.stamps), device);
        self.tree.clone_from(&base.tree);
        self.is_pristine = true;
        Ok(())
    }
}
