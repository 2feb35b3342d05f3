//! Mounts working copies as overlays on one directory of files.
//!
//! All copies share the files of the base, and each has a directory for its changes. The
//! mounts belong to the mount namespace of this process, so they vanish with it, however it ends.

use std::io;
use std::path::Path;

use greenwave_dir::Dir;

/// Ability of this process to mount overlays in its mount namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overlays {
    /// For an administrator: programs can rename every directory.
    Full,
    /// In a user namespace: `rename` of a directory of the base fails with `EXDEV`, as between two
    /// file systems. `mv` copies such a directory; `git mv` and other programs fail.
    WithoutRenames,
}

/// Characters that separate the options of a mount.
const SEPARATORS: [char; 3] = [',', ':', '\\'];

/// A mounted overlay. It is unmounted when it is dropped.
#[derive(Debug)]
pub(crate) struct Mounted {
    target: Dir,
    /// Directory of the changes in the copy.
    layers: Dir,
}

impl Mounted {
    /// Mounts an overlay on `target`, whose files are those of `lower`. `layers` is an empty
    /// directory on the same file system.
    ///
    /// # Errors
    /// Those of the kernel.
    pub(crate) fn new(overlays: Overlays, lower: &Path, layers: Dir, target: Dir) -> io::Result<Self> {
        let upper = layers.create_new_subdirectory("upper", 0o777)?;
        let work = layers.create_new_subdirectory("work", 0o777)?;
        let paths = [("lowerdir", lower), ("upperdir", upper.path()), ("workdir", work.path())];
        let mut options = match overlays {
            Overlays::Full => "redirect_dir=on,metacopy=off,index=off".to_owned(),
            Overlays::WithoutRenames => "userxattr".to_owned(),
        };
        for (name, path) in paths {
            let path = path.to_str().filter(|path| !path.contains(SEPARATORS));
            let path = path.ok_or_else(|| io::Error::other("the path has `,`, `:` or `\\` in it"))?;
            options.push_str(&format!(",{name}={path}"));
        }
        mount(target.path(), &options)?;
        Ok(Self { target, layers })
    }
}

/// Copies directories of the base into the layer of changes, without their entries. Otherwise the
/// first change below one would do that, and change times of the directory and of those above, as
/// if they had been renamed. A build may have removed some of them from the base.
///
/// # Errors
/// Those of the kernel.
#[cfg(target_os = "linux")]
pub(super) fn copy_up<'p>(copy: &Path, directories: impl IntoIterator<Item = &'p Path>) -> io::Result<()> {
    use rustix::fs::{AtFlags, Timespec, Timestamps, UTIME_OMIT, statat, utimensat};

    // The directory that was opened before the mount is below it.
    let copy = Dir::open(copy)?;
    for directory in directories {
        let directory = match copy.subdirectory(directory) {
            Ok(directory) => directory,
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                continue;
            }
            Err(error) if greenwave_dir::refused(&error).is_some() => continue,
            Err(error) => return Err(error),
        };
        let stat = statat(&directory, ".", AtFlags::empty())?;
        // A change to the present value is enough.
        let times = Timestamps {
            last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
            last_modification: Timespec { tv_sec: stat.st_mtime, tv_nsec: stat.st_mtime_nsec as _ },
        };
        utimensat(&directory, ".", &times, AtFlags::empty())?;
    }
    Ok(())
}

#[cfg(not(target_os = "linux"))]
pub(super) fn copy_up<'p>(_: &Path, _: impl IntoIterator<Item = &'p Path>) -> io::Result<()> {
    Ok(())
}

impl Drop for Mounted {
    fn drop(&mut self) {
        unmount(self.target.path());
        if let Err(error) = crate::remove::remove_all(self.layers.path()) {
            tracing::warn!(%error, directory = %self.layers.path().display(), "cannot remove a copy");
        }
    }
}

/// Unmounts all overlays on the entries of a directory.
pub(super) fn unmount_below(directory: &Dir) {
    for entry in directory.entries().unwrap_or_default() {
        unmount(&directory.path().join(entry.name));
    }
}

/// Unmounts a copy. Programs that still work there keep the mount until they end.
#[cfg(target_os = "linux")]
fn unmount(path: &Path) {
    use rustix::io::Errno;
    use rustix::mount::UnmountFlags;

    match rustix::mount::unmount(path, UnmountFlags::DETACH) {
        // No overlay is mounted there.
        Ok(()) | Err(Errno::INVAL | Errno::NOENT | Errno::PERM) => {}
        Err(error) => tracing::warn!(%error, directory = %path.display(), "cannot unmount a copy"),
    }
}

#[cfg(not(target_os = "linux"))]
fn unmount(_: &Path) {}

/// Mounts an overlay in a directory to see whether that is possible.
///
/// # Errors
/// Those of the kernel.
pub(super) fn probe(overlays: Option<Overlays>, directory: &Dir) -> io::Result<Overlays> {
    let overlays = overlays.ok_or_else(|| io::Error::other("this process may not mount file systems"))?;
    let probe = directory.temporary_subdirectory(".probe-", 0o700)?;
    let name = probe.path().file_name().unwrap_or_default().to_owned();
    let probed = try_mount(overlays, &probe);
    directory.remove_all(name)?;
    probed.map(|()| overlays)
}

fn try_mount(overlays: Overlays, probe: &Dir) -> io::Result<()> {
    let lower = probe.create_subdirectory("lower/directory", 0o700)?;
    let layers = probe.create_subdirectory("layers", 0o700)?;
    let target = probe.create_subdirectory("target", 0o700)?;
    let (above, path) = (probe.path().join("lower"), target.path().to_owned());
    drop(lower);
    let _mounted = Mounted::new(overlays, &above, layers, target)?;
    let mounted = Dir::open(&path)?;
    if overlays == Overlays::Full { mounted.rename("directory", "renamed") } else { Ok(()) }
}

#[cfg(target_os = "linux")]
fn mount(target: &Path, options: &str) -> io::Result<()> {
    use std::ffi::CString;

    let options = CString::new(options)?;
    Ok(rustix::mount::mount(
        "overlay",
        target,
        "overlay",
        rustix::mount::MountFlags::empty(),
        options.as_c_str(),
    )?)
}

#[cfg(not(target_os = "linux"))]
fn mount(_: &Path, _: &str) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}
