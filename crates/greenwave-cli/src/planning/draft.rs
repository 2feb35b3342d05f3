//! The features of a plan that is written: from issues, and from the answer of an agent.

use std::fmt::Write as _;

use greenwave::is_test_file;
use toml::{Table, Value};

use super::Issue;
use super::toml_text;
use crate::diagnostic::Document;
use crate::text::list;

/// File in which an agent writes the features, relative to the project in its working copy.
pub(crate) const PLANNED_FILE: &str = "greenwave-plan.toml";
/// Placeholder in a prompt for the text of the feature's issue.
pub(super) const ISSUE: &str = "{issue}";

/// Keys that an agent may write.
const KEYS: [&str; 2] = ["features", "resources"];
/// Order of the keys of a feature.
const FEATURE: [&str; 6] = ["id", "title", "depends_on", "agent", "attempts", "prompt"];
/// Order of the keys of a test.
const TEST: [&str; 2] = ["name", "command"];

/// Returns whether a file that an agent creates beside the features is used: a test.
pub(crate) fn is_planned_test(path: &str) -> bool {
    is_test_file(path) && !path.split('/').any(|name| name.starts_with('.'))
}

/// The sources of a plan's features.
#[derive(Debug, Clone)]
pub(crate) struct Draft {
    /// The agent of features that name none.
    pub(crate) agent: String,
    pub(crate) issues: Vec<Issue>,
}

impl Draft {
    /// Returns the features of the issues, without tests.
    pub(crate) fn features_of_issues(&self) -> String {
        let feature = |issue: &Issue| {
            let after = issue.depends_on.iter().cloned().map(Value::String).collect();
            let mut feature = Table::new();
            feature.insert("id".to_owned(), issue.id.clone().into());
            feature.insert("title".to_owned(), issue.title.clone().into());
            feature.insert("agent".to_owned(), self.agent.clone().into());
            feature.insert("prompt".to_owned(), issue.prompt().into());
            if !issue.depends_on.is_empty() {
                feature.insert("depends_on".to_owned(), Value::Array(after));
            }
            write_feature(feature)
        };
        self.issues.iter().map(feature).collect()
    }

    /// Returns the features that an agent has written, completed and in a uniform layout.
    ///
    /// # Errors
    /// Returns the problem, as feedback for the agent.
    pub(crate) fn features_of_agent(&self, document: &Document) -> Result<String, String> {
        let mut table: Table = toml::from_str(&document.text).map_err(|error| {
            let message = format!("invalid TOML: {}", error.message().replace('\n', ", "));
            document.error(error.span().unwrap_or(0..0), message).to_string()
        })?;
        if let Some(key) = table.keys().find(|key| !KEYS.contains(&key.as_str())) {
            return Err(format!("unexpected key `{key}`: expected only `[[features]]` and `[resources]`"));
        }
        let mut text = String::new();
        if let Some(Value::Table(resources)) = table.remove("resources") {
            let _ = write!(text, "\n[resources]\n{}", toml_text::entries(&resources, &[]));
        }
        let Some(Value::Array(features)) = table.remove("features") else {
            return Err("missing `[[features]]`".to_owned());
        };
        let mut missing: Vec<&str> = self.issues.iter().map(|issue| issue.id.as_str()).collect();
        for feature in features {
            let Value::Table(mut feature) = feature else {
                return Err("invalid value for `features`: expected tables, `[[features]]`".to_owned());
            };
            let id = feature.get("id").and_then(Value::as_str).unwrap_or_default().to_owned();
            missing.retain(|missing| *missing != id);
            feature.entry("agent").or_insert_with(|| self.agent.clone().into());
            if let Some(issue) = self.issues.iter().find(|issue| issue.id == id) {
                complete(&mut feature, issue)?;
            }
            text.push_str(&write_feature(feature));
        }
        if missing.is_empty() {
            return Ok(text);
        }
        Err(format!("missing features: each issue needs one with its id: {}", list(missing)))
    }
}

/// Adds the title and the text of an issue to its feature.
fn complete(feature: &mut Table, issue: &Issue) -> Result<(), String> {
    feature.entry("title").or_insert_with(|| issue.title.clone().into());
    let prompt = feature.entry("prompt").or_insert_with(|| ISSUE.into());
    let text = prompt.as_str().unwrap_or_default();
    if !text.contains(ISSUE) {
        return Err(format!(
            "invalid `prompt` of feature `{}`: expected one that contains {ISSUE:?}, which stands for the text \
             of the issue",
            issue.id
        ));
    }
    *prompt = text.replacen(ISSUE, &issue.prompt(), 1).into();
    Ok(())
}

/// Writes a feature, with its tests below.
fn write_feature(mut feature: Table) -> String {
    let tests = feature.remove("tests");
    let mut text = format!("\n[[features]]\n{}", toml_text::entries(&feature, &FEATURE));
    match tests {
        Some(Value::Array(tests)) if tests.iter().all(Value::is_table) && !tests.is_empty() => {
            for test in tests.iter().filter_map(Value::as_table) {
                let _ = write!(text, "\n[[features.tests]]\n{}", toml_text::entries(test, &TEST));
            }
        }
        Some(other) => {
            let _ = writeln!(text, "tests = {}", toml_text::value(&other));
        }
        None => {
            text.push_str(
                "# Tests that fail now and must pass:\n# [[features.tests]]\n# command = [\"cargo\", \"test\", \
                 \"--test\", \"NAME\"]\n",
            );
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn issue(id: &str, after: &[&str]) -> Issue {
        let depends_on = after.iter().map(|&id| id.to_owned()).collect();
        Issue { id: id.to_owned(), title: format!("Title {id}"), body: "Body.".to_owned(), depends_on }
    }

    fn of_agent(issues: Vec<Issue>, text: &str) -> Result<String, String> {
        let document = Document { path: PLANNED_FILE.into(), text: text.to_owned() };
        Draft { agent: "coder".to_owned(), issues }.features_of_agent(&document)
    }

    #[test]
    fn issues_become_features_without_tests() {
        let issues = vec![issue("issue-1", &[]), issue("issue-2", &["issue-1"])];
        let draft = Draft { agent: "coder".to_owned(), issues };
        let table: Table = toml::from_str(&draft.features_of_issues()).unwrap();
        let expected = "[[features]]\nid = \"issue-1\"\ntitle = \"Title issue-1\"\nagent = \"coder\"\n\
                        prompt = \"Title issue-1\\n\\nBody.\"\n[[features]]\nid = \"issue-2\"\n\
                        title = \"Title issue-2\"\nagent = \"coder\"\ndepends_on = [\"issue-1\"]\n\
                        prompt = \"Title issue-2\\n\\nBody.\"\n";
        assert_eq!(table, toml::from_str::<Table>(expected).unwrap());
    }

    #[test]
    fn features_of_an_agent_are_completed() {
        let text = "[[features]]\nid = \"issue-1\"\nprompt = \"{issue}\\nUse b.\"\n\
                    tests = [{ command = [\"true\"] }]\n[resources]\nx = 1\n";
        let written = of_agent(vec![issue("issue-1", &[])], text).unwrap();
        let expected = "[resources]\nx = 1\n[[features]]\nid = \"issue-1\"\ntitle = \"Title issue-1\"\n\
                        agent = \"coder\"\nprompt = \"Title issue-1\\n\\nBody.\\nUse b.\"\n\
                        [[features.tests]]\ncommand = [\"true\"]\n";
        assert_eq!(toml::from_str::<Table>(&written).unwrap(), toml::from_str::<Table>(expected).unwrap());
    }

    #[test]
    fn only_features_may_be_written() {
        for (text, expected) in [
            ("confine = \"off\"", "unexpected key `confine`: expected only `[[features]]` and `[resources]`"),
            ("[agents.x]\nkind = \"claude\"", "unexpected key `agents`: expected only"),
            ("features = 1", "missing `[[features]]`"),
            ("features = [1]", "invalid value for `features`"),
            ("[[features]]\nid = \"a\"", "missing features: each issue needs one with its id: `i`"),
            (
                "[[features]]\nid = \"i\"\nprompt = \"x\"",
                "invalid `prompt` of feature `i`: expected one that",
            ),
            ("[[features]", "greenwave-plan.toml:1:12: invalid TOML: "),
        ] {
            let found = of_agent(vec![issue("i", &[])], text).unwrap_err();
            assert!(found.starts_with(expected), "{found}");
        }
    }

    #[test]
    fn only_tests_are_used_beside_the_features() {
        for (path, expected) in [
            ("tests/a.rs", true),
            ("src/test_a.py", true),
            ("src/a.rs", false),
            (".github/tests/x.yml", false),
            ("tests/.envrc", false),
        ] {
            assert_eq!(is_planned_test(path), expected, "{path}");
        }
    }
}
