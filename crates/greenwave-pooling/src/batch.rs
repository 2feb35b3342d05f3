//! One call for many callers. Knows nothing of what the call does.

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

/// When a batch is complete. Numbers below 1 count as 1, and numbers that are too large as the largest
/// that is possible.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchOptions {
    /// Requests in a batch.
    pub items_max: usize,
    /// Bytes in a batch, as weighed; a single request may be heavier.
    pub bytes_max: usize,
    /// How long the first request of a batch waits for others while another batch is under way: zero for
    /// not at all, at most a year.
    pub delay_max: Duration,
    /// Requests that wait to be taken into a batch; further callers wait.
    pub queue_max: usize,
    /// Batches under way at once.
    pub in_flight_max: usize,
}

impl Default for BatchOptions {
    /// 64 requests, 1 MiB, 5 ms, 1024 queued, 4 batches at once.
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

/// Counters of a batcher since its start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct BatchStats {
    /// Requests handed to the handler.
    pub requests: u64,
    /// Batches they were in.
    pub batches: u64,
    /// Requests in the largest batch.
    pub largest: u64,
}

/// Collects requests and hands them to a handler in batches; each caller gets its own answer. Cloning shares it.
///
/// A batch leaves at once when none is under way, so that a lone caller waits for nobody; under load it collects by count, bytes and time.
/// Callers are answered in any order, but taken in the order they came. A caller that goes away before its batch leaves is left out of it.
/// When the last clone is gone, what is queued is still handled.
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
    queue: mpsc::Sender<Request<Q, A>>,
    counts: Arc<Counts>,
}

struct Request<Q, A> {
    question: Q,
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
    /// Batches by count and time. The handler answers each request of a batch, in their order; where some may fail, the answer is a result.
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

    /// As [`with_weigher`](Self::with_weigher), for a handler that fails as a whole: such a batch is halved, again and again, to find the requests that
    /// made it fail; only those get the error. Of n requests with one culprit, at most 2 log2(n) + 1 batches are handled, one after another.
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
        Self::with_weigher(options, weigh, move |questions| split(handler.clone(), questions))
    }

    /// Batches by count, time and bytes, as `weigh` counts them.
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
        let worker = Worker {
            options,
            weigh,
            queue,
            is_closed: false,
            held: None,
            batch: Vec::new(),
            bytes: 0,
            deadline: None,
            in_flight: JoinSet::new(),
            counts: counts.clone(),
        };
        tokio::spawn(worker.run(handler));
        Self { queue: sender, counts }
    }

    /// Waits for a place in the queue, and then for the answer.
    ///
    /// # Errors
    /// [`Error::Panicked`] if the handler did, or what weighs the question; [`Error::BatchResponseCount`] if it answered too many or too few, [`Error::Closed`] if the
    /// runtime has gone.
    pub async fn submit(&self, question: Q) -> Result<A, Error> {
        let (reply, answer) = oneshot::channel();
        let request = Request { question, bytes: 0, reply };
        self.queue.send(request).await.map_err(|_| Error::Closed)?;
        answer.await.unwrap_or(Err(Error::BatchAborted))
    }

    /// What it has counted so far.
    #[must_use]
    pub fn stats(&self) -> BatchStats {
        // Counters of their own: nothing is read by their order.
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

struct Worker<Q, A> {
    options: BatchOptions,
    weigh: fn(&Q) -> usize,
    queue: mpsc::Receiver<Request<Q, A>>,
    is_closed: bool,
    /// A request that was too heavy for the batch: the first of the next one.
    held: Option<Request<Q, A>>,
    batch: Vec<Request<Q, A>>,
    bytes: usize,
    /// Until when the batch may collect.
    deadline: Option<Instant>,
    in_flight: JoinSet<()>,
    counts: Arc<Counts>,
}

impl<Q: Send + 'static, A: Send + 'static> Worker<Q, A> {
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

    /// Takes what is queued already.
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

    fn take(&mut self, mut request: Request<Q, A>) {
        debug_assert!(self.held.is_none(), "nothing is taken while a request is held");
        request.bytes = match call("weigh", || (self.weigh)(&request.question)) {
            Ok(bytes) => bytes,
            Err(error) => {
                let _gone = request.reply.send(Err(error));
                return;
            }
        };
        if !self.batch.is_empty() && self.bytes.saturating_add(request.bytes) > self.options.bytes_max {
            self.held = Some(request);
        } else {
            self.add(request);
        }
    }

    fn add(&mut self, request: Request<Q, A>) {
        self.bytes = self.bytes.saturating_add(request.bytes);
        self.deadline.get_or_insert_with(|| after(Instant::now(), self.options.delay_max));
        self.batch.push(request);
    }

    fn is_full(&self) -> bool {
        let is_heavy = !self.batch.is_empty() && self.bytes >= self.options.bytes_max.max(1);
        self.held.is_some() || is_heavy || self.batch.len() >= self.options.items_max.max(1)
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
        let mut batch = std::mem::take(&mut self.batch);
        self.bytes = 0;
        self.deadline = None;
        if let Some(held) = self.held.take() {
            self.add(held);
        }
        batch.retain(|request| !request.reply.is_closed());
        if batch.is_empty() {
            return;
        }
        self.counts.add(batch.len() as u64);
        let (questions, replies): (Vec<_>, Vec<_>) =
            batch.into_iter().map(|request| (request.question, request.reply)).unzip();
        // Called here, since the handler need not be shared between threads.
        let answers = call("handler", || handler(questions));
        self.in_flight.spawn(async move {
            let answers = match answers {
                Ok(answers) => finish("handler", answers).await,
                Err(error) => Err(error),
            };
            match answers {
                Ok(answers) => reply_all(replies, answers),
                Err(error) => refuse_all(replies, &error),
            }
        });
    }
}

/// Handles the batch; if it fails, its halves.
async fn split<Q, A, T, E, F, Fut>(handler: Arc<F>, questions: Vec<Q>) -> Vec<A>
where
    Q: Clone,
    F: Fn(Vec<Q>) -> Fut,
    Fut: Future<Output = Result<Vec<T>, E>>,
    A: From<Result<T, E>>,
{
    let mut answers = Vec::with_capacity(questions.len());
    // What is left to do, the next one at the end: so answers come in order.
    let mut left: Vec<_> = std::iter::once(0..questions.len()).collect();
    while let Some(range) = left.pop() {
        match handler(questions[range.clone()].to_vec()).await {
            // One that answers too many in one half and too few in the other is not to have answers change places.
            Ok(found) if found.len() != range.len() => return Vec::new(),
            Ok(found) => answers.extend(found.into_iter().map(|answer| A::from(Ok(answer)))),
            Err(error) if range.len() <= 1 => answers.push(A::from(Err(error))),
            Err(_) => {
                let middle = range.start + range.len() / 2;
                left.extend([middle..range.end, range.start..middle]);
            }
        }
    }
    answers
}

/// A panic for all: the message is cloned, since errors are not.
fn refuse_all<A>(replies: Vec<oneshot::Sender<Result<A, Error>>>, error: &Error) {
    let Error::Panicked { callback, message } = error else { return };
    for reply in replies {
        let _gone = reply.send(Err(Error::Panicked { callback, message: message.clone() }));
    }
}

fn reply_all<A>(replies: Vec<oneshot::Sender<Result<A, Error>>>, answers: Vec<A>) {
    let (expected, found) = (replies.len(), answers.len());
    if expected != found {
        for reply in replies {
            let _gone = reply.send(Err(Error::BatchResponseCount { expected, found }));
        }
        return;
    }
    for (reply, answer) in replies.into_iter().zip(answers) {
        let _gone = reply.send(Ok(answer));
    }
}

impl Counts {
    fn add(&self, requests: u64) {
        self.requests.fetch_add(requests, Ordering::Relaxed);
        self.batches.fetch_add(1, Ordering::Relaxed);
        self.largest.fetch_max(requests, Ordering::Relaxed);
    }
}
