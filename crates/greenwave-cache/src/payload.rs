//! Converts values to and from the payloads of records.

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::Error;
use crate::format::PayloadFormat;

impl PayloadFormat {
    /// Serializes `value` into a payload.
    ///
    /// # Errors
    ///
    /// Returns [`Error::Format`] if the format cannot represent the value, such as a JSON map whose
    /// keys are not strings.
    pub fn encode<T: Serialize>(self, value: &T) -> Result<Bytes, Error> {
        let failed = |source| Error::Format { operation: "write", format: self, source };
        match self {
            Self::Json => serde_json::to_vec(value).map_err(|e| failed(e.into())),
            Self::MessagePack => rmp_serde::to_vec_named(value).map_err(|e| failed(e.into())),
        }
        .map(Bytes::from)
    }

    /// Deserializes the value in `payload`.
    ///
    /// # Errors
    ///
    /// Returns [`Error::Format`] if the payload does not hold a `T` in this format.
    pub fn decode<T: DeserializeOwned>(self, payload: &[u8]) -> Result<T, Error> {
        let failed = |source| Error::Format { operation: "read", format: self, source };
        match self {
            Self::Json => serde_json::from_slice(payload).map_err(|e| failed(e.into())),
            Self::MessagePack => rmp_serde::from_slice(payload).map_err(|e| failed(e.into())),
        }
    }
}
