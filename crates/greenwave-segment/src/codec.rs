//! Values to record bytes and back, with contexts that are used again. Knows nothing of segments.

use bytes::Bytes;
use parking_lot::Mutex;
use zstd::bulk::{Compressor, Decompressor};

use crate::options::Compression;
use crate::record::{Codec as CodecId, HEADER_BYTES, Header, Kind, hash_payload};

/// Contexts kept for the next value; more threads than this make their own. A zstd context is some hundred KiB.
const POOLED_CONTEXTS_MAX: usize = 4;
/// Values shorter than this are not worth a try.
const TRY_BYTES_MIN: usize = 64;

/// A record with room for its header, which is known only once its place is.
pub(crate) struct Frame {
    pub(crate) header: Header,
    pub(crate) bytes: Vec<u8>,
}

impl Frame {
    pub(crate) fn tombstone(key: &[u8]) -> Self {
        Self::new(Header::empty(Kind::Tombstone, key), key, &[])
    }

    pub(crate) fn new(header: Header, key: &[u8], payload: &[u8]) -> Self {
        let mut bytes = Vec::with_capacity(HEADER_BYTES + key.len() + payload.len());
        bytes.extend_from_slice(&[0; HEADER_BYTES]);
        bytes.extend_from_slice(key);
        bytes.extend_from_slice(payload);
        Self { header, bytes }
    }

    pub(crate) fn key(&self) -> &[u8] {
        &self.bytes[HEADER_BYTES..][..self.header.key_len as usize]
    }

    /// Fills in the header for the place that `seed` stands for.
    pub(crate) fn place(&mut self, seed: u64) {
        let header = self.header.encode(seed, self.key());
        self.bytes[..HEADER_BYTES].copy_from_slice(&header);
    }
}

/// Compressors and decompressors in waiting.
pub(crate) struct Codec {
    compression: Compression,
    compressors: Mutex<Vec<Compressor<'static>>>,
    decompressors: Mutex<Vec<Decompressor<'static>>>,
}

impl Codec {
    pub(crate) fn new(compression: Compression) -> Self {
        Self { compression, compressors: Mutex::default(), decompressors: Mutex::default() }
    }

    /// A value's record, compressed if that gains 10 % or more.
    pub(crate) fn encode(&self, key: &[u8], value: &[u8]) -> Frame {
        let mut header = Header::empty(Kind::Value, key);
        header.raw_len = u32::try_from(value.len()).expect("checked against value_bytes_max");
        let mut frame = self.compressed(header, key, value).unwrap_or_else(|| Frame::new(header, key, value));
        let payload = &frame.bytes[HEADER_BYTES + key.len()..];
        frame.header.stored_len = u32::try_from(payload.len()).expect("no longer than the value");
        frame.header.payload_hash = hash_payload(payload);
        frame
    }

    fn compressed(&self, mut header: Header, key: &[u8], value: &[u8]) -> Option<Frame> {
        let Compression::Zstd { level } = self.compression else { return None };
        if value.len() < TRY_BYTES_MIN {
            return None;
        }
        let pooled = self.compressors.lock().pop();
        let mut compressor = pooled.or_else(|| Compressor::new(level).ok())?;
        header.codec = CodecId::ZSTD;
        let mut frame = Frame::new(header, key, &[]);
        let start = frame.bytes.len();
        // Room for nine tenths only: a value that gains less makes zstd give up early, which is the test itself.
        frame.bytes.resize(start + value.len() / 10 * 9, 0);
        let compressed = compressor.compress_to_buffer(value, &mut frame.bytes[start..]).ok();
        give_back(&self.compressors, compressor);
        frame.bytes.truncate(start + compressed?);
        Some(frame)
    }

    /// The value of a record whose payload hash has been checked; `Err` says what is wrong with it.
    pub(crate) fn decode(&self, header: &Header, payload: Bytes, max: u32) -> Result<Bytes, &'static str> {
        if header.raw_len > max {
            return Err("its decompressed length is over the limit");
        }
        let raw_len = header.raw_len as usize;
        match header.codec {
            CodecId::RAW if payload.len() == raw_len => Ok(payload),
            CodecId::RAW => Err("its two lengths differ"),
            CodecId::ZSTD => self.decompressed(&payload, raw_len),
            _ => Err("its codec is unknown"),
        }
    }

    fn decompressed(&self, payload: &[u8], raw_len: usize) -> Result<Bytes, &'static str> {
        let pooled = self.decompressors.lock().pop();
        let mut decompressor =
            pooled.or_else(|| Decompressor::new().ok()).ok_or("no memory for a decompressor")?;
        let value = decompressor.decompress(payload, raw_len);
        give_back(&self.decompressors, decompressor);
        match value {
            Ok(value) if value.len() == raw_len => Ok(Bytes::from(value)),
            _ => Err("it does not decompress"),
        }
    }
}

fn give_back<T>(pool: &Mutex<Vec<T>>, context: T) {
    let mut pool = pool.lock();
    if pool.len() < POOLED_CONTEXTS_MAX {
        pool.push(context);
    }
}
