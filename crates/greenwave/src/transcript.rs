//! Records an agent's output while it works, bounded, cleaned and without secrets.

use greenwave_agents::{AgentEvent, Error as AgentError};
use greenwave_storage::Transcript;

use crate::excerpt::Excerpt;
use crate::mask::Mask;
use crate::report::Usage;

/// Maximum size of the words that are stored, in bytes.
const WORDS_BYTES_MAX: usize = 32 * 1024;
/// Maximum size of the standard error that is stored, in bytes.
const STDERR_BYTES_MAX: usize = 16 * 1024;

/// Records the events of one response.
#[derive(Debug)]
pub(crate) struct Recorder {
    words: Excerpt,
    stderr: Excerpt,
    exit: String,
    session: Option<String>,
    usage: Usage,
    has_acted: bool,
}

impl Recorder {
    pub(crate) fn new() -> Self {
        Self {
            words: Excerpt::new(WORDS_BYTES_MAX),
            stderr: Excerpt::new(STDERR_BYTES_MAX),
            exit: String::new(),
            session: None,
            usage: Usage::default(),
            has_acted: false,
        }
    }

    pub(crate) fn observe(&mut self, event: &Result<AgentEvent, AgentError>) {
        match event {
            Ok(AgentEvent::Started(session)) => self.session = Some(session.clone()),
            Ok(AgentEvent::Text(text) | AgentEvent::Message(text)) => {
                self.has_acted = true;
                self.words.push(text);
            }
            Ok(AgentEvent::ToolCall { .. } | AgentEvent::FileTouched(_)) => self.has_acted = true,
            Ok(AgentEvent::Usage { input_tokens, cached_tokens, output_tokens, cost }) => {
                self.usage = Usage {
                    input_tokens: *input_tokens,
                    cached_tokens: *cached_tokens,
                    output_tokens: *output_tokens,
                    cost: *cost,
                };
            }
            Ok(AgentEvent::Stderr(text)) => self.stderr.push(text),
            Ok(AgentEvent::Exit(status)) => self.exit = status.to_string(),
            _ => {}
        }
    }

    /// Returns the id of the agent's session, if it has reported one.
    pub(crate) fn session(&self) -> Option<String> {
        self.session.clone()
    }

    /// Returns the usage of the response up to now.
    pub(crate) fn usage(&self) -> Usage {
        self.usage
    }

    /// Returns whether the agent has said or done anything.
    pub(crate) fn has_acted(&self) -> bool {
        self.has_acted
    }

    /// Returns the transcript up to now.
    pub(crate) fn transcript(&self, mask: &Mask) -> Transcript {
        let text = |excerpt: &Excerpt| mask.apply(excerpt.text().trim_end()).into_owned();
        Transcript { words: text(&self.words), stderr: text(&self.stderr), exit: self.exit.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_masked_across_chunks() {
        let mask = Mask::new([("API_TOKEN", "very-secret-value")]);
        let mut recorder = Recorder::new();
        for chunk in ["the token is very-sec", "ret-value\n"] {
            recorder.observe(&Ok(AgentEvent::Text(chunk.into())));
        }
        recorder.observe(&Ok(AgentEvent::Stderr("\x1b[31mred\x1b[0m\n".into())));
        let transcript = recorder.transcript(&mask);
        assert_eq!((transcript.words.as_str(), transcript.stderr.as_str()), ("the token is [masked]", "red"));
    }
}
