//! Checks the width of comments and pages.

use std::path::Path;

use crate::source::has_extension;

/// Columns of a comment or of a line in a page.
pub(super) const WIDTH_MAX: usize = 100;

/// Returns the numbers and widths of the lines that are too wide.
///
/// Tables, code blocks and lines that end in a link or a URL may be wider, since they cannot be
/// wrapped.
pub(super) fn too_wide(file: &Path, text: &str) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    let mut is_fenced = false;
    for (number, line) in (1..).zip(text.lines()) {
        let Some(prose) = prose(file, line) else {
            is_fenced = false;
            continue;
        };
        let is_fence = prose.starts_with("```") || prose.starts_with("~~~");
        is_fenced ^= is_fence;
        let width = line.chars().count();
        if width > WIDTH_MAX && !is_fenced && !is_fence && can_be_wrapped(line, prose) {
            found.push((number, width));
        }
    }
    found
}

/// Returns the text of a line that is part of a comment or page, without markers and indentation.
fn prose<'a>(file: &Path, line: &'a str) -> Option<&'a str> {
    let line = line.trim();
    if has_extension(file, "md") {
        return Some(line);
    }
    if has_extension(file, "rs") {
        return line.starts_with("//").then(|| line.trim_start_matches(['/', '!']).trim());
    }
    let has_hash_comments = ["toml", "yml", "yaml", "sh"].iter().any(|it| has_extension(file, it));
    let text = line.strip_prefix('#').filter(|_| has_hash_comments || file.starts_with(".ci"));
    text.map(str::trim)
}

fn can_be_wrapped(line: &str, prose: &str) -> bool {
    let is_table = prose.starts_with('|');
    let is_link_definition = prose.starts_with('[') && prose.contains("]: ");
    let is_one_word = !prose.trim_start_matches(['-', '*', ' ']).contains(' ');
    let limit = line.char_indices().nth(WIDTH_MAX).map_or(line.len(), |(at, _)| at);
    let start = line[..limit].rfind(' ').map_or(0, |at| at + 1);
    let end = line[limit..].find(' ').map_or(line.len(), |at| limit + at);
    let is_link = line[start..end].contains("://") || line[start..end].contains("](");
    !is_table && !is_link_definition && !is_one_word && !is_link
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(file: &str, text: &str, expected: &[usize]) {
        let lines: Vec<_> = too_wide(Path::new(file), text).into_iter().map(|(line, _)| line).collect();
        assert_eq!(lines, expected, "{text}");
    }

    #[test]
    fn comments_and_pages_are_measured() {
        let long = "word ".repeat(21);
        check("a.md", &format!("{}\n{long}\n", "a".repeat(20)), &[2]);
        check("a.rs", &format!("/// {long}\nlet a = \"{long}\";\n    // {long}\n"), &[1, 3]);
        check("a.toml", &format!("# {long}\na = \"{long}\"\n"), &[1]);
        check(".ci/run", &format!("# {long}\n"), &[1]);
        check("a.txt", &format!("# {long}\n"), &[]);
        let exact = format!("/// {}", "ä".repeat(48) + &" b".repeat(24));
        assert_eq!(exact.chars().count(), WIDTH_MAX);
        check("a.rs", &exact, &[]);
        check("a.rs", &format!("{exact} c"), &[1]);
    }

    #[test]
    fn lines_that_cannot_be_wrapped_are_permitted() {
        let long = "word ".repeat(21);
        let url = format!("https://example.org/{}", "a".repeat(100));
        check("a.md", &format!("| {long} |\n```\n{long}\n```\n{long}\n"), &[5]);
        check("a.md", &format!("See {url}\n[a]: {url}\n[text](some/{}/page.md).\n", "b".repeat(100)), &[]);
        check("a.rs", &format!("/// ```\n/// {long}\n/// ```\n// {url}\n"), &[]);
        check("a.rs", &format!("/// ```\nfn f() {{}}\n// {long}\n"), &[3]);
        check("a.rs", &format!("// {long} {url}\n"), &[1]);
    }
}
