//! Sends a request to an agent and writes the files of its answer into the workspace.

use std::time::Duration;

use bytes::Bytes;
use greenwave_agents::{Error as AgentError, Request, ResponseStream};
use greenwave_storage::{AttemptOutcome, NewAttempt};
use greenwave_streaming::{Cap, Error as StreamError, Files, Limits, Pull, Unit, UnitKind};
use tokio::time::{Instant, timeout};

use super::Stage;
use crate::error::{Error, FeatureError, chain};
use crate::event::Event;
use crate::phase::PhaseEvent;
use crate::plan::{AgentSpec, CommandSpec};
use crate::prompt;
use crate::state::StageResult;

/// Maximum number of incomplete files that are reported for one answer.
const PARTIAL_MAX: usize = 5;

/// Why an answer cannot be used.
enum Unusable {
    /// The attempt is refused for this reason.
    Answer(String),
    /// The feature fails.
    Feature(FeatureError),
    /// The provider of the agent limits requests or is overloaded.
    Overloaded { message: String, retry_after: Option<Duration> },
}

impl Unusable {
    /// Returns why a request failed, given an error of the agent.
    fn request(error: AgentError) -> Self {
        match error {
            AgentError::Overloaded { line, retry_after, .. } => {
                Unusable::Overloaded { message: line, retry_after }
            }
            error if error.is_permanent() => Unusable::Feature(FeatureError::Agent(error)),
            error => Unusable::Answer(chain(&error)),
        }
    }

    /// Returns why an answer cannot be read.
    fn answer(error: &StreamError, time_max: Duration) -> Self {
        if let StreamError::Source { source, .. } = error
            && let Some(AgentError::Overloaded { line, retry_after, .. }) = source.downcast_ref()
        {
            return Unusable::Overloaded { message: line.clone(), retry_after: *retry_after };
        }
        Unusable::Answer(describe(error, time_max))
    }
}

impl From<FeatureError> for Unusable {
    fn from(error: FeatureError) -> Self {
        Unusable::Feature(error)
    }
}

impl From<Error> for Unusable {
    fn from(error: Error) -> Self {
        Unusable::Feature(error.into())
    }
}

impl Stage<'_> {
    /// Requests an answer and takes its files.
    ///
    /// An answer that breaks off or holds an invalid file leaves the workspace as it was before,
    /// and refuses the attempt.
    pub(super) async fn request(&mut self, attempt: u32) -> Result<StageResult, FeatureError> {
        let Some(admission) = self.admission() else {
            return Ok(StageResult::Completed(PhaseEvent::Overloaded));
        };
        let before = self.active.workspace.tree().clone();
        // The tests of the last attempt may have left files in the workspace.
        self.active.workspace.start_from(&self.active.base, &before, &self.ctx.store).await?;
        match self.take_answer(attempt).await {
            Ok(()) => {
                self.end_pause(admission);
                Ok(StageResult::Completed(PhaseEvent::Answered))
            }
            Err(Unusable::Feature(error)) => Err(error),
            Err(Unusable::Overloaded { message, retry_after }) => {
                self.active.workspace.reset(&before, &self.ctx.store).await?;
                self.pause(admission, message, retry_after)
            }
            Err(Unusable::Answer(reason)) => {
                self.end_pause(admission);
                self.active.workspace.reset(&before, &self.ctx.store).await?;
                self.record_aborted(&reason).await?;
                Ok(StageResult::refused(reason))
            }
        }
    }

    async fn take_answer(&mut self, attempt: u32) -> Result<(), Unusable> {
        let ctx = self.ctx;
        let feature = ctx.feature(self.id);
        let request = Request {
            feature: feature.id.clone(),
            attempt,
            prompt: prompt::compose(feature, attempt, self.active.attempts_max, &self.active.feedback),
            directory: self.active.workspace.directory(),
        };
        ctx.steps.pass("request").await;
        let agent = &feature.agent;
        let Some(pool) = ctx.agents.get(agent) else {
            return Err(FeatureError::Internal(format!("agent `{agent}` is not set up")).into());
        };
        ctx.totals.lock().requests += 1;
        let mut session = pool.session().await.map_err(|error| Unusable::Answer(chain(&error)))?;
        // The time limit does not include the wait for a session, which other answers may hold
        // long.
        let (time_max, started) = (self.time_limit(), Instant::now());
        let answer = match timeout(time_max, session.send(&request)).await {
            Ok(Ok(answer)) => self.wait_on().watch(answer),
            Ok(Err(error)) => return Err(Unusable::request(error)),
            Err(_) => {
                let reason = format!("the answer did not begin within {time_max:?} (agent.time_limit)");
                return Err(Unusable::Answer(reason));
            }
        };
        let limits = Limits {
            stream_bytes_max: Some(ctx.settings.agent.answer_limit),
            total: Some(time_max.saturating_sub(started.elapsed())),
            ..Limits::default()
        };
        self.take_files(attempt, answer, limits, time_max).await
    }

    /// Writes the files of an answer as they complete.
    async fn take_files(
        &mut self,
        attempt: u32,
        answer: ResponseStream,
        limits: Limits,
        time_max: Duration,
    ) -> Result<(), Unusable> {
        let file_bytes_max = usize::try_from(self.ctx.settings.agent.answer_limit).unwrap_or(usize::MAX);
        let mut units = Pull::new(answer.into_text(), Files::new(Cap::error(file_bytes_max.min(1 << 30))))
            .with_budget(self.ctx.answers.clone())
            .with_limits(limits);
        let mut files = 0;
        let mut partial = Vec::new();
        while let Some(batch) = units.next().await {
            let batch = batch.map_err(|error| Unusable::answer(&error, time_max))?;
            for unit in batch.iter() {
                if unit.kind() == UnitKind::File {
                    self.take_file(attempt, &unit).await?;
                    files += 1;
                } else {
                    partial.extend(describe_partial(&unit).filter(|_| partial.len() < PARTIAL_MAX));
                }
            }
        }
        // Agents that edit files leave their work in the directory.
        let scan = self.active.workspace.scan(&self.ctx.store).await?;
        if let Some(refused) = scan.refused.first() {
            return Err(Unusable::Answer(format!("{refused}; expected files, directories and links")));
        }
        files += scan.changes.len();
        if files == 0 {
            let bytes = units.stats().bytes;
            return Err(Unusable::Answer(if partial.is_empty() {
                format!("the answer ({bytes} bytes) contains no file")
            } else {
                format!("the answer contains no complete file: {}", partial.join("; "))
            }));
        }
        self.active.partial = partial;
        Ok(())
    }

    async fn take_file(&mut self, attempt: u32, unit: &Unit<'_>) -> Result<(), Unusable> {
        let path = unit.path().unwrap_or_default();
        if !unit.is_complete() {
            return Err(Unusable::Answer(format!("file `{path}` is cut off by the end of the answer")));
        }
        self.ctx.steps.pass("take a file").await;
        // Copied, because a slice would keep the whole chunk of the answer in memory.
        let content = Bytes::copy_from_slice(&unit.bytes());
        let bytes = content.len();
        match self.active.workspace.write(path, content, &self.ctx.store).await {
            Ok(path) => {
                let feature = self.feature().id.clone();
                self.ctx.emit(Event::File { feature, attempt, path, bytes }).await;
                Ok(())
            }
            Err(Error::InvalidPath(error)) => Err(Unusable::Answer(error.to_string())),
            Err(error) => Err(error.into()),
        }
    }

    /// Stores that an attempt ended without an answer that can be tested.
    async fn record_aborted(&self, reason: &str) -> Result<(), Error> {
        let outcome = AttemptOutcome::Aborted;
        let draft = NewAttempt { files: Default::default(), outcome, note: reason.to_owned() };
        let recorded = self.ctx.attempts.record(&self.feature().id, draft).await;
        recorded.map(drop).map_err(Error::store("write to"))
    }

    fn time_limit(&self) -> Duration {
        match self.ctx.plan.agents.get(&self.feature().agent) {
            Some(AgentSpec::Command(CommandSpec { time_max: Some(limit), .. })) => *limit,
            _ => self.ctx.settings.agent.time_limit,
        }
    }
}

/// Describes why an answer cannot be read, and names the setting behind a limit.
fn describe(error: &StreamError, time_max: Duration) -> String {
    match error {
        StreamError::Source { source, .. } => chain(source.as_ref()),
        StreamError::StreamTooLong { bytes_max } => {
            format!("the answer is longer than {bytes_max} bytes (agent.answer_limit)")
        }
        StreamError::Timeout { received, .. } => {
            format!(
                "the answer did not end within {time_max:?} (agent.time_limit); {received} bytes were received"
            )
        }
        other => format!("cannot read the answer: {}", chain(other)),
    }
}

/// Describes a part of an answer that gives a file incompletely. Returns `None` for other parts.
fn describe_partial(unit: &Unit<'_>) -> Option<String> {
    let path = unit.edited_path().map(str::to_owned).or_else(|| match unit.kind() {
        UnitKind::Diff => path_in_diff(&String::from_utf8_lossy(&unit.content())),
        _ => None,
    });
    let path = path.map_or("a file".to_owned(), |path| format!("`{path}`"));
    Some(match unit.kind() {
        UnitKind::Edit => format!("{path} is given in part only; answer with the whole file"),
        UnitKind::Diff => format!("{path} is given as a diff; answer with the whole file"),
        UnitKind::Ambiguous => format!(
            "{path} holds fences as long as the one around it, so its end is unclear; answer with a longer \
             fence around the whole file"
        ),
        _ => return None,
    })
}

/// Returns the first path that a diff names: the new file's, or the old file's if it is removed.
///
/// `git diff` puts `a/` and `b/` before paths, and a timestamp may follow after a tab.
fn path_in_diff(diff: &str) -> Option<String> {
    let named = |mark: &str, side: &str| {
        let lines = diff.lines().filter_map(|line| line.strip_prefix(mark));
        let mut paths = lines.map(|line| line.split('\t').next().unwrap_or(line).trim());
        let path = paths.find(|path| !path.is_empty() && *path != "/dev/null")?;
        Some(path.strip_prefix(side).unwrap_or(path).to_owned())
    };
    named("+++ ", "b/").or_else(|| named("--- ", "a/"))
}

#[cfg(test)]
mod tests {
    use super::path_in_diff;

    #[test]
    fn a_path_is_found_in_each_form_of_diff() {
        let path = |diff| path_in_diff(diff);
        assert_eq!(path("--- a/x.rs\n+++ b/x.rs\n@@ -1 +1 @@\n").as_deref(), Some("x.rs"));
        assert_eq!(path("--- x.rs\t2026-01-01\n+++ x.rs\t2026-01-02\n").as_deref(), Some("x.rs"));
        assert_eq!(path("--- a/old.rs\n+++ /dev/null\n").as_deref(), Some("old.rs"));
        assert_eq!(path("--- /dev/null\n+++ b/new.rs\n").as_deref(), Some("new.rs"));
        assert_eq!(path("@@ -1 +1 @@\n-a\n+b\n"), None);
    }
}
