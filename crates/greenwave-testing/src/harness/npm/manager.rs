//! Package managers: which one a package uses, and its commands.

use std::collections::BTreeMap;
use std::path::Path;

use super::package::Package;
use super::workspace::PNPM_WORKSPACE;
use crate::harness::project::Project;

/// Files that identify a package manager.
const FILES: [(&str, Manager); 8] = [
    ("pnpm-lock.yaml", Manager::Pnpm),
    (PNPM_WORKSPACE, Manager::Pnpm),
    ("yarn.lock", Manager::Yarn),
    (".yarnrc.yml", Manager::Yarn),
    ("bun.lock", Manager::Bun),
    ("bun.lockb", Manager::Bun),
    ("package-lock.json", Manager::Npm),
    ("npm-shrinkwrap.json", Manager::Npm),
];

/// A package manager.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Manager {
    Npm,
    Pnpm,
    Yarn,
    Bun,
}

impl Manager {
    /// Returns the manager that the nearest manifest or lock file names, npm without any. The field
    /// `packageManager` precedes lock files beside it.
    pub(super) fn of(project: &Project, packages: &BTreeMap<&Path, Package>, directory: &Path) -> Self {
        let in_directory = |directory: &Path| {
            let declared = packages.get(directory).and_then(|package| package.package_manager.as_deref());
            let by_file = || FILES.iter().find(|(file, _)| project.has(&directory.join(file)));
            declared.and_then(Self::named).or_else(|| by_file().map(|(_, manager)| *manager))
        };
        directory.ancestors().find_map(in_directory).unwrap_or(Manager::Npm)
    }

    /// Returns the manager in a text such as `pnpm@9.1.0+sha256.…`.
    fn named(text: &str) -> Option<Self> {
        let all = [Manager::Npm, Manager::Pnpm, Manager::Yarn, Manager::Bun];
        let name = text.split('@').next();
        all.into_iter().find(|manager| Some(manager.program()) == name)
    }

    /// Returns the name of the program.
    pub(super) fn program(self) -> &'static str {
        match self {
            Manager::Npm => "npm",
            Manager::Pnpm => "pnpm",
            Manager::Yarn => "yarn",
            Manager::Bun => "bun",
        }
    }

    /// Returns the command that runs the script `test`, with `pretest` and `posttest` where the
    /// manager does, and with the package's programs on the PATH.
    pub(super) fn test_command(self) -> Vec<String> {
        let words: &[&str] = match self {
            Manager::Bun => &["bun", "run", "test"],
            Manager::Npm => &["npm", "test"],
            Manager::Pnpm => &["pnpm", "test"],
            Manager::Yarn => &["yarn", "test"],
        };
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    /// Returns the command by which bun finds and runs tests without a script.
    pub(super) fn bun_command() -> Vec<String> {
        vec!["bun".to_owned(), "test".to_owned()]
    }

    /// Returns the command that runs a shell line with the package's programs on the PATH.
    pub(super) fn line_command(self, line: &str) -> Vec<String> {
        let words: &[&str] = match self {
            Manager::Pnpm => &["pnpm", "--shell-mode", "exec"],
            Manager::Yarn => &["yarn", "exec"],
            Manager::Npm => &["npm", "exec", "--call"],
            Manager::Bun => &["bun", "exec"],
        };
        words.iter().copied().chain([line]).map(str::to_owned).collect()
    }

    /// Returns the command that installs the dependencies of a project.
    pub(super) fn installation(self, project: &Project, directory: &Path) -> String {
        let has_lock = project.has(&directory.join("package-lock.json"));
        match self {
            Manager::Npm if has_lock => "npm ci".to_owned(),
            manager => format!("{} install", manager.program()),
        }
    }
}

/// Returns the word between a command that runs the script `test`, or `bun test`, and further
/// arguments, if the manager needs one; `None` for other commands.
pub(super) fn takes_arguments(command: &[String]) -> Option<Option<String>> {
    if command == Manager::bun_command() {
        return Some(None);
    }
    let managers = [Manager::Npm, Manager::Pnpm, Manager::Yarn, Manager::Bun];
    let manager = managers.into_iter().find(|manager| manager.test_command() == command)?;
    Some((manager == Manager::Npm).then(|| "--".to_owned()))
}
