//! Agents and tests that are values, and what is observed of them while a run uses them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use greenwave_agents::{Agent, AgentEvent, Error as AgentError, Request, ResponseStream, Session};
use greenwave_cache::TieredStats;
use greenwave_testing::{CacheDecision, Error as TestError, ExitReason, Outcome, Source, Status, Test};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::sleep;

use super::model;
use super::script::{Answer, Connect, Interruption, Red, Script};
use crate::engine::Engine;
use crate::parts::{Tests, Watch};

/// How long a test may run.
pub(super) const TEST_MAX: Duration = Duration::from_secs(20);
/// How long an answer may take.
pub(super) const ANSWER_MAX: Duration = Duration::from_secs(30);
/// More steps than any script takes: a run that passes them goes round in circles.
const STEPS_MAX: usize = 100_000;
/// Units of the one resource.
pub(super) const UNITS: u32 = 2;

/// The step before a file of the project is written.
const WRITE: &str = "write a file";
/// The first step after all stages have ended.
const CLOSE: &str = "store durations";

/// What all runs of a script share.
#[derive(Debug)]
pub(super) struct World {
    pub(super) script: Script,
    pub(super) project: PathBuf,
    pub(super) seen: Mutex<Seen>,
    pub(super) killed: Notify,
    stopper: Mutex<Option<crate::Stopper>>,
    /// What a stop at a write waits for before the write goes on.
    pub(super) gate: Mutex<Option<std::sync::mpsc::Receiver<()>>>,
}

/// What was observed.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// What broke a rule.
    pub(super) wrong: Vec<String>,
    /// Steps passed by this run.
    pub(super) steps: usize,
    pub(super) interruption: Option<(Interruption, usize)>,
    dead: bool,
    /// All stages are gone, and the run is about to return.
    pub(super) closing: bool,
    /// The interruption has happened.
    pub(super) interrupted: bool,
    /// Features whose green light was seen, and not their files only.
    pub(super) firm: BTreeSet<usize>,
    /// Lines that the user has added to the shared file.
    pub(super) edits: usize,
    /// The files of features that are green, by feature.
    pub(super) green: BTreeMap<usize, String>,
    /// Attempts asked for in this run, by feature.
    pub(super) asked: BTreeMap<usize, u32>,
    /// Features begun and not ended.
    pub(super) begun: BTreeSet<usize>,
    /// All answers so far, so that each is another.
    tokens: u64,
    /// Features whose agent a session was opened with in this run, or was to be.
    connected: BTreeSet<usize>,
    asking: usize,
    testing: usize,
    units: u32,
    results: BTreeMap<(String, String), Outcome>,
}

/// Something that is counted while it lives.
struct Held<'a>(&'a World, fn(&mut Seen) -> &mut usize);

impl Drop for Held<'_> {
    fn drop(&mut self) {
        *(self.1)(&mut self.0.seen.lock()) -= 1;
    }
}

struct HeldUnits<'a>(&'a World, u32);

impl Drop for HeldUnits<'_> {
    fn drop(&mut self) {
        self.0.seen.lock().units -= self.1;
    }
}

impl Watch for World {
    fn step(&self, name: &'static str) -> bool {
        let mut seen = self.seen.lock();
        if seen.dead {
            return false;
        }
        seen.closing |= name == CLOSE;
        let now = seen.steps;
        seen.steps += 1;
        assert!(now < STEPS_MAX, "the run goes round in circles");
        let gate = if name == WRITE { self.gate.lock().take() } else { None };
        if let Some(gate) = gate {
            drop(seen);
            if let Some(stopper) = &*self.stopper.lock() {
                stopper.stop();
            }
            self.killed.notify_one();
            // Ends with an error as soon as the other side is gone, so that no test hangs in here.
            let _ = gate.recv();
            return true;
        }
        let Some((kind, at)) = seen.interruption.filter(|_| !seen.interrupted) else { return true };
        if now < at || (kind == Interruption::Fault && name != WRITE) {
            return true;
        }
        seen.interrupted = true;
        match kind {
            Interruption::Stop => {
                if let Some(stopper) = &*self.stopper.lock() {
                    stopper.stop();
                }
            }
            Interruption::Drop => self.killed.notify_one(),
            Interruption::Kill => {
                seen.dead = true;
                self.killed.notify_one();
                return false;
            }
            Interruption::Fault => {
                // An interrupted merge that cannot be finished either is undone.
                let firm = seen.firm.clone();
                seen.green.retain(|feature, _| firm.contains(feature));
                return false;
            }
            Interruption::Edit => {
                seen.edits += 1;
                let firm = seen.firm.clone();
                seen.green.retain(|feature, _| firm.contains(feature));
                let path = self.project.join("shared.txt");
                let text = fs::read_to_string(&path).unwrap();
                fs::write(&path, format!("{text}user {}\n", seen.edits)).unwrap();
            }
        }
        true
    }
}

impl World {
    pub(super) fn new(script: Script, project: PathBuf) -> Self {
        Self {
            script,
            project,
            seen: Mutex::default(),
            killed: Notify::new(),
            stopper: Mutex::default(),
            gate: Mutex::default(),
        }
    }

    /// Before each run.
    pub(super) fn begin(&self, engine: &Engine, run: usize) {
        *self.stopper.lock() = Some(engine.stopper());
        let mut seen = self.seen.lock();
        seen.interruption = self.script.interruptions.get(run).copied();
        (seen.steps, seen.dead, seen.interrupted) = (0, false, false);
        seen.asked.clear();
        seen.begun.clear();
        seen.connected.clear();
        if self.script.forgetful.contains(&run) {
            seen.results.clear();
        }
    }

    pub(super) fn wrong(&self, what: String) {
        self.seen.lock().wrong.push(what);
    }

    /// A feature's file, or whatever stands there.
    pub(super) fn file(root: &Path, name: &str) -> Option<String> {
        fs::read_to_string(root.join(name)).ok()
    }

    fn held(&self, count: fn(&mut Seen) -> &mut usize, max: u32, what: &str) -> Held<'_> {
        let mut seen = self.seen.lock();
        *count(&mut seen) += 1;
        let now = *count(&mut seen);
        if now > max as usize {
            seen.wrong.push(format!("{now} {what} at once, of {max}"));
        }
        Held(self, count)
    }

    /// A feature is worked on: its dependencies are green, itself it is not, and not too many are begun.
    fn works_on(&self, feature: usize, root: &Path) {
        for &other in &self.script.features[feature].depends_on {
            let name = format!("f{other}.txt");
            for (place, root) in [("project", self.project.as_path()), ("copy", root)] {
                if !Self::file(root, &name).is_some_and(|text| is_done(&text)) {
                    self.wrong(format!("f{feature} is worked on, and f{other} is not in its {place}"));
                }
            }
        }
        let mut seen = self.seen.lock();
        seen.begun.insert(feature);
        if seen.begun.len() > self.script.features_max as usize {
            let begun = seen.begun.clone();
            seen.wrong.push(format!("{begun:?} are begun at once"));
        }
    }

    /// The parts of a copy that a feature's test reads.
    fn reads(&self, feature: usize, root: &Path) -> String {
        let own = Self::file(root, &format!("f{feature}.txt"));
        let broken = Self::file(root, &format!("breaks-f{feature}.txt"));
        let shared = Self::file(root, "shared.txt").unwrap_or_default();
        let shared: Vec<_> =
            shared.lines().filter(|line| line.starts_with(&format!("f{feature}#"))).collect();
        let joined = root.ends_with(".merge") || root == self.project;
        let joined = own.as_ref().is_some_and(|text| text.contains("joined")).then_some(joined);
        format!("{own:?} {broken:?} {shared:?} {joined:?}")
    }

    async fn test(&self, feature: usize, root: &Path, test: &Test) -> Result<Outcome, TestError> {
        let script = &self.script.features[feature];
        let own = Self::file(root, &format!("f{feature}.txt"));
        let word = own.as_deref().map(|text| text.split_whitespace().next().unwrap_or_default().to_owned());
        let broken = || TestError::NoSuchProgram { test: test.name.clone(), program: "none".to_owned() };
        let status = match word.as_deref() {
            None => match script.red {
                Red::Fails => Status::Failed(ExitReason::Code(1)),
                Red::Passes => Status::Passed,
                Red::RunsNothing => Status::NoTests,
                Red::Panics => panic!("the test runner panics"),
                Red::Hangs => Status::TimedOut(TEST_MAX),
                Red::Broken => return Err(broken()),
            },
            Some("hangs") => Status::TimedOut(TEST_MAX),
            Some("panics") => panic!("the test runner panics"),
            Some("broken") => return Err(broken()),
            Some("unreviewed") if test.name.starts_with("review") => Status::Failed(ExitReason::Code(3)),
            Some("joined") if root.ends_with(".merge") => Status::Failed(ExitReason::Code(2)),
            // A merge has lost the line that this answer wrote into the shared file.
            Some("good") if lacks_line(feature, root) => Status::Failed(ExitReason::Code(4)),
            Some("good" | "unreviewed" | "joined") => {
                let is_broken =
                    Self::file(root, &format!("breaks-f{feature}.txt")).is_some_and(|text| text == "yes\n");
                if is_broken { Status::Failed(ExitReason::Signal(6)) } else { Status::Passed }
            }
            _ => Status::Failed(ExitReason::Code(1)),
        };
        let before = self.reads(feature, root);
        let took = match status {
            Status::TimedOut(max) => max,
            _ => Duration::from_millis(script.test_ms),
        };
        sleep(took).await;
        if self.reads(feature, root) != before {
            self.wrong(format!("{} changed while the test of f{feature} ran", root.display()));
        }
        Ok(Outcome {
            status,
            count: None,
            output: Bytes::from_static(b"output of the test"),
            duration: took,
            source: Source::Ran(CacheDecision::Stored),
            key: [0; 32],
            attempts: 1,
            undeclared: Vec::new(),
        })
    }
}

/// Whether a feature's file says that there is a line of it in the shared file, and there is none.
fn lacks_line(feature: usize, root: &Path) -> bool {
    let own = World::file(root, &format!("f{feature}.txt")).unwrap_or_default();
    let shared = World::file(root, "shared.txt").unwrap_or_default();
    let line = own.split_whitespace().nth(1).filter(|_| own.ends_with(" shared\n"));
    line.is_some_and(|line| !shared.lines().any(|other| other == line))
}

/// Whether the text of a feature's file is one that passes, wherever it is.
pub(super) fn is_done(text: &str) -> bool {
    text.starts_with("good") || text.starts_with("unreviewed")
}

/// The number of the feature that a test or an agent is called after.
fn number(name: &str) -> usize {
    name.trim_start_matches(|c: char| !c.is_ascii_digit()).parse().unwrap()
}

/// The tests of a world.
#[derive(Debug)]
pub(super) struct Results(pub(super) Arc<World>);

#[async_trait]
impl Tests for Results {
    async fn run(&self, root: &Path, test: &Test) -> Result<Outcome, TestError> {
        let world = &*self.0;
        let feature = number(&test.name);
        let key = (test.name.clone(), world.reads(feature, root));
        let worker = world.held(|seen| &mut seen.testing, world.script.workers, "tests");
        let owner = root.file_name().and_then(|name| name.to_str()).filter(|name| name.starts_with('f'));
        let _units = owner.map(|owner| {
            let worked_on = number(owner);
            world.works_on(worked_on, root);
            let units = world.script.features[worked_on].units;
            let mut seen = world.seen.lock();
            seen.units += units;
            if seen.units > UNITS {
                let now = seen.units;
                seen.wrong.push(format!("{now} units of the resource are held"));
            }
            HeldUnits(world, units)
        });
        let known = world.seen.lock().results.get(&key).cloned();
        let outcome = match known {
            Some(known) => known,
            None => {
                let outcome = world.test(feature, root, test).await?;
                if outcome.passed() {
                    let known = Outcome { source: Source::Cached(Duration::ZERO), ..outcome.clone() };
                    world.seen.lock().results.insert(key, known);
                }
                outcome
            }
        };
        drop(worker);
        Ok(outcome)
    }

    async fn known(&self, root: &Path, test: &Test) -> Result<Option<Outcome>, TestError> {
        let key = (test.name.clone(), self.0.reads(number(&test.name), root));
        Ok(self.0.seen.lock().results.get(&key).cloned())
    }

    fn stats(&self) -> TieredStats {
        TieredStats::default()
    }

    async fn flush(&self) {}
}

/// The agent of one feature.
#[derive(Debug, Clone)]
pub(super) struct Author {
    pub(super) world: Arc<World>,
    pub(super) feature: usize,
}

#[async_trait]
impl Agent for Author {
    async fn connect(&self) -> Result<Box<dyn Session>, AgentError> {
        let is_first = self.world.seen.lock().connected.insert(self.feature);
        match self.world.script.features[self.feature].connect {
            Connect::Well => Ok(Box::new(self.clone())),
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
impl Session for Author {
    async fn send(&mut self, request: &Request) -> Result<ResponseStream, AgentError> {
        let (world, feature) = (Arc::clone(&self.world), self.feature);
        let script = &world.script.features[feature];
        let answer = model::answer(script, request.attempt);
        let token = self.note(request);
        let guard = Guard::new(Arc::clone(&world));
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
        // In two pieces, with a while between them.
        let middle = (0..=text.len() / 2).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
        let (first, last) = (text[..middle].to_owned(), text[middle..].to_owned());
        let while_ms = script.answer_ms / 2 + 1;
        let first = stream::iter([Ok(AgentEvent::Text(first.into()))]);
        let last = stream::once(async move {
            sleep(Duration::from_millis(while_ms)).await;
            Ok(AgentEvent::Text(last.into()))
        });
        let end = stream::once(async move {
            let _guard = guard;
            match answer {
                Answer::StreamPanics => panic!("the answer panics"),
                Answer::StreamHangs => std::future::pending().await,
                Answer::BreaksOff | Answer::BreaksOffLate => Err(AgentError::BrokeOff { bytes: 1 }),
                _ => Ok(AgentEvent::End),
            }
        });
        Ok(ResponseStream::new(first.chain(last).chain(end)))
    }

    fn is_open(&self) -> bool {
        true
    }
}

/// Counts a question until it is answered.
struct Guard(Arc<World>);

impl Guard {
    fn new(world: Arc<World>) -> Self {
        std::mem::forget(world.held(|seen| &mut seen.asking, world.script.agents, "questions"));
        Self(world)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.seen.lock().asking -= 1;
    }
}

impl Author {
    /// Checks a question against what came before, and gives its answer a number.
    fn note(&self, request: &Request) -> u64 {
        let feature = self.feature;
        self.world.works_on(feature, &request.directory);
        let attempts_max = self.world.script.features[feature].attempts_max;
        let mut seen = self.world.seen.lock();
        let before = seen.asked.insert(feature, request.attempt).unwrap_or(0);
        // A connection that fails is an attempt that the agent never hears of.
        let fails_once = self.world.script.features[feature].connect == Connect::FailsOnce;
        let failed = u32::from(fails_once && before == 0);
        if request.attempt != before + 1 + failed || request.attempt > attempts_max {
            seen.wrong
                .push(format!("f{feature}: attempt {} after {before} of {attempts_max}", request.attempt));
        }
        let script = &self.world.script.features[feature];
        let told = match request.attempt {
            1 => None,
            attempt => expected_words(model::answer(script, attempt - 1)),
        };
        if let Some(words) = told.filter(|words| !request.prompt.contains(words)) {
            seen.wrong.push(format!("f{feature}: the prompt lacks {words:?}: {}", request.prompt));
        }
        if seen.green.contains_key(&feature) {
            seen.wrong.push(format!("f{feature} is green, and its agent is asked again"));
        }
        seen.tokens += 1;
        seen.tokens
    }
}

/// What the next prompt says of an answer that gives a file in part.
fn expected_words(answer: Answer) -> Option<&'static str> {
    match answer {
        Answer::Edit => Some("txt` is given in part only; answer with the whole file"),
        Answer::Diff => Some("txt` is given as a diff; answer with the whole file"),
        Answer::Nested => Some("answer with a longer fence around the whole file"),
        _ => None,
    }
}

/// The text of an answer.
fn text(script: &Script, feature: usize, answer: Answer, token: u64, directory: &Path) -> String {
    let word = match answer {
        Answer::Bad => "bad",
        Answer::BadJoined => "joined",
        Answer::Unreviewed => "unreviewed",
        Answer::TestHangs => "hangs",
        Answer::TestPanics => "panics",
        Answer::TestBroken => "broken",
        _ => "good",
    };
    let path = match answer {
        Answer::Outside => "../outside.txt".to_owned(),
        _ => format!("f{feature}.txt"),
    };
    let shared = if answer == Answer::Shared { " shared" } else { "" };
    let mut text = format!("Here it is.\n\n```text {path}\n{word} f{feature}#{token}{shared}\n");
    if answer != Answer::BreaksOff {
        text.push_str("```\n\n");
    }
    match answer {
        Answer::Garbage => return "I cannot do that.\n".to_owned(),
        Answer::Edit => {
            return format!(
                "f{feature}.txt\n```text\n<<<<<<< SEARCH\nold\n=======\nnew\n>>>>>>> REPLACE\n```\n"
            );
        }
        Answer::Diff => {
            return format!(
                "```diff\n--- a/f{feature}.txt\n+++ b/f{feature}.txt\n@@ -1 +1 @@\n-old\n+new\n```\n"
            );
        }
        Answer::Nested => {
            return "```md README.md\n# A\n\n```\nnpm i\n```\n\nText.\n```\n".to_owned();
        }
        Answer::Shared => {
            let line = format!("f{feature}#{token}");
            let shared = World::file(directory, "shared.txt").unwrap_or_default();
            let mut lines: Vec<_> =
                shared.lines().filter(|line| !line.starts_with(&format!("f{feature}#"))).collect();
            lines.insert(1.min(lines.len()), &line);
            text.push_str(&format!("```text shared.txt\n{}\n```\n\n", lines.join("\n")));
        }
        _ => {}
    }
    // Whatever it has broken it mends as soon as it does not break it.
    for other in script.features[feature].answers.iter().filter_map(|answer| match answer {
        Answer::Breaks(other) => Some(*other),
        _ => None,
    }) {
        let breaks = if answer == Answer::Breaks(other) { "yes" } else { "no" };
        text.push_str(&format!("```text breaks-f{other}.txt\n{breaks}\n```\n\n"));
    }
    text
}
