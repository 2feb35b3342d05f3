//! Adds rights on paths to Landlock rule sets, and creates those without paths.

use std::os::fd::OwnedFd;
use std::path::Path;

pub(crate) use ::landlock::Scope;
use ::landlock::{
    ABI, AccessFs, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreated, RulesetCreatedAttr, RulesetError,
};

/// Adds rights on a path to a rule set. Rights that a file cannot have, in a version of Landlock,
/// are left out.
pub(crate) fn add(
    rules: RulesetCreated,
    version: ABI,
    path: &Path,
    rights: BitFlags<AccessFs>,
) -> Result<RulesetCreated, RulesetError> {
    // A path that cannot be opened with `O_PATH` cannot be used either.
    let Ok(file) = PathFd::new(path) else { return Ok(rules) };
    let rights = if path.is_dir() { rights } else { rights & AccessFs::from_file(version) };
    rules.add_rule(PathBeneath::new(file, rights))
}

/// Returns a rule set that restricts no file, and confines signals or abstract Unix sockets to the
/// processes that it governs. `None` before version 6.
pub(crate) fn scope_rules(scope: impl Into<BitFlags<Scope>>) -> Option<OwnedFd> {
    let rules = Ruleset::default().set_compatibility(CompatLevel::HardRequirement);
    Option::from(rules.scope(scope).ok()?.create().ok()?)
}
