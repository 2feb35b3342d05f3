//! Decides which changes of an attempt touch files that are not the agent's to change: tests, and
//! files that programs run or trust.
//!
//! An attempt is judged by the difference between the files that it started from and the files that
//! it ends with, so it does not matter how the agent wrote them.

mod build_files;
mod commands;
mod inline;
mod links;
mod makefiles;
mod manifests;
mod trusted;

use std::sync::Arc;

use greenwave_inputs::{InputSpec, Selection};
use greenwave_testing::Test;

use crate::plan::{AgentSpec, Feature, Plan};
use crate::project_root::ProjectRoot;
use crate::test_files::{is_runner_settings, is_test_file};

use links::Behind;
pub(crate) use links::Links;
pub(crate) use manifests::has_protected_parts;
use trusted::TrustedFiles;
pub use trusted::{INSTRUCTION_FILES, PROTECTED_FILES};

/// The files that no agent of a run may change.
#[derive(Debug)]
pub(crate) struct RunProtection {
    trusted: Arc<TrustedFiles>,
    plan: PlanFiles,
}

impl RunProtection {
    /// Compiles the patterns of a plan and finds its files. Invalid patterns, which plan files
    /// refuse, match nothing.
    pub(crate) fn new(plan: &Plan, root: &ProjectRoot) -> Self {
        Self { trusted: TrustedFiles::of(&plan.protect), plan: PlanFiles::new(plan, root) }
    }

    /// Returns why a path is protected from an agent with this prompt; `None` if it is not.
    fn reason(&self, path: &str, prompt: &str) -> Option<&'static str> {
        self.plan.reason(path).or_else(|| self.trusted.reason(path, prompt))
    }
}

/// The files that an agent may not change for a feature.
#[derive(Debug)]
pub(crate) struct Protection<'r> {
    /// Scripts and files that the tests' commands name, and whether only their names say so.
    operands: Vec<commands::Operand>,
    /// Names of targets that the commands give to `make`.
    targets: Vec<String>,
    may_edit: Option<Selection>,
    run: &'r RunProtection,
    /// Text that describes the feature.
    text: String,
    /// Targets of links with protected names.
    behind: Behind,
}

/// Files that a plan consists of and runs, relative to the root of the copies.
#[derive(Debug)]
struct PlanFiles {
    /// The plan itself, and scripts with recorded answers.
    own: Vec<String>,
    /// Programs of agents, setup, teardown and `notify`.
    programs: Vec<String>,
}

impl PlanFiles {
    /// Finds the files of a plan that are in the project.
    fn new(plan: &Plan, root: &ProjectRoot) -> Self {
        let scripts = plan.agents.values().filter_map(|agent| match agent {
            AgentSpec::Scripted { script, .. } => Some(script),
            _ => None,
        });
        let within = |path: &std::path::PathBuf| {
            let path = path.canonicalize().ok()?;
            Some(path.strip_prefix(root.path.canonicalize().ok()?).ok()?.to_str()?.to_owned())
        };
        let agents = plan.agents.values().filter_map(|agent| match agent {
            AgentSpec::Command(agent) => Some(&agent.command),
            _ => None,
        });
        let notify = Some(&plan.notify).filter(|command| !command.is_empty());
        let commands = plan.setup.iter().chain(&plan.teardown).chain(agents).chain(notify);
        let operands = commands.flat_map(|command| commands::operands(&Test::new("command", command)));
        let programs = operands.filter(|operand| !operand.is_argument).map(|it| root.within(&it.path));
        Self {
            own: plan.file.iter().chain(scripts).filter_map(within).collect(),
            programs: programs.collect(),
        }
    }

    fn reason(&self, path: &str) -> Option<&'static str> {
        let is = |own: &String| own == path || trusted::folded(own) == trusted::folded(path);
        if self.own.iter().any(is) {
            return Some("is part of the plan");
        }
        self.programs.iter().any(is).then_some("is run by the plan")
    }
}

/// A change of one file, with its contents. `None` if the file does not exist.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FileChange<'a> {
    pub(crate) path: &'a str,
    pub(crate) before: Option<&'a [u8]>,
    pub(crate) after: Option<&'a [u8]>,
}

impl<'r> Protection<'r> {
    /// Compiles the protection of a feature with these tests. Invalid patterns, which plan files
    /// refuse, match nothing.
    pub(crate) fn new(feature: &Feature, tests: &[Test], run: &'r RunProtection) -> Self {
        let tests = tests.iter().chain(&feature.review);
        Self {
            operands: tests.clone().flat_map(commands::operands).collect(),
            targets: tests.flat_map(commands::make_targets).collect(),
            may_edit: patterns(&feature.may_edit),
            run,
            text: format!("{}\n{}", feature.title, feature.prompt),
            behind: Behind::default(),
        }
    }

    /// Protects also the targets of links with protected names, and files that the commands of the
    /// plan and its tests run through links.
    pub(crate) fn with_links(mut self, links: &Links) -> Self {
        let mut behind = Behind::default();
        for link in links.keys().filter(|link| !self.may_edit(link)) {
            let reason = match self.run.reason(link, &self.text) {
                Some(_) if links::is_text(link) => continue,
                None if is_runner_settings(link) => "chooses which tests run",
                None => continue,
                Some(reason) => reason,
            };
            behind.add(links, link, reason);
        }
        for program in self.run.plan.programs.iter().filter(|program| !self.may_edit(program)) {
            behind.add(links, program, "is run by the plan");
        }
        for operand in self.operands.iter().filter(|it| !it.is_argument || it.is_test()) {
            let is_product = !operand.is_test() && names(&self.text, &operand.path);
            if !is_product && !self.may_edit(&operand.path) {
                behind.add(links, &operand.path, "is named by the test's command");
            }
        }
        self.behind = behind;
        self
    }

    /// Returns whether the content of a changed file matters for [`violation`](Self::violation).
    pub(crate) fn needs_content(&self, path: &str) -> bool {
        has_protected_parts(path) || inline::has_inline_tests(path) || path.ends_with("_test.go")
    }

    /// Returns whether the feature's `may_edit` names a path.
    pub(crate) fn may_edit(&self, path: &str) -> bool {
        self.may_edit.as_ref().is_some_and(|selection| matches(selection, path))
    }

    /// Returns why a change is refused; `None` if the agent may make it.
    pub(crate) fn violation(&self, change: &FileChange<'_>) -> Option<String> {
        let path = change.path;
        if self.may_edit(path) {
            return None;
        }
        if is_runner_settings(path) {
            return Some("chooses which tests run".to_owned());
        }
        if let Some(reason) = self.run.reason(path, &self.text) {
            return Some(reason.to_owned());
        }
        if let Some(problem) = self.operand_violation(change).or_else(|| self.behind.reason(path)) {
            return Some(problem);
        }
        match change.before {
            Some(_) if is_test_file(path) => return Some("belongs to the tests".to_owned()),
            None if go_replaces_main(change) => {
                return Some("replaces the main function of the tests (`TestMain`)".to_owned());
            }
            _ => {}
        }
        let (before, after) = (text(change.before), text(change.after));
        manifests::violation(path, before.as_deref(), after.as_deref(), &self.targets)
            .or_else(|| inline::violation(path, before.as_deref()?, after.as_deref(), self.runs(path)))
    }

    /// Returns whether the command of a test runs a file, by its path or as a module of Python.
    fn runs(&self, path: &str) -> bool {
        let module = path.strip_suffix(".py").map(|module| module.replace('/', "."));
        let mut run = self.operands.iter().filter(|operand| !operand.is_argument);
        run.any(|operand| operand.path == path || module.as_ref() == Some(&operand.path.replace('/', ".")))
    }

    /// Returns why a file that a test's command names is not the agent's to change.
    ///
    /// A file that the command runs may be the program under test: then the feature's text names
    /// it, and its own name does not say that it tests something.
    fn operand_violation(&self, change: &FileChange<'_>) -> Option<String> {
        let operand = self.operands.iter().find(|operand| operand.matches(change.path))?;
        let is_test = operand.is_test();
        let is_product = !is_test && (operand.is_argument || names(&self.text, change.path));
        if is_product || (change.before.is_none() && !is_test) {
            return None;
        }
        Some("is named by the test's command".to_owned())
    }
}

/// Returns whether a new Go file takes over the run of its package's tests.
fn go_replaces_main(change: &FileChange<'_>) -> bool {
    change.path.ends_with("_test.go")
        && text(change.after).is_some_and(|text| text.contains("func TestMain("))
}

/// Returns whether a text names a path, or the name of the file.
fn names(text: &str, path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    let is_part = |character: char| character.is_alphanumeric() || "_-".contains(character);
    text.match_indices(name).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        let after = text[at + name.len()..].chars().next();
        !before.is_some_and(is_part) && !after.is_some_and(is_part)
    })
}

fn text(content: Option<&[u8]>) -> Option<String> {
    content.map(|content| String::from_utf8_lossy(content).into_owned())
}

/// Compiles patterns of a plan. Returns `None` if there are none, or if one is invalid.
pub(crate) fn patterns(patterns: &[String]) -> Option<Selection> {
    if patterns.is_empty() {
        return None;
    }
    let spec = InputSpec { inputs: patterns.to_vec(), ..InputSpec::default() };
    Selection::of(&spec).ok()
}

/// Returns whether patterns match the path of a file.
pub(crate) fn matches(selection: &Selection, path: &str) -> bool {
    selection.includes(std::path::Path::new(path), true)
}

/// Returns the tests that a command names by path, for checks before the run.
pub(crate) fn named_tests(test: &Test) -> impl Iterator<Item = String> {
    let operands = commands::operands(test);
    operands.into_iter().filter(commands::Operand::is_test).map(|operand| operand.path)
}

#[cfg(test)]
mod tests;
