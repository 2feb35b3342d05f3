//! Values of any type as payloads of records. Knows nothing of what they mean; a record's schema says that.

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::Error;

/// How values are written into payloads. A reader has to use the writer's: let the [schema](crate::Record::schema) say which.
///
/// ```
/// use greenwave_cache::PayloadFormat;
///
/// let payload = PayloadFormat::MessagePack.encode(&("tests", 42))?;
/// assert_eq!(PayloadFormat::MessagePack.decode::<(String, u32)>(&payload)?, ("tests".to_owned(), 42));
/// # Ok::<(), greenwave_cache::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum PayloadFormat {
    /// JSON (RFC 8259): to be read by people and other programs.
    #[default]
    Json,
    /// MessagePack (<https://msgpack.org>) with the names of fields, so that fields may be added: smaller, and takes bytes as they are.
    MessagePack,
}

impl PayloadFormat {
    /// The value as a payload.
    ///
    /// # Errors
    ///
    /// [`Error::Format`], if the value is of a kind that the format does not have: in JSON, a map whose keys are no text.
    pub fn encode<T: Serialize>(self, value: &T) -> Result<Bytes, Error> {
        let failed = |source| Error::Format { operation: "write", format: self, source };
        match self {
            Self::Json => serde_json::to_vec(value).map_err(|e| failed(e.into())),
            Self::MessagePack => rmp_serde::to_vec_named(value).map_err(|e| failed(e.into())),
        }
        .map(Bytes::from)
    }

    /// The value in a payload.
    ///
    /// # Errors
    ///
    /// [`Error::Format`], if it is not there.
    pub fn decode<T: DeserializeOwned>(self, payload: &[u8]) -> Result<T, Error> {
        let failed = |source| Error::Format { operation: "read", format: self, source };
        match self {
            Self::Json => serde_json::from_slice(payload).map_err(|e| failed(e.into())),
            Self::MessagePack => rmp_serde::from_slice(payload).map_err(|e| failed(e.into())),
        }
    }
}
