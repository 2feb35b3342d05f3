//! The action cache: results under the digests of actions.

use std::sync::Arc;

use bazel_remote_apis::build::bazel::remote::execution::v2 as proto;
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use proto::action_cache_client::ActionCacheClient;
use proto::digest_function::Value::Sha256;
use tonic::Code;

use super::{CallError, Client, MESSAGE_BYTES_MAX, Session};
use crate::{Digest, Error};

/// Maximum number of look-ups of one call at the same time. More gain nothing over one connection.
const LOOKUPS_MAX: usize = 64;

/// Result of an action, as far as this crate uses it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ActionResult {
    /// Exit code of the action.
    pub exit_code: i32,
    /// Files that the action has written.
    pub output_files: Vec<OutputFile>,
    /// Name of the program that executed the action.
    pub worker: String,
}

/// A file that an action has written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputFile {
    /// Path relative to the directory of the action.
    pub path: String,
    /// Digest of the content.
    pub digest: Digest,
    /// The content, if the server sent it with the result and it matches the digest. Ignored where
    /// a result is stored.
    pub content: Option<Bytes>,
}

impl Client {
    /// Returns the result of an action, or `None` if the server has none. Asks for the contents of
    /// the files `inlined` too, which most servers ignore.
    ///
    /// # Errors
    /// Returns an [`Error`] if the call fails.
    pub async fn action_result(
        &self,
        action: &Digest,
        inlined: &[&str],
    ) -> Result<Option<ActionResult>, Error> {
        let timeout = self.state.options.timeout;
        let look = |session: Arc<Session>| async move { lookup(&session, action, inlined).await };
        let message = self.call("look up a result", timeout, look).await?;
        Ok(message.and_then(|message| self.read_result(action, message)))
    }

    /// Returns the result of each of `actions`, in their order. Many calls are under way at once.
    ///
    /// # Errors
    /// Returns the first [`Error`] if a call fails.
    pub async fn action_results(
        &self,
        actions: &[Digest],
        inlined: &[&str],
    ) -> Result<Vec<Option<ActionResult>>, Error> {
        let lookups: Vec<_> = actions.iter().map(|action| self.action_result(action, inlined)).collect();
        stream::iter(lookups).buffered(LOOKUPS_MAX).try_collect().await
    }

    /// Stores the result of an action. The blobs that it names must be stored before.
    ///
    /// # Errors
    /// Returns an [`Error`] if the call fails. A server that accepts no results is
    /// [a refusal](Error::is_refusal).
    pub async fn update_action_result(&self, action: &Digest, result: &ActionResult) -> Result<(), Error> {
        let timeout = self.state.options.timeout;
        let update = |session: Arc<Session>| async move {
            let request = proto::UpdateActionResultRequest {
                instance_name: session.instance.clone(),
                action_digest: Some(action.message()),
                action_result: Some(message(result)),
                digest_function: Sha256 as i32,
                ..proto::UpdateActionResultRequest::default()
            };
            let mut client = ActionCacheClient::new(session.channel.clone());
            client.update_action_result(session.request(request)).await?;
            Ok(())
        };
        self.call("store a result", timeout, update).await
    }

    /// Reads a message. Returns `None` if it is damaged.
    fn read_result(&self, action: &Digest, message: proto::ActionResult) -> Option<ActionResult> {
        let output_files = message.output_files.into_iter().map(|file| self.read_file(file));
        let Some(output_files) = output_files.collect() else {
            self.report_damage(&format!("the result of {action} has a file with an invalid digest"));
            return None;
        };
        let worker = message.execution_metadata.map(|metadata| metadata.worker).unwrap_or_default();
        Some(ActionResult { exit_code: message.exit_code, output_files, worker })
    }

    fn read_file(&self, file: proto::OutputFile) -> Option<OutputFile> {
        let digest = Digest::of_message(&file.digest.unwrap_or_default())?;
        let is_sent = !file.contents.is_empty() || digest.bytes == 0;
        let content = Some(Bytes::from(file.contents)).filter(|_| is_sent);
        if content.as_ref().is_some_and(|content| !digest.matches(content)) {
            self.report_damage(&format!("the content of the blob {digest} does not match its digest"));
            return None;
        }
        Some(OutputFile { path: file.path, digest, content })
    }
}

async fn lookup(
    session: &Session,
    action: &Digest,
    inlined: &[&str],
) -> Result<Option<proto::ActionResult>, CallError> {
    let request = proto::GetActionResultRequest {
        instance_name: session.instance.clone(),
        action_digest: Some(action.message()),
        inline_output_files: inlined.iter().map(|path| (*path).to_owned()).collect(),
        digest_function: Sha256 as i32,
        ..proto::GetActionResultRequest::default()
    };
    let client = ActionCacheClient::new(session.channel.clone());
    let mut client = client.max_decoding_message_size(MESSAGE_BYTES_MAX);
    match client.get_action_result(session.request(request)).await {
        Ok(found) => Ok(Some(found.into_inner())),
        Err(status) if status.code() == Code::NotFound => Ok(None),
        Err(status) => Err(status.into()),
    }
}

fn message(result: &ActionResult) -> proto::ActionResult {
    let file = |file: &OutputFile| proto::OutputFile {
        path: file.path.clone(),
        digest: Some(file.digest.message()),
        ..proto::OutputFile::default()
    };
    proto::ActionResult {
        exit_code: result.exit_code,
        output_files: result.output_files.iter().map(file).collect(),
        execution_metadata: Some(proto::ExecutedActionMetadata {
            worker: result.worker.clone(),
            ..proto::ExecutedActionMetadata::default()
        }),
        ..proto::ActionResult::default()
    }
}
