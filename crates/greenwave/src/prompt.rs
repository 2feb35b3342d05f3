//! Composes the prompt of an attempt.

use greenwave_testing::Test;

use crate::plan::{Edits, Feature};
use crate::tree::Change;

/// Maximum size of the feedback in a prompt, in bytes. Its end is used, where test runners print
/// their summary.
const FEEDBACK_BYTES_MAX: usize = 8 * 1024;

/// Maximum number of tests of a project that a prompt names.
const TESTS_MAX: usize = 10;

/// Composes the prompt for an attempt at the code, of `attempts_max`. `first` is the number of the
/// first attempt.
///
/// `feedback` is the output of the failing tests for the first attempt, and the reason why the last
/// attempt was refused for later ones. `written` are the files of tests that another agent has
/// written.
pub(crate) fn compose(
    feature: &Feature,
    (first, (attempt, attempts_max)): (u32, (u32, u32)),
    feedback: &str,
    edits: Edits,
    written: &[Change],
) -> String {
    let before = if attempt == first {
        "Before anything is written, the tests fail like this:".to_owned()
    } else {
        format!("This is attempt {attempt} of {attempts_max}. The last one was refused:")
    };
    format!(
        "# {title}\n\n{prompt}\n\n{tests}{answer} with whole files, each in a fenced code block whose first line names the \
         file's path in the project, like this:\n\n    ```rust src/lib.rs\n\n{before}\n\n{feedback}\n",
        answer = match edits {
            Edits::Directory => "Edit the files in the current directory, or answer",
            Edits::Answer => "Answer",
        },
        tests = describe_written(written),
        title = feature.title,
        prompt = feature.prompt.trim(),
        feedback = end_of(feedback.trim_end()),
    )
}

/// Composes the prompt for an attempt at the tests of a feature, of `attempts_max`. `found` are the
/// tests of the project.
pub(crate) fn compose_for_tests(
    feature: &Feature,
    (attempt, attempts_max): (u32, u32),
    feedback: &str,
    edits: Edits,
    found: &[Test],
) -> String {
    let before = match feedback.trim_end() {
        "" => String::new(),
        feedback => format!(
            "\nThis is attempt {attempt} of {attempts_max}. The last one was refused:\n\n{}\n",
            end_of(feedback)
        ),
    };
    format!(
        "# Tests of: {title}\n\nWrite the tests of a feature, and nothing else. Another agent writes the code \
         afterwards and cannot change your tests, so they must check everything that the feature has to do. \
         This is the feature `{id}`:\n\n{prompt}\n\n{answer} with whole files, each in a fenced code block whose first \
         line names the file's path in the project, like this:\n\n    ```python tests/test_example.py\n\n\
         - Create new files of tests, in the places and with the names that the project's test runner finds. \
         Change no other file.\n\
         - The tests must run now, and each file must fail because the feature is missing.\n\
         - Name the files after the feature, so that they differ from those of other features.\n\n{found}\n{before}",
        title = feature.title,
        id = feature.id,
        prompt = feature.prompt.trim(),
        answer = match edits {
            Edits::Directory => "Create the files in the current directory, or answer",
            Edits::Answer => "Answer",
        },
        found = describe_found(found),
    )
}

/// Describes the files of tests that an agent has written.
fn describe_written(written: &[Change]) -> String {
    if written.is_empty() {
        return String::new();
    }
    let files: Vec<String> = written.iter().map(|change| format!("`{}`", change.path)).collect();
    format!("The tests of this are in {}. You may not change them.\n\n", files.join(", "))
}

/// Describes the tests of a project.
fn describe_found(found: &[Test]) -> String {
    if found.is_empty() {
        return "No test was found in the project so far. The tests of cargo, pytest, go and the `test` scripts of \
                npm are found."
            .to_owned();
    }
    let lines = found.iter().take(TESTS_MAX).map(|test| format!("- `{}`\n", test.command.join(" ")));
    let more = match found.len().saturating_sub(TESTS_MAX) {
        0 => String::new(),
        more => format!("- {more} more\n"),
    };
    format!("These tests exist so far:\n\n{}{more}", lines.collect::<String>())
}

fn end_of(text: &str) -> &str {
    let from = text.len().saturating_sub(FEEDBACK_BYTES_MAX);
    let from = (from..text.len()).find(|&at| text.is_char_boundary(at)).unwrap_or(text.len());
    // Starts at a whole line, if there is one.
    let line = text[from..].find('\n').filter(|_| from > 0).map_or(0, |at| at + 1);
    &text[from + line..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_feedback_is_cut_to_whole_lines_at_its_end() {
        let text = "ä".repeat(FEEDBACK_BYTES_MAX) + "\nlast line";
        assert_eq!(end_of(&text), "last line");
        assert_eq!(end_of("short"), "short");
        assert_eq!(end_of(""), "");
    }
}
