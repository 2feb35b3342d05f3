//! Finds paths that together cover everything that is not hidden, and permits reading them with
//! Landlock.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::io;
use std::ops::Bound;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use ::landlock::{
    AccessFs, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetError,
};
use rustix::fs::{Mode, OFlags};

use super::super::Confinement;
use crate::rights::Scope;
use crate::{Error, ReadRules};

/// Maximum number of permitted paths.
pub(super) const PATHS_MAX: usize = 20_000;

/// The visible paths of a confinement by mounts.
///
/// A mount that hides a file ends when somebody outside replaces the file by renaming another. In
/// addition to the mounts, Landlock therefore permits reading the files that are visible
/// now, and no others. The paths are found once for many commands.
///
/// They are strings of C, one after the other: there may be thousands beside a hidden path.
#[derive(Debug)]
pub(in crate::confinement) struct VisiblePaths(Box<[u8]>);

impl VisiblePaths {
    /// Lists the paths.
    ///
    /// # Errors
    /// The reason why Landlock or the list is not available: mounts alone hide then.
    pub(in crate::confinement) fn new(confinement: &Confinement) -> Result<Self, String> {
        ReadRules::available().map_err(|error| error.to_string())?;
        let paths = visible(confinement, false).map_err(|error| error.to_string())?;
        if paths.len() > PATHS_MAX {
            return Err(too_many(paths.len()));
        }
        let strings = paths.iter().flat_map(|path| [path.as_os_str().as_bytes(), &[0]]);
        Ok(Self(strings.collect::<Vec<_>>().concat().into()))
    }

    fn iter(&self) -> impl Iterator<Item = &Path> {
        let strings = self.0.split(|byte| *byte == 0).filter(|string| !string.is_empty());
        strings.map(|string| Path::new(OsStr::from_bytes(string)))
    }

    /// Returns rules for a command that can read other paths, too, and confines its signals and
    /// abstract Unix sockets.
    pub(super) fn rules<'a>(
        &'a self,
        others: impl Iterator<Item = &'a Path>,
    ) -> Result<Option<OwnedFd>, RulesetError> {
        let read: BitFlags<AccessFs> = AccessFs::ReadFile | AccessFs::Execute;
        let rules = Ruleset::default().set_compatibility(CompatLevel::HardRequirement);
        let rules = rules.handle_access(read | AccessFs::Refer)?.set_compatibility(CompatLevel::BestEffort);
        let mut rules = rules.scope(Scope::Signal | Scope::AbstractUnixSocket)?.create()?;
        // Moving and linking are allowed everywhere, as far as they grant no access.
        if let Ok(root) = PathFd::new("/") {
            rules = rules.add_rule(PathBeneath::new(root, AccessFs::Refer))?;
        }
        // A link in the place of a path must not lead to a hidden one.
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        for path in self.iter().chain(others) {
            // A removed file cannot be read.
            if let Ok(file) = rustix::fs::open(path, flags, Mode::empty()) {
                rules = rules.add_rule(PathBeneath::new(file, read))?;
            }
        }
        Ok(Option::from(rules))
    }
}

/// Says that more paths are visible than rules permit.
pub(super) fn too_many(count: usize) -> String {
    format!("{count} files lie beside the hidden ones, more than {PATHS_MAX}")
}

/// The hidden paths, and the visible ones inside of them.
struct Marks(BTreeMap<PathBuf, bool>);

impl Marks {
    /// Returns the paths that are marked below a directory, without those below one of them.
    fn below<'a>(&'a self, directory: &'a Path) -> impl Iterator<Item = (&'a Path, bool)> {
        let after = (Bound::Excluded(directory), Bound::Unbounded);
        let inside = self.0.range::<Path, _>(after).take_while(move |(path, _)| path.starts_with(directory));
        let mut last: Option<&Path> = None;
        inside.filter_map(move |(path, is_visible)| {
            if last.is_some_and(|last| path.starts_with(last)) {
                return None;
            }
            last = Some(path);
            Some((path.as_path(), *is_visible))
        })
    }

    /// Collects paths that together cover the visible part at and below a path. A directory with a
    /// marked path is covered by its entries.
    fn cover(&self, path: &Path, is_visible: bool, paths: &mut BTreeSet<PathBuf>) -> Result<(), Error> {
        if self.below(path).next().is_none() {
            paths.extend(is_visible.then(|| path.to_owned()));
            return Ok(());
        }
        let entries = match path.read_dir() {
            // Its entries cannot be named. The command cannot list them either.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => None,
            entries => Some(entries.map_err(Error::io("list", path))?),
        };
        let Some(entries) = entries.filter(|_| is_visible) else {
            return self.below(path).try_for_each(|(inner, is_visible)| self.cover(inner, is_visible, paths));
        };
        for entry in entries {
            let entry = entry.map_err(Error::io("list", path))?;
            let inner = entry.path();
            if entry.file_type().is_ok_and(|kind| !kind.is_symlink()) {
                self.cover(&inner, self.0.get(&inner).copied().unwrap_or(true), paths)?;
            }
        }
        Ok(())
    }
}

/// Returns paths that together cover everything that is not hidden. The raw devices of the machine,
/// which only root can open, are hidden on demand.
pub(super) fn visible(confinement: &Confinement, hides_devices: bool) -> Result<BTreeSet<PathBuf>, Error> {
    let shown = confinement.writable.iter().chain(&confinement.readable).map(|path| (path.clone(), true));
    let mut marks: BTreeMap<PathBuf, bool> = shown.collect();
    let hidden = confinement.hidden.iter().chain(&confinement.absent);
    marks.extend(hidden.map(|path| (path.clone(), false)));
    if hides_devices {
        // They hold every file.
        marks.insert("/dev".into(), false);
    }
    // A visible path outside of hidden ones needs no mark.
    let all = marks.clone();
    marks.retain(|path, is_visible| {
        !*is_visible || path.ancestors().skip(1).any(|above| all.get(above) == Some(&false))
    });
    let mut paths = BTreeSet::new();
    Marks(marks).cover(Path::new("/"), true, &mut paths)?;
    Ok(paths)
}
