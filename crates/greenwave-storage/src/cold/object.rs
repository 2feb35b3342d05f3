//! A cold tier in an object store: S3 and what speaks its language, Google Cloud Storage, Azure Blob Storage, a local folder. One object a
//! key. Knows nothing of any provider: that is `object_store`'s.
//!
//! A key's object is named by the hexadecimal digits of the key's first 400 bytes, or another number that is chosen, two, two and then up to
//! 128 to a level; of longer keys `/h` and the first half of the BLAKE3 hash of the whole key follow. A `z` ends the name, so that none is the
//! folder of another. The object is, integers little-endian:
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
/// Digits of a hash in a name: 128 bits, which nobody brings to collide.
const HASH_DIGITS: usize = 32;
/// Digits to a level: file systems take names of 255 bytes.
const LEVEL_DIGITS_MAX: usize = 128;
const RAW: u8 = 0;
const ZSTD: u8 = 1;
/// Values from this size on take more than some 50 us to compress.
const APART_BYTES_MIN: usize = 16 << 10;
/// Values shorter than this are not worth a try.
const COMPRESSED_BYTES_MIN: usize = 64;

/// How an [`ObjectColdTier`] keeps contents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ObjectOptions {
    /// The level of zstd that is tried on each value, -7 to 22, which is stored raw when that gains under 10 %. `None` for no compression.
    /// Default 3: requests cost more than processors do.
    pub zstd_level: Option<i32>,
    /// Requests under way at once for one call; 1 or more, default 16.
    pub requests_max: usize,
    /// Bytes of a key that its object's name holds, two digits each, 1 to 400; the rest of a longer one is in the object, which listing then
    /// has to read. Default 400, since the services take names of 1024 bytes; some servers that speak S3's language take fewer. Always the
    /// same for one place.
    pub named_bytes_max: usize,
    /// Largest value in bytes, default 1 GiB. A larger one is refused, and one that is found is missing.
    pub value_bytes_max: u32,
}

impl Default for ObjectOptions {
    fn default() -> Self {
        Self { zstd_level: Some(3), requests_max: 16, named_bytes_max: 400, value_bytes_max: 1 << 30 }
    }
}

/// Keeps contents in an object store, on the crate `object_store`.
///
/// Retries and time limits are those of that crate's clients, set as the service's settings are. Values are not stored as differences: every
/// read would be several requests. What a call wrote is durable when the service says so, which is when the call returns; a local folder is
/// not synced, so it survives the end of the process and not a power cut.
#[derive(Debug, Clone)]
pub struct ObjectColdTier {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    store: Box<dyn ObjectStore>,
    /// What all objects' names begin with.
    root: Path,
    options: ObjectOptions,
    contexts: Arc<Contexts>,
}

/// Contexts that are used again.
#[derive(Default)]
struct Contexts {
    compressors: Mutex<Vec<Compressor<'static>>>,
    decompressors: Mutex<Vec<Decompressor<'static>>>,
}

impl std::fmt::Debug for Contexts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Contexts").finish_non_exhaustive()
    }
}

impl ObjectColdTier {
    /// Opens the place that a URL names: `s3://bucket/folder`, `gs://bucket/folder`, `az://container/folder`, `file:///folder`,
    /// `memory:///`. Settings are those of `object_store`, `aws_access_key_id` and `aws_endpoint` say, as its builders' documentation lists
    /// them; unknown ones are ignored by it. Nothing is read from the environment, and nothing asked of the service yet.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidOption`]; [`Error::ColdTier`] if the URL is none, or a feature of this crate is missing for it.
    pub fn open<K: AsRef<str>, V: Into<String>>(
        url: &str,
        settings: impl IntoIterator<Item = (K, V)>,
        options: ObjectOptions,
    ) -> Result<Self, Error> {
        options.check()?;
        let failed = |source: BoxError| Error::cold(format!("open {url}"))(source);
        let parsed = Url::parse(url).map_err(|error| failed(error.into()))?;
        let (store, root) = parse_url_opts(&parsed, settings).map_err(|error| failed(error.into()))?;
        let contexts = Arc::default();
        Ok(Self { inner: Arc::new(Inner { store, root, options, contexts }) })
    }
}

impl ObjectOptions {
    fn check(&self) -> Result<(), Error> {
        if let Some(level) = self.zstd_level
            && !(-7..=22).contains(&level)
        {
            return Err(Error::InvalidOption {
                option: "zstd_level",
                value: level.to_string(),
                expected: "-7 to 22",
            });
        }
        if self.requests_max == 0 {
            return Err(Error::InvalidOption {
                option: "requests_max",
                value: "0".to_owned(),
                expected: "1 or more",
            });
        }
        Ok(())
    }
}

impl Inner {
    fn path(&self, key: &[u8]) -> Path {
        let name = name(key, self.options.named_bytes_max);
        name.split('/').fold(self.root.clone(), Path::join)
    }

    async fn get(&self, key: &[u8]) -> Result<Option<Bytes>, BoxError> {
        match self.store.get(&self.path(key)).await {
            Ok(found) => self.decoded(key, found.bytes().await?).await,
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// The value in an object, if that is whole and this key's.
    async fn decoded(&self, key: &[u8], object: Bytes) -> Result<Option<Bytes>, BoxError> {
        let (key, contexts) = (key.to_vec(), self.contexts.clone());
        let value_bytes_max = self.options.value_bytes_max;
        apart(object.len(), move || {
            let (codec, raw_len, payload) =
                opened(&key, &object).filter(|(_, len, _)| *len <= value_bytes_max)?;
            match codec {
                RAW => Some(payload).filter(|payload| payload.len() == raw_len as usize),
                ZSTD => contexts.decompress(&payload, raw_len as usize),
                _ => None,
            }
        })
        .await
    }

    async fn put(&self, entry: &ColdEntry) -> Result<(), BoxError> {
        let ColdEntry { key, value, .. } = entry.clone();
        let ObjectOptions { zstd_level, value_bytes_max, .. } = self.options;
        if value.len() > value_bytes_max as usize {
            return Err(
                format!("a value of {} bytes, where {value_bytes_max} are allowed", value.len()).into()
            );
        }
        let (path, contexts) = (self.path(&key), self.contexts.clone());
        let object =
            apart(value.len(), move || match zstd_level.and_then(|level| contexts.compress(level, &value)) {
                Some(packed) => sealed(ZSTD, &key, value.len(), &packed),
                None => sealed(RAW, &key, value.len(), &value),
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

    /// The key of an object: in its name, or if that is too long in the object itself. `None` if it is none of ours.
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

    /// Has requests under way, several at once, with the results in their order.
    async fn each<R: Send>(
        &self,
        requests: Vec<impl Future<Output = Result<R, BoxError>> + Send>,
    ) -> Result<Vec<R>, BoxError> {
        stream::iter(requests).buffered(self.options.requests_max).try_collect().await
    }
}

impl Contexts {
    /// The value compressed, if that gains a tenth.
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

    fn decompress(&self, payload: &[u8], raw_len: usize) -> Option<Bytes> {
        let pooled = self.decompressors.lock().pop();
        let mut decompressor = pooled.or_else(|| Decompressor::new().ok())?;
        let value = decompressor.decompress(payload, raw_len).ok();
        self.decompressors.lock().push(decompressor);
        value.filter(|value| value.len() == raw_len).map(Bytes::from)
    }
}

/// Does what takes long for large values off the async threads.
async fn apart<T: Send + 'static>(
    bytes: usize,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, BoxError> {
    if bytes < APART_BYTES_MIN {
        return Ok(work());
    }
    Ok(tokio::task::spawn_blocking(work).await.map_err(|_| Error::Shutdown)?)
}

/// An object's bytes.
fn sealed(codec: u8, key: &[u8], raw_len: usize, payload: &[u8]) -> Bytes {
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

/// Codec, length and payload in an object, if it is whole and this key's.
fn opened(key: &[u8], object: &Bytes) -> Option<(u8, u32, Bytes)> {
    let (head, rest) = object.split_at_checked(HEADER_BYTES)?;
    let payload = rest.strip_prefix(key)?;
    let len = |at: usize| Some(u32::from_le_bytes(head.get(at..at + 4)?.try_into().ok()?));
    let whole =
        head[..4] == MAGIC && len(8)? as usize == key.len() && head[16..] == hash(&head[..16], key, payload);
    whole.then_some((head[4], len(12)?, object.slice_ref(payload)))
}

fn hash(head: &[u8], key: &[u8], payload: &[u8]) -> [u8; 16] {
    let hash = blake3::Hasher::new().update(head).update(key).update(payload).finalize();
    *hash.as_bytes().first_chunk().expect("a hash is 32 bytes long")
}

/// An object's name.
fn name(key: &[u8], named_bytes_max: usize) -> String {
    let mut name = levels(key.get(..named_bytes_max).unwrap_or(key));
    if key.len() > named_bytes_max {
        name.extend(["/h", &blake3::hash(key).to_hex()[..HASH_DIGITS]]);
    }
    name.push('z');
    name
}

/// Digits in levels, none of which is empty but the only one of an empty key.
fn levels(key: &[u8]) -> String {
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

/// The folder that holds the objects of all keys with a prefix, and of some others.
fn folder(root: &Path, prefix: &[u8], named_bytes_max: usize) -> Path {
    let levels = levels(prefix.get(..named_bytes_max).unwrap_or(prefix));
    // Only levels that longer keys fill in the same way: the last one may go on.
    let whole = levels.rsplit_once('/').map_or("", |(whole, _)| whole);
    whole.split('/').filter(|level| !level.is_empty()).fold(root.clone(), Path::join)
}

fn unhex(name: &str) -> Option<Bytes> {
    let (pairs, rest) = name.strip_suffix('z')?.as_bytes().as_chunks::<2>();
    let digit = |digit: u8| char::from(digit).to_digit(16).filter(|_| !digit.is_ascii_uppercase());
    let byte =
        |pair: &[u8; 2]| Some(u8::try_from(digit(pair[0])? * 16 + digit(pair[1])?).expect("two digits"));
    rest.is_empty().then(|| pairs.iter().map(byte).collect())?
}

/// Runs of entries whose keys are of one kind (their first byte), of entries with the same key the last only: each may be written in any order.
fn runs(entries: Vec<ColdEntry>) -> Vec<Vec<ColdEntry>> {
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
        self.inner.get(key).await
    }

    async fn get_many(&self, keys: Vec<Bytes>) -> Result<Vec<Option<Bytes>>, BoxError> {
        self.inner.each(keys.iter().map(|key| self.inner.get(key)).collect()).await
    }

    async fn contains_many(&self, keys: Vec<Bytes>) -> Result<Vec<bool>, BoxError> {
        self.inner.each(keys.iter().map(|key| self.inner.contains(key)).collect()).await
    }

    fn value_bytes_max(&self) -> Option<u64> {
        Some(self.inner.options.value_bytes_max.into())
    }

    fn shared(&self) -> Option<&dyn SharedColdTier> {
        None
    }

    async fn put_many(&self, entries: Vec<ColdEntry>) -> Result<(), BoxError> {
        // What leads to others, the names, is written when these are there.
        for run in runs(entries) {
            self.inner.each(run.iter().map(|entry| self.inner.put(entry)).collect()).await?;
        }
        Ok(())
    }

    async fn remove_many(&self, keys: Vec<Bytes>) -> Result<(), BoxError> {
        self.inner.each(keys.iter().map(|key| self.inner.remove(key)).collect()).await?;
        Ok(())
    }

    async fn list(&self, prefix: &[u8]) -> Result<Vec<Bytes>, BoxError> {
        let folder = folder(&self.inner.root, prefix, self.inner.options.named_bytes_max);
        let listed = self.inner.store.list((!folder.as_ref().is_empty()).then_some(&folder));
        let paths: Vec<Path> = listed.map_ok(|found| found.location).try_collect().await?;
        let keys = self.inner.each(paths.iter().map(|path| self.inner.key_of(path)).collect()).await?;
        Ok(keys.into_iter().flatten().filter(|key| key.starts_with(prefix)).collect())
    }

    async fn flush(&self) -> Result<(), BoxError> {
        // The service had it when it answered.
        Ok(())
    }

    async fn close(&self) -> Result<(), BoxError> {
        Ok(())
    }

    fn stats(&self) -> ColdTierStats {
        let codec = self.inner.options.zstd_level.map_or("none".to_owned(), |level| format!("zstd {level}"));
        ColdTierStats { codec, ..ColdTierStats::default() }
    }
}
