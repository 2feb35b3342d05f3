//! npm, pnpm, yarn and bun: one test for each package with a test script.

mod builds;
mod cases;
mod manager;
mod outputs;
mod package;
mod script;
mod shell;
mod units;
mod watch;
mod workspace;

use std::collections::BTreeMap;
use std::path::Path;

use async_trait::async_trait;

use super::Harness;
use super::discovery::{Discovery, DiscoveryInputs, DiscoveryNote};
use super::project::Project;
use super::summary::{Summary, TestCount, is_summarized};
use crate::run::blocking::blocking;
use crate::{CaseReport, Error, Test};
use package::{Package, dependencies};
use units::Units;
use workspace::Workspace;

const HARNESS: &str = "npm";
/// Directories whose packages are data, unless they are members of a workspace.
const DATA: [&str; 5] = ["fixtures", "__fixtures__", "testdata", "templates", "vendor"];
/// The directory of installed packages.
const INSTALLED: &str = "node_modules";

/// Files whose content discovery reads.
const MANIFESTS: [&str; 6] =
    ["package.json", workspace::PNPM_WORKSPACE, "lerna.json", "turbo.json", "turbo.jsonc", "nx.json"];
/// Programs that discovery reports as missing, or decides by.
const PROGRAMS: [&str; 6] = ["npm", "pnpm", "yarn", "bun", "turbo", "nx"];
/// Files beside manifests whose existence discovery checks.
const CHECKED: [&str; 4] = [INSTALLED, ".pnp.cjs", "node_modules/.bin/turbo", "node_modules/.bin/nx"];

/// The scripts of npm packages (<https://docs.npmjs.com/cli/commands/npm-test>).
#[derive(Debug, Clone, Copy)]
pub(crate) struct NpmHarness;

#[async_trait]
impl Harness for NpmHarness {
    fn name(&self) -> &'static str {
        HARNESS
    }

    fn recognizes(&self, command: &[String]) -> bool {
        command.first().is_some_and(|program| program == "npm")
    }

    fn discovery_inputs(&self) -> DiscoveryInputs {
        DiscoveryInputs {
            manifests: &MANIFESTS,
            programs: &PROGRAMS,
            checked: &CHECKED,
            ..DiscoveryInputs::default()
        }
    }

    async fn discover(&self, project: &Project) -> Result<Discovery, Error> {
        let project = project.clone();
        blocking(move || Ok(find(&project))).await
    }

    fn trace_decides(&self, _test: &Test) -> bool {
        true
    }

    fn with_arguments(&self, test: &Test, arguments: &[String]) -> Option<Test> {
        let dashes = manager::takes_arguments(&test.command)?;
        let command = test.command.iter().cloned().chain(dashes).chain(arguments.iter().cloned());
        Some(Test { command: command.collect(), ..test.clone() })
    }

    fn parse_summary(&self, _test: &Test, _exit_code: Option<i32>, output: &[u8]) -> Summary {
        Summary::of_count(TestCount::find(output))
    }

    fn is_complete(&self, _test: &Test, output: &[u8], _directory: &Path) -> bool {
        is_summarized(output)
    }

    fn parse_cases(&self, output: &str) -> Vec<CaseReport> {
        cases::parse(output)
    }
}

/// Returns one test for each package with a test script, or for a workspace whose script must run
/// as a whole.
fn find(project: &Project) -> Discovery {
    let mut found = Discovery::default();
    let (packages, workspaces) = packages(project, &mut found.notes);
    let dependencies = dependencies(&packages, &mut found.notes);
    Units { project, packages: &packages, workspaces: &workspaces, dependencies: &dependencies }
        .find(&mut found);
    let mut needed: BTreeMap<&str, usize> = BTreeMap::new();
    for test in &found.tests {
        *needed.entry(test.command[0].as_str()).or_default() += 1;
    }
    let missing: Vec<DiscoveryNote> =
        needed.iter().filter_map(|(program, count)| project.missing_program(program, *count)).collect();
    found.notes.extend(missing);
    found
}

/// Reads all packages, and the workspaces that they form. A manifest that cannot be read is a note.
fn packages<'p>(
    project: &'p Project,
    notes: &mut Vec<DiscoveryNote>,
) -> (BTreeMap<&'p Path, Package>, Vec<Workspace<'p>>) {
    let mut packages: BTreeMap<&Path, Package> = BTreeMap::new();
    let mut read = |directory: &'p Path, packages: &mut BTreeMap<&'p Path, Package>| match Package::read(
        project, directory,
    ) {
        Ok(package) => drop(packages.insert(directory, package)),
        Err(error) => notes.push(DiscoveryNote::unreadable(&directory.join("package.json"), &error)),
    };
    let is_in = |directory: &Path, names: &[&str]| {
        directory.iter().any(|part| names.iter().any(|name| part == *name))
    };
    let (data, ordinary): (Vec<&Path>, Vec<&Path>) = project
        .directories_with("package.json")
        .filter(|directory| !is_in(directory, &[INSTALLED]))
        .partition(|directory| is_in(directory, &DATA));
    ordinary.into_iter().for_each(|directory| read(directory, &mut packages));
    let mut workspaces = Vec::new();
    let mut problems = Vec::new();
    for (directory, package) in &packages {
        match Workspace::read(project, directory, package) {
            Ok(workspace) => workspaces.extend(workspace),
            Err(error) => problems.push(DiscoveryNote::unreadable(&directory.join("package.json"), &error)),
        }
    }
    let members = data.into_iter().filter(|directory| workspaces.iter().any(|it| it.has_member(directory)));
    members.for_each(|directory| read(directory, &mut packages));
    notes.extend(problems);
    packages.retain(|directory, package| {
        // A root belongs to its own workspace.
        let is_root = workspaces.iter().any(|workspace| workspace.has_root(directory));
        let exclusion = workspaces.iter().find_map(|workspace| workspace.exclusion(directory));
        let is_left_out = !is_root && exclusion.is_some();
        notes.extend(exclusion.filter(|_| is_left_out && package.test_script().is_some()));
        !is_left_out
    });
    (packages, workspaces)
}
