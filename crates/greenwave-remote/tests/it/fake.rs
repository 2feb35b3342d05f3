//! A server in memory that keeps the protocol, or breaks it in ways that a test chooses.

use std::collections::HashMap;
use std::net::TcpListener;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bazel_remote_apis::build::bazel::remote::execution::v2 as proto;
use bazel_remote_apis::build::bazel::semver::SemVer;
use bazel_remote_apis::google::bytestream as streams;
use bazel_remote_apis::google::longrunning::operations_server::OperationsServer;
use bazel_remote_apis::google::rpc;
use futures_util::{Stream, stream};
use parking_lot::Mutex;
use proto::action_cache_server::{ActionCache, ActionCacheServer};
use proto::capabilities_server::{Capabilities, CapabilitiesServer};
use proto::content_addressable_storage_server::{ContentAddressableStorage, ContentAddressableStorageServer};
use proto::digest_function::Value::Sha256;
use proto::execution_server::ExecutionServer;
use sha2::{Digest as _, Sha256 as Hasher};
use streams::byte_stream_server::{ByteStream, ByteStreamServer};
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Identity, Server, ServerTlsConfig};
use tonic::{Code, Request, Response, Status, Streaming};

/// Maximum total size of the blobs in a message.
pub(crate) const BATCH_BYTES_MAX: usize = 4_193_280;

pub(crate) type Answer<T> = Result<Response<T>, Status>;

/// Behaviour and content of a server.
#[derive(Default)]
pub(crate) struct State {
    /// Changes the capabilities.
    pub(crate) capabilities: Option<fn(&mut proto::ServerCapabilities)>,
    /// Changes the capabilities of the cache.
    pub(crate) cache: Option<fn(&mut proto::CacheCapabilities)>,
    /// Value of `authorization` that is accepted.
    pub(crate) token: Option<String>,
    /// Time before each answer.
    pub(crate) delay: Duration,
    /// Whether each blob that is sent has a wrong byte.
    pub(crate) corrupts: bool,
    /// Whether contents are sent with results.
    pub(crate) inlines: bool,
    /// Bytes after which a stream is cut, in either direction. The next one goes on as far.
    pub(crate) stream_bytes_max: Option<usize>,
    /// Bytes of a blob that are sent as a stream beyond its end.
    pub(crate) excess_bytes: usize,
    /// Answer to blobs, if they are refused.
    pub(crate) refuses_blobs: Option<Status>,
    /// Answer to results, if they are refused.
    pub(crate) refuses_results: Option<Status>,
    pub(crate) actions: HashMap<String, proto::ActionResult>,
    pub(crate) blobs: HashMap<String, Vec<u8>>,
    pub(crate) uploads: HashMap<String, Vec<u8>>,
    /// Answers to actions.
    pub(crate) execution: crate::fake_execution::Execution,
    /// Names of the methods that were called.
    pub(crate) calls: Vec<&'static str>,
    /// Sizes of the blobs in messages.
    pub(crate) batches: Vec<usize>,
    /// Offsets at which streams began.
    pub(crate) offsets: Vec<i64>,
    /// Names of the resources that were written as streams.
    pub(crate) names: Vec<String>,
}

/// A server on a free port of the loopback, which ends with the process.
pub(crate) struct Fake {
    pub(crate) port: u16,
    pub(crate) state: Arc<Mutex<State>>,
}

impl Fake {
    pub(crate) fn start(state: State) -> Self {
        Self::start_with(state, None, "127.0.0.1")
    }

    pub(crate) fn start_with(state: State, identity: Option<Identity>, host: &str) -> Self {
        let listener = TcpListener::bind((host, 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(Mutex::new(state));
        let service = Service(state.clone());
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let mut server = Server::builder();
                if let Some(identity) = identity {
                    server = server.tls_config(ServerTlsConfig::new().identity(identity)).unwrap();
                }
                let server = server
                    .add_service(CapabilitiesServer::new(service.clone()))
                    .add_service(ActionCacheServer::new(service.clone()))
                    .add_service(ContentAddressableStorageServer::new(service.clone()))
                    .add_service(ExecutionServer::new(service.clone()))
                    .add_service(OperationsServer::new(service.clone()))
                    .add_service(ByteStreamServer::new(service));
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                let _ = server.serve_with_incoming(TcpIncoming::from(listener)).await;
            });
        });
        Self { port, state }
    }

    pub(crate) fn calls(&self, method: &str) -> usize {
        self.state.lock().calls.iter().filter(|called| **called == method).count()
    }
}

#[derive(Clone)]
pub(crate) struct Service(pub(crate) Arc<Mutex<State>>);

impl Service {
    /// Begins a call: checks the token and waits.
    pub(crate) async fn begin<T>(&self, method: &'static str, request: &Request<T>) -> Result<(), Status> {
        let delay = {
            let mut state = self.0.lock();
            state.calls.push(method);
            let sent = request.metadata().get("authorization").and_then(|value| value.to_str().ok());
            if state.token.is_some() && sent != state.token.as_deref() {
                return Err(Status::unauthenticated("the token has expired"));
            }
            state.delay
        };
        tokio::time::sleep(delay).await;
        Ok(())
    }

    /// Returns a blob as it is sent.
    fn blob(&self, hash: &str) -> Option<Vec<u8>> {
        let state = self.0.lock();
        let mut blob = state.blobs.get(hash).cloned()?;
        if state.corrupts {
            match blob.first_mut() {
                Some(byte) => *byte ^= 1,
                None => blob.push(1),
            }
        }
        Some(blob)
    }

    fn store(&self, digest: &proto::Digest, data: Vec<u8>) -> Result<(), Status> {
        let hash: String = Hasher::digest(&data).iter().map(|byte| format!("{byte:02x}")).collect();
        if hash != digest.hash || data.len() as i64 != digest.size_bytes {
            return Err(Status::invalid_argument("the blob does not match its digest"));
        }
        let mut state = self.0.lock();
        if let Some(refusal) = &state.refuses_blobs {
            return Err(refusal.clone());
        }
        state.blobs.insert(hash, data);
        Ok(())
    }
}

#[tonic::async_trait]
impl Capabilities for Service {
    async fn get_capabilities(
        &self,
        request: Request<proto::GetCapabilitiesRequest>,
    ) -> Answer<proto::ServerCapabilities> {
        self.begin("get_capabilities", &request).await?;
        let version = |minor| Some(SemVer { major: 2, minor, ..SemVer::default() });
        let updates = proto::ActionCacheUpdateCapabilities { update_enabled: true };
        let mut answer = proto::ServerCapabilities {
            cache_capabilities: Some(proto::CacheCapabilities {
                digest_functions: vec![Sha256 as i32],
                action_cache_update_capabilities: Some(updates),
                max_batch_total_size_bytes: BATCH_BYTES_MAX as i64,
                ..proto::CacheCapabilities::default()
            }),
            low_api_version: version(0),
            high_api_version: version(3),
            ..proto::ServerCapabilities::default()
        };
        let state = self.0.lock();
        if let Some(change) = state.capabilities {
            change(&mut answer);
        }
        if let (Some(change), Some(cache)) = (state.cache, &mut answer.cache_capabilities) {
            change(cache);
        }
        Ok(Response::new(answer))
    }
}

#[tonic::async_trait]
impl ActionCache for Service {
    async fn get_action_result(
        &self,
        request: Request<proto::GetActionResultRequest>,
    ) -> Answer<proto::ActionResult> {
        self.begin("get_action_result", &request).await?;
        let request = request.into_inner();
        let hash = request.action_digest.unwrap_or_default().hash;
        let found = self.0.lock().actions.get(&hash).cloned();
        let mut result = found.ok_or_else(|| Status::not_found("no such action"))?;
        if self.0.lock().inlines {
            for file in &mut result.output_files {
                if request.inline_output_files.contains(&file.path) {
                    file.contents =
                        self.blob(&file.digest.clone().unwrap_or_default().hash).unwrap_or_default();
                }
            }
        }
        Ok(Response::new(result))
    }

    async fn update_action_result(
        &self,
        request: Request<proto::UpdateActionResultRequest>,
    ) -> Answer<proto::ActionResult> {
        self.begin("update_action_result", &request).await?;
        let request = request.into_inner();
        let result = request.action_result.unwrap_or_default();
        let mut state = self.0.lock();
        if let Some(refusal) = &state.refuses_results {
            return Err(refusal.clone());
        }
        state.actions.insert(request.action_digest.unwrap_or_default().hash, result.clone());
        Ok(Response::new(result))
    }
}

pub(crate) type Parts<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl ContentAddressableStorage for Service {
    async fn find_missing_blobs(
        &self,
        request: Request<proto::FindMissingBlobsRequest>,
    ) -> Answer<proto::FindMissingBlobsResponse> {
        self.begin("find_missing_blobs", &request).await?;
        let mut missing_blob_digests = request.into_inner().blob_digests;
        missing_blob_digests.retain(|digest| !self.0.lock().blobs.contains_key(&digest.hash));
        Ok(Response::new(proto::FindMissingBlobsResponse { missing_blob_digests }))
    }

    async fn batch_update_blobs(
        &self,
        request: Request<proto::BatchUpdateBlobsRequest>,
    ) -> Answer<proto::BatchUpdateBlobsResponse> {
        self.begin("batch_update_blobs", &request).await?;
        let blobs = request.into_inner().requests;
        let bytes: usize = blobs.iter().map(|blob| blob.data.len()).sum();
        self.0.lock().batches.push(bytes);
        if bytes > BATCH_BYTES_MAX {
            return Err(Status::invalid_argument("the batch is too large"));
        }
        let responses = blobs.into_iter().map(|blob| {
            let digest = blob.digest.unwrap_or_default();
            let stored = self.store(&digest, blob.data).err();
            let status = stored.map(|status| rpc::Status {
                code: status.code() as i32,
                message: status.message().to_owned(),
                ..rpc::Status::default()
            });
            proto::batch_update_blobs_response::Response { digest: Some(digest), status }
        });
        Ok(Response::new(proto::BatchUpdateBlobsResponse { responses: responses.collect() }))
    }

    async fn batch_read_blobs(
        &self,
        request: Request<proto::BatchReadBlobsRequest>,
    ) -> Answer<proto::BatchReadBlobsResponse> {
        use proto::batch_read_blobs_response::Response as Blob;
        self.begin("batch_read_blobs", &request).await?;
        let blob = |digest: proto::Digest| {
            let found = self.blob(&digest.hash);
            let code = if found.is_some() { Code::Ok } else { Code::NotFound };
            let status = Some(rpc::Status { code: code as i32, ..rpc::Status::default() });
            Blob { digest: Some(digest), data: found.unwrap_or_default(), status, ..Blob::default() }
        };
        let responses: Vec<Blob> = request.into_inner().digests.into_iter().map(blob).collect();
        self.0.lock().batches.push(responses.iter().map(|blob| blob.data.len()).sum());
        Ok(Response::new(proto::BatchReadBlobsResponse { responses }))
    }

    type GetTreeStream = Parts<proto::GetTreeResponse>;

    async fn get_tree(&self, _: Request<proto::GetTreeRequest>) -> Answer<Self::GetTreeStream> {
        Err(Status::unimplemented(""))
    }

    async fn split_blob(&self, _: Request<proto::SplitBlobRequest>) -> Answer<proto::SplitBlobResponse> {
        Err(Status::unimplemented(""))
    }

    type GetChunkMappingStream = Parts<proto::GetChunkMappingResponse>;

    async fn get_chunk_mapping(
        &self,
        _: Request<proto::GetChunkMappingRequest>,
    ) -> Answer<Self::GetChunkMappingStream> {
        Err(Status::unimplemented(""))
    }

    async fn splice_blob(&self, _: Request<proto::SpliceBlobRequest>) -> Answer<proto::SpliceBlobResponse> {
        Err(Status::unimplemented(""))
    }

    async fn register_chunk_mapping(
        &self,
        _: Request<Streaming<proto::RegisterChunkMappingRequest>>,
    ) -> Answer<proto::RegisterChunkMappingResponse> {
        Err(Status::unimplemented(""))
    }
}

/// Returns the digest at the end of a resource's name.
fn digest_of(name: &str) -> Result<proto::Digest, Status> {
    let mut levels = name.rsplit('/');
    let size = levels.next().and_then(|size| size.parse().ok());
    match (size, levels.next(), levels.next()) {
        (Some(size_bytes), Some(hash), Some("blobs")) => {
            Ok(proto::Digest { hash: hash.to_owned(), size_bytes })
        }
        _ => Err(Status::invalid_argument(format!("no blob has the name {name}"))),
    }
}

#[tonic::async_trait]
impl ByteStream for Service {
    type ReadStream = Parts<streams::ReadResponse>;

    async fn read(&self, request: Request<streams::ReadRequest>) -> Answer<Self::ReadStream> {
        self.begin("read", &request).await?;
        let request = request.into_inner();
        let digest = digest_of(&request.resource_name)?;
        let mut blob = self.blob(&digest.hash).ok_or_else(|| Status::not_found("no such blob"))?;
        let mut state = self.0.lock();
        state.offsets.push(request.read_offset);
        blob.extend(vec![0; state.excess_bytes]);
        let mut rest = blob.split_off(request.read_offset as usize);
        let is_cut = state.stream_bytes_max.is_some_and(|max| max < rest.len());
        rest.truncate(state.stream_bytes_max.unwrap_or(usize::MAX));
        let part = |part: &[u8]| Ok(streams::ReadResponse { data: part.to_vec() });
        let mut parts: Vec<Result<_, Status>> = rest.chunks(64 << 10).map(part).collect();
        if is_cut {
            parts.push(Err(Status::unavailable("the connection was cut")));
        }
        Ok(Response::new(Box::pin(stream::iter(parts))))
    }

    async fn write(
        &self,
        request: Request<Streaming<streams::WriteRequest>>,
    ) -> Answer<streams::WriteResponse> {
        self.begin("write", &request).await?;
        let mut parts = request.into_inner();
        let (mut name, mut received) = (String::new(), 0);
        while let Some(part) = parts.message().await? {
            if name.is_empty() {
                name.clone_from(&part.resource_name);
                let mut state = self.0.lock();
                state.offsets.push(part.write_offset);
                state.names.push(name.clone());
            }
            let mut state = self.0.lock();
            let limit = state.stream_bytes_max.unwrap_or(usize::MAX);
            let upload = state.uploads.entry(name.clone()).or_default();
            if part.write_offset as usize != upload.len() {
                return Err(Status::invalid_argument("the part begins elsewhere"));
            }
            upload.extend(&part.data);
            received += part.data.len();
            if part.finish_write {
                let upload = state.uploads.remove(&name).unwrap_or_default();
                drop(state);
                let committed_size = upload.len() as i64;
                self.store(&digest_of(&name)?, upload)?;
                return Ok(Response::new(streams::WriteResponse { committed_size }));
            }
            if received >= limit {
                return Err(Status::unavailable("the connection was cut"));
            }
        }
        Err(Status::invalid_argument("the stream has no end"))
    }

    async fn query_write_status(
        &self,
        request: Request<streams::QueryWriteStatusRequest>,
    ) -> Answer<streams::QueryWriteStatusResponse> {
        self.begin("query_write_status", &request).await?;
        let state = self.0.lock();
        let upload = state.uploads.get(&request.into_inner().resource_name);
        let upload = upload.ok_or_else(|| Status::not_found("no such upload"))?;
        let committed_size = upload.len() as i64;
        Ok(Response::new(streams::QueryWriteStatusResponse { committed_size, complete: false }))
    }
}
