//! Finds placeholders in the command of `notify` that have words of agents run by a shell.

use std::path::Path;

/// Placeholders in the arguments of the command.
const PLACEHOLDERS: [&str; 5] = ["{plan}", "{feature}", "{kind}", "{reason}", "{action}"];
/// Programs that run the text of an option, by the start of their names.
const INTERPRETERS: [&str; 14] = [
    "sh",
    "bash",
    "dash",
    "ash",
    "zsh",
    "ksh",
    "fish",
    "busybox",
    "python",
    "perl",
    "ruby",
    "node",
    "osascript",
    "pwsh",
];

/// Returns the position of a word that contains a placeholder and that an interpreter runs. An
/// agent could have such a word run a command outside of the confinement.
pub(crate) fn runs_placeholder(words: &[String]) -> Option<usize> {
    code(words).find(|at| PLACEHOLDERS.iter().any(|placeholder| words[*at].contains(placeholder)))
}

/// Returns the positions of words that an interpreter runs.
fn code(words: &[String]) -> impl Iterator<Item = usize> {
    let first = words.iter().position(|word| is_interpreter(word)).unwrap_or(words.len());
    (first + 1..words.len()).filter(|at| takes_code(&words[at - 1]))
}

fn is_interpreter(word: &str) -> bool {
    let name = Path::new(word).file_name().unwrap_or_default().to_string_lossy();
    // Versions follow, as in `python3.12`.
    INTERPRETERS.contains(&name.trim_end_matches(|it: char| it.is_ascii_digit() || it == '.'))
}

/// Returns whether a word is an option whose value is code: `-c`, `-lc`, `-e`, `--eval`.
fn takes_code(word: &str) -> bool {
    let short = word.strip_prefix('-').filter(|rest| !rest.starts_with('-'));
    ["--eval", "--command", "-Command"].contains(&word)
        || short.is_some_and(|letters| letters.len() <= 4 && letters.ends_with(['c', 'e']))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_that_an_interpreter_runs_are_found() {
        let check = |words: &[&str], expected: &[&str]| {
            let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
            let found: Vec<&str> = code(&words).map(|at| words[at].as_str()).collect();
            assert_eq!(found, expected);
        };
        check(&["sh", "-c", "x", "{reason}"], &["x"]);
        check(&["env", "A=1", "/bin/bash", "-e", "-lc", "x"], &["-lc", "x"]);
        check(&["python3.12", "-Ic", "x"], &["x"]);
        check(&["osascript", "-e", "x"], &["x"]);
        check(&["node", "--eval", "x"], &["x"]);
        check(&["notify-send", "-e", "{reason}"], &[]);
        check(&["./sh.py", "-c", "x"], &[]);
        check(&["sh", "script.sh", "{reason}"], &[]);
        check(&["sh", "-c"], &[]);
        check(&[], &[]);
    }
}
