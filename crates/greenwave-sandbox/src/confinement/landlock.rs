//! Confines a command with Landlock rules, as far as the kernel's version of it goes.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use ::landlock::{
    ABI, Access, AccessFs, CompatLevel, Compatible, Ruleset, RulesetAttr, RulesetCreated, RulesetError, Scope,
};
use greenwave_process::{BeforeExec, Setup};

use super::super::{Confinement, Network, Strength, unavailable};
use super::visible::{PATHS_MAX, too_many, visible};
use super::{DEVICES, DROPPED, SHARED_MEMORY, opens_disks};
use crate::refusals::{LOCAL, Refusals};
use crate::{Error, rights, seccomp};

/// The newest version whose rights are used. Older kernels enforce the ones that they support.
const VERSION: ABI = ABI::V6;
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
        let readable = visible(confinement, opens_disks())?;
        if readable.len() > PATHS_MAX {
            return Err(failed(too_many(readable.len())));
        }
        let rules = rules(confinement, &readable).map_err(|error| failed(error.to_string()))?;
        let rules = Option::from(rules).ok_or_else(|| failed("the kernel does not support it".to_owned()))?;
        let additions = confinement.additions.clone();
        Ok(Self { rules, network: confinement.network, additions })
    }

    pub(super) fn attach(&self, command: &mut impl BeforeExec) -> io::Result<()> {
        command.before_exec(Setup::NoNewPrivileges);
        let families = (self.network == Network::None).then_some(LOCAL);
        let (limits, scheduling, sampling) = (true, true, true);
        let refusals = Refusals { limits, scheduling, sampling, families, ..Refusals::of_confined() };
        command.before_exec(Setup::FilterCalls { filter: refusals.filter(), on_processes: false });
        command.before_exec(Setup::Restrict(self.rules.try_clone()?));
        let dropped = DROPPED.iter().fold(0, |mask, number| mask | 1 << number);
        command.before_exec(Setup::DropCapabilities(dropped));
        // The kernel permits one listener.
        if let Some((directory, prefix)) = self.additions.first() {
            seccomp::open_files(command, directory, prefix, false)?;
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
    // Nothing below `/proc` is writable: a user who may change the `oom_score_adj` of one process
    // may change that of all of them.
    let device = AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::IoctlDev;
    for path in DEVICES.iter().chain(&TERMINALS) {
        rules = rights::add(rules, VERSION, Path::new(path), device)?;
    }
    let all = all & !(AccessFs::MakeBlock | AccessFs::MakeChar);
    let writable = confinement.writable.iter().map(PathBuf::as_path);
    for path in writable.chain([Path::new(SHARED_MEMORY)]) {
        if !confinement.hidden.iter().any(|hidden| hidden.starts_with(path)) {
            rules = rights::add(rules, VERSION, path, all)?;
            continue;
        }
        // A right on the directory would hold for the hidden path, too, and one to move or link it
        // would show it to the next command under another name.
        for inside in readable.iter().filter(|inside| inside.starts_with(path)) {
            rules = rights::add(rules, VERSION, inside, all)?;
        }
    }
    Ok(rules)
}
