//! Runs one test's command: captures its output, traces it, and derives its status.

use std::ffi::OsString;
use std::io::{self, PipeWriter};
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use greenwave_process::{Child, Spawn};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::time::Instant;

use crate::harness::OutputDecoder;
use crate::harness::junit::xml::JunitCase;
use crate::harness::summary::{Summary, SummaryVerdict};
use crate::plain_text::LEFT_OUT;
use crate::results::outcome::{ExitReason, Status};
use crate::run::blocking::blocking;
use crate::run::environment::Environment;
use crate::run::observation::{Observation, Seen};
use crate::run::options::RunnerOptions;
use crate::{CaseReport, Error, Test, TestCount};
use greenwave_inputs::{Manifest, now_ns};
use greenwave_sandbox::{ReadRules, Tracer};

/// Name of the directory, in the private directory of a test, in which a command announces its
/// parts.
pub(crate) const PARTS: &str = "parts";
/// Maximum number of captured bytes of an output: half from its start, half from its end.
const OUTPUT_BYTES_MAX: usize = 256 * 1024;
/// Maximum length of a [`result_file`](crate::Harness::result_file), in bytes.
const RESULT_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Time that a test gets to exit after `SIGTERM` when its time limit is exceeded.
const GRACE: Duration = Duration::from_millis(500);

/// Time that descendants of a test may outlive it before they count as left behind.
const LEAK: Duration = Duration::from_millis(200);

/// A command with its working directory and environment.
#[derive(Debug)]
pub(crate) struct Job<'a> {
    pub(crate) test: &'a Test,
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<OsString>,
    pub(crate) directory: PathBuf,
    pub(crate) variables: Vec<(OsString, OsString)>,
    /// The private directory of the test.
    pub(crate) own: &'a Path,
    /// The project, or the copy of it that the test runs in.
    pub(crate) project: &'a Path,
    /// Whether the command announces its parts: see [`Tracer::announcements`].
    pub(crate) has_parts: bool,
}

impl Job<'_> {
    fn tracer(&self) -> Tracer {
        let announcements = self.has_parts.then(|| self.own.join(PARTS));
        Tracer { announcements, ..Tracer::default() }
    }
}

/// The result of running a command.
#[derive(Debug, Clone)]
pub(crate) struct ProcessResult {
    pub(crate) status: Status,
    pub(crate) count: Option<TestCount>,
    /// Single tests in the reports that the command has written.
    pub(crate) junit: Vec<JunitCase>,
    /// Single tests that the harness reported in another way.
    pub(crate) cases: Vec<CaseReport>,
    /// Whether failed cases in complete reports explain the failure.
    pub(crate) is_explained: bool,
    pub(crate) output: Bytes,
    pub(crate) duration: Duration,
    /// Start time in nanoseconds since the Unix epoch.
    pub(crate) began: i64,
    /// Whether the system clock was set while the command ran.
    pub(crate) clock_was_set: bool,
    /// Names of the programs that outlived the command, if any did. They were then killed.
    pub(crate) left_behind: Option<Vec<String>>,
    /// The traced accesses.
    pub(crate) seen: Arc<Seen>,
}

impl ProcessResult {
    /// Creates the result of a process that did not start, because its program could not be built.
    pub(crate) fn without_process(status: Status, output: Bytes) -> Self {
        Self {
            status,
            count: None,
            junit: Vec::new(),
            cases: Vec::new(),
            is_explained: false,
            output,
            duration: Duration::ZERO,
            began: now_ns(),
            clock_was_set: false,
            left_behind: None,
            seen: Arc::default(),
        }
    }
}

impl ProcessResult {
    /// Returns the results of single tests.
    pub(crate) fn cases(&self) -> Vec<CaseReport> {
        let reported = self.junit.iter().map(|case| &case.report);
        reported.chain(&self.cases).cloned().collect()
    }

    /// Restricts [`Seen::swept`] to directories of the project without inputs.
    pub(crate) fn sweep_only_ignored(&mut self, project: &Path, inputs: &Manifest) {
        if self.seen.swept.is_empty() {
            return;
        }
        let is_ignored = |directory: &PathBuf| {
            let inside = directory.strip_prefix(project);
            inside.is_ok_and(|inside| !inputs.files().any(|(file, _)| file.starts_with(inside)))
        };
        Arc::make_mut(&mut self.seen).swept.retain(is_ignored);
    }
}

/// Runs the command with exactly these variables and an empty standard input.
///
/// Its descendants are killed when it exits, when its time limit is exceeded, and when the future
/// is dropped.
pub(crate) async fn run(
    job: &Job<'_>,
    options: &RunnerOptions,
    environment: &Environment,
    strict: Option<&ReadRules>,
) -> Result<ProcessResult, Error> {
    let test = job.test;
    let failed = |source| Error::Start {
        test: test.name.clone(),
        program: test.command[0].clone(),
        directory: job.directory.clone(),
        source,
    };
    let harness = options.harnesses.get(&test.harness);
    let (stream, stdout, stderr) = one_pipe().map_err(failed)?;
    let mut command = spawn(job, options, environment);
    command.stdout(stdout).stderr(stderr);
    let writable = vec![job.project.to_owned(), job.own.to_owned()];
    environment.confine(&mut command, &job.directory, writable).map_err(failed)?;
    if let Some(guard) = options.guard.as_ref().and_then(|guard| guard.get().ok()) {
        guard.attach(&mut command, &job.directory)?;
    }
    if let Some(strict) = strict {
        strict.attach(&mut command)?;
    }
    let observation = Observation::begin(job.tracer(), &mut command, options.trace).await?;
    let (started, began) = (Instant::now(), now_ns());
    let group = Child::start_under(environment.supervisor(), command);
    let observe = |block: &[u8]| {
        if let Some(observer) = &options.output {
            observer.observe(test, block);
        }
    };
    let mut output = CapturedOutput { stream, decoder: harness.decoder(test), observe };
    let mut ended = attend(group.map_err(failed)?, &mut output, test.time_max).await.map_err(failed)?;
    ended.output = environment.with_own_paths(ended.output, &job.directory);
    (output.observe)(&[]);
    let (duration, by_clock) = (started.elapsed(), now_ns().saturating_sub(began));
    let seen = observation.finish(job.own, &test.servers).await;
    let exit_code = ended.status.and_then(|status| status.code());
    let Summary { count, verdict: summary } = harness.parse_summary(test, exit_code, &ended.output);
    let is_complete = exit_code != Some(0) || harness.is_complete(test, &ended.output, job.own);
    let output = with_file(ended.output, harness.result_file(test), job.own).await;
    let output = environment.with_own_paths(output, &job.directory);
    let status = match ended.status {
        None => Status::TimedOut(test.time_max),
        Some(_) if !is_complete => Status::Failed(ExitReason::Unfinished),
        Some(status) => verdict(status, summary),
    };
    let clock_was_set = by_clock.abs_diff(nanos(duration)) > nanos(CLOCK_DRIFT).unsigned_abs();
    Ok(ProcessResult {
        status,
        count,
        junit: Vec::new(),
        cases: ended.cases,
        is_explained: false,
        output: output.into(),
        duration,
        began,
        clock_was_set,
        left_behind: ended.left_behind,
        seen: Arc::new(seen),
    })
}

/// Returns a builder of the process, without restrictions and streams.
fn spawn(job: &Job<'_>, options: &RunnerOptions, environment: &Environment) -> Spawn {
    // A script that asks for its directory finds it where the test works.
    let program = environment.place_of(&job.directory, &job.program);
    let mut command = Spawn::new(program.as_ref().unwrap_or(&job.program));
    command.args(&job.arguments).current_dir(&job.directory);
    for (name, value) in &job.variables {
        command.env(name, value);
    }
    if let Some(jobserver) = &options.jobserver {
        jobserver.offer_to(&mut command);
    }
    command
}

/// Appends the file with this name in the temporary directory to an output, after a line break. The
/// output of a process that writes no such file stays as it is, and so does that of a process whose
/// file is larger than [`RESULT_BYTES_MAX`].
async fn with_file(mut output: Vec<u8>, name: Option<&str>, own: &Path) -> Vec<u8> {
    let Some(name) = name else { return output };
    let file = own.join("tmp").join(name);
    let read = move || {
        let is_small =
            std::fs::symlink_metadata(&file).is_ok_and(|it| it.is_file() && it.len() <= RESULT_BYTES_MAX);
        if is_small { std::fs::read(&file).ok() } else { None }
    };
    if let Some(text) = blocking(read).await {
        output.push(b'\n');
        output.extend(text);
    }
    output
}

/// Maximum difference between the system clock and the monotonic clock over a test.
const CLOCK_DRIFT: Duration = Duration::from_millis(50);

fn nanos(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

/// Creates one pipe for both streams, which preserves the order of their output.
fn one_pipe() -> io::Result<(pipe::Receiver, PipeWriter, PipeWriter)> {
    let (reader, writer) = io::pipe()?;
    let other = writer.try_clone()?;
    let reader = pipe::Receiver::from_owned_fd(OwnedFd::from(reader))?;
    Ok((reader, writer, other))
}

/// The end of a command.
struct Ended {
    /// `None` if the time limit was exceeded.
    status: Option<ExitStatus>,
    output: Vec<u8>,
    cases: Vec<CaseReport>,
    /// Names of the programs that outlived the command, if any did.
    left_behind: Option<Vec<String>>,
}

/// The output of a command, and what happens to it.
struct CapturedOutput<F> {
    stream: pipe::Receiver,
    decoder: Option<Box<dyn OutputDecoder>>,
    observe: F,
}

/// Reads the output until the command has exited or its time limit is exceeded.
async fn attend<F: Fn(&[u8])>(
    mut group: Child,
    output: &mut CapturedOutput<F>,
    time_max: Duration,
) -> io::Result<Ended> {
    let mut capture = Capture::default();
    let ended = tokio::time::timeout(time_max, async {
        // Concurrently: the pipe ends only after the rest of the group is killed, which happens
        // when the leader was waited for.
        let (ended, read) = tokio::join!(group.wait_for_group(LEAK), capture.read(output));
        read.and(ended)
    });
    let (status, left_behind) = match ended.await {
        Ok(ended) => {
            let (status, is_left) = ended?;
            (Some(status), is_left.then(|| group.left_over().to_vec()))
        }
        Err(_) => {
            group.stop(GRACE).await?;
            (None, None)
        }
    };
    let (rest, cases) = output.decoder.as_mut().map(|decoder| decoder.finish()).unwrap_or_default();
    capture.show(&rest, &output.observe);
    Ok(Ended { status, output: capture.finish(), cases, left_behind })
}

/// Returns the verdict of a process that ended by itself.
fn verdict(status: ExitStatus, summary: SummaryVerdict) -> Status {
    match (status.code(), summary) {
        (_, SummaryVerdict::Passed) | (Some(0), SummaryVerdict::ByExitCode) => Status::Passed,
        (Some(0), SummaryVerdict::NoTests) => Status::NoTests,
        (Some(code), _) => Status::Failed(ExitReason::Code(code)),
        (None, _) => Status::Failed(ExitReason::Signal(status.signal().unwrap_or(0))),
    }
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

    async fn read<F: Fn(&[u8])>(&mut self, output: &mut CapturedOutput<F>) -> io::Result<()> {
        let mut block = vec![0; 16 * 1024];
        loop {
            let count = output.stream.read(&mut block).await?;
            if count == 0 {
                return Ok(());
            }
            match &mut output.decoder {
                None => self.show(&block[..count], &output.observe),
                Some(decoder) => self.show(&decoder.decode(&block[..count]), &output.observe),
            }
        }
    }

    fn show(&mut self, bytes: &[u8], observe: &impl Fn(&[u8])) {
        if !bytes.is_empty() {
            observe(bytes);
            self.take(bytes);
        }
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
