//! Sends a request to an agent and takes its work into the workspace.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use greenwave_agents::{
    Acceptance, Error as AgentError, HttpMode, PooledSession, Request, ResponseStream, TestCalls, Withheld,
};
use greenwave_storage::{AttemptOutcome, NewAttempt, Transcript};
use greenwave_streaming::{Cap, Error as StreamError, Files, Limits, Pull};
use greenwave_testing::EntryKind;
use humantime::format_duration;
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use super::Stage;
use super::answer::{AnswerPart, Draft, NotTaken, PartError, TakenFile, describe_changes, nameless, part_of};
use super::context;
use super::pause::Unavailable;
use super::turn_waits::{TurnWait, TurnWaits};
use crate::attempt_record::AttemptRecord;
use crate::confine::{self, PathError, PathProblem};
use crate::confinement::agents;
use crate::disk_full;
use crate::error::{Error, FeatureError, chain};
use crate::event::Event;
use crate::git_copies;
use crate::large_files::PrintedFile;
use crate::live_feed::AgentLines;
use crate::phase::PhaseEvent;
use crate::plan::{AgentSpec, CommandSpec, Edits};
use crate::state::StageResult;
use crate::transcript::Recorder;
use crate::tree::{self, Change, Tree};

/// Maximum number of remarks about blocks that name no file.
const REMARKS_MAX: usize = 3;
/// Maximum number of problems that are reported for one answer.
const PROBLEMS_MAX: usize = 5;
/// Maximum size of the end of an answer that a refusal quotes, in bytes.
const LAST_WORDS_BYTES_MAX: usize = 200;

/// Maximum number of files and edits of an answer, and of files that an agent may change.
const FILES_MAX: usize = 50_000;

/// An answer that was read to its end.
#[derive(Debug, Default)]
struct CompleteAnswer {
    parts: Vec<AnswerPart>,
    /// Remarks about blocks that may be meant as files, but name none.
    remarks: Vec<String>,
    bytes: u64,
}

/// An answer that has begun.
pub(super) struct OpenAnswer {
    pub(super) answer: ResponseStream,
    /// The session that answers. The pool lends it again once it is dropped.
    pub(super) session: PooledSession,
    time_max: Duration,
    /// Start of the request.
    started: Instant,
}

/// Why an answer cannot be used.
pub(super) enum Unusable {
    /// The attempt is refused for this reason.
    Answer(String),
    /// The feature fails.
    Feature(FeatureError),
    /// The provider of the agent limits requests, is overloaded or cannot be reached.
    Overloaded(Unavailable),
}

impl Unusable {
    /// Returns why a request failed, given an error of the agent.
    pub(super) fn request(error: AgentError) -> Self {
        match error {
            AgentError::Overloaded { line: message, retry_after, is_unreachable, .. }
            | AgentError::ServerUnavailable { message, retry_after, is_unreachable, .. } => {
                Unusable::Overloaded(Unavailable { message, retry_after, is_unreachable })
            }
            error if error.is_permanent() => Unusable::Feature(FeatureError::Agent(error)),
            error => Unusable::Answer(chain(&error)),
        }
    }

    /// Returns why an answer cannot be read.
    fn answer(error: &StreamError, time_max: Duration) -> Self {
        if let Some(
            AgentError::Overloaded { line: message, retry_after, is_unreachable, .. }
            | AgentError::ServerUnavailable { message, retry_after, is_unreachable, .. },
        ) = agent_error(error)
        {
            return Unusable::Overloaded(Unavailable {
                message: message.clone(),
                retry_after: *retry_after,
                is_unreachable: *is_unreachable,
            });
        }
        Unusable::Answer(describe(error, time_max))
    }
}

/// Returns the error of the agent that broke off an answer.
fn agent_error(error: &StreamError) -> Option<&AgentError> {
    match error {
        StreamError::Source { source, .. } => source.downcast_ref(),
        _ => None,
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
    /// Sends a request, and takes the agent's work.
    ///
    /// An answer that breaks off or cannot be applied leaves the workspace as it was before,
    /// and refuses the attempt.
    pub(super) async fn request(&mut self, attempt: u32) -> Result<StageResult, FeatureError> {
        let reserved = self.reserve().await?;
        let Some(admission) = self.admission() else {
            return Ok(StageResult::Completed(PhaseEvent::Overloaded));
        };
        let before = self.active.workspace.tree().clone();
        // The tests of the last attempt may have left files in the workspace.
        self.active.workspace.start_from(&self.active.base, &before, &self.ctx.store).await?;
        self.active.workspace.withhold_secrets().await?;
        self.active.transcript = Transcript::default();
        self.active.test_output.clear();
        self.active.figures = None;
        let started = Instant::now();
        let taken = self.take_answer(attempt, &admission.acceptance()).await;
        let millis = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.active.figures.get_or_insert_default().millis = millis;
        drop(reserved);
        match taken {
            Ok(()) => {
                self.end_pause(admission);
                Ok(StageResult::Completed(PhaseEvent::Answered))
            }
            Err(Unusable::Feature(error)) => Err(error),
            Err(Unusable::Overloaded(unavailable)) => {
                self.active.workspace.reset(&before, &self.ctx.store).await?;
                self.pause(admission, unavailable)
            }
            Err(Unusable::Answer(reason)) => {
                self.end_pause(admission);
                // A reset makes room, so this is decided before it.
                let full = self.ctx.disk_full.look(&[self.active.workspace.root(), &std::env::temp_dir()]);
                if let Some(directory) = full {
                    return Err(FeatureError::DiskFull { directory });
                }
                self.active.workspace.reset(&before, &self.ctx.store).await?;
                self.record_aborted(&reason).await?;
                Ok(StageResult::refused(reason))
            }
        }
    }

    /// Takes the agent's work. Starts a new session if the agent does not find the earlier one.
    async fn take_answer(&mut self, attempt: u32, acceptance: &Acceptance) -> Result<(), Unusable> {
        let session = self.active.session.take();
        let is_continued = session.is_some();
        match self.take_answer_of(attempt, session, acceptance).await {
            Err(Unusable::Answer(reason)) if is_continued && self.active.session.is_none() => {
                tracing::info!(reason, feature = self.feature().id, "starting a new session of the agent");
                self.take_answer_of(attempt, None, acceptance).await
            }
            taken => taken,
        }
    }

    /// Sends a request that continues this session, and takes the agent's work.
    async fn take_answer_of(
        &mut self,
        attempt: u32,
        session: Option<String>,
        acceptance: &Acceptance,
    ) -> Result<(), Unusable> {
        let ctx = self.ctx;
        let feature = ctx.feature(self.id);
        let prompt = self.prompt(attempt).await;
        let (kept, temporary) = self.active.kept.place(|| ctx.copies.temporary_dir())?;
        let temporary = temporary.to_owned();
        let (tester, calls) = self.tester();
        let request =
            Request::new(&feature.id, attempt, prompt, self.active.workspace.directory(), temporary)
                .keeping_in(Some(kept))
                .in_root(self.active.workspace.root())
                .with_context(self.context())
                .withholding(Withheld::new(context::is_withheld))
                .with_tester(tester)
                .continuing(session)
                .as_candidate(self.active.candidate.unwrap_or(1));
        ctx.steps.pass("request").await;
        let opened = self.open_answer(&request, acceptance).await;
        if opened.is_err() {
            self.active.kept.clear();
        }
        let OpenAnswer { answer, session, time_max, started } = opened?;
        let limits = Limits {
            stream_bytes_max: Some(ctx.settings.agent.answer_limit),
            total: Some(time_max.saturating_sub(started.elapsed())),
            ..Limits::default()
        };
        let taken = self.take_files(attempt, (answer, calls), limits, (time_max, started)).await;
        drop(session);
        match self.active.session {
            Some(_) => self.active.kept.end_attempt(),
            // Nobody will continue the session.
            None => self.active.kept.clear(),
        }
        taken
    }

    /// Sends a request to the agent.
    pub(super) async fn open_answer(
        &self,
        request: &Request,
        acceptance: &Acceptance,
    ) -> Result<OpenAnswer, Unusable> {
        let ctx = self.ctx;
        let agent = self.agent();
        let Some(pool) = ctx.agents.get(agent) else {
            return Err(FeatureError::Internal(format!("agent `{agent}` is not set up")).into());
        };
        let mut session = pool.session().await.map_err(|error| Unusable::Answer(chain(&error)))?;
        // Another feature may have found the disk full while this one waited.
        if let Some(directory) = ctx.disk_full.directory() {
            return Err(FeatureError::DiskFull { directory }.into());
        }
        ctx.totals.lock().requests += 1;
        // The time limit does not include the wait for a session, which other answers may hold
        // long.
        let (time_max, started) = (self.time_limit(), Instant::now());
        match timeout(time_max, session.send(request)).await {
            Ok(Ok(answer)) => {
                let answer = self.wait_on().watch(self.reporting(answer, acceptance));
                Ok(OpenAnswer { answer, session, time_max, started })
            }
            Ok(Err(error)) => Err(self.needs_login(&error).unwrap_or_else(|| Unusable::request(error))),
            Err(_) => {
                let time_max = format_duration(time_max);
                let reason = format!("the answer did not begin within {time_max} (agent.time_limit)");
                Err(Unusable::Answer(reason))
            }
        }
    }

    /// Returns the files that a model server gets with the prompt, relative to the project.
    pub(super) fn context(&self) -> Vec<String> {
        let workspace = &self.active.workspace;
        match self.agent_spec() {
            Some(AgentSpec::Http(spec)) => {
                context::files(&spec.context, workspace.tree(), &workspace.project())
            }
            _ => Vec::new(),
        }
    }

    /// Reads the answer to its end, then takes the agent's work. `times` are the time limit and the
    /// start of the request.
    async fn take_files(
        &mut self,
        attempt: u32,
        (answer, calls): (ResponseStream, TestCalls),
        limits: Limits,
        times: (Duration, Instant),
    ) -> Result<(), Unusable> {
        let recorder = Arc::new(Mutex::new(Recorder::new()));
        let recording = Arc::clone(&recorder);
        let live = self.ctx.live.get().cloned();
        let candidate = self.active.candidate;
        let mut lines = live.map(|live| AgentLines::new(live, &self.feature().id, attempt, candidate));
        let (mut waits, changes) = TurnWaits::new();
        let answer = ResponseStream::new(answer.inspect(move |event| {
            recording.lock().observe(event);
            waits.observe(event);
            if let Some(lines) = &mut lines {
                lines.observe(event);
            }
        }));
        let read = self.read_parts(attempt, (answer, calls, changes), limits, times).await;
        self.ctx.metrics.agent_turn.observe(times.1.elapsed());
        let recorder = std::mem::replace(&mut *recorder.lock(), Recorder::new());
        self.record(recorder).await;
        let answer = read?;
        self.take_work(attempt, answer).await
    }

    async fn read_parts(
        &self,
        attempt: u32,
        (answer, mut calls, mut waits): (ResponseStream, TestCalls, mpsc::Receiver<TurnWait>),
        limits: Limits,
        (time_max, started): (Duration, Instant),
    ) -> Result<CompleteAnswer, Unusable> {
        let file_bytes_max = usize::try_from(self.ctx.settings.agent.answer_limit).unwrap_or(usize::MAX);
        let printed = PrintedFile::default();
        let mut units =
            Pull::new(printed.watch(answer.into_text()), Files::new(Cap::error(file_bytes_max.min(1 << 30))))
                .with_budget(self.ctx.answers.clone())
                .with_limits(limits);
        let mut answer = CompleteAnswer::default();
        let mut is_first = true;
        loop {
            let batch = tokio::select! {
                batch = units.next() => batch,
                Some(change) = waits.recv() => {
                    self.show_wait(attempt, change).await;
                    continue;
                }
                Some(call) = calls.next() => {
                    // The agent waits for the result, unless it is gone.
                    let _ = call.send(self.test_for_agent().await?);
                    continue;
                }
            };
            let Some(batch) = batch else { break };
            let batch = batch.map_err(|error| {
                let login = agent_error(&error).and_then(|error| self.needs_login(error));
                login.unwrap_or_else(|| Unusable::answer(&error, time_max))
            })?;
            if std::mem::take(&mut is_first) {
                self.ctx.metrics.first_unit.observe(started.elapsed());
            }
            for unit in batch.iter() {
                answer.remarks.extend(nameless(&unit).filter(|_| answer.remarks.len() < REMARKS_MAX));
                answer.parts.extend(part_of(&unit, &self.ctx.store).await?);
                if answer.parts.len() > FILES_MAX {
                    let reason = format!("the answer has more than {FILES_MAX} files and edits");
                    return Err(Unusable::Answer(reason));
                }
            }
            drop(batch);
            printed.end();
        }
        answer.bytes = units.stats().bytes;
        Ok(answer)
    }

    /// Returns the end of the feature if the agent is a coding program that is not logged in. More
    /// attempts would fail in the same way.
    pub(super) fn needs_login(&self, error: &AgentError) -> Option<Unusable> {
        let agent = self.agent();
        let Some(AgentSpec::Command(CommandSpec { program, .. })) = self.ctx.plan.agents.get(agent) else {
            return None;
        };
        let program = (*program)?;
        let message = self.ctx.shown(program.login_problem(error)?.as_bytes());
        let (agent, action) = (agent.clone(), program.login_action());
        Some(FeatureError::NeedsLogin { agent, message, action }.into())
    }

    /// Takes the agent's changes in its directory, if they count, and the parts of its answer.
    async fn take_work(&mut self, attempt: u32, answer: CompleteAnswer) -> Result<(), Unusable> {
        let ctx = self.ctx;
        let store = &ctx.store;
        let before = self.active.workspace.tree().clone();
        let (changes, left) = match self.edits() {
            Edits::Directory => self.scan().await?,
            Edits::Answer => (Vec::new(), Vec::new()),
        };
        let touched: BTreeSet<String> = changes.iter().map(|change| change.path.clone()).collect();
        let root = self.active.workspace.root().to_owned();
        if touched.is_empty() {
            // The parts are applied to the files of the tree, not to the files that the agent left
            // on disk.
            self.active.workspace.reset(&before, store).await?;
        }
        let size = |path: &str| root.join(path).symlink_metadata().map_or(0, |found| found.len() as usize);
        let described = describe_changes(&changes, size);
        let project = self.active.workspace.project();
        let mut draft = Draft::new(&root, &project, store, self.active.workspace.tree().clone());
        draft.taken.extend(described);
        let (mut not_taken, mut problems) = (left, Vec::new());
        for part in &answer.parts {
            ctx.steps.pass("take a file").await;
            if !touched.is_empty() {
                not_taken.extend(draft.apply_beside(part, &touched).await?);
                continue;
            }
            match draft.apply(part).await {
                Ok(()) => {}
                Err(PartError::Run(error)) => return Err(error.into()),
                Err(PartError::Problem { reason, .. }) => problems.push(reason),
            }
        }
        if !problems.is_empty() {
            problems.dedup();
            problems.truncate(PROBLEMS_MAX);
            return Err(Unusable::Answer(problems.join("; ")));
        }
        if draft.taken.is_empty() && !self.has_earlier_work() {
            return Err(Unusable::Answer(self.describe_empty(&answer)));
        }
        let mut remarks = answer.remarks;
        if draft.taken.is_empty() {
            remarks.extend(self.work_in_git());
        }
        let (tree, taken) = (draft.tree, draft.taken);
        if let Err(error) = self.active.workspace.reset(&tree, store).await {
            if disk_full::is_full(&error) && self.active.candidate.is_none() {
                self.save_unwritten(attempt, &tree);
            }
            return Err(error.into());
        }
        if self.active.candidate.is_none() {
            self.publish(attempt, taken, &not_taken).await;
        }
        self.active.partial = not_taken.into_iter().map(describe_not_taken).chain(remarks).collect();
        Ok(())
    }

    /// Returns whether the workspace has files of the last answer, which was refused, so that an
    /// agent that changes nothing leaves them as its answer.
    ///
    /// They can lack what was refused: a file that others have changed, or that is protected. If
    /// they are the same, the tests fail again, which ends the feature early. An agent that only
    /// prints its answer has to print it again.
    fn has_earlier_work(&self) -> bool {
        let tree = self.active.workspace.tree();
        let Some((refused, _)) = &self.active.refused else { return false };
        *tree != self.base_with_tests() && (refused != tree || self.edits() == Edits::Directory)
    }

    /// Finds the agent's changes in its directory, and the entries there that are never taken.
    async fn scan(&mut self) -> Result<(Vec<Change>, Vec<NotTaken>), Unusable> {
        self.remove_leftovers().await?;
        let scan = self.active.workspace.scan(&self.ctx.store).await?;
        if scan.changes.len() > FILES_MAX {
            let reason = format!("the agent changed more than {FILES_MAX} files");
            return Err(Unusable::Answer(reason));
        }
        for change in &scan.changes {
            confine::plain(&change.path).map_err(|error| Unusable::Answer(error.to_string()))?;
            let Some(link) = change.after.filter(|file| file.kind == EntryKind::Symlink) else { continue };
            let target = tree::content(&self.ctx.store, &link.blob).await?;
            let target = Path::new(OsStr::from_bytes(&target));
            if !confine::stays_inside_by_name(Path::new(&change.path), target) {
                let problem = PathProblem::LinkOutside(change.path.clone());
                let error = PathError { path: change.path.clone(), problem };
                return Err(Unusable::Answer(error.to_string()));
            }
        }
        // A program that the agent has started may have left its socket. It is no loss.
        let (left, refused): (Vec<_>, Vec<_>) = scan.refused.iter().partition(|entry| entry.is_special());
        if let Some(entry) = refused.first() {
            return Err(Unusable::Answer(format!("the agent left an entry that cannot be merged: {entry}")));
        }
        let left = left.into_iter().map(|entry| NotTaken {
            path: entry.path.to_str().map(str::to_owned),
            reason: format!("{entry}, and was removed"),
        });
        Ok((scan.changes, left.collect()))
    }

    /// Removes files that well-known agents leave in the project for themselves, such as aider's
    /// history of its chats.
    async fn remove_leftovers(&mut self) -> Result<(), Error> {
        let Some(AgentSpec::Command(spec)) = self.agent_spec() else {
            return Ok(());
        };
        let (prefixes, workspace) = (agents::leftovers(&spec.command), &self.active.workspace);
        if prefixes.is_empty() {
            return Ok(());
        }
        let (dir, tree) = (workspace.dir().clone(), workspace.tree().clone());
        workspace
            .blocking(move || {
                let failed = || Error::io("remove the leftovers of an agent in", dir.path());
                for entry in dir.entries().map_err(failed())? {
                    let Some(name) = entry.name.to_str() else { continue };
                    let is_own = prefixes.iter().any(|prefix| name.starts_with(prefix));
                    if is_own && !tree::contains(&tree, name) {
                        dir.remove_all(name).map_err(failed())?;
                    }
                }
                Ok(())
            })
            .await
    }

    /// Publishes the files of an agent's work, and the parts of its answer that were not taken.
    pub(super) async fn publish(&self, attempt: u32, taken: Vec<TakenFile>, not_taken: &[NotTaken]) {
        let feature = &self.feature().id;
        for TakenFile { path, change, from, bytes, executable } in taken {
            let feature = feature.clone();
            self.ctx.emit(Event::File { feature, attempt, path, bytes, change, from, executable }).await;
        }
        for NotTaken { path, reason } in not_taken {
            let (feature, path, reason) = (feature.clone(), path.clone(), reason.clone());
            self.ctx.emit(Event::NotTaken { feature, attempt, path, reason }).await;
        }
    }

    /// Describes an answer without a file, with the agent's last words.
    fn describe_empty(&self, answer: &CompleteAnswer) -> String {
        let mut reason = match self.edits() {
            Edits::Directory => {
                format!("the agent changed no file, and its answer ({} bytes) contains none", answer.bytes)
            }
            Edits::Answer => format!("the answer ({} bytes) contains no file", answer.bytes),
        };
        if let Some(remark) = self.work_in_git() {
            reason.push_str("; ");
            reason.push_str(&remark);
        }
        for remark in &answer.remarks {
            reason.push_str("; ");
            reason.push_str(remark);
        }
        let words = last_words(&self.active.transcript.words);
        if !words.is_empty() {
            reason.push_str(&format!("; it ends with {words:?}"));
        }
        reason
    }

    /// Describes work that an agent has left in its repository and not in its files.
    fn work_in_git(&self) -> Option<String> {
        let added = git_copies::added_refs(self.active.workspace.dir());
        let names = added.join(", ");
        (!added.is_empty())
            .then(|| format!("its work in git does not count before it is in the files: {names}"))
    }

    pub(super) fn edits(&self) -> Edits {
        match self.agent_spec() {
            Some(AgentSpec::Command(CommandSpec { edits, .. })) => *edits,
            Some(AgentSpec::Http(spec)) if spec.options.mode == HttpMode::Tools => Edits::Directory,
            _ => Edits::Answer,
        }
    }

    /// Saves an answer that found the disk full until the end of the run, when there may be room.
    fn save_unwritten(&self, attempt: u32, files: &Tree) {
        let before_round = self.active.attempts_max.saturating_sub(self.feature().attempts_max);
        let record = AttemptRecord {
            answered: true,
            first_attempt: self.active.first_attempt,
            feedback: self.active.feedback.clone(),
            failing: self.active.failing.clone(),
            changes: tree::changes(&self.active.base, files),
            ..AttemptRecord::new(self.ctx.definition(self.id), attempt, before_round)
        };
        self.ctx.unsaved.lock().push((self.id, record));
    }

    /// Stores that an attempt ended without an answer that can be tested.
    async fn record_aborted(&self, reason: &str) -> Result<(), Error> {
        let outcome = AttemptOutcome::Aborted;
        let transcript = self.active.transcript.clone();
        let reason = self.ctx.shown(reason.as_bytes());
        let figures = self.active.figures;
        let draft = NewAttempt { outcome, reason, transcript, figures, ..NewAttempt::default() };
        let recorded = self.ctx.attempts.record(&self.feature().id, draft).await;
        recorded.map(drop).map_err(Error::store("write to"))
    }

    pub(super) fn time_limit(&self) -> Duration {
        let set = self.agent_spec().and_then(AgentSpec::time_max);
        set.unwrap_or(self.ctx.settings.agent.time_limit)
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
            let time_max = format_duration(time_max);
            format!(
                "the answer did not end within {time_max} (agent.time_limit); {received} bytes were received"
            )
        }
        other => format!("cannot read the answer: {}", chain(other)),
    }
}

/// Describes a part of an answer that was not taken, for the next prompt.
fn describe_not_taken(part: NotTaken) -> String {
    match part.path {
        Some(path) if !part.reason.contains(&path) => format!("the block for `{path}`: {}", part.reason),
        _ => part.reason,
    }
}

/// Returns the end of a text, at a word.
fn last_words(text: &str) -> &str {
    let text = text.trim();
    let from = text.len().saturating_sub(LAST_WORDS_BYTES_MAX);
    let from = (from..text.len()).find(|&at| text.is_char_boundary(at)).unwrap_or(text.len());
    let word = text[from..].find(char::is_whitespace).filter(|_| from > 0).unwrap_or(0);
    text[from + word..].trim()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_words_are_whole_words() {
        assert_eq!(last_words("  I did nothing.\n"), "I did nothing.");
        let long = "ä".repeat(LAST_WORDS_BYTES_MAX) + " the end";
        assert_eq!(last_words(&long), "the end");
        assert_eq!(last_words(""), "");
    }
}
