//! Composes the prompt of an attempt.

use crate::plan::{Edits, Feature};

/// Maximum size of the feedback in a prompt, in bytes. Its end is used, where test runners print
/// their summary.
const FEEDBACK_BYTES_MAX: usize = 8 * 1024;

/// Composes the prompt for an attempt, from 1, of `attempts_max`.
///
/// `feedback` is the output of the failing tests for the first attempt, and the reason why the last
/// attempt was refused for later ones.
pub(crate) fn compose(
    feature: &Feature,
    attempt: u32,
    attempts_max: u32,
    feedback: &str,
    edits: Edits,
) -> String {
    let before = if attempt == 1 {
        "Before anything is written, the tests fail like this:".to_owned()
    } else {
        format!("This is attempt {attempt} of {attempts_max}. The last one was refused:")
    };
    format!(
        "# {title}\n\n{prompt}\n\n{answer} with whole files, each in a fenced code block whose first line names the \
         file's path in the project, like this:\n\n    ```rust src/lib.rs\n\n{before}\n\n{feedback}\n",
        answer = match edits {
            Edits::Directory => "Edit the files in the current directory, or answer",
            Edits::Answer => "Answer",
        },
        title = feature.title,
        prompt = feature.prompt.trim(),
        feedback = end_of(feedback.trim_end()),
    )
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
