//! Encodes values as record bytes and decodes them, reusing zstd contexts.

#[cfg(feature = "simulation")]
mod idle;

use std::collections::HashMap;
use std::io::Cursor;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use xxhash_rust::xxh3::xxh3_64;
use zstd::bulk::{Compressor, Decompressor};

use crate::format::UNKNOWN_CODEC;
use crate::options::Compression;
use crate::prefix::{PrefixCompressor, PrefixDecompressor};
use crate::record::{BASE_TAG_BYTES, Codec as CodecId, HEADER_BYTES, Header, RecordKind, hash_payload};

/// Contexts that are pooled; more threads than this create their own. A zstd context takes some
/// hundred KiB.
const POOLED_CONTEXTS_MAX: usize = 4;
/// Shorter values are not compressed, in bytes.
const COMPRESS_BYTES_MIN: usize = 64;
/// Maximum size of a delta's base and value together, in bytes: both must fit zstd's window, and
/// memory.
const DELTA_BYTES_MAX: usize = 64 << 20;
/// A delta that is this many times smaller than the value is stored without trying plain
/// compression.
const DELTA_CLEAR_GAIN: usize = 10;
/// Compression level of deltas. A delta consists of a few long matches, which the lowest levels
/// split.
const DELTA_LEVEL: i32 = 6;
/// Larger values gain nothing from a dictionary, in bytes.
pub(crate) const DICTIONARY_VALUE_BYTES_MAX: usize = 64 << 10;
/// Size of the stored hash of the base's value in bytes: the lower half of its XXH3-64.
const BASE_HASH_BYTES: usize = 4;

/// A record whose header is filled in when its location is chosen.
pub(crate) struct Frame {
    pub(crate) header: Header,
    /// Header, key and payload.
    pub(crate) bytes: Vec<u8>,
    /// The payload, if it is shared with the caller instead of copied into `bytes`.
    pub(crate) shared_payload: Bytes,
}

impl Frame {
    pub(crate) fn tombstone(key: &[u8]) -> Self {
        Self::new(Header::empty(RecordKind::Tombstone, key), key, &[])
    }

    pub(crate) fn new(header: Header, key: &[u8], payload: &[u8]) -> Self {
        let mut bytes = Vec::with_capacity(HEADER_BYTES + key.len() + payload.len());
        bytes.extend_from_slice(&[0; HEADER_BYTES]);
        bytes.extend_from_slice(key);
        bytes.extend_from_slice(payload);
        Self { header, bytes, shared_payload: Bytes::new() }
    }

    /// Returns the length of the record in bytes.
    pub(crate) fn len(&self) -> u64 {
        (self.bytes.len() + self.shared_payload.len()) as u64
    }

    pub(crate) fn key(&self) -> &[u8] {
        &self.bytes[HEADER_BYTES..][..self.header.key_len as usize]
    }

    /// Returns the key and tag of the base; empty if this is not a delta.
    pub(crate) fn base(&self) -> &[u8] {
        &self.payload()[..self.header.base_and_tag_len()]
    }

    pub(crate) fn payload(&self) -> &[u8] {
        let copied = &self.bytes[HEADER_BYTES + self.header.key_len as usize..];
        if copied.is_empty() { &self.shared_payload } else { copied }
    }

    /// Writes the header for the location that `seed` identifies.
    pub(crate) fn write_header(&mut self, seed: u64) {
        let header = self.header.encode(seed, self.key());
        self.bytes[..HEADER_BYTES].copy_from_slice(&header);
    }

    /// Returns the header checksum. The header must have been written.
    pub(crate) fn checksum(&self) -> u64 {
        crate::record::checksum_of(self.bytes.first_chunk().expect("a frame has a header"))
    }

    fn finish(mut self, raw_len: usize) -> Self {
        self.header.raw_len = u32::try_from(raw_len).expect("checked against value_bytes_max");
        let payload = self.payload();
        let stored_len = u32::try_from(payload.len()).expect("no longer than the value");
        self.header.payload_hash = hash_payload(payload);
        self.header.stored_len = stored_len;
        self
    }
}

/// The value that a delta is encoded against.
pub(crate) struct DeltaBase<'a> {
    pub(crate) key: &'a [u8],
    pub(crate) value: &'a [u8],
    pub(crate) timestamp: u64,
    /// Number of deltas to apply to read the base.
    pub(crate) depth: u8,
}

/// Pools of compressors and decompressors that share a dictionary.
#[derive(Default)]
struct ZstdContexts {
    /// The dictionary; empty for none.
    dictionary: Bytes,
    compressors: Mutex<Vec<Compressor<'static>>>,
    decompressors: Mutex<Vec<Decompressor<'static>>>,
}

/// Pools of all contexts that depend on nothing but the compression.
#[derive(Default)]
pub(crate) struct ContextPools {
    plain: ZstdContexts,
    prefix_compressors: Mutex<Vec<PrefixCompressor>>,
    prefix_decompressors: Mutex<Vec<PrefixDecompressor>>,
}

/// Encoder and decoder of values.
pub(crate) struct Codec {
    compression: Compression,
    pools: ContextPools,
    dictionaries: RwLock<HashMap<u32, Arc<ZstdContexts>>>,
    /// The dictionary that new values are compressed with.
    current: RwLock<Option<u32>>,
}

impl Codec {
    pub(crate) fn new(compression: Compression) -> Self {
        Self {
            compression,
            #[cfg(feature = "simulation")]
            pools: idle::take(compression),
            #[cfg(not(feature = "simulation"))]
            pools: ContextPools::default(),
            dictionaries: RwLock::default(),
            current: RwLock::default(),
        }
    }

    /// Adds a dictionary; returns its id.
    pub(crate) fn add_dictionary(&self, dictionary: Bytes) -> u32 {
        let id = dictionary_id(&dictionary);
        let contexts = ZstdContexts { dictionary, ..ZstdContexts::default() };
        self.dictionaries.write().entry(id).or_insert_with(|| Arc::new(contexts));
        id
    }

    /// Returns whether values compressed with this dictionary can be read.
    pub(crate) fn has_dictionary(&self, id: u32) -> bool {
        self.dictionaries.read().contains_key(&id)
    }

    /// Returns whether new values are compressed with a dictionary.
    pub(crate) fn uses_dictionary(&self) -> bool {
        self.current.read().is_some()
    }

    /// Compresses new values with this dictionary, which must have been added.
    pub(crate) fn use_dictionary(&self, id: u32) {
        *self.current.write() = Some(id);
    }

    /// Encodes a value, compressed if that makes it at least 10 % smaller.
    pub(crate) fn encode(&self, key: &[u8], value: &[u8]) -> Frame {
        let header = Header::empty(RecordKind::Value, key);
        let frame = self.compressed(header, key, value).unwrap_or_else(|| Frame::new(header, key, value));
        frame.finish(value.len())
    }

    /// Encodes a value of a batch like [`encode`](Self::encode). All records of a batch are in
    /// memory at once. To save memory, compressed ones are moved into buffers of their size, and
    /// others share the value.
    pub(crate) fn encode_shared(&self, key: &[u8], value: &Bytes) -> Frame {
        let header = Header::empty(RecordKind::Value, key);
        let mut frame = self
            .compressed(header, key, value)
            .unwrap_or_else(|| Frame { shared_payload: value.clone(), ..Frame::new(header, key, &[]) });
        frame.bytes.shrink_to_fit();
        frame.finish(value.len())
    }

    /// Encodes a value as a delta if that takes a quarter less space than encoding it alone.
    pub(crate) fn encode_against(&self, key: &[u8], value: &[u8], base: &DeltaBase<'_>) -> Frame {
        let delta = self.delta(key, value, base);
        match delta {
            Some(delta) if delta.bytes.len() - HEADER_BYTES - key.len() <= value.len() / DELTA_CLEAR_GAIN => {
                delta
            }
            Some(delta) => {
                let plain = self.encode(key, value);
                if delta.bytes.len() * 4 <= plain.bytes.len() * 3 { delta } else { plain }
            }
            None => self.encode(key, value),
        }
    }

    /// Returns whether a value of this size may be stored as a delta.
    pub(crate) fn can_delta(&self, value: &[u8]) -> bool {
        self.compression != Compression::None && (COMPRESS_BYTES_MIN..DELTA_BYTES_MAX).contains(&value.len())
    }

    fn delta(&self, key: &[u8], value: &[u8], base: &DeltaBase<'_>) -> Option<Frame> {
        let total = base.value.len() + value.len();
        if total > DELTA_BYTES_MAX || base.key.is_empty() {
            return None;
        }
        let mut header = Header::empty(RecordKind::Value, key);
        header.codec = CodecId::DELTA;
        let [low, high] = u16::try_from(base.key.len()).ok()?.to_le_bytes();
        header.extra = [low, high, base.depth.checked_add(1)?, 0];
        let mut frame = Frame::new(header, key, base.key);
        frame.bytes.extend_from_slice(&base.timestamp.to_le_bytes()[..BASE_TAG_BYTES]);
        frame.bytes.extend_from_slice(&xxh3_64(base.value).to_le_bytes()[..BASE_HASH_BYTES]);
        let start = frame.bytes.len();
        frame.bytes.resize(start + value.len() / 2, 0);
        let Compression::Zstd { level } = self.compression else { return None };
        let pooled = self.pools.prefix_compressors.lock().pop();
        let mut compressor = pooled.or_else(PrefixCompressor::new)?;
        let len = compressor.compress(level.max(DELTA_LEVEL), base.value, value, &mut frame.bytes[start..]);
        return_to_pool(&self.pools.prefix_compressors, compressor);
        let len = len?;
        frame.bytes.truncate(start + len);
        Some(frame.finish(value.len()))
    }

    fn compressed(&self, mut header: Header, key: &[u8], value: &[u8]) -> Option<Frame> {
        let Compression::Zstd { level } = self.compression else { return None };
        if value.len() < COMPRESS_BYTES_MIN {
            return None;
        }
        let dictionary = self.current_for(value);
        let contexts = match &dictionary {
            Some((id, contexts)) => {
                (header.codec, header.extra) = (CodecId::DICT, id.to_le_bytes());
                contexts
            }
            None => {
                header.codec = CodecId::ZSTD;
                &self.pools.plain
            }
        };
        let mut frame = Frame::new(header, key, &[]);
        let start = frame.bytes.len();
        // The buffer holds nine tenths of the value, so zstd stops early on a value that gains
        // less. It is not initialised: pages that zstd does not write take no memory.
        frame.bytes.reserve_exact(value.len() / 10 * 9);
        let mut buffer = Cursor::new(frame.bytes);
        buffer.set_position(start as u64);
        contexts.compress(level, value, &mut buffer)?;
        frame.bytes = buffer.into_inner();
        Some(frame)
    }

    fn current_for(&self, value: &[u8]) -> Option<(u32, Arc<ZstdContexts>)> {
        let id = (*self.current.read()).filter(|_| value.len() <= DICTIONARY_VALUE_BYTES_MAX)?;
        Some((id, self.dictionaries.read().get(&id)?.clone()))
    }

    /// Decodes a record that is not a delta and whose payload hash has been checked; `Err` is the
    /// reason.
    pub(crate) fn decode(&self, header: &Header, payload: Bytes, max: u32) -> Result<Bytes, &'static str> {
        let raw_len = checked_len(header, max)?;
        match header.codec {
            CodecId::RAW if payload.len() == raw_len => Ok(payload),
            CodecId::RAW => Err("its stored and decompressed lengths differ"),
            CodecId::ZSTD => self.pools.plain.decompress(&payload, raw_len),
            CodecId::DICT => {
                let contexts = self.dictionaries.read().get(&u32::from_le_bytes(header.extra)).cloned();
                contexts.ok_or("its dictionary is missing")?.decompress(&payload, raw_len)
            }
            _ => Err(UNKNOWN_CODEC),
        }
    }

    /// Decodes a delta whose payload hash has been checked, from the value of its base.
    pub(crate) fn apply_delta(
        &self,
        header: &Header,
        payload: &[u8],
        base: &[u8],
        max: u32,
    ) -> Result<Bytes, &'static str> {
        let raw_len = checked_len(header, max)?;
        let DeltaPayload { hash, frame, .. } = parse_delta(header, payload).ok_or("it is too short")?;
        if !xxh3_64(base).to_le_bytes().starts_with(hash) {
            return Err("its base has another value");
        }
        let pooled = self.pools.prefix_decompressors.lock().pop();
        let mut decompressor =
            pooled.or_else(PrefixDecompressor::new).ok_or("no memory for a decompressor")?;
        let value = decompressor.decompress(base, frame, raw_len);
        return_to_pool(&self.pools.prefix_decompressors, decompressor);
        value.map(Bytes::from).ok_or("it does not decompress")
    }
}

/// Keeps the contexts of a closed log for the next one of a simulation.
#[cfg(feature = "simulation")]
impl Drop for Codec {
    fn drop(&mut self) {
        idle::store(self.compression, std::mem::take(&mut self.pools));
    }
}

impl ZstdContexts {
    /// Compresses into `buffer`; `None` if the buffer is too small or memory is exhausted.
    fn compress(&self, level: i32, value: &[u8], buffer: &mut Cursor<Vec<u8>>) -> Option<usize> {
        let pooled = self.compressors.lock().pop();
        let mut compressor = match pooled {
            Some(compressor) => compressor,
            None => Compressor::with_dictionary(level, &self.dictionary).ok()?,
        };
        let len = compressor.compress_to_buffer(value, buffer).ok();
        return_to_pool(&self.compressors, compressor);
        len
    }

    fn decompress(&self, payload: &[u8], raw_len: usize) -> Result<Bytes, &'static str> {
        let pooled = self.decompressors.lock().pop();
        let make = || Decompressor::with_dictionary(&self.dictionary).ok();
        let mut decompressor = pooled.or_else(make).ok_or("no memory for a decompressor")?;
        let value = decompressor.decompress(payload, raw_len);
        return_to_pool(&self.decompressors, decompressor);
        match value {
            Ok(value) if value.len() == raw_len => Ok(Bytes::from(value)),
            _ => Err("it does not decompress"),
        }
    }
}

/// Returns the id of a dictionary: the upper half of its XXH3-64.
pub(crate) fn dictionary_id(dictionary: &[u8]) -> u32 {
    (xxh3_64(dictionary) >> 32) as u32
}

/// The parts of a delta's payload.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DeltaPayload<'a> {
    pub(crate) base: &'a [u8],
    /// Tag of the base's record; `None` for the older codec without tags.
    pub(crate) tag: Option<u32>,
    hash: &'a [u8],
    frame: &'a [u8],
}

/// Splits a delta's payload into its parts; `None` if it is too short.
pub(crate) fn parse_delta<'a>(header: &Header, payload: &'a [u8]) -> Option<DeltaPayload<'a>> {
    let (base, rest) = payload.split_at_checked(header.base_len())?;
    if header.codec == CodecId::UNTAGGED_DELTA {
        let (hash, frame) = rest.split_at_checked(size_of::<u64>())?;
        return Some(DeltaPayload { base, tag: None, hash, frame });
    }
    let (tag, rest) = rest.split_first_chunk::<BASE_TAG_BYTES>()?;
    let (hash, frame) = rest.split_at_checked(BASE_HASH_BYTES)?;
    Some(DeltaPayload { base, tag: Some(u32::from_le_bytes(*tag)), hash, frame })
}

fn checked_len(header: &Header, max: u32) -> Result<usize, &'static str> {
    if header.raw_len > max {
        return Err("its decompressed length exceeds the limit");
    }
    Ok(header.raw_len as usize)
}

fn return_to_pool<T>(pool: &Mutex<Vec<T>>, context: T) {
    let mut pool = pool.lock();
    if pool.len() < POOLED_CONTEXTS_MAX {
        pool.push(context);
    }
}
