//! Recognises coding programs that failed because their user is not logged in.

use crate::{CodingProgram, Error};

/// Phrases of known programs and providers, in lower case.
const PHRASES: [&str; 17] = [
    "please run /login",
    "not logged in",
    "invalid api key",
    "invalid x-api-key",
    "incorrect api key",
    "api key not valid",
    "missing api key",
    "authentication_error",
    "authenticationerror",
    "providerautherror",
    "failed to authenticate",
    "oauth token has expired",
    "token has been revoked",
    "401 unauthorized",
    "codex login",
    "opencode auth login",
    "please set an auth method",
];

impl CodingProgram {
    /// Returns the line in which the program says that its user is not logged in, if its error is
    /// of that kind. Another request would fail in the same way.
    #[must_use]
    pub fn login_problem(self, error: &Error) -> Option<String> {
        let text = match error {
            Error::Exited { stderr, .. } => stderr,
            Error::Failed { message, .. } => message,
            _ => return None,
        };
        let says_so = |line: &&str| {
            let line = line.to_lowercase();
            PHRASES.iter().any(|phrase| line.contains(phrase))
        };
        text.lines().rev().find(says_so).map(|line| line.trim().to_owned())
    }

    /// Returns the instruction for the user that ends such failures.
    #[must_use]
    pub fn login_action(self) -> &'static str {
        match self {
            Self::Claude => "log in with `claude` and `/login`",
            Self::Codex => "log in with `codex login`",
            Self::Opencode => "log in with `opencode auth login`",
            Self::Gemini => "log in with `gemini`",
            Self::Aider => "set the API key of its model in the environment",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_say_that_nobody_is_logged_in() {
        let failed = |message: &str| Error::Failed { program: "p".to_owned(), message: message.to_owned() };
        let check = |message: &str, expected: Option<&str>| {
            assert_eq!(CodingProgram::Claude.login_problem(&failed(message)).as_deref(), expected);
        };
        check("Invalid API key · Please run /login", Some("Invalid API key · Please run /login"));
        check(
            "unexpected status 401 Unauthorized: Missing bearer\nfailed",
            Some("unexpected status 401 Unauthorized: Missing bearer"),
        );
        check("the tests of the login page failed", None);
        check("", None);
        let timed_out = Error::TimedOut { program: "p".to_owned(), limit: std::time::Duration::ZERO };
        assert_eq!(CodingProgram::Codex.login_problem(&timed_out), None);
    }
}
