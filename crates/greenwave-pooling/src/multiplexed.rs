//! Connections that carry many requests at once.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::io;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::callback::finish;
use crate::error::Error;

/// Encodes requests, decodes responses, and assigns responses to requests.
///
/// # Contract
///
/// - `encode` appends the complete frame of one request, including `id` if the protocol has ids. An
///   error fails that request only, and the appended bytes are discarded.
/// - `decode` decodes the first complete frame of `bytes` and returns its length. If it returns
///   `None`, it is called again with more bytes. For long frames it should not start over each
///   time.
/// - A frame with the id of no pending request is ignored: it is a response to a cancelled request.
/// - Without ids (`None`), responses arrive in the order of the requests. A framing must use ids
///   always or never.
/// - An error or panic in `decode`, or a panic in `encode`, ends the connection and fails the
///   requests that it carries.
pub trait Framing: fmt::Debug + Send + 'static {
    /// A request.
    type Request: Send + 'static;
    /// A response.
    type Response: Send + 'static;

    /// Appends the frame of a request.
    ///
    /// # Errors
    /// If the request cannot be represented in the protocol.
    fn encode(&mut self, id: u64, request: Self::Request, bytes: &mut Vec<u8>) -> io::Result<()>;

    /// Decodes the first frame.
    ///
    /// # Errors
    /// If the bytes violate the protocol.
    fn decode(&mut self, bytes: &[u8]) -> io::Result<Option<Frame<Self::Response>>>;
}

/// A decoded frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame<A> {
    /// Length of the encoded frame in bytes.
    pub bytes: usize,
    /// Id of the request; `None` for the oldest pending request.
    pub id: Option<u64>,
    /// The response.
    pub response: A,
}

/// Limits of [`Multiplexed`]; at least 1 each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MultiplexedOptions {
    /// Maximum number of requests in flight on one connection; 0 counts as 1. Further callers wait
    /// in order.
    pub in_flight_max: usize,
    /// Maximum size of a received frame in bytes. A longer one breaks the connection.
    pub frame_bytes_max: usize,
}

impl Default for MultiplexedOptions {
    /// 128 requests, 8 MiB.
    fn default() -> Self {
        Self { in_flight_max: 128, frame_bytes_max: 8 << 20 }
    }
}

/// Sends many requests on one connection without waiting for responses in between. Clones share the
/// connection.
///
/// If the connection breaks, the requests that it carries fail with [`Error::ConnectionLost`]. If a
/// caller is dropped, its request is abandoned and the response ignored. The connection closes with
/// the last clone.
pub struct Multiplexed<F: Framing> {
    connection: Arc<SharedConnection<F>>,
}

struct SharedConnection<F: Framing> {
    requests: mpsc::UnboundedSender<Outgoing<F>>,
    permits: Arc<Semaphore>,
    in_flight_max: usize,
    pending: Arc<Pending<F::Response>>,
    tasks: [JoinHandle<()>; 2],
}

struct Outgoing<F: Framing> {
    request: F::Request,
    waiting: Waiting<F::Response>,
}

/// A caller that waits for a response. The permit is held until the response arrives or cannot
/// arrive any more.
struct Waiting<A> {
    reply: oneshot::Sender<Result<A, Error>>,
    _permit: OwnedSemaphorePermit,
}

struct Pending<A> {
    state: Mutex<PendingRequests<A>>,
}

struct PendingRequests<A> {
    /// Ids in the order in which the requests were sent, for protocols without ids.
    order: VecDeque<u64>,
    by_id: HashMap<u64, Waiting<A>>,
    next_id: u64,
    broken: Option<Arc<io::Error>>,
}

impl<F: Framing> Multiplexed<F> {
    /// Takes ownership of a connection.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn new<S>(stream: S, framing: F, options: MultiplexedOptions) -> Self
    where
        S: AsyncRead + AsyncWrite + Send + 'static,
        F: Clone,
    {
        let (reader, writer) = tokio::io::split(stream);
        let pending = Arc::new(Pending {
            state: Mutex::new(PendingRequests {
                order: VecDeque::new(),
                by_id: HashMap::new(),
                next_id: 0,
                broken: None,
            }),
        });
        let in_flight_max = options.in_flight_max.clamp(1, Semaphore::MAX_PERMITS);
        let permits = Arc::new(Semaphore::new(in_flight_max));
        // Bounded by the semaphore, since sending requires a permit.
        let (requests, queue) = mpsc::unbounded_channel();
        let reading = {
            let (pending, framing) = (pending.clone(), framing.clone());
            async move {
                let reading = read(reader, framing, &pending, options.frame_bytes_max.max(1));
                pending.fail(finish("decode", reading).await.unwrap_or_else(io::Error::other));
            }
        };
        let writing = {
            let pending = pending.clone();
            async move {
                let writing = finish("encode", write(writer, framing, &pending, queue)).await;
                if let Err(error) = writing.unwrap_or_else(|panicked| Err(io::Error::other(panicked))) {
                    pending.fail(error);
                }
            }
        };
        let tasks = [tokio::spawn(reading), tokio::spawn(writing)];
        Self { connection: Arc::new(SharedConnection { requests, permits, in_flight_max, pending, tasks }) }
    }

    /// Waits for a permit, sends a request, and waits for its response. May be cancelled.
    ///
    /// # Errors
    /// [`Error::ConnectionLost`] if the connection breaks before the response arrives;
    /// [`Error::InvalidRequest`] if the request cannot be encoded.
    pub async fn request(&self, request: F::Request) -> Result<F::Response, Error> {
        let connection = &self.connection;
        let permit = connection.permits.clone().acquire_owned().await.map_err(|_| Error::Closed)?;
        connection.pending.check()?;
        let (reply, response) = oneshot::channel();
        let outgoing = Outgoing { request, waiting: Waiting { reply, _permit: permit } };
        if connection.requests.send(outgoing).is_err() {
            connection.pending.check()?;
            return Err(Error::Closed);
        }
        match response.await {
            Ok(result) => result,
            Err(_) => Err(connection.pending.check().err().unwrap_or(Error::Closed)),
        }
    }

    /// Returns the number of requests in flight.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.connection.in_flight_max - self.connection.permits.available_permits()
    }

    /// Returns true if the connection broke, so that further requests fail.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        self.connection.pending.check().is_err()
    }
}

impl<F: Framing> Clone for Multiplexed<F> {
    fn clone(&self) -> Self {
        Self { connection: self.connection.clone() }
    }
}

impl<F: Framing> fmt::Debug for Multiplexed<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Multiplexed").field("in_flight", &self.in_flight()).finish_non_exhaustive()
    }
}

impl<F: Framing> Drop for SharedConnection<F> {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl<A> Pending<A> {
    fn check(&self) -> Result<(), Error> {
        match &self.state.lock().broken {
            None => Ok(()),
            Some(source) => Err(Error::ConnectionLost { source: source.clone() }),
        }
    }

    /// Registers a caller and returns the id of its request. Returns `None` if the caller was
    /// dropped or the connection is broken.
    fn enter(&self, waiting: Waiting<A>) -> Option<u64> {
        if waiting.reply.is_closed() {
            return None;
        }
        let mut state = self.state.lock();
        if let Some(source) = state.broken.clone() {
            drop(state);
            let _gone = waiting.reply.send(Err(Error::ConnectionLost { source }));
            return None;
        }
        let id = state.next_id;
        state.next_id += 1;
        state.order.push_back(id);
        state.by_id.insert(id, waiting);
        Some(id)
    }

    fn resolve(&self, id: Option<u64>, response: A) -> io::Result<()> {
        let waiting = {
            let mut state = self.state.lock();
            let id = match id {
                Some(id) => Some(id),
                None => state.order.pop_front(),
            };
            let Some(id) = id else {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "a response without a pending request",
                ));
            };
            let waiting = state.by_id.remove(&id);
            // Ids that were answered out of order stay in the queue until they reach the front.
            while state.order.front().is_some_and(|front| !state.by_id.contains_key(front)) {
                state.order.pop_front();
            }
            waiting
        };
        if let Some(waiting) = waiting {
            let _gone = waiting.reply.send(Ok(response));
        }
        Ok(())
    }

    /// Fails a request that could not be encoded.
    fn refuse(&self, id: u64, error: io::Error) {
        let waiting = {
            let mut state = self.state.lock();
            state.order.retain(|other| *other != id);
            state.by_id.remove(&id)
        };
        if let Some(waiting) = waiting {
            let _gone = waiting.reply.send(Err(Error::InvalidRequest { source: error }));
        }
    }

    /// Marks the connection as broken and fails its requests.
    fn fail(&self, error: io::Error) {
        let (source, waiting) = {
            let mut state = self.state.lock();
            let source = state.broken.get_or_insert_with(|| Arc::new(error)).clone();
            state.order.clear();
            (source, std::mem::take(&mut state.by_id))
        };
        for (_, waiting) in waiting {
            let _gone = waiting.reply.send(Err(Error::ConnectionLost { source: source.clone() }));
        }
    }
}

async fn read<F: Framing>(
    reader: impl AsyncRead + Unpin,
    mut framing: F,
    pending: &Pending<F::Response>,
    frame_bytes_max: usize,
) -> io::Error {
    let mut reader = BufReader::with_capacity(1 << 16, reader);
    let mut bytes = Vec::new();
    loop {
        let mut taken = 0;
        loop {
            match framing.decode(&bytes[taken..]) {
                Ok(None) => break,
                Ok(Some(frame)) if frame.bytes > frame_bytes_max => return too_long(frame_bytes_max),
                Ok(Some(frame)) => {
                    taken += frame.bytes.min(bytes.len() - taken);
                    if let Err(error) = pending.resolve(frame.id, frame.response) {
                        return error;
                    }
                    if frame.bytes == 0 {
                        break;
                    }
                }
                Err(error) => return error,
            }
        }
        bytes.drain(..taken);
        if bytes.len() > frame_bytes_max {
            return too_long(frame_bytes_max);
        }
        match reader.read_buf(&mut bytes).await {
            Ok(0) => return io::ErrorKind::UnexpectedEof.into(),
            Ok(_) => {}
            Err(error) => return error,
        }
    }
}

fn too_long(frame_bytes_max: usize) -> io::Error {
    let message = format!("a frame is longer than {frame_bytes_max} bytes");
    io::Error::new(io::ErrorKind::InvalidData, message)
}

/// Writes queued requests, several at once if available.
async fn write<F: Framing>(
    mut writer: impl AsyncWrite + Unpin,
    mut framing: F,
    pending: &Pending<F::Response>,
    mut queue: mpsc::UnboundedReceiver<Outgoing<F>>,
) -> io::Result<()> {
    const AT_ONCE: usize = 64;
    let (mut taken, mut bytes) = (Vec::with_capacity(AT_ONCE), Vec::new());
    while queue.recv_many(&mut taken, AT_ONCE).await > 0 {
        for outgoing in taken.drain(..) {
            if let Some(id) = pending.enter(outgoing.waiting) {
                let length = bytes.len();
                if let Err(error) = framing.encode(id, outgoing.request, &mut bytes) {
                    bytes.truncate(length);
                    pending.refuse(id, error);
                }
            }
        }
        writer.write_all(&bytes).await?;
        writer.flush().await?;
        bytes.clear();
    }
    Ok(())
}

/// Several connections to one peer. Of two connections picked at random, each request goes to the
/// one with fewer requests in flight (Mitzenmacher, "The Power of Two Choices", 2001). Broken
/// connections are skipped. Clones share the connections.
pub struct Balanced<F: Framing> {
    connections: Arc<[Multiplexed<F>]>,
    rng: Arc<Mutex<fastrand::Rng>>,
}

impl<F: Framing> Balanced<F> {
    /// Creates a balancer over the given connections. A seed makes the random choices repeatable.
    #[must_use]
    pub fn new(connections: impl IntoIterator<Item = Multiplexed<F>>, seed: Option<u64>) -> Self {
        Self {
            connections: connections.into_iter().collect(),
            rng: Arc::new(Mutex::new(seed.map_or_else(fastrand::Rng::new, fastrand::Rng::with_seed))),
        }
    }

    /// Sends a request on one of the connections.
    ///
    /// # Errors
    /// The errors of [`Multiplexed::request`]; [`Error::Closed`] if all connections are broken.
    pub async fn request(&self, request: F::Request) -> Result<F::Response, Error> {
        self.pick().ok_or(Error::Closed)?.request(request).await
    }

    /// Selects the connection for the next request.
    #[must_use]
    pub fn pick(&self) -> Option<&Multiplexed<F>> {
        let usable: Vec<_> = self.connections.iter().filter(|connection| !connection.is_broken()).collect();
        let first = {
            let mut rng = self.rng.lock();
            let index = |fraction: f64, count: usize| {
                ((fraction * count as f64) as usize).min(count.saturating_sub(1))
            };
            let first = index(rng.f64(), usable.len());
            // Must differ from the first.
            let second = (first + 1 + index(rng.f64(), usable.len().saturating_sub(1))) % usable.len().max(1);
            [first, second]
        };
        let [first, second] = first.map(|at| usable.get(at).copied());
        match (first, second) {
            (Some(first), Some(second)) if second.in_flight() < first.in_flight() => Some(second),
            (first, _) => first,
        }
    }
}

impl<F: Framing> Clone for Balanced<F> {
    fn clone(&self) -> Self {
        Self { connections: self.connections.clone(), rng: self.rng.clone() }
    }
}

impl<F: Framing> fmt::Debug for Balanced<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.connections.iter()).finish()
    }
}

/// Frames with a header of length and id. The length is a big-endian `u32` and counts the bytes
/// after the header; the id is a big-endian `u64`.
#[derive(Debug, Clone, Copy, Default)]
pub struct LengthFraming;

const HEAD: usize = 12;

impl LengthFraming {
    /// Appends a frame. Servers can use it too.
    ///
    /// # Errors
    /// If `content` is longer than 2^32 - 1 bytes.
    pub fn write(id: u64, content: &[u8], bytes: &mut Vec<u8>) -> io::Result<()> {
        let length = u32::try_from(content.len()).map_err(|_| {
            io::Error::new(io::ErrorKind::InvalidInput, "the content of a frame is 4 GiB or longer")
        })?;
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(&id.to_be_bytes());
        bytes.extend_from_slice(content);
        Ok(())
    }

    /// Splits the first complete frame off `bytes`: total length, id and content.
    #[must_use]
    pub fn read(bytes: &[u8]) -> Option<(usize, u64, &[u8])> {
        let (length, rest) = bytes.split_first_chunk::<4>()?;
        let (id, rest) = rest.split_first_chunk::<8>()?;
        let length = u32::from_be_bytes(*length) as usize;
        Some((HEAD.checked_add(length)?, u64::from_be_bytes(*id), rest.get(..length)?))
    }
}

impl Framing for LengthFraming {
    type Request = Vec<u8>;
    type Response = Vec<u8>;

    fn encode(&mut self, id: u64, request: Vec<u8>, bytes: &mut Vec<u8>) -> io::Result<()> {
        Self::write(id, &request, bytes)
    }

    fn decode(&mut self, bytes: &[u8]) -> io::Result<Option<Frame<Vec<u8>>>> {
        Ok(Self::read(bytes).map(|(bytes, id, content)| Frame {
            bytes,
            id: Some(id),
            response: content.to_vec(),
        }))
    }
}

/// One line for each request and response, in order and without ids. Redis' inline commands,
/// memcached and many tools use this format.
#[derive(Debug, Clone, Copy, Default)]
pub struct LineFraming {
    /// Number of bytes of the first frame that were already searched.
    searched: usize,
}

impl Framing for LineFraming {
    /// The line without its terminator.
    type Request = String;
    /// The line without its terminator.
    type Response = String;

    fn encode(&mut self, _: u64, request: String, bytes: &mut Vec<u8>) -> io::Result<()> {
        if request.contains('\n') {
            // The second line would be another request and shift all later responses.
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a request contains a line break"));
        }
        bytes.extend_from_slice(request.as_bytes());
        bytes.push(b'\n');
        Ok(())
    }

    fn decode(&mut self, bytes: &[u8]) -> io::Result<Option<Frame<String>>> {
        let from = std::mem::take(&mut self.searched).min(bytes.len());
        let Some(at) = bytes[from..].iter().position(|byte| *byte == b'\n') else {
            self.searched = bytes.len();
            return Ok(None);
        };
        let connection = &bytes[..from + at];
        let connection = connection.strip_suffix(b"\r").unwrap_or(connection);
        let response = String::from_utf8(connection.to_vec())
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        Ok(Some(Frame { bytes: from + at + 1, id: None, response }))
    }
}

#[cfg(feature = "json-rpc")]
pub use json_rpc::JsonRpcFraming;

#[cfg(feature = "json-rpc")]
mod json_rpc {
    //! JSON-RPC 2.0 (<https://www.jsonrpc.org/specification>) with one message per line, as in the
    //! Model Context Protocol.

    use std::io;

    use serde_json::{Value, json};

    use super::{Frame, Framing, LineFraming};

    /// One JSON-RPC 2.0 message per line. A response is the complete message with `result` or
    /// `error`. Notifications from the peer are ignored.
    #[derive(Debug, Clone, Copy, Default)]
    pub struct JsonRpcFraming {
        lines: LineFraming,
    }

    impl Framing for JsonRpcFraming {
        /// Method and parameters.
        type Request = (String, Value);
        type Response = Value;

        fn encode(
            &mut self,
            id: u64,
            (method, params): (String, Value),
            bytes: &mut Vec<u8>,
        ) -> io::Result<()> {
            let message = json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params });
            self.lines.encode(id, message.to_string(), bytes)
        }

        fn decode(&mut self, bytes: &[u8]) -> io::Result<Option<Frame<Value>>> {
            let Some(frame) = self.lines.decode(bytes)? else { return Ok(None) };
            let response: Value = serde_json::from_str(&frame.response)?;
            // Messages without a valid id are assigned an id that no request uses: ids count up
            // from zero.
            let id = response.get("id").and_then(Value::as_u64).unwrap_or(u64::MAX);
            Ok(Some(Frame { bytes: frame.bytes, id: Some(id), response }))
        }
    }
}
