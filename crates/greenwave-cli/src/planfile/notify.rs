//! Reads the command of `notify`, whose placeholders have words of agents in their place.

use std::path::Path;

use crate::diagnostic::{Diagnostic, Document};
use crate::reader::{Located, Table};

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

/// Reads the command.
///
/// # Errors
/// A [`Diagnostic`] if a placeholder is in a text that an interpreter runs: an agent could have it
/// run a command outside of the confinement.
pub(super) fn read(document: &Document, root: &mut Table<'_>) -> Result<Vec<String>, Diagnostic> {
    let words = root.texts("notify")?.map(|list| list.value).unwrap_or_default();
    if let Some(code) = code(&words).find(|word| PLACEHOLDERS.iter().any(|it| word.value.contains(it))) {
        let expected = "a variable such as `$GREENWAVE_REASON` in the text of a shell, which would run \
            the words of an agent in the place of a placeholder";
        let message = format!("invalid value `{:?}` for `notify`: expected {expected}", code.value);
        return Err(document.error(code.at.clone(), message));
    }
    Ok(words.into_iter().map(|word| word.value).collect())
}

/// Returns the words of a command that an interpreter runs.
fn code(words: &[Located<String>]) -> impl Iterator<Item = &Located<String>> {
    let first = words.iter().position(|word| is_interpreter(&word.value)).unwrap_or(words.len());
    let pairs = words[first..].windows(2).filter(|pair| takes_code(&pair[0].value));
    pairs.map(|pair| &pair[1])
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
            let words = words.iter().map(|word| Located { value: (*word).to_owned(), at: 0..0 });
            let words: Vec<_> = words.collect();
            let found: Vec<&str> = code(&words).map(|word| word.value.as_str()).collect();
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
