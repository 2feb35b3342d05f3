//! A key as the index holds it: short ones in place, so that a million of them cost no allocation. Knows nothing of records.

use std::fmt;

/// Longest key held in place. With its length it fills 40 bytes, which the usual key, a hash and a byte before it, fits well.
pub(crate) const INLINE_BYTES_MAX: usize = 38;

/// A key. What stands in place beyond its length means nothing.
#[derive(Clone)]
pub(crate) enum Key {
    Inline { len: u8, bytes: [u8; INLINE_BYTES_MAX] },
    Boxed(Box<[u8]>),
}

const _: () = assert!(size_of::<Key>() == 40);

impl Key {
    /// A short key from where more bytes follow it. Copying them too, always as many, takes a few nanoseconds; copying just the key takes
    /// eighty where the result is moved right after, since the processor then waits for all earlier writes to be done.
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
