//! Records exchanges with model servers and runs of programs in a directory, and replays them
//! without a network and without the programs.

mod changes;
mod exchange;
mod program;

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use greenwave_dir::Dir;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::time::Instant;

pub(crate) use self::exchange::Exchange;
use self::exchange::{Chunk, difference};
pub(crate) use self::program::{record_program, replay_program};
use crate::Error;

/// Ending of the files.
const SUFFIX: &str = ".json.zst";
/// Maximum size of a file, in bytes, also when it is decompressed.
const FILE_BYTES_MAX: u64 = 64 << 20;
type Mask = Box<dyn Fn(&str) -> String + Send + Sync>;

/// Exchanges with model servers and runs of programs, in the files of a directory. Clones and
/// agents share them.
///
/// Each file holds one request, and the response with the delay of each chunk, as JSON that is
/// compressed with zstd. Keys are sent in headers, which are not recorded. A request that could not
/// be sent is not recorded either. For a program, the response is its standard output, and the file
/// also holds its standard error, its exit status and the files that it has changed.
#[derive(Clone)]
pub struct Recording(Arc<Shared>);

struct Shared {
    directory: Dir,
    mask: Mask,
    mode: Mutex<Mode>,
}

enum Mode {
    /// Number of the next exchange, and the first error of a file.
    Record { next: u64, failed: Option<io::Error> },
    /// The exchanges in the order of their requests, and whether each was replayed.
    Replay(Vec<(Arc<Exchange>, bool)>),
}

impl fmt::Debug for Recording {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Recording").field("directory", &self.0.directory.path()).finish_non_exhaustive()
    }
}

impl Recording {
    /// Records exchanges in a directory, which is created if it does not exist. Exchanges that it
    /// has already stay, and come first. `mask` removes secrets from text before it is written. It
    /// sees requests and whole responses, so it does not find a secret that a model spells over
    /// several events.
    ///
    /// # Errors
    /// [`Error::Recording`] if the directory cannot be used.
    pub fn record(
        directory: &Path,
        mask: impl Fn(&str) -> String + Send + Sync + 'static,
    ) -> Result<Self, Error> {
        let opened = Dir::create(directory, 0o700).and_then(|opened| Ok((files(&opened)?, opened)));
        let (files, opened) = opened.map_err(failed("record in", directory))?;
        let next = files.last().and_then(|name| name.split('-').next()?.parse().ok()).unwrap_or(0_u64);
        Ok(Self::new(opened, mask, Mode::Record { next: next.saturating_add(1), failed: None }))
    }

    /// Replays the exchanges of a directory. `mask` must be the one of the recording.
    ///
    /// # Errors
    /// [`Error::Recording`] if a file cannot be read.
    pub fn replay(
        directory: &Path,
        mask: impl Fn(&str) -> String + Send + Sync + 'static,
    ) -> Result<Self, Error> {
        let opened = Dir::open(directory).map_err(failed("replay", directory))?;
        let mut exchanges = Vec::new();
        for name in files(&opened).map_err(failed("replay", directory))? {
            let content = opened.read(&name, FILE_BYTES_MAX);
            let exchange = content.and_then(|content| Exchange::decode(&name, &content, FILE_BYTES_MAX));
            let exchange = exchange.map_err(failed("replay", &directory.join(&name)))?;
            exchanges.push((Arc::new(exchange), false));
        }
        Ok(Self::new(opened, mask, Mode::Replay(exchanges)))
    }

    fn new(directory: Dir, mask: impl Fn(&str) -> String + Send + Sync + 'static, mode: Mode) -> Self {
        Self(Arc::new(Shared { directory, mask: Box::new(mask), mode: Mutex::new(mode) }))
    }

    /// Returns whether exchanges are replayed.
    #[must_use]
    pub fn is_replay(&self) -> bool {
        matches!(*self.0.mode.lock(), Mode::Replay(_))
    }

    /// Begins to record an exchange.
    ///
    /// # Errors
    /// [`Error::Recording`] if an earlier exchange could not be written.
    pub(crate) fn begin(&self, path: &str, body: &str) -> Result<Recorder, Error> {
        let path = (self.0.mask)(path);
        let request = self.request(body);
        let mut mode = self.0.mode.lock();
        let Mode::Record { next, failed: earlier } = &mut *mode else {
            let error = io::Error::other("it is replayed");
            return Err(failed("record in", self.0.directory.path())(error));
        };
        if let Some(error) = earlier.take() {
            return Err(failed("record in", self.0.directory.path())(error));
        }
        let name = format!("{next:06}-{:.8}{SUFFIX}", blake3::hash(body.as_bytes()).to_hex());
        *next = next.saturating_add(1);
        drop(mode);
        let exchange = Exchange::new(name, path, request);
        Ok(Recorder { recording: self.clone(), exchange, bytes: Vec::new(), last: Instant::now() })
    }

    /// Returns the exchange of a request: the first one that was not replayed yet, or else the last
    /// one.
    ///
    /// # Errors
    /// [`Error::NotRecorded`] with the difference to the nearest request.
    pub(crate) fn find(&self, source_name: &str, path: &str, body: &str) -> Result<Arc<Exchange>, Error> {
        let request = self.request(body);
        let path = (self.0.mask)(path);
        let mut mode = self.0.mode.lock();
        let Mode::Replay(exchanges) = &mut *mode else {
            let error = io::Error::other("it is recorded");
            return Err(failed("replay", self.0.directory.path())(error));
        };
        let fits = |exchange: &Exchange| exchange.path == path && exchange.request == request;
        let fitting = exchanges.iter().position(|(exchange, is_used)| !is_used && fits(exchange));
        let fitting = fitting.or_else(|| exchanges.iter().rposition(|(exchange, _)| fits(exchange)));
        if let Some((exchange, is_used)) = fitting.and_then(|at| exchanges.get_mut(at)) {
            *is_used = true;
            return Ok(Arc::clone(exchange));
        }
        let known = exchanges.iter().map(|(exchange, _)| &**exchange).filter(|known| known.path == path);
        let difference = difference(known, &request);
        Err(Error::NotRecorded { source_name: source_name.to_owned(), difference })
    }

    /// Returns the body of a request without secrets.
    fn request(&self, body: &str) -> Value {
        let masked = (self.0.mask)(body);
        serde_json::from_str(&masked).unwrap_or(Value::String(masked))
    }

    fn write(&self, exchange: &Exchange) {
        let content = exchange.encode(FILE_BYTES_MAX);
        let written =
            content.and_then(|content| self.0.directory.replace_file(&exchange.name, &content, 0o600));
        if let (Err(error), Mode::Record { failed, .. }) = (written, &mut *self.0.mode.lock()) {
            *failed = Some(error);
        }
    }
}

/// Records one exchange, and writes it when it is dropped, unless there was no response.
#[derive(Debug)]
pub(crate) struct Recorder {
    recording: Recording,
    exchange: Exchange,
    /// The response up to now.
    bytes: Vec<u8>,
    last: Instant,
}

impl Recorder {
    /// Records the start of the response, with these headers.
    #[cfg(feature = "http")]
    pub(crate) fn head(&mut self, status: u16, headers: &[(&str, &str)]) {
        self.exchange.status = status;
        self.exchange.delay = self.lap();
        let masked = |(name, value): &(&str, &str)| ((*name).to_owned(), (self.recording.0.mask)(value));
        self.exchange.headers = headers.iter().map(masked).collect();
    }

    /// Records the next chunk.
    pub(crate) fn chunk(&mut self, chunk: &[u8]) {
        let delay = self.lap();
        self.exchange.chunks.push(Chunk { delay, bytes: chunk.len() });
        self.bytes.extend_from_slice(chunk);
    }

    /// Records that the connection was lost.
    #[cfg(feature = "http")]
    pub(crate) fn lost(&mut self) {
        self.exchange.is_lost = true;
    }

    fn lap(&mut self) -> Duration {
        let now = Instant::now();
        now - std::mem::replace(&mut self.last, now)
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        if self.exchange.status > 0 || self.exchange.end.is_some() {
            self.exchange.set_body(std::mem::take(&mut self.bytes), &self.recording.0.mask);
            self.recording.write(&self.exchange);
        }
    }
}

/// Returns the names of the files of exchanges, in order.
fn files(directory: &Dir) -> io::Result<Vec<String>> {
    let names = directory.entries()?.into_iter().filter_map(|entry| entry.name.into_string().ok());
    let mut names: Vec<String> = names.filter(|name| name.ends_with(SUFFIX)).collect();
    names.sort_unstable();
    Ok(names)
}

fn failed(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error + use<> {
    let path = path.to_owned();
    move |source| Error::Recording { operation, path, source }
}
