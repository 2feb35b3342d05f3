//! Defines the options of an agent that is a model server.

use std::fmt;

/// Default of [`HttpOptions::context_tokens`].
const CONTEXT_TOKENS: u32 = 50_000;

/// Default of [`HttpOptions::turns_max`].
const TURNS_MAX: u32 = 50;

/// Interface of a model server.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum HttpApi {
    /// Chat completions of OpenAI, which most model servers offer: `BASE/chat/completions`.
    #[default]
    OpenAiChat,
    /// Responses of OpenAI: `BASE/responses`.
    OpenAiResponses,
    /// Messages of Anthropic: `BASE/v1/messages`.
    AnthropicMessages,
}

/// Way in which a model works on a project.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum HttpMode {
    /// The model gets files with the prompt, and its answer contains the new files and edits.
    #[default]
    Answer,
    /// The model lists, searches, reads and changes files with tools, turn by turn.
    Tools,
}

/// Source of the key that a model server asks for. It never holds the key itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum ApiKeySource {
    /// The server asks for no key.
    #[default]
    None,
    /// An environment variable with this name. The caller passes its value.
    Variable(String),
    /// The standard output of a program with its arguments, without white space at its ends.
    Command(Vec<String>),
}

/// Options of a model server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpOptions {
    /// Interface of the server.
    pub api: HttpApi,
    /// Address that the paths of the interface are appended to: `http` or `https`, without a user,
    /// a query and a fragment.
    pub base_url: String,
    /// The model, as the server names it.
    pub model: String,
    /// Source of the key.
    pub key: ApiKeySource,
    /// Way in which the model works.
    pub mode: HttpMode,
    /// Maximum number of turns with [`HttpMode::Tools`], each a request. Work that is not complete
    /// after the last one is handed in as it is.
    pub turns_max: u32,
    /// Maximum size of the files in a prompt, in tokens of four bytes. Files that do not fit are
    /// named instead.
    pub context_tokens: u32,
    /// Maximum length of an answer, in tokens. `None` for the server's own limit, or 16,000 for an
    /// interface without one.
    pub answer_tokens: Option<u32>,
    /// Amount of thinking, as the server names it, such as `low` or `high`. For the interfaces of
    /// OpenAI only.
    pub effort: Option<String>,
}

impl HttpApi {
    /// Address of the maker's own server.
    #[must_use]
    pub fn default_url(self) -> &'static str {
        match self {
            Self::OpenAiChat | Self::OpenAiResponses => "https://api.openai.com/v1",
            Self::AnthropicMessages => "https://api.anthropic.com",
        }
    }

    /// Name of the variable that holds a key for the maker's own server.
    #[must_use]
    pub fn default_variable(self) -> &'static str {
        match self {
            Self::OpenAiChat | Self::OpenAiResponses => "OPENAI_API_KEY",
            Self::AnthropicMessages => "ANTHROPIC_API_KEY",
        }
    }

    /// Returns whether the interface has the option [`effort`](HttpOptions::effort).
    #[must_use]
    pub fn has_effort(self) -> bool {
        self != Self::AnthropicMessages
    }
}

impl HttpOptions {
    /// Options of the maker's own server, with its usual variable for the key.
    #[must_use]
    pub fn new(api: HttpApi, model: impl Into<String>) -> Self {
        Self {
            api,
            base_url: api.default_url().to_owned(),
            model: model.into(),
            key: ApiKeySource::Variable(api.default_variable().to_owned()),
            mode: HttpMode::default(),
            turns_max: TURNS_MAX,
            context_tokens: CONTEXT_TOKENS,
            answer_tokens: None,
            effort: None,
        }
    }

    /// Checks the options.
    ///
    /// # Errors
    /// [`InvalidHttpOption`] for the first invalid value.
    pub fn check(&self) -> Result<(), InvalidHttpOption> {
        let invalid = |option, value: &str, expected| {
            Err(InvalidHttpOption { option, value: format!("{value:?}"), expected })
        };
        if self.model.trim().is_empty() {
            return invalid("model", &self.model, "the name of a model");
        }
        if !is_base_url(&self.base_url) {
            // The address may hold a password.
            let expected = "an address such as `http://localhost:8000/v1`, without user, password and query";
            return invalid("base_url", "…", expected);
        }
        match &self.key {
            ApiKeySource::Variable(name) if !is_variable_name(name) => {
                // The name may be a key that was written in its place.
                return invalid("key_env", "…", "the name of a variable such as `OPENAI_API_KEY`");
            }
            ApiKeySource::Command(words) if words.first().is_none_or(String::is_empty) => {
                return invalid("key_command", "", "a program and its arguments");
            }
            _ => {}
        }
        if self.answer_tokens == Some(0) {
            return invalid("answer_tokens", "0", "a whole number from 1");
        }
        if self.turns_max == 0 {
            return invalid("turns_max", "0", "a whole number from 1");
        }
        if let Some(effort) = &self.effort
            && !self.api.has_effort()
        {
            return invalid("effort", effort, "no value, as the interface has no such option");
        }
        Ok(())
    }

    /// Returns the host and port of the server, for messages.
    #[must_use]
    pub fn server(&self) -> &str {
        let rest = self.base_url.split_once("://").map_or(&*self.base_url, |(_, rest)| rest);
        rest.split('/').next().unwrap_or_default()
    }
}

/// An invalid option of a model server. The value is left out if it may be a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidHttpOption {
    /// Name of the option.
    pub option: &'static str,
    /// The value in quotes.
    pub value: String,
    /// The accepted values.
    pub expected: &'static str,
}

impl fmt::Display for InvalidHttpOption {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { option, value, expected } = self;
        write!(out, "invalid value `{value}` for `{option}`: expected {expected}")
    }
}

impl std::error::Error for InvalidHttpOption {}

fn is_base_url(url: &str) -> bool {
    let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
    let Some(rest) = rest else { return false };
    let authority = rest.split('/').next().unwrap_or_default();
    let is_clean = |c: char| !c.is_whitespace() && !c.is_control() && !"?#\\@\"<>".contains(c);
    !authority.is_empty() && !authority.starts_with(':') && url.chars().all(is_clean)
}

fn is_variable_name(name: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    !name.is_empty() && name.bytes().all(is_part) && !name.as_bytes()[0].is_ascii_digit()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> HttpOptions {
        HttpOptions::new(HttpApi::OpenAiChat, "m")
    }

    #[test]
    fn addresses_are_of_servers_and_hold_no_password() {
        let check = |base_url: &str| HttpOptions { base_url: base_url.to_owned(), ..options() }.check();
        for valid in ["http://localhost:8000/v1", "https://[::1]:443", "https://example.com/a%20b/"] {
            assert_eq!(check(valid), Ok(()), "{valid}");
        }
        for invalid in
            ["", "localhost", "ftp://a", "http://", "http:///v1", "http://:80", "http://a b", "http://a?k=v"]
        {
            assert!(check(invalid).is_err(), "{invalid}");
        }
        let error = check("https://me:very-secret@example.com").unwrap_err().to_string();
        assert!(!error.contains("very-secret") && error.contains("without user, password"), "{error}");
    }

    #[test]
    fn a_key_in_the_place_of_a_variable_is_refused_and_not_shown() {
        let key = ApiKeySource::Variable("sk-very-secret".to_owned());
        let error = HttpOptions { key, ..options() }.check().unwrap_err().to_string();
        assert_eq!(
            error,
            "invalid value `\"…\"` for `key_env`: expected the name of a variable such as `OPENAI_API_KEY`"
        );
        for (options, option) in [
            (HttpOptions { model: " ".to_owned(), ..options() }, "model"),
            (HttpOptions { key: ApiKeySource::Command(Vec::new()), ..options() }, "key_command"),
            (HttpOptions { answer_tokens: Some(0), ..options() }, "answer_tokens"),
            (HttpOptions { turns_max: 0, ..options() }, "turns_max"),
            (
                HttpOptions {
                    effort: Some("low".to_owned()),
                    ..HttpOptions::new(HttpApi::AnthropicMessages, "m")
                },
                "effort",
            ),
        ] {
            assert_eq!(options.check().unwrap_err().option, option);
        }
    }

    #[test]
    fn the_server_is_named_by_host_and_port() {
        assert_eq!(options().server(), "api.openai.com");
        let base_url = "http://[::1]:8000/v1".to_owned();
        assert_eq!(HttpOptions { base_url, ..options() }.server(), "[::1]:8000");
    }
}
