//! A process while it runs: its output, its trace and its end.

use std::io;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

use greenwave_process::Child;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::time::Instant;

use crate::harness::OutputDecoder;
use crate::plain_text::LEFT_OUT;
use crate::run::observation::{Observation, Seen};
use crate::run::output_observer::OutputObserver;
use crate::run::slots::TestSlot;
use crate::{CaseReport, Test};

/// Maximum number of captured bytes of an output: half from its start, half from its end.
const OUTPUT_BYTES_MAX: usize = 256 * 1024;
/// Time that a test gets to exit after `SIGTERM` when its time limit is exceeded.
const GRACE: Duration = Duration::from_millis(500);

/// Time that descendants of a test may outlive it before they count as left behind.
const LEAK: Duration = Duration::from_millis(200);

/// A process that was started and has not been waited for. Dropping it kills the process and all
/// its descendants.
pub(crate) struct RunningProcess {
    pub(super) child: Child,
    pub(super) output: CapturedOutput,
    pub(super) observation: Observation,
    pub(super) started: Instant,
    /// Start time in nanoseconds since the Unix epoch.
    pub(super) began: i64,
    /// The working directory.
    pub(super) directory: PathBuf,
    /// The private directory.
    pub(super) own: PathBuf,
    /// The exit, if it was waited for already.
    pub(super) ended: Option<Exit>,
    /// The slot that the process uses, if they are limited.
    pub(super) slot: Option<TestSlot>,
}

/// The exit status of a process, and whether other processes outlived it.
pub(super) type Exit = io::Result<(ExitStatus, bool)>;

/// The receiver of output, with the test that the output belongs to.
pub(super) type Observe<'a> = Option<(&'a OutputObserver, &'a Test)>;

impl RunningProcess {
    /// Waits for the process to exit, and kills it after `time_max`.
    pub(super) async fn exit(&mut self, time_max: Duration) {
        let Self { child, output, ended, .. } = self;
        // Neither its output nor its status is of interest.
        let _ = attend(child, output, ended.take(), None, time_max).await;
    }

    /// Returns the trace up to the process's mark. `None` if the process does not reach it within
    /// the time.
    pub(super) async fn marked(
        &mut self,
        observe: Observe<'_>,
        servers: &[String],
        time_max: Duration,
    ) -> Option<Seen> {
        let Self { child, output, observation, ended, own, .. } = self;
        let exits = async {
            let (exit, read) = tokio::join!(child.wait_for_group(LEAK), output.read(observe));
            read.and(exit)
        };
        tokio::select! {
            biased;
            seen = observation.marked(own, servers) => seen,
            exit = exits => {
                *ended = Some(exit);
                None
            }
            () = tokio::time::sleep(time_max) => None,
        }
    }
}

/// The end of a command.
pub(super) struct Ended {
    /// `None` if the time limit was exceeded.
    pub(super) status: Option<ExitStatus>,
    pub(super) output: Vec<u8>,
    pub(super) cases: Vec<CaseReport>,
    /// Names of the programs that outlived the command, if any did.
    pub(super) left_behind: Option<Vec<String>>,
}

/// Captures the start and the end of the output of a command.
pub(super) struct CapturedOutput {
    stream: pipe::Receiver,
    decoder: Option<Box<dyn OutputDecoder>>,
    capture: Capture,
}

impl CapturedOutput {
    pub(super) fn new(stream: pipe::Receiver, decoder: Option<Box<dyn OutputDecoder>>) -> Self {
        Self { stream, decoder, capture: Capture::default() }
    }

    /// Reads to the end. Cancel safe.
    async fn read(&mut self, observe: Observe<'_>) -> io::Result<()> {
        let mut block = vec![0; 16 * 1024];
        loop {
            let count = self.stream.read(&mut block).await?;
            if count == 0 {
                return Ok(());
            }
            match &mut self.decoder {
                None => self.capture.show(&block[..count], observe),
                Some(decoder) => self.capture.show(&decoder.decode(&block[..count]), observe),
            }
        }
    }

    fn finish(&mut self, observe: Observe<'_>) -> (Vec<u8>, Vec<CaseReport>) {
        let (rest, cases) = self.decoder.as_mut().map(|decoder| decoder.finish()).unwrap_or_default();
        self.capture.show(&rest, observe);
        (std::mem::take(&mut self.capture).finish(), cases)
    }
}

/// Reads the output until the command has exited or its time limit is exceeded. `exit` is its exit
/// if it was waited for already.
pub(super) async fn attend(
    child: &mut Child,
    output: &mut CapturedOutput,
    exit: Option<Exit>,
    observe: Observe<'_>,
    time_max: Duration,
) -> io::Result<Ended> {
    let ended = tokio::time::timeout(time_max, async {
        if let Some(exit) = exit {
            return exit;
        }
        // Concurrently: the pipe ends only after the rest of the group is killed, which happens
        // when the leader was waited for.
        let (ended, read) = tokio::join!(child.wait_for_group(LEAK), output.read(observe));
        read.and(ended)
    });
    let (status, left_behind) = match ended.await {
        Ok(ended) => {
            let (status, is_left) = ended?;
            (Some(status), is_left.then(|| child.left_over().to_vec()))
        }
        Err(_) => {
            child.stop(GRACE).await?;
            (None, None)
        }
    };
    let (output, cases) = output.finish(observe);
    if let Some((observer, test)) = observe {
        observer.observe(test, &[]);
    }
    Ok(Ended { status, output, cases, left_behind })
}

/// The start and the end of a stream of any length.
#[derive(Debug, Default)]
struct Capture {
    head: Vec<u8>,
    tail: Vec<u8>,
    omitted: u64,
}

impl Capture {
    const HALF: usize = OUTPUT_BYTES_MAX / 2;

    fn show(&mut self, bytes: &[u8], observe: Observe<'_>) {
        if bytes.is_empty() {
            return;
        }
        if let Some((observer, test)) = observe {
            observer.observe(test, bytes);
        }
        self.take(bytes);
    }

    fn take(&mut self, bytes: &[u8]) {
        let room = Self::HALF - self.head.len();
        let (first, rest) = bytes.split_at(room.min(bytes.len()));
        self.head.extend_from_slice(first);
        self.tail.extend_from_slice(rest);
        // Draining in large steps moves each byte about once.
        if self.tail.len() >= 2 * Self::HALF {
            let excess = self.tail.len() - Self::HALF;
            self.tail.drain(..excess);
            self.omitted += excess as u64;
        }
    }

    fn finish(mut self) -> Vec<u8> {
        let excess = self.tail.len().saturating_sub(Self::HALF);
        self.tail.drain(..excess);
        self.omitted += excess as u64;
        if self.omitted > 0 {
            self.head.extend_from_slice(format!("\n[… {} {LEFT_OUT}\n", self.omitted).as_bytes());
        }
        self.head.append(&mut self.tail);
        self.head
    }
}
