//! Finds placeholders in the command of `notify` that have words of agents run by a shell.

use std::path::Path;

/// Placeholders in the arguments of the command.
const PLACEHOLDERS: [&str; 5] = ["{plan}", "{feature}", "{kind}", "{reason}", "{action}"];
/// Programs that run the text of an option, by the start of their names.
const INTERPRETERS: [&str; 23] = [
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
    "powershell",
    "php",
    "lua",
    "Rscript",
    "deno",
    "bun",
    "nu",
    "elvish",
    "xonsh",
];
/// Programs that have a shell run their arguments, or evaluate commands in them: `tmux` those of
/// `#(…)` in a message.
const EVALUATORS: [&str; 22] = [
    "tmux",
    "screen",
    "ssh",
    "mosh",
    "su",
    "awk",
    "gawk",
    "mawk",
    "nawk",
    "xargs",
    "parallel",
    "watch",
    "script",
    "flock",
    "make",
    "expect",
    "tclsh",
    "emacs",
    "emacsclient",
    "vim",
    "nvim",
    "cmd",
];
/// Programs that start the program which follows them.
const WRAPPERS: [&str; 8] = ["env", "sudo", "doas", "nice", "nohup", "setsid", "timeout", "command"];

/// Returns the position of a word that contains a placeholder and that an interpreter runs. An
/// agent could have such a word run a command outside of the confinement.
pub(crate) fn runs_placeholder(words: &[String]) -> Option<usize> {
    code(words).find(|at| PLACEHOLDERS.iter().any(|placeholder| words[*at].contains(placeholder)))
}

/// Returns the positions of words that an interpreter runs.
fn code(words: &[String]) -> impl Iterator<Item = usize> {
    let first = words.iter().position(|word| names(word, &INTERPRETERS)).unwrap_or(words.len());
    let evaluator = evaluator(words).unwrap_or(words.len());
    (1..words.len()).filter(move |at| *at > evaluator || (*at > first && takes_code(&words[at - 1])))
}

/// Returns the position of the program that is started if it is one of the [`EVALUATORS`].
fn evaluator(words: &[String]) -> Option<usize> {
    let is_program = |word: &&String| {
        let is_number = word.starts_with(|first: char| first.is_ascii_digit());
        !is_number && !word.starts_with('-') && !word.contains('=') && !names(word, &WRAPPERS)
    };
    let at = words.iter().position(|word| is_program(&word))?;
    names(&words[at], &EVALUATORS).then_some(at)
}

/// Returns whether a word names one of these programs.
fn names(word: &str, programs: &[&str]) -> bool {
    let name = Path::new(word).file_name().unwrap_or_default().to_string_lossy();
    // Versions follow, as in `python3.12`.
    programs.contains(&name.trim_end_matches(|it: char| it.is_ascii_digit() || it == '.'))
}

/// Returns whether a word is an option whose value is code: `-c`, `-lc`, `-e`, `-r`, `--eval`.
fn takes_code(word: &str) -> bool {
    let short = word.strip_prefix('-').filter(|rest| !rest.starts_with('-'));
    ["--eval", "--print", "--command", "-Command", "eval"].contains(&word)
        || short.is_some_and(|letters| letters.len() <= 4 && letters.ends_with(['c', 'e', 'E', 'r', 'p']))
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
        check(&["php", "-r", "x"], &["x"]);
        check(&["perl", "-E", "x"], &["x"]);
        check(&["tmux", "display-message", "x"], &["display-message", "x"]);
        check(&["env", "A=1", "timeout", "5", "/usr/bin/ssh", "host", "x"], &["host", "x"]);
        check(&["notify-send", "tmux", "x"], &[]);
        check(&["notify-send", "-e", "{reason}"], &[]);
        check(&["./sh.py", "-c", "x"], &[]);
        check(&["sh", "script.sh", "{reason}"], &[]);
        check(&["sh", "-c"], &[]);
        check(&[], &[]);
    }
}
