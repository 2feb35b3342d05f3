//! Composes the title and the text of a pull request from the messages of its commits.

use greenwave::{BranchReport, Feature, Plan, Report};

use crate::terminal_text::plain;
use crate::text::plural;

/// Maximum length of the text, in bytes. GitHub accepts 65,536 characters.
const BODY_BYTES_MAX: usize = 60_000;

/// The message of a feature's commit.
struct Commit<'a> {
    title: &'a str,
    message: &'a str,
}

impl<'a> Commit<'a> {
    fn new(message: &'a str) -> Self {
        Self { title: message.lines().next().unwrap_or_default(), message }
    }

    /// Returns the value of a line with evidence. It is in the last paragraph.
    fn value(&self, key: &str) -> Option<&'a str> {
        let (_, last) = self.message.trim_end().rsplit_once("\n\n")?;
        last.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(": "))
    }
}

/// Returns the title: that of the only commit, or the name of the plan.
pub(super) fn title(plan: &Plan, branch: &BranchReport) -> String {
    match &branch.messages[..] {
        [message] => Commit::new(message).title.to_owned(),
        messages => format!("{}: {}", plan.name, plural(messages.len(), "feature")),
    }
}

/// Returns the text, in Markdown.
pub(super) fn body(plan: &Plan, report: &Report, branch: &BranchReport) -> String {
    let commits: Vec<Commit<'_>> = branch.messages.iter().map(|message| Commit::new(message)).collect();
    let mut lines = vec![
        "Written by coding agents under `greenwave run`. The tests of each feature failed before its code \
         existed and pass with it, and so do the tests of all other features and the guards of the plan."
            .to_owned(),
        String::new(),
        "| feature | red before | attempts | cost |".to_owned(),
        "| --- | --- | --- | --- |".to_owned(),
    ];
    lines.extend(commits.iter().map(row));
    let open = report.features.iter().filter(|feature| feature.phase != "green");
    let open: Vec<String> = open
        .map(|feature| {
            let reason = feature.reason.as_ref().map(|reason| format!(": {}", code(reason)));
            format!("- `{}`, {}{}", feature.feature, feature.phase, reason.unwrap_or_default())
        })
        .collect();
    if !open.is_empty() {
        lines.extend([String::new(), "Not part of this branch:".to_owned(), String::new()]);
        lines.extend(open);
    }
    lines.extend([String::new(), "## How to repeat".to_owned(), String::new(), "```sh".to_owned()]);
    lines.push(format!("git switch {}", branch.name));
    for commit in &commits {
        let feature =
            plan.features.iter().find(|feature| Some(feature.id.as_str()) == commit.value("Feature"));
        lines.extend(feature.into_iter().flat_map(commands));
    }
    lines.push("```".to_owned());
    let mut body = plain(&format!("{}\n", lines.join("\n")));
    if body.len() > BODY_BYTES_MAX {
        body.truncate(body.floor_char_boundary(BODY_BYTES_MAX));
        body.push_str("\n…\n");
    }
    body
}

fn row(commit: &Commit<'_>) -> String {
    let value = |key| commit.value(key).map_or_else(|| "-".to_owned(), one_line);
    let name = match commit.value("Feature") {
        Some(id) if id != commit.title => format!("`{id}`: {}", one_line(commit.title)),
        _ => one_line(commit.title),
    };
    format!("| {name} | {} | {} | {} |", value("Red"), value("Attempts"), value("Cost"))
}

/// Returns the commands of a feature's tests, for a shell.
fn commands(feature: &Feature) -> Vec<String> {
    let line = |test: &greenwave::Test| {
        let command: Vec<String> = test.command.iter().map(|word| quoted(word)).collect();
        let command = command.join(" ");
        let directory = test.directory.to_string_lossy();
        if directory.is_empty() { command } else { format!("(cd {} && {command})", quoted(&directory)) }
    };
    feature.tests.iter().map(line).collect()
}

/// Quotes a word for a shell, if it needs that.
fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:@%+,".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

/// Returns a text that may hold words of an agent as code, where GitHub looks for no links, no
/// mentions and no words that close issues.
fn code(text: &str) -> String {
    format!("`{}`", one_line(text).replace('`', "'"))
}

/// Makes a text fit into a cell of a table.
fn one_line(text: &str) -> String {
    text.replace('\n', " ").replace('|', "\\|")
}

#[cfg(test)]
mod tests {
    use greenwave::{FeatureReport, Test, Totals};

    use super::*;

    fn plan() -> Plan {
        let test = Test { directory: "sub".into(), ..Test::new("one", ["sh", "-c", "it's | fine"]) };
        let feature = Feature { id: "one".to_owned(), tests: vec![test], ..Feature::default() };
        Plan { name: "plan".to_owned(), features: vec![feature], ..Plan::default() }
    }

    #[test]
    fn the_text_has_the_evidence_of_each_commit() {
        let messages = [
            "First\n\nFeature: one\nRed: test `one` failed (1 | 2)\nAttempts: 2\nCost: $0.25",
            "two\n\nFeature: two\nAttempts: 1",
            "By hand",
        ];
        let messages = messages.map(str::to_owned).to_vec();
        let branch = BranchReport { name: "greenwave/plan".to_owned(), messages };
        let failed = FeatureReport {
            feature: "three".to_owned(),
            phase: "failed",
            reason: Some("no\nluck, `closes #1` @all \u{202e}".to_owned()),
            ..FeatureReport::default()
        };
        let features = vec![FeatureReport { phase: "green", ..FeatureReport::default() }, failed];
        let report = Report { plan: "plan".to_owned(), features, totals: Totals::default(), branch: None };
        let body = body(&plan(), &report, &branch);
        let (_, table) = body.split_once("| --- |\n").unwrap();
        assert_eq!(
            table,
            "| `one`: First | test `one` failed (1 \\| 2) | 2 | $0.25 |\n\
             | two | - | 1 | - |\n\
             | By hand | - | - | - |\n\
             \n\
             Not part of this branch:\n\
             \n\
             - `three`, failed: `no luck, 'closes #1' @all \\u{202e}`\n\
             \n\
             ## How to repeat\n\
             \n\
             ```sh\n\
             git switch greenwave/plan\n\
             (cd sub && sh -c 'it'\\''s | fine')\n\
             ```\n"
        );
        assert_eq!(title(&plan(), &branch), "plan: 3 features");
        let one = BranchReport { messages: vec!["By hand".to_owned()], ..branch };
        assert_eq!(title(&plan(), &one), "By hand");
    }
}
