//! Finds the files and targets that the commands of tests name.

use greenwave_testing::Test;

use crate::test_files::{is_test_file, is_test_script};

/// A path that a command names, relative to the project.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Operand {
    pub(crate) path: String,
    /// Whether the path is an argument of a program that may read or write it (`grep x FILE`), and
    /// not a script or test that the command runs.
    pub(crate) is_argument: bool,
}

impl Operand {
    pub(super) fn matches(&self, path: &str) -> bool {
        self.path == path
    }

    /// Returns whether the operand is a test: a file of tests, or a script whose name says that it
    /// tests something. Data that a command looks at, such as `docs/check-list.md`, is not.
    pub(super) fn is_test(&self) -> bool {
        is_test_file(&self.path) || (is_test_script(&self.path) && (!self.is_argument || self.is_code()))
    }

    fn is_code(&self) -> bool {
        let name = self.path.rsplit('/').next().unwrap_or(&self.path);
        name.rsplit_once('.').is_none_or(|(_, extension)| CODE.contains(&extension))
    }
}

/// Extensions of files that can be run.
const CODE: [&str; 24] = [
    "sh", "bash", "zsh", "fish", "bats", "t", "py", "rb", "pl", "php", "js", "mjs", "cjs", "jsx", "ts",
    "mts", "cts", "tsx", "lua", "R", "exs", "go", "rs", "ps1",
];

/// Programs that run the file which is their first argument.
const INTERPRETERS: [&str; 17] = [
    "python", "python3", "node", "nodejs", "deno", "bun", "tsx", "ts-node", "ruby", "perl", "php", "bash",
    "sh", "dash", "zsh", "Rscript", "lua",
];

/// Programs whose arguments are tests.
const RUNNERS: [&str; 14] = [
    "pytest",
    "py.test",
    "unittest",
    "jest",
    "vitest",
    "mocha",
    "ava",
    "rspec",
    "bats",
    "playwright",
    "cypress",
    "phpunit",
    "prove",
    "go",
];

/// Files with the tasks of programs that run them by name.
const TASK_FILES: [(&str, &[&str]); 7] = [
    ("rake", &["Rakefile", "rakefile", "Rakefile.rb"]),
    ("task", &["Taskfile.yml", "Taskfile.yaml"]),
    ("gulp", &["gulpfile.js", "gulpfile.mjs", "gulpfile.ts"]),
    ("grunt", &["Gruntfile.js"]),
    ("invoke", &["tasks.py"]),
    ("mix", &["mix.exs"]),
    ("ant", &["build.xml"]),
];

/// Returns the paths that the command of a test names, and those of the tasks that it runs.
pub(crate) fn operands(test: &Test) -> Vec<Operand> {
    let mut operands = Vec::new();
    let directory = test.directory.to_string_lossy();
    for words in simple_commands(&test.command) {
        let mut runs = Runs::Program;
        for word in &words {
            if word == "-" && runs == Runs::Script {
                // The script is the standard input.
                runs = Runs::Arguments;
            }
            if word.starts_with('-') || word.contains('=') {
                // `python -m pytest` and `bash -c` have no script.
                if (word == "-m" || word == "-c") && runs == Runs::Script {
                    runs = Runs::Program;
                }
                continue;
            }
            let name = word.rsplit('/').next().unwrap_or(word);
            if runs == Runs::Program {
                runs = kind(name);
                let tasks = TASK_FILES.iter().filter(|(program, _)| *program == name);
                let files = tasks.flat_map(|(_, files)| *files);
                operands.extend(files.filter_map(|file| operand(&directory, file, false)));
                if word.contains('/') && !word.starts_with('/') {
                    operands.extend(operand(&directory, word, false));
                }
                continue;
            }
            operands.extend(operand(&directory, word, runs == Runs::Arguments));
            if runs == Runs::Script {
                runs = Runs::Arguments;
            }
        }
    }
    operands
}

/// Returns the targets that the command of a test gives to `make`.
pub(crate) fn make_targets(test: &Test) -> Vec<String> {
    let commands = simple_commands(&test.command);
    let is_make = |words: &&Vec<String>| words.first().is_some_and(|word| word.ends_with("make"));
    let mut targets: Vec<String> = Vec::new();
    for words in commands.iter().filter(is_make) {
        let named = words[1..].iter().filter(|word| !word.starts_with('-') && !word.contains('='));
        let before = targets.len();
        targets.extend(named.cloned());
        if targets.len() == before {
            // The default target: the first of the file.
            targets.push(String::new());
        }
    }
    targets
}

/// Meaning of the words after the current one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Runs {
    /// The next word is a program.
    Program,
    /// The next word is a script that the program runs.
    Script,
    /// All further words are tests.
    Tests,
    /// Further words are arguments of the program.
    Arguments,
}

fn kind(program: &str) -> Runs {
    let stem = program.trim_end_matches(|character: char| character.is_ascii_digit() || character == '.');
    if [
        "env", "npx", "time", "timeout", "nice", "exec", "command", "xvfb-run", "uv", "poetry", "pipenv",
        "run",
    ]
    .contains(&program)
    {
        Runs::Program
    } else if INTERPRETERS.contains(&program) || INTERPRETERS.contains(&stem) {
        Runs::Script
    } else if RUNNERS.contains(&program) {
        Runs::Tests
    } else {
        Runs::Arguments
    }
}

/// Returns the path that a word names, without the name of a single test behind it.
fn operand(directory: &str, word: &str, is_argument: bool) -> Option<Operand> {
    let word = word.split("::").next().unwrap_or(word);
    if word.is_empty() || word.starts_with('/') {
        return None;
    }
    let mut parts: Vec<&str> = directory.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    for part in word.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    Some(Operand { path: parts.join("/"), is_argument })
}

/// Returns a script without the lines of its here-documents, which are input and no commands.
fn without_here_documents(script: &str) -> String {
    let mut commands = String::new();
    let mut lines = script.lines();
    while let Some(line) = lines.next() {
        commands.push_str(line);
        commands.push('\n');
        // `<<<` precedes a word of input.
        let ends = line.replace("<<<", "");
        for begin in ends.split("<<").skip(1) {
            let begin = begin.trim_start_matches('-').trim_start();
            let end = begin.split([' ', '\t', ';', '|', '&', '>', '<', ')']).next().unwrap_or_default();
            let end = end.trim_matches(['\'', '"']).trim_start_matches('\\');
            if end.is_empty() || end.starts_with(|first: char| first.is_ascii_digit()) {
                continue;
            }
            let mut rest = lines.clone();
            if rest.any(|line| line.trim_start_matches('\t') == end) {
                lines = rest;
            }
        }
    }
    commands
}

/// Splits a command into words. A script for a shell (`sh -c`) is split at its operators.
fn simple_commands(command: &[String]) -> Vec<Vec<String>> {
    let is_shell = |word: &str| matches!(word.rsplit('/').next(), Some("sh" | "bash" | "dash" | "zsh"));
    let script = match command {
        [shell, flag, script, ..] if is_shell(shell) && flag.starts_with('-') && flag.ends_with('c') => {
            script
        }
        _ => return vec![command.to_vec()],
    };
    let mut commands = vec![Vec::new()];
    let (mut word, mut quote, mut has_word) = (String::new(), None, false);
    let script = without_here_documents(script);
    let mut characters = script.chars().peekable();
    // Whether the next word is a file that is written (`> FILE`), and no argument.
    let mut is_target = false;
    while let Some(character) = characters.next() {
        match (quote, character) {
            (Some(open), _) if character == open => quote = None,
            (None, '\'' | '"') => (quote, has_word) = (Some(character), true),
            (None | Some('"'), '\\') => word.extend(characters.next()),
            // `2>&1`: the number of a file and the rest of the operator are no words.
            (None, '>') if word.chars().all(|digit| digit.is_ascii_digit()) => {
                word.clear();
                while characters.next_if(|next| matches!(next, '>' | '&' | '|')).is_some() {}
                is_target = true;
            }
            (None, ';' | '&' | '|' | '\n' | '(' | ')' | '{' | '}' | '<' | '>' | ' ' | '\t') => {
                if has_word || !word.is_empty() {
                    let word = std::mem::take(&mut word);
                    if !std::mem::take(&mut is_target) {
                        push(&mut commands, word);
                    }
                    has_word = false;
                }
                is_target |= character == '>';
                if !matches!(character, ' ' | '\t' | '<' | '>') {
                    commands.push(Vec::new());
                }
            }
            _ => word.push(character),
        }
    }
    if (has_word || !word.is_empty()) && !is_target {
        push(&mut commands, word);
    }
    commands.retain(|words| !words.is_empty());
    commands
}

fn push(commands: &mut [Vec<String>], word: String) {
    const KEYWORDS: [&str; 8] = ["if", "then", "else", "while", "do", "!", "set", "cd"];
    if let Some(last) = commands.last_mut()
        && !(last.is_empty() && KEYWORDS.contains(&word.as_str()))
    {
        last.push(word);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn here_documents_name_no_programs() {
        let programs = |script: &str| -> Vec<String> {
            let operands = operands(&Test::new("t", ["sh", "-c", script])).into_iter();
            operands.filter(|operand| !operand.is_argument).map(|operand| operand.path).collect()
        };
        assert_eq!(programs("cat <<'X'\nsrc/a.txt\nX\n./b.sh"), ["b.sh"]);
        assert_eq!(programs("cat <<-X | tee c\n\tsrc/a.txt\n\tX\n./b.sh"), ["b.sh"]);
        assert_eq!(programs("n=$((n<<m))\n./b.sh <<< x"), ["b.sh"]);
    }

    #[test]
    fn data_that_a_command_looks_at_is_no_test() {
        let tests = |script: &str| -> Vec<String> {
            let operands = operands(&Test::new("t", ["sh", "-c", script])).into_iter();
            operands.filter(Operand::is_test).map(|operand| operand.path).collect()
        };
        assert!(tests("test -f docs/check-list.md && grep -q x test-results.txt").is_empty());
        assert_eq!(
            tests("grep -q x check.sh; cat tests/data.txt; ./run-tests"),
            ["check.sh", "tests/data.txt", "run-tests"]
        );
    }

    #[test]
    fn files_that_a_command_writes_are_not_its_operands() {
        let paths = |script: &str| -> Vec<String> {
            operands(&Test::new("t", ["sh", "-c", script])).into_iter().map(|operand| operand.path).collect()
        };
        assert!(paths("python3 - > out.txt").is_empty());
        assert_eq!(paths("python3 - out.txt; bash < t.sh >>log"), ["out.txt", "t.sh"]);
        assert_eq!(paths("python3 t.py >out.txt 2>&1 x.txt"), ["t.py", "x.txt"]);
        assert_eq!(paths("bash > log t.sh; ./u.sh&& cat v"), ["t.sh", "u.sh", "v"]);
    }
}
