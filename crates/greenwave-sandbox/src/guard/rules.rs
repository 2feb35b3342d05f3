//! Enforces guards on Linux, with Landlock or with a mount namespace.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use ::landlock::{
    ABI, AccessFs, BitFlags, CompatLevel, Compatible, Ruleset, RulesetAttr, RulesetCreated, RulesetError,
};
use greenwave_process::{BeforeExec, Setup};

use super::Guard;
use crate::refusals::refuse_limits_and_samples;
use crate::rights::Scope;
use crate::{Error, ReadRules, Strength, rights};

#[path = "mounts.rs"]
mod mounts;

/// The newest version whose rights are used. Older kernels enforce those that they have.
const VERSION: ABI = ABI::V3;
/// Maximum number of permitted paths. With more, a mount namespace is used.
const PATHS_MAX: usize = 20_000;

/// A guard as the kernel enforces it.
#[derive(Debug)]
pub(super) enum Rules {
    Landlock(OwnedFd),
    /// Mounts, and a rule set if links must be protected: nothing can be mounted on a link.
    Mount(Guard, Option<OwnedFd>),
}

impl Rules {
    /// Uses Landlock unless a protected directory lies in an open one. Both ways are probed once
    /// per process.
    pub(super) fn new(guard: &Guard, open: &[&Path]) -> Result<Self, Error> {
        if let Some(link) = guard.link_in(open) {
            let link = link.display();
            return Err(unavailable(&format!("commands can replace the link {link} on a protected path")));
        }
        // This probe starts no process.
        let available = || ReadRules::available().map_err(|error| error.to_string());
        let mut reason = "a protected directory lies in one that commands create files in".to_owned();
        if !guard.is_inside(open) {
            match available().and_then(|()| ruleset(guard)) {
                Ok(rules) => return Ok(Self::Landlock(rules)),
                Err(error) => reason = error,
            }
        }
        Strength::Mount.available().map_err(|error| unavailable(&format!("{reason}; {error}")))?;
        let links = Guard { links: guard.links.clone(), ..Guard::default() };
        let rules = (!links.links.is_empty()).then(|| available().and_then(|()| ruleset(&links)));
        let rules = rules.transpose().map_err(|error| {
            unavailable(&format!("the links on protected paths cannot be protected: {error}"))
        })?;
        Ok(Self::Mount(guard.clone(), rules))
    }

    pub(super) fn strength(&self) -> Strength {
        match self {
            Self::Landlock(_) => Strength::Landlock,
            Self::Mount(..) => Strength::Mount,
        }
    }

    pub(super) fn attach(&self, command: &mut impl BeforeExec, directory: &Path) -> Result<(), Error> {
        match self {
            Self::Landlock(rules) => {
                let rules = rules.try_clone().map_err(|error| unavailable(&error))?;
                command.before_exec(Setup::NoNewPrivileges);
                command.before_exec(refuse_limits_and_samples());
                command.before_exec(Setup::Restrict(rules));
            }
            Self::Mount(guard, rules) => {
                let steps = mounts::mounts(guard, directory).map_err(|error| unavailable(&error))?;
                steps.into_iter().for_each(|step| command.before_exec(step));
                if let Some(rules) = rules {
                    let rules = rules.try_clone().map_err(|error| unavailable(&error))?;
                    command.before_exec(Setup::Restrict(rules));
                }
            }
        }
        Ok(())
    }
}

fn unavailable(reason: &impl ToString) -> Error {
    Error::Unavailable { facility: "protection of directories", reason: reason.to_string() }
}

/// Creates a rule set that permits everything beside the protected directories.
///
/// A right on a directory holds for everything below it and cannot be taken back there. The
/// directories above a protected one or a link therefore get no rights; their other entries do.
fn ruleset(guard: &Guard) -> Result<OwnedFd, String> {
    let protected: BTreeSet<&Path> =
        guard.hidden.iter().chain(&guard.read_only).map(PathBuf::as_path).collect();
    let links = guard.links.iter().map(PathBuf::as_path);
    let above: BTreeSet<&Path> =
        protected.iter().copied().chain(links).flat_map(|path| path.ancestors().skip(1)).collect();
    let mut permitted = BTreeSet::new();
    for directory in &above {
        let is_protected = |path: &Path| protected.iter().any(|protected| path.starts_with(protected));
        if is_protected(directory) {
            continue;
        }
        let entries = match directory.read_dir() {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => continue,
            entries => entries.map_err(|error| format!("cannot list {}: {error}", directory.display()))?,
        };
        for entry in entries.flatten() {
            let path = entry.path();
            let is_link = entry.file_type().is_ok_and(|kind| kind.is_symlink());
            if !is_link && !above.contains(path.as_path()) && !is_protected(&path) {
                permitted.insert(path);
            }
        }
    }
    if above.is_empty() {
        permitted.insert(PathBuf::from("/"));
    }
    if permitted.len() > PATHS_MAX {
        return Err(format!("more than {PATHS_MAX} files lie beside the protected directories"));
    }
    let rules = rules(guard, &permitted).map_err(|error| error.to_string())?;
    Option::from(rules).ok_or_else(|| "the kernel does not support Landlock".to_owned())
}

fn rules(guard: &Guard, permitted: &BTreeSet<PathBuf>) -> Result<RulesetCreated, RulesetError> {
    // Without this right, the kernel forbids moving files between directories altogether.
    let rules = Ruleset::default().set_compatibility(CompatLevel::HardRequirement);
    let rules = rules.handle_access(AccessFs::Refer)?;
    let governed = governed();
    let mut rules = rules
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(governed & !AccessFs::Refer)?
        .scope(Scope::Signal)?
        .create()?;
    for path in permitted.iter().chain(&guard.writable) {
        rules = rights::add(rules, VERSION, path, governed)?;
    }
    for path in &guard.read_only {
        rules = rights::add(rules, VERSION, path, AccessFs::ReadFile.into())?;
    }
    Ok(rules)
}

/// Returns the rights that rules govern: reading files and every change of the file system.
fn governed() -> BitFlags<AccessFs> {
    AccessFs::from_write(VERSION) | AccessFs::ReadFile
}
