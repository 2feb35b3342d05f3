//! Keys in the index. Short ones are stored inline, so that a million of them need no allocations.

use std::fmt;

/// Longest key stored inline, in bytes. The enum then takes 40 bytes, which suits the usual key: a
/// hash and a prefix byte.
pub(crate) const INLINE_BYTES_MAX: usize = 38;

/// A key. Bytes of an inline key beyond its length are arbitrary.
#[derive(Clone)]
pub(crate) enum Key {
    Inline { len: u8, bytes: [u8; INLINE_BYTES_MAX] },
    Boxed(Box<[u8]>),
}

const _: () = assert!(size_of::<Key>() == 40);

impl Key {
    /// Creates a short key from a slice that extends beyond it. Copying a constant number of bytes
    /// takes a few nanoseconds. Copying exactly the key takes eighty if the result is moved at
    /// once, since the processor then waits for earlier stores.
    pub(crate) fn from_padded(len: u8, bytes: &[u8; INLINE_BYTES_MAX]) -> Self {
        assert!(usize::from(len) <= INLINE_BYTES_MAX);
        Self::Inline { len, bytes: *bytes }
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        match self {
            Self::Inline { len, bytes } => &bytes[..usize::from(*len)],
            Self::Boxed(bytes) => bytes,
        }
    }
}

impl From<&[u8]> for Key {
    fn from(key: &[u8]) -> Self {
        if key.len() > INLINE_BYTES_MAX {
            return Self::Boxed(key.into());
        }
        let mut bytes = [0; INLINE_BYTES_MAX];
        bytes[..key.len()].copy_from_slice(key);
        Self::Inline { len: u8::try_from(key.len()).expect("just compared"), bytes }
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.as_slice() == other.as_slice()
    }
}

impl Eq for Key {}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.as_slice().escape_ascii().to_string())
    }
}
