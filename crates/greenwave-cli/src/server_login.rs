//! The header that identifies the user to a server of the Remote Execution API.
//!
//! It comes from variables of the environment, never from a file, and is not sent to a server that
//! a file of the project names: its author could have any token of its readers sent to himself.

use std::sync::Once;

use greenwave::{LoginToken, ServerLogin};

use crate::config::{Config, Origin};
use crate::key_error::{COMMAND, KeyError};
use crate::output;

/// Variable with the value of the header.
pub(crate) const TOKEN: &str = "GREENWAVE_REMOTE_TOKEN";
/// Variable with the name of the header.
const HEADER: &str = "GREENWAVE_REMOTE_HEADER";

/// Returns the header that the environment has for a server of the Remote Execution API.
///
/// # Errors
/// [`KeyError::Command`] if the program is not given as words.
pub(crate) fn server_login(config: &Config) -> Result<Option<ServerLogin>, KeyError> {
    let address = &config.settings.testing.remote;
    if !address.starts_with("grpc://") && !address.starts_with("grpcs://") {
        return Ok(None);
    }
    let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    let token = match (variable(TOKEN), variable(COMMAND)) {
        (Some(text), _) => LoginToken::Text(text),
        (None, Some(text)) => LoginToken::Command(words(&text).ok_or(KeyError::Command)?),
        (None, None) => return Ok(None),
    };
    if let Some(Origin::File(file)) = config.origin("testing.remote") {
        static NOTED: Once = Once::new();
        let file = file.display();
        NOTED.call_once(|| {
            output::note(&format!(
                "the token for the server is not sent: {file} names the server (set \
                 `GREENWAVE_TESTING_REMOTE` or pass `--remote`)"
            ));
        });
        return Ok(None);
    }
    Ok(Some(ServerLogin { header: variable(HEADER).map(|name| name.to_lowercase()), token }))
}

/// Returns a program and its arguments: a list in JSON, or words that are separated by spaces.
fn words(text: &str) -> Option<Vec<String>> {
    let words: Vec<String> = if text.trim_start().starts_with('[') {
        serde_json::from_str(text).ok()?
    } else {
        text.split_whitespace().map(str::to_owned).collect()
    };
    Some(words).filter(|words| !words.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_a_list_or_words() {
        let check = |text: &str, expected: &[&str]| assert_eq!(words(text).unwrap(), expected, "{text}");
        check("gcloud auth print-access-token", &["gcloud", "auth", "print-access-token"]);
        check(" pass ", &["pass"]);
        check(r#"["/opt/my tools/token", "ci"]"#, &["/opt/my tools/token", "ci"]);
        for text in [" ", "[]", "[1]", "[\"a\"", "[a]"] {
            assert_eq!(words(text), None, "{text}");
        }
    }
}
