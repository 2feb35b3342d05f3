//! The cargo target that a test's command runs.

use super::metadata::Target;
use crate::Test;

/// Command line of cargo-nextest that lists tests, before the selection of a target
/// (<https://nexte.st/docs/machine-readable/list/>).
pub(super) const NEXTEST: [&str; 5] = ["cargo", "nextest", "list", "--message-format", "json"];
/// Argument of a test program that runs a single function.
const EXACT: &str = "--exact";

/// A target of a cargo package whose tests are one program.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct CargoTarget {
    pub(super) package: String,
    /// `lib`, `bin`, `test`, `example`, `bench`, or `doc` for the documentation of a library.
    pub(super) kind: String,
    /// Name of the target; empty for `lib` and `doc`, since a package has one library.
    pub(super) name: String,
}

impl CargoTarget {
    /// Returns the target that a command of cargo or cargo-nextest selects.
    pub(super) fn of(test: &Test) -> Option<Self> {
        let words: Vec<&str> = before_dashes(&test.command).iter().map(String::as_str).collect();
        let selection = words.strip_prefix(NEXTEST.as_slice()).or(words.strip_prefix(&["cargo", "test"]))?;
        let (package, kind, name) = match selection {
            ["--package", package, "--lib"] => (package, "lib", ""),
            ["--package", package, "--doc"] => (package, "doc", ""),
            ["--package", package, "--test", name] => (package, "test", *name),
            ["--package", package, "--bin", name] => (package, "bin", *name),
            ["--package", package, "--example", name] => (package, "example", *name),
            ["--package", package, "--bench", name] => (package, "bench", *name),
            _ => return None,
        };
        Some(Self { package: (*package).to_owned(), kind: kind.to_owned(), name: name.to_owned() })
    }

    /// Returns the test program of a target.
    pub(super) fn new(package: &str, target: &Target) -> Self {
        let kind = target.kind.first().map_or("lib", String::as_str);
        let kind = if matches!(kind, "bin" | "test" | "example" | "bench") { kind } else { "lib" };
        let name = if kind == "lib" { String::new() } else { target.name.clone() };
        Self { package: package.to_owned(), kind: kind.to_owned(), name }
    }

    /// Returns whether this is the documentation of a library.
    pub(super) fn is_doc(&self) -> bool {
        self.kind == "doc"
    }

    /// Returns whether a test runs a whole target with `cargo test`, not one function and not a
    /// listing.
    pub(super) fn is_whole_program(test: &Test) -> bool {
        let is_program = Self::of(test).is_some_and(|target| !target.is_doc());
        is_program && program_arguments(test).is_empty() && !is_nextest(test)
    }
}

/// Returns whether a test lists functions with cargo-nextest.
pub(super) fn is_nextest(test: &Test) -> bool {
    test.command.iter().map(String::as_str).take(NEXTEST.len()).eq(NEXTEST)
}

/// Returns the arguments of the test program: the words behind `--`.
pub(super) fn program_arguments(test: &Test) -> &[String] {
    test.command.get(before_dashes(&test.command).len() + 1..).unwrap_or_default()
}

/// Returns the function that a test runs, if it runs a single one.
pub(super) fn function(test: &Test) -> Option<&str> {
    match program_arguments(test) {
        [exact, name] if exact == EXACT => Some(name),
        _ => None,
    }
}

/// Returns the test that runs a single function of the program that `test` runs.
pub(super) fn only(test: &Test, function: &str) -> Test {
    with_arguments(test, [EXACT, function])
}

/// Returns the test that runs its program with these arguments.
pub(super) fn with_arguments<'a>(test: &Test, arguments: impl IntoIterator<Item = &'a str>) -> Test {
    let words = std::iter::once("--").chain(arguments).map(str::to_owned);
    Test { command: test.command.iter().cloned().chain(words).collect(), ..test.clone() }
}

fn before_dashes(command: &[String]) -> &[String] {
    let end = command.iter().position(|word| word == "--");
    &command[..end.unwrap_or(command.len())]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_selects_a_target() {
        let check = |command: &[&str], expected: Option<(&str, &str, &str)>| {
            let test = Test::new("t", command.iter().copied());
            let expected = expected.map(|(package, kind, name)| CargoTarget {
                package: package.to_owned(),
                kind: kind.to_owned(),
                name: name.to_owned(),
            });
            assert_eq!(CargoTarget::of(&test), expected, "{command:?}");
        };
        let lib = ["cargo", "test", "--package", "p", "--lib"];
        check(&lib, Some(("p", "lib", "")));
        check(&[lib.as_slice(), &["--", "--exact", "m::f"]].concat(), Some(("p", "lib", "")));
        check(&[NEXTEST.as_slice(), &lib[2..]].concat(), Some(("p", "lib", "")));
        check(&["cargo", "test", "--package", "p", "--bin", "b"], Some(("p", "bin", "b")));
        check(&["cargo", "test"], None);
        check(&["cargo", "build", "--package", "p", "--lib"], None);
        check(&[], None);
        let test = Test::new("t", lib);
        assert_eq!((function(&test), function(&only(&test, "m::f"))), (None, Some("m::f")));
    }
}
