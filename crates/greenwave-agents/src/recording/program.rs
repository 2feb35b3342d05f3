//! Records the run of a program: its output with delays, its end, and the files that it changes.

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::Arc;

use futures_util::{StreamExt, stream};
use greenwave_dir::Dir;
use serde_json::json;

use super::changes::{Files, apply};
use super::exchange::ProgramEnd;
use super::{Exchange, Recorder, Recording, failed};
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
    let replay = Replay { exchange, program: words.first().cloned().unwrap_or_default() };
    let root = request.root.clone();
    Ok(ResponseStream::new(
        stream::iter(0..).then(move |step| replay.clone().event(step, root.clone())).scan(
            false,
            |has_ended, event| {
                let was_ended = std::mem::replace(has_ended, matches!(event, Ok(AgentEvent::End) | Err(_)));
                std::future::ready((!was_ended).then_some(event))
            },
        ),
    ))
}

#[derive(Clone)]
struct Replay {
    exchange: Arc<Exchange>,
    program: String,
}

impl Replay {
    /// Returns an event of the replay, by its number.
    async fn event(self, step: usize, root: PathBuf) -> Result<AgentEvent, Error> {
        let chunks = self.exchange.chunks().unwrap_or_default();
        if let Some((delay, chunk)) = chunks.get(step) {
            tokio::time::sleep(*delay).await;
            return Ok(AgentEvent::Text(chunk.clone().into()));
        }
        let end = self.exchange.end.clone().unwrap_or_default();
        let status = ExitStatus::from_raw(end.status);
        match step - chunks.len() {
            0 => {
                tokio::time::sleep(end.delay).await;
                let files = end.files;
                let applied = blocking(root.clone(), move |directory| apply(&directory, &files));
                applied.await.map_err(failed("replay changes in", &root))?;
                Ok(AgentEvent::Stderr(end.stderr.into()))
            }
            1 => Ok(AgentEvent::Exit(status)),
            _ if status.success() => Ok(AgentEvent::End),
            _ => Err(Error::Exited { program: self.program, status, stderr: end.stderr.trim().to_owned() }),
        }
    }
}

/// Works on a directory without blocking the runtime.
async fn blocking<T: Send + 'static>(
    path: PathBuf,
    work: impl FnOnce(Dir) -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let done = tokio::task::spawn_blocking(move || work(Dir::open(&path)?));
    done.await.map_err(io::Error::other).and_then(|done| done)
}
