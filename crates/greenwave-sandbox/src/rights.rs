//! Adds rights on paths to Landlock rule sets.

use std::path::Path;

use ::landlock::{
    ABI, AccessFs, BitFlags, PathBeneath, PathFd, RulesetCreated, RulesetCreatedAttr, RulesetError,
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
