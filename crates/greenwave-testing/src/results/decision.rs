//! Decides whether the result of a finished test may be stored.

use std::path::Path;

use greenwave_inputs::text;

use crate::results::outcome::{CacheDecision, Status};

/// Observations about a finished test that are available before the project is read again.
///
/// They decide in the first phase: if there is an obstacle among them, the second snapshot is not
/// taken.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RunEvidence<'a> {
    /// Status of the last attempt.
    pub(crate) status: Status,
    /// Number of attempts.
    pub(crate) attempts: u32,
    /// Whether failures are stored like passes.
    pub(crate) cache_failures: bool,
    /// Whether the program could not be built, so that no process ran and no dependency was traced.
    pub(crate) build_failed: bool,
    /// Whether the test has at least one input file.
    pub(crate) has_inputs: bool,
    /// Whether processes of the test were still running after it had ended.
    pub(crate) left_processes: bool,
    /// Names of the programs of these processes.
    pub(crate) left_names: &'a [String],
    /// Kernel object that the test used and that existed before.
    pub(crate) used_object: Option<&'a str>,
    /// Kernel object that the test left behind.
    pub(crate) left_object: Option<&'a str>,
    /// Whether an outer run traces the test, so that this run does not see its accesses.
    pub(crate) traced_by_outer: bool,
    /// Whether the system clock was set during the run.
    pub(crate) clock_was_set: bool,
    /// Reason why the trace may lack accesses.
    pub(crate) incomplete_trace: Option<&'a str>,
    /// Servers and other peers that the test neither started nor declares, if their use is an
    /// obstacle.
    pub(crate) refused_peers: Option<&'a str>,
    /// Product of the build that the test read although the build failed in part.
    pub(crate) unbuilt: Option<&'a Path>,
    /// Source file that changed while the test was built.
    pub(crate) changed_during_build: Option<&'a Path>,
    /// Possible input whose path was too long to open before the run.
    pub(crate) too_long: Option<&'a Path>,
}

/// Observations from the second snapshot of the project, which is taken after the run.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct SnapshotEvidence<'a> {
    /// Possible input whose path is too long to open.
    pub(crate) too_long: Option<&'a Path>,
    /// First dependency that differs between the start and the end of the run.
    pub(crate) change: Option<Change<'a>>,
}

/// A change of a dependency during the run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Change<'a> {
    /// Path relative to the project, or absolute.
    pub(crate) path: &'a Path,
    /// Whether the test itself wrote to the path.
    pub(crate) by_test: bool,
    /// Whether the path is a declared input.
    pub(crate) is_declared: bool,
}

/// Decides whether a result may be stored, after both phases.
///
/// Returns [`CacheDecision::Stored`] for a pass without obstacles. A failure without obstacles is
/// [`CacheDecision::NotAPass`]; the caller may store it if failures are cached.
pub(crate) fn decide_cacheability(run: &RunEvidence<'_>, after: &SnapshotEvidence<'_>) -> CacheDecision {
    let without_obstacle =
        if run.status == Status::Passed { CacheDecision::Stored } else { CacheDecision::NotAPass };
    run.obstacle().or_else(|| after.obstacle()).unwrap_or(without_obstacle)
}

impl RunEvidence<'_> {
    /// Returns the first reason not to store the result, if there is one.
    ///
    /// Reasons that concern the test alone come first: they hold for every run, so their hints
    /// help more than those about a file that happened to change.
    pub(crate) fn obstacle(&self) -> Option<CacheDecision> {
        let is_pass = self.status == Status::Passed;
        if is_pass && self.attempts > 1 {
            Some(CacheDecision::Flaky)
        } else if !is_pass && (self.build_failed || !self.cache_failures) {
            Some(CacheDecision::NotAPass)
        } else if !self.has_inputs {
            Some(CacheDecision::NoInputs)
        } else if self.left_processes {
            Some(CacheDecision::LeftProcesses(self.left_names.join(", ")))
        } else if let Some(object) = self.used_object {
            Some(CacheDecision::UsedObject(object.to_owned()))
        } else if let Some(object) = self.left_object {
            Some(CacheDecision::LeftObject(object.to_owned()))
        } else if self.traced_by_outer {
            Some(CacheDecision::TracedByOuter)
        } else if self.clock_was_set {
            Some(CacheDecision::ClockSet)
        } else if let Some(reason) = self.incomplete_trace {
            Some(CacheDecision::IncompleteTrace(reason.to_owned()))
        } else if let Some(peers) = self.refused_peers {
            Some(CacheDecision::ReachedPeers(peers.to_owned()))
        } else {
            self.file_obstacle()
        }
    }

    fn file_obstacle(&self) -> Option<CacheDecision> {
        if let Some(path) = self.unbuilt {
            Some(CacheDecision::NotBuilt(path.to_owned()))
        } else if let Some(path) = self.changed_during_build {
            Some(CacheDecision::InputChanged(path.to_owned()))
        } else {
            self.too_long.map(too_long)
        }
    }
}

impl SnapshotEvidence<'_> {
    /// Returns the first reason not to store the result, if there is one.
    pub(crate) fn obstacle(&self) -> Option<CacheDecision> {
        self.too_long.map(too_long).or_else(|| self.change.map(Change::decision))
    }
}

fn too_long(path: &Path) -> CacheDecision {
    CacheDecision::InputPathTooLong(text::short_path(path))
}

impl Change<'_> {
    fn decision(self) -> CacheDecision {
        let path = self.path.to_owned();
        if self.by_test {
            CacheDecision::ModifiedInput(path)
        } else if self.is_declared {
            CacheDecision::InputChanged(path)
        } else {
            CacheDecision::DependencyChanged(path)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::outcome::ExitReason;

    const FAILED: Status = Status::Failed(ExitReason::Code(1));

    fn clean_pass() -> RunEvidence<'static> {
        RunEvidence {
            status: Status::Passed,
            attempts: 1,
            cache_failures: false,
            build_failed: false,
            has_inputs: true,
            left_processes: false,
            left_names: &[],
            used_object: None,
            left_object: None,
            traced_by_outer: false,
            clock_was_set: false,
            incomplete_trace: None,
            refused_peers: None,
            unbuilt: None,
            changed_during_build: None,
            too_long: None,
        }
    }

    fn change(path: &str, by_test: bool, is_declared: bool) -> Option<Change<'_>> {
        Some(Change { path: Path::new(path), by_test, is_declared })
    }

    fn check(run: RunEvidence<'_>, decision: &CacheDecision, reason: &str) {
        assert_eq!(decide_cacheability(&run, &SnapshotEvidence::default()), *decision);
        assert_eq!(decision.reason().unwrap_or_default(), reason);
    }

    fn check_snapshot(after: SnapshotEvidence<'_>, decision: &CacheDecision, reason: &str) {
        assert_eq!(clean_pass().obstacle(), None);
        assert_eq!(decide_cacheability(&clean_pass(), &after), *decision);
        assert_eq!(decision.reason().unwrap_or_default(), reason);
    }

    #[test]
    fn results_without_obstacles_are_decided_by_status() {
        check(clean_pass(), &CacheDecision::Stored, "");
        let failure = RunEvidence { status: FAILED, attempts: 3, ..clean_pass() };
        check(failure, &CacheDecision::NotAPass, "");
        let cached_failure = RunEvidence { cache_failures: true, ..failure };
        assert_eq!(cached_failure.obstacle(), None);
        check(cached_failure, &CacheDecision::NotAPass, "");
        let failed_build = RunEvidence { build_failed: true, ..cached_failure };
        assert_eq!(failed_build.obstacle(), Some(CacheDecision::NotAPass));
    }

    #[test]
    fn each_property_of_a_test_that_prevents_caching_has_a_reason() {
        let pass = clean_pass();
        check(
            RunEvidence { attempts: 2, ..pass },
            &CacheDecision::Flaky,
            "the test passed only after a retry (make it deterministic)",
        );
        check(
            RunEvidence { has_inputs: false, ..pass },
            &CacheDecision::NoInputs,
            "the test has no input files (declare them in `inputs`)",
        );
        check(
            RunEvidence { left_processes: true, ..pass },
            &CacheDecision::LeftProcesses(String::new()),
            "the test left processes behind (end them before the test exits)",
        );
        check(
            RunEvidence { used_object: Some("semaphore 7, which existed before"), ..pass },
            &CacheDecision::UsedObject("semaphore 7, which existed before".to_owned()),
            "the test used semaphore 7, which existed before (create the object within the test)",
        );
        check(
            RunEvidence { left_object: Some("semaphore 7"), ..pass },
            &CacheDecision::LeftObject("semaphore 7".to_owned()),
            "the test left semaphore 7 behind (remove the object before the test exits)",
        );
        check(
            RunEvidence { traced_by_outer: true, ..pass },
            &CacheDecision::TracedByOuter,
            "an outer run traces the test (run `greenwave test` outside of a test to store its result)",
        );
        check(
            RunEvidence { clock_was_set: true, ..pass },
            &CacheDecision::ClockSet,
            "the system clock was set while the test ran (run the test again)",
        );
        check(
            RunEvidence { incomplete_trace: Some("uses io_uring"), ..pass },
            &CacheDecision::IncompleteTrace("uses io_uring".to_owned()),
            "the test's reads cannot be traced completely: it uses io_uring (avoid that in the test)",
        );
        check(
            RunEvidence { refused_peers: Some("127.0.0.1:80"), ..pass },
            &CacheDecision::ReachedPeers("127.0.0.1:80".to_owned()),
            "the test reached 127.0.0.1:80, which it did not start \
             (declare it in `servers`, or set `testing.incomplete` to \"coarse\")",
        );
    }

    #[test]
    fn each_file_that_prevents_caching_has_a_reason() {
        let (pass, path) = (clean_pass(), Path::new("src/a.rs"));
        check(
            RunEvidence { unbuilt: Some(path), ..pass },
            &CacheDecision::NotBuilt(path.to_owned()),
            "the test reads `src/a.rs`, which may be out of date (fix the workspace's build)",
        );
        check(
            RunEvidence { changed_during_build: Some(path), ..pass },
            &CacheDecision::InputChanged(path.to_owned()),
            "input `src/a.rs` changed while the test ran (run the test again)",
        );
        check(
            RunEvidence { too_long: Some(path), ..pass },
            &CacheDecision::InputPathTooLong("src/a.rs".to_owned()),
            "`src/a.rs` may be an input, but its path is too long (exclude its directory in `inputs`)",
        );
        check_snapshot(
            SnapshotEvidence { change: change("a.txt", true, true), ..SnapshotEvidence::default() },
            &CacheDecision::ModifiedInput("a.txt".into()),
            "the test modifies its own input `a.txt` (declare it in `outputs`)",
        );
        check_snapshot(
            SnapshotEvidence { change: change("a.txt", true, false), ..SnapshotEvidence::default() },
            &CacheDecision::ModifiedInput("a.txt".into()),
            "the test modifies its own input `a.txt` (declare it in `outputs`)",
        );
        check_snapshot(
            SnapshotEvidence { change: change("", false, true), ..SnapshotEvidence::default() },
            &CacheDecision::InputChanged("".into()),
            "input `.` changed while the test ran (run the test again)",
        );
        check_snapshot(
            SnapshotEvidence { change: change("a.txt", false, false), ..SnapshotEvidence::default() },
            &CacheDecision::DependencyChanged("a.txt".into()),
            "the test read `a.txt`, which is not declared and had just changed \
             (declare it in `inputs`, or run the test again)",
        );
    }

    #[test]
    fn undeclared_reads_have_a_reason() {
        // The suite decides this one before the test runs.
        assert_eq!(
            &CacheDecision::UndeclaredReads.reason().unwrap(),
            "the test was seen to read more than it declares, and is not traced now \
             (extend `inputs`, or enable `testing.trace`)"
        );
        assert_eq!(CacheDecision::NoCache.reason(), None);
    }

    #[test]
    fn the_first_obstacle_decides() {
        let after = SnapshotEvidence { change: change("a.txt", true, true), ..SnapshotEvidence::default() };
        let check = |run: RunEvidence<'_>, decision| assert_eq!(decide_cacheability(&run, &after), decision);
        let run = RunEvidence { attempts: 2, has_inputs: false, clock_was_set: true, ..clean_pass() };
        check(run, CacheDecision::Flaky);
        check(RunEvidence { attempts: 1, ..run }, CacheDecision::NoInputs);
        check(RunEvidence { attempts: 1, has_inputs: true, ..run }, CacheDecision::ClockSet);
        check(clean_pass(), CacheDecision::ModifiedInput("a.txt".into()));
        let both = SnapshotEvidence { too_long: Some(Path::new("src/a.rs")), ..after };
        assert_eq!(both.obstacle(), Some(CacheDecision::InputPathTooLong("src/a.rs".to_owned())));
    }
}
