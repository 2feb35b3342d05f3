//! Lets an agent review an answer that has passed its tests.
//!
//! The reviewer works in its own copy, which is thrown away, so that nothing that it writes is
//! merged. Its answer begins with a line that approves or refuses.

use std::sync::Arc;

use futures_util::StreamExt;
use greenwave_agents::{AgentEvent, Error as AgentError, Request, ResponseStream, Withheld};
use greenwave_storage::{Attempt, AttemptOutcome, Transcript};
use humantime::format_duration;
use parking_lot::Mutex;
use tokio::time::{Instant, timeout};

use super::request::{OpenAnswer, Unusable};
use super::{Stage, context};
use crate::error::{Error, FeatureError};
use crate::event::Event;
use crate::live_feed::AgentLines;
use crate::phase::PhaseEvent;
use crate::state::{ActiveFeature, StageResult};
use crate::transcript::Recorder;
use crate::tree;
use crate::workspace::Workspace;

/// Number of times that a reviewer is asked if its answers neither approve nor refuse.
const ASKED_MAX: u32 = 2;
/// Maximum size of the changes in the prompt, in bytes. The reviewer has the files.
const DIFF_BYTES_MAX: usize = 128 * 1024;
/// Maximum size of the tests' output in the prompt, in bytes.
const OUTPUT_BYTES_MAX: usize = 8 * 1024;
/// Maximum size of the reviewer's answer, in bytes.
const ANSWER_BYTES_MAX: usize = 256 * 1024;

/// Decision of a reviewer.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Decision {
    Approved,
    /// The reasons, which may be empty.
    Refused(String),
}

/// The text of a reviewer's answer.
#[derive(Debug, Default)]
struct Words {
    text: Vec<u8>,
    messages: Vec<u8>,
    last_message: Vec<u8>,
}

impl Stage<'_> {
    /// Asks the feature's reviewer about the answer, if there is one.
    pub(super) async fn review_by_agent(&mut self, attempt: u32) -> Result<StageResult, FeatureError> {
        let Some(reviewer) = self.feature().reviewer.clone() else {
            return Ok(StageResult::Completed(PhaseEvent::Passed));
        };
        if self.active.is_reviewed {
            // In an earlier run.
            return Ok(StageResult::Completed(PhaseEvent::Passed));
        }
        let mut reading = self.begin_review(&reviewer).await?;
        let result = self.ask_reviewer(attempt, &mut reading).await;
        self.active.agent = None;
        if matches!(result, Ok(StageResult::Completed(PhaseEvent::Overloaded))) {
            self.active.agent = Some(reviewer);
            self.active.place = reading.place.take();
            self.active.paused_since = reading.paused_since.take();
            self.active.waits_for = reading.waits_for.take();
        }
        reading.remove().await;
        result
    }

    /// Creates the copy in which the reviewer reads.
    async fn begin_review(&mut self, reviewer: &str) -> Result<ActiveFeature, FeatureError> {
        let ctx = self.ctx;
        // Ids of features have no tilde.
        let name = format!("{}~review", self.feature().id);
        let workspace = Workspace::in_copies(&ctx.copies, &name, &ctx.project.in_flight)?;
        let mut reading = ActiveFeature {
            base: self.active.base.clone(),
            agent: Some(reviewer.to_owned()),
            admission: self.active.admission.take(),
            place: self.active.place.take(),
            paused_since: self.active.paused_since.take(),
            ..ActiveFeature::new(self.active.phase, workspace)
        };
        let files = self.active.workspace.tree();
        reading.workspace.start_from(&reading.base, files, &ctx.store).await?;
        reading.workspace.withhold_secrets().await?;
        Ok(reading)
    }

    async fn ask_reviewer(
        &mut self,
        attempt: u32,
        reading: &mut ActiveFeature,
    ) -> Result<StageResult, FeatureError> {
        let (ctx, queue, id) = (self.ctx, self.queue, self.id);
        let prompt = self.review_prompt().await?;
        let reviewer = reading.agent.clone().unwrap_or_default();
        for asked in 1..=ASKED_MAX {
            let prompt = match asked {
                1 => prompt.clone(),
                _ => format!(
                    "{prompt}\nYour last answer could not be used, because its first line was neither \
                     APPROVE nor REFUSE.\n"
                ),
            };
            let mut stage = Stage { ctx, queue, id, active: reading, report: self.report };
            let answer = match stage.request_review(attempt, prompt).await {
                Ok(answer) => answer,
                Err(Unasked::Overloaded) => return Ok(StageResult::Completed(PhaseEvent::Overloaded)),
                Err(Unasked::Feature(error)) => return Err(error),
                Err(Unasked::Answer(reason)) => {
                    return Err(FeatureError::CouldNotRun {
                        role: "review",
                        test: reviewer,
                        problem: format!("has no usable answer: {reason}"),
                        hint: Some("run the plan again; the answer is stored".to_owned()),
                    });
                }
            };
            let Some(decision) = decision(&answer) else { continue };
            return Ok(self.conclude_review(attempt, &reviewer, decision).await);
        }
        let reason = format!("the answer of `{reviewer}` begins with neither APPROVE nor REFUSE");
        Ok(self.conclude_review(attempt, &reviewer, Decision::Refused(reason)).await)
    }

    async fn conclude_review(&mut self, attempt: u32, agent: &str, decision: Decision) -> StageResult {
        let (feature, agent) = (self.feature().id.clone(), agent.to_owned());
        let Decision::Refused(reasons) = decision else {
            self.active.is_reviewed = true;
            let (approved, reason) = (true, String::new());
            self.ctx.emit(Event::Reviewed { feature, attempt, agent, approved, reason }).await;
            return StageResult::Completed(PhaseEvent::Passed);
        };
        let reasons = self.ctx.shown(reasons.trim().as_bytes());
        let first = reasons.lines().find(|line| !line.trim().is_empty()).unwrap_or("without a reason");
        let reason = format!("agent `{agent}` refuses the change: {}", first.trim());
        let event = Event::Reviewed { feature, attempt, agent, approved: false, reason: first.to_owned() };
        self.ctx.emit(event).await;
        let feedback = format!(
            "The tests pass, but a reviewer refuses your changes:\n\n{reasons}\n\nThe files are as you left \
             them. Change them as the reviewer demands, and keep the tests passing."
        );
        self.active.test_output = reasons;
        StageResult::Refused { reason, feedback }
    }

    /// Sends the request to the reviewer, and returns the text of its answer.
    async fn request_review(&mut self, attempt: u32, prompt: String) -> Result<Words, Unasked> {
        let reserved = self.reserve().await.map_err(Unasked::Feature)?;
        let Some(admission) = self.admission() else { return Err(Unasked::Overloaded) };
        let started = Instant::now();
        let temporary = self.ctx.copies.temporary_dir().map_err(FeatureError::from)?;
        let request = Request::new(
            &self.feature().id,
            attempt,
            prompt,
            self.active.workspace.directory(),
            temporary.path(),
        )
        .in_root(self.active.workspace.root())
        .with_context(self.context())
        .withholding(Withheld::new(context::is_withheld));
        self.ctx.steps.pass("request a review").await;
        let acceptance = admission.acceptance();
        let words = match self.open_answer(&request, &acceptance).await {
            Ok(OpenAnswer { answer, session, .. }) => {
                let words = self.read_words(attempt, answer, started).await;
                drop(session);
                words
            }
            Err(unusable) => Err(unusable),
        };
        drop(reserved);
        match words {
            Ok(words) => {
                self.end_pause(admission);
                Ok(words)
            }
            Err(Unusable::Overloaded(unavailable)) => {
                self.pause(admission, unavailable).map_err(Unasked::Feature)?;
                Err(Unasked::Overloaded)
            }
            Err(Unusable::Feature(error)) => Err(Unasked::Feature(error)),
            Err(Unusable::Answer(reason)) => {
                self.end_pause(admission);
                Err(Unasked::Answer(reason))
            }
        }
    }

    /// Reads an answer to its end. Its usage counts as that of the feature.
    async fn read_words(
        &mut self,
        attempt: u32,
        answer: ResponseStream,
        started: Instant,
    ) -> Result<Words, Unusable> {
        let recorder = Arc::new(Mutex::new(Recorder::new()));
        let live = self.ctx.live.get().cloned();
        let mut lines = live.map(|live| AgentLines::new(live, &self.feature().id, attempt, None));
        let time_max = self.time_limit();
        let left = time_max.saturating_sub(started.elapsed());
        let read = timeout(left, read_words(answer, &recorder, lines.as_mut())).await;
        self.ctx.metrics.agent_turn.observe(started.elapsed());
        let recorder = std::mem::replace(&mut *recorder.lock(), Recorder::new());
        self.record(recorder).await;
        match read {
            Ok(Ok(words)) => Ok(words),
            Ok(Err(error)) => Err(self.needs_login(&error).unwrap_or_else(|| Unusable::request(error))),
            Err(_) => {
                let time_max = format_duration(time_max);
                Err(Unusable::Answer(format!("did not end within {time_max} (agent.time_limit)")))
            }
        }
    }

    /// Composes the prompt for the reviewer.
    async fn review_prompt(&self) -> Result<String, Error> {
        let feature = self.feature();
        let diff = shortened(&self.describe_changes().await?, DIFF_BYTES_MAX);
        let output = self.active.passing_output.trim_end();
        let from = output.len().saturating_sub(OUTPUT_BYTES_MAX);
        let output = &output[output.ceil_char_boundary(from)..];
        Ok(format!(
            "# Review: {title}\n\nAn agent has changed a project. Decide whether the change may be merged. The \
             first line of your answer must be the word APPROVE or the word REFUSE, and nothing else. After \
             REFUSE, give the reasons and say what has to change; the agent gets your text. The files with \
             the change are in the current directory. You may read them; what you write is thrown away.\n\n\
             The agent was asked for this:\n\n{prompt}\n\nThe tests of the feature pass. Their output ends \
             like this:\n\n{output}\n\nThe change:\n\n````diff\n{diff}````\n",
            title = feature.title,
            prompt = feature.prompt.trim(),
            output = if output.is_empty() { "(no output)" } else { output },
        ))
    }

    /// Returns the changes of the answer as unified diffs.
    async fn describe_changes(&self) -> Result<String, Error> {
        let changes = tree::changes(&self.active.base, self.active.workspace.tree());
        let blobs = |side: fn(&tree::Change) -> Option<tree::File>| {
            let files =
                changes.iter().filter_map(move |change| Some((change.path.clone(), side(change)?.blob)));
            files.collect()
        };
        let attempt = Attempt {
            feature: self.feature().id.clone(),
            number: 0,
            files: blobs(|change| change.after),
            base: blobs(|change| change.before),
            outcome: AttemptOutcome::Passed,
            reason: String::new(),
            note: String::new(),
            transcript: Transcript::default(),
            figures: None,
        };
        let diff = self.ctx.attempts.changes(&attempt).await.map_err(Error::store("read from"))?;
        Ok(diff.to_string())
    }
}

/// Why a reviewer has given no answer.
enum Unasked {
    Overloaded,
    Feature(FeatureError),
    Answer(String),
}

impl From<FeatureError> for Unasked {
    fn from(error: FeatureError) -> Self {
        Self::Feature(error)
    }
}

async fn read_words(
    mut answer: ResponseStream,
    recorder: &Mutex<Recorder>,
    mut lines: Option<&mut AgentLines>,
) -> Result<Words, AgentError> {
    let mut words = Words::default();
    let mut bytes = 0;
    while let Some(event) = answer.next().await {
        recorder.lock().observe(&event);
        if let Some(lines) = lines.as_deref_mut() {
            lines.observe(&event);
        }
        match event? {
            AgentEvent::Text(text) => {
                bytes += text.len() as u64;
                words.add_text(&text);
            }
            AgentEvent::Message(message) => words.add_message(&message),
            AgentEvent::End => return Ok(words),
            _ => {}
        }
    }
    Err(AgentError::BrokeOff { bytes })
}

impl Words {
    fn add_text(&mut self, text: &[u8]) {
        add(&mut self.text, text);
    }

    fn add_message(&mut self, message: &[u8]) {
        add(&mut self.messages, message);
        if !message.trim_ascii().is_empty() {
            self.last_message.clear();
            add(&mut self.last_message, message);
        }
    }
}

/// Adds bytes to a text up to the maximum size of an answer.
fn add(text: &mut Vec<u8>, bytes: &[u8]) {
    let room = ANSWER_BYTES_MAX.saturating_sub(text.len());
    text.extend_from_slice(&bytes[..bytes.len().min(room)]);
}

/// Returns the decision in an answer. The last message of a program that says more than one thing
/// counts, or all of them together if they come in parts.
fn decision(words: &Words) -> Option<Decision> {
    [&words.text, &words.last_message, &words.messages]
        .into_iter()
        .find_map(|text| decision_in(&String::from_utf8_lossy(text)))
}

/// Returns the decision in the first line of a text. Marks of emphasis around it do not matter.
fn decision_in(text: &str) -> Option<Decision> {
    let text = text.trim_start();
    let (first, rest) = text.split_once('\n').unwrap_or((text, ""));
    let word = first.trim().trim_matches(|c: char| "*_`#.: ".contains(c));
    match word {
        "APPROVE" => Some(Decision::Approved),
        "REFUSE" => Some(Decision::Refused(rest.trim().to_owned())),
        _ => None,
    }
}

/// Returns the start of a text, up to a whole line, and says how much is left out.
fn shortened(text: &str, bytes_max: usize) -> String {
    if text.len() <= bytes_max {
        return text.to_owned();
    }
    let cut = &text[..text.floor_char_boundary(bytes_max)];
    let kept = &cut[..cut.rfind('\n').map_or(0, |at| at + 1)];
    format!("{kept}[{} bytes of the change are left out here; read the files]\n", text.len() - kept.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Option<&Decision>) {
        assert_eq!(decision_in(text).as_ref(), expected, "{text:?}");
    }

    #[test]
    fn the_first_line_decides() {
        let refused = |reasons: &str| Decision::Refused(reasons.to_owned());
        check("APPROVE", Some(&Decision::Approved));
        check("\n **APPROVE**\r\nFine.", Some(&Decision::Approved));
        check("REFUSE\n\nIt is slow.\n", Some(&refused("It is slow.")));
        check("REFUSE:", Some(&refused("")));
        for neither in ["", "I think APPROVE", "APPROVE it", "approve", "REFUSED\nno", "Fine.\nAPPROVE"] {
            check(neither, None);
        }
    }

    #[test]
    fn the_last_message_counts_or_all_parts_together() {
        let words = |messages: &[&str]| {
            let mut words = Words::default();
            messages.iter().for_each(|message| words.add_message(message.as_bytes()));
            decision(&words)
        };
        assert_eq!(words(&["I read the change.\n", "APPROVE\n", " \n"]), Some(Decision::Approved));
        assert_eq!(words(&["REF", "USE\nbad", " names"]), Some(Decision::Refused("bad names".to_owned())));
        assert_eq!(words(&["APPROVE\n", "On second thought, no.\n"]), Some(Decision::Approved));
        assert_eq!(words(&["Fine."]), None);
    }

    #[test]
    fn long_changes_are_cut_at_a_line() {
        assert_eq!(shortened("a\nb\n", 4), "a\nb\n");
        assert_eq!(
            shortened("a\nbcd\n", 4),
            "a\n[4 bytes of the change are left out here; read the files]\n"
        );
    }
}
