//! Many requests in flight on one connection. Knows nothing of what is asked, nor how a frame is written.

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

/// How requests and answers stand in a stream of bytes, and which belong together.
///
/// # Contract
///
/// - `encode` appends the whole frame of one request, with its `id` in it where the protocol has ids. An error fails that request
///   only, and what was appended is taken back.
/// - `decode` takes the first whole frame from the front of `bytes`, if there is one, and says how long it was. It is called again with
///   more bytes when it says `None`, and should not begin from the start each time if frames are long.
/// - A frame with the id of no request is left aside: an answer to a request that was given up.
/// - Without ids (`None`) answers come in the order of the requests. A framing gives ids always or never.
/// - An error or a panic in `decode`, or a panic in `encode`, ends the connection, and with it the
///   requests that it carried.
pub trait Framing: fmt::Debug + Send + 'static {
    /// What is asked.
    type Request: Send + 'static;
    /// What is answered.
    type Response: Send + 'static;

    /// Appends the frame of a request.
    ///
    /// # Errors
    /// If the request cannot be written in the protocol.
    fn encode(&mut self, id: u64, request: Self::Request, bytes: &mut Vec<u8>) -> io::Result<()>;

    /// The first frame, and how many bytes of the front it took.
    ///
    /// # Errors
    /// If the bytes are not of the protocol.
    fn decode(&mut self, bytes: &[u8]) -> io::Result<Option<Frame<Self::Response>>>;
}

/// A frame that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame<A> {
    /// Bytes of the front that it took.
    pub bytes: usize,
    /// Which request it answers; `None` for the one that has waited longest.
    pub id: Option<u64>,
    /// What was answered.
    pub response: A,
}

/// Limits of [`Multiplexed`]. Each at least 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MultiplexedOptions {
    /// Requests in flight on one connection; further callers wait, first come, first served.
    pub in_flight_max: usize,
    /// Bytes of one frame.
    pub frame_bytes_max: usize,
}

impl Default for MultiplexedOptions {
    /// 128 requests, 8 MiB.
    fn default() -> Self {
        Self { in_flight_max: 128, frame_bytes_max: 8 << 20 }
    }
}

/// Sends many requests on one connection without waiting for answers in between. Cloning shares it.
///
/// When the connection breaks, exactly the requests that it carried fail, with [`Error::ConnectionLost`]. A caller that goes away gives its request
/// up; its answer is left aside. When the last clone is gone, the connection is closed.
pub struct Multiplexed<F: Framing> {
    line: Arc<Line<F>>,
}

struct Line<F: Framing> {
    requests: mpsc::UnboundedSender<Outgoing<F>>,
    places: Arc<Semaphore>,
    in_flight_max: usize,
    pending: Arc<Pending<F::Response>>,
    tasks: [JoinHandle<()>; 2],
}

struct Outgoing<F: Framing> {
    request: F::Request,
    waiting: Waiting<F::Response>,
}

/// Who waits for an answer, and the place in flight, which is kept until the answer has come or cannot come any more.
struct Waiting<A> {
    reply: oneshot::Sender<Result<A, Error>>,
    _place: OwnedSemaphorePermit,
}

struct Pending<A> {
    state: Mutex<State<A>>,
}

struct State<A> {
    /// In the order they were sent: for protocols without ids.
    order: VecDeque<u64>,
    by_id: HashMap<u64, Waiting<A>>,
    next_id: u64,
    broken: Option<Arc<io::Error>>,
}

impl<F: Framing> Multiplexed<F> {
    /// Takes over a connection.
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
            state: Mutex::new(State {
                order: VecDeque::new(),
                by_id: HashMap::new(),
                next_id: 0,
                broken: None,
            }),
        });
        let in_flight_max = options.in_flight_max.clamp(1, Semaphore::MAX_PERMITS);
        let places = Arc::new(Semaphore::new(in_flight_max));
        // As many as there are places at most: who has none does not send.
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
        Self { line: Arc::new(Line { requests, places, in_flight_max, pending, tasks }) }
    }

    /// Sends a request as soon as there is a place in flight, and waits for its answer. May be cancelled.
    ///
    /// # Errors
    /// [`Error::ConnectionLost`] if the connection broke before the answer came.
    pub async fn request(&self, request: F::Request) -> Result<F::Response, Error> {
        let line = &self.line;
        let place = line.places.clone().acquire_owned().await.map_err(|_| Error::Closed)?;
        line.pending.check()?;
        let (reply, answer) = oneshot::channel();
        let outgoing = Outgoing { request, waiting: Waiting { reply, _place: place } };
        if line.requests.send(outgoing).is_err() {
            line.pending.check()?;
            return Err(Error::Closed);
        }
        match answer.await {
            Ok(answered) => answered,
            Err(_) => Err(line.pending.check().err().unwrap_or(Error::Closed)),
        }
    }

    /// Requests in flight.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.line.in_flight_max - self.line.places.available_permits()
    }

    /// Whether it broke: no further request can succeed.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        self.line.pending.check().is_err()
    }
}

impl<F: Framing> Clone for Multiplexed<F> {
    fn clone(&self) -> Self {
        Self { line: self.line.clone() }
    }
}

impl<F: Framing> fmt::Debug for Multiplexed<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Multiplexed").field("in_flight", &self.in_flight()).finish_non_exhaustive()
    }
}

impl<F: Framing> Drop for Line<F> {
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

    /// Notes who waits, and returns the id to send; `None` if there is no point any more.
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

    fn answer(&self, id: Option<u64>, answer: A) -> io::Result<()> {
        let waiting = {
            let mut state = self.state.lock();
            let id = match id {
                Some(id) => Some(id),
                None => state.order.pop_front(),
            };
            let Some(id) = id else {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "an answer that nobody asked for"));
            };
            let waiting = state.by_id.remove(&id);
            // Ids that were answered out of order are left until they come to the front.
            while state.order.front().is_some_and(|front| !state.by_id.contains_key(front)) {
                state.order.pop_front();
            }
            waiting
        };
        if let Some(waiting) = waiting {
            let _gone = waiting.reply.send(Ok(answer));
        }
        Ok(())
    }

    /// A request was not sent.
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

    /// The connection broke: all that it carried fails, and nothing more is taken.
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
                Ok(Some(frame)) => {
                    taken += frame.bytes.min(bytes.len() - taken);
                    if let Err(error) = pending.answer(frame.id, frame.response) {
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
            return io::Error::new(
                io::ErrorKind::InvalidData,
                format!("a frame of over {frame_bytes_max} bytes"),
            );
        }
        match reader.read_buf(&mut bytes).await {
            Ok(0) => return io::ErrorKind::UnexpectedEof.into(),
            Ok(_) => {}
            Err(error) => return error,
        }
    }
}

/// Writes what is queued, as much at once as there is.
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

/// Several connections to one peer; each request goes to the one of two, picked by rng, that has fewer in flight (Mitzenmacher, "The
/// Power of Two Choices", 2001). Those that broke are passed over. Cloning shares it.
pub struct Balanced<F: Framing> {
    lines: Arc<[Multiplexed<F>]>,
    rng: Arc<Mutex<fastrand::Rng>>,
}

impl<F: Framing> Balanced<F> {
    /// Of these connections. A seed makes the picks repeatable.
    #[must_use]
    pub fn new(lines: impl IntoIterator<Item = Multiplexed<F>>, seed: Option<u64>) -> Self {
        Self {
            lines: lines.into_iter().collect(),
            rng: Arc::new(Mutex::new(seed.map_or_else(fastrand::Rng::new, fastrand::Rng::with_seed))),
        }
    }

    /// Sends a request on one of the connections.
    ///
    /// # Errors
    /// As [`Multiplexed::request`]; [`Error::Closed`] if all are broken.
    pub async fn request(&self, request: F::Request) -> Result<F::Response, Error> {
        self.pick().ok_or(Error::Closed)?.request(request).await
    }

    /// The connection that the next request should go to.
    #[must_use]
    pub fn pick(&self) -> Option<&Multiplexed<F>> {
        let whole: Vec<_> = self.lines.iter().filter(|line| !line.is_broken()).collect();
        let first = {
            let mut rng = self.rng.lock();
            let of = |fraction: f64, count: usize| {
                ((fraction * count as f64) as usize).min(count.saturating_sub(1))
            };
            let first = of(rng.f64(), whole.len());
            // Another one than the first.
            let second = (first + 1 + of(rng.f64(), whole.len().saturating_sub(1))) % whole.len().max(1);
            [first, second]
        };
        let [first, second] = first.map(|at| whole.get(at).copied());
        match (first, second) {
            (Some(first), Some(second)) if second.in_flight() < first.in_flight() => Some(second),
            (first, _) => first,
        }
    }
}

impl<F: Framing> Clone for Balanced<F> {
    fn clone(&self) -> Self {
        Self { lines: self.lines.clone(), rng: self.rng.clone() }
    }
}

impl<F: Framing> fmt::Debug for Balanced<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.lines.iter()).finish()
    }
}

/// Frames with their length and id before them: four bytes of length, eight of id, both with the highest byte first; the length counts what
/// comes after the id.
#[derive(Debug, Clone, Copy, Default)]
pub struct LengthFraming;

const HEAD: usize = 12;

impl LengthFraming {
    /// Appends a frame: for the other side.
    ///
    /// # Errors
    /// If there are more than 2^32 - 1 bytes.
    pub fn write(id: u64, content: &[u8], bytes: &mut Vec<u8>) -> io::Result<()> {
        let length = u32::try_from(content.len())
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "a frame of 4 GiB or more"))?;
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(&id.to_be_bytes());
        bytes.extend_from_slice(content);
        Ok(())
    }

    /// The first frame of `bytes`, if it is whole: length in all, id, content.
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

/// A line for a request and a line for its answer, in order and without ids: what Redis' inline commands, memcached and many tools speak.
#[derive(Debug, Clone, Copy, Default)]
pub struct LineFraming {
    /// Bytes of the first frame that were searched already.
    searched: usize,
}

impl Framing for LineFraming {
    /// Without its end.
    type Request = String;
    /// Without its end.
    type Response = String;

    fn encode(&mut self, _: u64, request: String, bytes: &mut Vec<u8>) -> io::Result<()> {
        if request.contains('\n') {
            // It would be another request, and put all answers after it out of order.
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a line break within a line"));
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
        let line = &bytes[..from + at];
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let response = String::from_utf8(line.to_vec())
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        Ok(Some(Frame { bytes: from + at + 1, id: None, response }))
    }
}

#[cfg(feature = "json-rpc")]
pub use json_rpc::JsonRpcFraming;

#[cfg(feature = "json-rpc")]
mod json_rpc {
    //! JSON-RPC 2.0 (<https://www.jsonrpc.org/specification>), one message a line, as the Model Context Protocol has it.

    use std::io;

    use serde_json::{Value, json};

    use super::{Frame, Framing, LineFraming};

    /// One JSON-RPC 2.0 message a line. Answers are whole messages, with `result` or `error`; notifications of the other side are left aside.
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
            // What has no id of ours is given one that nobody has: the ids of a connection begin at zero and never get there.
            let id = response.get("id").and_then(Value::as_u64).unwrap_or(u64::MAX);
            Ok(Some(Frame { bytes: frame.bytes, id: Some(id), response }))
        }
    }
}
