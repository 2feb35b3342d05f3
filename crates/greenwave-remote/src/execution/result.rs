//! Fetches the result of an action: output, files and directories, by their digests.

use std::collections::HashMap;

use bazel_remote_apis::build::bazel::remote::execution::v2 as proto;
use bytes::Bytes;
use prost::Message;
use tonic::{Code, Status};

use super::RemoteExecutor;
use crate::executor::{Action, ActionOutput, Outcome};
use crate::tree::{Entry, Tree};
use crate::{Digest, Error};

/// Maximum total size of the outputs of an action, in bytes.
const OUTPUT_BYTES_MAX: u64 = 1 << 30;

impl RemoteExecutor {
    /// Fetches the outputs of an action.
    pub(super) async fn outcome(
        &self,
        action: &Action,
        response: proto::ExecuteResponse,
    ) -> Result<Outcome, Error> {
        let status = response.status.unwrap_or_default();
        if status.code == Code::DeadlineExceeded as i32 {
            let limit = action.time_limit;
            return Ok(Outcome::Lost(format!("it took longer than its limit of {limit:?}")));
        }
        if status.code != Code::Ok as i32 {
            return Err(self.failed(&Status::new(Code::from_i32(status.code), status.message)));
        }
        let result = response.result.ok_or_else(|| self.damaged("an action has no result"))?;
        let output = ActionOutput {
            exit_code: result.exit_code,
            stdout: self.text(&result.stdout_raw, result.stdout_digest.as_ref()).await?,
            stderr: self.text(&result.stderr_raw, result.stderr_digest.as_ref()).await?,
            is_cached: response.cached_result,
            worker: result.execution_metadata.as_ref().map(|it| it.worker.clone()).unwrap_or_default(),
            outputs: self.outputs(action, &result).await?,
        };
        Ok(Outcome::Done(output))
    }

    /// Returns the output of a command.
    async fn text(&self, raw: &[u8], digest: Option<&proto::Digest>) -> Result<Bytes, Error> {
        match digest.filter(|digest| raw.is_empty() && digest.size_bytes != 0) {
            None => Ok(Bytes::copy_from_slice(raw)),
            Some(digest) => self.blob(self.digest(Some(digest))?).await,
        }
    }

    async fn outputs(&self, action: &Action, result: &proto::ActionResult) -> Result<Tree, Error> {
        let mut files = Vec::new();
        let mut tree = Tree::new();
        let mut insert =
            |path: &str, entry| tree.insert(path, entry).map_err(|error| self.damaged(&error.to_string()));
        for directory in &result.output_directories {
            self.check_asked(action, &directory.path)?;
            let blob = self.blob(self.digest(directory.tree_digest.as_ref())?).await?;
            let found = proto::Tree::decode(blob).map_err(|error| self.damaged(&error.to_string()))?;
            let children: HashMap<Digest, &proto::Directory> =
                found.children.iter().map(|child| (Digest::of(&child.encode_to_vec()), child)).collect();
            let mut rest = vec![(directory.path.clone(), found.root.as_ref())];
            while let Some((path, directory)) = rest.pop() {
                let directory = directory.ok_or_else(|| self.damaged("an output directory lacks a part"))?;
                insert(&path, Entry::Directory)?;
                for below in &directory.directories {
                    let child = children.get(&self.digest(below.digest.as_ref())?).copied();
                    rest.push((format!("{path}/{}", below.name), child));
                }
                for file in &directory.files {
                    let digest = self.digest(file.digest.as_ref())?;
                    let path = format!("{path}/{}", file.name);
                    // Holds the place, so that the number of entries is limited.
                    insert(&path, Entry::Directory)?;
                    files.push((path, digest, file.is_executable));
                }
                for link in &directory.symlinks {
                    insert(&format!("{path}/{}", link.name), Entry::Link(link.target.clone()))?;
                }
            }
        }
        #[expect(deprecated, reason = "servers before version 2.1 name links there")]
        let old_links = result.output_file_symlinks.iter().chain(&result.output_directory_symlinks);
        for link in result.output_symlinks.iter().chain(old_links) {
            self.check_asked(action, &link.path)?;
            insert(&link.path, Entry::Link(link.target.clone()))?;
        }
        for file in &result.output_files {
            self.check_asked(action, &file.path)?;
            files.push((file.path.clone(), self.digest(file.digest.as_ref())?, file.is_executable));
        }
        let digests: Vec<Digest> = files.iter().map(|(_, digest, _)| *digest).collect();
        let contents = self.client.download(&digests, OUTPUT_BYTES_MAX).await?;
        for ((path, digest, is_executable), content) in files.into_iter().zip(contents) {
            let content = content.ok_or_else(|| self.gone(&digest))?;
            insert(&path, Entry::File { content, is_executable })?;
        }
        Ok(tree)
    }

    fn check_asked(&self, action: &Action, path: &str) -> Result<(), Error> {
        if action.outputs.iter().any(|output| output == path) {
            return Ok(());
        }
        Err(self.damaged(&format!("`{}` is no output of the action", path.escape_debug())))
    }

    async fn blob(&self, digest: Digest) -> Result<Bytes, Error> {
        let blob = self.client.download(&[digest], OUTPUT_BYTES_MAX).await?.pop().flatten();
        blob.ok_or_else(|| self.gone(&digest))
    }

    fn gone(&self, digest: &Digest) -> Error {
        self.damaged(&format!("the server lacks the blob {digest} of the result"))
    }

    fn digest(&self, message: Option<&proto::Digest>) -> Result<Digest, Error> {
        let digest = message.and_then(Digest::of_message);
        digest.ok_or_else(|| self.damaged("the result has an invalid digest"))
    }
}
