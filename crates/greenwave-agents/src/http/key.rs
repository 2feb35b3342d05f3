//! Gets keys of model servers, and removes them from text.

use std::borrow::Cow;
use std::fmt;
use std::io;
use std::process::{Output, Stdio};
use std::time::Duration;

use tokio::process::Command;
use tokio::sync::Mutex;

use crate::Error;
use crate::http_options::ApiKeySource;

/// Time limit of a program that prints a key.
const COMMAND_MAX: Duration = Duration::from_secs(60);
/// Maximum length of the standard error that an error quotes, in bytes.
const STDERR_BYTES_MAX: usize = 300;
/// The text that replaces a key.
const MASKED: &str = "[masked]";
/// Minimum length of a key that is removed from text, in bytes. Servers that ignore keys get short
/// ones such as `x`, which occur in any text.
const MASKED_BYTES_MIN: usize = 8;

/// A key. Its debug output does not show it.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Key(String);

impl Key {
    /// Returns a key without white space at its ends; `None` if it cannot be the value of a header.
    fn new(text: &str) -> Option<Self> {
        let text = text.trim();
        let is_header = !text.is_empty() && text.bytes().all(|byte| (0x21..0x7f).contains(&byte));
        is_header.then(|| Self(text.to_owned()))
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns a text without the key.
    pub(super) fn mask<'t>(&self, text: &'t str) -> Cow<'t, str> {
        if self.0.len() >= MASKED_BYTES_MIN && text.contains(&self.0) {
            Cow::Owned(text.replace(&self.0, MASKED))
        } else {
            Cow::Borrowed(text)
        }
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(MASKED)
    }
}

type Observer = Box<dyn Fn(&str) + Send + Sync>;

/// A source of keys, and its last key.
pub(super) struct KeyStore {
    source: ApiKeySource,
    /// The value of a variable.
    variable: Option<Key>,
    /// The output of a program.
    printed: Mutex<Option<Key>>,
    observer: Option<Observer>,
}

impl fmt::Debug for KeyStore {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("KeyStore").field("source", &self.source).finish_non_exhaustive()
    }
}

impl KeyStore {
    pub(super) fn new(source: ApiKeySource, variable: Option<&str>) -> Self {
        let variable = variable.and_then(Key::new);
        Self { source, variable, printed: Mutex::default(), observer: None }
    }

    pub(super) fn observe(&mut self, observer: Observer) {
        self.observer = Some(observer);
    }

    /// Returns whether the variable is not set, or has a value that cannot be a key.
    pub(super) fn is_missing(&self) -> bool {
        matches!(self.source, ApiKeySource::Variable(_)) && self.variable.is_none()
    }

    /// Returns the key, if the server asks for one, and whether it was printed for an earlier
    /// request, so that it may have expired.
    pub(super) async fn get(&self, server: &str) -> Result<(Option<Key>, bool), Error> {
        match &self.source {
            ApiKeySource::None => Ok((None, false)),
            ApiKeySource::Variable(variable) => match &self.variable {
                Some(key) => Ok((Some(key.clone()), false)),
                None => Err(Error::NoKey { server: server.to_owned(), variable: variable.clone() }),
            },
            ApiKeySource::Command(words) => {
                // One program at a time: it may ask a person.
                let mut printed = self.printed.lock().await;
                if let Some(key) = &*printed {
                    return Ok((Some(key.clone()), true));
                }
                let key = run(words).await.map_err(|source| Error::KeyCommand {
                    server: server.to_owned(),
                    program: words.first().cloned().unwrap_or_default(),
                    source,
                })?;
                if let Some(observer) = &self.observer {
                    observer(key.as_str());
                }
                *printed = Some(key.clone());
                Ok((Some(key), false))
            }
        }
    }

    /// Forgets the key of a program, which has expired.
    pub(super) async fn forget(&self) {
        *self.printed.lock().await = None;
    }
}

/// Runs a program that prints a key.
async fn run(words: &[String]) -> io::Result<Key> {
    let [program, arguments @ ..] = words else { return Err(io::ErrorKind::InvalidInput.into()) };
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(COMMAND_MAX, command.output()).await;
    let Output { status, stdout, stderr } = match output {
        Ok(output) => output?,
        Err(_) => {
            let limit = humantime::format_duration(COMMAND_MAX);
            return Err(io::Error::new(io::ErrorKind::TimedOut, format!("it did not end within {limit}")));
        }
    };
    if !status.success() {
        let stderr = String::from_utf8_lossy(&stderr[..stderr.len().min(STDERR_BYTES_MAX)]);
        return Err(io::Error::other(format!("it ended with {status}: {}", stderr.trim())));
    }
    let key = std::str::from_utf8(&stdout).ok().and_then(Key::new);
    key.ok_or_else(|| io::Error::other("its output is not one line of visible ASCII characters"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(script: &str) -> KeyStore {
        let words = ["sh", "-c", script].map(str::to_owned).to_vec();
        KeyStore::new(ApiKeySource::Command(words), None)
    }

    #[tokio::test]
    async fn a_program_prints_the_key_until_it_is_forgotten() {
        let directory = tempfile::tempdir().unwrap();
        let counter = directory.path().join("counter");
        let mut keys = command(&format!("echo x >> {0}; echo key-$(wc -l < {0})-long", counter.display()));
        let seen = std::sync::Arc::new(parking_lot::Mutex::new(Vec::new()));
        let observed = std::sync::Arc::clone(&seen);
        keys.observe(Box::new(move |key| observed.lock().push(key.to_owned())));
        assert_eq!(keys.get("s").await.unwrap(), (Key::new("key-1-long"), false));
        assert_eq!(keys.get("s").await.unwrap(), (Key::new("key-1-long"), true));
        keys.forget().await;
        assert_eq!(keys.get("s").await.unwrap(), (Key::new("key-2-long"), false));
        assert_eq!(*seen.lock(), ["key-1-long", "key-2-long"]);
        assert!(!format!("{keys:?}").contains("key-1"));
    }

    #[tokio::test]
    async fn a_program_that_prints_no_key_is_an_error_without_its_output() {
        for (script, expected) in [
            ("echo secret; echo no entry >&2; exit 3", "it ended with exit status: 3: no entry"),
            ("echo secret; echo second", "its output is not one line of visible ASCII characters"),
            ("true", "its output is not one line of visible ASCII characters"),
        ] {
            let error = command(script).get("s").await.unwrap_err();
            let source = std::error::Error::source(&error).unwrap().to_string();
            assert_eq!(source, expected);
            assert_eq!(error.to_string(), "cannot get the key of model server s from `sh`");
            assert!(error.is_permanent());
        }
        let missing = KeyStore::new(ApiKeySource::Command(vec!["./no-such-program".to_owned()]), None);
        assert!(matches!(missing.get("s").await, Err(Error::KeyCommand { .. })));
    }

    #[test]
    fn keys_are_removed_from_text() {
        let key = Key::new(" key-1234 \n").unwrap();
        assert_eq!(key.mask("wrong key: key-1234, key-1234"), "wrong key: [masked], [masked]");
        assert_eq!(format!("{key:?}"), "[masked]");
        assert_eq!(Key::new("x").unwrap().mask("next"), "next");
        for text in ["", " ", "a b", "ä", "a\u{7}"] {
            assert_eq!(Key::new(text), None, "{text:?}");
        }
    }
}
