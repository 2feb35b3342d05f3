//! Collects requests of many callers into batches.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use crate::callback::{after, call, finish};
use crate::error::Error;

/// Limits of a batch. Numbers below 1 count as 1; numbers above the possible maximum count as that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchOptions {
    /// Maximum number of requests in a batch.
    pub items_max: usize,
    /// Maximum weight of a batch in bytes, as the weigher counts them. A single request may weigh
    /// more.
    pub bytes_max: usize,
    /// Maximum time for which the first request of a batch waits for others while another batch is
    /// in flight. Zero means no waiting. At most a year.
    pub delay_max: Duration,
    /// Maximum number of requests that are queued for a batch. Further callers wait.
    pub queue_max: usize,
    /// Maximum number of batches in flight at once.
    pub in_flight_max: usize,
}

impl Default for BatchOptions {
    /// 64 requests, 1 MiB, 5 ms, 1024 queued requests, 4 batches in flight.
    fn default() -> Self {
        Self {
            items_max: 64,
            bytes_max: 1 << 20,
            delay_max: Duration::from_millis(5),
            queue_max: 1024,
            in_flight_max: 4,
        }
    }
}

/// Counters of a batcher since it was created.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct BatchStats {
    /// Requests passed to the handler.
    pub requests: u64,
    /// Batches passed to the handler.
    pub batches: u64,
    /// Requests in the largest batch.
    pub largest: u64,
}

/// Collects requests and passes them to a handler in batches. Each caller gets its own response.
/// Clones share the queue.
///
/// A batch starts at once if none is in flight, so a lone caller does not wait. Under load, a batch
/// collects requests until it reaches a limit on count, bytes or time. Requests enter batches in
/// the order of the calls; responses may arrive in any order. A request whose caller is dropped
/// before its batch starts is left out. After the last clone is dropped, queued requests are still
/// handled.
///
/// ```
/// use greenwave_pooling::{BatchOptions, Batcher};
///
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// let squares = Batcher::new(BatchOptions::default(), async |numbers: Vec<u64>| {
///     numbers.into_iter().map(|n| n * n).collect()
/// });
/// assert_eq!(squares.submit(7).await?, 49);
/// # Ok::<(), greenwave_pooling::Error>(()) }).unwrap();
/// ```
pub struct Batcher<Q, A> {
    queue: mpsc::Sender<QueuedRequest<Q, A>>,
    counts: Arc<Counts>,
}

struct QueuedRequest<Q, A> {
    payload: Q,
    bytes: usize,
    reply: oneshot::Sender<Result<A, Error>>,
}

#[derive(Debug, Default)]
struct Counts {
    requests: AtomicU64,
    batches: AtomicU64,
    largest: AtomicU64,
}

impl<Q: Send + 'static, A: Send + 'static> Batcher<Q, A> {
    /// Creates a batcher with limits on count and time. The handler returns one response for each
    /// request, in the order of the requests. If single requests can fail, make the response a
    /// `Result`.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn new<F, Fut>(options: BatchOptions, handler: F) -> Self
    where
        F: Fn(Vec<Q>) -> Fut + Send + 'static,
        Fut: Future<Output = Vec<A>> + Send + 'static,
    {
        Self::with_weigher(options, |_| 0, handler)
    }

    /// Creates a batcher like [`with_weigher`](Self::with_weigher), for a handler that fails as a
    /// whole.
    ///
    /// A failed batch is halved repeatedly to find the requests that make it fail, and only these
    /// get the error. If one of n requests is at fault, the handler runs at most 2 log2(n) + 1
    /// times, one run after another.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn bisecting<F, Fut, T, E>(options: BatchOptions, weigh: fn(&Q) -> usize, handler: F) -> Self
    where
        Q: Clone + Sync,
        F: Fn(Vec<Q>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Vec<T>, E>> + Send + 'static,
        A: From<Result<T, E>>,
        T: Send + 'static,
        E: Send + 'static,
    {
        let handler = Arc::new(handler);
        Self::with_weigher(options, weigh, move |requests| split(handler.clone(), requests))
    }

    /// Creates a batcher with limits on count, time and bytes. `weigh` returns the weight of a
    /// request in bytes.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn with_weigher<F, Fut>(options: BatchOptions, weigh: fn(&Q) -> usize, handler: F) -> Self
    where
        F: Fn(Vec<Q>) -> Fut + Send + 'static,
        Fut: Future<Output = Vec<A>> + Send + 'static,
    {
        let (sender, queue) = mpsc::channel(options.queue_max.clamp(1, Semaphore::MAX_PERMITS));
        let counts = Arc::new(Counts::default());
        let worker = BatchWorker {
            options,
            weigh,
            queue,
            is_closed: false,
            overflow: None,
            batch: Vec::new(),
            bytes: 0,
            deadline: None,
            in_flight: JoinSet::new(),
            counts: counts.clone(),
        };
        tokio::spawn(worker.run(handler));
        Self { queue: sender, counts }
    }

    /// Queues a request and waits for its response.
    ///
    /// # Errors
    /// [`Error::Panicked`] if the handler or the weigher panicked, [`Error::BatchResponseCount`] if
    /// the handler returned too many or too few responses, [`Error::BatchAborted`] or
    /// [`Error::Closed`] if the runtime was shut down.
    pub async fn submit(&self, request: Q) -> Result<A, Error> {
        let (reply, response) = oneshot::channel();
        let request = QueuedRequest { payload: request, bytes: 0, reply };
        self.queue.send(request).await.map_err(|_| Error::Closed)?;
        response.await.unwrap_or(Err(Error::BatchAborted))
    }

    /// Returns the counters.
    #[must_use]
    pub fn stats(&self) -> BatchStats {
        // The counters are independent of each other, so no ordering is needed.
        BatchStats {
            requests: self.counts.requests.load(Ordering::Relaxed),
            batches: self.counts.batches.load(Ordering::Relaxed),
            largest: self.counts.largest.load(Ordering::Relaxed),
        }
    }
}

impl<Q, A> Clone for Batcher<Q, A> {
    fn clone(&self) -> Self {
        Self { queue: self.queue.clone(), counts: self.counts.clone() }
    }
}

impl<Q, A> fmt::Debug for Batcher<Q, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batcher").field("counts", &self.counts).finish_non_exhaustive()
    }
}

struct BatchWorker<Q, A> {
    options: BatchOptions,
    weigh: fn(&Q) -> usize,
    queue: mpsc::Receiver<QueuedRequest<Q, A>>,
    is_closed: bool,
    /// A request that exceeded the weight of the batch: the first one of the next batch.
    overflow: Option<QueuedRequest<Q, A>>,
    batch: Vec<QueuedRequest<Q, A>>,
    bytes: usize,
    /// The time at which the batch stops collecting.
    deadline: Option<Instant>,
    in_flight: JoinSet<()>,
    counts: Arc<Counts>,
}

impl<Q: Send + 'static, A: Send + 'static> BatchWorker<Q, A> {
    async fn run<F, Fut>(mut self, handler: F)
    where
        F: Fn(Vec<Q>) -> Fut + Send + 'static,
        Fut: Future<Output = Vec<A>> + Send + 'static,
    {
        loop {
            self.collect();
            if self.is_due(Instant::now()) {
                self.dispatch(&handler);
                continue;
            }
            if self.is_closed && self.batch.is_empty() && self.in_flight.is_empty() {
                return;
            }
            let may_dispatch = self.may_dispatch();
            let deadline = self.deadline;
            tokio::select! {
                biased;
                Some(_) = self.in_flight.join_next(), if !self.in_flight.is_empty() => {}
                request = self.queue.recv(), if !self.is_closed && !self.is_full() => match request {
                    Some(request) => self.take(request),
                    None => self.is_closed = true,
                },
                () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() && may_dispatch => {}
            }
        }
    }

    /// Takes the requests that are already queued.
    fn collect(&mut self) {
        while !self.is_full() {
            match self.queue.try_recv() {
                Ok(request) => self.take(request),
                Err(mpsc::error::TryRecvError::Empty) => return,
                Err(mpsc::error::TryRecvError::Disconnected) => {
                    self.is_closed = true;
                    return;
                }
            }
        }
    }

    fn take(&mut self, mut request: QueuedRequest<Q, A>) {
        debug_assert!(self.overflow.is_none(), "no request is taken while the overflow slot is full");
        request.bytes = match call("weigh", || (self.weigh)(&request.payload)) {
            Ok(bytes) => bytes,
            Err(error) => {
                let _gone = request.reply.send(Err(error));
                discard(request.payload);
                return;
            }
        };
        if !self.batch.is_empty() && self.bytes.saturating_add(request.bytes) > self.options.bytes_max {
            self.overflow = Some(request);
        } else {
            self.add(request);
        }
    }

    fn add(&mut self, request: QueuedRequest<Q, A>) {
        self.bytes = self.bytes.saturating_add(request.bytes);
        self.deadline.get_or_insert_with(|| after(Instant::now(), self.options.delay_max));
        self.batch.push(request);
    }

    fn is_full(&self) -> bool {
        let is_heavy = !self.batch.is_empty() && self.bytes >= self.options.bytes_max.max(1);
        self.overflow.is_some() || is_heavy || self.batch.len() >= self.options.items_max.max(1)
    }

    fn may_dispatch(&self) -> bool {
        self.in_flight.len() < self.options.in_flight_max.max(1)
    }

    fn is_due(&self, now: Instant) -> bool {
        let is_late = self.deadline.is_some_and(|deadline| deadline <= now);
        !self.batch.is_empty()
            && self.may_dispatch()
            && (self.in_flight.is_empty() || self.is_full() || is_late || self.is_closed)
    }

    fn dispatch<F, Fut>(&mut self, handler: &F)
    where
        F: Fn(Vec<Q>) -> Fut,
        Fut: Future<Output = Vec<A>> + Send + 'static,
    {
        let batch = std::mem::take(&mut self.batch);
        self.bytes = 0;
        self.deadline = None;
        if let Some(overflow) = self.overflow.take() {
            self.add(overflow);
        }
        let (batch, abandoned): (Vec<_>, Vec<_>) =
            batch.into_iter().partition(|request| !request.reply.is_closed());
        abandoned.into_iter().for_each(|request| discard(request.payload));
        if batch.is_empty() {
            return;
        }
        self.counts.add(batch.len() as u64);
        let (requests, replies): (Vec<_>, Vec<_>) =
            batch.into_iter().map(|request| (request.payload, request.reply)).unzip();
        // Called here rather than in the task, because the handler need not be `Sync`.
        let responses = call("handler", || handler(requests));
        self.in_flight.spawn(async move {
            let responses = match responses {
                Ok(responses) => finish("handler", responses).await,
                Err(error) => Err(error),
            };
            match responses {
                Ok(responses) => reply_all(replies, responses),
                Err(error) => refuse_all(replies, &error),
            }
        });
    }
}

/// Handles the batch and, if it fails, its halves.
async fn split<Q, A, T, E, F, Fut>(handler: Arc<F>, requests: Vec<Q>) -> Vec<A>
where
    Q: Clone,
    F: Fn(Vec<Q>) -> Fut,
    Fut: Future<Output = Result<Vec<T>, E>>,
    A: From<Result<T, E>>,
{
    let mut responses = Vec::with_capacity(requests.len());
    // Ranges still to be handled, the next one last, so that responses come in order.
    let mut pending: Vec<_> = std::iter::once(0..requests.len()).collect();
    while let Some(range) = pending.pop() {
        match handler(requests[range.clone()].to_vec()).await {
            // Too many responses in one half and too few in the other must not shift responses to
            // the wrong callers.
            Ok(returned) if returned.len() != range.len() => return Vec::new(),
            Ok(returned) => responses.extend(returned.into_iter().map(|response| A::from(Ok(response)))),
            Err(error) if range.len() <= 1 => responses.push(A::from(Err(error))),
            Err(_) => {
                let middle = range.start + range.len() / 2;
                pending.extend([middle..range.end, range.start..middle]);
            }
        }
    }
    responses
}

/// Sends a panic to all callers. Errors cannot be cloned, so the message is.
fn refuse_all<A>(replies: Vec<oneshot::Sender<Result<A, Error>>>, error: &Error) {
    let Error::Panicked { callback, message } = error else { return };
    for reply in replies {
        let _gone = reply.send(Err(Error::Panicked { callback, message: message.clone() }));
    }
}

fn reply_all<A>(replies: Vec<oneshot::Sender<Result<A, Error>>>, responses: Vec<A>) {
    let (expected, returned) = (replies.len(), responses.len());
    if expected != returned {
        for reply in replies {
            let _gone = reply.send(Err(Error::BatchResponseCount { expected, returned }));
        }
        return;
    }
    for (reply, response) in replies.into_iter().zip(responses) {
        let _gone = reply.send(Ok(response));
    }
}

impl Counts {
    fn add(&self, requests: u64) {
        self.requests.fetch_add(requests, Ordering::Relaxed);
        self.batches.fetch_add(1, Ordering::Relaxed);
        self.largest.fetch_max(requests, Ordering::Relaxed);
    }
}

/// Drops a request. A panic in its drop must not end the worker.
fn discard<Q>(request: Q) {
    let _panicked = call("drop", || drop(request));
}
