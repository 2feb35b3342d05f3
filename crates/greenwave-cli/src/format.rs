//! The formats and amounts of output that commands let the user choose.

use clap::ValueEnum;

/// Format of a command's output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Text: colors and a progress line on a terminal, plain lines in a pipe.
    Human,
    /// One JSON object per line.
    Json,
}

/// Output that a test run prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Show {
    /// Output of failed tests.
    Failed,
    /// Output of all tests, including those with a cached result.
    All,
    /// No output of tests.
    None,
    /// Output of tests while they run, each line with the name of its test.
    Live,
    /// Failed tests with the lines that matter, then one line, without colors: for coding agents.
    Agent,
}

/// Variables that coding agents set for the commands that they run: a name, or a prefix that ends
/// with `_`.
const AGENT_VARIABLES: &[&str] = &[
    "AI_AGENT",
    "AUGMENT_AGENT",
    "CLAUDECODE",
    "CLAUDE_CODE",
    "CODEX_",
    "CURSOR_",
    "GEMINI_CLI",
    "GREENWAVE_FEATURE",
    "OPENCODE",
    "OPENCODE_CLIENT",
];
/// Variables that people set, too: the directory of Codex's settings, and the terminal in Cursor.
const VARIABLES_OF_PEOPLE: &[&str] = &["CODEX_HOME", "CURSOR_TRACE_ID"];

impl Show {
    /// Returns the output for a call without `--output`: [`Agent`](Self::Agent) if one of the
    /// variables says that a coding agent runs the command.
    pub(crate) fn default_for(variables: impl IntoIterator<Item = (String, String)>) -> Self {
        let is_agent = |(name, value): (String, String)| {
            let is_listed = AGENT_VARIABLES
                .iter()
                .any(|listed| if listed.ends_with('_') { name.starts_with(listed) } else { name == *listed });
            is_listed && !value.is_empty() && !VARIABLES_OF_PEOPLE.contains(&name.as_str())
        };
        if variables.into_iter().any(is_agent) { Show::Agent } else { Show::Failed }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn default_for(variables: &[(&str, &str)]) -> Show {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        Show::default_for(variables.iter().map(owned))
    }

    #[test]
    fn variables_of_agents_choose_their_output() {
        for name in ["AI_AGENT", "CLAUDECODE", "CODEX_SANDBOX", "GEMINI_CLI", "CURSOR_AGENT"] {
            assert_eq!(default_for(&[("HOME", "/root"), (name, "1")]), Show::Agent, "{name}");
        }
    }

    #[test]
    fn variables_of_people_and_empty_ones_do_not() {
        let variables = [("CODEX_HOME", "/x"), ("CURSOR_TRACE_ID", "1"), ("CLAUDECODE", ""), ("CODEX", "1")];
        assert_eq!(default_for(&variables), Show::Failed);
    }
}
