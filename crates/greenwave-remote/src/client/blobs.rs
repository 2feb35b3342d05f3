//! Content-addressed storage: blobs under their digests.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bazel_remote_apis::build::bazel::remote::execution::v2 as proto;
use bytes::Bytes;
use proto::content_addressable_storage_client::ContentAddressableStorageClient;
use proto::digest_function::Value::Sha256;
use tonic::transport::Channel;
use tonic::{Code, Status};

use super::batches::Plan;
use super::{CallError, Client, MESSAGE_BYTES_MAX, Session};
use crate::{Digest, Error};

/// Maximum number of digests in a question.
const DIGESTS_MAX: usize = 10_000;

impl Client {
    /// Returns which of these blobs the server lacks.
    ///
    /// # Errors
    /// Returns an [`Error`] if a call fails.
    pub async fn missing_blobs(&self, digests: &[Digest]) -> Result<Vec<Digest>, Error> {
        let timeout = self.state.options.timeout;
        let mut missing = Vec::new();
        for digests in digests.chunks(DIGESTS_MAX) {
            let ask = |session: Arc<Session>| async move { find_missing(&session, digests).await };
            missing.extend(self.call("look for blobs", timeout, ask).await?);
        }
        Ok(missing)
    }

    /// Stores blobs, several in one message where the server's limit permits it, and larger ones as
    /// streams, which continue after a cut. Blobs of more than 64 KiB together are stored only if
    /// the server lacks them.
    ///
    /// # Errors
    /// Returns an [`Error`] if a call fails. Some of the blobs may be stored nevertheless.
    pub async fn upload(&self, blobs: &[Bytes]) -> Result<(), Error> {
        /// Asking first costs a round trip.
        const UNASKED_BYTES_MAX: usize = 64 << 10;
        let capabilities = self.capabilities().await?;
        let mut named: BTreeMap<Digest, &Bytes> = blobs.iter().map(|blob| (Digest::of(blob), blob)).collect();
        if blobs.iter().map(Bytes::len).sum::<usize>() > UNASKED_BYTES_MAX {
            let all: Vec<Digest> = named.keys().copied().collect();
            let missing: BTreeSet<Digest> = self.missing_blobs(&all).await?.into_iter().collect();
            named.retain(|digest, _| missing.contains(digest));
        }
        let named: Vec<(Digest, &Bytes)> = named.into_iter().collect();
        let limit = capabilities.blob_bytes_max.unwrap_or(u64::MAX);
        if let Some((digest, _)) = named.iter().find(|(digest, _)| digest.bytes > limit) {
            return Err(Error::TooLarge { server: self.server(), bytes: digest.bytes, bytes_max: limit });
        }
        let plan = Plan::new(named.iter().map(|(digest, _)| digest), capabilities.batch_bytes_max);
        let timeout = self.state.options.transfer_timeout;
        for batch in plan.batches {
            let batch: Vec<(Digest, &Bytes)> = batch.into_iter().map(|position| named[position]).collect();
            let batch = batch.as_slice();
            let update = |session: Arc<Session>| async move { batch_update(&session, batch).await };
            self.call("store blobs", timeout, update).await?;
        }
        for position in plan.streamed {
            let (digest, blob) = named[position];
            self.write_stream(&digest, blob).await?;
        }
        Ok(())
    }

    /// Returns the blobs with these digests, in their order. A blob that the server lacks, or sends
    /// with other bytes, is `None`; so are blobs that do not fit into `bytes_max`.
    ///
    /// # Errors
    /// Returns an [`Error`] if a call fails.
    pub async fn download(&self, digests: &[Digest], bytes_max: u64) -> Result<Vec<Option<Bytes>>, Error> {
        let wanted = within(digests, bytes_max);
        if wanted.is_empty() {
            return Ok(vec![None; digests.len()]);
        }
        let mut found: BTreeMap<Digest, Bytes> = BTreeMap::new();
        let capabilities = self.capabilities().await?;
        let plan = Plan::new(&wanted, capabilities.batch_bytes_max);
        let timeout = self.state.options.transfer_timeout;
        for batch in plan.batches {
            let batch: Vec<Digest> = batch.into_iter().map(|position| wanted[position]).collect();
            let batch = batch.as_slice();
            let read = |session: Arc<Session>| async move { batch_read(&session, batch).await };
            let (blobs, damaged) = self.call("fetch blobs", timeout, read).await?;
            found.extend(blobs);
            damaged.iter().for_each(|problem| self.report_damage(problem));
        }
        for position in plan.streamed {
            let digest = wanted[position];
            match self.read_stream(&digest).await {
                Ok(blob) => found.extend(blob.map(|blob| (digest, blob))),
                Err(Error::Damaged { problem, .. }) => self.report_damage(&problem),
                Err(error) => return Err(error),
            }
        }
        Ok(digests.iter().map(|digest| found.get(digest).cloned()).collect())
    }
}

/// Returns each digest once, up to a total size of the blobs.
fn within(digests: &[Digest], bytes_max: u64) -> Vec<Digest> {
    let mut room = bytes_max;
    let mut seen = BTreeSet::new();
    let has_room = |digest: &&Digest| {
        let left = room.checked_sub(digest.bytes);
        let is_chosen = left.is_some() && seen.insert(**digest);
        if let Some(left) = left.filter(|_| is_chosen) {
            room = left;
        }
        is_chosen
    };
    digests.iter().filter(has_room).copied().collect()
}

fn storage(session: &Session) -> ContentAddressableStorageClient<Channel> {
    let client = ContentAddressableStorageClient::new(session.channel.clone());
    client.max_decoding_message_size(MESSAGE_BYTES_MAX)
}

async fn find_missing(session: &Session, digests: &[Digest]) -> Result<Vec<Digest>, CallError> {
    let request = proto::FindMissingBlobsRequest {
        instance_name: session.instance.clone(),
        blob_digests: digests.iter().map(Digest::message).collect(),
        digest_function: Sha256 as i32,
    };
    let answer = storage(session).find_missing_blobs(session.request(request)).await?.into_inner();
    let missing: Option<Vec<Digest>> = answer.missing_blob_digests.iter().map(Digest::of_message).collect();
    missing.ok_or_else(|| CallError::Damaged("a digest in the answer is invalid".to_owned()))
}

async fn batch_update(session: &Session, blobs: &[(Digest, &Bytes)]) -> Result<(), CallError> {
    use proto::batch_update_blobs_request::Request as Blob;
    let blob = |(digest, data): &(Digest, &Bytes)| Blob {
        digest: Some(digest.message()),
        data: data.to_vec(),
        ..Blob::default()
    };
    let request = proto::BatchUpdateBlobsRequest {
        instance_name: session.instance.clone(),
        requests: blobs.iter().map(blob).collect(),
        digest_function: Sha256 as i32,
    };
    let request = session.request_without_deadline(request);
    let answer = session.within(storage(session).batch_update_blobs(request)).await?.into_inner();
    let mut stored = BTreeSet::new();
    for response in answer.responses {
        let status = response.status.unwrap_or_default();
        if status.code != Code::Ok as i32 {
            return Err(Status::new(Code::from_i32(status.code), status.message).into());
        }
        stored.extend(Digest::of_message(&response.digest.unwrap_or_default()));
    }
    match blobs.iter().find(|(digest, _)| !stored.contains(digest)) {
        Some((digest, _)) => Err(CallError::Damaged(format!("the answer does not name the blob {digest}"))),
        None => Ok(()),
    }
}

/// Blobs of an answer, and the faults of others.
type Blobs = (Vec<(Digest, Bytes)>, Vec<String>);

async fn batch_read(session: &Session, digests: &[Digest]) -> Result<Blobs, CallError> {
    let request = proto::BatchReadBlobsRequest {
        instance_name: session.instance.clone(),
        digests: digests.iter().map(Digest::message).collect(),
        digest_function: Sha256 as i32,
        ..proto::BatchReadBlobsRequest::default()
    };
    let request = session.request_without_deadline(request);
    let answer = session.within(storage(session).batch_read_blobs(request)).await?.into_inner();
    let asked: BTreeSet<&Digest> = digests.iter().collect();
    let (mut blobs, mut damaged) = (Vec::new(), Vec::new());
    for response in answer.responses {
        let digest = Digest::of_message(&response.digest.unwrap_or_default());
        let status = response.status.unwrap_or_default();
        match digest.filter(|digest| asked.contains(digest)) {
            None => damaged.push("a blob that was not asked for".to_owned()),
            Some(_) if status.code == Code::NotFound as i32 => {}
            Some(_) if status.code != Code::Ok as i32 => {
                return Err(Status::new(Code::from_i32(status.code), status.message).into());
            }
            Some(digest) if digest.matches(&response.data) => blobs.push((digest, response.data.into())),
            Some(digest) => {
                damaged.push(format!("the content of the blob {digest} does not match its digest"));
            }
        }
    }
    Ok((blobs, damaged))
}
