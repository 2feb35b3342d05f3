//! A backend in an object store: S3 and compatible services, Google Cloud Storage, Azure Blob
//! Storage, or a directory that machines share.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, parse_url_opts};
use url::Url;

use super::remote::{CallFailure, CircuitBreaker, RemoteOptions};
use super::{Backend, Capabilities};
use crate::{BoxError, Error, Key};

/// Maximum size of a value.
const VALUE_BYTES_MAX: u64 = 64 << 20;
/// Maximum number of concurrent requests of a call.
const REQUESTS_MAX: usize = 32;

/// Stores each result as one object, at a location that many machines can share.
///
/// The crate `object_store` handles the services. The name of an object is the
/// [prefix](RemoteOptions::prefix) without its colons, and the 64 digits of the key after a level
/// of the first two. A write replaces an object as a whole. In a local directory, a file is written
/// under another name and then renamed; it is not synced, so it may be lost with the power.
///
/// Objects do not expire: set a rule for their age in the service. [`RemoteOptions::timeout`]
/// limits each request, with the retries that `object_store` makes. A location that cannot be
/// reached costs one timeout, after which calls fail immediately for some time.
#[derive(Debug, Clone)]
pub struct ObjectBackend {
    state: Arc<ObjectState>,
}

#[derive(Debug)]
struct ObjectState {
    store: Box<dyn ObjectStore>,
    /// Prefix of all names.
    root: Path,
    breaker: CircuitBreaker,
    /// Whether an object that the service has confirmed survives a crash.
    is_durable: bool,
}

impl ObjectBackend {
    /// Opens the location given by a URL: `s3://bucket/dir`, `gs://bucket/dir`,
    /// `az://container/dir`, `file:///dir` or `memory:///`.
    ///
    /// `settings` are the configuration keys of the builders in `object_store`, such as
    /// `aws_access_key_id` and `aws_endpoint`, in any case; unknown keys are ignored. Neither reads
    /// the environment nor contacts the service. Services are reached over TLS with the
    /// process's default provider of rustls; without one, ring becomes the default.
    ///
    /// # Errors
    ///
    /// Returns [`Error::InvalidOption`] if an option is out of range, and [`Error::Backend`] if the
    /// URL is invalid or needs a feature of this crate that is not enabled.
    pub fn open<K: AsRef<str>, V: Into<String>>(
        url: &str,
        settings: impl IntoIterator<Item = (K, V)>,
        options: &RemoteOptions,
    ) -> Result<Self, Error> {
        options.check()?;
        let failed = |source: BoxError| Error::backend("open the object store".to_owned())(source);
        let parsed = Url::parse(url).map_err(|error| failed(error.into()))?;
        let settings = settings.into_iter().map(|(name, value)| (name.as_ref().to_lowercase(), value));
        #[cfg(feature = "object-https")]
        provide_cryptography();
        let (store, location) = parse_url_opts(&parsed, settings).map_err(|error| failed(error.into()))?;
        let root = options.prefix.split(['/', ':']).filter(|level| !level.is_empty());
        let scheme = parsed.scheme();
        let state = ObjectState {
            store,
            root: root.fold(location, Path::join),
            breaker: CircuitBreaker::new(format!("{scheme} object store"), options),
            is_durable: !matches!(scheme, "file" | "memory"),
        };
        Ok(Self { state: Arc::new(state) })
    }
}

/// Makes ring the process's default implementation of TLS, unless another one is: the client of
/// object_store uses the default.
#[cfg(feature = "object-https")]
fn provide_cryptography() {
    // An error means that there is a default already.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

impl ObjectState {
    fn path(&self, key: &Key) -> Path {
        let digits = key.to_string();
        let (spread, rest) = digits.split_at(2);
        self.root.clone().join(spread).join(rest)
    }

    /// Returns the key of an object. `None` if no backend has written it.
    fn key_of(&self, path: &Path) -> Option<Key> {
        let digits: String = path.prefix_match(&self.root)?.map(|level| level.as_ref().to_owned()).collect();
        let key = digits.parse().ok()?;
        Some(key).filter(|key| self.path(key) == *path)
    }

    async fn get(&self, key: &Key) -> Result<Option<Bytes>, BoxError> {
        let path = self.path(key);
        let read = async {
            match self.store.get(&path).await {
                Ok(found) if found.meta.size > VALUE_BYTES_MAX => Ok(None),
                Ok(found) => within_limit(found.into_stream()).await,
                Err(object_store::Error::NotFound { .. }) => Ok(None),
                Err(error) => Err(failure(error)),
            }
        };
        self.breaker.call("get", read).await
    }
}

/// Reads a value. Returns `None` if it exceeds the limit, whatever length the service announced.
async fn within_limit(
    mut chunks: stream::BoxStream<'static, object_store::Result<Bytes>>,
) -> Result<Option<Bytes>, CallFailure> {
    let mut value = BytesMut::new();
    while let Some(chunk) = chunks.try_next().await.map_err(failure)? {
        if (value.len() + chunk.len()) as u64 > VALUE_BYTES_MAX {
            return Ok(None);
        }
        value.extend_from_slice(&chunk);
    }
    Ok(Some(value.freeze()))
}

/// Classifies an error. After a rejected request, other requests can succeed.
fn failure(error: object_store::Error) -> CallFailure {
    match error {
        object_store::Error::InvalidPath { .. }
        | object_store::Error::AlreadyExists { .. }
        | object_store::Error::Precondition { .. }
        | object_store::Error::NotModified { .. } => CallFailure::Rejected(error.into()),
        _ => CallFailure::Disconnected(error.into()),
    }
}

#[async_trait]
impl Backend for ObjectBackend {
    async fn get(&self, key: &Key) -> Result<Option<Bytes>, BoxError> {
        self.state.get(key).await
    }

    async fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Bytes>>, BoxError> {
        let requests: Vec<_> = keys.iter().map(|key| self.state.get(key)).collect();
        stream::iter(requests).buffered(REQUESTS_MAX).try_collect().await
    }

    async fn put(&self, key: &Key, value: Bytes, ttl: Option<Duration>) -> Result<(), BoxError> {
        if ttl.is_some_and(|ttl| ttl.is_zero()) {
            return self.remove(key).await;
        }
        if value.len() as u64 > VALUE_BYTES_MAX {
            self.remove(key).await?;
            let problem = format!("value of {} bytes exceeds the limit of {VALUE_BYTES_MAX}", value.len());
            return Err(problem.into());
        }
        let path = self.state.path(key);
        let write = async { self.state.store.put(&path, value.into()).await.map_err(failure) };
        self.state.breaker.call("put", write).await.map(drop)
    }

    async fn remove(&self, key: &Key) -> Result<(), BoxError> {
        let path = self.state.path(key);
        let remove = async {
            match self.state.store.delete(&path).await {
                Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
                Err(error) => Err(failure(error)),
            }
        };
        self.state.breaker.call("remove", remove).await
    }

    async fn list(&self) -> Result<Vec<Key>, BoxError> {
        let root = Some(&self.state.root).filter(|root| !root.as_ref().is_empty());
        let objects = self.state.store.list(root);
        let keys =
            objects.try_filter_map(|object| std::future::ready(Ok(self.state.key_of(&object.location))));
        Ok(keys.try_collect().await?)
    }

    async fn flush(&self) -> Result<(), BoxError> {
        // The service has confirmed every write.
        Ok(())
    }

    async fn close(&self) -> Result<(), BoxError> {
        Ok(())
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            list: true,
            ttl: false,
            shared: true,
            durable: self.state.is_durable,
            value_bytes_max: Some(VALUE_BYTES_MAX),
        }
    }
}
