//! Keys that authenticate stored test results.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use greenwave_cache::{PublicKey, Secret};

/// Source of a key that authenticates the results on a server. The key itself is never part of a
/// setting, so that it shows neither in files nor in output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    /// A file outside of the project.
    File(PathBuf),
    /// An environment variable.
    Variable(String),
}

impl KeySource {
    /// Parses `file:PATH` or `env:NAME`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text.split_once(':')? {
            ("file", path) if !path.is_empty() => Some(Self::File(path.into())),
            ("env", name) if !name.is_empty() && !name.contains('=') => Some(Self::Variable(name.to_owned())),
            _ => None,
        }
    }
}

impl fmt::Display for KeySource {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(out, "file:{}", path.display()),
            Self::Variable(name) => write!(out, "env:{name}"),
        }
    }
}

/// A key that authenticates the results on a server. Omitted from `Debug` output.
#[derive(Clone, PartialEq, Eq)]
pub struct RemoteKey(Vec<u8>);

impl RemoteKey {
    /// Minimum number of bytes of a key.
    pub const BYTES_MIN: usize = 16;

    /// Creates a key. Returns `None` if it has fewer than [`BYTES_MIN`](Self::BYTES_MIN) bytes.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Option<Self> {
        (bytes.len() >= Self::BYTES_MIN).then(|| Self(bytes.to_vec()))
    }
}

impl fmt::Debug for RemoteKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("RemoteKey")
    }
}

/// Keys that authenticate stored test results. By default, there are none: anyone who can write to
/// the directory or the server can make a test pass.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct ResultKeys {
    /// Seals the results in the directory. Required if somebody else could have filled it, as the
    /// author of a repository that holds it. Omitted from `Debug` output.
    pub directory: Option<[u8; 32]>,
    /// Keys of the results on the server. The first one authenticates what this process writes.
    /// Results that any of them authenticates are accepted.
    pub remote: Vec<RemoteKey>,
    /// Signs the results that this process writes to the server.
    pub signing: Option<SigningSeed>,
    /// Settings of the client of an object store.
    pub object_store: ObjectStoreSettings,
    /// The header that identifies the user to a server of the Remote Execution API.
    pub login: Option<ServerLogin>,
}

impl fmt::Debug for ResultKeys {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { directory, remote, signing, object_store, login } = self;
        out.debug_struct("ResultKeys")
            .field("directory", &directory.is_some())
            .field("remote", remote)
            .field("signing", signing)
            .field("object_store", object_store)
            .field("login", login)
            .finish()
    }
}

/// Private key that signs results, as 32 random bytes. Omitted from `Debug` output.
#[derive(Clone, PartialEq, Eq)]
pub struct SigningSeed([u8; 32]);

impl SigningSeed {
    /// Creates a key from its bytes.
    #[must_use]
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Parses 64 hexadecimal digits, as `openssl rand -hex 32` prints them.
    #[must_use]
    pub fn parse(digits: &str) -> Option<Self> {
        Some(Self(*blake3::Hash::from_hex(digits.trim()).ok()?.as_bytes()))
    }

    /// Returns the public key. Returns `None` without the feature `remote`.
    #[must_use]
    pub fn public(&self) -> Option<PublicKey> {
        #[cfg(feature = "remote")]
        return Some(self.key()?.public());
        #[cfg(not(feature = "remote"))]
        None
    }

    #[cfg(feature = "remote")]
    pub(crate) fn key(&self) -> Option<greenwave_cache::SigningKey> {
        greenwave_cache::SigningKey::new(&self.0).ok()
    }
}

impl fmt::Debug for SigningSeed {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("SigningSeed")
    }
}

/// A header that identifies the user to a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerLogin {
    /// Name of the header in lower case. `None` for `authorization`, where a value without a space
    /// is sent as `Bearer VALUE`.
    pub header: Option<String>,
    /// Value of the header.
    pub token: LoginToken,
}

/// Value of the header of a [`ServerLogin`]. `Debug` output omits a text.
#[derive(Clone, PartialEq, Eq)]
pub enum LoginToken {
    /// The value itself.
    Text(String),
    /// A program and its arguments, whose first line of output is the value. It runs when the
    /// client connects, and again when the server calls the value invalid.
    Command(Vec<String>),
}

impl fmt::Debug for LoginToken {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(_) => out.write_str("Text"),
            Self::Command(words) => out.debug_tuple("Command").field(&words.first()).finish(),
        }
    }
}

/// Settings of the client of an object store, by name, such as `AWS_ACCESS_KEY_ID`. `Debug` output
/// omits their values.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct ObjectStoreSettings(BTreeMap<String, String>);

impl ObjectStoreSettings {
    /// Prefixes of the environment variables with settings of clients.
    pub const PREFIXES: [&str; 3] = ["AWS_", "AZURE_", "GOOGLE_"];

    /// Takes the settings from environment variables, by their prefixes.
    pub fn from_variables(variables: impl IntoIterator<Item = (String, String)>) -> Self {
        let is_setting =
            |(name, _): &(String, String)| Self::PREFIXES.iter().any(|prefix| name.starts_with(prefix));
        Self(variables.into_iter().filter(is_setting).collect())
    }

    /// Returns the settings, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

impl fmt::Debug for ObjectStoreSettings {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_set().entries(self.0.keys()).finish()
    }
}

impl ResultKeys {
    pub(crate) fn directory_secrets(&self) -> Vec<Secret> {
        self.directory.iter().map(|secret| Secret::new(secret)).collect()
    }

    #[cfg(feature = "remote")]
    pub(crate) fn remote_secrets(&self) -> Vec<Secret> {
        self.remote.iter().map(|key| Secret::new(&key.0)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_of_object_stores_are_chosen_by_name_and_never_shown() {
        let variables = [("AWS_SECRET_ACCESS_KEY", "hidden"), ("PATH", "/bin"), ("GOOGLE_BUCKET", "b")];
        let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let settings = ObjectStoreSettings::from_variables(variables);
        assert_eq!(format!("{settings:?}"), r#"{"AWS_SECRET_ACCESS_KEY", "GOOGLE_BUCKET"}"#);
        let names: Vec<&str> = settings.iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["AWS_SECRET_ACCESS_KEY", "GOOGLE_BUCKET"]);
    }

    #[test]
    fn private_keys_are_digits_and_never_shown() {
        let digits = "0123456789abcdef".repeat(4);
        let seed = SigningSeed::parse(&format!("{digits}\n")).unwrap();
        assert_eq!(format!("{seed:?}"), "SigningSeed");
        assert_eq!(seed.public().is_some(), cfg!(feature = "remote"));
        for text in ["", "0123", &digits[1..], &format!("{digits}0"), &"g".repeat(64)] {
            assert_eq!(SigningSeed::parse(text), None, "{text}");
        }
    }

    #[test]
    fn sources_are_files_and_variables() {
        let parse = |text: &str| KeySource::parse(text).map(|source| source.to_string());
        for text in ["file:/etc/key", "file:relative", "env:NAME"] {
            assert_eq!(parse(text).as_deref(), Some(text));
        }
        for text in ["", "secret", "file:", "env:", "env:A=B", "http://x", "FILE:/x"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
