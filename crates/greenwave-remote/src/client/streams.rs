//! Transfers of large blobs as streams, which continue where a cut has left them.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::Arc;

use bazel_remote_apis::google::bytestream as proto;
use bytes::{Bytes, BytesMut};
use futures_util::stream;
use proto::byte_stream_client::ByteStreamClient;
use tonic::Code;
use tonic::transport::Channel;

use super::{CallError, Client, MESSAGE_BYTES_MAX, Session};
use crate::{Digest, Error};

/// Bytes of a blob in one message.
const PART_BYTES: usize = 256 << 10;
/// Number of attempts in a row without progress after which a transfer fails.
const STALLS_MAX: u32 = 3;
/// Maximum number of attempts of a transfer.
const ATTEMPTS_MAX: u32 = 100;
/// Bytes that are reserved for a blob before its first part has arrived.
const RESERVED_BYTES_MAX: u64 = 1 << 20;

impl Client {
    /// Reads a blob. `None` if the server lacks it.
    ///
    /// # Errors
    /// Returns [`Error::Damaged`] if the blob does not match its digest, and another error if the
    /// call fails.
    pub(super) async fn read_stream(&self, digest: &Digest) -> Result<Option<Bytes>, Error> {
        let timeout = self.state.options.transfer_timeout;
        let read = |session: Arc<Session>| async move {
            let mut blob = BytesMut::with_capacity(reserved(digest.bytes));
            let mut attempts = Attempts::default();
            while let Err(error) = read_rest(&session, digest, &mut blob).await {
                match error {
                    CallError::Status(status) if status.code() == Code::NotFound => return Ok(None),
                    error => attempts.fail(error, blob.len() as u64)?,
                }
            }
            if digest.matches(&blob) {
                Ok(Some(blob.freeze()))
            } else {
                Err(CallError::Damaged(format!("the content of the blob {digest} does not match its digest")))
            }
        };
        self.call("fetch a blob", timeout, read).await
    }

    /// Stores a blob.
    pub(super) async fn write_stream(&self, digest: &Digest, blob: &Bytes) -> Result<(), Error> {
        let timeout = self.state.options.transfer_timeout;
        let write = |session: Arc<Session>| async move {
            let name = format!("{}uploads/{}/blobs/{digest}", prefix(&session), random_uuid());
            let mut attempts = Attempts::default();
            let mut offset = 0;
            loop {
                match write_rest(&session, &name, blob, offset).await {
                    // A server that has the blob already may end the stream early, with its size.
                    Ok(committed) if committed == digest.bytes => return Ok(()),
                    Ok(committed) => {
                        let problem = format!("{committed} of {} bytes were stored", digest.bytes);
                        attempts.fail(CallError::Damaged(problem), committed)?;
                    }
                    Err(error) => attempts.fail(error, offset)?,
                }
                offset = committed(&session, &name).await.min(digest.bytes);
            }
        };
        self.call("store a blob", timeout, write).await
    }
}

/// The failures of one transfer.
#[derive(Debug, Default)]
struct Attempts {
    failed: u32,
    stalled: u32,
    position: u64,
}

impl Attempts {
    /// Permits another attempt after a failure at this position, or returns the error.
    fn fail(&mut self, error: CallError, position: u64) -> Result<(), CallError> {
        self.failed += 1;
        self.stalled = if position > self.position { 0 } else { self.stalled + 1 };
        self.position = self.position.max(position);
        let is_transient = match &error {
            CallError::Status(status) => {
                let codes =
                    [Code::Unavailable, Code::Unknown, Code::Internal, Code::Aborted, Code::Cancelled];
                codes.contains(&status.code())
            }
            CallError::Damaged(_) => true,
            _ => false,
        };
        if is_transient && self.stalled < STALLS_MAX && self.failed < ATTEMPTS_MAX {
            return Ok(());
        }
        Err(error)
    }
}

fn stream_client(session: &Session) -> ByteStreamClient<Channel> {
    ByteStreamClient::new(session.channel.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX)
}

/// Reads the rest of a blob.
async fn read_rest(session: &Session, digest: &Digest, blob: &mut BytesMut) -> Result<(), CallError> {
    let request = proto::ReadRequest {
        resource_name: format!("{}blobs/{digest}", prefix(session)),
        read_offset: i64::try_from(blob.len()).unwrap_or(i64::MAX),
        read_limit: 0,
    };
    let request = session.request_without_deadline(request);
    let mut parts = session.within(stream_client(session).read(request)).await?.into_inner();
    while let Some(part) = session.within(parts.message()).await? {
        if (blob.len() + part.data.len()) as u64 > digest.bytes {
            return Err(CallError::TooLong(format!("the blob {digest} has more bytes")));
        }
        blob.extend_from_slice(&part.data);
    }
    if (blob.len() as u64) < digest.bytes {
        return Err(CallError::Damaged(format!("the blob {digest} ends after {} bytes", blob.len())));
    }
    Ok(())
}

/// Writes a blob from an offset on. Returns the number of bytes that the server has.
async fn write_rest(session: &Session, name: &str, blob: &Bytes, offset: u64) -> Result<u64, CallError> {
    let start = usize::try_from(offset).unwrap_or(usize::MAX).min(blob.len());
    let (first_name, blob) = (name.to_owned(), blob.clone());
    // Parts are made when the connection has room for them.
    let parts = stream::unfold(Some(start), move |position| {
        let part = position.map(|position| {
            let end = (position + PART_BYTES).min(blob.len());
            let request = proto::WriteRequest {
                resource_name: if position == start { first_name.clone() } else { String::new() },
                write_offset: i64::try_from(position).unwrap_or(i64::MAX),
                finish_write: end == blob.len(),
                data: blob[position..end].to_vec(),
            };
            (request, Some(end).filter(|end| *end < blob.len()))
        });
        std::future::ready(part)
    });
    let request = session.request_without_deadline(parts);
    let answer = stream_client(session).write(request).await?.into_inner();
    Ok(u64::try_from(answer.committed_size).unwrap_or(0))
}

/// Returns the number of bytes of an upload that the server has. A server that does not know, or
/// cannot be reached, has none.
async fn committed(session: &Session, name: &str) -> u64 {
    let request = proto::QueryWriteStatusRequest { resource_name: name.to_owned() };
    let answer = stream_client(session).query_write_status(session.request(request)).await;
    answer.ok().and_then(|answer| u64::try_from(answer.into_inner().committed_size).ok()).unwrap_or(0)
}

/// Returns the part of a resource's name before its kind.
fn prefix(session: &Session) -> String {
    if session.instance.is_empty() { String::new() } else { format!("{}/", session.instance) }
}

fn reserved(bytes: u64) -> usize {
    usize::try_from(bytes.min(RESERVED_BYTES_MAX)).unwrap_or(0)
}

/// Returns a random UUID (RFC 9562, version 4), which names an upload.
fn random_uuid() -> String {
    // Each hasher has a random seed from the system.
    let half = |salt: u8| RandomState::new().hash_one(salt);
    let (high, low) = (half(0), half(1));
    let (high, low) = (high & !0xF000 | 0x4000, low >> 2 | 1 << 63);
    format!(
        "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
        high >> 32,
        high >> 16 & 0xFFFF,
        high & 0xFFFF,
        low >> 48,
        low & 0xFFFF_FFFF_FFFF
    )
}
