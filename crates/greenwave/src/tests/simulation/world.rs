//! Simulated agents and tests, and the record of how a run uses them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use greenwave_agents::{Agent, AgentEvent, Error as AgentError, Request, ResponseStream as Stream, Session};
use greenwave_cache::TieredStats;
use greenwave_testing::{CacheDecision, Error as TestError, ExitReason, Outcome, Source, Status, Test};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::sleep;

use super::model;
use super::script::{Answer, Connect, Guard, Interruption, Red, Script};
use crate::engine::Engine;
use crate::steps::StepObserver;
use crate::test_runner::TestRunner;

/// Time limit of a test.
pub(super) const TEST_MAX: Duration = Duration::from_secs(20);
/// Time limit of an answer.
pub(super) const ANSWER_MAX: Duration = Duration::from_secs(30);
/// Upper bound of the steps of a run. A run that exceeds it loops.
const STEPS_MAX: usize = 100_000;
/// Units of the only resource.
pub(super) const UNITS: u32 = 2;

/// Lines of the shared file at the start.
pub(super) const LINES: [&str; 2] = ["top", "bottom"];
/// Content of a file that the user has changed.
const USER: &str = "user\n";
/// Name of the guard.
pub(super) const GUARD: &str = "guard";
/// Branch of the results.
const BRANCH: &str = "greenwave/simulated";

/// The step before a file of the project is written.
const WRITE: &str = "write a file";
/// The step before the project is read.
const CAPTURE: &str = "capture the project";
/// The step after an interrupted batch of merges was finished or reverted.
const BATCH_FINISHED: &str = "forget an interrupted batch";
/// The first step after all stages have ended.
const CLOSE: &str = "store durations";

/// State that all runs of a script share.
#[derive(Debug)]
pub(super) struct World {
    pub(super) script: Script,
    pub(super) project: PathBuf,
    pub(super) observed: Mutex<Observed>,
    pub(super) killed: Notify,
    /// Notified when the user makes an edit that is undone later.
    pub(super) edited: Notify,
    stopper: Mutex<Option<crate::Stopper>>,
    /// Delays the next write into the project until the sender sends or is dropped.
    pub(super) gate: Mutex<Option<std::sync::mpsc::Receiver<()>>>,
}

/// Observations of the runs.
#[derive(Debug, Default)]
pub(super) struct Observed {
    /// Descriptions of broken rules.
    pub(super) violations: Vec<String>,
    /// Number of steps that this run has passed.
    pub(super) steps: usize,
    pub(super) interruption: Option<(Interruption, usize)>,
    dead: bool,
    /// Number of batches that were interrupted while they were written.
    pub(super) batches_finished: usize,
    /// Whether all stages have ended and the run is about to return.
    pub(super) closing: bool,
    /// Whether the interruption has happened.
    pub(super) interrupted: bool,
    /// Features that an event reported as green.
    pub(super) reported_green: BTreeSet<usize>,
    /// Number of lines that the user has added to the shared file.
    edits: usize,
    /// Lines of the shared file that belong to the user.
    pub(super) user_lines: Vec<String>,
    /// Lines that the user restores after rewriting the file.
    restored_lines: Option<Vec<String>>,
    /// Whether the run has read the project, so that later edits are not part of its start.
    captured: bool,
    /// The file that the user has changed and not changed back, with its content before.
    pub(super) user_file: Option<(String, Option<String>)>,
    /// Number of times that a feature waited for the user in this run.
    pub(super) blocked: usize,
    /// Whether the guard fails regardless of the files.
    unguarded: bool,
    /// Merged file of each green feature.
    pub(super) green: BTreeMap<usize, String>,
    /// Last attempt that was requested, by feature.
    pub(super) requested: BTreeMap<usize, u32>,
    /// Features that were requested in this run.
    pub(super) requested_now: BTreeSet<usize>,
    /// Attempt whose answer is recorded at the start of this run, by feature.
    pub(super) recorded: BTreeMap<usize, u32>,
    /// Features that failed in an earlier run, so that a new round of attempts begins.
    pub(super) failed_before: BTreeSet<usize>,
    /// Features that failed in this run.
    pub(super) failed_now: BTreeSet<usize>,
    /// Overloads of each feature's agent up to now.
    overloads: BTreeMap<usize, u32>,
    /// Features that are started and not ended.
    pub(super) started: BTreeSet<usize>,
    /// Number of answers, which makes each one unique.
    answers: u64,
    /// Features whose agent was connected to.
    connected: BTreeSet<usize>,
    requesting: usize,
    testing: usize,
    units: u32,
    results: BTreeMap<(String, String), Outcome>,
}

/// Counts something until it is dropped.
struct Held<'a>(&'a World, fn(&mut Observed) -> &mut usize);

impl Drop for Held<'_> {
    fn drop(&mut self) {
        *(self.1)(&mut self.0.observed.lock()) -= 1;
    }
}

struct HeldUnits<'a>(&'a World, u32);

impl Drop for HeldUnits<'_> {
    fn drop(&mut self) {
        self.0.observed.lock().units -= self.1;
    }
}

impl StepObserver for World {
    fn step(&self, name: &'static str) -> bool {
        let mut observed = self.observed.lock();
        if observed.dead {
            return false;
        }
        observed.closing |= name == CLOSE;
        observed.batches_finished += usize::from(name == BATCH_FINISHED);
        let now = observed.steps;
        observed.steps += 1;
        assert!(now < STEPS_MAX, "the run loops");
        let gate = if name == WRITE { self.gate.lock().take() } else { None };
        if let Some(gate) = gate {
            drop(observed);
            if let Some(stopper) = &*self.stopper.lock() {
                stopper.stop();
            }
            self.killed.notify_one();
            // A dropped sender ends the wait too, so that no test hangs here.
            let _ = gate.recv();
            return true;
        }
        let Some((kind, at)) = observed.interruption.filter(|_| !observed.interrupted) else { return true };
        let was_captured = observed.captured;
        observed.captured |= name == CAPTURE;
        if now < at || (kind == Interruption::Fault && name != WRITE) {
            return true;
        }
        if kind.is_edit() {
            // Edits before that are part of the project at the start of the run.
            observed.interrupted = was_captured && self.edit(kind, &mut observed);
            return true;
        }
        observed.interrupted = true;
        match kind {
            Interruption::Stop => {
                if let Some(stopper) = &*self.stopper.lock() {
                    stopper.stop();
                }
            }
            Interruption::Drop => self.killed.notify_one(),
            Interruption::Kill => {
                observed.dead = true;
                self.killed.notify_one();
                return false;
            }
            Interruption::Fault => {
                observed.forget_unreported_merges();
                return false;
            }
            Interruption::Unguard => observed.unguarded = true,
            Interruption::Edit => {
                observed.forget_unreported_merges();
                self.edit_shared(&mut observed, Vec::push);
            }
            _ => {}
        }
        true
    }
}

impl Observed {
    /// Forgets the files of features that were not reported as green: a merge that was interrupted
    /// and cannot be finished is reverted.
    fn forget_unreported_merges(&mut self) {
        let reported = std::mem::take(&mut self.reported_green);
        self.green.retain(|feature, _| reported.contains(feature));
        self.reported_green = reported;
    }
}

impl World {
    pub(super) fn new(script: Script, project: PathBuf) -> Self {
        let user_lines = LINES.map(str::to_owned).to_vec();
        Self {
            script,
            project,
            observed: Mutex::new(Observed { user_lines, ..Observed::default() }),
            killed: Notify::new(),
            edited: Notify::new(),
            stopper: Mutex::default(),
            gate: Mutex::default(),
        }
    }

    /// Prepares the next run.
    pub(super) fn begin(&self, engine: &Engine, run: usize) {
        *self.stopper.lock() = Some(engine.stopper());
        let mut observed = self.observed.lock();
        observed.interruption = self.script.interruptions.get(run).copied();
        (observed.steps, observed.dead, observed.interrupted) = (0, false, false);
        observed.requested_now.clear();
        observed.recorded = engine.recorded_answers();
        observed.started.clear();
        if self.script.forgetful.contains(&run) {
            observed.results.clear();
        }
        (observed.captured, observed.unguarded) = (false, false);
        drop(observed);
        self.undo_edit();
    }

    /// Makes an edit of the user that may overlap with the work of a feature. Returns false if no
    /// feature is left for it.
    fn edit(&self, kind: Interruption, observed: &mut Observed) -> bool {
        let is_open = |at: &usize| !self.merged(&format!("f{at}.txt")).is_some_and(|text| is_done(&text));
        let Some(feature) = (0..self.script.features.len()).find(is_open) else { return false };
        observed.forget_unreported_merges();
        let (name, content) = match kind {
            Interruption::Overlap => {
                self.edit_shared(observed, |lines, edit| lines.insert(1.min(lines.len()), edit));
                self.edited.notify_one();
                return true;
            }
            Interruption::Rewrite(way) => {
                observed.restored_lines = Some(observed.user_lines.clone());
                self.edit_shared(observed, |lines, edit| rewrite(lines, way, &edit));
                self.edited.notify_one();
                return true;
            }
            Interruption::Create => (format!("f{feature}.txt"), Some(USER)),
            Interruption::Change => (format!("old-f{feature}.txt"), Some(USER)),
            _ => (format!("old-f{feature}.txt"), None),
        };
        let path = self.project.join(&name);
        let before = fs::read_to_string(&path).ok();
        match content {
            Some(content) => {
                fs::write(&path, content).unwrap();
                observed.user_file = Some((name, before));
                self.edited.notify_one();
            }
            None => drop(fs::remove_file(&path)),
        }
        true
    }

    /// Edits the shared file for the user. `change` gets its lines and a new one.
    fn edit_shared(&self, observed: &mut Observed, change: impl FnOnce(&mut Vec<String>, String)) {
        observed.edits += 1;
        let mut lines = self.shared_lines();
        change(&mut lines, format!("user {}", observed.edits));
        self.write_shared(observed, &lines);
    }

    /// Writes the shared file for the user.
    fn write_shared(&self, observed: &mut Observed, lines: &[String]) {
        let mut text = lines.join("\n");
        // A file without a final line ending is common too.
        if !lines.is_empty() && !lines.iter().any(|line| line.ends_with("unended")) {
            text.push('\n');
        }
        let path = self.project.join("shared.txt");
        if lines.is_empty() {
            drop(fs::remove_file(path));
        } else {
            fs::write(path, text).unwrap();
        }
        observed.user_lines = lines_of_user(lines);
    }

    /// Returns the lines of the shared file.
    fn shared_lines(&self) -> Vec<String> {
        let text = Self::file(&self.project, "shared.txt").unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// Checks that the shared file has the lines of the user, in their order.
    pub(super) fn check_user_lines(&self) {
        let lines = self.shared_lines();
        let mut observed = self.observed.lock();
        if lines_of_user(&lines) != observed.user_lines {
            let expected = observed.user_lines.clone();
            observed
                .violations
                .push(format!("the user's lines are {expected:?}, and the file has {lines:?}"));
        }
    }

    /// Undoes an edit of the user that may overlap with the work of a feature.
    pub(super) fn undo_edit(&self) {
        self.check_user_lines();
        let lines = self.shared_lines();
        let mut observed = self.observed.lock();
        let (of_user, mut moved): (Vec<_>, Vec<_>) =
            lines.iter().cloned().partition(|line| line.starts_with("user"));
        if let Some(restored) = observed.restored_lines.take() {
            // The lines of features follow the first one, where features add theirs.
            moved.retain(|line| is_of_feature(line));
            let at = 1.min(restored.len());
            moved.splice(0..0, restored[..at].iter().cloned());
            moved.extend_from_slice(&restored[at..]);
        } else {
            moved.extend(of_user);
        }
        if moved != lines {
            self.write_shared(&mut observed, &moved);
        }
        drop(observed);
        self.check_user_file();
        let Some((name, before)) = self.observed.lock().user_file.take() else { return };
        match before {
            Some(before) => fs::write(self.project.join(name), before).unwrap(),
            None => drop(fs::remove_file(self.project.join(name))),
        }
    }

    /// Checks that the file which the user has changed has the user's content.
    pub(super) fn check_user_file(&self) {
        let Some((name, _)) = self.observed.lock().user_file.clone() else { return };
        let now = Self::file(&self.project, &name);
        if now.as_deref() != Some(USER) {
            self.violation(format!("the user's {name} was overwritten with {now:?}"));
        }
    }

    /// Reads a file of the results: of the project, or of the branch.
    pub(super) fn merged(&self, name: &str) -> Option<String> {
        if !self.script.on_branch {
            return Self::file(&self.project, name);
        }
        let path = format!("{BRANCH}:{name}");
        let mut git = std::process::Command::new("git");
        let output = git.args(["cat-file", "blob", &path]).current_dir(&self.project).output().unwrap();
        output.status.success().then(|| String::from_utf8(output.stdout).unwrap())
    }

    /// Runs the guard of the plan.
    async fn run_guard(&self, root: &Path) -> Outcome {
        let is_broken =
            |at| Self::file(root, &format!("guard-f{at}.txt")).is_some_and(|text| text == "yes\n");
        let fails = (0..self.script.features.len()).any(is_broken)
            || self.script.guard == Guard::FailsAtStart
            || self.observed.lock().unguarded;
        let took = Duration::from_millis(400);
        sleep(took).await;
        let status = if fails { Status::Failed(ExitReason::Code(6)) } else { Status::Passed };
        outcome(status, took)
    }

    pub(super) fn violation(&self, text: String) {
        self.observed.lock().violations.push(text);
    }

    /// Reads a file of a directory. Returns `None` if it does not exist.
    pub(super) fn file(root: &Path, name: &str) -> Option<String> {
        fs::read_to_string(root.join(name)).ok()
    }

    fn held(&self, count: fn(&mut Observed) -> &mut usize, max: u32, name: &str) -> Held<'_> {
        let mut observed = self.observed.lock();
        *count(&mut observed) += 1;
        let now = *count(&mut observed);
        if now > max as usize {
            observed.violations.push(format!("{now} {name} at once, of {max}"));
        }
        Held(self, count)
    }

    /// Checks a feature that does work: its dependencies are green, and not too many features are
    /// started.
    fn check_active(&self, feature: usize, root: &Path) {
        for &other in &self.script.features[feature].depends_on {
            let name = format!("f{other}.txt");
            for (place, text) in [("project", self.merged(&name)), ("workspace", Self::file(root, &name))] {
                if !text.is_some_and(|text| is_done(&text)) {
                    self.violation(format!("f{feature} is active, and f{other} is not in its {place}"));
                }
            }
        }
        let mut observed = self.observed.lock();
        observed.started.insert(feature);
        if observed.started.len() > self.script.features_max as usize {
            let started = observed.started.clone();
            observed.violations.push(format!("{started:?} are started at once"));
        }
    }

    /// Returns the part of a workspace that a feature's test reads.
    fn inputs(&self, feature: usize, root: &Path) -> String {
        let own = Self::file(root, &format!("f{feature}.txt"));
        let broken = Self::file(root, &format!("breaks-f{feature}.txt"));
        let shared = Self::file(root, "shared.txt").unwrap_or_default();
        let shared: Vec<_> =
            shared.lines().filter(|line| line.starts_with(&format!("f{feature}#"))).collect();
        let joined = root.ends_with(".merge") || root == self.project;
        let joined = own.as_ref().is_some_and(|text| text.contains("joined")).then_some(joined);
        let is_flaky = root.ends_with(".merge") && own.as_ref().is_some_and(|text| text.starts_with("flaky"));
        format!("{own:?} {broken:?} {shared:?} {joined:?} {is_flaky}")
    }

    async fn run_test(
        &self,
        feature: usize,
        root: &Path,
        test: &Test,
        is_repeated: bool,
    ) -> Result<Outcome, TestError> {
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
            Some("flaky") if root.ends_with(".merge") && !is_repeated => Status::Failed(ExitReason::Code(5)),
            // A merge has lost the line of this answer in the shared file.
            Some("good") if lacks_line(feature, root) => Status::Failed(ExitReason::Code(4)),
            Some("good" | "unreviewed" | "joined" | "flaky") => {
                let is_broken =
                    Self::file(root, &format!("breaks-f{feature}.txt")).is_some_and(|text| text == "yes\n");
                if is_broken { Status::Failed(ExitReason::Signal(6)) } else { Status::Passed }
            }
            _ => Status::Failed(ExitReason::Code(1)),
        };
        let before = self.inputs(feature, root);
        let took = match status {
            Status::TimedOut(max) => max,
            _ => Duration::from_millis(script.test_ms),
        };
        sleep(took).await;
        if self.inputs(feature, root) != before {
            self.violation(format!("{} changed while the test of f{feature} ran", root.display()));
        }
        Ok(outcome(status, took))
    }
}

/// Rewrites the lines of a file in one of [`REWRITES`](super::script::REWRITES) ways. Lines of
/// features remain.
fn rewrite(lines: &mut Vec<String>, way: u8, new: &str) {
    let first = lines.iter().position(|line| !is_of_feature(line));
    let last = lines.iter().rposition(|line| !is_of_feature(line));
    match (way, first, last) {
        (0, Some(first), _) => drop(lines.remove(first)),
        (1, _, Some(last)) => drop(lines.splice(last..=last, [new.to_owned(), format!("{new} again")])),
        (2, ..) => {
            let spaced = |(at, line): (usize, String)| [format!("{new} before {at}"), line];
            *lines = std::mem::take(lines).into_iter().enumerate().flat_map(spaced).collect();
        }
        (3, ..) => lines.reverse(),
        // Removes the file if no feature has a line in it.
        (4, ..) => lines.retain(|line| is_of_feature(line)),
        // The same line twice.
        (5, Some(first), _) => lines.push(lines[first].clone()),
        _ => lines.push(format!("{new} unended")),
    }
}

/// Returns whether a feature has added the line to the shared file.
fn is_of_feature(line: &str) -> bool {
    line.starts_with('f') && line.contains('#')
}

/// Returns the lines that no feature has added.
fn lines_of_user(lines: &[String]) -> Vec<String> {
    lines.iter().filter(|line| !is_of_feature(line)).cloned().collect()
}

fn outcome(status: Status, duration: Duration) -> Outcome {
    Outcome {
        cases: Vec::new(),
        status,
        count: None,
        output: Bytes::from_static(b"output of the test"),
        duration,
        source: Source::Ran(CacheDecision::Stored),
        key: [0; 32],
        attempts: 1,
        undeclared: Vec::new(),
        coarse: None,
        interference: None,
        left_behind: Vec::new(),
        outputs: [].into(),
    }
}

/// Returns whether a feature's line is missing in the shared file although its file claims it.
fn lacks_line(feature: usize, root: &Path) -> bool {
    let own = World::file(root, &format!("f{feature}.txt")).unwrap_or_default();
    let shared = World::file(root, "shared.txt").unwrap_or_default();
    let line = own.split_whitespace().nth(1).filter(|_| own.ends_with(" shared\n"));
    line.is_some_and(|line| !shared.lines().any(|other| other == line))
}

/// Returns whether the text of a feature's file passes its test in the project.
pub(super) fn is_done(text: &str) -> bool {
    ["good", "unreviewed", "flaky"].iter().any(|word| text.starts_with(word))
}

/// Returns the index of the feature in the name of a test or of an agent.
fn number(name: &str) -> usize {
    name.trim_start_matches(|c: char| !c.is_ascii_digit()).parse().unwrap()
}

/// The test runner of a world.
#[derive(Debug)]
pub(super) struct SimulatedTests(pub(super) Arc<World>);

#[async_trait]
impl TestRunner for SimulatedTests {
    async fn run(&self, root: &Path, test: &Test) -> Result<Outcome, TestError> {
        let world = &*self.0;
        if test.name == GUARD {
            return Ok(world.run_guard(root).await);
        }
        let feature = number(&test.name);
        let key = (test.name.clone(), world.inputs(feature, root));
        let worker = world.held(|observed| &mut observed.testing, world.script.workers, "tests");
        let owner = root.file_name().and_then(|name| name.to_str()).filter(|name| name.starts_with('f'));
        let _units = owner.map(|owner| {
            let worked_on = number(owner);
            world.check_active(worked_on, root);
            let units = world.script.features[worked_on].units;
            let mut observed = world.observed.lock();
            observed.units += units;
            if observed.units > UNITS {
                let now = observed.units;
                observed.violations.push(format!("{now} units of the resource are held"));
            }
            HeldUnits(world, units)
        });
        let cached = world.observed.lock().results.get(&key).cloned();
        let outcome = match cached {
            Some(cached) => cached,
            None => {
                let outcome = world.run_test(feature, root, test, false).await?;
                if outcome.passed() {
                    let cached = Outcome { source: Source::Cached(Duration::ZERO), ..outcome.clone() };
                    world.observed.lock().results.insert(key, cached);
                }
                outcome
            }
        };
        drop(worker);
        Ok(outcome)
    }

    async fn discover(&self, _root: &Path) -> Result<Vec<Test>, TestError> {
        Ok(Vec::new())
    }

    async fn run_again(&self, root: &Path, test: &Test) -> Result<Outcome, TestError> {
        let world = &*self.0;
        let worker = world.held(|observed| &mut observed.testing, world.script.workers, "tests");
        let outcome = match &*test.name {
            GUARD => Ok(world.run_guard(root).await),
            name => world.run_test(number(name), root, test, true).await,
        };
        drop(worker);
        outcome
    }

    async fn cached(&self, root: &Path, test: &Test) -> Result<Option<Outcome>, TestError> {
        let key = (test.name.clone(), self.0.inputs(number(&test.name), root));
        Ok(self.0.observed.lock().results.get(&key).cloned())
    }

    fn stats(&self) -> TieredStats {
        TieredStats::default()
    }

    async fn flush(&self) {}
}

/// The agent of one feature.
#[derive(Debug, Clone)]
pub(super) struct SimulatedAgent {
    pub(super) world: Arc<World>,
    pub(super) feature: usize,
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
        let answer = model::answer(script, request.attempt);
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
        // In two chunks, with a pause between them.
        let middle = (0..=text.len() / 2).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
        let (first, last) = (text[..middle].to_owned(), text[middle..].to_owned());
        let pause_ms = script.answer_ms / 2 + 1;
        let first = stream::iter([Ok(AgentEvent::Text(first.into()))]);
        let last = stream::once(async move {
            sleep(Duration::from_millis(pause_ms)).await;
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
        Ok(Stream::new(first.chain(last).chain(end)))
    }

    fn is_open(&self) -> bool {
        true
    }
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
        })
    }

    /// Checks a request against the earlier ones, and returns a unique number for its answer.
    fn check_request(&self, request: &Request) -> u64 {
        let feature = self.feature;
        self.world.check_active(feature, &request.directory);
        let mut observed = self.world.observed.lock();
        let before = observed.requested.insert(feature, request.attempt).unwrap_or(0);
        let is_first = observed.requested_now.insert(feature);
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
        let script = &self.world.script.features[feature];
        let expected = match request.attempt {
            1 => None,
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
        Answer::Protected => format!("```text tests/test_f{feature}.txt\nno test\n```\n\n"),
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
    if script.features[feature].answers.contains(&Answer::Unguarded) {
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
