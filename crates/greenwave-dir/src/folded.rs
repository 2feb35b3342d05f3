//! Folds names that some file systems take for one and the same.

/// Characters that file systems ignore in names when they ignore case (ext4 with `casefold`, HFS+):
/// those with the property `Default_Ignorable_Code_Point` of Unicode.
const IGNORED: [(char, char); 17] = [
    ('\u{ad}', '\u{ad}'),
    ('\u{34f}', '\u{34f}'),
    ('\u{61c}', '\u{61c}'),
    ('\u{115f}', '\u{1160}'),
    ('\u{17b4}', '\u{17b5}'),
    ('\u{180b}', '\u{180f}'),
    ('\u{200b}', '\u{200f}'),
    ('\u{202a}', '\u{202e}'),
    ('\u{2060}', '\u{206f}'),
    ('\u{3164}', '\u{3164}'),
    ('\u{fe00}', '\u{fe0f}'),
    ('\u{feff}', '\u{feff}'),
    ('\u{ffa0}', '\u{ffa0}'),
    ('\u{fff0}', '\u{fff8}'),
    ('\u{1bca0}', '\u{1bca3}'),
    ('\u{1d173}', '\u{1d17a}'),
    ('\u{e0000}', '\u{e0fff}'),
];

/// Returns the form of a name in which it is compared with the ASCII name of a protected file.
///
/// Two names have the same form if some file system takes them for the same file: one that ignores
/// case and invisible characters, or NTFS, which also ignores dots and spaces at the end, knows
/// streams of a file (`.git::$INDEX_ALLOCATION`), and has `GIT~1` as a second name of `.git`. The
/// form is for comparisons only: different files of other file systems can have the same.
///
/// ```
/// use greenwave_dir::folded_name;
///
/// for name in [".GIT", ".g\u{200d}it", ".git. ", ".git::$INDEX_ALLOCATION", "git~1"] {
///     assert_eq!(folded_name(name), ".git");
/// }
/// assert_eq!(folded_name(".gitignore"), ".gitignore");
/// ```
#[must_use]
pub fn folded_name(name: &str) -> String {
    let is_ignored = |letter: &char| IGNORED.iter().any(|(first, last)| (first..=last).contains(&letter));
    let file = match name.split_once(':') {
        Some((file, _)) if !file.is_empty() => file,
        _ => name,
    };
    // A letter may have no own lower case, and the same upper case as another one: `ſ` and `s`.
    let upper = file.chars().filter(|letter| !is_ignored(letter)).flat_map(char::to_uppercase);
    let folded: String = upper.flat_map(char::to_lowercase).collect();
    let folded = folded.trim_end_matches(['.', ' ']);
    let is_short = |number: &str| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    if folded.strip_prefix("git~").is_some_and(is_short) { ".git".to_owned() } else { folded.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_a_file_system_takes_for_one_have_one_form() {
        for name in [".vſcode", ".VSCODE", "\u{feff}.vscode", ".vs\u{ad}code", ".vscode:stream", ".vscode..."]
        {
            assert_eq!(folded_name(name), ".vscode", "{name:?}");
        }
        assert_eq!(folded_name("GIT~12"), ".git");
        for name in ["git~", "git~a", "git~1a", ".gitkeep", "a.b", ":", ":a", "ß"] {
            assert_ne!(folded_name(name), ".git", "{name:?}");
        }
        // A name of nothing but such characters has an empty form, which is no name.
        assert_eq!(folded_name("..\u{200b}"), "");
    }
}
