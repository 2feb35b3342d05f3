//! Confines a command with Landlock rules, as far as the kernel's version of it goes.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io;
use std::ops::Bound;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use ::landlock::{
    ABI, Access, AccessFs, CompatLevel, Compatible, Ruleset, RulesetAttr, RulesetCreated, RulesetError, Scope,
};
use greenwave_process::{BeforeExec, Setup};
use rustix::process::geteuid;

use super::super::{Confinement, Network, Strength, unavailable};
use super::{DEVICES, DROPPED, SHARED_MEMORY};
use crate::refusals::Refusals;
use crate::{Error, rights, seccomp};

/// The newest version whose rights are used. Older kernels enforce the ones that they support.
const VERSION: ABI = ABI::V6;
/// Maximum number of permitted paths.
const PATHS_MAX: usize = 20_000;
/// Directories of terminals and of open files.
const TERMINALS: [&str; 2] = ["/dev/pts", "/dev/fd"];

/// A rule set in the kernel.
#[derive(Debug)]
pub(in crate::confinement) struct PathRules {
    rules: OwnedFd,
    network: Network,
    /// Directories with the start of the names of files that may be created in them.
    additions: Vec<(PathBuf, OsString)>,
}

impl PathRules {
    pub(super) fn new(confinement: &Confinement) -> Result<Self, Error> {
        let failed = |error: String| unavailable(Strength::Landlock, &error);
        let is_root = geteuid().is_root();
        let readable = readable(confinement, is_root)?;
        if readable.len() > PATHS_MAX {
            let count = readable.len();
            return Err(failed(format!("{count} files lie beside the hidden ones, more than {PATHS_MAX}")));
        }
        let rules = rules(confinement, &readable).map_err(|error| failed(error.to_string()))?;
        let rules = Option::from(rules).ok_or_else(|| failed("the kernel does not support it".to_owned()))?;
        let additions = confinement.additions.clone();
        Ok(Self { rules, network: confinement.network, additions })
    }

    pub(super) fn attach(&self, command: &mut impl BeforeExec) -> io::Result<()> {
        command.before_exec(Setup::NoNewPrivileges);
        let refusals = Refusals { keyrings: true, internet: self.network == Network::None };
        command.before_exec(Setup::FilterCalls(refusals.filter()));
        command.before_exec(Setup::Restrict(self.rules.try_clone()?));
        let dropped = DROPPED.iter().fold(0, |mask, number| mask | 1 << number);
        command.before_exec(Setup::DropCapabilities(dropped));
        // The kernel permits one listener.
        if let Some((directory, prefix)) = self.additions.first() {
            seccomp::open_files(command, directory, prefix)?;
        }
        Ok(())
    }
}

/// Returns the version of Landlock in the kernel, from 1.
pub(in crate::confinement) fn version() -> Option<u32> {
    const VERSION_FLAG: u32 = 1;
    // SAFETY: with this flag, the call reads no memory.
    let version = unsafe {
        libc::syscall(libc::SYS_landlock_create_ruleset, std::ptr::null::<u8>(), 0_usize, VERSION_FLAG)
    };
    u32::try_from(version).ok().filter(|version| *version > 0)
}

fn rules(confinement: &Confinement, readable: &BTreeSet<PathBuf>) -> Result<RulesetCreated, RulesetError> {
    let all = AccessFs::from_all(VERSION);
    let rules = Ruleset::default().set_compatibility(CompatLevel::BestEffort).handle_access(all)?;
    let mut rules = rules.scope(Scope::from_all(VERSION))?.create()?;
    // Names can be listed everywhere: a right on a directory holds for everything below it.
    rules = rights::add(rules, VERSION, Path::new("/"), AccessFs::ReadDir.into())?;
    for path in readable {
        rules = rights::add(rules, VERSION, path, AccessFs::ReadFile | AccessFs::Execute)?;
    }
    // Programs write to their own files there, and the kernel checks each of them. Root could
    // change settings of the system there.
    if !geteuid().is_root() {
        rules = rights::add(rules, VERSION, Path::new("/proc"), AccessFs::WriteFile.into())?;
    }
    let device = AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::IoctlDev;
    for path in DEVICES.iter().chain(&TERMINALS) {
        rules = rights::add(rules, VERSION, Path::new(path), device)?;
    }
    let all = all & !(AccessFs::MakeBlock | AccessFs::MakeChar);
    let writable = confinement.writable.iter().map(PathBuf::as_path);
    for path in writable.chain([Path::new(SHARED_MEMORY)]) {
        // A hidden path stays hidden inside of a writable directory.
        let is_above_hidden = confinement.hidden.iter().any(|hidden| hidden.starts_with(path));
        let rights = if is_above_hidden { all & !(AccessFs::ReadFile | AccessFs::Execute) } else { all };
        rules = rights::add(rules, VERSION, path, rights)?;
    }
    Ok(rules)
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

/// Returns paths that together cover everything that is not hidden.
fn readable(confinement: &Confinement, is_root: bool) -> Result<BTreeSet<PathBuf>, Error> {
    let visible = confinement.writable.iter().chain(&confinement.readable).map(|path| (path.clone(), true));
    let mut marks: BTreeMap<PathBuf, bool> = visible.collect();
    marks.extend(confinement.hidden.iter().map(|path| (path.clone(), false)));
    if is_root {
        // The raw devices of the machine hold every file. Other users cannot open them.
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
