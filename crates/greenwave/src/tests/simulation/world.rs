//! The simulated world: the project, the user, and the record of how a run uses agents and tests.

mod agent;
mod edits;
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use greenwave_testing::Outcome;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::script::{Interruption, Script};
use crate::engine::Engine;
use crate::steps::StepObserver;

pub(super) use agent::SimulatedAgent;
pub(super) use tests::SimulatedTests;

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
    /// Number of times that an answer was held.
    pub(super) held: usize,
    /// Features with an answer that the user has approved.
    pub(super) approved: BTreeSet<usize>,
    /// Attempt that the user has rejected, by feature.
    pub(super) rejected: BTreeMap<usize, u32>,
    /// Number of times that a feature waited for the user in this run.
    pub(super) blocked: usize,
    /// Whether the guard fails regardless of the files.
    unguarded: bool,
    /// Merged file of each green feature.
    pub(super) green: BTreeMap<usize, String>,
    /// Last attempt that was requested, by feature and candidate.
    pub(super) requested: BTreeMap<(usize, u32), u32>,
    /// Features and candidates that were requested in this run.
    pub(super) requested_now: BTreeSet<(usize, u32)>,
    /// Attempt whose answer is recorded at the start of this run, by feature.
    pub(super) recorded: BTreeMap<usize, u32>,
    /// Features, attempts and candidates whose answers are recorded at the start of this run.
    pub(super) recorded_candidates: BTreeSet<(usize, u32, u32)>,
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
    guards_running: usize,
    /// Number of runs of the guard that started beside another one.
    pub(super) guards_beside: usize,
    /// Number of tests of merges that run.
    merge_testing: usize,
    /// Directories in which a test runs, and whether it needs the resource for a merge.
    running: BTreeMap<PathBuf, bool>,
    /// Number of tests of merges that started beside another one.
    pub(super) merge_tests_beside: usize,
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
        observed.recorded_candidates = engine.recorded_candidates();
        observed.started.clear();
        if self.script.forgetful.contains(&run) {
            observed.results.clear();
        }
        (observed.captured, observed.unguarded) = (false, false);
        drop(observed);
        self.undo_edit();
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

    /// Returns the path of the test that an agent writes for a feature.
    pub(super) fn written_test(feature: usize) -> String {
        format!("tests/new_f{feature}.txt")
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
}

/// Returns whether the text of a feature's file passes its test in the project.
pub(super) fn is_done(text: &str) -> bool {
    ["good", "unreviewed", "flaky"].iter().any(|word| text.starts_with(word))
}

/// Returns the index of the feature in the name of a test or of an agent.
fn number(name: &str) -> usize {
    // The workspace of a candidate has its number behind a tilde.
    let name = name.split('~').next().unwrap_or_default();
    name.trim_start_matches(|c: char| !c.is_ascii_digit()).parse().unwrap()
}
