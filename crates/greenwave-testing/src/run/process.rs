//! Runs one test's command: captures its output, traces it, and derives its status.

use std::ffi::OsString;
use std::io::{self, PipeReader, PipeWriter};
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use greenwave_dir::Dir;
use greenwave_process::{Child, Spawn};
use tokio::net::unix::pipe;
use tokio::time::Instant;

use crate::harness::junit::xml::JunitCase;
use crate::harness::summary::{Summary, SummaryVerdict};
use crate::results::outcome::{ExitReason, Status};
use crate::run::blocking::blocking;
use crate::run::environment::Environment;
use crate::run::observation::{Observation, Seen};
use crate::run::options::RunnerOptions;
use crate::run::running_process::{CapturedOutput, RunningProcess, attend};
use crate::{CaseReport, Error, Test, TestCount};
use greenwave_inputs::{Manifest, now_ns};
use greenwave_sandbox::{ReadRules, Tracer};

/// Name of the directory, in the private directory of a test, in which a command announces its
/// parts.
pub(crate) const PARTS: &str = "parts";
/// Name of the missing file, in the private directory of a test, whose status a collection asks for
/// when it has written its result.
pub(crate) const MARK: &str = "collected";
/// Maximum length of a [`result_file`](crate::Harness::result_file), in bytes.
const RESULT_BYTES_MAX: u64 = 64 * 1024 * 1024;

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
    /// Whether the command has a [`MARK`]: see [`Tracer::mark`].
    pub(crate) has_mark: bool,
}

impl Job<'_> {
    fn tracer(&self) -> Tracer {
        let announcements = self.has_parts.then(|| self.own.join(PARTS));
        let mark = self.has_mark.then(|| self.own.join(MARK));
        Tracer { announcements, mark, ..Tracer::default() }
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
    /// Time when the command and everything that it started had ended, or had reached its mark.
    pub(crate) ended: Instant,
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
            ended: Instant::now(),
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
    let running = start(job, options, environment, strict, None).await?;
    finish(running, job.test, options, environment).await
}

/// Starts the command with exactly these variables. Its standard input is empty unless it is set.
///
/// # Errors
/// If it cannot be started or traced.
pub(crate) async fn start(
    job: &Job<'_>,
    options: &RunnerOptions,
    environment: &Environment,
    strict: Option<&ReadRules>,
    stdin: Option<PipeReader>,
) -> Result<RunningProcess, Error> {
    let test = job.test;
    let failed = |source| start_error(test, &job.directory, source);
    let harness = options.harnesses.get(&test.harness);
    let (stream, stdout, stderr) = one_pipe().map_err(failed)?;
    let mut command = spawn(job, options, environment);
    command.stdout(stdout).stderr(stderr);
    if let Some(stdin) = stdin {
        command.stdin(stdin);
    }
    let writable = vec![job.project.to_owned(), job.own.to_owned()];
    environment.confine(&mut command, &job.directory, writable).map_err(failed)?;
    if let Some(guard) = options.guard.as_ref().and_then(|guard| guard.get().ok()) {
        guard.attach(&mut command, &job.directory)?;
    }
    if let Some(strict) = strict {
        strict.attach(&mut command)?;
    }
    let observation = Observation::begin(job.tracer(), &mut command, options.trace).await?;
    let slot = match &options.slots {
        Some(slots) => Some(slots.take().await),
        None => None,
    };
    let (started, began) = (Instant::now(), now_ns());
    let child = Child::start_under(environment.supervisor(), command).map_err(failed)?;
    let output = CapturedOutput::new(stream, harness.decoder(test));
    let (directory, own) = (job.directory.clone(), job.own.to_owned());
    Ok(RunningProcess { child, output, observation, started, began, directory, own, ended: None, slot })
}

/// Runs a process to its end, with the time limit, servers and harness of a test.
///
/// # Errors
/// If its output cannot be read.
pub(crate) async fn finish(
    mut running: RunningProcess,
    test: &Test,
    options: &RunnerOptions,
    environment: &Environment,
) -> Result<ProcessResult, Error> {
    let failed = |source| start_error(test, &running.directory, source);
    let harness = options.harnesses.get(&test.harness);
    let observe = options.output.as_ref().map(|observer| (observer, test));
    let ended = attend(&mut running.child, &mut running.output, running.ended.take(), observe, test.time_max);
    let mut ended = ended.await.map_err(failed)?;
    drop(running.slot.take());
    let RunningProcess { observation, started, began, directory, own, .. } = running;
    ended.output = environment.with_own_paths(ended.output, &directory);
    let (duration, by_clock) = (started.elapsed(), now_ns().saturating_sub(began));
    let seen = observation.finish(&own, &test.servers).await;
    let exit_code = ended.status.and_then(|status| status.code());
    let Summary { count, verdict: summary } = harness.parse_summary(test, exit_code, &ended.output);
    let is_complete = exit_code != Some(0) || harness.is_complete(test, &ended.output, &own);
    let output = with_file(ended.output, harness.result_file(test), &own).await;
    let output = environment.with_own_paths(output, &directory);
    let status = match ended.status {
        None => Status::TimedOut(test.time_max),
        Some(_) if !is_complete => Status::Failed(ExitReason::Unfinished),
        Some(status) => verdict(status, summary),
    };
    let clock_was_set = by_clock.abs_diff(nanos(duration)) > nanos(CLOCK_DRIFT).unsigned_abs();
    Ok(ProcessResult {
        status,
        count,
        cases: ended.cases,
        output: output.into(),
        duration,
        began,
        clock_was_set,
        left_behind: ended.left_behind,
        seen: Arc::new(seen),
        ..ProcessResult::without_process(status, Bytes::new())
    })
}

/// Runs a process until it reaches its mark, with the time limit and servers of a test. Returns its
/// result up to there, a pass with the content of the harness's result file as its output.
///
/// Returns `None` if the process does not reach its mark: it has ended, its trace is incomplete, or
/// its time limit is exceeded.
pub(crate) async fn reach_mark(
    running: &mut RunningProcess,
    test: &Test,
    options: &RunnerOptions,
    environment: &Environment,
) -> Option<ProcessResult> {
    let observe = options.output.as_ref().map(|observer| (observer, test));
    let seen = running.marked(observe, &test.servers, test.time_max).await?;
    let (duration, by_clock) = (running.started.elapsed(), now_ns().saturating_sub(running.began));
    let harness = options.harnesses.get(&test.harness);
    let output = with_file(Vec::new(), harness.result_file(test), &running.own).await;
    let output = environment.with_own_paths(output, &running.directory);
    let clock_was_set = by_clock.abs_diff(nanos(duration)) > nanos(CLOCK_DRIFT).unsigned_abs();
    Some(ProcessResult {
        duration,
        began: running.began,
        clock_was_set,
        seen: Arc::new(seen),
        ..ProcessResult::without_process(Status::Passed, output.into())
    })
}

fn start_error(test: &Test, directory: &Path, source: io::Error) -> Error {
    Error::Start {
        test: test.name.clone(),
        program: test.command[0].clone(),
        directory: directory.to_owned(),
        source,
    }
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
    let (own, file) = (own.to_owned(), Path::new("tmp").join(name));
    // The process may have put a link, a pipe or a device there.
    let read = move || Dir::open(&own)?.read(file, RESULT_BYTES_MAX);
    if let Ok(text) = blocking(read).await {
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

/// Returns the verdict of a process that ended by itself.
fn verdict(status: ExitStatus, summary: SummaryVerdict) -> Status {
    match (status.code(), summary) {
        (_, SummaryVerdict::Passed) | (Some(0), SummaryVerdict::ByExitCode) => Status::Passed,
        (Some(0), SummaryVerdict::NoTests) => Status::NoTests,
        (Some(code), _) => Status::Failed(ExitReason::Code(code)),
        (None, _) => Status::Failed(ExitReason::Signal(status.signal().unwrap_or(0))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_a_file_in_the_private_directory_is_a_result() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        std::fs::create_dir(at("tmp")).unwrap();
        std::fs::write(at("secret"), "secret").unwrap();
        std::fs::write(at("tmp/file"), "result").unwrap();
        std::fs::File::create(at("tmp/long")).unwrap().set_len(RESULT_BYTES_MAX + 1).unwrap();
        std::os::unix::fs::symlink(at("secret"), at("tmp/link")).unwrap();
        std::os::unix::fs::symlink("/dev/zero", at("tmp/device")).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, at("tmp/pipe"), rustix::fs::Mode::RWXU).unwrap();
        for name in ["long", "link", "device", "pipe", "absent"] {
            assert_eq!(with_file(b"x".to_vec(), Some(name), directory.path()).await, b"x", "{name}");
        }
        let output = with_file(b"x".to_vec(), Some("file"), directory.path()).await;
        assert_eq!(output, b"x\nresult");
    }
}
