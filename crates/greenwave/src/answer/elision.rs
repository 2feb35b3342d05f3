//! Recognises whole-file answers that leave most of the file out, and excerpts of files.

use std::collections::HashMap;

/// Words of comments that replace omitted lines, in lower case.
const PHRASES: [&str; 24] = [
    "existing",
    "unchanged",
    "not changed",
    "no changes",
    "unmodified",
    "remains the same",
    "remain the same",
    "stays the same",
    "stay the same",
    "same as before",
    "same as above",
    "as before",
    "rest of",
    "the rest",
    "remaining",
    "remainder",
    "other code",
    "other functions",
    "other methods",
    "previous code",
    "omitted",
    "truncated",
    "keep",
    "snip",
];

/// Starts of comments in languages that agents write.
const COMMENTS: [&str; 14] =
    ["//", "#", "/*", "*", "<!--", "--", "{/*", ";", "%", "(*", "\"\"\"", "'''", "...", "…"];

/// Share of the lines whose loss counts as the loss of most of a file.
const LOST_MIN: f64 = 0.5;

/// Share of the lines that may be lost when the comment also has an ellipsis, which replaces
/// lines that were left out beyond doubt.
const LOST_WITH_ELLIPSIS_MIN: f64 = 0.25;

/// Minimum number of lines of a file that can count as lost.
const LOST_LINES_MIN: usize = 3;

/// Returns the comment that replaces the rest of a file, and the number of lines that the answer
/// loses, if it loses most of the file. Returns `None` for a file that merely has such words.
pub(crate) fn lost_lines(before: &str, after: &str) -> Option<(String, usize)> {
    let (lost, total) = count_lost(before, after);
    if lost == 0 || lost < LOST_LINES_MIN.min(total) {
        return None;
    }
    let share = lost as f64 / total as f64;
    // A comment that the file had before replaces nothing.
    let is_new = |line: &&str| !before.lines().any(|other| other.trim() == *line);
    let stands_for_rest = |line: &&str| {
        is_elision(line)
            .is_some_and(|has_ellipsis| share >= if has_ellipsis { LOST_WITH_ELLIPSIS_MIN } else { LOST_MIN })
    };
    let comment = after.lines().map(str::trim).filter(stands_for_rest).find(is_new)?;
    Some((comment.chars().take(120).collect(), lost))
}

/// Returns whether a text has a comment that replaces omitted lines.
pub(crate) fn has_elision(text: &str) -> bool {
    text.lines().any(|line| is_elision(line).is_some())
}

/// Returns whether most lines of a file are not in a text that would replace it.
pub(crate) fn loses_most(before: &str, after: &str) -> bool {
    let (lost, total) = count_lost(before, after);
    lost >= LOST_LINES_MIN && lost as f64 > LOST_MIN * total as f64
}

/// Returns the number of lines of a file that are not in a text, and the number of its lines.
/// Indentation and blank lines do not count.
fn count_lost(before: &str, after: &str) -> (usize, usize) {
    let mut present: HashMap<&str, usize> = HashMap::new();
    for line in after.lines().map(str::trim) {
        *present.entry(line).or_default() += 1;
    }
    let (mut lost, mut total) = (0, 0);
    for line in before.lines().map(str::trim).filter(|line| !line.is_empty()) {
        total += 1;
        match present.get_mut(line) {
            Some(count @ 1..) => *count -= 1,
            _ => lost += 1,
        }
    }
    (lost, total)
}

/// Returns whether a line is a comment that replaces omitted lines, and then whether
/// it has an ellipsis.
fn is_elision(line: &str) -> Option<bool> {
    let line = line.trim();
    if !COMMENTS.iter().any(|mark| line.starts_with(mark)) {
        return None;
    }
    let lower = line.to_lowercase();
    let has_ellipsis = lower.contains("...") || lower.contains('…');
    let is_bare = has_ellipsis && !lower.chars().any(char::is_alphanumeric);
    (is_bare || PHRASES.iter().any(|phrase| lower.contains(phrase))).then_some(has_ellipsis)
}

/// Returns whether a text is a run of lines of a file, without being the whole file. Indentation
/// and blank lines do not count.
pub(crate) fn is_excerpt(file: &str, text: &str) -> bool {
    let lines = |text: &str| -> Vec<String> {
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        lines.map(str::to_owned).collect()
    };
    let (file, text) = (lines(file), lines(text));
    text.len() < file.len() && (text.is_empty() || file.windows(text.len()).any(|run| run == text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(lines: std::ops::Range<usize>) -> String {
        lines.map(|line| format!("def f{line}(): return {line}\n")).collect()
    }

    #[test]
    fn answers_that_stand_for_the_rest_are_recognised_in_all_languages() {
        for comment in [
            "# ... existing code unchanged ...",
            "// rest of the file",
            "# ... (rest remains the same)",
            "/* remaining methods unchanged */",
            "<!-- the other sections stay the same -->",
            "-- rest of the query as before",
            "// … keep existing handlers …",
            "{/* ... other code ... */}",
            "    # (unchanged)",
            "; remainder omitted",
            "...",
            "# ...",
            "\"\"\"Rest of the module unchanged.\"\"\"",
        ] {
            let answer = format!("{comment}\ndef add(a, b): return a + b\n");
            let lost = lost_lines(&file(0..200), &answer);
            assert_eq!(lost, Some((comment.trim().to_owned(), 200)), "{comment}");
        }
    }

    #[test]
    fn files_that_merely_have_such_words_are_whole() {
        let words = "# ... existing code unchanged ...\n# keep the rest\n";
        let whole = [
            // The answer loses no line.
            (file(0..50), file(0..50) + words),
            (String::new(), words.to_owned()),
            // The words were there before.
            (file(0..50) + words, format!("{words}def new(): pass\n")),
            // A rewrite without such words.
            (file(0..50), file(60..70)),
            // A few lines are replaced.
            (file(0..50), file(5..50) + words),
            // The words are code.
            (file(0..50), "existing = keep(rest)\n".to_owned()),
        ];
        for (before, after) in whole {
            assert_eq!(lost_lines(&before, &after), None, "{after}");
        }
        // With an ellipsis, the loss of a third is enough.
        let third = file(0..60) + "# ... rest unchanged ...\n";
        assert!(lost_lines(&file(0..100), &third).is_some());
        assert!(lost_lines(&file(0..100), &third.replace(" ...", "")).is_none());
    }

    #[test]
    fn excerpts_are_runs_of_lines() {
        let whole = file(0..10);
        assert!(is_excerpt(&whole, &file(3..5)));
        assert!(is_excerpt(&whole, "    def f3(): return 3\n\n    def f4(): return 4\n"));
        assert!(!is_excerpt(&whole, &whole));
        assert!(!is_excerpt(&whole, "def f3(): return 4\n"));
        assert!(!is_excerpt("", "new\n"));
    }
}
