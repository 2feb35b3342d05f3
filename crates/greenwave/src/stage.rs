//! What a feature does in each phase: sees its tests fail, asks, tests, has itself reviewed. Which phase comes
//! next is decided in `feature.rs`; how a feature comes into the project stands in `merge.rs`.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use greenwave_agents::Request;
use greenwave_scheduler::Step;
use greenwave_storage::{AttemptOutcome, NewAttempt};
use greenwave_streaming::{Cap, Error as StreamError, Files, Limits, Pull, Unit, UnitKind};
use greenwave_testing::{Outcome, Status, Test};
use tokio::time::{Instant, timeout};

use crate::engine::{FeatureState, Shared};
use crate::error::{Error, Failure, chain};
use crate::event::Event;
use crate::feature::{Happening, Phase};
use crate::plan::{AgentSpec, Feature};
use crate::prompt;
use crate::tree::{self, Tree};
use crate::workspace::Workspace;

/// Most parts of files that one answer is refused for by name.
const PARTIAL_MAX: usize = 5;

/// What a phase came to, when nothing went wrong that ends the feature.
pub(crate) enum Ended {
    /// What it should have.
    Well(Happening),
    /// An attempt came to nothing; why in a line, and what the agent is told.
    Refused { reason: String, feedback: String },
}

impl Ended {
    pub(crate) fn refused(reason: impl Into<String>) -> Self {
        let reason = reason.into();
        Ended::Refused { feedback: reason.clone(), reason }
    }
}

impl Shared {
    /// Performs the next phase of a feature, and says what comes after it.
    pub(crate) async fn stage(&self, feature: usize) -> Step<(), Failure> {
        let mut state = self.features[feature].lock().await;
        let started = Instant::now();
        self.steps.pass("begin a stage").await;
        // Agents and test runners are code of others: a panic there fails this feature, whose copy is
        // removed and whose watchers hear of it like after any other failure.
        let performed = AssertUnwindSafe(self.perform(feature, &mut state)).catch_unwind().await;
        let result = performed.unwrap_or_else(|panic| Err(Failure::Defect(panic_text(&*panic))));
        self.steps.pass("end a stage").await;
        state.report.busy += started.elapsed();
        match result {
            Ok(ended) => self.move_on(feature, &mut state, ended).await,
            Err(failure) => {
                self.failed(feature, &mut state, &failure).await;
                self.leave(&mut state);
                Step::Failed(failure)
            }
        }
    }

    async fn perform(&self, feature: usize, state: &mut FeatureState) -> Result<Ended, Failure> {
        match state.phase.unwrap_or(Phase::Waiting) {
            Phase::Waiting if state.kept.is_some() => {
                self.enter(feature, state, Happening::FoundGreen).await;
                self.check_kept(feature, state).await
            }
            Phase::Waiting => {
                self.enter(feature, state, Happening::Begun).await;
                self.see_red(feature, state).await
            }
            Phase::Red => self.see_red(feature, state).await,
            Phase::Asking(attempt) => self.ask(feature, state, attempt).await,
            Phase::Testing(attempt) => self.test(feature, state, attempt).await,
            Phase::Reviewing(attempt) => self.review(feature, state, attempt).await,
            Phase::Merging(_) => self.merge(feature, state).await,
            Phase::Checking | Phase::Green(_) | Phase::Failed | Phase::Skipped => {
                Err(Failure::Defect(format!("a stage was started in phase {:?}", state.phase)))
            }
        }
    }

    async fn move_on(&self, feature: usize, state: &mut FeatureState, ended: Ended) -> Step<(), Failure> {
        let before = state.phase.unwrap_or(Phase::Waiting);
        match ended {
            Ended::Well(happening) => self.enter(feature, state, happening).await,
            Ended::Refused { reason, feedback } => {
                if before.attempt() > 0 {
                    let id = self.plan.features[feature].id.clone();
                    let (attempt, reason) = (before.attempt(), reason.clone());
                    self.emit(Event::Refused { feature: id, attempt, reason }).await;
                }
                state.feedback = feedback;
                self.enter(feature, state, Happening::Refused).await;
                if state.phase == Some(Phase::Failed) {
                    let failure = Failure::Attempts { attempts: before.attempt(), reason };
                    self.failed(feature, state, &failure).await;
                    self.leave(state);
                    return Step::Failed(failure);
                }
            }
        }
        match state.phase.unwrap_or(Phase::Waiting) {
            Phase::Green(_) => {
                self.leave(state);
                Step::Done(())
            }
            phase => Step::Next(self.needs(feature, phase)),
        }
    }

    async fn enter(&self, feature: usize, state: &mut FeatureState, happening: Happening) {
        let before = state.phase.unwrap_or(Phase::Waiting);
        let phase = before.after(happening, self.course(feature));
        state.phase = Some(phase);
        state.report.attempts = state.report.attempts.max(phase.attempt());
        if (before.light(), before.attempt()) != (phase.light(), phase.attempt()) && phase != Phase::Failed {
            let feature = self.plan.features[feature].id.clone();
            self.emit(Event::Phase { feature, phase: phase.light(), attempt: phase.attempt() }).await;
        }
    }

    /// The copy of the project is of no use any more: what matters of it is in the store.
    fn leave(&self, state: &mut FeatureState) {
        state.workspace.take().map(Workspace::remove).unwrap_or_default();
        state.base = Tree::new();
    }

    /// A feature that was green before: its tests say whether it still is.
    async fn check_kept(&self, feature: usize, state: &mut FeatureState) -> Result<Ended, Failure> {
        let tree = self.trunk.lock().await.tree.clone();
        self.open_workspace(feature, state, tree).await?;
        let failed = self.run_tests(feature, state, "checking").await?;
        let Some(record) = state.kept.take_if(|_| failed.is_none()) else {
            state.kept = None;
            self.steps.pass("forget a feature").await;
            self.journal.forget(&self.plan.features[feature].id).map_err(Error::from)?;
            return Ok(Ended::refused("it was green in an earlier run, and its tests fail now"));
        };
        self.green.lock().insert(feature, Vec::new());
        self.trunk.lock().await.greens.insert(feature);
        state.report.attempts = record.attempts;
        state.report.kept = true;
        Ok(Ended::Well(Happening::Passed))
    }

    async fn see_red(&self, feature: usize, state: &mut FeatureState) -> Result<Ended, Failure> {
        let base = self.base_of(feature).await?;
        self.open_workspace(feature, state, base).await?;
        match self.run_tests(feature, state, "red").await? {
            None => {
                let tests = self.plan.features[feature].tests.iter().map(|test| test.name.clone()).collect();
                Err(Failure::PassedAtOnce { tests })
            }
            Some((test, outcome)) if outcome.status == Status::NoTests => Err(Failure::NoTests { test }),
            Some((_, outcome)) => {
                state.feedback = String::from_utf8_lossy(&outcome.output).into_owned();
                Ok(Ended::Well(Happening::SeenToFail))
            }
        }
    }

    /// What a feature begins with: the project as it was when the run began, and what the features it depends
    /// on have made. Nothing else, however far other features are, so that what an agent sees and answers
    /// does not depend on timing.
    async fn base_of(&self, feature: usize) -> Result<Tree, Error> {
        let mut base = self.start.lock().clone();
        for ancestor in &self.ancestors[feature] {
            let changes = self.green.lock().get(ancestor).cloned().unwrap_or_default();
            match tree::join(&base, &changes, &self.store).await? {
                Ok(changes) => tree::apply(&mut base, &changes),
                // They did join in the project, in another order.
                Err(_) => return Ok(self.trunk.lock().await.tree.clone()),
            }
        }
        Ok(base)
    }

    async fn open_workspace(
        &self,
        feature: usize,
        state: &mut FeatureState,
        tree: Tree,
    ) -> Result<(), Error> {
        let folder = self.work().join(&self.plan.features[feature].id);
        let mut workspace = match state.workspace.take() {
            Some(workspace) => workspace,
            None => Workspace::new(folder, Arc::clone(&self.project.in_flight))?,
        };
        workspace.become_tree(&tree, &self.store).await?;
        state.workspace = Some(workspace);
        state.base = tree;
        Ok(())
    }

    /// Runs a feature's tests in its copy of the project; the first that does not pass is returned.
    async fn run_tests(
        &self,
        feature: usize,
        state: &mut FeatureState,
        phase: &'static str,
    ) -> Result<Option<(String, Outcome)>, Failure> {
        let workspace = state.workspace.as_ref().ok_or_else(no_workspace)?;
        let root = workspace.root().to_owned();
        let mut passed = None;
        for test in &self.plan.features[feature].tests {
            let outcome = self.run_test(feature, state, test, &root, phase).await?;
            if !outcome.passed() {
                return Ok(Some((test.name.clone(), outcome)));
            }
            passed = add(passed, outcome.count.map(|count| count.passed));
        }
        state.report.tests = passed;
        Ok(None)
    }

    pub(crate) async fn run_test(
        &self,
        feature: usize,
        state: &mut FeatureState,
        test: &Test,
        root: &std::path::Path,
        phase: &'static str,
    ) -> Result<Outcome, Failure> {
        self.steps.pass("run a test").await;
        let outcome = self.runner.run(root, test).await?;
        self.tell(feature, test, &outcome, phase).await;
        let counted =
            if outcome.is_cached() { &mut state.report.tests_cached } else { &mut state.report.tests_run };
        *counted += 1;
        Ok(outcome)
    }

    /// Counts and tells a result that was known before the run had to do anything.
    pub(crate) async fn count(&self, feature: usize, test: &Test, outcome: &Outcome) {
        self.tell(feature, test, outcome, "checking").await;
        let mut state = self.features[feature].lock().await;
        state.report.tests_cached += 1;
        state.report.tests = add(state.report.tests, outcome.count.map(|count| count.passed));
    }

    async fn tell(&self, feature: usize, test: &Test, outcome: &Outcome, phase: &'static str) {
        {
            let mut counters = self.counters.lock();
            if outcome.is_cached() {
                counters.tests_cached += 1;
                counters.tests_saved += outcome.duration;
            } else {
                counters.tests_run += 1;
            }
        }
        let event = Event::Tests {
            feature: self.plan.features[feature].id.clone(),
            test: test.name.clone(),
            phase,
            status: outcome.status.to_string(),
            passed: outcome.count.map(|count| count.passed),
            failed: outcome.count.map(|count| count.failed),
            cached: outcome.is_cached(),
            seconds: (outcome.duration.as_secs_f64() * 1000.0).round() / 1000.0,
        };
        self.emit(event).await;
    }

    async fn ask(&self, feature: usize, state: &mut FeatureState, attempt: u32) -> Result<Ended, Failure> {
        let spec = &self.plan.features[feature];
        let workspace = state.workspace.as_mut().ok_or_else(no_workspace)?;
        let request = Request {
            feature: spec.id.clone(),
            attempt,
            prompt: prompt::compose(spec, attempt, &state.feedback),
            directory: workspace.root().to_owned(),
        };
        self.steps.pass("ask").await;
        let Some(pool) = self.agents.get(&spec.agent) else {
            return Err(Failure::Defect(format!("agent `{}` was not made ready", spec.agent)));
        };
        self.counters.lock().questions += 1;
        let mut session = match pool.session().await {
            Ok(session) => session,
            Err(error) => return self.aborted(spec, chain(&error)).await,
        };
        // Waiting for a session does not count: others may have long answers on theirs.
        let (time_max, asked) = (self.time_limit(spec), Instant::now());
        let answer = match timeout(time_max, session.send(&request)).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) if error.is_permanent() => return Err(Failure::Agent(error)),
            Ok(Err(error)) => return self.aborted(spec, chain(&error)).await,
            Err(_) => {
                let problem = format!("the answer had not begun after {time_max:?} (agent.time_limit)");
                return self.aborted(spec, problem).await;
            }
        };
        let before = workspace.tree().clone();
        let limits = Limits {
            stream_bytes_max: Some(self.settings.agent.answer_limit),
            total: Some(time_max.saturating_sub(asked.elapsed())),
            ..Limits::default()
        };
        let file_bytes_max = usize::try_from(self.settings.agent.answer_limit).unwrap_or(usize::MAX);
        let mut units = Pull::new(answer.into_text(), Files::new(Cap::error(file_bytes_max.min(1 << 30))))
            .with_budget(self.answers.clone())
            .with_limits(limits);
        let mut files = 0;
        let mut partial = Vec::new();
        while let Some(batch) = units.next().await {
            let batch = match batch {
                Ok(batch) => batch,
                Err(error) => {
                    workspace.become_tree(&before, &self.store).await?;
                    return self.aborted(spec, answer_problem(&error, time_max)).await;
                }
            };
            for unit in batch.iter() {
                if unit.kind() != UnitKind::File {
                    partial.extend(partial_problem(&unit).filter(|_| partial.len() < PARTIAL_MAX));
                    continue;
                }
                if let Err(problem) = self.take_file(spec, attempt, workspace, &unit).await? {
                    workspace.become_tree(&before, &self.store).await?;
                    return self.aborted(spec, problem).await;
                }
                files += 1;
            }
        }
        if files == 0 {
            let bytes = units.stats().bytes;
            let problem = match partial.join("; ") {
                none if none.is_empty() => format!("the answer of {bytes} bytes has no file in it"),
                partial => format!("the answer has no whole file in it: {partial}"),
            };
            return self.aborted(spec, problem).await;
        }
        state.partial = partial;
        Ok(Ended::Well(Happening::Answered))
    }

    fn time_limit(&self, feature: &Feature) -> Duration {
        match self.plan.agents.get(&feature.agent) {
            Some(AgentSpec::Command { time_max: Some(limit), .. }) => *limit,
            _ => self.settings.agent.time_limit,
        }
    }

    /// Takes a file of an answer; inside, why it is not acceptable.
    async fn take_file(
        &self,
        feature: &Feature,
        attempt: u32,
        workspace: &mut Workspace,
        unit: &Unit<'_>,
    ) -> Result<Result<(), String>, Failure> {
        let path = unit.path().unwrap_or_default();
        if !unit.is_complete() {
            return Ok(Err(format!("file `{path}` is not closed by the end of the answer")));
        }
        self.steps.pass("take a file").await;
        let content = unit.bytes();
        let bytes = content.len();
        // Copied, since a slice would keep the whole chunk of the answer in memory.
        let content = bytes::Bytes::copy_from_slice(&content);
        match workspace.write(path, content, &self.store).await {
            Ok(path) => {
                self.emit(Event::File { feature: feature.id.clone(), attempt, path, bytes }).await;
                Ok(Ok(()))
            }
            Err(Error::Refused(refusal)) => Ok(Err(refusal.to_string())),
            Err(error) => Err(error.into()),
        }
    }

    /// An answer that cannot be tested.
    async fn aborted(&self, feature: &Feature, reason: String) -> Result<Ended, Failure> {
        let draft =
            NewAttempt { files: Default::default(), outcome: AttemptOutcome::Aborted, note: reason.clone() };
        self.attempts.record(&feature.id, draft).await.map_err(Error::store("write to"))?;
        Ok(Ended::refused(reason))
    }

    async fn test(&self, feature: usize, state: &mut FeatureState, attempt: u32) -> Result<Ended, Failure> {
        let failed = self.run_tests(feature, state, "yellow").await?;
        let note = failed.as_ref().map(|(_, outcome)| String::from_utf8_lossy(&outcome.output).into_owned());
        let outcome = if failed.is_none() { AttemptOutcome::Passed } else { AttemptOutcome::Failed };
        self.record_attempt(feature, state, outcome, note.clone().unwrap_or_default()).await?;
        let Some((test, outcome)) = failed else { return Ok(Ended::Well(Happening::Passed)) };
        let counted = outcome.count.filter(|count| count.total() > 0);
        let counted = counted.map(|count| format!(" ({} of {} tests)", count.failed, count.total()));
        let reason = format!("test `{test}` {}{}", outcome.status, counted.unwrap_or_default());
        tracing::debug!(feature, attempt, reason, "attempt refused");
        // What the answer held beside whole files was not taken, which may be why.
        let partial = state.partial.iter().map(|problem| format!("\n\nNot taken: {problem}."));
        let partial: String = partial.collect();
        Ok(Ended::Refused { feedback: format!("{reason}\n\n{}{partial}", note.unwrap_or_default()), reason })
    }

    async fn record_attempt(
        &self,
        feature: usize,
        state: &FeatureState,
        outcome: AttemptOutcome,
        note: String,
    ) -> Result<(), Error> {
        let workspace = state.workspace.as_ref();
        let mut files = std::collections::BTreeMap::new();
        for change in
            workspace.map(|workspace| tree::changes(&state.base, workspace.tree())).unwrap_or_default()
        {
            if let Some(file) = change.after {
                files.insert(change.path, tree::content(&self.store, &file.blob).await?);
            }
        }
        self.steps.pass("record an attempt").await;
        let recorded =
            self.attempts.record(&self.plan.features[feature].id, NewAttempt { files, outcome, note }).await;
        recorded.map_err(Error::store("write to"))?;
        self.flusher.flush().await
    }

    async fn review(
        &self,
        feature: usize,
        state: &mut FeatureState,
        _attempt: u32,
    ) -> Result<Ended, Failure> {
        let Some(review) = &self.plan.features[feature].review else {
            return Ok(Ended::Well(Happening::Passed));
        };
        let root = state.workspace.as_ref().ok_or_else(no_workspace)?.root().to_owned();
        let outcome = self.run_test(feature, state, review, &root, "review").await?;
        if outcome.status == Status::Passed || outcome.status == Status::NoTests {
            return Ok(Ended::Well(Happening::Passed));
        }
        let reason = format!("the review `{}` {}", review.name, outcome.status);
        let feedback = format!("{reason}\n\n{}", String::from_utf8_lossy(&outcome.output));
        Ok(Ended::Refused { reason, feedback })
    }
}

pub(crate) fn no_workspace() -> Failure {
    Failure::Defect("a feature was worked on without a copy of the project".to_owned())
}

/// What is wrong with an answer, with its cause where the stream only carried it.
fn answer_problem(error: &StreamError, time_max: Duration) -> String {
    match error {
        StreamError::Source { source, .. } => chain(source.as_ref()),
        StreamError::StreamTooLong { bytes_max } => {
            format!("the answer is longer than {bytes_max} bytes (agent.answer_limit)")
        }
        StreamError::Timeout { received, .. } => {
            format!(
                "the answer had not ended after {time_max:?} (agent.time_limit); {received} bytes had come"
            )
        }
        other => format!("the answer cannot be read: {}", chain(other)),
    }
}

/// What is wrong with a part of an answer that is about a file and is not the whole of it.
fn partial_problem(unit: &Unit<'_>) -> Option<String> {
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

/// The first path that a diff names: of the new file, or of the old one where it is removed. `git diff`
/// puts `a/` and `b/` before paths, and a timestamp may follow after a tab.
fn path_in_diff(diff: &str) -> Option<String> {
    let named = |mark: &str, side: &str| {
        let lines = diff.lines().filter_map(|line| line.strip_prefix(mark));
        let mut paths = lines.map(|line| line.split('\t').next().unwrap_or(line).trim());
        let path = paths.find(|path| !path.is_empty() && *path != "/dev/null")?;
        Some(path.strip_prefix(side).unwrap_or(path).to_owned())
    };
    named("+++ ", "b/").or_else(|| named("--- ", "a/"))
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    format!("panicked: {}", text.as_deref().unwrap_or("no message"))
}

fn add(sum: Option<u32>, more: Option<u32>) -> Option<u32> {
    more.map(|more| sum.unwrap_or(0) + more).or(sum)
}

#[cfg(test)]
mod tests {
    use super::path_in_diff;

    #[test]
    fn diffs_name_their_files() {
        let named = |diff| path_in_diff(diff);
        assert_eq!(named("--- a/x.rs\n+++ b/x.rs\n@@ -1 +1 @@\n").as_deref(), Some("x.rs"));
        assert_eq!(named("--- x.rs\t2026-01-01\n+++ x.rs\t2026-01-02\n").as_deref(), Some("x.rs"));
        assert_eq!(named("--- a/old.rs\n+++ /dev/null\n").as_deref(), Some("old.rs"));
        assert_eq!(named("--- /dev/null\n+++ b/new.rs\n").as_deref(), Some("new.rs"));
        assert_eq!(named("@@ -1 +1 @@\n-a\n+b\n"), None);
    }
}
