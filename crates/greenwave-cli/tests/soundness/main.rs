//! Tries to make `greenwave test` report a stale pass.
//!
//! Each probe (a file in `probes`) is a small project with one test. The test runs, something that
//! it depends on changes, the test runs again, and then once more without a cache. A verdict that
//! differs from the uncached one is stale. Probes whose change comes between runs are tried a
//! second time after an up-to-date record was written. Each probe is also tried without declared
//! inputs while a file that the test does not read changes, so that only its trace decides.
//!
//! `GREENWAVE_SOUNDNESS_AGAINST=1` prints a table of all probes against all test runners that are
//! installed instead.
#![cfg(unix)]
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a test program prints its results")]

mod concurrent;
mod directory;
mod probe;
mod steps;
mod tools;
mod trial;

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use libtest_mimic::{Arguments, Completion, Failed, Trial};

use probe::Probe;
use tools::Tool;
use trial::{Outcome, can_follow_record, try_after_record, try_probe};

type Result<T, E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

/// Probes that run at the same time. Most of them wait for files to settle.
const PARALLEL: usize = 12;
/// Other tools need more of the machine.
const PARALLEL_AGAINST: usize = 2;

/// Probes that must be tried after an up-to-date record. The results of 47 are stored.
const AFTER_RECORD_MIN: usize = 45;

fn main() -> ExitCode {
    let probes = match Probe::load_all() {
        Ok(probes) => probes.into_iter().map(Arc::new).collect::<Vec<_>>(),
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::FAILURE;
        }
    };
    if std::env::var_os("GREENWAVE_SOUNDNESS_AGAINST").is_some() {
        return print_table(&probes);
    }
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(PARALLEL);
    let after_record = Arc::new(AtomicUsize::new(0));
    let trials = probes.iter().flat_map(|probe| trials(probe, &after_record));
    let conclusion = libtest_mimic::run(&arguments, trials.collect());
    let is_complete = arguments.filter.is_none() && arguments.skip.is_empty() && !arguments.list;
    let count = after_record.load(Ordering::Relaxed);
    if is_complete && count < AFTER_RECORD_MIN {
        eprintln!("error: only {count} probes were tried after an up-to-date record");
        return ExitCode::FAILURE;
    }
    conclusion.exit_code()
}

/// Returns the trials of a probe.
fn trials(probe: &Arc<Probe>, after_record: &Arc<AtomicUsize>) -> Vec<Trial> {
    let name = probe.name.clone();
    let first = Arc::clone(probe);
    let mut trials = vec![Trial::ignorable_test(name.clone(), move || check(&Tool::Greenwave, &first))];
    if Tool::Trace.can_try(probe) {
        let probe = Arc::clone(probe);
        let name = format!("{name} (by the trace alone)");
        trials.push(Trial::ignorable_test(name, move || check(&Tool::Trace, &probe)));
    }
    if can_follow_record(probe) {
        let (probe, count) = (Arc::clone(probe), Arc::clone(after_record));
        let name = format!("{name} (after an up-to-date record)");
        trials.push(Trial::ignorable_test(name, move || check_after_record(&probe, &count)));
    }
    trials
}

fn check(tool: &Tool, probe: &Probe) -> Result<Completion, Failed> {
    let by_trace = probe.expect_by_trace.filter(|_| matches!(tool, Tool::Trace));
    match try_probe(tool, probe)? {
        Outcome::NotTried => Err(format!("{} cannot try the probe", tool.name()).into()),
        outcome => Ok(outcome.check(by_trace.unwrap_or(probe.expect)).map(|()| Completion::Completed)?),
    }
}

fn check_after_record(probe: &Probe, count: &AtomicUsize) -> Result<Completion, Failed> {
    match try_after_record(probe)? {
        None => Ok(Completion::ignored_with("the result is not stored")),
        Some(Outcome::Stale(runs)) => Err(format!("a stale result\n{runs}").into()),
        Some(outcome) if probe.expect == probe::Expect::Cached && outcome != Outcome::Cached => {
            Err(format!("expected a cached result, found: {outcome}").into())
        }
        Some(_) => {
            count.fetch_add(1, Ordering::Relaxed);
            Ok(Completion::Completed)
        }
    }
}

/// Prints the outcome of each probe with each tool.
fn print_table(probes: &[Arc<Probe>]) -> ExitCode {
    let mut tools = vec![Tool::Greenwave];
    tools.extend(Tool::others());
    let names: Vec<_> = tools.iter().map(Tool::name).collect();
    println!("| probe | {} |\n| --- |{}", names.join(" | "), " --- |".repeat(tools.len()));
    let next = AtomicUsize::new(0);
    let rows = Mutex::new(vec![String::new(); probes.len()]);
    std::thread::scope(|scope| {
        for _ in 0..PARALLEL_AGAINST {
            scope.spawn(|| {
                while let Some(probe) = probes.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let row = row(probe, &tools);
                    let mut rows = rows.lock().unwrap_or_else(PoisonError::into_inner);
                    let index = probes.iter().position(|other| Arc::ptr_eq(other, probe));
                    rows[index.expect("the probe is from this list")] = row;
                }
            });
        }
    });
    let rows = rows.into_inner().unwrap_or_else(PoisonError::into_inner);
    rows.iter().for_each(|row| println!("{row}"));
    ExitCode::SUCCESS
}

fn row(probe: &Probe, tools: &[Tool]) -> String {
    let cells = tools.iter().map(|tool| match try_probe(tool, probe) {
        Ok(outcome) => outcome.to_string(),
        Err(error) => {
            format!("failed: {}", error.to_string().lines().next().unwrap_or_default())
        }
    });
    format!("| {} | {} |", probe.name, cells.collect::<Vec<_>>().join(" | "))
}
