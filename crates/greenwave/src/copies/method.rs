//! Methods of making working copies.

use std::fs::File;
use std::io;

use greenwave_dir::Dir;

use super::overlay::{self, Overlays};
use crate::error::Error;

/// Setting of how working copies are made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum CopyMode {
    /// The best method that the system has: overlays if programs can rename all directories in
    /// them, or else reflinks, or else copies.
    #[default]
    Auto,
    /// Copies share the files of the project until they are written.
    Overlay,
    /// Files share their blocks with the project's until they are written.
    Reflink,
    /// Each file is copied.
    Copy,
}

/// Method of making working copies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CopyMethod {
    /// By overlays on one copy.
    Overlay(Overlays),
    /// By clones of files (`FICLONE`).
    Reflink,
    /// By copies of files.
    Copy,
}

impl CopyMethod {
    /// Chooses the method for copies in a directory, whose files come from another one. `overlays`
    /// says whether this process can mount overlays.
    ///
    /// # Errors
    /// [`Error::CopyMode`] if the setting demands a method that the system does not have.
    pub(crate) fn choose(mode: CopyMode, overlays: Option<Overlays>, copies: &Dir) -> Result<Self, Error> {
        let overlay = || overlay::probe(overlays, copies).map(Self::Overlay);
        let reflink = || probe_clone(copies).map(|()| Self::Reflink);
        let failed =
            |method| move |source| Error::CopyMode { method, directory: copies.path().to_owned(), source };
        match mode {
            CopyMode::Copy => Ok(Self::Copy),
            CopyMode::Overlay => overlay().map_err(failed("overlay")),
            CopyMode::Reflink => reflink().map_err(failed("reflink")),
            CopyMode::Auto => {
                let full = overlay().ok().filter(|it| *it == Self::Overlay(Overlays::Full));
                Ok(full.or_else(|| reflink().ok()).unwrap_or(Self::Copy))
            }
        }
    }

    /// Returns the name that the setting gives it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Overlay(_) => "overlay",
            Self::Reflink => "reflink",
            Self::Copy => "copy",
        }
    }

    /// Copies the content of a file into an empty one. The content does not pass through the memory
    /// of this process where the kernel can copy it.
    pub(super) fn copy_content(self, mut source: &File, mut target: &File) -> io::Result<()> {
        // Files on different file systems cannot be cloned.
        if self != Self::Copy && clone(source, target).is_ok() {
            return Ok(());
        }
        io::copy(&mut source, &mut target).map(drop)
    }
}

/// Clones a file in the directory.
fn probe_clone(directory: &Dir) -> io::Result<()> {
    let mut source = directory.temporary(".probe-", 0o600)?;
    source.write_all(b"greenwave")?;
    clone(source.file(), directory.temporary(".probe-", 0o600)?.file())
}

#[cfg(any(target_os = "linux", target_os = "android"))]
fn clone(source: &File, target: &File) -> io::Result<()> {
    Ok(rustix::fs::ioctl_ficlone(target, source)?)
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn clone(_: &File, _: &File) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_method_is_chosen_and_copies_files() {
        let directory = tempfile::tempdir().unwrap();
        let dir = Dir::open(directory.path()).unwrap();
        assert_eq!(CopyMethod::choose(CopyMode::Copy, None, &dir).unwrap(), CopyMethod::Copy);
        let best = CopyMethod::choose(CopyMode::Auto, None, &dir).unwrap();
        let forced = CopyMethod::choose(CopyMode::Reflink, None, &dir);
        assert_eq!(forced.is_ok(), best == CopyMethod::Reflink, "{forced:?}");
        let denied = CopyMethod::choose(CopyMode::Overlay, None, &dir).unwrap_err();
        assert_eq!(
            crate::error::chain(&denied).rsplit(": ").next(),
            Some("this process may not mount file systems")
        );
        assert!(dir.entries().unwrap().is_empty(), "the probe leaves nothing");
        std::fs::write(directory.path().join("a"), "content").unwrap();
        for (name, method) in [("b", CopyMethod::Reflink), ("c", CopyMethod::Copy)] {
            let target = File::create(directory.path().join(name)).unwrap();
            method.copy_content(&File::open(directory.path().join("a")).unwrap(), &target).unwrap();
            assert_eq!(std::fs::read_to_string(directory.path().join(name)).unwrap(), "content");
        }
    }
}
