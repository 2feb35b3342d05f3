//! Creates Landlock rule sets and applies them.

use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::OnceLock;

use greenwave_process::{BeforeExec, Setup};
use landlock::{
    AccessFs, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset, RulesetAttr, RulesetCreated,
    RulesetCreatedAttr, RulesetError,
};

/// A rule set in the kernel.
#[derive(Debug)]
pub(super) struct Rules(OwnedFd);

impl Rules {
    /// Creates rules that allow reading these paths, with everything below them, and no others.
    pub(super) fn new(paths: &[PathBuf]) -> Result<Self, String> {
        let failed = |error: RulesetError| error.to_string();
        let mut rules = empty().map_err(failed)?;
        // Moving and linking are allowed everywhere, as far as they grant no access.
        let root = PathFd::new("/").map_err(|error| error.to_string())?;
        rules = rules.add_rule(PathBeneath::new(root, AccessFs::Refer)).map_err(failed)?;
        for path in paths {
            // A path that cannot be opened with `O_PATH` cannot be read either.
            let Ok(file) = PathFd::new(path) else { continue };
            let rule = PathBeneath::new(file, AccessFs::ReadFile | AccessFs::Execute);
            rules = rules.add_rule(rule).map_err(failed)?;
        }
        descriptor(rules).map(Self)
    }

    pub(super) fn attach(&self, command: &mut impl BeforeExec) -> io::Result<()> {
        let rules = self.0.try_clone()?;
        command.before_exec(Setup::NoNewPrivileges);
        command.before_exec(Setup::Restrict(rules));
        Ok(())
    }
}

/// Returns the reason if rules cannot be used. The system is probed once per process.
pub(super) fn available() -> Result<(), String> {
    static AVAILABLE: OnceLock<Result<(), String>> = OnceLock::new();
    AVAILABLE.get_or_init(probe).clone()
}

fn probe() -> Result<(), String> {
    let rules = descriptor(empty().map_err(|error| format!("the kernel does not support it: {error}"))?)?;
    // A thread cannot lift its restrictions, so one is created for them.
    let thread = std::thread::Builder::new().name("greenwave-landlock-probe".to_owned());
    let probe = thread.spawn(move || restrict(rules)).map_err(|error| error.to_string())?;
    match probe.join() {
        Ok(restricted) => restricted.map_err(|error| format!("rules cannot be applied: {error}")),
        Err(_) => Err("the probe panicked".to_owned()),
    }
}

/// Creates an empty rule set, which forbids everything that it governs.
fn empty() -> Result<RulesetCreated, RulesetError> {
    // A rule set that does not govern `Refer` forbids to move files between directories at all.
    let governed: BitFlags<AccessFs> = AccessFs::ReadFile | AccessFs::Execute | AccessFs::Refer;
    Ruleset::default().set_compatibility(CompatLevel::HardRequirement).handle_access(governed)?.create()
}

fn descriptor(rules: RulesetCreated) -> Result<OwnedFd, String> {
    Option::from(rules).ok_or_else(|| "the kernel does not support it".to_owned())
}

/// Applies rules to the calling thread and everything that it starts.
fn restrict(rules: OwnedFd) -> io::Result<()> {
    Setup::NoNewPrivileges.apply()?;
    Setup::Restrict(rules).apply()
}
