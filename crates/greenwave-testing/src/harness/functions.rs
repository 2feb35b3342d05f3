//! The single tests inside cargo's programs, as cargo-nextest or the programs themselves list them. Knows nothing of how programs are built or run.
//!
//! Listing is a test like any other: what it prints is known for as long as nothing changes that it depends on. So a run in which nothing has
//! changed neither builds nor starts a program to learn which tests there are.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

use serde::Deserialize;

use crate::harness::discovery::{Discovery, DiscoveryNote};
use crate::plain_text::plain;
use crate::results::outcome::Outcome;
use crate::run::process::LEFT_OUT;
use crate::run::suite::SuiteReport;
use crate::run::toolchain::resolve;
use crate::test::Harness;
use crate::{Environment, Test};

/// What a program of the Rust test harness is told to list its tests by name
/// (<https://doc.rust-lang.org/rustc/tests/index.html#--list>).
pub(crate) const LIST: [&str; 3] = ["--list", "--format", "terse"];
/// Lists only those that are to be ignored.
pub(crate) const IGNORED: &str = "--ignored";

/// What cargo-nextest is told, before the choice of a program
/// (<https://nexte.st/docs/machine-readable/list/>).
const NEXTEST: [&str; 5] = ["cargo", "nextest", "list", "--message-format", "json"];
/// The program behind it.
const NEXTEST_PROGRAM: &str = "cargo-nextest";

/// Part of what cargo-nextest prints.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Listed {
    rust_suites: BTreeMap<String, ListedProgram>,
}

#[derive(Deserialize)]
struct ListedProgram {
    testcases: BTreeMap<String, ListedFunction>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct ListedFunction {
    ignored: bool,
    filter_match: FilterMatch,
}

/// Whether nextest's own settings let it run a test.
#[derive(Deserialize)]
struct FilterMatch {
    status: String,
}

impl Discovery {
    /// For each program of cargo's among the tests, the tests whose output lists the functions in it, to be run as a [`Suite`](crate::Suite) of their
    /// own whose report is then taken by [`split_cargo`](Self::split_cargo). cargo-nextest is asked where it is on the `PATH`, and the programs
    /// themselves otherwise. Documentation stays as it is.
    pub fn cargo_listings(&self, environment: &Environment) -> Vec<Test> {
        let has_nextest = resolve(NEXTEST_PROGRAM, Path::new("/"), environment.get("PATH")).is_some();
        let programs = self.tests.iter().filter(|test| is_program(test));
        programs.flat_map(|test| if has_nextest { vec![by_nextest(test)] } else { by_itself(test) }).collect()
    }

    /// Puts in place of each program of cargo's the functions in it that are not ignored, by the report of a run of
    /// [`cargo_listings`](Self::cargo_listings). What could not be listed stays as it is, with a note; and what has none to run.
    ///
    /// A function's name is its program's, a space, and its own. It is run by `PROGRAM --exact NAME`, with the program's inputs.
    pub fn split_cargo(&mut self, listings: &[Test], report: &SuiteReport) {
        let ran: HashMap<&str, Option<&Outcome>> = listings
            .iter()
            .zip(&report.results)
            .map(|(test, result)| (test.name.as_str(), result.as_ref().and_then(|it| it.as_ref().ok())))
            .collect();
        for test in std::mem::take(&mut self.tests) {
            if !is_program(&test) {
                self.tests.push(test);
                continue;
            }
            match functions(&test, &ran) {
                Ok(names) if names.is_empty() => self.tests.push(test),
                Ok(names) => self.tests.extend(
                    names
                        .iter()
                        .map(|name| Test { name: format!("{} {name}", test.name), ..test.only(name) }),
                ),
                Err(problem) => {
                    self.notes.push(DiscoveryNote::ListingFailed { test: test.name.clone(), problem });
                    self.tests.push(test);
                }
            }
        }
    }
}

/// Whether a test is a listing by cargo-nextest.
pub(crate) fn is_for_nextest(test: &Test) -> bool {
    test.command.iter().zip(NEXTEST).all(|(word, other)| word == other)
}

/// The names in what programs print of themselves, each on a line of its own with its kind.
pub(crate) fn by_line(output: &str) -> BTreeSet<String> {
    output.lines().filter_map(|line| line.strip_suffix(": test")).map(str::to_owned).collect()
}

/// Whether it is all of a program.
fn is_program(test: &Test) -> bool {
    let is_of_cargo = matches!(&test.harness, Harness::Cargo { kind, .. } if kind != "doc");
    is_of_cargo
        && test.program_arguments().is_empty()
        && test.command.get(1).is_some_and(|word| word == "test")
}

fn by_nextest(test: &Test) -> Test {
    let choice = test.command.iter().skip(2).cloned();
    Test {
        name: list_name(&test.name),
        command: NEXTEST.map(str::to_owned).into_iter().chain(choice).collect(),
        retries: 0,
        ..test.clone()
    }
}

fn by_itself(test: &Test) -> Vec<Test> {
    let listing = |name: String, more: &[&str]| Test {
        name,
        command: [["--"].as_slice(), &LIST, more]
            .concat()
            .into_iter()
            .fold(test.command.clone(), |command, word| [command, vec![word.to_owned()]].concat()),
        retries: 0,
        ..test.clone()
    };
    vec![listing(list_name(&test.name), &[]), listing(ignored_name(&test.name), &[IGNORED])]
}

fn list_name(test: &str) -> String {
    format!("{test} (list)")
}

fn ignored_name(test: &str) -> String {
    format!("{test} (list of ignored)")
}

/// The functions of a program that are to be run.
fn functions(test: &Test, ran: &HashMap<&str, Option<&Outcome>>) -> Result<BTreeSet<String>, String> {
    let output = |name: &str| match ran.get(name) {
        Some(Some(outcome)) if outcome.passed() => complete(outcome),
        Some(Some(outcome)) => Err(format!("listing them {}", outcome.status)),
        Some(None) => Err("listing them could not be started, or was stopped".to_owned()),
        None => Ok(None),
    };
    let listed = output(&list_name(&test.name))?.ok_or("nobody was asked for them")?;
    match output(&ignored_name(&test.name))? {
        Some(ignored) => Ok(by_line(&listed).difference(&by_line(&ignored)).cloned().collect()),
        None => of_nextest(&listed).ok_or_else(|| "what cargo nextest prints is not understood".to_owned()),
    }
}

/// What a listing printed, unless something is left out of it.
fn complete(outcome: &Outcome) -> Result<Option<String>, String> {
    let text = plain(&outcome.output);
    match text.contains(LEFT_OUT) {
        true => Err("their list is longer than what is kept of an output".to_owned()),
        false => Ok(Some(text)),
    }
}

/// The names in what cargo-nextest prints, which is one line of JSON among what cargo says.
fn of_nextest(output: &str) -> Option<BTreeSet<String>> {
    let listed: Listed = output.lines().find_map(|line| serde_json::from_str(line).ok())?;
    let functions = listed.rust_suites.into_values().flat_map(|program| program.testcases);
    let runs = |function: &ListedFunction| !function.ignored && function.filter_match.status == "matches";
    Some(functions.filter(|(_, function)| runs(function)).map(|(name, _)| name).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_from_what_else_is_printed() {
        let output = "   Compiling x v0.1.0\nfast: benchmark\na::b: test\nwarning: test\u{20}\n\nc: test\n";
        assert_eq!(by_line(output), ["a::b".to_owned(), "c".to_owned()].into());
    }

    #[test]
    fn what_nextest_does_not_run_is_left_out() {
        let function = |ignored: bool, status: &str| {
            format!(
                r#"{{"kind":"test","ignored":{ignored},"filter-match":{{"status":"{status}","reason":"x"}}}}"#
            )
        };
        let output = format!(
            "    Finished `test` profile\n{{\"test-count\":3,\"rust-suites\":{{\"x\":{{\"package-name\":\"x\",\"testcases\":{{\"m::a\":{},\"b\":{},\"c\":{}}}}}}}}}\n",
            function(false, "matches"),
            function(true, "mismatch"),
            function(false, "mismatch"),
        );
        assert_eq!(of_nextest(&output), Some(["m::a".to_owned()].into()));
        assert_eq!(of_nextest("error: no such command\n{}\n"), None);
    }
}
