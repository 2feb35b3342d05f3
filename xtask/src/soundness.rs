//! Tries to make `greenwave test`, and other tools where they are installed, give a stale pass: one probe for each way in which what a test depends on
//! can change unseen. Knows nothing of how results are kept.
//!
//! Each probe is a small project with one test, `sh test.sh`. It is run, something is changed, it is run again; then the same test is run without a
//! cache, which tells the truth. A verdict that differs from the truth is stale.

mod probe;
mod tool;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use probe::{CLOCK_RIGHT, PROBES, Probe};
use tool::{Ran, Tool};

use crate::Result;

/// Where this is set, nothing is skipped.
const REQUIRE: &str = "GREENWAVE_REQUIRE_SERVICES";

/// Longer than any file system's resolution.
const RESTED: Duration = Duration::from_millis(2_200);

/// What a tool made of a probe.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Verdict {
    /// It ran the test again, or the result that it knew was right.
    Sound(String),
    /// It gave a result that is wrong.
    Stale,
    /// It kept a result of a run during which something changed.
    Kept,
    /// It ran the test again although nothing had changed.
    Needless,
    /// It makes no sense for this tool, or what it takes is not installed.
    NotTried,
    /// The probe could not be carried out.
    Failed(String),
}

/// Runs all probes against `greenwave test`, and with `against` against every other tool that is installed; prints a table.
///
/// # Errors
/// If a verdict of ours is stale, or a probe cannot be carried out.
pub(crate) fn soundness(against: bool) -> Result<String> {
    let mut tools = vec![Tool::greenwave()?];
    if against {
        tools.extend(Tool::others());
    }
    let mut table = String::from("| probe |");
    for tool in &tools {
        let _ = write!(table, " {} |", tool.name());
    }
    table.push_str("\n| --- |");
    tools.iter().for_each(|_| table.push_str(" --- |"));
    table.push('\n');
    let verdicts = verdicts(&tools);
    let (mut bad, mut untried) = (Vec::new(), Vec::new());
    for (probe, verdicts) in PROBES.iter().zip(verdicts) {
        let _ = write!(table, "| {} |", probe.name);
        for (at, verdict) in verdicts.iter().enumerate() {
            let is_excused = *verdict == Verdict::NotTried && std::env::var_os(REQUIRE).is_none();
            if at == 0 && !matches!(verdict, Verdict::Sound(_)) && !is_excused {
                bad.push(format!("{}: {verdict:?}", probe.name));
            }
            if at == 0 && *verdict == Verdict::NotTried {
                untried.push(probe.name);
            }
            let _ = write!(table, " {} |", cell(verdict));
        }
        table.push('\n');
    }
    let remembered = remembered(&tools[0], &mut bad);
    match bad.as_slice() {
        [] if against => Ok(table),
        [] if untried.is_empty() => {
            Ok(format!("{} probes, {remembered} again after an answer, no stale result", PROBES.len()))
        }
        [] => Ok(format!(
            "{} probes, {remembered} again after an answer, no stale result; skipped, since there is no libfaketime: {}",
            PROBES.len() - untried.len(),
            untried.join(", ")
        )),
        bad => Err(format!("{}\n{table}", bad.join("\n")).into()),
    }
}

/// Probes that are carried out at once: most of them wait for files to come to rest. Other tools take more of the machine.
const AT_ONCE: usize = 8;
const AT_ONCE_WITH_OTHERS: usize = 2;

/// Each tool's verdict on each probe.
fn verdicts(tools: &[Tool]) -> Vec<Vec<Verdict>> {
    let at_once = if tools.len() > 1 { AT_ONCE_WITH_OTHERS } else { AT_ONCE };
    let failed = |error: Box<dyn std::error::Error>| Verdict::Failed(error.to_string());
    let verdict = |tool: &Tool, probe: &Probe| try_probe(tool, probe).unwrap_or_else(failed);
    of_each(at_once, |probe| tools.iter().map(|tool| verdict(tool, probe)).collect())
}

/// Tries the probes whose change comes between runs once more, after ours has remembered that all was known. Returns how many that were, since not every
/// test's result is kept.
fn remembered(tool: &Tool, bad: &mut Vec<String>) -> usize {
    let tried = of_each(AT_ONCE, |probe| {
        let can_be = probe.during.is_none() && !probe.at_once && !probe.is_cargo && tool.can_try(probe);
        if can_be { try_remembered(tool, probe).map_err(|error| error.to_string()) } else { Ok(None) }
    });
    let mut count = 0;
    for (probe, verdict) in PROBES.iter().zip(tried) {
        match verdict {
            Ok(None) => {}
            Ok(Some(Verdict::Sound(_))) => count += 1,
            Ok(Some(verdict)) => bad.push(format!("{}, after an answer: {verdict:?}", probe.name)),
            Err(error) => bad.push(format!("{}, after an answer: {error}", probe.name)),
        }
    }
    if count < REMEMBERED_MIN {
        bad.push(format!("only {count} probes were tried after an answer"));
    }
    count
}

/// Of 47 the results are stored, of one of them only where there is libfaketime.
const REMEMBERED_MIN: usize = 45;

/// How often it is waited for files to rest: on a busy machine something is written late.
const WAITS_MAX: usize = 3;

/// `None` if nothing was remembered.
fn try_remembered(tool: &Tool, probe: &Probe) -> Result<Option<Verdict>> {
    let place = Place::of(tool, probe)?;
    let verdict = try_remembered_in(tool, probe, &place);
    (probe.after)(&place)?;
    verdict
}

fn try_remembered_in(tool: &Tool, probe: &Probe, place: &Place) -> Result<Option<Verdict>> {
    let answer = place.path("project/.greenwave/tests/answer");
    let mut known = tool.run_plainly(place, probe.env.0)?;
    for _ in 0..WAITS_MAX {
        std::thread::sleep(RESTED);
        // What it says now, it finds out; and the next time that all is as it was.
        known = tool.run_plainly(place, probe.env.0)?;
        if answer.exists() {
            break;
        }
    }
    if !answer.exists() {
        return Ok(None);
    }
    let again = tool.run_plainly(place, probe.env.0)?;
    if !known.was_known || !again.was_known {
        return Ok(Some(Verdict::Needless));
    }
    (probe.change)(place)?;
    let second = tool.run_plainly(place, probe.env.1)?;
    let truth = tool.run(place, probe.env.1, false)?;
    Ok(Some(match second.passed == truth.passed {
        false => Verdict::Stale,
        true if probe.same && !second.was_known => Verdict::Needless,
        true => Verdict::Sound("fresh".to_owned()),
    }))
}

/// What comes of each probe, some of them at once.
fn of_each<T: Send>(at_once: usize, of: impl Fn(&Probe) -> T + Sync) -> Vec<T> {
    let next = AtomicUsize::new(0);
    let found = Mutex::new(BTreeMap::new());
    std::thread::scope(|scope| {
        for _ in 0..at_once {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(probe) = PROBES.get(at) else { break };
                    let it = of(probe);
                    found.lock().unwrap_or_else(PoisonError::into_inner).insert(at, it);
                }
            });
        }
    });
    found.into_inner().unwrap_or_else(PoisonError::into_inner).into_values().collect()
}

fn cell(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Sound(how) => how.clone(),
        Verdict::Stale => "**stale**".to_owned(),
        Verdict::Kept => "**kept**".to_owned(),
        Verdict::Needless => "ran again".to_owned(),
        Verdict::NotTried => "not tried".to_owned(),
        Verdict::Failed(why) => format!("not carried out: {}", why.lines().next().unwrap_or_default()),
    }
}

/// A folder of a probe's own.
pub(crate) struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    /// Ready for a probe's first run.
    fn of(tool: &Tool, probe: &Probe) -> Result<Self> {
        let place = Self::new()?;
        if !probe.is_cargo {
            write(&place.path("project/test.sh"), probe.script)?;
        }
        if probe.has_clock {
            write(&place.path("outside/clock"), CLOCK_RIGHT)?;
        }
        (probe.before)(&place)?;
        tool.prepare(&place, probe)?;
        Ok(place)
    }

    fn new() -> Result<Self> {
        let place = Self { folder: tempfile::tempdir()? };
        for name in ["project/in", "outside/bin", "cache"] {
            fs::create_dir_all(place.path(name))?;
        }
        Ok(place)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn project(&self) -> PathBuf {
        self.path("project")
    }
}

fn try_probe(tool: &Tool, probe: &Probe) -> Result<Verdict> {
    if !tool.can_try(probe) {
        return Ok(Verdict::NotTried);
    }
    let place = Place::of(tool, probe)?;
    let verdict = try_in(tool, probe, &place);
    (probe.after)(&place)?;
    verdict
}

fn try_in(tool: &Tool, probe: &Probe, place: &Place) -> Result<Verdict> {
    // Files that have rested are trusted by their stamps, which is what many probes are about.
    if probe.rests || tool.wants_rest() {
        std::thread::sleep(RESTED);
    }
    if probe.at_once {
        return try_at_once(tool, probe, place);
    }
    let first = with_changes(place, probe.during, || tool.run(place, probe.env.0, true))?;
    if !first.passed {
        return Err(format!("the first run failed: {}", first.text).into());
    }
    // What was changed and changed back during the run can be told by nothing but this.
    if probe.during.is_some() && matches!(tool, Tool::Greenwave(_)) && first.refused.is_none() {
        return Ok(Verdict::Kept);
    }
    if probe.rests && probe.during.is_none() {
        // Once more, so that what is known of files comes from their stamps.
        tool.run(place, probe.env.0, true)?;
    }
    (probe.change)(place)?;
    let second = tool.run(place, probe.env.1, true)?;
    let truth = tool.run(place, probe.env.1, false)?;
    if second.passed != truth.passed {
        return Ok(Verdict::Stale);
    }
    if probe.same && !second.was_known {
        return Ok(Verdict::Needless);
    }
    // Where a probe's folder was is nobody's business.
    let place = place.folder.path().display().to_string();
    Ok(Verdict::Sound(how(&first, &second, probe).replace(&place, "..")))
}

fn how(first: &Ran, second: &Ran, probe: &Probe) -> String {
    match (&first.refused, second.was_known) {
        (Some(reason), _) => format!("refused to store: {reason}"),
        (None, true) if probe.same => "known".to_owned(),
        (None, true) => "known, and right".to_owned(),
        (None, false) => "fresh".to_owned(),
    }
}

/// How long a run may take to come to its test.
const STARTS_MAX: Duration = Duration::from_secs(60);
/// How often it is looked whether it has.
const LOOKS_EVERY: Duration = Duration::from_millis(20);

/// Starts a run, changes something while its test waits in the middle, starts another, and lets both go on.
fn try_at_once(tool: &Tool, probe: &Probe, place: &Place) -> Result<Verdict> {
    make_pipes(place)?;
    let open = |name: &str| fs::File::options().read(true).write(true).open(place.path(name));
    // Open at both ends, so that nobody waits for the other end.
    let (begun, mut go) = (open("outside/begun")?, open("outside/go")?);
    let mut end = begun.try_clone()?;
    let starts = AtomicUsize::new(0);
    let wait_for = |count: usize, longest: Duration, goes_on: &dyn Fn() -> bool| {
        let by = Instant::now() + longest;
        while starts.load(Ordering::Relaxed) < count && Instant::now() < by && goes_on() {
            std::thread::sleep(LOOKS_EVERY);
        }
    };
    let runs = std::thread::scope(|scope| -> Result<_> {
        scope.spawn(|| {
            for line in BufReader::new(begun).lines().map_while(std::result::Result::ok) {
                match line.as_str() {
                    THE_END => break,
                    _ => starts.fetch_add(1, Ordering::Relaxed),
                };
            }
        });
        let run = || tool.run(place, probe.env.0, true).map_err(|error| error.to_string());
        let first = scope.spawn(run);
        wait_for(1, STARTS_MAX, &|| !first.is_finished());
        let changed = probe.during.map_or(Ok(()), |change| change(place));
        let second = scope.spawn(run);
        wait_for(2, tool.starts_within(), &|| !second.is_finished());
        // For both, and for one that tells the truth; whoever does not need it leaves it there.
        let told = go.write_all(b"go\n".repeat(TESTS_MAX).as_slice());
        let runs = [first.join(), second.join()];
        let so_often = starts.load(Ordering::Relaxed);
        let truth = tool.run(place, probe.env.1, false);
        writeln!(end, "{THE_END}")?;
        changed?;
        told?;
        let [Ok(first), Ok(second)] = runs else { return Err("a run panicked".into()) };
        Ok((first?, second?, truth?, so_often))
    });
    let (first, second, truth, so_often) = runs?;
    if !first.passed {
        return Err(format!("the first run failed: {}", first.text).into());
    }
    Ok(match (second.passed == truth.passed, probe.same, so_often) {
        (false, ..) => Verdict::Stale,
        (true, true, 1) => Verdict::Sound("ran once for both".to_owned()),
        (true, true, _) if !tool.shares_runs() => Verdict::Sound("ran twice".to_owned()),
        (true, true, _) => match first.refused {
            // Whoever came late had nothing to take.
            Some(reason) => return Err(format!("the first result was not kept: {reason}").into()),
            None => Verdict::Needless,
        },
        (true, false, _) => Verdict::Sound("fresh".to_owned()),
    })
}

/// What ends the pipe by which tests tell that they have begun.
const THE_END: &str = "the end";
/// More tests than this do not wait in one probe.
const TESTS_MAX: usize = 8;

/// Several of the ticks by which a file that just came is told from one that was there.
const PIPES_RESTED: Duration = Duration::from_millis(200);

/// Makes the pipes by which a test tells that it waits, and is told that it may go on.
fn make_pipes(place: &Place) -> Result<()> {
    for name in ["outside/begun", "outside/go"] {
        let made = std::process::Command::new("mkfifo").arg(place.path(name)).status()?;
        if !made.success() {
            return Err("mkfifo failed".into());
        }
    }
    // Pipes that are as young as the run are a reason not to keep its result, and are not what the probe is about.
    std::thread::sleep(PIPES_RESTED);
    Ok(())
}

/// Runs a test that waits in the middle, and changes something while it waits.
fn with_changes(
    place: &Place,
    during: Option<fn(&Place) -> Result<()>>,
    run: impl FnOnce() -> Result<Ran>,
) -> Result<Ran> {
    let Some(change) = during else { return run() };
    make_pipes(place)?;
    let (begun, go) = (place.path("outside/begun"), place.path("outside/go"));
    std::thread::scope(|scope| {
        let changer = scope.spawn(move || -> Result<(), String> {
            fs::read(&begun).map_err(|error| error.to_string())?;
            let changed = change(place).map_err(|error| error.to_string());
            fs::write(&go, "").map_err(|error| error.to_string())?;
            changed
        });
        let ran = run();
        match changer.join() {
            Ok(Ok(())) => ran,
            Ok(Err(problem)) => Err(problem.into()),
            Err(_) => Err("the change panicked".into()),
        }
    })
}

/// Writes a file, and the folders that it is in.
pub(crate) fn write(path: &Path, text: &str) -> Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    Ok(fs::write(path, text)?)
}
