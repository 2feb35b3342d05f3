//! The simulated agent.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::{StreamExt, stream};
use greenwave_agents::{Agent, AgentEvent, Error as AgentError, Request, ResponseStream as Stream, Session};
use tokio::time::sleep;

use super::super::model;
use super::super::script::{Answer, Connect, FeatureScript, Script, TestAnswer};
use super::World;

/// The agent of one feature.
#[derive(Debug, Clone)]
pub(in super::super) struct SimulatedAgent {
    pub(in super::super) world: Arc<World>,
    pub(in super::super) feature: usize,
    /// Whether it writes the tests instead of the code.
    pub(in super::super) writes_tests: bool,
}

#[async_trait]
impl Agent for SimulatedAgent {
    async fn connect(&self) -> Result<Box<dyn Session>, AgentError> {
        let is_first = self.world.observed.lock().connected.insert(self.feature);
        match self.world.script.features[self.feature].connect {
            Connect::Opens => Ok(Box::new(self.clone())),
            Connect::FailsOnce if !is_first => Ok(Box::new(self.clone())),
            Connect::FailsOnce | Connect::Fails => Err(AgentError::BrokeOff { bytes: 0 }),
            Connect::Panics => panic!("the agent's connect panics"),
            Connect::Hangs => std::future::pending().await,
        }
    }

    fn kind(&self) -> &'static str {
        "simulated"
    }

    fn fingerprint(&self) -> [u8; 32] {
        [0; 32]
    }
}

#[async_trait]
impl Session for SimulatedAgent {
    async fn send(&mut self, request: &Request) -> Result<Stream, AgentError> {
        let (world, feature) = (Arc::clone(&self.world), self.feature);
        let script = &world.script.features[feature];
        if self.writes_tests {
            return self.send_tests(request).await;
        }
        let before = model::attempts_at_tests(script).unwrap_or(0);
        let answer =
            model::answer_of(script, request.attempt.saturating_sub(before).max(1), request.candidate);
        let token = self.check_request(request);
        if let Some(error) = self.overload() {
            return Err(error);
        }
        let guard = RequestGuard::new(Arc::clone(&world));
        sleep(Duration::from_millis(script.answer_ms)).await;
        match answer {
            Answer::Refuses => return Err(AgentError::BrokeOff { bytes: 0 }),
            Answer::RefusesForGood => {
                let (feature, name) = (request.feature.clone(), "simulated".to_owned());
                let (attempt, nearest) = (request.attempt, String::new());
                return Err(AgentError::NoRecording { name, feature, attempt, nearest });
            }
            Answer::CallPanics => panic!("the agent panics"),
            Answer::CallHangs => std::future::pending().await,
            _ => {}
        }
        let text = text(&world.script, feature, answer, token, &request.directory);
        let words = in_two_chunks(&text, script.answer_ms);
        let end = stream::once(async move {
            let _guard = guard;
            match answer {
                Answer::StreamPanics => panic!("the answer panics"),
                Answer::StreamHangs => std::future::pending().await,
                Answer::BreaksOff | Answer::BreaksOffLate => Err(AgentError::BrokeOff { bytes: 1 }),
                _ => Ok(AgentEvent::End),
            }
        });
        Ok(Stream::new(words.chain(end)))
    }

    fn is_open(&self) -> bool {
        true
    }
}

/// Returns the events of a text in two chunks, with a pause between them.
fn in_two_chunks(
    text: &str,
    answer_ms: u64,
) -> impl futures_util::Stream<Item = Result<AgentEvent, AgentError>> + Send + use<> {
    let middle = (0..=text.len() / 2).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
    let (first, last) = (text[..middle].to_owned(), text[middle..].to_owned());
    let first = stream::iter([Ok(AgentEvent::Text(first.into()))]);
    first.chain(stream::once(async move {
        sleep(Duration::from_millis(answer_ms / 2 + 1)).await;
        Ok(AgentEvent::Text(last.into()))
    }))
}

/// Counts a request until its answer has ended.
struct RequestGuard(Arc<World>);

impl RequestGuard {
    fn new(world: Arc<World>) -> Self {
        std::mem::forget(world.held(|observed| &mut observed.requesting, world.script.agents, "requests"));
        Self(world)
    }
}

impl Drop for RequestGuard {
    fn drop(&mut self) {
        self.0.observed.lock().requesting -= 1;
    }
}

impl SimulatedAgent {
    /// Answers a request for the tests of the feature.
    async fn send_tests(&self, request: &Request) -> Result<Stream, AgentError> {
        let (world, feature) = (Arc::clone(&self.world), self.feature);
        let script = &world.script.features[feature];
        let answer = model::test_answer(script, request.attempt);
        let token = self.check_request(request);
        if let Some(error) = self.overload() {
            return Err(error);
        }
        let guard = RequestGuard::new(Arc::clone(&world));
        sleep(Duration::from_millis(script.answer_ms)).await;
        if answer == TestAnswer::Refuses {
            return Err(AgentError::BrokeOff { bytes: 0 });
        }
        let end = stream::once(async move {
            let _guard = guard;
            match answer {
                TestAnswer::BreaksOff => Err(AgentError::BrokeOff { bytes: 1 }),
                _ => Ok(AgentEvent::End),
            }
        });
        Ok(Stream::new(in_two_chunks(&test_text(feature, answer, token), script.answer_ms).chain(end)))
    }

    /// Returns the error of an agent whose provider limits requests, as often as the script
    /// demands.
    fn overload(&self) -> Option<AgentError> {
        let mut observed = self.world.observed.lock();
        let overloads = observed.overloads.entry(self.feature).or_default();
        *overloads += 1;
        let (program, line) = ("simulated".to_owned(), "429".to_owned());
        let retry_after = overloads.is_multiple_of(2).then_some(Duration::from_secs(7));
        (*overloads <= self.world.script.features[self.feature].overloads).then_some(AgentError::Overloaded {
            program,
            line,
            retry_after,
            is_unreachable: false,
        })
    }

    /// Checks a request against the earlier ones, and returns a unique number for its answer.
    fn check_request(&self, request: &Request) -> u64 {
        let feature = self.feature;
        self.world.check_active(feature, &request.directory);
        let mut observed = self.world.observed.lock();
        let candidate = (feature, request.candidate);
        let before = observed.requested.insert(candidate, request.attempt).unwrap_or(0);
        let of_tests = model::attempts_at_tests(&self.world.script.features[feature]);
        let before = if self.writes_tests { before } else { before.max(of_tests.unwrap_or(0)) };
        if self.writes_tests != of_tests.is_none_or(|attempts| request.attempt <= attempts) {
            let violation = format!("f{feature}: attempt {} is that of another agent", request.attempt);
            observed.violations.push(violation);
        }
        let is_first = observed.requested_now.insert(candidate);
        // An attempt that was interrupted, or that found the agent overloaded, is requested again.
        // A failed connection is an attempt that does not reach the agent.
        let is_again = request.attempt == before && (is_first || observed.overloads.contains_key(&feature));
        let fails_once = self.world.script.features[feature].connect == Connect::FailsOnce;
        let is_after_failure = fails_once && is_first && request.attempt == before + 2;
        if request.attempt != before + 1 && !is_again && !is_after_failure {
            observed.violations.push(format!("f{feature}: attempt {} after {before}", request.attempt));
        }
        if observed.recorded.get(&feature).is_some_and(|recorded| request.attempt <= *recorded) {
            let violation = format!("f{feature}: the answer to attempt {} was paid already", request.attempt);
            observed.violations.push(violation);
        }
        if observed.recorded_candidates.contains(&(feature, request.attempt, request.candidate)) {
            let violation = format!("f{feature}: candidate {} was paid already", request.candidate);
            observed.violations.push(violation);
        }
        let script = &self.world.script.features[feature];
        let expected = match request.attempt.saturating_sub(of_tests.unwrap_or(0)) {
            _ if self.writes_tests && request.attempt > 1 => {
                expected_words_about_tests(model::test_answer(script, request.attempt - 1))
            }
            0 | 1 => None,
            // Another answer may have been chosen.
            _ if !script.rivals.is_empty() => None,
            attempt => expected_words(model::answer(script, attempt - 1)),
        };
        if let Some(words) = expected.filter(|words| !request.prompt.contains(words)) {
            observed.violations.push(format!("f{feature}: the prompt lacks {words:?}: {}", request.prompt));
        }
        if observed.green.contains_key(&feature) {
            observed.violations.push(format!("f{feature} is green, and its agent gets another request"));
        }
        observed.answers += 1;
        observed.answers
    }
}

/// Returns the words of the next prompt about an answer with an incomplete file.
fn expected_words(answer: Answer) -> Option<&'static str> {
    match answer {
        Answer::Edit | Answer::Diff => Some("cannot edit `f"),
        Answer::Protected => Some("you may not change"),
        Answer::Nested => Some("answer with a longer fence around the whole file"),
        _ => None,
    }
}

/// Returns the words of the next prompt about tests that are refused.
fn expected_words_about_tests(answer: TestAnswer) -> Option<&'static str> {
    match answer {
        TestAnswer::Passing => Some("passes before the feature exists"),
        TestAnswer::Empty => Some("runs no tests"),
        TestAnswer::WithCode => Some("is no file of tests"),
        TestAnswer::Broken => Some("Correct the tests"),
        _ => None,
    }
}

/// Returns the text of an answer of an agent that writes tests.
fn test_text(feature: usize, answer: TestAnswer, token: u64) -> String {
    let word = match answer {
        TestAnswer::Garbage => return "I cannot do that.\n".to_owned(),
        TestAnswer::Passing => "passing",
        TestAnswer::Empty => "empty",
        TestAnswer::Broken => "broken",
        _ => "good",
    };
    let path = match answer {
        TestAnswer::Lost => format!("tests/lost_f{feature}.txt"),
        _ => World::written_test(feature),
    };
    let code = match answer {
        TestAnswer::WithCode => format!("```text f{feature}.txt\ngood f{feature}#{token}\n```\n"),
        _ => String::new(),
    };
    let end = if answer == TestAnswer::BreaksOff { "" } else { "```\n" };
    format!("```text {path}\n{word} {token}\n{end}{code}")
}

/// Returns the text of an answer that has no whole file of the feature.
fn text_without_file(feature: usize, answer: Answer) -> Option<String> {
    Some(match answer {
        Answer::Garbage => "I cannot do that.\n".to_owned(),
        Answer::Edit => {
            format!("f{feature}.txt\n```text\n<<<<<<< SEARCH\nold\n=======\nnew\n>>>>>>> REPLACE\n```\n")
        }
        Answer::Diff => {
            format!("```diff\n--- a/f{feature}.txt\n+++ b/f{feature}.txt\n@@ -1 +1 @@\n-old\n+new\n```\n")
        }
        Answer::Nested => "```md README.md\n# A\n\n```\nnpm i\n```\n\nText.\n```\n".to_owned(),
        _ => return None,
    })
}

/// Returns the parts of an answer about other files than that of the feature.
fn further_files(feature: usize, answer: Answer, token: u64, directory: &Path) -> String {
    match answer {
        Answer::Shared => {
            let line = format!("f{feature}#{token}");
            let shared = World::file(directory, "shared.txt").unwrap_or_default();
            let mut lines: Vec<_> =
                shared.lines().filter(|line| !line.starts_with(&format!("f{feature}#"))).collect();
            lines.insert(1.min(lines.len()), &line);
            format!("```text shared.txt\n{}\n```\n\n", lines.join("\n"))
        }
        Answer::Protected => {
            let tests = [format!("tests/test_f{feature}.txt"), World::written_test(feature)];
            let tests = tests.iter().filter(|path| World::file(directory, path).is_some());
            tests.map(|path| format!("```text {path}\nno test\n```\n\n")).collect()
        }
        Answer::Deletes => {
            let old = World::file(directory, &format!("old-f{feature}.txt")).unwrap_or_default();
            let removal = |line: &str| {
                format!("```diff\n--- a/old-f{feature}.txt\n+++ /dev/null\n@@ -1 +0,0 @@\n-{line}\n```\n\n")
            };
            old.lines().map(removal).collect()
        }
        _ => String::new(),
    }
}

/// Returns the text of an answer.
fn text(script: &Script, feature: usize, answer: Answer, token: u64, directory: &Path) -> String {
    if let Some(text) = text_without_file(feature, answer) {
        return text;
    }
    let word = match answer {
        Answer::Bad => "bad",
        Answer::BadJoined => "joined",
        Answer::Unreviewed => "unreviewed",
        Answer::TestHangs => "hangs",
        Answer::TestPanics => "panics",
        Answer::TestBroken => "broken",
        Answer::Flaky => "flaky",
        _ => "good",
    };
    let path = match answer {
        Answer::Outside => "../outside.txt".to_owned(),
        _ => format!("f{feature}.txt"),
    };
    let shared = match answer {
        Answer::Shared => " shared",
        Answer::Deletes => " deletes",
        _ => "",
    };
    let mut text = format!("Here it is.\n\n```text {path}\n{word} f{feature}#{token}{shared}\n");
    if answer != Answer::BreaksOff {
        text.push_str("```\n\n");
    }
    text.push_str(&further_files(feature, answer, token, directory));
    let FeatureScript { answers, rivals, .. } = &script.features[feature];
    if answers.contains(&Answer::Unguarded) || rivals.contains(&Answer::Unguarded) {
        let breaks = if answer == Answer::Unguarded { "yes" } else { "no" };
        text.push_str(&format!("```text guard-f{feature}.txt\n{breaks}\n```\n\n"));
    }
    // An answer repairs the tests that other answers of the feature break.
    for other in script.features[feature].answers.iter().filter_map(|answer| match answer {
        Answer::Breaks(other) => Some(*other),
        _ => None,
    }) {
        let breaks = if answer == Answer::Breaks(other) { "yes" } else { "no" };
        text.push_str(&format!("```text breaks-f{other}.txt\n{breaks}\n```\n\n"));
    }
    text
}
