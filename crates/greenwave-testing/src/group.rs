//! Runs a tool that builds something, together with everything that it starts. Knows nothing of which tools there are.

use std::io;
use std::process::{Output, Stdio};

use greenwave_scheduler::ProcessGroup;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;

/// What a command prints, and how it ends. Dropped, it kills the command and all that it has started, which killing the command alone would leave.
///
/// # Errors
/// If it cannot be started, or what it prints cannot be read.
pub(crate) async fn output(mut command: Command) -> io::Result<Output> {
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut group = ProcessGroup::spawn(&mut command)?;
    let leader = group.leader();
    let (stdout, stderr) = leader.map(|it| (it.stdout.take(), it.stderr.take())).unwrap_or_default();
    // Together: a pipe that something left behind holds open ends only when that is killed.
    let (status, stdout, stderr) = tokio::join!(group.wait(), read(stdout), read(stderr));
    Ok(Output { status: status?, stdout: stdout?, stderr: stderr? })
}

async fn read(stream: Option<impl AsyncRead + Unpin>) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if let Some(mut stream) = stream {
        stream.read_to_end(&mut bytes).await?;
    }
    Ok(bytes)
}
