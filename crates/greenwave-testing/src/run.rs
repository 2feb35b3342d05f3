//! Runs one test's command and captures what it prints. Knows nothing of keys, caches or verdicts' use.

use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use bytes::Bytes;
use greenwave_scheduler::ProcessGroup;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::net::unix::pipe;
use tokio::process::Command;
use tokio::time::Instant;

use crate::outcome::{Ending, Status};
use crate::{Count, Error, Test};

/// Most bytes that are kept of an output: its beginning and its end.
const OUTPUT_BYTES_MAX: usize = 256 * 1024;
/// How long a test that ran out of time may take to end when asked to.
const GRACE: Duration = Duration::from_millis(500);

/// What running a command gave.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) status: Status,
    pub(crate) count: Option<Count>,
    pub(crate) output: Bytes,
    pub(crate) duration: Duration,
}

/// Runs the command in `directory` with exactly these variables, a private temporary folder, and no input.
///
/// Whatever it starts is killed when it ends, when its time is up, and when the future is dropped.
pub(crate) async fn run(
    test: &Test,
    program: &Path,
    directory: &Path,
    environment: &[(&str, &OsStr)],
) -> Result<Ran, Error> {
    let scratch =
        tempfile::tempdir().map_err(Error::io("make a temporary folder in", std::env::temp_dir()))?;
    let failed = |source| Error::Start {
        test: test.name.clone(),
        program: test.command[0].clone(),
        directory: directory.to_owned(),
        source,
    };
    let (output, stdout, stderr) = one_pipe().map_err(failed)?;
    let started = Instant::now();
    let mut command = Command::new(program);
    command.args(&test.command[1..]).current_dir(directory).env_clear().envs(environment.iter().copied());
    command.env("TMPDIR", scratch.path()).stdin(Stdio::null()).stdout(stdout).stderr(stderr);
    let group = ProcessGroup::spawn(&mut command);
    drop(command); // and with it our own ends of the pipe, or it would never end
    let (ended, output) = attend(group.map_err(failed)?, output, test.time_max).await.map_err(failed)?;
    let count = Count::find(&output);
    let status = match ended {
        None => Status::TimedOut(test.time_max),
        Some(status) => verdict(status, count),
    };
    Ok(Ran { status, count, output: output.into(), duration: started.elapsed() })
}

/// One pipe for both streams, so that their order is kept.
fn one_pipe() -> io::Result<(pipe::Receiver, Stdio, Stdio)> {
    let (reader, writer) = io::pipe()?;
    let other = writer.try_clone()?;
    let reader = pipe::Receiver::from_owned_fd(OwnedFd::from(reader))?;
    Ok((reader, Stdio::from(writer), Stdio::from(other)))
}

/// Reads the output until the command has ended, or its time is up (`None`).
async fn attend(
    mut group: ProcessGroup,
    output: pipe::Receiver,
    time_max: Duration,
) -> io::Result<(Option<ExitStatus>, Vec<u8>)> {
    let mut capture = Capture::default();
    let ended = tokio::time::timeout(time_max, async {
        // Together: the pipe ends only when the leader is waited for and the rest of its group killed.
        let (status, read) = tokio::join!(group.wait(), capture.read(output));
        read.and(status)
    });
    let status = match ended.await {
        Ok(status) => Some(status?),
        Err(_) => {
            group.stop(GRACE).await?;
            None
        }
    };
    Ok((status, capture.finish()))
}

fn verdict(status: ExitStatus, count: Option<Count>) -> Status {
    match (status.code(), status.signal()) {
        (Some(0), _) if count.is_some_and(|count| count.total() == 0) => Status::NoTests,
        (Some(0), _) => Status::Passed,
        (Some(code), _) => Status::Failed(Ending::Code(code)),
        (None, signal) => Status::Failed(Ending::Signal(signal.unwrap_or(0))),
    }
}

/// The beginning and the end of a stream of any length.
#[derive(Debug, Default)]
struct Capture {
    head: Vec<u8>,
    tail: Vec<u8>,
    left_out: u64,
}

impl Capture {
    const HALF: usize = OUTPUT_BYTES_MAX / 2;

    async fn read(&mut self, mut stream: impl AsyncRead + Unpin) -> io::Result<()> {
        let mut block = vec![0; 16 * 1024];
        loop {
            match stream.read(&mut block).await? {
                0 => return Ok(()),
                count => self.take(&block[..count]),
            }
        }
    }

    fn take(&mut self, bytes: &[u8]) {
        let room = Self::HALF - self.head.len();
        let (first, rest) = bytes.split_at(room.min(bytes.len()));
        self.head.extend_from_slice(first);
        self.tail.extend_from_slice(rest);
        // In large steps, so that each byte is moved about once.
        if self.tail.len() >= 2 * Self::HALF {
            let excess = self.tail.len() - Self::HALF;
            self.tail.drain(..excess);
            self.left_out += excess as u64;
        }
    }

    fn finish(mut self) -> Vec<u8> {
        let excess = self.tail.len().saturating_sub(Self::HALF);
        self.tail.drain(..excess);
        self.left_out += excess as u64;
        if self.left_out > 0 {
            self.head.extend_from_slice(format!("\n[… {} bytes left out …]\n", self.left_out).as_bytes());
        }
        self.head.append(&mut self.tail);
        self.head
    }
}
