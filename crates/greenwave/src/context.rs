//! The parts that all stages of a run share.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, OnceLock};

use greenwave_agents::{AgentPool, Gate};
use greenwave_storage::{Attempts, Store};
use greenwave_streaming::{Budget, Fanout};
use greenwave_testing::{STATE_DIRECTORY, Test, TestSlots};
use parking_lot::Mutex;

use crate::adapters::Flusher;
use crate::approval::Approvals;
use crate::attempt_record::AttemptRecord;
use crate::branch::ResultBranch;
use crate::budget::BudgetLedger;
use crate::copies::Copies;
use crate::dependencies::Dependencies;
use crate::disk_full::DiskFull;
use crate::event::Event;
use crate::excerpt::Excerpt;
use crate::fixed_ports::FixedPorts;
use crate::green_record;
use crate::live_feed::LiveFeed;
use crate::mask::Mask;
use crate::notify::Notifier;
use crate::phase::Phase;
use crate::plan::{Feature, FeatureId, Plan};
use crate::preflight::Problem;
use crate::project_state::Exposure;
use crate::protection::RunProtection;
use crate::receipts::Receipts;
use crate::report::Totals;
use crate::run_journal::RunJournal;
use crate::run_metrics::RunMetrics;
use crate::scope::RunScope;
use crate::settings::Settings;
use crate::state_home::{Restored, StateHome};
use crate::steering::Steering;
use crate::steps::Steps;
use crate::test_runner::TestRunner;
use crate::workspace::Destination;
use crate::written_tests::WrittenTests;

/// Maximum size of a test's output that is stored and shown, in bytes.
const OUTPUT_BYTES_MAX: usize = 32 * 1024;

/// Paths outside of the project that agents and tests can change.
#[derive(Debug, Default)]
pub(crate) struct Exposed {
    /// Directories in which they can change modes and times.
    pub(crate) directories: Vec<PathBuf>,
    /// Settings of agents that count in their sessions outside of the run.
    pub(crate) agent_settings: Vec<PathBuf>,
    /// Settings that agents cannot change while something exists there.
    pub(crate) absent_settings: Vec<PathBuf>,
}

/// The shared parts of a run. Has accessors only: the work is done by `FeatureRun` and
/// `MergeQueue`.
#[derive(Debug)]
pub(crate) struct RunContext {
    pub(crate) plan: Plan,
    pub(crate) settings: Settings,
    pub(crate) store: Store,
    pub(crate) flusher: Flusher,
    pub(crate) attempts: Attempts,
    pub(crate) journal: RunJournal,
    pub(crate) approvals: Approvals,
    /// The directory that the store and the journal are in.
    pub(crate) state_home: Arc<StateHome>,
    pub(crate) tests: Arc<dyn TestRunner>,
    /// Limits how many tests, and commands that set copies up, run at once.
    pub(crate) slots: TestSlots,
    /// Part of the plan that the run does.
    pub(crate) scope: RunScope,
    /// Features that the run does.
    pub(crate) selected: BTreeSet<FeatureId>,
    /// Notes about the plan, published at the start.
    pub(crate) notes: Vec<Problem>,
    /// Events about the confinement of agents and tests, published at the start.
    pub(crate) confined: Vec<Event>,
    /// Changes of the project that agents and tests can make. `None` if they can change nothing.
    pub(crate) exposure: Option<Exposure>,
    /// Paths outside of the project that they can change.
    pub(crate) exposed: Exposed,
    /// Tests that must not run beside others.
    pub(crate) ports: FixedPorts,
    /// Names of the tests that have left processes running.
    pub(crate) left_processes: Mutex<BTreeSet<String>>,
    pub(crate) steps: Steps,
    /// Decisions of the user about the features, in this run.
    pub(crate) steering: Steering,
    /// The working copies of the run.
    pub(crate) copies: Arc<Copies>,
    /// The branch of the results, unless they go into the files of the project.
    pub(crate) branch: Option<ResultBranch>,
    /// The project's directory, or that of its repository, where merges are written.
    pub(crate) project: Destination,
    /// Pools of agent sessions, by the agent's name in the plan.
    pub(crate) agents: BTreeMap<String, AgentPool>,
    /// The files that no agent may change.
    pub(crate) protection: RunProtection,
    /// Removes secrets from stored and displayed text.
    pub(crate) mask: Mask,
    /// Hold back requests to overloaded providers, by the agent's name in the plan.
    pub(crate) gates: BTreeMap<String, Gate>,
    pub(crate) receipts: Receipts,
    pub(crate) disk_full: DiskFull,
    /// Usage of the agents, and its limits.
    pub(crate) budget: Arc<BudgetLedger>,
    /// Records of attempts that could not be written because the disk was full.
    pub(crate) unsaved: Mutex<Vec<(FeatureId, AttemptRecord)>>,
    /// Number of features that are started, have not ended and do not wait for the user.
    pub(crate) working: AtomicUsize,
    /// Limits the bytes of all answers that are in memory at once.
    pub(crate) answers: Budget,
    pub(crate) events: Fanout<Event>,
    pub(crate) metrics: RunMetrics,
    pub(crate) notifier: Notifier,
    /// Events and output for a dashboard, if there is one.
    pub(crate) live: OnceLock<Arc<LiveFeed>>,
    pub(crate) totals: Mutex<Totals>,
    /// The dependencies between the features.
    pub(crate) dependencies: Dependencies,
    /// Tests that agents have written in this run or an earlier one, of each feature.
    pub(crate) written: Vec<OnceLock<WrittenTests>>,
    /// Hash of each feature's definition, see [`definition`](crate::green_record::definition).
    pub(crate) definitions: Vec<String>,
}

impl RunContext {
    /// Returns the output of a program as it is stored and shown: bounded, cleaned and masked.
    pub(crate) fn shown(&self, output: &[u8]) -> String {
        let mut excerpt = Excerpt::new(OUTPUT_BYTES_MAX);
        excerpt.push(output);
        self.mask.apply(excerpt.text().trim_end()).into_owned()
    }

    /// Publishes an event, and waits while a subscriber's queue is full.
    pub(crate) async fn emit(&self, event: Event) {
        self.observe(&event);
        self.notifier.observe(&event);
        self.events.publish(event).await;
    }

    /// Counts an event, and shows it on the dashboard.
    pub(crate) fn observe(&self, event: &Event) {
        self.metrics.observe(event);
        if let Some(live) = self.live.get() {
            live.publish(event);
        }
    }

    /// Publishes a note if the state directory was removed, and its content written again.
    pub(crate) async fn note_restored_state(&self) {
        let Some(Restored { lost }) = self.state_home.take_restored() else { return };
        let lost = match lost {
            0 => String::new(),
            1 => ", without 1 stored content".to_owned(),
            lost => format!(", without {lost} stored contents"),
        };
        let message = format!("`{STATE_DIRECTORY}` was removed during the run, and is written again{lost}");
        let code = "state-restored";
        self.emit(Event::Note { code, feature: None, message, hint: None }).await;
    }

    /// Does work that may block, such as a call of git, in another thread.
    pub(crate) async fn blocking<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let done = tokio::task::spawn_blocking(work).await;
        done.expect("the work does not panic and is not cancelled")
    }

    /// Returns the ids of all features, in the order of the plan.
    pub(crate) fn ids(&self) -> impl Iterator<Item = FeatureId> + use<> {
        (0..self.plan.features.len()).map(FeatureId::from_index)
    }

    /// Returns whether the run has more features than can be in progress at once.
    pub(crate) fn is_crowded(&self) -> bool {
        self.selected.len() > self.settings.parallel.features as usize
    }

    /// Returns a feature of the plan.
    pub(crate) fn feature(&self, id: FeatureId) -> &Feature {
        &self.plan.features[id.index()]
    }

    /// Returns the tests of a feature: those of the plan, or those that an agent has written. There
    /// are none before an agent has written them.
    pub(crate) fn tests_of(&self, id: FeatureId) -> &[Test] {
        match self.written_tests(id) {
            Some(written) => &written.tests,
            None => &self.feature(id).tests,
        }
    }

    /// Returns the tests that an agent has written for a feature.
    pub(crate) fn written_tests(&self, id: FeatureId) -> Option<&WrittenTests> {
        self.written[id.index()].get()
    }

    /// Takes the tests that an agent has written for a feature, in this run or an earlier one. They
    /// never change again in this run.
    pub(crate) fn take_written_tests(&self, id: FeatureId, tests: WrittenTests) {
        if self.feature(id).writing_agent().is_some() && self.written[id.index()].set(tests).is_err() {
            tracing::debug!(feature = self.feature(id).id, "the tests are written already");
        }
    }

    /// Returns whether an agent has to write the tests of a feature.
    pub(crate) fn lacks_tests(&self, id: FeatureId) -> bool {
        self.tests_of(id).is_empty() && self.feature(id).writing_agent().is_some()
    }

    /// Returns the name of the agent that works on a feature in a phase after a number of
    /// fallbacks, or `None` if the plan has fewer.
    pub(crate) fn agent(&self, id: FeatureId, phase: Phase, fallbacks: usize) -> Option<&String> {
        match phase.is_about_tests() {
            true => self.plan.test_agents_of(self.feature(id)).nth(fallbacks),
            false => self.plan.agents_of(self.feature(id)).nth(fallbacks),
        }
    }

    /// Returns the names of the agents that an attempt at a feature asks, after a number of
    /// fallbacks.
    pub(crate) fn candidates(&self, id: FeatureId, fallbacks: usize) -> Vec<&String> {
        self.plan.candidates_of(self.feature(id), fallbacks, self.settings.run.candidates)
    }

    /// Returns the hash of a feature's definition.
    pub(crate) fn definition(&self, id: FeatureId) -> &str {
        &self.definitions[id.index()]
    }

    /// Returns the key in the journal of a feature's record as green.
    pub(crate) fn green_key(&self, id: FeatureId) -> String {
        green_record::key(&self.feature(id).id, self.definition(id))
    }

    /// Returns the key in the journal of the attempt at which a feature continues.
    pub(crate) fn attempt_key(&self, id: FeatureId) -> String {
        AttemptRecord::key(&self.feature(id).id, self.definition(id))
    }
}
