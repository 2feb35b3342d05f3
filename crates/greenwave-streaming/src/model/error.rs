//! Defines the errors of a model's response.

use serde::Deserialize;

/// An error of a model's response, which ends it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelStreamError {
    /// The data of an event is not what the protocol defines.
    #[error("cannot decode an event of a model server: {text:?}")]
    Malformed {
        /// Start of the data.
        text: String,
        /// The error of the JSON parser.
        #[source]
        source: serde_json::Error,
    },
    /// The server reports an error in place of the rest of the response.
    #[error("the model server reports an error: {message} ({kind})")]
    Provider {
        /// Kind of the error, as the server names it, such as `overloaded_error`.
        kind: String,
        /// Message of the server.
        message: String,
    },
    /// The stream ended before the last event of the protocol. Transient.
    #[error("the response of the model server broke off")]
    Truncated,
}

/// Maximum length of the data that an error shows, in bytes.
const TEXT_BYTES_MAX: usize = 200;

impl ModelStreamError {
    /// Returns whether the server reports that it is overloaded, or that the client has sent too
    /// many requests, so that the same request can succeed later.
    #[must_use]
    pub fn is_overloaded(&self) -> bool {
        let Self::Provider { kind, .. } = self else { return false };
        let kind = kind.to_ascii_lowercase();
        ["overloaded", "rate_limit", "resource_exhausted", "unavailable", "429", "503", "529"]
            .iter()
            .any(|word| kind.contains(word))
    }
}

/// Decodes the data of an event.
pub(super) fn parse<'d, T: Deserialize<'d>>(data: &'d [u8]) -> Result<T, ModelStreamError> {
    // One check of all bytes takes less time than one of each string.
    let parsed = match simdutf8::basic::from_utf8(data) {
        Ok(text) => serde_json::from_str(text),
        Err(_) => serde_json::from_slice(data),
    };
    parsed.map_err(|source| {
        let text = String::from_utf8_lossy(&data[..data.len().min(TEXT_BYTES_MAX)]).into_owned();
        ModelStreamError::Malformed { text, source }
    })
}
