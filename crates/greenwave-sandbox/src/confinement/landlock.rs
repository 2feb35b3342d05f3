//! Confines a command with Landlock rules, as far as the kernel's version of it goes.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use ::landlock::{
    ABI, Access, AccessFs, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreated, RulesetCreatedAttr, RulesetError, Scope,
};
use greenwave_process::{BeforeExec, Setup};

use super::super::{Confinement, Network, Strength, unavailable};
use super::network;
use crate::Error;

/// The newest version whose rights are used. Older kernels enforce the ones that they support.
const VERSION: ABI = ABI::V6;
/// Maximum number of permitted paths.
const PATHS_MAX: usize = 20_000;
/// Devices and directories of devices that every command may write to.
const DEVICES: [&str; 9] = [
    "/dev/null",
    "/dev/zero",
    "/dev/full",
    "/dev/random",
    "/dev/urandom",
    "/dev/tty",
    "/dev/ptmx",
    "/dev/pts",
    "/dev/fd",
];
/// Directory of shared memory.
const SHARED_MEMORY: &str = "/dev/shm";

/// A rule set in the kernel.
#[derive(Debug)]
pub(in crate::confinement) struct PathRules {
    rules: OwnedFd,
    network: Network,
}

impl PathRules {
    pub(super) fn new(confinement: &Confinement) -> Result<Self, Error> {
        let failed = |error: String| unavailable(Strength::Landlock, &error);
        let readable = readable(&confinement.hidden)?;
        if readable.len() > PATHS_MAX {
            let count = readable.len();
            return Err(failed(format!("{count} files lie beside the hidden ones, more than {PATHS_MAX}")));
        }
        let rules = rules(confinement, &readable).map_err(|error| failed(error.to_string()))?;
        let rules = Option::from(rules).ok_or_else(|| failed("the kernel does not support it".to_owned()))?;
        Ok(Self { rules, network: confinement.network })
    }

    pub(super) fn attach(&self, command: &mut impl BeforeExec) -> io::Result<()> {
        command.before_exec(Setup::NoNewPrivileges);
        if self.network == Network::None {
            command.before_exec(Setup::FilterCalls(network::without_internet()));
        }
        command.before_exec(Setup::Restrict(self.rules.try_clone()?));
        Ok(())
    }
}

fn rules(confinement: &Confinement, readable: &BTreeSet<PathBuf>) -> Result<RulesetCreated, RulesetError> {
    let all = AccessFs::from_all(VERSION);
    let rules = Ruleset::default().set_compatibility(CompatLevel::BestEffort).handle_access(all)?;
    let mut rules = rules.scope(Scope::from_all(VERSION))?.create()?;
    // Names can be listed everywhere: a right on a directory holds for everything below it.
    rules = add(rules, Path::new("/"), AccessFs::ReadDir.into())?;
    for path in readable {
        rules = add(rules, path, AccessFs::ReadFile | AccessFs::Execute)?;
    }
    // Programs write to their own files there, and the kernel checks each of them.
    rules = add(rules, Path::new("/proc"), AccessFs::WriteFile.into())?;
    let device = AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::IoctlDev;
    for path in DEVICES {
        rules = add(rules, Path::new(path), device)?;
    }
    let writable = confinement.writable.iter().map(PathBuf::as_path);
    for path in writable.chain([Path::new(SHARED_MEMORY)]) {
        // A hidden path stays hidden inside of a writable directory.
        let is_above_hidden = confinement.hidden.iter().any(|hidden| hidden.starts_with(path));
        let rights = if is_above_hidden { all & !(AccessFs::ReadFile | AccessFs::Execute) } else { all };
        rules = add(rules, path, rights)?;
    }
    Ok(rules)
}

/// Adds rights on a path. Rights that a file cannot have are left out.
fn add(
    rules: RulesetCreated,
    path: &Path,
    rights: BitFlags<AccessFs>,
) -> Result<RulesetCreated, RulesetError> {
    // A path that cannot be opened with `O_PATH` cannot be used either.
    let Ok(file) = PathFd::new(path) else { return Ok(rules) };
    let rights = if path.is_dir() { rights } else { rights & AccessFs::from_file(VERSION) };
    rules.add_rule(PathBeneath::new(file, rights))
}

/// Returns paths that together cover everything except for the hidden ones: the siblings of each
/// hidden path and of its ancestors.
fn readable(hidden: &[PathBuf]) -> Result<BTreeSet<PathBuf>, Error> {
    if hidden.is_empty() {
        return Ok(BTreeSet::from([PathBuf::from("/")]));
    }
    let open: BTreeSet<&Path> = hidden.iter().flat_map(|path| path.ancestors().skip(1)).collect();
    let mut paths = BTreeSet::new();
    for directory in &open {
        // A directory inside of a hidden one.
        if hidden.iter().any(|hidden| directory.starts_with(hidden)) {
            continue;
        }
        let entries = match directory.read_dir() {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => continue,
            entries => entries.map_err(Error::io("list", *directory))?,
        };
        for entry in entries {
            let entry = entry.map_err(Error::io("list", *directory))?;
            let path = entry.path();
            let is_link = entry.file_type().is_ok_and(|kind| kind.is_symlink());
            if !is_link && !open.contains(path.as_path()) && !hidden.contains(&path) {
                paths.insert(path);
            }
        }
    }
    Ok(paths)
}
