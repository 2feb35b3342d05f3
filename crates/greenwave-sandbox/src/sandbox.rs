//! A confinement together with the way in which it is enforced.

use std::io;
use std::path::{Path, PathBuf};

use greenwave_process::BeforeExec;

use crate::confinement::VisibleCache;
use crate::{Confinement, Error, PrivateDir, Strength};

/// A confinement with its strength, for programs that confine many commands in the same way, each
/// with further writable paths.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sandbox {
    confinement: Confinement,
    strength: Strength,
    visible: VisibleCache,
}

impl Sandbox {
    /// Creates a sandbox.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if the strength is not available or cannot enforce the network.
    pub fn new(confinement: Confinement, strength: Strength) -> Result<Self, Error> {
        Confinement::new().network(confinement.restricted_network()).prepare(strength)?;
        Ok(Self { confinement, strength, visible: VisibleCache::default() })
    }

    /// Returns the strength.
    #[must_use]
    pub fn strength(&self) -> Strength {
        self.strength
    }

    /// Creates the [private directory](Confinement::private_in) of one command at `path`, which
    /// must not exist and must be one of the command's writable paths or in one of them.
    /// `directory` is the working directory of the command. Returns the sandbox of the command with
    /// it. `None` if the confinement needs no such directory.
    ///
    /// # Errors
    /// The error of the operating system.
    pub fn private_dir(&self, path: &Path, directory: &Path) -> io::Result<Option<(Self, PrivateDir)>> {
        let Some((original, copied)) = self.confinement.replaced_directory() else { return Ok(None) };
        if self.strength != Strength::Mount {
            return Ok(None);
        }
        let private = PrivateDir::create(original, path, copied, &self.confinement.left_out(directory))?;
        Ok(private.map(|private| {
            let confinement = self.confinement.clone().with_private(&private);
            (Self { confinement, ..self.clone() }, private)
        }))
    }

    /// Confines a command and everything that it starts. `directory` is its working directory,
    /// which it can read even if it lies below a hidden one. `writable` are paths that it may write
    /// to in addition to those of the confinement.
    ///
    /// Resolves all paths. Under [`Strength::Landlock`], and for the first command under
    /// [`Strength::Mount`], that takes from 0.1 ms to some milliseconds if many files lie beside
    /// hidden ones. Attach a [`Tracer`](crate::Tracer) after this.
    ///
    /// # Errors
    /// As [`Confinement::prepare`] and
    /// [`PreparedConfinement::attach`](crate::PreparedConfinement::attach).
    pub fn attach<P: Into<PathBuf>>(
        &self,
        command: &mut impl BeforeExec,
        directory: &Path,
        writable: impl IntoIterator<Item = P>,
    ) -> Result<(), Error> {
        let confinement = self.confinement.clone().readable(directory);
        let confinement = writable.into_iter().fold(confinement, Confinement::writable);
        let prepared = confinement.prepare_with(self.strength, &self.visible, &self.confinement)?;
        prepared.attach(command, directory)
    }
}
