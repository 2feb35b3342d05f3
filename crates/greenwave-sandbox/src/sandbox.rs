//! A confinement together with the way in which it is enforced.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

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
    place: Option<Arc<Place>>,
}

/// The path at which commands see their directory.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    path: PathBuf,
    /// Each directory directly in one of these is shown there to the commands that work in it.
    parents: Vec<PathBuf>,
}

impl Place {
    /// Returns the directory that is shown to a command that works in `directory`.
    fn shown<'a>(&self, directory: &'a Path) -> Option<&'a Path> {
        let inside = self.parents.iter().filter(|parent| directory.starts_with(parent));
        let depth = inside.map(|parent| parent.components().count()).max()? + 1;
        directory.ancestors().find(|above| above.components().count() == depth)
    }
}

impl Sandbox {
    /// Creates a sandbox.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if the strength is not available or cannot enforce the network.
    pub fn new(confinement: Confinement, strength: Strength) -> Result<Self, Error> {
        Confinement::new().network(confinement.restricted_network()).prepare(strength)?;
        Ok(Self { confinement, strength, visible: VisibleCache::default(), place: None })
    }

    /// Has commands see the directory that they work in at the path `place`, too, and start there.
    /// So files with absolute paths that one command has written are valid for another command in a
    /// copy of the directory. The directories concerned are those directly in one of the `parents`;
    /// a command may work anywhere below such a directory.
    ///
    /// The place is an empty directory. If a [hidden](Confinement::hidden) directory contains the
    /// place and the parents, the own path of a directory becomes a symbolic link to it. Otherwise
    /// nothing can be renamed from one path to the other (`EXDEV`). Paths are compared by their
    /// names. Only has an effect under [`Strength::Mount`].
    #[must_use]
    pub fn shown_at(self, place: PathBuf, parents: Vec<PathBuf>) -> Self {
        let place = (self.strength == Strength::Mount).then(|| Arc::new(Place { path: place, parents }));
        Self { place, ..self }
    }

    /// Returns the sandbox with commands that see their directory at its own path only.
    #[must_use]
    pub fn without_place(&self) -> Self {
        Self { place: None, ..self.clone() }
    }

    /// Returns the path at which a command that works in `directory` sees the file or directory
    /// `path`. `None` if that is the path itself.
    #[must_use]
    pub fn place_of(&self, directory: &Path, path: &Path) -> Option<PathBuf> {
        let place = self.place.as_ref()?;
        let inside = path.strip_prefix(place.shown(directory)?).ok()?;
        // Joining nothing would add a slash.
        Some(place.path.components().chain(inside.components()).collect())
    }

    /// Returns the strength.
    #[must_use]
    pub fn strength(&self) -> Strength {
        self.strength
    }

    /// Returns the reason if a command can read a [hidden](Confinement::hidden) file that somebody
    /// replaces, or creates beside a hidden path, while the command runs: an old kernel, or too
    /// many files beside hidden paths. Otherwise commands cannot, and under [`Strength::Landlock`]
    /// they do not start. Lists the visible paths, as for the first command.
    #[must_use]
    pub fn replaced_files_problem(&self) -> Option<String> {
        let is_mounted = self.strength == Strength::Mount;
        is_mounted.then(|| self.visible.problem(&self.confinement)).flatten()
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
    /// which it can read even if it lies below a hidden one, and which it sees
    /// [at another path](Self::shown_at) on demand. `writable` are paths that it may write
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
        let place = self.place.as_ref().and_then(|place| Some((place.shown(directory)?, &place.path)));
        let confinement = match place {
            Some((shown, place)) => confinement.readable(place).shown_at(shown, place),
            None => confinement,
        };
        let prepared = confinement.prepare_with(self.strength, &self.visible, &self.confinement)?;
        prepared.attach(command, &self.place_of(directory, directory).unwrap_or(directory.to_owned()))
    }
}
