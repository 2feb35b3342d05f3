//! Runs tests that wait in the middle: for changes, or for a second run.

use std::fs;
use std::io::{BufRead, BufReader, Write as _};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use crate::Result;
use crate::directory::ProbeDirectory;
use crate::probe::{Expect, Probe};
use crate::steps::{BEGUN, GO, Step, perform};
use crate::tools::{Caching, TestRun, Tool};
use crate::trial::{Outcome, stale};

/// Runs a test that waits in the middle, and performs steps while it waits.
pub(crate) fn with_steps(
    directory: &ProbeDirectory,
    steps: &[Step],
    run: impl FnOnce() -> Result<TestRun>,
) -> Result<TestRun> {
    directory.create_pipes()?;
    std::thread::scope(|scope| {
        let changer = scope.spawn(|| -> Result<(), String> {
            fs::read(directory.path(BEGUN)).map_err(|error| error.to_string())?;
            let changed = perform(steps, directory).map_err(|error| error.to_string());
            fs::write(directory.path(GO), "").map_err(|error| error.to_string())?;
            changed
        });
        let finished = run();
        match changer.join() {
            Ok(Ok(())) => finished,
            Ok(Err(problem)) => Err(problem.into()),
            Err(_) => Err("the steps panicked".into()),
        }
    })
}

/// Maximum time until a run starts its test.
const START_MAX: Duration = Duration::from_secs(60);
/// Ends the pipe on which tests announce that they wait.
const END: &str = "end";
/// Maximum number of tests that wait in one probe.
const TESTS_MAX: usize = 8;

/// An event of one of two runs.
enum Event {
    TestStarted,
    RunEnded,
}

/// Starts a run, performs the steps in `during` while its test waits, starts another run, and lets
/// both continue.
pub(crate) fn two_runs(tool: &Tool, probe: &Probe, directory: &ProbeDirectory) -> Result<Outcome> {
    directory.create_pipes()?;
    let open = |name: &str| fs::File::options().read(true).write(true).open(directory.path(name));
    // Open for reading and writing, so that opening does not wait for the other end.
    let (begun, mut go) = (open(BEGUN)?, open(GO)?);
    let mut end = begun.try_clone()?;
    let (sender, events) = channel();
    let mut starts = 0;
    let runs = std::thread::scope(|scope| -> Result<_> {
        let announcements = sender.clone();
        scope.spawn(move || forward_starts(begun, &announcements));
        let run = |sender: Sender<Event>| {
            let run = tool.run(directory, &probe.env.first, Caching::On);
            let _ = sender.send(Event::RunEnded);
            run.map_err(|error| error.to_string())
        };
        let first = scope.spawn({
            let sender = sender.clone();
            move || run(sender)
        });
        starts += count_starts(&events, START_MAX);
        let changed = perform(probe.during.as_deref().unwrap_or_default(), directory);
        let second = scope.spawn(move || run(sender));
        starts += count_starts(&events, tool.second_start_max());
        // A line for both runs and for the uncached one. Unread lines stay in the pipe.
        let resumed = go.write_all(b"go\n".repeat(TESTS_MAX).as_slice());
        let runs = [first.join(), second.join()];
        starts += events.try_iter().filter(|event| matches!(event, Event::TestStarted)).count();
        let truth = tool.run(directory, &probe.env.first, Caching::Off);
        writeln!(end, "{END}")?;
        changed?;
        resumed?;
        let [Ok(first), Ok(second)] = runs else { return Err("a run panicked".into()) };
        Ok((first?, second?, truth?))
    });
    let (first, second, truth) = runs?;
    if !first.passed {
        return Err(format!("the first run failed: {}", first.output).into());
    }
    if second.passed != truth.passed {
        return Ok(stale(&second, &truth));
    }
    if probe.expect != Expect::Cached {
        return Ok(Outcome::Fresh);
    }
    Ok(match (starts, first.not_stored) {
        (1, _) => Outcome::RanOnce,
        // There was no result to share.
        (_, Some(reason)) => Outcome::NotStored(reason),
        _ => Outcome::RanTwice,
    })
}

/// Sends an event for each line of the pipe, up to the line that ends it.
fn forward_starts(pipe: fs::File, sender: &Sender<Event>) {
    let lines = BufReader::new(pipe).lines().map_while(std::result::Result::ok);
    for _ in lines.take_while(|line| line != END) {
        if sender.send(Event::TestStarted).is_err() {
            break;
        }
    }
}

/// Waits until a test starts or a run ends, and returns the number of tests that started.
fn count_starts(events: &Receiver<Event>, longest: Duration) -> usize {
    let deadline = Instant::now() + longest;
    match events.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
        Ok(Event::TestStarted) => 1,
        Ok(Event::RunEnded) | Err(_) => 0,
    }
}
