//! Runs one project's tests by its own runner and by Greenwave.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use super::checkout::{Checkout, in_directory};
use super::list::{Project, Runner};
use super::verdicts::{Report, Verdicts, pytest_name};
use crate::Result;

/// A fast suite is timed this many times on each side, a slow one fewer times.
const ROUNDS: usize = 3;
/// A suite whose rounds have taken this long is not timed again.
const TIMED_MAX: Duration = Duration::from_secs(60);
/// Processes that live this long after the command are services that it has left behind.
const ORPHANS_MAX: Duration = Duration::from_secs(2);

/// The file of Greenwave's cache in which all projects of a user share the hashes of files outside
/// of them, such as compilers and libraries.
const SHARED_HASHES: &str = "files";

/// Findings of a trial.
#[derive(Debug, Clone, Default)]
pub(super) struct Findings {
    pub(super) tests: usize,
    /// Tests whose verdicts differ between runs of the project's own runner.
    pub(super) flaky: usize,
    pub(super) differences: Vec<String>,
    pub(super) own: Cost,
    pub(super) first: Cost,
    pub(super) second: Cost,
    pub(super) units: usize,
    pub(super) cached: u64,
    pub(super) not_stored: BTreeSet<String>,
}

/// The cost of a run.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Cost {
    pub(super) wall: Duration,
    /// Processor time of the command and of all processes that it started.
    pub(super) cpu: Duration,
}

impl Cost {
    /// Returns the smaller of each.
    fn min(self, other: Self) -> Self {
        Self { wall: self.wall.min(other.wall), cpu: self.cpu.min(other.cpu) }
    }
}

/// A project that is ready, and the program that is tried.
#[derive(Debug)]
pub(super) struct Trial<'a> {
    pub(super) project: &'a Project,
    pub(super) checkout: &'a Checkout,
    pub(super) greenwave: &'a Path,
    pub(super) workers: usize,
}

impl Trial<'_> {
    /// Compares verdicts only, with one run of each.
    ///
    /// # Errors
    /// If a runner cannot be started or writes no report.
    pub(super) fn check(&self) -> Result<Findings> {
        let own = self.own()?;
        let ours = self.first()?.0;
        let mut findings = self.compare(&own, &ours)?;
        if !findings.differences.is_empty() {
            let again = self.own()?;
            let flaky = own.differing(&again);
            findings.differences = own.differences(&self.verdicts(&ours), &flaky);
        }
        Ok(findings)
    }

    /// Compares verdicts and times.
    ///
    /// # Errors
    /// If a runner cannot be started or writes no report.
    pub(super) fn measure(&self) -> Result<Findings> {
        let own = self.own()?;
        let again = self.own()?;
        let flaky = own.differing(&again);
        let mut findings = Findings::default();
        let mut differences = BTreeSet::new();
        let started = Instant::now();
        for round in 0..ROUNDS {
            let (_, own_cost) = timed(&mut self.own_command(None))?;
            let (report, first) = self.first()?;
            differences.extend(own.differences(&self.verdicts(&report), &flaky));
            findings.units = report.tests.len();
            let is_first = round == 0;
            findings.own = if is_first { own_cost } else { findings.own.min(own_cost) };
            findings.first = if is_first { first } else { findings.first.min(first) };
            if started.elapsed() > TIMED_MAX {
                break;
            }
        }
        let (second, cost) = self.greenwave()?;
        differences.extend(own.differences(&self.verdicts(&second), &flaky));
        findings.second = cost;
        findings.cached = second.cached;
        findings.not_stored = second.not_stored();
        findings.flaky = flaky.len();
        findings.tests = own.len();
        findings.differences = differences.into_iter().collect();
        Ok(findings)
    }

    fn compare(&self, own: &Verdicts, ours: &Report) -> Result<Findings> {
        if own.len() == 0 {
            return Err("the project's own runner ran no test".into());
        }
        let differences = own.differences(&self.verdicts(ours), &BTreeSet::new());
        Ok(Findings { tests: own.len(), differences, units: ours.tests.len(), ..Findings::default() })
    }

    /// Returns the verdicts of a run of Greenwave, with names like those of the project's runner.
    fn verdicts(&self, report: &Report) -> Verdicts {
        match self.project.runner {
            Runner::Pytest => Verdicts::from_greenwave(report, pytest_name),
            Runner::Npm => {
                let success = Verdicts::from_greenwave(report, str::to_owned).success;
                Verdicts { success, ..Verdicts::from_totals(&report.output()) }
            }
            Runner::Cargo => {
                let plain = |name: &str| name.strip_suffix(" - should panic").unwrap_or(name).to_owned();
                Verdicts::from_greenwave(report, plain)
            }
            Runner::Go | Runner::Ctest => Verdicts::from_greenwave(report, str::to_owned),
        }
    }

    /// Runs the project's own runner with a report.
    fn own(&self) -> Result<Verdicts> {
        let file = self.checkout.home.join("own-report.xml");
        let _ = fs::remove_file(&file);
        let (output, _) = timed(&mut self.own_command(Some(&file)))?;
        let printed = String::from_utf8_lossy(&output.stdout);
        fs::write(self.checkout.home.join("own.log"), [&output.stdout[..], &output.stderr[..]].concat())?;
        let verdicts = match self.project.runner {
            Runner::Pytest | Runner::Ctest => Verdicts::from_junit(&fs::read_to_string(&file)?)?,
            Runner::Cargo => Verdicts::from_libtest(&printed),
            Runner::Go => Verdicts::from_go(&printed),
            Runner::Npm => Verdicts::from_totals(&printed),
        };
        Ok(Verdicts { success: output.status.success(), ..verdicts })
    }

    /// Returns the command that a user of the project types, or a variation that writes a report.
    fn own_command(&self, report: Option<&Path>) -> Command {
        let directory = &self.checkout.directory;
        let shown = |file: &Path| file.to_string_lossy().into_owned();
        let (program, mut arguments): (PathBuf, Vec<String>) = match self.project.runner {
            Runner::Pytest => {
                let junit = report.map(|file| format!("--junitxml={}", shown(file)));
                let words = ["-m".to_owned(), "pytest".to_owned()].into_iter().chain(junit);
                (directory.join(".venv/bin/python"), words.collect())
            }
            Runner::Cargo => ("cargo".into(), ["test", "--no-fail-fast"].map(str::to_owned).to_vec()),
            Runner::Go => ("go".into(), ["test", "-count=1"].map(str::to_owned).to_vec()),
            Runner::Npm => ("npm".into(), vec!["test".to_owned()]),
            Runner::Ctest => {
                let junit = report.map(|file| ["--output-junit".to_owned(), shown(file)]);
                let words = ["--test-dir", "build"].map(str::to_owned);
                ("ctest".into(), words.into_iter().chain(junit.into_iter().flatten()).collect())
            }
        };
        if self.project.runner == Runner::Go {
            arguments.extend(report.map(|_| "-json".to_owned()));
            arguments.extend(["-p".to_owned(), self.workers.to_string(), "./...".to_owned()]);
        }
        let mut command = in_directory(&program.to_string_lossy(), directory);
        command.args(arguments);
        command
    }

    /// Runs Greenwave as if it had run on this machine, but never in this project.
    fn first(&self) -> Result<(Report, Cost)> {
        let hashes = fs::read(self.cache().join(SHARED_HASHES));
        for directory in [self.cache(), self.checkout.directory.join(".greenwave")] {
            let _ = fs::remove_dir_all(directory);
        }
        if let Ok(hashes) = hashes {
            fs::create_dir_all(self.cache())?;
            fs::write(self.cache().join(SHARED_HASHES), hashes)?;
        }
        self.greenwave()
    }

    fn greenwave(&self) -> Result<(Report, Cost)> {
        let mut command = in_directory(&self.greenwave.to_string_lossy(), &self.checkout.directory);
        command.args(["test", "--format", "json", "--jobs", &self.workers.to_string()]);
        command.arg(format!("--set=cache.directory={}", self.cache().display()));
        let (output, cost) = timed(&mut command)?;
        let printed = String::from_utf8_lossy(&output.stdout);
        fs::write(
            self.checkout.home.join("greenwave.log"),
            [&output.stdout[..], &output.stderr[..]].concat(),
        )?;
        let report = Report::parse(&printed)
            .map_err(|error| format!("{error}: {}", String::from_utf8_lossy(&output.stderr)))?;
        Ok((report, cost))
    }

    fn cache(&self) -> PathBuf {
        self.checkout.home.join("cache")
    }
}

fn timed(command: &mut Command) -> Result<(Output, Cost)> {
    let (cpu, started) = (children_cpu(), Instant::now());
    let output = command.output().map_err(|error| format!("cannot start {command:?}: {error}"))?;
    let wall = started.elapsed();
    reap_orphans();
    Ok((output, Cost { wall, cpu: children_cpu().saturating_sub(cpu) }))
}

/// Makes this process the parent of all descendants whose own parent ends.
///
/// Greenwave's supervisor and the tests below it outlive the process that started them by a
/// moment, so their processor time would count nowhere.
#[cfg(target_os = "linux")]
pub(super) fn adopt_orphans() -> Result<()> {
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
        .map_err(|error| format!("cannot become the parent of orphaned processes: {error}").into())
}

/// Without subreapers, the processor time of orphans does not count.
#[cfg(not(target_os = "linux"))]
pub(super) fn adopt_orphans() -> Result<()> {
    Ok(())
}

/// Waits for the orphans that were adopted, for at most [`ORPHANS_MAX`].
fn reap_orphans() {
    let started = Instant::now();
    while started.elapsed() < ORPHANS_MAX {
        match rustix::process::wait(rustix::process::WaitOptions::NOHANG) {
            Ok(Some(_)) | Err(rustix::io::Errno::INTR) => {}
            Ok(None) => std::thread::sleep(Duration::from_millis(5)),
            Err(_) => return,
        }
    }
}

/// Returns the processor time of all children that have ended, as `proc_pid_stat(5)` has it in
/// ticks of 10 ms; zero without that file.
fn children_cpu() -> Duration {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The name of the program, in parentheses, can contain anything.
    let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace();
    let ticks: u64 = fields.skip(13).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 10)
}
