//! The simulated test runner.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use greenwave_cache::TieredStats;
use greenwave_testing::{
    CacheDecision, Error as TestError, ExitReason, Outcome, Source, Status, Test, TestSlots,
};
use tokio::time::sleep;

use super::super::script::{Guard, Red};
use super::{GUARD, Held, TEST_MAX, UNITS, World, number};
use crate::test_runner::TestRunner;

/// The test runner of a world.
#[derive(Debug)]
pub(in super::super) struct SimulatedTests(pub(in super::super) Arc<World>, pub(in super::super) TestSlots);

#[async_trait]
impl TestRunner for SimulatedTests {
    async fn run(&self, root: &Path, test: &Test) -> Result<Outcome, TestError> {
        let world = &*self.0;
        let _running = world.enter(root, test);
        let _slot = self.1.take().await;
        let _beside = world.run_beside(root);
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

    fn set_slots(&mut self, slots: TestSlots) {
        self.1 = slots;
    }

    async fn discover(&self, root: &Path) -> Result<Vec<Test>, TestError> {
        let features = 0..self.0.script.features.len();
        let found = features.filter(|at| World::file(root, &World::written_test(*at)).is_some());
        let test = |at| Test {
            time_max: TEST_MAX,
            ..Test::new(format!("test{at}"), ["simulated".to_owned(), World::written_test(at)])
        };
        Ok(found.map(test).collect())
    }

    async fn run_again(&self, root: &Path, test: &Test) -> Result<Outcome, TestError> {
        let world = &*self.0;
        let _running = world.enter(root, test);
        let _slot = self.1.take().await;
        let _beside = world.run_beside(root);
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

impl World {
    /// Notes that a test runs in a directory. No two run in one, and none of those of a merge runs
    /// beside another that needs the resource.
    fn enter(&self, root: &Path, test: &Test) -> RunningTest<'_> {
        let units = if test.name == GUARD { 0 } else { self.script.features[number(&test.name)].units };
        let mut observed = self.observed.lock();
        let (others, has_units) = (observed.running.clone(), is_merge(root) && units > 0);
        if others.contains_key(root) {
            observed.violations.push(format!("two tests run in {}", root.display()));
        }
        if has_units && others.values().any(|&units| units) {
            observed.violations.push("two tests of a merge use the resource".to_owned());
        }
        observed.running.insert(root.to_owned(), has_units);
        RunningTest(self, root.to_owned())
    }

    /// Counts a test of a merge that runs beside another one.
    fn run_beside(&self, root: &Path) -> Option<Held<'_>> {
        if !is_merge(root) {
            return None;
        }
        let held = self.held(|observed| &mut observed.merge_testing, u32::MAX, "tests of merges");
        let mut observed = self.observed.lock();
        observed.merge_tests_beside += usize::from(observed.merge_testing > 1);
        drop(observed);
        Some(held)
    }

    /// Runs the guard of the plan.
    async fn run_guard(&self, root: &Path) -> Outcome {
        let is_broken =
            |at| Self::file(root, &format!("guard-f{at}.txt")).is_some_and(|text| text == "yes\n");
        let fails = (0..self.script.features.len()).any(is_broken)
            || self.script.guard == Guard::FailsAtStart
            || self.observed.lock().unguarded;
        let took = Duration::from_millis(400);
        let running = self.held(|observed| &mut observed.guards_running, self.script.workers, "guards");
        {
            let mut observed = self.observed.lock();
            observed.guards_beside += usize::from(observed.guards_running > 1);
        }
        sleep(took).await;
        drop(running);
        let status = if fails { Status::Failed(ExitReason::Code(6)) } else { Status::Passed };
        outcome(status, took)
    }

    /// Returns the part of a workspace that a feature's test reads.
    fn inputs(&self, feature: usize, root: &Path) -> String {
        let own = Self::file(root, &format!("f{feature}.txt"));
        let broken = Self::file(root, &format!("breaks-f{feature}.txt"));
        let shared = Self::file(root, "shared.txt").unwrap_or_default();
        let shared: Vec<_> =
            shared.lines().filter(|line| line.starts_with(&format!("f{feature}#"))).collect();
        let joined = is_merge(root) || root == self.project;
        let joined = own.as_ref().is_some_and(|text| text.contains("joined")).then_some(joined);
        let test = Self::file(root, &Self::written_test(feature));
        let is_flaky = is_merge(root) && own.as_ref().is_some_and(|text| text.starts_with("flaky"));
        format!("{own:?} {broken:?} {shared:?} {joined:?} {is_flaky} {test:?}")
    }

    /// Returns the status of a test that an agent has written and that proves nothing, or is
    /// missing.
    fn written_status(&self, feature: usize, root: &Path, test: &Test, has_code: bool) -> Option<Status> {
        if self.script.features[feature].written.is_empty() || test.name.starts_with("review") {
            return None;
        }
        let text = Self::file(root, &Self::written_test(feature)).unwrap_or_default();
        let word = text.split_whitespace().next().unwrap_or_default();
        if has_code && word != "good" {
            self.violation(format!("the code of f{feature} is tested by {text:?} in {}", root.display()));
        }
        match word {
            "good" => None,
            "passing" => Some(Status::Passed),
            "empty" => Some(Status::NoTests),
            _ => Some(Status::Failed(ExitReason::Code(127))),
        }
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
        let written = self.written_status(feature, root, test, word.is_some());
        let status = match word.as_deref() {
            _ if written.is_some() => written.unwrap_or(Status::Passed),
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
            Some("joined") if is_merge(root) => Status::Failed(ExitReason::Code(2)),
            Some("flaky") if is_merge(root) && !is_repeated => Status::Failed(ExitReason::Code(5)),
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

/// A test that runs in a directory.
struct RunningTest<'a>(&'a World, PathBuf);

impl Drop for RunningTest<'_> {
    fn drop(&mut self) {
        self.0.observed.lock().running.remove(&self.1);
    }
}

struct HeldUnits<'a>(&'a World, u32);

impl Drop for HeldUnits<'_> {
    fn drop(&mut self) {
        self.0.observed.lock().units -= self.1;
    }
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

/// Returns whether a directory is one of those in which merges are tested.
fn is_merge(root: &Path) -> bool {
    root.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b".merge"))
}

/// Returns whether a feature's line is missing in the shared file although its file claims it.
fn lacks_line(feature: usize, root: &Path) -> bool {
    let own = World::file(root, &format!("f{feature}.txt")).unwrap_or_default();
    let shared = World::file(root, "shared.txt").unwrap_or_default();
    let line = own.split_whitespace().nth(1).filter(|_| own.ends_with(" shared\n"));
    line.is_some_and(|line| !shared.lines().any(|other| other == line))
}
