//! The compiler's messages about the parts of a workspace that could not be built.

use std::collections::HashSet;

use super::metadata::Target;
use super::target::CargoTarget;
use crate::plain_text::plain;

/// The messages of a build that failed in part.
#[derive(Debug, Default)]
pub(super) struct BuildFailures {
    messages: Vec<CompilerMessage>,
    units: Vec<FailedUnit>,
    /// Programs without tests, by package and unit.
    untested: HashSet<(String, String)>,
}

#[derive(Debug)]
struct CompilerMessage {
    package: String,
    /// Kind and name of the target, as in [`FailedUnit::unit`].
    unit: String,
    /// Text with colours, ended by a line break.
    text: String,
}

/// A line of cargo's that names a rejected part of a package: `` could not compile `a` (lib test)
/// ``.
#[derive(Debug)]
struct FailedUnit {
    package: String,
    /// `lib`, `lib test`, `bin "b"`, `bin "b" test`, `test "t"`, `example "e"`, `bench "b"` or
    /// `build script`.
    unit: String,
    line: String,
}

impl BuildFailures {
    /// Adds a message of the compiler about a target.
    pub(super) fn add_message(&mut self, package: &str, target: &Target, text: String) {
        self.messages.push(CompilerMessage { package: package.to_owned(), unit: unit_of(target), text });
    }

    /// Adds a target that cargo builds although it has no tests. Its failure fails all tests of its
    /// package.
    pub(super) fn add_untested(&mut self, package: &str, target: &Target) {
        self.untested.insert((package.to_owned(), unit_of(target)));
    }

    /// Reads what cargo printed beside the messages.
    pub(super) fn read_stderr(&mut self, stderr: &str) {
        self.units.extend(stderr.lines().filter_map(failed_unit));
    }

    /// Returns the messages that explain why the tests of a target could not be built. `reached`
    /// holds the packages that the target's package depends on, and the package itself.
    ///
    /// Returns `None` if the compiler did not reject the target or one of its dependencies. Cargo
    /// stops at the first error, so such a target may be valid.
    pub(super) fn explain(&self, target: &CargoTarget, reached: &[&str]) -> Option<String> {
        let is_cause = |unit: &&FailedUnit| {
            let is_own_package = unit.package == target.package;
            let is_own_unit = is_own_package && is_unit_of(&unit.unit, target);
            let is_library = unit.unit == "lib" && !(is_own_package && target.kind == "lib");
            let is_program = is_own_package
                && matches!(target.kind.as_str(), "test" | "bench")
                && unit.unit.starts_with("bin ")
                && !unit.unit.ends_with(" test");
            let is_dependency = is_library || unit.unit == "build script";
            let is_untested = is_own_package && self.is_untested(unit);
            is_own_unit
                || is_program
                || is_untested
                || (is_dependency && reached.contains(&unit.package.as_str()))
        };
        let causes: Vec<&FailedUnit> = self.units.iter().filter(is_cause).collect();
        let mut texts: Vec<&str> = Vec::new();
        for cause in &causes {
            let unit = cause.unit.strip_suffix(" test").unwrap_or(&cause.unit);
            let messages = self
                .messages
                .iter()
                .filter(|message| message.package == cause.package && message.unit == unit);
            for message in messages {
                // The compiler reports most errors of a library twice, for itself and for its
                // tests.
                if !texts.contains(&message.text.as_str()) {
                    texts.push(&message.text);
                }
            }
        }
        let lines = causes.iter().map(|cause| cause.line.as_str());
        let all: Vec<&str> = texts.iter().map(|text| text.trim_end()).chain(lines).collect();
        (!causes.is_empty()).then(|| all.join("\n") + "\n")
    }

    /// Returns whether the compiler has rejected a program of a package that has no tests.
    pub(super) fn fails_package(&self, package: &str) -> bool {
        self.units.iter().any(|unit| unit.package == package && self.is_untested(unit))
    }

    fn is_untested(&self, unit: &FailedUnit) -> bool {
        let is_program = unit.unit.starts_with("example ") || unit.unit.starts_with("bin ");
        is_program && self.untested.contains(&(unit.package.clone(), unit.unit.clone()))
    }
}

/// Returns the name that cargo gives to the build of a target.
fn unit_of(target: &Target) -> String {
    match target.kind.first().map_or("lib", String::as_str) {
        kind @ ("bin" | "test" | "example" | "bench") => format!("{kind} {:?}", target.name),
        "custom-build" => "build script".to_owned(),
        _ => "lib".to_owned(),
    }
}

/// Returns whether cargo names the tests of a target so.
fn is_unit_of(unit: &str, target: &CargoTarget) -> bool {
    match target.kind.as_str() {
        "lib" => unit == "lib test",
        kind => {
            let name = format!("{kind} {:?}", target.name);
            unit.strip_prefix(&name).is_some_and(|rest| {
                // A program's tests are another unit than the program.
                rest == " test" || (rest.is_empty() && kind != "bin")
            })
        }
    }
}

fn failed_unit(line: &str) -> Option<FailedUnit> {
    let text = plain(line.as_bytes());
    let (_, rest) = text.split_once("could not compile `")?;
    let (package, rest) = rest.split_once("` (")?;
    let (unit, _) = rest.split_once(')')?;
    Some(FailedUnit { package: package.to_owned(), unit: unit.to_owned(), line: line.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(package: &str, kind: &str, name: &str) -> CargoTarget {
        CargoTarget { package: package.to_owned(), kind: kind.to_owned(), name: name.to_owned() }
    }

    fn failures() -> BuildFailures {
        let mut failures = BuildFailures::default();
        let cargo = |kind: &str, name: &str| Target {
            name: name.to_owned(),
            kind: vec![kind.to_owned()],
            test: true,
            ..Target::default()
        };
        failures.add_message("a", &cargo("lib", "a"), "error: in a\n".to_owned());
        failures.add_message("a", &cargo("lib", "a"), "error: in a\n".to_owned());
        failures.add_message("c", &cargo("test", "t"), "error: in t\n".to_owned());
        failures.read_stderr(
            "   Compiling a v0.1.0\n\
             \u{1b}[31merror\u{1b}[0m: could not compile `a` (lib) due to 1 previous error\n\
             error: could not compile `c` (test \"t\") due to 2 previous errors; 1 warning emitted\n",
        );
        failures
    }

    #[test]
    fn a_failed_dependency_explains_a_missing_program() {
        let failures = failures();
        let text = failures.explain(&target("b", "lib", ""), &["b", "a"]).unwrap();
        let expected =
            "error: in a\n\u{1b}[31merror\u{1b}[0m: could not compile `a` (lib) due to 1 previous error\n";
        assert_eq!(text, expected);
        assert_eq!(failures.explain(&target("a", "test", "i"), &["a"]).as_deref(), Some(expected));
        let own = failures.explain(&target("c", "test", "t"), &["c"]).unwrap();
        assert!(own.starts_with("error: in t\nerror: could not compile `c` (test \"t\")"), "{own}");
    }

    #[test]
    fn an_example_that_does_not_compile_fails_the_tests_of_its_package() {
        let mut failures = BuildFailures::default();
        let example = |name: &str, test: bool| Target {
            name: name.to_owned(),
            kind: vec!["example".to_owned()],
            test,
            ..Target::default()
        };
        failures.add_untested("a", &example("e", false));
        failures.add_message("a", &example("e", false), "error: in e\n".to_owned());
        failures.read_stderr("error: could not compile `a` (example \"e\") due to 1 previous error\n");
        failures.read_stderr("error: could not compile `b` (example \"t\") due to 1 previous error\n");
        for kind in ["lib", "doc", "test"] {
            let text = failures.explain(&target("a", kind, ""), &["a"]).unwrap();
            assert!(text.starts_with("error: in e\n"), "{text}");
        }
        assert_eq!(failures.explain(&target("b", "lib", ""), &["b"]), None, "the example has tests");
    }

    #[test]
    fn targets_that_the_compiler_did_not_reject_are_not_explained() {
        let failures = failures();
        assert_eq!(failures.explain(&target("d", "lib", ""), &["d"]), None, "not reached");
        assert_eq!(failures.explain(&target("c", "lib", ""), &["c"]), None, "only its test was rejected");
        assert_eq!(failures.explain(&target("c", "test", "other"), &["c"]), None);
        // The library is compiled in another way for its tests.
        assert_eq!(failures.explain(&target("a", "lib", ""), &["a"]), None);
    }
}
