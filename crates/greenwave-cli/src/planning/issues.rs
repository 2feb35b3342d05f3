//! Reads lists of issues: the JSON of `gh issue list`, or lists in Markdown.

use std::collections::BTreeSet;
use std::io::{self, Read};
use std::path::Path;

use greenwave_dir::read_regular_text;
use serde_json::Value;

use crate::diagnostic::FILE_BYTES_MAX;
use crate::error::CliError;

/// Maximum number of issues of a list.
const ISSUES_MAX: usize = 10_000;
/// Maximum length of an id that is made of a title, in characters.
const ID_CHARS_MAX: usize = 40;
/// Words before the number of an issue that must be done first.
const DEPENDS_ON: [&str; 3] = ["depends on #", "blocked by #", "after #"];

/// An issue that becomes a feature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Issue {
    /// Id of the feature.
    pub(crate) id: String,
    pub(crate) title: String,
    pub(crate) body: String,
    /// Ids of the issues of the list that it depends on.
    pub(crate) depends_on: Vec<String>,
}

impl Issue {
    /// Reads the issues in a file; `-` is standard input. Text that begins with `[` is JSON, and
    /// other text is Markdown.
    ///
    /// # Errors
    /// [`CliError::Io`], or [`CliError::Issues`] for a file that is no such list.
    pub(crate) fn read_all(path: &Path) -> Result<Vec<Self>, CliError> {
        let failed = |source| CliError::Io { operation: "read", path: path.to_owned(), source };
        let text = if path == Path::new("-") { stdin() } else { read_regular_text(path, FILE_BYTES_MAX) };
        let issues = Self::parse(&text.map_err(failed)?);
        issues.map_err(|problem| CliError::Issues { path: path.to_owned(), problem })
    }

    /// Returns the prompt of the issue's feature.
    pub(crate) fn prompt(&self) -> String {
        match self.body.trim() {
            "" => self.title.clone(),
            body => format!("{}\n\n{body}", self.title),
        }
    }

    fn parse(text: &str) -> Result<Vec<Self>, String> {
        let text = text.trim_start_matches('\u{feff}').trim_start();
        let mut issues =
            if text.starts_with('[') && !text.starts_with("[ ]") { json(text)? } else { markdown(text) };
        if issues.is_empty() {
            return Err("it has no issue that is open".to_owned());
        }
        if issues.len() > ISSUES_MAX {
            return Err(format!("it has {} issues: expected at most {ISSUES_MAX}", issues.len()));
        }
        let known: BTreeSet<String> = issues.iter().map(|issue| issue.id.clone()).collect();
        for issue in &mut issues {
            let (id, named) = (issue.id.clone(), dependencies(&issue.body));
            issue.depends_on =
                named.into_iter().filter(|other| known.contains(other) && *other != id).collect();
        }
        Ok(issues)
    }
}

fn stdin() -> io::Result<String> {
    let mut text = String::new();
    io::stdin().take(FILE_BYTES_MAX + 1).read_to_string(&mut text)?;
    if text.len() as u64 > FILE_BYTES_MAX { Err(io::ErrorKind::FileTooLarge.into()) } else { Ok(text) }
}

/// Returns the features of the issues that a text names as done before.
fn dependencies(body: &str) -> Vec<String> {
    let lower = body.to_ascii_lowercase();
    let mut found = Vec::new();
    for words in DEPENDS_ON {
        for (at, _) in lower.match_indices(words) {
            let is_word = !lower[..at].ends_with(|before: char| before.is_alphanumeric());
            let digits: String = lower[at + words.len()..].chars().take_while(char::is_ascii_digit).collect();
            let id = format!("issue-{digits}");
            if is_word && !digits.is_empty() && !found.contains(&id) {
                found.push(id);
            }
        }
    }
    found
}

/// Reads the output of `gh issue list --json number,title,body`.
fn json(text: &str) -> Result<Vec<Issue>, String> {
    let values: Vec<Value> =
        serde_json::from_str(text).map_err(|error| format!("it is no JSON array of issues: {error}"))?;
    let mut numbers = BTreeSet::new();
    let issue = |(at, value): (usize, Value)| {
        let missing = |key: &str| format!("issue {} of the list has no `{key}`", at + 1);
        let number = value["number"].as_u64().ok_or_else(|| missing("number"))?;
        let title = value["title"].as_str().ok_or_else(|| missing("title"))?.trim().to_owned();
        if !numbers.insert(number) {
            return Err(format!("issue #{number} is in the list twice"));
        }
        let body = value["body"].as_str().unwrap_or_default().replace("\r\n", "\n");
        Ok(Issue { id: format!("issue-{number}"), title, body, depends_on: Vec::new() })
    };
    values.into_iter().enumerate().map(issue).collect()
}

/// Reads the items of the lists in a Markdown file. Items that are ticked off are left out. The
/// indented lines below an item are its text.
fn markdown(text: &str) -> Vec<Issue> {
    let mut issues: Vec<Issue> = Vec::new();
    let mut ids = BTreeSet::new();
    // Whether the lines belong to the last issue.
    let mut is_open = false;
    for line in text.lines() {
        if let Some(item) = item(line) {
            is_open = !item.starts_with("[x]") && !item.starts_with("[X]");
            let title = item.strip_prefix("[ ]").unwrap_or(item).trim();
            if is_open && !title.is_empty() {
                let id = unused_id(&slug(title), &mut ids);
                let (title, body) = (title.to_owned(), String::new());
                issues.push(Issue { id, title, body, depends_on: Vec::new() });
            }
        } else if line.starts_with([' ', '\t']) || line.trim().is_empty() {
            if let Some(last) = issues.last_mut().filter(|_| is_open) {
                last.body.push_str(line.strip_prefix("  ").unwrap_or(line).trim_end());
                last.body.push('\n');
            }
        } else {
            is_open = false;
        }
    }
    for issue in &mut issues {
        issue.body = issue.body.trim().to_owned();
    }
    issues
}

/// Returns the text of a line that begins an item of a list.
fn item(line: &str) -> Option<&str> {
    let rest = line.strip_prefix(['-', '*', '+']).or_else(|| {
        let rest = line.trim_start_matches(|character: char| character.is_ascii_digit());
        rest.strip_prefix(['.', ')']).filter(|_| rest.len() < line.len())
    })?;
    rest.strip_prefix(' ').map(str::trim)
}

/// Returns the words of a title as an id.
fn slug(title: &str) -> String {
    let word = |character: char| character.is_ascii_alphanumeric();
    let words = title.split(|character| !word(character)).filter(|word| !word.is_empty());
    let mut slug = String::new();
    for word in words {
        let joined = if slug.is_empty() { word.to_owned() } else { format!("{slug}-{word}") };
        if joined.len() > ID_CHARS_MAX && !slug.is_empty() {
            break;
        }
        slug = joined.chars().take(ID_CHARS_MAX).collect();
    }
    if slug.is_empty() { "feature".to_owned() } else { slug.to_ascii_lowercase() }
}

fn unused_id(id: &str, used: &mut BTreeSet<String>) -> String {
    let numbered = (2..).map(|number| format!("{id}-{number}"));
    let free = std::iter::once(id.to_owned()).chain(numbered).find(|id| !used.contains(id));
    let free = free.unwrap_or_default();
    used.insert(free.clone());
    free
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &[(&str, &str, &str, &[&str])]) {
        let issues = Issue::parse(text).unwrap();
        let found: Vec<_> = issues
            .iter()
            .map(|it| {
                let after = it.depends_on.iter().map(String::as_str).collect::<Vec<_>>();
                (it.id.as_str(), it.title.as_str(), it.body.as_str(), after)
            })
            .collect();
        let expected: Vec<_> =
            expected.iter().map(|(id, title, body, after)| (*id, *title, *body, after.to_vec())).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn issues_of_github_depend_on_those_that_they_name() {
        check(
            r#"[{"number": 7, "title": " A ", "body": "x\r\ny. Depends on #9, after #7 and blocked by #8."},
                {"number": 9, "title": "B", "body": null}]"#,
            &[
                ("issue-7", "A", "x\ny. Depends on #9, after #7 and blocked by #8.", &["issue-9"]),
                ("issue-9", "B", "", &[]),
            ],
        );
    }

    #[test]
    fn items_of_lists_are_issues() {
        check(
            "# To do\n\n- [ ] Parse dates!\n  Also *old* ones.\n\n    - nested\n- [x] Done\n  text\n\
             Some words.\n  not of an item\n1. Parse dates\n* Über\n2) A very long title of an issue that \
             nobody wants to have as an id\n",
            &[
                ("parse-dates", "Parse dates!", "Also *old* ones.\n\n  - nested", &[]),
                ("parse-dates-2", "Parse dates", "", &[]),
                ("ber", "Über", "", &[]),
                (
                    "a-very-long-title-of-an-issue-that",
                    "A very long title of an issue that nobody wants to have as an id",
                    "",
                    &[],
                ),
            ],
        );
    }

    #[test]
    fn other_files_are_no_lists() {
        for (text, expected) in [
            ("", "it has no issue that is open"),
            ("[]", "it has no issue that is open"),
            ("- [x] done", "it has no issue that is open"),
            ("[1", "it is no JSON array of issues: EOF while parsing a list at line 1 column 2"),
            (r#"[{"number": 1}]"#, "issue 1 of the list has no `title`"),
            (r#"[{"title": "x"}]"#, "issue 1 of the list has no `number`"),
            (
                r#"[{"number": 1, "title": "x"}, {"number": 1, "title": "x"}]"#,
                "issue #1 is in the list twice",
            ),
        ] {
            assert_eq!(Issue::parse(text).unwrap_err(), expected);
        }
    }
}
