//! Builds the project once, before features start, for all working copies.
//!
//! Without it, each copy compiles all dependencies. The build output is a part of the files that
//! overlays share, and is copied into other copies. Each copy has separate build output, because
//! builds in one directory wait for each other and overwrite each other's results.

use std::collections::BTreeSet;
use std::path::Path;

use crate::copies::Copies;
use crate::plan::{FeatureId, Guards, Plan};
use crate::tree::Tree;

/// Maximum number of builds.
const BUILDS_MAX: usize = 4;

/// Options of cargo that decide how dependencies are compiled, without a value.
const FLAGS: [&str; 8] = [
    "--release",
    "-r",
    "--offline",
    "--locked",
    "--frozen",
    "--all-features",
    "--no-default-features",
    "--workspace",
];
/// Those with a value.
const OPTIONS: [&str; 6] = ["--profile", "--features", "-F", "--target", "--manifest-path", "--config"];

/// Returns the commands that build the programs of the features' tests, without duplicates. `lock`
/// is the content of the project's `Cargo.lock`.
pub(crate) fn commands<'a>(tests: impl Iterator<Item = &'a [String]>, lock: &str) -> Vec<Vec<String>> {
    let mut commands: Vec<Vec<String>> = Vec::new();
    // A single package has nothing that could be shared.
    if lock.matches("[[package]]").count() < 2 {
        return commands;
    }
    for command in tests.filter_map(build_of) {
        if !commands.contains(&command) && commands.len() < BUILDS_MAX {
            commands.push(command);
        }
    }
    commands
}

/// Returns the tests' commands of some features, and of guards that the plan names.
pub(crate) fn tests<'a>(
    plan: &'a Plan,
    selected: &'a BTreeSet<FeatureId>,
) -> impl Iterator<Item = &'a [String]> {
    let features = selected.iter().flat_map(|id| &plan.features[id.index()].tests);
    let guards = match &plan.guards {
        Guards::Tests(tests) => &tests[..],
        Guards::Auto | Guards::Off => &[],
    };
    features.chain(guards).map(|test| &test.command[..])
}

/// Returns the path of the `Cargo.lock` that is used in the project's directory.
pub(crate) fn lock_file<'a>(tree: &'a Tree, copies: &Copies) -> Option<&'a String> {
    let project = Path::new(&copies.root.project);
    project.ancestors().find_map(|directory| {
        let path = directory.join("Cargo.lock");
        tree.get_key_value(path.to_str()?).map(|(path, _)| path)
    })
}

/// Returns the command that builds the program of a test, if cargo runs the test.
fn build_of(test: &[String]) -> Option<Vec<String>> {
    let words: Vec<&str> = match test {
        // A line of shell without a second command.
        [shell, flag, line] if ["sh", "bash"].contains(&shell.as_str()) && flag == "-c" => {
            let is_plain = !line.contains(['|', ';', '&', '<', '>', '`', '$', '(', '\'', '"', '\\', '\n']);
            line.split_whitespace().filter(|_| is_plain).collect()
        }
        words => words.iter().map(String::as_str).collect(),
    };
    let [program, "test", arguments @ ..] = &words[..] else { return None };
    if Path::new(program).file_name().is_none_or(|name| name != "cargo") {
        return None;
    }
    // Dependencies are compiled even if a test does not compile yet.
    let mut build = [*program, "build", "--tests", "--keep-going"].map(str::to_owned).to_vec();
    let mut arguments = arguments.iter().take_while(|argument| **argument != "--");
    while let Some(argument) = arguments.next() {
        let name = argument.split('=').next().unwrap_or(argument);
        if FLAGS.contains(argument) || (OPTIONS.contains(&name) && name != *argument) {
            build.push((*argument).to_owned());
        } else if OPTIONS.contains(argument) {
            build.push((*argument).to_owned());
            build.extend(arguments.next().map(|value| (*value).to_owned()));
        }
    }
    Some(build)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCK: &str = "[[package]]\nname = \"a\"\n[[package]]\nname = \"b\"\n";

    fn built(lines: &[&str]) -> Vec<String> {
        let tests: Vec<Vec<String>> =
            lines.iter().map(|line| line.split('+').map(str::to_owned).collect()).collect();
        let commands = commands(tests.iter().map(|test| &test[..]), LOCK);
        commands.iter().map(|command| command.join(" ")).collect()
    }

    #[test]
    fn options_of_dependencies_stay() {
        assert_eq!(
            built(&["cargo+test+--test+one", "cargo+test+-p+x+--+two"]),
            ["cargo build --tests --keep-going"]
        );
        assert_eq!(
            built(&["cargo+test+--release+--features+a,b+--test+one", "cargo+test+--profile=ci"]),
            [
                "cargo build --tests --keep-going --release --features a,b",
                "cargo build --tests --keep-going --profile=ci"
            ]
        );
        assert_eq!(
            built(&["sh+-c+cargo test --offline --test one"]),
            ["cargo build --tests --keep-going --offline"]
        );
    }

    #[test]
    fn other_commands_build_nothing() {
        for test in ["cargo+run", "pytest+cargo+test", "sh+-c+cd x && cargo test", "sh+-c+cargo test $X"] {
            assert!(built(&[test]).is_empty(), "{test}");
        }
        let test = ["cargo".to_owned(), "test".to_owned()];
        assert!(commands([&test[..]].into_iter(), "[[package]]\nname = \"a\"\n").is_empty());
    }
}
