//! A cache backend in the action cache of a server.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use greenwave_cache::{Backend, BoxError, Capabilities, Key};
use tonic::Code;

use crate::{ActionResult, Client, Digest, Error, OutputFile};

/// Maximum size of a value.
const VALUE_BYTES_MAX: u64 = 64 << 20;
/// Maximum total size of the values of a call; further keys count as missing.
const ANSWER_BYTES_MAX: u64 = 4 * VALUE_BYTES_MAX;
/// Size in the digest of an action. The protocol names actions by hash and size, and a key has no
/// size.
const ACTION_BYTES: u64 = 64;
/// Path of the output file with the value.
const VALUE: &str = "value";
/// Name of the worker in results. A result without any content would be no message at all.
const WORKER: &str = "greenwave";

/// Stores each value as the result of an action on a server of the Remote Execution API: the key is
/// the digest of the action, and the value is its only output file, in content-addressed storage.
///
/// A value whose blob the server has dropped, or that does not match its digest, is missing. Since
/// the protocol cannot remove results, a removed key has a result without the file. Values do not
/// expire and keys cannot be listed: the server drops values that were not used for long. A server
/// that accepts no results is only read, with one warning.
#[derive(Debug, Clone)]
pub struct ActionCacheBackend {
    client: Client,
    is_read_only: Arc<AtomicBool>,
}

impl ActionCacheBackend {
    /// Creates a backend on the client's server. Does not connect yet.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self { client, is_read_only: Arc::default() }
    }

    /// Stores a result, unless the server accepts none.
    async fn update(&self, key: &Key, value: Option<Bytes>) -> Result<(), Error> {
        // Relaxed: the flag guards no other memory.
        if self.is_read_only.load(Ordering::Relaxed) {
            return Ok(());
        }
        if !self.client.capabilities().await?.accepts_results {
            self.note_read_only("it says so in its capabilities");
            return Ok(());
        }
        match self.store(key, value).await {
            Err(Error::Call { source, .. })
                if source.is(Code::PermissionDenied) || source.is(Code::Unimplemented) =>
            {
                self.note_read_only(&source.to_string());
                Ok(())
            }
            result => result,
        }
    }

    async fn store(&self, key: &Key, value: Option<Bytes>) -> Result<(), Error> {
        let mut result = ActionResult { worker: WORKER.to_owned(), ..ActionResult::default() };
        if let Some(value) = value {
            let digest = Digest::of(&value);
            self.client.upload(&[value]).await?;
            result.output_files.push(OutputFile { path: VALUE.to_owned(), digest, content: None });
        }
        self.client.update_action_result(&action(key), &result).await
    }

    fn note_read_only(&self, reason: &str) {
        if !self.is_read_only.swap(true, Ordering::Relaxed) {
            let server = self.client.server();
            tracing::warn!(server, reason, "the server accepts no results: it is only read");
        }
    }
}

/// Returns the digest of the action whose result is the value of a key.
fn action(key: &Key) -> Digest {
    Digest { hash: *key.as_bytes(), bytes: ACTION_BYTES }
}

/// Returns the file with the value.
fn value_of(result: ActionResult) -> Option<OutputFile> {
    let is_value = |file: &OutputFile| file.path == VALUE && file.digest.bytes <= VALUE_BYTES_MAX;
    result.output_files.into_iter().find(is_value)
}

/// Converts an error. The cache counts skipped calls apart from failures.
fn boxed(error: Error) -> BoxError {
    match error {
        Error::Unavailable { server, retry_in } => {
            greenwave_cache::Error::Unavailable { server, retry_in }.into()
        }
        error => error.into(),
    }
}

#[async_trait]
impl Backend for ActionCacheBackend {
    async fn get(&self, key: &Key) -> Result<Option<Bytes>, BoxError> {
        Ok(self.get_many(std::slice::from_ref(key)).await?.pop().flatten())
    }

    async fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Bytes>>, BoxError> {
        let actions: Vec<Digest> = keys.iter().map(action).collect();
        let results = self.client.action_results(&actions, &[VALUE]).await.map_err(boxed)?;
        let files: Vec<Option<OutputFile>> =
            results.into_iter().map(|result| result.and_then(value_of)).collect();
        let is_fetched = |file: &&OutputFile| file.content.is_none();
        let wanted: Vec<Digest> = files.iter().flatten().filter(is_fetched).map(|file| file.digest).collect();
        let mut fetched = self.client.download(&wanted, ANSWER_BYTES_MAX).await.map_err(boxed)?.into_iter();
        let mut value = |file: OutputFile| file.content.or_else(|| fetched.next().flatten());
        Ok(files.into_iter().map(|file| file.and_then(&mut value)).collect())
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
        self.update(key, Some(value)).await.map_err(boxed)
    }

    async fn remove(&self, key: &Key) -> Result<(), BoxError> {
        self.update(key, None).await.map_err(boxed)
    }

    async fn list(&self) -> Result<Vec<Key>, BoxError> {
        Err("the protocol cannot list results".into())
    }

    async fn flush(&self) -> Result<(), BoxError> {
        // The server has confirmed every write.
        Ok(())
    }

    async fn close(&self) -> Result<(), BoxError> {
        Ok(())
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            list: false,
            ttl: false,
            shared: true,
            durable: false,
            value_bytes_max: Some(VALUE_BYTES_MAX),
        }
    }
}
