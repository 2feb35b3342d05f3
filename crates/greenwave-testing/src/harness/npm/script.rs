//! Analyzes test scripts: whether they run tests of other packages, or something else.

use std::collections::BTreeMap;

use serde_json::Value;

use super::shell::{self, Word};

/// Maximum number of scripts that lead to one another.
const DEPTH_MAX: usize = 8;
/// Programs that choose packages by their own rules.
const CHOOSERS: [&str; 8] = ["nx", "rush", "lage", "moon", "wsrun", "ultra", "oao", "wireit"];

/// A part of the work of a test script.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// The script `test` of every member of the workspace.
    AllMembers {
        tool: Tool,
        /// Whether a member without the script is passed over.
        skips_missing: bool,
    },
    /// The script `test` of the members with these names or directories.
    Members(Vec<String>),
    /// Tests of members that only the tool knows.
    ChosenMembers,
    /// Something else.
    Other,
}

/// A program that runs the scripts of a workspace's members.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tool {
    /// The package manager.
    Manager,
    /// Turborepo (<https://turborepo.com/docs/reference/run>).
    Turbo,
    /// Lerna (<https://lerna.js.org/docs/api-reference/commands>).
    Lerna,
}

/// Returns the steps of a package's script, including the scripts that it calls in the same package
/// and its hooks (`pre…`, `post…`).
pub(super) fn steps(scripts: &BTreeMap<String, Value>, name: &str) -> Vec<Step> {
    let mut found = Vec::new();
    Reader { scripts }.follow(name, 0, &mut found);
    found
}

struct Reader<'s> {
    scripts: &'s BTreeMap<String, Value>,
}

/// The effect of a simple command, before the scripts that it names are followed.
enum Command {
    Step(Step),
    Scripts(Vec<String>),
}

impl Reader<'_> {
    fn follow(&self, name: &str, depth: usize, found: &mut Vec<Step>) {
        let text = |name: &str| self.scripts.get(name).and_then(Value::as_str);
        if text(name).is_none() || depth > DEPTH_MAX {
            found.push(Step::Other);
            return;
        }
        for name in [format!("pre{name}"), name.to_owned(), format!("post{name}")] {
            let Some(script) = text(&name) else { continue };
            let line = shell::split(script);
            if !line.is_conjunction {
                found.push(Step::Other);
            }
            for words in &line.commands {
                match self.command(words) {
                    Command::Step(step) => found.push(step),
                    Command::Scripts(names) => {
                        names.iter().for_each(|name| self.follow(name, depth + 1, found));
                    }
                }
            }
        }
    }

    fn command(&self, words: &[Word]) -> Command {
        let words: Vec<&str> = words.iter().map(|word| word.text.as_str()).collect();
        let (words, has_variables) = without_wrappers(&words);
        let Some((program, arguments)) = words.split_first() else { return Command::Step(Step::Other) };
        let command = match base_name(program) {
            "npm" => self.npm(arguments),
            "pnpm" => self.pnpm(arguments),
            "yarn" | "yarnpkg" => self.yarn(arguments),
            "bun" => self.bun(arguments),
            "turbo" => turbo(arguments),
            "lerna" => lerna(arguments),
            "run-s" | "run-p" | "npm-run-all" => self.run_all(arguments),
            other if CHOOSERS.contains(&other) && arguments.iter().any(|it| names_tests(it)) => {
                Some(Command::Step(Step::ChosenMembers))
            }
            _ => None,
        };
        match command {
            // Members that run by themselves would not see the variables.
            Some(Command::Step(Step::AllMembers { .. } | Step::Members(_))) if has_variables => {
                Command::Step(Step::ChosenMembers)
            }
            other => other.unwrap_or(Command::Step(Step::Other)),
        }
    }

    /// <https://docs.npmjs.com/cli/commands/npm-run>
    fn npm(&self, arguments: &[&str]) -> Option<Command> {
        let (mut all, mut skips_missing, mut is_plain) = (false, false, true);
        let (mut named, mut rest) = (Vec::new(), Vec::new());
        let mut words = arguments.iter();
        while let Some(word) = words.next() {
            match *word {
                "--workspaces" | "-ws" | "--ws" | "--workspaces=true" => all = true,
                "--if-present" => skips_missing = true,
                "-s" | "--silent" | "-q" | "--quiet" => {}
                "-w" | "--workspace" => named.extend(words.next().map(|name| (*name).to_owned())),
                "--" => is_plain = words.len() == 0,
                word => match word.strip_prefix("--workspace=").or_else(|| word.strip_prefix("-w=")) {
                    Some(name) => named.push(name.to_owned()),
                    None if word.starts_with('-') => is_plain = false,
                    None => rest.push(word),
                },
            }
        }
        let script = match rest.as_slice() {
            ["test" | "t" | "tst"] => "test",
            ["run" | "run-script" | "rum" | "urn", name] => name,
            _ => return None,
        };
        let step = match (all, named.is_empty()) {
            (false, true) => return is_plain.then(|| Command::Scripts(vec![script.to_owned()])),
            _ if script != "test" => return names_tests(script).then_some(CHOSEN),
            _ if !is_plain => Step::ChosenMembers,
            (true, _) => Step::AllMembers { tool: Tool::Manager, skips_missing },
            (false, false) => Step::Members(named),
        };
        Some(Command::Step(step))
    }

    /// <https://pnpm.io/cli/run>
    fn pnpm(&self, arguments: &[&str]) -> Option<Command> {
        let (mut all, mut is_chosen, mut rest) = (false, false, Vec::new());
        let mut words = arguments.iter();
        while let Some(word) = words.next() {
            match *word {
                "-r" | "--recursive" | "recursive" | "multi" | "m" => all = true,
                "--parallel" | "--stream" | "--no-bail" | "--bail" | "--if-present" | "--silent" | "-s"
                | "--aggregate-output" | "--no-sort" | "--sort" => {}
                "--filter" | "-F" => is_chosen |= words.next().is_some(),
                word if word.starts_with("--workspace-concurrency=") => {}
                word if word.starts_with("--reporter") => {}
                word if word.starts_with('-') => is_chosen = true,
                word => rest.push(word),
            }
        }
        let script = match rest.as_slice() {
            ["test" | "t" | "tst"] => "test",
            ["run" | "run-script", name] => name,
            [name] if self.scripts.contains_key(*name) => name,
            _ => return None,
        };
        match (all, is_chosen) {
            (false, false) => Some(Command::Scripts(vec![script.to_owned()])),
            (true, false) if script == "test" => {
                Some(Command::Step(Step::AllMembers { tool: Tool::Manager, skips_missing: true }))
            }
            _ => names_tests(script).then_some(CHOSEN),
        }
    }

    /// <https://classic.yarnpkg.com/lang/en/docs/cli/workspaces> and
    /// <https://yarnpkg.com/cli/workspaces/foreach>
    fn yarn(&self, arguments: &[&str]) -> Option<Command> {
        match arguments {
            ["workspaces", "run", "test"] => {
                Some(Command::Step(Step::AllMembers { tool: Tool::Manager, skips_missing: false }))
            }
            ["workspaces", "foreach", rest @ ..] => {
                let flags: Vec<&&str> = rest.iter().take_while(|word| word.starts_with('-')).collect();
                let is_all = flags.iter().all(|flag| match flag.strip_prefix("--") {
                    Some(name) => matches!(
                        name,
                        "all" | "parallel" | "verbose" | "interlaced" | "topological" | "topological-dev"
                    ),
                    None => flag.chars().skip(1).all(|letter| "Apvit".contains(letter)),
                });
                match &rest[flags.len()..] {
                    ["run", "test"] | ["test"] if is_all => {
                        Some(Command::Step(Step::AllMembers { tool: Tool::Manager, skips_missing: true }))
                    }
                    other => other.iter().any(|word| names_tests(word)).then_some(CHOSEN),
                }
            }
            ["workspaces", rest @ ..] => rest.iter().any(|word| names_tests(word)).then_some(CHOSEN),
            ["workspace", name, "test"] | ["workspace", name, "run", "test"] => {
                Some(Command::Step(Step::Members(vec![(*name).to_owned()])))
            }
            ["workspace", _, rest @ ..] => rest.iter().any(|word| names_tests(word)).then_some(CHOSEN),
            ["run", name] | [name] if self.scripts.contains_key(*name) => {
                Some(Command::Scripts(vec![(*name).to_owned()]))
            }
            _ => None,
        }
    }

    /// <https://bun.sh/docs/cli/filter>
    fn bun(&self, arguments: &[&str]) -> Option<Command> {
        let words: Vec<&str> = arguments.iter().copied().filter(|word| *word != "run").collect();
        match words.as_slice() {
            ["--filter", "*", "test"] | ["--filter=*", "test"] => {
                Some(Command::Step(Step::AllMembers { tool: Tool::Manager, skips_missing: true }))
            }
            ["--filter" | "-F", _, name] if names_tests(name) => Some(CHOSEN),
            [flag, name] if flag.starts_with("--filter=") && names_tests(name) => Some(CHOSEN),
            // `bun test` is a test runner.
            [name] if arguments.len() == 2 && self.scripts.contains_key(*name) => {
                Some(Command::Scripts(vec![(*name).to_owned()]))
            }
            _ => None,
        }
    }

    /// <https://github.com/mysticatea/npm-run-all>
    fn run_all(&self, arguments: &[&str]) -> Option<Command> {
        let names: Vec<String> = arguments.iter().map(|name| (*name).to_owned()).collect();
        names.iter().all(|name| self.scripts.contains_key(name)).then_some(Command::Scripts(names))
    }
}

const CHOSEN: Command = Command::Step(Step::ChosenMembers);

fn turbo(arguments: &[&str]) -> Option<Command> {
    let is_narrowed = |word: &&str| {
        ["--filter", "-F", "--affected", "--scope", "--since", "--only"].iter().any(|it| word.starts_with(it))
    };
    let tasks: Vec<&str> =
        arguments.iter().copied().filter(|word| !word.starts_with('-') && *word != "run").collect();
    if arguments.contains(&"--") || arguments.iter().any(is_narrowed) || tasks != ["test"] {
        return tasks.iter().any(|task| names_tests(task)).then_some(CHOSEN);
    }
    Some(Command::Step(Step::AllMembers { tool: Tool::Turbo, skips_missing: true }))
}

fn lerna(arguments: &[&str]) -> Option<Command> {
    let ["run", rest @ ..] = arguments else { return None };
    let is_plain = |word: &&str| {
        let flags = ["--stream", "--parallel", "--no-bail", "--no-sort", "--concurrency=", "--no-prefix"];
        flags.iter().any(|flag| word.starts_with(flag))
    };
    let (tasks, flags): (Vec<&str>, Vec<&str>) = rest.iter().partition(|word| !word.starts_with('-'));
    match tasks.as_slice() {
        ["test"] if flags.iter().all(is_plain) => {
            Some(Command::Step(Step::AllMembers { tool: Tool::Lerna, skips_missing: true }))
        }
        tasks => tasks.iter().any(|task| names_tests(task)).then_some(CHOSEN),
    }
}

/// Returns whether a script, task or target may run tests.
fn names_tests(word: &str) -> bool {
    word.split(|it: char| !it.is_ascii_alphanumeric()).any(|part| matches!(part, "test" | "tests" | "t"))
}

/// Returns the words behind variables and the programs that only start others, and whether
/// variables other than `CI` are set.
pub(super) fn without_wrappers<'w>(words: &[&'w str]) -> (Vec<&'w str>, bool) {
    let mut words = words.to_vec();
    let mut has_variables = false;
    loop {
        let length = match words.as_slice() {
            [first, ..] if is_assignment(first) => {
                has_variables |= !first.starts_with("CI=");
                1
            }
            ["cross-env" | "cross-env-shell" | "npx" | "bunx" | "env", ..] => 1,
            ["pnpm" | "yarn" | "npm", "exec", "--", _, ..] => 3,
            ["pnpm" | "yarn" | "npm", "exec", second, ..] if !second.starts_with('-') => 2,
            ["pnpm" | "yarn", "jest" | "vitest" | "mocha" | "ava" | "tap" | "turbo" | "nx" | "lerna", ..] => {
                1
            }
            _ => return (words, has_variables),
        };
        words.drain(..length);
    }
}

fn is_assignment(word: &str) -> bool {
    word.split_once('=').is_some_and(|(name, _)| {
        !name.is_empty() && name.chars().all(|it| it.is_ascii_alphanumeric() || it == '_')
    })
}

/// Returns the file name of a program.
pub(super) fn base_name(program: &str) -> &str {
    program.rsplit('/').next().unwrap_or(program)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(scripts: &[(&str, &str)]) -> Vec<Step> {
        let scripts: BTreeMap<String, Value> =
            scripts.iter().map(|(name, text)| ((*name).to_owned(), Value::from(*text))).collect();
        steps(&scripts, "test")
    }

    fn all(tool: Tool, skips_missing: bool) -> Vec<Step> {
        vec![Step::AllMembers { tool, skips_missing }]
    }

    #[test]
    fn scripts_that_run_the_tests_of_all_members_are_recognized() {
        for script in ["npm test --workspaces", "npm run test -ws", "npm -ws run test --silent", "npm t --ws"]
        {
            assert_eq!(of(&[("test", script)]), all(Tool::Manager, false), "{script}");
        }
        let skipping = [
            "npm run test --workspaces --if-present",
            "pnpm -r test",
            "pnpm --recursive --parallel run test",
            "yarn workspaces foreach -Apt run test",
            "bun run --filter '*' test",
        ];
        for script in skipping {
            assert_eq!(of(&[("test", script)]), all(Tool::Manager, true), "{script}");
        }
        for script in ["turbo run test", "npx turbo test --no-daemon", "CI=1 pnpm exec turbo run test"] {
            assert_eq!(of(&[("test", script)]), all(Tool::Turbo, true), "{script}");
        }
        assert_eq!(of(&[("test", "lerna run test --stream")]), all(Tool::Lerna, true));
        assert_eq!(
            of(&[("test", "npm run test:all"), ("test:all", "pnpm -r test")]),
            all(Tool::Manager, true)
        );
    }

    #[test]
    fn scripts_that_choose_members_are_not_taken_for_all_of_them() {
        let choosing = [
            "turbo run test --filter=web",
            "turbo run build test",
            "turbo run test -- --coverage",
            "nx run-many -t test",
            "npx nx affected --target=test",
            "pnpm --filter ./packages/** test",
            "npm test -ws -- --coverage",
            "npm run test:unit -ws",
            "yarn workspaces foreach --since run test",
            "lerna run test --scope a",
            "cross-env NODE_ENV=test turbo run test",
        ];
        for script in choosing {
            assert_eq!(of(&[("test", script)]), [Step::ChosenMembers], "{script}");
        }
        let named = vec![Step::Members(vec!["a".to_owned()]), Step::Members(vec!["packages/b".to_owned()])];
        assert_eq!(of(&[("test", "npm test -w a && npm run test --workspace=packages/b")]), named);
        assert_eq!(of(&[("test", "yarn workspace a test")]), named[..1]);
    }

    #[test]
    fn flags_of_other_programs_are_not_those_of_a_package_manager() {
        let other = [
            "node -r ./setup.js root-test.js",
            "mocha -r ts-node/register --recursive",
            "jest --workspaces",
            "node scripts/turbo.js test",
            "npm run build -ws",
            "tsc -b && vitest run",
            "pnpm -r build",
            "bun test",
            "npm test",
        ];
        for script in other {
            assert!(of(&[("test", script)]).iter().all(|step| *step == Step::Other), "{script}");
        }
    }

    #[test]
    fn everything_that_a_script_runs_beside_tests_of_members_is_a_step() {
        let mixed = of(&[("test", "npm run lint && npm test -ws"), ("lint", "eslint .")]);
        assert_eq!(mixed, [Step::Other, Step::AllMembers { tool: Tool::Manager, skips_missing: false }]);
        let built = of(&[("pretest", "tsc -b"), ("test", "pnpm -r test"), ("posttest", "c8 report")]);
        assert_eq!(built.len(), 3);
        assert_eq!(of(&[("test", "pnpm -r test; true")])[0], Step::Other);
        assert_eq!(of(&[("test", "pnpm -r test || true")])[0], Step::Other);
        assert_eq!(
            of(&[("test", "run-s a b"), ("a", "nx test"), ("b", "x")]),
            [Step::ChosenMembers, Step::Other]
        );
    }
}
