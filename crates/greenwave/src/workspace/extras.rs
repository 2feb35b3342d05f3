//! Files of a working copy that are not in its tree: included ones, and those of setup commands.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use greenwave_dir::Dir;

use super::Workspace;
use crate::copies::Copies;
use crate::error::Error;
use crate::included::is_secret;
use crate::setup;
use crate::setup_store::{StoredFiles, StoredSetup};

impl Workspace {
    /// Takes what setup commands have created in another copy. Runs them if no copy has run them,
    /// or if their results work only in the copy in which they were created.
    pub(super) async fn share_setup(&self, copies: &Arc<Copies>, key: [u8; 32]) -> Result<(), Error> {
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
                let built = copies.base().map(|base| base.built.clone()).unwrap_or_default();
                let others = copies.included()?.iter().cloned().chain(copies.needed()).chain(built);
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
    pub(super) async fn run_setup(&self, copies: &Copies) -> Result<(), Error> {
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
    pub(super) fn setting<'a>(
        &'a self,
        directory: &'a Path,
        temporary: &'a Path,
        variables: &'a [(String, String)],
        time_max: Duration,
    ) -> setup::Setting<'a> {
        setup::Setting { root: self.root(), directory, temporary, variables, time_max }
    }
}
