//! Lists the functions in cargo's test programs, with cargo-nextest or with the programs
//! themselves.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::Deserialize;

use super::target::{CargoTarget, NEXTEST, only, with_arguments};
use crate::harness::listing::{Listing, ListingContext};
use crate::plain_text::{LEFT_OUT, plain};
use crate::results::outcome::Outcome;
use crate::run::toolchain::resolve;
use crate::{Environment, Test};

/// Arguments with which a program of the Rust test harness lists its tests
/// (<https://doc.rust-lang.org/rustc/tests/index.html#--list>).
pub(super) const LIST: [&str; 3] = ["--list", "--format", "terse"];
/// Argument that limits the list to ignored tests.
pub(super) const IGNORED: &str = "--ignored";
/// The program behind `cargo nextest`.
const NEXTEST_PROGRAM: &str = "cargo-nextest";

/// The part of the output of `cargo nextest list` that matters here.
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

/// Whether nextest's settings select a function.
#[derive(Deserialize)]
struct FilterMatch {
    status: String,
}

/// Returns the commands that list the functions of a test program.
///
/// Uses cargo-nextest if it is on the PATH. The commands of documentation and of other listings are
/// empty.
pub(super) fn listing_commands(test: &Test, environment: &Environment) -> Vec<Test> {
    if !CargoTarget::is_whole_program(test) {
        return Vec::new();
    }
    if resolve(NEXTEST_PROGRAM, Path::new("/"), environment.get("PATH")).is_some() {
        let selection = test.command.iter().skip(2).cloned();
        let command = NEXTEST.map(str::to_owned).into_iter().chain(selection).collect();
        return vec![Test { name: list_name(&test.name), command, retries: 0, ..test.clone() }];
    }
    let listing = |name: String, more: Option<&'static str>| {
        let test = with_arguments(test, LIST.into_iter().chain(more));
        Test { name, retries: 0, ..test }
    };
    vec![listing(list_name(&test.name), None), listing(ignored_name(&test.name), Some(IGNORED))]
}

/// Returns one test for each function of a program that is not ignored.
///
/// The name of a function's test is that of the program, a space, and that of the function.
pub(super) fn list(test: &Test, context: &ListingContext<'_>) -> Listing {
    if !CargoTarget::is_whole_program(test) {
        return Listing::Whole;
    }
    match functions(test, context) {
        Ok(names) if names.is_empty() => Listing::Whole,
        Ok(names) => {
            let single = |name: &String| Test { name: format!("{} {name}", test.name), ..only(test, name) };
            Listing::Single(names.iter().map(single).collect())
        }
        Err(problem) => Listing::Failed(problem),
    }
}

/// Returns the names in the terse list of a program, which has one per line, followed by its kind.
pub(super) fn parse_terse(output: &str) -> BTreeSet<String> {
    output.lines().filter_map(|line| line.strip_suffix(": test")).map(str::to_owned).collect()
}

fn list_name(test: &str) -> String {
    format!("{test} (list)")
}

fn ignored_name(test: &str) -> String {
    format!("{test} (list of ignored)")
}

/// Returns the functions of a program that are not ignored.
fn functions(test: &Test, context: &ListingContext<'_>) -> Result<BTreeSet<String>, String> {
    let output = |name: &str| match context.outcome(name) {
        Some(Some(outcome)) if outcome.passed() => complete(outcome).map(Some),
        Some(Some(outcome)) => Err(format!("the listing {}", outcome.status)),
        Some(None) => Err("the listing could not be run, or was stopped".to_owned()),
        None => Ok(None),
    };
    let listed = output(&list_name(&test.name))?.ok_or("the listing did not run")?;
    match output(&ignored_name(&test.name))? {
        Some(ignored) => Ok(parse_terse(&listed).difference(&parse_terse(&ignored)).cloned().collect()),
        None => parse_nextest(&listed)
            .ok_or_else(|| "the output of `cargo nextest list` cannot be parsed".to_owned()),
    }
}

/// Returns the output of a listing, unless it was truncated.
fn complete(outcome: &Outcome) -> Result<String, String> {
    let text = plain(&outcome.output);
    if text.contains(LEFT_OUT) {
        return Err("the list exceeds the limit of captured output".to_owned());
    }
    Ok(text)
}

/// Returns the functions in the output of cargo-nextest, which is a line of JSON among messages of
/// cargo.
fn parse_nextest(output: &str) -> Option<BTreeSet<String>> {
    let listed: Listed = output.lines().find_map(|line| serde_json::from_str(line).ok())?;
    let functions = listed.rust_suites.into_values().flat_map(|program| program.testcases);
    let runs = |function: &ListedFunction| !function.ignored && function.filter_match.status == "matches";
    Some(functions.filter(|(_, function)| runs(function)).map(|(name, _)| name).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_lines_of_tests_are_parsed() {
        let output = "   Compiling x v0.1.0\nfast: benchmark\na::b: test\nwarning: test\u{20}\n\nc: test\n";
        assert_eq!(parse_terse(output), ["a::b".to_owned(), "c".to_owned()].into());
    }

    #[test]
    fn functions_that_nextest_does_not_run_are_omitted() {
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
        assert_eq!(parse_nextest(&output), Some(["m::a".to_owned()].into()));
        assert_eq!(parse_nextest("error: no such command\n{}\n"), None);
    }
}
