//! What an agent is told. Knows nothing of agents, and adds only what an answer must look like.

use crate::plan::Feature;

/// Most bytes of a failure's text that are handed on: its end, where runners say what matters.
const FEEDBACK_BYTES_MAX: usize = 8 * 1024;

/// The prompt for an attempt at a feature, given what went wrong before: for the first attempt how the
/// tests fail without any code, for later ones why the last was refused.
pub(crate) fn compose(feature: &Feature, attempt: u32, feedback: &str) -> String {
    let before = if attempt == 1 {
        "Before anything is written, the tests fail like this:".to_owned()
    } else {
        format!("This is attempt {attempt} of {}. The last one was refused:", feature.attempts_max)
    };
    format!(
        "# {title}\n\n{prompt}\n\nAnswer with whole files, each in a fenced code block whose first line names the \
         file's path in the project, like this:\n\n    ```rust src/lib.rs\n\n{before}\n\n{feedback}\n",
        title = feature.title,
        prompt = feature.prompt.trim(),
        feedback = end_of(feedback.trim_end()),
    )
}

fn end_of(text: &str) -> &str {
    let from = text.len().saturating_sub(FEEDBACK_BYTES_MAX);
    let from = (from..text.len()).find(|&at| text.is_char_boundary(at)).unwrap_or(text.len());
    // From the start of a line, if there is one.
    let line = text[from..].find('\n').filter(|_| from > 0).map_or(0, |at| at + 1);
    &text[from + line..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_keep_their_end_in_whole_lines() {
        let text = "ä".repeat(FEEDBACK_BYTES_MAX) + "\nlast line";
        assert_eq!(end_of(&text), "last line");
        assert_eq!(end_of("short"), "short");
        assert_eq!(end_of(""), "");
    }
}
