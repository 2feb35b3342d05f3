//! The prompt for the agent that writes a plan.

use std::fmt::Write as _;

use super::draft::{ISSUE, PLANNED_FILE};
use super::{Draft, Issue};
use crate::text::list;

/// Returns the prompt for a goal, a list of issues or both. `agents` are the names that features
/// may use.
pub(crate) fn prompt(goal: Option<&str>, draft: &Draft, agents: &[&str]) -> String {
    let mut text = format!(
        "Plan work on the project in the current directory. Do not do the work. Write the plan to the file \
         {PLANNED_FILE}.\n"
    );
    if let Some(goal) = goal {
        let _ = write!(text, "\nThe goal:\n\n{}\n", goal.trim());
    }
    if !draft.issues.is_empty() {
        let _ = write!(
            text,
            "\nThe issues below are the work. Each needs a feature with its id. Write {ISSUE:?} in its prompt, \
             which stands for the title and the text of the issue, and add only what the issue leaves open.\n"
        );
        draft.issues.iter().for_each(|issue| add_issue(&mut text, issue));
    }
    let _ = write!(
        text,
        "
{PLANNED_FILE} has only this, in TOML:

    [[features]]
    id = \"date-parser\"                # letters, digits, - and _
    title = \"Parse dates\"
    depends_on = [\"other-id\"]         # features that must be done before, if any
    agent = \"{agent}\"                 # one of: {agents}
    prompt = \"\"\"
    What to do, for an agent that sees the project and nothing else.\"\"\"

    [[features.tests]]
    command = [\"cargo\", \"test\", \"--test\", \"dates\"]

Rules:

- A feature is one change that a person could review at once. Features without a dependency between them
  are worked on at the same time, each in its own copy, so they must not need each other's files.
- Each feature has at least one test: a command that fails now because the feature is missing, and that
  passes once it is there. A command that only builds, or that passes already, proves nothing.
- Where no such test exists, write one in a new file, where this project has its tests. Create no
  other files and change none: everything else is discarded.
- The agents of the features may not change tests, so the prompt has every name and format that the tests use.
",
        agent = draft.agent,
        agents = list(agents.iter().copied()),
    );
    text
}

fn add_issue(text: &mut String, issue: &Issue) {
    let _ = write!(text, "\n## `{}`: {}\n", issue.id, issue.title);
    if !issue.depends_on.is_empty() {
        let _ = write!(text, "\nDepends on {}.\n", list(issue.depends_on.iter().map(String::as_str)));
    }
    if !issue.body.trim().is_empty() {
        let _ = write!(text, "\n{}\n", issue.body.trim());
    }
}
