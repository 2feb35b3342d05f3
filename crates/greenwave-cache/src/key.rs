//! Cache keys: hashes of everything a result depends on.

use std::fmt;
use std::str::FromStr;

/// Hash of everything that a cached result depends on, built with a [`KeyBuilder`]. The hash is
/// BLAKE3 or another [`HashAlgorithm`]. Displayed as 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key([u8; 32]);

impl Key {
    /// Restores a key from the bytes returned by [`as_bytes`](Self::as_bytes). The bytes must be a
    /// hash: tables rely on evenly distributed keys.
    pub const fn from_bytes(hash: [u8; 32]) -> Self {
        Self(hash)
    }

    /// Returns the bytes of the hash.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({self})")
    }
}

/// Error for a text that is not 64 hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid key {0:?}: expected 64 hexadecimal digits")]
pub struct ParseKeyError(String);

impl FromStr for Key {
    type Err = ParseKeyError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let hash = blake3::Hash::from_hex(text).map_err(|_| ParseKeyError(text.to_owned()))?;
        Ok(Self(*hash.as_bytes()))
    }
}

/// Builds a [`Key`] from fields.
///
/// Each field is hashed together with its kind and length, so different fields never produce the
/// same key: `("ab", "c")` and `("a", "bc")` differ, and so do a number and its digits.
///
/// ```
/// use greenwave_cache::KeyBuilder;
///
/// let key = |command: &[&str]| {
///     let mut key = KeyBuilder::new("my test results", 1);
///     key.count(command.len());
///     for word in command {
///         key.text(word);
///     }
///     key.finish()
/// };
/// assert_ne!(key(&["cargo", "test"]), key(&["cargo test"]));
/// ```
#[derive(Debug, Clone)]
pub struct KeyBuilder(Hasher);

/// Hash algorithm for keys. Different algorithms produce different keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum HashAlgorithm {
    /// BLAKE3, several times as fast as SHA-256.
    #[default]
    Blake3,
    /// SHA-256 (FIPS 180-4), for environments that require it.
    #[cfg(feature = "sha256")]
    Sha256,
}

#[derive(Debug, Clone)]
enum Hasher {
    Blake3(Box<blake3::Hasher>),
    #[cfg(feature = "sha256")]
    Sha256(sha2::Sha256),
}

impl Hasher {
    fn new(algorithm: HashAlgorithm) -> Self {
        match algorithm {
            HashAlgorithm::Blake3 => Self::Blake3(Box::default()),
            #[cfg(feature = "sha256")]
            HashAlgorithm::Sha256 => Self::Sha256(sha2::Digest::new()),
        }
    }

    fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Blake3(hasher) => _ = hasher.update(bytes),
            #[cfg(feature = "sha256")]
            Self::Sha256(hasher) => sha2::Digest::update(hasher, bytes),
        }
    }

    fn finish(&self) -> [u8; 32] {
        match self {
            Self::Blake3(hasher) => *hasher.finalize().as_bytes(),
            #[cfg(feature = "sha256")]
            Self::Sha256(hasher) => sha2::Digest::finalize(hasher.clone()).into(),
        }
    }
}

impl KeyBuilder {
    /// Starts a key. `domain` names the kind of result, so that caches of different kinds can share
    /// a backend. Increase `schema` whenever the fields or the meaning of the results change.
    pub fn new(domain: &str, schema: u32) -> Self {
        Self::with_algorithm(HashAlgorithm::default(), domain, schema)
    }

    /// Like [`new`](Self::new), with another hash algorithm.
    pub fn with_algorithm(algorithm: HashAlgorithm, domain: &str, schema: u32) -> Self {
        let mut key = Self(Hasher::new(algorithm));
        key.text(domain).number(u64::from(schema));
        key
    }

    /// Adds bytes.
    pub fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.field(b'b', bytes)
    }

    /// Adds text.
    pub fn text(&mut self, text: &str) -> &mut Self {
        self.field(b't', text.as_bytes())
    }

    /// Adds a number.
    pub fn number(&mut self, number: u64) -> &mut Self {
        self.field(b'n', &number.to_le_bytes())
    }

    /// Adds the number of list items that follow, which separates adjacent lists.
    pub fn count(&mut self, count: usize) -> &mut Self {
        self.field(b'c', &(count as u64).to_le_bytes())
    }

    /// Adds another key, such as that of a file's contents.
    pub fn key(&mut self, key: &Key) -> &mut Self {
        self.field(b'k', key.as_bytes())
    }

    /// Returns the key of all fields added until now. More fields can be added afterwards.
    pub fn finish(&self) -> Key {
        Key(self.0.finish())
    }

    fn field(&mut self, kind: u8, bytes: &[u8]) -> &mut Self {
        self.0.update(&[kind]);
        self.0.update(&(bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
        self
    }
}
