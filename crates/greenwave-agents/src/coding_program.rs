//! Describes well-known coding programs: their commands and variables.

use crate::output::OutputFormat;

/// A coding program that runs without a terminal and reports its work line by line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum CodingProgram {
    /// Claude Code, `claude` (tried with 2.1.197).
    Claude,
    /// Codex, `codex` (tried with 0.171.0).
    Codex,
    /// OpenCode, `opencode` (tried with 1.18.33).
    Opencode,
    /// Gemini CLI, `gemini` (tried with 0.61.0).
    Gemini,
    /// aider, `aider` (for 0.86). Its output is plain text, without usage.
    Aider,
}

/// Options of a coding program.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProgramOptions {
    /// The model, in the program's spelling. `None` for the program's own choice.
    pub model: Option<String>,
    /// Amount of thinking, in the program's spelling, such as `low` or `high`. Only Claude Code and
    /// Codex have this option; see [`CodingProgram::has_effort`].
    pub effort: Option<String>,
    /// Further arguments, before the prompt.
    pub arguments: Vec<String>,
}

impl CodingProgram {
    /// All programs.
    pub const ALL: [Self; 5] = [Self::Claude, Self::Codex, Self::Opencode, Self::Gemini, Self::Aider];

    /// Returns the name of the executable.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Claude => "claude",
            Self::Codex => "codex",
            Self::Opencode => "opencode",
            Self::Gemini => "gemini",
            Self::Aider => "aider",
        }
    }

    /// Returns the program with this executable name.
    #[must_use]
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|program| program.name() == name)
    }

    /// Returns whether the program has the option [`effort`](ProgramOptions::effort).
    #[must_use]
    pub fn has_effort(self) -> bool {
        matches!(self, Self::Claude | Self::Codex)
    }

    /// Returns the format of the program's standard output.
    #[must_use]
    pub fn output(self) -> OutputFormat {
        match self {
            Self::Claude => OutputFormat::Claude,
            Self::Codex => OutputFormat::Codex,
            Self::Opencode => OutputFormat::Opencode,
            Self::Gemini => OutputFormat::Gemini,
            Self::Aider => OutputFormat::Messages,
        }
    }

    /// Returns the command that works on one prompt without asking anybody, with
    /// [placeholders](crate::PLACEHOLDERS). The prompt is passed as standard input where the
    /// program reads it.
    ///
    /// A program that somebody else confines may do everything in its confinement, and its own
    /// sandbox is off. Otherwise the program confines itself as well as it can.
    #[must_use]
    pub fn command(self, options: &ProgramOptions, is_confined: bool) -> Vec<String> {
        let mut command = vec![self.name().to_owned()];
        let mut add = |words: &[&str]| command.extend(words.iter().map(|word| (*word).to_owned()));
        let (model, effort) = (options.model.as_deref(), options.effort.as_deref());
        match self {
            Self::Claude => {
                add(&["--print", "--output-format", "stream-json", "--verbose"]);
                add(&["--permission-mode", "acceptEdits"]);
                if is_confined {
                    // One word: the option takes all words up to the next option.
                    add(&["--allowed-tools=Bash,Edit,Write,NotebookEdit"]);
                }
                effort.into_iter().for_each(|effort| add(&["--effort", effort]));
                model.into_iter().for_each(|model| add(&["--model", model]));
            }
            Self::Codex => {
                add(&["exec", "--json", "--skip-git-repo-check", "--sandbox"]);
                add(&[if is_confined { "danger-full-access" } else { "workspace-write" }]);
                effort.into_iter().for_each(|effort| {
                    add(&["--config", &format!("model_reasoning_effort={effort:?}")]);
                });
                model.into_iter().for_each(|model| add(&["--model", model]));
            }
            Self::Opencode => {
                add(&["run", "--format", "json"]);
                model.into_iter().for_each(|model| add(&["--model", model]));
            }
            Self::Gemini => {
                let approval = if is_confined { "yolo" } else { "auto_edit" };
                add(&["--output-format", "stream-json", "--skip-trust", "--approval-mode", approval]);
                model.into_iter().for_each(|model| add(&["--model", model]));
            }
            Self::Aider => {
                add(&["--yes-always", "--no-check-update", "--no-analytics", "--no-pretty", "--no-stream"]);
                add(&["--no-show-model-warnings", "--no-auto-commits"]);
                model.into_iter().for_each(|model| add(&["--model", model]));
            }
        }
        let mut add = |word: &str| command.push(word.to_owned());
        options.arguments.iter().for_each(|argument| add(argument));
        match self {
            // Read standard input.
            Self::Claude | Self::Gemini => {}
            Self::Codex => add("-"),
            Self::Opencode => add("{prompt}"),
            Self::Aider => ["--message-file", "{prompt_file}"].into_iter().for_each(add),
        }
        command
    }

    /// Returns the variables without which the program repeats requests for long, reports to its
    /// maker, or updates itself. Variables that the user has set should take precedence.
    #[must_use]
    pub fn variables(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Claude => &[
                // A limit of the provider is handled for all requests together.
                ("CLAUDE_CODE_MAX_RETRIES", "1"),
                ("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1"),
                ("DISABLE_AUTOUPDATER", "1"),
            ],
            Self::Codex => &[],
            Self::Opencode => &[("OPENCODE_DISABLE_AUTOUPDATE", "1")],
            Self::Gemini => &[("GEMINI_TELEMETRY_ENABLED", "false")],
            Self::Aider => &[("AIDER_GITIGNORE", "false")],
        }
    }

    /// Returns the command that continues an earlier session of the program, or `None` if it cannot
    /// continue one.
    #[must_use]
    pub fn resumed(self, command: &[String], session: &str) -> Option<Vec<String>> {
        // Options and placeholders are not ids.
        let is_id = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if session.is_empty() || session.starts_with('-') || !session.chars().all(is_id) {
            return None;
        }
        let mut command = command.to_vec();
        match self {
            Self::Claude => {
                command.insert(1, "--resume".to_owned());
                command.insert(2, session.to_owned());
            }
            Self::Codex => {
                let at = command.iter().position(|word| word == "-")?;
                command.splice(at..at, ["resume".to_owned(), session.to_owned()]);
            }
            Self::Opencode => {
                let at = command.iter().position(|word| word == "{prompt}")?;
                command.splice(at..at, ["--session".to_owned(), session.to_owned()]);
            }
            Self::Gemini | Self::Aider => return None,
        }
        Some(command)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn commands_work_without_asking_and_confine_themselves_where_nobody_else_does() {
        let (model, effort) = (Some("m".to_owned()), Some("high".to_owned()));
        let options = ProgramOptions { model, effort, arguments: vec!["--more".to_owned()] };
        let command = |program: CodingProgram, is_confined| program.command(&options, is_confined).join(" ");
        assert_eq!(
            command(CodingProgram::Claude, true),
            "claude --print --output-format stream-json --verbose --permission-mode acceptEdits \
             --allowed-tools=Bash,Edit,Write,NotebookEdit --effort high --model m --more"
        );
        assert!(!command(CodingProgram::Claude, false).contains("Bash"));
        assert_eq!(
            command(CodingProgram::Codex, true),
            "codex exec --json --skip-git-repo-check --sandbox danger-full-access \
             --config model_reasoning_effort=\"high\" --model m --more -"
        );
        assert!(command(CodingProgram::Codex, false).contains("--sandbox workspace-write"));
        assert_eq!(
            command(CodingProgram::Opencode, true),
            "opencode run --format json --model m --more {prompt}"
        );
        assert!(command(CodingProgram::Gemini, true).contains("--approval-mode yolo"));
        assert!(command(CodingProgram::Gemini, false).contains("--approval-mode auto_edit"));
        assert!(command(CodingProgram::Aider, true).ends_with("--more --message-file {prompt_file}"));
        for program in CodingProgram::ALL {
            assert_eq!(CodingProgram::by_name(program.name()), Some(program));
        }
    }

    #[test]
    fn sessions_are_continued_by_their_id() {
        let resumed = |program: CodingProgram, command: &str, session: &str| {
            program.resumed(&words(command), session).map(|command| command.join(" "))
        };
        let expected = Some("claude --resume a-1 --print".to_owned());
        assert_eq!(resumed(CodingProgram::Claude, "claude --print", "a-1"), expected);
        let expected = Some("codex exec --json resume a-1 -".to_owned());
        assert_eq!(resumed(CodingProgram::Codex, "codex exec --json -", "a-1"), expected);
        assert_eq!(resumed(CodingProgram::Codex, "codex exec {prompt}", "a-1"), None);
        for session in ["", "--model", "{prompt}", "a b"] {
            assert_eq!(resumed(CodingProgram::Claude, "claude", session), None, "{session}");
        }
        assert_eq!(resumed(CodingProgram::Gemini, "gemini", "a"), None);
    }
}
