//! The tests of packages and workspaces.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use super::builds::{
    builds_first, is_available, nx_builds_first, nx_outputs, turbo_builds_first, turbo_outputs,
};
use super::manager::Manager;
use super::outputs::{is_generated, written_directories};
use super::package::Package;
use super::script::{Step, steps};
use super::watch;
use super::workspace::{Workspace, root_of};
use super::{HARNESS, INSTALLED};
use crate::harness::discovery::{Discovery, DiscoveryNote};
use crate::harness::project::{Project, closure, pattern};
use crate::{HarnessName, Test};

/// Variables that tests of JavaScript see, and that are part of their keys.
const VARIABLES: [&str; 6] =
    ["NODE_OPTIONS", "NODE_ENV", "NODE_PATH", "NODE_EXTRA_CA_CERTS", "npm_config_*", "NPM_CONFIG_*"];

/// The packages of a project, from which the tests are made.
pub(super) struct Units<'p> {
    pub(super) project: &'p Project,
    pub(super) packages: &'p BTreeMap<&'p Path, Package>,
    pub(super) workspaces: &'p [Workspace<'p>],
    pub(super) dependencies: &'p BTreeMap<PathBuf, Vec<PathBuf>>,
}

/// A way to run the tests of a workspace.
enum Plan {
    /// The root's own script and those of the members run by themselves.
    Separate,
    /// Only the members' scripts run.
    Members(DiscoveryNote),
    /// The members' scripts run, although the root's script would build something first.
    Unbuilt(DiscoveryNote),
    /// A command runs as a whole, and these members do not run by themselves.
    Whole { command: Option<Vec<String>>, members: BTreeSet<PathBuf>, note: DiscoveryNote },
}

impl Units<'_> {
    /// Adds all tests and notes.
    pub(super) fn find(&self, found: &mut Discovery) {
        let mut left_out: BTreeSet<PathBuf> = BTreeSet::new();
        let mut whole: BTreeMap<PathBuf, Option<Vec<String>>> = BTreeMap::new();
        for workspace in self.workspaces {
            let root = workspace.root.to_owned();
            match self.plan(workspace) {
                Plan::Separate => {}
                Plan::Members(note) | Plan::Unbuilt(note) => {
                    found.notes.push(note);
                    left_out.insert(root);
                }
                Plan::Whole { command, members, note } => {
                    found.notes.push(note);
                    left_out.extend(members);
                    whole.insert(root, command);
                }
            }
        }
        for (root, nested) in self.bun_packages() {
            whole.insert(root, Some(Manager::bun_command()));
            left_out.extend(nested);
        }
        for (directory, package) in self.packages {
            let command = whole.get(*directory);
            if left_out.contains(*directory) || (package.test_script().is_none() && command.is_none()) {
                continue;
            }
            let test = self.test(directory, package, command, found);
            found.tests.push(test);
        }
        self.note_missing_installations(found);
    }

    /// Returns the packages whose tests `bun test` finds by itself, since neither they nor packages
    /// below them have a script, and for each the packages below it.
    fn bun_packages(&self) -> Vec<(PathBuf, Vec<PathBuf>)> {
        let mut found: Vec<(PathBuf, Vec<PathBuf>)> = Vec::new();
        // Outer directories come first.
        for directory in self.packages.keys() {
            let below = || self.packages.iter().filter(|(other, _)| other.starts_with(directory));
            let is_test = |file: &PathBuf| file.starts_with(directory) && is_bun_test(file);
            if found.iter().any(|(outer, _)| directory.starts_with(outer))
                || Manager::of(self.project, self.packages, directory) != Manager::Bun
                || below().any(|(_, package)| package.test_script().is_some())
                || !self.project.files().iter().any(is_test)
            {
                continue;
            }
            let nested = below().map(|(other, _)| (*other).to_owned()).filter(|other| other != directory);
            found.push(((*directory).to_owned(), nested.collect()));
        }
        found
    }

    /// Decides how the tests of a workspace run.
    fn plan(&self, workspace: &Workspace<'_>) -> Plan {
        let package = &self.packages[workspace.root];
        let members: Vec<(&Path, &Package)> = workspace.members(self.packages).collect();
        if !members.iter().any(|(_, member)| member.test_script().is_some()) {
            return Plan::Separate;
        }
        let (directory, all) = (workspace.root.to_owned(), || members.iter().map(|(path, _)| (*path).into()));
        let Some(script) = package.test_script() else {
            return self.plan_without_script(workspace.root, package, all().collect());
        };
        let steps = steps(&package.scripts, "test");
        let tool = steps.iter().find_map(|step| match step {
            Step::AllMembers { tool, .. } => Some(*tool),
            _ => None,
        });
        let covered: BTreeSet<PathBuf> = if tool.is_some() || steps.contains(&Step::ChosenMembers) {
            all().collect()
        } else {
            match named_members(&steps, &members) {
                Some(named) => named,
                None => return Plan::Separate,
            }
        };
        let has_builds = tool.is_some_and(|tool| builds_first(self.project, workspace.root, tool));
        let reason = if steps.contains(&Step::ChosenMembers) {
            "it chooses the packages whose tests it runs"
        } else if steps.contains(&Step::Other) {
            "it runs more than the tests of packages"
        } else if has_builds {
            "it builds what the tests of packages need"
        } else if steps.iter().any(|step| step.fails_without_tests(&members)) {
            "not every package has a test script"
        } else {
            return Plan::Members(DiscoveryNote::WorkspaceScript { directory, script: script.to_owned() });
        };
        let (script, reason) = (script.to_owned(), reason.to_owned());
        self.unbuilt(workspace.root, package, &script).unwrap_or_else(|| {
            let note = DiscoveryNote::WholeScript { directory, script, reason };
            Plan::Whole { command: None, members: covered, note }
        })
    }

    /// Decides how the tests of a workspace run whose root has no script for them.
    fn plan_without_script(&self, root: &Path, package: &Package, members: BTreeSet<PathBuf>) -> Plan {
        let tools: [(&str, bool, &[&str]); 2] = [
            ("turbo", turbo_builds_first(self.project, root), &["run", "test"]),
            ("nx", nx_builds_first(self.project, root), &["run-many", "-t", "test"]),
        ];
        let Some((tool, _, arguments)) = tools.into_iter().find(|(_, builds, _)| *builds) else {
            return Plan::Separate;
        };
        let script = [tool].iter().chain(arguments).copied().collect::<Vec<_>>().join(" ");
        if !is_available(self.project, root, package, tool) {
            return self.unbuilt(root, package, &script).unwrap_or(Plan::Separate);
        }
        let has_local = self.project.root().join(root).join(root_relative(tool)).exists();
        let program = if has_local || package.declares(tool) { root_relative(tool) } else { tool.to_owned() };
        let command = std::iter::once(program).chain(arguments.iter().map(|word| (*word).to_owned()));
        Plan::Whole {
            command: Some(command.collect()),
            members,
            note: DiscoveryNote::WholeScript {
                directory: root.to_owned(),
                script,
                reason: "it builds what the tests of packages need".to_owned(),
            },
        }
    }

    /// Returns a plan for a script whose tool is neither installed nor declared.
    fn unbuilt(&self, root: &Path, package: &Package, script: &str) -> Option<Plan> {
        let words: Vec<&str> = script.split_whitespace().collect();
        let tool = ["turbo", "nx", "lerna"].into_iter().find(|tool| words.contains(tool))?;
        let is_missing = !is_available(self.project, root, package, tool);
        is_missing.then(|| {
            let (directory, script) = (root.to_owned(), script.to_owned());
            Plan::Unbuilt(DiscoveryNote::NothingBuilt { directory, script, tool: tool.to_owned() })
        })
    }

    fn test(
        &self,
        directory: &Path,
        package: &Package,
        whole: Option<&Option<Vec<String>>>,
        found: &mut Discovery,
    ) -> Test {
        let project = self.project;
        let root = root_of(self.workspaces, directory);
        let path = if directory.as_os_str().is_empty() { ".".into() } else { directory.to_string_lossy() };
        let name = format!("npm:{} test", package.name.as_deref().unwrap_or(&path));
        let manager = Manager::of(project, self.packages, directory);
        let ending = package.test_script().and_then(watch::ending);
        let command = match (whole.and_then(Option::as_ref), ending) {
            (Some(command), _) => command.clone(),
            (None, Some(ending)) => {
                let change = ending.change;
                found.notes.push(DiscoveryNote::WatchMode { test: name.clone(), change });
                manager.line_command(&with_hooks(package, manager, &ending.script))
            }
            (None, None) => manager.test_command(),
        };
        let directories = if whole.is_some() && directory.as_os_str().is_empty() {
            Vec::new()
        } else {
            closure(directory, self.dependencies)
        };
        // Files beside the workspace's manifest configure all packages: lock files, compilers, test
        // runners.
        let shared = root.filter(|_| !directories.is_empty()).into_iter().flat_map(|root| {
            project.files().iter().filter(move |file| file.parent() == Some(root)).map(|file| pattern(file))
        });
        Test {
            directory: directory.to_owned(),
            inputs: shared.collect(),
            directories,
            outputs: self.outputs(directory, whole.is_some()),
            env: VARIABLES.map(str::to_owned).to_vec(),
            set: BTreeMap::from([("CI".to_owned(), "true".to_owned())]),
            parallel_safe: !self.builds_for_others(directory, package),
            harness: HarnessName::new(HARNESS),
            ..Test::new(name, command)
        }
    }

    /// Returns patterns of the files that tools in a package's scripts write, and in the members'
    /// scripts if they run as a whole. Directories with files of the project are not outputs,
    /// unless only tools write into them.
    fn outputs(&self, directory: &Path, is_whole: bool) -> Vec<String> {
        let members = self.workspaces.iter().filter(|it| is_whole && it.root == directory);
        let members = members.flat_map(|workspace| workspace.members(self.packages));
        let mut outputs = Vec::new();
        let own = self.packages.get_key_value(directory).map(|(path, package)| (*path, package));
        let turbo = if is_whole { turbo_outputs(self.project, directory) } else { Vec::new() };
        let nx = if is_whole { nx_outputs(self.project, directory) } else { Vec::new() };
        for (path, package) in own.into_iter().chain(members) {
            let is_free = |path: &PathBuf| {
                is_generated(path) || !self.project.files().iter().any(|file| file.starts_with(path))
            };
            let written = written_directories(path, package).into_iter().filter(is_free);
            outputs.extend(written.map(|path| format!("{}/", pattern(&path))));
            if is_whole && (directory == path || !turbo.is_empty()) {
                outputs.push(format!("{}/", pattern(&path.join(".turbo"))));
            }
            // A pattern for a directory covers its files.
            let directory_of = |glob: &String| match glob.strip_suffix("/**") {
                Some(directory) => format!("{directory}/"),
                None => glob.clone(),
            };
            let base = pattern(path);
            let base = base.trim_end_matches('/');
            outputs.extend(turbo.iter().chain(&nx).map(directory_of).map(|glob| format!("{base}/{glob}")));
        }
        outputs.sort();
        outputs.dedup();
        outputs
    }

    /// Returns whether a package's test builds it, while the tests of other packages may read it.
    fn builds_for_others(&self, directory: &Path, package: &Package) -> bool {
        let builds = package.scripts.contains_key("pretest")
            || package
                .test_script()
                .is_some_and(|script| script.split_whitespace().any(|word| matches!(word, "build" | "tsc")));
        let is_needed = |(other, reached): (&PathBuf, &Vec<PathBuf>)| {
            other != directory && reached.iter().any(|path| path == directory)
        };
        builds && self.dependencies.iter().any(is_needed)
    }

    /// Adds a note for each directory that lacks the installed dependencies of a test.
    fn note_missing_installations(&self, found: &mut Discovery) {
        let names: BTreeSet<&str> =
            self.packages.values().filter_map(|package| package.name.as_deref()).collect();
        let mut missing: BTreeSet<&Path> = BTreeSet::new();
        for test in &found.tests {
            let package = &self.packages[test.directory.as_path()];
            let absolute = self.project.root().join(&test.directory);
            let is_installed = |at: &Path| at.join(INSTALLED).is_dir() || at.join(".pnp.cjs").is_file();
            if package.needs_installation(|name| names.contains(name))
                && !absolute.ancestors().any(is_installed)
            {
                missing.insert(root_of(self.workspaces, &test.directory).unwrap_or(&test.directory));
            }
        }
        let missing: Vec<DiscoveryNote> = missing
            .into_iter()
            .map(|directory| {
                let manager = Manager::of(self.project, self.packages, directory);
                let command = manager.installation(self.project, directory);
                DiscoveryNote::NotInstalled { directory: directory.to_owned(), command }
            })
            .collect();
        found.notes.extend(missing);
    }
}

impl Step {
    /// Returns whether the step fails since a member has no test.
    fn fails_without_tests(&self, members: &[(&Path, &Package)]) -> bool {
        let Step::AllMembers { skips_missing, .. } = self else { return false };
        members
            .iter()
            .any(|(_, member)| member.has_placeholder() || (!skips_missing && member.test_script().is_none()))
    }
}

/// Returns whether `bun test` runs a file (<https://bun.sh/docs/cli/test>).
fn is_bun_test(file: &Path) -> bool {
    const EXTENSIONS: [&str; 8] = ["js", "jsx", "ts", "tsx", "cjs", "mjs", "cts", "mts"];
    const ENDINGS: [&str; 4] = [".test", "_test", ".spec", "_spec"];
    let stem = file.file_stem().and_then(OsStr::to_str).unwrap_or_default();
    let extension = file.extension().and_then(OsStr::to_str).unwrap_or_default();
    EXTENSIONS.contains(&extension)
        && ENDINGS.iter().any(|ending| stem.ends_with(ending))
        && !file.iter().any(|part| part == INSTALLED)
}

/// Returns the members that steps name; `None` if no step names any.
fn named_members(steps: &[Step], members: &[(&Path, &Package)]) -> Option<BTreeSet<PathBuf>> {
    let names: Vec<&String> = steps
        .iter()
        .filter_map(|step| match step {
            Step::Members(names) => Some(names),
            _ => None,
        })
        .flatten()
        .collect();
    if names.is_empty() {
        return None;
    }
    let is_named = |(path, package): &&(&Path, &Package)| {
        names
            .iter()
            .any(|name| package.name.as_ref() == Some(*name) || path.ends_with(name.trim_start_matches("./")))
    };
    Some(members.iter().filter(is_named).map(|(path, _)| (*path).to_owned()).collect())
}

/// Returns a script between the scripts that run before and after it.
fn with_hooks(package: &Package, manager: Manager, script: &str) -> String {
    let hook =
        |name: &str| package.scripts.contains_key(name).then(|| format!("{} run {name}", manager.program()));
    let lines: Vec<String> =
        hook("pretest").into_iter().chain([script.to_owned()]).chain(hook("posttest")).collect();
    lines.join(" && ")
}

/// Returns the path of an installed tool, relative to the root of a workspace.
fn root_relative(tool: &str) -> String {
    format!("{INSTALLED}/.bin/{tool}")
}
