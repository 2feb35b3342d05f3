//! Records the run of a program: its output with delays, its end, and the files that it changes.

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::ExitStatus;

use futures_util::{StreamExt, stream};
use greenwave_dir::Dir;
use serde_json::json;

use super::changes::{Files, apply};
use super::exchange::ProgramEnd;
use super::{Recorder, Recording, failed};
use crate::{AgentEvent, Error, Request, ResponseStream};

/// Returns the identity of a request to a program: everything that it depends on, without the paths
/// of this run.
fn identity(words: &[String], request: &Request) -> (String, String) {
    let program = words.first().map_or("", String::as_str);
    let body = json!({
        "command": words,
        "feature": request.feature,
        "attempt": request.attempt,
        "candidate": request.candidate,
        "prompt": request.prompt,
    });
    (format!("program {program}"), body.to_string())
}

/// A run that is being recorded.
struct Run {
    response: ResponseStream,
    recorder: Recorder,
    root: PathBuf,
    before: Option<Files>,
    stderr: Vec<u8>,
}

/// Records the output of the program that `start` starts with these words, which is not decoded.
///
/// # Errors
/// [`Error::Recording`] if the files cannot be listed or an earlier recording failed, and those of
/// `start`.
pub(crate) async fn record_program<T>(
    recording: &Recording,
    words: &[String],
    request: &Request,
    start: impl FnOnce() -> Result<(ResponseStream, T), Error>,
) -> Result<(ResponseStream, T), Error> {
    let (path, body) = identity(words, request);
    let root = request.root.clone();
    let before = blocking(root.clone(), |directory| Files::of(&directory)).await;
    let before = before.map_err(failed("list the files in", &root))?;
    let recorder = recording.begin(&path, &body)?;
    let (response, rest) = start()?;
    let run = Run { response, recorder, root, before: Some(before), stderr: Vec::new() };
    let response = ResponseStream::new(stream::unfold(run, |mut run| async move {
        let event = run.response.next().await?;
        let event = match event {
            Ok(event) => run.observe(event).await,
            error => error,
        };
        Some((event, run))
    }));
    Ok((response, rest))
}

impl Run {
    async fn observe(&mut self, event: AgentEvent) -> Result<AgentEvent, Error> {
        match &event {
            AgentEvent::Text(text) => self.recorder.chunk(text),
            AgentEvent::Stderr(text) => self.stderr.extend_from_slice(text),
            AgentEvent::Exit(status) => self.end(*status).await?,
            _ => {}
        }
        Ok(event)
    }

    async fn end(&mut self, status: ExitStatus) -> Result<(), Error> {
        let Some(before) = self.before.take() else { return Ok(()) };
        let (delay, recording) = (self.recorder.lap(), self.recorder.recording.clone());
        let changes =
            blocking(self.root.clone(), move |directory| before.changes(&directory, &*recording.0.mask));
        let files = changes.await.map_err(failed("record the changes in", &self.root))?;
        let stderr = (self.recorder.recording.0.mask)(&String::from_utf8_lossy(&self.stderr));
        let status = status.into_raw();
        self.recorder.exchange.end = Some(ProgramEnd { delay, status, stderr, files });
        Ok(())
    }
}

/// Replays the output of the program that was started with these words, which is not decoded, and
/// changes the files that it has changed.
///
/// # Errors
/// [`Error::NotRecorded`] with the difference to the nearest request.
pub(crate) fn replay_program(
    recording: &Recording,
    words: &[String],
    request: &Request,
) -> Result<ResponseStream, Error> {
    let (path, body) = identity(words, request);
    let exchange = recording.find(&path, &path, &body)?;
    let chunks = exchange.chunks().map_err(failed("replay", exchange.name.as_ref()))?;
    let output = stream::iter(chunks).then(|(delay, chunk)| async move {
        tokio::time::sleep(delay).await;
        Ok(AgentEvent::Text(chunk.into()))
    });
    let program = words.first().cloned().unwrap_or_default();
    let end = end(exchange.end.clone().unwrap_or_default(), program, request.root.clone());
    Ok(ResponseStream::new(output.chain(stream::once(end).flat_map(stream::iter))))
}

/// Changes the files, and returns the events after the output.
async fn end(end: ProgramEnd, program: String, root: PathBuf) -> Vec<Result<AgentEvent, Error>> {
    tokio::time::sleep(end.delay).await;
    let files = end.files;
    let applied = blocking(root.clone(), move |directory| apply(&directory, &files)).await;
    if let Err(error) = applied.map_err(failed("replay changes in", &root)) {
        return vec![Err(error)];
    }
    let (status, stderr) = (ExitStatus::from_raw(end.status), end.stderr);
    let last = if status.success() {
        Ok(AgentEvent::End)
    } else {
        Err(Error::Exited { program, status, stderr: stderr.trim().to_owned() })
    };
    vec![Ok(AgentEvent::Stderr(stderr.into())), Ok(AgentEvent::Exit(status)), last]
}

/// Works on a directory without blocking the runtime.
async fn blocking<T: Send + 'static>(
    path: PathBuf,
    work: impl FnOnce(Dir) -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let done = tokio::task::spawn_blocking(move || work(Dir::open(&path)?));
    done.await.map_err(io::Error::other).and_then(|done| done)
}
