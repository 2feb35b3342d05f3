//! Asks for several answers to an attempt, and chooses one of them.
//!
//! Each answer has its own working copy. Complete answers are recorded, so that the next run
//! asks for the others only. When all are complete, the tests choose, then the guards, then the
//! size of the change.

mod rank;

use std::collections::BTreeMap;

use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt, stream};
use greenwave_storage::AttemptOutcome;

use super::verdict::Verdict;
use super::{Stage, answer};
use crate::attempt_record::AttemptRecord;
use crate::context::RunContext;
use crate::continuation;
use crate::error::{Error, FeatureError, chain};
use crate::event::Event;
use crate::merge::MergeQueue;
use crate::new_candidate::new_candidate;
use crate::phase::PhaseEvent;
use crate::plan::FeatureId;
use crate::report::FeatureReport;
use crate::resources;
use crate::state::{ActiveFeature, Candidate, CandidateState, StageResult};
use crate::tree;
use rank::{Class, Judged, Rank, describe_choice, describe_rejection, lines_between};

/// A candidate after a request, with the usage and the result of the request.
type Asked = (Candidate, FeatureReport, Result<StageResult, FeatureError>);

impl Stage<'_> {
    /// Sends the request to the agent of each candidate that has not answered, at the same time as
    /// far as the limits of the run permit.
    pub(super) async fn request_candidates(&mut self, attempt: u32) -> Result<StageResult, FeatureError> {
        self.begin_candidates().await?;
        let all = std::mem::take(&mut self.active.candidates);
        let count = all.len();
        let (pending, done): (Vec<_>, Vec<_>) = all.into_iter().partition(Candidate::is_pending);
        self.active.candidates = done;
        let (ctx, queue, id) = (self.ctx, self.queue, self.id);
        let at_once = resources::requests_max(&ctx.settings, count) as usize;
        let requests = pending.into_iter().map(|candidate| ask(ctx, queue, id, attempt, candidate));
        let requests: Vec<BoxFuture<'_, Asked>> = requests.collect();
        let mut asked = stream::iter(requests).buffer_unordered(at_once);
        while let Some((candidate, report, result)) = asked.next().await {
            self.report.usage.add(report.usage);
            self.take_candidate(attempt, candidate, result).await?;
        }
        self.conclude_requests().await
    }

    /// Creates the candidates that do not exist yet, and gives a permission to send a request to
    /// the candidate that waited for it.
    async fn begin_candidates(&mut self) -> Result<(), FeatureError> {
        let (ctx, id) = (self.ctx, self.id);
        let active = &mut *self.active;
        let waited_for = active.agent.take();
        let agents = ctx.candidates(id, active.fallbacks);
        for (number, agent) in (1..).zip(agents) {
            if active.candidates.iter().any(|candidate| candidate.number == number) {
                continue;
            }
            let mut candidate = new_candidate(ctx, id, active, number, agent.clone())?;
            let session = active.session.take_if(|_| active.chosen == Some(number));
            if let Some(own) = candidate.active() {
                own.workspace.start_from(&active.base, active.workspace.tree(), &ctx.store).await?;
                own.session = session;
            }
            active.candidates.push(candidate);
        }
        active.session = None;
        active.candidates.sort_by_key(|candidate| candidate.number);
        let is_waiting = |candidate: &&mut Candidate| {
            candidate.is_pending() && Some(&candidate.agent) == waited_for.as_ref()
        };
        if let Some(own) = active.candidates.iter_mut().find(is_waiting).and_then(Candidate::active) {
            own.admission = active.admission.take();
            own.place = active.place.take();
            own.paused_since = active.paused_since.take();
            own.waits_for = active.waits_for.take();
        }
        Ok(())
    }

    /// Takes the result of a request. A complete answer is recorded at once.
    async fn take_candidate(
        &mut self,
        attempt: u32,
        mut candidate: Candidate,
        result: Result<StageResult, FeatureError>,
    ) -> Result<(), FeatureError> {
        let (status, reason) = match result {
            Ok(StageResult::Completed(PhaseEvent::Answered)) => {
                candidate = candidate.answered();
                ("answered", None)
            }
            Ok(StageResult::Completed(_)) => ("waiting", None),
            Ok(StageResult::Refused { reason, .. }) => {
                candidate.end(CandidateState::Unusable { reason: reason.clone() }).await;
                ("unusable", Some(reason))
            }
            Err(error) if is_of_candidate(&error) => {
                let reason = chain(&error);
                candidate.end(CandidateState::Out(error)).await;
                ("unavailable", Some(reason))
            }
            Err(error) => {
                self.active.candidates.push(candidate);
                return Err(error);
            }
        };
        let event = self.candidate_event(attempt, &candidate, status, reason);
        let is_complete = candidate.record().is_some();
        self.active.candidates.push(candidate);
        self.active.candidates.sort_by_key(|candidate| candidate.number);
        if is_complete {
            self.record_candidates(attempt).await?;
        }
        self.ctx.emit(event).await;
        Ok(())
    }

    /// Records the complete answers for the next run.
    async fn record_candidates(&self, attempt: u32) -> Result<(), Error> {
        let before_round = self.active.attempts_max.saturating_sub(self.feature().attempts_max);
        let record = AttemptRecord::new(self.ctx.definition(self.id), attempt, before_round);
        let record = AttemptRecord { agent: self.report.agent.clone(), ..record };
        continuation::record(self.ctx, self.id, self.active, record).await
    }

    /// Decides how the feature goes on once no request is in flight.
    async fn conclude_requests(&mut self) -> Result<StageResult, FeatureError> {
        let active = &mut *self.active;
        if let Some(waiting) = active.candidates.iter_mut().find(|candidate| candidate.is_pending()) {
            active.agent = Some(waiting.agent.clone());
            if let Some(own) = waiting.active() {
                active.place = own.place.take();
                active.paused_since = own.paused_since.take();
                active.waits_for = own.waits_for.take();
            }
            return Ok(StageResult::Completed(PhaseEvent::Overloaded));
        }
        if active.candidates.iter().any(Candidate::is_answered) {
            return Ok(StageResult::Completed(PhaseEvent::Answered));
        }
        let (mut reasons, mut first_error) = (Vec::new(), None);
        for candidate in std::mem::take(&mut active.candidates) {
            match candidate.state {
                CandidateState::Unusable { reason } => reasons.push(reason),
                CandidateState::Out(error) => first_error = first_error.or(Some(error)),
                CandidateState::Pending(_) | CandidateState::Answered(_) => {}
            }
        }
        reasons.dedup();
        match first_error {
            Some(error) if reasons.is_empty() => Err(error),
            _ => Ok(StageResult::refused(reasons.join("; "))),
        }
    }

    /// Leaves out the candidates of an agent that the feature has waited for too long.
    pub(super) async fn leave_out_unavailable(
        &mut self,
        waited: Result<StageResult, FeatureError>,
    ) -> Result<StageResult, FeatureError> {
        let is_unavailable = matches!(waited, Err(FeatureError::AgentUnavailable { .. }));
        if self.active.candidates.is_empty() || !is_unavailable {
            return waited;
        }
        let Some(agent) = self.active.agent.take() else { return waited };
        (self.active.place, self.active.paused_since, self.active.waits_for) = (None, None, None);
        let (attempt, mut error) = (self.active.phase.attempt(), waited.err());
        let mut events = Vec::new();
        let mut candidates = std::mem::take(&mut self.active.candidates);
        let is_waiting = |candidate: &&mut Candidate| candidate.is_pending() && candidate.agent == agent;
        for candidate in candidates.iter_mut().filter(is_waiting) {
            let Some(FeatureError::AgentUnavailable { waited, message, .. }) = &error else { break };
            let (agent, waited, message) = (agent.clone(), *waited, message.clone());
            let again = FeatureError::AgentUnavailable { agent, waited, message };
            let Some(error) = error.replace(again) else { break };
            let reason = Some(chain(&error));
            candidate.end(CandidateState::Out(error)).await;
            events.push(self.candidate_event(attempt, candidate, "unavailable", reason));
        }
        self.active.candidates = candidates;
        for event in events {
            self.ctx.emit(event).await;
        }
        Ok(StageResult::Completed(PhaseEvent::Released))
    }

    /// Tests all answers and chooses one, which becomes the answer of the attempt. The others are
    /// stored as attempts.
    pub(super) async fn choose(&mut self, attempt: u32) -> Result<StageResult, FeatureError> {
        let mut candidates = std::mem::take(&mut self.active.candidates);
        let chosen = self.choose_among(attempt, &mut candidates).await;
        for candidate in candidates {
            candidate.discard().await;
        }
        chosen
    }

    async fn choose_among(
        &mut self,
        attempt: u32,
        candidates: &mut [Candidate],
    ) -> Result<StageResult, FeatureError> {
        let mut judged = BTreeMap::new();
        for candidate in candidates.iter_mut() {
            let number = candidate.number;
            if let (true, Some(own)) = (candidate.is_answered(), candidate.active()) {
                judged.insert(number, self.judge_candidate(number, own).await?);
            }
        }
        self.run_guards(candidates, &mut judged).await?;
        let best = judged.values().min_by_key(|judged| judged.rank).map(|judged| judged.rank);
        let Some(best) = best else {
            return Err(FeatureError::Internal("there is no answer to choose from".to_owned()));
        };
        let reason = describe_choice(best, &judged);
        for candidate in candidates.iter_mut() {
            let (number, agent) = (candidate.number, candidate.agent.clone());
            if let (true, Some(own)) = (number == best.number, candidate.active()) {
                self.adopt_candidate(attempt, number, own).await?;
                let of = candidates_count(self.ctx, self.id, self.active);
                let feature = self.feature().id.clone();
                let reason = reason.clone();
                let event = Event::Chosen { feature, attempt, candidate: number, of, agent, reason };
                self.ctx.emit(event).await;
            }
        }
        if !self.was_held() {
            self.record_judged(candidates, &judged, best).await?;
        }
        let chosen = judged.remove(&best.number);
        match chosen {
            Some(Judged { verdict: Ok(Verdict::Passed), tests, .. }) => {
                self.report.tests = tests;
                Ok(StageResult::Completed(PhaseEvent::Passed))
            }
            Some(Judged {
                verdict: Ok(Verdict::Failed { reason, feedback, .. } | Verdict::Refused { reason, feedback }),
                ..
            }) => Ok(StageResult::Refused { reason, feedback }),
            Some(Judged { verdict: Err(error), .. }) => Err(error),
            None => Err(FeatureError::Internal("the chosen answer is missing".to_owned())),
        }
    }

    /// Tests an answer in its workspace.
    async fn judge_candidate(
        &mut self,
        number: u32,
        own: &mut ActiveFeature,
    ) -> Result<Judged, FeatureError> {
        let (ctx, queue, id) = (self.ctx, self.queue, self.id);
        let mut stage = Stage { ctx, queue, id, active: own, report: self.report };
        let verdict = match stage.judge().await {
            // The answer can be to blame: it removed the program of the test, for example.
            Err(error @ FeatureError::Test(_)) => Err(error),
            verdict => Ok(verdict?),
        };
        let (class, tests, failed) = match &verdict {
            Ok(Verdict::Passed) => (Class::Passed, 0, 0),
            Ok(Verdict::Failed { at, failed, .. }) => {
                let left = stage.ctx.tests_of(stage.id).len().saturating_sub(*at);
                (Class::Failed, left, failed.unwrap_or(u32::MAX))
            }
            Ok(Verdict::Refused { .. }) => (Class::Refused, 0, 0),
            Err(_) => (Class::CouldNotRun, 0, 0),
        };
        let lines = stage.changed_lines().await?;
        let rank = Rank { class, guards: 0, tests, failed, lines, number };
        Ok(Judged { rank, verdict, tests: self.report.tests })
    }

    /// Counts the guards that fail with each answer that passes, if there are several.
    async fn run_guards(
        &mut self,
        candidates: &mut [Candidate],
        judged: &mut BTreeMap<u32, Judged>,
    ) -> Result<(), FeatureError> {
        let is_passing = |judged: &&Judged| judged.rank.class == Class::Passed;
        if judged.values().filter(is_passing).count() < 2 {
            return Ok(());
        }
        let guards = self.queue.guards(self.id, self.report).await?;
        for candidate in candidates {
            let number = candidate.number;
            let Some(judged) = judged.get_mut(&number).filter(|judged| is_passing(&&**judged)) else {
                continue;
            };
            let Some(own) = candidate.active() else { continue };
            let (ctx, queue, id) = (self.ctx, self.queue, self.id);
            let mut stage = Stage { ctx, queue, id, active: own, report: self.report };
            for guard in &guards {
                let outcome = stage.run_test(guard, "yellow").await?;
                judged.rank.guards += usize::from(!outcome.passed());
            }
        }
        Ok(())
    }

    /// Counts the lines that the answer in the workspace adds and removes. A file that is not text
    /// counts as one line for every 80 bytes.
    async fn changed_lines(&self) -> Result<usize, Error> {
        let store = &self.ctx.store;
        let mut lines = 0;
        for change in tree::changes(&self.active.base, self.active.workspace.tree()) {
            let before = match change.before {
                Some(file) => tree::content(store, &file.blob).await?,
                None => bytes::Bytes::new(),
            };
            let after = match change.after {
                Some(file) => tree::content(store, &file.blob).await?,
                None => bytes::Bytes::new(),
            };
            lines += lines_between(&before, &after);
        }
        Ok(lines)
    }

    /// Makes a candidate the answer of the attempt.
    async fn adopt_candidate(
        &mut self,
        attempt: u32,
        number: u32,
        own: &ActiveFeature,
    ) -> Result<(), FeatureError> {
        let files = own.workspace.tree().clone();
        let changes = tree::changes(self.active.workspace.tree(), &files);
        self.active.base = own.base.clone();
        self.active.workspace.reset(&files, &self.ctx.store).await?;
        self.active.workspace.restore_included().await?;
        let root = self.active.workspace.root().to_owned();
        let size = |path: &str| root.join(path).symlink_metadata().map_or(0, |found| found.len() as usize);
        self.publish(attempt, answer::describe_changes(&changes, size), &[]).await;
        let active = &mut *self.active;
        active.answer = Some(files);
        active.chosen = Some(number);
        active.cases = own.cases.clone();
        active.partial.clone_from(&own.partial);
        active.transcript = own.transcript.clone();
        active.figures = own.figures;
        active.session.clone_from(&own.session);
        active.test_output.clone_from(&own.test_output);
        active.failing.clone_from(&own.failing);
        active.passing_output.clone_from(&own.passing_output);
        Ok(())
    }

    /// Stores the tested answers as attempts, the chosen one last.
    async fn record_judged(
        &mut self,
        candidates: &mut [Candidate],
        judged: &BTreeMap<u32, Judged>,
        best: Rank,
    ) -> Result<(), FeatureError> {
        let mut last = None;
        for candidate in candidates.iter_mut() {
            let Some(found) = judged.get(&candidate.number) else { continue };
            let Some(own) = candidate.active() else { continue };
            if found.rank == best {
                last = Some((own, found));
            } else {
                self.record_of(own, found, Some(best)).await?;
            }
        }
        match last {
            Some((own, found)) => self.record_of(own, found, None).await,
            None => Ok(()),
        }
    }

    /// Stores an answer as an attempt. `instead` is the rank of the one that was chosen, if this is
    /// another one.
    async fn record_of(
        &mut self,
        own: &mut ActiveFeature,
        judged: &Judged,
        instead: Option<Rank>,
    ) -> Result<(), FeatureError> {
        let (ctx, queue, id) = (self.ctx, self.queue, self.id);
        let note = match (&judged.verdict, instead) {
            (Ok(Verdict::Passed), _) => String::new(),
            _ => own.test_output.clone(),
        };
        let stage = Stage { ctx, queue, id, active: own, report: self.report };
        let (outcome, reason) = match (&judged.verdict, instead) {
            (Ok(Verdict::Passed), None) => (AttemptOutcome::Passed, String::new()),
            (Ok(Verdict::Failed { reason, .. }), None) => (AttemptOutcome::Failed, reason.clone()),
            // As for an attempt with one answer, which is not stored either.
            (Ok(Verdict::Refused { .. }) | Err(_), None) => return Ok(()),
            (verdict, Some(best)) => {
                (AttemptOutcome::NotChosen, describe_rejection(verdict.as_ref(), judged.rank, best))
            }
        };
        let reason = ctx.shown(reason.as_bytes());
        Ok(stage.record_attempt(outcome, reason, note).await?)
    }

    fn candidate_event(
        &self,
        attempt: u32,
        candidate: &Candidate,
        status: &'static str,
        reason: Option<String>,
    ) -> Event {
        Event::Candidate {
            feature: self.feature().id.clone(),
            attempt,
            candidate: candidate.number,
            of: candidates_count(self.ctx, self.id, self.active),
            agent: candidate.agent.clone(),
            status,
            reason: reason.map(|reason| self.ctx.shown(reason.as_bytes())),
        }
    }
}

/// Sends the request to the agent of a candidate.
fn ask<'a>(
    ctx: &'a RunContext,
    queue: &'a MergeQueue,
    id: FeatureId,
    attempt: u32,
    mut candidate: Candidate,
) -> BoxFuture<'a, Asked> {
    async move {
        // The user may have paused the run while other candidates were asked.
        ctx.steering.resumed(id).await;
        let mut report = FeatureReport::default();
        let result = match candidate.active() {
            Some(active) => Stage { ctx, queue, id, active, report: &mut report }.request(attempt).await,
            None => Ok(StageResult::Completed(PhaseEvent::Answered)),
        };
        (candidate, report, result)
    }
    .boxed()
}

/// Returns whether an error is one of the agent of a candidate, or keeps only this candidate from
/// being asked.
fn is_of_candidate(error: &FeatureError) -> bool {
    matches!(error, FeatureError::Agent(_) | FeatureError::NeedsLogin { .. } | FeatureError::Budget(_))
}

fn candidates_count(ctx: &RunContext, id: FeatureId, active: &ActiveFeature) -> u32 {
    u32::try_from(ctx.candidates(id, active.fallbacks).len()).unwrap_or(u32::MAX)
}
