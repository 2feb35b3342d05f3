//! The formats in which values are written into payloads.

/// Format in which values are written into the payloads of records.
///
/// A reader must use the same format as the writer: let the record's
/// [schema](crate::Record::schema) determine it.
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
    /// JSON (RFC 8259), readable by people and by other programs.
    #[default]
    Json,
    /// MessagePack (<https://msgpack.org>) with field names, so that fields can be added later.
    /// Smaller than JSON, and stores bytes without an encoding.
    MessagePack,
}
