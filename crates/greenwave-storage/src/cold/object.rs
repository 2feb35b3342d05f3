//! A cold tier in an object store: S3 and compatible services, Google Cloud Storage, Azure Blob
//! Storage, or a local directory. Each key is one object; the crate `object_store` handles the
//! services.
//!
//! The name of an object is the hexadecimal digits of the key's first 400 bytes (or another
//! configured number), split into path levels of two, two, and then up to 128 digits. For longer
//! keys, `/h` and the first half of the BLAKE3 hash of the whole key follow. A `z` ends the name,
//! so that no name is the directory of another. The object consists of these fields, with
//! little-endian integers:
//!
//! | offset | bytes | field |
//! | --- | --- | --- |
//! | 0 | 4 | magic and version, `47 57 4F 01` |
//! | 4 | 1 | codec: 0 raw, 1 one zstd frame |
//! | 5 | 3 | zero |
//! | 8 | 4 | key length |
//! | 12 | 4 | value length when decompressed |
//! | 16 | 16 | the first half of the BLAKE3 hash of bytes 0 to 16, the key and the payload |
//! | 32 | | key |
//! | | | payload |

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, parse_url_opts};
use parking_lot::Mutex;
use url::Url;
use zstd::bulk::{Compressor, Decompressor};

use super::{ColdEntry, ColdTier, SharedColdTier};
use crate::{BoxError, ColdTierStats, Error};

const MAGIC: [u8; 4] = *b"GWO\x01";
const HEADER_BYTES: usize = 32;
/// Number of digits of the hash in a name: 128 bits, enough to prevent collisions.
const HASH_DIGITS: usize = 32;
/// Maximum number of digits per path level. File systems limit names to 255 bytes.
const LEVEL_DIGITS_MAX: usize = 128;
const RAW: u8 = 0;
const ZSTD: u8 = 1;
/// Values from this size on take more than about 50 us to compress.
const BLOCKING_BYTES_MIN: usize = 16 << 10;
/// Two digits each of 400 bytes, and separators, fit into a name of 1024 bytes.
const NAMED_BYTES_MAX: usize = 400;
/// Shorter values are not compressed.
const COMPRESSED_BYTES_MIN: usize = 64;

/// Configuration of an [`ObjectColdTier`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ObjectOptions {
    /// Level of zstd compression, -7 to 22. A value is stored raw if compression saves less than 10
    /// %. `None` disables compression. Default: 3, because requests cost more than processor time.
    pub zstd_level: Option<i32>,
    /// Maximum number of concurrent requests per call, 1 or more. Default: 16.
    pub requests_max: usize,
    /// Number of key bytes in an object's name, two digits each, 1 to 400. The rest of a longer key
    /// is in the object, which listing then has to read. Always use the same value for a location.
    /// Default: 400, because services allow names of 1024 bytes; some S3-compatible servers allow
    /// fewer.
    pub named_bytes_max: usize,
    /// Maximum size of a value in bytes. Larger values are rejected on writing, and missing on
    /// reading. Default: 1 GiB.
    pub value_bytes_max: u32,
}

impl Default for ObjectOptions {
    fn default() -> Self {
        Self { zstd_level: Some(3), requests_max: 16, named_bytes_max: 400, value_bytes_max: 1 << 30 }
    }
}

/// A cold tier in an object store, based on the crate `object_store`.
///
/// Retries and timeouts are those of that crate's clients, and are configured through the service's
/// settings. Values are not stored as deltas, because every read would take several requests. A
/// write is durable when the service confirms it, which is when the call returns. In a local
/// directory files are not synced, so they survive the end of the process but not a power failure.
#[derive(Debug, Clone)]
pub struct ObjectColdTier {
    state: Arc<ObjectTierState>,
}

#[derive(Debug)]
struct ObjectTierState {
    store: Box<dyn ObjectStore>,
    /// Prefix of all object names.
    root: Path,
    options: ObjectOptions,
    contexts: Arc<ZstdContexts>,
}

/// Reusable compression contexts.
#[derive(Default)]
struct ZstdContexts {
    compressors: Mutex<Vec<Compressor<'static>>>,
    decompressors: Mutex<Vec<Decompressor<'static>>>,
}

impl std::fmt::Debug for ZstdContexts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ZstdContexts").finish_non_exhaustive()
    }
}

impl ObjectColdTier {
    /// Opens the location given by a URL: `s3://bucket/dir`, `gs://bucket/dir`,
    /// `az://container/dir`, `file:///dir` or `memory:///`.
    ///
    /// `settings` are the configuration keys of the builders in `object_store`, such as
    /// `aws_access_key_id` and `aws_endpoint`; unknown keys are ignored. Neither reads the
    /// environment nor contacts the service. Services are reached over TLS with the process's
    /// default provider of rustls; without one, ring becomes the default.
    ///
    /// # Errors
    ///
    /// Returns [`Error::InvalidOption`] if an option is out of range, and [`Error::ColdTier`] if
    /// the URL is invalid or needs a feature of this crate that is not enabled.
    pub fn open<K: AsRef<str>, V: Into<String>>(
        url: &str,
        settings: impl IntoIterator<Item = (K, V)>,
        options: ObjectOptions,
    ) -> Result<Self, Error> {
        options.check()?;
        let failed = |source: BoxError| Error::cold(format!("open {url}"))(source);
        let parsed = Url::parse(url).map_err(|error| failed(error.into()))?;
        #[cfg(feature = "object-https")]
        provide_cryptography();
        let (store, root) = parse_url_opts(&parsed, settings).map_err(|error| failed(error.into()))?;
        let contexts = Arc::default();
        Ok(Self { state: Arc::new(ObjectTierState { store, root, options, contexts }) })
    }
}

/// Makes ring the process's default implementation of TLS, unless another one is: the client of
/// object_store uses the default.
#[cfg(feature = "object-https")]
fn provide_cryptography() {
    // An error means that there is a default already.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

impl ObjectOptions {
    fn check(&self) -> Result<(), Error> {
        let refuse = |option, value: String, expected| Err(Error::InvalidOption { option, value, expected });
        if let Some(level) = self.zstd_level
            && !(-7..=22).contains(&level)
        {
            return refuse("zstd_level", level.to_string(), "-7 to 22");
        }
        if self.requests_max == 0 {
            return refuse("requests_max", "0".to_owned(), "1 or more");
        }
        if !(1..=NAMED_BYTES_MAX).contains(&self.named_bytes_max) {
            return refuse("named_bytes_max", self.named_bytes_max.to_string(), "1 to 400");
        }
        Ok(())
    }
}

impl ObjectTierState {
    fn path(&self, key: &[u8]) -> Path {
        let name = object_name(key, self.options.named_bytes_max);
        name.split('/').fold(self.root.clone(), Path::join)
    }

    async fn get(&self, key: &[u8]) -> Result<Option<Bytes>, BoxError> {
        match self.store.get(&self.path(key)).await {
            Ok(found) => self.decode(key, found.bytes().await?).await,
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Decodes the value in an object, if the object is intact and belongs to this key.
    async fn decode(&self, key: &[u8], object: Bytes) -> Result<Option<Bytes>, BoxError> {
        let (key, contexts) = (key.to_vec(), self.contexts.clone());
        let (value_bytes_max, object_len) = (self.options.value_bytes_max, object.len());
        let decode = move || contexts.value_of(&key, &object, value_bytes_max);
        run_blocking_if_large(object_len, decode).await
    }

    async fn put(&self, entry: &ColdEntry) -> Result<(), BoxError> {
        let ColdEntry { key, value, .. } = entry.clone();
        let ObjectOptions { zstd_level, value_bytes_max, .. } = self.options;
        if value.len() > value_bytes_max as usize {
            return Err(
                format!("value of {} bytes exceeds the limit of {value_bytes_max}", value.len()).into()
            );
        }
        let (path, contexts) = (self.path(&key), self.contexts.clone());
        let object = run_blocking_if_large(value.len(), move || {
            match zstd_level.and_then(|level| contexts.compress(level, &value)) {
                Some(packed) => encode_object(ZSTD, &key, value.len(), &packed),
                None => encode_object(RAW, &key, value.len(), &value),
            }
        });
        self.store.put(&path, object.await?.into()).await?;
        Ok(())
    }

    async fn remove(&self, key: &[u8]) -> Result<(), BoxError> {
        match self.store.delete(&self.path(key)).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    async fn contains(&self, key: &[u8]) -> Result<bool, BoxError> {
        match self.store.head(&self.path(key)).await {
            Ok(_) => Ok(true),
            Err(object_store::Error::NotFound { .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Returns the key of an object, from its name or, for a long key, from the object itself.
    /// Returns `None` if the object was not written by this tier.
    async fn key_of(&self, path: &Path) -> Result<Option<Bytes>, BoxError> {
        let name: String = path
            .prefix_match(&self.root)
            .into_iter()
            .flatten()
            .map(|level| String::from(level.as_ref()))
            .collect();
        if !name.contains('h') {
            return Ok(unhex(&name));
        }
        let object = match self.store.get(path).await {
            Ok(found) => found.bytes().await?,
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let key_len = object.get(8..12).and_then(|len| Some(u32::from_le_bytes(len.try_into().ok()?)));
        let key = key_len.and_then(|len| object.get(HEADER_BYTES..)?.get(..len as usize));
        Ok(key.filter(|key| self.path(key) == *path).map(Bytes::copy_from_slice))
    }

    /// Runs requests concurrently, up to the configured number, and returns the results in order.
    async fn run_all<R: Send>(
        &self,
        requests: Vec<impl Future<Output = Result<R, BoxError>> + Send>,
    ) -> Result<Vec<R>, BoxError> {
        stream::iter(requests).buffered(self.options.requests_max).try_collect().await
    }
}

impl ZstdContexts {
    /// Returns the compressed value if compression saves at least a tenth.
    fn compress(&self, level: i32, value: &[u8]) -> Option<Vec<u8>> {
        if value.len() < COMPRESSED_BYTES_MIN {
            return None;
        }
        let pooled = self.compressors.lock().pop();
        let mut compressor = pooled.or_else(|| Compressor::new(level).ok())?;
        let mut packed = vec![0; value.len() / 10 * 9];
        let len = compressor.compress_to_buffer(value, &mut packed).ok();
        self.compressors.lock().push(compressor);
        packed.truncate(len?);
        Some(packed)
    }

    /// Returns the value in an object, if the object is intact and belongs to this key.
    fn value_of(&self, key: &[u8], object: &Bytes, value_bytes_max: u32) -> Option<Bytes> {
        let (codec, raw_len, payload) =
            decode_object(key, object).filter(|(_, len, _)| *len <= value_bytes_max)?;
        match codec {
            RAW => Some(payload).filter(|payload| payload.len() == raw_len as usize),
            ZSTD => self.decompress(&payload, raw_len as usize),
            _ => None,
        }
    }

    fn decompress(&self, payload: &[u8], raw_len: usize) -> Option<Bytes> {
        let pooled = self.decompressors.lock().pop();
        let mut decompressor = pooled.or_else(|| Decompressor::new().ok())?;
        let value = decompressor.decompress(payload, raw_len).ok();
        self.decompressors.lock().push(decompressor);
        value.filter(|value| value.len() == raw_len).map(Bytes::from)
    }
}

/// Runs work on the blocking pool if it handles a large value.
async fn run_blocking_if_large<T: Send + 'static>(
    bytes: usize,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, BoxError> {
    if bytes < BLOCKING_BYTES_MIN {
        return Ok(work());
    }
    Ok(tokio::task::spawn_blocking(work).await.map_err(|_| Error::Shutdown)?)
}

/// Encodes an object.
fn encode_object(codec: u8, key: &[u8], raw_len: usize, payload: &[u8]) -> Bytes {
    let number = |len: usize| u32::try_from(len).expect("checked against the limits").to_le_bytes();
    let mut object = Vec::with_capacity(HEADER_BYTES + key.len() + payload.len());
    object.extend_from_slice(&MAGIC);
    object.extend_from_slice(&[codec, 0, 0, 0]);
    object.extend_from_slice(&number(key.len()));
    object.extend_from_slice(&number(raw_len));
    let hash = hash(&object, key, payload);
    object.extend_from_slice(&hash);
    object.extend_from_slice(key);
    object.extend_from_slice(payload);
    object.into()
}

/// Returns the codec, value length and payload of an object, if it is intact and belongs to this
/// key.
fn decode_object(key: &[u8], object: &Bytes) -> Option<(u8, u32, Bytes)> {
    let (head, rest) = object.split_at_checked(HEADER_BYTES)?;
    let payload = rest.strip_prefix(key)?;
    let len = |at: usize| Some(u32::from_le_bytes(head.get(at..at + 4)?.try_into().ok()?));
    let is_intact =
        head[..4] == MAGIC && len(8)? as usize == key.len() && head[16..] == hash(&head[..16], key, payload);
    is_intact.then_some((head[4], len(12)?, object.slice_ref(payload)))
}

/// Decodes arbitrary bytes as an object, and as the fields of an object with a valid hash. Checks
/// that a decoded value can be encoded and decoded again.
#[cfg(feature = "conformance")]
pub(crate) fn check_object(bytes: &[u8]) {
    const VALUE_BYTES_MAX: u32 = 1 << 20;
    let key = b"key";
    let contexts = ZstdContexts::default();
    let mut objects = vec![Bytes::copy_from_slice(bytes)];
    if let Some(([codec, len @ ..], payload)) = bytes.split_first_chunk::<5>() {
        let head = [&MAGIC[..], &[*codec, 0, 0, 0], &3_u32.to_le_bytes(), len].concat();
        let hash = hash(&head, key, payload);
        objects.push([&head[..], &hash, key, payload].concat().into());
    }
    for object in objects {
        let Some(value) = contexts.value_of(key, &object, VALUE_BYTES_MAX) else { continue };
        assert!(value.len() <= VALUE_BYTES_MAX as usize, "{} bytes", value.len());
        let again = encode_object(RAW, key, value.len(), &value);
        assert_eq!(contexts.value_of(key, &again, VALUE_BYTES_MAX), Some(value));
        assert_eq!(contexts.value_of(b"another key", &again, VALUE_BYTES_MAX), None);
    }
}

fn hash(head: &[u8], key: &[u8], payload: &[u8]) -> [u8; 16] {
    let hash = blake3::Hasher::new().update(head).update(key).update(payload).finalize();
    *hash.as_bytes().first_chunk().expect("a hash is 32 bytes long")
}

/// Returns the name of a key's object.
fn object_name(key: &[u8], named_bytes_max: usize) -> String {
    let mut name = path_levels(key.get(..named_bytes_max).unwrap_or(key));
    if key.len() > named_bytes_max {
        name.extend(["/h", &blake3::hash(key).to_hex()[..HASH_DIGITS]]);
    }
    name.push('z');
    name
}

/// Splits the digits of a key into path levels. Levels are not empty, except for an empty key.
fn path_levels(key: &[u8]) -> String {
    let digits: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
    let (kind, rest) = digits.split_at(digits.len().min(2));
    let (spread, rest) = rest.split_at(rest.len().min(2));
    let mut levels = kind.to_owned();
    if !spread.is_empty() {
        levels.extend(["/", spread]);
    }
    for chunk in rest.as_bytes().chunks(LEVEL_DIGITS_MAX) {
        levels.push('/');
        levels.push_str(std::str::from_utf8(chunk).expect("digits are ASCII"));
    }
    levels
}

/// Returns the directory of all objects whose keys have a prefix. It may contain other objects.
fn prefix_dir(root: &Path, prefix: &[u8], named_bytes_max: usize) -> Path {
    let levels = path_levels(prefix.get(..named_bytes_max).unwrap_or(prefix));
    // Uses complete levels only. In longer keys, the last level can continue.
    let complete = levels.rsplit_once('/').map_or("", |(complete, _)| complete);
    complete.split('/').filter(|level| !level.is_empty()).fold(root.clone(), Path::join)
}

fn unhex(name: &str) -> Option<Bytes> {
    let (pairs, rest) = name.strip_suffix('z')?.as_bytes().as_chunks::<2>();
    let digit = |digit: u8| char::from(digit).to_digit(16).filter(|_| !digit.is_ascii_uppercase());
    let byte =
        |pair: &[u8; 2]| Some(u8::try_from(digit(pair[0])? * 16 + digit(pair[1])?).expect("two digits"));
    rest.is_empty().then(|| pairs.iter().map(byte).collect())?
}

/// Splits entries into runs of keys of one kind (by their first byte), with only the last entry per
/// key. The entries of a run may be written in any order.
fn split_into_runs(entries: Vec<ColdEntry>) -> Vec<Vec<ColdEntry>> {
    let mut runs: Vec<Vec<ColdEntry>> = Vec::new();
    for entry in entries {
        match runs.last_mut() {
            Some(run) if run[0].key.first() == entry.key.first() => {
                run.retain(|earlier| earlier.key != entry.key);
                run.push(entry);
            }
            _ => runs.push(vec![entry]),
        }
    }
    runs
}

#[async_trait]
impl ColdTier for ObjectColdTier {
    async fn get(&self, key: &[u8]) -> Result<Option<Bytes>, BoxError> {
        self.state.get(key).await
    }

    async fn get_many(&self, keys: Vec<Bytes>) -> Result<Vec<Option<Bytes>>, BoxError> {
        self.state.run_all(keys.iter().map(|key| self.state.get(key)).collect()).await
    }

    async fn contains_many(&self, keys: Vec<Bytes>) -> Result<Vec<bool>, BoxError> {
        self.state.run_all(keys.iter().map(|key| self.state.contains(key)).collect()).await
    }

    fn value_bytes_max(&self) -> Option<u64> {
        Some(self.state.options.value_bytes_max.into())
    }

    fn shared(&self) -> Option<&dyn SharedColdTier> {
        None
    }

    async fn put_many(&self, entries: Vec<ColdEntry>) -> Result<(), BoxError> {
        // Writes names after the contents that they refer to.
        for run in split_into_runs(entries) {
            self.state.run_all(run.iter().map(|entry| self.state.put(entry)).collect()).await?;
        }
        Ok(())
    }

    async fn remove_many(&self, keys: Vec<Bytes>) -> Result<(), BoxError> {
        self.state.run_all(keys.iter().map(|key| self.state.remove(key)).collect()).await?;
        Ok(())
    }

    async fn list(&self, prefix: &[u8]) -> Result<Vec<Bytes>, BoxError> {
        let dir = prefix_dir(&self.state.root, prefix, self.state.options.named_bytes_max);
        let listed = self.state.store.list((!dir.as_ref().is_empty()).then_some(&dir));
        let paths: Vec<Path> = listed.map_ok(|found| found.location).try_collect().await?;
        let keys = self.state.run_all(paths.iter().map(|path| self.state.key_of(path)).collect()).await?;
        Ok(keys.into_iter().flatten().filter(|key| key.starts_with(prefix)).collect())
    }

    async fn flush(&self) -> Result<(), BoxError> {
        // The service confirms a write only once it is durable.
        Ok(())
    }

    async fn close(&self) -> Result<(), BoxError> {
        Ok(())
    }

    fn stats(&self) -> ColdTierStats {
        let codec = self.state.options.zstd_level.map_or("none".to_owned(), |level| format!("zstd {level}"));
        ColdTierStats { codec, ..ColdTierStats::default() }
    }
}
